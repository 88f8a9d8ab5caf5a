/** CUBIC's window (RFC 9438), in octets. */
import type { Millis } from '../../base/environment.ts'
import type { AckSample, Loss } from './controller.ts'
import { LossBased } from './loss-based.ts'

/** RFC 9438 §4.6, §5. */
const BETA = 0.7
const C = 0.4
const FRIENDLY = (3 * (1 - BETA)) / (1 + BETA)

/** What the cubic function is drawn through. */
interface Curve {
  /** The window at the last reduction. */
  wMax: number
  /** Beginning of the growth since the last reduction; -1: before the first ACK of it. */
  epochAt: Millis
  k: number
  origin: number
  /** The window that Reno would have, and the one before the reduction, from which on Reno is followed in full. */
  friendly: number
  priorWindow: number
}

export class Cubic extends LossBased {
  private readonly curve: Curve = {
    wMax: 0,
    epochAt: -1,
    k: 0,
    origin: 0,
    friendly: 0,
    priorWindow: 0,
  }
  private readonly kept: Curve = { ...this.curve }
  private growingAt: Millis = 0

  override onStart(initialWindow: number): void {
    super.onStart(initialWindow)
    this.curve.wMax = 0
    this.curve.epochAt = -1
    this.curve.priorWindow = 0
  }

  protected avoid({ segment, srtt, now }: AckSample, octets: number): number {
    const { curve, cwnd } = this
    if (curve.epochAt < 0) this.startEpoch(segment, now)
    this.growingAt = now
    const t = (now - curve.epochAt + srtt) / 1000
    const target = curve.origin + C * (t - curve.k) ** 3 * segment
    // §4.3: never slower than Reno would be.
    const share = curve.friendly >= curve.priorWindow ? 1 : FRIENDLY
    curve.friendly += (share * segment * octets) / cwnd
    const bounded = Math.min(Math.max(target, cwnd), 1.5 * cwnd)
    const growth = ((bounded - cwnd) / cwnd) * octets
    return Math.max(growth, Math.min(curve.friendly - cwnd, octets))
  }

  private startEpoch(segment: number, now: Millis): void {
    const { curve, cwnd } = this
    curve.epochAt = now
    curve.friendly = cwnd
    if (cwnd < curve.wMax) {
      curve.k = Math.cbrt((curve.wMax - cwnd) / segment / C)
      curve.origin = curve.wMax
    } else {
      curve.k = 0
      curve.origin = cwnd
    }
  }

  /** §5.8: time in which the window was not in use does not count. */
  protected override pause({ now }: AckSample): void {
    if (this.curve.epochAt >= 0) this.curve.epochAt += Math.max(0, now - this.growingAt)
    this.growingAt = now
  }

  override onIdle(idle: Millis, rto: Millis): void {
    super.onIdle(idle, rto)
    this.curve.epochAt = -1
  }

  protected reduced(_loss: Loss): number {
    const { curve, cwnd } = this
    // §4.7, fast convergence: a flow that had to go below its last peak makes room for others.
    curve.wMax = cwnd < curve.wMax ? (cwnd * (1 + BETA)) / 2 : cwnd
    curve.priorWindow = cwnd
    curve.epochAt = -1
    return cwnd * BETA
  }

  protected keep(): void {
    Object.assign(this.kept, this.curve)
  }

  protected restore(): void {
    Object.assign(this.curve, this.kept)
  }
}
