/**
 * How large a packet gets through a path, found by trial where nobody tells (RFC 4821, RFC 8899): larger ones are
 * tried one at a time, and when nothing of the size in use arrives any more, less is sent. Octets of whole packets.
 */
import type { Millis } from './environment.ts'

/** RFC 8200 §5, and RFC 8899 §5.1.2 for IPv4: nearly every path takes it. */
const BASE = 1280
/** The commonest limit, tried before those between. */
const ETHERNET = 1500
/** RFC 8899 §5.1.2, MAX_PROBES: the loss of one may have other reasons. */
const MAX_PROBES = 3
/** Ours: a probe without a result for this long, since its connection has ended, is forgotten. */
const PROBE_TIMEOUT: Millis = 10_000
/** Ours, and then RFC 8899 §5.1.1, PMTU_RAISE_TIMER: what did not get through is tried again after this, then later. */
const FIRST_RAISE: Millis = 60_000
const LAST_RAISE: Millis = 600_000
/** The search is over when what is gained would be less than this share, or so many octets. */
const GRAIN_SHARE = 1 / 64
const GRAIN = 16
/** Timeouts in a row of one connection that make smaller packets worth a try: of a size that never got through, */
const UNPROVED_TIMEOUTS = 1
/** of one that did, and one more before less is sent than what nearly every path takes. */
const PROVED_TIMEOUTS = 2

export interface SizeBounds {
  /** What every path takes. */
  readonly least: number
  /** What the interface, or the program, allows. */
  readonly most: number
  /** Where to begin. */
  readonly start: number
}

export class SizeSearch {
  /** The largest that is sent. */
  limit: number
  /** Something of that size has arrived. */
  isProved = false
  readonly most: number
  private readonly least: number
  private readonly base: number
  /** The smallest that is known not to get through, or one more than `most`. */
  private ceiling: number
  /** What to try first. */
  private favourite: number
  private tried = 0
  private tries = 0
  private probeEndsAt: Millis = -Infinity
  private raiseAt: Millis = Infinity
  private raiseWait: Millis = FIRST_RAISE

  constructor({ least, most, start }: SizeBounds) {
    this.most = most
    this.least = Math.min(least, most)
    this.base = Math.min(BASE, most)
    this.limit = Math.min(start, most)
    this.ceiling = most + 1
    this.favourite = most
  }

  private get isDone(): boolean {
    return this.ceiling - this.limit <= Math.max(GRAIN, this.limit * GRAIN_SHARE)
  }

  /** Not known not to get through. */
  mayPass(size: number): boolean {
    return size < this.ceiling
  }

  /** A larger size may be worth a try now. */
  isDue(now: Millis): boolean {
    if (this.limit >= this.most || now < this.probeEndsAt) return false
    return !this.isDone || now >= this.raiseAt
  }

  /** When one is due: a size above the limit, and not above `most`; 0: none. */
  candidate(most: number, now: Millis): number {
    if (!this.isDue(now) || most <= this.limit) return 0
    if (this.isDone) {
      this.ceiling = this.most + 1
      this.favourite = this.most
      this.raiseWait = Math.min(2 * this.raiseWait, LAST_RAISE)
      this.noteStep(now)
    }
    return Math.min(this.choose(), most)
  }

  private choose(): number {
    const { limit, ceiling, favourite } = this
    if (favourite > limit && favourite < ceiling) return favourite
    if (limit < ETHERNET && ceiling > ETHERNET) return ETHERNET
    return (limit + ceiling) >> 1
  }

  noteSent(size: number, now: Millis): void {
    this.probeEndsAt = now + PROBE_TIMEOUT
    if (size === this.tried) return
    this.tried = size
    this.tries = 0
  }

  /** A probe has arrived. */
  noteAnswered(size: number, now: Millis): void {
    this.probeEndsAt = -Infinity
    if (size <= this.limit || size > this.most) return
    this.limit = size
    this.ceiling = Math.max(this.ceiling, size + 1)
    this.isProved = true
    this.raiseWait = FIRST_RAISE
    this.noteStep(now)
  }

  /** A probe has not. `isClear`: nothing else was lost, so that its size may be the reason. */
  noteLost(size: number, isClear: boolean, now: Millis): void {
    this.probeEndsAt = -Infinity
    if (!isClear || size !== this.tried || ++this.tries < MAX_PROBES) return
    if (size > this.limit) this.ceiling = Math.min(this.ceiling, size)
    this.tries = 0
    this.noteStep(now)
  }

  /** Something as large as the limit has arrived. */
  noteDelivered(): void {
    this.isProved = true
  }

  /** What may be sent instead, the larger first. */
  get below(): readonly number[] {
    return [this.base, this.least].filter(
      (size, at, all) => size < this.limit && all.indexOf(size) === at,
    )
  }

  /**
   * A black hole, perhaps (RFC 8899 §4.3): a packet larger than `size`, one of `below`, was sent in vain, `times` times in
   * a row. True: no more than `size` is sent from now on.
   */
  noteTimeout(size: number, times: number, now: Millis): boolean {
    const needed = this.isProved ? PROVED_TIMEOUTS : UNPROVED_TIMEOUTS
    if (times < needed + (size < this.base ? 1 : 0)) return false
    // It may have been an outage: what got through before is tried first.
    if (this.isProved) this.favourite = this.limit
    this.fall(size, now)
    return true
  }

  /** The system says that the limit is too large, but not what is not (RFC 1191 §4). */
  noteTooBig(now: Millis): void {
    if (this.limit <= this.base) return
    this.fall(this.base, now)
    // A system that knows a smaller limit cuts what is larger, so that trying would tell nothing.
    this.ceiling = this.base + 1
    this.raiseWait = LAST_RAISE
    this.noteStep(now)
  }

  private fall(size: number, now: Millis): void {
    this.limit = size
    this.isProved = false
    this.tries = 0
    this.probeEndsAt = -Infinity
    this.noteStep(now)
  }

  private noteStep(now: Millis): void {
    this.raiseAt = this.isDone ? now + this.raiseWait : Infinity
  }
}
