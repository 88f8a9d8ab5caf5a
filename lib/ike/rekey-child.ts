/** CREATE_CHILD_SA that rekeys a Child SA (RFC 7296 §1.3.3, §2.8.1, §2.25.1), make before break. */
import type { Millis } from '../base/environment.ts'
import { find } from '../wire/message.ts'
import { findErrorNotify, findNotify, notify, notifyEsp, readEspSpi } from '../wire/notify.ts'
import type { Payload } from '../wire/payloads.ts'
import { ExchangeType, NotifyType } from '../wire/registry.ts'
import type { ChildSa } from './child-sa.ts'
import { ownAttemptLoses } from './collision.ts'
import {
  answerChild,
  directChildKeys,
  discardOffer,
  keyPayloads,
  makeOffer,
  offerPayloads,
  regroup,
  settleOffer,
  sharedOf,
  type AcceptOptions,
  type ChildOffer,
} from './create-child.ts'
import type { Exchange, ExchangeContext } from './exchange.ts'
import { DeleteChild } from './informational.ts'

export class RekeyChild implements Exchange {
  readonly type = ExchangeType.CreateChildSa
  readonly subject = 'childSa'
  private readonly child: ChildSa
  private readonly groups: number[]
  private offer: ChildOffer | undefined

  constructor(child: ChildSa, groups: number[] = []) {
    this.child = child
    this.groups = groups
  }

  /** Validated when it starts, not when it was queued: meanwhile the peer may have done it. */
  build(sa: ExchangeContext): Payload[] | undefined {
    const { child } = this
    if (child.state !== 'installed' || !child.outboundReady) return undefined
    if (child.rekeying.peer !== undefined || sa.state !== 'established') return undefined
    const request = {
      mode: child.mode,
      localSelectors: child.localSelectors,
      remoteSelectors: child.remoteSelectors,
    }
    const { pfs } = sa.config.policy
    this.offer = makeOffer(
      sa,
      request,
      pfs !== false ? (this.groups.at(-1) ?? sa.suite.group) : undefined,
    )
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
    const settled = settleOffer(offer, payloads)
    const shared = sharedOf(offer, payloads)
    if (settled.kind === 'refused' || shared === 'missing') {
      return this.onRefused(sa, payloads, now)
    }
    const { child } = this
    const own = child.rekeying.own!
    const { peer } = child.rekeying
    const nonceR = find(payloads, 'nonce')!.data
    own.responderNonce = nonceR
    const keys = directChildKeys(sa, settled.facts, offer.nonce, nonceR, shared, true)
    offer.exchange?.wipe()
    const replacement = sa.install(
      settled.facts,
      keys,
      { outboundReady: true, replaces: child },
      now,
    )
    own.replacement = replacement
    sa.trace('child.rekeyed', { old: child.inboundSpi, new: replacement.inboundSpi })
    if (child.state === 'rekeying') child.state = 'replaced'
    if (peer === undefined) return sa.enqueue(new DeleteChild(child), now)
    const theirs = peer.replacement!
    if (ownAttemptLoses(own, peer)) {
      replacement.state = 'replaced'
      if (theirs.state === 'provisional') theirs.state = 'installed'
      sa.enqueue(new DeleteChild(replacement), now)
    } else {
      if (theirs.state === 'provisional') theirs.state = 'replaced'
      sa.enqueue(new DeleteChild(child), now)
    }
  }

  private onRefused(sa: ExchangeContext, payloads: readonly Payload[], now: Millis): void {
    const { child } = this
    const { peer } = child.rekeying
    const group = regroup(this.offer!, payloads)
    discardOffer(sa, this.offer!)
    child.rekeying.own = undefined
    if (peer?.replacement?.state === 'provisional') peer.replacement.state = 'installed'
    if (child.state !== 'rekeying') return
    if (peer !== undefined) {
      child.state = 'replaced'
      return
    }
    child.state = 'installed'
    if (group !== undefined && !this.groups.includes(group)) {
      return sa.enqueue(new RekeyChild(child, [...this.groups, group]), now)
    }
    // §2.25: the peer has already forgotten it, so we do as well.
    if (findErrorNotify(payloads)?.type === NotifyType.ChildSaNotFound) return sa.remove(child, now)
    sa.retryChildLater(child, now)
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
    const made = answerChild(sa, payloads, { ...options, keep: child })
    if (made.kind === 'refused') return [made.notify]
    // The peer sends on it once it has our answer; we do once that has shown (rule of make before break).
    const replacement = sa.install(
      made.facts,
      made.keys,
      { outboundReady: false, replaces: child },
      now,
    )
    child.rekeying.peer = {
      initiatorNonce: made.nonceI,
      responderNonce: made.nonceR,
      replacement,
    }
    if (child.rekeying.own !== undefined) replacement.state = 'provisional'
    else child.state = 'replaced'
    return made.payloads
  }
}
