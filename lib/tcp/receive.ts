/** SEGMENT ARRIVES (RFC 9293 §3.10.7), one function for each check, in the order of the RFC. */
import type { Millis } from '../base/environment.ts'
import { after, afterOrAt, before, beforeOrAt, distance, earlier, later } from '../base/serial.ts'
import { TcpFlag, type TcpSegment } from '../wire/tcp.ts'
import { MAX_WINDOW_SCALE, Timer, type Tcb } from './control-block.ts'
import { DUPLICATE_THRESHOLD } from './sent-segments.ts'
import { armRetransmit } from './transmit.ts'

/** RFC 7323 §5.5: a timestamp this old says nothing. */
const PAWS_EXPIRY: Millis = 24 * 24 * 3600_000
/** RFC 5961 §7: challenge ACKs of one connection in a second. */
const CHALLENGES_PER_SECOND = 10
/** Every path takes it (RFC 9293 §3.7.1); a smaller one would turn each write into a storm of segments. */
const LEAST_MSS = 536

export const receiveSegment = (
  tcb: Tcb,
  segment: TcpSegment,
  bytes: Uint8Array,
  now: Millis,
): void => {
  if (tcb.state === 'SYN-SENT') return receiveInSynSent(tcb, segment, now)
  if (!isAcceptable(tcb, segment)) return refuseUnacceptable(tcb, segment, now)
  if (isOld(tcb, segment, now)) return sendAck(tcb)
  if (segment.has(TcpFlag.Rst)) return receiveReset(tcb, segment, now)
  if (segment.has(TcpFlag.Syn)) return receiveSynInWindow(tcb, segment, now)
  if (!segment.has(TcpFlag.Ack)) return
  noteTimestamp(tcb, segment, now)
  tcb.heardAt = now
  tcb.keepAliveProbes = 0
  if (!receiveAck(tcb, segment, now)) return
  receiveData(tcb, segment, bytes, now)
  receiveFin(tcb, segment, now)
  // Whatever came may have freed the way for something of ours.
  tcb.stack.ready(tcb)
}

export const sendAck = (tcb: Tcb): void => {
  tcb.ackNow = true
  tcb.stack.ready(tcb)
}

// --- SYN-SENT (§3.10.7.3) ---

const receiveInSynSent = (tcb: Tcb, segment: TcpSegment, now: Millis): void => {
  const acks = segment.has(TcpFlag.Ack)
  if (acks && (beforeOrAt(segment.ack, tcb.iss) || after(segment.ack, tcb.sndNxt))) {
    if (!segment.has(TcpFlag.Rst)) tcb.stack.reset(tcb, segment.ack, undefined)
    return
  }
  if (segment.has(TcpFlag.Rst)) {
    if (acks) tcb.stack.closed(tcb, 'ECONNREFUSED')
    return
  }
  if (!segment.has(TcpFlag.Syn)) return
  takeSynOptions(tcb, segment, now)
  tcb.irs = segment.seq
  tcb.rcvNxt = (segment.seq + 1) >>> 0
  // Our SYN told a window before there was a sequence number to count it from.
  tcb.rcvAdvertised = (tcb.rcvNxt + Math.min(tcb.receiveWindow, 0xffff)) >>> 0
  tcb.heardAt = now
  if (!acks) {
    // Simultaneous open: the SYN is repeated with an ACK.
    tcb.state = 'SYN-RECEIVED'
    tcb.synSent = false
    tcb.stack.ready(tcb)
    return
  }
  acknowledge(tcb, segment.ack, now)
  updateWindow(tcb, segment, segment.window)
  establish(tcb, now)
  sendAck(tcb)
}

/** Options of the peer's SYN, when the state is SYN-SENT or at a passive open. */
export const takeSynOptions = (tcb: Tcb, segment: TcpSegment, now: Millis): void => {
  if (segment.maximumSegmentSize > 0) tcb.peerMss = Math.max(segment.maximumSegmentSize, LEAST_MSS)
  if (segment.windowScale >= 0) tcb.sndWndShift = Math.min(segment.windowScale, MAX_WINDOW_SCALE)
  else {
    tcb.windowScaling = false
    tcb.rcvWndShift = 0
  }
  tcb.sackPermitted = segment.sackPermitted
  tcb.timestamps = segment.hasTimestamps
  if (segment.hasTimestamps) {
    tcb.tsRecent = segment.timestampValue
    tcb.tsRecentAt = now
  }
}

