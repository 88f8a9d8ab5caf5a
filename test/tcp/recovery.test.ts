/** What TCP makes of loss, of reordering and of silence, over a path in virtual time. */
import t from 'tap'
import { getU32 } from '../../lib/base/bytes.ts'
import type { Features } from '../../lib/wire/own-features.ts'
import { TcpPath, type Way } from '../harness/tcp-path.ts'
import { mss, sack, sackPermitted, TcpPeer, timestamps, windowScale } from '../harness/tcp-peer.ts'

const BACK: Way = { rate: 100, delay: 10 }
const BIG = { sendBuffer: 1 << 23, receiveBuffer: 1 << 23 }
const SEGMENT = 1448

/** Mbit/s. */
const goodput = (way: Partial<Way>): number => {
  const path = new TcpPath({ rate: 100, delay: 10, queue: 1000, ...way }, BACK, BIG)
  const bulk = path.bulk()
  path.run(5000)
  return (bulk.received * 8) / 5000 / 1000
}

t.test('reordering is not taken for loss for long (RFC 8985 §6.2, RFC 4015)', t => {
  const clean = goodput({})
  t.ok(clean > 88, `clean: ${clean}`)
  for (const [late, lateBy, share] of [
    [0.02, 5, 0.95],
    [0.1, 5, 0.85],
    [0.02, 20, 0.7],
  ] as const) {
    const got = goodput({ late, lateBy })
    t.ok(got > share * clean, `${100 * late} % late by ${lateBy} ms: ${got} of ${clean}`)
  }
  t.end()
})

t.test('what a peer had reported by SACK and threw away is sent again (RFC 2018 §8)', t => {
  const peer = new TcpPeer()
  peer.open().send(new Uint8Array(14_600))
  const flight = peer.hear()
  t.equal(flight.length, 10)
  peer.now += 20
  peer.say({ ack: flight[0]!.seq, options: sack(flight[1]!.seq, flight[9]!.seq + 1460) }).hear()
  peer.now += 20
  peer.say({ ack: flight[1]!.seq })
  const again = peer.wait(2000).filter(({ seq, data }) => seq === flight[1]!.seq && data > 0)
  t.ok(again.length > 0)
  t.end()
})

t.test('the path takes less than what is under way: it goes out in smaller pieces', t => {
  let limit = 1500
  const passes = (segment: Uint8Array): boolean => segment.length + 20 <= limit
  const path = new TcpPath({ rate: 50, delay: 10, queue: 400, passes }, BACK)
  const bulk = path.bulk(8_000_000)
  path.run(1000)
  t.ok(bulk.received > 500_000)
  limit = 1260
  path.a.stack.segmentLimit = 1240
  path.run(11_000)
  t.equal(bulk.received, 8_000_000)
  t.equal(bulk.error, undefined)
  t.end()
})

t.test('a lost tail is repaired by the probe and its answer (RFC 8985 §7)', t => {
  for (const rtt of [1, 10, 20]) {
    for (const lost of [1, 2, 5]) {
      const from = (100 - lost) * SEGMENT
      let first: number | undefined
      let farthest = 0
      const passes = (segment: Uint8Array): boolean => {
        const length = segment.length - (segment[12]! >> 4) * 4
        if (length === 0) return true
        first ??= getU32(segment, 4)
        const offset = (getU32(segment, 4) - first) >>> 0
        const isNew = offset >= farthest
        farthest = Math.max(farthest, offset + length)
        return !isNew || offset < from
      }
      const way = { rate: 100, delay: rtt / 2, queue: 1000 }
      const path = new TcpPath({ ...way, passes }, way)
      const bulk = path.bulk(100 * SEGMENT)
      let goodAt = 0
      const told = path.onEvent
      path.onEvent = (end, event) => {
        told(end, event)
        if (bulk.received <= from) goodAt = path.now
      }
      path.run(3000)
      t.equal(bulk.received, 100 * SEGMENT)
      const took = bulk.lastAt - goodAt
      t.ok(took <= 3 * rtt + 10, `${lost} lost at ${rtt} ms: ${took} ms`)
    }
  }
  t.end()
})

t.test('a window of long ago is not sent at once (RFC 5681 §4.1)', t => {
  const path = new TcpPath({ rate: 100, delay: 25, queue: 100 }, { rate: 100, delay: 25 })
  const bulk = path.bulk(2_000_000)
  path.run(10_000)
  t.equal(bulk.received, 2_000_000)
  let burst = 0
  path.at(70_000, () => {
    const before = path.a.link.sent
    bulk.left = 2_000_000
    bulk.fill()
    path.pump()
    burst = path.a.link.sent - before
  })
  path.run(80_000)
  t.equal(bulk.received, 4_000_000)
  t.ok(burst <= 10, `${burst} segments`)
  t.end()
})

t.test('a path that holds everything back for a second: nothing is sent again but probes', t => {
  const path = new TcpPath(
    { rate: 20, delay: 25, queue: 4000, held: [5000, 6000] },
    { rate: 20, delay: 25 },
    { sendBuffer: 300_000 },
  )
  const bulk = path.bulk()
  path.run(4990)
  const before = bulk.connection.retransmissions
  path.run(8000)
  t.equal(path.a.link.dropped, 0)
  t.ok(bulk.connection.retransmissions - before <= 3)
  t.ok(bulk.received > 16_000_000, `${bulk.received}`)
  t.end()
})

