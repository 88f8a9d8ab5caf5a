/**
 * Validation of one chain from a trust anchor to an end entity (RFC 5280 §6.1). Cheap checks come first, then
 * signatures from the anchor on, so that nobody without a genuine certificate makes us work; names and
 * policies, whose cost the issuers choose, come last.
 */
import type { PublicKey } from '../crypto/signature.ts'
import type { Budget } from './budget.ts'
import { isSelfIssued, type Certificate } from './certificate.ts'
import { ExtensionId, KeyPurpose, KeyUsage } from './extensions.ts'
import { failure, printTime, type Failure } from './failure.ts'
import { GeneralNameType, type GeneralName } from './general-name.ts'
import { NameConstraintChecker } from './name-constraints.ts'
import { isEmptyName } from './name.ts'
import { PolicyChecker, type PolicyOptions } from './policies.ts'
import type { SignaturePolicy } from './signed.ts'

export interface ChainOptions {
  /** Milliseconds since 1970. */
  readonly time: number
  readonly signatures: SignaturePolicy
  /** Any of these extended key usages will do; undefined: they do not matter. */
  readonly purposes: readonly string[] | undefined
  readonly policies: PolicyOptions
  /** Demand of CAs all that RFC 5280 §4.2 asks of them, also what RFC 4945 does not. */
  readonly isStrict: boolean
}

const MAXIMUM_SERIAL = 20

/** What a certificate cannot be believed for by itself, whatever chain it stands in. */
export const checkAlone = (
  certificate: Certificate,
  { time, signatures }: ChainOptions,
): Failure | undefined => {
  const { extensions, serial, subject, signed } = certificate
  const fail = (...[code, problem]: [Failure['code'], string]): Failure =>
    failure(code, certificate, problem)
  const wrongTime = checkTime(certificate, time)
  if (wrongTime !== undefined) return wrongTime
  const [unknown] = extensions.unknownCritical
  if (unknown !== undefined)
    return fail('CRITICAL_EXTENSION', `has the critical extension ${unknown}, which is unknown`)
  // §4.1.2.2
  if (serial[0]! >= 0x80 || serial.every(octet => octet === 0) || serial.length > MAXIMUM_SERIAL)
    return fail('PROFILE', 'has a serial number that is not positive or longer than 20 octets')
  // §4.1.2.6: who has no subject has a critical subjectAltName.
  if (isEmptyName(subject) && !extensions.critical.has(ExtensionId.SubjectAltName))
    return fail('PROFILE', 'has neither a subject nor a critical subjectAltName')
  // §4.2.1.3: a key that may sign certificates belongs to a CA.
  if (extensions.keyUsage?.has(KeyUsage.KeyCertSign) === true && !extensions.isCa)
    return fail('KEY_USAGE', 'may sign certificates by its keyUsage but is no CA')
  if (!signatures.knows(signed.algorithm))
    return fail('WEAK_ALGORITHM', 'is signed with an algorithm that is unknown or too weak')
  return undefined
}

/**
 * §4.1.2.5: validity includes the whole second that `notAfter` names. The cure may be to set our own clock, so a
 * refusal says what it shows. Written so that a time that is no number is never within.
 */
const checkTime = (certificate: Certificate, time: number): Failure | undefined => {
  const { notBefore, notAfter } = certificate
  if (time >= notBefore && time < notAfter + 1000) return undefined
  const clock = `our clock says ${printTime(time)}`
  return time >= notBefore
    ? failure('EXPIRED', certificate, `expired (notAfter ${printTime(notAfter)}; ${clock})`)
    : failure(
        'NOT_YET_VALID',
        certificate,
        `is not yet valid (notBefore ${printTime(notBefore)}; ${clock})`,
      )
}

/** What a certificate that signs another one must be (§6.1.4 k, m, n). */
export const checkIssuer = (certificate: Certificate): Failure | undefined => {
  const { extensions, subject } = certificate
  if (!extensions.isCa)
    return failure('NOT_A_CA', certificate, 'is not a CA: basicConstraints does not say so')
  if (extensions.keyUsage?.has(KeyUsage.KeyCertSign) === false)
    return failure('KEY_USAGE', certificate, 'may not sign certificates by its keyUsage')
  if (isEmptyName(subject)) return failure('PROFILE', certificate, 'is a CA without a name')
  return undefined
}

