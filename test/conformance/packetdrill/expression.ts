/** The assertions of packetdrill scripts: the part of Python that they are written in. */
import { NotDrivable } from './script.ts'

/** What a name stands for; undefined: nothing that we know. */
export type Names = (name: string) => number | undefined

/** What the code of one script knows and leaves out. */
export interface Scope {
  readonly names: Names
  /** What the script has given a name itself. */
  readonly variables: Map<string, number>
  /** Names that no assertion is compared for; those that were met are added to `unchecked`. */
  readonly foreign: ReadonlySet<string>
  readonly unchecked: Set<string>
}

/** Runs the statements; returns the first assertion that does not hold, with the values of its names. */
export const runCode = (code: string, scope: Scope): string | undefined => {
  const names: Names = name => scope.variables.get(name) ?? scope.names(name)
  for (const statement of statementsOf(code)) {
    if (statement === '' || statement.startsWith('#') || /^print\b/.test(statement)) continue
    const foreign = (statement.match(/\w+/g) ?? []).filter(word => scope.foreign.has(word))
    for (const name of foreign) scope.unchecked.add(name)
    if (foreign.length > 0) continue
    const given = /^([A-Za-z_]\w*)\s*(\+?)=(?!=)([\s\S]*)$/.exec(statement)
    if (given !== null) {
      const [, name = '', adds, text = ''] = given
      const before = adds === '' ? 0 : (names(name) ?? 0)
      scope.variables.set(name, before + new Expression(text, names).value())
      continue
    }
    const assertion = /^assert\b([\s\S]*)$/.exec(statement)
    if (assertion === null) throw new NotDrivable(`the statement "${statement}"`)
    const expression = new Expression(assertion[1]!, names)
    if (expression.value() === 0) return `${statement} with ${expression.seen()}`
  }
  return undefined
}

/** Lines, or parts of one; within parentheses, and behind a backslash, a statement goes on. */
const statementsOf = (code: string): string[] => {
  const found: string[] = []
  let open = ''
  for (const part of code.split(/[;\n]/)) {
    open += ` ${part.trim().replace(/\\$/, ' ')}`
    const isWhole = open.split('(').length <= open.split(')').length && !part.trim().endsWith('\\')
    if (!isWhole) continue
    found.push(open.trim())
    open = ''
  }
  return [...found, open.trim()]
}

const TOKEN =
  /\s*(0x[\da-fA-F]+|\d+(?:\.\d+)?|[A-Za-z_]\w*|<<|>>|<=|>=|==|!=|\/\/|[-+*/%&|^~<>(),])/y

/** Binary operators from the loosest to the tightest; comparisons may be chained. */
const COMPARISONS: Readonly<Record<string, (a: number, b: number) => boolean>> = {
  '==': (a, b) => a === b,
  '!=': (a, b) => a !== b,
  '<=': (a, b) => a <= b,
  '>=': (a, b) => a >= b,
  '<': (a, b) => a < b,
  '>': (a, b) => a > b,
}
const LEVELS: readonly Readonly<Record<string, (a: number, b: number) => number>>[] = [
  { '|': (a, b) => a | b },
  { '^': (a, b) => a ^ b },
  { '&': (a, b) => a & b },
  { '<<': (a, b) => a << b, '>>': (a, b) => a >> b },
  { '+': (a, b) => a + b, '-': (a, b) => a - b },
  {
    '*': (a, b) => a * b,
    '/': (a, b) => a / b,
    '//': (a, b) => Math.floor(a / b),
    '%': (a, b) => a % b,
  },
]
const FUNCTIONS: Readonly<Record<string, (...values: number[]) => number>> = {
  abs: Math.abs,
  min: Math.min,
  max: Math.max,
  int: Math.trunc,
  round: Math.round,
}

class Expression {
  private readonly text: string
  private readonly names: Names
  private readonly tokens: string[] = []
  private at = 0
  private readonly used = new Map<string, number>()

  constructor(text: string, names: Names) {
    this.text = text
    this.names = names
    TOKEN.lastIndex = 0
    let end = 0
    for (let match = TOKEN.exec(text); match !== null; match = TOKEN.exec(text)) {
      this.tokens.push(match[1]!)
      end = TOKEN.lastIndex
    }
    // What follows a comma is the message of the assertion, which may be anything.
    if (text.slice(end).trim() !== '' && !this.tokens.includes(',')) this.fail()
  }

  value(): number {
    const value = this.either()
    if (this.at < this.tokens.length && this.tokens[this.at] !== ',') this.fail()
    return value
  }

  seen(): string {
    return [...this.used].map(([name, value]) => `${name} = ${value}`).join(', ')
  }

  private fail(): never {
    throw new NotDrivable(`the expression "${this.text.trim()}"`)
  }

  private takes(token: string): boolean {
    if (this.tokens[this.at] !== token) return false
    this.at++
    return true
  }

  private either(): number {
    let value = this.both()
    while (this.takes('or')) {
      const other = this.both()
      value = value === 0 ? other : value
    }
    return value
  }

  private both(): number {
    let value = this.negated()
    while (this.takes('and')) {
      const other = this.negated()
      value = value === 0 ? value : other
    }
    return value
  }

  private negated(): number {
    if (this.takes('not')) return this.negated() === 0 ? 1 : 0
    let left = this.level(0)
    let holds = true
    let isCompared = false
    for (;;) {
      const compare = COMPARISONS[this.tokens[this.at] ?? '']
      if (compare === undefined) return isCompared ? Number(holds) : left
      this.at++
      const right = this.level(0)
      holds &&= compare(left, right)
      isCompared = true
      left = right
    }
  }

  private level(index: number): number {
    const operators = LEVELS[index]
    if (operators === undefined) return this.signed()
    let value = this.level(index + 1)
    for (;;) {
      const operator = operators[this.tokens[this.at] ?? '']
      if (operator === undefined) return value
      this.at++
      value = operator(value, this.level(index + 1))
    }
  }

  private signed(): number {
    if (this.takes('-')) return -this.signed()
    if (this.takes('~')) return ~this.signed()
    return this.single()
  }

  private single(): number {
    if (this.takes('(')) {
      const value = this.either()
      if (!this.takes(')')) this.fail()
      return value
    }
    const token = this.tokens[this.at++] ?? this.fail()
    if (/^\d/.test(token)) return Number(token)
    const call = FUNCTIONS[token]
    if (call !== undefined && this.takes('(')) {
      const values = [this.either()]
      while (this.takes(',')) values.push(this.either())
      if (!this.takes(')')) this.fail()
      return call(...values)
    }
    const value = this.names(token)
    if (value === undefined) throw new NotDrivable(`the name ${token}`)
    if (!/^[A-Z]/.test(token)) this.used.set(token, value)
    return value
  }
}
