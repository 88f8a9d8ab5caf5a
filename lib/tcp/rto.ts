/** Retransmission timeout from measured round trips (RFC 6298). */
import type { Millis } from '../base/environment.ts'

const ALPHA = 1 / 8
const BETA = 1 / 4
const K = 4

export class RtoEstimator {
  /** Smoothed round trip; 0 before the first measurement. */
  srtt: Millis = 0
  rttvar: Millis = 0
  minRtt: Millis = Infinity
  /** Consecutive timeouts. */
  backoffs = 0
  private base: Millis
  private readonly min: Millis
  private readonly max: Millis

  constructor(initial: Millis, min: Millis, max: Millis) {
    this.base = initial
    this.min = min
    this.max = max
  }

  get rto(): Millis {
    return Math.min(this.base * 2 ** this.backoffs, this.max)
  }

  measure(rtt: Millis): void {
    this.minRtt = Math.min(this.minRtt, rtt)
    if (this.srtt === 0 && this.rttvar === 0) {
      this.srtt = rtt
      this.rttvar = rtt / 2
    } else {
      this.rttvar = (1 - BETA) * this.rttvar + BETA * Math.abs(this.srtt - rtt)
      this.srtt = (1 - ALPHA) * this.srtt + ALPHA * rtt
    }
    // §2.3: the variance counts for at least the clock's granularity, here one millisecond.
    this.base = Math.max(this.min, this.srtt + Math.max(1, K * this.rttvar))
    this.backoffs = 0
  }

  backOff(): void {
    if (this.rto < this.max) this.backoffs++
  }
}
