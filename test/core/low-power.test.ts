/** What a device pays that sends a little now and then: octets of a day, as the guide's low-power profile says. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR
/** Of IPv4 and UDP. */
const HEADERS = 28
/** A report is so long. */
const REPORT = 100

const PROFILE = {
  natKeepalive: 0,
  livenessInterval: DAY,
  idleTimeout: 0,
  ikeLifetime: DAY,
  childLifetime: DAY,
}

/** Octets of a day on the wire, both ways, after the first connection; `use` is called each hour. */
const day = (client: Options, server: Options, use: (world: World) => void): number => {
  const world = new World(81, PERFECT, client, server)
  world.enableCrashTokens()
  let octets = 0
  world.filter = (_to, bytes) => {
    octets += bytes.length + HEADERS
    return true
  }
  use(world)
  world.run(HOUR)
  octets = 0
  for (let i = 0; i < 24; i++) {
    use(world)
    world.run(HOUR)
  }
  return octets
}

/** A connection for each report. */
const each = (world: World): void => {
  world.connect(new Stream(REPORT, 1, 2))
  world.run(1000)
  t.equal(world.accepted.at(-1)!.received, REPORT)
}

/** One connection that stays. */
const kept = () => {
  const stream = new Stream(1_000_000, 1, 2)
  stream.budget = 0
  return (world: World): void => {
    if (world.streams.length === 0) world.connect(stream)
    world.run(1000)
    stream.budget = REPORT
    world.work(world.client, stream)
    world.run(1000)
    t.equal(stream.error, undefined)
    t.equal(world.accepted[0]!.received % REPORT, 0)
  }
}

t.test('octets of a day are those that the guide names, within a twentieth', t => {
  const guide = readFileSync('examples/GUIDES.md', 'utf8')
  for (const [name, octets] of [
    ['defaults, connection kept', day({ idleTimeout: 0 }, {}, kept())],
    ['profile, connection kept', day(PROFILE, PROFILE, kept())],
    ['profile, SA kept, a connection for each report', day(PROFILE, PROFILE, each)],
    ['profile, an SA for each report', day({ ...PROFILE, idleTimeout: 1 }, PROFILE, each)],
  ] as const) {
    const told = guide.split(`| ${name} | `)[1]?.split(' |')[0]?.replace(',', '')
    t.ok(Math.abs(octets / Number(told) - 1) < 0.05, `${name}: ${octets}, and ${told} in the guide`)
  }
  t.end()
})

t.test(
  'in the profile a NAT that forgets, and a server that starts again, cost one report at most',
  t => {
    const world = new World(82, PERFECT, PROFILE, PROFILE)
    world.enableCrashTokens()
    const use = kept()
    use(world)
    for (let hour = 0; hour < 5; hour++) {
      world.clientPort++
      use(world)
      world.run(HOUR)
    }
    world.restart('server')
    const [stream] = world.streams
    stream!.closed = false
    stream!.budget = REPORT
    world.work(world.client, stream!)
    world.run(1000)
    t.match(stream!.error, { code: 'ECONNRESET' })
    each(world)
    t.end()
  },
)

t.test('in the profile a server that is gone is given up when a report goes unanswered', t => {
  const world = new World(83, PERFECT, PROFILE, PROFILE)
  const use = kept()
  use(world)
  world.filter = to => to === 'client'
  const [stream] = world.streams
  stream!.budget = REPORT
  world.work(world.client, stream!)
  const start = world.now
  world.run(10 * 60_000, () => stream!.closed)
  t.ok(world.now - start < 75_000, `${world.now - start} ms`)
  t.match(stream!.error, { code: 'ETIMEDOUT' })
  t.end()
})
