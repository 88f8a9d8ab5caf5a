/**
 * Connections that both ends have closed, which are remembered for late segments (RFC 9293 §3.6.1). A record takes at
 * most 100 octets in one block of memory; they stand in the order in which they end.
 */
import { equal } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import { after, before, distance } from '../base/serial.ts'
import { TcpFlag, type TcpSegment } from '../wire/tcp.ts'
import type { Flow } from './control-block.ts'

export interface Waiting extends Flow {
  readonly sndNxt: number
  readonly rcvNxt: number
  readonly timestamps: boolean
  readonly tsRecent: number
  readonly timestampOffset: number
}

/** What a segment for such a connection asks for: an ACK, that and more time, or the end. */
export type Wish = 'nothing' | 'ack' | 'prolong' | 'end'

/** Its reader is gone, so any window will do. */
const WINDOW = 0xffff

/** SEGMENT ARRIVES in TIME-WAIT (RFC 9293 §3.10.7.4). Only the peer's FIN once more prolongs it (RFC 1337). */
export const wishOf = (waiting: Waiting, segment: TcpSegment, resets: boolean): Wish => {
  const { seq, length } = segment
  const isReset = segment.has(TcpFlag.Rst)
  if (isReset && !resets) return 'nothing'
  // Nothing of the peer's comes without an ACK any more.
  if (!segment.has(TcpFlag.Ack) && !segment.has(TcpFlag.Syn) && !isReset) return 'nothing'
  const isWithin = (place: number): boolean => {
    const offset = distance(place, waiting.rcvNxt)
    return offset >= 0 && offset < WINDOW
  }
  if (!isWithin(seq) && !(length > 0 && isWithin((seq + length - 1) >>> 0))) {
    if (isReset) return 'nothing'
    return segment.has(TcpFlag.Fin) ? 'prolong' : 'ack'
  }
  if (isReset) return seq === waiting.rcvNxt ? 'end' : 'ack'
  const isOld =
    waiting.timestamps && segment.hasTimestamps && before(segment.timestampValue, waiting.tsRecent)
  if (isOld || segment.has(TcpFlag.Syn)) return 'ack'
  // RFC 9293 §3.10.7.4, MAY-13: what is not at the left edge lies behind the peer's FIN.
  const isAstray = seq !== waiting.rcvNxt || segment.has(TcpFlag.Fin)
  return isAstray || after(segment.ack, waiting.sndNxt) ? 'ack' : 'nothing'
}

/** RFC 6191 §2: a SYN that is surely newer replaces what only waits. */
export const startsAnew = (waiting: Waiting, segment: TcpSegment): boolean => {
  if (!segment.has(TcpFlag.Syn) || segment.has(TcpFlag.Ack) || segment.has(TcpFlag.Rst))
    return false
  return waiting.timestamps && segment.hasTimestamps
    ? after(segment.timestampValue, waiting.tsRecent)
    : after(segment.seq, waiting.rcvNxt)
}

/** Ours: of more the oldest is forgotten. */
export const MAX_TIME_WAIT = 4096
const FIRST_CAPACITY = 16
const GROWTH = 5 / 4

/** A record in words of 32 bits; the addresses follow as octets. */
const PORTS = 0
const SND_NXT = 1
const RCV_NXT = 2
const TS_RECENT = 3
const TS_OFFSET = 4
/** The next record with the same hash, as its place and 1; 0: none. */
const NEXT = 5
const FLAGS = 6
const WORDS = 15
const LOCAL = 7 * 4
const REMOTE = 11 * 4
/** Of `FLAGS`. */
const IS_LIVE = 1
const HAS_TIMESTAMPS = 2
const IS_V6 = 4

const portsOf = ({ localPort, remotePort }: Flow): number => ((remotePort << 16) | localPort) >>> 0

export class TimeWaits {
  /** Those that are remembered. */
  size = 0
  /** A ring of records, of which those from `head` on are in use; some of them may have ended before their turn. */
  private words = new Uint32Array(0)
  private octets = new Uint8Array(0)
  private ends = new Float64Array(0)
  /** By the hash: the place of the first record, and 1. */
  private buckets = new Uint32Array(0)
  private capacity = 0
  private head = 0
  private used = 0
  private readonly seed: number
  private readonly onEnd: (flow: Flow) => void

  /** `seed`: random, so that no peer can choose ports with one hash. `onEnd` gets to know which is forgotten. */
  constructor(seed: number, onEnd: (flow: Flow) => void) {
    this.seed = seed
    this.onEnd = onEnd
  }

  /** When the first of them ends; `Infinity`: there is none. */
  get nextEnd(): Millis {
    return this.size === 0 ? Infinity : this.ends[this.head]!
  }

  /** It must not be there yet, and must not end before those that are. */
  add(waiting: Waiting, endsAt: Millis): void {
    if (this.size >= MAX_TIME_WAIT) this.drop(this.head)
    if (this.used === this.capacity) this.resize()
    const place = (this.head + this.used) % this.capacity
    this.used++
    this.size++
    const { words, octets } = this
    const at = place * WORDS
    const { localAddress, remoteAddress } = waiting
    words[at + PORTS] = portsOf(waiting)
    words[at + SND_NXT] = waiting.sndNxt
    words[at + RCV_NXT] = waiting.rcvNxt
    words[at + TS_RECENT] = waiting.tsRecent
    words[at + TS_OFFSET] = waiting.timestampOffset
    words[at + FLAGS] =
      IS_LIVE | (waiting.timestamps ? HAS_TIMESTAMPS : 0) | (localAddress.length === 16 ? IS_V6 : 0)
    octets.set(localAddress, at * 4 + LOCAL)
    octets.set(remoteAddress, at * 4 + REMOTE)
    this.ends[place] = endsAt
    this.link(place)
  }

