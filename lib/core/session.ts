/**
 * One session with a peer: its IKE SAs, the ESP SA pairs they negotiated, and the TCP stack that runs over
 * them. It joins a `ChildSa` of IKE with the `EspSaPair` that carries its packets, and routes each segment
 * to the SA whose selectors cover it.
 */
import { errorOf, noteOf, OUTSIDE } from '../base/error-table.ts'
import { formatAddress } from '../base/address.ts'
import { equal, toHex } from '../base/bytes.ts'
import type { Environment, Millis } from '../base/environment.ts'
import {
  PeerRefusedError,
  socketError,
  UnreachablePeerError,
  type IpsecError,
} from '../base/errors.ts'
import type { Packet } from '../base/packet.ts'
import { samePath, type Path } from '../base/path.ts'
import { ZERO } from '../base/real.ts'
import type { NewSa } from '../ike/succession.ts'
import type { Principal } from '../identity/principal.ts'
import type { InLine } from '../base/line.ts'
import type { Scheduled } from '../base/schedule.ts'
import type { Tracer } from '../base/trace.ts'
import { EspSaPair } from '../esp/esp-sa.ts'
import { Drop, dropName } from '../esp/inbound-sa.ts'
import type { Sad } from '../esp/sad.ts'
import type { ChildSa } from '../ike/child-sa.ts'
import type {
  ChildRequest,
  ExchangeMeasures,
  KeyTurn,
  IkeSaConfig,
  Newcomer,
  PeerFacts,
  Question,
  PacketSizes,
} from '../ike/exchange.ts'
import { HalfOpen, type HalfOpenOutput } from '../ike/half-open.ts'
import type { IkeSa, IkeSaOutput } from '../ike/ike-sa.ts'
import { RequestRate } from '../ike/request-rate.ts'
import { drawLifetime } from '../policy/lifetime.ts'
import type { PeerPolicy } from '../policy/options.ts'
import { isLoopback } from '../policy/inner-addresses.ts'
import { covers, formatSelector, singleHost } from '../policy/traffic-selectors.ts'
import type { TcpStack } from '../tcp/stack.ts'
import type { UdpFlow, UdpStack } from '../udp/stack.ts'
import { BLOCK_HEADER, blockEnd, isBundle, writeBlockHeader } from '../wire/bundle.ts'
import { writeIkeDatagram } from '../wire/encapsulation.ts'
import type { IkeHeader } from '../wire/ike-header.ts'
import { IPV6_HEADER_LENGTH, prependIpHeader } from '../wire/ip.ts'
import { NO_FEATURES, type Features } from '../wire/own-features.ts'
import { IpProtocol } from '../wire/registry.ts'
import { UDP_HEADER_LENGTH } from '../wire/udp.ts'
import { Attempts, faultOf, type AttemptHost, type Begun } from './attempts.ts'
import { hostRequest, requestsOf, type RequestContext } from './child-request.ts'
import { ChildTable, volumeOf, type Child as ChildOf, type InnerFlow } from './child-table.ts'
import type { Attempt, ChildInfo, CoreCounters, CoreEvent, SessionInfo } from './events.ts'
import { handleInner } from './inner-packets.ts'
import { Lineage } from './lineage.ts'
import { Paths } from './paths.ts'
import { SegmentSizes } from './segment-sizes.ts'
import { Silence } from './silence.ts'

const NAT_KEEPALIVE = Uint8Array.of(0xff)
const IP_TCP = IpProtocol.Tcp
/** Ours: hints that prove nothing make us ask no more often than this. */
const HINT_INTERVAL: Millis = 5000
/** Ours: what TCP repeats makes us ask no more often than this. */
const EARLY_PROBES: Millis = 1000
/** Ours: inner packets of no more octets share an ESP packet, since a larger one costs more to move than it saves. */
const SMALL = 512
/** Ours: octets of those that share one, so that the peer begins before all is sealed. */
const MOST_IN_BUNDLE = 8192
/** Of IPv6 and TCP. */
const MOST_HEADERS = IPV6_HEADER_LENGTH + 60

export type Child = ChildOf<Session>
type Refused = CoreEvent & { kind: 'refused' }

/** For what a client opened a session: the owner's name for it, and whatever questions are to carry. */
export interface SessionGateway {
  readonly name?: string | undefined
  readonly context?: unknown
}

/** What a session needs from the core it lives in. */
export interface SessionHost {
  readonly environment: Environment
  readonly tracer: Tracer
  readonly counters: Readonly<CoreCounters>
  readonly sad: Sad<Child>
  newStack(session: Session): TcpStack
  newUdpStack(session: Session): UdpStack
  bindIkeSa(sa: IkeSa | HalfOpen, session: Session): void
  unbindIkeSa(sa: IkeSa | HalfOpen): void
  /** It has failed or is closed, and may still repeat its last answer. */
  ended(sa: IkeSa, now: Millis): void
  /** A responder's SA was authenticated: the session it belongs to, which may be one that exists. */
  joinable(session: Session, sa: IkeSa, replaces: readonly Uint8Array[], now: Millis): Session
  /** The session that a new SA of that principal joins; the given one when none is. */
  joined(
    session: Session,
    principal: Principal,
    next: NewSa,
    replaces: readonly Uint8Array[],
  ): Session
  /** There is a place for that peer, whose session is not up yet. */
  mayEnter(session: Session, newcomer: Newcomer, now: Millis): boolean
  /** The peer may have us compute for so long. */
  pay(session: Session, cost: Millis, now: Millis): boolean
  /** Other SAs of that identity are leftovers of a restarted peer (RFC 7296 §2.4). */
  initialContact(survivor: Session, now: Millis): void
  /** No session is up. */
  isFirstContact(session: Session): boolean
  /** An IKE SA that will have that SPI is under way. */
  holdIkeSpi(spi: Uint8Array): void
  freeIkeSpi(spi: Uint8Array): void
  ownAddresses(): readonly Uint8Array[]
  /** Our token for the session's IKE SA with those SPIs (RFC 6290). */
  crashToken(session: Session, spiI: Uint8Array, spiR: Uint8Array): Uint8Array | undefined
  /** The SA ended under an attempt that had only waited: it begins again with a new one. */
  reopen(session: Session, attempt: Attempt, now: Millis): void
  ask(sa: IkeSa | HalfOpen, id: number, question: Question): void
  emit(event: CoreEvent): void
  drop(reason: string): void
  readonly pool: IkeSaConfig['pool']
}

