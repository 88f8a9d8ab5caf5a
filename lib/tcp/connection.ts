/** A TCP connection as its owner uses it, and its timers. What segments mean is in `receive.ts`. */
import type { Millis } from '../base/environment.ts'
import type { InLine } from '../base/line.ts'
import type { Packet } from '../base/packet.ts'
import type { Scheduled } from '../base/schedule.ts'
import { before } from '../base/serial.ts'
import { Tcb, type CloseReason } from './control-block.ts'
import { LARGEST_WINDOW } from './congestion/controller.ts'
import { newController, type CongestionControl } from './congestion/choose.ts'
import { armKeepAlive, restartUserTimeout, sendAck } from './receive.ts'
import { Timer } from './timer.ts'
import { synRoom, transmitNext } from './transmit.ts'

export interface KeepAliveSettings {
  readonly enable: boolean
  /** Milliseconds; undefined keeps what was set. */
  readonly initialDelay?: Millis | undefined
  readonly interval?: Millis | undefined
  readonly count?: number | undefined
}

/** Ours: after the second repetition it is doubtful that the peer can be reached. */
const DOUBTFUL_REPEATS = 2
/** Ours: a segment unacknowledged for this long was lost, whatever round trips were measured. */
const LONG: Millis = 1000

/** RFC 8201 §4: how long a lowered path MTU is kept before a larger one is tried. */
const PATH_LIMIT_HOLDS: Millis = 600_000

export class TcpConnection extends Tcb implements Scheduled, InLine<TcpConnection> {
  dueAt: Millis = Infinity
  heapIndex = -1
  preceding: TcpConnection | undefined
  following: TcpConnection | undefined
  isInLine = false

  /** Octets taken, by copy; after fewer than given, 'writable' follows. */
  send(octets: Uint8Array): number {
    if (this.finQueued || this.reported) return 0
    const { sendRoom } = this
    const taken = this.sendQueue.push(
      octets.length > sendRoom ? octets.subarray(0, sendRoom) : octets,
    )
    this.stack.memory.count(this)
    if (taken < octets.length) this.awaitRoom()
    if (taken > 0) this.stack.ready(this)
    return taken
  }

  /** Those of the first octets of the stream that the SYN takes; `token` is of the attempt, whatever SA it uses. */
  begin(octets: Uint8Array, token: Uint8Array): void {
    this.token = token
    this.firstOctets = this.sendQueue.push(
      octets.subarray(0, Math.min(octets.length, this.sendRoom, synRoom(this))),
    )
    this.stack.memory.count(this)
  }

  /** The next octets in order; the window opens by as many. */
  receive(max = Infinity): Uint8Array | undefined {
    const octets = this.reassembly.take(max)
    if (octets === undefined || this.isOver) return octets
    this.stack.memory.count(this)
    // RFC 9293 §3.8.6.2.2: a window update only when it is worth a segment.
    const worth = Math.min(this.receiveBuffer / 2, 4 * this.mss)
    const isDue = this.timers.deadline(Timer.DelayedAck) <= this.heardAt
    if (this.windowGain >= worth && !isDue) sendAck(this)
    return octets
  }

  /** The owner hears now of what came with the peer's SYN: what it does in this turn takes the ACK along. */
  noteTold(): void {
    this.isUntold = false
    if (this.isOver) return
    if (this.ackNow) {
      this.ackNow = false
      // Due as soon as the turn is over.
      this.timers.set(Timer.DelayedAck, this.heardAt)
      this.stack.rearm(this)
    }
    this.stack.ready(this)
  }

  get readableLength(): number {
    return this.reassembly.readable
  }

  /** Sends FIN after everything that `send` accepted. */
  shutdown(): void {
    if (this.finQueued || this.isOver) return
    this.finQueued = true
    this.stack.ready(this)
  }

