/**
 * The TCP of one peer: finds the connection of a segment, opens new ones, answers strangers with RST,
 * and hands out segments turn by turn.
 */
import { hash } from 'node:crypto'
import { concat, copy, equal, getU32, putU16 } from '../base/bytes.ts'
import { randomBytes, type Environment, type Millis } from '../base/environment.ts'
import { Line } from '../base/line.ts'
import type { Packet } from '../base/packet.ts'
import { Schedule } from '../base/schedule.ts'
import { IPV4_HEADER_LENGTH, IPV6_HEADER_LENGTH } from '../wire/ip.ts'
import { NO_FEATURES, type Features } from '../wire/own-features.ts'
import { CHECKSUM_AT, checksumOf, TcpFlag, TcpSegment, TOKEN_LENGTH } from '../wire/tcp.ts'
import { DEFAULT_TCP_CONFIG, type TcpConfig } from './config.ts'
import { Copies } from './copies.ts'
import type { CongestionControl } from './congestion/choose.ts'
import { TcpConnection } from './connection.ts'
import { SharedExperience } from './experience.ts'
import type { CloseReason, Flow, SizeProber, StackContext, Tcb } from './control-block.ts'
import {
  HALF_OPEN_PER_PEER,
  type HalfOpenHolder,
  type TcpListener,
  type TcpListeners,
} from './listener.ts'
import { SharedMemory } from './memory.ts'
import { EphemeralPorts } from './ports.ts'
import { openEarly, receiveSegment, receiveSyn } from './receive.ts'
import { startsAnew, TimeWaits, wishOf, type Waiting } from './time-wait.ts'
import { Timer } from './timer.ts'
import { writeLateAck, writeReset } from './transmit.ts'

export { DEFAULT_TCP_CONFIG, type TcpConfig, type Flow, type SizeProber }

export interface TcpEvent {
  readonly kind: 'connected' | 'accepted' | 'readable' | 'writable' | 'ended' | 'closed'
  readonly connection: TcpConnection
  readonly error?: CloseReason | Error | undefined
  readonly syscall?: 'connect' | 'read' | undefined
}

/** Why a segment was dropped, as it is counted. */
export type TcpDrop =
  | 'tcp.malformed'
  | 'tcp.otherHost'
  | 'tcp.backlog'
  | 'tcp.repeatedData'
  | 'tcp.maxConnections'
  | 'tcp.maxBuffered'

/** RST segments waiting to go out; more are not worth the memory. */
const MAX_RESETS = 64
/** Ours: a FIN that has gone out again so often waits for a peer that is away, which no process needs to do. */
const FIN_RETRIES = 3
/** Ours: answers to late segments of all connections that are closed (RFC 5961 §7). */
const LATE_ACKS_PER_SECOND = 1000
/** Addresses that passive connections share. */
const MAX_ADDRESSES = 4
/** RFC 1191 §4 and RFC 791, RFC 8200 §5. */
const LEAST_MTU_V4 = 576
const LEAST_MTU_V6 = 1280
/** RFC 6528 §3: the clock ticks every four microseconds. */
const ISN_TICKS_PER_MILLI = 250
/** Ours: a connection that this end closed may be replaced after this time (RFC 6191). */
const REUSE_AFTER: Millis = 1000

interface Opening {
  readonly noDelay?: boolean
  readonly keepAlive?: Parameters<TcpConnection['setKeepAlive']>[0] | undefined
  readonly userTimeout?: Millis | undefined
  readonly congestionControl?: CongestionControl | undefined
  /** The first octets of the stream, where some are known, for a peer that takes them with the SYN. */
  readonly first?: FirstWrite | undefined
}

export interface FirstWrite {
  readonly octets: Uint8Array
  /** Of the attempt, also when it began before over another SA. */
  readonly token: Uint8Array
}

