/**
 * Name constraints (RFC 5280 §4.2.1.10). A name that cannot be understood, or a kind of name that we cannot
 * compare, is not let through where constraints of its kind exist.
 */
import { concat, EMPTY, equal } from '../base/bytes.ts'
import { oid } from '../base/der-writer.ts'
import type { Budget } from './budget.ts'
import type { Certificate } from './certificate.ts'
import type { NameConstraints } from './extensions.ts'
import { GeneralNameType, type GeneralName } from './general-name.ts'
import { isEmptyName, isWithinName, type Name } from './name.ts'

/** A name of a certificate, in the form in which it is compared. */
interface Subject {
  readonly type: number
  /** Of a DNS name, of an e-mail address and of a URI, in lower case. */
  readonly host: string
  /** The DNS name was `*.` and this host. */
  readonly isWildcard: boolean
  /** Of an e-mail address: what stands in front of the @, without quotes. */
  readonly local: string
  readonly address: Uint8Array
  readonly name: Name | undefined
}

type Test = (subject: Subject, isExcluded: boolean) => boolean

/** All constraints on names of one type. */
interface Limits {
  /** A name must be within one of each list: those of several certificates intersect. */
  readonly permitted: Test[][]
  readonly excluded: Test[]
  count: number
  /** One of them cannot be applied, so no name of this type gets through. */
  isUnusable: boolean
}

export class NameConstraintChecker {
  readonly #limits = new Map<number, Limits>()

  /** To be called for each certificate on the way, after its own names were checked. */
  add({ permitted, excluded }: NameConstraints): void {
    const lists = new Map<number, Test[]>()
    for (const base of permitted) {
      const list = lists.get(base.type) ?? []
      lists.set(base.type, list)
      this.#addTo(list, base)
    }
    for (const [type, list] of lists) this.#limitsOf(type).permitted.push(list)
    for (const base of excluded) this.#addTo(this.#limitsOf(base.type).excluded, base)
  }

  #addTo(list: Test[], base: GeneralName): void {
    const limits = this.#limitsOf(base.type)
    const test = CONSTRAINTS[base.type]?.(base)
    limits.count++
    if (test === undefined) limits.isUnusable = true
    else list.push(test)
  }

  #limitsOf(type: number): Limits {
    const limits = this.#limits.get(type) ?? {
      permitted: [],
      excluded: [],
      count: 0,
      isUnusable: false,
    }
    this.#limits.set(type, limits)
    return limits
  }

  /** What is wrong with the names of a certificate; undefined when nothing is. */
  check(certificate: Certificate, budget: Budget): string | undefined {
    if (this.#limits.size === 0) return undefined
    for (const { type, printed, subject } of namesOf(certificate)) {
      const limits = this.#limits.get(type)
      if (limits === undefined) continue
      if (!budget.takeComparisons(limits.count)) return 'has too many names and constraints'
      if (subject === undefined || limits.isUnusable)
        return `has a name that cannot be compared with a name constraint: ${printed}`
      if (!limits.permitted.every(list => list.some(test => test(subject, false))))
        return `has a name outside the permitted subtrees: ${printed}`
      if (limits.excluded.some(test => test(subject, true)))
        return `has a name inside an excluded subtree: ${printed}`
    }
    return undefined
  }
}

// --- the names of a certificate ---

interface Named {
  readonly type: number
  /** For people; the code that prints the sentence escapes it. */
  readonly printed: string
  /** Undefined: malformed, or of a kind that we cannot compare. */
  readonly subject: Subject | undefined
}

const EMAIL_ADDRESS = '1.2.840.113549.1.9.1'
/** id-on-SmtpUTF8Mailbox (RFC 9598 §3), DER of the identifier with which an otherName begins. */
const SMTP_UTF8_MAILBOX = oid('1.3.6.1.5.5.7.8.9')
const EMPTY_SUBJECT = {
  host: '',
  isWildcard: false,
  local: '',
  address: new Uint8Array(0),
  name: undefined,
}

/**
 * §6.1.3 (b), (c): the subject, all alternative names, and the subject's e-mail addresses, which §4.2.1.10 counts
 * where there are no alternative names: who has some could otherwise carry a forbidden address in the subject.
 */
