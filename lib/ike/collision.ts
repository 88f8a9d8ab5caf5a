/**
 * Two ends rekey the same SA at once (RFC 7296 §2.8.1, §2.8.2): four nonces, one rule, for Child SAs and
 * IKE SAs alike. Nothing here knows who we are; callers pass their own attempt first.
 */
import { compare } from '../base/bytes.ts'

/** One rekey exchange for an SA, started by either end. */
export interface Attempt<T> {
  readonly initiatorNonce: Uint8Array
  responderNonce: Uint8Array | undefined
  replacement: T | undefined
}

/** What is known about the rekeying of one SA. Both set: a simultaneous rekey. */
export interface Rekeying<T> {
  own: Attempt<T> | undefined
  peer: Attempt<T> | undefined
}

const lowest = ({ initiatorNonce, responderNonce }: Attempt<unknown>): Uint8Array =>
  responderNonce !== undefined && compare(responderNonce, initiatorNonce) < 0
    ? responderNonce
    : initiatorNonce

/** The SA made by the exchange that holds the lowest of the four nonces is the redundant one. */
export const ownAttemptLoses = (own: Attempt<unknown>, peer: Attempt<unknown>): boolean =>
  compare(lowest(own), lowest(peer)) < 0
