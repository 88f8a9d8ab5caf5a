/** How much work the certificates of one peer may cost: a stranger chooses them (no chain may hold us up for 50 ms). */
import type { Backend } from '../crypto/prf.ts'
import type { PublicKey } from '../crypto/signature.ts'

const STEPS = 2000
const PATHS = 100
const SIGNATURES = 100
const SIGNATURE_WEIGHT = 250
/** As many are verified whatever they weigh: an ordinary path with room for a detour. */
const LEAST_SIGNATURES = 6
const COMPARISONS = 250_000

/** About 0.06 ms each, as measured; RSA is OpenSSL's on both backends. */
const weightOf = (backend: Backend, { kind, bits }: PublicKey): number => {
  const isNoble = backend === 'noble'
  if (kind === 'rsa') return bits > 4096 ? 8 : 2
  if (kind === 'ed25519') return isNoble ? 27 : 1
  if (kind === 'ed448') return isNoble ? 130 : 3
  if (bits <= 256) return isNoble ? 70 : 1
  return bits > 384 ? (isNoble ? 200 : 16) : isNoble ? 120 : 8
}

export class Budget {
  #steps = 0
  #paths = 0
  #signatures = 0
  #weight = 0
  #comparisons = 0
  readonly #backend: Backend

  constructor(backend: Backend = 'node') {
    this.#backend = backend
  }

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
      (this.#weight > SIGNATURE_WEIGHT && this.#signatures > LEAST_SIGNATURES) ||
      this.#comparisons > COMPARISONS
    )
  }

  /** Each answers whether the work may be done. */
  countStep(): boolean {
    this.#steps++
    return !this.isExhausted
  }

  takePath(): boolean {
    this.#paths++
    return !this.isExhausted
  }

  takeSignature(key: PublicKey): boolean {
    this.#signatures++
    this.#weight += weightOf(this.#backend, key)
    return !this.isExhausted
  }

  takeComparisons(count: number): boolean {
    this.#comparisons += count
    return !this.isExhausted
  }
}
