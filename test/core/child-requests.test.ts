/** What a socket does with a peer that gives less than was asked for (RFC 7296 §2.9), on whole endpoints. */
import t from 'tap'
import { equal } from '../../lib/base/bytes.ts'
import { IkeSa } from '../../lib/ike/ike-sa.ts'
import { SaInit } from '../../lib/ike/sa-init.ts'
import { find } from '../../lib/wire/message.ts'
import { notify } from '../../lib/wire/notify.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { NotifyType } from '../../lib/wire/registry.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const transfer = (
  client: Options,
  server: Options,
  streams = 1,
): { world: World; all: Stream[] } => {
  const world = new World(9, PERFECT, client, server)
  world.serve = () => new Stream(0, 2, 1)
  const all = Array.from({ length: streams }, () => new Stream(5_000, 1, 2))
  for (const stream of all) world.connect(stream)
  world.run(120_000, () => all.every(({ closed }) => closed))
  return { world, all }
}
const selectorsOf = (world: World): readonly string[][] =>
  world.sessions.server[0]!.info().children.map(({ localSelectors, remoteSelectors }) => [
    ...localSelectors,
    ...remoteSelectors,
  ])

t.test('a peer that narrows to the very port that is wanted is fine', t => {
  const { world, all } = transfer({}, { localTs: '192.0.2.1[tcp/80]' })
  t.equal(all[0]?.error, undefined)
  t.equal(world.accepted[0]?.received, 5_000)
  t.end()
})

t.test(
  'a peer that narrows to something else is asked once more, exactly, and then believed',
  t => {
    const { world, all } = transfer({}, { localTs: '192.0.2.1[tcp/81]' })
    t.match(all[0]?.error, { code: 'TS_UNACCEPTABLE' })
    t.equal(selectorsOf(world).length, 1, 'no Child SA is made again and again')
    t.end()
  },
)

t.test('of several selectors of the peer the exact question finds the one that fits', t => {
  const { world, all } = transfer(
    { localTs: '198.51.100.0/24', remoteTs: '192.0.2.0/24' },
    { localTs: ['192.0.2.1[tcp/81]', '192.0.2.1[tcp/80]'], mode: 'tunnel' },
  )
  t.equal(all[0]?.error, undefined)
  t.equal(world.accepted[0]?.received, 5_000)
  t.end()
})

t.test(
  'SINGLE_PAIR_REQUIRED: asked again for one pair of addresses and ports, and once only',
  t => {
    type Responder = {
      respondCreateChild(payloads: readonly Payload[], now: number): readonly Payload[]
    }
    const responder = IkeSa.prototype as unknown as Responder
    const { respondCreateChild } = responder
    t.teardown(() => Object.assign(responder, { respondCreateChild }))
    for (const isStubborn of [false, true]) {
      const asked: boolean[] = []
      responder.respondCreateChild = function (payloads, now) {
        const selectors = [...find(payloads, 'tsi')!.selectors, ...find(payloads, 'tsr')!.selectors]
        const isPair =
          selectors.length === 2 &&
          selectors.every(ts => equal(ts.start, ts.end) && ts.startPort === ts.endPort)
        asked.push(isPair)
        if (isPair && !isStubborn) return respondCreateChild.call(this, payloads, now)
        return [notify(NotifyType.SinglePairRequired)]
      }
      const { world, all } = transfer({ childless: 'force' }, {})
      t.same(asked, [false, true])
      if (isStubborn) t.match(all[0]?.error, { code: 'SINGLE_PAIR_REQUIRED' })
      else t.equal(world.accepted[0]?.received, 5_000)
    }
    t.end()
  },
)

t.test(
  'towards another make, in transport mode, each socket has a Child SA for its own ports',
  t => {
    const { onResponse } = SaInit.prototype
    t.teardown(() => Object.assign(SaInit.prototype, { onResponse }))
    SaInit.prototype.onResponse = function (...args) {
      const outcome = onResponse.apply(this, args)
      if (outcome.kind !== 'done') return outcome
      return { ...outcome, handshake: { ...outcome.handshake, peerIsOurs: false } }
    }
    const { world, all } = transfer({}, {}, 3)
    for (const stream of all) t.equal(stream.error, undefined)
    t.strictSame(
      world.accepted.map(({ received }) => received),
      [5_000, 5_000, 5_000],
    )
    const pairs = selectorsOf(world).map(selectors => selectors.join(' '))
    t.equal(new Set(pairs).size, 3)
    for (const pair of pairs) t.match(pair, /^192\.0\.2\.1\[tcp\/80\] 198\.51\.100\.7\[tcp\/\d+\]$/)
    t.end()
  },
)

t.test('several sockets at once share one Child SA: none is made twice', t => {
  const { world, all } = transfer({}, {}, 5)
  for (const stream of all) t.equal(stream.error, undefined)
  t.equal(world.accepted.length, 5)
  t.equal(selectorsOf(world).length, 1)
  t.end()
})

t.test('each of several sockets is told when the peer refuses what they need', t => {
  const { all } = transfer({}, { localTs: '10.0.0.0/8' }, 3)
  for (const stream of all) t.match(stream.error, { code: 'TS_UNACCEPTABLE' })
  t.end()
})

t.test('childless: force at either end or both, and the sockets do not notice', t => {
  for (const [client, server] of [
    ['force', 'allow'],
    ['force', 'force'],
    ['never', 'allow'],
  ]) {
    const { world, all } = transfer({ childless: client }, { childless: server }, 2)
    for (const stream of all) t.equal(stream.error, undefined, `${client}, ${server}`)
    t.equal(world.accepted.length, 2)
  }
  t.end()
})
