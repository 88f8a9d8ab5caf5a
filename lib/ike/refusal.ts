/**
 * Why a negotiation failed, in words for our own side: what was offered, what is accepted, and where the two
 * did not meet. The peer is told a number and no more.
 */
import { errorOf } from '../base/error-table.ts'
import type { IpsecError } from '../base/errors.ts'
import { formatProposal } from '../policy/proposal.ts'
import { formatSelector } from '../policy/traffic-selectors.ts'
import { transformTypeName } from '../policy/transform-names.ts'
import { TransformType } from '../wire/registry.ts'
import type { Proposal } from '../wire/sa.ts'
import type { TrafficSelector } from '../wire/traffic-selector.ts'
import type { ExchangeContext } from './exchange.ts'

/** A peer may send thousands; nobody reads them. */
const MOST_LISTED = 20
const LONGEST = 400

const bounded = <T>(things: readonly T[], format: (thing: T) => string): string[] =>
  things
    .slice(0, MOST_LISTED)
    .map(format)
    .map(text => (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text))

export type Subject = 'IKE SA' | 'Child SA'

/** `unmet`: types of transform; none: the protocols differ. */
export const noProposal = (
  subject: Subject,
  offered: readonly Proposal[],
  accepted: readonly Proposal[],
  unmet: readonly number[],
): IpsecError => {
  const details = {
    offered: bounded(offered, formatProposal),
    accepted: accepted.map(formatProposal),
    unmet: unmet.map(transformTypeName),
  }
  const values = {
    subject,
    unmet: details.unmet.join(', ') || 'protocol',
    offered: details.offered.join(', '),
    accepted: details.accepted.join(', '),
    option:
      subject === 'IKE SA' ? 'ike' : unmet.includes(TransformType.Ke) ? 'esp" or "pfs' : 'esp',
  }
  return errorOf('NO_COMMON_PROPOSAL', values, details)
}

interface Ends {
  readonly local: readonly TrafficSelector[]
  readonly remote: readonly TrafficSelector[]
}

export const noSelectors = (asked: Ends, allowed: Ends): IpsecError => {
  const details = {
    offered: {
      local: bounded(asked.local, formatSelector),
      remote: bounded(asked.remote, formatSelector),
    },
    accepted: {
      local: bounded(allowed.local, formatSelector),
      remote: bounded(allowed.remote, formatSelector),
    },
  }
  const text = ({ local, remote }: { local: string[]; remote: string[] }): string =>
    `${local.join(' ')} === ${remote.join(' ')}`
  const values = { offered: text(details.offered), accepted: text(details.accepted) }
  return errorOf('NO_COMMON_SELECTORS', values, details)
}

/** Tells our side that a request of an authenticated peer was refused. */
export const reportRefusal = (sa: ExchangeContext, subject: Subject, error: IpsecError): void => {
  sa.trace('ike.refused', { subject, code: error.code, why: error.message })
  sa.output({ kind: 'refused', error })
}