export class TcpStack implements StackContext, HalfOpenHolder {
  readonly config: TcpConfig
  segmentLimit = 1220
  prober: SizeProber | undefined
  /** Stands for the peer where others know it longer than this stack lives; other stacks may have the same peer. */
  principal: object | string = {}
  /** What the peer's TCP can do beyond the RFCs. */
  peerFeatures: Features = NO_FEATURES
  readonly copies = new Copies()
  /** What carries the segments proves them whole, and the peer looks at no checksum. */
  omitsChecksum = false
  readonly memory: SharedMemory
  readonly experience = new SharedExperience()
  private readonly environment: Environment
  private readonly listeners: TcpListeners
  private readonly secret: Uint8Array
  /** Chains by port pair; peers behind a gateway may share a pair under several addresses. */
  private readonly connections = new Map<number, TcpConnection[]>()
  /** Local ports of connections that we opened, by the remote end. */
  private readonly ports = new Map<string, EphemeralPorts>()
  private lastEnds: (Omit<Flow, 'localPort'> & { readonly text: string }) | undefined
  private readonly passive = new Map<TcpConnection, TcpListener>()
  /** In TIME-WAIT, and the ACKs that late segments have asked for. */
  private readonly waits: TimeWaits
  private readonly acks: Waiting[] = []
  private acksSince: Millis = -Infinity
  private acksInSecond = 0
  /** Those that may have something to send. */
  private readonly queue = new Line<TcpConnection>()
  private readonly schedule = new Schedule<TcpConnection>()
  private readonly events: TcpEvent[] = []
  private readonly resets: { flow: Flow; seq: number; ack: number | undefined }[] = []
  private readonly segment = new TcpSegment()
  private readonly addresses: Uint8Array[] = []
  /** Those that connections have had here, newest first. */
  private readonly localAddresses: Uint8Array[] = []
  private live = 0
  private isInDoubt = false
  private hasPassedOver = false
  private mostReceived = 0

  /** `memory`: what all stacks of an endpoint share. */
  constructor(
    environment: Environment,
    config: TcpConfig,
    listeners: TcpListeners,
    memory?: SharedMemory,
  ) {
    this.environment = environment
    this.config = config
    this.listeners = listeners
    this.memory = new SharedMemory(config.maxBuffered, memory)
    this.secret = randomBytes(environment, 16)
    this.waits = new TimeWaits(getU32(this.secret, 0), flow => this.freePort(flow))
  }

  get receiveLimit(): number {
    return Math.max(this.mostReceived, this.segmentLimit)
  }

  /** Segments may become as large as that; else they are as they may be now. */
  set receiveLimit(octets: number) {
    this.mostReceived = octets
  }

  /** Connections whose owners have let go of them while octets were under way. */
  private readonly orphans = new Set<TcpConnection>()

  get hasUndelivered(): boolean {
    for (const connection of this.orphans) {
      const isInVain = connection.sendQueue.length === 0 && connection.retries >= FIN_RETRIES
      if (connection.awaitsAck && !isInVain) return true
    }
    return false
  }

  /** An owner still has a connection, or something that one wrote is under way. */
  get isAwaited(): boolean {
    return this.live > this.orphans.size || this.hasUndelivered
  }

  orphaned(tcb: Tcb): void {
    this.orphans.add(tcb as TcpConnection)
  }

  /** Connections that are not over yet. */
  get connectionCount(): number {
    return this.live
  }

  // --- opening ---

  /** Local port 0: any that is free. Undefined when the 4-tuple is in use. */
  connect(flow: Flow, options: Opening, now: Millis): TcpConnection | undefined {
    const whole = flow.localPort === 0 ? this.withEphemeralPort(flow, now) : flow
    if (whole === undefined || this.isTaken(whole, now)) return undefined
    const connection = this.add(
      new TcpConnection(this, this.config, whole, 'SYN-SENT', this.isn(whole, now), now),
    )
    connection.noDelay = options.noDelay ?? false
    if (options.keepAlive !== undefined) connection.setKeepAlive(options.keepAlive, now)
    if (options.userTimeout !== undefined) connection.setUserTimeout(options.userTimeout, now)
    if (options.congestionControl !== undefined)
      connection.setCongestionControl(options.congestionControl)
    if (options.first !== undefined && this.peerFeatures.has('data-on-syn'))
      connection.begin(options.first.octets, options.first.token)
    this.ready(connection)
    return connection
  }

