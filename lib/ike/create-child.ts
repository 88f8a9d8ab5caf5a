/**
 * Negotiation of a Child SA: proposals, mode, selectors, keys (RFC 7296 §1.3.1, §2.7, §2.9). IKE_AUTH, a
 * new Child SA and a rekey share it. The exchange CREATE_CHILD_SA for a new Child SA is here too.
 */
import { errorOf } from '../base/error-table.ts'
import { equal, getU32, putU32 } from '../base/bytes.ts'
import { randomBytes, type Millis } from '../base/environment.ts'
import type { IpsecError } from '../base/errors.ts'
import { createKeyExchange, type KeyExchange } from '../crypto/key-exchange.ts'
import { deriveChildKeys } from '../crypto/key-material.ts'
import { formatCipher, keyLengths, supportsCipher } from '../crypto/suite.ts'
import {
  checkChosen,
  chooseProposal,
  chosen,
  formatProposal,
  groupsOf,
  withKe,
  withoutKe,
  withSpi,
} from '../policy/proposal.ts'
import type { PeerPolicy } from '../policy/options.ts'
import { isLoopback, onlyInner } from '../policy/inner-addresses.ts'
import {
  EVERYTHING,
  hostSelector,
  formatSelector,
  isNarrowing,
  narrow,
  singleHost,
} from '../policy/traffic-selectors.ts'
import { find } from '../wire/message.ts'
import { findErrorNotify, findNotify, notify, readU16List } from '../wire/notify.ts'
import type { NotifyPayload, Payload } from '../wire/payloads.ts'
import { Esn, ExchangeType, notifyName, NotifyType, TransformType } from '../wire/registry.ts'
import type { Proposal } from '../wire/sa.ts'
import type { TrafficSelector } from '../wire/traffic-selector.ts'
import type { ChildFacts } from './child-sa.ts'
import { DeleteUnwanted } from './informational.ts'
import type { ChildKeys, ChildRequest, Exchange, ExchangeContext } from './exchange.ts'
import { answerKeyExchange } from './inner-exchange.ts'
import { noProposal, noSelectors, reportRefusal } from './refusal.ts'

export const NONCE_LENGTH = 32
/** Ours: a gateway that we chose may have many subnets, but each packet is looked up in them. */
const MOST_ANSWERED = 64

/** Our half of a negotiation under way. */
export interface ChildOffer {
  readonly request: ChildRequest
  readonly inboundSpi: number
  readonly proposals: readonly Proposal[]
  readonly nonce: Uint8Array
  readonly exchange: KeyExchange | undefined
}

const spiOctets = (spi: number): Uint8Array => {
  const octets = new Uint8Array(4)
  putU32(octets, 0, spi)
  return octets
}

/** What an offer has to say of a key exchange. */
export interface KePlan {
  readonly proposals: readonly Proposal[]
  /** Of the KE payload; undefined: none is sent. */
  readonly group: number | undefined
}

/** Which cipher is fast depends on how large packets are, and those of the loopback are as large as they can be. */
const espOf = ({ config: { policy }, path }: ExchangeContext): readonly Proposal[] => {
  const { localAddress, remoteAddress } = path
  const isLocal = isLoopback(remoteAddress) || equal(localAddress, remoteAddress)
  return isLocal && (policy.mtu ?? Infinity) > LARGEST_FRAME ? policy.esp : policy.espOfSmall
}

/** Ours: no network's frames are larger. */
const LARGEST_FRAME = 9216

/** For IKE_AUTH, which has no key exchange for its Child SA (§1.2). */
export const planWithoutKe = (sa: ExchangeContext): KePlan => ({
  proposals: withoutKe(espOf(sa)),
  group: undefined,
})

