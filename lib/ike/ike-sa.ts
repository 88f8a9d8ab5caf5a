/**
 * One IKE SA: its SPIs, keys and message window, the queue of exchanges it starts, the Child SAs it owns
 * and its timers. What each exchange means stands in the file of that exchange.
 */
import { errorOf } from '../base/error-table.ts'
import { EMPTY, equal, toHex } from '../base/bytes.ts'
import { randomFraction, type Millis } from '../base/environment.ts'
import { type IpsecError } from '../base/errors.ts'
import { formatEndpoint, samePath, type Path } from '../base/path.ts'
import type { Secret } from '../base/secret.ts'
import { TimerTable } from '../base/timers.ts'
import { computeSkeyseed, deriveIkeKeys } from '../crypto/key-material.ts'
import { keyLengths } from '../crypto/suite.ts'
import { formatIdentity } from '../identity/identity.ts'
import type { Ppk } from '../identity/ppk.ts'
import { drawLifetime } from '../policy/lifetime.ts'
import type { PeerPolicy } from '../policy/options.ts'
import { findEncrypted } from '../wire/encrypted.ts'
import { readIkeHeader, type HeaderFacts, type IkeHeader } from '../wire/ike-header.ts'
import { describePayloads, find, hasExcess, lacksRequired } from '../wire/message.ts'
import { findErrorNotify, findNotify, notify } from '../wire/notify.ts'
import { isChainError, readChain, writeChain, type ChainError } from '../wire/payload-chain.ts'
import type { Payload } from '../wire/payloads.ts'
import { exchangeName, ExchangeType, NotifyType, ProtocolId } from '../wire/registry.ts'
import { LEAST_AUTH_LIFETIME, validFor } from './auth-lifetime.ts'
import { Authenticate, respondAuth } from './auth-exchange.ts'
import { AuthRequest, type AuthContext, type Next, type Outcome } from './auth-steps.ts'
import { ChildSa, type ChildFacts } from './child-sa.ts'
import type { Rekeying } from './collision.ts'
import { CrashTokens, LEAST_REQUEST } from './crash-token.ts'
import { CreateChild, acceptOptions } from './create-child.ts'
import type {
  Answer,
  ChildKeys,
  ChildRequest,
  Exchange,
  ExchangeContext,
  IkeOutput,
  IkeSaConfig,
  IkeSaState,
  IkeSuite,
  PeerFacts,
  Question,
  Successor,
  SuccessorFacts,
  PacketSizes,
} from './exchange.ts'
import { FragmentSize, Reassembly } from './fragmentation.ts'
import { DeleteChild, DeleteIke, Liveness, respondInformational } from './informational.ts'
import { fillAnswer, Ping } from './ping.ts'
import { MessageWindow, type Outgoing, type Stray } from './message-window.ts'
import { AnnounceAddresses, CheckPath, UpdateAddresses } from './mobike.ts'
import { Protection } from './protection.ts'
import { RekeyChild } from './rekey-child.ts'
import { RekeyIke } from './rekey-ike.ts'
import { knowsCrashTokens, TellCrashToken } from './tell-crash-token.ts'
import { respondSaInit, type Handshake, type Reception } from './sa-init.ts'

const Timer = {
  HalfOpen: 0,
  Soft: 1,
  Hard: 2,
  Liveness: 3,
  Orphan: 4,
  Forget: 5,
  Reauth: 6,
  AuthLimit: 7,
} as const

/** Ours: how long a replaced inbound SA still receives what was under way (rule E7). */
const LINGER: Millis = 5_000
/** Ours: an end that waits for the other's Delete does it itself after this time (rule E6). */
const ORPHAN: Millis = 60_000
/** No peer repeats a request for longer than so many of those times. */
const MAX_ORPHAN_WAITS = 10
/** Ours: how long a closed SA answers repeated requests. */
const FORGET: Millis = 30_000
/** Ours: a message is sent so often before it is cut into smaller fragments. */
const TRIES_OF_SIZE = 2
/** Octets of the shortest ICV that we take. */
const ICV = 12
/** Ours: first wait after TEMPORARY_FAILURE; it doubles and has a random part (rule E8). */
const RETRY: Millis = 1_000
const MAX_RETRY: Millis = 60_000
/** Ours: a process that slept past both limits of an SA has this long to rekey it; it sent nothing on it while it slept. */
const OVERSLEPT: Millis = 30_000
/** RFC 7296 §2.25 "several minutes": after so long of TEMPORARY_FAILURE the two ends are out of step. */
const OUT_OF_STEP_AFTER: Millis = 300_000
/** The function that is asked, by the kind of question. */
const ASKED_OPTIONS: Readonly<Record<Question['kind'], string>> = {
  findSecret: 'psk',
  authorize: 'authorize',
  sign: 'sign',
  ocspResponse: 'ocspResponse',
  fetchStatus: 'fetchRevocation',
  eap: 'eap',
}
/** Ours: an SA on which nobody sends is asked after so many liveness intervals. */
const QUIET_FACTOR = 3
/** Ours: a request sent more often than this is more than one datagram lost. */
const DOUBTFUL_TIMES = 2
/** Ours: after such silence, what comes says that the way may be open again. */
const SILENCE: Millis = 1_000
/** Ours: how long an initiator waits for its own application's answer to one question. */
const ANSWER_TIMEOUT: Millis = 60_000
const IPV4_HEADER = 20
const IPV6_HEADER = 40
/** With the non-ESP marker. */
const UDP_AND_MARKER = 8 + 4
/** RFC 7383 §2.5.1: what the IP packet adds to an IKE message: IPv6 and UDP headers, non-ESP marker. */
const UDP_AND_IP = IPV6_HEADER + UDP_AND_MARKER

export type IkeSaOutput = IkeOutput<IkeSa>

/** How a request of ours that waits was started. */
interface Current {
  readonly exchange: Exchange
  /** Undefined: it is not built yet. */
  payloads: readonly Payload[] | undefined
}

/** What the peer's last request was answered with. */
interface Answered {
  readonly exchange: number
  readonly id: number
  readonly payloads: readonly Payload[]
  repeats: number
  /** In one datagram, whatever it takes, until it is repeated. */
  isWhole: boolean
}

/** What an SA starts with: keys can be made of it. */
interface Start extends SuccessorFacts {
  readonly handshake: Handshake
  readonly state: IkeSaState
  /** Message ID of our first request. */
  readonly firstOwnId: number
}

/** After IKE_SA_INIT, which was the initiator's request with message ID 0. */
const startOf = (originalInitiator: boolean, spiI: Uint8Array, handshake: Handshake): Start => {
  const { suite, nonceI, nonceR, spiR, shared } = handshake
  const skeyseed = computeSkeyseed(suite.prf, nonceI, nonceR, shared)
  shared.fill(0)
  const firstOwnId = originalInitiator ? 1 : 0
  return {
    originalInitiator,
    spiI,
    spiR,
    suite,
    skeyseed,
    nonceI,
    nonceR,
    handshake,
    state: 'auth',
    firstOwnId,
  }
}

