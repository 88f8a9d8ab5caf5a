/**
 * Child processes and workers of a process under a policy: they get the policy and what the configuration reads, by
 * whatever way and with whatever environment, flags and folder they are started.
 */
import nodeModule, { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Script } from 'node:vm'
import workerThreads, { type WorkerOptions } from 'node:worker_threads'
import { guardChildren, guardWorkers, type Variables } from '../node/process-guard.ts'
import { configurationVariables } from './configuration.ts'
import { nodeError } from './options.ts'

const withOption = (given: string | undefined, option: string): string =>
  given === undefined || given === ''
    ? option
    : given.includes(option)
      ? given
      : `${given} ${option}`

const variable = (name: string): string | undefined =>
  Object.hasOwn(process.env, name) ? process.env[name] : undefined

/** The policy and its file, and all that the configuration reads, whatever environment and folder a child is given. */
const carriedVariables = (): ReadonlyMap<string, string> => {
  const carried = new Map<string, string>()
  for (const name of ['IKE_SOCKET_POLICY', 'IKE_SOCKET_CONFIG']) {
    const file = variable(name)
    if (file !== undefined && file !== '') carried.set(name, resolve(file))
  }
  for (const name of configurationVariables()) carried.set(name, variable(name) ?? '')
  return carried
}

/** `make` finds them in the environment of this process, from which the program may have taken them. */
const withVariables = <T>(carried: ReadonlyMap<string, string>, make: () => T): T => {
  const missing = [...carried].filter(([name, value]) => variable(name) !== value)
  const before = missing.map(([name]) => [name, variable(name)] as const)
  Object.assign(process.env, Object.fromEntries(missing))
  try {
    return make()
  } finally {
    for (const [name, value] of before) {
      if (value === undefined) Reflect.deleteProperty(process.env, name)
      else Object.assign(process.env, { [name]: value })
    }
  }
}

/** Whether this thread was started with `--import` of `url`, which its workers then inherit. */
const isPreloaded = (url: string): boolean => {
  const own = fileURLToPath(url)
  const { resolve: find } = createRequire(join(process.cwd(), 'main.js'))
  return process.execArgv.concat(process.env['NODE_OPTIONS']?.split(' ') ?? []).some(word => {
    const name = word.replace(/^(?:--import|--require|-r)=/, '')
    if (name === url) return true
    try {
      return name !== '' && find(name) === own
    } catch {
      return false
    }
  })
}

/** Whether it is CommonJS, which a worker runs without waiting for what `--import` names. */
const isScript = (code: string): boolean => {
  try {
    return Boolean(new Script(code))
  } catch {
    return false
  }
}

/** Of an eval'ed worker: `url` first, and then the code as the worker would have run it. */
const afterImport = (code: string, url: string): string => {
  const { stripTypeScriptTypes: strip } = nodeModule as { stripTypeScriptTypes?: typeof String }
  let script = code
  if (!isScript(code)) {
    if (strip === undefined) return code
    try {
      script = strip(code)
    } catch {
      return code
    }
    // A module waits.
    if (!isScript(script)) return code
  }
  const run = `const vm = process.getBuiltinModule('node:vm'); vm.runInThisContext(${JSON.stringify(script)}, { filename: '[worker eval]', importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER })`
  return `import(${JSON.stringify(url)}).then(() => process.nextTick(() => { ${run} }), error => process.nextTick(() => { throw error }))`
}

/** Its code waits for what `--import` names. */
const isModuleWorker = ({ env, execArgv }: WorkerOptions): boolean => {
  const variables = typeof env === 'object' && env !== null ? env : process.env
  const flags = [
    variables['NODE_OPTIONS'] ?? '',
    ...(Array.isArray(execArgv) ? execArgv : process.execArgv),
  ]
  return /--input-type[= ]module/.test(flags.join(' '))
}

/**
 * Child processes and workers that this thread starts from now on import `url` first. Returns the name of what cannot be
 * held to that.
 */
export const hookChildren = (url: string): string | undefined => {
  const option = `--import=${url}`
  const inherits = isPreloaded(url)
  const carried = carriedVariables()
  const withPolicy = (env: Variables): Record<string, string | undefined> => ({
    ...env,
    ...Object.fromEntries(carried),
    NODE_OPTIONS: withOption(env['NODE_OPTIONS'], option),
  })
  Object.assign(process.env, withPolicy({ NODE_OPTIONS: process.env['NODE_OPTIONS'] }))
  if (!guardChildren(withPolicy)) return "Node's handles of child processes"
  const refuse = (): never => {
    throw nodeError(
      'ERR_IKE_POLICY',
      'A worker did not come by the hook of IKE_SOCKET_POLICY at worker_threads.Worker, which another module must have taken away or passed by, and is not started',
    )
  }
  const { isGuarded, starting } = guardWorkers(refuse)
  if (!isGuarded) return "Node's handles of workers"
  const forWorker = (options: WorkerOptions): WorkerOptions => {
    const { env, execArgv } = options
    const hasOwn = typeof env === 'object' && env !== null && env !== process.env
    const own = hasOwn ? { env: withPolicy(env) } : {}
    if (Array.isArray(execArgv)) {
      return { ...options, ...own, execArgv: [...execArgv, option] }
    }
    // Flags of the process, as the limit of its memory, cannot be given to a worker again.
    if (hasOwn || inherits) return { ...options, ...own }
    return { ...options, execArgv: [...process.execArgv, option] }
  }
  const Own = workerThreads.Worker
  const construct = (
    target: new () => unknown,
    file: unknown,
    options: WorkerOptions,
  ): workerThreads.Worker => {
    const isEvaluated = Boolean(options.eval) && typeof file === 'string'
    const code = isEvaluated && !isModuleWorker(options) ? afterImport(file, url) : file
    return starting(() => Reflect.construct(Own, [code, options], target) as workerThreads.Worker)
  }
  workerThreads.Worker = new Proxy(Own, {
    construct: (_target, [file, given = {}]: [unknown, WorkerOptions?], target) => {
      const options = forWorker(given)
      const make = (): workerThreads.Worker => construct(target as never, file, options)
      if (typeof options.env !== 'symbol') return withVariables(carried, make)
      // Such a worker reads them when it starts.
      Object.assign(process.env, Object.fromEntries(carried))
      return make()
    },
  })
  return undefined
}
