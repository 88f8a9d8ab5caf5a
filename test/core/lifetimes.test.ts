/** Lifetimes of Child and IKE SAs by time, octets and packets, soft and hard (RFC 7296 §2.8). */
import t from 'tap'
import { drawLifetime } from '../../lib/policy/lifetime.ts'
import { seededEnvironment } from '../harness/random.ts'
import { IkePair } from '../harness/ike-pair.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const INFINITE = { time: Infinity, octets: Infinity, packets: Infinity }

t.test('soft limits lie between 80 and 90 % of the hard ones, each time elsewhere', t => {
  const environment = seededEnvironment(1)
  const drawn = Array.from({ length: 500 }, () =>
    drawLifetime({ time: 1000, octets: 10_000, packets: 100_000 }, environment),
  )
  const rows = [
    [
      drawn.map(({ softTime }) => softTime / 1000),
      drawn.every(({ hardTime }) => hardTime === 1000),
    ],
    [
      drawn.map(({ softOctets }) => softOctets / 10_000),
      drawn.every(({ hardOctets }) => hardOctets === 10_000),
    ],
    [
      drawn.map(({ softPackets }) => softPackets / 100_000),
      drawn.every(({ hardPackets }) => hardPackets === 100_000),
    ],
  ] as const
  for (const [shares, hard] of rows) {
    t.ok(hard)
    t.ok(Math.min(...shares) >= 0.8 && Math.min(...shares) < 0.81)
    t.ok(Math.max(...shares) < 0.9 && Math.max(...shares) > 0.89)
  }
  const none = drawLifetime(INFINITE, environment)
  for (const limit of Object.values(none)) t.equal(limit, Infinity)
  t.end()
})

/** Ten virtual minutes at 1 kB a second, then the rest as fast as it goes. */
const carry = (client: Options, server: Options, octets: number, minutes = 0): World => {
  const world = new World(11, PERFECT, client, server)
  world.serve = () => new Stream(0, 2, 1)
  const stream = new Stream(octets, 1, 2)
  if (minutes > 0) stream.budget = 1000
  world.connect(stream)
  for (let second = 0; second < minutes * 60; second++) {
    world.run(1000)
    stream.budget += 1000
    world.work(world.client, stream)
  }
  stream.budget = Infinity
  world.work(world.client, stream)
  world.run(60_000, () => stream.closed)
  t.equal(stream.error, undefined)
  t.equal(world.accepted[0]?.received, octets)
  t.equal(world.accepted[0]?.corrupted, false)
  t.equal(world.repeatedIvs, 0)
  for (const end of [world.client, world.server])
    t.equal(end.counters.drops['esp.unknownSpi'] ?? 0, 0, 'no packet was lost in a rekey')
  return world
}
/** Two megabytes a second, with what each Child SA of the server has received looked at all the time. */
const paced = (
  client: Options,
  server: Options,
  octets: number,
): { rekeys: number; most: { octets: number; packets: number } } => {
  const world = new World(11, PERFECT, client, server)
  world.serve = () => new Stream(0, 2, 1)
  const stream = new Stream(octets, 1, 2)
  stream.budget = 0
  world.connect(stream)
  const most = { octets: 0, packets: 0 }
  while (!stream.closed && world.now < 100_000) {
    stream.budget += 20_000
    world.work(world.client, stream)
    world.run(10)
    for (const { octetsIn, packetsIn } of world.sessions.server[0]?.info().children ?? []) {
      most.octets = Math.max(most.octets, octetsIn)
      most.packets = Math.max(most.packets, packetsIn)
    }
  }
  t.equal(world.accepted[0]?.received, octets)
  return { rekeys: counts(world).child, most }
}
const counts = (world: World): { ike: number; child: number } => {
  const { ikeRekeys, childRekeys } = world.sessions.server[0]!.info()
  return { ike: ikeRekeys, child: childRekeys }
}

