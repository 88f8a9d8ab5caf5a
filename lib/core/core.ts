/**
 * The whole protocol of one endpoint without IO: datagrams and time go in, datagrams, events and
 * questions come out. Input only changes state; the driver of the core then pulls `pollTransmit` and
 * `pollEvent` until both are empty and sleeps until `nextTimeout`.
 */
import { errorOf } from '../base/error-table.ts'
import { EMPTY, equal, getU32, toHex } from '../base/bytes.ts'
import type { Environment, Millis } from '../base/environment.ts'
import { Line } from '../base/line.ts'
import type { Packet } from '../base/packet.ts'
import { samePath, type Path } from '../base/path.ts'
import type { Tracer } from '../base/trace.ts'
import { Sad } from '../esp/sad.ts'
import type { Answer, IkeSaConfig, Newcomer, Question } from '../ike/exchange.ts'
import { provesCrash, TokenMaker } from '../ike/crash-token.ts'
import { HalfOpen } from '../ike/half-open.ts'
import type { IkeSa } from '../ike/ike-sa.ts'
import { claimedPredecessor, isSuccession, type NewSa } from '../ike/succession.ts'
import type { Credentials } from '../identity/credentials.ts'
import { samePrincipal, type Principal } from '../identity/principal.ts'
import { AddressPool } from '../policy/address-pool.ts'
import { DEFAULT_MAX_BUFFER, type PeerPolicy } from '../policy/options.ts'
import type { TcpConnection } from '../tcp/connection.ts'
import { TcpListeners, type TcpListener } from '../tcp/listener.ts'
import { SharedMemory } from '../tcp/memory.ts'
import { TcpStack, type TcpConfig } from '../tcp/stack.ts'
import { UdpPorts, UdpStack, type UdpFlow } from '../udp/stack.ts'
import {
  classify,
  isIkeMessage,
  NON_ESP_MARKER_LENGTH,
  writeIkeDatagram,
} from '../wire/encapsulation.ts'
import { IKE_HEADER_LENGTH, isVersion1, readIkeHeader, type IkeHeader } from '../wire/ike-header.ts'
import { ExchangeType } from '../wire/registry.ts'
import type { Addressee } from './addressee.ts'
import type { AdmissionLimits } from './admission.ts'
import type {
  Attempt,
  ConnectRequest,
  Connection,
  CoreCounters,
  CoreEvent,
  SessionHandle,
} from './events.ts'
import { Questions } from './questions.ts'
import { Roster } from './roster.ts'
import { Hints, isInvalidIkeSpi, readInvalidSpi } from './hints.ts'
import { SessionTable } from './session-table.ts'
import { Session, type Child, type SessionHost } from './session.ts'
import { Strangers } from './strangers.ts'
import { Schedule } from '../base/schedule.ts'
import { addTo, removeFrom } from '../base/set-map.ts'

export interface CoreConfig {
  readonly environment: Environment
  readonly tracer: Tracer
  readonly tcp: TcpConfig
  /** How strangers are received; undefined: they are not (a client). Replaced for a hot reload. */
  responder?: Responder | undefined
}

export interface Responder {
  readonly policy: PeerPolicy
  readonly credentials: IkeSaConfig['credentials']
}

/** Where a client's SAs lead. */
export interface Gateway extends Responder {
  readonly path: Path
  /** Those with one name share a session. Default: the one name of an endpoint that speaks to one gateway. */
  readonly name?: string | undefined
  /** The owner's; questions of its sessions carry it. */
  readonly context?: unknown
}

/** The name of a gateway that has none. */
const SOLE = ''

/** Ours: of so many gateways it is remembered which of several pre-shared keys they take. */
const MOST_OWN_KEYS = 1000

/** Answers kept for strangers; more are not worth the memory, they ask again. */
const MAX_REPLIES = 64
/** Ours: an INITIAL_CONTACT that proves little makes us ask so many older sessions. */
const MAX_PROBED = 8

