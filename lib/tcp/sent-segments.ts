/**
 * What is under way: a ring of records, one for each segment, in order of sequence. A record is outstanding,
 * lost or SACKed (RFC 2018). The outstanding ones form a list in the order of their last transmission, as
 * RACK wants it (RFC 8985 §5.2); for a SACKed one the same link leads past the SACKed ones behind it. The lost ones
 * are a set whose first one in the stream is found at once. So no ACK costs a walk over the whole flight.
 */
import type { Millis } from '../base/environment.ts'
import { after, before, beforeOrAt, distance } from '../base/serial.ts'
import { NONE, SlotSet } from './slot-set.ts'

/** No record. */
export { NONE }

// Columns of a record.
const INTEGERS = 5
const SEQ = 0
const END = 1
const NEXT = 2
const PREVIOUS = 3
const FLAGS = 4
const REALS = 7
const SENT_AT = 0
const FIRST_SENT_AT = 1
const DELIVERED = 2
const DELIVERED_AT = 3
const FLIGHT_SENT_AT = 4
const IN_FLIGHT = 5
const LOST_BEFORE = 6

const SACKED = 1
const LOST = 2
const RETRANSMITTED = 4
const APP_LIMITED = 8
/** It tries whether its size gets through: its loss says nothing of congestion (RFC 4821 §7.4). */
const PROBE = 16

const FIRST_CAPACITY = 16
/** Ours: the peer says how small segments are, and our memory for each is none that it has a share of. */
const MOST = 1 << 16
/** Small rings that nobody uses: a request and its answer shall allocate nothing, an idle connection keep nothing. */
const SPARE_RINGS = 8
const spareRings: Ring[] = []

interface Ring {
  readonly integers: Int32Array
  readonly reals: Float64Array
}

const NO_RING: Ring = { integers: new Int32Array(0), reals: new Float64Array(0) }

const newRing = (capacity: number): Ring =>
  (capacity === FIRST_CAPACITY ? spareRings.pop() : undefined) ?? {
    integers: new Int32Array(capacity * INTEGERS),
    reals: new Float64Array(capacity * REALS),
  }

/** What was known when a segment was sent, for the rate of delivery and for what a loss says. */
export interface SendState {
  /** Octets delivered until then, and when the last of them was. */
  delivered: number
  deliveredAt: Millis
  /** When the first segment of that flight was sent. */
  flightSentAt: Millis
  isAppLimited: boolean
  /** Octets under way then, this segment included, and octets lost until then. */
  inFlight: number
  lostBefore: number
}

/** Hears of each record that is delivered, while its facts can still be asked for. */
export interface Deliveries {
  delivered(slot: number, octets: number): void
  /** So many octets of a record have arrived, and the rest has not. */
  deliveredPart(octets: number): void
}

/** Parts of what is under way, before they are records: in columns, since there may be many. */
class Pieces {
  /** The first number of each; it ends where the next one begins. */
  readonly from: number[] = []
  /** The index of the record that this belonged to. */
  readonly index: number[] = []
  readonly flags: number[] = []

  get length(): number {
    return this.from.length
  }

  add(index: number, from: number, flags: number): void {
    this.from.push(from)
    this.index.push(index)
    this.flags.push(flags)
  }
}

export class SentSegments {
  /** Records in use. */
  length = 0
  /** Octets of sequence space that are outstanding. */
  pipe = 0
  lostCount = 0
  /** Those of the lost that tried a size, and their octets in all so far. */
  lostProbes = 0
  lostProbeOctets = 0
  sackedCount = 0
  sackedOctets = 0
  private ring = NO_RING
  private capacity = 0
  private head = 0
  /** The outstanding ones, by when they were sent last. */
  private firstSent = NONE
  private lastSent = NONE
  /** None before the first is lost. */
  private lost: SlotSet | undefined
  private readonly deliveries: Deliveries

  constructor(deliveries: Deliveries) {
    this.deliveries = deliveries
  }

