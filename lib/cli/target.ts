/** The host that a command of diagnosis speaks to, and the session it opens there as a client would. */
import { isIP } from 'node:net'
import { configuration } from '../api/configuration.ts'
import { lenientOptions, type SecureSocketOptions } from '../api/options.ts'
import { createSecureSocket, type SecureSocket } from '../api/secure-socket.ts'
import type { Session } from '../api/session.ts'
import { findConfiguration, requireConfiguration } from './configuration-file.ts'
import { UsageError } from './usage.ts'

/** Of the discard protocol: where nothing matters but the SA. */
const DISCARD = 9

export const TARGET_OPTIONS = { config: { type: 'string', completes: 'files' } } as const
export const TARGET_HELP = [
  ['--config FILE', 'credentials, as JSON with the options of ike-socket (IKE_SOCKET_CONFIG)'],
] as const

/** HOST [PORT], with the options of the configuration, or with `stranger` where there is none. */
export const readTarget = (
  command: string,
  [host, port, ...more]: readonly string[],
  config: string | undefined,
  stranger?: SecureSocketOptions,
): {
  readonly options: SecureSocketOptions & { host: string; port: number }
  readonly isStranger: boolean
} => {
  if (host === undefined || host === '' || more.length > 0)
    throw new UsageError(`${command} wants HOST and perhaps PORT`)
  const at = Number(port ?? DISCARD)
  if (!Number.isInteger(at) || at < 1 || at > 65535) throw new UsageError(`${port} is no port`)
  const bare = host.replace(/^\[(.*)\]$/, '$1')
  if (bare !== host && isIP(bare) === 0) throw new UsageError(`${host} is no address`)
  const place = { host: bare, port: at }
  if (stranger !== undefined && findConfiguration(config) === undefined)
    return { options: { ...stranger, ...place }, isStranger: true }
  requireConfiguration(config).load()
  const given = lenientOptions<SecureSocketOptions>('client', configuration(), place)
  return { options: { ...given, ...place }, isStranger: false }
}

export interface OpenSession {
  readonly session: Session
  /** The connection was established, or why it was not. */
  readonly connected: Promise<Error | undefined>
  readonly socket: SecureSocket
  close(): void
}

/** Resolves with the session as soon as it is up, whatever becomes of the connection. `signal`: nobody waits any more. */
export const openSession = (
  options: SecureSocketOptions,
  signal?: AbortSignal,
): Promise<OpenSession> =>
  new Promise((resolve, reject) => {
    const socket = createSecureSocket(options)
    // A session by itself does not keep the process alive.
    const alive = setInterval(() => {}, 60_000)
    let found: Session | undefined
    const done = new Promise<Error | undefined>(settle => {
      socket.once('connect', () => settle(undefined))
      socket.once('error', settle)
      socket.once('close', () => settle(new Error('the connection was closed')))
    })
    const close = (): void => {
      clearInterval(alive)
      socket.destroy()
      found?.close()
    }
    const note = (session: Session): void => {
      if (found !== undefined) return
      found = session
      resolve({ session, connected: done, socket, close })
    }
    socket.on('error', error => {
      if (found !== undefined) return
      clearInterval(alive)
      reject(error)
    })
    socket.once('session', note)
    socket.resume()
    signal?.addEventListener('abort', close)
  })
