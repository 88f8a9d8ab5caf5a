/**
 * AES-CBC (RFC 3602) with HMAC-SHA2 (RFC 4868) as one authenticated cipher: encrypt, then authenticate
 * (RFC 4303 §3.3.2, RFC 7296 §3.14). The ICV is checked before anything is decrypted.
 */
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto'
import { EMPTY, equal } from '../base/bytes.ts'
import { release } from '../base/external.ts'
import { Secret } from '../base/secret.ts'
import { HashAlgorithm } from '../wire/registry.ts'
import type { Aead } from './aead.ts'
import { noble } from './noble.ts'
import { computeHmac, keyedHmac, type Backend } from './prf.ts'

export interface HmacFacts {
  readonly hash:
    | typeof HashAlgorithm.Sha1
    | typeof HashAlgorithm.Sha2_256
    | typeof HashAlgorithm.Sha2_384
    | typeof HashAlgorithm.Sha2_512
  readonly keyLength: number
  readonly icvLength: number
}

const BLOCK = 16

/** OpenSSL overwrites the octets of a KeyObject when it is collected. */
type Keys =
  | { readonly on: 'noble'; readonly encryption: Secret; readonly integrity: Secret }
  | { readonly on: 'node'; readonly encryption: KeyObject; readonly integrity: KeyObject }

export class CbcHmac implements Aead {
  readonly backend: string
  readonly ivLength = BLOCK
  readonly blockSize = BLOCK
  readonly iv = 'random'
  readonly separateIntegrity = true
  readonly icvLength: number
  private readonly cipher: string
  private readonly hmac: HmacFacts
  private keys: Keys | undefined

  constructor(
    backend: Backend,
    hmac: HmacFacts,
    encryptionKey: Uint8Array,
    integrityKey: Uint8Array,
  ) {
    this.backend = backend === 'noble' ? 'noble' : 'node:crypto'
    this.hmac = hmac
    this.icvLength = hmac.icvLength
    this.cipher = `aes-${encryptionKey.length * 8}-cbc`
    this.keys =
      backend === 'noble'
        ? {
            on: 'noble',
            encryption: new Secret(encryptionKey),
            integrity: new Secret(integrityKey),
          }
        : {
            on: 'node',
            encryption: createSecretKey(encryptionKey),
            integrity: createSecretKey(integrityKey),
          }
  }

  seal(
    bytes: Uint8Array,
    from: number,
    to: number,
    aad: Uint8Array,
    esnHigh: Uint8Array = EMPTY,
  ): void {
    const iv = bytes.subarray(from - BLOCK, from)
    const plaintext = bytes.subarray(from, to)
    const keys = this.keys!
    if (keys.on === 'noble') {
      bytes.set(
        noble().cbc(keys.encryption.bytes, iv, { disablePadding: true }).encrypt(plaintext),
        from,
      )
    } else {
      const cipher = createCipheriv(this.cipher, keys.encryption, iv).setAutoPadding(false)
      const ciphertext = cipher.update(plaintext)
      bytes.set(ciphertext, from)
      release(ciphertext)
      // OpenSSL overwrites its copy of the key when the context ends: end it now and not when this is collected.
      cipher.final()
    }
    bytes.set(this.icv(bytes, from, to, aad, esnHigh), to)
  }

  open(
    bytes: Uint8Array,
    from: number,
    to: number,
    aad: Uint8Array,
    esnHigh: Uint8Array = EMPTY,
  ): Uint8Array | undefined {
    const expected = this.icv(bytes, from, to, aad, esnHigh)
    if (!equal(expected, bytes.subarray(to, to + this.icvLength))) return undefined
    if (to === from || (to - from) % BLOCK !== 0) return undefined
    const iv = bytes.subarray(from - BLOCK, from)
    const ciphertext = bytes.subarray(from, to)
    const keys = this.keys!
    if (keys.on === 'noble')
      return noble().cbc(keys.encryption.bytes, iv, { disablePadding: true }).decrypt(ciphertext)
    const decipher = createDecipheriv(this.cipher, keys.encryption, iv).setAutoPadding(false)
    const plaintext = decipher.update(ciphertext)
    decipher.final()
    return plaintext
  }

  private icv(
    bytes: Uint8Array,
    from: number,
    to: number,
    aad: Uint8Array,
    esnHigh: Uint8Array,
  ): Uint8Array {
    const parts = [aad, bytes.subarray(from - BLOCK, to), esnHigh]
    const { hash } = this.hmac
    const keys = this.keys!
    const mac =
      keys.on === 'noble'
        ? computeHmac('noble', hash, keys.integrity.bytes, parts)
        : keyedHmac(hash, keys.integrity, parts)
    return mac.subarray(0, this.icvLength)
  }

  wipe(): void {
    if (this.keys?.on === 'noble') {
      this.keys.encryption.wipe()
      this.keys.integrity.wipe()
    }
    this.keys = undefined
  }
}
