/**
 * Message IDs, the one request under way, the answer to the peer's last one, and when to send again
 * (RFC 7296 §2.1-2.3). Exchanges see none of it.
 */
import { randomFraction, type Environment, type Millis } from '../base/environment.ts'
import type { Path } from '../base/path.ts'
import type { RetransmitPolicy } from '../policy/options.ts'

interface Outstanding {
  readonly id: number
  readonly startedAt: Millis
  datagrams: readonly Uint8Array[]
  sentTimes: number
  deadline: Millis
  wait: Millis
  wasSentEarly: boolean
  /** How far the quick schedule is; undefined: the ordinary one holds. */
  quickStep: number | undefined
}

/** A datagram to send; `path` undefined: where the SA's peer is. */
export interface Outgoing {
  readonly bytes: Uint8Array
  /** Of all datagrams of the message, with the first of them; 0 with the others. */
  readonly octets: number
  readonly path: Path | undefined
}

/** Where a request came from, when that is not where the peer is known to be, and how large it was. */
export interface Stray {
  readonly path: Path
  readonly octets: number
}

/** RFC 9000 §8.1: at most three times as much goes to a place that may be another's. */
const isAffordable = (datagrams: readonly Uint8Array[], { octets }: Stray): boolean =>
  octetsOf(datagrams) <= 3 * octets

const octetsOf = (datagrams: readonly Uint8Array[]): number =>
  datagrams.reduce((sum, { length }) => sum + length, 0)

const outgoing = (datagrams: readonly Uint8Array[], path?: Path): Outgoing[] =>
  datagrams.map((bytes, i) => ({ bytes, octets: i === 0 ? octetsOf(datagrams) : 0, path }))

/** Ours: a random part in each wait, so that many clients of a server that fails do not come in step. */
const JITTER = 0.1
/** Ours: the waits of the quick schedule: three requests within a second, then a few; five seconds in all. */
const QUICK_WAITS: readonly Millis[] = [300, 500, 1000, 1400, 1300, 500]
/** Ours: a timer that is so late says that we stood still, and answers may wait to be read. */
const STANDSTILL: Millis = 1000
/** Ours: a NAT that moves a peer while it repeats a request needs one, perhaps two. */
const LEAST_STRAY_REPEATS = 3

export class MessageWindow {
  private readonly policy: RetransmitPolicy
  private readonly environment: Environment
  private outstanding: Outstanding | undefined
  private nextOwnId: number
  /** ID of the peer's next request. */
  private nextPeerId = 0
  private answered: readonly Uint8Array[] | undefined
  private strayRepeats = 0
  private readonly outbox: Outgoing[] = []

  /** `firstOwnId`: message ID of our first request. */
  constructor(policy: RetransmitPolicy, environment: Environment, firstOwnId = 0) {
    this.policy = policy
    this.environment = environment
    this.nextOwnId = firstOwnId
  }

  get isBusy(): boolean {
    return this.outstanding !== undefined
  }

  get ownId(): number {
    return this.nextOwnId
  }

  get peerId(): number {
    return this.nextPeerId
  }

  // --- our requests ---

  /** Sends a request whose message ID is `ownId`, until it is answered or given up. */
  request(datagrams: readonly Uint8Array[], now: Millis): void {
    const wait = this.policy.initial
    this.outstanding = {
      id: this.nextOwnId++,
      startedAt: now,
      datagrams,
      sentTimes: 1,
      wait,
      deadline: now + this.jittered(wait),
      wasSentEarly: false,
      quickStep: undefined,
    }
    this.outbox.push(...outgoing(datagrams))
  }

  /** IKE_SA_INIT asked once more with a cookie or another group keeps its ID (§2.6, §3.10.1). */
  repeatId(): void {
    this.outstanding = undefined
    this.nextOwnId--
  }

  /** What is repeated from now on instead, under the same ID and schedule. */
  replace(datagrams: readonly Uint8Array[]): void {
    if (this.outstanding !== undefined) this.outstanding.datagrams = datagrams
  }

  isAwaited(id: number): boolean {
    return this.outstanding?.id === id
  }

  settle(): void {
    this.outstanding = undefined
  }

  // --- the peer's requests ---

  isNext(id: number): boolean {
    return id === this.nextPeerId
  }

  isRepeated(id: number): boolean {
    return id === this.nextPeerId - 1 && this.answered !== undefined
  }

  /** The peer's request is taken up; its answer follows, now or when a question has been answered. */
  accept(): void {
    this.nextPeerId++
    this.answered = undefined
  }

  /** Between `accept` and `answer`. */
  get owesAnswer(): boolean {
    return this.nextPeerId > 0 && this.answered === undefined
  }

