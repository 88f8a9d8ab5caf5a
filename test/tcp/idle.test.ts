/** A connection on which nobody says anything is not a broken one. */
import t from 'tap'
import { memory } from '../harness/memory.ts'
import { TcpPath } from '../harness/tcp-path.ts'
import { PERFECT, Stream, World } from '../harness/world.ts'

const HOUR = 3_600_000

t.test('hours of silence after the handshake end nothing and slow nothing down', t => {
  const world = new World(15, PERFECT)
  const served = new Stream(3000, 2, 1)
  served.budget = 0
  world.serve = () => served
  const stream = new Stream(3000, 1, 2)
  stream.budget = 0
  world.connect(stream)
  world.run(6 * HOUR)
  t.equal(stream.error, undefined)
  t.notOk(stream.closed)
  // The first segments are lost: they are repeated after one round trip's time, not after that of a dead line.
  world.filter = () => false
  for (const [core, end] of [
    [world.client, stream],
    [world.server, served],
  ] as const) {
    end.budget = Infinity
    world.work(core, end)
  }
  world.run(10)
  world.filter = () => true
  const from = world.now
  world.run(HOUR, () => stream.closed)
  t.equal(stream.error, undefined)
  t.equal(stream.received, 3000)
  t.equal(served.received, 3000)
  t.ok(world.now - from < 15_000, `${world.now - from} ms with TIME-WAIT`)
  t.end()
})

t.test('a connection that rests keeps what it has learnt, and little else', t => {
  const path = new TcpPath({ rate: 20, delay: 25, queue: 50 }, { delay: 25 })
  const bulk = path.bulk(3_000_000)
  path.run(10_000)
  t.equal(bulk.received, 3_000_000)
  const { connection } = bulk
  const { rtt, rto, snd_ssthresh: threshold } = connection.tcpInfo()
  path.run(60_000)
  t.ok(connection.isResting)
  bulk.left = 100_000
  bulk.fill()
  path.run(path.now + 1000)
  t.equal(bulk.received, 3_100_000)
  t.notOk(connection.isResting)
  const info = connection.tcpInfo()
  t.ok(Math.abs(Number(info.rtt) / Number(rtt) - 1) < 0.5, `${info.rtt} after ${rtt} us`)
  t.ok(Number(info.rto) <= Number(rto) * 1.5)
  t.ok(
    info.snd_ssthresh === threshold,
    'it does not overflow the queue to find the threshold again',
  )
  t.equal(path.a.stack.nextTimeout() < path.now + 20_000, true, 'it will rest again')
  path.run(path.now + 60_000)
  t.equal(path.a.stack.nextTimeout(), Infinity)
  t.end()
})

t.test('another path voids it', t => {
  const path = new TcpPath({ delay: 25 }, { delay: 25 })
  const { connection } = path.bulk(300_000)
  path.run(60_000)
  connection.pathChanged(path.now)
  t.equal(connection.tcpInfo().rtt, 0)
  t.equal(connection.recovery.congestion.window, connection.initialWindow, 'it begins again')
  t.end()
})

/** Connections that have carried 200 KB each way and then rest. */
const idlers = (count: number): TcpPath => {
  const path = new TcpPath({ delay: 5, rate: 1000 }, { delay: 5, rate: 1000 })
  const block = new Uint8Array(200_000)
  let got = 0
  path.onEvent = (end, { kind, connection }) => {
    if (kind === 'connected') connection.send(block)
    if (kind === 'readable')
      for (let piece = connection.receive(); piece; piece = connection.receive()) {
        got += piece.length
        if (end === path.b && connection.octetsReceived === block.length) connection.send(block)
      }
  }
  for (let i = 0; i < count; i++) {
    path.connect()
    path.run(path.now + 150)
  }
  path.run(path.now + 60_000)
  if (got !== 2 * count * block.length) throw new Error('not all arrives')
  return path
}

t.test('after 200 KB each way an idle connection keeps 4 KiB at each end', t => {
  // What is compiled meanwhile is not of the connections.
  idlers(300)
  const before = memory()
  const path = idlers(300)
  const each = (memory() - before) / 600
  t.equal(path.a.stack.connectionCount, 300)
  t.equal(path.b.stack.connectionCount, 300)
  t.ok(each <= 4096, `${each} octets`)
  t.comment(`${each} octets`)
  t.end()
})
