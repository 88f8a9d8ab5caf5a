/** What lists of revoked certificates and OCSP responses say, and when they say nothing. */
import t from 'tap'
import { concat, fromHex, toHex, utf8 } from '../../lib/base/bytes.ts'
import { Tag } from '../../lib/base/der.ts'
import { der } from '../../lib/base/der-writer.ts'
import { isMalformed } from '../../lib/identity/certificate.ts'
import { parseCrl, revocationReason, type Crl } from '../../lib/identity/crl.ts'
import { isFailure } from '../../lib/identity/failure.ts'
import { parseOcspResponse, writeOcspRequest, type OcspResponse } from '../../lib/identity/ocsp.ts'
import { buildPath, TrustAnchors, type PathOptions } from '../../lib/identity/path.ts'
import { ANY_POLICIES } from '../../lib/identity/policies.ts'
import { checkRevocation, type RevocationPolicy } from '../../lib/identity/revocation.ts'
import { signaturePolicy } from '../../lib/identity/signed.ts'
import { Random } from '../harness/random.ts'
import {
  basicConstraints,
  crlDistributionPoint,
  crlNumber,
  crlReason,
  deltaCrl,
  ed25519Key,
  encodeCrl,
  encodeOcspResponse,
  extendedKeyUsage,
  extension,
  Holder,
  issuingDistributionPoint,
  keyUsage,
  makeRoot,
  mutate,
  NOW,
  utcTime,
  type CrlFacts,
  type OcspFacts,
} from '../harness/x509.ts'

const DAY = 24 * 3600 * 1000
const OCSP_SIGNING = '1.3.6.1.5.5.7.3.9'

const crlOf = (signer: Holder, facts: CrlFacts = {}): Crl => {
  const crl = parseCrl(encodeCrl(signer, facts))
  if (isMalformed(crl)) throw new Error(crl.problem)
  return crl
}
const isBadCrl = (signer: Holder, facts: CrlFacts): boolean =>
  isMalformed(parseCrl(encodeCrl(signer, facts)))

const responseOf = (leaf: Holder, issuer: Holder, facts: OcspFacts = {}): OcspResponse => {
  const response = parseOcspResponse(encodeOcspResponse(leaf.certificate, issuer, facts))
  if (isMalformed(response)) throw new Error(response.problem)
  return response
}

const root = makeRoot()
const leaf = root.issue('CN=host', [])

interface Given {
  crls?: readonly Crl[]
  responses?: readonly OcspResponse[]
  intermediates?: readonly Holder[]
  policy?: RevocationPolicy
  maximumAge?: number
  nonce?: Uint8Array
  time?: number
}

/** `good`, or the code of the failure. */
const verdict = (end: Holder, given: Given): string => {
  const options: PathOptions = {
    anchors: new TrustAnchors([root.certificate]),
    intermediates: (given.intermediates ?? []).map(({ certificate }) => certificate),
    time: given.time ?? NOW,
    signatures: signaturePolicy('node'),
    purposes: undefined,
    policies: ANY_POLICIES,
    isStrict: false,
    maximumIntermediates: 8,
    allowsPinned: false,
  }
  const path = buildPath(end.certificate, options)
  if (isFailure(path)) return path.code
  const { policy = 'require', crls = [], responses = [], maximumAge, nonce } = given
  const revocation = { policy, crls, responses, maximumAge, nonce, backend: 'node' } as const
  return checkRevocation(path, revocation, options)?.code ?? 'good'
}

t.test('a list says good or revoked; without one it depends on the policy', t => {
  const clean = crlOf(root)
  const revoking = crlOf(root, { revoked: [leaf.certificate] })
  t.equal(verdict(leaf, { crls: [clean] }), 'good')
  t.equal(verdict(leaf, {}), 'REVOCATION_UNKNOWN')
  t.equal(verdict(leaf, { policy: 'prefer' }), 'good')
  for (const policy of ['require', 'prefer'] as const)
    t.equal(verdict(leaf, { crls: [clean, revoking], policy }), 'REVOKED')
  t.equal(verdict(leaf, { crls: [revoking], policy: 'off' }), 'good')
  t.end()
})

