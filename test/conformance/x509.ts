/**
 * `npm run conformance:x509 -- <file.json>`: runs a suite of certificate tests through our own validation and says
 * where we agree, accept wrongly and reject wrongly. Exits with 1 when anything was accepted wrongly.
 */
import { readFileSync } from 'node:fs'
import { runSuite } from './x509-suite.ts'

const [file] = process.argv.slice(2)
if (file === undefined) {
  console.error('usage: npm run conformance:x509 -- <file.json>')
  process.exit(2)
}
const run = (): ReturnType<typeof runSuite> => {
  try {
    return runSuite(JSON.parse(readFileSync(file, 'utf8')))
  } catch (error) {
    console.error(
      `${file} is no suite that can be run: ${error instanceof Error ? error.message : error}`,
    )
    process.exit(2)
  }
}
const outcomes = run()
const count = (verdict: string): number =>
  outcomes.filter(outcome => outcome.verdict === verdict).length
for (const { verdict, id, expected, got } of outcomes) {
  if (verdict !== 'agree') console.log(`${verdict}: ${id}: expected ${expected}, got ${got}`)
}
const slowest = outcomes.toSorted((a, b) => b.milliseconds - a.milliseconds)[0]
console.log(
  `${outcomes.length} cases: ${count('agree')} agree, ${count('false accept')} false accepts, ` +
    `${count('false reject')} false rejects, ${count('different refusal')} refused for another reason; ` +
    `slowest ${slowest?.milliseconds.toFixed(1)} ms (${slowest?.id})`,
)
process.exitCode = count('false accept') > 0 || outcomes.length === 0 ? 1 : 0
