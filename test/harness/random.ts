/** Seeded randomness: the same seed, the same run. */
import { createPrivateKey } from 'node:crypto'
import type { Environment } from '../../lib/base/environment.ts'

export class Random {
  private state: number

  constructor(seed: number) {
    this.state = (seed * 2654435761 + 1) >>> 0 || 1
  }

  /** 32 bits (xorshift). */
  next(): number {
    let x = this.state
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.state = x >>> 0
    return this.state
  }

  /** In [0, 1). */
  fraction(): number {
    return this.next() / 2 ** 32
  }

  /** An integer in [from, to]. */
  integer(from: number, to: number): number {
    return from + Math.floor(this.fraction() * (to - from + 1))
  }

  chance(probability: number): boolean {
    return this.fraction() < probability
  }

  fill(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.next() >>> 24
  }
}

/** Keys of drawn octets: the way of an environment that has no `generateKey`, but eight times as fast. */
export const keysOf =
  (randomFill: (bytes: Uint8Array) => void): NonNullable<Environment['generateKey']> =>
  type => {
    const [crv, octets] = type === 'x25519' ? ['X25519', 32] : ['X448', 56]
    const drawn = Buffer.alloc(octets)
    randomFill(drawn)
    // Node computes the public value itself.
    const key = { kty: 'OKP', crv, x: drawn.toString('base64url'), d: drawn.toString('base64url') }
    return createPrivateKey({ key, format: 'jwk' })
  }

/** An environment whose randomness comes from a seed and whose wall clock stands still, unless it is a function. */
export const seededEnvironment = (
  seed: number,
  wallClock: number | (() => number) = 1_800_000_000_000,
): Environment => {
  const random = new Random(seed)
  const randomFill = (bytes: Uint8Array): void => random.fill(bytes)
  const clock = typeof wallClock === 'number' ? () => wallClock : wallClock
  return { wallClock: clock, randomFill, generateKey: keysOf(randomFill) }
}
