/** What an AUTH payload proves, and how it is made and checked (RFC 7296 §2.15). */
import { concat, equal, utf8 } from '../base/bytes.ts'
import type { Secret } from '../base/secret.ts'
import type { Prf } from '../crypto/prf.ts'
import type { Identity } from './identity.ts'

const KEY_PAD = utf8('Key Pad for IKEv2')

/** The octets that one end signs: its first message, the other's nonce and its own identity. */
export const signedOctets = (
  prf: Prf,
  firstMessage: Uint8Array,
  otherNonce: Uint8Array,
  skP: Secret,
  identity: Identity,
): Uint8Array => {
  const restOfId = concat(Uint8Array.of(identity.type, 0, 0, 0), identity.data)
  return concat(firstMessage, otherNonce, prf.compute(skP.bytes, restOfId))
}

export const sharedKeyAuth = (prf: Prf, secret: Uint8Array, octets: Uint8Array): Uint8Array => {
  const key = prf.compute(secret, KEY_PAD)
  const proof = prf.compute(key, octets)
  key.fill(0)
  return proof
}

/** An unknown identity (`secret` undefined) costs as much as a wrong key, and says as little. */
export const checkSharedKeyAuth = (
  prf: Prf,
  secret: Uint8Array | undefined,
  octets: Uint8Array,
  proof: Uint8Array,
): boolean => {
  const expected = sharedKeyAuth(prf, secret ?? KEY_PAD, octets)
  return equal(expected, proof) && secret !== undefined
}
