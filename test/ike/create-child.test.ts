/** CREATE_CHILD_SA for a new Child SA, what is negotiated in it, and what may cross it (RFC 7296 §1.3.1, §2.9). */
import t, { type Test } from 'tap'
import { parseSelectors, formatSelector } from '../../lib/policy/traffic-selectors.ts'
import type { ChildSa } from '../../lib/ike/child-sa.ts'
import type { ChildRequest } from '../../lib/ike/exchange.ts'
import type { NotifyPayload, Payload } from '../../lib/wire/payloads.ts'
import { ExchangeType, KeGroup, NotifyType, ProtocolId } from '../../lib/wire/registry.ts'
import { IkePair, type End, type Letter, type Options } from '../harness/ike-pair.ts'

const { CreateChildSa } = ExchangeType

const notifyOf = (type: number, data: Uint8Array = new Uint8Array(0)): NotifyPayload => ({
  kind: 'notify',
  protocol: ProtocolId.None,
  spi: new Uint8Array(0),
  type,
  data,
})
const selectors = (...texts: string[]): ChildRequest['localSelectors'] =>
  parseSelectors('ts', texts)
const shown = (list: ChildRequest['localSelectors']): string[] => list.map(formatSelector)
const types = (payloads: readonly Payload[]): number[] =>
  payloads.flatMap(payload => (payload.kind === 'notify' ? [payload.type] : []))

/** One negotiation by `from`, of which nothing else is known. */
const create = (
  pair: IkePair,
  from: End,
  request: ChildRequest,
): { asked: Payload[]; answered: Payload[] } => {
  pair.run(() => from.sa.createChild(request, 900, pair.now))
  const asked = pair.read(pair.wire[0]!)
  pair.pass(pair.other(from))
  const answered = pair.read(pair.wire[0]!)
  pair.pass(from)
  return { asked, answered }
}
const codeAt = (end: End): string | undefined => end.all('childFailed').at(-1)?.error.code
const newest = (end: End): ChildSa => end.children.at(-1)!

/** A peer of another make: the answer that `from` would get is another one. */
const answerWith = (
  pair: IkePair,
  from: End,
  change: (payloads: Payload[]) => Payload[],
): Letter => {
  pair.pass(pair.other(from))
  const genuine = pair.take(from)
  const { exchange, messageId } = genuine.header
  const changed = change(pair.read(genuine))
  const forged = pair.forge(pair.other(from), { exchange, messageId, response: true }, changed)
  pair.give(forged)
  return forged
}

t.test('a new Child SA, asked for by either end, with PFS and without', t => {
  for (const options of [{}, { pfs: false }, { pfs: true }] as Options[]) {
    for (const starter of ['a', 'b'] as const) {
      const pair = IkePair.established(options, options)
      const { asked, answered } = create(pair, pair[starter], pair.request(pair[starter], 81))
      for (const payloads of [asked, answered])
        t.equal(
          payloads.some(({ kind }) => kind === 'ke'),
          options.pfs !== false,
        )
      pair.assertWhole(t, 2)
      t.equal(pair[starter].all('childInstalled')[0]?.ticket, 900)
      t.equal(pair[starter].all('childInstalled')[0]?.byPeer, false)
      t.equal(pair.other(pair[starter]).all('childInstalled')[0]?.byPeer, true)
      pair.assertAlive(t, 2)
    }
  }
  t.end()
})

t.test('PFS is demanded where one end says so, and only there', t => {
  const rows = [
    [{ pfs: false }, { pfs: true }, 'NO_PROPOSAL_CHOSEN'],
    [{ pfs: false }, {}, undefined],
    [{}, { pfs: false }, undefined],
    [{}, { pfs: true }, undefined],
  ] as const
  for (const [own, peer, code] of rows) {
    const pair = IkePair.established(own, peer)
    create(pair, pair.a, pair.request(pair.a, 81))
    t.equal(codeAt(pair.a), code, JSON.stringify([own, peer]))
    pair.assertWhole(t, code === undefined ? 2 : 1)
  }
  t.end()
})

