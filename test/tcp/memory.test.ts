/** What all connections of one peer hold of our memory, and how many of them there are. */
import t from 'tap'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { SharedMemory } from '../../lib/tcp/memory.ts'
import { TcpFlag } from '../../lib/wire/tcp.ts'
import { TcpPath } from '../harness/tcp-path.ts'
import { mss, sackPermitted, TcpPeer, windowScale } from '../harness/tcp-peer.ts'

const KIB = 1024
const LIMIT = 256 * KIB
const CONNECTIONS = 8
const OCTETS = 200 * KIB

const block = (i: number): Uint8Array =>
  Uint8Array.from({ length: OCTETS }, (_, at) => (at * 7 + i * 31 + (at >>> 9)) & 255)

/** Clients at `a` send to paused readers at `b`, whose stack may keep `LIMIT` octets in all. */
const squeeze = (loss = 0) => {
  const path = new TcpPath({ delay: 20, loss }, { delay: 20, loss }, { maxBuffered: LIMIT })
  const accepted: TcpConnection[] = []
  const errors: unknown[] = []
  const got = Array.from({ length: CONNECTIONS }, () => [] as Uint8Array[])
  const readers = new Set<TcpConnection>()
  const read = (connection: TcpConnection): void => {
    const list = got[accepted.indexOf(connection)]!
    for (let piece = connection.receive(); piece; piece = connection.receive())
      list.push(piece.slice())
  }
  const left = new Map<TcpConnection, Uint8Array>()
  const fill = (connection: TcpConnection): void => {
    const rest = left.get(connection)!
    left.set(connection, rest.subarray(connection.send(rest)))
  }
  let most = 0
  path.onEvent = (end, { kind, connection, error }) => {
    most = Math.max(most, path.b.stack.memory.used)
    if (kind === 'accepted') accepted.push(connection)
    if (error !== undefined) errors.push(error)
    if (end === path.a && kind === 'writable') fill(connection)
    if (end === path.b && kind === 'readable' && readers.has(connection)) read(connection)
  }
  // One after the other, so that the order of accepting them is known.
  for (let i = 0; i < CONNECTIONS; i++) {
    const connection = path.connect()
    left.set(connection, block(i))
    path.run(path.now + 5000)
  }
  for (const connection of left.keys()) {
    fill(connection)
    path.run(path.now + 200)
  }
  const resume = (): void => {
    for (const connection of accepted) {
      readers.add(connection)
      read(connection)
    }
  }
  const isWhole = (i: number): boolean =>
    Buffer.concat(got[i]!).equals(Buffer.from(block(i).buffer))
  return { path, accepted, errors, readers, got, resume, isWhole, most: () => most }
}

for (const loss of [0, 0.02]) {
  t.test(`at the limit nothing is kept and nothing is lost; ${loss * 100} % of packets are`, t => {
    const { path, accepted, errors, resume, isWhole, most } = squeeze(loss)
    path.run(path.now + 30_000)
    const held = path.b.stack.memory.used
    const bound = LIMIT + CONNECTIONS * 4 * 1460
    t.ok(held > LIMIT / 2, `${held} octets are held`)
    t.ok(most() <= bound, `never more than ${most()} of ${bound}`)
    // A quarter of an hour: the peers' probes are answered all the time.
    path.run(path.now + 900_000)
    t.strictSame(errors, [])
    resume()
    const begin = path.now
    path.run(path.now + 120_000)
    t.equal(accepted.length, CONNECTIONS)
    for (let i = 0; i < CONNECTIONS; i++) t.ok(isWhole(i), `connection ${i}`)
    t.equal(path.b.stack.memory.used, 0)
    t.ok(path.now - begin <= 120_000)
    t.strictSame(errors, [])
    t.end()
  })
}

t.test('a reader that keeps up goes on beside others that do not', t => {
  const { path, accepted, readers, got, isWhole } = squeeze()
  path.run(path.now + 10_000)
  t.ok(path.b.stack.memory.free < OCTETS)
  const last = accepted[CONNECTIONS - 1]!
  readers.add(last)
  for (let piece = last.receive(); piece; piece = last.receive())
    got[CONNECTIONS - 1]!.push(piece.slice())
  path.run(path.now + 60_000)
  t.ok(isWhole(CONNECTIONS - 1))
  t.end()
})

