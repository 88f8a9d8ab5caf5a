/** Identities: ID payloads, their text, and whether one is the one that was expected (RFC 7296 §3.5). */
import { formatAddress, parseAddress } from '../base/address.ts'
import { equal, fromHex, toHex, utf8 } from '../base/bytes.ts'
import { OptionError, printable } from '../base/errors.ts'
import { IdType } from '../wire/registry.ts'
import { encodeDistinguishedName } from './distinguished-name.ts'

export interface Identity {
  readonly type: number
  readonly data: Uint8Array
}

const decoder = new TextDecoder('utf-8', { fatal: false })
const PREFIXES: Readonly<Record<string, number>> = {
  ipv4: IdType.Ipv4,
  ipv6: IdType.Ipv6,
  fqdn: IdType.Fqdn,
  dns: IdType.Fqdn,
  email: IdType.Rfc822,
  rfc822: IdType.Rfc822,
  keyid: IdType.KeyId,
  dn: IdType.DerDn,
  gn: IdType.DerGn,
}

/**
 * Reads an identity as strongSwan writes it: an address, a name, an e-mail address, `@#hex` for a key
 * ID, a distinguished name as `C=CH, O=Example, CN=host`, or any of them with an explicit `ipv4:`, `ipv6:`,
 * `fqdn:`, `email:`, `keyid:`, `dn:` or `gn:#hex` (a GeneralName in DER) in front.
 */
export const parseIdentity = (option: string, given: unknown): Identity => {
  if (typeof given !== 'string' || given === '') {
    throw new OptionError(
      option,
      given,
      'an identity: a name, an e-mail address, an IP address or keyid:…',
    )
  }
  if (given.startsWith('@#'))
    return { type: IdType.KeyId, data: hex(option, given, given.slice(2)) }
  const colon = given.indexOf(':')
  const prefix = given.slice(0, Math.max(colon, 0)).toLowerCase()
  const type = Object.hasOwn(PREFIXES, prefix) ? PREFIXES[prefix] : undefined
  const text = type === undefined ? given : given.slice(colon + 1)
  const looksLikeName = type === undefined && /^\s*[a-z]+\s*=/i.test(text)
  if (type === IdType.DerDn || looksLikeName) return distinguishedName(option, given, text)
  if (type === IdType.DerGn) return { type, data: hex(option, given, text.replace(/^#/, '')) }
  const address = parseAddress(text)
  if (type === IdType.Ipv4 || type === IdType.Ipv6) {
    if (address?.length !== (type === IdType.Ipv4 ? 4 : 16)) {
      throw new OptionError(option, given, `an address behind '${given.slice(0, colon)}:'`)
    }
    return { type, data: address }
  }
  if (type !== undefined) return { type, data: utf8(text) }
  if (address !== undefined) return addressIdentity(address)
  return {
    type: text.includes('@') ? IdType.Rfc822 : IdType.Fqdn,
    data: utf8(text.replace(/^@/, '')),
  }
}

const distinguishedName = (option: string, given: string, text: string): Identity => {
  const data = text.startsWith('#')
    ? hex(option, given, text.slice(1))
    : encodeDistinguishedName(text)
  if (data === undefined) {
    throw new OptionError(
      option,
      given,
      'a distinguished name of C, ST, L, O, OU, CN, SN, serialNumber, E or DC',
    )
  }
  return { type: IdType.DerDn, data }
}

const hex = (option: string, given: string, digits: string): Uint8Array => {
  try {
    return fromHex(digits)
  } catch {
    throw new OptionError(option, given, 'hexadecimal digits behind #')
  }
}

export const addressIdentity = (address: Uint8Array): Identity => ({
  type: address.length === 4 ? IdType.Ipv4 : IdType.Ipv6,
  data: address,
})

export const sameIdentity = (a: Identity, b: Identity): boolean =>
  a.type === b.type && equal(a.data, b.data)

/** Names are compared without regard to case (RFC 7296 §3.5: "no terminators", RFC 4343). */
const isName = (type: number): boolean => type === IdType.Fqdn || type === IdType.Rfc822

/** The identity as plain text; peers' text must go through `formatIdentity` before it is printed. */
export const identityText = ({ type, data }: Identity): string => {
  if (type === IdType.Ipv4 || type === IdType.Ipv6) return formatAddress(data)
  return isName(type) ? decoder.decode(data) : toHex(data)
}

/** Identities that are octets print as hexadecimal digits. */
const OCTET_PREFIX: Readonly<Record<number, string>> = {
  [IdType.DerDn]: 'dn:#',
  [IdType.DerGn]: 'gn:#',
}

/** For logs and errors: escaped and bounded, since a peer chose it. */
export const formatIdentity = (identity: Identity): string => {
  const { type } = identity
  const text = identityText(identity)
  if (type === IdType.Ipv4 || type === IdType.Ipv6) return text || 'malformed address'
  const quoted = printable(text)
  return isName(type)
    ? quoted.slice(1, quoted.lastIndexOf("'"))
    : `${OCTET_PREFIX[type] ?? 'keyid:'}${text.slice(0, 120)}`
}

/** Whether `identity` is what `pattern` asks for; '*' in a name stands for any text within it. */
export const identityMatches = (pattern: Identity, identity: Identity): boolean => {
  if (pattern.type === IdType.Fqdn && equal(pattern.data, utf8('*'))) return true
  if (pattern.type !== identity.type) return false
  if (!isName(pattern.type)) return equal(pattern.data, identity.data)
  const wanted = decoder.decode(pattern.data).toLowerCase()
  const given = decoder.decode(identity.data).toLowerCase()
  return wanted.includes('*') ? matchesWildcard(wanted, given) : wanted === given
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

/** A key for tables: type and octets. */
export const identityKey = ({ type, data }: Identity): string => {
  const text = isName(type) ? decoder.decode(data).toLowerCase() : toHex(data)
  return `${type}:${text}`
}
