/** Asks the peer on behalf of a program, which wants to know of the answer, and how large a message gets through. */
import type { Payload } from '../wire/payloads.ts'
import { ExchangeType } from '../wire/registry.ts'
import { fillerIn, fillerPayload } from '../wire/filler.ts'
import type { Exchange, ExchangeContext, PacketSizes } from './exchange.ts'

/** Ours: no larger packets are tried. They are those of Ethernet with jumbo frames. */
export const MOST_PROBED = 9000

export class Ping implements Exchange {
  readonly type = ExchangeType.Informational
  readonly subject = 'nothing'
  readonly isWhole: boolean
  private readonly ticket: number
  private readonly sizes: PacketSizes | undefined

  constructor(ticket: number, sizes?: PacketSizes) {
    this.ticket = ticket
    this.sizes = sizes
    this.isWhole = sizes !== undefined
  }

  build(sa: ExchangeContext): readonly Payload[] | undefined {
    if (sa.state !== 'established') return undefined
    if (this.sizes === undefined) return []
    const { there, back } = this.sizes
    return [fillerPayload(sa.roomIn(there), back)]
  }

  onResponse(sa: ExchangeContext, payloads: readonly Payload[], _now: number, times: number): void {
    const isFilled = fillerIn(payloads) !== undefined
    sa.output({ kind: 'pinged', ticket: this.ticket, passage: { isWhole: times === 1, isFilled } })
  }
}

/** What an answer is filled with, where the peer's request asks for that; only our own ends do. */
export const fillAnswer = (
  sa: ExchangeContext,
  payloads: readonly Payload[],
): Payload | undefined => {
  const wanted = sa.peer?.isOurs === true ? (fillerIn(payloads)?.wanted ?? 0) : 0
  return wanted === 0 ? undefined : fillerPayload(sa.roomIn(Math.min(wanted, MOST_PROBED)), 0)
}
