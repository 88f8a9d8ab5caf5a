import t from 'tap'
import { runScenario } from './scenario.ts'

t.test('150 random networks: streams intact, nothing left over, no IV twice, no plaintext', t => {
  for (let seed = 1; seed <= 150; seed++) {
    const { problems } = runScenario(seed)
    if (problems.length > 0) t.fail(`seed ${seed}: ${problems.join('; ')}`)
  }
  t.pass('all were run')
  t.end()
})

t.test('the same seed gives the same datagrams', t => {
  for (const seed of [3, 17, 46])
    t.equal(runScenario(seed).trace, runScenario(seed).trace, `seed ${seed}`)
  t.not(runScenario(3).trace, runScenario(4).trace)
  t.end()
})

/** Each failed once; what was wrong stands beside it. */
const REGRESSIONS: readonly (readonly [number, string])[] = [
  [46, 'a Child SA past its end was deleted again and again'],
  [503, 'the repeated IKE_AUTH answer went to the address before a NAT rebinding'],
  [662, 'the SA went while the last FIN was not acknowledged'],
  [1561, 'the window of our SYN was counted from zero'],
]
for (const [seed, flaw] of REGRESSIONS) {
  t.test(`seed ${seed}: ${flaw}`, t => {
    t.strictSame(runScenario(seed).problems, [])
    t.end()
  })
}
