/** What a program that replaces `net` by ours relies on beyond the calls themselves: processes, wrappers, configuration. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import dns from 'node:dns'
import { once } from 'node:events'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import tls from 'node:tls'
import t from 'tap'
import { configuration, configure, loadConfiguration } from '../../lib/api/configuration.ts'
import * as secureHttp from '../../lib/http.ts'
import net, { type Socket } from '../../lib/net.ts'
import { createSecureServer, createSecureSocket, type SecureSocket } from '../../lib/index.ts'
import { certificate } from '../harness/certificates.ts'

const psk = 'a pre-shared key for these tests'
const module = JSON.stringify(pathToFileURL(join(import.meta.dirname, '../../lib/net.js')).href)
const closed = (emitter: NodeJS.EventEmitter): Promise<unknown> =>
  new Promise(resolve => emitter.once('close', resolve))

/** Runs a program in a process of its own; LIMIT is far beyond what it needs. */
const LIMIT = 60_000
const run = (
  program: string,
  env: NodeJS.ProcessEnv = {},
): { lines: string[]; status: number | null; stderr: string } => {
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    ['--no-warnings', '--input-type=module', '-e', program],
    { encoding: 'utf8', timeout: LIMIT, env: { ...process.env, ...env } },
  )
  return { lines: stdout.trim().split('\n'), status, stderr }
}