export class Session implements AttemptHost, Scheduled, InLine<Session> {
  dueAt: Millis = Infinity
  heapIndex = -1
  preceding: Session | undefined
  following: Session | undefined
  isInLine = false
  /** Messages of IKE that have come to its SAs. */
  heard = 0
  readonly credentials: IkeSaConfig['credentials']
  /** Undefined: the peer opened it. */
  readonly gateway: SessionGateway | undefined
  /** Where the peer was at first. */
  readonly gatewayAddress: Uint8Array
  private readonly host: SessionHost
  private readonly lineage: Lineage
  private readonly paths: Paths
  private readonly children: ChildTable<Session>
  private readonly attempts: Attempts
  private tcp: TcpStack | undefined
  private udp: UdpStack | undefined
  private hasDatagrams = false
  private usesDatagrams = false
  private prepared: Child | undefined
  /** TCP and UDP take turns. */
  private isUdpTurn = false
  private sizes: SegmentSizes | undefined
  /** The moves of the path that those know of. */
  private sizedMoves = 0
  private idleAt: Millis = Infinity
  private childRekeys = 0
  private announced = false
  private closing = false
  /** When something that proves nothing said last that the peer has lost its SAs. */
  private hintedAt: Millis = -Infinity
  /** When TCP last had reason to ask. */
  private probedAt: Millis = -Infinity
  /** Of the request under way, as far as others know. */
  private toldTimes = 0
  private nextTicket = 1
  private readonly requestRate = new RequestRate()
  private readonly measures: ExchangeMeasures = { retransmissions: 0, roundTrip: undefined }
  private readonly keyTurn: KeyTurn = { at: 0, of: 1, isRefused: false }
  /** In a row, of the pre-shared keys by which we can prove ourselves. */
  private refusedKeys = 0
  private replayed = 0
  private failedIcvs = 0
  /** When it came up, in Unix milliseconds. */
  private createdAt = ZERO
  /** Why an SA could not be renewed, until one was or a new one is up. */
  private unrenewed: Error | undefined
  private rekeyRefusal: SessionInfo['rekeyRefusal']
  /** A Child SA has gone, and nothing may carry its connections now. */
  private hasLoss = false
  private hasWarned = false
  /** What has come since the first request; undefined: this end has accepted the session. */
  private silence: Silence | undefined

  constructor(
    host: SessionHost,
    policy: PeerPolicy,
    credentials: IkeSaConfig['credentials'],
    path: Path,
    gateway?: SessionGateway,
  ) {
    this.host = host
    this.gateway = gateway
    this.gatewayAddress = path.remoteAddress
    this.credentials = credentials
    this.lineage = new Lineage(policy)
    this.paths = new Paths(this.lineage, path)
    this.children = new ChildTable(host.sad)
    this.attempts = new Attempts(this)
  }

  // --- what others see ---

  get policy(): PeerPolicy {
    return this.lineage.policy
  }

  /** Of the peer, once it has proved who it is. */
  get facts(): PeerFacts | undefined {
    return this.lineage.facts
  }

  /** What the peer can do inside the SAs, if it is this package too. */
  get peerFeatures(): Features {
    return this.facts?.features ?? NO_FEATURES
  }

  /** A right checksum may look wrong. Our own ends speak of a NAT in any case, and say the same again in other segments. */
  private get hasNat(): boolean {
    if (this.facts?.isOurs === true) return false
    return this.paths.localBehindNat || this.paths.remoteBehindNat
  }

  get claimedAddress(): Uint8Array | undefined {
    const newest = this.children.inUse[0]
    return newest && singleHost(newest.sa.remoteSelectors)
  }

  addressOf(claimed: Uint8Array): Uint8Array {
    const given = this.peer.assignedAddresses.some(address => equal(address, claimed))
    const allowed = covers(this.policy.remoteTs ?? [], claimed, 0, 0)
    const outer = this.path.remoteAddress
    const isLocal = isLoopback(claimed) && isLoopback(outer)
    return given || allowed || isLocal ? claimed : outer
  }

  get peer(): PeerFacts {
    return this.facts!
  }

  /** Where the peer is now. */
  get path(): Path {
    return this.paths.current
  }

  /** The peer may have moved, or has proved that it did: its SAs and its TCP follow. */
  private followPath(now: Millis): void {
    if (this.isOver) return
    for (const sa of this.lineage.sas) sa.followPlace(now)
    const sa = this.lineage.current
    // What was asked before may have gone elsewhere too, so it proves nothing.
    if (this.paths.needsAnswer && sa !== undefined && sa.busyWith === undefined) sa.probe(now)
    this.noteMoves()
    if (this.paths.takeNew()) this.tcp?.pathChanged(now)
  }

  /** What fits through belongs to the place. */
  private noteMoves(): void {
    if (this.paths.moves === this.sizedMoves) return
    this.sizedMoves = this.paths.moves
    this.sizes?.refresh()
  }

  /**
   * Our own ends, and a tunnel to an address that the peer gave us, do not depend on our address. In transport mode,
   * or in a tunnel to the very address that we had, its connections are of that address (RFC 4555 §1.2).
   */
  get canMove(): boolean {
    if (this.facts === undefined || this.facts.isOurs) return true
    const { localAddress } = this.path
    return this.children.inUse.every(
      ({ sa, localHost }) => sa.mode === 'tunnel' && !equal(localHost, localAddress),
    )
  }

  /** We send by another path now: it is tried at once, by requests that wait and by what TCP has under way. */
  reroute(path: Path, now: Millis): void {
    if (this.isOver) return
    const { canMove } = this
    this.paths.reroute(path)
    this.lineage.opening?.followPlace(now)
    this.followPath(now)
    if (canMove) return
    this.reopenAttempts('all', now)
    this.closeNow(now)
    this.tcp?.abortAll('ECONNRESET', false)
  }

  /** Where else the peer may be, when it does not answer (RFC 4555 §3.4). */
  get otherAddresses(): readonly Uint8Array[] {
    return this.facts?.mobike === true ? this.paths.others : []
  }

  /** The peer is looked for at another of its addresses. */
  tryPath(path: Path, now: Millis): void {
    if (this.isOver || this.facts?.mobike !== true) return
    this.paths.tryPath(path, now)
    this.followPath(now)
  }

  announceAddresses(now: Millis): void {
    this.lineage.current?.announceAddresses(now)
  }

  /** The way may be open: what is unanswered is asked at once, and TCP sends when the answer comes. */
  seekPeer(now: Millis): void {
    this.paths.seek()
    this.lineage.opening?.followPlace(now)
    for (const sa of this.lineage.sas) sa.renew(now)
  }

