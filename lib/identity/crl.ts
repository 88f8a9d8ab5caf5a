/**
 * Certificate revocation lists (RFC 5280 §5, §6.3), complete ones and deltas. Indirect lists are recognized and
 * not used: no list speaks about certificates of another issuer.
 */
import { compare, copy, EMPTY, equal, fromHex, toHex } from '../base/bytes.ts'
import { contextTag, DerReader, Tag } from '../base/der.ts'
import { der } from '../base/der-writer.ts'
import type { Certificate, Malformed } from './certificate.ts'
import { ExtensionId, readPointName, readRawExtensions, type PointName } from './extensions.ts'
import { printTime } from './failure.ts'
import { GeneralNameType } from './general-name.ts'
import { isEmptyName, readName, sameName, type Name } from './name.ts'
import { readSigned, type Signed } from './signed.ts'

export interface Crl {
  readonly signed: Signed
  readonly issuer: Name
  /** Milliseconds since 1970. */
  readonly thisUpdate: number
  readonly nextUpdate: number | undefined
  /** DER of the entries, one after the other: a list is looked into more seldom than it is large. */
  readonly entries: Uint8Array
  readonly scope: Scope
  /** cRLNumber. */
  readonly number: Uint8Array | undefined
  /** Of a delta list: the number of the complete list that it continues. */
  readonly baseNumber: Uint8Array | undefined
  readonly authorityKeyId: string
  /** Why it cannot be used, whatever its signature is. */
  readonly unusable: string | undefined
}

/** What a list is about (§5.2.5). */
interface Scope {
  readonly point: PointName | undefined
  readonly onlyUsers: boolean
  readonly onlyCas: boolean
  /** Undefined: all of them. */
  readonly reasons: ReadonlySet<number> | undefined
  /** Hexadecimal octets of the whole extension: lists of the same scope have the same. */
  readonly octets: string
}

const EVERYTHING: Scope = {
  point: undefined,
  onlyUsers: false,
  onlyCas: false,
  reasons: undefined,
  octets: '',
}

/** Those that only lists and their entries have (§5.2, §5.3). */
const Id = {
  ReasonCode: '2.5.29.21',
  InvalidityDate: '2.5.29.24',
  DeltaCrlIndicator: '2.5.29.27',
  IssuingDistributionPoint: '2.5.29.28',
  CertificateIssuer: '2.5.29.29',
} as const

const SIZE_LIMIT = 64 * 1024 * 1024
const UNSPECIFIED = 0

/** Bits of ReasonFlags (§4.2.1.13); the first one is not used. */
export const ALL_REASONS: ReadonlySet<number> = new Set([1, 2, 3, 4, 5, 6, 7, 8])

/** Takes a copy of `encoded`. */
export const parseCrl = (encoded: Uint8Array): Crl | Malformed => {
  if (encoded.length > SIZE_LIMIT) return { problem: 'it is too large' }
  const outer = new DerReader(copy(encoded), SIZE_LIMIT)
  const whole = outer.enter()
  outer.end()
  const signed = readSigned(whole)
  whole.end()
  const tbs = outer.inside(signed.tbs.bytes).enter()
  // §5.1.2.1: version 2 is written, version 1 is not.
  const isVersion2 = tbs.nextTag === Tag.Integer
  if (isVersion2 && tbs.smallInteger() !== 1) outer.fail('its version is neither 1 nor 2')
  if (!equal(tbs.any().bytes, signed.algorithm) && !outer.failed)
    outer.fail('it names two different signature algorithms')
  const issuer = readName(tbs)
  if (isEmptyName(issuer)) outer.fail('it has no issuer')
  const thisUpdate = tbs.time()
  const nextUpdate =
    tbs.nextTag === Tag.UtcTime || tbs.nextTag === Tag.GeneralizedTime ? tbs.time() : undefined
  const list = new ListReader(isVersion2)
  const entries = tbs.optional(Tag.Sequence)?.content
  if (entries !== undefined) list.readEntries(outer, entries)
  const extensions = tbs.enterOptional(contextTag(0, true))
  if (extensions !== undefined) list.readExtensions(extensions)
  tbs.end()
  if (outer.problem !== undefined) return { problem: outer.problem }
  const { scope, number, baseNumber, authorityKeyId, unusable } = list
  return {
    signed,
    issuer,
    thisUpdate,
    nextUpdate,
    entries: entries ?? EMPTY,
    scope,
    number,
    baseNumber,
    authorityKeyId,
    unusable,
  }
}

