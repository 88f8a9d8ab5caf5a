/** The hosts and daemons around the product: strongSwan, processes in other namespaces, the protected service. */
import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { Job } from './agent.ts'
import { answer, type Progress } from './transfer.ts'

const execute = promisify(execFile)

const need = (name: string): string => {
  const value = process.env[name]
  if (value === undefined) throw new Error(`${name} is not set: start this with test/interop/run`)
  return value
}
/** The folder of the scripts and configurations. */
export const HOME = need('INTEROP_HOME')
/** Logs, sockets, certificates of this run. */
export const RUN = need('INTEROP_RUN')
export const PKI = join(RUN, 'pki')
export const PSK = 'correct horse battery staple'
export const SERVICE = { host: '10.91.0.1', host6: 'fd91::1', port: 8000 } as const
/** strongSwan as responder waits here, for IKE and ESP alike. */
export const PEER_PORT = 14500

/** The limits of scenarios are what a quiet machine needs with room to spare; a busy one gets so many times as much. */
export const PATIENCE = 6

export const script = async (name: string, ...args: string[]): Promise<string> => {
  try {
    const { stdout, stderr } = await execute(join(HOME, name), args, {
      maxBuffer: 1 << 24,
      timeout: 30_000 * PATIENCE,
    })
    return stdout + stderr
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
    throw new Error(`${name} ${args.join(' ')} failed:\n${stdout}${stderr}`.trim().slice(-3000))
  }
}

