/**
 * IKE_AUTH, both halves (RFC 7296 §1.2, §2.16, §2.19, §2.21.2; RFC 8784 §3): identities, proofs, the first
 * Child SA and the configuration payload.
 */
import type { Millis } from '../base/environment.ts'
import { errorOf } from '../base/error-table.ts'
import { printable, type IpsecError } from '../base/errors.ts'
import { formatEndpoint } from '../base/path.ts'
import type { Secret } from '../base/secret.ts'
import { certificateRequest } from '../identity/credentials.ts'
import {
  addressIdentity,
  formatIdentity,
  hasWildcard,
  identityProblem,
  identityText,
  type Identity,
} from '../identity/identity.ts'
import { findPpk, type Ppk } from '../identity/ppk.ts'
import { makePrincipal } from '../identity/principal.ts'
import { isLoopback } from '../policy/inner-addresses.ts'
import { find, hasExcess } from '../wire/message.ts'
import { findErrorNotify, findNotify, notify, notifyData } from '../wire/notify.ts'
import {
  featuresIn,
  featuresPayload,
  NO_FEATURES,
  OWN_FEATURES,
  type Features,
} from '../wire/own-features.ts'
import type { Payload } from '../wire/payloads.ts'
import { notifyName, NotifyType } from '../wire/registry.ts'
import {
  check,
  checkSecret,
  prove,
  proveWithSecret,
  unexpectedIdentity,
  type Claim,
  type OwnProofs,
  type Proof,
  type Proven,
  type Unproven,
  type Verdict,
} from './auth-proof.ts'
import { ask, DONE, type AuthContext, type Next, type Outcome } from './auth-steps.ts'
import {
  assignAddresses,
  configurationRequest,
  readConfiguration,
  type Configuration,
} from './configuration.ts'
import { ownCrashToken } from './tell-crash-token.ts'
import { announceAuthLifetime, readAuthLifetime, validFor } from './auth-lifetime.ts'
import {
  acceptOffer,
  acceptOptions,
  declineAnswer,
  directChildKeys,
  discardOffer,
  makeOffer,
  planWithoutKe,
  offerPayloads,
  settleOffer,
  type ChildOffer,
} from './create-child.ts'
import { EapRounds } from './eap-exchange.ts'
import type { ChildRequest, ExchangeContext, Newcomer, PeerFacts } from './exchange.ts'
import { DeleteIke } from './informational.ts'
import { reportRefusal } from './refusal.ts'
import {
  additionalAddresses,
  agreesOnMobike,
  forbidNats,
  hasForbiddenNat,
  offerMobike,
  readAdditional,
} from './mobike.ts'
import { MAX_PREDECESSORS, proveSuccession } from './succession.ts'

/** Ours: of so many addresses of this host a peer may have meant one. */
const MAX_OWN_ADDRESSES = 64

const ownIdentity = (sa: AuthContext): Identity =>
  sa.config.credentials.localIdentity ?? addressIdentity(ownAddress(sa))

/**
 * The address that the peer has sent to. Where the system does not tell which it was, the peer's hash does. Behind a NAT
 * neither does: then it is the first address of this host, as hosts behind a NAT name themselves.
 */
const ownAddress = ({ path, config, handshake }: AuthContext): Uint8Array => {
  if (path.localAddress.length > 0) return path.localAddress
  const candidates = config.ownAddresses().slice(0, MAX_OWN_ADDRESSES)
  // On the loopback both ends have the same, as a rule.
  if (isLoopback(path.remoteAddress)) candidates.push(path.remoteAddress)
  const named = candidates.find(address => handshake.nat.cameTo(address))
  if (named !== undefined) return named
  const ofFamily = candidates.filter(({ length }) => length === path.remoteAddress.length)
  return ofFamily.find(address => !isLoopback(address)) ?? ofFamily[0] ?? new Uint8Array(4)
}

const idPayload = (kind: 'idi' | 'idr', { type, data }: Identity): Payload => ({
  kind,
  idType: type,
  data,
})

