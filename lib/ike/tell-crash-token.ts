/** How an end gives its peer the token by which it can prove that it lost an IKE SA (RFC 6290 §4.2-4.4). */
import type { Payload } from '../wire/payloads.ts'
import { ExchangeType } from '../wire/registry.ts'
import { crashTokenPayload } from './crash-token.ts'
import type { Exchange, ExchangeContext } from './exchange.ts'

/** The token of ours for that SA; none where there is no secret to make it of. */
export const ownCrashToken = (
  { config }: Pick<ExchangeContext, 'config'>,
  spiI: Uint8Array,
  spiR: Uint8Array,
): readonly Payload[] => {
  const token = config.crashToken(spiI, spiR)
  return token === undefined ? [] : [crashTokenPayload(token)]
}

/** Gives the peer our token for an SA that has none, or whose token was for another address of the peer (§4.3, §4.4). */
export class TellCrashToken implements Exchange {
  readonly type = ExchangeType.Informational
  readonly subject = 'nothing'

  build(sa: ExchangeContext): readonly Payload[] | undefined {
    const token = ownCrashToken(sa, sa.spiI, sa.spiR)
    return sa.state === 'established' && token.length > 0 ? token : undefined
  }

  onResponse(): void {}
}

/** Whether the peer makes use of tokens that are told beside other exchanges. */
export const knowsCrashTokens = ({ peer, crashTokens }: ExchangeContext): boolean =>
  peer?.isOurs === true || !crashTokens.isEmpty
