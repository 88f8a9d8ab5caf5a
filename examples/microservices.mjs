// Two microservices that prove themselves to each other by certificates: `orders`, an application of Express, and `billing`, which
// asks it. This makes the certificates and starts both (after `npm ci --prefix examples`):
//   node examples/microservices.mjs
import express from 'express'
import { execFileSync, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { get } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { Agent, createServer } from 'ike-socket/http'
import { command } from './sidecar.mjs'

const HOST = '127.0.0.1'
const PORT = 8080
const [service, folder, ikePort] = process.argv.slice(2)

/** A certificate of our own, and whom we believe. */
const credentials = name => {
  const file = path => ({ file: join(folder, path) })
  const own = { cert: file(`${name}-ed25519.crt`), key: file(`${name}-ed25519.key`) }
  return { ...own, ca: file('ca.crt'), crl: file('ca.crl') }
}

const serveOrders = () => {
  const app = express()
  app.get('/orders/:number', (request, response) => {
    const { peerId } = request.socket
    response.json({ number: request.params.number, item: 'tea', askedBy: peerId })
  })
  // Whoever else has a certificate of this authority is refused.
  const authorize = ({ id }) => id === 'billing.internal'
  const server = createServer({ ...credentials('server'), authorize, ikePort: 0 }, app)
  server.secureServer.on('ikeClientError', error => console.error(error.message))
  server.listen(PORT, HOST, () => process.send(server.ikePort))
  process.once('disconnect', () => server.close())
}

const bill = async () => {
  const names = { ikePort: Number(ikePort), servername: 'orders.internal' }
  const agent = new Agent({ ...credentials('client'), ...names, keepAlive: true })
  for (const number of [1, 2]) {
    const request = get({ host: HOST, port: PORT, path: `/orders/${number}`, agent })
    const [response] = await once(request, 'response')
    console.log(`billing: ${response.socket.peerId} says ${await text(response)}`)
  }
  agent.destroy()
}

const startBoth = async () => {
  const keys = mkdtempSync(join(tmpdir(), 'ike-'))
  try {
    const names = ['--server', 'orders.internal', '--client', 'billing.internal']
    execFileSync(process.execPath, [command, 'keygen', keys, ...names, '--type', 'ed25519'])
    const start = (...words) => fork(import.meta.filename, words)
    const orders = start('orders', keys)
    const [udp] = await once(orders, 'message')
    console.log(`orders: listening, IKE and ESP at UDP port ${udp}`)
    const billing = start('billing', keys, String(udp))
    const [status] = await once(billing, 'exit')
    process.exitCode = status ?? 1
    orders.disconnect()
    await once(orders, 'exit')
  } finally {
    rmSync(keys, { recursive: true })
  }
}

if (service === 'orders') serveOrders()
else if (service === 'billing') await bill()
else await startBoth()
