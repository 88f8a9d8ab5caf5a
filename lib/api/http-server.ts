/**
 * `node:http` over our sockets: a server that listens inside ESP, with all of http's own time limits, and an
 * agent for clients.
 */
import http, { type RequestListener } from 'node:http'
import type { Duplex } from 'node:stream'
import { configuration } from './configuration.ts'
import {
  lenientOptions,
  PLACE_OPTIONS,
  type SecureServerOptions,
  type SecureSocketOptions,
} from './options.ts'
import { createSecureServer, type ListenOptions, type SecureServer } from './secure-server.ts'
import { createSecureSocket, normalize } from './secure-socket.ts'

/** Options of `http.createServer` and of `createSecureServer` in one object. */
export type HttpServerOptions = http.ServerOptions & SecureServerOptions

/** An `http.Server` whose connections come inside ESP. `listen`, `close` and `address` are those of our server. */
export class Server extends http.Server {
  /** The server below: its sessions, counters and `setCredentials`. */
  readonly secureServer: SecureServer

  /** As http has it, the options may be left out. */
  constructor(given: HttpServerOptions | RequestListener = {}, onRequest?: RequestListener) {
    const options = typeof given === 'function' ? {} : given
    super(options, typeof given === 'function' ? given : onRequest)
    const secureServer = createSecureServer(
      lenientOptions<SecureServerOptions>('server', configuration(), {
        ...options,
        // As http tells net: it ends its half itself, after the answer.
        allowHalfOpen: true,
        noDelay: options.noDelay ?? true,
      }),
      socket => this.emit('connection', socket),
    )
    this.secureServer = secureServer
    // http starts its checks of slow requests with this event.
    secureServer.on('listening', () => this.emit('listening'))
    secureServer.on('error', error => this.emit('error', error))
    secureServer.on('drop', facts => this.emit('drop', facts))
    secureServer.on('close', () => this.emit('close'))
  }

  /** As `SecureServer.listen`. */
  override listen(...args: unknown[]): this {
    const last = args.at(-1)
    if (typeof last === 'function') this.once('listening', last as () => void)
    const rest = typeof last === 'function' ? args.slice(0, -1) : args
    this.secureServer.listen(...(rest as [ListenOptions]))
    return this
  }

  /** As `http.Server.close`: idle connections are closed, the others finish first. */
  override close(callback?: (error?: Error) => void): this {
    // Ends http's interval of checks, and connections that are idle.
    super.close()
    this.secureServer.close(callback)
    return this
  }

  /**
   * What net's `close` calls at its end: 'close' comes from the server below.
   * @internal
   */
  _emitCloseIfDrained(): void {}

  /** Closes the server; for `await using`. */
  override [Symbol.asyncDispose](): Promise<void> {
    return new Promise(resolve => {
      if (this.listening) this.close(() => resolve())
      else resolve()
    })
  }

  /** Net's types have these as properties, which an accessor of a class cannot be. */
  static {
    for (const name of ['listening', 'maxConnections', '_connections', 'connections'] as const) {
      Object.defineProperty(this.prototype, name, {
        configurable: true,
        get(this: Server) {
          return this.secureServer[name]
        },
        // http's own constructor sets some of them before there is a server below.
        set(this: Partial<Server>, value: never) {
          if (this.secureServer !== undefined) Object.assign(this.secureServer, { [name]: value })
        },
      })
    }
  }

  /** As `SecureServer.address`: the port inside the tunnel. */
  override address(): ReturnType<SecureServer['address']> {
    return this.secureServer.address()
  }

  /** The UDP port that IKE and ESP come to. */
  get ikePort(): number | undefined {
    return this.secureServer.ikePort
  }

  /** As `net.Server`. */
  override getConnections(callback: (error: Error | null, count: number) => void): this {
    this.secureServer.getConnections(callback)
    return this
  }

  /** As `net.Server`. */
  override ref(): this {
    this.secureServer.ref()
    return this
  }

  /** As `net.Server`. */
  override unref(): this {
    this.secureServer.unref()
    return this
  }
}

/** As `http.createServer`; the options are those of `node:http` and of `createSecureServer`. */
export const createServer = (
  options?: HttpServerOptions | RequestListener,
  onRequest?: RequestListener,
): Server => new Server(options, onRequest)

/**
 * What a request may say of its connection. Its credentials and checks are meant for TLS (some clients name them for
 * `http:` too), and a pooled connection serves requests of every kind: whom it trusts, its agent says.
 */
const REQUEST_OPTIONS = [
  ...PLACE_OPTIONS,
  'lookup',
  'signal',
  'timeout',
  'noDelay',
  'keepAlive',
  'keepAliveInitialDelay',
  'allowHalfOpen',
]

/** An `http.Agent` whose connections go inside ESP. Its options are http's and those of `createSecureSocket`. */
export class Agent extends http.Agent {
  readonly #given: SecureSocketOptions

  constructor(options: http.AgentOptions & SecureSocketOptions = {}) {
    super(options)
    this.#given = options
  }

  /** Opens a connection inside ESP; `http` calls it. */
  override createConnection(...args: unknown[]): Duplex {
    const { options, listener } = normalize(args)
    const own = Object.fromEntries(
      REQUEST_OPTIONS.map(name => [name, Reflect.get(options, name) as unknown]),
    )
    const defaults = { ...configuration(), ...this.#given }
    return createSecureSocket(
      lenientOptions<SecureSocketOptions>('client', defaults, own),
      listener,
    )
  }
}
