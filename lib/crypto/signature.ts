/**
 * Public keys and the verification of signatures, for certificates (RFC 5280), for AUTH payloads with the
 * method Digital Signature (RFC 7427, RFC 8420) and for the older ECDSA methods (RFC 4754).
 *
 * An algorithm is recognised by the exact octets of its AlgorithmIdentifier: they are looked up in a table and never
 * interpreted, so there are no parameters to forge. A malformed key, point or signature is answered with "no", never
 * with an exception.
 */
import {
  constants,
  createPublicKey,
  verify as nodeVerify,
  type JsonWebKey,
  type KeyObject,
} from 'node:crypto'
import { copy, EMPTY, toHex } from '../base/bytes.ts'
import { contextTag, DerReader } from '../base/der.ts'
import { der, integer, NULL, oid, sequence } from '../base/der-writer.ts'
import { noble } from './noble.ts'
import type { Backend } from './prf.ts'

export type SignatureHash = 'sha256' | 'sha384' | 'sha512'
export type CurveName = 'P-256' | 'P-384' | 'P-521'

export interface SignatureAlgorithm {
  /** For display: `RSASSA-PSS with SHA-256`. */
  readonly name: string
  readonly kind: 'rsa-pkcs1' | 'rsa-pss' | 'ecdsa' | 'ed25519' | 'ed448'
  /** The hash of the message; 'identity': the algorithm signs the message itself (RFC 8420 §2). */
  readonly hash: SignatureHash | 'identity'
  /** The DER AlgorithmIdentifier to send. */
  readonly identifier: Uint8Array
}

export interface PublicKey {
  readonly kind: 'rsa' | 'ec' | 'ed25519' | 'ed448'
  /** Size of the modulus, or of the curve's field. */
  readonly bits: number
  /** Only of a key of kind 'ec'. */
  readonly curve: CurveName | undefined
  /** The DER SubjectPublicKeyInfo. */
  readonly spki: Uint8Array
}

export interface KeyLimits {
  /** The smallest modulus accepted; default 2048. */
  readonly minimumRsaBits?: number
}

// --- algorithms ---

const HASHES: Readonly<Record<SignatureHash, { name: string; oid: string; length: number }>> = {
  sha256: { name: 'SHA-256', oid: '2.16.840.1.101.3.4.2.1', length: 32 },
  sha384: { name: 'SHA-384', oid: '2.16.840.1.101.3.4.2.2', length: 48 },
  sha512: { name: 'SHA-512', oid: '2.16.840.1.101.3.4.2.3', length: 64 },
}
const HASH_NAMES = ['sha256', 'sha384', 'sha512'] as const
const RSA_ENCRYPTION = '1.2.840.113549.1.1.1'
const RSASSA_PSS = '1.2.840.113549.1.1.10'
const MGF1 = '1.2.840.113549.1.1.8'

/**
 * RSASSA-PSS-params (RFC 4055 §3.1): one hash throughout, a salt of its length. In DER the trailer field is
 * left out, yet RFC 7427 appendix A.4.3 writes it; and the hash's NULL may be absent (RFC 4055 §2.1).
 */
const pssIdentifier = (
  hash: SignatureHash,
  withTrailer: boolean,
  withNull: boolean,
): Uint8Array => {
  const hashIdentifier = sequence(oid(HASHES[hash].oid), withNull ? NULL : EMPTY)
  return sequence(
    oid(RSASSA_PSS),
    sequence(
      der(contextTag(0, true), hashIdentifier),
      der(contextTag(1, true), sequence(oid(MGF1), hashIdentifier)),
      der(contextTag(2, true), integer(Uint8Array.of(HASHES[hash].length))),
      withTrailer ? der(contextTag(3, true), integer(Uint8Array.of(1))) : EMPTY,
    ),
  )
}

/** An algorithm with all its encodings, the one to send first. */
type Entry = readonly [SignatureAlgorithm, ...Uint8Array[]]

const entry = (
  name: string,
  kind: SignatureAlgorithm['kind'],
  hash: SignatureAlgorithm['hash'],
  identifier: Uint8Array,
  ...others: readonly Uint8Array[]
): Entry => [{ name, kind, hash, identifier }, identifier, ...others]

