// npm run test:node -- FOLDER [piece of a name …] [--http] [--node BINARY] [--jobs N] [--real]: Node's own tests of net, or
// of http, from the folder `test` of Node's sources, with our modules in the place of `net` and `http`. `--real`: with
// Node's, for comparison. `--register https`: those of https, or of another module, as programs that know nothing of us,
// under a policy that protects all.
import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { IMPOSSIBLE, INAPPLICABLE } from './impossible.mjs'

const root = fileURLToPath(new URL('../..', import.meta.url))
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    http: { type: 'boolean', default: false },
    jobs: { type: 'string', default: '2' },
    node: { type: 'string' },
    real: { type: 'boolean', default: false },
    register: { type: 'string' },
  },
})
const [folder, ...pieces] = positionals
if (folder === undefined) {
  process.stderr.write('Which folder? The one called "test" of the sources of Node.\n')
  process.exit(2)
}
const TIMEOUT = 60_000
const FOLDERS = ['async-hooks', 'parallel', 'sequential', 'pummel']

const family = values.register ?? (values.http ? 'http' : 'net')
const TEST = new RegExp(`^test-${family}-.*\\.m?js$`)

/** Tests of net go by their names without it. */
const nameOf = file => file.replace(/^(.*)\/test-(?:net-)?(.*)\.m?js$/, '$1/$2')
const files = FOLDERS.flatMap(part =>
  readdirSync(join(folder, part))
    .filter(file => TEST.test(file))
    .map(file => `${part}/${file}`),
)
  .filter(file => !INAPPLICABLE.some(pattern => pattern.test(nameOf(file))))
  // A local (unix) socket.
  .filter(file => !readFileSync(join(folder, file), 'utf8').includes('common.PIPE'))
  .filter(file => pieces.length === 0 || pieces.some(piece => nameOf(file).includes(piece)))

const scratch = mkdtempSync(join(tmpdir(), 'ike-socket-node-'))
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }))

/** Below those that the system gives out by itself, so that no client of another test gets one. */
const PORTS = { first: 16_000, count: 16_000 }
let drawn = process.pid

/** Each once, since its test may bind it much later. */
const freePort = async () => {
  for (;;) {
    const port = PORTS.first + (drawn++ % PORTS.count)
    const socket = createSocket('udp4').bind(port)
    try {
      await once(socket, 'listening')
      return port
    } catch {
      // Someone has it.
    } finally {
      socket.close()
    }
  }
}

const policy = join(scratch, 'policy.json')
writeFileSync(policy, JSON.stringify({ rules: [], default: 'protect' }))

/** How ours come into a process, and into those that it starts. */
const environment =
  values.register === undefined
    ? { NODE_OPTIONS: `--require ${join(root, 'test/node-suite/preload.cjs')}` }
    : { NODE_OPTIONS: `--import ${join(root, 'dist/register.js')}`, IKE_SOCKET_POLICY: policy }

const FLAGS = /^\/\/ Flags: (.*)$/m

const run = async (file, isReal) => {
  const path = resolve(folder, file)
  const flags = FLAGS.exec(readFileSync(path, 'utf8'))?.[1].split(' ') ?? []
  const config = join(scratch, `${files.indexOf(file)}.json`)
  writeFileSync(
    config,
    JSON.stringify({ psk: 'a pre-shared key for the tests of Node', ikePort: await freePort() }),
  )
  const preload = isReal ? {} : environment
  const child = spawn(values.node ?? process.execPath, ['--no-warnings', ...flags, path], {
    cwd: scratch,
    env: { ...process.env, ...preload, IKE_SOCKET_CONFIG: config, IKE_SOCKET_ROOT: root },
    stdio: ['ignore', 'pipe', 'pipe'],
    // With a group of its own, so that processes that it leaves behind end with it.
    detached: true,
  })
  const end = () => {
    try {
      process.kill(-child.pid, 'SIGKILL')
    } catch {
      // Nobody is left.
    }
  }
  let text = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', chunk => (text += chunk))
  }
  const began = performance.now()
  const timer = setTimeout(() => {
    text += `\nstill alive after ${TIMEOUT / 1000} s`
    end()
  }, TIMEOUT)
  const [code] = await once(child, 'exit')
  clearTimeout(timer)
  end()
  return { ok: code === 0, text, millis: Math.round(performance.now() - began) }
}

let passed = 0
const failed = []
const waiting = [...files]
const work = async () => {
  for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
    const name = nameOf(file)
    const { ok, text, millis } = await run(file, values.real)
    const reason = IMPOSSIBLE[name]
    // A Node that is not the tests' own, or a host without IPv6, fails some by itself.
    const isOurs = !ok && reason === undefined && (values.real || (await run(file, true)).ok)
    if (ok) passed++
    else if (isOurs) failed.push(name)
    const words = reason === undefined ? "Node's own fails too" : `cannot: ${reason}`
    process.stdout.write(`${ok ? 'ok' : isOurs ? 'FAILED' : words}: ${name} ${millis} ms\n`)
    if (!isOurs) continue
    const lines = text.trim().split('\n')
    for (const line of lines.slice(0, 25)) process.stdout.write(`    ${line.slice(0, 200)}\n`)
  }
}
await Promise.all(Array.from({ length: Number(values.jobs) }, work))
process.stdout.write(`${passed} passed, ${failed.length} failed\n`)
process.exitCode = failed.length === 0 ? 0 : 1
