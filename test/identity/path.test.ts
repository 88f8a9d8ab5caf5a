/** Paths from a peer's certificate to a trust anchor: which are believed, which are not, and what looking costs. */
import t from 'tap'
import { fromHex } from '../../lib/base/bytes.ts'
import { Budget } from '../../lib/identity/budget.ts'
import type { Certificate } from '../../lib/identity/certificate.ts'
import { isFailure, type Failure } from '../../lib/identity/failure.ts'
import { buildPath, TrustAnchors, type Path, type PathOptions } from '../../lib/identity/path.ts'
import { ANY_POLICIES, type PolicyOptions } from '../../lib/identity/policies.ts'
import { signaturePolicy } from '../../lib/identity/signed.ts'
import {
  basicConstraints,
  ed25519Key,
  encodeCertificate,
  extendedKeyUsage,
  extension,
  Holder,
  inhibitAnyPolicy,
  keyUsage,
  makeRoot,
  nameConstraints,
  NOW,
  parsed,
  policies,
  policyMappings,
  p521Key,
  requireExplicitPolicy,
  rsaKey,
  subjectAltName,
  utcTime,
} from '../harness/x509.ts'

const DAY = 24 * 3600 * 1000
const IPSEC_IKE = '1.3.6.1.5.5.7.3.17'
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const ANY_PURPOSE = '2.5.29.37.0'

const build = (
  leaf: Holder | Certificate,
  root: Holder | readonly Holder[],
  intermediates: readonly Holder[] = [],
  options: Partial<PathOptions> = {},
  budget = new Budget(),
): Path | Failure =>
  buildPath(
    leaf instanceof Holder ? leaf.certificate : leaf,
    {
      anchors: new TrustAnchors([root].flat().map(({ certificate }) => certificate)),
      intermediates: intermediates.map(({ certificate }) => certificate),
      time: NOW,
      signatures: signaturePolicy('node'),
      purposes: [IPSEC_IKE],
      policies: ANY_POLICIES,
      isStrict: false,
      maximumIntermediates: 8,
      allowsPinned: false,
      ...options,
    },
    budget,
  )

/** `good`, or the code of the failure. */
const verdict = (...given: Parameters<typeof build>): string => {
  const result = build(...given)
  return isFailure(result) ? result.code : 'good'
}

const root = makeRoot()
const ca = root.issueCa('CN=CA')
const leaf = ca.issue('CN=host', [keyUsage(0)])

t.test('a chain is found in whatever order its certificates come', t => {
  const second = ca.issueCa('CN=Second')
  const third = second.issueCa('CN=Third')
  const end = third.issue('CN=end', [])
  const stranger = makeRoot('CN=Stranger').issueCa('CN=CA')
  const sets = [
    [ca, second, third],
    [third, second, ca],
    [second, stranger, third, ca, ca, leaf],
  ]
  for (const set of sets) {
    const path = build(end, root, set)
    t.same(
      isFailure(path) ? path.message : path.chain.map(({ subject }) => subject.attributes[0]!.text),
      ['end', 'Third', 'Second', 'CA', 'Root'],
    )
  }
  t.end()
})

t.test('an end entity directly below the anchor needs nothing else', t => {
  t.equal(verdict(root.issue('CN=host', []), root), 'good')
  t.end()
})

t.test('a failure names the certificate and what is wrong with it', t => {
  const expired = root.issueCa('CN=Old\u001b[2J CA', [], { notAfter: utcTime(NOW - DAY) })
  const result = build(expired.issue('CN=host', []), root, [expired])
  t.match(result, {
    code: 'EXPIRED',
    certificate: "'CN=Old\\u001b[2J CA'",
    message:
      "The certificate 'CN=Old\\u001b[2J CA' expired (notAfter 2026-05-31T00:00:00Z; our clock says 2026-06-01T00:00:00Z)",
  })
  t.end()
})

t.test('without a way to an anchor the issuer is unknown', t => {
  t.equal(verdict(leaf, root), 'UNKNOWN_ISSUER')
  t.equal(verdict(leaf, makeRoot('CN=Other'), [ca]), 'UNKNOWN_ISSUER')
  t.equal(verdict(leaf, [], [ca, root]), 'UNKNOWN_ISSUER')
  t.match(build(makeRoot('CN=Self'), root), { message: /self-signed/ })
  t.end()
})

t.test('an anchor of the same name and another key did not sign', t => {
  t.equal(verdict(leaf, makeRoot(), [ca]), 'BAD_SIGNATURE')
  t.equal(verdict(leaf, [makeRoot(), root], [ca]), 'good')
  t.end()
})

t.test('each signature counts', t => {
  const forged = new Holder('CN=CA', ed25519Key(), ca.certificate)
  t.equal(verdict(forged.issue('CN=host', []), root, [ca]), 'BAD_SIGNATURE', 'of the end entity')
  const selfMade = makeRoot('CN=Root').issueCa('CN=CA')
  t.equal(verdict(selfMade.issue('CN=host', []), root, [selfMade]), 'BAD_SIGNATURE', 'of the CA')
  t.end()
})

