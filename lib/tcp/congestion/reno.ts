/** NewReno's window (RFC 5681 §3.1), counted in octets. */
import type { AckSample, Loss } from './controller.ts'
import { LossBased } from './loss-based.ts'

export class Reno extends LossBased {
  protected avoid({ segment }: AckSample, octets: number): number {
    return (segment * Math.min(octets, this.cwnd)) / this.cwnd
  }

  protected reduced({ inFlight }: Loss): number {
    return inFlight / 2
  }

  protected restore(): void {}
}
