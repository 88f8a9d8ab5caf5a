/** SEGMENT ARRIVES (RFC 9293 §3.10.7), one function for each check, in the order of the RFC. */
import { copy } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import { after, afterOrAt, before, beforeOrAt, distance, earlier, later } from '../base/serial.ts'
import { TcpFlag, type TcpSegment } from '../wire/tcp.ts'
import { MAX_WINDOW_SCALE, type Tcb } from './control-block.ts'
import { Timer } from './timer.ts'

/** RFC 7323 §5.5: a timestamp this old is meaningless. */
const PAWS_EXPIRY: Millis = 24 * 24 * 3600_000
/** Ours: at a hundred gigabits a second sequence numbers take longer to wrap. */
const PAWS_SLACK: Millis = 200
/** RFC 5961 §7: challenge ACKs of one connection in a second. */
const CHALLENGES_PER_SECOND = 10
/** Ours: answers to data that came before; each carries a D-SACK, which a sender needs some of. */
const DUPLICATES_PER_SECOND = 100
/** Ours: a smaller one is not followed, it would turn each write into a storm of segments. */
const LEAST_MSS = 64

export const receiveSegment = (
  tcb: Tcb,
  segment: TcpSegment,
  bytes: Uint8Array,
  now: Millis,
): void => {
  if (tcb.state === 'SYN-SENT') return receiveInSynSent(tcb, segment, bytes, now)
  if (isCopy(tcb, segment)) return
  if (!isAcceptable(tcb, segment)) return refuseUnacceptable(tcb, segment, now)
  if (isOld(tcb, segment, now)) return challenge(tcb, now)
  if (segment.has(TcpFlag.Rst)) return receiveReset(tcb, segment, now)
  if (segment.has(TcpFlag.Syn)) return challenge(tcb, now)
  if (!segment.has(TcpFlag.Ack) || !isAckAcceptable(tcb, segment, now)) return
  noteTimestamp(tcb, segment, now)
  tcb.heardAt = now
  tcb.keepAliveProbes = 0
  if (!receiveAck(tcb, segment, now)) return
  receiveData(tcb, segment, bytes, now)
  receiveFin(tcb, segment, now)
  // The segment may have made room for something we want to send.
  tcb.stack.ready(tcb)
}

/** Our own ends send small segments twice. What is sent again because it seems lost has a later timestamp. */
const isCopy = (tcb: Tcb, segment: TcpSegment): boolean =>
  segment.timestampValue === tcb.newestStamp &&
  segment.hasTimestamps &&
  segment.dataLength > 0 &&
  (segment.seq + segment.dataLength) >>> 0 === tcb.newestEnd &&
  tcb.mayCopy

export const sendAck = (tcb: Tcb): void => {
  tcb.ackNow = true
  tcb.stack.ready(tcb)
}

// --- SYN-SENT (§3.10.7.3) ---

const receiveInSynSent = (tcb: Tcb, segment: TcpSegment, bytes: Uint8Array, now: Millis): void => {
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
  receiveSyn(tcb, segment, bytes, now)
  if (!acks) {
    // Simultaneous open: the SYN is repeated with an ACK.
    tcb.state = 'SYN-RECEIVED'
    tcb.synSent = false
    tcb.stack.ready(tcb)
    return
  }
  // The peer's owner has the connection already: unlike another one it needs no ACK to know of it.
  const isServed = tcb.firstOctets > 0 && after(segment.ack, (tcb.iss + 1) >>> 0)
  receiveHandshakeAck(tcb, segment, segment.window, now)
  receiveFin(tcb, segment, now)
  tcb.isUntold = isServed && tcb.reassembly.readable > 0
  sendAck(tcb)
}

/** Our SYN is acknowledged. */
const receiveHandshakeAck = (tcb: Tcb, segment: TcpSegment, window: number, now: Millis): void => {
  const advanced = distance(segment.ack, tcb.sndUna)
  beginAck(tcb, segment, now)
  acknowledge(tcb, segment.ack)
  if (before(segment.ack, (tcb.iss + 1 + tcb.firstOctets) >>> 0) && tcb.flightOctets > 0)
    takeBack(tcb)
  tcb.recovery.finishAck(advanced, false)
  updateWindow(tcb, segment, window)
  establish(tcb, now)
}