  isTaken(flow: Flow, now: Millis): boolean {
    if (this.find(flow) !== undefined) return true
    const waiting = this.waits.get(flow)
    if (waiting === undefined) return false
    const isOver = waiting.endsAt - this.config.timeWait + REUSE_AFTER <= now
    if (isOver) this.waits.remove(flow)
    return !isOver
  }

  /** Which local ports connections between these ends have. */
  portsTowards(ends: Omit<Flow, 'localPort'>): EphemeralPorts {
    return this.ports.get(this.endsOf(ends)) ?? new EphemeralPorts()
  }

  private withEphemeralPort(flow: Flow, now: Millis): Flow | undefined {
    const ports = this.portsTowards(flow)
    // Those that peers have opened are not among them.
    const isTaken = (localPort: number): boolean => this.isTaken({ ...flow, localPort }, now)
    const localPort = ports.find(getU32(randomBytes(this.environment, 4), 0), isTaken)
    return localPort === undefined ? undefined : { ...flow, localPort }
  }

  /** RFC 6528 §3. */
  private isn(flow: Flow, now: Millis): number {
    const ports = Uint8Array.of(
      flow.localPort >>> 8,
      flow.localPort,
      flow.remotePort >>> 8,
      flow.remotePort,
    )
    const octets = concat(flow.localAddress, flow.remoteAddress, ports, this.secret)
    const digest = hash('sha256', octets, 'buffer')
    return (getU32(digest, 0) + Math.floor(now * ISN_TICKS_PER_MILLI)) >>> 0
  }

  private add(connection: TcpConnection): TcpConnection {
    const key = keyOf(connection)
    remember(this.localAddresses, connection.localAddress)
    const chain = this.connections.get(key)
    if (chain === undefined) this.connections.set(key, [connection])
    else chain.push(connection)
    const isActive = connection.state === 'SYN-SENT'
    if (isActive && EphemeralPorts.includes(connection.localPort)) {
      const ends = this.endsOf(connection)
      const ports = this.ports.get(ends) ?? new EphemeralPorts()
      ports.add(connection.localPort)
      this.ports.set(ends, ports)
    }
    this.live++
    return connection
  }

  private find(flow: Flow): TcpConnection | undefined {
    const chain = this.connections.get(keyOf(flow))
    if (chain === undefined) return undefined
    const { remoteAddress, localAddress } = flow
    for (const known of chain) {
      if (equal(known.remoteAddress, remoteAddress) && equal(known.localAddress, localAddress))
        return known
    }
    return undefined
  }

  // --- input ---

  /**
   * A segment at `bytes[from, to)`, of which copies are kept. `isShared`: the selectors also admit segments for other hosts.
   * Returns why it was dropped.
   */
  handleSegment(
    bytes: Uint8Array,
    from: number,
    to: number,
    source: Uint8Array,
    destination: Uint8Array,
    now: Millis,
    verifyChecksum: boolean,
    isShared = false,
  ): TcpDrop | undefined {
    const { segment } = this
    if (!segment.read(bytes, from, to)) return 'tcp.malformed'
    if (verifyChecksum && checksumOf(bytes, from, to, source, destination) !== 0)
      return 'tcp.malformed'
    const flow = {
      localAddress: destination,
      localPort: segment.destinationPort,
      remoteAddress: source,
      remotePort: segment.sourcePort,
    }
    const connection = this.find(flow)
    if (connection === undefined) {
      const waiting = this.waits.get(flow)
      if (waiting !== undefined && !startsAnew(waiting, segment))
        return this.handleLate(waiting, now)
      if (waiting !== undefined) this.waits.remove(flow)
      return this.handleStranger(flow, bytes, now, isShared)
    }
    this.hasPassedOver = false
    receiveSegment(connection, segment, bytes, now)
    if (!connection.isOver) this.memory.count(connection)
    this.rearm(connection)
    return this.hasPassedOver ? 'tcp.maxBuffered' : undefined
  }