interface Ends {
  readonly local: Identity
  readonly remote: Identity
}

/** The peer's own word counts only where its Vendor ID says too that it is ours. */
const peerFeatures = ({ handshake }: AuthContext, payloads: readonly Payload[]): Features =>
  handshake.peerIsOurs ? featuresIn(payloads) : NO_FEATURES

const factsOf = (
  sa: AuthContext,
  { local, remote }: Ends,
  proven: Proven,
  ppk: Ppk | undefined,
  configuration: Configuration,
  assigned: readonly Uint8Array[],
  payloads: readonly Payload[] = [],
): PeerFacts => {
  const { proof, authentication, certificates, validUntil } = proven
  const principal = makePrincipal(remote, proof)
  return {
    identity: remote,
    localIdentity: local,
    principal,
    identityText: principal.text,
    localIdentityText: identityText(local),
    isOurs: sa.handshake.peerIsOurs,
    authentication,
    proven,
    certificates,
    validUntil,
    usesPpk: ppk !== undefined,
    ikeSuite: sa.suite.text,
    features: peerFeatures(sa, payloads),
    mobike: agreesOnMobike(sa.config.policy, payloads),
    localBehindNat: sa.handshake.nat.localBehindNat,
    remoteBehindNat: sa.handshake.nat.remoteBehindNat,
    virtualAddresses: configuration.addresses,
    dns: configuration.dns,
    netmask: configuration.netmask,
    assignedAddresses: assigned,
  }
}

/** The application has the last word; undefined: the peer may come in. */
const authorize = (
  sa: AuthContext,
  peer: PeerFacts,
  next: Next<string | undefined>,
  now: Millis,
): Outcome => {
  if (!sa.config.credentials.asksAuthorization) return next(undefined, now)
  return ask({ kind: 'authorize', peer, path: sa.path }, (answer, later) => {
    const { authorize: permission } = answer
    if (permission instanceof Error) return next(permission.message, later)
    if (typeof permission === 'object') sa.adoptPolicy(permission.policy)
    const isAllowed = permission === true || typeof permission === 'object'
    return next(isAllowed ? undefined : 'it was not authorized', later)
  })
}

const refusalOf = (
  remote: Identity,
  { why, reason, certificates }: Omit<Unproven, 'kind'>,
): IpsecError => {
  const details = certificates === undefined ? { reason } : { reason, certificates }
  return errorOf(reason, { peer: formatIdentity(remote), why }, details)
}

// --- initiator ---

const end = (sa: AuthContext, error: IpsecError, now: Millis): Outcome => {
  sa.finish(error, false, now)
  return DONE
}

export class Authenticate {
  private readonly sa: AuthContext
  private readonly request: ChildRequest | undefined
  private readonly local: Identity
  private readonly ppk: Ppk | undefined
  private offer: ChildOffer | undefined
  private own: (OwnProofs & { kind: 'proofs' }) | undefined

  constructor(sa: AuthContext, request: ChildRequest | undefined) {
    this.sa = sa
    this.request = request
    this.local = ownIdentity(sa)
    // RFC 8784 §3: with EAP, the key belongs to the message that carries our AUTH.
    this.ppk = sa.handshake.ppk ? sa.config.credentials.ppk?.keys[0] : undefined
  }

  start(now: Millis): Outcome {
    const { sa } = this
    const { credentials, policy } = sa.config
    if (policy.childless === 'force' && !sa.handshake.childless) {
      return end(sa, errorOf('NO_CHILDLESS', {}), now)
    }
    if (credentials.ppk?.required === true && !sa.handshake.ppk) {
      return end(sa, errorOf('NO_PEER_PPK', {}), now)
    }
    if (credentials.eap !== undefined) return this.send()
    const remote = credentials.remoteIdentity ?? addressIdentity(sa.path.remoteAddress)
    const requests = sa.handshake.certificateRequests
    const send: Next<OwnProofs> = (own, later) => {
      if (own.kind === 'failed') return end(sa, own.error, later)
      this.own = own
      sa.config.keyTurn.of = own.keys
      return this.send()
    }
    const claims = ownClaims(sa, this.local, this.ppk)
    return prove(sa, claims, remote, requests, false, sa.config.keyTurn.at, send, now)
  }

