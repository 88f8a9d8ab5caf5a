/** `node --import ike-socket/register`: programs that know nothing of us, under a policy. */
import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { certificate } from '../harness/certificates.ts'
import { freePort } from '../harness/free-port.ts'
import { packageUrl } from '../harness/package.ts'

const register = packageUrl('register')
const folder = mkdtempSync(join(tmpdir(), 'ike-'))
t.teardown(() => rmSync(folder, { recursive: true }))
const config = join(folder, 'ike.json')
const policyFile = join(folder, 'policy.json')

const psk = 'a pre-shared key for these tests'

/** Far beyond what a program needs. */
const LIMIT = 60_000

/** A program in a file of that name, under that policy. */
const run = async (
  name: string,
  program: string,
  policy: unknown,
  more: NodeJS.ProcessEnv = {},
  how: { readonly ikePort?: number; readonly isUnderPolicy?: boolean } = {},
): Promise<{ lines: string[]; stderr: string; status: number | null }> => {
  const retransmit = { initial: 50, tries: 2 }
  const settings = {
    psk: { env: 'SECRET' },
    ikePort: how.ikePort ?? (await freePort()),
    retransmit,
  }
  writeFileSync(config, JSON.stringify(settings))
  writeFileSync(policyFile, typeof policy === 'string' ? policy : JSON.stringify(policy))
  const file = join(folder, name)
  writeFileSync(file, program)
  const env = {
    ...process.env,
    IKE_SOCKET_CONFIG: config,
    IKE_SOCKET_POLICY: policyFile,
    SECRET: psk,
    ...more,
  }
  const first = how.isUnderPolicy === false ? [] : ['--import', register]
  const child = spawn(process.execPath, ['--no-warnings', ...first, file], {
    env,
    timeout: LIMIT,
  })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', chunk => (stdout += chunk))
  child.stderr.setEncoding('utf8').on('data', chunk => (stderr += chunk))
  const [status] = (await once(child, 'close')) as [number | null]
  return { lines: stdout.trim().split('\n'), stderr, status }
}

/** Of code that runs before ours: what it keeps from being replaced stays what it was. */
const holding = (place: string, name: string): string => `
const place = ${place}
const own = place.${name}
Object.defineProperty(place, '${name}', { get: () => own, set: () => undefined })`

const CHILD_HANDLES = "Object.getPrototypeOf(new (require('child_process').ChildProcess)()._handle)"
const freezing = (place: string): string => `Object.freeze(${place})`

const protect = (port: number): object => ({
  rules: [{ action: 'protect', port }],
  default: 'bypass',
})

