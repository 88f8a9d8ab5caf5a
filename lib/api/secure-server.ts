/** A server with the surface of `net.Server`, for connections that come inside ESP. */
import { AsyncResource } from 'node:async_hooks'
import dns from 'node:dns'
import { EventEmitter } from 'node:events'
import { isIP } from 'node:net'
import { constants, networkInterfaces } from 'node:os'
import { getSystemErrorMap } from 'node:util'
import { formatAddress } from '../base/address.ts'
import { ownProperties } from '../base/errors.ts'
import type { Path } from '../base/path.ts'
import type { Connection, SessionHandle } from '../core/events.ts'
import { reader } from '../base/option-table.ts'
import type { ConnectionOwner, Endpoint } from '../node/endpoint.ts'
import { channels } from './channels.ts'
import { shareControl, type Control } from './control.ts'
import { CredentialWatcher, filesOf } from './credential-files.ts'
import { EndpointReference } from './endpoint-reference.ts'
import { openInnerPort } from './inner-port.ts'
import { useLocalEnd } from './local-ends.ts'
import {
  argumentError,
  isBlocked,
  isLenient,
  isPathText,
  nodeError,
  noReusePort,
  parsePort,
  parseServer,
  signalOption,
  typed,
  withCredentials,
  type ConnectSettings,
  type SecureServerOptions,
  type ServerSettings,
} from './options.ts'
import { changedOptions, followContext } from './secure-context.ts'
import { SecureSocket } from './secure-socket.ts'
import {
  isClosing,
  namedEndpoint,
  notRunning,
  SharedEndpoint,
  type EndpointUser,
} from './shared-endpoint.ts'
import { Session } from './session.ts'

const DEFAULT_BACKLOG = 511
/** `maxConnections` of Node 20; newer ones refuse all. */
const ZERO_IS_NO_LIMIT = process.versions.node.startsWith('20.')
/** Inner ports given out for `listen(0)`. */
const PORTS = { first: 32768, count: 28232 }

/** Options of `listen`. `exclusive` is accepted and has no effect. */
export interface ListenOptions {
  /** TCP port inside the tunnel; 0: any that is free. */
  port?: number | string | undefined
  /** Address that IKE and ESP come to. Default: all addresses. */
  host?: string | undefined
  /** Connections that may wait to be accepted. Default 511. */
  backlog?: number | undefined
  /** As in `net`: an IPv6 address does not receive IPv4. Default `false`. */
  ipv6Only?: boolean | undefined
  /** No effect. */
  exclusive?: boolean | undefined
  /**
   * Several servers may listen at one port of one endpoint if all say so; each connection goes to one of them. Workers and
   * threads each bind the UDP port, as with the option `reusePort` of the server, where Node and the system can; elsewhere
   * one of them binds it for all.
   */
  reusePort?: boolean | undefined
  /** As in `net`: closes the server when it is aborted. */
  signal?: AbortSignal | undefined
}

/** The addresses inside ESP of a connection that was refused because of `maxConnections`. */
export interface DropFacts {
  /** Ours. */
  localAddress: string
  /** Our TCP port. */
  localPort: number
  /** The family of `localAddress`. */
  localFamily: 'IPv4' | 'IPv6'
  /** The peer's, as `socket.remoteAddress` would be. */
  remoteAddress: string
  /** The peer's TCP port. */
  remotePort: number
  /** The family of `remoteAddress`. */
  remoteFamily: 'IPv4' | 'IPv6'
}

/** A peer that was refused. */
export interface RefusedPeer {
  /** The identity that it claimed; undefined when it did not get that far. */
  identity: string | undefined
  /** The address that its UDP datagrams came from. */
  address: string
  /** The UDP port that they came from. */
  port: number
}

/** `path`: by which it came. */
export const refusedPeer = (
  identity: string | undefined,
  { remoteAddress, remotePort }: Path,
): RefusedPeer => ({ identity, address: formatAddress(remoteAddress), port: remotePort })

/** Ours: who does not listen for refusals is warned no more often, in milliseconds. */
const WARNING_INTERVAL = 60_000
let warnedAt = -Infinity
let unheard = 0

