/**
 * A security policy for a whole process: every `connect()` of a `net.Socket`, every `tls.connect()` and every
 * `listen()` of a `net.Server` goes by it, however the program came by the function. What is to be protected is
 * reached by a secure socket or not at all. Child processes and workers get the same.
 */
import dns from 'node:dns'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import net, { type LookupFunction } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import { parseJson } from '../base/json.ts'
import { neverAskForWay } from '../node/reachability.ts'
import { guardTcp } from '../node/tcp-guard.ts'
import {
  decideInbound,
  decideOutbound,
  hasAddress,
  isAlwaysBypassed,
  isUnspecified,
  parsePolicyFile,
  type SecurityPolicy,
  type Verdict,
} from '../policy/spd.ts'
import { configuration } from './configuration.ts'
import { hookChildren } from './process-children.ts'
import {
  isPathText,
  lenientOptions,
  nodeError,
  PLACE_OPTIONS,
  type SecureSocketOptions,
} from './options.ts'
import { createSecureServer, type SecureServer } from './secure-server.ts'
import { createSecureSocket, SecureSocket } from './secure-socket.ts'

// --- the file ---

/** Ends the start of the program, with the file and the key. */
const faulty = (file: string, error: unknown): Error => {
  const why = error instanceof Error ? error.message : String(error)
  const fault = nodeError('ERR_IKE_POLICY', `IKE_SOCKET_POLICY: ${file}: ${why}`)
  return Object.assign(fault, { cause: error })
}

export const loadPolicy = (file: string | undefined): SecurityPolicy => {
  if (file === undefined || file === '') {
    const message = 'IKE_SOCKET_POLICY must name a policy file: JSON with "rules" and "default"'
    throw nodeError('ERR_IKE_POLICY', message)
  }
  try {
    return parsePolicyFile(parseJson(readFileSync(file, 'utf8')))
  } catch (error) {
    throw faulty(file, error)
  }
}

/** What net itself does. */
const original = {
  connect: net.Socket.prototype.connect as (...args: unknown[]) => net.Socket,
  listen: net.Server.prototype.listen as (...args: unknown[]) => net.Server,
  tlsConnect: tls.connect as (...args: unknown[]) => tls.TLSSocket,
}

// --- what comes past the hooks ---

type MayPass = (address: string, port: number) => boolean

/** Sockets that a hook has let through, and to where. */
const passed = new WeakMap<object, MayPass>()
/** Servers that a hook has let through, and their ports; 0: any that is free. */
const open = new WeakMap<object, number>()

const told = new Set<string>()

/** False: it is under a rule, and no hook has seen it. */
const discardUnseen = (hook: string, what: string): boolean => {
  if (!told.has(hook)) {
    process.emitWarning(
      `${what} did not come by the hook of IKE_SOCKET_POLICY at ${hook}, which another module must have taken away, and is discarded as all others will be`,
      { code: 'IKE_POLICY_HOOK' },
    )
    told.add(hook)
  }
  return false
}

/** Below the hooks, where another module that takes them away, or has kept net's own functions, does not lead past. */
const guard = (policy: SecurityPolicy): void => {
  const isGuarded = guardTcp({
    mayConnect: (socket, address, port) =>
      (socket !== undefined && passed.get(socket)?.(address, port)) ||
      isAlwaysBypassed(policy, address, port) ||
      discardUnseen('net.Socket.connect', `A connection to ${address}:${port}`),
    mayListen: (server, address, port) => {
      const wanted = server && open.get(server)
      if (wanted === 0 || wanted === port) return true
      const { action, unless } = decideInbound(policy, knownAddress(address), port)
      return (
        (action === 'bypass' && unless.length === 0) ||
        discardUnseen('net.Server.listen', `Listening on ${address}, port ${port},`)
      )
    },
  })
  if (!isGuarded) throw noEffect("Node's handles of TCP")
}

// --- connections that go out ---

interface ConnectOptions {
  readonly host?: string | undefined
  readonly port?: number | string | undefined
  readonly path?: string | undefined
  readonly lookup?: LookupFunction | undefined
  readonly blockList?: net.BlockList | undefined
}

type Listener = (() => void) | undefined

/** The overloads of `connect`; net itself hands over an array of options and listener. */
const connectArguments = (
  args: readonly unknown[],
): { options: ConnectOptions; listener: Listener } => {
  const list = Array.isArray(args[0]) ? (args[0] as unknown[]) : args
  const last = list.findLast(value => typeof value === 'function')
  const listener = last as Listener
  const [first, second] = list
  if (typeof first === 'object' && first !== null) return { options: first, listener }
  if (isPathText(first)) return { options: { path: first }, listener }
  const host = typeof second === 'string' ? second : undefined
  return { options: { port: first as number | string, host }, listener }
}

