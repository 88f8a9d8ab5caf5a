// npm run test:connectors: every program of examples/README.md runs as it stands there, against its library and a real
// server, and so do the programs beside it; the last lines are a table of libraries, servers, their versions and results,
// and the counts. A name runs that row alone.
import { execFileSync } from 'node:child_process'
import dgram from 'node:dgram'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { command, startForward } from '../../examples/sidecar.mjs'
import { installModules } from './modules.mjs'
import { runProgram, startProgram } from './programs.mjs'
import {
  account,
  describeServer,
  innerPort,
  installMissing,
  startServer,
  stopAll,
} from './servers.mjs'
import { ownAddress, tradeUnheard } from './sniffed-shop.mjs'
import { CannotSniff } from './sniffer.mjs'

/** After that no further row is begun, and after the second time nothing goes on. */
const ALL_MS = 900_000
const END_MS = 1_200_000
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
const programs = mkdtempSync(join(examples, 'node_modules', '.programs-'))
process.once('exit', () => {
  for (const each of [folder, programs]) rmSync(each, { recursive: true, force: true })
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1))

const keys = { TLS_CERT: join(folder, 'tls.crt'), TLS_KEY: join(folder, 'tls.key') }
const makeTlsKey = () => {
  const request =
    'req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 2 -subj /CN=localhost'
  const name = ['-addext', 'subjectAltName=DNS:localhost']
  const files = ['-keyout', keys.TLS_KEY, '-out', keys.TLS_CERT]
  execFileSync('openssl', [...request.split(' '), ...name, ...files], { stdio: 'pipe' })
}
const clientKey = join(folder, 'ssh-key')

const database = ownAddress()
const started = new Map()
/** The TCP port of that server, which is started once. */
const serverPort = name => {
  const facts = { clientKey, examples, postgresHosts: [database] }
  if (!started.has(name)) started.set(name, startServer(name, folder, facts))
  return started.get(name)
}

/** The environment of programs: their configuration is a pre-shared key and a UDP port. */
const environment = ikePort => {
  const config = join(folder, 'ike.json')
  writeFileSync(config, JSON.stringify({ psk: { env: 'IKE_PSK' }, ikePort }))
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
  const env = environment(await freeUdpPort())
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

// --- a program that knows nothing of us, before a sniffer ---

const shopRow = {
  name: 'Express and pg before a sniffer',
  library: 'pg',
  server: 'postgres',
  by: 'register',
  run: async () => {
    const [port, ikePort] = [await serverPort('postgres'), await freeUdpPort()]
    const facts = { folder, env: environment(ikePort), database, port }
    console.log(`${shopRow.name}: ${await tradeUnheard(facts, ikePort)}`)
  },
}

// --- the programs beside it ---

/** One command each: its library, its server, which variables tell it where that is, and the end of what it prints. */
const COMMANDS = {
  'endpoint.mjs': { prints: /\nshop: ECONNREFUSED\n$/ },
  'microservices.mjs': { library: 'express', prints: /"number":"2",.*"billing\.internal"\}\n$/ },
  'postgres.mjs': {
    library: 'pg',
    server: 'postgres',
    by: 'register',
    where: port => ({ PGPORT: `${port}`, PGUSER: 'postgres' }),
    prints: /"item":"sugar"\}\]\nthe database says: .*"peer":"shop\.internal".*\n$/,
  },
  'iot.mjs': {
    library: 'mqtt',
    server: 'mosquitto',
    where: port => ({ MQTT_PORT: `${port}` }),
    prints: /22\.0 °C\nSAs for all of them: 1\n$/,
  },
}

const commandRows = Object.entries(COMMANDS).map(([name, facts]) => {
  const { library = 'ike-socket', server, by = 'socket', where = () => ({}), prints } = facts
  const run = async () => {
    const port = server && (await serverPort(server))
    const { status, output } = await runProgram([name], { ...process.env, ...where(port) })
    if (status !== 0 || !prints.test(output)) throw new Error(`exit code ${status}: ${output}`)
  }
  return { name, library, server, by, run }
})

/** Two terminals each: what the first and the second are told, and what one of them says in the end. */
const PAIRS = {
  'echo.mjs': { first: ['serve'], second: ['hello echo'], prints: /hello echo\n/ },
  'http.mjs': { first: ['serve'], second: ['/path'], prints: /GET \/path, from / },
  'copy.mjs': {
    first: ['receive', join(folder, 'copy')],
    second: ['send', 'README.md'],
    prints: /(\d+) octets received\n[^]*\n\1 octets sent\n/,
  },
  'certificates.mjs': {
    first: ['serve'],
    second: ['hello certificates'],
    prints: /client shows [^]*hello certificates\n/,
  },
}

const pairRows = Object.entries(PAIRS).map(([name, { first, second, prints }]) => ({
  name,
  library: 'ike-socket',
  by: 'socket',
  run: async () => {
    const keys = join(folder, 'keys')
    execFileSync(process.execPath, [command, 'keygen', keys, '--force'], { stdio: 'pipe' })
    const env = { ...process.env, IKE_PORT: `${await freeUdpPort()}`, IKE_KEYS: keys }
    const server = startProgram([name, ...first], env)
    try {
      await server.ready('listening')
      const { status, output } = await runProgram([name, ...second], env)
      const all = `${server.output()}\n${output}`
      if (status !== 0 || !prints.test(all)) throw new Error(`exit code ${status}: ${all}`)
    } finally {
      server.child.kill()
      await server.end
    }
  },
}))

// --- all of it ---

const rows = [...sectionRows, shopRow, ...commandRows, ...pairRows].filter(
  ({ name }) => only === undefined || only === name,
)

const results = []
process.chdir(examples)
const end = Date.now() + ALL_MS
const whole = setTimeout(() => {
  console.log(`not at its end after ${END_MS / 1000} s`)
  process.exit(1)
}, END_MS)
whole.unref()
try {
  makeTlsKey()
  for (const row of rows) {
    let { name } = row
    let result = 'passes'
    try {
      if (Date.now() > end) throw new Error(`${ALL_MS / 1000} s are over`)
      await row.run()
    } catch (error) {
      const isSkipped = error instanceof CannotSniff
      result = isSkipped ? 'skipped' : 'FAILS'
      if (isSkipped) name = `${name} (skipped: ${error.message})`
      else console.log(`${name}: ${error.message}`)
    }
    results.push([name, versionOf(row.library), ...describeServer(row.server), row.by, result])
  }
} finally {
  await stopAll()
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
const countOf = result => results.filter(row => row.at(-1) === result).length
const failed = countOf('FAILS')
if (countOf('skipped') > 0) console.log(`${countOf('skipped')} skipped`)
console.log(`${countOf('passes')} passed, ${failed} failed`)
process.exitCode = failed === 0 && results.length > 0 ? 0 : 1
