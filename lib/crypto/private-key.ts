/** Our own private keys: decoded once from an option, and used for signatures (RFC 7427 §3). */
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
  /** The signature in the form of X.509 and RFC 7427 (ECDSA in DER). */
  sign(backend: Backend, algorithm: SignatureAlgorithm, message: Uint8Array): Uint8Array
  /** A secret for the purpose `label`. It is the same for the same key, and reveals nothing about the key. */
  derive(label: Uint8Array): Secret
}

type Given = string | Uint8Array | KeyObject
type Passphrase = string | Uint8Array | undefined

/**
 * Keys in use, by a digest of their encoding: OpenSSL takes longer to decode a key than to sign with it, and a program
 * often gives the same key to many sockets.
 */
const known = new Map<string, WeakRef<PrivateKey>>()
const collected = new FinalizationRegistry<string>(name => {
  if (known.get(name)?.deref() === undefined) known.delete(name)
})

/** Undefined: it cannot be decoded, the passphrase is wrong, or we do not sign with keys of that type. */
export const readPrivateKey = (options: Given, passphrase: Passphrase): PrivateKey | undefined => {
  if (options instanceof KeyObject) return parsePrivateKey(options, passphrase)
  const name = nameOf(options, passphrase)
  const before = known.get(name)?.deref()
  if (before !== undefined) return before
  const key = parsePrivateKey(options, passphrase)
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

const parsePrivateKey = (options: Given, passphrase: Passphrase): PrivateKey | undefined => {
  const key = importKey(options, passphrase)
  if (key === undefined || key.type !== 'private') return undefined
  const spki = createPublicKey(key).export({ format: 'der', type: 'spki' })
  const publicKey = readPublicKey(new Uint8Array(spki))
  return publicKey && new ImportedKey(key, publicKey)
}

const importKey = (options: Given, passphrase: Passphrase): KeyObject | undefined => {
  if (options instanceof KeyObject) return options
  const secret = passphrase === undefined ? {} : { passphrase: toPassphrase(passphrase) }
  if (typeof options === 'string') return attempt({ key: options, ...secret })
  const key = Buffer.from(options.buffer, options.byteOffset, options.length)
  // Always pass a passphrase: without one Node would prompt for it on the terminal.
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
