/**
 * What has become of the segments that were sent, and what follows from it: round trips, loss (RACK and its
 * tail loss probe, RFC 8985), the reduction while it is repaired (PRR, RFC 6937), taking it back when nothing
 * was lost (RFC 3522, RFC 4015, RFC 5682), and the backoff of the retransmission timer (RFC 6298).
 */
import type { Millis } from '../base/environment.ts'
import { ZERO } from '../base/real.ts'
import { after, afterOrAt, before, distance } from '../base/serial.ts'
import type { TimerTable } from '../base/timers.ts'
import type { TcpConfig } from './config.ts'
import type { AckSample, CongestionController } from './congestion/controller.ts'
import { DeliveryRate } from './delivery-rate.ts'
import type { Experience } from './experience.ts'
import { Pacer } from './pacing.ts'
import { DUPLICATE_THRESHOLD, Rack } from './rack.ts'
import { RtoEstimator, type Smoothed } from './rto.ts'
import { NONE, SentSegments, type Deliveries } from './sent-segments.ts'
import { Timer } from './timer.ts'

/** What recovery asks the connection for. */
export interface Sender {
  readonly sndUna: number
  readonly sndNxt: number
  readonly mss: number
  readonly initialWindow: number
  readonly sackPermitted: boolean
  readonly timestamps: boolean
  readonly timers: TimerTable
  readonly config: TcpConfig
  /** The longest delay of the peer's ACKs; `Infinity`: not told. */
  readonly peerAckDelay: Millis
  /** Segments sent again. */
  retransmissions: number
  timestamp(now: Millis): number
  /** A segment with so many octets, sent once, has arrived. */
  noteArrived(octets: number): void
  /** The path has lost something. */
  noteLost(now: Millis): void
  /** The segment that tried a larger size has arrived, */
  noteProbeAnswered(now: Millis): void
  /** or is lost. `isClear`: nothing else is. */
  noteProbeLost(isClear: boolean, now: Millis): void
}

/** A probe earlier than this would be sent for a peer that is only busy. */
const LEAST_PROBE_WAIT: Millis = 10
/** The longest delay of an ACK that is learnt (RFC 9293 §3.8.6.3 allows 500 ms, nobody takes more than this). */
const LONGEST_ACK_DELAY: Millis = 200
/** An ACK's delay seen once counts for so many more round trips. */
const ACK_DELAY_MEMORY = 7 / 8
/** Ours: after this long, and this many timeouts, an idle connection releases its send state. */
const REST: Millis = 5000
const REST_TIMEOUTS = 12
/** While ACKs come, the probe waits this share of a round trip for the next. */
const ACK_SPACING = 1 / 8

/** Ours: so few segments under way are no burst, however much of the flight before them was lost. */
const SMALL_FLIGHT = 3

/** None; lost segments are being repaired; the retransmission timer went off. */
type Phase = 'open' | 'fast' | 'timeout'

/** The ACK at hand; one at a time is looked at. */
const sample: AckSample = {
  now: ZERO,
  segment: 0,
  delivered: 0,
  lost: ZERO,
  rtt: ZERO,
  srtt: ZERO,
  minRtt: ZERO,
  inFlight: 0,
  isWindowLimited: false,
  isRecovering: false,
  credit: 0,
  totalDelivered: 0,
  priorDelivered: ZERO,
  rate: ZERO,
  isAppLimited: false,
  inFlightThen: ZERO,
  lostSince: ZERO,
}
const ack = {
  /** The round trip of the newest segment that was sent once; `Infinity`: none arrived. */
  rtt: Infinity,
  /** When the segment that caused this ACK was sent, by its echoed timestamp; `Infinity`: not told. */
  echoedAt: Infinity,
  isCumulative: false,
  /** It acknowledges a segment that was sent again, perhaps after a long wait in which others lay at the peer. */
  hasRepeated: false,
  /** The echo is older than such a segment's last sending, which had the time to cause this ACK. */
  isEchoStale: false,
  /** A segment sent once, before the last timeout, has arrived. */
  hasOriginal: false,
  hasDuplicate: false,
  duplicateStart: ZERO,
  duplicateEnd: ZERO,
  /** It is the tail loss probe that came twice. */
  isProbeDuplicate: false,
}

