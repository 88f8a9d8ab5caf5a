/**
 * Connections inside ESP in the form that libraries ask for: undici, ioredis, pg and `node:tls`. Nothing here needs
 * the library; credentials come from the first argument, `configure` or the file that `IKE_SOCKET_CONFIG` names.
 */
import './node/check-node.ts'
export {
  connectTls,
  ioredisConnector,
  pgStream,
  undiciConnector,
  type UndiciConnect,
  type UndiciConnectOptions,
} from './api/connectors.ts'
export { configure, type Configuration } from './api/configuration.ts'
