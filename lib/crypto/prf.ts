/** Pseudorandom functions and prf+ (RFC 7296 §2.13), and the plain hashes IKE needs. */
import { createHmac, hash as hashOnce, type KeyObject } from 'node:crypto'
import { concat } from '../base/bytes.ts'
import { secretOctets } from '../base/secret.ts'
import { HashAlgorithm, Prf as PrfId } from '../wire/registry.ts'
import { noble } from './noble.ts'

/** `auto` takes the faster one for each algorithm; `noble` needs OpenSSL for RSA and MODP only. */
export type Backend = 'auto' | 'node' | 'noble'

export interface Prf {
  readonly id: number
  /** Octets of the output, which is also the preferred key length. */
  readonly length: number
  compute(key: Uint8Array, ...data: readonly Uint8Array[]): Uint8Array
}

const HASHES = {
  [HashAlgorithm.Sha1]: 'sha1',
  [HashAlgorithm.Sha2_256]: 'sha256',
  [HashAlgorithm.Sha2_384]: 'sha384',
  [HashAlgorithm.Sha2_512]: 'sha512',
} as const

type HashId = keyof typeof HASHES

const PRFS: Readonly<Record<number, { readonly hash: HashId; readonly length: number }>> = {
  [PrfId.HmacSha1]: { hash: HashAlgorithm.Sha1, length: 20 },
  [PrfId.HmacSha2_256]: { hash: HashAlgorithm.Sha2_256, length: 32 },
  [PrfId.HmacSha2_384]: { hash: HashAlgorithm.Sha2_384, length: 48 },
  [PrfId.HmacSha2_512]: { hash: HashAlgorithm.Sha2_512, length: 64 },
}

/** Undefined for a PRF that we do not support. */
export const createPrf = (backend: Backend, id: number): Prf | undefined => {
  const facts = PRFS[id]
  if (facts === undefined) return undefined
  const { hash, length } = facts
  return { id, length, compute: (key, ...data) => computeHmac(backend, hash, key, data) }
}

/** The output may be a key, so it lies in memory that the collector does not move. */
export const computeHmac = (
  backend: Backend,
  hash: HashId,
  key: Uint8Array,
  data: readonly Uint8Array[],
): Uint8Array => {
  if (backend === 'noble') {
    const { hmac, [HASHES[hash]]: algorithm } = noble()
    const mac = hmac.create(algorithm, key)
    for (const part of data) mac.update(part)
    const output = secretOctets(algorithm.outputLen)
    mac.digestInto(output)
    return output
  }
  return nodeHmac(hash, key, data)
}

/** On node:crypto. */
export const nodeHmac = (hash: HashId, key: Uint8Array, data: readonly Uint8Array[]): Uint8Array =>
  hashedHmac(hash, key, data) ?? keyedHmac(hash, key, data)

/** The same with a fixed key. */
export const keyedHmac = (
  hash: HashId,
  key: Uint8Array | KeyObject,
  data: readonly Uint8Array[],
): Uint8Array => {
  const mac = createHmac(HASHES[hash], key)
  for (const part of data) mac.update(part)
  return viewOf(mac.digest())
}

const BLOCKS: Readonly<Record<HashId, number>> = {
  [HashAlgorithm.Sha1]: 64,
  [HashAlgorithm.Sha2_256]: 64,
  [HashAlgorithm.Sha2_384]: 128,
  [HashAlgorithm.Sha2_512]: 128,
}
const INNER_PAD = 0x36
const OUTER_PAD = 0x5c
/** Holds zeros except while an HMAC is computed. */
const scratch = secretOctets(2048)

/** The first octets of `scratch`, by how many they are: a new SA asks dozens of times, always for the same few. */
const firsts = new Array<Uint8Array | undefined>(scratch.length + 1)
const firstOf = (length: number): Uint8Array => (firsts[length] ??= scratch.subarray(0, length))

/** Octet by octet: V8 compiles this loop, whereas `fill` calls out of compiled code. */
const padKey = (key: Uint8Array, block: number, pad: number): void => {
  for (let i = 0; i < block; i++) scratch[i] = i < key.length ? key[i]! ^ pad : pad
}

/**
 * RFC 2104 §2 by two one-shot hashes. `createHmac` leaves an object to the collector every time, and on Node 24 it takes
 * ten times as long for a key that is not a KeyObject. Undefined: the message is too long for this.
 */
const hashedHmac = (
  hash: HashId,
  key: Uint8Array,
  data: readonly Uint8Array[],
): Uint8Array | undefined => {
  const block = BLOCKS[hash]
  let end = block
  for (const { length } of data) end += length
  if (key.length > block || end > scratch.length) return undefined
  const name = HASHES[hash]
  padKey(key, block, INNER_PAD)
  let at = block
  for (const part of data) {
    scratch.set(part, at)
    at += part.length
  }
  const inner = hashOnce(name, firstOf(end), 'buffer')
  padKey(key, block, OUTER_PAD)
  scratch.set(inner, block)
  const mac = viewOf(hashOnce(name, firstOf(block + inner.length), 'buffer'))
  inner.fill(0)
  scratch.fill(0, 0, Math.max(end, block + inner.length))
  return mac
}

/** A view of the same memory, which belongs to the caller alone: a copy would have to be wiped, too. */
const viewOf = ({ buffer, byteOffset, length }: Buffer): Uint8Array =>
  new Uint8Array(buffer, byteOffset, length)

export const computeHash = (
  backend: Backend,
  hash: HashId,
  ...data: readonly Uint8Array[]
): Uint8Array => {
  const name = HASHES[hash]
  if (backend === 'noble') {
    const state = noble()[name].create()
    for (const part of data) state.update(part)
    return state.digest()
  }
  return viewOf(hashOnce(name, data.length === 1 ? data[0]! : concat(...data), 'buffer'))
}

/** The caller wipes it. RFC 7296 §2.13: T1 | T2 | …, each over the one before, the seed and a counter of one octet. */
export const prfPlus = (
  prf: Prf,
  key: Uint8Array,
  seed: Uint8Array,
  length: number,
): Uint8Array => {
  if (length > 255 * prf.length) throw new RangeError('prf+ gives no more than 255 blocks')
  const output = secretOctets(length)
  // The block before, the seed, and the counter.
  const input = secretOctets(prf.length + seed.length + 1)
  input.set(seed, prf.length)
  const first = input.subarray(prf.length)
  for (let at = 0, counter = 1; at < length; at += prf.length, counter++) {
    input[input.length - 1] = counter
    const block = prf.compute(key, counter === 1 ? first : input)
    output.set(at + block.length > length ? block.subarray(0, length - at) : block, at)
    input.set(block)
    block.fill(0)
  }
  input.fill(0)
  return output
}
