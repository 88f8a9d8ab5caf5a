/** `ike-socket status`: the sessions of a running process, over its control socket. */
import { askControl } from './control-client.ts'
import { columns, JSON_OPTION, type Command } from './command.ts'
import { duration, json, octets, painter, plain, Screen, short, type Paint } from './terminal.ts'
import { parseArguments, UsageError } from './usage.ts'
import { serveStatus, withMemory } from './web.ts'

const OPTIONS = {
  watch: { type: 'boolean', short: 'w' },
  ...JSON_OPTION,
  interval: { type: 'string' },
  web: { type: 'boolean' },
  port: { type: 'string' },
} as const

/** What `status` reads of a session; all of it is `session.info`. */
export interface ShownSession {
  readonly state: string
  readonly remoteIdentity: string
  readonly ikeSuite: string
  readonly path: { readonly remoteAddress: string; readonly remotePort: number }
  readonly createdAt: number
  readonly lastHeardAt: number
  readonly rekeyAt?: number
  readonly roundTrip?: number
  readonly ikeRetransmissions: number
  readonly replayed: number
  readonly failedIcvs: number
  readonly octetsIn: number
  readonly octetsOut: number
  readonly sockets: number
  readonly mtu: number
  readonly localBehindNat: boolean
}

/** The answer to the command "status". */
export interface StatusReport {
  readonly pid: number
  readonly at: number
  readonly endpoints: readonly {
    readonly udp?: { readonly address: string; readonly port: number }
    readonly counters: {
      readonly datagramsIn: number
      readonly datagramsOut: number
      readonly drops: Readonly<Record<string, number>>
    }
    readonly sessions: readonly ShownSession[]
  }[]
}

/** Octets a second, by session. */
export type Rates = ReadonlyMap<string, { readonly in: number; readonly out: number }>

/** SPIs change with each rekey; these stay. */
const keyOf = ({ createdAt, path, remoteIdentity }: ShownSession, endpoint: number): string =>
  `${endpoint} ${createdAt} ${path.remoteAddress} ${path.remotePort} ${remoteIdentity}`

/** What each session has carried between two answers. */
export const ratesBetween = (before: StatusReport, now: StatusReport): Rates => {
  const seconds = Math.max(0.001, (now.at - before.at) / 1000)
  const known = new Map(
    before.endpoints.flatMap(({ sessions }, at) =>
      sessions.map(session => [keyOf(session, at), session] as const),
    ),
  )
  return new Map(
    now.endpoints.flatMap(({ sessions }, at) =>
      sessions.flatMap(session => {
        const key = keyOf(session, at)
        const old = known.get(key)
        if (old === undefined) return []
        const rate = {
          in: Math.max(0, session.octetsIn - old.octetsIn) / seconds,
          out: Math.max(0, session.octetsOut - old.octetsOut) / seconds,
        }
        return [[key, rate] as const]
      }),
    ),
  )
}

const sessionLines = (
  session: ShownSession,
  rate: { in: number; out: number } | undefined,
  at: number,
  paint: Paint,
): readonly string[] => {
  const { path, rekeyAt, roundTrip } = session
  const isUp = session.state === 'established'
  const rates = (value: number | undefined): string =>
    value === undefined ? '' : ` (${octets(value)}/s)`
  const where = `${plain(path.remoteAddress)} port ${plain(path.remotePort)}`
  const troubles = [
    [session.ikeRetransmissions, 'requests sent again'],
    [session.replayed, 'replayed'],
    [session.failedIcvs, 'failed ICVs'],
  ] as const
  const shown = troubles.filter(([count]) => count > 0).map(([count, name]) => `${count} ${name}`)
  return [
    `  ${paint('bold', plain(session.remoteIdentity))} at ${where}: ${paint(isUp ? 'green' : 'yellow', plain(session.state))}, ` +
      `up ${duration(at - session.createdAt)}, heard ${duration(at - session.lastHeardAt)} ago`,
    `    in ${octets(session.octetsIn)}${rates(rate?.in)}, out ${octets(session.octetsOut)}${rates(rate?.out)}, ` +
      `${plain(session.sockets)} ${session.sockets === 1 ? 'socket' : 'sockets'}`,
    `    ${[
      ...(roundTrip === undefined ? [] : [`RTT ${roundTrip.toFixed(1)} ms`]),
      `MTU ${plain(session.mtu)}`,
      plain(session.ikeSuite),
      ...(rekeyAt === undefined ? [] : [`new keys in ${duration(rekeyAt - at)}`]),
      // Of the peer we cannot know: its hash does not match on purpose, so that we encapsulate.
      ...(session.localBehindNat ? ['behind a NAT'] : []),
    ].join(', ')}`,
    ...(shown.length === 0 ? [] : [`    ${paint('yellow', shown.join(', '))}`]),
  ]
}