/** The peer's SYN, which says where its numbers begin, and may bring data, which waits for the handshake. */
export const receiveSyn = (tcb: Tcb, segment: TcpSegment, bytes: Uint8Array, now: Millis): void => {
  takeSynOptions(tcb, segment, now)
  tcb.irs = segment.seq
  tcb.rcvNxt = (segment.seq + 1) >>> 0
  // A SYN tells a window before there is a number to count it from.
  const window = Math.min(tcb.receiveWindow, 0xffff)
  tcb.rcvAdvertised = (tcb.rcvNxt + window) >>> 0
  tcb.heardAt = now
  const octets = Math.min(segment.dataLength, window)
  if (octets === 0 || tcb.abandoned) return
  tcb.synText = copy(bytes.subarray(segment.dataFrom, segment.dataFrom + octets))
}

/** Until then a SYN alone is acknowledged, as RFC 9293 §3.10.7.2 and §3.10.7.3 have it. */
const takeSynText = (tcb: Tcb, now: Millis): void => {
  const { synText } = tcb
  if (synText === undefined) return
  tcb.synText = undefined
  tcb.rcvNxt = tcb.reassembly.add(tcb.rcvNxt, synText, tcb.rcvNxt)
  tcb.octetsReceived += synText.length
  tcb.largestReceived = synText.length
  acknowledgeSoon(tcb, false, synText.length, now)
}

/** Options of the peer's SYN, when the state is SYN-SENT or at a passive open. */
const takeSynOptions = (tcb: Tcb, segment: TcpSegment, now: Millis): void => {
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
  tcb.beginSending(now)
}

const establish = (tcb: Tcb, now: Millis): void => {
  tcb.state = tcb.finSent ? 'FIN-WAIT-1' : 'ESTABLISHED'
  tcb.retries = 0
  armKeepAlive(tcb, now)
  takeSynText(tcb, now)
  if (tcb.isEarly) tcb.stack.confirmed(tcb)
  else tellOwner(tcb)
}

const tellOwner = (tcb: Tcb): void => {
  tcb.stack.notify(tcb, 'connected')
  if (tcb.reassembly.readable > 0) tcb.stack.notify(tcb, 'readable')
}

/** Its owner gets the connection with the octets of the SYN, and may answer before the handshake is done (RFC 7413 §2). */
export const openEarly = (tcb: Tcb, segment: TcpSegment, now: Millis): void => {
  tcb.isEarly = true
  takeSynText(tcb, now)
  updateWindow(tcb, segment, segment.window)
  tellOwner(tcb)
  tcb.isUntold = !tcb.reported
}

/** The peer has acknowledged something, or the limit is new (RFC 5482 §2). */
export const restartUserTimeout = (tcb: Tcb, now: Millis): void => {
  if (tcb.userTimeout > 0 && tcb.awaitsAck) tcb.timers.set(Timer.User, now + tcb.userTimeout)
  else tcb.timers.clear(Timer.User)
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
  if (isAnswerToOurSyn(tcb, segment)) {
    // Simultaneous open: the peer's SYN, once more, acknowledges ours (§3.5, figure 7).
    receiveAck(tcb, segment, now)
    return sendAck(tcb)
  }
  if (
    segment.has(TcpFlag.Ack) &&
    tcb.isSynchronized &&
    segment.seq === tcb.rcvNxt &&
    isAckAcceptable(tcb, segment, now)
  ) {
    // With our window shut, ACKs and window updates are still good (§3.10.7.4).
    receiveAck(tcb, segment, now)
  }
  noteDuplicate(tcb, segment)
  challenge(tcb, now, segment.dataLength > 0 ? DUPLICATES_PER_SECOND : CHALLENGES_PER_SECOND)
}

const isAnswerToOurSyn = (tcb: Tcb, segment: TcpSegment): boolean =>
  tcb.state === 'SYN-RECEIVED' &&
  segment.has(TcpFlag.Syn) &&
  segment.has(TcpFlag.Ack) &&
  segment.seq === tcb.irs &&
  after(segment.ack, tcb.iss) &&
  !after(segment.ack, tcb.sndNxt)

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

/**
 * PAWS (RFC 7323 §5.3). DEVIATION RFC 7323 §3.2: a segment that lacks the option is taken by its sequence number, as Linux
 * does; ESP lets no old one through.
 */