t.test('what is written and not acknowledged counts too, and writing goes on when it is', t => {
  const peer = new TcpPeer({ maxBuffered: 100_000 })
  const one = peer.open()
  const sent = one.send(new Uint8Array(200_000))
  t.equal(sent, 50_000, 'as much as it leaves to others')
  t.equal(one.send(new Uint8Array(1000)), 0)
  peer.hear()
  let acked = 0
  for (let i = 0; i < 200 && acked < sent; i++) {
    acked = Math.min(sent, acked + 1460)
    peer.seq = 7001
    peer.say({ ack: peer.ours + acked, window: 65535 }).hear()
  }
  t.equal(acked, sent)
  t.equal(peer.stack.memory.used, 0)
  t.ok(peer.events.some(({ kind }) => kind === 'writable'))
  t.end()
})

t.test('a dropped segment is not acknowledged, and the advertised window is zero', t => {
  const peer = new TcpPeer({ maxBuffered: 20_000, receiveBuffer: 1 << 17 })
  const connection = peer.open([...mss(1460), ...sackPermitted, ...windowScale(7)])
  const said: { ack: number; window: number }[] = []
  for (let i = 0; i < 30; i++) {
    said.push(...peer.say({ data: 1000, seq: peer.seq }).hear())
    peer.seq += 1000
  }
  const kept = connection.readableLength
  t.ok(kept <= 20_000 + 4 * 1460, `${kept} octets`)
  const last = said.at(-1)!
  t.equal(last.ack, (7001 + kept) >>> 0)
  t.equal(last.window, 0)
  while (connection.receive() !== undefined);
  const [update] = peer.hear()
  t.ok(update!.window > 0, 'there is room again')
  t.equal(update!.ack, last.ack)
  t.end()
})

t.test('maxConnections: one more is refused by RST, and comes in when one has ended', t => {
  const peer = new TcpPeer({ maxConnections: 3 })
  const open = (from: number): TcpConnection => peer.open(mss(1460), { from })
  const [first] = [open(1), open(2), open(3)]
  const refusal = peer.syn(mss(1460), { from: 4 })
  t.equal(refusal!.flags & TcpFlag.Rst, TcpFlag.Rst)
  first.abort()
  peer.hear()
  t.ok(open(5))
  t.equal(peer.stack.connectionCount, 3)
  t.end()
})

t.test('connections that only wait for late segments are bounded', t => {
  const peer = new TcpPeer({ timeWait: 1e9 })
  for (let i = 0; i < 4300; i++) {
    const from = 1024 + i
    const connection = peer.open(mss(1460), { from })
    connection.shutdown()
    peer.hear()
    peer.ours++
    peer.say({ flags: TcpFlag.Ack | TcpFlag.Fin, from }).hear()
    if (i === 4200) t.equal(connection.state, 'TIME-WAIT')
  }
  t.equal(peer.stack['connections'].size, 0)
  t.equal(peer.stack['waits'].size, 4096)
  t.equal(peer.stack.connectionCount, 0)
  t.end()
})

const holder = (name: string, heldOctets: number, told: string[] = []) => ({
  heldOctets,
  countedOctets: 0,
  onRoom: () => void told.push(name),
})

t.test('a connection that waits for room is notified once, when there is more', t => {
  const memory = new SharedMemory(1600)
  const told: string[] = []
  const [a, b] = [holder('a', 1000, told), holder('b', 600, told)]
  memory.count(a)
  memory.count(b)
  t.equal(memory.free, 0)
  memory.await(a)
  memory.await(b)
  b.heldOctets = 501
  memory.count(b)
  t.strictSame(told, [])
  b.heldOctets = 500
  memory.count(b)
  t.strictSame(told, ['a', 'b'])
  memory.await(b)
  memory.release(b)
  memory.release(a)
  memory.release(a)
  t.equal(memory.used, 0)
  t.strictSame(told, ['a', 'b'], 'who is gone waits no more')
  t.end()
})

const KILO = 1000 * KIB

