/**
 * A Duplex with the surface of `net.Socket`, over a TCP connection inside ESP. It does not extend
 * `net.Socket`, which without a native handle would make `tls.connect({ socket })` wait for ever.
 */
import { AsyncResource } from 'node:async_hooks'
import { Buffer } from 'node:buffer'
import type { X509Certificate } from 'node:crypto'
import { isIP, type Server, type SocketConnectOpts } from 'node:net'
import { addAbortSignal, Duplex } from 'node:stream'
import type { DetailedPeerCertificate } from 'node:tls'
import { types } from 'node:util'
import { formatAddress, parseAddress } from '../base/address.ts'
import { OptionError, socketError, type SocketErrorFacts } from '../base/errors.ts'
import type { Connection, KeepAlive, SessionHandle } from '../core/events.ts'
import { withNumber, type ConnectionOwner, type Endpoint } from '../node/endpoint.ts'
import { IdleTimer } from '../node/idle-timer.ts'
import { channels } from './channels.ts'
import { clientWay, hasLiveSa } from './client-endpoints.ts'
import { Connector, type ConnectionAttempt } from './connector.ts'
import { keepControl } from './control.ts'
import { EndpointReference } from './endpoint-reference.ts'
import { isLocalEndUsed, isOwnAddress, useLocalEnd } from './local-ends.ts'
import {
  atClose,
  atFinish,
  expectClose,
  inEndingTurn,
  inNextTurn,
  type ClosePlace,
} from './next-turn.ts'
import {
  argumentError,
  nodeError,
  parseConnect,
  parseMore,
  isLenient,
  isPathText,
  MISSING_PORT,
  parsePort,
  rangeError,
  type ConnectSettings,
  type OnRead,
  type SecureSocketOptions,
} from './options.ts'
import { Session } from './session.ts'
import { isClosing } from './shared-endpoint.ts'
import type { AnyListener, Listener, SecureSocketEvents } from './socket-events.ts'

/** Of a write, or of the end of writing. */
export type Callback = (error?: Error | null) => void

/** A write that TCP has not taken whole yet. */
interface PendingWrite {
  readonly chunks: readonly Buffer[]
  next: number
  /** Of the chunk at `next`. */
  rest: Buffer | undefined
  readonly callback: Callback
}

interface RemoteEnd {
  readonly address: string
  readonly family: 'IPv4' | 'IPv6'
  readonly port: number
}

/** An accepted connection, for a server's own use. */
export interface Accepted {
  readonly connection: Connection
  readonly session: SessionHandle
  readonly endpoint: Endpoint
  readonly server: Server
  readonly settings: ConnectSettings
  /** After 'close', which shows no listener of the server's. */
  closed(socket: SecureSocket): void
}

/** A connection inside ESP: a Duplex with the members and events of `net.Socket`. `instanceof net.Socket` is false. */
export class SecureSocket extends Duplex {
  /** Writable, since http puts its own server here. */
  server: Server | null = null
  /** Idle time set by `setTimeout`, in milliseconds; http's agents compare it. */
  timeout?: number
  /** As net does: `true` from `connect` until 'connect'. */
  connecting = false
  /** As net's types have it; nothing before the first attempt. */
  autoSelectFamilyAttemptedAddresses: string[] = undefined as never
  /** IKE has no ALPN; a program may say 'h2' here. `false` would make http2's server refuse the socket. */
  alpnProtocol: string | false | undefined
  /** Of net's inside, for libraries that read them. */
  _host: string | null = null
  _hadError = false
  _parent = null
  readonly #settings: ConnectSettings
  #scope: AsyncResource
  #endpoint: Endpoint | undefined
  #connection: Connection | undefined
  #session: Session | undefined
  #connector: Connector | undefined
  /** The newest one. */
  #attempt: { readonly address: string; readonly settings: ConnectSettings } | undefined
  #pendingWrite: PendingWrite | undefined
  #pendingFinal: Callback | undefined
  /** TCP has the end already. */
  #finishing: Callback | undefined
  #wantsData = false
  /** Accepted, and its server is telling of it. */
  #isNew = false
  #isPulling = false
  #ended = false
  #endPushed = false
  /** Nothing can be sent any more, although we have not ended our half. */
  #isOver = false
  #hadConnection = false
  #noDelay: boolean
  #keepAlive: KeepAlive | undefined
  readonly #hold = new EndpointReference()
  #idle: IdleTimer
  /** Octets read, and those of the writes that are over. */
  #read = 0
  #written = 0
  /** How many datagrams had come when octets were read last. */
  #readAt = -1
  #closePlace: ClosePlace | undefined
  #wantsReset = false
  #typeOfService: number
  #freeLocalEnd: (() => void) | undefined
  #closed: Accepted['closed'] | undefined
  /** Of `onread`: where the next octets go. */
  #target: Uint8Array | undefined
  /** The peer's address as it was read last; as net, it can be read after the end too. */
  #remote: RemoteEnd | undefined

