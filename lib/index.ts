/** IKEv2 and ESP-in-UDP behind Node's own socket interfaces. */
export {
  createSecureServer,
  SecureServer,
  type DropFacts,
  type ListenOptions,
  type RefusedPeer,
  type SecureServerEvents,
} from './api/secure-server.ts'
export {
  createSecureSocket,
  createSecureSocket as connect,
  SecureSocket,
} from './api/secure-socket.ts'
export type { SecureServerOptions, SecureSocketOptions, IkeOptions, OnRead } from './api/options.ts'
export { Session } from './api/session.ts'
export type { SecureSocketEvents } from './api/socket-events.ts'
export type { SessionInfo, ChildInfo } from './core/events.ts'
export {
  AuthenticationError,
  InternalError,
  IpsecError,
  OptionError,
  PeerMisbehavedError,
  PeerRefusedError,
  UnreachablePeerError,
} from './base/errors.ts'
export { formatKeyLog, type KeyLogRow } from './node/key-log.ts'
export type { KeyLogEntry } from './base/trace.ts'
