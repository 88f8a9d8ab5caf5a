/**
 * What a congestion controller hears and answers. It hears events and owns its window: nobody else writes
 * into it. Octets and milliseconds throughout.
 */
import type { Millis } from '../../base/environment.ts'

/** What one ACK has told. The object is used again for the next one. */
export interface AckSample {
  now: Millis
  /** Data octets of a full segment. */
  segment: number
  /** Octets that this ACK reports for the first time, cumulatively or by SACK. */
  delivered: number
  /** Octets found lost since the last sample. */
  lost: number
  /** The newest round trip that it measures; 0: none. */
  rtt: Millis
  srtt: Millis
  minRtt: Millis
  /** Octets under way after it. */
  inFlight: number
  /** The window, and not the program or the peer's window, is what held the sender back (RFC 7661 §4.3). */
  isWindowLimited: boolean
  /** Lost segments are being sent again. */
  isRecovering: boolean
  /** Octets by which it may let the window grow: ACKs that advance do, others may tell of a loss (RFC 5681 §3.1). */
  credit: number
  /** Octets delivered in all, now and when the segment that it reports was sent; -1: it reports none. */
  totalDelivered: number
  priorDelivered: number
  /** Rate of delivery, octets per millisecond; 0: unknown. */
  rate: number
  /** The rate was measured while the program had too little to send. */
  isAppLimited: boolean
  /** Octets under way when that segment was sent, and octets lost since. */
  inFlightThen: number
  lostSince: number
}

export interface Loss {
  now: Millis
  segment: number
  /** Octets between the oldest that is not acknowledged and the newest. */
  inFlight: number
  /** Octets that were under way when the first of what is lost was sent; `Infinity`: not known. */
  inFlightThen: number
  /** Found by the retransmission timer, and not by ACKs. */
  isTimeout: boolean
  /** The loss before it has not been repaired yet. */
  isRepeated: boolean
}

export interface CongestionController {
  /** Octets that may be under way. */
  readonly window: number
  /** The window below which it grows exponentially; `Infinity`: not known, or there is no such thing. */
  readonly threshold: number
  /** Octets per millisecond at which to send; `Infinity`: at once. */
  readonly pacingRate: number
  /** In recovery the window is reduced step by step (RFC 6937), not by the controller. */
  readonly reducesProportionally: boolean
  /** All that it knows after a rest is its threshold. */
  readonly mayRest: boolean
  /** The connection begins, on a path of which nothing is known. */
  onStart(initialWindow: number): void
  /** It begins, or goes on after a rest, and this is known. */
  onResume(initialWindow: number, threshold: number, window?: number): void
  onAck(sample: AckSample): void
  onLoss(loss: Loss): void
  /** The last loss was none: everything had arrived (RFC 4015 §3). */
  onSpurious(): void
  /** Nothing was under way for `idle`, which is at least `rto`; now something is sent (RFC 5681 §4.1). */
  onIdle(idle: Millis, rto: Millis): void
}

/** Larger windows are of no use, and sums stay exact. */
export const LARGEST_WINDOW = 2 ** 30
/** What a loss leaves at least (RFC 5681 §3.1). */
export const LEAST_SEGMENTS = 2
