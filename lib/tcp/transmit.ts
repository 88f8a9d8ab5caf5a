/** What to send next, and the segment itself (RFC 9293 §3.8, RFC 1122 §4.2.3.4, RFC 6937). */
import { putU16, putU32 } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import type { Packet } from '../base/packet.ts'
import { after, before, distance } from '../base/serial.ts'
import {
  TCP_HEADER_LENGTH,
  TcpFlag,
  TcpOption,
  TIMESTAMPS_LENGTH,
  TOKEN_EXPERIMENT,
  TOKEN_OPTION,
} from '../wire/tcp.ts'
import { timestampAt, type Flow, type Tcb } from './control-block.ts'
import { MAX_BLOCKS } from './reassembly.ts'
import { NONE } from './sent-segments.ts'
import type { Waiting } from './time-wait.ts'
import { Timer } from './timer.ts'

const blockStarts = new Uint32Array(MAX_BLOCKS + 1)
const blockEnds = new Uint32Array(MAX_BLOCKS + 1)

/** Builds the next segment of a connection in `packet`; false when there is none to send now. */
export const transmitNext = (tcb: Tcb, packet: Packet, now: Millis): boolean => {
  if (tcb.isUntold) return false
  switch (tcb.state) {
    case 'CLOSED':
      return false
    case 'SYN-SENT':
      return transmitSyn(tcb, packet, now)
    case 'SYN-RECEIVED':
      return (
        transmitSyn(tcb, packet, now) ||
        transmitCopy(tcb, packet, now) ||
        (tcb.isEarly && transmitNew(tcb, packet, now)) ||
        transmitAck(tcb, packet, now)
      )
    default:
      if (tcb.isResting && !tcb.hasMore)
        return transmitKeepAlive(tcb, packet, now) || transmitAck(tcb, packet, now)
      return (
        transmitCopy(tcb, packet, now) ||
        transmitLost(tcb, packet, now) ||
        transmitNew(tcb, packet, now) ||
        transmitProbe(tcb, packet, now) ||
        transmitKeepAlive(tcb, packet, now) ||
        transmitAck(tcb, packet, now)
      )
  }
}

/** Ours: by so much of itself the wait after a SYN that was repeated may be longer. */
const SYN_SPREAD = 1 / 8

const transmitSyn = (tcb: Tcb, packet: Packet, now: Millis): boolean => {
  if (tcb.synSent) return false
  const { recovery } = tcb
  tcb.synSent = true
  let flags: number = tcb.state === 'SYN-SENT' ? TcpFlag.Syn : TcpFlag.Syn | TcpFlag.Ack
  let octets = 0
  if (tcb.sndNxt === tcb.iss) {
    tcb.sndNxt = (tcb.iss + 1) >>> 0
    recovery.sentNew(tcb.iss, tcb.sndNxt, false, now)
    // An owner that has the connection may have answered already (RFC 7413 §4.2.2).
    if (tcb.isEarly) tcb.firstOctets = Math.min(tcb.unsent, tcb.sndWnd, synRoom(tcb))
    // RFC 7413 §4.2.2: repeated, it has none, since it may have been too large for the path.
    octets = Math.min(tcb.firstOctets, synRoom(tcb))
    if (octets > 0) flags |= sendWithSyn(tcb, octets, now)
  } else recovery.sentAgain(recovery.sent.first, now)
  // Connections that were opened together, and for which there was no room, must not go on coming together.
  if (tcb.state === 'SYN-SENT' && tcb.synRetries > 0) {
    const wait = tcb.timers.deadline(Timer.Retransmit) - now
    const spread = (SYN_SPREAD * (tcb.iss & 0xff)) / 0xff
    tcb.timers.set(Timer.Retransmit, now + wait * (1 + spread))
  }
  writeSegment(tcb, packet, tcb.iss, flags, 0, octets, now)
  return true
}

/** Octets that a SYN with all its options has room for: how much the peer takes at once only its own SYN tells. */
export const synRoom = (tcb: Tcb): number => {
  const limit = tcb.state === 'SYN-SENT' ? tcb.pathLimit : tcb.peerLimit
  return Math.max(0, Math.min(tcb.stack.segmentLimit, limit) - TCP_HEADER_LENGTH - SYN_OPTIONS)
}

