/**
 * Each exchange type in each state of an IKE SA, and what may be done with message IDs (RFC 7296 §2.1-2.3,
 * CVE-2014-2338, CVE-2019-12312). What a state does not expect changes nothing, whoever sends it.
 */
import t, { type Test } from 'tap'
import { equal } from '../../lib/base/bytes.ts'
import { HalfOpen } from '../../lib/ike/half-open.ts'
import type { IkeSa } from '../../lib/ike/ike-sa.ts'
import { writeIkeHeader } from '../../lib/wire/ike-header.ts'
import { writeChain } from '../../lib/wire/payload-chain.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { ExchangeType, NotifyType } from '../../lib/wire/registry.ts'
import { IkePair, NONCES, type End, type Letter } from '../harness/ike-pair.ts'

/** Those of the registry that we have, IKEv1's, some that others have, and nonsense. */
const EXCHANGES = [0, 1, 2, 4, 5, 34, 35, 36, 37, 38, 39, 43, 44, 240, 255]

const status = (type: number): Payload => ({
  kind: 'notify',
  protocol: 0,
  spi: new Uint8Array(0),
  type,
  data: new Uint8Array(0),
})
const DELETE_IKE: Payload = { kind: 'delete', protocol: 1, spis: [] }
const nonce: Payload = { kind: 'nonce', data: new Uint8Array(32) }

/** What an attacker may put together: nothing, a Delete, half a negotiation, a refusal. */
const CONTENTS: readonly (readonly Payload[])[] = [
  [],
  [DELETE_IKE],
  [nonce],
  [status(NotifyType.AuthenticationFailed)],
  [status(NotifyType.RekeySa), nonce],
]

/** A message without protection, as anyone can send one who has seen the SPIs. */
const plain = (
  sa: IkeSa | HalfOpen,
  to: End,
  facts: { exchange: number; messageId: number; response: boolean; fromInitiator: boolean },
  payloads: readonly Payload[],
): Letter => {
  const chain = writeChain(payloads)
  const bytes = new Uint8Array(28 + chain.bytes.length)
  const header = {
    spiI: sa.spiI,
    spiR: sa instanceof HalfOpen ? new Uint8Array(8) : sa.spiR,
    exchange: facts.exchange,
    originalInitiator: facts.fromInitiator,
    response: facts.response,
    messageId: facts.messageId,
  }
  writeIkeHeader(bytes, header, chain.first, bytes.length)
  bytes.set(chain.bytes, 28)
  return {
    to,
    bytes,
    header: {
      ...header,
      nextPayload: chain.first,
      majorVersion: 2,
      minorVersion: 0,
      length: bytes.length,
    } as Letter['header'],
  }
}

/** What must not change: the states of all SAs and Child SAs, and what was told. */
const snapshot = (end: End): unknown => ({
  sas: [...end.sas.values()].map(sa => [
    sa.ownSpi,
    sa.state,
    [...sa.children.values()].map(child => [child.inboundSpi, child.state]),
  ]),
  outputs: end.outputs.length,
  spis: end.spis.size,
})

const row = NONCES[0]
const STATES: Record<string, () => { pair: IkePair; end: End; sa: IkeSa }> = {
  'auth, as initiator': () => {
    const pair = new IkePair()
    pair.initiate()
    pair.pass(pair.b)
    pair.pass(pair.a)
    return { pair, end: pair.a, sa: pair.a.sa }
  },
  'auth, as responder': () => {
    const pair = new IkePair()
    pair.initiate()
    pair.pass(pair.b)
    pair.pass(pair.a)
    return { pair, end: pair.b, sa: pair.b.sa }
  },
  'established, as initiator': () => {
    const pair = IkePair.established()
    return { pair, end: pair.a, sa: pair.a.sa }
  },
  'established, as responder': () => {
    const pair = IkePair.established()
    return { pair, end: pair.b, sa: pair.b.sa }
  },
  'established, with a request under way': () => {
    const pair = IkePair.established()
    pair.rekeyChild(pair.a)
    return { pair, end: pair.a, sa: pair.a.sa }
  },
  provisional: () => {
    const pair = IkePair.established()
    pair.a.nonce = row.aRequest
    pair.rekeyIke(pair.a)
    pair.rekeyIke(pair.b)
    pair.pass(pair.a)
    pair.pass(pair.b)
    return { pair, end: pair.a, sa: pair.a.open.find(({ state }) => state === 'provisional')! }
  },
  rekeyed: () => {
    const pair = IkePair.established()
    const sa = pair.b.sa
    pair.rekeyIke(pair.a)
    pair.pass(pair.b)
    return { pair, end: pair.b, sa }
  },
  deleting: () => {
    const pair = IkePair.established()
    pair.deleteIke(pair.a)
    return { pair, end: pair.a, sa: pair.a.sa }
  },
  closed: () => {
    const pair = IkePair.established()
    const sa = pair.b.sa
    pair.deleteIke(pair.a)
    pair.pass(pair.b)
    return { pair, end: pair.b, sa }
  },
}

