/** Suites of certificate tests, in the forms in which they come, run through our own validation. */
import { createPublicKey, verify as nodeVerify } from 'node:crypto'
import { toHex } from '../../lib/base/bytes.ts'
import { readPublicKey } from '../../lib/crypto/signature.ts'
import { isMalformed, parseCertificate, type Certificate } from '../../lib/identity/certificate.ts'
import { parseCrl, type Crl } from '../../lib/identity/crl.ts'
import { hasIdentity } from '../../lib/identity/certificate-identity.ts'
import { isFailure } from '../../lib/identity/failure.ts'
import { parseIdentity } from '../../lib/identity/identity.ts'
import { sameName } from '../../lib/identity/name.ts'
import { parseOcspResponse } from '../../lib/identity/ocsp.ts'
import { buildPath, TrustAnchors, type PathOptions } from '../../lib/identity/path.ts'
import { checkEndEntity } from '../../lib/identity/peer-certificate.ts'
import { ANY_POLICIES, type PolicyOptions } from '../../lib/identity/policies.ts'
import {
  checkRevocation,
  revocationStatus,
  type RevocationOptions,
} from '../../lib/identity/revocation.ts'
import { signaturePolicy, type SignaturePolicy } from '../../lib/identity/signed.ts'

export interface Outcome {
  readonly id: string
  readonly verdict: 'agree' | 'false accept' | 'false reject' | 'different refusal'
  readonly expected: string
  readonly got: string
  readonly milliseconds: number
}

/** What one case wants and what we say: `good` is acceptance, all else is refusal. */
interface Answer {
  readonly is: string
  readonly why: string
}

const GOOD: Answer = { is: 'good', why: 'good' }
const bad = (why: string, is = 'bad'): Answer => ({ is, why })

const run = (id: string, expected: string, answer: () => Answer): Outcome => {
  const started = performance.now()
  const { is, why } = answer()
  const milliseconds = performance.now() - started
  const verdict =
    is === expected
      ? 'agree'
      : is === 'good'
        ? 'false accept'
        : expected === 'good'
          ? 'false reject'
          : 'different refusal'
  return { id, verdict, expected, got: why, milliseconds }
}

const base64 = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'))

const pem = (text: string): Uint8Array => base64(text.replace(/-----[^-]*-----/g, ''))

const read = (encoded: Uint8Array): Certificate | string => {
  const certificate = parseCertificate(encoded)
  return isMalformed(certificate) ? certificate.problem : certificate
}

const isRead = (value: Certificate | string): value is Certificate => typeof value !== 'string'

const pathOptions = (facts: {
  anchors: readonly Certificate[]
  intermediates: readonly Certificate[]
  time: number
  signatures?: SignaturePolicy
  policies?: PolicyOptions
}): PathOptions => ({
  signatures: signaturePolicy('node'),
  policies: ANY_POLICIES,
  ...facts,
  anchors: new TrustAnchors(facts.anchors),
  purposes: undefined,
  isStrict: false,
  maximumIntermediates: 8,
  allowsPinned: false,
})

const PURPOSES: Readonly<Record<string, string>> = {
  anyExtendedKeyUsage: '2.5.29.37.0',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
  codeSigning: '1.3.6.1.5.5.7.3.3',
  emailProtection: '1.3.6.1.5.5.7.3.4',
  timeStamping: '1.3.6.1.5.5.7.3.8',
  OCSPSigning: '1.3.6.1.5.5.7.3.9',
}

const purpose = (name: string): string => PURPOSES[name] ?? name

// --- NIST PKITS ---

interface PathSuite {
  readonly tests: readonly {
    id?: string
    name?: string
    number?: string
    certs: readonly string[]
    crls?: readonly string[]
    should_validate: boolean
    initial_policy_set?: readonly string[]
    initial_explicit_policy?: boolean
    initial_policy_mapping_inhibit?: boolean
    initial_inhibit_any_policy?: boolean
    /** By name or dotted; without it purposes do not matter. */
    extended_key_usage?: readonly string[]
    time: string | number
  }[]
  /** By name; a test may also hold the octets in base64 or PEM themselves. */
  readonly certs?: Readonly<Record<string, string>>
  readonly crls?: Readonly<Record<string, string>>
}

