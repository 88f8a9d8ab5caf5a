/**
 * IKE_AUTH, both halves (RFC 7296 §1.2, §2.16, §2.19, §2.21.2; RFC 8784 §3): identities, proofs, the first
 * Child SA and the configuration payload.
 */
import type { Millis } from '../base/environment.ts'
import {
  AuthenticationError,
  PeerMisbehavedError,
  PeerRefusedError,
  type IpsecError,
} from '../base/errors.ts'
import type { Secret } from '../base/secret.ts'
import { certificateRequest } from '../identity/credentials.ts'
import { addressIdentity, formatIdentity, type Identity } from '../identity/identity.ts'
import { findPpk, type Ppk } from '../identity/ppk.ts'
import { find, hasExcess } from '../wire/message.ts'
import { findErrorNotify, findNotify, notify } from '../wire/notify.ts'
import type { Payload } from '../wire/payloads.ts'
import { ExchangeType, notifyName, NotifyType } from '../wire/registry.ts'
import {
  check,
  checkSecret,
  prove,
  proveWithSecret,
  type AuthContext,
  type Claim,
  type OwnProofs,
  type Proof,
  type Then,
  type Verdict,
} from './auth-proof.ts'
import {
  assignAddresses,
  configurationRequest,
  readConfiguration,
  type Configuration,
} from './configuration.ts'
import { announceAuthLifetime, readAuthLifetime } from './auth-lifetime.ts'
import {
  acceptOffer,
  acceptOptions,
  declineAnswer,
  directChildKeys,
  discardOffer,
  makeOffer,
  offerPayloads,
  settleOffer,
  type ChildOffer,
} from './create-child.ts'
import { EapRounds } from './eap-exchange.ts'
import type {
  AuthorizeAnswer,
  Built,
  ChildRequest,
  Exchange,
  ExchangeContext,
  PeerFacts,
} from './exchange.ts'
import { DeleteIke } from './informational.ts'
import { reportRefusal } from './refusal.ts'

const ownIdentity = (sa: AuthContext): Identity =>
  sa.config.credentials.localIdentity ??
  addressIdentity(sa.path.localAddress.length > 0 ? sa.path.localAddress : new Uint8Array(4))

const idPayload = (kind: 'idi' | 'idr', { type, data }: Identity): Payload => ({
  kind,
  idType: type,
  data,
})

interface Ends {
  readonly local: Identity
  readonly remote: Identity
}

const factsOf = (
  sa: AuthContext,
  { local, remote }: Ends,
  { authentication, certificates }: Verdict & { kind: 'proven' },
  ppk: Ppk | undefined,
  configuration: Configuration,
  assigned: readonly Uint8Array[],
): PeerFacts => ({
  identity: remote,
  localIdentity: local,
  identityText: formatIdentity(remote),
  localIdentityText: formatIdentity(local),
  isOurs: sa.handshake.peerIsOurs,
  authentication,
  certificates,
  usesPpk: ppk !== undefined,
  ikeSuite: sa.suite.text,
  localBehindNat: sa.handshake.nat.localBehindNat,
  remoteBehindNat: sa.handshake.nat.remoteBehindNat,
  virtualAddresses: configuration.addresses,
  dns: configuration.dns,
  netmask: configuration.netmask,
  assignedAddresses: assigned,
})

/** Its result when it came at once; undefined when it is still to come, which `late` then gets. */
const atOnce = <T>(start: (then: Then<T>) => void, late: Then<T>): T | undefined => {
  let early: T | undefined
  let isLate = false
  start((result, now) => {
    if (isLate) late(result, now)
    else early = result
  })
  isLate = true
  return early
}

/** The application has the last word; undefined: the peer may come in. */
const authorize = (
  sa: AuthContext,
  peer: PeerFacts,
  then: Then<string | undefined>,
  now: Millis,
): void => {
  if (!sa.config.credentials.asksAuthorization) return then(undefined, now)
  sa.ask(
    { kind: 'authorize', peer, path: sa.path },
    (value, later) => {
      const answer = value as AuthorizeAnswer | undefined
      if (answer instanceof Error) return then(answer.message, later)
      if (typeof answer === 'object') sa.adoptPolicy(answer.policy)
      then(
        answer === true || typeof answer === 'object' ? undefined : 'it was not authorized',
        later,
      )
    },
    now,
  )
}

