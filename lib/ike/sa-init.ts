/**
 * IKE_SA_INIT, both halves (RFC 7296 §1.2, §2.6, §2.7, §2.23). Nothing in it is authenticated yet, so
 * errors in it are believed only for want of anything better.
 */
import { equal, utf8 } from '../base/bytes.ts'
import { drawSpi, randomBytes, type Environment, type Millis } from '../base/environment.ts'
import { errorOf } from '../base/error-table.ts'
import type { IpsecError } from '../base/errors.ts'
import type { Path } from '../base/path.ts'
import {
  createKeyExchange,
  exchangeCost,
  publicValueLength,
  supportsGroup,
  type KeyExchange,
} from '../crypto/key-exchange.ts'
import { certificateRequest, usesSignatures, type Credentials } from '../identity/credentials.ts'
import { SIGNATURE_HASHES } from '../identity/signature-auth.ts'
import type { PeerPolicy } from '../policy/options.ts'
import {
  checkChosen,
  chooseProposal,
  chosen,
  formatProposal,
  groupsOf,
} from '../policy/proposal.ts'
import { groupName } from '../policy/transform-names.ts'
import { IKE_HEADER_LENGTH, NO_SPI, type HeaderFacts, type IkeHeader } from '../wire/ike-header.ts'
import { find, hasExcess, lacksRequired, writeMessage } from '../wire/message.ts'
import { findErrorNotify, findNotify, notify, readU16List, u16Data } from '../wire/notify.ts'
import { isChainError, readChain, writeChain } from '../wire/payload-chain.ts'
import type { NotifyPayload, Payload } from '../wire/payloads.ts'
import {
  ExchangeType,
  notifyName,
  NotifyType,
  ProtocolId,
  TransformType,
} from '../wire/registry.ts'
import { demandCookie, type CookieJar } from './cookie.ts'
import { NONCE_LENGTH } from './create-child.ts'
import type { IkeSuite } from './exchange.ts'
import { noProposal } from './refusal.ts'
import { natDetectionPayloads, natVerdict, type NatVerdict } from './nat-detection.ts'
import { suiteOf } from './suite.ts'

const VENDOR_ID = utf8('ike-socket/v1 :)')
/** Ours: it is kept for AUTH, once for each handshake that is half open, and honest ones fit one packet. */
const MAX_REQUEST = 8192

/** What both ends know after IKE_SA_INIT. */
export interface Handshake {
  readonly suite: IkeSuite
  readonly spiR: Uint8Array
  readonly nonceI: Uint8Array
  readonly nonceR: Uint8Array
  /** Owned and wiped by the code that derives keys. */
  readonly shared: Uint8Array
  /** The two messages octet for octet: AUTH signs them. */
  readonly request: Uint8Array
  readonly response: Uint8Array
  readonly peerIsOurs: boolean
  readonly nat: NatVerdict
  readonly fragmentation: boolean
  readonly childless: boolean
  /** Hash algorithms of the peer's signatures (RFC 7427 §4); empty: it knows only the older methods. */
  readonly peerHashes: readonly number[]
  /** Both ends have post-quantum keys (RFC 8784 §3). */
  readonly ppk: boolean
  /** Authorities whose certificates the peer takes; only a responder asks this early. */
  readonly certificateRequests: readonly Payload[]
}

const fragmentationNotify = (isWanted: boolean): Payload[] =>
  isWanted ? [notify(NotifyType.Ikev2FragmentationSupported)] : []

/** What both ends must say for a proof to be understood (RFC 8784 §3, RFC 7427 §4). */
const proofCapabilities = (usesPpk: boolean, credentials: Credentials): Payload[] => [
  ...(usesPpk ? [notify(NotifyType.UsePpk)] : []),
  ...(usesSignatures(credentials)
    ? [notify(NotifyType.SignatureHashAlgorithms, u16Data(...SIGNATURE_HASHES))]
    : []),
]

const otherCapabilities = (policy: PeerPolicy): Payload[] => [
  ...(policy.childless === 'never' ? [] : [notify(NotifyType.ChildlessIkev2Supported)]),
  { kind: 'vendor', data: VENDOR_ID },
]

