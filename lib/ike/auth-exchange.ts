/**
 * IKE_AUTH, both halves (RFC 7296 §1.2, §2.15, §2.19, §2.21.2): identities, proofs, the first Child SA
 * and the configuration payload.
 */
import { EMPTY } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import {
  AuthenticationError,
  PeerMisbehavedError,
  PeerRefusedError,
  type IpsecError,
} from '../base/errors.ts'
import type { Secret } from '../base/secret.ts'
import { checkSharedKeyAuth, sharedKeyAuth, signedOctets } from '../identity/auth.ts'
import { parseKey } from '../identity/credentials.ts'
import {
  addressIdentity,
  formatIdentity,
  identityMatches,
  type Identity,
} from '../identity/identity.ts'
import { find, hasExcess } from '../wire/message.ts'
import { findErrorNotify, findNotify, notify } from '../wire/notify.ts'
import type { Payload } from '../wire/payloads.ts'
import { AuthMethod, ExchangeType, notifyName, NotifyType } from '../wire/registry.ts'
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
  directChildKeys,
  discardOffer,
  makeOffer,
  offerPayloads,
  settleOffer,
  type ChildOffer,
} from './create-child.ts'
import type {
  Built,
  ChildRequest,
  Exchange,
  ExchangeContext,
  PeerFacts,
  Question,
} from './exchange.ts'
import { DeleteIke } from './informational.ts'
import { reportRefusal } from './refusal.ts'
import type { Handshake } from './sa-init.ts'

/** What IKE_AUTH needs of its SA beyond any exchange. */
export interface AuthContext extends ExchangeContext {
  readonly handshake: Handshake
  readonly skPi: Secret
  readonly skPr: Secret
  ask(question: Question, then: (value: unknown, now: Millis) => void): void
  /** A parked request is built again. */
  resume(now: Millis): void
  /** The answer of a parked response. */
  respondLater(payloads: readonly Payload[], now: Millis): void
  establish(peer: PeerFacts, now: Millis): void
}

/** The first octets that each end signs, with the other's nonce. */
const octetsOf = (sa: AuthContext, ofInitiator: boolean, identity: Identity): Uint8Array => {
  const { request, response, nonceI, nonceR, suite } = sa.handshake
  return ofInitiator
    ? signedOctets(suite.prf, request, nonceR, sa.skPi, identity)
    : signedOctets(suite.prf, response, nonceI, sa.skPr, identity)
}

/** The key for a pair of identities, at once or after the application was asked. */
const withSecret = (
  sa: AuthContext,
  local: Identity,
  remote: Identity,
  then: (secret: Uint8Array | undefined, now: Millis, isLate: boolean) => void,
  now: Millis,
): 'parked' | undefined => {
  const secret = sa.config.credentials.secretFor(local, remote)
  if (secret !== 'ask') return void then(secret?.bytes, now, false)
  sa.ask({ kind: 'findSecret', local, remote }, (value, later) => {
    then(isKey(value) ? parseKey('psk', value).bytes : undefined, later, true)
  })
  return 'parked'
}

const isKey = (value: unknown): boolean =>
  (typeof value === 'string' || value instanceof Uint8Array) && value.length > 0

const ownIdentity = (sa: AuthContext): Identity =>
  sa.config.credentials.localIdentity ??
  addressIdentity(sa.path.localAddress.length > 0 ? sa.path.localAddress : new Uint8Array(4))

const idPayload = (kind: 'idi' | 'idr', { type, data }: Identity): Payload => ({
  kind,
  idType: type,
  data,
})

const factsOf = (
  sa: AuthContext,
  local: Identity,
  remote: Identity,
  configuration: Configuration,
  assigned: readonly Uint8Array[],
): PeerFacts => ({
  identity: remote,
  localIdentity: local,
  identityText: formatIdentity(remote),
  localIdentityText: formatIdentity(local),
  isOurs: sa.handshake.peerIsOurs,
  authentication: 'psk',
  ikeSuite: sa.suite.text,
  localBehindNat: sa.handshake.nat.localBehindNat,
  remoteBehindNat: sa.handshake.nat.remoteBehindNat,
  virtualAddresses: configuration.addresses,
  dns: configuration.dns,
  netmask: configuration.netmask,
  assignedAddresses: assigned,
})

