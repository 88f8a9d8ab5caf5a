/** From what a peer sends to a key that is its own: limits, profile of RFC 4945, and the identity it claims. */
import t from 'tap'
import { concat, utf8 } from '../../lib/base/bytes.ts'
import { hasIdentity } from '../../lib/identity/certificate-identity.ts'
import { isFailure } from '../../lib/identity/failure.ts'
import { parseIdentity, type Identity } from '../../lib/identity/identity.ts'
import { TrustAnchors } from '../../lib/identity/path.ts'
import {
  verifyPeerCertificate,
  type PeerCertificateOptions,
} from '../../lib/identity/peer-certificate.ts'
import { IdType } from '../../lib/wire/registry.ts'
import {
  dn,
  extendedKeyUsage,
  generalName,
  keyUsage,
  makeRoot,
  NOW,
  subjectAltName,
  type Holder,
} from '../harness/x509.ts'

const root = makeRoot()
const ca = root.issueCa('CN=CA')

const check = (
  holders: readonly (Holder | Uint8Array)[],
  options: Partial<PeerCertificateOptions> = {},
) =>
  verifyPeerCertificate(
    holders.map(holder => (holder instanceof Uint8Array ? holder : holder.certificate.bytes)),
    {
      anchors: new TrustAnchors([root.certificate]),
      intermediates: [],
      time: NOW,
      backend: 'node',
      identity: undefined,
      allowsTlsPurposes: false,
      allowsPinned: false,
      revocation: { policy: 'off', crls: [], responses: [], backend: 'node' },
      ...options,
    },
  )

const verdict = (...given: Parameters<typeof check>): string => {
  const result = check(...given)
  return isFailure(result) ? result.code : 'good'
}

t.test('the first certificate is the peer’s, the others help', t => {
  const host = ca.issue('CN=host', [])
  const result = check([host, ca])
  if (isFailure(result)) throw new Error(result.message)
  t.equal(result.key.kind, 'ed25519')
  t.equal(result.chain.length, 3)
  t.equal(verdict([ca, host]), 'KEY_USAGE', 'a CA that may not sign for itself')
  t.equal(verdict([host]), 'UNKNOWN_ISSUER')
  t.equal(verdict([host], { intermediates: [ca.certificate] }), 'good', 'ours help too')
  t.equal(verdict([]), 'UNKNOWN_ISSUER')
  t.equal(verdict([host, ca], { backend: 'noble' }), 'good')
  t.end()
})

t.test('malformed certificates beside the peer’s own do not matter', t => {
  const host = ca.issue('CN=host', [])
  t.equal(verdict([host, utf8('nonsense'), ca]), 'good')
  t.match(check([utf8('nonsense'), ca]), { code: 'MALFORMED', certificate: '' })
  t.end()
})

t.test('more than 32 certificates, or 64 KiB of them, are not read', t => {
  const host = ca.issue('CN=host', [])
  const many = (count: number) => [host, ca, ...Array.from({ length: count - 2 }, () => utf8('x'))]
  t.equal(verdict(many(32)), 'good')
  t.equal(verdict(many(33)), 'TOO_LARGE')
  t.equal(verdict([host, ca, new Uint8Array(66_000)]), 'TOO_LARGE')
  t.end()
})

t.test('keyUsage, where there is one, is for signatures (RFC 4945 §5.1.3.2)', t => {
  t.equal(verdict([ca.issue('CN=host', [keyUsage(0)]), ca]), 'good')
  t.equal(verdict([ca.issue('CN=host', [keyUsage(1, 4)]), ca]), 'good')
  t.equal(verdict([ca.issue('CN=host', [keyUsage(2)]), ca]), 'KEY_USAGE')
  t.end()
})