export class IkeSa implements AuthContext, Successor {
  config: IkeSaConfig
  readonly originalInitiator: boolean
  readonly spiI: Uint8Array
  readonly rekeying: Rekeying<Successor> = { own: undefined, peer: undefined }
  readonly crashTokens = new CrashTokens()
  peer: PeerFacts | undefined
  state: IkeSaState
  settled = false
  readonly spiR: Uint8Array
  readonly suite: IkeSuite
  /** What IKE_SA_INIT agreed on; a rekey keeps it. */
  readonly handshake: Handshake
  private readonly owned = new Map<number, ChildSa>()
  private readonly window: MessageWindow
  private readonly timers = new TimerTable(Object.keys(Timer).length)
  /** How large the packets of our messages may be. */
  private readonly size: FragmentSize
  private answered: Answered | undefined
  private readonly reassembly = { request: new Reassembly(), response: new Reassembly() }
  private readonly outputs: IkeSaOutput[] = []
  /** What IKE_AUTH waits for from the application. */
  private asked:
    | { readonly id: number; readonly kind: Question['kind']; readonly next: Next<Answer> }
    | undefined
  private nextQuestion = 1
  private readonly protection: Protection
  /** The keys are wiped. */
  private isForgotten = false
  /** Our half of IKE_AUTH until it has come to its end. */
  private authenticating: Authenticate | undefined
  /** The peer has shown that it is who it says, while it may not yet come in. */
  isProven = false
  private queue: Exchange[] = []
  private waiting: { exchange: Exchange; at: Millis }[] = []
  private current: Current | undefined
  /** Of the peer's last request: a repetition of it is known by this when the keys are gone. */
  private lastIcv = EMPTY
  private refusals = 0
  /** Since when every CREATE_CHILD_SA of ours was refused with TEMPORARY_FAILURE. */
  private refusedSince: Millis | undefined
  /** Outbound SPIs that the peer deleted before we heard that it had made them. */
  private readonly deletedEarly = new Set<number>()
  private predecessor: ExchangeContext | undefined
  private heardAt: Millis
  /** We asked the peer to authenticate us; who makes a rekey changes nothing in that (§2.8.3). */
  isClient: boolean
  private authenticatedAt: Millis
  /** When our own policy wants a new authentication. */
  private ownReauthAt: Millis = Infinity
  private certificateEndsAt: Millis = Infinity
  /** A genuine message has come on this SA. */
  private wasHeard = false
  private orphanWaits = 0
  private sentAt: Millis = -Infinity
  /** Moves of the peer that this SA has followed. */
  private movesSeen: number
  /** The address that the peer's token of ours is for. */
  private tokenFor: Uint8Array
  /** So many there were when our request was built; more, and it may have gone to several places. */
  private movesAtRequest = -1
  private arrived: { path: Path; octets: number; at: Millis }
  /** Where the request came from that is being answered, if that is not where the peer is. */
  private stray: Stray | undefined

  private constructor(config: IkeSaConfig, start: Start, now: Millis) {
    const { originalInitiator, spiI, spiR, suite, handshake, state, firstOwnId } = start
    this.config = config
    this.originalInitiator = originalInitiator
    this.isClient = originalInitiator
    this.authenticatedAt = now
    this.spiI = spiI
    this.spiR = spiR
    this.suite = suite
    this.handshake = handshake
    this.state = state
    this.movesSeen = config.place.moves
    this.arrived = { path: config.place.current, octets: 0, at: now }
    this.tokenFor = config.place.current.remoteAddress
    this.size = new FragmentSize(config.policy.fragmentSize)
    this.window = new MessageWindow(config.policy.retransmit, config.environment, firstOwnId)
    this.heardAt = now
    this.protection = this.protect(start)
  }

  // --- how an SA comes to be ---

  /** After an answer to our first request, from any sender; `login` follows. */
  static initiate(config: IkeSaConfig, spiI: Uint8Array, handshake: Handshake, now: Millis): IkeSa {
    const start = startOf(true, spiI, handshake)
    // §2.23: we have UDP alone, so the peer encapsulates in any case and both move to its port for that.
    config.place.float()
    return new IkeSa(config, start, now)
  }

  /** Answers a first request: with a new SA, with octets that leave nothing behind, or not at all. */
  static respond(
    config: IkeSaConfig,
    request: Uint8Array,
    path: Path,
    reception: Reception,
    now: Millis,
  ):
    | { sa: IkeSa }
    | { reply: Uint8Array; why: string; refusal: IpsecError | undefined }
    | { drop: string } {
    const header = readIkeHeader(request)
    if (header === undefined) return { drop: 'ike.malformed' }
    const answer = respondSaInit(
      config.policy,
      config.credentials,
      config.environment,
      request,
      header,
      path,
      reception,
      now,
    )
    if (answer.kind === 'drop') return { drop: answer.why }
    if (answer.kind === 'reply') {
      return { reply: answer.message, why: answer.why, refusal: answer.refusal }
    }
    const { handshake } = answer
    const sa = new IkeSa(config, startOf(false, header.spiI, handshake), now)
    sa.window.accept()
    sa.window.answer([handshake.response])
    sa.timers.set(Timer.HalfOpen, now + config.policy.admission.halfOpenTimeout)
    const from = formatEndpoint(path.remoteAddress, path.remotePort)
    sa.trace('ike.request', { exchange: 'IKE_SA_INIT', id: 0, from })
    return { sa }
  }

  private protect({ skeyseed, nonceI, nonceR }: Start): Protection {
    const { environment, policy, tracer } = this.config
    const { cipher, prf } = this.suite
    const { spiI, spiR } = this
    const keys = deriveIkeKeys(prf, skeyseed, nonceI, nonceR, spiI, spiR, keyLengths(cipher))
    tracer.keyLog?.({
      kind: 'ike',
      spiI,
      spiR,
      ...cipher,
      skEi: keys.skEi.bytes,
      skEr: keys.skEr.bytes,
      skAi: keys.skAi.bytes,
      skAr: keys.skAr.bytes,
    })
    return new Protection(environment, policy, cipher, keys, this.originalInitiator)
  }

  // --- what others see ---

  /** Key of the SA in a table: the SPI that we chose. */
  get ownSpi(): string {
    return toHex(this.originalInitiator ? this.spiI : this.spiR)
  }

  get path(): Path {
    return this.config.place.current
  }

  get children(): ReadonlyMap<number, ChildSa> {
    return this.owned
  }

  get skD(): Secret {
    return this.protection.skD
  }

  get skPi(): Secret {
    return this.protection.skPi
  }

