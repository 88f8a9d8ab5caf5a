/** Key octets with an owner. They cannot be printed by accident and are overwritten when the owner is done. */
import { EMPTY } from './bytes.ts'

const REDACTED = '[secret]'

/**
 * Zeros in memory that the collector does not move. V8 keeps arrays of up to 64 octets in its own heap, where a
 * collection copies them and leaves the old octets behind: nobody can overwrite those.
 */
export const secretOctets = (length: number): Uint8Array => new Uint8Array(new ArrayBuffer(length))

/** A copy there, to be wiped by the caller. */
export const secretCopy = (bytes: Uint8Array): Uint8Array => {
  const copied = secretOctets(bytes.length)
  copied.set(bytes)
  return copied
}

/** What came from elsewhere, moved there: `bytes` is overwritten. */
export const moveSecret = (bytes: Uint8Array): Uint8Array => {
  const moved = secretCopy(bytes)
  bytes.fill(0)
  return moved
}

/** Those that were dropped without `wipe` are overwritten once they are collected. */
const dropped = new FinalizationRegistry<Uint8Array>(bytes => void bytes.fill(0))

export class Secret {
  #bytes: Uint8Array

  /** Takes a copy: the caller keeps, and wipes, its own octets. */
  constructor(bytes: Uint8Array) {
    this.#bytes = secretCopy(bytes)
    if (bytes.length > 0) dropped.register(this, this.#bytes)
  }

  /** Takes over `bytes` itself, which nobody else may keep. */
  static adopt(bytes: Uint8Array): Secret {
    const secret = new Secret(EMPTY)
    secret.#bytes = bytes
    dropped.register(secret, bytes)
    return secret
  }

  /** The octets themselves, for a computation; do not keep them. Empty once wiped. */
  get bytes(): Uint8Array {
    return this.#bytes
  }

  get length(): number {
    return this.#bytes.length
  }

  wipe(): void {
    this.#bytes.fill(0)
    this.#bytes = EMPTY
  }

  toString(): string {
    return REDACTED
  }

  toJSON(): string {
    return REDACTED
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return REDACTED
  }
}