t.test('every certificate must be in date, the anchor too', t => {
  const before = { notBefore: utcTime(NOW + DAY) }
  const after = { notAfter: utcTime(NOW - DAY) }
  t.equal(verdict(ca.issue('CN=host', [], before), root, [ca]), 'NOT_YET_VALID')
  t.equal(verdict(ca.issue('CN=host', [], after), root, [ca]), 'EXPIRED')
  const old = makeRoot('CN=Root', [], after)
  t.equal(verdict(old.issue('CN=host', []), old), 'EXPIRED')
  const edge = { notBefore: utcTime(NOW), notAfter: utcTime(NOW) }
  t.equal(verdict(ca.issue('CN=host', [], edge), root, [ca]), 'good', 'both ends belong to it')
  t.equal(verdict(leaf, root, [ca], { time: NaN }), 'NOT_YET_VALID', 'a time that is none')
  t.end()
})

t.test('who is no CA issues nothing', t => {
  for (const [what, extensions, code] of [
    ['no basicConstraints', [keyUsage(0)], 'NOT_A_CA'],
    ['cA is false', [basicConstraints(false)], 'NOT_A_CA'],
    ['keyUsage without keyCertSign', [basicConstraints(true), keyUsage(0, 6)], 'KEY_USAGE'],
  ] as const) {
    const middle = root.issue('CN=Middle', extensions)
    t.equal(verdict(middle.issue('CN=host', []), root, [middle]), code, what)
    const anchor = new Holder(
      'CN=Anchor',
      middle.key,
      parsed(encodeCertificate({ subject: 'CN=Anchor', key: middle.key, extensions })),
    )
    t.equal(verdict(anchor.issue('CN=host', []), anchor), code, `${what}, at the anchor`)
  }
  const silent = root.issue('CN=Silent', [basicConstraints(true)])
  t.equal(verdict(silent.issue('CN=host', []), root, [silent]), 'good', 'keyUsage may be absent')
  t.end()
})

t.test('a certificate of version 1 is the end entity or the anchor, never between', t => {
  const old = { version: new Uint8Array(0), extensions: [] }
  const key = ed25519Key()
  const anchor = new Holder(
    'CN=V1',
    key,
    parsed(encodeCertificate({ subject: 'CN=V1', key, ...old })),
  )
  t.equal(verdict(anchor.issue('CN=host', [], old), anchor), 'good')
  const middle = root.issue('CN=V1', [], old)
  t.equal(verdict(middle.issue('CN=host', []), root, [middle]), 'NOT_A_CA')
  t.end()
})

t.test('a pathLength counts the CAs below, but for those that are issued to themselves', t => {
  const limited = root.issueCa('CN=Limited', [], {
    extensions: [basicConstraints(true, 0), keyUsage(5, 6)],
  })
  t.equal(verdict(limited.issue('CN=host', []), root, [limited]), 'good')
  const below = limited.issueCa('CN=Below')
  t.equal(verdict(below.issue('CN=host', []), root, [below, limited]), 'PATH_LENGTH')
  const again = limited.issueCa('CN=Limited')
  t.equal(verdict(again.issue('CN=host', []), root, [again, limited]), 'good', 'self-issued')
  const below2 = again.issueCa('CN=Below')
  t.equal(verdict(below2.issue('CN=host', []), root, [below2, again, limited]), 'PATH_LENGTH')
  t.equal(verdict(below, root, [limited]), 'good', 'a CA as end entity is no CA below')
  const strictRoot = makeRoot('CN=Strict', [], {
    extensions: [basicConstraints(true, 0), keyUsage(5, 6)],
  })
  const child = strictRoot.issueCa('CN=Child')
  t.equal(verdict(child.issue('CN=host', []), strictRoot, [child]), 'PATH_LENGTH', 'of the anchor')
  t.end()
})

t.test('a longer pathLength below a shorter one does not widen it', t => {
  const outer = root.issue('CN=Outer', [basicConstraints(true, 1), keyUsage(5)])
  const inner = outer.issue('CN=Inner', [basicConstraints(true, 7), keyUsage(5)])
  const third = inner.issueCa('CN=Third')
  t.equal(verdict(inner.issue('CN=host', []), root, [outer, inner]), 'good')
  t.equal(verdict(third.issue('CN=host', []), root, [outer, inner, third]), 'PATH_LENGTH')
  t.end()
})

