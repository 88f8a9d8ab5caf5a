/**
 * The generations of a session's IKE SAs: the current one, those that it replaced, and the renewal that is
 * to replace it. What is true of all of them (who the peer is, the policy, who authenticates) stands here once.
 */
import { errorOf } from '../base/error-table.ts'
import type { Millis } from '../base/environment.ts'
import type { ChildRequest, PeerFacts } from '../ike/exchange.ts'
import { HalfOpen } from '../ike/half-open.ts'
import type { IkeSa } from '../ike/ike-sa.ts'
import { MAX_PREDECESSORS } from '../ike/succession.ts'
import type { PeerPolicy } from '../policy/options.ts'
import { MAX_LINGERING } from './child-table.ts'

/** A new IKE SA beside those that it will replace (RFC 7296 §2.8.3). */
interface Renewal {
  sa: IkeSa | HalfOpen
  /** What IKE_AUTH does not carry. */
  readonly more: readonly ChildRequest[]
  /** Child SAs of which nothing is known yet, by ticket; undefined is that of IKE_AUTH. */
  readonly awaited: Set<number | undefined>
}

export class Lineage {
  policy: PeerPolicy
  facts: PeerFacts | undefined
  /** We made the first SA; a rekey by the peer does not change who authenticates and who may let it go. */
  isClient = false
  rekeys = 0
  /** The SA that we are making: the first one, or the renewal. */
  opening: HalfOpen | undefined
  private readonly living: IkeSa[] = []
  /** Ended, and still answering what the peer repeats. */
  private readonly ended: IkeSa[] = []
  private renewal: Renewal | undefined
  /** All of them, until one comes or goes: it is asked for with every packet. */
  private everyone: readonly (IkeSa | HalfOpen)[] | undefined

  constructor(policy: PeerPolicy) {
    this.policy = policy
  }

  /** In the order they were made; without the one that is being made. */
  get sas(): readonly IkeSa[] {
    return this.living
  }

  /** Also those that only repeat their last answer. */
  get all(): readonly (IkeSa | HalfOpen)[] {
    const { living, opening, ended } = this
    this.everyone ??= opening === undefined ? [...living, ...ended] : [...living, opening, ...ended]
    return this.everyone
  }

  /** The IKE SA that carries new exchanges: the newest one that is established. */
  get current(): IkeSa | undefined {
    const { living } = this
    for (let i = living.length - 1; i >= 0; i--) {
      if (living[i]!.state === 'established') return living[i]
    }
    return living.at(-1)
  }

  /**
   * Those by which the peer knows the session, when an SA that replaces them names them: an SA that the peer has
   * made by a rekey and not used yet, it may not know, or may know as the only one.
   */
  get predecessors(): readonly IkeSa[] {
    const { current, living } = this
    if (current?.state !== 'established') return []
    return current.isShared ? [current] : living.slice(-MAX_PREDECESSORS)
  }

  get isOver(): boolean {
    return this.living.length === 0 && this.opening === undefined
  }

  /** Nothing of it is left, not even an SA that repeats its last answer. */
  get isEmpty(): boolean {
    return this.isOver && this.ended.length === 0
  }

  get isEstablished(): boolean {
    return this.facts !== undefined && this.living.some(sa => sa.state === 'established')
  }

  get isRenewing(): boolean {
    return this.renewal !== undefined
  }

  ownerOf(inboundSpi: number): IkeSa | undefined {
    return this.living.find(({ children }) => children.has(inboundSpi))
  }

  add(sa: IkeSa | HalfOpen): void {
    this.everyone = undefined
    if (sa instanceof HalfOpen) this.opening = sa
    else this.living.push(sa)
  }

  /** The peer of the SA that is being made has proved itself, or it is made once more. */
  replace(opening: HalfOpen, by: IkeSa | HalfOpen): void {
    this.opening = undefined
    this.add(by)
    if (this.renewal?.sa === opening) this.renewal.sa = by
  }

