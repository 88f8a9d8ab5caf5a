/**
 * Our own certificates and private keys, from the options `cert`, `key`, `passphrase` and `sign`, and which of
 * them is shown to a peer. A key without certificate is shown as a raw public key (RFC 7670).
 */
import type { KeyObject } from 'node:crypto'
import { equal, toHex } from '../base/bytes.ts'
import {
  listOf,
  OptionError,
  readingOption,
  withoutContent,
  RedactedValue,
} from '../base/errors.ts'
import { computeHash, type Backend } from '../crypto/prf.ts'
import { readPrivateKey, type PrivateKey } from '../crypto/private-key.ts'
import { readPublicKey, type PublicKey } from '../crypto/signature.ts'
import type { Payload } from '../wire/payloads.ts'
import { CertEncoding, HashAlgorithm } from '../wire/registry.ts'
import { isMalformed, isSelfIssued, parseCertificate, type Certificate } from './certificate.ts'
import { sameName } from './name.ts'
import { readDerGroups } from './pem.ts'
import { readPkcs12 } from './pkcs12.ts'

/** One way to prove ourselves by signature. */
export interface OwnKey {
  readonly publicKey: PublicKey
  /** Undefined: it is kept elsewhere, and the application signs. */
  readonly key: PrivateKey | undefined
  /** Our certificate, then its issuers as far as they were given. Empty: the bare key is shown. */
  readonly chain: readonly Certificate[]
}

/** Octets of SHA-1. */
const DIGEST = 20
const KEY =
  'a private key in PEM or DER, a KeyObject, an object { pem, passphrase }, or an array of them: RSA of 2048 to 8192 bits, P-256, P-384, P-521, Ed25519 or Ed448'
const PASSPHRASE = 'a string or Uint8Array'
const PFX = 'a PKCS #12 file (RFC 7292) in a Uint8Array, or { buf, passphrase }'
const CERT = 'certificates in PEM or DER, or an array of them'

export interface OwnKeyOptions {
  readonly pfx?: unknown
  readonly cert?: unknown
  readonly key?: unknown
  readonly passphrase?: unknown
  readonly sign?: unknown
}

/** Empty when neither `pfx`, `cert` nor `key` is given. */
export const parseOwnKeys = (options: OwnKeyOptions): readonly OwnKey[] => {
  if (options.pfx !== undefined) return readingOption('pfx', () => parsePfx(options))
  const { cert, key, passphrase, sign } = options
  const groups = cert === undefined ? [] : parseCertificates(cert)
  if (sign !== undefined) return keptElsewhere(groups, key, sign)
  if (key === undefined && groups.length > 0) {
    throw new OptionError('key', undefined, `given with "cert": ${KEY}`)
  }
  if (key === undefined) return []
  const keys = listOf('key', key).map((value, i) =>
    parseKeyOption(Array.isArray(key) ? `key[${i}]` : 'key', value, passphrase),
  )
  return pair(keys, groups)
}

const parsePfx = ({ pfx, cert, key, passphrase }: OwnKeyOptions): readonly OwnKey[] => {
  if (cert !== undefined || key !== undefined) {
    throw OptionError.saying('pfx', '"pfx" cannot be combined with "cert" or "key"')
  }
  const isPair = typeof pfx === 'object' && pfx !== null && 'buf' in pfx
  const octets = isPair ? pfx.buf : pfx
  const secret =
    (isPair ? (pfx as { passphrase?: unknown }).passphrase : undefined) ?? passphrase ?? ''
  if (!(octets instanceof Uint8Array)) throw new OptionError('pfx', withoutContent(octets), PFX)
  const text = secret instanceof Uint8Array ? Buffer.from(secret).toString() : secret
  if (typeof text !== 'string')
    throw new OptionError('passphrase', withoutContent(secret), PASSPHRASE)
  const contents = readPkcs12(octets, text)
  if (typeof contents === 'string')
    throw new OptionError('pfx', new RedactedValue(`a file of which: ${contents}`), PFX)
  const keys = contents.keys.map(octets => parseKeyOption('pfx', octets, text || undefined))
  if (keys.length === 0)
    throw new OptionError('pfx', new RedactedValue('a file without private key'), PFX)
  return pair(
    keys,
    contents.certificates.length === 0 ? [] : parseCertificates(contents.certificates),
  )
}

const parseCertificates = (value: unknown): readonly (readonly Certificate[])[] =>
  readDerGroups('cert', value, 'CERTIFICATE', CERT).map(group =>
    group.map(bytes => {
      const certificate = parseCertificate(bytes)
      if (isMalformed(certificate)) {
        throw OptionError.saying(
          'cert',
          `"cert" is not a valid certificate: ${certificate.problem}`,
        )
      }
      if (readPublicKey(certificate.spki) === undefined) {
        throw new OptionError('cert', new RedactedValue('a certificate with another key'), KEY)
      }
      return certificate
    }),
  )

