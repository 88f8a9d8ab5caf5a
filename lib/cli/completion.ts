/** `ike-socket completion`: what bash and zsh need to complete a command line, made from the table of commands. */
import { columns, JSON_OPTION, JSON_ROW, type Command, type CommandOption } from './command.ts'
import { json } from './terminal.ts'
import { parseArguments, UsageError } from './usage.ts'

const SHELLS = ['bash', 'zsh'] as const

/** `--config`, `-w` and so on. */
const flagsOf = (option: string, { short }: CommandOption): readonly string[] => [
  `--${option}`,
  ...(short === undefined ? [] : [`-${short}`]),
]

const allFlags = ({ options }: Command): readonly string[] => [
  ...Object.entries(options).flatMap(([option, facts]) => flagsOf(option, facts)),
  '--help',
]

/** A `case` for each value of an option: `COMMAND FLAG`, and what completes it. Files are not offered for what is none. */
const valueCases = (
  commands: readonly Command[],
  files: string,
  words: (list: readonly string[]) => string,
): string =>
  commands
    .flatMap(({ name, options }) =>
      Object.entries(options)
        .filter(([, { type }]) => type === 'string')
        .map(([option, facts]) => {
          const { completes } = facts
          const pattern = flagsOf(option, facts).map(flag => `'${name} ${flag}'`)
          const offers =
            completes === undefined ? [] : [completes === 'files' ? files : words(completes)]
          return `    ${pattern.join('|')}) ${[...offers, 'return'].join('; ')} ;;`
        }),
    )
    .join('\n')

const bash = (commands: readonly Command[]): string => `# Completions of ike-socket for bash:
#   source <(ike-socket completion bash)
_ike_socket() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} words=
  COMPREPLY=()
  if (( COMP_CWORD == 1 )); then
    COMPREPLY=($(compgen -W '${[...commands.map(({ name }) => name), '--help', '--version'].join(' ')}' -- "$word"))
    return
  fi
  case "\${COMP_WORDS[1]} $before" in
${valueCases(commands, 'COMPREPLY=($(compgen -f -- "$word"))', list => `COMPREPLY=($(compgen -W '${list.join(' ')}' -- "$word"))`)}
  esac
  case \${COMP_WORDS[1]} in
${commands
  .map(command => `    ${command.name}) words='${allFlags(command).join(' ')}' ;;`)
  .join('\n')}
  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    return
  fi
  if (( COMP_CWORD == 2 )); then
    case \${COMP_WORDS[1]} in
${commands
  .filter(({ words }) => words !== undefined)
  .map(
    ({ name, words }) =>
      `      ${name}) COMPREPLY=($(compgen -W '${words!.join(' ')}' -- "$word")); return ;;`,
  )
  .join('\n')}
    esac
  fi
  COMPREPLY=($(compgen -f -- "$word"))
}
complete -o filenames -F _ike_socket ike-socket
`

const quoted = (text: string): string => text.replace(/'/g, `'\\''`)

const zsh = (commands: readonly Command[]): string => `#compdef ike-socket
# Completions of ike-socket for zsh:
#   source <(ike-socket completion zsh)
_ike_socket() {
  local -a found
  if (( CURRENT == 2 )); then
    found=(
${commands.map(({ name, summary }) => `      '${name}:${quoted(summary.replace(/:/g, '\\:'))}'`).join('\n')}
    )
    _describe command found
    return
  fi
  case "$words[2] $words[CURRENT-1]" in
${valueCases(commands, '_files', list => `compadd -- ${list.join(' ')}`)}
  esac
  if [[ $words[CURRENT] == -* ]]; then
    case $words[2] in
${commands
  .map(command => `      ${command.name}) found=(${allFlags(command).join(' ')}) ;;`)
  .join('\n')}
    esac
    compadd -- $found
    return
  fi
  if (( CURRENT == 3 )); then
    case $words[2] in
${commands
  .filter(({ words }) => words !== undefined)
  .map(({ name, words }) => `      ${name}) compadd -- ${words!.join(' ')}; return ;;`)
  .join('\n')}
    esac
  fi
  _files
}
if [[ $funcstack[1] == _ike_socket ]]; then _ike_socket "$@"; else compdef _ike_socket ike-socket; fi
`

const WRITERS = { bash, zsh } as const

/** `commands`: all others; this one completes itself too. */
export const completionCommand = (others: readonly Command[]): Command => {
  const own: Command = {
    name: 'completion',
    summary: 'completions for bash or zsh',
    options: JSON_OPTION,
    words: SHELLS,
    help: `Usage: ike-socket completion SHELL

Prints what makes the Tab key complete commands, options and files of ike-socket. SHELL is bash or zsh.

Options:
${columns([JSON_ROW, ['--help', 'this text']])}
Examples:
  source <(ike-socket completion bash)
  ike-socket completion zsh > "\${fpath[1]}/_ike-socket"

Exit code 0: done; 2: the command line was not understood.
`,
    run: args => {
      const { values, positionals } = parseArguments(args, JSON_OPTION)
      const shell = SHELLS.find(name => name === positionals[0])
      if (shell === undefined || positionals.length > 1)
        throw new UsageError('completion wants bash or zsh')
      const script = WRITERS[shell]([...others, own])
      process.stdout.write(values.json === true ? `${json({ shell, script })}\n` : script)
    },
  }
  return own
}
