/** Options of sockets and servers: those net has are read here, the others by policy and identity. */
import type { KeyObject, X509Certificate } from 'node:crypto'
import dns from 'node:dns'
import {
  getDefaultAutoSelectFamily,
  getDefaultAutoSelectFamilyAttemptTimeout,
  isIP,
  type BlockList,
  type LookupFunction,
} from 'node:net'
import type { PeerCertificate } from 'node:tls'
import { parseAddress } from '../base/address.ts'
import { describe, OptionError, ownProperties, withoutContent } from '../base/errors.ts'
import { CONGESTION_CONTROLS, type CongestionControl } from '../core/tcp-config.ts'
import { CREDENTIAL_OPTIONS, parseCredentials, type Credentials } from '../identity/credentials.ts'
import { SHORT_PSK } from '../identity/pre-shared-key.ts'
import { parseEapTls } from '../node/eap-tls.ts'
import {
  booleanOption,
  integerOption,
  oneOf,
  parsePolicy,
  POLICY_OPTIONS,
  reader,
  type PeerPolicy,
} from '../policy/options.ts'
import { fingerprint } from './fingerprint.ts'
import type { KeyLog } from './channels.ts'

type Psk = string | Uint8Array
type Pem = string | Uint8Array
type Key = Pem | KeyObject | { pem: Pem | KeyObject; passphrase?: string | Uint8Array }

/** What `sign` is asked: an algorithm by name, its hash, and the octets to sign. */
export interface SignRequest {
  readonly algorithm: string
  readonly hash: 'sha256' | 'sha384' | 'sha512' | 'identity'
  readonly message: Uint8Array
}

export interface PpkOption {
  id: string
  secret: string | Uint8Array
  required?: boolean | undefined
}

export type EapOption =
  | { method: 'mschapv2'; identity: string; password: string }
  | {
      method: 'tls'
      identity: string
      cert: Pem
      key: Pem
      passphrase?: string | undefined
      ca: Pem
      crl?: Pem | undefined
      servername?: string | undefined
      only?: boolean | undefined
    }
type OneOrMore = string | readonly string[]

/** Options that a client and a server share; the README's table says what each means. */
export interface IkeOptions {
  psk?:
    | Psk
    | Readonly<Record<string, Psk>>
    | ((identity: string, localIdentity: string) => Psk | undefined | Promise<Psk | undefined>)
    | undefined
  localId?: string | undefined
  remoteId?: string | undefined
  cert?: Pem | readonly Pem[] | undefined
  key?: Key | readonly Key[] | undefined
  passphrase?: string | Uint8Array | undefined
  pfx?: Uint8Array | { buf: Uint8Array; passphrase?: string } | undefined
  sign?: ((request: SignRequest) => Uint8Array | Promise<Uint8Array>) | undefined
  ocspResponse?:
    Uint8Array | (() => Uint8Array | undefined | Promise<Uint8Array | undefined>) | undefined
  ca?: Pem | readonly Pem[] | undefined
  crl?: Pem | readonly Pem[] | undefined
  revocation?: 'require' | 'prefer' | 'off' | undefined
  fetchRevocation?: boolean | readonly string[] | undefined
  extendedKeyUsage?: 'ike' | 'tls' | undefined
  peerKeys?: Pem | readonly Pem[] | Readonly<Record<string, Pem | readonly Pem[]>> | undefined
  rsaPkcs1?: boolean | undefined
  rejectUnauthorized?: true | undefined
  ppk?: PpkOption | readonly PpkOption[] | undefined
  crashTokenSecret?: string | Uint8Array | false | undefined
  ike?: OneOrMore | undefined
  esp?: OneOrMore | undefined
  pfs?: boolean | undefined
  mode?: 'auto' | 'transport' | 'tunnel' | undefined
  localTs?: OneOrMore | undefined
  remoteTs?: OneOrMore | undefined
  crypto?: 'auto' | 'node' | 'noble' | undefined
  mtu?: number | undefined
  replayWindow?: number | undefined
  ikeLifetime?: number | undefined
  childLifetime?: number | undefined
  childOctets?: number | undefined
  childPackets?: number | undefined
  reauthInterval?: number | undefined
  authLifetime?: number | undefined
  livenessInterval?: number | undefined
  retransmit?: { initial?: number; factor?: number; max?: number; tries?: number } | undefined
  natKeepalive?: number | undefined
  mobike?: boolean | undefined
  allowNats?: boolean | undefined
  fragmentSize?: number | undefined
  fragmentation?: boolean | undefined
  idleTimeout?: number | undefined
  childless?: 'allow' | 'force' | 'never' | undefined
  /** The peer is told that older SAs of our identity are dead (RFC 7296 section 2.4). Default false: replicas share an identity. */
  initialContact?: boolean | undefined
  ikePort?: number | undefined
  keyLog?: KeyLog | undefined
}