/** Returns the flags that go with them: the answer of an owner that has ended has its FIN. */
const sendWithSyn = (tcb: Tcb, octets: number, now: Millis): number => {
  const seq = tcb.sndNxt
  const isAll = octets === tcb.unsent
  const finishes = tcb.isEarly && tcb.finQueued && isAll
  tcb.sndNxt = (seq + octets + (finishes ? 1 : 0)) >>> 0
  tcb.sentOctets = octets
  tcb.octetsSent += octets
  if (isAll) tcb.smallEnd = tcb.sndNxt
  if (finishes) sendFin(tcb)
  tcb.recovery.sentNew(seq, tcb.sndNxt, false, now)
  return finishes ? TcpFlag.Fin : 0
}

const transmitLost = (tcb: Tcb, packet: Packet, now: Millis): boolean => {
  const { sent } = tcb.recovery
  const slot = sent.firstLost
  if (slot === NONE) return false
  if (tcb.sndWnd === 0 && tcb.timers.isSet(Timer.Persist)) return false
  if (!tcb.recovery.maySend(Math.min(sent.octets(slot), tcb.mss), now)) return false
  resend(tcb, slot, packet, now)
  return true
}

/** Data octets of a record; its FIN, if it has one, is none. */
const dataOctets = (tcb: Tcb, slot: number): number =>
  tcb.recovery.sent.octets(slot) - (hasFin(tcb, slot) ? 1 : 0)

const hasFin = (tcb: Tcb, slot: number): boolean =>
  tcb.finSent && tcb.recovery.sent.end(slot) === (finSeq(tcb) + 1) >>> 0

/** Ours: a segment retransmitted this often, while others arrived, may be too large (RFC 8899 §4.3). */
const VAIN_REPEATS = 4

const resend = (tcb: Tcb, wanted: number, packet: Packet, now: Millis): void => {
  const { sent } = tcb.recovery
  let slot = wanted
  if (sent.seq(slot) === tcb.repeatedSeq && tcb.repeats >= VAIN_REPEATS)
    tcb.noteVain(tcb.repeats, now)
  if (dataOctets(tcb, slot) > tcb.mss) {
    // The path takes less than when this was sent (RFC 8201 §5.4).
    const isLost = sent.isLost(slot)
    const isFirst = slot === sent.first
    sent.split(tcb.mss, tcb.finSent)
    slot = isLost ? sent.firstLost : isFirst ? sent.first : sent.last
  }
  const seq = sent.seq(slot)
  tcb.repeats = seq === tcb.repeatedSeq ? tcb.repeats + 1 : 1
  tcb.repeatedSeq = seq
  const octets = dataOctets(tcb, slot)
  const fin = hasFin(tcb, slot) ? TcpFlag.Fin : 0
  tcb.recovery.sentAgain(slot, now)
  const flags = TcpFlag.Ack | fin | (octets > 0 ? TcpFlag.Psh : 0)
  writeSegment(tcb, packet, seq, flags, distance(seq, queueStart(tcb)), octets, now)
}

/** Sequence number of the first octet in the queue. */
const queueStart = (tcb: Tcb): number => (tcb.sndUna === tcb.iss ? (tcb.iss + 1) >>> 0 : tcb.sndUna)

const finSeq = (tcb: Tcb): number => (queueStart(tcb) + tcb.sendQueue.length) >>> 0