export const makeOffer = (
  sa: ExchangeContext,
  request: ChildRequest,
  { proposals, group }: KePlan,
): ChildOffer => {
  const { policy, environment } = sa.config
  const inboundSpi = sa.config.allocateSpi()
  return {
    request,
    inboundSpi,
    proposals: withSpi(proposals, spiOctets(inboundSpi)),
    nonce: randomBytes(environment, NONCE_LENGTH),
    exchange:
      group === undefined ? undefined : createKeyExchange(policy.backend, group, environment),
  }
}

export const discardOffer = (sa: ExchangeContext, offer: ChildOffer): void => {
  sa.config.releaseSpi(offer.inboundSpi)
  offer.exchange?.wipe()
}

/** We do not take the peer's answer; where it is more than a refusal, the peer has made an SA of it. */
export const declineAnswer = (
  sa: ExchangeContext,
  offer: ChildOffer,
  payloads: readonly Payload[],
  now: Millis,
): void => {
  if (find(payloads, 'sa') === undefined) return discardOffer(sa, offer)
  offer.exchange?.wipe()
  sa.enqueue(new DeleteUnwanted(offer.inboundSpi), now)
}

/** The payloads that describe the Child SA itself; nonce and key exchange are the caller's. */
export const offerPayloads = ({ request, proposals }: ChildOffer): Payload[] => [
  ...(request.mode === 'tunnel' ? [] : [notify(NotifyType.UseTransportMode)]),
  notify(NotifyType.EspTfcPaddingNotSupported),
  notify(NotifyType.NonFirstFragmentsAlso),
  { kind: 'sa', proposals },
  { kind: 'tsi', selectors: request.localSelectors },
  { kind: 'tsr', selectors: request.remoteSelectors },
]

export const keyPayloads = ({ nonce, exchange }: ChildOffer): Payload[] => [
  { kind: 'nonce', data: nonce },
  ...(exchange === undefined
    ? []
    : [{ kind: 'ke', group: exchange.group, data: exchange.publicValue } as const]),
]

const describeFacts = (
  chosenProposal: Proposal,
  inboundSpi: number,
  outboundSpi: number,
  mode: 'transport' | 'tunnel',
  local: readonly TrafficSelector[],
  remote: readonly TrafficSelector[],
): ChildFacts => {
  const encr = chosen(chosenProposal, TransformType.Encr)
  const cipher = {
    encr: encr.id,
    keyLength: encr.keyLength ?? 0,
    integ: chosen(chosenProposal, TransformType.Integ).id,
  }
  const esn = chosen(chosenProposal, TransformType.Esn).id === Esn.Yes
  return {
    inboundSpi,
    outboundSpi,
    mode,
    localSelectors: local,
    remoteSelectors: remote,
    esn,
    cipher,
    group: chosen(chosenProposal, TransformType.Ke).id,
    suite: `${formatCipher(cipher)}${esn ? ' with ESN' : ''}`,
  }
}

/** Keys by direction: the initiator of the exchange sends with the first half (§2.17). */
export const directChildKeys = (
  sa: ExchangeContext,
  facts: ChildFacts,
  nonceI: Uint8Array,
  nonceR: Uint8Array,
  shared: Uint8Array | undefined,
  exchangeInitiator: boolean,
): ChildKeys => {
  const material = deriveChildKeys(
    sa.suite.prf,
    sa.skD,
    nonceI,
    nonceR,
    shared,
    keyLengths(facts.cipher),
  )
  shared?.fill(0)
  return exchangeInitiator
    ? { outbound: material.initiator, inbound: material.responder }
    : { outbound: material.responder, inbound: material.initiator }
}

// --- initiator ---

export type Settled =
  | { readonly kind: 'agreed'; readonly facts: ChildFacts }
  | { readonly kind: 'refused'; readonly error: IpsecError; readonly notify: number }

