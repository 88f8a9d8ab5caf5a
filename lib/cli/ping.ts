/** `ike-socket ping`: opens an IKE SA as a client does, and measures the round trips of requests inside it. */
import { setTimeout as sleep } from 'node:timers/promises'
import { columns, JSON_OPTION, type Command } from './command.ts'
import { summaryOf } from './round-trips.ts'
import { openSession, readTarget, TARGET_OPTIONS, TARGET_HELP } from './target.ts'
import { json, painter, plain } from './terminal.ts'
import { parseArguments, UsageError } from './usage.ts'

const OPTIONS = {
  ...TARGET_OPTIONS,
  count: { type: 'string', short: 'c' },
  interval: { type: 'string', short: 'i' },
  ...JSON_OPTION,
} as const

const readNumber = (name: string, text: string, least: number, most: number): number => {
  const value = Number(text)
  if (text !== '' && value >= least && value <= most) return value
  throw new UsageError(`--${name} ${text}: ${least} to ${most}`)
}

const run = async (args: readonly string[]): Promise<number> => {
  const { values, positionals } = parseArguments(args, OPTIONS)
  const count = Math.trunc(readNumber('count', values.count ?? '4', 1, 1_000_000))
  const interval = readNumber('interval', values.interval ?? '1', 0, 3600) * 1000
  const { options } = readTarget('ping', positionals, values.config)
  const isJson = values.json === true
  const paint = painter(process.stdout)
  const print = (facts: object, line: string): void =>
    void process.stdout.write(`${isJson ? json(facts) : line}\n`)
  const { session, close } = await openSession(options)
  const who = plain(session.peerId)
  const where = `${session.gatewayAddress} port ${session.gatewayPort}`
  const times: number[] = []
  const before = session.info.ikeRetransmissions
  try {
    for (let probe = 1; probe <= count; probe++) {
      if (probe > 1) await sleep(interval)
      const took = await session.ping()
      times.push(took)
      print(
        { probe, peer: session.peerId, address: session.gatewayAddress, milliseconds: took },
        `${paint('bold', who)} at ${where}: probe ${probe}, ${took.toFixed(2)} ms`,
      )
    }
  } finally {
    const lost = session.info.ikeRetransmissions - before
    const summary = summaryOf(times)
    if (times.length > 0)
      print(
        { probes: times.length, sentAgain: lost, ...summary },
        `${times.length} answered, ${lost} sent again; min ${summary.min.toFixed(2)}, median ${summary.median.toFixed(2)}, max ${summary.max.toFixed(2)} ms`,
      )
    close()
  }
  return 0
}

export const pingCommand: Command = {
  name: 'ping',
  summary: 'round trips of IKE inside an SA with a host',
  options: OPTIONS,
  help: `Usage: ike-socket ping HOST [PORT] [options]

Opens an IKE SA with HOST and asks the peer, by empty requests inside it, whether it is there (RFC 7296 section 2.4).
A probe that is lost is sent again; so many were. PORT is a service inside the tunnel (9); nothing is sent to it but the
beginning of a connection, which need not succeed.

Options:
${columns([
  ...TARGET_HELP,
  ['--count N, -c N', 'probes (4)'],
  ['--interval SECONDS, -i', 'between two probes (1)'],
  ['--json', 'lines of JSON'],
  ['--help', 'this text'],
])}
Examples:
  ike-socket ping orders.internal --config ike.json
  ike-socket ping 192.0.2.1 -c 100 -i 0.1 --config ike.json --json

Exit code 0: answered; 1: no SA, or no answer; 2: the command line was not understood.
`,
  run,
}