const refusalOf = (remote: Identity, why: string, code?: string): AuthenticationError =>
  new AuthenticationError(
    `Peer ${formatIdentity(remote)} could not be authenticated: ${why}`,
    code === undefined ? {} : { details: { reason: code } },
  )

// --- initiator ---

export class Authenticate implements Exchange {
  readonly type = ExchangeType.IkeAuth
  readonly subject = 'nothing'
  private readonly request: ChildRequest | undefined
  private offer: ChildOffer | undefined
  private own: OwnProofs | undefined
  private local: Identity | undefined
  private ppk: Ppk | undefined

  constructor(request: ChildRequest | undefined) {
    this.request = request
  }

  build(context: ExchangeContext, now: Millis): Built {
    const sa = context as AuthContext
    const { credentials, policy } = sa.config
    this.local = ownIdentity(sa)
    if (policy.childless === 'force' && !sa.handshake.childless) {
      const error = 'The peer does not make an IKE SA without Child SA (RFC 6023)'
      sa.finish(new PeerRefusedError('ERR_IKE_CHILDLESS', error), false, now)
      return undefined
    }
    if (credentials.ppk?.required === true && !sa.handshake.ppk) {
      return this.giveUp(sa, 'The peer has no post-quantum pre-shared key', now)
    }
    // RFC 8784 §3: with EAP, the key belongs to the message that carries our AUTH.
    this.ppk = sa.handshake.ppk ? credentials.ppk?.keys[0] : undefined
    if (credentials.eap === undefined) {
      this.own ??= atOnce(
        then => this.prove(sa, then, now),
        (own, later) => {
          this.own = own
          sa.resume(later)
        },
      )
      if (this.own === undefined) return 'parked'
      if (this.own.kind === 'failed') return this.giveUp(sa, this.own.why, now)
    }
    return this.message(sa)
  }

  private giveUp(sa: AuthContext, why: string, now: Millis): undefined {
    sa.finish(new AuthenticationError(why), false, now)
    return undefined
  }

  private prove(sa: AuthContext, then: Then<OwnProofs>, now: Millis): void {
    const { credentials } = sa.config
    const remote = credentials.remoteIdentity ?? addressIdentity(sa.path.remoteAddress)
    const requests = sa.handshake.certificateRequests
    prove(sa, ownClaims(sa, this.local!, this.ppk), remote, requests, false, then, now)
  }

  private message(sa: AuthContext): readonly Payload[] {
    const { credentials, policy } = sa.config
    const { own } = this
    const initialContact =
      (policy.initialContact ?? credentials.localIdentity !== undefined) &&
      sa.config.isFirstContact()
    const request = policy.childless === 'force' ? undefined : this.request
    this.offer = request && makeOffer(sa, request, undefined)
    return [
      idPayload('idi', this.local!),
      ...(own?.kind === 'proofs' ? own.shown : []),
      ...(initialContact ? [notify(NotifyType.InitialContact)] : []),
      ...certificateRequest(policy.backend, credentials),
      ...(credentials.remoteIdentity === undefined || hasWildcard(credentials.remoteIdentity)
        ? []
        : [idPayload('idr', credentials.remoteIdentity)]),
      ...(own?.kind === 'proofs' ? proofPayloads(own.proofs, this.ppk) : []),
      ...(credentials.eap?.only === true ? [notify(NotifyType.EapOnlyAuthentication)] : []),
      ...predecessorNotify(sa),
      ...(policy.virtualAddress ? [configurationRequest(sa.config.heldAddresses())] : []),
      ...(this.offer === undefined ? [] : offerPayloads(this.offer)),
    ]
  }