  private send(): Outcome {
    const { sa, own } = this
    const { credentials, policy } = sa.config
    const initialContact = policy.initialContact && sa.config.isFirstContact()
    const request = policy.childless === 'force' ? undefined : this.request
    this.offer = request && makeOffer(sa, request, planWithoutKe(sa))
    const payloads = [
      idPayload('idi', this.local),
      ...(own?.shown ?? []),
      ...(initialContact ? [notify(NotifyType.InitialContact)] : []),
      ...certificateRequest(policy.backend, credentials),
      ...(credentials.remoteIdentity === undefined || hasWildcard(credentials.remoteIdentity)
        ? []
        : [idPayload('idr', credentials.remoteIdentity)]),
      ...(own === undefined ? [] : proofPayloads(own.proofs, this.ppk)),
      ...(credentials.eap?.only === true ? [notify(NotifyType.EapOnlyAuthentication)] : []),
      ...ownCrashToken(sa, sa.spiI, sa.spiR),
      ...successionNotifies(sa),
      ...(sa.handshake.peerIsOurs ? [featuresPayload(OWN_FEATURES)] : []),
      ...(policy.virtualAddress ? [configurationRequest(sa.config.heldAddresses())] : []),
      ...offerMobike(policy),
      ...forbidNats(policy, sa.path),
      ...(this.offer === undefined ? [] : offerPayloads(this.offer)),
    ]
    return { kind: 'request', payloads, next: (answer, now) => this.onResponse(answer, now) }
  }

  private onResponse(payloads: readonly Payload[], now: Millis): Outcome {
    const { sa } = this
    const id = find(payloads, 'idr')
    const auth = find(payloads, 'auth')
    const eap = find(payloads, 'eap')
    const { credentials } = sa.config
    // RFC 5998 §3: the method itself proves the responder, at the end.
    const byEapAlone = credentials.eap?.only === true && auth === undefined && eap !== undefined
    if (id === undefined || (auth === undefined && !byEapAlone)) {
      return this.onRefused(payloads, now)
    }
    const ends: Ends = { local: this.local, remote: { type: id.idType, data: id.data } }
    if (byEapAlone) {
      // No other proof is checked that would look at the name.
      const problem = identityProblem(ends.remote)
      const why =
        problem === undefined ? unexpectedIdentity(sa, ends.remote) : `its identity ${problem}`
      return why === undefined
        ? this.startEap(ends, undefined, eap, now)
        : this.refuse(
            ends.remote,
            { why, reason: problem === undefined ? 'WRONG_IDENTITY' : 'BAD_IDENTITY' },
            now,
          )
    }
    if ((eap === undefined) !== (credentials.eap === undefined)) {
      return eap === undefined
        ? this.refuse(ends.remote, { why: 'it does not ask for EAP', reason: 'NO_EAP' }, now)
        : this.refuse(ends.remote, { why: 'it asks for EAP', reason: 'EAP_ASKED' }, now)
    }
    const ppk = eap === undefined ? this.usedPpk(payloads) : undefined
    if (ppk === undefined && eap === undefined && credentials.ppk?.required === true) {
      return this.refuse(ends.remote, { why: 'it uses no post-quantum key', reason: 'NO_PPK' }, now)
    }
    const evidence = {
      claim: { ofInitiator: false, identity: ends.remote, ppk },
      local: ends.local,
      proof: auth,
      payloads,
      secret: this.own?.secret,
    }
    const judge: Next<Verdict> = (verdict, later) => {
      if (verdict.kind === 'refused') {
        return this.refuse(ends.remote, verdict, later)
      }
      sa.notePeerProven()
      return eap === undefined
        ? this.complete(ends, verdict, ppk, payloads, later)
        : this.startEap(ends, verdict, eap, later)
    }
    return check(sa, evidence, judge, now)
  }

