// An echo server and a client for it, in two terminals (after `npm run build` in a checkout):
//   node examples/echo.mjs serve
//   node examples/echo.mjs "hello, world"
import { createSecureServer, createSecureSocket } from 'ike-socket'

const psk = process.env.IKE_PSK ?? 'an example key: take 16 random octets or more'
const ikePort = Number(process.env.IKE_PORT ?? 4500)
const [word = 'hello'] = process.argv.slice(2)

if (word === 'serve') {
  const server = createSecureServer({ psk, ikePort }, socket => {
    console.log(`${socket.peerId} connected from ${socket.remoteAddress}`)
    socket.pipe(socket)
  })
  server.on('ikeClientError', error => console.log(error.message))
  server.listen(8080, () => console.log('listening'))
} else {
  const socket = createSecureSocket({ host: '127.0.0.1', port: 8080, psk, ikePort })
  socket.end(`${word}\n`)
  socket.pipe(process.stdout)
  socket.on('error', error => {
    console.error(error.message)
    process.exitCode = 1
  })
}
