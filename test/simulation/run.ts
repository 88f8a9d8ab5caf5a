/** `npm run sim -- --seeds 1000 [--from 1]`, or `--seed 7` to replay one. */
import { parseArgs } from 'node:util'
import type { Tracer } from '../../lib/base/trace.ts'
import { PERFECT } from '../harness/world.ts'
import { runScenario } from './scenario.ts'

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    seed: { type: 'string' },
  },
})

/** A replay tells what happened; a run that breaks counts as failed. */
const runGuarded = (seed: number): ReturnType<typeof runScenario> => {
  const tracer: Tracer = {
    enabled: values.seed !== undefined,
    emit: ({ name, at, facts }) => console.log(at.toFixed(0), name, JSON.stringify(facts)),
  }
  try {
    return runScenario(seed, tracer)
  } catch (error) {
    const problems = [String(error)]
    return { seed, problems, trace: 0, virtualSeconds: 0, network: PERFECT, rekeys: 0 }
  }
}

const from = Number(values.seed ?? values.from)
const count = values.seed === undefined ? Number(values.seeds) : 1
let failures = 0
let virtualSeconds = 0
let rekeys = 0
const started = performance.now()
for (let seed = from; seed < from + count; seed++) {
  const outcome = runGuarded(seed)
  virtualSeconds += outcome.virtualSeconds
  rekeys += outcome.rekeys
  if (values.seed !== undefined) console.log(outcome)
  if (outcome.problems.length === 0) continue
  failures++
  console.log(`seed ${seed}: ${outcome.problems.join('; ')}`)
  console.log(`  replay: npm run sim -- --seed ${seed}`)
}
const seconds = (performance.now() - started) / 1000
console.log(
  `${count} seeds, ${failures} failed, ${rekeys} Child SA rekeys, ${(virtualSeconds / 3600).toFixed(1)} virtual hours in ${seconds.toFixed(1)} s`,
)
process.exitCode = failures > 0 ? 1 : 0
