/** IKE_AUTH with certificates and raw public keys (RFC 7427, RFC 4945, RFC 7670): whole endpoints in virtual time. */
import { createPublicKey, sign } from 'node:crypto'
import t, { type Test } from 'tap'
import type { CoreEvent, Question } from '../../lib/core/events.ts'
import { KeyPurpose } from '../../lib/identity/extensions.ts'
import { parseCredentials } from '../../lib/identity/credentials.ts'
import {
  authority,
  certificate,
  crlOf,
  endEntity,
  type Credential,
  type KeyType,
} from '../harness/certificates.ts'
import {
  encodeOcspResponse,
  makeRoot,
  NOW,
  ocspLocation,
  subjectAltName,
  type Holder,
} from '../harness/x509.ts'
import { PERFECT, Stream, World, type Network, type Options } from '../harness/world.ts'

const DAY = 86_400_000
const root = authority('O=Test, CN=Root', 'P-256')
const stranger = authority('O=Test, CN=Other', 'P-256')
const server = endEntity('server.test', 'P-256', root)
const client = endEntity('client.test', 'ed25519', root)

const own = (credential: Credential, ...issuers: Credential[]): Options => ({
  cert: [credential, ...issuers].map(({ pem }) => pem).join(''),
  key: credential.keyPem,
})

const SERVER: Options = { psk: undefined, ca: root.pem, ...own(server) }
const CLIENT: Options = { psk: undefined, ca: root.pem, remoteId: 'server.test', ...own(client) }

interface Outcome {
  readonly world: World
  readonly stream: Stream
}

const attempt = (
  clientOptions: Options,
  serverOptions: Options,
  answers?: (side: 'client' | 'server', question: Question) => unknown,
  network: Network = PERFECT,
): Outcome => {
  const world = new World(3, network, clientOptions, serverOptions, undefined, Date.now())
  if (answers !== undefined) world.answers = answers
  const stream = new Stream(5000, 1, 2)
  world.connect(stream)
  world.run(300_000, () => stream.closed)
  return { world, stream }
}

const connects = (t: Test, { world, stream }: Outcome): void => {
  t.equal(stream.error, undefined)
  t.equal(world.accepted[0]?.received, 5000)
}

const codeOf = (stream: Stream): unknown => (stream.error as { code?: unknown } | undefined)?.code
const refusalOf = ({ world }: Outcome): string | undefined =>
  world.events.find((event): event is CoreEvent & { kind: 'refused' } => event.kind === 'refused')
    ?.error.message

/** The server says no: its words stay on its side. */
const isRefusedByServer = (t: Test, outcome: Outcome, why: RegExp): void => {
  t.equal(codeOf(outcome.stream), 'AUTHENTICATION_FAILED')
  t.match(
    outcome.stream.error?.message,
    /refused our authentication: we said that we are .*, proved it by /,
  )
  t.match(refusalOf(outcome), why)
  t.equal(outcome.world.accepted.length, 0)
}

const isRefusedByClient = (t: Test, { world, stream }: Outcome, why: RegExp): void => {
  t.equal(codeOf(stream), 'AUTHENTICATION_FAILED')
  t.match(stream.error?.message, why)
  t.equal(world.accepted.length, 0)
}

const KINDS: readonly KeyType[] = ['rsa', 'P-256', 'P-384', 'P-521', 'ed25519', 'ed448']

for (const kind of KINDS) {
  for (const crypto of ['node', 'noble']) {
    t.test(`certificates of kind ${kind} on both sides, backend ${crypto}`, t => {
      const mine = own(endEntity('client.test', kind, root))
      const theirs = own(endEntity('server.test', kind, root))
      const outcome = attempt({ ...CLIENT, ...mine, crypto }, { ...SERVER, ...theirs, crypto })
      connects(t, outcome)
      const [session] = outcome.world.sessions.client
      t.equal(session?.peer.authentication, 'certificate')
      t.equal(session?.peer.identityText, 'server.test')
      t.equal(session?.peer.certificates.length, 2, 'its own and the anchor')
      t.end()
    })
  }
}

t.test('a chain with an intermediate, sent by both', t => {
  const middle = authority('O=Test, CN=Middle', 'P-384', root)
  connects(
    t,
    attempt(
      { ...CLIENT, ...own(endEntity('client.test', 'P-256', middle), middle) },
      { ...SERVER, ...own(endEntity('server.test', 'rsa', middle), middle) },
    ),
  )
  t.end()
})

