/**
 * AUTH by signature: the method Digital Signature (RFC 7427, RFC 8420), and the older ones for peers that do
 * not know it: RSA (RFC 7296 §3.8) and ECDSA (RFC 4754).
 */
import { concat } from '../base/bytes.ts'
import type { Backend } from '../crypto/prf.ts'
import {
  findAlgorithm,
  rawEcdsaSignature,
  SIGNATURE_ALGORITHMS,
  verify,
  verifyRawEcdsa,
  type CurveName,
  type PublicKey,
  type SignatureAlgorithm,
  type SignatureHash,
} from '../crypto/signature.ts'
import { AuthMethod, HashAlgorithm } from '../wire/registry.ts'

/** What we announce in SIGNATURE_HASH_ALGORITHMS: no SHA-1 (RFC 8247 §3.2.1). */
export const SIGNATURE_HASHES: readonly number[] = [
  HashAlgorithm.Sha2_256,
  HashAlgorithm.Sha2_384,
  HashAlgorithm.Sha2_512,
  HashAlgorithm.Identity,
]

const HASH_IDS: Readonly<Record<SignatureAlgorithm['hash'], number>> = {
  sha256: HashAlgorithm.Sha2_256,
  sha384: HashAlgorithm.Sha2_384,
  sha512: HashAlgorithm.Sha2_512,
  identity: HashAlgorithm.Identity,
}

/** RFC 4754 §3: each of these methods is one curve with one hash. */
const ECDSA_METHODS: readonly {
  readonly method: number
  readonly curve: CurveName
  readonly hash: SignatureHash
}[] = [
  { method: AuthMethod.Ecdsa256, curve: 'P-256', hash: 'sha256' },
  { method: AuthMethod.Ecdsa384, curve: 'P-384', hash: 'sha384' },
  { method: AuthMethod.Ecdsa521, curve: 'P-521', hash: 'sha512' },
]

const KINDS: Readonly<Record<PublicKey['kind'], readonly SignatureAlgorithm['kind'][]>> = {
  rsa: ['rsa-pss', 'rsa-pkcs1'],
  ec: ['ecdsa'],
  ed25519: ['ed25519'],
  ed448: ['ed448'],
}

/** How we sign. */
export interface SignatureChoice {
  readonly method: number
  readonly algorithm: SignatureAlgorithm
}

/**
 * The first algorithm of that key which the peer takes; undefined when there is none. `peerHashes` is what
 * it announced, empty without RFC 7427. `rsaPkcs1`: the peer has no RSASSA-PSS.
 */
export const chooseSignature = (
  key: PublicKey,
  peerHashes: readonly number[],
  rsaPkcs1: boolean,
): SignatureChoice | undefined => {
  if (peerHashes.length === 0) return chooseOlder(key)
  const preferred = ECDSA_METHODS.find(({ curve }) => curve === key.curve)?.hash
  const candidates = SIGNATURE_ALGORITHMS.filter(
    ({ kind, hash }) =>
      KINDS[key.kind].includes(kind) &&
      peerHashes.includes(HASH_IDS[hash]) &&
      (kind !== 'rsa-pss' || !rsaPkcs1) &&
      (kind !== 'rsa-pkcs1' || rsaPkcs1),
  )
  const algorithm = candidates.find(({ hash }) => hash === preferred) ?? candidates[0]
  return algorithm && { method: AuthMethod.DigitalSignature, algorithm }
}

const chooseOlder = (key: PublicKey): SignatureChoice | undefined => {
  const ecdsa = ECDSA_METHODS.find(({ curve }) => curve === key.curve)
  const named = (
    kind: SignatureAlgorithm['kind'],
    wanted: SignatureHash,
  ): SignatureAlgorithm | undefined =>
    SIGNATURE_ALGORITHMS.find(({ kind: has, hash }) => has === kind && hash === wanted)
  if (ecdsa !== undefined) {
    return { method: ecdsa.method, algorithm: named('ecdsa', ecdsa.hash)! }
  }
  // DEVIATION RFC 7296 §3.8: SHA-1 is the default there and is no longer safe; SHA-256 is what peers try too.
  return key.kind === 'rsa'
    ? { method: AuthMethod.Rsa, algorithm: named('rsa-pkcs1', 'sha256')! }
    : undefined
}

/**
 * AUTH data of a signature (RFC 7427 §3: the AlgorithmIdentifier and its length come first); the older ECDSA
 * methods want r and s alone. Undefined: it is no signature of that key.
 */
export const encodeSignature = (
  { method, algorithm }: SignatureChoice,
  key: PublicKey,
  signature: Uint8Array,
): Uint8Array | undefined => {
  if (method === AuthMethod.DigitalSignature) {
    return concat(Uint8Array.of(algorithm.identifier.length), algorithm.identifier, signature)
  }
  return algorithm.kind === 'ecdsa' ? rawEcdsaSignature(key, signature) : signature
}

/**
 * Undefined when the AUTH data is a signature over `octets` by that key; else what is wrong with it, for our own
 * side. RSASSA-PKCS1-v1_5 only when `rsaPkcs1` admits it, and never with SHA-1.
 */
export const signatureProblem = (
  backend: Backend,
  key: PublicKey,
  method: number,
  data: Uint8Array,
  octets: Uint8Array,
  rsaPkcs1: boolean,
): string | undefined => {
  if (method === AuthMethod.DigitalSignature) {
    const length = data[0] ?? 0
    const algorithm = findAlgorithm(data.subarray(1, 1 + length))
    if (algorithm === undefined) return UNKNOWN
    if (algorithm.kind === 'rsa-pkcs1' && !rsaPkcs1) return PKCS1
    return verify(backend, algorithm, key, octets, data.subarray(1 + length)) ? undefined : WRONG
  }
  if (method === AuthMethod.Rsa) {
    if (!rsaPkcs1) return PKCS1
    const isGood = SIGNATURE_ALGORITHMS.some(
      algorithm => algorithm.kind === 'rsa-pkcs1' && verify(backend, algorithm, key, octets, data),
    )
    return isGood ? undefined : WRONG
  }
  const ecdsa = ECDSA_METHODS.find(entry => entry.method === method && entry.curve === key.curve)
  if (ecdsa === undefined) return UNKNOWN
  return verifyRawEcdsa(backend, ecdsa.hash, key, octets, data) ? undefined : WRONG
}

const WRONG = 'its signature does not verify'
const UNKNOWN = 'it signs with an algorithm that we do not take'
const PKCS1 = 'it signs with RSASSA-PKCS1-v1_5, which the option "rsaPkcs1" admits'

export const isSignatureMethod = (method: number): boolean =>
  method === AuthMethod.DigitalSignature ||
  method === AuthMethod.Rsa ||
  ECDSA_METHODS.some(entry => entry.method === method)
