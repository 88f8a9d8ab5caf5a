/** INFORMATIONAL (RFC 7296 §1.4): Delete for Child SAs and the IKE SA, and the empty liveness exchange. */
import { errorOf } from '../base/error-table.ts'
import { getU32, putU32 } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import { formatIdentity } from '../identity/identity.ts'
import { findNotify } from '../wire/notify.ts'
import type { Payload } from '../wire/payloads.ts'
import { ExchangeType, NotifyType, ProtocolId } from '../wire/registry.ts'
import { readAuthLifetime } from './auth-lifetime.ts'
import type { ChildSa } from './child-sa.ts'
import type { Exchange, ExchangeContext } from './exchange.ts'
import { respondMobike } from './mobike.ts'

const deleteEsp = (spis: readonly number[]): Payload => ({
  kind: 'delete',
  protocol: ProtocolId.Esp,
  spis: spis.map(spi => {
    const octets = new Uint8Array(4)
    putU32(octets, 0, spi)
    return octets
  }),
})

const DELETE_IKE: Payload = { kind: 'delete', protocol: ProtocolId.Ike, spis: [] }

/** Deletes one Child SA: we name our inbound SPI, the peer answers with its own (§1.4.1). */
export class DeleteChild implements Exchange {
  readonly type = ExchangeType.Informational
  readonly subject = 'childSa'
  private readonly child: ChildSa

  constructor(child: ChildSa) {
    this.child = child
  }

  build(): Payload[] | undefined {
    if (this.child.state === 'gone' || this.child.state === 'deleting') return undefined
    this.child.state = 'deleting'
    return [deleteEsp([this.child.inboundSpi])]
  }

  onResponse(sa: ExchangeContext, _payloads: readonly Payload[], now: Millis): void {
    sa.remove(this.child, now)
  }
}

/** Deletes what the peer has made of an offer of ours and we do not take (§1.3.1). */
export class DeleteUnwanted implements Exchange {
  readonly type = ExchangeType.Informational
  readonly subject = 'childSa'
  private readonly inboundSpi: number

  constructor(inboundSpi: number) {
    this.inboundSpi = inboundSpi
  }

  build(): Payload[] {
    return [deleteEsp([this.inboundSpi])]
  }

  onResponse(sa: ExchangeContext): void {
    sa.config.releaseSpi(this.inboundSpi)
  }

  abandon(sa: ExchangeContext): void {
    sa.config.releaseSpi(this.inboundSpi)
  }
}

/** Deletes the IKE SA itself, and with it every Child SA it still owns. */
export class DeleteIke implements Exchange {
  readonly type = ExchangeType.Informational
  readonly subject = 'nothing'

  build(sa: ExchangeContext): Payload[] | undefined {
    if (sa.state === 'closed' || sa.state === 'deleting') return undefined
    sa.startDeleting()
    return [DELETE_IKE]
  }

  onResponse(sa: ExchangeContext, _payloads: readonly Payload[], now: Millis): void {
    sa.finish(undefined, false, now)
  }

  /** It was to end anyway. */
  onTimeout(sa: ExchangeContext, now: Millis): void {
    sa.finish(undefined, false, now)
  }
}

/** Asks whether the peer still lives (§2.4); any answer is the answer. */
export class Liveness implements Exchange {
  readonly type = ExchangeType.Informational
  readonly subject = 'nothing'

  build(sa: ExchangeContext): Payload[] | undefined {
    return sa.state === 'established' ? [] : undefined
  }

  onResponse(): void {}
}

/** The peer's INFORMATIONAL request. */
export const respondInformational = (
  sa: ExchangeContext,
  payloads: readonly Payload[],
  now: Millis,
): readonly Payload[] => {
  const answered: number[] = []
  if (findNotify(payloads, NotifyType.AuthenticationFailed) !== undefined) {
    // §2.21.2: the initiator did not believe our proof.
    const peer = sa.peer?.identity
    const claimed = sa.peer?.localIdentity
    const error = errorOf('PROOF_NOT_BELIEVED', {
      peer: peer === undefined ? 'without a name' : formatIdentity(peer),
      claimed: claimed === undefined ? 'nobody' : formatIdentity(claimed),
    })
    const identity = peer && formatIdentity(peer)
    sa.output({ kind: 'turnedAway', identity, path: sa.path, error })
    sa.finish(error, true, now)
    return []
  }
  sa.crashTokens.note(payloads)
  const more = respondMobike(sa, payloads)
  const lifetime = readAuthLifetime(payloads)
  if (lifetime !== undefined) sa.limitAuthentication(lifetime, now)
  for (const payload of payloads) {
    if (payload.kind !== 'delete') continue
    if (payload.protocol === ProtocolId.Ike) {
      // §2.25.2: reply as usual and forget whatever we were doing on this SA.
      if (sa.rekeying.own?.replacement === undefined) sa.settleOnPeer(now)
      sa.finish(undefined, true, now)
      return []
    }
    if (payload.protocol !== ProtocolId.Esp) continue
    // A Delete may name thousands.
    const known = new Map([...sa.children.values()].map(child => [child.outboundSpi, child]))
    for (const octets of payload.spis) {
      const spi = getU32(octets, 0)
      const child = known.get(spi)
      if (child === undefined) {
        sa.noteEarlyDelete(spi)
        continue
      }
      known.delete(spi)
      // §1.4.1: when both delete at once, neither answers with what its own request names.
      if (child.state !== 'deleting') answered.push(child.inboundSpi)
      sa.remove(child, now)
    }
  }
  return answered.length > 0 ? [deleteEsp(answered), ...more] : more
}