export class Core {
  readonly counters: CoreCounters = {
    datagramsIn: 0,
    datagramsOut: 0,
    drops: Object.create(null) as CoreCounters['drops'],
  }
  readonly listeners: TcpListeners
  /** What the TCP connections of all sessions keep. */
  readonly memory: SharedMemory
  private readonly config: CoreConfig
  private readonly sad = new Sad<Child>()
  private readonly sas = new Map<string, { sa: IkeSa | HalfOpen; session: Session }>()
  /** Of IKE SAs that rekeys of ours will make: the peer may have them before we do. */
  private readonly heldSpis = new Set<string>()
  private readonly sessions = new SessionTable()
  private readonly stacks = new Map<TcpStack, Session>()
  private readonly udpPorts = new UdpPorts()
  private readonly udpStacks = new WeakMap<UdpStack, Session>()
  /** Sessions that are up. */
  private readonly up = new Roster<Session>()
  /** The session of each attempt, by its context, and of the connection that it became. */
  private readonly attempted = new WeakMap<object, Session>()
  /** Peers with something to send or tell, in the order they got it: each gets its turn. */
  private readonly active = new Line<Session>()
  /** The session that has sent something since the last `prepare`, and the one that had before it. */
  private lastSender: Session | undefined
  private speaker: Session | undefined
  /** A session has had packets or commands, and what follows is not carried on yet: several often come in a row. */
  private unsettled: Session | undefined
  private unsettledAt: Millis = 0
  /** It was carried on, and is not noted yet: what is ready goes out before. */
  private unnoted: Session | undefined
  private readonly schedule = new Schedule<Session>()
  private readonly events: CoreEvent[] = []
  private isStrangersTurn = false
  private ownAddresses: readonly Uint8Array[] = []
  private readonly replies: { bytes: Uint8Array; path: Path }[] = []
  private readonly questions = new Questions()
  private readonly strangers: Strangers | undefined
  private readonly hints = new Hints()
  /** The session with each gateway, by its name. */
  private readonly clients = new Map<string, Session>()
  /** The same by the address they were opened towards. */
  private readonly clientsAt = new Map<string, Set<Session>>()
  /** By gateway: which of several pre-shared keys it has taken, where that was not the first. */
  private readonly ownKeys = new Map<string, number>()
  /** Those of them that are up, and older ones with the same gateway. */
  private readonly clientsUp = new Map<string, Set<Session>>()
  private place: Uint8Array | undefined
  private tokenMakers = new WeakMap<Credentials, TokenMaker>()
  private readonly sessionHost: SessionHost

  constructor(config: CoreConfig) {
    this.config = config
    this.listeners = new TcpListeners()
    this.memory = new SharedMemory(config.responder?.policy.limits.maxBuffer ?? DEFAULT_MAX_BUFFER)
    const policy = config.responder?.policy
    if (policy !== undefined) this.strangers = this.makeStrangers(policy.admission)
    this.sessionHost = this.makeSessionHost()
  }

  /**
   * Peers get tokens of quick crash detection (RFC 6290) from now on. `place`: the same for what starts again in the
   * stead of this endpoint, and for no other with the same credentials.
   */
  enableCrashTokens(place: Uint8Array, now: Millis): void {
    this.place = place
    this.hints.noteStart(now)
    this.tokenMakers = new WeakMap()
  }

  private crashToken(
    credentials: Credentials | undefined,
    spiI: Uint8Array,
    spiR: Uint8Array,
    holder: Uint8Array,
  ): Uint8Array | undefined {
    if (this.place === undefined || credentials === undefined) return undefined
    let maker = this.tokenMakers.get(credentials)
    if (maker === undefined) {
      const { crashSecret } = credentials
      const secret = crashSecret.derive()
      if (secret === undefined) return undefined
      maker = new TokenMaker(secret, crashSecret.isGiven ? EMPTY : this.place)
      this.tokenMakers.set(credentials, maker)
    }
    return maker.make(spiI, spiR, holder)
  }

  /** Hot reload: SAs from now on are negotiated with these; live ones and the pool stay as they are. */
  setResponder(responder: Responder): void {
    this.config.responder = responder
    this.memory.setLimit(responder.policy.limits.maxBuffer)
  }

  get isIdle(): boolean {
    return this.counted.size === 0
  }

  get connectionCount(): number {
    return this.counted.connectionCount
  }

  get hasUndelivered(): boolean {
    return this.counted.hasUndelivered
  }

  private get counted(): SessionTable {
    this.catchUp()
    return this.sessions
  }

  get saCount(): number {
    return this.sas.size
  }

  /** `admits`: whether that session may have connections there; undefined: any. Undefined: the port is taken. */
  listen(
    port: number,
    backlog: number,
    admits?: (session: SessionHandle) => boolean,
  ): TcpListener | undefined {
    const mayReach = (stack: object): boolean => {
      const session = this.stacks.get(stack as TcpStack)
      return session === undefined || admits === undefined || admits(session)
    }
    return this.listeners.listen(port, backlog, mayReach)
  }

