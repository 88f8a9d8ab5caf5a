/**
 * Our half of a key exchange that a peer asks for within an SA (RFC 7296 §1.3.1, §1.3.2). What is cheap to see comes
 * first, then the work is paid for, and only then is the peer's public value read.
 */
import type { Millis } from '../base/environment.ts'
import {
  createKeyExchange,
  exchangeCost,
  publicValueLength,
  type KeyExchange,
} from '../crypto/key-exchange.ts'
import { notify, u16Data } from '../wire/notify.ts'
import type { NotifyPayload, Payload } from '../wire/payloads.ts'
import { NotifyType } from '../wire/registry.ts'
import type { ExchangeContext } from './exchange.ts'

export type InnerExchange =
  | { readonly kind: 'made'; readonly exchange: KeyExchange; readonly shared: Uint8Array }
  | { readonly kind: 'refused'; readonly notify: NotifyPayload }

const refuse = (type: number, data?: Uint8Array): InnerExchange => ({
  kind: 'refused',
  notify: notify(type, data),
})

/** `group` was chosen from the peer's offer; `theirs` is its KE payload. */
export const answerKeyExchange = (
  sa: ExchangeContext,
  theirs: (Payload & { kind: 'ke' }) | undefined,
  group: number,
  now: Millis,
): InnerExchange => {
  const { policy, environment } = sa.config
  if (theirs?.group !== group) return refuse(NotifyType.InvalidKePayload, u16Data(group))
  if (theirs.data.length !== publicValueLength(group)) return refuse(NotifyType.InvalidSyntax)
  // §2.25: the peer asks again later.
  if (!sa.config.pay(exchangeCost(policy.backend, group), now))
    return refuse(NotifyType.TemporaryFailure)
  const exchange = createKeyExchange(policy.backend, group, environment)
  const shared = exchange?.sharedSecret(theirs.data)
  if (exchange === undefined || shared === undefined) return refuse(NotifyType.InvalidSyntax)
  return { kind: 'made', exchange, shared }
}
