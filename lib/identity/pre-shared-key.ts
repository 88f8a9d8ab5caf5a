/** Pre-shared keys as programs give them: one for all peers, one for each identity, or a function. */
import { utf8 } from '../base/bytes.ts'
import { OptionError, printable, Words } from '../base/errors.ts'
import { Secret } from '../base/secret.ts'
import { identityKey, identityMatches, parseIdentity, type Identity } from './identity.ts'

/** The key for a peer; 'ask' when the program's function knows; undefined when there is none. */
export type SecretLookup = (local: Identity, remote: Identity) => Secret | 'ask' | undefined

/** A shorter key can be found by trying: whoever answers in our peer's place sees a MAC under it (RFC 7296 §2.15). */
export const SHORT_PSK = 16

const ACCEPTED =
  'a non-empty string or Uint8Array, an object from identity to key, or a function (identity, localIdentity)'

export const parsePsk = (given: unknown): SecretLookup => {
  if (typeof given === 'function') return () => 'ask'
  if (typeof given === 'string' || given instanceof Uint8Array) {
    const secret = parseKey('psk', given)
    return () => secret
  }
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new OptionError('psk', given, ACCEPTED)
  }
  const keys = Object.entries(given).map(([name, key]: [string, unknown]) => ({
    pattern: parseIdentity('psk', name),
    secret: parseKey(`psk[${printable(name, 40)}]`, key),
  }))
  if (keys.length === 0) throw new OptionError('psk', given, ACCEPTED)
  const exact = new Map(keys.map(({ pattern, secret }) => [identityKey(pattern), secret]))
  return (_local, remote) =>
    exact.get(identityKey(remote)) ??
    keys.find(({ pattern }) => identityMatches(pattern, remote))?.secret
}

/** Also for what a program's function returns. */
export const parseKey = (name: string, given: unknown): Secret => {
  if (typeof given === 'string' && given !== '') return new Secret(utf8(given))
  if (given instanceof Uint8Array && given.length > 0) return new Secret(given)
  // The error must not print a key.
  const isEmpty = typeof given === 'string' || given instanceof Uint8Array
  throw new OptionError(
    name,
    isEmpty ? new Words('an empty one') : given,
    'a non-empty string or Uint8Array',
  )
}
