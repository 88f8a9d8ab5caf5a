/**
 * `node:net` for our sockets and servers: a program changes the module that it imports. Credentials come from
 * `configure`, from the file that `IKE_SOCKET_CONFIG` names, or with the options of each call. As in net, the
 * classes may be called without `new`, and options that nobody knows have no effect.
 */
import './node/check-node.ts'
import net from 'node:net'
import { configuration, configure, type Configuration } from './api/configuration.ts'
import {
  argumentError,
  lenientOptions,
  type SecureServerOptions,
  type SecureSocketOptions,
} from './api/options.ts'
import { createSecureServer, SecureServer } from './api/secure-server.ts'
import { createSecureSocket, normalize, SecureSocket } from './api/secure-socket.ts'

const {
  BlockList,
  getDefaultAutoSelectFamily,
  getDefaultAutoSelectFamilyAttemptTimeout,
  isIP,
  isIPv4,
  isIPv6,
  setDefaultAutoSelectFamily,
  setDefaultAutoSelectFamilyAttemptTimeout,
  SocketAddress,
} = net

/** Options of `ike-socket` and of `net`; those that only `net` has are ignored. */
export type SocketOptions = SecureSocketOptions | net.SocketConstructorOpts
/** What `connect` accepts. */
export type ConnectOptions = SecureSocketOptions | net.NetConnectOpts
/** What `createServer` accepts. */
export type ServerOptions = SecureServerOptions | net.ServerOpts
/** Gets each connection of a server. */
export type OnConnection = (socket: SecureSocket) => void

/** A class that may also be called without `new`; `Make` has its constructors. */
export type Callable<Class, Make> = Pick<Class, keyof Class> & Make

/** The class `Socket`, with and without `new`. */
export interface SocketConstructor {
  new (options?: SocketOptions): SecureSocket
  (options?: SocketOptions): SecureSocket
}

/** The class `Server`, with and without `new`. */
export interface ServerConstructor {
  new (onConnection?: OnConnection): SecureServer
  new (options?: ServerOptions, onConnection?: OnConnection): SecureServer
  (onConnection?: OnConnection): SecureServer
  (options?: ServerOptions, onConnection?: OnConnection): SecureServer
}

/** `net.BoundSocket` of Node 24.19 and 26.4, undefined before. A secure server cannot listen on one. */
export type NetBoundSocket = typeof net extends { BoundSocket: infer Class } ? Class : undefined

/** As in this Node's `net`; undefined where it has none. */
export const BoundSocket: NetBoundSocket = (net as { BoundSocket?: NetBoundSocket }).BoundSocket

const clientOptions = <T extends object>(options: T): T =>
  lenientOptions('client', configuration(), options)

/** As net: the listener may come first, what is none has no effect, and options are an object. */
const serverArguments = (
  first: unknown,
  second: unknown,
): [SecureServerOptions, OnConnection | undefined] => {
  const [options, listener] = typeof first === 'function' ? [{}, first] : [first ?? {}, second]
  if (typeof options !== 'object') throw argumentError('options', options, 'of type object')
  return [
    lenientOptions<SecureServerOptions>('server', configuration(), options),
    typeof listener === 'function' ? (listener as OnConnection) : undefined,
  ]
}

/** `prepare` makes the constructor's arguments from the caller's. */
const callable = <Class extends new (...args: never) => object, Make>(
  Class: Class,
  prepare: (args: readonly unknown[]) => unknown[],
): Callable<Class, Make> =>
  new Proxy(Class, {
    apply: (target, _this, args: unknown[]) => Reflect.construct(target, prepare(args)) as object,
    construct: (target, args: unknown[], newTarget) =>
      Reflect.construct(target, prepare(args), newTarget) as object,
  }) as unknown as Callable<Class, Make>

/** As `net.Socket`, with the options of `configure` as defaults. */
export const Socket = callable<typeof SecureSocket, SocketConstructor>(
  SecureSocket,
  ([options]) => [
    typeof options === 'object' || options === undefined ? clientOptions(options ?? {}) : options,
  ],
)
export type Socket = SecureSocket

/** As `net.Server`, with the options of `configure` as defaults. */
export const Server = callable<typeof SecureServer, ServerConstructor>(
  SecureServer,
  ([first, second]) => serverArguments(first, second),
)
export type Server = SecureServer

/** As `net.createServer`, with the options of `configure` as defaults. */
export function createServer(onConnection?: OnConnection): SecureServer
export function createServer(options?: ServerOptions, onConnection?: OnConnection): SecureServer
export function createServer(first?: unknown, second?: unknown): SecureServer {
  return createSecureServer(...serverArguments(first, second))
}

/** As `net.connect`, with the options of `configure` as defaults. */
export function connect(options: ConnectOptions, listener?: () => void): SecureSocket
export function connect(port: number | string, host?: string, listener?: () => void): SecureSocket
export function connect(port: number | string, listener?: () => void): SecureSocket
export function connect(
  port: number | string,
  host: string,
  options: ConnectOptions,
  listener?: () => void,
): SecureSocket
export function connect(
  port: number | string,
  options: ConnectOptions,
  listener?: () => void,
): SecureSocket
export function connect(...args: unknown[]): SecureSocket {
  const { options, listener } = normalize(args)
  return createSecureSocket(clientOptions(options), listener)
}

export {
  BlockList,
  configure,
  connect as createConnection,
  getDefaultAutoSelectFamily,
  getDefaultAutoSelectFamilyAttemptTimeout,
  isIP,
  isIPv4,
  isIPv6,
  setDefaultAutoSelectFamily,
  setDefaultAutoSelectFamilyAttemptTimeout,
  Socket as Stream,
  SocketAddress,
  type Configuration,
}

const own = {
  configure,
  connect,
  createConnection: connect,
  createServer,
  Server,
  Socket,
  Stream: Socket,
}

/** Everything else that `net` has in this version of Node. */
const secureNet: Omit<typeof net, keyof typeof own> & typeof own = { ...net, ...own }
export default secureNet
