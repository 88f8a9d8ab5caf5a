/**
 * A security policy database (RFC 4301 §4.4.1) for the calls of a program: ordered rules that PROTECT, BYPASS or
 * DISCARD connections by the peer's name or address, port and direction. The first rule that matches decides.
 */
import { domainToASCII } from 'node:url'
import { parseAddress } from '../base/address.ts'
import { compare, copy } from '../base/bytes.ts'
import { listOf, OptionError, ownProperties } from '../base/errors.ts'
import { oneOf, reader } from '../base/option-table.ts'
import type { TrafficSelector } from '../wire/traffic-selector.ts'
import { covers, isNarrowing, parseSelectors } from './traffic-selectors.ts'

export type Action = 'protect' | 'bypass' | 'discard'
export type Direction = 'out' | 'in' | 'both'

interface PortRange {
  readonly first: number
  readonly last: number
}

/** What a rule leaves open is undefined: it matches everything. */
export interface PolicyRule {
  /** As in the file, for example `rules[2]`. */
  readonly name: string
  readonly action: Action
  readonly direction: Direction
  /** Names as programs call them, in lower case; `*.` in front stands for one label or more. */
  readonly hosts: readonly string[] | undefined
  readonly addresses: readonly TrafficSelector[] | undefined
  readonly ports: readonly PortRange[] | undefined
  /** Where IKE goes, unless to the destination itself. */
  readonly gateway: string | undefined
}

export interface SecurityPolicy {
  readonly rules: readonly PolicyRule[]
  /** What no rule matches. */
  readonly otherwise: Action
}

export interface Verdict {
  readonly action: Action
  /** Undefined: no rule matched. */
  readonly rule: PolicyRule | undefined
  /**
   * Earlier rules that decide otherwise for some of the addresses that are meant, which are not known yet. What is
   * reached must be under none of them.
   */
  readonly unless: readonly PolicyRule[]
}

const RULE_NAMES = ['action', 'direction', 'host', 'address', 'port', 'gateway']
const NAMES = ['rules', 'default']
const ACTIONS = oneOf('protect', 'bypass', 'discard')
const ANY_PORT: PortRange = { first: 0, last: 65535 }

// --- reading ---

/** Reads the content of a policy file. Faults are OptionErrors that name the key. */
export const parsePolicyFile = (content: unknown): SecurityPolicy => {
  const given = objectOf('policy', content)
  const read = reader(given)
  read.refuseUnknown(NAMES)
  const { rules } = given
  if (!Array.isArray(rules)) throw new OptionError('rules', rules, 'an array of rules')
  const otherwise = read('default', ACTIONS, undefined)
  if (otherwise === undefined) {
    throw new OptionError(
      'default',
      otherwise,
      "'protect', 'bypass' or 'discard', for what no rule matches",
    )
  }
  const parsed = rules.map((rule, at) => parseRule(`rules[${at}]`, rule))
  for (const [at, rule] of parsed.entries()) {
    const earlier = coveredBy(parsed.slice(0, at), rule)
    if (earlier === undefined) continue
    const names = earlier.map(({ name }) => `"${name}"`).join(', ')
    const words =
      earlier.length === 1
        ? `${names}, which comes before it, matches all that it does`
        : `${names}, which come before it, together match all that it does`
    throw OptionError.saying(rule.name, `The rule "${rule.name}" can never match: ${words}`)
  }
  return { rules: parsed, otherwise }
}

const objectOf = (name: string, value: unknown): Record<string, unknown> => {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return ownProperties(name, value)
  throw new OptionError(name, value, 'an object')
}

const parseRule = (name: string, content: unknown): PolicyRule => {
  const given = objectOf(name, content)
  const read = reader(given, name)
  read.refuseUnknown(RULE_NAMES)
  const action = read('action', ACTIONS, undefined)
  if (action === undefined) {
    throw new OptionError(`${name}.action`, action, "'protect', 'bypass' or 'discard'")
  }
  const direction = read('direction', oneOf('out', 'in', 'both'), 'both')
  const hosts = read('host', parseHosts, undefined)
  if (hosts !== undefined && direction === 'in') {
    throw new OptionError(
      `${name}.host`,
      given['host'],
      'left out: only connections that go out have a name',
    )
  }
  const gateway = read('gateway', parseText, undefined)
  if (gateway !== undefined && action !== 'protect') {
    throw new OptionError(`${name}.gateway`, gateway, 'left out: only what is protected has one')
  }
  if (gateway !== undefined && direction === 'in') {
    throw new OptionError(
      `${name}.gateway`,
      gateway,
      'left out: only connections that go out have one',
    )
  }
  return {
    name,
    action,
    direction,
    hosts,
    addresses: read('address', parseSelectors, undefined),
    ports: read('port', parsePorts, undefined),
    gateway,
  }
}