  onResponse(context: ExchangeContext, payloads: readonly Payload[], now: Millis): void {
    const sa = context as AuthContext
    const id = find(payloads, 'idr')
    const auth = find(payloads, 'auth')
    const eap = find(payloads, 'eap')
    const { credentials } = sa.config
    // RFC 5998 §3: the method itself proves the responder, at the end.
    const byEapAlone = credentials.eap?.only === true && auth === undefined && eap !== undefined
    if (id === undefined || (auth === undefined && !byEapAlone)) {
      return this.onRefused(sa, payloads, now)
    }
    const ends: Ends = { local: this.local!, remote: { type: id.idType, data: id.data } }
    if (byEapAlone) return this.startEap(sa, ends, undefined, eap, now)
    if ((eap === undefined) !== (credentials.eap === undefined)) {
      const why = eap === undefined ? 'it does not ask for EAP' : 'it asks for EAP'
      return this.refuse(sa, ends.remote, why, undefined, now)
    }
    const ppk = eap === undefined ? this.usedPpk(payloads) : undefined
    if (ppk === undefined && eap === undefined && credentials.ppk?.required === true) {
      return this.refuse(sa, ends.remote, 'it uses no post-quantum key', undefined, now)
    }
    const evidence = {
      claim: { ofInitiator: false, identity: ends.remote, ppk },
      local: ends.local,
      proof: auth,
      payloads,
      secret: this.own?.kind === 'proofs' ? this.own.secret : undefined,
    }
    check(
      sa,
      evidence,
      (verdict, later) => {
        if (verdict.kind === 'refused') {
          return this.refuse(sa, ends.remote, verdict.why, verdict.code, later)
        }
        if (eap !== undefined) return this.startEap(sa, ends, verdict, eap, later)
        this.complete(sa, ends, verdict, ppk, payloads, later)
      },
      now,
    )
  }

  private usedPpk(payloads: readonly Payload[]): Ppk | undefined {
    return findNotify(payloads, NotifyType.PpkIdentity) === undefined ? undefined : this.ppk
  }

  /** §2.16: nothing of the user is sent before the responder has proved itself (CVE-2015-4171). */
  private startEap(
    sa: AuthContext,
    ends: Ends,
    verdict: (Verdict & { kind: 'proven' }) | undefined,
    eap: Extract<Payload, { kind: 'eap' }>,
    now: Millis,
  ): void {
    const start = (later: Millis): void => {
      const claims = ownClaims(sa, ends.local, this.ppk)
      const rounds = new EapRounds(sa.config.credentials.eap!, sa.config.environment, {
        prove: msk =>
          proofPayloads(
            claims.map(claim => proveWithSecret(sa, claim, msk)),
            this.ppk,
          ),
        finish: (payloads, msk, end) => this.finishEap(sa, ends, verdict, payloads, msk, end),
        fail: (why, end) => {
          // The peer has ended its half too, or will before long: there is nobody to tell.
          this.abandon(sa)
          sa.finish(refusalOf(ends.remote, why), false, end)
        },
      })
      rounds.take(sa, eap.data, later)
    }
    if (verdict === undefined) return start(now)
    const facts = factsOf(sa, ends, verdict, undefined, readConfiguration([]), [])
    authorize(
      sa,
      facts,
      (why, later) =>
        why === undefined ? start(later) : this.refuse(sa, ends.remote, why, undefined, later),
      now,
    )
  }

  /** Both ends have shown that they know the method's key. */
  private finishEap(
    sa: AuthContext,
    ends: Ends,
    verdict: (Verdict & { kind: 'proven' }) | undefined,
    payloads: readonly Payload[],
    msk: Secret,
    now: Millis,
  ): void {
    const auth = find(payloads, 'auth')
    if (auth === undefined) return this.onRefused(sa, payloads, now)
    const ppk = this.usedPpk(payloads)
    const claim: Claim = { ofInitiator: false, identity: ends.remote, ppk }
    if (!checkSecret(sa, claim, msk, auth)) {
      return this.refuse(sa, ends.remote, 'it does not know the key of EAP', undefined, now)
    }
    if (ppk === undefined && sa.config.credentials.ppk?.required === true) {
      return this.refuse(sa, ends.remote, 'it uses no post-quantum key', undefined, now)
    }
    if (verdict !== undefined) return this.establish(sa, ends, verdict, ppk, payloads, now)
    this.complete(sa, ends, BY_EAP, ppk, payloads, now)
  }

