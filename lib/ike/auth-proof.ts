/**
 * Proofs of IKE_AUTH: ours made and the peer's checked (RFC 7296 §2.15), with pre-shared keys, signatures
 * (RFC 7427) or the key of an EAP method (§2.16), and with a post-quantum key mixed in (RFC 8784).
 */
import { formatAddress } from '../base/address.ts'
import { concat, EMPTY, equal } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import { errorOf, type UnprovenReason } from '../base/error-table.ts'
import type { IpsecError } from '../base/errors.ts'
import { Secret } from '../base/secret.ts'
import { mixPpk } from '../crypto/key-material.ts'
import { checkSharedKeyAuth, sharedKeyAuth, signedOctets } from '../identity/auth.ts'
import { describeCertificate } from '../identity/certificate.ts'
import { CN_IS_NO_NAME } from '../identity/certificate-identity.ts'
import { printTime } from '../identity/failure.ts'
import { formatName } from '../identity/name.ts'
import { chooseKey, showKey, type OwnKey } from '../identity/own-keys.ts'
import { answeredSecret, UNBOUND_SECRET, type PeerSecret } from '../identity/pre-shared-key.ts'
import {
  formatIdentity,
  identityMatches,
  identityProblem,
  type Identity,
} from '../identity/identity.ts'
import type { Ppk } from '../identity/ppk.ts'
import type { ProofFact } from '../identity/principal.ts'
import {
  chooseSignature,
  encodeSignature,
  isSignatureMethod,
  signatureProblem,
  type SignatureChoice,
} from '../identity/signature-auth.ts'
import type {
  Authentication,
  PresentedCredential,
  ShownCertificate,
  StatusData,
  Trust,
} from '../identity/trust.ts'
import type { Payload } from '../wire/payloads.ts'
import { AuthMethod, CertEncoding, IdType } from '../wire/registry.ts'
import { ask, type AuthContext, type Next, type Outcome } from './auth-steps.ts'
import type { Answers } from './exchange.ts'

/** AUTH payload's content. */
export interface Proof {
  readonly method: number
  readonly data: Uint8Array
}

/** An end of the SA, whose proof is made or checked. */
export interface Claim {
  readonly ofInitiator: boolean
  /** Whose proof it is. */
  readonly identity: Identity
  readonly ppk: Ppk | undefined
}

/** What that end signs: its first message, the other's nonce, its identity (§2.15). */
const octetsOf = (sa: AuthContext, { ofInitiator, identity, ppk }: Claim): Uint8Array => {
  const { request, response, nonceI, nonceR, suite } = sa.handshake
  const plain = ofInitiator ? sa.skPi : sa.skPr
  const skP = ppk === undefined ? plain : mixPpk(suite.prf, ppk.secret, plain)
  const octets = ofInitiator
    ? signedOctets(suite.prf, request, nonceR, skP, identity)
    : signedOctets(suite.prf, response, nonceI, skP, identity)
  if (skP !== plain) skP.wipe()
  return octets
}

// --- pre-shared keys ---

/** The key for a pair of identities, which the taker wipes. */
const findSecret = (
  sa: AuthContext,
  local: Identity,
  remote: Identity,
  next: Next<PeerSecret | undefined>,
  now: Millis,
): Outcome => {
  const found = sa.config.credentials.secretOf(remote)
  return found === 'ask'
    ? ask({ kind: 'findSecret', local, remote }, (answer, later) =>
        next(answeredKey(answer.findSecret), later),
      )
    : next(found && copyOf(found), now)
}

const answeredKey = (key: Answers['findSecret'] | undefined): PeerSecret | undefined =>
  key === undefined || key.length === 0 ? undefined : answeredSecret(key)

const copyOf = (found: PeerSecret): PeerSecret => ({
  ...found,
  secret: new Secret(found.secret.bytes),
  others: found.others.map(({ bytes }) => new Secret(bytes)),
})

const wipeAll = ({ secret, others }: PeerSecret): void => {
  for (const key of [secret, ...others]) key.wipe()
}

/** Also with the MSK of an EAP method in the place of the shared key (§2.16). */
export const proveWithSecret = (sa: AuthContext, claim: Claim, secret: Secret): Proof => ({
  method: AuthMethod.SharedKey,
  data: sharedKeyAuth(sa.suite.prf, secret.bytes, octetsOf(sa, claim)),
})