const establish = (tcb: Tcb, now: Millis): void => {
  tcb.state = 'ESTABLISHED'
  tcb.retries = 0
  // The SYN is acknowledged, so its timer has nothing left to repeat (RFC 6298 §5.2).
  armRetransmit(tcb, now)
  armKeepAlive(tcb, now)
  tcb.stack.notify(tcb, 'connected')
}

export const armKeepAlive = (tcb: Tcb, now: Millis): void => {
  if (tcb.keepAlive && tcb.isSynchronized) tcb.timers.set(Timer.KeepAlive, now + tcb.keepAliveDelay)
  else tcb.timers.clear(Timer.KeepAlive)
}

// --- first: sequence number ---

const isAcceptable = (tcb: Tcb, segment: TcpSegment): boolean => {
  // The edge we told, not the one we would tell now: what was promised is taken.
  const window = Math.max(0, distance(tcb.rcvAdvertised, tcb.rcvNxt))
  const { seq, length } = segment
  const end = (tcb.rcvNxt + window) >>> 0
  if (length === 0) {
    return window === 0 ? seq === tcb.rcvNxt : afterOrAt(seq, tcb.rcvNxt) && before(seq, end)
  }
  if (window === 0) return false
  const last = (seq + length - 1) >>> 0
  return (
    (afterOrAt(seq, tcb.rcvNxt) && before(seq, end)) ||
    (afterOrAt(last, tcb.rcvNxt) && before(last, end))
  )
}

const refuseUnacceptable = (tcb: Tcb, segment: TcpSegment, now: Millis): void => {
  if (segment.has(TcpFlag.Rst)) return
  if (tcb.state === 'TIME-WAIT') tcb.timers.set(Timer.Wait, now + tcb.stack.config.timeWait)
  if (segment.has(TcpFlag.Ack) && tcb.isSynchronized && segment.seq === tcb.rcvNxt) {
    // With our window shut, ACKs and window updates are still good (§3.10.7.4).
    receiveAck(tcb, segment, now)
  }
  noteDuplicate(tcb, segment)
  sendAck(tcb)
}

/** RFC 2883 §4: tell which data came twice, the first part of it where there are several. */
const noteDuplicate = (tcb: Tcb, segment: TcpSegment): void => {
  if (!tcb.sackPermitted || segment.dataLength === 0) return
  const { seq } = segment
  const end = (seq + segment.dataLength) >>> 0
  const twice = before(seq, tcb.rcvNxt)
    ? { start: seq, end: earlier(end, tcb.rcvNxt) }
    : tcb.reassembly.overlap(seq, end)
  if (twice === undefined) return
  tcb.hasDuplicate = true
  tcb.duplicateStart = twice.start
  tcb.duplicateEnd = twice.end
}

/** PAWS (RFC 7323 §5.3). */
const isOld = (tcb: Tcb, segment: TcpSegment, now: Millis): boolean =>
  tcb.timestamps &&
  segment.hasTimestamps &&
  !segment.has(TcpFlag.Rst) &&
  before(segment.timestampValue, tcb.tsRecent) &&
  now - tcb.tsRecentAt < PAWS_EXPIRY

/** RFC 7323 §4.3: only a segment that covers what we acknowledged last. */
const noteTimestamp = (tcb: Tcb, segment: TcpSegment, now: Millis): void => {
  if (!tcb.timestamps || !segment.hasTimestamps || after(segment.seq, tcb.lastAckSent)) return
  tcb.tsRecent = segment.timestampValue
  tcb.tsRecentAt = now
}

// --- second: RST (RFC 5961 §3.2) ---

const receiveReset = (tcb: Tcb, segment: TcpSegment, now: Millis): void => {
  if (segment.seq !== tcb.rcvNxt) return challenge(tcb, now)
  switch (tcb.state) {
    case 'SYN-RECEIVED':
      return tcb.stack.closed(tcb, 'ECONNREFUSED')
    case 'CLOSING':
    case 'LAST-ACK':
    case 'TIME-WAIT':
      tcb.stack.closed(tcb, undefined)
      return tcb.stack.remove(tcb)
    default:
      return tcb.stack.closed(tcb, 'ECONNRESET')
  }
}

const challenge = (tcb: Tcb, now: Millis): void => {
  if (now - tcb.challengeAt >= 1000) {
    tcb.challengeAt = now
    tcb.challenges = 0
  }
  if (tcb.challenges++ < CHALLENGES_PER_SECOND) sendAck(tcb)
}

