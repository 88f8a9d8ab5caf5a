/**
 * From what a program writes to what the core works with, once, at the door: every default, every range
 * and every refusal is here. Only own properties count, so nothing reaches a policy by a prototype.
 */
import type { Millis } from '../base/environment.ts'
import { parseAddress } from '../base/address.ts'
import { listOf, OptionError, ownProperties, readingOption } from '../base/errors.ts'
import type { Proposal } from '../wire/sa.ts'
import type { TrafficSelector } from '../wire/traffic-selector.ts'
import { parsePool } from './address-pool.ts'
import type { LifetimePolicy } from './lifetime.ts'
import { DEFAULT_ESP, DEFAULT_IKE, parseProposals } from './proposal.ts'
import { parseSelectors } from './traffic-selectors.ts'

export interface RetransmitPolicy {
  /** Wait before the first retransmission. Default 500 ms. */
  readonly initial: Millis
  /** Each wait is this many times the one before. Default 1.8. */
  readonly factor: number
  /** No wait is longer. Default 20 s. */
  readonly max: Millis
  /** Retransmissions before giving up. Default 7: with the other defaults 58 s in all. */
  readonly tries: number
}

export interface PeerPolicy {
  /** IKE proposals in order of preference. */
  readonly ike: readonly Proposal[]
  /** Child SA proposals in order of preference. */
  readonly esp: readonly Proposal[]
  /**
   * CREATE_CHILD_SA makes a new key exchange (RFC 7296 §1.3). `true` demands it of the peer as well;
   * undefined, the default: we do it, and a peer need not.
   */
  readonly pfs: boolean | undefined
  /** `auto` asks for transport mode and takes tunnel mode when it is refused. */
  readonly mode: 'auto' | 'transport' | 'tunnel'
  /** Ask the peer for an address, netmask and DNS servers (RFC 7296 §2.19); tunnel mode. */
  readonly virtualAddress: boolean
  readonly localTs: readonly TrafficSelector[] | undefined
  readonly remoteTs: readonly TrafficSelector[] | undefined
  /** Given to peers that ask for an address (RFC 7296 §3.15), with these DNS servers. */
  readonly addressPool: readonly TrafficSelector[] | undefined
  readonly dns: readonly Uint8Array[]
  readonly backend: 'auto' | 'node' | 'noble'
  /** Octets of the largest IP packet of the path; undefined: 1400, or the loopback's. */
  readonly mtu: number | undefined
  /** Packets of the anti-replay window (RFC 4303 §3.4.3). Default 1024, 32 to 65536. */
  readonly replayWindow: number
  readonly ikeLifetime: LifetimePolicy
  readonly childLifetime: LifetimePolicy
  /** Authenticate anew after this time, 0: never (RFC 7296 §2.8.3). */
  readonly reauthInterval: Millis
  /** As responder: how long an authentication is good for (RFC 4478), 0: for ever. */
  readonly authLifetime: Millis
  /** Probe a peer that was sent to and not heard for this time, 0: never (RFC 7296 §2.4). Default 30 s. */
  readonly livenessInterval: Millis
  readonly retransmit: RetransmitPolicy
  /** A socket opened while the peer may be gone gets a new SA at once, not when that is certain. */
  readonly reconnect: boolean
  /**
   * Silence after which a mapping on the way is refreshed (RFC 3948 §4), 0: never. Undefined, the default: 20 s
   * behind a NAT that was seen, else never.
   */
  readonly natKeepalive: Millis | undefined
  /** Offer and accept MOBIKE (RFC 4555). Default true. */
  readonly mobike: boolean
  /** False: the peer is to refuse us when somebody on the way has changed an address (RFC 4555 §3.9). Default true. */
  readonly allowNats: boolean
  /** IKE messages above this size of IP packet are fragmented (RFC 7383). Default 1280. */
  readonly fragmentSize: number
  readonly fragmentation: boolean
  /** An SA without sockets lives this long. Default 60 s, 0: as long as it can. */
  readonly idleTimeout: Millis
  /** Make IKE_AUTH without a Child SA (RFC 6023). */
  readonly childless: 'allow' | 'force' | 'never'
  /**
   * Tell the peer that older SAs of our identity are dead (RFC 7296 §2.4). False by default: a replica that has the
   * same identity would be cut off.
   */
  readonly initialContact: boolean
  readonly admission: {
    readonly cookieThreshold: number
    readonly halfOpenPerSource: number
    readonly maxHalfOpen: number
    readonly halfOpenTimeout: Millis
  }
  /** What a server's peers may hold once they have proved who they are. */
  readonly limits: {
    /** Sessions at once. Default 10,000. */
    readonly maxSessions: number
    /** Sessions of one identity with one proof. Default 0: only the share that `maxSessions` leaves it. */
    readonly maxSessionsPerIdentity: number
    /** A server deletes an SA without connections after this time. Default 0: never. */
    readonly sessionIdleTimeout: Millis
    /** TCP connections of one session at once. Default 10,000. */
    readonly maxConnectionsPerSession: number
    /** Octets that all connections of a session keep in all. Default 64 MiB. */
    readonly maxBufferPerSession: number
  }
}

