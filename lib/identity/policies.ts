/**
 * Certificate policies (RFC 5280 §6.1, as RFC 9618 computes them): instead of a tree that can grow
 * exponentially, one node per policy and depth, and of the graph only the last depth, which is all that later
 * certificates and the result depend on.
 */
import type { Certificate } from './certificate.ts'
import { isSelfIssued } from './certificate.ts'
import { ANY_POLICY } from './extensions.ts'

export interface PolicyOptions {
  /** Policies the user accepts; with `ANY_POLICY` all of them. */
  readonly acceptable: ReadonlySet<string>
  readonly requireExplicit: boolean
  readonly inhibitMapping: boolean
  readonly inhibitAny: boolean
}

/** A verifier that does not care about policies, as RFC 5280 §6.1.1 lets it say. */
export const ANY_POLICIES: PolicyOptions = {
  acceptable: new Set([ANY_POLICY]),
  requireExplicit: false,
  inhibitMapping: false,
  inhibitAny: false,
}

interface Node {
  /** Policies of the next certificate that continue this one. */
  readonly expected: ReadonlySet<string>
  /** Whether it goes back to a policy, in the words of the first CA, that the user accepts. */
  readonly isAcceptable: boolean
}

export class PolicyChecker {
  readonly #acceptable: ReadonlySet<string>
  /** Null in RFC 5280's words when empty. */
  #nodes: Map<string, Node>
  #explicitPolicy: number
  #policyMapping: number
  #inhibitAny: number

  /** `length`: certificates on the path, without the trust anchor. */
  constructor(options: PolicyOptions, length: number) {
    this.#acceptable = options.acceptable
    this.#nodes = new Map([[ANY_POLICY, { expected: new Set([ANY_POLICY]), isAcceptable: true }]])
    this.#explicitPolicy = options.requireExplicit ? 0 : length + 1
    this.#policyMapping = options.inhibitMapping ? 0 : length + 1
    this.#inhibitAny = options.inhibitAny ? 0 : length + 1
  }

  /** Takes the next certificate; what is wrong, undefined when nothing is. */
  next(certificate: Certificate, isLast: boolean): string | undefined {
    const isSelf = isSelfIssued(certificate)
    this.#narrow(certificate, this.#inhibitAny > 0 || (!isLast && isSelf))
    // §6.1.3 (f)
    if (this.#explicitPolicy === 0 && this.#nodes.size === 0) return NO_POLICY
    return isLast ? this.#finish(certificate) : this.#prepare(certificate, isSelf)
  }

  #acceptsAny(policy: string): boolean {
    return this.#acceptable.has(ANY_POLICY) || this.#acceptable.has(policy)
  }

  /** §6.1.3 (d), (e) */
  #narrow({ extensions: { policies } }: Certificate, allowsAny: boolean): void {
    const before = this.#nodes
    this.#nodes = new Map()
    if (policies === undefined) return
    const hasAny = before.has(ANY_POLICY)
    /** Which policies are expected, and whether one of the nodes that expect them is acceptable. */
    const expected = new Map<string, boolean>()
    for (const node of before.values()) {
      for (const policy of node.expected)
        expected.set(policy, node.isAcceptable || expected.get(policy) === true)
    }
    const add = (policy: string, isAcceptable: boolean): void =>
      void this.#nodes.set(policy, { expected: new Set([policy]), isAcceptable })
    for (const policy of policies) {
      if (policy === ANY_POLICY) continue
      // (d)(1)(i), else (ii)
      if (expected.has(policy)) add(policy, expected.get(policy)!)
      else if (hasAny) add(policy, this.#acceptsAny(policy))
    }
    if (!policies.includes(ANY_POLICY) || !allowsAny) return
    // (d)(2)
    for (const [policy, isAcceptable] of expected) {
      if (!this.#nodes.has(policy)) add(policy, isAcceptable)
    }
  }

  /** §6.1.4 (a), (b), (h) to (j) */
  #prepare({ extensions }: Certificate, isSelf: boolean): string | undefined {
    const mappings = new Map<string, Set<string>>()
    for (const [issuers, subjects] of extensions.policyMappings) {
      if (issuers === ANY_POLICY || subjects === ANY_POLICY) return 'maps the policy that is any'
      const targets = mappings.get(issuers) ?? new Set()
      mappings.set(issuers, targets.add(subjects))
    }
    const any = this.#nodes.get(ANY_POLICY)
    for (const [policy, expected] of mappings) {
      const node = this.#nodes.get(policy)
      if (this.#policyMapping === 0) this.#nodes.delete(policy)
      else if (node !== undefined) this.#nodes.set(policy, { ...node, expected })
      else if (any !== undefined)
        this.#nodes.set(policy, { expected, isAcceptable: this.#acceptsAny(policy) })
    }
    const less = (counter: number): number => (isSelf ? counter : Math.max(0, counter - 1))
    const { requireExplicitPolicy, inhibitPolicyMapping, inhibitAnyPolicy } = extensions
    this.#explicitPolicy = Math.min(less(this.#explicitPolicy), requireExplicitPolicy ?? Infinity)
    this.#policyMapping = Math.min(less(this.#policyMapping), inhibitPolicyMapping ?? Infinity)
    this.#inhibitAny = Math.min(less(this.#inhibitAny), inhibitAnyPolicy ?? Infinity)
    return undefined
  }

  /** §6.1.5 (a), (b), (g) */
  #finish({ extensions }: Certificate): string | undefined {
    let explicitPolicy = Math.max(0, this.#explicitPolicy - 1)
    if (extensions.requireExplicitPolicy === 0) explicitPolicy = 0
    const isValid = [...this.#nodes.values()].some(({ isAcceptable }) => isAcceptable)
    return explicitPolicy > 0 || isValid ? undefined : NO_POLICY
  }
}

const NO_POLICY = 'is not valid under any policy that is accepted'
