/** Compiled and never run: a program with the installed package, against every @types/node and compiler that it may have. */
import * as http from 'node:http'
import * as http2 from 'node:http2'
import net from 'node:net'
import type { Duplex } from 'node:stream'
import * as tls from 'node:tls'
import {
  createSecureServer,
  createSecureSocket,
  SecureServer,
  SecureSocket,
  type ListenOptions,
  type Listener,
  type SecureServerOptions,
  type SecureSocketEvents,
  type SecureSocketOptions,
  type Session,
} from 'ike-socket'
import { connectTls, pgStream, undiciConnector } from 'ike-socket/connectors'
import { Agent, createServer, type HttpServerOptions } from 'ike-socket/http'
import secure, * as named from 'ike-socket/net'

// The whole module in the place of net.
const whole: typeof net = secure
const names: typeof net = named
secure.configure({ psk: 'x' })

const options: SecureSocketOptions = { host: 'peer.test', port: 1, psk: 'x' }
const sockets: net.Socket[] = [
  createSecureSocket(options),
  new SecureSocket({ psk: 'x' }),
  new SecureSocket({ psk: 'x' }).connect(1, 'peer.test'),
  secure.connect(options),
  secure.connect(1),
  secure.connect(1, 'peer.test', () => {}),
  secure.createConnection({ port: 1, host: 'peer.test' }, () => {}),
  secure.Socket({ allowHalfOpen: true }),
  new secure.Stream(),
]
const streams: Duplex[] = sockets

const serverOptions: SecureServerOptions = { psk: 'x' }
const servers: net.Server[] = [
  createSecureServer(serverOptions),
  new SecureServer(serverOptions),
  secure.createServer(),
  secure.createServer((each: net.Socket) => each.end()),
  secure.createServer({ pauseOnConnect: true }, (each: net.Socket) => each.end()),
  secure.Server({ noDelay: true }),
  new secure.Server(each => each.end(each.peerId)),
]
class Derived extends secure.Socket {
  readonly mine = 1
}
class DerivedServer extends named.Server {}
const where: ListenOptions = { port: 1, host: '127.0.0.1', signal: new AbortController().signal }
servers.push(
  new DerivedServer().listen(where),
  new DerivedServer().listen(1, 'peer.test', 511, () => {}),
)
sockets.push(new Derived())

// Whoever takes net's functions takes ours.
const dial: typeof net.createConnection = secure.createConnection
const serve: typeof net.createServer = secure.createServer
tls.connect({ socket: createSecureSocket(options) })
new tls.TLSSocket(createSecureSocket(options), { isServer: true })
http.request({ createConnection: () => createSecureSocket(options) })
http2.connect('http://peer.test', { createConnection: () => createSecureSocket(options) })
new http.Server().emit('connection', sockets[0])

const agent: http.Agent = new Agent({ keepAlive: true, psk: 'x' })
const httpOptions: HttpServerOptions = { psk: 'x', keepAliveTimeout: 1000 }
const web: http.Server = createServer(httpOptions, (request, response) => {
  response.end(request.url)
})

// What a socket tells, with its types.
const socket = secure.connect(1)
socket.setKeepAlive(true, 1000).setKeepAlive({ enable: true, initialDelay: 1000 }).setNoDelay()
const address: string | undefined = socket.localAddress
const session: Session | undefined = socket.session
const onClose: Listener<SecureSocketEvents, 'close'> = hadError => hadError satisfies boolean
socket.on('close', onClose).once('lookup', (error, found) => error ?? found.length)
// @ts-expect-error: an option that does not exist
createSecureSocket({ port: 1, psk: 'x', prot: 1 })
// @ts-expect-error: a server is not connected
createSecureServer(serverOptions).connect(1)

export { address, agent, dial, names, serve, session, streams, web, whole }

// What libraries connect with.
const dialWith: Parameters<typeof undiciConnector>[0] = options
undiciConnector(dialWith, { ca: 'x' })({ hostname: 'a', port: '', protocol: 'http:' }, () => {})
sockets.push(pgStream(options)(), connectTls({ port: 1, ca: 'x' }, options))
