/** The extensions of a certificate (RFC 5280 §4.2) that a verifier must understand, as facts. */
import { contextTag, type DerReader } from '../base/der.ts'
import {
  GeneralNameType,
  RANGE_LENGTHS,
  readGeneralName,
  readGeneralNames,
  type GeneralName,
} from './general-name.ts'
import { readRelativeName } from './name.ts'

export const ExtensionId = {
  SubjectKeyIdentifier: '2.5.29.14',
  KeyUsage: '2.5.29.15',
  SubjectAltName: '2.5.29.17',
  IssuerAltName: '2.5.29.18',
  BasicConstraints: '2.5.29.19',
  /** The extensions of lists are in the same tree. */
  CrlNumber: '2.5.29.20',
  NameConstraints: '2.5.29.30',
  CrlDistributionPoints: '2.5.29.31',
  CertificatePolicies: '2.5.29.32',
  PolicyMappings: '2.5.29.33',
  AuthorityKeyIdentifier: '2.5.29.35',
  PolicyConstraints: '2.5.29.36',
  ExtendedKeyUsage: '2.5.29.37',
  InhibitAnyPolicy: '2.5.29.54',
  AuthorityInfoAccess: '1.3.6.1.5.5.7.1.1',
  OcspNoCheck: '1.3.6.1.5.5.7.48.1.5',
} as const

/** Bits of keyUsage (RFC 5280 §4.2.1.3). */
export const KeyUsage = {
  DigitalSignature: 0,
  NonRepudiation: 1,
  KeyCertSign: 5,
  CrlSign: 6,
} as const

/** Purposes of extendedKeyUsage (RFC 5280 §4.2.1.12, RFC 4945 §5.1.3.12, RFC 6960 §4.2.2.2). */
export const KeyPurpose = {
  ServerAuth: '1.3.6.1.5.5.7.3.1',
  ClientAuth: '1.3.6.1.5.5.7.3.2',
  OcspSigning: '1.3.6.1.5.5.7.3.9',
  IpsecIke: '1.3.6.1.5.5.7.3.17',
  Any: '2.5.29.37.0',
} as const

export const ANY_POLICY = '2.5.29.32.0'

export interface NameConstraints {
  readonly permitted: readonly GeneralName[]
  readonly excluded: readonly GeneralName[]
}

/** Where a list of revoked certificates is to be found. */
export interface PointName {
  readonly names: readonly GeneralName[]
  /** The part that makes a directory name when put behind the issuer's; undefined: it is not relative. */
  readonly relative: string | undefined
}

export interface DistributionPoint {
  /** Undefined: the issuer's name is. */
  readonly point: PointName | undefined
  /** Undefined: all of them. */
  readonly reasons: ReadonlySet<number> | undefined
  /** Somebody else signs the list: an indirect one. */
  readonly hasOtherIssuer: boolean
}

export interface Extensions {
  /** Those marked critical, by dotted identifier. */
  readonly critical: ReadonlySet<string>
  /** Critical ones that nobody here understands. */
  readonly unknownCritical: readonly string[]
  readonly present: ReadonlySet<string>
  readonly isCa: boolean
  readonly pathLength: number | undefined
  readonly keyUsage: ReadonlySet<number> | undefined
  readonly extendedKeyUsage: readonly string[] | undefined
  readonly subjectAltNames: readonly GeneralName[]
  readonly nameConstraints: NameConstraints | undefined
  readonly policies: readonly string[] | undefined
  /** Pairs of the issuer's and the subject's policy. */
  readonly policyMappings: readonly (readonly [string, string])[]
  readonly requireExplicitPolicy: number | undefined
  readonly inhibitPolicyMapping: number | undefined
  readonly inhibitAnyPolicy: number | undefined
  readonly subjectKeyId: Uint8Array | undefined
  readonly authorityKeyId: Uint8Array | undefined
  readonly crlDistributionPoints: readonly DistributionPoint[] | undefined
  /** Where OCSP responders are said to be. */
  readonly ocspUris: readonly string[]
}

type MutableExtensions = { -readonly [Fact in keyof Extensions]: Extensions[Fact] }

export interface RawExtension {
  readonly id: string
  readonly isCritical: boolean
  readonly value: Uint8Array
}