const transmitNew = (tcb: Tcb, packet: Packet, now: Millis): boolean => {
  if (tcb.finSent || tcb.state === 'TIME-WAIT') return false
  if (now >= tcb.pathLimitUntil) {
    tcb.pathLimit = Infinity
    tcb.pathLimitUntil = Infinity
  }
  const { mss, unsent } = tcb
  const mayFin = tcb.finQueued
  if (unsent === 0 && !mayFin) {
    tcb.recovery.noteAppLimited()
    return false
  }
  const room = tcb.sndWnd - tcb.flightOctets
  const tried = triedOctets(tcb, Math.min(unsent, room), now)
  const octets = tried > 0 ? tried : Math.min(unsent, mss, Math.max(0, room))
  const finishes = mayFin && octets === unsent
  if (octets === 0 && !finishes) {
    armPersist(tcb, now)
    return false
  }
  const { recovery } = tcb
  recovery.noteIdleTime(now)
  const isProbe = recovery.wantsProbe
  if (octets < mss && !finishes && !isProbe && mustWait(tcb, octets, unsent, now)) return false
  if (recovery.sent.isFull || !recovery.maySend(octets, now)) return false
  const seq = tcb.sndNxt
  const offset = tcb.sentOctets
  tcb.sentOctets += octets
  tcb.octetsSent += octets
  tcb.sndNxt = (seq + octets + (finishes ? 1 : 0)) >>> 0
  if (finishes) sendFin(tcb)
  if (octets > 0 && octets < mss) tcb.smallEnd = tcb.sndNxt
  if (tried > 0) noteTrial(tcb, tried, now)
  recovery.sentNew(seq, tcb.sndNxt, tried > 0, now)
  const push = octets > 0 && octets === unsent ? TcpFlag.Psh : 0
  const fin = finishes ? TcpFlag.Fin : 0
  const flags = TcpFlag.Ack | push | fin
  if (tcb.mayCopy) {
    const { copies } = tcb.stack
    copies.noteSent(octets)
    if (push > 0 && octets < mss && copies.take(octets, now))
      tcb.copy = { seq, octets, flags, stamp: tcb.timestamp(now) }
  }
  writeSegment(tcb, packet, seq, flags, offset, octets, now)
  return true
}

/** The last segment once more, as long as it is the same by its timestamp. It is none that recovery knows of. */
const transmitCopy = (tcb: Tcb, packet: Packet, now: Millis): boolean => {
  const { copy } = tcb
  if (copy === undefined) return false
  tcb.copy = undefined
  if (copy.stamp !== tcb.timestamp(now) || before(copy.seq, queueStart(tcb))) return false
  writeSegment(
    tcb,
    packet,
    copy.seq,
    copy.flags,
    distance(copy.seq, queueStart(tcb)),
    copy.octets,
    now,
  )
  return true
}

/**
 * Data octets of a segment that tries a larger size; 0: none is due. New data follows it, so that its loss shows soon
 * (RFC 4821 §7.4), and while others are repaired nothing is tried.
 */
const triedOctets = (tcb: Tcb, available: number, now: Millis): number => {
  const { prober } = tcb.stack
  if (prober === undefined || available <= tcb.mss || !tcb.sackPermitted) return 0
  const size = prober.candidate(tcb.peerLimit, now)
  const octets = size - tcb.headerOctets
  if (octets <= tcb.mss || octets >= available || !tcb.recovery.mayTry(octets)) return 0
  return octets
}

const noteTrial = (tcb: Tcb, octets: number, now: Millis): void => {
  tcb.probeSize = octets + tcb.headerOctets
  tcb.stack.prober?.noteSent(tcb.probeSize, now)
}

const sendFin = (tcb: Tcb): void => {
  tcb.finSent = true
  // In SYN-RECEIVED the state changes with the handshake.
  if (tcb.state === 'ESTABLISHED') tcb.state = 'FIN-WAIT-1'
  else if (tcb.state === 'CLOSE-WAIT') tcb.state = 'LAST-ACK'
}

/**
 * Nagle (RFC 1122 §4.2.3.4), where only a small segment holds a small one back (draft-minshall-nagle-01),
 * and the sender's silly window avoidance (RFC 9293 §3.8.6.2.1).
 */
const mustWait = (tcb: Tcb, octets: number, unsent: number, now: Millis): boolean => {
  if (octets === unsent) return !tcb.noDelay && after(tcb.smallEnd, tcb.sndUna)
  if (octets >= tcb.maxSndWnd / 2) return false
  // The window is what holds us back: nothing but a probe will tell when it opens.
  if (tcb.recovery.sent.isEmpty) armPersist(tcb, now)
  return true
}

