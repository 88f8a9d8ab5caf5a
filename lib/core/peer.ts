/**
 * One peer: its IKE SAs (the current one, those being replaced and their successors), the ESP SA pairs
 * they negotiated, and the TCP stack that runs over them. It joins a `ChildSa` of IKE with the
 * `EspSaPair` that carries its packets, and routes each segment to the SA whose selectors cover it.
 */
import { formatAddress } from '../base/address.ts'
import { concat, equal, toHex } from '../base/bytes.ts'
import type { Environment, Millis } from '../base/environment.ts'
import {
  AuthenticationError,
  type IpsecError,
  PeerRefusedError,
  socketError,
  UnreachablePeerError,
} from '../base/errors.ts'
import { MAX_DATAGRAM, type Packet } from '../base/packet.ts'
import { samePath, type Path } from '../base/path.ts'
import type { Tracer } from '../base/trace.ts'
import { EspSaPair } from '../esp/esp-sa.ts'
import { Drop, dropName } from '../esp/inbound-sa.ts'
import type { Sad } from '../esp/sad.ts'
import type { ChildSa } from '../ike/child-sa.ts'
import type { ChildRequest, IkeSaConfig, PeerFacts, Question } from '../ike/exchange.ts'
import { IkeSa, type IkeSaOutput } from '../ike/ike-sa.ts'
import { drawLifetime } from '../policy/lifetime.ts'
import type { PeerPolicy } from '../policy/options.ts'
import { formatSelector, singleHost } from '../policy/traffic-selectors.ts'
import type { TcpConnection } from '../tcp/connection.ts'
import type { Flow, TcpStack } from '../tcp/stack.ts'
import { writeIkeDatagram } from '../wire/encapsulation.ts'
import { prependIpHeader } from '../wire/ip.ts'
import { IpProtocol } from '../wire/registry.ts'
import {
  childRequest,
  flowOver,
  hostRequest,
  requestsOf,
  type Pending,
  type Situation,
} from './child-request.ts'
import { ChildTable, MAX_LINGERING, type Child as ChildOf } from './child-table.ts'
import { handleInner } from './inner-packets.ts'
import type { Attempt, ChildInfo, CoreEvent, SessionHandle, SessionInfo } from './events.ts'
import type { Scheduled } from '../base/schedule.ts'

/** A segment no larger than this fits every path (RFC 8200 §5 minimum less a margin for the outer UDP). */
const DEFAULT_MTU = 1400
/** The loopback interface takes any UDP datagram there is. */
const LOOPBACK_MTU = 65535
const NAT_KEEPALIVE = Uint8Array.of(0xff)
const IP_TCP = IpProtocol.Tcp
const UDP_HEADER = 8
/** Ours: hints that prove nothing make us ask no more often than this. */
const HINT_INTERVAL: Millis = 5000

export type Child = ChildOf<Peer>

/** What a peer needs from the core it lives in. */
export interface PeerHost {
  readonly environment: Environment
  readonly tracer: Tracer
  readonly sad: Sad<Child>
  newStack(peer: Peer): TcpStack
  bindIkeSa(sa: IkeSa, peer: Peer): void
  unbindIkeSa(sa: IkeSa): void
  /** A responder's SA was authenticated: the peer it belongs to, which may be one that exists. */
  joinable(peer: Peer, sa: IkeSa, replaces: Uint8Array | undefined): Peer
  /** Other SAs of that identity are leftovers of a restarted peer (RFC 7296 §2.4). */
  initialContact(identity: PeerFacts['identity'], survivor: Peer, now: Millis): void
  isFirstContact(peer: Peer): boolean
  /** The SA ended under an attempt that had only waited: it begins again with a new one. */
  reopen(peer: Peer, attempt: Attempt, now: Millis): void
  ask(sa: IkeSa, id: number, question: Question): void
  emit(event: CoreEvent): void
  drop(reason: string): void
  readonly pool: IkeSaConfig['pool']
}

/** A new IKE SA beside those that it will take the place of (RFC 7296 §2.8.3). */
interface Renewal {
  sa: IkeSa
  /** What IKE_AUTH does not carry. */
  readonly more: readonly ChildRequest[]
  /** Child SAs of which nothing is known yet, by ticket; undefined is that of IKE_AUTH. */
  readonly awaited: Set<number | undefined>
}

