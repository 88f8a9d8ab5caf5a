/**
 * Targets that read what certificates, lists, OCSP answers and key files say. Seeds are made here, from fixed
 * keys with signatures that are the same each time. Besides not throwing: what is accepted is what was signed.
 */
import {
  createCipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  pbkdf2Sync,
  sign,
} from 'node:crypto'
import { concat, fromHex, toHex, utf8 } from '../../lib/base/bytes.ts'
import { contextTag, DerReader, Tag } from '../../lib/base/der.ts'
import { der, integer, octetString, oid, sequence } from '../../lib/base/der-writer.ts'
import { OptionError } from '../../lib/base/errors.ts'
import { toPem } from '../../lib/identity/certificate-builder.ts'
import {
  describeCertificate,
  isMalformed,
  parseCertificate,
} from '../../lib/identity/certificate.ts'
import { parseCrl, type Crl } from '../../lib/identity/crl.ts'
import { encodeDistinguishedName } from '../../lib/identity/distinguished-name.ts'
import { isFailure } from '../../lib/identity/failure.ts'
import { formatName, readName } from '../../lib/identity/name.ts'
import { parseOcspResponse, type OcspResponse } from '../../lib/identity/ocsp.ts'
import { parseOwnKeys } from '../../lib/identity/own-keys.ts'
import { buildPath, TrustAnchors, type PathOptions } from '../../lib/identity/path.ts'
import { readDerGroups } from '../../lib/identity/pem.ts'
import { readPkcs12 } from '../../lib/identity/pkcs12.ts'
import { ANY_POLICIES } from '../../lib/identity/policies.ts'
import { checkRevocation } from '../../lib/identity/revocation.ts'
import { signaturePolicy } from '../../lib/identity/signed.ts'
import type { Random } from '../harness/random.ts'
import {
  crlDistributionPoint,
  crlNumber,
  crlReason,
  encodeCrl,
  encodeOcspResponse,
  extendedKeyUsage,
  issuingDistributionPoint,
  makeRoot,
  nameConstraints,
  NOW,
  number,
  ocspLocation,
  policies,
  subjectAltName,
  type Key,
} from '../harness/x509.ts'
import { mutateOctets, pick } from './mutate.ts'
import type { Target } from './parsers.ts'

const must = (truth: boolean, what: string): void => {
  if (!truth) throw new Error(what)
}

// --- DER that stays well-formed ---

interface Node {
  tag: number
  content: Uint8Array | Node[]
}

/** Undefined when the octets are no sequence of elements. */
const split = (octets: Uint8Array, depth = 0): Node[] | undefined => {
  const nodes: Node[] = []
  const reader = new DerReader(octets)
  while (reader.more) {
    const { tag, content } = reader.element()
    if (reader.failed) return undefined
    const inner = depth < 12 && (tag & 0x20) !== 0 ? split(content, depth + 1) : undefined
    nodes.push({ tag, content: inner ?? content })
  }
  return nodes
}

const join = (nodes: readonly Node[]): Uint8Array =>
  concat(
    ...nodes.map(({ tag, content }) =>
      der(tag, content instanceof Uint8Array ? content : join(content)),
    ),
  )

const listsOf = (nodes: Node[]): Node[][] => [
  nodes,
  ...nodes.flatMap(({ content }) => (content instanceof Uint8Array ? [] : listsOf(content))),
]

const TAGS = [...Object.values(Tag), 0x80, 0x81, 0xa0, 0xa1, 0xa2, 0xa3]

/** Edits of elements whose lengths stay right, so that they get past the first checks. */
export const mutateDer = (random: Random, given: Uint8Array): Uint8Array => {
  const nodes = split(given)
  if (nodes === undefined || random.chance(0.2)) return mutateOctets(random, given)
  for (let edits = random.integer(1, 3); edits > 0; edits--) {
    const lists = listsOf(nodes).filter(list => list.length > 0)
    if (lists.length === 0) break
    const list = pick(random, lists)
    const at = random.integer(0, list.length - 1)
    const node = list[at]!
    switch (random.integer(0, 5)) {
      case 0:
        list.splice(at, 1)
        break
      case 1:
        list.splice(at, 0, structuredClone(node))
        break
      case 2:
        list.push(structuredClone(pick(random, pick(random, lists))))
        break
      case 3:
        node.tag = pick(random, TAGS)
        break
      default:
        if (node.content instanceof Uint8Array) node.content = mutateOctets(random, node.content)
    }
  }
  return join(nodes).slice(0, 70_000)
}

// --- seeds ---