  constructor(options?: SecureSocketOptions)
  /** @internal */
  constructor(options: SecureSocketOptions | undefined, accepted: Accepted)
  constructor(options: SecureSocketOptions = {}, accepted?: Accepted) {
    const settings = accepted?.settings ?? parseConnect(options, false)
    super(settings.stream)
    this.#settings = settings
    this.#scope = accepted === undefined ? newScope() : NO_CONTEXT.runInAsyncScope(newScope)
    this.#noDelay = settings.noDelay
    this.#typeOfService = settings.typeOfService
    this.#keepAlive = settings.keepAlive
      ? { enable: true, initialDelay: settings.keepAliveInitialDelay }
      : undefined
    // In the context of the call of setTimeout(), as with net.
    this.#idle = new IdleTimer(() => this.emit('timeout'))
    const { buffer } = settings.onread ?? {}
    if (typeof buffer === 'function') this.#target = buffer()
    this.on('end', onReadableEnd)
    if (accepted !== undefined) this.#accept(accepted)
    const { signal } = settings
    // An error before anyone can listen would be lost.
    if (signal?.aborted === true) process.nextTick(() => addAbortSignal(signal, this))
    else if (signal !== undefined) addAbortSignal(signal, this)
  }

  /**
   * For a server: wraps a connection that a peer opened.
   * @internal
   */
  static accept(accepted: Accepted): {
    socket: SecureSocket
    owner: ConnectionOwner
    begin: (reads: boolean) => void
  } {
    const socket = new SecureSocket({}, accepted)
    socket.#isNew = true
    return { socket, owner: socket.#owner, begin: reads => socket.#begin(reads) }
  }

  /** The server has told of it. As with net, reading starts by itself, so that the end is noticed. */
  #begin(reads: boolean): void {
    if (reads && !this.destroyed) this.read(0)
    this.#isNew = false
  }