t.test('unknown critical extensions are refused wherever they are, others passed over', t => {
  const critical = extension('1.2.3.4.5', fromHex('0500'), true)
  const harmless = extension('1.2.3.4.5', fromHex('0500'))
  t.equal(verdict(ca.issue('CN=host', [critical]), root, [ca]), 'CRITICAL_EXTENSION')
  t.equal(verdict(ca.issue('CN=host', [harmless]), root, [ca]), 'good')
  const middle = root.issueCa('CN=Middle', [critical])
  t.equal(verdict(middle.issue('CN=host', []), root, [middle]), 'CRITICAL_EXTENSION')
  const anchor = makeRoot('CN=Anchor', [critical])
  t.equal(verdict(anchor.issue('CN=host', []), anchor), 'CRITICAL_EXTENSION')
  t.end()
})

t.test(
  'extended key usage: IKE, any or none at the end entity, and no CA above narrows it away',
  t => {
    const withUsage = (...ids: string[]) => ca.issue('CN=host', [extendedKeyUsage(...ids)])
    t.equal(verdict(withUsage(IPSEC_IKE), root, [ca]), 'good')
    t.equal(verdict(withUsage(SERVER_AUTH, IPSEC_IKE), root, [ca]), 'good')
    t.equal(verdict(withUsage(ANY_PURPOSE), root, [ca]), 'good')
    t.equal(verdict(withUsage(SERVER_AUTH), root, [ca]), 'EXTENDED_KEY_USAGE')
    const tls = { purposes: [IPSEC_IKE, SERVER_AUTH] }
    t.equal(verdict(withUsage(SERVER_AUTH), root, [ca], tls), 'good', 'when asked for')
    const narrow = root.issueCa('CN=Narrow', [extendedKeyUsage(SERVER_AUTH)])
    const below = (...extensions: Uint8Array[]) => narrow.issue('CN=host', extensions)
    t.equal(verdict(below(), root, [narrow]), 'EXTENDED_KEY_USAGE')
    t.equal(verdict(below(extendedKeyUsage(IPSEC_IKE)), root, [narrow], tls), 'EXTENDED_KEY_USAGE')
    t.equal(verdict(below(extendedKeyUsage(SERVER_AUTH)), root, [narrow], tls), 'good')
    t.end()
  },
)

t.test('weak keys and algorithms are refused, at the end entity too', t => {
  const weak = rsaKey(1024)
  t.equal(verdict(ca.issue('CN=host', [], { key: weak }), root, [ca]), 'WEAK_KEY')
  const weakCa = root.issueCa('CN=Weak', [], { key: weak })
  t.equal(verdict(weakCa.issue('CN=host', []), root, [weakCa]), 'WEAK_KEY')
  const sha1Ca = root.issueCa('CN=SHA-1', [], { key: rsaKey(2048, 'sha1') })
  t.equal(verdict(sha1Ca.issue('CN=host', []), root, [sha1Ca]), 'WEAK_ALGORITHM')
  const strong = root.issueCa('CN=Strong', [], { key: rsaKey(2048) })
  t.equal(verdict(strong.issue('CN=host', [], { key: p521Key() }), root, [strong]), 'good')
  t.end()
})

t.test('serial numbers are positive and of 20 octets at most', t => {
  const withSerial = (hex: string) => ca.issue('CN=host', [], { serial: fromHex(hex) })
  t.equal(verdict(withSerial('020100'), root, [ca]), 'PROFILE', 'zero')
  t.equal(verdict(withSerial('0201ff'), root, [ca]), 'PROFILE', 'negative')
  t.equal(verdict(withSerial(`0215${'11'.repeat(21)}`), root, [ca]), 'PROFILE', '21 octets')
  t.equal(verdict(withSerial(`0214${'11'.repeat(20)}`), root, [ca]), 'good', '20 octets')
  const zero = makeRoot('CN=Zero', [], { serial: fromHex('020100') })
  t.equal(verdict(zero.issue('CN=host', []), zero), 'good', 'an anchor may have any')
  t.end()
})

t.test('who signs certificates by keyUsage but is no CA is refused as end entity too', t => {
  t.equal(verdict(ca.issue('CN=host', [keyUsage(0, 5)]), root, [ca]), 'KEY_USAGE')
  t.end()
})

t.test('an end entity without subject has a critical subjectAltName', t => {
  const named = subjectAltName(['dns:host.test'], true)
  t.equal(verdict(ca.issue('', [named]), root, [ca]), 'good')
  t.equal(verdict(ca.issue('', [subjectAltName(['dns:host.test'])]), root, [ca]), 'PROFILE')
  t.equal(verdict(ca.issue('', []), root, [ca]), 'PROFILE')
  t.end()
})

