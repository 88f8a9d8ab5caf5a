/**
 * Message IDs, the one request under way, the answer to the peer's last one, and when to send again
 * (RFC 7296 §2.1-2.3). Exchanges see none of it.
 */
import { randomFraction, type Environment, type Millis } from '../base/environment.ts'
import type { Path } from '../base/path.ts'
import type { RetransmitPolicy } from '../policy/options.ts'

interface Outstanding {
  readonly id: number
  datagrams: readonly Uint8Array[]
  sentTimes: number
  deadline: Millis
  wait: Millis
  hastened: boolean
}

/** A datagram to send; `path` undefined: where the SA's peer is. */
export interface Outgoing {
  readonly bytes: Uint8Array
  readonly path: Path | undefined
}

const outgoing = (datagrams: readonly Uint8Array[], path?: Path): Outgoing[] =>
  datagrams.map(bytes => ({ bytes, path }))

/** Ours: a random part in each wait, so that many clients of a server that fails do not come in step. */
const JITTER = 0.1
/** Ours: a NAT that moves a peer while it repeats a request needs one, perhaps two. */
const MAX_STRAY_REPEATS = 3

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
      datagrams,
      sentTimes: 1,
      wait,
      deadline: now + this.jittered(wait),
      hastened: false,
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

  answer(datagrams: readonly Uint8Array[]): void {
    this.answered = datagrams
    this.strayRepeats = 0
    this.outbox.push(...outgoing(datagrams))
  }

  /**
   * §2.11: an answer goes where its request came from, which for a repeated one proves nothing about the
   * peer: somebody may have recorded it. So to `stray` places it goes only a few times.
   */
  repeatAnswer(path: Path, isStray: boolean): void {
    if (this.answered === undefined || this.outbox.length > 0) return
    if (isStray && ++this.strayRepeats > MAX_STRAY_REPEATS) return
    this.outbox.push(...outgoing(this.answered, path))
  }

  // --- time and output ---

  get deadline(): Millis {
    return this.outstanding?.deadline ?? Infinity
  }

  /** The request is sent again; false when it was sent often enough. */
  retransmit(now: Millis): boolean {
    const outstanding = this.outstanding
    if (outstanding === undefined) return true
    if (outstanding.sentTimes > this.policy.tries) return false
    outstanding.sentTimes++
    outstanding.wait = Math.min(outstanding.wait * this.policy.factor, this.policy.max)
    outstanding.deadline = now + this.jittered(outstanding.wait)
    this.outbox.push(...outgoing(outstanding.datagrams))
    return true
  }

  /**
   * Sends again at once, because something hints at an answer being lost: only once, and beside the
   * schedule, since whoever hints must not be able to use up our patience.
   */
  hasten(): void {
    const outstanding = this.outstanding
    if (outstanding === undefined || outstanding.hastened) return
    outstanding.hastened = true
    this.outbox.push(...outgoing(outstanding.datagrams))
  }

  /** The request under way has been sent so many times. */
  get sentTimes(): number {
    return this.outstanding?.sentTimes ?? 0
  }

  /** The peer is elsewhere, and silence of its old place says nothing about it: all tries anew, from now. */
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