export class Recovery implements Deliveries {
  readonly sent: SentSegments
  rtt: RtoEstimator
  /** A tail loss probe is due: new data, else the last segment once more (RFC 8985 §7.3). */
  wantsProbe = false
  congestion: CongestionController
  private readonly sender: Sender
  private readonly rack: Rack
  private readonly rate = new DeliveryRate()
  private readonly pacer = new Pacer()

  private phase: Phase = 'open'
  /** The phase ends when this is acknowledged (RFC 6675 §5). */
  private recoverAt = ZERO
  /** One segment may go out whatever the window says. */
  private isForced = false
  /** Without SACK: ACKs that tell of a segment that has arrived (RFC 5681 §3.2). */
  private duplicateAcks = 0

  // PRR.
  private prrDelivered = 0
  private prrOut = 0
  private flight = 0
  private reducedWindow = ZERO

  // Undo: retransmissions of this episode that no D-SACK has called needless, and the first of them.
  private episodeFrom = 0
  private doubtful = 0
  private firstResentAt: Millis = -Infinity
  private firstResentEnd = ZERO
  /** Round trips as they were before the timeout. */
  private rttBefore: Smoothed | undefined
  /** What was sent before this lay in a stall: how long it took says nothing of other segments. `-Infinity`: none did. */
  private stalledUntil = -Infinity

  // Timers.
  private timeoutFrom: Millis = ZERO
  private lastSentAt: Millis = -Infinity
  private ackDelay: Millis = ZERO
  /** The probe is answered when this is acknowledged. */
  private probeEnd = ZERO
  private probe: 'none' | 'new' | 'repeated' = 'none'
  private probeAt: Millis = ZERO
  /** Nothing else was under way, so its timestamp, when it closes the gap, is the one that is echoed. */
  private isProbeAlone = false

  /** The largest flight of the round trip that ends when `roundEnd` is acknowledged. */
  private roundFlight = 0
  private roundEnd = ZERO
  /** Octets that have arrived behind a gap: they count when it is closed and nothing was lost. */
  private uncredited = 0
  /** What the window held back was sent after this; `-Infinity`: it has held nothing back. */
  private limitedUntil = -Infinity
  /** Octets found lost, as far as the controller has heard of them. */
  private lostTold = ZERO

  constructor(sender: Sender, congestion: CongestionController) {
    this.sender = sender
    this.congestion = congestion
    this.sent = new SentSegments(this)
    this.rtt = freshRtt(sender)
    this.rack = new Rack(sender.sndNxt)
    this.recoverAt = sender.sndNxt
    this.roundEnd = sender.sndNxt
    this.ackDelay = Math.min(sender.config.delayedAck, sender.peerAckDelay)
  }

  /** Octets that may be under way. */
  get window(): number {
    return this.phase === 'fast' && this.congestion.reducesProportionally
      ? this.reducedWindow
      : this.congestion.window
  }

  /** Octets that are; without SACK, each duplicate ACK stands for a segment that has left. */
  get inFlight(): number {
    return Math.max(0, this.sent.pipe - this.duplicateAcks * this.sender.mss)
  }

  // --- sending ---

  /** Whether `octets` may go out now; else it is told by an ACK or the pacing timer when they may. */
  maySend(octets: number, now: Millis): boolean {
    // A probe goes out beyond the window (RFC 8985 §7.3).
    if (this.isForced || this.wantsProbe) return true
    const { inFlight } = this
    if (inFlight > 0 && inFlight + octets > this.window) {
      this.limitedUntil = this.sender.sndNxt
      return false
    }
    const allowedAt = this.pacer.allowedAt(now)
    if (allowedAt <= now) return true
    this.sender.timers.set(Timer.Pacing, allowedAt)
    return false
  }

  /**
   * A segment of so many octets may try its size, as soon as the window has room: nothing is being repaired, and it
   * takes no more than half of the window.
   */
  mayTry(octets: number): boolean {
    const { sent, inFlight } = this
    const isQuiet = this.phase === 'open' && sent.lostCount === 0 && !this.wantsProbe
    return isQuiet && (inFlight === 0 || 2 * octets <= this.window)
  }

  /** Before something is sent with nothing under way: the window may be out of date (RFC 5681 §4.1). */
  noteIdleTime(now: Millis): void {
    const idle = now - this.lastSentAt
    const { rto } = this.rtt
    if (!this.sent.isEmpty || idle < rto || idle === Infinity) return
    this.congestion.onIdle(idle, rto)
    this.lastSentAt = now
  }

