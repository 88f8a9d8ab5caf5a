/** What a command of `ike-socket` is: help, completions and the command line itself are read from this. */
import type { ParseArgsConfig } from 'node:util'

/** An option, and what completes its value: files, or a few words; nothing does when the user must know it. */
export type CommandOption = NonNullable<ParseArgsConfig['options']>[string] & {
  readonly completes?: 'files' | readonly string[]
}

export interface Command {
  readonly name: string
  /** One line, for the list of commands. */
  readonly summary: string
  /** What `--help` prints, with examples. */
  readonly help: string
  /** Options beside `--help`. */
  readonly options: Readonly<Record<string, CommandOption>>
  /** What the first argument may be, where it is one of a few words. */
  readonly words?: readonly string[]
  /** Does it; the exit code, 0 when nothing is returned. */
  run(args: readonly string[]): Promise<number | void> | number | void
}

/** What every command has whose output is not JSON anyway. */
export const JSON_OPTION = { json: { type: 'boolean' } } as const
export const JSON_ROW = ['--json', 'JSON instead of text, errors too'] as const

/** Lines of a help: options with what they mean, in two columns. */
export const columns = (rows: readonly (readonly [string, string])[]): string => {
  const width = Math.max(...rows.map(([left]) => left.length)) + 2
  return rows.map(([left, right]) => `  ${left.padEnd(width)}${right}\n`).join('')
}
