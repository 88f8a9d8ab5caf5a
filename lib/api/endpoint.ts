/** One UDP port for all that a program does: servers, and connections to any number of gateways. */
import { AsyncResource } from 'node:async_hooks'
import { EventEmitter } from 'node:events'
import { ownProperties } from '../base/errors.ts'
import type { SessionHandle } from '../core/events.ts'
import { withNumber } from '../node/endpoint.ts'
import { shareControl, type Control } from './control.ts'
import { CredentialWatcher, filesOf } from './credential-files.ts'
import { EndpointReference } from './endpoint-reference.ts'
import {
  argumentError,
  nodeError,
  parseEndpoint,
  withCredentials,
  type DatagramOptions,
  type EndpointOption,
  type EndpointOptions,
  type IkeOptions,
  type ParsedEndpoint,
  type SecureContextOptions,
  type SecureServerOptions,
  type SecureSocketOptions,
} from './options.ts'
import { changedOptions, followContext, giveContext } from './secure-context.ts'
import {
  createSecureServer,
  refusedPeer,
  tellRefusal,
  type RefusedPeer,
  type SecureServer,
} from './secure-server.ts'
import {
  createSecureDatagram,
  type SecureDatagram,
  type SecureDatagramListener,
} from './secure-datagram.ts'
import { createSecureSocket, normalize, type SecureSocket } from './secure-socket.ts'
import { Session } from './session.ts'
import { closeNamed, nameEndpoint, SharedEndpoint, type EndpointUser } from './shared-endpoint.ts'

/** Events of an endpoint, with the arguments of their listeners. */
export interface SecureEndpointEvents {
  /** The last connection has ended and the SAs are deleted. */
  close: []
  /** With `watch`: files of credentials have changed, and these options with them. */
  credentials: [changed: readonly string[]]
  /** The UDP port cannot be bound. The endpoint is closed. */
  error: [error: Error]
  /** A peer was refused, and why. */
  ikeClientError: [error: Error, peer: RefusedPeer]
  /** The UDP port is bound. */
  listening: []
  /** An IKE SA is up, in either role. */
  session: [session: Session]
  /** An IKE SA has ended; with an error when it ended badly. */
  sessionEnd: [session: Session, error: Error | undefined]
}

/** What a server of an endpoint may have of its own. */
export type EndpointServerOptions = Omit<
  SecureServerOptions,
  keyof IkeOptions | 'addressPool' | 'dns'
>
/** What a socket for datagrams of an endpoint may have of its own; `ikePort` is the gateway's. */
export type EndpointDatagramOptions = Pick<
  DatagramOptions,
  | 'authorize'
  | 'blockList'
  | 'gateway'
  | 'ikePort'
  | 'remoteId'
  | 'servername'
  | 'checkServerIdentity'
>
/** What a connection over an endpoint may have of its own; `ikePort` is the gateway's. */
export type EndpointConnectOptions = Omit<
  SecureSocketOptions,
  Exclude<keyof IkeOptions, 'remoteId' | 'ikePort'>
>

/**
 * One UDP port (or 500 and 4500, or several addresses) in both roles. It is bound at once; 'listening' or 'error' follows.
 * Like a server that listens, it keeps the process alive until `close` or `unref`.
 */
export class SecureEndpoint extends EventEmitter<SecureEndpointEvents> implements EndpointOption {
  #settings: ParsedEndpoint
  readonly #shared: SharedEndpoint | undefined
  readonly #user: EndpointUser
  readonly #hold = new EndpointReference()
  readonly #scope = new AsyncResource('SECUREENDPOINT')
  readonly #sessions = new Map<SessionHandle, Session>()
  #watcher: CredentialWatcher | undefined
  #endFollowing: (() => void) | undefined
  #control: Control | undefined
  #state: 'opening' | 'open' | 'closing' | 'closed' = 'opening'