const armPersist = (tcb: Tcb, now: Millis): void => {
  if (tcb.recovery.sent.isEmpty && !tcb.timers.isSet(Timer.Persist)) armPersistAgain(tcb, now)
}

/** Each probe waits longer than the one before (RFC 9293 §3.8.6.1). */
const armPersistAgain = (tcb: Tcb, now: Millis): void => {
  const wait = Math.min(tcb.recovery.rtt.rto * 2 ** tcb.persistProbes, tcb.config.maxRto)
  tcb.timers.set(Timer.Persist, now + wait)
}

/** A tail loss probe or a window probe. */
const transmitProbe = (tcb: Tcb, packet: Packet, now: Millis): boolean => {
  const { recovery } = tcb
  const { sent } = recovery
  if (recovery.wantsProbe) {
    // Sending may be put off by the window, and everything be acknowledged meanwhile.
    if (sent.isEmpty || sent.isSacked(sent.last)) recovery.wantsProbe = false
    else {
      resend(tcb, sent.last, packet, now)
      return true
    }
  }
  if (tcb.windowProbe) {
    tcb.windowProbe = false
    if (tcb.unsent > 0 && sent.isEmpty) {
      // RFC 9293 §3.8.6.1: one octet beyond the window; its ACK tells the window.
      const seq = tcb.sndNxt
      const offset = tcb.sentOctets
      tcb.sentOctets++
      tcb.octetsSent++
      tcb.sndNxt = (seq + 1) >>> 0
      armPersistAgain(tcb, now)
      recovery.sentNew(seq, tcb.sndNxt, false, now)
      writeSegment(tcb, packet, seq, TcpFlag.Ack | TcpFlag.Psh, offset, 1, now)
      return true
    }
    if (!sent.isEmpty) {
      armPersistAgain(tcb, now)
      resend(tcb, sent.first, packet, now)
      return true
    }
  }
  return false
}

const transmitKeepAlive = (tcb: Tcb, packet: Packet, now: Millis): boolean => {
  if (!tcb.keepAliveProbe) return false
  tcb.keepAliveProbe = false
  // RFC 1122 §4.2.3.6: an old sequence number, which the peer must answer.
  writeSegment(tcb, packet, (tcb.sndNxt - 1) >>> 0, TcpFlag.Ack, 0, 0, now)
  return true
}

const transmitAck = (tcb: Tcb, packet: Packet, now: Millis): boolean => {
  if (!tcb.ackNow) return false
  writeSegment(tcb, packet, tcb.sndNxt, TcpFlag.Ack, 0, 0, now)
  return true
}

/** Writes header, options and data, without the checksum; every segment acknowledges, so an ACK that was due is done. */
const writeSegment = (
  tcb: Tcb,
  packet: Packet,
  seq: number,
  flags: number,
  offset: number,
  octets: number,
  now: Millis,
): void => {
  const dataAt = packet.append(octets)
  tcb.sendQueue.copyTo(packet.bytes, dataAt, offset, octets)
  const isSyn = (flags & TcpFlag.Syn) !== 0
  const blocks = isSyn ? 0 : sackCount(tcb, octets)
  const optionsLength = isSyn ? synOptionsLength(tcb) : optionsLengthOf(tcb, blocks)
  const at = packet.prepend(TCP_HEADER_LENGTH + optionsLength)
  const { bytes } = packet
  const window = advertise(tcb, flags)
  putU16(bytes, at, tcb.localPort)
  putU16(bytes, at + 2, tcb.remotePort)
  putU32(bytes, at + 4, seq)
  putU32(bytes, at + 8, flags & TcpFlag.Ack ? tcb.rcvNxt : 0)
  bytes[at + 12] = ((TCP_HEADER_LENGTH + optionsLength) / 4) << 4
  bytes[at + 13] = flags
  putU16(bytes, at + 14, window)
  putU16(bytes, at + 16, 0)
  putU16(bytes, at + 18, 0)
  if (isSyn) writeSynOptions(tcb, bytes, at + TCP_HEADER_LENGTH, flags, now)
  else writeOptions(tcb, bytes, at + TCP_HEADER_LENGTH, blocks, now)
  tcb.ackNow = false
  tcb.unackedSegments = 0
  tcb.hasDuplicate = false
  tcb.lastAckSent = tcb.rcvNxt
  tcb.timers.clear(Timer.DelayedAck)
}