  #accept(accepted: Accepted): void {
    this.server = accepted.server
    this.#closed = accepted.closed
    this.#endpoint = accepted.endpoint
    this.#connection = accepted.connection
    const { remoteAddress } = accepted.connection
    this.#session = new Session(accepted.session, accepted.endpoint, remoteAddress)
    const known = accepted.session.addressOf(remoteAddress)
    this.#remote = {
      address: formatAddress(known),
      family: familyOf(known),
      port: accepted.connection.remotePort,
    }
    this.#hadConnection = true
    if (this.#noDelay) accepted.connection.setNoDelay(true)
    const now = accepted.endpoint.now()
    if (this.#keepAlive !== undefined) accepted.connection.setKeepAlive(this.#keepAlive, now)
    const { userTimeout, congestionControl } = this.#settings
    accepted.connection.setUserTimeout(userTimeout, now)
    accepted.connection.setCongestionControl(congestionControl)
    this.#hold.take(accepted.endpoint)
  }

  // --- connecting ---

  /** As `net.Socket`. Also after 'close', for another connection. */
  connect(options: SecureSocketOptions | SocketConnectOpts, listener?: () => void): this
  connect(port: number | string, host: string, listener?: () => void): this
  connect(port: number | string, listener?: () => void): this
  connect(...args: unknown[]): this {
    const { options, listener } = normalize(args)
    const settings = parseMore(options, this.#settings)
    if (this.destroyed) this.#revive()
    if (listener !== undefined) this.once('connect', listener)
    const mistake = this.#mistakeOf(settings)
    if (mistake !== undefined) {
      // What is under way, or open, is lost with it, as with net.
      process.nextTick(() => this.#inScope(() => this.destroy(withNumber(socketError(mistake)))))
      return this
    }
    if (settings.control !== undefined) keepControl(settings.control, 'control')
    this.connecting = true
    if (this.#connection !== undefined) return this.#stayConnected()
    // As net: the name that was looked up.
    if (isIP(settings.host) === 0) this._host = settings.host
    this.#scope = newScope()
    this.#idle.refresh()
    const connector = new Connector(settings, {
      emit: (event, ...facts) =>
        this.#inScope(() => {
          if (connector.attempted !== undefined)
            this.autoSelectFamilyAttemptedAddresses = connector.attempted
          this.emit(event, ...facts)
        }),
      bindMistake: inner => bindMistake(settings, inner),
      open: (inner, outer, isLast) => this.#open(settings, inner, outer, isLast),
      isLive: outer => hasLiveSa({ address: outer, port: settings.ikePort, settings }),
      fail: error => this.#inScope(() => this.destroy(error)),
    })
    this.#connector = connector
    connector.start()
    return this
  }

  /** As with net, an open connection stays what it is, and is told of once more. */
  #stayConnected(): this {
    process.nextTick(() => {
      if (this.destroyed) return
      this.connecting = false
      this.#inScope(() => {
        this.emit('connect')
        this.emit('ready')
      })
    })
    return this
  }

  /** What connect(2) would refuse. */
  #mistakeOf(settings: ConnectSettings): SocketErrorFacts | undefined {
    const { host, port, given } = settings
    if (this.connecting) return { code: 'EALREADY', syscall: 'connect', address: host, port }
    if (isClosing(given.endpoint)) return { code: 'EBADF', syscall: 'connect', address: host, port }
    return undefined
  }

  /** After 'close' the same object may connect again, as net's may. */
  #revive(): void {
    const undestroy = (this as unknown as { _undestroy?: () => void })._undestroy
    undestroy?.call(this)
    this.#connection = undefined
    this.#session = undefined
    this.#ended = false
    this.#endPushed = false
    this.#isOver = false
    this.#remote = undefined
    this.#hadConnection = false
    this.#read = 0
    this.#written = 0
    this.#wantsReset = false
  }

  #open(
    settings: ConnectSettings,
    inner: string,
    outer: string,
    isLast: boolean,
  ): ConnectionAttempt {
    const { endpoint, gateway } = clientWay({ address: outer, port: settings.ikePort, settings })
    this.#endpoint = endpoint
    this.#attempt = { address: outer, settings }
    this.#hold.take(endpoint)
    this.#noteActivity()
    const cancel = endpoint.connect(
      {
        remoteAddress: parseAddress(inner)!,
        remotePort: settings.port,
        localAddress: knownAddress(settings.localAddress),
        localPort: settings.localPort ?? 0,
        noDelay: this.#noDelay,
        keepAlive: this.#keepAlive,
        userTimeout: settings.userTimeout,
        congestionControl: settings.congestionControl,
        // What one address has got must not go to the next one.
        firstOctets: isLast ? () => this.#pendingWrite?.rest : undefined,
      },
      this.#owner,
      gateway,
    )
    return {
      get heard() {
        return endpoint.heard(gateway?.name)
      },
      get isLive() {
        return endpoint.isLive(gateway?.name)
      },
      cancel,
    }
  }

  /** As with net, a socket that neither connects, nor writes, nor reads does not hold its process. */
  #noteActivity(): void {
    const isRequest = this.connecting || this.#hasRequest
    this.#hold.setActive(isRequest || (this.#wantsData && !this.#endPushed), isRequest)
  }

  get #hasRequest(): boolean {
    return this.#pendingWrite !== undefined || this.#pendingFinal !== undefined
  }

  #inScope(run: () => void): void {
    this.#scope.runInAsyncScope(run)
  }

  // --- what the endpoint tells ---

  /** One object, and no closures, for each connection: it lives as long as that. */
  static readonly #Owner = class implements ConnectionOwner {
    readonly #socket: SecureSocket

    constructor(socket: SecureSocket) {
      this.#socket = socket
    }

    onSession(handle: SessionHandle): void {
      const socket = this.#socket
      const session = new Session(handle, socket.#endpoint!)
      socket.#session = session
      socket.#inScope(() => socket.emit('session', session))
    }

    onConnected(connection: Connection): void {
      this.#socket.#noteConnected(connection)
    }

    onReadable(): void {
      const socket = this.#socket
      socket.#inScope(() => socket.#pull())
    }

    onWritable(): void {
      const socket = this.#socket
      socket.#inScope(() => socket.#flush())
    }

    onEnded(): void {
      this.#socket.#ended = true
      this.onReadable()
    }

    onClosed(error: Error | undefined): void {
      const socket = this.#socket
      socket.#inScope(() => socket.#noteClosed(error))
    }
  }

  readonly #owner: ConnectionOwner = new SecureSocket.#Owner(this)

  #noteConnected(connection: Connection): void {
    this.#connection = connection
    this.#noteSent(connection.firstOctets)
    this.#connector?.succeeded()
    this.#connector = undefined
    this.#attempt = undefined
    this.#freeLocalEnd = useLocalEnd(connection.localAddress, connection.localPort)
    this.#hadConnection = true
    this.connecting = false
    this.#inScope(() => {
      this.#idle.refresh()
      this.emit('connect')
      // As net does, whatever the listeners did: what was written goes out, and then there is 'ready'.
      this.#flush()
      if (this.#wantsReset) this.resetAndDestroy()
      this.emit('ready')
      if (!this.destroyed) this.emit('secureConnect')
      // As net does: reading starts without being asked for, so that the end is noticed.
      if (!this.destroyed && !this.isPaused()) this.read(0)
      this.#noteActivity()
    })
  }

  #noteClosed(error: Error | undefined): void {
    if (error === undefined) {
      this.#isOver = true
      this.#ended = true
      this.#pull()
    } else if (this.connecting) this.#connector?.failed(this.#asNetSays(error))
    // As with net, which asks the system no more by then: who writes hears of it.
    else if (this.#endPushed && this.readableEnded && !this.#hasRequest) this.#isOver = true
    else this.destroy(error)
  }

  /** Where the program speaks of the service alone, so does a refusal; which UDP port had nobody is its cause. */
  #asNetSays(error: NodeJS.ErrnoException): Error {
    const attempt = this.#attempt
    if (
      error.code !== 'ECONNREFUSED' ||
      attempt === undefined ||
      !isLenient(attempt.settings.given)
    )
      return error
    const { address, settings } = attempt
    const { port, localAddress, localPort } = settings
    const facts = { code: error.code, syscall: 'connect', address, port }
    const told = withNumber(socketError(facts))
    if (localAddress !== undefined && localPort !== undefined) {
      told.message += ` - Local (${localAddress}:${localPort})`
      Object.assign(told, { localAddress, localPort })
    }
    return Object.assign(told, { cause: error })
  }

  // --- reading ---

  /** Never nested: what a reader does within its callback must not bring the next octets before it returns. */
  #pull(): void {
    const connection = this.#connection
    if (connection === undefined || this.#isPulling) return
    this.#idle.refresh()
    this.#isPulling = true
    const before = this.#read
    try {
      this.#deliver(connection)
    } catch (error) {
      // As with net: a reader that threw has what follows all the same.
      inNextTurn(() => this.#inScope(() => this.#pull()))
      throw error
    } finally {
      this.#isPulling = false
    }
    if (this.#read !== before) {
      this.#readAt = this.#datagramsIn
      // The window may have opened.
      this.#endpoint!.wake(connection)
    }
    if (this.#ended && connection.readableLength === 0 && !this.readableEnded) {
      this.#ended = false
      this.#endPushed = true
      const endpoint = this.#endpoint!
      if (endpoint.hasTurnAhead && this.#readAt !== this.#datagramsIn) {
        this.#closePlace = expectClose()
        this.#pushEnd(connection)
      } else inEndingTurn(() => this.#pushEnd(connection))
    }
    this.#noteActivity()
  }

  get #datagramsIn(): number {
    return this.#endpoint!.core.counters.datagramsIn
  }

  /**
   * In a later turn, if it came together with the last octets: what readers do with these in microtasks, such as to write
   * an answer, comes before the automatic end, as with net.
   */
  #pushEnd(connection: Connection): void {
    if (this.#connection !== connection || this.destroyed) return
    // The automatic end, if it follows, comes before what listeners of 'end' do in the next turn.
    this.#finishLater()
    this.#inScope(() => {
      this.push(null)
      // Without a reader the end would never be noticed.
      this.read(0)
      this.#noteActivity()
    })
  }

  #deliver(connection: Connection): void {
    if (this.#settings.onread !== undefined) this.#readInto(this.#settings.onread, connection)
    while (this.#wantsData && connection.readableLength > 0) {
      const octets = connection.receive()
      if (octets === undefined) break
      this.#read += octets.length
      // A reader that is called by `push` may ask for more, which counts also when `push` says no.
      this.#wantsData = false
      let hasRoom = true
      try {
        hasRoom = this.push(Buffer.from(octets.buffer, octets.byteOffset, octets.length))
      } finally {
        if (hasRoom) this.#wantsData = true
      }
    }
  }

  /** Into the program's own buffers, without 'data', until its callback says `false`; as net, one buffer ahead. */
  #readInto(onread: OnRead, connection: Connection): void {
    while (this.#wantsData && connection.readableLength > 0) {
      const target = (this.#target ??= nextTarget(onread))
      const octets = connection.receive(target.length)
      if (octets === undefined) return
      this.#read += octets.length
      target.set(octets)
      if (onread.callback.call(this, octets.length, target) === false) this.#wantsData = false
      this.#target = nextTarget(onread)
      // The callback may have ended it all.
      if (this.#connection !== connection || this.destroyed) return
    }
  }

  override _read(): void {
    this.#wantsData = true
    this.#noteActivity()
    if (this.connecting || this.#connection === undefined || this.#isNew) return
    this.#pull()
  }

  override pause(): this {
    if (this.#settings.onread !== undefined) this.#wantsData = false
    this.#noteActivity()
    return super.pause()
  }

  override resume(): this {
    // Nothing is ever pushed in this mode, so the stream never asks for more by itself.
    if (this.#settings.onread !== undefined && this.#connection !== undefined) this._read()
    return super.resume()
  }

  // --- writing ---

  override write(chunk: unknown, callback?: Callback): boolean
  override write(chunk: unknown, encoding?: BufferEncoding, callback?: Callback): boolean
  override write(
    chunk: unknown,
    encoding?: BufferEncoding | Callback,
    callback?: Callback,
  ): boolean {
    const hasHeardEnd = this.#endPushed && this.readableEnded
    if (this.allowHalfOpen || !hasHeardEnd || !this.writableEnded) {
      return super.write(chunk, encoding as BufferEncoding, callback)
    }
    // As net has it: after the peer's end a write is a broken pipe, not a mistake of the program.
    const error = nodeError('EPIPE', 'This socket has been ended by the other party')
    const done = typeof encoding === 'function' ? encoding : callback
    if (typeof done === 'function') process.nextTick(done, error)
    this.destroy(error)
    return false
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Callback): void {
    this.#writeAll([chunk], callback)
  }

  override _writev(items: { chunk: Buffer }[], callback: Callback): void {
    this.#writeAll(gather(items), callback)
  }

  #writeAll(chunks: readonly Buffer[], callback: Callback): void {
    this.#idle.refresh()
    const pending: PendingWrite = { chunks, next: 0, rest: chunks[0], callback }
    this.#pendingWrite = pending
    this.#noteActivity()
    if (this.connecting || this.#isWrappedEarly) return this.#flushOnConnect(pending)
    if (this.#connection === undefined || this.#isOver) {
      this.#pendingWrite = undefined
      const never = !this.#hadConnection && !this.destroyed
      return callback(never ? closedError() : failed('write', 'EPIPE'))
    }
    this.#flush()
  }

  /** TLS or HTTP/2 has been put over it already, and it is to connect later. */
  get #isWrappedEarly(): boolean {
    return this.pending && !this.destroyed && this.rawListeners('end').some(isWrapper)
  }

  /** As with net, in the order in which listeners came. */
  #flushOnConnect(pending: PendingWrite): void {
    const onClose = (): void => this.#callBack(pending, neverConnected())
    this.once('close', onClose).once('connect', () => {
      this.off('close', onClose)
      this.#flush()
    })
  }

  /** The stream no longer counts its octets, and we do. */
  #callBack({ chunks, callback }: PendingWrite, error?: Error): void {
    for (const chunk of chunks) this.#written += chunk.length
    callback(error)
  }

  /** So much of the write that waits went with the SYN. */
  #noteSent(octets: number): void {
    const pending = this.#pendingWrite
    if (pending?.rest !== undefined && octets > 0) pending.rest = pending.rest.subarray(octets)
  }

  #flush(): void {
    const connection = this.#connection
    const pending = this.#pendingWrite
    if (connection === undefined) return
    if (pending !== undefined) {
      let rest = pending.rest
      while (rest !== undefined) {
        const taken = connection.send(rest)
        if (taken < rest.length) {
          pending.rest = rest.subarray(taken)
          return this.#endpoint?.wake(connection)
        }
        rest = pending.chunks[++pending.next]
      }
      this.#endpoint?.wake(connection)
      this.#pendingWrite = undefined
      this.#idle.refresh()
      this.#callBack(pending)
    }
    if (this.#pendingFinal !== undefined && this.#pendingWrite === undefined) {
      const done = this.#pendingFinal
      this.#pendingFinal = undefined
      connection.shutdown()
      this.#endpoint?.wake(connection)
      // As with net, in the context of the call of end().
      const scope = new AsyncResource('SECURESHUTDOWN')
      this.#finishing = error => scope.runInAsyncScope(done, undefined, error)
      this.#finishLater()
    }
    this.#noteActivity()
  }

  /** As with net, which asks the system to end, and has the answer later: who destroys the socket before has no 'finish'. */
  #finishLater(): void {
    atFinish(() => {
      const done = this.#finishing
      this.#finishing = undefined
      done?.()
    })
  }

  override _final(callback: Callback): void {
    if (!this.connecting && this.#connection === undefined) return callback()
    this.#pendingFinal = callback
    if (!this.connecting) this.#flush()
  }

  // --- ending ---

  override _destroy(error: Error | null, callback: Callback): void {
    const connection = this.#connection
    const hadHandle = this.connecting || connection !== undefined
    this.connecting = false
    this.#idle.clear()
    this.#connector?.stop()
    this.#connector = undefined
    if (connection !== undefined) {
      // What becomes of it is no longer ours: this object may reconnect.
      connection.context = undefined
      const endpoint = this.#endpoint!
      if (this.#wantsReset) reset(connection, endpoint)
      else connection.release(endpoint.now())
      endpoint.wake(connection)
    }
    const waiting = this.#pendingWrite
    this.#pendingWrite = undefined
    this.#pendingFinal = undefined
    this.#finishing = undefined
    this.#hold.drop()
    this.#freeLocalEnd?.()
    callback(error)
    const closed = this.#closed
    this.#closed = undefined
    if (closed !== undefined) process.nextTick(closed, this)
    const tell = (): void =>
      this.#inScope(() => {
        if (connection !== undefined && waiting !== undefined)
          this.#callBack(waiting, failed('write', 'ECANCELED'))
        if (hadHandle) this.emit('close', error !== null)
        else this.emit('close')
      })
    // As with net, where the system closes first what it has opened.
    if (hadHandle) atClose(this.#closePlace, tell)
    else process.nextTick(tell)
  }

  /** Destroys the socket after everything written has been sent. */
  destroySoon(): void {
    if (this.writable) this.end()
    if (this.writableFinished) this.destroy()
    else this.once('finish', () => this.destroy())
  }

  /** As `net.Socket`: ends the connection with RST instead of FIN. */
  resetAndDestroy(): this {
    this.#wantsReset = true
    if (this.connecting) return this
    if (this.#connection === undefined) return this.destroy(closedError())
    return this.destroy()
  }

  // --- settings ---

  /** Emits 'timeout' after this many milliseconds without traffic; 0: never. It ends nothing by itself. */
  setTimeout(milliseconds: number, callback?: () => void): this {
    if (this.destroyed) return this
    this.timeout = milliseconds
    if (typeof milliseconds !== 'number') {
      throw argumentError('msecs', milliseconds, 'of type number')
    }
    if (!(milliseconds >= 0) || milliseconds === Infinity) {
      throw rangeError('msecs', milliseconds, 'a non-negative finite number')
    }
    if (callback !== undefined && typeof callback !== 'function') {
      throw argumentError('callback', callback, 'of type function')
    }
    this.#idle.set(milliseconds)
    if (callback !== undefined) {
      if (milliseconds === 0) this.removeListener('timeout', callback)
      else this.once('timeout', callback)
    }
    return this
  }

  /** As `net.Socket`: turns Nagle's algorithm off. */
  setNoDelay(enable = true): this {
    this.#noDelay = Boolean(enable)
    this.#connection?.setNoDelay(this.#noDelay)
    if (this.#connection !== undefined) this.#endpoint?.wake(this.#connection)
    return this
  }

  /** As `net.Socket`; delays in milliseconds. An object keeps earlier values for what it leaves out, except `enable`, which is then `false`. */
  setKeepAlive(options: Partial<KeepAlive>): this
  setKeepAlive(enable?: boolean, initialDelay?: number, interval?: number, count?: number): this
  setKeepAlive(
    enable: boolean | Partial<KeepAlive> = false,
    initialDelay = 0,
    interval?: number,
    count?: number,
  ): this {
    const isObject = typeof enable === 'object' && enable !== null
    this.#keepAlive = isObject
      ? { ...enable, enable: Boolean(enable.enable) }
      : { enable: Boolean(enable), initialDelay, interval, count }
    const connection = this.#connection
    if (connection !== undefined) {
      connection.setKeepAlive(this.#keepAlive, this.#endpoint!.now())
      this.#endpoint!.wake(connection)
    }
    return this
  }

  /**
   * As net's, 0 to 255, and kept for `getTypeOfService`. It is not written into packets: the outer datagrams are the
   * endpoint's, shared by sockets of every kind.
   */
  setTypeOfService(tos: number): this {
    if (typeof tos !== 'number' || Number.isNaN(tos)) {
      throw argumentError('tos', tos, 'of type number')
    }
    if (!Number.isInteger(tos)) throw rangeError('tos', tos, 'an integer')
    if (tos < 0 || tos > 255) throw rangeError('tos', tos, '>= 0 && <= 255')
    this.#typeOfService = tos
    return this
  }

  /** The value of `setTypeOfService`, 0 at first. */
  getTypeOfService(): number {
    return this.#typeOfService
  }

  /** What http and tls call where something has happened that counts as traffic. */
  _unrefTimer(): void {
    this.#idle.refresh()
  }

  /** As `net.Socket`: an active socket keeps the process alive again. */
  ref(): this {
    this.#hold.ref()
    return this
  }

  /** As `net.Socket`: the socket no longer keeps the process alive. */
  unref(): this {
    this.#hold.unref()
    return this
  }

  // --- facts ---

  /** As `net.Socket`: it has not connected yet. */
  get pending(): boolean {
    return this.connecting || SecureSocket.#endOf(this) === undefined
  }

  /** As `net.Socket`. */
  get readyState(): 'opening' | 'open' | 'readOnly' | 'writeOnly' | 'closed' {
    if (this.connecting) return 'opening'
    if (this.readable && this.writable) return 'open'
    if (this.readable) return 'readOnly'
    return this.writable ? 'writeOnly' : 'closed'
  }

  /** Octets of the stream received so far. */
  get bytesRead(): number {
    // What inspects a prototype gets nothing, as from net's.
    return #read in this ? this.#read : (undefined as never)
  }

  /** Octets written so far, including those that wait to be sent, as with `net.Socket`. */
  get bytesWritten(): number {
    if (!(#written in this)) return undefined as never
    return this.#written + this.writableLength
  }

  /** Octets that are written and not sent yet. Deprecated in `net`; use `writableLength`. */
  get bufferSize(): number {
    // As net's types have it, and as net: nothing without a connection.
    return this.pending && !this.connecting ? (undefined as never) : this.writableLength
  }

  /** What inspects a prototype asks it too: it has none. */
  static #endOf(socket: SecureSocket): Connection | undefined {
    return #connection in socket && !socket.destroyed ? socket.#connection : undefined
  }

  /** Net's types have these as optional properties, which an accessor of a class cannot be. */
  static {
    const facts: Record<string, (end: Connection) => string | number> = {
      localAddress: ({ localAddress }) => formatAddress(localAddress),
      localPort: ({ localPort }) => localPort,
      localFamily: ({ localAddress }) => familyOf(localAddress),
    }
    for (const [name, read] of Object.entries(facts)) {
      Object.defineProperty(this.prototype, name, {
        configurable: true,
        get(this: SecureSocket) {
          const end = SecureSocket.#endOf(this)
          return end && read(end)
        },
      })
    }
  }

  static #peerOf(socket: SecureSocket): RemoteEnd | undefined {
    const end = SecureSocket.#endOf(socket)
    if (end === undefined || socket.connecting)
      return #remote in socket ? socket.#remote : undefined
    socket.#remote ??= {
      address: formatAddress(end.remoteAddress),
      family: familyOf(end.remoteAddress),
      port: end.remotePort,
    }
    return socket.#remote
  }

  /**
   * As `net.Socket`. For an accepted connection this is the peer's address inside ESP only where the server assigned or
   * allows that address; otherwise it is the address that the peer's datagrams come from, and `session.claimedAddress` is
   * the inner one.
   */
  get remoteAddress(): string | undefined {
    return SecureSocket.#peerOf(this)?.address
  }

  /** The peer's TCP port inside ESP. */
  get remotePort(): number | undefined {
    return SecureSocket.#peerOf(this)?.port
  }

  /** The family of `remoteAddress`. */
  get remoteFamily(): 'IPv4' | 'IPv6' | undefined {
    return SecureSocket.#peerOf(this)?.family
  }

  /** Our address and TCP port inside ESP; an empty object without a connection. */
  address(): { address: string; family: string; port: number } | Record<string, never> {
    const end = SecureSocket.#endOf(this)
    if (end === undefined) return {}
    return {
      address: formatAddress(end.localAddress),
      family: familyOf(end.localAddress),
      port: end.localPort,
    }
  }

  /** The session (IKE SA) of this socket, once there is one. Several sockets may share it. */
  get session(): Session | undefined {
    return #session in this ? this.#session : undefined
  }

  /** The identity that the peer proved; see `Session.peerId`. */
  get peerId(): string | undefined {
    return this.session?.peerId
  }

  /** The peer has proved its identity: there is an SA. */
  get authorized(): boolean {
    return this.session !== undefined
  }

  /** As in `tls`. Always null: a peer that did not prove its identity is never connected. */
  get authorizationError(): null {
    return null
  }

  /** As `tls`: the peer's certificate, with its issuers when `detailed`; empty when it has none. */
  getPeerCertificate(detailed = false): Partial<DetailedPeerCertificate> {
    const chain = this.session?.peerCertificates ?? []
    const legacy = chain.map(certificate => certificate.toLegacyObject() as DetailedPeerCertificate)
    if (!detailed) return legacy[0] ?? {}
    for (const [i, certificate] of legacy.entries()) {
      certificate.issuerCertificate = legacy[i + 1] ?? certificate
    }
    return legacy[0] ?? {}
  }

  /** As `tls`: the peer's certificate; undefined when it has none. */
  getPeerX509Certificate(): X509Certificate | undefined {
    return this.session?.peerCertificates[0]
  }

  /** Frameworks read it as "this is HTTPS", so it is `true` only where the option `encrypted` says so. */
  get encrypted(): boolean {
    return #settings in this && this.#settings.encrypted
  }

  /** As `tls`: `'IKEv2'`; null before there is an SA. */
  getProtocol(): string | null {
    return this.#session === undefined ? null : 'IKEv2'
  }

  /** As `tls`: the suite of the newest Child SA by name, as `session.info` has it. */
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
}

/** Events by name, with what their listeners get. */
export interface SecureSocket {
  /** Our address inside ESP. */
  readonly localAddress?: string
  /** Our TCP port inside ESP. */
  readonly localPort?: number
  /** The family of `localAddress`. */
  readonly localFamily?: 'IPv4' | 'IPv6'
  on<E extends keyof SecureSocketEvents>(event: E, listener: Listener<SecureSocketEvents, E>): this
  on(event: string | symbol, listener: AnyListener): this
  once<E extends keyof SecureSocketEvents>(
    event: E,
    listener: Listener<SecureSocketEvents, E>,
  ): this
  once(event: string | symbol, listener: AnyListener): this
  off<E extends keyof SecureSocketEvents>(event: E, listener: Listener<SecureSocketEvents, E>): this
  off(event: string | symbol, listener: AnyListener): this
  addListener<E extends keyof SecureSocketEvents>(
    event: E,
    listener: Listener<SecureSocketEvents, E>,
  ): this
  addListener(event: string | symbol, listener: AnyListener): this
  removeListener<E extends keyof SecureSocketEvents>(
    event: E,
    listener: Listener<SecureSocketEvents, E>,
  ): this
  removeListener(event: string | symbol, listener: AnyListener): this
  prependListener<E extends keyof SecureSocketEvents>(
    event: E,
    listener: Listener<SecureSocketEvents, E>,
  ): this
  prependListener(event: string | symbol, listener: AnyListener): this
  prependOnceListener<E extends keyof SecureSocketEvents>(
    event: E,
    listener: Listener<SecureSocketEvents, E>,
  ): this
  prependOnceListener(event: string | symbol, listener: AnyListener): this
  emit<E extends keyof SecureSocketEvents>(event: E, ...facts: SecureSocketEvents[E]): boolean
  emit(event: string | symbol, ...facts: unknown[]): boolean
}

/** Smaller chunks are copied together, so that many writes in one tick cost what their octets cost. */
const SMALL_CHUNK = 2048

const gather = (items: readonly { chunk: Buffer }[]): readonly Buffer[] => {
  const gathered: Buffer[] = []
  let small: Buffer[] = []
  const flush = (): void => {
    if (small.length > 0) gathered.push(small.length === 1 ? small[0]! : Buffer.concat(small))
    small = []
  }
  for (const { chunk } of items) {
    if (chunk.length < SMALL_CHUNK) small.push(chunk)
    else {
      flush()
      gathered.push(chunk)
    }
  }
  flush()
  return gathered
}

/**
 * Node wraps a stream that is no `net.Socket` for TLS and HTTP/2 inside it. What such a wrapper has still to write
 * comes after the peer's end, and the wrapper ends the stream itself: the automatic end would cut that off. It also
 * destroys the stream when all that came is read, and would throw that away if the stream destroyed itself.
 */
function onReadableEnd(this: SecureSocket): void {
  if (!this.rawListeners('end').some(isWrapper)) return
  this.allowHalfOpen = true
  const { _readableState, _writableState } = this as unknown as StreamStates
  _readableState.autoDestroy = false
  _writableState.autoDestroy = false
}

/** What Node reads of a stream when its ends are reached; there is no other way to change it later. */
interface StreamStates {
  readonly _readableState: { autoDestroy: boolean }
  readonly _writableState: { autoDestroy: boolean }
}

/** Of listeners that one function is for many sockets: the text of a function is slow to get. */
const wrappers = new WeakMap<object, boolean>()

/** Of all listeners of 'end', only the wrapper's hands the end to a `JSStream`, by this name on every Node. */
const isWrapper = (listener: object): boolean => {
  const inner = (listener as { listener?: object }).listener ?? listener
  const known = wrappers.get(inner)
  if (known !== undefined) return known
  const found = String(inner).includes('emitEOF')
  wrappers.set(inner, found)
  return found
}

/** As with net, where the system has by then sent what was written, as far as the peer's window goes. */
const reset = (connection: Connection, endpoint: Endpoint): void =>
  inNextTurn(() => {
    connection.abort()
    endpoint.wake(connection)
  })

const newScope = (): AsyncResource => new AsyncResource('SECURESOCKET')
/** As with net, a connection that comes from the network belongs to no context of the program. */
const NO_CONTEXT = new AsyncResource('SECURESOCKET')

const failed = (syscall: string, code: string): Error => withNumber(socketError({ code, syscall }))

const closedError = (): Error => nodeError('ERR_SOCKET_CLOSED', 'Socket is closed')

const neverConnected = (): Error =>
  nodeError(
    'ERR_SOCKET_CLOSED_BEFORE_CONNECTION',
    'Socket closed before the connection was established',
  )

/** What bind(2) would refuse before a connection to `inner`. */
const bindMistake = (settings: ConnectSettings, inner: string): Error | undefined => {
  const { localAddress, localPort, given } = settings
  const any = isIP(inner) === 4 ? '0.0.0.0' : '::'
  const refused = (code: string): Error =>
    withNumber(
      socketError({ code, syscall: 'bind', address: localAddress ?? any, port: localPort }),
    )
  if (localAddress !== undefined && isIP(localAddress) !== isIP(inner)) return refused('EINVAL')
  // Behind a gateway an inner address need not be one of this host.
  const mayBeForeign = given.localTs !== undefined || given.virtualAddress === true
  if (localAddress !== undefined && !mayBeForeign && !isOwnAddress(localAddress))
    return refused('EADDRNOTAVAIL')
  // As net says it of a number that is no port: the system binds another one.
  const isPort = Number.isInteger(localPort) && localPort! <= 65535
  if (localPort && (!isPort || isLocalEndUsed(localAddress, localPort))) {
    return refused('EADDRINUSE')
  }
  return undefined
}

/** As for bind(2), zeros leave the choice to us. */
const knownAddress = (text: string | undefined): Uint8Array | undefined => {
  const address = text === undefined ? undefined : parseAddress(text)
  return address?.some(octet => octet !== 0) === true ? address : undefined
}

const nextTarget = ({ buffer }: OnRead): Uint8Array =>
  typeof buffer === 'function' ? buffer() : buffer

const familyOf = (address: Uint8Array): 'IPv4' | 'IPv6' => (address.length === 4 ? 'IPv4' : 'IPv6')

/** What `net._normalizeArgs` has made, which those hand over who wrap `connect`; net marks it with a symbol. */
const isNormalized = (value: unknown): value is readonly unknown[] =>
  !types.isProxy(value) && Array.isArray(value) && Object.getOwnPropertySymbols(value).length > 0

/** The overloads of `connect`: `(options[, listener])`, `(port[, host][, listener])`. */
export const normalize = (
  given: readonly unknown[],
): { options: SecureSocketOptions; listener: (() => void) | undefined } => {
  const args = isNormalized(given[0]) ? given[0] : given
  const last = args.at(-1)
  const listener = typeof last === 'function' ? (last as () => void) : undefined
  const [first, second] = args
  if (typeof first === 'object' && first !== null) return { options: first, listener }
  if (isPathText(first)) {
    throw new OptionError('path', first, 'left out: there are no local (IPC) secure sockets')
  }
  if (first === undefined) {
    throw nodeError('ERR_MISSING_ARGS', MISSING_PORT, TypeError)
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

/** Starts connecting at once. Overloads as of `net.connect`; the other options follow the port or the host. */
export function createSecureSocket(
  options: SecureSocketOptions,
  listener?: () => void,
): SecureSocket
export function createSecureSocket(
  port: number | string,
  host: string,
  options: SecureSocketOptions,
  listener?: () => void,
): SecureSocket
export function createSecureSocket(
  port: number | string,
  options: SecureSocketOptions,
  listener?: () => void,
): SecureSocket
export function createSecureSocket(...args: unknown[]): SecureSocket {
  const { options, listener } = normalize(args)
  const socket = new SecureSocket(options)
  if (channels.clientSocket.hasSubscribers) channels.clientSocket.publish({ socket })
  if (options.timeout) socket.setTimeout(options.timeout)
  return socket.connect(options, listener)
}