/** Ed25519 from a fixed seed: its signatures are always the same. */
const fixedKey = (seed: number): Key => {
  const pkcs8 = concat(fromHex('302e020100300506032b657004220420'), new Uint8Array(32).fill(seed))
  const key = createPrivateKey({ key: Buffer.from(pkcs8), format: 'der', type: 'pkcs8' })
  const jwk = key.export({ format: 'jwk' })
  return {
    spki: concat(
      fromHex('302a300506032b6570032100'),
      new Uint8Array(Buffer.from(jwk.x!, 'base64url')),
    ),
    algorithm: sequence(oid('1.3.101.112')),
    sign: octets => new Uint8Array(sign(null, octets, key)),
  }
}

const root = makeRoot('C=CH, O=Test, CN=Root', [], { key: fixedKey(1), serial: number(1) })
const ca = root.issueCa(
  'C=CH, O=Test, CN=CA',
  [nameConstraints({ permitted: ['dns:example.test', 'email:example.test'] })],
  { key: fixedKey(2), serial: number(2) },
)
const leaf = ca.issue(
  'C=CH, O=Test, CN=host',
  [
    subjectAltName(['dns:host.example.test', 'email:host@example.test', 'rid:1.2.3']),
    extendedKeyUsage('1.3.6.1.5.5.7.3.17'),
    policies('1.2.3.4'),
    crlDistributionPoint(['uri:http://crl.example.test/ca.crl']),
    ocspLocation('http://ocsp.example.test'),
  ],
  { key: fixedKey(3), serial: number(0x1234) },
)
const other = ca.issue('CN=other', [], { key: fixedKey(4), serial: number(0x1235) })

const OPTIONS: PathOptions = {
  anchors: new TrustAnchors([root.certificate]),
  intermediates: [ca.certificate],
  time: NOW,
  signatures: signaturePolicy('node'),
  purposes: undefined,
  policies: ANY_POLICIES,
  isStrict: false,
  maximumIntermediates: 8,
  allowsPinned: false,
}
const built = buildPath(leaf.certificate, OPTIONS)
if (isFailure(built)) throw new Error(built.message)
const genuine = built
const CERTIFICATES = [root, ca, leaf, other].map(({ certificate }) => certificate.bytes)
const CRLS = [
  encodeCrl(ca, { extensions: [crlNumber(7)] }),
  encodeCrl(ca, {
    revoked: [leaf.certificate, other.certificate],
    entryExtensions: [crlReason(1)],
    extensions: [crlNumber(8)],
  }),
  encodeCrl(ca, {
    revoked: [other.certificate],
    extensions: [issuingDistributionPoint({ name: 'uri:http://crl.example.test/ca.crl' })],
  }),
  encodeCrl(root, { extensions: [crlNumber(1)] }),
]
const ANSWERS = [
  encodeOcspResponse(leaf.certificate, ca),
  encodeOcspResponse(leaf.certificate, ca, { status: 'revoked', nonce: new Uint8Array(16) }),
  encodeOcspResponse(leaf.certificate, ca, { certificates: [ca.certificate], status: 'unknown' }),
  encodeOcspResponse(ca.certificate, root),
]
const signedOf = (
  parse: (octets: Uint8Array) => { signed: { tbs: { bytes: Uint8Array } } } | { problem: string },
  all: readonly Uint8Array[],
): ReadonlySet<string> =>
  new Set(
    all.map(one => {
      const found = parse(one)
      if ('problem' in found) throw new Error(found.problem)
      return toHex(found.signed.tbs.bytes)
    }),
  )
const SIGNED_CERTIFICATES = signedOf(parseCertificate, CERTIFICATES)
const SIGNED_CRLS = signedOf(parseCrl, CRLS)
const SIGNED_ANSWERS = signedOf(parseOcspResponse, ANSWERS)

const ofRoot = parseCrl(CRLS[3]!)
if (isMalformed(ofRoot)) throw new Error(ofRoot.problem)
const rootCrl = ofRoot

/** What is said of the whole path, of whose authority the root's own list speaks. */
const revocation = (
  lists: readonly Crl[],
  responses: readonly OcspResponse[],
): string | undefined => {
  const given = {
    crls: [rootCrl, ...lists],
    responses,
    policy: 'require',
    backend: 'node',
  } as const
  return checkRevocation(genuine, given, OPTIONS)?.code
}

// --- PKCS #12 ---

const PASSPHRASE = 'sesame'
const SALT = fromHex('a1a2a3a4a5a6a7a8')
/** Salt and one round: other counts of rounds would only cost time, which is the program's own choice. */
const ONE_ROUND = 'a1a2a3a4a5a6a7a8020101'
const PKCS7_DATA = '1.2.840.113549.1.7.1'

