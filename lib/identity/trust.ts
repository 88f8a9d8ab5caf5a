/**
 * Trust decisions for signature authentication: certificates under our trust anchors (RFC 5280, RFC 4945) and raw public keys
 * (RFC 7670). Revocation data that has to be fetched is asked for, and only for a path that is valid without.
 */
import { parseAddress } from '../base/address.ts'
import { equal, utf8 } from '../base/bytes.ts'
import { listOf, OptionError, printable, readingOption, RedactedValue } from '../base/errors.ts'
import type { Backend } from '../crypto/prf.ts'
import { readPublicKey, type PublicKey } from '../crypto/signature.ts'
import type { Payload } from '../wire/payloads.ts'
import { CertEncoding, IdType } from '../wire/registry.ts'
import { hasIdentity, listNames } from './certificate-identity.ts'
import {
  describeCertificate,
  isMalformed,
  parseCertificate,
  type Certificate,
  type Malformed,
} from './certificate.ts'
import { parseCrl, type Crl } from './crl.ts'
import { isFailure, printTime, type Failure, type FailureCode } from './failure.ts'
import { GeneralNameType } from './general-name.ts'
import {
  addressIdentity,
  hasWildcard,
  identityMatches,
  parsePattern,
  type Identity,
} from './identity.ts'
import { formatName } from './name.ts'
import { publicKeyDigest, type ProofFact } from './principal.ts'
import { parseOcspResponse, writeOcspRequest } from './ocsp.ts'
import { TrustAnchors } from './path.ts'
import { verifyPeerCertificate } from './peer-certificate.ts'
import { readDerGroups } from './pem.ts'
import type { RevocationPolicy } from './revocation.ts'

/** How a peer proved itself. */
export type Authentication = 'psk' | 'certificate' | 'rawKey' | 'eap'

/** Where the status of one certificate may be learned; the first place that answers will do. */
export type StatusSource =
  | { readonly kind: 'crl'; readonly urls: readonly string[] }
  | { readonly kind: 'ocsp'; readonly urls: readonly string[]; readonly request: Uint8Array }

/** What came of it, in DER. */
export interface StatusData {
  readonly crls: readonly Uint8Array[]
  readonly ocsp: readonly Uint8Array[]
  /** Addresses that gave nothing, each with the reason: escaped and bounded. */
  readonly failed?: readonly string[]
}

interface Refused {
  readonly kind: 'refused'
  /** For our own side. */
  readonly why: string
  readonly code: FailureCode
  /** What the peer has shown, where that could be read. */
  readonly certificates?: readonly ShownCertificate[]
}

/** A certificate as a person who looks for the failing one wants to see it. */
export interface ShownCertificate {
  /** Escaped and bounded, as in `Failure`. */
  readonly subject: string
  readonly issuer: string
  readonly notBefore: string
  readonly notAfter: string
  /** It is the one that failed. */
  readonly isFailing: boolean
}

/** Ours: certificates that are described, of those that were sent. */
const MOST_DESCRIBED = 8

/** In the order in which they were sent. */
const describeShown = (
  encoded: readonly Uint8Array[],
  failing: string,
): readonly ShownCertificate[] =>
  encoded
    .slice(0, MOST_DESCRIBED)
    .map(parseCertificate)
    .filter(isReadable)
    .map(certificate => ({
      subject: describeCertificate(certificate),
      issuer: formatName(certificate.issuer),
      notBefore: printTime(certificate.notBefore),
      notAfter: printTime(certificate.notAfter),
      isFailing: describeCertificate(certificate) === failing,
    }))

/** The CERT payloads of a peer. */
export type PresentedCredential =
  | Refused
  | { readonly kind: 'rawKey'; readonly publicKey: PublicKey }
  | {
      readonly kind: 'certificates'
      readonly publicKey: PublicKey
      /** DER, the peer's own first; only that one was looked into. */
      readonly encoded: readonly Uint8Array[]
      /** RFC 4806 and RFC 7296 §3.6: lists and OCSP answers that the peer sends along. */
      readonly status: StatusData
    }

export type TrustResult =
  | Refused
  | { readonly kind: 'needsStatus'; readonly wanted: readonly StatusSource[] }
  | {
      readonly kind: 'trusted'
      readonly proof: ProofFact
      readonly authentication: Authentication
      /** DER, the peer's own first, the trust anchor last. */
      readonly certificates: readonly Uint8Array[]
      /** Until when all of them but the anchor are valid, in Unix milliseconds; without certificates `Infinity`. */
      readonly validUntil: number
    }