t.test('a trust anchor is nobody else’s end entity, unless pinned certificates are allowed', t => {
  const pinned = { allowsPinned: true }
  const self = new Holder(
    'CN=peer',
    ed25519Key(),
    parsed(encodeCertificate({ subject: 'CN=peer', extensions: [keyUsage(0)] })),
  )
  t.equal(verdict(root, root), 'UNKNOWN_ISSUER')
  t.equal(verdict(self, self), 'UNKNOWN_ISSUER')
  t.equal(verdict(self, self, [], pinned), 'good')
  t.equal(verdict(self, root, [], pinned), 'UNKNOWN_ISSUER', 'but only the ones listed')
  t.equal(verdict(self, self, [], { ...pinned, time: NOW + 1000 * DAY }), 'EXPIRED')
  t.equal(verdict(ca, [root, ca], [], pinned), 'good', 'one that others issued is below them')
  t.equal(verdict(ca, ca, [], pinned), 'UNKNOWN_ISSUER', 'and not pinned by being listed')
  t.end()
})

t.test(
  'names are compared without regard to case, white space and string type (RFC 5280 §7.1)',
  t => {
    const spaced = root.issue('CN=The  CA', [basicConstraints(true)])
    const end = spaced.issue('CN=host', [], { issuer: 'CN= the ca' })
    t.equal(verdict(end, root, [spaced]), 'good')
    const other = spaced.issue('CN=host', [], { issuer: 'CN=TheCA' })
    t.equal(verdict(other, root, [spaced]), 'UNKNOWN_ISSUER')
    t.end()
  },
)

// --- name constraints ---

const constrained = (
  constraints: Parameters<typeof nameConstraints>[0],
  names: readonly string[],
  subject = 'CN=host',
): string => {
  const limited = root.issueCa('CN=Limited', [nameConstraints(constraints)])
  const end = limited.issue(subject, names.length === 0 ? [] : [subjectAltName(names)])
  return verdict(end, root, [limited])
}

