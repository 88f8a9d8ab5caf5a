/** Peers that refuse to renew a Child SA, or to make one with a key exchange of its own, on whole endpoints. */
import t from 'tap'
import type { TraceEvent } from '../../lib/base/trace.ts'
import { IkeSa } from '../../lib/ike/ike-sa.ts'
import { groupsOf } from '../../lib/policy/proposal.ts'
import { find } from '../../lib/wire/message.ts'
import { findNotify, notify } from '../../lib/wire/notify.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { NotifyType } from '../../lib/wire/registry.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

type Answer = (payloads: readonly Payload[], now: number) => readonly Payload[]
const responder = IkeSa.prototype as unknown as { respondCreateChild: Answer }
const { respondCreateChild } = responder
t.afterEach(() => void Object.assign(responder, { respondCreateChild }))

/** What the peers say to CREATE_CHILD_SA; undefined: what they would have said. */
const peersAnswer = (answer: (payloads: readonly Payload[]) => number | undefined): void => {
  responder.respondCreateChild = function (payloads, now) {
    const refusal = answer(payloads)
    return refusal === undefined ? respondCreateChild.call(this, payloads, now) : [notify(refusal)]
  }
}

const isRekeyOfChild = (payloads: readonly Payload[]): boolean =>
  findNotify(payloads, NotifyType.RekeySa) !== undefined

interface Run {
  readonly world: World
  readonly stream: Stream
  readonly events: readonly TraceEvent[]
  /** Goes on sending for so many seconds. */
  go(seconds: number): void
}

const start = (client: Options = {}, server: Options = {}): Run => {
  const events: TraceEvent[] = []
  const tracer = { enabled: true, emit: (event: TraceEvent) => void events.push(event) }
  const world = new World(5, PERFECT, client, { idleTimeout: 0, ...server }, tracer)
  world.serve = () => new Stream(0, 2, 1)
  const stream = new Stream(1_000_000, 1, 2)
  stream.budget = 100
  world.connect(stream)
  const go = (seconds: number): void => {
    for (let i = 0; i < seconds && !stream.closed; i++) {
      stream.budget += 100
      world.work(world.client, stream)
      world.run(1000)
    }
  }
  return { world, stream, events, go }
}

const warnings = ({ events }: World): readonly string[] =>
  events.flatMap(event =>
    event.kind === 'rekeyRefused' ? [(event.error as { code?: string }).code ?? ''] : [],
  )

t.test('a peer without a group for its Child SAs rekeys them', t => {
  for (const refusal of [NotifyType.NoProposalChosen, NotifyType.InvalidKePayload]) {
    const offers: string[] = []
    peersAnswer(payloads => {
      if (!isRekeyOfChild(payloads)) return undefined
      const { proposals } = find(payloads, 'sa')!
      const withKe = proposals.filter(proposal => groupsOf([proposal]).length > 0).length
      offers.push(`${withKe} with, ${proposals.length - withKe} without`)
      t.notOk(groupsOf(proposals).includes(0), 'the method NONE is not named')
      return withKe > 0 ? refusal : undefined
    })
    const { world, stream, go } = start({ childLifetime: 60_000 }, { childLifetime: 600_000 })
    go(60)
    const { childRekeys, ikeRekeys } = world.sessions.client[0]!.info()
    t.same(offers, ['5 with, 5 without', '0 with, 5 without'])
    t.equal(childRekeys, 1)
    t.equal(ikeRekeys, 0)
    t.equal(stream.error, undefined)
    t.same(warnings(world), [], 'nothing was lost, and nobody is warned')
  }
  t.end()
})

t.test('a peer that chooses what has no key exchange needs one request', t => {
  let requests = 0
  responder.respondCreateChild = function (payloads, now) {
    requests++
    // As a peer does that knows no groups: it looks at the other proposals alone.
    const bare = payloads.flatMap((payload): Payload[] =>
      payload.kind === 'ke'
        ? []
        : payload.kind === 'sa'
          ? [
              {
                ...payload,
                proposals: payload.proposals.filter(one => groupsOf([one]).length === 0),
              },
            ]
          : [payload],
    )
    return respondCreateChild.call(this, bare, now)
  }
  const { world, stream } = start()
  world.run(2000)
  world.sessions.client[0]!.rekeyChild(world.now)
  world.client.touchSession(world.sessions.client[0]!, world.now)
  world.run(2000)
  t.equal(requests, 1)
  t.equal(world.sessions.client[0]!.info().childRekeys, 1)
  t.equal(stream.error, undefined)
  t.end()
})

t.test('with pfs: true nothing is offered without a key exchange', t => {
  const seen: boolean[] = []
  peersAnswer(payloads => {
    if (!isRekeyOfChild(payloads)) return undefined
    seen.push(find(payloads, 'sa')!.proposals.every(one => groupsOf([one]).length > 0))
    return NotifyType.NoProposalChosen
  })
  const { go } = start({ pfs: true, childLifetime: 60_000 }, { childLifetime: 600_000 })
  go(55)
  t.ok(seen.length > 0)
  t.ok(seen.every(Boolean))
  t.end()
})

t.test('where a rekey is refused, a new IKE SA takes over and the old one is closed', t => {
  for (const what of ['child', 'ike'] as const) {
    peersAnswer(payloads =>
      isRekeyOfChild(payloads) === (what === 'child') ? NotifyType.NoProposalChosen : undefined,
    )
    const lifetime = what === 'child' ? 'childLifetime' : 'ikeLifetime'
    const { world, stream, events, go } = start({ [lifetime]: 60_000 }, { [lifetime]: 600_000 })
    go(2)
    const first = world.sessions.client[0]!.info().spiI
    go(300)
    t.equal(stream.error, undefined)
    t.not(world.sessions.client[0]!.info().spiI, first)
    t.equal(world.sessions.client[0]!.info().children.length, 1)
    t.equal(world.sessions.server[0]!.info().children.length, 1, 'the peer has no leftovers')
    t.ok(world.accepted[0]!.received > 29_000, 'octets go on')
    t.same(warnings(world), ['NO_PROPOSAL_CHOSEN'], 'and a warning was given, once')
    t.match(
      events.find(({ name }) => name === `${what}.rekeyRefused`),
      { facts: { code: 'NO_PROPOSAL_CHOSEN' } },
    )
  }
  t.end()
})

t.test('when the new IKE SA fails too, the sockets end with its code, by the limit', t => {
  peersAnswer(() => NotifyType.NoProposalChosen)
  const { world, stream, go } = start({ childLifetime: 60_000 }, { childLifetime: 600_000 })
  go(5)
  // The peer's IKE_SA_INIT is answered no more: no new IKE SA can be made.
  world.filter = (to, bytes) => to !== 'server' || bytes[4 + 18] !== 34
  go(300)
  t.match(stream.error, { code: /ETIMEDOUT|NO_PROPOSAL_CHOSEN/ })
  t.ok(world.now < 150_000, 'as soon as the attempt is over that the limit has found under way')
  t.end()
})

t.test(
  'a server whose client refuses rekeys ends the connections with the code, and the IKE SA',
  t => {
    peersAnswer(payloads => (isRekeyOfChild(payloads) ? NotifyType.TsUnacceptable : undefined))
    const { world, go } = start({ childLifetime: 600_000 }, { childLifetime: 60_000 })
    go(100)
    t.match(world.accepted[0]!.error, { code: 'TS_UNACCEPTABLE' })
    t.same(warnings(world), ['TS_UNACCEPTABLE'])
    t.ok(world.sessions.server[0]!.info().children.length === 0)
    t.end()
  },
)