/** `secret` undefined costs as much and proves nothing. */
export const checkSecret = (
  sa: AuthContext,
  claim: Claim,
  secret: Secret | undefined,
  proof: Proof | undefined,
): boolean => {
  const data = proof?.method === AuthMethod.SharedKey ? proof.data : EMPTY
  return checkSharedKeyAuth(sa.suite.prf, secret?.bytes, octetsOf(sa, claim), data)
}

// --- ours ---

/** How we prove ourselves, for an error: the name of the proof, and what to check when the peer refuses it. */
interface ShownAs {
  readonly name: string
  readonly cure: string
}

export type OwnProofs =
  | {
      readonly kind: 'proofs'
      /** CERT payloads. */
      readonly shown: readonly Payload[]
      /** One for each claim, all of the same method. */
      readonly proofs: readonly Proof[]
      /** The pre-shared key they were made with; the taker wipes it. */
      readonly secret: PeerSecret | undefined
      /** So many pre-shared keys we could prove ourselves by. */
      readonly keys: number
      readonly shownAs: ShownAs
    }
  | { readonly kind: 'failed'; readonly error: IpsecError }

/**
 * Proves the same identity of ours once for each claim. `requests`: the peer's CERTREQ. `bySecret`: although
 * we have a key. `keyIndex`: which of the pre-shared keys for that peer.
 */
export const prove = (
  sa: AuthContext,
  claims: readonly Claim[],
  remote: Identity,
  requests: readonly Payload[],
  bySecret: boolean,
  keyIndex: number,
  next: Next<OwnProofs>,
  now: Millis,
): Outcome => {
  const { ownKeys } = sa.config.credentials
  if (ownKeys.length > 0 && !bySecret) return proveWithKey(sa, claims, requests, next, now)
  const byFound: Next<PeerSecret | undefined> = (found, later) => {
    if (found === undefined) {
      const error = errorOf('NO_OWN_PSK', { peer: formatIdentity(remote) })
      return next({ kind: 'failed', error }, later)
    }
    const keys = [found.secret, ...found.others]
    const count = keys.length
    const at = keyIndex % count
    const [secret = found.secret] = keys.splice(at, 1)
    for (const key of keys) key.wipe()
    const proofs = claims.map(claim => proveWithSecret(sa, claim, secret))
    return next(
      {
        kind: 'proofs',
        shown: [],
        proofs,
        secret: { ...found, secret, others: [] },
        keys: count,
        shownAs: secretShownAs(secret, at, count),
      },
      later,
    )
  }
  return findSecret(sa, claims[0]!.identity, remote, byFound, now)
}

const proveWithKey = (
  sa: AuthContext,
  claims: readonly Claim[],
  requests: readonly Payload[],
  next: Next<OwnProofs>,
  now: Millis,
): Outcome => {
  const { ownKeys, trust, rsaPkcs1 } = sa.config.credentials
  const { backend } = sa.config.policy
  const choose = ({ publicKey }: OwnKey): SignatureChoice | undefined =>
    chooseSignature(publicKey, sa.handshake.peerHashes, rsaPkcs1)
  const usable = ownKeys.filter(key => choose(key) !== undefined)
  const own = chooseKey(backend, usable, trust?.anchors ?? [], requests)
  const choice = own && choose(own)
  if (own === undefined || choice === undefined) {
    const keys = ownKeys.map(({ publicKey }) => publicKey.kind).join(', ')
    return next({ kind: 'failed', error: errorOf('NO_COMMON_SIGNATURE', { keys }) }, now)
  }
  const show: Next<readonly Proof[] | undefined> = (proofs, later) =>
    proofs === undefined
      ? next({ kind: 'failed', error: errorOf('NO_SIGNATURE', {}) }, later)
      : showOwnKey(sa, own, requests, proofs, next, later)
  return sign(sa, own, choice, claims, [], show, now)
}