/** `tls.connect` merges a further object into what the first arguments say. */
const tlsArguments = (
  args: readonly unknown[],
): { options: ConnectOptions & { readonly socket?: unknown }; listener: Listener } => {
  const { options, listener } = connectArguments(args)
  const more = args.slice(1).find(value => typeof value === 'object' && value !== null)
  return { options: { ...options, ...more }, listener }
}

const refusal = (words: string, verdict: Verdict): Error => {
  const by = verdict.rule === undefined ? '"default"' : `"${verdict.rule.name}"`
  return Object.assign(nodeError('EACCES', `${words} (${by} of IKE_SOCKET_POLICY)`), {
    syscall: 'connect',
  })
}

/** Looks a name up, and refuses it when one of its addresses is under an earlier rule. */
const guarded = (options: ConnectOptions, { unless }: Verdict): LookupFunction => {
  const lookup: LookupFunction =
    options.lookup ??
    ((host, how, done) => dns.lookup(host, how as dns.LookupAllOptions, done as never))
  return (host, how, done) =>
    lookup(host, how, (error, answer, family) => {
      // Of our own: what is asked about here is what net gets.
      const found = Array.isArray(answer) ? answer.map(each => ({ ...each })) : String(answer)
      if (error === null || error === undefined) {
        const list = Array.isArray(found) ? found : [{ address: found }]
        for (const { address } of list) {
          const rule = unless.find(each => hasAddress(each, String(address)))
          if (rule === undefined) continue
          const words = `${host} has the address ${address}, for which "${rule.name}" of IKE_SOCKET_POLICY says "${rule.action}": name the host in a rule of its own before it`
          return done(nodeError('EACCES', words), found, family)
        }
      }
      done(error, found, family)
    })
}

const secureTowards = (
  options: ConnectOptions,
  verdict: Verdict,
  allowHalfOpen: boolean,
): SecureSocket =>
  createSecureSocket(
    lenientOptions<SecureSocketOptions>('client', configuration(), {
      ...Object.fromEntries(
        PLACE_OPTIONS.map(name => [name, Reflect.get(options, name) as unknown]),
      ),
      ...(verdict.rule?.gateway === undefined ? {} : { gateway: verdict.rule.gateway }),
      lookup: guarded(options, verdict),
      ...(options.blockList === undefined ? {} : { blockList: options.blockList }),
      allowHalfOpen,
      // What the program's own socket says of it is not heard here, and waiting is the worse mistake.
      noDelay: true,
    }),
  )

let folder: string | undefined
let relays = 0

/** Other users of this host have no access to it. */
const relayPath = (): string => {
  if (process.platform === 'win32') {
    return `\\\\.\\pipe\\ike-socket-${process.pid}-${Math.random().toString(36).slice(2)}-${relays++}`
  }
  if (folder === undefined) {
    const made = mkdtempSync(join(tmpdir(), 'ike-socket-'))
    process.once('exit', () => rmSync(made, { recursive: true, force: true }))
    folder = made
  }
  return join(folder, String(relays++))
}

/** What the program's socket cannot answer itself, since its octets go by a secure one. */
interface Lent {
  readonly secure: SecureSocket
  /** Sockets between the two. */
  readonly helpers: Set<{ ref(): unknown; unref(): unknown }>
  isHeld: boolean
}

const lentTo = new WeakMap<net.Socket, Lent>()

const hold = (lent: Lent, isHeld: boolean): void => {
  lent.isHeld = isHeld
  for (const each of [lent.secure, ...lent.helpers]) {
    if (isHeld) each.ref()
    else each.unref()
  }
}

const addHelper = (lent: Lent, helper: net.Socket | net.Server): void => {
  lent.helpers.add(helper)
  if (!lent.isHeld) helper.unref()
}

const FACTS = [
  'remoteAddress',
  'remotePort',
  'remoteFamily',
  'localAddress',
  'localPort',
  'localFamily',
] as const

const lentOf = (secure: SecureSocket): Lent => ({ secure, helpers: new Set(), isHeld: true })

/** From now on `socket` answers for the secure one. */
const lend = (socket: net.Socket, lent: Lent): void => {
  for (const name of FACTS) {
    Object.defineProperty(socket, name, { configurable: true, get: () => lent.secure[name] })
  }
  lentTo.set(socket, lent)
}

