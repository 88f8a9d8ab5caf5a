/** The kinds of run, and which a seed means: the same seed is always the same run. */
import type { Tracer } from '../../lib/base/trace.ts'
import type { Outcome } from './audit.ts'
import { runBudget } from './budget.ts'
import { runDays } from './days.ts'
import { runRequests } from './requests.ts'
import { runRekeying } from './rekeying.ts'
import { runRoaming } from './roaming.ts'
import { runSizes } from './sizes.ts'
import { runTransfer } from './transfer.ts'

export type Scenario = (seed: number, tracer?: Tracer) => Outcome

export const SCENARIOS: Readonly<Record<string, Scenario>> = {
  rekeying: runRekeying,
  transfer: runTransfer,
  days: runDays,
  roaming: runRoaming,
  sizes: runSizes,
  requests: runRequests,
  budget: runBudget,
}

/** In turn; rekeys that collide are what random networks find most in. */
const SHARES = [
  'rekeying',
  'transfer',
  'rekeying',
  'budget',
  'days',
  'rekeying',
  'rekeying',
  'roaming',
  'sizes',
  'requests',
]

export const kindOf = (seed: number): string => SHARES[seed % SHARES.length]!

/** A run that breaks counts as failed. */
export const runGuarded = (kind: string, seed: number, tracer?: Tracer): Outcome => {
  try {
    return SCENARIOS[kind]!(seed, tracer)
  } catch (error) {
    const problems = [error instanceof Error ? (error.stack ?? error.message) : String(error)]
    return { seed, problems, trace: 0, virtualSeconds: 0, childRekeys: 0, ikeRekeys: 0 }
  }
}
