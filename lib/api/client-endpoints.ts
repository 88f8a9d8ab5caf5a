/**
 * Which sockets share an IKE SA: those of this process towards the same gateway with the same options.
 * An endpoint goes when its last SA is gone.
 */
import { createHash } from 'node:crypto'
import { parseAddress } from '../base/address.ts'
import { Endpoint, type EndpointWatcher } from '../node/endpoint.ts'
import { CREDENTIAL_OPTIONS } from '../identity/credentials.ts'
import { POLICY_OPTIONS } from '../policy/options.ts'
import { formatIdentity } from '../identity/identity.ts'
import { makeTracer } from './channels.ts'
import { parseSecurity, type ConnectSettings } from './options.ts'

export interface ClientContext {
  /** Of the gateway: an IP address and its UDP port. */
  readonly address: string
  readonly port: number
  readonly settings: ConnectSettings
}

const endpoints = new Map<string, Endpoint>()

export const clientEndpoint = ({ address, port, settings }: ClientContext): Endpoint => {
  const given = settings.given as Readonly<Record<string, unknown>>
  const key = `${address}|${port}|${fingerprint(given)}`
  const known = endpoints.get(key)
  if (known !== undefined) return known
  const security = parseSecurity(given)
  const endpoint = new Endpoint({
    tracer: makeTracer(settings.given.keyLog),
    watcher: watcherOf(given),
  })
  endpoints.set(key, endpoint)
  const forget = (): void => {
    if (endpoints.get(key) === endpoint) endpoints.delete(key)
    endpoint.destroy()
  }
  endpoint.whenIdle(forget)
  endpoint.openTowards(address, port, parseAddress(address.split('%')[0]!)!, security, forget)
  return endpoint
}

const watcherOf = (given: Readonly<Record<string, unknown>>): EndpointWatcher => ({
  onRefused() {},
  onSessionUp() {},
  onSessionDown() {},
  onQuestion: question => {
    const { psk } = given
    return question.kind === 'findSecret' && typeof psk === 'function'
      ? psk(formatIdentity(question.remote), formatIdentity(question.local))
      : undefined
  },
})

/** Equal options give equal text; keys enter it only as a digest. */
const fingerprint = (given: Readonly<Record<string, unknown>>): string => {
  const hash = createHash('sha256')
  for (const name of [...POLICY_OPTIONS, ...CREDENTIAL_OPTIONS, 'keyLog']) {
    if (given[name] !== undefined) hash.update(`${name}=${canonical(given[name])};`)
  }
  return hash.digest('base64')
}

const identities = new WeakMap<object, number>()
let nextIdentity = 1

const canonical = (value: unknown): string => {
  if (value instanceof Uint8Array) return `octets:${Buffer.from(value).toString('hex')}`
  if (typeof value === 'function') {
    if (!identities.has(value)) identities.set(value, nextIdentity++)
    return `function:${identities.get(value)}`
  }
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'undefined'
  return `{${Object.entries(value)
    .map(([name, part]) => `${JSON.stringify(name)}:${canonical(part)}`)
    .join(',')}}`
}

// SAs that nobody uses do not keep a process alive; their peers are told when it ends by itself.
process.on('beforeExit', () => {
  for (const endpoint of endpoints.values()) endpoint.farewell()
  endpoints.clear()
})
