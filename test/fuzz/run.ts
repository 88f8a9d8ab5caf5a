/** `npm run fuzz -- 60s [target…]`: each target for its share of the time; `--seed N` replays one case. */
import { toHex } from '../../lib/base/bytes.ts'
import { Progress } from '../../lib/cli/terminal.ts'
import { Random } from '../harness/random.ts'
import { PARSERS, runCase, type Target } from './parsers.ts'
import { aeads } from './aeads.ts'
import { accumulate, slowestOf, type Slowest } from './accumulating.ts'
import { STORIES, type Story } from './stateful.ts'

const given = process.argv.slice(2)
const at = given.indexOf('--seed')
const only = at < 0 ? undefined : Number(given.splice(at, 2)[1])
const time = given.find(word => /^\d+(s|m)$/.test(word)) ?? '10s'
const millis = parseInt(time) * (time.endsWith('m') ? 60_000 : 1000)
const names = given.filter(word => word !== time)

let slowest: (Slowest & { readonly seed: number }) | undefined
/** As the tests have it; what one message cost is told at the end. */
const insiders: Story = {
  name: 'insiders',
  run: seed => {
    const account = accumulate(seed)
    const isSlower = (one: Slowest): boolean => one.millis > (slowest?.millis ?? 0)
    if (isSlower(slowestOf([account]))) {
      const repeated = slowestOf([account, accumulate(seed), accumulate(seed)])
      if (isSlower(repeated)) slowest = { ...repeated, seed }
    }
    return account.messages
  },
}
const all = [...PARSERS, ...STORIES, insiders, aeads]
const chosen = names.length === 0 ? all : all.filter(({ name }) => names.includes(name))
if (chosen.length === 0) throw new Error(`Targets are ${all.map(({ name }) => name).join(', ')}`)

const runOne = (target: Target | Story, seed: number): string | undefined => {
  let input: Uint8Array | undefined
  try {
    if ('make' in target) runCase(target, (input = target.make(new Random(seed))))
    else target.run(seed)
    return undefined
  } catch (error) {
    const text = error instanceof Error ? error.stack : String(error)
    return `${text}\n  input ${input === undefined ? 'from the seed' : toHex(input)}`
  }
}

const progress = new Progress('', 0)
const endOfAll = performance.now() + millis
let failures = 0
let seed = only ?? (Date.now() >>> 0) % 1_000_000_000
for (const target of chosen) {
  const end = performance.now() + millis / chosen.length
  let cases = 0
  let failed: string | undefined
  const first = seed
  while (failed === undefined && performance.now() < end) {
    failed = runOne(target, seed)
    cases++
    if (cases % 50 === 0) progress.update(target.name, 1 - (endOfAll - performance.now()) / millis)
    if (failed !== undefined || only !== undefined) break
    seed++
  }
  progress.clear()
  console.log(
    `${target.name.padEnd(16)} ${String(cases).padStart(9)} cases from seed ${first}${failed === undefined ? '' : `: FAILED, --seed ${seed} ${target.name}\n${failed}`}`,
  )
  if (failed !== undefined) failures++
  seed++
}
progress.stop()
if (slowest !== undefined) {
  const { millis, kind, index, seed: of } = slowest
  console.log(
    `slowest message of an insider: ${millis.toFixed(1)} ms of processor time (${kind}, number ${index} of seed ${of})`,
  )
}
const { rss } = process.memoryUsage()
console.log(
  `${chosen.length - failures} of ${chosen.length} targets clean; ${Math.round(rss / 2 ** 20)} MiB resident at the end`,
)
process.exitCode = failures > 0 ? 1 : 0
