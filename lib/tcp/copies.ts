/**
 * What is written at once ends with a segment that nothing follows: when it is lost, only a timer finds out. Where the path
 * is seen to lose, such a segment is sent twice, as long as copies are but a hundredth of what the connections of the
 * session send, beside a little. So much of theirs is copied at most: `SHARE` of the octets sent so far, `FIRST`, and
 * `PER_MILLI` for each millisecond that the session lives.
 */
import type { Millis } from '../base/environment.ts'

const SHARE = 1 / 100
/** Ours: where little is sent, as if it were one megabit a second, which any path bears a hundredth more of. */
const PER_MILLI = 1.25
/** Ours: octets that may be copied before anything was sent, and that a silence saves up again. */
const FIRST = 65_536
/** Ours: octets that may be saved up, so that a long transfer makes no long burst of copies. */
const MOST = 1 << 20
/** Ours: what a datagram has beside data, about: of a copy of one octet it is nearly all that it costs. */
const AROUND = 100
/** Ours: after this long without loss a path counts as lossless. */
const MEMORY: Millis = 60_000

export interface Copy {
  readonly seq: number
  readonly octets: number
  readonly flags: number
  /** Its timestamp. */
  readonly stamp: number
}

/** For all connections of a peer. */
export class Copies {
  private lostAt: Millis = -Infinity
  private credit = FIRST
  private creditAt: Millis = 0

  noteLost(now: Millis): void {
    this.lostAt = now
  }

  noteSent(octets: number): void {
    this.credit = Math.min(MOST, this.credit + octets * SHARE)
  }

  /** A segment with so many octets may go out once more; it is counted. */
  take(data: number, now: Millis): boolean {
    if (now - this.lostAt >= MEMORY) return false
    const saved = (now - this.creditAt) * PER_MILLI
    this.credit = Math.max(this.credit, Math.min(FIRST, this.credit + saved))
    this.creditAt = now
    const octets = data + AROUND
    if (this.credit < octets) return false
    this.credit -= octets
    return true
  }
}
