/** `ike-socket capture`: runs a program and records its datagrams, with the keys, for Wireshark. */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { constants } from 'node:os'
import { resolve } from 'node:path'
import { columns, JSON_OPTION, type Command } from './command.ts'
import { json } from './terminal.ts'
import { parseArguments, UsageError } from './usage.ts'

const run = (args: readonly string[]): Promise<number> => {
  const dashes = args.indexOf('--')
  const { values, positionals } = parseArguments(args.slice(0, Math.max(0, dashes)), JSON_OPTION)
  const [file, ...others] = positionals
  const [program, ...more] = args.slice(dashes + 1)
  if (dashes < 0 || file === undefined || others.length > 0 || program === undefined)
    throw new UsageError('capture wants FILE -- PROGRAM ARGUMENTS')
  // Standard output is the program's.
  const say = (facts: Readonly<Record<string, unknown>>, words: string): void =>
    void process.stderr.write(`${values.json === true ? json(facts) : words}\n`)
  const path = resolve(file)
  for (const taken of [path, `${path}.keys`]) {
    if (existsSync(taken))
      throw new Error(`${taken} is there already, and stays: give another FILE`)
  }
  const keys = `${path}.keys`
  say(
    { event: 'capturing', program, file: path, keys },
    `THE KEYS OF ALL SAs OF ${program} ARE WRITTEN to ${keys}, and its datagrams to ${path}: anyone who has both can read everything.`,
  )
  const child = spawn(program, more, {
    stdio: 'inherit',
    env: { ...process.env, IKE_SOCKET_CAPTURE: path },
  })
  // The program decides when it ends; a terminal sends these to both.
  const pass = (signal: NodeJS.Signals): void => void child.kill(signal)
  const ignore = (): void => {}
  process.on('SIGTERM', pass)
  process.on('SIGHUP', pass)
  process.on('SIGINT', ignore)
  return new Promise((done, fail) => {
    child.once('error', fail)
    child.once('close', (code, signal) => {
      if (existsSync(path))
        say(
          { event: 'captured', file: path, keys },
          `Open it: XDG_CONFIG_HOME='${keys}' wireshark '${path}'`,
        )
      else say({ event: 'nothing' }, 'The program has opened no UDP socket: nothing was captured.')
      done(code ?? 128 + (signal === null ? 0 : constants.signals[signal]))
    })
  })
}

export const captureCommand: Command = {
  name: 'capture',
  summary: 'runs a program and records its datagrams, and the keys, for Wireshark',
  options: JSON_OPTION,
  help: `Usage: ike-socket capture FILE [options] -- PROGRAM ARGUMENTS

Runs a program that uses ike-socket, and writes every datagram of its IKE and ESP to FILE as pcapng, and THE KEYS OF ALL
SAs to the folder FILE.keys, both for the owner alone: anyone who has both can read everything. No privilege is needed. Addresses
and ports are as the program knows them, with headers that are made up. A file ends at 256 MiB. A second process or thread
of the program writes FILE.PID-THREAD. Wireshark's tables have no ChaCha20-Poly1305.

Options:
${columns([
  ['--json', 'its own lines, on standard error, are JSON'],
  ['--help', 'this text'],
])}
Examples:
  ike-socket capture app.pcapng -- node app.mjs
  XDG_CONFIG_HOME=$PWD/app.pcapng.keys tshark -r app.pcapng

Exit code: that of the program; 128 and the number of a signal that ended it; 1: it could not be run, or FILE is there;
2: the command line was not understood.
`,
  run,
}
