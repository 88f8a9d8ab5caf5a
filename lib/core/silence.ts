/** Says what is known when a peer answers none of the first requests: what came meanwhile, and what that may mean. */
import { formatAddress } from '../base/address.ts'
import { errorOf } from '../base/error-table.ts'
import type { IpsecError } from '../base/errors.ts'
import type { Path } from '../base/path.ts'
import type { CoreCounters } from './events.ts'

export class Silence {
  private readonly counters: Readonly<CoreCounters>
  private readonly receivedBefore: number
  private readonly dropsBefore: ReadonlyMap<string, number>

  /** From now on what comes is counted. */
  constructor(counters: Readonly<CoreCounters>) {
    this.counters = counters
    this.receivedBefore = counters.datagramsIn
    this.dropsBefore = new Map(Object.entries(counters.drops))
  }

  /** `ETIMEDOUT` with the facts of net's errors; `details` has the datagrams received, and those refused by reason. */
  error({ remoteAddress, remotePort }: Path): IpsecError {
    const address = formatAddress(remoteAddress)
    const received = this.counters.datagramsIn - this.receivedBefore
    const refused = this.refused()
    const meanwhile =
      received === 0
        ? 'nothing was received'
        : `${received} received ${received === 1 ? 'datagram was' : 'datagrams were'} not a valid answer`
    const reasons = Object.entries(refused).map(([reason, count]) => `${reason}: ${count}`)
    const values = {
      address,
      port: remotePort,
      meanwhile: meanwhile + (reasons.length === 0 ? '' : ` (${reasons.join(', ')})`),
      family:
        remoteAddress.length === 4
          ? ''
          : '; the server may have no IPv6 (the option "family: 4" asks for IPv4)',
    }
    const error = errorOf('NO_ANSWER', values, { received, refused })
    return Object.assign(error, { syscall: 'connect', address, port: remotePort })
  }

  private refused(): Record<string, number> {
    return Object.fromEntries(
      Object.entries(this.counters.drops)
        .map(([reason, count]) => [reason, count - (this.dropsBefore.get(reason) ?? 0)] as const)
        .filter(([, count]) => count > 0),
    )
  }
}
