/**
 * The only door through which time of day and randomness reach the core. Everything else that varies
 * is an argument, so a run replays from its seed.
 */

import type { DiffieHellmanGroup, KeyObject } from 'node:crypto'

/** Milliseconds. As an instant: on the monotonic clock of the driver of the core. */
export type Millis = number

export interface Environment {
  /** Milliseconds since the Unix epoch. For certificates and logs only, never for timers. */
  wallClock(): Millis
  /** Fills `bytes` with random octets fit for keys. */
  randomFill(bytes: Uint8Array): void
  /** First octet of every SPI, 1 to 255; undefined: any. */
  readonly spiMark?: number | undefined
  /**
   * A fresh private key, by a generator that is faster than the import of drawn octets. Without it, keys of these
   * types are made of octets of `randomFill`.
   */
  generateKey?(type: 'x25519' | 'x448'): KeyObject
  /** The same for a MODP group by Node's name for it, such as `modp14`: a fresh exponent and its public value. */
  generateModp?(name: string): DiffieHellmanGroup
}

/** A fresh SPI of that length; where others share our UDP port, its first octet tells that it is ours. */
export const drawSpi = (environment: Environment, length: number): Uint8Array => {
  const spi = randomBytes(environment, length)
  if (environment.spiMark !== undefined) spi[0] = environment.spiMark
  return spi
}

/** `length` fresh random octets. */
export const randomBytes = (environment: Environment, length: number): Uint8Array => {
  const bytes = new Uint8Array(length)
  environment.randomFill(bytes)
  return bytes
}

const fraction = new Uint8Array(4)

/** A random number in [0, 1) with 32 bits of resolution, for jitter. */
export const randomFraction = (environment: Environment): number => {
  const bytes = fraction
  environment.randomFill(bytes)
  return ((bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!) / 2 ** 32 + 0.5
}