  get isEmpty(): boolean {
    return this.length === 0
  }

  get isFull(): boolean {
    return this.length >= MOST
  }

  // --- facts of a record ---

  seq(slot: number): number {
    return this.ring.integers[slot * INTEGERS + SEQ]! >>> 0
  }

  end(slot: number): number {
    return this.ring.integers[slot * INTEGERS + END]! >>> 0
  }

  octets(slot: number): number {
    const at = slot * INTEGERS
    return distance(this.ring.integers[at + END]!, this.ring.integers[at + SEQ]!)
  }

  sentAt(slot: number): Millis {
    return this.ring.reals[slot * REALS + SENT_AT]!
  }

  firstSentAt(slot: number): Millis {
    return this.ring.reals[slot * REALS + FIRST_SENT_AT]!
  }

  /** Octets that were under way when it was sent last, itself included. */
  inFlightThen(slot: number): number {
    return this.ring.reals[slot * REALS + IN_FLIGHT]!
  }

  isSacked(slot: number): boolean {
    return (this.flags(slot) & SACKED) !== 0
  }

  isLost(slot: number): boolean {
    return (this.flags(slot) & LOST) !== 0
  }

  isRetransmitted(slot: number): boolean {
    return (this.flags(slot) & RETRANSMITTED) !== 0
  }

  /** It tries a size, and was not sent again. */
  isProbe(slot: number): boolean {
    return (this.flags(slot) & PROBE) !== 0
  }

  markProbe(slot: number): void {
    this.setFlag(slot, PROBE, true)
  }

  readState(slot: number, into: SendState): void {
    const { reals } = this.ring
    const at = slot * REALS
    into.delivered = reals[at + DELIVERED]!
    into.deliveredAt = reals[at + DELIVERED_AT]!
    into.flightSentAt = reals[at + FLIGHT_SENT_AT]!
    into.inFlight = reals[at + IN_FLIGHT]!
    into.lostBefore = reals[at + LOST_BEFORE]!
    into.isAppLimited = (this.flags(slot) & APP_LIMITED) !== 0
  }

  writeState(slot: number, state: SendState): void {
    const { reals } = this.ring
    const at = slot * REALS
    reals[at + DELIVERED] = state.delivered
    reals[at + DELIVERED_AT] = state.deliveredAt
    reals[at + FLIGHT_SENT_AT] = state.flightSentAt
    reals[at + IN_FLIGHT] = state.inFlight
    reals[at + LOST_BEFORE] = state.lostBefore
    this.setFlag(slot, APP_LIMITED, state.isAppLimited)
  }

  private flags(slot: number): number {
    return this.ring.integers[slot * INTEGERS + FLAGS]!
  }

  private setFlag(slot: number, flag: number, on: boolean): void {
    const at = slot * INTEGERS + FLAGS
    if (on) this.ring.integers[at]! |= flag
    else this.ring.integers[at]! &= ~flag
  }

  // --- which record ---

  get first(): number {
    return this.length === 0 ? NONE : this.head
  }

  get last(): number {
    return this.length === 0 ? NONE : this.slotAt(this.length - 1)
  }

  /** The outstanding one that was sent longest ago. */
  get oldest(): number {
    return this.firstSent
  }

  /** The one to send again first: the first in the stream (RFC 6675 §4, NextSeg (1); RFC 6298 §5.4). */
  get firstLost(): number {
    return this.lostCount === 0 ? NONE : this.lost!.next(this.head)
  }

  private slotAt(index: number): number {
    return (this.head + index) & (this.capacity - 1)
  }

  // --- sending ---

  sent(seq: number, end: number, now: Millis): number {
    if (this.length === this.capacity) this.grow()
    const slot = this.slotAt(this.length++)
    this.write(slot, seq, end, 0)
    this.ring.reals[slot * REALS + FIRST_SENT_AT] = now
    this.ring.reals[slot * REALS + SENT_AT] = now
    this.append(slot)
    this.pipe += distance(end, seq)
    return slot
  }