  get skPr(): Secret {
    return this.protection.skPr
  }

  /** Octets of the largest IP packet that a message of ours makes. */
  get fragmentSize(): number {
    return this.size.octets
  }

  get arrival(): { readonly path: Path; readonly octets: number; readonly at: Millis } {
    return this.arrived
  }

  get busyWith(): Exchange | undefined {
    return this.current?.exchange
  }

  pollOutput(): IkeSaOutput | undefined {
    return this.outputs.shift()
  }

  pollTransmit(): (Outgoing & { path: Path }) | undefined {
    const next = this.window.poll()
    return next && { ...next, path: next.path ?? this.path }
  }

  output(output: IkeOutput): void {
    if (output.kind === 'childFailed')
      this.trace('child.failed', { code: output.error.code, why: output.error.message })
    this.outputs.push(output as IkeSaOutput)
  }

  trace(
    name: string,
    facts: Readonly<Record<string, string | number | boolean | undefined>>,
  ): void {
    const { tracer } = this.config
    if (tracer.enabled)
      tracer.emit({ name, at: this.heardAt, facts: { spi: this.ownSpi, ...facts } })
  }

  /** `fragments`: datagrams that a message of ours makes. */
  private traceMessage(
    name: string,
    exchange: number,
    id: number,
    payloads: readonly Payload[] | ChainError,
    fragments?: number,
  ): void {
    if (!this.config.tracer.enabled) return
    this.trace(name, {
      exchange: exchangeName(exchange),
      id,
      payloads: isChainError(payloads) ? payloads.error : describePayloads(payloads),
      ...(fragments === undefined ? {} : { fragments }),
    })
  }

  // --- commands ---

  /** The outputs about this Child SA carry the ticket. */
  createChild(request: ChildRequest, ticket: number, now: Millis): void {
    this.enqueue(new CreateChild(request, ticket), now)
  }

  rekeyIke(now: Millis): void {
    this.enqueue(new RekeyIke(), now)
  }

  rekeyChild(inboundSpi: number, now: Millis): void {
    const child = this.owned.get(inboundSpi)
    if (child !== undefined) this.enqueue(new RekeyChild(child), now)
  }

  /** The data path has reached a limit of that Child SA. */
  expire(inboundSpi: number, limit: 'soft' | 'hard', now: Millis): void {
    const child = this.owned.get(inboundSpi)
    if (child?.state !== 'installed') return
    // The timer takes it from here; a rekey under way, or one that was refused, is not hurried.
    if (limit === 'hard' && child.refusals > 0) child.hardAt = Math.min(child.hardAt, now)
    else if (!this.window.isBusy && child.refusals === 0) child.softAt = Math.min(child.softAt, now)
  }

  close(now: Millis): void {
    if (this.state === 'auth') return this.finish(undefined, false, now)
    this.enqueue(new DeleteIke(), now)
  }

  /**
   * Sends the Delete although a request of ours may be unanswered: there is no time left to wait. The peer
   * follows when it has seen that request, even if its answer was lost (RFC 7296 §2.3).
   */
  closeNow(now: Millis): void {
    if (this.state === 'closed' || this.state === 'auth') return this.close(now)
    this.queue = []
    if (this.window.isBusy && !(this.current?.exchange instanceof DeleteIke)) {
      this.window.settle()
      this.current = undefined
    }
    if (this.current === undefined) this.close(now)
  }

  /** When something authenticated came last. */
  get lastHeardAt(): Millis {
    return this.heardAt
  }

  /** That request of ours waits for its answer. */
  awaits(messageId: number): boolean {
    return this.window.isAwaited(messageId)
  }

  /** The peer is known to have, or have had, this SA. */
  get isShared(): boolean {
    return this.wasHeard
  }

  /** A request of ours goes unanswered. */
  get isUnanswered(): boolean {
    return this.sentTimes > DOUBTFUL_TIMES
  }

  /** How often the request under way has been sent; 0: there is none. */
  get sentTimes(): number {
    return this.window.sentTimes
  }

  /** Ends it without a word to the peer. */
  abandon(error: Error, now: Millis): void {
    if (this.state !== 'closed') return this.finish(error, false, now)
    if (!this.timers.isSet(Timer.Forget)) return
    this.timers.clear(Timer.Forget)
    this.forget()
  }

  /** Asks the peer; 'pinged' with that ticket tells of its answer. False: the peer cannot be asked with such sizes. */
  ping(ticket: number, sizes: PacketSizes | undefined, now: Millis): boolean {
    // A message that does not get through is sent in fragments then.
    if (sizes !== undefined && !this.handshake.fragmentation) return false
    this.enqueue(new Ping(ticket, sizes), now)
    return true
  }

  /** When the SA is to be rekeyed or renewed, and when it ends by itself; Infinity: never. */
  get rekeyAt(): Millis {
    return Math.min(this.timers.deadline(Timer.Soft), this.timers.deadline(Timer.Reauth))
  }

  get expiresAt(): Millis {
    return Math.min(this.timers.deadline(Timer.Hard), this.timers.deadline(Timer.AuthLimit))
  }

  probe(now: Millis): void {
    if (this.state !== 'established') return
    if (this.window.isBusy) this.window.retransmitOnce()
    else this.enqueue(this.liveness(), now)
  }

  /** What IKE_SA_INIT has told, unless it went to port 500: a NAT gives the other port another mapping. */
  private noteFirstSighting(): void {
    const { place } = this.config
    const { nat } = this.handshake
    if (!this.isClient || nat.seenAs === undefined || place.moves > 0) return
    place.noteNat(nat, { of: toHex(this.spiI), hash: nat.seenAs }, false)
  }

  /** The request that asks whether the peer lives, and with MOBIKE whether it is where it seems to be, or sees us. */
  private liveness(): Exchange {
    const { place } = this.config
    if (this.peer?.mobike !== true) return new Liveness()
    if (this.isClient && place.mustUpdate) return new UpdateAddresses()
    // RFC 4555 §3.8: behind a NAT the answer also says as whom the peer sees us.
    const isWatched = this.isClient && place.localBehindNat
    return place.needsAnswer || isWatched ? new CheckPath() : new Liveness()
  }

  /**
   * Something says that the peer has lost this SA: it is asked in quick succession, and if nothing authentic
   * comes of that within five seconds, it has.
   */
  probeQuickly(now: Millis): void {
    if (this.state !== 'established') return
    // What the peer's own rekey made is unknown to it until it has our answer; that has time.
    if (!this.wasHeard) return this.probe(now)
    const isNew = !this.window.isBusy
    if (isNew) this.enqueue(this.liveness(), now)
    this.window.quicken(isNew, now)
  }

  /** An authenticated ESP packet came in: the peer lives, and holds the keys of that SA (rule E3). */
  noteInbound(inboundSpi: number, now: Millis): void {
    this.noteHeard(false, now)
    const child = this.owned.get(inboundSpi)
    if (child !== undefined && !child.outboundReady) this.makeOutbound(child)
  }

