/**
 * BBR (draft-ietf-ccwg-bbr): the window and the pace follow from the rate of delivery and the least round trip
 * that were measured. Losses bound what is under way only where they are more than the path always loses, so
 * that a lossy link is filled and a full queue is left alone.
 */
import type { Millis } from '../../base/environment.ts'
import {
  LARGEST_WINDOW,
  type AckSample,
  type CongestionController,
  type Loss,
} from './controller.ts'

type State = 'startup' | 'drain' | 'down' | 'cruise' | 'refill' | 'up' | 'probe-rtt'

/** Pace in each state, as a share of the measured rate (draft §2.4, §5.6.1). */
const PACING_GAIN: Readonly<Record<State, number>> = {
  startup: 2.77,
  drain: 0.35,
  down: 0.9,
  cruise: 1,
  refill: 1,
  up: 1.25,
  'probe-rtt': 1,
}
const WINDOW_GAIN = 2
const WINDOW_GAIN_UP = 2.25
/** A little less than the rate measured, so that queues drain. */
const MARGIN = 0.99
/** Startup ends after so many rounds that grew by less than a quarter (draft §5.3.1.2). */
const FULL_ROUNDS = 3
const FULL_GROWTH = 1.25
/** A round of startup that loses so much ends it. */
const OVERFLOW = 0.2
/** A round that loses more than this, beyond what the path always loses, has overflowed something (draft §2.7). */
const LOSS_THRESHOLD = 0.02
const AMBIENT_FACTOR = 1.5
const AMBIENT_WEIGHT = 1 / 16
/** What an overflow leaves, and what cruising leaves free below the bound for others. */
const BETA = 0.7
const HEADROOM = 0.85
const LEAST_SEGMENTS = 4
const SPARE_SEGMENTS = 3
/** After this long without a new minimum, the round trip is measured again for this long with half the window (draft §5.3.4). */
const MIN_RTT_FILTER: Millis = 10_000
const PROBE_RTT_TIME: Millis = 200
const PROBE_RTT_SHARE = 0.5
/** The rate is probed for after so many rounds or so much time, whichever comes first (draft §5.3.3.3). */
const CRUISE_ROUNDS = 62
const CRUISE_TIME: Millis = 2500

export class Bbr implements CongestionController {
  readonly threshold = Infinity
  readonly reducesProportionally = false
  readonly mayRest = false
  private state: State = 'startup'
  private cwnd = 0
  private srtt: Millis = 0

  /** Octets per millisecond: the most of this cycle of probing and of the one before it. */
  private rate = 0
  private lastRate = 0
  private minRtt: Millis = Infinity
  private minRttAt: Millis = 0
  /** What is under way shall not be more than this; probing raises it. */
  private bound = Infinity

  private roundEnds = 0
  private fullRate = 0
  private fullRounds = 0
  private isFull = false
  private roundsInState = 0
  private stateAt: Millis = 0

  // Losses of this round, and the share that the path loses anyway.
  private roundDelivered = 0
  private roundLost = 0
  private ambientLoss = 0

  private before: { cwnd: number; bound: number } | undefined

  get window(): number {
    return this.cwnd
  }

  get pacingRate(): number {
    const rate = this.bandwidth
    if (rate > 0) return PACING_GAIN[this.state] * rate * MARGIN
    return this.srtt > 0 ? (PACING_GAIN.startup * this.cwnd) / this.srtt : Infinity
  }

  private get bandwidth(): number {
    return Math.max(this.rate, this.lastRate)
  }

  private get product(): number {
    return this.minRtt === Infinity ? 0 : this.bandwidth * this.minRtt
  }

  onStart(initialWindow: number): void {
    this.cwnd = initialWindow
    this.state = 'startup'
    this.rate = 0
    this.lastRate = 0
    this.minRtt = Infinity
    this.bound = Infinity
    this.fullRate = 0
    this.fullRounds = 0
    this.isFull = false
    this.ambientLoss = 0
    this.roundEnds = 0
    this.before = undefined
  }

  onResume(initialWindow: number): void {
    this.onStart(initialWindow)
  }

  onAck(sample: AckSample): void {
    this.srtt = sample.srtt
    this.roundDelivered += sample.delivered
    this.roundLost += sample.lost
    const isRound = sample.priorDelivered >= this.roundEnds
    if (sample.rate > 0 && (!sample.isAppLimited || sample.rate > this.bandwidth))
      this.rate = Math.max(this.rate, sample.rate)
    this.measureRtt(sample)
    this.boundByLoss(sample)
    if (isRound) {
      this.roundEnds = sample.totalDelivered
      this.roundsInState++
      this.endRound(sample)
    }
    this.advance(sample)
    this.adjustWindow(sample)
  }

  private measureRtt({ rtt, now, inFlight }: AckSample): void {
    const isStale = now - this.minRttAt > MIN_RTT_FILTER
    if (rtt > 0 && (rtt <= this.minRtt || isStale)) {
      this.minRtt = rtt
      this.minRttAt = now
    }
    if (isStale && this.isFull && this.state !== 'probe-rtt' && inFlight > 0)
      this.enter('probe-rtt', now)
  }

