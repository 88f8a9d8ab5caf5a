/**
 * Virtual days of one client and one server: lifetimes of minutes at both ends, reauthentication, NATs
 * that forget, a path with a small MTU that large IKE messages must be fragmented for, either end killed
 * and started anew. Streams come and go; those whose ends live must arrive whole.
 */
import type { Tracer } from '../../lib/base/trace.ts'
import { Random } from '../harness/random.ts'
import { Stream, World, type Side } from '../harness/world.ts'
import {
  allClosed,
  HOUR,
  MINUTE,
  noDrops,
  nothingLeft,
  outcome,
  secrecy,
  streamsIntact,
  trickle,
  type Outcome,
} from './audit.ts'

const ROUNDS = 24
/** IPv4's least path (RFC 791): IKE's larger messages must be fragmented, and TCP's segments be small. */
const NARROW = 576

export const runDays = (seed: number, tracer?: Tracer): Outcome => {
  const random = new Random(seed ^ 0xda75)
  const network = {
    loss: random.chance(0.4) ? 0 : random.fraction() * 0.1,
    duplicate: random.chance(0.5) ? 0 : 0.1,
    corrupt: 0,
    delay: random.integer(1, 50),
    jitter: random.integer(0, 400),
    mtu: random.chance(0.3) ? NARROW : 1280,
  }
  const restarts = random.chance(0.5)
  const options = () => ({
    ike: 'aes128gcm16-prfsha256-x25519',
    // Every proposal there is makes messages that are long enough.
    ...(network.mtu === NARROW ? {} : { esp: 'aes128gcm16' }),
    ikeLifetime: random.integer(10 * MINUTE, HOUR),
    childLifetime: random.integer(5 * MINUTE, HOUR),
    mtu: network.mtu,
    fragmentSize: network.mtu,
    livenessInterval: random.integer(5000, 40_000),
    retransmit: { tries: 9 },
  })
  const mine = {
    ...options(),
    localId: 'client.test',
    idleTimeout: 60_000,
    reauthInterval: random.chance(0.5) ? 0 : random.integer(20 * MINUTE, 2 * HOUR),
  }
  const theirs = options()
  // Behind a NAT that has forgotten it, a client that sends nothing is found by its own probe alone.
  const livenessInterval = Math.min(mine.livenessInterval, theirs.livenessInterval)
  const clientOptions = { ...mine, livenessInterval }
  const world = new World(seed, network, clientOptions, theirs, tracer, undefined, { retries: 60 })
  // Quick crash detection in half of the runs.
  if (seed % 2 === 1) world.enableCrashTokens()
  world.serve = (_, client) =>
    trickle(new Stream(client!.toSend, client!.peerStream, client!.ownStream))
  const open: Stream[] = []
  let opened = 0
  const connect = (): void => {
    const i = opened++ % 60
    const stream = trickle(new Stream(random.integer(100, 8000), 2 * i + 1, 2 * i + 2))
    open.push(stream)
    world.connect(stream)
  }
  const feed = (octets: number): void => {
    for (const [side, streams] of ends(world)) {
      for (const stream of streams) {
        if (stream.closed) continue
        stream.budget += octets
        world.work(world[side], stream)
      }
    }
  }
  let restarted = false
  for (let round = 0; round < ROUNDS; round++) {
    connect()
    for (let i = 0; i < 6; i++) {
      world.run(random.integer(1000, random.chance(0.1) ? 20 * MINUTE : 2 * MINUTE))
      feed(random.integer(0, 1000))
      if (random.chance(0.1)) world.clientPort++
    }
    if (restarts && random.chance(0.15)) {
      restarted = true
      world.restart(random.chance(0.5) ? 'client' : 'server')
      if (random.chance(0.5)) world.clientPort++
    }
    if (random.chance(0.5)) world.run(random.integer(0, 2 * HOUR))
  }
  feed(Infinity)
  world.serve = (_, client) => new Stream(client!.toSend, client!.peerStream, client!.ownStream)
  world.run(5 * HOUR, () => allClosed(world))
  const problems = [
    ...streamsIntact(world, restarted),
    ...(restarted ? [] : noDrops(world)),
    ...(world.tooLarge > 0 ? [`${world.tooLarge} datagrams were above the MTU`] : []),
  ]
  world.run(5 * HOUR)
  problems.push(...nothingLeft(world), ...secrecy(world))
  return outcome(seed, world, problems)
}

const ends = (world: World): [Side, Stream[]][] => [
  ['client', world.streams],
  ['server', world.accepted],
]
