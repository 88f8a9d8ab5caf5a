/**
 * Proofs of IKE_AUTH: ours made and the peer's checked (RFC 7296 §2.15), with pre-shared keys, signatures
 * (RFC 7427) or the key of an EAP method (§2.16), and with a post-quantum key mixed in (RFC 8784).
 * Whatever the application has to be asked for comes by `then`, now or later.
 */
import { formatAddress } from '../base/address.ts'
import { EMPTY, equal } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import { Secret } from '../base/secret.ts'
import { mixPpk } from '../crypto/key-material.ts'
import { checkSharedKeyAuth, sharedKeyAuth, signedOctets } from '../identity/auth.ts'
import { chooseKey, showKey, type OwnKey } from '../identity/own-keys.ts'
import { parseKey } from '../identity/pre-shared-key.ts'
import { formatIdentity, identityMatches, type Identity } from '../identity/identity.ts'
import type { Ppk } from '../identity/ppk.ts'
import {
  chooseSignature,
  encodeSignature,
  isSignatureMethod,
  signatureProblem,
  type SignatureChoice,
} from '../identity/signature-auth.ts'
import type { Authentication, StatusData } from '../identity/trust.ts'
import type { PeerPolicy } from '../policy/options.ts'
import type { Payload } from '../wire/payloads.ts'
import { AuthMethod, CertEncoding, IdType } from '../wire/registry.ts'
import type { ExchangeContext, PeerFacts, Question } from './exchange.ts'
import type { Handshake } from './sa-init.ts'

/** What IKE_AUTH needs of its SA beyond any exchange. */
export interface AuthContext extends ExchangeContext {
  readonly handshake: Handshake
  readonly skPi: Secret
  readonly skPr: Secret
  ask(question: Question, then: Then<unknown>, now: Millis): void
  /** A parked request is built again. */
  resume(now: Millis): void
  /** The answer of a parked response. */
  respondLater(payloads: readonly Payload[], now: Millis): void
  /** Mixes the key into SK_d: the peer has shown that it has it (RFC 8784 §3). */
  usePpk(ppk: Ppk): void
  /** The application's own policy for this peer. */
  adoptPolicy(policy: PeerPolicy): void
  /** `replaces`: SPIs of an IKE SA of the same peer. */
  establish(peer: PeerFacts, now: Millis, replaces?: Uint8Array): void
}

export type Then<T> = (result: T, now: Millis) => void

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
export const withSecret = (
  sa: AuthContext,
  local: Identity,
  remote: Identity,
  then: Then<Secret | undefined>,
  now: Millis,
): void => {
  const secret = sa.config.credentials.secretFor(local, remote)
  if (secret !== 'ask') return then(secret && new Secret(secret.bytes), now)
  sa.ask(
    { kind: 'findSecret', local, remote },
    (value, later) => then(isKey(value) ? parseKey('psk', value) : undefined, later),
    now,
  )
}

const isKey = (value: unknown): boolean =>
  (typeof value === 'string' || value instanceof Uint8Array) && value.length > 0

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

export type OwnProofs =
  | {
      readonly kind: 'proofs'
      /** CERT payloads. */
      readonly shown: readonly Payload[]
      /** One for each claim, all of the same method. */
      readonly proofs: readonly Proof[]
      /** The pre-shared key they were made with; the taker wipes it. */
      readonly secret: Secret | undefined
    }
  | { readonly kind: 'failed'; readonly why: string }

/** Proves the same identity of ours once for each claim. `bySecret`: although we have a key. */
export const prove = (
  sa: AuthContext,
  claims: readonly Claim[],
  remote: Identity,
  requests: readonly Payload[],
  bySecret: boolean,
  then: Then<OwnProofs>,
  now: Millis,
): void => {
  const { ownKeys } = sa.config.credentials
  if (ownKeys.length > 0 && !bySecret) return proveWithKey(sa, claims, requests, then, now)
  withSecret(
    sa,
    claims[0]!.identity,
    remote,
    (secret, later) => {
      if (secret === undefined) {
        return then({ kind: 'failed', why: 'There is no pre-shared key for this peer' }, later)
      }
      const proofs = claims.map(claim => proveWithSecret(sa, claim, secret))
      then({ kind: 'proofs', shown: [], proofs, secret }, later)
    },
    now,
  )
}