  /** Sends RST and ends the connection. */
  abort(): void {
    if (this.isOver) return
    if (this.isEarly && this.state === 'SYN-RECEIVED') {
      this.reported = true
      this.resetsWhenOpen = true
      return
    }
    if (this.state !== 'SYN-SENT') this.stack.reset(this, this.sndNxt, this.rcvNxt)
    this.reported = true
    this.stack.closed(this, undefined)
  }

  /**
   * The owner is gone: what it wrote is still sent, nothing is read any more. Unread octets are
   * answered with RST, so that the peer knows (RFC 2525 §2.17).
   */
  release(now: Millis): void {
    if (this.reported || this.state === 'CLOSED') return
    this.abandoned = true
    if (this.readableLength > 0 || !this.isOwned) return this.abort()
    this.shutdown()
    this.stack.orphaned(this)
    this.userTimeout = this.config.orphanTimeout
    this.timers.set(Timer.User, now + this.userTimeout)
    this.stack.rearm(this)
    if (this.state !== 'FIN-WAIT-2') return
    this.timers.set(Timer.Wait, now + this.config.finWait)
    this.stack.rearm(this)
  }

  setNoDelay(on: boolean): void {
    this.noDelay = on
    if (on) this.stack.ready(this)
  }

  setKeepAlive({ enable, initialDelay, interval, count }: KeepAliveSettings, now: Millis): void {
    this.keepAlive = enable
    if (initialDelay !== undefined && initialDelay > 0) this.keepAliveDelay = initialDelay
    if (interval !== undefined && interval > 0) this.keepAliveInterval = interval
    if (count !== undefined && count > 0) this.keepAliveCount = count
    armKeepAlive(this, now)
    this.stack.rearm(this)
  }

  /** Facts under the names of Linux's tcp_info, and `ca`, the congestion control; times in microseconds as there. */
  tcpInfo(): Record<string, number | string> {
    const { rtt, sent, window, congestion } = this.shownRecovery
    const threshold = Math.min(congestion.threshold, LARGEST_WINDOW)
    return {
      state: this.state,
      ca: this.congestionControl,
      rtt: Math.round(rtt.srtt * 1000),
      rttvar: Math.round(rtt.rttvar * 1000),
      rto: Math.round(rtt.rto * 1000),
      snd_mss: this.mss,
      snd_cwnd: Math.floor(window / Math.max(1, this.mss)),
      snd_ssthresh: Math.floor(threshold / Math.max(1, this.mss)),
      unacked: sent.length,
      lost: sent.lostCount,
      sacked: sent.sackedCount,
      total_retrans: this.retransmissions,
      bytes_sent: this.octetsSent,
      bytes_received: this.octetsReceived,
    }
  }

  /** Used by the stack. */
  transmit(packet: Packet, now: Millis): boolean {
    const hasSent = transmitNext(this, packet, now)
    if (this.userTimeout > 0 && this.awaitsAck && !this.timers.isSet(Timer.User))
      this.timers.set(Timer.User, now + this.userTimeout)
    return hasSent
  }

  /** 0: retransmissions alone decide. */
  setUserTimeout(timeout: Millis, now: Millis): void {
    this.userTimeout = timeout
    restartUserTimeout(this, now)
    this.stack.rearm(this)
  }

  /** Before anything of the stream is sent. */
  setCongestionControl(name: CongestionControl): void {
    if (name === this.congestionControl) return
    this.congestionControl = name
    this.recovery.congestion = newController(name)
    // Else the SYN of the peer says what the first flight is.
    if (this.isOwned) this.congestion.onStart(this.initialWindow)
  }

  handleTimeout(now: Millis): void {
    for (let slot = this.timers.takeDue(now); slot >= 0; slot = this.timers.takeDue(now)) {
      this.handleTimer(slot, now)
      if (this.state === 'CLOSED') return
    }
  }