t.test('every group that an ESP proposal may name makes its own key exchange', t => {
  const groups = ['x25519', 'ecp256', 'ecp384', 'ecp521', 'x448', 'modp2048']
  for (const group of groups) {
    const esp = { esp: `aes128gcm16-${group}` }
    const pair = IkePair.established(esp, esp)
    const { asked } = create(pair, pair.a, pair.request(pair.a, 81))
    const ke = asked.find(({ kind }) => kind === 'ke') as Extract<Payload, { kind: 'ke' }>
    const wanted = {
      x25519: 31,
      ecp256: 19,
      ecp384: 20,
      ecp521: 21,
      x448: 32,
      modp2048: 14,
    } as Record<string, number>
    t.equal(ke.group, wanted[group], `${group} is the first guess already`)
    pair.assertWhole(t, 2)
  }
  t.equal(KeGroup.X25519, 31)
  t.end()
})

// --- transport and tunnel mode ---

t.test('USE_TRANSPORT_MODE: accepted, refused and insisted upon, in both roles', t => {
  const rows: [
    asked: ChildRequest['mode'],
    policy: string,
    got: 'transport' | 'tunnel' | undefined,
    code?: string,
  ][] = [
    ['auto', 'auto', 'transport'],
    ['auto', 'transport', 'transport'],
    ['auto', 'tunnel', 'tunnel'],
    ['tunnel', 'auto', 'tunnel'],
    ['tunnel', 'tunnel', 'tunnel'],
    ['tunnel', 'transport', undefined, 'NO_PROPOSAL_CHOSEN'],
    ['transport', 'auto', 'transport'],
    ['transport', 'transport', 'transport'],
    ['transport', 'tunnel', undefined, 'USE_TRANSPORT_MODE'],
  ]
  for (const [asked, policy, got, code] of rows) {
    for (const starter of ['a', 'b'] as const) {
      const pair = IkePair.established()
      const from = pair[starter]
      const to = pair.other(from)
      to.reconfigure({ mode: policy })
      const name = `${starter} asks for ${asked}, the peer takes ${policy}`
      const messages = create(pair, from, pair.request(from, 81, asked))
      // NO_PROPOSAL_CHOSEN does not say what it is about: it is asked once more without a key exchange.
      pair.settle()
      t.equal(types(messages.asked).includes(NotifyType.UseTransportMode), asked !== 'tunnel', name)
      t.equal(
        types(messages.answered).includes(NotifyType.UseTransportMode),
        got === 'transport',
        name,
      )
      t.equal(codeAt(from), code, name)
      if (got !== undefined) {
        t.equal(newest(from).mode, got, name)
        t.equal(newest(to).mode, got, name)
        pair.assertWhole(t, 2)
      } else t.equal(from.children.length, 1, name)
    }
  }
  t.end()
})

t.test('insisting on transport mode, an initiator deletes at the peer what it does not want', t => {
  const pair = IkePair.established()
  pair.b.reconfigure({ mode: 'tunnel' })
  create(pair, pair.a, pair.request(pair.a, 81, 'transport'))
  pair.settle()
  pair.advance(6_000)
  pair.assertWhole(t, 1)
  t.end()
})

t.test('a peer that answers with USE_TRANSPORT_MODE unasked is not followed', t => {
  const pair = IkePair.established()
  pair.run(() => pair.a.sa.createChild(pair.request(pair.a, 81, 'tunnel'), 7, pair.now))
  answerWith(pair, pair.a, payloads => [notifyOf(NotifyType.UseTransportMode), ...payloads])
  t.equal(codeAt(pair.a), 'ERR_IKE_CHILD_ANSWER')
  t.equal(pair.a.children.length, 1)
  t.end()
})

