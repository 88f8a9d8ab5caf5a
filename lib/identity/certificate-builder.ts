/**
 * Certificates and lists of revoked ones (RFC 5280 §4, §5), made and signed: what `ike-socket keygen` writes, and
 * what tests need. Algorithms follow from the issuer's key.
 */
import { createPublicKey, sign, type KeyObject } from 'node:crypto'
import { parseAddress } from '../base/address.ts'
import { EMPTY, utf8 } from '../base/bytes.ts'
import { contextTag, DerReader, Tag } from '../base/der.ts'
import { bitString, der, integer, octetString, oid, sequence } from '../base/der-writer.ts'
import type { Millis } from '../base/environment.ts'
import { noble } from '../crypto/noble.ts'
import { SIGNATURE_ALGORITHMS, type SignatureAlgorithm } from '../crypto/signature.ts'
import { encodeDistinguishedName } from './distinguished-name.ts'
import { ExtensionId } from './extensions.ts'

export interface AlternativeNames {
  readonly dns?: readonly string[]
  readonly email?: readonly string[]
  readonly uri?: readonly string[]
  /** Addresses in their text. */
  readonly ip?: readonly string[]
}

export interface CertificateFacts {
  /** As `O=Example, CN=host`. */
  readonly subject: string
  readonly publicKey: KeyObject
  /** Not negative, 20 octets at most. */
  readonly serial: Uint8Array
  readonly notBefore: Millis
  readonly notAfter: Millis
  /** It may issue certificates, with so many others below it. */
  readonly authority?: { readonly pathLength?: number } | undefined
  readonly keyUsage?: readonly number[]
  readonly extendedKeyUsage?: readonly string[]
  readonly names?: AlternativeNames
  /** Extensions in DER besides those that follow from the above. */
  readonly extensions?: readonly Uint8Array[]
}

export interface Issuer {
  readonly subject: string
  /** The private key. */
  readonly key: KeyObject
}

export interface RevocationFacts {
  readonly thisUpdate: Millis
  readonly nextUpdate: Millis
  readonly number: number
  readonly revoked?: readonly { readonly serial: Uint8Array; readonly at: Millis }[]
}

/** A certificate in DER. */
export const buildCertificate = (facts: CertificateFacts, issuer: Issuer): Uint8Array => {
  const algorithm = algorithmOf(issuer.key)
  return signed(
    algorithm,
    issuer.key,
    sequence(
      // version 3
      der(contextTag(0, true), integer(Uint8Array.of(2))),
      integer(facts.serial),
      algorithm.identifier,
      nameOf(issuer.subject),
      sequence(time(facts.notBefore), time(facts.notAfter)),
      nameOf(facts.subject),
      spkiOf(facts.publicKey),
      der(contextTag(3, true), sequence(...extensionsOf(facts, issuer))),
    ),
  )
}

/** A list of revoked certificates in DER. */
export const buildCrl = (facts: RevocationFacts, issuer: Issuer): Uint8Array => {
  const algorithm = algorithmOf(issuer.key)
  const revoked = (facts.revoked ?? []).map(({ serial, at }) => sequence(integer(serial), time(at)))
  return signed(
    algorithm,
    issuer.key,
    sequence(
      // version 2
      integer(Uint8Array.of(1)),
      algorithm.identifier,
      nameOf(issuer.subject),
      time(facts.thisUpdate),
      time(facts.nextUpdate),
      // RFC 5280 §5.1.2.6: absent when there are none.
      revoked.length === 0 ? EMPTY : sequence(...revoked),
      der(
        contextTag(0, true),
        sequence(
          authorityKeyIdentifier(issuer.key),
          extension(ExtensionId.CrlNumber, false, small(facts.number)),
        ),
      ),
    ),
  )
}

/** An extension in DER, for those that `CertificateFacts` does not know. */
export const extension = (id: string, critical: boolean, value: Uint8Array): Uint8Array =>
  sequence(oid(id), critical ? der(Tag.Boolean, Uint8Array.of(0xff)) : EMPTY, octetString(value))

export const toPem = (label: string, octets: Uint8Array): string => {
  const lines =
    Buffer.from(octets)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n')
}