  private complete(
    sa: AuthContext,
    ends: Ends,
    verdict: Verdict & { kind: 'proven' },
    ppk: Ppk | undefined,
    payloads: readonly Payload[],
    now: Millis,
  ): void {
    const facts = factsOf(sa, ends, verdict, ppk, readConfiguration(payloads), [])
    authorize(
      sa,
      facts,
      (why, later) => {
        if (why !== undefined) return this.refuse(sa, ends.remote, why, undefined, later)
        this.establish(sa, ends, verdict, ppk, payloads, later)
      },
      now,
    )
  }

  private establish(
    sa: AuthContext,
    ends: Ends,
    verdict: Verdict & { kind: 'proven' },
    ppk: Ppk | undefined,
    payloads: readonly Payload[],
    now: Millis,
  ): void {
    this.wipe()
    if (ppk !== undefined) sa.usePpk(ppk)
    sa.establish(factsOf(sa, ends, verdict, ppk, readConfiguration(payloads), []), now)
    const lifetime = readAuthLifetime(payloads)
    if (lifetime !== undefined) sa.limitAuthentication(lifetime, now)
    if (this.offer !== undefined) this.settleChild(sa, this.offer, payloads, now)
  }

  /** §2.21.2: the peer believes that the SA exists, so it is told. */
  private refuse(
    sa: AuthContext,
    remote: Identity,
    why: string,
    code: string | undefined,
    now: Millis,
  ): void {
    this.abandon(sa)
    sa.enqueue(new TellFailure(refusalOf(remote, why, code)), now)
  }

  private onRefused(sa: AuthContext, payloads: readonly Payload[], now: Millis): void {
    this.abandon(sa)
    const refusal = findErrorNotify(payloads)
    const name = refusal === undefined ? undefined : notifyName(refusal.type)
    const error =
      refusal?.type === NotifyType.AuthenticationFailed
        ? new AuthenticationError('The peer refused our authentication')
        : name === undefined
          ? new PeerMisbehavedError(
              'ERR_IKE_AUTH_ANSWER',
              "The peer's answer lacks identity or AUTH",
            )
          : new PeerRefusedError(name, `The peer refused IKE_AUTH: ${name}`)
    sa.finish(error, false, now)
  }

  private settleChild(
    sa: AuthContext,
    offer: ChildOffer,
    payloads: readonly Payload[],
    now: Millis,
  ): void {
    const settled = settleOffer(offer, payloads)
    if (settled.kind === 'refused') {
      declineAnswer(sa, offer, payloads, now)
      return sa.output({ kind: 'childFailed', ticket: undefined, error: settled.error })
    }
    const { nonceI, nonceR } = sa.handshake
    const keys = directChildKeys(sa, settled.facts, nonceI, nonceR, undefined, true)
    sa.install(settled.facts, keys, { outboundReady: true }, now)
  }

  /** The login ends before there is an SA. */
  abandon(sa: ExchangeContext): void {
    this.wipe()
    if (this.offer !== undefined) discardOffer(sa, this.offer)
    this.offer = undefined
  }

  private wipe(): void {
    if (this.own?.kind === 'proofs') this.own.secret?.wipe()
  }
}

/** RFC 5998: what proved the responder was the EAP method. */
const BY_EAP: Verdict & { kind: 'proven' } = {
  kind: 'proven',
  authentication: 'eap',
  certificates: [],
}

/**
 * By the RFC nothing connects an IKE SA that authenticates anew with the one before it; a server of our make is told,
 * since a NAT may have changed our port in between.
 */
const predecessorNotify = (sa: AuthContext): readonly Payload[] => {
  const spis = sa.handshake.peerIsOurs ? sa.config.predecessor() : undefined
  return spis === undefined ? [] : [notify(NotifyType.Reauthenticates, spis)]
}

const hasWildcard = ({ data }: Identity): boolean => data.includes('*'.charCodeAt(0))

