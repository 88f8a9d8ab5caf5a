/** Sets of traffic selectors: parsing, narrowing (RFC 7296 §2.9), and whether a packet is covered. */
import { formatAddress, parseAddress } from '../base/address.ts'
import { compare, equal } from '../base/bytes.ts'
import { listOf, OptionError } from '../base/errors.ts'
import { IpProtocol, TrafficSelectorType } from '../wire/registry.ts'
import type { TrafficSelector } from '../wire/traffic-selector.ts'

const ANY_PORT_END = 65535
/** Ours: each packet is looked up in them. Of a side that our own policy gives more selectors, as many as those. */
const MOST_SELECTORS = 16
const PROTOCOLS: ReadonlyMap<string, number> = new Map(
  Object.entries({
    tcp: IpProtocol.Tcp,
    udp: IpProtocol.Udp,
    any: 0,
  }),
)

/** Reads '10.0.0.0/8', '::1', '10.0.0.1-10.0.0.9', each with '[tcp]' or '[tcp/8080]' behind it. */
export const parseSelectors = (option: string, value: unknown): readonly TrafficSelector[] => {
  const texts = listOf(option, value)
  if (texts.length === 0) throw new OptionError(option, value, 'one traffic selector or more')
  return texts.map(text => {
    const selector = typeof text === 'string' ? parseSelector(text) : undefined
    if (selector === undefined) {
      throw new OptionError(
        option,
        text,
        "a traffic selector like '10.1.0.0/16' or '10.0.0.1[tcp/8080]'",
      )
    }
    return selector
  })
}

const parseSelector = (text: string): TrafficSelector | undefined => {
  const match =
    /^([0-9a-f.:]+)(?:\/(\d{1,3})|-([0-9a-f.:]+))?(?:\[(\w+)(?:\/(\d{1,5})(?:-(\d{1,5}))?)?\])?$/i.exec(
      text.trim(),
    )
  if (match === null) return undefined
  const start = parseAddress(match[1]!)
  if (start === undefined) return undefined
  const range =
    match[3] === undefined ? subnet(start, match[2]) : { start, end: parseAddress(match[3]) }
  if (range?.end === undefined || range.start.length !== range.end.length) return undefined
  if (compare(range.start, range.end) > 0) return undefined
  const protocol =
    match[4] === undefined ? 0 : (PROTOCOLS.get(match[4].toLowerCase()) ?? Number(match[4]))
  const startPort = Number(match[5] ?? 0)
  const endPort = Number(match[6] ?? match[5] ?? ANY_PORT_END)
  if (!(protocol >= 0 && protocol <= 255) || endPort > ANY_PORT_END || startPort > endPort)
    return undefined
  return selector(range.start, range.end, protocol, startPort, endPort)
}

const subnet = (
  address: Uint8Array,
  prefix: string | undefined,
): { start: Uint8Array; end: Uint8Array } | undefined => {
  const bits = prefix === undefined ? 8 * address.length : Number(prefix)
  if (bits > 8 * address.length) return undefined
  const start = address.slice()
  const end = address.slice()
  for (let i = 0; i < address.length; i++) {
    const mask = 0xff & ~(0xff >> Math.min(8, Math.max(0, bits - 8 * i)))
    start[i]! &= mask
    end[i]! |= ~mask
  }
  return { start, end }
}

const selector = (
  start: Uint8Array,
  end: Uint8Array,
  protocol: number,
  startPort: number,
  endPort: number,
): TrafficSelector => ({
  type: start.length === 4 ? TrafficSelectorType.Ipv4Range : TrafficSelectorType.Ipv6Range,
  protocol,
  startPort,
  endPort,
  start,
  end,
})

/** One host; all protocols and ports unless said otherwise. */
export const hostSelector = (
  address: Uint8Array,
  protocol: number = IpProtocol.Any,
  port?: number,
): TrafficSelector => selector(address, address, protocol, port ?? 0, port ?? ANY_PORT_END)

/** All of IPv4 and IPv6: what a peer is asked for when it shall decide. */
export const EVERYTHING: readonly TrafficSelector[] = [4, 16].map(length =>
  selector(new Uint8Array(length), new Uint8Array(length).fill(255), 0, 0, ANY_PORT_END),
)

export const formatSelector = (ts: TrafficSelector): string => {
  const range = equal(ts.start, ts.end)
    ? formatAddress(ts.start)
    : (formatSubnet(ts) ?? `${formatAddress(ts.start)}-${formatAddress(ts.end)}`)
  const anyPort = ts.startPort === 0 && ts.endPort === ANY_PORT_END
  if (ts.protocol === 0 && anyPort) return range
  const name = [...PROTOCOLS].find(([, protocol]) => protocol === ts.protocol)?.[0] ?? ts.protocol
  if (anyPort) return `${range}[${name}]`
  return `${range}[${name}/${ts.startPort}${ts.startPort === ts.endPort ? '' : `-${ts.endPort}`}]`
}

const formatSubnet = (ts: TrafficSelector): string | undefined => {
  const bits = prefixLength(ts)
  return bits === undefined ? undefined : `${formatAddress(ts.start)}/${bits}`
}