const withFile = (name: string, content: string, use: (file: string) => void): void => {
  const folder = mkdtempSync(join(tmpdir(), 'ike-'))
  const file = join(folder, name)
  writeFileSync(file, content, { mode: 0o600 })
  try {
    use(file)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const SERVED = `
import net from ${module}
const server = net.createServer(socket => socket.end('served'))
server.listen(0, '127.0.0.1', () => {
  const socket = net.connect({ port: server.address().port, host: '127.0.0.1', ikePort: server.ikePort })
  socket.on('data', data => console.log(String(data))).on('close', () => process.exit())
})`

t.test('a program of net runs with the credentials of a file', async t => {
  withFile('ike.json', JSON.stringify({ psk: { env: 'SECRET_OF_TEST' }, ikePort: 0 }), file => {
    const { lines } = run(SERVED, { IKE_SOCKET_CONFIG: file, SECRET_OF_TEST: psk })
    t.strictSame(lines, ['served'])
  })
})

t.test('a faulty configuration file stops the program, and says where', async t => {
  const faults: [string, RegExp][] = [
    ['{ "psk": ', /IKE_SOCKET_CONFIG: .*ike\.json: .*JSON/],
    ['[]', /ike\.json: it must hold one JSON object/],
    ['{ "psk": "x", "lifetme": 1 }', /ike\.json: .*"lifetme"/],
    ['{ "psk": { "file": "no-such-file" } }', /ike\.json: .*no-such-file/],
    ['{ "psk": { "file": "no-such-file" } }', /ike\.json: "psk\.file": ENOENT/],
    ['{ "psk": { "env": "NOT_SET_ANYWHERE" } }', /ike\.json: .*"psk\.env"/],
    ['{\n  "psk": "x",\n  "localId": y\n}', /ike\.json: line 3: Unexpected token/],
    ['{ "psk": 3 }', /ike\.json: The option "psk" must be .*function/],
    ['{ "childLifetime": -1 }', /ike\.json: .*"childLifetime" must be an integer from 1000/],
    ['{ "psk": "x", "mode": "tunel" }', /ike\.json: .*"mode" must be one of 'auto'/],
    ['{ "psk": "x", "ikePort": 70000 }', /ike\.json: .*ikePort should be >= 0 and < 65536/],
    ['{ "psk": "x", "control": 7 }', /ike\.json: .*"control" must be a path/],
    ['{ "cert": "garbage", "key": "x" }', /ike\.json: .*"cert" must be certificates/],
  ]
  const before = configuration()
  for (const [content, words] of faults) {
    withFile('ike.json', content, file =>
      t.throws(() => loadConfiguration(file), { message: words }),
    )
  }
  t.equal(configuration(), before, 'what held before still does')
  // A file may leave the credentials to the calls.
  withFile('ike.json', '{ "localId": "a.test" }', file => loadConfiguration(file))
  configure(before)
  const { status, stderr } = run(`import ${module}`, { IKE_SOCKET_CONFIG: '/no/such/file.json' })
  t.equal(status, 1)
  t.match(stderr, /IKE_SOCKET_CONFIG: \/no\/such\/file\.json: ENOENT/)
})

t.test('classes have their own names in the package as it is published', async t => {
  const entry = async (name: string): Promise<Record<string, unknown>> =>
    (await import(new URL(`../../../dist/${name}.js`, import.meta.url).href)) as never
  const published = await entry('index')
  const OTHERS = new Set(['connect', 'createConnection', 'Server', 'Socket', 'Stream'])
  for (const file of ['index', 'net', 'http', 'connectors'])
    for (const [name, value] of Object.entries(await entry(file)))
      if (typeof value === 'function' && !OTHERS.has(name)) t.equal(value.name, name)
  const { createSecureServer } = published as { createSecureServer(options: object): unknown }
  t.throws(() => createSecureServer({ psk: 3 }), { name: 'OptionError' })
})

const PAIR = `
import net from ${module}
const given = { psk: ${JSON.stringify(psk)}, ikePort: 0 }
process.on('exit', code => console.log('exit', code))
const listen = onConnection => new Promise(resolve => {
  const server = net.createServer(given, onConnection)
  server.listen(0, '127.0.0.1', () => resolve(server))
})
const to = server => ({ ...given, host: '127.0.0.1', port: server.address().port, ikePort: server.ikePort })
`

t.test('a socket that nobody reads does not hold its process', async t => {
  const { lines, status } = run(`${PAIR}
const server = await listen(socket => {
  socket.once('readable', () => setTimeout(() => console.log('server read', String(socket.read())), 100))
  socket.on('close', () => server.close(() => console.log('server closed')))
  socket.end('from server')
})
const socket = net.connect(to(server), () => socket.end('from client'))
socket.on('finish', () => console.log('client finished'))`)
  t.strictSame(lines.sort(), [
    'client finished',
    'exit 0',
    'server closed',
    'server read from client',
  ])
  t.equal(status, 0)
})

t.test('a ping holds its process until it is answered, and no longer', async t => {
  const { lines, status } = run(`${PAIR}
const server = await listen(socket => socket.unref())
const socket = net.connect(to(server), async () => {
  socket.unref()
  server.unref()
  // An answer to one takes nothing from the other.
  const took = await Promise.all([socket.session.ping(), socket.session.ping()])
  console.log(took.every(milliseconds => milliseconds > 0))
})`)
  t.strictSame(lines, ['true', 'exit 0'])
  t.equal(status, 0)
})

t.test('a closed server does not hold its process for a connection that nobody reads', async t => {
  const { lines, status } = run(`${PAIR}
const server = await listen(socket => {
  server.close()
  socket.end()
})
const socket = net.connect(to(server))
socket.resume().on('end', () => console.log('written', socket.write('never read')))`)
  t.strictSame(lines, ['written true', 'exit 0'])
  t.equal(status, 0)
})

t.test(
  'sockets and servers that are unref()ed before they connect let their process end',
  async t => {
    const { lines, status } = run(`${PAIR}
const server = await listen(socket => socket.unref())
const target = to(server)
server.unref()
const socket = new net.Socket({ psk: given.psk })
socket.unref()
socket.connect(target)
console.log('connecting', socket.connecting)`)
    t.strictSame(lines, ['connecting true', 'exit 0'])
    t.equal(status, 0)
  },
)

t.test(
  'what an unref()ed socket was asked for is done before its process ends, as with net',
  async t => {
    const script = (given: string): string => `
const socket = new net.Socket(${given})
socket.unref()
socket.connect(target, () => console.log('connected'))
socket.write('x', () => console.log('written'))`
    const { lines, status } = run(`${PAIR}
const server = await listen(socket => socket.unref())
const target = to(server)
server.unref()${script('{ psk: given.psk }')}`)
    const theirs = run(`import net from 'node:net'
const server = net.createServer(socket => socket.unref()).listen(0)
const target = { port: server.address().port }
server.unref()${script('')}
process.on('exit', code => console.log('exit ' + code))`)
    t.strictSame(lines, ['connected', 'written', 'exit 0'])
    t.strictSame(theirs.lines, lines)
    t.equal(status, 0)
  },
)

t.test(
  'a process that ends by itself, by exit() or by a fault tells its peers at once',
  async t => {
    for (const end of ['process.exit(3)', "throw new Error('a fault')", 'server.unref()']) {
      const server = createSecureServer(
        { psk, ikePort: 0 },
        socket =>
          void socket
            .on('error', () => {})
            .resume()
            .write('x'),
      )
      server.listen(0, '127.0.0.1')
      await once(server, 'listening')
      const child = spawnChild(`${PAIR}
const socket = net.connect(${JSON.stringify({ psk, host: '127.0.0.1', port: server.address()!.port, ikePort: server.ikePort })})
const server = { unref: () => socket.unref() }
socket.on('data', () => setImmediate(() => { ${end} }))`)
      const [socket] = (await once(server, 'connection')) as [Socket]
      await closed(socket)
      t.pass(end)
      await child
      server.close()
      await closed(server)
    }
  },
)

const spawnChild = async (program: string): Promise<void> => {
  const child = spawn(process.execPath, ['--no-warnings', '--input-type=module', '-e', program], {
    stdio: 'ignore',
  })
  await once(child, 'close')
}

t.test('TLS inside a socket delivers every octet, though the client ends first', async t => {
  const { pem: cert, keyPem: key } = certificate('CN=localhost', 'P-256', undefined)
  const server = createSecureServer({ psk, ikePort: 0 }, socket => {
    socket.on('error', () => {})
    const inner = new tls.TLSSocket(socket, { isServer: true, cert, key })
    inner.on('error', (error: Error) => t.fail(error.message))
    inner.pipe(inner)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  for (let i = 0; i < 3; i++) {
    const socket = tls.connect({
      socket: createSecureSocket({
        host: '127.0.0.1',
        port: server.address()!.port,
        ikePort: server.ikePort,
        psk,
      }),
      rejectUnauthorized: false,
    })
    let octets = 0
    socket.on('data', (data: Buffer) => (octets += data.length))
    await once(socket, 'secureConnect')
    socket.end(Buffer.alloc(1_000_000))
    await closed(socket)
    t.equal(octets, 1_000_000)
  }
  server.close()
  await closed(server)
})

t.test('many small writes in one tick are gathered', async t => {
  let sends = 0
  let octets = 0
  const server = createSecureServer({ psk, ikePort: 0 }, socket => {
    socket.on('data', (data: Buffer) => (octets += data.length)).on('end', () => socket.end())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const to = { host: '127.0.0.1', port: server.address()!.port, ikePort: server.ikePort, psk }
  const socket = createSecureSocket(to)
  socket.resume()
  await once(socket, 'connect')
  const { _writev } = socket as unknown as { _writev(items: unknown[], done: () => void): void }
  Object.assign(socket, {
    _writev(items: unknown[], done: () => void) {
      sends++
      _writev.call(socket, items, done)
    },
  })
  for (let i = 0; i < 200_000; i++) socket.write('hello world')
  socket.end()
  await closed(socket)
  t.equal(octets, 200_000 * 11)
  t.ok(sends < 10, `${sends} calls carry them`)
  server.close()
  await closed(server)
})

t.test(
  'http: half a request ends by the time limit of http, and idle connections close',
  async t => {
    const web = secureHttp.createServer(
      {
        psk,
        ikePort: 0,
        headersTimeout: 200,
        requestTimeout: 400,
        connectionsCheckingInterval: 50,
      },
      (_request, response) => response.end('ok'),
    )
    web.listen(0, '127.0.0.1')
    await once(web, 'listening')
    const agent = new secureHttp.Agent({ psk, ikePort: web.ikePort, keepAlive: true })
    const request = http.get({ host: '127.0.0.1', port: web.address()!.port, agent })
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    t.equal(response.statusCode, 200)
    response.resume()
    await once(response, 'end')
    const half = createSecureSocket({
      host: '127.0.0.1',
      port: web.address()!.port,
      ikePort: web.ikePort,
      psk,
    })
    half.write('GET / HTTP/1.1\r\nHost: localhost\r\n')
    const [answer] = (await once(half, 'data')) as [Buffer]
    t.match(String(answer), /^HTTP\/1\.1 408/)
    web.closeIdleConnections()
    const count = await new Promise<number>(resolve =>
      web.getConnections((_error, n) => resolve(n)),
    )
    t.ok(count <= 1)
    agent.destroy()
    half.destroy()
    await new Promise<void>(resolve => web.close(() => resolve()))
  },
)

t.test("http: 'close' comes once, after the last answer", async t => {
  const waiting: http.ServerResponse[] = []
  const web = secureHttp.createServer({ psk, ikePort: 0 }, (_request, response) => {
    waiting.push(response)
    web.close()
    t.notOk(web.listening)
    setImmediate(() => response.end('ok'))
  })
  let closes = 0
  web.on('close', () => closes++)
  t.notOk(web.listening)
  web.listen(0, '127.0.0.1')
  await once(web, 'listening')
  t.ok(web.listening)
  web.maxConnections = 5
  t.equal(web.secureServer.maxConnections, 5)
  const agent = new secureHttp.Agent({ psk, ikePort: web.ikePort })
  const request = http.get({ host: '127.0.0.1', port: web.address()!.port, agent })
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  t.equal(closes, 0)
  response.resume()
  await once(web, 'close')
  await web[Symbol.asyncDispose]()
  t.equal(closes, 1)
})

t.test('configure refuses names that do not exist', async t => {
  t.throws(() => net.configure({ pks: 'x' } as never), { code: 'ERR_INVALID_ARG_VALUE' })
  t.throws(() => net.configure(3 as never), { code: 'ERR_INVALID_ARG_TYPE' })
})

t.test('http: an answer comes also after the client has ended its half', async t => {
  const web = secureHttp.createServer({ psk, ikePort: 0 }, (_request, response) => {
    setTimeout(() => response.end('late'), 20)
  })
  Object.assign(web, { httpAllowHalfOpen: true })
  web.listen(0, '127.0.0.1')
  await once(web, 'listening')
  const { port } = web.address()!
  const agent = new secureHttp.Agent({ psk, ikePort: web.ikePort })
  // As http's own, it takes what net.connect takes.
  const socket = agent.createConnection(port, '127.0.0.1') as SecureSocket
  socket.end('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
  let text = ''
  for await (const piece of socket) text += String(piece)
  t.match(text, /late$/)
  await new Promise<void>(resolve => web.close(() => resolve()))
})

t.test('a server that closes does not wait for peers that keep their halves open', async t => {
  const server = createSecureServer({ psk, ikePort: 0 }, socket =>
    socket.end('the last words', () => socket.destroy()),
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { ikePort } = server
  const { port } = server.address()!
  const client = createSecureSocket({ host: '127.0.0.1', port, ikePort, psk, allowHalfOpen: true })
  await once(client, 'readable')
  server.close()
  await closed(server)
  // The SA is gone, and what had come is still there.
  t.equal(client.readyState, 'open')
  t.equal(String(client.read()), 'the last words')
  const [error] = await new Promise<[NodeJS.ErrnoException]>(resolve => {
    client.write('nobody', error => resolve([error as NodeJS.ErrnoException]))
    client.on('error', () => {})
  })
  t.equal(error.code, 'EPIPE')
  client.destroy()
})

t.test('an address of one link is left for any other, as with net', async t => {
  const lookup = t.capture(dns, 'lookup', (...args: unknown[]) => {
    const found = [
      { address: 'fe80::1', family: 6 },
      { address: '127.0.0.1', family: 4 },
    ]
    ;(args.at(-1) as (...answer: unknown[]) => void)(null, found)
  })
  const server = createSecureServer({ psk, ikePort: 0 })
  server.listen(0, 'several.test')
  await once(server, 'listening')
  t.equal(lookup().length, 1)
  t.equal(server.address()!.address, '127.0.0.1')
  server.close()
  await closed(server)
})
