/**
 * Addresses that a responder gives to peers (RFC 7296 §3.15): each to one session of one principal at a time, and to
 * the same principal when it comes back. What it remembers is bounded by the addresses in use, not by the peers that
 * ever came.
 */
import { toHex } from '../base/bytes.ts'
import { OptionError } from '../base/errors.ts'
import type { TrafficSelector } from '../wire/traffic-selector.ts'
import { parseSelectors, prefixLength, sameSelector, hostSelector } from './traffic-selectors.ts'

/** Free addresses remembered with their last owner before the oldest is given to somebody else. */
const REMEMBERED = 4096
/** More of a larger range are never used. */
const MOST = 2 ** 24

interface Range {
  readonly first: Uint8Array
  readonly count: number
  readonly netmask: Uint8Array | undefined
}

/** To whom an address is leased. */
export interface Tenant {
  /** Equal for the same principal alone. */
  readonly key: string
  /** Equal for the same identity alone, whatever proves it: shares are counted by it. */
  readonly identityKey: string
}

export interface Wish {
  readonly tenant: Tenant
  /** The address that the peer asks for. */
  readonly wanted: Uint8Array | undefined
  /** Addresses that the peer's own session holds, which it authenticates once more. */
  readonly own: readonly Uint8Array[]
  /** The principal's other sessions end now, so it gets the address of the newest. */
  readonly restarted: boolean
}

export interface Lease {
  readonly address: Uint8Array
  readonly netmask: Uint8Array | undefined
  readonly tenant: Tenant
  /** SAs that hold it: two while a session authenticates once more. */
  holders: number
}

export class AddressPool {
  private readonly families: ReadonlyMap<number, Family>

  constructor(selectors: readonly TrafficSelector[]) {
    const ranges = selectors.map(readRange)
    this.families = new Map(
      [4, 16].map(length => [
        length,
        new Family(ranges.filter(({ first }) => first.length === length)),
      ]),
    )
  }

  has(length: 4 | 16): boolean {
    return (this.families.get(length)?.size ?? 0) > 0
  }

  /** Undefined: all are in use, or so many that this identity has had its share. */
  assign(length: 4 | 16, wish: Wish): Pick<Lease, 'address' | 'netmask'> | undefined {
    return this.families.get(length)?.assign(wish)
  }

  release(address: Uint8Array): void {
    this.families.get(address.length)?.release(address)
  }
}

/** The addresses of one length. */
class Family {
  private readonly ranges: readonly Range[]
  private readonly leases = new Map<string, Lease>()
  /** In the order of their release. */
  private readonly free = new Map<string, Lease>()
  /** The newest address of each principal, in use or free. */
  private readonly lastOf = new Map<string, string>()
  /** Addresses that each identity holds. */
  private readonly held = new Map<string, number>()
  /** How many of each range were given out in their order. */
  private readonly touched: number[]
  readonly size: number

  constructor(ranges: readonly Range[]) {
    this.ranges = ranges
    this.touched = ranges.map(() => 0)
    this.size = ranges.reduce((sum, { count }) => sum + count, 0)
  }

  assign(wish: Wish): Lease | undefined {
    const { tenant, wanted } = wish
    const wantedKey = wanted && toHex(wanted)
    const shared = this.share(wish, wantedKey)
    if (shared !== undefined) return shared
    // One identity, however many sessions it opens, leaves as much as it holds to others.
    const holds = this.held.get(tenant.identityKey) ?? 0
    if (holds > 0 && this.size - this.leases.size <= holds) return undefined
    for (const key of [wantedKey, this.lastOf.get(tenant.key)]) {
      if (key !== undefined && this.free.get(key)?.tenant.key === tenant.key)
        return this.take(key, tenant)
    }
    const mayGrow = this.free.size < REMEMBERED
    const [oldest] = this.free.keys()
    return (
      (wanted !== undefined && mayGrow ? this.untouched(wanted, tenant) : undefined) ??
      (oldest === undefined || mayGrow ? this.fresh(tenant) : undefined) ??
      (oldest === undefined ? undefined : this.take(oldest, tenant))
    )
  }

