/** Options of sockets and servers: those net has are read here, the others by policy and identity. */
import dns from 'node:dns'
import { isIP, type BlockList, type LookupFunction } from 'node:net'
import type { DuplexOptions } from 'node:stream'
import { parseAddress } from '../base/address.ts'
import { describe, listOf, OptionError, ownProperties, withoutContent } from '../base/errors.ts'
import {
  boolean,
  endsOf,
  integer,
  namesOf,
  oneOf,
  reader,
  readTable,
  row,
  type OptionEnd,
  type OptionTable,
} from '../base/option-table.ts'
import { reusePortProblem } from '../base/supported-node.ts'
import { CONGESTION_CONTROLS, type CongestionControl } from '../core/tcp-config.ts'
import { CREDENTIAL_OPTIONS, CREDENTIAL_TABLE } from '../identity/credentials.ts'
import { POLICY_OPTIONS, POLICY_TABLE } from '../policy/options.ts'
import type { KeyLog } from './channels.ts'
import { controlOption } from './control.ts'
import { readFiles } from './credential-files.ts'
import type {
  DatagramOptions,
  EndpointOptions,
  OnRead,
  SecureContextOptions,
  SecureServerOptions,
  SecureSocketOptions,
} from './option-types.ts'
import {
  contextOf,
  expandContext,
  isOfContext,
  SecureContext,
  securityTowards,
  type ParsedContext,
} from './secure-context.ts'

export * from './option-types.ts'

type Given = Readonly<Record<string, unknown>>

/**
 * Reads credentials, proposals and policy once. Sockets, servers and endpoints take the result as `secureContext`; beside
 * it, `servername`, `remoteId`, `checkServerIdentity` and `authorize` may be given for each of them.
 */
export const createSecureContext = (options: SecureContextOptions): SecureContext =>
  new SecureContext(options)

/** What a socket itself reads; the IKE options stay as given until the endpoint is made. */
export interface ConnectSettings {
  /** As given. */
  readonly own: Given
  /** With the contents of `secureContext`. */
  readonly given: SecureSocketOptions
  /** Undefined: there are no credentials yet. */
  readonly context: ParsedContext | undefined
  /** Of its Duplex. */
  readonly stream: DuplexOptions
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
  readonly captureRejections: boolean
  readonly encoding: BufferEncoding | undefined
  readonly readable: boolean
  readonly writable: boolean
  readonly typeOfService: number
  readonly highWaterMark: number | undefined
  readonly readableHighWaterMark: number | undefined
  readonly writableHighWaterMark: number | undefined
  readonly signal: AbortSignal | undefined
  readonly onread: OnRead | undefined
  readonly blockList: BlockList | undefined
  readonly control: string | undefined
  readonly encrypted: boolean
  /** Undefined: as net's default is. */
  readonly autoSelectFamily: boolean | undefined
  readonly autoSelectFamilyAttemptTimeout: number | undefined
}

/** As net has it. */
const DEFAULT_HOST = 'localhost'
/** RFC 5482 §3: what the option of TCP can say, in milliseconds. */
const LONGEST_USER_TIMEOUT = 32_767 * 60_000
/** RFC 7296 §2.23: IKE and ESP in UDP. */
export const DEFAULT_IKE_PORT = 4500

