/** OCSP (RFC 6960): writing a request, reading a response, and what it says about a certificate. */
import { copy, equal } from '../base/bytes.ts'
import { contextTag, DerReader, Tag } from '../base/der.ts'
import { der, NULL, octetString, oid, sequence } from '../base/der-writer.ts'
import { computeHash, type Backend } from '../crypto/prf.ts'
import { HashAlgorithm } from '../wire/registry.ts'
import { isMalformed, parseCertificate, type Certificate, type Malformed } from './certificate.ts'
import { staleness } from './crl.ts'
import { KeyPurpose, KeyUsage, readRawExtensions, type RawExtension } from './extensions.ts'
import { readName, sameName, type Name } from './name.ts'
import { readSigned, type Signed, type SignaturePolicy } from './signed.ts'

const Id = {
  BasicResponse: '1.3.6.1.5.5.7.48.1.1',
  Nonce: '1.3.6.1.5.5.7.48.1.2',
  /** RFC 6962 §3.3: timestamps of logs, about which IKE has no policy. */
  CertificateTimestamps: '1.3.6.1.4.1.11129.2.4.5',
} as const

/** Hashes of CertID. That of SHA-1 names a key and proves nothing: the signature does. */
const HASHES: Readonly<Record<string, 1 | 2 | 3 | 4>> = {
  '1.3.14.3.2.26': HashAlgorithm.Sha1,
  '2.16.840.1.101.3.4.2.1': HashAlgorithm.Sha2_256,
  '2.16.840.1.101.3.4.2.2': HashAlgorithm.Sha2_384,
  '2.16.840.1.101.3.4.2.3': HashAlgorithm.Sha2_512,
}
const SHA1 = '1.3.14.3.2.26'

// --- requests ---

/** RFC 6960 §4.1.1: by the SHA-1 of issuer and key, the one hash that every responder knows (RFC 5019 §2.1.1). */
export const writeOcspRequest = (
  backend: Backend,
  certificate: Certificate,
  issuer: Certificate,
  nonce?: Uint8Array,
): Uint8Array => {
  const hash = (octets: Uint8Array): Uint8Array =>
    octetString(computeHash(backend, HashAlgorithm.Sha1, octets))
  const certId = sequence(
    sequence(oid(SHA1), NULL),
    hash(certificate.issuer.bytes),
    hash(keyOctets(issuer.spki)),
    der(Tag.Integer, certificate.serial),
  )
  const requests = sequence(sequence(certId))
  if (nonce === undefined) return sequence(sequence(requests))
  // RFC 8954 §2.1: the nonce is an OCTET STRING within the extension's.
  const extension = sequence(oid(Id.Nonce), octetString(octetString(nonce)))
  return sequence(sequence(requests, der(contextTag(2, true), sequence(extension))))
}

/** What the BIT STRING of a SubjectPublicKeyInfo holds; empty when it is malformed. */
const keyOctets = (spki: Uint8Array): Uint8Array => {
  const info = new DerReader(spki).enter()
  info.element()
  return info.octetBitString()
}

// --- responses ---

interface SingleResponse {
  readonly hash: string
  readonly issuerNameHash: Uint8Array
  readonly issuerKeyHash: Uint8Array
  readonly serial: Uint8Array
  readonly status: 'good' | 'revoked' | 'unknown'
  readonly thisUpdate: number
  readonly nextUpdate: number | undefined
}

export interface OcspResponse {
  readonly signed: Signed
  /** Exactly one of the two. */
  readonly responderName: Name | undefined
  readonly responderKeyHash: Uint8Array | undefined
  readonly producedAt: number
  readonly responses: readonly SingleResponse[]
  /** DER of those that came with it. */
  readonly certificates: readonly Uint8Array[]
  readonly nonce: Uint8Array | undefined
  /** Why it cannot be used, whatever its signature is. */
  readonly unusable: string | undefined
}

const SIZE_LIMIT = 65_536

