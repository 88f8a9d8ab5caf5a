/**
 * Addresses that a responder gives to peers (RFC 7296 §3.15): each to one identity at a time, and to the same
 * identity again when it comes back. What it remembers is bounded by the addresses in use, not by the peers
 * that ever came.
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

interface Lease {
  readonly address: Uint8Array
  readonly netmask: Uint8Array | undefined
  readonly owner: string
  /** SAs that hold it: two while an identity authenticates anew. */
  holders: number
}

export class AddressPool {
  private readonly ranges: readonly Range[]
  private readonly leases = new Map<string, Lease>()
  /** In the order of their release. */
  private readonly free = new Map<string, Lease>()
  /** The newest address of each identity, in use or free. */
  private readonly lastOf = new Map<string, string>()
  /** How many of each range were ever given out. */
  private readonly touched: number[]

  constructor(ranges: readonly TrafficSelector[]) {
    this.ranges = ranges.map(readRange)
    this.touched = this.ranges.map(() => 0)
  }

  has(length: 4 | 16): boolean {
    return this.ranges.some(({ first }) => first.length === length)
  }

  /**
   * `wanted` is given to whom it belongs. `restarted`: what the identity holds is a leftover, so it gets that.
   * Undefined: all are in use.
   */
  assign(
    identity: string,
    length: 4 | 16,
    wanted: Uint8Array | undefined,
    restarted: boolean,
  ): Pick<Lease, 'address' | 'netmask'> | undefined {
    const owner = `${length}${identity}`
    const last = this.lastOf.get(owner)
    for (const key of [wanted === undefined ? last : toHex(wanted), last]) {
      if (key === undefined) continue
      const held = this.leases.get(key)
      if (held?.owner === owner && (wanted !== undefined || restarted)) {
        held.holders++
        return held
      }
      if (this.free.get(key)?.owner === owner) return this.take(key, owner)
    }
    const oldest = this.oldestFree(length)
    const fresh =
      oldest === undefined || this.free.size < REMEMBERED ? this.fresh(length, owner) : undefined
    return fresh ?? (oldest === undefined ? undefined : this.take(oldest, owner))
  }

  private oldestFree(length: number): string | undefined {
    for (const [key, { address }] of this.free) {
      if (address.length === length) return key
    }
    return undefined
  }

  private fresh(length: number, owner: string): Lease | undefined {
    for (const [i, { first, count, netmask }] of this.ranges.entries()) {
      if (first.length !== length || this.touched[i]! >= count) continue
      const lease = { address: plus(first, this.touched[i]!++), netmask, owner, holders: 1 }
      return this.lend(lease)
    }
    return undefined
  }

  private take(key: string, owner: string): Lease {
    const before = this.free.get(key)!
    this.free.delete(key)
    if (this.lastOf.get(before.owner) === key) this.lastOf.delete(before.owner)
    return this.lend({ ...before, owner, holders: 1 })
  }

  private lend(lease: Lease): Lease {
    const key = toHex(lease.address)
    this.leases.set(key, lease)
    this.lastOf.set(lease.owner, key)
    return lease
  }

  release(address: Uint8Array): void {
    const key = toHex(address)
    const lease = this.leases.get(key)
    if (lease === undefined || --lease.holders > 0) return
    this.leases.delete(key)
    this.free.set(key, lease)
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

/** Exact as far as it matters: beyond `MOST` only its being more counts. */
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
export const parsePool = (option: string, given: unknown): readonly TrafficSelector[] => {
  const ranges = parseSelectors(option, given)
  for (const range of ranges) {
    if (!sameSelector({ ...hostSelector(range.start), end: range.end }, range))
      throw new OptionError(option, given, 'addresses without protocol or port')
  }
  return ranges
}
