/** What connections leave to those that begin after them, with the same peer over the same path (RFC 9040). */
import t from 'tap'
import { SharedExperience, type Experience } from '../../lib/tcp/experience.ts'
import { Bulk, TcpPath, type Way } from '../harness/tcp-path.ts'
import { REMOTE } from '../harness/tcp-peer.ts'

const MSS = 1448

/** Octets from `a` over a connection of its own; milliseconds until all of them are there. */
const transfer = (path: TcpPath, octets: number): number => {
  const from = path.now
  const bulk = path.bulk(octets)
  path.run(from + 5000)
  if (bulk.received !== octets) throw new Error('not all arrives')
  bulk.connection.shutdown()
  path.pump()
  return bulk.lastAt - from
}

const pathOf = (way: Partial<Way> = {}): TcpPath =>
  new TcpPath({ rate: 100, delay: 50, queue: 800, ...way }, { rate: 100, delay: 50 })

t.test('a connection begins with what the one before has found', t => {
  const path = pathOf()
  const first = transfer(path, 1_000_000)
  const second = transfer(path, 1_000_000)
  t.ok(second < first - 150, `${first} ms, then ${second} ms`)
  const small = pathOf()
  const [one, other] = [transfer(small, 100_000), transfer(small, 100_000)]
  t.ok(other < one - 90, `${one} ms, then ${other} ms`)
  t.equal(path.a.link.dropped + small.a.link.dropped, 0)
  t.end()
})

t.test('a path with a short queue loses no more by it', t => {
  const path = pathOf({ queue: 100 })
  const dropped: number[] = []
  for (let i = 0; i < 4; i++) {
    const before = path.a.link.dropped
    transfer(path, 3_000_000)
    dropped.push(path.a.link.dropped - before)
  }
  t.ok(Math.max(...dropped.slice(1)) <= dropped[0]! + 5, dropped.join())
  t.end()
})

t.test('those that begin together begin with no more than the one before had', t => {
  const path = pathOf()
  transfer(path, 2_000_000)
  const had = path.a.stack.experience.roundTripsTo(REMOTE, path.now)!.window / MSS
  const begun = Array.from({ length: 10 }, () => path.connect())
  path.run(path.now + 101)
  const windows = begun.map(one => Number(one.tcpInfo()['snd_cwnd']))
  t.ok(windows[0]! > 20 && windows[0]! <= had / 2 + 1, windows.join())
  const granted = windows.reduce((sum, window) => sum + Math.max(0, window - 11), 0)
  t.ok(granted <= had, `${granted} of ${had}`)
  t.ok(windows.every(window => window >= 10))
  t.end()
})

t.test('another path voids it, and so does time', t => {
  for (const change of [
    (path: TcpPath) => path.a.stack.pathChanged(path.now),
    (path: TcpPath) => path.run(path.now + 60_001),
  ]) {
    const path = pathOf()
    transfer(path, 1_000_000)
    change(path)
    const connection = path.connect()
    path.run(path.now + 101)
    t.ok(Number(connection.tcpInfo()['snd_cwnd']) <= 11)
  }
  t.end()
})

t.test('a SYN that is lost is repeated as soon as round trips allow', t => {
  const lose = { next: false }
  const passes = (): boolean => {
    const { next } = lose
    lose.next = false
    return !next
  }
  const path = new TcpPath({ delay: 10, passes }, { delay: 10 })
  const timeOf = (): number => {
    lose.next = true
    const from = path.now
    const bulk = new Bulk(path.connect(), 1000)
    let at = 0
    path.onEvent = (end, { kind }) => {
      if (end === path.a && kind === 'connected') at = path.now
    }
    path.run(from + 5000)
    bulk.connection.shutdown()
    path.run(path.now + 100)
    return at - from
  }
  t.ok(timeOf() >= 1000, 'with nothing known, after a second')
  transfer(path, 10_000)
  t.ok(timeOf() < 300)
  t.end()
})

