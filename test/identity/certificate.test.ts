/** The parser of certificates: what is not exactly DER and RFC 5280 is none, and nothing makes it throw. */
import { X509Certificate } from 'node:crypto'
import t from 'tap'
import { concat, EMPTY, fromHex, toHex, utf8 } from '../../lib/base/bytes.ts'
import { contextTag, Tag } from '../../lib/base/der.ts'
import { der, octetString, oid, sequence } from '../../lib/base/der-writer.ts'
import { isMalformed, parseCertificate } from '../../lib/identity/certificate.ts'
import { formatName } from '../../lib/identity/name.ts'
import { Random } from '../harness/random.ts'
import {
  basicConstraints,
  crlDistributionPoint,
  ed25519Key,
  encodeCertificate,
  extendedKeyUsage,
  extension,
  generalizedTime,
  generalName,
  keyUsage,
  mutate,
  nameConstraints,
  namedBits,
  NOW,
  number,
  policies,
  policyMappings,
  requireExplicitPolicy,
  subjectAltName,
  type CertificateFacts,
} from '../harness/x509.ts'

const problemOf = (encoded: Uint8Array): string | undefined => {
  const parsed = parseCertificate(encoded)
  return isMalformed(parsed) ? parsed.problem : undefined
}
const problem = (facts: CertificateFacts): string | undefined => problemOf(encodeCertificate(facts))
const withExtension = (...extensions: Uint8Array[]): string | undefined => problem({ extensions })

const FULL: CertificateFacts = {
  subject: 'C=CH, O=Example, CN=host',
  issuer: 'C=CH, O=Example, CN=CA',
  extensions: [
    basicConstraints(true, 3),
    keyUsage(0, 5, 6),
    extendedKeyUsage('1.3.6.1.5.5.7.3.17'),
    subjectAltName([
      'dns:host.test',
      'ip:c0000201',
      'email:a@b.test',
      'uri:urn:x',
      'dn:CN=x',
      'rid:1.2.3',
      'other:',
    ]),
    nameConstraints({ permitted: ['dns:test'], excluded: ['ip:c0000200ffffff00'] }),
    policies('1.2.3', '2.5.29.32.0'),
    policyMappings(['1.2.3', '1.2.4']),
    requireExplicitPolicy(1),
    crlDistributionPoint(['uri:http://crl.test/']),
  ],
}

t.test('equal octets give one certificate, which later changes of them do not reach', t => {
  const encoded = encodeCertificate(FULL)
  const given = encoded.slice()
  const first = parseCertificate(given)
  given.fill(0)
  t.equal(parseCertificate(encoded), first)
  t.notOk(isMalformed(first))
  t.match(first, { bytes: encoded })
  const others = Array.from({ length: 200 }, (_, i) =>
    encodeCertificate({ ...FULL, subject: `CN=host ${i}` }),
  )
  for (const other of others) {
    t.notOk(isMalformed(parseCertificate(other)))
    parseCertificate(encoded)
  }
  t.equal(parseCertificate(encoded), first, 'what is used often stays')
  for (const other of others) parseCertificate(other)
  t.not(parseCertificate(encoded), first, 'what others have pushed out is read once more')
  t.end()
})

t.test('facts are those that node reads too', t => {
  const encoded = encodeCertificate(FULL)
  const parsed = parseCertificate(encoded)
  if (isMalformed(parsed)) throw new Error(parsed.problem)
  const node = new X509Certificate(encoded)
  t.equal(toHex(parsed.spki), toHex(node.publicKey.export({ format: 'der', type: 'spki' })))
  t.equal(parsed.notBefore, Date.parse(node.validFrom))
  t.equal(parsed.notAfter, Date.parse(node.validTo))
  t.equal(formatName(parsed.subject), "'C=CH, O=Example, CN=host'")
  t.match(parsed.extensions, {
    isCa: true,
    pathLength: 3,
    keyUsage: new Set([0, 5, 6]),
    extendedKeyUsage: ['1.3.6.1.5.5.7.3.17'],
    policies: ['1.2.3', '2.5.29.32.0'],
    policyMappings: [['1.2.3', '1.2.4']],
    requireExplicitPolicy: 1,
    unknownCritical: [],
  })
  t.equal(parsed.extensions.subjectAltNames.length, 7)
  t.end()
})

