/**
 * Where the peer of a session is: one place for all its SAs, how a NAT on the way is kept open, and how
 * large a datagram fits through.
 */
import { equal } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import { MAX_DATAGRAM } from '../base/packet.ts'
import type { Path } from '../base/path.ts'
import { isLoopback } from '../policy/inner-addresses.ts'
import type { Lineage } from './lineage.ts'

/** Outer MTU where the path is not known. RFC 8200's minimum is 1280; 1400 fits common tunnels. */
const DEFAULT_MTU = 1400
/** The loopback interface carries any UDP datagram there is. */
const LOOPBACK_MTU = 65535
const UDP_HEADER = 8

export class Paths {
  private readonly lineage: Lineage
  private place: Path
  /** When the NAT before us needs a datagram, unless another goes out sooner. */
  keepaliveAt: Millis = Infinity

  constructor(lineage: Lineage, path: Path) {
    this.lineage = lineage
    this.place = path
  }

  get current(): Path {
    return this.place
  }

  /** RFC 7296 §2.23: an end that is behind a NAT itself does not follow; the other end's address is fixed. */
  get mayMove(): boolean {
    const { isClient, facts } = this.lineage
    return !isClient || facts?.localBehindNat !== true
  }

  moveTo(path: Path): void {
    this.place = path
  }

  /** RFC 3948 §4: a keepalive only when nothing else kept the NAT's mapping alive. */
  noteSent(now: Millis): void {
    const { facts, policy } = this.lineage
    const isNeeded = facts?.localBehindNat === true && policy.natKeepalive > 0
    this.keepaliveAt = isNeeded ? now + policy.natKeepalive : Infinity
  }

  /** No SA is left that a mapping is for. */
  close(): void {
    this.keepaliveAt = Infinity
  }

  /** Octets of the largest UDP payload that fits through. */
  get datagramLimit(): number {
    const { facts, policy } = this.lineage
    const ipHeader = this.place.remoteAddress.length === 16 ? 40 : 20
    const mtu = policy.mtu ?? (facts?.isOurs === true ? pathMtu(this.place) : DEFAULT_MTU)
    return Math.min(mtu - ipHeader - UDP_HEADER, MAX_DATAGRAM)
  }
}

const pathMtu = (path: Path): number =>
  isLoopback(path.remoteAddress) || equal(path.localAddress, path.remoteAddress)
    ? LOOPBACK_MTU
    : DEFAULT_MTU