/** Emits 'ikeClientError'. Where nobody listens for it, the process is warned, once a minute and with their number. */
export const tellRefusal = (
  of: { emit(event: 'ikeClientError', error: Error, peer: RefusedPeer): boolean },
  error: Error,
  peer: RefusedPeer,
): void => {
  if (of.emit('ikeClientError', error, peer)) return
  unheard++
  const now = performance.now()
  if (now - warnedAt < WARNING_INTERVAL) return
  warnedAt = now
  const others = unheard === 1 ? '' : ` (${unheard} since the last warning)`
  unheard = 0
  process.emitWarning(
    `A peer at ${peer.address}:${peer.port} was refused${others}: ${error.message} Listen for 'ikeClientError' to hear of each`,
    { type: 'IkeClientError', code: 'IKE_CLIENT_REFUSED' },
  )
}

/** Events of a server, with the arguments of their listeners. */
export interface SecureServerEvents {
  /** The last connection has ended and the SAs are deleted. */
  close: []
  /** A peer opened a connection. */
  connection: [socket: SecureSocket]
  /** A connection was refused because of `maxConnections`. */
  drop: [facts: DropFacts]
  /** The server cannot listen. It is closed. */
  error: [error: Error]
  /** A peer was refused, and why: before it proved its identity, or by a policy of ours. */
  ikeClientError: [error: Error, peer: RefusedPeer]
  /** The UDP port is bound. */
  listening: []
  /** With `watch`: files of credentials have changed, and these options with them. */
  credentials: [changed: readonly string[]]
  /** The same as `connection`, under the name that `tls` uses. */
  secureConnection: [socket: SecureSocket]
  /** A peer proved its identity: its IKE SA is up. */
  session: [session: Session]
  /** An IKE SA has ended; with an error when it ended badly. */
  sessionEnd: [session: Session, error: Error | undefined]
}

/** A server inside ESP with the members and events of `net.Server`. */
export class SecureServer extends EventEmitter<SecureServerEvents> {
  /** More connections than this are refused with 'drop'; undefined: no limit. */
  maxConnections: number = undefined as never
  /** As net has it: the option of that name, and what a program sets here holds for connections to come. */
  allowHalfOpen: boolean
  /** As `allowHalfOpen`: the option of that name. */
  noDelay: boolean
  /** As `allowHalfOpen`: the option of that name. */
  keepAlive: boolean
  /** As `allowHalfOpen`: the option of that name. */
  pauseOnConnect: boolean
  /** As `net.Server`: `listen` was called and has not failed. */
  listening = false
  /** As net has it: family, address and port that were asked for; cluster tells servers apart by it. */
  _connectionKey: string | undefined
  #own: SecureServerOptions
  #settings: ServerSettings
  #term: Term | undefined
  #port = 0
  /** Where it listens, until the system has said so. */
  #place: Place = { address: '::', family: 'IPv6' }
  #sockets = new Set<SecureSocket>()
  readonly #hold = new EndpointReference()
  /** Connections are told of in the context of `listen`, as net does. */
  #scope = new AsyncResource('SECURESERVER')
  #watcher: CredentialWatcher | undefined
  #endFollowing: (() => void) | undefined
  #control: Control | undefined
  #freeLocalEnd: (() => void) | undefined
  #starting = false

  constructor(options: SecureServerOptions, onConnection?: (socket: SecureSocket) => void) {
    super()
    this.#settings = parseServer(options)
    const { connection, pauseOnConnect } = this.#settings
    this.allowHalfOpen = connection.allowHalfOpen
    this.noDelay = connection.noDelay
    this.keepAlive = connection.keepAlive
    this.pauseOnConnect = pauseOnConnect
    this.#own = ownProperties('options', options)
    if (this.#settings.watch)
      this.#watcher = new CredentialWatcher(
        () => this.#adopt({ ...this.#own }),
        changed => this.emit('credentials', changed),
      )
    if (onConnection !== undefined) {
      if (typeof onConnection !== 'function') {
        throw argumentError('connectionListener', onConnection, 'of type function')
      }
      this.on('connection', onConnection)
    }
  }

