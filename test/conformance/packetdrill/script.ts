/** The text of a packetdrill script as a list of events, each with its time; both dialects, FreeBSD's and Google's. */
import type { Millis } from '../../../lib/base/environment.ts'

/** What a script needs that a TCP without a kernel around it has not. */
export class NotDrivable extends Error {}

export interface Moment {
  /** Since the script began, since the event before, or whenever it comes. */
  readonly from: 'start' | 'previous' | 'whenever'
  readonly at: Millis
  /** The end of a range of times, or of a call that blocks. */
  readonly until: Millis | undefined
}

export interface ScriptEvent {
  readonly line: number
  readonly moment: Moment
  readonly kind: 'sent' | 'received' | 'call' | 'command' | 'code'
  /** Of a call: it returns at the end of its moment. */
  readonly isBlocking: boolean
  readonly text: string
}

export interface Script {
  /** `--name=value` lines. */
  readonly options: ReadonlyMap<string, string>
  readonly events: readonly ScriptEvent[]
}

interface Statement {
  readonly line: number
  readonly text: string
}

/** `symbols` are those that `#ifdef` finds defined. */
export const readScript = (text: string, symbols: readonly string[]): Script => {
  const options = new Map<string, string>()
  const events: ScriptEvent[] = []
  for (const statement of statements(withoutComments(text), symbols)) {
    const option = /^--(\w+)(?:=(.*))?$/.exec(statement.text)
    if (option === null) events.push(readEvent(statement))
    else options.set(option[1]!, option[2] ?? '')
  }
  return { options, events }
}

/** Lines keep their numbers. Shell text keeps its slashes, for it has no such comments. */
const withoutComments = (text: string): string =>
  text.replace(/`[^`]*`|\/\*[\s\S]*?\*\/|\/\/.*$/gm, part =>
    part.startsWith('`') ? part : part.replace(/[^\n]/g, ' '),
  )

const statements = (text: string, symbols: readonly string[]): Statement[] => {
  const found: Statement[] = []
  const isLive = [true]
  let open: Statement | undefined
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.trim()
    if (open === undefined) {
      if (line.startsWith('#ifdef')) isLive.push(symbols.includes(line.slice(6).trim()))
      else if (line.startsWith('#ifndef')) isLive.push(!symbols.includes(line.slice(7).trim()))
      else if (line.startsWith('#else')) isLive.push(!isLive.pop())
      else if (line.startsWith('#endif')) isLive.pop()
      if (line === '' || line.startsWith('#') || isLive.includes(false)) continue
    }
    const whole: string = open === undefined ? line : `${open.text}\n${line}`
    const statement: Statement = { line: open?.line ?? index + 1, text: whole }
    open = isWhole(whole) ? undefined : statement
    if (open === undefined) found.push(statement)
  }
  if (open !== undefined) found.push(open)
  return found
}

/** Code, commands and arguments may go on in the next line. */
const isWhole = (text: string): boolean => {
  if (text.includes('%{')) return text.includes('}%')
  if (text.includes('`')) return text.split('`').length % 2 === 1
  return text.split('(').length <= text.split(')').length
}

const NUMBER = String.raw`\d+(?:\.\d+)?|\.\d+`
const EVENT = new RegExp(
  String.raw`^([+*]?)\s*(${NUMBER})?(?:\s*(~|\.\.\.)\s*\+?(${NUMBER}))?\s*([\s\S]*)$`,
)

const readEvent = ({ line, text }: Statement): ScriptEvent => {
  const [, mark, at, range, until, rest = ''] = EVENT.exec(text) ?? []
  // What has no time of its own happens when the event before it has.
  const isRelative = mark === '+' || at === undefined
  return {
    line,
    moment: {
      from: mark === '*' ? 'whenever' : isRelative ? 'previous' : 'start',
      at: Number(at ?? 0) * 1000,
      until: until === undefined ? undefined : Number(until) * 1000,
    },
    isBlocking: range === '...',
    ...kindOf(rest),
  }
}

const kindOf = (text: string): Pick<ScriptEvent, 'kind' | 'text'> => {
  if (text.startsWith('>')) return { kind: 'sent', text: text.slice(1).trim() }
  if (text.startsWith('<')) return { kind: 'received', text: text.slice(1).trim() }
  const command = /^`([\s\S]*)`$/.exec(text)
  if (command !== null) return { kind: 'command', text: command[1]! }
  const code = /^%\{([\s\S]*)\}%$/.exec(text)
  if (code !== null) return { kind: 'code', text: code[1]! }
  return { kind: 'call', text }
}
