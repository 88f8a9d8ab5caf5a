/** The sockets over real UDP on the loopback, and beside net's own. */
import { once } from 'node:events'
import * as http from 'node:http'
import * as net from 'node:net'
import { createHash, randomBytes } from 'node:crypto'
import t from 'tap'
import {
  createSecureServer,
  createSecureSocket,
  SecureSocket,
  type SecureServer,
} from '../../lib/index.ts'

const psk = 'a pre-shared key for these tests'

interface Rig {
  server: SecureServer
  port: number
  ikePort: number
  connect(options?: object): SecureSocket
}

const serve = async (
  onConnection: (socket: SecureSocket) => void,
  options: object = {},
): Promise<Rig> => {
  const server = createSecureServer({ psk, ikePort: 0, ...options }, onConnection)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const port = server.address()!.port
  const ikePort = server.ikePort!
  return {
    server,
    port,
    ikePort,
    connect: (more = {}) => createSecureSocket({ host: '127.0.0.1', port, ikePort, psk, ...more }),
  }
}

const closed = (server: SecureServer): Promise<void> =>
  new Promise(resolve => void server.close(() => resolve()))

t.test('echo: events, addresses, counters and the order net gives them', async t => {
  const { server, connect, port } = await serve(socket => socket.pipe(socket))
  const events: string[] = []
  const socket = connect()
  t.ok(socket.connecting && socket.pending)
  t.equal(socket.readyState, 'opening')
  for (const name of ['connect', 'ready', 'secureConnect', 'end', 'finish', 'close', 'error']) {
    socket.on(name, () => events.push(name))
  }
  socket.write('before connect, ')
  socket.end('hello')
  t.equal(socket.bytesWritten, 21)
  let text = ''
  socket.setEncoding('utf8').on('data', (piece: string) => (text += piece))
  await once(socket, 'secureConnect')
  t.equal(socket.remotePort, port)
  t.equal(socket.remoteAddress, '127.0.0.1')
  t.equal(socket.remoteFamily, 'IPv4')
  t.match(socket.address(), { address: '127.0.0.1', family: 'IPv4' })
  t.equal(socket.getProtocol(), 'IKEv2')
  t.ok(socket.authorized && socket.peerId === '127.0.0.1')
  await once(socket, 'close')
  t.equal(text, 'before connect, hello')
  t.strictSame(
    events.filter(name => name !== 'finish'),
    ['connect', 'ready', 'secureConnect', 'end', 'close'],
  )
  t.equal(socket.bytesRead, 21)
  t.strictSame(socket.address(), {})
  t.equal(socket.readyState, 'closed')
  await closed(server)
})

t.test(
  'what is written before the connection stands goes with the SYN, as part of the stream',
  async t => {
    const log: string[] = []
    const { server, connect } = await serve(socket => {
      socket.setEncoding('utf8').on('data', (text: string) => {
        log.push(`server: ${text}`)
        if (text.endsWith('.')) socket.end('answer')
      })
    })
    const first = connect()
    await once(first, 'connect')
    const sent = (): number => first.session!.info.children[0]!.packetsOut
    const before = sent()
    const socket = connect()
    for (const name of ['connect', 'ready', 'close']) socket.on(name, () => log.push(name))
    socket.write('a request', () => log.push('written'))
    socket.on('data', text => log.push(`client: ${String(text)}`))
    t.ok(socket.connecting)
    t.equal(socket.bytesWritten, 9)
    await once(socket, 'ready')
    t.strictSame(log.slice(0, 3), ['server: a request', 'connect', 'written'])
    t.equal(sent() - before, 2, 'SYN and ACK')
    socket.end(', and its end.')
    await once(socket, 'close')
    t.strictSame(log, [
      'server: a request',
      'connect',
      'written',
      'ready',
      'server: , and its end.',
      'client: answer',
      'close',
    ])
    t.equal(socket.bytesWritten, 23)
    const all = Buffer.alloc(300_000, 'x').fill('.', 299_999)
    const large = connect()
    let received = 0
    server.once('secureConnection', (peer: SecureSocket) => {
      peer.on('data', (text: string) => (received += text.length))
    })
    large.end(all)
    await once(large.resume(), 'close')
    t.equal(received, all.length)
    first.destroy()
    await closed(server)
  },
)