const ENTRIES: readonly Entry[] = [
  ...HASH_NAMES.flatMap((hash, i) => [
    // RFC 4055 §5: NULL parameters. RFC 5758 §3.2: no parameters.
    entry(
      `RSA with ${HASHES[hash].name}`,
      'rsa-pkcs1',
      hash,
      sequence(oid(`1.2.840.113549.1.1.${11 + i}`), NULL),
    ),
    entry(
      `RSASSA-PSS with ${HASHES[hash].name}`,
      'rsa-pss',
      hash,
      pssIdentifier(hash, false, true),
      pssIdentifier(hash, true, true),
      pssIdentifier(hash, false, false),
      pssIdentifier(hash, true, false),
    ),
    entry(
      `ECDSA with ${HASHES[hash].name}`,
      'ecdsa',
      hash,
      sequence(oid(`1.2.840.10045.4.3.${2 + i}`)),
    ),
  ]),
  entry('Ed25519', 'ed25519', 'identity', sequence(oid('1.3.101.112'))),
  entry('Ed448', 'ed448', 'identity', sequence(oid('1.3.101.113'))),
]

export const SIGNATURE_ALGORITHMS: readonly SignatureAlgorithm[] = ENTRIES.map(
  ([algorithm]) => algorithm,
)

const BY_IDENTIFIER: ReadonlyMap<string, SignatureAlgorithm> = new Map(
  ENTRIES.flatMap(([algorithm, ...identifiers]) =>
    identifiers.map(identifier => [toHex(identifier), algorithm] as const),
  ),
)
const LONGEST_IDENTIFIER = 80

/** The algorithm with exactly this DER AlgorithmIdentifier; undefined when we do not support it. */
export const findAlgorithm = (identifier: Uint8Array): SignatureAlgorithm | undefined =>
  identifier.length > LONGEST_IDENTIFIER ? undefined : BY_IDENTIFIER.get(toHex(identifier))

// --- keys ---

interface Curve {
  readonly name: CurveName
  readonly oid: string
  readonly bits: number
  /** Octets of a coordinate, and of r and of s. */
  readonly length: number
  readonly noble: 'p256' | 'p384' | 'p521'
}

const CURVES: readonly Curve[] = [
  { name: 'P-256', oid: '1.2.840.10045.3.1.7', bits: 256, length: 32, noble: 'p256' },
  { name: 'P-384', oid: '1.3.132.0.34', bits: 384, length: 48, noble: 'p384' },
  { name: 'P-521', oid: '1.3.132.0.35', bits: 521, length: 66, noble: 'p521' },
]

/** What a PublicKey keeps to this file. */
interface LoadedKey {
  readonly node: KeyObject
  /** The point of a key on a curve. */
  readonly raw: Uint8Array
  readonly curve: Curve | undefined
  /** The only algorithms that an RSA key permits; undefined: all of RSA. */
  readonly only: readonly SignatureAlgorithm[] | undefined
}

const LOADED = new WeakMap<PublicKey, LoadedKey>()

type KeyFacts = Pick<PublicKey, 'kind' | 'bits'> &
  Partial<Omit<LoadedKey, 'node'>> & {
    /** RFC 7517: OpenSSL reads it in a tenth of the time that DER takes. */
    readonly jwk: JsonWebKey
  }

/** Decoded keys, the most recently used last: a peer shows the same ones at each handshake. */
const known = new Map<string, PublicKey>()
/** Ours: each takes 2 KB, OpenSSL's part included. */
const MOST_KNOWN = 256

/**
 * Reads a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7). Undefined for anything that is not DER, for algorithms that we do
 * not support, for RSA moduli outside 2048 to 8192 bits or with exponents that are even, below 3 or above 2^32-1,
 * for curves other than P-256, P-384 and P-521 by name, and for points that are not on the curve or of small order.
 */
export const readPublicKey = (
  spki: Uint8Array,
  { minimumRsaBits = 2048 }: KeyLimits = {},
): PublicKey | undefined => {
  if (spki.length > LONGEST_SPKI) return undefined
  const name = `${minimumRsaBits} ${toHex(spki)}`
  const key = known.get(name) ?? parsePublicKey(spki, minimumRsaBits)
  if (key === undefined) return undefined
  known.delete(name)
  known.set(name, key)
  if (known.size > MOST_KNOWN) known.delete(known.keys().next().value!)
  return key
}

