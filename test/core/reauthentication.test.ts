/** Authenticating anew under connections that go on: make before break (RFC 7296 §2.8.3). */
import t, { type Test } from 'tap'
import { PERFECT, Stream, World, type Network, type Options } from '../harness/world.ts'

const MINUTE = 60_000

/** A transfer that takes its time, with the SAs of both ends looked at now and then. */
const transfer = (
  client: Options,
  server: Options,
  minutes: number,
  network: Network = PERFECT,
): {
  world: World
  stream: Stream
  seen: Set<string>
  most: { client: number; server: number }
} => {
  const world = new World(3, network, client, server)
  world.serve = () => new Stream(0, 2, 1)
  const stream = new Stream(minutes * 10_000, 1, 2)
  stream.budget = 1000
  world.connect(stream)
  const seen = new Set<string>()
  const most = { client: 0, server: 0 }
  for (let i = 0; i < minutes * 10; i++) {
    world.run(MINUTE / 10)
    stream.budget += 1000
    world.work(world.client, stream)
    seen.add(world.sessions.client[0]?.info().spiI ?? '')
    for (const end of ['client', 'server'] as const)
      most[end] = Math.max(most[end], world[end].saCount)
  }
  return { world, stream, seen, most }
}

const assertIntact = (t: Test, { world, stream }: ReturnType<typeof transfer>): void => {
  world.run(2 * MINUTE, () => stream.closed)
  t.equal(stream.error, undefined)
  t.equal(world.accepted[0]?.received, stream.toSend)
  t.notOk(world.accepted[0]?.corrupted)
  t.equal(world.sessions.server.length, 1, 'for the server it is one session')
  t.equal(world.repeatedIvs, 0)
}

/** Not one packet went to an SA that the other end did not have. */
const assertNothingLost = (t: Test, { world }: ReturnType<typeof transfer>): void => {
  for (const end of [world.client, world.server]) {
    const { drops } = end.counters
    t.equal((drops['esp.unknownSpi'] ?? 0) + (drops['tcp.noSa'] ?? 0), 0, JSON.stringify(drops))
  }
}

for (const [name, client, server] of [
  ['its own interval', { reauthInterval: 5 * MINUTE }, {}],
  ["the server's AUTH_LIFETIME", {}, { authLifetime: 6 * MINUTE }],
] as const) {
  t.test(`a client authenticates anew by ${name}, and the connection goes on`, t => {
    const run = transfer(client, server, 40)
    t.ok(run.seen.size >= 7 && run.seen.size <= 10, `${run.seen.size} IKE SAs one after the other`)
    t.equal(run.most.client, 1, 'the old one goes at once')
    t.ok(run.most.server <= 2, 'where it only repeats its last answer for a while')
    assertIntact(t, run)
    assertNothingLost(t, run)
    run.world.run(3 * MINUTE)
    t.ok(run.world.client.isIdle, 'nothing is left')
    t.end()
  })
}

t.test('in tunnel mode with several Child SAs each is made anew', t => {
  const world = new World(
    4,
    PERFECT,
    { reauthInterval: 5 * MINUTE, remoteTs: '192.0.2.1[tcp/80]' },
    {},
  )
  world.serve = () => new Stream(0, 2, 1)
  const stream = new Stream(100_000, 1, 2)
  stream.budget = 1000
  world.connect(stream)
  world.run(1000)
  const [session] = world.sessions.client
  const before = session!.info()
  t.equal(before.children.length, 1)
  world.run(6 * MINUTE)
  const after = session!.info()
  t.not(after.spiI, before.spiI)
  t.same(after.children[0]?.remoteSelectors, before.children[0]?.remoteSelectors)
  t.equal(after.children.length, 1)
  stream.budget = Infinity
  world.work(world.client, stream)
  world.run(MINUTE, () => stream.closed)
  t.equal(world.accepted[0]?.received, 100_000)
  t.end()
})

t.test('on a network that loses a fifth the connection survives every new authentication', t => {
  const network: Network = { loss: 0.2, duplicate: 0.1, corrupt: 0, delay: 20, jitter: 300 }
  const run = transfer({ reauthInterval: 2 * MINUTE }, {}, 20, network)
  t.ok(run.seen.size >= 7)
  assertIntact(t, run)
  t.end()
})

t.test('a new authentication that fails leaves the old SA as it is, and is tried again', t => {
  const world = new World(6, PERFECT, { reauthInterval: 5 * MINUTE })
  world.serve = () => new Stream(0, 2, 1)
  const stream = new Stream(50_000, 1, 2)
  stream.budget = 1000
  world.connect(stream)
  world.run(MINUTE)
  const before = world.sessions.client[0]!.info().spiI
  // IKE_SA_INIT does not come through for a while.
  world.filter = (_to, bytes) => bytes[22] !== 34
  world.run(10 * MINUTE)
  t.equal(world.sessions.client[0]!.info().spiI, before)
  stream.budget += 20_000
  world.work(world.client, stream)
  world.run(MINUTE)
  t.equal(world.accepted[0]?.received, 21_000, 'the old SA serves')
  world.filter = () => true
  world.run(3 * MINUTE)
  t.not(world.sessions.client[0]!.info().spiI, before)
  stream.budget = Infinity
  world.work(world.client, stream)
  world.run(MINUTE, () => stream.closed)
  t.equal(world.accepted[0]?.received, 50_000)
  t.equal(stream.error, undefined)
  t.end()
})

t.test('a server ends the SA of a client that does not authenticate anew', t => {
  const world = new World(7, PERFECT, {}, { authLifetime: 5 * MINUTE })
  world.serve = () => new Stream(0, 2, 1)
  const stream = new Stream(50_000, 1, 2)
  stream.budget = 1000
  world.connect(stream)
  world.run(MINUTE)
  world.filter = (_to, bytes) => bytes[22] !== 34
  world.run(5 * MINUTE, () => stream.closed)
  // Nobody answered the attempt that was under way when the old SA went.
  t.match(stream.error, { code: 'ETIMEDOUT' })
  t.equal(world.accepted[0]?.closed, true)
  t.end()
})

t.test('INITIAL_CONTACT is for the first SA of an identity, so not for a new authentication', t => {
  const options = { reauthInterval: 5 * MINUTE, localId: 'alice' }
  const run = transfer(options, {}, 12)
  assertIntact(t, run)
  assertNothingLost(t, run)
  t.end()
})

for (const rekeyedBy of ['nobody', 'client', 'server'] as const) {
  t.test(
    `a NAT gives another port just before it, rekeyed by ${rekeyedBy}: still one session`,
    t => {
      const world = new World(6, PERFECT, { localId: 'client.test' }, {})
      world.serve = () => new Stream(0, 2, 1)
      const stream = new Stream(20_000, 1, 2)
      stream.budget = 1000
      world.connect(stream)
      world.run(1000)
      if (rekeyedBy !== 'nobody') {
        const [session] = world.sessions[rekeyedBy]
        session!.rekeyIke(world.now)
        world[rekeyedBy].touchSession(session!, world.now)
        world.run(MINUTE)
      }
      world.clientPort++
      const [session] = world.sessions.client
      session!.reauthenticate(world.now)
      world.client.touchSession(session!, world.now)
      world.run(5000)
      stream.budget = Infinity
      world.work(world.client, stream)
      world.run(MINUTE, () => stream.closed)
      t.equal(stream.error, undefined)
      t.equal(world.accepted[0]?.received, 20_000)
      t.equal(world.sessions.server.length, 1)
      t.equal(world.sessions.server[0]?.path.remotePort, world.clientPort)
      t.end()
    },
  )
}