t.test('the failure says who was revoked and why', t => {
  const options: PathOptions = {
    anchors: new TrustAnchors([root.certificate]),
    intermediates: [],
    time: NOW,
    signatures: signaturePolicy('node'),
    purposes: undefined,
    policies: ANY_POLICIES,
    isStrict: false,
    maximumIntermediates: 8,
    allowsPinned: false,
  }
  const path = buildPath(leaf.certificate, options)
  if (isFailure(path)) throw new Error(path.message)
  const tell = (crl: Crl): string | undefined =>
    checkRevocation(
      path,
      { policy: 'require', crls: [crl], responses: [], backend: 'node' },
      options,
    )?.message
  const listed = { revoked: [leaf.certificate], entryExtensions: [crlReason(1)] }
  t.equal(
    tell(crlOf(root, listed)),
    "The certificate 'CN=host' was revoked by its issuer (key compromise)",
  )
  t.match(tell(crlOf(root, { nextUpdate: NOW - 1000 })), /has expired/)
  t.end()
})

t.test('every certificate of the path is looked up, from the anchor on', t => {
  const ca = root.issueCa('CN=CA')
  const end = ca.issue('CN=host', [])
  const own = crlOf(ca)
  t.equal(verdict(end, { crls: [own], intermediates: [ca] }), 'REVOCATION_UNKNOWN')
  t.equal(verdict(end, { crls: [own, crlOf(root)], intermediates: [ca] }), 'good')
  const revoking = crlOf(root, { revoked: [ca.certificate] })
  t.equal(verdict(end, { crls: [own, revoking], intermediates: [ca] }), 'REVOKED')
  t.end()
})

t.test('a list out of date can still say revoked, never good', t => {
  for (const [what, facts, given] of [
    ['expired', { nextUpdate: NOW - 1000 }, {}],
    ['from the future', { thisUpdate: NOW + 1000 }, {}],
    ['without end', { nextUpdate: undefined }, {}],
    ['older than wanted', { thisUpdate: NOW - 8 * DAY }, { maximumAge: 7 * DAY }],
    ['at a time that is none', {}, { time: NaN }],
  ] as const) {
    const end = verdict(leaf, { crls: [crlOf(root, facts)], ...given })
    t.equal(end, what === 'at a time that is none' ? 'NOT_YET_VALID' : 'REVOCATION_UNKNOWN', what)
    if (what === 'at a time that is none') continue
    const revoking = crlOf(root, { ...facts, revoked: [leaf.certificate] })
    t.equal(verdict(leaf, { crls: [revoking], policy: 'prefer', ...given }), 'REVOKED', what)
  }
  const young = crlOf(root, { nextUpdate: undefined })
  t.equal(verdict(leaf, { crls: [young], maximumAge: 7 * DAY }), 'good')
  t.end()
})

t.test('a list counts only when the issuer signed it, with a key that may', t => {
  const forger = new Holder(root.name, ed25519Key(), root.certificate)
  const forged = { revoked: [leaf.certificate] }
  t.equal(verdict(leaf, { crls: [crlOf(forger)] }), 'REVOCATION_UNKNOWN')
  t.equal(verdict(leaf, { crls: [crlOf(forger, forged)], policy: 'prefer' }), 'good')
  t.equal(verdict(leaf, { crls: [crlOf(makeRoot('CN=Other'), forged)], policy: 'prefer' }), 'good')
  const ca = root.issue('CN=CA', [basicConstraints(true), keyUsage(5)])
  const end = ca.issue('CN=host', [])
  const crls = [crlOf(root), crlOf(ca)]
  t.equal(verdict(end, { crls, intermediates: [ca] }), 'REVOCATION_UNKNOWN', 'no cRLSign')
  t.end()
})

