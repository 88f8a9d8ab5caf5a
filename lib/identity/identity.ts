/**
 * Identities: ID payloads (RFC 7296 §3.5), the one form in which they are compared, and their text. Two identities
 * are the same when type and canonical octets are; the text shows both, so that different ones never share it.
 */
import { formatAddress, parseAddress } from '../base/address.ts'
import { equal, fromHex, toHex, utf8 } from '../base/bytes.ts'
import { OptionError, printable } from '../base/errors.ts'
import { IdType } from '../wire/registry.ts'
import {
  canonicalDistinguishedName,
  decodeDistinguishedName,
  encodeDistinguishedName,
  formatDistinguishedName,
} from './distinguished-name.ts'
import { lowerCase, lowerCaseDomain } from './fold.ts'
import { canonicalGeneralName } from './general-name.ts'
import { ATTRIBUTE_NAMES } from './name.ts'

export interface Identity {
  readonly type: number
  readonly data: Uint8Array
}

/** Ours: no name is near it, and what is kept of a peer must have an end. */
export const IDENTITY_LIMIT = 8192

/** Stands for every identity where a pattern is accepted: type 0 is reserved, and no peer may claim it. */
export const ANYONE: Identity = { type: 0, data: utf8('*') }

const isAnyone = ({ type }: Identity): boolean => type === ANYONE.type

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

const decode = (data: Uint8Array): string | undefined => {
  try {
    return decoder.decode(data)
  } catch {
    return undefined
  }
}

const isName = (type: number): boolean => type === IdType.Fqdn || type === IdType.Rfc822

export const addressIdentity = (address: Uint8Array): Identity => ({
  type: address.length === 4 ? IdType.Ipv4 : IdType.Ipv6,
  data: address,
})

// --- comparing ---

/** What is wrong with `identity`, so that nobody can be it, as the end of a sentence; undefined: nothing. */
export const identityProblem = (identity: Identity, isPattern = false): string | undefined => {
  const { type, data } = identity
  if (data.length === 0) return 'is empty'
  if (data.length > IDENTITY_LIMIT) return `is longer than ${IDENTITY_LIMIT} octets`
  switch (type) {
    case IdType.Ipv4:
      return data.length === 4 ? undefined : `is an IPv4 address of ${data.length} octets`
    case IdType.Ipv6:
      return data.length === 16 ? undefined : `is an IPv6 address of ${data.length} octets`
    case IdType.Fqdn:
    case IdType.Rfc822:
      return nameProblem(data, isPattern)
    case IdType.DerDn:
    case IdType.DerGn:
      return canonicalOctets(identity) === undefined ? 'is not proper DER' : undefined
    case IdType.KeyId:
      return undefined
    default:
      return `is of the unknown type ${type}`
  }
}

/** RFC 7296 §3.5: no terminators. A dot at the end, and a star, would be further ways to write other names. */
const nameProblem = (data: Uint8Array, isPattern: boolean): string | undefined => {
  if (data.some(octet => octet < 0x20 || octet === 0x7f)) return 'holds a control character'
  const text = decode(data)
  if (text === undefined) return 'is not UTF-8'
  if (text.endsWith('.')) return 'ends with a dot'
  return text.includes('*') && !isPattern ? "holds '*', which stands for any text" : undefined
}

/** Undefined when it is malformed. */
const canonicalOctets = ({ type, data }: Identity): Uint8Array | undefined => {
  switch (type) {
    case IdType.Fqdn:
      return lowerCase(data)
    case IdType.Rfc822:
      return lowerCaseDomain(data)
    case IdType.DerDn: {
      const name = decodeDistinguishedName(data)
      return name && canonicalDistinguishedName(name)
    }
    case IdType.DerGn:
      return canonicalGeneralName(data)
    default:
      return data
  }
}

/** The one form of all identities that are the same. What is malformed is the same as itself alone. */
export const canonicalIdentity = (identity: Identity): Identity => ({
  type: identity.type,
  data: canonicalOctets(identity) ?? identity.data,
})

/** A key for tables: equal exactly for what is the same identity. */
export const identityKey = (identity: Identity): string => {
  const { type, data } = canonicalIdentity(identity)
  return `${type}:${toHex(data)}`
}

