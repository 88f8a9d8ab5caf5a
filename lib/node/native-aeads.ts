/**
 * Implementations of AEADs that are there on some systems only. They are looked for once, when a policy may use them, and
 * asked for known answers: one that is wrong is as good as none.
 */
import { AEAD_NAMES, type AeadBackends } from '../base/aead-backend.ts'
import { isAccelerated } from '../base/ffi.ts'
import { backendProblem } from '../crypto/aead-proof.ts'
import { makeEvpAeads } from './evp-aead.ts'
import { findSodium } from './sodium-aead.ts'

let sodium: AeadBackends | undefined
let openssl: AeadBackends | undefined

/** `accelerate`: the option of that name. */
export const nativeAeads = (accelerate: 'auto' | 'off' | 'ffi'): AeadBackends => {
  sodium ??= findSodiumAead()
  if (!isAccelerated(accelerate)) return sodium
  return { ...(openssl ??= findEvpAeads()), ...sodium }
}

const findSodiumAead = (): AeadBackends => {
  const backend = findSodium()
  if (backend === undefined || backendProblem('chacha20poly1305', backend) !== undefined) return {}
  return { chacha20poly1305: backend }
}

const findEvpAeads = (): AeadBackends => {
  const backends = makeEvpAeads()
  for (const name of AEAD_NAMES) {
    const problem = backendProblem(name, backends[name])
    if (problem === undefined) continue
    const message = `Encryption is not accelerated: ${name} by node:ffi is not what it should be: ${problem}`
    process.emitWarning(message, { code: 'IKE_NOT_ACCELERATED' })
    return {}
  }
  return backends
}