for (const [what, constraints, names, isGood] of [
  ['a DNS name below', { permitted: ['dns:example.test'] }, ['dns:a.b.example.test'], true],
  ['the DNS name itself', { permitted: ['dns:example.test'] }, ['dns:EXAMPLE.test'], true],
  ['a DNS name beside', { permitted: ['dns:example.test'] }, ['dns:badexample.test'], false],
  ['one of two DNS names', { permitted: ['dns:a.test'] }, ['dns:a.test', 'dns:b.test'], false],
  ['no DNS name', { permitted: ['dns:a.test'] }, [], true],
  ['an excluded DNS name', { excluded: ['dns:a.test'] }, ['dns:x.a.test'], false],
  ['the second excluded one', { excluded: ['dns:a.test', 'dns:b.test'] }, ['dns:b.test'], false],
  [
    'permitted and excluded',
    { permitted: ['dns:a.test'], excluded: ['dns:b.a.test'] },
    ['dns:b.a.test'],
    false,
  ],
  [
    'permitted beside excluded',
    { permitted: ['dns:a.test'], excluded: ['dns:b.a.test'] },
    ['dns:c.a.test'],
    true,
  ],
  ['an empty excluded name: all', { excluded: ['dns:'] }, ['dns:a.test'], false],
  ['a wildcard over an excluded name', { excluded: ['dns:b.a.test'] }, ['dns:*.a.test'], false],
  ['a wildcard beside an excluded name', { excluded: ['dns:b.a.test'] }, ['dns:*.c.test'], true],
  ['a wildcard wider than permitted', { permitted: ['dns:b.a.test'] }, ['dns:*.a.test'], false],
  ['a wildcard below permitted', { permitted: ['dns:a.test'] }, ['dns:*.a.test'], true],
  ['a name below a period in front', { permitted: ['dns:.a.test'] }, ['dns:c.B.a.test'], true],
  ['the name behind a period in front', { permitted: ['dns:.a.test'] }, ['dns:a.test'], false],
  ['a name beside a period in front', { permitted: ['dns:.a.test'] }, ['dns:xa.test'], false],
  ['an excluded one with a period', { excluded: ['dns:.a.test'] }, ['dns:b.a.test'], false],
  ['the name behind an excluded period', { excluded: ['dns:.a.test'] }, ['dns:a.test'], true],
  ['a wildcard below a period in front', { permitted: ['dns:.a.test'] }, ['dns:*.a.test'], true],
  ['a wildcard below an excluded period', { excluded: ['dns:.a.test'] }, ['dns:*.a.test'], false],
  ['two periods in front', { permitted: ['dns:..a.test'] }, ['dns:b.a.test'], false],
  ['a constraint that ends in a period', { excluded: ['dns:b.test.'] }, ['dns:a.test'], false],
  ['a constraint that is a wildcard', { excluded: ['dns:*.b.test'] }, ['dns:a.test'], false],
  ['a star within a label', { permitted: ['dns:a.test'] }, ['dns:f*.a.test'], false],
  ['an empty DNS name', { permitted: ['dns:'] }, ['dns:'], false],
  ['a DNS name with an empty label', { permitted: ['dns:a.test'] }, ['dns:x..a.test'], false],
  ['a DNS name that ends in a period', { excluded: ['dns:a.test'] }, ['dns:a.test.'], false],
  ['a DNS name with NUL', { permitted: ['dns:a.test'] }, ['dns:evil.test\u0000.a.test'], false],
  ['an address in the network', { permitted: ['ip:c0000200ffffff00'] }, ['ip:c0000207'], true],
  ['an address outside', { permitted: ['ip:c0000200ffffff00'] }, ['ip:c0000307'], false],
  ['an excluded address', { excluded: ['ip:c0000200ffffff00'] }, ['ip:c00002ff'], false],
  [
    'IPv6 where IPv4 is permitted',
    { permitted: ['ip:c0000200ffffff00'] },
    [`ip:${'20'.repeat(16)}`],
    false,
  ],
  [
    'IPv6 where IPv4 is excluded',
    { excluded: ['ip:c0000200ffffff00'] },
    [`ip:${'20'.repeat(16)}`],
    true,
  ],
  ['a mask that is no prefix', { permitted: ['ip:c0000200ff00ff00'] }, ['ip:c0000207'], false],
  [
    'an IPv4 address in IPv6 form where it is excluded',
    { excluded: ['ip:c0000200ffffff00'] },
    ['ip:00000000000000000000ffffc0000207'],
    false,
  ],
  [
    'an IPv4 address in IPv6 form where IPv4 is permitted',
    { permitted: ['ip:c0000200ffffff00'] },
    ['ip:00000000000000000000ffffc0000207'],
    false,
  ],
  [
    'an IPv4 address that is excluded in IPv6 form',
    { excluded: [`ip:00000000000000000000ffffc0000200${'f'.repeat(30)}00`] },
    ['ip:c0000207'],
    false,
  ],
  [
    'an IPv4 address where all of IPv6 is excluded',
    { excluded: [`ip:${'0'.repeat(64)}`] },
    ['ip:c0000207'],
    true,
  ],
  [
    'an excluded network of all IPv4',
    { excluded: ['ip:0000000000000000'] },
    ['ip:c0000207'],
    false,
  ],
  ['bits behind the mask', { permitted: ['ip:c0000201ffffff00'] }, ['ip:c0000207'], true],
  [
    'a mask that has a gap, excluded',
    { excluded: ['ip:c000020000ffffff'] },
    ['ip:0a000001'],
    false,
  ],
  ['the permitted mailbox', { permitted: ['email:a@b.test'] }, ['email:a@B.test'], true],
  ['another mailbox', { permitted: ['email:a@b.test'] }, ['email:c@b.test'], false],
  ['a mailbox in another case', { permitted: ['email:a@b.test'] }, ['email:A@b.test'], false],
  [
    'an excluded mailbox in another case',
    { excluded: ['email:a@b.test'] },
    ['email:A@b.test'],
    false,
  ],
  ['a mailbox on the host', { permitted: ['email:b.test'] }, ['email:a@b.test'], true],
  ['a mailbox below the host', { permitted: ['email:b.test'] }, ['email:a@c.b.test'], false],
  ['a mailbox in the domain', { permitted: ['email:.b.test'] }, ['email:a@c.b.test'], true],
  ['a mailbox on the domain itself', { permitted: ['email:.b.test'] }, ['email:a@b.test'], false],
  ['an e-mail address without @', { excluded: ['email:b.test'] }, ['email:b.test'], false],
  ['a mailbox with two @', { permitted: ['email:b.test'] }, ['email:x@y@b.test'], false],
  ['a mailbox with two @, excluded', { excluded: ['email:c.test'] }, ['email:x@y@b.test'], false],
  ['a mailbox that ends in @', { permitted: ['email:b.test'] }, ['email:x@b.test@'], false],
  ['a mailbox of nobody', { permitted: ['email:b.test'] }, ['email:@b.test'], false],
  ['a mailbox with a space', { permitted: ['email:b.test'] }, ['email:x y@b.test'], false],
  ['a mailbox with NUL', { permitted: ['email:b.test'] }, ['email:x\u0000y@b.test'], false],
  ['a mailbox with two periods', { permitted: ['email:b.test'] }, ['email:x..y@b.test'], false],
  ['a mailbox with a period in front', { permitted: ['email:b.test'] }, ['email:.x@b.test'], false],
  ['a mailbox in a list', { permitted: ['email:b.test'] }, ['email:<x@b.test>,y@b.test'], false],
  ['an @ in quotes', { permitted: ['email:b.test'] }, ['email:"x@y"@b.test'], true],
  ['quotes that do not end', { permitted: ['email:b.test'] }, ['email:"x"y"@b.test'], false],
  ['an excluded mailbox in quotes', { excluded: ['email:a@b.test'] }, ['email:"A"@b.test'], false],
  ['a mailbox at an address', { excluded: ['email:b.test'] }, ['email:a@[192.0.2.1]'], false],
  ['a constraint with two @', { excluded: ['email:x@y@b.test'] }, ['email:a@c.test'], false],
  ['a constraint that begins with @', { excluded: ['email:@b.test'] }, ['email:a@c.test'], false],
  ['a host in another case', { permitted: ['email:B.test'] }, ['email:a@b.TEST'], true],
  ['a domain excluded', { excluded: ['email:.b.test'] }, ['email:a@c.b.test'], false],
  ['a domain excluded, its host', { excluded: ['email:.b.test'] }, ['email:a@b.test'], true],
  ['a mailbox in UTF-8', { permitted: ['email:b.test'] }, ['mailbox:a@b.test'], false],
  [
    'a URI of the host',
    { permitted: ['uri:b.test'] },
    ['uri:https://u@b.test:1/x@evil.test'],
    true,
  ],
  [
    'a URI of another host',
    { permitted: ['uri:b.test'] },
    ['uri:https://b.test@evil.test/'],
    false,
  ],
  ['a URI in the domain', { permitted: ['uri:.b.test'] }, ['uri:https://c.b.test/'], true],
  ['a URI without host', { excluded: ['uri:b.test'] }, ['uri:urn:x'], false],
  ['a URI of an address', { excluded: ['uri:b.test'] }, ['uri:https://192.0.2.1/'], false],
  ['a URI of a number', { excluded: ['uri:b.test'] }, ['uri:https://0x7f000001/'], false],
  [
    'a URI with a backslash',
    { permitted: ['uri:b.test'] },
    ['uri:https://evil.test\\@b.test/'],
    false,
  ],
  ['a URI with two @', { permitted: ['uri:b.test'] }, ['uri:https://e@evil.test@b.test/'], false],
  ['a URI in brackets', { excluded: ['uri:b.test'] }, ['uri:https://[::1]/'], false],
  ['a directory name below', { permitted: ['dn:O=Good'] }, ['dn:O=good, CN=x'], false],
  ['a kind that nobody compares', { excluded: ['other:'] }, ['other:'], false],
  ['a kind that nobody compares, permitted', { permitted: ['rid:1.2.3'] }, ['rid:1.2.3'], false],
  ['a kind without constraints', { permitted: ['dns:a.test'] }, ['other:'], true],
] as const) {
  t.test(`name constraints: ${what}: ${isGood ? 'taken' : 'refused'}`, t => {
    t.equal(constrained(constraints, names), isGood ? 'good' : 'NAME_CONSTRAINTS')
    t.end()
  })
}

