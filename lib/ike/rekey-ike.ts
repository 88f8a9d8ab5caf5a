/** CREATE_CHILD_SA that rekeys the IKE SA (RFC 7296 §1.3.2, §2.8.2, §2.18, §2.25.2). */
import { errorOf } from '../base/error-table.ts'
import { drawSpi, randomBytes, type Millis } from '../base/environment.ts'
import { createKeyExchange, type KeyExchange } from '../crypto/key-exchange.ts'
import { computeRekeySkeyseed } from '../crypto/key-material.ts'
import { checkChosen, chooseProposal, chosen, groupsOf, withSpi } from '../policy/proposal.ts'
import { IKE_SPI_LENGTH } from '../wire/ike-header.ts'
import { find } from '../wire/message.ts'
import { findErrorNotify, findNotify, notify, readU16List } from '../wire/notify.ts'
import type { Payload } from '../wire/payloads.ts'
import { ExchangeType, notifyName, NotifyType, TransformType } from '../wire/registry.ts'
import type { Proposal } from '../wire/sa.ts'
import { ownAttemptLoses } from './collision.ts'
import { knowsCrashTokens, ownCrashToken, TellCrashToken } from './tell-crash-token.ts'
import { NONCE_LENGTH } from './create-child.ts'
import type { Exchange, ExchangeContext } from './exchange.ts'
import { DeleteIke } from './informational.ts'
import { answerKeyExchange } from './inner-exchange.ts'
import { noProposal, reportRefusal } from './refusal.ts'
import { suiteOf } from './suite.ts'

export class RekeyIke implements Exchange {
  readonly type = ExchangeType.CreateChildSa
  readonly subject = 'ikeSa'
  private readonly groups: number[]
  private nonce: Uint8Array = new Uint8Array(0)
  private spi: Uint8Array = new Uint8Array(0)
  private proposals: readonly Proposal[] = []
  private exchange: KeyExchange | undefined

  constructor(groups: number[] = []) {
    this.groups = groups
  }

  build(sa: ExchangeContext): Payload[] | undefined {
    if (sa.state !== 'established') return undefined
    if (sa.rekeying.own !== undefined || sa.rekeying.peer !== undefined) return undefined
    const { environment, policy } = sa.config
    this.nonce = randomBytes(environment, NONCE_LENGTH)
    this.spi = drawSpi(environment, IKE_SPI_LENGTH)
    sa.config.holdIkeSpi(this.spi)
    this.proposals = withSpi(policy.ike, this.spi)
    const group = this.groups.at(-1) ?? sa.suite.group
    this.exchange = createKeyExchange(policy.backend, group, environment)!
    sa.rekeying.own = {
      initiatorNonce: this.nonce,
      responderNonce: undefined,
      replacement: undefined,
    }
    return [
      { kind: 'sa', proposals: this.proposals },
      { kind: 'nonce', data: this.nonce },
      { kind: 'ke', group, data: this.exchange.publicValue },
    ]
  }

  onResponse(sa: ExchangeContext, payloads: readonly Payload[], now: Millis): void {
    const own = sa.rekeying.own!
    const { peer } = sa.rekeying
    sa.config.freeIkeSpi(this.spi)
    const facts = this.read(sa, payloads)
    if (facts === undefined) return this.onRefused(sa, payloads, now)
    own.responderNonce = facts.nonceR
    own.replacement = sa.createSuccessor(facts, now)
    own.replacement.crashTokens.note(payloads)
    sa.trace('ike.rekeyed', { simultaneous: peer !== undefined })
    if (peer === undefined) {
      sa.handOver(own.replacement, now)
      sa.enqueue(new DeleteIke(), now)
    } else if (sa.settled || ownAttemptLoses(own, peer)) {
      own.replacement.markRekeyed()
      own.replacement.enqueue(new DeleteIke(), now)
      sa.settleOnPeer(now)
    } else {
      peer.replacement!.markRekeyed()
      peer.replacement!.expectPeerDelete(now)
      sa.handOver(own.replacement, now)
      sa.enqueue(new DeleteIke(), now)
    }
    // RFC 6290 §4.3: the peer's token has come with the answer, ours needs an exchange of its own.
    if (knowsCrashTokens(sa)) own.replacement.enqueue(new TellCrashToken(), now)
  }

  abandon(sa: ExchangeContext): void {
    sa.config.freeIkeSpi(this.spi)
    this.exchange?.wipe()
  }

