/** IKEv2 and ESP-in-UDP behind Node's own socket interfaces. */
import './node/check-node.ts'
export {
  createEndpoint,
  SecureEndpoint,
  type EndpointConnectOptions,
  type EndpointDatagramOptions,
  type EndpointServerOptions,
  type SecureEndpointEvents,
} from './api/endpoint.ts'
export {
  createSecureDatagram,
  SecureDatagram,
  type DatagramBindOptions,
  type DatagramInfo,
  type SecureDatagramEvents,
  type SecureDatagramListener,
} from './api/secure-datagram.ts'
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
  type Callback,
} from './api/secure-socket.ts'
export type {
  Authorization,
  AuthorizedPeer,
  EapOption,
  ConnectionOptions,
  DatagramOptions,
  EndpointOption,
  EndpointOptions,
  IkeOptions,
  Key,
  OneOrMore,
  OnRead,
  Pem,
  PfxOption,
  PpkOption,
  RetransmitOption,
  SecureContextOptions,
  Psk,
  Psks,
  SecureServerOptions,
  SecureSocketOptions,
  SignRequest,
} from './api/options.ts'
export type { FileReference } from './api/credential-files.ts'
export { createSecureContext } from './api/options.ts'
export type { SecureContext, SecureContextEvents } from './api/secure-context.ts'
export type { KeyLog } from './api/channels.ts'
export { Session } from './api/session.ts'
export { metrics } from './api/metrics.ts'
export { openControl, type Control } from './api/control.ts'
export type { AnyListener, Listener, SecureSocketEvents } from './api/socket-events.ts'
export type { ChildInfo, KeepAlive, PathInfo, SessionInfo } from './core/events.ts'
export type { CongestionControl } from './core/tcp-config.ts'
export type { Authentication } from './identity/trust.ts'
export type { AeadBackend, AeadBackends, AeadCipher, AeadName } from './base/aead-backend.ts'
export type { Millis } from './base/environment.ts'
export {
  ApplicationError,
  AuthenticationError,
  InternalError,
  IpsecError,
  LimitError,
  OptionError,
  PeerMisbehavedError,
  PeerRefusedError,
  PolicyError,
  UnreachablePeerError,
  type IpsecErrorFacts,
} from './base/errors.ts'
export { formatKeyLog, type KeyLogRow } from './node/key-log.ts'
export type { KeyLogEntry, TraceEvent } from './base/trace.ts'
export type {
  Callback as DatagramCallback,
  Octets,
  Payload as DatagramPayload,
} from './api/secure-datagram.ts'
