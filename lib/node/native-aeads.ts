/**
 * Implementations of AEADs that are there on some systems only. They are looked for once, when a policy may use them, and
 * asked for known answers: one that is wrong is as good as none.
 */
import type { AeadBackends } from '../base/aead-backend.ts'
import { backendProblem } from '../crypto/aead-proof.ts'
import { findSodium } from './sodium-aead.ts'

let found: AeadBackends | undefined

export const nativeAeads = (): AeadBackends => (found ??= find())

const find = (): AeadBackends => {
  const sodium = findSodium()
  if (sodium === undefined || backendProblem('chacha20poly1305', sodium) !== undefined) return {}
  return { chacha20poly1305: sodium }
}
