/** When slow start ends before it loses: HyStart++ (RFC 9406 §4.2), by round trips that grow. */
import type { Millis } from '../../base/environment.ts'
import type { AckSample } from './controller.ts'

const MIN_RTT_THRESHOLD: Millis = 4
const MAX_RTT_THRESHOLD: Millis = 16
const MIN_RTT_DIVISOR = 8
const RTT_SAMPLES = 8
/** Conservative slow start grows by this much less, for so many rounds. */
const GROWTH_DIVISOR = 4
const CONSERVATIVE_ROUNDS = 5

export class SlowStart {
  private roundEnds = 0
  private lastMin: Millis = Infinity
  private currentMin: Millis = Infinity
  private samples = 0
  /** Rounds of conservative slow start so far; -1: not in it. */
  private conservativeRounds = -1
  private baseline: Millis = Infinity

  /** How much the window grows; 0: slow start is over. */
  growth(sample: AckSample): number {
    if (sample.priorDelivered >= this.roundEnds) {
      this.roundEnds = sample.totalDelivered
      if (this.conservativeRounds >= 0 && ++this.conservativeRounds > CONSERVATIVE_ROUNDS) return 0
      this.lastMin = this.currentMin
      this.currentMin = Infinity
      this.samples = 0
    }
    if (sample.rtt > 0) {
      this.currentMin = Math.min(this.currentMin, sample.rtt)
      this.samples++
      this.judge()
    }
    // The sender is paced, so an ACK may count in full, whatever it acknowledges (RFC 9406 §4.2, L).
    return this.conservativeRounds < 0 ? sample.credit : sample.credit / GROWTH_DIVISOR
  }

  private judge(): void {
    if (this.samples < RTT_SAMPLES) return
    if (this.conservativeRounds >= 0) {
      // The round trip has fallen again: it was no queue of ours.
      if (this.currentMin < this.baseline) this.conservativeRounds = -1
      return
    }
    if (this.lastMin === Infinity) return
    const tolerance = Math.max(
      MIN_RTT_THRESHOLD,
      Math.min(this.lastMin / MIN_RTT_DIVISOR, MAX_RTT_THRESHOLD),
    )
    if (this.currentMin < this.lastMin + tolerance) return
    this.baseline = this.currentMin
    this.conservativeRounds = 0
  }
}
