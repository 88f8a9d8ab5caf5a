/**
 * The classes of errors, by culprit, and how values are printed in them. Errors of the socket itself keep the codes of
 * `net` (ECONNREFUSED, ECONNRESET, ETIMEDOUT, EPIPE). What each error about IKE says stands in `error-table.ts`.
 */

const BRAND: unique symbol = Symbol.for('ike-socket.error') as never

export interface IpsecErrorFacts {
  cause?: unknown
  /** What a program or a person needs beyond the sentence; enumerable on the error. */
  details?: Readonly<Record<string, unknown>> | undefined
  /** The row of the table of errors. */
  reason?: string | undefined
  fault?: string | undefined
  cure?: string | undefined
}

export class IpsecError extends Error {
  readonly code: string
  readonly details: Readonly<Record<string, unknown>> | undefined
  /** Which failure it is, finer than `code`: a name of the reference of errors, such as `WRONG_PSK`. */
  readonly reason: string | undefined
  /** Whose fault it is as far as this end can know, such as 'the network'. */
  readonly fault: string | undefined
  /** The next step, which also ends the message. */
  readonly cure: string | undefined
  readonly [BRAND] = true

  constructor(code: string, message: string, facts: IpsecErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause })
    this.code = code
    this.details = facts.details
    this.reason = facts.reason
    this.fault = facts.fault
    this.cure = facts.cure
    this.name = new.target.name
  }

  /** Works across copies of the package, where `instanceof` does not. */
  static is(value: unknown): value is IpsecError {
    return typeof value === 'object' && value !== null && BRAND in value
  }
}

/** An option that cannot be used: which, what was given, what is accepted. Thrown synchronously. */
export class OptionError extends IpsecError {
  readonly option: string

  constructor(option: string, value: unknown, accepted: string, code?: string)
  /** @internal */
  constructor(option: string, value: unknown, accepted: string | Sentence, code?: string)
  constructor(
    option: string,
    value: unknown,
    accepted: string | Sentence,
    code = 'ERR_INVALID_ARG_VALUE',
  ) {
    super(
      code,
      accepted instanceof Sentence
        ? accepted.text
        : `The option "${option}" must be ${accepted}. Received ${describe(value)}`,
    )
    this.option = option
  }

  /** Where a sentence of its own says it better. */
  static saying(option: string, sentence: string): OptionError {
    return new OptionError(option, undefined, new Sentence(sentence))
  }

  /** Its value is not printed: it may be a secret under a misspelt name. `known` is listed where it is short. */
  static unknown(option: string, near: string | undefined, known: readonly string[]): OptionError {
    const name = nameForError(option)
    const list = known.length > LONGEST_LIST ? '' : `; known are ${known.join(', ')}`
    const hint = near === undefined ? list : `. Did you mean "${near}"?`
    return OptionError.saying(name, `Unknown option "${name}"${hint}`)
  }
}