  /** Something authentic came; `isAnswer`: to the request under way. */
  private noteHeard(isAnswer: boolean, now: Millis): void {
    if (!isAnswer && now - this.heardAt >= SILENCE) {
      this.window.wake()
      this.config.place.noteRevival()
    }
    this.heardAt = now
    this.window.slacken(now)
  }

  noteOutbound(now: Millis): void {
    this.sentAt = now
    if (!this.timers.isSet(Timer.Liveness)) this.armLiveness(now)
  }

  /** The peer may have moved: what goes unanswered is asked there. */
  followPlace(now: Millis): void {
    const { moves, current } = this.config.place
    if (this.movesSeen === moves || this.state === 'closed') return
    this.movesSeen = moves
    if (this.config.place.isTried) this.window.wake()
    else this.window.renew(now)
    const to = formatEndpoint(current.remoteAddress, current.remotePort)
    this.trace('ike.moved', { to, at: now })
    if (equal(this.tokenFor, current.remoteAddress)) return
    this.tokenFor = current.remoteAddress
    const isQueued = this.queue.some(exchange => exchange instanceof TellCrashToken)
    if (knowsCrashTokens(this) && !isQueued) this.enqueue(new TellCrashToken(), now)
  }

  /** Our addresses have changed; an initiator's are of no use to anybody (RFC 4555 §3.6). */
  announceAddresses(now: Millis): void {
    if (this.state === 'established' && !this.isClient && this.peer?.mobike === true)
      this.enqueue(new AnnounceAddresses(), now)
  }

  /** What goes unanswered is asked at once, with all its tries; else whether the peer is there. */
  renew(now: Millis): void {
    if (this.window.isBusy) this.window.renew(now)
    else this.probe(now)
  }

  answer(id: number, answer: Answer, now: Millis): void {
    const { asked } = this
    if (asked?.id !== id) return
    this.asked = undefined
    if (this.originalInitiator) this.timers.clear(Timer.HalfOpen)
    this.follow(asked.next(answer, now), now)
  }

  follow(outcome: Outcome, now: Millis): void {
    switch (outcome.kind) {
      case 'ask': {
        const id = this.nextQuestion++
        // A responder's handshake has its limit already.
        if (this.originalInitiator) this.timers.set(Timer.HalfOpen, now + this.answerTimeout)
        this.asked = { id, kind: outcome.question.kind, next: outcome.next }
        return this.output({ kind: 'question', id, question: outcome.question })
      }
      case 'answer':
        this.reply(ExchangeType.IkeAuth, outcome.payloads)
        if (outcome.then !== undefined) this.enqueue(outcome.then, now)
        return this.startNext(now)
      case 'request':
        return this.enqueue(new AuthRequest(this, outcome), now)
      case 'done':
        return
      default:
        return outcome satisfies never
    }
  }

  usePpk(ppk: Ppk): void {
    this.protection.mixPpk(this.suite.prf, ppk.secret)
  }

  adoptPolicy(policy: PeerPolicy): void {
    this.config = { ...this.config, policy }
  }

  // --- exchanges that we start ---

  enqueue(exchange: Exchange, now: Millis): void {
    if (this.state === 'closed') return
    this.queue.push(exchange)
    this.startNext(now)
  }

  enqueueLater(exchange: Exchange, now: Millis): void {
    this.waiting.push({ exchange, at: now + this.backoff(++this.refusals) })
  }

  private backoff(refusals: number): Millis {
    const wait = Math.min(RETRY * 2 ** (refusals - 1), MAX_RETRY)
    return wait * (0.5 + randomFraction(this.config.environment))
  }

  private startNext(now: Millis): void {
    while (this.current === undefined && this.state !== 'closed' && !this.window.isBusy) {
      const exchange = this.queue.shift()
      if (exchange === undefined) return
      this.current = { exchange, payloads: undefined }
      this.buildCurrent(now)
    }
  }

  private buildCurrent(now: Millis): void {
    const exchange = this.current?.exchange
    if (exchange === undefined) return
    const payloads = exchange.build(this, now)
    if (payloads === undefined) {
      this.current = undefined
      return
    }
    this.current!.payloads = payloads
    const { ownId } = this.window
    const datagrams = this.sealed(exchange.type, ownId, false, payloads, exchange.isWhole)
    this.traceMessage('ike.request.sent', exchange.type, ownId, payloads, datagrams.length)
    this.window.request(datagrams, now)
    this.movesAtRequest = this.config.place.moves
  }

  private sealed(
    exchange: number,
    messageId: number,
    response: boolean,
    payloads: readonly Payload[],
    isWhole = false,
  ): Uint8Array[] {
    const facts: HeaderFacts = {
      spiI: this.spiI,
      spiR: this.spiR,
      exchange,
      originalInitiator: this.originalInitiator,
      response,
      messageId,
    }
    const isCut = this.handshake.fragmentation && !isWhole
    const limit = isCut ? this.size.octets - UDP_AND_IP : Infinity
    const least = response || this.crashTokens.isEmpty ? 0 : LEAST_REQUEST
    return this.protection.seal(facts, writeChain(payloads), limit, least)
  }

  roomIn(packet: number): number {
    const header = this.path.remoteAddress.length === 4 ? IPV4_HEADER : IPV6_HEADER
    return this.protection.capacity(packet - header - UDP_AND_MARKER)
  }

  // --- messages ---

  handleMessage(message: Uint8Array, path: Path, now: Millis): void {
    const header = readIkeHeader(message)
    if (header === undefined || header.majorVersion !== 2) return
    if (header.originalInitiator === this.originalInitiator) return
    if (header.exchange === ExchangeType.IkeSaInit) return this.handleInit(message, header, path)
    if (!equal(header.spiR, this.spiR)) return
    if (this.state === 'closed' && equal(message.subarray(-ICV), this.lastIcv))
      return this.repeatAnswer(header, path, message.length)
    if (this.isForgotten) return
    const layout = findEncrypted(message, header)
    if (layout === undefined || isChainError(layout)) return
    if (layout.isFragment && !this.handshake.fragmentation) return
    const plaintext = this.protection.open(message, layout)
    if (plaintext === undefined) {
      this.trace('ike.drop', { why: 'icv' })
      return this.config.drop('ike.icv')
    }
    let whole: { plaintext: Uint8Array; firstInner: number } | undefined = {
      plaintext,
      firstInner: layout.firstInner,
    }
    if (layout.isFragment) {
      if (!header.response) this.size.noteFragment(header.messageId, message.length + UDP_AND_IP)
      if (!this.isExpected(header)) {
        // RFC 7383 §2.6.1: one answer for a repeated request, not one for each of its fragments.
        if (layout.fragment === 1) this.repeatAnswer(header, path, message.length)
        return
      }
      const reassembly = header.response ? this.reassembly.response : this.reassembly.request
      whole = reassembly.add({
        messageId: header.messageId,
        response: header.response,
        number: layout.fragment,
        total: layout.totalFragments,
        firstInner: layout.firstInner,
        plaintext,
        isTrusted: this.peer !== undefined,
      })
    }
    if (whole === undefined) return
    if (layout.isFragment && !header.response) this.size.follow(header.messageId)
    if (!header.response && this.window.isNext(header.messageId)) this.lastIcv = message.slice(-ICV)
    this.handleAuthentic(
      header,
      readChain(whole.plaintext, 0, whole.plaintext.length, whole.firstInner),
      path,
      message.length,
      now,
    )
  }

