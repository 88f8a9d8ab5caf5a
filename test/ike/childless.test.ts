/** IKE SAs without a Child SA (RFC 6023), by wish and by refusal (RFC 7296 §1.2). */
import t from 'tap'
import { NotifyType } from '../../lib/wire/registry.ts'
import { IkePair, type Options } from '../harness/ike-pair.ts'

/** IKE_SA_INIT is over; the request of IKE_AUTH is under way to `b`, if `a` sends one. */
const started = (optionsOfA: Options, optionsOfB: Options, child = true): IkePair => {
  const pair = new IkePair(optionsOfA, optionsOfB)
  pair.initiate(child)
  pair.pass(pair.b)
  pair.pass(pair.a)
  return pair
}

t.test('with childless: force IKE_AUTH holds no Child SA, and one is made afterwards', t => {
  for (const responder of ['allow', 'force'] as const) {
    const pair = started({ childless: 'force' }, { childless: responder })
    const kinds = pair.read(pair.wire[0]!).map(({ kind }) => kind)
    for (const kind of ['sa', 'tsi', 'tsr'] as const) t.notOk(kinds.includes(kind), kind)
    pair.settle()
    pair.assertWhole(t, 0)
    pair.createChild(pair.a)
    pair.settle()
    pair.assertWhole(t, 1)
    pair.assertAlive(t, 1)
  }
  t.end()
})

t.test('an IKE SA that nobody needs a Child SA of lives and rekeys without one', t => {
  const pair = started({}, {}, false)
  pair.settle()
  pair.assertWhole(t, 0)
  pair.assertAlive(t, 0)
  pair.createChild(pair.b)
  pair.settle()
  pair.assertWhole(t, 1)
  t.end()
})

t.test('childless: force towards a peer that does not do it ends before IKE_AUTH', t => {
  const pair = started({ childless: 'force' }, { childless: 'never' })
  t.equal(pair.wire.length, 0, 'nothing of our identity is said')
  t.equal(pair.a.open.length, 0)
  pair.advance(60_000)
  t.match(pair.a.all('closed'), [{ error: { code: 'ERR_IKE_CHILDLESS' } }])
  pair.assertGone(t)
  t.end()
})

t.test(
  'childless: force at the responder refuses a Child SA in IKE_AUTH, and the IKE SA stands',
  t => {
    const pair = started({ childless: 'never' }, { childless: 'force' })
    pair.settle()
    t.match(pair.a.all('childFailed'), [
      { ticket: undefined, error: { code: 'NO_ADDITIONAL_SAS' } },
    ])
    pair.assertWhole(t, 0)
    pair.createChild(pair.a)
    pair.settle()
    pair.assertWhole(t, 1)
    t.end()
  },
)

t.test('childless: never at the responder refuses an IKE_AUTH without Child SA', t => {
  const pair = started({}, { childless: 'never' }, false)
  pair.settle()
  t.equal(pair.b.count('established'), 0)
  pair.advance(60_000)
  t.match(pair.a.all('closed'), [{ error: { code: 'INVALID_SYNTAX' } }])
  pair.assertGone(t)
  t.end()
})

t.test('a refused Child SA in IKE_AUTH leaves an IKE SA that works', t => {
  const pair = started({ mode: 'tunnel' }, { mode: 'tunnel', localTs: '10.0.0.0/8' })
  pair.settle()
  t.match(pair.a.all('childFailed'), [{ ticket: undefined, error: { code: 'TS_UNACCEPTABLE' } }])
  pair.assertWhole(t, 0)
  pair.b.reconfigure({ localTs: undefined })
  pair.createChild(pair.a)
  pair.settle()
  pair.assertWhole(t, 1)
  t.end()
})

t.test('CHILDLESS_IKEV2_SUPPORTED is said unless the policy is never', t => {
  for (const childless of ['allow', 'force', 'never'] as const) {
    const pair = new IkePair({ childless }, { childless })
    pair.initiate()
    const says = (bytes: Uint8Array): boolean => {
      const { ChildlessIkev2Supported: type } = NotifyType
      return bytes.some(
        (octet, i) =>
          octet === type >> 8 &&
          bytes[i + 1] === (type & 0xff) &&
          bytes[i - 1] === 0 &&
          bytes[i - 2] === 0,
      )
    }
    t.equal(says(pair.wire[0]!.bytes), childless !== 'never')
    pair.pass(pair.b)
    t.equal(says(pair.wire[0]!.bytes), childless !== 'never')
  }
  t.end()
})