for (const side of ['client', 'server'] as const) {
  const by = (options: Options): [Options, Options] =>
    side === 'client' ? [options, {}] : [{}, options]

  t.test(`the ${side}'s childOctets start a rekey, and no Child SA carries more`, t => {
    const limit = 2 ** 20
    const { rekeys, most } = paced(...by({ childOctets: limit }), 10 * limit)
    t.ok(rekeys >= 10 && rekeys <= 13, `${rekeys} rekeys`)
    t.ok(most.octets > 0.7 * limit && most.octets <= limit, `at most ${most.octets} octets`)
    t.end()
  })

  t.test(`the ${side}'s childPackets start a rekey, and no Child SA carries more`, t => {
    const { rekeys, most } = paced(...by({ childPackets: 1000, mtu: 576 }), 4_000_000)
    t.ok(rekeys >= 4, `${rekeys} rekeys`)
    t.ok(most.packets > 700 && most.packets <= 1000, `at most ${most.packets} packets`)
    t.end()
  })

  t.test(`the ${side}'s childLifetime and ikeLifetime start rekeys in time`, t => {
    const world = carry(...by({ childLifetime: 60_000, ikeLifetime: 150_000 }), 700_000, 10)
    const { ike, child } = counts(world)
    t.ok(child >= 10 && child <= 13, `${child} Child SA rekeys in ten minutes`)
    t.ok(ike >= 4 && ike <= 5, `${ike} IKE SA rekeys`)
    t.end()
  })
}

t.test('both ends with the same lifetimes: collisions or none, nothing is lost', t => {
  const options = { childLifetime: 5_000, ikeLifetime: 12_000 }
  const world = carry(options, options, 700_000, 5)
  const { ike, child } = counts(world)
  t.ok(child >= 60 && ike >= 25, `${child} and ${ike} rekeys`)
  t.equal(world.sessions.client[0]!.info().childRekeys, child, 'both ends count the same')
  t.end()
})

t.test('a Child SA whose rekey is refused is deleted when its time is over', t => {
  const pair = IkePair.established({ childLifetime: 100_000, esp: 'aes128gcm16' })
  // Whatever it asks for, the peer will not.
  pair.b.reconfigure({ esp: 'chacha20poly1305' })
  pair.advance(99_000)
  t.equal(pair.a.children.length, 1)
  t.equal(pair.a.count('childRekeyed'), 0)
  pair.advance(1_500)
  t.equal(pair.a.children.length, 0)
  pair.advance(6_000)
  pair.assertWhole(t, 0)
  t.end()
})

t.test('an IKE SA whose rekey is refused is deleted when its time is over', t => {
  const pair = IkePair.established({ ikeLifetime: 100_000, ike: 'aes128gcm16-prfsha256-x25519' })
  pair.b.reconfigure({ ike: 'chacha20poly1305-prfsha256-x25519' })
  pair.advance(99_000)
  t.equal(pair.a.sa.state, 'established')
  pair.advance(1_500)
  pair.assertGone(t)
  t.end()
})

t.test(
  'an SA that has carried its hard limit waits for its rekey, on a link faster than any',
  t => {
    const limit = 200_000
    const world = new World(12, { ...PERFECT, delay: 40 }, { childOctets: limit }, {})
    const stream = new Stream(4_000_000, 1, 2)
    world.connect(stream)
    let most = 0
    world.run(600_000, () => {
      for (const { octetsOut } of world.sessions.client[0]?.info().children ?? []) {
        most = Math.max(most, octetsOut)
      }
      return stream.closed
    })
    t.equal(stream.error, undefined)
    t.equal(world.accepted[0]?.received, 4_000_000)
    t.equal(world.accepted[0]?.corrupted, false)
    t.ok(most > 0.8 * limit, `${most} octets`)
    t.ok(most < limit + 65_536, `${most} octets: the packet that reaches the limit is the last one`)
    t.ok((world.sessions.client[0]?.info().childRekeys ?? 0) >= 19)
    t.equal(world.client.counters.drops['tcp.noSa'] ?? 0, 0, 'TCP saw no loss')
    t.end()
  },
)