type Reader<T> = (name: string, value: unknown) => T

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const MIB = 2 ** 20
/** Beyond, a deadline would not fit a timer; 24 days are enough for anyone. */
const LONGEST = 2 ** 31 - 1
/** RFC 4478 §3: less is not reasonable, and some makes then authenticate without end. */
export const LEAST_ANNOUNCED = 5 * MINUTE

const integer =
  (least: number, most: number, unit = ''): Reader<number> =>
  (name, value) => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most)
      return value
    throw new OptionError(name, value, `an integer from ${least} to ${most}${unit && ` ${unit}`}`)
  }

/** Milliseconds; 0 means off where `least` is 0. */
const millis = (least: number): Reader<number> => integer(least, LONGEST, 'ms')

/** Milliseconds from `least` on, or 0 for off. */
const offOr =
  (least: number): Reader<number> =>
  (name, value) => {
    if (value === 0) return 0
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= LONGEST)
      return value
    throw new OptionError(name, value, `0 or an integer from ${least} to ${LONGEST} ms`)
  }

const number =
  (least: number, most: number): Reader<number> =>
  (name, value) => {
    if (typeof value === 'number' && value >= least && value <= most) return value
    throw new OptionError(name, value, `a number from ${least} to ${most}`)
  }

const boolean: Reader<boolean> = (name, value) => {
  if (typeof value === 'boolean') return value
  throw new OptionError(name, value, 'true or false', 'ERR_INVALID_ARG_TYPE')
}

/** One of these words. */
export const oneOf =
  <T extends string>(...words: readonly T[]): Reader<T> =>
  (name, value) => {
    if (words.includes(value as T)) return value as T
    throw new OptionError(name, value, `one of ${words.map(word => `'${word}'`).join(', ')}`)
  }

/** Of a value as a program gives it; undefined gives the defaults. */
export const parseRetransmit = (value: unknown): RetransmitPolicy =>
  retransmit('retransmit', value ?? {})

const retransmit: Reader<RetransmitPolicy> = (name, value) => {
  if (typeof value !== 'object' || value === null) {
    throw new OptionError(name, value, 'an object with initial, factor, max and tries')
  }
  const read = reader(ownProperties(name, value), name)
  read.refuseUnknown(['initial', 'factor', 'max', 'tries'])
  return {
    initial: read('initial', integer(10, MINUTE, 'ms'), 500),
    factor: read('factor', number(1, 10), 1.8),
    max: read('max', integer(10, 10 * MINUTE, 'ms'), 20_000),
    tries: read('tries', integer(0, 20), 7),
  }
}

const addresses: Reader<readonly Uint8Array[]> = (name, value) =>
  listOf(name, value).map(text => {
    const address = typeof text === 'string' ? parseAddress(text) : undefined
    if (address === undefined) throw new OptionError(name, text, 'IP addresses')
    return address
  })

const proposals =
  (kind: 'ike' | 'esp'): Reader<readonly Proposal[]> =>
  (name, value) =>
    parseProposals(name, value, kind)

/** The names this file reads; whoever reads others adds their names to `known`. */
export const POLICY_OPTIONS = [
  'ike',
  'esp',
  'pfs',
  'mode',
  'virtualAddress',
  'localTs',
  'remoteTs',
  'addressPool',
  'dns',
  'crypto',
  'mtu',
  'replayWindow',
  'ikeLifetime',
  'childLifetime',
  'childOctets',
  'childPackets',
  'reauthInterval',
  'authLifetime',
  'livenessInterval',
  'retransmit',
  'reconnect',
  'natKeepalive',
  'mobike',
  'allowNats',
  'fragmentSize',
  'fragmentation',
  'idleTimeout',
  'childless',
  'initialContact',
  'cookieThreshold',
  'halfOpenPerSource',
  'maxHalfOpen',
  'halfOpenTimeout',
  'maxSessions',
  'maxSessionsPerIdentity',
  'sessionIdleTimeout',
  'maxConnectionsPerSession',
  'maxBufferPerSession',
] as const

