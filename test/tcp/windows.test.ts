/** Windows that follow what is read and what the path holds, from 64 KiB to 16 MiB, in virtual time. */
import t from 'tap'
import { DEFAULT_TCP_CONFIG } from '../../lib/tcp/config.ts'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { TcpSegment } from '../../lib/wire/tcp.ts'
import { Bulk, TcpPath, type Way } from '../harness/tcp-path.ts'
import { mss, sackPermitted, TcpPeer, timestamps, windowScale } from '../harness/tcp-peer.ts'

const KIB = 1024
const MIB = 1024 * KIB

t.test('1 Gbit/s over 100 ms is filled to 90 % with the defaults', t => {
  const way = { rate: 1000, delay: 50 }
  const path = new TcpPath({ ...way, queue: 8400 }, way)
  // Large segments: the same window in fewer steps of the simulation.
  for (const { stack } of [path.a, path.b]) stack.segmentLimit = 8980
  const bulk = path.bulk()
  path.run(3000)
  const before = bulk.received
  path.run(4000)
  const rate = ((bulk.received - before) * 8) / 1e6
  t.ok(rate >= 900, `${rate} Mbit/s`)
  t.equal(path.a.link.dropped, 0, 'and the window does not overflow the queue')
  t.end()
})

t.test('gaps that are being filled do not let the window hold the sender back', t => {
  const way = { rate: 100, delay: 50 }
  let data = 0
  // Each fiftieth is lost, so that in most round trips of slow start something is missing.
  const passes = (segment: Uint8Array): boolean => segment.length < 1000 || ++data % 50 !== 0
  const config = { congestionControl: 'bbr' } as const
  const path = new TcpPath({ ...way, queue: 200, passes }, way, config)
  for (const { stack } of [path.a, path.b]) stack.segmentLimit = 8980
  const { connection } = path.bulk()
  const short: number[] = []
  for (let at = 500; at <= 4000; at += 10) {
    path.run(at)
    if (connection.sndWnd - connection.flightOctets < connection.mss) short.push(at)
  }
  t.ok(short.length <= 10, `short at ${short.join()}`)
  t.end()
})

/** The end that accepts, with a reader that takes `octets` each `period` ms. */
const slowly = (
  way: Way,
  octets: number,
  period: number,
): { path: TcpPath; bulk: Bulk; most: () => number; reader: () => TcpConnection } => {
  const path = new TcpPath(way, way)
  const bulk = new Bulk(path.connect(), Infinity)
  let accepted: TcpConnection | undefined
  let most = 0
  path.onEvent = (end, { kind, connection }) => {
    if (kind === 'accepted') accepted = connection
    if (end === path.a && (kind === 'connected' || kind === 'writable')) bulk.fill()
    most = Math.max(most, accepted?.readableLength ?? 0)
  }
  const read = (): void => {
    let left = octets
    while (left > 0 && accepted !== undefined) {
      const piece = accepted.receive(left)
      if (piece === undefined) break
      left -= piece.length
    }
    path.pump()
    path.at(path.now + period, read)
  }
  if (octets > 0) path.at(period, read)
  return { path, bulk, most: () => most, reader: () => accepted! }
}

t.test('a reader that never reads is made to hold 64 KiB', t => {
  const { path, most, bulk } = slowly({ rate: 1000, delay: 10 }, 0, 0)
  path.run(60_000)
  t.ok(most() > 60 * KIB && most() <= 64 * KIB, `${most()} octets`)
  t.equal(bulk.connection.retransmissions, 0)
  t.end()
})

t.test('a reader that is slow is not made to hold much more, in whatever portions he reads', t => {
  for (const [octets, period] of [
    [10_000, 100],
    [MIB, 10_000],
    [64 * KIB, 640],
  ] as const) {
    const { path, most } = slowly({ rate: 1000, delay: 10 }, octets, period)
    path.run(120_000)
    t.ok(most() <= 64 * KIB, `${octets} octets each ${period} ms: ${most()} octets`)
  }
  t.end()
})