/** A server in the clear, which nobody should reach. */
const trap = async (): Promise<{ port: number; connections: () => number; close: () => void }> => {
  let connections = 0
  const server = net.createServer(socket => {
    connections++
    socket.destroy()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  return { port, connections: () => connections, close: () => void server.close() }
}

t.test('a program of http, in CommonJS, is protected at both ends', async t => {
  const port = await freePort()
  const { lines, stderr, status } = await run(
    'web.cjs',
    `
const http = require('http')
const net = require('net')
const server = http.createServer((request, response) => {
  response.end([request.url, request.socket.constructor.name, request.socket.peerId].join(' '))
})
server.listen(${port}, '127.0.0.1', async () => {
  console.log(server.listening, server.address().port === ${port})
  const text = await new Promise(resolve => http.get('http://127.0.0.1:${port}/http', response => {
    let text = ''
    response.on('data', data => (text += data)).on('end', () => resolve(text))
  }))
  console.log(text)
  console.log(await (await fetch('http://127.0.0.1:${port}/fetch')).text())
  const { readdirSync, readFileSync, readlinkSync } = require('fs')
  const orNothing = read => { try { return read() } catch { return '' } }
  const own = readdirSync('/proc/self/fd').map(fd => orNothing(() => readlinkSync('/proc/self/fd/' + fd)))
  // Another process may have the same port in the clear.
  const rows = ['/proc/net/tcp', '/proc/net/tcp6'].flatMap(name => orNothing(() => readFileSync(name, 'utf8')).split('\\n'))
    .filter(row => own.includes('socket:[' + row.trim().split(/\\s+/)[9] + ']'))
  console.log('in the clear', rows.join('').includes(':${port.toString(16).toUpperCase().padStart(4, '0')} '))
  server.close(() => console.log('closed', server.listening, server.address()))
  server.closeAllConnections()
  setTimeout(() => process.exit(), 2000).unref()
})`,
    protect(port),
  )
  t.equal(stderr, '')
  t.equal(status, 0)
  t.match(lines, [
    'true true',
    /^\/http SecureSocket /,
    /^\/fetch SecureSocket /,
    'in the clear false',
    'closed false',
  ])
})

t.test('TLS goes inside; sockets that are made before they connect are protected', async t => {
  const port = await freePort()
  const { pem: cert, keyPem: key } = certificate('CN=localhost', 'P-256', undefined)
  const { lines, stderr } = await run(
    'tls.mjs',
    `
import { connect, createServer } from 'node:tls'
import net, { Socket } from 'node:net'
const options = ${JSON.stringify({ cert, key })}
const server = createServer(options, socket => socket.end('over tls'))
server.listen(${port}, '127.0.0.1', () => {
  const socket = connect({ host: '127.0.0.1', port: ${port}, ca: options.cert, checkServerIdentity: () => undefined })
  socket.on('data', data => console.log(String(data)))
  socket.on('close', () => {
    const plain = new Socket()
    plain.connect(${port}, '127.0.0.1', () => console.log(plain.remoteAddress, plain.remotePort === ${port}))
    plain.write('no TLS')
    plain.on('error', error => console.log(error.code))
    plain.on('close', hadError => {
      console.log('close', hadError)
      process.exit()
    })
  })
})
server.on('tlsClientError', () => {})`,
    protect(port),
  )
  t.equal(stderr, '')
  t.match(lines, ['over tls', '127.0.0.1 true', /close/])
})

t.test('a TLSSocket tells of its connection, and leaves none behind', async t => {
  const port = await freePort()
  const { pem: cert, keyPem: key } = certificate('CN=localhost', 'P-256', undefined)
  const program = `
import { connect, createServer } from 'node:tls'
import { once } from 'node:events'
const options = ${JSON.stringify({ cert, key })}
const server = createServer(options, socket => socket.end('over tls'))
server.on('tlsClientError', () => {})
await once(server.listen(${port}, '127.0.0.1'), 'listening')
const place = { host: '127.0.0.1', port: ${port}, ca: options.cert, checkServerIdentity: () => undefined }
const socket = connect(place)
for (const event of ['connectionAttempt', 'connect', 'ready', 'secureConnect', 'data', 'end', 'close'])
  socket.on(event, fact => console.log(event, String(fact)))
await once(socket, 'close')
const early = connect(place)
early.on('error', error => console.log(error.code)).on('close', hadError => console.log('close', hadError)).destroy()
await once(early, 'close')
await new Promise(resolve => server.close(resolve))
setTimeout(() => console.log('quiet'), 200)`
  const under = await run('connect.mjs', program, protect(port))
  const without = await run('connect.mjs', program, protect(port), {}, { isUnderPolicy: false })
  t.equal(under.stderr, '')
  t.strictSame(under.lines, without.lines)
  t.equal(under.lines.at(-1), 'quiet')
})

t.test('no octet is lost that was written before the end', async t => {
  const port = await freePort()
  const { lines, stderr, status } = await run(
    'tail.mjs',
    `
import net from 'node:net'
const server = net.createServer({ allowHalfOpen: true }, socket => {
  let octets = 0
  socket.end('first')
  // Only now is anything read, so that all ways are full.
  setTimeout(() => {
    socket.on('data', data => (octets += data.length))
    socket.on('end', () => console.log('read', octets))
  }, 300)
  server.close()
})
server.listen(${port}, '127.0.0.1', () => {
  const socket = net.connect({ port: ${port}, host: '127.0.0.1', allowHalfOpen: true })
  socket.resume()
  socket.on('end', () => socket.end(Buffer.alloc(5_000_000)))
})`,
    protect(port),
  )
  t.equal(stderr, '')
  t.equal(status, 0)
  t.strictSame(lines, ['read 5000000'])
})

t.test('sockets that are unref, of TLS or not, do not hold the process', async t => {
  const [port, tlsPort] = [await freePort(), await freePort()]
  const { pem: cert, keyPem: key } = certificate('CN=localhost', 'P-256', undefined)
  const { lines, stderr, status } = await run(
    'unref.mjs',
    `
import { once } from 'node:events'
import net from 'node:net'
import tls from 'node:tls'
const options = ${JSON.stringify({ cert, key })}
const plain = net.createServer(socket => socket.unref()).listen(${port}, '127.0.0.1')
const overTls = tls.createServer(options, socket => socket.unref()).listen(${tlsPort}, '127.0.0.1')
await Promise.all([once(plain, 'listening'), once(overTls, 'listening')])
const first = net.connect(${port}, '127.0.0.1')
await once(first, 'connect')
const second = tls.connect({ port: ${tlsPort}, host: '127.0.0.1', ca: options.cert, checkServerIdentity: () => undefined })
await once(second, 'secureConnect')
for (const each of [plain, overTls, first, second]) each.unref()
net.connect(${port}, '127.0.0.1').unref()
process.on('exit', () => console.log(first.readyState, second.readyState))`,
    { rules: [{ action: 'protect', port: [port, tlsPort] }], default: 'bypass' },
  )
  t.equal(stderr, '')
  t.equal(status, 0)
  t.strictSame(lines, ['open open'])
})

t.test('a protected socket answers as one of net does', async t => {
  const [port, tlsPort] = [await freePort(), await freePort()]
  const { pem: cert, keyPem: key } = certificate('CN=localhost', 'P-256', undefined)
  const { lines, stderr } = await run(
    'facts.mjs',
    `
import { once } from 'node:events'
import net from 'node:net'
import tls from 'node:tls'
const options = ${JSON.stringify({ cert, key })}
const facts = (name, socket) => {
  const { address, port } = socket.address()
  console.log(name, socket.remoteAddress, socket.remoteFamily, address, port === socket.localPort, socket.remotePort > 0)
}
const reset = {}
reset.promise = new Promise(resolve => (reset.resolve = resolve))
const plain = net.createServer(socket => socket.on('error', reset.resolve)).listen(${port}, '127.0.0.1')
const overTls = tls.createServer(options, socket => {
  facts('server', socket)
  socket.end()
}).listen(${tlsPort}, '127.0.0.1')
await Promise.all([once(plain, 'listening'), once(overTls, 'listening')])
const place = { port: ${tlsPort}, host: '127.0.0.1' }
const trust = { ca: options.cert, checkServerIdentity: () => undefined }
const straight = tls.connect({ ...place, ...trust })
await once(straight, 'secureConnect')
facts('tls', straight)
// As STARTTLS has it: over a socket that is connected.
const below = net.connect(place)
await once(below, 'connect')
const later = tls.connect({ socket: below, ...trust })
await once(later, 'secureConnect')
facts('later', later)
const socket = net.connect(${port}, '127.0.0.1')
await once(socket, 'connect')
facts('net', socket)
socket.resetAndDestroy()
console.log((await reset.promise).code)
const blockList = new net.BlockList()
blockList.addAddress('127.0.0.1')
const [error] = await once(net.connect({ port: ${port}, host: '127.0.0.1', blockList }), 'error')
console.log(error.code)
process.exit()`,
    { rules: [{ action: 'protect', port: [port, tlsPort] }], default: 'bypass' },
  )
  t.equal(stderr, '')
  const same = '127.0.0.1 IPv4 127.0.0.1 true true'
  t.strictSame(
    [...lines].sort(),
    [
      `tls ${same}`,
      `server ${same}`,
      `server ${same}`,
      `later ${same}`,
      `net ${same}`,
      'ECONNRESET',
      'ERR_IP_BLOCKED',
    ].sort(),
  )
})

t.test('a port is what net takes for one, protected or not', async t => {
  const [port, bypassed] = [await freePort(), await freePort()]
  const program = `
const net = require('net')
const { once } = require('events')
const tell = async (what, listen) => {
  try {
    const server = listen(net.createServer(socket => socket.end()))
    await once(server, 'listening')
    const at = server.address().port
    const socket = typeof what === 'object' ? net.connect(at) : net.connect(what, '127.0.0.1')
    await once(socket.resume(), 'close')
    console.log(JSON.stringify(what), what.port === undefined && typeof what === 'object' ? 'any' : at, 'connected')
    await new Promise(resolve => server.close(resolve))
  } catch (error) {
    console.log(JSON.stringify(what), error.code)
  }
}
const main = async () => {
  for (const port of [${port}, ${bypassed}]) {
    for (const text of ['0x' + port.toString(16), ' ' + port + ' ', port + '.0', '+' + port, '0o' + port.toString(8)])
      await tell(text, server => server.listen(text, '127.0.0.1'))
    await tell({ port }, server => server.listen({ port: '0x' + port.toString(16), host: '127.0.0.1' }))
  }
  for (const wrong of ['', ' ', '1.5', '70000', 70000, -1, NaN])
    await tell(wrong, server => server.listen(wrong))
  await tell({}, server => server.listen(null))
  const twice = net.createServer()
  try { twice.listen({ port: ${port}, backlog: 1, signal: 'x' }) } catch (error) { console.log(error.code) }
  twice.listen(${port}, () => { console.log('again'); process.exit() })
}
main()`
  const under = await run('ports.cjs', program, protect(port))
  const without = await run('ports.cjs', program, protect(port), {}, { isUnderPolicy: false })
  t.strictSame(under.lines, without.lines)
  t.equal(under.lines.filter(line => line.endsWith('connected')).length, 13)
})

t.test('a protected server drops connections beyond its limit, and listens once', async t => {
  const port = await freePort()
  const { lines, stderr, status } = await run(
    'limit.mjs',
    `
import { once } from 'node:events'
import net from 'node:net'
const server = net.createServer(socket => console.log('connection', socket.server === server))
server.on('drop', ({ remoteAddress }) => console.log('drop', remoteAddress))
server.listen(${port}, '127.0.0.1')
await once(server, 'listening')
try {
  server.listen(${port})
} catch (error) {
  console.log(error.code)
}
server.maxConnections = 1
const first = net.connect(${port}, '127.0.0.1')
await once(first, 'connect')
const second = net.connect(${port}, '127.0.0.1')
await once(second.resume(), 'close')
first.destroy()
server.close(() => console.log('closed'))`,
    protect(port),
  )
  t.equal(stderr, '')
  t.equal(status, 0)
  t.strictSame(lines, ['ERR_SERVER_ALREADY_LISTEN', 'connection true', 'drop 127.0.0.1', 'closed'])
})

t.test('what is protected is never reached in the clear when IKE fails', async t => {
  const { port, connections, close } = await trap()
  const attempt = `
import childProcess from 'node:child_process'
import { connect } from 'node:net'
import { isMainThread, Worker } from 'node:worker_threads'
import { once } from 'node:events'
const where = process.env.STEP ?? (isMainThread ? 'main' : 'worker')
const socket = connect(${port}, '127.0.0.1')
const [error] = await once(socket, 'error')
console.log(where, error.code)
if (where === 'main') {
  await once(new Worker(new URL(import.meta.url), { execArgv: [] }), 'exit')
  const file = process.argv[1]
  const bare = { PATH: process.env.PATH, STEP: 'child' }
  const child = childProcess.spawn(process.execPath, [file], { env: bare, stdio: 'inherit' })
  await once(child, 'exit')
  childProcess.execFileSync(process.execPath, [file], { env: { ...bare, STEP: 'sync' }, stdio: 'inherit' })
  await once(childProcess.fork(file, { execArgv: [], env: { ...bare, STEP: 'fork' } }), 'exit')
}`
  const { lines, stderr } = await run('attempts.mjs', attempt, protect(port))
  t.equal(stderr, '')
  const failed = ['main', 'worker', 'child', 'sync', 'fork'].map(step => `${step} ECONNREFUSED`)
  t.strictSame(lines, failed)
  t.equal(connections(), 0)
  close()
})

t.test('no other way to write a name or an address leads past a rule', async t => {
  const { port, connections, close } = await trap()
  const attempt = `
import http2 from 'node:http2'
import net from 'node:net'
import tls from 'node:tls'
import { once } from 'node:events'
class Own extends net.Socket {}
const port = ${port}
const hosts = ['127.0.0.1', '::ffff:127.0.0.1', '::ffff:7f00:1', '0:0:0:0:0:FFFF:7F00:0001', '127.1', '2130706433', '0x7f.1', 'localhost', '\uff4cocalhost', '0.0.0.0', '::', '0', '::ffff:0.0.0.0']
const ways = {
  net: host => net.connect({ host, port }),
  subclass: host => new Own().connect(String(port), host),
  nested: host => net.Socket.prototype.connect.call(new net.Socket(), [{ host, port }, null]),
  tls: host => tls.connect({ host, port }),
  tlsSocket: host => new tls.TLSSocket(new net.Socket()).connect({ host, port }),
  lookup: () => net.connect({ host: 'no.test', port, lookup: (name, how, done) => done(null, [{ address: '::ffff:7f00:1', family: 6 }]) }),
  family: () => net.connect({ host: 'no.test', port, lookup: (name, how, done) => done(null, '127.0.0.1', 4) }),
  getter: () => {
    let reads = 0
    return net.connect({ host: '127.0.0.1', get port() { return reads++ ? port : 1 } })
  },
  dots: () => net.connect({ host: 'secret.test..', port, lookup: (name, how, done) => done(null, '127.0.0.1', 4) }),
  late: () => net.connect({ host: 'no.test', port, autoSelectFamily: true, lookup: (name, how, done) => {
    const list = [{ address: '192.0.2.1', family: 4 }]
    done(null, list)
    list[0].address = '127.0.0.1'
  }, signal: AbortSignal.timeout(100) }),
}
for (const [name, way] of Object.entries(ways)) {
  for (const host of hosts) {
    const socket = way(host)
    const what = await new Promise(done => socket.once('connect', () => done('CONNECTED')).once('error', ({ code }) => done(code)))
    socket.destroy()
    if (!['ECONNREFUSED', 'EACCES', 'ABORT_ERR', 'ENETUNREACH', 'EHOSTUNREACH'].includes(what)) console.log(name, host, what)
  }
}
for (const scheme of ['http', 'https']) {
  for (const host of hosts) {
    const url = scheme + '://' + (host.includes(':') ? '[' + host + ']' : host) + ':' + port
    await fetch(url).then(() => console.log(url), () => {})
    const session = http2.connect(url)
    await once(session, 'error').catch(() => {})
    session.destroy()
  }
}
console.log('done')`
  const { lines, stderr } = await run('spellings.mjs', attempt, {
    rules: [
      { action: 'protect', address: ['127.0.0.0/8', '::1/128'] },
      { action: 'protect', host: ['localhost', 'secret.test'] },
    ],
    default: 'bypass',
  })
  t.equal(stderr, '')
  t.strictSame(lines, ['done'])
  t.equal(connections(), 0)
  close()
})

t.test(
  'what is discarded fails; a name that has an address of another rule is refused',
  async t => {
    const { port, connections, close } = await trap()
    const { lines, stderr } = await run(
      'refused.cjs',
      `
const net = require('net')
const tell = (name, emitter) => new Promise(resolve => emitter.on('error', error => resolve(console.log(name, error.code, error.message))))
;(async () => {
  await tell('name', net.connect(${port}, 'localhost'))
  await tell('discarded', net.connect({ port: 1, host: 'a.evil.test' }))
  await tell('server', net.createServer().listen(7))
  const clear = net.createServer().listen(0, '127.0.0.1', () => {
    net.connect(clear.address().port, '127.0.0.1', () => {
      console.log('in the clear')
      process.exit()
    })
  })
})()`,
      {
        rules: [
          { action: 'discard', host: '*.evil.test' },
          { action: 'protect', direction: 'out', address: ['127.0.0.1', '::1'], port },
          { action: 'discard', direction: 'in', port: 7 },
        ],
        default: 'bypass',
      },
    )
    t.equal(stderr, '')
    t.match(lines, [
      /^name EACCES localhost has the address .* for which "rules\[1\]".*"protect"/,
      /^discarded EACCES .*a\.evil\.test:1 is discarded \("rules\[0\]"/,
      /^server EACCES .*port 7 is discarded/,
      'in the clear',
    ])
    t.equal(connections(), 0)
    close()
  },
)

t.test('a faulty policy file stops the program, and says where', async t => {
  const faults: [string, RegExp, NodeJS.ProcessEnv?][] = [
    ['{ "rules": [],\n "default": }', /policy\.json: .*JSON/],
    ['{ "rules": [], "default": "bypass", "x": 1 }', /policy\.json: Unknown option "x"/],
    ['{}', /must name a policy file/, { IKE_SOCKET_POLICY: '' }],
    ['{}', /no-such-file/, { IKE_SOCKET_POLICY: join(folder, 'no-such-file') }],
  ]
  for (const [content, words, env] of faults) {
    const { lines, stderr, status } = await run('never.cjs', 'console.log("started")', content, env)
    t.match(stderr, words)
    t.equal(status, 1)
    t.strictSame(lines, [''])
  }
})

t.test('where a hook does not take, the program does not start', async t => {
  const { port, connections, close } = await trap()
  const broken: [string, string, string][] = [
    ['connect.cjs', holding("require('net').Socket.prototype", 'connect'), 'net.connect'],
    ['tls.cjs', holding("require('tls')", 'connect'), 'tls.connect'],
    ['listen.cjs', holding("require('net').Server.prototype", 'listen'), 'net.Server.listen'],
    ['child.cjs', freezing(CHILD_HANDLES), "Node's handles of child processes"],
    ['sync.cjs', freezing("process.binding('spawn_sync')"), "Node's handles of child processes"],
    [
      'create.cjs',
      `require('net').createConnection = () => new (require('events').EventEmitter)()`,
      'net.createConnection',
    ],
  ]
  for (const [name, text, victim] of broken) {
    const before = join(folder, `before-${name}`)
    writeFileSync(before, text)
    const program = `console.log('started'); require('net').connect(${port}, '127.0.0.1')`
    const more = { NODE_OPTIONS: `--require ${before}` }
    const { lines, stderr, status } = await run(name, program, protect(port), more)
    t.match(stderr, `IKE_SOCKET_POLICY has no effect on ${victim}`)
    t.equal(status, 1)
    t.strictSame(lines, [''])
  }
  t.equal(connections(), 0)
  close()
})

t.test('a hook that is taken away after the start leads nowhere in the clear', async t => {
  const { port, connections, close } = await trap()
  const free = await freePort()
  const before = join(folder, 'keeper.cjs')
  // What a module that was loaded before has kept.
  writeFileSync(
    before,
    `const { Server, Socket } = require('net')
globalThis.kept = { connect: Socket.prototype.connect, listen: Server.prototype.listen, tls: require('tls').connect }`,
  )
  const attempt = `
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createRequire, syncBuiltinESMExports } from 'node:module'
import net from 'node:net'
import tls from 'node:tls'
import { isMainThread, Worker } from 'node:worker_threads'
const where = process.env.STEP ?? (isMainThread ? 'main' : 'worker')
process.on('warning', ({ code }) => console.log(where, code))
const tell = async (name, emitter) => {
  const what = await Promise.race([
    ...['connect', 'secureConnect', 'listening'].map(event => once(emitter, event).then(() => event)),
    once(emitter, 'error').then(([error]) => error.code),
  ]).catch(error => error.code)
  console.log(where, name, what)
}
const { connect, listen, tls: tlsConnect } = globalThis.kept
const place = { port: ${port}, host: '127.0.0.1' }
await tell('kept', connect.call(new net.Socket(), place))
await tell('kept by name', connect.call(new net.Socket(), { ...place, host: 'localhost', family: 4 }))
await tell('kept server', listen.call(net.createServer(), ${free}, '127.0.0.1'))
net.Socket.prototype.connect = connect
net.Server.prototype.listen = listen
tls.connect = tlsConnect
syncBuiltinESMExports()
await tell('net', net.connect(place))
await tell('net of CommonJS', createRequire(import.meta.url)('net').connect(place))
await tell('tls', (await import('node:tls')).connect(place))
await tell('server', net.createServer().listen(${free}, '127.0.0.1'))
const open = net.createServer().listen(0, '127.0.0.1')
await tell('bypassed server', open)
await tell('bypassed', net.connect(open.address().port, '127.0.0.1'))
open.close()
if (where === 'main') {
  await once(new Worker(new URL(import.meta.url)), 'exit')
  await once(spawn(process.execPath, [process.argv[1]], { env: { ...process.env, STEP: 'child' }, stdio: 'inherit' }), 'exit')
}
process.exit()`
  const { lines, stderr } = await run(
    'unhooked.mjs',
    attempt,
    { rules: [{ action: 'protect', port: [port, free] }], default: 'bypass' },
    { NODE_OPTIONS: `--require ${before}`, NODE_NO_WARNINGS: '1' },
  )
  t.equal(stderr, '')
  const ways = ['kept', 'kept by name', 'kept server', 'net', 'net of CommonJS', 'tls', 'server']
  for (const where of ['main', 'worker', 'child']) {
    t.strictSame(
      lines.filter(line => line.startsWith(`${where} `)).sort(),
      [
        ...ways.map(way => `${where} ${way} EACCES`),
        `${where} bypassed server listening`,
        `${where} bypassed connect`,
        // Of connections, and of servers.
        `${where} IKE_POLICY_HOOK`,
        `${where} IKE_POLICY_HOOK`,
      ].sort(),
    )
  }
  t.equal(connections(), 0)
  close()
})

t.test('no way to start a child or a worker leads past the policy', async t => {
  const { port, connections, close } = await trap()
  const before = join(folder, 'kept-starts.cjs')
  writeFileSync(
    before,
    `const child = require('child_process')
globalThis.kept = { ...child, proto: child.ChildProcess.prototype.spawn }`,
  )
  const attempt = (connect: string): string => `${connect}(${port}, '127.0.0.1')
  .on('connect', () => console.log('CONNECTED'))
  .on('error', ({ code }) => console.log(process.env.STEP ?? 'inherited', code))`
  const step = join(folder, 'step.mjs')
  writeFileSync(step, attempt("import { connect } from 'node:net'\nconnect"))
  const classic = attempt("'use strict'; require('net').connect")
  const ways = `
import child from 'node:child_process'
import cluster from 'node:cluster'
import { once } from 'node:events'
import { Worker, SHARE_ENV } from 'node:worker_threads'
const [node, step, stdio] = [process.execPath, ${JSON.stringify(step)}, 'inherit']
const ended = emitter => once(emitter, 'exit')
for (const name of ['NODE_OPTIONS', 'IKE_SOCKET_POLICY', 'IKE_SOCKET_CONFIG', 'SECRET']) delete process.env[name]
process.chdir('/')
const command = JSON.stringify(node) + ' ' + JSON.stringify(step)
child.execSync(command, { stdio })
child.spawnSync(node, [step], { stdio })
await ended(child.spawn(node, [step], { stdio }))
await ended(child.spawn('/bin/sh', ['-c', command], { stdio, env: { STEP: 'shell' } }))
await ended(child.fork(step, { execArgv: [], env: { STEP: 'fork' }, cwd: '/' }))
cluster.setupPrimary({ exec: step, execArgv: [], args: [] })
const worker = cluster.fork({ STEP: 'cluster' }).on('online', () => setTimeout(() => worker.disconnect(), 1000))
await ended(worker)
process.binding('spawn_sync').spawn({ file: node, args: [node, step], envPairs: ['STEP=binding'], stdio: [0, 1, 2].map(fd => ({ type: 'inherit', fd })) })
await ended(kept.spawn(node, [step], { stdio, env: { STEP: 'kept' } }))
kept.spawnSync(node, [step], { stdio, env: { STEP: 'kept sync' } })
child.ChildProcess.prototype.spawn = kept.proto
await ended(child.spawn(node, [step], { stdio, env: { STEP: 'taken' } }))
await ended(new Worker(step))
await ended(new Worker(step, { execArgv: [], env: { STEP: 'worker' } }))
await ended(new Worker(step, { env: { STEP: 'worker env' } }))
await ended(new Worker(${JSON.stringify(classic)}, { eval: true, env: { STEP: 'eval' } }))
await ended(new Worker(${JSON.stringify(classic)}, { eval: true }))
await ended(new Worker(step, { env: SHARE_ENV, execArgv: [] }))
process.execve?.(node, [node, step], { STEP: 'execve' })
console.log('execve ECONNREFUSED')`
  const { lines, stderr, status } = await run('starts.mjs', ways, protect(port), {
    NODE_OPTIONS: `--require ${before} --max-old-space-size=500`,
  })
  t.equal(stderr, '')
  t.equal(status, 0)
  const given = ['shell', 'fork', 'cluster', 'binding', 'kept', 'kept sync', 'taken']
  const inWorkers = ['worker', 'worker env', 'eval', 'execve']
  const inherited = Array.from({ length: 6 }, () => 'inherited')
  const all = [...given, ...inWorkers, ...inherited].map(name => `${name} ECONNREFUSED`)
  t.strictSame(lines.sort(), all.sort())
  t.equal(connections(), 0)
  close()
})

t.test('a worker that comes past the hook is not started', async t => {
  const before = join(folder, 'kept-worker.cjs')
  writeFileSync(before, "globalThis.Kept = require('worker_threads').Worker")
  const attempt = `
import threads from 'node:worker_threads'
import { register } from 'node:module'
const code = "console.log('started')"
try {
  new Kept(code, { eval: true })
} catch ({ code }) {
  console.log(code)
}
threads.Worker = Kept
try {
  new threads.Worker(code, { eval: true })
} catch ({ code }) {
  console.log(code)
}
register('data:text/javascript,export const resolve = (name, context, next) => next(name, context)')
await import('data:text/javascript,console.log("with a loader")')`
  const more = { NODE_OPTIONS: `--require ${before}` }
  const { lines, stderr } = await run('past.mjs', attempt, protect(1), more)
  t.equal(stderr, '')
  t.strictSame(lines, ['ERR_IKE_POLICY', 'ERR_IKE_POLICY', 'with a loader'])
})

t.test("an eval'ed worker runs as without a policy", async t => {
  const attempt = `
import { Worker } from 'node:worker_threads'
const run = code =>
  new Promise(done => {
    const worker = new Worker(code, { eval: true, workerData: 7 })
    worker.on('error', ({ name }) => console.log('error', name)).on('message', message => console.log(message)).on('exit', done)
    worker.postMessage('question')
  })
await run("'use strict'; const { parentPort, workerData } = require('worker_threads'); parentPort.once('message', text => parentPort.postMessage([text, workerData, typeof module, __filename, (function () { return this === undefined })()].join()))")
await run("import('node:fs').then(fs => require('worker_threads').parentPort.postMessage(typeof fs.readFileSync))")
await run("import { parentPort } from 'node:worker_threads'; parentPort.postMessage('module')")
await run("throw new RangeError('of the worker')")
await run('no script at all')`
  const { lines, stderr } = await run('evaluated.mjs', attempt, protect(1))
  t.equal(stderr, '')
  t.strictSame(lines, [
    'question,7,object,[worker eval],true',
    'function',
    'module',
    'error RangeError',
    'error SyntaxError',
  ])
})

const outer = Object.values(networkInterfaces())
  .flatMap(list => list ?? [])
  .find(({ family, internal }) => family === 'IPv4' && !internal)

t.test(
  `under a policy a silent gateway is not called by TCP, as it is otherwise${outer === undefined ? ' (skipped: this host has no address but of the loopback)' : ''}`,
  { skip: outer === undefined },
  async t => {
    const { address } = outer!
    let calls = 0
    const called = net.createServer(socket => {
      calls++
      socket.destroy()
    })
    called.listen(0, address)
    await once(called, 'listening')
    const { port: ikePort } = called.address() as net.AddressInfo
    const silent = createSocket('udp4').bind(ikePort, address)
    await once(silent, 'listening')
    const fails = (from: string): string => `
import { connect } from '${from}'
connect({ host: '${address}', port: 80 }).on('error', ({ code }) => {
  console.log(code)
  process.exit()
})`
    const policy = { rules: [{ action: 'protect', address }], default: 'bypass' }
    const { lines } = await run('silent.mjs', fails('node:net'), policy, {}, { ikePort })
    t.strictSame(lines, ['ETIMEDOUT'])
    t.equal(calls, 0)
    const secureNet = pathToFileURL(join(import.meta.dirname, '../../lib/net.js')).href
    const how = { ikePort, isUnderPolicy: false }
    const other = await run('silent.mjs', fails(secureNet), policy, {}, how)
    t.strictSame(other.lines, ['ETIMEDOUT'])
    t.equal(calls, 1)
    silent.close()
    called.close()
  },
)

t.test('a rule that can never match stops the program by the names of both', async t => {
  const rules = [
    { action: 'bypass', address: '10.0.0.0/8' },
    { action: 'protect', address: '10.1.0.0/16', port: 80 },
  ]
  const { lines, stderr, status } = await run('never.cjs', 'console.log("started")', {
    rules,
    default: 'bypass',
  })
  t.match(stderr, /policy\.json: .*"rules\[1\]" can never match: "rules\[0\]"/)
  t.equal(status, 1)
  t.strictSame(lines, [''])
})