/** Takes a copy of `encoded`. An answer that is an error is malformed too: it says nothing. */
export const parseOcspResponse = (encoded: Uint8Array): OcspResponse | Malformed => {
  if (encoded.length > SIZE_LIMIT) return { problem: 'it is too large' }
  const outer = new DerReader(copy(encoded))
  const response = outer.enter()
  outer.end()
  const status = response.smallInteger(Tag.Enumerated)
  if (status !== 0)
    return { problem: outer.problem ?? `the responder answers with error ${status}` }
  const wrapped = response.enter(contextTag(0, true))
  response.end()
  const body = wrapped.enter()
  wrapped.end()
  if (body.oid() !== Id.BasicResponse) body.fail('it is of another type than the basic one')
  const octets = body.inside(body.octetString())
  body.end()
  const basic = octets.enter()
  octets.end()
  const signed = readSigned(basic)
  const certificates: Uint8Array[] = []
  const list = basic.enterOptional(contextTag(0, true))?.enter()
  while (list?.more) certificates.push(list.element().bytes)
  basic.end()
  const data = outer.inside(signed.tbs.bytes).enter()
  const facts = readResponseData(data)
  return outer.problem === undefined
    ? { signed, certificates, ...facts }
    : { problem: outer.problem }
}

const readResponseData = (data: DerReader): Omit<OcspResponse, 'signed' | 'certificates'> => {
  const version = data.enterOptional(contextTag(0, true))
  // DEFAULT v1: in DER left out, but responders write it.
  if (version !== undefined && version.smallInteger() !== 0) data.fail('its version is not 1')
  version?.end()
  const byName = data.enterOptional(contextTag(1, true))
  const responderName = byName === undefined ? undefined : readName(byName)
  byName?.end()
  const byKey = byName === undefined ? data.enter(contextTag(2, true)) : undefined
  const responderKeyHash = byKey?.octetString()
  byKey?.end()
  const producedAt = data.generalizedTime()
  const list = data.enter()
  const responses: SingleResponse[] = []
  const unknown: string[] = []
  while (list.more) responses.push(readSingleResponse(list.enter(), unknown))
  const extensions = readExtensions(data, unknown)
  data.end()
  const nonce = extensions.find(({ id }) => id === Id.Nonce)
  const inner = nonce === undefined ? undefined : data.inside(nonce.value)
  const nonceOctets = inner?.octetString()
  inner?.end()
  return {
    responderName,
    responderKeyHash,
    producedAt,
    responses,
    nonce: nonceOctets,
    unusable:
      unknown[0] === undefined ? undefined : `it has the unknown critical extension ${unknown[0]}`,
  }
}

const readSingleResponse = (single: DerReader, unknown: string[]): SingleResponse => {
  const certId = single.enter()
  const algorithm = certId.enter()
  const hash = algorithm.oid()
  if (algorithm.more) algorithm.null()
  algorithm.end()
  const issuerNameHash = certId.octetString()
  const issuerKeyHash = certId.octetString()
  const serial = certId.integer()
  certId.end()
  const status = readStatus(single)
  const thisUpdate = single.generalizedTime()
  const next = single.enterOptional(contextTag(0, true))
  const nextUpdate = next?.generalizedTime()
  next?.end()
  readExtensions(single, unknown)
  single.end()
  return { hash, issuerNameHash, issuerKeyHash, serial, status, thisUpdate, nextUpdate }
}

/** CertStatus ::= CHOICE { good [0] NULL, revoked [1] { time, reason [0] OPTIONAL }, unknown [2] NULL } */
const readStatus = (single: DerReader): SingleResponse['status'] => {
  const revoked = single.enterOptional(contextTag(1, true))
  if (revoked !== undefined) {
    revoked.generalizedTime()
    const reason = revoked.enterOptional(contextTag(0, true))
    reason?.smallInteger(Tag.Enumerated)
    reason?.end()
    revoked.end()
    return 'revoked'
  }
  const { tag, content } = single.element()
  if (content.length !== 0 || (tag !== contextTag(0) && tag !== contextTag(2)))
    single.fail('a status is none of good, revoked and unknown')
  return tag === contextTag(0) ? 'good' : 'unknown'
}

const readExtensions = (reader: DerReader, unknown: string[]): readonly RawExtension[] => {
  const wrapped = reader.enterOptional(contextTag(1, true))
  if (wrapped === undefined) return []
  const extensions = readRawExtensions(wrapped)
  wrapped.end()
  for (const { id, isCritical } of extensions) {
    if (isCritical && id !== Id.Nonce && id !== Id.CertificateTimestamps) unknown.push(id)
  }
  return extensions
}

// --- what a response says ---