// --- fourth: SYN (RFC 5961 §4.2) ---

const receiveSynInWindow = (tcb: Tcb, segment: TcpSegment, now: Millis): void => {
  if (tcb.state !== 'SYN-RECEIVED' || !segment.has(TcpFlag.Ack)) return challenge(tcb, now)
  // Simultaneous open: the other end's SYN-ACK acknowledges our SYN.
  if (segment.ack === tcb.sndNxt) receiveAck(tcb, segment, now)
  sendAck(tcb)
}

// --- fifth: ACK ---

/** False when the segment says no more. */
const receiveAck = (tcb: Tcb, segment: TcpSegment, now: Millis): boolean => {
  const { ack } = segment
  if (tcb.state === 'SYN-RECEIVED') {
    if (beforeOrAt(ack, tcb.sndUna) || after(ack, tcb.sndNxt)) {
      tcb.stack.reset(tcb, ack, undefined)
      return false
    }
    acknowledge(tcb, ack, now)
    updateWindow(tcb, segment, segment.window * 2 ** tcb.sndWndShift)
    establish(tcb, now)
    return true
  }
  // RFC 5961 §5.2.
  if (after(ack, tcb.sndNxt) || before(ack, (tcb.sndUna - tcb.maxSndWnd) >>> 0)) {
    challenge(tcb, now)
    return false
  }
  const window = segment.window * 2 ** tcb.sndWndShift
  const sacked = receiveSack(tcb, segment, now)
  if (after(ack, tcb.sndUna)) acknowledgeData(tcb, segment, sacked, now)
  else if (ack === tcb.sndUna) receiveDuplicateAck(tcb, segment, window, sacked, now)
  if (afterOrAt(ack, tcb.sndUna)) updateWindow(tcb, segment, window)
  if (tcb.sndWnd > 0 && tcb.timers.isSet(Timer.Persist)) {
    tcb.timers.clear(Timer.Persist)
    tcb.persistProbes = 0
    armRetransmit(tcb, now)
  }
  return advanceClosing(tcb, now)
}

const receiveSack = (tcb: Tcb, segment: TcpSegment, now: Millis): number => {
  if (!tcb.sackPermitted) return 0
  let delivered = 0
  for (let i = 0; i < segment.sackCount; i++) {
    const start = segment.sackStart[i]!
    const end = segment.sackEnd[i]!
    // A block outside what is under way is a duplicate's (RFC 2883) or a lie.
    if (!after(end, start) || !after(start, segment.ack) || after(end, tcb.sndNxt)) continue
    delivered += tcb.inFlight.sack(start, end, now)
  }
  return delivered
}

/** New data is acknowledged: sequence space, queue, round trip. */
const acknowledge = (tcb: Tcb, ack: number, now: Millis): void => {
  const acked = distance(ack, tcb.sndUna)
  const synAcked = tcb.sndUna === tcb.iss ? 1 : 0
  const octets = Math.min(acked - synAcked, tcb.sentOctets)
  const measured = tcb.inFlight.acknowledge(ack, now)
  if (measured !== undefined) tcb.rtt.measure(now - measured.firstSentAt)
  tcb.sendQueue.drop(octets)
  tcb.sentOctets -= octets
  tcb.sndUna = ack
  tcb.retries = 0
  tcb.synRetries = 0
  if (tcb.wantsRoom && tcb.sendQueue.room >= Math.min(tcb.sendQueue.limit / 2, 1 << 16)) {
    tcb.wantsRoom = false
    tcb.stack.notify(tcb, 'writable')
  }
}

const acknowledgeData = (tcb: Tcb, segment: TcpSegment, sacked: number, now: Millis): void => {
  const { ack } = segment
  const acked = distance(ack, tcb.sndUna)
  // The window limits us, not what we have to send (RFC 7661).
  const limited = tcb.inFlight.pipe + 2 * tcb.mss >= tcb.congestion.cwnd / 2
  acknowledge(tcb, ack, now)
  tcb.duplicateAcks = 0
  tcb.tailProbed = false
  undoIfSpurious(tcb, segment)
  if (tcb.recoverAt >= 0 && afterOrAt(ack, tcb.recoverAt)) leaveRecovery(tcb)
  if (tcb.recoverAt < 0) {
    if (limited) tcb.congestion.onAck(acked, tcb.mss, tcb.rtt.srtt, now)
    findLoss(tcb, now)
  } else {
    findLoss(tcb, now)
    // RFC 6582 §3.2: without SACK a partial ACK names the next hole.
    if (!tcb.sackPermitted && tcb.inFlight.first !== undefined)
      tcb.inFlight.markLost(tcb.inFlight.first)
    reduceProportionally(tcb, acked + sacked)
  }
  armRetransmit(tcb, now)
}