  /** Nothing of it is left, not even an SA that repeats its last answer. */
  get isEmpty(): boolean {
    return this.lineage.isEmpty
  }

  get isOver(): boolean {
    return this.lineage.isOver
  }

  get isClient(): boolean {
    return this.lineage.isClient
  }

  get isEstablished(): boolean {
    return this.lineage.isEstablished
  }

  get connectionCount(): number {
    return this.tcp?.connectionCount ?? 0
  }

  get stack(): TcpStack | undefined {
    return this.tcp
  }

  info(now: Millis = this.lineage.current?.lastHeardAt ?? 0): SessionInfo {
    const { facts, path } = this
    const sa = this.lineage.current
    const wall = this.host.environment.wallClock()
    const atWall = (at: Millis): number => Math.round(wall + at - now)
    const upcoming = (at: Millis | undefined): number | undefined =>
      at === undefined || at === Infinity ? undefined : atWall(at)
    return {
      state: sa?.state ?? 'closed',
      spiI: sa === undefined ? '' : toHex(sa.spiI),
      spiR: sa === undefined ? '' : toHex(sa.spiR),
      ikeSuite: facts?.ikeSuite ?? '',
      localIdentity: facts?.localIdentityText ?? '',
      remoteIdentity: facts?.identityText ?? '',
      localBehindNat: this.paths.localBehindNat,
      remoteBehindNat: this.paths.remoteBehindNat,
      natKeepalive: this.paths.keepaliveInterval,
      createdAt: this.createdAt,
      lastHeardAt: sa === undefined ? this.createdAt : atWall(sa.lastHeardAt),
      rekeyAt: upcoming(sa?.rekeyAt),
      expiresAt: upcoming(sa?.expiresAt),
      roundTrip: this.measures.roundTrip,
      path: {
        localAddress: formatAddress(path.localAddress),
        localPort: path.localPort,
        remoteAddress: formatAddress(path.remoteAddress),
        remotePort: path.remotePort,
      },
      ikeRetransmissions: this.measures.retransmissions,
      replayed: this.replayed,
      failedIcvs: this.failedIcvs,
      ...this.children.volume,
      sockets: this.tcp?.connectionCount ?? 0,
      ikeRekeys: this.lineage.rekeys,
      childRekeys: this.childRekeys,
      rekeyRefusal: this.rekeyRefusal,
      detectsCrash: sa?.crashTokens.isEmpty === false,
      fragmentSize: sa?.fragmentSize ?? this.policy.fragmentSize,
      mtu: facts === undefined ? 0 : this.paths.sizes.limit,
      receivableMtu: facts === undefined ? 0 : this.paths.receivable,
      validUntil:
        facts === undefined || facts.validUntil === Infinity ? undefined : facts.validUntil,
      children: this.children.inUse.map(childInfo),
    }
  }

  // --- commands ---

  ping(ticket: number, sizes: PacketSizes | undefined, now: Millis): boolean {
    const sa = this.lineage.current
    return sa?.state === 'established' && sa.ping(ticket, sizes, now)
  }

  rekeyIke(now: Millis): void {
    this.lineage.current?.rekeyIke(now)
  }

  rekeyChild(now: Millis): void {
    for (const child of this.children.inUse) {
      this.ownerOf(child)?.rekeyChild(child.sa.inboundSpi, now)
    }
  }

  /** A new IKE SA with the same Child SAs; the old one goes when they are up (RFC 7296 §2.8.3). */
  reauthenticate(now: Millis): void {
    if (this.lineage.isRenewing || this.closing || !this.isEstablished) return
    const requests = requestsOf(this.children.inUse, this.policy)
    const first = this.policy.childless === 'force' ? undefined : requests.shift()
    const sa = new HalfOpen(this.saConfig(), this.path, first && (() => first), now)
    this.lineage.renewBy(sa, first !== undefined, requests)
    this.addSa(sa)
  }

  close(now: Millis): void {
    this.lineage.close(now)
  }

  /** Octets of the largest payload of a datagram that is sent. */
  get datagramLimit(): number {
    return this.children.segmentLimit(this.paths.datagramLimit) - UDP_HEADER_LENGTH
  }

  /** A Child SA carries datagrams between these ends. */
  carries(flow: UdpFlow): boolean {
    return !this.isOver && this.children.isCovered(flow)
  }

  /** False: too many wait. A datagram that is larger than `datagramLimit` is the caller's mistake. */
  sendDatagram(flow: UdpFlow, payload: Uint8Array): boolean {
    this.noteDatagram()
    return this.udp?.send(flow, payload) === true
  }

  /** Deletes the SAs without waiting for anything: this process ends. */
  closeNow(now: Millis): void {
    this.lineage.closeNow(now)
  }

  /** Deletes the SAs as soon as TCP has delivered what was written. */
  closeWhenDone(now: Millis): void {
    this.closing = true
    if (this.connectionCount === 0) this.close(now)
  }

  /** The same, but only where all that TCP waits for is that the peer ends its half too. */
  closeAbandoned(now: Millis): void {
    if (this.tcp?.isAwaited !== true) this.close(now)
  }

  /** Drops everything without a word to the peer, which is gone or replaced. */
  abandon(error: Error, now: Millis): void {
    for (const sa of this.lineage.all) sa.abandon(error, now)
  }

  /** Starts a responder's SA, which `IkeSa.respond` made. */
  accept(sa: IkeSa): void {
    this.addSa(sa)
  }

  /** Receives the SA of a peer that turned out to be this one, reauthenticating. */
  adopt(from: Session, sa: IkeSa, facts: PeerFacts, now: Millis): void {
    this.paths.adopt(from.paths)
    this.addSa(sa)
    this.noteFacts(facts)
    this.lineage.policy = sa.config.policy
    // From here on it counts with the other SAs of this session.
    sa.config = { ...this.saConfig(), credentials: sa.config.credentials }
    this.lineage.trim(now)
    this.followPath(now)
  }

  disown(sa: IkeSa): void {
    this.lineage.disown(sa)
  }

  connect(attempt: Attempt, isSecond: boolean, now: Millis): void {
    this.attempts.add(attempt, isSecond)
    if (this.isOver) this.initiate(now)
    else this.attempts.advance(now)
  }

  /** It may be gone: a hint said so, or it does not answer, and nothing authentic came since. */
  get mayBeGone(): boolean {
    const sa = this.lineage.current
    if (sa === undefined || this.facts === undefined) return false
    return sa.isUnanswered || this.hintedAt > sa.lastHeardAt + JUST_HEARD
  }

