/**
 * `ike-socket connect`, `listen`, `forward` and `socks`: for programs that are not in Node, in the manner of netcat and
 * ssh. One side of each connection is plain TCP or the standard streams, the other one is inside ESP.
 */
import net from 'node:net'
import { constants } from 'node:os'
import { printable } from '../base/errors.ts'
import { configuration, configure } from '../api/configuration.ts'
import {
  lenientOptions,
  parseConnect,
  type SecureServerOptions,
  type SecureSocketOptions,
} from '../api/options.ts'
import { createSecureServer, type SecureServer } from '../api/secure-server.ts'
import { createSecureSocket, type SecureSocket } from '../api/secure-socket.ts'
import { columns, JSON_OPTION, type Command } from './command.ts'
import { requireConfiguration, type ConfigurationFile } from './configuration-file.ts'
import { join, tellProgress, type Log } from './join.ts'
import { serveSocks } from './socks.ts'
import { parseArguments, UsageError } from './usage.ts'

interface Place {
  readonly host: string
  readonly port: number
}

interface Route {
  readonly from: Place
  readonly to: Place
}

const LOOPBACK = '127.0.0.1'

/** Splits at colons that are not in brackets. */
const splitAtColons = (text: string): string[] =>
  (text.match(/\[[^\]]*\]|[^:[\]]+/g) ?? []).map(part => part.replace(/^\[(.*)\]$/, '$1'))

const portOf = (text: string | undefined, least: number): number => {
  const port = /^\d{1,5}$/.test(text ?? '') ? Number(text) : -1
  if (port >= least && port <= 65535) return port
  throw new UsageError(`${printable(text ?? '')} is no port`)
}

const parsePlace = (text: string): Place => {
  const parts = splitAtColons(text)
  if (parts.length === 0 || parts.length > 2)
    throw new UsageError(`${printable(text)} is not [HOST:]PORT`)
  return { host: parts.length === 2 ? parts[0]! : LOOPBACK, port: portOf(parts.at(-1), 0) }
}

const parseRoute = (text: string): Route => {
  const parts = splitAtColons(text)
  if (parts.length !== 3 && parts.length !== 4) {
    throw new UsageError(`${printable(text)} is not [BIND:]PORT:HOST:PORT`)
  }
  const [host, port] = parts.slice(-2) as [string, string]
  return {
    from: { host: parts.length === 4 ? parts[0]! : LOOPBACK, port: portOf(parts.at(-3), 0) },
    to: { host, port: portOf(port, 1) },
  }
}

const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || (net.isIPv4(host) && host.startsWith('127.'))

const refuseRemote = (host: string, isAllowed: boolean, what: string): void => {
  if (isAllowed || isLoopback(host)) return
  throw new UsageError(
    `${what} ${printable(host)} is not of the loopback: --allow-remote permits it`,
  )
}

const logger = (isJson: boolean): Log => {
  return (event, facts) => {
    const text = Object.entries(facts).map(
      ([name, value]) => ` ${name}=${printable(String(value))}`,
    )
    const line = isJson
      ? JSON.stringify({ event, ...facts })
      : `ike-socket: ${event}${text.join('')}`
    process.stderr.write(`${line}\n`)
  }
}

/** Connections inside ESP, each way. */
interface Inside {
  dial(to: Place): SecureSocket
  serve(onConnection: (socket: SecureSocket) => void): SecureServer
}

/** `interval`: as of `tellProgress`. */
const insideEsp = (log: Log, interval: number): Inside => ({
  dial: to =>
    tellProgress(
      createSecureSocket(
        lenientOptions<SecureSocketOptions>('client', configuration(), {
          ...to,
          allowHalfOpen: true,
        }),
      ),
      log,
      { to: to.host, port: to.port },
      interval,
    ),
  serve: onConnection =>
    createSecureServer(
      lenientOptions<SecureServerOptions>('server', configuration(), { allowHalfOpen: true }),
      socket => onConnection(tellProgress(socket, log, { peer: socket.peerId ?? '' }, interval)),
    ),
})

const listening = (server: net.Server | SecureServer, where: Place): Promise<net.AddressInfo> =>
  new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ ...where }, () => {
      server.removeListener('error', reject)
      resolve(server.address() as net.AddressInfo)
    })
  })

/** The standard streams and one connection, until both have ended. */
const talk = (socket: SecureSocket): Promise<void> =>
  new Promise<void>((resolve, reject) => {
    socket.on('error', reject)
    socket.on('close', () => resolve())
    process.stdin.pipe(socket)
    socket.pipe(process.stdout)
  })
    // It would hold the process, with a terminal until somebody types.
    .finally(() => process.stdin.destroy())