t.test('several sockets share one IKE SA; 8 MiB each way arrive whole', async t => {
  let sessions = 0
  const { server, connect } = await serve(socket => socket.pipe(socket))
  server.on('session', () => sessions++)
  const run = async (): Promise<void> => {
    const data = randomBytes(8 << 20)
    const socket = connect()
    const hash = createHash('sha256')
    socket.on('data', (piece: Buffer) => hash.update(piece))
    socket.end(data)
    await once(socket, 'end')
    t.equal(hash.digest('hex'), createHash('sha256').update(data).digest('hex'))
  }
  await Promise.all([run(), run(), run()])
  t.equal(sessions, 1)
  await closed(server)
})

t.test('backpressure: a reader that stops closes the window and memory stays bounded', async t => {
  let reader: SecureSocket | undefined
  const { server, connect } = await serve(socket => void (reader = socket), {
    pauseOnConnect: true,
  })
  const socket = connect()
  await once(socket, 'connect')
  for (let i = 0; i < 256; i++) socket.write(Buffer.alloc(1 << 16))
  await new Promise(resolve => setTimeout(resolve, 300))
  t.equal(reader!.bytesRead, 0)
  t.ok(socket.writableLength > 0, 'what the peer does not take stays here')
  t.ok(socket.writableNeedDrain)
  socket.on('error', () => {}).destroy()
  reader!.on('error', () => {}).destroy()
  await closed(server)
})

t.test('each end of a connection has its own congestion control and user timeout', async t => {
  const [ofServer, ofClient] = [
    { congestionControl: 'bbr', userTimeout: 60_000 },
    { congestionControl: 'reno', userTimeout: 1_000 },
  ]
  const accepted: SecureSocket[] = []
  const { server, connect } = await serve(socket => accepted.push(socket.resume()), ofServer)
  const socket = connect(ofClient)
  const another = connect()
  await Promise.all([once(socket, 'connect'), once(another, 'connect')])
  t.equal(socket.tcpInfo()?.['ca'], 'reno')
  t.equal(another.tcpInfo()?.['ca'], 'cubic')
  while (accepted.length < 2) await once(server, 'connection')
  t.strictSame(
    accepted.map(one => one.tcpInfo()?.['ca']),
    ['bbr', 'bbr'],
  )
  socket.end()
  another.end()
  await closed(server)
})

t.test('errors: refused port, wrong key, nobody at the UDP port, reset by the peer', async t => {
  const { server, connect, port, ikePort } = await serve(socket => {
    socket.on('error', () => {})
    socket.once('data', () => {
      socket.write('last words')
      socket.resetAndDestroy()
    })
  })
  const refused = connect({ port: port === 9 ? 10 : 9 })
  const [error] = (await once(refused, 'error')) as [NodeJS.ErrnoException]
  t.match(error, { code: 'ECONNREFUSED', syscall: 'connect', address: '127.0.0.1' })
  t.ok((error.errno ?? 0) < 0)
  const reset = connect()
  reset.write('x')
  const heard: string[] = []
  reset.on('data', data => heard.push(String(data)))
  t.match((await once(reset, 'error'))[0], { code: 'ECONNRESET', syscall: 'read' })
  t.strictSame(heard, ['last words'])
  const failure = once(server, 'ikeClientError')
  const wrong = connect({ psk: 'another key, and a wrong one' })
  t.match((await once(wrong, 'error'))[0], { code: 'AUTHENTICATION_FAILED' })
  t.match((await failure)[1], { identity: '127.0.0.1', address: '127.0.0.1' })
  await closed(server)
  const nobody = createSecureSocket({ host: '127.0.0.1', port, ikePort, psk: `${psk} ` })
  t.match((await once(nobody, 'error'))[0], { code: 'ECONNREFUSED' })
})

