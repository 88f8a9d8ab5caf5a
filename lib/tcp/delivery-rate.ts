/**
 * How fast the path delivers: each segment carries what had been delivered when it was sent, and its ACK
 * tells the rate since (draft-ietf-ccwg-bbr §4.1, "delivery rate samples").
 */
import type { Millis } from '../base/environment.ts'
import { ZERO } from '../base/real.ts'
import type { SendState, SentSegments } from './sent-segments.ts'

const newSendState = (): SendState => ({
  delivered: ZERO,
  deliveredAt: ZERO,
  flightSentAt: ZERO,
  isAppLimited: false,
  inFlight: ZERO,
  lostBefore: ZERO,
})

// One ACK at a time is looked at.
const scratch = newSendState()
/** The newest segment that this ACK tells of: when it was sent, and what it carried. */
const newest = newSendState()
let newestSentAt: Millis = -Infinity

export class DeliveryRate {
  /** Octets delivered, and lost, in all. */
  delivered = 0
  lost = ZERO
  private deliveredAt: Millis = ZERO
  private flightSentAt: Millis = ZERO
  /** What was sent up to here was held back by the program, not by the path; 0: nothing is. */
  private appLimitedUntil = 0

  get isAppLimited(): boolean {
    return this.appLimitedUntil > 0
  }

  /** The program has nothing to send though the path would take more; `inFlight` octets are under way. */
  noteAppLimited(inFlight: number): void {
    this.appLimitedUntil = Math.max(1, this.delivered + inFlight)
  }

  sent(segments: SentSegments, slot: number, wasIdle: boolean, now: Millis): void {
    if (wasIdle) {
      this.flightSentAt = now
      this.deliveredAt = now
    }
    const state = scratch
    state.delivered = this.delivered
    state.deliveredAt = this.deliveredAt
    state.flightSentAt = this.flightSentAt
    state.isAppLimited = this.isAppLimited
    state.inFlight = segments.pipe
    state.lostBefore = this.lost
    segments.writeState(slot, state)
  }

  begin(): void {
    newestSentAt = -Infinity
  }

  arrived(segments: SentSegments, slot: number, octets: number, now: Millis): void {
    this.delivered += octets
    this.deliveredAt = now
    const sentAt = segments.sentAt(slot)
    if (sentAt < newestSentAt) return
    segments.readState(slot, scratch)
    if (sentAt === newestSentAt && scratch.delivered < newest.delivered) return
    segments.readState(slot, newest)
    newestSentAt = sentAt
    this.flightSentAt = sentAt
  }

  /** After all of an ACK: octets per millisecond, 0 when nothing can be told. */
  finish(sample: RateFacts, minRtt: Millis): void {
    if (this.appLimitedUntil > 0 && this.delivered > this.appLimitedUntil) this.appLimitedUntil = 0
    sample.totalDelivered = this.delivered
    sample.rate = 0
    sample.isAppLimited = newest.isAppLimited
    if (newestSentAt === -Infinity) {
      sample.priorDelivered = -1
      return
    }
    sample.priorDelivered = newest.delivered
    sample.inFlightThen = newest.inFlight
    sample.lostSince = this.lost - newest.lostBefore
    // What came since, over the longer of how long it took to send and to be acknowledged.
    const interval = Math.max(
      newestSentAt - newest.flightSentAt,
      this.deliveredAt - newest.deliveredAt,
    )
    if (interval <= 0 || interval < minRtt) return
    sample.rate = (this.delivered - newest.delivered) / interval
  }
}

/** The part of an ACK's sample that is filled in here; see `AckSample`. */
export interface RateFacts {
  totalDelivered: number
  priorDelivered: number
  rate: number
  isAppLimited: boolean
  inFlightThen: number
  lostSince: number
}