  /** There is room, but nothing to send. */
  noteAppLimited(): void {
    if (this.inFlight < this.window) this.rate.noteAppLimited(this.sent.pipe)
  }

  /** `isProbe`: it is larger than what is known to get through. */
  sentNew(seq: number, end: number, isProbe: boolean, now: Millis): void {
    const wasIdle = this.sent.isEmpty
    if (wasIdle) {
      this.timeoutFrom = now
      this.sender.timers.clear(Timer.Rest)
    }
    const slot = this.sent.sent(seq, end, now)
    if (isProbe) this.sent.markProbe(slot)
    this.noteSent(slot, wasIdle, now)
    if (this.wantsProbe) this.noteProbe('new', now)
    this.rearm(now)
  }

  sentAgain(slot: number, now: Millis): void {
    this.sender.retransmissions++
    this.sent.resent(slot, now)
    this.noteSent(slot, false, now)
    if (this.phase !== 'open') {
      this.doubtful++
      if (this.firstResentAt < 0) {
        this.firstResentAt = now
        this.firstResentEnd = this.sent.end(slot)
      }
    }
    if (this.wantsProbe) this.noteProbe('repeated', now)
    if (slot === this.sent.first) this.timeoutFrom = now
    this.rearm(now)
  }

  private noteSent(slot: number, wasIdle: boolean, now: Millis): void {
    const octets = this.sent.octets(slot)
    this.isForced = false
    const { sndUna, sndNxt } = this.sender
    if (!before(sndUna, this.roundEnd) || this.sent.pipe > this.roundFlight) {
      this.roundFlight = this.sent.pipe
      this.roundEnd = sndNxt
    }
    this.lastSentAt = now
    this.prrOut += octets
    this.rate.sent(this.sent, slot, wasIdle, now)
    this.pacer.sent(octets, this.sender.mss, this.congestion.pacingRate, wasIdle, now)
  }

  // --- one ACK: begin, then what it reports, then finish ---

  /** `echo`: the timestamp that it echoes (RFC 7323 §3.2). */
  beginAck(echo: number | undefined, now: Millis): void {
    sample.now = now
    sample.delivered = 0
    ack.rtt = Infinity
    ack.isCumulative = false
    ack.hasRepeated = false
    ack.isEchoStale = false
    ack.hasOriginal = false
    ack.hasDuplicate = false
    ack.isProbeDuplicate = false
    ack.echoedAt =
      echo === undefined
        ? Infinity
        : Math.floor(now) - Math.max(0, distance(this.sender.timestamp(now), echo))
    this.rate.begin()
    this.rack.beginAck()
  }

  reportSacked(start: number, end: number): void {
    this.sent.sack(start, end)
  }

  /** A D-SACK (RFC 2883): this has arrived twice. */
  reportDuplicate(start: number, end: number): void {
    ack.hasDuplicate = true
    ack.duplicateStart = start
    ack.duplicateEnd = end
  }

  reportAcknowledged(seq: number): void {
    ack.isCumulative = true
    this.sent.acknowledge(seq)
  }

  /** The scoreboard tells of the first octets of a record that have arrived before the rest. */
  deliveredPart(octets: number): void {
    sample.delivered += octets
    this.rate.delivered += octets
  }

  /** The scoreboard tells of each record that one of these reports. */
  delivered(slot: number, octets: number): void {
    const { sent } = this
    const { now } = sample
    const isRepeated = sent.isRetransmitted(slot)
    // Sent again, but what arrived is the original: the echo is older, or, where there is none, the repetition had no
    // time to get there. An ACK that does not advance echoes what came before the gap (RFC 7323 §4.3), and tells nothing.
    const sentAt = sent.sentAt(slot)
    const isTold = ack.isCumulative && ack.echoedAt < Infinity
    const isOriginal = isTold ? ack.echoedAt < Math.floor(sentAt) : now - sentAt < this.rtt.minRtt
    const isAmbiguous = isRepeated && isOriginal
    this.rack.delivered(sent, slot, isRepeated, isAmbiguous, now)
    this.rate.arrived(sent, slot, octets, now)
    sample.delivered += octets
    if (isRepeated) {
      ack.hasRepeated ||= ack.isCumulative
      // The ACK of what came first was lost, perhaps: the wait for a repetition is no round trip.
      const repeatedAt = this.firstResentAt < 0 ? sentAt : Math.min(this.firstResentAt, sentAt)
      ack.isEchoStale ||= isAmbiguous && now - repeatedAt >= this.rtt.minRtt
      return
    }
    if (sent.isProbe(slot)) this.sender.noteProbeAnswered(now)
    else this.sender.noteArrived(octets)
    ack.rtt = Math.min(ack.rtt, now - sent.firstSentAt(slot))
    if (before(sent.seq(slot), this.recoverAt)) ack.hasOriginal = true
  }

