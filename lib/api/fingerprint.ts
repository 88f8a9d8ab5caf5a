/** Equal options of IKE give equal text: by it sockets share SAs, and options are read once. */
import { createHash } from 'node:crypto'
import { CREDENTIAL_OPTIONS } from '../identity/credentials.ts'
import { POLICY_OPTIONS } from '../policy/options.ts'

const NAMES = [...POLICY_OPTIONS, ...CREDENTIAL_OPTIONS, 'keyLog']

/** Keys enter it only as a digest. */
export const fingerprint = (given: Readonly<Record<string, unknown>>): string => {
  const hash = createHash('sha256')
  for (const name of NAMES) {
    if (Object.hasOwn(given, name) && given[name] !== undefined)
      hash.update(`${name}=${canonical(given[name])};`)
  }
  return hash.digest('base64')
}

const identities = new WeakMap<object, number>()
let nextIdentity = 1

const canonical = (value: unknown): string => {
  if (value instanceof Uint8Array) return `octets:${Buffer.from(value).toString('hex')}`
  if (typeof value === 'function' || (typeof value === 'object' && isOpaque(value))) {
    if (!identities.has(value!)) identities.set(value!, nextIdentity++)
    return `${typeof value}:${identities.get(value!)}`
  }
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'undefined'
  return `{${Object.entries(value)
    .map(([name, part]) => `${JSON.stringify(name)}:${canonical(part)}`)
    .join(',')}}`
}

/** What an object of a class holds, a KeyObject for one, does not show in its properties. */
const isOpaque = (value: object | null): boolean => {
  if (value === null || Array.isArray(value)) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype !== Object.prototype && prototype !== null
}