const wrapped = (value: Uint8Array): Uint8Array => der(contextTag(0, true), value)
const bag = (type: number, value: Uint8Array): Uint8Array =>
  sequence(oid(`1.2.840.113549.1.12.10.1.${type}`), wrapped(value))
const certificateBag = (bytes: Uint8Array): Uint8Array =>
  bag(3, sequence(oid('1.2.840.113549.1.9.22.1'), wrapped(octetString(bytes))))

const encrypted = (content: Uint8Array): Uint8Array => {
  const key = pbkdf2Sync(PASSPHRASE, SALT, 1, 32, 'sha256')
  const cipher = createCipheriv('aes-256-cbc', key, new Uint8Array(16))
  const ciphertext = new Uint8Array(Buffer.concat([cipher.update(content), cipher.final()]))
  const hmac = sequence(oid('1.2.840.113549.2.9'), fromHex('0500'))
  const derivation = sequence(octetString(SALT), integer(Uint8Array.of(1)), hmac)
  const scheme = sequence(
    oid('1.2.840.113549.1.5.13'),
    sequence(
      sequence(oid('1.2.840.113549.1.5.12'), derivation),
      sequence(oid('2.16.840.1.101.3.4.1.42'), octetString(new Uint8Array(16))),
    ),
  )
  const info = sequence(oid(PKCS7_DATA), scheme, der(contextTag(0), ciphertext))
  const data = sequence(integer(Uint8Array.of(0)), info)
  return sequence(oid('1.2.840.113549.1.7.6'), wrapped(data))
}

const SAFES = [
  sequence(
    sequence(
      oid(PKCS7_DATA),
      wrapped(octetString(sequence(certificateBag(leaf.certificate.bytes)))),
    ),
  ),
  sequence(encrypted(sequence(certificateBag(leaf.certificate.bytes), bag(6, sequence())))),
]

/** With a MAC that is right (RFC 7292 appendix B.2), whatever is inside. */
const pkcs12 = (safe: Uint8Array): Uint8Array => {
  const password = Buffer.from(`${PASSPHRASE}\0`, 'utf16le').swap16()
  const filled = (octets: Uint8Array): Uint8Array =>
    Uint8Array.from({ length: 64 }, (_, i) => octets[i % octets.length]!)
  const material = concat(new Uint8Array(64).fill(3), filled(SALT), filled(password))
  const key = createHash('sha256').update(material).digest()
  const value = new Uint8Array(createHmac('sha256', key).update(safe).digest())
  const algorithm = sequence(oid('2.16.840.1.101.3.4.2.1'), fromHex('0500'))
  return sequence(
    integer(Uint8Array.of(3)),
    sequence(oid(PKCS7_DATA), wrapped(octetString(safe))),
    sequence(sequence(algorithm, octetString(value)), octetString(SALT), integer(Uint8Array.of(1))),
  )
}

// --- texts ---

const KEY_PEM = toPem(
  'PRIVATE KEY',
  concat(fromHex('302e020100300506032b657004220420'), new Uint8Array(32).fill(3)),
)
const PEMS = [
  toPem('CERTIFICATE', leaf.certificate.bytes) + toPem('CERTIFICATE', ca.certificate.bytes),
  toPem('X509 CRL', CRLS[0]!),
  KEY_PEM,
  `some text\r\n${toPem('CERTIFICATE', leaf.certificate.bytes).replaceAll('\n', '\r\n')}`,
  '-----BEGIN CERTIFICATE-----'.repeat(20),
]
/** What no error may show: the middle of the key. */
const SECRET = KEY_PEM.split('\n')[1]!.slice(20, 50)
const DNS = ['C=CH, O=Example, OU=Unit, CN=host', 'CN=a/O=b', 'E=a@b.test, DC=x, SERIALNUMBER=7']

/** An option that cannot be taken is refused by name, and without its content. */
const refusesWell = (run: () => unknown): void => {
  try {
    run()
  } catch (error) {
    if (!(error instanceof OptionError)) throw error
    must(!error.message.includes(SECRET), 'the key is in the error')
    must(error.message.length < 2000, `${error.message.length} characters`)
  }
}

const isPrintable = (text: string): boolean => /^[\x20-\x7e\u2026]*$/.test(text)

