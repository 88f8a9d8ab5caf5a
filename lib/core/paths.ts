/**
 * Where the peer of a session is: one place for all its SAs, what it has proved about that place, how a NAT on
 * the way is kept open, and how large a datagram fits through.
 *
 * The newest authentic datagram says where the peer is (RFC 7296 §2.23), but its source address may be forged:
 * anyone on the way can send it on with another one. So a new place is on trial until the peer has answered
 * from there what was asked there, and gets little before that (RFC 9000 §8.1, §9.3).
 */
import { equal } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import { MAX_DATAGRAM } from '../base/packet.ts'
import { samePath, type Path } from '../base/path.ts'
import { SizeSearch } from '../base/size-search.ts'
import type { PeerPlace, Sighting } from '../ike/exchange.ts'
import type { NatVerdict } from '../ike/nat-detection.ts'
import { isLoopback } from '../policy/inner-addresses.ts'
import type { Lineage } from './lineage.ts'

/** What a path is taken for before anything is known of it: RFC 8200's minimum, which nearly all of IPv4 takes too. */
const SAFE_MTU = 1280
const LEAST_MTU_V4 = 576
const LEAST_MTU_V6 = 1280
/** Of interfaces that do not tell. */
const ETHERNET_MTU = 1500
/** The loopback interface carries any UDP datagram there is. */
const LOOPBACK_MTU = 65535
/** Others may take what we can receive for what the path takes: 1400 fits common tunnels. */
const TOLD_MTU = 1400
const UDP_HEADER = 8
/** RFC 9000 §8.1: what a place may get before it is proved, as a multiple of what came from there. */
const UNPROVED_FACTOR = 3
/** Ours: the answer of a place on trial is waited for so long before the place before it has its turn again. */
const TRIAL: Millis = 5_000
/** RFC 3948 §4: "the default is 20 seconds". */
const NAT_KEEPALIVE: Millis = 20_000
/** Ours: no NAT forgets sooner that is of any use. */
const LEAST_KEEPALIVE: Millis = 5_000
/** Ours: as if so many octets had come from an address that is tried, so that it may get a few requests. */
const TRIED = 400
/** Ours: places that are remembered, for a peer whose datagrams come by several ways in turn. */
const MAX_PROVED = 3
const MAX_SEARCHES = MAX_PROVED + 1

/** Octets from and to a place that is not proved. */
interface Traffic {
  readonly path: Path
  received: number
  sent: number
}

/** The peer seems to have moved, and has not answered from there yet. */
interface PendingMove {
  /** The last place that was proved. */
  readonly before: Path
  readonly endsAt: Millis
  readonly traffic: Traffic
}

/** What fits through between two addresses, whatever the ports are. */
interface Ends {
  readonly path: Path
  readonly search: SizeSearch
}

export class Paths implements PeerPlace {
  moves = 0
  /** The current place first. */
  private searches: readonly Ends[] = []
  private readonly lineage: Lineage
  private place: Path
  private trial: PendingMove | undefined
  /** Of the last place on trial: who comes from there again may get what its datagrams add up to. */
  private unproved: Traffic | undefined
  /** Where the peer has answered from before, the last one first. */
  private proved: readonly Path[] = []
  private isNew = false
  private isRevived = false
  /** Nothing has come by the way that we have chosen, or nothing for long. */
  private isUntried = false
  /** When the NAT before us needs a datagram, unless another goes out sooner. */
  keepaliveAt: Millis = Infinity
  mustUpdate = false
  isTried = false
  private readonly home: Uint8Array
  /** Other addresses of the peer, as it says. */
  private told: readonly Uint8Array[] = []
  /** As newer messages than those of IKE_SA_INIT say. */
  private nat: NatVerdict | undefined
  /** As what the peer sees us, and after how many moves that was. */
  private seen: (Sighting & { readonly moves: number }) | undefined
  private adapted = NAT_KEEPALIVE
  /** A keepalive's time of silence was tried, and the NAT still knew us. */
  private isKeepaliveProved = false
  private isKeepaliveChecked = false

  constructor(lineage: Lineage, path: Path) {
    this.lineage = lineage
    this.place = path
    this.home = path.remoteAddress
  }

  get current(): Path {
    return this.place
  }

  /**
   * RFC 7296 §2.23: an end that is behind a NAT itself does not follow, because the other end's address is
   * fixed; and only a NAT changes the address of a peer that does not say so itself (RFC 4555).
   */
  private get mayMove(): boolean {
    const { isClient, facts } = this.lineage
    if (facts === undefined) return !isClient
    return this.remoteBehindNat && !(isClient && this.localBehindNat)
  }

  get localBehindNat(): boolean {
    return (this.nat ?? this.lineage.facts)?.localBehindNat ?? false
  }

  get remoteBehindNat(): boolean {
    return (this.nat ?? this.lineage.facts)?.remoteBehindNat ?? false
  }