  resent(slot: number, now: Millis): void {
    if (this.isLost(slot)) {
      this.forgetLost(slot)
      this.pipe += this.octets(slot)
    } else this.remove(slot)
    this.append(slot)
    this.setFlag(slot, RETRANSMITTED, true)
    this.setFlag(slot, PROBE, false)
    this.ring.reals[slot * REALS + SENT_AT] = now
  }

  // --- what ACKs say ---

  /** Everything before `ack` has arrived. */
  acknowledge(ack: number): void {
    while (this.length > 0 && beforeOrAt(this.end(this.head), ack)) {
      const slot = this.head
      const octets = this.octets(slot)
      if (this.isSacked(slot)) this.forgetSacked(octets)
      else this.deliver(slot, octets)
      this.head = this.slotAt(1)
      this.length--
    }
    if (this.length === 0) return this.release()
    if (!before(this.seq(this.head), ack)) return
    // A part of a segment: what remains of its record is the rest.
    const arrived = distance(ack, this.seq(this.head))
    if (this.isSacked(this.head)) this.sackedOctets -= arrived
    else {
      this.deliveries.deliveredPart(arrived)
      if (!this.isLost(this.head)) this.pipe -= arrived
    }
    this.ring.integers[this.head * INTEGERS + SEQ] = ack
  }

  /** One SACK block; only records that it reports for the first time cost anything. */
  sack(start: number, end: number): void {
    for (let i = this.indexFrom(start); i < this.length; i++) {
      i = this.skipSacked(i)
      if (i >= this.length) return
      const slot = this.slotAt(i)
      if (after(this.end(slot), end)) return
      const octets = this.octets(slot)
      this.deliver(slot, octets)
      this.setFlag(slot, SACKED, true)
      this.link(slot, NEXT, this.slotAt(i + 1))
      this.sackedCount++
      this.sackedOctets += octets
    }
  }

