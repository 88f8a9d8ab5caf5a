/**
 * A process of its own, so that its memory can be measured: one end does not read, the other goes on trying
 * to write over real sockets; then the reader resumes. Run with `--expose-gc` and who is paused; prints one
 * JSON object.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { FIRST_RECEIVE_BUFFER, FIRST_SEND_BUFFER } from '../../lib/tcp/config.ts'
import { createSecureServer, createSecureSocket, type SecureSocket } from '../../lib/index.ts'
import { Random } from './random.ts'

export interface Facts {
  /** What the writer's socket had taken when it said no for good, and `tries` attempts later. */
  readonly taken: number
  readonly takenLater: number
  readonly readWhilePaused: number
  readonly refused: boolean
  readonly highWaterMark: number
  readonly buffers: number
  readonly memory: number
  readonly memoryLater: number
  readonly tries: number
  readonly total: number
  readonly received: number
  readonly intact: boolean
}

const CHUNK = 1 << 16
/** Long enough that nothing is under way: looks between which the writer's socket took nothing. */
const QUIET_LOOKS = 250
const TRIES = 1500
const WAIT_MS = 2

const psk = 'a pre-shared key for this process'
const whoPauses = process.argv[2]
const server = createSecureServer({ psk, ikePort: 0, pauseOnConnect: true })
server.listen(0, '127.0.0.1')
await once(server, 'listening')
const accepted = once(server, 'connection')
const client = createSecureSocket({
  host: '127.0.0.1',
  port: server.address()!.port,
  ikePort: server.ikePort!,
  psk,
})
client.pause()
await once(client, 'connect')
const [taker] = (await accepted) as [SecureSocket]
const [reader, writer] = whoPauses === 'server' ? [taker, client] : [client, taker]
writer.resume()

const random = new Random(1)
const sent = createHash('sha256')
const received = createHash('sha256')
let total = 0
let refused = false

/** As a program that heeds `write`: what it answered `false` to is the last it wrote. */
const offer = (): void => {
  while (!writer.writableNeedDrain) {
    const chunk = Buffer.alloc(CHUNK)
    random.fill(chunk)
    sent.update(chunk)
    total += CHUNK
    if (!writer.write(chunk)) refused = true
  }
}

const turn = (): Promise<void> => new Promise(resolve => setTimeout(resolve, WAIT_MS))

const measure = async (): Promise<number> => {
  for (let i = 0; i < 3; i++) {
    globalThis.gc!()
    await new Promise(setImmediate)
  }
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

for (let quiet = 0, before = -1; quiet < QUIET_LOOKS; quiet = total === before ? quiet + 1 : 0) {
  before = total
  offer()
  await turn()
}
const taken = total
const memory = await measure()
for (let i = 0; i < TRIES; i++) {
  offer()
  await turn()
}
const takenLater = total
const memoryLater = await measure()
const readWhilePaused = reader.bytesRead

reader.on('data', (data: Buffer) => received.update(data))
reader.resume()
await once(writer, 'drain')
writer.end()
await once(reader, 'end')
reader.end()
const facts: Facts = {
  taken,
  takenLater,
  readWhilePaused,
  refused,
  highWaterMark: writer.writableHighWaterMark + reader.readableHighWaterMark,
  // Of what nobody reads no more is kept than at first; but four segments, which may be large here.
  buffers: FIRST_SEND_BUFFER + 4 * FIRST_RECEIVE_BUFFER,
  memory,
  memoryLater,
  tries: TRIES,
  total,
  received: reader.bytesRead,
  intact: sent.digest('hex') === received.digest('hex'),
}
console.log(JSON.stringify(facts))
server.close()