const ATTEMPT_EVENTS = [
  'lookup',
  'connectionAttempt',
  'connectionAttemptFailed',
  'connectionAttemptTimeout',
]

const passOn = (from: SecureSocket, to: net.Socket, events: readonly string[]): void => {
  for (const event of events)
    from.on(event, (...facts: unknown[]) => to.destroyed || to.emit(event, ...facts))
}

const takeBack = (socket: net.Socket): void => {
  if (!lentTo.delete(socket)) return
  for (const name of FACTS) Reflect.deleteProperty(socket, name)
}

const hookLent = (): void => {
  const { prototype } = net.Socket
  const { ref, unref, address, resetAndDestroy } = prototype
  prototype.ref = function () {
    const lent = lentTo.get(this)
    if (lent !== undefined) hold(lent, true)
    return ref.call(this)
  }
  prototype.unref = function () {
    const lent = lentTo.get(this)
    if (lent !== undefined) hold(lent, false)
    return unref.call(this)
  }
  prototype.address = function () {
    return lentTo.get(this)?.secure.address() ?? address.call(this)
  }
  prototype.resetAndDestroy = function () {
    const lent = lentTo.get(this)
    if (lent === undefined) return resetAndDestroy.call(this)
    lent.secure.resetAndDestroy()
    return this.destroy()
  }
}

/** Ours: so long may what a closed socket had written stand still, as the system has it of orphans. */
const ORPHAN_TIMEOUT = 30_000

/**
 * Gives the program's own socket, which exists already and has its native handle, a way to the secure one: a local
 * socket that takes a single connection.
 */
const relay = (socket: net.Socket, lent: Lent): void => {
  const { secure } = lent
  const path = relayPath()
  let isConnected = false
  const server = net.createServer({ allowHalfOpen: true }, local => {
    server.close()
    addHelper(lent, local)
    // 'close' follows. What the program has written by then goes out, whatever it does next.
    local.on('error', () => {})
    local.on('close', () => secure.destroySoon())
    secure.on('close', () => local.destroySoon())
    local.pipe(secure).pipe(local)
  })
  addHelper(lent, server)
  server.on('error', error => socket.destroy(error))
  socket.once('connect', () => (isConnected = true))
  socket.once('close', () => {
    if (!isConnected) {
      server.close()
      return void secure.destroy()
    }
    hold(lent, true)
    secure.setTimeout(ORPHAN_TIMEOUT, () => secure.destroy())
  })
  original.listen.call(server, { path }, () => {
    if (!socket.destroyed) original.connect.call(socket, { path })
  })
}

const connectProtected = (socket: net.Socket, options: ConnectOptions, verdict: Verdict): void => {
  let secure: SecureSocket
  try {
    secure = secureTowards(options, verdict, true)
  } catch (error) {
    return void process.nextTick(() => socket.destroy(error as Error))
  }
  Object.assign(socket, { connecting: true })
  const lent = lentOf(secure)
  lend(socket, lent)
  passOn(secure, socket, ATTEMPT_EVENTS)
  secure.on('error', error => socket.destroy(error))
  const giveUp = (): void => void secure.destroy()
  socket.once('close', giveUp)
  secure.once('connect', () => {
    socket.removeListener('close', giveUp)
    if (socket.destroyed) giveUp()
    else relay(socket, lent)
  })
}

/** Where no connection can go: the test at the start asks whether the hooks hear of it. */
const PROBE = 'probe.ike-socket.invalid'
let heard = 0

const isRemote = ({ path, port, host }: ConnectOptions): boolean =>
  !path &&
  port !== undefined &&
  port !== null &&
  (host === undefined || host === null || typeof host === 'string')

const decide = (policy: SecurityPolicy, { host, port }: ConnectOptions): Verdict =>
  decideOutbound(policy, host || 'localhost', Number(port))