  /** For a connection in TIME-WAIT. */
  private handleLate(waiting: Waiting, now: Millis): undefined {
    const wish = wishOf(waiting, this.segment, this.config.timeWaitResets)
    if (wish === 'end') this.waits.remove(waiting)
    if (wish === 'prolong') this.waits.prolong(waiting, now + this.config.timeWait)
    if (wish === 'prolong' || wish === 'ack') this.acknowledgeLate(waiting, now)
  }

  private acknowledgeLate(waiting: Waiting, now: Millis): void {
    if (now - this.acksSince >= 1000) {
      this.acksSince = now
      this.acksInSecond = 0
    }
    if (this.acks.length < MAX_RESETS && this.acksInSecond++ < LATE_ACKS_PER_SECOND)
      this.acks.push(waiting)
  }

  private handleStranger(
    flow: Flow,
    bytes: Uint8Array,
    now: Millis,
    isShared: boolean,
  ): TcpDrop | undefined {
    const { segment } = this
    if (segment.has(TcpFlag.Rst)) return undefined
    const found = this.listeners.at(flow.localPort)
    const listener = found?.admits(this) === true ? found : undefined
    const isSyn = segment.has(TcpFlag.Syn) && !segment.has(TcpFlag.Ack)
    // RFC 9293 §3.10.7.2: what is neither ACK nor SYN is dropped at a listener.
    if (listener !== undefined && !isSyn && !segment.has(TcpFlag.Ack)) return undefined
    if (listener === undefined || !isSyn) {
      if (isShared && !this.isOurs(flow.localAddress)) return 'tcp.otherHost'
      if (segment.has(TcpFlag.Ack)) this.reset(flow, segment.ack, undefined)
      else this.refuse(flow)
      return undefined
    }
    const token = this.tokenOf(bytes)
    const { firstOctets } = this.listeners
    // What came with it was handed on before, and the client does not know what became of that.
    if (token !== undefined && firstOctets.has(token, now)) {
      this.refuse(flow)
      return 'tcp.repeatedData'
    }
    // RST says so at once; a SYN that is dropped would come again for minutes.
    if (this.live >= this.config.maxConnections) {
      this.refuse(flow)
      return 'tcp.maxConnections'
    }
    // A full backlog drops the SYN: it comes again (RFC 9293 leaves it open; RST would be final).
    if (this.memory.free === 0) return 'tcp.maxBuffered'
    if (this.passive.size >= HALF_OPEN_PER_PEER || !listener.enter(this)) return 'tcp.backlog'
    const owned = this.ownEnds(flow)
    const connection = this.add(
      new TcpConnection(this, this.config, owned, 'SYN-RECEIVED', this.isn(owned, now), now),
    )
    this.passive.set(connection, listener)
    receiveSyn(connection, segment, bytes, now)
    if (
      token !== undefined &&
      connection.synText !== undefined &&
      firstOctets.add(token, this.principal, now)
    ) {
      connection.token = token
      openEarly(connection, segment, now)
    }
    this.memory.count(connection)
    this.ready(connection)
    return undefined
  }

  /** Of the attempt that a SYN is of, a copy; none where that was not agreed on. */
  private tokenOf(bytes: Uint8Array): Uint8Array | undefined {
    const { tokenAt } = this.segment
    if (tokenAt === 0 || !this.peerFeatures.has('data-on-syn')) return undefined
    return copy(bytes.subarray(tokenAt, tokenAt + TOKEN_LENGTH))
  }

  confirmed(tcb: Tcb): void {
    if (tcb.token !== undefined) this.listeners.firstOctets.noteConnected(tcb.token)
    tcb.token = undefined
  }

