/**
 * A target: packets of any length, whole and changed, for every implementation of an AEAD that this Node has. Each must
 * say of a packet what node:crypto says of it, and write nowhere else.
 */
import {
  AEAD_NAMES,
  NONCE_LENGTH,
  TAG_LENGTH,
  type AeadBackend,
  type AeadCipher,
  type AeadName,
} from '../../lib/base/aead-backend.ts'
import { equal, toHex } from '../../lib/base/bytes.ts'
import { ffiProblem } from '../../lib/base/ffi.ts'
import { NOBLE_AEADS, NODE_AEADS } from '../../lib/crypto/aead.ts'
import { makeEvpAeads } from '../../lib/node/evp-aead.ts'
import { Random } from '../harness/random.ts'
import { pick, randomOctets } from './mutate.ts'
import type { Story } from './stateful.ts'

const KEY_LENGTHS: Readonly<Record<AeadName, number>> = {
  aes128gcm16: 16,
  aes192gcm16: 24,
  aes256gcm16: 32,
  chacha20poly1305: 32,
}
const PACKETS = 8
const MARGIN = 16

const all: readonly Readonly<Record<AeadName, AeadBackend>>[] = [
  NOBLE_AEADS,
  ...(ffiProblem() === undefined ? [makeEvpAeads()] : []),
]

interface Sealed {
  readonly bytes: Uint8Array
  readonly from: number
  readonly to: number
  readonly nonce: Uint8Array
  readonly aad: Uint8Array
}

const must = (truth: boolean, what: string): void => {
  if (!truth) throw new Error(what)
}

/** An exception refuses too. */
const opened = (cipher: AeadCipher, packet: Sealed): Uint8Array | undefined => {
  const { from, to, nonce, aad } = packet
  try {
    return cipher.open(packet.bytes, from, to, nonce, aad)
  } catch {
    return undefined
  }
}

/** One thing about it is another: an octet, what is taken for the packet, the nonce or the associated data. */
const changed = (random: Random, packet: Sealed): Sealed => {
  const copy = { ...packet, nonce: packet.nonce.slice(), aad: packet.aad.slice() }
  switch (random.integer(0, 5)) {
    case 0:
      copy.nonce[random.integer(0, NONCE_LENGTH - 1)]! ^= 1 << random.integer(0, 7)
      return copy
    case 1:
      copy.aad[random.integer(0, copy.aad.length - 1)]! ^= 1 << random.integer(0, 7)
      return copy
    case 2:
      return { ...copy, to: random.integer(copy.from, copy.to) }
    case 3:
      return { ...copy, from: random.integer(copy.from, copy.to) }
    default: {
      const bytes = copy.bytes.slice()
      bytes[random.integer(copy.from, copy.to + TAG_LENGTH - 1)]! ^= 1 << random.integer(0, 7)
      return { ...copy, bytes }
    }
  }
}

const lengthOf = (random: Random): number =>
  random.chance(0.05) ? random.integer(20_000, 65_000) : random.integer(0, 1500)

const one = (random: Random, name: AeadName, reference: AeadCipher, cipher: AeadCipher): void => {
  const from = random.integer(0, MARGIN)
  const to = from + lengthOf(random)
  const plain = randomOctets(random, to + TAG_LENGTH + random.integer(0, MARGIN))
  const nonce = randomOctets(random, NONCE_LENGTH)
  const aad = randomOctets(random, random.chance(0.1) ? random.integer(8, 2500) : 8)
  const bytes = plain.slice()
  const wanted = plain.slice()
  cipher.seal(bytes, from, to, nonce, aad)
  reference.seal(wanted, from, to, nonce, aad)
  must(equal(bytes, wanted), `${name}: another packet of ${to - from} octets`)
  const whole: Sealed = { bytes: wanted, from, to, nonce, aad }
  const packet = random.chance(0.3) ? whole : changed(random, whole)
  const mine = { ...packet, bytes: packet.bytes.slice() }
  const found = opened(cipher, mine)
  const right = opened(reference, { ...packet, bytes: packet.bytes.slice() })
  must((found === undefined) === (right === undefined), `${name}: another verdict`)
  if (found !== undefined)
    must(equal(found, right!), `${name}: ${toHex(found.subarray(0, 32))}… is another plaintext`)
  const isKept = packet.bytes.every(
    (octet, at) => (at >= packet.from && at < packet.to) || mine.bytes[at] === octet,
  )
  must(isKept, `${name}: octets that are not its own have changed`)
}

export const aeads: Story = {
  name: 'aeads',
  run: seed => {
    const random = new Random(seed)
    const name = pick(random, AEAD_NAMES)
    const key = randomOctets(random, KEY_LENGTHS[name])
    const reference = NODE_AEADS[name].create(key.slice())
    for (const backends of all) {
      const cipher = backends[name].create(key.slice())
      for (let i = 0; i < PACKETS; i++) one(random, name, reference, cipher)
      cipher.destroy()
    }
    reference.destroy()
    return PACKETS * all.length
  },
}
