/**
 * A path that takes larger and smaller packets in turn and never says so, while both ends send. What fits is found, and
 * every part of the streams arrives soon.
 */
import type { Tracer } from '../../lib/base/trace.ts'
import { Random } from '../harness/random.ts'
import { World } from '../harness/world.ts'
import { outcome, type Outcome } from './audit.ts'
import { Talk } from './talk.ts'

const ROUNDS = 5
/** Octets that each end sends in a round, and what time they may take. */
const PART = 60_000
const SOON = 10_000
const SIZES = [576, 600, 1000, 1279, 1280, 1300, 1420, 1492, 1500]

export const runSizes = (seed: number, tracer?: Tracer): Outcome => {
  const random = new Random(seed ^ 0x51e5)
  const isClean = random.chance(0.5)
  const network = {
    loss: isClean ? 0 : random.fraction() * 0.02,
    duplicate: isClean ? 0 : 0.02,
    corrupt: 0,
    delay: random.integer(1, 50),
    jitter: isClean ? 0 : random.integer(0, 20),
    mtu: random.integer(1280, 1500),
  }
  const options = { mode: random.chance(0.5) ? 'auto' : 'tunnel' }
  const world = new World(seed, network, { ...options, idleTimeout: 3000 }, options, tracer)
  const talk = new Talk(world, (ROUNDS + 1) * PART)
  const problems: string[] = []
  for (let round = 1; round <= ROUNDS; round++) {
    talk.say(PART)
    world.run(random.integer(0, 300))
    if (random.chance(0.7)) world.network.mtu = SIZES[random.integer(0, SIZES.length - 1)]!
    const isThere = (): boolean => talk.isHeard(round * PART)
    world.run(isClean ? SOON : 3 * SOON, isThere)
    if (!isThere()) problems.push(`round ${round}: not there in time`)
    if (random.chance(0.3)) world.run(random.integer(0, 120_000))
  }
  problems.push(...talk.finish())
  return outcome(seed, world, problems)
}
