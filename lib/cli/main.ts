#!/usr/bin/env node
/** The command `ike-socket`. Exit code 0: done; 1: it could not be done; 2: it was not understood. */
import { readFileSync } from 'node:fs'
import { keygen, KEYGEN_HELP } from './keygen.ts'
import { sidecar } from './sidecar.ts'
import { UsageError } from './usage.ts'

const HELP = `Usage: ike-socket <command> [options]

Commands:
  keygen [folder]   make a certificate authority, certificates and a pre-shared key
  connect, listen   one connection inside ESP, with standard input and output
  forward, socks    ways between TCP here and services inside ESP

ike-socket <command> --help tells more; --version prints the version.
`

const version = (): string => {
  const file = new URL('../../package.json', import.meta.url)
  return String((JSON.parse(readFileSync(file, 'utf8')) as { version: unknown }).version)
}

/** What is to be printed. */
const run = async (args: readonly string[]): Promise<string> => {
  const [command, ...rest] = args
  switch (command) {
    case 'keygen':
      return rest.includes('--help') || rest.includes('-h') ? KEYGEN_HELP : keygen(rest, Date.now())
    case 'connect':
    case 'listen':
    case 'forward':
    case 'socks':
      await sidecar(command, rest)
      return ''
    case '--help':
    case '-h':
    case 'help':
      return HELP
    case '--version':
    case '-v':
      return `${version()}\n`
    case undefined:
      throw new UsageError('a command is missing')
    default:
      throw new UsageError(`there is no command ${command}`)
  }
}

try {
  process.stdout.write(await run(process.argv.slice(2)))
} catch (error) {
  const isUsage = error instanceof UsageError
  const hint = isUsage ? '\nTry: ike-socket --help' : ''
  process.stderr.write(`ike-socket: ${error instanceof Error ? error.message : error}${hint}\n`)
  process.exitCode = isUsage ? 2 : 1
}
