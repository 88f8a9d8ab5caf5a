/**
 * MOBIKE (RFC 4555): the initiator tells from where it sends now, each end can make sure that the other is where it
 * seems to be, and the initiator learns that a NAT sees it under another port or address.
 */
import { errorOf } from '../base/error-table.ts'
import { concat, equal, getU16, toHex } from '../base/bytes.ts'
import { randomBytes } from '../base/environment.ts'
import type { Millis } from '../base/environment.ts'
import type { Path } from '../base/path.ts'
import { mayBeInner } from '../policy/inner-addresses.ts'
import type { PeerPolicy } from '../policy/options.ts'
import { findErrorNotify, findNotify, notify, u16Data } from '../wire/notify.ts'
import type { NotifyPayload, Payload } from '../wire/payloads.ts'
import { ExchangeType, NotifyType } from '../wire/registry.ts'
import type { Exchange, ExchangeContext } from './exchange.ts'
import { natDetectionPayloads, natVerdict } from './nat-detection.ts'

/** §4.2.5: "between 8 and 64 octets in length". */
const SHORTEST_COOKIE = 8
const LONGEST_COOKIE = 64
/** Ours. */
const COOKIE_LENGTH = 16
/** Ours: each is tried in turn, and a list has no end of its own. */
const MAX_ADDRESSES = 8
/** Ours: so many of a list are looked at. */
const MAX_READ = 64
/** Ours: UNEXPECTED_NAT_DETECTED may be the work of somebody who changed one packet: so often it is asked again (§3.9). */
const MAX_REPEATS = 5

/** §3.2: belongs to the message of IKE_AUTH that carries the SA. */
export const offerMobike = ({ mobike }: PeerPolicy): readonly Payload[] =>
  mobike ? [notify(NotifyType.MobikeSupported)] : []

/** §3.9: belongs to each request that says where we are; nothing where the system does not tell us our address. */
export const forbidNats = (
  { mobike, allowNats }: PeerPolicy,
  { localAddress, localPort, remoteAddress, remotePort }: Path,
): readonly Payload[] => {
  if (!mobike || allowNats || localAddress.length === 0) return []
  const ports = u16Data(localPort, remotePort)
  return [notify(NotifyType.NoNatsAllowed, concat(localAddress, remoteAddress, ports))]
}

/** The peer does not allow NATs, and there is one. */
export const hasForbiddenNat = (payloads: readonly Payload[], path: Path): boolean => {
  const nats = findNotify(payloads, NotifyType.NoNatsAllowed)
  return nats !== undefined && !isUnchanged(nats.data, path)
}

export const agreesOnMobike = ({ mobike }: PeerPolicy, payloads: readonly Payload[]): boolean =>
  mobike && findNotify(payloads, NotifyType.MobikeSupported) !== undefined

/** §3.4: what we have beside the address of the header, as far as we know which one that is. */
export const additionalAddresses = (
  addresses: readonly Uint8Array[],
  { localAddress }: Path,
): readonly Payload[] =>
  someOf(addresses.filter(address => !equal(address, localAddress))).map(address =>
    notify(
      address.length === 4 ? NotifyType.AdditionalIp4Address : NotifyType.AdditionalIp6Address,
      address,
    ),
  )

/** As many as are kept, of both families where there are both, in turn. */
const someOf = (addresses: readonly Uint8Array[]): readonly Uint8Array[] => {
  const [four, six] = [4, 16].map(length =>
    addresses.filter(address => address.length === length).slice(0, MAX_ADDRESSES),
  ) as [Uint8Array[], Uint8Array[]]
  return Array.from({ length: MAX_ADDRESSES }, (_, at) => [four[at], six[at]])
    .flat()
    .filter(address => address !== undefined)
    .slice(0, MAX_ADDRESSES)
}

/** The whole list that the peer gives (§3.6), without what can be no host; undefined: it says nothing about that. */
export const readAdditional = (
  payloads: readonly Payload[],
  { remoteAddress }: Path,
): readonly Uint8Array[] | undefined => {
  const told = payloads.filter(
    (payload): payload is NotifyPayload =>
      payload.kind === 'notify' &&
      (payload.type === NotifyType.AdditionalIp4Address ||
        payload.type === NotifyType.AdditionalIp6Address),
  )
  if (told.length === 0)
    return findNotify(payloads, NotifyType.NoAdditionalAddresses) === undefined ? undefined : []
  const addresses = told
    .slice(0, MAX_READ)
    .filter(({ type, data }) => data.length === (type === NotifyType.AdditionalIp4Address ? 4 : 16))
    .filter(({ data }) => mayBeInner(data, remoteAddress))
    .map(({ data }) => data.slice())
  return someOf(addresses)
}

/** §3.6: the list has changed; it is given as a whole. */
export class AnnounceAddresses implements Exchange {
  readonly type = ExchangeType.Informational
  readonly subject = 'nothing'

  build(sa: ExchangeContext): readonly Payload[] | undefined {
    if (sa.state !== 'established') return undefined
    const list = additionalAddresses(sa.config.ownAddresses(), sa.path)
    const told = list.length > 0 ? list : [notify(NotifyType.NoAdditionalAddresses)]
    return [...told, ...forbidNats(sa.config.policy, sa.path)]
  }