t.test('a missing intermediate is said on the side that lacks it', t => {
  const middle = authority('O=Test, CN=Middle', 'P-384', root)
  const outcome = attempt({ ...CLIENT, ...own(endEntity('client.test', 'P-256', middle)) }, SERVER)
  isRefusedByServer(
    t,
    outcome,
    /'O=Test, CN=client\.test|CN=client\.test.*issuer, .*, that is neither a trusted CA/,
  )
  t.end()
})

t.test('large chains pass a path of 1280 octets in fragments', t => {
  const middle = authority('O=Test, CN=Middle', 'rsa', root)
  const world = new World(
    4,
    PERFECT,
    { ...CLIENT, ...own(endEntity('client.test', 'rsa', middle), middle) },
    { ...SERVER, ...own(endEntity('server.test', 'rsa', middle), middle) },
    undefined,
    Date.now(),
  )
  let largest = 0
  world.filter = (_to, bytes) => {
    largest = Math.max(largest, bytes.length)
    return bytes.length <= 1280 - 28
  }
  const stream = new Stream(100, 1, 2)
  world.connect(stream)
  world.run(60_000, () => stream.closed)
  t.equal(stream.error, undefined)
  t.ok(largest > 1000, 'there was something to fragment')
  t.end()
})

t.test('a pre-shared key on one side and a certificate on the other', t => {
  const psk = 'a pre-shared key of more than enough'
  connects(t, attempt({ psk, ca: root.pem, remoteId: 'server.test' }, { psk, ...own(server) }))
  connects(t, attempt({ psk, ...own(client) }, { psk, ca: root.pem }))
  t.end()
})

t.test('a server with both takes either and answers in kind', t => {
  const psk = 'a pre-shared key of more than enough'
  const both = { ...SERVER, psk }
  connects(t, attempt(CLIENT, both))
  const outcome = attempt({ psk, localId: 'old.test' }, both)
  connects(t, outcome)
  t.equal(outcome.world.sessions.server[0]?.peer.authentication, 'psk')
  isRefusedByServer(t, attempt({ psk: 'another key, also long enough' }, both), /pre-shared key/)
  t.end()
})

t.test(
  'who does not prove itself as expected is refused, and why is said on that side alone',
  t => {
    const psk = 'a pre-shared key of more than enough'
    const byPsk = attempt({ psk, localId: 'client.test' }, SERVER)
    isRefusedByServer(t, byPsk, /does not prove itself with a certificate/)
    const ecdsa = own(endEntity('client.test', 'P-256', root))
    const byCertificate = attempt({ ...CLIENT, ...ecdsa }, { psk })
    isRefusedByServer(t, byCertificate, /does not prove itself with a pre-shared key/)
    t.end()
  },
)

t.test('a certificate of another authority, expired, not yet valid, for another name', t => {
  const cases: readonly (readonly [Credential, RegExp])[] = [
    [
      endEntity('client.test', 'P-256', stranger),
      /CN=client\.test.*issuer, .*, that is neither a trusted CA/,
    ],
    [
      endEntity('client.test', 'P-256', root, { notAfter: Date.now() - DAY / 2 }),
      /CN=client\.test.*expired/,
    ],
    [
      endEntity('client.test', 'P-256', root, { notBefore: Date.now() + DAY / 2 }),
      /CN=client\.test.*not yet valid/,
    ],
  ]
  for (const [credential, why] of cases) {
    isRefusedByServer(t, attempt({ ...CLIENT, ...own(credential) }, SERVER), why)
  }
  const other = attempt({ ...CLIENT, localId: 'root.test' }, SERVER)
  isRefusedByServer(t, other, /not for the identity root\.test, only for client\.test/)
  t.end()
})

t.test('the same on the client, which ends the SA and says why', t => {
  const theirs = (credential: Credential): Options => ({ ...SERVER, ...own(credential) })
  isRefusedByClient(
    t,
    attempt(CLIENT, theirs(endEntity('server.test', 'P-256', stranger))),
    /CN=server\.test.*issuer, .*, that is neither a trusted CA/,
  )
  isRefusedByClient(
    t,
    attempt(
      CLIENT,
      theirs(endEntity('server.test', 'P-256', root, { notAfter: Date.now() - 2000 })),
    ),
    /expired/,
  )
  isRefusedByClient(
    t,
    attempt({ ...CLIENT, remoteId: 'elsewhere.test' }, SERVER),
    /elsewhere\.test is expected/,
  )
  t.end()
})

