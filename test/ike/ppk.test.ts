/** Post-quantum pre-shared keys (RFC 8784): every row of its table 1, on whole endpoints in virtual time. */
import t from 'tap'
import type { CoreEvent } from '../../lib/core/events.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const secret = Uint8Array.from({ length: 32 }, (_, i) => i)
const other = secret.map(octet => octet ^ 1)

const attempt = (client: Options, server: Options): { world: World; stream: Stream } => {
  const world = new World(7, PERFECT, client, server)
  const stream = new Stream(5000, 1, 2)
  world.connect(stream)
  world.run(300_000, () => stream.closed)
  return { world, stream }
}

const codeOf = (stream: Stream): unknown => (stream.error as { code?: unknown } | undefined)?.code

const key = (required: boolean, octets = secret, id = 'ppk1'): Options => ({
  ppk: { id, secret: octets, required },
})

for (const [name, client, server, used] of [
  ['both have it, optional', key(false), key(false), true],
  ['both require it', key(true), key(true), true],
  ['only we have it, optional', key(false), {}, false],
  ['only the peer has it, optional', {}, key(false), false],
  [
    'the responder does not know the one that is named, optional',
    key(false, secret, 'x'),
    key(false),
    false,
  ],
  [
    'the responder finds it among several',
    key(true),
    {
      ppk: [
        { id: 'a', secret: other },
        { id: 'ppk1', secret, required: true },
      ],
    },
    true,
  ],
] as const) {
  t.test(`post-quantum key: ${name}: ${used ? 'used' : 'not used'}`, t => {
    const { world, stream } = attempt(client, server)
    t.equal(stream.error, undefined)
    t.equal(world.accepted[0]?.received, 5000)
    t.equal(world.sessions.client[0]?.peer.usesPpk, used)
    t.equal(world.sessions.server[0]?.peer.usesPpk, used)
    t.end()
  })
}

for (const [name, client, server, why] of [
  ['we require it, the peer has none', key(true), {}, undefined],
  ['the peer requires it, we have none', {}, key(true), /has no post-quantum key/],
  [
    'the peer requires it and does not know ours',
    key(false, secret, 'x'),
    key(true),
    /not known here/,
  ],
  ['ours is wrong', key(true, other), key(true), /does not know the pre-shared key/],
  [
    'we require it and the peer does not know it',
    key(true, secret, 'x'),
    key(false),
    /not known here/,
  ],
] as const) {
  t.test(`post-quantum key: ${name}: refused`, t => {
    const { world, stream } = attempt(client, server)
    t.equal(codeOf(stream), 'AUTHENTICATION_FAILED')
    t.equal(world.accepted.length, 0)
    const refused = world.events.find(
      (event): event is CoreEvent & { kind: 'refused' } => event.kind === 'refused',
    )
    if (why === undefined) t.equal(refused, undefined, 'nothing was sent that could be refused')
    else t.match(refused?.error.message, why)
    t.end()
  })
}

t.test('post-quantum key: rekeys of both SAs go on from the mixed keys', t => {
  const world = new World(8, PERFECT, key(true), key(true))
  const stream = new Stream(100_000, 1, 2)
  stream.budget = 0
  world.connect(stream)
  world.run(1000)
  for (let round = 0; round < 4; round++) {
    const session = world.sessions[round % 2 === 0 ? 'client' : 'server'][0]!
    session.rekeyIke(world.now)
    world[round % 2 === 0 ? 'client' : 'server'].touchSession(session, world.now)
    world.run(500)
    session.rekeyChild(world.now)
    world[round % 2 === 0 ? 'client' : 'server'].touchSession(session, world.now)
    world.run(500)
    stream.budget = 20_000
    world.work(world.client, stream)
    world.run(500)
  }
  stream.budget = Infinity
  world.work(world.client, stream)
  world.run(60_000, () => stream.closed)
  t.equal(stream.error, undefined)
  t.equal(world.accepted[0]?.received, 100_000)
  t.equal(world.sessions.client[0]?.info().ikeRekeys, 4)
  t.end()
})

t.test('post-quantum key: an option that cannot be used says which part and why', t => {
  for (const [ppk, message] of [
    ['text', /"ppk"/],
    [[], /"ppk"/],
    [{ id: '', secret }, /"ppk\.id"/],
    [{ id: 'a', secret: 'short' }, /"ppk\.secret".*at least 32 octets/],
    [{ id: 'a', secret, required: 1 }, /"ppk\.required"/],
    [{ id: 'a', secret, mandatory: true }, /"ppk\.mandatory"/],
  ] as const) {
    t.throws(() => new World(1, PERFECT, { ppk }), { message })
  }
  t.end()
})
