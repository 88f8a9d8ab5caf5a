/**
 * A process of its own, so that its memory can be measured: a transfer between a client and a server over
 * real sockets, through a relay that adds datagrams which nobody sent: random, truncated, changed,
 * replayed and reflected ones. Run with `--expose-gc` and their number; prints one JSON object.
 */
import { createHash } from 'node:crypto'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { createSecureServer, createSecureSocket } from '../../lib/index.ts'
import { Endpoint } from '../../lib/node/endpoint.ts'
import { Random } from './random.ts'

const COUNT = Number(process.argv[2])
/** Where memory is first measured: everything is compiled and every table has its size. */
const WARM = Math.floor(COUNT / 5)
const BATCH = 50
const RECORDED = 256
const CHUNK = 1 << 16

const psk = 'a pre-shared key for this process'
const random = new Random(1)
const recorded: { bytes: Uint8Array; towards: 'client' | 'server' }[] = []
let recordAt = 0

const server = createSecureServer({ psk, ikePort: 0, mtu: 1400 })
server.listen(0, '127.0.0.1')
await once(server, 'listening')
const serverPort = server.ikePort!
let sessions = 0
server.on('session', () => sessions++)

const open = async (): Promise<Socket> => {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 4 << 20 })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  return socket
}
const front = await open()
const back = await open()
const stranger = await open()
let clientPort = 0
const record = (bytes: Uint8Array, towards: 'client' | 'server'): void => {
  recorded[recordAt++ % RECORDED] = { bytes: bytes.slice(), towards }
}
const toServer = (bytes: Uint8Array, from = back): void => from.send(bytes, serverPort, '127.0.0.1')
const toClient = (bytes: Uint8Array): void => front.send(bytes, clientPort, '127.0.0.1')
front.on('message', (bytes, remote) => {
  clientPort = remote.port
  record(bytes, 'server')
  toServer(bytes)
})
back.on('message', bytes => {
  record(bytes, 'client')
  toClient(bytes)
})

const received = createHash('sha256')
const returned = createHash('sha256')
const sent = createHash('sha256')
server.on('connection', socket => {
  socket.on('data', (data: Buffer) => received.update(data))
  socket.pipe(socket)
})
const client = createSecureSocket({
  host: '127.0.0.1',
  port: server.address()!.port,
  ikePort: front.address().port,
  psk,
  mtu: 1400,
})
client.on('data', (data: Buffer) => returned.update(data))
await once(client, 'connect')

let over = false
const chunk = Buffer.alloc(CHUNK)
const write = (): void => {
  for (;;) {
    if (over) return void client.end()
    random.fill(chunk)
    sent.update(chunk)
    if (!client.write(Buffer.from(chunk))) return
  }
}
client.on('drain', write)
write()

const kinds = { random: 0, truncated: 0, changed: 0, replayed: 0, reflected: 0 }
const harm = (): void => {
  const source = recorded[random.integer(0, recorded.length - 1)]!
  let bytes = source.bytes.slice()
  let { towards } = source
  switch (random.integer(0, 4)) {
    case 0:
      kinds.random++
      bytes = new Uint8Array(random.integer(1, 300))
      random.fill(bytes)
      break
    case 1:
      kinds.truncated++
      bytes = bytes.slice(0, random.integer(1, bytes.length))
      break
    case 2:
      kinds.changed++
      bytes[random.integer(0, bytes.length - 1)]! ^= 1 << random.integer(0, 7)
      // Of ESP, half get a sequence number that the replay window has not seen.
      if (random.chance(0.5) && bytes.length > 8) bytes[6]! += 4
      break
    case 3:
      kinds.replayed++
      break
    default:
      kinds.reflected++
      towards = towards === 'client' ? 'server' : 'client'
  }
  if (towards === 'client') toClient(bytes)
  else toServer(bytes, random.chance(0.5) ? back : stranger)
}

const measure = async (): Promise<{ heap: number; rss: number }> => {
  for (let i = 0; i < 3; i++) {
    globalThis.gc!()
    await new Promise(setImmediate)
  }
  const { heapUsed, external, rss } = process.memoryUsage()
  return { heap: heapUsed + external, rss }
}

let before = await measure()
for (let i = 0; i < COUNT; i++) {
  harm()
  if (i % BATCH === 0) await new Promise(setImmediate)
  if (i === WARM) before = await measure()
}
const after = await measure()
const during = client.bytesRead
const clientCounters = [...Endpoint.all].find(({ core }) => core.clientPath !== undefined)!.core
  .counters
over = true
write()
await once(client, 'close')
const [a, b, c] = [sent, received, returned].map(hash => hash.digest('hex'))
const facts = {
  kinds,
  sessions,
  octets: client.bytesWritten,
  during,
  intact: a === b && a === c,
  heapGrowth: after.heap - before.heap,
  rssGrowth: after.rss - before.rss,
  server: server.counters,
  client: clientCounters,
}
console.log(JSON.stringify(facts))
server.close()
await once(server, 'close')
for (const socket of [front, back, stranger]) socket.close()
