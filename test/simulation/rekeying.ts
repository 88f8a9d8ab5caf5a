/**
 * Rekeys that collide: both ends start one to four rekeys of Child SAs and the IKE SA within 0.6 s, some
 * later, while data flows; long after, all must be at rest: one IKE SA, two Child SAs and their mirror
 * images, and not one packet on the way that found no SA.
 */
import { parseAddress } from '../../lib/base/address.ts'
import type { Tracer } from '../../lib/base/trace.ts'
import { Random } from '../harness/random.ts'
import {
  PERFECT,
  SERVER_ADDRESS,
  Stream,
  World,
  type Network,
  type Side,
} from '../harness/world.ts'
import {
  allClosed,
  atRest,
  HOUR,
  internals,
  MINUTE,
  noDrops,
  nothingLeft,
  outcome,
  secrecy,
  streamsIntact,
  trickle,
  type Outcome,
} from './audit.ts'

/** From a network where both ends are in step to one where a request overtakes what was sent seconds before. */
export const NETWORKS: readonly Partial<Network>[] = [
  {},
  { jitter: 20 },
  { jitter: 500 },
  { loss: 0.1, duplicate: 0.1, jitter: 300 },
  { loss: 0.3, duplicate: 0.2, jitter: 1000 },
  { loss: 0.3, duplicate: 0.2, jitter: 4000 },
]

/** A host behind the server's end of the tunnel: traffic to it needs a Child SA of its own. */
const BEHIND = parseAddress('10.0.0.1')!
const CHILDREN = 2
const PIECES = 25

interface Step {
  readonly at: number
  run(): void
}

export const runRekeying = (seed: number, tracer?: Tracer): Outcome => {
  const random = new Random(seed ^ 0x5e4e)
  const options = {
    crypto: 'node',
    ike: 'aes128gcm16-prfsha256-x25519',
    esp: 'aes128gcm16',
    pfs: random.chance(0.5),
    retransmit: { tries: 20 },
    livenessInterval: random.chance(0.5) ? 0 : random.integer(5000, 60_000),
  }
  const world = new World(
    seed,
    PERFECT,
    { ...options, idleTimeout: 5000 },
    options,
    tracer,
    undefined,
    // TCP's patience is not the subject, and these networks would exhaust it once in a thousand runs.
    { retries: 60 },
  )
  // Quick crash detection in half of the runs.
  if (seed % 2 === 1) world.enableCrashTokens()
  const pieces = Array.from({ length: 2 * PIECES }, () => random.integer(1, 600))
  const total = pieces.reduce((sum, octets) => sum + octets, 1)
  world.serve = (_, client) => trickle(new Stream(total, client!.peerStream, client!.ownStream))
  for (const [i, address] of [SERVER_ADDRESS, BEHIND].entries())
    world.connect(trickle(new Stream(total, 2 * i + 1, 2 * i + 2)), 80, address)
  world.run(5000)
  const problems = atRest(world, CHILDREN)
  Object.assign(world.network, NETWORKS[seed % NETWORKS.length], { delay: random.integer(0, 10) })

  const inStep = seed % NETWORKS.length === 0
  const asked = new Set<string>()
  const steps: Step[] = []
  const started = world.now
  const sides = ['client', 'server'] as const
  const rekeys = random.integer(1, 4)
  for (let i = 0; i < rekeys; i++) {
    for (const side of sides) {
      if (random.chance(0.25)) continue
      const of = random.chance(0.35) ? undefined : random.integer(0, CHILDREN - 1)
      const late = random.chance(0.3) ? random.integer(0, 20_000) : 0
      steps.push({
        // In step: both ends at the very same moments.
        at: started + 100 + (inStep ? 200 * random.integer(0, 3) : random.integer(0, 600) + late),
        run: () => rekey(world, side, of, asked),
      })
    }
  }
  for (const octets of pieces) {
    const side = random.chance(0.5) ? 'client' : 'server'
    const which = random.integer(0, CHILDREN - 1)
    steps.push({
      at: started + random.integer(0, 40_000),
      run: () => {
        const client = world.streams[which]!
        const stream = side === 'client' ? client : client.partner!
        stream.budget += octets
        world.work(world[side], stream)
      },
    })
  }
  steps.sort((a, b) => a.at - b.at)
  for (const step of steps) {
    world.run(step.at - world.now)
    step.run()
  }
  world.run(15 * MINUTE)
  problems.push(...atRest(world, CHILDREN), ...noDrops(world), ...stillThere(world, asked))
  Object.assign(world.network, PERFECT)

  for (const [side, streams] of [
    ['client', world.streams],
    ['server', world.accepted],
  ] as const) {
    for (const stream of streams) {
      stream.budget = Infinity
      world.work(world[side], stream)
    }
  }
  world.run(HOUR, () => allClosed(world))
  problems.push(...streamsIntact(world), ...noDrops(world))
  world.run(HOUR)
  problems.push(...nothingLeft(world), ...secrecy(world))
  return outcome(seed, world, problems)
}

/** `of` undefined: the IKE SA; else one of the Child SAs that are installed. `asked`: what must go. */
const rekey = (world: World, side: Side, of: number | undefined, asked: Set<string>): void => {
  const [session] = world.sessions[side]
  const { current } = internals(session!)
  if (current?.state !== 'established') return
  if (of === undefined) {
    asked.add(current.ownSpi)
    session!.rekeyIke(world.now)
  } else {
    const installed = [...current.children.values()].filter(({ state }) => state === 'installed')
    const child = installed[of % Math.max(1, installed.length)]
    if (child === undefined) return
    // What the peer has not shown to hold yet is new, and a command to rekey it comes to nothing (rule E2).
    if (child.outboundReady) asked.add(String(child.inboundSpi))
    current.rekeyChild(child.inboundSpi, world.now)
  }
  world[side].touchSession(session!, world.now)
  world.pump()
}

/** SAs that were to be rekeyed, by this end or the other, and never were. */
const stillThere = (world: World, asked: ReadonlySet<string>): string[] => {
  const left = (['client', 'server'] as const).flatMap(side =>
    world.sessions[side].flatMap(session => {
      const { sas, children } = internals(session)
      return [...sas.map(sa => sa.ownSpi), ...children.map(({ sa }) => String(sa.inboundSpi))]
    }),
  )
  return left.filter(spi => asked.has(spi)).map(spi => `SA ${spi} was never rekeyed`)
}