/** Lists and OCSP answers that a peer may send along. */
const MAX_STATUS = 8

interface RawKey {
  readonly spki: Uint8Array
  /** Undefined: whatever identity its owner claims. */
  readonly pattern: Identity | undefined
}

interface TrustSettings {
  readonly anchors: TrustAnchors
  readonly crls: readonly Crl[]
  readonly revocation: RevocationPolicy
  readonly fetches: boolean
  readonly allowsTlsPurposes: boolean
  readonly rawKeys: readonly RawKey[]
}

export class Trust {
  private readonly settings: TrustSettings

  constructor(settings: TrustSettings) {
    this.settings = settings
  }

  get anchors(): readonly Certificate[] {
    return this.settings.anchors.all
  }

  /** OCSP answers that peers send along are of use (RFC 4806). */
  get wantsStatus(): boolean {
    return this.settings.revocation !== 'off'
  }

  /** Reads the payloads; nothing is believed yet. */
  readShown(payloads: readonly Payload[]): PresentedCredential {
    const certs = payloads.filter(payload => payload.kind === 'cert')
    const ofKind = (encoding: number): readonly Uint8Array[] =>
      certs.filter(cert => cert.encoding === encoding).map(({ data }) => data)
    const shown = ofKind(CertEncoding.X509Signature)
    const [raw] = ofKind(CertEncoding.RawPublicKey)
    if (shown.length === 0 && raw !== undefined) {
      const publicKey = readPublicKey(raw)
      return publicKey === undefined
        ? refused('its raw public key is malformed or too weak', 'WEAK_KEY')
        : { kind: 'rawKey', publicKey }
    }
    const [first] = shown
    if (first === undefined) {
      // RFC 7296 §3.6: nothing is fetched for a stranger, so hash and URL is no answer.
      const others = certs.length > 0 ? ' of a kind that we take' : ''
      return refused(`it sent no certificate${others}`, 'UNKNOWN_ISSUER')
    }
    const certificate = parseCertificate(first)
    if (isMalformed(certificate)) {
      return refused(`its certificate is malformed: ${certificate.problem}`, 'MALFORMED')
    }
    const publicKey = readPublicKey(certificate.spki)
    if (publicKey === undefined) {
      return refused('the key of its certificate is malformed or too weak', 'WEAK_KEY')
    }
    return {
      kind: 'certificates',
      publicKey,
      encoded: shown,
      status: {
        crls: ofKind(CertEncoding.Crl).slice(0, MAX_STATUS),
        ocsp: ofKind(CertEncoding.OcspContent).slice(0, MAX_STATUS),
      },
    }
  }

  /**
   * Decides whether the holder of that key may act as `identity`. `host`: the name that a client expects when it expects no
   * identity. `time`: milliseconds since 1970. `fetched`: the answer to 'needsStatus'.
   */
  judge(
    backend: Backend,
    shown: Exclude<PresentedCredential, Refused>,
    identity: Identity,
    host: string | undefined,
    time: number,
    fetched: StatusData | undefined,
  ): TrustResult {
    if (shown.kind === 'rawKey') return this.judgeRawKey(backend, shown.publicKey, identity)
    const { anchors, crls, revocation, fetches, allowsTlsPurposes } = this.settings
    const lists = [...shown.status.crls, ...(fetched?.crls ?? [])].map(parseCrl).filter(isReadable)
    const answers = [...shown.status.ocsp, ...(fetched?.ocsp ?? [])].map(parseOcspResponse)
    const known = { backend, crls: [...crls, ...lists], responses: answers.filter(isReadable) }
    const verify = (policy: RevocationPolicy): ReturnType<typeof verifyPeerCertificate> =>
      verifyPeerCertificate(shown.encoded, {
        anchors,
        intermediates: [],
        time,
        backend,
        identity,
        allowsTlsPurposes,
        allowsPinned: true,
        revocation: { ...known, policy },
      })
    const isFetchDue = fetches && fetched === undefined && revocation !== 'off'
    const result = verify(isFetchDue ? 'require' : revocation)
    if (isFetchDue && isFailure(result) && result.code === 'REVOCATION_UNKNOWN') {
      const valid = verify('off')
      const wanted = isFailure(valid) ? [] : sourcesOf(backend, valid.chain)
      if (wanted.length > 0) return { kind: 'needsStatus', wanted }
      return this.judge(backend, shown, identity, host, time, NOTHING_FETCHED)
    }
    if (isFailure(result)) {
      const failed = result.code === 'REVOCATION_UNKNOWN' ? (fetched?.failed ?? []) : []
      const tried = failed.length === 0 ? '' : `; asked were ${failed.join(', ')}`
      const certificates = describeShown(shown.encoded, result.certificate)
      return { ...refused(withHint(result) + tried, result.code), certificates }
    }
    if (host !== undefined && !hasIdentity(result.certificate, hostIdentity(host), true)) {
      const why = `its certificate is not for ${printable(host)}, only for ${listNames(result.certificate)}`
      const failing = describeCertificate(result.certificate)
      const certificates = describeShown(shown.encoded, failing)
      return { ...refused(why, 'IDENTITY'), certificates }
    }
    return {
      kind: 'trusted',
      proof: {
        kind: 'certificate',
        publicKey: publicKeyDigest(backend, result.certificate.spki),
      },
      authentication: 'certificate',
      certificates: result.chain.map(({ bytes }) => bytes),
      validUntil: endOf(result.chain),
    }
  }