t.test(
  'another key of the same CA may sign its lists, when it is certified below the same anchor',
  t => {
    const ca = root.issueCa('CN=CA')
    const end = ca.issue('CN=host', [])
    const signer = root.issue('CN=CA', [keyUsage(6)])
    const stranger = makeRoot('CN=Stranger').issue('CN=CA', [keyUsage(6)])
    const crls = [crlOf(root), crlOf(signer)]
    t.equal(verdict(end, { crls, intermediates: [ca, signer] }), 'good')
    t.equal(verdict(end, { crls, intermediates: [ca] }), 'REVOCATION_UNKNOWN')
    const foreign = [crlOf(root), crlOf(stranger)]
    t.equal(verdict(end, { crls: foreign, intermediates: [ca, stranger] }), 'REVOCATION_UNKNOWN')
    const lookalike = root.issue('CN=ca', [keyUsage(6)])
    const alike = [crlOf(root), crlOf(lookalike, { issuer: 'CN=CA' })]
    t.equal(verdict(end, { crls: alike, intermediates: [ca, lookalike] }), 'REVOCATION_UNKNOWN')
    const withdrawn = [crlOf(root, { revoked: [signer.certificate] }), crlOf(signer)]
    t.equal(verdict(end, { crls: withdrawn, intermediates: [ca, signer] }), 'REVOCATION_UNKNOWN')
    t.end()
  },
)

t.test('a list that vouches for its own signer is nobody’s', t => {
  const ca = root.issueCa('CN=CA')
  const signer = ca.issue('CN=CA', [keyUsage(6)])
  const end = ca.issue('CN=host', [])
  const crls = [crlOf(root), crlOf(signer)]
  t.equal(verdict(end, { crls, intermediates: [ca, signer] }), 'REVOCATION_UNKNOWN')
  t.end()
})

t.test('the scope of a list must cover the certificate', t => {
  const scoped = (facts: Parameters<typeof issuingDistributionPoint>[0]): Crl =>
    crlOf(root, { extensions: [issuingDistributionPoint(facts)] })
  const ca = root.issueCa('CN=CA')
  t.equal(verdict(leaf, { crls: [scoped({ flags: [1] })] }), 'good', 'users')
  t.equal(verdict(ca, { crls: [scoped({ flags: [1] })] }), 'REVOCATION_UNKNOWN', 'users, for a CA')
  t.equal(verdict(ca, { crls: [scoped({ flags: [2] })] }), 'good', 'CAs')
  t.equal(
    verdict(leaf, { crls: [scoped({ flags: [2] })] }),
    'REVOCATION_UNKNOWN',
    'CAs, for a user',
  )
  t.equal(verdict(leaf, { crls: [scoped({ flags: [4] })] }), 'REVOCATION_UNKNOWN', 'indirect')
  t.equal(verdict(leaf, { crls: [scoped({ flags: [5] })] }), 'REVOCATION_UNKNOWN', 'attributes')
  t.equal(
    verdict(leaf, { crls: [scoped({ reasons: [1, 2, 3] })] }),
    'REVOCATION_UNKNOWN',
    'some reasons',
  )
  const halves = [scoped({ reasons: [1, 2, 3] }), scoped({ reasons: [4, 5, 6, 7, 8] })]
  t.equal(verdict(leaf, { crls: halves }), 'good', 'all reasons in two lists')
  t.ok(isBadCrl(root, { extensions: [issuingDistributionPoint({})] }), 'empty')
  t.ok(
    isBadCrl(root, { extensions: [issuingDistributionPoint({ flags: [1, 2] })] }),
    'nothing left',
  )
  t.end()
})

t.test(
  'another distribution point’s list cannot be put in place of the right one (RFC 4945 §5.1.3.13)',
  t => {
    const at = (name: string): Crl =>
      crlOf(root, { extensions: [issuingDistributionPoint({ name })] })
    const end = root.issue('CN=host', [
      crlDistributionPoint(['uri:http://a.test/', 'uri:http://b.test/']),
    ])
    t.equal(verdict(end, { crls: [at('uri:http://b.test/')] }), 'good')
    t.equal(verdict(end, { crls: [at('uri:http://c.test/')] }), 'REVOCATION_UNKNOWN')
    t.equal(verdict(end, { crls: [crlOf(root)] }), 'good', 'a list of everything')
    t.equal(
      verdict(leaf, { crls: [at('uri:http://a.test/')] }),
      'REVOCATION_UNKNOWN',
      'no point named',
    )
    t.equal(verdict(leaf, { crls: [at('dn:CN=root')] }), 'good', 'the issuer’s name is one')
    const elsewhere = root.issue('CN=host', [
      crlDistributionPoint(['uri:http://a.test/'], 'dn:CN=Other'),
    ])
    t.equal(verdict(elsewhere, { crls: [crlOf(root)] }), 'REVOCATION_UNKNOWN', 'signed by others')
    t.end()
  },
)

