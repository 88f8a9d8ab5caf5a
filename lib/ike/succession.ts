/**
 * That a new IKE SA is between the same two ends as an older one. By RFC 7296 §2.8.3 nothing connects the two, and a
 * claimed name or the older SPIs, which anyone on the way has seen, must not: the peer that joins shows the older SA's key.
 */
import { concat, equal, utf8 } from '../base/bytes.ts'
import type { Secret } from '../base/secret.ts'
import type { Prf } from '../crypto/prf.ts'

/** The older SA. */
export interface Predecessor {
  readonly spiI: Uint8Array
  readonly spiR: Uint8Array
  readonly skD: Secret
  readonly suite: { readonly prf: Prf }
}

/** What the newer one is known by, and what each of its ends has drawn for it alone. */
export interface NewSa {
  readonly spiI: Uint8Array
  readonly spiR: Uint8Array
  readonly nonceI: Uint8Array
  readonly nonceR: Uint8Array
}

const LABEL = utf8('ike-socket reauthentication\0')
const SPIS_LENGTH = 16
/** Ours: a rekey that goes on, or two at once, leave no more of which either end may be the first to know. */
export const MAX_PREDECESSORS = 3

/** Both SPIs of the older SA, and a MAC under its SK_d over them and all of the newer one's. */
export const proveSuccession = (old: Predecessor, next: NewSa): Uint8Array => {
  const spis = concat(old.spiI, old.spiR)
  const { spiI, spiR, nonceI, nonceR } = next
  const { prf } = old.suite
  return concat(spis, prf.compute(old.skD.bytes, LABEL, spis, spiI, spiR, nonceI, nonceR))
}

/** The older SA's SPIs, the initiator's first; undefined: it is no such proof. */
export const claimedPredecessor = (
  proof: Uint8Array,
): { readonly spiI: Uint8Array; readonly spiR: Uint8Array } | undefined =>
  proof.length > SPIS_LENGTH
    ? { spiI: proof.subarray(0, 8), spiR: proof.subarray(8, SPIS_LENGTH) }
    : undefined

export const isSuccession = (old: Predecessor, next: NewSa, proof: Uint8Array): boolean =>
  equal(proof, proveSuccession(old, next))