  /** Gives up an attempt, or the connection it became; nothing is reported for it. */
  cancel(attempt: Attempt, now: Millis): void {
    const hadWaited = this.attempts.cancel(attempt)
    // Nobody waits for this handshake any more.
    if (hadWaited && this.facts === undefined && this.attempts.noneWaits) this.close(now)
  }

  /** Nothing listens at the peer's UDP port. For an SA that is up it is only a reason to ask. */
  handleRefusal(now: Millis): void {
    if (this.facts !== undefined) return this.hint(now)
    this.lineage.opening?.noteUnreachable(this.pathError('ECONNREFUSED'), now)
  }

  /** The system has no way for a datagram, as `code` says. */
  handleNoWay(code: string, now: Millis): void {
    if (this.facts !== undefined) {
      if (code === 'EMSGSIZE') this.sizes?.noteTooBig(now)
      return this.probe(now)
    }
    const error = this.pathError(code)
    // The system has learned what fits through, and cuts the repetition into fragments.
    if (code === 'EMSGSIZE') this.lineage.opening?.noteUnreachable(error, now)
    else this.lineage.opening?.abandon(error, now)
  }

  private pathError(code: string): Error {
    const { remoteAddress, remotePort } = this.path
    const address = formatAddress(remoteAddress)
    const note = noteOf(OUTSIDE, code, remoteAddress.length)
    return socketError({ code, syscall: 'connect', address, port: remotePort, note })
  }

  /**
   * No late segment comes when the SA is gone: whoever only waits for some need not keep it. Our own ends take its Delete
   * for the ACK that their FIN may lack; others would repeat it, and find no SA.
   */
  get isIdle(): boolean {
    const { attempts, tcp, facts } = this
    if (!attempts.noneWaits) return false
    return tcp === undefined || (tcp.isEmpty && (facts?.isOurs === true || !tcp.remembers))
  }

  // --- input ---

  handleIke(sa: IkeSa | HalfOpen, message: Uint8Array, path: Path, now: Millis): void {
    this.heard++
    sa.handleMessage(message, path, now)
    this.followPath(now)
    if (this.paths.takeRevived()) this.tcp?.retryNow(now)
    this.attempts.advance(now)
  }

  /** As {@link hint}, of an SA whose handshake is not done. */
  noteUnknown(sa: HalfOpen, header: IkeHeader, path: Path, now: Millis): void {
    if (samePath(path, this.path)) sa.noteUnknown(header, now)
  }

  /** One ESP packet for a child of ours, which may have ended. */
  handleEsp(child: Child, packet: Uint8Array, path: Path, now: Millis): void {
    const { inbound } = child.pair
    this.handleOpened(child, inbound.open(packet, 0, packet.length), packet.length, path, now)
    inbound.done()
  }

  private handleOpened(child: Child, drop: Drop, length: number, path: Path, now: Millis): void {
    const { inbound } = child.pair
    // A dummy packet is as genuine as any other.
    const isGenuine = drop === Drop.None || drop === Drop.Dummy
    if (!this.isOver && isGenuine) {
      for (const sa of this.lineage.sas) sa.noteInbound(child.sa.inboundSpi, now)
      if (child.removeAt === Infinity) this.children.setOutbound(child, child.sa.outboundReady)
      this.attempts.advance(now)
      // RFC 7296 §2.23: the newest authenticated packet, and no replay, tells where the peer is now.
      if (inbound.newest && child.removeAt === Infinity) {
        this.paths.noteNewest(path, length, now)
        this.followPath(now)
      }
    }
    if (drop === Drop.Replay) this.replayed++
    else if (drop === Drop.Icv) this.failedIcvs++
    if (drop !== Drop.None) return this.host.drop(dropName(drop))
    if (child.pair.lifetimeState() !== 'ok') this.expire(child, now)
    const { plaintext, payloadLength, nextHeader } = inbound
    if (nextHeader === IpProtocol.Experiment && this.peerFeatures.has('bundle'))
      this.handleBundle(child, plaintext, payloadLength, path, now)
    else this.handlePayload(child, plaintext, 0, payloadLength, nextHeader, path, now)
    if (this.paths.takeRevived()) this.tcp?.retryNow(now)
  }

  /** Each block is taken as if it had come alone. */
  private handleBundle(
    child: Child,
    bytes: Uint8Array,
    length: number,
    path: Path,
    now: Millis,
  ): void {
    if (!isBundle(bytes, length)) return this.host.drop('esp.bundle')
    for (let at = 0; at < length; at = blockEnd(bytes, at)) {
      const from = at + BLOCK_HEADER
      this.handlePayload(child, bytes, from, blockEnd(bytes, at), bytes[at + 2]!, path, now)
    }
  }

  private handlePayload(
    child: Child,
    bytes: Uint8Array,
    from: number,
    to: number,
    nextHeader: number,
    path: Path,
    now: Millis,
  ): void {
    const { hasNat, tcp, udp } = this
    const outer = path.remoteAddress
    const reason = handleInner(child, bytes, from, to, nextHeader, outer, hasNat, tcp, udp, now)
    if (reason !== undefined) this.host.drop(reason)
  }

  // --- time ---

  nextTimeout(): Millis {
    return Math.min(
      this.tcp?.nextTimeout() ?? Infinity,
      this.idleAt,
      this.paths.deadline,
      this.children.nextTimeout(),
      this.lineage.nextTimeout(),
    )
  }

  handleTimeout(now: Millis): void {
    this.paths.handleTimeout(now)
    this.followPath(now)
    if (this.paths.takeKeepaliveCheck(now)) this.probe(now)
    this.lineage.handleTimeout(now)
    this.noteUnanswered()
    if (this.tcp !== undefined && this.tcp.nextTimeout() <= now) this.tcp.handleTimeout(now)
    if (this.tcp?.takeDoubt() === true) this.probeEarly(now)
    this.leaveInDoubt(now)
    this.children.handleTimeout(now)
    if (this.idleAt <= now) {
      this.idleAt = Infinity
      if (this.isIdle) this.close(now)
    }
  }

  // --- output ---

  /** The next datagram, built in `packet`; undefined when there is none. */
  pollTransmit(packet: Packet, now: Millis): Path | undefined {
    // A reset goes before the Delete of the SA that carries it.
    const reset = this.tcp?.hasResets === true ? this.pollSegment(packet, now) : undefined
    const path =
      reset ??
      this.pollIke(packet) ??
      this.pollSegment(packet, now) ??
      this.pollKeepalive(packet, now)
    if (path !== undefined) this.paths.noteSent(path, packet.length, now)
    return path
  }