export class Peer implements SessionHandle, Scheduled {
  dueAt: Millis = Infinity
  heapIndex = -1
  policy: PeerPolicy
  readonly credentials: IkeSaConfig['credentials']
  facts: PeerFacts | undefined

  private readonly host: PeerHost
  private readonly sas: IkeSa[] = []
  /** Ended, and still answering what the peer repeats. */
  private readonly ended: IkeSa[] = []
  private readonly children: ChildTable<Peer>
  private readonly attempts: Pending[] = []
  /** Connections whose SYN is under way. */
  private readonly opening = new Map<TcpConnection, Pending>()
  private tcp: TcpStack | undefined
  private idleAt: Millis = Infinity
  private keepaliveAt: Millis = Infinity
  private ikeRekeys = 0
  private childRekeys = 0
  private currentPath: Path
  private announced = false
  /** IKE_AUTH carries a Child SA, and what became of it is not known yet. */
  private awaitsFirstChild = false
  /** The attempt for which that Child SA is made. */
  private first: Pending | undefined
  private closing = false
  /** We made the first SA; a rekey by the peer does not change who may let it go. */
  private isClient = false
  /** When something that proves nothing said last that the peer has lost its SAs. */
  private hintedAt: Millis = -Infinity
  private hasTriedAgain = false
  private renewal: Renewal | undefined
  private nextTicket = 1

  constructor(
    host: PeerHost,
    policy: PeerPolicy,
    credentials: IkeSaConfig['credentials'],
    path: Path,
  ) {
    this.host = host
    this.children = new ChildTable(host.sad)
    this.policy = policy
    this.credentials = credentials
    this.currentPath = path
  }

  // --- what others see ---

  get peer(): PeerFacts {
    return this.facts!
  }

  /** Where the peer is now: one place for all its SAs. */
  get path(): Path {
    return this.currentPath
  }

  /** RFC 7296 §2.23: whoever is behind a NAT itself does not follow, the other end's address is a fixed one. */
  private get mayMove(): boolean {
    return !this.isClient || this.facts?.localBehindNat !== true
  }

  /** RFC 7296 §2.23: something new and authenticated came from elsewhere. */
  private movePath(path: Path, now: Millis): void {
    this.currentPath = path
    for (const sa of this.sas) {
      if (!samePath(sa.path, path)) sa.movePath(path, now)
    }
  }

  /** The IKE SA that carries new exchanges: the newest one that is established. */
  private get current(): IkeSa | undefined {
    for (let i = this.sas.length - 1; i >= 0; i--) {
      if (this.sas[i]!.state === 'established') return this.sas[i]
    }
    return this.sas.at(-1)
  }

  /** Nothing of it is left, not even an SA that repeats its last answer. */
  get isEmpty(): boolean {
    return this.sas.length === 0 && this.ended.length === 0
  }

  get isOver(): boolean {
    return this.sas.length === 0
  }

  get isEstablished(): boolean {
    return this.facts !== undefined && this.sas.some(sa => sa.state === 'established')
  }

  get connectionCount(): number {
    return this.tcp?.connectionCount ?? 0
  }

  get stack(): TcpStack | undefined {
    return this.tcp
  }

  info(): SessionInfo {
    const sa = this.current
    const facts = this.facts
    return {
      state: sa?.state ?? 'closed',
      spiI: sa === undefined ? '' : toHex(sa.spiI),
      spiR: sa === undefined ? '' : toHex(sa.spiR),
      ikeSuite: facts?.ikeSuite ?? '',
      localIdentity: facts?.localIdentityText ?? '',
      remoteIdentity: facts?.identityText ?? '',
      localBehindNat: facts?.localBehindNat ?? false,
      remoteBehindNat: facts?.remoteBehindNat ?? false,
      ikeRekeys: this.ikeRekeys,
      childRekeys: this.childRekeys,
      children: this.children.inUse.map(childInfo),
    }
  }

  // --- commands ---

  rekeyIke(now: Millis): void {
    this.current?.rekeyIke(now)
  }

  rekeyChild(now: Millis): void {
    for (const child of this.children.inUse) {
      this.ownerOf(child)?.rekeyChild(child.sa.inboundSpi, now)
    }
  }