export const CERTIFICATE_TARGETS: readonly Target[] = [
  {
    name: 'certificate',
    make: random => mutateDer(random, pick(random, CERTIFICATES)),
    run: input => {
      const certificate = parseCertificate(input)
      if (isMalformed(certificate)) return must(certificate.problem !== '', 'no problem named')
      must(isPrintable(describeCertificate(certificate)), 'not printable')
      const isGenuine = SIGNED_CERTIFICATES.has(toHex(certificate.signed.tbs.bytes))
      const asLeaf = buildPath(certificate, OPTIONS)
      must(isFailure(asLeaf) || isGenuine, 'a changed certificate is accepted')
      const intermediates = [certificate]
      const above = buildPath(leaf.certificate, { ...OPTIONS, intermediates })
      must(isFailure(above) || isGenuine, 'a changed authority is accepted')
    },
  },
  {
    name: 'crl',
    make: random => mutateDer(random, pick(random, CRLS)),
    run: input => {
      const list = parseCrl(input)
      if (isMalformed(list)) return must(list.problem !== '', 'no problem named')
      const code = revocation([list], [])
      const isGenuine = SIGNED_CRLS.has(toHex(list.signed.tbs.bytes))
      must(code === 'REVOCATION_UNKNOWN' || isGenuine, `a changed list says ${code ?? 'good'}`)
    },
  },
  {
    name: 'ocsp',
    make: random => mutateDer(random, pick(random, ANSWERS)),
    run: input => {
      const response = parseOcspResponse(input)
      if (isMalformed(response)) return must(response.problem !== '', 'no problem named')
      const code = revocation([], [response])
      const isGenuine = SIGNED_ANSWERS.has(toHex(response.signed.tbs.bytes))
      must(code === 'REVOCATION_UNKNOWN' || isGenuine, `a changed answer says ${code ?? 'good'}`)
    },
  },
  {
    name: 'pkcs12',
    make: random => {
      const safe = pick(random, SAFES)
      const inside = mutateDer(random, safe)
      const isCheap = safe === SAFES[0] || toHex(inside).includes(ONE_ROUND)
      const whole = pkcs12(isCheap ? inside : safe)
      if (random.chance(0.6)) return whole
      const outside = mutateDer(random, whole)
      return toHex(outside).endsWith(ONE_ROUND) ? outside : whole
    },
    run: input => {
      const found = readPkcs12(input, PASSPHRASE)
      if (typeof found === 'string') return must(found !== '', 'no reason named')
      for (const bytes of found.certificates) parseCertificate(bytes)
      refusesWell(() => parseOwnKeys({ pfx: input, passphrase: PASSPHRASE }))
    },
  },
  {
    name: 'pem',
    make: random => mutateOctets(random, utf8(pick(random, PEMS) + pick(random, PEMS))),
    run: input => {
      const text = Buffer.from(input).toString('latin1')
      for (const given of [text, input, [text, input]]) {
        refusesWell(() => {
          const groups = readDerGroups('fuzz', given, 'CERTIFICATE', 'certificates')
          const octets = groups.flat().reduce((sum, { length }) => sum + length, 0)
          must(octets <= 2 * input.length, 'more than there was')
        })
      }
      // Now and then, and one of the two: OpenSSL takes its time to read a key.
      if (input.length % 4 > 1) return
      const isKey = input.length % 4 === 0
      refusesWell(() =>
        parseOwnKeys(isKey ? { cert: PEMS[0], key: text } : { cert: text, key: KEY_PEM }),
      )
    },
  },
  {
    name: 'distinguished-name',
    make: random =>
      random.chance(0.5)
        ? mutateDer(random, encodeDistinguishedName(pick(random, DNS))!)
        : mutateOctets(random, utf8(pick(random, DNS))),
    run: input => {
      const encodings = [input, encodeDistinguishedName(Buffer.from(input).toString('utf8'))]
      for (const encoding of encodings) {
        if (encoding === undefined) continue
        const reader = new DerReader(encoding)
        const name = readName(reader)
        if (reader.failed) continue
        const text = formatName(name)
        must(isPrintable(text), 'not printable')
        must(text.length <= 40 * encoding.length + 100, `${text.length} characters`)
      }
    },
  },
]

// Were the seeds themselves refused, the checks above would say nothing.
const clean = parseCrl(CRLS[0]!)
const good = parseOcspResponse(ANSWERS[0]!)
must(!isMalformed(clean) && revocation([clean], []) === undefined, 'the list does not say good')
must(!isMalformed(good) && revocation([], [good]) === undefined, 'the answer does not say good')
must(revocation([], []) === 'REVOCATION_UNKNOWN', 'nothing says good')
must(typeof readPkcs12(pkcs12(SAFES[0]!), PASSPHRASE) === 'object', 'the plain file is not read')
must(typeof readPkcs12(pkcs12(SAFES[1]!), PASSPHRASE) === 'object', 'the encrypted one is not')