/** Polls until `probe` gives something. */
export const until = async <T>(
  what: string,
  milliseconds: number,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> => {
  const deadline = performance.now() + milliseconds * PATIENCE
  for (;;) {
    const found = await probe()
    if (found !== undefined && found !== false) return found
    if (performance.now() > deadline)
      throw new Error(`not within ${milliseconds * PATIENCE} ms: ${what}`)
    await sleep(100)
  }
}

export interface DaemonOptions {
  readonly conf: 'responder' | 'initiator'
  readonly netns?: 'peer' | 'home' | 'mobile'
  /** IKE and NAT-T port; 0: any. */
  readonly ports: readonly [number, number]
  readonly table?: number
  /** Intermediate authority that it knows besides the root. */
  readonly intermediate: 'inter-s' | 'inter-c'
  readonly extra?: string
}

/** One strongSwan. */
export class Daemon {
  readonly name: string
  private readonly options: DaemonOptions
  /** Configuration is loaded by one caller at a time. */
  private loading: Promise<unknown> = Promise.resolve()

  constructor(name: string, options: DaemonOptions) {
    this.name = name
    this.options = options
  }

  get netns(): string | undefined {
    return this.options.netns
  }

  async start(): Promise<void> {
    const { conf, netns, ports, table = 220, intermediate, extra } = this.options
    const args = [
      join(HOME, 'conf', `${conf}.conf`),
      '-p',
      String(ports[0]),
      '-P',
      String(ports[1]),
    ]
    args.push('-k', PKI, '-a', `ca ${intermediate}`, '-t', String(table))
    if (netns !== undefined) args.push('-n', netns)
    if (extra !== undefined) args.push('-x', join(HOME, 'conf', extra))
    await script('charon', 'start', this.name, ...args)
  }

  stop(): Promise<string> {
    return script('charon', 'stop', this.name)
  }

  /** As a power cut does. */
  kill(): Promise<string> {
    return script('charon', 'kill', this.name)
  }

  control(...args: string[]): Promise<string> {
    return script('charon', 'swanctl', this.name, ...args)
  }

  /** The same, and nothing else of ours happens meanwhile. */
  controlSync(...args: string[]): void {
    execFileSync(join(HOME, 'charon'), ['swanctl', this.name, ...args])
  }

  /** Adds a connection of its configuration language. */
  add(name: string, connection: string): Promise<void> {
    const file = join(RUN, this.name, 'swanctl/conf.d', `${name}.conf`)
    const loaded = this.loading.then(async () => {
      mkdirSync(join(file, '..'), { recursive: true })
      writeFileSync(file, `connections {\n${connection}\n}\n`)
      await this.control('--load-conns')
    })
    this.loading = loaded.catch(() => {})
    return loaded
  }

  /** Brings up a Child SA, and its IKE SA when there is none. */
  initiate(child: string): Promise<string> {
    return this.control('--initiate', '--child', child, '--timeout', '48')
  }

  terminate(connection: string): Promise<string> {
    return this.control('--terminate', '--ike', connection, '--timeout', '30')
  }

  /** Its IKE SAs whose peer has this identity, or with this name of a connection, as text. */
  async sas(who: string): Promise<string[]> {
    const all = await this.control('--list-sas')
    return all
      .split(/\n(?=\S)/)
      .filter(sa => sa.includes(`'${who}'`) || sa.startsWith(`${who}: `))
      .filter(sa => sa.includes('ESTABLISHED'))
  }

  get log(): string {
    try {
      return readFileSync(join(RUN, this.name, 'charon.log'), 'utf8')
    } catch {
      return ''
    }
  }

  waitForLog(pattern: RegExp, milliseconds: number, from = 0): Promise<RegExpExecArray> {
    return until(
      `${String(pattern)} in the log of ${this.name}`,
      milliseconds,
      () => pattern.exec(this.log.slice(from)) ?? undefined,
    )
  }
}

/** libreswan, of which IKE alone runs here. */
export class Libreswan {
  /** Its own: the policies that it leaves in the kernel hold up whatever else is sent from there. */
  static readonly address = '10.90.0.3'

  private started: Promise<unknown> | undefined

  /** Once for all who need it. */
  start(): Promise<unknown> {
    this.started ??= script('libreswan', 'start', 'peer', Libreswan.address)
    return this.started
  }

  async stop(): Promise<void> {
    if (this.started !== undefined) await script('libreswan', 'stop')
  }

  /** Its own word for failure is an exit code that we do not need: the log tells more. */
  whack(...args: string[]): Promise<string> {
    return script('libreswan', 'whack', ...args).catch((error: Error) => error.message)
  }

  async add(name: string, connection: string): Promise<void> {
    const added = execute(join(HOME, 'libreswan'), ['add', name])
    added.child.stdin!.end(connection)
    await added
  }

  /** Lines about this connection since `from`. */
  about(name: string, from = 0): string {
    const file = join(RUN, 'libreswan/pluto.log')
    const lines = readFileSync(file, 'utf8').slice(from).split('\n')
    return lines.filter(line => line.includes(`"${name}"`)).join('\n')
  }

  said(name: string, pattern: RegExp): Promise<RegExpExecArray> {
    return until(`${String(pattern)} from libreswan about ${name}`, 5000, () => {
      return pattern.exec(this.about(name)) ?? undefined
    })
  }
}

/** A process of ours in some namespace. */
export class Agent {
  private readonly child: ChildProcess
  private readonly jobs = new Map<
    number,
    {
      resolve: () => void
      reject: (error: Error) => void
      progress?: Progress | undefined
    }
  >()
  private last = 0

  constructor(netns?: string) {
    const node = [process.execPath, join(import.meta.dirname, 'agent.js')]
    const [command, ...args] = netns === undefined ? node : ['ip', 'netns', 'exec', netns, ...node]
    this.child = spawn(command!, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.child.on(
      'message',
      (message: { id: number; progress?: number; error?: string; code?: string }) => {
        const job = this.jobs.get(message.id)
        if (job === undefined) return
        if (message.progress !== undefined) return void job.progress?.(message.progress)
        this.jobs.delete(message.id)
        if (message.error === undefined) job.resolve()
        else job.reject(Object.assign(new Error(message.error), { code: message.code }))
      },
    )
    this.child.on('exit', () => {
      for (const { reject } of this.jobs.values()) reject(new Error('the process ended'))
    })
  }

  run(job: Job, progress?: Progress): Promise<void> {
    return new Promise((resolve, reject) => {
      const id = ++this.last
      this.jobs.set(id, { resolve, reject, progress })
      this.child.send({ id, job })
    })
  }

  async kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    this.child.kill('SIGKILL')
    await once(this.child, 'exit')
  }
}

/** What all scenarios share. */
export interface Rig {
  /** strongSwan as responder. */
  readonly responder: Daemon
  /** strongSwan as initiator. */
  readonly initiator: Daemon
  readonly libreswan: Libreswan
  /** Runs kernel TCP beside the initiator. */
  readonly peer: Agent
  stop(): Promise<void>
}

export const startRig = async (): Promise<Rig> => {
  await Promise.all([script('network', 'up'), script('pki', PKI)])
  const service = (host: string): Promise<unknown> =>
    once(createServer(answer).listen(SERVICE.port, host).unref(), 'listening')
  const responder = new Daemon('responder', {
    conf: 'responder',
    ports: [15500, PEER_PORT],
    intermediate: 'inter-s',
  })
  // Any ports: with 500 of its own it would float to 4500, whatever our port is.
  const initiator = new Daemon('initiator', {
    conf: 'initiator',
    netns: 'peer',
    ports: [0, 0],
    intermediate: 'inter-c',
  })
  await Promise.all([
    responder.start(),
    initiator.start(),
    service(SERVICE.host),
    service(SERVICE.host6),
  ])
  await script('network', 'keep-routes')
  const peer = new Agent('peer')
  const libreswan = new Libreswan()
  return {
    libreswan,
    responder,
    initiator,
    peer,
    stop: async () => {
      await peer.kill()
      await Promise.all([responder.stop(), initiator.stop(), libreswan.stop()])
    },
  }
}