// --- traffic selectors ---

t.test('narrowing in both roles: both ends have what both allow', t => {
  const rows: [
    asked: [string[], string[]],
    allowed: [string[], string[]],
    got: [string[], string[]],
  ][] = [
    [
      [['192.0.2.1'], ['192.0.2.2']],
      [['192.0.2.2'], ['192.0.2.1']],
      [['192.0.2.1'], ['192.0.2.2']],
    ],
    [
      [['192.0.2.0/24'], ['192.0.2.0/24']],
      [['192.0.2.2'], ['192.0.2.1']],
      [['192.0.2.1'], ['192.0.2.2']],
    ],
    [
      [['192.0.2.1'], ['192.0.2.2']],
      [['192.0.2.2[tcp/80]'], ['192.0.2.1[tcp]']],
      [['192.0.2.1[tcp]'], ['192.0.2.2[tcp/80]']],
    ],
    [
      [['192.0.2.1'], ['10.0.0.0/8']],
      [['10.1.0.0/16', '10.9.0.0/16'], ['192.0.2.0/24']],
      [['192.0.2.1'], ['10.1.0.0/16', '10.9.0.0/16']],
    ],
    [
      [['192.0.2.1[tcp/1000-2000]'], ['10.0.0.0-10.0.0.9[tcp/80]', '10.0.0.0/24[udp]']],
      [['10.0.0.5-10.0.0.20[tcp]'], ['192.0.2.1[tcp/1500-3000]']],
      [['192.0.2.1[tcp/1500-2000]'], ['10.0.0.5-10.0.0.9[tcp/80]']],
    ],
    [
      [
        ['::/0', '0.0.0.0/0'],
        ['2001:db8::/32', '10.0.0.1'],
      ],
      [['10.0.0.0/8'], ['192.0.2.1']],
      [['192.0.2.1'], ['10.0.0.1']],
    ],
  ]
  for (const [[localAsked, remoteAsked], [localAllowed, remoteAllowed], [local, remote]] of rows) {
    for (const starter of ['a', 'b'] as const) {
      const pair = IkePair.established({ mode: 'tunnel' }, { mode: 'tunnel' })
      const from = pair[starter]
      const to = pair.other(from)
      to.reconfigure({ localTs: localAllowed, remoteTs: remoteAllowed })
      create(pair, from, {
        mode: 'tunnel',
        localSelectors: selectors(...localAsked),
        remoteSelectors: selectors(...remoteAsked),
      })
      t.same(shown(newest(from).localSelectors), local)
      t.same(shown(newest(from).remoteSelectors), remote)
      t.same(shown(newest(to).localSelectors), remote)
      t.same(shown(newest(to).remoteSelectors), local)
      pair.assertWhole(t, 2)
    }
  }
  t.end()
})

t.test('TS_UNACCEPTABLE when nothing is left; the error says what was asked for', t => {
  const pair = IkePair.established({ mode: 'tunnel' }, { mode: 'tunnel' })
  pair.b.reconfigure({ localTs: '10.1.0.0/16' })
  const { answered } = create(pair, pair.a, {
    mode: 'tunnel',
    localSelectors: selectors('192.0.2.1'),
    remoteSelectors: selectors('10.2.0.0/16'),
  })
  t.same(types(answered), [NotifyType.TsUnacceptable])
  t.equal(codeAt(pair.a), 'TS_UNACCEPTABLE')
  t.match(pair.a.all('childFailed')[0]?.error.details, {
    localSelectors: ['192.0.2.1'],
    remoteSelectors: ['10.2.0.0/16'],
  })
  pair.assertWhole(t, 1)
  t.end()
})

