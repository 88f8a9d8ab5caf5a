/** A connection on which nobody says anything is not a broken one. */
import t from 'tap'
import { PERFECT, Stream, World } from '../harness/world.ts'

const HOUR = 3_600_000

t.test('hours of silence behind the handshake end nothing and slow nothing down', t => {
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
