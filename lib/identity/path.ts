/**
 * Building a path from the certificate of a peer to a trust anchor (RFC 4158), over a set in any order that
 * the peer chose: a depth-first search with limits on everything it does. No signature is verified before a
 * candidate reaches an anchor, and then from the anchor on.
 */
import { equal, toHex } from '../base/bytes.ts'
import { Budget } from './budget.ts'
import { isSelfIssued, type Certificate } from './certificate.ts'
import {
  checkAlone,
  checkAnchor,
  checkIssuer,
  SignatureCache,
  validateChain,
  type ChainFailure,
  type ChainOptions,
} from './chain.ts'
import { formatName } from './name.ts'
import { failure, type Failure } from './failure.ts'

/** The CAs that are believed, found by their name. */
export class TrustAnchors {
  readonly all: readonly Certificate[]
  readonly #byName = new Map<string, Certificate[]>()

  constructor(anchors: readonly Certificate[]) {
    this.all = anchors
    for (const anchor of anchors) {
      const same = this.#byName.get(anchor.subject.key) ?? []
      same.push(anchor)
      this.#byName.set(anchor.subject.key, same)
    }
  }

  named(key: string): readonly Certificate[] {
    return this.#byName.get(key) ?? []
  }

  has({ bytes, subject }: Certificate): boolean {
    return this.named(subject.key).some(anchor => equal(anchor.bytes, bytes))
  }
}

export interface PathOptions extends ChainOptions {
  readonly anchors: TrustAnchors
  /** In any order; those that do not belong to a path do not matter. */
  readonly intermediates: readonly Certificate[]
  /** Between the end entity and the anchor; as in a pathLength, what is self-issued does not count. */
  readonly maximumIntermediates: number
  /** Whether a self-signed certificate that is itself an anchor may be the end entity's. */
  readonly allowsPinned: boolean
}

export interface Path {
  /** The end entity first, the trust anchor last; one certificate alone when it is both. */
  readonly chain: readonly Certificate[]
}

export const buildPath = (
  endEntity: Certificate,
  options: PathOptions,
  budget: Budget = new Budget(),
): Path | Failure => {
  const alone = checkAlone(endEntity, options)
  if (alone !== undefined) return alone
  const search = new Search(options, budget)
  if (options.allowsPinned && options.anchors.has(endEntity) && isSelfIssued(endEntity))
    return search.pinned(endEntity)
  return search.from(endEntity)
}

class Search {
  readonly #options: PathOptions
  readonly #budget: Budget
  readonly #cache: SignatureCache
  readonly #byName = new Map<string, Certificate[]>()
  /** The end entity first. */
  readonly #path: Certificate[] = []
  /** Name and key of those on the path: a CA comes once, or paths go in circles. */
  readonly #visited = new Set<string>()
  readonly #identities = new Map<Certificate, string>()
  #worst: ChainFailure | undefined

  constructor(options: PathOptions, budget: Budget) {
    this.#options = options
    this.#budget = budget
    this.#cache = new SignatureCache(options.signatures, budget)
    const seen = new Set<string>()
    for (const certificate of options.intermediates) {
      const octets = toHex(certificate.bytes)
      if (seen.has(octets)) continue
      seen.add(octets)
      const same = this.#byName.get(certificate.subject.key) ?? []
      same.push(certificate)
      this.#byName.set(certificate.subject.key, same)
    }
  }

