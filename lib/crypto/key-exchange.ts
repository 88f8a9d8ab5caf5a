/**
 * Key exchange methods: X25519, X448 (RFC 8031), NIST curves (RFC 5903), MODP (RFC 3526). A malformed value of the
 * peer yields no secret, and never an exception.
 */
import { errorOf } from '../base/error-table.ts'
import {
  createDiffieHellmanGroup,
  createECDH,
  createPrivateKey,
  createPublicKey,
  createDiffieHellman,
  diffieHellman,
  type DiffieHellman,
  type DiffieHellmanGroup,
  type KeyObject,
} from 'node:crypto'
import { compare, concat, fromHex } from '../base/bytes.ts'
import type { Environment } from '../base/environment.ts'
import { moveSecret, secretCopy, secretOctets } from '../base/secret.ts'
import { KeGroup } from '../wire/registry.ts'
import { noble } from './noble.ts'
import type { Backend } from './prf.ts'

export interface KeyExchange {
  readonly group: number
  /** The Key Exchange Data of our KE payload. */
  readonly publicValue: Uint8Array
  /** Undefined when the peer's value is not valid in this group. */
  sharedSecret(peerValue: Uint8Array): Uint8Array | undefined
  wipe(): void
}

type Maker = (backend: Backend, environment: Environment) => KeyExchange

/** Undefined for a group that we do not support. */
export const createKeyExchange = (
  backend: Backend,
  group: number,
  environment: Environment,
): KeyExchange | undefined => MAKERS[group]?.(backend, environment)

export const supportsGroup = (group: number): boolean => group in MAKERS

/** Length in octets of the group's public value: a value of another length is refused before any work. */
export const publicValueLength = (group: number): number => LENGTHS[group] ?? 0

/**
 * Roughly how many milliseconds of one core a handshake in that group costs its responder: the key exchange as
 * measured, plus 0.9 ms for the rest.
 */
export const exchangeCost = (backend: Backend, group: number): number =>
  0.9 + ((backend === 'noble' ? NOBLE_COSTS[group] : undefined) ?? COSTS[group] ?? 0)

const randomSecret = (environment: Environment, length: number): Uint8Array => {
  const octets = secretOctets(length)
  environment.randomFill(octets)
  return octets
}

// --- Montgomery curves ---

interface Montgomery {
  readonly group: number
  readonly type: 'x25519' | 'x448'
  /** Its name in a JSON Web Key (RFC 8037 §2). */
  readonly crv: 'X25519' | 'X448'
  readonly length: number
  readonly pkcs8: Uint8Array
}

const X25519: Montgomery = {
  group: KeGroup.X25519,
  type: 'x25519',
  crv: 'X25519',
  length: 32,
  // RFC 8410 §7: the DER around a raw private key.
  pkcs8: fromHex('302e020100300506032b656e04220420'),
}

const X448: Montgomery = {
  group: KeGroup.X448,
  type: 'x448',
  crv: 'X448',
  length: 56,
  pkcs8: fromHex('3046020100300506032b656f043a0438'),
}

const montgomery =
  (curve: Montgomery): Maker =>
  (backend, environment) =>
    backend === 'noble'
      ? nobleMontgomery(curve, randomSecret(environment, curve.length))
      : nodeMontgomery(
          curve,
          environment.generateKey?.(curve.type) ??
            importKey(curve, randomSecret(environment, curve.length)),
        )

const nobleMontgomery = (curve: Montgomery, privateKey: Uint8Array): KeyExchange => ({
  group: curve.group,
  publicValue: noble()[curve.type].getPublicKey(privateKey),
  sharedSecret: peerValue => {
    if (peerValue.length !== curve.length) return undefined
    try {
      return nonZero(moveSecret(noble()[curve.type].getSharedSecret(privateKey, peerValue)))
    } catch {
      return undefined
    }
  },
  wipe: () => void privateKey.fill(0),
})

/** Overwrites the octets. */
const importKey = (curve: Montgomery, octets: Uint8Array): KeyObject => {
  const der = moveSecret(concat(curve.pkcs8, octets))
  octets.fill(0)
  const key = createPrivateKey({ key: Buffer.from(der.buffer), format: 'der', type: 'pkcs8' })
  der.fill(0)
  return key
}

/** Public values pass through JSON Web Keys (RFC 8037), which node:crypto reads and writes many times faster than DER. */
const nodeMontgomery = (curve: Montgomery, privateKey: KeyObject): KeyExchange => {
  let key: KeyObject | undefined = privateKey
  const own = createPublicKey(privateKey).export({ format: 'jwk' })
  return {
    group: curve.group,
    publicValue: new Uint8Array(Buffer.from(own.x!, 'base64url')),
    sharedSecret: peerValue => {
      if (key === undefined || peerValue.length !== curve.length) return undefined
      try {
        const x = Buffer.from(peerValue).toString('base64url')
        const publicKey = createPublicKey({
          key: { kty: 'OKP', crv: curve.crv, x },
          format: 'jwk',
        })
        return nonZero(moveSecret(diffieHellman({ privateKey: key, publicKey })))
      } catch {
        return undefined
      }
    },
    wipe: () => void (key = undefined),
  }
}