/** The window to tell, never less than what was told before (RFC 9293 §3.8.6.2.2) but where memory is short. */
const advertise = (tcb: Tcb, flags: number): number => {
  if (flags & TcpFlag.Syn) {
    const window = Math.min(tcb.receiveWindow, 0xffff)
    tcb.rcvAdvertised = (tcb.rcvNxt + window) >>> 0
    return window
  }
  const told = Math.max(0, distance(tcb.rcvAdvertised, tcb.rcvNxt))
  const shared = tcb.sharedWindow
  const free = tcb.windowBeside(shared)
  const worthTelling = free - told >= Math.min(tcb.receiveBuffer / 2, tcb.mss)
  const window = worthTelling ? free : told
  // Memory that others hold is no longer there: what was promised is still taken while it can be, so that nothing on
  // the way is lost, but no more is asked for (RFC 9293 §3.8.6 bids peers to bear it).
  const field = Math.min(Math.min(window, shared) >>> tcb.rcvWndShift, 0xffff)
  const edge = (tcb.rcvNxt + (field << tcb.rcvWndShift)) >>> 0
  if (before(tcb.rcvAdvertised, edge)) tcb.rcvAdvertised = edge
  tcb.curbedEdge = shared < window ? edge : -Infinity
  if (shared < window) tcb.stack.memory.await(tcb)
  return field
}

/** The most that they take: MSS, window scale, timestamps with SACK, and a token. */
const SYN_OPTIONS = 4 + 4 + TIMESTAMPS_LENGTH + TOKEN_OPTION

const synOptionsLength = (tcb: Tcb): number =>
  4 +
  (tcb.windowScaling ? 4 : 0) +
  (offersTimestamps(tcb) ? TIMESTAMPS_LENGTH : offersSack(tcb) ? 4 : 0) +
  (tellsToken(tcb) ? TOKEN_OPTION : 0)

/** The SYN of an attempt; its answer is known by the SYN. */
const tellsToken = (tcb: Tcb): boolean => tcb.state === 'SYN-SENT' && tcb.token !== undefined

const offersTimestamps = (tcb: Tcb): boolean => tcb.state === 'SYN-SENT' || tcb.timestamps
const offersSack = (tcb: Tcb): boolean => tcb.state === 'SYN-SENT' || tcb.sackPermitted

const writeSynOptions = (
  tcb: Tcb,
  bytes: Uint8Array,
  from: number,
  flags: number,
  now: Millis,
): void => {
  let at = from
  bytes[at] = TcpOption.MaximumSegmentSize
  bytes[at + 1] = 4
  putU16(bytes, at + 2, tcb.ownMss)
  at += 4
  if (offersTimestamps(tcb)) {
    bytes[at] = offersSack(tcb) ? TcpOption.SackPermitted : TcpOption.NoOperation
    bytes[at + 1] = offersSack(tcb) ? 2 : TcpOption.NoOperation
    bytes[at + 2] = TcpOption.Timestamps
    bytes[at + 3] = 10
    putU32(bytes, at + 4, tcb.timestamp(now))
    putU32(bytes, at + 8, flags & TcpFlag.Ack ? tcb.tsRecent : 0)
    at += TIMESTAMPS_LENGTH
  } else if (offersSack(tcb)) {
    bytes.set([TcpOption.NoOperation, TcpOption.NoOperation, TcpOption.SackPermitted, 2], at)
    at += 4
  }
  if (tcb.windowScaling) {
    bytes.set([TcpOption.NoOperation, TcpOption.WindowScale, 3, tcb.rcvWndShift], at)
    at += 4
  }
  if (tellsToken(tcb)) {
    bytes[at] = TcpOption.Experiment
    bytes[at + 1] = TOKEN_OPTION
    putU16(bytes, at + 2, TOKEN_EXPERIMENT)
    bytes.set(tcb.token!, at + 4)
  }
}

