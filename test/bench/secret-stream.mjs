// @hyperswarm/secret-stream over udx-native, with the calls of `net`: Noise and libsodium over reliable streams of UDP, both
// in C. Streams of udx have no handshake of their own, so a datagram tells the server of each.
import { EventEmitter } from 'node:events'
import { createRequire } from 'node:module'

const HOST = '127.0.0.1'
/** Names of streams are numbers: the server's are these higher than the client's. */
const SERVER = 2 ** 30

/** `folder`: where the packages are installed. */
export const makeSecretStream = folder => {
  const require = createRequire(`${folder}/`)
  const SecretStream = require('@hyperswarm/secret-stream')
  const UDX = require('udx-native')
  const udx = new UDX()

  const listen = handler => {
    const socket = udx.createSocket()
    const server = new EventEmitter()
    server.address = () => socket.address()
    socket.on('message', (message, { port }) => {
      const id = message.readUInt32BE(0)
      const stream = udx.createStream(id + SERVER)
      stream.connect(socket, id, port, HOST)
      handler(new SecretStream(false, stream))
      socket.send(message, port, HOST)
    })
    socket.bind(0, HOST)
    setImmediate(() => server.emit('listening'))
    return server
  }

  let last = 0
  const connect = ({ port }) => {
    const socket = udx.createSocket()
    socket.bind(0, HOST)
    const id = ++last
    const stream = udx.createStream(id)
    const secret = new SecretStream(true, null, { autoStart: false })
    const hello = Buffer.alloc(4)
    hello.writeUInt32BE(id)
    socket.send(hello, port, HOST)
    socket.once('message', () => {
      stream.connect(socket, id + SERVER, port, HOST)
      secret.start(stream)
    })
    secret.once('close', () => socket.close())
    return secret
  }

  return { listen, connect, ready: 'connect' }
}
