/**
 * Who may start a handshake (RFC 7296 §2.6, RFC 8019). A responder keeps no state for a stranger while
 * many handshakes are half open: it demands a cookie, which proves that the source address is real. All
 * strangers together have a share of the processor. A source whose handshakes come to nothing gets less
 * of it, but never nothing: behind its address there may be others.
 */
import { toHex } from '../base/bytes.ts'
import { randomBytes, type Environment, type Millis } from '../base/environment.ts'
import type { Path } from '../base/path.ts'
import { Allowance, createDice, type Dice } from './allowance.ts'
import { Crowd, type Sighting } from './crowd.ts'

export interface AdmissionLimits {
  /** Half-open IKE SAs in all from which on a cookie is demanded. */
  readonly cookieThreshold: number
  /** Half-open IKE SAs of one address; one more displaces its oldest. */
  readonly halfOpenPerSource: number
  /** Half-open IKE SAs in all, with those that failed and repeat their answer; one more displaces an old one. */
  readonly maxHalfOpen: number
}

/** From this many half-open SAs of one address on, it must prove itself even when all is quiet. */
const COOKIE_PER_SOURCE = 3
/** Or when so much computing for it came to nothing lately. */
const COOKIE_PER_DEBT: Millis = 8

/** First messages without a good cookie that are looked at in a second: an answer costs ten times what dropping does. */
const ANSWERS_PER_SECOND = 2000
const ANSWERS_AT_ONCE = 1000

/** Milliseconds of computing in a second that strangers' handshakes may take in the long run, */
const COMPUTING_PER_SECOND = 250
/** and after a quiet time. */
const COMPUTING_AT_ONCE: Millis = 500
/** Ours: while more comes in than can be read, everything counts so many times: a queue of seconds helps nobody. */
const BEHIND = 4
/** Of that, the part which peers that have authenticated themselves may have for key exchanges of their SAs. */
const INSIDE = 1 / 2
/** Ours: what a principal has had is forgotten at this rate, in milliseconds a second; two SAs need a tenth of it. */
const FORGOTTEN_PER_SECOND = 2
/** The cheapest of key exchanges. */
const LEAST_COST: Millis = 1

/** Below this part of either, senders are watched, since soon there may have to be a choice. */
const SCARCE = 3 / 4
/** So long after that they are forgotten. */
const CALM: Millis = 10_000

/** In the order in which they are served when there are too many. */
const Rank = {
  Repeated: 0,
  Fresh: 1,
  RepeatedOfBusyNet: 2,
  OfBusyNet: 3,
  RepeatedOfBusyHost: 4,
  OfBusyHost: 5,
  Worn: 6,
} as const
const RANKS = 7

/** Computing that came to nothing, and that a source is forgiven in a second, in milliseconds. */
const FORGIVEN_PER_SECOND = 20
/** From so much on the chances of a source fall, and at twice as much they are nothing. */
const DEBT: Millis = 128
/** A handshake that succeeds makes up for so much: honest clients behind its address are many. */
const REWARD: Millis = 4
/** But a handshake that has cost nothing yet has this chance: it may be that of an honest neighbour. */
const LEAST_CHANCE = 1 / 4
const SOURCES = 4096
/** Half-open SAs of a host, and of its network, from which on others go first. */
const MANY_OF_HOST = 8
const MANY_OF_NET = 32

/** What is known of the sender of a first message that is looked at. */
export interface Standing {
  readonly isProven: boolean
  readonly rank: number
  /** The same message came a moment ago; undefined: nobody was watching. */
  readonly isRepeated?: boolean | undefined
}

export class Admission {
  private readonly limits: AdmissionLimits
  private readonly environment: Environment
  private readonly dice: Dice
  private readonly answers: Allowance
  private readonly computing: Allowance
  private readonly inside: Allowance
  private readonly hosts = new Sources(FORGIVEN_PER_SECOND)
  private readonly nets = new Sources(FORGIVEN_PER_SECOND)
  /** What was computed for principals lately. */
  private readonly principals = new Sources(FORGOTTEN_PER_SECOND)
  private crowd: Crowd | undefined
  private scarceAt: Millis = -Infinity
  private total = 0
  /** How many times what strangers cost is counted. */
  private dearness = 1