/** What the peer's answer makes of our offer. */
export const settleOffer = (
  { peer }: ExchangeContext,
  offer: ChildOffer,
  payloads: readonly Payload[],
): Settled => {
  const refusal = findErrorNotify(payloads)
  const sa = find(payloads, 'sa')
  const misbehaved = (what: string): Settled => ({
    kind: 'refused',
    notify: 0,
    error: errorOf(
      'BAD_CHILD_ANSWER',
      { what },
      { ...offeredDetails(offer), answered: sa?.proposals.map(formatProposal) },
    ),
  })
  if (sa === undefined) {
    if (refusal === undefined) return misbehaved('has no SA payload')
    return { kind: 'refused', notify: refusal.type, error: childRefused(offer, refusal) }
  }
  const proposal = checkChosen(offer.proposals, sa.proposals)
  const tsi = find(payloads, 'tsi')
  const tsr = find(payloads, 'tsr')
  if (proposal === undefined || proposal.spi.length !== 4) return misbehaved('was not offered')
  if (tsi === undefined || tsr === undefined) return misbehaved('has no traffic selectors')
  const { request } = offer
  for (const [answered, asked] of [
    [tsi.selectors, request.localSelectors],
    [tsr.selectors, request.remoteSelectors],
  ] as const) {
    if (answered.length > Math.max(MOST_ANSWERED, asked.length))
      return misbehaved(`has ${answered.length} traffic selectors for one side`)
  }
  const transport = findNotify(payloads, NotifyType.UseTransportMode) !== undefined
  // §2.23.1: a peer behind a NAT, or one that sees us behind one, names the host by the address it sees.
  const seenAs = (
    answered: readonly TrafficSelector[],
    asked: readonly TrafficSelector[],
    isBehindNat: boolean | undefined,
  ): readonly TrafficSelector[] =>
    transport && isBehindNat === true ? substituteHost(answered, singleHost(asked)) : answered
  const local = seenAs(tsi.selectors, request.localSelectors, peer?.localBehindNat)
  const remote = seenAs(tsr.selectors, request.remoteSelectors, peer?.remoteBehindNat)
  if (!isNarrowing(local, request.localSelectors) || !isNarrowing(remote, request.remoteSelectors))
    return misbehaved('widens the traffic selectors')
  if (transport && request.mode === 'tunnel') return misbehaved('is for transport mode unasked')
  if (!transport && request.mode === 'transport') {
    return {
      kind: 'refused',
      notify: 0,
      error: errorOf('REFUSED_TRANSPORT', {}),
    }
  }
  const facts = describeFacts(
    proposal,
    offer.inboundSpi,
    getU32(proposal.spi, 0),
    transport ? 'transport' : 'tunnel',
    local,
    remote,
  )
  return supportsCipher(facts.cipher)
    ? { kind: 'agreed', facts }
    : misbehaved('names no cipher of ours')
}

const childRefused = (offer: ChildOffer, { type }: NotifyPayload): IpsecError => {
  const details = offeredDetails(offer)
  const { offered, localSelectors, remoteSelectors } = details
  switch (type) {
    case NotifyType.NoProposalChosen: {
      const { mode } = offer.request
      const values = { offered: offered.join(', '), mode: mode === 'auto' ? 'any' : mode }
      return errorOf('REFUSED_CHILD_PROPOSAL', values, details)
    }
    case NotifyType.TsUnacceptable: {
      const values = { local: localSelectors.join(' '), remote: remoteSelectors.join(' ') }
      return errorOf('REFUSED_SELECTORS', values, details)
    }
    default:
      return errorOf('REFUSED_CHILD', { notify: notifyName(type) }, details)
  }
}

const offeredDetails = ({ proposals, request }: ChildOffer) => ({
  offered: proposals.map(formatProposal),
  localSelectors: request.localSelectors.map(formatSelector),
  remoteSelectors: request.remoteSelectors.map(formatSelector),
})

// --- responder ---

export type Acceptance =
  | {
      readonly kind: 'accepted'
      readonly facts: ChildFacts
      readonly payloads: readonly Payload[]
      readonly group: number
    }
  | { readonly kind: 'refused'; readonly notify: NotifyPayload; readonly error: IpsecError }