  get(flow: Flow): (Waiting & { readonly endsAt: Millis }) | undefined {
    const place = this.find(flow)
    return place < 0 ? undefined : this.read(place)
  }

  remove(flow: Flow): void {
    const place = this.find(flow)
    if (place >= 0) this.drop(place)
  }

  prolong(flow: Flow, endsAt: Millis): void {
    const place = this.find(flow)
    if (place < 0) return
    const waiting = this.read(place)
    this.unlink(place)
    this.add(waiting, endsAt)
  }

  /** Forgets those that have ended. */
  expire(now: Millis): void {
    while (this.size > 0 && this.ends[this.head]! <= now) this.drop(this.head)
  }

  removeWhere(isGone: (flow: Flow) => boolean): void {
    for (const place of [...this.places()]) if (isGone(this.read(place))) this.drop(place)
  }

  private *places(): Generator<number> {
    for (let i = 0; i < this.used; i++) {
      const place = (this.head + i) % this.capacity
      if ((this.words[place * WORDS + FLAGS]! & IS_LIVE) !== 0) yield place
    }
  }

  private bucketOf(ports: number): number {
    return Math.imul(ports ^ this.seed, 0x9e3779b1) >>> (1 + Math.clz32(this.buckets.length))
  }

  private find(flow: Flow): number {
    if (this.size === 0) return -1
    const ports = portsOf(flow)
    const { words, octets } = this
    for (let next = this.buckets[this.bucketOf(ports)]!; next !== 0;) {
      const at = (next - 1) * WORDS
      if (words[at + PORTS] === ports) {
        const { length } = flow.localAddress
        const local = at * 4 + LOCAL
        const remote = at * 4 + REMOTE
        const isV6 = (words[at + FLAGS]! & IS_V6) !== 0
        if (
          isV6 === (length === 16) &&
          equal(octets.subarray(local, local + length), flow.localAddress) &&
          equal(octets.subarray(remote, remote + length), flow.remoteAddress)
        )
          return next - 1
      }
      next = words[at + NEXT]!
    }
    return -1
  }

  private read(place: number): Waiting & { readonly endsAt: Millis } {
    const { words, octets } = this
    const at = place * WORDS
    const flags = words[at + FLAGS]!
    const length = (flags & IS_V6) === 0 ? 4 : 16
    const address = (from: number): Uint8Array =>
      octets.slice(at * 4 + from, at * 4 + from + length)
    const ports = words[at + PORTS]!
    return {
      localAddress: address(LOCAL),
      localPort: ports & 0xffff,
      remoteAddress: address(REMOTE),
      remotePort: ports >>> 16,
      sndNxt: words[at + SND_NXT]!,
      rcvNxt: words[at + RCV_NXT]!,
      timestamps: (flags & HAS_TIMESTAMPS) !== 0,
      tsRecent: words[at + TS_RECENT]!,
      timestampOffset: words[at + TS_OFFSET]!,
      endsAt: this.ends[place]!,
    }
  }

  private link(place: number): void {
    const at = place * WORDS
    const bucket = this.bucketOf(this.words[at + PORTS]!)
    this.words[at + NEXT] = this.buckets[bucket]!
    this.buckets[bucket] = place + 1
  }

  private drop(place: number): void {
    const flow = this.read(place)
    this.unlink(place)
    this.onEnd(flow)
  }

  private unlink(place: number): void {
    const { words, buckets } = this
    const at = place * WORDS
    const bucket = this.bucketOf(words[at + PORTS]!)
    if (buckets[bucket] === place + 1) buckets[bucket] = words[at + NEXT]!
    else {
      let before = (buckets[bucket]! - 1) * WORDS
      while (words[before + NEXT] !== place + 1) before = (words[before + NEXT]! - 1) * WORDS
      words[before + NEXT] = words[at + NEXT]!
    }
    words[at + FLAGS] = 0
    this.size--
    if (this.size === 0) return this.allocate(0)
    while ((words[this.head * WORDS + FLAGS]! & IS_LIVE) === 0) {
      this.head = (this.head + 1) % this.capacity
      this.used--
    }
  }

  private allocate(capacity: number): void {
    this.words = new Uint32Array(capacity * WORDS)
    this.octets = new Uint8Array(this.words.buffer)
    this.ends = new Float64Array(capacity)
    this.buckets = new Uint32Array(capacity === 0 ? 0 : 2 ** Math.floor(Math.log2(capacity)))
    this.capacity = capacity
    this.head = 0
    this.used = 0
  }

  /** A quarter more room than those in it need, in their order. */
  private resize(): void {
    const { words, ends } = this
    const places = [...this.places()]
    this.allocate(Math.max(FIRST_CAPACITY, Math.ceil(places.length * GROWTH)))
    for (const [i, place] of places.entries()) {
      this.words.set(words.subarray(place * WORDS, (place + 1) * WORDS), i * WORDS)
      this.ends[i] = ends[place]!
      this.link(i)
    }
    this.used = places.length
  }
}
