/**
 * ChaCha20-Poly1305 by libsodium: without an object for each packet it costs a third of what node:crypto takes for small
 * ones. The package `sodium-native` is looked for when it may be used, and nothing is missing without it.
 */
import { createRequire } from 'node:module'
import { TAG_LENGTH, type AeadBackend, type AeadCipher } from '../base/aead-backend.ts'
import { Secret } from '../base/secret.ts'

/** As much of it as is used here. */
export interface Sodium {
  crypto_aead_chacha20poly1305_ietf_encrypt(
    ciphertext: Uint8Array,
    plaintext: Uint8Array,
    aad: Uint8Array,
    nsec: null,
    nonce: Uint8Array,
    key: Uint8Array,
  ): number
  /** Throws where the tag is wrong. */
  crypto_aead_chacha20poly1305_ietf_decrypt(
    plaintext: Uint8Array,
    nsec: null,
    ciphertext: Uint8Array,
    aad: Uint8Array,
    nonce: Uint8Array,
    key: Uint8Array,
  ): number
}

/** libsodium's guarded memory is four pages for each key, and what the system locks is scarce: ours is overwritten too. */
class SodiumCipher implements AeadCipher {
  private readonly sodium: Sodium
  private readonly key: Secret

  constructor(sodium: Sodium, key: Uint8Array) {
    this.sodium = sodium
    this.key = new Secret(key)
  }

  seal(bytes: Uint8Array, from: number, to: number, nonce: Uint8Array, aad: Uint8Array): void {
    const plaintext = bytes.subarray(from, to)
    const sealed = bytes.subarray(from, to + TAG_LENGTH)
    this.sodium.crypto_aead_chacha20poly1305_ietf_encrypt(
      sealed,
      plaintext,
      aad,
      null,
      nonce,
      this.key.bytes,
    )
  }

  open(
    bytes: Uint8Array,
    from: number,
    to: number,
    nonce: Uint8Array,
    aad: Uint8Array,
  ): Uint8Array | undefined {
    const plaintext = bytes.subarray(from, to)
    const sealed = bytes.subarray(from, to + TAG_LENGTH)
    try {
      this.sodium.crypto_aead_chacha20poly1305_ietf_decrypt(
        plaintext,
        null,
        sealed,
        aad,
        nonce,
        this.key.bytes,
      )
    } catch {
      return undefined
    }
    return plaintext
  }

  destroy(): void {
    this.key.wipe()
  }
}

export const sodiumAead = (sodium: Sodium): AeadBackend => ({
  name: 'sodium-native',
  create: key => new SodiumCipher(sodium, key),
})

/** Undefined: it is not installed, has no binary for this system, or may not be loaded (`--permission`). */
export const findSodium = (): AeadBackend | undefined => {
  try {
    return sodiumAead(createRequire(import.meta.url)('sodium-native') as Sodium)
  } catch {
    return undefined
  }
}
