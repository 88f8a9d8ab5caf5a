/**
 * What a responder does with first messages until their senders have authenticated themselves: it lets
 * them in, asks for a cookie or refuses (RFC 7296 §2.1, §2.6), and keeps the half-open IKE SAs.
 */
import { errorOf } from '../base/error-table.ts'
import { equal, toHex } from '../base/bytes.ts'
import type { Environment, Millis } from '../base/environment.ts'
import type { IpsecError } from '../base/errors.ts'
import { formatEndpoint, type Path } from '../base/path.ts'
import { addTo, removeFrom } from '../base/set-map.ts'
import type { Tracer } from '../base/trace.ts'
import { CookieJar } from '../ike/cookie.ts'
import { IkeSa } from '../ike/ike-sa.ts'
import { NO_SPI, readIkeHeader } from '../wire/ike-header.ts'
import { Admission, sourceOf, type AdmissionLimits, type Standing } from './admission.ts'
import type { Session } from './session.ts'

/** What the core does for strangers. */
export interface StrangersHost {
  readonly environment: Environment
  readonly tracer: Tracer
  /** A session with the peer at that place, by the policy and credentials of now. */
  newSession(path: Path): Session
  /** That session belongs to the core from now on. */
  adopt(session: Session): void
  touch(session: Session, now: Millis): void
  /** An answer that leaves no state. */
  reply(bytes: Uint8Array, path: Path): void
  drop(reason: string): void
  /** A handshake was refused; the application is told. */
  refused(error: IpsecError, path: Path): void
}

interface Opening {
  readonly key: string
  readonly sa: IkeSa
  readonly session: Session
  readonly path: Path
  readonly source: string
  readonly since: Millis
  /** What it has cost since it was taken up, for which a failure is charged. */
  cost: Millis
  isAdmitted: boolean
  /** Until then its IKE_AUTH is not looked at. */
  refusedUntil: Millis
}

/** Of so many of the oldest half-open SAs the one goes whose source has most. */
const CANDIDATES = 16
/** Ours: for so long a handshake is not displaced by others of the same source, whose ends may be as busy as ours, */
const YOUNG_SIBLING: Millis = 3000
/** and not by others. */
const YOUNG: Millis = 1000
/** Ours: a handshake that came to nothing counts as so much computing, */
const WASTE: Millis = 1
/** and so do as many octets of IKE_AUTH as this: most are certificates to be read and verified. */
const OCTETS_FOR_A_MILLISECOND = 1000
/** Ours: a handshake that costs no more goes on whatever its source owes. */
const SMALL_COST: Millis = 3
/** Ours: the application is told no more often than this that somebody speaks IKEv1. */
const VERSION_1_INTERVAL: Millis = 1000
/** Ours: for so long a first message whose handshake is done is known, should the network deliver it twice. */
const LATE: Millis = 30_000
/** Ours: of so many at most, */
const MOST_DONE = 256
/** and none that is longer. */
const LONGEST_DONE = 4096
/** Ours: all fragments that come at once share a refusal, and the next repetition does not. */
const REFUSAL: Millis = 100

export class Strangers {
  private readonly host: StrangersHost
  private readonly limits: AdmissionLimits
  readonly admission: Admission
  private readonly cookies: CookieJar
  /**
   * Half-open, or failed and repeating the last answer, by SPIi, source and whether it writes the non-ESP marker.
   * Somebody on the path can send another first message with all three, which is another handshake (RFC 7296 §2.1).
   */
  private readonly byKey = new Map<string, Opening[]>()
  private readonly bySa = new Map<IkeSa, Opening>()
  private readonly halfOpen = new Set<Opening>()
  private readonly bySource = new Map<string, Set<Opening>>()
  private readonly failed = new Set<Opening>()
  /** First messages of handshakes that are done, by SPIi; the oldest is the first. */
  private readonly done = new Map<string, { readonly request: Uint8Array; readonly at: Millis }>()
  private version1At: Millis = -Infinity

  constructor(limits: AdmissionLimits, host: StrangersHost) {
    this.host = host
    this.limits = limits
    this.admission = new Admission(limits, host.environment)
    this.cookies = new CookieJar(host.environment)
  }

  /** Handshakes that are neither done nor forgotten. */
  get count(): number {
    return Math.max(this.bySa.size, this.byKey.size, this.admission.halfOpenCount)
  }