/** One signature after the other, since a key that is kept elsewhere answers later. */
const sign = (
  sa: AuthContext,
  own: OwnKey,
  choice: SignatureChoice,
  claims: readonly Claim[],
  done: readonly Proof[],
  next: Next<readonly Proof[] | undefined>,
  now: Millis,
): Outcome => {
  const [claim, ...rest] = claims
  if (claim === undefined) return next(done, now)
  const { algorithm, method } = choice
  const message = octetsOf(sa, claim)
  const take: Next<Uint8Array | undefined> = (signature, later) => {
    const data = signature && encodeSignature(choice, own.publicKey, signature)
    return data === undefined
      ? next(undefined, later)
      : sign(sa, own, choice, rest, [...done, { method, data }], next, later)
  }
  if (own.key !== undefined) {
    return take(own.key.sign(sa.config.policy.backend, algorithm, message), now)
  }
  return ask({ kind: 'sign', algorithm, message }, (answer, later) =>
    take(answer.sign && new Uint8Array(answer.sign), later),
  )
}

const secretShownAs = ({ bytes }: Secret, at: number, count: number): ShownAs => ({
  name: count === 1 ? 'the pre-shared key' : `pre-shared key ${at + 1} of ${count}`,
  cure:
    'Compare the keys of both ends octet by octet' +
    (endsInLineBreak(bytes) ? ': ours ends in a line break, as a file does.' : '.') +
    ' The peer must also have a key for that identity; one that wants the login of a user needs "eap" here.',
})

const keyShownAs = (sa: AuthContext, { chain }: OwnKey): ShownAs => {
  const [certificate] = chain
  if (certificate === undefined) {
    return { name: 'a raw public key', cure: 'The peer must have that key in its "peerKeys".' }
  }
  const clock = printTime(sa.config.environment.wallClock())
  return {
    name: `the certificate ${describeCertificate(certificate)} of ${formatName(certificate.issuer)}, valid from ${printTime(certificate.notBefore)} to ${printTime(certificate.notAfter)}`,
    cure: `The peer must trust that issuer ("ca" there; certificates between belong in "cert" here), and the certificate must be for that identity, not revoked, and valid by both clocks (ours says ${clock}). A peer that wants the login of a user needs "eap" here.`,
  }
}

/** CERT payloads, and an OCSP answer that a peer which asks for it needs not fetch (RFC 4806 §4.2). */
const showOwnKey = (
  sa: AuthContext,
  own: OwnKey,
  requests: readonly Payload[],
  proofs: readonly Proof[],
  next: Next<OwnProofs>,
  now: Millis,
): Outcome => {
  const { ocspResponse } = sa.config.credentials
  const isWanted = requests.some(
    request => request.kind === 'certreq' && request.encoding === CertEncoding.OcspContent,
  )
  const show: Next<Uint8Array | undefined> = (data, later) => {
    const along: readonly Payload[] =
      data === undefined ? [] : [{ kind: 'cert', encoding: CertEncoding.OcspContent, data }]
    return next(
      {
        kind: 'proofs',
        shown: [...showKey(own), ...along],
        proofs,
        secret: undefined,
        keys: 0,
        shownAs: keyShownAs(sa, own),
      },
      later,
    )
  }
  if (!isWanted) return show(undefined, now)
  if (ocspResponse !== 'ask') return show(ocspResponse, now)
  return ask({ kind: 'ocspResponse' }, (answer, later) => show(answer.ocspResponse, later))
}

// --- the peer's ---

export interface Proven {
  readonly kind: 'proven'
  readonly proof: ProofFact
  readonly authentication: Authentication
  /** Which of its pre-shared keys the peer has used. */
  readonly keyIndex: number
  readonly certificates: readonly Uint8Array[]
  /** The proof is good until then, in Unix milliseconds. */
  readonly validUntil: number
}

export interface Unproven {
  readonly kind: 'refused'
  readonly why: string
  readonly reason: UnprovenReason
  /** What the peer has shown, with the failing one marked. */
  readonly certificates?: readonly ShownCertificate[] | undefined
}

export type Verdict = Proven | Unproven

export interface Evidence {
  readonly claim: Claim
  readonly local: Identity
  readonly proof: Proof | undefined
  /** The message that it came in: CERT payloads. */
  readonly payloads: readonly Payload[]
  /** The pre-shared key that we proved ourselves with: the peer's must be the same (§2.15). */
  readonly secret: PeerSecret | undefined
}

const refused = (why: string, reason: UnprovenReason): Unproven => ({
  kind: 'refused',
  why,
  reason,
})