const namesOf = ({ subject, extensions: { subjectAltNames } }: Certificate): readonly Named[] => {
  const names: Named[] = []
  if (!isEmptyName(subject)) names.push(directory(subject))
  for (const { type, text, value, name } of subjectAltNames) {
    if (type === GeneralNameType.Directory) names.push(directory(name!))
    else
      names.push({ type, printed: text || `kind ${type}`, subject: SUBJECTS[type]?.(text, value) })
    // RFC 9598 §6: constraints on mailboxes bind this kind of otherName too; we cannot compare it.
    if (type === GeneralNameType.Other && startsWith(value, SMTP_UTF8_MAILBOX))
      names.push({ type: GeneralNameType.Email, printed: 'a mailbox in UTF-8', subject: undefined })
  }
  for (const { type, text } of subject.attributes) {
    if (type === EMAIL_ADDRESS)
      names.push({
        type: GeneralNameType.Email,
        printed: text ?? 'no text',
        subject: text === undefined ? undefined : emailSubject(text),
      })
  }
  return names
}

const directory = (name: Name): Named => ({
  type: GeneralNameType.Directory,
  printed: 'its subject',
  subject: { ...EMPTY_SUBJECT, type: GeneralNameType.Directory, name },
})

const dnsSubject = (text: string): Subject | undefined => {
  const isWildcard = text.startsWith('*.')
  const host = readHost(isWildcard ? text.slice(2) : text)
  return host === undefined
    ? undefined
    : { ...EMPTY_SUBJECT, type: GeneralNameType.Dns, host, isWildcard }
}

const startsWith = (octets: Uint8Array, start: Uint8Array): boolean =>
  equal(octets.subarray(0, start.length), start)

const emailSubject = (text: string): Subject | undefined => {
  const mailbox = readMailbox(text)
  return mailbox && { ...EMPTY_SUBJECT, type: GeneralNameType.Email, ...mailbox }
}