export interface OnRead {
  buffer: Uint8Array | (() => Uint8Array)
  callback(nread: number, buffer: Uint8Array): boolean | void
}

export interface SecureSocketOptions extends IkeOptions {
  host?: string | undefined
  port?: number | string | undefined
  gateway?: string | undefined
  servername?: string | undefined
  checkServerIdentity?:
    ((host: string, certificate: PeerCertificate) => Error | undefined) | undefined
  eap?: EapOption | undefined
  virtualAddress?: boolean | undefined
  reconnect?: boolean | undefined
  localAddress?: string | undefined
  localPort?: number | undefined
  family?: number | undefined
  hints?: number | undefined
  lookup?: LookupFunction | undefined
  allowHalfOpen?: boolean | undefined
  noDelay?: boolean | undefined
  keepAlive?: boolean | undefined
  keepAliveInitialDelay?: number | undefined
  userTimeout?: number | undefined
  congestionControl?: CongestionControl | undefined
  timeout?: number | undefined
  highWaterMark?: number | undefined
  signal?: AbortSignal | undefined
  onread?: OnRead | undefined
  blockList?: BlockList | undefined
  encrypted?: boolean | undefined
  autoSelectFamily?: boolean | undefined
  autoSelectFamilyAttemptTimeout?: number | undefined
}

/** A peer that has proved who it is. */
export interface AuthorizedPeer {
  readonly id: string
  readonly address: string
  readonly port: number
  readonly authentication: 'psk' | 'certificate' | 'rawKey' | 'eap'
  readonly certificate: X509Certificate | undefined
}

/** What `authorize` may answer for one peer. */
export const AUTHORIZATION_OPTIONS = [
  'esp',
  'pfs',
  'mode',
  'localTs',
  'remoteTs',
  'ikeLifetime',
  'childLifetime',
  'childOctets',
  'childPackets',
  'livenessInterval',
] as const

/** Yes, no, or yes with options of the SA that hold for this peer alone. */
export type Authorization = boolean | Pick<IkeOptions, (typeof AUTHORIZATION_OPTIONS)[number]>

export interface SecureServerOptions extends IkeOptions {
  addressPool?: OneOrMore | undefined
  dns?: OneOrMore | undefined
  authorize?: ((peer: AuthorizedPeer) => Authorization | Promise<Authorization>) | undefined
  requestCert?: true | undefined
  allowHalfOpen?: boolean | undefined
  pauseOnConnect?: boolean | undefined
  noDelay?: boolean | undefined
  keepAlive?: boolean | undefined
  keepAliveInitialDelay?: number | undefined
  userTimeout?: number | undefined
  congestionControl?: CongestionControl | undefined
  highWaterMark?: number | undefined
  blockList?: BlockList | undefined
  encrypted?: boolean | undefined
  cookieThreshold?: number | undefined
  halfOpenPerSource?: number | undefined
  maxHalfOpen?: number | undefined
  halfOpenTimeout?: number | undefined
  maxSessions?: number | undefined
  maxSessionsPerIdentity?: number | undefined
  sessionIdleTimeout?: number | undefined
  maxConnectionsPerSession?: number | undefined
  maxBufferPerSession?: number | undefined
}

/** What a socket itself reads; the IKE options stay as given until the endpoint is made. */
export interface ConnectSettings {
  readonly given: SecureSocketOptions
  readonly host: string
  readonly port: number
  readonly gateway: string | undefined
  readonly ikePort: number
  readonly localAddress: string | undefined
  readonly localPort: number | undefined
  readonly family: number | undefined
  readonly hints: number | undefined
  readonly lookup: LookupFunction | undefined
  readonly allowHalfOpen: boolean
  readonly noDelay: boolean
  readonly keepAlive: boolean
  readonly keepAliveInitialDelay: number
  readonly userTimeout: number
  readonly congestionControl: CongestionControl
  readonly timeout: number | undefined
  readonly highWaterMark: number | undefined
  readonly signal: AbortSignal | undefined
  readonly onread: OnRead | undefined
  readonly blockList: BlockList | undefined
  readonly encrypted: boolean
  readonly autoSelectFamily: boolean
  readonly autoSelectFamilyAttemptTimeout: number
}