t.test('an answer that widens, or has no selectors at all, is not followed', t => {
  const everything = selectors('0.0.0.0/0')
  const changes: ((payload: Payload) => Payload[])[] = [
    payload => [payload.kind === 'tsr' ? { ...payload, selectors: everything } : payload],
    payload => [payload.kind === 'tsi' ? { ...payload, selectors: everything } : payload],
    payload => (payload.kind === 'tsi' ? [] : [payload]),
    payload => (payload.kind === 'tsr' ? [] : [payload]),
    payload => (payload.kind === 'nonce' ? [] : [payload]),
    payload => (payload.kind === 'ke' ? [] : [payload]),
    payload => (payload.kind === 'sa' ? [] : [payload]),
    payload => [payload.kind === 'ke' ? { ...payload, group: 19 } : payload],
    payload => [payload.kind === 'ke' ? { ...payload, data: payload.data.map(() => 0) } : payload],
    payload => [
      payload.kind === 'sa'
        ? {
            ...payload,
            proposals: payload.proposals.map(one => ({ ...one, spi: one.spi.subarray(1) })),
          }
        : payload,
    ],
    payload => [
      payload.kind === 'sa'
        ? { ...payload, proposals: [...payload.proposals, ...payload.proposals] }
        : payload,
    ],
  ]
  for (const change of changes) {
    const pair = IkePair.established()
    pair.run(() => pair.a.sa.createChild(pair.request(pair.a, 81), 7, pair.now))
    answerWith(pair, pair.a, payloads => payloads.flatMap(change))
    t.equal(codeAt(pair.a), 'ERR_IKE_CHILD_ANSWER', String(change))
    t.equal(pair.a.children.length, 1)
    t.equal(pair.a.sa.state, 'established', 'the IKE SA stays')
  }
  t.end()
})

t.test('ADDITIONAL_TS_POSSIBLE and other status notifies change nothing in an answer', t => {
  const pair = IkePair.established()
  pair.run(() => pair.a.sa.createChild(pair.request(pair.a, 81), 7, pair.now))
  answerWith(pair, pair.a, payloads => [
    notifyOf(NotifyType.AdditionalTsPossible),
    notifyOf(40960),
    ...payloads,
    notifyOf(NotifyType.IpcompSupported),
  ])
  pair.assertWhole(t, 2)
  t.end()
})

t.test(
  'ESP_TFC_PADDING_NOT_SUPPORTED is said in both roles, NON_FIRST_FRAGMENTS_ALSO is asked for',
  t => {
    for (const starter of ['a', 'b'] as const) {
      const pair = IkePair.established()
      const { asked, answered } = create(pair, pair[starter], pair.request(pair[starter], 81))
      t.ok(types(asked).includes(NotifyType.EspTfcPaddingNotSupported))
      t.ok(types(asked).includes(NotifyType.NonFirstFragmentsAlso))
      t.ok(types(answered).includes(NotifyType.EspTfcPaddingNotSupported))
      pair.rekeyChild(pair[starter])
      t.ok(types(pair.read(pair.wire[0]!)).includes(NotifyType.EspTfcPaddingNotSupported))
    }
    t.end()
  },
)

// --- refusals ---

/** The peer refuses what it is asked next, as one of another make might. */
const refuseNext = (pair: IkePair, from: End, type: number): void =>
  pair.answer(from, [notifyOf(type)])