/** RFC 8784 §3: while the post-quantum key is optional, the peer may choose the proof made without it. */
const ownClaims = (sa: AuthContext, identity: Identity, ppk: Ppk | undefined): readonly Claim[] => {
  const plain: Claim = { ofInitiator: true, identity, ppk: undefined }
  if (ppk === undefined) return [plain]
  const mixed: Claim = { ofInitiator: true, identity, ppk }
  return sa.config.credentials.ppk?.required === true ? [mixed] : [mixed, plain]
}

const proofPayloads = (
  [proof, withoutPpk]: readonly Proof[],
  ppk: Ppk | undefined,
): readonly Payload[] => [
  { kind: 'auth', ...proof! },
  ...(ppk === undefined ? [] : [notify(NotifyType.PpkIdentity, ppk.id)]),
  ...(withoutPpk === undefined ? [] : [notify(NotifyType.NoPpkAuth, withoutPpk.data)]),
]

/** The peer's proof failed: it is told under the SA, which then ends (§2.21.2). */
class TellFailure extends DeleteIke {
  private readonly error: IpsecError

  constructor(error: IpsecError) {
    super()
    this.error = error
  }

  override build(sa: ExchangeContext): Payload[] | undefined {
    super.build(sa)
    return [notify(NotifyType.AuthenticationFailed)]
  }

  override onResponse(sa: ExchangeContext, _payloads: readonly Payload[], now: Millis): void {
    sa.finish(this.error, false, now)
  }

  override onTimeout(sa: ExchangeContext, now: Millis): void {
    sa.finish(this.error, false, now)
  }
}

// --- responder ---

/** Answers the peer's IKE_AUTH; 'parked' when the application has to be asked first. */
export const respondAuth = (
  sa: AuthContext,
  payloads: readonly Payload[],
  now: Millis,
): readonly Payload[] | 'parked' => {
  const id = find(payloads, 'idi')
  // RFC 6023 §3: without our CHILDLESS_IKEV2_SUPPORTED the request must hold a Child SA.
  const isBare = find(payloads, 'sa') === undefined && sa.config.policy.childless === 'never'
  if (id === undefined || isBare || hasExcess(payloads))
    return endWith(sa, NotifyType.InvalidSyntax, now)
  const ends: Ends = { local: ownIdentity(sa), remote: { type: id.idType, data: id.data } }
  const answer = atOnce<readonly Payload[]>(
    then => decide(sa, ends, payloads, then, now),
    (late, later) => sa.respondLater(late, later),
  )
  return answer ?? 'parked'
}

/** Checks the peer, asks the application, proves ourselves, in that order: a stranger learns nothing of us. */
const decide = (
  sa: AuthContext,
  ends: Ends,
  payloads: readonly Payload[],
  then: Then<readonly Payload[]>,
  now: Millis,
): void => {
  const { local, remote } = ends
  const refuse = (why: string, later: Millis, code?: string): void =>
    then(failed(sa, remote, why, later, code), later)
  const claimed = claimOf(sa, remote, payloads)
  if (typeof claimed === 'string') return refuse(claimed, now)
  const { claim, proof } = claimed
  const evidence = { claim, local, proof, payloads, secret: undefined }
  check(
    sa,
    evidence,
    (verdict, later) => {
      if (verdict.kind === 'refused') return refuse(verdict.why, later, verdict.code)
      const facts = factsOf(sa, ends, verdict, claim.ppk, readConfiguration([]), [])
      authorize(
        sa,
        facts,
        (why, evenLater) => {
          if (why !== undefined) return refuse(why, evenLater)
          const own: Claim = { ofInitiator: false, identity: local, ppk: claim.ppk }
          const requests = payloads.filter(({ kind }) => kind === 'certreq')
          prove(
            sa,
            [own],
            remote,
            requests,
            verdict.authentication === 'psk' && sa.config.credentials.eitherWay,
            (proofs, end) => {
              if (proofs.kind === 'failed') return refuse(proofs.why, end)
              proofs.secret?.wipe()
              then(accept(sa, ends, verdict, claim.ppk, proofs, payloads, end), end)
            },
            evenLater,
          )
        },
        later,
      )
    },
    now,
  )
}