  /** A new IKE SA with the same Child SAs; the old one goes when they are up (RFC 7296 §2.8.3). */
  reauthenticate(now: Millis): void {
    if (this.renewal !== undefined || this.closing || !this.isEstablished) return
    const requests = requestsOf(this.children.inUse, this.policy)
    const first = this.policy.childless === 'force' ? undefined : requests.shift()
    const sa = IkeSa.initiate(this.saConfig(), this.path, first && (() => first), now)
    this.renewal = { sa, more: requests, awaited: new Set(first === undefined ? [] : [undefined]) }
    this.addSa(sa)
  }

  /** One of the Child SAs of a renewal is there, or was refused. */
  private noteRenewed(sa: IkeSa, ticket: number | undefined, now: Millis): void {
    const { renewal } = this
    if (renewal?.sa !== sa) return
    renewal.awaited.delete(ticket)
    if (sa.state !== 'established' || renewal.awaited.size > 0) return
    this.renewal = undefined
    for (const old of [...this.sas]) {
      if (old !== sa) old.close(now)
    }
  }

  close(now: Millis): void {
    for (const sa of [...this.sas]) sa.close(now)
  }

  /** Deletes the SAs as soon as TCP has delivered what was written. */
  closeWhenDone(now: Millis): void {
    this.closing = true
    if (this.connectionCount === 0) this.close(now)
  }

  /** Drops everything without a word to the peer, which is gone or replaced. */
  abandon(error: Error, now: Millis): void {
    for (const sa of [...this.sas, ...this.ended]) sa.abandon(error, now)
  }

  /** Starts a responder's SA, which `IkeSa.respond` made. */
  accept(sa: IkeSa): void {
    this.addSa(sa)
  }

  /** Takes over the SA of a peer that turned out to be this one, reauthenticating. */
  adopt(sa: IkeSa, facts: PeerFacts, now: Millis): void {
    this.addSa(sa)
    if (!samePath(sa.path, this.currentPath)) this.movePath(sa.path, now)
    this.facts = facts
    this.policy = sa.config.policy
  }

  disown(sa: IkeSa): void {
    remove(this.sas, sa)
  }

  connect(attempt: Attempt, isSecond: boolean, now: Millis): void {
    const { localPort } = attempt.request
    this.attempts.push({ ...attempt, ticket: 0, localPort, isExact: false, isSecond })
    if (this.sas.length === 0) this.initiate(now)
    else this.advance(now)
  }

  /** It may be gone: somebody said so, or it does not answer, and nothing authentic came since. */
  get isSuspect(): boolean {
    const sa = this.current
    if (sa === undefined || this.facts === undefined) return false
    return sa.isDoubtful || this.hintedAt > sa.lastHeardAt
  }

  /** Gives up an attempt, or the connection it became; nothing is reported for it. */
  cancel(attempt: Attempt, now: Millis): void {
    const waiting = this.attempts.findIndex(pending => pending.context === attempt.context)
    if (waiting >= 0) this.attempts.splice(waiting, 1)
    // Nobody waits for this handshake any more.
    if (waiting >= 0 && this.facts === undefined && this.attempts.length === 0) this.close(now)
    for (const [connection, pending] of this.opening) {
      if (pending.context !== attempt.context) continue
      this.opening.delete(connection)
      connection.abort()
    }
  }

  /** Nothing listens at the peer's UDP port. For an SA that is up it is only a reason to ask. */
  handleRefusal(now: Millis): void {
    if (this.facts !== undefined) return this.hint(now)
    const { remoteAddress, remotePort } = this.currentPath
    const address = formatAddress(remoteAddress)
    const error = socketError({
      code: 'ECONNREFUSED',
      syscall: 'connect',
      address,
      port: remotePort,
    })
    for (const sa of [...this.sas]) sa.noteUnreachable(error, now)
  }

  get isIdle(): boolean {
    return this.attempts.length === 0 && (this.tcp === undefined || this.tcp.isEmpty)
  }

  // --- input ---

  handleIke(sa: IkeSa, message: Uint8Array, path: Path, now: Millis): void {
    const before = sa.path
    // What comes late on an SA that was replaced says where the peer was.
    const isCurrent = sa === this.current
    sa.handleMessage(message, path, now)
    if (sa.path !== before && isCurrent) this.movePath(sa.path, now)
    if (this.attempts.length > 0) this.advance(now)
  }