class ListReader {
  scope: Scope = EVERYTHING
  number: Uint8Array | undefined
  baseNumber: Uint8Array | undefined
  authorityKeyId = ''
  unusable: string | undefined
  readonly #isVersion2: boolean

  constructor(isVersion2: boolean) {
    this.#isVersion2 = isVersion2
  }

  /** revokedCertificates: left out rather than empty (§5.1.2.6). */
  readEntries(reader: DerReader, entries: Uint8Array): void {
    if (entries.length === 0) reader.fail('its list of revoked certificates is empty')
    let at = 0
    while (at < entries.length && !reader.failed) {
      const plain = plainEntryLength(entries, at, this.#isVersion2)
      if (plain === 0) at += this.#readEntry(reader.inside(entries.subarray(at)))
      else at += plain
    }
  }

  #readEntry(rest: DerReader): number {
    const { bytes, content } = rest.expect(Tag.Sequence)
    const entry = rest.inside(content)
    entry.integer()
    entry.time()
    if (entry.more) {
      if (!this.#isVersion2) entry.fail('its entries have extensions, but not version 2')
      for (const { id, isCritical, value } of readRawExtensions(entry)) {
        const inner = entry.inside(value)
        if (id === Id.ReasonCode) {
          inner.smallInteger(Tag.Enumerated)
          inner.end()
        } else if (id === Id.CertificateIssuer) this.unusable ??= 'it is an indirect one'
        else if (isCritical && id !== Id.InvalidityDate)
          this.unusable ??= `an entry has the unknown critical extension ${id}`
      }
    }
    entry.end()
    return bytes.length
  }

  readExtensions(wrapped: DerReader): void {
    if (!this.#isVersion2) wrapped.fail('it has extensions, but not version 2')
    for (const { id, isCritical, value } of readRawExtensions(wrapped)) {
      const inner = wrapped.inside(value)
      if (id === Id.IssuingDistributionPoint) {
        this.#readScope(inner.enter(), toHex(value))
        inner.end()
      } else if (id === ExtensionId.CrlNumber) {
        this.number = readNumber(inner)
        // §5.2.3
        if (isCritical) this.unusable ??= 'its number is marked critical'
        inner.end()
      } else if (id === Id.DeltaCrlIndicator) {
        this.baseNumber = readNumber(inner)
        inner.end()
      } else if (id === ExtensionId.AuthorityKeyIdentifier) this.authorityKeyId = toHex(value)
      else if (isCritical && id !== ExtensionId.IssuerAltName)
        this.unusable ??= `it has the unknown critical extension ${id}`
    }
    wrapped.end()
  }

  #readScope(point: DerReader, octets: string): void {
    if (!point.more) point.fail('its issuingDistributionPoint is empty')
    const name = point.enterOptional(contextTag(0, true))
    this.scope = {
      point: name === undefined ? undefined : readPointName(name),
      onlyUsers: point.defaultFalse(contextTag(1)),
      onlyCas: point.defaultFalse(contextTag(2)),
      reasons: point.nextTag === contextTag(3) ? point.namedBits(contextTag(3)) : undefined,
      octets,
    }
    const isIndirect = point.defaultFalse(contextTag(4))
    const onlyAttributes = point.defaultFalse(contextTag(5))
    point.end()
    const { onlyUsers, onlyCas } = this.scope
    if (Number(onlyUsers) + Number(onlyCas) + Number(onlyAttributes) > 1)
      point.fail('its issuingDistributionPoint excludes all certificates')
    if (isIndirect) this.unusable ??= 'it is an indirect one'
    if (onlyAttributes) this.unusable ??= 'it is about attribute certificates'
  }
}

/** What follows the time in an entry that has a reason and nothing else, but for the reason itself. */
const REASON_EXTENSION = fromHex('300c300a0603551d1504030a01')

/**
 * The length of an entry that is as nearly all are, and right: a serial number, a UTCTime, and at most a reason. 0
 * for any other one, which the reader of DER must look at. Lists have hundreds of thousands of them.
 */
const plainEntryLength = (b: Uint8Array, at: number, isVersion2: boolean): number => {
  const end = at + 2 + b[at + 1]!
  const serialLength = b[at + 3]!
  const timeAt = at + 4 + serialLength
  const isSerial =
    b[at] === Tag.Sequence &&
    b[at + 1]! < 0x80 &&
    end <= b.length &&
    b[at + 2] === Tag.Integer &&
    serialLength > 0 &&
    // A leading octet of 00 or FF needs a second look.
    (b[at + 4]! + 1) % 256 > 1
  if (!isSerial || b[timeAt] !== Tag.UtcTime || b[timeAt + 1] !== 13) return 0
  const afterTime = timeAt + 15
  if (afterTime > end || b[afterTime - 1] !== 0x5a) return 0
  for (let i = timeAt + 2; i < afterTime - 1; i++) {
    if (b[i]! < 0x30 || b[i]! > 0x39) return 0
  }
  const pair = (index: number): number =>
    b[timeAt + 2 + 2 * index]! * 10 + b[timeAt + 3 + 2 * index]! - 0x30 * 11
  const isDate = pair(1) >= 1 && pair(1) <= 12 && pair(2) >= 1 && pair(2) <= 28
  if (!isDate || pair(3) > 23 || pair(4) > 59 || pair(5) > 59) return 0
  if (afterTime === end) return end - at
  const isReason =
    isVersion2 &&
    end === afterTime + REASON_EXTENSION.length + 1 &&
    b[end - 1]! < 0x80 &&
    REASON_EXTENSION.every((octet, i) => b[afterTime + i] === octet)
  return isReason ? end - at : 0
}

/** CRLNumber ::= INTEGER (0..MAX) */
const readNumber = (reader: DerReader): Uint8Array => {
  const number = reader.integer()
  if ((number[0] ?? 0) >= 0x80) reader.fail('its number is negative')
  return number
}

/**
 * For which reasons of revocation the list speaks about the certificate (§6.3.3 b, d); none: it does not.
 * RFC 4945 §5.1.3.13: the two distribution points must match, or somebody could substitute another list.
 */
export const reasonsCovered = (crl: Crl, certificate: Certificate): ReadonlySet<number> => {
  const { scope, issuer } = crl
  const { extensions, issuer: certificateIssuer } = certificate
  const covered = new Set<number>()
  if (crl.unusable !== undefined || !sameName(issuer, certificateIssuer)) return covered
  if (extensions.isCa ? scope.onlyUsers : scope.onlyCas) return covered
  // A certificate of version 1 does not say whether it is a CA's.
  if (scope.onlyUsers && certificate.version === 1) return covered
  const listed = scope.point === undefined ? undefined : pointKeys(scope.point, issuer)
  for (const { point, reasons, hasOtherIssuer } of extensions.crlDistributionPoints ?? ISSUER) {
    if (hasOtherIssuer) continue
    const keys = pointKeys(point, certificateIssuer)
    if (listed !== undefined && !keys.some(key => listed.includes(key))) continue
    for (const reason of ALL_REASONS) {
      if ((reasons ?? ALL_REASONS).has(reason) && (scope.reasons ?? ALL_REASONS).has(reason))
        covered.add(reason)
    }
  }
  return covered
}

/** A certificate that names no distribution point: the list is found under its issuer's name. */
const ISSUER = [{ point: undefined, reasons: undefined, hasOtherIssuer: false }] as const

/** Texts that are the same where names of distribution points are. */
const pointKeys = (point: PointName | undefined, issuer: Name): readonly string[] => {
  if (point === undefined) return [`name ${issuer.key}`]
  if (point.relative !== undefined) return [`name ${[...issuer.parts, point.relative].join('\n')}`]
  return point.names.map(({ type, name, bytes }) =>
    type === GeneralNameType.Directory ? `name ${name!.key}` : toHex(bytes),
  )
}

/** Why the list says nothing at this time; undefined when it does. Without nextUpdate its age decides. */
export const staleness = (
  { thisUpdate, nextUpdate }: Pick<Crl, 'thisUpdate' | 'nextUpdate'>,
  time: number,
  maximumAge: number | undefined,
): string | undefined => {
  const clock = `our clock says ${printTime(time)}`
  // Written so that a time that is no number is never good.
  if (!(thisUpdate <= time)) return `it is from the future (${printTime(thisUpdate)}; ${clock})`
  if (nextUpdate !== undefined && nextUpdate < time)
    return `it has expired (${printTime(nextUpdate)}; ${clock})`
  if (maximumAge === undefined && nextUpdate === undefined) return 'it does not say until when'
  return maximumAge !== undefined && thisUpdate < time - maximumAge
    ? `it is too old (${printTime(thisUpdate)}; ${clock})`
    : undefined
}

/** Everything that the list has, in its order. */
export const revokedIn = ({
  entries,
}: Crl): readonly { readonly serial: Uint8Array; readonly at: number }[] => {
  const reader = new DerReader(entries, SIZE_LIMIT)
  const revoked: { serial: Uint8Array; at: number }[] = []
  while (reader.more && !reader.failed) {
    const entry = reader.enter()
    revoked.push({ serial: entry.integer(), at: entry.time() })
  }
  return revoked
}

/** The reason of revocation, undefined when the list does not have the certificate. */
export const revocationReason = (
  { entries }: Crl,
  { serial }: Pick<Certificate, 'serial'>,
): number | undefined => {
  const wanted = der(Tag.Integer, serial)
  let at = 0
  // Every length was checked when the list was read.
  while (at < entries.length) {
    const octets = entries[at + 1]! < 0x80 ? 0 : entries[at + 1]! & 0x7f
    let length = octets === 0 ? entries[at + 1]! : 0
    for (let i = 0; i < octets; i++) length = length * 256 + entries[at + 2 + i]!
    const from = at + 2 + octets
    at = from + length
    if (isAt(entries, from, wanted)) return readReason(entries.subarray(from, at))
  }
  return undefined
}

const isAt = (octets: Uint8Array, at: number, wanted: Uint8Array): boolean => {
  for (let i = 0; i < wanted.length; i++) {
    if (octets[at + i] !== wanted[i]) return false
  }
  return true
}

const readReason = (content: Uint8Array): number => {
  const entry = new DerReader(content)
  entry.integer()
  entry.time()
  if (!entry.more) return UNSPECIFIED
  const reason = readRawExtensions(entry).find(({ id }) => id === Id.ReasonCode)
  return reason === undefined
    ? UNSPECIFIED
    : new DerReader(reason.value).smallInteger(Tag.Enumerated)
}

/** In a delta list: what the complete list says of the certificate holds no longer (§5.3.1). */
export const REMOVE_FROM_CRL = 8

/** §5.2.4, §6.3.3 (c): whether the delta continues the complete list. */
export const continues = (delta: Crl, complete: Crl): boolean =>
  delta.baseNumber !== undefined &&
  delta.number !== undefined &&
  complete.number !== undefined &&
  sameName(delta.issuer, complete.issuer) &&
  delta.scope.octets === complete.scope.octets &&
  delta.authorityKeyId === complete.authorityKeyId &&
  compareNumbers(complete.number, delta.baseNumber) >= 0 &&
  compareNumbers(complete.number, delta.number) < 0

/** Contents of two INTEGERs that are not negative. */
const compareNumbers = (a: Uint8Array, b: Uint8Array): number =>
  a.length === b.length ? compare(a, b) : a.length - b.length