const INIT = (): { pair: IkePair; end: End; sa: HalfOpen } => {
  const pair = new IkePair()
  pair.initiate()
  return { pair, end: pair.a, sa: pair.a.opening! }
}

for (const [name, make] of Object.entries({ ...STATES, 'init, as initiator': INIT })) {
  t.test(`without protection no message means anything in the state ${name}`, t => {
    const { pair, end, sa } = make()
    const before = JSON.stringify(snapshot(end))
    const sent = pair.wire.length
    let tried = 0
    for (const exchange of EXCHANGES) {
      for (const payloads of CONTENTS) {
        for (const response of [true, false]) {
          for (const messageId of [0, 1, 2, 3, 0xffffffff]) {
            for (const fromInitiator of [true, false]) {
              // IKE_SA_INIT is never protected, so its answer is looked at: it refuses, for now.
              if (exchange === 34 && sa.state === 'init' && response) continue
              const facts = { exchange, messageId, response, fromInitiator }
              pair.run(() =>
                (end.opening ?? sa).handleMessage(
                  plain(sa, end, facts, payloads).bytes,
                  end.path,
                  pair.now,
                ),
              )
              tried++
            }
          }
        }
      }
    }
    t.equal(JSON.stringify(snapshot(end)), before, `${tried} messages`)
    t.equal(pair.wire.length, sent, 'and nothing is answered')
    t.end()
  })
}

// --- protected, from a peer that does not keep to the rules ---

const KEYED = Object.entries(STATES)

/** The other end's view of the same SA, if it has one. */
const sameAt = (pair: IkePair, end: End, sa: IkeSa): IkeSa | undefined =>
  [...pair.other(end).sas.values()].find(
    other => equal(other.spiI, sa.spiI) && equal(other.spiR, sa.spiR),
  )

for (const [name, make] of KEYED) {
  t.test(`a peer's request of a wrong exchange type is passed over in the state ${name}`, t => {
    for (const exchange of EXCHANGES) {
      const { pair, end, sa } = make()
      const expected =
        name === 'auth, as responder'
          ? [ExchangeType.IkeAuth]
          : name === 'auth, as initiator' || name === 'closed'
            ? []
            : [ExchangeType.CreateChildSa, ExchangeType.Informational]
      if ((expected as number[]).includes(exchange)) continue
      const peerSa = sameAt(pair, end, sa)
      if (peerSa === undefined) continue
      const before = JSON.stringify(snapshot(end))
      for (const payloads of CONTENTS) {
        for (let messageId = 0; messageId < 4; messageId++) {
          const letter = pair.forge(pair.other(end), { exchange, messageId }, payloads, peerSa)
          const sent = pair.wire.length
          pair.give(letter)
          for (const answer of pair.wire.splice(sent)) {
            t.ok(answer.header.response, 'at most the last answer once more')
          }
        }
      }
      t.equal(JSON.stringify(snapshot(end)), before, `exchange ${exchange}`)
    }
    t.end()
  })

  t.test(
    `a peer's answer to nothing, or of a wrong exchange type, is passed over in the state ${name}`,
    t => {
      for (const exchange of EXCHANGES) {
        const { pair, end, sa } = make()
        const peerSa = sameAt(pair, end, sa)
        if (peerSa === undefined) continue
        const awaited = pair.wire
          .filter(({ to, header }) => to !== end && !header.response && equal(header.spiI, sa.spiI))
          .map(({ header }) => header)
        const before = JSON.stringify(snapshot(end))
        for (const payloads of CONTENTS) {
          for (let messageId = 0; messageId < 5; messageId++) {
            if (
              awaited.some(header => header.messageId === messageId && header.exchange === exchange)
            )
              continue
            const facts = { exchange, messageId, response: true }
            const sent = pair.wire.length
            pair.give(pair.forge(pair.other(end), facts, payloads, peerSa))
            t.equal(pair.wire.length, sent)
          }
        }
        t.equal(JSON.stringify(snapshot(end)), before, `exchange ${exchange}`)
      }
      t.end()
    },
  )
}