export const sameIdentity = (a: Identity, b: Identity): boolean =>
  a.type === b.type && (equal(a.data, b.data) || identityKey(a) === identityKey(b))

// --- patterns ---

/** Whether a pattern stands for more than one identity. */
export const hasWildcard = ({ type, data }: Identity): boolean =>
  (type === ANYONE.type || isName(type)) && data.includes('*'.charCodeAt(0))

/** Whether `identity` is what `pattern` asks for; a '*' in a name stands for any text within it. */
export const identityMatches = (pattern: Identity, identity: Identity): boolean => {
  if (isAnyone(pattern)) return true
  if (!hasWildcard(pattern)) return sameIdentity(pattern, identity)
  if (pattern.type !== identity.type) return false
  const wanted = decode(canonicalIdentity(pattern).data)
  const given = decode(canonicalIdentity(identity).data)
  return wanted !== undefined && given !== undefined && matchesWildcard(wanted, given)
}

/** Without backtracking: the parts between stars must follow each other. */
const matchesWildcard = (pattern: string, text: string): boolean => {
  const parts = pattern.split('*')
  const first = parts[0]!
  const last = parts.at(-1)!
  if (text.length < first.length + last.length) return false
  if (!text.startsWith(first) || !text.endsWith(last)) return false
  let at = first.length
  const end = text.length - last.length
  for (const part of parts.slice(1, -1)) {
    const found = text.indexOf(part, at)
    if (found < 0 || found + part.length > end) return false
    at = found + part.length
  }
  return true
}

// --- from text ---

const PREFIXES: ReadonlyMap<string, number> = new Map([
  ['ipv4', IdType.Ipv4],
  ['ipv6', IdType.Ipv6],
  ['fqdn', IdType.Fqdn],
  ['dns', IdType.Fqdn],
  ['email', IdType.Rfc822],
  ['rfc822', IdType.Rfc822],
  ['keyid', IdType.KeyId],
  ['dn', IdType.DerDn],
  ['gn', IdType.DerGn],
])

/**
 * Reads an identity as strongSwan writes it: an address, a name, an e-mail address, `@#hex` for a key ID, a
 * distinguished name as `C=CH, O=Example, CN=host`, or any of them with an explicit `ipv4:`, `ipv6:`, `fqdn:`,
 * `email:`, `keyid:`, `dn:` or `gn:` in front. After the last five, `#` and hexadecimal digits are the octets
 * (DER for `dn:` and `gn:`). It reads whatever `identityText` writes.
 */
export const parseIdentity = (option: string, value: unknown): Identity =>
  checked(option, value, readIdentity(option, value), false)

/** As `parseIdentity`; `*` is everyone, and within a name any text. */
export const parsePattern = (option: string, value: unknown): Identity =>
  value === '*' ? ANYONE : checked(option, value, readIdentity(option, value), true)

const checked = (
  option: string,
  value: unknown,
  identity: Identity,
  isPattern: boolean,
): Identity => {
  const problem = identityProblem(identity, isPattern)
  if (problem === undefined) return identity
  throw new OptionError(option, value, `an identity, and this one ${problem}`)
}

const readIdentity = (option: string, value: unknown): Identity => {
  if (typeof value !== 'string' || value === '') {
    throw new OptionError(
      option,
      value,
      'an identity: a name, an e-mail address, an IP address or keyid:…',
    )
  }
  if (value.startsWith('@#'))
    return { type: IdType.KeyId, data: readHex(option, value, value.slice(2)) }
  const prefix = value.slice(0, Math.max(value.indexOf(':'), 0))
  const type = PREFIXES.get(prefix.toLowerCase())
  if (type === undefined) return readUntyped(option, value)
  const text = value.slice(prefix.length + 1)
  if (type === IdType.Ipv4 || type === IdType.Ipv6) {
    const address = parseAddress(text)
    if (address?.length === (type === IdType.Ipv4 ? 4 : 16)) return { type, data: address }
    throw new OptionError(option, value, `an address of that kind after '${prefix}:'`)
  }
  if (text.startsWith('#')) return { type, data: readHex(option, value, text.slice(1)) }
  if (type === IdType.DerDn) return readDistinguishedName(option, value, text)
  if (type === IdType.DerGn) return { type, data: readHex(option, value, text) }
  return { type, data: utf8(text) }
}

