/** Protocols of Node itself over our sockets, as `net`'s carry them; `socket.test.ts` has HTTP. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import * as http2 from 'node:http2'
import * as tls from 'node:tls'
import t from 'tap'
import { createSecureServer, createSecureSocket, type SecureSocket } from '../../lib/index.ts'

const psk = 'a pre-shared key for these tests'

const serve = async (
  onConnection: (socket: SecureSocket) => void,
): Promise<{ connect(): SecureSocket; close(): Promise<unknown> }> => {
  const server = createSecureServer({ psk, ikePort: 0 }, onConnection)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()!
  const { ikePort } = server
  return {
    connect: () => createSecureSocket({ host: '127.0.0.1', port, ikePort, psk }),
    close: () => once(server.close(), 'close'),
  }
}

t.test('HTTP/2, several streams at once', async t => {
  const web = http2.createServer((request, response) => response.end(`answer to ${request.url}`))
  const { connect, close } = await serve(socket => void web.emit('connection', socket))
  const client = http2.connect('http://service.test', { createConnection: connect })
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
