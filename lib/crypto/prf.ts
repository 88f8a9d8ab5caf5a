/** Pseudorandom functions and prf+ (RFC 7296 §2.13), and the plain hashes IKE needs. */
import { createHash, createHmac } from 'node:crypto'
import { hmac } from '@noble/hashes/hmac.js'
import { sha1 as nobleSha1 } from '@noble/hashes/legacy.js'
import { sha256, sha384, sha512 } from '@noble/hashes/sha2.js'
import { concat } from '../base/bytes.ts'
import { HashAlgorithm, Prf as PrfId } from '../wire/registry.ts'

/** `auto` takes the faster one for each algorithm; `noble` needs OpenSSL for RSA and MODP only. */
export type Backend = 'auto' | 'node' | 'noble'

export interface Prf {
  readonly id: number
  /** Octets of the output, which is also the preferred key length. */
  readonly length: number
  compute(key: Uint8Array, ...data: readonly Uint8Array[]): Uint8Array
}

const HASHES = {
  [HashAlgorithm.Sha1]: { name: 'sha1', noble: nobleSha1 },
  [HashAlgorithm.Sha2_256]: { name: 'sha256', noble: sha256 },
  [HashAlgorithm.Sha2_384]: { name: 'sha384', noble: sha384 },
  [HashAlgorithm.Sha2_512]: { name: 'sha512', noble: sha512 },
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

export const computeHmac = (
  backend: Backend,
  hash: HashId,
  key: Uint8Array,
  data: readonly Uint8Array[],
): Uint8Array => {
  const { name, noble } = HASHES[hash]
  if (backend === 'noble') {
    const mac = hmac.create(noble, key)
    for (const part of data) mac.update(part)
    return mac.digest()
  }
  const mac = createHmac(name, key)
  for (const part of data) mac.update(part)
  return new Uint8Array(mac.digest())
}

export const computeHash = (
  backend: Backend,
  hash: HashId,
  ...data: readonly Uint8Array[]
): Uint8Array => {
  const { name, noble } = HASHES[hash]
  if (backend === 'noble') {
    const state = noble.create()
    for (const part of data) state.update(part)
    return state.digest()
  }
  const state = createHash(name)
  for (const part of data) state.update(part)
  return new Uint8Array(state.digest())
}

/** RFC 7296 §2.13: T1 | T2 | …, each over the one before, the seed and a counter of one octet. */
export const prfPlus = (
  prf: Prf,
  key: Uint8Array,
  seed: Uint8Array,
  length: number,
): Uint8Array => {
  if (length > 255 * prf.length) throw new RangeError('prf+ gives no more than 255 blocks')
  const output = new Uint8Array(length)
  let block: Uint8Array = new Uint8Array(0)
  for (let at = 0, counter = 1; at < length; at += block.length, counter++) {
    block = prf.compute(key, concat(block, seed, Uint8Array.of(counter)))
    output.set(block.subarray(0, length - at), at)
  }
  return output
}