/** As many SACK blocks as fit beside the data; they stand in `blockStarts` and `blockEnds`. */
const sackCount = (tcb: Tcb, octets: number): number => {
  if (!tcb.sackPermitted || !(tcb.hasDuplicate || tcb.reassembly.hasGap)) return 0
  const room = Math.floor((tcb.mss - octets - 4) / 8)
  if (room < 1) return 0
  let count = 0
  if (tcb.hasDuplicate) {
    blockStarts[0] = tcb.duplicateStart
    blockEnds[0] = tcb.duplicateEnd
    count = 1
  }
  if (tcb.reassembly.hasGap) {
    count += tcb.reassembly.blocks(blockStarts.subarray(count), blockEnds.subarray(count))
  }
  return Math.min(count, room, tcb.timestamps ? MAX_BLOCKS : MAX_BLOCKS + 1)
}

const optionsLengthOf = (tcb: Tcb, blocks: number): number =>
  (tcb.timestamps ? TIMESTAMPS_LENGTH : 0) + (blocks === 0 ? 0 : 4 + 8 * blocks)

const writeTimestamps = (bytes: Uint8Array, at: number, value: number, echo: number): void => {
  bytes[at] = TcpOption.NoOperation
  bytes[at + 1] = TcpOption.NoOperation
  bytes[at + 2] = TcpOption.Timestamps
  bytes[at + 3] = 10
  putU32(bytes, at + 4, value)
  putU32(bytes, at + 8, echo)
}

const writeOptions = (
  tcb: Tcb,
  bytes: Uint8Array,
  from: number,
  blocks: number,
  now: Millis,
): void => {
  let at = from
  if (tcb.timestamps) {
    writeTimestamps(bytes, at, tcb.timestamp(now), tcb.tsRecent)
    at += TIMESTAMPS_LENGTH
  }
  if (blocks === 0) return
  bytes[at] = TcpOption.NoOperation
  bytes[at + 1] = TcpOption.NoOperation
  bytes[at + 2] = TcpOption.Sack
  bytes[at + 3] = 2 + 8 * blocks
  for (let i = 0; i < blocks; i++) {
    putU32(bytes, at + 4 + 8 * i, blockStarts[i]!)
    putU32(bytes, at + 8 + 8 * i, blockEnds[i]!)
  }
}

/** A header alone, without the checksum; returns where it begins. */
const writeHeader = (
  packet: Packet,
  flow: Flow,
  seq: number,
  flags: number,
  options = 0,
): number => {
  const at = packet.prepend(TCP_HEADER_LENGTH + options)
  const { bytes } = packet
  bytes.fill(0, at, at + TCP_HEADER_LENGTH + options)
  putU16(bytes, at, flow.localPort)
  putU16(bytes, at + 2, flow.remotePort)
  putU32(bytes, at + 4, seq)
  bytes[at + 12] = ((TCP_HEADER_LENGTH + options) / 4) << 4
  bytes[at + 13] = flags
  return at
}

/** A bare RST; with `ack` it acknowledges, without it takes the sequence number that was expected. */
export const writeReset = (
  packet: Packet,
  flow: Flow,
  seq: number,
  ack: number | undefined,
): void => {
  const flags = TcpFlag.Rst | (ack === undefined ? 0 : TcpFlag.Ack)
  const at = writeHeader(packet, flow, seq, flags)
  if (ack !== undefined) putU32(packet.bytes, at + 8, ack)
}

/** The ACK of a connection that is no longer there, in TIME-WAIT. */
export const writeLateAck = (packet: Packet, waiting: Waiting, now: Millis): void => {
  const { timestamps, sndNxt, rcvNxt, tsRecent, timestampOffset } = waiting
  const at = writeHeader(packet, waiting, sndNxt, TcpFlag.Ack, timestamps ? TIMESTAMPS_LENGTH : 0)
  const { bytes } = packet
  putU32(bytes, at + 8, rcvNxt)
  putU16(bytes, at + 14, 0xffff)
  if (timestamps)
    writeTimestamps(bytes, at + TCP_HEADER_LENGTH, timestampAt(now, timestampOffset), tsRecent)
}
