/**
 * A notify of private use that only takes room, so that a message is as large as a probe of the path is to be. Peers
 * ignore a status notify that they do not know (RFC 7296 §3.10.1); our own answer with as much as they are asked for.
 */
import { concat, equal, getU16, utf8 } from '../base/bytes.ts'
import { findNotify, notify, u16Data } from './notify.ts'
import type { NotifyPayload, Payload } from './payloads.ts'
import { NotifyType } from './registry.ts'

/** Another product may use the same number of a private notify for something else. */
const MAGIC = utf8('ike-socket/size')
const FIXED = MAGIC.length + 2
/** Of the generic header and the fields of a notify (RFC 7296 §3.10). */
const NOTIFY_HEADER = 8

export interface Filler {
  /** Octets of the IP packet that the answer shall fill; 0: nothing is asked for. */
  readonly wanted: number
  /** Octets that it takes in a message. */
  readonly octets: number
}

/** Takes `room` octets of a message, or as few as it can. */
export const fillerPayload = (room: number, wanted: number): NotifyPayload => {
  const rest = Math.max(0, room - NOTIFY_HEADER - FIXED)
  return notify(NotifyType.Filler, concat(MAGIC, u16Data(wanted), new Uint8Array(rest)))
}

export const fillerIn = (payloads: readonly Payload[]): Filler | undefined => {
  const data = findNotify(payloads, NotifyType.Filler)?.data
  if (data === undefined || data.length < FIXED) return undefined
  if (!equal(data.subarray(0, MAGIC.length), MAGIC)) return undefined
  return { wanted: getU16(data, MAGIC.length), octets: NOTIFY_HEADER + data.length }
}
