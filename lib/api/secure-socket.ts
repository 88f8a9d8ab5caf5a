/**
 * A Duplex with the surface of `net.Socket`, over a TCP connection inside ESP. It does not extend
 * `net.Socket`, which without a native handle would make `tls.connect({ socket })` wait for ever.
 */
import { AsyncResource } from 'node:async_hooks'
import { lookup as dnsLookup, type LookupAddress } from 'node:dns'
import { isIP } from 'node:net'
import { addAbortSignal, Duplex } from 'node:stream'
import { formatAddress, parseAddress } from '../base/address.ts'
import { OptionError } from '../base/errors.ts'
import type { Connection, KeepAlive, SessionHandle } from '../core/events.ts'
import type { ConnectionOwner, Endpoint } from '../node/endpoint.ts'
import { IdleTimer } from '../node/idle-timer.ts'
import { channels } from './channels.ts'
import { clientEndpoint, type ClientContext } from './client-endpoints.ts'
import {
  parseConnect,
  parsePort,
  type ConnectSettings,
  type SecureSocketOptions,
} from './options.ts'
import { Session } from './session.ts'

type Callback = (error?: Error | null) => void

/** An accepted connection, for a server's own use. */
export interface Accepted {
  readonly connection: Connection
  readonly session: SessionHandle
  readonly endpoint: Endpoint
  readonly server: unknown
  readonly settings: ConnectSettings
}

const nodeError = (
  code: string,
  message: string,
  Type: ErrorConstructor | TypeErrorConstructor = Error,
): Error => Object.assign(new Type(message), { code })

export class SecureSocket extends Duplex {
  /** Writable, since http puts its own server here. */
  server: unknown = null
  /** Idle time set by `setTimeout`, in milliseconds; http's agents compare it. */
  timeout: number | undefined
  /** As net does: `true` from `connect` until 'connect'. */
  connecting = false
  /** As net's types have it; nothing before the first attempt. */
  autoSelectFamilyAttemptedAddresses: string[] = undefined as never
  alpnProtocol: string | false = false
  readonly #settings: ConnectSettings
  #scope = new AsyncResource('SECURESOCKET')
  #endpoint: Endpoint | undefined
  #connection: Connection | undefined
  #session: Session | undefined
  #giveUp: (() => void) | undefined
  #pendingWrite: { chunks: Buffer[]; callback: Callback } | undefined
  #pendingFinal: Callback | undefined
  #wantsData = false
  #ended = false
  #hadConnection = false
  #noDelay: boolean
  #keepAlive: KeepAlive | undefined
  #referenced = true
  #holdsRef = false
  #idle: IdleTimer
  #pendingOctets = 0
  #read = 0
  #written = 0
  #host: string | undefined
  #wantsReset = false

  constructor(options: SecureSocketOptions = {}, accepted?: Accepted) {
    const settings = accepted?.settings ?? parseConnect(options, false)
    super({
      allowHalfOpen: settings.allowHalfOpen,
      autoDestroy: true,
      emitClose: false,
      decodeStrings: true,
      ...(settings.highWaterMark === undefined ? {} : { highWaterMark: settings.highWaterMark }),
    })
    this.#settings = settings
    if (settings.signal !== undefined) addAbortSignal(settings.signal, this)
    this.#noDelay = settings.noDelay
    this.#keepAlive = settings.keepAlive
      ? { enable: true, initialDelay: settings.keepAliveInitialDelay }
      : undefined
    this.#idle = new IdleTimer(() => this.#inScope(() => this.emit('timeout')))
    if (settings.timeout !== undefined) this.setTimeout(settings.timeout)
    if (accepted !== undefined) this.#accept(accepted)
  }

