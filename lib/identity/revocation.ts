/**
 * Whether one of the certificates of a validated path was revoked, by the lists and responses at hand. Nothing
 * is fetched here. A list or response that is out of date can still say "revoked", never "good".
 */
import { equal } from '../base/bytes.ts'
import type { Backend } from '../crypto/prf.ts'
import { Budget } from './budget.ts'
import type { Certificate } from './certificate.ts'
import {
  ALL_REASONS,
  continues,
  reasonsCovered,
  REMOVE_FROM_CRL,
  revocationReason,
  staleness,
  type Crl,
} from './crl.ts'
import { KeyUsage } from './extensions.ts'
import { failure, isFailure, type Failure } from './failure.ts'
import { sameName } from './name.ts'
import { checkOcsp, type OcspResponse } from './ocsp.ts'
import { buildPath, type Path, type PathOptions } from './path.ts'
import type { SignaturePolicy } from './signed.ts'

/**
 * `require`: each certificate must be known to be good. `prefer`: none may be known to be revoked.
 * `off`: nothing is looked at.
 */
export type RevocationPolicy = 'require' | 'prefer' | 'off'

export interface RevocationOptions {
  readonly policy: RevocationPolicy
  readonly crls: readonly Crl[]
  readonly responses: readonly OcspResponse[]
  /** What was in our OCSP requests, if anything. */
  readonly nonce?: Uint8Array | undefined
  /** Milliseconds after which lists and responses are old; undefined: only their nextUpdate counts. */
  readonly maximumAge?: number | undefined
  readonly backend: Backend
}

export type RevocationStatus =
  | { readonly is: 'good' }
  | { readonly is: 'revoked' | 'unknown'; readonly why: string }

/** Undefined when the path is good enough for the policy. */
export const checkRevocation = (
  path: Path,
  revocation: RevocationOptions,
  options: PathOptions,
): Failure | undefined => {
  if (revocation.policy === 'off') return undefined
  const check = new Check(path, revocation, options)
  // From the anchor on: what a revoked CA says of others is worth nothing.
  for (let i = path.chain.length - 2; i >= 0; i--) {
    const status = check.statusOf(path.chain[i]!, path.chain[i + 1]!)
    if (check.isExhausted)
      return failure('TOO_MUCH_WORK', path.chain[i]!, 'has a status that is too much work to learn')
    if (status.is === 'revoked')
      return failure('REVOKED', path.chain[i]!, `was revoked by its issuer${status.why}`)
    if (status.is === 'unknown' && revocation.policy === 'require')
      return failure(
        'REVOCATION_UNKNOWN',
        path.chain[i]!,
        `may have been revoked, which nothing at hand rules out: ${status.why}`,
      )
  }
  return undefined
}

/** The status of the end entity alone. */
export const revocationStatus = (
  path: Path,
  revocation: RevocationOptions,
  options: PathOptions,
): RevocationStatus => new Check(path, revocation, options).statusOf(path.chain[0]!, path.chain[1]!)

const unknown = (why: string): RevocationStatus => ({ is: 'unknown', why })

/** RFC 5280 §5.3.1. */
const REASONS: Readonly<Record<number, string>> = {
  1: 'key compromise',
  2: 'CA compromise',
  3: 'affiliation changed',
  4: 'superseded',
  5: 'cessation of operation',
  6: 'certificate hold',
  9: 'privilege withdrawn',
  10: 'AA compromise',
}

/** Others than the issuer that may have signed a list: how many are tried. */
const SIGNER_LIMIT = 4

class Check {
  readonly #chain: readonly Certificate[]
  readonly #revocation: RevocationOptions
  readonly #options: PathOptions
  /** For all that is done here: a peer may send lists and responses too. */
  readonly #budget: Budget
  readonly #signatures: SignaturePolicy
  /** Whose status is being asked for: a list may be signed with a key whose status is in that list. */
  readonly #asked = new Set<Certificate>()
  readonly #signers = new Map<Certificate, boolean>()

