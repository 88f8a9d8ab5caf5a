/**
 * From what a program writes to what the core works with, once, at the door: every default, every range
 * and every refusal is here. Only own properties count, so nothing reaches a policy by a prototype.
 */
import type { AeadBackends } from '../base/aead-backend.ts'
import type { Millis } from '../base/environment.ts'
import { parseAddress } from '../base/address.ts'
import { ffiProblem } from '../base/ffi.ts'
import { listOf, OptionError, ownProperties } from '../base/errors.ts'
import {
  boolean,
  integer,
  millis,
  namesOf,
  number,
  offOr,
  oneOf,
  reader,
  readTable,
  row,
  type OptionTable,
  type Reader,
} from '../base/option-table.ts'
import type { Proposal } from '../wire/sa.ts'
import type { TrafficSelector } from '../wire/traffic-selector.ts'
import { parsePool } from './address-pool.ts'
import { aeadBackends } from './aead-option.ts'
import type { LifetimePolicy } from './lifetime.ts'
import { CHACHA_FIRST_ESP, DEFAULT_ESP, DEFAULT_IKE, parseProposals } from './proposal.ts'
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

export type Acceleration = 'auto' | 'off' | 'ffi'

export interface PeerPolicy {
  /** IKE proposals in order of preference. */
  readonly ike: readonly Proposal[]
  /** Child SA proposals in order of preference. */
  readonly esp: readonly Proposal[]
  /** The same, where packets are as small as networks have them. */
  readonly espOfSmall: readonly Proposal[]
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
  /** By native functions (base/ffi.ts): `ffi` only where they are there, `auto` where they are. Default `off`. */
  readonly accelerate: Acceleration
  /** Those of the ciphers that do not run on `backend`. */
  readonly aead: AeadBackends
  /** Octets of the largest IP packet of the path; undefined: 1400, or the loopback's. */
  readonly mtu: number | undefined
  /** Packets of the anti-replay window (RFC 4303 §3.4.3). Default 1024, 32 to 65536. */
  readonly replayWindow: number
  readonly ikeLifetime: LifetimePolicy
  readonly childLifetime: LifetimePolicy
  /** Reauthenticate after this time, 0: never (RFC 7296 §2.8.3). */
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
    /** The same of all sessions. Default 256 MiB. */
    readonly maxBuffer: number
  }
}

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const MIB = 2 ** 20
/** Also of an endpoint that has no server. */
export const DEFAULT_MAX_BUFFER = 256 * MIB
/** RFC 4478 §3: less is not reasonable, and some makes then authenticate without end. */
export const LEAST_ANNOUNCED = 5 * MINUTE

const DEFAULT_RETRANSMIT: RetransmitPolicy = Object.freeze({
  initial: 500,
  factor: 1.8,
  max: 20_000,
  tries: 7,
})

