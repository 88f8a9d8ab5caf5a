/**
 * `node:net` for our sockets and servers: a program changes the module that it imports. Credentials come from
 * `configure`, from the file that `IKE_SOCKET_CONFIG` names, or with the options of each call. As in net, the
 * classes may be called without `new`, and options that nobody knows have no effect.
 */
import net from 'node:net'
import { configuration, configure, type Configuration } from './api/configuration.ts'
import {
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

/** Other properties than net's: `psk` and its kind may come with the options of each call. */
type SocketOptions = SecureSocketOptions & Readonly<Record<string, unknown>>
type ServerOptions = SecureServerOptions & Readonly<Record<string, unknown>>
type OnConnection = (socket: SecureSocket) => void

const clientOptions = <T extends object>(options: T): T =>
  lenientOptions('client', configuration(), options)

/** As net: the listener may come first, and anything but an object is a mistake. */
const serverArguments = (
  first: unknown,
  second: unknown,
): [SecureServerOptions, OnConnection | undefined] => {
  const [options, listener] = typeof first === 'function' ? [{}, first] : [first ?? {}, second]
  const given = typeof options === 'object' ? options : undefined
  return [
    given === undefined
      ? options
      : lenientOptions<SecureServerOptions>('server', configuration(), given),
    listener as OnConnection | undefined,
  ]
}

type Callable<Class extends abstract new (...args: never) => unknown> = Class &
  ((...args: ConstructorParameters<Class>) => InstanceType<Class>)

/** `prepare` makes the constructor's arguments from the caller's. */
const callable = <Class extends new (...args: never) => object>(
  Class: Class,
  prepare: (args: readonly unknown[]) => unknown[],
): Callable<Class> =>
  new Proxy(Class, {
    apply: (target, _this, args: unknown[]) => Reflect.construct(target, prepare(args)) as object,
    construct: (target, args: unknown[], newTarget) =>
      Reflect.construct(target, prepare(args), newTarget) as object,
  }) as unknown as Callable<Class>

export const Socket = callable(SecureSocket, ([options]) => [
  typeof options === 'object' || options === undefined ? clientOptions(options ?? {}) : options,
])
export type Socket = SecureSocket

export const Server = callable(SecureServer, ([first, second]) => serverArguments(first, second))
export type Server = SecureServer

export function createServer(onConnection?: OnConnection): SecureServer
export function createServer(options: ServerOptions, onConnection?: OnConnection): SecureServer
export function createServer(first?: unknown, second?: unknown): SecureServer {
  return createSecureServer(...serverArguments(first, second))
}

export function connect(options: SocketOptions, listener?: () => void): SecureSocket
export function connect(port: number | string, host: string, listener?: () => void): SecureSocket
export function connect(port: number | string, listener?: () => void): SecureSocket
export function connect(
  port: number | string,
  host: string,
  options: SocketOptions,
  listener?: () => void,
): SecureSocket
export function connect(
  port: number | string,
  options: SocketOptions,
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

export default {
  BlockList,
  configure,
  connect,
  createConnection: connect,
  createServer,
  getDefaultAutoSelectFamily,
  getDefaultAutoSelectFamilyAttemptTimeout,
  isIP,
  isIPv4,
  isIPv6,
  Server,
  setDefaultAutoSelectFamily,
  setDefaultAutoSelectFamilyAttemptTimeout,
  Socket,
  SocketAddress,
  Stream: Socket,
}