/** Whether the peer is who it says it is, and one that we expect. The words are for our own side. */
export const check = (
  sa: AuthContext,
  evidence: Evidence,
  next: Next<Verdict>,
  now: Millis,
): Outcome => {
  const { claim, local, proof, secret } = evidence
  const { trust, acceptsBothMethods } = sa.config.credentials
  const problem = identityProblem(claim.identity)
  if (problem !== undefined) return next(refused(`its identity ${problem}`, 'BAD_IDENTITY'), now)
  const bySecret = acceptsBothMethods && claim.ofInitiator && proof?.method === AuthMethod.SharedKey
  if (trust !== undefined && !bySecret) return checkSignature(sa, evidence, trust, next, now)
  const judge: Next<PeerSecret | undefined> = (found, later) => {
    // Computed in every case, so that no answer comes sooner than another.
    const keyIndex = matchingKey(sa, claim, found, proof)
    const isNear = keyIndex < 0 && differsByLineBreak(sa, claim, found?.secret, proof)
    const refusal = secretRefusal(sa, evidence, found !== undefined, keyIndex >= 0, isNear)
    if (found !== undefined) wipeAll(found)
    const verdict: Verdict =
      refusal === undefined
        ? {
            kind: 'proven',
            proof: found?.proof ?? UNBOUND_SECRET,
            authentication: 'psk',
            keyIndex,
            certificates: [],
            validUntil: Infinity,
          }
        : refusal
    return next(verdict, later)
  }
  return secret === undefined
    ? findSecret(sa, local, claim.identity, judge, now)
    : judge(secret, now)
}

/** -1: none. As many are tried for every peer, known or not. */
const matchingKey = (
  sa: AuthContext,
  claim: Claim,
  found: PeerSecret | undefined,
  proof: Proof | undefined,
): number => {
  const keys = found === undefined ? [] : [found.secret, ...found.others]
  let match = -1
  for (let at = 0; at < Math.max(keys.length, sa.config.credentials.keysTried); at++) {
    if (checkSecret(sa, claim, keys[at], proof) && match < 0) match = at
  }
  return match
}

/** RFC 7296 §2.16: by leaving AUTH out an initiator asks for EAP, which this end does not do as a responder. */
const NO_PROOF =
  'it wants to authenticate itself by EAP, which servers here do not do (it sent no AUTH payload)'

const secretRefusal = (
  sa: AuthContext,
  { claim, local, proof }: Evidence,
  hasSecret: boolean,
  proven: boolean,
  isNear: boolean,
): Verdict | undefined => {
  if (proof === undefined) return refused(NO_PROOF, 'EAP_WANTED')
  const unexpected = unexpectedIdentity(sa, claim.identity)
  if (unexpected !== undefined) return refused(unexpected, 'WRONG_IDENTITY')
  if (proof.method !== AuthMethod.SharedKey) {
    const why =
      'it does not prove itself with a pre-shared key, and there is no "ca" to trust its certificate by'
    return refused(why, 'WRONG_METHOD')
  }
  if (!hasSecret) {
    const why = `there is no pre-shared key for it (we are ${formatIdentity(local)})`
    return refused(why, 'UNKNOWN_PEER')
  }
  if (proven) return undefined
  return isNear
    ? refused(
        'it does not know the pre-shared key: the keys differ in a line break at the end alone',
        'PSK_LINE_BREAK',
      )
    : refused('it does not know the pre-shared key', 'WRONG_PSK')
}

/**
 * Whether the peer's key is ours but for a line break at the end, as keys read from a file have. One more MAC for each
 * proof that fails, known peer or not, so that none is told from another.
 */
const differsByLineBreak = (
  sa: AuthContext,
  claim: Claim,
  secret: Secret | undefined,
  proof: Proof | undefined,
): boolean => {
  const near = secret && new Secret(otherLineEnd(secret.bytes))
  const isNear = checkSecret(sa, claim, near, proof)
  near?.wipe()
  return isNear
}

const LINE_FEED = 10
const endsInLineBreak = (key: Uint8Array): boolean => key.at(-1) === LINE_FEED

const otherLineEnd = (key: Uint8Array): Uint8Array =>
  endsInLineBreak(key) ? key.subarray(0, -1) : concat(key, Uint8Array.of(LINE_FEED))

