// Two processes: this one serves and starts the other as its client. They negotiate IKEv2 with a
// pre-shared key, move 100 MiB each way through ESP, and compare SHA-256 digests.
import { fork } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { createSecureServer, createSecureSocket } from 'ike-socket'
import { progress } from './progress.mjs'

const MIB = 1 << 20
const TOTAL = 100 * MIB
const PORT = 8080

const say = line => process.stdout.write(`${line}\n`)

/** Sends `TOTAL` random octets and resolves to their digest. */
const send = socket =>
  new Promise((resolve, reject) => {
    const hash = createHash('sha256')
    const block = randomBytes(MIB)
    let left = TOTAL
    const more = () => {
      while (left > 0) {
        const piece = Buffer.from(block)
        piece.writeUInt32BE(left / MIB)
        hash.update(piece)
        left -= piece.length
        if (!socket.write(piece)) return
      }
      socket.removeListener('drain', more)
      socket.end(() => resolve(hash.digest('hex')))
    }
    socket.on('drain', more).once('error', reject)
    more()
  })

/** Reads to the end and resolves to the digest of what came. */
const receive = (socket, words) =>
  new Promise((resolve, reject) => {
    const hash = createHash('sha256')
    const bar = progress(words)
    let octets = 0
    socket.on('data', piece => {
      hash.update(piece)
      octets += piece.length
      bar.update(octets / TOTAL)
    })
    socket.once('close', bar.stop).once('error', reject)
    socket.once('end', () => {
      bar.stop()
      resolve({ digest: hash.digest('hex'), octets })
    })
  })

/** First the client's octets, then the server's, so that each direction is timed alone. */
const runClient = async (ikePort, psk) => {
  const socket = createSecureSocket({
    host: '127.0.0.1',
    port: PORT,
    ikePort,
    psk,
    localId: 'client.demo',
    allowHalfOpen: true,
  })
  socket.once('error', error => {
    say(`client: ${error.message}`)
    process.exit(1)
  })
  await new Promise(resolve => socket.once('secureConnect', resolve))
  const { info, peerId, localId } = socket.session
  const [child] = info.children
  say(`client  ${localId} authenticated ${peerId}`)
  say(`IKE SA  ${info.spiI}:${info.spiR}  ${info.ikeSuite}`)
  say(
    `Child   ${child.spiIn.toString(16)}:${child.spiOut.toString(16)}  ${child.suite}, ${child.mode} mode`,
  )
  say(`        ${child.localSelectors} === ${child.remoteSelectors}`)
  const received = receive(socket, 'server to client')
  const sent = await send(socket)
  const { digest, octets } = await received
  process.send({ sent, digest, octets })
  process.disconnect()
}

const runServer = async () => {
  const psk = randomBytes(32)
  let failed = false
  const result = { down: {} }
  const server = createSecureServer(
    { psk, ikePort: 0, localId: 'server.demo', allowHalfOpen: true },
    async socket => {
      let start = performance.now()
      const received = await receive(socket, 'client to server')
      result.up = { ...received, seconds: (performance.now() - start) / 1000 }
      start = performance.now()
      socket.once('close', () => {
        result.down.seconds = (performance.now() - start) / 1000
        server.close()
      })
      result.down.sent = await send(socket)
    },
  )
  server.on('ikeClientError', error => say(`server: ${error.message}`))
  await new Promise(resolve => server.listen(PORT, '127.0.0.1', resolve))
  const client = fork(new URL(import.meta.url), [
    'client',
    String(server.ikePort),
    psk.toString('hex'),
  ])
  const closed = new Promise(resolve => server.once('close', resolve))
  const theirs = new Promise((resolve, reject) => {
    client.once('message', resolve)
    client.once('exit', code =>
      code === 0 ? undefined : reject(new Error(`the client ended with ${code}`)),
    )
  })
  const { sent, digest, octets } = await theirs
  await closed
  const check = (name, ours, other, count, seconds) => {
    const same = ours === other && count === TOTAL
    failed ||= !same
    const rate = ((TOTAL * 8) / seconds / 1e6).toFixed(0)
    say(
      `${name}  ${count / MIB} MiB  ${ours.slice(0, 16)}… ${same ? '=' : 'IS NOT'} ${other.slice(0, 16)}…  ${rate} Mbit/s`,
    )
  }
  check('client to server', result.up.digest, sent, result.up.octets, result.up.seconds)
  check('server to client', digest, result.down.sent, octets, result.down.seconds)
  say(failed ? 'FAILED: the octets differ' : 'All octets arrived.')
  process.exitCode = failed ? 1 : 0
}

if (process.argv[2] === 'client') {
  await runClient(Number(process.argv[3]), Buffer.from(process.argv[4], 'hex'))
} else await runServer()