t.test('the whole is one DER sequence, with nothing behind', t => {
  const encoded = encodeCertificate({})
  t.equal(problemOf(encoded), undefined)
  t.ok(problemOf(concat(encoded, Uint8Array.of(0))), 'trailing octet')
  const body = encoded.subarray(4)
  t.ok(problemOf(concat(fromHex('3083'), Uint8Array.of(0, ...encoded.subarray(2)))), 'long length')
  t.ok(problemOf(concat(fromHex('3080'), body, fromHex('0000'))), 'indefinite length')
  t.ok(problemOf(sequence(body, der(Tag.Null))), 'another element')
  t.ok(problemOf(new Uint8Array(70_000)), 'too large')
  t.end()
})

t.test('versions are 1, left out, and 2 or 3', t => {
  const version = (value: number) => der(contextTag(0, true), number(value))
  t.equal(problem({ version: EMPTY }), undefined)
  t.equal(problem({ version: version(1) }), undefined)
  t.ok(problem({ version: version(0) }), 'a default written out')
  t.ok(problem({ version: version(3) }), 'version 4')
  t.ok(problem({ version: EMPTY, extensions: [basicConstraints(true)] }), 'extensions in version 1')
  t.ok(problem({ version: version(1), extensions: [basicConstraints(true)] }), 'and in version 2')
  t.end()
})

t.test('fields are what they must be', t => {
  t.ok(problem({ serial: fromHex('02020001') }), 'a serial that is not minimal')
  t.ok(problem({ serial: fromHex('0400') }), 'a serial that is no INTEGER')
  t.ok(problem({ innerAlgorithm: sequence(oid('1.3.101.113')) }), 'two algorithms')
  t.ok(problem({ issuer: '' }), 'no issuer')
  t.ok(problem({ notBefore: der(Tag.UtcTime, utf8('2601010000Z')) }), 'no seconds')
  t.ok(problem({ notBefore: der(Tag.UtcTime, utf8('260101000000+0100')) }), 'a time zone')
  t.equal(problem({ notBefore: generalizedTime(NOW) }), undefined)
  t.ok(problem({ trailer: der(Tag.Null) }), 'something behind the extensions')
  const { spki, algorithm, sign } = ed25519Key()
  const unusedBits = { spki, algorithm, sign: (octets: Uint8Array) => sign(octets).subarray(0, -1) }
  const encoded = encodeCertificate({ key: unusedBits })
  const at = encoded.length - 64
  t.equal(encoded[at], 0, 'where the number of unused bits is')
  encoded[at] = 1
  t.ok(problemOf(encoded), 'unused bits in the signature')
  t.end()
})

t.test('extensions come once each, and their flag in one form', t => {
  t.ok(withExtension(keyUsage(0), keyUsage(0)), 'twice')
  const harmless = extension('1.2.3', EMPTY)
  t.ok(withExtension(harmless, keyUsage(0), harmless), 'twice, unknown')
  const flagged = (flag: string) => sequence(oid('1.2.3'), fromHex(flag), octetString(EMPTY))
  t.equal(withExtension(flagged('0101ff')), undefined)
  t.ok(withExtension(flagged('010101')), 'BOOLEAN 01')
  t.ok(withExtension(flagged('010100')), 'FALSE written out')
  t.ok(problem({ trailer: der(contextTag(3, true), sequence()) }), 'none at all')
  t.end()
})

