/**
 * How much a connection keeps for its reader: it begins small and grows with what he takes in a round trip. A sender that
 * doubles its window finds room for the next flight, and one whose octets nobody reads fills no more than the beginning.
 */
import type { Millis } from '../base/environment.ts'
import { ZERO } from '../base/real.ts'

/**
 * What was taken in a round trip was the flight of the one before it. Until that is seen its sender may have doubled its
 * window, and may do so once more before the next look.
 */
const AHEAD = 4
/** While a gap is filled, which takes a round trip, the sender goes on, and all of that waits. */
const AHEAD_OF_GAP = 2
/** The clock of timestamps counts milliseconds. */
const LEAST_ROUND: Millis = 1

export class ReceiveWindow {
  octets = ZERO
  private readonly most: number = 0
  /** The least round trip: with the queue on the path in it, the window would feed the queue. */
  private rtt: Millis = Infinity
  private roundFrom: Millis = ZERO
  private roundTaken = 0
  private hasGap = false

  /** `taken`: octets that the reader has taken so far; `most`: what the program allows. */
  constructor(octets: number, most: number, taken: number, now: Millis) {
    this.octets = octets
    this.most = most
    this.roundTaken = taken
    this.roundFrom = now
  }

  /**
   * Something has arrived, `rtt` after what it answers was sent; `taken`: octets that the reader has taken so far, `behind`:
   * octets that he cannot take before a gap is filled.
   */
  note(taken: number, behind: number, rtt: Millis, now: Millis): void {
    this.hasGap ||= behind > 0
    this.rtt = Math.max(LEAST_ROUND, Math.min(this.rtt, rtt))
    const rounds = Math.floor((now - this.roundFrom) / this.rtt)
    if (rounds < 1) return
    const inOne = (taken + behind - this.roundTaken) / rounds
    const ahead = this.hasGap ? AHEAD * AHEAD_OF_GAP : AHEAD
    this.octets = Math.max(this.octets, Math.min(this.most, Math.ceil(ahead * inOne)))
    this.roundFrom = now
    this.roundTaken = taken + behind
    this.hasGap = behind > 0
  }

  /** The path is another. */
  forgetRoundTrip(): void {
    this.rtt = Infinity
  }
}