/** Extensions ::= SEQUENCE SIZE (1..MAX) OF Extension. RFC 5280 §4.2: at most one of a kind. */
export const readRawExtensions = (reader: DerReader): readonly RawExtension[] => {
  const list = reader.enter()
  const found = new Map<string, RawExtension>()
  do {
    const extension = list.enter()
    const id = extension.oid()
    const isCritical = extension.defaultFalse()
    const value = extension.octetString()
    extension.end()
    if (found.has(id)) reader.fail(`the extension ${id} is there twice`)
    found.set(id, { id, isCritical, value })
  } while (list.more)
  return [...found.values()]
}

export const interpretExtensions = (
  reader: DerReader,
  extensions: readonly RawExtension[],
): Extensions => {
  const draft: MutableExtensions = {
    critical: new Set(extensions.filter(({ isCritical }) => isCritical).map(({ id }) => id)),
    unknownCritical: extensions
      .filter(({ id, isCritical }) => isCritical && !Object.hasOwn(HANDLERS, id))
      .map(({ id }) => id),
    present: new Set(extensions.map(({ id }) => id)),
    isCa: false,
    pathLength: undefined,
    keyUsage: undefined,
    extendedKeyUsage: undefined,
    subjectAltNames: [],
    nameConstraints: undefined,
    policies: undefined,
    policyMappings: [],
    requireExplicitPolicy: undefined,
    inhibitPolicyMapping: undefined,
    inhibitAnyPolicy: undefined,
    subjectKeyId: undefined,
    authorityKeyId: undefined,
    crlDistributionPoints: undefined,
    ocspUris: [],
  }
  for (const { id, value, isCritical } of extensions) {
    if (!Object.hasOwn(HANDLERS, id)) continue
    const inner = reader.inside(value)
    HANDLERS[id]!(inner, draft, isCritical)
    inner.end()
  }
  return draft
}

type Handler = (reader: DerReader, draft: MutableExtensions, isCritical: boolean) => void

const HANDLERS: Readonly<Record<string, Handler>> = {
  [ExtensionId.SubjectKeyIdentifier]: (reader, draft) => {
    draft.subjectKeyId = reader.octetString()
  },
  [ExtensionId.KeyUsage]: (reader, draft) => {
    draft.keyUsage = reader.namedBits()
    if (draft.keyUsage.size === 0) reader.fail('no key usage is named')
  },
  [ExtensionId.SubjectAltName]: (reader, draft) => {
    draft.subjectAltNames = readGeneralNames(reader.enter())
  },
  [ExtensionId.IssuerAltName]: reader => void readGeneralNames(reader.enter()),
  [ExtensionId.BasicConstraints]: (reader, draft) => {
    const constraints = reader.enter()
    draft.isCa = constraints.defaultFalse()
    if (constraints.more) draft.pathLength = constraints.smallInteger()
    constraints.end()
    // §4.2.1.9: only together with cA.
    if (draft.pathLength !== undefined && !draft.isCa)
      reader.fail('a path length is given without being a CA')
  },
  [ExtensionId.NameConstraints]: (reader, draft) => {
    const constraints = reader.enter()
    const permitted = constraints.enterOptional(contextTag(0, true))
    const excluded = constraints.enterOptional(contextTag(1, true))
    constraints.end()
    if (permitted === undefined && excluded === undefined) reader.fail('name constraints are empty')
    draft.nameConstraints = {
      permitted: permitted === undefined ? [] : readSubtrees(permitted),
      excluded: excluded === undefined ? [] : readSubtrees(excluded),
    }
  },
  [ExtensionId.CrlDistributionPoints]: (reader, draft) => {
    const points = reader.enter()
    const found: DistributionPoint[] = []
    do found.push(readDistributionPoint(points.enter()))
    while (points.more)
    draft.crlDistributionPoints = found
  },
  [ExtensionId.CertificatePolicies]: (reader, draft, isCritical) => {
    const list = reader.enter()
    const policies = new Set<string>()
    do {
      const policy = list.enter()
      const id = policy.oid()
      // §4.2.1.4: no policy twice.
      if (policies.has(id)) reader.fail(`the policy ${id} is there twice`)
      policies.add(id)
      if (policy.more) readQualifiers(policy.enter(), isCritical)
      policy.end()
    } while (list.more)
    draft.policies = [...policies]
  },
  [ExtensionId.PolicyMappings]: (reader, draft) => {
    const list = reader.enter()
    const mappings: [string, string][] = []
    do {
      const mapping = list.enter()
      mappings.push([mapping.oid(), mapping.oid()])
      mapping.end()
    } while (list.more)
    draft.policyMappings = mappings
  },
  [ExtensionId.AuthorityKeyIdentifier]: (reader, draft) => {
    const identifier = reader.enter()
    draft.authorityKeyId = identifier.optional(contextTag(0))?.content
    const issuer = identifier.enterOptional(contextTag(1, true))
    if (issuer !== undefined) readGeneralNames(issuer)
    const hasSerial = identifier.nextTag === contextTag(2)
    if (hasSerial) identifier.integer(contextTag(2))
    identifier.end()
    // §4.2.1.1: both or neither.
    if ((issuer !== undefined) !== hasSerial) reader.fail('an issuer is given without its serial')
  },
  [ExtensionId.PolicyConstraints]: (reader, draft) => {
    const constraints = reader.enter()
    const optional = (number: number): number | undefined =>
      constraints.nextTag === contextTag(number)
        ? constraints.smallInteger(contextTag(number))
        : undefined
    draft.requireExplicitPolicy = optional(0)
    draft.inhibitPolicyMapping = optional(1)
    constraints.end()
    if (draft.requireExplicitPolicy === undefined && draft.inhibitPolicyMapping === undefined)
      reader.fail('policy constraints are empty')
  },
  [ExtensionId.ExtendedKeyUsage]: (reader, draft) => {
    const list = reader.enter()
    const purposes: string[] = []
    do purposes.push(list.oid())
    while (list.more)
    draft.extendedKeyUsage = purposes
  },
  [ExtensionId.InhibitAnyPolicy]: (reader, draft) => {
    draft.inhibitAnyPolicy = reader.smallInteger()
  },
  [ExtensionId.AuthorityInfoAccess]: (reader, draft) => {
    const list = reader.enter()
    const uris: string[] = []
    do {
      const access = list.enter()
      const method = access.oid()
      const { type, text } = readGeneralName(access)
      access.end()
      if (method === '1.3.6.1.5.5.7.48.1' && type === GeneralNameType.Uri) uris.push(text)
    } while (list.more)
    draft.ocspUris = uris
  },
  // RFC 6960 §4.2.2.2.1; that it is there is all it says.
  [ExtensionId.OcspNoCheck]: reader => reader.null(),
}