  /** From now on datagrams to that port come out as events; false: it is taken. */
  openPort(port: number, admits: (session: SessionHandle) => boolean): boolean {
    return this.udpPorts.open(port, stack => {
      const session = this.udpStacks.get(stack)
      return session !== undefined && admits(session)
    })
  }

  closePort(port: number): void {
    this.udpPorts.close(port)
  }

  /** False: too many datagrams wait for that peer. */
  sendDatagram(session: SessionHandle, flow: UdpFlow, payload: Uint8Array, now: Millis): boolean {
    const isTaken = (session as Session).sendDatagram(flow, payload)
    this.touch(session as Session, now)
    return isTaken
  }

  // --- commands ---

  /** A client's socket: over the peer's SA when it is up, else it waits for the one it starts. */
  connect(gateway: Gateway, request: ConnectRequest, context: object, now: Millis): Attempt {
    const attempt: Attempt = { request, context }
    this.start(gateway, attempt, false, now)
    return attempt
  }

  private start(gateway: Gateway, attempt: Attempt, isSecond: boolean, now: Millis): void {
    const { name = SOLE } = gateway
    let session = this.clients.get(name)
    if (
      session === undefined ||
      session.isOver ||
      (gateway.policy.reconnect && session.mayBeGone)
    ) {
      session = new Session(
        this.sessionHost,
        gateway.policy,
        gateway.credentials,
        gateway.path,
        gateway,
      )
      session.ownKey = this.ownKeys.get(name) ?? 0
      this.noteClient(name, session)
      this.sessions.add(session)
    }
    this.attempted.set(attempt.context, session)
    session.connect(attempt, isSecond, now)
    this.touch(session, now)
  }

  cancel(attempt: Attempt, now: Millis): void {
    const session = this.attempted.get(attempt.context)
    if (session === undefined) return
    session.cancel(attempt, now)
    this.touch(session, now)
  }

  /** After a command on a connection: its peer has something to send, or may have. */
  wake(connection: Connection, now: Millis): void {
    const session = this.stacks.get((connection as TcpConnection).stack as TcpStack)
    if (session !== undefined) this.touchSoon(session, now)
  }

  /** Deletes every SA in an orderly way: what was written is delivered first. */
  close(now: Millis): void {
    for (const session of this.sessions) {
      session.closeWhenDone(now)
      this.touch(session, now)
    }
  }

  /** Deletes each SA whose connections nobody waits for any more, except that peers may keep their halves open. */
  closeAbandoned(now: Millis): void {
    for (const session of this.sessions) {
      session.closeAbandoned(now)
      this.touch(session, now)
    }
  }

  /** Deletes every SA at once, whatever was still to be delivered. */
  closeNow(now: Millis): void {
    for (const session of this.sessions) {
      session.closeNow(now)
      this.touch(session, now)
    }
  }

  /** After a command on a session. */
  touchSession(session: SessionHandle, now: Millis): void {
    this.touch(session as Session, now)
  }

  /** Every SA has ended; some may still repeat their last answer. */
  get isSettled(): boolean {
    return this.counted.isSettled
  }

  /** The system says that nobody listens there: believed only before anything was authenticated. */
  handleRefusal(now: Millis): void {
    const session = this.soleClient
    if (session === undefined) return
    session.handleRefusal(now)
    this.touch(session, now)
  }

  /**
   * The system has no way for a datagram, and says why by `code`. It ends an attempt at once; an SA that is up
   * only has a reason to ask. `path`: of that datagram, where there may be several gateways.
   */
  handleNoWay(code: string, now: Millis, path?: Path): void {
    const { soleClient } = this
    const concerned = path === undefined ? [] : this.clientsTowards(path)
    for (const session of soleClient === undefined ? concerned : [soleClient]) {
      session.handleNoWay(code, now)
      this.touch(session, now)
    }
  }

  /**
   * The network under a client has changed: its sessions go on by this path, from another address of ours to the
   * same gateway.
   */
  reroute(path: Path, now: Millis): void {
    for (const session of this.sessions) {
      // New sockets do not wait for the end of one that cannot go on.
      if (!session.canMove) this.leave(session)
      session.reroute(path, now)
      this.touch(session, now)
    }
  }

  /** Of an endpoint that speaks to one gateway. */
  private get soleClient(): Session | undefined {
    return this.clients.get(SOLE)
  }

