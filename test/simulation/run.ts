/**
 * `npm run sim -- --seeds 10000 [--from 1] [--kind rekeying] [--workers 2]`; `--seed 7` replays one with
 * what it traced. Exit code 1 when any failed. `--without E3`, or `--without all`: a rule is taken out,
 * and it is an error when nothing fails.
 */
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import type { Tracer } from '../../lib/base/trace.ts'
import type { Outcome } from './audit.ts'
import { Progress } from '../../lib/cli/terminal.ts'
import { makeMutant, RULES } from './mutants.ts'
import { kindOf, runGuarded, SCENARIOS } from './scenarios.ts'

/** Failures of a run without a rule that are printed. */
const SHOWN = 5
/** Seeds that a worker runs at a time. */
const BATCH = 20

interface Job {
  readonly from: number
  readonly to: number
  readonly kind: string | undefined
}

const work = (job: Job): Outcome[] => {
  const outcomes: Outcome[] = []
  for (let seed = job.from; seed < job.to; seed++)
    outcomes.push(runGuarded(job.kind ?? kindOf(seed), seed))
  return outcomes
}

const replay = async (seed: number, kind: string, scenarios: string): Promise<void> => {
  const { runGuarded } = (await import(scenarios)) as typeof import('./scenarios.ts')
  const tracer: Tracer = {
    enabled: true,
    emit: ({ name, at, facts }) => console.log(at.toFixed(0), name, JSON.stringify(facts)),
  }
  const outcome = runGuarded(kind, seed, tracer)
  console.log(kind, outcome)
  process.exitCode = outcome.problems.length > 0 ? 1 : 0
}

interface Order {
  readonly from: number
  readonly count: number
  readonly kind: string | undefined
  readonly workers: number
  /** A rule that is missing, and the module that runs without it. */
  readonly without: string | undefined
  readonly module: string
}

/** How many failed. */
const runAll = async (order: Order): Promise<number> => {
  const { from, count, kind, workers, without } = order
  const started = performance.now()
  const totals = { failed: 0, virtualSeconds: 0, childRekeys: 0, ikeRekeys: 0 }
  const flags = `${kind === undefined ? '' : ` --kind ${kind}`}${without === undefined ? '' : ` --without ${without}`}`
  const note = (outcome: Outcome): void => {
    totals.virtualSeconds += outcome.virtualSeconds
    totals.childRekeys += outcome.childRekeys
    totals.ikeRekeys += outcome.ikeRekeys
    const { seed, problems } = outcome
    if (problems.length === 0) return
    totals.failed++
    if (without !== undefined && totals.failed > SHOWN) return
    console.log(`seed ${seed} (${kind ?? kindOf(seed)}): ${problems.join('; ')}`)
    console.log(`  replay: npm run sim -- --seed ${seed}${flags}`)
  }
  const jobs: Job[] = []
  for (let seed = from; seed < from + count; seed += BATCH)
    jobs.push({ from: seed, to: Math.min(seed + BATCH, from + count), kind })
  const progress = new Progress('seeds', 0)
  let done = 0
  await Promise.all(
    Array.from({ length: Math.min(workers, jobs.length) }, async () => {
      const worker = new Worker(new URL(order.module), { workerData: 'simulation' })
      for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) {
        const outcomes = new Promise<Outcome[]>((resolve, reject) => {
          worker.once('message', resolve)
          worker.once('error', reject)
        })
        worker.postMessage(job)
        for (const outcome of await outcomes) note(outcome)
        done += job.to - job.from
        progress.update('seeds', done / count)
        // Only ours: on Node 20 a worker has listeners of its own, without which no message comes.
        worker.removeAllListeners('error')
      }
      await worker.terminate()
    }),
  )
  progress.stop()
  const seconds = (performance.now() - started) / 1000
  console.log(
    `${count} seeds from ${from}: ${totals.failed} failed; ${totals.childRekeys} Child SA and ${totals.ikeRekeys} IKE SA rekeys, ` +
      `${(totals.virtualSeconds / 86_400).toFixed(1)} virtual days in ${seconds.toFixed(1)} s`,
  )
  return totals.failed
}

if (isMainThread) {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string', default: '1000' },
      from: { type: 'string', default: '1' },
      seed: { type: 'string' },
      kind: { type: 'string' },
      workers: { type: 'string', default: String(availableParallelism()) },
      without: { type: 'string' },
    },
  })
  const { kind } = values
  if (kind !== undefined && !(kind in SCENARIOS))
    throw new Error(`--kind is one of ${Object.keys(SCENARIOS).join(', ')}`)
  const order = {
    from: Number(values.from),
    count: Number(values.seeds),
    kind,
    workers: Number(values.workers),
  }
  const rules = values.without === 'all' ? Object.keys(RULES) : [values.without]
  for (const without of rules) {
    const mutant = without === undefined ? undefined : makeMutant(without)
    const module = (name: string): string =>
      mutant?.module(name) ?? new URL(name, import.meta.url).href
    try {
      if (values.seed !== undefined) {
        const seed = Number(values.seed)
        await replay(seed, kind ?? kindOf(seed), module('scenarios.js'))
        continue
      }
      if (without !== undefined) console.log(`without ${without}: ${RULES[without]!.says}`)
      const failed = await runAll({ ...order, without, module: module('run.js') })
      if (without === undefined ? failed > 0 : failed === 0) process.exitCode = 1
    } finally {
      mutant?.remove()
    }
  }
} else if (workerData === 'simulation') {
  parentPort!.on('message', (job: Job) => parentPort!.postMessage(work(job)))
}