t.test(
  'each connection gets as much as it leaves to others, in a session and among sessions',
  t => {
    const endpoint = new SharedMemory(6 * KILO)
    const first = new SharedMemory(3 * KILO, endpoint)
    const second = new SharedMemory(4 * KILO, endpoint)
    const [a, b, c] = [holder('a', 0), holder('b', 0), holder('c', 0)]
    const take = (memory: SharedMemory, one: typeof a): number => {
      one.heldOctets += memory.roomFor(one)
      memory.count(one)
      return one.heldOctets
    }
    t.equal(take(first, a), 1.5 * KILO)
    t.equal(take(first, a), 1.5 * KILO, 'no more')
    t.equal(take(first, b), 0.75 * KILO, 'a newcomer in the same session')
    t.equal(take(second, c), 1.875 * KILO, 'in another, half of what is left of the endpoint')
    t.equal(first.roomFor(b), 0)
    t.equal(endpoint.used, 4.125 * KILO)
    t.ok(endpoint.free > 0 && first.free > 0, 'what is on the way finds room')
    first.release(a)
    first.release(b)
    second.release(c)
    t.equal(endpoint.used, 0)
    t.end()
  },
)

t.test('room that another session gives back is announced to those that wait', t => {
  const endpoint = new SharedMemory(1600 * KIB)
  const first = new SharedMemory(Infinity, endpoint)
  const second = new SharedMemory(800 * KIB, endpoint)
  const told: string[] = []
  const [a, b] = [holder('a', 1600 * KIB), holder('b', 64 * KIB, told)]
  first.count(a)
  t.equal(second.roomFor(b), 32 * KIB, 'a little is reserved')
  second.count(b)
  t.equal(second.roomFor(b), 0)
  t.equal(second.free, 0)
  second.await(b)
  a.heldOctets = 1300 * KIB
  first.count(a)
  t.strictSame(told, ['b'])
  t.ok(second.roomFor(b) > 0)
  endpoint.setLimit(KILO)
  t.equal(second.free, 0)
  t.end()
})

/** Sessions of one endpoint, each with its own peer that sends `connections` times a megabyte to nobody who reads. */
const flood = (sessions: number, connections: number, limit: number) => {
  const endpoint = new SharedMemory(limit)
  const paths = Array.from({ length: sessions }, (_, i) => {
    const path = new TcpPath(
      { delay: 5, rate: 100 },
      { delay: 5 },
      { maxBuffered: limit },
      i + 1,
      endpoint,
    )
    const sent: TcpConnection[] = []
    path.onEvent = (end, { kind, connection }) => {
      if (end === path.a && kind === 'connected') {
        sent.push(connection)
        connection.send(new Uint8Array(1 << 20))
      }
    }
    for (let n = 0; n < connections; n++) path.connect()
    return { path, sent }
  })
  const run = (until: number): void => {
    for (let at = paths[0]!.path.now + 1; at <= until; at++)
      for (const { path } of paths) path.run(at)
  }
  return { endpoint, paths, run }
}

t.test('greedy peers get equal parts, by windows that close and not by loss', t => {
  const { endpoint, paths, run } = flood(3, 4, 4 << 20)
  run(3000)
  const parts = paths.map(({ path }) => path.b.stack.memory.used)
  t.ok(Math.max(...parts) <= 1.2 * Math.min(...parts), parts.join())
  t.ok(endpoint.used <= 4 << 20)
  for (const { sent } of paths) {
    t.equal(sent.length, 4)
    for (const { retransmissions } of sent) t.equal(retransmissions, 0)
  }
  t.end()
})

t.test('a peer whose data is read goes on beside others that fill the endpoint', t => {
  const { endpoint, paths, run } = flood(8, 32, 1 << 20)
  run(2000)
  t.ok(endpoint.used > 1 << 19, `${endpoint.used} octets are held`)
  const [{ path }] = paths as [(typeof paths)[0]]
  const other = new TcpPath({ delay: 5, rate: 100 }, { delay: 5 }, {}, 9, endpoint)
  other.run(path.now)
  const bulk = other.bulk(1 << 20)
  other.run(path.now + 5000)
  t.equal(bulk.received, 1 << 20)
  t.ok(bulk.connection.retransmissions <= 1, 'but for a probe at the end')
  t.end()
})