const parseText = (name: string, value: unknown): string => {
  if (typeof value === 'string' && value !== '') return value
  throw new OptionError(name, value, 'a non-empty string')
}

const parseHosts = (name: string, value: unknown): readonly string[] => {
  const texts = listOf(name, value)
  if (texts.length === 0) throw new OptionError(name, value, 'a name or several')
  return texts.map(text => {
    const host = canonical(parseText(name, text))
    if (parseAddress(host) !== undefined) {
      throw new OptionError(name, text, 'a name; "address" is for addresses')
    }
    if (/^(\*\.)?[^*\s]+$/.test(host)) return host
    throw new OptionError(name, text, "a name such as 'db.internal' or '*.internal'")
  })
}

const parsePorts = (name: string, value: unknown): readonly PortRange[] => {
  const parts = listOf(name, value)
  const ranges = parts.map(part => /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(String(part)))
  if (parts.length === 0 || ranges.includes(null)) {
    throw new OptionError(name, value, "a port, a range such as '8000-8099', or an array of them")
  }
  return ranges.map((range, at) => {
    const first = Number(range![1])
    const last = Number(range![2] ?? range![1])
    if (first >= 1 && last <= 65535 && first <= last) return { first, last }
    throw new OptionError(name, parts[at], 'from 1 to 65535, the lower end first')
  })
}

// --- deciding ---

/** Names of DNS differ neither by case nor by dots at their end, and look-ups write other scripts in ASCII. */
const canonical = (host: string): string =>
  (domainToASCII(host) || host).toLowerCase().replace(/\.+$/, '')

const matchesHost = (pattern: string, host: string): boolean =>
  pattern.startsWith('*.')
    ? host.length > pattern.length - 1 && host.endsWith(pattern.slice(1))
    : pattern === host

const goes = (rule: PolicyRule, direction: 'out' | 'in'): boolean =>
  rule.direction === 'both' || rule.direction === direction

const hasPort = ({ ports }: PolicyRule, port: number): boolean =>
  ports === undefined || ports.some(({ first, last }) => port >= first && port <= last)

/** ::ffff:0:0/96, in whichever way it is written: the system sends what is under it to the IPv4 address. */
const MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]

/** An IPv4 address in IPv6 is the IPv4 address. */
const unmapped = (address: Uint8Array): Uint8Array =>
  address.length === 16 && MAPPED.every((octet, at) => address[at] === octet)
    ? address.slice(12)
    : address

const parseScoped = (text: string): Uint8Array | undefined => parseAddress(text.split('%')[0]!)

const isZero = (address: Uint8Array): boolean => address.every(octet => octet === 0)

/** All zeros, in whichever way they are written. */
export const isUnspecified = (text: string): boolean => {
  const address = parseScoped(text)
  return address !== undefined && isZero(unmapped(address))
}

/**
 * Whether the addresses of a rule contain that one, as the system takes it: of IPv4 in IPv6 the IPv4 address counts, and who
 * connects to the unspecified address reaches the loopback.
 */
export const hasAddress = ({ addresses }: PolicyRule, text: string): boolean => {
  if (addresses === undefined) return true
  const given = parseScoped(text)
  if (given === undefined) return false
  const plain = unmapped(given)
  const known = [given, plain]
  if (isZero(plain)) known.push(parseAddress(plain.length === 4 ? '127.0.0.1' : '::1')!)
  return known.some(address => covers(addresses, address, 0, 0))
}

/** For a connection to `host`, a name or an IP address. */
export const decideOutbound = (policy: SecurityPolicy, host: string, port: number): Verdict => {
  const isAddress = parseAddress(host.split('%')[0]!) !== undefined
  const name = canonical(host)
  const unless: PolicyRule[] = []
  for (const rule of policy.rules) {
    if (!goes(rule, 'out') || !hasPort(rule, port)) continue
    if (
      rule.hosts !== undefined &&
      (isAddress || !rule.hosts.some(each => matchesHost(each, name)))
    )
      continue
    if (rule.addresses === undefined || (isAddress && hasAddress(rule, host)))
      return verdict(rule.action, rule, unless)
    if (!isAddress) unless.push(rule)
  }
  return verdict(policy.otherwise, undefined, unless)
}

/** Whatever name the program called that address by, if by any. */
export const isAlwaysBypassed = (policy: SecurityPolicy, address: string, port: number): boolean =>
  decideOutbound(policy, address, port).action === 'bypass' &&
  !policy.rules.some(
    rule =>
      rule.hosts !== undefined &&
      rule.action !== 'bypass' &&
      goes(rule, 'out') &&
      hasPort(rule, port) &&
      hasAddress(rule, address),
  )

