/** GeneralName (RFC 5280 §4.2.1.6): the names of subjectAltName, name constraints and distribution points. */
import { contextTag, DerReader } from '../base/der.ts'
import { der } from '../base/der-writer.ts'
import { canonicalDistinguishedName } from './distinguished-name.ts'
import { lowerCase, lowerCaseDomain } from './fold.ts'
import { readName, type Name } from './name.ts'

export const GeneralNameType = {
  Other: 0,
  Email: 1,
  Dns: 2,
  X400: 3,
  Directory: 4,
  EdiParty: 5,
  Uri: 6,
  Ip: 7,
  RegisteredId: 8,
} as const

export interface GeneralName {
  readonly type: number
  /** The DER of the whole choice. */
  readonly bytes: Uint8Array
  /** What is inside: the octets of an address, for example. */
  readonly value: Uint8Array
  /** Of an e-mail address, DNS name or URI. */
  readonly text: string
  /** Of a directory name. */
  readonly name: Name | undefined
}

const CONSTRUCTED: ReadonlySet<number> = new Set([
  GeneralNameType.Other,
  GeneralNameType.X400,
  GeneralNameType.Directory,
  GeneralNameType.EdiParty,
])
const TEXTS: ReadonlySet<number> = new Set([
  GeneralNameType.Email,
  GeneralNameType.Dns,
  GeneralNameType.Uri,
])

/** An address alone; a constraint has a mask behind it. */
const ADDRESS_LENGTHS: readonly number[] = [4, 16]
export const RANGE_LENGTHS: readonly number[] = [8, 32]

export const readGeneralName = (
  reader: DerReader,
  addressLengths: readonly number[] = ADDRESS_LENGTHS,
): GeneralName => {
  const type = reader.nextTag & 0x1f
  const isKnown = reader.nextTag === contextTag(type, CONSTRUCTED.has(type)) && type <= 8
  if (!isKnown) reader.fail('a general name is of no known kind')
  const { bytes, content } = reader.any()
  let name: Name | undefined
  let text = ''
  if (type === GeneralNameType.Directory) {
    // The choice inside makes the tag explicit.
    const inner = reader.inside(content)
    name = readName(inner)
    inner.end()
  } else if (TEXTS.has(type)) {
    if (content.some(octet => octet > 0x7f)) reader.fail('a general name is not in ASCII')
    for (const octet of content) text += String.fromCharCode(octet)
  } else if (type === GeneralNameType.Ip && !addressLengths.includes(content.length)) {
    reader.fail('an address has another length than it must')
  }
  return { type, bytes, value: content, text, name }
}

/** GeneralNames ::= SEQUENCE SIZE (1..MAX) OF GeneralName, within a reader of what the sequence holds. */
export const readGeneralNames = (reader: DerReader): readonly GeneralName[] => {
  const names: GeneralName[] = []
  do names.push(readGeneralName(reader))
  while (reader.more)
  return names
}

/** The same octets for all general names that match (RFC 5280 §7); undefined when these are none. */
export const canonicalGeneralName = (octets: Uint8Array): Uint8Array | undefined => {
  const reader = new DerReader(octets)
  const { type, bytes, value, name } = readGeneralName(reader)
  reader.end()
  if (reader.failed) return undefined
  const tag = bytes[0]!
  switch (type) {
    case GeneralNameType.Dns:
      return der(tag, lowerCase(value))
    case GeneralNameType.Email:
      return der(tag, lowerCaseDomain(value))
    case GeneralNameType.Directory:
      return der(tag, canonicalDistinguishedName(name!))
    default:
      return bytes
  }
}