const proveWithKey = (
  sa: AuthContext,
  claims: readonly Claim[],
  requests: readonly Payload[],
  then: Then<OwnProofs>,
  now: Millis,
): void => {
  const { ownKeys, trust, rsaPkcs1 } = sa.config.credentials
  const { backend } = sa.config.policy
  const choose = ({ publicKey }: OwnKey): SignatureChoice | undefined =>
    chooseSignature(publicKey, sa.handshake.peerHashes, rsaPkcs1)
  const usable = ownKeys.filter(key => choose(key) !== undefined)
  const own = chooseKey(backend, usable, trust?.anchors ?? [], requests)
  if (own === undefined) {
    const why = `The peer takes no signature that our ${ownKeys.map(({ publicKey }) => publicKey.kind).join(', ')} key makes`
    return then({ kind: 'failed', why }, now)
  }
  const choice = choose(own)!
  signAll(
    sa,
    own,
    choice,
    claims,
    [],
    (proofs, later) => {
      if (proofs === undefined) return then({ kind: 'failed', why: 'Our key did not sign' }, later)
      withOcspResponse(
        sa,
        requests,
        (response, end) => {
          const shown = [...showKey(own), ...response]
          then({ kind: 'proofs', shown, proofs, secret: undefined }, end)
        },
        later,
      )
    },
    now,
  )
}

/** RFC 4806 §4.2: what a peer that asks for it needs not fetch. */
const withOcspResponse = (
  sa: AuthContext,
  requests: readonly Payload[],
  then: Then<readonly Payload[]>,
  now: Millis,
): void => {
  const { ocspResponse } = sa.config.credentials
  const isWanted = requests.some(
    request => request.kind === 'certreq' && request.encoding === CertEncoding.OcspContent,
  )
  const payload = (data: Uint8Array): readonly Payload[] => [
    { kind: 'cert', encoding: CertEncoding.OcspContent, data },
  ]
  if (!isWanted || ocspResponse === undefined) return then([], now)
  if (ocspResponse !== 'ask') return then(payload(ocspResponse), now)
  sa.ask(
    { kind: 'ocspResponse' },
    (value, later) => then(value instanceof Uint8Array ? payload(value) : [], later),
    now,
  )
}

/** One signature after the other, since a key that is kept elsewhere answers later. */
const signAll = (
  sa: AuthContext,
  own: OwnKey,
  choice: SignatureChoice,
  claims: readonly Claim[],
  done: readonly Proof[],
  then: Then<readonly Proof[] | undefined>,
  now: Millis,
): void => {
  const [claim, ...rest] = claims
  if (claim === undefined) return then(done, now)
  const message = octetsOf(sa, claim)
  const take = (signature: Uint8Array | undefined, later: Millis): void => {
    const data = signature && encodeSignature(choice, own.publicKey, signature)
    if (data === undefined) return then(undefined, later)
    signAll(sa, own, choice, rest, [...done, { method: choice.method, data }], then, later)
  }
  if (own.key !== undefined) {
    return take(own.key.sign(sa.config.policy.backend, choice.algorithm, message), now)
  }
  sa.ask(
    { kind: 'sign', algorithm: choice.algorithm, message },
    (value, later) => take(value instanceof Uint8Array ? new Uint8Array(value) : undefined, later),
    now,
  )
}

// --- the peer's ---

export type Verdict =
  | {
      readonly kind: 'proven'
      readonly authentication: Authentication
      readonly certificates: readonly Uint8Array[]
    }
  | { readonly kind: 'refused'; readonly why: string; readonly code?: string | undefined }

export interface Evidence {
  readonly claim: Claim
  readonly local: Identity
  readonly proof: Proof | undefined
  /** The message that it came in: CERT payloads. */
  readonly payloads: readonly Payload[]
  /** The pre-shared key that we proved ourselves with: the peer's must be the same (§2.15). */
  readonly secret: Secret | undefined
}