const refuse = (type: number, why: string | IpsecError): Acceptance => ({
  kind: 'refused',
  notify: notify(type),
  error: typeof why === 'string' ? errorOf('BAD_CHILD_REQUEST', { what: why }) : why,
})

export interface AcceptOptions {
  /** CREATE_CHILD_SA can carry a key exchange, IKE_AUTH cannot. */
  readonly withKeyExchange: boolean
  /** A rekey keeps what its Child SA had. */
  readonly keep?: ChildFacts | undefined
  /** Where the peer may be: itself, or the address it was given. */
  readonly remoteAllowed: readonly TrafficSelector[]
  readonly localAllowed: readonly TrafficSelector[]
  /** The address the peer's packets come from: its host in transport mode, behind a NAT too (§2.23.1). */
  readonly observedRemote: Uint8Array
  /** Our own address as the system tells it; none where it does not. */
  readonly observedLocal: Uint8Array
}

/** What our policy lets this peer ask for: its assigned addresses, when it was given any. */
export const acceptOptions = (sa: ExchangeContext, withKeyExchange: boolean): AcceptOptions => {
  const { policy } = sa.config
  const assigned = sa.peer?.assignedAddresses ?? []
  return {
    withKeyExchange,
    remoteAllowed:
      policy.remoteTs ??
      (assigned.length > 0 ? assigned.map(address => hostSelector(address)) : EVERYTHING),
    localAllowed: policy.localTs ?? EVERYTHING,
    observedRemote: sa.path.remoteAddress,
    observedLocal: sa.path.localAddress,
  }
}

export const acceptOffer = (
  sa: ExchangeContext,
  payloads: readonly Payload[],
  options: AcceptOptions,
): Acceptance => {
  const { policy } = sa.config
  const offered = find(payloads, 'sa')
  const tsi = find(payloads, 'tsi')
  const tsr = find(payloads, 'tsr')
  if (offered === undefined || tsi === undefined || tsr === undefined) {
    return refuse(NotifyType.InvalidSyntax, 'SA or traffic selectors are missing')
  }
  const accepted = options.withKeyExchange ? acceptableWithKe(sa) : withoutKe(espOf(sa))
  const theirs = options.withKeyExchange ? offered.proposals : withoutKe(offered.proposals)
  const choice = chooseProposal(theirs, accepted)
  if (choice.kind === 'none') {
    return refuse(
      NotifyType.NoProposalChosen,
      noProposal('Child SA', theirs, accepted, choice.unmet),
    )
  }
  const { proposal } = choice
  if (proposal.spi.length !== 4)
    return refuse(NotifyType.InvalidSyntax, 'the SPI has not four octets')

  const asksTransport = findNotify(payloads, NotifyType.UseTransportMode) !== undefined
  const transport =
    options.keep === undefined
      ? asksTransport && policy.mode !== 'tunnel'
      : options.keep.mode === 'transport'
  if (policy.mode === 'transport' && !transport) {
    return refuse(
      NotifyType.NoProposalChosen,
      errorOf('TRANSPORT_ONLY', {}, { offered: 'tunnel', accepted: 'transport' }),
    )
  }
  const { keep } = options
  // §2.23.1: between hosts with a NAT in between, each end knows them by addresses of its own view.
  const theirTs = transport
    ? substituteHost(
        tsi.selectors,
        keep && singleHost(keep.remoteSelectors),
        options.observedRemote,
      )
    : tsi.selectors
  const ourTs = transport
    ? substituteHost(tsr.selectors, keep && singleHost(keep.localSelectors))
    : tsr.selectors
  const remoteAllowed = keep?.remoteSelectors ?? options.remoteAllowed
  const localAllowed = keep?.localSelectors ?? options.localAllowed
  // Narrowed first, since that leaves but a few to look at; what is cut out of ranges may make them many again.
  const met = { theirs: narrow(theirTs, remoteAllowed), ours: narrow(ourTs, localAllowed) }
  const believed = keep === undefined ? believable(met.theirs, met.ours, transport, options) : met
  const remote = narrow(believed.theirs, remoteAllowed)
  const local = narrow(believed.ours, localAllowed)
  if (!remote.some(({ type }) => local.some(ours => ours.type === type))) {
    return refuse(
      NotifyType.TsUnacceptable,
      noSelectors(
        { local: ourTs, remote: theirTs },
        { local: localAllowed, remote: remoteAllowed },
      ),
    )
  }
  const inboundSpi = sa.config.allocateSpi()
  const mode = transport ? 'transport' : 'tunnel'
  const facts = describeFacts(proposal, inboundSpi, getU32(proposal.spi, 0), mode, local, remote)
  return {
    kind: 'accepted',
    facts,
    group: chosen(proposal, TransformType.Ke).id,
    payloads: [
      ...(transport ? [notify(NotifyType.UseTransportMode)] : []),
      notify(NotifyType.EspTfcPaddingNotSupported),
      { kind: 'sa', proposals: [{ ...proposal, spi: spiOctets(inboundSpi) }] },
      // And the answer is in the initiator's view.
      {
        kind: 'tsi',
        selectors: transport ? substituteHost(remote, singleHost(tsi.selectors)) : remote,
      },
      {
        kind: 'tsr',
        selectors: transport ? substituteHost(local, singleHost(tsr.selectors)) : local,
      },
    ],
  }
}