  /** The index of the first record that begins at `seq` or behind it. */
  private indexFrom(seq: number): number {
    let low = 0
    let high = this.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (before(this.seq(this.slotAt(middle)), seq)) low = middle + 1
      else high = middle
    }
    return low
  }

  /** The first index from `index` on that is not SACKed; the way there is shortened for the next who comes. */
  private skipSacked(index: number): number {
    let at = index
    while (at < this.length && this.isSacked(this.slotAt(at))) {
      const slot = this.slotAt(at)
      const next = this.indexAfter(at, this.linked(slot, NEXT))
      if (next < this.length && this.isSacked(this.slotAt(next)))
        this.link(slot, NEXT, this.linked(this.slotAt(next), NEXT))
      at = next
    }
    return at
  }

  /** The index of a slot that lies behind index `at`. */
  private indexAfter(at: number, slot: number): number {
    const index = (slot - this.head) & (this.capacity - 1)
    // The slot behind the last of a full ring is the first one's.
    return index > at ? index : this.length
  }

  private deliver(slot: number, octets: number): void {
    this.deliveries.delivered(slot, octets)
    if (this.isLost(slot)) this.forgetLost(slot)
    else {
      this.remove(slot)
      this.pipe -= octets
    }
    this.setFlag(slot, PROBE, false)
  }

  private noteLost(slot: number): void {
    this.setFlag(slot, LOST, true)
    this.lost ??= new SlotSet(this.capacity)
    this.lost.add(slot)
    this.lostCount++
  }

  private forgetLost(slot: number): void {
    this.lost!.delete(slot)
    this.lostCount--
    if (this.isProbe(slot)) this.lostProbes--
    this.setFlag(slot, LOST, false)
  }

  private forgetSacked(octets: number): void {
    this.sackedCount--
    this.sackedOctets -= octets
  }

  // --- loss ---

  markLost(slot: number): void {
    if ((this.flags(slot) & (LOST | SACKED)) !== 0) return
    this.remove(slot)
    this.noteLost(slot)
    this.pipe -= this.octets(slot)
    if (this.isProbe(slot)) {
      this.lostProbes++
      this.lostProbeOctets += this.octets(slot)
    }
  }

  /** Nothing of what is under way will arrive. */
  markAllLost(): void {
    this.forgetOrder()
    this.lostCount = 0
    this.lostProbes = 0
    this.pipe = 0
    for (let i = 0; i < this.length; i++) {
      const slot = this.slotAt(i)
      if (this.isSacked(slot)) continue
      this.setFlag(slot, PROBE, false)
      this.noteLost(slot)
    }
  }

  /** What was believed lost is on its way after all. It was sent before all that is outstanding. */
  unmarkLost(): void {
    let previous = NONE
    for (let slot = this.firstLost; slot !== NONE; slot = this.firstLost) {
      this.forgetLost(slot)
      this.pipe += this.octets(slot)
      if (previous === NONE) this.prepend(slot)
      else this.insert(previous, slot)
      previous = slot
    }
  }

  /** The peer has thrown away what it had reported (RFC 2018 §8): all of it is lost. */
  forgetSacks(): void {
    for (let i = 0; i < this.length; i++) {
      const slot = this.slotAt(i)
      if (!this.isSacked(slot)) continue
      this.setFlag(slot, SACKED, false)
      this.noteLost(slot)
    }
    this.sackedCount = 0
    this.sackedOctets = 0
  }

  // --- the ring itself ---

  private grow(): void {
    if (this.capacity === 0) {
      this.ring = newRing(FIRST_CAPACITY)
      this.capacity = FIRST_CAPACITY
      return
    }
    const pieces = new Pieces()
    for (let i = 0; i < this.length; i++) {
      const slot = this.slotAt(i)
      pieces.add(i, this.seq(slot), this.flags(slot))
    }
    this.rebuild(this.capacity * 2, pieces)
  }

  /**
   * No segment shall have more than `octets` of data: the path takes no more. From the first lost one on that has, what is
   * lost is cut anew, whatever the segments were that it went out in before. `hasFin`: the last record counts a FIN,
   * which is no octet of data.
   */
  split(octets: number, hasFin: boolean): void {
    const pieces = new Pieces()
    /** Where the next piece of what is lost begins; undefined: nothing of it is being cut. */
    let cut: number | undefined
    for (let i = 0; i < this.length; i++) {
      const slot = this.slotAt(i)
      const flags = this.flags(slot)
      const seq = this.seq(slot)
      const end = this.end(slot)
      const dataEnd = hasFin && i === this.length - 1 ? (end - 1) >>> 0 : end
      const isLost = (flags & (LOST | SACKED | PROBE)) === LOST
      if (!isLost) cut = undefined
      if (cut !== undefined && after(cut, seq))
        pieces.flags[pieces.length - 1]! |= flags & RETRANSMITTED
      const isTooLarge = (flags & SACKED) === 0 && distance(dataEnd, seq) > octets
      if (cut === undefined && !isTooLarge) {
        pieces.add(i, seq, flags)
        continue
      }
      let from = cut ?? seq
      for (; before(from, dataEnd); from = (from + octets) >>> 0) pieces.add(i, from, flags)
      cut = isLost ? from : undefined
    }
    let capacity = FIRST_CAPACITY
    while (capacity < pieces.length) capacity *= 2
    this.rebuild(capacity, pieces)
  }

  /** Moves everything to a new ring, as the pieces say. */
  private rebuild(capacity: number, pieces: Pieces): void {
    const order = this.indexesOfSent()
    const ring = newRing(capacity)
    const end = this.length === 0 ? 0 : this.end(this.last)
    /** The first piece of each record. */
    const starts = new Int32Array(this.length).fill(NONE)
    for (let slot = 0; slot < pieces.length; slot++) {
      const index = pieces.index[slot]!
      if (starts[index] === NONE) starts[index] = slot
      const at = slot * INTEGERS
      ring.integers[at + SEQ] = pieces.from[slot]!
      ring.integers[at + END] = pieces.from[slot + 1] ?? end
      ring.integers[at + FLAGS] = pieces.flags[slot]!
      ring.integers[at + NEXT] = (slot + 1) & (capacity - 1)
      const old = this.slotAt(index) * REALS
      ring.reals.set(this.ring.reals.subarray(old, old + REALS), slot * REALS)
    }
    this.giveBack()
    this.ring = ring
    this.capacity = capacity
    this.head = 0
    this.length = pieces.length
    this.forgetOrder()
    for (const index of order) {
      for (let slot = starts[index]!; pieces.index[slot] === index; slot++) this.append(slot)
    }
    this.lostCount = 0
    this.lostProbes = 0
    for (let slot = 0; slot < pieces.length; slot++) {
      if (!this.isLost(slot)) continue
      this.noteLost(slot)
      if (this.isProbe(slot)) this.lostProbes++
    }
  }

  private forgetOrder(): void {
    this.firstSent = NONE
    this.lastSent = NONE
    this.lost = undefined
  }

  private indexesOfSent(): number[] {
    const indexes: number[] = []
    for (let slot = this.firstSent; slot !== NONE; slot = this.linked(slot, NEXT))
      indexes.push((slot - this.head) & (this.capacity - 1))
    return indexes
  }

  clear(): void {
    this.length = 0
    this.pipe = 0
    this.lostCount = 0
    this.lostProbes = 0
    this.sackedCount = 0
    this.sackedOctets = 0
    this.forgetOrder()
    this.release()
  }

  private release(): void {
    this.giveBack()
    this.ring = NO_RING
    this.capacity = 0
    this.head = 0
    this.lost = undefined
  }

  private giveBack(): void {
    if (this.capacity === FIRST_CAPACITY && spareRings.length < SPARE_RINGS)
      spareRings.push(this.ring)
  }

  private write(slot: number, seq: number, end: number, flags: number): void {
    const at = slot * INTEGERS
    const { integers } = this.ring
    integers[at + SEQ] = seq
    integers[at + END] = end
    integers[at + FLAGS] = flags
  }

  // --- the list ---

  private linked(slot: number, column: typeof NEXT | typeof PREVIOUS): number {
    return this.ring.integers[slot * INTEGERS + column]!
  }

  private link(slot: number, column: typeof NEXT | typeof PREVIOUS, to: number): void {
    this.ring.integers[slot * INTEGERS + column] = to
  }

  private append(slot: number): void {
    this.link(slot, PREVIOUS, this.lastSent)
    this.link(slot, NEXT, NONE)
    if (this.lastSent === NONE) this.firstSent = slot
    else this.link(this.lastSent, NEXT, slot)
    this.lastSent = slot
  }

  /** Behind another one. */
  private insert(other: number, slot: number): void {
    const next = this.linked(other, NEXT)
    if (next === NONE) return this.append(slot)
    this.link(slot, PREVIOUS, other)
    this.link(slot, NEXT, next)
    this.link(other, NEXT, slot)
    this.link(next, PREVIOUS, slot)
  }

  private prepend(slot: number): void {
    this.link(slot, PREVIOUS, NONE)
    this.link(slot, NEXT, this.firstSent)
    if (this.firstSent === NONE) this.lastSent = slot
    else this.link(this.firstSent, PREVIOUS, slot)
    this.firstSent = slot
  }

  private remove(slot: number): void {
    const previous = this.linked(slot, PREVIOUS)
    const next = this.linked(slot, NEXT)
    if (previous === NONE) this.firstSent = next
    else this.link(previous, NEXT, next)
    if (next === NONE) this.lastSent = previous
    else this.link(next, PREVIOUS, previous)
  }
}