  float(): void {
    if (this.place.floatsTo !== undefined) this.moveTo(this.place.floatsTo)
  }

  noteNewest(path: Path, octets: number, now: Millis): void {
    if (samePath(path, this.place)) {
      if (this.trial !== undefined) this.trial.traffic.received += octets
      return
    }
    if (this.mayMove) this.follow(path, octets, now)
  }

  follow(path: Path, octets: number, now: Millis): void {
    if (samePath(path, this.place)) return
    const before = this.trial?.before ?? this.place
    this.trial = this.isProved(path, before) ? undefined : this.newTrial(before, path, octets, now)
    this.moveTo(path)
    if (this.trial === undefined) this.remember(before)
  }

  private newTrial(before: Path, path: Path, octets: number, now: Millis): PendingMove {
    const { unproved } = this
    const traffic =
      unproved !== undefined && samePath(unproved.path, path)
        ? unproved
        : { path, received: 0, sent: 0 }
    traffic.received += octets
    this.unproved = traffic
    return { before, endsAt: now + TRIAL, traffic }
  }

  private isProved(path: Path, before: Path): boolean {
    // The initiator has had our answer to its first request, so the host is there, whatever port it uses now.
    if (this.lineage.facts === undefined) return equal(path.remoteAddress, before.remoteAddress)
    return samePath(path, before) || this.proved.some(other => samePath(other, path))
  }

  noteAnswer(path: Path, isLate: boolean, isProof: boolean): void {
    if (!samePath(path, this.place)) return
    if (isLate || this.isUntried) this.isRevived = true
    // After a late one the peer may be in doubt of us; one more request shows it that we hear it again.
    if (isProof || isLate) this.isUntried = isLate
    if (this.trial === undefined || !isProof) return
    this.isTried = false
    this.remember(this.trial.before)
    this.trial = undefined
    this.isNew = true
  }

  /** A session of the same peer ends in this one: it has proved itself at that place. */
  adopt({ current }: Paths): void {
    if (samePath(current, this.place)) return
    this.remember(this.trial?.before ?? this.place)
    this.trial = undefined
    this.moveTo(current)
    this.isNew = true
  }

  /** We send another way now, and the peer owes no proof of a place that it has not chosen. */
  reroute(path: Path): void {
    this.trial = undefined
    this.moveTo(this.place.isUnmarked === true ? path : (path.floatsTo ?? path))
    this.isNew = true
    this.isUntried = true
    this.mustUpdate = true
    this.isTried = false
  }

  noteAddresses(addresses: readonly Uint8Array[]): void {
    this.told = addresses
  }

  /** Where else the peer may be: it has said so, or we began there. */
  get others(): readonly Uint8Array[] {
    return [this.home, ...this.told].filter(
      (address, at, all) =>
        !equal(address, this.place.remoteAddress) &&
        all.findIndex(other => equal(other, address)) === at,
    )
  }

  /** One of those is tried: it gets requests of IKE, and nothing else before it has answered. */
  tryPath(path: Path, now: Millis): void {
    if (samePath(path, this.place)) return
    const before = this.trial?.before ?? this.place
    this.trial = { before, endsAt: now + TRIAL, traffic: { path, received: TRIED, sent: 0 } }
    this.moveTo(path)
    this.isTried = true
    this.isUntried = true
    this.mustUpdate = true
  }

  noteUpdated(): void {
    this.mustUpdate = false
  }

  noteNat(verdict: NatVerdict, seen: Sighting, isUpdate: boolean): void {
    this.nat = verdict
    if (!this.lineage.isClient) return
    const before = this.seen
    this.seen = { ...seen, moves: this.moves }
    // Nothing to compare with: another SA, or we have moved ourselves.
    if (isUpdate || before?.of !== seen.of || before.moves !== this.moves) return
    if (equal(before.hash, seen.hash)) {
      this.isKeepaliveProved ||= this.isKeepaliveChecked
      return
    }
    // The NAT has forgotten us, and the peer sends to where nobody is.
    this.mustUpdate = true
    this.isUntried = true
    this.isKeepaliveProved = false
    this.adapted = Math.max(LEAST_KEEPALIVE, this.adapted / 2)
  }

  /** The first keepalive asks the peer, too, under which address it sees us: whether its time is short enough. */
  takeKeepaliveCheck(now: Millis): boolean {
    const { isClient, facts, policy } = this.lineage
    if (this.keepaliveAt > now || this.isKeepaliveProved || !isClient) return false
    if (facts?.mobike !== true || !this.localBehindNat) return false
    if (policy.natKeepalive !== undefined || policy.livenessInterval === 0) return false
    this.keepaliveAt = Infinity
    this.isKeepaliveChecked = true
    return true
  }

  noteRevival(): void {
    this.isRevived = true
  }

  /** The system says that the way may be open again: with the peer's answer it is. */
  seek(): void {
    this.isUntried = true
  }

  private moveTo(path: Path): void {
    this.place = path
    this.moves++
  }