const retransmit: Reader<RetransmitPolicy> = (name, value) => {
  if (typeof value !== 'object' || value === null) {
    throw new OptionError(name, value, 'an object with initial, factor, max and tries')
  }
  const read = reader(ownProperties(name, value), name)
  read.refuseUnknown(['initial', 'factor', 'max', 'tries'])
  return {
    initial: read('initial', integer(10, MINUTE, 'ms'), DEFAULT_RETRANSMIT.initial),
    factor: read('factor', number(1, 10), DEFAULT_RETRANSMIT.factor),
    max: read('max', integer(10, 10 * MINUTE, 'ms'), DEFAULT_RETRANSMIT.max),
    tries: read('tries', integer(0, 20), DEFAULT_RETRANSMIT.tries),
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

const anyAcceleration = oneOf<Acceleration>('auto', 'off', 'ffi')

const acceleration: Reader<Acceleration> = (name, value) => {
  const wanted = anyAcceleration(name, value)
  const problem = wanted === 'ffi' ? ffiProblem() : undefined
  if (problem === undefined) return wanted
  throw new OptionError(name, value, `'auto' or 'off': 'ffi' works ${problem}`)
}

/** Options of IKE and ESP that stand by themselves. */
export const POLICY_TABLE = {
  ike: row('both', proposals('ike'), parseProposals('ike', [...DEFAULT_IKE], 'ike')),
  esp: row('both', proposals('esp')),
  pfs: row('both', boolean),
  mode: row('both', oneOf('auto', 'transport', 'tunnel'), 'auto'),
  virtualAddress: row('client', boolean, false),
  localTs: row('both', parseSelectors),
  remoteTs: row('both', parseSelectors),
  addressPool: row('server', parsePool),
  dns: row('server', addresses, []),
  crypto: row('both', oneOf('auto', 'node', 'noble'), 'auto'),
  accelerate: row('both', acceleration, 'off'),
  aead: row('both', aeadBackends, {}),
  mtu: row('both', integer(576, 65535, 'octets')),
  replayWindow: row('both', integer(32, 65536, 'packets'), 1024),
  ikeLifetime: row('both', millis(1000), 4 * HOUR),
  childLifetime: row('both', millis(1000), HOUR),
  childOctets: row('both', integer(2 ** 16, Number.MAX_SAFE_INTEGER, 'octets'), 2 ** 46),
  childPackets: row('both', integer(1000, 2 ** 32 - 1, 'packets'), 2 ** 32 - 2 ** 20),
  reauthInterval: row('client', millis(0), 0),
  authLifetime: row('server', offOr(LEAST_ANNOUNCED), 0),
  livenessInterval: row('both', millis(0), 30_000),
  retransmit: row('both', retransmit, DEFAULT_RETRANSMIT),
  reconnect: row('client', boolean, true),
  natKeepalive: row('both', millis(0)),
  mobike: row('both', boolean, true),
  allowNats: row('both', boolean, true),
  fragmentSize: row('both', integer(576, 65535, 'octets'), 1280),
  fragmentation: row('both', boolean, true),
  idleTimeout: row('client', millis(0), MINUTE),
  childless: row('both', oneOf('allow', 'force', 'never'), 'allow'),
  initialContact: row('client', boolean, false),
  cookieThreshold: row('server', integer(0, 1_000_000), 30),
  halfOpenPerSource: row('server', integer(1, 1_000_000), 64),
  maxHalfOpen: row('server', integer(1, 1_000_000), 500),
  halfOpenTimeout: row('server', millis(100), 30_000),
  maxSessions: row('server', integer(1, 10_000_000), 10_000),
  maxSessionsPerIdentity: row('server', integer(0, 10_000_000), 0),
  sessionIdleTimeout: row('server', offOr(1000), 0),
  maxConnectionsPerSession: row('server', integer(1, 10_000_000), 10_000),
  maxBufferPerSession: row('server', integer(MIB, 2 ** 40, 'octets'), 64 * MIB),
  maxBuffer: row('server', integer(MIB, 2 ** 40, 'octets'), DEFAULT_MAX_BUFFER),
} as const satisfies OptionTable

export const POLICY_OPTIONS = namesOf(POLICY_TABLE)

/** `findAeads`: what this system has for ciphers beside node:crypto, asked where `crypto` leaves it open. */
export const parsePolicy = (
  options: Readonly<Record<string, unknown>>,
  findAeads: (accelerate: Acceleration) => AeadBackends = () => ({}),
): PeerPolicy => {
  const {
    crypto,
    aead: given,
    esp,
    ikeLifetime,
    childLifetime,
    childOctets,
    childPackets,
    cookieThreshold,
    halfOpenPerSource,
    maxHalfOpen,
    halfOpenTimeout,
    maxSessions,
    maxSessionsPerIdentity,
    sessionIdleTimeout,
    maxConnectionsPerSession,
    maxBufferPerSession,
    maxBuffer,
    ...asGiven
  } = readTable(POLICY_TABLE, options)
  const aead = { ...(crypto === 'auto' ? findAeads(asGiven.accelerate) : {}), ...given }
  return Object.freeze({
    backend: crypto,
    aead,
    esp: esp ?? AES_FIRST,
    espOfSmall: esp ?? defaultOfSmall(aead),
    ikeLifetime: { time: ikeLifetime, octets: Infinity, packets: Infinity },
    childLifetime: { time: childLifetime, octets: childOctets, packets: childPackets },
    admission: { cookieThreshold, halfOpenPerSource, maxHalfOpen, halfOpenTimeout },
    limits: {
      maxSessions,
      maxSessionsPerIdentity,
      sessionIdleTimeout,
      maxConnectionsPerSession,
      maxBufferPerSession,
      maxBuffer,
    },
    // Last, since on Node 20 each property that is named behind a spread takes two microseconds.
    ...asGiven,
  })
}

const AES_FIRST = parseProposals('esp', [...DEFAULT_ESP], 'esp')
const CHACHA_FIRST = parseProposals('esp', [...CHACHA_FIRST_ESP], 'esp')

/** ChaCha20-Poly1305 is as strong as AES-256, and small packets of it take much less where it alone has a backend. */
const defaultOfSmall = ({ chacha20poly1305, aes256gcm16 }: AeadBackends): readonly Proposal[] =>
  chacha20poly1305 !== undefined && aes256gcm16 === undefined ? CHACHA_FIRST : AES_FIRST
