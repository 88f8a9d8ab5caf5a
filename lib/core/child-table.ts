/**
 * The Child SAs of one session, newest first: what IKE negotiated joined with what carries the packets, by SPI.
 * It says which of them a segment goes out on, and lets those that were replaced fade (rule E7).
 */
import type { Millis } from '../base/environment.ts'
import type { EspSaPair } from '../esp/esp-sa.ts'
import type { Sad } from '../esp/sad.ts'
import type { ChildSa } from '../ike/child-sa.ts'
import { covers, overlap } from '../policy/traffic-selectors.ts'
import type { Flow } from '../tcp/stack.ts'
import { IpProtocol } from '../wire/registry.ts'

/** The two ends of a packet; of TCP where nothing else is said. */
export interface InnerFlow extends Flow {
  readonly protocol?: number
}

/** An installed Child SA: what IKE negotiated and what carries its packets. */
export interface Child<Owner = unknown> {
  readonly session: Owner
  readonly sa: ChildSa
  readonly pair: EspSaPair
  /** Transport mode: the two hosts, which do not stand in the packets. */
  readonly localHost: Uint8Array
  readonly remoteHost: Uint8Array
  /** Tunnel mode: the local selectors cover more than one host, so a packet may be for another one. */
  readonly isShared: boolean
  /** `Infinity` while in use; the end of the linger time once replaced (rule E7). */
  removeAt: Millis
}

/** Ours: a peer that makes and deletes Child SAs faster than they fade has the oldest cut short. */
export const MAX_LINGERING = 64

/** What was found for a flow, good until anything changes in the table; many connections share it. */
class Route<Owner> {
  readonly generation: number
  readonly table: ChildTable<Owner>
  readonly child: Child<Owner> | undefined

  constructor(table: ChildTable<Owner>, generation: number, child: Child<Owner> | undefined) {
    this.table = table
    this.generation = generation
    this.child = child
  }
}

export class ChildTable<Owner> {
  private readonly sad: Sad<Child<Owner>>
  /** In use, the newest first. */
  private used: Child<Owner>[] = []
  /** Deleted or replaced, the next to go first. */
  private lingering: Child<Owner>[] = []
  private readonly past: Volume = { octetsIn: 0, octetsOut: 0, packetsIn: 0, packetsOut: 0 }
  private readonly bySpi = new Map<number, Child<Owner>>()
  private generation = 0
  /** The newest one. */
  private lastRoute: Route<Owner> | undefined
  private modesAt = -1
  private allTransport = false
  /** One that was not exhausted when it was asked last. */
  private fresh: Child<Owner> | undefined

  constructor(sad: Sad<Child<Owner>>) {
    this.sad = sad
  }

  /** Those that were not replaced, newest first. */
  get inUse(): readonly Child<Owner>[] {
    return this.used
  }

  find(inboundSpi: number): Child<Owner> | undefined {
    return this.bySpi.get(inboundSpi)
  }

  hasOutboundSpi(spi: number): boolean {
    for (const { sa } of this.bySpi.values()) {
      if (sa.outboundSpi === spi) return true
    }
    return false
  }

  install(child: Child<Owner>): void {
    this.used = [child, ...this.used]
    this.bySpi.set(child.sa.inboundSpi, child)
    this.sad.install(child.sa.inboundSpi, child)
    this.generation++
  }

  setOutbound({ pair }: Child<Owner>, isReady: boolean): void {
    if (pair.outboundReady === isReady) return
    pair.outboundReady = isReady
    this.generation++
  }

  /**
   * The newest one we may send on whose selectors cover the flow. A connection asks for each segment and remembers its
   * Child SA, so that many of them cost it nothing.
   */
  route(flow: InnerFlow): Child<Owner> | undefined {
    const known = flow.route
    if (known instanceof Route && known.generation === this.generation && known.table === this)
      return (known as Route<Owner>).child
    const child = this.used.find(({ sa, pair }) => pair.outboundReady && isFor(sa, flow))
    const { lastRoute } = this
    if (lastRoute?.generation !== this.generation || lastRoute.child !== child)
      this.lastRoute = new Route(this, this.generation, child)
    flow.route = this.lastRoute
    return child
  }

  /** One that is in use covers the flow, even if the peer does not have it yet. */
  isCovered(flow: InnerFlow): boolean {
    return this.used.some(({ sa }) => isFor(sa, flow))
  }