/**
 * A trust anchor is believed for its name and key (§6.1.1 d). What it says of its own limits counts too
 * (RFC 5937 §3): validity, being a CA, keyUsage, critical extensions. Version 1 could not say any of it.
 */
export const checkAnchor = (anchor: Certificate, { time }: ChainOptions): Failure | undefined => {
  const { version, extensions } = anchor
  const wrongTime = checkTime(anchor, time)
  if (wrongTime !== undefined) return wrongTime
  const [unknown] = extensions.unknownCritical
  if (unknown !== undefined)
    return failure('CRITICAL_EXTENSION', anchor, `has the unknown critical extension ${unknown}`)
  return version === 3 ? checkIssuer(anchor) : undefined
}

/** The results of signatures and keys, since paths share them. */
export class SignatureCache {
  readonly #policy: SignaturePolicy
  readonly #budget: Budget
  readonly #keys = new Map<Certificate, PublicKey | undefined>()
  readonly #results = new Map<Certificate, Map<Certificate, boolean>>()

  constructor(policy: SignaturePolicy, budget: Budget) {
    this.#policy = policy
    this.#budget = budget
  }

  keyOf(certificate: Certificate): PublicKey | undefined {
    if (!this.#keys.has(certificate))
      this.#keys.set(certificate, this.#policy.readKey(certificate.spki))
    return this.#keys.get(certificate)
  }

  /** Undefined when it was not tried yet. */
  known(issuer: Certificate, certificate: Certificate): boolean | undefined {
    return this.#results.get(certificate)?.get(issuer)
  }

  verify(issuer: Certificate, certificate: Certificate): boolean {
    const known = this.known(issuer, certificate)
    if (known !== undefined) return known
    const key = this.keyOf(issuer)
    if (key === undefined) return false
    if (!this.#budget.takeSignature(key)) return false
    const isGood = this.#policy.verify(certificate.signed, key)
    const results = this.#results.get(certificate) ?? new Map<Certificate, boolean>()
    this.#results.set(certificate, results.set(issuer, isGood))
    return isGood
  }
}

/** How far a chain came, so that the failure of the one that came furthest is told. */
export interface ChainFailure {
  readonly stage: number
  readonly failure: Failure
}

/** `chain`: the trust anchor first, the end entity last. The checks of single certificates were made before. */
export const validateChain = (
  chain: readonly Certificate[],
  options: ChainOptions,
  cache: SignatureCache,
  budget: Budget,
): ChainFailure | undefined => {
  const stages = [checkStructure, checkSignatures, checkNames, checkPolicies]
  for (const [stage, check] of stages.entries()) {
    const failure = check(chain, options, cache, budget)
    if (failure !== undefined) return { stage, failure }
  }
  return undefined
}

type Stage = (
  chain: readonly Certificate[],
  options: ChainOptions,
  cache: SignatureCache,
  budget: Budget,
) => Failure | undefined

/** Path length (§6.1.4 l, m), and extended key usage, which what a CA is not for its subjects are not for either. */
const checkStructure: Stage = (chain, { purposes, isStrict }) => {
  let left = Infinity
  let allowed = purposes
  for (const [i, certificate] of chain.entries()) {
    const { extensions } = certificate
    const isLast = i === chain.length - 1
    if (!isLast) {
      if (i > 0 && !isSelfIssued(certificate) && --left < 0)
        return failure(
          'PATH_LENGTH',
          certificate,
          'is one CA more than a pathLength above it allows',
        )
      left = Math.min(left, extensions.pathLength ?? Infinity)
    }
    const usages = extensions.extendedKeyUsage
    if (allowed !== undefined && usages !== undefined && !usages.includes(KeyPurpose.Any)) {
      allowed = allowed.filter(purpose => usages.includes(purpose))
      if (allowed.length === 0)
        return failure(
          'EXTENDED_KEY_USAGE',
          certificate,
          'is for other purposes than IKE by its extendedKeyUsage',
        )
    }
    const problem = isStrict ? strictProblem(certificate, i === 0, isLast) : undefined
    if (problem !== undefined) return failure('PROFILE', certificate, problem)
  }
  return undefined
}

const checkSignatures: Stage = (chain, _options, cache, budget) => {
  for (const [i, certificate] of chain.entries()) {
    if (cache.keyOf(certificate) === undefined)
      return failure('WEAK_KEY', certificate, 'has a public key that is malformed or too weak')
    const issuer = chain[i - 1]
    if (issuer === undefined || cache.verify(issuer, certificate)) continue
    return budget.isExhausted
      ? tooMuchWork(certificate)
      : failure('BAD_SIGNATURE', certificate, 'has a signature that its issuer did not make')
  }
  return undefined
}

const tooMuchWork = (certificate: Certificate): Failure =>
  failure('TOO_MUCH_WORK', certificate, 'belongs to a set that is too much work to check')

const checkNames: Stage = (chain, _options, _cache, budget) => {
  const checker = new NameConstraintChecker()
  for (const [i, certificate] of chain.entries()) {
    const isLast = i === chain.length - 1
    // §6.1.3 (b): a CA that issues to itself is not constrained by itself.
    if (i > 0 && (isLast || !isSelfIssued(certificate))) {
      const problem = checker.check(certificate, budget)
      if (budget.isExhausted) return tooMuchWork(certificate)
      if (problem !== undefined) return failure('NAME_CONSTRAINTS', certificate, problem)
    }
    const { nameConstraints } = certificate.extensions
    if (nameConstraints !== undefined) checker.add(nameConstraints)
  }
  return undefined
}

const checkPolicies: Stage = (chain, { policies }) => {
  const path = chain.slice(1)
  const checker = new PolicyChecker(policies, path.length)
  for (const [i, certificate] of path.entries()) {
    const problem = checker.next(certificate, i === path.length - 1)
    if (problem !== undefined) return failure('POLICY', certificate, problem)
  }
  return undefined
}

/** Demands of RFC 5280 §4 on issuers, which RFC 4945 §5.1.3 lets a verifier of IKE pass over. */
const strictProblem = (
  { extensions, subject, issuer }: Certificate,
  isAnchor: boolean,
  isLast: boolean,
): string | undefined => {
  const { critical, present, isCa } = extensions
  const isRoot = isAnchor && subject.key === issuer.key
  for (const id of [
    ExtensionId.AuthorityKeyIdentifier,
    ExtensionId.SubjectKeyIdentifier,
    ExtensionId.AuthorityInfoAccess,
  ]) {
    if (critical.has(id)) return `has the extension ${id} marked critical`
  }
  if (!isRoot && extensions.authorityKeyId === undefined) return 'has no authorityKeyIdentifier'
  for (const id of [
    ExtensionId.NameConstraints,
    ExtensionId.PolicyConstraints,
    ExtensionId.InhibitAnyPolicy,
  ]) {
    if (present.has(id) && !critical.has(id)) return `has the extension ${id} not marked critical`
  }
  const { permitted = [], excluded = [] } = extensions.nameConstraints ?? {}
  // §4.2.1.10 has such periods for e-mail addresses and URIs alone.
  if ([...permitted, ...excluded].some(isDnsWithPeriod))
    return 'has a constraint on DNS names that begins with a period'
  if (isLast && !isCa)
    return present.has(ExtensionId.NameConstraints)
      ? 'has name constraints but is no CA'
      : undefined
  if (!present.has(ExtensionId.SubjectKeyIdentifier)) return 'is a CA without subjectKeyIdentifier'
  if (!critical.has(ExtensionId.BasicConstraints))
    return 'is a CA with basicConstraints that are not critical'
  if (!present.has(ExtensionId.KeyUsage)) return 'is a CA without keyUsage'
  return undefined
}

const isDnsWithPeriod = ({ type, text }: GeneralName): boolean =>
  type === GeneralNameType.Dns && text.startsWith('.')
