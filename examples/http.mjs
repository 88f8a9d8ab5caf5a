// HTTP inside ESP, in two terminals:
//   node examples/http.mjs serve
//   node examples/http.mjs /some/path
import { Agent, createServer, get } from 'node:http'
import { createSecureServer, createSecureSocket } from 'ike-socket'

const psk = process.env.IKE_PSK ?? 'an example key: take 16 random octets or more'
const ikePort = Number(process.env.IKE_PORT ?? 4500)
const [word = '/'] = process.argv.slice(2)

if (word === 'serve') {
  const web = createServer((request, response) => {
    response.end(`${request.method} ${request.url}, from ${request.socket.peerId}\n`)
  })
  createSecureServer({ psk, ikePort }, socket => web.emit('connection', socket)).listen(
    8081,
    () => {
      console.log('listening')
    },
  )
} else {
  class SecureAgent extends Agent {
    createConnection() {
      return createSecureSocket({ host: '127.0.0.1', port: 8081, psk, ikePort })
    }
  }
  get({ host: '127.0.0.1', path: word, agent: new SecureAgent() }, response => {
    response.pipe(process.stdout)
  }).on('error', error => {
    console.error(error.message)
    process.exitCode = 1
  })
}
