/** AUTH_LIFETIME: a responder says when its peer must have authenticated anew (RFC 4478). */
import type { Millis } from '../base/environment.ts'
import type { PeerPolicy } from '../policy/options.ts'
import { findNotify, notify, readU32, u32Data } from '../wire/notify.ts'
import type { Payload } from '../wire/payloads.ts'
import { NotifyType } from '../wire/registry.ts'

/** Ours: however soon the peer wants it, an SA lives this long first, so that no announcement makes us loop. */
export const LEAST_AUTH_LIFETIME: Millis = 60_000
/** Beyond, a deadline would not fit a timer; a peer that says more may as well say nothing. */
const LONGEST: Millis = 2 ** 31 - 1

/** In the last answer of IKE_AUTH (RFC 4478 §2). */
export const announceAuthLifetime = ({ authLifetime }: PeerPolicy): readonly Payload[] =>
  authLifetime === 0
    ? []
    : [notify(NotifyType.AuthLifetime, u32Data(Math.floor(authLifetime / 1000)))]

/** What the peer announces; undefined when it says nothing that can be read. */
export const readAuthLifetime = (payloads: readonly Payload[]): Millis | undefined => {
  const announced = findNotify(payloads, NotifyType.AuthLifetime)
  const seconds = announced && readU32(announced)
  return seconds === undefined ? undefined : Math.min(seconds * 1000, LONGEST)
}