  constructor(limits: AdmissionLimits, environment: Environment) {
    this.limits = limits
    this.environment = environment
    this.dice = createDice(environment)
    this.answers = new Allowance(ANSWERS_PER_SECOND, ANSWERS_AT_ONCE, RANKS, this.dice)
    this.computing = new Allowance(COMPUTING_PER_SECOND, COMPUTING_AT_ONCE, RANKS, this.dice)
    this.inside = new Allowance(
      INSIDE * COMPUTING_PER_SECOND,
      INSIDE * COMPUTING_AT_ONCE,
      RANKS,
      this.dice,
    )
  }

  get halfOpenCount(): number {
    return this.total
  }

  /** Whether more comes in than this process has the time to read, as its processor may be busy with others. */
  noteBacklog(isBehind: boolean): void {
    this.dearness = isBehind ? BEHIND : 1
  }

  /** Undefined: there are more first messages than can be looked at. Those with a good cookie always are. */
  hear(message: Uint8Array, path: Path, isProven: boolean, now: Millis): Standing | undefined {
    const sighting = this.watch(now)?.note(message, path, isProven, now)
    const rank: number = sighting === undefined ? Rank.Fresh : rankOf(sighting)
    if (!isProven || rank === Rank.Worn) {
      if (!this.answers.favours(rank, this.dearness, now)) return undefined
      this.answers.spend(this.dearness)
    }
    return { isProven, rank, isRepeated: sighting?.isRepeated }
  }

  /** There is a choice to be made: from now on senders are watched for a while. */
  beginWatch(now: Millis): void {
    this.crowd ??= new Crowd(randomBytes(this.environment, 4))
    this.scarceAt = now
  }

  private watch(now: Millis): Crowd | undefined {
    const isScarce = Math.min(this.answers.level(now), this.computing.level(now)) < SCARCE
    if (isScarce) this.beginWatch(now)
    else if (now - this.scarceAt > CALM) this.crowd = undefined
    return this.crowd
  }

  needsCookie(path: Path, now: Millis): boolean {
    const source = sourceOf(path)
    return (
      this.total >= this.limits.cookieThreshold ||
      this.hosts.count(source) >= COOKIE_PER_SOURCE ||
      this.hosts.debt(source, now) >= COOKIE_PER_DEBT
    )
  }

  /** Whether a handshake may be taken up whose sender has proven its address. */
  mayTakeUp(path: Path, { rank }: Standing, now: Millis): boolean {
    const [host, net] = [sourceOf(path), netOf(path)]
    if (!this.isTrusted(host, now) && this.dice() >= LEAST_CHANCE) return false
    let worst: number = rank
    if (this.isBeyond(this.nets.count(net), MANY_OF_NET)) worst = Math.max(worst, Rank.OfBusyNet)
    if (this.isBeyond(this.hosts.count(host), MANY_OF_HOST))
      worst = Math.max(worst, Rank.OfBusyHost)
    return this.computing.favours(worst, LEAST_COST, now)
  }

  /** By chance: of those that are more than `most`, as many are not. */
  private isBeyond(count: number, most: number): boolean {
    return count >= most && this.dice() * (count + 1) >= most
  }

  /** Whether a half-open handshake may cost so much more. */
  mayContinue(path: Path, cost: Millis, now: Millis): boolean {
    return this.computing.affords(0, cost, now) && this.isTrusted(sourceOf(path), now)
  }

  /** A matter of chance, for one in debt. */
  private isTrusted(source: string, now: Millis): boolean {
    const debt = this.hosts.debt(source, now)
    return debt <= DEBT || this.dice() < 2 - debt / DEBT
  }

  spend(cost: Millis): void {
    this.computing.spend(cost * this.dearness)
  }

  /** Takes `cost` milliseconds of computing, if there are as many left. Unproven addresses come after all others. */
  pay(cost: Millis, { isProven, rank }: Standing, now: Millis): boolean {
    if (!this.computing.affords(isProven ? rank : RANKS, cost, now)) return false
    this.spend(cost)
    return true
  }