  onResponse(): void {}
}

/**
 * §3.7: a request whose answer nobody can make without having received it, not even the peer itself. With NAT
 * detection the answer says under which address and port the peer sees us (§3.8).
 */
export class CheckPath implements Exchange {
  readonly type = ExchangeType.Informational
  readonly subject = 'nothing'
  readonly provesPath = true
  private cookie: Uint8Array | undefined
  private moves = 0

  build(sa: ExchangeContext): readonly Payload[] | undefined {
    if (sa.state !== 'established') return undefined
    const { environment, policy, place } = sa.config
    this.cookie = randomBytes(environment, COOKIE_LENGTH)
    this.moves = place.moves
    return [
      ...natDetectionPayloads(environment, policy.backend, sa.spiI, sa.spiR, sa.path),
      notify(NotifyType.Cookie2, this.cookie),
    ]
  }

  onResponse(sa: ExchangeContext, payloads: readonly Payload[], now: Millis): void {
    const cookie = findNotify(payloads, NotifyType.Cookie2)
    if (cookie === undefined || !equal(cookie.data, this.cookie!)) {
      return sa.finish(errorOf('BAD_COOKIE2', {}), false, now)
    }
    const { place, policy } = sa.config
    // Another change of address has made this answer meaningless (§3.5).
    if (this.moves !== place.moves) return
    const { spiI, spiR, arrival } = sa
    const verdict = natVerdict(policy.backend, payloads, spiI, spiR, arrival.path)
    const hash = verdict.seenAs
    if (hash !== undefined) place.noteNat(verdict, { of: toHex(spiI), hash }, this.isUpdate)
    this.onChecked(sa, payloads, now)
  }

  protected get isUpdate(): boolean {
    return false
  }

  protected onChecked(_sa: ExchangeContext, _payloads: readonly Payload[], _now: Millis): void {}
}

/** §3.5: all SAs go on between the addresses of this request. */
export class UpdateAddresses extends CheckPath {
  private readonly repeats: number

  constructor(repeats = 0) {
    super()
    this.repeats = repeats
  }

  override build(sa: ExchangeContext): readonly Payload[] | undefined {
    const payloads = super.build(sa)
    const { policy } = sa.config
    return (
      payloads && [
        notify(NotifyType.UpdateSaAddresses),
        ...forbidNats(policy, sa.path),
        ...payloads,
      ]
    )
  }

  protected override get isUpdate(): boolean {
    return true
  }

  protected override onChecked(
    sa: ExchangeContext,
    payloads: readonly Payload[],
    now: Millis,
  ): void {
    const refusal = findErrorNotify(payloads)
    const isMeddledWith = refusal?.type === NotifyType.UnexpectedNatDetected
    if (isMeddledWith && this.repeats < MAX_REPEATS)
      return sa.enqueue(new UpdateAddresses(this.repeats + 1), now)
    // Refused for good, the peer goes on to send where it did; its silence there will tell.
    sa.config.place.noteUpdated()
  }
}

/** What is answered beside everything else in an INFORMATIONAL response. */
export const respondMobike = (
  sa: ExchangeContext,
  payloads: readonly Payload[],
): readonly Payload[] => {
  if (sa.peer?.mobike !== true) return []
  const { arrival, config, spiI, spiR } = sa
  const { environment, policy, place } = config
  const cookie = findNotify(payloads, NotifyType.Cookie2)
  const answer: NotifyPayload[] = isCookie(cookie) ? [notify(cookie.type, cookie.data)] : []
  if (hasForbiddenNat(payloads, arrival.path))
    return [notify(NotifyType.UnexpectedNatDetected), ...answer]
  if (findNotify(payloads, NotifyType.NatDetectionDestinationIp) !== undefined) {
    answer.unshift(...natDetectionPayloads(environment, policy.backend, spiI, spiR, arrival.path))
  }
  const others = sa.isClient ? readAdditional(payloads, arrival.path) : undefined
  if (others !== undefined) place.noteAddresses(others)
  // §2.1: the initiator decides.
  const isUpdate = findNotify(payloads, NotifyType.UpdateSaAddresses) !== undefined
  if (isUpdate && !sa.isClient) place.follow(arrival.path, arrival.octets, arrival.at)
  return answer
}

const isCookie = (cookie: NotifyPayload | undefined): cookie is NotifyPayload =>
  cookie !== undefined &&
  cookie.data.length >= SHORTEST_COOKIE &&
  cookie.data.length <= LONGEST_COOKIE

/** §4.2.6: source and destination addresses, then their ports. Our own address may be unknown, our port is not. */
const isUnchanged = (data: Uint8Array, path: Path): boolean => {
  const { localAddress, localPort, remoteAddress, remotePort } = path
  const { length } = remoteAddress
  if (data.length !== 2 * length + 4) return false
  const destination = data.subarray(length, 2 * length)
  return (
    equal(data.subarray(0, length), remoteAddress) &&
    (localAddress.length === 0 || equal(destination, localAddress)) &&
    getU16(data, 2 * length) === remotePort &&
    getU16(data, 2 * length + 2) === localPort
  )
}