t.test(
  'each refusal has the name of the registry, and leaves the IKE SA and its Child SAs alone',
  t => {
    const rows = [
      [NotifyType.NoAdditionalSas, 'NO_ADDITIONAL_SAS'],
      [NotifyType.NoProposalChosen, 'NO_PROPOSAL_CHOSEN'],
      [NotifyType.TsUnacceptable, 'TS_UNACCEPTABLE'],
      [NotifyType.SinglePairRequired, 'SINGLE_PAIR_REQUIRED'],
      [NotifyType.InvalidSyntax, 'INVALID_SYNTAX'],
      [NotifyType.FailedCpRequired, 'FAILED_CP_REQUIRED'],
      [NotifyType.InternalAddressFailure, 'INTERNAL_ADDRESS_FAILURE'],
    ] as const
    for (const [type, name] of rows) {
      const pair = IkePair.established()
      pair.createChild(pair.a, 81)
      refuseNext(pair, pair.a, type)
      // It is asked for once more, without a key exchange.
      if (type === NotifyType.NoProposalChosen) refuseNext(pair, pair.a, type)
      t.equal(codeAt(pair.a), name)
      t.equal(pair.a.count('childFailed'), 1)
      t.equal(pair.wire.length, 0, 'and is not tried again by itself')
      t.equal(pair.a.spis.size, 1, 'its SPI is given back')
      t.equal(pair.a.sa.state, 'established')
      t.equal(pair.a.children.length, 1)
    }
    t.end()
  },
)

t.test('an unknown error notify refuses, an unreadable answer as well', t => {
  const pair = IkePair.established()
  pair.createChild(pair.a, 81)
  refuseNext(pair, pair.a, 9999)
  t.equal(pair.a.count('childFailed'), 1)
  pair.createChild(pair.a, 82)
  pair.answer(pair.a, [], { first: 33, bytes: Uint8Array.of(0, 0, 0, 3) })
  t.equal(pair.a.count('childFailed'), 2)
  t.equal(pair.a.spis.size, 1)
  t.end()
})

t.test('TEMPORARY_FAILURE: asked again after a while, until it is answered otherwise', t => {
  const pair = IkePair.established()
  pair.createChild(pair.a, 81)
  refuseNext(pair, pair.a, NotifyType.TemporaryFailure)
  t.equal(pair.wire.length, 0, 'not at once (§2.25)')
  t.equal(pair.a.count('childFailed'), 0)
  pair.tick()
  t.equal(pair.wire.length, 1)
  pair.settle()
  t.equal(pair.a.all('childInstalled')[0]?.ticket, 1)
  pair.createChild(pair.a, 82)
  refuseNext(pair, pair.a, NotifyType.TemporaryFailure)
  const wait = pair.a.sa.nextTimeout() - pair.now
  t.ok(wait < 1_500, `a success ends the growing of the wait: ${wait} ms`)
  t.end()
})

t.test('more Child SAs than an end keeps: NO_ADDITIONAL_SAS, but a rekey is still answered', t => {
  const options = { pfs: false }
  const pair = IkePair.established(options, options)
  for (let i = 1; i < 64; i++) {
    pair.createChild(pair.a, i)
    pair.settle()
  }
  t.equal(pair.b.children.length, 64)
  pair.createChild(pair.a, 2000)
  pair.settle()
  t.equal(codeAt(pair.a), 'NO_ADDITIONAL_SAS')
  pair.rekeyChild(pair.a)
  pair.settle()
  t.equal(pair.b.count('childRekeyed'), 1)
  t.equal(pair.b.children.length, 64)
  t.end()
})

for (const what of ['Child', 'IKE'] as const) {
  t.test(
    `a peer that answers a rekey of the ${what} SA with NO_ADDITIONAL_SAS is left for a new IKE SA`,
    t => {
      const pair = IkePair.established()
      if (what === 'Child') pair.rekeyChild(pair.a)
      else pair.rekeyIke(pair.a)
      refuseNext(pair, pair.a, NotifyType.NoAdditionalSas)
      t.equal(pair.a.count('reauthenticate'), 1)
      t.equal(pair.a.child.state, 'installed')
      t.equal(pair.wire.length, 0)
      t.end()
    },
  )
}

// --- what crosses it ---