/** For a server that listens on that port of that IP address of its host; undefined: of all of them, or of a name. */
export const decideInbound = (
  policy: SecurityPolicy,
  address: string | undefined,
  port: number,
): Verdict => {
  const unless: PolicyRule[] = []
  for (const rule of policy.rules) {
    if (!goes(rule, 'in') || rule.hosts !== undefined || !hasPort(rule, port)) continue
    if (rule.addresses === undefined || (address !== undefined && hasAddress(rule, address)))
      return verdict(rule.action, rule, unless)
    if (address === undefined) unless.push(rule)
  }
  return verdict(policy.otherwise, undefined, unless)
}

const verdict = (
  action: Action,
  rule: PolicyRule | undefined,
  unless: readonly PolicyRule[],
): Verdict => ({
  action,
  rule,
  unless: unless.filter(other => other.action !== action),
})

// --- rules that can never match ---

/** Earlier rules that together leave nothing for `rule`, one where one does; undefined: there is something left. */
const coveredBy = (
  earlier: readonly PolicyRule[],
  rule: PolicyRule,
): readonly PolicyRule[] | undefined => {
  const single = earlier.find(other => includes(other, rule))
  if (single !== undefined) return [single]
  const covering = new Set<PolicyRule>()
  for (const piece of piecesOf(rule, earlier)) {
    const wide = earlier.filter(other => includes(other, { ...piece, ports: [] }))
    const ranges = wide.flatMap(({ ports }) => ports ?? [ANY_PORT])
    if (!(rule.ports ?? [ANY_PORT]).every(range => isWithin(range, ranges))) return undefined
    for (const other of wide) covering.add(other)
  }
  return earlier.filter(other => covering.has(other))
}

/** The next address, or with -1 the one before; undefined after the last. */
const beside = (address: Uint8Array, step: 1 | -1): Uint8Array | undefined => {
  const next = copy(address)
  for (let at = next.length - 1; at >= 0; at--) {
    next[at]! += step
    if (next[at] !== (step === 1 ? 0 : 255)) return next
  }
  return undefined
}

/** A range of addresses, cut where those of the rules begin and end: each part lies within each of these or outside it. */
const cut = (range: TrafficSelector, rules: readonly PolicyRule[]): readonly TrafficSelector[] => {
  const edges = rules
    .flatMap(({ addresses }) => addresses ?? [])
    .filter(({ type }) => type === range.type)
    .flatMap(({ start, end }) => [start, beside(end, 1)])
    .filter(edge => edge !== undefined)
    .filter(edge => compare(edge, range.start) > 0 && compare(edge, range.end) <= 0)
    .sort(compare)
    .filter((edge, i, all) => i === 0 || compare(edge, all[i - 1]!) !== 0)
  const ends = [...edges.map(edge => beside(edge, -1)!), range.end]
  return [range.start, ...edges].map((start, i) => ({ ...range, start, end: ends[i]! }))
}

/** The rule for each direction, name and range of addresses of its own. */
const piecesOf = (rule: PolicyRule, earlier: readonly PolicyRule[]): readonly PolicyRule[] => {
  const isOutAlone = rule.hosts !== undefined || rule.direction === 'out'
  const directions = isOutAlone ? ['out' as const] : ['in' as const, 'out' as const]
  return directions
    .filter(direction => goes(rule, direction))
    .flatMap(direction =>
      (rule.hosts ?? [undefined]).flatMap(host =>
        (rule.addresses?.flatMap(range => cut(range, earlier)) ?? [undefined]).map(address => ({
          ...rule,
          direction,
          hosts: host === undefined ? undefined : [host],
          addresses: address === undefined ? undefined : [address],
        })),
      ),
    )
}

const isWithin = ({ first, last }: PortRange, ranges: readonly PortRange[]): boolean => {
  let next = first
  for (const range of ranges.toSorted((a, b) => a.first - b.first))
    if (range.first <= next && range.last >= next) next = range.last + 1
  return next > last
}

const includes = (wide: PolicyRule, narrow: PolicyRule): boolean =>
  (wide.direction === 'both' ||
    wide.direction === narrow.direction ||
    (wide.direction === 'out' && narrow.hosts !== undefined)) &&
  includesHosts(wide.hosts, narrow) &&
  (wide.addresses === undefined ||
    (narrow.addresses !== undefined && isNarrowing(narrow.addresses, wide.addresses))) &&
  (narrow.ports ?? [ANY_PORT]).every(({ first, last }) =>
    (wide.ports ?? [ANY_PORT]).some(range => range.first <= first && last <= range.last),
  )

/** A pattern within another one is text that ends like it. */
const includesHosts = (wide: readonly string[] | undefined, { hosts }: PolicyRule): boolean =>
  wide === undefined ||
  (hosts !== undefined &&
    hosts.every(host => wide.some(pattern => pattern === host || matchesHost(pattern, host))))
