/**
 * Which addresses may stand inside an SA. Those that never come from another host (RFC 1122 §3.2.1.3, RFC 4291
 * §2.5, RFC 6890) are trusted by many a program, so no peer may name itself by one.
 */
import { parseAddress } from '../base/address.ts'
import { compare, equal } from '../base/bytes.ts'
import type { TrafficSelector } from '../wire/traffic-selector.ts'

interface Range {
  readonly start: Uint8Array
  readonly end: Uint8Array
}

const range = (start: string, end: string): Range => ({
  start: parseAddress(start)!,
  end: parseAddress(end)!,
})

const LOOPBACK: readonly Range[] = [range('127.0.0.0', '127.255.255.255'), range('::1', '::1')]

/** Of no host: unspecified, link-local, multicast, broadcast and reserved, and IPv4 in the clothes of IPv6. */
const OTHERS: readonly Range[] = [
  range('0.0.0.0', '0.255.255.255'),
  range('169.254.0.0', '169.254.255.255'),
  range('224.0.0.0', '255.255.255.255'),
  range('::', '::'),
  // RFC 4291 §2.5.5: compatible and mapped addresses mean IPv4, which has selectors and packets of its own.
  range('::2', '::ffff:ffff'),
  range('::ffff:0.0.0.0', '::ffff:255.255.255.255'),
  range('fe80::', 'febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff'),
  range('ff00::', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'),
]

const isIn = (ranges: readonly Range[], address: Uint8Array): boolean =>
  ranges.some(
    ({ start, end }) =>
      start.length === address.length && compare(start, address) <= 0 && compare(address, end) <= 0,
  )

/** Of the loopback, of either family. */
export const isLoopback = (address: Uint8Array): boolean => isIn(LOOPBACK, address)

/**
 * Whether a host may have this address inside an SA. `outer` is where the peer's datagrams come from: what the
 * network delivers from there needs no SA to be believed, be it link-local or, on one machine, the loopback.
 */
export const mayBeInner = (address: Uint8Array, outer: Uint8Array): boolean =>
  isLoopback(address) ? isLoopback(outer) : !isIn(OTHERS, address) || equal(address, outer)

/** The selectors without the addresses that no peer at `outer` may have, in the same order. */
export const onlyInner = (
  selectors: readonly TrafficSelector[],
  outer: Uint8Array,
): TrafficSelector[] => {
  const gaps = isLoopback(outer) ? OTHERS : [...LOOPBACK, ...OTHERS]
  return selectors.flatMap(selector => {
    if (isHost(selector)) return mayBeInner(selector.start, outer) ? [selector] : []
    const pieces = gaps
      .filter(gap => !isApart(selector, gap))
      .reduce<TrafficSelector[]>(
        (left, gap) => left.flatMap(piece => without(piece, gap)),
        [selector],
      )
    return pieces.sort((a, b) => compare(a.start, b.start))
  })
}

const isHost = ({ start, end }: TrafficSelector): boolean => equal(start, end)

const isApart = ({ start, end }: TrafficSelector, gap: Range): boolean =>
  start.length !== gap.start.length || compare(end, gap.start) < 0 || compare(gap.end, start) < 0

/** What is left of a selector on either side of a gap. */
const without = (selector: TrafficSelector, gap: Range): TrafficSelector[] => {
  if (isApart(selector, gap)) return [selector]
  const { start, end } = selector
  const left: TrafficSelector[] = []
  if (compare(start, gap.start) < 0) left.push({ ...selector, end: stepped(gap.start, -1) })
  if (compare(gap.end, end) < 0) left.push({ ...selector, start: stepped(gap.end, 1) })
  return left
}

/** The address before or after one that is not the last. */
const stepped = (address: Uint8Array, by: 1 | -1): Uint8Array => {
  const next = address.slice()
  for (let i = next.length - 1; i >= 0; i--) {
    next[i]! += by
    if (next[i] !== (by === 1 ? 0 : 255)) break
  }
  return next
}