const readUntyped = (option: string, text: string): Identity => {
  if (/^\s*[a-z]+\s*=/i.test(text)) return readDistinguishedName(option, text, text)
  const address = parseAddress(text)
  if (address !== undefined) return addressIdentity(address)
  if (text.startsWith('@')) return { type: IdType.Fqdn, data: utf8(text.slice(1)) }
  return { type: text.includes('@') ? IdType.Rfc822 : IdType.Fqdn, data: utf8(text) }
}

const readDistinguishedName = (option: string, given: string, text: string): Identity => {
  const data = encodeDistinguishedName(text)
  if (data !== undefined) return { type: IdType.DerDn, data }
  throw new OptionError(
    option,
    given,
    `a distinguished name: ${[...ATTRIBUTE_NAMES.values()].join(', ')} or dotted numbers, '=' and a value, with commas between`,
  )
}

const readHex = (option: string, given: string, digits: string): Uint8Array => {
  try {
    return fromHex(digits)
  } catch {
    throw new OptionError(option, given, "an even number of hexadecimal digits after '#'")
  }
}

// --- to text ---

/**
 * The whole identity, for programs and people: the same text for the same identity and for no other one, from which
 * `parseIdentity` reads it again. Names, e-mail addresses and addresses stand alone where they can be nothing else;
 * what cannot be shown is in hexadecimal digits.
 */
export const identityText = (identity: Identity): string => {
  if (isAnyone(identity)) return '*'
  const { type, data } = canonicalIdentity(identity)
  switch (type) {
    case IdType.Ipv4:
      return data.length === 4 ? formatAddress(data) : `ipv4:#${toHex(data)}`
    case IdType.Ipv6:
      return data.length === 16 ? formatAddress(data) : `ipv6:#${toHex(data)}`
    case IdType.Fqdn: {
      const text = plainText(data)
      return text !== undefined && isPlainName(text) ? text : typed('fqdn', data, text)
    }
    case IdType.Rfc822: {
      const text = plainText(data)
      return text !== undefined && isPlainMailbox(text) ? text : typed('email', data, text)
    }
    case IdType.KeyId:
      return typed('keyid', data, plainText(data))
    case IdType.DerDn:
      return `dn:${formatDistinguishedName(data)}`
    case IdType.DerGn:
      return `gn:#${toHex(data)}`
    default:
      return `type-${type}:#${toHex(data)}`
  }
}

/** For logs and errors: escaped and bounded, since a peer chose it. */
export const formatIdentity = (identity: Identity): string => {
  const text = identityText(
    isAnyone(identity) || identityProblem(identity) === undefined
      ? identity
      : { type: identity.type, data: identity.data.subarray(0, LOGGED) },
  )
  const quoted = printable(text, LOGGED)
  return quoted.slice(1, quoted.lastIndexOf("'")) + (text.length > LOGGED ? '...' : '')
}

const LOGGED = 120

const typed = (prefix: string, data: Uint8Array, text: string | undefined): string =>
  `${prefix}:${text ?? `#${toHex(data)}`}`

/** What everyone sees as it is, and reads back as it stands; undefined for all else. */
const plainText = (data: Uint8Array): string | undefined => {
  const text = decode(data)
  return text !== undefined && VISIBLE.test(text) && !UNCLEAR.test(text) ? text : undefined
}

const VISIBLE = /^[ -~\p{L}\p{M}\p{N}]+$/u
/** A sign of octets in front, spaces that nobody sees, and characters that have no form. */
const UNCLEAR = /^[# ]| {2}| $|\p{Default_Ignorable_Code_Point}/u

/** Neither an address, as also `127.1` is to many programs, nor anything else that has a sign of another type. */
const isPlainName = (text: string): boolean =>
  text !== '*' && !/[@:=]/.test(text) && !/(^|\.)(\d+|0x[\da-f]*)$/.test(text)

const isPlainMailbox = (text: string): boolean => /^[^@:=]+@[^@:=]+$/.test(text)