  /** The flight that this ACK reports lost more than the path always does. */
  private boundByLoss({ lostSince, inFlightThen, priorDelivered, now }: AckSample): void {
    if (priorDelivered < 0 || lostSince <= 0 || this.minRtt === Infinity) return
    if (this.state !== 'up' && this.state !== 'refill') return
    if (lostSince <= inFlightThen * this.tolerance) return
    this.bound = Math.max(inFlightThen, BETA * WINDOW_GAIN * this.product)
    this.enter('down', now)
  }

  private get tolerance(): number {
    return LOSS_THRESHOLD + AMBIENT_FACTOR * this.ambientLoss
  }

  private endRound(sample: AckSample): void {
    const total = this.roundDelivered + this.roundLost
    const share = total > 0 ? this.roundLost / total : 0
    if (this.state === 'startup') this.lookForFullPipe(sample, share)
    else if (this.state === 'cruise')
      this.ambientLoss += AMBIENT_WEIGHT * (share - this.ambientLoss)
    this.roundDelivered = 0
    this.roundLost = 0
  }

  private lookForFullPipe({ isAppLimited, now }: AckSample, lossShare: number): void {
    if (isAppLimited) return
    if (this.bandwidth >= this.fullRate * FULL_GROWTH) {
      this.fullRate = this.bandwidth
      this.fullRounds = 0
    } else this.fullRounds++
    if (this.fullRounds < FULL_ROUNDS && lossShare < OVERFLOW) return
    this.isFull = true
    // What startup loses when the rate no longer grows is an overflow, or what the path always loses.
    this.ambientLoss = Math.min(lossShare, 0.1)
    this.enter('drain', now)
  }

  private advance({ inFlight, now }: AckSample): void {
    const inState = now - this.stateAt
    switch (this.state) {
      case 'drain':
        if (inFlight <= this.product) this.enter('down', now)
        return
      case 'down':
        if (inFlight <= Math.min(this.product, HEADROOM * this.bound) || this.roundsInState > 3)
          this.enter('cruise', now)
        return
      case 'cruise':
        if (this.roundsInState >= CRUISE_ROUNDS || inState >= CRUISE_TIME) this.enter('refill', now)
        return
      case 'refill':
        if (this.roundsInState >= 1) this.enter('up', now)
        return
      case 'up':
        if (inState >= this.minRtt && inFlight >= PACING_GAIN.up * this.product)
          this.enter('down', now)
        else if (this.roundsInState >= 4) this.enter('down', now)
        return
      case 'probe-rtt':
        if (inState >= PROBE_RTT_TIME && this.roundsInState >= 1) this.enter('cruise', now)
        return
      default:
    }
  }

  private enter(state: State, now: Millis): void {
    if (state === 'probe-rtt') {
      this.minRttAt = now
      this.minRtt = this.srtt > 0 ? this.srtt : this.minRtt
    }
    // A cycle ends where probing does: what was measured before the last one is forgotten.
    if (state === 'down' && this.state === 'up') {
      this.lastRate = this.rate
      this.rate = 0
    }
    this.state = state
    this.stateAt = now
    this.roundsInState = 0
  }

  private adjustWindow({ delivered, segment }: AckSample): void {
    const least = LEAST_SEGMENTS * segment
    if (this.product === 0 || !this.isFull) {
      // Beyond this the pace would not be higher, only the queue longer.
      const isShort = this.cwnd < PACING_GAIN.startup * this.product + SPARE_SEGMENTS * segment
      if (isShort || this.product === 0) this.cwnd = Math.min(this.cwnd + delivered, LARGEST_WINDOW)
      return
    }
    const gain = this.state === 'up' ? WINDOW_GAIN_UP : WINDOW_GAIN
    let target = gain * this.product + SPARE_SEGMENTS * segment
    if (this.state === 'up') this.bound = Math.max(this.bound, this.bound + delivered / 2)
    else target = Math.min(target, this.boundInState)
    if (this.state === 'probe-rtt') target = PROBE_RTT_SHARE * this.product
    this.cwnd = Math.min(this.cwnd + delivered, Math.max(target, least), LARGEST_WINDOW)
  }

  private get boundInState(): number {
    return this.state === 'cruise' ? HEADROOM * this.bound : this.bound
  }

  onLoss({ segment, isTimeout, isRepeated }: Loss): void {
    if (!isRepeated) this.before = { cwnd: this.cwnd, bound: this.bound }
    if (isTimeout) this.cwnd = segment
  }

  onSpurious(): void {
    if (this.before === undefined) return
    this.cwnd = Math.max(this.cwnd, this.before.cwnd)
    this.bound = Math.max(this.bound, this.before.bound)
    this.before = undefined
  }

  /** What goes out is paced by a rate that was measured: the window may stay. */
  onIdle(): void {
    if (this.state !== 'startup') this.roundsInState = 0
  }
}