  /** One ESP packet for a child of ours, at `bytes[from, to)`. */
  handleEsp(
    child: Child,
    bytes: Uint8Array,
    from: number,
    to: number,
    path: Path,
    now: Millis,
  ): void {
    const inbound = child.pair.inbound
    const drop = inbound.open(bytes, from, to)
    // A dummy packet is as genuine as any other.
    const isGenuine = drop === Drop.None || drop === Drop.Dummy
    if (this.sas.length > 0 && isGenuine) {
      for (const sa of this.sas) sa.noteInbound(child.sa.inboundSpi, now)
      if (child.removeAt === Infinity) child.pair.outboundReady = child.sa.outboundReady
      if (this.attempts.length > 0) this.advance(now)
      // RFC 7296 §2.23: the newest authenticated packet, and no replay, tells where the peer is now.
      if (inbound.newest && child.removeAt === Infinity && !samePath(path, this.currentPath)) {
        if (this.mayMove) this.movePath(path, now)
      }
    }
    if (drop !== Drop.None) return this.host.drop(dropName(drop))
    if (child.pair.lifetimeState() !== 'ok') this.expire(child, now)
    const reason = handleInner(child, bytes, this.tcp, now)
    if (reason !== undefined) this.host.drop(reason)
  }

  // --- time ---

  nextTimeout(): Millis {
    let next = Math.min(
      this.tcp?.nextTimeout() ?? Infinity,
      this.idleAt,
      this.keepaliveAt,
      this.children.nextTimeout(),
    )
    for (const sa of this.sas) next = Math.min(next, sa.nextTimeout())
    for (const sa of this.ended) next = Math.min(next, sa.nextTimeout())
    return next
  }

  handleTimeout(now: Millis): void {
    for (const sa of [...this.sas, ...this.ended]) {
      if (sa.nextTimeout() <= now) sa.handleTimeout(now)
    }
    if (this.tcp !== undefined && this.tcp.nextTimeout() <= now) this.tcp.handleTimeout(now)
    this.children.handleTimeout(now)
    if (this.idleAt <= now) {
      this.idleAt = Infinity
      if (this.isIdle) this.close(now)
    }
  }

  // --- output ---

  /** The next datagram, built in `packet`; undefined when there is none. */
  pollTransmit(packet: Packet, now: Millis): Path | undefined {
    for (const list of [this.sas, this.ended]) {
      for (const sa of list) {
        const message = sa.pollTransmit()
        if (message === undefined) continue
        writeIkeDatagram(packet, message.bytes, message.path.bare)
        this.sent(now)
        return message.path
      }
    }
    const path = this.pollSegment(packet, now)
    if (path !== undefined) {
      this.sent(now)
      return path
    }
    if (this.keepaliveAt > now) return undefined
    packet.reset()
    packet.bytes.set(NAT_KEEPALIVE, packet.append(1))
    this.sent(now)
    return this.path
  }

  private pollSegment(packet: Packet, now: Millis): Path | undefined {
    const stack = this.tcp
    // TCP would take what is not sent for lost, so it is not even asked.
    if (stack === undefined || this.children.isExhausted) return undefined
    for (;;) {
      packet.reset()
      const flow = stack.pollTransmit(packet, now)
      if (flow === undefined) return undefined
      const child = this.children.route(flow)
      if (child === undefined) {
        // TCP sends the segment again; by then the Child SA that this asks for is there.
        this.host.drop('tcp.noSa')
        this.requestChildFor(flow, now)
        continue
      }
      let nextHeader: number = IP_TCP
      if (child.sa.mode === 'tunnel')
        nextHeader = prependIpHeader(packet, flow.localAddress, flow.remoteAddress, IP_TCP)
      if (!child.pair.outbound.seal(packet, nextHeader)) {
        this.host.drop('esp.exhausted')
        this.expire(child, now)
        continue
      }
      if (child.pair.lifetimeState() !== 'ok') this.expire(child, now)
      const sa = this.current
      if (sa === undefined) return undefined
      sa.noteOutbound(now)
      return this.currentPath
    }
  }