  private usedPpk(payloads: readonly Payload[]): Ppk | undefined {
    return findNotify(payloads, NotifyType.PpkIdentity) === undefined ? undefined : this.ppk
  }

  /** §2.16: nothing of the user is sent before the responder has proved itself (CVE-2015-4171). */
  private startEap(
    ends: Ends,
    verdict: Proven | undefined,
    eap: Extract<Payload, { kind: 'eap' }>,
    now: Millis,
  ): Outcome {
    const { sa } = this
    const start: Next<string | undefined> = (why, later) =>
      why === undefined
        ? this.eapRounds(ends, verdict).take(eap.data, later)
        : this.refuse(ends.remote, { why, reason: 'NOT_AUTHORIZED' }, later)
    if (verdict === undefined) return start(undefined, now)
    const facts = factsOf(sa, ends, verdict, undefined, readConfiguration([]), [])
    return authorize(sa, facts, start, now)
  }

  private eapRounds(ends: Ends, verdict: Proven | undefined): EapRounds {
    const { sa } = this
    const claims = ownClaims(sa, ends.local, this.ppk)
    return new EapRounds(sa.config.credentials.eap!, sa.config.environment, {
      prove: msk =>
        proofPayloads(
          claims.map(claim => proveWithSecret(sa, claim, msk)),
          this.ppk,
        ),
      finish: (payloads, msk, later) => this.finishEap(ends, verdict, payloads, msk, later),
      fail: (why, later) => {
        // The peer has ended its half too, or will before long: there is nobody to tell.
        this.abandon()
        return end(sa, refusalOf(ends.remote, { why, reason: 'EAP_FAILED' }), later)
      },
    })
  }

  /** Both ends have shown that they know the method's key. */
  private finishEap(
    ends: Ends,
    verdict: Proven | undefined,
    payloads: readonly Payload[],
    msk: Secret,
    now: Millis,
  ): Outcome {
    const { sa } = this
    const auth = find(payloads, 'auth')
    if (auth === undefined) return this.onRefused(payloads, now)
    const ppk = this.usedPpk(payloads)
    const claim: Claim = { ofInitiator: false, identity: ends.remote, ppk }
    if (!checkSecret(sa, claim, msk, auth)) {
      return this.refuse(
        ends.remote,
        { why: 'it does not know the key of EAP', reason: 'EAP_FAILED' },
        now,
      )
    }
    sa.notePeerProven()
    if (ppk === undefined && sa.config.credentials.ppk?.required === true) {
      return this.refuse(ends.remote, { why: 'it uses no post-quantum key', reason: 'NO_PPK' }, now)
    }
    return verdict === undefined
      ? this.complete(ends, provenByEap(sa), ppk, payloads, now)
      : this.establish(ends, verdict, ppk, payloads, now)
  }

  private complete(
    ends: Ends,
    verdict: Proven,
    ppk: Ppk | undefined,
    payloads: readonly Payload[],
    now: Millis,
  ): Outcome {
    const { sa } = this
    const facts = factsOf(sa, ends, verdict, ppk, readConfiguration(payloads), [])
    const establish: Next<string | undefined> = (why, later) =>
      why === undefined
        ? this.establish(ends, verdict, ppk, payloads, later)
        : this.refuse(ends.remote, { why, reason: 'NOT_AUTHORIZED' }, later)
    return authorize(sa, facts, establish, now)
  }

  private establish(
    ends: Ends,
    verdict: Proven,
    ppk: Ppk | undefined,
    payloads: readonly Payload[],
    now: Millis,
  ): Outcome {
    const { sa } = this
    this.wipe()
    if (ppk !== undefined) sa.usePpk(ppk)
    const configuration = readConfiguration(payloads)
    const facts = factsOf(sa, ends, verdict, ppk, configuration, [], payloads)
    if (facts.mobike) sa.config.place.noteAddresses(readAdditional(payloads, sa.path) ?? [])
    sa.establish(facts, now)
    sa.crashTokens.note(payloads)
    const lifetime = readAuthLifetime(payloads)
    if (lifetime !== undefined) sa.limitAuthentication(lifetime, now)
    if (this.offer !== undefined) this.settleChild(this.offer, payloads, now)
    return DONE
  }

