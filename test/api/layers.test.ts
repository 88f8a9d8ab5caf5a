/** Protocols of Node itself over our sockets, as `net`'s carry them; `socket.test.ts` has HTTP. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import * as http2 from 'node:http2'
import { Duplex } from 'node:stream'
import * as tls from 'node:tls'
import t from 'tap'
import { createSecureServer, createSecureSocket, SecureSocket } from '../../lib/index.ts'
import { certificate } from '../harness/certificates.ts'

const psk = 'a pre-shared key for these tests'

const serve = async (
  onConnection: (socket: SecureSocket) => void,
): Promise<{
  readonly place: { host: string; port: number; ikePort: number; psk: string }
  connect(lookedUp?: (name: string) => void): SecureSocket
  close(): Promise<unknown>
}> => {
  const server = createSecureServer({ psk, ikePort: 0 }, onConnection)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()!
  const place = { host: '127.0.0.1', port, ikePort: server.ikePort!, psk }
  return {
    place,
    connect: lookedUp =>
      createSecureSocket({
        ...place,
        ...(lookedUp === undefined ? {} : { host: 'service.test' }),
        lookup: (name, _options, callback) => {
          lookedUp?.(name)
          process.nextTick(callback, null, [{ address: '127.0.0.1', family: 4 }])
        },
      }),
    close: () => once(server.close(), 'close'),
  }
}

t.test('HTTP/2, several streams at once', async t => {
  const web = http2.createServer((request, response) => response.end(`answer to ${request.url}`))
  const { connect, close } = await serve(socket => void web.emit('connection', socket))
  const client = http2.connect('http://service.test', { createConnection: () => connect() })
  const get = (path: string): Promise<string> =>
    new Promise((resolve, reject) => {
      let text = ''
      client
        .request({ ':path': path })
        .setEncoding('utf8')
        .on('data', piece => (text += piece))
        .on('end', () => resolve(text))
        .on('error', reject)
    })
  t.strictSame(await Promise.all(['/1', '/2', '/3'].map(get)), [
    'answer to /1',
    'answer to /2',
    'answer to /3',
  ])
  client.close()
  await once(client, 'close')
  await close()
})

t.test('TLS, a mebibyte there and back', async t => {
  const shared = {
    ciphers: 'PSK',
    maxVersion: 'TLSv1.2' as const,
    checkServerIdentity: () => undefined,
  }
  const secret = randomBytes(16)
  const service = tls.createServer({ ...shared, pskCallback: () => secret }, socket =>
    socket.pipe(socket),
  )
  const { connect, close } = await serve(socket => void service.emit('connection', socket))
  const client = tls.connect({
    ...shared,
    socket: connect(),
    pskCallback: () => ({ psk: secret, identity: 'client' }),
  })
  const data = randomBytes(1 << 20)
  const pieces: Buffer[] = []
  let length = 0
  client.on('data', (piece: Buffer) => {
    pieces.push(piece)
    length += piece.length
    if (length === data.length) client.end()
  })
  client.write(data)
  await once(client, 'close')
  t.ok(Buffer.concat(pieces).equals(data))
  await close()
})

t.test(
  'a reader that asks for more in its own callback is not called again before it returns',
  async t => {
    const data = randomBytes(300_000)
    const { connect, close } = await serve(socket => void socket.end(data))
    const socket = connect()
    const pieces: Buffer[] = []
    let depth = 0
    let deepest = 0
    socket.on('data', (piece: Buffer) => {
      deepest = Math.max(deepest, ++depth)
      pieces.push(piece)
      socket.pause()
      socket.resume()
      socket.read(0)
      socket._read()
      depth--
    })
    await once(socket, 'end')
    t.equal(deepest, 1)
    t.ok(Buffer.concat(pieces).equals(data))
    await close()
  },
)

const closed = (emitter: NodeJS.EventEmitter): Promise<unknown> =>
  new Promise(resolve => emitter.once('close', resolve))

t.test('a web stream at one end gets back what it wrote, before the automatic end', async t => {
  const data = randomBytes(400_000)
  // Its readers work in microtasks: the end must not come in their tick.
  const { connect, close } = await serve(socket => {
    const { readable, writable } = Duplex.toWeb(socket)
    // Some Nodes abort the writer at the automatic end, with net's sockets too.
    readable.pipeTo(writable).catch(() => {})
  })
  const { readable, writable } = Duplex.toWeb(connect())
  const writer = writable.getWriter()
  const writing = (async (): Promise<void> => {
    for (let at = 0; at < data.length; at += 50_000) {
      await writer.ready
      await writer.write(data.subarray(at, at + 50_000))
    }
    await writer.close()
  })()
  const pieces: Uint8Array[] = []
  for await (const piece of readable) pieces.push(piece as Uint8Array)
  await writing
  t.ok(Buffer.concat(pieces).equals(data))
  await close()
})

t.test('HTTP/2: streams that carry much in both directions, side by side', async t => {
  const web = http2.createServer()
  web.on('stream', stream => {
    stream.respond({ ':status': 200 })
    stream.pipe(stream)
  })
  const { connect, close } = await serve(socket => void web.emit('connection', socket))
  const client = http2.connect('http://service.test', { createConnection: () => connect() })
  const echo = async (data: Buffer): Promise<Buffer> => {
    const stream = client.request({ ':method': 'POST', ':path': '/' })
    stream.end(data)
    const pieces: Buffer[] = []
    for await (const piece of stream) pieces.push(piece as Buffer)
    return Buffer.concat(pieces)
  }
  const bodies = Array.from({ length: 6 }, () => randomBytes(150_000))
  const answers = await Promise.all(bodies.map(echo))
  for (const [i, answer] of answers.entries()) t.ok(answer.equals(bodies[i]!))
  client.close()
  await closed(client)
  await close()
})

t.test('TLS 1.3: what came before both ends is there for a reader that comes late', async t => {
  const { pem: cert, keyPem: key } = certificate('CN=localhost', 'P-256', undefined)
  const data = randomBytes(10_000)
  const accepted: tls.TLSSocket[] = []
  const { connect, close } = await serve(socket => {
    const inner = new tls.TLSSocket(socket, { isServer: true, cert, key })
    inner.once('secure', () => inner.pause().end('x'))
    accepted.push(inner)
  })
  const client = tls.connect({ socket: connect(), rejectUnauthorized: false })
  client.allowHalfOpen = true
  await once(client, 'secureConnect')
  client.resume()
  await once(client, 'end')
  client.end(data)
  await closed(client)
  const [inner] = accepted
  // Both ends of the connection below are over by now.
  await new Promise(resolve => setTimeout(resolve, 200))
  const pieces: Buffer[] = []
  inner!.on('data', (piece: Buffer) => pieces.push(piece)).resume()
  await closed(inner!)
  t.ok(Buffer.concat(pieces).equals(data))
  await close()
})

t.test('TLS over a socket that connects later, or never', async t => {
  const { pem: cert, keyPem: key } = certificate('CN=localhost', 'P-256', undefined)
  const { place, close } = await serve(socket => {
    new tls.TLSSocket(socket, { isServer: true, cert, key }).end('hello')
  })
  const { psk: _psk, ...where } = place
  const below = new SecureSocket({ psk })
  const client = tls.connect({ socket: below, rejectUnauthorized: false })
  const heard: string[] = []
  client.on('data', data => heard.push(String(data)))
  await new Promise(resolve => setTimeout(resolve, 20))
  below.connect(where)
  await closed(client)
  t.strictSame(heard, ['hello'])
  const idle = new SecureSocket({ psk })
  const never = tls.connect({ socket: idle, rejectUnauthorized: false }).on('error', () => {})
  await new Promise(resolve => setTimeout(resolve, 20))
  idle.destroy()
  await closed(never)
  await close()
})

t.test('TLS 1.3: what either end writes before it ends arrives, whoever ends first', async t => {
  const { pem: cert, keyPem: key } = certificate('CN=localhost', 'P-256', undefined)
  const data = randomBytes(300_000)
  for (const first of ['server', 'client']) {
    const received: Promise<Buffer>[] = []
    const collect = async (socket: tls.TLSSocket): Promise<Buffer> => {
      const pieces: Buffer[] = []
      // The loop would destroy the socket at the end, with what is not written yet.
      for await (const piece of socket.iterator({ destroyOnReturn: false })) {
        pieces.push(piece as Buffer)
      }
      return Buffer.concat(pieces)
    }
    const talk = (socket: tls.TLSSocket, isFirst: boolean): void => {
      received.push(collect(socket))
      if (isFirst) socket.end(data)
      else socket.on('end', () => socket.end(data))
    }
    const { connect, close } = await serve(socket => {
      const inner = new tls.TLSSocket(socket, { isServer: true, cert, key })
      // The automatic end would not wait for the answer.
      inner.allowHalfOpen = true
      inner.once('secure', () => talk(inner, first === 'server'))
    })
    const client = tls.connect({
      socket: connect(),
      rejectUnauthorized: false,
      allowHalfOpen: true,
    } as tls.ConnectionOptions)
    await once(client, 'secureConnect')
    t.equal(client.getProtocol(), 'TLSv1.3')
    talk(client, first === 'client')
    await closed(client)
    const both = await Promise.all(received)
    t.equal(both.length, 2)
    for (const octets of both) t.ok(octets.equals(data), `${first} ends first`)
    await close()
  }
})

t.test('every event and callback of a socket has the context of its connect', async t => {
  const storage = new AsyncLocalStorage<string>()
  const seen = new Map<string, Set<string | undefined>>()
  const note = (name: string): void => {
    seen.set(name, (seen.get(name) ?? new Set()).add(storage.getStore()))
  }
  const { connect, close } = await serve(socket => {
    socket.on('data', () => {})
    socket.on('end', () => socket.end('answer'))
  })
  const over = storage.run('client', async () => {
    const socket = connect(name => note(`lookup ${name}`))
    const events =
      'lookup connectionAttempt connect ready secureConnect data drain end finish timeout close'
    for (const event of events.split(' ')) socket.on(event, () => note(event))
    socket.setTimeout(50, () => note('setTimeout'))
    await once(socket, 'timeout')
    socket.write(Buffer.alloc(3 << 20), () => note('write'))
    await once(socket, 'drain')
    socket.end(() => note('end callback'))
    await closed(socket)
  })
  await storage.run('somebody else', () => over)
  for (const [name, contexts] of seen) t.strictSame([...contexts], ['client'], name)
  t.equal(seen.size, 15)
  await close()
})