/** RFC 5482 §3: what the option of TCP can say, in milliseconds. */
const LONGEST_USER_TIMEOUT = 32_767 * 60_000
/** RFC 7296 §2.23: IKE and ESP in UDP. */
export const DEFAULT_IKE_PORT = 4500

export const SOCKET_OPTIONS = [
  'host',
  'port',
  'gateway',
  'ikePort',
  'localAddress',
  'localPort',
  'family',
  'hints',
  'lookup',
  'allowHalfOpen',
  'noDelay',
  'keepAlive',
  'keepAliveInitialDelay',
  'userTimeout',
  'congestionControl',
  'timeout',
  'highWaterMark',
  'signal',
  'onread',
  'blockList',
  'encrypted',
  'autoSelectFamily',
  'autoSelectFamilyAttemptTimeout',
  'keyLog',
] as const

export const SERVER_OPTIONS = [
  'ikePort',
  'allowHalfOpen',
  'pauseOnConnect',
  'noDelay',
  'keepAlive',
  'keepAliveInitialDelay',
  'userTimeout',
  'congestionControl',
  'highWaterMark',
  'blockList',
  'encrypted',
  'keyLog',
] as const

/** http's agents and other libraries pass these along with the connection's options. */
const FOREIGN_OPTIONS = new Set([
  'agent',
  'agentKey',
  'auth',
  'createConnection',
  'defaultPort',
  'encoding',
  'headers',
  'hostname',
  'httpSocket',
  'href',
  'insecureHTTPParser',
  'joinDuplicateHeaders',
  'keepAliveMsecs',
  'maxFreeSockets',
  'maxHeaderSize',
  'maxSockets',
  'maxTotalSockets',
  'method',
  'path',
  'pathname',
  'protocol',
  'scheduling',
  'search',
  'setDefaultHeaders',
  'setHost',
  'socketPath',
  'uniqueHeaders',
  '_agentKey',
  '_defaultAgent',
])

/** What net has too is refused as net refuses it: a TypeError with its code. */
export const argumentError = (
  name: string,
  value: unknown,
  expected: string,
  code = 'ERR_INVALID_ARG_TYPE',
): Error =>
  nodeError(
    code,
    `The "${name}" argument must be ${expected}. Received ${describe(value)}`,
    TypeError,
  )

export const typed =
  <T>(type: string) =>
  (name: string, value: unknown): T => {
    if (typeof value === type) return value as T
    throw argumentError(`options.${name}`, value, `of type ${type}`)
  }

const anything = <T>(_name: string, value: unknown): T => value as T

const keyLog = (name: string, value: unknown): KeyLog => {
  if (typeof value === 'function' || (typeof value === 'string' && value !== '')) {
    return value as KeyLog
  }
  throw new OptionError(name, value, 'a folder or a function', 'ERR_INVALID_ARG_TYPE')
}

/** As net: less than ten milliseconds count as ten. */
const attemptTimeout = (name: string, value: unknown): number =>
  Math.max(10, integerOption(1, 2 ** 31 - 1)(name, typed<number>('number')(name, value)))

const blockListOption = (name: string, value: unknown): BlockList => {
  const check = (value as Partial<BlockList> | null)?.check
  if (typeof check === 'function') return value as BlockList
  throw argumentError(`options.${name}`, value, 'an instance of net.BlockList')
}

export const signalOption = (name: string, value: unknown): AbortSignal => {
  if (typeof (value as AbortSignal | null)?.addEventListener === 'function') {
    return value as AbortSignal
  }
  throw argumentError(`options.${name}`, value, 'an instance of AbortSignal')
}

const gatewayOption = (name: string, value: unknown): string => {
  if (value !== '') return typed<string>('string')(name, value)
  throw new OptionError(name, value, 'a name or an address')
}

/** As net: anything else than such an object is passed over. */
const onreadOption = (_name: string, value: unknown): OnRead | undefined => {
  const { buffer, callback } = (value ?? {}) as Partial<OnRead>
  const isBuffer = buffer instanceof Uint8Array || typeof buffer === 'function'
  return isBuffer && typeof callback === 'function' ? (value as OnRead) : undefined
}

