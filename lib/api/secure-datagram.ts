/**
 * The surface of `dgram.Socket` for datagrams inside ESP. An address is a peer's session: what comes from one is answered
 * over the same, and a peer that merely has the same address is somebody else.
 */
import { AsyncResource } from 'node:async_hooks'
import dns from 'node:dns'
import { EventEmitter } from 'node:events'
import { isIP } from 'node:net'
import { formatAddress, parseAddress } from '../base/address.ts'
import { EMPTY } from '../base/bytes.ts'
import { ownProperties, socketError } from '../base/errors.ts'
import type { SessionHandle, UdpDatagram, UdpFlow } from '../core/events.ts'
import { withNumber, type ConnectionOwner, type Endpoint } from '../node/endpoint.ts'
import { clientWay } from './client-endpoints.ts'
import { EndpointReference } from './endpoint-reference.ts'
import { openInnerPort } from './inner-port.ts'
import {
  argumentError,
  blockedError,
  isBlocked,
  nodeError,
  parseDatagram,
  parsePort,
  type DatagramOptions,
  type DatagramSettings,
} from './options.ts'
import { Session } from './session.ts'
import {
  isClosing,
  namedEndpoint,
  notRunning,
  SharedEndpoint,
  type EndpointUser,
} from './shared-endpoint.ts'

/** Called when a datagram was handed to the SA, with its octets, or with an error. */
export type Callback = (error: Error | null, octets?: number) => void

/** Where a datagram has come from. */
export interface DatagramInfo {
  /** The sender's address inside ESP. */
  readonly address: string
  /** The family of `address`. */
  readonly family: 'IPv4' | 'IPv6'
  /** The sender's UDP port inside ESP. */
  readonly port: number
  /** Octets of the datagram. */
  readonly size: number
  /** The peer; `send(answer, port, session)` answers it, even if others have the same address. */
  readonly session: Session
}

/** Events of a socket for datagrams, with the arguments of their listeners. */
export interface SecureDatagramEvents {
  /** The socket is closed. */
  close: []
  /** `connect` has set the default destination. */
  connect: []
  /** Binding failed, or sending failed and there was no callback. */
  error: [error: Error]
  /** The socket is bound. */
  listening: []
  /** A datagram has arrived. */
  message: [message: Buffer, from: DatagramInfo]
}

/** Options of `bind`. */
export interface DatagramBindOptions {
  /** Inside ESP; 0 or undefined: any. */
  port?: number | undefined
  /** As of a server's `listen`: the UDP address that IKE and ESP come to. */
  address?: string | undefined
}

/** By which datagrams go to a destination. */
interface Way {
  readonly endpoint: Endpoint
  readonly session: SessionHandle
  readonly flow: UdpFlow
}

/** A destination whose SA is being made. */
interface Opening {
  readonly waiting: { readonly payload: Uint8Array; readonly done: Callback }[]
  giveUp?: (() => void) | undefined
}

/** What was sent before the port was known. */
interface Early {
  readonly destination: Destination
  readonly payload: Uint8Array
  readonly done: Callback
}

interface Destination {
  readonly port: number
  readonly address: string | Session
}

/** Ours: inner ports that are given out, as IANA has them. */
const PORTS = { first: 49152, count: 16384 }
/** Ours: datagrams that wait for an SA; more are refused. */
const MAX_WAITING = 64
/** Ours: peers that are remembered by their address; the one that was not heard longest is forgotten. */
const MAX_PEERS = 10_000

const families = (address: string): 'IPv4' | 'IPv6' => (isIP(address) === 6 ? 'IPv6' : 'IPv4')

/** A socket for datagrams inside ESP with the members and events of `dgram.Socket`; without multicast and broadcast. */
export class SecureDatagram extends EventEmitter<SecureDatagramEvents> {
  readonly #settings: DatagramSettings
  readonly #scope = new AsyncResource('SECUREDATAGRAM')
  readonly #hold = new EndpointReference()
  #port = 0
  #state: 'new' | 'binding' | 'bound' | 'closed' = 'new'
  #shared: SharedEndpoint | undefined
  /** Endpoints on which our port is open, and what closes it there. */
  readonly #open = new Map<Endpoint, () => void>()
  readonly #ways = new Map<string, Way>()
  /** The newest with each session, even if others have its address. */
  readonly #waysOf = new WeakMap<SessionHandle, Way>()
  readonly #openings = new Map<string, Opening>()
  #early: Early[] = []
  #peer: Destination | undefined