  /** RST in answer to a SYN. */
  private refuse(flow: Flow): void {
    this.reset(flow, 0, (this.segment.seq + this.segment.length) >>> 0)
  }

  /** What comes lies in memory that is given back. */
  private ownEnds({ localAddress, localPort, remoteAddress, remotePort }: Flow): Flow {
    return {
      localAddress: this.kept(localAddress),
      localPort,
      remoteAddress: this.kept(remoteAddress),
      remotePort,
    }
  }

  /** A copy of an address; the connections of a peer have few, which they share. */
  private kept(address: Uint8Array): Uint8Array {
    return remember(this.addresses, address)
  }

  /**
   * What is for another host is dropped in silence (RFC 1122 §3.2.1.3): the selectors of a client may be those of a whole network,
   * and a RST would end the connections of its other hosts. Who has listeners serves every address of its selectors.
   */
  private isOurs(address: Uint8Array): boolean {
    return !this.listeners.isEmpty || this.localAddresses.some(other => equal(other, address))
  }

  dropOldest(listener: TcpListener): void {
    for (const [connection, at] of this.passive) {
      if (at === listener) return this.closed(connection, undefined)
    }
  }

  /**
   * An authenticated ICMP error about the segment with number `seq` (RFC 5461): only a SYN gives up on it, and
   * only while it is under way (RFC 5927 §4.1).
   */
  handleUnreachable(flow: Flow & { readonly seq: number }, hard: boolean): void {
    const connection = this.find(flow)
    if (connection?.state !== 'SYN-SENT' || flow.seq !== connection.iss) return
    this.closed(connection, hard ? 'ECONNREFUSED' : 'EHOSTUNREACH')
  }

  /**
   * An authenticated ICMP error says that the segment with number `seq` is too large for the way behind the peer, where an
   * IP packet has `mtu` octets. It is believed of that connection alone, and only while that segment is under way
   * (RFC 5927 §7.2); never below what every path takes, whatever a router says (RFC 1191 §3, RFC 8201 §4).
   */
  handleTooBig(flow: Flow & { readonly seq: number }, mtu: number, now: Millis): void {
    const isIpv6 = flow.localAddress.length === 16
    if (mtu < (isIpv6 ? LEAST_MTU_V6 : LEAST_MTU_V4)) return
    const connection = this.find(flow)
    if (connection === undefined) return
    connection.handleTooBig(flow.seq, mtu - (isIpv6 ? IPV6_HEADER_LENGTH : IPV4_HEADER_LENGTH), now)
    this.rearm(connection)
  }

  // --- what connections tell ---

  notify(tcb: Tcb, kind: 'connected' | 'readable' | 'writable' | 'ended'): void {
    const connection = tcb as TcpConnection
    const listener = kind === 'connected' ? this.passive.get(connection) : undefined
    if (listener === undefined) {
      if (!tcb.reported) this.events.push({ kind, connection })
      return
    }
    this.passive.delete(connection)
    listener.leave(this)
    if (listener.isOpen) this.events.push({ kind: 'accepted', connection })
    else connection.abort()
  }

  closed(tcb: Tcb, error: CloseReason | Error | undefined): void {
    const connection = tcb as TcpConnection
    const isOpening = tcb.state === 'SYN-SENT'
    const listener = this.passive.get(connection)
    this.orphans.delete(connection)
    if (tcb.state === 'TIME-WAIT') this.detach(tcb)
    else this.remove(tcb)
    if (listener !== undefined) {
      this.passive.delete(connection)
      listener.leave(this)
    }
    if (connection.counted) {
      connection.counted = false
      this.live--
    }
    if (tcb.reported) return
    tcb.reported = true
    // A passive open that failed was never anybody's.
    if (listener !== undefined) return
    this.events.push({ kind: 'closed', connection, error, syscall: isOpening ? 'connect' : 'read' })
  }

