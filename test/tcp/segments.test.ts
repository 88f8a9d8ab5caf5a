/** What single segments do, where RFC 9293 and its extensions are easily got wrong; hand-made, in virtual time. */
import t from 'tap'
import { TcpFlag } from '../../lib/wire/tcp.ts'
import { TcpPath } from '../harness/tcp-path.ts'
import {
  LOCAL,
  mss,
  REMOTE,
  sackPermitted,
  TcpPeer,
  timestamps,
  windowScale,
} from '../harness/tcp-peer.ts'

t.test('two of our ends open towards each other at once (RFC 9293 §3.5, figure 7)', t => {
  const path = new TcpPath({ delay: 10 }, { delay: 10 })
  const connected: unknown[] = []
  path.onEvent = (end, { kind }) => kind === 'connected' && connected.push(end)
  const one = path.a.stack.connect(
    { localAddress: LOCAL, localPort: 4000, remoteAddress: REMOTE, remotePort: 5000 },
    {},
    0,
  )!
  const two = path.b.stack.connect(
    { localAddress: REMOTE, localPort: 5000, remoteAddress: LOCAL, remotePort: 4000 },
    {},
    0,
  )!
  path.run(100)
  t.equal(one.state, 'ESTABLISHED')
  t.equal(two.state, 'ESTABLISHED')
  t.same(new Set(connected), new Set([path.a, path.b]))
  t.equal(connected.length, 2)
  t.end()
})

t.test('SYN-RECEIVED challenges, acknowledges and resets', t => {
  const answer = (said: (peer: TcpPeer) => Parameters<TcpPeer['say']>[0]): number | undefined => {
    const peer = new TcpPeer()
    peer.syn()
    return peer.say(said(peer)).hear()[0]?.flags
  }
  const { Ack, Rst } = TcpFlag
  t.equal(
    answer(({ seq }) => ({ flags: Rst, seq: seq + 50 })),
    Ack,
    'RFC 5961 §3.2',
  )
  t.equal(
    answer(({ seq }) => ({ seq: seq + 90_000_000, data: 5 })),
    Ack,
  )
  t.equal(
    answer(({ ours }) => ({ ack: ours + 5000 })),
    Rst,
  )
  t.end()
})

t.test('a timestamp counts only from an acceptable segment (RFC 7323 §4.3)', t => {
  const peer = new TcpPeer()
  const connection = peer.open([...mss(1460), ...timestamps(1000, 0)])
  t.ok(connection.timestamps)
  peer.say({ ack: peer.ours + 9999, data: 10, options: timestamps(200_000, 0) }).hear()
  t.equal(connection.readableLength, 0)
  peer.say({ data: 10, options: timestamps(1001, 0) }).hear()
  t.equal(connection.readableLength, 10)
  t.end()
})

t.test('a FIN ahead of a gap is acknowledged at once (RFC 5681 §4.2)', t => {
  const peer = new TcpPeer()
  const connection = peer.open()
  peer.say({ flags: TcpFlag.Ack | TcpFlag.Fin, seq: peer.seq + 10 })
  t.match(peer.hear(), [{ flags: TcpFlag.Ack, ack: peer.seq }])
  peer.say({ data: 10 })
  t.match(peer.hear(), [{ ack: peer.seq + 11 }])
  t.equal(connection.state, 'CLOSE-WAIT')
  t.end()
})

t.test('data in a SYN and in a SYN-ACK is kept (RFC 9293 §3.10.7)', t => {
  const peer = new TcpPeer()
  const answer = peer.syn(mss(1460), { data: 20 })
  t.equal(answer?.ack, 7001, 'the SYN alone is acknowledged before the handshake is done')
  peer.seq = 7001
  peer.say({ data: 30 })
  t.match(peer.hear(), [{ ack: 7031 }])
  const connection = peer.events.find(({ kind }) => kind === 'accepted')?.connection
  t.equal(connection?.readableLength, 30, 'of what came with it and once more')
  t.end()
})