// --- initiator ---

export class Authenticate implements Exchange {
  readonly type = ExchangeType.IkeAuth
  readonly subject = 'nothing'
  private readonly request: ChildRequest | undefined
  private offer: ChildOffer | undefined
  private secret: { readonly bytes: Uint8Array | undefined } | undefined
  private local: Identity | undefined

  constructor(request: ChildRequest | undefined) {
    this.request = request
  }

  build(context: ExchangeContext, now: Millis): Built {
    const sa = context as AuthContext
    const { credentials, policy } = sa.config
    const local = (this.local ??= ownIdentity(sa))
    const remote = credentials.remoteIdentity ?? addressIdentity(sa.path.remoteAddress)
    if (this.secret === undefined) {
      const parked = withSecret(
        sa,
        local,
        remote,
        (bytes, later, isLate) => {
          this.secret = { bytes: bytes?.slice() }
          if (isLate) sa.resume(later)
        },
        now,
      )
      if (parked === 'parked') return parked
    }
    const key = this.secret?.bytes
    if (key === undefined) {
      sa.finish(new AuthenticationError('There is no pre-shared key for this peer'), false, now)
      return undefined
    }
    const proof = sharedKeyAuth(sa.suite.prf, key, octetsOf(sa, true, local))
    const initialContact =
      (policy.initialContact ?? credentials.localIdentity !== undefined) &&
      sa.config.isFirstContact()
    const request =
      policy.childless === 'force' && sa.handshake.childless ? undefined : this.request
    this.offer = request && makeOffer(sa, request, undefined)
    return [
      idPayload('idi', local),
      ...(initialContact ? [notify(NotifyType.InitialContact)] : []),
      ...(credentials.remoteIdentity === undefined || hasWildcard(credentials.remoteIdentity)
        ? []
        : [idPayload('idr', credentials.remoteIdentity)]),
      { kind: 'auth', method: AuthMethod.SharedKey, data: proof },
      ...(policy.virtualAddress ? [configurationRequest(sa.config.heldAddresses())] : []),
      ...(this.offer === undefined ? [] : offerPayloads(this.offer)),
    ]
  }

  onResponse(context: ExchangeContext, payloads: readonly Payload[], now: Millis): void {
    const sa = context as AuthContext
    const id = find(payloads, 'idr')
    const auth = find(payloads, 'auth')
    if (id === undefined || auth === undefined) return this.onRefused(sa, payloads, now)
    const remote = { type: id.idType, data: id.data }
    const verdict = this.check(sa, remote, auth)
    if (verdict !== undefined) {
      this.abandon(sa)
      // §2.21.2: the peer believes the SA exists, so it is told.
      sa.enqueue(new TellFailure(verdict), now)
      return
    }
    this.secret?.bytes?.fill(0)
    const facts = factsOf(sa, this.local!, remote, readConfiguration(payloads), [])
    sa.establish(facts, now)
    const lifetime = readAuthLifetime(payloads)
    if (lifetime !== undefined) sa.limitAuthentication(lifetime, now)
    if (this.offer !== undefined) this.settleChild(sa, this.offer, payloads, now)
  }

  private check(
    sa: AuthContext,
    remote: Identity,
    auth: Extract<Payload, { kind: 'auth' }>,
  ): IpsecError | undefined {
    const wanted = sa.config.credentials.remoteIdentity
    const name = formatIdentity(remote)
    if (wanted !== undefined && !identityMatches(wanted, remote)) {
      return new AuthenticationError(
        `The peer says it is ${name}, but ${formatIdentity(wanted)} is expected`,
      )
    }
    if (auth.method !== AuthMethod.SharedKey) {
      return new AuthenticationError(`The peer ${name} does not prove itself with a pre-shared key`)
    }
    const octets = octetsOf(sa, false, remote)
    return checkSharedKeyAuth(sa.suite.prf, this.secret?.bytes, octets, auth.data)
      ? undefined
      : new AuthenticationError(`The peer ${name} does not know the pre-shared key`)
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
      discardOffer(sa, offer)
      return sa.output({ kind: 'childFailed', ticket: undefined, error: settled.error })
    }
    const { nonceI, nonceR } = sa.handshake
    const keys = directChildKeys(sa, settled.facts, nonceI, nonceR, undefined, true)
    sa.install(settled.facts, keys, { outboundReady: true }, now)
  }

  abandon(sa: ExchangeContext): void {
    this.secret?.bytes?.fill(0)
    if (this.offer !== undefined) discardOffer(sa, this.offer)
    this.offer = undefined
  }
}