t.test('a SACK costs the same however much is under way', t => {
  const peer = new TcpPeer({ initialWindow: 60_000, sendBuffer: 1 << 23 })
  const connection = peer.open([2, 4, 0, 100, 1, 1, 4, 2, 1, 3, 3, 7])
  connection.congestion.onStart(1 << 23)
  connection.send(new Uint8Array(6_000_000))
  const flight = peer.hear()
  t.ok(flight.length > 50_000, `${flight.length} segments`)
  peer.now += 10
  const times: number[] = []
  for (let i = 1; i < 2000; i += 2) {
    const at = flight[i]!
    const before = performance.now()
    peer.say({ ack: flight[0]!.seq, options: sack(at.seq, at.seq + at.data) })
    times.push(performance.now() - before)
  }
  times.sort((one, other) => one - other)
  t.ok(times[500]! < 0.2, `median ${times[500]} ms`)
  t.end()
})

t.test(
  'our own ends delay ACKs so little that a lone lost message is repaired in three round trips',
  t => {
    const rtt = 20
    const longest = (features: Features): number => {
      let sentAt = 0
      let messages = 0
      const seen = new Set<number>()
      const passes = (segment: Uint8Array): boolean => {
        if (segment.length < 200) return true
        const seq = new DataView(segment.buffer, segment.byteOffset).getUint32(4)
        const isFirst = !seen.has(seq)
        seen.add(seq)
        return !isFirst || messages < 30 || messages % 5 !== 0
      }
      const path = new TcpPath({ delay: rtt / 2, passes }, { delay: rtt / 2 })
      for (const { stack } of [path.a, path.b]) stack.peerFeatures = features
      const connection = path.connect()
      const waits: number[] = []
      path.onEvent = (end, { kind, connection: other }) => {
        if (kind !== 'readable' || end !== path.b) return
        while (other.receive() !== undefined);
        waits.push(path.now - sentAt)
      }
      for (let i = 0; i < 50; i++) {
        path.at(1000 + i * 300, () => {
          messages++
          sentAt = path.now
          connection.send(new Uint8Array(200))
          path.pump()
        })
      }
      path.run(20_000)
      t.equal(waits.length, 50)
      return Math.max(...waits)
    }
    const own = longest(new Set(['ack-delay']))
    t.ok(own <= 3 * rtt, `${own} ms`)
    const others = longest(new Set())
    t.ok(others > own + 30, `${others} ms with others`)
    t.end()
  },
)

t.test('after a stall the rate is the old one at once, and the timeout is longer', t => {
  const way = { rate: 20, delay: 25 }
  const path = new TcpPath({ ...way, queue: 4000, held: [5000, 6000] }, way, {
    sendBuffer: 300_000,
  })
  const bulk = path.bulk()
  path.run(5000)
  const before = bulk.connection.tcpInfo()
  path.run(6050)
  t.ok(Number(bulk.connection.tcpInfo()['rto']) > 2 * Number(before['rto']))
  path.run(6100)
  const { received } = bulk
  path.run(6300)
  const rate = ((bulk.received - received) * 8) / 200 / 1000
  t.ok(rate > 0.9 * 20 * (1448 / 1500), `${rate} Mbit/s`)
  t.ok(Number(bulk.connection.tcpInfo()['rtt']) < 2 * Number(before['rtt']))
  t.end()
})

t.test('what is late behind a repetition is kept while there is a gap, and is old otherwise', t => {
  const peer = new TcpPeer()
  const options = (value: number): number[] => timestamps(value, 1)
  const connection = peer.open(
    [...mss(1460), ...sackPermitted, ...windowScale(7), ...timestamps(1000, 0)],
    { options: timestamps(1000, 1) },
  )
  const say = (at: number, value: number): void => {
    peer.say({ seq: 7001 + at, data: 100, options: options(value) }).hear()
  }
  say(100, 1100)
  say(0, 1300)
  t.equal(connection.readableLength, 200)
  say(400, 1310)
  say(200, 1310)
  t.equal(connection.readableLength, 300)
  say(300, 1110)
  t.equal(connection.readableLength, 500, 'late by no more than the slack')
  say(500, 1290)
  t.equal(connection.readableLength, 500, 'there is no gap')
  say(600, 1320)
  say(500, 1100)
  t.equal(connection.readableLength, 500, 'too old')
  say(500, 1330)
  t.equal(connection.readableLength, 700)
  t.end()
})

t.test('reordering beside true losses costs hardly anything', t => {
  const rate = (way: object): number => {
    const link = { rate: 100, delay: 10 }
    const sizes = { sendBuffer: 1 << 24, receiveBuffer: 1 << 24 }
    const path = new TcpPath({ ...link, queue: 1000, ...way }, link, sizes, 3)
    const bulk = path.bulk()
    path.run(6000)
    return bulk.received
  }
  t.ok(rate({ late: 0.02, lateBy: 20 }) > 0.9 * rate({}))
  t.end()
})