  private noteClient(name: string, session: Session): void {
    const known = this.clients.get(name)
    if (known !== undefined) this.leave(known)
    this.clients.set(name, session)
    addTo(this.clientsAt, toHex(session.gatewayAddress), session)
  }

  /** The next attempt gets another session. */
  private leave(session: Session): void {
    const { name = SOLE } = session.gateway ?? {}
    if (this.clients.get(name) !== session) return
    this.clients.delete(name)
    removeFrom(this.clientsAt, toHex(session.gatewayAddress), session)
  }

  private clientsTowards(path: Path): readonly Session[] {
    const there = this.clientsAt.get(toHex(path.remoteAddress)) ?? []
    return [...there].filter(session => samePath(session.path, path))
  }

  /** By which a client's gateway is reached now. */
  get clientPath(): Path | undefined {
    return this.soleClient?.path
  }

  /** Where else a client's gateway says that it is. */
  get otherAddresses(): readonly Uint8Array[] {
    return this.soleClient?.otherAddresses ?? []
  }

  /** A client's gateway, which does not answer, is asked by this path to another of its addresses. */
  tryPath(path: Path, now: Millis): void {
    const session = this.soleClient
    if (session === undefined) return
    session.tryPath(path, now)
    this.touch(session, now)
  }

  /** Where a server can be reached, if it is bound to all its addresses; its clients are told of changes. */
  setOwnAddresses(addresses: readonly Uint8Array[], now: Millis): void {
    const isSame =
      addresses.length === this.ownAddresses.length &&
      addresses.every((address, at) => equal(address, this.ownAddresses[at]!))
    if (isSame) return
    this.ownAddresses = addresses
    for (const session of this.sessions) {
      session.announceAddresses(now)
      this.touch(session, now)
    }
  }

  /** The way to a client's gateway is open again: what waits for an answer has not waited in vain. */
  seekGateway(now: Millis): void {
    for (const session of this.sessions) {
      session.seekPeer(now)
      this.touch(session, now)
    }
  }

  /** There may be a better way to a client's gateway: it is asked whether the one in use works. */
  askGateway(now: Millis): void {
    const session = this.soleClient
    if (session === undefined) return
    session.probe(now)
    this.touch(session, now)
  }

  /** A session with that gateway is up, and nothing says that the peer is gone. */
  isLive(name = SOLE): boolean {
    return this.clients.get(name)?.isOpenForAttempts === true
  }

  /** Messages of IKE that have come to the newest session with that gateway. */
  heardFrom(name: string): number {
    return this.clients.get(name)?.heard ?? 0
  }

  /** The application's answer to a question; a late one is passed over. */
  answer(id: number, answer: Answer, now: Millis): void {
    const question = this.questions.take(id)
    if (question === undefined) return
    question.sa.answer(question.id, answer, now)
    this.touch(question.session, now)
  }

  // --- input ---

  /** Whether datagrams come in faster than they are read: strangers then get less of the processor. */
  noteBacklog(isBehind: boolean): void {
    this.strangers?.admission.noteBacklog(isBehind)
  }

  /**
   * One datagram. Its octets are the core's during the call, since a cipher may open it in place, and the caller's again
   * afterwards, who gives its memory to `release` or uses it again. What is kept is copied, or adopted, where it is
   * kept: by `Reassembly` and `UdpStack` what ESP carried, and here IKE, which keeps whole messages.
   */
  handleDatagram(bytes: Uint8Array, path: Path, now: Millis): void {
    this.counters.datagramsIn++
    // RFC 768: its sender wants no answer, and the system sends none to port 0.
    if (path.remotePort === 0) return this.drop('datagram.noPort')
    if (path.isUnmarked === true) return this.handleIke(bytes.slice(), path, now)
    switch (classify(bytes)) {
      case 'esp':
        return this.handleEsp(bytes, path, now)
      case 'ike':
        return this.handleIke(bytes.slice(NON_ESP_MARKER_LENGTH), path, now)
      case 'keepalive':
        return this.drop('keepalive')
      case 'invalid':
        return this.drop('datagram.invalid')
    }
  }

  private handleEsp(bytes: Uint8Array, path: Path, now: Millis): void {
    const child = this.sad.lookup(getU32(bytes, 0))
    if (child === undefined) {
      if (this.handleUnmarked(bytes, path, now)) return
      this.drop('esp.unknownSpi')
      const hint = this.config.responder && this.hints.aboutEsp(bytes, now)
      if (hint !== undefined) this.reply(hint, path)
      return
    }
    child.session.handleEsp(child, bytes, path, now)
    this.touchSoon(child.session, now)
  }