/** An RSA key of 8192 bits, with room for its parameters. */
const LONGEST_SPKI = 2048

const parsePublicKey = (spki: Uint8Array, minimumRsaBits: number): PublicKey | undefined => {
  const outer = new DerReader(spki)
  const info = outer.enter()
  outer.end()
  const identifier = info.any().bytes
  const bits = info.octetBitString()
  info.end()
  if (outer.failed) return undefined
  const facts =
    readEdwards(identifier, bits) ??
    readEc(identifier, bits) ??
    readRsa(identifier, bits, minimumRsaBits)
  if (facts === undefined) return undefined
  const node = createNodeKey(facts.jwk)
  if (node === undefined) return undefined
  const { kind, curve, raw = EMPTY, only } = facts
  const key: PublicKey = { kind, bits: facts.bits, curve: curve?.name, spki: copy(spki) }
  LOADED.set(key, { node, raw: copy(raw), curve, only })
  return key
}

const createNodeKey = (key: JsonWebKey): KeyObject | undefined => {
  try {
    return createPublicKey({ key, format: 'jwk' })
  } catch {
    return undefined
  }
}

const base64 = (octets: Uint8Array): string => Buffer.from(octets).toString('base64url')

const ED25519 = toHex(sequence(oid('1.3.101.112')))
const ED448 = toHex(sequence(oid('1.3.101.113')))

const readEdwards = (identifier: Uint8Array, point: Uint8Array): KeyFacts | undefined => {
  const name = toHex(identifier.subarray(0, LONGEST_IDENTIFIER))
  if (name !== ED25519 && name !== ED448) return undefined
  const [kind, bits] = name === ED25519 ? (['ed25519', 255] as const) : (['ed448', 448] as const)
  try {
    // With a point of small order one signature verifies for any message; OpenSSL accepts such a point.
    if (noble()[kind].Point.fromBytes(point, false).isSmallOrder()) return undefined
    const crv = kind === 'ed25519' ? 'Ed25519' : 'Ed448'
    return { kind, bits, raw: point, jwk: { kty: 'OKP', crv, x: base64(point) } }
  } catch {
    return undefined
  }
}

const readEc = (identifier: Uint8Array, point: Uint8Array): KeyFacts | undefined => {
  const name = toHex(identifier.subarray(0, LONGEST_IDENTIFIER))
  const curve = CURVES.find(
    curve => name === toHex(sequence(oid('1.2.840.10045.2.1'), oid(curve.oid))),
  )
  // RFC 5480 §2.2: the uncompressed form is the one that everybody must support.
  if (curve === undefined || point.length !== 1 + 2 * curve.length || point[0] !== 4) {
    return undefined
  }
  const [x, y] = [point.subarray(1, 1 + curve.length), point.subarray(1 + curve.length)].map(base64)
  const jwk = { kty: 'EC', crv: curve.name, x: x!, y: y! }
  return { kind: 'ec', bits: curve.bits, raw: point, curve, jwk }
}

/** RFC 8017 appendix A.1.1: an RSAPublicKey whose modulus and exponent are within our limits. */
const readRsa = (
  identifier: Uint8Array,
  encoded: Uint8Array,
  minimumBits: number,
): KeyFacts | undefined => {
  const only = rsaRestriction(identifier)
  if (only === 'unknown') return undefined
  const outer = new DerReader(encoded)
  const reader = outer.enter()
  outer.end()
  const modulus = reader.positiveInteger()
  const exponent = reader.positiveInteger()
  reader.end()
  if (outer.failed) return undefined
  const bits = modulus.length * 8 - (Math.clz32(modulus[0]!) - 24)
  if (bits < minimumBits || bits > 8192 || (modulus.at(-1)! & 1) === 0) return undefined
  const isSmall = exponent.length === 1 && exponent[0]! < 3
  if (isSmall || exponent.length > 4 || (exponent.at(-1)! & 1) === 0) return undefined
  // We enforce the restriction ourselves; OpenSSL gets an ordinary RSA key.
  return { kind: 'rsa', bits, only, jwk: { kty: 'RSA', n: base64(modulus), e: base64(exponent) } }
}

