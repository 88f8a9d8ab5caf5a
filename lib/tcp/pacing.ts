/** When the next segment may leave, so that a window goes out over the round trip and not in one burst. */
import type { Millis } from '../base/environment.ts'

/** Timers go off a millisecond late: what belongs to that time leaves together. */
const QUANTUM: Millis = 1.2
/** Segments that leave without a pause after an idle time (RFC 6928). */
const BURST_SEGMENTS = 10

export class Pacer {
  /** When all that was sent would have left at the rate. */
  private freeAt: Millis = -Infinity
  /** Octets that leave at once after an idle time. */
  private burst = 0

  /** When a segment may leave: now, or later. */
  allowedAt(now: Millis): Millis {
    return this.burst > 0 || this.freeAt <= now + QUANTUM ? now : this.freeAt
  }

  sent(octets: number, segment: number, rate: number, wasIdle: boolean, now: Millis): void {
    if (rate === Infinity) return
    if (wasIdle && this.freeAt <= now) this.burst = BURST_SEGMENTS * segment
    if (this.burst > 0) {
      this.burst -= octets
      this.freeAt = now
      return
    }
    // A timer may have been late by this much; what it held back must not lower the rate.
    this.freeAt = Math.max(this.freeAt, now - QUANTUM) + octets / rate
  }
}