t.test('before IKE_AUTH is over nothing else is taken, whatever its ID (CVE-2014-2338)', t => {
  const { pair, end, sa } = STATES['auth, as responder']!()
  const auth = pair.take(end)
  const before = JSON.stringify(snapshot(end))
  for (const exchange of [ExchangeType.CreateChildSa, ExchangeType.Informational]) {
    for (let messageId = 0; messageId < 5; messageId++) {
      for (const payloads of CONTENTS)
        pair.give(pair.forge(pair.a, { exchange, messageId }, payloads, sameAt(pair, end, sa)))
    }
  }
  t.equal(JSON.stringify(snapshot(end)), before)
  for (const answer of pair.wire.splice(0))
    t.equal(answer.header.exchange, ExchangeType.IkeSaInit, 'at most the last answer once more')
  pair.give(auth)
  pair.settle()
  pair.assertWhole(t)
  t.end()
})

t.test('our own commands on an SA that is not up yet start nothing', t => {
  for (const name of ['auth, as initiator', 'auth, as responder']) {
    const { pair, sa } = STATES[name]!()
    const sent = pair.wire.length
    pair.run(() => {
      sa.rekeyIke(pair.now)
      sa.rekeyChild(1, pair.now)
      sa.probe(pair.now)
    })
    t.equal(pair.wire.length, sent, name)
    pair.settle()
    pair.assertWhole(t)
  }
  t.end()
})

// --- message IDs ---

const { Informational } = ExchangeType

/** Three exchanges by `a`, so that there are old IDs; the next one is 4. */
const used = (): { pair: IkePair; old: Letter[]; answers: Letter[] } => {
  const pair = IkePair.established()
  const old: Letter[] = []
  const answers: Letter[] = []
  for (let i = 0; i < 2; i++) {
    pair.createChild(pair.a, 80 + i)
    old.push(pair.pass(pair.b))
    answers.push(pair.pass(pair.a))
  }
  return { pair, old, answers }
}
const assertDropped = (t: Test, pair: IkePair, end: End, letters: readonly Letter[]): void => {
  const before = JSON.stringify(snapshot(end))
  for (const letter of letters) {
    pair.give(letter)
    t.equal(pair.wire.length, 0)
  }
  t.equal(JSON.stringify(snapshot(end)), before)
}

t.test('a repeated request gets the same octets again, and is done once', t => {
  const { pair, old, answers } = used()
  const before = JSON.stringify(snapshot(pair.b))
  for (let i = 0; i < 3; i++) {
    pair.give(old[1]!)
    const again = pair.take(pair.a)
    t.strictSame(again.bytes, answers[1]!.bytes)
    pair.give(again)
  }
  t.equal(JSON.stringify(snapshot(pair.b)), before)
  pair.assertWhole(t, 3)
  t.end()
})

t.test('other content under a repeated ID gets the old answer and is not looked at', t => {
  const { pair, old, answers } = used()
  const { messageId } = old[1]!.header
  for (const exchange of [Informational, ExchangeType.CreateChildSa]) {
    pair.give(pair.forge(pair.a, { exchange, messageId }, [DELETE_IKE]))
    t.strictSame(pair.take(pair.a).bytes, answers[1]!.bytes)
  }
  pair.assertWhole(t, 3)
  t.end()
})

