/** Makes certificates, lists and OCSP responses, right ones and wrong ones, with our own DER writer and node's keys. */
import { createHash, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { concat, EMPTY, fromHex, utf8 } from '../../lib/base/bytes.ts'
import { contextTag, Tag } from '../../lib/base/der.ts'
import { bitString, der, integer, octetString, oid, sequence } from '../../lib/base/der-writer.ts'
import { isMalformed, parseCertificate, type Certificate } from '../../lib/identity/certificate.ts'
import { encodeDistinguishedName } from '../../lib/identity/distinguished-name.ts'

export interface Key {
  readonly spki: Uint8Array
  readonly algorithm: Uint8Array
  sign(octets: Uint8Array): Uint8Array
}

const keyOf = (
  pair: { privateKey: KeyObject; publicKey: KeyObject },
  algorithm: Uint8Array,
  hash: string | null,
): Key => ({
  spki: new Uint8Array(pair.publicKey.export({ format: 'der', type: 'spki' })),
  algorithm,
  sign: octets => new Uint8Array(sign(hash, octets, pair.privateKey)),
})

export const ed25519Key = (): Key =>
  keyOf(generateKeyPairSync('ed25519'), sequence(oid('1.3.101.112')), null)

export const p521Key = (): Key =>
  keyOf(
    generateKeyPairSync('ec', { namedCurve: 'P-521' }),
    sequence(oid('1.2.840.10045.4.3.4')),
    'sha512',
  )

export const rsaKey = (bits: number, hash = 'sha256'): Key =>
  keyOf(
    generateKeyPairSync('rsa', { modulusLength: bits }),
    sequence(
      oid(hash === 'sha1' ? '1.2.840.113549.1.1.5' : '1.2.840.113549.1.1.11'),
      fromHex('0500'),
    ),
    hash,
  )

export const NOW = Date.UTC(2026, 5, 1)
const DAY = 24 * 3600 * 1000

const pad = (value: number, digits: number): string => String(value).padStart(digits, '0')

/** `2026-06-01T00:00:00Z` as YYYYMMDDHHMMSSZ. */
const digitsOf = (time: number): string => {
  const at = new Date(time)
  return [
    pad(at.getUTCFullYear(), 4),
    pad(at.getUTCMonth() + 1, 2),
    pad(at.getUTCDate(), 2),
    pad(at.getUTCHours(), 2),
    pad(at.getUTCMinutes(), 2),
    pad(at.getUTCSeconds(), 2),
    'Z',
  ].join('')
}

export const generalizedTime = (time: number): Uint8Array =>
  der(Tag.GeneralizedTime, utf8(digitsOf(time)))
export const utcTime = (time: number): Uint8Array => der(Tag.UtcTime, utf8(digitsOf(time).slice(2)))

export const dn = (text: string): Uint8Array =>
  text === '' ? sequence() : encodeDistinguishedName(text)!

// --- extensions ---

export const TRUE = fromHex('0101ff')

export const extension = (id: string, value: Uint8Array, isCritical = false): Uint8Array =>
  sequence(oid(id), isCritical ? TRUE : EMPTY, octetString(value))

export const number = (value: number): Uint8Array =>
  integer(fromHex(value.toString(16).padStart(8, '0')))

export const basicConstraints = (isCa: boolean, pathLength?: number): Uint8Array =>
  extension(
    '2.5.29.19',
    sequence(isCa ? TRUE : EMPTY, pathLength === undefined ? EMPTY : number(pathLength)),
    true,
  )

/** Of named bits, without zeros behind. */
export const namedBits = (bits: readonly number[], tag: number = Tag.BitString): Uint8Array => {
  const last = Math.max(...bits)
  const octets = new Uint8Array((last >> 3) + 1)
  for (const bit of bits) octets[bit >> 3]! |= 0x80 >> (bit & 7)
  return der(tag, Uint8Array.of(7 - (last & 7)), octets)
}

export const keyUsage = (...bits: readonly number[]): Uint8Array =>
  extension('2.5.29.15', namedBits(bits), true)

export const extendedKeyUsage = (...ids: readonly string[]): Uint8Array =>
  extension('2.5.29.37', sequence(...ids.map(oid)))

/** `dns:name`, `email:a@b`, `uri:…`, `ip:hex`, `dn:CN=x`, `mailbox:a@b` (RFC 9598), `other:` and `rid:1.2.3`. */
export const generalName = (text: string): Uint8Array => {
  const colon = text.indexOf(':')
  const value = text.slice(colon + 1)
  switch (text.slice(0, colon)) {
    case 'email':
      return der(contextTag(1), utf8(value))
    case 'dns':
      return der(contextTag(2), utf8(value))
    case 'dn':
      return der(contextTag(4, true), dn(value))
    case 'uri':
      return der(contextTag(6), utf8(value))
    case 'ip':
      return der(contextTag(7), fromHex(value))
    case 'mailbox':
      return der(
        contextTag(0, true),
        oid('1.3.6.1.5.5.7.8.9'),
        der(contextTag(0, true), der(Tag.Utf8String, utf8(value))),
      )
    case 'rid':
      return der(contextTag(8), oid(value).subarray(2))
    default:
      return der(contextTag(0, true), oid('1.2.3.4'), der(contextTag(0, true), der(Tag.Null)))
  }
}

export const subjectAltName = (names: readonly string[], isCritical = false): Uint8Array =>
  extension('2.5.29.17', sequence(...names.map(generalName)), isCritical)

export const nameConstraints = (facts: {
  permitted?: readonly string[]
  excluded?: readonly string[]
}): Uint8Array => {
  const subtrees = (tag: number, names: readonly string[] | undefined): Uint8Array =>
    names === undefined
      ? EMPTY
      : der(contextTag(tag, true), ...names.map(name => sequence(generalName(name))))
  return extension(
    '2.5.29.30',
    sequence(subtrees(0, facts.permitted), subtrees(1, facts.excluded)),
    true,
  )
}

export const policies = (...ids: readonly string[]): Uint8Array =>
  extension('2.5.29.32', sequence(...ids.map(id => sequence(oid(id)))))

export const policyMappings = (...pairs: readonly (readonly [string, string])[]): Uint8Array =>
  extension('2.5.29.33', sequence(...pairs.map(([a, b]) => sequence(oid(a), oid(b)))), true)

export const requireExplicitPolicy = (skip: number): Uint8Array =>
  extension('2.5.29.36', sequence(der(contextTag(0), number(skip).subarray(2))), true)

export const inhibitAnyPolicy = (skip: number): Uint8Array =>
  extension('2.5.29.54', number(skip), true)

/** Of full names; with `by` the list of somebody else. */
export const crlDistributionPoint = (names: readonly string[], by?: string): Uint8Array =>
  extension(
    '2.5.29.31',
    sequence(
      sequence(
        der(contextTag(0, true), der(contextTag(0, true), ...names.map(generalName))),
        by === undefined ? EMPTY : der(contextTag(2, true), generalName(by)),
      ),
    ),
  )

/** authorityInfoAccess: where an OCSP responder is. */
export const ocspLocation = (url: string): Uint8Array =>
  extension(
    '1.3.6.1.5.5.7.1.1',
    sequence(sequence(oid('1.3.6.1.5.5.7.48.1'), generalName(`uri:${url}`))),
  )

// --- certificates ---

export interface CertificateFacts {
  subject?: string
  issuer?: string
  key?: Key
  signer?: Key
  serial?: Uint8Array
  notBefore?: Uint8Array
  notAfter?: Uint8Array
  extensions?: readonly Uint8Array[]
  version?: Uint8Array
  /** In place of the signer's. */
  innerAlgorithm?: Uint8Array
  /** Behind everything else that is signed. */
  trailer?: Uint8Array
}

let serials = 1
const someKey = ed25519Key()

export const encodeCertificate = (facts: CertificateFacts): Uint8Array => {
  const signer = facts.signer ?? facts.key ?? someKey
  const extensions = facts.extensions ?? []
  const tbs = sequence(
    facts.version ?? der(contextTag(0, true), number(2)),
    facts.serial ?? number(serials++),
    facts.innerAlgorithm ?? signer.algorithm,
    dn(facts.issuer ?? facts.subject ?? 'CN=Nobody'),
    sequence(
      facts.notBefore ?? utcTime(NOW - 100 * DAY),
      facts.notAfter ?? utcTime(NOW + 100 * DAY),
    ),
    dn(facts.subject ?? 'CN=Nobody'),
    (facts.key ?? someKey).spki,
    extensions.length === 0 ? EMPTY : der(contextTag(3, true), sequence(...extensions)),
    facts.trailer ?? EMPTY,
  )
  return sequence(tbs, signer.algorithm, bitString(signer.sign(tbs)))
}

export const parsed = (encoded: Uint8Array): Certificate => {
  const certificate = parseCertificate(encoded)
  if (isMalformed(certificate)) throw new Error(certificate.problem)
  return certificate
}

/** A certificate with the key of its subject, who can issue others. */
export class Holder {
  readonly name: string
  readonly key: Key
  readonly certificate: Certificate

  constructor(name: string, key: Key, certificate: Certificate) {
    this.name = name
    this.key = key
    this.certificate = certificate
  }

  issue(name: string, extensions: readonly Uint8Array[], facts: CertificateFacts = {}): Holder {
    const key = facts.key ?? ed25519Key()
    const encoded = encodeCertificate({
      subject: name,
      issuer: this.name,
      signer: this.key,
      extensions,
      ...facts,
      key,
    })
    return new Holder(name, key, parsed(encoded))
  }

  /** A CA without limits, but for the extensions given. */
  issueCa(
    name: string,
    extensions: readonly Uint8Array[] = [],
    facts: CertificateFacts = {},
  ): Holder {
    return this.issue(name, [basicConstraints(true), keyUsage(5, 6), ...extensions], facts)
  }
}

export const makeRoot = (
  name = 'CN=Root',
  extensions: readonly Uint8Array[] = [],
  facts: CertificateFacts = {},
): Holder => {
  const key = facts.key ?? ed25519Key()
  const encoded = encodeCertificate({
    subject: name,
    extensions: [basicConstraints(true), keyUsage(5, 6), ...extensions],
    ...facts,
    key,
  })
  return new Holder(name, key, parsed(encoded))
}

// --- lists ---

export interface CrlFacts {
  issuer?: string
  revoked?: readonly Certificate[]
  /** A CRL entry's extensions. */
  entryExtensions?: readonly Uint8Array[]
  thisUpdate?: number
  nextUpdate?: number | undefined
  extensions?: readonly Uint8Array[]
}

export const encodeCrl = (signer: Holder, facts: CrlFacts = {}): Uint8Array => {
  const { revoked = [], entryExtensions = [], extensions = [] } = facts
  const entries = revoked.map(({ serial }) =>
    sequence(
      der(Tag.Integer, serial),
      utcTime(NOW - DAY),
      entryExtensions.length === 0 ? EMPTY : sequence(...entryExtensions),
    ),
  )
  const nextUpdate = 'nextUpdate' in facts ? facts.nextUpdate : NOW + DAY
  const tbs = sequence(
    number(1),
    signer.key.algorithm,
    dn(facts.issuer ?? signer.name),
    utcTime(facts.thisUpdate ?? NOW - DAY),
    nextUpdate === undefined ? EMPTY : utcTime(nextUpdate),
    entries.length === 0 ? EMPTY : sequence(...entries),
    extensions.length === 0 ? EMPTY : der(contextTag(0, true), sequence(...extensions)),
  )
  return sequence(tbs, signer.key.algorithm, bitString(signer.key.sign(tbs)))
}

export const crlNumber = (value: number): Uint8Array => extension('2.5.29.20', number(value))
export const deltaCrl = (base: number): Uint8Array => extension('2.5.29.27', number(base), true)
export const crlReason = (reason: number): Uint8Array =>
  extension('2.5.29.21', der(Tag.Enumerated, Uint8Array.of(reason)))

/** Contents of IssuingDistributionPoint: a full name, and flags by their tag number. */
export const issuingDistributionPoint = (facts: {
  name?: string
  flags?: readonly number[]
  reasons?: readonly number[]
}): Uint8Array =>
  extension(
    '2.5.29.28',
    sequence(
      facts.name === undefined
        ? EMPTY
        : der(contextTag(0, true), der(contextTag(0, true), generalName(facts.name))),
      ...(facts.flags ?? [])
        .filter(tag => tag < 3)
        .map(tag => der(contextTag(tag), Uint8Array.of(255))),
      facts.reasons === undefined ? EMPTY : namedBits(facts.reasons, contextTag(3)),
      ...(facts.flags ?? [])
        .filter(tag => tag > 3)
        .map(tag => der(contextTag(tag), Uint8Array.of(255))),
    ),
    true,
  )

// --- OCSP ---

export interface OcspFacts {
  signer?: Holder
  status?: 'good' | 'revoked' | 'unknown'
  thisUpdate?: number
  nextUpdate?: number | undefined
  producedAt?: number
  certificates?: readonly Certificate[]
  nonce?: Uint8Array
  serial?: Uint8Array
  criticalExtension?: string
}

const sha1 = (octets: Uint8Array): Uint8Array =>
  octetString(new Uint8Array(createHash('sha1').update(octets).digest()))

/** What is inside the BIT STRING of an Ed25519 key. */
const rawKey = (spki: Uint8Array): Uint8Array => spki.subarray(-32)

export const encodeOcspResponse = (
  certificate: Certificate,
  issuer: Holder,
  facts: OcspFacts = {},
): Uint8Array => {
  const signer = facts.signer ?? issuer
  const status =
    facts.status === 'revoked'
      ? der(contextTag(1, true), generalizedTime(NOW - DAY))
      : der(contextTag(facts.status === 'unknown' ? 2 : 0))
  const nextUpdate = 'nextUpdate' in facts ? facts.nextUpdate : NOW + DAY
  const single = sequence(
    sequence(
      sequence(oid('1.3.14.3.2.26'), fromHex('0500')),
      sha1(certificate.issuer.bytes),
      sha1(rawKey(issuer.key.spki)),
      der(Tag.Integer, facts.serial ?? certificate.serial),
    ),
    status,
    generalizedTime(facts.thisUpdate ?? NOW - DAY),
    nextUpdate === undefined ? EMPTY : der(contextTag(0, true), generalizedTime(nextUpdate)),
  )
  const extensions = [
    ...(facts.nonce === undefined
      ? []
      : [extension('1.3.6.1.5.5.7.48.1.2', octetString(facts.nonce))]),
    ...(facts.criticalExtension === undefined
      ? []
      : [extension(facts.criticalExtension, EMPTY, true)]),
  ]
  const data = sequence(
    der(contextTag(1, true), dn(signer.name)),
    generalizedTime(facts.producedAt ?? NOW - DAY),
    sequence(single),
    extensions.length === 0 ? EMPTY : der(contextTag(1, true), sequence(...extensions)),
  )
  const certificates = facts.certificates ?? []
  const basic = sequence(
    data,
    signer.key.algorithm,
    bitString(signer.key.sign(data)),
    certificates.length === 0
      ? EMPTY
      : der(contextTag(0, true), sequence(...certificates.map(({ bytes }) => bytes))),
  )
  return sequence(
    der(Tag.Enumerated, Uint8Array.of(0)),
    der(contextTag(0, true), sequence(oid('1.3.6.1.5.5.7.48.1.1'), octetString(basic))),
  )
}

/** One bit changed at each call, or octets cut, put in or replaced: `next` gives numbers below its argument. */
export const mutate = (octets: Uint8Array, next: (below: number) => number): Uint8Array => {
  const changed = octets.slice()
  const at = next(octets.length)
  switch (next(4)) {
    case 0:
      changed[at]! ^= 1 << next(8)
      return changed
    case 1:
      changed[at] = next(256)
      return changed
    case 2:
      return concat(
        octets.subarray(0, at),
        octets.subarray(Math.min(octets.length, at + 1 + next(8))),
      )
    default:
      return concat(octets.subarray(0, at), Uint8Array.of(next(256)), octets.subarray(at))
  }
}
