/** Pre-shared keys as programs give them: one for all peers, one for each identity, or a function. */
import { compare, utf8 } from '../base/bytes.ts'
import { OptionError, printable, RedactedValue } from '../base/errors.ts'
import { Secret } from '../base/secret.ts'
import {
  ANYONE,
  hasWildcard,
  identityKey,
  identityMatches,
  parsePattern,
  type Identity,
} from './identity.ts'
import type { ProofFact } from './principal.ts'

/** A key, and what a peer proves that knows it. */
export interface PeerSecret {
  /** We prove ourselves with it, unless the peer has used another. */
  readonly secret: Secret
  /** With which the peer may prove itself too, while keys are replaced. */
  readonly others: readonly Secret[]
  readonly proof: ProofFact
}

/** The key for a peer; 'ask' when the program's function knows; undefined when there is none. */
export type SecretLookup = (remote: Identity) => PeerSecret | 'ask' | undefined

/** A shorter key can be found by trying: anyone who answers in our peer's place sees a MAC under it (RFC 7296 §2.15). */
export const SHORT_PSK = 16

/** Of the one key that all peers have, and of what a program's function gives: it could be anybody's. */
export const UNBOUND_SECRET: ProofFact = { kind: 'psk', entry: undefined, isBound: false }

/** Ours: each costs a MAC for each login, of strangers too. */
export const MOST_KEYS = 8
const ACCEPTED =
  'a non-empty string or Uint8Array, an array of them, an object from identity to key, or a function (identity, localIdentity)'

export const parsePsk = (value: unknown): SecretLookup => {
  if (typeof value === 'function') return () => 'ask'
  if (typeof value === 'string' || value instanceof Uint8Array || Array.isArray(value)) {
    const found = peerSecret(parseKeys('psk', value), UNBOUND_SECRET)
    return () => found
  }
  if (typeof value !== 'object' || value === null) {
    throw new OptionError('psk', kindOf(value), ACCEPTED)
  }
  const entries = Object.entries(value).map(([name, key]) => readEntry(name, key))
  if (entries.length === 0)
    throw new OptionError('psk', new RedactedValue('an empty object'), ACCEPTED)
  return lookUpIn(entries)
}

interface Entry {
  readonly name: string
  readonly pattern: Identity
  readonly keys: Keys
}

/** One or more, the first is ours. */
type Keys = readonly [Secret, ...Secret[]]

const peerSecret = ([secret, ...others]: Keys, proof: ProofFact): PeerSecret => ({
  secret,
  others,
  proof,
})

const optionOf = (name: string): string => `psk[${printable(name, 40)}]`

const readEntry = (name: string, key: unknown): Entry => ({
  name,
  pattern: parsePattern(optionOf(name), name),
  keys: parseKeys(optionOf(name), key),
})

/** An identity's own entry goes before names with '*' in them, in their order, and before '*' itself. */
const lookUpIn = (entries: readonly Entry[]): SecretLookup => {
  const shared = sharedKeys(entries)
  const exact = new Map<string, PeerSecret>()
  const patterns: { readonly pattern: Identity; readonly found: PeerSecret }[] = []
  let fallback: PeerSecret | undefined
  const names = new Map<string, string>()
  for (const entry of entries) {
    const { name, pattern, keys } = entry
    const key = identityKey(pattern)
    const twin = names.get(key)
    if (twin !== undefined) {
      const words = new RedactedValue(`another entry for that identity, ${printable(twin, 40)}`)
      throw new OptionError(optionOf(name), words, 'the only entry for its identity')
    }
    names.set(key, name)
    const isOne = pattern !== ANYONE && !hasWildcard(pattern)
    const isBound = isOne && !shared.has(entry)
    const found = peerSecret(keys, { kind: 'psk', entry: key, isBound })
    if (pattern === ANYONE) fallback = found
    else if (isOne) exact.set(key, found)
    else patterns.push({ pattern, found })
  }
  return remote =>
    exact.get(identityKey(remote)) ??
    patterns.find(({ pattern }) => identityMatches(pattern, remote))?.found ??
    fallback
}

/** Entries of which another entry has a key too: anyone who knows it can be either. */
const sharedKeys = (entries: readonly Entry[]): ReadonlySet<Entry> => {
  const sorted = entries
    .flatMap(entry => entry.keys.map(({ bytes }) => ({ entry, bytes })))
    .sort((a, b) => compare(a.bytes, b.bytes))
  type Held = (typeof sorted)[number]
  const isSame = (a: Held, b: Held | undefined): boolean =>
    b !== undefined && a.entry !== b.entry && compare(a.bytes, b.bytes) === 0
  return new Set(
    sorted
      .filter((held, i) => isSame(held, sorted[i - 1]) || isSame(held, sorted[i + 1]))
      .map(({ entry }) => entry),
  )
}

/** One key, or an array of some. */
const parseKeys = (name: string, value: unknown): Keys => {
  if (!Array.isArray(value)) return [parseKey(name, value)]
  if (value.length === 0 || value.length > MOST_KEYS) {
    const words = new RedactedValue(`an array of ${value.length}`)
    throw new OptionError(name, words, `a key or an array of 1 to ${MOST_KEYS}`)
  }
  const [first, ...others] = Array.from<unknown>(value).map((key, i) =>
    parseKey(`${name}[${i}]`, key),
  )
  return [first!, ...others]
}

/** The same for what a program's function has answered. */
export const answeredSecret = (value: unknown): PeerSecret =>
  peerSecret(parseKeys('psk', value), UNBOUND_SECRET)

/** How many keys an identity can have: so many are tried for each, so that none is told from another. */
export const mostKeys = (value: unknown): number => {
  const lists = Array.isArray(value)
    ? [value]
    : typeof value === 'object' && value !== null && !(value instanceof Uint8Array)
      ? Object.values(value as Readonly<Record<string, unknown>>)
      : []
  return Math.max(1, ...lists.map(list => (Array.isArray(list) ? list.length : 1)))
}

export const parseKey = (name: string, value: unknown): Secret => {
  if (typeof value === 'string' && value !== '') return Secret.adopt(utf8(value))
  if (value instanceof Uint8Array && value.length > 0) return new Secret(value)
  throw new OptionError(name, kindOf(value), 'a non-empty string or Uint8Array')
}

/** In the place of a value that can be a key of the wrong shape, which an error must not print. */
const kindOf = (value: unknown): RedactedValue => {
  if (typeof value === 'string' || value instanceof Uint8Array)
    return new RedactedValue('an empty one')
  if (value === null) return new RedactedValue('null')
  if (Array.isArray(value)) return new RedactedValue('an array')
  return new RedactedValue(typeof value === 'undefined' ? 'undefined' : `type ${typeof value}`)
}
