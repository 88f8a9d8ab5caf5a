/** The certificates that a peer sends: from octets to a key that is believed to be the peer's (RFC 4945). */
import type { Backend } from '../crypto/prf.ts'
import type { PublicKey } from '../crypto/signature.ts'
import { Budget } from './budget.ts'
import { isMalformed, parseCertificate, type Certificate } from './certificate.ts'
import { hasIdentity, listNames } from './certificate-identity.ts'
import { KeyPurpose, KeyUsage } from './extensions.ts'
import { failure, isFailure, type Failure } from './failure.ts'
import { formatIdentity, type Identity } from './identity.ts'
import { buildPath, type PathOptions, type TrustAnchors } from './path.ts'
import { ANY_POLICIES } from './policies.ts'
import { checkRevocation, type RevocationOptions } from './revocation.ts'
import { signaturePolicy } from './signed.ts'

export interface PeerCertificateOptions {
  readonly anchors: TrustAnchors
  /** Ours, to be used beside those that the peer sends. */
  readonly intermediates: readonly Certificate[]
  /** Milliseconds since 1970. */
  readonly time: number
  readonly backend: Backend
  /** What the peer says it is; undefined: what is in its certificate does not matter. */
  readonly identity: Identity | undefined
  /** Also take certificates whose extendedKeyUsage is for TLS alone, as those of public CAs are. */
  readonly allowsTlsPurposes: boolean
  /** Take a self-signed certificate that is itself among the anchors. */
  readonly allowsPinned: boolean
  readonly revocation: RevocationOptions
}

export interface PeerCertificate {
  readonly certificate: Certificate
  readonly key: PublicKey
  /** The peer's first, the trust anchor last. */
  readonly chain: readonly Certificate[]
}

/** What a stranger may make us read before any signature is looked at. */
const COUNT_LIMIT = 32
const SIZE_LIMIT = 65_536
const INTERMEDIATES = 8

/** `encoded`: the peer's own certificate first (RFC 7296 §3.6), others in any order. */
export const verifyPeerCertificate = (
  encoded: readonly Uint8Array[],
  options: PeerCertificateOptions,
): PeerCertificate | Failure => {
  const size = encoded.reduce((sum, { length }) => sum + length, 0)
  const [first, ...others] = encoded
  if (first === undefined) return unreadable('UNKNOWN_ISSUER', 'The peer sent no certificate')
  if (encoded.length > COUNT_LIMIT || size > SIZE_LIMIT)
    return unreadable(
      'TOO_LARGE',
      `The peer sent ${encoded.length} certificates of ${size} octets together, which is too much`,
    )
  const certificate = parseCertificate(first)
  if (isMalformed(certificate))
    return unreadable(
      'MALFORMED',
      `The certificate of the peer is malformed: ${certificate.problem}`,
    )
  const sent = others
    .map(parseCertificate)
    .filter((other): other is Certificate => !isMalformed(other))
  const pathOptions: PathOptions = {
    anchors: options.anchors,
    intermediates: [...sent, ...options.intermediates],
    time: options.time,
    signatures: signaturePolicy(options.backend),
    purposes: options.allowsTlsPurposes
      ? [KeyPurpose.IpsecIke, KeyPurpose.ServerAuth, KeyPurpose.ClientAuth]
      : [KeyPurpose.IpsecIke],
    policies: ANY_POLICIES,
    isStrict: false,
    maximumIntermediates: INTERMEDIATES,
    allowsPinned: options.allowsPinned,
  }
  const path = buildPath(certificate, pathOptions, new Budget(options.backend))
  if (isFailure(path)) return path
  const problem =
    checkEndEntity(certificate) ??
    checkIdentity(certificate, options.identity) ??
    checkRevocation(path, options.revocation, pathOptions)
  if (problem !== undefined) return problem
  const key = pathOptions.signatures.readKey(certificate.spki)
  return key === undefined
    ? failure('WEAK_KEY', certificate, 'has a public key that is malformed or too weak')
    : { certificate, key, chain: path.chain }
}

const unreadable = (code: Failure['code'], message: string): Failure => ({
  code,
  certificate: '',
  message,
})

/** RFC 4945 §5.1.3.2: a key that signs in IKE is for signatures, when the certificate says what it is for. */
export const checkEndEntity = (certificate: Certificate): Failure | undefined => {
  const { keyUsage } = certificate.extensions
  return keyUsage === undefined ||
    keyUsage.has(KeyUsage.DigitalSignature) ||
    keyUsage.has(KeyUsage.NonRepudiation)
    ? undefined
    : failure('KEY_USAGE', certificate, 'is not for signatures by its keyUsage')
}

const checkIdentity = (
  certificate: Certificate,
  identity: Identity | undefined,
): Failure | undefined =>
  identity === undefined || hasIdentity(certificate, identity)
    ? undefined
    : failure(
        'IDENTITY',
        certificate,
        `is not for the identity ${formatIdentity(identity)}, only for ${listNames(certificate)}`,
      )
