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
  /** A segment waits for its time. */
  private isHeld = false
  private sentAt: Millis = -Infinity

  /** When a segment may leave: now, or later. */
  allowedAt(now: Millis): Millis {
    if (this.burst > 0 || this.freeAt <= now + QUANTUM) return now
    this.isHeld = true
    return this.freeAt
  }

  sent(octets: number, segment: number, rate: number, wasIdle: boolean, now: Millis): void {
    if (rate === Infinity) return
    if (wasIdle && !this.isHeld && this.freeAt <= now) this.burst = BURST_SEGMENTS * segment
    if (this.burst > 0) {
      this.burst -= octets
      this.freeAt = now
      return
    }
    // A program that is busy comes to its timers late, by many milliseconds each time. What pacing alone has held back
    // so long leaves together: else a window never gets out within a round trip, and so never grows.
    const isLate = this.isHeld || this.sentAt === now
    this.isHeld = false
    this.sentAt = now
    this.freeAt = (isLate ? this.freeAt : Math.max(this.freeAt, now - QUANTUM)) + octets / rate
  }
}
