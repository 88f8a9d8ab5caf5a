/**
 * A client that moves about: other addresses, links that are down for a while in one direction or both, a NAT
 * that forgets. Whatever happens, no stream ends, and what waits goes on soon after the way is open.
 */
import type { Tracer } from '../../lib/base/trace.ts'
import { Random } from '../harness/random.ts'
import { World } from '../harness/world.ts'
import { HOUR, outcome, type Outcome } from './audit.ts'
import { Talk } from './talk.ts'

const ROUNDS = 20
/** No outage is so long that an end gives up the other: 58 s after its first request. */
const LONGEST_OUTAGE = 30_000
/** Octets that each end has to say in a round, and what time it may have when the way is open and loses nothing. */
const WORDS = 2000
const SOON = 5000
/** A shorter outage is a loss like any other, to be repaired by TCP's timers. */
const NOTICED = 2000

export const runRoaming = (seed: number, tracer?: Tracer): Outcome => {
  const random = new Random(seed ^ 0x10a3)
  const isClean = random.chance(0.5)
  const network = {
    loss: isClean ? 0 : random.fraction() * 0.05,
    duplicate: isClean ? 0 : 0.05,
    corrupt: 0,
    delay: random.integer(1, 60),
    jitter: random.integer(0, 100),
  }
  const options = { mode: random.chance(0.5) ? 'auto' : 'tunnel', retransmit: { tries: 9 } }
  const world = new World(seed, network, { ...options, idleTimeout: 3000 }, options, tracer)
  // Quick crash detection in half of the runs.
  if (seed % 2 === 1) world.enableCrashTokens()
  if (random.chance(0.5)) {
    world.inside = { localAddress: Uint8Array.of(10, 0, 0, 5), localPort: 4500 }
    world.mappingTime = random.chance(0.5) ? random.integer(25_000, 90_000) : Infinity
  }
  const talk = new Talk(world, (ROUNDS + 1) * WORDS)
  const problems: string[] = []
  for (let round = 1; round <= ROUNDS; round++) {
    const hasOutage = random.chance(0.6)
    if (hasOutage) {
      if (random.chance(0.7)) world.deaf.add('server')
      if (random.chance(0.7)) world.deaf.add('client')
    }
    world.run(random.integer(0, 1000))
    talk.say(WORDS)
    const outage = hasOutage ? random.integer(0, LONGEST_OUTAGE) : 0
    world.run(outage)
    world.deaf.clear()
    if (random.chance(0.6)) {
      const address = Uint8Array.of(203, 0, 113, random.integer(1, 200))
      world.roam(address, random.chance(0.5) ? world.clientPort : random.integer(1024, 65_535))
    } else world.client.seekGateway(world.now)
    world.run(isClean && outage >= NOTICED ? SOON : HOUR, () => talk.isHeard(round * WORDS))
    if (!talk.isHeard(round * WORDS)) problems.push(`round ${round}: not heard in time`)
    if (random.chance(0.3)) world.run(random.integer(0, 200_000))
  }
  problems.push(...talk.finish())
  return outcome(seed, world, problems)
}
