/**
 * A core with its UDP socket, its clock and its one timer: the only loop there is. Datagrams and time are
 * fed in, then owners hear what came of them, then everything that is ready is sent, in that order and never
 * nested, so no owner is called while the core is half-way through a change, and what an owner answers goes
 * out with the acknowledgement of what it was told.
 */
import { constants } from 'node:os'
import { formatAddress, parseAddress } from '../base/address.ts'
import { equal } from '../base/bytes.ts'
import { socketError } from '../base/errors.ts'
import type { Path } from '../base/path.ts'
import type { Tracer } from '../base/trace.ts'
import type { Environment, Millis } from '../base/environment.ts'
import { addresseeOf } from '../core/addressee.ts'
import { Core, type Gateway, type Responder } from '../core/core.ts'
import type {
  Answer,
  Attempt,
  Connection,
  ConnectRequest,
  CoreEvent,
  PacketSizes,
  Passage,
  Question,
  SessionHandle,
  UdpDatagram,
  UdpFlow,
} from '../core/events.ts'
import { DEFAULT_TCP_CONFIG, type TcpConfig } from '../core/tcp-config.ts'
import { afterTicks } from './after-ticks.ts'
import { monotonicNow, systemEnvironment } from './environment.ts'
import { systemNetwork, type Network, type NetworkWatcher } from './network.ts'
import { askForWay } from './reachability.ts'
import { Packets } from './packets.ts'
import { placeOf } from './place.ts'
import type { GroupPlace } from './meeting-place.ts'
import { PortBorrower, PortOwner, type Joined, type OwnerHost } from './port-group.ts'
import { UdpSocket, type Carrier, type UdpSocketOptions } from './udp-socket.ts'

/** A socket, as the endpoint sees it. Called after the drain. */
export interface ConnectionOwner {
  /** The SAs are up; TCP follows. */
  onSession(session: SessionHandle): void
  onConnected(connection: Connection): void
  /** In the place of `onConnected`, where datagrams were asked for: they can be sent between these ends. */
  onAssociated?(session: SessionHandle, flow: UdpFlow): void
  onReadable(): void
  onWritable(): void
  /** The peer's FIN; what came before it may still have to be read. */
  onEnded(): void
  /** Once, last; also when it never connected. */
  onClosed(error: Error | undefined): void
}

/** `passage`: what the answer shows of the path, where there is one. */
type PingDone = (error: Error | undefined, took: Millis, passage?: Passage) => void

/** A server, as the endpoint sees it. */
export interface ListenerOwner {
  /** Whether that session may have connections here at all. */
  admits(session: SessionHandle): boolean
  /** Undefined: it is not wanted. */
  onConnection(connection: Connection, session: SessionHandle): ConnectionOwner | undefined
}

/** A port for datagrams, as the endpoint sees it. */
export interface DatagramOwner {
  admits(session: SessionHandle): boolean
  onDatagram(datagram: UdpDatagram, session: SessionHandle): void
}

/** What concerns no single connection. */
export interface EndpointWatcher {
  onRefused(error: Error, identity: string | undefined, path: Path): void
  onSessionUp(session: SessionHandle): void
  onSessionDown(session: SessionHandle, error: Error | undefined): void
  /** `of`: the context of the gateway that it is about; undefined: a peer came to us. A rejection is no answer. */
  onQuestion(question: Question, of: unknown): Promise<Answer>
}

/** IKE without ESP beside it begins there (RFC 7296 §2), */
const UNMARKED_PORT = 500
/** and goes on here, because ESP comes in UDP (§2.23). */
const FLOATED_PORT = 4500

const portsFrom = (port: number): number[] =>
  port === UNMARKED_PORT ? [UNMARKED_PORT, FLOATED_PORT] : [port]

/** What the system says of a datagram that has no way to its destination. */
const NO_WAY: ReadonlySet<string> = new Set([
  'EACCES',
  'EADDRNOTAVAIL',
  'EHOSTDOWN',
  'EHOSTUNREACH',
  'EINVAL',
  'ENETDOWN',
  'ENETUNREACH',
  'EPERM',
])

/** Datagrams to send before others get their turn; the rest follows in the next one. */
const BURST = 128
/** Ours: as many full turns one after the other are more than what a window of TCP may bring. */
const BEHIND_TURNS = 8
/** Ours: a timeout that is noticed later than this tells that the process was busy. */
const LATE: Millis = 5
/** Ours: for so many full turns in a row timeouts wait until what has come is read. */
const READING_TURNS = 64
/** Turns of sending when the process ends: enough for 10,000 SAs. */
const LAST_TURNS = 100
/** Ours: after this many unanswered transmissions other addresses of the gateway are tried. */
const TRIES_BEFORE_OTHERS = 3
/** Ours: the way is not looked for more often, whatever fails. */
const LOOK_INTERVAL: Millis = 200
/** Addresses of every host for itself, whichever of them it speaks from. */
const LOOPBACK = /^(127\.|::1$)/
/** Ours: how long the peers of an end that closes may take to end their halves of connections too. */
const HALF_OPEN_TIMEOUT = 1000
/** How long an end that closes waits for its peers to confirm. */
const CLOSE_TIMEOUT = 2000

/** Ours: the waits of a borrower whose owner is gone, while neither it nor another one gets the port. */
const FIRST_REGAIN: Millis = 10
const LONGEST_REGAIN: Millis = 500

/** What a socket is for; by which road it speaks to the system is the endpoint's. */
type SocketPlan = Omit<UdpSocketOptions, 'isAccelerated'>