export const parsePolicy = (options: Readonly<Record<string, unknown>>): PeerPolicy => {
  const read = reader(options)
  return Object.freeze({
    ike: read('ike', proposals('ike'), undefined) ?? parseProposals('ike', [...DEFAULT_IKE], 'ike'),
    esp: read('esp', proposals('esp'), undefined) ?? parseProposals('esp', [...DEFAULT_ESP], 'esp'),
    pfs: read('pfs', boolean, undefined),
    mode: read('mode', oneOf('auto', 'transport', 'tunnel'), 'auto'),
    virtualAddress: read('virtualAddress', boolean, false),
    localTs: read('localTs', parseSelectors, undefined),
    remoteTs: read('remoteTs', parseSelectors, undefined),
    addressPool: read('addressPool', parsePool, undefined),
    dns: read('dns', addresses, []),
    backend: read('crypto', oneOf('auto', 'node', 'noble'), 'auto'),
    mtu: read('mtu', integer(576, 65535, 'octets'), undefined),
    replayWindow: read('replayWindow', integer(32, 65536, 'packets'), 1024),
    ikeLifetime: {
      time: read('ikeLifetime', millis(1000), 4 * HOUR),
      octets: Infinity,
      packets: Infinity,
    },
    childLifetime: {
      time: read('childLifetime', millis(1000), HOUR),
      octets: read('childOctets', integer(2 ** 16, Number.MAX_SAFE_INTEGER, 'octets'), 2 ** 46),
      packets: read('childPackets', integer(1000, 2 ** 32 - 1, 'packets'), 2 ** 32 - 2 ** 20),
    },
    reauthInterval: read('reauthInterval', millis(0), 0),
    authLifetime: read('authLifetime', offOr(LEAST_ANNOUNCED), 0),
    livenessInterval: read('livenessInterval', millis(0), 30_000),
    retransmit: read('retransmit', retransmit, undefined) ?? parseRetransmit(undefined),
    reconnect: read('reconnect', boolean, true),
    natKeepalive: read('natKeepalive', millis(0), undefined),
    mobike: read('mobike', boolean, true),
    allowNats: read('allowNats', boolean, true),
    fragmentSize: read('fragmentSize', integer(576, 65535, 'octets'), 1280),
    fragmentation: read('fragmentation', boolean, true),
    idleTimeout: read('idleTimeout', millis(0), MINUTE),
    childless: read('childless', oneOf('allow', 'force', 'never'), 'allow'),
    initialContact: read('initialContact', boolean, false),
    admission: {
      cookieThreshold: read('cookieThreshold', integer(0, 1_000_000), 30),
      halfOpenPerSource: read('halfOpenPerSource', integer(1, 1_000_000), 64),
      maxHalfOpen: read('maxHalfOpen', integer(1, 1_000_000), 500),
      halfOpenTimeout: read('halfOpenTimeout', millis(100), 30_000),
    },
    limits: {
      maxSessions: read('maxSessions', integer(1, 10_000_000), 10_000),
      maxSessionsPerIdentity: read('maxSessionsPerIdentity', integer(0, 10_000_000), 0),
      sessionIdleTimeout: read('sessionIdleTimeout', offOr(1000), 0),
      maxConnectionsPerSession: read('maxConnectionsPerSession', integer(1, 10_000_000), 10_000),
      maxBufferPerSession: read('maxBufferPerSession', integer(MIB, 2 ** 40, 'octets'), 64 * MIB),
    },
  })
}

interface OptionReader {
  <T>(name: string, parse: Reader<T>, fallback: T): T
  <T>(name: string, parse: Reader<T>, fallback: undefined): T | undefined
  refuseUnknown(known: readonly string[]): void
}

/** Reads own properties of an options object; `undefined` counts as not given, as in Node. */
export const reader = (
  options: Readonly<Record<string, unknown>>,
  prefix?: string,
): OptionReader => {
  const full = (name: string): string => (prefix === undefined ? name : `${prefix}.${name}`)
  const read = <T>(name: string, parse: Reader<T>, fallback: T): T => {
    const value = Object.hasOwn(options, name) ? options[name] : undefined
    return value === undefined ? fallback : readingOption(name, () => parse(full(name), value))
  }
  const more: Pick<OptionReader, 'refuseUnknown'> = {
    refuseUnknown: (known: readonly string[]) => {
      for (const name of Object.keys(options)) {
        if (known.includes(name)) continue
        throw OptionError.unknown(full(name), nearest(name, known), known)
      }
    },
  }
  return Object.assign(read as OptionReader, more)
}

/** The known name that a slip of the finger may have meant: of short ones only one letter may differ. */
const nearest = (name: string, known: readonly string[]): string | undefined => {
  const lower = name.toLowerCase()
  let best: string | undefined
  let least = lower.length <= 4 ? 2 : 3
  for (const word of known) {
    const distance = editDistance(word.toLowerCase(), lower)
    if (distance < least) [best, least] = [word, distance]
  }
  return best
}

/** Two letters in each other's place count as one slip. */
const editDistance = (a: string, b: string): number => {
  if (Math.abs(a.length - b.length) > 2) return Infinity
  let before: readonly number[] = []
  let row: readonly number[] = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      const swapped = isSwap ? before[j - 2]! + 1 : Infinity
      next.push(Math.min(replaced, swapped, row[j]! + 1, next[j - 1]! + 1))
    }
    before = row
    row = next
  }
  return row[b.length]!
}

export { boolean as booleanOption, integer as integerOption }