/** The lines that are printed of an answer. */
export const statusLines = (shown: StatusReport, rates: Rates, paint: Paint): readonly string[] => {
  const count = shown.endpoints.reduce((sum, { sessions }) => sum + sessions.length, 0)
  const head = `process ${plain(shown.pid)}: ${count} ${count === 1 ? 'session' : 'sessions'}`
  return [
    head,
    ...shown.endpoints.flatMap(({ udp, counters, sessions }, at) => {
      const drops = Object.entries(counters.drops)
        .filter(([, dropped]) => dropped > 0)
        .map(([reason, dropped]) => `${plain(reason)} ${dropped}`)
      const name =
        udp === undefined ? 'no UDP port' : `UDP ${plain(udp.address)} port ${plain(udp.port)}`
      return [
        `${name}: datagrams in ${short(counters.datagramsIn)}, out ${short(counters.datagramsOut)}` +
          (drops.length === 0 ? '' : `, ${paint('yellow', `dropped: ${drops.join(', ')}`)}`),
        ...sessions.flatMap(session =>
          sessionLines(session, rates.get(keyOf(session, at)), shown.at, paint),
        ),
      ]
    }),
  ]
}

/** The path of the control socket, as it was given or as the environment has it. */
export const controlPath = (command: string, positionals: readonly string[]): string => {
  const { IKE_SOCKET_CONTROL } = process.env
  const path = positionals[0] ?? IKE_SOCKET_CONTROL ?? ''
  if (positionals.length > 1 || path === '')
    throw new UsageError(`${command} wants the path of a control socket, or IKE_SOCKET_CONTROL`)
  return path
}

/** Seconds between two looks. */
export const readInterval = (text: string | undefined): number => {
  const seconds = Number(text ?? 1)
  if (seconds >= 0.1 && seconds <= 3600) return seconds * 1000
  throw new UsageError(`--interval ${text}: 0.1 to 3600 seconds`)
}

const readPort = (text: string | undefined): number => {
  const port = Number(text ?? 0)
  if (Number.isInteger(port) && port >= 0 && port <= 65535) return port
  throw new UsageError(`${text} is no port`)
}

const sleep = (millis: number): Promise<void> => new Promise(resolve => setTimeout(resolve, millis))

export const look = async (path: string): Promise<StatusReport> =>
  (await askControl(path, 'status')) as unknown as StatusReport

const withRates = (shown: StatusReport, rates: Rates): object => ({
  ...shown,
  endpoints: shown.endpoints.map((endpoint, at) => ({
    ...endpoint,
    sessions: endpoint.sessions.map(session => ({
      ...session,
      octetsInPerSecond: Math.round(rates.get(keyOf(session, at))?.in ?? 0),
      octetsOutPerSecond: Math.round(rates.get(keyOf(session, at))?.out ?? 0),
    })),
  })),
})

const run = async (args: readonly string[]): Promise<void> => {
  const { values, positionals } = parseArguments(args, OPTIONS)
  const path = controlPath('status', positionals)
  const interval = readInterval(values.interval)
  const { stdout } = process
  const paint = painter(stdout)
  let before = await look(path)
  if (values.port !== undefined && values.web !== true) throw new UsageError('--port is of --web')
  if (values.web === true) {
    const ask = withMemory(
      () => look(path),
      (old, now) => withRates(now, ratesBetween(old, now)),
    )
    const { url } = await serveStatus(ask, readPort(values.port))
    return void stdout.write(values.json === true ? `${JSON.stringify({ url })}\n` : `${url}\n`)
  }
  // In place on a terminal; a file gets one look after the other.
  const isInPlace = values.watch === true && values.json !== true && stdout.isTTY
  const screen = isInPlace ? new Screen(stdout, () => process.exit(0)) : undefined
  try {
    do {
      await sleep(interval)
      const now = await look(path)
      const rates = ratesBetween(before, now)
      const lines =
        values.json === true ? [json(withRates(now, rates))] : statusLines(now, rates, paint)
      if (screen === undefined) stdout.write(`${lines.join('\n')}\n`)
      else screen.show(lines)
      before = now
    } while (values.watch === true)
  } finally {
    screen?.close()
  }
}

export const statusCommand: Command = {
  name: 'status',
  summary: 'the sessions of a running process, with ages, rates and drops',
  options: OPTIONS,
  help: `Usage: ike-socket status [SOCKET] [options]

Shows the sessions of a process that was started with IKE_SOCKET_CONTROL=SOCKET, or with the option "control".
SOCKET is a path; default: what IKE_SOCKET_CONTROL names. Rates are those of the last interval.

Options:
${columns([
  ['--watch, -w', 'look again after each interval, in place on a terminal, until interrupted'],
  ['--interval SECONDS', 'between two looks, 0.1 to 3600 (1)'],
  ['--json', 'one line of JSON for each look'],
  [
    '--web',
    'prints the address of a page on the loopback that shows the same, live, until interrupted;',
  ],
  ['', 'anyone who has the address can read it; nothing can be changed through it'],
  ['--port N', 'of that page (any that is free)'],
  ['--help', 'this text'],
])}
Examples:
  IKE_SOCKET_CONTROL=/run/app.sock node app.js
  ike-socket status /run/app.sock
  ike-socket status /run/app.sock --watch
  ike-socket status /run/app.sock --web
  ike-socket status /run/app.sock --json | jq '.endpoints[].sessions[].remoteIdentity'

Exit code 0: shown; 1: the process cannot be asked; 2: the command line was not understood.
`,
  run,
}