const connect = async (
  [host, port, ...more]: readonly string[],
  { dial }: Inside,
): Promise<void> => {
  if (host === undefined || port === undefined || more.length > 0)
    throw new UsageError('connect wants HOST and PORT')
  await talk(dial({ host, port: portOf(port, 1) }))
}

const listen = async (
  args: readonly string[],
  isAllowed: boolean,
  { serve }: Inside,
  log: Log,
): Promise<void> => {
  const [first, second, ...more] = args
  if (first === undefined || more.length > 0) throw new UsageError('listen wants [HOST] PORT')
  const where =
    second === undefined ? { host: LOOPBACK, port: first } : { host: first, port: second }
  refuseRemote(where.host, isAllowed, 'the address')
  let arrived: (socket: SecureSocket) => void = () => {}
  const came = new Promise<SecureSocket>(resolve => (arrived = resolve))
  const server = serve(socket => arrived(socket))
  const { port } = await listening(server, { host: where.host, port: portOf(where.port, 0) })
  log('listening', { address: where.host, port, udp: server.ikePort ?? 0 })
  const socket = await came
  server.close()
  await talk(socket)
}

/** Opens all of them, or none. */
const forward = async (
  routes: { out: readonly Route[]; in: readonly Route[] },
  { dial, serve }: Inside,
  log: Log,
): Promise<SecureServer[]> => {
  const plain: net.Server[] = []
  const secure: SecureServer[] = []
  try {
    for (const { from, to } of routes.out) {
      const server = net.createServer({ allowHalfOpen: true, noDelay: true }, socket =>
        join(socket, () => dial(to), log, { to: to.host, port: to.port }),
      )
      const { address, port } = await listening(server, from)
      plain.push(server)
      log('listening', { address, port, to: `${to.host}:${to.port}` })
    }
    for (const { from, to } of routes.in) {
      const server = serve(socket => {
        log('connection', { peer: socket.peerId ?? '', to: `${to.host}:${to.port}` })
        join(socket, () => net.connect({ ...to, allowHalfOpen: true, noDelay: true }), log, {
          to: to.host,
          port: to.port,
        })
      })
      const { address, port } = await listening(server, from)
      secure.push(server)
      log('listening', { address, port, udp: server.ikePort ?? 0, to: `${to.host}:${to.port}` })
    }
  } catch (error) {
    for (const server of [...plain, ...secure]) server.close()
    throw error
  }
  return secure
}

/** What a server keeps as long as it runs. */
const FIXED = ['ikePort', 'reusePort'] as const

/** New connections, and new SAs of servers, are made with what the file holds now; a faulty one changes nothing. */
const reload = (file: ConfigurationFile, servers: readonly SecureServer[]): void => {
  const before = configuration()
  file.load()
  try {
    const fresh = configuration()
    parseConnect(lenientOptions<SecureSocketOptions>('client', fresh, { port: 1 }), false)
    if (servers.length === 0) return
    for (const name of FIXED) {
      if (fresh[name] !== before[name])
        throw new Error(`"${name}" cannot change while the command runs: restart it`)
    }
    const { ikePort: _port, reusePort: _reuse, ...rest } = fresh
    const given = lenientOptions<SecureServerOptions>('server', rest, {})
    for (const server of servers) server.setCredentials(given)
  } catch (error) {
    configure(before)
    throw error
  }
}

const reloadAtHangup = (
  file: ConfigurationFile,
  servers: readonly SecureServer[],
  log: Log,
): void => {
  process.on('SIGHUP', () => {
    try {
      reload(file, servers)
      log('reloaded', { file: file.path })
    } catch (error) {
      log('notReloaded', { error: error instanceof Error ? error.message : String(error) })
    }
  })
}

const OPTIONS = {
  config: { type: 'string', completes: 'files' },
  'allow-remote': { type: 'boolean' },
  permit: { type: 'string', multiple: true },
  ...JSON_OPTION,
  progress: { type: 'string' },
  local: { type: 'string', short: 'L', multiple: true },
  remote: { type: 'string', short: 'R', multiple: true },
} as const

const DEFAULT_PROGRESS = '10'

/** Milliseconds. */
const intervalOf = (text: string): number => {
  if (/^\d{1,5}$/.test(text)) return Number(text) * 1000
  throw new UsageError(`--progress ${printable(text)} is no number of seconds from 0 to 99999`)
}

/** The peers' SAs go too: a signal by itself would leave them. */
const endAtSignals = (): void => {
  for (const name of ['SIGINT', 'SIGTERM'] as const)
    process.once(name, () => process.exit(128 + constants.signals[name]))
}