  /**
   * Takes `cost` milliseconds of computing for a peer that has authenticated itself, if there are as many left. Those
   * that have had least lately come first.
   */
  payInside(principal: string, cost: Millis, now: Millis): boolean {
    const debt = this.principals.debt(principal, now)
    const rank = Math.min(RANKS - 1, Math.floor((debt / DEBT) * RANKS))
    if (!this.inside.favours(rank, cost, now)) return false
    if (!this.computing.affords(Rank.Repeated, cost, now)) return false
    this.inside.spend(cost)
    this.computing.spend(cost)
    this.principals.charge(principal, cost, now)
    return true
  }

  /** How much the handshakes of that source weigh against others where one has to go. */
  weight(path: Path): number {
    return this.hosts.count(sourceOf(path)) * MANY_OF_NET + this.nets.count(netOf(path))
  }

  opened(path: Path): void {
    this.total++
    this.hosts.add(sourceOf(path), 1)
    this.nets.add(netOf(path), 1)
  }

  /** That handshake succeeded, or failed. */
  settled(path: Path): void {
    this.total--
    this.hosts.add(sourceOf(path), -1)
    this.nets.add(netOf(path), -1)
  }

  /** Somebody there has authenticated itself. */
  reward(path: Path, now: Millis): void {
    this.hosts.charge(sourceOf(path), -REWARD, now)
  }

  /** Computing for that source came to nothing. */
  charge(path: Path, wasted: Millis, now: Millis): void {
    this.hosts.charge(sourceOf(path), wasted, now)
  }
}

const rankOf = ({ isRepeated, isWorn, isHostBusy, isNetBusy }: Sighting): number => {
  if (isWorn) return Rank.Worn
  if (isHostBusy) return isRepeated ? Rank.RepeatedOfBusyHost : Rank.OfBusyHost
  if (isNetBusy) return isRepeated ? Rank.RepeatedOfBusyNet : Rank.OfBusyNet
  return isRepeated ? Rank.Repeated : Rank.Fresh
}

/** An IPv6 host has a whole /64 to choose addresses from, and its site a /48 (RFC 6177). */
export const sourceOf = ({ remoteAddress }: Path): string => toHex(remoteAddress.subarray(0, 8))
const netOf = ({ remoteAddress }: Path): string =>
  toHex(remoteAddress.subarray(0, remoteAddress.length === 4 ? 3 : 6))

interface Source {
  halfOpen: number
  debt: Millis
  at: Millis
}

/** What sources hold and owe. Only real work makes an entry, and the oldest that hold nothing go first. */
class Sources {
  private readonly known = new Map<string, Source>()
  private readonly forgiven: number

  /** `forgiven`: milliseconds of a debt in a second. */
  constructor(forgiven: number) {
    this.forgiven = forgiven
  }

  count(source: string): number {
    return this.known.get(source)?.halfOpen ?? 0
  }

  debt(source: string, now: Millis): Millis {
    const entry = this.known.get(source)
    return entry === undefined ? 0 : this.settle(entry, now)
  }

  add(source: string, count: number): void {
    const entry = this.entry(source)
    entry.halfOpen += count
    this.release(source, entry)
  }

  private release(source: string, { halfOpen, debt }: Source): void {
    if (halfOpen === 0 && debt === 0) this.known.delete(source)
  }

  charge(source: string, wasted: Millis, now: Millis): void {
    const entry = this.entry(source)
    entry.debt = Math.max(0, Math.min(2 * DEBT, this.settle(entry, now) + wasted))
    this.release(source, entry)
  }

  private entry(source: string): Source {
    let entry = this.known.get(source)
    if (entry !== undefined) return entry
    if (this.known.size >= SOURCES) this.prune()
    entry = { halfOpen: 0, debt: 0, at: -Infinity }
    this.known.set(source, entry)
    return entry
  }

  private settle(source: Source, now: Millis): Millis {
    const forgiven = ((now - source.at) * this.forgiven) / 1000
    source.debt = Math.max(0, source.debt - forgiven)
    source.at = now
    return source.debt
  }

  private prune(): void {
    let left = SOURCES / 4
    for (const [source, { halfOpen }] of this.known) {
      if (halfOpen === 0) this.known.delete(source)
      if (--left === 0) return
    }
  }
}
