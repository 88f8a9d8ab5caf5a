/**
 * The matrix: every scenario against every peer it names, several at a time. Prints a line for each as it ends,
 * then the matrix, then `N passed, N failed`. Started by the script `run`.
 *
 *   --only TEXT   scenarios whose name, peer or role contains it (may be repeated)
 *   --rig         strongSwan against strongSwan: proves the rig itself
 *   --jobs N      at the same time (default 4)
 */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { NotRun, SLOWER, RUN, startRig, type Rig } from './rig.ts'
import { Context, type Scenario } from './scenario.ts'

interface Result {
  readonly scenario: Scenario
  readonly milliseconds: number
  readonly error: Error | undefined
}

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true },
    rig: { type: 'boolean', default: false },
    jobs: { type: 'string', default: '4' },
  },
})

const load = async (): Promise<readonly Scenario[]> => {
  if (values.rig) return (await import('./scenarios-rig.ts')).scenarios
  const parts = await Promise.all([
    import('./scenarios-initiator.ts'),
    import('./scenarios-responder.ts'),
    import('./scenarios-capture.ts'),
    import('./scenarios-libreswan.ts'),
    import('./scenarios-scan.ts'),
    import('./scenarios-identity.ts'),
    import('./scenarios-mobility.ts'),
    import('./scenarios-habits.ts'),
    import('./scenarios-kernel.ts'),
    import('./scenarios-tcp.ts'),
    import('./scenarios-restart.ts'),
    import('./scenarios-peer-config.ts'),
    import('./scenarios-doctor.ts'),
  ])
  return parts.flatMap(part => part.scenarios)
}

const wanted = ({ name, role, peer }: Scenario): boolean =>
  values.only === undefined || values.only.some(text => `${role} ${peer} ${name}`.includes(text))

const tail = (text: string, lines: number): string =>
  text.trimEnd().split('\n').slice(-lines).join('\n')