  /**
   * IKE without the marker of RFC 3948 §2.2: an initiator whose own port is 500 may leave it out whatever port it sends
   * to, and understands no answer with one. False: it is not IKE.
   */
  private handleUnmarked(message: Uint8Array, path: Path, now: Millis): boolean {
    if (this.strangers === undefined || !isIkeMessage(message)) return false
    const header = readIkeHeader(message)
    const known = header && this.sas.get(ownSpiOf(header))
    // Somebody on the way may have cut the marker off; a peer that wrote one goes on doing so.
    const isWithoutMarker =
      known?.session.path.isUnmarked ?? (isFirstMessage(message) || isVersion1(message))
    if (isWithoutMarker) this.handleIke(message.slice(), { ...path, isUnmarked: true }, now)
    else this.drop('ike.noMarker')
    return true
  }

  private handleIke(message: Uint8Array, path: Path, now: Millis): void {
    this.catchUp()
    if (isVersion1(message)) {
      const header = readIkeHeader(message)
      const asked = header && this.sas.get(ownSpiOf(header))
      // RFC 7296 §2.5: a peer that has IKEv1 alone answers our first request in that.
      if (asked?.sa instanceof HalfOpen) {
        this.drop('ike.v1')
        asked.session.handleIke(asked.sa, message, path, now)
        return this.touch(asked.session, now)
      }
      if (this.strangers === undefined) return this.drop('ike.v1')
      return this.strangers.receiveVersion1(message, path, now)
    }
    if (isFirstMessage(message)) {
      if (this.strangers === undefined) return this.drop('ike.stranger')
      return this.strangers.receive(message, path, now)
    }
    const header = readIkeHeader(message)
    if (header === undefined) return this.drop('ike.malformed')
    const known = this.sas.get(ownSpiOf(header))
    if (known !== undefined) {
      const { sa, session } = known
      if (!(sa instanceof HalfOpen) && this.strangers?.mayContinue(sa, message, now) === false)
        return this.drop('ike.auth.busy')
      if (!(sa instanceof HalfOpen) && provesCrash(sa, message, header)) session.noteCrash(sa, now)
      else if (!isInvalidIkeSpi(message, header)) session.handleIke(sa, message, path, now)
      else if (sa instanceof HalfOpen) session.noteUnknown(sa, header, path, now)
      else this.noteHint(session, session.hasAsked(header), path, now)
      return this.touch(session, now)
    }
    this.handleHint(message, header, path, now)
  }

  /** RFC 7296 §1.5, §2.4: a message outside any SA proves nothing; at most it makes us ask under the SA. */
  private handleHint(message: Uint8Array, header: IkeHeader, path: Path, now: Millis): void {
    const session = this.soleClient ?? this.clientsTowards(path)[0]
    const spi = readInvalidSpi(message, header)
    if (spi === undefined) {
      this.drop('ike.unknownSpi')
      // RFC 6290 §9.2: of an SA that lives, no token is shown, whichever end a message claims to be of.
      const isAlive = this.isAlive(header.spiI) || this.isAlive(header.spiR)
      const { spiI, spiR } = header
      const { credentials } = this.config.responder ?? session ?? {}
      const token = (): Uint8Array | undefined =>
        isAlive ? undefined : this.crashToken(credentials, spiI, spiR, path.remoteAddress)
      const hint = this.hints.aboutIke(message, header, token, now)
      if (hint !== undefined) this.reply(hint, path)
      return
    }
    if (session === undefined) return this.drop('ike.unknownSpi')
    this.noteHint(session, session.sendsOn(spi), path, now)
    this.touch(session, now)
  }

  /** An SA of ours has, or will have, the SPI that a datagram names. */
  has(addressee: Addressee): boolean {
    if (addressee.kind === 'esp') return this.sad.has(addressee.spi)
    return addressee.kind === 'ike' && this.isAlive(addressee.spi)
  }

  private isAlive(spi: Uint8Array): boolean {
    const key = toHex(spi)
    return this.sas.has(key) || this.heldSpis.has(key)
  }

  /** `isOfUse`: what is said to be unknown is what we use. */
  private noteHint(session: Session, isOfUse: boolean, path: Path, now: Millis): void {
    if (!isOfUse || !samePath(path, session.path)) return this.drop('ike.unknownSpi')
    this.drop('ike.hint')
    session.hint(now)
  }

