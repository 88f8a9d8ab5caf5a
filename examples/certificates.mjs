// Certificates at both ends, in two terminals, with keys of our own making:
//   npx ike-socket keygen            (in a checkout: node dist/cli/main.js keygen; makes the folder ike-keys)
//   node examples/certificates.mjs serve
//   node examples/certificates.mjs "hello, world"
import { readFileSync } from 'node:fs'
import { createSecureServer, createSecureSocket } from 'ike-socket'

const folder = process.env.IKE_KEYS ?? 'ike-keys'
const read = name => readFileSync(`${folder}/${name}`)
const ikePort = Number(process.env.IKE_PORT ?? 4500)
const [word = 'hello'] = process.argv.slice(2)
/** Whom we believe: certificates of this authority that are not in its list of revoked ones. */
const trust = { ca: read('ca.crt'), crl: read('ca.crl') }

if (word === 'serve') {
  const own = { cert: read('server-ed25519.crt'), key: read('server-ed25519.key') }
  const authorize = ({ id, certificate }) => {
    console.log(`${id} shows ${certificate.subject.replaceAll('\n', ', ')}`)
    return id === 'client'
  }
  const server = createSecureServer({ ...own, ...trust, ikePort, authorize }, socket =>
    socket.pipe(socket),
  )
  server.on('ikeClientError', error => console.log(error.message))
  // After keygen or a new list: new connections are judged by it, without a restart.
  process.on('SIGHUP', () => server.setCredentials({ ca: read('ca.crt'), crl: read('ca.crl') }))
  server.listen(8083, () => console.log('listening'))
} else {
  const own = { cert: read('client-ed25519.crt'), key: read('client-ed25519.key') }
  // The server's certificate must be for this host.
  const socket = createSecureSocket({ host: 'localhost', port: 8083, ikePort, ...own, ...trust })
  socket.on('secureConnect', () => console.log(`${socket.peerId} proved itself`))
  socket.end(`${word}\n`)
  socket.pipe(process.stdout)
  socket.on('error', error => {
    console.error(error.message)
    process.exitCode = 1
  })
}
