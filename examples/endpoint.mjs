// Three services on one endpoint, and two clients of them:
//   node examples/endpoint.mjs
// The services share a UDP port and are told apart by the port inside. Whoever uses several of them needs one SA.
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, get } from 'node:http'
import { text } from 'node:stream/consumers'
import { createEndpoint, createSecureSocket } from 'ike-socket'

const HOST = '127.0.0.1'
const psk = { 'shop.test': randomBytes(32), 'admin.test': randomBytes(32) }

const endpoint = createEndpoint({ psk, localId: 'services.test', host: HOST, ikePort: 0 })

// The first speaks HTTP, the second answers a line with a line.
const web = createServer((request, response) =>
  response.end(`order ${request.url.slice(1)} of tea`),
)
const orders = endpoint.createServer(socket => web.emit('connection', socket))
const stock = endpoint.createServer(socket => {
  socket.once('data', name => socket.end(`12 boxes of ${String(name)}`))
})
// The third is for one of the clients alone: for the other one this port is closed.
const isAdmin = ({ id }) => id === 'admin.test'
const sessions = endpoint.createServer({ authorize: isAdmin }, socket => {
  socket.end(`sessions of ${endpoint.sessions.map(({ peerId }) => peerId).join(' and ')}`)
})

const servers = { 8080: orders, 8081: stock, 9090: sessions }
for (const [port, server] of Object.entries(servers))
  await once(server.listen(Number(port)), 'listening')
console.log(`ports ${Object.keys(servers).join(', ')} behind UDP port ${endpoint.ikePort}`)

/** What such a client connects with. */
const clientOf = localId => port => {
  const who = { psk: psk[localId], localId, remoteId: 'services.test' }
  return createSecureSocket({ host: HOST, port, ikePort: endpoint.ikePort, ...who })
}
const shop = clientOf('shop.test')
const admin = clientOf('admin.test')
const say = (who, what) => console.log(`${who}: ${what}`)

const request = get('http://services.test/7', { createConnection: () => shop(8080) })
const [response] = await once(request, 'response')
say('shop', await text(response))

const asking = shop(8081)
asking.write('tea')
say('shop', await text(asking))

say('admin', await text(admin(9090)))
const [error] = await once(shop(9090), 'error')
say('shop', error.code)

await new Promise(resolve => endpoint.close(resolve))
