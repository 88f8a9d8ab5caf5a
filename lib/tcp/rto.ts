/** Round trips measured, and the retransmission timeout from them (RFC 6298). */
import type { Millis } from '../base/environment.ts'
import { ZERO } from '../base/real.ts'
import type { Experience } from './experience.ts'

const ALPHA = 1 / 8
const BETA = 1 / 4
const K = 4
/** The least round trip is that of the last minutes: paths change. */
const MIN_RTT_WINDOW: Millis = 300_000

/** Ours: what one stall adds makes the timeout no longer than the second that §2.4 wants. */
const MOST_DOUBT: Millis = 1000 / K

export interface Smoothed {
  readonly srtt: Millis
  readonly rttvar: Millis
}

export class RtoEstimator {
  /** Smoothed round trip; 0 before the first measurement. */
  srtt: Millis = ZERO
  rttvar: Millis = ZERO
  /** The least round trip of the last minutes; 0 before the first measurement. */
  minRtt: Millis = ZERO
  isMeasured = false
  /** Consecutive timeouts. */
  backoffs = 0
  private base: Millis = ZERO
  private readonly min: Millis = 0
  private readonly max: Millis = 0
  // The least of this window and of the one before it.
  private currentMin: Millis = Infinity
  private lastMin: Millis = Infinity
  private windowFrom: Millis = ZERO

  constructor(initial: Millis, min: Millis, max: Millis) {
    this.base = initial
    this.min = min
    this.max = max
  }

  get rto(): Millis {
    const timeout = this.backoffs === 0 ? this.base : this.base * 2 ** this.backoffs
    return Math.min(timeout, this.max)
  }

  measure(rtt: Millis, now: Millis): void {
    if (now - this.windowFrom >= MIN_RTT_WINDOW) {
      this.lastMin = this.currentMin
      this.currentMin = rtt
      this.windowFrom = now
    } else if (rtt < this.currentMin) this.currentMin = rtt
    this.minRtt = Math.min(this.currentMin, this.lastMin)
    if (this.isMeasured) {
      this.rttvar = (1 - BETA) * this.rttvar + BETA * Math.abs(this.srtt - rtt)
      this.srtt = (1 - ALPHA) * this.srtt + ALPHA * rtt
    } else {
      this.isMeasured = true
      this.rttvar = rtt / 2
      this.srtt = rtt
    }
    this.rebase()
    this.backoffs = 0
  }

  private rebase(): void {
    // §2.3, with the least timeout as what the variance counts for at least: a steady path is no reason for haste.
    this.base = this.srtt + Math.max(this.min, K * this.rttvar)
  }

  get smoothed(): Smoothed {
    const { srtt, rttvar } = this
    return { srtt, rttvar }
  }

  /**
   * What was measured since `before` was a stall, which went by: round trips take as long as they did. The timeout is
   * longer for a while (RFC 4015 §3). `rtt`: of what lay in it.
   */
  noteSpike(before: Smoothed, rtt: Millis): void {
    this.srtt = before.srtt
    this.rttvar = Math.max(before.rttvar, Math.min(rtt / 2, MOST_DOUBT))
    this.rebase()
  }

  /** What was measured before a rest. */
  restore({ srtt, rttvar, minRtt }: Experience, now: Millis): void {
    this.measure(minRtt, now)
    this.srtt = srtt
    this.rttvar = rttvar
    this.rebase()
  }

  backOff(): void {
    if (this.rto < this.max) this.backoffs++
  }
}
