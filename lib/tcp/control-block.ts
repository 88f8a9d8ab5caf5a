/** The transmission control block: every variable of RFC 9293 §3.3.1 and of its extensions, in one shape. */
import type { Millis } from '../base/environment.ts'
import { ByteQueue, forgetSpares, trimSpares } from '../base/byte-queue.ts'
import { ZERO } from '../base/real.ts'
import { distance } from '../base/serial.ts'
import { TimerTable } from '../base/timers.ts'
import { OWN_ACK_DELAY, type Features } from '../wire/own-features.ts'
import { TCP_HEADER_LENGTH, TIMESTAMPS_LENGTH } from '../wire/tcp.ts'
import { FIRST_RECEIVE_BUFFER, FIRST_SEND_BUFFER, type TcpConfig } from './config.ts'
import type { Copies, Copy } from './copies.ts'
import { newController, type CongestionControl } from './congestion/choose.ts'
import type { CongestionController } from './congestion/controller.ts'
import { Reassembly } from './reassembly.ts'
import { ReceiveWindow } from './receive-window.ts'
import type { MemoryHolder, SharedMemory } from './memory.ts'
import type { Experience, SharedExperience } from './experience.ts'
import { Recovery, type Sender } from './recovery.ts'
import { Timer, TIMERS } from './timer.ts'

export { Timer }

export type TcpState =
  | 'SYN-SENT'
  | 'SYN-RECEIVED'
  | 'ESTABLISHED'
  | 'FIN-WAIT-1'
  | 'FIN-WAIT-2'
  | 'CLOSE-WAIT'
  | 'CLOSING'
  | 'LAST-ACK'
  | 'TIME-WAIT'
  | 'CLOSED'

/** A 4-tuple as this end sees it; addresses are 4 or 16 octets. */
export interface Flow {
  readonly localAddress: Uint8Array
  readonly localPort: number
  readonly remoteAddress: Uint8Array
  readonly remotePort: number
  /** Kept here for whoever routes it: what was found for it last. */
  route?: unknown
}

export type CloseReason =
  | 'ECONNREFUSED'
  | 'ECONNRESET'
  | 'ETIMEDOUT'
  | 'EPIPE'
  | 'EHOSTUNREACH'
  | 'ENETUNREACH'

/**
 * Finds out how large segments may be, for all connections of a peer. Octets with header. It sets the stack's
 * `segmentLimit` itself.
 */
export interface SizeProber {
  /** A size that is worth a try now, more than the limit and at most `most`; 0: none. */
  candidate(most: number, now: Millis): number
  noteSent(size: number, now: Millis): void
  noteAnswered(size: number, now: Millis): void
  /** `isClear`: nothing else was lost, so that the size may be the reason. */
  noteLost(size: number, isClear: boolean, now: Millis): void
  /** Whether something as large as the limit has arrived. */
  readonly isProved: boolean
  noteDelivered(): void
  /** A segment of `size` was sent in vain, `times` times in a row. True: smaller ones are tried from now on. */
  noteTimeout(size: number, times: number, now: Millis): boolean
}

/** What the stack gives its connections. */
export interface StackContext {
  /** The largest segment, header and all, that the path takes. */
  readonly segmentLimit: number
  /** The largest that this end can receive, which a path may turn out to take. */
  readonly receiveLimit: number
  readonly prober: SizeProber | undefined
  readonly peerFeatures: Features
  readonly copies: Copies
  /** What the connections of this peer hold in all. */
  readonly memory: SharedMemory
  /** What they have learnt of the path. */
  readonly experience: SharedExperience
  /** Something happened that the owner wants to know. */
  notify(tcb: Tcb, kind: 'connected' | 'readable' | 'writable' | 'ended'): void
  /** It is over for the owner; the connection may live on in TIME-WAIT. */
  closed(tcb: Tcb, reason: CloseReason | undefined): void
  /** Its owner let go of it. */
  orphaned(tcb: Tcb): void
  /** The connection and its state are gone. */
  remove(tcb: Tcb): void
  /** Its timers were set by its owner; the stack itself looks at them after every segment. */
  rearm(tcb: Tcb): void
  /** There is something to send. */
  ready(tcb: Tcb): void
  /** A segment was retransmitted more than once without an answer. */
  noteDoubt(): void
  /** The handshake of an early connection is done. */
  confirmed(tcb: Tcb): void
  /** A segment was dropped because there is no room for its data. */
  notePassedOver(): void
  /** A segment outside any window state: RST. */
  reset(flow: Flow, seq: number, ack: number | undefined): void
}

