/** CREATE_CHILD_SA that rekeys a Child SA (RFC 7296 §1.3.3, §2.8.1, §2.25.1), make before break. */
import type { Millis } from '../base/environment.ts'
import type { IpsecError } from '../base/errors.ts'
import { find } from '../wire/message.ts'
import { findErrorNotify, findNotify, notify, notifyEsp, readEspSpi } from '../wire/notify.ts'
import type { Payload } from '../wire/payloads.ts'
import { ExchangeType, NotifyType } from '../wire/registry.ts'
import type { ChildSa } from './child-sa.ts'
import { ownAttemptLoses } from './collision.ts'
import {
  answerChild,
  CreateChild,
  declineAnswer,
  directChildKeys,
  discardOffer,
  keyPayloads,
  makeOffer,
  nextTry,
  NOTHING_TRIED,
  offerPayloads,
  planKe,
  settleOffer,
  sharedOf,
  unusableKe,
  type AcceptOptions,
  type ChildOffer,
  type Tried,
} from './create-child.ts'
import type { ChildRequest, Exchange, ExchangeContext } from './exchange.ts'
import { DeleteChild } from './informational.ts'

export class RekeyChild implements Exchange {
  readonly type = ExchangeType.CreateChildSa
  readonly subject = 'childSa'
  private readonly child: ChildSa
  private readonly tried: Tried
  private offer: ChildOffer | undefined

  constructor(child: ChildSa, tried = NOTHING_TRIED) {
    this.child = child
    this.tried = tried
  }

  /** Validated when it starts, not when it was queued: meanwhile the peer may have done it (rules E1, E2). */
  build(sa: ExchangeContext): Payload[] | undefined {
    const { child } = this
    if (child.state !== 'installed' || !child.outboundReady) return undefined
    if (child.rekeying.peer !== undefined || sa.state !== 'established') return undefined
    this.offer = makeOffer(sa, requestOf(child), planKe(sa, this.tried, child.group))
    child.state = 'rekeying'
    child.rekeying.own = {
      initiatorNonce: this.offer.nonce,
      responderNonce: undefined,
      replacement: undefined,
    }
    return [
      notifyEsp(NotifyType.RekeySa, child.inboundSpi),
      ...offerPayloads(this.offer),
      ...keyPayloads(this.offer),
    ]
  }

  onResponse(sa: ExchangeContext, payloads: readonly Payload[], now: Millis): void {
    const offer = this.offer!
    const settled = settleOffer(sa, offer, payloads)
    const shared = sharedOf(offer, payloads)
    if (settled.kind === 'refused' || shared === 'missing') {
      const error = settled.kind === 'refused' ? settled.error : unusableKe()
      return this.onRefused(sa, payloads, error, now)
    }
    const { child } = this
    const own = child.rekeying.own!
    const { peer } = child.rekeying
    const nonceR = find(payloads, 'nonce')!.data
    own.responderNonce = nonceR
    const loses = peer !== undefined && ownAttemptLoses(own, peer)
    if (sa.wasDeletedEarly(settled.facts.outboundSpi)) discardOffer(sa, offer)
    else {
      const keys = directChildKeys(sa, settled.facts, offer.nonce, nonceR, shared, true)
      offer.exchange?.wipe()
      own.replacement = sa.install(settled.facts, keys, { outboundReady: !loses }, now)
    }
    if (loses) {
      this.settleOnPeer(sa, now)
      if (own.replacement === undefined) return
      own.replacement.state = 'replaced'
      return sa.enqueue(new DeleteChild(own.replacement), now)
    }
    if (child.state === 'rekeying') child.state = 'replaced'
    const theirs = peer?.replacement
    if (theirs?.state === 'provisional') {
      theirs.state = 'replaced'
      sa.awaitChildDelete(theirs, now)
    }
    if (own.replacement !== undefined) tellRekeyed(sa, child, own.replacement)
    sa.enqueue(new DeleteChild(child), now)
  }

  abandon(sa: ExchangeContext): void {
    if (this.offer !== undefined) discardOffer(sa, this.offer)
  }