/** An error as Node itself makes them. */
export const nodeError = (
  code: string,
  message: string,
  Type: ErrorConstructor | TypeErrorConstructor | RangeErrorConstructor = Error,
): Error => Object.assign(new Type(message), { code })

/** As net: a number or the text of one, 0 to 65535. */
export const parsePort = (name: string, value: unknown): number => {
  if (typeof value !== 'number' && typeof value !== 'string') {
    throw argumentError(`options.${name}`, value, 'of type number or string')
  }
  const port = typeof value === 'string' && value.trim() !== '' ? Number(value) : value
  // Of -0 the number 0.
  if (typeof port === 'number' && Number.isInteger(port) && port >= 0 && port <= 65535)
    return port + 0
  const message = `options.${name} should be >= 0 and < 65536. Received ${describe(value)}.`
  throw nodeError('ERR_SOCKET_BAD_PORT', message, RangeError)
}

/** The peer's: nothing can be sent to port 0. */
const peerPort = (name: string, value: unknown): number => {
  const port = parsePort(name, value)
  if (port !== 0) return port
  const message = `options.${name} should be > 0 and < 65536. Received ${describe(value)}.`
  throw nodeError('ERR_SOCKET_BAD_PORT', message, RangeError)
}

/** As net: bits of dns's hints, looked at only where a name is looked up. */
const hintsOption = (name: string, value: unknown): number => {
  const hints = typed<number>('number')(name, value)
  if ((hints & ~(dns.ADDRCONFIG | dns.ALL | dns.V4MAPPED)) === 0) return hints
  throw argumentError(
    `options.${name}`,
    value,
    'made of dns.ADDRCONFIG, dns.ALL and dns.V4MAPPED',
    'ERR_INVALID_ARG_VALUE',
  )
}

/** More of what is none is not printed. */
const LONGEST_ADDRESS = 100

const ipAddress = (name: string, value: unknown): string => {
  const text = typed<string>('string')(name, value)
  if (parseAddress(text) !== undefined) return text
  throw nodeError(
    'ERR_INVALID_IP_ADDRESS',
    `Invalid IP address: ${text.slice(0, LONGEST_ADDRESS)}`,
    TypeError,
  )
}

/** `complete`: it is to connect now, so what connecting needs must be there. */
export const parseConnect = (options: SecureSocketOptions, complete: boolean): ConnectSettings => {
  if (typeof options !== 'object' || options === null) {
    throw new OptionError('options', options, 'an object', 'ERR_INVALID_ARG_TYPE')
  }
  const given = ownOptions(options)
  const read = reader(given)
  if (complete && given['path'] !== undefined && given['port'] === undefined) {
    throw new OptionError(
      'path',
      given['path'],
      'left out: there are no local (IPC) secure sockets',
    )
  }
  if (complete && given['port'] === undefined) {
    throw nodeError('ERR_MISSING_ARGS', 'The "options.port" argument must be specified', TypeError)
  }
  for (const name of ['objectMode', 'readableObjectMode', 'writableObjectMode']) {
    if (!options[name as keyof typeof options]) continue
    throw argumentError(
      `options.${name}`,
      true,
      'left out: it is not supported',
      'ERR_INVALID_ARG_VALUE',
    )
  }
  if (!isLenient(given)) read.refuseUnknown(CLIENT_NAMES)
  if (!isLenient(given))
    refuse(given, 'authorize', 'left out: it is for servers; a client has "checkServerIdentity"')
  read('keyLog', keyLog, undefined)
  // As net: options of a look-up are read where there is one.
  const looksUp = isName(given['host'] || 'localhost') || isName(given['gateway'])
  if (complete || CREDENTIAL_OPTIONS.some(name => given[name] !== undefined)) checkSecurity(given)
  return {
    given: given,
    // As net: an empty one is none.
    host: read('host', typed<string>('string'), 'localhost') || 'localhost',
    port: read('port', parsePort, 0),
    gateway: read('gateway', gatewayOption, undefined),
    ikePort: read('ikePort', peerPort, DEFAULT_IKE_PORT),
    localAddress: read('localAddress', ipAddress, undefined),
    localPort: read('localPort', localPort, undefined),
    family: read('family', anything<number>, undefined),
    hints: looksUp ? read('hints', hintsOption, undefined) : undefined,
    lookup: looksUp ? read('lookup', typed<LookupFunction>('function'), undefined) : undefined,
    allowHalfOpen: Boolean(read('allowHalfOpen', anything, false)),
    noDelay: Boolean(read('noDelay', anything, false)),
    keepAlive: Boolean(read('keepAlive', anything, false)),
    keepAliveInitialDelay: Math.max(0, read('keepAliveInitialDelay', typed<number>('number'), 0)),
    userTimeout: read('userTimeout', integerOption(0, LONGEST_USER_TIMEOUT), 0),
    congestionControl: read('congestionControl', oneOf(...CONGESTION_CONTROLS), 'cubic'),
    timeout: read('timeout', socketTimeout, undefined),
    highWaterMark: read('highWaterMark', integerOption(0, Number.MAX_SAFE_INTEGER), undefined),
    signal: read('signal', signalOption, undefined),
    onread: read('onread', onreadOption, undefined),
    blockList: read('blockList', blockListOption, undefined),
    encrypted: read('encrypted', booleanOption, false),
    autoSelectFamily: read('autoSelectFamily', booleanOption, getDefaultAutoSelectFamily()),
    autoSelectFamilyAttemptTimeout: read(
      'autoSelectFamilyAttemptTimeout',
      attemptTimeout,
      getDefaultAutoSelectFamilyAttemptTimeout(),
    ),
  }
}