t.test('delta lists add to the complete one, and take back only what they continue', t => {
  const revoked = [leaf.certificate]
  const complete = crlOf(root, { extensions: [crlNumber(5)] })
  const delta = (base: number, number: number, facts: CrlFacts = {}): Crl =>
    crlOf(root, { extensions: [crlNumber(number), deltaCrl(base)], ...facts })
  t.equal(verdict(leaf, { crls: [delta(5, 6)] }), 'REVOCATION_UNKNOWN', 'alone it is not all')
  t.equal(verdict(leaf, { crls: [complete, delta(5, 6)] }), 'good')
  t.equal(verdict(leaf, { crls: [complete, delta(5, 6, { revoked })] }), 'REVOKED')
  const held = crlOf(root, { extensions: [crlNumber(5)], revoked, entryExtensions: [crlReason(6)] })
  const release = { revoked, entryExtensions: [crlReason(8)] }
  t.equal(verdict(leaf, { crls: [held, delta(5, 6, release)] }), 'good')
  t.equal(verdict(leaf, { crls: [held, delta(6, 7, release)] }), 'REVOKED', 'a later base')
  t.equal(verdict(leaf, { crls: [held, delta(3, 5, release)] }), 'REVOKED', 'an older delta')
  const expired = { ...release, nextUpdate: NOW - 1000 }
  t.equal(verdict(leaf, { crls: [held, delta(5, 6, expired)] }), 'REVOKED', 'an expired delta')
  t.end()
})

t.test('critical extensions that are unknown make a list unusable', t => {
  const critical = extension('1.2.3.4', fromHex('0500'), true)
  const harmless = extension('1.2.3.4', fromHex('0500'))
  t.equal(verdict(leaf, { crls: [crlOf(root, { extensions: [critical] })] }), 'REVOCATION_UNKNOWN')
  t.equal(verdict(leaf, { crls: [crlOf(root, { extensions: [harmless] })] }), 'good')
  const entry = { revoked: [root.certificate], entryExtensions: [critical] }
  t.equal(verdict(leaf, { crls: [crlOf(root, entry)] }), 'REVOCATION_UNKNOWN')
  t.end()
})

// --- OCSP ---

t.test('OCSP: the issuer’s answer counts while it is fresh', t => {
  const ask = (facts: OcspFacts, given: Given = {}): string =>
    verdict(leaf, { responses: [responseOf(leaf, root, facts)], ...given })
  t.equal(ask({}), 'good')
  t.equal(ask({ status: 'revoked' }), 'REVOKED')
  t.equal(ask({ status: 'revoked' }, { policy: 'prefer' }), 'REVOKED')
  t.equal(ask({ status: 'unknown' }), 'REVOCATION_UNKNOWN')
  t.equal(ask({ nextUpdate: NOW - 1000 }), 'REVOCATION_UNKNOWN', 'expired')
  t.equal(ask({ thisUpdate: NOW + 1000 }), 'REVOCATION_UNKNOWN', 'from the future')
  t.equal(ask({ producedAt: NOW + 1000 }), 'REVOCATION_UNKNOWN', 'made in the future')
  t.equal(ask({ nextUpdate: undefined }), 'REVOCATION_UNKNOWN', 'without end')
  t.equal(ask({ nextUpdate: undefined }, { maximumAge: 7 * DAY }), 'good')
  t.equal(ask({ thisUpdate: NOW - 8 * DAY }, { maximumAge: 7 * DAY }), 'REVOCATION_UNKNOWN', 'old')
  t.equal(ask({ serial: Uint8Array.of(99) }), 'REVOCATION_UNKNOWN', 'about another serial')
  t.equal(ask({ criticalExtension: '1.2.3.4' }), 'REVOCATION_UNKNOWN')
  t.equal(
    ask({ status: 'revoked' }, { crls: [crlOf(root)] }),
    'REVOKED',
    'a list cannot overrule it',
  )
  const revoking = crlOf(root, { revoked: [leaf.certificate] })
  t.equal(ask({}, { crls: [revoking] }), 'REVOKED', 'nor it a list')
  t.end()
})