const isOld = (tcb: Tcb, segment: TcpSegment, now: Millis): boolean =>
  tcb.timestamps &&
  segment.hasTimestamps &&
  !segment.has(TcpFlag.Rst) &&
  before(segment.timestampValue, tcb.tsRecent) &&
  now - tcb.tsRecentAt < PAWS_EXPIRY &&
  !isLate(tcb, segment)

/**
 * DEVIATION RFC 7323 §5.3 (R1): what was sent again to fill a gap arrives before what was sent a little earlier, where the
 * path reorders. To drop that makes the next gap, which is filled the same way, and so on. Sequence numbers do not wrap in
 * so short a time.
 */
const isLate = (tcb: Tcb, segment: TcpSegment): boolean =>
  tcb.reassembly.hasGap && segment.dataLength > 0 && isLittleOlder(tcb, segment)

const isLittleOlder = (tcb: Tcb, { timestampValue }: TcpSegment): boolean =>
  before(timestampValue, tcb.tsRecent) && distance(tcb.tsRecent, timestampValue) <= PAWS_SLACK

/** RFC 7323 §4.3: only a segment that covers what we acknowledged last. */
const noteTimestamp = (tcb: Tcb, segment: TcpSegment, now: Millis): void => {
  if (!tcb.timestamps || !segment.hasTimestamps || after(segment.seq, tcb.lastAckSent)) return
  if (isLittleOlder(tcb, segment)) return
  tcb.tsRecent = segment.timestampValue
  tcb.tsRecentAt = now
}

// --- second: RST (RFC 5961 §3.2) ---

const receiveReset = (tcb: Tcb, segment: TcpSegment, now: Millis): void => {
  if (segment.seq !== tcb.rcvNxt) return challenge(tcb, now)
  switch (tcb.state) {
    case 'SYN-RECEIVED':
      // Who acknowledges our SYN has the connection, and resets it.
      if (segment.has(TcpFlag.Ack) && after(segment.ack, tcb.sndUna)) tcb.stack.confirmed(tcb)
      return tcb.stack.closed(tcb, tcb.isEarly ? 'ECONNRESET' : 'ECONNREFUSED')
    case 'CLOSING':
    case 'LAST-ACK':
      tcb.stack.closed(tcb, undefined)
      return tcb.stack.remove(tcb)
    default:
      return tcb.stack.closed(tcb, 'ECONNRESET')
  }
}

const challenge = (tcb: Tcb, now: Millis, most = CHALLENGES_PER_SECOND): void => {
  if (now - tcb.challengeAt >= 1000) {
    tcb.challengeAt = now
    tcb.challenges = 0
  }
  if (tcb.challenges++ < most) sendAck(tcb)
}

// --- fifth: ACK (the fourth, a SYN, is challenged: RFC 5961 §4.2) ---

const isAckAcceptable = (tcb: Tcb, { ack }: TcpSegment, now: Millis): boolean => {
  if (tcb.state === 'SYN-RECEIVED') {
    if (after(ack, tcb.sndUna) && !after(ack, tcb.sndNxt)) return true
    tcb.stack.reset(tcb, ack, undefined)
    return false
  }
  // RFC 5961 §5.2.
  if (!after(ack, tcb.sndNxt) && !before(ack, (tcb.sndUna - tcb.maxSndWnd) >>> 0)) return true
  challenge(tcb, now)
  return false
}