/** Whether the peer is who it says it is, and one that we expect. The words are for our own side. */
export const check = (
  sa: AuthContext,
  evidence: Evidence,
  then: Then<Verdict>,
  now: Millis,
): void => {
  const { claim, local, proof } = evidence
  const { trust, eitherWay } = sa.config.credentials
  const bySecret =
    trust === undefined ||
    (eitherWay && claim.ofInitiator && proof?.method === AuthMethod.SharedKey)
  if (!bySecret) return checkSignature(sa, evidence, then, now)
  const judge = (secret: Secret | undefined, later: Millis): void => {
    // Computed in every case, so that no answer comes sooner than another.
    const proven = checkSecret(sa, claim, secret, proof)
    const why = secretRefusal(sa, evidence, secret !== undefined, proven)
    secret?.wipe()
    then(
      why === undefined
        ? { kind: 'proven', authentication: 'psk', certificates: [] }
        : { kind: 'refused', why },
      later,
    )
  }
  if (evidence.secret !== undefined) judge(evidence.secret, now)
  else withSecret(sa, local, claim.identity, judge, now)
}

const secretRefusal = (
  sa: AuthContext,
  { claim, local, proof }: Evidence,
  hasSecret: boolean,
  proven: boolean,
): string | undefined => {
  const unexpected = unexpectedIdentity(sa, claim.identity)
  if (unexpected !== undefined) return unexpected
  if (proof === undefined) return 'it sent no AUTH payload'
  if (proof.method !== AuthMethod.SharedKey) {
    return 'it does not prove itself with a pre-shared key, and there is no "ca" to trust its certificate by'
  }
  if (!hasSecret) return `there is no pre-shared key for it (we are ${formatIdentity(local)})`
  return proven ? undefined : 'it does not know the pre-shared key'
}

const unexpectedIdentity = (sa: AuthContext, identity: Identity): string | undefined => {
  const wanted = sa.config.credentials.remoteIdentity
  return wanted === undefined || identityMatches(wanted, identity)
    ? undefined
    : `${formatIdentity(wanted)} is expected`
}

const isAddress = ({ type }: Identity): boolean => type === IdType.Ipv4 || type === IdType.Ipv6

const checkSignature = (
  sa: AuthContext,
  { claim, proof, payloads }: Evidence,
  then: Then<Verdict>,
  now: Millis,
): void => {
  const { credentials, policy, environment } = sa.config
  const refuse = (why: string, later: Millis, code?: string): void =>
    then({ kind: 'refused', why, code }, later)
  const unexpected = unexpectedIdentity(sa, claim.identity)
  if (unexpected !== undefined) return refuse(unexpected, now)
  if (proof === undefined) return refuse('it sent no AUTH payload', now)
  if (!isSignatureMethod(proof.method)) {
    return refuse('it does not prove itself with a certificate or public key', now)
  }
  const trust = credentials.trust!
  // The one key is checked before the many of a chain: who does not even hold it costs us least.
  const shown = trust.readShown(payloads)
  if (shown.kind === 'refused') return refuse(shown.why, now, shown.code)
  const { identity } = claim
  if (
    shown.kind === 'certificates' &&
    isAddress(identity) &&
    !equal(identity.data, sa.path.remoteAddress)
  ) {
    // RFC 4945 §3.1.1; who is behind a NAT has a name, or its subject, to go by.
    return refuse(
      `its identity is an address, but it comes from ${formatAddress(sa.path.remoteAddress)} (RFC 4945 section 3.1.1)`,
      now,
      'IDENTITY',
    )
  }
  const { rsaPkcs1 } = credentials
  const { method, data } = proof
  const octets = octetsOf(sa, claim)
  const { publicKey } = shown
  const problem = signatureProblem(policy.backend, publicKey, method, data, octets, rsaPkcs1)
  if (problem !== undefined) return refuse(problem, now)
  // An identity that is expected says more than the name of a host.
  const host = credentials.remoteIdentity === undefined ? credentials.peerName : undefined
  const judge = (status: StatusData | undefined, later: Millis): void => {
    const at = environment.wallClock()
    const verdict = trust.judge(policy.backend, shown, claim.identity, host, at, status)
    switch (verdict.kind) {
      case 'refused':
        return refuse(verdict.why, later, verdict.code)
      case 'needsStatus':
        return sa.ask(
          { kind: 'fetchStatus', wanted: verdict.wanted },
          (value, evenLater) =>
            judge((value as StatusData | undefined) ?? { crls: [], ocsp: [] }, evenLater),
          later,
        )
      case 'trusted':
        return then(
          {
            kind: 'proven',
            authentication: verdict.authentication,
            certificates: verdict.certificates,
          },
          later,
        )
      default:
        return verdict satisfies never
    }
  }
  judge(undefined, now)
}
