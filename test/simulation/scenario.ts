/** One run from one seed: handshake, transfer both ways, rekeys, close; and what must hold afterwards. */
import { pattern, Stream, World, type Network } from '../harness/world.ts'
import type { Tracer } from '../../lib/base/trace.ts'
import { Random } from '../harness/random.ts'

export interface Outcome {
  readonly seed: number
  readonly problems: readonly string[]
  readonly trace: number
  readonly virtualSeconds: number
  readonly network: Network
  readonly rekeys: number
}

const HOUR = 3600_000
/** Patterns of the two directions. */
const TO_SERVER = 1
const TO_CLIENT = 2

/** A random network and random amounts; `options` decides how often keys change. */
export const runScenario = (seed: number, tracer?: Tracer): Outcome => {
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
  world.serve = index => new Stream(amounts[index] ?? 0, TO_CLIENT, TO_SERVER)
  world.marker = pattern(TO_SERVER, 4096, 24)
  for (let i = 0; i < count; i++) {
    const stream = new Stream(amount(), TO_SERVER, TO_CLIENT)
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
    world.serve = index => new Stream(amounts[index] ?? 0, TO_CLIENT, TO_SERVER)
  }
  world.run(
    HOUR,
    () => streams.every(({ closed }) => closed) && world.accepted.every(({ closed }) => closed),
  )
  for (const [i, stream] of streams.entries()) {
    if (!stream.closed) problems.push(`client stream ${i} did not close`)
    if (stream.error !== undefined) problems.push(`client stream ${i}: ${stream.error.message}`)
  }
  const rekeys = world.sessions.client.reduce((sum, session) => sum + session.info().childRekeys, 0)
  for (const [i, stream] of world.accepted.entries()) {
    if (!stream.closed) problems.push(`server stream ${i} did not close`)
    if (stream.error !== undefined) problems.push(`server stream ${i}: ${stream.error.message}`)
  }
  const total = (list: readonly Stream[], key: 'sent' | 'received'): number =>
    list.reduce((sum, stream) => sum + stream[key], 0)
  if (world.accepted.length !== count)
    problems.push(`${world.accepted.length} of ${count} accepted`)
  if (total(streams, 'sent') !== total(world.accepted, 'received'))
    problems.push('octets to the server are missing')
  if (total(world.accepted, 'sent') !== total(streams, 'received'))
    problems.push('octets to the client are missing')
  for (const stream of [...streams, ...world.accepted])
    if (stream.corrupted) problems.push('a stream is not what was sent')
  world.run(HOUR)
  if (!world.client.isIdle) problems.push(`the client keeps ${world.client.saCount} SAs`)
  if (!world.server.isIdle) problems.push(`the server keeps ${world.server.saCount} SAs`)
  if (world.client.nextTimeout() !== Infinity) problems.push('the client keeps a timer')
  if (world.server.nextTimeout() !== Infinity) problems.push('the server keeps a timer')
  if (world.repeatedIvs > 0) problems.push('an IV was used twice')
  if (world.leaked) problems.push('plaintext on the wire')
  return { seed, problems, trace: world.trace, virtualSeconds: world.now / 1000, network, rekeys }
}
