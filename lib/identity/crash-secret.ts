/**
 * The secret of quick crash detection (RFC 6290 §5): what a process that is started again has as before. It is made of
 * the private key, or of the pre-shared keys, unless the program gives one.
 */
import { utf8 } from '../base/bytes.ts'
import { OptionError, withoutContent } from '../base/errors.ts'
import { Secret } from '../base/secret.ts'
import { computeHmac } from '../crypto/prf.ts'
import { HashAlgorithm } from '../wire/registry.ts'
import type { OwnKey } from './own-keys.ts'

export interface CrashSecret {
  /** The program gave it, so that it is good wherever the program runs. */
  readonly isGiven: boolean
  /** Undefined: there is nothing to make it of. Made when it is asked for the first time. */
  derive(): Secret | undefined
}

/** As of a pre-shared key: what is shorter can be found by trying. */
const LEAST = 16
const ACCEPTED = `a string or Uint8Array of at least ${LEAST} octets, or false`
const LABEL = utf8('ike-socket crash secret 1')

/** `given`: the option `crashTokenSecret`; `psk`: the option of that name, which has been checked. */
export const parseCrashSecret = (
  value: unknown,
  ownKeys: readonly OwnKey[],
  psk: unknown,
): CrashSecret => {
  if (value === false) return { isGiven: true, derive: () => undefined }
  if (value !== undefined) {
    const octets = typeof value === 'string' ? utf8(value) : value
    if (!(octets instanceof Uint8Array) || octets.length < LEAST)
      throw new OptionError('crashTokenSecret', withoutContent(value), ACCEPTED)
    const secret = new Secret(octets)
    return { isGiven: true, derive: () => secret }
  }
  let secret: Secret | undefined
  return {
    isGiven: false,
    derive: () => (secret ??= ownKeys.length > 0 ? ofKey(ownKeys[0]!) : ofPsk(psk)),
  }
}

/** Undefined: the key is kept elsewhere. */
const ofKey = ({ key }: OwnKey): Secret | undefined => key?.derive(LABEL)

/** Undefined: the program is asked for each key. */
const ofPsk = (psk: unknown): Secret | undefined => {
  if (typeof psk === 'function' || psk === undefined) return undefined
  const isOne = typeof psk === 'string' || psk instanceof Uint8Array
  const entries = isOne
    ? [['', psk] as const]
    : Object.entries(psk as Readonly<Record<string, unknown>>)
  const parts = entries
    .flatMap(([name, keys]) => [keys].flat().map(key => [name, key] as const))
    .map(
      ([name, key]) => [name, typeof key === 'string' ? utf8(key) : (key as Uint8Array)] as const,
    )
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([name, octets]) => [utf8(`${name} ${octets.length}\n`), octets])
  // Hashed as data and in no array of its own: copies of keys cannot be wiped everywhere.
  return Secret.adopt(computeHmac('auto', HashAlgorithm.Sha2_256, LABEL, parts))
}