/** RFC 9293 §3.7.1: the MSS of an end that sends no MSS option; IPv6 hosts accept more. */
const DEFAULT_MSS_V4 = 536
const DEFAULT_MSS_V6 = 1220
/** RFC 6928 §2. */
const INITIAL_OCTETS = 14_600
/** RFC 7323 §2.3. */
export const MAX_WINDOW_SCALE = 14

/** Octets of the option with a single block (RFC 2018 §3), padded. */
const LEAST_SACK = 12
/** Segments that always fit: enough for a window worth advertising. */
const LEAST_SEGMENTS = 4
/** Ours: of large segments so many octets, or a single segment. */
const LEAST_OCTETS = 1 << 14

export class Tcb implements Flow, Sender, MemoryHolder {
  readonly localAddress: Uint8Array
  readonly localPort: number = 0
  readonly remoteAddress: Uint8Array
  readonly remotePort: number = 0
  readonly stack: StackContext
  /** The settings of this connection. */
  readonly config: TcpConfig
  state: TcpState
  readonly timers = new TimerTable(TIMERS)

  // Send sequence variables.
  readonly iss: number = ZERO
  sndUna = ZERO
  sndNxt = ZERO
  sndWnd = 0
  sndWl1 = ZERO
  sndWl2 = ZERO
  /** Largest window the peer has offered, for silly window avoidance. */
  maxSndWnd = 0
  sndWndShift = 0
  peerMss = 0
  /** The largest segment that the way behind the peer takes, header and all, as a router there says. */
  pathLimit = Infinity
  pathLimitUntil: Millis = Infinity
  readonly sendQueue: ByteQueue
  /** Octets of the queue that have been sent at least once. */
  sentOctets = 0
  /** The segment with its header that is under way to try its size; 0: none. */
  probeSize = 0
  /** The first octet that is not acknowledged, when it was sent again last, and how often it was. */
  repeatedSeq = ZERO
  repeats = 0
  /** Timeouts since the last that was acknowledged, or since segments became smaller. */
  timeoutsInVain = 0
  /** Octets of data that the largest segment of the peer had. */
  largestReceived = 0
  /** Where the last segment ends that was smaller than it could be. */
  smallEnd = ZERO
  /** The segment that goes out once more next. */
  copy: Copy | undefined
  finQueued = false
  finSent = false
  synSent = false
  /** Of the attempt that this is; none: octets wait for the handshake. */
  token: Uint8Array | undefined
  /** Octets of the stream that go with our SYN. */
  firstOctets = 0
  /** The peer's SYN brought octets, and the owner has the connection before the handshake is done. */
  isEarly = false
  /** The owner has not heard of what came with the peer's SYN; nothing is sent before, so that its answer goes along. */
  isUntold = false

  // Receive sequence variables.
  irs = ZERO
  rcvNxt = ZERO
  /** What the peer's SYN brought, until the handshake is done. */
  synText: Uint8Array | undefined
  /** Both ends offered the option; until the peer has spoken, we do. */
  windowScaling = true
  rcvWndShift = 0
  /** Right edge of the window that the peer knows of. */
  rcvAdvertised = ZERO
  private received: Reassembly | undefined
  /** None before data has come: the window is the first one. */
  private tuned: ReceiveWindow | undefined
  finReceived = false
  /** Sequence number of the peer's FIN while it is ahead of a gap; `-Infinity`: none. */
  finAt = -Infinity
  lastAckSent = ZERO

