/** How a program gives another implementation of an AEAD; our own are given in the same way. */

/** A cipher of which there can be more than one implementation, in the keyword of proposals. */
export type AeadName = 'aes128gcm16' | 'aes192gcm16' | 'aes256gcm16' | 'chacha20poly1305'

export const AEAD_NAMES: readonly AeadName[] = [
  'aes128gcm16',
  'aes192gcm16',
  'aes256gcm16',
  'chacha20poly1305',
]

/** Octets of the nonce and of the tag of each. */
export const NONCE_LENGTH = 12
export const TAG_LENGTH = 16

/** The implementation of each cipher that does not run on the default one. */
export type AeadBackends = { readonly [Name in AeadName]?: AeadBackend | undefined }

/** An implementation of one AEAD (RFC 5116) for the option `aead`. It is asked for known answers before it is used. */
export interface AeadBackend {
  /** For people: `session.info.children` shows it as `backend`. */
  readonly name: string
  /**
   * One direction of one SA.
   *
   * @param key 16, 24 or 32 octets, without the salt. They are overwritten after the call: what is needed is copied.
   */
  create(key: Uint8Array): AeadCipher
}

/**
 * An AEAD under one key. No two calls run at the same time. All octets are the package's: what a call is given may be
 * read and written during the call, as it says, and be kept by no call. `nonce` has 12 octets, `aad` 8 or more.
 */
export interface AeadCipher {
  /**
   * Encrypts `bytes[from, to)` in place and writes the tag of 16 octets at `to`. Octets around them stay as they are. It
   * does not throw.
   */
  seal(bytes: Uint8Array, from: number, to: number, nonce: Uint8Array, aad: Uint8Array): void
  /**
   * Checks the tag at `to` and decrypts `bytes[from, to)`. The plaintext may lie there, and is then
   * `bytes.subarray(from, to)`, or in memory that is nobody else's, which the package then keeps or detaches. Undefined,
   * whatever then stands in `bytes[from, to)`, when the tag is wrong; an exception counts as that.
   */
  open(
    bytes: Uint8Array,
    from: number,
    to: number,
    nonce: Uint8Array,
    aad: Uint8Array,
  ): Uint8Array | undefined
  /** Overwrites the key. Called once, and nothing after it. */
  destroy(): void
}