  private reply(bytes: Uint8Array, path: Path): void {
    if (this.replies.length < MAX_REPLIES) this.replies.push({ bytes, path })
    else this.drop('ike.replyQueueFull')
  }

  private drop(reason: string): void {
    // text-lookup: made without a prototype
    this.counters.drops[reason] = (this.counters.drops[reason] ?? 0) + 1
  }

  // --- time ---

  nextTimeout(): Millis {
    this.catchUp()
    return this.schedule.next()
  }

  handleTimeout(now: Millis): void {
    this.catchUp()
    for (;;) {
      const session = this.schedule.first()
      if (session === undefined || session.dueAt > now) return
      session.handleTimeout(now)
      // It has been silent.
      session.forget()
      this.touch(session, now)
      // A deadline that did not move is asked again a moment later instead of spinning here.
      if (session.heapIndex >= 0 && session.dueAt <= now) this.schedule.update(session, now + 1)
    }
  }

  /** As `touch`, but before it is asked for, or something happens to another session. */
  private touchSoon(session: Session, now: Millis): void {
    if (session !== this.unsettled) this.settle()
    this.unsettled = session
    this.unsettledAt = now
    this.active.add(session)
  }

  /** From here on there are events of what was to be carried on. */
  private settle(): void {
    const { unsettled } = this
    if (unsettled === undefined) return
    this.unsettled = undefined
    unsettled.settle(this.unsettledAt)
    if (unsettled === this.unnoted) return
    this.noteLast()
    this.unnoted = unsettled
  }

  private noteLast(): void {
    if (this.unnoted !== undefined) this.note(this.unnoted, this.unsettledAt)
  }

  private catchUp(): void {
    this.settle()
    this.noteLast()
  }

  /** What input or a command changed in a session is carried on, and its deadline and turn are noted. */
  private touch(session: Session, now: Millis): void {
    session.settle(now)
    this.note(session, now)
    this.active.add(session)
  }

  private note(session: Session, now: Millis): void {
    if (session === this.unnoted) this.unnoted = undefined
    if (session.isEmpty) return this.forget(session)
    this.sessions.renew(session)
    // Between datagrams it is idle, from the last one on.
    if (session.takeDatagrams()) this.up.noteUse(session, true, now)
    this.up.noteUse(session, !session.isIdle, now)
    this.schedule.update(session, session.nextTimeout())
  }

  private forget(session: Session): void {
    if (session === this.unsettled) this.unsettled = undefined
    this.schedule.remove(session)
    this.sessions.delete(session)
    if (session.stack !== undefined) this.stacks.delete(session.stack)
    this.leave(session)
    if (session === this.speaker) this.speaker = undefined
    if (session === this.lastSender) this.lastSender = undefined
    this.questions.forget(session)
  }

  // --- output ---

  /** Writes the next datagram into `packet`; undefined when there is nothing to send now. */
  pollTransmit(packet: Packet, now: Millis): Path | undefined {
    this.settle()
    // Strangers and sessions take turns, so that neither keeps the other waiting.
    this.isStrangersTurn = !this.isStrangersTurn
    return this.isStrangersTurn
      ? (this.pollReply(packet) ?? this.pollSessions(packet, now))
      : (this.pollSessions(packet, now) ?? this.pollReply(packet))
  }

  private pollReply(packet: Packet): Path | undefined {
    const reply = this.replies.shift()
    if (reply === undefined) return undefined
    writeIkeDatagram(packet, reply.bytes, reply.path.isUnmarked)
    this.counters.datagramsOut++
    return reply.path
  }

  private pollSessions(packet: Packet, now: Millis): Path | undefined {
    for (let session = this.active.first; session; session = this.active.first) {
      const path = session.pollTransmit(packet, now)
      if (path !== undefined) {
        // A session with much to send does not keep others waiting.
        this.active.rotate()
        this.counters.datagramsOut++
        this.lastSender = session
        return path
      }
      this.active.shift()
      this.note(session, now)
    }
    return undefined
  }

  /** Everything is sent: there is time for what the next packets need, where one session alone speaks, as it did before. */
  prepare(): void {
    const { lastSender: session, speaker } = this
    if (session === undefined) return
    this.lastSender = undefined
    if (session === speaker) return session.prepare()
    speaker?.forget()
    this.speaker = session
  }

  pollEvent(): CoreEvent | undefined {
    this.settle()
    return this.events.shift()
  }