  private read(
    sa: ExchangeContext,
    payloads: readonly Payload[],
  ): Parameters<ExchangeContext['createSuccessor']>[0] | undefined {
    const answer = find(payloads, 'sa')
    const nonceR = find(payloads, 'nonce')?.data
    const ke = find(payloads, 'ke')
    const proposal = answer && checkChosen(this.proposals, answer.proposals)
    if (proposal === undefined || nonceR === undefined || proposal.spi.length !== IKE_SPI_LENGTH)
      return undefined
    const suite = suiteOf(sa.config.policy.backend, proposal)
    if (suite === undefined || ke === undefined || ke.group !== suite.group) return undefined
    if (this.exchange?.group !== ke.group) return undefined
    const shared = this.exchange.sharedSecret(ke.data)
    this.exchange.wipe()
    if (shared === undefined) return undefined
    const skeyseed = computeRekeySkeyseed(sa.suite.prf, sa.skD, shared, this.nonce, nonceR)
    shared.fill(0)
    return {
      originalInitiator: true,
      spiI: this.spi,
      spiR: proposal.spi,
      suite,
      skeyseed,
      nonceI: this.nonce,
      nonceR,
    }
  }

  private onRefused(sa: ExchangeContext, payloads: readonly Payload[], now: Millis): void {
    this.exchange?.wipe()
    sa.rekeying.own = undefined
    if (sa.rekeying.peer !== undefined) return sa.settleOnPeer(now)
    if (sa.state !== 'established') return
    const invalid = findNotify(payloads, NotifyType.InvalidKePayload)
    const group = invalid && readU16List(invalid)[0]
    if (group !== undefined && this.mayTry(sa, group)) {
      return sa.enqueue(new RekeyIke([...this.groups, group]), now)
    }
    const refusal = findErrorNotify(payloads)?.type
    const code = refusal === undefined ? 'ERR_IKE_REKEY_ANSWER' : notifyName(refusal)
    sa.trace('ike.rekeyRefused', { code })
    // §2.25 has the peer refuse for a while whatever crosses something of its own.
    if (refusal !== NotifyType.TemporaryFailure) {
      const error =
        refusal === undefined
          ? errorOf('BAD_REKEY_ANSWER', {})
          : errorOf('REFUSED_REKEY', { notify: code })
      sa.output({ kind: 'rekeyRefused', error })
      // §2.8: the peer is left for a new IKE SA.
      sa.output({ kind: 'reauthenticate' })
    }
    sa.retryIkeLater(now)
  }

  /** Each group of ours once (§1.3). */
  private mayTry(sa: ExchangeContext, group: number): boolean {
    const tried = this.groups.includes(group) || group === sa.suite.group
    return !tried && groupsOf(sa.config.policy.ike).includes(group)
  }

  static respond(
    sa: ExchangeContext,
    payloads: readonly Payload[],
    now: Millis,
  ): readonly Payload[] {
    if (sa.rekeying.peer !== undefined || sa.busyWith?.subject === 'childSa') {
      return [notify(NotifyType.TemporaryFailure)]
    }
    const { environment, policy } = sa.config
    const nonceI = find(payloads, 'nonce')?.data
    const offered = find(payloads, 'sa')!
    const ke = find(payloads, 'ke')
    if (nonceI === undefined || ke === undefined) return [notify(NotifyType.InvalidSyntax)]
    const choice = chooseProposal(offered.proposals, policy.ike)
    if (choice.kind === 'none') {
      reportRefusal(sa, 'IKE SA', noProposal('IKE SA', offered.proposals, policy.ike, choice.unmet))
      return [notify(NotifyType.NoProposalChosen)]
    }
    const suite = suiteOf(policy.backend, choice.proposal)
    if (suite === undefined || choice.proposal.spi.length !== IKE_SPI_LENGTH) {
      return [notify(NotifyType.NoProposalChosen)]
    }
    const group = chosen(choice.proposal, TransformType.Ke).id
    const answer = answerKeyExchange(sa, ke, group, now)
    if (answer.kind === 'refused') return [answer.notify]
    const { exchange, shared } = answer
    const nonceR = randomBytes(environment, NONCE_LENGTH)
    const spiR = drawSpi(environment, IKE_SPI_LENGTH)
    const skeyseed = computeRekeySkeyseed(sa.suite.prf, sa.skD, shared, nonceI, nonceR)
    shared.fill(0)
    const replacement = sa.createSuccessor(
      {
        originalInitiator: false,
        spiI: choice.proposal.spi,
        spiR,
        suite,
        skeyseed,
        nonceI,
        nonceR,
      },
      now,
    )
    sa.rekeying.peer = { initiatorNonce: nonceI, responderNonce: nonceR, replacement }
    if (sa.rekeying.own !== undefined) replacement.markProvisional(sa)
    else sa.settleOnPeer(now)
    const publicValue = exchange.publicValue
    exchange.wipe()
    return [
      { kind: 'sa', proposals: [{ ...choice.proposal, spi: spiR }] },
      { kind: 'nonce', data: nonceR },
      { kind: 'ke', group, data: publicValue },
      ...ownCrashToken(sa, choice.proposal.spi, spiR),
    ]
  }
}
