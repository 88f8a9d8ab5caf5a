/** Principals: the same identity by the same proof, and nothing else. */
import fc from 'fast-check'
import t from 'tap'
import { utf8 } from '../../lib/base/bytes.ts'
import { identityKey, parseIdentity } from '../../lib/identity/identity.ts'
import {
  makePrincipal,
  publicKeyDigest,
  samePrincipal,
  type ProofFact,
} from '../../lib/identity/principal.ts'

const id = (text: string) => parseIdentity('id', text)
const table: ProofFact = { kind: 'psk', entry: identityKey(id('bob.test')), isBound: true }
const [one, two] = ['one', 'two'].map(text => publicKeyDigest('auto', utf8(text))) as [
  string,
  string,
]

t.test('one identity with different proofs is different principals', t => {
  const proofs: ProofFact[] = [
    { kind: 'psk', entry: undefined, isBound: false },
    { kind: 'psk', entry: '', isBound: true },
    table,
    { kind: 'psk', entry: 'y', isBound: true },
    { kind: 'certificate', publicKey: one },
    { kind: 'certificate', publicKey: two },
    { kind: 'rawKey', publicKey: one, isBound: true },
    { kind: 'eap', login: 'x' },
    { kind: 'eap', login: one },
  ]
  const principals = proofs.map(proof => makePrincipal(id('bob.test'), proof))
  t.equal(new Set(principals.map(({ key }) => key)).size, proofs.length)
  t.equal(new Set(principals.map(({ identityKey }) => identityKey)).size, 1)
  t.equal(new Set(principals.map(({ text }) => text)).size, 1)
  t.notOk(samePrincipal(principals[0]!, principals[2]!))
  t.strictSame(
    principals.map(({ isBound }) => isBound),
    [false, false, true, false, true, true, true, false, false],
  )
  t.end()
})

t.test('one proof with identities that are the same is one principal', t => {
  const make = (text: string) => makePrincipal(id(text), table)
  t.ok(samePrincipal(make('Bob.test'), make('bob.TEST')))
  t.ok(samePrincipal(make('CN=Bob'), make('cn= BOB ')))
  t.notOk(samePrincipal(make('bob.test'), make('email:bob.test')))
  t.notOk(samePrincipal(make('bob@test'), make('Bob@test')))
  t.strictSame(make('BOB.test').identity, id('bob.test'), 'in its canonical form')
  t.equal(make('BOB.test').text, 'bob.test')
  t.end()
})

t.test('a public key is named by its SHA-256, on either backend', t => {
  t.equal(
    publicKeyDigest('noble', utf8('abc')),
    'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
  )
  t.equal(publicKeyDigest('node', utf8('abc')), publicKeyDigest('noble', utf8('abc')))
  t.end()
})

t.test('no choice of texts makes two principals one', t => {
  const text = fc.string({ minLength: 1, maxLength: 12 })
  const fact: fc.Arbitrary<ProofFact> = fc.oneof(
    fc.record({
      kind: fc.constant('psk' as const),
      entry: fc.option(text, { nil: undefined }),
      isBound: fc.constant(true),
    }),
    fc.record({ kind: fc.constant('eap' as const), login: text }),
    fc.record({ kind: fc.constant('certificate' as const), publicKey: text }),
  )
  const seen = new Map<string, string>()
  fc.assert(
    fc.property(text, fact, (data, proof) => {
      const principal = makePrincipal({ type: 11, data: utf8(data) }, proof)
      const facts = JSON.stringify([data, proof])
      if ((seen.get(principal.key) ?? facts) !== facts) throw new Error(principal.key)
      seen.set(principal.key, facts)
    }),
    { numRuns: 3000 },
  )
  t.ok(seen.size > 1000)
  t.end()
})