  /** §2.21.2: the peer believes that the SA exists, so it is told. */
  private refuse(remote: Identity, failure: Omit<Unproven, 'kind'>, now: Millis): Outcome {
    this.abandon()
    this.sa.enqueue(new TellFailure(refusalOf(remote, failure)), now)
    return DONE
  }

  private onRefused(payloads: readonly Payload[], now: Millis): Outcome {
    this.abandon()
    return end(this.sa, this.refusedError(findErrorNotify(payloads)?.type), now)
  }

  /** What we have claimed, how, and to whom: the peer says no more than a number. */
  private refusedError(type: number | undefined): IpsecError {
    const { sa, own } = this
    const { credentials } = sa.config
    if (type === undefined) return errorOf('BAD_AUTH_ANSWER', {})
    const claimed = formatIdentity(this.local)
    if (type === NotifyType.UnexpectedNatDetected) return errorOf('NAT_FORBIDDEN', {})
    if (type !== NotifyType.AuthenticationFailed)
      return errorOf('REFUSED_LOGIN', { notify: notifyName(type), claimed })
    sa.config.keyTurn.isRefused = own?.secret !== undefined
    const { remoteIdentity, eap } = credentials
    const shown = own?.shownAs ?? {
      name: `EAP as ${printable(eap?.identity ?? '')}`,
      cure: 'Check the login of the option "eap".',
    }
    // RFC 8784 §3: the two secrets stand in one MAC, so nobody can tell which of them is wrong.
    const proof = this.ppk === undefined ? shown.name : `${shown.name} with a post-quantum key`
    const cure =
      this.ppk === undefined
        ? shown.cure
        : `Compare "id" and "secret" of the option "ppk" at both ends. ${shown.cure}`
    const asked =
      remoteIdentity === undefined ? 'no identity ("remoteId")' : formatIdentity(remoteIdentity)
    const where = formatEndpoint(sa.path.remoteAddress, sa.path.remotePort)
    return errorOf(
      'REFUSED_PROOF',
      { where, claimed, proof, asked, cure },
      { claimed, proof, asked },
    )
  }

  private settleChild(offer: ChildOffer, payloads: readonly Payload[], now: Millis): void {
    const { sa } = this
    const settled = settleOffer(sa, offer, payloads)
    if (settled.kind === 'refused') {
      declineAnswer(sa, offer, payloads, now)
      return sa.output({ kind: 'childFailed', ticket: undefined, error: settled.error })
    }
    const { nonceI, nonceR } = sa.handshake
    const keys = directChildKeys(sa, settled.facts, nonceI, nonceR, undefined, true)
    sa.install(settled.facts, keys, { outboundReady: true }, now)
  }

  /** The login ends before there is an SA. */
  abandon(): void {
    this.wipe()
    if (this.offer !== undefined) discardOffer(this.sa, this.offer)
    this.offer = undefined
  }

  private wipe(): void {
    this.own?.secret?.secret.wipe()
  }
}

/** RFC 5998: what proved the responder was the EAP method. */
const provenByEap = (sa: AuthContext): Proven => ({
  kind: 'proven',
  proof: { kind: 'eap', login: sa.config.credentials.eap?.identity ?? '' },
  authentication: 'eap',
  keyIndex: 0,
  certificates: [],
  validUntil: Infinity,
})

/** A server of our make lets what lives on the older SA go on. */
const successionNotifies = (sa: AuthContext): readonly Payload[] => {
  const { handshake, spiI } = sa
  if (!handshake.peerIsOurs) return []
  return sa.config
    .predecessors()
    .map(old => notify(NotifyType.Reauthenticates, proveSuccession(old, { ...handshake, spiI })))
}

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

