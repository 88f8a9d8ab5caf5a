/**
 * Whether a certificate is the one of an IKE identity (RFC 4945 §3.1): exactly, with no fall-back to the common
 * name of the subject, and without wildcards unless a program asks for them.
 */
import { equal } from '../base/bytes.ts'
import { IdType } from '../wire/registry.ts'
import type { Certificate } from './certificate.ts'
import { GeneralNameType, type GeneralName } from './general-name.ts'
import { addressIdentity, identityText, type Identity } from './identity.ts'
import { isEmptyName } from './name.ts'

/** A key ID, and what is of no known type, belongs to no certificate. */
export const hasIdentity = (
  { subject, extensions: { subjectAltNames } }: Certificate,
  identity: Identity,
  allowsWildcards = false,
): boolean => {
  const { type, data } = identity
  const has = (kind: number, test: (name: GeneralName) => boolean): boolean =>
    subjectAltNames.some(name => name.type === kind && test(name))
  switch (type) {
    case IdType.Ipv4:
    case IdType.Ipv6:
      return has(GeneralNameType.Ip, ({ value }) => equal(value, data))
    case IdType.Fqdn: {
      const wanted = asciiText(identity)
      return (
        wanted !== undefined &&
        has(
          GeneralNameType.Dns,
          ({ text }) =>
            text.toLowerCase() === wanted || (allowsWildcards && matchesWildcard(text, wanted)),
        )
      )
    }
    case IdType.Rfc822: {
      const wanted = asciiText(identity)
      return (
        wanted !== undefined &&
        has(GeneralNameType.Email, ({ text }) => text.toLowerCase() === wanted)
      )
    }
    case IdType.DerDn:
      // §3.1.5: of the entire subject, bitwise.
      return subject.parts.length > 0 && equal(subject.bytes, data)
    case IdType.DerGn:
      return subjectAltNames.some(({ bytes }) => equal(bytes, data))
    default:
      return false
  }
}

/** The identity that its owner has without saying one: the first of subjectAltName, else the subject. */
export const firstIdentity = ({ subject, extensions }: Certificate): Identity | undefined => {
  for (const { type, value } of extensions.subjectAltNames) {
    if (type === GeneralNameType.Dns) return { type: IdType.Fqdn, data: value }
    if (type === GeneralNameType.Email) return { type: IdType.Rfc822, data: value }
    if (type === GeneralNameType.Ip) return addressIdentity(value)
  }
  return isEmptyName(subject) ? undefined : { type: IdType.DerDn, data: subject.bytes }
}

/** In lower case. What is empty or not in ASCII is in no subjectAltName, however it is decoded. */
const asciiText = (identity: Identity): string | undefined =>
  identity.data.length > 0 && identity.data.every(octet => octet > 0x20 && octet < 0x7f)
    ? identityText(identity).toLowerCase()
    : undefined

/**
 * RFC 6125 §6.4.3: the star is the whole first label, and stands for one label. It has two labels behind it at
 * least, so that nobody is certified for a whole top-level domain.
 */
const matchesWildcard = (pattern: string, name: string): boolean => {
  const rest = pattern.slice(1).toLowerCase()
  const dot = name.indexOf('.')
  return (
    pattern.startsWith('*.') &&
    !rest.includes('*') &&
    rest.indexOf('.', 1) > 1 &&
    dot > 0 &&
    name.slice(dot) === rest
  )
}
