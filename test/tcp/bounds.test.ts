/** What a peer can hold of ours, and for how long; by hand-made segments in virtual time. */
import t from 'tap'
import { TcpListeners } from '../../lib/tcp/listener.ts'
import { EphemeralPorts } from '../../lib/tcp/ports.ts'
import { TcpFlag } from '../../lib/wire/tcp.ts'
import { Random } from '../harness/random.ts'
import { LOCAL, mss, REMOTE, sackPermitted, TcpPeer, windowScale } from '../harness/tcp-peer.ts'

const MINUTE = 60_000

t.test('a window that is shut for good ends the connection when nobody answers', t => {
  const peer = new TcpPeer()
  const connection = peer.open(mss(1460), { window: 0 })
  connection.send(new Uint8Array(5000))
  t.ok(peer.wait(60 * MINUTE).length > 3, 'the window is probed')
  t.equal(connection.state, 'CLOSED')
  t.equal(peer.events.at(-1)?.error, 'ETIMEDOUT')
  t.end()
})

t.test('a window held shut by answers is waited for, but not by a connection without owner', t => {
  const peer = new TcpPeer()
  const connection = peer.open(mss(1460), { window: 0 })
  connection.send(new Uint8Array(5000))
  const answer = (seconds: number): void => {
    for (let second = 0; second < seconds; second++)
      if (peer.wait(1000).length > 0) peer.say({ window: 0 })
  }
  answer(1800)
  t.equal(connection.state, 'ESTABLISHED')
  connection.release(peer.now)
  answer(180)
  t.equal(connection.state, 'CLOSED')
  t.equal(connection.sendQueue.length, 0)
  t.end()
})

t.test('the user timeout ends a connection whose data is not acknowledged (RFC 5482)', t => {
  const peer = new TcpPeer()
  const connection = peer.open()
  connection.setUserTimeout(5000, peer.now)
  peer.wait(MINUTE)
  t.equal(connection.state, 'ESTABLISHED', 'silence with nothing to say')
  connection.send(new Uint8Array(100))
  peer.wait(4900)
  t.equal(connection.state, 'ESTABLISHED')
  peer.wait(200)
  t.equal(peer.events.at(-1)?.error, 'ETIMEDOUT')
  t.end()
})

t.test('what was written is waited for as long as it lasts, a FIN alone for three repeats', t => {
  const peer = new TcpPeer({ orphanTimeout: 600_000 })
  const empty = peer.open(mss(1460), { from: 5001 })
  empty.release(peer.now)
  peer.wait(1)
  t.equal(empty.state, 'FIN-WAIT-1')
  t.ok(peer.stack.hasUndelivered)
  let repeats = 0
  while (peer.stack.hasUndelivered) repeats += peer.wait(100).length
  t.equal(repeats, 3)
  t.equal(empty.state, 'FIN-WAIT-1', 'it goes on while the process lives')
  const full = peer.open(mss(1460), { from: 5002 })
  full.send(new Uint8Array(100))
  full.release(peer.now)
  for (let minute = 0; minute < 5; minute++) {
    peer.wait(60_000)
    t.ok(peer.stack.hasUndelivered, 'octets')
  }
  t.end()
})

t.test(
  'the user timeout counts a window that answers hold shut, and bounds an orphan without it',
  t => {
    const peer = new TcpPeer({ orphanTimeout: 30_000, finWait: 20_000 })
    const held = peer.open(mss(1460), { window: 0 })
    held.setUserTimeout(5000, peer.now)
    held.send(new Uint8Array(100))
    for (let tenth = 0; tenth < 49; tenth++) if (peer.wait(100).length > 0) peer.say({ window: 0 })
    t.equal(held.state, 'ESTABLISHED')
    peer.wait(200)
    t.equal(held.state, 'CLOSED')
    t.equal(peer.events.at(-1)?.error, 'ETIMEDOUT')
    const silent = peer.open(mss(1460), { from: 5001 })
    silent.send(new Uint8Array(100))
    silent.release(peer.now)
    peer.wait(30_001)
    t.equal(silent.state, 'CLOSED', 'an orphan whose data nobody acknowledges')
    const half = peer.open(mss(1460), { from: 5002 })
    half.release(peer.now)
    peer.hear()
    peer.ours++
    peer.say({ from: 5002 })
    t.equal(half.state, 'FIN-WAIT-2')
    peer.wait(20_001)
    t.equal(half.state, 'CLOSED', 'an orphan whose peer never ends its half')
    t.ok(peer.stack.isEmpty)
    t.equal(peer.stack.memory.used, 0)
    t.end()
  },
)

