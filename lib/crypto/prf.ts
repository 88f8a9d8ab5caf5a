/** Pseudorandom functions and prf+ (RFC 7296 §2.13), and the plain hashes IKE needs. */
import { createHash, createHmac, type KeyObject } from 'node:crypto'
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

/** Undefined for a PRF we do not have. */
export const createPrf = (backend: Backend, id: number): Prf | undefined => {
  const facts = PRFS[id]
  if (facts === undefined) return undefined
  const { hash, length } = facts
  return { id, length, compute: (key, ...data) => computeHmac(backend, hash, key, data) }
}

/** The output is in memory that the collector does not move, since it may be a key. */
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

/** On node:crypto, which has the key in a KeyObject just as well. */
export const nodeHmac = (
  hash: HashId,
  key: Uint8Array | KeyObject,
  data: readonly Uint8Array[],
): Uint8Array => {
  const mac = createHmac(HASHES[hash], key)
  for (const part of data) mac.update(part)
  return viewOf(mac.digest())
}

/** The same memory, which is the caller's alone: a copy of it would be one more to wipe. */
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
  const state = createHash(name)
  for (const part of data) state.update(part)
  return new Uint8Array(state.digest())
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
  for (let at = 0, counter = 1; at < length; at += prf.length, counter++) {
    input[input.length - 1] = counter
    const block = prf.compute(key, counter === 1 ? input.subarray(prf.length) : input)
    output.set(block.subarray(0, length - at), at)
    input.set(block)
    block.fill(0)
  }
  input.fill(0)
  return output
}