const hookConnect = (policy: SecurityPolicy): void => {
  const connect = function (this: net.Socket, ...args: unknown[]): net.Socket {
    const { options, listener } = connectArguments(args)
    // Read once: what is decided on is what the guard of TCP compares with.
    const { host, port, path } = options
    const place = { host, port, path }
    passed.delete(this)
    // What is no connection of TCP, and what is no argument, is net's.
    if (!isRemote(place)) return original.connect.apply(this, args)
    if (host === PROBE) {
      heard++
      return this
    }
    const verdict = decide(policy, place)
    takeBack(this)
    if (verdict.action === 'bypass') {
      passed.set(this, (address, at) => {
        const isThere = net.isIP(host ?? '') === 0 || host === address
        const isRuled = verdict.unless.some(rule => hasAddress(rule, address))
        return at === Number(port) && isThere && !isRuled
      })
      if (verdict.unless.length === 0) return original.connect.apply(this, args)
      const all = { ...options, lookup: guarded(options, verdict) }
      return original.connect.call(this, all, listener)
    }
    if (this.destroyed) (this as unknown as { _undestroy(): void })._undestroy()
    if (listener !== undefined) this.once('connect', listener)
    if (verdict.action === 'discard' || this instanceof tls.TLSSocket) {
      const words =
        verdict.action === 'discard'
          ? `A connection to ${options.host || 'localhost'}:${options.port} is discarded`
          : 'A TLSSocket that connects itself cannot be protected: use tls.connect()'
      process.nextTick(() => this.destroy(refusal(words, verdict)))
      return this
    }
    connectProtected(this, options, verdict)
    return this
  }
  net.Socket.prototype.connect = connect
  hookLent()
}

/** TLS goes inside the secure socket: the handle of a TLSSocket of its own would be one of TCP. */
const hookTls = (policy: SecurityPolicy): void => {
  const connect = (...args: unknown[]): tls.TLSSocket => {
    const { options, listener } = tlsArguments(args)
    // The socket below hears of it too.
    if (options.host === PROBE) heard++
    const verdict =
      options.socket === undefined && isRemote(options) && options.host !== PROBE
        ? decide(policy, options)
        : undefined
    if (verdict?.action !== 'protect') {
      const overTls = original.tlsConnect(...args)
      const below = lentTo.get(options.socket as net.Socket)
      if (below !== undefined) lend(overTls, below)
      return overTls
    }
    const socket = secureTowards(options, verdict, false)
    const { path: _path, ...rest } = options
    const overTls = original.tlsConnect({ host: 'localhost', ...rest, socket }, listener)
    lend(overTls, lentOf(socket))
    // Node tells of these where TLS has a handle of TCP.
    passOn(socket, overTls, [...ATTEMPT_EVENTS, 'connect', 'ready'])
    // Of a stream below, Node ends one that is connected.
    overTls.once('close', () => socket.connecting && socket.destroy())
    return overTls
  }
  tls.connect = connect
}

// --- servers ---

const protectedServers = new WeakMap<net.Server, SecureServer>()

const listenArguments = (args: readonly unknown[]): net.ListenOptions | undefined => {
  const [first, second, third] = args
  if (typeof first === 'object' && first !== null) {
    if (!('port' in first) || ('path' in first && first.path)) return undefined
    // Read once: what is decided on is what the guard of TCP compares with.
    const { port, host } = first as net.ListenOptions
    return { ...first, port: port ?? 0, host }
  }
  const given = typeof first === 'function' ? 0 : (first ?? 0)
  if (isPathText(given) || !['number', 'string'].includes(typeof given)) return undefined
  // Whoever gets it next reads text as net does.
  const port = given as number
  const host = typeof second === 'string' ? second : undefined
  const backlog = [second, third].find(value => typeof value === 'number')
  return {
    port,
    ...(host === undefined ? {} : { host }),
    ...(backlog === undefined ? {} : { backlog: Number(backlog) }),
  }
}

/** What net keeps of a server's options. */
const CONNECTION_OPTIONS = [
  'allowHalfOpen',
  'pauseOnConnect',
  'noDelay',
  'keepAlive',
  'keepAliveInitialDelay',
  'highWaterMark',
  'blockList',
]

/** Where Node keeps what a TLSSocket over a stream is over. */
interface OverStream {
  readonly _handle?: { readonly _parentWrap?: { readonly stream?: unknown } } | null
}

/** A TLSSocket of a server knows its peer as the socket below it does. */
const lendBelow = (overTls: tls.TLSSocket): void => {
  const below = (overTls as OverStream)._handle?._parentWrap?.stream
  if (below instanceof SecureSocket) lend(overTls, lentOf(below))
}

const listenProtected = (server: net.Server, where: net.ListenOptions): void => {
  const options = Object.fromEntries(
    CONNECTION_OPTIONS.map(name => [name, Reflect.get(server, name) as unknown]),
  )
  const secure = createSecureServer(lenientOptions('server', configuration(), options), socket => {
    socket.server = server
    server.emit('connection', socket)
  })
  // A program sets it at any time.
  Object.defineProperty(secure, 'maxConnections', { get: () => server.maxConnections })
  if (server instanceof tls.Server) {
    server.removeListener('secureConnection', lendBelow)
    server.prependListener('secureConnection', lendBelow)
  }
  secure.on('listening', () => server.emit('listening'))
  secure.on('drop', facts => server.emit('drop', facts))
  secure.on('close', () => {
    protectedServers.delete(server)
    server.emit('close')
  })
  secure.on('error', error => {
    protectedServers.delete(server)
    server.emit('error', error)
  })
  // It may throw.
  secure.listen(where)
  protectedServers.set(server, secure)
}