/** Bits of the subnet that a selector's addresses make up, if they make up one. */
export const prefixLength = ({ start, end }: TrafficSelector): number | undefined => {
  let bits = 0
  while (bits < 8 * start.length && bitAt(start, bits) === bitAt(end, bits)) bits++
  for (let rest = bits; rest < 8 * start.length; rest++) {
    if (bitAt(start, rest) !== 0 || bitAt(end, rest) !== 1) return undefined
  }
  return bits
}

const bitAt = (address: Uint8Array, at: number): number => (address[at >> 3]! >> (7 - (at & 7))) & 1

/** Whether a packet's end lies in the set; a protocol or port of 0 asks about the address alone. */
export const covers = (
  set: readonly TrafficSelector[],
  address: Uint8Array,
  protocol: number,
  port: number,
): boolean => {
  for (let i = 0; i < set.length; i++) {
    const ts = set[i]!
    if (
      ts.start.length === address.length &&
      (ts.protocol === 0 || protocol === 0 || ts.protocol === protocol) &&
      ((port >= ts.startPort && port <= ts.endPort) || port === 0) &&
      compare(ts.start, address) <= 0 &&
      compare(address, ts.end) <= 0
    ) {
      return true
    }
  }
  return false
}

/** Whether any traffic lies in both. */
const meet = (a: TrafficSelector, b: TrafficSelector): boolean =>
  a.type === b.type &&
  (a.protocol === b.protocol || a.protocol === 0 || b.protocol === 0) &&
  Math.max(a.startPort, b.startPort) <= Math.min(a.endPort, b.endPort) &&
  compare(a.start, b.end) <= 0 &&
  compare(b.start, a.end) <= 0

/** Whether any traffic lies in both sets. */
export const overlap = (
  one: readonly TrafficSelector[],
  other: readonly TrafficSelector[],
): boolean => one.some(a => other.some(b => meet(a, b)))

const intersect = (a: TrafficSelector, b: TrafficSelector): TrafficSelector | undefined => {
  if (!meet(a, b)) return undefined
  const start = compare(a.start, b.start) >= 0 ? a.start : b.start
  const end = compare(a.end, b.end) <= 0 ? a.end : b.end
  const startPort = Math.max(a.startPort, b.startPort)
  const endPort = Math.min(a.endPort, b.endPort)
  return selector(start, end, a.protocol || b.protocol, startPort, endPort)
}

/**
 * What both ends allow, in the initiator's order (§2.9): the first selector may be that of the packet
 * that started it all, so what covers it stays first. What is more than may be is left out: an answer may be
 * narrower than both. Empty: TS_UNACCEPTABLE.
 */
export const narrow = (
  offered: readonly TrafficSelector[],
  allowed: readonly TrafficSelector[],
): TrafficSelector[] => {
  const most = Math.max(MOST_SELECTORS, allowed.length)
  const result: TrafficSelector[] = []
  // What one of ours has given is compared with the rest of the same alone, so that the work does not multiply.
  const given = allowed.map((): TrafficSelector[] => [])
  for (const theirs of offered) {
    for (const [i, ours] of allowed.entries()) {
      if (result.length === most) return result
      const both = intersect(theirs, ours)
      if (both === undefined || given[i]!.some(known => isWithin(both, known))) continue
      given[i]!.push(both)
      result.push(both)
    }
  }
  return result
}

const isWithin = (inner: TrafficSelector, outer: TrafficSelector): boolean =>
  inner.type === outer.type &&
  (outer.protocol === 0 || outer.protocol === inner.protocol) &&
  // OPAQUE ports, 65535 to 0, lie in nothing.
  inner.startPort <= inner.endPort &&
  outer.startPort <= inner.startPort &&
  inner.endPort <= outer.endPort &&
  compare(outer.start, inner.start) <= 0 &&
  compare(inner.end, outer.end) <= 0

export const sameSelector = (a: TrafficSelector, b: TrafficSelector): boolean =>
  a.protocol === b.protocol &&
  a.startPort === b.startPort &&
  a.endPort === b.endPort &&
  equal(a.start, b.start) &&
  equal(a.end, b.end)

/** Each selector of `answer` lies within what was offered: an answer may only narrow (§2.9). */
export const isNarrowing = (
  answer: readonly TrafficSelector[],
  offered: readonly TrafficSelector[],
): boolean => answer.every(one => offered.some(whole => isWithin(one, whole)))

/** The one host a set names, if it names just one. */
export const singleHost = (set: readonly TrafficSelector[]): Uint8Array | undefined => {
  const first = set[0]
  if (first === undefined || !equal(first.start, first.end)) return undefined
  return set.every(ts => equal(ts.start, first.start) && equal(ts.end, first.start))
    ? first.start
    : undefined
}

/** The one port a set names, if it names just one. */
export const singlePort = (set: readonly TrafficSelector[]): number | undefined => {
  const first = set[0]
  if (first === undefined || first.startPort !== first.endPort) return undefined
  return set.every(ts => ts.startPort === first.startPort && ts.endPort === first.startPort)
    ? first.startPort
    : undefined
}
