/** Configuration payloads between whole endpoints: addresses given, kept, and returned. */
import t from 'tap'
import { formatAddress } from '../../lib/base/address.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const CLIENT = { virtualAddress: true, localId: 'alice', idleTimeout: 1000 }
const SERVER = { addressPool: ['10.8.0.0/30', 'fd08::/120'], dns: ['10.8.0.53', 'fd08::53'] }

const talk = (world: World, until: (stream: Stream) => boolean = s => s.received === 1000) => {
  const stream = new Stream(1000, 1, 2)
  world.connect(stream)
  world.run(60_000, () => stream.closed || until(stream))
  return stream
}

const open = (client: Options = {}, server: Options = {}): World => {
  const world = new World(3, PERFECT, { ...CLIENT, ...client }, { ...SERVER, ...server })
  world.serve = () => new Stream(1000, 2, 1)
  return world
}

const given = (world: World, session = 0): string[] =>
  (world.sessions.client[session]?.peer.virtualAddresses ?? []).map(formatAddress)

t.test(
  'a client gets addresses, netmask and DNS, and its Child SA is for those addresses',
  async t => {
    const world = open()
    const stream = talk(world)
    t.equal(stream.error, undefined)
    t.equal(stream.received, 1000)
    t.strictSame(given(world), ['10.8.0.1', 'fd08::1'])
    const { peer } = world.sessions.client[0]!
    t.strictSame(peer.dns.map(formatAddress), ['10.8.0.53', 'fd08::53'])
    t.equal(formatAddress(peer.netmask!), '255.255.255.252')
    t.strictSame(world.sessions.server[0]?.info().children[0]?.remoteSelectors, [
      '10.8.0.1',
      'fd08::1',
    ])
    t.equal(formatAddress(world.accepted[0]!.connection!.remoteAddress), '10.8.0.1')
  },
)

t.test('without a pool nothing is given, without a request neither', async t => {
  const none = new World(3, PERFECT, CLIENT, {})
  talk(none, () => none.sessions.client.length > 0)
  t.strictSame(given(none), [])
  const unasked = open({ virtualAddress: false })
  talk(unasked)
  t.strictSame(given(unasked), [])
})

t.test('when all addresses are in use the socket fails with INTERNAL_ADDRESS_FAILURE', async t => {
  const world = open({ idleTimeout: 60_000 }, { addressPool: '10.8.0.1' })
  world.connect(new Stream(1000, 1, 2))
  world.run(5000)
  const late = new World(4, PERFECT, { ...CLIENT, localId: 'bob' }, {})
  // A second client of the same server.
  const second = Object.assign(late, { server: world.server })
  const stream = talk(second)
  t.equal((stream.error as { code?: string } | undefined)?.code, 'INTERNAL_ADDRESS_FAILURE')
})

t.test('the address is free again when the SA is gone, and kept through rekeys', async t => {
  const world = open({ idleTimeout: 60_000 }, { addressPool: '10.8.0.1' })
  talk(world)
  world.client.touchSession(world.sessions.client[0]!, world.now)
  world.sessions.client[0]!.rekeyIke(world.now)
  world.client.touchSession(world.sessions.client[0]!, world.now)
  world.run(10_000)
  t.equal(world.sessions.client[0]!.info().ikeRekeys, 1)
  const other = Object.assign(new World(4, PERFECT, { ...CLIENT, localId: 'bob' }, {}), {
    server: world.server,
    now: world.now,
  })
  const refused = talk(other)
  t.equal((refused.error as { code?: string } | undefined)?.code, 'INTERNAL_ADDRESS_FAILURE')
  world.run(200_000, () => world.client.isIdle)
  t.ok(world.client.isIdle, 'the client has let its SA go')
  const again = Object.assign(new World(5, PERFECT, { ...CLIENT, localId: 'bob' }, {}), {
    server: world.server,
    now: world.now,
  })
  again.serve = () => new Stream(1000, 2, 1)
  const stream = talk(again)
  t.equal(stream.error, undefined)
  t.strictSame(given(again), ['10.8.0.1'])
})

t.test('who authenticates anew keeps its address and its connections', async t => {
  const world = open({ reauthInterval: 5000 }, { addressPool: '10.8.0.1' })
  const stream = new Stream(40_000, 1, 2)
  stream.budget = 1000
  world.connect(stream)
  const spis = new Set<string>()
  for (let i = 0; i < 39; i++) {
    world.run(500)
    spis.add(world.sessions.client[0]?.info().spiI ?? 'none yet')
    stream.budget += 1000
    world.work(world.client, stream)
  }
  world.run(5000, () => stream.closed)
  t.equal(stream.error, undefined)
  t.ok(spis.size >= 3, 'it has authenticated anew')
  t.equal(world.accepted[0]?.received, 40_000)
  t.equal(stream.received, 1000)
  t.strictSame(given(world), ['10.8.0.1'])
})