const hasWildcard = ({ data }: Identity): boolean => data.includes('*'.charCodeAt(0))

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
  const auth = find(payloads, 'auth')
  if (id === undefined || hasExcess(payloads)) return endWith(sa, NotifyType.InvalidSyntax, now)
  const remote = { type: id.idType, data: id.data }
  const local = ownIdentity(sa)
  let answer: readonly Payload[] | 'parked' = 'parked'
  withSecret(
    sa,
    local,
    remote,
    (secret, later, isLate) => {
      const finish = (response: readonly Payload[]): void => {
        if (isLate) sa.respondLater(response, later)
        else answer = response
      }
      const failure = checkInitiator(sa, local, remote, auth, secret)
      if (failure !== undefined) return finish(failed(sa, remote, failure, later))
      if (!sa.config.credentials.asksAuthorization) {
        return finish(acceptInitiator(sa, payloads, local, remote, secret!, later))
      }
      const facts = factsOf(sa, local, remote, readConfiguration([]), [])
      const key = secret!.slice()
      sa.ask({ kind: 'authorize', peer: facts, path: sa.path }, (value, evenLater) => {
        const response =
          value === true
            ? acceptInitiator(sa, payloads, local, remote, key, evenLater)
            : failed(sa, remote, 'it was not authorized', evenLater)
        key.fill(0)
        sa.respondLater(response, evenLater)
      })
    },
    now,
  )
  return answer
}

/** Undefined: it is who it says it is. The words stay on our side. */
const checkInitiator = (
  sa: AuthContext,
  local: Identity,
  remote: Identity,
  auth: Extract<Payload, { kind: 'auth' }> | undefined,
  secret: Uint8Array | undefined,
): string | undefined => {
  const { remoteIdentity } = sa.config.credentials
  const octets = octetsOf(sa, true, remote)
  const proof = auth?.method === AuthMethod.SharedKey ? auth.data : EMPTY
  // Computed in every case, so that no answer comes sooner than another.
  const proven = checkSharedKeyAuth(sa.suite.prf, secret, octets, proof)
  if (remoteIdentity !== undefined && !identityMatches(remoteIdentity, remote)) {
    return `${formatIdentity(remoteIdentity)} is expected`
  }
  if (auth === undefined) return 'it sent no AUTH payload'
  if (auth.method !== AuthMethod.SharedKey) return 'it does not use a pre-shared key'
  if (secret === undefined)
    return `there is no pre-shared key for it (we are ${formatIdentity(local)})`
  return proven ? undefined : 'it does not know the pre-shared key'
}

const failed = (
  sa: AuthContext,
  remote: Identity,
  why: string,
  now: Millis,
): readonly Payload[] => {
  const identity = formatIdentity(remote)
  const error = new AuthenticationError(`Peer ${identity} could not be authenticated: ${why}`)
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

const acceptInitiator = (
  sa: AuthContext,
  payloads: readonly Payload[],
  local: Identity,
  remote: Identity,
  secret: Uint8Array,
  now: Millis,
): readonly Payload[] => {
  const proof = sharedKeyAuth(sa.suite.prf, secret, octetsOf(sa, false, local))
  const assignment = assignAddresses(sa, payloads, remote)
  const facts = factsOf(sa, local, remote, readConfiguration([]), assignment.addresses)
  sa.establish(facts, now)
  if (findNotify(payloads, NotifyType.InitialContact) !== undefined) {
    sa.output({ kind: 'initialContact', identity: remote })
  }
  return [
    idPayload('idr', local),
    { kind: 'auth', method: AuthMethod.SharedKey, data: proof },
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
