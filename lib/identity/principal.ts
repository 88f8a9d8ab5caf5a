/**
 * A principal: what a peer has proved, which is its identity together with the proof. Whoever comes later is the same
 * peer only with the same principal; a name alone proves nothing.
 */
import { toHex } from '../base/bytes.ts'
import { computeHash, type Backend } from '../crypto/prf.ts'
import { HashAlgorithm } from '../wire/registry.ts'
import { canonicalIdentity, identityKey, identityText, type Identity } from './identity.ts'

/** By which secret of whose a peer has proved its identity. No key material: names and digests of public keys. */
export type ProofFact =
  | {
      readonly kind: 'psk'
      /** The table's entry by the key of its identity; undefined: the one key for all, or a function's answer. */
      readonly entry: string | undefined
      /** That key belongs to one identity alone. */
      readonly isBound: boolean
    }
  | {
      readonly kind: 'certificate'
      /** SHA-256 of its SubjectPublicKeyInfo, so that a renewed certificate for the same key is the same proof. */
      readonly publicKey: string
    }
  | {
      readonly kind: 'rawKey'
      readonly publicKey: string
      /** It is known for one identity alone. */
      readonly isBound: boolean
    }
  | {
      readonly kind: 'eap'
      /** Our login, by which both ends got the key. */
      readonly login: string
    }

export interface Principal {
  /** In its canonical form. */
  readonly identity: Identity
  /** Equal for the same identity alone, whatever proves it. */
  readonly identityKey: string
  /** For programs and people: whole, and equal for the same identity alone. */
  readonly text: string
  readonly proof: ProofFact
  /** Nobody else can prove this identity by the same proof. */
  readonly isBound: boolean
  /** Equal for the same identity with the same proof alone: the key of every table of peers. */
  readonly key: string
}

export const makePrincipal = (identity: Identity, proof: ProofFact): Principal => {
  const ofIdentity = identityKey(identity)
  return {
    identity: canonicalIdentity(identity),
    identityKey: ofIdentity,
    text: identityText(identity),
    proof,
    isBound: isBound(proof, ofIdentity),
    key: `${ofIdentity} ${proofKey(proof)}`,
  }
}

export const samePrincipal = (a: Principal, b: Principal): boolean => a.key === b.key

/** The name of a public key in proofs. */
export const publicKeyDigest = (backend: Backend, spki: Uint8Array): string =>
  toHex(computeHash(backend, HashAlgorithm.Sha2_256, spki))

const isBound = (proof: ProofFact, ofIdentity: string): boolean => {
  switch (proof.kind) {
    case 'psk':
      // A client looks the key up before it hears who the server is.
      return proof.isBound && proof.entry === ofIdentity
    case 'rawKey':
      return proof.isBound
    case 'certificate':
      return true
    case 'eap':
      // The server of the method vouches for the gateway, and may do so for many.
      return false
  }
}

/** What may be of any text comes last, so that nothing can be taken for its end. */
const proofKey = (proof: ProofFact): string => {
  switch (proof.kind) {
    case 'psk':
      return proof.entry === undefined ? 'psk' : `psk ${proof.entry}`
    case 'certificate':
    case 'rawKey':
      return `${proof.kind} ${proof.publicKey}`
    case 'eap':
      return `eap ${proof.login}`
  }
}
