/** The real clock and the real randomness. */
import { createDiffieHellmanGroup, generateKeyPairSync, randomFillSync } from 'node:crypto'
import type { Environment, Millis } from '../base/environment.ts'

export const systemEnvironment: Environment = {
  wallClock: () => Date.now(),
  randomFill: bytes => void randomFillSync(bytes),
  generateKey: type => generateKeyPairSync(type as 'x25519').privateKey,
  generateModp: name => {
    const group = createDiffieHellmanGroup(name)
    group.generateKeys()
    return group
  },
}

/** Milliseconds on the monotonic clock that drives the core. */
export const monotonicNow = (): Millis => performance.now()