  /** RFC 3948 §4: a keepalive only when nothing else kept the NAT's mapping alive. */
  private sent(now: Millis): void {
    const needed = this.facts?.localBehindNat === true && this.policy.natKeepalive > 0
    this.keepaliveAt = needed ? now + this.policy.natKeepalive : Infinity
  }

  /** Carries everything that happened to where it belongs. Called after every input and command. */
  settle(now: Millis): void {
    for (let busy = true; busy;) {
      busy = false
      for (const sa of [...this.sas, ...this.ended]) {
        for (let output = sa.pollOutput(); output !== undefined; output = sa.pollOutput()) {
          busy = true
          this.handleOutput(sa, output, now)
        }
      }
    }
    this.settleTcp()
    this.watchIdle(now)
    if (this.closing && this.connectionCount === 0) this.close(now)
  }

  /** Something that an owner wrote before it let go has not arrived yet. */
  get hasUndelivered(): boolean {
    return this.tcp?.hasUndelivered ?? false
  }

  private settleTcp(): void {
    const stack = this.tcp
    if (stack === undefined) return
    for (let event = stack.pollEvent(); event !== undefined; event = stack.pollEvent()) {
      const connection = event.connection
      const pending = this.opening.get(connection)
      switch (event.kind) {
        case 'connected':
          if (pending === undefined) break
          this.opening.delete(connection)
          connection.context = pending.context
          this.host.emit({ kind: 'connected', attempt: pending, connection, session: this })
          break
        case 'accepted':
          this.host.emit({
            kind: 'accepted',
            connection,
            port: connection.localPort,
            session: this,
          })
          break
        case 'closed': {
          const error =
            event.error === undefined ? undefined : faultOf(event.error, event.syscall, connection)
          if (pending === undefined) {
            this.host.emit({ kind: 'closed', connection, error })
            break
          }
          this.opening.delete(connection)
          this.host.emit({
            kind: 'failed',
            attempt: pending,
            error: error ?? faultOf('ECONNRESET', 'connect', connection),
          })
          break
        }
        default:
          this.host.emit({ kind: event.kind, connection })
      }
    }
  }

  private watchIdle(now: Millis): void {
    if (!this.isIdle || !this.isClient) this.idleAt = Infinity
    else if (this.idleAt === Infinity && this.policy.idleTimeout > 0) {
      this.idleAt = now + this.policy.idleTimeout
    }
  }

  // --- IKE's outputs ---

  private handleOutput(sa: IkeSa, output: IkeSaOutput, now: Millis): void {
    switch (output.kind) {
      case 'established':
        return this.handleEstablished(sa, output, now)
      case 'childInstalled':
        this.install(output, now)
        return this.noteRenewed(sa, output.ticket, now)
      case 'childOutbound': {
        const child = this.children.find(output.inboundSpi)
        if (child !== undefined) child.pair.outboundReady = true
        return
      }
      case 'childRekeyed':
        this.childRekeys++
        return
      case 'childRemoved':
        return this.children.retire(output.inboundSpi, output.linger, now)
      case 'childAbandoned':
        for (const pending of this.attempts) {
          if (pending.ticket === output.ticket) pending.ticket = 0
        }
        return this.advance(now)
      case 'childFailed':
        if (this.renewal?.sa === sa && this.renewal.awaited.has(output.ticket))
          return this.noteRenewed(sa, output.ticket, now)
        return this.handleChildFailed(output, now)
      case 'successor':
        this.addSa(output.sa)
        return this.trimSas(now)
      case 'rekeyed':
        this.ikeRekeys++
        if (this.renewal?.sa === sa) this.renewal.sa = output.by
        return
      case 'reauthenticate':
        // Who accepted the SA cannot authenticate in the other's stead (§2.8.3).
        if (this.isClient) this.reauthenticate(now)
        return
      case 'initialContact':
        return this.host.initialContact(output.identity, this, now)
      case 'question':
        return this.host.ask(sa, output.id, output.question)
      case 'authenticationFailed':
        return this.host.emit({
          kind: 'refused',
          error: output.error,
          identity: output.identity,
          path: output.path,
        })
      case 'refused':
        return this.host.emit({
          kind: 'refused',
          error: output.error,
          identity: sa.peer?.identityText,
          path: sa.path,
        })
      case 'closed':
        return this.handleClosed(sa, output.error, now)
      case 'forgotten':
        remove(this.ended, sa)
        return this.host.unbindIkeSa(sa)
      default:
        return output satisfies never
    }
  }