type Bound = (error?: NodeJS.ErrnoException) => void

export interface EndpointOptions {
  readonly tracer: Tracer
  readonly tcp?: Partial<TcpConfig> | undefined
  readonly responder?: Responder | undefined
  readonly watcher: EndpointWatcher
  /** What is known of the network under this process. Default: what the system tells. */
  readonly network?: Network | undefined
  /** Its sockets send and receive by native functions, which must be there (base/ffi.ts). Default: no. */
  readonly isAccelerated?: boolean | undefined
}

/** A gateway to which an endpoint that is bound opens sessions, beside others. */
export interface RemoteGateway extends Responder {
  /** Those with one name share a session. */
  readonly name: string
  /** An IP address, `remote` as text, with a zone if it has one. */
  readonly address: string
  readonly remote: Uint8Array
  readonly port: number
  /** Questions of its sessions carry it. */
  readonly context: unknown
}

/** A question to a peer; `done` gets the milliseconds until its answer, or why there is none. */
interface Ping {
  readonly at: Millis
  readonly done: PingDone
}

/** Where a client's gateway is: `address` is `remote` as text, with a zone if it has one. */
interface Target {
  readonly address: string
  readonly port: number
  readonly remote: Uint8Array
}

/** Every datagram of this process is built here. */
const packets = new Packets()

/** Endpoints of this process with SAs whose peers are to be told when it ends. */
const live = new Set<Endpoint>()

export class Endpoint implements NetworkWatcher {
  readonly core: Core
  private readonly watcher: EndpointWatcher
  private readonly network: Network
  private readonly isAccelerated: boolean
  /** Its SPIs have a mark where others share its port. */
  private readonly environment: Environment & { spiMark?: number | undefined } = {
    ...systemEnvironment,
  }
  private portOwner: PortOwner | undefined
  private portBorrower: PortBorrower | undefined
  /** One, or two where IKE begins at port 500; a path names the one it belongs to by its place. */
  private sockets: Carrier[] = []
  private gateway: Gateway | undefined
  /** Where a client's gateway is: its address as text with a zone, if it has one. */
  private target: Target | undefined
  /** The way to it is looked for, or its sockets are being opened again. */
  private isLooking = false
  private lookedAt: Millis = -Infinity
  /** What the system said of a datagram since. */
  private trouble: string | undefined
  /** There was no way to the gateway when it was last looked for. */
  isLost = false
  private endWatch: (() => void) | undefined
  /** It is bound to all addresses of the host. */
  private isServer = false
  /** Paths to other addresses of the gateway, which have been tried, and whose turn it is. */
  private readonly others = new Map<string, Path>()
  private turn = 0
  private isTrying = false
  /** The system was asked whether there is a way to the gateway. */
  private endQuestion: (() => void) | undefined
  /** Its sockets are open. */
  private isReady = false
  /** Attempts that came before. */
  private readonly waiting = new Set<{ start(): void; fail(error: Error): void }>()
  private readonly listeners = new Map<number, ListenerOwner>()
  private readonly datagramOwners = new Map<number, DatagramOwner>()
  /** Those that are up. */
  readonly sessions = new Set<SessionHandle>()
  /** Those that are not answered yet, by session and ticket. */
  private readonly pings = new Map<SessionHandle, Map<number, Ping>>()
  private nextPing = 1
  private timer: NodeJS.Timeout | undefined
  private timerAt: Millis = Infinity
  private isDraining = false
  /** Datagrams that had come before this turn, and turns in a row that brought as many as one can. */
  private heardBefore = 0
  private fullTurns = 0
  /** A timeout is late, and since that was noticed the system was asked for datagrams. */
  private hasReadSince = false
  private scheduled: NodeJS.Immediate | undefined
  private isTickScheduled = false
  /** A datagram has come, and what follows from it is not done yet. */
  private hasHeard = false
  /** Datagrams come one by one, and the next one is the first of its turn: what answers it waits for no other. */
  private isQuiet = true
  /** Connections that their owners got in this turn of the event loop; what else there is of them comes in the next one. */
  private readonly greeted = new Set<Connection>()
  private later: CoreEvent[] = []
  /** Behind the immediates of this turn's owners. */
  private isTurnMoved = false
  /** Events of the last turn that are delivered now, before others. */
  private due: CoreEvent[] = []
  /** The program does in ticks and microtasks what follows from a connection; then the drain goes on. */
  private isPaused = false
  private refs = 0
  private onIdle: (() => void) | undefined
  private onDrained: (() => void) | undefined
  private holdsForOrphans = false
  private closed = false
  private isClosing = false

