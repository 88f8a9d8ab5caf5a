/**
 * OpenSSL's AEADs (EVP) by native functions, on one context for each key: node:crypto makes an object for each packet,
 * which costs more than the encryption of a small one, and a memory for each output, which the collector pays for.
 */
import {
  NONCE_LENGTH,
  TAG_LENGTH,
  type AeadBackend,
  type AeadCipher,
  type AeadName,
} from '../base/aead-backend.ts'
import { addressOf, nativeFunction, NativeMemory, WORD, type NativeFunction } from '../base/ffi.ts'

/** `EVP_CTRL_AEAD_GET_TAG`, `EVP_CTRL_AEAD_SET_TAG` of OpenSSL's evp.h. */
const GET_TAG = 0x10n
const SET_TAG = 0x11n
const TAG = BigInt(TAG_LENGTH)
const NULL = 0n

const CIPHERS: Readonly<Record<AeadName, { readonly name: string; readonly keyLength: number }>> = {
  aes128gcm16: { name: 'EVP_aes_128_gcm', keyLength: 16 },
  aes192gcm16: { name: 'EVP_aes_192_gcm', keyLength: 24 },
  aes256gcm16: { name: 'EVP_aes_256_gcm', keyLength: 32 },
  chacha20poly1305: { name: 'EVP_chacha20_poly1305', keyLength: 32 },
}

/** Of either direction: `Init` with what is NULL left as it is, `Update`, `Final`. */
interface Steps {
  readonly init: NativeFunction
  readonly update: NativeFunction
  readonly final: NativeFunction
}

interface Evp {
  readonly newContext: NativeFunction<bigint>
  readonly freeContext: NativeFunction<void>
  readonly control: NativeFunction
  readonly encrypt: Steps
  readonly decrypt: Steps
}

const P = 'pointer'

/** Lengths and commands are `int`: of a packet's calls all is handed over as {@link WORD}, at a sixth of the time. */
const load = (): Evp => {
  const steps = (direction: 'Encrypt' | 'Decrypt'): Steps => ({
    init: nativeFunction(`EVP_${direction}Init_ex`, [P, P, P, P, P], 'i32'),
    update: nativeFunction(`EVP_${direction}Update`, [P, P, P, P, WORD], 'i32'),
    final: nativeFunction(`EVP_${direction}Final_ex`, [P, P, P], 'i32'),
  })
  return {
    newContext: nativeFunction<bigint>('EVP_CIPHER_CTX_new', [], P),
    freeContext: nativeFunction<void>('EVP_CIPHER_CTX_free', [P], 'void'),
    control: nativeFunction('EVP_CIPHER_CTX_ctrl', [P, WORD, WORD, P], 'i32'),
    encrypt: steps('Encrypt'),
    decrypt: steps('Decrypt'),
  }
}

/** Every call is over before the next begins, so one place is enough for what OpenSSL has beside the packet. */
interface Scratch {
  readonly memory: NativeMemory
  readonly nonce: bigint
  readonly length: bigint
  readonly aad: bigint
}

const LENGTH_AT = 16
const AAD_AT = 24
const MOST_AAD = 1000

const makeScratch = (): Scratch => {
  const memory = new NativeMemory(AAD_AT + MOST_AAD)
  const { pointer } = memory
  return {
    memory,
    nonce: pointer,
    length: pointer + BigInt(LENGTH_AT),
    aad: pointer + BigInt(AAD_AT),
  }
}

/**
 * What native code works on now. An engine may let an object go after its last use in a function, and of an address
 * it knows nothing; what stands here is in use.
 */
const held: { bytes: Uint8Array | undefined } = { bytes: undefined }

/** Contexts that were dropped without `destroy`. */
const dropped = new FinalizationRegistry<() => void>(free => free())

class EvpCipher implements AeadCipher {
  private readonly evp: Evp
  private readonly scratch: Scratch
  private context: bigint

  constructor(evp: Evp, scratch: Scratch, algorithm: bigint, key: Uint8Array) {
    this.evp = evp
    this.scratch = scratch
    const context = evp.newContext()
    this.context = context
    const memory = new NativeMemory(key.length)
    memory.bytes.set(key)
    // The key schedule of these ciphers is the same in both directions.
    const done = evp.encrypt.init(context, algorithm, NULL, memory.pointer, NULL)
    memory.bytes.fill(0)
    dropped.register(this, () => evp.freeContext(context), this)
    if (done !== 1) throw new Error('OpenSSL does not take the key')
  }