  /** RFC 7296 §2.1, §2.6: a first request makes state only when admission lets it. */
  receive(message: Uint8Array, path: Path, now: Millis): void {
    const { host, admission, cookies } = this
    // Before anything else is asked: who has proven its address does not wait behind those who have not.
    const isProven = cookies.isProof(message, path, now)
    const standing = admission.hear(message, path, isProven, now)
    if (standing === undefined) return host.drop('ike.init.flood')
    const header = readIkeHeader(message)
    if (header === undefined) return host.drop('ike.malformed')
    const key = keyOf(header.spiI, path)
    const repeated = this.byKey.get(key)?.find(({ sa }) => equal(sa.handshake.request, message))
    if (repeated !== undefined) {
      repeated.session.handleIke(repeated.sa, message, path, now)
      return host.touch(repeated.session, now)
    }
    if (this.isLate(header.spiI, message, now)) return host.drop('ike.init.late')
    if (isProven) {
      if (!admission.mayTakeUp(path, standing, now)) return host.drop('ike.init.busy')
    } else if (admission.needsCookie(path, now)) {
      const answer = cookies.demand(message, header, path, now)
      host.drop(answer === undefined ? 'ike.init.malformed' : 'ike.init.cookie')
      if (answer !== undefined) host.reply(answer, path)
      return
    }
    this.takeUp(key, message, path, standing, now)
  }

  /** RFC 9395: IKEv1 is over. Its ends understand no answer of ours (RFC 7296 §2.5), so our own side is told. */
  receiveVersion1(message: Uint8Array, path: Path, now: Millis): void {
    const header = readIkeHeader(message)
    const isFirst = header !== undefined && equal(header.spiR, NO_SPI)
    if (!isFirst || now - this.version1At < VERSION_1_INTERVAL) return this.host.drop('ike.v1')
    this.version1At = now
    this.refuse('ike.v1', errorOf('IKE_VERSION_1', {}), path, now)
  }

  private takeUp(
    key: string,
    message: Uint8Array,
    path: Path,
    standing: Standing,
    now: Millis,
  ): void {
    const { host, admission, cookies } = this
    if (!this.makeRoom(path, standing, now)) return
    const session = host.newSession(path)
    const reception = {
      cookies,
      pay: (cost: Millis, isProven: boolean) => admission.pay(cost, { ...standing, isProven }, now),
    }
    const answer = IkeSa.respond(session.saConfig(), message, path, reception, now)
    if ('drop' in answer) return host.drop(answer.drop)
    if ('reply' in answer) {
      this.refuse(answer.why, answer.refusal, path, now)
      return host.reply(answer.reply, path)
    }
    admission.opened(path)
    this.add({
      key,
      sa: answer.sa,
      session,
      path,
      source: sourceOf(path),
      since: now,
      cost: WASTE,
      isAdmitted: false,
      refusedUntil: -Infinity,
    })
    host.adopt(session)
    session.accept(answer.sa)
    host.touch(session, now)
  }

  /**
   * Whether a message to that SA may be looked at: always, once it is authenticated. Before that, large ones
   * wait for their next repetition while their source is in debt or there is no computing left.
   */
  mayContinue(sa: IkeSa, message: Uint8Array, now: Millis): boolean {
    const entry = this.bySa.get(sa)
    if (entry === undefined || !this.halfOpen.has(entry)) return true
    if (entry.refusedUntil > now) return false
    const cost = message.length / OCTETS_FOR_A_MILLISECOND
    if (!entry.isAdmitted && entry.cost + cost > SMALL_COST) {
      entry.isAdmitted = this.admission.mayContinue(entry.path, cost, now)
      if (!entry.isAdmitted) {
        entry.refusedUntil = now + REFUSAL
        return false
      }
    }
    entry.cost += cost
    this.admission.spend(cost)
    return true
  }

  /**
   * Makes room for one more where that is needed. An old handshake goes, since honest ones are quick: the
   * oldest of the same source, or of all the one whose source has most. A young one may be about to be done,
   * and its client would not hear of its end: the newcomer asks again instead. Where very many come from one address,
   * the place is for one that has done so.
   */
  private makeRoom(path: Path, { isRepeated }: Standing, now: Millis): boolean {
    const { halfOpenPerSource, maxHalfOpen } = this.limits
    const siblings = this.bySource.get(sourceOf(path))
    if (siblings !== undefined && siblings.size >= halfOpenPerSource) {
      this.admission.beginWatch(now)
      const oldest = isRepeated === false ? undefined : this.heaviest(siblings, now - YOUNG_SIBLING)
      return this.displace(oldest, 'ike.halfOpenPerSource', now)
    }
    if (this.bySa.size < maxHalfOpen) return true
    const [failed] = this.failed
    if (failed !== undefined) return this.displace(failed, 'ike.failed.displaced', now)
    return this.displace(this.heaviest(this.halfOpen, now - YOUNG), 'ike.maxHalfOpen', now)
  }