  private handleEstablished(
    sa: IkeSa,
    { peer: facts, replaces }: IkeSaOutput & { kind: 'established' },
    now: Millis,
  ): void {
    if (!sa.originalInitiator) {
      const owner = this.host.joinable(this, sa, replaces)
      if (owner !== this) {
        this.disown(sa)
        owner.adopt(sa, facts, now)
        return owner.settle(now)
      }
    }
    this.facts = facts
    // The application may have given this peer a policy of its own.
    this.policy = sa.config.policy
    this.tcp ??= this.host.newStack(this)
    if (!this.announced) {
      this.announced = true
      this.host.emit({ kind: 'sessionUp', session: this })
    }
    if (this.renewal?.sa === sa) {
      for (const request of this.renewal.more)
        this.renewal.awaited.add(this.createChild(sa, request, now))
      if (this.renewal.awaited.size === 0) this.noteRenewed(sa, 0, now)
    }
    this.advance(now)
  }

  private install(output: IkeSaOutput & { kind: 'childInstalled' }, now: Millis): void {
    const { child: sa, keys } = output
    if (output.ticket === undefined && this.renewal === undefined) this.awaitsFirstChild = false
    const path = this.path
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
      environment: this.host.environment,
      limits: lifetime,
    })
    // Make before break: what the peer asked for is not sent on while something older will do.
    pair.outboundReady = sa.outboundReady && !(output.byPeer && this.children.hasSameRoute(sa))
    const child: Child = {
      peer: this,
      sa,
      pair,
      localHost: singleHost(sa.localSelectors) ?? path.localAddress,
      remoteHost: singleHost(sa.remoteSelectors) ?? path.remoteAddress,
      removeAt: Infinity,
    }
    this.children.install(child)
    this.tcp ??= this.host.newStack(this)
    this.tcp.segmentLimit = this.segmentLimit()
    const pending = this.takeTicket(output.ticket)
    if (pending !== undefined && this.flowOf(pending, now) === undefined) {
      const given = [...sa.localSelectors, ...sa.remoteSelectors].map(formatSelector)
      this.askExactly(
        pending,
        new PeerRefusedError('TS_UNACCEPTABLE', 'The peer narrows the Child SA too far', {
          details: { given },
        }),
      )
    }
    this.advance(now)
  }

  /** The attempt that waited for a Child SA, if any still does; undefined asks for that of IKE_AUTH. */
  private takeTicket(ticket: number | undefined): Pending | undefined {
    const isFirst = ticket === undefined
    const pending = isFirst ? this.first : this.attempts.find(other => other.ticket === ticket)
    if (isFirst) this.first = undefined
    if (pending === undefined || !this.attempts.includes(pending)) return undefined
    pending.ticket = 0
    return pending
  }

  private handleChildFailed(
    { ticket, error }: IkeSaOutput & { kind: 'childFailed' },
    now: Millis,
  ): void {
    if (ticket === undefined) this.awaitsFirstChild = false
    const pending = this.takeTicket(ticket)
    if (pending === undefined) return this.advance(now)
    // §2.9: "expected to respond by requesting an SA for only the specific traffic".
    if (error.code === 'SINGLE_PAIR_REQUIRED') this.askExactly(pending, error)
    else this.failAttempts(error, other => other === pending)
    this.advance(now)
  }

  private askExactly(pending: Pending, error: IpsecError): void {
    if (pending.isExact) this.failAttempts(error, other => other === pending)
    pending.isExact = true
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

  private handleClosed(sa: IkeSa, error: Error | undefined, now: Millis): void {
    remove(this.sas, sa)
    this.ended.push(sa)
    this.releaseAddresses(sa)
    if (this.renewal?.sa === sa) {
      this.renewal = undefined
      this.current?.retryReauthentication(now)
    }
    if (this.sas.length > 0) return
    if (this.facts === undefined && sa.isAmbiguous && this.attempts.length > 0) {
      // Perhaps a forged cookie made us sign another request than the peer has seen.
      const isFirst = !this.hasTriedAgain
      this.hasTriedAgain = true
      if (isFirst && error instanceof AuthenticationError) return this.initiate(now, true)
    }
    const cause = error ?? new PeerRefusedError('ECONNRESET', 'The peer closed the IKE SA')
    if (!this.closing && (error === undefined || error instanceof UnreachablePeerError)) {
      // A SYN to a peer that is gone has waited long enough.
      this.reopenAttempts(error === undefined, now)
    }
    this.failAttempts(cause, () => true)
    const orderly = error === undefined && this.facts?.isOurs === true
    this.tcp?.abortAll(cause instanceof UnreachablePeerError ? 'ETIMEDOUT' : 'ECONNRESET', orderly)
    this.settleTcp()
    this.children.clear()
    this.keepaliveAt = Infinity
    this.idleAt = Infinity
    if (this.announced) this.host.emit({ kind: 'sessionDown', session: this, error })
  }

  /**
   * An SA that was up has ended, or seems to have, under attempts that are not to blame: each begins once more
   * with a new one. `withBegun`: also those whose SYN was sent.
   */
  private reopenAttempts(withBegun: boolean, now: Millis): void {
    if (this.facts === undefined) return
    const begun = [...this.opening].filter(([, pending]) => withBegun && !pending.isSecond)
    for (const [connection] of begun) {
      this.opening.delete(connection)
      connection.abort()
    }
    const waiting = this.attempts.filter(({ isSecond }) => !isSecond)
    for (const pending of waiting) remove(this.attempts, pending)
    for (const { request, context } of [...begun.map(([, pending]) => pending), ...waiting]) {
      this.host.reopen(this, { request, context }, now)
    }
  }

  /** Addresses go back when the last of the SAs that a rekey made of each other has ended. */
  private releaseAddresses(sa: IkeSa): void {
    if (sa.peer === undefined || this.sas.some(({ peer }) => peer === sa.peer)) return
    for (const address of sa.peer.assignedAddresses) this.host.pool?.release(address)
  }

  private failAttempts(error: Error, which: (pending: Pending) => boolean): void {
    for (const pending of this.attempts.filter(which)) {
      remove(this.attempts, pending)
      this.host.emit({ kind: 'failed', attempt: pending, error })
    }
  }

  private expire(child: Child, now: Millis): void {
    const state = child.pair.lifetimeState()
    if (state === 'ok' || child.removeAt !== Infinity) return
    this.ownerOf(child)?.expire(child.sa.inboundSpi, state, now)
  }

  // --- opening ---

  private initiate(now: Millis, isCareful = false): void {
    const first = this.attempts[0]
    this.first = first
    this.isClient = true
    this.awaitsFirstChild = first !== undefined && this.policy.childless !== 'force'
    const sa = IkeSa.initiate(
      this.saConfig(),
      this.path,
      first === undefined ? undefined : isOurs => childRequest(first, isOurs, this.situation),
      now,
      isCareful,
    )
    this.addSa(sa)
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
      pool: host.pool,
      heldAddresses: () => this.facts?.virtualAddresses ?? [],
      predecessor: () => {
        const old = this.sas.find(({ state }) => state === 'established')
        return old && concat(old.spiI, old.spiR)
      },
      isFirstContact: () => !this.isEstablished && host.isFirstContact(this),
    }
  }

  /** SAs whose Delete the peer owes us, or that only repeat their last answer. */
  private trimSas(now: Millis): void {
    const cause = new PeerRefusedError('TEMPORARY_FAILURE', 'Too many IKE SAs of one peer')
    const [oldest] = this.sas.length > MAX_LINGERING ? this.sas : this.ended
    if (this.sas.length + this.ended.length > MAX_LINGERING) oldest?.abandon(cause, now)
  }

  private addSa(sa: IkeSa): void {
    this.sas.push(sa)
    this.host.bindIkeSa(sa, this)
  }

  /** Opens what can be opened: attempts that an installed SA covers go on to TCP, others ask for one. */
  private advance(now: Millis): void {
    if (!this.isEstablished || this.tcp === undefined || this.isSuspect) return
    for (const pending of [...this.attempts]) {
      const flow = this.flowOf(pending, now)
      if (flow !== undefined) this.open(pending, flow, now)
      else if (pending.ticket === 0 && !this.awaitsFirstChild) {
        const request = childRequest(pending, this.facts!.isOurs, this.situation)
        pending.ticket = this.createChild(this.current!, request, now)
      }
    }
  }

  private open(pending: Pending, flow: Flow, now: Millis): void {
    remove(this.attempts, pending)
    this.host.emit({ kind: 'session', attempt: pending, session: this })
    const { noDelay, keepAlive } = pending.request
    const connection = this.tcp!.connect(flow, { noDelay, keepAlive }, now)
    if (connection === undefined) {
      const error = faultOf('EADDRINUSE', 'connect', flow)
      this.host.emit({ kind: 'failed', attempt: pending, error })
      return
    }
    this.opening.set(connection, pending)
  }

  /** The 4-tuple an attempt gets over an SA that is up; undefined when none covers it. */
  private flowOf(pending: Pending, now: Millis): Flow | undefined {
    return flowOver(this.children.inUse, pending, this.situation, this.tcp!, now)
  }

  private get situation(): Situation {
    const { policy, path, facts } = this
    return { policy, path, facts, environment: this.host.environment }
  }

  /** Returns the ticket under which IKE will speak of it. */
  private createChild(sa: IkeSa, request: ChildRequest, now: Millis): number {
    const ticket = this.nextTicket++
    sa.createChild(request, ticket, now)
    return ticket
  }

  private requestChildFor(flow: Flow, now: Millis): void {
    const sa = this.current
    if (sa === undefined || sa.state !== 'established' || sa.children.size > 0) return
    if (!this.isClient) return
    this.createChild(sa, hostRequest(this.policy, flow.localAddress, flow.remoteAddress), now)
  }

  // --- routing ---

  private ownerOf({ sa }: Child): IkeSa | undefined {
    return this.sas.find(({ children }) => children.has(sa.inboundSpi))
  }

  hasOutboundSpi(spi: number): boolean {
    return this.children.hasOutboundSpi(spi)
  }

  /** RFC 7296 §1.5: a notify outside any SA proves nothing, so it only makes us ask. */
  hint(now: Millis): void {
    if (now - this.hintedAt < HINT_INTERVAL) return
    this.hintedAt = now
    this.current?.probe(now)
    // A SYN under way may be what the peer could not read.
    if (this.policy.reconnect) this.reopenAttempts(true, now)
  }

  /** The greatest TCP segment that fits the path through the largest overhead of our SAs. */
  private segmentLimit(): number {
    const { path } = this
    const ipHeader = path.remoteAddress.length === 16 ? 40 : 20
    const mtu = this.policy.mtu ?? (this.facts?.isOurs === true ? pathMtu(path) : DEFAULT_MTU)
    const datagram = Math.min(mtu - ipHeader - UDP_HEADER, MAX_DATAGRAM)
    return this.children.segmentLimit(datagram)
  }
}