/** Answers the peer's IKE_AUTH. */
export const respondAuth = (
  sa: AuthContext,
  payloads: readonly Payload[],
  now: Millis,
): Outcome => {
  const id = find(payloads, 'idi')
  // RFC 6023 §3: without our CHILDLESS_IKEV2_SUPPORTED the request must hold a Child SA.
  const isBare = find(payloads, 'sa') === undefined && sa.config.policy.childless === 'never'
  if (id === undefined || isBare || hasExcess(payloads))
    return endWith(sa, NotifyType.InvalidSyntax, 'BAD_AUTH_REQUEST', now)
  const { policy } = sa.config
  if (agreesOnMobike(policy, payloads) && hasForbiddenNat(payloads, sa.arrival.path)) {
    return endWith(sa, NotifyType.UnexpectedNatDetected, 'FORBIDDEN_NAT', now)
  }
  const remote = { type: id.idType, data: id.data }
  const claimed = claimOf(sa, remote, payloads)
  if (typeof claimed === 'string')
    return refuse(sa, remote, refusalOf(remote, { why: claimed, reason: 'NO_PPK' }), now)
  return new Admittance(sa, { local: ownIdentity(sa), remote }, claimed, payloads).start(now)
}

/** Checks the peer, asks the application, proves ourselves, in that order: a stranger learns nothing of us. */
class Admittance {
  private readonly sa: AuthContext
  private readonly ends: Ends
  private readonly claimed: Claimed
  private readonly payloads: readonly Payload[]

  constructor(sa: AuthContext, ends: Ends, claimed: Claimed, payloads: readonly Payload[]) {
    this.sa = sa
    this.ends = ends
    this.claimed = claimed
    this.payloads = payloads
  }

  start(now: Millis): Outcome {
    const { sa, ends, claimed, payloads } = this
    const evidence = { local: ends.local, payloads, secret: undefined, ...claimed }
    return check(sa, evidence, (verdict, later) => this.onChecked(verdict, later), now)
  }

  private onChecked(verdict: Verdict, now: Millis): Outcome {
    const { sa, ends, claimed } = this
    if (verdict.kind === 'refused') return this.refuse(verdict, now)
    const facts = factsOf(sa, ends, verdict, claimed.claim.ppk, readConfiguration([]), [])
    return authorize(sa, facts, (why, later) => this.onAuthorized(verdict, why, later), now)
  }

  private onAuthorized(verdict: Proven, why: string | undefined, now: Millis): Outcome {
    if (why !== undefined) return this.refuse({ why, reason: 'NOT_AUTHORIZED' }, now)
    const { sa, ends, claimed, payloads } = this
    const own: Claim = { ofInitiator: false, identity: ends.local, ppk: claimed.claim.ppk }
    const requests = payloads.filter(({ kind }) => kind === 'certreq')
    const bySecret = verdict.authentication === 'psk' && sa.config.credentials.acceptsBothMethods
    const accept: Next<OwnProofs> = (proofs, later) => this.onProved(verdict, proofs, later)
    return prove(sa, [own], ends.remote, requests, bySecret, verdict.keyIndex, accept, now)
  }

  private onProved(verdict: Proven, own: OwnProofs, now: Millis): Outcome {
    if (own.kind === 'failed') return refuse(this.sa, this.ends.remote, own.error, now)
    own.secret?.secret.wipe()
    const { sa, ends, claimed, payloads } = this
    const newcomer = newcomerOf(sa, ends.remote, verdict, payloads)
    if (!sa.config.mayEnter(newcomer, now)) return turnAway(sa, ends, claimed.claim.ppk, own)
    return {
      kind: 'answer',
      payloads: accept(sa, ends, newcomer, verdict, claimed.claim.ppk, own, payloads, now),
    }
  }

  private refuse(failure: Omit<Unproven, 'kind'>, now: Millis): Outcome {
    const { remote } = this.ends
    return refuse(this.sa, remote, refusalOf(remote, failure), now)
  }
}

interface Claimed {
  readonly claim: Claim
  readonly proof: Proof | undefined
}