t.test('name constraints on directory names bind the subject and its alternatives', t => {
  const permitted = { permitted: ['dn:O=Good'] }
  t.equal(constrained(permitted, [], 'O=GOOD, CN=host'), 'good')
  t.equal(constrained(permitted, [], 'O=Bad, CN=host'), 'NAME_CONSTRAINTS')
  t.equal(constrained(permitted, ['dn:O=Bad'], 'O=Good, CN=host'), 'NAME_CONSTRAINTS')
  t.equal(constrained({ excluded: ['dn:O=Bad'] }, [], 'O=bad , CN=host'), 'NAME_CONSTRAINTS')
  t.end()
})

t.test(
  'directory names are compared as RFC 5280 7.1 says, whatever their case, spaces and signs',
  t => {
    const excluded = (name: string): Parameters<typeof nameConstraints>[0] => ({
      excluded: [`dn:O=${name}`],
    })
    for (const [name, other] of [
      ['Evil Ltd', 'EVIL  LTD'],
      ['Evil Ltd', ' Evil\u00a0Ltd '],
      ['Evil Ltd', 'Evil\u3000Ltd'],
      ['Evil', 'E\u200bvil'],
      ['Evil', 'Ev\u00adil\ufeff'],
      ['Evil', 'Evil\u0001'],
      ['Evil', '\uff25\uff36\uff29\uff2c'],
      ['Straße', 'STRASSE'],
      ['\u039f\u0394\u039f\u03a3', '\u03bf\u03b4\u03bf\u03c2'],
      ['\u00e9', 'E\u0301'],
    ] as const) {
      t.equal(constrained(excluded(name), [], `O=${other}, CN=host`), 'NAME_CONSTRAINTS', other)
    }
    t.equal(constrained(excluded('Evil Ltd'), [], 'O=EvilLtd, CN=host'), 'good', 'a space is one')
    t.end()
  },
)

t.test('an e-mail address in the subject counts too, whatever alternative names there are', t => {
  const permitted = { permitted: ['email:b.test'] }
  t.equal(constrained(permitted, [], 'E=a@evil.test, CN=host'), 'NAME_CONSTRAINTS')
  t.equal(constrained(permitted, [], 'E=a@b.test, CN=host'), 'good')
  const both = constrained(permitted, ['email:a@b.test'], 'E=a@evil.test, CN=host')
  t.equal(both, 'NAME_CONSTRAINTS')
  t.end()
})