/** The short names by which the suite calls policies. */
const POLICY_NAMES: Readonly<Record<string, string>> = {
  anyPolicy: '2.5.29.32.0',
  ...Object.fromEntries(
    Array.from({ length: 10 }, (_, i) => [
      `NIST-test-policy-${i + 1}`,
      `2.16.840.1.101.3.2.1.48.${i + 1}`,
    ]),
  ),
}

/** The trust anchor comes first, the end entity last; lists are required where the suite has any. */
const runPaths = (suite: PathSuite): Outcome[] =>
  suite.tests.map(test =>
    run(
      test.id ?? `${test.number ?? ''} ${test.name ?? ''}`,
      test.should_validate ? 'good' : 'bad',
      () => {
        const all = test.certs.map(name => read(pem(suite.certs?.[name] ?? name)))
        const [anchor] = all
        const target = all.at(-1)!
        if (!isRead(target)) return bad(`malformed: ${target}`)
        if (anchor === undefined || !isRead(anchor)) return bad('the trust anchor is malformed')
        const options = pathOptions({
          anchors: [anchor],
          intermediates: all.slice(1, -1).filter(isRead),
          time: typeof test.time === 'number' ? 1000 * test.time : Date.parse(test.time),
          policies: {
            acceptable: new Set(
              (test.initial_policy_set ?? ['anyPolicy']).map(name => POLICY_NAMES[name] ?? name),
            ),
            requireExplicit: test.initial_explicit_policy === true,
            inhibitMapping: test.initial_policy_mapping_inhibit === true,
            inhibitAny: test.initial_inhibit_any_policy === true,
          },
        })
        const path = buildPath(target, options)
        if (isFailure(path)) return bad(`${path.code}: ${path.message}`)
        if (test.crls === undefined) return GOOD
        const crls = test.crls
          .map(name => parseCrl(pem(suite.crls?.[name] ?? name)))
          .filter((crl): crl is Crl => !isMalformed(crl))
        const revocation = { ...REVOCATION, crls }
        const problem = checkRevocation(path, revocation, options)
        return problem === undefined ? GOOD : bad(`${problem.code}: ${problem.message}`)
      },
    ),
  )

const REVOCATION: RevocationOptions = {
  policy: 'require',
  crls: [],
  responses: [],
  backend: 'node',
}

// --- suites of single lists and responses ---

interface BlockSuite {
  readonly tests: readonly {
    id: string
    expected?: string
    expected_status?: string
    blocks: readonly { label: string; b64: string }[]
  }[]
}

/** These two suites sign with RSA of 1024 bits, with SHA-1 and without the NULL of RFC 4055 §5: never taken otherwise. */
const LEGACY: SignaturePolicy = {
  ...signaturePolicy('node'),
  readKey: spki => readPublicKey(spki, { minimumRsaBits: 1024 }),
  verify: (signed, key) => {
    const last = toHex(signed.algorithm).match(/^300[bd]06092a864886f70d0101(05|0b)(0500)?$/)?.[1]
    if (last === undefined) return signaturePolicy('node').verify(signed, key)
    const node = createPublicKey({ key: Buffer.from(key.spki), format: 'der', type: 'spki' })
    const hash = last === '05' ? 'sha1' : 'sha256'
    return nodeVerify(hash, signed.tbs.bytes, node, signed.signature)
  },
}

const WEEK = 7 * 24 * 3600 * 1000
/** The times at which the suites are to be verified. */
const LIST_TIME = Date.UTC(2017, 2, 9)
const RESPONSE_TIME = 1_488_672_000_000

