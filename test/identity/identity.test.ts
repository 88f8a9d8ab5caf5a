/** Identities: one form in which they are compared, and a text that loses nothing. */
import fc from 'fast-check'
import t from 'tap'
import { concat, fromHex, toHex, utf8 } from '../../lib/base/bytes.ts'
import { der, oid, sequence } from '../../lib/base/der-writer.ts'
import { Tag } from '../../lib/base/der.ts'
import { OptionError } from '../../lib/base/errors.ts'
import {
  ANYONE,
  formatIdentity,
  IDENTITY_LIMIT,
  identityKey,
  identityMatches,
  identityProblem,
  identityText,
  parseIdentity,
  parsePattern,
  sameIdentity,
  type Identity,
} from '../../lib/identity/identity.ts'
import { IdType } from '../../lib/wire/registry.ts'

const id = (text: string): Identity => parseIdentity('id', text)
const of = (type: number, data: Uint8Array | string): Identity => ({
  type,
  data: typeof data === 'string' ? utf8(data) : data,
})

for (const [given, text] of [
  ['host.test', 'host.test'],
  ['HOST.Test', 'host.test'],
  ['@host.test', 'host.test'],
  ['fqdn:host.test', 'host.test'],
  ['DNS:host.test', 'host.test'],
  ['fqdn:10.0.0.1', 'fqdn:10.0.0.1'],
  ['fqdn:127.1', 'fqdn:127.1'],
  ['fqdn:0x7f000001', 'fqdn:0x7f000001'],
  ['fqdn:2001:db8::1', 'fqdn:2001:db8::1'],
  ['fqdn:user@host.test', 'fqdn:user@host.test'],
  ['fqdn:@host', 'fqdn:@host'],
  ['fqdn:@#abcd', 'fqdn:@#abcd'],
  ['fqdn:keyid:abcd', 'fqdn:keyid:abcd'],
  ['fqdn:dn:#3000', 'fqdn:dn:#3000'],
  ['fqdn:C=CH', 'fqdn:c=ch'],
  ['constructor:abc', 'fqdn:constructor:abc'],
  ['__proto__', '__proto__'],
  ['my router', 'my router'],
  ['#abc', 'fqdn:#23616263'],
  ['fqdn:#616263', 'abc'],
  ['fqdn:a  b', 'fqdn:#61202062'],
  ['bücher.test', 'bücher.test'],
  ['BÜCHER.test', 'bÜcher.test'],
  ['xn--bcher-kva.test', 'xn--bcher-kva.test'],
  ['user@host.test', 'user@host.test'],
  ['User@HOST.Test', 'User@host.test'],
  ['email:host.test', 'email:host.test'],
  ['email:HOST.test', 'email:HOST.test'],
  ['a@b@C', 'email:a@b@c'],
  ['"a@b"@C', 'email:"a@b"@c'],
  ['192.0.2.1', '192.0.2.1'],
  ['ipv4:192.0.2.1', '192.0.2.1'],
  ['2001:DB8:0::1', '2001:db8::1'],
  ['::ffff:192.0.2.1', '::ffff:c000:201'],
  ['@#abcd', 'keyid:#abcd'],
  ['@#61626364', 'keyid:abcd'],
  ['keyid:abcd', 'keyid:abcd'],
  ['keyid:Router 7', 'keyid:Router 7'],
  ['keyid:192.0.2.1', 'keyid:192.0.2.1'],
  ['keyid:#00', 'keyid:#00'],
  ['gn:#82034142 43', 'gn:#8203616263'],
  ['C=CH, O=Example, CN=Host', 'dn:C=ch, O=example, CN=host'],
  ['dn:cn = Host ,o=X', 'dn:CN=host, O=x'],
  ['C=CH/O=Example', 'dn:C=ch, O=example'],
  ['CN=a\\, b\\=c', 'dn:CN=a\\, b\\=c'],
  ['CN=x+OU=y', 'dn:CN=x+OU=y'],
  ['OU=y+CN=x', 'dn:CN=x+OU=y'],
  ['dn:1.2.3.4=x', 'dn:1.2.3.4=x'],
  ['dn:CN=#0500', 'dn:CN=#0500'],
  ['dn:CN=#0c0141', 'dn:CN=a'],
  // RFC 4518 §2.2 maps control characters to nothing.
  ['dn:CN=\\#x\\00', 'dn:CN=\\#x'],
  ['dn:#3000', 'dn:#3000'],
  ['E=User@Host.test', 'dn:E=user@host.test'],
] as const) {
  t.test(`${given} is ${text}`, t => {
    t.equal(identityText(id(given)), text)
    t.ok(sameIdentity(id(text), id(given)), 'and is read again')
    t.equal(identityText(id(text)), text)
    t.end()
  })
}