/** RFC 5321 §4.1.2: an `Atom` of a `Dot-string`; or a `Quoted-string`, whose quotes mean nothing by themselves. */
const ATOM = /^[\w!#$%&'*+/=?^`{|}~-]+$/
const QUOTED_STRING = /^"(?:[ !#-[\]-~]|\\[ -~])*"$/
const LOCAL_LIMIT = 64

/** Undefined for what is no mailbox: `a@b@host` is none. An address literal is none that can be compared. */
const readMailbox = (text: string): Pick<Subject, 'local' | 'host'> | undefined => {
  const at = text.lastIndexOf('@')
  const written = text.slice(0, at)
  const host = readHost(text.slice(at + 1))
  if (at < 1 || at > LOCAL_LIMIT || host === undefined) return undefined
  if (written.split('.').every(atom => ATOM.test(atom))) return { local: written, host }
  if (!QUOTED_STRING.test(written)) return undefined
  return { local: written.slice(1, -1).replace(/\\(.)/g, '$1'), host }
}

/** RFC 3986 §3.1, §3.2. */
const AUTHORITY = /^[a-z][a-z0-9+.-]*:\/\/(?:[\w.~!$&'()*+,;=:%-]*@)?([\w.-]+)(?::\d*)?(?:[/?#]|$)/i
/** As programs read addresses: the last label is a number, in decimal or in hexadecimal digits. */
const NUMERIC_HOST = /(?:^|\.)(?:\d+|0x[\da-f]*)$/

/** §4.2.1.10: of a URI its host counts, which must be a name. */
const uriSubject = (text: string): Subject | undefined => {
  const host = readHost(AUTHORITY.exec(text)?.[1] ?? '')
  if (host === undefined || NUMERIC_HOST.test(host)) return undefined
  return { ...EMPTY_SUBJECT, type: GeneralNameType.Uri, host }
}

const SUBJECTS: Readonly<Record<number, (text: string, value: Uint8Array) => Subject | undefined>> =
  {
    [GeneralNameType.Dns]: dnsSubject,
    [GeneralNameType.Email]: emailSubject,
    [GeneralNameType.Uri]: uriSubject,
    [GeneralNameType.Ip]: (_text, address) => ({
      ...EMPTY_SUBJECT,
      type: GeneralNameType.Ip,
      address,
    }),
  }

/** A host name in lower case; undefined for what is none (RFC 1034 §3.5, and the underscore). */
const readHost = (text: string): string | undefined => {
  if (text.length === 0 || text.length > 253) return undefined
  let labelStart = 0
  for (let at = 0; at <= text.length; at++) {
    if (at === text.length || text[at] === '.') {
      if (at === labelStart || at - labelStart > 63) return undefined
      labelStart = at + 1
    } else if (!isHostCharacter(text.charCodeAt(at))) return undefined
  }
  return text.toLowerCase()
}

/** a-z, A-Z, 0-9, hyphen, underscore. */
const isHostCharacter = (code: number): boolean =>
  (code >= 0x61 && code <= 0x7a) ||
  (code >= 0x41 && code <= 0x5a) ||
  (code >= 0x30 && code <= 0x39) ||
  code === 0x2d ||
  code === 0x5f

// --- constraints ---

/** Undefined: it cannot be applied. */
type Constraint = Test | undefined

/**
 * A name is below itself, with any number of labels in front. A period in front, which RFC 5280 does not know for DNS
 * names, means the names below alone: so other validators read it, and so the issuers mean it.
 */
const dnsConstraint = ({ text }: GeneralName): Constraint => {
  if (text === '') return () => true
  const isBelowAlone = text.startsWith('.')
  const base = readHost(isBelowAlone ? text.slice(1) : text)
  if (base === undefined) return undefined
  const suffix = `.${base}`
  const parent = base.slice(base.indexOf('.') + 1)
  return ({ host, isWildcard }, isExcluded) => {
    if (host.endsWith(suffix)) return true
    // Every name that a wildcard stands for is below its host.
    if (isBelowAlone) return isWildcard && host === base
    // A wildcard stands for the excluded name too when that is one label below it.
    return host === base || (isExcluded && isWildcard && base.includes('.') && parent === host)
  }
}

/** One mailbox, all of one host, or with a period in front all hosts of a domain. */
const emailConstraint = ({ text }: GeneralName): Constraint => {
  if (!text.includes('@')) return readHostConstraint(text)
  const base = readMailbox(text)
  if (base === undefined) return undefined
  return ({ host, local }, isExcluded) =>
    host === base.host &&
    // §7.5: case may matter in front of the @, so what is excluded is excluded in any.
    (local === base.local || (isExcluded && local.toLowerCase() === base.local.toLowerCase()))
}

/** Exactly this host, or with a period in front all hosts below. */
const readHostConstraint = (text: string): Constraint => {
  const isDomain = text.startsWith('.')
  const base = readHost(isDomain ? text.slice(1) : text)
  if (base === undefined) return undefined
  const suffix = `.${base}`
  return isDomain ? ({ host }) => host.endsWith(suffix) : ({ host }) => host === base
}

/** An address and a mask, which must be that of a prefix (RFC 4632). */
const addressConstraint = ({ value }: GeneralName): Constraint => {
  const length = value.length / 2
  const network = value.subarray(0, length)
  const mask = value.subarray(length)
  if (!isPrefixMask(mask)) return undefined
  const contains = (address: Uint8Array): boolean =>
    address.length === length &&
    mask.every((bits, i) => (address[i]! & bits) === (network[i]! & bits))
  // RFC 4291 §2.5.5.2: the same IPv4 address in another form escapes no exclusion.
  const isMappedRange = length === 16 && isMapped(network) && mask[11] === 0xff
  const otherForm = (address: Uint8Array): Uint8Array =>
    isMapped(address) ? address.subarray(12) : isMappedRange ? concat(MAPPED, address) : EMPTY
  return ({ address }, isExcluded) =>
    contains(address) || (isExcluded && contains(otherForm(address)))
}

/** ::ffff:0:0/96 */
const MAPPED = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff)

const isMapped = (address: Uint8Array): boolean =>
  address.length === 16 && startsWith(address, MAPPED)

const isPrefixMask = (mask: Uint8Array): boolean => {
  let ended = false
  for (const octet of mask) {
    const inverse = ~octet & 0xff
    if ((inverse & (inverse + 1)) !== 0 || (ended && octet !== 0)) return false
    if (octet !== 0xff) ended = true
  }
  return true
}

const directoryConstraint = ({ name: base }: GeneralName): Constraint =>
  base === undefined ? undefined : ({ name }) => name !== undefined && isWithinName(base, name)

const CONSTRAINTS: Readonly<Record<number, (base: GeneralName) => Constraint>> = {
  [GeneralNameType.Dns]: dnsConstraint,
  [GeneralNameType.Email]: emailConstraint,
  [GeneralNameType.Uri]: ({ text }) => readHostConstraint(text),
  [GeneralNameType.Ip]: addressConstraint,
  [GeneralNameType.Directory]: directoryConstraint,
}
