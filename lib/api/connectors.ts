/** What undici, ioredis, pg and `node:tls` ask for where they would dial themselves, each over our sockets. */
import { isIP, type Socket } from 'node:net'
import tls from 'node:tls'
import { configuration } from './configuration.ts'
import { lenientOptions, type SecureSocketOptions } from './options.ts'
import { createSecureSocket, SecureSocket } from './secure-socket.ts'

/** `where` over what the caller gave over what is configured. */
const clientOptions = (
  given: SecureSocketOptions,
  where: Readonly<Record<string, unknown>> = {},
): SecureSocketOptions =>
  lenientOptions('client', { ...configuration(), ...given }, where as SecureSocketOptions)

/**
 * TLS inside ESP, as `tls.connect`: for peers that speak TLS themselves.
 * @param options those of `tls.connect`; its `ca`, `cert` and `key` are TLS's
 * @param ike the options of `createSecureSocket`; its `ca`, `cert` and `key` are IKE's
 */
export const connectTls = (
  options: tls.ConnectionOptions & { readonly host?: string; readonly port: number },
  ike: SecureSocketOptions = {},
  onSecureConnect?: () => void,
): tls.TLSSocket => {
  const { host = 'localhost', port } = options
  const socket = createSecureSocket(clientOptions(ike, { host, port }))
  // tls sends a name only when it is told one; an address is none (RFC 6066 §3).
  const servername = options.servername ?? (isIP(host) === 0 ? host : '')
  return tls.connect({ ...options, host, servername, socket }, onSecureConnect)
}

/** What undici says of a connection that it needs. An empty port is the protocol's own. */
export interface UndiciConnectOptions {
  readonly hostname: string
  readonly port: string | number
  readonly protocol: string
  readonly servername?: string | null | undefined
  readonly localAddress?: string | null | undefined
}

export type UndiciConnect = (
  options: UndiciConnectOptions,
  callback: (...args: [error: null, socket: Socket] | [error: Error, socket: null]) => void,
) => void

/**
 * For `new Agent({ connect: undiciConnector() })` of undici, and its Pool and Client. An `https:` URL means TLS inside.
 * @param tlsOptions further options of `tls.connect`, for `https:` only
 */
export const undiciConnector =
  (ike: SecureSocketOptions = {}, tlsOptions: tls.ConnectionOptions = {}): UndiciConnect =>
  ({ hostname, port, protocol, servername, localAddress }, callback) => {
    const isTls = protocol === 'https:'
    // A URL has an address of IPv6 in brackets.
    const host = hostname.replace(/^\[(.*)\]$/, '$1')
    const where = { host, port: Number(port) || (isTls ? 443 : 80) }
    const local = { ...ike, localAddress: localAddress ?? ike.localAddress }
    const socket: Socket = isTls
      ? connectTls({ ...tlsOptions, ...where, ...(servername ? { servername } : {}) }, local)
      : createSecureSocket(clientOptions(local, where))
    const onError = (error: Error): void => callback(error, null)
    socket.once('error', onError)
    socket.once(isTls ? 'secureConnect' : 'connect', () => {
      socket.off('error', onError)
      callback(null, socket)
    })
  }

/** For the option `stream` of pg's Client and Pool, which connect what it makes. */
export const pgStream =
  (ike: SecureSocketOptions = {}): (() => SecureSocket) =>
  () =>
    new SecureSocket(clientOptions(ike))

/** ioredis' `AbstractConnector`, as far as we need it. */
interface ConnectorState {
  connecting: boolean
  stream?: Socket
  firstError?: Error
}

interface RedisOptions {
  readonly host?: string
  readonly port?: number
  readonly tls?: tls.ConnectionOptions
  readonly disconnectTimeout?: number
}

/**
 * For the option `Connector` of ioredis: `new Redis({ Connector: ioredisConnector(AbstractConnector) })`.
 * @param Base the class `AbstractConnector` that ioredis exports
 */
export const ioredisConnector = <
  Connector extends abstract new (disconnectTimeout: number) => object,
>(
  Base: Connector,
  ike: SecureSocketOptions = {},
): new (options: unknown) => InstanceType<Connector> => {
  const Concrete = Base as unknown as new (disconnectTimeout: number) => ConnectorState
  class SecureConnector extends Concrete {
    readonly #options: RedisOptions

    constructor(options: RedisOptions) {
      super(options.disconnectTimeout ?? 2000)
      this.#options = options
    }

    async connect(): Promise<Socket> {
      const { host = 'localhost', port = 6379, tls: inner } = this.#options
      this.connecting = true
      // ioredis listens to the socket only when the caller's turn is over, and may have given up by then.
      await Promise.resolve()
      if (!this.connecting) throw new Error('Connection is closed.')
      this.stream =
        inner === undefined
          ? createSecureSocket(clientOptions(ike, { host, port }))
          : connectTls({ ...inner, host, port }, ike)
      this.stream.once('error', error => (this.firstError = error))
      return this.stream
    }
  }
  return SecureConnector as unknown as new (options: unknown) => InstanceType<Connector>
}