t.test('an extension that we know is read to its end', t => {
  const bad: readonly (readonly [string, string, Uint8Array])[] = [
    ['keyUsage empty', '2.5.29.15', der(Tag.BitString, Uint8Array.of(0))],
    ['keyUsage with zeros behind', '2.5.29.15', fromHex('03020680')],
    ['basicConstraints with FALSE', '2.5.29.19', fromHex('3003010100')],
    ['pathLength without CA', '2.5.29.19', fromHex('3003020100')],
    ['pathLength negative', '2.5.29.19', fromHex('30060101ff0201ff')],
    ['something behind', '2.5.29.19', fromHex('30000500')],
    ['subjectAltName empty', '2.5.29.17', sequence()],
    ['an address of 5 octets', '2.5.29.17', sequence(generalName('ip:c000020100'))],
    ['a DNS name not in ASCII', '2.5.29.17', sequence(der(contextTag(2), fromHex('c3a9')))],
    ['a general name [9]', '2.5.29.17', sequence(der(contextTag(9), EMPTY))],
    ['extendedKeyUsage empty', '2.5.29.37', sequence()],
    ['nameConstraints empty', '2.5.29.30', sequence()],
    ['permittedSubtrees empty', '2.5.29.30', sequence(der(contextTag(0, true)))],
    [
      'a minimum',
      '2.5.29.30',
      sequence(
        der(contextTag(0, true), sequence(generalName('dns:a'), der(contextTag(0), fromHex('01')))),
      ),
    ],
    [
      'an address without mask',
      '2.5.29.30',
      sequence(der(contextTag(0, true), sequence(generalName('ip:c0000201')))),
    ],
    ['policies empty', '2.5.29.32', sequence()],
    ['a policy twice', '2.5.29.32', sequence(sequence(oid('1.2.3')), sequence(oid('1.2.3')))],
    ['mappings empty', '2.5.29.33', sequence()],
    ['policyConstraints empty', '2.5.29.36', sequence()],
    [
      'a key identifier’s issuer without serial',
      '2.5.29.35',
      sequence(der(contextTag(1, true), generalName('dns:a'))),
    ],
    ['distribution points empty', '2.5.29.31', sequence()],
    [
      'a distribution point of reasons',
      '2.5.29.31',
      sequence(sequence(namedBits([1], contextTag(1)))),
    ],
  ]
  for (const [what, id, value] of bad) t.ok(withExtension(extension(id, value)), what)
  const qualified = sequence(
    sequence(oid('1.2.3'), sequence(sequence(oid('1.2.4'), der(Tag.Null)))),
  )
  t.equal(withExtension(extension('2.5.29.32', qualified)), undefined)
  t.ok(withExtension(extension('2.5.29.32', qualified, true)), 'an unknown qualifier, critical')
  t.end()
})

t.test('names: malformed texts and unsorted sets are refused', t => {
  const attribute = (tag: number, hex: string) => sequence(oid('2.5.4.3'), der(tag, fromHex(hex)))
  const named = (...attributes: Uint8Array[]): string | undefined => {
    const value = sequence(der(Tag.Set, ...attributes))
    return withExtension(extension('2.5.29.17', sequence(der(contextTag(4, true), value))))
  }
  t.equal(named(attribute(Tag.Utf8String, 'c3a9')), undefined)
  t.ok(named(attribute(Tag.Utf8String, 'c328')), 'UTF-8')
  t.ok(named(attribute(Tag.PrintableString, '00')), 'PrintableString')
  t.ok(named(attribute(Tag.BmpString, '004100')), 'BMPString')
  t.ok(named(), 'an empty set')
  t.equal(named(attribute(Tag.Utf8String, '41'), attribute(Tag.Utf8String, '42')), undefined)
  t.ok(named(attribute(Tag.Utf8String, '42'), attribute(Tag.Utf8String, '41')), 'not sorted')
  t.ok(
    withExtension(
      extension(
        '2.5.29.17',
        sequence(
          der(
            contextTag(4, true),
            sequence(
              ...Array.from({ length: 65 }, () => der(Tag.Set, attribute(Tag.Utf8String, '41'))),
            ),
          ),
        ),
      ),
    ),
    'too long',
  )
  t.end()
})

t.test('every truncation is refused, without an exception', t => {
  const encoded = encodeCertificate(FULL)
  for (let length = 0; length < encoded.length; length++) {
    if (problemOf(encoded.subarray(0, length)) === undefined) t.fail(`${length} octets`)
  }
  t.pass(`${encoded.length} of them`)
  t.end()
})

t.test('no mutation makes it throw, and none is taken as the same certificate', t => {
  const random = new Random(7)
  const encoded = encodeCertificate(FULL)
  let taken = 0
  for (let i = 0; i < 20_000; i++) {
    let changed = encoded
    for (let times = random.integer(1, 3); times > 0; times--)
      changed = mutate(changed, below => random.integer(0, below - 1))
    const parsed = parseCertificate(changed)
    if (isMalformed(parsed)) continue
    taken++
    // DER: whoever reads the same facts has read the same octets.
    if (toHex(parsed.bytes) !== toHex(changed)) t.fail('other octets')
  }
  t.ok(taken > 100, `${taken} were certificates still`)
  t.end()
})

t.test('texts of a certificate are escaped where they are printed', t => {
  const encoded = encodeCertificate({ subject: 'CN=a\r\n\u001b[2Jb' })
  const parsed = parseCertificate(encoded)
  t.notOk(isMalformed(parsed))
  if (!isMalformed(parsed))
    t.match(formatName(parsed.subject), /^'CN=a\\u000d\\u000a\\u001b\[2Jb'$/)
  t.end()
})