for (const given of [
  '',
  'host.test.',
  'user@host.test.',
  'fqdn:',
  'email:',
  'keyid:',
  '@#',
  '@#abc',
  'keyid:#abc',
  'fqdn:#ff',
  'a\0b',
  'a\r\nb',
  '*.test',
  '*',
  'ipv4:host',
  'ipv4:::1',
  'ipv6:192.0.2.1',
  'ipv6:::1%lo',
  'C=CH, X=y',
  'CN=',
  'CN=a,',
  'dn:',
  'dn:1.40.1=x',
  'dn:CN=#05',
  'dn:CN=\\ff',
  'dn:#0500',
  'gn:#00',
  'gn:',
  `keyid:${'x'.repeat(IDENTITY_LIMIT + 1)}`,
]) {
  t.test(`${JSON.stringify(given.slice(0, 20))} is no identity`, t => {
    t.throws(() => id(given), { name: 'OptionError', option: 'id' })
    t.end()
  })
}

t.test('an identity is a text', t => {
  for (const given of [undefined, null, 1, 1n, Symbol('x'), {}, [], () => 'x', new Uint8Array(4)])
    t.throws(() => parseIdentity('id', given), OptionError)
  t.end()
})

for (const [type, data, problem] of [
  [IdType.Ipv4, new Uint8Array(5), 'is an IPv4 address of 5 octets'],
  [IdType.Ipv4, new Uint8Array(16), 'is an IPv4 address of 16 octets'],
  [IdType.Ipv6, new Uint8Array(4), 'is an IPv6 address of 4 octets'],
  [IdType.Fqdn, '', 'is empty'],
  [IdType.KeyId, '', 'is empty'],
  [IdType.Fqdn, 'host.test.', 'ends with a dot'],
  [IdType.Rfc822, 'user@host.test.', 'ends with a dot'],
  [IdType.Fqdn, 'admin.test\0', 'holds a control character'],
  [IdType.Fqdn, 'admin.test\n', 'holds a control character'],
  [IdType.Fqdn, Uint8Array.of(0xff), 'is not UTF-8'],
  [IdType.Fqdn, Uint8Array.of(0xc1, 0xa1), 'is not UTF-8'],
  [IdType.Fqdn, '*', "holds '*', which stands for any text"],
  [IdType.Rfc822, '*@host.test', "holds '*', which stands for any text"],
  [IdType.DerDn, '', 'is empty'],
  [IdType.DerDn, fromHex('300030'), 'is not proper DER'],
  [IdType.DerDn, fromHex('3080'), 'is not proper DER'],
  [IdType.DerGn, fromHex('9900'), 'is not proper DER'],
  [IdType.DerGn, fromHex('870101'), 'is not proper DER'],
  [0, '*', 'is of the unknown type 0'],
  [12, 'x', 'is of the unknown type 12'],
  [IdType.KeyId, new Uint8Array(65_000), 'is longer than 8192 octets'],
] as const) {
  t.test(`an identity of type ${type} ${problem}: nobody is it`, t => {
    t.equal(identityProblem(of(type, data)), problem)
    t.match(formatIdentity(of(type, data)), /^[ -~]{1,260}$/)
    t.end()
  })
}

const attribute = (type: string, tag: number, value: Uint8Array): Uint8Array =>
  sequence(oid(type), der(tag, value))
const name = (...relativeNames: readonly Uint8Array[][]): Identity =>
  of(IdType.DerDn, sequence(...relativeNames.map(pairs => der(Tag.Set, ...pairs))))
const CN = '2.5.4.3'
const O = '2.5.4.10'