  /**
   * `advanced`: by how much the cumulative acknowledgement has moved. `isDuplicate`: a duplicate ACK as
   * RFC 5681 §2 defines it; it counts where SACK does not tell more.
   */
  finishAck(advanced: number, isDuplicate: boolean): void {
    const { sender, sent, congestion } = this
    const { now } = sample
    const isLimited = this.wasWindowLimited(advanced)
    this.measure(advanced)
    let { delivered } = sample
    if (advanced > 0) {
      this.timeoutFrom = now
      this.rack.acknowledged(sender.sndUna)
      // What duplicate ACKs have told of already is not counted twice.
      const counted = Math.min(this.duplicateAcks, Math.floor(advanced / sender.mss))
      this.duplicateAcks -= counted
      delivered = Math.max(0, delivered - counted * sender.mss)
    } else if (isDuplicate && !sender.sackPermitted) {
      this.duplicateAcks++
      delivered = sender.mss
    }
    this.lookAtProbe(advanced > 0)
    this.undoIfSpurious(advanced > 0)
    if (this.phase !== 'open' && afterOrAt(sender.sndUna, this.recoverAt)) this.leave()
    // RFC 6582 §3.2: without SACK a partial ACK names the next hole.
    else if (this.phase === 'fast' && advanced > 0 && !sender.sackPermitted && !sent.isEmpty)
      this.markLost(sent.first)
    this.findLoss(now)
    if (this.phase === 'fast') this.reduce(delivered)
    sample.segment = sender.mss
    sample.srtt = this.rtt.srtt
    sample.minRtt = this.rtt.minRtt
    sample.inFlight = this.inFlight
    sample.isWindowLimited = isLimited
    sample.isRecovering = this.phase === 'fast'
    this.uncredited += delivered
    sample.credit = ack.isCumulative ? this.uncredited : 0
    if (ack.isCumulative) this.uncredited = 0
    this.rate.finish(sample, this.rtt.minRtt)
    sample.lost = this.rate.lost - this.lostTold
    this.lostTold = this.rate.lost
    congestion.onAck(sample)
    this.rearm(now)
  }

  private wasWindowLimited(advanced: number): boolean {
    const oldest = (this.sender.sndUna - advanced) >>> 0
    if (this.limitedUntil >= 0 && after(oldest, this.limitedUntil)) this.limitedUntil = -Infinity
    if (this.limitedUntil >= 0) return true
    // In slow start the window may be twice what was used of it in the last round trip.
    const { window, threshold } = this.congestion
    return window < threshold && 2 * this.roundFlight > window
  }

  private measure(advanced: number): void {
    const { now } = sample
    // Karn's rule (RFC 6298 §3): with a segment that was sent again, only the echo tells what arrived (RFC 7323
    // §4.1). A later segment, sent once, may have lain at the peer until the gap before it was filled.
    const isClear = ack.rtt < Infinity && !ack.hasRepeated
    const rtt = isClear ? ack.rtt : advanced > 0 ? now - ack.echoedAt : -Infinity
    sample.rtt = 0
    if (rtt === -Infinity || rtt < 0 || (!isClear && ack.isEchoStale)) return
    if (this.stalledUntil >= 0) {
      if (!after(this.sender.sndUna, this.stalledUntil)) return
      this.stalledUntil = -Infinity
    }
    this.rtt.measure(rtt, now)
    sample.rtt = rtt
    const longest = Math.min(this.sender.peerAckDelay, LONGEST_ACK_DELAY)
    const delay = Math.min(rtt - this.rtt.minRtt, longest)
    this.ackDelay = Math.max(delay, this.ackDelay * ACK_DELAY_MEMORY)
  }

  // --- loss ---

  handleReorderTimer(now: Millis): void {
    sample.delivered = 0
    this.findLoss(now)
    if (this.phase === 'fast') this.reduce(0)
    this.rearm(now)
  }

