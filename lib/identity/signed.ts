/** What certificates, lists of revoked ones and OCSP responses share: data, an algorithm and a signature over the data. */
import type { DerElement, DerReader } from '../base/der.ts'
import { findAlgorithm, readPublicKey, verify, type PublicKey } from '../crypto/signature.ts'
import type { Backend } from '../crypto/prf.ts'

export interface Signed {
  /** The octets that are signed: a whole element. */
  readonly tbs: DerElement
  /** The DER AlgorithmIdentifier. */
  readonly algorithm: Uint8Array
  readonly signature: Uint8Array
}

/** Reads the three parts from within their sequence; what comes behind them is the caller's. */
export const readSigned = (reader: DerReader): Signed => ({
  tbs: reader.element(),
  algorithm: reader.any().bytes,
  signature: reader.octetBitString(),
})

/** Which keys and algorithms are good enough: asked about every signature, and about the end entity's own key. */
export interface SignaturePolicy {
  /** Undefined for a key that is malformed, too weak or too expensive. */
  readKey(spki: Uint8Array): PublicKey | undefined
  /** Whether this is an algorithm whose signatures we believe. */
  knows(algorithm: Uint8Array): boolean
  verify(signed: Signed, key: PublicKey): boolean
}

/** SHA-2 or better, RSA from 2048 bits on, the NIST curves by name, Ed25519 and Ed448. */
export const signaturePolicy = (backend: Backend): SignaturePolicy => ({
  readKey: spki => readPublicKey(spki),
  knows: algorithm => findAlgorithm(algorithm) !== undefined,
  verify: ({ tbs, algorithm, signature }, key) => {
    const found = findAlgorithm(algorithm)
    return found !== undefined && verify(backend, found, key, tbs.bytes, signature)
  },
})
