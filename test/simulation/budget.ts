/**
 * A transfer over a long path, and then many whose reader stops: windows grow with what is read, and all connections of a
 * session together hold no more than they may, whatever comes.
 */
import type { Tracer } from '../../lib/base/trace.ts'
import { Random } from '../harness/random.ts'
import { Stream, World } from '../harness/world.ts'
import { allClosed, HOUR, nothingLeft, outcome, streamsIntact, type Outcome } from './audit.ts'

const MIB = 2 ** 20
/** What the first one sends, and in which time: in slow start, and not by one window of 64 KiB for each round trip. */
const LONG = 2 * MIB
const SOON = 4500
/** Octets of each of the others. */
const PART = 800_000
/** Each may have a little more, whatever the others hold. */
const RESERVED = 16_384

export const runBudget = (seed: number, tracer?: Tracer): Outcome => {
  const random = new Random(seed ^ 0xb0d9)
  const network = {
    loss: random.chance(0.5) ? 0 : random.fraction() * 0.01,
    duplicate: 0,
    corrupt: 0,
    delay: random.integer(75, 90),
    jitter: 0,
  }
  const world = new World(
    seed,
    network,
    { idleTimeout: 3000 },
    { maxBufferPerSession: MIB },
    tracer,
  )
  const problems: string[] = []
  let index = 0
  world.serve = (_, client) => new Stream(0, client!.peerStream, client!.ownStream)
  const open = (octets: number): Stream => {
    index++
    const stream = new Stream(octets, 2 * index - 1, 2 * index)
    world.connect(stream)
    return stream
  }
  open(LONG)
  const isThere = (): boolean => world.accepted[0]?.received === LONG
  world.run(SOON, isThere)
  if (network.loss === 0 && !isThere())
    problems.push(`${world.accepted[0]?.received} octets after ${world.now} ms`)
  world.run(HOUR, isThere)
  const count = random.integer(4, 6)
  for (let i = 0; i < count; i++) open(PART)
  let most = 0
  for (let tick = 0; tick < 100; tick++) {
    for (const stream of world.accepted) {
      const isToStop = tick > 8 && tick < 80
      if (isToStop && random.chance(0.3)) stream.paused = true
      else if (random.chance(0.02)) stream.paused = false
      world.work(world.server, stream)
    }
    world.run(50)
    most = Math.max(most, world.server.memory.used)
  }
  if (most > MIB + (count + 1) * RESERVED) problems.push(`${most} octets are held`)
  for (const stream of world.accepted) {
    stream.paused = false
    world.work(world.server, stream)
  }
  world.run(HOUR, () => allClosed(world))
  problems.push(...streamsIntact(world))
  world.run(HOUR)
  problems.push(...nothingLeft(world))
  if (world.server.memory.used > 0) problems.push(`${world.server.memory.used} octets are left`)
  return outcome(seed, world, problems)
}
