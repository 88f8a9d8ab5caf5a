/** Who we are, how we prove it, and whom we believe: parsed once from a program's options. */
import { concat, EMPTY } from '../base/bytes.ts'
import { OptionError, readingOption, withoutContent } from '../base/errors.ts'
import { namesOf, type OptionEnd } from '../base/option-table.ts'
import type { Backend } from '../crypto/prf.ts'
import type { Payload } from '../wire/payloads.ts'
import { CertEncoding } from '../wire/registry.ts'
import { firstIdentity } from './certificate-identity.ts'
import { parseCrashSecret, type CrashSecret } from './crash-secret.ts'
import { parseEap, type EapSettings } from './eap/eap-peer.ts'
import { parseIdentity, parsePattern, type Identity } from './identity.ts'
import { keyDigest, parseOwnKeys, type OwnKey } from './own-keys.ts'
import { parsePpk, type PpkPolicy } from './ppk.ts'
import { mostKeys, parsePsk, type SecretLookup } from './pre-shared-key.ts'
import { parseTrust, type Trust } from './trust.ts'

export interface Credentials {
  /** Undefined: our own address. */
  readonly localIdentity: Identity | undefined
  /** What the peer must say it is; undefined: any identity that proves itself. */
  readonly remoteIdentity: Identity | undefined
  /** A client's: the host that the peer's certificate must be for when no identity is expected. */
  readonly peerName: string | undefined
  readonly secretOf: SecretLookup
  /** Pre-shared keys that are tried for each peer. */
  readonly keysTried: number
  /** Ours, to prove ourselves by signature; empty: by pre-shared key, or by EAP. */
  readonly ownKeys: readonly OwnKey[]
  /** OCSP answer about our certificate for peers that ask (RFC 4806); 'ask': the program has it. */
  readonly ocspResponse: Uint8Array | 'ask' | undefined
  /** A client's login, in the place of a proof of our own. */
  readonly eap: EapSettings | undefined
  /** How peers prove themselves by signature; undefined: by pre-shared key. */
  readonly trust: Trust | undefined
  /** A server's peers may choose: who proves itself by pre-shared key gets the same of us. */
  readonly acceptsBothMethods: boolean
  /** RSASSA-PKCS1-v1_5 with SHA-2 is made and taken, for peers that have no RSASSA-PSS. */
  readonly rsaPkcs1: boolean
  readonly ppk: PpkPolicy | undefined
  /** The program wants to see each peer before it is let in. */
  readonly asksAuthorization: boolean
  /** What the tokens of quick crash detection are made of. */
  readonly crashSecret: CrashSecret
}

/** Options that prove who an end is and whom it believes, by the end that has them. They are read together. */
export const CREDENTIAL_TABLE = {
  psk: 'both',
  localId: 'both',
  remoteId: 'both',
  servername: 'client',
  cert: 'both',
  key: 'both',
  passphrase: 'both',
  pfx: 'both',
  sign: 'both',
  ocspResponse: 'both',
  ca: 'both',
  crl: 'both',
  revocation: 'both',
  fetchRevocation: 'both',
  extendedKeyUsage: 'both',
  peerKeys: 'both',
  rsaPkcs1: 'both',
  rejectUnauthorized: 'both',
  requestCert: 'both',
  ppk: 'both',
  eap: 'client',
  authorize: 'server',
  checkServerIdentity: 'client',
  crashTokenSecret: 'both',
} as const satisfies Readonly<Record<string, OptionEnd>>

export const CREDENTIAL_OPTIONS = namesOf(CREDENTIAL_TABLE)

/** What may differ from one peer, or one server, to the next under the same credentials. */
export const PEER_OPTIONS = ['servername', 'remoteId', 'authorize', 'checkServerIdentity'] as const

/** `peerName`: the host that a client speaks to; `servername` goes before it, as in tls. */
export const parseCredentials = (
  options: Readonly<Record<string, unknown>>,
  peerName?: string,
): Credentials => ({ ...parseOwn(options), ...parsePeer(options, peerName) })

/** The same credentials towards another peer, or for another server: `options` has `PEER_OPTIONS`. */
export const credentialsTowards = (
  credentials: Credentials,
  options: Readonly<Record<string, unknown>>,
  peerName?: string,
): Credentials => ({ ...credentials, ...parsePeer(options, peerName) })

type PeerCredentials = Pick<Credentials, 'remoteIdentity' | 'peerName' | 'asksAuthorization'>

const parsePeer = (
  options: Readonly<Record<string, unknown>>,
  peerName: string | undefined,
): PeerCredentials => {
  const own = ownOf(options)
  for (const name of ['authorize', 'checkServerIdentity']) {
    if (own(name) === undefined || typeof own(name) === 'function') continue
    throw new OptionError(name, own(name), 'of type function', 'ERR_INVALID_ARG_TYPE')
  }
  return {
    remoteIdentity:
      own('remoteId') === undefined
        ? undefined
        : readingOption('remoteId', () => parsePattern('remoteId', own('remoteId'))),
    peerName: serverName(own('servername')) ?? peerName,
    asksAuthorization: own('authorize') !== undefined || own('checkServerIdentity') !== undefined,
  }
}

