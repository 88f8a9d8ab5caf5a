/**
 * The one door to the product: everything else here knows only these functions. Options pass through as
 * they are, so that a scenario reads like a program that uses the package.
 */
import { channel } from 'node:diagnostics_channel'
import type { Duplex } from 'node:stream'
import { createSecureServer, createSecureSocket } from '../../lib/index.ts'

export type Options = Readonly<Record<string, unknown>>

/** EAP-MSCHAPv2 as client. */
export const eapPassword = (identity: string, password: string): Options => ({
  eap: { method: 'mschapv2', identity, password },
})

/** EAP-TLS as client: the TLS identity is apart from IKE's. */
export const eapCertificate = (
  identity: string,
  cert: string,
  key: string,
  ca: string,
): Options => ({
  eap: { method: 'tls', identity, cert, key, ca },
})

/** A post-quantum pre-shared key (RFC 8784). */
export const postQuantumKey = (id: string, secret: Uint8Array, required: boolean): Options => ({
  ppk: { id, secret, required },
})

/** Directory for Wireshark's tables of IKEv2 and ESP keys. */
export const keyLog = (directory: string): Options => ({ keyLog: directory })

/** What a scenario looks at besides the stream. */
export interface ProtectedSocket extends Duplex {
  readonly readyState: string
  readonly bytesRead: number
  readonly bytesWritten: number
  readonly localAddress?: string | undefined
  readonly remoteAddress?: string | undefined
  readonly session?: ProtectedSession | undefined
  readonly authorized?: boolean
  readonly peerId?: string | undefined
  getPeerCertificate?(): { subjectaltname?: string } | undefined
}

export interface ProtectedSession {
  readonly info: {
    readonly spiI: string
    readonly spiR: string
    readonly ikeSuite: string
    readonly ikeRekeys: number
    readonly childRekeys: number
    readonly localBehindNat: boolean
    readonly remoteBehindNat: boolean
    readonly children: readonly {
      readonly mode: string
      readonly suite: string
      readonly spiIn: number
      readonly spiOut: number
      readonly localSelectors: readonly string[]
      readonly remoteSelectors: readonly string[]
    }[]
  }
  readonly gatewayAddress: string
  readonly gatewayPort: number
  readonly virtualAddresses: readonly string[]
  readonly dns: readonly string[]
  readonly netmask: string | undefined
  rekeyIke(): void
  rekeyChild(): void
  close(): void
}

export interface ProtectedServer {
  on(event: string, listener: (...args: never[]) => void): unknown
  once(event: string, listener: (...args: unknown[]) => void): unknown
  close(done?: () => void): unknown
  setCredentials(options: Options): void
}

/** Starts to connect; nothing is awaited. */
export const open = (options: Options): ProtectedSocket => createSecureSocket(options as never)

/** Resolves with the connected socket. */
export const connect = (options: Options): Promise<ProtectedSocket> =>
  new Promise((resolve, reject) => {
    const socket = open(options)
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.off('error', reject)
      resolve(socket)
    })
  })

/** Resolves once it listens; `host`: at this address alone. */
export const listen = (
  options: Options,
  port: number,
  onConnection: (socket: ProtectedSocket) => void,
  host?: string,
): Promise<ProtectedServer> =>
  new Promise((resolve, reject) => {
    const server = createSecureServer(options, socket => onConnection(socket))
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      server.on('error', () => {})
      resolve(server)
    })
  })

/** What the product tells about itself, newest last. */
export const traces: string[] = []
channel('ike-socket:trace').subscribe(message => {
  const { name, facts } = message as { name: string; facts: unknown }
  traces.push(`${new Date().toISOString().slice(11, 23)} ${name} ${JSON.stringify(facts)}`)
  if (traces.length > 5000) traces.splice(0, 1000)
})
