/** Repeated authentication: when an SA asks for it (RFC 7296 §2.8.3, RFC 4478). */
import t from 'tap'
import { parsePolicy } from '../../lib/policy/options.ts'
import { u32Data } from '../../lib/wire/notify.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { ExchangeType, NotifyType } from '../../lib/wire/registry.ts'
import { IkePair } from '../harness/ike-pair.ts'

const lifetimeOf = (seconds: number): Payload => ({
  kind: 'notify',
  protocol: 0,
  spi: new Uint8Array(0),
  type: NotifyType.AuthLifetime,
  data: u32Data(seconds),
})
const announce = (pair: IkePair, seconds: number): void => {
  t.same(pair.ask(pair.b, ExchangeType.Informational, [lifetimeOf(seconds)]), [])
}
/** Virtual time until `a` wants to authenticate anew. */
const waits = (pair: IkePair, most = 100_000_000): number => {
  const from = pair.now
  while (pair.a.count('reauthenticate') === 0 && pair.now - from < most) pair.advance(500)
  return pair.now - from
}

t.test('the responder announces its limit in IKE_AUTH, the initiator is sooner', t => {
  const pair = new IkePair({}, { authLifetime: 3_600_000 })
  pair.initiate()
  pair.pass(pair.b)
  pair.pass(pair.a)
  pair.pass(pair.b)
  t.match(
    pair.read(pair.wire[0]!).filter(({ kind }) => kind === 'notify'),
    [{ type: NotifyType.AuthLifetime, protocol: 0, data: u32Data(3600) }],
  )
  pair.settle()
  const waited = waits(pair)
  t.ok(waited >= 0.8 * 3_600_000 && waited <= 0.9 * 3_600_000 + 500, `${waited} ms`)
  t.end()
})

t.test('an INFORMATIONAL may announce it at any time, and change it', t => {
  const pair = IkePair.established()
  announce(pair, 3600)
  pair.advance(60_000)
  announce(pair, 1000)
  const waited = waits(pair)
  t.ok(waited >= 800_000 && waited <= 900_500, `${waited} ms`)
  t.end()
})

t.test('whatever is announced, an SA lives for a minute first', t => {
  for (const seconds of [0, 1, 30, 60]) {
    const pair = IkePair.established()
    announce(pair, seconds)
    const waited = waits(pair)
    t.ok(waited >= 59_000 && waited <= 60_500, `${seconds} s: ${waited} ms`)
  }
  const old = IkePair.established()
  old.advance(100_000)
  announce(old, 0)
  t.ok(waits(old) <= 500, 'zero means now, for one that is older')
  t.end()
})

t.test('our own interval counts when it is shorter, the announcement does not prolong it', t => {
  for (const seconds of [3600, 0xffffffff]) {
    const pair = IkePair.established({ reauthInterval: 300_000 })
    announce(pair, seconds)
    t.ok(Math.abs(waits(pair) - 300_000) <= 500)
  }
  t.end()
})

t.test('an announcement of more than a timer holds is taken for the longest', t => {
  const pair = IkePair.established({ ikeLifetime: 2 ** 31 - 1, childLifetime: 2 ** 31 - 1 })
  announce(pair, 0xffffffff)
  t.equal(pair.a.count('reauthenticate'), 0)
  const deadline = pair.a.sa.nextTimeout() - pair.now
  t.ok(deadline > 0.79 * 2 ** 31 && deadline < 2 ** 31, `${deadline} ms`)
  t.end()
})

t.test('one that cannot be read, or from who was the initiator, changes nothing', t => {
  const pair = IkePair.established()
  const odd = { ...lifetimeOf(0), data: Uint8Array.of(0, 0) } as Payload
  t.same(pair.ask(pair.b, ExchangeType.Informational, [odd]), [])
  t.same(pair.ask(pair.a, ExchangeType.Informational, [lifetimeOf(0)]), [])
  pair.advance(200_000)
  t.equal(pair.a.count('reauthenticate') + pair.b.count('reauthenticate'), 0)
  t.end()
})

t.test('a rekey by either end neither prolongs it nor changes who does it', t => {
  for (const rekeyer of ['a', 'b'] as const) {
    const pair = IkePair.established({}, { authLifetime: 300_000 })
    pair.advance(100_000)
    pair.rekeyIke(pair[rekeyer])
    pair.settle()
    announce(pair, 1000)
    pair.advance(199_000)
    t.equal(pair.a.sa.state, 'established')
    pair.advance(2_000)
    pair.assertGone(t)
    t.equal(pair.a.count('reauthenticate'), 0)
  }
  t.end()
})

t.test('the responder deletes an SA whose peer has not authenticated anew in time', t => {
  const pair = IkePair.established({}, { authLifetime: 300_000 })
  pair.advance(299_000)
  t.equal(pair.a.count('reauthenticate'), 1)
  t.equal(pair.b.sa.state, 'established')
  pair.advance(1_500)
  pair.assertGone(t)
  t.equal(pair.a.all('closed')[0]?.error, undefined)
  t.end()
})

t.test('authLifetime is 0 or at least five minutes, so that nobody is made to loop', t => {
  t.equal(parsePolicy({}).authLifetime, 0)
  t.equal(parsePolicy({ authLifetime: 300_000 }).authLifetime, 300_000)
  for (const given of [1, 299_999, -1, 1.5, 2 ** 31, '1h', NaN]) {
    t.throws(() => parsePolicy({ authLifetime: given }), { code: 'ERR_INVALID_ARG_VALUE' })
  }
  t.end()
})
