/**
 * Authenticated encryption of ESP and IKE behind one interface: AES-GCM (RFC 4106, RFC 5282),
 * ChaCha20-Poly1305 (RFC 7634), each on node:crypto and in TypeScript.
 */
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto'
import { release } from '../base/external.ts'
import { Secret, secretOctets } from '../base/secret.ts'

/** One direction under one key. */
export interface Aead {
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
   * Verifies the ICV at `to` and decrypts `bytes[from, to)`, which stay as they are; undefined when it does not verify.
   * Never throws. The plaintext lies where the cipher put it, in memory of its own: whoever has read it gives it to
   * `release` of base/external.ts, and what is to stay may be kept there by `adopt`.
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
const IV_LENGTH = 8
const ICV_LENGTH = 16
const NONCE_LENGTH = SALT_LENGTH + IV_LENGTH

const TAG_OPTIONS = { authTagLength: ICV_LENGTH }

type NodeCipher = 'aes-128-gcm' | 'aes-192-gcm' | 'aes-256-gcm' | 'chacha20-poly1305'

/** What both backends share: the nonce is salt and IV (RFC 4106 §4, RFC 7634 §2). */
abstract class SaltedAead implements Aead {
  readonly ivLength = IV_LENGTH
  readonly icvLength = ICV_LENGTH
  readonly blockSize = 1
  readonly iv = 'counter'
  readonly separateIntegrity = false
  protected readonly nonce = secretOctets(NONCE_LENGTH)

  /** `key`: the cipher's key and four octets of salt. */
  constructor(key: Uint8Array) {
    this.nonce.set(key.subarray(key.length - SALT_LENGTH), 0)
  }

  protected loadNonce(bytes: Uint8Array, from: number): void {
    for (let i = 0; i < IV_LENGTH; i++) this.nonce[SALT_LENGTH + i] = bytes[from - IV_LENGTH + i]!
  }

  abstract seal(bytes: Uint8Array, from: number, to: number, aad: Uint8Array): void
  abstract open(
    bytes: Uint8Array,
    from: number,
    to: number,
    aad: Uint8Array,
  ): Uint8Array | undefined

  wipe(): void {
    this.nonce.fill(0)
  }
}

export class NodeAead extends SaltedAead {
  private readonly cipher: NodeCipher
  private key: KeyObject | undefined

  constructor(cipher: NodeCipher, key: Uint8Array) {
    super(key)
    this.cipher = cipher
    // A KeyObject once per SA: raw keys cost several times as much per packet on some versions.
    this.key = createSecretKey(key.subarray(0, key.length - SALT_LENGTH))
  }

  seal(bytes: Uint8Array, from: number, to: number, aad: Uint8Array): void {
    this.loadNonce(bytes, from)
    const cipher = createCipheriv(this.cipher as 'aes-128-gcm', this.key!, this.nonce, TAG_OPTIONS)
    cipher.setAAD(aad)
    const ciphertext = cipher.update(bytes.subarray(from, to))
    cipher.final()
    bytes.set(ciphertext, from)
    release(ciphertext)
    bytes.set(cipher.getAuthTag(), to)
  }

  open(bytes: Uint8Array, from: number, to: number, aad: Uint8Array): Uint8Array | undefined {
    this.loadNonce(bytes, from)
    const decipher = createDecipheriv(
      this.cipher as 'aes-128-gcm',
      this.key!,
      this.nonce,
      TAG_OPTIONS,
    )
    decipher.setAAD(aad)
    decipher.setAuthTag(bytes.subarray(to, to + ICV_LENGTH))
    const plaintext = decipher.update(bytes.subarray(from, to))
    try {
      decipher.final()
    } catch {
      release(plaintext)
      return undefined
    }
    return plaintext
  }

  override wipe(): void {
    super.wipe()
    this.key = undefined
  }
}

/** As noble makes ciphers: `encrypt` adds the tag, `decrypt` throws where it is wrong. */
type CipherMaker = (
  key: Uint8Array,
  nonce: Uint8Array,
  aad: Uint8Array,
) => Record<'encrypt' | 'decrypt', (bytes: Uint8Array) => Uint8Array>

export class NobleAead extends SaltedAead {
  private readonly create: CipherMaker
  private readonly key: Secret

  constructor(create: CipherMaker, key: Uint8Array) {
    super(key)
    this.create = create
    this.key = new Secret(key.subarray(0, key.length - SALT_LENGTH))
  }

  seal(bytes: Uint8Array, from: number, to: number, aad: Uint8Array): void {
    this.loadNonce(bytes, from)
    bytes.set(this.create(this.key.bytes, this.nonce, aad).encrypt(bytes.subarray(from, to)), from)
  }

  open(bytes: Uint8Array, from: number, to: number, aad: Uint8Array): Uint8Array | undefined {
    this.loadNonce(bytes, from)
    try {
      return this.create(this.key.bytes, this.nonce, aad).decrypt(
        bytes.subarray(from, to + ICV_LENGTH),
      )
    } catch {
      return undefined
    }
  }

  override wipe(): void {
    super.wipe()
    this.key.wipe()
  }
}