const readCapabilities = (
  policy: PeerPolicy,
  credentials: Credentials,
  payloads: readonly Payload[],
): Pick<
  Handshake,
  'peerIsOurs' | 'fragmentation' | 'childless' | 'peerHashes' | 'ppk' | 'certificateRequests'
> => {
  const says = (type: number): boolean => findNotify(payloads, type) !== undefined
  return {
    peerIsOurs: payloads.some(
      payload => payload.kind === 'vendor' && equal(payload.data, VENDOR_ID),
    ),
    fragmentation: policy.fragmentation && says(NotifyType.Ikev2FragmentationSupported),
    childless: policy.childless !== 'never' && says(NotifyType.ChildlessIkev2Supported),
    peerHashes: readHashes(findNotify(payloads, NotifyType.SignatureHashAlgorithms)),
    ppk: credentials.ppk !== undefined && says(NotifyType.UsePpk),
    certificateRequests: payloads.filter(({ kind }) => kind === 'certreq'),
  }
}

const readHashes = (hashes: NotifyPayload | undefined): readonly number[] =>
  hashes === undefined ? [] : readU16List(hashes)

const readPayloads = (message: Uint8Array, header: IkeHeader): ReturnType<typeof readChain> =>
  readChain(message, IKE_HEADER_LENGTH, message.length, header.nextPayload)

// --- initiator ---

export type InitOutcome =
  /**
   * A cookie or another group was asked for: the request is sent with it at once, or, when it may be late or
   * somebody may only want to keep us going, when it is repeated anyway.
   */
  | { readonly kind: 'again'; readonly isUrgent: boolean }
  | { readonly kind: 'done'; readonly handshake: Handshake }
  /** Somebody, perhaps the peer, refuses; to be believed if nothing better comes. */
  | { readonly kind: 'refused'; readonly error: IpsecError }
  | { readonly kind: 'ignored'; readonly why: string }

/** A request that was sent. All of a group are the same but for their cookie (RFC 7296 §2.6). */
interface Variant {
  readonly group: number
  readonly cookie: Uint8Array | undefined
  readonly request: Uint8Array
}

export class SaInit {
  private readonly policy: PeerPolicy
  private readonly credentials: Credentials
  private readonly environment: Environment
  private readonly spiI: Uint8Array
  private readonly path: Path
  private readonly delaysChanges: boolean
  private readonly nonce: Uint8Array
  private natDetection: readonly Payload[] | undefined
  /** By group: the answer that made us change may not have been the peer's. */
  private readonly exchanges = new Map<number, KeyExchange>()
  /** In the order they were first sent. */
  private readonly variants: Variant[] = []
  /** What the last request was made with, and what the next one shall be: the last to ask decides. */
  private sent: Pick<Variant, 'group' | 'cookie'>
  private next: Pick<Variant, 'group' | 'cookie'>

  /** `delaysChanges`: no request is changed before it is repeated anyway, so that a genuine answer comes first. */
  constructor(
    policy: PeerPolicy,
    credentials: Credentials,
    environment: Environment,
    spiI: Uint8Array,
    path: Path,
    delaysChanges: boolean,
  ) {
    this.policy = policy
    this.credentials = credentials
    this.environment = environment
    this.spiI = spiI
    this.path = path
    this.delaysChanges = delaysChanges
    this.nonce = randomBytes(environment, NONCE_LENGTH)
    this.sent = { group: groupsOf(policy.ike)[0]!, cookie: undefined }
    this.next = this.sent
  }

  /** What is to be sent now: the same as before, unless a cookie or another group was asked for. */
  request(): Uint8Array {
    const { group, cookie } = (this.sent = this.next)
    const known = this.variants.find(other => other.group === group && isSame(other.cookie, cookie))
    if (known !== undefined) return known.request
    const request = this.build(group, cookie)
    this.variants.push({ group, cookie, request })
    return request
  }