  private isExpected(header: IkeHeader): boolean {
    return header.response
      ? this.window.isAwaited(header.messageId)
      : this.window.isNext(header.messageId)
  }

  private repeatAnswer(header: IkeHeader, path: Path, octets: number): void {
    if (header.response || !this.window.isRepeated(header.messageId)) return
    const { answered } = this
    // RFC 7383 §2.5.1: the answer seems not to fit through, whatever the request did.
    if (answered !== undefined && !this.isForgotten) {
      const { exchange, id, payloads, isWhole } = answered
      if (isWhole) {
        answered.isWhole = false
        this.window.replaceAnswer(this.sealed(exchange, id, true, payloads))
      } else if (++answered.repeats % TRIES_OF_SIZE === 0) {
        const smaller = this.smaller(exchange, id, true, payloads)
        if (smaller !== undefined) this.window.replaceAnswer(smaller)
      }
    }
    this.window.repeatAnswer(this.strayFrom(path, octets))
  }

  private strayFrom(path: Path, octets: number): Stray | undefined {
    return samePath(path, this.path) ? undefined : { path, octets }
  }

  /** Its ICV has verified: from here on the message may change things. */
  private handleAuthentic(
    header: IkeHeader,
    payloads: Payload[] | ChainError,
    path: Path,
    octets: number,
    now: Millis,
  ): void {
    if (!this.isExpected(header)) return this.repeatAnswer(header, path, octets)
    this.arrived = { path, octets, at: now }
    this.noteHeard(header.response, now)
    this.wasHeard = true
    // Whatever there is of fragments is of this message, which is here now, or older.
    this.reassembly[header.response ? 'response' : 'request'].clear()
    this.noteWhere(path, octets, header.response, now)
    if (header.response) return this.handleResponse(header, payloads, now)
    // The peer has our last answer, or it would repeat what it asked then.
    this.window.wake()
    this.stray = this.strayFrom(path, octets)
    this.handleRequest(header, payloads, now)
  }

  /** §2.23: the newest authentic message says where the peer is now. */
  private noteWhere(path: Path, octets: number, isResponse: boolean, now: Millis): void {
    const { place } = this.config
    // What comes late on an SA that was replaced says where the peer was; a responder that has not proved
    // itself says nothing.
    const isInUse =
      this.state === 'established' || (this.state === 'auth' && !this.originalInitiator)
    if (!isInUse) return
    const { peer } = this
    // With MOBIKE, IKE is no sign of a move (RFC 4555 §3.8) but tries paths, too. DEVIATION: between our own ends it is.
    if (peer?.mobike !== true || peer.isOurs || samePath(path, place.current))
      place.noteNewest(path, octets, now)
    this.followPlace(now)
    if (!isResponse || this.movesAtRequest !== place.moves) return
    const isProof = peer?.mobike !== true || this.busyWith?.provesPath === true
    place.noteAnswer(path, now - this.window.startedAt >= SILENCE, isProof)
  }

  private handleResponse(header: IkeHeader, payloads: Payload[] | ChainError, now: Millis): void {
    const exchange = this.current?.exchange
    if (exchange === undefined || header.exchange !== exchange.type) return
    const times = this.window.sentTimes
    if (times === 1) {
      this.config.measures.roundTrip = now - this.window.startedAt
    }
    this.window.settle()
    this.current = undefined
    this.traceMessage('ike.response', exchange.type, header.messageId, payloads)
    const readable = isChainError(payloads) ? [] : payloads
    exchange.onResponse(this, readable, now, times)
    this.deletedEarly.clear()
    if (exchange.type === ExchangeType.CreateChildSa) this.noteOutcome(readable, now)
    this.startNext(now)
    this.armLiveness(now)
  }

  private noteOutcome(payloads: readonly Payload[], now: Millis): void {
    const refusal = findErrorNotify(payloads)
    if (refusal === undefined) this.refusals = 0
    if (refusal?.type !== NotifyType.TemporaryFailure) this.refusedSince = undefined
    else if (this.refusedSince === undefined) this.refusedSince = now
    else if (now - this.refusedSince >= OUT_OF_STEP_AFTER) this.enqueue(new DeleteIke(), now)
  }

  private handleRequest(header: IkeHeader, payloads: Payload[] | ChainError, now: Millis): void {
    // Once closed it only repeats what it said last.
    if (this.state === 'closed' || this.asked !== undefined) return
    const { exchange } = header
    if (!this.admits(exchange)) return this.trace('ike.drop', { why: 'state', exchange })
    this.window.accept()
    this.traceMessage('ike.request', exchange, header.messageId, payloads)
    // Rule E4: only the survivor of a simultaneous rekey is used for anything but its own Delete.
    if (this.state === 'provisional' && !isDeleteOfIke(payloads))
      this.predecessor!.settleOnPeer(now)
    if (isChainError(payloads) || hasExcess(payloads) || lacksRequired(exchange, payloads)) {
      const error = isChainError(payloads) ? payloads : MALFORMED
      this.reply(exchange, this.refuseChain(error, now))
    } else if (exchange === ExchangeType.IkeAuth) {
      this.follow(respondAuth(this, payloads, now), now)
    } else {
      const filled = fillAnswer(this, payloads)
      const answer = this.respond(exchange, payloads, now)
      this.reply(
        exchange,
        filled === undefined ? answer : [...answer, filled],
        filled !== undefined,
      )
    }
  }

  /** Which requests each state takes at all (CVE-2014-2338 was one too many). */
  private admits(exchange: number): boolean {
    if (this.state === 'auth') return !this.originalInitiator && exchange === ExchangeType.IkeAuth
    return exchange === ExchangeType.CreateChildSa || exchange === ExchangeType.Informational
  }

  private respond(exchange: number, payloads: readonly Payload[], now: Millis): readonly Payload[] {
    return exchange === ExchangeType.CreateChildSa
      ? this.respondCreateChild(payloads, now)
      : respondInformational(this, payloads, now)
  }

