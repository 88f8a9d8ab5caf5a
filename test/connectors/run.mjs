// npm run test:connectors: every program of examples/README.md runs as it stands there, against its library and a real
// server; the last lines are a table of library, version and result, and the counts. A name runs that library alone.
import { execFileSync, spawn } from 'node:child_process'
import dgram from 'node:dgram'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freeTcpPort, installMissing, startServer, stopAll, user } from './servers.mjs'

const PROGRAM_MS = 60_000
const root = fileURLToPath(new URL('../..', import.meta.url))
const examples = join(root, 'examples')
const [only] = process.argv.slice(2)

/** The server of Debian that a section's program wants, and the port inside ESP that it is at. */
const SERVERS = {
  pg: ['postgres', 5432],
  mysql2: ['mariadb', 3306],
  ioredis: ['redis', 6379],
  'node-redis': ['redis', 6379],
  'MQTT.js': ['mosquitto', 1883],
  ssh2: ['sshd', 2222],
}
/** Where the package has another name than the section. */
const LIBRARIES = {
  gRPC: '@grpc/grpc-js',
  'node-redis': 'redis',
  'MQTT.js': 'mqtt',
  'undici and fetch': 'undici',
}
const NODES_OWN = ['http', 'https', 'http2']

const sections = readFileSync(join(examples, 'README.md'), 'utf8')
  .split(/^## /m)
  .slice(1)
  .map(text => {
    const [, program] = /^```js\n([\s\S]*?)^```$/m.exec(text) ?? []
    const policy = /`(\{ "rules".*\})`/.exec(text)?.[1]
    const isRegistered = text.includes('<!-- docs: register -->')
    return { name: text.split('\n')[0], program, isRegistered, policy }
  })
  .filter(({ name }) => only === undefined || only === name)

const versionOf = name => {
  if (NODES_OWN.includes(name)) return process.version
  const file = join(examples, 'node_modules', LIBRARIES[name] ?? name, 'package.json')
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
const request =
  'req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 2 -subj /CN=localhost'
execFileSync(
  'openssl',
  [
    ...request.split(' '),
    '-addext',
    'subjectAltName=DNS:localhost',
    '-keyout',
    keys.TLS_KEY,
    '-out',
    keys.TLS_CERT,
  ],
  { stdio: 'pipe' },
)
const clientKey = join(folder, 'ssh-key')

/** Runs a program to its end; resolves with what it said. */
const runProgram = async (words, env) => {
  const child = spawn(process.execPath, words, { env, timeout: PROGRAM_MS })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', text => (output += text))
  const [status] = await once(child, 'close')
  return { status, output }
}

/** Brings the server at that TCP port inside ESP, until the result is called. */
const forward = async (inner, outer, env) => {
  const words = [join(root, 'dist/cli/main.js'), 'forward', '-R', `${inner}:127.0.0.1:${outer}`]
  const child = spawn(process.execPath, words, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  await Promise.race([once(child.stdout, 'data'), once(child.stderr, 'data'), once(child, 'exit')])
  return async () => {
    if (child.exitCode === null && child.kill()) await once(child, 'exit')
  }
}

const missing = installMissing()
if (missing.length > 0) console.log(`missing packages of Debian: ${missing.join(' ')}`)

const started = new Map()
const serverPort = name => {
  if (!started.has(name)) started.set(name, startServer(name, folder, clientKey))
  return started.get(name)
}

const runSection = async ({ name, program, isRegistered, policy }) => {
  if (program === undefined) throw new Error('the section has no program')
  const ikePort = await freeUdpPort()
  const config = join(folder, 'ike.json')
  writeFileSync(config, JSON.stringify({ psk: { env: 'IKE_PSK' }, ikePort }))
  const [server, inner] = SERVERS[name] ?? []
  const env = {
    ...process.env,
    ...keys,
    IKE_PSK: 'sixteen octets or more of a key',
    IKE_SOCKET_CONFIG: config,
    SSH_USER: user.name,
    SSH_KEY: clientKey,
  }
  const end =
    server === undefined ? async () => {} : await forward(inner, await serverPort(server), env)
  try {
    const file = join(programs, `${name.replaceAll(/\W/g, '-')}.mjs`)
    writeFileSync(file, program)
    const policyFile = join(folder, 'policy.json')
    const protectInner = { rules: [{ action: 'protect', port: inner }], default: 'discard' }
    writeFileSync(policyFile, policy ?? JSON.stringify(protectInner))
    const register = isRegistered ? ['--import', 'ike-socket/register'] : []
    const { status, output } = await runProgram([...register, file], {
      ...env,
      ...(isRegistered ? { IKE_SOCKET_POLICY: policyFile } : {}),
    })
    // Each greets: what came back through the library is the last thing that it prints.
    const isRight = status === 0 && /^(\d+ )?hello [^\n]*\n$/.test(output)
    if (!isRight) throw new Error(`exit code ${status}: ${output}`)
  } finally {
    await end()
  }
}

const rows = []
process.chdir(examples)
try {
  for (const section of sections) {
    let fault
    try {
      await runSection(section)
    } catch (error) {
      fault = error.message
      console.log(`${section.name}: ${fault}`)
    }
    rows.push([
      section.name,
      versionOf(section.name),
      SERVERS[section.name]?.[0] ?? 'in process',
      section.isRegistered ? 'register' : 'socket',
      fault === undefined ? 'passes' : 'FAILS',
    ])
  }
} finally {
  await stopAll()
  rmSync(folder, { recursive: true, force: true })
  rmSync(programs, { recursive: true, force: true })
}

const widths = [18, 10, 11, 9, 0]
for (const row of [['library', 'version', 'server', 'by', 'result'], ...rows]) {
  console.log(
    row
      .map((cell, i) => cell.padEnd(widths[i]))
      .join(' ')
      .trimEnd(),
  )
}
const failed = rows.filter(row => row.at(-1) !== 'passes').length
console.log(`${rows.length - failed} passed, ${failed} failed`)
process.exitCode = failed === 0 && rows.length > 0 ? 0 : 1
