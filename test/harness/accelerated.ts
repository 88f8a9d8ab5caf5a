/** With `--import`: what `accelerate` is where a test does not give it. Worker threads have no native functions and go on without. */
import { isMainThread } from 'node:worker_threads'
import { ffiProblem } from '../../lib/base/ffi.ts'
import { POLICY_TABLE, type Acceleration } from '../../lib/policy/options.ts'

const problem = ffiProblem()
if (isMainThread && problem !== undefined) throw new Error(`accelerate: 'ffi' works ${problem}`)
;(POLICY_TABLE.accelerate as { fallback: Acceleration }).fallback = 'ffi'