  /** §2.5, §2.21: what a peer is told whose authenticated message cannot be read. */
  private refuseChain({ error, payloadType }: ChainError, now: Millis): readonly Payload[] {
    // §2.21.2: IKE_AUTH is one attempt, which has failed.
    if (this.state === 'auth') {
      this.finish(errorOf('BAD_AUTH_REQUEST', { notify: error }), true, now)
    }
    return error === 'INVALID_SYNTAX'
      ? [notify(NotifyType.InvalidSyntax)]
      : [notify(NotifyType.UnsupportedCriticalPayload, Uint8Array.of(payloadType))]
  }

  private respondCreateChild(payloads: readonly Payload[], now: Millis): readonly Payload[] {
    // §2.25: while this SA goes, nothing new begins on it.
    if (this.state !== 'established') return [notify(NotifyType.TemporaryFailure)]
    const isRekey = findNotify(payloads, NotifyType.RekeySa) !== undefined
    const isNew = !isRekey && find(payloads, 'tsi') !== undefined
    // An IKE SA that replaces another has the same Child SAs made beside those of the other (§2.8.3).
    const isFull = this.owned.size >= MAX_CHILDREN || this.config.childCount() >= 2 * MAX_CHILDREN
    if (isNew && isFull) return [notify(NotifyType.NoAdditionalSas)]
    // The peer tries again later, when it has fewer SAs that wait for their Delete, too.
    if (!this.config.requestRate.take(now) || this.owned.size >= 2 * MAX_CHILDREN)
      return [notify(NotifyType.TemporaryFailure)]
    if (find(payloads, 'tsi') === undefined) return RekeyIke.respond(this, payloads, now)
    const options = acceptOptions(this, true)
    if (isRekey) return RekeyChild.respond(this, payloads, options, now)
    if (this.rekeying.own !== undefined || this.rekeying.peer !== undefined) {
      return [notify(NotifyType.TemporaryFailure)]
    }
    return CreateChild.respond(this, payloads, options, now)
  }

  private reply(exchange: number, payloads: readonly Payload[], isWhole = false): void {
    if (this.isForgotten) return
    const id = this.window.peerId - 1
    const datagrams = this.sealed(exchange, id, true, payloads, isWhole)
    this.traceMessage('ike.response.sent', exchange, id, payloads, datagrams.length)
    this.answered = { exchange, id, payloads, repeats: 0, isWhole }
    this.window.answer(datagrams, this.stray)
    if (this.state === 'closed') this.wipeKeys()
  }

  // --- IKE_SA_INIT ---

  /** The peer repeats its first request: it has not heard our answer. */
  private handleInit(message: Uint8Array, header: IkeHeader, path: Path): void {
    const isRepeated =
      !this.originalInitiator &&
      !header.response &&
      this.state === 'auth' &&
      equal(message, this.handshake.request)
    if (isRepeated) this.window.repeatAnswer(this.strayFrom(path, message.length))
    else this.trace('ike.drop', { why: 'init' })
  }

  // --- IKE_AUTH ---

  /** Starts our half of IKE_AUTH; `child` is the Child SA that it carries. */
  login(child: ChildRequest | undefined, now: Millis): void {
    this.authenticating = new Authenticate(this, child)
    this.follow(this.authenticating.start(now), now)
  }

  notePeerProven(): void {
    this.isProven = true
  }

  // --- transitions that exchanges use ---

  establish(peer: PeerFacts, now: Millis, replaces: readonly Uint8Array[] = []): void {
    this.peer = peer
    this.authenticating = undefined
    this.state = 'established'
    this.noteFirstSighting()
    this.timers.clear(Timer.HalfOpen)
    this.armLifetime(now)
    this.authenticatedAt = now
    this.limitByPolicy(peer, now)
    this.trace('ike.established', { peer: formatIdentity(peer.identity), suite: peer.ikeSuite })
    this.output({ kind: 'established', peer, replaces })
    this.armLiveness(now)
  }

  /** When the peer's certificates are no longer valid, its SA ends; we reauthenticate before. */
  private limitByPolicy(peer: PeerFacts, now: Millis): void {
    const { reauthInterval, authLifetime } = this.config.policy
    const left = validFor(this, peer)
    if (left < Infinity) this.trace('ike.certificateEnds', { in: left, at: now })
    if (this.isClient) {
      const { softTime } = drawLifetime(
        { time: left, octets: Infinity, packets: Infinity },
        this.config.environment,
      )
      this.ownReauthAt = Math.min(
        now + (reauthInterval > 0 ? reauthInterval : Infinity),
        now + Math.max(softTime, LEAST_AUTH_LIFETIME),
      )
      this.timers.set(Timer.Reauth, this.ownReauthAt)
    }
    const isLimited = authLifetime > 0 && !this.isClient
    this.certificateEndsAt = now + left
    this.timers.set(Timer.AuthLimit, now + Math.min(left, isLimited ? authLifetime : Infinity))
  }

  /** Before the peer's time is over, but neither later than our own policy says nor sooner than is sane. */
  limitAuthentication(lifetime: Millis, now: Millis): void {
    if (!this.isClient || this.state === 'closed') return
    const { softTime } = drawLifetime(
      { time: lifetime, octets: Infinity, packets: Infinity },
      this.config.environment,
    )
    const wanted = Math.max(now + softTime, this.authenticatedAt + LEAST_AUTH_LIFETIME)
    this.timers.set(Timer.Reauth, Math.min(wanted, this.ownReauthAt))
    this.trace('ike.authLifetime', { lifetime, at: now })
  }

  /** The attempt failed; the SA still stands. */
  retryReauthentication(now: Millis): void {
    if (this.state === 'established')
      this.timers.set(Timer.Reauth, now + this.backoff(++this.refusals))
  }

  private armLifetime(now: Millis): void {
    const lifetime = drawLifetime(this.config.policy.ikeLifetime, this.config.environment)
    this.timers.set(Timer.Soft, now + lifetime.softTime)
    this.timers.set(Timer.Hard, now + lifetime.hardTime)
  }

  install(
    facts: ChildFacts,
    keys: ChildKeys,
    options: {
      outboundReady: boolean
      byPeer?: boolean | undefined
      ticket?: number | undefined
    },
    now: Millis,
  ): ChildSa {
    const lifetime = drawLifetime(this.config.policy.childLifetime, this.config.environment)
    // What made the first Child SA is the key exchange of its IKE SA, which a later rekey of that may change.
    const child = new ChildSa(
      { ...facts, group: facts.group || this.suite.group },
      options.outboundReady,
      now + lifetime.softTime,
      now + lifetime.hardTime,
    )
    this.owned.set(child.inboundSpi, child)
    this.trace('child.installed', {
      spiIn: child.inboundSpi,
      spiOut: child.outboundSpi,
      mode: child.mode,
      suite: child.suite,
    })
    this.output({
      kind: 'childInstalled',
      child,
      keys,
      byPeer: options.byPeer === true,
      ticket: options.ticket,
    })
    return child
  }