  private pollIke(packet: Packet): Path | undefined {
    for (const sa of this.lineage.all) {
      let isHeldBack = false
      for (let next = sa.pollTransmit(); next !== undefined; next = sa.pollTransmit()) {
        const { bytes, octets, path } = next
        if (octets > 0) isHeldBack = octets > this.paths.allowance && samePath(path, this.path)
        if (isHeldBack) {
          // As if it were lost: it is repeated, and by then more has come from there or it is proved.
          this.host.drop('path.onTrial')
          continue
        }
        writeIkeDatagram(packet, bytes, path.isUnmarked)
        return path
      }
    }
    return undefined
  }

  private pollKeepalive(packet: Packet, now: Millis): Path | undefined {
    if (this.paths.keepaliveAt > now) return undefined
    packet.reset()
    packet.bytes.set(NAT_KEEPALIVE, packet.append(1))
    return this.path
  }

  private pollSegment(packet: Packet, now: Millis): Path | undefined {
    // TCP would take what is not sent for lost, so it is not even asked.
    if (this.tcp === undefined || this.children.isExhausted) return undefined
    if (this.paths.dataAllowance < this.paths.datagramLimit) return undefined
    // In a tunnel what comes behind the peer may look at the checksum; the ICV ends before that.
    this.tcp.omitsChecksum =
      this.tcp.peerFeatures.has('no-checksum') && this.children.isTransportOnly
    for (;;) {
      packet.reset()
      this.isUdpTurn = !this.isUdpTurn
      const flow = this.pollFlow(packet, now)
      if (flow === undefined) return undefined
      const { protocol = IP_TCP } = flow
      const child = this.children.route(flow)
      if (child === undefined) {
        // TCP sends the segment again; by then the Child SA that this asks for is there.
        this.host.drop(protocol === IP_TCP ? 'tcp.noSa' : 'udp.noSa')
        this.requestChildFor(flow, now)
        continue
      }
      let nextHeader = prependInnerIp(packet, child, flow)
      if (packet.length <= SMALL && this.peerFeatures.has('bundle'))
        nextHeader = this.gather(packet, child, nextHeader, now)
      if (!child.pair.outbound.seal(packet, nextHeader)) {
        this.host.drop('esp.exhausted')
        this.expire(child, now)
        continue
      }
      if (child.pair.lifetimeState() !== 'ok') this.expire(child, now)
      const sa = this.lineage.current
      if (sa === undefined) return undefined
      sa.noteOutbound(now)
      return this.path
    }
  }

  /**
   * Small packets that are ready for the same SA join the one in `packet`, as far as the path takes them. Returns the next
   * header of the whole.
   */
  private gather(packet: Packet, child: Child, nextHeader: number, now: Millis): number {
    const { start, end: firstEnd } = packet
    const most = Math.min(child.pair.payloadLimit(this.paths.datagramLimit), MOST_IN_BUNDLE)
    const limit = start - BLOCK_HEADER + most
    let end = firstEnd
    const joins = (flow: InnerFlow, octets: number): boolean =>
      octets <= SMALL &&
      end + BLOCK_HEADER + MOST_HEADERS + octets <= limit &&
      this.children.route(flow) === child
    for (;;) {
      // How long its headers are is known when they are written, before its data: then it is moved to where it belongs.
      const from = end + BLOCK_HEADER + MOST_HEADERS
      packet.start = from
      packet.end = from
      const flow = this.pollFlow(packet, now, joins)
      if (flow === undefined) break
      const protocol = prependInnerIp(packet, child, flow)
      const { length } = packet
      packet.bytes.copyWithin(end + BLOCK_HEADER, packet.start, packet.end)
      writeBlockHeader(packet.bytes, end, length, protocol)
      end += BLOCK_HEADER + length
    }
    packet.start = start
    packet.end = end
    if (end === firstEnd) return nextHeader
    writeBlockHeader(packet.bytes, packet.prepend(BLOCK_HEADER), firstEnd - start, nextHeader)
    return IpProtocol.Experiment
  }

  /** Nothing is to be done now, and it speaks with its peer: what packets will need is made beforehand, if some will come. */
  prepare(): void {
    const child =
      this.connectionCount > 0 || this.usesDatagrams ? this.children.inUse[0] : undefined
    if (child !== this.prepared) this.forget()
    this.prepared = child
    child?.pair.prepare()
  }

  forget(): void {
    this.prepared?.pair.forget()
    this.prepared = undefined
  }

  /** The next packet of one of the stacks, and its ends. `mayBe`: what it has to be. */
  private pollFlow(
    packet: Packet,
    now: Millis,
    mayBe?: (flow: InnerFlow, octets: number) => boolean,
  ): InnerFlow | undefined {
    const { tcp, udp } = this
    return this.isUdpTurn
      ? (udp?.pollTransmit(packet, mayBe) ?? tcp?.pollTransmit(packet, now, mayBe))
      : (tcp?.pollTransmit(packet, now, mayBe) ?? udp?.pollTransmit(packet, mayBe))
  }

  /** Carries everything that happened to where it belongs. Called after every input and command. */
  settle(now: Millis): void {
    for (let busy = true; busy;) {
      busy = false
      for (const sa of this.lineage.all) busy = this.drain(sa, now) || busy
    }
    this.endLost(now)
    this.settleTcp()
    this.settleUdp()
    this.watchIdle(now)
    if (this.closing && this.connectionCount === 0) this.close(now)
  }

  /** False: the SA had nothing to tell. */
  private drain(sa: IkeSa | HalfOpen, now: Millis): boolean {
    let count = 0
    if (sa instanceof HalfOpen) {
      for (let output = sa.pollOutput(); output !== undefined; output = sa.pollOutput(), count++)
        this.handleOpening(sa, output, now)
    } else {
      for (let output = sa.pollOutput(); output !== undefined; output = sa.pollOutput(), count++)
        this.handleOutput(sa, output, now)
    }
    return count > 0
  }

  /** Something that an owner wrote before it let go has not arrived yet. */
  get hasUndelivered(): boolean {
    return this.tcp?.hasUndelivered ?? false
  }

  /** It is in use, although no connection is open. */
  private noteDatagram(): void {
    this.idleAt = Infinity
    this.hasDatagrams = true
    this.usesDatagrams = true
  }

  /** Datagrams have gone or come since this was asked last. */
  takeDatagrams(): boolean {
    const { hasDatagrams } = this
    this.hasDatagrams = false
    return hasDatagrams
  }

