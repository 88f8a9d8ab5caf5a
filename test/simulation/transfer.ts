/** Handshake, transfers both ways with rekeys and NAT rebinding on a random network, and the end of it all. */
import type { Tracer } from '../../lib/base/trace.ts'
import { Random } from '../harness/random.ts'
import { Stream, World, type Network } from '../harness/world.ts'
import {
  allClosed,
  HOUR,
  nothingLeft,
  outcome,
  secrecy,
  streamsIntact,
  type Outcome,
} from './audit.ts'

/** A random network and random amounts; `options` decides how often keys change. */
export const runTransfer = (seed: number, tracer?: Tracer): Outcome => {
  const random = new Random(seed ^ 0x5eed)
  const harsh = random.chance(0.3)
  const network: Network = {
    loss: random.chance(0.3) ? 0 : random.fraction() * (harsh ? 0.2 : 0.05),
    duplicate: random.chance(0.5) ? 0 : random.fraction() * 0.1,
    corrupt: random.chance(0.5) ? 0 : random.fraction() * 0.03,
    delay: random.integer(0, 60),
    jitter: random.chance(0.3) ? 0 : random.integer(0, harsh ? 300 : 40),
  }
  const rekeying = random.chance(0.5)
  const options = rekeying
    ? {
        // Hard limits that no lossy exchange reaches; the rekeys themselves come by command below.
        childLifetime: random.integer(150_000, 300_000),
        ikeLifetime: random.integer(150_000, 300_000),
        pfs: random.chance(0.5),
        retransmit: { tries: 15 },
      }
    : { retransmit: { tries: 15 } }
  const mode = random.chance(0.5) ? 'auto' : 'tunnel'
  const esp = random.chance(0.2)
    ? { esp: 'aes128-sha256' }
    : random.chance(0.3)
      ? { esp: 'aes128gcm16-noesn' }
      : {}
  const world = new World(
    seed,
    network,
    { mode, idleTimeout: 3000, ...options, ...esp },
    { ...options, ...esp },
    tracer,
  )
  const streams: Stream[] = []
  const count = random.integer(1, 3)
  const amount = (): number => random.integer(0, harsh ? 30_000 : 150_000)
  const amounts = Array.from({ length: count }, amount)
  world.serve = (index, client) =>
    new Stream(amounts[index] ?? 0, client!.peerStream, client!.ownStream)
  for (let i = 0; i < count; i++) {
    const stream = new Stream(amount(), 2 * i + 1, 2 * i + 2)
    streams.push(stream)
    world.connect(stream)
  }
  const problems: string[] = []
  const slow = random.chance(0.6)
  const rebinds = random.chance(0.2)
  if (slow) {
    // A source that trickles and a reader that stops now and then, while keys change under them.
    for (const stream of streams) stream.budget = 0
    for (let tick = 0; tick < 100; tick++) {
      for (const [side, list] of [
        [world.client, streams],
        [world.server, world.accepted],
      ] as const) {
        for (const stream of list) {
          stream.budget = random.integer(0, 4000)
          stream.paused = random.chance(0.2)
          world.work(side, stream)
        }
      }
      for (const [side, sessions] of [
        [world.client, world.sessions.client],
        [world.server, world.sessions.server],
      ] as const) {
        for (const session of sessions) {
          if (!rekeying) continue
          if (random.chance(0.06)) session.rekeyChild(world.now)
          if (random.chance(0.04)) session.rekeyIke(world.now)
          side.touchSession(session, world.now)
        }
      }
      if (rebinds && random.chance(0.05)) world.clientPort++
      world.run(random.integer(50, 400))
    }
    for (const [side, list] of [
      [world.client, streams],
      [world.server, world.accepted],
    ] as const) {
      for (const stream of list) {
        stream.budget = Infinity
        stream.paused = false
        world.work(side, stream)
      }
    }
  }
  world.run(HOUR, () => allClosed(world))
  problems.push(...streamsIntact(world))
  if (world.accepted.length !== count)
    problems.push(`${world.accepted.length} of ${count} accepted`)
  world.run(HOUR)
  problems.push(...nothingLeft(world), ...secrecy(world))
  return outcome(seed, world, problems)
}
