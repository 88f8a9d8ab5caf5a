/** Congestion control: NewReno (RFC 5681) and CUBIC (RFC 9438), in octets. */
import type { Millis } from '../base/environment.ts'

export interface CongestionController {
  /** Octets that may be under way. */
  cwnd: number
  ssthresh: number
  /** `acked` new octets were acknowledged outside recovery, and the window was in use. */
  onAck(acked: number, segment: number, srtt: Millis, now: Millis): void
  /** Loss was found: the window is reduced once for each round trip of loss. */
  onLoss(inFlight: number, segment: number): void
  /** The retransmission timer went off. */
  onTimeout(inFlight: number, segment: number): void
}

const LARGEST = 2 ** 30
const clamp = (octets: number): number => Math.min(octets, LARGEST)

export class Reno implements CongestionController {
  cwnd: number
  ssthresh = LARGEST

  constructor(initialWindow: number) {
    this.cwnd = initialWindow
  }

  onAck(acked: number, segment: number): void {
    this.cwnd = clamp(
      this.cwnd < this.ssthresh
        ? this.cwnd + acked
        : this.cwnd + Math.max(1, (segment * Math.min(acked, this.cwnd)) / this.cwnd),
    )
  }

  onLoss(inFlight: number, segment: number): void {
    this.ssthresh = Math.max(inFlight / 2, 2 * segment)
    this.cwnd = this.ssthresh
  }

  onTimeout(inFlight: number, segment: number): void {
    this.ssthresh = Math.max(inFlight / 2, 2 * segment)
    this.cwnd = segment
  }
}

/** RFC 9438 §4.6, §5. */
const BETA = 0.7
const C = 0.4
const FRIENDLY = (3 * (1 - BETA)) / (1 + BETA)

export class Cubic implements CongestionController {
  cwnd: number
  ssthresh = LARGEST
  private wMax = 0
  /** Beginning of the epoch of growth since the last reduction; none before the first ACK of it. */
  private epochAt: Millis = -1
  private k = 0
  private origin = 0
  private friendly = 0

  constructor(initialWindow: number) {
    this.cwnd = initialWindow
  }

  onAck(acked: number, segment: number, srtt: Millis, now: Millis): void {
    if (this.cwnd < this.ssthresh) {
      this.cwnd = clamp(this.cwnd + acked)
      return
    }
    if (this.epochAt < 0) this.startEpoch(segment, now)
    const t = (now - this.epochAt + srtt) / 1000
    const target = this.origin + C * (t - this.k) ** 3 * segment
    // §4.3: never slower than Reno would be.
    this.friendly += FRIENDLY * segment * (acked / this.cwnd)
    const bounded = Math.min(Math.max(target, this.cwnd), 1.5 * this.cwnd)
    const grown = this.cwnd + ((bounded - this.cwnd) / this.cwnd) * acked
    this.cwnd = clamp(Math.max(grown, Math.min(this.friendly, this.cwnd + acked)))
  }

  private startEpoch(segment: number, now: Millis): void {
    this.epochAt = now
    this.friendly = this.cwnd
    if (this.cwnd < this.wMax) {
      this.k = Math.cbrt((this.wMax - this.cwnd) / segment / C)
      this.origin = this.wMax
    } else {
      this.k = 0
      this.origin = this.cwnd
    }
  }

  onLoss(_inFlight: number, segment: number): void {
    this.reduce(segment)
    this.cwnd = this.ssthresh
  }

  onTimeout(_inFlight: number, segment: number): void {
    this.reduce(segment)
    this.cwnd = segment
  }

  private reduce(segment: number): void {
    // §4.7, fast convergence: a flow that had to go below its last peak makes room for others.
    this.wMax = this.cwnd < this.wMax ? (this.cwnd * (1 + BETA)) / 2 : this.cwnd
    this.ssthresh = Math.max(this.cwnd * BETA, 2 * segment)
    this.epochAt = -1
  }
}