  /** The path has changed: its measurements are void, and unacknowledged segments are sent again. */
  pathChanged(now: Millis): void {
    if (this.isOver) return
    this.forgetExperience()
    if (this.isResting) return
    if (this.isSynchronized) {
      const congestion = newController(this.congestionControl)
      this.recovery.pathChanged(congestion, this.initialWindow, now)
      this.retries = 0
    } else this.synSent = false
    this.stack.ready(this)
  }

  /** A router says that segments may have no more than `limit` octets. */
  handleTooBig(seq: number, limit: number, now: Millis): void {
    const isUnderWay = !before(seq, this.sndUna) && before(seq, this.sndNxt)
    if (!isUnderWay || limit >= Math.min(this.peerLimit, this.stack.segmentLimit)) return
    this.pathLimit = limit
    this.pathLimitUntil = now + PATH_LIMIT_HOLDS
    if (this.isSynchronized) {
      this.timeoutsInVain = 0
      this.repeats = 0
      this.recovery.noteTooLarge(now)
    } else this.synSent = false
    this.stack.ready(this)
  }

  private handleTimer(slot: number, now: Millis): void {
    switch (slot) {
      case Timer.Retransmit:
        return this.handleRetransmission(now)
      case Timer.Reorder:
        this.recovery.handleReorderTimer(now)
        return this.stack.ready(this)
      case Timer.Pacing:
        return this.stack.ready(this)
      case Timer.Rest:
        return this.rest()
      case Timer.User:
        return this.giveUp()
      case Timer.Persist:
        // RFC 9293 §3.8.6.1 keeps a connection open only while its probes are answered.
        if (++this.retries > this.config.retries) return this.giveUp()
        this.persistProbes++
        this.windowProbe = true
        return this.stack.ready(this)
      case Timer.DelayedAck:
        return sendAck(this)
      case Timer.KeepAlive:
        return this.handleKeepAlive(now)
      case Timer.Wait:
        this.stack.closed(this, undefined)
        return this.stack.remove(this)
    }
  }

  private handleRetransmission(now: Millis): void {
    const { config, recovery } = this
    if (this.state === 'SYN-SENT' || this.state === 'SYN-RECEIVED') {
      if (++this.synRetries > config.synRetries) return this.giveUp()
      this.noteLost(now)
      recovery.rtt.backOff()
      this.synSent = false
    } else if (recovery.handleRetransmitTimer(now) === 'timeout') {
      if (++this.retries > config.retries) return this.giveUp()
      this.noteVain(++this.timeoutsInVain, now)
    }
    if (this.repeatsInRow >= DOUBTFUL_REPEATS) this.stack.noteDoubt()
    this.stack.ready(this)
  }

  /** Timeouts in a row. */
  private get repeatsInRow(): number {
    return this.isSynchronized ? this.retries : this.synRetries
  }

  /** The peer can be reached again: retransmit now instead of waiting for the timer. */
  retryNow(now: Millis): void {
    if (this.isResting) return
    if (this.repeatsInRow === 0 && !this.recovery.hasWaited(LONG, now)) return
    this.recovery.rtt.backoffs = 0
    this.retries = 0
    this.synRetries = 0
    for (const slot of [Timer.Retransmit, Timer.Persist]) {
      if (this.timers.isSet(slot)) this.handleTimer(slot, now)
    }
  }

  private handleKeepAlive(now: Millis): void {
    const due = this.heardAt + this.keepAliveDelay
    if (this.keepAliveProbes === 0 && now < due) {
      this.timers.set(Timer.KeepAlive, due)
      return
    }
    if (this.keepAliveProbes >= this.keepAliveCount) return this.giveUp()
    this.keepAliveProbes++
    this.keepAliveProbe = true
    this.timers.set(Timer.KeepAlive, now + this.keepAliveInterval)
    this.stack.ready(this)
  }

  private giveUp(): void {
    if (this.isOwned) this.stack.reset(this, this.sndNxt, this.rcvNxt)
    this.stack.closed(this, 'ETIMEDOUT')
  }
}

export type { CloseReason }
