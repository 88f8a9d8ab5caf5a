/** CUBIC's window (RFC 9438), in octets. */
import type { Millis } from '../../base/environment.ts'
import { ZERO } from '../../base/real.ts'
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
  /** Beginning of the growth since the last reduction; `-Infinity`: before the first ACK of it. */
  epochAt: Millis
  k: number
  origin: number
  /** The window that Reno would have, and the one before the reduction, from which on Reno is followed in full. */
  friendly: number
  priorWindow: number
}

export class Cubic extends LossBased {
  /** None before the first loss or the end of slow start. */
  private curve: Curve | undefined
  /** As it was before the last reduction. */
  private kept: Curve | undefined
  private growingAt: Millis = ZERO

  override onStart(initialWindow: number): void {
    super.onStart(initialWindow)
    this.curve = undefined
  }

  protected avoid({ segment, srtt, now }: AckSample, octets: number): number {
    const curve = this.growing(segment, now)
    const { cwnd } = this
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

  /** The curve, with its epoch begun. */
  private growing(segment: number, now: Millis): Curve {
    const { cwnd } = this
    const curve = (this.curve ??= newCurve(ZERO, ZERO))
    if (curve.epochAt >= 0) return curve
    const isBelow = cwnd < curve.wMax
    curve.epochAt = now
    curve.friendly = cwnd
    curve.k = isBelow ? Math.cbrt((curve.wMax - cwnd) / segment / C) : 0
    curve.origin = isBelow ? curve.wMax : cwnd
    return curve
  }

  /** §5.8: time in which the window was not in use does not count. */
  protected override pause({ now }: AckSample): void {
    const { curve } = this
    if (curve !== undefined && curve.epochAt >= 0)
      curve.epochAt += Math.max(0, now - this.growingAt)
    this.growingAt = now
  }

  override onIdle(idle: Millis, rto: Millis): void {
    super.onIdle(idle, rto)
    if (this.curve !== undefined) this.curve.epochAt = -Infinity
  }

  protected reduced(_loss: Loss): number {
    const { cwnd } = this
    const wMax = this.curve?.wMax ?? 0
    // §4.7, fast convergence: a flow that had to go below its last peak makes room for others.
    this.kept = this.curve
    this.curve = newCurve(cwnd < wMax ? (cwnd * (1 + BETA)) / 2 : cwnd, cwnd)
    return cwnd * BETA
  }

  protected restore(): void {
    this.curve = this.kept
  }
}

const newCurve = (wMax: number, priorWindow: number): Curve => ({
  wMax,
  epochAt: -Infinity,
  k: ZERO,
  origin: ZERO,
  friendly: ZERO,
  priorWindow,
})