/** Eifel (RFC 3522): an echo older than the retransmission is the original's. */
const undoIfSpurious = (tcb: Tcb, segment: TcpSegment): void => {
  const { undo } = tcb
  if (undo === undefined) return
  tcb.undo = undefined
  if (!tcb.timestamps || !segment.hasTimestamps || !before(segment.timestampEcho, undo.timestamp))
    return
  tcb.congestion.cwnd = undo.cwnd
  tcb.congestion.ssthresh = undo.ssthresh
}

const receiveDuplicateAck = (
  tcb: Tcb,
  segment: TcpSegment,
  window: number,
  sacked: number,
  now: Millis,
): void => {
  if (tcb.inFlight.isEmpty) return
  const isDuplicate = segment.dataLength === 0 && window === tcb.sndWnd && !segment.has(TcpFlag.Fin)
  if (sacked > 0) {
    findLoss(tcb, now)
    if (tcb.recoverAt >= 0) reduceProportionally(tcb, sacked)
    return
  }
  if (!isDuplicate || tcb.sackPermitted) return
  // RFC 5681 §3.2.
  tcb.duplicateAcks++
  if (tcb.duplicateAcks === DUPLICATE_THRESHOLD && tcb.recoverAt < 0) {
    enterRecovery(tcb)
    tcb.inFlight.markLost(tcb.inFlight.first!)
  } else if (tcb.recoverAt >= 0) tcb.congestion.cwnd += tcb.mss
}

/** RACK, on every ACK and when its timer says so. */
export const findLoss = (tcb: Tcb, now: Millis): void => {
  if (!tcb.sackPermitted) return
  const before = tcb.inFlight.lostCount
  const { srtt, minRtt } = tcb.rtt
  const next = tcb.inFlight.detectLoss(srtt, minRtt === Infinity ? 0 : minRtt, now)
  if (next < Infinity) tcb.timers.set(Timer.Reorder, next)
  else tcb.timers.clear(Timer.Reorder)
  if (tcb.inFlight.lostCount > before && tcb.recoverAt < 0) enterRecovery(tcb)
}

const enterRecovery = (tcb: Tcb): void => {
  const flight = tcb.flightOctets
  tcb.recoverAt = tcb.sndNxt
  tcb.recoverFlight = Math.max(flight, 1)
  tcb.prrDelivered = 0
  tcb.prrOut = 0
  tcb.congestion.onLoss(flight, tcb.mss)
}

const leaveRecovery = (tcb: Tcb): void => {
  tcb.recoverAt = -1
  tcb.congestion.cwnd = Math.max(tcb.congestion.ssthresh, tcb.mss)
}

/** Proportional rate reduction (RFC 6937 §3.1), with slow start as its reduction bound. */
const reduceProportionally = (tcb: Tcb, delivered: number): void => {
  if (tcb.recoverAt < 0 || !tcb.sackPermitted) return
  const { ssthresh } = tcb.congestion
  const { pipe } = tcb.inFlight
  tcb.prrDelivered += delivered
  const allowed =
    pipe > ssthresh
      ? Math.ceil((tcb.prrDelivered * ssthresh) / tcb.recoverFlight) - tcb.prrOut
      : Math.min(ssthresh - pipe, Math.max(tcb.prrDelivered - tcb.prrOut, delivered) + tcb.mss)
  tcb.congestion.cwnd = pipe + Math.max(0, allowed)
}

/** The newest segment tells the window (§3.10.7.4). */
const updateWindow = (tcb: Tcb, segment: TcpSegment, window: number): void => {
  const newer =
    before(tcb.sndWl1, segment.seq) ||
    (tcb.sndWl1 === segment.seq && beforeOrAt(tcb.sndWl2, segment.ack)) ||
    tcb.maxSndWnd === 0
  if (!newer) return
  tcb.sndWnd = window
  tcb.sndWl1 = segment.seq
  tcb.sndWl2 = segment.ack
  tcb.maxSndWnd = Math.max(tcb.maxSndWnd, window)
}

