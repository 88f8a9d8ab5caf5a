#!/usr/bin/env node
/** The command `ike-socket`. Exit code 0: done; 1: it could not be done; 2: it was not understood. */
import { readFileSync } from 'node:fs'
import { columns } from './command.ts'
import { COMMANDS } from './commands.ts'
import { json } from './terminal.ts'
import { UsageError } from './usage.ts'

const HELP = `Usage: ike-socket <command> [options]

Commands:
${columns(COMMANDS.map(({ name, summary }) => [name, summary]))}
ike-socket <command> --help tells more and has examples; --version prints the version.

Examples:
  ike-socket keygen ike-keys --server orders.internal --client billing.internal
  ike-socket ping orders.internal --config ike.json
  ike-socket status /run/app.sock --watch
`

const version = (): string => {
  const file = new URL('../../package.json', import.meta.url)
  return String((JSON.parse(readFileSync(file, 'utf8')) as { version: unknown }).version)
}

/** What stands behind "--" is for another program. */
const ownArguments = (args: readonly string[]): readonly string[] =>
  args.includes('--') ? args.slice(0, args.indexOf('--')) : args

/** The exit code. */
const run = async ([name, ...rest]: readonly string[]): Promise<number> => {
  switch (name) {
    case '--help':
    case '-h':
    case 'help':
      process.stdout.write(HELP)
      return 0
    case '--version':
    case '-v':
      process.stdout.write(`${version()}\n`)
      return 0
    case undefined:
      throw new UsageError('a command is missing')
  }
  const command = COMMANDS.find(other => other.name === name)
  if (command === undefined) throw new UsageError(`there is no command ${name}`)
  const own = ownArguments(rest)
  if (own.includes('--help') || own.includes('-h')) {
    process.stdout.write(command.help)
    return 0
  }
  try {
    return (await command.run(rest)) ?? 0
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    throw new UsageError(`${error.message}\nTry: ike-socket ${name} --help`)
  }
}

// A reader that has seen enough, such as head, is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  process.exit(0)
})

try {
  process.exitCode = await run(process.argv.slice(2))
} catch (error) {
  const isUsage = error instanceof UsageError
  const words = error instanceof Error ? error.message : String(error)
  const hint = isUsage && !words.includes('\nTry: ') ? '\nTry: ike-socket --help' : ''
  const isJson = ownArguments(process.argv).includes('--json')
  process.stderr.write(
    isJson ? `${json({ error: `${words}${hint}` })}\n` : `ike-socket: ${words}${hint}\n`,
  )
  process.exitCode = isUsage ? 2 : 1
}