  /** Right edge of the window advertised last, where it is less than what was promised; `-Infinity`: it is not. */
  curbedEdge = -Infinity
  countedOctets = 0

  /** Where the newest data ends, and its timestamp: a copy has both. */
  newestEnd = ZERO
  newestStamp = -Infinity

  // Options (RFC 7323, RFC 2018).
  timestamps = false
  readonly timestampOffset: number = ZERO
  tsRecent = ZERO
  tsRecentAt: Millis = ZERO
  sackPermitted = false
  /** A duplicate to report as D-SACK (RFC 2883). */
  duplicateStart = ZERO
  duplicateEnd = ZERO
  hasDuplicate = false

  private sending: Recovery | undefined
  /** The window that it began with, or goes on with after a rest. */
  private startWindow = ZERO
  /** While it sends, what it has learnt of the path is told again then. */
  private teachAt: Millis = ZERO
  /** What is left of that in a rest. */
  private experience: Experience | undefined
  retransmissions = 0
  synRetries = 0
  retries = 0
  persistProbes = 0
  keepAliveProbes = 0

  // What the next look for something to send shall find.
  ackNow = false
  unackedSegments = 0
  quickAcks = 0
  windowProbe = false
  keepAliveProbe = false

  // The owner's wishes.
  noDelay = false
  keepAlive = false
  keepAliveDelay: Millis = 0
  keepAliveInterval: Millis = 0
  keepAliveCount = 0
  congestionControl: CongestionControl
  /** How long what was sent may stay without any acknowledgement (RFC 5482 §2); 0: as long as retries last. */
  userTimeout: Millis = 0
  wantsRoom = false
  /** The owner reads no more: further data is refused. */
  abandoned = false
  /** The owner has reset it before the peer knew that there is a connection: RST would be a refusal to it (RFC 9293 §3.10.7.3). */
  resetsWhenOpen = false
  /** The owner has been told that it is over. */
  reported = false
  /** It counts among the stack's live connections. */
  counted = true
  context: unknown = undefined
  route: unknown = undefined

  octetsSent = 0
  octetsReceived = 0
  heardAt: Millis = ZERO
  challengeAt: Millis = -Infinity
  challenges = 0

  constructor(
    stack: StackContext,
    config: TcpConfig,
    flow: Flow,
    state: TcpState,
    iss: number,
    now: Millis,
  ) {
    this.config = config
    this.stack = stack
    this.localAddress = flow.localAddress
    this.localPort = flow.localPort
    this.remoteAddress = flow.remoteAddress
    this.remotePort = flow.remotePort
    this.state = state
    this.iss = iss
    this.sndUna = iss
    this.sndNxt = iss
    this.smallEnd = iss
    this.timestampOffset = Math.imul(iss, 2654435761) >>> 0
    this.peerMss = flow.localAddress.length === 16 ? DEFAULT_MSS_V6 : DEFAULT_MSS_V4
    this.rcvWndShift = windowShift(config.receiveBuffer)
    this.sendQueue = new ByteQueue(config.sendBuffer)
    this.congestionControl = config.congestionControl
    this.quickAcks = config.quickAcks
    this.keepAliveDelay = config.keepAliveDelay
    this.keepAliveInterval = config.keepAliveInterval
    this.keepAliveCount = config.keepAliveCount
    this.userTimeout = config.userTimeout
    this.heardAt = now
  }

  /** The MSS we announce, without options (RFC 6691). */
  get ownMss(): number {
    return Math.min(this.stack.receiveLimit - TCP_HEADER_LENGTH, 65535)
  }

  /** Data octets of the largest segment to send: what the peer and the path take, less the options in use. */
  get mss(): number {
    return Math.min(this.peerLimit, this.stack.segmentLimit) - TCP_HEADER_LENGTH - this.optionOctets
  }

