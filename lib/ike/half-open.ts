/**
 * The initiator's half of an IKE SA before its peer has proved itself (RFC 7296 §1.2, §2.4, §2.6). Nothing that
 * IKE_SA_INIT brings is authenticated, so nobody can end the handshake by it: refusals are believed only for want
 * of anything better, and several answers are followed until one of them proves that it is the peer's.
 */
import { errorOf } from '../base/error-table.ts'
import { equal, toHex } from '../base/bytes.ts'
import { drawSpi, type Millis } from '../base/environment.ts'
import {
  ApplicationError,
  AuthenticationError,
  UnreachablePeerError,
  type IpsecError,
} from '../base/errors.ts'
import { formatEndpoint, type Path } from '../base/path.ts'
import { isVersion1, readIkeHeader, type IkeHeader } from '../wire/ike-header.ts'
import { ExchangeType } from '../wire/registry.ts'
import type { Answer, ChildRequest, IkeSaConfig } from './exchange.ts'
import { IkeSa, type IkeSaOutput } from './ike-sa.ts'
import { MessageWindow, type Outgoing } from './message-window.ts'
import { SaInit, type Handshake } from './sa-init.ts'

/**
 * Ours: §2.4 wants several, and each costs a key exchange and a request. Three impostors may each answer two
 * requests, the one without the peer's cookie and the one with it.
 */
const MAX_ANSWERS = 8
/** Ours: how often a handshake begins once more at most, since anybody may be who causes it. */
const MAX_AGAIN = 3
/** Ours: how long the peer's own answer is waited for at least when another one led nowhere. */
const MIN_ANSWER_TIMEOUT: Millis = 1500

export type HalfOpenOutput =
  | Extract<IkeSaOutput, { kind: 'question' | 'closed' | 'forgotten' }>
  /** The peer has proved itself, or the handshake begins once more: that one takes the place of this one. */
  | { readonly kind: 'replaced'; readonly by: IkeSa | HalfOpen }

/** `child` is asked for its Child SA once the peer's make is known; undefined: an SA without one. */
export type FirstChild = ((peerIsOurs: boolean) => ChildRequest) | undefined

export class HalfOpen {
  private readonly config: IkeSaConfig
  readonly spiI: Uint8Array
  private readonly firstPath: Path
  private readonly child: FirstChild
  private readonly init: SaInit
  private readonly window: MessageWindow
  private readonly startedAt: Millis
  /**
   * How often it has begun once more: the peer may have answered another request than the one we signed, or have lost
   * the SA since.
   */
  private readonly again: number
  /** SAs whose peer may be ours: one for each answer that is still followed. */
  private followed: IkeSa[] = []
  /** Every answer that was ever followed, octet for octet. */
  private readonly answers: Uint8Array[] = []
  /** Those whose peer may have answered another request of ours than the one we signed. */
  private readonly doubtful = new Set<IkeSa>()
  private isClosed = false
  private readonly outputs: HalfOpenOutput[] = []
  private readonly asked = new Map<number, { readonly sa: IkeSa; readonly id: number }>()
  private nextQuestion = 1
  /** Why the handshake ends if nothing better comes. */
  private refusal: Error | undefined
  /** How often the first request is still repeated after it was refused. */
  private repeatsLeft = 0
  /** When the refusal is final that an answer led to. */
  private endsAt: Millis = Infinity
  private tracedAt: Millis

  constructor(config: IkeSaConfig, path: Path, child: FirstChild, now: Millis, again = 0) {
    this.config = config
    this.firstPath = path
    this.child = child
    this.startedAt = this.tracedAt = now
    this.again = again
    const { environment, policy, credentials } = config
    this.spiI = drawSpi(environment, 8)
    this.window = new MessageWindow(policy.retransmit, environment)
    this.init = new SaInit(policy, credentials, environment, this.spiI, path, again > 0)
    this.window.request([this.init.request()], now)
    const to = formatEndpoint(path.remoteAddress, path.remotePort)
    this.trace('ike.request.sent', { exchange: 'IKE_SA_INIT', id: 0, to })
  }

  get state(): 'init' | 'auth' | 'closed' {
    if (this.isClosed) return 'closed'
    return this.followed.length === 0 ? 'init' : 'auth'
  }

  /** Key of the SA in a table: the SPI that we chose. */
  get ownSpi(): string {
    return toHex(this.spiI)
  }

  get path(): Path {
    return this.config.place.current
  }

  /** How often the request under way has been sent, the first one or one of IKE_AUTH; 0: there is none. */
  get sentTimes(): number {
    return Math.max(this.window.sentTimes, ...this.followed.map(sa => sa.sentTimes))
  }

  /** SAs of the answers that are followed now. */
  get candidates(): readonly IkeSa[] {
    return this.followed
  }