  /** The owner of a connection hears in this turn that there is something to read. */
  noteTold(told: Connection): void {
    const connection = told as TcpConnection
    if (!connection.isUntold) return
    connection.noteTold()
    const session = this.stacks.get(connection.stack as TcpStack)
    if (session === undefined) return
    this.schedule.update(session, session.nextTimeout())
    this.active.add(session)
  }

  // --- what strangers and sessions need ---

  private makeStrangers(limits: AdmissionLimits): Strangers {
    const { environment, tracer } = this.config
    return new Strangers(limits, {
      environment,
      tracer,
      newSession: path => {
        const { policy, credentials } = this.config.responder!
        return new Session(this.sessionHost, policy, credentials, path)
      },
      adopt: session => void this.sessions.add(session),
      touch: (session, now) => this.touch(session, now),
      reply: (bytes, path) => this.reply(bytes, path),
      drop: reason => this.drop(reason),
      refused: (error, path) => {
        if (this.events.length < MAX_REPLIES)
          this.events.push({ kind: 'refused', error, identity: undefined, path })
      },
    })
  }

  private makeSessionHost(): SessionHost {
    const { config } = this
    const pool = config.responder?.policy.addressPool
    return {
      environment: config.environment,
      tracer: config.tracer,
      counters: this.counters,
      sad: this.sad,
      pool: pool === undefined ? undefined : new AddressPool(pool),
      newStack: session => {
        const { maxConnectionsPerSession, maxBufferPerSession } = session.policy.limits
        const tcp = {
          ...config.tcp,
          maxBuffered: maxBufferPerSession,
          // A client chose its server, and opens its connections itself.
          maxConnections: session.isClient ? Infinity : maxConnectionsPerSession,
        }
        const stack = new TcpStack(config.environment, tcp, this.listeners, this.memory)
        this.stacks.set(stack, session)
        return stack
      },
      newUdpStack: session => {
        const stack = new UdpStack(this.udpPorts)
        this.udpStacks.set(stack, session)
        return stack
      },
      bindIkeSa: (sa, session) => void this.sas.set(sa.ownSpi, { sa, session }),
      unbindIkeSa: sa => {
        this.sas.delete(sa.ownSpi)
        if (!(sa instanceof HalfOpen)) this.strangers?.forget(sa)
      },
      ended: (sa, now) => this.strangers?.ended(sa, now),
      joinable: (session, sa, replaces, now) => {
        this.strangers?.succeeded(sa, now)
        const { peer } = sa
        const owner =
          peer === undefined
            ? session
            : this.joined(session, peer.principal, { spiI: sa.spiI, ...sa.handshake }, replaces)
        // The answer to that handshake is its to send.
        this.active.add(owner)
        return owner
      },
      joined: (session, principal, next, replaces) =>
        this.joined(session, principal, next, replaces),
      mayEnter: (session, newcomer, now) => this.mayEnter(session, newcomer, now),
      // A client chose its server; what that may ask is bounded by the rate of its requests alone.
      pay: (session, cost, now) =>
        session.isClient ||
        (this.strangers?.admission.payInside(session.peer.principal.key, cost, now) ?? true),
      initialContact: (survivor, now) => this.initialContact(survivor, now),
      isFirstContact: ({ gateway }) => !this.clientsUp.has(gateway?.name ?? SOLE),
      holdIkeSpi: spi => void this.heldSpis.add(toHex(spi)),
      freeIkeSpi: spi => void this.heldSpis.delete(toHex(spi)),
      ownAddresses: () => this.ownAddresses,
      crashToken: (session, spiI, spiR) =>
        this.crashToken(session.credentials, spiI, spiR, session.path.remoteAddress),
      reopen: (session, attempt, now) => this.start(gatewayOf(session), attempt, true, now),
      ask: (sa, id, question) => this.ask(sa, id, question),
      emit: event => this.emit(event),
      drop: reason => this.drop(reason),
    }
  }

  private ask(sa: IkeSa | HalfOpen, id: number, question: Question): void {
    const session = this.sas.get(sa.ownSpi)?.session
    if (session === undefined) throw errorOf('BUG', { what: 'A question of an unknown IKE SA' })
    const number = this.questions.add({ sa, session, id })
    this.events.push({ kind: 'question', id: number, question, of: session.gateway?.context })
  }

