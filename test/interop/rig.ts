/** The hosts and daemons around the product: strongSwan, processes in other namespaces, a guest, the protected service. */
import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { connect as connectTo, createServer, type Socket } from 'node:net'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { Job, Message } from './agent.ts'
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
export const SLOWER = 6

/** How often configurations are loaded before that has failed, and how long each may take: a second is usual. */
const LOADS = 4
const LOAD_TIME = 30_000

const program = async (
  file: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
  timeout = 30_000 * SLOWER,
): Promise<string> => {
  try {
    const { stdout, stderr } = await execute(file, args, {
      env,
      maxBuffer: 1 << 24,
      timeout,
    })
    return stdout + stderr
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
    const what = `${basename(file)} ${args.join(' ')}`
    throw new Error(`${what} failed:\n${stdout}${stderr}`.trim().slice(-3000))
  }
}

export const script = (name: string, ...args: string[]): Promise<string> =>
  program(join(HOME, name), args)

/** Polls until `probe` gives something. */
export const until = async <T>(
  what: string,
  milliseconds: number,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> => {
  const deadline = performance.now() + milliseconds * SLOWER
  for (;;) {
    const found = await probe()
    if (found !== undefined && found !== false) return found
    if (performance.now() > deadline)
      throw new Error(`not within ${milliseconds * SLOWER} ms: ${what}`)
    await sleep(100)
  }
}

export interface DaemonOptions {
  readonly conf: 'responder' | 'initiator'
  readonly netns?: 'peer' | 'home' | 'mobile'
  /** It runs there, and the ESP is that of the guest's kernel. */
  readonly guest?: Guest
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
  private said = ''
  private octetsRead = 0
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
    const { conf, netns, guest, ports, table = 220, intermediate, extra } = this.options
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
    // Whoever controls it need not be in the guest, where programs start slowly.
    if (guest !== undefined) args.push('-e', 'kernel', '-v', Guest.vici)
    await this.script('start', ...args)
  }

  /** The script `charon`, where the daemon is. */
  private script(action: 'start' | 'stop' | 'kill', ...args: string[]): Promise<string> {
    const { guest } = this.options
    return guest === undefined
      ? script('charon', action, this.name, ...args)
      : guest.command(join(HOME, 'charon'), action, this.name, ...args)
  }

  stop(): Promise<string> {
    return this.script('stop')
  }

  /** As a power cut does. */
  kill(): Promise<string> {
    return this.script('kill')
  }

  control(...args: string[]): Promise<string> {
    return program('swanctl', this.controlled(args), this.controlling)
  }

  /** The same, and nothing else of ours happens meanwhile. */
  controlSync(...args: string[]): void {
    execFileSync('swanctl', this.controlled(args), { env: this.controlling })
  }

  private controlled([command, ...rest]: string[]): string[] {
    const uri = readFileSync(join(this.folder, 'uri'), 'latin1').trim()
    return [command!, '--uri', uri, ...rest]
  }

  private get controlling(): NodeJS.ProcessEnv {
    const STRONGSWAN_CONF = join(this.folder, 'strongswan.conf')
    const SWANCTL_DIR = join(this.folder, 'swanctl')
    return { ...process.env, STRONGSWAN_CONF, SWANCTL_DIR, LEAK_DETECTIVE_DISABLE: '1' }
  }

  private get folder(): string {
    return join(RUN, this.name)
  }

  /**
   * The way to a daemon in the guest may be lost while another scenario changes the guest's addresses, and the command
   * then waits for ever. Loading twice does no harm.
   */
  private async load(): Promise<void> {
    for (let tries = LOADS; ; tries--) {
      try {
        await program('swanctl', this.controlled(['--load-conns']), this.controlling, LOAD_TIME)
        return
      } catch (error) {
        if (tries === 1) throw error
      }
    }
  }

  /** Adds a connection of its configuration language. */
  add(name: string, connection: string): Promise<void> {
    return this.addFile(name, `connections {\n${connection}\n}\n`)
  }

  /** Adds a whole file of it. */
  addFile(name: string, text: string): Promise<void> {
    const file = join(this.folder, 'swanctl/conf.d', `${name}.conf`)
    const loaded = this.loading.then(async () => {
      mkdirSync(join(file, '..'), { recursive: true })
      writeFileSync(file, text)
      await this.load()
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

  /** All that it has said, also before a restart. It is long, and asked for often: what is known is not read again. */
  get log(): string {
    const file = join(this.folder, 'charon.log')
    const size = statSync(file, { throwIfNoEntry: false })?.size ?? 0
    if (size <= this.octetsRead) return this.said
    const piece = Buffer.alloc(size - this.octetsRead)
    const fd = openSync(file, 'r')
    const length = readSync(fd, piece, 0, piece.length, this.octetsRead)
    closeSync(fd)
    this.octetsRead += length
    this.said += piece.toString('latin1', 0, length)
    return this.said
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

/** Gives jobs to a process of ours elsewhere, over what carries messages there. */
abstract class Worker {
  private readonly jobs = new Map<
    number,
    {
      resolve: (output: string) => void
      reject: (error: Error) => void
      progress?: Progress | undefined
    }
  >()
  private last = 0

  protected abstract send(request: { id: number; job: Job }): void

  protected received({ id, progress, output = '', error, code }: Message): void {
    const job = this.jobs.get(id)
    if (job === undefined) return
    if (progress !== undefined) return void job.progress?.(progress)
    this.jobs.delete(id)
    if (error === undefined) job.resolve(output)
    else job.reject(Object.assign(new Error(error), { code }))
  }

  protected ended(): void {
    for (const { reject } of this.jobs.values()) reject(new Error('the process ended'))
    this.jobs.clear()
  }

  run(job: Job, progress?: Progress): Promise<string> {
    return new Promise((resolve, reject) => {
      const id = ++this.last
      this.jobs.set(id, { resolve, reject, progress })
      this.send({ id, job })
    })
  }
}

const AGENT = join(import.meta.dirname, 'agent.js')

/** A process of ours in some namespace. */
export class Agent extends Worker {
  private readonly child: ChildProcess

  constructor(netns?: string) {
    super()
    const node = [process.execPath, AGENT]
    const [command, ...args] = netns === undefined ? node : ['ip', 'netns', 'exec', netns, ...node]
    this.child = spawn(command!, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.child.on('message', (message: Message) => this.received(message))
    this.child.on('exit', () => this.ended())
  }

  protected send(request: { id: number; job: Job }): void {
    this.child.send(request)
  }

  async kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    this.child.kill('SIGKILL')
    await once(this.child, 'exit')
  }
}

/** Thrown by a scenario that this machine cannot run: its message is the reason. */
export class NotRun extends Error {}

/** A user-mode Linux with ESP in its kernel, where strongSwan has ports 500 and 4500. */
export class Guest extends Worker {
  /** Where it is told what to do, past ESP (`guest-init`). */
  private static readonly control = { host: '10.98.0.2', port: 9000 } as const
  static readonly vici = `tcp://${Guest.control.host}:9001`
  /** Our end of the link to it. */
  static readonly host = '10.98.0.1'
  /** Behind it, for tunnel mode. */
  static readonly inner = '10.99.0.1'

  readonly daemon = new Daemon('guest-charon', {
    conf: 'initiator',
    ports: [500, 4500],
    intermediate: 'inter-s',
    guest: this,
  })
  private machine: ChildProcess | undefined
  private line: Socket | undefined
  private booted: Promise<void> | undefined

  /** Boots once, whoever asks; rejects with `NotRun` where no guest can run. */
  ready(): Promise<void> {
    this.booted ??= this.boot()
    return this.booted
  }

  private get console(): string {
    return join(RUN, 'guest-console.log')
  }

  private async boot(): Promise<void> {
    const output = openSync(this.console, 'w')
    const args = [process.execPath, AGENT, String(Guest.control.port)]
    // A process group of its own: the guest is many processes, and none of them may outlive the others.
    const machine = spawn(join(HOME, 'guest'), args, {
      stdio: ['ignore', output, output],
      detached: true,
    })
    closeSync(output)
    this.machine = machine
    const ended = new Promise<never>((_, reject) => {
      const tell = (): void => {
        const said = readFileSync(this.console, 'utf8').trim()
        // A kernel that has come as far as our first process can run here: then something else is wrong.
        const Kind = said.includes('guest: init runs') ? Error : NotRun
        reject(new Kind(`the guest does not run: ${said.split('\n').slice(-3).join(' / ')}`))
      }
      machine.once('exit', tell)
      machine.once('error', tell)
    })
    ended.catch(() => {})
    const connected = until('the guest answers', 30_000, async () => {
      const line = connectTo(Guest.control)
      await once(line, 'connect').catch(() => {})
      return line.readyState === 'open' ? line : void line.destroy()
    })
    connected.catch(() => {})
    this.line = await Promise.race([connected, ended])
    this.line.on('error', () => {}).once('close', () => this.ended())
    createInterface(this.line).on('line', text => this.received(JSON.parse(text) as Message))
    await this.run({ kind: 'kernel server', port: SERVICE.port })
    await this.daemon.start()
  }

  protected send(request: { id: number; job: Job }): void {
    this.line?.write(`${JSON.stringify(request)}\n`)
  }

  /** The output of a program that runs there. */
  command(file: string, ...args: string[]): Promise<string> {
    return this.run({ kind: 'command', file, args })
  }

  /** As a power cut does; `ready` boots it again. */
  async kill(): Promise<void> {
    this.booted = undefined
    const { machine } = this
    if (machine?.pid === undefined || (machine.exitCode ?? machine.signalCode) !== null) return
    const gone = once(machine, 'exit')
    process.kill(-machine.pid, 'SIGKILL')
    await gone
    this.line?.destroy()
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
  readonly guest: Guest
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
  const guest = new Guest()
  return {
    guest,
    libreswan,
    responder,
    initiator,
    peer,
    stop: async () => {
      await peer.kill()
      await guest.kill()
      await Promise.all([responder.stop(), initiator.stop(), libreswan.stop()])
    },
  }
}
