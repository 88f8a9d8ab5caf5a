/** Public suites through our own validation. Their files are read where they lie. */
import { existsSync, readFileSync } from 'node:fs'
import t from 'tap'
import { runSuite } from '../conformance/x509-suite.ts'

const FOLDER = '../shared/x509'
const isThere = existsSync(FOLDER)
const suffix = isThere ? '' : ' (skipped: the folder with public suites is not beside this one)'

/** Cases that we refuse although the suite would not; README says why. */
const REFUSED: Readonly<Record<string, readonly RegExp[]>> = {
  pkits: [/^4\.1\.[45] /, /^4\.14\.(22|24|25|28|29|30|33) /],
  boringssl_crl: [],
  boringssl_ocsp: [/^good_response_invalid_serial/],
}

for (const [name, count] of [
  ['pkits', 247],
  ['boringssl_crl', 66],
  ['boringssl_ocsp', 36],
] as const) {
  void t.test(
    `${name}: no false accept, and the known refusals alone${suffix}`,
    { skip: !isThere },
    t => {
      const outcomes = runSuite(JSON.parse(readFileSync(`${FOLDER}/${name}.json`, 'utf8')))
      t.equal(outcomes.length, count)
      for (const { id, verdict, got } of outcomes) {
        const isKnown = verdict === 'false reject' && REFUSED[name]!.some(known => known.test(id))
        if (verdict !== 'agree' && !isKnown) t.fail(`${verdict}: ${id}: ${got}`)
      }
      const refused = outcomes.filter(({ verdict }) => verdict === 'false reject')
      t.equal(refused.length, REFUSED[name]!.length === 2 ? 9 : REFUSED[name]!.length)
      t.end()
    },
  )
}