  /** What it is from now on is a record of few octets, but for its last ACK. */
  private detach(tcb: Tcb): void {
    const endsAt = tcb.timers.deadline(Timer.Wait)
    this.unlink(tcb)
    this.waits.add(tcb, endsAt)
  }

  remove(tcb: Tcb): void {
    if (!tcb.isOver) {
      this.unlink(tcb)
      this.freePort(tcb)
    }
    tcb.state = 'CLOSED'
    this.rearm(tcb)
  }

  private unlink(tcb: Tcb): void {
    const key = keyOf(tcb)
    const chain = this.connections.get(key)?.filter(other => other !== tcb) ?? []
    if (chain.length > 0) this.connections.set(key, chain)
    else this.connections.delete(key)
    tcb.timers.clearAll()
    tcb.stopSending()
    this.memory.release(tcb)
    this.rearm(tcb)
  }

  /** A text for both addresses and the remote port; the next connection often has the same. */
  private endsOf({ localAddress, remoteAddress, remotePort }: Omit<Flow, 'localPort'>): string {
    const { lastEnds } = this
    if (
      lastEnds?.remotePort !== remotePort ||
      !equal(lastEnds.remoteAddress, remoteAddress) ||
      !equal(lastEnds.localAddress, localAddress)
    ) {
      const text = `${localAddress.join('.')} ${remoteAddress.join('.')} ${remotePort}`
      this.lastEnds = { localAddress, remoteAddress, remotePort, text }
      return text
    }
    return lastEnds.text
  }

  private freePort(flow: Flow): void {
    if (this.ports.size === 0 || !EphemeralPorts.includes(flow.localPort)) return
    const ends = this.endsOf(flow)
    const ports = this.ports.get(ends)
    ports?.remove(flow.localPort)
    if (ports?.isEmpty) this.ports.delete(ends)
  }

  rearm(tcb: Tcb): void {
    const connection = tcb as TcpConnection
    if (tcb.state === 'CLOSED') this.schedule.remove(connection)
    else this.schedule.update(connection, tcb.timers.next())
  }

  ready(tcb: Tcb): void {
    this.queue.add(tcb as TcpConnection)
  }

  reset(flow: Flow, seq: number, ack: number | undefined): void {
    if (this.resets.length >= MAX_RESETS) return
    this.resets.push({ flow: this.ownEnds(flow), seq, ack })
  }

  // --- output ---

  /**
   * Builds the next segment of any connection; returns whose it is. `mayBe`: what it has to be, by its ends and the
   * octets of data that it has at most.
   */
  pollTransmit(
    packet: Packet,
    now: Millis,
    mayBe?: (flow: Flow, octets: number) => boolean,
  ): Flow | undefined {
    const reset = this.resets[0]
    if (reset !== undefined) {
      if (mayBe?.(reset.flow, 0) === false) return undefined
      this.resets.shift()
      writeReset(packet, reset.flow, reset.seq, reset.ack)
      this.finishChecksum(packet, reset.flow)
      return reset.flow
    }
    const late = this.acks[0]
    if (late !== undefined) {
      if (mayBe?.(late, 0) === false) return undefined
      this.acks.shift()
      writeLateAck(packet, late, now)
      this.finishChecksum(packet, late)
      return late
    }
    const { queue } = this
    for (let connection = queue.first; connection !== undefined; connection = queue.first) {
      if (mayBe?.(connection, connection.mostOctets) === false) return undefined
      const hasSent = connection.transmit(packet, now)
      this.rearm(connection)
      if (hasSent) {
        this.finishChecksum(packet, connection)
        // Each in turn, so that a bulk transfer does not hold up the others.
        queue.rotate()
        return connection
      }
      queue.shift()
    }
    return undefined
  }

  private finishChecksum({ bytes, start, end }: Packet, flow: Flow): void {
    if (this.omitsChecksum) return
    putU16(
      bytes,
      start + CHECKSUM_AT,
      checksumOf(bytes, start, end, flow.localAddress, flow.remoteAddress),
    )
  }

