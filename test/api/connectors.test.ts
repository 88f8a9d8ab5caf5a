/** What libraries are given to connect with, in the way in which they use it, without the libraries. */
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import tls from 'node:tls'
import t from 'tap'
import {
  connectTls,
  ioredisConnector,
  pgStream,
  undiciConnector,
  type UndiciConnectOptions,
} from '../../lib/connectors.ts'
import { Agent, createServer } from '../../lib/http.ts'
import { createSecureServer, SecureSocket } from '../../lib/index.ts'
import { certificate } from '../harness/certificates.ts'

const psk = 'a pre-shared key for these tests'

/** A server inside ESP that greets, and what its clients need. */
const greeting = async (
  onSocket: (socket: Socket) => void,
): Promise<{ port: number; ike: { psk: string; ikePort: number; localAddress?: string } }> => {
  const server = createSecureServer({ psk, ikePort: 0 }, onSocket).listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  return { port: (server.address() as AddressInfo).port, ike: { psk, ikePort: server.ikePort! } }
}

const read = async (socket: Socket): Promise<string> => {
  let text = ''
  for await (const piece of socket) text += String(piece)
  return text
}

const { pem: cert, keyPem: key } = certificate('CN=localhost', 'P-256', undefined)
const overTls = (socket: Socket): void => {
  new tls.TLSSocket(socket, { isServer: true, cert, key }).end('over tls')
}
const trust = { ca: cert, checkServerIdentity: (): undefined => undefined }

t.test("http's agent does not use for IKE what a request says for TLS", async t => {
  const web = createServer({ psk, ikePort: 0 }, (_request, response) => response.end('hello'))
  web.listen(0, '127.0.0.1')
  await once(web, 'listening')
  const agent = new Agent({ psk, ikePort: web.ikePort })
  const options = {
    host: '127.0.0.1',
    port: web.address()!.port,
    agent,
    headers: { host: 'another.test' },
    checkServerIdentity: tls.checkServerIdentity,
    ca: cert,
    cert,
    key,
  }
  const [response] = (await once(http.get(options), 'response')) as [http.IncomingMessage]
  t.equal(response.statusCode, 200)
  response.resume()
  await once(response, 'end')
  agent.destroy()
  await new Promise<void>(resolve => web.close(() => resolve()))
})

const undici = (options: UndiciConnectOptions, ike: object, inner = {}): Promise<Socket> =>
  new Promise((resolve, reject) =>
    undiciConnector(ike, inner)(options, (error, socket) =>
      error === null ? resolve(socket) : reject(error),
    ),
  )

t.test('undici gets a connected socket, with TLS for https, or the error', async t => {
  const plain = await greeting(socket => void socket.end('plain'))
  const where = { hostname: '127.0.0.1', protocol: 'http:' }
  const socket = await undici({ ...where, port: `${plain.port}` }, plain.ike)
  t.equal(socket.readyState, 'open')
  t.equal(await read(socket), 'plain')

  const secret = await greeting(overTls)
  const https = { ...where, protocol: 'https:', port: secret.port, servername: 'localhost' }
  t.equal(await read(await undici(https, secret.ike, trust)), 'over tls')
  await t.rejects(undici(https, secret.ike), { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' })

  const wrong = { ...plain.ike, psk: 'another pre-shared key than the other' }
  await t.rejects(undici({ ...where, port: plain.port }, wrong), { code: 'AUTHENTICATION_FAILED' })
})

t.test('pg connects the stream itself', async t => {
  const { port, ike } = await greeting(socket => void socket.end('ready'))
  const stream = pgStream(ike)()
  t.ok(stream.pending)
  stream.connect(port, '127.0.0.1')
  t.equal(await read(stream), 'ready')
})

t.test('ioredis: the connector makes the stream, unless it was given up', async t => {
  const { port, ike } = await greeting(socket => void socket.end('pong'))
  abstract class AbstractConnector {
    connecting = false
    readonly disconnectTimeout: number
    constructor(disconnectTimeout: number) {
      this.disconnectTimeout = disconnectTimeout
    }
    abstract connect(): Promise<Socket>
  }
  const Connector = ioredisConnector(AbstractConnector, ike)
  const options = { host: '127.0.0.1', port, disconnectTimeout: 7 }
  const connector = new Connector(options)
  t.equal(connector.disconnectTimeout, 7)
  const stream = await connector.connect()
  t.type(stream, SecureSocket)
  t.equal(await read(stream), 'pong')

  const late = new Connector(options)
  const connecting = late.connect()
  late.connecting = false
  await t.rejects(connecting, { message: 'Connection is closed.' })

  const secret = await greeting(overTls)
  const inner = new (ioredisConnector(AbstractConnector, secret.ike))({
    host: '127.0.0.1',
    port: secret.port,
    tls: trust,
  })
  t.equal(await read(await inner.connect()), 'over tls')
})

t.test('connectTls: what TLS trusts is not what IKE trusts', async t => {
  const { port, ike } = await greeting(overTls)
  const socket = connectTls({ host: '127.0.0.1', port, ...trust }, ike)
  await once(socket, 'secureConnect')
  t.ok(socket.authorized)
  t.equal(await read(socket), 'over tls')
})
