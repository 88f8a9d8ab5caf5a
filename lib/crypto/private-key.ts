/** Our own private keys: read once from what a program gives, and used for signatures (RFC 7427 §3). */
import {
  constants,
  createHash,
  createPrivateKey,
  createPublicKey,
  KeyObject,
  sign,
  type JsonWebKeyInput,
  type PrivateKeyInput,
} from 'node:crypto'
import { EMPTY } from '../base/bytes.ts'
import { Secret } from '../base/secret.ts'
import { HashAlgorithm } from '../wire/registry.ts'
import { noble } from './noble.ts'
import { computeHmac, type Backend } from './prf.ts'
import { readPublicKey, type PublicKey, type SignatureAlgorithm } from './signature.ts'

export interface PrivateKey {
  readonly publicKey: PublicKey
  /** The signature as X.509 and RFC 7427 have it (ECDSA in DER). */
  sign(backend: Backend, algorithm: SignatureAlgorithm, message: Uint8Array): Uint8Array
  /** A secret for the use that `label` names: the same for the same key, and telling nothing of it. */
  derive(label: Uint8Array): Secret
}

type Given = string | Uint8Array | KeyObject
type Passphrase = string | Uint8Array | undefined

/**
 * Keys that somebody uses, by a digest of what they were read from: OpenSSL takes longer to decode one than to sign
 * with it, and a program often gives the same one to many sockets.
 */
const known = new Map<string, WeakRef<PrivateKey>>()
const collected = new FinalizationRegistry<string>(name => {
  if (known.get(name)?.deref() === undefined) known.delete(name)
})

/** Undefined: it cannot be read, the passphrase is wrong, or we do not sign with such keys. */
export const readPrivateKey = (given: Given, passphrase: Passphrase): PrivateKey | undefined => {
  if (given instanceof KeyObject) return parsePrivateKey(given, passphrase)
  const name = nameOf(given, passphrase)
  const before = known.get(name)?.deref()
  if (before !== undefined) return before
  const key = parsePrivateKey(given, passphrase)
  if (key === undefined) return undefined
  known.set(name, new WeakRef(key))
  collected.register(key, name)
  return key
}

const nameOf = (given: string | Uint8Array, passphrase: Passphrase): string => {
  const hash = createHash('sha256')
  for (const part of [given, passphrase ?? EMPTY]) {
    hash.update(`${typeof part} ${part.length} `).update(part)
  }
  return hash.digest('base64')
}

const parsePrivateKey = (given: Given, passphrase: Passphrase): PrivateKey | undefined => {
  const key = importKey(given, passphrase)
  if (key === undefined || key.type !== 'private') return undefined
  const spki = createPublicKey(key).export({ format: 'der', type: 'spki' })
  const publicKey = readPublicKey(new Uint8Array(spki))
  return publicKey && new ImportedKey(key, publicKey)
}

const importKey = (given: Given, passphrase: Passphrase): KeyObject | undefined => {
  if (given instanceof KeyObject) return given
  const secret = passphrase === undefined ? {} : { passphrase: toPassphrase(passphrase) }
  if (typeof given === 'string') return attempt({ key: given, ...secret })
  const key = Buffer.from(given.buffer, given.byteOffset, given.length)
  // Without a passphrase in any case, since Node would ask for one on the terminal.
  return (
    attempt({ key, format: 'pem', ...secret }) ??
    attempt({ key, format: 'der', type: 'pkcs8', ...secret }) ??
    attempt({ key, format: 'der', type: 'pkcs1' }) ??
    attempt({ key, format: 'der', type: 'sec1' })
  )
}

const toPassphrase = (passphrase: string | Uint8Array): string | Buffer =>
  typeof passphrase === 'string' ? passphrase : Buffer.from(passphrase)

const attempt = (input: PrivateKeyInput | JsonWebKeyInput): KeyObject | undefined => {
  try {
    return createPrivateKey(input)
  } catch {
    return undefined
  }
}

const NOBLE_CURVES = { 'P-256': 'p256', 'P-384': 'p384', 'P-521': 'p521' } as const

class ImportedKey implements PrivateKey {
  readonly publicKey: PublicKey
  readonly #key: KeyObject

  constructor(key: KeyObject, publicKey: PublicKey) {
    this.#key = key
    this.publicKey = publicKey
  }

  sign(backend: Backend, algorithm: SignatureAlgorithm, message: Uint8Array): Uint8Array {
    const { kind, hash } = algorithm
    if (backend === 'noble' && (kind === 'ecdsa' || kind === 'ed25519' || kind === 'ed448')) {
      return this.#signByNoble(algorithm, message)
    }
    const digest = hash === 'identity' ? null : hash
    if (kind !== 'rsa-pss') return new Uint8Array(sign(digest, message, this.#key))
    // The salt comes from OpenSSL: the one randomness that is not the environment's.
    return new Uint8Array(
      sign(digest, message, {
        key: this.#key,
        padding: constants.RSA_PKCS1_PSS_PADDING,
        saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
      }),
    )
  }

  derive(label: Uint8Array): Secret {
    const octets = this.#key.export({ format: 'der', type: 'pkcs8' })
    const secret = Secret.adopt(computeHmac('auto', HashAlgorithm.Sha2_256, label, [octets]))
    octets.fill(0)
    return secret
  }

  #signByNoble({ kind, hash }: SignatureAlgorithm, message: Uint8Array): Uint8Array {
    const scalar = Buffer.from(this.#key.export({ format: 'jwk' }).d!, 'base64url')
    const secret = new Uint8Array(scalar)
    scalar.fill(0)
    try {
      if (hash === 'identity') return noble()[kind as 'ed25519' | 'ed448'].sign(message, secret)
      const curve = noble()[NOBLE_CURVES[this.publicKey.curve!]]
      const digest = noble()[hash](message)
      return curve.sign(digest, secret, { prehash: false, lowS: false, format: 'der' })
    } finally {
      secret.fill(0)
    }
  }
}