  constructor(options: EndpointOptions) {
    this.watcher = options.watcher
    this.network = options.network ?? systemNetwork
    this.isAccelerated = options.isAccelerated === true
    this.core = new Core({
      environment: this.environment,
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
    const target = { address, port, remote }
    this.target = target
    this.connectAll(target, this.sockets, undefined, (paths, error) => {
      if (this.closed) return
      if (error !== undefined) {
        onFailure()
        return this.failWaiting(error, target)
      }
      const path = joined(paths)
      this.enableCrashTokens()
      this.gateway = { ...responder, path }
      // Before any datagram, because a router says it a few times only. We reach ourselves.
      if (!equal(path.localAddress, remote)) this.askForWay(target)
      this.endWatch = this.network.watch(this)
      this.startWaiting()
    })
  }

  private startWaiting(): void {
    this.isReady = true
    for (const attempt of this.takeWaiting()) attempt.start()
  }

  private failWaiting({ code = 'EIO' }: NodeJS.ErrnoException, where?: Target): void {
    const { address, port } = where ?? {}
    const failure = socketError({ code, syscall: 'connect', address, port })
    for (const attempt of this.takeWaiting()) attempt.fail(withNumber(failure))
  }

  /** Opens a socket towards each port of the gateway; `from`: the address to have, and ports if they are free. */
  private connectAll(
    { address, port, remote }: Target,
    sockets: Carrier[],
    from: { readonly source: string; readonly ports: readonly number[] } | undefined,
    done: (paths: readonly Path[], error?: NodeJS.ErrnoException) => void,
  ): void {
    const ports = portsFrom(port)
    const paths: Path[] = []
    const next = (): void => {
      const at = paths.length
      const to = ports[at]
      if (to === undefined) return done(paths)
      const open = (own: number): void => {
        const socket = this.makeSocket({ ...towards(remote), isUnmarked: to === UNMARKED_PORT }, at)
        sockets[at] = socket
        const connect = (): void =>
          socket.connect(to, address, error => {
            if (error !== undefined) return done(paths, error)
            paths.push(socket.path(remote, to))
            next()
          })
        if (from === undefined) return connect()
        socket.bind(own, from.source, error => {
          if (error === undefined) return connect()
          if (own === 0) return done(paths, error)
          socket.close()
          open(0)
        })
      }
      open(from?.ports[at] ?? 0)
    }
    next()
  }

  // --- roaming ---

  /** The addresses of this host have changed, or there was no way and may be one. */
  onChange(): void {
    if (this.isServer) this.tellAddresses()
    else this.lookForWay(false)
  }

  /** A server that is bound to all addresses has other ones when the host has. */
  private tellAddresses(): void {
    const addresses = this.network.addresses.flatMap(text => parseAddress(text) ?? [])
    this.core.setOwnAddresses(addresses, this.now())
    this.schedule()
  }

  /** The gateway is asked at another address that it has told of (RFC 4555 §3.4): each has its turn. */
  private tryOther(left = this.core.otherAddresses.length): void {
    const { target, gateway } = this
    const { otherAddresses: others } = this.core
    if (target === undefined || gateway === undefined || others.length === 0 || left === 0) return
    const remote = others[this.turn++ % others.length]!
    const { floatsTo = gateway.path } = gateway.path
    if (equal(remote, target.remote)) return this.tryPath(floatsTo)
    const address = formatAddress(remote)
    const known = this.others.get(address)
    if (known !== undefined) return this.tryPath(known)
    if (this.isTrying) return
    this.isTrying = true
    const { sockets } = this
    const socket = this.makeSocket({ ...towards(remote), isUnmarked: false }, sockets.length)
    socket.connect(floatsTo.remotePort, address, error => {
      this.isTrying = false
      if (error !== undefined || this.closed || this.sockets !== sockets) {
        socket.close()
        return this.closed ? undefined : this.tryOther(left - 1)
      }
      sockets.push(socket)
      const path = socket.path(remote, floatsTo.remotePort)
      this.others.set(address, path)
      this.tryPath(path)
    })
  }

  /** No other address of the gateway is in use, or tried. */
  private isByTarget({ port }: Target): boolean {
    return (this.core.clientPath?.socket ?? 0) < portsFrom(port).length
  }

  private tryPath(path: Path): void {
    this.core.tryPath(path, this.now())
    this.schedule()
  }

  /** `isInDoubt`: datagrams do not go out, or nothing answers them; `code`: what the system said of one. */
  private lookForWay(isInDoubt: boolean, code?: string): void {
    const { target, gateway } = this
    if (target === undefined || gateway === undefined || this.closed) return
    this.trouble ??= code
    if (this.isLooking || (isInDoubt && this.now() - this.lookedAt < LOOK_INTERVAL)) return
    this.isLooking = true
    this.lookedAt = this.now()
    this.network.sourceTowards(target.address, target.port, source => {
      this.isLooking = false
      if (!this.closed) this.noteSource(target, source, isInDoubt)
    })
  }

  /** A datagram to the gateway would have that address now; undefined: there is no way. */
  private noteSource(target: Target, source: string | undefined, isInDoubt: boolean): void {
    const own = this.sockets[0]!.address().address
    const wasLost = this.isLost
    // A route may lead to a link that is down: then the system does not list its address.
    this.isLost = source === undefined || !this.network.has(source)
    if (source === undefined || source === own) {
      if (wasLost && !this.isLost) this.core.seekGateway(this.now())
      else if (source === undefined && this.isByTarget(target)) this.tryOther()
      return this.noteNoWay()
    }
    // What still works goes on; when the peer does not answer, we come back here.
    if (!isInDoubt && this.network.has(own)) {
      this.core.askGateway(this.now())
      return this.schedule()
    }
    this.reopen(target, source)
  }

  /** The sockets are made again, from another address, with the same ports if those are free. */
  private reopen(target: Target, source: string): void {
    this.isLooking = true
    const ports = portsFrom(target.port).map((_, at) => this.sockets[at]!.address().port)
    const sockets: Carrier[] = []
    this.connectAll(target, sockets, { source, ports }, (paths, error) => {
      this.isLooking = false
      this.isLost = error !== undefined
      const isUseless = this.isLost || this.closed
      for (const socket of isUseless ? sockets : this.sockets) socket.close()
      if (isUseless) return this.noteNoWay()
      this.trouble = undefined
      this.sockets = sockets
      this.others.clear()
      if (this.refs > 0) for (const socket of sockets) socket.ref()
      const path = joined(paths)
      this.gateway = { ...this.gateway!, path }
      this.core.reroute(path, this.now())
      this.schedule()
    })
  }

  /** There is no other way than the one of which the system has said something. */
  private noteNoWay(): void {
    const { trouble } = this
    this.trouble = undefined
    if (trouble !== undefined) this.core.handleNoWay(trouble, this.now())
    this.schedule()
  }

  private takeWaiting(): readonly { start(): void; fail(error: Error): void }[] {
    const waiting = [...this.waiting]
    this.waiting.clear()
    return waiting
  }

  /**
   * Bound, for whoever comes, at each of these addresses; undefined: at all that the host has. Port 0: any, one for all.
   * Where another worker of this cluster, or thread of this process, has the port, and `print` is the same there, it is
   * shared.
   */
  bind(place: GroupPlace, print: () => string, done: Bound): void {
    if (place.addresses.includes(undefined)) {
      this.isServer = true
      this.endWatch = this.network.watch(this)
      this.tellAddresses()
    }
    const settled: Bound = error => {
      // It may have been given up meanwhile.
      if (this.closed) return
      if (error !== undefined) {
        this.failWaiting(error)
        return done(error)
      }
      this.enableCrashTokens()
      done()
      this.startWaiting()
    }
    if (place.reusePort) return this.bindShared(place, print, settled)
    this.bindAll(place, error => {
      if (error === undefined) this.own(place, print)
      if (error?.code !== 'EADDRINUSE' || place.port === 0 || this.closed) return settled(error)
      this.borrow(place, print, joined => {
        if (joined === 'refused') settled(otherOptions(place))
        else settled(joined === undefined ? error : undefined)
      })
    })
  }

  private bindAll(where: GroupPlace, done: Bound): void {
    const { addresses, port } = where
    const places = addresses.flatMap(address => portsFrom(port).map(at => ({ address, at })))
    const next = (error?: NodeJS.ErrnoException): void => {
      const place = places.shift()
      if (error === undefined && place !== undefined && !this.closed) {
        const { address, at } = place
        const { ipv6Only, reusePort } = where
        const options = { ipv6Only, reusePort, isUnmarked: at === UNMARKED_PORT }
        return this.bindOne(address, at || (this.udpAddress?.port ?? 0), options, next)
      }
      if (error !== undefined) this.closeSockets()
      done(error)
    }
    next()
  }

  private closeSockets(): void {
    for (const socket of this.sockets) socket.close()
    this.sockets = []
  }

  // --- a port that is shared with other processes or threads ---

  private own(place: GroupPlace, print: () => string): void {
    if (place.port === 0 || this.closed) return
    this.portOwner = new PortOwner(place, this.hostWith(print), this.environment.spiMark)
    this.environment.spiMark = this.portOwner.mark
  }

  private hostWith(print: () => string): OwnerHost {
    const { core, sockets } = this
    return {
      print,
      sockets,
      has: addressee => core.has(addressee),
      receive: (bytes, path) => this.receiveLent(bytes, path),
    }
  }

  /** Nothing that comes may be judged before the others are known who may have its SA. */
  private bindShared(place: GroupPlace, print: () => string, done: Bound): void {
    if (place.port === 0) {
      return this.bindAll(place, error => {
        const { port } = this.udpAddress ?? place
        if (error === undefined) this.meet({ ...place, port }, print, done)
        else done(error)
      })
    }
    this.meet(place, print, error => {
      if (error !== undefined) done(error)
      else this.bindAll(place, done)
    })
  }

  /** Finds the others that bind the port, or is the first. */
  private meet(place: GroupPlace, print: () => string, done: Bound): void {
    const again = (wait: Millis): void => {
      if (this.closed) return
      this.meet(place, print, error => {
        if (error === undefined) return
        setTimeout(again, wait * (0.5 + Math.random()), Math.min(2 * wait, LONGEST_REGAIN)).unref()
      })
    }
    const events = {
      // The path is ours, whichever socket it came in on.
      onDatagram: (bytes: Uint8Array, { socket, remoteAddress, remotePort }: Path) => {
        const path = this.sockets[socket]?.path(remoteAddress, remotePort)
        if (path !== undefined) this.receiveLent(bytes, path)
      },
      onLost: () => {
        this.portBorrower = undefined
        again(FIRST_REGAIN)
      },
    }
    const mark = this.environment.spiMark
    PortBorrower.joinOrFound(place, this.hostWith(print), mark, events, joined => {
      if (joined === 'refused') return done(otherOptions(place))
      if (joined instanceof Error) return done(joined)
      if (this.closed) return joined.close()
      if (joined instanceof PortOwner) this.portOwner = joined
      else this.portBorrower = joined
      this.environment.spiMark = joined.mark
      done()
    })
  }

  /** True: the datagram has gone to the worker or thread that has its SA, or to nobody. */
  private isOthers(bytes: Uint8Array, path: Path, { reusePort }: SocketPlan): boolean {
    if (this.portOwner !== undefined) return this.portOwner.take(bytes, path)
    if (!reusePort) return false
    const addressee = addresseeOf(bytes, path.isUnmarked === true)
    const isForAny = addressee.kind === 'newcomer' || addressee.kind === 'none'
    if (isForAny || this.core.has(addressee)) return false
    // Without one in the middle nobody may say that an SA is unknown.
    this.portBorrower?.handOver(bytes, path)
    return true
  }

  private borrow(place: GroupPlace, print: () => string, done: (joined: Joined) => void): void {
    const hello = { print: print(), mark: this.environment.spiMark }
    const events = {
      onDatagram: (bytes: Uint8Array, path: Path) => this.receiveLent(bytes, path),
      onLost: () => this.regain(place, print, FIRST_REGAIN),
    }
    PortBorrower.join(place, hello, events, joined => {
      if (!(joined instanceof PortBorrower)) return done(joined)
      if (this.closed) joined.close()
      else {
        this.portBorrower = joined
        this.environment.spiMark = joined.mark
        this.sockets = [...joined.sockets]
        for (const socket of this.sockets) {
          if (this.refs > 0) socket.ref()
          else socket.unref()
        }
      }
      done(joined)
    })
  }

  /** The owner of the port is gone: we are the next, or another one is. */
  private regain(place: GroupPlace, print: () => string, wait: Millis): void {
    if (this.closed) return
    this.sockets = []
    const again = (): void => {
      const timer = setTimeout(
        () => this.regain(place, print, Math.min(2 * wait, LONGEST_REGAIN)),
        wait * (0.5 + Math.random()),
      )
      if (this.refs === 0) timer.unref()
    }
    this.bindAll(place, error => {
      if (this.closed) return this.closeSockets()
      if (error !== undefined) {
        return this.borrow(place, print, joined =>
          joined instanceof PortBorrower ? this.schedule() : again(),
        )
      }
      this.own(place, print)
      this.schedule()
    })
  }

  private enableCrashTokens(): void {
    const { address, port } = this.sockets[0]!.address()
    this.core.enableCrashTokens(placeOf(address, port), this.now())
  }

  private bindOne(
    address: string | undefined,
    port: number,
    options: Omit<SocketPlan, 'family'>,
    done: (error?: NodeJS.ErrnoException) => void,
  ): void {
    if (address !== undefined) {
      const family = address.includes(':') ? 6 : 4
      const at = this.sockets.length
      const socket = this.makeSocket({ ...options, family }, at)
      this.sockets[at] = socket
      return socket.bind(port, address, done)
    }
    // As net does: both families when the system has IPv6.
    const at = this.sockets.length
    const both = this.makeSocket({ ...options, family: 6 }, at)
    this.sockets[at] = both
    both.bind(port, '::', error => {
      if (error?.code !== 'EAFNOSUPPORT' && error?.code !== 'EADDRNOTAVAIL') return done(error)
      both.close()
      const socket = this.makeSocket({ ...options, family: 4, ipv6Only: false }, at)
      this.sockets[at] = socket
      socket.bind(port, '0.0.0.0', done)
    })
  }

  /** `index`: its place in `sockets`. */
  private makeSocket(options: SocketPlan, index: number): UdpSocket {
    const { isAccelerated } = this
    const socket = new UdpSocket(
      index,
      { ...options, isAccelerated },
      {
        onDatagram: (bytes, path) => {
          if (!this.isOthers(bytes, path, options)) this.receive(bytes, path)
        },
        onTaken: this.answerSoon,
        onRead: () => this.endReading(),
        onError: (error, path) => this.handleSocketError(error, path),
      },
    )
    if (this.refs === 0) socket.unref()
    return socket
  }

  private receive(bytes: Uint8Array, path: Path): void {
    this.core.handleDatagram(bytes, path, this.now())
    this.hasHeard = true
  }

  /** Another process or thread has read it. */
  private receiveLent(bytes: Uint8Array, path: Path): void {
    this.receive(bytes, path)
    if (this.isQuiet) process.nextTick(this.answerSoon)
    else this.answerSoon()
  }

  /** What has come is answered before libuv looks for more, where it is the first of its turn, and else with what follows. */
  private readonly answerSoon = (): void => {
    if (!this.hasHeard) return
    this.hasHeard = false
    try {
      if (this.isQuiet) {
        this.isQuiet = false
        this.drain(false)
      }
    } finally {
      // For what else belongs to a turn there is time afterwards.
      this.schedule()
    }
  }

  /** What the system reports is believed only while nothing authenticated says otherwise (RFC 7296 §2.4). */
  private handleSocketError({ code }: NodeJS.ErrnoException, path: Path | undefined): void {
    const isForOne = code === 'EMSGSIZE' || this.target === undefined
    if (code === 'ECONNREFUSED') this.core.handleRefusal(this.now())
    else if (code !== undefined && isForOne) this.core.handleNoWay(code, this.now(), path)
    else if (code !== undefined && NO_WAY.has(code)) this.lookForWay(true, code)
    this.schedule()
  }

  /** Linux tells a `dgram` socket less than it knows. */
  private askForWay({ address, port }: Target): void {
    if (LOOPBACK.test(address)) return
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

  /** There is an SA of a client that answers as far as is known; `name`: of which gateway, where there may be several. */
  isLive(name?: string): boolean {
    return this.core.isLive(name)
  }

  get isClosed(): boolean {
    return this.closed
  }

  get udpAddress(): { address: string; port: number; family: 'IPv4' | 'IPv6' } | undefined {
    return this.sockets[0]?.address()
  }

  /** Datagrams that have come in; of one gateway: those that belong to its newest session. */
  heard(name?: string): number {
    return name === undefined ? this.core.counters.datagramsIn : this.core.heardFrom(name)
  }

  now(): Millis {
    return monotonicNow()
  }

  // --- commands ---

  /** Asks the peer of a session; `done` gets the milliseconds until its answer, or why there is none. */
  ping(session: SessionHandle, done: PingDone, sizes?: PacketSizes): void {
    const ticket = this.nextPing++
    const at = this.now()
    if (!session.ping(ticket, sizes, at)) {
      const error = socketError({ code: 'ENOTCONN', syscall: 'ping' })
      return void process.nextTick(done, error, 0)
    }
    const pings = this.pings.get(session) ?? new Map<number, Ping>()
    this.pings.set(session, pings.set(ticket, { at, done }))
    // As a look-up of `dns` does, it holds the process until it is answered.
    this.ref()
    this.touch(session)
  }

  private notePinged({ session, ticket, passage }: CoreEvent & { kind: 'pinged' }): void {
    const pings = this.pings.get(session)
    const ping = pings?.get(ticket)
    if (pings === undefined || ping === undefined) return
    pings.delete(ticket)
    if (pings.size === 0) this.pings.delete(session)
    this.unref()
    ping.done(undefined, this.now() - ping.at, passage)
  }

  private failPings(session: SessionHandle, error: Error | undefined): void {
    const pings = this.pings.get(session)
    this.pings.delete(session)
    for (const ping of pings?.values() ?? []) {
      this.unref()
      ping.done(error ?? socketError({ code: 'ECONNRESET', syscall: 'ping' }), 0)
    }
  }

  /**
   * Starts a connection; the returned function gives it up. `towards`: of an endpoint that is bound; else the one gateway
   * that was opened.
   */
  connect(request: ConnectRequest, owner: ConnectionOwner, towards?: RemoteGateway): () => void {
    let attempt: Attempt | undefined
    let isOver = false
    const begin = (gateway: Gateway): void => {
      attempt = this.core.connect(gateway, request, owner, this.now())
      this.wake()
    }
    const fail = (error: Error): void => {
      if (!isOver) owner.onClosed(error)
    }
    const start = (): void => {
      if (towards === undefined) return begin(this.gateway!)
      this.pathTowards(towards, (path, code) => {
        if (isOver || this.closed) return
        if (path !== undefined) return begin({ ...towards, path })
        const { address, port } = towards
        fail(withNumber(socketError({ code, syscall: 'connect', address, port })))
      })
    }
    const waiting = { start, fail }
    if (this.closed || this.isClosing) {
      const { address, port } = towards ?? this.target ?? {}
      const error = socketError({ code: 'EBADF', syscall: 'connect', address, port })
      process.nextTick(() => fail(withNumber(error)))
    } else if (!this.isReady) this.waiting.add(waiting)
    else {
      this.network.check()
      start()
    }
    return () => {
      isOver = true
      this.waiting.delete(waiting)
      if (attempt === undefined) return
      this.core.cancel(attempt, this.now())
      this.wake()
    }
  }

  /** By which of the sockets that are bound; no path: why not. */
  private pathTowards(
    { address, remote, port }: RemoteGateway,
    done: (path: Path | undefined, code: string) => void,
  ): void {
    const usable = this.sockets.filter(socket => socket.reaches(remote))
    const plain = usable.find(({ isUnmarked }) => !isUnmarked)
    if (plain === undefined) return void process.nextTick(done, undefined, 'EAFNOSUPPORT')
    const find = (localAddress: Uint8Array): Path => {
      if (port !== UNMARKED_PORT) return { ...plain.path(remote, port), localAddress }
      const first = usable.find(({ isUnmarked }) => isUnmarked) ?? plain
      const floatsTo = { ...plain.path(remote, FLOATED_PORT), localAddress }
      return { ...first.path(remote, port), localAddress, isUnmarked: true, floatsTo }
    }
    const { localAddress } = plain.path(remote, port)
    if (localAddress.length > 0) return void process.nextTick(done, find(localAddress), '')
    this.network.sourceTowards(address, port, source => {
      const own = source === undefined ? undefined : parseAddress(source.split('%')[0]!)
      done(own && find(own), 'ENETUNREACH')
    })
  }

  /** Undefined when the inner port is taken. */
  listen(port: number, backlog: number, owner: ListenerOwner): (() => void) | undefined {
    const listener = this.core.listen(port, backlog, session => owner.admits(session))
    if (listener === undefined) return undefined
    this.listeners.set(port, owner)
    return () => {
      this.listeners.delete(port)
      this.core.listeners.close(listener)
    }
  }

  /** Undefined when the inner port is taken. */
  openDatagrams(port: number, owner: DatagramOwner): (() => void) | undefined {
    if (!this.core.openPort(port, session => owner.admits(session))) return undefined
    this.datagramOwners.set(port, owner)
    return () => {
      this.datagramOwners.delete(port)
      this.core.closePort(port)
    }
  }

  /** False: too many wait. */
  sendDatagram(session: SessionHandle, flow: UdpFlow, payload: Uint8Array): boolean {
    const isTaken = this.core.sendDatagram(session, flow, payload, this.now())
    this.wake()
    return isTaken
  }

  /** After commands on a connection: what they made ready goes out after the ticks that wait by now. */
  wake(connection?: Connection): void {
    if (connection !== undefined) this.core.wake(connection, this.now())
    if (this.isTickScheduled || this.isDraining || this.closed) return
    this.isTickScheduled = true
    // The end of one connection and the begin of the next one, which is made in a tick, share a packet.
    process.nextTick(process.nextTick, () => {
      this.isTickScheduled = false
      this.drain(false)
    })
  }

  /** After a command on a session. */
  touch(session: SessionHandle): void {
    this.core.touchSession(session, this.now())
    this.wake()
  }

  // --- the loop ---

  /** Datagrams of this turn of the event loop may still come. */
  get hasTurnAhead(): boolean {
    return this.scheduled !== undefined
  }

  private schedule(): void {
    if (this.scheduled !== undefined || this.closed) return
    this.scheduled = setImmediate(() => this.takeTurn())
    if (this.refs === 0) this.scheduled.unref()
  }

  private takeTurn(): void {
    this.scheduled = undefined
    this.isTurnMoved = false
    for (const socket of this.sockets) socket.readAwaited()
    this.hasHeard = false
    this.noteBacklog()
    this.drain(true)
  }

  /** As with net, what comes after a connection comes after the immediates that its owner sets in this turn. */
  private moveTurn(): void {
    this.isTurnMoved = true
    afterTicks(() => {
      if (this.scheduled === undefined) return
      clearImmediate(this.scheduled)
      this.scheduled = undefined
      this.schedule()
    })
  }

  /** A socket has handed over what there was, in a turn of its own. */
  private endReading(): void {
    if ((this.scheduled === undefined && !this.hasHeard) || this.closed) return
    clearImmediate(this.scheduled)
    this.takeTurn()
  }

  /** `hasRead`: what the system had for us has just been read, as far as one turn of the event loop does. */
  private drain(hasRead: boolean): void {
    if (this.isDraining || this.isPaused || this.closed) return
    this.isDraining = true
    let isDone = false
    try {
      if (hasRead) {
        this.handleTimeout(this.now())
        // To clear an empty one allocates too, in the old part of the heap (test/bench/RESULTS.md).
        if (this.greeted.size > 0) this.greeted.clear()
        if (this.later.length > 0) {
          this.due = this.due.concat(this.later)
          this.later = []
        }
      }
      isDone = this.deliverAll() && this.transmit(this.now())
    } finally {
      this.isDraining = false
      // An owner may have thrown.
      if (!isDone && !this.isPaused) this.schedule()
    }
    if (this.isPaused) return
    if (this.later.length > 0 && !this.isTurnMoved) this.moveTurn()
    if (isDone) this.core.prepare()
    this.holdForOrphans()
    this.arm()
    if (this.later.length === 0 && this.core.isIdle) this.onIdle?.()
    this.onDrained?.()
  }

  /** What is awaited may be among what has come and is not read yet: nothing is given up before that. */
  private handleTimeout(now: Millis): void {
    const late = now - this.core.nextTimeout()
    if (late < 0) return
    const isReading = this.fullTurns > 0 && this.fullTurns <= READING_TURNS
    // Something kept the process, perhaps since the last reading.
    const mustRead = late > LATE && !this.hasReadSince
    this.hasReadSince = mustRead
    if (mustRead || isReading) return this.schedule()
    this.core.handleTimeout(now)
  }

  /**
   * False: it goes on in a moment. As with net, code that awaited a connection can add listeners before anything else
   * happens to it, or another one comes.
   */
  private deliverAll(): boolean {
    let hasGreeted = false
    for (let event = this.nextEvent(); event !== undefined; event = this.nextEvent()) {
      if ('connection' in event && this.greeted.has(event.connection)) {
        this.later.push(event)
        this.schedule()
        continue
      }
      if (hasGreeted) {
        this.due.unshift(event)
        this.pause()
        return false
      }
      // The peer has the connection before its owner can reset it: without the ACK it would never hear of either.
      if (event.kind === 'connected') this.transmit(this.now())
      if (event.kind === 'accepted' || event.kind === 'connected') {
        this.greeted.add(event.connection)
        hasGreeted = true
      }
      this.deliver(event)
    }
    return true
  }

  private nextEvent(): CoreEvent | undefined {
    return this.due.shift() ?? this.core.pollEvent()
  }

  /** Until the program has run its ticks, the microtasks of these and both once more. */
  private pause(): void {
    this.isPaused = true
    afterTicks(() =>
      afterTicks(() => {
        this.isPaused = false
        this.drain(false)
      }),
    )
  }

  private noteBacklog(): void {
    const { datagramsIn } = this.core.counters
    const count = datagramsIn - this.heardBefore
    this.heardBefore = datagramsIn
    // A turn for something that is written says nothing.
    const hasMore = this.sockets.some(socket => socket.mayHaveMore(count))
    this.isQuiet = count <= 1
    if (count > 0) this.fullTurns = hasMore ? this.fullTurns + 1 : 0
    this.core.noteBacklog(this.fullTurns >= BEHIND_TURNS)
  }

  /** False when there is more to send than one turn may. */
  private transmit(now: Millis): boolean {
    const isDone = this.sendBurst(now)
    for (const socket of this.sockets) socket.flush()
    return isDone
  }

  private sendBurst(now: Millis): boolean {
    const { sockets } = this
    if (sockets.length === 0) return true
    for (const socket of sockets) {
      if (socket.isCongested) return false
    }
    for (let sent = 0; sent < BURST; sent++) {
      const { current } = packets
      const path = this.core.pollTransmit(current, now)
      if (path === undefined) return true
      // While another process takes the port over, there is none, and what is sent is lost.
      const socket = sockets[path.socket]
      if (socket === undefined) continue
      socket.send(current.view(), path)
      if (packets.noteSent(socket)) return false
    }
    return false
  }

  private arm(): void {
    const next = this.closed ? Infinity : this.core.nextTimeout()
    if (next === this.timerAt) return
    // Only until the program has done what it does in this turn.
    if (next <= this.now()) return this.schedule()
    // A timer that fires early finds nothing due and is set again: cheaper than one for each change.
    if (this.timer !== undefined && next > this.timerAt && next < Infinity) return
    clearTimeout(this.timer)
    this.timer = undefined
    this.timerAt = next
    if (next === Infinity) return
    this.timer = setTimeout(
      () => {
        this.timer = undefined
        this.timerAt = Infinity
        this.schedule()
      },
      Math.min(Math.max(1, Math.ceil(next - this.now())), 2 ** 31 - 1),
    )
    if (this.refs === 0) this.timer.unref()
  }

  private deliver(event: CoreEvent): void {
    switch (event.kind) {
      case 'session':
        return (event.attempt.context as ConnectionOwner).onSession(event.session)
      case 'associated':
        return (event.attempt.context as ConnectionOwner).onAssociated?.(event.session, event.flow)
      case 'datagram':
        return this.datagramOwners
          .get(event.datagram.localPort)
          ?.onDatagram(event.datagram, event.session)
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
        this.core.noteTold(event.connection)
        return ownerOf(event.connection)?.onReadable()
      case 'writable':
        return ownerOf(event.connection)?.onWritable()
      case 'ended':
        return ownerOf(event.connection)?.onEnded()
      case 'closed':
        return ownerOf(event.connection)?.onClosed(withNumber(event.error))
      case 'question':
        return void this.answer(event.id, this.watcher.onQuestion(event.question, event.of))
      case 'pinged':
        return this.notePinged(event)
      case 'sessionUp':
        this.sessions.add(event.session)
        return this.watcher.onSessionUp(event.session)
      case 'sessionDown':
        this.sessions.delete(event.session)
        this.failPings(event.session, event.error)
        return this.watcher.onSessionDown(event.session, event.error)
      case 'unanswered':
        if (this.target === undefined) return
        if (event.isOpening && event.times === 2) this.askForWay(this.target)
        this.lookForWay(true)
        if (event.times >= TRIES_BEFORE_OTHERS) this.tryOther()
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
    this.isClosing = true
    let timer: NodeJS.Timeout | undefined
    // As with a kernel's TCP, nobody waits for peers that never end their halves.
    const look = setInterval(() => {
      this.core.closeAbandoned(this.now())
      this.wake()
    }, HALF_OPEN_TIMEOUT).unref()
    const finish = (): void => {
      this.onDrained = undefined
      clearInterval(look)
      clearTimeout(timer)
      done()
    }
    this.onDrained = () => {
      if (this.core.isSettled) finish()
      else if (this.core.connectionCount === 0) timer ??= setTimeout(finish, CLOSE_TIMEOUT)
    }
    this.closeSessions()
  }

  /** RFC 7296 §1.4.1: the process ends; peers get Deletes, and no more events are emitted here. */
  private closeAtExit(): void {
    if (this.closed) return
    const now = this.now()
    this.core.closeNow(now)
    for (let turns = 0; turns < LAST_TURNS && !this.transmit(now); turns++);
    this.destroy()
  }

  /** All of this process that are open. */
  static get all(): ReadonlySet<Endpoint> {
    return live
  }

  /** `dgram` hands a datagram to the system within the call, so this works in 'exit' too. */
  static readonly onExit = (): void => {
    for (const endpoint of [...live]) endpoint.closeAtExit()
  }

  destroy(): void {
    if (this.closed) return
    this.closed = true
    live.delete(this)
    if (live.size === 0) process.removeListener('exit', Endpoint.onExit)
    clearTimeout(this.timer)
    this.timer = undefined
    this.endQuestion?.()
    this.endWatch?.()
    this.portOwner?.close()
    this.portBorrower?.close()
    for (const socket of this.sockets) socket.close()
    for (const session of [...this.pings.keys()]) this.failPings(session, undefined)
  }
}

/** Another worker or thread has the port, and would not share it with us. */
const otherOptions = ({ addresses, port }: GroupPlace): NodeJS.ErrnoException => {
  const words =
    `UDP port ${port} belongs to another worker of this cluster, or thread of this process, with other options of IKE. ` +
    'Workers with equal options share it, and createEndpoint() makes one for all servers of a worker: give all workers ' +
    'the same options and narrow by "authorize", or give this one another "ikePort"'
  const facts = { code: 'EADDRINUSE', syscall: 'bind', address: addresses[0] ?? '::', port }
  return Object.assign(new Error(words), facts)
}

/** Of a client's sockets, but for whether they are unmarked. */
const towards = ({ length }: Uint8Array): Omit<SocketPlan, 'isUnmarked'> => ({
  family: length === 4 ? 4 : 6,
  ipv6Only: false,
  reusePort: false,
})

/** The first path, with where it floats to when there is a second one (RFC 7296 §2.23). */
const joined = ([first, floatsTo]: readonly Path[]): Path =>
  floatsTo === undefined ? first! : { ...first!, floatsTo }

const ownerOf = (connection: Connection): ConnectionOwner | undefined =>
  connection.context as ConnectionOwner | undefined

/** `errno` as Node gives it: the system's number, negative. */
export const withNumber = <E extends Error | undefined>(error: E): E => {
  const code = error === undefined ? undefined : (error as NodeJS.ErrnoException).code
  const number =
    code === undefined ? undefined : constants.errno[code as keyof typeof constants.errno]
  return error === undefined || number === undefined || 'errno' in error
    ? error
    : Object.assign(error, { errno: -number })
}
