/**
 * What a responder does with first messages until their senders have authenticated themselves: it lets
 * them in, asks for a cookie or refuses (RFC 7296 §2.1, §2.6), and keeps the half-open IKE SAs.
 */
import { toHex } from '../base/bytes.ts'
import type { Environment, Millis } from '../base/environment.ts'
import { IpsecError } from '../base/errors.ts'
import { formatEndpoint, type Path } from '../base/path.ts'
import type { Tracer } from '../base/trace.ts'
import { CookieJar } from '../ike/cookie.ts'
import { IkeSa } from '../ike/ike-sa.ts'
import type { IkeHeader } from '../wire/ike-header.ts'
import { Admission, type AdmissionLimits } from './admission.ts'
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

interface HalfOpen {
  readonly sa: IkeSa
  readonly session: Session
  readonly path: Path
}

export class Strangers {
  private readonly host: StrangersHost
  private readonly admission: Admission
  private readonly cookies: CookieJar
  /** By (SPIi, source), so that a repeated first request finds its SA. */
  private readonly halfOpen = new Map<string, HalfOpen>()
  private readonly keys = new Map<IkeSa, string>()

  constructor(limits: AdmissionLimits, host: StrangersHost) {
    this.host = host
    this.admission = new Admission(limits)
    this.cookies = new CookieJar(host.environment)
  }

  /** Handshakes that are neither done nor forgotten. */
  get halfOpenCount(): number {
    return Math.max(this.halfOpen.size, this.admission.halfOpenCount)
  }

  /** False: there are more first messages than can be looked at. */
  mayAsk(message: Uint8Array, path: Path, now: Millis): boolean {
    return this.admission.mayAsk(message, path, now)
  }

  /** RFC 7296 §2.1, §2.6: a first request makes state only when admission lets it. */
  receive(message: Uint8Array, header: IkeHeader, path: Path, now: Millis): void {
    const { host, admission, cookies } = this
    const key = keyOf(header.spiI, path)
    const repeated = this.halfOpen.get(key)
    if (repeated !== undefined) {
      repeated.session.handleIke(repeated.sa, message, path, now)
      return host.touch(repeated.session, now)
    }
    const verdict = admission.decide(path)
    if (verdict === 'drop') return host.drop('ike.halfOpenPerSource')
    if (verdict === 'demandCookie') {
      const answer = cookies.receive(message, header, path, now)
      if (answer === undefined) return host.drop('ike.init.malformed')
      if (answer !== 'proven') {
        host.drop('ike.init.cookie')
        return host.reply(answer, path)
      }
      if (!admission.canPay(now)) return host.drop('ike.init.busy')
    }
    const session = host.newSession(path)
    const reception = {
      cookies,
      pay: (cost: Millis, isProven: boolean) => admission.pay(cost, isProven, now),
    }
    const answer = IkeSa.respond(session.saConfig(), message, path, reception, now)
    if ('drop' in answer) return host.drop(answer.drop)
    if ('reply' in answer) {
      this.refuse(answer.why, answer.refusal, path, now)
      return host.reply(answer.reply, path)
    }
    if (admission.full) this.displaceOldest(now)
    admission.opened(path)
    this.halfOpen.set(key, { sa: answer.sa, session, path })
    this.keys.set(answer.sa, key)
    host.adopt(session)
    session.accept(answer.sa)
    host.touch(session, now)
  }

  /** Under a flood the oldest half-open SA is the least likely to be honest: honest ones are quick. */
  private displaceOldest(now: Millis): void {
    for (const [, { session }] of this.halfOpen) {
      session.abandon(new IpsecError('ERR_IKE_HALF_OPEN', 'Displaced by a newer handshake'), now)
      this.host.touch(session, now)
      return
    }
  }

  /**
   * Authenticated, or nothing left of it. One that failed counts until then: it still holds memory, and
   * its source had its turn.
   */
  settle(sa: IkeSa): void {
    const key = this.keys.get(sa)
    if (key === undefined) return
    this.admission.settled(this.halfOpen.get(key)!.path)
    this.halfOpen.delete(key)
    this.keys.delete(sa)
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
  `${toHex(spiI)}${toHex(path.remoteAddress)}${path.remotePort}`
