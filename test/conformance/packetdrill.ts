/**
 * Runs packetdrill scripts on our TCP in virtual time. Compared are flags (but PSH), sequence and
 * acknowledgement numbers, lengths, SACK blocks, times, what system calls give, and assertions on `tcp_info`. Not compared
 * are windows, the order of options, sizes of a kernel's buffers, and updates of the window that only one of the two
 * sends; a FIN may be acknowledged at once where the script has a delay.
 * As a command: `npm run conformance -- [FOLDER] [-q]`.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { explain } from './packetdrill/deviations.ts'
import { Differs, runText } from './packetdrill/run.ts'
import { NotDrivable } from './packetdrill/script.ts'

export type Verdict =
  /** `unchecked`: names that the script asserts something about, and that nothing was compared for. */
  | { readonly kind: 'passed'; readonly unchecked?: readonly string[] }
  /** `why`: the RFC that we follow, and the other stack does not. */
  | { readonly kind: 'deviates' | 'failed'; readonly line: number; readonly why: string }
  | { readonly kind: 'notDrivable'; readonly why: string }

/** A script may have a way for the standard and one for a stack that does otherwise; either is right. */
const WAYS: readonly (readonly string[])[] = [['STANDARD'], ['FreeBSD']]

export const runScript = (text: string): Verdict => {
  const [first, ...others] = WAYS.map(symbols => () => runOneWay(text, symbols))
  const verdict = first!()
  if (verdict.kind === 'passed' || !text.includes('#ifdef')) return verdict
  return others.map(run => run()).find(({ kind }) => kind === 'passed') ?? verdict
}

const runOneWay = (text: string, symbols: readonly string[]): Verdict => {
  try {
    const unchecked = [...runText(text, symbols)]
    return unchecked.length === 0 ? { kind: 'passed' } : { kind: 'passed', unchecked }
  } catch (error) {
    if (error instanceof NotDrivable) return { kind: 'notDrivable', why: error.message }
    if (!(error instanceof Differs)) throw error
    const why = explain(error.difference)
    if (why !== undefined) return { kind: 'deviates', line: error.line, why }
    return { kind: 'failed', line: error.line, why: error.message }
  }
}

/** Every script below a folder, by its path from there. */
export const runFolder = (folder: string): Map<string, Verdict> => {
  const verdicts = new Map<string, Verdict>()
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  for (const name of names.filter(name => name.endsWith('.pkt')).sort()) {
    verdicts.set(name, runScript(readFileSync(join(folder, name), 'utf8')))
  }
  return verdicts
}

/** Totals of a folder, and the share of the drivable scripts that pass. */
export const totals = (verdicts: Iterable<Verdict>): string => {
  const counts = { passed: 0, deviates: 0, failed: 0, notDrivable: 0, partly: 0 }
  for (const verdict of verdicts) {
    counts[verdict.kind]++
    if (verdict.kind === 'passed' && verdict.unchecked !== undefined) counts.partly++
  }
  const drivable = counts.passed + counts.deviates + counts.failed
  const share = drivable === 0 ? 100 : (100 * counts.passed) / drivable
  return (
    `${counts.passed} of ${drivable} drivable scripts pass (${share.toFixed(1)} %), ` +
    (counts.partly === 0 ? '' : `${counts.partly} of them without some of their assertions, `) +
    `${counts.deviates} deviate as an RFC says, ${counts.failed} fail; ` +
    `${counts.notDrivable} are not drivable`
  )
}

const remark = (verdict: Verdict): string => {
  if (verdict.kind !== 'passed') return `  ${verdict.why}`
  const { unchecked } = verdict
  return unchecked === undefined ? '' : `  without what it says of ${unchecked.join(', ')}`
}

const DEFAULT_FOLDER = '../shared/packetdrill'

const main = (args: readonly string[]): number => {
  const folder = args.find(arg => !arg.startsWith('-')) ?? DEFAULT_FOLDER
  if (!existsSync(folder)) {
    console.error(`There is no folder ${folder}. Usage: npm run conformance -- [FOLDER] [-q]`)
    return 1
  }
  const verdicts = runFolder(folder)
  const reasons = new Map<string, number>()
  for (const [name, verdict] of verdicts) {
    const told = verdict.kind === 'notDrivable' ? 'not drivable' : verdict.kind
    const where = 'line' in verdict ? `:${verdict.line}` : ''
    if (!args.includes('-q') || verdict.kind === 'failed')
      console.log(`${told.padEnd(13)}${name}${where}${remark(verdict)}`)
    if (verdict.kind === 'passed' || verdict.kind === 'failed') continue
    const reason = `${told}: ${verdict.why}`
    reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
  }
  console.log('')
  for (const [reason, count] of [...reasons].sort((a, b) => b[1] - a[1]))
    console.log(`${String(count).padStart(5)}  ${reason}`)
  console.log(`\n${totals(verdicts.values())}`)
  return [...verdicts.values()].some(({ kind }) => kind === 'failed') ? 1 : 0
}

if (process.argv[1]?.endsWith('conformance/packetdrill.js'))
  process.exitCode = main(process.argv.slice(2))
