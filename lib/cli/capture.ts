/** `ike-socket capture`: runs a program and records its datagrams, with the keys, for Wireshark. */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { constants } from 'node:os'
import { resolve } from 'node:path'
import { columns, type Command } from './command.ts'
import { UsageError } from './usage.ts'

const run = (args: readonly string[]): Promise<number> => {
  const [file, dashes, program, ...more] = args
  if (file === undefined || file.startsWith('-') || dashes !== '--' || program === undefined)
    throw new UsageError('capture wants FILE -- PROGRAM ARGUMENTS')
  const path = resolve(file)
  for (const taken of [path, `${path}.keys`]) {
    if (existsSync(taken))
      throw new Error(`${taken} is there already, and stays: give another FILE`)
  }
  process.stderr.write(
    `THE KEYS OF ALL SAs OF ${program} ARE WRITTEN to ${path}.keys, and its datagrams to ${path}: anyone who has both can read everything.\n`,
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
        process.stderr.write(`Open it: XDG_CONFIG_HOME='${path}.keys' wireshark '${path}'\n`)
      else process.stderr.write('The program has opened no UDP socket: nothing was captured.\n')
      done(code ?? 128 + (signal === null ? 0 : constants.signals[signal]))
    })
  })
}

export const captureCommand: Command = {
  name: 'capture',
  summary: 'runs a program and records its datagrams, and the keys, for Wireshark',
  options: {},
  help: `Usage: ike-socket capture FILE -- PROGRAM ARGUMENTS

Runs a program that uses ike-socket, and writes every datagram of its IKE and ESP to FILE as pcapng, and THE KEYS OF ALL
SAs to the folder FILE.keys, both for the owner alone: anyone who has both can read everything. No privilege is needed. Addresses
and ports are as the program knows them, with headers that are made up. A file ends at 256 MiB. A second process or thread
of the program writes FILE.PID-THREAD. Wireshark's tables have no ChaCha20-Poly1305.

Options:
${columns([['--help', 'this text']])}
Examples:
  ike-socket capture app.pcapng -- node app.mjs
  XDG_CONFIG_HOME=$PWD/app.pcapng.keys tshark -r app.pcapng

Exit code: that of the program; 128 and the number of a signal that ended it; 1: it could not be run, or FILE is there;
2: the command line was not understood.
`,
  run,
}
