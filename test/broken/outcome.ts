/** Runs a broken set-up with real sockets: what each end and `ike-socket doctor` say. */
import { once } from 'node:events'
import { Diagnostician, type Diagnosis } from '../../lib/cli/diagnose.ts'
import {
  createSecureServer,
  createSecureSocket,
  type IpsecError,
  type SecureServer,
  type SecureServerOptions,
  type SecureSocket,
  type SecureSocketOptions,
} from '../../lib/index.ts'
import type { SetUp } from './set-ups.ts'

/** `hears`: its program listens for refusals, so that nothing is warned of. */
export const listen = async (options: SecureServerOptions, hears = true): Promise<SecureServer> => {
  const server = createSecureServer({ ikePort: 0, ...options }, socket => {
    socket.on('error', () => {})
    socket.end()
  })
  if (hears) server.on('ikeClientError', () => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

export const failureOf = async (options: SecureSocketOptions): Promise<IpsecError> => {
  const socket = createSecureSocket(options)
  socket.resume()
  const [error] = (await once(socket, 'error')) as [IpsecError]
  return error
}

export const connected = async (options: SecureSocketOptions): Promise<SecureSocket> => {
  const socket = createSecureSocket({ ...options, allowHalfOpen: true })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

export const towards = (server: SecureServer): SecureSocketOptions => ({
  host: '127.0.0.1',
  port: server.address()!.port,
  ikePort: server.ikePort!,
})

export interface Outcome {
  readonly error: IpsecError
  /** Of the server. */
  readonly ours: IpsecError | undefined
  readonly diagnosis: Diagnosis
}

/** What `ike-socket doctor` finds with the options of a client. */
export const diagnose = ({
  host = '127.0.0.1',
  ...options
}: SecureSocketOptions): Promise<Diagnosis> =>
  new Diagnostician({ host, ...options }, { report: () => {} }).run()

export const causeOf = ({ cause }: Diagnosis): string =>
  cause === undefined ? 'all is well' : `${cause.name}: ${cause.says}. ${cause.cure ?? ''}`

export const outcomeOf = async ({ server: given, client, serverSays }: SetUp): Promise<Outcome> => {
  const server = await listen(given)
  const to = { ...towards(server), ...client }
  const refused =
    serverSays === undefined
      ? Promise.resolve([])
      : (once(server, 'ikeClientError') as Promise<[IpsecError, unknown]>)
  const first = given.maxSessions === 1 ? await connected({ ...to, localId: 'first' }) : undefined
  const error = await failureOf(to)
  const [ours] = await refused
  const diagnosis = await diagnose(to)
  first?.destroy()
  server.close()
  return { error, ours, diagnosis }
}
