/**
 * `npm run sim -- --seeds 10000 [--from 1] [--kind rekeying] [--workers 2]`, or `--seed 7` to replay one
 * with what it traced. Exit code 1 when any failed.
 */
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import type { Tracer } from '../../lib/base/trace.ts'
import type { Outcome } from './audit.ts'
import { kindOf, runGuarded, SCENARIOS } from './scenarios.ts'

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

const replay = (seed: number, kind: string): void => {
  const tracer: Tracer = {
    enabled: true,
    emit: ({ name, at, facts }) => console.log(at.toFixed(0), name, JSON.stringify(facts)),
  }
  const outcome = runGuarded(kind, seed, tracer)
  console.log(kind, outcome)
  process.exitCode = outcome.problems.length > 0 ? 1 : 0
}

const runAll = async (
  from: number,
  count: number,
  kind: string | undefined,
  workers: number,
): Promise<void> => {
  const started = performance.now()
  const totals = { failed: 0, virtualSeconds: 0, childRekeys: 0, ikeRekeys: 0 }
  const flag = kind === undefined ? '' : ` --kind ${kind}`
  const note = (outcome: Outcome): void => {
    totals.virtualSeconds += outcome.virtualSeconds
    totals.childRekeys += outcome.childRekeys
    totals.ikeRekeys += outcome.ikeRekeys
    const { seed, problems } = outcome
    if (problems.length === 0) return
    totals.failed++
    console.log(`seed ${seed} (${kind ?? kindOf(seed)}): ${problems.join('; ')}`)
    console.log(`  replay: npm run sim -- --seed ${seed}${flag}`)
  }
  const jobs: Job[] = []
  for (let seed = from; seed < from + count; seed += BATCH)
    jobs.push({ from: seed, to: Math.min(seed + BATCH, from + count), kind })
  await Promise.all(
    Array.from({ length: Math.min(workers, jobs.length) }, async () => {
      const worker = new Worker(new URL(import.meta.url), { workerData: 'simulation' })
      for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) {
        const outcomes = new Promise<Outcome[]>((resolve, reject) => {
          worker.once('message', resolve)
          worker.once('error', reject)
        })
        worker.postMessage(job)
        for (const outcome of await outcomes) note(outcome)
        // Only ours: on Node 20 a worker has listeners of its own, without which no message comes.
        worker.removeAllListeners('error')
      }
      await worker.terminate()
    }),
  )
  const seconds = (performance.now() - started) / 1000
  console.log(
    `${count} seeds from ${from}: ${totals.failed} failed; ${totals.childRekeys} Child SA and ${totals.ikeRekeys} IKE SA rekeys, ` +
      `${(totals.virtualSeconds / 86_400).toFixed(1)} virtual days in ${seconds.toFixed(1)} s`,
  )
  process.exitCode = totals.failed > 0 ? 1 : 0
}

if (isMainThread) {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string', default: '1000' },
      from: { type: 'string', default: '1' },
      seed: { type: 'string' },
      kind: { type: 'string' },
      workers: { type: 'string', default: String(availableParallelism()) },
    },
  })
  const { kind } = values
  if (kind !== undefined && !(kind in SCENARIOS))
    throw new Error(`--kind is one of ${Object.keys(SCENARIOS).join(', ')}`)
  if (values.seed !== undefined) {
    const seed = Number(values.seed)
    replay(seed, kind ?? kindOf(seed))
  } else await runAll(Number(values.from), Number(values.seeds), kind, Number(values.workers))
} else if (workerData === 'simulation') {
  parentPort!.on('message', (job: Job) => parentPort!.postMessage(work(job)))
}