  private findLoss(now: Millis): void {
    const { sender, sent, rtt } = this
    if (sender.sackPermitted) {
      const { srtt, minRtt } = rtt
      const before = this.goneOctets
      const next = this.rack.detect(sent, this.phase !== 'open', srtt, minRtt, now)
      this.rate.lost += this.goneOctets - before
      if (next < Infinity) sender.timers.set(Timer.Reorder, next)
      else sender.timers.clear(Timer.Reorder)
    } else if (this.duplicateAcks >= DUPLICATE_THRESHOLD && this.phase === 'open') {
      this.markLost(sent.first)
    }
    if (sent.lostProbes > 0)
      sender.noteProbeLost(this.phase === 'open' && sent.lostCount === sent.lostProbes, now)
    if (sent.lostCount > sent.lostProbes && this.phase === 'open') this.enter(now)
  }

  /** Goes up by what is found lost, but for what tried a size: its loss says nothing of the path's load. */
  private get goneOctets(): number {
    return -this.sent.pipe - this.sent.lostProbeOctets
  }

  private markLost(slot: number): void {
    const before = this.goneOctets
    this.sent.markLost(slot)
    this.rate.lost += this.goneOctets - before
  }

  private enter(now: Millis): void {
    this.beginEpisode()
    this.reportLoss(false, false, now)
    this.uncredited = 0
    this.phase = 'fast'
    this.flight = Math.max(1, this.outstanding - this.sent.sackedOctets + sample.delivered)
    this.prrDelivered = 0
    this.prrOut = 0
  }

  private beginEpisode(): void {
    this.episodeFrom = this.sender.sndUna
    this.doubtful = 0
    this.firstResentAt = -Infinity
  }

  private reportLoss(isTimeout: boolean, isRepeated: boolean, now: Millis): void {
    const { sndNxt, mss } = this.sender
    const lost = this.sent.firstLost
    this.recoverAt = sndNxt
    this.sender.noteLost(now)
    this.congestion.onLoss({
      now,
      segment: mss,
      inFlight: this.outstanding,
      inFlightThen: lost === NONE ? Infinity : this.sent.inFlightThen(lost),
      isTimeout,
      isRepeated,
    })
  }

  private get outstanding(): number {
    return distance(this.sender.sndNxt, this.sender.sndUna)
  }

  /** RFC 6937 §3.1, with slow start as the bound of the reduction. */
  private reduce(delivered: number): void {
    const { inFlight } = this
    const target = this.congestion.window
    const { mss } = this.sender
    this.prrDelivered += delivered
    const allowed =
      inFlight > target
        ? Math.ceil((this.prrDelivered * target) / this.flight) - this.prrOut
        : Math.min(
            target - inFlight,
            Math.max(this.prrDelivered - this.prrOut, delivered, SMALL_FLIGHT * mss - inFlight) +
              mss,
          )
    // RFC 5681 §3.2 step 3: the first repetition goes out whatever the window has become.
    this.reducedWindow = inFlight + Math.max(this.prrOut === 0 ? mss : 0, allowed)
  }

  private leave(): void {
    this.phase = 'open'
    this.isForced = false
    this.duplicateAcks = 0
    this.rack.recovered()
  }

  // --- it was no loss ---

  private undoIfSpurious(hasAdvanced: boolean): void {
    const { sender } = this
    if (ack.hasDuplicate) this.lookAtDuplicate()
    if (!hasAdvanced || this.phase === 'open') return
    const isOfOriginal =
      this.firstResentAt >= 0 &&
      afterOrAt(sender.sndUna, this.firstResentEnd) &&
      ack.echoedAt < Math.floor(this.firstResentAt)
    // F-RTO (RFC 5682 §3): after a timeout, something arrives that was never sent again.
    const isLate =
      this.phase === 'timeout' &&
      ack.echoedAt === Infinity &&
      ack.hasOriginal &&
      sender.sackPermitted &&
      before(sender.sndUna, this.recoverAt)
    if (!isOfOriginal && !isLate) return
    this.rack.noteDuplicate(sender.sndNxt)
    this.undo()
  }