t.test('without remoteId the certificate must be for the host, as in tls', t => {
  const byName = { ...CLIENT, remoteId: undefined, servername: 'server.test' }
  connects(t, attempt(byName, SERVER))
  isRefusedByClient(
    t,
    attempt({ ...byName, servername: 'other.test' }, SERVER),
    /not for .*other\.test/,
  )
  const address = endEntity('server.test', 'P-256', root, { names: { ip: ['192.0.2.1'] } })
  const byAddress = { ...byName, servername: '192.0.2.1' }
  connects(t, attempt(byAddress, { ...SERVER, ...own(address) }))
  t.end()
})

t.test('RFC 4945 3.1.1: who says it is an address comes from there', t => {
  const at = (ip: string): Options => ({
    ...CLIENT,
    ...own(endEntity('client.test', 'P-256', root, { names: { ip: [ip], dns: ['client.test'] } })),
  })
  connects(t, attempt({ ...at('198.51.100.7'), localId: '198.51.100.7' }, SERVER))
  const elsewhere = attempt({ ...at('203.0.113.5'), localId: '203.0.113.5' }, SERVER)
  isRefusedByServer(t, elsewhere, /is an address, but it comes from 198\.51\.100\.7/)
  connects(t, attempt({ ...at('203.0.113.5'), localId: 'client.test' }, SERVER))
  t.end()
})

t.test('a CA is no end entity of its own making: extendedKeyUsage and keyUsage count', t => {
  const tls = endEntity('client.test', 'P-256', root, {
    extendedKeyUsage: [KeyPurpose.ClientAuth],
  })
  isRefusedByServer(t, attempt({ ...CLIENT, ...own(tls) }, SERVER), /extendedKeyUsage/)
  connects(t, attempt({ ...CLIENT, ...own(tls) }, { ...SERVER, extendedKeyUsage: 'tls' }))
  t.end()
})

t.test('a revoked certificate, and one whose status is not known', t => {
  const serial = Uint8Array.of(0x55)
  const revoked = endEntity('client.test', 'P-256', root, { serial })
  const strict = { ...SERVER, crl: crlOf(root, [serial]) }
  isRefusedByServer(t, attempt({ ...CLIENT, ...own(revoked) }, strict), /was revoked/)
  connects(t, attempt(CLIENT, strict))
  const unknown = attempt(CLIENT, { ...SERVER, revocation: 'require' })
  isRefusedByServer(t, unknown, /may have been revoked/)
  connects(t, attempt({ ...CLIENT, ...own(revoked) }, { ...strict, revocation: 'off' }))
  t.end()
})

// --- revocation data on the way (RFC 4806), with clocks at the date of these certificates ---

const ocspRoot = makeRoot('O=Test, CN=OCSP root')
const http = 'http://status.test/'
const serverHolder = ocspRoot.issue('CN=server', [
  subjectAltName(['dns:server.test']),
  ocspLocation(http),
])
const clientHolder = ocspRoot.issue('CN=client', [subjectAltName(['dns:client.test'])])

const heldBy = ({ certificate: { bytes } }: Holder): Options => ({
  psk: undefined,
  ca: ocspRoot.certificate.bytes,
  cert: bytes,
  sign: () => undefined,
  revocation: 'off',
})

const attemptWithStatus = (
  clientOptions: Options,
  serverOptions: Options,
  answer: (question: Question) => unknown,
): Outcome => {
  const mine = { ...heldBy(clientHolder), remoteId: 'server.test', revocation: 'require' }
  const theirs = heldBy(serverHolder)
  const world = new World(
    5,
    PERFECT,
    { ...mine, ...clientOptions },
    { ...theirs, ...serverOptions },
    undefined,
    NOW,
  )
  world.answers = (side, question) =>
    question.kind === 'sign'
      ? (side === 'client' ? clientHolder : serverHolder).key.sign(question.message)
      : answer(question)
  const stream = new Stream(5000, 1, 2)
  world.connect(stream)
  world.run(300_000, () => stream.closed)
  return { world, stream }
}