/** With PFS off a peer may still ask for it; where it is demanded it must not be argued away (§1.3.1). */
const acceptableWithKe = (sa: ExchangeContext): readonly Proposal[] => {
  const { policy } = sa.config
  const own = espOf(sa)
  const named = groupsOf(own).length > 0
  if (named) return own
  const groups = groupsOf(policy.ike)
  return own.map(proposal => ({
    ...proposal,
    transforms: [
      ...proposal.transforms,
      ...groups.map(id => ({ type: TransformType.Ke, id })),
      ...(policy.pfs === true ? [] : [{ type: TransformType.Ke, id: 0 }]),
    ],
  }))
}

/**
 * What of the selectors may be: no inner address is one that never comes from another host, and transport mode is
 * for the two hosts themselves (§1.3.1). Of our side a range stays whole, since stock gateways name all addresses and
 * some read but one selector of an answer; packets to such addresses in it are dropped.
 */
const believable = (
  theirs: readonly TrafficSelector[],
  ours: readonly TrafficSelector[],
  transport: boolean,
  { observedRemote, observedLocal }: AcceptOptions,
): { theirs: readonly TrafficSelector[]; ours: readonly TrafficSelector[] } => {
  const ourHosts = ours.filter(selector => onlyInner([selector], observedRemote).length > 0)
  if (!transport) return { theirs: onlyInner(theirs, observedRemote), ours: ourHosts }
  const ourHost = singleHost(ours) ?? observedLocal
  return {
    theirs: narrow(theirs, [hostSelector(observedRemote)]),
    ours: ourHost.length === observedRemote.length ? narrow(ourHosts, [hostSelector(ourHost)]) : [],
  }
}

/** The one host that selectors name, under the first of these addresses that there is. */
const substituteHost = (
  selectors: readonly TrafficSelector[],
  ...addresses: readonly (Uint8Array | undefined)[]
): readonly TrafficSelector[] => {
  const host = singleHost(selectors)
  const other = addresses.find(address => address !== undefined)
  if (host === undefined || host.length !== other?.length) return selectors
  return selectors.map(ts => ({ ...ts, start: other, end: other }))
}

// --- the exchange ---

/** The groups our policy has for a Child SA's own key exchange. */
const childGroups = ({ esp, ike }: PeerPolicy): number[] => {
  const named = groupsOf(esp).filter(group => group !== 0)
  return named.length > 0 ? named : groupsOf(ike)
}

