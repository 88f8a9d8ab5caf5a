/** Distinguished names from text (RFC 4514) to DER (RFC 5280 §4.1.2.4), for ID_DER_ASN1_DN. */
import { utf8 } from '../base/bytes.ts'
import { der, oid, sequence } from '../base/der-writer.ts'
import { Tag } from '../base/der.ts'

/** Attribute types under their names of RFC 4514 §3, and those that are common beside them. */
const TYPES: Readonly<Record<string, string>> = {
  CN: '2.5.4.3',
  SN: '2.5.4.4',
  SERIALNUMBER: '2.5.4.5',
  C: '2.5.4.6',
  L: '2.5.4.7',
  ST: '2.5.4.8',
  O: '2.5.4.10',
  OU: '2.5.4.11',
  E: '1.2.840.113549.1.9.1',
  EMAILADDRESS: '1.2.840.113549.1.9.1',
  DC: '0.9.2342.19200300.100.1.25',
}

/** Country codes are PrintableString, e-mail addresses and domain components IA5String. */
const stringTag = (type: string): number =>
  type === 'C' || type === 'SERIALNUMBER'
    ? Tag.PrintableString
    : /^(E|EMAILADDRESS|DC)$/.test(type)
      ? Tag.Ia5String
      : Tag.Utf8String

/** Reads `C=CH, O=Example, CN=host`, in the order of the encoding; undefined when it is no such text. */
export const encodeDistinguishedName = (text: string): Uint8Array | undefined => {
  const names: Uint8Array[] = []
  for (const part of text.split(/,|\//)) {
    const at = part.indexOf('=')
    const type = part.slice(0, at).trim().toUpperCase()
    const value = part.slice(at + 1).trim()
    const attributeType = Object.hasOwn(TYPES, type) ? TYPES[type] : undefined
    if (at < 1 || attributeType === undefined || value === '') return undefined
    names.push(der(Tag.Set, sequence(oid(attributeType), der(stringTag(type), utf8(value)))))
  }
  return names.length === 0 ? undefined : sequence(...names)
}