  private get optionOctets(): number {
    return this.timestamps ? TIMESTAMPS_LENGTH : 0
  }

  /** Header and options of a segment with data. */
  get headerOctets(): number {
    return TCP_HEADER_LENGTH + this.optionOctets
  }

  /** How long the peer's ACKs wait at most: our own ends wait less than others. */
  get peerAckDelay(): Millis {
    return this.stack.peerFeatures.has('ack-delay') ? OWN_ACK_DELAY : Infinity
  }

  /** How long ours do. */
  get ackDelay(): Millis {
    return Math.min(this.config.delayedAck, this.peerAckDelay)
  }

  /** The largest segment that the peer takes, and the way behind it, header and all. */
  get peerLimit(): number {
    return Math.min(this.peerMss + TCP_HEADER_LENGTH, this.pathLimit)
  }

  noteArrived(octets: number): void {
    const { prober } = this.stack
    if (
      prober?.isProved === false &&
      octets >= this.mss &&
      octets + this.headerOctets >= this.stack.segmentLimit
    )
      prober.noteDelivered()
  }

  /** How often the first segment in flight was sent without an answer: it may be too large. */
  noteVain(times: number, now: Millis): void {
    const { sent } = this.recovery
    if (sent.isEmpty) return
    const octets = sent.octets(sent.first)
    // SACK blocks stand beside data that is smaller than a segment may be, and may be what is too much.
    const beside = this.received?.hasGap === true ? LEAST_SACK : 0
    const size = Math.max(octets, Math.min(octets + beside, this.mss)) + this.headerOctets
    if (this.stack.prober?.noteTimeout(size, times, now) !== true) return
    this.timeoutsInVain = 0
    this.repeats = 0
    this.recovery.noteTooLarge(now)
  }

  noteLost(now: Millis): void {
    this.stack.copies.noteLost(now)
  }

  /** Our own ends recognize the copy by its timestamp and drop it silently. */
  get mayCopy(): boolean {
    return this.timestamps && this.stack.peerFeatures.has('repeat-small')
  }

  /** Of the next segment. A copy may be as large as any: where its original is, it must not be, or one loss takes both. */
  get mostOctets(): number {
    return this.copy === undefined ? this.sendQueue.length : Infinity
  }

  noteProbeAnswered(now: Millis): void {
    if (this.probeSize === 0) return
    this.stack.prober?.noteAnswered(this.probeSize, now)
    this.probeSize = 0
  }

  noteProbeLost(isClear: boolean, now: Millis): void {
    if (this.probeSize === 0) return
    this.stack.prober?.noteLost(this.probeSize, isClear, now)
    this.probeSize = 0
  }

  /** The first flight, by the segment size that both ends have agreed on (RFC 6928 §2). */
  get initialWindow(): number {
    const { mss } = this
    const octets = Math.min(this.config.initialWindow * mss, Math.max(2 * mss, INITIAL_OCTETS))
    // RFC 5681 §3.1: the SYN had to be repeated, so the path is full or lossy.
    return this.synRetries > 1 ? mss : octets
  }

  /** Of what is sent: there while it is used, and some time longer. */
  get recovery(): Recovery {
    if (this.sending === undefined) {
      this.sending = this.newRecovery()
      this.experience = undefined
    }
    return this.sending
  }

  /** The same to be looked at, which does not end a rest. */
  protected get shownRecovery(): Recovery {
    return this.sending ?? this.newRecovery()
  }

  private newRecovery(): Recovery {
    const recovery = new Recovery(this, newController(this.congestionControl))
    if (this.experience !== undefined) recovery.resume(this.experience, this.heardAt)
    // The path has changed during a rest.
    else if (this.isSynchronized) recovery.congestion.onStart(this.initialWindow)
    else {
      const others = this.stack.experience.roundTripsTo(this.remoteAddress, this.heardAt)
      if (others !== undefined) recovery.rtt.restore(others, this.heardAt)
    }
    return recovery
  }