/** GeneralSubtrees: `minimum` is zero and thus left out, `maximum` is not there (§4.2.1.10). */
const readSubtrees = (reader: DerReader): readonly GeneralName[] => {
  const bases: GeneralName[] = []
  do {
    const subtree = reader.enter()
    bases.push(readGeneralName(subtree, RANGE_LENGTHS))
    subtree.end()
  } while (reader.more)
  return bases
}

/** §4.2.1.4: what is critical must be understood down to the qualifiers, of which there are two. */
const readQualifiers = (reader: DerReader, isCritical: boolean): void => {
  do {
    const qualifier = reader.enter()
    const id = qualifier.oid()
    qualifier.any()
    qualifier.end()
    if (isCritical && id !== '1.3.6.1.5.5.7.2.1' && id !== '1.3.6.1.5.5.7.2.2')
      reader.fail('a critical policy has an unknown qualifier')
  } while (reader.more)
}

/** DistributionPointName, within its explicit tag [0]. */
export const readPointName = (reader: DerReader): PointName => {
  const full = reader.enterOptional(contextTag(0, true))
  const point =
    full === undefined
      ? { names: [], relative: readRelativeName(reader.enter(contextTag(1, true))) }
      : { names: readGeneralNames(full), relative: undefined }
  reader.end()
  return point
}

const readDistributionPoint = (reader: DerReader): DistributionPoint => {
  const name = reader.enterOptional(contextTag(0, true))
  const point = name === undefined ? undefined : readPointName(name)
  const reasons = reader.nextTag === contextTag(1) ? reader.namedBits(contextTag(1)) : undefined
  const issuer = reader.enterOptional(contextTag(2, true))
  if (issuer !== undefined) readGeneralNames(issuer)
  reader.end()
  // §4.2.1.13: reasons alone make no distribution point.
  if (point === undefined && issuer === undefined) reader.fail('a distribution point is nowhere')
  return { point, reasons, hasOtherIssuer: issuer !== undefined }
}