  pollEvent(): TcpEvent | undefined {
    return this.events.shift()
  }

  // --- time ---

  nextTimeout(): Millis {
    return Math.min(this.schedule.next(), this.waits.nextEnd)
  }

  handleTimeout(now: Millis): void {
    this.waits.expire(now)
    for (;;) {
      const connection = this.schedule.first()
      if (connection === undefined || connection.dueAt > now) return
      connection.handleTimeout(now)
      this.rearm(connection)
    }
  }

  /** The peer is reached another way now. */
  pathChanged(now: Millis): void {
    this.experience.forget()
    for (const chain of this.connections.values()) {
      for (const connection of chain) {
        connection.pathChanged(now)
        this.rearm(connection)
      }
    }
  }

  /** The peer answers again on the way it is reached. */
  retryNow(now: Millis): void {
    for (const chain of this.connections.values()) {
      for (const connection of chain) {
        connection.retryNow(now)
        this.rearm(connection)
      }
    }
  }

  /** A connection has repeated a segment in vain. */
  noteDoubt(): void {
    this.isInDoubt = true
  }

  notePassedOver(): void {
    this.hasPassedOver = true
  }

  /** Whether one has since this was asked last. */
  takeDoubt(): boolean {
    const { isInDoubt } = this
    this.isInDoubt = false
    return isInDoubt
  }

  /** There is no connection, except those that {@link remembers} speaks of. */
  get isEmpty(): boolean {
    return this.connections.size === 0
  }

  /** Connections in TIME-WAIT. */
  get remembers(): boolean {
    return this.waits.size > 0
  }

  /** Nothing carries these connections any more: each that `isLost` says so of ends with `error`. */
  endWhere(isLost: (flow: Flow) => boolean, error: Error): void {
    this.waits.removeWhere(isLost)
    for (const connection of [...this.connections.values()].flat()) {
      if (!isLost(connection)) continue
      this.closed(connection, error)
      this.remove(connection)
    }
  }

  /** The SA is about to go: every connection that is not done ends with `error` here, and with a reset at the peer. */
  resetAll(error: Error): void {
    this.waits.removeWhere(() => true)
    for (const connection of [...this.connections.values()].flat()) {
      const isDone = connection.finReceived && connection.finSent
      if (!isDone && connection.isOwned)
        this.reset(connection, connection.sndNxt, connection.rcvNxt)
      this.closed(connection, isDone ? undefined : error)
      this.remove(connection)
    }
  }

  get hasResets(): boolean {
    return this.resets.length > 0
  }

  /**
   * The SA is gone: every connection ends with `error`, and nothing is sent. `orderly`: the peer ended
   * it when its TCP was done, so where both ends have said FIN nothing was lost but the last ACK.
   */
  abortAll(error: CloseReason | Error, orderly: boolean): void {
    this.waits.removeWhere(() => true)
    for (const chain of [...this.connections.values()]) {
      for (const connection of [...chain]) {
        // Whoever has heard the peer's end, and has nothing under way, loses nothing.
        const isDone =
          orderly && connection.finReceived && (connection.finSent || !connection.awaitsAck)
        this.closed(connection, isDone ? undefined : error)
      }
    }
    for (const chain of [...this.connections.values()]) {
      for (const connection of [...chain]) this.remove(connection)
    }
    this.resets.length = 0
    this.acks.length = 0
  }
}

/** A signed number of 32 bits, which a map finds faster than a larger one. */
const keyOf = (flow: Flow): number => (flow.remotePort << 16) | flow.localPort

/** The copy of an address in a short list, newest first. */
const remember = (addresses: Uint8Array[], address: Uint8Array): Uint8Array => {
  const known = addresses.find(other => equal(other, address))
  if (known !== undefined) return known
  const own = copy(address)
  addresses.unshift(own)
  addresses.length = Math.min(addresses.length, MAX_ADDRESSES)
  return own
}
