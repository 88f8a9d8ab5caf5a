// npm run bench [-- --nodes 20,24,26] [--only bulk-1400,ping] [--runs N] [--quick] [--json] [--write]
// Beside node:tls (TLS 1.3, mutual ECDSA P-256) and plain net, interleaved in one run, each end in a process of its own,
// warm: bulk with CPU and garbage collection per GB, round trips, connections, new SAs. Medians, and ratios to tls; small
// packets also beside secret-stream over udx (native code, installed by npm in test/bench/peers), and with sodium-native.
// `--nodes`: each of these, installed by npm in a temporary folder unless it is the one that runs this. `--write`:
// keeps RESULTS.md and its plots.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { progress } from '../../examples/progress.mjs'
import { Ends, certificate, median } from './ends.mjs'
import { measureGrowth } from './growth.mjs'
import { needsPackages } from './peers.mjs'
import { writeResults } from './results.mjs'
import { optionsOf } from './usage.mjs'

const options = optionsOf(import.meta.url, {
  nodes: { type: 'string' },
  only: { type: 'string' },
  runs: { type: 'string', default: '3' },
  quick: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  write: { type: 'boolean', default: false },
})
const MIB = 2 ** 20
const RUNS = Number(options.runs)
/** Live heap of each process, about: what Node and the package have themselves is part of it. */
const HEAPS = [9, 40]
const OWN_HEAP = 6
const scale = options.quick ? 1 / 8 : 1

const GB = 1e9
const cpu = ({ user, system }) => user + system
const collected = ({ gc }) => Object.values(gc).reduce((sum, { ms }) => sum + ms / 1000, 0)
const compactions = ({ gc }) => gc['mark-compacts']?.times ?? 0

/** A process opens and closes some of them first: what V8 has compiled before it saw that, it compiles once more. */
const WARM_CONNECTIONS = 4

const bulk = (mib, warmMib) => async ends => {
  const quarter = Math.ceil((warmMib / WARM_CONNECTIONS) * scale) * MIB
  for (let i = 0; i < WARM_CONNECTIONS; i++) await ends.run('bulk', { octets: quarter })
  const octets = Math.ceil(mib * scale) * MIB
  const { found, client, server } = await ends.run('bulk', { octets })
  const per = value => value / (octets / GB)
  return {
    'Mbit/s': found['Mbit/s'],
    'CPU s/GB': per(cpu(client) + cpu(server)),
    'of it client': per(cpu(client)),
    'of it server': per(cpu(server)),
    'garbage s/GB': per(collected(client) + collected(server)),
    'Mark-Compacts/GB': per(compactions(client) + compactions(server)),
  }
}

const ping = size => async ends => {
  const times = Math.ceil(3000 * scale)
  // V8 compiles the last of what a round trip runs through after some twenty thousand.
  const quarter = Math.ceil((20_000 / WARM_CONNECTIONS) * scale)
  for (let i = 0; i < WARM_CONNECTIONS; i++) await ends.run('ping', { times: quarter, size })
  return (await ends.run('ping', { times, size })).found
}

/** V8 compiles the last of what a connection and a new SA run through after some two thousand. */
const connect = (times, more) => async ends => {
  const orders = { times: Math.ceil(times * scale), ...more }
  await ends.run('connect', { ...orders, times: Math.ceil(2000 * scale) })
  const { found, client, server } = await ends.run('connect', orders)
  const each = used => (1000 * cpu(used)) / orders.times
  return { ...found, 'CPU ms client': each(client), 'CPU ms server': each(server) }
}

/** `heaps`: with which live heaps; `peers`: of whom. */
const ALL_SCENARIOS = [
  {
    name: 'bulk',
    words: 'bulk, datagrams as large as the loopback takes',
    peers: ['net', 'tls', 'ike', 'ike-fast', 'ike-ffi'],
    heaps: HEAPS,
    // V8 compiles the last of what a datagram runs through after some thirty thousand; each function begins a Mark-Compact.
    run: bulk(512, 2048),
  },
  {
    name: 'bulk-1400',
    words: 'bulk, MTU 1400',
    peers: ['tls', 'ike-1400', 'ike-1400-fast', 'ike-1400-ffi', 'secret-stream'],
    heaps: [40],
    // V8 compiles the last of what a packet runs through after some hundred and fifty thousand.
    run: bulk(64, 256),
  },
  {
    name: 'ping',
    words: 'round trip of 1 octet',
    peers: ['net', 'tls', 'ike', 'ike-fast', 'ike-ffi', 'secret-stream'],
    heaps: [40],
    run: ping(1),
  },
  {
    name: 'ping-1024',
    words: 'round trip of 1,024 octets',
    peers: ['net', 'tls', 'ike'],
    heaps: [40],
    run: ping(1024),
  },
  {
    name: 'connect',
    words: 'connections one after the other (ike: on an SA that is up)',
    peers: ['net', 'tls', 'ike'],
    heaps: [40],
    run: connect(400, {}),
  },
  {
    name: 'connect-16',
    words: 'connections, 16 at once (ike: on an SA that is up)',
    peers: ['net', 'tls', 'ike'],
    heaps: [40],
    run: connect(400, { atOnce: 16 }),
  },
  {
    name: 'new-sa',
    words: 'connections that make a new SA each (tls: a handshake)',
    peers: ['tls', 'ike', 'ike-ecdsa'],
    heaps: [40],
    run: connect(200, { isFresh: true }),
  },
]