  seal(bytes: Uint8Array, from: number, to: number, nonce: Uint8Array, aad: Uint8Array): void {
    const { encrypt, control } = this.evp
    const { context, scratch } = this
    if (!this.isSound(bytes, from, to, nonce)) throw new RangeError('no such octets')
    held.bytes = bytes
    const at = addressOf(bytes) + BigInt(from)
    const length = BigInt(to - from)
    const tagAt = at + length
    const isDone =
      this.begin(encrypt, nonce, aad) &&
      (to === from || encrypt.update(context, at, scratch.length, at, length) === 1) &&
      encrypt.final(context, tagAt, scratch.length) === 1 &&
      control(context, GET_TAG, TAG, tagAt) === 1
    held.bytes = undefined
    if (!isDone) throw new Error('OpenSSL does not encrypt')
  }

  open(
    bytes: Uint8Array,
    from: number,
    to: number,
    nonce: Uint8Array,
    aad: Uint8Array,
  ): Uint8Array | undefined {
    const { decrypt, control } = this.evp
    const { context, scratch } = this
    if (!this.isSound(bytes, from, to, nonce)) return undefined
    held.bytes = bytes
    const at = addressOf(bytes) + BigInt(from)
    const length = BigInt(to - from)
    const tagAt = at + length
    const isGenuine =
      this.begin(decrypt, nonce, aad) &&
      control(context, SET_TAG, TAG, tagAt) === 1 &&
      (to === from || decrypt.update(context, at, scratch.length, at, length) === 1) &&
      decrypt.final(context, tagAt, scratch.length) === 1
    held.bytes = undefined
    return isGenuine ? bytes.subarray(from, to) : undefined
  }

  /** Native code would go beyond the end. */
  private isSound(bytes: Uint8Array, from: number, to: number, nonce: Uint8Array): boolean {
    return (
      this.context !== NULL &&
      nonce.length === NONCE_LENGTH &&
      from >= 0 &&
      from <= to &&
      to + TAG_LENGTH <= bytes.length
    )
  }

  /** Nonce and associated data; what is too long for its place goes in pieces. */
  private begin({ init, update }: Steps, nonce: Uint8Array, aad: Uint8Array): boolean {
    const { context, scratch } = this
    const { bytes } = scratch.memory
    for (let i = 0; i < NONCE_LENGTH; i++) bytes[i] = nonce[i]!
    if (init(context, NULL, NULL, NULL, scratch.nonce) !== 1) return false
    for (let at = 0; at < aad.length; at += MOST_AAD) {
      const length = Math.min(MOST_AAD, aad.length - at)
      for (let i = 0; i < length; i++) bytes[AAD_AT + i] = aad[at + i]!
      if (update(context, NULL, scratch.length, scratch.aad, BigInt(length)) !== 1) return false
    }
    return true
  }

  destroy(): void {
    dropped.unregister(this)
    if (this.context !== NULL) this.evp.freeContext(this.context)
    this.context = NULL
  }
}

/** All ciphers, where native functions can be called. */
export const makeEvpAeads = (): Readonly<Record<AeadName, AeadBackend>> => {
  const evp = load()
  const scratch = makeScratch()
  const backendOf = (name: AeadName): AeadBackend => {
    const { name: method, keyLength } = CIPHERS[name]
    const algorithm = nativeFunction<bigint>(method, [], P)()
    const create = (key: Uint8Array): AeadCipher => {
      // OpenSSL would read on.
      if (key.length !== keyLength) throw new RangeError(`${name} has keys of ${keyLength} octets`)
      return new EvpCipher(evp, scratch, algorithm, key)
    }
    return { name: 'openssl', create }
  }
  return {
    aes128gcm16: backendOf('aes128gcm16'),
    aes192gcm16: backendOf('aes192gcm16'),
    aes256gcm16: backendOf('aes256gcm16'),
    chacha20poly1305: backendOf('chacha20poly1305'),
  }
}