t.test(
  'OCSP: an answer that was recorded says nothing of another certificate, nor for longer',
  t => {
    const good = responseOf(leaf, root)
    const ask = (end: Holder, responses: readonly OcspResponse[], time = NOW): string =>
      verdict(end, { responses, time })
    t.equal(ask(root.issue('CN=host', []), [good]), 'REVOCATION_UNKNOWN', 'of the same name')
    const serial = der(Tag.Integer, leaf.certificate.serial)
    const twin = makeRoot()
    t.equal(
      ask(leaf, [responseOf(twin.issue('CN=host', [], { serial }), twin)]),
      'REVOCATION_UNKNOWN',
      'of an authority of the same name and with the same serial number, by another key',
    )
    t.equal(
      ask(leaf, [responseOf(leaf, root, { signer: twin })]),
      'REVOCATION_UNKNOWN',
      'about ours, signed by the other',
    )
    t.equal(ask(leaf, [good], NOW + DAY), 'good', 'to the last')
    t.equal(ask(leaf, [good], NOW + DAY + 1), 'REVOCATION_UNKNOWN')
    const newer = responseOf(leaf, root, { status: 'revoked', thisUpdate: NOW, producedAt: NOW })
    for (const both of [
      [good, newer],
      [newer, good],
    ])
      t.equal(ask(leaf, both), 'REVOKED', 'beside a newer one it is not believed')
    t.end()
  },
)

t.test('OCSP: a nonce that is not ours answers something else', t => {
  const nonce = new Uint8Array(16).fill(1)
  const responses = (facts: OcspFacts) => [responseOf(leaf, root, facts)]
  t.equal(verdict(leaf, { responses: responses({ nonce }), nonce }), 'good')
  t.equal(verdict(leaf, { responses: responses({}), nonce }), 'good', 'responders may leave it out')
  const other = new Uint8Array(16).fill(2)
  t.equal(verdict(leaf, { responses: responses({ nonce: other }), nonce }), 'REVOCATION_UNKNOWN')
  t.end()
})

t.test('OCSP: a delegate needs a certificate of the issuer for exactly that', t => {
  const delegated = (responder: Holder, given: Given = {}): string =>
    verdict(leaf, {
      responses: [
        responseOf(leaf, root, { signer: responder, certificates: [responder.certificate] }),
      ],
      ...given,
    })
  const signing = extendedKeyUsage(OCSP_SIGNING)
  const responder = root.issue('CN=OCSP', [signing])
  t.equal(delegated(responder), 'good')
  t.equal(delegated(root.issue('CN=OCSP', [])), 'REVOCATION_UNKNOWN', 'no purpose')
  t.equal(
    delegated(root.issue('CN=OCSP', [extendedKeyUsage('2.5.29.37.0')])),
    'REVOCATION_UNKNOWN',
    'any purpose is not that one',
  )
  t.equal(
    delegated(makeRoot('CN=Other').issue('CN=OCSP', [signing])),
    'REVOCATION_UNKNOWN',
    'another issuer',
  )
  const forger = new Holder(root.name, ed25519Key(), root.certificate)
  t.equal(delegated(forger.issue('CN=OCSP', [signing])), 'REVOCATION_UNKNOWN', 'forged')
  t.equal(
    delegated(root.issue('CN=OCSP', [signing, keyUsage(2)])),
    'REVOCATION_UNKNOWN',
    'keyUsage',
  )
  const old = root.issue('CN=OCSP', [signing], { notAfter: utcTime(NOW - DAY) })
  t.equal(delegated(old), 'REVOCATION_UNKNOWN', 'expired')
  const revoked = crlOf(root, { revoked: [responder.certificate], nextUpdate: NOW - 1000 })
  t.equal(delegated(responder, { crls: [revoked] }), 'REVOCATION_UNKNOWN', 'revoked')
  const unsent = responseOf(leaf, root, { signer: responder })
  t.equal(verdict(leaf, { responses: [unsent] }), 'REVOCATION_UNKNOWN', 'not sent along')
  t.end()
})

