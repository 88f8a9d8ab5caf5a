/** Maps transform IDs to algorithms and lengths: the one place that knows every cipher. */
import type { AeadBackends, AeadName } from '../base/aead-backend.ts'
import { Encr, HashAlgorithm, Integ } from '../wire/registry.ts'
import { NOBLE_AEADS, NODE_AEADS, SaltedAead, type Aead } from './aead.ts'
import { CbcHmac, type HmacFacts } from './cbc-hmac.ts'
import type { KeyLengths } from './key-material.ts'
import type { Backend } from './prf.ts'

/** The algorithms that protect an IKE SA or a Child SA. */
export interface CipherChoice {
  readonly encr: number
  /** Bits; 0 where the algorithm has one length only. */
  readonly keyLength: number
  /** `Integ.None` with an AEAD. */
  readonly integ: number
}

const SALT = 4
const AES_BITS = [128, 192, 256]

const HMACS: Readonly<Record<number, HmacFacts>> = {
  [Integ.HmacSha1_96]: { hash: HashAlgorithm.Sha1, keyLength: 20, icvLength: 12 },
  [Integ.HmacSha2_256_128]: { hash: HashAlgorithm.Sha2_256, keyLength: 32, icvLength: 16 },
  [Integ.HmacSha2_384_192]: { hash: HashAlgorithm.Sha2_384, keyLength: 48, icvLength: 24 },
  [Integ.HmacSha2_512_256]: { hash: HashAlgorithm.Sha2_512, keyLength: 64, icvLength: 32 },
}

/** RFC 7296 §3.3.2: an AEAD has no integrity algorithm, any other cipher has one. */
export const supportsCipher = ({ encr, keyLength, integ }: CipherChoice): boolean => {
  if (encr === Encr.Chacha20Poly1305) return keyLength === 0 && integ === Integ.None
  if (!AES_BITS.includes(keyLength)) return false
  if (encr === Encr.AesGcm16) return integ === Integ.None
  return encr === Encr.AesCbc && integ in HMACS
}

export const keyLengths = ({ encr, keyLength, integ }: CipherChoice): KeyLengths => ({
  encryption:
    encr === Encr.Chacha20Poly1305
      ? 32 + SALT
      : keyLength / 8 + (encr === Encr.AesGcm16 ? SALT : 0),
  integrity: HMACS[integ]?.keyLength ?? 0,
})

const aeadName = ({ encr, keyLength }: CipherChoice): AeadName =>
  encr === Encr.Chacha20Poly1305 ? 'chacha20poly1305' : `aes${keyLength as 128 | 192 | 256}gcm16`

/** `supportsCipher` must admit the choice. `aead` holds the implementations that are used instead of `backend`'s. */
export const createAead = (
  backend: Backend,
  choice: CipherChoice,
  encryptionKey: Uint8Array,
  integrityKey: Uint8Array,
  aead: AeadBackends = {},
): Aead => {
  const hmac = HMACS[choice.integ]
  if (hmac !== undefined) return new CbcHmac(backend, hmac, encryptionKey, integrityKey)
  const name = aeadName(choice)
  const builtIn = backend === 'noble' ? NOBLE_AEADS : NODE_AEADS
  return new SaltedAead(aead[name] ?? builtIn[name], encryptionKey)
}

const ENCR_NAMES: Readonly<Record<number, string>> = {
  [Encr.AesGcm16]: 'AES-GCM-16',
  [Encr.Chacha20Poly1305]: 'ChaCha20-Poly1305',
  [Encr.AesCbc]: 'AES-CBC',
}

const INTEG_NAMES: Readonly<Record<number, string>> = {
  [Integ.HmacSha1_96]: 'HMAC-SHA1-96',
  [Integ.HmacSha2_256_128]: 'HMAC-SHA2-256-128',
  [Integ.HmacSha2_384_192]: 'HMAC-SHA2-384-192',
  [Integ.HmacSha2_512_256]: 'HMAC-SHA2-512-256',
}

/** For display: `AES-GCM-16-256`. */
export const formatCipher = ({ encr, keyLength, integ }: CipherChoice): string => {
  const name = ENCR_NAMES[encr] ?? `ENCR-${encr}`
  const sized = keyLength === 0 ? name : `${name}-${keyLength}`
  return integ === Integ.None ? sized : `${sized}/${INTEG_NAMES[integ] ?? integ}`
}
