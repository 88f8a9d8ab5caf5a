/**
 * `node --import ike-socket/register app.js`: the connections and servers of an unmodified program go by the policy
 * that the file named by `IKE_SOCKET_POLICY` holds, with the credentials of `IKE_SOCKET_CONFIG`.
 */
import './node/check-node.ts'
import { installPolicy, loadPolicy } from './api/process-policy.ts'

installPolicy(loadPolicy(process.env['IKE_SOCKET_POLICY']), import.meta.url)