  from(endEntity: Certificate): Path | Failure {
    if (this.#extend(endEntity)) return { chain: [...this.#path] }
    if (this.#budget.isExhausted)
      return failure('TOO_MUCH_WORK', endEntity, 'came with a set that is too much work to check')
    return this.#worst?.failure ?? failure('UNKNOWN_ISSUER', endEntity, 'has an unknown issuer')
  }

  pinned(endEntity: Certificate): Path | Failure {
    // RFC 5280 §6.1 is about certificates below an anchor; this one vouches for itself.
    const problem = validateChain([endEntity, endEntity], this.#options, this.#cache, this.#budget)
    return problem?.failure ?? { chain: [endEntity] }
  }

  /** Whether a valid path goes on from `certificate`, which then is on `#path` with what follows. */
  #extend(certificate: Certificate): boolean {
    if (!this.#budget.countStep()) return false
    const identity = this.#identify(certificate)
    if (this.#visited.has(identity)) return false
    this.#visited.add(identity)
    this.#path.push(certificate)
    const found = this.#reachesAnchor(certificate) || this.#climbs(certificate)
    if (found) return true
    this.#path.pop()
    this.#visited.delete(identity)
    return false
  }

  /** Name and key as a text, made once. */
  #identify(certificate: Certificate): string {
    const known = this.#identities.get(certificate)
    if (known !== undefined) return known
    const identity = `${certificate.subject.key}\n${toHex(certificate.spki)}`
    this.#identities.set(certificate, identity)
    return identity
  }

  #reachesAnchor(certificate: Certificate): boolean {
    for (const anchor of this.#options.anchors.named(certificate.issuer.key)) {
      if (this.#cache.known(anchor, certificate) === false) continue
      // An anchor vouches for those below it, not for itself.
      if (this.#visited.has(this.#identify(anchor))) {
        this.#note({ stage: -1, failure: failure('UNKNOWN_ISSUER', certificate, SELF) })
        continue
      }
      if (!this.#budget.takePath()) return false
      const problem = checkAnchor(anchor, this.#options)
      const outcome =
        problem === undefined
          ? validateChain(
              [anchor, ...this.#path.toReversed()],
              this.#options,
              this.#cache,
              this.#budget,
            )
          : { stage: 0, failure: problem }
      if (outcome === undefined) {
        this.#path.push(anchor)
        return true
      }
      this.#note(outcome)
    }
    return false
  }

  #climbs(certificate: Certificate): boolean {
    const issuers = this.#byName.get(certificate.issuer.key) ?? []
    if (issuers.length === 0 && this.#options.anchors.named(certificate.issuer.key).length === 0)
      this.#note({ stage: -1, failure: unknownIssuer(certificate) })
    const room =
      this.#options.maximumIntermediates -
      this.#path.slice(1).filter(each => !isSelfIssued(each)).length
    for (const issuer of byLikelihood(issuers, certificate)) {
      if (this.#cache.known(issuer, certificate) === false) continue
      const problem =
        room > 0 || isSelfIssued(issuer)
          ? (checkAlone(issuer, this.#options) ?? checkIssuer(issuer))
          : failure('PATH_LENGTH', issuer, 'is further from a trusted CA than is allowed')
      if (problem !== undefined) this.#note({ stage: 0, failure: problem })
      else if (this.#extend(issuer)) return true
      if (this.#budget.isExhausted) return false
    }
    return false
  }

  #note(outcome: ChainFailure): void {
    if (this.#worst === undefined || outcome.stage > this.#worst.stage) this.#worst = outcome
  }
}

const SELF = 'is a trusted CA itself, and no certificate that it has issued'

const unknownIssuer = (certificate: Certificate): Failure =>
  failure(
    'UNKNOWN_ISSUER',
    certificate,
    isSelfIssued(certificate)
      ? 'is self-signed and not among the trusted ones'
      : `has an issuer, ${formatName(certificate.issuer)}, that is neither a trusted CA nor among the certificates sent`,
  )

/** Key identifiers are a hint where to look first, never a proof (RFC 5280 §4.2.1.1). */
const byLikelihood = (
  issuers: readonly Certificate[],
  { extensions: { authorityKeyId } }: Certificate,
): readonly Certificate[] => {
  if (authorityKeyId === undefined || issuers.length < 2) return issuers
  const distance = ({ extensions: { subjectKeyId } }: Certificate): number =>
    subjectKeyId === undefined ? 1 : equal(subjectKeyId, authorityKeyId) ? 0 : 2
  return issuers.toSorted((a, b) => distance(a) - distance(b))
}