  private settleUdp(): void {
    const { udp } = this
    if (udp === undefined) return
    for (let datagram = udp.pollEvent(); datagram !== undefined; datagram = udp.pollEvent()) {
      this.noteDatagram()
      this.host.emit({ kind: 'datagram', datagram, session: this })
    }
  }

  private settleTcp(): void {
    const stack = this.tcp
    if (stack === undefined) return
    for (let event = stack.pollEvent(); event !== undefined; event = stack.pollEvent()) {
      const connection = event.connection
      switch (event.kind) {
        case 'connected': {
          const attempt = this.attempts.takeOpened(connection)
          if (attempt === undefined) break
          connection.context = attempt.context
          this.host.emit({ kind: 'connected', attempt, connection, session: this })
          break
        }
        case 'accepted':
          this.host.emit({
            kind: 'accepted',
            connection,
            port: connection.localPort,
            session: this,
          })
          break
        case 'closed': {
          const attempt = this.attempts.takeOpened(connection)
          const error =
            typeof event.error === 'string'
              ? faultOf(event.error, event.syscall, connection)
              : event.error
          if (attempt === undefined) this.host.emit({ kind: 'closed', connection, error })
          else {
            this.host.emit({
              kind: 'failed',
              attempt,
              error: error ?? faultOf('ECONNRESET', 'connect', connection),
            })
          }
          break
        }
        default:
          this.host.emit({ kind: event.kind, connection })
      }
    }
  }

  private watchIdle(now: Millis): void {
    const { idleTimeout, limits } = this.policy
    const timeout = this.lineage.isClient ? idleTimeout : limits.sessionIdleTimeout
    if (!this.isIdle || this.facts === undefined) this.idleAt = Infinity
    else if (this.idleAt === Infinity && timeout > 0) this.idleAt = now + timeout
  }

  // --- IKE's outputs ---

  private handleOpening(opening: HalfOpen, output: HalfOpenOutput, now: Millis): void {
    switch (output.kind) {
      case 'question':
        return this.host.ask(opening, output.id, output.question)
      case 'replaced':
        this.lineage.replace(opening, output.by)
        return this.host.bindIkeSa(output.by, this)
      case 'closed':
        return this.handleClosed(opening, output.error, now)
      case 'forgotten':
        return this.host.unbindIkeSa(opening)
      default:
        return output satisfies never
    }
  }

  private handleOutput(sa: IkeSa, output: IkeSaOutput, now: Millis): void {
    switch (output.kind) {
      case 'established':
        return this.handleEstablished(sa, output, now)
      case 'childInstalled':
        this.install(output, now)
        return this.lineage.noteChild(sa, output.ticket, now)
      case 'childOutbound': {
        const child = this.children.find(output.inboundSpi)
        if (child !== undefined) this.children.setOutbound(child, true)
        return
      }
      case 'childRekeyed':
        this.childRekeys++
        this.unrenewed = undefined
        return
      case 'rekeyRefused':
        return this.noteRekeyRefused(output.error)
      case 'childRemoved':
        this.hasLoss = true
        return this.children.retire(output.inboundSpi, output.linger, now)
      case 'childAbandoned':
        return this.attempts.noteChildAbandoned(output.ticket, now)
      case 'childFailed':
        return this.handleChildFailed(sa, output, now)
      case 'successor':
        this.addSa(output.sa)
        return this.lineage.trim(now)
      case 'rekeyed':
        this.unrenewed = undefined
        return this.lineage.noteRekeyed(sa, output.by)
      case 'certificateEnded':
        this.noteRekeyRefused(output.error)
        return this.resetUnlessRenewed(sa, output.error)
      case 'reauthenticate':
        // The end that accepted the SA cannot authenticate in the other's stead (§2.8.3).
        if (this.lineage.isClient) this.reauthenticate(now)
        return
      case 'initialContact':
        return this.host.initialContact(this, now)
      case 'question':
        return this.host.ask(sa, output.id, output.question)
      case 'pinged':
        return this.host.emit({
          kind: 'pinged',
          session: this,
          ticket: output.ticket,
          passage: output.passage,
        })
      case 'turnedAway':
        return this.emitRefused(output)
      case 'refused':
        return this.emitRefused({ ...output, identity: sa.peer?.identityText, path: sa.path })
      case 'closed':
        return this.handleClosed(sa, output.error, now)
      case 'forgotten':
        this.lineage.forget(sa)
        return this.host.unbindIkeSa(sa)
      default:
        return output satisfies never
    }
  }

  private emitRefused({ error, identity, path }: Omit<Refused, 'kind'>): void {
    this.host.emit({ kind: 'refused', error, identity, path })
  }

  private handleChildFailed(
    sa: IkeSa,
    { ticket, error }: IkeSaOutput & { kind: 'childFailed' },
    now: Millis,
  ): void {
    const isRenewal = this.lineage.awaits(sa, ticket)
    if (isRenewal) this.lineage.noteChild(sa, ticket, now)
    else if (this.attempts.noteChildFailed(ticket, error, now)) return
    this.unrenewed = error
    this.hasLoss = true
  }

  private noteRekeyRefused(error: IpsecError): void {
    this.unrenewed = error
    this.rekeyRefusal = { code: error.code, message: error.message }
    if (!this.hasWarned) this.host.emit({ kind: 'rekeyRefused', session: this, error })
    this.hasWarned = true
  }

  /** Connections that end with that SA hear so as they would from a kernel, before its Delete. */
  private resetUnlessRenewed(sa: IkeSa, error: IpsecError): void {
    if (this.lineage.sas.some(other => other !== sa && other.state === 'established')) return
    this.tcp?.resetAll(error)
  }

  /** Connections that no Child SA carries, now that there is no hope of another, and an IKE SA without any. */
  private endLost(now: Millis): void {
    const { unrenewed } = this
    if (!this.hasLoss || this.lineage.isRenewing) return
    this.hasLoss = false
    if (unrenewed === undefined || this.isOver) return
    this.tcp?.endWhere(flow => !this.children.isCovered(flow), unrenewed)
    if (this.children.inUse.length === 0 && this.attempts.noneWaits) this.close(now)
  }

  private handleEstablished(
    sa: IkeSa,
    { peer: facts, replaces }: IkeSaOutput & { kind: 'established' },
    now: Millis,
  ): void {
    if (!sa.originalInitiator) {
      const owner = this.host.joinable(this, sa, replaces, now)
      if (owner !== this) {
        this.disown(sa)
        owner.adopt(this, sa, facts, now)
        return owner.settle(now)
      }
    }
    this.noteFacts(facts)
    // The application may have given this peer a policy of its own.
    this.lineage.policy = sa.config.policy
    this.unrenewed = undefined
    this.openStacks()
    if (!this.announced) {
      this.announced = true
      this.createdAt = this.host.environment.wallClock()
      this.host.emit({ kind: 'sessionUp', session: this })
    }
    this.lineage.noteEstablished(sa, request => this.requestChild(sa, request, now), now)
    this.attempts.advance(now)
  }