t.test('bad options throw at once and name the option', t => {
  const attempts: readonly [object, RegExp][] = [
    [{ psk: '' }, /"psk"/],
    [{ psk: 5 }, /"psk"/],
    [{ psk, port: 70000 }, /options\.port/],
    [{ psk, ikePort: -1 }, /options\.ikePort/],
    [{ psk, ike: 'aes257gcm16-prfsha256-x25519' }, /"ike".*aes257gcm16/],
    [{ psk, esp: 'aes256' }, /"esp".*integrity/],
    [{ psk, mtu: 12 }, /"mtu".*576/],
    [{ psk, replayWindow: 1.5 }, /"replayWindow"/],
    [{ psk, modus: 'tunnel' }, /"modus".*Did you mean "mode"/],
    [{ psk, mode: 'both' }, /"mode".*'tunnel'/],
    [{ psk, localTs: '10.0.0.0/40' }, /"localTs"/],
    [{ psk, retransmit: { trys: 3 } }, /"retransmit\.trys".*tries/],
    [{ psk, localId: '' }, /"localId"/],
  ]
  for (const [options, message] of attempts) {
    t.throws(() => createSecureSocket({ host: '127.0.0.1', port: 1, ...options }), message)
  }
  t.throws(() => createSecureServer({}), /"psk"/)
  t.throws(() => createSecureSocket({ psk, host: 'x' }), { code: 'ERR_MISSING_ARGS' })
  const polluted = JSON.parse(
    '{"__proto__": {"psk": "from a prototype, which must not count"}}',
  ) as object
  t.throws(() => createSecureSocket({ port: 1, ...polluted }), /"__proto__"/)
  t.throws(() => createSecureSocket(Object.create({ psk, port: 1 }) as object), {
    code: 'ERR_MISSING_ARGS',
  })
  t.end()
})

t.test('sockets with inner addresses of their own share the SA with one that has none', async t => {
  const { server, connect } = await serve(socket => socket.end(socket.remoteAddress))
  const inner = [undefined, '127.0.0.7', '127.0.0.1', undefined, '127.0.0.7']
  for (const localAddress of inner) {
    const socket = connect({ localAddress })
    const end = once(socket, 'close')
    t.equal(String((await once(socket, 'data'))[0]), localAddress ?? '127.0.0.1')
    await end
  }
  await closed(server)
})

t.test('remoteAddress is an inner address only where the peer is bound to it', async t => {
  const see = async (options: object, client: object): Promise<string> => {
    const { server, connect } = await serve(socket => {
      const { remoteAddress, remoteFamily, remotePort, session } = socket
      socket.end(`${remoteAddress} ${remoteFamily} ${session!.claimedAddress} ${remotePort}`)
    }, options)
    const socket = connect({ mode: 'tunnel', ...client })
    await once(socket, 'connect')
    const { localPort } = socket
    const [, seen, port] = /^(.*) (\d+)$/.exec(String((await once(socket, 'data'))[0]))!
    t.equal(Number(port), localPort)
    socket.destroy()
    await closed(server)
    return seen!
  }
  const inside = { localTs: '10.9.9.9' }
  t.equal(await see({}, {}), '127.0.0.1 IPv4 127.0.0.1')
  t.equal(await see({}, inside), '127.0.0.1 IPv4 10.9.9.9', 'it only says so')
  t.equal(await see({ remoteTs: '10.9.0.0/16' }, inside), '10.9.9.9 IPv4 10.9.9.9')
  const authorize = (): object => ({ remoteTs: '10.9.9.9' })
  t.equal(await see({ authorize }, inside), '10.9.9.9 IPv4 10.9.9.9')
  const pool = { addressPool: '10.9.9.9' }
  t.equal(await see(pool, { virtualAddress: true }), '10.9.9.9 IPv4 10.9.9.9')
})

t.test('keys by function, and authorize', async t => {
  const { server, connect } = await serve(socket => socket.end('in'), {
    psk: async (identity: string) => (identity === 'alice.test' ? psk : undefined),
    authorize: async (peer: { id: string }) => peer.id !== 'bob.test',
  })
  const socket = connect({ localId: 'alice.test' })
  const end = once(socket, 'close')
  t.equal(String((await once(socket, 'data'))[0]), 'in')
  await end
  const other = connect({ localId: 'bob.test' })
  t.match((await once(other, 'error'))[0], { code: 'AUTHENTICATION_FAILED' })
  await closed(server)
})