class Sentence {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

const LONGEST_LIST = 12

/** A name that a program chose, escaped and bounded. */
export const nameForError = (name: string): string => {
  const quoted = printable(name, 60)
  return quoted.slice(1, quoted.lastIndexOf("'"))
}

/** What `read` gives. Whatever a strange value throws meanwhile (a getter, a Proxy) is an OptionError as well. */
export const readingOption = <T>(option: string, read: () => T): T => {
  try {
    return read()
  } catch (error) {
    throw unreadable(option, error)
  }
}

/** What to throw where reading an option has thrown `error`. */
const unreadable = (option: string, error: unknown): unknown =>
  isTold(error)
    ? error
    : OptionError.saying(option, `The option "${option}" cannot be read: reading it throws`)

/** An error that says already what is wrong: one of ours, or one with a code as Node has them. */
const isTold = (error: unknown): boolean => {
  try {
    return error instanceof Error && typeof (error as NodeJS.ErrnoException).code === 'string'
  } catch {
    return false
  }
}

const LONGEST_ARRAY = 100_000

/** The values of an array, or the one value. What an array leaves out is undefined here, so that it is not passed over. */
export const listOf = (option: string, value: unknown): readonly unknown[] => {
  if (!Array.isArray(value)) return [value]
  if (value.length > LONGEST_ARRAY)
    throw OptionError.saying(option, `The option "${option}" has more than ${LONGEST_ARRAY} values`)
  return Array.from<unknown>(value)
}

/** The own, enumerable properties of an object of options but those in `without`, each read once: nothing reaches us by a prototype. */
export const ownProperties = (
  option: string,
  value: object,
  without?: ReadonlySet<string | symbol>,
): Record<string, unknown> => {
  const own = Object.create(null) as Record<string | symbol, unknown>
  let reading: string | symbol | undefined
  try {
    for (const key of Reflect.ownKeys(value)) {
      reading = undefined
      if (without?.has(key) === true || !isEnumerable.call(value, key)) continue
      reading = key
      own[key] = Reflect.get(value, key)
    }
  } catch (error) {
    if (reading === undefined) throw unreadable(option, error)
    const name = nameForError(String(reading))
    throw unreadable(option === 'options' ? name : `${option}.${name}`, error)
  }
  return own
}

const isEnumerable = Object.prototype.propertyIsEnumerable

/** The two ends are configured for different things, and this end refuses; `code` names the Notify that the peer gets. */
export class PolicyError extends IpsecError {}

/** The peer refused with a Notify, whose registry name is `code` (NO_PROPOSAL_CHOSEN), or ended what there was. */
export class PeerRefusedError extends IpsecError {}

/** The peer broke the protocol; `code` names the rule. */
export class PeerMisbehavedError extends IpsecError {}

/** One end could not prove who it is: AUTHENTICATION_FAILED. The other end is told less than our own side. */
export class AuthenticationError extends IpsecError {}

/** Nobody answers, or nobody answers any longer: ETIMEDOUT. */
export class UnreachablePeerError extends IpsecError {}

/** A function that the program gave has failed, or not answered in time. */
export class ApplicationError extends IpsecError {}

/** A limit of this end was reached. */
export class LimitError extends IpsecError {}

/** A fault in this package; please report it. */
export class InternalError extends IpsecError {}

export interface SocketErrorFacts {
  readonly code: string
  readonly syscall?: string | undefined
  readonly address?: string | undefined
  readonly port?: number | undefined
  /** Added in parentheses, where the code alone does not say which of two things failed. */
  readonly note?: string | undefined
}

/** An error as `net` gives it: `connect ECONNREFUSED 10.0.0.1:80`. The number is added where the system is known. */
export const socketError = (facts: SocketErrorFacts): Error => {
  const { code, syscall, address, port, note } = facts
  const where = address === undefined ? '' : ` ${address}${port ? `:${port}` : ''}`
  const error = new Error(
    `${syscall ?? 'read'} ${code}${where}${note === undefined ? '' : ` (${note})`}`,
  )
  return Object.assign(error, {
    code,
    syscall: syscall ?? 'read',
    ...(address === undefined ? {} : { address }),
    ...(address === undefined || !port ? {} : { port }),
  })
}

/** In the place of a value that an error must not print, or about which words say more. */
export class RedactedValue {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

/** Prints a given value for an error message: its kind and a bounded, escaped form, never key octets. Never throws. */
export const describe = (value: unknown): string => {
  try {
    if (value instanceof RedactedValue) return value.text
    if (typeof value === 'string') return `type string (${printable(value, 60)})`
    if (typeof value === 'function') return 'a function'
    if (value === null || value === undefined) return String(value)
    if (typeof value === 'object') return `an instance of ${className(value)}`
    return `type ${typeof value} (${printable(String(value), 60).slice(1, -1)})`
  } catch {
    return `a value of type ${typeof value} that cannot be read`
  }
}

const className = (value: object): string => {
  const { name } = value.constructor ?? {}
  return typeof name === 'string' && name !== '' ? nameForError(name) : 'Object'
}

/** In the place of a value that may be a secret: its kind alone. */
export const withoutContent = (value: unknown): RedactedValue =>
  new RedactedValue(
    typeof value === 'string'
      ? `a string of ${value.length} characters`
      : ['number', 'bigint', 'symbol', 'boolean'].includes(typeof value)
        ? `type ${typeof value}`
        : describe(value),
  )

/**
 * Quotes text that a peer chose, so that it can neither break a log line nor steer a terminal:
 * everything outside printable ASCII is escaped and the length is bounded.
 */
export const printable = (text: string, limit = 120): string => {
  let quoted = ''
  for (const character of text.slice(0, limit)) {
    const code = character.codePointAt(0)!
    if (character === "'" || character === '\\') quoted += `\\${character}`
    else if (code >= 0x20 && code < 0x7f) quoted += character
    else
      quoted +=
        code > 0xffff ? `\\u{${code.toString(16)}}` : `\\u${code.toString(16).padStart(4, '0')}`
  }
  return `'${quoted}'${text.length > limit ? '…' : ''}`
}