t.test('TIME-WAIT is prolonged by the FIN once more, by no other segment', t => {
  const peer = new TcpPeer({ timeWait: 10_000 })
  const connection = peer.open()
  connection.shutdown()
  peer.hear()
  peer.ours++
  peer.say({ flags: TcpFlag.Ack | TcpFlag.Fin }).hear()
  peer.seq++
  t.equal(connection.state, 'TIME-WAIT')
  for (let second = 0; second < 9; second++) {
    peer.wait(1000)
    peer
      .say({})
      .say({ seq: peer.seq - 100 })
      .hear()
  }
  peer.wait(1100)
  t.ok(peer.stack.isEmpty)
  t.end()
})

t.test('old segments get a bounded number of answers', t => {
  const peer = new TcpPeer()
  peer.open()
  let answers = 0
  for (let i = 0; i < 1000; i++) answers += peer.say({ seq: peer.seq - 500 }).hear().length
  t.ok(answers > 0 && answers <= 10, `${answers} to empty ones`)
  answers = 0
  for (let i = 0; i < 1000; i++)
    answers += peer.say({ seq: peer.seq - 500, data: 10 }).hear().length
  t.ok(answers <= 100, `${answers} to those with data`)
  t.end()
})

t.test('four peers that never confirm do not keep a fifth out of a listener', t => {
  const listeners = new TcpListeners()
  const peers = Array.from({ length: 5 }, () => new TcpPeer({}, listeners))
  for (const peer of peers.slice(0, 4)) {
    for (let from = 1024; from < 6024; from++) peer.syn(mss(1460), { from })
  }
  const listener = listeners.at(80)!
  t.equal(listener.halfOpen, listener.limit)
  for (let from = 1; from <= 100; from++) t.ok(peers[4]!.syn(mss(1460), { from }))
  t.equal(listener.halfOpen, listener.limit)
  for (const peer of peers) peer.wait(5 * MINUTE)
  t.equal(listener.halfOpen, 0)
  t.end()
})

t.test('ephemeral ports: all are found, none twice, and a full table says so', t => {
  const random = new Random(3)
  const ports = new EphemeralPorts()
  const found = new Set<number>()
  for (let port = ports.find(random.next()); port !== undefined; port = ports.find(random.next())) {
    if (found.has(port)) t.fail(`${port} twice`)
    found.add(port)
    ports.add(port)
  }
  t.ok(found.size > 28_000)
  t.ok([...found].every(port => EphemeralPorts.includes(port)))
  ports.remove(40_000)
  t.equal(ports.find(1), 40_000)
  for (const port of found) ports.remove(port)
  t.ok(ports.isEmpty)
  t.end()
})

t.test('connect with every port in use is refused, and one that is freed is used again', t => {
  const { stack, now } = new TcpPeer()
  const flow = { localAddress: LOCAL, localPort: 0, remoteAddress: REMOTE, remotePort: 443 }
  const connections = []
  for (
    let one = stack.connect(flow, {}, now);
    one !== undefined;
    one = stack.connect(flow, {}, now)
  )
    connections.push(one)
  t.ok(connections.length > 28_000)
  const { localPort } = connections[77]!
  connections[77]!.abort()
  t.equal(stack.connect(flow, {}, now)?.localPort, localPort)
  t.end()
})

t.test('small pieces ahead of a gap are counted with what they take', t => {
  const budget = 1 << 20
  const peer = new TcpPeer({ maxBuffered: budget })
  const before = peer.stack.memory.used
  for (let from = 5000; from < 5040; from++) {
    peer.open(undefined, { from })
    // Each second octet, and so a piece for each.
    for (let i = 1; i <= 400; i++) peer.say({ from, seq: peer.seq + 2 * i, data: 1 }).hear()
  }
  const { used } = peer.stack.memory
  t.ok(used - before > 40 * 100 * 128, `${used} octets are counted`)
  t.ok(used <= budget + 1500)
  t.end()
})

t.test('a peer of the smallest segments has no more of them under way than our memory bears', t => {
  const peer = new TcpPeer()
  const connection = peer.open([...mss(64), ...sackPermitted, ...windowScale(14)])
  // As after a long slow start.
  connection.congestion.onStart(1 << 24)
  while (connection.send(new Uint8Array(1 << 20)) > 0);
  t.equal(peer.hear().length, 65_536)
  t.ok(connection.unsent > 0)
  peer.say({ ack: connection.sndUna + 64 * 100 })
  t.equal(peer.hear().length, 100, 'and it goes on when they are acknowledged')
  t.end()
})