  /** Of what comes: there while something waits. */
  get reassembly(): Reassembly {
    return (this.received ??= new Reassembly())
  }

  /** Nothing is under way in either direction: little of the memory is needed. */
  rest(): void {
    if (this.awaitsAck || this.sending === undefined) return
    this.experience = this.sending.experience
    this.teach()
    this.startWindow = this.initialWindow
    this.sending = undefined
    if (this.received?.isEmpty === true) this.received = undefined
    forgetSpares()
  }

  /** What it knows now serves those that begin. */
  teach(): void {
    const { sending, heardAt } = this
    if (sending?.rtt.isMeasured !== true || this.octetsSent === 0) return
    this.teachAt = heardAt + sending.rtt.srtt
    const isInUse = this.awaitsAck
    const { experience } = this.stack
    experience.note(this.remoteAddress, sending.experience, this.startWindow, isInUse, heardAt)
  }

  /** Something was acknowledged: once in a round trip, and when all is, others hear of the path (RFC 9040 §5). */
  noteAcknowledged(): void {
    if (this.heardAt < this.teachAt && this.awaitsAck) return
    if (this.congestion.window > this.initialWindow) this.teach()
  }

  /** The SYN of the peer has come: the first flight is what others have found the path to carry (RFC 9040 §5). */
  beginSending(now: Millis): void {
    const { congestion, initialWindow } = this
    const shared =
      this.synRetries > 1 ? undefined : this.stack.experience.takeWindow(this.remoteAddress, now)
    if (shared === undefined) congestion.onStart(initialWindow)
    else congestion.onResume(initialWindow, shared.threshold, shared.window)
    this.startWindow = congestion.window
  }

  get isResting(): boolean {
    return this.sending === undefined
  }

  /** Another path has other round trips, and another threshold. */
  forgetExperience(): void {
    this.experience = undefined
    this.tuned?.forgetRoundTrip()
  }

  /** There is something that was never sent. */
  get hasMore(): boolean {
    return this.unsent > 0 || (this.finQueued && !this.finSent)
  }

  /** Nothing more is sent. */
  stopSending(): void {
    if (!this.awaitsAck) this.teach()
    this.sending?.clear()
    this.sendQueue.clear()
    trimSpares()
  }

  get congestion(): CongestionController {
    return this.recovery.congestion
  }

  get flightOctets(): number {
    return (this.sndNxt - this.sndUna) >>> 0
  }

  /** Maximum octets in order that are kept for the reader. */
  get receiveBuffer(): number {
    const first = Math.max(FIRST_RECEIVE_BUFFER, LEAST_SEGMENTS * this.largestSegment)
    return Math.min(Math.max(first, this.tuned?.octets ?? 0), this.config.receiveBuffer)
  }

  /** Data has come, in answer to what has that timestamp; the window follows what was read (RFC 7323 §4.1). */
  tuneWindow(echo: number | undefined, now: Millis): void {
    const { readable, octets } = this.reassembly
    const taken = this.octetsReceived - readable
    if (this.tuned === undefined) {
      const { receiveBuffer, config } = this
      this.tuned = new ReceiveWindow(receiveBuffer, config.receiveBuffer, taken, now)
    }
    const rtt =
      echo === undefined ? this.measuredRtt : Math.max(0, distance(this.timestamp(now), echo))
    this.tuned.note(taken, octets - readable, rtt, now)
  }

  /** Of what we have sent ourselves. */
  private get measuredRtt(): Millis {
    return (this.sending?.rtt ?? this.experience)?.srtt || this.config.initialRto
  }

  /** The window to advertise. */
  get receiveWindow(): number {
    return this.windowBeside(this.sharedWindow)
  }

  /** `shared`: what the other connections leave. */
  windowBeside(shared: number): number {
    const room = Math.max(0, this.receiveBuffer - this.reassembly.readable)
    // What the field cannot tell is no window.
    return Math.min(room, shared, 0xffff << this.rcvWndShift)
  }