  private build(group: number, cookie: Uint8Array | undefined): Uint8Array {
    const { policy, credentials, environment, spiI, nonce } = this
    const exchange =
      this.exchanges.get(group) ?? createKeyExchange(policy.backend, group, environment)!
    this.exchanges.set(group, exchange)
    this.natDetection ??= natDetectionPayloads(environment, policy.backend, spiI, NO_SPI, this.path)
    return writeMessage(headerFacts(spiI, NO_SPI, true, false), [
      ...(cookie === undefined ? [] : [notify(NotifyType.Cookie, cookie)]),
      { kind: 'sa', proposals: policy.ike },
      { kind: 'ke', group, data: exchange.publicValue },
      { kind: 'nonce', data: nonce },
      ...this.natDetection,
      ...fragmentationNotify(policy.fragmentation),
      ...proofCapabilities(credentials.ppk !== undefined, credentials),
      ...otherCapabilities(policy),
    ])
  }

  /** A cookie of unknown origin changed the request, and the answer may be to what it was before. */
  get isAmbiguous(): boolean {
    return this.variants.some(({ cookie }) => cookie !== undefined)
  }

  onResponse(response: Uint8Array, header: IkeHeader, path: Path): InitOutcome {
    const payloads = readPayloads(response, header)
    if (isChainError(payloads)) return { kind: 'ignored', why: 'ike.init.malformed' }
    const cookie = findNotify(payloads, NotifyType.Cookie)
    if (cookie !== undefined && find(payloads, 'sa') === undefined)
      return this.onCookie(cookie.data)
    const otherGroup = findNotify(payloads, NotifyType.InvalidKePayload)
    if (otherGroup !== undefined) return this.onInvalidKe(readU16List(otherGroup)[0])
    const refusal = findErrorNotify(payloads)
    if (refusal !== undefined) return { kind: 'refused', error: this.refused(refusal.type) }
    return this.settle(response, header, payloads, path)
  }

  private onCookie(data: Uint8Array): InitOutcome {
    // RFC 7296 §2.6: 1 to 64 octets.
    if (data.length < 1 || data.length > 64) return { kind: 'ignored', why: 'ike.init.cookie' }
    const { group } = this.sent
    const tried = this.variants.filter(
      ({ group: other, cookie }) => other === group && cookie !== undefined,
    )
    // It is late, or came twice; a responder that accepts that cookie has the request with it already.
    if (isSame(this.sent.cookie, data)) return { kind: 'ignored', why: 'ike.init.cookie' }
    this.next = { group, cookie: data.slice() }
    return { kind: 'again', isUrgent: tried.length === 0 && !this.delaysChanges }
  }

  private onInvalidKe(group: number | undefined): InitOutcome {
    if (group === undefined || group === this.sent.group) {
      return { kind: 'ignored', why: 'ike.init.group' }
    }
    if (!groupsOf(this.policy.ike).includes(group) || !supportsGroup(group)) {
      return {
        kind: 'refused',
        error: errorOf(
          'REFUSED_GROUP',
          { wanted: groupName(group), offered: this.offered.join(', ') },
          { wanted: groupName(group), offered: this.offered },
        ),
      }
    }
    this.next = { group, cookie: this.sent.cookie }
    return { kind: 'again', isUrgent: !this.exchanges.has(group) && !this.delaysChanges }
  }

  private refused(type: number): IpsecError {
    const details = { offered: this.offered }
    const offered = this.offered.join(', ')
    switch (type) {
      case NotifyType.NoProposalChosen:
        return errorOf('REFUSED_PROPOSAL', { offered }, details)
      case NotifyType.InvalidMajorVersion:
        return errorOf('REFUSED_VERSION', {}, details)
      default:
        return errorOf('REFUSED_IKE_SA', { notify: notifyName(type) }, details)
    }
  }

  private get offered(): readonly string[] {
    return this.policy.ike.map(formatProposal)
  }