const FOUND: Experience = {
  srtt: 100,
  rttvar: 10,
  minRtt: 90,
  threshold: Infinity,
  window: 100 * MSS,
}
const A = Uint8Array.of(192, 0, 2, 1)
const B = Uint8Array.of(192, 0, 2, 2)
const INITIAL = 10 * MSS

t.test('it belongs to the address it was found with, while it is young', t => {
  const shared = new SharedExperience()
  t.equal(shared.takeWindow(A, 0), undefined)
  shared.note(A, FOUND, INITIAL, false, 1000)
  t.equal(shared.roundTripsTo(B, 1000), undefined)
  t.equal(shared.takeWindow(B, 1000), undefined)
  t.equal(shared.takeWindow(A, 61_001), undefined)
  t.equal(shared.roundTripsTo(A, 601_000)?.srtt, 100)
  t.equal(shared.roundTripsTo(A, 601_001), undefined)
  shared.note(B, FOUND, INITIAL, false, 1000)
  t.equal(shared.roundTripsTo(A, 1000), undefined, 'of one address at a time')
  shared.forget()
  t.equal(shared.roundTripsTo(B, 1000), undefined)
  t.end()
})

t.test('a connection that has sent little teaches round trips, and leaves the window', t => {
  const shared = new SharedExperience()
  shared.note(A, FOUND, INITIAL, false, 1000)
  shared.note(A, { ...FOUND, srtt: 50, window: INITIAL }, INITIAL, false, 2000)
  t.equal(shared.roundTripsTo(A, 2000)?.srtt, 50)
  t.equal(shared.takeWindow(A, 2000)?.window, 50 * MSS)
  shared.note(A, { ...FOUND, window: 3 * MSS, threshold: 4 * MSS }, INITIAL, false, 3000)
  t.strictSame(
    shared.takeWindow(A, 4000),
    { window: 1.5 * MSS, threshold: 4 * MSS },
    'but one that has lost teaches a small one',
  )
  shared.note(B, { ...FOUND, window: INITIAL }, INITIAL, false, 4000)
  t.equal(shared.takeWindow(B, 4000), undefined, 'nothing is known of another address')
  t.end()
})

t.test('beside a connection that goes on, a new one looks for room from the first window on', t => {
  const shared = new SharedExperience()
  shared.note(A, { ...FOUND, threshold: 80 * MSS }, INITIAL, true, 1000)
  t.strictSame(shared.takeWindow(A, 1400), { window: 0, threshold: 40 * MSS })
  t.strictSame(
    shared.takeWindow(A, 1401),
    { window: 40 * MSS, threshold: 80 * MSS },
    'it has not been heard of for some round trips',
  )
  shared.note(A, FOUND, INITIAL, true, 2000)
  t.equal(
    shared.takeWindow(A, 2000),
    undefined,
    'and as far as it gets, where nobody knows how far',
  )
  shared.note(A, FOUND, INITIAL, false, 2001)
  t.equal(shared.takeWindow(A, 2001)?.window, 50 * MSS)
  t.end()
})

t.test('a transfer that ends in the middle has taught what it found', t => {
  const path = pathOf({ queue: 1000 })
  const first = path.bulk()
  path.run(3000)
  const beside = path.connect()
  path.run(3110)
  t.ok(Number(beside.tcpInfo()['snd_cwnd']) <= 11, 'while it goes on the path is not empty')
  first.connection.abort()
  path.run(5000)
  const next = path.connect()
  path.run(5110)
  t.ok(Number(next.tcpInfo()['snd_cwnd']) > 100, String(next.tcpInfo()['snd_cwnd']))
  t.end()
})

t.test('what was granted is granted again after two round trips', t => {
  const shared = new SharedExperience()
  shared.note(A, FOUND, INITIAL, false, 0)
  const take = (now: number): number => Math.round(shared.takeWindow(A, now)!.window / MSS)
  t.strictSame([take(0), take(0), take(0)], [50, 25, 13])
  t.equal(take(100), 31, 'half of it is')
  t.equal(take(400), 50)
  t.end()
})