  constructor(options: DatagramOptions, onMessage?: SecureDatagramListener) {
    super()
    this.#settings = parseDatagram(options)
    if (onMessage === undefined) return
    if (typeof onMessage !== 'function')
      throw argumentError('listener', onMessage, 'of type function')
    this.on('message', onMessage)
  }

  // --- binding ---

  /** Receives datagrams of peers that come by themselves. The port is inside ESP; the UDP port is the option `ikePort`. */
  bind(port?: number, address?: string, callback?: () => void): this
  bind(port?: number, callback?: () => void): this
  bind(callback?: () => void): this
  bind(options: DatagramBindOptions, callback?: () => void): this
  bind(...args: unknown[]): this {
    const callback = args.find(arg => typeof arg === 'function') as (() => void) | undefined
    const [first, second] = args.filter(arg => typeof arg !== 'function')
    const isObject = typeof first === 'object' && first !== null
    const own = isObject ? ownProperties('options', first) : { port: first, address: second }
    const port = own['port'] === undefined ? 0 : parsePort('port', own['port'])
    const address = bindAddress(own['address'])
    if (this.#state !== 'new') {
      throw nodeError('ERR_SOCKET_ALREADY_BOUND', 'Socket is already bound')
    }
    if (callback !== undefined) this.once('listening', callback)
    this.#state = 'binding'
    const { endpoint } = this.#settings.given
    const done = (error: NodeJS.ErrnoException | undefined): void => {
      if (this.#state !== 'binding') return
      if (error !== undefined) return this.#failBinding(error)
      const shared = this.#shared!
      if (!this.#choosePort(port, shared.endpoint)) {
        const used = socketError({ code: 'EADDRINUSE', syscall: 'bind', address: '::', port })
        return this.#failBinding(used)
      }
      this.#state = 'bound'
      this.#inScope(() => this.emit('listening'))
      for (const { destination, payload, done } of this.#takeEarly()) {
        this.#sendTo(destination, payload, done)
      }
    }
    if (endpoint === undefined) {
      const where = { hosts: [address], ipv6Only: false, reusePort: false }
      this.#shared = SharedEndpoint.use(this.#user, this.#settings, where, done)
    } else {
      this.#shared = isClosing(endpoint) ? undefined : namedEndpoint(endpoint)
      if (this.#shared === undefined) process.nextTick(done, notRunning())
      else this.#shared.join(this.#user, done)
    }
    if (this.#shared !== undefined) this.#hold.take(this.#shared.endpoint)
    return this
  }

  #failBinding(error: NodeJS.ErrnoException): void {
    this.#state = 'new'
    this.#hold.drop()
    this.#shared?.abandon(this.#user)
    this.#shared = undefined
    const fault = withNumber(Object.assign(error, { syscall: 'bind' }))
    for (const { done } of this.#takeEarly()) done(fault)
    this.#inScope(() => this.emit('error', fault))
  }

  #takeEarly(): readonly Early[] {
    const early = this.#early
    this.#early = []
    return early
  }

  readonly #user: EndpointUser = this.#makeUser()

  #makeUser(): EndpointUser {
    const settings = (): DatagramSettings => this.#settings
    return {
      isOwner: false,
      get of() {
        return settings().given.endpoint
      },
      get given() {
        return settings().given
      },
      close: done => void this.close(done),
      onRefused: () => undefined,
      onSessionUp: () => undefined,
      onSessionDown: () => undefined,
    }
  }

  /** False: the port is taken. */
  #choosePort(wanted: number, endpoint: Endpoint): boolean {
    if (this.#port !== 0) return this.#openOn(endpoint, this.#port)
    this.#port = openInnerPort(wanted, PORTS, port => this.#openOn(endpoint, port)) ?? 0
    return this.#port !== 0
  }

  #openOn(endpoint: Endpoint, port: number): boolean {
    if (this.#open.has(endpoint)) return true
    for (const other of this.#open.keys()) {
      if (other.isClosed) this.#open.delete(other)
    }
    const receive = (datagram: UdpDatagram, session: SessionHandle): void =>
      this.#receive(endpoint, datagram, session)
    const shared = this.#shared ?? namedEndpoint(this.#settings.given.endpoint)
    const close =
      shared?.endpoint === endpoint
        ? shared.openDatagrams(this.#user, port, receive)
        : endpoint.openDatagrams(port, { admits: () => true, onDatagram: receive })
    if (close !== undefined) this.#open.set(endpoint, close)
    return close !== undefined
  }

  // --- receiving ---

  #receive(endpoint: Endpoint, { bytes, ...flow }: UdpDatagram, session: SessionHandle): void {
    if (this.#state === 'closed') return
    const known = session.addressOf(flow.remoteAddress)
    // Where it is counts, and what it says of itself as well.
    const all = [session.path.remoteAddress, known, flow.remoteAddress].map(formatAddress)
    if (all.some(one => isBlocked(this.#settings.blockList, one))) return
    const address = formatAddress(known)
    this.#remember(`${address}|${flow.remotePort}`, { endpoint, session, flow })
    const from = new Session(session, endpoint, flow.remoteAddress)
    if (!this.#isFromPeer(address, flow.remotePort, session)) return
    const message = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    const { remotePort: port } = flow
    const size = message.length
    const info = { address, family: families(address), port, size, session: from }
    this.#inScope(() => this.emit('message', message, info))
  }

  /** An address is the session's that had it first, as long as that is up. */
  #remember(key: string, way: Way): void {
    this.#waysOf.set(way.session, way)
    const known = this.#ways.get(key)
    const isOther = known !== undefined && known.session !== way.session
    if (isOther && isUp(known)) return
    this.#ways.delete(key)
    this.#ways.set(key, way)
    const [oldest] = this.#ways.keys()
    if (this.#ways.size > MAX_PEERS && oldest !== undefined) this.#ways.delete(oldest)
  }

  #isFromPeer(address: string, port: number, session: SessionHandle): boolean {
    const peer = this.#peer
    if (peer === undefined) return true
    return typeof peer.address === 'string'
      ? peer.port === port && peer.address === address
      : peer.port === port && Session.handleOf(peer.address) === session
  }

  // --- sending ---

  /**
   * As `dgram`: `(message[, offset, length][, port][, address][, callback])`. `address` may be a session, of which the
   * datagram goes to the port. What is larger than the SA carries fails with EMSGSIZE and the `limit`.
   */
  send(message: Payload, port: number, address?: string | Session, callback?: Callback): void
  send(message: Payload, port: number, callback?: Callback): void
  send(message: Payload, callback?: Callback): void
  send(
    message: string | Uint8Array | DataView,
    offset: number,
    length: number,
    port?: number,
    address?: string | Session,
    callback?: Callback,
  ): void
  send(message: Payload, ...args: unknown[]): void {
    const last = args.at(-1)
    const callback = typeof last === 'function' ? (args.pop() as Callback) : undefined
    while (args.length > 0 && args.at(-1) === undefined) args.pop()
    const whole = octetsOf(message)
    const hasRange = typeof args[1] === 'number' && (args.length > 2 || this.#peer !== undefined)
    const payload = hasRange ? rangeOf(whole, args.shift(), args.shift()) : whole
    const destination = this.#destination(args)
    if (this.#state === 'closed') throw nodeError('ERR_SOCKET_DGRAM_NOT_RUNNING', 'Not running')
    const done: Callback = (error, octets) => {
      if (callback !== undefined)
        return this.#scope.runInAsyncScope(callback, undefined, error, octets)
      // As dgram does: of what fails with the socket itself only the callbacks hear.
      const isOwn = this.#state === 'closed' || (error as NodeJS.ErrnoException)?.syscall === 'bind'
      if (error !== null && !isOwn) this.#inScope(() => this.emit('error', error))
    }
    this.#sendTo(destination, payload, (error, octets) => process.nextTick(done, error, octets))
  }

  #destination(args: readonly unknown[]): Destination {
    if (args.length === 0) {
      if (this.#peer !== undefined) return this.#peer
      throw nodeError('ERR_SOCKET_BAD_PORT', 'Port should be > 0 and < 65536.', RangeError)
    }
    if (this.#peer !== undefined) {
      throw nodeError('ERR_SOCKET_DGRAM_IS_CONNECTED', 'Already connected')
    }
    return destinationOf(args[0], args[1])
  }

  #sendTo(destination: Destination, payload: Uint8Array, done: Callback): void {
    const { port, address } = destination
    // As dgram does: what is sent before the port is known waits for it.
    if (this.#state === 'binding') {
      if (this.#early.length < MAX_WAITING) this.#early.push({ destination, payload, done })
      else done(failure('ENOBUFS', undefined, port))
      return
    }
    if (this.#state === 'closed') return done(failure('ECANCELED', undefined, port))
    if (address instanceof Session) return this.#sendOver(this.#wayTo(address, port), payload, done)
    const known = this.#ways.get(`${address}|${port}`)
    if (known !== undefined && isUp(known)) return this.#sendOver(known, payload, done)
    const key = `${address}|${port}`
    const opening = this.#openings.get(key)
    if (opening === undefined) return this.#openWay(key, { port, address }, payload, done)
    if (opening.waiting.length < MAX_WAITING) opening.waiting.push({ payload, done })
    else done(failure('ENOBUFS', address, port))
  }

  #wayTo(session: Session, port: number): Way | undefined {
    const handle = Session.handleOf(session)
    const way = handle && this.#waysOf.get(handle)
    return way && { ...way, flow: { ...way.flow, remotePort: port } }
  }

  #sendOver(way: Way | undefined, payload: Uint8Array, done: Callback): void {
    if (way === undefined || !isUp(way)) return done(failure('EHOSTUNREACH', undefined, undefined))
    const { endpoint, session, flow } = way
    const { datagramLimit: limit } = session
    const address = formatAddress(flow.remoteAddress)
    const blocked = [session.path.remoteAddress, flow.remoteAddress]
      .map(formatAddress)
      .find(one => isBlocked(this.#settings.blockList, one))
    if (blocked !== undefined) return done(blockedError(blocked))
    if (payload.length > limit) {
      const error = failure('EMSGSIZE', address, flow.remotePort)
      error.message += ` (${payload.length} octets; at most ${limit})`
      return done(Object.assign(error, { limit }))
    }
    if (!endpoint.sendDatagram(session, flow, payload))
      return done(failure('ENOBUFS', address, flow.remotePort))
    done(null, payload.length)
  }

  #openWay(
    key: string,
    { port, address: host }: { port: number; address: string },
    payload: Uint8Array,
    done: Callback,
  ): void {
    const opening: Opening = { waiting: [{ payload, done }] }
    this.#openings.set(key, opening)
    const finish = (error: Error | undefined, way?: Way): void => {
      if (this.#openings.get(key) !== opening) return
      this.#openings.delete(key)
      if (way !== undefined) this.#remember(key, way)
      for (const { payload: octets, done: tell } of opening.waiting) {
        if (error === undefined) this.#sendOver(way, octets, tell)
        else tell(error)
      }
    }
    const { gateway = host } = this.#settings.connect
    lookUp(host, (error, inner) => {
      if (inner === undefined) return finish(error)
      lookUp(gateway, (problem, outer) => {
        if (outer === undefined) return finish(problem)
        const blocked = [inner, outer].find(one => isBlocked(this.#settings.blockList, one))
        if (blocked !== undefined) return finish(blockedError(blocked))
        if (this.#openings.get(key) !== opening) return
        opening.giveUp = this.#associate(inner, outer, host, port, finish)
      })
    })
  }

  #associate(
    inner: string,
    outer: string,
    host: string,
    port: number,
    finish: (error: Error | undefined, way?: Way) => void,
  ): (() => void) | undefined {
    const settings = { ...this.#settings.connect, host }
    const { endpoint, gateway } = clientWay({ address: outer, port: settings.ikePort, settings })
    if (!this.#choosePort(0, endpoint)) {
      finish(failure('EADDRINUSE', inner, this.#port))
      return undefined
    }
    if (this.#shared === undefined) this.#hold.take(endpoint)
    if (this.#state === 'new') {
      this.#state = 'bound'
      this.#inScope(() => this.emit('listening'))
    }
    const owner: ConnectionOwner = {
      onSession: ignore,
      onConnected: ignore,
      onReadable: ignore,
      onWritable: ignore,
      onEnded: ignore,
      onClosed: error => finish(error ?? failure('EHOSTUNREACH', inner, port)),
      onAssociated: (session, flow) => finish(undefined, { endpoint, session, flow }),
    }
    return endpoint.connect(
      {
        protocol: 17,
        remoteAddress: parseAddress(inner)!,
        remotePort: port,
        localPort: this.#port,
        noDelay: false,
        keepAlive: undefined,
      },
      owner,
      gateway,
    )
  }

  // --- a default destination ---

  /** As `dgram`: later `send` has no destination, and what others send is passed over. */
  connect(port: number, address?: string | Session | (() => void), callback?: () => void): void {
    const done = typeof address === 'function' ? address : callback
    const to = destinationOf(port, typeof address === 'function' ? undefined : address)
    if (this.#peer !== undefined) {
      throw nodeError('ERR_SOCKET_DGRAM_IS_CONNECTED', 'Already connected')
    }
    if (done !== undefined) this.once('connect', done)
    if (typeof to.address !== 'string') {
      this.#peer = to
      return void process.nextTick(() => this.#inScope(() => this.emit('connect')))
    }
    lookUp(to.address, (error, found) => {
      if (this.#state === 'closed') return
      if (found === undefined) return this.#inScope(() => this.emit('error', error!))
      this.#peer = { port: to.port, address: found }
      this.#inScope(() => this.emit('connect'))
    })
  }

  /** As `dgram`: removes the default destination. */
  disconnect(): void {
    if (this.#peer === undefined) {
      throw nodeError('ERR_SOCKET_DGRAM_NOT_CONNECTED', 'Not connected')
    }
    this.#peer = undefined
  }

  /** As `dgram`: the default destination. For a session the address is that of its gateway. */
  remoteAddress(): { address: string; family: 'IPv4' | 'IPv6'; port: number } {
    if (this.#peer === undefined) {
      throw nodeError('ERR_SOCKET_DGRAM_NOT_CONNECTED', 'Not connected')
    }
    const { port, address: to } = this.#peer
    const address = typeof to === 'string' ? to : to.gatewayAddress
    return { address, family: families(address), port }
  }

  // --- facts and the end ---

  /** The port is the one inside ESP. */
  address(): { address: string; family: 'IPv4' | 'IPv6'; port: number } {
    if (this.#port === 0) throw failure('EBADF', undefined, undefined)
    const udp = this.#shared?.endpoint.udpAddress
    return { address: udp?.address ?? '0.0.0.0', family: udp?.family ?? 'IPv4', port: this.#port }
  }

  /** The UDP port that IKE and ESP come to, once it is bound. */
  get ikePort(): number | undefined {
    return this.#shared?.endpoint.udpAddress?.port
  }

  /** Octets of the largest datagram to that destination; undefined while there is no SA with it. */
  maxSize(port: number, address: string | Session = '127.0.0.1'): number | undefined {
    const way =
      typeof address === 'string'
        ? this.#ways.get(`${address}|${port}`)
        : this.#wayTo(address, port)
    return way !== undefined && isUp(way) ? way.session.datagramLimit : undefined
  }

  /** Closes the socket; 'close' follows. What has not gone yet fails with ECANCELED. */
  close(callback?: () => void): this {
    if (typeof callback === 'function') this.once('close', callback)
    if (this.#state === 'closed') throw nodeError('ERR_SOCKET_DGRAM_NOT_RUNNING', 'Not running')
    const shared = this.#shared
    this.#state = 'closed'
    for (const shut of this.#open.values()) shut()
    this.#open.clear()
    this.#ways.clear()
    const openings = [...this.#openings.values()]
    this.#openings.clear()
    for (const { giveUp } of openings) giveUp?.()
    const unsent = [...this.#takeEarly(), ...openings.flatMap(({ waiting }) => waiting)]
    for (const { done } of unsent) done(failure('ECANCELED', undefined, undefined))
    const done = (): void => {
      this.#hold.drop()
      process.nextTick(() => this.#inScope(() => this.emit('close')))
    }
    if (shared === undefined) done()
    else shared.release(this.#user, done)
    return this
  }

  /** Closes the socket; for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return new Promise(resolve => {
      if (this.#state === 'closed') resolve()
      else this.close(resolve)
    })
  }

  /** As `dgram`: the socket keeps the process alive again. */
  ref(): this {
    this.#hold.ref()
    return this
  }

  /** As `dgram`: the socket no longer keeps the process alive. */
  unref(): this {
    this.#hold.unref()
    return this
  }

  #inScope(run: () => void): void {
    this.#scope.runInAsyncScope(run)
  }
}

/** Gets each datagram with where it came from. */
export type SecureDatagramListener = (message: Buffer, from: DatagramInfo) => void

export type Octets = string | Uint8Array | DataView
export type Payload = Octets | readonly Octets[]

const ignore = (): void => undefined

const isUp = ({ session, flow }: Way): boolean => session.carries(flow)

const failure = (code: string, address: string | undefined, port: number | undefined): Error =>
  withNumber(socketError({ code, syscall: 'send', address, port }))

const bindAddress = (value: unknown): string | undefined => {
  if (value === undefined || value === '') return undefined
  if (typeof value !== 'string') throw argumentError('address', value, 'of type string')
  if (isIP(value) !== 0) return value
  throw nodeError('ERR_INVALID_IP_ADDRESS', `Invalid IP address: ${value.slice(0, 100)}`, TypeError)
}

const destinationOf = (port: unknown, address: unknown): Destination => {
  const number = parsePort('port', port)
  if (number === 0) {
    throw nodeError(
      'ERR_SOCKET_BAD_PORT',
      'Port should be > 0 and < 65536. Received 0.',
      RangeError,
    )
  }
  if (address instanceof Session) return { port: number, address }
  if (address === undefined || address === '') return { port: number, address: '127.0.0.1' }
  if (typeof address === 'string') return { port: number, address }
  throw argumentError('address', address, 'of type string or a session')
}

const octetsOf = (message: unknown): Uint8Array => {
  if (typeof message === 'string') return Buffer.from(message)
  if (message instanceof Uint8Array) return message
  if (message instanceof DataView)
    return new Uint8Array(message.buffer, message.byteOffset, message.byteLength)
  if (Array.isArray(message))
    return message.length === 0 ? EMPTY : Buffer.concat(message.map(octetsOf))
  const wanted = 'of type string, a Buffer, TypedArray, DataView, or an array of them'
  throw argumentError('msg', message, wanted)
}

const rangeOf = (octets: Uint8Array, offset: unknown, length: unknown): Uint8Array => {
  const isIn = (value: unknown, most: number): value is number =>
    typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most
  if (!isIn(offset, octets.length) || !isIn(length, octets.length - offset)) {
    throw nodeError(
      'ERR_BUFFER_OUT_OF_BOUNDS',
      '"offset" and "length" must lie in the message',
      RangeError,
    )
  }
  return octets.subarray(offset, offset + length)
}

/** Answers later, a literal address too. */
const lookUp = (
  host: string,
  done: (error: Error | undefined, address: string | undefined) => void,
): void => {
  if (isIP(host) !== 0) return void process.nextTick(done, undefined, host)
  dns.lookup(host, (error, address) =>
    done(error ?? undefined, error === null ? address : undefined),
  )
}

/** Makes a socket for datagrams (UDP, protocol 17) inside ESP. */
export const createSecureDatagram = (
  options: DatagramOptions,
  onMessage?: SecureDatagramListener,
): SecureDatagram => new SecureDatagram(options, onMessage)