  private settle(
    response: Uint8Array,
    header: IkeHeader,
    payloads: readonly Payload[],
    path: Path,
  ): InitOutcome {
    const ignored = (why: string): InitOutcome => ({ kind: 'ignored', why })
    if (hasExcess(payloads) || lacksRequired(ExchangeType.IkeSaInit, payloads)) {
      return ignored('ike.init.malformed')
    }
    if (equal(header.spiR, NO_SPI)) return ignored('ike.init.spi')
    const proposal = checkChosen(this.policy.ike, find(payloads, 'sa')!.proposals)
    const suite = proposal && suiteOf(this.policy.backend, proposal)
    const ke = find(payloads, 'ke')!
    const exchange = suite && this.exchanges.get(suite.group)
    // The last one that was sent is the likeliest to have been answered.
    const variant = this.variants.findLast(({ group }) => group === suite?.group)
    if (
      suite === undefined ||
      exchange === undefined ||
      variant === undefined ||
      ke.group !== suite.group
    ) {
      return ignored('ike.init.choice')
    }
    const shared = exchange.sharedSecret(ke.data)
    if (shared === undefined) return ignored('ike.init.ke')
    return {
      kind: 'done',
      handshake: {
        suite,
        spiR: header.spiR,
        nonceI: this.nonce,
        nonceR: find(payloads, 'nonce')!.data,
        shared,
        request: variant.request,
        response: response.slice(),
        nat: natVerdict(this.policy.backend, payloads, this.spiI, header.spiR, path),
        ...readCapabilities(this.policy, this.credentials, payloads),
      },
    }
  }

  wipe(): void {
    for (const exchange of this.exchanges.values()) exchange.wipe()
  }
}

const isSame = (a: Uint8Array | undefined, b: Uint8Array | undefined): boolean =>
  a === undefined || b === undefined ? a === b : equal(a, b)

const headerFacts = (
  spiI: Uint8Array,
  spiR: Uint8Array,
  originalInitiator: boolean,
  response: boolean,
): HeaderFacts => ({
  spiI,
  spiR,
  exchange: ExchangeType.IkeSaInit,
  originalInitiator,
  response,
  messageId: 0,
})

// --- responder ---

export type InitAnswer =
  | { readonly kind: 'accepted'; readonly handshake: Handshake }
  /** An answer that leaves nothing behind. */
  | {
      readonly kind: 'reply'
      readonly message: Uint8Array
      readonly why: string
      /** What our side is told besides. */
      readonly refusal?: IpsecError
    }
  | { readonly kind: 'drop'; readonly why: string }

/** How a stranger is received. */
export interface Reception {
  readonly cookies: CookieJar
  /** False: so much computing cannot be afforded now, perhaps because the address is not proven. */
  pay(cost: Millis, isProven: boolean): boolean
}

/** An address that anyone may have written there never gets more octets than came from it. */
export const respondSaInit = (
  policy: PeerPolicy,
  credentials: Credentials,
  environment: Environment,
  request: Uint8Array,
  header: IkeHeader,
  path: Path,
  reception: Reception,
  now: Millis,
): InitAnswer => {
  const answer = answerSaInit(
    policy,
    credentials,
    environment,
    request,
    header,
    path,
    reception,
    now,
  )
  const isLarger = answer.kind === 'reply' && answer.message.length > request.length
  return isLarger ? { kind: 'drop', why: 'ike.init.short' } : answer
}