t.test('a small MSS is honoured, down to a floor', t => {
  for (const [told, used] of [
    [1460, 1460],
    [536, 536],
    [256, 256],
    [100, 100],
    [8, 64],
  ] as const) {
    const peer = new TcpPeer()
    peer.open([...mss(told), ...sackPermitted]).send(new Uint8Array(100_000))
    const flight = peer.hear()
    t.equal(Math.max(...flight.map(({ data }) => data)), used)
    t.equal(flight.length, 10, 'the first flight is ten segments of that size (RFC 6928 §2)')
  }
  t.end()
})

t.test('Nagle: only a small segment holds a small one back', t => {
  const peer = new TcpPeer()
  const connection = peer.open()
  connection.send(new Uint8Array(1560))
  t.match(peer.hear(), [{ data: 1460 }, { data: 100 }])
  connection.send(new Uint8Array(50))
  t.same(peer.hear(), [])
  t.end()
})

t.test('an ACK for every second full segment, with window scaling and without', t => {
  for (const options of [[], windowScale(7)]) {
    const peer = new TcpPeer()
    const connection = peer.open([...mss(1460), ...sackPermitted, ...options])
    let acks = 0
    for (let i = 0; i < 1000; i++) {
      peer.say({ data: 1460 })
      peer.seq += 1460
      acks += peer.hear().length
      while (connection.receive() !== undefined);
      acks += peer.hear().length
    }
    t.ok(acks >= 480 && acks <= 540, `${acks}`)
  }
  t.end()
})

t.test('the window grows by octets, not by ACKs (RFC 5681 §3.1)', t => {
  for (const congestionControl of ['cubic', 'reno'] as const) {
    const growth = (pieces: number): number => {
      const peer = new TcpPeer({ congestionControl })
      const connection = peer.open()
      connection.send(new Uint8Array(1 << 20))
      const first = peer.hear()[0]!
      const before = connection.congestion.window
      peer.now += 50
      for (let i = 1; i <= pieces; i++)
        peer.say({ ack: first.seq + Math.ceil((first.data * i) / pieces) })
      return connection.congestion.window - before
    }
    t.ok(Math.abs(growth(1460) - growth(1)) < 2, `${congestionControl}: ${growth(1460)}`)
  }
  t.end()
})

t.test('two duplicate ACKs without SACK let two new segments go (RFC 3042)', t => {
  const peer = new TcpPeer()
  peer.open(mss(1460)).send(new Uint8Array(100_000))
  t.equal(peer.hear().length, 10)
  peer.now += 30
  t.equal(peer.say({}).hear().length, 1)
  t.equal(peer.say({}).hear().length, 1)
  const third = peer.say({}).hear()
  t.equal(third[0]?.seq, peer.ours, 'the third repeats the first')
  t.end()
})

t.test('a lone lost request is repeated after about one round trip', t => {
  let isDropping = false
  const passes = (segment: Uint8Array): boolean => {
    if (!isDropping || segment.length - (segment[12]! >> 4) * 4 === 0) return true
    isDropping = false
    return false
  }
  const path = new TcpPath({ delay: 10, passes }, { delay: 10 })
  const times: number[] = []
  let askedAt = 0
  const connection = path.connect()
  const ask = (): void => {
    askedAt = path.now
    isDropping = times.length === 30
    connection.send(new Uint8Array(200))
    path.pump()
  }
  path.onEvent = (end, event) => {
    if (end === path.a && event.kind === 'connected') path.at(path.now, ask)
    if (event.kind !== 'readable') return
    while (event.connection.receive() !== undefined);
    if (end === path.b) event.connection.send(new Uint8Array(200))
    else {
      times.push(path.now - askedAt)
      if (times.length < 40) path.at(path.now + 5, ask)
    }
  }
  path.run(5000)
  t.equal(times.length, 40)
  t.ok(Math.max(...times) <= 60, `${Math.max(...times)} ms`)
  t.ok(times[30]! > 20, 'it was lost')
  t.end()
})