  /** What the peer's own session holds, or the principal's last one that ends now. */
  private share(
    { tenant, own, restarted }: Wish,
    wantedKey: string | undefined,
  ): Lease | undefined {
    const keys = own.map(toHex)
    const last = restarted ? this.lastOf.get(tenant.key) : undefined
    if (last !== undefined) keys.push(last)
    const leases = keys
      .map(key => this.leases.get(key))
      .filter(lease => lease?.tenant.key === tenant.key)
    const lease = leases.find(one => one && toHex(one.address) === wantedKey) ?? leases[0]
    if (lease !== undefined) lease.holders++
    return lease
  }

  /** An address that a peer asks for and that nobody had before. */
  private untouched(wanted: Uint8Array, tenant: Tenant): Lease | undefined {
    const key = toHex(wanted)
    if (this.leases.has(key) || this.free.has(key)) return undefined
    for (const [i, { first, count, netmask }] of this.ranges.entries()) {
      const offset = distance(first, wanted)
      if (offset >= this.touched[i]! && offset < count)
        return this.lend({ address: wanted.slice(), netmask, tenant, holders: 1 })
    }
    return undefined
  }

  private fresh(tenant: Tenant): Lease | undefined {
    for (const [i, { first, count, netmask }] of this.ranges.entries()) {
      while (this.touched[i]! < count) {
        const address = plus(first, this.touched[i]!++)
        const key = toHex(address)
        if (this.leases.has(key) || this.free.has(key)) continue
        return this.lend({ address, netmask, tenant, holders: 1 })
      }
    }
    return undefined
  }

  private take(key: string, tenant: Tenant): Lease {
    const before = this.free.get(key)!
    this.free.delete(key)
    if (this.lastOf.get(before.tenant.key) === key) this.lastOf.delete(before.tenant.key)
    return this.lend({ ...before, tenant, holders: 1 })
  }

  private lend(lease: Lease): Lease {
    const { address, tenant } = lease
    const key = toHex(address)
    this.leases.set(key, lease)
    this.lastOf.set(tenant.key, key)
    this.held.set(tenant.identityKey, (this.held.get(tenant.identityKey) ?? 0) + 1)
    return lease
  }

  release(address: Uint8Array): void {
    const key = toHex(address)
    const lease = this.leases.get(key)
    if (lease === undefined || --lease.holders > 0) return
    this.leases.delete(key)
    this.free.set(key, lease)
    const { identityKey } = lease.tenant
    const holds = this.held.get(identityKey)! - 1
    if (holds === 0) this.held.delete(identityKey)
    else this.held.set(identityKey, holds)
  }
}

/** A subnet's own address and its broadcast address are nobody's (RFC 919 §7, RFC 4291 §2.6.1). */
const readRange = (range: TrafficSelector): Range => {
  const { start, end } = range
  const prefix = prefixLength(range)
  const size = distance(start, end) + 1
  const isSubnet = prefix !== undefined && size > 2
  const reserved = isSubnet ? (start.length === 4 ? 2 : 1) : 0
  return {
    first: isSubnet ? plus(start, 1) : start,
    count: Math.min(size - reserved, MOST),
    netmask: start.length === 4 && prefix !== undefined ? maskOf(prefix) : undefined,
  }
}

/** Exact as far as it matters: beyond `MOST` only its being more counts, and below 0 its being less. */
const distance = (start: Uint8Array, end: Uint8Array): number =>
  start.reduce((sum, octet, i) => sum * 256 + end[i]! - octet, 0)

const plus = (address: Uint8Array, offset: number): Uint8Array => {
  const sum = address.slice()
  for (let i = sum.length - 1, carry = offset; carry > 0 && i >= 0; i--) {
    carry += sum[i]!
    sum[i] = carry % 256
    carry = Math.floor(carry / 256)
  }
  return sum
}

const maskOf = (prefix: number): Uint8Array =>
  Uint8Array.from(
    { length: 4 },
    (_, i) => 0xff & ~(0xff >> Math.min(8, Math.max(0, prefix - 8 * i))),
  )

/** Reads the option: subnets or ranges of addresses. */
export const parsePool = (option: string, value: unknown): readonly TrafficSelector[] => {
  const ranges = parseSelectors(option, value)
  for (const range of ranges) {
    if (!sameSelector({ ...hostSelector(range.start), end: range.end }, range))
      throw new OptionError(option, value, 'addresses without protocol or port')
  }
  return ranges
}