/** RFC 8031 §2 (RFC 7748 §6): a point of small order gives an all-zero result. */
const nonZero = (shared: Uint8Array): Uint8Array | undefined =>
  shared.some(octet => octet !== 0) ? shared : undefined

// --- NIST curves ---

interface Nist {
  readonly group: number
  readonly name: 'prime256v1' | 'secp384r1' | 'secp521r1'
  /** Octets of a coordinate, of a scalar and of the secret, which is x alone (RFC 5903 §7). */
  readonly length: number
  readonly noble: 'p256' | 'p384' | 'p521'
  readonly order: Uint8Array
}

/** The orders are those of FIPS 186-4 appendix D.1.2. */
const P256: Nist = {
  group: KeGroup.P256,
  name: 'prime256v1',
  length: 32,
  noble: 'p256',
  order: fromHex('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551'),
}

const P384: Nist = {
  group: KeGroup.P384,
  name: 'secp384r1',
  length: 48,
  noble: 'p384',
  order: fromHex(
    'ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973',
  ),
}

const P521: Nist = {
  group: KeGroup.P521,
  name: 'secp521r1',
  length: 66,
  noble: 'p521',
  order: fromHex(
    '01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409',
  ),
}

const nist =
  (curve: Nist): Maker =>
  (backend, environment) => {
    const privateKey = drawScalar(curve, environment)
    const wipe = (): void => void privateKey.fill(0)
    if (backend === 'noble') {
      return {
        group: curve.group,
        publicValue: noble()[curve.noble].getPublicKey(privateKey, false).slice(1),
        sharedSecret: peerValue =>
          nistSecret(curve, peerValue, point =>
            nistX(curve, noble()[curve.noble].getSharedSecret(privateKey, point, false)),
          ),
        wipe,
      }
    }
    const ecdh = createECDH(curve.name)
    ecdh.setPrivateKey(privateKey)
    return {
      group: curve.group,
      publicValue: new Uint8Array(ecdh.getPublicKey().subarray(1)),
      sharedSecret: peerValue =>
        nistSecret(curve, peerValue, point => moveSecret(ecdh.computeSecret(point))),
      wipe: () => {
        wipe()
        // OpenSSL keeps its own copy: overwrite it with a scalar that is not secret.
        ecdh.setPrivateKey(ONE.subarray(ONE.length - curve.length))
      },
    }
  }

/** Takes the secret from an uncompressed point, and overwrites the point. */
const nistX = (curve: Nist, point: Uint8Array): Uint8Array => {
  const x = secretCopy(point.subarray(1, 1 + curve.length))
  point.fill(0)
  return x
}

const ONE = Uint8Array.from({ length: 66 }, (_, i) => (i === 65 ? 1 : 0))

/** RFC 5903 §7: x and y, nothing else; another encoding of a point is refused because of its length. */
const nistSecret = (
  curve: Nist,
  peerValue: Uint8Array,
  derive: (point: Uint8Array) => Uint8Array,
): Uint8Array | undefined => {
  if (peerValue.length !== 2 * curve.length) return undefined
  try {
    return derive(concat(Uint8Array.of(4), peerValue))
  } catch {
    return undefined
  }
}

/** Uniform in [1, n-1], by drawing again. */
const drawScalar = (curve: Nist, environment: Environment): Uint8Array => {
  for (;;) {
    const scalar = randomSecret(environment, curve.length)
    // P-521's order has 521 bits: the top octet holds one of them.
    if (curve.length === 66) scalar[0]! &= 1
    if (compare(scalar, curve.order) < 0 && scalar.some(octet => octet !== 0)) return scalar
  }
}

// --- MODP ---

/** Exponents have at least twice the group's strength in bits, as RFC 3526 §8 estimates it. */
const MODP: Readonly<Record<number, { name: string; length: number; exponentOctets: number }>> = {
  [KeGroup.Modp1024]: { name: 'modp2', length: 128, exponentOctets: 40 },
  [KeGroup.Modp2048]: { name: 'modp14', length: 256, exponentOctets: 40 },
  [KeGroup.Modp3072]: { name: 'modp15', length: 384, exponentOctets: 48 },
  [KeGroup.Modp4096]: { name: 'modp16', length: 512, exponentOctets: 56 },
}

/** RFC 2409 §6.2, RFC 3526: of every group. */
const GENERATOR = Uint8Array.of(2)

/** What computes with one exponent. */
interface ModpPair {
  readonly publicValue: Uint8Array
  computeSecret(peerValue: Uint8Array): Uint8Array
  wipe(): void
}