  get #endpoint(): Endpoint | undefined {
    return this.#term?.shared.endpoint
  }

  /**
   * Replaces options for new SAs, including those of servers that share the UDP port. Live SAs, `ikePort`, `keyLog` and the
   * `addressPool` stay. Returns the names of the options that changed.
   */
  setCredentials(options: SecureServerOptions): readonly string[] {
    return this.#adopt(withCredentials({ ...this.#own }, options))
  }

  #adopt(own: Record<string, unknown>): readonly string[] {
    const before = this.#settings.given
    this.#settings = parseServer(own)
    this.#own = own
    if (this.#endFollowing !== undefined) this.#follow()
    this.#term?.shared.setCredentials(this.#settings)
    return changedOptions({ ...before }, { ...this.#settings.given })
  }

  /** A context that watches its files has others now. */
  #follow(): void {
    this.#endFollowing?.()
    this.#endFollowing = followContext(this.#own.secureContext, () => {
      const changed = this.#adopt({ ...this.#own })
      if (changed.length > 0) this.emit('credentials', changed)
    })
  }

  // --- listening ---

  /** As `net.Server`. */
  listen(port?: number | string, host?: string, backlog?: number, listener?: () => void): this
  listen(port?: number | string, host?: string, listener?: () => void): this
  listen(port?: number | string, backlog?: number, listener?: () => void): this
  listen(port?: number | string, listener?: () => void): this
  listen(options: ListenOptions, listener?: () => void): this
  listen(listener?: () => void): this
  listen(...args: unknown[]): this {
    const { options, listener } = normalizeListen(args)
    if (this.listening || this.#starting) {
      throw nodeError(
        'ERR_SERVER_ALREADY_LISTEN',
        'Listen method has been called more than once without closing.',
      )
    }
    const read = reader({ ...options })
    const port = read('port', (name, value) => parsePort(name, value ?? 0), 0)
    const host = read('host', hostOption, undefined)
    const parseBacklog = isLenient(this.#settings.given) ? netBacklog : strictBacklog
    const backlog = read('backlog', parseBacklog, DEFAULT_BACKLOG)
    const signal = read('signal', signalOption, undefined)
    const reusePort = read('reusePort', (_name, value) => Boolean(value), false)
    if (signal !== undefined) this.#closeOn(signal)
    if (listener !== undefined) this.once('listening', listener)
    this.#starting = true
    this.#scope = new AsyncResource('SECURESERVER')
    if (channels.serverListen.hasSubscribers) {
      channels.serverListen.asyncStart.publish({ server: this, options })
    }
    const start = (address: string | undefined): void =>
      this.#bind(address, port, { ...options, backlog, reusePort })
    if (host === undefined || host === '') start(undefined)
    else if (isIP(host) !== 0) start(host)
    else {
      dns.lookup(host, { all: true }, (error, found) => {
        if (!this.#starting) return
        if (error === null) start(firstUsable(found))
        else this.#failed(error)
      })
    }
    return this
  }

  #closeOn(signal: AbortSignal): void {
    const abort = (): void => void this.close()
    if (signal.aborted) return process.nextTick(abort)
    signal.addEventListener('abort', abort, { once: true })
    this.once('close', () => signal.removeEventListener('abort', abort))
  }

  #bind(
    host: string | undefined,
    port: number,
    options: ListenOptions & { backlog: number },
  ): void {
    const { ikePort, given } = this.#settings
    // As net: it has its address within the call, although the UDP port is known a little later.
    const place = placeOf(host)
    this.#place = place
    this._connectionKey = `${place.family === 'IPv4' ? 4 : 6}:${place.address}:${port}`
    const reusePort =
      this.#settings.reusePort || (Boolean(options.reusePort) && noReusePort === undefined)
    const where = { hosts: [host], ipv6Only: Boolean(options.ipv6Only), reusePort }
    let term: Term | undefined
    const user = this.#makeUser(() => term)
    const bound = (error: NodeJS.ErrnoException | undefined): void => {
      // It was closed before it was open.
      if (this.#term !== term || !this.#starting) return
      const { control } = this.#settings
      if (error === undefined && control !== undefined && this.#control === undefined)
        return this.#openControl(control, bound)
      this.#starting = false
      if (error === undefined) this.#begin()
      else if (error.syscall === 'listen') this.#failed(error)
      else this.#failed(listenError(error, host ?? '::', port, portOf(error) ?? ikePort))
    }
    let shared: SharedEndpoint | undefined
    if (given.endpoint === undefined) {
      shared = SharedEndpoint.use(user, this.#settings, where, bound)
    } else {
      shared = namedEndpoint(given.endpoint)
      if (shared === undefined || isClosing(given.endpoint)) process.nextTick(bound, notRunning())
      else shared.join(user, bound)
    }
    if (shared !== undefined) term = { shared, user, connections: 0, stop: undefined }
    // Connections of an earlier term may go on.
    this.#term = term
    if (term === undefined) return
    this.#hold.setActive(true)
    this.#hold.take(term.shared.endpoint)
    if (this.#reserve(term, port, options)) {
      this.listening = true
      return
    }
    const used = Object.assign(nodeError('EADDRINUSE', ''), { errno: -constants.errno.EADDRINUSE })
    this.#failed(listenError(used, host ?? '::', port, undefined))
  }

  /** `done` goes on with what became of it. */
  #openControl(path: string, done: (error: NodeJS.ErrnoException | undefined) => void): void {
    shareControl(path).then(
      control => {
        if (this.#starting) this.#control = control
        else control.close()
        done(undefined)
      },
      (error: NodeJS.ErrnoException) => done(error),
    )
  }

  #closeControl(): void {
    this.#control?.close()
    this.#control = undefined
  }

  /** The port inside the tunnel; 0: any that is free. */
  #reserve(
    term: Term,
    wanted: number,
    { backlog, reusePort = false }: ListenOptions & { backlog: number },
  ): boolean {
    const accept = (connection: Connection, session: SessionHandle): ConnectionOwner | undefined =>
      // Its user may have been asked about the peer before the term was over.
      term.stop && this.#scope.runInAsyncScope(() => this.#accept(term, connection, session))
    const port = openInnerPort(wanted, PORTS, at => {
      term.stop = term.shared.listen(term.user, at, { backlog, reusePort, accept })
      return term.stop !== undefined
    })
    this.#port = port ?? wanted
    return port !== undefined
  }

  #inScope(run: () => void): void {
    this.#scope.runInAsyncScope(run)
  }

  #makeUser(term: () => Term | undefined): EndpointUser {
    const given = (): SecureServerOptions => this.#settings.given
    const tell = (run: (endpoint: Endpoint) => void): void => {
      const own = term()
      // What its next term hears of the same endpoint is not told twice.
      const isRepeated = own !== this.#term && own?.shared === this.#term?.shared
      if (own !== undefined && !isRepeated) this.#inScope(() => run(own.shared.endpoint))
    }
    return {
      isOwner: false,
      get of() {
        return given().endpoint
      },
      close: done => void this.close(() => done()),
      get given() {
        return given()
      },
      onRefused: (error, identity, path) =>
        tell(() => tellRefusal(this, error, refusedPeer(identity, path))),
      onSessionUp: session =>
        tell(endpoint => this.emit('session', new Session(session, endpoint))),
      onSessionDown: (session, error) =>
        tell(endpoint => this.emit('sessionEnd', new Session(session, endpoint), error)),
    }
  }

  #begin(): void {
    this.#watcher?.start(filesOf({ ...this.#own }))
    this.#follow()
    this.#freeLocalEnd = useLocalEnd(this.#endpoint?.udpAddress?.address, this.#port)
    if (channels.serverListen.hasSubscribers) {
      channels.serverListen.asyncEnd.publish({ server: this })
    }
    process.nextTick(() => this.listening && this.emit('listening'))
  }

  #failed(error: Error): void {
    this.#closeControl()
    this.#starting = false
    this.listening = false
    const term = this.#term
    this.#term = undefined
    term?.stop?.()
    this.#hold.drop()
    term?.shared.abandon(term.user)
    if (channels.serverListen.hasSubscribers) {
      channels.serverListen.error.publish({ server: this, error })
    }
    process.nextTick(() => this.emit('error', error))
  }

  #accept(term: Term, connection: Connection, session: SessionHandle): ConnectionOwner | undefined {
    const claimed = connection.remoteAddress
    const known = session.addressOf(claimed)
    // Where it is counts, and what it says of itself as well.
    if ([session.path.remoteAddress, known, claimed].some(address => this.#isBlocked(address)))
      return undefined
    if (this.#isFull) {
      this.emit('drop', factsOf(connection, known))
      return undefined
    }
    const { socket, owner, begin } = SecureSocket.accept({
      connection,
      session,
      endpoint: term.shared.endpoint,
      server: this,
      settings: this.#connectionSettings,
      closed: ended => {
        this.#sockets.delete(ended)
        term.connections--
        this.#finish(term)
      },
    })
    this.#sockets.add(socket)
    term.connections++
    socket.allowHalfOpen = Boolean(this.allowHalfOpen)
    const isPaused = Boolean(this.pauseOnConnect)
    if (isPaused) socket.pause()
    if (channels.serverSocket.hasSubscribers) channels.serverSocket.publish({ socket })
    this.emit('connection', socket)
    this.emit('secureConnection', socket)
    begin(!isPaused)
    return owner
  }

  get #connectionSettings(): ConnectSettings {
    const { connection } = this.#settings
    const noDelay = Boolean(this.noDelay)
    const keepAlive = Boolean(this.keepAlive)
    const isSame = noDelay === connection.noDelay && keepAlive === connection.keepAlive
    return isSame ? connection : { ...connection, noDelay, keepAlive }
  }

  get #isFull(): boolean {
    const max = this.maxConnections as number | null | undefined
    if (max === undefined || max === null || (max === 0 && ZERO_IS_NO_LIMIT)) return false
    return this.#sockets.size >= max
  }

  #isBlocked(address: Uint8Array): boolean {
    return isBlocked(this.#settings.blockList, formatAddress(address))
  }

  // --- closing ---

  /** Accepts no more; 'close' comes when the last connection has ended and the SAs are deleted. */
  close(callback?: (error?: Error) => void): this {
    const isOpen = this.listening || this.#starting
    if (typeof callback === 'function') {
      const error = nodeError('ERR_SERVER_NOT_RUNNING', 'Server is not running.')
      this.once('close', isOpen ? callback : () => callback(error))
    }
    if (!isOpen) {
      // As net does: it is closed, and says so.
      if (this.#term === undefined) process.nextTick(() => this.emit('close'))
      return this
    }
    this.listening = false
    this.#starting = false
    this.#freeLocalEnd?.()
    this.#watcher?.stop()
    this.#endFollowing?.()
    this.#endFollowing = undefined
    this.#closeControl()
    // As with net, what is left of it holds the process only by its connections.
    this.#hold.setActive(false)
    const term = this.#term
    if (term === undefined) this.#closed()
    else {
      term.stop?.()
      term.stop = undefined
      this.#finish(term)
    }
    return this
  }

  /** A term that is closed ends with its last connection. */
  #finish(term: Term): void {
    if (term.stop !== undefined || term.connections > 0) return
    if (term === this.#term) this.#hold.setActive(true)
    // As with net, in the context of what ended the term.
    const scope = new AsyncResource('SECURESERVER')
    const hasBegunAnew = this.listening || this.#starting
    term.shared.release(term.user, () => {
      if (this.#term === term) {
        this.#term = undefined
        this.#hold.drop()
      }
      if (!hasBegunAnew) scope.runInAsyncScope(() => this.#closed())
    })
  }

  #closed(): void {
    process.nextTick(() => this.emit('close'))
  }

  /** Closes the server; for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return new Promise(resolve => {
      if (!this.listening) return resolve()
      this.close(() => resolve())
    })
  }

  /** A promise that a listener returned was rejected: the socket ends with that error. */
  [Symbol.for('nodejs.rejection')](error: Error, event: string, ...args: unknown[]): void {
    if (event === 'connection') (args[0] as SecureSocket).destroy(error)
    else this.emit('error', error)
  }

  // --- facts ---

  /** The port of the service, inside the tunnel; null while not listening. */
  address(): { address: string; family: 'IPv4' | 'IPv6'; port: number } | null {
    if (!this.listening) return null
    const { address, family } = this.#endpoint?.udpAddress ?? this.#place
    return { address, family, port: this.#port }
  }

  /** The UDP port that IKE and ESP come to. */
  get ikePort(): number | undefined {
    return this.#endpoint?.udpAddress?.port
  }

  /** As `net.Server`: calls back with the number of open connections. */
  getConnections(callback: (error: Error | null, count: number) => void): this {
    if (typeof callback !== 'function') {
      throw argumentError('callback', callback, 'of type function')
    }
    process.nextTick(() => callback(null, this.#sockets.size))
    return this
  }

  /** Datagrams in and out, and what was dropped, by reason. */
  get counters(): Readonly<Record<string, unknown>> {
    return { ...this.#endpoint?.core.counters }
  }

  /** As `net.Server`, for libraries that read it. */
  get _connections(): number {
    // What inspects a prototype gets nothing, as from net's.
    return #sockets in this ? this.#sockets.size : (undefined as never)
  }

  /** As net had it; `getConnections` is what programs use. */
  get connections(): number {
    return this._connections
  }

  /** As `net.Server`: the server keeps the process alive again. */
  ref(): this {
    this.#hold.ref()
    return this
  }

  /** As `net.Server`: the server no longer keeps the process alive. */
  unref(): this {
    this.#hold.unref()
    return this
  }
}

/** From `listen` to the end of the last connection that came by it. */
interface Term {
  readonly shared: SharedEndpoint
  readonly user: EndpointUser
  connections: number
  /** Undefined: it accepts no more. */
  stop: (() => void) | undefined
}

interface Place {
  readonly address: string
  readonly family: 'IPv4' | 'IPv6'
}

/** The address that a server has which was told `host`: an IP address, or nothing for all of them. */
const placeOf = (host: string | undefined): Place => {
  if (host !== undefined) return { address: host, family: isIP(host) === 4 ? 'IPv4' : 'IPv6' }
  const hasIpv6 = Object.values(networkInterfaces()).some(list =>
    list?.some(({ family }) => family === 'IPv6'),
  )
  return hasIpv6 ? { address: '::', family: 'IPv6' } : { address: '0.0.0.0', family: 'IPv4' }
}

const factsOf = (
  { localAddress, localPort, remotePort }: Connection,
  remoteAddress: Uint8Array,
): DropFacts => ({
  localAddress: formatAddress(localAddress),
  localPort,
  localFamily: localAddress.length === 4 ? 'IPv4' : 'IPv6',
  remoteAddress: formatAddress(remoteAddress),
  remotePort,
  remoteFamily: remoteAddress.length === 4 ? 'IPv4' : 'IPv6',
})

const portCure = 'stop it, or choose another "ikePort"'

/** As net says it. What is in use is the UDP port; any other fault is that of the address. */
const listenError = (
  cause: NodeJS.ErrnoException,
  address: string,
  port: number,
  udpPort: number | undefined,
): Error => {
  const { code = 'EIO', errno } = cause
  const words = errno === undefined ? cause.message : getSystemErrorMap().get(errno)?.[1]
  const isUdp = code === 'EADDRINUSE' && udpPort !== undefined
  const where = isUdp ? udpPort : port
  // Words of our own say which port it is, and what helps.
  const place =
    isUdp && errno === undefined
      ? ''
      : ` ${address}:${where}${isUdp ? ` (UDP; another IKE daemon, or a server of another process, has that port: ${portCure})` : ''}`
  const message = `listen ${code}${words === undefined ? '' : `: ${words}`}${place}`
  return Object.assign(new Error(message), {
    code,
    errno,
    syscall: 'listen',
    address,
    port: where,
  })
}

/** Which of the two it was, where there are two. */
const portOf = (error: NodeJS.ErrnoException): number | undefined =>
  'port' in error && typeof error.port === 'number' ? error.port : undefined

/** As net: null is no address. */
const hostOption = (name: string, value: unknown): string | undefined =>
  value === null ? undefined : typed<string>('string')(name, value)

const strictBacklog = (name: string, value: unknown): number => {
  if (typeof value === 'number' && !Number.isNaN(value)) return value || DEFAULT_BACKLOG
  throw argumentError(`options.${name}`, value, 'of type number')
}

/** net leaves it to the system what something else means. */
const netBacklog = (_name: string, value: unknown): number =>
  (typeof value === 'number' && value) || DEFAULT_BACKLOG

const LINK_LOCAL = /^fe[89ab]/i

/** As net: an IPv6 address that is valid on one link only is left for any other. */
const firstUsable = (found: readonly { readonly address: string }[]): string | undefined =>
  (found.find(({ address }) => !LINK_LOCAL.test(address)) ?? found[0])?.address

/** The overloads of `listen`. */
const normalizeListen = (
  args: readonly unknown[],
): { options: ListenOptions; listener: (() => void) | undefined } => {
  const last = args.at(-1)
  const listener = typeof last === 'function' ? (last as () => void) : undefined
  const [first, ...rest] = args
  if (typeof first === 'object' && first !== null) {
    const own = ownProperties('options', first)
    if ('port' in own) return { options: own, listener }
    throw argumentError(
      'options',
      first,
      'with the property "port"; paths and descriptors cannot be protected',
      'ERR_INVALID_ARG_VALUE',
    )
  }
  if (isPathText(first) || ['boolean', 'bigint', 'symbol'].includes(typeof first)) {
    const words = 'a port; there are no local (IPC) secure servers'
    throw argumentError('port', first, words, 'ERR_INVALID_ARG_VALUE')
  }
  const options: ListenOptions = {}
  if (typeof first === 'number' || typeof first === 'string') options.port = first
  for (const value of rest) {
    if (typeof value === 'string') options.host = value
    if (typeof value === 'number') options.backlog = value
  }
  return { options, listener }
}

/** Makes a server; `listen(port)` opens it. Options are checked at once: a wrong one throws an `OptionError`. */
export const createSecureServer = (
  options: SecureServerOptions,
  onConnection?: (socket: SecureSocket) => void,
): SecureServer => new SecureServer(options, onConnection)