const ocsp = (status: 'good' | 'revoked'): Uint8Array =>
  encodeOcspResponse(serverHolder.certificate, ocspRoot, { status })

t.test('a peer that asks gets the OCSP answer along with the certificate', t => {
  const nothing = (): undefined => undefined
  connects(t, attemptWithStatus({}, { ocspResponse: ocsp('good') }, nothing))
  const bad = attemptWithStatus({}, { ocspResponse: ocsp('revoked') }, nothing)
  isRefusedByClient(t, bad, /was revoked/)
  const asked = attemptWithStatus({}, { ocspResponse: nothing }, question =>
    question.kind === 'ocspResponse' ? ocsp('good') : undefined,
  )
  connects(t, asked)
  isRefusedByClient(t, attemptWithStatus({}, {}, nothing), /may have been revoked/)
  t.end()
})

t.test('status is fetched only when allowed, and only for a path that is valid without it', t => {
  const wanted: unknown[] = []
  const answerWith =
    (octets: Uint8Array | undefined) =>
    (question: Question): unknown => {
      if (question.kind !== 'fetchStatus') return undefined
      wanted.push(...question.wanted.map(({ kind, urls }) => [kind, ...urls]))
      return octets && { crls: [], ocsp: [octets] }
    }
  const fetching = { fetchRevocation: true }
  connects(t, attemptWithStatus(fetching, {}, answerWith(ocsp('good'))))
  t.strictSame(wanted.splice(0), [['ocsp', http]])
  isRefusedByClient(t, attemptWithStatus(fetching, {}, answerWith(ocsp('revoked'))), /revoked/)
  isRefusedByClient(t, attemptWithStatus(fetching, {}, answerWith(undefined)), /may have been/)
  const prefer = { ...fetching, revocation: 'prefer' }
  connects(t, attemptWithStatus(prefer, {}, answerWith(undefined)))
  wanted.length = 0
  const stranger = { ...fetching, ca: makeRoot('O=Test, CN=OCSP root').certificate.bytes }
  isRefusedByClient(t, attemptWithStatus(stranger, {}, answerWith(ocsp('good'))), /signature/)
  isRefusedByClient(t, attemptWithStatus({}, {}, answerWith(ocsp('good'))), /may have been/)
  t.strictSame(wanted, [], 'CVE-2022-40617: nothing of an untrusted certificate is fetched')
  t.end()
})

t.test('an RSA key signs with RSASSA-PSS; PKCS #1 v1.5 only where both ends allow it', t => {
  const mine = own(endEntity('client.test', 'rsa', root))
  connects(t, attempt({ ...CLIENT, ...mine, rsaPkcs1: true }, { ...SERVER, rsaPkcs1: true }))
  const refused = attempt({ ...CLIENT, ...mine, rsaPkcs1: true }, SERVER)
  isRefusedByServer(t, refused, /RSASSA-PKCS1-v1_5, which the option "rsaPkcs1" admits/)
  t.end()
})

t.test('raw public keys in the place of certificates', t => {
  const spki = (credential: Credential): string =>
    createPublicKey(credential.key).export({ type: 'spki', format: 'pem' }) as string
  const raw = (mine: Credential, theirs: Credential, id: string): Options => ({
    psk: undefined,
    localId: id,
    key: mine.keyPem,
    peerKeys: spki(theirs),
  })
  const outcome = attempt(raw(client, server, 'c'), raw(server, client, 's'))
  connects(t, outcome)
  t.equal(outcome.world.sessions.server[0]?.peer.authentication, 'rawKey')
  isRefusedByServer(
    t,
    attempt(raw(client, server, 'c'), raw(server, server, 's')),
    /not one that we know/,
  )
  isRefusedByServer(
    t,
    attempt(raw(client, server, 'c'), {
      ...raw(server, client, 's'),
      peerKeys: { someone: spki(client) },
    }),
    /not one that we know/,
  )
  t.end()
})

t.test('of several keys the one that the peer asks for by CERTREQ', t => {
  const mine = endEntity('server.test', 'P-256', stranger)
  const several = {
    ...SERVER,
    cert: [mine.pem, stranger.pem, server.pem, root.pem],
    key: [mine.keyPem, server.keyPem],
  }
  connects(t, attempt(CLIENT, several))
  connects(t, attempt({ ...CLIENT, ca: stranger.pem }, { ...several, ca: root.pem }))
  t.end()
})

