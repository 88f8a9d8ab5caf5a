/** X.509 certificates (RFC 5280 §4.1): read strictly, as facts. Nothing here says whether one is to be believed. */
import { copy, toHex, equal } from '../base/bytes.ts'
import { contextTag, DerReader } from '../base/der.ts'
import {
  interpretExtensions,
  readRawExtensions,
  type Extensions,
  type RawExtension,
} from './extensions.ts'
import { formatName, isEmptyName, readName, sameName, type Name } from './name.ts'
import { readSigned, type Signed } from './signed.ts'

export interface Certificate {
  /** The DER of the whole. */
  readonly bytes: Uint8Array
  readonly signed: Signed
  readonly version: 1 | 2 | 3
  /** The content of the INTEGER: two's complement. */
  readonly serial: Uint8Array
  readonly issuer: Name
  readonly subject: Name
  /** Milliseconds since 1970. */
  readonly notBefore: number
  readonly notAfter: number
  /** The DER SubjectPublicKeyInfo. */
  readonly spki: Uint8Array
  readonly extensions: Extensions
}

/** Why octets are no certificate, in words. */
export interface Malformed {
  readonly problem: string
}

export const isMalformed = (value: object): value is Malformed => 'problem' in value

/** 64 KiB: what a peer may send in all its certificates together, and then some. */
const SIZE_LIMIT = 65_536

/** Those that were read, the ones used last at the end: a peer shows the same ones at each handshake. */
const known = new Map<string, Certificate>()
/** Ours: some 2 MB in all. What is larger is read each time. */
const MOST_KNOWN = 128
const LARGEST_KNOWN = 4096

/** Takes a copy of `encoded`. Equal octets give one object. */
export const parseCertificate = (encoded: Uint8Array): Certificate | Malformed => {
  if (encoded.length > LARGEST_KNOWN) return readCertificate(encoded)
  const name = Buffer.from(encoded.buffer, encoded.byteOffset, encoded.length).toString('latin1')
  const certificate = known.get(name) ?? readCertificate(encoded)
  if (isMalformed(certificate)) return certificate
  known.delete(name)
  known.set(name, certificate)
  if (known.size > MOST_KNOWN) known.delete(known.keys().next().value!)
  return certificate
}

const readCertificate = (encoded: Uint8Array): Certificate | Malformed => {
  if (encoded.length > SIZE_LIMIT) return { problem: 'it is too large' }
  const bytes = copy(encoded)
  const outer = new DerReader(bytes)
  const whole = outer.enter()
  outer.end()
  const signed = readSigned(whole)
  whole.end()
  const tbs = outer.inside(signed.tbs.bytes).enter()
  const version = readVersion(tbs)
  const serial = tbs.integer()
  const innerAlgorithm = tbs.any().bytes
  // §4.1.1.2: the algorithm outside must be the one that is signed.
  if (!outer.failed && !equal(innerAlgorithm, signed.algorithm))
    outer.fail('it names two different signature algorithms')
  const issuer = readName(tbs)
  // §4.1.2.4: every certificate comes from somebody.
  if (isEmptyName(issuer)) outer.fail('it has no issuer')
  const validity = tbs.enter()
  const notBefore = validity.time()
  const notAfter = validity.time()
  validity.end()
  const subject = readName(tbs)
  const spki = tbs.any().bytes
  readUniqueIdentifiers(tbs, version)
  const wrapped = tbs.enterOptional(contextTag(3, true))
  let raw: readonly RawExtension[] = []
  if (wrapped !== undefined) {
    if (version !== 3) outer.fail('it has extensions, but not version 3')
    raw = readRawExtensions(wrapped)
    wrapped.end()
  }
  tbs.end()
  const extensions = interpretExtensions(outer, raw)
  return outer.problem === undefined
    ? {
        bytes,
        signed,
        version,
        serial,
        issuer,
        subject,
        notBefore,
        notAfter,
        spki,
        extensions,
      }
    : { problem: outer.problem }
}

/** Version ::= [0] EXPLICIT INTEGER DEFAULT v1, which in DER is left out. */
const readVersion = (tbs: DerReader): 1 | 2 | 3 => {
  const wrapped = tbs.enterOptional(contextTag(0, true))
  if (wrapped === undefined) return 1
  const version = wrapped.smallInteger()
  wrapped.end()
  if (version === 1) return 2
  if (version !== 2) tbs.fail('its version is none of 1 to 3')
  return 3
}

/** §4.1.2.8: passed over, but only versions 2 and 3 have them. */
const readUniqueIdentifiers = (tbs: DerReader, version: number): void => {
  for (const number of [1, 2]) {
    if (tbs.nextTag !== contextTag(number)) continue
    tbs.bitString(contextTag(number))
    if (version === 1) tbs.fail('it has unique identifiers, but version 1')
  }
}

/** RFC 5280 §3.2: issuer and subject are the same entity. */
export const isSelfIssued = ({ issuer, subject }: Certificate): boolean => sameName(issuer, subject)

/** For logs and errors: escaped and bounded, since anybody can make a certificate. */
export const describeCertificate = ({ subject, serial }: Certificate): string =>
  isEmptyName(subject) ? `with serial ${toHex(serial.subarray(0, 20))}` : formatName(subject)
