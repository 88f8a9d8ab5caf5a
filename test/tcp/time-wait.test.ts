/** Connections that are remembered for late segments: records that stand for them, and what they answer. */
import t from 'tap'
import { TcpListeners } from '../../lib/tcp/listener.ts'
import { MAX_TIME_WAIT, TimeWaits, type Waiting } from '../../lib/tcp/time-wait.ts'
import type { Flow } from '../../lib/tcp/stack.ts'
import { TcpFlag } from '../../lib/wire/tcp.ts'
import { memory } from '../harness/memory.ts'
import { Random } from '../harness/random.ts'
import { LOCAL, mss, REMOTE, TcpPeer, timestamps } from '../harness/tcp-peer.ts'

const flowOf = (i: number): Flow => {
  const length = i % 3 === 0 ? 16 : 4
  return {
    localAddress: new Uint8Array(length).fill(i % 5),
    localPort: 80 + (i % 2),
    remoteAddress: new Uint8Array(length).fill(i % 7),
    remotePort: 65535 - (i % 11),
  }
}

const waitingOf = (i: number, number = i): Waiting => ({
  ...flowOf(i),
  sndNxt: (number * 2654435761) >>> 0,
  rcvNxt: (number * 40503) >>> 0,
  timestamps: number % 2 === 0,
  tsRecent: number,
  timestampOffset: 0xffffffff - number,
})

t.test('records come and go in any order, and each is found as it was', t => {
  const random = new Random(5)
  const forgotten: string[] = []
  const waits = new TimeWaits(12345, flow => forgotten.push(JSON.stringify(flow.remotePort)))
  const model = new Map<string, { waiting: Waiting; endsAt: number }>()
  const keyOf = (flow: Flow): string =>
    [flow.localAddress.join(), flow.localPort, flow.remoteAddress.join(), flow.remotePort].join(' ')
  let ended = 0
  for (let now = 0; now < 20_000; now++) {
    const waiting = waitingOf(random.integer(0, 5 * 7 * 11 * 6), now)
    const key = keyOf(waiting)
    const known = model.get(key)
    const found = waits.get(waiting)
    if (known === undefined) {
      if (found !== undefined) t.fail(`${key} is found`)
      waits.add(waiting, now + 500)
      model.set(key, { waiting, endsAt: now + 500 })
    } else {
      if (JSON.stringify({ ...known.waiting, endsAt: known.endsAt }) !== JSON.stringify(found))
        t.same(found, known)
      if (random.chance(0.5)) {
        waits.prolong(waiting, now + 500)
        model.set(key, { ...known, endsAt: now + 500 })
      } else {
        waits.remove(waiting)
        model.delete(key)
        ended++
      }
    }
    if (random.chance(0.1)) {
      waits.expire(now)
      for (const [key, { endsAt }] of model) if (endsAt <= now && model.delete(key)) ended++
    }
    const first = Math.min(...[...model.values()].map(({ endsAt }) => endsAt))
    if (waits.size !== model.size || waits.nextEnd !== first)
      t.fail(`${waits.size} of ${model.size} records, the first ends at ${waits.nextEnd}`)
  }
  t.equal(forgotten.length, ended)
  const gone = [...model.values()].filter(({ waiting }) => waiting.localPort === 80).length
  waits.removeWhere(({ localPort }) => localPort === 80)
  t.equal(waits.size, model.size - gone)
  waits.removeWhere(() => true)
  t.equal(waits.size, 0)
  t.equal(waits.nextEnd, Infinity)
  t.end()
})

const close = (peer: TcpPeer, from: number, options: readonly number[] = mss(1460)): void => {
  peer.seq = 7000
  const connection = peer.open(options, { from })
  connection.shutdown()
  peer.hear()
  peer.ours++
  peer.say({ flags: TcpFlag.Ack | TcpFlag.Fin, from }).hear()
  peer.seq++
  peer.events.length = 0
}

t.test('a connection in TIME-WAIT takes 100 octets', t => {
  // What is compiled and cached meanwhile is not of the records.
  const first = new TcpPeer()
  for (let i = 0; i < 2 * MAX_TIME_WAIT; i++) close(first, 2000 + i)
  // Many, beside which what V8 keeps or drops of its own is little.
  const peers = Array.from({ length: 10 }, () => new TcpPeer({ timeWait: 1e9 }))
  for (const peer of peers) for (let i = 0; i < 100; i++) close(peer, 1000 + i)
  const before = memory()
  const count = MAX_TIME_WAIT - 200
  for (const peer of peers) for (let i = 0; i < count; i++) close(peer, 2000 + i)
  const each = (memory() - before) / (count * peers.length)
  for (const peer of peers) t.equal(peer.stack['waits'].size, count + 100)
  t.ok(each > 40 && each <= 110, `${each} octets`)
  t.end()
})

