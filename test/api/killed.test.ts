/** What a program sees when the process at the other end is killed, or stands still for ever. */
import { fork, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'
import type { Kind, Report } from '../harness/mortal.ts'

const child = join(import.meta.dirname, '../harness/mortal.js')
/** Liveness time of the children is about 2 s (mortal.ts); machines that have much else to do need longer. */
const BOUND = 60_000

/** A process whose reports are kept until they are asked for. */
class Mortal {
  readonly process: ChildProcess
  readonly #reports: Report[] = []
  #wake: (() => void) | undefined

  constructor(role: string, kinds: readonly Kind[], ...numbers: readonly number[]) {
    this.process = fork(child, [role, kinds.join(), ...numbers.map(String)])
    this.process.on('message', (report: Report) => {
      this.#reports.push(report)
      this.#wake?.()
    })
    this.process.on('exit', () => this.#wake?.())
  }

  async told<E extends Report['event']>(event: E): Promise<Extract<Report, { event: E }>> {
    for (;;) {
      const found = this.#reports.find(report => report.event === event)
      if (found !== undefined) return found as Extract<Report, { event: E }>
      if (this.process.exitCode !== null) throw new Error(`ended without saying "${event}"`)
      await new Promise<void>(resolve => (this.#wake = resolve))
    }
  }

  kill(signal: 'SIGKILL' | 'SIGSTOP' = 'SIGKILL'): void {
    this.process.kill(signal)
  }
}

// A process that stands still keeps its port: nothing is refused, and silence alone tells.
const CASES: readonly { kinds: readonly Kind[]; signal: 'SIGKILL' | 'SIGSTOP' }[] = [
  { kinds: ['idle'], signal: 'SIGKILL' },
  { kinds: ['idle', 'busy'], signal: 'SIGKILL' },
  { kinds: ['idle', 'busy'], signal: 'SIGSTOP' },
]

for (const victim of ['server', 'client'] as const) {
  const name = `when the ${victim} is killed or stands still, the other's sockets end, idle or busy`
  t.test(name, { timeout: BOUND }, async t => {
    const run = async (kinds: readonly Kind[], signal: 'SIGKILL' | 'SIGSTOP'): Promise<void> => {
      const server = new Mortal('server', kinds)
      t.teardown(() => server.kill())
      const { ports } = await server.told('listening')
      const client = new Mortal('client', kinds, ports.port, ports.ikePort)
      t.teardown(() => client.kill())
      await Promise.all([server.told('ready'), client.told('ready')])
      const [dead, alive] = victim === 'server' ? [server, client] : [client, server]
      dead.kill(signal)
      const { codes } = await alive.told('over')
      t.strictSame(Object.keys(codes).sort(), [...kinds].sort())
      for (const [kind, code] of Object.entries(codes))
        t.ok(code === 'ETIMEDOUT' || code === 'ECONNRESET', `${signal}: ${kind} ends with ${code}`)
    }
    await Promise.all(CASES.map(({ kinds, signal }) => run(kinds, signal)))
  })
}
