// npm run test:connectors: every program of examples/README.md runs as it stands there, against its library and a real
// server; the last lines are a table of libraries, servers, their versions and results, and the counts. A name runs that row
// alone.
import { execFileSync, spawn } from 'node:child_process'
import dgram from 'node:dgram'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startForward } from '../../examples/sidecar.mjs'
import { installModules } from './modules.mjs'
import {
  account,
  describeServer,
  innerPort,
  installMissing,
  startServer,
  stopAll,
} from './servers.mjs'

/** Far beyond what a program needs, also where the machine has much else to do. */
const PROGRAM_MS = 120_000
/** After that no further row is begun. */
const ALL_MS = 900_000
const root = fileURLToPath(new URL('../..', import.meta.url))
const examples = join(root, 'examples')
const [only] = process.argv.slice(2)

/** The server that a section's program wants. */
const SERVERS = {
  pg: 'postgres',
  mysql2: 'mariadb',
  ioredis: 'redis',
  'node-redis': 'redis',
  mongodb: 'mongo',
  amqplib: 'rabbitmq',
  'MQTT.js': 'mosquitto',
  ssh2: 'sshd',
}
/** Where the package has another name than the section. */
const LIBRARIES = {
  gRPC: '@grpc/grpc-js',
  'node-redis': 'redis',
  'MQTT.js': 'mqtt',
  'undici and fetch': 'undici',
}
const NODES_OWN = ['http', 'https', 'http2']

installModules(examples)
const missing = installMissing()
if (missing.length > 0) console.log(`missing packages of Debian: ${missing.join(' ')}`)

const versionOf = library => {
  if (NODES_OWN.includes(library)) return process.version
  const file = join(examples, 'node_modules', library, 'package.json')
  return JSON.parse(readFileSync(file, 'utf8')).version
}

const freeUdpPort = async () => {
  const socket = dgram.createSocket('udp4').bind(0)
  await once(socket, 'listening')
  const { port } = socket.address()
  socket.close()
  return port
}

const folder = mkdtempSync(join(tmpdir(), 'ike-'))
// The servers' account passes through it.
chmodSync(folder, 0o711)
// Here the libraries are found, and git does not look.
const programs = join(examples, 'node_modules', '.programs')
mkdirSync(programs, { recursive: true })

const keys = { TLS_CERT: join(folder, 'tls.crt'), TLS_KEY: join(folder, 'tls.key') }
const makeTlsKey = () => {
  const request =
    'req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 2 -subj /CN=localhost'
  const name = ['-addext', 'subjectAltName=DNS:localhost']
  const files = ['-keyout', keys.TLS_KEY, '-out', keys.TLS_CERT]
  execFileSync('openssl', [...request.split(' '), ...name, ...files], { stdio: 'pipe' })
}
const clientKey = join(folder, 'ssh-key')

/** Runs a program to its end; resolves with what it said. */
const runProgram = async (words, env) => {
  const child = spawn(process.execPath, words, { env, timeout: PROGRAM_MS, killSignal: 'SIGKILL' })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', text => (output += text))
  const [code, signal] = await once(child, 'close')
  return { status: signal ?? code, output }
}

const started = new Map()
/** The TCP port of that server, which is started once. */
const serverPort = name => {
  if (!started.has(name)) started.set(name, startServer(name, folder, { clientKey, examples }))
  return started.get(name)
}

/** The environment of programs: their configuration is a pre-shared key and a UDP port. */
const environment = async () => {
  const config = join(folder, 'ike.json')
  writeFileSync(config, JSON.stringify({ psk: { env: 'IKE_PSK' }, ikePort: await freeUdpPort() }))
  return {
    ...process.env,
    ...keys,
    IKE_PSK: 'sixteen octets or more of a key',
    IKE_SOCKET_CONFIG: config,
    SSH_USER: account().name,
    SSH_KEY: clientKey,
  }
}

// --- examples/README.md ---

const runSection = async ({ name, program, isRegistered, policy }) => {
  if (program === undefined) throw new Error('the section has no program')
  const server = SERVERS[name]
  const inner = server === undefined ? undefined : innerPort(server)
  const env = await environment()
  const file = join(programs, `${name.replaceAll(/\W/g, '-')}.mjs`)
  writeFileSync(file, program)
  const policyFile = join(folder, 'policy.json')
  const protectInner = { rules: [{ action: 'protect', port: inner }], default: 'discard' }
  writeFileSync(policyFile, policy ?? JSON.stringify(protectInner))
  const register = isRegistered ? ['--import', 'ike-socket/register'] : []
  const more = isRegistered ? { IKE_SOCKET_POLICY: policyFile } : {}

  const route = server && `${inner}:127.0.0.1:${await serverPort(server)}`
  const forward = route && (await startForward(env.IKE_SOCKET_CONFIG, route, env))
  let result
  try {
    result = await runProgram([...register, file], { ...env, ...more })
  } finally {
    await forward?.stop()
  }
  // Each greets: what came back through the library is the last thing that it prints.
  const { status, output } = result
  if (status === 0 && /^(\d+ )?hello [^\n]*\n$/.test(output)) return
  throw new Error([`exit code ${status}: ${output}`, ...(forward?.said ?? [])].join('\n'))
}

const sectionRows = readFileSync(join(examples, 'README.md'), 'utf8')
  .split(/^## /m)
  .slice(1)
  .map(text => {
    const name = text.split('\n')[0]
    const [, program] = /^```js\n([\s\S]*?)^```$/m.exec(text) ?? []
    const policy = /`(\{ "rules".*\})`/.exec(text)?.[1]
    const isRegistered = text.includes('<!-- docs: register -->')
    return {
      name,
      library: LIBRARIES[name] ?? name,
      server: SERVERS[name],
      by: isRegistered ? 'register' : 'socket',
      run: () => runSection({ name, program, isRegistered, policy }),
    }
  })

// --- all of it ---

const results = []
process.chdir(examples)
const end = Date.now() + ALL_MS
try {
  makeTlsKey()
  for (const row of sectionRows.filter(({ name }) => only === undefined || only === name)) {
    let result = 'passes'
    try {
      if (Date.now() > end) throw new Error(`${ALL_MS / 1000} s are over`)
      await row.run()
    } catch (error) {
      result = 'FAILS'
      console.log(`${row.name}: ${error.message}`)
    }
    results.push([row.name, versionOf(row.library), ...describeServer(row.server), row.by, result])
  }
} finally {
  await stopAll()
  rmSync(folder, { recursive: true, force: true })
  rmSync(programs, { recursive: true, force: true })
}

const table = [['library', 'version', 'server', 'version', 'by', 'result'], ...results]
const widths = table[0].map((_title, i) => Math.max(...table.map(row => row[i].length)))
for (const row of table)
  console.log(
    row
      .map((cell, i) => cell.padEnd(widths[i]))
      .join('  ')
      .trimEnd(),
  )
const failed = results.filter(row => row.at(-1) === 'FAILS').length
console.log(`${results.length - failed} passed, ${failed} failed`)
process.exitCode = failed === 0 && results.length > 0 ? 0 : 1
