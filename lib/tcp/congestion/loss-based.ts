/** What NewReno and CUBIC have in common: a window that losses reduce, slow start, and pacing of the rest. */
import type { Millis } from '../../base/environment.ts'
import { ZERO } from '../../base/real.ts'
import {
  LARGEST_WINDOW,
  LEAST_SEGMENTS,
  type AckSample,
  type CongestionController,
  type Loss,
} from './controller.ts'
import { SlowStart } from './slow-start.ts'

/**
 * A window goes out over less than a round trip, so that pacing does not hold it back. In slow start one that doubles in
 * a round trip without a pause leaves at 2 ln 2 of itself; more would be bursts, which fill a queue too early.
 */
const SLOW_START_GAIN = 1.5
const AVOIDANCE_GAIN = 1.2
/** The share of the window that an idle time leaves as the threshold (RFC 7661 §4.4.1). */
const IDLE_SHARE = 3 / 4

export abstract class LossBased implements CongestionController {
  cwnd = ZERO
  ssthresh = Infinity
  readonly reducesProportionally = true
  readonly mayRest = true
  private initialWindow = 0
  private srtt: Millis = ZERO
  private minRtt: Millis = ZERO
  /** While there is no threshold. */
  private slowStart: SlowStart | undefined
  private before: { cwnd: number; ssthresh: number } | undefined

  get window(): number {
    return this.cwnd
  }

  get threshold(): number {
    return this.ssthresh
  }

  get pacingRate(): number {
    if (this.srtt === 0) return Infinity
    const gain = this.cwnd < this.ssthresh ? SLOW_START_GAIN : AVOIDANCE_GAIN
    // A window that was just reduced to what the path holds has not shown yet how long a round trip is with it.
    const isTried = this.slowStart !== undefined && this.slowStart.peak > 0
    return (gain * this.cwnd) / (isTried ? this.minRtt : this.srtt)
  }

  onStart(initialWindow: number): void {
    this.initialWindow = initialWindow
    this.cwnd = initialWindow
    this.ssthresh = Infinity
    this.srtt = 0
    this.before = undefined
    this.slowStart = undefined
  }

  onResume(initialWindow: number, threshold: number, window = initialWindow): void {
    this.onStart(initialWindow)
    this.ssthresh = Math.max(threshold, initialWindow)
    this.cwnd = Math.max(initialWindow, Math.min(window, this.ssthresh))
  }

  onAck(sample: AckSample): void {
    this.srtt = sample.srtt
    this.minRtt = sample.minRtt
    if (sample.isRecovering || sample.credit === 0) return
    if (!sample.isWindowLimited) return this.pause(sample)
    let octets = sample.credit
    if (this.cwnd < this.ssthresh) {
      // RFC 9406 §4.3: a threshold that is known needs no guess.
      if (this.ssthresh === Infinity) return this.search(sample)
      const grown = Math.min(this.cwnd + octets, this.ssthresh)
      octets -= grown - this.cwnd
      this.cwnd = Math.min(grown, LARGEST_WINDOW)
      if (octets <= 0) return
    }
    this.cwnd = Math.min(this.cwnd + this.avoid(sample, octets), LARGEST_WINDOW)
  }

  /** Slow start, as long as nothing tells how much the path takes. */
  private search(sample: AckSample): void {
    this.slowStart ??= new SlowStart()
    this.cwnd = Math.min(this.slowStart.next(sample, this.cwnd), LARGEST_WINDOW)
    if (!this.slowStart.isOver) return
    this.ssthresh = this.cwnd
    this.slowStart = undefined
  }

  /** By how much the window grows in congestion avoidance for `octets` delivered. */
  protected abstract avoid(sample: AckSample, octets: number): number
  /** The window after a loss. `peak`: the one that slow start had before it tried a smaller one; 0: it did not. */
  protected abstract reduced(loss: Loss, peak: number): number
  /** The window was not in use: time passes without growth. */
  protected pause(_sample: AckSample): void {}
  /** The reduction is taken back. */
  protected abstract restore(): void

  onLoss(loss: Loss): void {
    if (!loss.isRepeated) {
      const peak = this.slowStart?.peak ?? 0
      this.cwnd = Math.max(this.cwnd, peak)
      this.before = { cwnd: this.cwnd, ssthresh: this.ssthresh }
      // RFC 5681 §3.2, step 2: what limited transmit has sent beyond the window does not count.
      const inFlight = Math.min(loss.inFlight, this.cwnd)
      // Slow start has gone on until the loss was found; what overflowed was the flight of a round trip ago.
      // It has grown by no more than was ahead of the lost segment then.
      const grown = loss.inFlightThen - loss.segment
      if (this.cwnd < this.ssthresh)
        this.cwnd = Math.min(this.cwnd, Math.max(loss.inFlightThen, this.cwnd - grown))
      const reduced = this.reduced({ ...loss, inFlight }, peak)
      this.ssthresh = Math.max(reduced, LEAST_SEGMENTS * loss.segment)
    }
    this.cwnd = loss.isTimeout ? loss.segment : this.ssthresh
    this.slowStart = undefined
  }

  onSpurious(): void {
    if (this.before === undefined) return
    this.cwnd = Math.max(this.cwnd, this.before.cwnd)
    this.ssthresh = this.before.ssthresh
    this.before = undefined
    this.restore()
  }

  /** RFC 2861 §3.1: half of the window for each timeout without a word, down to the initial one. */
  onIdle(idle: Millis, rto: Millis): void {
    const floor = Math.min(this.initialWindow, this.cwnd)
    this.ssthresh = Math.max(this.ssthresh === Infinity ? 0 : this.ssthresh, IDLE_SHARE * this.cwnd)
    this.cwnd = Math.max(floor, this.cwnd / 2 ** Math.min(30, Math.floor(idle / rto)))
    this.slowStart = undefined
  }
}
