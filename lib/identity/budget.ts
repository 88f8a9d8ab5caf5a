/** How much work the certificates of one peer may cost: a stranger chooses them (no chain may hold us up for 50 ms). */
import type { PublicKey } from '../crypto/signature.ts'

const STEPS = 2000
const PATHS = 100
const SIGNATURES = 100
const SIGNATURE_WEIGHT = 400
const COMPARISONS = 250_000

/** About 0.06 ms each, as measured with OpenSSL 3. */
const weightOf = ({ kind, bits }: PublicKey): number => {
  if (kind === 'rsa') return bits > 4096 ? 8 : 2
  if (kind === 'ec') return bits > 384 ? 16 : bits > 256 ? 8 : 1
  return kind === 'ed448' ? 3 : 1
}

export class Budget {
  #steps = 0
  #paths = 0
  #signatures = 0
  #weight = 0
  #comparisons = 0

  /** What was done so far. */
  get spent(): Readonly<Record<'steps' | 'paths' | 'signatures' | 'comparisons', number>> {
    return {
      steps: this.#steps,
      paths: this.#paths,
      signatures: this.#signatures,
      comparisons: this.#comparisons,
    }
  }

  get isExhausted(): boolean {
    return (
      this.#steps > STEPS ||
      this.#paths > PATHS ||
      this.#signatures > SIGNATURES ||
      this.#weight > SIGNATURE_WEIGHT ||
      this.#comparisons > COMPARISONS
    )
  }

  /** Each answers whether the work may be done. */
  takeStep(): boolean {
    this.#steps++
    return !this.isExhausted
  }

  takePath(): boolean {
    this.#paths++
    return !this.isExhausted
  }

  takeSignature(key: PublicKey): boolean {
    this.#signatures++
    this.#weight += weightOf(key)
    return !this.isExhausted
  }

  takeComparisons(count: number): boolean {
    this.#comparisons += count
    return !this.isExhausted
  }
}