  private heaviest(entries: Iterable<Opening>, before: Millis): Opening | undefined {
    let worst: Opening | undefined
    let greatest = 0
    let left = CANDIDATES
    for (const entry of entries) {
      if (left-- === 0 || entry.since > before) break
      const weight = this.admission.weight(entry.path)
      if (weight > greatest) [worst, greatest] = [entry, weight]
    }
    return worst
  }

  /** Whether there is one that can go. */
  private displace(entry: Opening | undefined, why: string, now: Millis): boolean {
    this.host.drop(why)
    if (entry === undefined) return false
    const { session } = entry
    session.abandon(errorOf('HALF_OPEN_LIMIT', {}), now)
    this.host.touch(session, now)
    return true
  }

  private add(entry: Opening): void {
    const { key, sa, source } = entry
    this.byKey.set(key, [...(this.byKey.get(key) ?? []), entry])
    this.bySa.set(sa, entry)
    this.halfOpen.add(entry)
    addTo(this.bySource, source, entry)
  }

  /** It is authenticated. */
  succeeded(sa: IkeSa, now: Millis): void {
    const entry = this.bySa.get(sa)
    if (entry === undefined) return
    this.close(entry)
    this.admission.reward(entry.path, now)
    this.noteDone(sa.handshake.request, now)
    this.forget(sa)
  }

  private noteDone(request: Uint8Array, now: Millis): void {
    const { done } = this
    for (const [spi, { at }] of done) {
      if (done.size < MOST_DONE && now - at < LATE) break
      done.delete(spi)
    }
    if (request.length <= LONGEST_DONE)
      done.set(toHex(request.subarray(0, 8)), { request, at: now })
  }

  /**
   * RFC 7296 §2.1: the same request again is no second handshake, wherever it comes from. The initiator would follow
   * both answers, and each end then might use another SA.
   */
  private isLate(spiI: Uint8Array, message: Uint8Array, now: Millis): boolean {
    const known = this.done.get(toHex(spiI))
    return known !== undefined && now - known.at < LATE && equal(known.request, message)
  }

  /** It failed, or its time is over: its place is free, though it may still repeat its last answer. */
  ended(sa: IkeSa, now: Millis): void {
    const entry = this.bySa.get(sa)
    if (entry === undefined) return
    this.close(entry)
    this.failed.add(entry)
    this.admission.charge(entry.path, entry.cost, now)
  }

  private close(entry: Opening): void {
    removeFrom(this.bySource, entry.source, entry)
    this.halfOpen.delete(entry)
    this.admission.settled(entry.path)
  }

  /** Nothing is left of it. */
  forget(sa: IkeSa): void {
    const entry = this.bySa.get(sa)
    if (entry === undefined) return
    this.bySa.delete(sa)
    this.failed.delete(entry)
    const left = this.byKey.get(entry.key)!.filter(other => other !== entry)
    if (left.length === 0) this.byKey.delete(entry.key)
    else this.byKey.set(entry.key, left)
  }

  /** A stranger was told no: the words for our own side, if they say more than a counter. */
  private refuse(why: string, error: IpsecError | undefined, path: Path, now: Millis): void {
    this.host.drop(why)
    const { tracer } = this.host
    if (tracer.enabled) {
      const from = formatEndpoint(path.remoteAddress, path.remotePort)
      // A cookie or another group is asked for, or it is a refusal.
      tracer.emit(
        error === undefined
          ? { name: 'ike.reply', at: now, facts: { exchange: 'IKE_SA_INIT', from, why } }
          : {
              name: 'ike.refused',
              at: now,
              facts: { subject: 'IKE SA', from, code: error.code, why: error.message },
            },
      )
    }
    if (error !== undefined) this.host.refused(error, path)
  }
}

const keyOf = (spiI: Uint8Array, path: Path): string =>
  `${toHex(spiI)}${toHex(path.remoteAddress)}${path.remotePort}${path.isUnmarked === true ? 'unmarked' : ''}`