  private judgeRawKey(backend: Backend, publicKey: PublicKey, identity: Identity): TrustResult {
    const entries = this.settings.rawKeys.filter(({ spki }) => equal(spki, publicKey.spki))
    const entry = entries.find(
      ({ pattern }) => pattern === undefined || identityMatches(pattern, identity),
    )
    if (entry === undefined)
      return refused('its raw public key is not one that we know for it', 'UNKNOWN_ISSUER')
    const { pattern } = entry
    return {
      kind: 'trusted',
      proof: {
        kind: 'rawKey',
        publicKey: publicKeyDigest(backend, publicKey.spki),
        isBound: entries.length === 1 && pattern !== undefined && !hasWildcard(pattern),
      },
      authentication: 'rawKey',
      certificates: [],
      validUntil: Infinity,
    }
  }
}

/** RFC 5280 §4.1.2.5: the whole second that is named belongs to it. */
const endOf = (chain: readonly Certificate[]): number =>
  Math.min(...chain.slice(0, Math.max(1, chain.length - 1)).map(({ notAfter }) => notAfter + 1000))

const withHint = ({ code, message }: Failure): string =>
  code === 'EXTENDED_KEY_USAGE'
    ? `${message} ("extendedKeyUsage: 'tls'" admits certificates made for TLS)`
    : message

const NOTHING_FETCHED: StatusData = { crls: [], ocsp: [] }

/** The host that a client speaks to: a DNS name or an address. */
const hostIdentity = (host: string): Identity => {
  const address = parseAddress(host.split('%')[0]!)
  return address === undefined
    ? { type: IdType.Fqdn, data: utf8(host.replace(/\.$/, '')) }
    : addressIdentity(address)
}

const refused = (why: string, code: FailureCode): Refused => ({ kind: 'refused', why, code })

const isReadable = <T extends object>(value: T | Malformed): value is T => !isMalformed(value)

/** For each certificate below the anchor, what it says of itself; it has been validated before. */
const sourcesOf = (backend: Backend, chain: readonly Certificate[]): readonly StatusSource[] =>
  chain.slice(0, -1).flatMap((certificate, i): StatusSource[] => {
    const { ocspUris, crlDistributionPoints = [] } = certificate.extensions
    const answers = ocspUris.filter(isHttp)
    if (answers.length > 0) {
      const request = writeOcspRequest(backend, certificate, chain[i + 1]!)
      return [{ kind: 'ocsp', urls: answers, request }]
    }
    const lists = crlDistributionPoints
      .flatMap(({ point }) => point?.names ?? [])
      .filter(({ type }) => type === GeneralNameType.Uri)
      .map(({ text }) => text)
      .filter(isHttp)
    return lists.length > 0 ? [{ kind: 'crl', urls: lists }] : []
  })

const isHttp = (url: string): boolean => /^http:\/\//i.test(url)

// --- options ---

