/**
 * Authenticated encryption of ESP and IKE behind one interface, and the implementations of AEADs that are always there:
 * each on node:crypto and in TypeScript.
 */
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto'
import {
  NONCE_LENGTH,
  TAG_LENGTH,
  type AeadBackend,
  type AeadCipher,
  type AeadName,
} from '../base/aead-backend.ts'
import { release } from '../base/external.ts'
import { Secret, secretCopy, secretOctets } from '../base/secret.ts'
import { chacha20Poly1305 } from './chacha.ts'
import { noble } from './noble.ts'

/** One direction under one key. */
export interface Aead {
  /** What it runs on, for people. */
  readonly backend: string
  /** Octets of the IV as it travels. */
  readonly ivLength: number
  readonly icvLength: number
  /** Plaintext must fill whole blocks of this many octets. */
  readonly blockSize: number
  /** What the caller writes as IV: a number that never repeats, or random octets. */
  readonly iv: 'counter' | 'random'
  /** The high half of an extended sequence number is authenticated behind the ciphertext (RFC 4303 §2.2.1). */
  readonly separateIntegrity: boolean
  /**
   * Encrypts `bytes[from, to)` in place and writes the ICV at `to`. The IV stands just before `from`.
   */
  seal(bytes: Uint8Array, from: number, to: number, aad: Uint8Array, esnHigh?: Uint8Array): void
  /**
   * Verifies the ICV at `to` and decrypts `bytes[from, to)`, of which nobody can say then what stands there; undefined
   * when it does not verify. Never throws. The plaintext lies there or in memory of its own: whoever has read it gives
   * it to `release` of base/external.ts, and what is to stay may be kept there by `adopt`.
   */
  open(
    bytes: Uint8Array,
    from: number,
    to: number,
    aad: Uint8Array,
    esnHigh?: Uint8Array,
  ): Uint8Array | undefined
  wipe(): void
}

const SALT_LENGTH = 4
const IV_LENGTH = NONCE_LENGTH - SALT_LENGTH

/** An AEAD whose nonce is salt and IV: AES-GCM (RFC 4106 §4, RFC 5282), ChaCha20-Poly1305 (RFC 7634 §2). */
export class SaltedAead implements Aead {
  readonly backend: string
  readonly ivLength = IV_LENGTH
  readonly icvLength = TAG_LENGTH
  readonly blockSize = 1
  readonly iv = 'counter'
  readonly separateIntegrity = false
  private readonly nonce = secretOctets(NONCE_LENGTH)
  private cipher: AeadCipher | undefined

  /** `key`: the cipher's key and four octets of salt. */
  constructor(backend: AeadBackend, key: Uint8Array) {
    const cipherKey = secretCopy(key.subarray(0, key.length - SALT_LENGTH))
    this.backend = backend.name
    this.cipher = backend.create(cipherKey)
    cipherKey.fill(0)
    this.nonce.set(key.subarray(key.length - SALT_LENGTH), 0)
  }

  private loadNonce(bytes: Uint8Array, from: number): void {
    for (let i = 0; i < IV_LENGTH; i++) this.nonce[SALT_LENGTH + i] = bytes[from - IV_LENGTH + i]!
  }

  seal(bytes: Uint8Array, from: number, to: number, aad: Uint8Array): void {
    this.loadNonce(bytes, from)
    this.cipher!.seal(bytes, from, to, this.nonce, aad)
  }

  open(bytes: Uint8Array, from: number, to: number, aad: Uint8Array): Uint8Array | undefined {
    this.loadNonce(bytes, from)
    try {
      return this.cipher!.open(bytes, from, to, this.nonce, aad)
    } catch {
      return undefined
    }
  }

  wipe(): void {
    this.nonce.fill(0)
    this.cipher?.destroy()
    this.cipher = undefined
  }
}

const TAG_OPTIONS = { authTagLength: TAG_LENGTH }

class NodeCipher implements AeadCipher {
  private readonly algorithm: string
  private key: KeyObject | undefined

  constructor(algorithm: string, key: Uint8Array) {
    this.algorithm = algorithm
    // A KeyObject once per SA: raw keys cost several times as much per packet on some versions.
    this.key = createSecretKey(key)
  }

  seal(bytes: Uint8Array, from: number, to: number, nonce: Uint8Array, aad: Uint8Array): void {
    const cipher = createCipheriv(this.algorithm as 'aes-128-gcm', this.key!, nonce, TAG_OPTIONS)
    cipher.setAAD(aad)
    const ciphertext = cipher.update(bytes.subarray(from, to))
    cipher.final()
    bytes.set(ciphertext, from)
    release(ciphertext)
    bytes.set(cipher.getAuthTag(), to)
  }

  open(
    bytes: Uint8Array,
    from: number,
    to: number,
    nonce: Uint8Array,
    aad: Uint8Array,
  ): Uint8Array | undefined {
    const decipher = createDecipheriv(
      this.algorithm as 'aes-128-gcm',
      this.key!,
      nonce,
      TAG_OPTIONS,
    )
    decipher.setAAD(aad)
    decipher.setAuthTag(bytes.subarray(to, to + TAG_LENGTH))
    const plaintext = decipher.update(bytes.subarray(from, to))
    try {
      decipher.final()
    } catch {
      release(plaintext)
      return undefined
    }
    return plaintext
  }

  destroy(): void {
    this.key = undefined
  }
}

const onNode = (algorithm: string): AeadBackend => ({
  name: 'node:crypto',
  create: key => new NodeCipher(algorithm, key),
})

export const NODE_AEADS: Readonly<Record<AeadName, AeadBackend>> = {
  aes128gcm16: onNode('aes-128-gcm'),
  aes192gcm16: onNode('aes-192-gcm'),
  aes256gcm16: onNode('aes-256-gcm'),
  chacha20poly1305: onNode('chacha20-poly1305'),
}

/** As noble makes ciphers: `encrypt` adds the tag, `decrypt` throws where it is wrong. */
type CipherMaker = (
  key: Uint8Array,
  nonce: Uint8Array,
  aad: Uint8Array,
) => Record<'encrypt' | 'decrypt', (bytes: Uint8Array) => Uint8Array>

class NobleCipher implements AeadCipher {
  private readonly make: CipherMaker
  private readonly key: Secret

  constructor(make: CipherMaker, key: Uint8Array) {
    this.make = make
    this.key = new Secret(key)
  }

  seal(bytes: Uint8Array, from: number, to: number, nonce: Uint8Array, aad: Uint8Array): void {
    bytes.set(this.make(this.key.bytes, nonce, aad).encrypt(bytes.subarray(from, to)), from)
  }

  open(
    bytes: Uint8Array,
    from: number,
    to: number,
    nonce: Uint8Array,
    aad: Uint8Array,
  ): Uint8Array {
    const whole = bytes.subarray(from, to + TAG_LENGTH)
    return this.make(this.key.bytes, nonce, aad).decrypt(whole)
  }

  destroy(): void {
    this.key.wipe()
  }
}

const onNoble = (maker: () => CipherMaker): AeadBackend => ({
  name: 'noble',
  create: key => new NobleCipher(maker(), key),
})
const nobleGcm = onNoble(() => noble().gcm)

export const NOBLE_AEADS: Readonly<Record<AeadName, AeadBackend>> = {
  aes128gcm16: nobleGcm,
  aes192gcm16: nobleGcm,
  aes256gcm16: nobleGcm,
  chacha20poly1305: onNoble(() => chacha20Poly1305),
}
