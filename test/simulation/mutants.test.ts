import t from 'tap'
import { makeMutant, RULES } from './mutants.ts'
import type * as Scenarios from './scenarios.ts'
import { runGuarded as run } from './scenarios.ts'

for (const [name, { says, seeds, kind = 'rekeying' }] of Object.entries(RULES)) {
  // The rare ones take thousands of seeds: `npm run sim -- --without …`.
  if (seeds.length === 0) continue
  t.test(`without ${name} (${says}) the simulation fails`, async t => {
    const mutant = makeMutant(name)
    t.teardown(() => mutant.remove())
    const { runGuarded } = (await import(mutant.module('scenarios.js'))) as typeof Scenarios
    const failed = seeds.filter(seed => runGuarded(kind, seed).problems.length > 0)
    t.not(failed.length, 0, 'it is missed')
    for (const seed of seeds)
      t.strictSame(run(kind, seed).problems, [], `seed ${seed} passes with the rule in place`)
  })
}