t.test('certificates for TLS alone are taken when that is asked for', t => {
  const host = ca.issue('CN=host', [extendedKeyUsage('1.3.6.1.5.5.7.3.1')])
  t.equal(verdict([host, ca]), 'EXTENDED_KEY_USAGE')
  t.equal(verdict([host, ca], { allowsTlsPurposes: true }), 'good')
  t.end()
})

t.test('the identity must be in the certificate', t => {
  const host = ca.issue('CN=host', [subjectAltName(['dns:host.test', 'ip:c0000201'])])
  const as = (identity: string) => check([host, ca], { identity: parseIdentity('id', identity) })
  t.notOk(isFailure(as('host.test')))
  t.match(as('other.test'), {
    code: 'IDENTITY',
    message:
      "The certificate 'CN=host' is not for the identity other.test, only for host.test, 192.0.2.1",
  })
  t.end()
})

const host = ca.issue('O=Example, CN=cn.test', [
  subjectAltName([
    'dns:Host.test',
    'dns:*.wild.test',
    'dns:*.test',
    'dns:192.0.2.7',
    'email:User@Host.test',
    'ip:c0000201',
    `ip:20010db8${'00'.repeat(11)}01`,
    'uri:urn:a:b',
  ]),
]).certificate

for (const [text, isBound] of [
  ['host.test', true],
  ['HOST.TEST', true],
  ['sub.host.test', false],
  ['cn.test', false],
  ['a.wild.test', false],
  ['User@host.test', true],
  ['User@HOST.test', true],
  ['user@host.test', false],
  ['other@host.test', false],
  ['fqdn:user@host.test', false],
  ['email:host.test', false],
  ['192.0.2.1', true],
  ['192.0.2.7', false],
  ['fqdn:192.0.2.1', false],
  ['2001:db8::1', true],
  ['2001:db8::2', false],
  ['keyid:host.test', false],
  ['fqdn:urn:a:b', false],
  ['O=Example, CN=cn.test', true],
  ['O=Example, CN=CN.test', false],
  ['CN=cn.test', false],
] as const) {
  t.test(`the identity ${text} is ${isBound ? '' : 'not '}bound by the certificate`, t => {
    t.equal(hasIdentity(host, parseIdentity('id', text)), isBound)
    t.end()
  })
}

t.test('identities of odd octets are bound by nothing', t => {
  const has = (type: number, data: Uint8Array): boolean => hasIdentity(host, { type, data })
  t.ok(has(IdType.DerGn, generalName('uri:urn:a:b')))
  t.notOk(has(IdType.DerGn, generalName('uri:urn:a:c')))
  t.notOk(has(IdType.Fqdn, new Uint8Array(0)), 'nothing')
  t.notOk(has(IdType.Fqdn, concat(utf8('host.test'), Uint8Array.of(0))), 'NUL')
  t.notOk(has(IdType.Fqdn, utf8('hoſt.test')), 'a letter that folds to s')
  t.notOk(has(IdType.Fqdn, utf8('host.test.')), 'a dot at the end')
  t.notOk(has(IdType.Fqdn, utf8('*.wild.test')), 'a wildcard is nobody')
  t.notOk(has(IdType.Ipv4, new Uint8Array(0)))
  t.notOk(has(IdType.DerDn, new Uint8Array(0)))
  t.notOk(has(200, utf8('host.test')))
  const nameless = ca.issue('', [subjectAltName(['dns:a.test'], true)]).certificate
  t.notOk(hasIdentity(nameless, { type: IdType.DerDn, data: dn('') }), 'an empty name is nobody’s')
  t.end()
})

t.test('wildcards count only when asked for, for one whole label, below two others', t => {
  const wild = (text: string): boolean =>
    hasIdentity(host, { type: IdType.Fqdn, data: utf8(text) } satisfies Identity, true)
  t.ok(wild('a.wild.test'))
  t.ok(wild('A.WILD.test'))
  t.notOk(wild('a.b.wild.test'))
  t.notOk(wild('wild.test'))
  t.notOk(wild('other.test'))
  t.end()
})
