/**
 * When slow start ends before it loses: by round trips that grow (RFC 9406 §4.2), and the window goes back to what was
 * under way when they began to.
 */
import type { Millis } from '../../base/environment.ts'
import type { AckSample } from './controller.ts'

const MIN_RTT_THRESHOLD: Millis = 4
const MAX_RTT_THRESHOLD: Millis = 16
const MIN_RTT_DIVISOR = 8
/** So many long round trips in a row are no accident. */
const RTT_SAMPLES = 8

/**
 * DEVIATION RFC 9406 §4.2: a round trip is compared with the least one, as it is measured, and not at the end of a round
 * with the round before. By then a paced sender has filled a queue of one round trip. Instead of growing more slowly,
 * the window is reduced to what the path held before the queue, for a round in which it shows whether there was one. A
 * path that has become longer is told from a queue by that: with less under way, its round trips take as long.
 */
export class SlowStart {
  isOver = false
  /** The least round trip of data: that of the SYN, which is small and came alone, tells nothing of it. */
  private least: Millis = Infinity
  /** Long round trips in a row, how many of them are believed, and the least that was under way at one of them. */
  private long = 0
  private believed = RTT_SAMPLES
  private held = Infinity
  /** The window before it was reduced; 0: it is not. */
  private before = 0
  /** The reduced one, and the longest round trip of what was sent before. */
  private tried = 0
  private longest: Millis = 0
  /** Octets delivered when that round begins and ends, and the least round trip of it. */
  private trialFrom = 0
  private trialEnds = 0
  private trialMin: Millis = Infinity

  /** The window as it was when the queue was full, where it has been reduced since. */
  get peak(): number {
    return this.before
  }

  /** The window after an ACK. */
  next(sample: AckSample, window: number): number {
    const { rtt } = sample
    if (rtt > 0) this.least = Math.min(this.least, rtt)
    const { least } = this
    const tolerance = Math.max(
      MIN_RTT_THRESHOLD,
      Math.min(least / MIN_RTT_DIVISOR, MAX_RTT_THRESHOLD),
    )
    if (this.before > 0) return this.tryWindow(sample, window, least + tolerance / 2)
    if (rtt > 0 && rtt < least + tolerance) {
      this.long = 0
      this.held = Infinity
    } else if (rtt > 0) {
      this.long++
      this.held = Math.min(this.held, sample.inFlightThen)
    }
    // The sender is paced, so an ACK may count in full, whatever it acknowledges (RFC 9406 §4.2, L).
    if (this.long < this.believed) return window + sample.credit
    this.before = window
    this.trialFrom = sample.totalDelivered
    this.trialEnds = Infinity
    this.trialMin = Infinity
    // No further than to where it was a round trip ago: with what a single ACK has let go, little more than that was under
    // way when the first of it was sent.
    this.tried = Math.min(window, Math.max(this.held, window / 2))
    this.longest = rtt
    return this.tried
  }

  private tryWindow(sample: AckSample, window: number, most: Millis): number {
    const { rtt, priorDelivered, totalDelivered } = sample
    // What comes first was sent before.
    if (priorDelivered < this.trialFrom) {
      this.longest = Math.max(this.longest, rtt)
      return window
    }
    if (this.trialEnds === Infinity) this.trialEnds = totalDelivered
    if (rtt > 0) this.trialMin = Math.min(this.trialMin, rtt)
    if (priorDelivered < this.trialEnds) return window
    if (this.trialMin > most) {
      this.isOver = !this.isLonger
      if (this.isOver) return window
      this.least = this.trialMin
    }
    // It was no queue that stands, but a burst, or others: slow start goes on from here, and doubts more.
    this.before = 0
    this.long = 0
    this.held = Infinity
    this.believed *= 2
    return window
  }

  /** A queue of ours would have become shorter by what was taken out of it: this is the path. */
  private get isLonger(): boolean {
    const fall = (1 - this.tried / this.before) * this.longest
    return this.longest - this.trialMin < fall / 2
  }
}