/** As `setTimeout` of a socket wants it. */
const socketTimeout = (name: string, value: unknown): number => {
  const millis = typed<number>('number')(name, value)
  if (Number.isFinite(millis) && millis >= 0) return millis
  const wanted = `It must be a non-negative finite number. Received ${describe(millis)}`
  throw nodeError(
    'ERR_OUT_OF_RANGE',
    `The value of "options.${name}" is out of range. ${wanted}`,
    RangeError,
  )
}

const localPort = (name: string, value: unknown): number =>
  parsePort(name, typed<number>('number')(name, value))

const isName = (host: unknown): boolean => typeof host === 'string' && isIP(host) === 0

/** Whoever gives it believes that it does something. */
const refuse = (given: Readonly<Record<string, unknown>>, name: string, words: string): void => {
  if (Object.hasOwn(given, name) && given[name] !== undefined)
    throw new OptionError(name, withoutContent(given[name]), words)
}

const CLIENT_NAMES: readonly string[] = [
  ...SOCKET_OPTIONS,
  ...POLICY_OPTIONS,
  ...CREDENTIAL_OPTIONS,
]
const SERVER_NAMES: readonly string[] = [
  ...SERVER_OPTIONS,
  ...POLICY_OPTIONS,
  ...CREDENTIAL_OPTIONS,
]

/** Marks options that come through net's own calls, where a name that nobody knows has no effect. */
const LENIENT = Symbol('lenient')

const isLenient = (options: object): boolean => LENIENT in options

/** Of each kind of end, what only the other one has. */
const OTHER_ENDS = {
  client: new Set<string>(['authorize', 'addressPool', 'dns']),
  server: new Set<string>([
    'checkServerIdentity',
    'eap',
    'virtualAddress',
    'remoteId',
    'servername',
  ]),
} as const

/** Options as net has them, over `defaults`: what only others know, or the other end, is left out. */
export const lenientOptions = <T extends object>(
  end: 'client' | 'server',
  defaults: object,
  options: T,
): T => {
  const names = end === 'client' ? [...CLIENT_NAMES, ...REFUSED_NAMES] : SERVER_NAMES
  const merged = new Map<string | symbol, unknown>([[LENIENT, true]])
  for (const name of names) {
    if (OTHER_ENDS[end].has(name)) continue
    const own: unknown = Reflect.get(options, name)
    const value: unknown =
      own === undefined && Object.hasOwn(defaults, name) ? Reflect.get(defaults, name) : own
    // As net: null is nothing, but no port.
    if (value !== undefined && (value !== null || name === 'port')) merged.set(name, value)
  }
  return Object.fromEntries(merged) as T
}

/** What net refuses, or we do, with words of their own. */
const REFUSED_NAMES = ['path', 'objectMode', 'readableObjectMode', 'writableObjectMode']

