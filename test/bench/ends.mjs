// Two processes that are measured against each other, and what they used meanwhile.
import { execFileSync, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const END = new URL('end.mjs', import.meta.url)

/** Self-signed, ECDSA with P-256, for both ends. */
export const certificate = () => {
  const folder = mkdtempSync(join(tmpdir(), 'bench-'))
  const [key, cert] = [join(folder, 'key'), join(folder, 'cert')]
  const request =
    '-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=bench -addext subjectAltName=IP:127.0.0.1'
  try {
    const where = ['-keyout', key, '-out', cert]
    execFileSync('openssl', ['req', ...request.split(' '), ...where], { stdio: 'ignore' })
    return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const difference = (after, before) => {
  const gc = {}
  for (const [kind, { times, ms }] of Object.entries(after.gc)) {
    const { times: t = 0, ms: m = 0 } = before.gc[kind] ?? {}
    gc[kind] = { times: times - t, ms: ms - m }
  }
  return { user: after.user - before.user, system: after.system - before.system, gc }
}

export class Ends {
  #answered = {}

  /**
   * `node`: the program to run; `ballast`: MiB of live objects in each process; `flags`: of Node, by role;
   * `library`: the module to measure, in the place of the package; `packages`: the folder with those of some peers.
   */
  static async start(
    peer,
    pair,
    { node = process.execPath, ballast = 0, flags = {}, library, packages } = {},
  ) {
    const ends = new Ends()
    const begin = async role => {
      const end = fork(END, {
        execPath: node,
        execArgv: flags[role] ?? [],
        env: {
          ...process.env,
          BENCH_END: JSON.stringify({ peer, pair, ballast, role }),
          ...(library === undefined ? {} : { BENCH_PACKAGE: library }),
          ...(packages === undefined ? {} : { BENCH_PACKAGES: packages }),
          ...(peer.endsWith('-fast') ? { NODE_PATH: packages } : {}),
        },
      })
      ends[role] = end
      const first = await once(end, 'message')
      end.on('message', answer => ends.#answered[role]?.resolve(answer))
      end.on('exit', code =>
        ends.#answered[role]?.reject(new Error(`the ${role} of ${peer} ended with ${code}`)),
      )
      return first[0]
    }
    ends.place = await begin('server')
    await begin('client')
    return ends
  }

  /** One question at a time to each. */
  ask(role, message) {
    return new Promise((resolve, reject) => {
      this.#answered[role] = { resolve, reject }
      this[role].send(message)
    })
  }

  /** What the client found, and what both processes used. */
  async run(action, orders) {
    const roles = ['client', 'server']
    const facts = () => Promise.all(roles.map(role => this.ask(role, { action: 'facts' })))
    const before = await facts()
    const found = await this.ask('client', { action, place: this.place, ...orders })
    const after = await facts()
    const used = roles.map((role, i) => [role, difference(after[i], before[i])])
    return { found, ...Object.fromEntries(used) }
  }

  /** Resident octets of both. */
  async memory() {
    const [client, server] = await Promise.all(
      ['client', 'server'].map(role => this.ask(role, { action: 'facts' })),
    )
    return { client: client.rss, server: server.rss }
  }

  /** Lets both end by themselves, so that what Node writes at its end is written. */
  async stop() {
    this.#answered = {}
    const ended = ['client', 'server'].map(async role => {
      const end = this[role]
      if (end.exitCode === null) {
        const gone = once(end, 'exit')
        end.send({ action: 'end' })
        await gone
      }
    })
    await Promise.all(ended)
  }
}

export const median = values => [...values].sort((a, b) => a - b)[values.length >> 1]
