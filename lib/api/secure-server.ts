/** A server with the surface of `net.Server`, for connections that come inside ESP. */
import { EventEmitter } from 'node:events'
import { formatAddress, parseAddress } from '../base/address.ts'
import { OptionError } from '../base/errors.ts'
import type { Connection, SessionHandle } from '../core/events.ts'
import { formatIdentity } from '../identity/identity.ts'
import { Endpoint, type ConnectionOwner } from '../node/endpoint.ts'
import { channels, makeTracer } from './channels.ts'
import {
  parseConnect,
  parsePort,
  parseServer,
  type SecureServerOptions,
  type ServerSettings,
} from './options.ts'
import { SecureSocket } from './secure-socket.ts'
import { Session } from './session.ts'

const DEFAULT_BACKLOG = 511
/** Inner ports given out for `listen(0)`. */
const FIRST_PORT = 32768
const PORTS = 28232

export interface ListenOptions {
  port?: number | string
  host?: string
  backlog?: number
  ipv6Only?: boolean
  exclusive?: boolean
  signal?: AbortSignal
}

export class SecureServer extends EventEmitter {
  /** More connections than this are refused with 'drop'; undefined: no limit. */
  maxConnections: number | undefined
  listening = false
  #given: SecureServerOptions
  #settings: ServerSettings
  #endpoint: Endpoint | undefined
  #stopListening: (() => void) | undefined
  #port = 0
  #sockets = new Set<SecureSocket>()
  #referenced = true
  #holdsRef = false
  #closing = false
  #starting = false

  constructor(options: SecureServerOptions, onConnection?: (socket: SecureSocket) => void) {
    super({ captureRejections: true })
    this.#given = options
    this.#settings = parseServer(options)
    if (onConnection !== undefined) {
      if (typeof onConnection !== 'function') {
        throw new OptionError(
          'connectionListener',
          onConnection,
          'of type function',
          'ERR_INVALID_ARG_TYPE',
        )
      }
      this.on('connection', onConnection)
    }
  }

  /** New SAs are negotiated with these; live ones stay as they are. */
  setCredentials(options: SecureServerOptions): void {
    const given = { ...this.#given, ...options }
    this.#settings = parseServer(given)
    this.#given = given
    this.#endpoint?.core.setResponder(this.#settings)
  }

  // --- listening ---

  /** As `net.Server`: `(port[, host][, backlog][, listener])`, `(options[, listener])`, `([listener])`. */
  listen(...args: unknown[]): this {
    const { options, listener } = normalizeListen(args)
    if (this.listening || this.#starting) {
      throw Object.assign(
        new Error('Listen method has been called more than once without closing.'),
        {
          code: 'ERR_SERVER_ALREADY_LISTEN',
        },
      )
    }
    const port = options.port === undefined ? 0 : parsePort('port', options.port)
    if (options.host !== undefined && typeof options.host !== 'string') {
      throw new OptionError('host', options.host, 'of type string', 'ERR_INVALID_ARG_TYPE')
    }
    if (listener !== undefined) this.once('listening', listener)
    options.signal?.addEventListener('abort', () => this.close(), { once: true })
    this.#starting = true
    const { ikePort, keyLog } = this.#settings
    const endpoint = new Endpoint({
      tracer: makeTracer(keyLog),
      responder: this.#settings,
      watcher: {
        onRefused: (error, identity, path) =>
          this.emit('ikeClientError', error, {
            identity,
            address: formatAddress(path.remoteAddress),
            port: path.remotePort,
          }),
        onSessionUp: session => this.emit('session', new Session(session, endpoint)),
        onSessionDown: (session, error) =>
          this.emit('sessionEnd', new Session(session, endpoint), error),
        onQuestion: question => {
          if (question.kind === 'findSecret') {
            const { psk } = this.#given
            return typeof psk === 'function'
              ? psk(formatIdentity(question.remote), formatIdentity(question.local))
              : undefined
          }
          const address = formatAddress(question.path.remoteAddress)
          return this.#given.authorize?.({ id: question.peer.identityText, address })
        },
      },
    })
    this.#endpoint = endpoint
    this.#hold()
    const host = options.host === 'localhost' ? '127.0.0.1' : options.host
    if (host !== undefined && parseAddress(host.split('%')[0]!) === undefined) {
      process.nextTick(() => this.#failed(listenError('ENOTFOUND', host, port)))
      return this
    }
    endpoint.bind(host, ikePort, options.ipv6Only ?? false, error => {
      this.#starting = false
      if (error !== undefined)
        return this.#failed(
          listenError(error.code ?? 'EIO', host ?? '::', portOf(error) ?? ikePort, error),
        )
      this.#begin(port, options.backlog ?? DEFAULT_BACKLOG)
    })
    return this
  }

  #begin(wanted: number, backlog: number): void {
    const endpoint = this.#endpoint!
    const owner = {
      onConnection: (connection: Connection, session: SessionHandle) =>
        this.#accept(connection, session),
    }
    for (let i = 0; i < PORTS && this.#stopListening === undefined; i++) {
      this.#port = wanted || FIRST_PORT + Math.floor(Math.random() * PORTS)
      this.#stopListening = endpoint.listen(this.#port, backlog, owner)
    }
    this.listening = true
    process.nextTick(() => this.listening && this.emit('listening'))
  }