/** What the peer's refusals of a request have taught. */
export interface Tried {
  /** The groups that it named instead of our guess, in order (§1.3). */
  readonly groups: readonly number[]
  /** It refused everything that has a key exchange beside what has none. */
  readonly withoutKe: boolean
}

export const NOTHING_TRIED: Tried = { groups: [], withoutKe: false }

const hasNoKe = (proposal: Proposal): boolean => groupsOf([proposal]).length === 0

/**
 * With a key exchange and, unless it is demanded, without one, in proposals of their own: some peers refuse
 * a proposal that names the method NONE. `usual` is the first guess of the group.
 */
export const planKe = (sa: ExchangeContext, tried: Tried, usual: number): KePlan => {
  const { policy } = sa.config
  if (policy.pfs === false) return planWithoutKe(sa)
  const own = espOf(sa)
  const bare = policy.pfs === true ? [] : own.filter(hasNoKe)
  const groups = childGroups(policy)
  const group = tried.groups.at(-1) ?? (groups.includes(usual) ? usual : groups[0])
  if (tried.withoutKe || group === undefined) return { proposals: bare, group: undefined }
  // All groups of ours: some peers hold a Child SA to the group of its first IKE SA, whatever the current one has.
  const full = withKe(own, [...new Set([group, ...groups])])
  return { proposals: [...full, ...bare], group }
}

/**
 * How to ask once more after a refusal: with the group that the peer names, once for each of ours (§1.3),
 * or without a key exchange; undefined: there is no other way.
 */
export const nextTry = (
  sa: ExchangeContext,
  offer: ChildOffer,
  payloads: readonly Payload[],
  tried: Tried,
): Tried | undefined => {
  const refusal = findErrorNotify(payloads)
  if (refusal === undefined || offer.exchange === undefined) return undefined
  if (refusal.type === NotifyType.InvalidKePayload) {
    const [group] = readU16List(refusal)
    const isNew =
      group !== undefined && group !== offer.exchange.group && !tried.groups.includes(group)
    if (isNew && childGroups(sa.config.policy).includes(group)) {
      return { ...tried, groups: [...tried.groups, group] }
    }
  } else if (refusal.type !== NotifyType.NoProposalChosen) return undefined
  return offer.proposals.some(hasNoKe) ? { ...tried, withoutKe: true } : undefined
}

export class CreateChild implements Exchange {
  readonly type = ExchangeType.CreateChildSa
  readonly subject = 'childSa'
  private offer: ChildOffer | undefined
  private readonly request: ChildRequest
  private readonly ticket: number | undefined
  private readonly tried: Tried

  /** `ticket` undefined: nobody waits for it. */
  constructor(request: ChildRequest, ticket: number | undefined, tried = NOTHING_TRIED) {
    this.request = request
    this.ticket = ticket
    this.tried = tried
  }

  build(sa: ExchangeContext): Payload[] | undefined {
    if (sa.state !== 'established') return undefined
    this.offer = makeOffer(sa, this.request, planKe(sa, this.tried, sa.suite.group))
    return [...offerPayloads(this.offer), ...keyPayloads(this.offer)]
  }

  onResponse(sa: ExchangeContext, payloads: readonly Payload[], now: Millis): void {
    const offer = this.offer!
    const next = nextTry(sa, offer, payloads, this.tried)
    if (next !== undefined) {
      discardOffer(sa, offer)
      return sa.enqueue(new CreateChild(this.request, this.ticket, next), now)
    }
    const settled = settleOffer(sa, offer, payloads)
    const shared = sharedOf(offer, payloads)
    if (settled.kind === 'refused' || shared === 'missing') {
      declineAnswer(sa, offer, payloads, now)
      const error = settled.kind === 'refused' ? settled.error : unusableKe()
      if (settled.kind === 'refused' && settled.notify === NotifyType.TemporaryFailure) {
        return sa.enqueueLater(new CreateChild(this.request, this.ticket, this.tried), now)
      }
      return this.fail(sa, error)
    }
    if (sa.wasDeletedEarly(settled.facts.outboundSpi)) {
      discardOffer(sa, offer)
      return this.fail(sa, errorOf('NEW_CHILD_DELETED', {}))
    }
    const nonceR = find(payloads, 'nonce')!.data
    const keys = directChildKeys(sa, settled.facts, offer.nonce, nonceR, shared, true)
    offer.exchange?.wipe()
    sa.install(settled.facts, keys, { outboundReady: true, ticket: this.ticket }, now)
  }