for (const creator of ['a', 'b'] as const) {
  t.test(
    `${creator} makes a Child SA and the peer rekeys the IKE SA: both refused, both done later`,
    t => {
      for (const first of ['own', 'peer'] as const) {
        const pair = IkePair.established()
        const own = pair[creator]
        const peer = pair.other(own)
        pair.createChild(own, 81)
        pair.rekeyIke(peer)
        pair.pass(first === 'own' ? own : peer)
        pair.pass(first === 'own' ? peer : own)
        t.equal(own.count('successor') + peer.count('successor'), 0)
        pair.settle()
        pair.assertWhole(t, 1)
        pair.advance(60_000)
        t.equal(own.count('rekeyed'), 1)
        t.equal(peer.count('rekeyed'), 1)
        t.equal(own.all('childInstalled')[0]?.ticket, 1)
        t.equal(own.count('childFailed'), 0)
        pair.assertWhole(t, 2)
        pair.assertAlive(t, 2)
      }
      t.end()
    },
  )

  t.test(
    `${creator} makes a Child SA and the peer deletes the IKE SA: told, and no SPI is leaked`,
    t => {
      for (const order of ['request first', 'Delete first'] as const) {
        const pair = IkePair.established()
        const own = pair[creator]
        const peer = pair.other(own)
        pair.createChild(own, 81)
        pair.deleteIke(peer)
        if (order === 'request first') pair.pass(peer)
        pair.settle()
        t.equal(own.count('childAbandoned') + own.count('childFailed'), 1, order)
        pair.assertGone(t)
      }
      t.end()
    },
  )

  t.test(`${creator} gets the Delete of a new Child SA before the answer that made it`, t => {
    const pair = IkePair.established()
    const own = pair[creator]
    const peer = pair.other(own)
    pair.createChild(own, 81)
    pair.pass(peer)
    const answer = pair.take(own)
    pair.deleteChild(peer, newest(peer))
    pair.settle()
    pair.give(answer)
    pair.settle()
    t.equal(own.count('childInstalled'), 0)
    t.equal(own.count('childFailed'), 1)
    pair.advance(6_000)
    pair.assertWhole(t, 1)
    t.end()
  })
}

t.test('both make a Child SA at once: both are there', t => {
  const pair = IkePair.established()
  pair.createChild(pair.a, 81)
  pair.createChild(pair.b, 81)
  pair.settle()
  pair.assertWhole(t, 3)
  pair.assertAlive(t, 3)
  t.end()
})

// --- REKEY_SA that names nothing ---

const rekeyRequest = (t: Test, pair: IkePair, notify: NotifyPayload): Payload[] => {
  // A genuine request of another negotiation, so that only the notify is odd.
  pair.createChild(pair.a, 81)
  const genuine = pair.read(pair.take(pair.b))
  const { messageId } = { messageId: 2 }
  pair.give(pair.forge(pair.a, { exchange: CreateChildSa, messageId }, [notify, ...genuine]))
  t.equal(pair.wire.length, 1)
  return pair.read(pair.take(pair.a))
}

t.test(
  'REKEY_SA with each protocol and SPI size: CHILD_SA_NOT_FOUND unless it names a Child SA (CVE-2023-38710)',
  t => {
    for (const protocol of [0, 1, 2, 3, 4, 127, 255]) {
      for (const size of [0, 1, 3, 4, 5, 8, 255]) {
        const pair = IkePair.established()
        const spi = new Uint8Array(size)
        const { inboundSpi } = pair.a.child
        spi.set([inboundSpi >>> 24, 0, 0, 1].slice(0, size))
        const name = `protocol ${protocol}, ${size} octets`
        const rekey = { ...notifyOf(NotifyType.RekeySa), protocol, spi }
        const answer = rekeyRequest(t, pair, rekey)
        const isEsp = protocol === ProtocolId.Esp && size === 4
        t.equal(pair.b.count('childInstalled'), isEsp ? 1 : 0, name)
        if (!isEsp) {
          t.same(
            answer,
            [{ ...rekey, type: NotifyType.ChildSaNotFound }],
            `${name}: as it was asked for`,
          )
        }
        t.equal(pair.b.sa.state, 'established', name)
      }
    }
    t.end()
  },
)