t.test('OCSP: a request names the certificate and carries the nonce', t => {
  const nonce = new Uint8Array(16).fill(9)
  const request = writeOcspRequest('node', leaf.certificate, root.certificate, nonce)
  t.ok(toHex(request).includes(toHex(leaf.certificate.serial)))
  t.ok(toHex(request).includes(`0410${toHex(nonce)}`))
  t.notOk(
    toHex(writeOcspRequest('noble', leaf.certificate, root.certificate)).includes(toHex(nonce)),
  )
  t.end()
})

t.test('lists and responses that cost too much are a refusal, whatever the policy', t => {
  const forger = new Holder(root.name, ed25519Key(), root.certificate)
  const revoking = crlOf(root, { revoked: [leaf.certificate] })
  const crls = [...Array.from({ length: 120 }, () => crlOf(forger)), revoking]
  t.equal(verdict(leaf, { crls, policy: 'prefer' }), 'TOO_MUCH_WORK')
  t.end()
})

t.test('entries of all shapes are read and found', t => {
  const shapes: readonly Holder[] = [
    '020101',
    '0201ff',
    '02020080',
    `0214${'11'.repeat(20)}`,
    `028180${'22'.repeat(128)}`,
  ].map(serial => root.issue('CN=x', [], { serial: fromHex(serial) }))
  for (const entryExtensions of [[], [crlReason(4)], [extension('1.2.3', fromHex('0500'))]]) {
    const revoked = shapes.map(({ certificate }) => certificate)
    const crl = crlOf(root, { revoked, entryExtensions })
    for (const certificate of revoked) {
      const reason =
        entryExtensions.length === 1 && toHex(entryExtensions[0]!).includes('551d15') ? 4 : 0
      t.equal(revocationReason(crl, certificate), reason)
    }
    t.equal(revocationReason(crl, leaf.certificate), undefined)
    const [first, ...others] = revoked
    t.equal(revocationReason(crlOf(root, { revoked: others, entryExtensions }), first!), undefined)
  }
  t.end()
})

t.test('entries that are not quite right make no list', t => {
  const crl = encodeCrl(root, { revoked: [leaf.certificate], entryExtensions: [crlReason(1)] })
  const good = toHex(crl)
  const date = toHex(utf8('260531000000Z'))
  const entryDate = good.lastIndexOf(date)
  const withDate = (text: string): Uint8Array =>
    fromHex(good.slice(0, entryDate) + toHex(utf8(text)) + good.slice(entryDate + date.length))
  t.notOk(isMalformed(parseCrl(withDate('260228000000Z'))))
  for (const text of [
    '260229000000Z',
    '260001000000Z',
    '261301000000Z',
    '260100000000Z',
    '260101240000Z',
    '260101006000Z',
    '260101000060Z',
    '2601010000000',
    '26010100000:Z',
  ])
    t.ok(isMalformed(parseCrl(withDate(text))), text)
  t.end()
})

// --- parsers ---

t.test('no truncation of a list or response is read, no mutation throws', t => {
  const crl = encodeCrl(root, {
    revoked: [leaf.certificate],
    entryExtensions: [crlReason(1)],
    extensions: [
      crlNumber(5),
      issuingDistributionPoint({ name: 'uri:http://a.test/', flags: [1] }),
    ],
  })
  const response = encodeOcspResponse(leaf.certificate, root, { nonce: new Uint8Array(16) })
  const random = new Random(11)
  for (const [octets, parse] of [
    [crl, parseCrl],
    [response, parseOcspResponse],
  ] as const) {
    t.notOk(isMalformed(parse(octets)))
    for (let length = 0; length < octets.length; length++) {
      if (!isMalformed(parse(octets.subarray(0, length)))) t.fail(`${length} octets`)
    }
    t.ok(isMalformed(parse(concat(octets, Uint8Array.of(0)))))
    for (let i = 0; i < 10_000; i++) parse(mutate(octets, below => random.integer(0, below - 1)))
  }
  t.end()
})