t.test('the FIN once more is acknowledged, with timestamps; other late segments as well', t => {
  const peer = new TcpPeer()
  const options = [...mss(1460), ...timestamps(77, 0)]
  peer.syn(options)
  peer.say({ options: timestamps(78, 0) }).hear()
  const { connection } = peer.events.at(-1)!
  connection.shutdown()
  peer.hear()
  peer.ours++
  const flags = TcpFlag.Ack | TcpFlag.Fin
  const seq = peer.seq
  const [ack] = peer.say({ flags, options: timestamps(79, 0) }).hear()
  t.ok(peer.stack['waits'].size, 'nothing but the record is left')
  t.equal(peer.stack['connections'].size, 0)
  for (const said of [{ flags }, { data: 10, seq: seq - 10 }, { flags: TcpFlag.Syn, ack: 0 }]) {
    const [again] = peer.say({ seq, options: timestamps(79, 0), ...said }).hear()
    t.strictSame({ ...again, window: 0 }, { ...ack, window: 0 }, JSON.stringify(said))
  }
  t.strictSame(
    peer.say({ seq: seq + 1, options: timestamps(79, 0) }).hear(),
    [],
    'an ACK is not answered',
  )
  t.end()
})

t.test('a record ends by RST, by a newer SYN, and in time', t => {
  const peer = new TcpPeer()
  const waits = peer.stack['waits']
  close(peer, 5000)
  peer.say({ flags: TcpFlag.Rst, seq: peer.seq + 1 })
  t.equal(waits.size, 1, 'a RST elsewhere is none')
  peer.hear()
  peer.say({ flags: TcpFlag.Rst })
  t.equal(waits.size, 0)
  close(peer, 5000)
  peer.seq += 100_000
  t.ok(peer.syn(mss(1460), { from: 5000 })!.flags & TcpFlag.Syn)
  t.equal(waits.size, 0)
  close(peer, 6000)
  peer.wait(10_001)
  t.equal(waits.size, 0)
  t.end()
})

t.test('no RST ends a record where that is not wanted (RFC 1337)', t => {
  const peer = new TcpPeer({ timeWaitResets: false })
  const waits = peer.stack['waits']
  close(peer, 5000)
  for (const seq of [peer.seq, peer.seq + 1])
    t.same(peer.say({ flags: TcpFlag.Rst, seq }).hear(), [])
  t.equal(waits.size, 1)
  t.end()
})

t.test('answers to late segments are rationed', t => {
  const peer = new TcpPeer()
  for (let from = 5000; from < 5010; from++) close(peer, from)
  let answers = 0
  for (let i = 0; i < 20_000; i++)
    answers += peer.say({ seq: peer.seq - 500, from: 5000 + (i % 10) }).hear().length
  t.equal(answers, 1000)
  peer.now += 1000
  t.equal(peer.say({ seq: peer.seq - 500 }).hear().length, 1)
  t.end()
})

t.test('a port of ours is free again when its record ends', t => {
  const peer = new TcpPeer()
  const flow = { localAddress: LOCAL, localPort: 40_000, remoteAddress: REMOTE, remotePort: 443 }
  const connection = peer.stack.connect(flow, {}, peer.now)!
  const from443 = (flags: number): void => {
    peer.say({ from: 443, to: 40_000, flags, ack: connection.sndNxt }).hear()
    peer.seq++
  }
  peer.hear()
  from443(TcpFlag.Syn | TcpFlag.Ack)
  connection.shutdown()
  peer.hear()
  from443(TcpFlag.Fin | TcpFlag.Ack)
  const isFree = (): boolean => peer.stack.portsTowards(flow).find(40_000 - 32_768) === 40_000
  t.equal(connection.state, 'TIME-WAIT')
  t.notOk(isFree())
  t.equal(peer.stack.connect(flow, {}, peer.now), undefined)
  peer.wait(1001)
  t.ok(peer.stack.connect(flow, {}, peer.now), 'it may be used again after a second')
  t.end()
})

t.test('a connection of ours takes no port at which the same end of the peer is connected', t => {
  const flow = { localAddress: LOCAL, localPort: 0, remoteAddress: REMOTE, remotePort: 5000 }
  const { localPort } = new TcpPeer().stack.connect(flow, {}, 1000)!
  const listeners = new TcpListeners()
  listeners.listen(localPort, 1)
  const peer = new TcpPeer({}, listeners).say({ flags: TcpFlag.Syn, to: localPort })
  t.equal(peer.stack.connect(flow, {}, peer.now)!.localPort, localPort + 1)
  t.end()
})