t.test('name constraints of all CAs hold together, and of the anchor', t => {
  const outer = root.issueCa('CN=Outer', [nameConstraints({ permitted: ['dns:a.test'] })])
  const inner = outer.issueCa('CN=Inner', [nameConstraints({ permitted: ['dns:b.test'] })])
  for (const name of ['dns:a.test', 'dns:b.test']) {
    const end = inner.issue('CN=host', [subjectAltName([name])])
    t.equal(verdict(end, root, [outer, inner]), 'NAME_CONSTRAINTS', name)
  }
  const anchor = makeRoot('CN=Anchor', [nameConstraints({ excluded: ['dns:a.test'] })])
  t.equal(
    verdict(anchor.issue('CN=host', [subjectAltName(['dns:a.test'])]), anchor),
    'NAME_CONSTRAINTS',
  )
  t.end()
})

t.test(
  'a CA that issues to itself is not bound by its own constraints, its end entities are',
  t => {
    const limited = root.issueCa('CN=Limited', [nameConstraints({ excluded: ['dn:CN=Limited'] })])
    const again = limited.issueCa('CN=Limited')
    t.equal(verdict(again.issue('CN=host', []), root, [limited, again]), 'good')
    t.equal(verdict(limited.issue('CN=Limited', []), root, [limited]), 'NAME_CONSTRAINTS')
    t.end()
  },
)

// --- policies ---

const P1 = '1.3.6.1.4.1.99999.1'
const P2 = '1.3.6.1.4.1.99999.2'
const P3 = '1.3.6.1.4.1.99999.3'
const ANY = '2.5.29.32.0'
const wants = (...acceptable: string[]): Partial<PathOptions> => ({
  policies: {
    acceptable: new Set(acceptable),
    requireExplicit: true,
    inhibitMapping: false,
    inhibitAny: false,
  } satisfies PolicyOptions,
})

t.test('a policy must be in every certificate when one is asked for', t => {
  const withPolicy = root.issueCa('CN=P1', [policies(P1)])
  const end = withPolicy.issue('CN=host', [policies(P1)])
  t.equal(verdict(end, root, [withPolicy], wants(P1)), 'good')
  t.equal(verdict(end, root, [withPolicy], wants(ANY)), 'good')
  t.equal(verdict(end, root, [withPolicy], wants(P2)), 'POLICY')
  const other = withPolicy.issue('CN=host', [policies(P2)])
  t.equal(verdict(other, root, [withPolicy], wants(P2)), 'POLICY')
  t.equal(verdict(withPolicy.issue('CN=host', []), root, [withPolicy], wants(ANY)), 'POLICY')
  t.equal(verdict(leaf, root, [ca], wants(ANY)), 'POLICY')
  t.equal(verdict(other, root, [withPolicy]), 'good', 'nobody asks')
  t.end()
})

t.test('anyPolicy continues any policy, unless it is inhibited', t => {
  const any = root.issueCa('CN=Any', [policies(ANY)])
  t.equal(verdict(any.issue('CN=host', [policies(P2)]), root, [any], wants(P2)), 'good')
  const inhibiting = root.issueCa('CN=Inhibits', [policies(P1), inhibitAnyPolicy(0)])
  const end = inhibiting.issue('CN=host', [policies(ANY)])
  t.equal(verdict(end, root, [inhibiting], wants(P1)), 'POLICY')
  const free = root.issueCa('CN=Free', [policies(P1)])
  t.equal(verdict(free.issue('CN=host', [policies(ANY)]), root, [free], wants(P1)), 'good')
  t.end()
})

t.test('a mapping renames a policy for those below, and anyPolicy is not mapped', t => {
  const mapping = root.issueCa('CN=Maps', [policies(P1), policyMappings([P1, P2])])
  const end = (policy: string) => mapping.issue('CN=host', [policies(policy)])
  t.equal(verdict(end(P2), root, [mapping], wants(P1)), 'good')
  t.equal(verdict(end(P2), root, [mapping], wants(P2)), 'POLICY')
  t.equal(verdict(end(P1), root, [mapping], wants(P1)), 'POLICY')
  const inhibited = { policies: { ...wants(P1).policies!, inhibitMapping: true } }
  t.equal(verdict(end(P2), root, [mapping], inhibited), 'POLICY')
  for (const pair of [
    [ANY, P2],
    [P1, ANY],
  ] as const) {
    const wrong = root.issueCa('CN=Wrong', [policies(P1), policyMappings(pair)])
    t.equal(verdict(wrong.issue('CN=host', [policies(P2)]), root, [wrong]), 'POLICY')
  }
  t.end()
})

t.test('a CA can demand policies of those below', t => {
  const demanding = root.issueCa('CN=Demands', [policies(P1), requireExplicitPolicy(0)])
  t.equal(verdict(demanding.issue('CN=host', []), root, [demanding]), 'POLICY')
  t.equal(verdict(demanding.issue('CN=host', [policies(P3)]), root, [demanding]), 'POLICY')
  t.equal(verdict(demanding.issue('CN=host', [policies(P1)]), root, [demanding]), 'good')
  const later = root.issueCa('CN=Later', [requireExplicitPolicy(2)])
  t.equal(verdict(later.issue('CN=host', []), root, [later]), 'good', 'not yet in force')
  t.end()
})