  /** For a server: wraps a connection that a peer opened. */
  static accept(accepted: Accepted): { socket: SecureSocket; owner: ConnectionOwner } {
    const socket = new SecureSocket({}, accepted)
    return { socket, owner: socket.#owner }
  }

  #accept(accepted: Accepted): void {
    this.server = accepted.server
    this.#endpoint = accepted.endpoint
    this.#connection = accepted.connection
    this.#session = new Session(accepted.session, accepted.endpoint)
    this.#hadConnection = true
    if (this.#noDelay) accepted.connection.setNoDelay(true)
    if (this.#keepAlive !== undefined)
      accepted.connection.setKeepAlive(this.#keepAlive, accepted.endpoint.now())
    this.#hold()
  }

  // --- connecting ---

  /** As `net.Socket`: `(options[, listener])`, `(port[, host][, listener])`. Also after 'close', for another connection. */
  connect(...args: unknown[]): this {
    const { options, listener } = normalize(args)
    const settings = parseConnect({ ...this.#settings.given, ...options }, true)
    if (this.destroyed) this.#revive()
    if (listener !== undefined) this.once('connect', listener)
    this.connecting = true
    this.#host = settings.host
    this.#idle.refresh()
    this.#hold()
    this.#resolve(settings)
    return this
  }

  /** After 'close' the same object may connect again, as net's may. */
  #revive(): void {
    const undestroy = (this as unknown as { _undestroy?: () => void })._undestroy
    undestroy?.call(this)
    this.#connection = undefined
    this.#session = undefined
    this.#ended = false
    this.#hadConnection = false
    this.#read = 0
    this.#written = 0
    this.#wantsReset = false
    this.#scope = new AsyncResource('SECURESOCKET')
  }

  #resolve(settings: ConnectSettings): void {
    const { host, gateway } = settings
    this.#lookup(host, settings, inner => {
      const start = (outer: string): void => this.#open(settings, inner, outer)
      if (gateway === undefined) start(inner)
      else this.#lookup(gateway, settings, start)
    })
  }

  #lookup(host: string, settings: ConnectSettings, then: (address: string) => void): void {
    if (isIP(host) !== 0) {
      process.nextTick(() => this.connecting && then(host))
      return
    }
    const lookup = settings.lookup ?? dnsLookup
    const options = {
      family: settings.family ?? 0,
      hints: settings.hints ?? 0,
      all: false as const,
    }
    const done = (error: Error | null, found: string | LookupAddress[], family?: number): void => {
      const first = Array.isArray(found) ? found[0] : undefined
      const address = first?.address ?? (found as string)
      this.#inScope(() => {
        if (!this.connecting) return
        this.emit('lookup', error, address, first?.family ?? family, host)
        if (error !== null) this.destroy(error)
        else if (isIP(address) === 0) {
          this.destroy(
            nodeError('ERR_INVALID_IP_ADDRESS', `Invalid IP address: ${address}`, TypeError),
          )
        } else then(address)
      })
    }
    try {
      ;(lookup as (host: string, options: object, callback: typeof done) => void)(
        host,
        options,
        done,
      )
    } catch (error) {
      process.nextTick(() => this.destroy(error as Error))
    }
  }

  #open(settings: ConnectSettings, inner: string, outer: string): void {
    this.autoSelectFamilyAttemptedAddresses = [`${inner}:${settings.port}`]
    if (settings.blockList?.check(inner, isIP(inner) === 6 ? 'ipv6' : 'ipv4')) {
      this.destroy(nodeError('ERR_IP_BLOCKED', `IP(${inner}) is blocked by net.BlockList`))
      return
    }
    const context: ClientContext = { address: outer, port: settings.ikePort, settings }
    this.#release()
    this.#endpoint = clientEndpoint(context)
    this.#hold()
    this.#endpoint.onOpenFailure(error => this.destroy(error))
    this.#giveUp = this.#endpoint.connect(
      {
        remoteAddress: parseAddress(inner)!,
        remotePort: settings.port,
        localAddress:
          settings.localAddress === undefined ? undefined : parseAddress(settings.localAddress),
        localPort: settings.localPort ?? 0,
        noDelay: this.#noDelay,
        keepAlive: this.#keepAlive,
      },
      this.#owner,
    )
  }

  #inScope(run: () => void): void {
    this.#scope.runInAsyncScope(run)
  }

  // --- what the endpoint tells ---

  readonly #owner: ConnectionOwner = {
    onSession: session => {
      this.#session = new Session(session, this.#endpoint!)
    },
    onConnected: connection => {
      this.#connection = connection
      this.#giveUp = undefined
      this.#hadConnection = true
      this.connecting = false
      this.#inScope(() => {
        this.#idle.refresh()
        this.emit('connect')
        this.emit('ready')
        this.emit('secureConnect')
        if (this.#wantsReset) this.resetAndDestroy()
      })
      this.#flush()
      // As net does: reading starts without being asked for, so that the end is noticed.
      if (!this.isPaused()) this.read(0)
    },
    onReadable: () => this.#inScope(() => this.#pull()),
    onWritable: () => this.#inScope(() => this.#flush()),
    onEnded: () => {
      this.#ended = true
      this.#inScope(() => this.#pull())
    },
    onClosed: error => {
      this.#giveUp = undefined
      if (error === undefined) {
        this.#ended = true
        this.#inScope(() => this.#pull())
        return
      }
      this.#inScope(() => this.destroy(error))
    },
  }

  // --- reading ---

  #pull(): void {
    const connection = this.#connection
    if (connection === undefined) return
    this.#idle.refresh()
    while (this.#wantsData && connection.readableLength > 0) {
      const octets = connection.receive()
      if (octets === undefined) break
      this.#read += octets.length
      const chunk = Buffer.from(octets.buffer, octets.byteOffset, octets.length)
      if (!this.#give(chunk)) this.#wantsData = false
    }
    this.#endpoint?.wake(connection)
    if (!this.#ended || connection.readableLength > 0 || this.readableEnded) return
    this.#ended = false
    this.push(null)
    // Without a reader the end would never be noticed.
    this.read(0)
  }

  #give(chunk: Buffer): boolean {
    const { onread } = this.#settings
    if (onread === undefined) return this.push(chunk)
    let going = true
    for (let at = 0; at < chunk.length;) {
      const target = typeof onread.buffer === 'function' ? onread.buffer() : onread.buffer
      const count = Math.min(target.length, chunk.length - at)
      target.set(chunk.subarray(at, at + count))
      at += count
      if (onread.callback(count, target) === false) going = false
    }
    return going
  }

  override _read(): void {
    this.#wantsData = true
    if (this.connecting || this.#connection === undefined) return
    this.#pull()
  }

  // --- writing ---

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Callback): void {
    this.#writeAll([chunk], callback)
  }

  override _writev(items: { chunk: Buffer }[], callback: Callback): void {
    this.#writeAll(
      items.map(({ chunk }) => chunk),
      callback,
    )
  }

  #writeAll(chunks: Buffer[], callback: Callback): void {
    this.#idle.refresh()
    for (const chunk of chunks) this.#pendingOctets += chunk.length
    this.#pendingWrite = { chunks, callback }
    if (this.connecting) return
    if (this.#connection === undefined) {
      this.#pendingWrite = undefined
      const never = !this.#hadConnection && !this.destroyed
      return callback(
        nodeError(
          never ? 'ERR_SOCKET_CLOSED' : 'EPIPE',
          never ? 'Socket is closed' : 'write EPIPE',
        ),
      )
    }
    this.#flush()
  }

  #flush(): void {
    const connection = this.#connection
    const pending = this.#pendingWrite
    if (connection === undefined) return
    if (pending !== undefined) {
      while (pending.chunks.length > 0) {
        const chunk = pending.chunks[0]!
        const taken = connection.send(chunk)
        this.#written += taken
        this.#pendingOctets -= taken
        if (taken < chunk.length) {
          pending.chunks[0] = chunk.subarray(taken)
          break
        }
        pending.chunks.shift()
      }
      this.#endpoint?.wake(connection)
      if (pending.chunks.length > 0) return
      this.#pendingWrite = undefined
      this.#idle.refresh()
      pending.callback()
    }
    if (this.#pendingFinal === undefined || this.#pendingWrite !== undefined) return
    const done = this.#pendingFinal
    this.#pendingFinal = undefined
    connection.shutdown()
    this.#endpoint?.wake(connection)
    done()
  }

  override _final(callback: Callback): void {
    if (this.connecting || this.#connection !== undefined) {
      this.#pendingFinal = callback
      if (!this.connecting) this.#flush()
      return
    }
    callback()
  }

  // --- ending ---

  override _destroy(error: Error | null, callback: Callback): void {
    const connection = this.#connection
    this.connecting = false
    this.#idle.clear()
    this.#giveUp?.()
    this.#giveUp = undefined
    if (connection !== undefined) {
      // What becomes of it is no longer ours: this object may connect anew.
      connection.context = undefined
      if (this.#wantsReset) connection.abort()
      else connection.release(this.#endpoint!.now())
      this.#endpoint?.wake(connection)
    }
    const waiting = this.#pendingWrite?.callback
    this.#pendingWrite = undefined
    waiting?.(
      error ??
        nodeError(
          this.#hadConnection ? 'ECANCELED' : 'ERR_SOCKET_CLOSED_BEFORE_CONNECTION',
          'Socket closed before the write was done',
        ),
    )
    this.#pendingFinal = undefined
    this.#release()
    callback(error)
    process.nextTick(() => this.#inScope(() => this.emit('close', error !== null)))
  }

  /** Destroys after what was written has gone out. */
  destroySoon(): void {
    if (this.writable) this.end()
    if (this.writableFinished) this.destroy()
    else this.once('finish', () => this.destroy())
  }

  /** RST instead of FIN. */
  resetAndDestroy(): this {
    this.#wantsReset = true
    if (this.connecting) return this
    if (this.#connection === undefined)
      return this.destroy(nodeError('ERR_SOCKET_CLOSED', 'Socket is closed'))
    return this.destroy()
  }

  // --- settings ---

  /** 'timeout' after so many milliseconds without traffic; 0: never. It ends nothing by itself. */
  setTimeout(milliseconds: number, callback?: () => void): this {
    if (typeof milliseconds !== 'number') {
      throw new OptionError('msecs', milliseconds, 'of type number', 'ERR_INVALID_ARG_TYPE')
    }
    if (!(milliseconds >= 0) || milliseconds === Infinity) {
      throw Object.assign(
        new RangeError(
          `The value of "msecs" is out of range. It must be a non-negative finite number. Received ${milliseconds}`,
        ),
        { code: 'ERR_OUT_OF_RANGE' },
      )
    }
    if (callback !== undefined && typeof callback !== 'function') {
      throw new OptionError('callback', callback, 'of type function', 'ERR_INVALID_ARG_TYPE')
    }
    this.timeout = milliseconds
    this.#idle.set(milliseconds)
    if (callback !== undefined) {
      if (milliseconds === 0) this.removeListener('timeout', callback)
      else this.once('timeout', callback)
    }
    return this
  }

  setNoDelay(enable = true): this {
    this.#noDelay = Boolean(enable)
    this.#connection?.setNoDelay(this.#noDelay)
    if (this.#connection !== undefined) this.#endpoint?.wake(this.#connection)
    return this
  }

  /** Delays in milliseconds. Also `({ enable, initialDelay, interval, count })`. */
  setKeepAlive(
    enable: boolean | KeepAlive = false,
    initialDelay = 0,
    interval?: number,
    count?: number,
  ): this {
    this.#keepAlive =
      typeof enable === 'object'
        ? enable
        : { enable: Boolean(enable), initialDelay, interval, count }
    const connection = this.#connection
    if (connection !== undefined) {
      connection.setKeepAlive(this.#keepAlive, this.#endpoint!.now())
      this.#endpoint!.wake(connection)
    }
    return this
  }

  ref(): this {
    this.#referenced = true
    this.#hold()
    return this
  }

  unref(): this {
    this.#referenced = false
    this.#release()
    return this
  }

  #hold(): void {
    if (this.#holdsRef || !this.#referenced || this.#endpoint === undefined || this.destroyed)
      return
    this.#holdsRef = true
    this.#endpoint.ref()
  }

  #release(): void {
    if (!this.#holdsRef) return
    this.#holdsRef = false
    this.#endpoint?.unref()
  }

  // --- facts ---

  get pending(): boolean {
    return this.#connection === undefined || this.connecting || this.destroyed
  }

  get readyState(): 'opening' | 'open' | 'readOnly' | 'writeOnly' | 'closed' {
    if (this.connecting) return 'opening'
    if (this.readable && this.writable) return 'open'
    if (this.readable) return 'readOnly'
    return this.writable ? 'writeOnly' : 'closed'
  }

  get bytesRead(): number {
    return this.#read
  }

  get bytesWritten(): number {
    return (
      this.#written + this.#pendingOctets + Math.max(0, this.writableLength - this.#pendingOctets)
    )
  }

  get bufferSize(): number {
    return this.writableLength
  }

  get #end(): Connection | undefined {
    return this.destroyed ? undefined : this.#connection
  }

  get localAddress(): string | undefined {
    return this.#end && formatAddress(this.#end.localAddress)
  }

  get localPort(): number | undefined {
    return this.#end?.localPort
  }

  get localFamily(): 'IPv4' | 'IPv6' | undefined {
    return this.#end && familyOf(this.#end.localAddress)
  }

  get remoteAddress(): string | undefined {
    return this.#end && formatAddress(this.#end.remoteAddress)
  }

  get remotePort(): number | undefined {
    return this.#end?.remotePort
  }

  get remoteFamily(): 'IPv4' | 'IPv6' | undefined {
    return this.#end && familyOf(this.#end.remoteAddress)
  }

  address(): { address: string; family: string; port: number } | Record<string, never> {
    const end = this.#end
    if (end === undefined) return {}
    return {
      address: formatAddress(end.localAddress),
      family: familyOf(end.localAddress),
      port: end.localPort,
    }
  }

  /** The IKE SA this socket rides on, once there is one. Several sockets may share it. */
  get session(): Session | undefined {
    return this.#session
  }

  /** Who the peer proved to be. */
  get peerId(): string | undefined {
    return this.#session?.peerId
  }

  /** The peer has proved who it is. */
  get authorized(): boolean {
    return this.#session !== undefined
  }

  get encrypted(): true {
    return true
  }

  getProtocol(): string | null {
    return this.#session === undefined ? null : 'IKEv2'
  }

  getCipher(): { name: string; standardName: string; version: string } | Record<string, never> {
    const suite = this.#session?.info.children[0]?.suite
    return suite === undefined ? {} : { name: suite, standardName: suite, version: 'IKEv2' }
  }

  /** What TCP knows, under the names of Linux's tcp_info. */
  tcpInfo(): Record<string, number | string> | undefined {
    return this.#connection?.tcpInfo()
  }

  get _handle(): null {
    return null
  }

  get _connecting(): boolean {
    return this.connecting
  }

  get _host(): string | undefined {
    return this.#host
  }
}

const familyOf = (address: Uint8Array): 'IPv4' | 'IPv6' => (address.length === 4 ? 'IPv4' : 'IPv6')

/** The overloads of `connect`: `(options[, listener])`, `(port[, host][, listener])`. */
export const normalize = (
  args: readonly unknown[],
): { options: SecureSocketOptions; listener: (() => void) | undefined } => {
  const last = args.at(-1)
  const listener = typeof last === 'function' ? (last as () => void) : undefined
  const [first, second] = args
  if (typeof first === 'object' && first !== null) return { options: first, listener }
  if (typeof first === 'string' && !/^\d+$/.test(first)) {
    throw new OptionError('path', first, 'left out: there are no local (IPC) secure sockets')
  }
  if (first === undefined || typeof first === 'function') {
    throw nodeError(
      'ERR_MISSING_ARGS',
      'The "options" or "port" argument must be specified',
      TypeError,
    )
  }
  const third = args[2]
  const more =
    typeof third === 'object' && third !== null
      ? third
      : typeof second === 'object' && second !== null
        ? second
        : {}
  return {
    options: {
      ...more,
      port: parsePort('port', first),
      ...(typeof second === 'string' ? { host: second } : {}),
    },
    listener,
  }
}

/** Starts connecting at once. Overloads as of `net.connect`; further options may follow the host. */
export const createSecureSocket = (...args: unknown[]): SecureSocket => {
  const { options, listener } = normalize(args)
  const socket = new SecureSocket(options)
  if (channels.clientSocket.hasSubscribers) channels.clientSocket.publish({ socket })
  return listener === undefined ? socket.connect(options) : socket.connect(options, listener)
}