const modp =
  (group: number): Maker =>
  (_backend, environment) => {
    const { name, length } = MODP[group]!
    const prime = primeOf(group)
    // OpenSSL has no name for the group of 1024 bits, and takes tens of milliseconds to make an object of it.
    const own = group === KeGroup.Modp1024 ? undefined : environment.generateModp?.(name)
    const pair = own === undefined ? drawnPair(group, environment) : generatedPair(own)
    return {
      group,
      publicValue: leftPad(pair.publicValue, length),
      sharedSecret: peerValue => {
        // RFC 6989 §2.1: 1 < value < p-1.
        if (peerValue.length !== length || !isInside(peerValue, prime)) return undefined
        try {
          const secret = pair.computeSecret(peerValue)
          const padded = leftPad(secret, length)
          secret.fill(0)
          return padded
        } catch {
          return undefined
        }
      },
      wipe: () => pair.wipe(),
    }
  }

const generatedPair = (generated: DiffieHellmanGroup): ModpPair => {
  let own: DiffieHellmanGroup | undefined = generated
  return {
    publicValue: generated.getPublicKey(),
    computeSecret: peerValue => {
      if (own === undefined) throw errorOf('BUG', { what: 'The exponent is wiped' })
      return own.computeSecret(peerValue)
    },
    // OpenSSL overwrites the exponent when the object is collected.
    wipe: () => void (own = undefined),
  }
}

const primes = new Map<number, Uint8Array>()

const primeOf = (group: number): Uint8Array => {
  const prime = primes.get(group) ?? createDiffieHellmanGroup(MODP[group]!.name).getPrime()
  primes.set(group, prime)
  return prime
}

const exchanges = new Map<number, DiffieHellman>()

/** Computes with any exponent of the group. All share one, because newer versions of Node check for seconds whether the prime is one. */
const exchangeOf = (group: number): DiffieHellman => {
  const exchange = exchanges.get(group) ?? createDiffieHellman(primeOf(group), GENERATOR)
  exchanges.set(group, exchange)
  return exchange
}

/** With a random exponent. */
const drawnPair = (group: number, environment: Environment): ModpPair => {
  const exchange = exchangeOf(group)
  const exponent = randomSecret(environment, MODP[group]!.exponentOctets)
  exponent[0]! |= 0x80
  const computed = (compute: () => Uint8Array): Uint8Array => {
    exchange.setPrivateKey(exponent)
    try {
      return compute()
    } finally {
      exchange.setPrivateKey(Uint8Array.of(1))
    }
  }
  return {
    publicValue: computed(() => exchange.generateKeys()),
    computeSecret: peerValue => computed(() => exchange.computeSecret(peerValue)),
    wipe: () => void exponent.fill(0),
  }
}

const isInside = (value: Uint8Array, prime: Uint8Array): boolean => {
  const last = value.length - 1
  if (value.subarray(0, last).every(octet => octet === 0) && value[last]! <= 1) return false
  const largest = new Uint8Array(prime)
  largest[last]! -= 1
  return compare(value, largest) < 0
}

/** RFC 7296 §2.14, §3.4: padded with leading zeros to the length of the modulus. */
const leftPad = (value: Uint8Array, length: number): Uint8Array => {
  const padded = secretOctets(length)
  padded.set(value, length - value.length)
  return padded
}

// --- the table ---

const MAKERS: Readonly<Record<number, Maker>> = {
  [KeGroup.X25519]: montgomery(X25519),
  [KeGroup.X448]: montgomery(X448),
  [KeGroup.P256]: nist(P256),
  [KeGroup.P384]: nist(P384),
  [KeGroup.P521]: nist(P521),
  [KeGroup.Modp1024]: modp(KeGroup.Modp1024),
  [KeGroup.Modp2048]: modp(KeGroup.Modp2048),
  [KeGroup.Modp3072]: modp(KeGroup.Modp3072),
  [KeGroup.Modp4096]: modp(KeGroup.Modp4096),
}

const LENGTHS: Readonly<Record<number, number>> = {
  [KeGroup.X25519]: 32,
  [KeGroup.X448]: 56,
  [KeGroup.P256]: 64,
  [KeGroup.P384]: 96,
  [KeGroup.P521]: 132,
  [KeGroup.Modp1024]: 128,
  [KeGroup.Modp2048]: 256,
  [KeGroup.Modp3072]: 384,
  [KeGroup.Modp4096]: 512,
}

const COSTS: Readonly<Record<number, number>> = {
  [KeGroup.X25519]: 0.1,
  [KeGroup.X448]: 0.4,
  [KeGroup.P256]: 0.2,
  [KeGroup.P384]: 2.3,
  [KeGroup.P521]: 5.2,
  [KeGroup.Modp1024]: 0.3,
  [KeGroup.Modp2048]: 0.6,
  [KeGroup.Modp3072]: 1.6,
  [KeGroup.Modp4096]: 3,
}

const NOBLE_COSTS: Readonly<Record<number, number>> = {
  [KeGroup.X25519]: 2,
  [KeGroup.X448]: 6,
  [KeGroup.P256]: 4,
  [KeGroup.P384]: 7.7,
  [KeGroup.P521]: 20,
}
