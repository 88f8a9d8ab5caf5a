/** What a peer has proved decides what it gets: keys, texts and addresses, in virtual time. */
import t from 'tap'
import { generateKeyPairSync } from 'node:crypto'
import { formatAddress } from '../../lib/base/address.ts'
import { Caller, sourceAddress, Target } from '../harness/attacker.ts'

const PSK = 'group key group key group'

const keyPair = () => {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    pub: publicKey.export({ type: 'spki', format: 'pem' }),
  }
}

/** What a server with these options sees of a client, as texts. */
const seen = (psk: unknown, client: Record<string, unknown>): string[] => {
  const target = new Target({ psk })
  new Caller(sourceAddress(1), client).talk(target)
  return target.sessions.map(({ peer }) => peer.principal.text)
}

t.test('an entry of a table is of one type of identity, and the text tells the type', t => {
  const table = { 'admin.test': 'the key of the administrator', '*': 'the key of everybody else' }
  t.strictSame(seen(table, { psk: table['admin.test'], localId: 'ADMIN.test' }), ['admin.test'])
  t.strictSame(seen(table, { psk: table['*'], localId: 'fqdn:admin.test' }), [])
  for (const localId of ['email:admin.test', 'keyid:admin.test'])
    t.strictSame(seen(table, { psk: table['*'], localId }), [localId])
  t.end()
})

t.test('texts of identities of different types differ', t => {
  for (const pair of [
    ['ipv4:10.0.0.1', 'fqdn:10.0.0.1'],
    ['@#abcd', 'fqdn:keyid:abcd'],
    ['dn:#3000', 'fqdn:dn:#3000'],
    ['::ffff:10.0.0.1', '10.0.0.1'],
    [`keyid:${'x'.repeat(400)}a`, `keyid:${'x'.repeat(400)}b`],
  ]) {
    const texts = pair.flatMap(localId => seen(PSK, { psk: PSK, localId }))
    t.equal(texts.length, 2)
    t.not(texts[0], texts[1])
  }
  t.end()
})

t.test(
  'an address in use is not given to who claims the name of its holder by another proof',
  t => {
    const [own, bobs] = [keyPair(), keyPair()]
    const target = new Target({
      key: own.key,
      peerKeys: { 'bob.test': bobs.pub },
      psk: PSK,
      localId: 'srv.test',
      addressPool: '10.8.0.0/24',
    })
    const common = { localId: 'bob.test', virtualAddress: true }
    const raw = { psk: undefined, key: bobs.key, peerKeys: own.pub, remoteId: 'srv.test' }
    new Caller(sourceAddress(1), { ...raw, ...common }, 99).talk(target)
    new Caller(sourceAddress(2), { psk: PSK, ...common }, 77, 1000, 40_777).talk(target)
    const [bob, other] = target.sessions.map(({ peer }) => peer)
    t.strictSame(bob?.assignedAddresses.map(formatAddress), ['10.8.0.1'])
    t.strictSame(other?.assignedAddresses.map(formatAddress), ['10.8.0.2'])
    t.equal(bob?.principal.isBound, true)
    t.equal(other?.principal.isBound, false)
    t.equal(bob?.principal.identityKey, other?.principal.identityKey)
    t.end()
  },
)

t.test('one identity that opens SA after SA leaves addresses to others', t => {
  const target = new Target({ addressPool: '10.8.0.1-10.8.0.6' })
  const ask = (i: number, localId: string): boolean => {
    const options = { localId, initialContact: false, virtualAddress: true }
    const client = new Caller(sourceAddress(i), options, 10 + i, target.now, 41_000)
    client.talk(target)
    target.now += 5
    return (client.sessions[0]?.peer.virtualAddresses.length ?? 0) > 0
  }
  const got = [1, 2, 3, 4, 5, 6].filter(i => ask(i, 'one.test'))
  t.equal(got.length, 3)
  t.ok(ask(7, 'other.test'))
  t.end()
})