const limited = <T>(promise: Promise<T>, seconds: number): Promise<T> => {
  let timer: NodeJS.Timeout
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${seconds} s`)), seconds * 1000)
  })
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer))
}

/** What both ends of the scenario's connections think of them: the kernel's beside strongSwan, and ours. */
const socketsOf = ({ accepted, serverAddress }: Context): string => {
  const theirs = spawnSync('ip', ['netns', 'exec', 'peer', 'ss', '-tnoi', 'dst', serverAddress])
  const ours = accepted.map(socket => {
    const { readyState, bytesRead, bytesWritten, writableLength, readableLength } = socket
    const state = { readyState, bytesRead, bytesWritten, writableLength, readableLength }
    return JSON.stringify({ ...state, session: socket.session?.info }, (_, value: unknown) =>
      typeof value === 'bigint' ? String(value) : value,
    )
  })
  return [String(theirs.stdout), ...ours].join('\n')
}

const runOne = async (
  rig: Rig,
  scenario: Scenario,
  number: number,
  ourLog: readonly string[],
  unlock: () => void,
): Promise<Result> => {
  const context = new Context(rig, number, scenario.role)
  context.unlock = unlock
  const started = performance.now()
  const since = new Date().toISOString().slice(11, 23)
  let error: Error | undefined
  try {
    await limited(scenario.run(context), (scenario.seconds ?? 20) * SLOWER)
  } catch (reason) {
    error = reason as Error
  }
  const milliseconds = performance.now() - started
  const what = `${scenario.role}, ${scenario.peer}: ${scenario.name}`
  if (error instanceof NotRun) {
    console.log(`NOT RUN ${what} (NOT RUN: ${error.message})`)
    return { scenario, milliseconds, error }
  }
  const mark = error === undefined ? 'ok    ' : 'FAILED'
  console.log(`${mark} ${(milliseconds / 1000).toFixed(1).padStart(5)} s  ${what}`)
  if (error !== undefined) {
    console.log(error.stack)
    const logs = [
      ...context.daemons.map(daemon => ({
        name: daemon.name,
        text: daemon.log.slice(context.logFrom.get(daemon) ?? 0),
      })),
      { name: 'ike-socket', text: ourLog.filter(line => line >= since).join('\n') },
      { name: 'sockets', text: socketsOf(context) },
    ]
    for (const { name, text } of logs) {
      const file = join(RUN, `failed-${number}-${name}.log`)
      writeFileSync(file, text)
      console.log(`--- ${name}, the last lines of ${file}\n${tail(text, 15)}`)
    }
    console.log('---')
  }
  await limited(context.end(), 10).catch(() => {})
  return { scenario, milliseconds, error }
}

const locksOf = ({ lock = [] }: Scenario): readonly string[] =>
  typeof lock === 'string' ? [lock] : lock

const runAll = async (
  rig: Rig,
  scenarios: readonly Scenario[],
  ourLog: readonly string[],
): Promise<Result[]> => {
  const results: Result[] = []
  // The long ones first, so that none of them is left alone at the end.
  const waiting = scenarios
    .map((scenario, i) => ({ scenario, number: i + 1 }))
    .sort((a, b) => (b.scenario.seconds ?? 20) - (a.scenario.seconds ?? 20))
  const locks = new Set<string>()
  let booting = scenarios.some(({ guest }) => guest)
  // Whether it could, the scenarios find out.
  if (booting)
    rig.guest
      .ready()
      .catch(() => {})
      .finally(() => (booting = false))
  const worker = async (): Promise<void> => {
    for (;;) {
      const at = waiting.findIndex(
        ({ scenario }) =>
          (scenario.guest !== true || !booting) && !locksOf(scenario).some(lock => locks.has(lock)),
      )
      if (at < 0 && waiting.length === 0) return
      if (at < 0) {
        await new Promise(resolve => setTimeout(resolve, 50))
        continue
      }
      const [{ scenario, number }] = waiting.splice(at, 1) as [(typeof waiting)[number]]
      let held = locksOf(scenario)
      const unlock = (): void => {
        for (const lock of held) locks.delete(lock)
        held = []
      }
      for (const lock of held) locks.add(lock)
      const result = await runOne(rig, scenario, number, ourLog, unlock).catch((error: Error) => {
        // Not even its failure could be written down.
        console.log(error.stack)
        return { scenario, milliseconds: 0, error }
      })
      results.push(result)
      unlock()
    }
  }
  await Promise.all(Array.from({ length: Number(values.jobs) }, worker))
  return results
}

const cellOf = (result: Result | undefined): string => {
  if (result === undefined) return '-'
  if (result.error instanceof NotRun) return 'NOT RUN'
  return `${result.error === undefined ? 'ok' : 'FAILED'} ${(result.milliseconds / 1000).toFixed(1)} s`
}

const print = (results: readonly Result[]): void => {
  const columns = [
    ...new Set(results.map(({ scenario }) => `${scenario.peer} (we: ${scenario.role})`)),
  ].sort()
  const names = [...new Set(results.map(({ scenario }) => scenario.name))].sort()
  const width = Math.max(...names.map(name => name.length))
  console.log(`\n${'scenario'.padEnd(width)}  ${columns.join('  ')}`)
  for (const name of names) {
    const cells = columns.map(column => {
      const result = results.find(
        ({ scenario }) =>
          scenario.name === name && `${scenario.peer} (we: ${scenario.role})` === column,
      )
      return cellOf(result).padEnd(column.length)
    })
    console.log(`${name.padEnd(width)}  ${cells.join('  ')}`)
  }
}

// Until all is said: a rig that does not start has passed nothing.
process.exitCode = 1
// A scenario that fails badly must not take the others with it.
process.on('uncaughtException', error => console.log('uncaught:', error.stack))
process.on('unhandledRejection', error => console.log('unhandled:', (error as Error)?.stack))

const scenarios = (await load()).filter(wanted)
const ourLog = values.rig ? [] : (await import('./product.ts')).traces
const started = performance.now()
const rig = await startRig()
const results = await runAll(rig, scenarios, ourLog)
await rig.stop()
print(results)
const notRun = results.flatMap(({ error }) => (error instanceof NotRun ? [error] : []))
const passed = results.filter(({ error }) => error === undefined).length
const failed = results.length - passed - notRun.length
console.log(`\n${((performance.now() - started) / 1000).toFixed(0)} s; logs are in ${RUN}`)
if (notRun[0] !== undefined) console.log(`${notRun.length} NOT RUN: ${notRun[0].message}`)
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed > 0 || passed === 0 ? 1 : 0)
