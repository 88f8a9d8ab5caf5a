/**
 * The names of `node:net` for our sockets and servers: a program changes the module it imports and adds
 * the options of IKE. As there, the classes may be called without `new`.
 */
import { SecureServer } from './api/secure-server.ts'
import { SecureSocket } from './api/secure-socket.ts'

export {
  BlockList,
  getDefaultAutoSelectFamily,
  getDefaultAutoSelectFamilyAttemptTimeout,
  isIP,
  isIPv4,
  isIPv6,
  setDefaultAutoSelectFamily,
  setDefaultAutoSelectFamilyAttemptTimeout,
  SocketAddress,
} from 'node:net'
export { createSecureServer as createServer } from './api/secure-server.ts'
export {
  createSecureSocket as connect,
  createSecureSocket as createConnection,
} from './api/secure-socket.ts'

type Callable<Class extends abstract new (...args: never) => unknown> = Class &
  ((...args: ConstructorParameters<Class>) => InstanceType<Class>)

const callable = <Class extends new (...args: never) => object>(Class: Class): Callable<Class> =>
  new Proxy(Class, {
    apply: (target, _this, args) => Reflect.construct(target, args) as object,
  }) as unknown as Callable<Class>

export const Socket = callable(SecureSocket)
export type Socket = SecureSocket
export { Socket as Stream }
export const Server = callable(SecureServer)
export type Server = SecureServer
