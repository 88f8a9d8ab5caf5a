/**
 * Authenticated encryption of ESP and IKE behind one interface, and the implementations of AEADs that are always there:
 * each on node:crypto and in TypeScript.
 */
import {
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  type CipherGCM,
  type DecipherGCM,
  type KeyObject,
} from 'node:crypto'
import {
  NONCE_LENGTH,
  TAG_LENGTH,
  type AeadBackend,
  type AeadCipher,
  type AeadName,
} from '../base/aead-backend.ts'
import { copyTo, equal } from '../base/bytes.ts'
import { release } from '../base/external.ts'
import { Secret, secretCopy, secretOctets } from '../base/secret.ts'
import { chacha20Poly1305 } from './chacha.ts'
import { noble } from './noble.ts'

/** One direction under one key. */
export interface Aead {
  /** What it runs on, for display. */
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
   * Verifies the ICV at `to` and decrypts `bytes[from, to)`, whose content is undefined afterwards; undefined when the
   * ICV is wrong. Never throws. The plaintext lies there or in memory of its own: after reading it, pass it to
   * `release` of base/external.ts; `adopt` keeps it.
   */
  open(
    bytes: Uint8Array,
    from: number,
    to: number,
    aad: Uint8Array,
    esnHigh?: Uint8Array,
  ): Uint8Array | undefined
  /**
   * Prepares what `seal` or `open` needs for the next packet, provided that its IV is the next number. `aad`: what was
   * authenticated with the last one; it ends with a sequence number, of which the next one is expected too.
   */
  prepare?(what: 'seal' | 'open', aad: Uint8Array): void
  /** Gives back what was prepared: the next packet may not come soon. */
  forget?(): void
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

  prepare(what: 'seal' | 'open', aad: Uint8Array): void {
    if (this.cipher instanceof NodeCipher) this.cipher.prepare(what, this.nonce, aad)
  }

  forget(): void {
    if (this.cipher instanceof NodeCipher) this.cipher.forget()
  }

  wipe(): void {
    this.nonce.fill(0)
    this.cipher?.destroy()
    this.cipher = undefined
  }
}

const TAG_OPTIONS = { authTagLength: TAG_LENGTH }

/** Ours: after so many unexpected IVs in a row we take it that the peer does not count upwards. */
const MOST_MISSES = 8

/** An object of node:crypto for a packet that has not come yet: it is used once, for that nonce and that `aad`. */
interface Foreseen {
  readonly nonce: Uint8Array
  /** The object has got it already. */
  readonly aad: Uint8Array
  cipher: CipherGCM | undefined
  decipher: DecipherGCM | undefined
  misses: number
}

/** Whether that packet has come, or is to be sent, for which the object was made. */
const isFor = (foreseen: Foreseen, nonce: Uint8Array, aad: Uint8Array): boolean => {
  const isIt = equal(foreseen.nonce, nonce) && equal(foreseen.aad, aad)
  foreseen.misses = isIt ? 0 : foreseen.misses + 1
  return isIt
}

/** Both a nonce and what ESP authenticates beside the text begin with so many octets that stay: salt, and SPI. */
const STAYS = SALT_LENGTH

/** Adds one to the number that the other octets are. */
const increment = (octets: Uint8Array): void => {
  for (let i = octets.length - 1; i >= STAYS; i--) {
    octets[i] = (octets[i]! + 1) & 0xff
    if (octets[i] !== 0) return
  }
}

/**
 * Making an object of node:crypto takes longer than encrypting a small packet, so one is made in advance, while
 * there is nothing else to do.
 */
class NodeCipher implements AeadCipher {
  private readonly algorithm: 'aes-128-gcm'
  private key: KeyObject | undefined
  private foreseen: Foreseen | undefined

  constructor(algorithm: string, key: Uint8Array) {
    this.algorithm = algorithm as 'aes-128-gcm'
    // A KeyObject once per SA: raw keys cost several times as much per packet on some versions.
    this.key = createSecretKey(key)
  }

  private newCipher(nonce: Uint8Array, aad: Uint8Array): CipherGCM {
    return createCipheriv(this.algorithm, this.key!, nonce, TAG_OPTIONS).setAAD(aad)
  }

  private newDecipher(nonce: Uint8Array, aad: Uint8Array): DecipherGCM {
    return createDecipheriv(this.algorithm, this.key!, nonce, TAG_OPTIONS).setAAD(aad)
  }

  /** `last`, `lastAad`: the nonce before the one that is foreseen, and what was authenticated with it. */
  prepare(what: 'seal' | 'open', last: Uint8Array, lastAad: Uint8Array): void {
    this.foreseen ??= {
      nonce: secretOctets(NONCE_LENGTH),
      aad: new Uint8Array(lastAad.length),
      cipher: undefined,
      decipher: undefined,
      misses: 0,
    }
    const { foreseen } = this
    const isReady = foreseen.cipher !== undefined || foreseen.decipher !== undefined
    if (isReady || foreseen.misses >= MOST_MISSES) return
    foreseen.nonce.set(last)
    increment(foreseen.nonce)
    foreseen.aad.set(lastAad)
    increment(foreseen.aad)
    if (what === 'seal') foreseen.cipher = this.newCipher(foreseen.nonce, foreseen.aad)
    else foreseen.decipher = this.newDecipher(foreseen.nonce, foreseen.aad)
  }

  forget(): void {
    this.foreseen = undefined
  }

  /** Takes the object that was made in advance, so that it is used once, or makes one. */
  private takeCipher(nonce: Uint8Array, aad: Uint8Array): CipherGCM {
    const { foreseen } = this
    const cipher = foreseen?.cipher
    if (foreseen === undefined || cipher === undefined) return this.newCipher(nonce, aad)
    foreseen.cipher = undefined
    return isFor(foreseen, nonce, aad) ? cipher : this.newCipher(nonce, aad)
  }

  private takeDecipher(nonce: Uint8Array, aad: Uint8Array): DecipherGCM {
    const { foreseen } = this
    const decipher = foreseen?.decipher
    if (foreseen === undefined || decipher === undefined) return this.newDecipher(nonce, aad)
    foreseen.decipher = undefined
    return isFor(foreseen, nonce, aad) ? decipher : this.newDecipher(nonce, aad)
  }

  seal(bytes: Uint8Array, from: number, to: number, nonce: Uint8Array, aad: Uint8Array): void {
    const cipher = this.takeCipher(nonce, aad)
    const ciphertext = cipher.update(bytes.subarray(from, to))
    cipher.final()
    copyTo(bytes, from, ciphertext, 0, to - from)
    release(ciphertext)
    copyTo(bytes, to, cipher.getAuthTag(), 0, TAG_LENGTH)
  }

  open(
    bytes: Uint8Array,
    from: number,
    to: number,
    nonce: Uint8Array,
    aad: Uint8Array,
  ): Uint8Array | undefined {
    const decipher = this.takeDecipher(nonce, aad)
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
    this.foreseen = undefined
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

/** The interface of noble's ciphers: `encrypt` appends the tag, `decrypt` throws when the tag is wrong. */
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
