/** The option `aead`: a program's own implementations of ciphers, each proved before it is taken. */
import {
  AEAD_NAMES,
  type AeadBackend,
  type AeadBackends,
  type AeadName,
} from '../base/aead-backend.ts'
import { describe, OptionError, ownProperties } from '../base/errors.ts'
import { reader, type Reader } from '../base/option-table.ts'
import { backendProblem } from '../crypto/aead-proof.ts'

export const aeadBackends: Reader<AeadBackends> = (name, value) => {
  if (typeof value !== 'object' || value === null) {
    throw new OptionError(name, value, `an object with one or more of ${AEAD_NAMES.join(', ')}`)
  }
  const read = reader(ownProperties(name, value), name)
  read.refuseUnknown(AEAD_NAMES)
  const given: [AeadName, AeadBackend][] = []
  for (const cipher of AEAD_NAMES) {
    const backend = read(cipher, backendOf(cipher), undefined)
    if (backend !== undefined) given.push([cipher, backend])
  }
  return Object.fromEntries(given)
}

const backendOf =
  (cipher: AeadName): Reader<AeadBackend> =>
  (name, value) => {
    const { name: own, create } = (value ?? {}) as Partial<AeadBackend>
    if (typeof own !== 'string' || own === '' || typeof create !== 'function') {
      throw new OptionError(name, value, 'a backend: an object with a name and create(key)')
    }
    const backend = value as AeadBackend
    const problem = backendProblem(cipher, backend)
    if (problem === undefined) return backend
    throw OptionError.saying(
      name,
      `The option "${name}" has a backend, ${describe(own)}, that does not do ${cipher}: ${problem}`,
    )
  }