/** Undefined: it is of a name, or of all addresses. */
const knownAddress = (host: string | undefined): string | undefined =>
  host !== undefined && net.isIP(host) !== 0 && !isUnspecified(host) ? host : undefined

const hookListen = (policy: SecurityPolicy): void => {
  const listen = function (this: net.Server, ...args: unknown[]): net.Server {
    open.delete(this)
    const where = listenArguments(args)
    if (where === undefined) return original.listen.apply(this, args)
    if (where.host === PROBE) {
      heard++
      return this
    }
    if (protectedServers.has(this)) {
      throw nodeError(
        'ERR_SERVER_ALREADY_LISTEN',
        'Listen method has been called more than once without closing.',
      )
    }
    const host = where.host === 'localhost' ? '127.0.0.1' : where.host
    const verdict = decideInbound(policy, knownAddress(host), Number(where.port))
    const [doubt] = verdict.unless
    if (doubt === undefined && verdict.action === 'bypass') {
      open.set(this, Number(where.port))
      return original.listen.apply(this, args)
    }
    const listener = args.findLast(value => typeof value === 'function')
    if (doubt !== undefined || verdict.action === 'discard') {
      const words =
        doubt === undefined
          ? `Listening on port ${where.port} is discarded`
          : `Listening on ${where.host ?? 'all addresses'}, port ${where.port}: "${doubt.name}" decides otherwise for some of them`
      const error = Object.assign(refusal(words, verdict), { syscall: 'listen' })
      process.nextTick(() => this.emit('error', error))
      return this
    }
    if (listener !== undefined) this.once('listening', listener as () => void)
    listenProtected(this, where)
    return this
  }
  net.Server.prototype.listen = listen
  hookProtected()
}

/** What a server that is protected answers itself. */
const hookProtected = (): void => {
  const { prototype } = net.Server
  for (const name of [
    'close',
    'address',
    'getConnections',
    'ref',
    'unref',
    Symbol.asyncDispose,
  ] as const) {
    const own = Reflect.get(prototype, name) as (...args: unknown[]) => unknown
    const hooked = function (this: net.Server, ...args: unknown[]): unknown {
      const secure = protectedServers.get(this)
      if (secure === undefined) return own.apply(this, args)
      const answer: unknown = (Reflect.get(secure, name) as typeof own).apply(secure, args)
      return answer === secure ? this : answer
    }
    Object.defineProperty(prototype, name, { configurable: true, writable: true, value: hooked })
  }
  const listening = Object.getOwnPropertyDescriptor(prototype, 'listening')?.get
  Object.defineProperty(prototype, 'listening', {
    configurable: true,
    get(this: net.Server): unknown {
      return protectedServers.get(this)?.listening ?? listening?.call(this)
    },
  })
}

// --- all of it ---

/** Tells loudly when a hook did not take: then nothing would be protected. */
const probe = (): void => {
  const calls: Record<string, () => unknown> = {
    'net.connect': () => net.connect({ host: PROBE, port: 1 }),
    'net.createConnection': () => net.createConnection(1, PROBE),
    'net.Socket.connect': () => new net.Socket().connect(1, PROBE),
    'tls.connect': () => tls.connect({ host: PROBE, port: 1 }),
    'net.Server.listen': () => net.createServer().listen(1, PROBE),
  }
  for (const [name, call] of Object.entries(calls)) {
    const wanted = heard + (name === 'tls.connect' ? 2 : 1)
    call()
    if (heard === wanted) continue
    throw noEffect(name)
  }
}

const noEffect = (name: string): Error =>
  nodeError(
    'ERR_IKE_POLICY',
    `IKE_SOCKET_POLICY has no effect on ${name}: another module has replaced it`,
  )

let isInstalled = false

/** From now on `policy` holds in this process and in those that it starts, which import `url` first. */
export const installPolicy = (policy: SecurityPolicy, url: string): void => {
  if (isInstalled) return
  isInstalled = true
  neverAskForWay()
  guard(policy)
  hookConnect(policy)
  hookTls(policy)
  hookListen(policy)
  const unguarded = hookChildren(url)
  if (unguarded !== undefined) throw noEffect(unguarded)
  syncBuiltinESMExports()
  probe()
}
