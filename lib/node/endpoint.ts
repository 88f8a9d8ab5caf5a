/**
 * A core with its UDP socket, its clock and its one timer: the only loop there is. Datagrams and time are
 * fed in, then everything that came of them is sent, then owners hear about it, in that order and never
 * nested, so no owner is called while the core is half-way through a change.
 */
import { constants } from 'node:os'
import { equal } from '../base/bytes.ts'
import { socketError } from '../base/errors.ts'
import { Packet } from '../base/packet.ts'
import type { Path } from '../base/path.ts'
import type { Tracer } from '../base/trace.ts'
import type { Millis } from '../base/environment.ts'
import { Core, type Gateway, type Responder } from '../core/core.ts'
import type {
  Answer,
  Attempt,
  Connection,
  ConnectRequest,
  CoreEvent,
  Question,
  SessionHandle,
} from '../core/events.ts'
import { DEFAULT_TCP_CONFIG, type TcpConfig } from '../core/tcp-config.ts'
import { monotonicNow, systemEnvironment } from './environment.ts'
import { askForWay } from './reachability.ts'
import { placeOf } from './place.ts'
import { UdpSocket } from './udp-socket.ts'

/** A socket, as the endpoint sees it. Called after the drain. */
export interface ConnectionOwner {
  /** The SAs are up; TCP follows. */
  onSession(session: SessionHandle): void
  onConnected(connection: Connection): void
  onReadable(): void
  onWritable(): void
  /** The peer's FIN; what came before it may still have to be read. */
  onEnded(): void
  /** Once, last; also when it never connected. */
  onClosed(error: Error | undefined): void
}

/** A server, as the endpoint sees it. */
export interface ListenerOwner {
  /** Undefined: it is not wanted. */
  onConnection(connection: Connection, session: SessionHandle): ConnectionOwner | undefined
}

/** What concerns no single connection. */
export interface EndpointWatcher {
  onRefused(error: Error, identity: string | undefined, path: Path): void
  onSessionUp(session: SessionHandle): void
  onSessionDown(session: SessionHandle, error: Error | undefined): void
  /** A rejection is no answer. */
  onQuestion(question: Question): Promise<Answer>
}

/** IKE without ESP beside it begins there (RFC 7296 §2), */
const BARE_PORT = 500
/** and goes on here, because ESP comes in UDP (§2.23). */
const FLOATED_PORT = 4500

const portsFrom = (port: number): number[] =>
  port === BARE_PORT ? [BARE_PORT, FLOATED_PORT] : [port]

/** What the system says of a datagram that has no way to its destination. */
const NO_WAY: ReadonlySet<string> = new Set([
  'EACCES',
  'EADDRNOTAVAIL',
  'EHOSTDOWN',
  'EHOSTUNREACH',
  'EMSGSIZE',
  'ENETDOWN',
  'ENETUNREACH',
  'EPERM',
])

/** Datagrams to send before others get their turn; the rest follows in the next one. */
const BURST = 128
/** Turns of sending when the process ends: enough for 10,000 SAs. */
const LAST_TURNS = 100
/** How long an end that closes waits for its peers to confirm. */
const CLOSE_PATIENCE = 2000

export interface EndpointOptions {
  readonly tracer: Tracer
  readonly tcp?: Partial<TcpConfig> | undefined
  readonly responder?: Responder | undefined
  readonly watcher: EndpointWatcher
}

/** Endpoints of this process with SAs whose peers are to be told when it ends. */
const live = new Set<Endpoint>()

export class Endpoint {
  readonly core: Core
  private readonly watcher: EndpointWatcher
  private readonly packet = new Packet()
  /** One, or two where IKE begins at port 500; a path names the one it belongs to by its place. */
  private sockets: UdpSocket[] = []
  private gateway: Gateway | undefined
  /** The gateway's, as text with a zone, if it has one. */
  private address: string | undefined
  /** The system was asked whether there is a way to the gateway. */
  private endQuestion: (() => void) | undefined
  /** Attempts that came before the socket was ready. */
  private readonly waiting = new Set<{ start(): void; fail(error: Error): void }>()
  private readonly listeners = new Map<number, ListenerOwner>()
  private timer: NodeJS.Timeout | undefined
  private timerAt: Millis = Infinity
  private isDraining = false
  private isScheduled = false
  private isTickScheduled = false
  /** Until the next turn of the event loop no event is delivered. */
  private holdsEvents = false
  private refs = 0
  private onIdle: (() => void) | undefined
  private onDrained: (() => void) | undefined
  private holdsForOrphans = false
  private closed = false