const extensionsOf = (facts: CertificateFacts, issuer: Issuer): readonly Uint8Array[] => {
  const { authority, keyUsage, extendedKeyUsage, names, extensions = [] } = facts
  const own: Uint8Array[] = []
  if (authority !== undefined) {
    const { pathLength } = authority
    const limit = pathLength === undefined ? EMPTY : small(pathLength)
    const value = sequence(der(Tag.Boolean, Uint8Array.of(0xff)), limit)
    own.push(extension(ExtensionId.BasicConstraints, true, value))
  }
  if (keyUsage !== undefined) own.push(extension(ExtensionId.KeyUsage, true, namedBits(keyUsage)))
  if (extendedKeyUsage !== undefined) {
    own.push(extension(ExtensionId.ExtendedKeyUsage, false, sequence(...extendedKeyUsage.map(oid))))
  }
  if (names !== undefined) {
    own.push(extension(ExtensionId.SubjectAltName, false, sequence(...generalNames(names))))
  }
  const keyId = octetString(keyIdentifier(facts.publicKey))
  own.push(extension(ExtensionId.SubjectKeyIdentifier, false, keyId))
  own.push(authorityKeyIdentifier(issuer.key))
  return [...own, ...extensions]
}

const authorityKeyIdentifier = (issuerKey: KeyObject): Uint8Array => {
  const value = sequence(der(contextTag(0), keyIdentifier(createPublicKey(issuerKey))))
  return extension(ExtensionId.AuthorityKeyIdentifier, false, value)
}

/** RFC 5280 §4.2.1.2 (1): SHA-1 names a key here, it proves nothing. */
const keyIdentifier = (publicKey: KeyObject): Uint8Array => {
  const spki = new DerReader(spkiOf(publicKey)).enter()
  spki.element()
  return noble().sha1(spki.octetBitString())
}

const spkiOf = (key: KeyObject): Uint8Array => {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key
  return new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
}

const generalNames = ({ dns = [], email = [], uri = [], ip = [] }: AlternativeNames) => [
  ...email.map(name => der(contextTag(1), utf8(name))),
  ...dns.map(name => der(contextTag(2), utf8(name))),
  ...uri.map(name => der(contextTag(6), utf8(name))),
  ...ip.map(text => {
    const address = parseAddress(text)
    if (address === undefined) throw new TypeError(`${text} is no IP address`)
    return der(contextTag(7), address)
  }),
]

const nameOf = (subject: string): Uint8Array => {
  const name = encodeDistinguishedName(subject)
  if (name === undefined) throw new TypeError(`${subject} is no distinguished name`)
  return name
}

const small = (value: number): Uint8Array =>
  integer(Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value))

/** Bit 0 is the first of the first octet; zeros at the end are left out. */
const namedBits = (bits: readonly number[]): Uint8Array => {
  const last = Math.max(...bits)
  const octets = new Uint8Array((last >>> 3) + 1)
  for (const bit of bits) octets[bit >>> 3]! |= 0x80 >>> (bit & 7)
  return der(Tag.BitString, Uint8Array.of(7 - (last & 7)), octets)
}

/** RFC 5280 §4.1.2.5: UTCTime to the end of 2049, then GeneralizedTime. */
const time = (at: Millis): Uint8Array => {
  const text = new Date(at).toISOString().replace(/[-:T]|\.\d+/g, '')
  return text < '2050'
    ? der(Tag.UtcTime, utf8(text.slice(2)))
    : der(Tag.GeneralizedTime, utf8(text))
}

const KINDS = new Map<string | undefined, SignatureAlgorithm['kind']>([
  ['rsa', 'rsa-pkcs1'],
  ['ec', 'ecdsa'],
  ['ed25519', 'ed25519'],
  ['ed448', 'ed448'],
])

/** What a key signs certificates with. */
const algorithmOf = (key: KeyObject): SignatureAlgorithm => {
  const curve = key.asymmetricKeyDetails?.namedCurve
  const hash = curve === 'secp384r1' ? 'sha384' : curve === 'secp521r1' ? 'sha512' : 'sha256'
  const kind = KINDS.get(key.asymmetricKeyType)
  const found = SIGNATURE_ALGORITHMS.find(
    algorithm =>
      algorithm.kind === kind && (algorithm.hash === 'identity' || algorithm.hash === hash),
  )
  if (found === undefined) throw new TypeError(`no certificates of ${key.asymmetricKeyType} keys`)
  return found
}

const signed = (algorithm: SignatureAlgorithm, key: KeyObject, content: Uint8Array): Uint8Array => {
  const hash = algorithm.hash === 'identity' ? null : algorithm.hash
  const signature = new Uint8Array(sign(hash, content, key))
  return sequence(content, algorithm.identifier, bitString(signature))
}
