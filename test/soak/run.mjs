// Two processes on the loopback: one sends `--mib` (2048) MiB to the other while both SAs are rekeyed each
// `--interval` (1000) ms, from alternating sides; `--accelerate ffi` as the option. Prints digests, rekeys and throughput by the second.
import { fork } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { parseArgs } from 'node:util'
import { createSecureServer, createSecureSocket } from 'ike-socket'
import { progress } from '../../examples/progress.mjs'

const MIB = 1 << 20
const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '2048' },
    interval: { type: 'string', default: '1000' },
    accelerate: { type: 'string', default: 'off' },
    client: { type: 'boolean', default: false },
  },
})
const total = Number(values.mib) * MIB
const interval = Number(values.interval)
const { accelerate } = values

/** Rekeys both SAs now and then; the ends take turns. Returns how often it did. */
const rekeyEvery = (session, first) => {
  let rounds = 0
  const rekey = () => {
    rounds++
    session.rekeyChild()
    session.rekeyIke()
  }
  let timer
  const start = setTimeout(() => {
    rekey()
    timer = setInterval(rekey, 2 * interval)
  }, first)
  return () => {
    clearTimeout(start)
    clearInterval(timer)
    return rounds
  }
}

const runClient = async (ikePort, psk) => {
  const socket = createSecureSocket({ host: '127.0.0.1', port: 8080, ikePort, psk, accelerate })
  await new Promise((resolve, reject) =>
    socket.once('secureConnect', resolve).once('error', reject),
  )
  const rounds = rekeyEvery(socket.session, interval)
  const hash = createHash('sha256')
  const block = randomBytes(MIB)
  for (let sent = 0; sent < total; sent += MIB) {
    const piece = Buffer.from(block)
    piece.writeUInt32BE(sent / MIB)
    hash.update(piece)
    if (!socket.write(piece)) await new Promise(resolve => socket.once('drain', resolve))
  }
  const ended = new Promise(resolve => socket.once('end', resolve))
  socket.end()
  socket.resume()
  await ended
  const { ikeRekeys, childRekeys } = socket.session.info
  const { failedIcvs } = socket.session.counters
  process.send({ digest: hash.digest('hex'), rounds: rounds(), ikeRekeys, childRekeys, failedIcvs })
  process.disconnect()
}

const say = line => process.stdout.write(`${line}\n`)
const mibPerSecond = octets => (octets / MIB).toFixed(0)

const runServer = async () => {
  const psk = randomBytes(32)
  const hash = createHash('sha256')
  const bar = progress('octets of the client')
  const seconds = []
  let octets = 0
  let rounds
  let session
  const server = createSecureServer({ psk, ikePort: 0, accelerate }, socket => {
    session = socket.session
    rounds = rekeyEvery(session, 2 * interval)
    socket.on('data', piece => {
      hash.update(piece)
      octets += piece.length
      bar.update(octets / total)
    })
    socket.once('end', () => socket.end())
  })
  await new Promise(resolve => server.listen(8080, '127.0.0.1', resolve))
  const child = fork(process.argv[1], [...process.argv.slice(2), '--client'])
  child.send({ ikePort: server.ikePort, psk: psk.toString('hex') })
  let last = 0
  const meter = setInterval(() => {
    seconds.push(octets - last)
    last = octets
  }, 1000)
  const started = performance.now()
  const told = await new Promise((resolve, reject) => {
    child
      .once('message', resolve)
      .once('exit', code => code !== 0 && reject(new Error(`client: ${code}`)))
  })
  const elapsed = (performance.now() - started) / 1000
  clearInterval(meter)
  bar.stop()
  const ours = rounds()
  const { drops } = server.counters
  server.close()
  const digest = hash.digest('hex')
  const whole = seconds.slice(1, -1).sort((a, b) => a - b)
  const lost = ['esp.unknownSpi', 'esp.icv', 'tcp.noSa'].reduce(
    (sum, name) => sum + (drops[name] ?? 0),
    told.failedIcvs,
  )
  say(`${octets / MIB} MiB in ${elapsed.toFixed(1)} s: ${mibPerSecond(octets / elapsed)} MiB/s`)
  if (whole.length > 0) {
    const [least, median] = [whole[0], whole[whole.length >> 1]]
    say(`seconds: least ${mibPerSecond(least)}, median ${mibPerSecond(median)} MiB/s`)
  }
  say(
    `rekeys of Child SAs ${told.childRekeys}, of IKE SAs ${told.ikeRekeys}; asked for ${told.rounds} times by the client, ${ours} by the server`,
  )
  say(`packets that found no SA: ${lost}`)
  const isGood = digest === told.digest && octets === total && lost === 0
  const enough = told.ikeRekeys > 0 || elapsed * 1000 < 2 * interval
  say(
    isGood
      ? `equal digests: ${digest}`
      : `DIFFERENT: ${digest} and ${told.digest}, or packets lost`,
  )
  if (!isGood || !enough) process.exitCode = 1
}

if (values.client) {
  process.once('message', ({ ikePort, psk }) =>
    runClient(ikePort, Buffer.from(psk, 'hex')).catch(error => {
      say(`client: ${error.message}`)
      process.exit(1)
    }),
  )
} else await runServer()