/** False when the segment needs no further processing. */
const receiveAck = (tcb: Tcb, segment: TcpSegment, now: Millis): boolean => {
  const { ack } = segment
  const { recovery } = tcb
  const window = segment.window << tcb.sndWndShift
  if (tcb.state === 'SYN-RECEIVED') {
    receiveHandshakeAck(tcb, segment, window, now)
    if (tcb.resetsWhenOpen) {
      tcb.stack.reset(tcb, tcb.sndNxt, undefined)
      tcb.stack.closed(tcb, undefined)
      return false
    }
    restartUserTimeout(tcb, now)
    return advanceClosing(tcb, now)
  }
  if (afterOrAt(ack, tcb.sndUna)) {
    const advanced = distance(ack, tcb.sndUna)
    beginAck(tcb, segment, now)
    reportSacks(tcb, segment)
    const isDuplicate =
      advanced === 0 &&
      segment.dataLength === 0 &&
      !segment.has(TcpFlag.Fin) &&
      window === tcb.sndWnd &&
      !recovery.sent.isEmpty
    if (advanced > 0) acknowledge(tcb, ack)
    updateWindow(tcb, segment, window)
    recovery.finishAck(advanced, isDuplicate)
    if (advanced > 0) restartUserTimeout(tcb, now)
  } else if (segment.sackCount > 0) {
    // Others have overtaken it, but what arrived out of order, or twice, it may be the only one to tell.
    beginAck(tcb, segment, now)
    reportSacks(tcb, segment)
    recovery.finishAck(0, false)
  }
  // A probe is answered: the peer lives, its window is shut, perhaps after more was sent (§3.8.6).
  if (tcb.timers.isSet(Timer.Persist) || tcb.sndWnd === 0) tcb.retries = 0
  if (tcb.sndWnd > 0 && tcb.timers.isSet(Timer.Persist)) {
    tcb.timers.clear(Timer.Persist)
    tcb.persistProbes = 0
    if (ack === tcb.sndUna) takeProbeBack(tcb)
    recovery.rearm(now)
  }
  return advanceClosing(tcb, now)
}

/** The window opens, and the octet of the last probe was not taken: it goes out once more with what follows it. */
const takeProbeBack = (tcb: Tcb): void => {
  if (tcb.sentOctets === 1 && tcb.flightOctets === 1) takeBack(tcb)
}

/** What was sent and the peer did not take is as if it had not been. */
const takeBack = (tcb: Tcb): void => {
  tcb.octetsSent -= tcb.sentOctets
  tcb.sentOctets = 0
  tcb.sndNxt = tcb.sndUna
  tcb.smallEnd = tcb.sndUna
  tcb.finSent = false
  tcb.recovery.clear()
}

const beginAck = (tcb: Tcb, segment: TcpSegment, now: Millis): void =>
  tcb.recovery.beginAck(echoOf(tcb, segment), now)

const echoOf = (tcb: Tcb, segment: TcpSegment): number | undefined =>
  tcb.timestamps && segment.hasTimestamps && segment.timestampEcho !== 0
    ? segment.timestampEcho
    : undefined

const reportSacks = (tcb: Tcb, segment: TcpSegment): void => {
  if (!tcb.sackPermitted) return
  for (let i = 0; i < segment.sackCount; i++) {
    const start = segment.sackStart[i]!
    const end = segment.sackEnd[i]!
    if (!after(end, start) || after(end, tcb.sndNxt)) continue
    if (i === 0 && isDuplicateBlock(segment, start, end)) tcb.recovery.reportDuplicate(start, end)
    else if (after(start, segment.ack)) tcb.recovery.reportSacked(start, end)
  }
}

/** RFC 2883 §4: the first block lies below the acknowledgement, or within the second. */
const isDuplicateBlock = (segment: TcpSegment, start: number, end: number): boolean =>
  beforeOrAt(end, segment.ack) ||
  (segment.sackCount > 1 &&
    afterOrAt(start, segment.sackStart[1]!) &&
    beforeOrAt(end, segment.sackEnd[1]!))

/** New data is acknowledged: sequence space and queue. */
const acknowledge = (tcb: Tcb, ack: number): void => {
  const acked = distance(ack, tcb.sndUna)
  const synAcked = tcb.sndUna === tcb.iss ? 1 : 0
  const octets = Math.min(acked - synAcked, tcb.sentOctets)
  tcb.recovery.reportAcknowledged(ack)
  tcb.sendQueue.drop(octets)
  tcb.sentOctets -= octets
  tcb.sndUna = ack
  tcb.retries = 0
  tcb.timeoutsInVain = 0
  tcb.synRetries = 0
  tcb.offerRoom()
  tcb.noteAcknowledged()
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
        if (tcb.abandoned) tcb.timers.set(Timer.Wait, now + tcb.config.finWait)
      }
      return true
    case 'CLOSING':
      if (finAcked) enterTimeWait(tcb, now)
      // What was lost of ours may go out again.
      else tcb.stack.ready(tcb)
      return false
    case 'LAST-ACK':
      if (finAcked) {
        tcb.stack.closed(tcb, undefined)
        tcb.stack.remove(tcb)
      } else tcb.stack.ready(tcb)
      return false
    default:
      return true
  }
}

