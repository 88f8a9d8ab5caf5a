/**
 * `npm run conformance:x509 -- <file.json>`: runs a suite of certificate tests through our own validation and says
 * where we agree, accept wrongly and reject wrongly. Exits with 1 when anything was accepted wrongly. Without a file
 * all public suites that lie beside the repository run, and what need not be refused (`x509-known.ts`) counts apart.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { FOLDER, notApplicable } from './x509-known.ts'
import { runSuite, type Outcome } from './x509-suite.ts'

const run = (file: string): readonly Outcome[] => {
  try {
    return runSuite(JSON.parse(readFileSync(file, 'utf8')))
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    console.error(`${file} is no suite that can be run: ${why}`)
    process.exit(2)
  }
}

const summary = (outcomes: readonly Outcome[]): string => {
  const count = (verdict: string): number =>
    outcomes.filter(outcome => outcome.verdict === verdict).length
  const slowest = outcomes.toSorted((a, b) => b.milliseconds - a.milliseconds)[0]
  return (
    `${outcomes.length} cases: ${count('agree')} agree, ${count('false accept')} false accepts, ` +
    `${count('false reject')} false rejects, ${count('different refusal')} refused for another reason; ` +
    `slowest ${slowest?.milliseconds.toFixed(1)} ms (${slowest?.id})`
  )
}

const runOne = (file: string): void => {
  const outcomes = run(file)
  for (const { verdict, id, expected, got } of outcomes) {
    if (verdict !== 'agree') console.log(`${verdict}: ${id}: expected ${expected}, got ${got}`)
  }
  console.log(summary(outcomes))
  const isWrong = outcomes.some(({ verdict }) => verdict === 'false accept')
  process.exitCode = isWrong || outcomes.length === 0 ? 1 : 0
}

const runAll = (): void => {
  if (!existsSync(FOLDER)) {
    console.error(`usage: npm run conformance:x509 -- <file.json> (there is no ${FOLDER})`)
    process.exit(2)
  }
  for (const name of readdirSync(FOLDER).filter(each => each.endsWith('.json'))) {
    const outcomes = run(join(FOLDER, name))
    const accepted = outcomes.filter(({ verdict }) => verdict === 'false accept')
    const wrong = accepted.filter(({ id }) => notApplicable(id) === undefined)
    console.log(`${name}: ${summary(outcomes)}; ${wrong.length} false accepts apply`)
    for (const { id, got } of wrong) console.log(`  false accept: ${id}: ${got}`)
    if (wrong.length > 0 || outcomes.length === 0) process.exitCode = 1
  }
}

const [file] = process.argv.slice(2)
if (file === undefined) runAll()
else runOne(file)
