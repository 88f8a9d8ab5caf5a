/** Distinguished names as text: read from it, printed without loss, and brought to one form for those that match. */
import { compare, concat, fromHex, toHex, utf8 } from '../base/bytes.ts'
import { der, oid, sequence } from '../base/der-writer.ts'
import { DerReader, Tag } from '../base/der.ts'
import {
  ATTRIBUTE_NAMES,
  prepareText,
  readName,
  sameName,
  type Attribute,
  type Name,
} from './name.ts'

const TYPES: ReadonlyMap<string, string> = new Map([
  ...[...ATTRIBUTE_NAMES].map(([type, name]) => [name.toUpperCase(), type] as const),
  ['EMAILADDRESS', '1.2.840.113549.1.9.1'],
])
const COUNTRY = '2.5.4.6'
const SERIAL_NUMBER = '2.5.4.5'
const EMAIL_ADDRESS = '1.2.840.113549.1.9.1'
const DOMAIN_COMPONENT = '0.9.2342.19200300.100.1.25'

/** The name in these octets, which are all of them; undefined when they are malformed. */
export const decodeDistinguishedName = (bytes: Uint8Array): Name | undefined => {
  const reader = new DerReader(bytes)
  const name = readName(reader)
  reader.end()
  return reader.failed ? undefined : name
}

/** The same octets for all names that match by RFC 5280 §7.1, and a name that matches them too. */
export const canonicalDistinguishedName = (name: Name): Uint8Array =>
  sequence(...name.relativeNames.map(attributes => relativeName(attributes.map(canonicalPair))))

const canonicalPair = ({ type, text, value }: Attribute): Uint8Array =>
  sequence(oid(type), text === undefined ? value : encodeText(type, prepareText(text)))

/** X.690 §11.6: in DER a set is sorted. */
const relativeName = (pairs: Uint8Array[]): Uint8Array => der(Tag.Set, ...pairs.sort(compare))

/** RFC 5280 appendix A: countries and serial numbers are PrintableString, e-mail addresses and domain components IA5String. */
const encodeText = (type: string, text: string): Uint8Array => {
  const isPrintable = /^[A-Za-z0-9 '()+,\-./:=?]*$/.test(text)
  const isAscii = /^[\0-\x7f]*$/.test(text)
  const tag =
    (type === COUNTRY || type === SERIAL_NUMBER) && isPrintable
      ? Tag.PrintableString
      : (type === EMAIL_ADDRESS || type === DOMAIN_COMPONENT) && isAscii
        ? Tag.Ia5String
        : Tag.Utf8String
  return der(tag, utf8(text))
}

// --- from text ---

/**
 * Reads `C=CH, O=Example, CN=host` in the order of the encoding: types by name or as dotted numbers, `,` or `/`
 * between relative names and `+` within one, `\` before a character that stands for itself or before two
 * hexadecimal digits of an octet, `#` and hexadecimal digits for a value in DER (RFC 4514 §2). Undefined when it
 * is no such text.
 */
export const encodeDistinguishedName = (text: string): Uint8Array | undefined => {
  const relativeNames: Uint8Array[] = []
  for (const part of splitUnescaped(text, /[,/]/)) {
    const pairs: Uint8Array[] = []
    for (const pair of splitUnescaped(part, /\+/)) {
      const encoded = encodePair(pair)
      if (encoded === undefined) return undefined
      pairs.push(encoded)
    }
    relativeNames.push(relativeName(pairs))
  }
  const bytes = sequence(...relativeNames)
  return decodeDistinguishedName(bytes) && bytes
}

const splitUnescaped = (text: string, separator: RegExp): readonly string[] => {
  const parts: string[] = []
  let from = 0
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '\\') at++
    else if (separator.test(text[at]!)) {
      parts.push(text.slice(from, at))
      from = at + 1
    }
  }
  return [...parts, text.slice(from)]
}

/** X.660 §7.6: below 0 and 1 there are no more than 40. */
const DOTTED = /^([01]\.[1-3]?\d|2\.(0|[1-9]\d{0,8}))(\.(0|[1-9]\d{0,8})){0,20}$/

const encodePair = (pair: string): Uint8Array | undefined => {
  const at = pair.indexOf('=')
  const name = pair.slice(0, Math.max(at, 0)).trim()
  const type = DOTTED.test(name) ? name : TYPES.get(name.toUpperCase())
  const value = trimUnescaped(pair.slice(at + 1))
  if (type === undefined || value === '') return undefined
  const encoded = value.startsWith('#') ? readHex(value.slice(1)) : encodeValue(type, value)
  return encoded && sequence(oid(type), encoded)
}

/** White space around it that is not escaped. */
const trimUnescaped = (text: string): string => {
  const start = text.trimStart()
  const end = start.trimEnd()
  const slashes = end.length - end.replace(/\\+$/, '').length
  return slashes % 2 === 1 ? start.slice(0, end.length + 1) : end
}

const readHex = (digits: string): Uint8Array | undefined => {
  try {
    return fromHex(digits)
  } catch {
    return undefined
  }
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

const encodeValue = (type: string, value: string): Uint8Array | undefined => {
  const octets = [...value.matchAll(/\\([0-9a-f]{2})|\\?([^])/giu)].map(([, digits, character]) =>
    digits === undefined ? utf8(character!) : fromHex(digits),
  )
  try {
    return encodeText(type, decoder.decode(concat(...octets)))
  } catch {
    return undefined
  }
}

// --- to text ---

/** The whole of a name that `canonicalDistinguishedName` gave; a text from which a matching name is read again. */
export const formatDistinguishedName = (canonical: Uint8Array): string => {
  const whole = `#${toHex(canonical)}`
  const name = decodeDistinguishedName(canonical)
  if (name === undefined || name.relativeNames.length === 0) return whole
  const text = name.relativeNames
    .map(attributes => attributes.map(formatAttribute).join('+'))
    .join(', ')
  const again = encodeDistinguishedName(text)
  const read = again && decodeDistinguishedName(again)
  // A type of attribute can have numbers that no text is read to.
  return read !== undefined && sameName(read, name) ? text : whole
}

const formatAttribute = ({ type, text, value }: Attribute): string =>
  `${ATTRIBUTE_NAMES.get(type) ?? type}=${text === undefined || text === '' ? `#${toHex(value)}` : escapeValue(text)}`

/** Whatever separates, escapes, or cannot be seen is escaped (RFC 4514 §2.4). */
const escapeValue = (text: string): string =>
  text
    .replace(/[,+"\\/;<>=]|^[#\s]|\s$/g, character => `\\${character}`)
    .replace(/[^ -~\p{L}\p{M}\p{N}]|\p{Default_Ignorable_Code_Point}/gu, character =>
      [...utf8(character)].map(octet => `\\${toHex(Uint8Array.of(octet))}`).join(''),
    )
