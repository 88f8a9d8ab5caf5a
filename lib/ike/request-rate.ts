/** How often one peer may have us make SAs: the work and the memory of each request are ours, its choice is not. */
import type { Millis } from '../base/environment.ts'

/** Ours: as many at once as Child SAs may be due for a rekey, twice over. */
const BURST = 128
/** Ours: both SAs can be rekeyed twice a second from either end. */
const PER_SECOND = 5

/** Requests of CREATE_CHILD_SA on all IKE SAs of one peer. */
export class RequestRate {
  private left = BURST
  private countedAt: Millis = -Infinity

  /** Counts one more; false when there were too many. */
  take(now: Millis): boolean {
    const grown = (Math.max(0, now - this.countedAt) * PER_SECOND) / 1000
    this.left = Math.min(BURST, this.left + grown)
    this.countedAt = now
    if (this.left < 1) return false
    this.left--
    return true
  }
}