  private remember(path: Path): void {
    const others = this.proved.filter(other => !samePath(other, path))
    this.proved = [path, ...others].slice(0, MAX_PROVED)
  }

  /** The peer has to be asked whether it is where it seems to be. */
  get isOnTrial(): boolean {
    return this.trial !== undefined
  }

  /** The peer has to be asked: it may not be there, or not know where we are. */
  get needsAnswer(): boolean {
    return this.isOnTrial || this.isUntried
  }

  /** Whether the peer is at a place that is new and proved, once: what was known of the way there is void. */
  takeNew(): boolean {
    const { isNew } = this
    this.isNew = false
    return isNew
  }

  /** Whether the peer was heard after a silence, or by a way that we have chosen, once: it may be reached again. */
  takeRevived(): boolean {
    const { isRevived } = this
    this.isRevived = false
    return isRevived
  }

  /** Octets of IKE that may still go to the current place. */
  get allowance(): number {
    const { trial, place } = this
    // The host has answered from that address: a NAT has given it another port.
    if (trial === undefined || equal(trial.before.remoteAddress, place.remoteAddress))
      return Infinity
    const { received, sent } = trial.traffic
    return UNPROVED_FACTOR * received - sent
  }

  /** The same of data, which leave a third to the request that proves the place and to answers. */
  get dataAllowance(): number {
    if (this.trial === undefined) return Infinity
    const { received, sent } = this.trial.traffic
    return (UNPROVED_FACTOR - 1) * received - sent
  }

  get deadline(): Millis {
    return Math.min(this.keepaliveAt, this.trial?.endsAt ?? Infinity)
  }

  /** The place on trial does not answer: the peer is where it was before. */
  handleTimeout(now: Millis): void {
    if (this.trial === undefined || this.trial.endsAt > now) return
    const { before } = this.trial
    this.trial = undefined
    this.moveTo(before)
  }

  /** RFC 3948 §4: a keepalive only when nothing else kept the NAT's mapping alive. */
  noteSent(path: Path, octets: number, now: Millis): void {
    if (this.trial !== undefined && samePath(path, this.place)) this.trial.traffic.sent += octets
    const interval = this.keepaliveInterval
    this.keepaliveAt = interval > 0 ? now + interval : Infinity
  }

  /** Silence after which the mapping of a NAT or firewall on the way is refreshed; 0: never. */
  get keepaliveInterval(): Millis {
    const { facts, policy } = this.lineage
    if (facts === undefined) return 0
    return policy.natKeepalive ?? (this.localBehindNat ? this.adapted : 0)
  }

  /** No SA is left that a mapping is for. */
  close(): void {
    this.keepaliveAt = Infinity
    this.trial = undefined
  }

  /** Octets of the largest UDP payload that is sent. */
  get datagramLimit(): number {
    return this.datagramOf(this.sizes.limit)
  }

  /** Octets of UDP payload in an IP packet. */
  datagramOf(packet: number): number {
    const ipHeader = this.isIpv6 ? 40 : 20
    return Math.min(packet - ipHeader - UDP_HEADER, MAX_DATAGRAM)
  }

  /** Once the peer is known: how large IP packets get to the current place. */
  get sizes(): SizeSearch {
    const { place } = this
    const [first] = this.searches
    if (first !== undefined && first.path === place) return first.search
    const known = this.searches.find(({ path }) => sameEnds(path, place))
    const search = known?.search ?? this.newSearch()
    const others = this.searches.filter(other => other !== known)
    this.searches = [{ path: place, search }, ...others].slice(0, MAX_SEARCHES)
    return search
  }

  private newSearch(): SizeSearch {
    const { facts, policy } = this.lineage
    const { interfaceMtu = ETHERNET_MTU } = this.place
    const isLocal = isWithin(this.place) && facts?.isOurs === true
    const most = policy.mtu ?? (isLocal ? LOOPBACK_MTU : interfaceMtu)
    const least = this.isIpv6 ? LEAST_MTU_V6 : LEAST_MTU_V4
    return new SizeSearch({ least, most, start: isLocal ? most : SAFE_MTU })
  }

  private get isIpv6(): boolean {
    return this.place.remoteAddress.length === 16
  }

  /** Octets of the largest IP packet that the peer is told it may send. */
  get receivable(): number {
    const { most, limit } = this.sizes
    // Our own ends find out themselves what gets through.
    if (this.lineage.facts?.isOurs === true) return most
    return this.sizes.mayPass(TOLD_MTU) ? Math.min(most, Math.max(limit, TOLD_MTU)) : limit
  }
}

/** The peer is on this host. */
const isWithin = ({ localAddress, remoteAddress }: Path): boolean =>
  isLoopback(remoteAddress) || equal(localAddress, remoteAddress)

const sameEnds = (a: Path, b: Path): boolean =>
  a.socket === b.socket &&
  equal(a.localAddress, b.localAddress) &&
  equal(a.remoteAddress, b.remoteAddress)