t.test('a key that is kept elsewhere signs, or does not', t => {
  const options = { ...CLIENT, key: undefined, sign: () => undefined }
  connects(
    t,
    attempt(options, SERVER, (_side, question) =>
      question.kind === 'sign' ? sign(null, question.message, client.key) : undefined,
    ),
  )
  const silent = attempt(options, SERVER, () => undefined)
  t.equal(codeOf(silent.stream), 'AUTHENTICATION_FAILED')
  t.match(silent.stream.error?.message, /did not sign/)
  t.end()
})

t.test('authorize sees the proof and may give the peer a policy of its own', t => {
  const seen: unknown[] = []
  const outcome = attempt(CLIENT, { ...SERVER, authorize: () => true }, (_side, question) => {
    if (question.kind !== 'authorize') return undefined
    seen.push(question.peer.identityText, question.peer.authentication)
    return question.peer.certificates.length === 2
  })
  connects(t, outcome)
  t.strictSame(seen, ['client.test', 'certificate'])
  const refused = attempt(
    CLIENT,
    { ...SERVER, authorize: () => true },
    () => new Error('on Mondays'),
  )
  isRefusedByServer(t, refused, /on Mondays/)
  t.end()
})

t.test('options that cannot be used say which and why, and print no key', t => {
  const cases: readonly (readonly [Options, RegExp])[] = [
    [{}, /"psk".*or "cert", "key" and "ca"/],
    [{ cert: client.pem, ca: root.pem }, /"key" must be given with "cert"/],
    [{ ...own(client) }, /"psk" must be given, or "ca" or "peerKeys"/],
    [{ ca: root.pem }, /"psk" must be given, or "cert" and "key"/],
    [
      { cert: client.pem, key: server.keyPem, ca: root.pem },
      /"key" must be the key of a certificate/,
    ],
    [{ cert: 'text', key: client.keyPem, ca: root.pem }, /"cert" must be certificates in PEM/],
    [{ ...own(client), ca: 'text' }, /"ca" must be certificates of authorities/],
    [{ ...own(client), ca: root.pem, crl: 'text' }, /"crl" must be lists/],
    [{ ...own(client), ca: root.pem, revocation: 'maybe' }, /"revocation" must be one of/],
    [{ ...own(client), ca: root.pem, key: 'secret text' }, /"key" must be a private key/],
    [
      { ...own(client), ca: root.pem, rejectUnauthorized: false },
      /"rejectUnauthorized" must be true/,
    ],
    [{ ...own(client), ca: root.pem, peerKeys: 'x' }, /"peerKeys" must be public keys/],
  ]
  for (const [options, message] of cases) {
    t.throws(() => parseCredentials(options), { message })
  }
  try {
    parseCredentials({ key: 'secret text', ca: root.pem })
  } catch (error) {
    t.notMatch((error as Error).message, /secret text/)
  }
  t.end()
})

t.test('an encrypted private key needs its passphrase', t => {
  const key = client.key.export({
    type: 'pkcs8',
    format: 'pem',
    cipher: 'aes-256-cbc',
    passphrase: 'sesame',
  }) as string
  const options = { ...CLIENT, key }
  connects(t, attempt({ ...options, passphrase: 'sesame' }, SERVER))
  connects(t, attempt({ ...CLIENT, key: { pem: key, passphrase: 'sesame' } }, SERVER))
  t.throws(() => parseCredentials({ ...options, passphrase: 'wrong' }), {
    message: /"key".*"passphrase" opens/,
  })
  t.throws(() => parseCredentials(options), { message: /"key"/ })
  t.end()
})

t.test('an identity of our own comes from the certificate when none is given', t => {
  const byMail = certificate('CN=user', 'P-256', root, { names: { email: ['user@test'] } })
  const outcome = attempt({ ...CLIENT, ...own(byMail) }, SERVER)
  connects(t, outcome)
  t.equal(outcome.world.sessions.server[0]?.peer.identityText, 'user@test')
  const bare = certificate('O=Test, CN=bare', 'P-256', root)
  const named = attempt({ ...CLIENT, ...own(bare) }, SERVER)
  connects(t, named)
  t.match(named.world.sessions.server[0]?.peer.identityText, /^dn:O=test, CN=bare$/)
  t.end()
})