  #failed(error: Error): void {
    this.#starting = false
    this.#release()
    this.#endpoint?.destroy()
    this.#endpoint = undefined
    process.nextTick(() => this.emit('error', error))
  }

  #accept(connection: Connection, session: SessionHandle): ConnectionOwner | undefined {
    const drop = {
      localAddress: formatAddress(connection.localAddress),
      localPort: connection.localPort,
      localFamily: connection.localAddress.length === 4 ? 'IPv4' : 'IPv6',
      remoteAddress: formatAddress(connection.remoteAddress),
      remotePort: connection.remotePort,
      remoteFamily: connection.remoteAddress.length === 4 ? 'IPv4' : 'IPv6',
    }
    if (this.maxConnections !== undefined && this.#sockets.size >= this.maxConnections) {
      this.emit('drop', drop)
      return undefined
    }
    const { socket, owner } = SecureSocket.accept({
      connection,
      session,
      endpoint: this.#endpoint!,
      server: this,
      settings: parseConnect(this.#settings.connection, false),
    })
    this.#sockets.add(socket)
    socket.once('close', () => {
      this.#sockets.delete(socket)
      this.#finishClosing()
    })
    if (this.#settings.pauseOnConnect) socket.pause()
    if (channels.serverSocket.hasSubscribers) channels.serverSocket.publish({ socket })
    this.emit('connection', socket)
    this.emit('secureConnection', socket)
    // As net does: reading starts by itself, so that the end is noticed.
    if (!this.#settings.pauseOnConnect && !socket.destroyed) socket.read(0)
    return owner
  }

  // --- closing ---

  /** Accepts no more; 'close' comes when the last connection has ended and the SAs are deleted. */
  close(callback?: (error?: Error) => void): this {
    if (!this.listening && !this.#starting) {
      const error = Object.assign(new Error('Server is not running.'), {
        code: 'ERR_SERVER_NOT_RUNNING',
      })
      if (callback !== undefined) process.nextTick(() => callback(error))
      return this
    }
    if (callback !== undefined) this.once('close', () => callback())
    this.listening = false
    this.#starting = false
    this.#stopListening?.()
    this.#stopListening = undefined
    this.#closing = true
    this.#finishClosing()
    return this
  }

  #finishClosing(): void {
    if (!this.#closing || this.#sockets.size > 0) return
    const endpoint = this.#endpoint
    if (endpoint === undefined) return
    this.#endpoint = undefined
    this.#closing = false
    const done = (): void => {
      endpoint.whenIdle(undefined)
      endpoint.destroy()
      this.#release(endpoint)
      process.nextTick(() => this.emit('close'))
    }
    endpoint.lingerAndClose(done)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return new Promise(resolve => {
      if (!this.listening) return resolve()
      this.close(() => resolve())
    })
  }

  [Symbol.for('nodejs.rejection')](error: Error, event: string, ...args: unknown[]): void {
    if (event === 'connection') (args[0] as SecureSocket).destroy(error)
    else this.emit('error', error)
  }

  // --- facts ---

  /** The port of the service, inside the tunnel; null while not listening. */
  address(): { address: string; family: 'IPv4' | 'IPv6'; port: number } | null {
    const udp = this.listening ? this.#endpoint?.udpAddress : undefined
    return udp === undefined ? null : { address: udp.address, family: udp.family, port: this.#port }
  }

  /** The UDP port that IKE and ESP come to. */
  get ikePort(): number | undefined {
    return this.#endpoint?.udpAddress?.port
  }

  getConnections(callback: (error: Error | null, count: number) => void): this {
    process.nextTick(() => callback(null, this.#sockets.size))
    return this
  }

  /** Datagrams in and out, and what was dropped, by reason. */
  get counters(): Readonly<Record<string, unknown>> {
    return { ...this.#endpoint?.core.counters }
  }

  get _connections(): number {
    return this.#sockets.size
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
    if (this.#holdsRef || !this.#referenced || this.#endpoint === undefined) return
    this.#holdsRef = true
    this.#endpoint.ref()
  }

  #release(endpoint: Endpoint | undefined = this.#endpoint): void {
    if (!this.#holdsRef) return
    this.#holdsRef = false
    endpoint?.unref()
  }
}

const listenError = (
  code: string,
  address: string,
  port: number,
  cause?: NodeJS.ErrnoException,
): Error =>
  Object.assign(
    new Error(
      `listen ${code}${code === 'EADDRINUSE' ? ': address already in use' : ''} ${address}:${port}`,
    ),
    { code, errno: cause?.errno, syscall: 'listen', address, port },
  )

/** Which of the two it was, where there are two. */
const portOf = (error: NodeJS.ErrnoException): number | undefined =>
  'port' in error && typeof error.port === 'number' ? error.port : undefined

const normalizeListen = (
  args: readonly unknown[],
): { options: ListenOptions; listener: (() => void) | undefined } => {
  const last = args.at(-1)
  const listener = typeof last === 'function' ? (last as () => void) : undefined
  const [first, ...rest] = args
  if (typeof first === 'object' && first !== null) {
    if ('path' in first || 'fd' in first) {
      throw new OptionError(
        'options',
        first,
        'with the property "port"; paths and descriptors cannot be protected',
      )
    }
    return { options: first, listener }
  }
  const options: ListenOptions = {}
  if (typeof first === 'number' || typeof first === 'string') options.port = first
  for (const value of rest) {
    if (typeof value === 'string') options.host = value
    if (typeof value === 'number') options.backlog = value
  }
  return { options, listener }
}

/** `(options[, onConnection])`. */
export const createSecureServer = (
  options: SecureServerOptions,
  onConnection?: (socket: SecureSocket) => void,
): SecureServer => new SecureServer(options, onConnection)
