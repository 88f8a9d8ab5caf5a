/**
 * What two ends of this package can do for each other inside their SAs beyond what TCP and ESP say: a set of bits in a
 * private notify of IKE_AUTH, which that exchange authenticates. Other products neither get it nor are believed it.
 */
import { concat, equal, getU32, utf8 } from '../base/bytes.ts'
import { findNotify, notify, u32Data } from './notify.ts'
import type { NotifyPayload, Payload } from './payloads.ts'
import { NotifyType } from './registry.ts'

/** Bits are never given to another meaning; a new one is a new feature. */
const BITS = {
  /** It hands on what comes on a SYN before the handshake is done, as RFC 7413 does, where the SYN has a token. */
  'data-on-syn': 1,
  /** Its TCP delays ACKs by no more than `OWN_ACK_DELAY`. */
  'ack-delay': 2,
  /** It drops the copy of a segment, which has the same timestamp, without a word. */
  'repeat-small': 4,
  /** It accepts inner packets without a checksum, which the ICV covers. */
  'no-checksum': 8,
  /** It takes several small inner packets in one ESP packet (wire/bundle.ts). */
  bundle: 16,
} as const

export type Feature = keyof typeof BITS
export type Features = ReadonlySet<Feature>

export const NO_FEATURES: Features = new Set()
const KNOWN = Object.keys(BITS) as Feature[]
/** Those that this version has; it knows the names of the others, and tells nobody that it has them. */
export const OWN_FEATURES: Features = new Set<Feature>([
  'data-on-syn',
  'ack-delay',
  'repeat-small',
  'no-checksum',
  'bundle',
])
/** Milliseconds. */
export const OWN_ACK_DELAY = 5

/** Another product may use the same number of a private notify for something else. */
const MAGIC = utf8('ike-socket/inner')
const LENGTH = MAGIC.length + 4

export const featuresPayload = (features: Features): NotifyPayload => {
  let bits = 0
  for (const feature of features) bits |= BITS[feature]
  return notify(NotifyType.OwnFeatures, concat(MAGIC, u32Data(bits)))
}

/** Those of the peer whose names this version knows; bits and octets of later versions are passed over. */
export const featuresIn = (payloads: readonly Payload[]): Features => {
  const data = findNotify(payloads, NotifyType.OwnFeatures)?.data
  if (data === undefined || data.length < LENGTH) return NO_FEATURES
  if (!equal(data.subarray(0, MAGIC.length), MAGIC)) return NO_FEATURES
  const bits = getU32(data, MAGIC.length)
  return new Set(KNOWN.filter(feature => (bits & BITS[feature]) !== 0))
}