const wanted = options.only?.split(',')
if (wanted !== undefined && options.write)
  throw new Error('--write keeps all results: leave --only out')
const SCENARIOS = ALL_SCENARIOS.filter(({ name }) => wanted?.includes(name) ?? true)

/** The folder with the packages of some peers, or why there is none. */
const findPackages = () => {
  const home = fileURLToPath(new URL('peers', import.meta.url))
  const folder = join(home, 'node_modules')
  try {
    if (!existsSync(folder)) execFileSync('npm', ['ci', '--silent', '--prefix', home])
    return { folder }
  } catch (error) {
    return { problem: error.message.split('\n')[0] }
  }
}

const major = version => /^v?(\d+)/.exec(version)[1]

/** Whether that Node has what it measures. */
const runsOn = (peer, version) => Number(major(version)) >= 26 || !peer.endsWith('-ffi')

/** The program of each Node that was asked for; none is left behind by `forget`. */
const findNodes = () => {
  const wanted = options.nodes?.split(',') ?? [major(process.version)]
  const folder = mkdtempSync(join(tmpdir(), 'bench-nodes-'))
  const nodes = wanted.map(version => {
    if (version === major(process.version)) return process.execPath
    const home = join(folder, version)
    mkdirSync(home)
    // Its binary is a package of its own, that needs no script.
    execFileSync('npm', ['install', '--silent', '--prefix', home, `node@${version}`], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const program = join(home, 'node_modules/node/bin/node')
    if (!existsSync(program)) throw new Error(`npm installed no Node ${version}`)
    return program
  })
  return { nodes, forget: () => rmSync(folder, { recursive: true, force: true }) }
}

const measure = async (node, version, packages) => {
  const pair = certificate()
  const found = new Map()
  const bar = progress('')
  const all =
    RUNS * SCENARIOS.reduce((sum, { peers, heaps }) => sum + peers.length * heaps.length, 0)
  let done = 0
  for (let run = 0; run < RUNS; run++) {
    for (const { name, peers, heaps, run: scenario } of SCENARIOS) {
      for (const heap of heaps) {
        for (const peer of peers.filter(peer => runsOn(peer, version))) {
          if (packages === undefined && needsPackages(peer)) continue
          const ends = await Ends.start(peer, pair, { node, packages, ballast: heap - OWN_HEAP })
          const figures = await scenario(ends)
          await ends.stop()
          const key = `${name}|${heap}|${peer}`
          found.set(key, [...(found.get(key) ?? []), figures])
          bar.update(++done / all, name)
        }
      }
    }
  }
  bar.stop()
  const rows = []
  for (const [key, runs] of found) {
    const [name, heap, peer] = key.split('|')
    const figures = Object.fromEntries(
      Object.keys(runs[0]).map(figure => [figure, median(runs.map(values => values[figure]))]),
    )
    rows.push({ name, heap: Number(heap), peer, figures })
  }
  return rows
}

const rateOf = figures => figures['Mbit/s'] ?? figures['a second'] ?? figures['p50 us']

const tell = (version, rows) => {
  console.log(`\n${version}`)
  for (const { name, words, heaps } of SCENARIOS) {
    for (const heap of heaps) {
      const some = rows.filter(row => row.name === name && row.heap === heap)
      const baseOf = name => some.find(({ peer }) => peer === name)?.figures
      console.log(`${words}, ${heap} MB of live heap`)
      for (const { peer, figures } of some) {
        const cells = Object.entries(figures).map(([figure, value]) => {
          const digits = value < 10 ? 2 : value < 100 ? 1 : 0
          return `${figure} ${value.toFixed(digits)}`
        })
        const ratios = ['tls', 'secret-stream'].flatMap(name => {
          const base = baseOf(name)
          if (base === undefined) return []
          return [`${(rateOf(figures) / rateOf(base)).toFixed(2).padStart(6)} x ${name}`]
        })
        console.log(`  ${peer.padEnd(13)} ${ratios.join(' ')}   ${cells.join(', ')}`)
      }
    }
  }
}

const { nodes, forget } = findNodes()
const { folder: packages, problem } = findPackages()
if (problem !== undefined) {
  console.error(`Missing are secret-stream and what uses sodium-native: ${problem}`)
}
try {
  const report = {
    processor: cpus()[0].model,
    cores: cpus().length,
    load: loadavg()[0],
    runs: RUNS,
    missing: problem,
    scenarios: SCENARIOS.map(({ name, words, heaps }) => ({ name, words, heaps })),
    nodes: [],
  }
  for (const node of nodes) {
    const version = execFileSync(node, ['--version'], { encoding: 'utf8' }).trim()
    const rows = await measure(node, version, packages)
    report.nodes.push({ version, rows })
    if (!options.json) tell(version, rows)
  }
  // One Node shows whether something grows.
  if (wanted === undefined) report.growth = await measureGrowth(nodes[0], scale)
  if (options.json) console.log(JSON.stringify(report))
  else {
    console.log()
    for (const [what, { words }] of Object.entries(report.growth ?? {}))
      console.log(`${what}: ${words}`)
  }
  if (options.write) await writeResults(report)
} finally {
  forget()
}
process.exit()