/**
 * RFC 4055 §1.2: a key of type RSASSA-PSS is for that alone, with the parameters it names. Parameters that
 * differ from those of our own algorithms would allow none of them.
 */
const rsaRestriction = (
  identifier: Uint8Array,
): readonly SignatureAlgorithm[] | undefined | 'unknown' => {
  const name = toHex(identifier.subarray(0, LONGEST_IDENTIFIER))
  if (name === toHex(sequence(oid(RSA_ENCRYPTION), NULL))) return undefined
  if (name === toHex(sequence(oid(RSASSA_PSS))))
    return SIGNATURE_ALGORITHMS.filter(({ kind }) => kind === 'rsa-pss')
  const named = findAlgorithm(identifier)
  return named?.kind === 'rsa-pss' ? [named] : 'unknown'
}

// --- verification ---

/** Whether this key can make signatures of this algorithm. */
export const canVerify = (algorithm: SignatureAlgorithm, key: PublicKey): boolean => {
  const { kind } = algorithm
  if (kind === 'ed25519' || kind === 'ed448') return kind === key.kind
  if (kind === 'ecdsa') return key.kind === 'ec'
  const only = LOADED.get(key)?.only
  return key.kind === 'rsa' && (only === undefined || only.includes(algorithm))
}

/** The signature has the form of X.509 and RFC 7427: ECDSA's is a DER sequence of r and s (RFC 3279 §2.2.3). */
export const verify = (
  backend: Backend,
  algorithm: SignatureAlgorithm,
  key: PublicKey,
  message: Uint8Array,
  signature: Uint8Array,
): boolean => {
  const loaded = LOADED.get(key)
  if (loaded === undefined || !canVerify(algorithm, key)) return false
  const { kind, hash } = algorithm
  if (kind === 'ecdsa') {
    const raw = rawEcdsa(loaded.curve!, signature)
    return raw !== undefined && verifyRawEcdsa(backend, hash as SignatureHash, key, message, raw)
  }
  try {
    if (kind === 'rsa-pkcs1' || kind === 'rsa-pss') {
      const padding =
        kind === 'rsa-pss' ? constants.RSA_PKCS1_PSS_PADDING : constants.RSA_PKCS1_PADDING
      const saltLength = kind === 'rsa-pss' ? HASHES[hash as SignatureHash].length : undefined
      return nodeVerify(hash, message, { key: loaded.node, padding, saltLength }, signature)
    }
    if (backend !== 'noble') return nodeVerify(null, message, loaded.node, signature)
    return noble()[kind].verify(signature, message, loaded.raw, {
      zip215: false,
    })
  } catch {
    return false
  }
}

/** The signature is r and s, each as long as the curve's order, as in IKE's methods 9 to 11 (RFC 4754 §7). */
export const verifyRawEcdsa = (
  backend: Backend,
  hash: SignatureHash,
  key: PublicKey,
  message: Uint8Array,
  signature: Uint8Array,
): boolean => {
  const { curve, node, raw } = LOADED.get(key) ?? {}
  if (curve === undefined || node === undefined || raw === undefined) return false
  if (signature.length !== 2 * curve.length) return false
  try {
    if (backend !== 'noble') {
      return nodeVerify(hash, message, { key: node, dsaEncoding: 'ieee-p1363' }, signature)
    }
    const digest = noble()[hash](message)
    return noble()[curve.noble].verify(signature, digest, raw, { prehash: false, lowS: false })
  } catch {
    return false
  }
}

/** Converts a signature from DER to r and s (RFC 4754 §7); undefined when it does not fit the key's curve. */
export const rawEcdsaSignature = (
  key: PublicKey,
  signature: Uint8Array,
): Uint8Array | undefined => {
  const curve = LOADED.get(key)?.curve
  return curve && rawEcdsa(curve, signature)
}

const rawEcdsa = (curve: Curve, signature: Uint8Array): Uint8Array | undefined => {
  const outer = new DerReader(signature)
  const pair = outer.enter()
  outer.end()
  const r = pair.positiveInteger()
  const s = pair.positiveInteger()
  pair.end()
  if (outer.failed || r.length > curve.length || s.length > curve.length) return undefined
  const raw = new Uint8Array(2 * curve.length)
  raw.set(r, curve.length - r.length)
  raw.set(s, 2 * curve.length - s.length)
  return raw
}
