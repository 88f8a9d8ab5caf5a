/** Equal options of IKE give equal text: by it sockets share SAs, and options are read once. */
import { createHash, type Hash } from 'node:crypto'
import { utf8 } from '../base/bytes.ts'
import { readingOption } from '../base/errors.ts'

/**
 * `isPortable`: to be compared with that of another process, where identities of objects say nothing. Keys enter it only as a digest, and no text is made of them on the way: texts cannot be wiped.
 */
export const fingerprint = (
  given: Readonly<Record<string, unknown>>,
  names: readonly string[],
  isPortable = false,
): string => {
  const present = names.filter(name => Object.hasOwn(given, name) && given[name] !== undefined)
  if (present.length === 0) return ''
  const hash = createHash('sha256')
  for (const name of present) {
    hash.update(`${name}=`)
    readingOption(name, () => feed(hash, given[name], 0, isPortable))
  }
  return hash.digest('base64')
}

const identities = new WeakMap<object, number>()
let nextIdentity = 1

/** No option is nested deeper; what is cyclic is none. */
const DEEPEST = 6

const feed = (hash: Hash, value: unknown, depth: number, isPortable: boolean): void => {
  if (typeof value === 'string') return feedOctets(hash, 'text', utf8(value), true)
  if (value instanceof Uint8Array) return feedOctets(hash, 'octets', value, false)
  if (typeof value === 'function' || (typeof value === 'object' && value !== null)) {
    if (typeof value === 'function' || depth === DEEPEST || isOpaque(value)) {
      if (isPortable) return void hash.update(`${typeof value};`)
      if (!identities.has(value)) identities.set(value, nextIdentity++)
      hash.update(`${typeof value}:${identities.get(value)};`)
      return
    }
    const entries = Object.entries(value)
    // An array may be longer than what it holds.
    const kind = Array.isArray(value) ? `array:${value.length}` : 'object'
    hash.update(`${kind}:${entries.length};`)
    for (const [name, part] of entries) {
      feedOctets(hash, 'name', utf8(name), true)
      feed(hash, part, depth + 1, isPortable)
    }
    return
  }
  hash.update(`${typeof value}:${String(value)};`)
}

const feedOctets = (hash: Hash, kind: string, octets: Uint8Array, isOurs: boolean): void => {
  hash.update(`${kind}:${octets.length}:`).update(octets)
  if (isOurs) octets.fill(0)
}

/** What an object of a class holds, a KeyObject for one, does not show in its properties. */
const isOpaque = (value: object): boolean => {
  if (Array.isArray(value)) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype !== Object.prototype && prototype !== null
}