  private install(output: IkeSaOutput & { kind: 'childInstalled' }, now: Millis): void {
    const { child: sa, keys } = output
    const path = this.path
    if (!this.lineage.isRenewing) this.unrenewed = undefined
    this.logKeys(sa, keys, path)
    const lifetime = drawLifetime(this.policy.childLifetime, this.host.environment)
    const pair = new EspSaPair({
      spiIn: sa.inboundSpi,
      spiOut: sa.outboundSpi,
      esn: sa.esn,
      replayWindow: this.policy.replayWindow,
      cipher: sa.cipher,
      inboundKeys: keys.inbound,
      outboundKeys: keys.outbound,
      backend: this.policy.backend,
      aead: this.policy.aead,
      environment: this.host.environment,
      limits: lifetime,
    })
    // Make before break: what the peer asked for is not sent on while something older will do.
    pair.outboundReady = sa.outboundReady && !(output.byPeer && this.children.hasSameRoute(sa))
    const localHost = singleHost(sa.localSelectors)
    const child: Child = {
      session: this,
      sa,
      pair,
      localHost: localHost ?? path.localAddress,
      remoteHost: singleHost(sa.remoteSelectors) ?? path.remoteAddress,
      isShared: sa.mode === 'tunnel' && localHost === undefined,
      removeAt: Infinity,
    }
    this.children.install(child)
    this.sizes ??= new SegmentSizes(this.paths, this.children, this.openStacks())
    this.sizes.refresh()
    this.attempts.noteChildInstalled(output.ticket, this.lineage.isRenewing, sa, now)
  }

  private openStacks(): TcpStack {
    this.tcp ??= this.host.newStack(this)
    this.tcp.peerFeatures = this.peerFeatures
    this.tcp.principal = this.peer.principal.key
    this.udp ??= this.host.newUdpStack(this)
    return this.tcp
  }

  /** The peer's identity, renewed with each authentication. */
  private noteFacts(facts: PeerFacts): void {
    this.lineage.facts = facts
    if (this.tcp !== undefined) this.tcp.peerFeatures = facts.features
  }

  private logKeys(
    sa: ChildSa,
    keys: (IkeSaOutput & { kind: 'childInstalled' })['keys'],
    path: Path,
  ): void {
    const { keyLog } = this.host.tracer
    if (keyLog === undefined) return
    const local = formatAddress(path.localAddress)
    const remote = formatAddress(path.remoteAddress)
    const log = (
      spi: number,
      source: string,
      destination: string,
      direction: typeof keys.inbound,
    ): void =>
      keyLog({
        kind: 'esp',
        source,
        destination,
        spi,
        ...sa.cipher,
        encryptionKey: direction.encryption.bytes,
        integrityKey: direction.integrity.bytes,
      })
    log(sa.inboundSpi, remote, local, keys.inbound)
    log(sa.outboundSpi, local, remote, keys.outbound)
  }

  private handleClosed(sa: IkeSa | HalfOpen, error: Error | undefined, now: Millis): void {
    if (this.lineage.isRenewal(sa) && this.unrenewed !== undefined && error !== undefined) {
      this.unrenewed = error
      this.hasLoss = true
    }
    this.lineage.end(sa, now)
    if (!(sa instanceof HalfOpen)) {
      this.host.ended(sa, now)
      this.releaseAddresses(sa)
    }
    if (!this.isOver) return
    if (this.hasNextKey()) return this.initiate(now)
    const isSilence = sa instanceof HalfOpen && error instanceof UnreachablePeerError
    const cause = isSilence ? this.silence?.error(this.path) : error
    if (!this.closing && isNoFault(error)) {
      // A SYN to a peer that is gone has waited long enough, unless it had to stay when that was in doubt.
      const others = this.policy.reconnect ? 'with data' : 'none'
      this.reopenAttempts(error instanceof UnreachablePeerError ? others : 'all', now)
    }
    if (!this.attempts.noneWaits) this.attempts.failAll(cause ?? errorOf('PEER_CLOSED', {}))
    const orderly = error === undefined && this.facts?.isOurs === true
    const reason = cause instanceof UnreachablePeerError ? 'ETIMEDOUT' : 'ECONNRESET'
    this.tcp?.abortAll(this.unrenewed ?? reason, orderly)
    this.settleTcp()
    this.udp?.clear()
    this.children.clear()
    this.paths.close()
    this.idleAt = Infinity
    if (this.announced) this.host.emit({ kind: 'sessionDown', session: this, error })
  }

  /** While keys are replaced, the peer may know another of ours: each is tried once. */
  private hasNextKey(): boolean {
    const { keyTurn } = this
    if (!keyTurn.isRefused) return false
    keyTurn.isRefused = false
    this.refusedKeys++
    const isFirstLogin = this.facts === undefined && !this.closing && !this.attempts.noneWaits
    if (!isFirstLogin || this.refusedKeys >= keyTurn.of) return false
    keyTurn.at = (keyTurn.at + 1) % keyTurn.of
    return true
  }

  /** The pre-shared key that is tried first, then the one that the peer has taken: its place among several. */
  get ownKey(): number {
    return this.keyTurn.at
  }

  set ownKey(at: number) {
    this.keyTurn.at = at
  }

  /** Addresses go back when the last of the SAs that a rekey made of each other has ended. */
  private releaseAddresses(sa: IkeSa): void {
    if (sa.peer === undefined || this.lineage.sas.some(({ peer }) => peer === sa.peer)) return
    for (const address of sa.peer.assignedAddresses) this.host.pool?.release(address)
  }

  private expire(child: Child, now: Millis): void {
    const state = child.pair.lifetimeState()
    if (state === 'ok' || child.removeAt !== Infinity) return
    this.ownerOf(child)?.expire(child.sa.inboundSpi, state, now)
  }

  // --- opening ---

  private initiate(now: Millis): void {
    this.lineage.isClient = true
    this.silence = new Silence(this.host.counters)
    const first = this.attempts.takeFirst(this.policy.childless === 'force')
    this.addSa(new HalfOpen(this.saConfig(), this.path, first, now))
  }