  /** Whatever is sent goes without an inner IP header. */
  get isTransportOnly(): boolean {
    if (this.modesAt !== this.generation) {
      this.modesAt = this.generation
      this.allTransport = this.used.every(({ sa }) => sa.mode === 'transport')
    }
    return this.allTransport
  }

  /** All that we could send on have carried all that they may: nothing goes out before a rekey is done. */
  get isExhausted(): boolean {
    if (this.fresh !== undefined && maySend(this.fresh)) return false
    this.fresh = this.used.find(maySend)
    return this.fresh === undefined && this.used.some(({ pair }) => pair.outboundReady)
  }

  /** Something that is sent on already covers traffic of that Child SA. */
  hasSameRoute({ localSelectors, remoteSelectors }: ChildSa): boolean {
    return this.used.some(
      ({ sa, pair }) =>
        pair.outboundReady &&
        overlap(localSelectors, sa.localSelectors) &&
        overlap(remoteSelectors, sa.remoteSelectors),
    )
  }

  /** It was deleted or replaced: it receives for a while longer, and those beside it take over. */
  retire(inboundSpi: number, linger: Millis, now: Millis): void {
    const child = this.find(inboundSpi)
    if (child === undefined || child.removeAt !== Infinity) return
    this.used = this.used.filter(other => other !== child)
    this.generation++
    child.removeAt = now + linger
    this.setOutbound(child, false)
    for (const other of this.used) this.setOutbound(other, other.sa.outboundReady)
    if (linger === 0) return this.remove(child)
    this.lingering.push(child)
    if (this.lingering.length > MAX_LINGERING) this.remove(this.lingering.shift()!)
  }

  /** What all its Child SAs have carried, those that have gone too. */
  get volume(): Volume {
    const sum = { ...this.past }
    for (const child of this.bySpi.values()) {
      addVolume(sum, volumeOf(child))
    }
    return sum
  }

  private remove(child: Child<Owner>): void {
    addVolume(this.past, volumeOf(child))
    this.bySpi.delete(child.sa.inboundSpi)
    this.sad.release(child.sa.inboundSpi)
    child.pair.wipe()
  }

  clear(): void {
    for (const child of this.bySpi.values()) this.remove(child)
    this.used = []
    this.lingering = []
    this.generation++
  }

  /** All linger for the same time, so the first is the next. */
  nextTimeout(): Millis {
    return this.lingering[0]?.removeAt ?? Infinity
  }

  handleTimeout(now: Millis): void {
    while (this.nextTimeout() <= now) this.remove(this.lingering.shift()!)
  }

  /** The greatest TCP segment that fits `datagramOctets` on any of them. */
  segmentLimit(datagramOctets: number): number {
    let limit = Infinity
    for (const { sa, pair, remoteHost } of this.bySpi.values()) {
      const inner = sa.mode === 'transport' ? 0 : remoteHost.length === 16 ? 40 : 20
      limit = Math.min(limit, pair.payloadLimit(datagramOctets) - inner)
    }
    return limit
  }
}

const isFor = (
  { localSelectors, remoteSelectors }: ChildSa,
  { protocol = IpProtocol.Tcp, localAddress, localPort, remoteAddress, remotePort }: InnerFlow,
): boolean =>
  covers(remoteSelectors, remoteAddress, protocol, remotePort) &&
  covers(localSelectors, localAddress, protocol, localPort)

const maySend = ({ pair, removeAt }: Child): boolean =>
  removeAt === Infinity && pair.outboundReady && pair.lifetimeState() !== 'hard'

/** Octets and packets of ESP, in and out. */
export interface Volume {
  octetsIn: number
  octetsOut: number
  packetsIn: number
  packetsOut: number
}

export const volumeOf = ({ pair: { inbound, outbound } }: Child): Volume => ({
  octetsIn: inbound.octets,
  octetsOut: outbound.octets,
  packetsIn: inbound.packets,
  packetsOut: outbound.packets,
})

const addVolume = (sum: Volume, more: Volume): void => {
  sum.octetsIn += more.octetsIn
  sum.octetsOut += more.octetsOut
  sum.packetsIn += more.packetsIn
  sum.packetsOut += more.packetsOut
}