t.test('mappings that multiply at each step do not multiply the work (CVE-2023-0464)', t => {
  const many = Array.from({ length: 30 }, (_, i) => `1.3.6.1.4.1.99999.9.${i}`)
  const all = many.flatMap(a => many.map(b => [a, b] as const))
  let holder = root
  const chain: Holder[] = []
  for (let i = 0; i < 8; i++) {
    holder = holder.issueCa(`CN=Step ${i}`, [policies(...many), policyMappings(...all)])
    chain.push(holder)
  }
  const end = holder.issue('CN=host', [policies(many[7]!)])
  t.equal(verdict(end, root, chain, wants(many[0]!)), 'good')
  t.equal(verdict(end, root, chain, wants(P1)), 'POLICY')
  t.end()
})

// --- work ---

t.test('two CAs that certify each other in a circle end the search at once', t => {
  const a = root.issueCa('CN=A')
  const b = a.issueCa('CN=B')
  const aByB = b.issueCa('CN=A', [], { key: a.key })
  const lost = makeRoot('CN=Lost')
  const budget = new Budget()
  t.equal(verdict(b.issue('CN=host', []), lost, [aByB, b], {}, budget), 'UNKNOWN_ISSUER')
  t.ok(budget.spent.steps <= 4, `${budget.spent.steps} steps`)
  t.equal(budget.spent.signatures, 0)
  t.equal(verdict(b.issue('CN=host', []), root, [aByB, b, a]), 'good', 'and the way out is found')
  t.end()
})

t.test(
  'many CAs of one name and different keys: no signature is verified that leads nowhere',
  t => {
    const key = ed25519Key()
    const same = Array.from({ length: 31 }, () => {
      const own = ed25519Key()
      const encoded = encodeCertificate({
        subject: 'CN=Same',
        key: own,
        signer: key,
        extensions: [basicConstraints(true)],
      })
      return new Holder('CN=Same', own, parsed(encoded))
    })
    const budget = new Budget()
    const end = same[0]!.issue('CN=host', [])
    t.equal(verdict(end, root, same, { maximumIntermediates: 8 }, budget), 'TOO_MUCH_WORK')
    t.equal(budget.spent.signatures, 0)
    t.ok(budget.spent.steps <= 2001, `${budget.spent.steps} steps`)
    t.end()
  },
)

t.test('a stranger’s certificates cost no more signatures than there are of them', t => {
  const forged = Array.from({ length: 31 }, (_, i) =>
    new Holder(root.name, ed25519Key(), root.certificate).issueCa('CN=Same', [], {
      serial: Uint8Array.of(2, 1, i + 1),
    }),
  )
  const budget = new Budget()
  t.equal(verdict(forged[0]!.issue('CN=host', []), root, forged, {}, budget), 'BAD_SIGNATURE')
  t.ok(budget.spent.signatures <= 31, `${budget.spent.signatures} signatures`)
  t.end()
})

t.test('keys that are slow to verify count for more', t => {
  const slow = makeRoot('CN=Slow', [], { key: p521Key() })
  const forger = new Holder(slow.name, p521Key(), slow.certificate)
  const forged = Array.from({ length: 31 }, () => forger.issueCa('CN=Same'))
  const budget = new Budget()
  t.equal(verdict(forged[0]!.issue('CN=host', []), slow, forged, {}, budget), 'TOO_MUCH_WORK')
  t.ok(budget.spent.signatures <= 16, `${budget.spent.signatures} signatures`)
  t.end()
})

t.test('names times constraints are counted too', t => {
  const count = 1000
  const limited = root.issueCa('CN=Limited', [
    nameConstraints({ excluded: Array.from({ length: count }, (_, i) => `dns:x${i}.test`) }),
  ])
  const names = Array.from({ length: count }, (_, i) => `dns:y${i}.test`)
  const budget = new Budget()
  const end = limited.issue('CN=host', [subjectAltName(names)])
  t.equal(verdict(end, root, [limited], {}, budget), 'TOO_MUCH_WORK')
  t.ok(budget.spent.comparisons <= 251_000, `${budget.spent.comparisons} comparisons`)
  t.end()
})

t.test('a path may have no more CAs than is allowed', t => {
  let holder = root
  const chain: Holder[] = []
  for (let i = 0; i < 9; i++) chain.push((holder = holder.issueCa(`CN=Step ${i}`)))
  t.equal(verdict(chain[7]!.issue('CN=host', []), root, chain), 'good', 'eight')
  t.equal(verdict(chain[8]!.issue('CN=host', []), root, chain), 'PATH_LENGTH', 'nine')
  t.end()
})