  private lookAtDuplicate(): void {
    const { sender } = this
    if (ack.isProbeDuplicate) return
    this.rack.noteDuplicate(sender.sndNxt)
    const isOfEpisode =
      this.doubtful > 0 &&
      afterOrAt(ack.duplicateStart, this.episodeFrom) &&
      !after(ack.duplicateEnd, this.recoverAt)
    // RFC 3708: each repetition has turned out to be needless.
    if (isOfEpisode && --this.doubtful === 0) this.undo()
  }

  private undo(): void {
    if (this.phase === 'timeout' && this.rttBefore !== undefined) {
      this.rtt.noteSpike(this.rttBefore, Math.max(0, sample.now - ack.echoedAt))
      this.stalledUntil = this.recoverAt
    }
    if (this.phase !== 'open') this.leave()
    this.beginEpisode()
    this.sent.unmarkLost()
    this.rtt.backoffs = 0
    this.congestion.onSpurious()
  }

  // --- timers ---

  /** The retransmission timer went off: 'probe' where a segment more may tell of a loss, 'timeout' else. */
  handleRetransmitTimer(now: Millis): 'probe' | 'timeout' {
    if (this.mayProbe && now < this.timeoutFrom + this.rtt.rto) {
      this.wantsProbe = true
      this.timeoutFrom = now
      this.probe = 'new'
      this.probeEnd = this.sender.sndNxt
      this.rearm(now)
      return 'probe'
    }
    this.handleTimeout(now)
    return 'timeout'
  }

  private handleTimeout(now: Millis): void {
    const { sent, rtt } = this
    const isRepeated = this.phase !== 'open'
    if (!isRepeated) this.beginEpisode()
    if (this.phase !== 'timeout') this.rttBefore = rtt.isMeasured ? rtt.smoothed : undefined
    this.stalledUntil = -Infinity
    this.reportLoss(true, isRepeated, now)
    this.phase = 'timeout'
    this.probe = 'none'
    this.wantsProbe = false
    this.duplicateAcks = 0
    const before = this.goneOctets
    // RFC 2018 §8: had the peer kept what it reported, its acknowledgement would be behind it.
    if (!sent.isEmpty && sent.isSacked(sent.first)) sent.forgetSacks()
    if (!sent.isEmpty) sent.markLost(sent.first)
    this.rack.markAtTimeout(sent, rtt.srtt, rtt.minRtt, now)
    this.rate.lost += this.goneOctets - before
    if (sent.lostProbes > 0) this.sender.noteProbeLost(false, now)
    rtt.backOff()
    this.timeoutFrom = now
    this.isForced = true
    this.rearm(now)
  }

  /**
   * What was lost was too large, and no sign of load (RFC 4821 §7.7): all that goes out again does so in smaller
   * segments, from the first window on.
   */
  noteTooLarge(now: Millis): void {
    const { sent, congestion } = this
    congestion.onSpurious()
    if (congestion.threshold === Infinity) congestion.onStart(this.sender.initialWindow)
    else congestion.onIdle(Infinity, this.rtt.rto)
    this.rtt.backoffs = 0
    // Nothing more is reported as lost before all of it has arrived.
    this.beginEpisode()
    this.phase = 'timeout'
    this.recoverAt = this.sender.sndNxt
    sent.markAllLost()
    this.rearm(now)
  }

  /**
   * The segments go another way now: nothing that was measured holds, the controller starts again, and what
   * was under way goes out again.
   */
  pathChanged(congestion: CongestionController, initialWindow: number, now: Millis): void {
    const { sent, sender } = this
    this.rtt = freshRtt(sender)
    this.rttBefore = undefined
    this.stalledUntil = -Infinity
    this.congestion = congestion
    congestion.onStart(initialWindow)
    this.probe = 'none'
    this.wantsProbe = false
    this.duplicateAcks = 0
    if (sent.isEmpty) return
    this.beginEpisode()
    this.phase = 'timeout'
    this.recoverAt = sender.sndNxt
    const before = this.goneOctets
    sent.markAllLost()
    this.rate.lost += this.goneOctets - before
    this.timeoutFrom = now
    this.rearm(now)
  }

  /** The age of the oldest segment in flight. */
  hasWaited(time: Millis, now: Millis): boolean {
    const { sent } = this
    return !sent.isEmpty && now - sent.firstSentAt(sent.first) >= time
  }