t.test('IDs before the last one, or beyond the next, are dropped', t => {
  const { pair, old } = used()
  const far = [4, 5, 6, 1000, 0x7fffffff, 0xffffffff].map(messageId =>
    pair.forge(pair.a, { exchange: Informational, messageId }, [DELETE_IKE]),
  )
  assertDropped(t, pair, pair.b, [old[0]!, ...far.slice(1)])
  pair.assertWhole(t, 3)
  t.end()
})

t.test('an answer counts once, and its ID must be the awaited one', t => {
  const { pair, answers } = used()
  assertDropped(t, pair, pair.a, answers)
  pair.rekeyChild(pair.a)
  const { header } = pair.take(pair.b)
  const facts = { exchange: header.exchange, response: true }
  const others = [0, header.messageId - 1, header.messageId + 1, 0xffffffff].map(messageId =>
    pair.forge(pair.b, { ...facts, messageId }, [status(NotifyType.NoProposalChosen)]),
  )
  assertDropped(t, pair, pair.a, others)
  t.equal(pair.a.child.state, 'rekeying', 'it still waits')
  t.end()
})

t.test('a message of our own that comes back to us is dropped', t => {
  const { pair } = used()
  pair.rekeyChild(pair.a)
  const own = pair.take(pair.b)
  const before = JSON.stringify(snapshot(pair.a))
  pair.run(() => pair.a.sa.handleMessage(own.bytes, pair.a.path, pair.now))
  t.equal(JSON.stringify(snapshot(pair.a)), before)
  // With the flag turned round it is the other direction's key that it would have to fit.
  const turned = own.bytes.slice()
  turned[19]! ^= 0x08
  pair.run(() => pair.a.sa.handleMessage(turned, pair.a.path, pair.now))
  t.equal(JSON.stringify(snapshot(pair.a)), before)
  t.equal(pair.wire.length, 0)
  t.end()
})

t.test('every flipped bit of a protected message makes it nobody’s', t => {
  const pair = IkePair.established()
  pair.run(() => pair.a.sa.probe(pair.now))
  const probe = pair.take(pair.b)
  const before = JSON.stringify(snapshot(pair.b))
  for (let bit = 0; bit < probe.bytes.length * 8; bit++) {
    const bytes = probe.bytes.slice()
    bytes[bit >> 3]! ^= 1 << (bit & 7)
    pair.run(() => pair.b.sa.handleMessage(bytes, pair.b.path, pair.now))
    if (pair.wire.length > 0) t.fail(`bit ${bit} was taken`)
    pair.wire.length = 0
  }
  for (let length = 0; length < probe.bytes.length; length++)
    pair.run(() => pair.b.sa.handleMessage(probe.bytes.subarray(0, length), pair.b.path, pair.now))
  t.equal(JSON.stringify(snapshot(pair.b)), before)
  pair.give(probe)
  t.equal(pair.wire.length, 1, 'as it was it is answered')
  t.end()
})

t.test('a message whose protected part cannot be read is answered, and changes nothing', t => {
  const pair = IkePair.established()
  const chains = [
    { first: 41, bytes: Uint8Array.of(0, 0, 0, 3) },
    { first: 41, bytes: Uint8Array.of(41, 0, 0, 4) },
    { first: 42, bytes: Uint8Array.of(0, 0, 0, 200, 1, 0, 0, 0) },
    { first: 33, bytes: Uint8Array.of(0, 0, 0, 4) },
  ]
  for (const chain of chains) {
    for (const exchange of [Informational, ExchangeType.CreateChildSa]) {
      const answer = pair.ask(pair.a, exchange, [], chain)
      t.match(answer, [{ kind: 'notify', type: NotifyType.InvalidSyntax }])
    }
  }
  const critical = { first: 200, bytes: Uint8Array.of(0, 0x80, 0, 5, 1) }
  t.match(pair.ask(pair.a, Informational, [], critical), [
    { kind: 'notify', type: NotifyType.UnsupportedCriticalPayload, data: Uint8Array.of(200) },
  ])
  const harmless = { first: 200, bytes: Uint8Array.of(0, 0, 0, 5, 1) }
  t.same(pair.ask(pair.a, Informational, [], harmless), [])
  pair.assertWhole(t)
  pair.assertAlive(t)
  t.end()
})