  constructor(options: EndpointOptions) {
    super()
    this.#settings = parseEndpoint(options)
    const { hosts, ipv6Only, reusePort, context } = this.#settings
    giveContext(this, context)
    this.#user = this.#makeUser()
    const where = { hosts, ipv6Only, reusePort }
    this.#shared = SharedEndpoint.use(this.#user, this.#settings, where, error => {
      if (this.#state !== 'opening') return
      if (error !== undefined) return this.#failed(error)
      const { control } = this.#settings
      if (control === undefined) return this.#open()
      shareControl(control).then(
        opened => {
          this.#control = opened
          if (this.#state === 'opening') this.#open()
          else opened.close()
        },
        (failed: Error) => this.#state === 'opening' && this.#failed(failed),
      )
    })
    if (this.#shared === undefined) return
    if (this.#settings.watch) {
      const { own } = this.#settings
      this.#watcher = new CredentialWatcher(
        () => this.#adopt({ ...this.#settings.own }),
        changed => this.#inScope(() => this.emit('credentials', changed)),
      )
      this.#watcher.start(filesOf(own))
    }
    this.#follow()
    nameEndpoint(this, this.#shared)
    this.#hold.take(this.#shared.endpoint)
  }

  /** A context that watches its files has others now. */
  #follow(): void {
    this.#endFollowing?.()
    this.#endFollowing = followContext(this.#settings.own['secureContext'], () => {
      const changed = this.#adopt({ ...this.#settings.own })
      if (changed.length > 0) this.#inScope(() => this.emit('credentials', changed))
    })
  }

  #makeUser(): EndpointUser {
    const given = (): SecureServerOptions => this.#settings.given
    const sessionOf = (handle: SessionHandle): Session => {
      const known = this.#sessions.get(handle) ?? new Session(handle, this.#shared!.endpoint)
      this.#sessions.set(handle, known)
      return known
    }
    return {
      isOwner: true,
      of: undefined,
      get given() {
        return given()
      },
      close: done => done(),
      onRefused: (error, identity, path) =>
        this.#inScope(() => tellRefusal(this, error, refusedPeer(identity, path))),
      onSessionUp: handle => this.#inScope(() => this.emit('session', sessionOf(handle))),
      onSessionDown: (handle, error) => {
        const session = sessionOf(handle)
        this.#sessions.delete(handle)
        this.#inScope(() => this.emit('sessionEnd', session, error))
      },
    }
  }

  #open(): void {
    this.#state = 'open'
    this.#inScope(() => this.emit('listening'))
  }

  #inScope(run: () => void): void {
    this.#scope.runInAsyncScope(run)
  }

  #failed(error: Error): void {
    this.#state = 'closed'
    closeNamed(this)
    this.#watcher?.stop()
    this.#endFollowing?.()
    this.#hold.drop()
    this.#shared?.abandon(this.#user)
    this.#inScope(() => this.emit('error', withNumber(error)))
  }

  // --- what it is for ---

  /** Makes a server; its `listen(port)` names the port inside ESP. Its `authorize` narrows that of the endpoint. */
  createServer(
    options: EndpointServerOptions,
    onConnection?: (socket: SecureSocket) => void,
  ): SecureServer
  createServer(onConnection?: (socket: SecureSocket) => void): SecureServer
  createServer(
    first?: EndpointServerOptions | ((socket: SecureSocket) => void),
    second?: (socket: SecureSocket) => void,
  ): SecureServer {
    const { options, listener } = optionsAndListener<(socket: SecureSocket) => void>(first, second)
    return createSecureServer({ ...options, endpoint: this }, listener)
  }

  /** Opens a connection as `createSecureSocket` does, from this UDP port. */
  connect(options: EndpointConnectOptions, listener?: () => void): SecureSocket
  connect(port: number | string, host: string, listener?: () => void): SecureSocket
  connect(port: number | string, listener?: () => void): SecureSocket
  connect(...args: unknown[]): SecureSocket {
    const { options, listener } = normalize(args)
    return createSecureSocket({ ...ownProperties('options', options), endpoint: this }, listener)
  }

  /** Makes a socket for datagrams as `createSecureDatagram` does, on this UDP port. */
  createDatagram(
    options: EndpointDatagramOptions,
    onMessage?: SecureDatagramListener,
  ): SecureDatagram
  createDatagram(onMessage?: SecureDatagramListener): SecureDatagram
  createDatagram(
    first?: EndpointDatagramOptions | SecureDatagramListener,
    second?: SecureDatagramListener,
  ): SecureDatagram {
    const { options, listener } = optionsAndListener<SecureDatagramListener>(first, second)
    return createSecureDatagram({ ...options, endpoint: this }, listener)
  }

  /**
   * Replaces options for new SAs, in both roles; options that are not given stay. Live SAs go on. Returns the names of the
   * options that changed.
   */
  setCredentials(options: SecureContextOptions): readonly string[] {
    return this.#adopt(withCredentials(this.#settings.own, options))
  }

  #adopt(own: Record<string, unknown>): readonly string[] {
    const before = this.#settings.given
    this.#settings = parseEndpoint(own)
    giveContext(this, this.#settings.context)
    this.#shared?.setCredentials(this.#settings)
    if (this.#state === 'opening' || this.#state === 'open') {
      this.#watcher?.start(filesOf(own))
      this.#follow()
    }
    return changedOptions({ ...before }, { ...this.#settings.given })
  }

  // --- facts ---

  /** Every session that is up, in both roles. */
  get sessions(): readonly Session[] {
    return [...this.#sessions.values()]
  }

  /** Datagrams in and out, and what was dropped, by reason. */
  get counters(): Readonly<Record<string, unknown>> {
    return { ...this.#shared?.endpoint.core.counters }
  }

  /** The UDP port is bound and `close` was not called. */
  get listening(): boolean {
    return this.#state === 'open'
  }

  /** The UDP address; of several the first. Null before 'listening' and after 'close'. */
  address(): { address: string; family: 'IPv4' | 'IPv6'; port: number } | null {
    return this.#state === 'open' ? (this.#shared?.endpoint.udpAddress ?? null) : null
  }

  /** The UDP port of IKE and ESP, once it is bound. */
  get ikePort(): number | undefined {
    return this.address()?.port
  }

  // --- the end ---

  /**
   * Drains: servers accept no more connections and new ones fail. When the open connections have ended, the SAs are deleted
   * and 'close' follows.
   */
  close(callback?: (error?: Error) => void): this {
    if (callback !== undefined && typeof callback !== 'function') {
      throw argumentError('callback', callback, 'of type function')
    }
    const isRunning = this.#state === 'opening' || this.#state === 'open'
    if (callback !== undefined) {
      const error = isRunning
        ? undefined
        : nodeError('ERR_SERVER_NOT_RUNNING', 'The endpoint is not running.')
      if (this.#state === 'closed') process.nextTick(callback, error)
      else this.once('close', () => callback(error))
    }
    if (!isRunning) return this
    this.#state = 'closing'
    closeNamed(this)
    this.#watcher?.stop()
    this.#endFollowing?.()
    const shared = this.#shared
    if (shared === undefined) this.#closed()
    else shared.closeOf(this, () => shared.release(this.#user, () => this.#closed()))
    return this
  }

  #closed(): void {
    this.#control?.close()
    this.#hold.drop()
    process.nextTick(() => {
      this.#state = 'closed'
      this.#inScope(() => this.emit('close'))
    })
  }

  /** Closes the endpoint; for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return new Promise(resolve => void this.close(() => resolve()))
  }

  /** The endpoint keeps the process alive again. Its servers, sockets and datagrams say so for themselves. */
  ref(): this {
    this.#hold.ref()
    return this
  }

  /** The endpoint no longer keeps the process alive; its servers, sockets and datagrams still do. */
  unref(): this {
    this.#hold.unref()
    return this
  }
}

/** Of an overload in which the options may be left out. */
const optionsAndListener = <Listener extends (...facts: never) => void>(
  first: object | Listener | undefined,
  second: Listener | undefined,
): { options: object; listener: Listener | undefined } =>
  typeof first === 'function'
    ? { options: {}, listener: first as Listener }
    : { options: first === undefined ? {} : ownProperties('options', first), listener: second }

/** Binds a UDP port for any number of servers and connections. Options are checked at once: a wrong one throws an `OptionError`. */
export const createEndpoint = (options: EndpointOptions): SecureEndpoint =>
  new SecureEndpoint(options)