  /** A round trip is known, nothing is being repaired, and the last probe was answered (RFC 8985 §7.2). */
  private get mayProbe(): boolean {
    return (
      this.sender.sackPermitted &&
      this.phase === 'open' &&
      this.probe === 'none' &&
      this.rtt.backoffs === 0 &&
      this.rtt.isMeasured
    )
  }

  /**
   * One timer for the timeout and the probe. The probe waits as RFC 9002 §6.2.1 says, which RFC 8985 §7.2
   * bounds by two round trips; a lone segment's ACK may be delayed, by as much as was seen of late.
   */
  rearm(now: Millis): void {
    const { sent, rtt } = this
    const { timers } = this.sender
    if (sent.isEmpty) this.awaitRest(now)
    if (sent.isEmpty || timers.isSet(Timer.Persist)) return timers.clear(Timer.Retransmit)
    const timeoutAt = this.timeoutFrom + rtt.rto
    if (!this.mayProbe) return timers.set(Timer.Retransmit, timeoutAt)
    const { srtt, rttvar } = rtt
    const wait = Math.max(Math.min(2 * srtt, srtt + 4 * rttvar), LEAST_PROBE_WAIT)
    const delay = sent.length === 1 ? this.ackDelay : 0
    const probeAt = Math.max(this.lastSentAt + wait + delay, now + srtt * ACK_SPACING)
    timers.set(Timer.Retransmit, Math.min(probeAt, timeoutAt))
  }

  /** After such an idle time the window is the first one again (RFC 2861), and hardly anything is worth keeping. */
  private awaitRest(now: Millis): void {
    const { congestion, rtt, sender } = this
    if (congestion.mayRest && rtt.isMeasured)
      sender.timers.set(Timer.Rest, now + Math.max(REST, REST_TIMEOUTS * rtt.rto))
  }

  /** What is. */
  get experience(): Experience {
    const { srtt, rttvar, minRtt } = this.rtt
    const { threshold, window } = this.congestion
    return { srtt, rttvar, minRtt, threshold, window }
  }

  /** After a rest. */
  resume(experience: Experience, now: Millis): void {
    this.rtt.restore(experience, now)
    this.congestion.onResume(this.sender.initialWindow, experience.threshold)
  }

  private noteProbe(probe: 'new' | 'repeated', now: Millis): void {
    this.wantsProbe = false
    this.probe = probe
    this.probeEnd = this.sender.sndNxt
    this.probeAt = now
    this.isProbeAlone = this.sent.length === 1
    this.timeoutFrom = now
  }

  /** RFC 8985 §7.4.2: whether the probe has repaired a loss that nothing else tells of. */
  private lookAtProbe(hasAdvanced: boolean): void {
    const { sndUna, sackPermitted } = this.sender
    if (this.probe === 'none' || before(sndUna, this.probeEnd)) return
    ack.isProbeDuplicate = this.probe === 'repeated' && ack.hasDuplicate
    // RFC 3522 §3: what arrived is the original. Its D-SACK may not: a segment that brings no new data is not looked at.
    if (this.probe === 'repeated' && this.isProbeAlone && hasAdvanced && this.isEchoOlder()) {
      this.probe = 'none'
      return
    }
    // The echo is the probe's, so what it repeats had not arrived.
    const isEchoed = ack.echoedAt < Infinity && !this.isEchoOlder()
    if (this.probe === 'repeated' && !ack.hasDuplicate && isEchoed) this.sender.noteLost(sample.now)
    const isAnswered =
      this.probe === 'new' || ack.hasDuplicate || after(sndUna, this.probeEnd) || !sackPermitted
    const hasRepaired =
      this.probe === 'repeated' && !ack.hasDuplicate && after(sndUna, this.probeEnd)
    if (hasRepaired && hasAdvanced) {
      this.beginEpisode()
      this.reportLoss(false, false, sample.now)
    }
    if (isAnswered) this.probe = 'none'
  }

  /** The ACK is of something that was sent before the probe. */
  private isEchoOlder(): boolean {
    return ack.echoedAt < Math.floor(this.probeAt)
  }

  /** Everything is acknowledged, or nothing matters any more. */
  clear(): void {
    this.sent.clear()
    this.duplicateAcks = 0
    this.wantsProbe = false
  }
}

/** Of a path of which nothing is known. */
const freshRtt = ({ config: { initialRto, minRto, maxRto } }: Sender): RtoEstimator =>
  new RtoEstimator(initialRto, minRto, maxRto)