export interface OcspOptions {
  readonly time: number
  /** Of `thisUpdate`, in milliseconds; needed for responses without `nextUpdate`. */
  readonly maximumAge: number | undefined
  readonly backend: Backend
  readonly signatures: SignaturePolicy
  /** What was in our request: a response with another one answers something else. */
  readonly nonce?: Uint8Array | undefined
  /** Whether a responder that the issuer has named is still to be believed. */
  readonly believes: (responder: Certificate) => boolean
}

export interface OcspVerdict {
  readonly status: 'good' | 'revoked' | 'unknown'
  /** Why it is unknown. */
  readonly why: string
}

const unknown = (why: string): OcspVerdict => ({ status: 'unknown', why })

/** A response out of date can still say "revoked", never "good". */
export const checkOcsp = (
  response: OcspResponse,
  certificate: Certificate,
  issuer: Certificate,
  options: OcspOptions,
): OcspVerdict => {
  const { time, maximumAge, nonce } = options
  if (response.unusable !== undefined) return unknown(response.unusable)
  const matching = response.responses.filter(single =>
    isAbout(single, certificate, issuer, options.backend),
  )
  if (matching.length === 0) return unknown('it is about other certificates')
  if (nonce !== undefined && response.nonce !== undefined && !equal(nonce, response.nonce))
    return unknown('its nonce is not ours')
  const { producedAt } = response
  const { notBefore, notAfter } = certificate
  if (!(producedAt <= time) || producedAt < notBefore || producedAt > notAfter)
    return unknown('it was produced at a time when it could not be')
  if (!isAuthentic(response, issuer, options)) return unknown('its responder is not to be believed')
  if (matching.some(({ status }) => status === 'revoked')) return { status: 'revoked', why: '' }
  for (const single of matching) {
    const stale = staleness(single, time, maximumAge)
    if (stale !== undefined) return unknown(stale)
    if (single.status === 'unknown') return unknown('the responder does not know the certificate')
  }
  return { status: 'good', why: '' }
}

const isAbout = (
  { hash, issuerNameHash, issuerKeyHash, serial }: SingleResponse,
  certificate: Certificate,
  issuer: Certificate,
  backend: Backend,
): boolean => {
  const known = Object.hasOwn(HASHES, hash) ? HASHES[hash] : undefined
  return (
    known !== undefined &&
    equal(serial, certificate.serial) &&
    equal(issuerNameHash, computeHash(backend, known, certificate.issuer.bytes)) &&
    equal(issuerKeyHash, computeHash(backend, known, keyOctets(issuer.spki)))
  )
}

/** More than one certificate of a responder is rare; a peer that sends many must not make us work. */
const RESPONDER_LIMIT = 4

/** §4.2.2.2: the issuer itself signs, or somebody to whom it gave a certificate for exactly that. */
const isAuthentic = (
  response: OcspResponse,
  issuer: Certificate,
  options: OcspOptions,
): boolean => {
  const { signatures, backend } = options
  const issuerKey = signatures.readKey(issuer.spki)
  if (issuerKey === undefined) return false
  if (isResponder(response, issuer, backend) && signatures.verify(response.signed, issuerKey))
    return true
  const candidates = response.certificates
    .slice(0, RESPONDER_LIMIT)
    .map(parseCertificate)
    .filter((candidate): candidate is Certificate => !isMalformed(candidate))
  return candidates.some(responder => {
    const key = signatures.readKey(responder.spki)
    return (
      key !== undefined &&
      isResponder(response, responder, backend) &&
      isDelegate(responder, issuer, options.time) &&
      signatures.verify(responder.signed, issuerKey) &&
      signatures.verify(response.signed, key) &&
      options.believes(responder)
    )
  })
}

const isResponder = (
  { responderName, responderKeyHash }: OcspResponse,
  { subject, spki }: Certificate,
  backend: Backend,
): boolean =>
  responderName === undefined
    ? // §4.2.1: KeyHash is SHA-1 of the key's octets.
      equal(computeHash(backend, HashAlgorithm.Sha1, keyOctets(spki)), responderKeyHash!)
    : sameName(responderName, subject)

const isDelegate = (responder: Certificate, issuer: Certificate, time: number): boolean => {
  const { extendedKeyUsage, keyUsage, unknownCritical } = responder.extensions
  return (
    sameName(responder.issuer, issuer.subject) &&
    extendedKeyUsage?.includes(KeyPurpose.OcspSigning) === true &&
    keyUsage?.has(KeyUsage.DigitalSignature) !== false &&
    unknownCritical.length === 0 &&
    time >= responder.notBefore &&
    time <= responder.notAfter
  )
}
