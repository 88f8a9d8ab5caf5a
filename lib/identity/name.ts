/** X.501 names: reading, comparing as RFC 5280 §7.1 says, and printing for people. */
import { compare, toHex } from '../base/bytes.ts'
import { Tag, type DerElement, type DerReader } from '../base/der.ts'
import { printable } from '../base/errors.ts'

export interface Attribute {
  /** Dotted. */
  readonly type: string
  /** Undefined when the value is no string. */
  readonly text: string | undefined
  /** The value in DER. */
  readonly value: Uint8Array
}

export interface Name {
  /** The DER of the whole name. */
  readonly bytes: Uint8Array
  readonly attributes: readonly Attribute[]
  /** The same attributes, one list per relative distinguished name. */
  readonly relativeNames: readonly (readonly Attribute[])[]
  /** One text per relative distinguished name, the same for those that match. */
  readonly parts: readonly string[]
  /** Of all parts: two names match when their keys are the same. */
  readonly key: string
}

/** More than any name that means something; keeps the cost of comparing them down. */
const ATTRIBUTE_LIMIT = 64

/** Name ::= SEQUENCE OF RelativeDistinguishedName. */
export const readName = (reader: DerReader): Name => {
  const { bytes, content } = reader.expect(Tag.Sequence)
  const names = reader.inside(content)
  const attributes: Attribute[] = []
  const relativeNames: Attribute[][] = []
  const parts: string[] = []
  while (names.more) {
    const relativeName: Attribute[] = []
    parts.push(readRelativeName(names.enter(Tag.Set), relativeName))
    relativeNames.push(relativeName)
    attributes.push(...relativeName)
    if (attributes.length > ATTRIBUTE_LIMIT) reader.fail('a name has too many parts')
  }
  return { bytes, attributes, relativeNames, parts, key: parts.join('\n') }
}

/** What a RelativeDistinguishedName holds, at least one attribute; gives the part of a name that it makes. */
export const readRelativeName = (set: DerReader, attributes: Attribute[] = []): string => {
  const keys: string[] = []
  let before: Uint8Array | undefined
  do {
    const pair = set.expect(Tag.Sequence)
    // In DER a set is sorted (X.690 §11.6).
    if (before !== undefined && compare(before, pair.bytes) > 0)
      set.fail('the parts of a name are not sorted')
    before = pair.bytes
    const inner = set.inside(pair.content)
    const type = inner.oid()
    const value = inner.any()
    inner.end()
    const text = readText(set, value)
    attributes.push({ type, text, value: value.bytes })
    keys.push(
      text === undefined
        ? JSON.stringify([type, toHex(value.bytes)])
        : JSON.stringify([type, 'text', prepareText(text)]),
    )
  } while (set.more)
  return keys.sort().join()
}

export const sameName = (a: Name, b: Name): boolean => a.key === b.key

export const isEmptyName = ({ parts }: Name): boolean => parts.length === 0

/** Whether `name` lies in the subtree below `base` (RFC 5280 §4.2.1.10). */
export const isWithinName = (base: Name, name: Name): boolean =>
  base.parts.length <= name.parts.length && base.parts.every((part, i) => part === name.parts[i])

// --- text ---

const utf8Decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The text of a value of any string type; undefined for what is no string, and a fault for what is none of its type. */
const readText = (reader: DerReader, { tag, content }: DerElement): string | undefined => {
  const text = STRINGS[tag]?.(content)
  if (text === undefined && tag in STRINGS) reader.fail('a text has characters its type does not')
  return text
}

const octets =
  (lowest: number, highest: number) =>
  (content: Uint8Array): string | undefined => {
    let text = ''
    for (const octet of content) {
      if (octet < lowest || octet > highest) return undefined
      text += String.fromCharCode(octet)
    }
    return text
  }

/** Characters of 2 or 4 octets in network order. */
const wide =
  (width: number) =>
  (content: Uint8Array): string | undefined => {
    if (content.length % width !== 0) return undefined
    let text = ''
    for (let at = 0; at < content.length; at += width) {
      let code = 0
      for (let i = 0; i < width; i++) code = code * 256 + content[at + i]!
      if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return undefined
      text += String.fromCodePoint(code)
    }
    return text
  }

const STRINGS: Readonly<Record<number, (content: Uint8Array) => string | undefined>> = {
  [Tag.Utf8String]: content => {
    try {
      return utf8Decoder.decode(content)
    } catch {
      return undefined
    }
  },
  [Tag.PrintableString]: octets(0x20, 0x7e),
  [Tag.NumericString]: octets(0x20, 0x39),
  [Tag.VisibleString]: octets(0x20, 0x7e),
  [Tag.Ia5String]: octets(0, 0x7f),
  [Tag.TeletexString]: octets(0, 0xff),
  [Tag.BmpString]: wide(2),
  [Tag.UniversalString]: wide(4),
}

/** RFC 4518 §2.2: characters that nobody sees count for nothing. */
const INVISIBLE =
  /[\u00ad\u034f\u1806\u180b-\u180d\ufe00-\ufe0f\ufffc]|(?![\t-\r\u0085])[\p{Cc}\p{Cf}]/gu
const WHITE_SPACE = /[\s\u0085\p{Z}]+/gu

/**
 * RFC 5280 §7.1: without regard to case and to the amount of white space (RFC 4518 §2). All string types
 * compare alike: a subject that could make names differ by their type alone could escape an excluded subtree.
 */
export const prepareText = (text: string): string => {
  if (/^[!-~]*$/.test(text)) return text.toLowerCase()
  const mapped = text.replace(INVISIBLE, '').replace(WHITE_SPACE, ' ')
  // Twice: only then does preparing a prepared text change nothing.
  return fold(fold(mapped)).replace(WHITE_SPACE, ' ').trim()
}

/** To upper case and back: `ß` and `SS` are the same, as are the two forms of sigma (RFC 3454 §B.2). */
const fold = (text: string): string =>
  text.normalize('NFKC').toUpperCase().toLowerCase().normalize('NFKC')

// --- printing ---

/** Names of attribute types: those of RFC 4514 §3, and others that are common. */
export const ATTRIBUTE_NAMES: ReadonlyMap<string, string> = new Map([
  ['2.5.4.3', 'CN'],
  ['2.5.4.4', 'SN'],
  ['2.5.4.5', 'serialNumber'],
  ['2.5.4.6', 'C'],
  ['2.5.4.7', 'L'],
  ['2.5.4.8', 'ST'],
  ['2.5.4.9', 'STREET'],
  ['2.5.4.10', 'O'],
  ['2.5.4.11', 'OU'],
  ['0.9.2342.19200300.100.1.1', 'UID'],
  ['0.9.2342.19200300.100.1.25', 'DC'],
  ['1.2.840.113549.1.9.1', 'E'],
])

/** For logs and errors: escaped, quoted and bounded, since anybody can make a certificate. */
export const formatName = ({ attributes }: Name): string =>
  attributes.length === 0
    ? 'without a name'
    : printable(
        attributes
          .map(({ type, text }) => `${ATTRIBUTE_NAMES.get(type) ?? type}=${text ?? '#'}`)
          .join(', '),
      )
