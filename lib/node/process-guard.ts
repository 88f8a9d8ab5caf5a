/**
 * The last places that what this thread starts passes before the system: child processes, a program in the place of
 * this one, and workers. However they are started, they come by here.
 */
import childProcess, { ChildProcess } from 'node:child_process'
import { constants } from 'node:os'
import { Worker } from 'node:worker_threads'

export type Variables = Readonly<Record<string, string | undefined>>

type AnyCall = (this: unknown, ...args: unknown[]) => unknown

/** Nobody replaces it again. False: somebody has kept it from being replaced. */
const replace = (place: object, name: string, value: unknown): boolean =>
  Reflect.defineProperty(place, name, {
    value,
    enumerable: true,
    writable: false,
    configurable: false,
  })

type Change = (given: Variables) => Variables

/** Without pairs a child has the environment of this process. */
const changed = (pairs: unknown, change: Change): string[] => {
  const given = Array.isArray(pairs)
    ? (pairs as string[]).map(pair => {
        // A variable of Windows may begin with '='.
        const at = pair.indexOf('=', 1)
        return [pair.slice(0, at), pair.slice(at + 1)] as const
      })
    : Object.entries(process.env)
  return Object.entries(change(Object.fromEntries(given))).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  )
}

/** Of a child that only asks whether the hooks hear of it, and does not start. */
const PROBE = 'ike-socket.probe'
const INVALID = -constants.errno.EINVAL
let heard = 0

const isProbe = (pairs: unknown): boolean => {
  if (!Array.isArray(pairs) || !pairs.includes(`${PROBE}=1`)) return false
  heard++
  return true
}

/** The place of the pairs in the arguments of Node 24 and newer; before it, there was one object of all. */
const PAIRS = 3

const guardAsynchronous = (change: Change): boolean => {
  const { _handle: handle } = new ChildProcess() as unknown as { _handle?: object }
  const prototype = (handle && Object.getPrototypeOf(handle)) as { spawn?: AnyCall } | undefined
  const own = prototype?.spawn
  if (own === undefined) return false
  const spawn: AnyCall = function (first, ...more) {
    if (typeof first === 'object' && first !== null) {
      const { envPairs } = first as { envPairs?: unknown }
      if (isProbe(envPairs)) return INVALID
      return own.call(this, { ...first, envPairs: changed(envPairs, change) }, ...more)
    }
    const all = [first, ...more]
    if (isProbe(all[PAIRS])) return INVALID
    return own.apply(this, all.with(PAIRS, changed(all[PAIRS], change)))
  }
  return replace(prototype!, 'spawn', spawn) && isHeard(() => spawnNothing())
}

const isHeard = (start: () => unknown): boolean => {
  const before = heard
  start()
  return heard === before + 1
}

const spawnNothing = (): void => {
  const child = new ChildProcess() as ChildProcess & { spawn(options: object): void }
  child.once('error', () => {})
  try {
    child.spawn({ file: '', args: [''], envPairs: [`${PROBE}=1`], stdio: 'ignore' })
  } catch {
    // As it must.
  }
}

type Synchronous = Record<'spawnSync' | 'execFileSync' | 'execSync', AnyCall>

interface Bindings {
  binding(name: string): { spawn: AnyCall }
}

/** Undefined under `--permission`. */
const nativeSync = (): { spawn: AnyCall } | undefined => {
  try {
    return (process as unknown as Bindings).binding('spawn_sync')
  } catch {
    return undefined
  }
}

/** `(file, args?, options?)` and `(command, options?)`. */
const withEnvironment = (args: readonly unknown[], change: Change): unknown[] => {
  const isOptions = (value: unknown): value is { readonly env?: Variables | null } =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
  const options = args.slice(1).find(isOptions) ?? {}
  const rest = args.filter((value, at) => at === 0 || Array.isArray(value))
  return [...rest, { ...options, env: change(options.env ?? process.env) }]
}

const guardSynchronous = (change: Change): boolean => {
  const native = nativeSync()
  if (native === undefined) {
    const place = childProcess as unknown as Synchronous
    const { spawnSync, execFileSync, execSync } = place
    return Object.entries({ spawnSync, execFileSync, execSync }).every(([name, own]) => {
      const hooked: AnyCall = (...args) => own(...withEnvironment(args, change))
      return replace(place, name, hooked)
    })
  }
  const own = native.spawn
  const spawn: AnyCall = function (options, ...more) {
    const { envPairs } = options as { envPairs?: unknown }
    if (isProbe(envPairs))
      return { pid: 0, status: null, signal: null, output: null, error: INVALID }
    const all = { ...(options as object), envPairs: changed(envPairs, change) }
    return own.call(this, all, ...more)
  }
  const isReplaced = replace(native, 'spawn', spawn)
  return (
    isReplaced && isHeard(() => childProcess.spawnSync('no-program', { env: { [PROBE]: '1' } }))
  )
}

/** `process.execve` of Node 22.15 and newer. */
const guardExecve = (change: Change): boolean => {
  const place = process as unknown as { execve?: AnyCall }
  const own = place.execve
  if (own === undefined) return true
  const hooked: AnyCall = (file, args = [], env = process.env) =>
    own.call(process, file, args, change(env as Variables))
  return replace(place, 'execve', hooked)
}

/** Every child process gets what `change` makes of its environment. False: it has no effect in this process. */
export const guardChildren = (change: Change): boolean =>
  guardAsynchronous(change) && guardSynchronous(change) && guardExecve(change)

// --- workers ---

interface WorkerHandle {
  startThread(): unknown
}

const NO_FLAG = '--no-flag-of-any-worker'

/** A worker has its handle before its arguments are found faulty, and does not start then. */
const makeWorkerHandle = (): WorkerHandle | undefined => {
  let handle: WorkerHandle | undefined
  const target = function (): void {}
  target.prototype = new Proxy(Worker.prototype, {
    set(place, name, value, receiver) {
      if (typeof name === 'symbol' && name.description === 'kHandle') handle = value as WorkerHandle
      return Reflect.set(place, name, value, receiver)
    },
  })
  try {
    Reflect.construct(Worker, ['', { eval: true, execArgv: [NO_FLAG] }], target)
  } catch {
    // As it must.
  }
  return handle
}

/** The thread of `module.register()` has neither options nor an environment of its own. */
const isOfNode = (): boolean => {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = Infinity
  const { stack } = new Error()
  Error.stackTraceLimit = stackTraceLimit
  return /^ +at new InternalWorker \(node:internal\//m.test(stack ?? '')
}

/**
 * `refuse` throws when a worker starts that was not made within `starting`. False: it has no effect in this process.
 */
export const guardWorkers = (
  refuse: () => never,
): { isGuarded: boolean; starting: <T>(make: () => T) => T } => {
  let depth = 0
  const starting = <T>(make: () => T): T => {
    depth++
    try {
      return make()
    } finally {
      depth--
    }
  }
  const handle = makeWorkerHandle()
  if (handle === undefined) return { isGuarded: isForbidden(), starting }
  const prototype = Object.getPrototypeOf(handle) as WorkerHandle
  const own = prototype.startThread
  const startThread = function (this: WorkerHandle): unknown {
    if (depth === 0 && !isOfNode()) refuse()
    return own.call(this)
  }
  return { isGuarded: replace(prototype, 'startThread', startThread), starting }
}

/** Under `--permission` there may be no workers at all. */
const isForbidden = (): boolean => {
  const { permission } = process as { permission?: { has(scope: string): boolean } }
  return permission?.has('worker') === false
}
