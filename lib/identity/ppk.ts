/** Post-quantum pre-shared keys (RFC 8784): a second secret that today's recorded traffic cannot be opened without. */
import { equal, utf8 } from '../base/bytes.ts'
import { listOf, OptionError, withoutContent, RedactedValue } from '../base/errors.ts'
import { Secret } from '../base/secret.ts'
import { parseKey } from './pre-shared-key.ts'

export interface Ppk {
  /** PPK_ID as it goes on the wire (RFC 8784 §5.1). */
  readonly id: Uint8Array
  readonly secret: Secret
}

export interface PpkPolicy {
  /** As initiator we use the first. */
  readonly keys: readonly Ppk[]
  /** Without one there is no SA (`mandatory_or_not` of RFC 8784 §3). */
  readonly required: boolean
}

/** RFC 8784 §5.1: the first octet of a PPK_ID is its type; this one is a fixed name that both ends know. */
const PPK_ID_FIXED = 2
/** RFC 8784 §6: 256 bits against Grover's algorithm. */
const LEAST_OCTETS = 32
const ACCEPTED = 'an object { id, secret, required } or a non-empty array of them'
const NAMES = ['id', 'secret', 'required']

export const parsePpk = (value: unknown): PpkPolicy | undefined => {
  if (value === undefined) return undefined
  const list = listOf('ppk', value)
  if (list.length === 0)
    throw OptionError.saying('ppk', '"ppk" must not be empty; leave it out to have none')
  const entries = list.map((entry, i) =>
    parseEntry(Array.isArray(value) ? `ppk[${i}]` : 'ppk', entry),
  )
  return { keys: entries, required: entries.some(({ required }) => required) }
}

const parseEntry = (name: string, value: unknown): Ppk & { readonly required: boolean } => {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) {
    throw new OptionError(name, withoutContent(value), ACCEPTED)
  }
  const own = (key: string): unknown =>
    Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : undefined
  for (const key of Object.keys(value)) {
    if (!NAMES.includes(key)) throw OptionError.unknown(`${name}.${key}`, undefined, NAMES)
  }
  const id = own('id')
  if (typeof id !== 'string' || id === '') {
    throw new OptionError(`${name}.id`, withoutContent(id), 'a non-empty string')
  }
  const required = own('required') ?? false
  if (typeof required !== 'boolean') {
    throw new OptionError(`${name}.required`, required, 'true or false')
  }
  const secret = parseKey(`${name}.secret`, own('secret'))
  if (secret.length < LEAST_OCTETS) {
    throw new OptionError(
      `${name}.secret`,
      new RedactedValue(`${secret.length} octets`),
      `at least ${LEAST_OCTETS} octets (RFC 8784 section 6)`,
    )
  }
  return { id: Uint8Array.of(PPK_ID_FIXED, ...utf8(id)), secret, required }
}

export const findPpk = (policy: PpkPolicy | undefined, id: Uint8Array): Ppk | undefined =>
  policy?.keys.find(key => equal(key.id, id))
