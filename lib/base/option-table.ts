/**
 * Options as rows of a table: whose each is, how it is read and what it is when it is not given. The checks, the lists of
 * names and two columns of the README's table come from these rows.
 */
import { OptionError, readingOption } from './errors.ts'

export type Reader<T> = (name: string, value: unknown) => T

/** At which end an option has an effect. */
export type OptionEnd = 'both' | 'client' | 'server'

export interface OptionRow<T> {
  readonly end: OptionEnd
  readonly parse: Reader<T>
  /** Its value when it is not given. */
  readonly fallback: T
}

export type OptionTable = Readonly<Record<string, OptionRow<unknown>>>

/** What reading a table gives: a value for each name. */
export type OptionValues<Table> = {
  readonly [Name in keyof Table]: Table[Name] extends OptionRow<infer T> ? T : never
}

/** One row; without a fallback the value may be undefined. */
export function row<T>(end: OptionEnd, parse: Reader<T>): OptionRow<T | undefined>
export function row<T>(end: OptionEnd, parse: Reader<T>, fallback: T): OptionRow<T>
export function row<T>(end: OptionEnd, parse: Reader<T>, fallback?: T): OptionRow<T | undefined> {
  return { end, parse, fallback }
}

export const namesOf = <Table extends object>(table: Table): readonly (keyof Table & string)[] =>
  Object.keys(table) as (keyof Table & string)[]

/** The end of each option of a table. */
export const endsOf = (table: OptionTable): Readonly<Record<string, OptionEnd>> =>
  Object.fromEntries(Object.entries(table).map(([name, { end }]) => [name, end]))

const NONE: ReadonlySet<string> = new Set()

/** What each table gives where nothing is given. */
const unset = new WeakMap<OptionTable, Readonly<Record<string, unknown>>>()

const fallbacksOf = (table: OptionTable): Readonly<Record<string, unknown>> => {
  const known = unset.get(table)
  if (known !== undefined) return known
  const entries = Object.entries(table).map(([name, { fallback }]) => [name, fallback] as const)
  const fallbacks = Object.fromEntries(entries)
  unset.set(table, fallbacks)
  return fallbacks
}

/** Every option of the table, in its order; those in `without` are not looked at. */
export const readTable = <Table extends OptionTable>(
  table: Table,
  options: Readonly<Record<string, unknown>>,
  without = NONE,
): OptionValues<Table> => {
  const read = reader(options)
  // A copy, since it is done for every socket: V8 makes a table of an object that gets its names one by one, and takes
  // ten times as long for what is done with that.
  const values: Record<string, unknown> = { ...fallbacksOf(table) }
  for (const name of namesOf(table)) {
    if (without.has(name)) continue
    const { parse, fallback } = table[name]!
    const value = read(name, parse, fallback)
    if (value !== fallback) values[name] = value
  }
  // Each value is what its own row has read.
  return values as OptionValues<Table>
}

/** Beyond, a deadline would not fit a timer; 24 days are enough for anyone. */
const LONGEST = 2 ** 31 - 1

export const integer =
  (least: number, most: number, unit = ''): Reader<number> =>
  (name, value) => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most)
      return value
    throw new OptionError(name, value, `an integer from ${least} to ${most}${unit && ` ${unit}`}`)
  }

/** Milliseconds; 0 means off where `least` is 0. */
export const millis = (least: number): Reader<number> => integer(least, LONGEST, 'ms')

/** Milliseconds from `least` on, or 0 for off. */
export const offOr =
  (least: number): Reader<number> =>
  (name, value) => {
    if (value === 0) return 0
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= LONGEST)
      return value
    throw new OptionError(name, value, `0 or an integer from ${least} to ${LONGEST} ms`)
  }

export const number =
  (least: number, most: number): Reader<number> =>
  (name, value) => {
    if (typeof value === 'number' && value >= least && value <= most) return value
    throw new OptionError(name, value, `a number from ${least} to ${most}`)
  }

export const boolean: Reader<boolean> = (name, value) => {
  if (typeof value === 'boolean') return value
  throw new OptionError(name, value, 'true or false', 'ERR_INVALID_ARG_TYPE')
}

/** One of these words. */
export const oneOf =
  <T extends string>(...words: readonly T[]): Reader<T> =>
  (name, value) => {
    if (words.includes(value as T)) return value as T
    throw new OptionError(name, value, `one of ${words.map(word => `'${word}'`).join(', ')}`)
  }

interface OptionReader {
  <T>(name: string, parse: Reader<T>, fallback: T): T
  <T>(name: string, parse: Reader<T>, fallback: undefined): T | undefined
  refuseUnknown(known: readonly string[]): void
}

/** Reads own properties of an options object; `undefined` counts as not given, as in Node. */
export const reader = (
  options: Readonly<Record<string, unknown>>,
  prefix?: string,
): OptionReader => {
  const full = (name: string): string => (prefix === undefined ? name : `${prefix}.${name}`)
  const read = <T>(name: string, parse: Reader<T>, fallback: T): T => {
    const value = Object.hasOwn(options, name) ? options[name] : undefined
    return value === undefined ? fallback : readingOption(name, () => parse(full(name), value))
  }
  const more: Pick<OptionReader, 'refuseUnknown'> = {
    refuseUnknown: (known: readonly string[]) => {
      for (const name of Object.keys(options)) {
        if (known.includes(name)) continue
        throw OptionError.unknown(full(name), nearest(name, known), known)
      }
    },
  }
  return Object.assign(read as OptionReader, more)
}

/** The known name that a slip of the finger may have meant: of short ones only one letter may differ. */
const nearest = (name: string, known: readonly string[]): string | undefined => {
  const lower = name.toLowerCase()
  let best: string | undefined
  let least = lower.length <= 4 ? 2 : 3
  for (const word of known) {
    const distance = editDistance(word.toLowerCase(), lower)
    if (distance < least) [best, least] = [word, distance]
  }
  return best
}

/** Two letters in each other's place count as one slip. */
const editDistance = (a: string, b: string): number => {
  if (Math.abs(a.length - b.length) > 2) return Infinity
  let before: readonly number[] = []
  let row: readonly number[] = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      const swapped = isSwap ? before[j - 2]! + 1 : Infinity
      next.push(Math.min(replaced, swapped, row[j]! + 1, next[j - 1]! + 1))
    }
    before = row
    row = next
  }
  return row[b.length]!
}