/** RFC 8784 §3, table 1: which proof counts, and with which key. A string says why none does. */
const claimOf = (
  sa: AuthContext,
  identity: Identity,
  payloads: readonly Payload[],
): Claimed | string => {
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

const refuse = (sa: AuthContext, remote: Identity, error: IpsecError, now: Millis): Outcome => {
  const identity = formatIdentity(remote)
  sa.output({ kind: 'turnedAway', identity, path: sa.path, error })
  sa.finish(error, true, now)
  return { kind: 'answer', payloads: [notify(NotifyType.AuthenticationFailed)] }
}

const endWith = (
  sa: AuthContext,
  type: number,
  reason: 'BAD_AUTH_REQUEST' | 'FORBIDDEN_NAT',
  now: Millis,
): Outcome => {
  sa.finish(errorOf(reason, { notify: notifyName(type) }), true, now)
  return { kind: 'answer', payloads: [notify(type)] }
}

const proofOfOurs = (
  local: Identity,
  ppk: Ppk | undefined,
  own: OwnProofs & { kind: 'proofs' },
): readonly Payload[] => [
  idPayload('idr', local),
  ...own.shown,
  { kind: 'auth', ...own.proofs[0]! },
  ...(ppk === undefined ? [] : [notify(NotifyType.PpkIdentity)]),
]

const newcomerOf = (
  sa: AuthContext,
  remote: Identity,
  verdict: Proven,
  payloads: readonly Payload[],
): Newcomer => {
  const principal = makePrincipal(remote, verdict.proof)
  const { spiI, handshake } = sa
  const { spiR, nonceI, nonceR } = handshake
  const isFirst = findNotify(payloads, NotifyType.InitialContact) !== undefined
  return {
    principal,
    sa: { spiI, spiR, nonceI, nonceR },
    replaced: notifyData(payloads, NotifyType.Reauthenticates, MAX_PREDECESSORS),
    // Nobody else can be that principal, so its other sessions end.
    isRestarted: principal.isBound && isFirst,
  }
}

/**
 * There is no place for it. §2.21.2 has no error for that in IKE_AUTH, so the SA stands without a Child SA, as the
 * peer can see that it is really us who refuses, and is deleted at once.
 */
const turnAway = (
  sa: AuthContext,
  { local, remote }: Ends,
  ppk: Ppk | undefined,
  own: OwnProofs & { kind: 'proofs' },
): Outcome => {
  if (ppk !== undefined) sa.usePpk(ppk)
  const error = errorOf('SESSION_LIMIT', {})
  sa.output({ kind: 'turnedAway', identity: formatIdentity(remote), path: sa.path, error })
  return {
    kind: 'answer',
    payloads: [...proofOfOurs(local, ppk, own), notify(NotifyType.NoAdditionalSas)],
    then: new DeleteIke(),
  }
}

const accept = (
  sa: AuthContext,
  ends: Ends,
  newcomer: Newcomer,
  verdict: Proven,
  ppk: Ppk | undefined,
  own: OwnProofs & { kind: 'proofs' },
  payloads: readonly Payload[],
  now: Millis,
): readonly Payload[] => {
  const assignment = assignAddresses(sa, payloads, newcomer)
  if (ppk !== undefined) sa.usePpk(ppk)
  const { addresses } = assignment
  const facts = factsOf(sa, ends, verdict, ppk, readConfiguration([]), addresses, payloads)
  sa.establish(facts, now, newcomer.replaced)
  sa.crashTokens.note(payloads)
  if (findNotify(payloads, NotifyType.InitialContact) !== undefined) {
    sa.output({ kind: 'initialContact' })
  }
  return [
    ...proofOfOurs(ends.local, ppk, own),
    ...ownCrashToken(sa, sa.spiI, sa.spiR),
    ...announceAuthLifetime(sa.config.policy, validFor(sa, facts)),
    ...(facts.features.size > 0 ? [featuresPayload(OWN_FEATURES)] : []),
    ...(facts.mobike ? offerMobike(sa.config.policy) : []),
    ...(facts.mobike ? additionalAddresses(sa.config.ownAddresses(), sa.path) : []),
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