const enterTimeWait = (tcb: Tcb, now: Millis): void => {
  tcb.state = 'TIME-WAIT'
  tcb.timers.set(Timer.Wait, now + tcb.config.timeWait)
  tcb.stack.closed(tcb, undefined)
}

// --- seventh: data ---

const receiveData = (tcb: Tcb, segment: TcpSegment, bytes: Uint8Array, now: Millis): void => {
  const length = segment.dataLength
  if (length === 0) return
  if (tcb.state !== 'ESTABLISHED' && tcb.state !== 'FIN-WAIT-1' && tcb.state !== 'FIN-WAIT-2')
    return
  const end = (segment.seq + length) >>> 0
  tcb.largestReceived = Math.max(tcb.largestReceived, length)
  if (tcb.abandoned) {
    // RFC 1122 §4.2.2.13: nobody will read the data, so the peer gets RST.
    tcb.stack.reset(tcb, tcb.sndNxt, undefined)
    return tcb.stack.closed(tcb, 'ECONNRESET')
  }
  noteDuplicate(tcb, segment)
  if (beforeOrAt(end, tcb.rcvNxt) || tcb.reassembly.holds(segment.seq, end)) return sendAck(tcb)
  if (!tcb.mayKeep(length, beforeOrAt(segment.seq, tcb.rcvNxt))) {
    tcb.stack.notePassedOver()
    return sendAck(tcb)
  }
  tcb.newestEnd = end
  tcb.newestStamp = segment.timestampValue
  const excess = Math.max(0, distance(end, later(tcb.rcvAdvertised, tcb.rcvNxt)))
  const hadGap = tcb.reassembly.hasGap
  const previous = tcb.rcvNxt
  const data = bytes.subarray(segment.dataFrom, segment.dataTo - excess)
  tcb.rcvNxt = tcb.reassembly.add(segment.seq, data, tcb.rcvNxt)
  const delivered = distance(tcb.rcvNxt, previous)
  tcb.octetsReceived += delivered
  tcb.tuneWindow(echoOf(tcb, segment), now)
  if (delivered > 0) tcb.stack.notify(tcb, 'readable')
  acknowledgeSoon(tcb, delivered === 0 || hadGap || tcb.hasDuplicate, delivered, now)
}

/** RFC 5681 §4.2, RFC 9293 §3.8.6.3: at least each second full segment, at once about gaps. */
const acknowledgeSoon = (tcb: Tcb, urgent: boolean, delivered: number, now: Millis): void => {
  tcb.unackedSegments += Math.ceil(delivered / Math.max(1, tcb.largestReceived))
  if (urgent || tcb.unackedSegments >= 2 || tcb.quickAcks > 0) {
    if (tcb.quickAcks > 0) tcb.quickAcks--
    return sendAck(tcb)
  }
  delayAck(tcb, now)
}

const delayAck = (tcb: Tcb, now: Millis): void => {
  if (!tcb.timers.isSet(Timer.DelayedAck)) tcb.timers.set(Timer.DelayedAck, now + tcb.ackDelay)
}

// --- eighth: FIN ---

const receiveFin = (tcb: Tcb, segment: TcpSegment, now: Millis): void => {
  if (segment.has(TcpFlag.Fin)) tcb.finAt = (segment.seq + segment.length - 1) >>> 0
  if (tcb.finAt < 0 || tcb.finReceived) {
    if (segment.has(TcpFlag.Fin)) sendAck(tcb)
    return
  }
  if (tcb.rcvNxt !== tcb.finAt) {
    // Ahead of a gap: the peer is told what is missing (RFC 5681 §4.2).
    if (segment.has(TcpFlag.Fin)) sendAck(tcb)
    return
  }
  tcb.finReceived = true
  tcb.rcvNxt = (tcb.rcvNxt + 1) >>> 0
  // Who ends in answer, as most do, acknowledges by the FIN of its own. The peer counts on our delay.
  if (tcb.state === 'ESTABLISHED' && tcb.peerAckDelay < Infinity) delayAck(tcb, now)
  else sendAck(tcb)
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
