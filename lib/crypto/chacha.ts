/**
 * ChaCha20-Poly1305 (RFC 8439 §2.8) that leaves no key behind. noble's implementation copies the key into V8's heap for
 * each packet, where the collector moves it and leaves octets that nobody can overwrite. noble's Poly1305 is used as it
 * is, because each of its keys serves one packet only.
 */
import { TAG_LENGTH } from '../base/aead-backend.ts'
import { concat, equal } from '../base/bytes.ts'
import { secretOctets } from '../base/secret.ts'
import { noble } from './noble.ts'

const BLOCK = 64

/** One packet is finished before the next begins, so all keys share this place; it is overwritten after each packet. */
const initial = new Uint32Array(secretOctets(BLOCK).buffer)
const working = new Uint32Array(secretOctets(BLOCK).buffer)
const stream = secretOctets(BLOCK)

/** `encrypt` returns ciphertext and tag; `decrypt` takes both, and throws when the tag is wrong. */
export const chacha20Poly1305 = (key: Uint8Array, nonce: Uint8Array, aad: Uint8Array) => ({
  encrypt(plaintext: Uint8Array): Uint8Array {
    const output = new Uint8Array(plaintext.length + TAG_LENGTH)
    output.set(plaintext)
    const ciphertext = output.subarray(0, plaintext.length)
    load(key, nonce)
    const mac = authenticator()
    xorStream(ciphertext)
    wipe()
    output.set(mac(aad, ciphertext), plaintext.length)
    return output
  },
  decrypt(bytes: Uint8Array): Uint8Array {
    const text = bytes.slice(0, -TAG_LENGTH)
    load(key, nonce)
    const isGenuine = equal(authenticator()(aad, text), bytes.subarray(-TAG_LENGTH))
    if (isGenuine) xorStream(text)
    wipe()
    if (!isGenuine) throw new Error('the tag does not verify')
    return text
  },
})

/** RFC 8439 §2.3: constants, key, block counter, nonce. */
const load = (key: Uint8Array, nonce: Uint8Array): void => {
  initial.set([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574])
  for (let i = 0; i < 8; i++) initial[4 + i] = word(key, 4 * i)
  for (let i = 0; i < 3; i++) initial[13 + i] = word(nonce, 4 * i)
}

const wipe = (): void => {
  initial.fill(0)
  working.fill(0)
  stream.fill(0)
}

const word = (bytes: Uint8Array, at: number): number =>
  bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)

/** §2.6, §2.8: the key of Poly1305 is the first half of block 0. */
const authenticator = (): ((aad: Uint8Array, ciphertext: Uint8Array) => Uint8Array) => {
  computeBlock(0)
  const oneTimeKey = stream.slice(0, 32)
  return (aad, ciphertext) => {
    const lengths = new Uint8Array(16)
    const view = new DataView(lengths.buffer)
    view.setUint32(0, aad.length, true)
    view.setUint32(8, ciphertext.length, true)
    const tag = noble().poly1305(
      concat(aad, padding(aad), ciphertext, padding(ciphertext), lengths),
      oneTimeKey,
    )
    oneTimeKey.fill(0)
    return tag
  }
}

const padding = (bytes: Uint8Array): Uint8Array => new Uint8Array(-bytes.length & 15)

/** §2.4: from block 1 on. */
const xorStream = (bytes: Uint8Array): void => {
  for (let at = 0, counter = 1; at < bytes.length; at += BLOCK, counter++) {
    computeBlock(counter)
    const length = Math.min(BLOCK, bytes.length - at)
    for (let i = 0; i < length; i++) bytes[at + i]! ^= stream[i]!
  }
}

/** §2.3.1, into `stream`. */
const computeBlock = (counter: number): void => {
  initial[12] = counter
  working.set(initial)
  for (let round = 0; round < 10; round++) {
    quarterRound(0, 4, 8, 12)
    quarterRound(1, 5, 9, 13)
    quarterRound(2, 6, 10, 14)
    quarterRound(3, 7, 11, 15)
    quarterRound(0, 5, 10, 15)
    quarterRound(1, 6, 11, 12)
    quarterRound(2, 7, 8, 13)
    quarterRound(3, 4, 9, 14)
  }
  for (let i = 0; i < 16; i++) {
    const sum = working[i]! + initial[i]!
    stream[4 * i] = sum
    stream[4 * i + 1] = sum >>> 8
    stream[4 * i + 2] = sum >>> 16
    stream[4 * i + 3] = sum >>> 24
  }
}

/** §2.1. */
const quarterRound = (i: number, j: number, k: number, l: number): void => {
  let a = working[i]! | 0
  let b = working[j]! | 0
  let c = working[k]! | 0
  let d = working[l]! | 0
  a = (a + b) | 0
  d = rotate(d ^ a, 16)
  c = (c + d) | 0
  b = rotate(b ^ c, 12)
  a = (a + b) | 0
  d = rotate(d ^ a, 8)
  c = (c + d) | 0
  b = rotate(b ^ c, 7)
  working[i] = a
  working[j] = b
  working[k] = c
  working[l] = d
}

const rotate = (value: number, bits: number): number => (value << bits) | (value >>> (32 - bits))