  /** The session that a peer goes on with, having proved that it is the same one, and by the same proof. */
  private joined(
    session: Session,
    principal: Principal,
    next: NewSa,
    replaces: readonly Uint8Array[],
  ): Session {
    for (const proof of replaces) {
      const old = this.findPredecessor(proof)
      if (
        old?.session.isEstablished === true &&
        samePrincipal(old.session.peer.principal, principal) &&
        isSuccession(old.sa, next, proof)
      )
        return old.session
    }
    return session
  }

  private mayEnter(
    session: Session,
    { principal, sa, replaced, isRestarted }: Newcomer,
    now: Millis,
  ): boolean {
    const { key } = principal
    const own = this.up.of(key)
    if (isRestarted && own.size > 0) return true
    if (this.joined(session, principal, sa, replaced) !== session) return true
    const place = this.up.place(key, session.policy.limits, now)
    if (place.kind === 'instead') {
      this.up.noteLeaving(place.of)
      place.of.close(now)
      this.touch(place.of, now)
    } else if (place.kind === 'none') this.probe(own, now)
    return place.kind !== 'none'
  }

  /** Some of those may be of a peer that is gone. */
  private probe(sessions: Iterable<Session>, now: Millis): void {
    let left = MAX_PROBED
    for (const session of sessions) {
      if (left-- === 0) return
      session.probe(now)
      this.touch(session, now)
    }
  }

  /** The SA that the proof names, as long as its keys are in use. Either SPI may be the one that we chose. */
  private findPredecessor(proof: Uint8Array): { sa: IkeSa; session: Session } | undefined {
    const spis = claimedPredecessor(proof)
    if (spis === undefined) return undefined
    for (const spi of [spis.spiR, spis.spiI]) {
      const found = this.sas.get(toHex(spi))
      if (found === undefined || found.sa instanceof HalfOpen || found.sa.state === 'closed')
        continue
      const { sa, session } = found
      if (equal(sa.spiI, spis.spiI) && equal(sa.spiR, spis.spiR)) return { sa, session }
    }
    return undefined
  }

  /**
   * RFC 7296 §2.4: the peer says that it has restarted. Where nobody else can prove that identity in that way, its
   * older SAs have ended, and their sockets are told; where others can, those are only asked.
   */
  private initialContact(survivor: Session, now: Millis): void {
    const { isBound, key } = survivor.peer.principal
    const others = [...this.up.of(key)].filter(other => other !== survivor)
    if (!isBound) return this.probe(others, now)
    for (const other of others) {
      other.abandon(errorOf('PEER_RESTARTED', {}), now)
      this.touch(other, now)
    }
  }

  private emit(event: CoreEvent): void {
    if (event.kind === 'sessionUp') this.noteUp(event.session as Session)
    if (event.kind === 'sessionDown') this.noteDown(event.session as Session)
    if (event.kind === 'readable' && this.isToldLast(event.connection)) return
    this.events.push(event)
  }

  /** Its owner, who reads all that there is, will hear so without another event. */
  private isToldLast(connection: Connection): boolean {
    const last = this.events.at(-1)
    return last?.kind === 'readable' && last.connection === connection
  }

  /** What its peer had proved by then counts. A session that we opened takes nobody's place. */
  private noteUp(session: Session): void {
    if (!session.isClient) return this.up.add(session, session.peer.principal.key)
    const { gateway: { name = SOLE } = {}, ownKey } = session
    addTo(this.clientsUp, name, session)
    if (ownKey === 0 || this.ownKeys.size >= MOST_OWN_KEYS) this.ownKeys.delete(name)
    else this.ownKeys.set(name, ownKey)
  }

  private noteDown(session: Session): void {
    this.up.delete(session)
    removeFrom(this.clientsUp, session.gateway?.name ?? SOLE, session)
  }
}

/** Where it is reached now. */
const gatewayOf = ({ gateway, policy, credentials, path }: Session): Gateway => ({
  ...gateway,
  policy,
  credentials,
  path,
})

/** Of a message to us: the SPI that we chose, as a key. */
const ownSpiOf = ({ originalInitiator, spiI, spiR }: IkeHeader): string =>
  toHex(originalInitiator ? spiR : spiI)

/** An IKE_SA_INIT request of an initiator that knows no SPI of ours yet (RFC 7296 §3.1). */
const isFirstMessage = (message: Uint8Array): boolean =>
  message.length >= IKE_HEADER_LENGTH &&
  message[18] === ExchangeType.IkeSaInit &&
  (message[19]! & 0x28) === 0x08 &&
  getU32(message, 8) === 0 &&
  getU32(message, 12) === 0