/** Why that is not whom we expect; undefined: it is, or anyone is. */
export const unexpectedIdentity = (sa: AuthContext, identity: Identity): string | undefined => {
  const wanted = sa.config.credentials.remoteIdentity
  return wanted === undefined || identityMatches(wanted, identity)
    ? undefined
    : `${formatIdentity(wanted)} is expected${hintAbout(identity, wanted)}`
}

const hintAbout = (identity: Identity, wanted: Identity): string => {
  if (isUnspecified(identity)) return ', and the peer does not name itself'
  return identity.type === IdType.DerDn && wanted.type !== IdType.DerDn
    ? `, and the peer goes by the subject of its certificate, of which ${CN_IS_NO_NAME}`
    : ''
}

/** 0.0.0.0 or ::, as a peer says that does not know its own address. */
const isUnspecified = (identity: Identity): boolean =>
  isAddress(identity) && identity.data.every(octet => octet === 0)

const isAddress = ({ type }: Identity): boolean => type === IdType.Ipv4 || type === IdType.Ipv6

const checkSignature = (
  sa: AuthContext,
  { claim, proof, payloads }: Evidence,
  trust: Trust,
  next: Next<Verdict>,
  now: Millis,
): Outcome => {
  const { credentials, policy } = sa.config
  const { identity } = claim
  const refuse = (why: string, reason: UnprovenReason): Outcome => next(refused(why, reason), now)
  if (proof === undefined) return refuse(NO_PROOF, 'EAP_WANTED')
  const unexpected = unexpectedIdentity(sa, identity)
  if (unexpected !== undefined) return refuse(unexpected, 'WRONG_IDENTITY')
  if (!isSignatureMethod(proof.method)) {
    return refuse('it does not prove itself with a certificate or public key', 'WRONG_METHOD')
  }
  // The signature comes first: a peer without the key must not make us validate a chain.
  const shown = trust.readShown(payloads)
  if (shown.kind === 'refused') return refuse(shown.why, shown.code)
  if (
    shown.kind === 'certificates' &&
    isAddress(identity) &&
    !equal(identity.data, sa.path.remoteAddress)
  ) {
    // RFC 4945 §3.1.1; who is behind a NAT has a name, or its subject, to go by.
    return refuse(
      `its identity is an address, but it comes from ${formatAddress(sa.path.remoteAddress)} (RFC 4945 section 3.1.1)`,
      'IDENTITY',
    )
  }
  const { rsaPkcs1 } = credentials
  const { method, data } = proof
  const octets = octetsOf(sa, claim)
  const problem = signatureProblem(policy.backend, shown.publicKey, method, data, octets, rsaPkcs1)
  if (problem !== undefined) return refuse(problem, 'BAD_SIGNATURE_PROOF')
  return judgeTrust(sa, trust, shown, identity, undefined, next, now)
}

/** The peer holds that key; whether it is one to be trusted, for this identity. */
const judgeTrust = (
  sa: AuthContext,
  trust: Trust,
  shown: Exclude<PresentedCredential, { kind: 'refused' }>,
  identity: Identity,
  status: StatusData | undefined,
  next: Next<Verdict>,
  now: Millis,
): Outcome => {
  const { credentials, policy, environment } = sa.config
  // An identity that is expected says more than the name of a host.
  const host = credentials.remoteIdentity === undefined ? credentials.peerName : undefined
  const at = environment.wallClock()
  const verdict = trust.judge(policy.backend, shown, identity, host, at, status)
  switch (verdict.kind) {
    case 'refused':
      return next(
        { ...refused(verdict.why, verdict.code), certificates: verdict.certificates },
        now,
      )
    case 'needsStatus':
      return ask({ kind: 'fetchStatus', wanted: verdict.wanted }, (answer, later) => {
        const fetched = answer.fetchStatus ?? { crls: [], ocsp: [] }
        return judgeTrust(sa, trust, shown, identity, fetched, next, later)
      })
    case 'trusted': {
      const { proof, authentication, certificates, validUntil } = verdict
      return next(
        { kind: 'proven', proof, authentication, keyIndex: 0, certificates, validUntil },
        now,
      )
    }
    default:
      return verdict satisfies never
  }
}
