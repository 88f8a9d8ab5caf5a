/**
 * Whether a certificate is the one of an IKE identity (RFC 4945 §3.1): exactly, with no fall-back to the common
 * name of the subject, and without wildcards unless a program asks for them.
 */
import { formatAddress } from '../base/address.ts'
import { equal } from '../base/bytes.ts'
import { nameForError } from '../base/errors.ts'
import { IdType } from '../wire/registry.ts'
import type { Certificate } from './certificate.ts'
import { lowerCase, lowerCaseDomain } from './fold.ts'
import { GeneralNameType, type GeneralName } from './general-name.ts'
import { addressIdentity, identityProblem, type Identity } from './identity.ts'
import { isEmptyName } from './name.ts'

/** Of a certificate that has its name in the subject alone. */
export const CN_IS_NO_NAME = 'a CN is not compared: the name must be a subjectAltName'

/** A key ID, and what is of no known type, belongs to no certificate. */
export const hasIdentity = (
  { subject, extensions: { subjectAltNames } }: Certificate,
  identity: Identity,
  allowsWildcards = false,
): boolean => {
  const { type, data } = identity
  if (identityProblem(identity) !== undefined) return false
  const has = (kind: number, test: (name: GeneralName) => boolean): boolean =>
    subjectAltNames.some(name => name.type === kind && test(name))
  switch (type) {
    case IdType.Ipv4:
    case IdType.Ipv6:
      return has(GeneralNameType.Ip, ({ value }) => equal(value, data))
    case IdType.Fqdn: {
      // Folded as octets: letters outside ASCII, some of which fold into it, are in no subjectAltName.
      const wanted = decoder.decode(lowerCase(data))
      return has(GeneralNameType.Dns, ({ text }) => {
        const name = text.toLowerCase()
        return name === wanted || (allowsWildcards && matchesWildcard(name, wanted))
      })
    }
    case IdType.Rfc822:
      // DEVIATION RFC 4945 §3.1.3: there case does not matter in the local part; RFC 5280 §7.5 says that it does, and
      // one certificate would be as many identities as there are ways to write it.
      return (
        isMailbox(data) &&
        has(GeneralNameType.Email, ({ value }) =>
          equal(lowerCaseDomain(value), lowerCaseDomain(data)),
        )
      )
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

/** The alternative names, for people: escaped and bounded. */
export const listNames = ({ extensions: { subjectAltNames } }: Certificate): string =>
  subjectAltNames
    .slice(0, 10)
    .flatMap(({ type, text, value }) =>
      type === GeneralNameType.Ip
        ? [formatAddress(value)]
        : text === ''
          ? []
          : [nameForError(text)],
    )
    .join(', ') || `its subject (${CN_IS_NO_NAME})`

/** RFC 5280 §4.2.1.6: `Mailbox`, here without the quoted local parts in which another '@' could stand. */
const isMailbox = (data: Uint8Array): boolean => {
  const at = data.indexOf(AT)
  return at > 0 && at < data.length - 1 && data.lastIndexOf(AT) === at
}

const AT = '@'.charCodeAt(0)
const decoder = new TextDecoder()

/**
 * RFC 6125 §6.4.3: the star is the whole first label, and stands for one label. It has two labels behind it at
 * least, so that nobody is certified for a whole top-level domain.
 */
const matchesWildcard = (pattern: string, name: string): boolean => {
  const rest = pattern.slice(1)
  const dot = name.indexOf('.')
  return (
    pattern.startsWith('*.') &&
    !rest.includes('*') &&
    rest.indexOf('.', 1) > 1 &&
    dot > 0 &&
    name.slice(dot) === rest
  )
}