  /** It belongs to another session. */
  disown(sa: IkeSa): void {
    this.everyone = undefined
    remove(this.living, sa)
  }

  /** That is the SA which is to replace the others. */
  isRenewal(sa: IkeSa | HalfOpen): boolean {
    return this.renewal?.sa === sa
  }

  /** It has ended, and may still repeat its last answer. */
  end(sa: IkeSa | HalfOpen, now: Millis): void {
    this.everyone = undefined
    if (sa instanceof HalfOpen) this.opening = undefined
    else {
      remove(this.living, sa)
      this.ended.push(sa)
    }
    if (this.renewal?.sa !== sa) return
    this.renewal = undefined
    this.current?.retryReauthentication(now)
  }

  forget(sa: IkeSa): void {
    this.everyone = undefined
    remove(this.ended, sa)
  }

  /** Cuts short SAs whose Delete the peer owes us, or that only repeat their last answer. */
  trim(now: Millis): void {
    if (this.living.length + this.ended.length <= MAX_LINGERING) return
    const [oldest] = this.living.length > MAX_LINGERING ? this.living : this.ended
    oldest?.abandon(errorOf('TOO_MANY_SAS', {}), now)
  }

  nextTimeout(): Millis {
    let next = this.opening?.nextTimeout() ?? Infinity
    for (const sa of this.living) next = Math.min(next, sa.nextTimeout())
    for (const sa of this.ended) next = Math.min(next, sa.nextTimeout())
    return next
  }

  handleTimeout(now: Millis): void {
    for (const sa of this.all) {
      if (sa.nextTimeout() <= now) sa.handleTimeout(now)
    }
  }

  close(now: Millis): void {
    for (const sa of [...this.living]) sa.close(now)
    this.opening?.close(now)
  }

  /** Whatever is under way: the process ends. */
  closeNow(now: Millis): void {
    for (const sa of [...this.living]) sa.closeNow(now)
    this.opening?.close(now)
  }

  // --- renewal ---

  /** `sa` carries the first Child SA itself when `hasFirst`; `more` follow once it is up. */
  renewBy(sa: HalfOpen, hasFirst: boolean, more: readonly ChildRequest[]): void {
    this.renewal = { sa, more, awaited: new Set(hasFirst ? [undefined] : []) }
  }

  /** `next` has taken the place of `sa` by a rekey. */
  noteRekeyed(sa: IkeSa, next: IkeSa): void {
    this.rekeys++
    if (this.renewal?.sa === sa) this.renewal.sa = next
  }

  /** The renewal is up: it asks for the Child SAs that IKE_AUTH did not carry, each with a ticket. */
  noteEstablished(sa: IkeSa, create: (request: ChildRequest) => number, now: Millis): void {
    if (this.renewal?.sa !== sa) return
    for (const request of this.renewal.more) this.renewal.awaited.add(create(request))
    this.finishRenewal(sa, now)
  }

  /** That Child SA is one of a renewal. */
  awaits(sa: IkeSa, ticket: number | undefined): boolean {
    return this.renewal?.sa === sa && this.renewal.awaited.has(ticket)
  }

  /** A Child SA of the renewal is there, or was refused. */
  noteChild(sa: IkeSa, ticket: number | undefined, now: Millis): void {
    if (this.renewal?.sa !== sa) return
    this.renewal.awaited.delete(ticket)
    this.finishRenewal(sa, now)
  }

  private finishRenewal(sa: IkeSa, now: Millis): void {
    if (sa.state !== 'established' || this.renewal === undefined) return
    if (this.renewal.awaited.size > 0) return
    this.renewal = undefined
    for (const old of [...this.living]) {
      if (old !== sa) old.close(now)
    }
  }
}

const remove = <T>(list: T[], item: T): void => {
  const at = list.indexOf(item)
  if (at >= 0) list.splice(at, 1)
}
