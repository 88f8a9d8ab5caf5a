/** Key octets with an owner. They cannot be printed by accident and are overwritten when the owner is done. */
import { copy } from './bytes.ts'

const REDACTED = '[secret]'

export class Secret {
  #bytes: Uint8Array

  /** Takes a copy: the caller keeps, and wipes, its own octets. */
  constructor(bytes: Uint8Array) {
    this.#bytes = copy(bytes)
  }

  /** Takes over `bytes` itself, which nobody else may keep. */
  static adopt(bytes: Uint8Array): Secret {
    const secret = new Secret(new Uint8Array(0))
    secret.#bytes = bytes
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
    this.#bytes = new Uint8Array(0)
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