export const parseTrust = (options: Readonly<Record<string, unknown>>): Trust | undefined => {
  const own = (name: string, fallback?: unknown): unknown =>
    Object.hasOwn(options, name) && options[name] !== undefined ? options[name] : fallback
  const anchors = own('ca') === undefined ? [] : parseAnchors(own('ca'))
  const rawKeys = readingOption('peerKeys', () => parseRawKeys(own('peerKeys')))
  const crls = own('crl') === undefined ? [] : parseLists(own('crl'))
  const revocation = own('revocation', own('crl') === undefined ? 'prefer' : 'require')
  if (revocation !== 'require' && revocation !== 'prefer' && revocation !== 'off') {
    throw new OptionError('revocation', revocation, "one of 'require', 'prefer', 'off'")
  }
  const fetches = own('fetchRevocation', false)
  if (
    typeof fetches !== 'boolean' &&
    !readingOption('fetchRevocation', () => isNetworks(fetches))
  ) {
    throw new OptionError(
      'fetchRevocation',
      fetches,
      "true, false, or an array of networks that may be asked too, such as '10.0.0.0/8'",
    )
  }
  const usage = own('extendedKeyUsage', 'ike')
  if (usage !== 'ike' && usage !== 'tls') {
    throw new OptionError('extendedKeyUsage', usage, "one of 'ike', 'tls'")
  }
  // With a pre-shared key beside it, an empty array would demand no certificate of anyone.
  for (const [name, known] of [
    ['ca', anchors],
    ['peerKeys', rawKeys],
  ] as const) {
    if (own(name) === undefined || known.length > 0) continue
    throw OptionError.saying(
      name,
      name === 'ca'
        ? '"ca" must not be empty; leave it out to accept no certificates'
        : '"peerKeys" must not be empty; leave it out to accept no raw public keys',
    )
  }
  if (anchors.length === 0 && rawKeys.length === 0) return undefined
  return new Trust({
    anchors: new TrustAnchors(anchors),
    crls,
    revocation,
    fetches: fetches !== false,
    allowsTlsPurposes: usage === 'tls',
    rawKeys,
  })
}

/** Addresses, or networks by the length of their prefix. */
const isNetworks = (value: unknown): value is readonly string[] =>
  Array.isArray(value) &&
  value.length > 0 &&
  listOf('fetchRevocation', value).every(name => {
    const [, address = '', prefix] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(String(name)) ?? []
    const bits = 8 * (parseAddress(address)?.length ?? 0)
    return typeof name === 'string' && bits > 0 && Number(prefix ?? 0) <= bits
  })

/** What a fetched list or answer says of when the next one comes; undefined: it cannot be read, or says nothing. */
export const nextUpdateOf = (
  kind: StatusSource['kind'],
  octets: Uint8Array,
): number | undefined => {
  if (kind === 'crl') {
    const list = parseCrl(octets)
    return isMalformed(list) ? undefined : list.nextUpdate
  }
  const answer = parseOcspResponse(octets)
  if (isMalformed(answer) || answer.responses.length === 0) return undefined
  return Math.min(...answer.responses.map(({ nextUpdate }) => nextUpdate ?? 0))
}

const CERTIFICATES = 'certificates of authorities in PEM or DER, or an array of them'
const LISTS = 'lists of revoked certificates in PEM or DER, or an array of them'
const PUBLIC_KEYS =
  'public keys in PEM or DER (SubjectPublicKeyInfo), an array of them, or an object from identity to them: RSA of 2048 to 8192 bits, P-256, P-384, P-521, Ed25519 or Ed448'

const parseAnchors = (value: unknown): readonly Certificate[] =>
  readDerGroups('ca', value, 'CERTIFICATE', CERTIFICATES)
    .flat()
    .map(bytes => {
      const anchor = parseCertificate(bytes)
      if (!isMalformed(anchor)) return anchor
      throw OptionError.saying('ca', `"ca" is not a valid certificate: ${anchor.problem}`)
    })

const parseLists = (value: unknown): readonly Crl[] =>
  readDerGroups('crl', value, 'X509 CRL', LISTS)
    .flat()
    .map(bytes => {
      const list = parseCrl(bytes)
      if (!isMalformed(list)) return list
      throw OptionError.saying(
        'crl',
        `"crl" is not a valid list of revoked certificates: ${list.problem}`,
      )
    })

const parseRawKeys = (value: unknown): readonly RawKey[] => {
  if (value === undefined) return []
  const isMap =
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof Uint8Array)
  if (!isMap) return readRawKeys('peerKeys', value, undefined)
  return Object.entries(value).flatMap(([name, keys]) =>
    readRawKeys(`peerKeys[${printable(name, 40)}]`, keys, parsePattern('peerKeys', name)),
  )
}

const readRawKeys = (
  option: string,
  value: unknown,
  pattern: Identity | undefined,
): readonly RawKey[] =>
  readDerGroups(option, value, 'PUBLIC KEY', PUBLIC_KEYS)
    .flat()
    .map(spki => {
      if (readPublicKey(spki) === undefined) {
        throw new OptionError(
          option,
          new RedactedValue(`a key of ${spki.length} octets`),
          PUBLIC_KEYS,
        )
      }
      return { spki, pattern }
    })