  constructor(options: EndpointOptions) {
    this.watcher = options.watcher
    this.core = new Core({
      environment: systemEnvironment,
      tracer: options.tracer,
      tcp: { ...DEFAULT_TCP_CONFIG, ...options.tcp },
      responder: options.responder,
    })
    if (live.size === 0) process.on('exit', Endpoint.onExit)
    live.add(this)
  }

  // --- opening ---

  /** A client: connected towards one gateway. */
  openTowards(
    address: string,
    port: number,
    remote: Uint8Array,
    responder: Responder,
    onFailure: () => void,
  ): void {
    this.address = address
    const ports = portsFrom(port)
    const paths: Path[] = []
    const next = (): void => {
      const [to] = ports.splice(0, 1)
      if (to === undefined) {
        this.enableCrashTokens()
        const [first, floatsTo] = paths
        this.gateway = { ...responder, path: floatsTo ? { ...first!, floatsTo } : first! }
        // Before any datagram, because a router says it a few times only. We reach ourselves.
        if (!equal(first!.localAddress, remote)) this.askForWay(address, port)
        for (const attempt of this.takeWaiting()) attempt.start()
        return
      }
      const socket = this.makeSocket(remote.length === 4 ? 4 : 6, false, to === BARE_PORT)
      socket.connect(to, address, error => {
        if (error === undefined) {
          paths.push(socket.path(remote, to))
          return next()
        }
        onFailure()
        const { code = 'EIO' } = error
        const failure = withNumber(socketError({ code, syscall: 'connect', address, port: to }))
        for (const attempt of this.takeWaiting()) attempt.fail(failure)
      })
    }
    next()
  }

  private takeWaiting(): readonly { start(): void; fail(error: Error): void }[] {
    const waiting = [...this.waiting]
    this.waiting.clear()
    return waiting
  }

  /** A server: bound, for whoever comes. */
  bind(
    address: string | undefined,
    port: number,
    ipv6Only: boolean,
    done: (error?: NodeJS.ErrnoException) => void,
  ): void {
    const ports = portsFrom(port)
    const next = (error?: NodeJS.ErrnoException): void => {
      const [at] = ports.splice(0, 1)
      if (error === undefined && at === undefined) this.enableCrashTokens()
      if (error !== undefined || at === undefined) return done(error)
      this.bindOne(address, at, ipv6Only, next)
    }
    next()
  }

  private enableCrashTokens(): void {
    const { address, port } = this.sockets[0]!.address()
    this.core.enableCrashTokens(placeOf(address, port), this.now())
  }

  private bindOne(
    address: string | undefined,
    port: number,
    ipv6Only: boolean,
    done: (error?: NodeJS.ErrnoException) => void,
  ): void {
    const bare = port === BARE_PORT
    if (address !== undefined) {
      const family = address.includes(':') ? 6 : 4
      return this.makeSocket(family, ipv6Only, bare).bind(port, address, done)
    }
    // As net does: both families when the system has IPv6.
    const both = this.makeSocket(6, ipv6Only, bare)
    both.bind(port, '::', error => {
      if (error?.code !== 'EAFNOSUPPORT' && error?.code !== 'EADDRNOTAVAIL') return done(error)
      both.close()
      this.sockets.pop()
      this.makeSocket(4, false, bare).bind(port, '0.0.0.0', done)
    })
  }

  private makeSocket(family: 4 | 6, ipv6Only: boolean, bare: boolean): UdpSocket {
    const socket = new UdpSocket(this.sockets.length, family, ipv6Only, bare, {
      onDatagram: (bytes, path) => {
        this.core.handleDatagram(bytes, path, this.now())
        this.schedule()
      },
      onError: error => this.handleSocketError(error),
    })
    this.sockets.push(socket)
    if (this.refs === 0) socket.unref()
    return socket
  }

  /** What the system reports is believed only while nothing authenticated says otherwise (RFC 7296 §2.4). */
  private handleSocketError({ code }: NodeJS.ErrnoException): void {
    if (code === 'ECONNREFUSED') this.core.handleRefusal(this.now())
    else if (code !== undefined && NO_WAY.has(code)) this.core.handleNoWay(code, this.now())
    this.schedule()
  }

  /** Linux tells a `dgram` socket less than it knows. */
  private askForWay(address: string, port: number): void {
    this.endQuestion ??= askForWay(
      address,
      port,
      code => {
        this.core.handleNoWay(code, this.now())
        this.schedule()
      },
      () => (this.endQuestion = undefined),
    )
  }