const ownOf =
  (options: Readonly<Record<string, unknown>>) =>
  (name: string): unknown =>
    Object.hasOwn(options, name) ? options[name] : undefined

const parseOwn = (
  options: Readonly<Record<string, unknown>>,
): Omit<Credentials, keyof PeerCredentials> => {
  const own = ownOf(options)
  for (const name of ['rejectUnauthorized', 'requestCert']) {
    if (own(name) === undefined || own(name) === true) continue
    throw new OptionError(name, own(name), 'true or left out: both ends always prove themselves')
  }
  const ownKeys = readingOption('key', () => parseOwnKeys(options))
  const eap =
    own('eap') === undefined ? undefined : readingOption('eap', () => parseEap(own('eap')))
  const trust = readingOption('ca', () => parseTrust(options))
  const psk = own('psk')
  if (eap !== undefined && ownKeys.length > 0) {
    throw OptionError.saying('eap', '"eap" cannot be combined with "key", which proves who we are')
  }
  if (psk === undefined && (trust === undefined || (ownKeys.length === 0 && eap === undefined))) {
    throw new OptionError('psk', psk, lacking(trust, ownKeys, eap))
  }
  const rsaPkcs1 = own('rsaPkcs1') === undefined ? false : own('rsaPkcs1')
  if (typeof rsaPkcs1 !== 'boolean') throw new OptionError('rsaPkcs1', rsaPkcs1, 'true or false')
  return {
    localIdentity:
      own('localId') === undefined
        ? defaultIdentity(ownKeys)
        : readingOption('localId', () => parseIdentity('localId', own('localId'))),
    secretOf: psk === undefined ? () => undefined : readingOption('psk', () => parsePsk(psk)),
    keysTried: mostKeys(psk),
    ownKeys,
    ocspResponse: readingOption('ocspResponse', () => parseOcspOption(own('ocspResponse'))),
    eap,
    trust,
    acceptsBothMethods: psk !== undefined && trust !== undefined && ownKeys.length > 0,
    rsaPkcs1,
    ppk: readingOption('ppk', () => parsePpk(own('ppk'))),
    crashSecret: readingOption('crashTokenSecret', () =>
      parseCrashSecret(own('crashTokenSecret'), ownKeys, psk),
    ),
  }
}

const parseOcspOption = (value: unknown): Credentials['ocspResponse'] => {
  if (value === undefined || value instanceof Uint8Array) return value
  if (typeof value === 'function') return 'ask'
  throw new OptionError(
    'ocspResponse',
    withoutContent(value),
    'a Uint8Array, or a function that gives one',
  )
}

/** http's agents give it with every connection, empty for an address. */
const serverName = (value: unknown): string | undefined => {
  if (value === undefined || value === '') return undefined
  if (typeof value === 'string') return value
  throw new OptionError('servername', value, 'a string')
}

const lacking = (
  trust: Trust | undefined,
  ownKeys: readonly OwnKey[],
  eap: EapSettings | undefined,
): string => {
  if (trust !== undefined) return 'given, or "cert" and "key", to prove who we are'
  return ownKeys.length > 0 || eap !== undefined
    ? 'given, or "ca" or "peerKeys", to know the peer by'
    : 'given, or "cert", "key" and "ca": a pre-shared key or certificates prove who both ends are'
}

/** The name that our certificate is for (RFC 4945 §3.1), since peers look for our identity in it. */
const defaultIdentity = (ownKeys: readonly OwnKey[]): Identity | undefined => {
  const certificate = ownKeys[0]?.chain[0]
  return certificate && firstIdentity(certificate)
}

/** Whether signatures may come or go: then their hashes are announced (RFC 7427 §4). */
export const usesSignatures = ({ ownKeys, trust }: Credentials): boolean =>
  ownKeys.length > 0 || trust !== undefined

/** Authorities named in one message: each is 20 octets to a stranger (RFC 7296 §3.7). */
const MAX_REQUESTED = 16

/** CERTREQ: the authorities by which we know peers, and that OCSP answers may come along. */
export const certificateRequest = (
  backend: Backend,
  { trust }: Credentials,
): readonly Payload[] => {
  const anchors = trust?.anchors.slice(0, MAX_REQUESTED) ?? []
  if (anchors.length === 0) return []
  const digests = anchors.map(({ spki }) => keyDigest(backend, spki))
  return [
    { kind: 'certreq', encoding: CertEncoding.X509Signature, data: concat(...digests) },
    // RFC 4806 §3.1: no responders of our own; the issuer's, or one that the issuer names, will do.
    ...(trust?.wantsStatus === true
      ? [{ kind: 'certreq', encoding: CertEncoding.OcspContent, data: EMPTY } as const]
      : []),
  ]
}
