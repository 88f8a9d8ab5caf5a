/** Distinguished names from text (RFC 4514) to DER (RFC 5280 §4.1.2.4), for ID_DER_ASN1_DN. */
import { concat, utf8 } from '../base/bytes.ts'

const SEQUENCE = 0x30
const SET = 0x31
const UTF8_STRING = 0x0c
const PRINTABLE_STRING = 0x13
const IA5_STRING = 0x16
const OBJECT_IDENTIFIER = 0x06

/** Attribute types under 2.5.4, and those with an OID of their own. */
const TYPES: Readonly<Record<string, readonly number[]>> = {
  CN: [0x55, 4, 3],
  SN: [0x55, 4, 4],
  SERIALNUMBER: [0x55, 4, 5],
  C: [0x55, 4, 6],
  L: [0x55, 4, 7],
  ST: [0x55, 4, 8],
  O: [0x55, 4, 10],
  OU: [0x55, 4, 11],
  E: [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1],
  EMAILADDRESS: [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1],
  DC: [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25],
}

const der = (tag: number, content: Uint8Array): Uint8Array => {
  const { length } = content
  const head =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >>> 8, length & 0xff]
  return concat(Uint8Array.of(tag, ...head), content)
}

/** Country codes are PrintableString, e-mail addresses and domain components IA5String. */
const stringTag = (type: string): number =>
  type === 'C' || type === 'SERIALNUMBER'
    ? PRINTABLE_STRING
    : /^(E|EMAILADDRESS|DC)$/.test(type)
      ? IA5_STRING
      : UTF8_STRING

/** Reads `C=CH, O=Example, CN=host`, in the order of the encoding; undefined when it is no such text. */
export const encodeDistinguishedName = (text: string): Uint8Array | undefined => {
  const names: Uint8Array[] = []
  for (const part of text.split(/,|\//)) {
    const at = part.indexOf('=')
    const type = part.slice(0, at).trim().toUpperCase()
    const value = part.slice(at + 1).trim()
    const oid = TYPES[type]
    if (at < 1 || oid === undefined || value === '') return undefined
    const attribute = concat(
      der(OBJECT_IDENTIFIER, Uint8Array.from(oid)),
      der(stringTag(type), utf8(value)),
    )
    names.push(der(SET, der(SEQUENCE, attribute)))
  }
  return names.length === 0 ? undefined : der(SEQUENCE, concat(...names))
}