/** Own properties only, without what other libraries add. */
const ownOptions = (options: object): Record<string, unknown> => {
  const own = Object.create(null) as Record<string, unknown>
  const given = ownProperties('options', options)
  for (const [name, value] of Object.entries(given)) {
    if (!FOREIGN_OPTIONS.has(name)) own[name] = value
  }
  if (isLenient(given)) Object.assign(own, { [LENIENT]: true })
  return own
}

export interface Security {
  readonly policy: PeerPolicy
  readonly credentials: Credentials
}

/** Fingerprints of options that were read without a fault; certificates are too dear to read for each socket. */
const checked = new Set<string>()
const MAX_CHECKED = 1000

const checkSecurity = (options: Readonly<Record<string, unknown>>): void => {
  const key = fingerprint(options)
  if (checked.has(key)) return
  parseSecurity(options)
  if (checked.size >= MAX_CHECKED) checked.clear()
  checked.add(key)
}

const warned = new Set<string>()

/** Said once each in a process: keys that work and should not, or that differ from what was meant. */
const warnAbout = (psk: unknown): void => {
  const warn = (code: string, message: string): void => {
    if (warned.has(code)) return
    warned.add(code)
    process.emitWarning(message, { code })
  }
  const keys = isTable(psk) ? Object.values(psk) : [psk]
  for (const key of keys) {
    if (typeof key !== 'string' && !(key instanceof Uint8Array)) continue
    const last = typeof key === 'string' ? key.charCodeAt(key.length - 1) : key.at(-1)
    if (last === 0x0a || last === 0x0d) {
      warn(
        'IKE_PSK_LINE_BREAK',
        'A pre-shared key ends in a line break, as files do: it is part of the key, so remove it unless the peer has it too',
      )
    }
    if (key.length > 0 && key.length < SHORT_PSK) {
      warn(
        'IKE_SHORT_PSK',
        `A pre-shared key of ${key.length} octets can be found by trying (RFC 7296 section 2.15); use ${SHORT_PSK} random octets or more`,
      )
    }
  }
}

const isTable = (psk: unknown): psk is Readonly<Record<string, unknown>> =>
  typeof psk === 'object' && psk !== null && !(psk instanceof Uint8Array)

/** What IKE works with; `peerName`: the host that a client speaks to. */
export const parseSecurity = (
  options: Readonly<Record<string, unknown>>,
  peerName?: string,
): Security => {
  const security = {
    policy: parsePolicy(options),
    credentials: parseCredentials(options, peerName),
  }
  if (security.credentials.eap?.method === 'tls') {
    parseEapTls(options['eap'] as Readonly<Record<string, unknown>>)
  }
  warnAbout(options['psk'])
  return security
}

export interface ServerSettings extends Security {
  readonly ikePort: number
  readonly pauseOnConnect: boolean
  readonly blockList: BlockList | undefined
  readonly keyLog: KeyLog | undefined
  /** For the sockets of accepted connections. */
  readonly connection: ConnectSettings
}

export const parseServer = (options: SecureServerOptions): ServerSettings => {
  if (typeof options !== 'object' || options === null) {
    throw new OptionError('options', options, 'an object', 'ERR_INVALID_ARG_TYPE')
  }
  const given = ownProperties('options', options)
  const read = reader(given)
  if (!isLenient(given)) {
    refuse(given, 'port', 'left out: listen() has it')
    refuse(given, 'host', 'left out: listen() has it')
  }
  if (!isLenient(given)) read.refuseUnknown(SERVER_NAMES)
  refuse(given, 'checkServerIdentity', 'left out: it is for clients; a server has "authorize"')
  refuse(given, 'eap', 'left out: it is for clients')
  const connection: Record<string, unknown> = {}
  for (const name of [
    'allowHalfOpen',
    'noDelay',
    'keepAlive',
    'keepAliveInitialDelay',
    'userTimeout',
    'congestionControl',
    'highWaterMark',
    'encrypted',
  ] as const) {
    if (given[name] !== undefined) connection[name] = given[name]
  }
  return {
    ...parseSecurity(given),
    ikePort: read('ikePort', parsePort, DEFAULT_IKE_PORT),
    pauseOnConnect: read('pauseOnConnect', booleanOption, false),
    blockList: read('blockList', blockListOption, undefined),
    keyLog: read('keyLog', keyLog, undefined),
    connection: parseConnect(connection, false),
  }
}