const advanceClosing = (tcb: Tcb, now: Millis): boolean => {
  const finAcked = tcb.finSent && tcb.sndUna === tcb.sndNxt
  switch (tcb.state) {
    case 'FIN-WAIT-1':
      if (finAcked) {
        tcb.state = 'FIN-WAIT-2'
        if (tcb.abandoned) tcb.timers.set(Timer.Wait, now + tcb.stack.config.finWait)
      }
      return true
    case 'CLOSING':
      if (finAcked) enterTimeWait(tcb, now)
      return false
    case 'LAST-ACK':
      if (finAcked) {
        tcb.stack.closed(tcb, undefined)
        tcb.stack.remove(tcb)
      }
      return false
    case 'TIME-WAIT':
      tcb.timers.set(Timer.Wait, now + tcb.stack.config.timeWait)
      return true
    default:
      return true
  }
}

const enterTimeWait = (tcb: Tcb, now: Millis): void => {
  tcb.state = 'TIME-WAIT'
  tcb.timers.clearAll()
  tcb.timers.set(Timer.Wait, now + tcb.stack.config.timeWait)
  tcb.inFlight.clear()
  tcb.sendQueue.clear()
  tcb.stack.closed(tcb, undefined)
}

// --- seventh: data ---

const receiveData = (tcb: Tcb, segment: TcpSegment, bytes: Uint8Array, now: Millis): void => {
  const length = segment.dataLength
  if (length === 0) return
  if (tcb.state !== 'ESTABLISHED' && tcb.state !== 'FIN-WAIT-1' && tcb.state !== 'FIN-WAIT-2')
    return
  const end = (segment.seq + length) >>> 0
  if (tcb.abandoned) {
    // RFC 1122 §4.2.2.13: nobody will read it, and the peer is told.
    tcb.stack.reset(tcb, tcb.sndNxt, undefined)
    return tcb.stack.closed(tcb, 'ECONNRESET')
  }
  noteDuplicate(tcb, segment)
  if (beforeOrAt(end, tcb.rcvNxt) || tcb.reassembly.holds(segment.seq, end)) return sendAck(tcb)
  const excess = Math.max(0, distance(end, later(tcb.rcvAdvertised, tcb.rcvNxt)))
  const hadGap = tcb.reassembly.hasGap
  const previous = tcb.rcvNxt
  const data = bytes.subarray(segment.dataFrom, segment.dataTo - excess)
  tcb.rcvNxt = tcb.reassembly.add(segment.seq, data, tcb.rcvNxt)
  const delivered = distance(tcb.rcvNxt, previous)
  tcb.octetsReceived += delivered
  if (delivered > 0) tcb.stack.notify(tcb, 'readable')
  acknowledgeSoon(tcb, delivered === 0 || hadGap || tcb.hasDuplicate, delivered, now)
}

/** RFC 5681 §4.2, RFC 9293 §3.8.6.3: at least each second full segment, at once about gaps. */
const acknowledgeSoon = (tcb: Tcb, urgent: boolean, delivered: number, now: Millis): void => {
  tcb.unackedSegments += Math.ceil(delivered / Math.max(1, tcb.mss))
  if (urgent || tcb.unackedSegments >= 2 || tcb.quickAcks > 0) {
    if (tcb.quickAcks > 0) tcb.quickAcks--
    return sendAck(tcb)
  }
  if (!tcb.timers.isSet(Timer.DelayedAck)) {
    tcb.timers.set(Timer.DelayedAck, now + tcb.stack.config.delayedAck)
  }
}

// --- eighth: FIN ---

const receiveFin = (tcb: Tcb, segment: TcpSegment, now: Millis): void => {
  if (segment.has(TcpFlag.Fin)) tcb.finAt = (segment.seq + segment.dataLength) >>> 0
  if (tcb.finAt < 0 || tcb.finReceived) {
    if (segment.has(TcpFlag.Fin)) sendAck(tcb)
    return
  }
  if (tcb.rcvNxt !== tcb.finAt) return
  tcb.finReceived = true
  tcb.rcvNxt = (tcb.rcvNxt + 1) >>> 0
  sendAck(tcb)
  tcb.stack.notify(tcb, 'ended')
  switch (tcb.state) {
    case 'ESTABLISHED':
      tcb.state = 'CLOSE-WAIT'
      return
    case 'FIN-WAIT-1':
      if (tcb.sndUna === tcb.sndNxt) enterTimeWait(tcb, now)
      else tcb.state = 'CLOSING'
      return
    case 'FIN-WAIT-2':
      return enterTimeWait(tcb, now)
    default:
  }
}