t.test('distinguished names are the same as RFC 5280 7.1 says', t => {
  const base = name([attribute(O, Tag.Utf8String, utf8('A b'))])
  for (const other of [
    name([attribute(O, Tag.PrintableString, utf8('a B'))]),
    name([attribute(O, Tag.Utf8String, utf8('  A \t  b '))]),
    name([attribute(O, Tag.BmpString, fromHex('004100200062'))]),
    name([attribute(O, Tag.Utf8String, utf8('Ａ b'))]),
  ]) {
    t.ok(sameIdentity(base, other))
    t.equal(identityText(other), 'dn:O=a b')
  }
  const pair = (a: string, b: string): Identity =>
    name([attribute(O, Tag.Utf8String, utf8(a))], [attribute(CN, Tag.Utf8String, utf8(b))])
  const swapped = name(
    [attribute(CN, Tag.Utf8String, utf8('b'))],
    [attribute(O, Tag.Utf8String, utf8('a'))],
  )
  const joined = name([
    attribute(CN, Tag.Utf8String, utf8('b')),
    attribute(O, Tag.Utf8String, utf8('a')),
  ])
  const nested = name([attribute(O, Tag.Utf8String, utf8('a, CN=b'))])
  const texts = [pair('a', 'b'), pair('b', 'a'), swapped, joined, nested].map(identityText)
  t.equal(new Set(texts).size, 5, texts.join(' | '))
  t.notOk(sameIdentity(base, name([attribute(O, Tag.Utf8String, utf8('Ab'))])), 'without the space')
  t.end()
})

t.test('types of attributes that are larger than any number here are told apart', t => {
  const huge = (digits: string): Identity =>
    name([attribute(`2.5.${digits}`, Tag.Utf8String, utf8('x'))])
  const [a, b] = [huge('9007199254740992001'), huge('9007199254740992002')]
  t.notOk(sameIdentity(a, b))
  t.not(identityText(a), identityText(b))
  t.ok(sameIdentity(id(identityText(a)), a))
  t.end()
})

t.test('general names are the same as RFC 5280 7.2 to 7.5 say', t => {
  const gn = (hex: string): Identity => of(IdType.DerGn, fromHex(hex))
  t.ok(sameIdentity(gn('820141'), gn('820161')), 'DNS')
  t.ok(sameIdentity(gn('8103614041'), gn('8103614061')), 'domain of a mail address')
  t.notOk(sameIdentity(gn('8103414061'), gn('8103614061')), 'mailbox')
  t.notOk(sameIdentity(gn('820161'), gn('860161')), 'name and URI')
  const dn = (text: string): Identity => of(IdType.DerGn, der(0xa4, id(text).data))
  t.ok(sameIdentity(dn('CN=A'), dn('CN=a')))
  t.end()
})

t.test('letters outside ASCII are folded into none', t => {
  for (const text of ['admin\u212a.test', 'ADMİN.test', 'admın.test', 'ﬀ.test', 'admin.test\u200b'])
    for (const other of ['admink.test', 'admin.test', 'ff.test']) {
      t.notOk(sameIdentity(of(IdType.Fqdn, text), id(other)))
      t.not(identityText(of(IdType.Fqdn, text)), other)
    }
  t.equal(identityText(of(IdType.Fqdn, 'a\u202eb')), 'fqdn:#61e280ae62', 'nothing turns the text')
  t.equal(
    identityText(of(IdType.Fqdn, '\ufeffadmin')),
    'fqdn:#efbbbf61646d696e',
    'a byte order mark',
  )
  t.end()
})

t.test('a long identity is whole in its text, and cut in logs', t => {
  const identity = of(IdType.KeyId, 'x'.repeat(8000))
  t.equal(identityText(identity).length, 8006)
  t.equal(formatIdentity(identity).length, 123)
  t.ok(sameIdentity(id(identityText(identity)), identity))
  t.end()
})

t.test('patterns', t => {
  const matches = (pattern: string, identity: Identity): boolean =>
    identityMatches(parsePattern('p', pattern), identity)
  t.ok(matches('*', of(IdType.KeyId, 'x')))
  t.ok(matches('*', id('CN=x')))
  t.ok(matches('fqdn:*', id('a.test')))
  t.notOk(matches('fqdn:*', id('email:a.test')), 'of one type')
  t.ok(matches('*.Test', id('A.test')))
  t.notOk(matches('*.test', id('email:a.test')))
  t.ok(matches('*@host.test', id('Any@HOST.test')))
  t.notOk(matches('User*@host.test', id('user1@host.test')))
  t.notOk(matches('CN=*', id('CN=x')), 'of names and mail addresses alone')
  t.notOk(matches('a*a', of(IdType.Fqdn, 'a')))
  t.equal(parsePattern('p', '*'), ANYONE)
  t.equal(formatIdentity(ANYONE), '*')
  t.equal(identityText(ANYONE), '*')
  t.equal(identityText(of(IdType.Fqdn, '*')), 'fqdn:*', 'another pattern')
  t.throws(() => parsePattern('p', '*.test.'), /ends with a dot/)
  t.end()
})