const parseKeyOption = (option: string, value: unknown, passphrase: unknown): PrivateKey => {
  const isPair = typeof value === 'object' && value !== null && 'pem' in value
  const source = isPair ? value.pem : value
  const secret = isPair
    ? ((value as { passphrase?: unknown }).passphrase ?? passphrase)
    : passphrase
  if (secret !== undefined && typeof secret !== 'string' && !(secret instanceof Uint8Array)) {
    throw new OptionError('passphrase', withoutContent(secret), PASSPHRASE)
  }
  const isReadable =
    typeof source === 'string' ||
    source instanceof Uint8Array ||
    (typeof source === 'object' && source !== null && (source as KeyObject).type === 'private')
  const key = isReadable
    ? readPrivateKey(source as string | Uint8Array | KeyObject, secret)
    : undefined
  if (key !== undefined) return key
  const hint = secret === undefined ? '' : ', which "passphrase" opens'
  throw new OptionError(option, withoutContent(source), KEY + hint)
}

/** As tls does, keys and certificates find each other whatever their order; other certificates are issuers. */
const pair = (
  keys: readonly PrivateKey[],
  groups: readonly (readonly Certificate[])[],
): readonly OwnKey[] => {
  const isFor = (group: readonly Certificate[], { publicKey }: PrivateKey): boolean =>
    group[0] !== undefined && equal(group[0].spki, publicKey.spki)
  const issuers = groups.filter(group => !keys.some(key => isFor(group, key))).flat()
  if (groups.length === 0) return keys.map(key => ({ key, publicKey: key.publicKey, chain: [] }))
  return keys.map(key => {
    const group = groups.find(candidate => isFor(candidate, key))
    if (group === undefined) {
      throw new OptionError(
        'key',
        new RedactedValue(`a key of kind ${key.publicKey.kind}`),
        'the key of a certificate in "cert"',
      )
    }
    return { key, publicKey: key.publicKey, chain: withIssuers(group, issuers) }
  })
}

/** What stands in one file stays as it is; from its last certificate on, issuers are found by name. */
const withIssuers = (
  group: readonly Certificate[],
  issuers: readonly Certificate[],
): readonly Certificate[] => {
  const chain = [...group]
  for (let last = chain.at(-1); last !== undefined && !isSelfIssued(last); last = chain.at(-1)) {
    const { issuer } = last
    const next = issuers.find(candidate => sameName(candidate.subject, issuer))
    if (next === undefined || chain.includes(next)) break
    chain.push(next)
  }
  return chain
}

const keptElsewhere = (
  groups: readonly (readonly Certificate[])[],
  key: unknown,
  sign: unknown,
): readonly OwnKey[] => {
  if (typeof sign !== 'function') {
    throw new OptionError(
      'sign',
      withoutContent(sign),
      'a function ({ algorithm, hash, message }) → signature',
    )
  }
  if (key !== undefined)
    throw OptionError.saying(
      'key',
      '"key" cannot be combined with "sign", which signs in its stead',
    )
  const [first, ...others] = groups
  if (first?.[0] === undefined) {
    throw new OptionError('cert', undefined, `given with "sign": ${CERT}`)
  }
  const publicKey = readPublicKey(first[0].spki)!
  return [{ publicKey, key: undefined, chain: withIssuers(first, others.flat()) }]
}

/**
 * RFC 7296 §3.7: a peer says by SHA-1 digests of public keys which authorities it trusts. Who asks for
 * nothing, or for others, gets our first, since many peers ask for nothing and take it all the same.
 * `anchors`: authorities that we know and that need not stand in a chain.
 */
export const chooseKey = (
  backend: Backend,
  keys: readonly OwnKey[],
  anchors: readonly Certificate[],
  requests: readonly Payload[],
): OwnKey | undefined => {
  const wanted = new Set(requests.flatMap(digestsOf))
  if (wanted.size === 0) return keys[0]
  const isWanted = ({ spki }: Certificate): boolean => wanted.has(toHex(keyDigest(backend, spki)))
  const leadsThere = ({ chain }: OwnKey): boolean => {
    const last = chain.at(-1)
    if (last === undefined) return false
    return (
      chain.slice(1).some(isWanted) ||
      anchors.some(anchor => sameName(anchor.subject, last.issuer) && isWanted(anchor))
    )
  }
  return keys.find(leadsThere) ?? keys[0]
}

const digestsOf = (request: Payload): readonly string[] =>
  request.kind === 'certreq' && request.encoding === CertEncoding.X509Signature
    ? Array.from({ length: Math.floor(request.data.length / DIGEST) }, (_, i) =>
        toHex(request.data.subarray(i * DIGEST, (i + 1) * DIGEST)),
      )
    : []

/** SHA-1 names a key here and protects nothing. */
export const keyDigest = (backend: Backend, spki: Uint8Array): Uint8Array =>
  computeHash(backend, HashAlgorithm.Sha1, spki)

/** CERT payloads: our own first (RFC 7296 §3.6), or the raw public key (RFC 7670 §3). */
export const showKey = ({ chain, publicKey }: OwnKey): readonly Payload[] =>
  chain.length === 0
    ? [{ kind: 'cert', encoding: CertEncoding.RawPublicKey, data: publicKey.spki }]
    : chain.map(({ bytes }) => ({
        kind: 'cert',
        encoding: CertEncoding.X509Signature,
        data: bytes,
      }))