  abandon(sa: ExchangeContext): void {
    if (this.offer !== undefined) discardOffer(sa, this.offer)
    if (this.ticket !== undefined) sa.output({ kind: 'childAbandoned', ticket: this.ticket })
  }

  private fail(sa: ExchangeContext, error: IpsecError): void {
    if (this.ticket !== undefined) sa.output({ kind: 'childFailed', ticket: this.ticket, error })
  }

  static respond(
    sa: ExchangeContext,
    payloads: readonly Payload[],
    options: AcceptOptions,
    now: Millis,
  ): readonly Payload[] {
    const made = answerChild(sa, payloads, options, now)
    if (made.kind === 'refused') return [made.notify]
    sa.install(made.facts, made.keys, { outboundReady: true, byPeer: true }, now)
    return made.payloads
  }
}

export const unusableKe = (): IpsecError =>
  errorOf('BAD_CHILD_ANSWER', { what: 'has a key exchange that cannot be used' })

/** The shared secret of an answer; 'missing' when the peer left out what it had to send. */
export const sharedOf = (
  offer: ChildOffer,
  payloads: readonly Payload[],
): Uint8Array | undefined | 'missing' => {
  if (find(payloads, 'nonce') === undefined) return 'missing'
  const proposal = find(payloads, 'sa')?.proposals[0]
  const group = proposal === undefined ? 0 : chosen(proposal, TransformType.Ke).id
  if (group === 0) return undefined
  const theirs = find(payloads, 'ke')
  if (theirs?.group !== group || offer.exchange?.group !== group) return 'missing'
  return offer.exchange.sharedSecret(theirs.data) ?? 'missing'
}

/** All of the responder's half but the installing. */
export const answerChild = (
  sa: ExchangeContext,
  payloads: readonly Payload[],
  options: AcceptOptions,
  now: Millis,
):
  | {
      kind: 'made'
      facts: ChildFacts
      keys: ChildKeys
      payloads: readonly Payload[]
      nonceI: Uint8Array
      nonceR: Uint8Array
    }
  | { kind: 'refused'; notify: NotifyPayload } => {
  const nonceI = find(payloads, 'nonce')?.data
  if (nonceI === undefined) return { kind: 'refused', notify: notify(NotifyType.InvalidSyntax) }
  const acceptance = acceptOffer(sa, payloads, options)
  if (acceptance.kind === 'refused') {
    reportRefusal(sa, 'Child SA', acceptance.error)
    return acceptance
  }
  const { facts, group } = acceptance
  const answer = group === 0 ? undefined : answerKeyExchange(sa, find(payloads, 'ke'), group, now)
  if (answer?.kind === 'refused') {
    sa.config.releaseSpi(facts.inboundSpi)
    return answer
  }
  const nonceR = randomBytes(sa.config.environment, NONCE_LENGTH)
  const keys = directChildKeys(sa, facts, nonceI, nonceR, answer?.shared, false)
  answer?.exchange.wipe()
  return {
    kind: 'made',
    facts,
    keys,
    nonceI,
    nonceR,
    payloads: [
      ...acceptance.payloads,
      { kind: 'nonce', data: nonceR },
      ...(answer === undefined
        ? []
        : [{ kind: 'ke', group, data: answer.exchange.publicValue } as const]),
    ],
  }
}
