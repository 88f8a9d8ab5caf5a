/** What a program sets for one connection: the congestion control, and how long it waits for an acknowledgement. */
import t, { type Test } from 'tap'
import type { ConnectRequest } from '../../lib/core/events.ts'
import { PERFECT, Stream, World } from '../harness/world.ts'

const SECOND = 1000

/** Milliseconds that 4 MB from the client take over a path that loses one datagram in fifty. */
const timeOf = (t: Test, congestionControl: ConnectRequest['congestionControl']): number => {
  const world = new World(7, { ...PERFECT, loss: 0.02, delay: 25 })
  const served = new Stream(0, 2, 1)
  world.serve = () => served
  const stream = new Stream(4_000_000, 1, 2)
  world.connect(stream, 80, undefined, { congestionControl })
  const from = world.now
  world.run(3600 * SECOND, () => served.received === 4_000_000)
  t.equal(served.received, 4_000_000)
  t.notOk(served.corrupted)
  t.equal(stream.connection!.tcpInfo()['ca'], congestionControl)
  t.equal(served.connection!.tcpInfo()['ca'], 'cubic', 'the other end has its own')
  return world.now - from
}

t.test('a connection has the congestion control that was asked for', t => {
  const [reno, cubic, bbr] = (['reno', 'cubic', 'bbr'] as const).map(name => timeOf(t, name))
  t.ok(bbr! < cubic! / 2, `bbr ${bbr} ms, cubic ${cubic} ms`)
  t.not(reno, cubic)
  t.end()
})

/** Milliseconds from when the path falls silent, the client having something to send, until it gives up. */
const lifetimeOf = (t: Test, userTimeout: number | undefined): number => {
  const world = new World(3, PERFECT, { livenessInterval: 0 }, { livenessInterval: 0 })
  world.serve = () => new Stream(0, 2, 1)
  const stream = new Stream(2000, 1, 2)
  stream.budget = 1000
  world.connect(stream, 80, undefined, { userTimeout })
  world.run(10 * SECOND)
  t.equal(stream.error, undefined)
  world.filter = () => false
  stream.budget = 1000
  world.work(world.client, stream)
  const from = world.now
  world.run(2 * 3600 * SECOND, () => stream.closed)
  t.match(stream.error, { code: 'ETIMEDOUT' })
  return world.now - from
}

t.test('the user timeout ends a connection whose data nobody acknowledges (RFC 5482)', t => {
  const short = lifetimeOf(t, 5 * SECOND)
  t.ok(short >= 5 * SECOND && short < 6 * SECOND, `${short} ms`)
  const without = lifetimeOf(t, 0)
  t.ok(without > 60 * SECOND, `${without} ms`)
  t.end()
})