// --- properties ---

const octets = fc.uint8Array({ maxLength: 40 })
const anyText = fc.string({ unit: 'grapheme', maxLength: 30 })
const tricky = fc
  .array(
    fc.constantFrom(
      ...['a', 'B', '.', '@', '#', ':', '=', ',', '+', '/', '\\', ' ', '\0', '*', '1', '"', 'é'],
      ...[
        'fqdn:',
        'keyid:',
        'dn:',
        '10.0.0.1',
        '::1',
        'CN=',
        '\u200b',
        '\u202e',
        'K',
        '61',
        '\\61',
      ],
    ),
    { maxLength: 8 },
  )
  .map(parts => parts.join(''))
const value = fc.oneof(anyText, tricky)
const TAGS = [Tag.Utf8String, Tag.BmpString, Tag.TeletexString, Tag.Ia5String, Tag.OctetString]
const pairOf = fc
  .tuple(
    fc.constantFrom(CN, O, '2.5.4.6', '0.9.2342.19200300.100.1.25', '1.2.3.4', '2.999.1'),
    fc.constantFrom(...TAGS),
    value,
  )
  .map(([type, tag, text]) =>
    attribute(type, tag, tag === Tag.BmpString ? concat(...[...text].map(wide)) : utf8(text)),
  )
const wide = (character: string): Uint8Array => {
  const code = character.charCodeAt(0) & 0x7fff
  return Uint8Array.of(code >> 8, code & 0xff)
}
const distinguishedName = fc
  .array(fc.array(pairOf, { minLength: 1, maxLength: 2 }), { maxLength: 3 })
  .map(relativeNames =>
    name(...relativeNames.map(pairs => [...pairs].sort((a, b) => (toHex(a) < toHex(b) ? -1 : 1)))),
  )
const identity: fc.Arbitrary<Identity> = fc.oneof(
  fc.record({ type: fc.constantFrom(1, 2, 3, 5, 9, 10, 11, 12), data: octets }),
  fc.record({ type: fc.constantFrom(2, 3, 11), data: value.map(utf8) }),
  fc.record({ type: fc.constant(1), data: fc.uint8Array({ minLength: 4, maxLength: 4 }) }),
  fc.record({ type: fc.constant(5), data: fc.uint8Array({ minLength: 16, maxLength: 16 }) }),
  fc.record({
    type: fc.constant(10),
    data: tricky.map(text => der(0x82, utf8(text))),
  }),
  distinguishedName,
)
const runs = { numRuns: 3000 }

t.test('whoever can be a peer has a text from which the same identity is read', t => {
  let good = 0
  fc.assert(
    fc.property(identity, one => {
      const text = identityText(one)
      if (identityProblem(one) !== undefined) return
      good++
      const again = id(text)
      if (identityKey(again) !== identityKey(one)) throw new Error(`${text}: another key`)
      if (identityText(again) !== text) throw new Error(`${text}: another text`)
    }),
    runs,
  )
  t.ok(good > 1000, `${good} of them`)
  t.end()
})

t.test('text and key are the same for the same identity alone', t => {
  const byText = new Map<string, string>()
  const byKey = new Map<string, string>()
  fc.assert(
    fc.property(identity, one => {
      const [text, key] = [identityText(one), identityKey(one)]
      if ((byText.get(text) ?? key) !== key) throw new Error(`${text} is of two`)
      if ((byKey.get(key) ?? text) !== text) throw new Error(`${key} is of two`)
      byText.set(text, key)
      byKey.set(key, text)
    }),
    runs,
  )
  t.ok(byText.size > 1000)
  t.end()
})

t.test(
  'any text is an identity or an error of options, and changes of case alone are the same name',
  t => {
    fc.assert(
      fc.property(value, text => {
        let read: Identity
        try {
          read = id(text)
        } catch (error) {
          if (error instanceof OptionError) return
          throw error
        }
        const upper = text.replace(/[a-z]/g, letter => letter.toUpperCase())
        const other = of(read.type, utf8(upper))
        if (read.type === IdType.Fqdn && read.data.length === other.data.length)
          if (!sameIdentity(read, other)) throw new Error(upper)
        if (/[\0-\x1f]/.test(identityText(read))) throw new Error('control character')
      }),
      runs,
    )
    t.end()
  },
)
