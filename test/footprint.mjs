// npm run footprint: what the package costs whoever installs it. It is packed and installed as npm does it, in a folder of
// its own; import and memory are medians, interleaved with what they are compared with.
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const folder = mkdtempSync(join(tmpdir(), 'ike-footprint-'))
const ROUNDS = 11
const MIB = 1024 * 1024

const median = values => values.sort((a, b) => a - b)[values.length >> 1]

const install = () => {
  const npm = (...words) =>
    execFileSync('npm', [...words, '--silent'], { cwd: folder, encoding: 'utf8' })
  const [packed] = JSON.parse(npm('pack', root, '--json', '--ignore-scripts'))
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
  npm('install', join(folder, packed.filename), '--no-audit', '--no-fund', '--ignore-scripts')
  return packed.size
}

/** Everything that the install brought, dependencies too. */
const measureFiles = () => {
  const files = readdirSync(join(folder, 'node_modules'), { recursive: true, encoding: 'utf8' })
    .filter(name => !name.startsWith('.'))
    .map(name => statSync(join(folder, 'node_modules', name)))
    .filter(stat => stat.isFile())
  return { count: files.length, octets: files.reduce((sum, { size }) => sum + size, 0) }
}

const CPU =
  'const u = process.resourceUsage(); console.log((u.userCPUTime + u.systemCPUTime) / 1000)'
const importCpu = name => {
  const code = `import ${JSON.stringify(name)}\n${CPU}`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    cwd: folder,
    encoding: 'utf8',
  })
  if (stderr !== '') throw new Error(stderr)
  return Number(stdout)
}

const importMillis = () => {
  const tls = []
  const ours = []
  for (let round = 0; round <= ROUNDS; round++) {
    const values = [importCpu('node:tls'), importCpu('ike-socket')]
    // The first of each reads from the disk.
    if (round > 0) [tls, ours].forEach((list, i) => list.push(values[i]))
  }
  return { tls: median(tls), ours: median(ours) }
}

const SERVER = `
import { createSecureServer } from 'ike-socket'
const server = createSecureServer({ psk: 'a pre-shared key of sixteen', ikePort: 0 }, s => s.pipe(s))
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify([server.address().port, server.ikePort])))
`
const CLIENT = `
import { createSecureSocket } from 'ike-socket'
const [port, ikePort] = JSON.parse(process.argv[1])
const socket = createSecureSocket({ host: '127.0.0.1', port, ikePort, psk: 'a pre-shared key of sixteen' })
socket.end('hello').resume().on('end', () => console.log(process.memoryUsage().rss))
`
const BARE = 'console.log(process.memoryUsage().rss)'

/** Of a process that has said something to a server and has its answer. */
const measureMemory = async () => {
  const server = spawn(process.execPath, ['--input-type=module', '-e', SERVER], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [said] = await once(server.stdout, 'data')
  const run = (code, ...words) => {
    const { stdout, stderr } = spawnSync(
      process.execPath,
      ['--input-type=module', '-e', code, ...words],
      { cwd: folder, encoding: 'utf8', timeout: 60_000 },
    )
    if (stdout === '') throw new Error(stderr || 'the client did not end')
    return Number(stdout) / MIB
  }
  const client = []
  const bare = []
  for (let round = 0; round < 5; round++) {
    bare.push(run(BARE))
    client.push(run(CLIENT, String(said).trim()))
  }
  server.kill()
  return { client: median(client), bare: median(bare) }
}

/** Only what is the same everywhere decides the exit code. */
const row = (what, found, unit, limit) => {
  const isOver = found > limit
  if (isOver && (unit === 'files' || unit === 'MB')) process.exitCode = 1
  const value = `${found.toFixed(unit === 'files' ? 0 : 1)} ${unit}`
  console.log(`${isOver ? '!!' : 'ok'}  ${what.padEnd(44)} ${value.padStart(10)}  (limit ${limit})`)
}

try {
  const packed = install()
  const { count, octets } = measureFiles()
  console.log(`packed: ${(packed / MIB).toFixed(2)} MiB; Node ${process.version}`)
  row('files installed', count, 'files', 60)
  row('octets installed', octets / 1e6, 'MB', 2)
  const { tls, ours } = importMillis()
  row('CPU of the import above that of node:tls', ours - tls, 'ms', 60)
  const { client, bare } = await measureMemory()
  row(`memory of a client (bare Node ${bare.toFixed(1)})`, client, 'MiB', 55)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