  pollOutput(): HalfOpenOutput | undefined {
    return this.outputs.shift()
  }

  pollTransmit(): (Outgoing & { path: Path }) | undefined {
    const first = this.window.poll()
    if (first !== undefined) return { ...first, path: this.firstPath }
    for (const sa of this.followed) {
      const next = sa.pollTransmit()
      if (next !== undefined) return next
    }
    return undefined
  }

  private trace(
    name: string,
    facts: Readonly<Record<string, string | number | boolean | undefined>>,
  ): void {
    const { tracer } = this.config
    if (tracer.enabled)
      tracer.emit({ name, at: this.tracedAt, facts: { spi: this.ownSpi, ...facts } })
  }

  // --- commands ---

  close(now: Millis): void {
    this.finish(undefined, now)
  }

  /** Ends it without a word to the peer. */
  abandon(error: Error, now: Millis): void {
    this.finish(error, now)
  }

  /** We send by another path, or it is open again: what is unanswered is asked there. */
  followPlace(now: Millis): void {
    this.window.renew(now)
    for (const sa of this.followed) sa.renew(now)
  }

  answer(id: number, answer: Answer, now: Millis): void {
    const asked = this.asked.get(id)
    this.asked.delete(id)
    asked?.sa.answer(asked.id, answer, now)
    this.settle(now)
  }

  // --- messages ---

  handleMessage(message: Uint8Array, path: Path, now: Millis): void {
    if (this.isClosed) return
    this.tracedAt = now
    const header = readIkeHeader(message)
    if (header === undefined) return
    if (isVersion1(message)) return this.noteRefusal(errorOf('REFUSED_VERSION', {}))
    if (header.exchange === ExchangeType.IkeSaInit)
      return this.handleInit(message, header, path, now)
    for (const sa of this.followed) sa.handleMessage(message, path, now)
    this.settle(now)
  }

  private handleInit(message: Uint8Array, header: IkeHeader, path: Path, now: Millis): void {
    if (header.majorVersion !== 2 || header.originalInitiator || !header.response) return
    if (header.messageId !== 0) return
    const isKnown = this.answers.some(answer => equal(answer, message))
    if (isKnown || this.answers.length >= MAX_ANSWERS) return this.drop('ike.init.answered')
    const outcome = this.init.onResponse(message, header, path)
    switch (outcome.kind) {
      case 'ignored':
        return this.drop(outcome.why)
      case 'again':
        return this.requestAgain(outcome.isUrgent, now)
      case 'refused':
        return this.noteRefusal(outcome.error)
      case 'done':
        return this.follow(outcome.handshake, now)
      default:
        return outcome satisfies never
    }
  }

  private drop(why: string): void {
    this.trace('ike.drop', { why })
    this.config.drop(why)
  }

  private requestAgain(isUrgent: boolean, now: Millis): void {
    // Nothing is repeated any more that could carry it.
    if (!isUrgent && !this.window.isBusy) return
    this.refusal = undefined
    this.endsAt = Infinity
    if (!isUrgent) return
    this.trace('ike.request.sent', { exchange: 'IKE_SA_INIT', id: 0, again: true })
    this.window.repeatId()
    this.window.request([this.init.request()], now)
  }

  /** It may be the peer's answer: IKE_AUTH will show. */
  private follow(handshake: Handshake, now: Millis): void {
    this.answers.push(handshake.response)
    this.refusal = undefined
    this.endsAt = Infinity
    // The second time the peer may have to be asked with a cookie that comes after somebody else's answer.
    if (this.again === 0) this.window.settle()
    this.trace('ike.response', { exchange: 'IKE_SA_INIT', id: 0, suite: handshake.suite.text })
    const sa = IkeSa.initiate(this.config, this.spiI, handshake, now)
    this.followed.push(sa)
    if (this.init.isAmbiguous) this.doubtful.add(sa)
    sa.login(this.child?.(handshake.peerIsOurs), now)
    this.settle(now)
  }

  /** What the SAs of the answers have come to. */
  private settle(now: Millis): void {
    for (const sa of this.followed) {
      if (sa.isProven) return this.replaceBy(sa, now)
    }
    for (const sa of this.followed) {
      for (let output = sa.pollOutput(); output !== undefined; output = sa.pollOutput()) {
        if (output.kind === 'question') this.ask(sa, output)
        else if (output.kind === 'closed') this.noteFailure(sa, output.error, now)
      }
    }
  }

  private ask(sa: IkeSa, { id, question }: IkeSaOutput & { kind: 'question' }): void {
    const own = this.nextQuestion++
    this.asked.set(own, { sa, id })
    this.outputs.push({ kind: 'question', id: own, question })
  }