const pathMtu = (path: Path): number =>
  isLoopback(path.remoteAddress) || equal(path.localAddress, path.remoteAddress)
    ? LOOPBACK_MTU
    : DEFAULT_MTU

const isLoopback = (address: Uint8Array): boolean =>
  address.length === 4 ? address[0] === 127 : formatAddress(address) === '::1'

/** `net` names the remote end in errors of connecting, and no end in those of an open connection. */
const faultOf = (code: string, syscall: string | undefined, flow: Flow): Error =>
  socketError({
    code,
    syscall,
    ...(syscall === 'connect'
      ? { address: formatAddress(flow.remoteAddress), port: flow.remotePort }
      : {}),
  })

const remove = <T>(list: T[], item: T): void => {
  const at = list.indexOf(item)
  if (at >= 0) list.splice(at, 1)
}

const childInfo = (child: Child): ChildInfo => ({
  spiIn: child.sa.inboundSpi,
  spiOut: child.sa.outboundSpi,
  mode: child.sa.mode,
  suite: child.sa.suite,
  localSelectors: child.sa.localSelectors.map(formatSelector),
  remoteSelectors: child.sa.remoteSelectors.map(formatSelector),
  octetsIn: child.pair.inbound.octets,
  octetsOut: child.pair.outbound.octets,
  packetsIn: child.pair.inbound.packets,
  packetsOut: child.pair.outbound.packets,
})
