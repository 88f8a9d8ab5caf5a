/** NewReno's window (RFC 5681 §3.1), counted in octets. */
import type { AckSample, Loss } from './controller.ts'
import { LossBased } from './loss-based.ts'

export class Reno extends LossBased {
  protected avoid({ segment }: AckSample, octets: number): number {
    return (segment * Math.min(octets, this.cwnd)) / this.cwnd
  }

  /** What was under way before slow start itself made it less, to try whether there is a queue, counts (RFC 5681 §3.1). */
  protected reduced({ inFlight }: Loss, peak: number): number {
    return Math.max(inFlight, peak) / 2
  }

  protected restore(): void {}
}