  /** `stray`: the request came from elsewhere than where the peer is known to be. */
  answer(datagrams: readonly Uint8Array[], stray?: Stray): void {
    this.answered = datagrams
    this.strayRepeats = 0
    if (stray === undefined) this.outbox.push(...outgoing(datagrams))
    else if (isAffordable(datagrams, stray)) this.outbox.push(...outgoing(datagrams, stray.path))
  }

  /**
   * §2.11: an answer goes where its request came from, which for a repeated one proves nothing about the
   * peer: somebody may have recorded it. So to `stray` places it goes only a few times.
   */
  repeatAnswer(stray?: Stray): void {
    if (this.answered === undefined || this.outbox.length > 0) return
    if (stray === undefined) return void this.outbox.push(...outgoing(this.answered))
    // A peer that moves on while it repeats, and whose answers get lost, needs one for each of its tries.
    const most = Math.max(LEAST_STRAY_REPEATS, this.policy.tries + 1)
    if (!isAffordable(this.answered, stray) || ++this.strayRepeats > most) return
    this.outbox.push(...outgoing(this.answered, stray.path))
  }

  /** What is repeated from now on instead. */
  replaceAnswer(datagrams: readonly Uint8Array[]): void {
    if (this.answered !== undefined) this.answered = datagrams
  }

  // --- time and output ---

  get deadline(): Millis {
    return this.outstanding?.deadline ?? Infinity
  }

  /** The request is sent again; false when it was sent often enough. */
  retransmit(now: Millis): boolean {
    const outstanding = this.outstanding
    if (outstanding === undefined) return true
    const stoodStill = now - outstanding.deadline > STANDSTILL
    if (outstanding.quickStep !== undefined) {
      const last = QUICK_WAITS.length - 1
      if (outstanding.quickStep === last && !stoodStill) return false
      outstanding.quickStep = Math.min(outstanding.quickStep + 1, last)
      outstanding.deadline = now + QUICK_WAITS[outstanding.quickStep]!
    } else {
      if (outstanding.sentTimes > this.policy.tries && !stoodStill) return false
      outstanding.wait = Math.min(outstanding.wait * this.policy.factor, this.policy.max)
      outstanding.deadline = now + this.jittered(outstanding.wait)
    }
    outstanding.sentTimes++
    this.outbox.push(...outgoing(outstanding.datagrams))
    return true
  }

  /** Repeats the request on the quick schedule from now on. `isNew`: it has just been sent. */
  quicken(isNew: boolean, now: Millis): void {
    const outstanding = this.outstanding
    if (outstanding === undefined || outstanding.quickStep !== undefined) return
    outstanding.quickStep = 0
    outstanding.deadline = now + QUICK_WAITS[0]!
    if (!isNew) this.outbox.push(...outgoing(outstanding.datagrams))
  }

  /** The peer lives after all: the ordinary schedule holds again. */
  slacken(now: Millis): void {
    const outstanding = this.outstanding
    if (outstanding?.quickStep === undefined) return
    outstanding.quickStep = undefined
    outstanding.sentTimes = 1
    outstanding.wait = this.policy.initial
    outstanding.deadline = now + outstanding.wait
  }

  get isQuick(): boolean {
    return this.outstanding?.quickStep !== undefined
  }

  /**
   * Sends again at once, because something hints at an answer being lost: only once, and beside the
   * schedule, since the sender of a hint must not be able to use up our retries.
   */
  retransmitOnce(): void {
    const outstanding = this.outstanding
    if (outstanding === undefined || outstanding.wasSentEarly) return
    outstanding.wasSentEarly = true
    this.outbox.push(...outgoing(outstanding.datagrams))
  }

  /** The peer is heard again: what was repeated in vain may reach it by now. */
  wake(): void {
    const outstanding = this.outstanding
    if (outstanding === undefined || outstanding.sentTimes < 2) return
    this.outbox.push(...outgoing(outstanding.datagrams))
  }

  /** The request under way has been sent so many times. */
  get sentTimes(): number {
    return this.outstanding?.sentTimes ?? 0
  }

  /** When the request under way was sent first; Infinity: there is none. */
  get startedAt(): Millis {
    return this.outstanding?.startedAt ?? Infinity
  }

  /** The peer is elsewhere, and silence of its old place says nothing about it: all tries start over now. */
  renew(now: Millis): void {
    if (this.outstanding === undefined) return
    this.outstanding.sentTimes = 0
    this.outstanding.wait = this.policy.initial
    this.outstanding.deadline = now
  }

  private jittered(wait: Millis): Millis {
    return wait * (1 + JITTER * randomFraction(this.environment))
  }

  poll(): Outgoing | undefined {
    return this.outbox.shift()
  }
}