  constructor({ chain }: Path, revocation: RevocationOptions, options: PathOptions) {
    this.#chain = chain
    this.#revocation = revocation
    this.#budget = new Budget(revocation.backend)
    this.#options = options
    const { signatures } = options
    this.#signatures = {
      ...signatures,
      verify: (signed, key) => this.#budget.takeSignature(key) && signatures.verify(signed, key),
    }
  }

  /** What is unknown then must not pass for good enough. */
  get isExhausted(): boolean {
    return this.#budget.isExhausted
  }

  statusOf(certificate: Certificate, issuer: Certificate): RevocationStatus {
    if (this.#asked.has(certificate)) return unknown('a list vouches for its own key')
    this.#asked.add(certificate)
    const lists = this.#askLists(certificate, issuer)
    this.#asked.delete(certificate)
    if (lists.is === 'revoked' || this.#revocation.responses.length === 0) return lists
    const responses = this.#askResponses(certificate, issuer)
    return responses.is === 'unknown' && lists.is === 'good' ? lists : responses
  }

  #askLists(certificate: Certificate, issuer: Certificate): RevocationStatus {
    const { crls, maximumAge } = this.#revocation
    const covered = new Set<number>()
    let why = 'there is no list or OCSP response of its issuer'
    const lists = crls.filter(crl => sameName(crl.issuer, certificate.issuer))
    const usable = lists.filter(crl => {
      const problem = this.#problemOf(crl, certificate, issuer)
      if (problem !== undefined) why = `the list of its issuer ${problem}`
      return problem === undefined
    })
    for (const crl of usable) {
      const stale = staleness(crl, this.#options.time, maximumAge)
      const reason = revocationReason(crl, certificate)
      if (reason !== undefined && !isRemoved(certificate, crl, usable, this.#options.time))
        return { is: 'revoked', why: reason in REASONS ? ` (${REASONS[reason]})` : '' }
      if (stale !== undefined) why = `the list of its issuer cannot be used: ${stale}`
      else if (crl.baseNumber === undefined)
        for (const reason of reasonsCovered(crl, certificate)) covered.add(reason)
    }
    return covered.size === ALL_REASONS.size ? { is: 'good' } : unknown(why)
  }

  /** Why a list says nothing about the certificate, whatever its date. */
  #problemOf(crl: Crl, certificate: Certificate, issuer: Certificate): string | undefined {
    if (crl.unusable !== undefined) return `cannot be used: ${crl.unusable}`
    // RFC 5280 §5.2.3
    if (this.#options.isStrict && crl.number === undefined)
      return 'cannot be used: it has no number'
    if (reasonsCovered(crl, certificate).size === 0) return 'does not speak about it'
    return this.#isAuthentic(crl, issuer) ? undefined : 'is not signed by a key that may'
  }

  #askResponses(certificate: Certificate, issuer: Certificate): RevocationStatus {
    const { responses, maximumAge, nonce, backend } = this.#revocation
    const { time } = this.#options
    let status = unknown('there is no OCSP response about it')
    for (const response of responses) {
      const verdict = checkOcsp(response, certificate, issuer, {
        time,
        signatures: this.#signatures,
        maximumAge,
        nonce,
        backend,
        believes: responder => !this.#isListed(responder, issuer),
      })
      if (verdict.status === 'revoked') return { is: 'revoked', why: '' }
      if (verdict.status === 'good') status = { is: 'good' }
      else if (status.is === 'unknown') status = unknown(verdict.why)
    }
    return status
  }

  /** Whether an OCSP responder's certificate is in a list; most have none to be in (RFC 6960 §4.2.2.2.1). */
  #isListed(responder: Certificate, issuer: Certificate): boolean {
    return this.#revocation.crls.some(
      crl =>
        revocationReason(crl, responder) !== undefined &&
        reasonsCovered(crl, responder).size > 0 &&
        this.#isAuthentic(crl, issuer),
    )
  }

  /** §6.3.3 (f), (g): signed by the issuer's key, or by another key of the same name below the same anchor. */
  #isAuthentic(crl: Crl, issuer: Certificate): boolean {
    return (
      this.#signed(crl, issuer) ||
      this.#otherSigners(issuer).some(signer => this.#signed(crl, signer))
    )
  }

  #signed(crl: Crl, signer: Certificate): boolean {
    if (signer.extensions.keyUsage?.has(KeyUsage.CrlSign) === false) return false
    const known = VERIFIED.get(crl)
    if (known !== undefined && equal(known, signer.spki)) return true
    const key = this.#signatures.readKey(signer.spki)
    if (key === undefined || !this.#signatures.verify(crl.signed, key)) return false
    VERIFIED.set(crl, signer.spki)
    return true
  }

  /** Those on the path are validated already. A name that only compares alike may be somebody else's. */
  #otherSigners(issuer: Certificate): readonly Certificate[] {
    const isNamed = (signer: Certificate): boolean =>
      signer !== issuer && equal(signer.subject.bytes, issuer.subject.bytes)
    const others = this.#options.intermediates
      .filter(signer => isNamed(signer) && !this.#chain.includes(signer))
      .slice(0, SIGNER_LIMIT)
    return [
      ...this.#chain.slice(1).filter(isNamed),
      ...others.filter(signer => this.#isGoodSigner(signer)),
    ]
  }

  #isGoodSigner(signer: Certificate): boolean {
    const known = this.#signers.get(signer)
    if (known !== undefined) return known
    this.#signers.set(signer, false)
    const options = { ...this.#options, purposes: undefined, allowsPinned: false }
    const path = buildPath(signer, options, this.#budget)
    if (isFailure(path) || path.chain.at(-1) !== this.#chain.at(-1)) return false
    const isGood = path.chain.slice(0, -1).every((certificate, i) => {
      const { is } = this.statusOf(certificate, path.chain[i + 1]!)
      return is === 'good' || (is === 'unknown' && this.#revocation.policy === 'prefer')
    })
    this.#signers.set(signer, isGood)
    return isGood
  }
}

/**
 * A delta list can take back what the complete list says, when it continues that; and the entry in the delta that
 * does so revokes nothing. Both must be in date.
 */
const isRemoved = (
  certificate: Certificate,
  crl: Crl,
  usable: readonly Crl[],
  time: number,
): boolean =>
  crl.baseNumber === undefined
    ? usable.some(
        delta =>
          continues(delta, crl) &&
          staleness(delta, time, undefined) === undefined &&
          revocationReason(delta, certificate) === REMOVE_FROM_CRL,
      )
    : revocationReason(crl, certificate) === REMOVE_FROM_CRL

/** The key that was found to have signed a list: it is large, and read again for each peer. */
const VERIFIED = new WeakMap<Crl, Uint8Array>()
