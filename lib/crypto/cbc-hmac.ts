/**
 * AES-CBC (RFC 3602) with HMAC-SHA2 (RFC 4868) as one authenticated cipher: encrypt, then authenticate
 * (RFC 4303 §3.3.2, RFC 7296 §3.14). The ICV is checked before anything is decrypted.
 */
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto'
import { cbc } from '@noble/ciphers/aes.js'
import { EMPTY, equal } from '../base/bytes.ts'
import { HashAlgorithm } from '../wire/registry.ts'
import type { Aead } from './aead.ts'
import { computeHmac, type Backend } from './prf.ts'

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

export class CbcHmac implements Aead {
  readonly ivLength = BLOCK
  readonly blockSize = BLOCK
  readonly iv = 'random'
  readonly separateIntegrity = true
  readonly icvLength: number
  private readonly backend: Backend
  private readonly hmac: HmacFacts
  private encryptionKey: Uint8Array
  private encryptionKeyObject: KeyObject | undefined
  private integrityKey: Uint8Array

  constructor(
    backend: Backend,
    hmac: HmacFacts,
    encryptionKey: Uint8Array,
    integrityKey: Uint8Array,
  ) {
    this.backend = backend
    this.hmac = hmac
    this.icvLength = hmac.icvLength
    this.encryptionKey = encryptionKey.slice()
    this.encryptionKeyObject = backend === 'noble' ? undefined : createSecretKey(encryptionKey)
    this.integrityKey = integrityKey.slice()
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
    if (this.encryptionKeyObject === undefined) {
      bytes.set(cbc(this.encryptionKey, iv, { disablePadding: true }).encrypt(plaintext), from)
    } else {
      const cipher = createCipheriv(this.algorithm, this.encryptionKeyObject, iv).setAutoPadding(
        false,
      )
      bytes.set(cipher.update(plaintext), from)
    }
    bytes.set(this.icv(bytes, from, to, aad, esnHigh), to)
  }

  open(
    bytes: Uint8Array,
    from: number,
    to: number,
    aad: Uint8Array,
    esnHigh: Uint8Array = EMPTY,
  ): boolean {
    const expected = this.icv(bytes, from, to, aad, esnHigh)
    if (!equal(expected, bytes.subarray(to, to + this.icvLength))) return false
    if (to === from || (to - from) % BLOCK !== 0) return false
    const iv = bytes.subarray(from - BLOCK, from)
    const ciphertext = bytes.subarray(from, to)
    if (this.encryptionKeyObject === undefined) {
      bytes.set(cbc(this.encryptionKey, iv, { disablePadding: true }).decrypt(ciphertext), from)
    } else {
      const decipher = createDecipheriv(
        this.algorithm,
        this.encryptionKeyObject,
        iv,
      ).setAutoPadding(false)
      bytes.set(decipher.update(ciphertext), from)
    }
    return true
  }

  private get algorithm(): string {
    return `aes-${this.encryptionKey.length * 8}-cbc`
  }

  private icv(
    bytes: Uint8Array,
    from: number,
    to: number,
    aad: Uint8Array,
    esnHigh: Uint8Array,
  ): Uint8Array {
    const mac = computeHmac(this.backend, this.hmac.hash, this.integrityKey, [
      aad,
      bytes.subarray(from - BLOCK, to),
      esnHigh,
    ])
    return mac.subarray(0, this.icvLength)
  }

  wipe(): void {
    this.encryptionKey.fill(0)
    this.integrityKey.fill(0)
    this.encryptionKey = EMPTY
    this.integrityKey = EMPTY
    this.encryptionKeyObject = undefined
  }
}