const answerSaInit = (
  policy: PeerPolicy,
  credentials: Credentials,
  environment: Environment,
  request: Uint8Array,
  header: IkeHeader,
  path: Path,
  { cookies, pay }: Reception,
  now: Millis,
): InitAnswer => {
  const { spiI } = header
  const reply = (why: string, payload: Payload, refusal?: IpsecError): InitAnswer => ({
    kind: 'reply',
    why,
    ...(refusal === undefined ? {} : { refusal }),
    message: writeMessage(headerFacts(spiI, NO_SPI, false, true), [payload]),
  })
  const invalid = (): InitAnswer => reply('ike.init.malformed', notify(NotifyType.InvalidSyntax))
  if (header.messageId !== 0 || equal(spiI, NO_SPI)) return { kind: 'drop', why: 'ike.init.header' }
  if (header.majorVersion > 2) {
    // RFC 7296 §2.5: our highest version in the header, theirs is what the notify is about.
    return reply('ike.init.version', notify(NotifyType.InvalidMajorVersion))
  }
  if (header.majorVersion < 2) return { kind: 'drop', why: 'ike.init.version' }
  if (request.length > MAX_REQUEST) return { kind: 'drop', why: 'ike.init.long' }
  const payloads = readPayloads(request, header)
  if (isChainError(payloads)) {
    return payloads.error === 'INVALID_SYNTAX'
      ? invalid()
      : reply(
          'ike.init.critical',
          notify(NotifyType.UnsupportedCriticalPayload, Uint8Array.of(payloads.payloadType)),
        )
  }
  if (hasExcess(payloads) || lacksRequired(ExchangeType.IkeSaInit, payloads)) return invalid()
  const nonceI = find(payloads, 'nonce')!.data
  const cookie = findNotify(payloads, NotifyType.Cookie)?.data
  const isProven = cookie !== undefined && cookies.accepts(cookie, nonceI, spiI, path, now)
  const askForCookie = (): InitAnswer => ({
    kind: 'reply',
    why: 'ike.init.cookie',
    message: demandCookie(spiI, cookies.make(nonceI, spiI, path, now)),
  })
  const offered = find(payloads, 'sa')!.proposals
  if (offered.some(({ protocol, spi }) => protocol !== ProtocolId.Ike || spi.length > 0))
    return invalid()
  const choice = chooseProposal(offered, policy.ike)
  const suite = choice.kind === 'chosen' ? suiteOf(policy.backend, choice.proposal) : undefined
  if (choice.kind === 'none' || suite === undefined) {
    const unmet = choice.kind === 'none' ? choice.unmet : []
    return reply(
      'ike.init.proposal',
      notify(NotifyType.NoProposalChosen),
      noProposal('IKE SA', offered, policy.ike, unmet),
    )
  }
  const ke = find(payloads, 'ke')!
  const group = chosen(choice.proposal, TransformType.Ke).id
  if (ke.group !== group) {
    return reply('ike.init.group', notify(NotifyType.InvalidKePayload, u16Data(group)))
  }
  if (ke.data.length !== publicValueLength(group)) return invalid()
  // §2.10: long enough for every PRF that was offered, so for the one that was chosen.
  const leastNonce = suite.prf.length / 2
  if (nonceI.length < leastNonce) return invalid()
  const told = readCapabilities(policy, credentials, payloads)
  const nonceR = randomBytes(environment, Math.min(nonceI.length, NONCE_LENGTH))
  const spiR = drawSpi(environment, 8)
  const facts = headerFacts(spiI, spiR, false, true)
  const others: readonly Payload[] = [
    { kind: 'nonce', data: nonceR },
    ...fragmentationNotify(told.fragmentation),
    ...proofCapabilities(told.ppk, credentials),
    ...(findNotify(payloads, NotifyType.NatDetectionSourceIp) === undefined
      ? []
      : natDetectionPayloads(environment, policy.backend, spiI, spiR, path)),
    ...certificateRequest(policy.backend, credentials),
  ]
  const answerWith = (publicValue: Uint8Array): readonly Payload[] => [
    { kind: 'sa', proposals: [choice.proposal] },
    { kind: 'ke', group, data: publicValue },
    ...others,
  ]
  // An address that has proven itself by a cookie may get more octets than came from it. Any public value is as long.
  const room =
    (isProven ? Infinity : request.length) - IKE_HEADER_LENGTH - lengthOf(answerWith(ke.data))
  if (room < 0) return askForCookie()
  if (!pay(exchangeCost(policy.backend, group), isProven)) {
    return isProven ? { kind: 'drop', why: 'ike.init.busy' } : askForCookie()
  }
  const exchange = createKeyExchange(policy.backend, group, environment)!
  const shared = exchange.sharedSecret(ke.data)
  if (shared === undefined) return invalid()
  const response = writeMessage(facts, [
    ...answerWith(exchange.publicValue),
    ...within(room, otherCapabilities(policy)),
  ])
  exchange.wipe()
  return {
    kind: 'accepted',
    handshake: {
      suite,
      spiR,
      nonceI,
      nonceR,
      shared,
      request: request.slice(),
      response,
      nat: natVerdict(policy.backend, payloads, spiI, NO_SPI, path),
      ...told,
    },
  }
}

/** Octets of a chain of payloads. */
const lengthOf = (payloads: readonly Payload[]): number => writeChain(payloads).bytes.length

/** What fits so many octets, in its order. */
const within = (room: number, wished: readonly Payload[]): readonly Payload[] => {
  let left = room
  return wished.filter(payload => {
    const length = lengthOf([payload])
    if (length > left) return false
    left -= length
    return true
  })
}