/** http's agents and other libraries pass these along with the connection's options. */
const FOREIGN_OPTIONS: ReadonlySet<string | symbol> = new Set([
  'agent',
  'agentKey',
  'auth',
  'createConnection',
  'defaultPort',
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
    `The "${name}" ${name.includes('.') ? 'property' : 'argument'} must be ${expected}. Received ${describe(value)}`,
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
const attemptTimeout = (name: string, value: unknown): number => {
  const millis = typed<number>('number')(name, value)
  if (Number.isInteger(millis) && millis >= 1 && millis < 2 ** 31) return Math.max(10, millis)
  throw rangeError(`options.${name}`, millis, `an integer >= 1 && <= ${2 ** 31 - 1}`)
}

const blockListOption = (name: string, value: unknown): BlockList => {
  const check = (value as Partial<BlockList> | null)?.check
  if (typeof check === 'function') return value as BlockList
  throw argumentError(`options.${name}`, value, 'an instance of net.BlockList')
}

/** As net says of an address that it does not connect to. */
export const blockedError = (address: string): Error =>
  nodeError('ERR_IP_BLOCKED', `IP(${address}) is blocked by net.BlockList`)

export const isBlocked = (list: BlockList | undefined, address: string): boolean =>
  list?.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4') ?? false

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

/** As net's, of a number that is too small, too large or none. */
export const rangeError = (name: string, value: number, wanted: string): Error =>
  nodeError(
    'ERR_OUT_OF_RANGE',
    `The value of "${name}" is out of range. It must be ${wanted}. Received ${value}`,
    RangeError,
  )

/** As net: a number or the text of one, 0 to 65535. */
export const parsePort = (name: string, value: unknown): number => {
  if (typeof value !== 'number' && typeof value !== 'string') {
    throw argumentError(`options.${name}`, value, 'one of type number or string')
  }
  const port = typeof value === 'string' && value.trim() !== '' ? Number(value) : value
  // Of -0 the number 0.
  if (typeof port === 'number' && Number.isInteger(port) && port >= 0 && port <= 65535)
    return port + 0
  const message = `options.${name} should be >= 0 and < 65536. Received ${describe(value)}.`
  throw nodeError('ERR_SOCKET_BAD_PORT', message, RangeError)
}

/** As net: text that says no port, not even a wrong one, is the path of a local socket. */
export const isPathText = (value: unknown): value is string =>
  typeof value === 'string' && !(Number(value) >= 0)

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
  const message = `The argument '${name}' is invalid. Received ${hints}`
  throw nodeError('ERR_INVALID_ARG_VALUE', message, TypeError)
}

/** More of what is none is not printed. */
const LONGEST_ADDRESS = 100

const ipAddress = (_name: string, value: unknown): string => {
  if (typeof value === 'string' && parseAddress(value) !== undefined) return value
  const text = typeof value === 'string' ? value.slice(0, LONGEST_ADDRESS) : describe(value)
  throw nodeError('ERR_INVALID_IP_ADDRESS', `Invalid IP address: ${text}`, TypeError)
}

/** As `setTimeout` of a socket wants it. */
const socketTimeout = (name: string, value: unknown): number => {
  const millis = typed<number>('number')(name, value)
  if (Number.isFinite(millis) && millis >= 0) return millis
  throw rangeError(`options.${name}`, millis, 'a non-negative finite number')
}

const typeOfServiceOption = (name: string, value: unknown): number => {
  const octet = typed<number>('number')(name, value)
  if (!Number.isInteger(octet)) throw rangeError(`options.${name}`, octet, 'an integer')
  if (octet >= 0 && octet <= 255) return octet
  throw rangeError(`options.${name}`, octet, '>= 0 && <= 255')
}

/** An endpoint's addresses: names are for services. */
const hostsOption = (name: string, value: unknown): readonly string[] => {
  const hosts = listOf(name, value).map(host => ipAddress(name, host))
  if (hosts.length > 0) return hosts
  throw new OptionError(name, value, 'one or more IP addresses, or left out for all of this host')
}

/** Why this process cannot bind a UDP port that others bind; undefined: it can. */
export const noReusePort = reusePortProblem(process.versions.node, process.platform)

const reusePortOption = (name: string, value: unknown): boolean => {
  const isWanted = boolean(name, value)
  if (!isWanted || noReusePort === undefined) return isWanted
  const words = `false: it works ${noReusePort}; without it workers share the port too, and one of them binds it`
  throw new OptionError(name, value, words)
}

const asBoolean = (_name: string, value: unknown): boolean => Boolean(value)

const keepAliveDelay = (name: string, value: unknown): number =>
  Math.max(0, typed<number>('number')(name, value))

/** As net: null, which http's agents hand over, is none. */
const encodingOption = (name: string, value: unknown): BufferEncoding | undefined => {
  if (value === null) return undefined
  if (typeof value === 'string' && Buffer.isEncoding(value)) return value
  const words = `The property 'options.${name}' must be an encoding of Buffer, such as 'utf8'. Received ${describe(value)}`
  throw nodeError('ERR_UNKNOWN_ENCODING', words, TypeError)
}

const waterMark = integer(0, Number.MAX_SAFE_INTEGER)

/** As net: an empty one is none, and the system's own functions would read no further than a null byte. */
const hostOption = (name: string, value: unknown): string => {
  const host = typed<string>('string')(name, value)
  if (!host.includes('\0')) return host || DEFAULT_HOST
  const words = `The property 'options.${name}' must be a string without null bytes. Received ${describe(value)}`
  throw nodeError('ERR_INVALID_ARG_VALUE', words, TypeError)
}

/** Of both a client's sockets and those that a server accepts. */
const CONNECTION_TABLE = {
  allowHalfOpen: row('both', asBoolean, false),
  noDelay: row('both', asBoolean, false),
  keepAlive: row('both', asBoolean, false),
  keepAliveInitialDelay: row('both', keepAliveDelay, 0),
  userTimeout: row('both', integer(0, LONGEST_USER_TIMEOUT), 0),
  congestionControl: row('both', oneOf(...CONGESTION_CONTROLS), 'cubic'),
  highWaterMark: row('both', waterMark),
  blockList: row('both', blockListOption),
  encrypted: row('both', boolean, false),
  keyLog: row('both', keyLog),
} as const satisfies OptionTable

/** What a socket reads itself. */
const SOCKET_TABLE = {
  ...CONNECTION_TABLE,
  host: row('client', hostOption, DEFAULT_HOST),
  port: row('client', parsePort, 0),
  gateway: row('client', gatewayOption),
  ikePort: row('both', peerPort, DEFAULT_IKE_PORT),
  localAddress: row('client', ipAddress),
  localPort: row('client', typed<number>('number')),
  family: row('client', anything<number>),
  hints: row('client', hintsOption),
  lookup: row('client', typed<LookupFunction>('function')),
  timeout: row('client', socketTimeout),
  readableHighWaterMark: row('client', waterMark),
  writableHighWaterMark: row('client', waterMark),
  signal: row('client', signalOption),
  captureRejections: row('client', asBoolean, false),
  encoding: row('client', encodingOption),
  readable: row('client', boolean, true),
  writable: row('client', boolean, true),
  typeOfService: row('client', typeOfServiceOption, 0),
  onread: row('client', onreadOption),
  autoSelectFamily: row('client', typed<boolean>('boolean')),
  autoSelectFamilyAttemptTimeout: row('client', attemptTimeout),
  control: row('both', controlOption),
} as const satisfies OptionTable

/** What a server reads itself. */
const SERVER_TABLE = {
  ...CONNECTION_TABLE,
  ikePort: row('both', parsePort, DEFAULT_IKE_PORT),
  reusePort: row('server', reusePortOption, false),
  pauseOnConnect: row('server', boolean, false),
  watch: row('server', boolean, false),
  control: row('both', controlOption),
} as const satisfies OptionTable

/** What an endpoint reads itself. */
const ENDPOINT_TABLE = {
  ikePort: row('both', parsePort, DEFAULT_IKE_PORT),
  host: row('both', hostsOption),
  ipv6Only: row('both', boolean, false),
  reusePort: row('server', reusePortOption, false),
  watch: row('both', boolean, false),
  control: row('both', controlOption),
  keyLog: row('both', keyLog),
} as const satisfies OptionTable

/** Credentials and policy in one; `expandContext` adds what they hold. */
const CONTEXT_ENDS = { secureContext: 'both', endpoint: 'both' } as const
const CONTEXT_OPTIONS = namesOf(CONTEXT_ENDS)

/** Every option, by the end that has it. */
export const OPTION_ENDS: ReadonlyMap<string, OptionEnd> = new Map(
  Object.entries({
    ...CONTEXT_ENDS,
    ...endsOf(POLICY_TABLE),
    ...CREDENTIAL_TABLE,
    ...endsOf(SOCKET_TABLE),
    ...endsOf(SERVER_TABLE),
  }),
)

/** What an option that stands by itself is when it is not given. */
export const OPTION_TABLE: OptionTable = { ...POLICY_TABLE, ...SERVER_TABLE, ...SOCKET_TABLE }

/** A look-up's options are read where there is one. */
const LOOKUP_OPTIONS: ReadonlySet<string> = new Set(['hints', 'lookup'])
/** Those of a server that its connections have. */
const CONNECTION_OPTIONS = namesOf(CONNECTION_TABLE)

/** As net says it. */
export const MISSING_PORT = 'The "options" or "port" or "path" argument must be specified'

/** Of a socket that is to connect: the options that it was made with, and `options` over them. */
export const parseMore = (options: object, before: ConnectSettings): ConnectSettings => {
  const isComplete = before.context !== undefined && before.own['port'] !== undefined
  if (isComplete && isSame(before.own, options)) return before
  const all = isLenient(before.own)
    ? lenientConnect(before.own, options)
    : { ...before.own, ...ownProperties('options', options) }
  return parseConnect(all, true, before.context)
}

/** `complete`: it is to connect now, so what connecting needs must be there; `before`: of the same socket. */
export const parseConnect = (
  options: SecureSocketOptions,
  complete: boolean,
  before?: ParsedContext,
): ConnectSettings => {
  if (typeof options !== 'object' || options === null) {
    throw new OptionError('options', options, 'an object', 'ERR_INVALID_ARG_TYPE')
  }
  const known = complete ? undefined : lastRead?.deref()
  if (known !== undefined && isSame(known.own, options)) return known
  const own = readFiles(ownOptions(options))
  const read = reader(own)
  // Beside a port it is the path of a URL, which libraries hand over.
  const { path } = options as { path?: unknown }
  if (complete && typeof path === 'string' && path !== '' && own['port'] === undefined) {
    throw new OptionError('path', path, 'left out: there are no local (IPC) secure sockets')
  }
  if (complete && own['port'] === undefined) {
    throw nodeError('ERR_MISSING_ARGS', MISSING_PORT, TypeError)
  }
  for (const name of ['objectMode', 'readableObjectMode', 'writableObjectMode']) {
    const value: unknown = options[name as keyof typeof options]
    if (!value) continue
    const received = typeof value === 'boolean' ? String(value) : describe(value)
    const message = `The property 'options.${name}' is not supported. Received ${received}`
    throw nodeError('ERR_INVALID_ARG_VALUE', message, TypeError)
  }
  refuse(own, 'fd', 'left out: a descriptor cannot be protected')
  refuse(own, 'handle', 'left out: a handle cannot be protected')
  const isStrict = !isLenient(own)
  if (isStrict) read.refuseUnknown(CLIENT_NAMES)
  if (isStrict)
    refuse(own, 'authorize', 'left out: it is for servers; a client has "checkServerIdentity"')
  // Net's calls find out when they bind it.
  if (isStrict && own['localPort'] !== undefined) {
    parsePort('localPort', typed<number>('number')('localPort', own['localPort']))
  }
  const given = expandContext(own)
  // As net: options of a look-up are read where there is one.
  const looksUp = isName(given['host'] || DEFAULT_HOST) || isName(given['gateway'])
  const hasCredentials = CREDENTIAL_OPTIONS.some(name => given[name] !== undefined)
  const context = complete || hasCredentials ? checkedContext(own, given, before) : undefined
  const values = readTable(SOCKET_TABLE, given, looksUp ? undefined : LOOKUP_OPTIONS)
  const settings = Object.assign(values, { own, given, context, stream: streamOptions(values) })
  lastRead = new WeakRef(settings)
  return settings
}

/** What was read last: sockets one after the other often have equal options. Held weakly, as `contextOf` holds keys. */
let lastRead: WeakRef<ConnectSettings> | undefined

/** Options are those that were read. What is in objects may have changed, so of those nothing is known. */
const isSame = (before: Given, options: object): boolean => {
  try {
    const names = Reflect.ownKeys(options) as string[]
    if (names.length !== Reflect.ownKeys(before).length) return false
    for (const name of names) {
      const value: unknown = Reflect.get(options, name)
      if (value !== Reflect.get(before, name) || value === undefined || typeof value === 'object')
        return false
    }
    return true
  } catch {
    // Whoever reads them next says which it is that throws.
    return false
  }
}

const STREAM_OPTIONS = [
  'allowHalfOpen',
  'captureRejections',
  'encoding',
  'readable',
  'writable',
] as const
const WATER_MARKS = ['highWaterMark', 'readableHighWaterMark', 'writableHighWaterMark'] as const

/** Duplex reads what is inherited too, and we answer for our options alone. */
const streamOptions = (
  settings: Pick<ConnectSettings, (typeof STREAM_OPTIONS)[number] | (typeof WATER_MARKS)[number]>,
): DuplexOptions => {
  const options = Object.create(null) as Record<string, boolean | number | string | undefined>
  for (const name of STREAM_OPTIONS) options[name] = settings[name]
  options['autoDestroy'] = true
  options['emitClose'] = false
  options['decodeStrings'] = true
  for (const name of WATER_MARKS) {
    const octets = settings[name]
    if (octets !== undefined) options[name] = octets
  }
  return options
}

/** Its options for one peer are in order too. */
const checkedContext = (own: Given, options: Given, before?: ParsedContext): ParsedContext => {
  const context = contextOf(own, options, before)
  securityTowards(context, options)
  return context
}

const isName = (host: unknown): boolean => typeof host === 'string' && isIP(host) === 0

/** A program that gives it expects it to do something. */
const refuse = (given: Readonly<Record<string, unknown>>, name: string, words: string): void => {
  if (Object.hasOwn(given, name) && given[name] !== undefined)
    throw new OptionError(name, withoutContent(given[name]), words)
}

export const CLIENT_NAMES = [
  ...namesOf(SOCKET_TABLE),
  ...POLICY_OPTIONS,
  ...CREDENTIAL_OPTIONS,
  ...CONTEXT_OPTIONS,
] as const
export const SERVER_NAMES = [
  ...namesOf(SERVER_TABLE),
  ...POLICY_OPTIONS,
  ...CREDENTIAL_OPTIONS,
  ...CONTEXT_OPTIONS,
] as const

/** Marks options that come through net's own calls, where a name that nobody knows has no effect. */
const LENIENT = Symbol('lenient')

export const isLenient = (options: object): boolean => LENIENT in options

/** What net does not know either, and what would lessen nothing here: both ends always prove themselves. */
const NEEDLESS: ReadonlySet<string> = new Set(['rejectUnauthorized', 'requestCert'])

/** What only the other end has; whom a program expects as `remoteId` is whom its clients speak to. */
const isOtherEnds = (end: 'client' | 'server', name: string): boolean =>
  end === 'client'
    ? OPTION_ENDS.get(name) === 'server'
    : OPTION_ENDS.get(name) === 'client' || name === 'remoteId'

/** Of these net asks only whether they are anything. */
const NONE_IF_FALSE: ReadonlySet<string> = new Set([
  'encoding',
  'host',
  'hints',
  'localAddress',
  'localPort',
])
/** Of these it asks only whether they are `false`. */
const UNLESS_FALSE: ReadonlySet<string> = new Set(['readable', 'writable'])

const NULL_IS_REFUSED: ReadonlySet<string> = new Set([
  'port',
  'keepAliveInitialDelay',
  'typeOfService',
])

/** As net: null is nothing where it is not refused, and a negative local port is what its lower 16 bits say. */
const asNetReads = (name: string, value: unknown): unknown => {
  if (value === null && !NULL_IS_REFUSED.has(name)) return undefined
  if (!value && NONE_IF_FALSE.has(name)) return undefined
  if (value !== false && UNLESS_FALSE.has(name)) return undefined
  return name === 'localPort' && typeof value === 'number' && value < 0 ? value & 0xffff : value
}

const NONE: ReadonlySet<string> = new Set()

/**
 * Options as net has them, over `defaults`: what only others know, or the other end, is left out. Those in `fixed` are
 * those of `defaults`.
 */
export const lenientOptions = <T extends object>(
  end: 'client' | 'server',
  defaults: object,
  options: T,
  fixed = NONE,
): T => {
  const names = end === 'client' ? [...CLIENT_NAMES, ...REFUSED_NAMES] : SERVER_NAMES
  const merged = new Map<string | symbol, unknown>([[LENIENT, true]])
  for (const name of names) {
    if (isOtherEnds(end, name) || NEEDLESS.has(name)) continue
    const own: unknown = fixed.has(name) ? undefined : Reflect.get(options, name)
    const value: unknown =
      own === undefined && Object.hasOwn(defaults, name) ? Reflect.get(defaults, name) : own
    const read = asNetReads(name, value)
    if (read !== undefined) merged.set(name, read)
  }
  return Object.fromEntries(merged) as T
}

/** As net, which reads these when it makes the socket. */
const SOCKET_ONLY: ReadonlySet<string> = new Set([
  'allowHalfOpen',
  'blockList',
  'captureRejections',
  'encoding',
  'fd',
  'handle',
  'highWaterMark',
  'keepAlive',
  'keepAliveInitialDelay',
  'noDelay',
  'objectMode',
  'onread',
  'readable',
  'readableHighWaterMark',
  'readableObjectMode',
  'signal',
  'timeout',
  'typeOfService',
  'writable',
  'writableHighWaterMark',
  'writableObjectMode',
])

/** What the socket was made with, and where `connect` says to go. */
const lenientConnect = (own: object, options: object): SecureSocketOptions =>
  lenientOptions<SecureSocketOptions>('client', own, options, SOCKET_ONLY)

/** Options for calls to come, which may bring what proves us: what none of them would take is an error now. */
export const checkDefaults = (defaults: Given): void => {
  readTable(SERVER_TABLE, lenientOptions('server', defaults, {}))
  // Of a server any UDP port will do.
  const { ikePort: _port, ...rest } = defaults
  const isProven = PROOFS.some(name => Object.hasOwn(defaults, name))
  const proof = isProven ? {} : { psk: STAND_IN }
  parseConnect(lenientOptions<SecureSocketOptions>('client', { ...proof, ...rest }, {}), false)
}

const PROOFS = ['psk', 'cert', 'key', 'eap', 'secureContext']
/** Nobody is shown it. */
const STAND_IN = 'a pre-shared key that some call has'

/** What a program that knows nothing of us says of a connection; the options of its TLS are not meant for IKE. */
export const PLACE_OPTIONS = [
  'host',
  'port',
  'family',
  'hints',
  'localAddress',
  'localPort',
  'autoSelectFamily',
  'autoSelectFamilyAttemptTimeout',
]

/** What net refuses, or we do, with words of their own. */
const REFUSED_NAMES = [
  'path',
  'fd',
  'handle',
  'objectMode',
  'readableObjectMode',
  'writableObjectMode',
]

/** Own properties only, without what other libraries add. */
const ownOptions = (options: object): Given => ownProperties('options', options, FOREIGN_OPTIONS)

export interface ServerSettings {
  /** With the contents of files and of `secureContext`. */
  readonly given: SecureServerOptions
  readonly context: ParsedContext
  /** The files that are named are read again when they change. */
  readonly watch: boolean
  readonly control: string | undefined
  readonly ikePort: number
  /** Other processes and threads that say the same bind the UDP port too. */
  readonly reusePort: boolean
  readonly pauseOnConnect: boolean
  readonly blockList: BlockList | undefined
  /** For the sockets of accepted connections. */
  readonly connection: ConnectSettings
}

export const parseServer = (options: SecureServerOptions): ServerSettings => {
  if (typeof options !== 'object' || options === null) {
    throw new OptionError('options', options, 'an object', 'ERR_INVALID_ARG_TYPE')
  }
  const own = readFiles(ownProperties('options', options))
  if (!isLenient(own)) {
    refuse(own, 'port', 'left out: listen() has it')
    refuse(own, 'host', 'left out: listen() has it')
    reader(own).refuseUnknown(SERVER_NAMES)
  }
  const given = expandContext(own)
  refuse(given, 'checkServerIdentity', 'left out: it is for clients; a server has "authorize"')
  refuse(given, 'eap', 'left out: it is for clients')
  if (own['endpoint'] !== undefined) {
    for (const name of ['ikePort', 'reusePort']) refuse(own, name, 'left out: the endpoint has it')
  }
  const { ikePort, reusePort, pauseOnConnect, blockList, watch, control } = readTable(
    SERVER_TABLE,
    given,
  )
  const connection = CONNECTION_OPTIONS.flatMap(name =>
    given[name] === undefined ? [] : [[name, given[name]] as const],
  )
  return {
    given,
    context: checkedContext(own, given),
    watch,
    control,
    ikePort,
    reusePort,
    pauseOnConnect,
    blockList,
    connection: parseConnect(Object.fromEntries(connection), false),
  }
}

export const ENDPOINT_NAMES = [
  ...namesOf(ENDPOINT_TABLE),
  ...POLICY_OPTIONS,
  ...CREDENTIAL_OPTIONS,
  'secureContext',
] as const

export interface ParsedEndpoint {
  readonly own: Given
  readonly given: SecureServerOptions
  readonly context: ParsedContext
  readonly ikePort: number
  readonly hosts: readonly (string | undefined)[]
  readonly ipv6Only: boolean
  readonly reusePort: boolean
  readonly watch: boolean
  readonly control: string | undefined
}

export const parseEndpoint = (options: EndpointOptions): ParsedEndpoint => {
  if (typeof options !== 'object' || options === null) {
    throw new OptionError('options', options, 'an object', 'ERR_INVALID_ARG_TYPE')
  }
  const own = ownProperties('options', options)
  reader(own).refuseUnknown(ENDPOINT_NAMES)
  for (const name of ['eap', 'checkServerIdentity', 'servername']) {
    refuse(own, name, 'left out: it is for clients; connect() has it')
  }
  const read = readFiles(own)
  const given = expandContext(read)
  const { ikePort, host, ipv6Only, reusePort, watch, control } = readTable(ENDPOINT_TABLE, given)
  return {
    own,
    given,
    context: checkedContext(read, given),
    watch,
    control,
    ikePort,
    hosts: host ?? [undefined],
    ipv6Only,
    reusePort,
  }
}

/** What cannot change while an end runs. */
const FIXED_OPTIONS = [
  'ikePort',
  'host',
  'ipv6Only',
  'reusePort',
  'endpoint',
  'watch',
  'control',
] as const

/** Options of an end with other credentials: a `secureContext` takes the place of all, other options of those of their name. */
export const withCredentials = (own: Given, options: object): Record<string, unknown> => {
  if (typeof options !== 'object' || options === null) {
    throw new OptionError('options', options, 'an object', 'ERR_INVALID_ARG_TYPE')
  }
  const fresh = ownProperties('options', options)
  for (const name of FIXED_OPTIONS) refuse(fresh, name, 'left out: it cannot change')
  const isReplaced = fresh['secureContext'] !== undefined
  const kept = Object.entries(isReplaced ? own : expandContext(own)).filter(
    ([name]) => name !== 'secureContext' && !(isReplaced && isOfContext(name)),
  )
  return { ...Object.fromEntries(kept), ...fresh }
}

/** What a socket for datagrams reads itself; the rest is a client's and a server's. */
const DATAGRAM_TABLE = {
  gateway: SOCKET_TABLE.gateway,
  ikePort: SERVER_TABLE.ikePort,
  keyLog: SERVER_TABLE.keyLog,
  blockList: SERVER_TABLE.blockList,
} as const satisfies OptionTable

const DATAGRAM_NAMES = [
  ...namesOf(DATAGRAM_TABLE),
  ...POLICY_OPTIONS,
  ...CREDENTIAL_OPTIONS,
  ...CONTEXT_OPTIONS,
] as const

export interface DatagramSettings {
  /** As a server. */
  readonly given: SecureServerOptions
  readonly context: ParsedContext
  readonly ikePort: number
  readonly blockList: BlockList | undefined
  /** As a client. */
  readonly connect: ConnectSettings
}

export const parseDatagram = (options: DatagramOptions): DatagramSettings => {
  if (typeof options !== 'object' || options === null) {
    throw new OptionError('options', options, 'an object', 'ERR_INVALID_ARG_TYPE')
  }
  const own = readFiles(ownProperties('options', options))
  reader(own).refuseUnknown(DATAGRAM_NAMES)
  refuse(own, 'eap', 'left out: datagrams go in both directions')
  const { ikePort, blockList } = readTable(DATAGRAM_TABLE, own)
  const client = { ...own, ikePort: ikePort || undefined, authorize: undefined }
  const connect = parseConnect(client, false)
  const given = expandContext(own)
  return { given, context: checkedContext(own, given), ikePort, blockList, connect }
}
