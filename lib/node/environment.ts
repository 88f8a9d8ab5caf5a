/** The real clock and the real randomness. */
import { createDiffieHellmanGroup, generateKeyPairSync, randomFillSync } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import type { Environment, Millis } from '../base/environment.ts'

/** Random octets that nobody has had yet; zeros before `drawn`. */
const pool = new Uint8Array(new ArrayBuffer(1024))
let drawn = pool.length

/** The system's randomness, of which small portions are drawn many at once: a call for each costs as much as for a thousand. */
const randomFill = (bytes: Uint8Array): void => {
  const { length } = bytes
  if (length > pool.length / 8) return void randomFillSync(bytes)
  if (drawn + length > pool.length) {
    randomFillSync(pool)
    drawn = 0
  }
  bytes.set(pool.subarray(drawn, drawn + length))
  pool.fill(0, drawn, (drawn += length))
}

export const systemEnvironment: Environment = {
  wallClock: () => Date.now(),
  randomFill,
  generateKey: type => generateKeyPairSync(type as 'x25519').privateKey,
  generateModp: name => {
    const group = createDiffieHellmanGroup(name)
    group.generateKeys()
    return group
  },
}

/** Milliseconds on the monotonic clock that drives the core. */
export const monotonicNow = (): Millis => performance.now()