/** Runs one of the commands; it goes on while anything is open. */
const sidecar = async (command: string, args: readonly string[]): Promise<void> => {
  const { values, positionals } = parseArguments(args, OPTIONS)
  const log = logger(values.json === true)
  const isAllowed = values['allow-remote'] === true
  const file = requireConfiguration(values.config)
  const inside = insideEsp(log, intervalOf(values.progress ?? DEFAULT_PROGRESS))
  file.load()
  endAtSignals()
  if (command === 'connect') return connect(positionals, inside)
  if (command === 'listen') return listen(positionals, isAllowed, inside, log)
  if (command === 'socks') {
    const [place, ...more] = positionals
    if (place === undefined || more.length > 0) throw new UsageError('socks wants [BIND:]PORT')
    const where = parsePlace(place)
    refuseRemote(where.host, isAllowed, 'the address')
    const server = serveSocks(inside.dial, values.permit, log)
    const { address, port } = await listening(server, where)
    log('listening', { address, port })
    return reloadAtHangup(file, [], log)
  }
  const out = (values.local ?? []).map(parseRoute)
  const inward = (values.remote ?? []).map(parseRoute)
  if (positionals.length > 0 || out.length + inward.length === 0)
    throw new UsageError('forward wants -L or -R')
  for (const { from } of out) refuseRemote(from.host, isAllowed, 'the address')
  for (const { to } of inward) refuseRemote(to.host, isAllowed, 'the target')
  reloadAtHangup(file, await forward({ out, in: inward }, inside, log), log)
}

const CONFIG = [
  '--config FILE',
  'credentials, as JSON with the options of ike-socket (IKE_SOCKET_CONFIG)',
]
const RELOAD = ['', 'it is read again at SIGHUP, for new connections']
const REMOTE = [
  '--allow-remote',
  'also bind, and forward to, addresses that are not of the loopback',
]
const PROGRESS = [
  '--progress SECONDS',
  'log how far each connection has come, every so often while octets move; 0: never (10)',
]
const JSON_LINES = ['--json', 'log lines, on standard error, are JSON']

const command = (
  name: string,
  summary: string,
  usage: string,
  names: readonly (keyof typeof OPTIONS)[],
  rows: readonly (readonly string[])[],
  examples: readonly string[],
): Command => ({
  name,
  summary,
  options: Object.fromEntries(names.map(option => [option, OPTIONS[option]])),
  help: `Usage: ike-socket ${usage}

Options:
${columns([...rows, ['--help', 'this text']] as [string, string][])}
IPv6 addresses stand in brackets.

Examples:
${examples.map(line => `  ${line}\n`).join('')}
Exit code 0: done; 1: it could not be done; 2: the command line was not understood;
130, 143: ended by SIGINT or SIGTERM, after the SAs were deleted.
`,
  run: args => sidecar(name, args),
})

export const sidecarCommands: readonly Command[] = [
  command(
    'connect',
    'standard input and output over one connection inside ESP',
    'connect HOST PORT [options]',
    ['config', 'progress', 'json'],
    [CONFIG, PROGRESS, JSON_LINES],
    ['ike-socket connect orders.internal 8080 --config ike.json'],
  ),
  command(
    'listen',
    'the same, for the first connection that comes',
    'listen [HOST] PORT [options]',
    ['config', 'allow-remote', 'progress', 'json'],
    [CONFIG, REMOTE, PROGRESS, JSON_LINES],
    ['ike-socket listen 8080 --config ike.json', 'ike-socket listen :: 8080 --allow-remote'],
  ),
  command(
    'forward',
    'from TCP here to services inside ESP, and back',
    'forward [-L [BIND:]PORT:HOST:PORT]… [-R PORT:HOST:PORT]… [options]',
    ['local', 'remote', 'config', 'allow-remote', 'progress', 'json'],
    [
      ['-L [BIND:]PORT:HOST:PORT', 'from TCP here to a service inside ESP; may be repeated'],
      ['-R PORT:HOST:PORT', 'from a service inside ESP here to TCP; may be repeated'],
      CONFIG,
      RELOAD,
      REMOTE,
      PROGRESS,
      JSON_LINES,
    ],
    [
      'ike-socket forward -L 5432:db.internal:5432 --config ike.json',
      'ike-socket forward -R 8080:127.0.0.1:80 --config ike.json',
    ],
  ),
  command(
    'socks',
    'a SOCKS 5 proxy whose connections go inside ESP',
    'socks [BIND:]PORT [options]',
    ['permit', 'config', 'allow-remote', 'progress', 'json'],
    [
      ['--permit HOST', 'hosts that may be asked for, others are refused; may be repeated'],
      CONFIG,
      RELOAD,
      REMOTE,
      PROGRESS,
      JSON_LINES,
    ],
    ['ike-socket socks 1080 --permit orders.internal --config ike.json'],
  ),
]