t.test('rekeys in the middle of a transfer', async t => {
  const { server, connect } = await serve(socket => socket.pipe(socket))
  const socket = connect()
  await once(socket, 'secureConnect')
  const data = randomBytes(1 << 20)
  const hash = createHash('sha256')
  const expected = createHash('sha256')
  socket.on('data', (piece: Buffer) => hash.update(piece))
  for (let i = 0; i < 12; i++) {
    expected.update(data)
    socket.write(data)
    if (i % 3 === 0) socket.session!.rekeyChild()
    if (i % 4 === 2) socket.session!.rekeyIke()
    await new Promise(resolve => setTimeout(resolve, 15))
  }
  socket.end()
  await once(socket, 'end')
  t.equal(hash.digest('hex'), expected.digest('hex'))
  t.ok(socket.session!.info.ikeRekeys > 0 && socket.session!.info.childRekeys > 0)
  await closed(server)
})

t.test('HTTP over it, with an agent that keeps connections', async t => {
  const web = http.createServer((request, response) =>
    response.end(`${request.method} ${request.url} ${request.socket.remoteAddress}`),
  )
  const { server, connect } = await serve(socket => void web.emit('connection', socket))
  class Agent extends http.Agent {
    override createConnection(): SecureSocket {
      return connect()
    }
  }
  const agent = new Agent({ keepAlive: true })
  for (let i = 0; i < 3; i++) {
    const body = await new Promise<string>((resolve, reject) => {
      http
        .get({ host: '127.0.0.1', path: `/${i}`, agent }, response => {
          let text = ''
          response
            .setEncoding('utf8')
            .on('data', piece => (text += piece))
            .on('end', () => resolve(text))
        })
        .on('error', reject)
    })
    t.equal(body, `GET /${i} 127.0.0.1`)
  }
  agent.destroy()
  web.close()
  await closed(server)
})

t.test('the same script gives the same events as net', async t => {
  const script = async (connect: () => net.Socket | SecureSocket): Promise<string[]> => {
    const events: string[] = []
    const socket = connect()
    for (const name of ['connect', 'ready', 'end', 'close', 'error', 'finish'] as const) {
      socket.on(name, (...args: unknown[]) =>
        events.push(`${name}${name === 'close' ? `(${String(args[0])})` : ''}`),
      )
    }
    socket.resume()
    await once(socket, 'ready')
    socket.end('bye')
    await once(socket, 'close')
    return events
  }
  const plain = net
    .createServer(socket => void socket.on('data', () => {}).on('end', () => {}))
    .listen(0, '127.0.0.1')
  await once(plain, 'listening')
  const theirs = await script(() =>
    net.connect((plain.address() as net.AddressInfo).port, '127.0.0.1'),
  )
  plain.close()
  const { server, connect } = await serve(
    socket => void socket.on('data', () => {}).on('end', () => {}),
  )
  const ours = await script(connect)
  t.strictSame(ours, theirs)
  await closed(server)
})

t.test(
  'unconnected, then connect(); setTimeout; unref; abort signal; reconnecting the same object',
  async t => {
    const { server, port, ikePort } = await serve(
      socket => void socket.on('error', () => {}).resume(),
    )
    const socket = new SecureSocket({ psk, ikePort })
    t.ok(socket.pending)
    socket.connect(port, '127.0.0.1')
    await once(socket, 'connect')
    socket.setTimeout(30)
    await once(socket, 'timeout')
    t.notOk(socket.destroyed)
    socket.unref().ref()
    socket.destroy()
    await once(socket, 'close')
    socket.connect(port, '127.0.0.1')
    await once(socket, 'connect')
    socket.destroy()
    await once(socket, 'close')
    const controller = new AbortController()
    const aborted = createSecureSocket({
      host: '127.0.0.1',
      port,
      ikePort,
      psk,
      signal: controller.signal,
    })
    controller.abort()
    t.match((await once(aborted, 'error'))[0], { code: 'ABORT_ERR' })
    t.throws(() => new SecureSocket({ psk }).setTimeout(-1), { code: 'ERR_OUT_OF_RANGE' })
    await closed(server)
  },
)