const runBlocks = (suite: BlockSuite): Outcome[] =>
  suite.tests.map(({ id, expected, expected_status, blocks }) => {
    const block = (label: string): Uint8Array | undefined => {
      const found = blocks.find(block => block.label === label)
      return found === undefined ? undefined : base64(found.b64)
    }
    const wanted = (expected_status ?? expected ?? '').toLowerCase()
    const isKnown = wanted === 'good' || wanted === 'revoked'
    return run(id, isKnown ? wanted : 'unknown', () => {
      const chain = ['CERTIFICATE', 'CA CERTIFICATE', 'CA CERTIFICATE 2'].flatMap(label => {
        const encoded = block(label)
        return encoded === undefined ? [] : [read(encoded)]
      })
      const malformed = chain.find(certificate => !isRead(certificate))
      if (malformed !== undefined)
        return bad(`certificate malformed: ${String(malformed)}`, 'unknown')
      const certificates = chain.filter(isRead)
      const list = block('CRL')
      const crl = list === undefined ? undefined : parseCrl(list)
      const octets = block('OCSP RESPONSE')
      const response = octets === undefined ? undefined : parseOcspResponse(octets)
      for (const parsed of [crl, response]) {
        if (parsed !== undefined && isMalformed(parsed))
          return bad(`malformed: ${parsed.problem}`, 'unknown')
      }
      const options = pathOptions({
        anchors: certificates.slice(-1),
        intermediates: [],
        time: list === undefined ? RESPONSE_TIME : LIST_TIME,
        signatures: LEGACY,
      })
      const status = revocationStatus(
        { chain: certificates },
        {
          ...REVOCATION,
          maximumAge: WEEK,
          crls: crl === undefined || isMalformed(crl) ? [] : [crl],
          responses: response === undefined || isMalformed(response) ? [] : [response],
        },
        options,
      )
      return status.is === 'good' ? GOOD : bad(`${status.is} ${status.why}`, status.is)
    })
  })

// --- chains in PEM, as x509-limbo has them ---

interface PemSuite {
  readonly testcases: readonly {
    id: string
    validation_kind?: string
    trusted_certs: readonly string[]
    untrusted_intermediates?: readonly string[]
    peer_certificate: string
    validation_time?: string | null
    extended_key_usage?: readonly string[]
    expected_result: string
    expected_peer_name?: PeerName | null
    max_chain_depth?: number | null
    crls?: readonly string[] | null
  }[]
}

interface PeerName {
  readonly kind: string
  readonly value: string
}

const NAME_PREFIXES: Readonly<Record<string, string>> = {
  DNS: 'fqdn:',
  RFC822: 'email:',
  IP: '',
}

/** With the strict profile, for the purposes of TLS, and with wildcards: that is what this suite is about. */
const runPem = (suite: PemSuite): Outcome[] =>
  suite.testcases.map(test =>
    run(test.id, test.expected_result === 'SUCCESS' ? 'good' : 'bad', () => {
      const target = read(pem(test.peer_certificate))
      if (!isRead(target)) return bad(`malformed: ${target}`)
      const usages = test.extended_key_usage ?? []
      const options: PathOptions = {
        ...pathOptions({
          anchors: test.trusted_certs.map(text => read(pem(text))).filter(isRead),
          intermediates: (test.untrusted_intermediates ?? [])
            .map(text => read(pem(text)))
            .filter(isRead),
          time: Date.parse(test.validation_time ?? '') || Date.now(),
        }),
        isStrict: true,
        purposes:
          usages.length > 0
            ? usages.map(purpose)
            : [purpose(test.validation_kind === 'CLIENT' ? 'clientAuth' : 'serverAuth')],
        maximumIntermediates: test.max_chain_depth ?? 8,
      }
      const path = buildPath(target, options)
      if (isFailure(path)) return bad(`${path.code}: ${path.message}`)
      const usage = checkEndEntity(target)
      if (usage !== undefined) return bad(usage.message)
      const name = test.expected_peer_name
      if (name !== undefined && name !== null) {
        const identity = parseIdentity('name', `${NAME_PREFIXES[name.kind] ?? ''}${name.value}`)
        if (!hasIdentity(target, identity, true)) return bad(`is not for ${name.value}`)
      }
      const crls = (test.crls ?? [])
        .map(text => parseCrl(pem(text)))
        .filter((crl): crl is Crl => !isMalformed(crl))
      if (crls.length === 0) return GOOD
      // Lists of other issuers say nothing, and are not meant to.
      const policy = crls.some(({ issuer }) => sameName(issuer, target.issuer))
        ? 'require'
        : 'prefer'
      const problem = checkRevocation(path, { ...REVOCATION, policy, crls }, options)
      return problem === undefined ? GOOD : bad(`${problem.code}: ${problem.message}`)
    }),
  )

/** Whatever form the file has. */
export const runSuite = (suite: unknown): Outcome[] => {
  const { tests, testcases } = suite as { tests?: readonly object[]; testcases?: unknown }
  if (testcases !== undefined) return runPem(suite as PemSuite)
  if (tests !== undefined && 'blocks' in (tests[0] ?? {})) return runBlocks(suite as BlockSuite)
  return runPaths(suite as PathSuite)
}