  /** There is an SA of a client that answers as far as is known. */
  get isLive(): boolean {
    return this.core.isLive
  }

  get udpAddress(): { address: string; port: number; family: 'IPv4' | 'IPv6' } | undefined {
    return this.sockets[0]?.address()
  }

  /** Datagrams that have come in; at a client only its peer's do. */
  get heard(): number {
    return this.core.counters.datagramsIn
  }

  now(): Millis {
    return monotonicNow()
  }

  // --- commands ---

  /** Starts a connection; the returned function gives it up. */
  connect(request: ConnectRequest, owner: ConnectionOwner): () => void {
    let attempt: Attempt | undefined
    const start = (): void => {
      attempt = this.core.connect(this.gateway!, request, owner, this.now())
      this.wake()
    }
    const waiting = { start, fail: (error: Error) => owner.onClosed(error) }
    if (this.gateway === undefined) this.waiting.add(waiting)
    else start()
    return () => {
      this.waiting.delete(waiting)
      if (attempt === undefined) return
      this.core.cancel(attempt, this.now())
      this.wake()
    }
  }

  /** Undefined when the inner port is taken. */
  listen(port: number, backlog: number, owner: ListenerOwner): (() => void) | undefined {
    const listener = this.core.listeners.listen(port, backlog)
    if (listener === undefined) return undefined
    this.listeners.set(port, owner)
    return () => {
      this.listeners.delete(port)
      this.core.listeners.close(listener)
    }
  }

  /** After commands on a connection: what they made ready goes out at the end of this tick. */
  wake(connection?: Connection): void {
    if (connection !== undefined) this.core.wake(connection, this.now())
    if (this.isTickScheduled || this.closed) return
    this.isTickScheduled = true
    process.nextTick(() => {
      this.isTickScheduled = false
      this.drain()
    })
  }

  /** After a command on a session. */
  touch(session: SessionHandle): void {
    this.core.touchSession(session, this.now())
    this.wake()
  }

  // --- the loop ---

  private schedule(): void {
    if (this.isScheduled || this.closed) return
    this.isScheduled = true
    const immediate = setImmediate(() => {
      this.isScheduled = false
      this.holdsEvents = false
      this.drain()
    })
    if (this.refs === 0) immediate.unref()
  }

  private drain(): void {
    if (this.isDraining || this.closed) return
    this.isDraining = true
    try {
      const now = this.now()
      if (this.core.nextTimeout() <= now) this.core.handleTimeout(now)
      if (this.transmit(now)) this.schedule()
      while (!this.holdsEvents) {
        const event = this.core.pollEvent()
        if (event === undefined) break
        this.deliver(event)
        // As with net, whoever awaited this can listen before anything else happens to the connection.
        if (event.kind !== 'accepted' && event.kind !== 'connected') continue
        this.holdsEvents = true
        this.schedule()
      }
    } finally {
      this.isDraining = false
    }
    this.holdForOrphans()
    this.arm()
    if (!this.holdsEvents && this.core.isIdle) this.onIdle?.()
    this.onDrained?.()
  }

  /** True when there is more to send than one turn may. */
  private transmit(now: Millis): boolean {
    const { sockets, packet } = this
    if (sockets.length === 0) return false
    for (let sent = 0; sent < BURST; sent++) {
      for (const socket of sockets) {
        if (socket.isCongested) return true
      }
      const path = this.core.pollTransmit(packet, now)
      if (path === undefined) return false
      sockets[path.socket]!.send(packet.view(), path)
    }
    return true
  }

  private arm(): void {
    const next = this.closed ? Infinity : this.core.nextTimeout()
    if (next === this.timerAt) return
    // A timer that fires early finds nothing due and is set anew: cheaper than one for each change.
    if (this.timer !== undefined && next > this.timerAt && next < Infinity) return
    clearTimeout(this.timer)
    this.timer = undefined
    this.timerAt = next
    if (next === Infinity) return
    this.timer = setTimeout(
      () => {
        this.timer = undefined
        this.timerAt = Infinity
        this.drain()
      },
      Math.min(Math.max(1, Math.ceil(next - this.now())), 2 ** 31 - 1),
    )
    if (this.refs === 0) this.timer.unref()
  }