/** RFC 8784 §3, table 1: which proof counts, and with which key. A string says why none does. */
const claimOf = (
  sa: AuthContext,
  identity: Identity,
  payloads: readonly Payload[],
): { readonly claim: Claim; readonly proof: Proof | undefined } | string => {
  const { ppk: policy } = sa.config.credentials
  const proof = find(payloads, 'auth')
  const plain: Claim = { ofInitiator: true, identity, ppk: undefined }
  if (!sa.handshake.ppk) {
    return policy?.required === true ? 'it has no post-quantum key' : { claim: plain, proof }
  }
  const named = findNotify(payloads, NotifyType.PpkIdentity)
  if (named === undefined) return 'it does not name its post-quantum key'
  const ppk = findPpk(policy, named.data)
  if (ppk !== undefined) return { claim: { ...plain, ppk }, proof }
  const without = findNotify(payloads, NotifyType.NoPpkAuth)
  if (policy?.required === true || without === undefined || proof === undefined) {
    return 'its post-quantum key is not known here'
  }
  return { claim: plain, proof: { method: proof.method, data: without.data } }
}

const failed = (
  sa: AuthContext,
  remote: Identity,
  why: string,
  now: Millis,
  code: string | undefined,
): readonly Payload[] => {
  const error = refusalOf(remote, why, code)
  const identity = formatIdentity(remote)
  sa.output({ kind: 'authenticationFailed', identity, path: sa.path, error })
  sa.finish(error, true, now)
  return [notify(NotifyType.AuthenticationFailed)]
}

const endWith = (sa: AuthContext, type: number, now: Millis): readonly Payload[] => {
  sa.finish(
    new PeerMisbehavedError(notifyName(type), 'The peer sent an IKE_AUTH that cannot be read'),
    true,
    now,
  )
  return [notify(type)]
}

const accept = (
  sa: AuthContext,
  ends: Ends,
  verdict: Verdict & { kind: 'proven' },
  ppk: Ppk | undefined,
  own: OwnProofs & { kind: 'proofs' },
  payloads: readonly Payload[],
  now: Millis,
): readonly Payload[] => {
  const { local, remote } = ends
  const assignment = assignAddresses(sa, payloads, remote)
  if (ppk !== undefined) sa.usePpk(ppk)
  const facts = factsOf(sa, ends, verdict, ppk, readConfiguration([]), assignment.addresses)
  sa.establish(facts, now, findNotify(payloads, NotifyType.Reauthenticates)?.data)
  if (findNotify(payloads, NotifyType.InitialContact) !== undefined) {
    sa.output({ kind: 'initialContact', identity: remote })
  }
  return [
    idPayload('idr', local),
    ...own.shown,
    { kind: 'auth', ...own.proofs[0]! },
    ...(ppk === undefined ? [] : [notify(NotifyType.PpkIdentity)]),
    ...announceAuthLifetime(sa.config.policy),
    ...assignment.payloads,
    ...(assignment.failed ? [] : acceptFirstChild(sa, payloads, now)),
  ]
}

/** Without a Child SA the IKE SA stands all the same (§1.2), or was meant to (RFC 6023). */
const acceptFirstChild = (
  sa: AuthContext,
  payloads: readonly Payload[],
  now: Millis,
): readonly Payload[] => {
  if (find(payloads, 'sa') === undefined) return []
  if (sa.config.policy.childless === 'force') {
    sa.trace('child.refused', { notify: 'NO_ADDITIONAL_SAS', why: 'none is made in IKE_AUTH' })
    return [notify(NotifyType.NoAdditionalSas)]
  }
  const acceptance = acceptOffer(sa, payloads, acceptOptions(sa, false))
  if (acceptance.kind === 'refused') {
    reportRefusal(sa, 'Child SA', acceptance.error)
    return [acceptance.notify]
  }
  const { nonceI, nonceR } = sa.handshake
  const keys = directChildKeys(sa, acceptance.facts, nonceI, nonceR, undefined, false)
  sa.install(acceptance.facts, keys, { outboundReady: true, byPeer: true }, now)
  return acceptance.payloads
}
