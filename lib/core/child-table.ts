/**
 * The Child SAs of one session, newest first: what IKE negotiated joined with what carries the packets, by SPI.
 * It says which of them a segment goes out on, and lets those that were replaced fade (rule E7).
 */
import type { Millis } from '../base/environment.ts'
import type { EspSaPair } from '../esp/esp-sa.ts'
import type { Sad } from '../esp/sad.ts'
import type { ChildSa } from '../ike/child-sa.ts'
import { covers, narrow } from '../policy/traffic-selectors.ts'
import type { Flow } from '../tcp/stack.ts'
import { IpProtocol } from '../wire/registry.ts'

/** An installed Child SA: what IKE negotiated and what carries its packets. */
export interface Child<Owner = unknown> {
  readonly session: Owner
  readonly sa: ChildSa
  readonly pair: EspSaPair
  /** Transport mode: the two hosts, which do not stand in the packets. */
  readonly localHost: Uint8Array
  readonly remoteHost: Uint8Array
  /** `Infinity` while in use; the end of the linger time once replaced (rule E7). */
  removeAt: Millis
}

/** Ours: a peer that makes and deletes Child SAs faster than they fade has the oldest cut short. */
export const MAX_LINGERING = 64

export class ChildTable<Owner> {
  private readonly sad: Sad<Child<Owner>>
  private readonly list: Child<Owner>[] = []

  constructor(sad: Sad<Child<Owner>>) {
    this.sad = sad
  }

  /** Those that were not replaced, newest first. */
  get inUse(): readonly Child<Owner>[] {
    return this.list.filter(({ removeAt }) => removeAt === Infinity)
  }

  find(inboundSpi: number): Child<Owner> | undefined {
    return this.list.find(({ sa }) => sa.inboundSpi === inboundSpi)
  }

  hasOutboundSpi(spi: number): boolean {
    return this.list.some(({ sa }) => sa.outboundSpi === spi)
  }

  install(child: Child<Owner>): void {
    this.list.unshift(child)
    this.sad.install(child.sa.inboundSpi, child)
  }

  /** The newest one we may send on whose selectors cover the flow. */
  route(flow: Flow): Child<Owner> | undefined {
    const { localAddress, localPort, remoteAddress, remotePort } = flow
    for (const child of this.list) {
      if (
        child.pair.outboundReady &&
        covers(child.sa.remoteSelectors, remoteAddress, IpProtocol.Tcp, remotePort) &&
        covers(child.sa.localSelectors, localAddress, IpProtocol.Tcp, localPort)
      ) {
        return child
      }
    }
    return undefined
  }

  /** All that we could send on have carried all that they may: nothing goes out before a rekey is done. */
  get isExhausted(): boolean {
    let any = false
    for (const { pair } of this.list) {
      if (!pair.outboundReady) continue
      if (pair.lifetimeState() !== 'hard') return false
      any = true
    }
    return any
  }

  /** Something that is sent on already covers traffic of that Child SA. */
  hasSameRoute({ localSelectors, remoteSelectors }: ChildSa): boolean {
    return this.list.some(
      ({ sa, pair }) =>
        pair.outboundReady &&
        narrow(localSelectors, sa.localSelectors).length > 0 &&
        narrow(remoteSelectors, sa.remoteSelectors).length > 0,
    )
  }

  /** It was deleted or replaced: it receives for a while longer, and those beside it take over. */
  retire(inboundSpi: number, linger: Millis, now: Millis): void {
    const child = this.find(inboundSpi)
    if (child === undefined) return
    child.pair.outboundReady = false
    for (const other of this.inUse) {
      if (other !== child) other.pair.outboundReady = other.sa.outboundReady
    }
    if (linger === 0) return this.remove(child)
    child.removeAt = now + linger
    const lingering = this.list.filter(({ removeAt }) => removeAt < Infinity)
    if (lingering.length > MAX_LINGERING) this.remove(lingering.at(-1)!)
  }

  private remove(child: Child<Owner>): void {
    this.list.splice(this.list.indexOf(child), 1)
    this.sad.release(child.sa.inboundSpi)
    child.pair.wipe()
  }

  clear(): void {
    for (const child of [...this.list]) this.remove(child)
  }

  nextTimeout(): Millis {
    let next = Infinity
    for (const { removeAt } of this.list) next = Math.min(next, removeAt)
    return next
  }

  handleTimeout(now: Millis): void {
    for (const child of this.list.filter(({ removeAt }) => removeAt <= now)) this.remove(child)
  }

  /** The greatest TCP segment that fits `datagramOctets` on any of them. */
  segmentLimit(datagramOctets: number): number {
    let limit = Infinity
    for (const { sa, pair, remoteHost } of this.list) {
      const inner = sa.mode === 'transport' ? 0 : remoteHost.length === 16 ? 40 : 20
      limit = Math.min(limit, pair.payloadLimit(datagramOctets) - inner)
    }
    return limit
  }
}