  private deliver(event: CoreEvent): void {
    switch (event.kind) {
      case 'session':
        return (event.attempt.context as ConnectionOwner).onSession(event.session)
      case 'connected':
        return (event.attempt.context as ConnectionOwner).onConnected(event.connection)
      case 'failed':
        return (event.attempt.context as ConnectionOwner).onClosed(withNumber(event.error))
      case 'accepted': {
        const owner = this.listeners.get(event.port)?.onConnection(event.connection, event.session)
        event.connection.context = owner
        if (owner !== undefined) return
        // As net does: the connection of a client that is not wanted is closed like any other.
        event.connection.release(this.now())
        return this.wake(event.connection)
      }
      case 'readable':
        return ownerOf(event.connection)?.onReadable()
      case 'writable':
        return ownerOf(event.connection)?.onWritable()
      case 'ended':
        return ownerOf(event.connection)?.onEnded()
      case 'closed':
        return ownerOf(event.connection)?.onClosed(withNumber(event.error))
      case 'question':
        return void this.answer(event.id, this.watcher.onQuestion(event.question))
      case 'sessionUp':
        return this.watcher.onSessionUp(event.session)
      case 'sessionDown':
        return this.watcher.onSessionDown(event.session, event.error)
      case 'unanswered':
        if (event.isOpening && event.times === 2)
          this.askForWay(this.address!, event.path.remotePort)
        return
      case 'rekeyRefused': {
        const { code, message } = event.error
        return process.emitWarning(`An SA cannot be renewed: ${message}`, { code })
      }
      case 'refused':
        return this.watcher.onRefused(event.error, event.identity, event.path)
      default:
        return event satisfies never
    }
  }

  private async answer(id: number, answer: Promise<Answer>): Promise<void> {
    const given = await answer.catch(() => ({}))
    this.core.answer(id, given, this.now())
    this.wake()
  }

  // --- lifetime ---

  ref(): void {
    if (this.refs++ > 0) return
    for (const socket of this.sockets) socket.ref()
    this.timer?.ref()
  }

  unref(): void {
    if (--this.refs > 0) return
    for (const socket of this.sockets) socket.unref()
    this.timer?.unref()
  }

  /** As with a kernel's TCP, what was written goes out even when the program is done. */
  private holdForOrphans(): void {
    const needed = this.core.hasUndelivered
    if (needed === this.holdsForOrphans) return
    this.holdsForOrphans = needed
    if (needed) this.ref()
    else this.unref()
  }

  /** Called whenever no SA is left. */
  whenIdle(then: (() => void) | undefined): void {
    this.onIdle = then
  }

  /** Deletes all SAs; `whenIdle` tells when the peers have agreed or are given up. */
  closeSessions(): void {
    this.core.close(this.now())
    this.wake()
  }

  /** Deletes all SAs and calls back when the peers have agreed, or do not answer soon enough. */
  lingerAndClose(done: () => void): void {
    let patience: NodeJS.Timeout | undefined
    const finish = (): void => {
      this.onDrained = undefined
      clearTimeout(patience)
      done()
    }
    this.onDrained = () => {
      if (this.core.isSettled) finish()
      else if (this.core.connectionCount === 0) patience ??= setTimeout(finish, CLOSE_PATIENCE)
    }
    this.closeSessions()
  }

  /** RFC 7296 §1.4.1: the process ends; peers are told, and nobody here is told anything any more. */
  private farewell(): void {
    if (this.closed) return
    const now = this.now()
    this.core.closeNow(now)
    for (let turns = 0; turns < LAST_TURNS && this.transmit(now); turns++);
    this.destroy()
  }

  /** `dgram` hands a datagram to the system within the call, so this works in 'exit' too. */
  static readonly onExit = (): void => {
    for (const endpoint of [...live]) endpoint.farewell()
  }

  destroy(): void {
    if (this.closed) return
    this.closed = true
    live.delete(this)
    if (live.size === 0) process.removeListener('exit', Endpoint.onExit)
    clearTimeout(this.timer)
    this.timer = undefined
    this.endQuestion?.()
    for (const socket of this.sockets) socket.close()
  }
}

const ownerOf = (connection: Connection): ConnectionOwner | undefined =>
  connection.context as ConnectionOwner | undefined

/** `errno` as Node gives it: the system's number, negative. */
export const withNumber = <E extends Error | undefined>(error: E): E => {
  const code = (error as NodeJS.ErrnoException | undefined)?.code
  const number =
    code === undefined ? undefined : constants.errno[code as keyof typeof constants.errno]
  return error === undefined || number === undefined || 'errno' in error
    ? error
    : Object.assign(error, { errno: -number })
}
