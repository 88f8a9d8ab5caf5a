// npm run bench:refusals: what a refused client waits. A wrong key and an unknown identity must not be told apart.
import { once } from 'node:events'
import { createSecureServer, createSecureSocket } from 'ike-socket'
import { median } from './ends.mjs'

const TIMES = 40
const host = '127.0.0.1'
const psk = 'a pre-shared key for the benchmark'
const times = { 'wrong key': [], 'unknown identity': [] }

for (let i = 0; i < TIMES; i++) {
  for (const [cause, localId] of [
    ['wrong key', 'known.test'],
    ['unknown identity', 'other.test'],
  ]) {
    // A new server each time: one that has refused several demands cookies first.
    const server = createSecureServer({ psk: { 'known.test': psk }, ikePort: 0 })
    server.on('ikeClientError', () => {})
    server.listen(0, host)
    await once(server, 'listening')
    const { port } = server.address()
    const { ikePort } = server
    const start = performance.now()
    const socket = createSecureSocket({ host, port, ikePort, psk: `${psk}, and wrong`, localId })
    await once(socket, 'error')
    times[cause].push((performance.now() - start) * 1000)
    server.close()
    await once(server, 'close')
  }
}
for (const [cause, values] of Object.entries(times)) {
  console.log(`${cause}: ${median(values).toFixed(0)} us`)
}
process.exit()
