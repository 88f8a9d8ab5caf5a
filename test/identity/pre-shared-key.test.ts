/** Pre-shared keys: whose key is looked up, what it proves, and errors that do not tell it. */
import t from 'tap'
import { parseIdentity, type Identity } from '../../lib/identity/identity.ts'
import { parsePsk } from '../../lib/identity/pre-shared-key.ts'

const id = (text: string): Identity => parseIdentity('id', text)
const keyOf = (table: unknown, identity: string): string | undefined => {
  const found = parsePsk(table)(id(identity))
  return typeof found === 'object' ? Buffer.from(found.secret.bytes).toString() : found
}
const isBound = (table: unknown, identity: string): boolean | undefined => {
  const found = parsePsk(table)(id(identity))
  return typeof found === 'object' && found.proof.kind === 'psk' ? found.proof.isBound : undefined
}

t.test('an entry is of one type of identity', t => {
  const table = { 'admin.test': 'of the administrator', '*': 'of everybody' }
  t.equal(keyOf(table, 'admin.test'), 'of the administrator')
  t.equal(keyOf(table, 'ADMIN.Test'), 'of the administrator')
  for (const other of ['email:admin.test', 'keyid:admin.test', 'CN=admin.test', 'other.test'])
    t.equal(keyOf(table, other), 'of everybody', other)
  t.equal(keyOf({ 'admin.test': 'x' }, 'email:admin.test'), undefined)
  t.equal(keyOf({ '10.0.0.1': 'x' }, 'fqdn:10.0.0.1'), undefined)
  t.equal(keyOf({ '::ffff:10.0.0.1': 'x' }, '10.0.0.1'), undefined)
  t.equal(keyOf({ 'CN=Admin, O=X': 'x' }, 'CN=admin,  O=x'), 'x')
  t.equal(keyOf({ 'CN=Admin, O=X': 'x' }, 'O=X, CN=Admin'), undefined)
  t.end()
})

t.test('names of properties of every object are in no table', t => {
  for (const name of ['constructor', '__proto__', 'toString', 'fqdn:constructor:abc'])
    t.equal(keyOf({ 'a.test': 'x' }, name), undefined, name)
  t.end()
})

t.test('an own entry goes before a name with a star, and that before the star', t => {
  const table = { '*': '1', '*.test': '2', 'a*.test': '3', 'a.test': '4', '*@test': '5' }
  t.equal(keyOf(table, 'a.test'), '4')
  t.equal(keyOf(table, 'b.test'), '2')
  t.equal(keyOf(table, 'aa.test'), '2', 'in their order')
  t.equal(keyOf(table, 'x@test'), '5')
  t.equal(keyOf(table, 'email:a.test'), '1')
  t.end()
})

t.test('what a key proves', t => {
  const table = { 'a.test': 'a', 'b.test': 'b', 'c.test': 'b', '*.d.test': 'd', '*': 'e' }
  t.equal(isBound(table, 'a.test'), true)
  t.equal(isBound(table, 'b.test'), false, 'who knows it can be c.test too')
  t.equal(isBound(table, 'x.d.test'), false)
  t.equal(isBound(table, 'x.test'), false)
  t.equal(isBound({ 'a.test': 'e', '*': Buffer.from('e') }, 'a.test'), false, 'everybody knows it')
  t.equal(isBound('one for all', 'a.test'), false)
  const proofs = ['a.test', 'b.test', 'c.test', 'x.d.test', 'x.test'].map(identity => {
    const found = parsePsk(table)(id(identity))
    return typeof found === 'object' ? JSON.stringify(found.proof) : ''
  })
  t.equal(new Set(proofs).size, 5, 'each entry is a proof of its own')
  t.notMatch(proofs.join(), /"e"/)
  t.end()
})

t.test('a function is asked', t => {
  t.equal(parsePsk(() => 'x')(id('a.test')), 'ask')
  t.end()
})

t.test('two entries for one identity are an error that names both', t => {
  for (const [a, b] of [
    ['a.test', 'A.TEST'],
    ['a.test', 'fqdn:a.test'],
    ['u@a.test', 'email:u@A.test'],
    ['CN=x', 'dn:cn=X'],
    ['keyid:abc', '@#616263'],
    ['*.a.test', '*.A.test'],
  ] as const)
    t.throws(() => parsePsk({ [a]: 'secret 1', [b]: 'secret 2' }), {
      message: `The option "psk['${b}']" must be the only entry for its identity. Received another entry for that identity, '${a}'`,
    })
  t.ok(parsePsk({ 'u@a.test': 'x', 'U@a.test': 'y' }))
  t.end()
})

t.test('errors name the entry and print no key', t => {
  const SECRET = 31337_31337
  for (const [given, name] of [
    [{ 'a.test': SECRET }, "psk['a.test']"],
    [{ 'a.test': BigInt(SECRET) }, "psk['a.test']"],
    [{ 'a.test': [SECRET] }, "psk['a.test'][0]"],
    [{ 'a.test': [] }, "psk['a.test']"],
    [{ 'a.test': { toString: () => `${SECRET}` } }, "psk['a.test']"],
    [{ 'a.test': '' }, "psk['a.test']"],
    [{ 'a.test': null }, "psk['a.test']"],
    [{ 'a.test': undefined }, "psk['a.test']"],
    [{ 'a.test.': `${SECRET}` }, "psk['a.test.']"],
    [[SECRET], 'psk[0]'],
    [Array.from({ length: 9 }, () => `${SECRET}`), 'psk'],
    [[[`${SECRET}`]], 'psk[0]'],
    [SECRET, 'psk'],
    [BigInt(SECRET), 'psk'],
    ['', 'psk'],
    [{}, 'psk'],
    [new Uint8Array(0), 'psk'],
  ] as const) {
    let message = ''
    try {
      parsePsk(given)
    } catch (error) {
      message = String(error)
      t.equal((error as { option: string }).option, name)
    }
    t.match(message, /^OptionError/)
    t.notMatch(message, /31337/)
  }
  t.end()
})

t.test('a table of 50,000 keys is looked into at once', t => {
  const count = 50_000
  const table = Object.fromEntries(
    Array.from({ length: count }, (_, i) => [`host-${i}.test`, `key of host ${i}`]),
  )
  const lookUp = parsePsk(table)
  const looked = (names: number): number => {
    const identities = Array.from({ length: 2000 }, (_, i) => id(`host-${(i * 7919) % names}.test`))
    const before = process.cpuUsage()
    for (const identity of identities) lookUp(identity)
    const { user, system } = process.cpuUsage(before)
    return user + system
  }
  looked(count)
  t.ok(looked(count) < 1_000_000, 'known ones')
  t.ok(looked(2 ** 31) < 1_000_000, 'unknown ones: less than 0.5 ms each')
  t.end()
})