  remove(child: ChildSa, now: Millis): void {
    if (child.state === 'gone') return
    child.state = 'gone'
    this.owned.delete(child.inboundSpi)
    this.trace('child.removed', { spi: child.inboundSpi, at: now })
    this.output({ kind: 'childRemoved', inboundSpi: child.inboundSpi, linger: LINGER })
    const next = child.rekeying.peer?.replacement
    if (next !== undefined && next.state !== 'gone') this.makeOutbound(next)
  }

  awaitChildDelete(child: ChildSa, now: Millis): void {
    child.orphanAt = now + ORPHAN
  }

  noteEarlyDelete(outboundSpi: number): void {
    const isMaking =
      this.busyWith?.type === ExchangeType.CreateChildSa && this.busyWith.subject === 'childSa'
    if (isMaking && this.deletedEarly.size < MAX_EARLY_DELETES) this.deletedEarly.add(outboundSpi)
  }

  wasDeletedEarly(outboundSpi: number): boolean {
    return this.deletedEarly.has(outboundSpi)
  }

  makeOutbound(child: ChildSa): void {
    if (child.outboundReady) return
    child.outboundReady = true
    this.output({ kind: 'childOutbound', inboundSpi: child.inboundSpi })
  }

  childByOutboundSpi(spi: number): ChildSa | undefined {
    for (const child of this.owned.values()) {
      if (child.outboundSpi === spi) return child
    }
    return undefined
  }

  retryChildLater(child: ChildSa, now: Millis): void {
    child.softAt = now + this.backoff(++child.refusals)
  }

  retryIkeLater(now: Millis): void {
    this.timers.set(Timer.Soft, now + this.backoff(++this.refusals))
  }

  createSuccessor(facts: SuccessorFacts, now: Millis): IkeSa {
    const { handshake } = this
    const start = { ...facts, handshake, state: 'established' as const, firstOwnId: 0 }
    const sa = new IkeSa(this.config, start, now)
    sa.peer = this.peer
    sa.size.octets = this.size.octets
    sa.armLifetime(now)
    sa.isClient = this.isClient
    this.output({ kind: 'successor', sa })
    return sa
  }

  handOver(winner: Successor, now: Millis): void {
    const next = winner as IkeSa
    for (const [spi, child] of this.owned) next.owned.set(spi, child)
    this.owned.clear()
    this.state = 'rekeyed'
    this.timers.clear(Timer.Soft)
    // RFC 4478 §2: a rekey does not prolong the time that an authentication is good for.
    for (const slot of [Timer.Reauth, Timer.AuthLimit]) {
      next.timers.set(slot, this.timers.deadline(slot))
      this.timers.clear(slot)
    }
    next.authenticatedAt = this.authenticatedAt
    next.ownReauthAt = this.ownReauthAt
    next.certificateEndsAt = this.certificateEndsAt
    this.timers.clear(Timer.Liveness)
    next.state = 'established'
    if (!next.timers.isSet(Timer.Soft)) next.armLifetime(now)
    next.queue.push(...this.queue.filter(exchange => !(exchange instanceof RekeyIke)))
    next.waiting.push(...this.waiting)
    this.queue = []
    this.waiting = []
    this.output({ kind: 'rekeyed', by: next })
    next.startNext(now)
    next.armLiveness(now)
  }

  markRekeyed(): void {
    if (this.state !== 'closed') this.state = 'rekeyed'
  }

  markProvisional(predecessor: ExchangeContext): void {
    this.state = 'provisional'
    this.predecessor = predecessor
  }

  /** The peer ought to delete this SA (rule E6). */
  expectPeerDelete(now: Millis): void {
    if (this.state !== 'closed') this.timers.set(Timer.Orphan, now + ORPHAN)
  }

  /** The peer has not used what its rekey of this SA made. */
  private get survivorIsUnknown(): boolean {
    const survivor = this.rekeying.peer?.replacement as IkeSa | undefined
    return survivor?.state === 'established' && !survivor.wasHeard
  }

  settleOnPeer(now: Millis): void {
    const { peer } = this.rekeying
    if (peer?.replacement === undefined || this.settled) return
    this.settled = true
    // The peer has already ended what was to take over: everything ends with it.
    if ((peer.replacement as IkeSa).state === 'closed') return this.finish(undefined, true, now)
    this.handOver(peer.replacement, now)
    this.expectPeerDelete(now)
  }

  startDeleting(): void {
    this.state = 'deleting'
  }

  finish(error: Error | undefined, linger: boolean, now: Millis): void {
    if (this.state === 'closed') return
    this.state = 'closed'
    this.window.settle()
    const unfinished = [...this.queue, ...this.waiting.map(({ exchange }) => exchange)]
    if (this.current !== undefined) unfinished.unshift(this.current.exchange)
    for (const exchange of unfinished) exchange.abandon?.(this)
    this.authenticating?.abandon()
    this.authenticating = undefined
    this.current = undefined
    this.queue = []
    this.waiting = []
    this.asked = undefined
    this.timers.clearAll()
    for (const child of [...this.owned.values()]) {
      child.state = 'gone'
      // The peer may have sent something before it heard of the end (rule E7).
      const wait = error === undefined ? LINGER : 0
      this.output({ kind: 'childRemoved', inboundSpi: child.inboundSpi, linger: wait })
    }
    this.owned.clear()
    this.trace('ike.closed', {
      code: (error as IpsecError | undefined)?.code,
      error: error?.message,
    })
    this.output({ kind: 'closed', error })
    if (!linger) return this.forget()
    // What it says last is sealed once, and then it can repeat it without keys.
    if (!this.window.owesAnswer) this.wipeKeys()
    this.timers.set(Timer.Forget, now + FORGET)
  }

  private wipeKeys(): void {
    this.isForgotten = true
    this.protection.wipe()
  }

  private forget(): void {
    this.wipeKeys()
    this.output({ kind: 'forgotten' })
  }

  // --- time ---

  nextTimeout(): Millis {
    let next = Math.min(this.timers.next(), this.window.deadline)
    for (const { at } of this.waiting) next = Math.min(next, at)
    if (this.state === 'established') {
      for (const child of this.owned.values()) {
        if (child.state === 'installed') next = Math.min(next, child.softAt, child.hardAt)
        else if (child.state === 'replaced') next = Math.min(next, child.orphanAt, child.hardAt)
      }
    }
    return next
  }

  handleTimeout(now: Millis): void {
    for (let slot = this.timers.takeDue(now); slot >= 0; slot = this.timers.takeDue(now)) {
      this.handleTimer(slot as (typeof Timer)[keyof typeof Timer], now)
    }
    if (this.window.deadline <= now) this.handleRetransmission(now)
    for (const entry of this.waiting.filter(({ at }) => at <= now)) {
      this.waiting = this.waiting.filter(other => other !== entry)
      this.enqueue(entry.exchange, now)
    }
    if (this.state === 'established') this.handleChildLifetimes(now)
  }

