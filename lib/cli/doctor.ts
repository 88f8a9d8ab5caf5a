/** `ike-socket doctor`: why a connection fails, one line a step. */
import { randomBytes } from 'node:crypto'
import { columns, JSON_OPTION, type Command } from './command.ts'
import { Diagnostician, STEPS, type Step, type StepName } from './diagnose.ts'
import { readTarget, TARGET_HELP, TARGET_OPTIONS } from './target.ts'
import { json, type Paint, painter, Progress } from './terminal.ts'
import { parseArguments } from './usage.ts'

const OPTIONS = {
  ...TARGET_OPTIONS,
  'short-key': { type: 'boolean' },
  ...JSON_OPTION,
} as const

/** By the step that is bad. */
const EXIT_CODES: Readonly<Partial<Record<StepName, number>>> = {
  name: 3,
  route: 3,
  UDP: 3,
  proposals: 4,
  clock: 5,
  authentication: 5,
  data: 6,
  MTU: 7,
  'round trips': 7,
  rekey: 8,
  port: 9,
}

/** Milliseconds: of the process as a whole, and of the Deletes of SAs at its end. */
const LIMIT = 29_500
const FAREWELL = 500

const MARKS = { ok: ['✓', 'green'], bad: ['✗', 'red'], note: ['!', 'yellow'] } as const
const WIDTH = Math.max(...STEPS.map(name => name.length))

/** A line for people: mark, step, sentence and what helps. */
export const stepLine = ({ name, state, says, cure, parts = [] }: Step, paint: Paint): string => {
  const marked = (of: Step['state']): string => {
    const [mark, colour] = MARKS[of]
    return paint(colour, mark)
  }
  const inset = ' '.repeat(WIDTH + 4)
  return [
    `${marked(state)} ${name.padEnd(WIDTH)}  ${says}.`,
    ...parts.map(part => `${inset}${marked(part.state)} ${part.says}`),
    ...(cure === undefined ? [] : [`${inset}${paint('bold', cure)}`]),
  ].join('\n')
}

const run = async (args: readonly string[]): Promise<number> => {
  const { values, positionals } = parseArguments(args, OPTIONS)
  const stranger = { psk: randomBytes(32) }
  const { options, isStranger } = readTarget('doctor', positionals, values.config, stranger)
  const port = positionals[1] === undefined ? undefined : options.port
  const isJson = values.json === true
  const { stdout } = process
  const paint = painter(stdout)
  const progress = new Progress('')
  const report = (step: Step): void => {
    progress.clear()
    stdout.write(`${isJson ? json(step) : stepLine(step, paint)}\n`)
  }
  const doctor = new Diagnostician(
    { ...options, port },
    {
      report,
      isStranger,
      allowsShortKey: values['short-key'] === true,
      // As the clock of performance begins with the process.
      limit: LIMIT - FAREWELL - performance.now(),
      working: (words, share) => progress.update(words, share),
    },
  )
  const { cause } = await doctor.run()
  progress.stop()
  // A peer that is lost would have its Deletes repeated to it for a minute.
  setTimeout(() => process.exit(), FAREWELL).unref()
  if (isJson) stdout.write(`${json({ isWell: cause === undefined, cause: cause ?? null })}\n`)
  else if (cause === undefined)
    stdout.write(isStranger ? 'So far all is well.\n' : 'All is well.\n')
  return cause === undefined ? 0 : (EXIT_CODES[cause.name] ?? 1)
}

export const doctorCommand: Command = {
  name: 'doctor',
  summary: 'why a connection fails, one line a step, with what helps',
  options: OPTIONS,
  help: `Usage: ike-socket doctor HOST [PORT] [options]

Looks at each step of a connection to HOST: name, route, NAT, UDP ports, proposals, the clock against certificates,
authentication, traffic selectors, MTU, round trips, a rekey, and PORT, a service inside the tunnel. It takes 30 seconds
at most. What it sends is what a client sends, so no secret leaves before the peer has proved itself. A client with a
pre-shared key proves itself first (RFC 7296 section 2.15), and anyone who answers can try keys against that proof: so with
a key of fewer than 16 octets it stops there. Without credentials it stops before authentication, too.

Options:
${columns([...TARGET_HELP, ['--short-key', 'authenticate with a pre-shared key that can be guessed, too'], ['--json', 'one line of JSON for each step, and one with the cause'], ['--help', 'this text']])}
Examples:
  ike-socket doctor orders.internal
  ike-socket doctor orders.internal 8080 --config ike.json
  ike-socket doctor 192.0.2.1 --config ike.json --json | tail -n 1

Exit code 0: all is well; 1: it was stopped; 2: the command line was not understood; 3: the host is not reached;
4: no common proposal for IKE; 5: authentication; 6: the Child SA; 7: the way loses packets; 8: the rekey; 9: PORT.
`,
  run,
}