  /** RFC 7296 §2.4: all other answers are now known not to be the peer's. */
  private replaceBy(by: IkeSa | HalfOpen, now: Millis): void {
    this.isClosed = true
    this.endsAt = Infinity
    this.window.settle()
    this.init.wipe()
    this.asked.clear()
    for (const sa of this.followed) {
      if (sa !== by) sa.close(now)
    }
    this.followed = []
    this.outputs.push({ kind: 'replaced', by })
  }

  private beginAgain(now: Millis): void {
    const { config, firstPath, child, again } = this
    this.replaceBy(new HalfOpen(config, firstPath, child, now, again + 1), now)
    this.outputs.push({ kind: 'forgotten' })
  }

  private noteFailure(sa: IkeSa, error: Error | undefined, now: Millis): void {
    if (this.isClosed) return
    this.followed = this.followed.filter(other => other !== sa)
    if (this.followed.length > 0) return
    // Nobody answered, or our own side ended it: no other answer is likely to change that.
    if (
      error === undefined ||
      error instanceof UnreachablePeerError ||
      error instanceof ApplicationError
    )
      return this.finish(error, now)
    if (error instanceof AuthenticationError && this.doubtful.has(sa) && this.again === 0) {
      // Perhaps a forged cookie made us sign another request than the peer has answered.
      return this.beginAgain(now)
    }
    this.refusal = error
    // The request is still repeated when somebody asked for a cookie or another group meanwhile.
    if (this.window.isBusy) this.repeatsLeft = 1
    else this.endsAt = now + Math.max(MIN_ANSWER_TIMEOUT, now - this.startedAt)
  }

  /**
   * Anyone may have sent it (§2.21.1): the first request is repeated once more, and a genuine answer to
   * either has all the time until another repetition would be due.
   */
  private noteRefusal(error: Error): void {
    if (!this.window.isBusy || this.refusal !== undefined) return
    this.refusal = error
    this.repeatsLeft = 1
  }

  /**
   * Somebody says that the peer does not know the IKE SA (§2.21.4): it may have restarted since it answered. A
   * genuine answer has the time of one repetition to come before that is believed, so that a liar keeps nobody out; and
   * of several answers the peer does not know those of impostors.
   */
  noteUnknown({ spiR, messageId }: IkeHeader, now: Millis): void {
    const [sa] = this.followed
    const isOurs = sa !== undefined && equal(sa.spiR, spiR) && sa.awaits(messageId)
    const isBelieved = isOurs && this.answers.length === 1 && sa.sentTimes > 1
    this.drop('ike.hint')
    if (isBelieved && this.again < MAX_AGAIN) this.beginAgain(now)
  }

  /** The system says that nobody listens there. Said of the repetition too, it is believed at once. */
  noteUnreachable(error: Error, now: Millis): void {
    if (this.refusal !== undefined && this.window.sentTimes > 1) {
      return this.finish(this.refusal, now)
    }
    this.noteRefusal(error)
  }

  private finish(error: Error | undefined, now: Millis): void {
    if (this.isClosed) return
    this.isClosed = true
    this.endsAt = Infinity
    this.window.settle()
    this.init.wipe()
    this.asked.clear()
    for (const sa of this.followed) sa.close(now)
    this.followed = []
    this.trace('ike.closed', {
      code: (error as IpsecError | undefined)?.code,
      error: error?.message,
    })
    this.outputs.push({ kind: 'closed', error }, { kind: 'forgotten' })
  }

  // --- time ---

  nextTimeout(): Millis {
    let next = Math.min(this.window.deadline, this.endsAt)
    for (const sa of this.followed) next = Math.min(next, sa.nextTimeout())
    return next
  }

  handleTimeout(now: Millis): void {
    this.tracedAt = now
    for (const sa of this.followed) {
      if (sa.nextTimeout() <= now) sa.handleTimeout(now)
    }
    this.settle(now)
    if (this.endsAt <= now) return this.finish(this.refusal, now)
    if (this.window.deadline <= now) this.handleRetransmission(now)
  }

  private handleRetransmission(now: Millis): void {
    if (this.refusal !== undefined && this.repeatsLeft-- === 0)
      return this.giveUp(this.refusal, now)
    this.window.replace([this.init.request()])
    if (this.window.retransmit(now)) {
      this.config.measures.retransmissions++
      return
    }
    const where = formatEndpoint(this.firstPath.remoteAddress, this.firstPath.remotePort)
    this.giveUp(errorOf('SILENT', { where }), now)
  }

  /** The request is repeated no more. */
  private giveUp(error: Error, now: Millis): void {
    this.refusal = error
    if (this.followed.length === 0) this.finish(error, now)
    else this.window.settle()
  }
}
