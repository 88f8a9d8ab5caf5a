/**
 * How long an authentication is good for: a responder says by AUTH_LIFETIME when its peer must have reauthenticated
 * (RFC 4478), and none outlives the certificates that it was made with.
 */
import type { Millis } from '../base/environment.ts'
import { LEAST_ANNOUNCED, type PeerPolicy } from '../policy/options.ts'
import { findNotify, notify, readU32, u32Data } from '../wire/notify.ts'
import type { Payload } from '../wire/payloads.ts'
import { NotifyType } from '../wire/registry.ts'
import type { ExchangeContext, PeerFacts } from './exchange.ts'

/** Ours: however soon the peer wants it, an SA lives this long first, so that no announcement makes us loop. */
export const LEAST_AUTH_LIFETIME: Millis = 60_000
/** Beyond, a deadline would not fit a timer; a peer that says more may as well say nothing. */
const LONGEST: Millis = 2 ** 31 - 1

/** From now on; a clock that is set later changes nothing in it. */
export const validFor = (
  { config: { environment } }: Pick<ExchangeContext, 'config'>,
  { validUntil }: Pick<PeerFacts, 'validUntil'>,
): Millis => Math.max(0, validUntil - environment.wallClock())

/** In the last answer of IKE_AUTH (RFC 4478 §2): our policy's, or what is left of the peer's certificate. */
export const announceAuthLifetime = (
  { authLifetime }: PeerPolicy,
  left: Millis,
): readonly Payload[] => {
  const ofCertificate = left >= LEAST_ANNOUNCED && left <= LONGEST ? left : Infinity
  const lifetime = Math.min(authLifetime > 0 ? authLifetime : Infinity, ofCertificate)
  return lifetime === Infinity
    ? []
    : [notify(NotifyType.AuthLifetime, u32Data(Math.floor(lifetime / 1000)))]
}

/** What the peer announces; undefined when it says nothing that can be read. */
export const readAuthLifetime = (payloads: readonly Payload[]): Millis | undefined => {
  const announced = findNotify(payloads, NotifyType.AuthLifetime)
  const seconds = announced && readU32(announced)
  return seconds === undefined ? undefined : Math.min(seconds * 1000, LONGEST)
}
