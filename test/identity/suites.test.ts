/** Public suites through our own validation. Their files are read where they lie. */
import { existsSync, readFileSync } from 'node:fs'
import t from 'tap'
import { contextTag } from '../../lib/base/der.ts'
import { der, octetString, sequence } from '../../lib/base/der-writer.ts'
import { FOLDER, notApplicable } from '../conformance/x509-known.ts'
import { runSuite } from '../conformance/x509-suite.ts'
import {
  encodeCrl,
  extension,
  keyUsage,
  makeRoot,
  NOW,
  subjectAltName,
  crlNumber,
  type Holder,
} from '../harness/x509.ts'

const isThere = existsSync(FOLDER)
const suffix = isThere ? '' : ' (skipped: the folder with public suites is not beside this one)'

/** Cases that we refuse although the suite would not; test/README.md says why. */
const REFUSED: Readonly<Record<string, readonly RegExp[]>> = {
  pkits: [/^4\.1\.[45] /, /^4\.14\.(22|24|25|28|29|30|33) /],
  boringssl_crl: [],
  boringssl_ocsp: [/^good_response_invalid_serial/],
}

for (const [name, count] of [
  ['pkits', 247],
  ['boringssl_crl', 66],
  ['boringssl_ocsp', 36],
] as const) {
  void t.test(
    `${name}: no false accept, and the known refusals alone${suffix}`,
    { skip: !isThere },
    t => {
      const outcomes = runSuite(JSON.parse(readFileSync(`${FOLDER}/${name}.json`, 'utf8')))
      t.equal(outcomes.length, count)
      for (const { id, verdict, got } of outcomes) {
        const isKnown = verdict === 'false reject' && REFUSED[name]!.some(known => known.test(id))
        if (verdict !== 'agree' && !isKnown) t.fail(`${verdict}: ${id}: ${got}`)
      }
      const refused = outcomes.filter(({ verdict }) => verdict === 'false reject')
      t.equal(refused.length, REFUSED[name]!.length === 2 ? 9 : REFUSED[name]!.length)
      t.end()
    },
  )
}

for (const [name, count, agree] of [
  ['limbo', 207, 179],
  ['boringssl-chains', 119, 85],
] as const) {
  void t.test(`${name}: no false accept that applies${suffix}`, { skip: !isThere }, t => {
    const outcomes = runSuite(JSON.parse(readFileSync(`${FOLDER}/${name}.json`, 'utf8')))
    t.equal(outcomes.length, count)
    const accepted = outcomes.filter(({ verdict }) => verdict === 'false accept')
    t.same(
      accepted.map(({ id }) => id).filter(id => notApplicable(id) === undefined),
      [],
    )
    t.ok(outcomes.filter(({ verdict }) => verdict === 'agree').length >= agree)
    t.end()
  })
}

t.test('chains in PEM are run with the strict profile, names, and lists', t => {
  const id = Uint8Array.of(1, 2, 3)
  const subjectKey = extension('2.5.29.14', octetString(id))
  const authorityKey = extension('2.5.29.35', sequence(der(contextTag(0), id)))
  const root = makeRoot('CN=Root', [subjectKey])
  const names = subjectAltName(['dns:host.test', 'dns:*.wild.test'])
  const leaf = root.issue('CN=host', [authorityKey, keyUsage(0), names])
  const lax = root.issue('CN=host', [keyUsage(0), names])
  const pem = (label: string, octets: Uint8Array): string =>
    `-----BEGIN ${label}-----\n${Buffer.from(octets).toString('base64')}\n-----END ${label}-----\n`
  const got = (end: Holder, name: string, facts: object = {}): string => {
    const testcases = [
      {
        id: 'x',
        trusted_certs: [pem('CERTIFICATE', root.certificate.bytes)],
        peer_certificate: pem('CERTIFICATE', end.certificate.bytes),
        validation_time: new Date(NOW).toISOString(),
        expected_result: 'SUCCESS',
        expected_peer_name: { kind: 'DNS', value: name },
        ...facts,
      },
    ]
    return runSuite({ testcases })[0]!.verdict
  }
  const list = (facts: Parameters<typeof encodeCrl>[1]) => ({
    crls: [pem('X509 CRL', encodeCrl(root, { extensions: [crlNumber(1)], ...facts }))],
  })
  t.equal(got(leaf, 'host.test'), 'agree')
  t.equal(got(leaf, 'a.wild.test'), 'agree')
  t.equal(got(leaf, 'other.test'), 'false reject')
  t.equal(got(lax, 'host.test'), 'false reject', 'no authorityKeyIdentifier')
  t.equal(got(leaf, 'host.test', { expected_result: 'FAILURE' }), 'false accept')
  t.equal(got(leaf, 'host.test', list({})), 'agree')
  t.equal(got(leaf, 'host.test', list({ revoked: [leaf.certificate] })), 'false reject')
  t.equal(got(leaf, 'host.test', list({ extensions: [] })), 'false reject', 'a list without number')
  t.end()
})