t.test('a reader of a portion each round trip gets a buffer of some portions', t => {
  const { path, most, reader } = slowly({ rate: 1000, delay: 10 }, 200_000, 20)
  path.run(10_000)
  t.ok(reader().receiveBuffer > 200_000, 'it has grown')
  t.ok(most() <= 4 * 2 * 200_000, `${most()} octets`)
  t.end()
})

t.test('without timestamps the round trip of our own segments counts', t => {
  const peer = new TcpPeer()
  peer.syn([...mss(1460), ...sackPermitted, ...windowScale(7)])
  peer.now += 50
  peer.say({}).hear()
  const { connection } = peer.events.find(({ kind }) => kind === 'accepted')!
  t.equal(connection.receiveBuffer, 64 * KIB)
  for (let flight = 0; flight < 20; flight++) {
    for (let i = 0; i < 40; i++) {
      peer.say({ data: 1460 })
      peer.seq += 1460
      while (connection.receive() !== undefined);
      peer.hear()
    }
    peer.now += 50
  }
  const inRoundTrip = 40 * 1460
  t.ok(connection.receiveBuffer >= 3 * inRoundTrip, `${connection.receiveBuffer} octets`)
  t.ok(connection.receiveBuffer <= 4 * inRoundTrip, `${connection.receiveBuffer} octets`)
  t.end()
})

t.test('a peer that tells old timestamps makes no window out of nothing', t => {
  const peer = new TcpPeer()
  const options = [...mss(1460), ...windowScale(7)]
  peer.syn([...options, ...timestamps(1, 0)])
  peer.say({ options: timestamps(2, 1) }).hear()
  const { connection } = peer.events.find(({ kind }) => kind === 'accepted')!
  for (let i = 0; i < 200; i++) {
    const echo = (connection.timestamp(peer.now) - 1_000_000_000 * (i % 3)) >>> 0
    peer.say({ data: 100, options: timestamps(3 + i, echo) })
    peer.seq += 100
    while (connection.receive() !== undefined);
    peer.hear()
    peer.now += 1000
  }
  t.equal(connection.receiveBuffer, 64 * KIB)
  t.end()
})

t.test('the window scale that is offered is the least for the limit (RFC 7323 §2.3)', t => {
  for (const [receiveBuffer, shift] of [
    [DEFAULT_TCP_CONFIG.receiveBuffer, 9],
    [MIB, 5],
    [65535, 0],
    [4000, 0],
  ] as const) {
    const seen: number[] = []
    const passes = (bytes: Uint8Array): boolean => {
      const segment = new TcpSegment()
      segment.read(bytes, 0, bytes.length)
      if (seen.length === 0) seen.push(segment.windowScale, segment.window)
      return true
    }
    const path = new TcpPath({ delay: 1, passes }, { delay: 1 }, { receiveBuffer })
    path.bulk(1)
    path.run(100)
    t.strictSame(seen, [shift, Math.min(receiveBuffer, 65535)])
  }
  t.end()
})

t.test('a limit is kept, whatever the reader takes', t => {
  const path = new TcpPath({ rate: 100, delay: 25 }, { delay: 25 }, { receiveBuffer: 100_000 })
  const bulk = path.bulk()
  path.run(3000)
  t.ok(bulk.connection.maxSndWnd <= 100_000)
  t.end()
})

t.test('as much waits to be sent as one window, and at first a usual write', t => {
  const way = { rate: 1, delay: 50 }
  const path = new TcpPath({ ...way, queue: 20 }, way)
  const { connection } = path.bulk()
  let most = 0
  for (let at = 100; at <= 10_000; at += 100) {
    path.run(at)
    most = Math.max(most, connection.sendQueue.length)
  }
  t.ok(most <= 256 * KIB + 60 * 1460, `${most} octets`)
  const fast = new TcpPath({ rate: 1000, delay: 25, queue: 4000 }, { delay: 25 })
  const bulk = fast.bulk()
  fast.run(2000)
  t.ok(bulk.connection.sendQueue.length > 6 * MIB, `${bulk.connection.sendQueue.length} octets`)
  t.ok(bulk.connection.sendQueue.length <= DEFAULT_TCP_CONFIG.sendBuffer)
  t.end()
})