  /** What the other connections leave of it. */
  get sharedWindow(): number {
    return Math.max(
      this.stack.memory.roomFor(this),
      this.leastReceived - this.reassembly.readable,
      0,
    )
  }

  /** How much larger the window could be than the peer knows. */
  get windowGain(): number {
    const edge = this.curbedEdge < 0 ? this.rcvAdvertised : this.curbedEdge
    return this.receiveWindow - distance(edge, this.rcvNxt)
  }

  /** Whether that many received octets fit; `isNext`: in order, for a reader who may have read everything before. */
  mayKeep(octets: number, isNext: boolean): boolean {
    if (octets <= this.stack.memory.free) return true
    return isNext && this.reassembly.readable + octets <= this.leastReceived
  }

  private get largestSegment(): number {
    return Math.max(this.mss, this.largestReceived)
  }

  private get leastReceived(): number {
    const { largestSegment } = this
    return Math.max(largestSegment, Math.min(LEAST_SEGMENTS * largestSegment, LEAST_OCTETS))
  }

  /** Octets that may be written now: one window may be queued for the next round trip. */
  get sendRoom(): number {
    const { length, room } = this.sendQueue
    const ahead = Math.max(FIRST_SEND_BUFFER, this.sending?.window ?? 0) - this.unsent
    const shared = Math.max(this.stack.memory.roomFor(this), LEAST_SEGMENTS * this.mss - length)
    return Math.max(0, Math.min(room, ahead, shared))
  }

  /** Enough room to ask the owner to write again. */
  get hasSendRoom(): boolean {
    const { length, limit } = this.sendQueue
    const isShort = length <= (LEAST_SEGMENTS * this.mss) / 2
    return isShort || this.sendRoom >= Math.min(limit / 2, 1 << 16)
  }

  /** The owner wants to write more than fits now. */
  awaitRoom(): void {
    const { memory } = this.stack
    this.wantsRoom = true
    if (memory.roomFor(this) < this.sendQueue.room) memory.await(this)
  }

  /** Tells the owner when there is enough room to write again. */
  offerRoom(): void {
    if (!this.wantsRoom || !this.hasSendRoom) return
    this.wantsRoom = false
    this.stack.notify(this, 'writable')
  }

  get heldOctets(): number {
    return (this.received?.cost ?? 0) + (this.synText?.length ?? 0) + this.sendQueue.length
  }

  onRoom(): void {
    this.offerRoom()
    if (this.wantsRoom) this.awaitRoom()
    if (this.curbedEdge < 0) return
    if (this.windowGain < this.mss) return this.stack.memory.await(this)
    this.ackNow = true
    this.stack.ready(this)
  }

  /** Octets in the queue that were never sent. */
  get unsent(): number {
    return this.sendQueue.length - this.sentOctets
  }

  /** Something of ours has not been acknowledged. */
  get awaitsAck(): boolean {
    return this.sendQueue.length > 0 || this.sending?.sent.isEmpty === false
  }

  /** Segments that still arrive for it are no longer its own. */
  get isOver(): boolean {
    return this.state === 'CLOSED' || this.state === 'TIME-WAIT'
  }

  get isSynchronized(): boolean {
    return this.state !== 'SYN-SENT' && this.state !== 'SYN-RECEIVED' && this.state !== 'CLOSED'
  }

  /** An owner has it. */
  get isOwned(): boolean {
    return this.isSynchronized || (this.isEarly && this.state === 'SYN-RECEIVED')
  }

  timestamp(now: Millis): number {
    return timestampAt(now, this.timestampOffset)
  }
}

/** Milliseconds, offset so that a restarted host does not show its uptime (RFC 7323 §5.4). */
export const timestampAt = (now: Millis, offset: number): number => (Math.floor(now) + offset) >>> 0

const windowShift = (buffer: number): number => {
  let shift = 0
  while (shift < MAX_WINDOW_SCALE && buffer >> shift > 0xffff) shift++
  return shift
}
