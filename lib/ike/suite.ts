/** The algorithms of an IKE SA out of a chosen proposal. */
import { createPrf, type Backend } from '../crypto/prf.ts'
import { formatCipher, supportsCipher } from '../crypto/suite.ts'
import { supportsGroup } from '../crypto/key-exchange.ts'
import { chosen } from '../policy/proposal.ts'
import { KeGroup, nameOf, Prf, TransformType } from '../wire/registry.ts'
import type { Proposal } from '../wire/sa.ts'
import type { IkeSuite } from './exchange.ts'

/** Undefined when it names something we cannot do. */
export const suiteOf = (backend: Backend, proposal: Proposal): IkeSuite | undefined => {
  const encr = chosen(proposal, TransformType.Encr)
  const cipher = {
    encr: encr.id,
    keyLength: encr.keyLength ?? 0,
    integ: chosen(proposal, TransformType.Integ).id,
  }
  const prf = createPrf(backend, chosen(proposal, TransformType.Prf).id)
  const group = chosen(proposal, TransformType.Ke).id
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