  /** The peer's half survives; its initiator deletes the old SA (§2.8.1). */
  private settleOnPeer(sa: ExchangeContext, now: Millis): void {
    const { child } = this
    const survivor = child.rekeying.peer!.replacement!
    if (survivor.state === 'provisional') survivor.state = 'installed'
    if (child.state === 'rekeying') {
      child.state = 'replaced'
      sa.awaitChildDelete(child, now)
    }
    tellRekeyed(sa, child, survivor)
  }

  private onRefused(
    sa: ExchangeContext,
    payloads: readonly Payload[],
    error: IpsecError,
    now: Millis,
  ): void {
    const { child } = this
    const next = nextTry(sa, this.offer!, payloads, this.tried)
    declineAnswer(sa, this.offer!, payloads, now)
    child.rekeying.own = undefined
    if (child.rekeying.peer !== undefined) return this.settleOnPeer(sa, now)
    if (child.state !== 'rekeying') return
    child.state = 'installed'
    if (next !== undefined) return sa.enqueue(new RekeyChild(child, next), now)
    const refusal = findErrorNotify(payloads)?.type
    if (refusal !== NotifyType.ChildSaNotFound) {
      sa.trace('child.rekeyRefused', {
        child: child.inboundSpi,
        code: error.code,
        why: error.message,
      })
      // §2.25 has the peer refuse for a while whatever crosses something of its own.
      if (refusal !== NotifyType.TemporaryFailure) {
        sa.output({ kind: 'rekeyRefused', error })
        // §2.8: the peer is left for a new IKE SA.
        sa.output({ kind: 'reauthenticate' })
      }
      return sa.retryChildLater(child, now)
    }
    // §2.25: the peer has lost it, so we forget it without a word and make another from scratch.
    sa.remove(child, now)
    sa.enqueue(new CreateChild(requestOf(child), undefined), now)
  }

  static respond(
    sa: ExchangeContext,
    payloads: readonly Payload[],
    options: AcceptOptions,
    now: Millis,
  ): readonly Payload[] {
    // An SA whose own rekey is unsettled may not own its children yet: temporary, not "not found".
    if (sa.busyWith?.subject === 'ikeSa') return [notify(NotifyType.TemporaryFailure)]
    const rekeyed = findNotify(payloads, NotifyType.RekeySa)!
    const spi = readEspSpi(rekeyed)
    const child = spi === undefined ? undefined : sa.childByOutboundSpi(spi)
    if (child === undefined) {
      return [{ ...rekeyed, type: NotifyType.ChildSaNotFound, data: rekeyed.data.subarray(0, 0) }]
    }
    if (child.isClosing || child.rekeying.peer !== undefined) {
      return [notify(NotifyType.TemporaryFailure)]
    }
    const made = answerChild(sa, payloads, { ...options, keep: child }, now)
    if (made.kind === 'refused') return [made.notify]
    // The peer sends on it once it has our answer; we do once that has shown (rule E3).
    const replacement = sa.install(
      made.facts,
      made.keys,
      { outboundReady: false, byPeer: true },
      now,
    )
    child.rekeying.peer = {
      initiatorNonce: made.nonceI,
      responderNonce: made.nonceR,
      replacement,
    }
    if (child.rekeying.own !== undefined) replacement.state = 'provisional'
    else {
      child.state = 'replaced'
      sa.awaitChildDelete(child, now)
      tellRekeyed(sa, child, replacement)
    }
    return made.payloads
  }
}

const requestOf = ({ mode, localSelectors, remoteSelectors }: ChildSa): ChildRequest => ({
  mode,
  localSelectors,
  remoteSelectors,
})

const tellRekeyed = (sa: ExchangeContext, old: ChildSa, by: ChildSa): void => {
  sa.trace('child.rekeyed', { old: old.inboundSpi, new: by.inboundSpi })
  sa.output({ kind: 'childRekeyed', inboundSpi: old.inboundSpi, by: by.inboundSpi })
}
