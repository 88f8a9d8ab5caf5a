/** Compiled and never run: a SecureSocket can stand where a net.Socket is asked for, and events have types. */
import * as http from 'node:http'
import * as http2 from 'node:http2'
import type * as net from 'node:net'
import type { Duplex } from 'node:stream'
import * as tls from 'node:tls'
import {
  createSecureServer,
  createSecureSocket,
  SecureSocket,
  type SecureServerOptions,
  type SecureSocketOptions,
  type Session,
} from '../../lib/index.ts'
import { CLIENT_NAMES, SERVER_NAMES } from '../../lib/api/options.ts'
import * as drop from '../../lib/net.ts'

const psk = 'never used'
const socket: SecureSocket = createSecureSocket({ host: 'a.test', port: '80', psk })
const asSocket: net.Socket = socket
const asDuplex: Duplex = socket

createSecureSocket(80, 'a.test', { psk }, () => {})
createSecureSocket(80, { psk, host: undefined })
// Every option that is read has a type.
type Typed = keyof SecureSocketOptions | keyof SecureServerOptions
export const read: readonly Typed[] = [...CLIENT_NAMES, ...SERVER_NAMES]
// @ts-expect-error: an option that does not exist
createSecureSocket({ port: 80, psk, prot: 1 })
new SecureSocket({ psk })
  .connect(80, 'a.test', () => {})
  .connect('80')
  .connect({ port: 1 })

socket.on('close', hadError => hadError satisfies boolean)
socket.once('connectionAttempt', (address, port, family) => address.length + port + family)
socket.on('my own event', (anything: number) => anything)

const server = createSecureServer({ psk }, connection => connection.end(connection.peerId))
server.listen(80, 'a.test', 511, () => {}).listen({ port: 1, signal: new AbortController().signal })
server.on('ikeClientError', (error, { identity, address, port }) => [
  error,
  identity,
  address,
  port,
])
server.on('session', session => session satisfies Session)
server.on('drop', ({ remoteAddress }) => remoteAddress.length)
// @ts-expect-error: no such overload
server.listen(80, true)

http.request({ createConnection: () => socket })
http2.connect('http://a.test', { createConnection: () => socket })
tls.connect({ socket })

const called: drop.Socket = drop.Socket({ psk })
const made: drop.Server = new drop.Server({ psk })
class Derived extends drop.Socket {}
export const all = [asSocket, asDuplex, called, made, new Derived({ psk })]