  saConfig(): IkeSaConfig {
    const { host } = this
    return {
      environment: host.environment,
      tracer: host.tracer,
      policy: this.policy,
      credentials: this.credentials,
      allocateSpi: () => host.sad.allocate(host.environment),
      releaseSpi: spi => host.sad.release(spi),
      place: this.paths,
      pool: host.pool,
      addressesOf: (principal, next, replaced) =>
        host.joined(this, principal, next, replaced).facts?.assignedAddresses ?? [],
      mayEnter: (newcomer, now) => host.mayEnter(this, newcomer, now),
      heldAddresses: () => this.facts?.virtualAddresses ?? [],
      childCount: () => this.children.inUse.length,
      requestRate: this.requestRate,
      measures: this.measures,
      keyTurn: this.keyTurn,
      pay: (cost, now) => host.pay(this, cost, now),
      predecessors: () => this.lineage.predecessors,
      isFirstContact: () => host.isFirstContact(this),
      drop: why => host.drop(why),
      holdIkeSpi: spi => host.holdIkeSpi(spi),
      freeIkeSpi: spi => host.freeIkeSpi(spi),
      ownAddresses: () => host.ownAddresses(),
      crashToken: (spiI, spiR) => host.crashToken(this, spiI, spiR),
    }
  }

  private addSa(sa: IkeSa | HalfOpen): void {
    this.lineage.add(sa)
    this.host.bindIkeSa(sa, this)
  }

  get isOpenForAttempts(): boolean {
    return this.isEstablished && !this.mayBeGone
  }

  get childrenInUse(): readonly Child[] {
    return this.children.inUse
  }

  get requestContext(): RequestContext {
    const { policy, path, facts } = this
    return { policy, path, facts, environment: this.host.environment }
  }

  createChild(request: ChildRequest, now: Millis): number {
    return this.requestChild(this.lineage.current!, request, now)
  }

  private requestChild(sa: IkeSa, request: ChildRequest, now: Millis): number {
    const ticket = this.nextTicket++
    sa.createChild(request, ticket, now)
    return ticket
  }

  private requestChildFor(flow: InnerFlow, now: Millis): void {
    const sa = this.lineage.current
    if (sa === undefined || sa.state !== 'established' || sa.children.size > 0) return
    if (!this.lineage.isClient) return
    this.requestChild(
      sa,
      hostRequest(this.policy, flow.localAddress, flow.remoteAddress, flow.protocol),
      now,
    )
  }

  reopen(attempt: Attempt, now: Millis): void {
    this.host.reopen(this, attempt, now)
  }

  emit(event: CoreEvent): void {
    this.host.emit(event)
  }

  private reopenAttempts(begun: Begun, now: Millis): void {
    if (this.facts !== undefined) this.attempts.reopen(begun, now)
  }

  private ownerOf({ sa }: Child): IkeSa | undefined {
    return this.lineage.ownerOf(sa.inboundSpi)
  }

  /** A Child SA in use has that outbound SPI. */
  sendsOn(spi: number): boolean {
    return this.children.inUse.some(({ sa }) => sa.outboundSpi === spi)
  }

  /** Asks the peer, unless something authentic has just come, whether it is still there. */
  probe(now: Millis): void {
    this.lineage.current?.probe(now)
  }

  /** Told with each repetition. The server's end has no other way than the one it was asked by. */
  private noteUnanswered(): void {
    if (!this.lineage.isClient) return
    const times = (this.lineage.opening ?? this.lineage.current)?.sentTimes ?? 0
    const isOpening = this.facts === undefined
    if (times > 1 && times !== this.toldTimes)
      this.host.emit({ kind: 'unanswered', path: this.path, times, isOpening })
    this.toldTimes = times
  }

  /** TCP repeats in vain: the ordinary probe does not wait for its time, unless there is to be none. */
  private probeEarly(now: Millis): void {
    if (this.policy.livenessInterval === 0 || now - this.probedAt < EARLY_PROBES) return
    this.probedAt = now
    this.probe(now)
  }

  /** It would be the answer to a request that waits for one, of the IKE SA that carries new exchanges. */
  hasAsked({ spiI, spiR, messageId }: IkeHeader): boolean {
    const sa = this.lineage.current
    const isOfCurrent = sa !== undefined && equal(sa.spiI, spiI) && equal(sa.spiR, spiR)
    return isOfCurrent && sa.isShared && sa.awaits(messageId)
  }

  /**
   * Something outside any SA says that the peer has lost it. That proves nothing (RFC 7296 §1.5, §2.4), so
   * it makes us ask; the lack of any answer will prove it. Saying so again changes nothing.
   */
  hint(now: Millis): void {
    if (now - this.hintedAt < HINT_INTERVAL) return
    this.hintedAt = now
    this.lineage.current?.probeQuickly(now)
    // A SYN under way may be what the peer could not read.
    this.leaveInDoubt(now)
  }

  /** The peer has shown the token that it gave for that SA: it knows the SA no more (RFC 6290 §3). */
  noteCrash(sa: IkeSa, now: Millis): void {
    sa.trace('ike.crashed', { at: now })
    sa.abandon(errorOf('PEER_RESTARTED', {}), now)
  }

  /** Attempts do not wait for an SA that may be gone: they begin once more with a new one. */
  private leaveInDoubt(now: Millis): void {
    if (this.policy.reconnect && this.mayBeGone && !this.closing)
      this.reopenAttempts('without data', now)
  }
}

/**
 * Ours: a peer that was heard so lately is there, whatever a hint says: the probe will tell. A peer without ESP,
 * for one, refuses the first packet of data on an SA that it has just made.
 */
const JUST_HEARD: Millis = 1000

/** No attempt is to blame: the peer closed the SA, or is gone, or has lost it. */
const isNoFault = (error: Error | undefined): boolean =>
  error === undefined ||
  error instanceof UnreachablePeerError ||
  (error instanceof PeerRefusedError && error.code === 'ECONNRESET')

/** In a tunnel. Returns the next header of ESP. */
const prependInnerIp = (
  packet: Packet,
  { sa }: Child,
  { protocol = IP_TCP, localAddress, remoteAddress }: InnerFlow,
): number =>
  sa.mode === 'tunnel' ? prependIpHeader(packet, localAddress, remoteAddress, protocol) : protocol

const childInfo = (child: Child): ChildInfo => ({
  spiIn: child.sa.inboundSpi,
  spiOut: child.sa.outboundSpi,
  mode: child.sa.mode,
  suite: child.sa.suite,
  backend: child.pair.outbound.cipher.backend,
  localSelectors: child.sa.localSelectors.map(formatSelector),
  remoteSelectors: child.sa.remoteSelectors.map(formatSelector),
  ...volumeOf(child),
})
