/** The algorithms of an IKE SA out of a chosen proposal. */
import { createPrf, type Backend } from '../crypto/prf.ts'
import { formatCipher, supportsCipher } from '../crypto/suite.ts'
import { supportsGroup } from '../crypto/key-exchange.ts'
import { chosen } from '../policy/proposal.ts'
import { KeGroup, nameOf, Prf, TransformType } from '../wire/registry.ts'
import type { Proposal } from '../wire/sa.ts'
import type { IkeSuite } from './exchange.ts'

/** Those that SAs have had, by what they are made of: one object serves them all. Only suites that we support are here. */
const known = new Map<string, IkeSuite>()

/** Undefined when it names something we cannot do. */
export const suiteOf = (backend: Backend, proposal: Proposal): IkeSuite | undefined => {
  const encr = chosen(proposal, TransformType.Encr)
  const keyLength = encr.keyLength ?? 0
  const integ = chosen(proposal, TransformType.Integ).id
  const prf = chosen(proposal, TransformType.Prf).id
  const group = chosen(proposal, TransformType.Ke).id
  const key = `${backend} ${encr.id} ${keyLength} ${integ} ${prf} ${group}`
  const before = known.get(key)
  if (before !== undefined) return before
  const suite = makeSuite(backend, { encr: encr.id, keyLength, integ }, prf, group)
  if (suite !== undefined) known.set(key, suite)
  return suite
}

const makeSuite = (
  backend: Backend,
  cipher: IkeSuite['cipher'],
  prfId: number,
  group: number,
): IkeSuite | undefined => {
  const prf = createPrf(backend, prfId)
  if (prf === undefined || !supportsCipher(cipher) || !supportsGroup(group)) return undefined
  const prfName = nameOf(Prf, prf.id)
    .replace('Hmac', 'HMAC-')
    .replace('Sha', 'SHA')
    .replace('_', '-')
  return {
    cipher,
    prf,
    group,
    text: `${formatCipher(cipher)}, PRF-${prfName}, ${nameOf(KeGroup, group)}`,
  }
}