  private handleTimer(slot: (typeof Timer)[keyof typeof Timer], now: Millis): void {
    switch (slot) {
      case Timer.HalfOpen:
        return this.finish(
          this.asked === undefined
            ? errorOf('HANDSHAKE_UNFINISHED', { where: this.where })
            : errorOf('CALLBACK_TIMEOUT', {
                option: ASKED_OPTIONS[this.asked.kind],
                seconds: this.answerTimeout / 1000,
              }),
          false,
          now,
        )
      case Timer.Soft:
        if (this.timers.deadline(Timer.Hard) <= now) this.timers.set(Timer.Hard, now + OVERSLEPT)
        return this.rekeyIke(now)
      case Timer.Hard:
        return this.close(now)
      case Timer.Liveness:
        return this.checkLiveness(now)
      case Timer.Orphan:
        // The peer may still wait for the answer that tells it of the new SA: this one is all it has.
        if (this.settled && this.survivorIsUnknown && this.orphanWaits++ < MAX_ORPHAN_WAITS)
          return this.expectPeerDelete(now)
        // The peer never used it, so it may never have heard of it; there is nobody to tell.
        return this.wasHeard
          ? this.enqueue(new DeleteIke(), now)
          : this.finish(undefined, false, now)
      case Timer.Forget:
        return this.forget()
      case Timer.Reauth:
        return this.output({ kind: 'reauthenticate' })
      case Timer.AuthLimit:
        // RFC 4478 §2: the peer did not reauthenticate in time.
        if (this.certificateEndsAt <= now) this.noteCertificateEnd()
        return this.close(now)
      default:
        return slot satisfies never
    }
  }

  /**
   * The message in smaller fragments than before, of which there must be more (RFC 7383 §2.5.2); undefined: it fits
   * the smallest size, or the peer does not know fragments.
   */
  private smaller(
    exchange: number,
    id: number,
    response: boolean,
    payloads: readonly Payload[],
  ): Uint8Array[] | undefined {
    if (!this.handshake.fragmentation) return undefined
    const { octets } = this.size
    const before = this.sealed(exchange, id, response, payloads).length
    while (this.size.shrink(this.path)) {
      const datagrams = this.sealed(exchange, id, response, payloads)
      if (datagrams.length > before) return datagrams
    }
    this.size.octets = octets
    return undefined
  }

  /** What lives on the SA ends with that reason, unless another SA has taken its place. */
  private noteCertificateEnd(): void {
    const error = errorOf('CERTIFICATE_ENDED', {})
    this.trace('ike.certificateEnded', { code: error.code, why: error.message })
    this.output({ kind: 'certificateEnded', error })
  }

  private handleRetransmission(now: Millis): void {
    const { isQuick, sentTimes, ownId } = this.window
    const { current } = this
    if (sentTimes === 1 && current?.payloads !== undefined && current.exchange.isWhole === true)
      this.window.replace(this.sealed(current.exchange.type, ownId - 1, false, current.payloads))
    if (!isQuick && sentTimes === TRIES_OF_SIZE && current?.payloads !== undefined) {
      const { exchange, payloads } = current
      const datagrams = this.smaller(exchange.type, ownId - 1, false, payloads)
      if (datagrams !== undefined) {
        this.trace('ike.fragments', {
          size: this.size.octets,
          fragments: datagrams.length,
          at: now,
        })
        this.window.replace(datagrams)
        this.window.renew(now)
      }
    }
    if (this.window.retransmit(now)) {
      this.config.measures.retransmissions++
      return
    }
    const exchange = this.current?.exchange
    const { where } = this
    if (exchange?.onTimeout !== undefined) return exchange.onTimeout(this, now)
    const error = errorOf(isQuick ? 'PEER_LOST_SA' : 'SILENT', { where })
    this.finish(error, false, now)
  }

  private get where(): string {
    return formatEndpoint(this.path.remoteAddress, this.path.remotePort)
  }

  /** How long the program may take to answer a question. */
  private get answerTimeout(): Millis {
    return this.originalInitiator ? ANSWER_TIMEOUT : this.config.policy.admission.halfOpenTimeout
  }

  private handleChildLifetimes(now: Millis): void {
    for (const child of [...this.owned.values()]) {
      if (child.state !== 'installed' && child.state !== 'replaced') continue
      const isOrphan = child.state === 'replaced' && child.orphanAt <= now
      if (
        isOrphan &&
        child.hardAt > now &&
        child.rekeying.peer?.replacement?.outboundReady === false
      ) {
        // The peer may still wait for the answer that tells it of the new SA: the old one is all it has.
        child.orphanAt = now + ORPHAN
      } else if (
        child.state === 'installed' &&
        child.softAt < child.hardAt &&
        child.hardAt <= now
      ) {
        child.hardAt = now + OVERSLEPT
        child.softAt = child.hardAt
        this.enqueue(new RekeyChild(child), now)
      } else if (isOrphan || child.hardAt <= now) {
        child.orphanAt = Infinity
        child.hardAt = Infinity
        this.enqueue(new DeleteChild(child), now)
      } else if (child.state === 'installed' && child.softAt <= now) {
        child.softAt = Math.min(now + MAX_RETRY, child.hardAt)
        this.enqueue(new RekeyChild(child), now)
      }
    }
  }

  /** RFC 7296 §2.4: a probe only when we have sent and heard nothing. */
  private armLiveness(now: Millis): void {
    const { livenessInterval } = this.config.policy
    if (livenessInterval === 0 || this.state !== 'established') return
    this.timers.set(Timer.Liveness, now + livenessInterval)
  }

  private checkLiveness(now: Millis): void {
    const { livenessInterval } = this.config.policy
    // When we were the last to hear, the peer has reason to ask; if it never does, we ask late.
    const silence = livenessInterval * (this.sentAt > this.heardAt ? 1 : QUIET_FACTOR)
    // One sum, compared and set: with fractions of a millisecond, a difference may say otherwise.
    const due = this.heardAt + silence
    if (due <= now && this.owned.size > 0) this.probe(now)
    this.timers.set(Timer.Liveness, due > now ? due : now + livenessInterval)
  }
}

const MALFORMED: ChainError = { error: 'INVALID_SYNTAX', payloadType: 0 }
/** Ours: each keeps keys and a replay window, and a peer that needs more of them can widen its selectors. */
const MAX_CHILDREN = 64
const MAX_EARLY_DELETES = 64

const isDeleteOfIke = (payloads: Payload[] | ChainError): boolean =>
  !isChainError(payloads) &&
  payloads.some(payload => payload.kind === 'delete' && payload.protocol === ProtocolId.Ike)
