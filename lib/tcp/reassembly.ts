/** Octets that came: those in order, waiting for the reader, and those ahead of a gap. */
import { markAsUntransferable } from 'node:worker_threads'
import { copyTo } from '../base/bytes.ts'
import { adopt } from '../base/external.ts'
import { Slab, type Tenant } from '../base/slab.ts'
import { after, afterOrAt, before, beforeOrAt, distance, earlier, later } from '../base/serial.ts'

interface Range {
  start: number
  end: number
  readonly pieces: Uint8Array[]
}

/** Maximum ranges ahead of gaps; a peer that makes more must retransmit. */
const MAX_RANGES = 256
/** RFC 2018 §3: three blocks fit beside timestamps. */
export const MAX_BLOCKS = 3
/** Pieces ahead of gaps in all: the memory each costs beside its octets is ours, the choice of sizes is not. */
const MAX_PIECES = 8192
/** Ours: memory overhead of a piece ahead of a gap. */
const PIECE = 128
/** Smaller pieces in order are put together, for the same reason. */
const SMALL = 512
const TAIL_OCTETS = 4096
/** Of a block that is given up, at least this part must be ours, so that we do not keep the rest alive. */
const LEAST_SHARE = 1 / 4

/** Ours: pieces adjacent in memory are handed to the reader as one, up to this many octets. */
const MOST_JOINED = 65_536

/** Of all connections of this process. */
const slab = new Slab()

/** A small piece that is alone stands behind those of other connections: memory of its own costs more than its octets. */
let pool = new Uint8Array(0)
let pooled = 0

const inPool = (octets: Uint8Array): Uint8Array => {
  const { length } = octets
  if (pooled + length > pool.length) {
    pool = new Uint8Array(TAIL_OCTETS)
    markAsUntransferable(pool.buffer)
    pooled = 0
  }
  const at = pooled
  pooled += length
  copyTo(pool, at, octets, 0, length)
  return new Uint8Array(pool.buffer, at, length)
}

export class Reassembly implements Tenant {
  preceding: Tenant | undefined
  following: Tenant | undefined
  isInLine = false
  /** Octets in order that the reader has not taken. */
  readable = 0
  private readonly queue: Uint8Array[] = []
  private ranges: Range[] = []
  /** Ranges by when they last grew, the newest first (RFC 2018 §4). */
  private recent: Range[] = []
  private pieces = 0
  /** Octets of them. */
  private ahead = 0
  /** The last piece of the queue while it has room for more: its memory, and how much of it is used. */
  private tail: Uint8Array | undefined
  private tailUsed = 0

  /** All that is kept. */
  get octets(): number {
    return this.readable + this.ahead
  }

  /** Octets of memory that this takes: small pieces ahead of gaps take more than they bring. */
  get cost(): number {
    return this.octets + this.pieces * PIECE
  }

  get isEmpty(): boolean {
    return this.readable === 0 && !this.hasGap
  }

  get hasGap(): boolean {
    return this.ranges.length > 0
  }

  /** Adds `octets` that begin at `seq`, with everything up to `next` here; returns the new `next`. */
  add(seq: number, octets: Uint8Array, next: number): number {
    const skip = Math.max(0, distance(next, seq))
    if (skip >= octets.length) return next
    const fresh = skip === 0 ? octets : octets.subarray(skip)
    const start = skip === 0 ? seq : next
    if (start !== next) {
      if (this.pieces < MAX_PIECES) this.store(start, fresh, false)
      return next
    }
    if (this.ranges.length === 0) {
      this.deliver(fresh)
      return (next + fresh.length) >>> 0
    }
    this.store(start, fresh, true)
    const first = this.ranges[0]!
    if (first.start !== next) return next
    this.ranges.shift()
    this.recent = this.recent.filter(range => range !== first)
    this.pieces -= first.pieces.length
    this.ahead -= distance(first.end, first.start)
    // These were copied when they came.
    for (const piece of first.pieces) this.append(piece)
    return first.end
  }

  private deliver(piece: Uint8Array): void {
    this.append(piece.length < SMALL ? piece : this.keep(piece))
  }

  private keep(octets: Uint8Array): Uint8Array {
    return adopt(octets) ? octets : slab.keep(octets, this)
  }

  private append(piece: Uint8Array): void {
    this.readable += piece.length
    if (piece.length < SMALL) return this.gather(piece)
    this.tail = undefined
    const at = this.queue.length - 1
    const joined = at < 0 ? undefined : join(this.queue[at]!, piece)
    if (joined === undefined) this.queue.push(piece)
    else this.queue[at] = joined
  }

  moveOut(block: ArrayBufferLike): void {
    const lists = [this.queue, ...this.ranges.map(({ pieces }) => pieces)]
    let octets = 0
    for (const list of lists)
      for (const piece of list) if (piece.buffer === block) octets += piece.length
    if (octets >= LEAST_SHARE * block.byteLength) return
    for (const list of lists) {
      for (const [i, piece] of list.entries()) if (piece.buffer === block) list[i] = piece.slice()
    }
  }

  private gather(piece: Uint8Array): void {
    const { tail, tailUsed } = this
    if (tail !== undefined && tailUsed + piece.length <= tail.length) {
      tail.set(piece, tailUsed)
      const last = this.queue.length - 1
      const from = this.queue[last]!.byteOffset
      this.tailUsed += piece.length
      this.queue[last] = tail.subarray(from, this.tailUsed)
      return
    }
    // The first small one alone is the usual case.
    if (this.queue.length === 0) {
      this.queue.push(inPool(piece))
      this.tail = undefined
      return
    }
    const memory = new Uint8Array(TAIL_OCTETS)
    memory.set(piece)
    this.queue.push(memory.subarray(0, piece.length))
    this.tail = memory
    this.tailUsed = piece.length
  }

  /** What was here first stays; only what is new is taken from an overlapping segment. */
  private store(seq: number, octets: Uint8Array, isNext: boolean): void {
    const end = (seq + octets.length) >>> 0
    let i = 0
    while (i < this.ranges.length && before(this.ranges[i]!.end, seq)) i++
    const extended = this.ranges[i]
    if (
      extended?.end === seq &&
      !(i + 1 < this.ranges.length && beforeOrAt(this.ranges[i + 1]!.start, end))
    ) {
      // The usual case after a gap: a range grows at its end.
      extended.pieces.push(this.keep(octets))
      this.ahead += octets.length
      extended.end = end
      this.pieces++
      if (this.recent[0] !== extended)
        this.recent = [extended, ...this.recent.filter(range => range !== extended)]
      return
    }
    const touched: Range = { start: seq, end: seq, pieces: [] }
    let at = seq
    let count = 0
    const append = (piece: Uint8Array): void => {
      touched.pieces.push(piece)
      touched.end = (touched.end + piece.length) >>> 0
    }
    const appendNew = (piece: Uint8Array): void => {
      this.pieces++
      this.ahead += piece.length
      append(this.keep(piece))
    }
    for (let j = i; j < this.ranges.length && beforeOrAt(this.ranges[j]!.start, end); j++) {
      const range = this.ranges[j]!
      count++
      if (after(range.start, at)) {
        appendNew(octets.subarray(distance(at, seq), distance(range.start, seq)))
      } else if (count === 1 && before(range.start, seq)) {
        touched.start = range.start
        touched.end = range.start
      }
      for (const piece of range.pieces) append(piece)
      at = after(range.end, at) ? range.end : at
    }
    if (count === 0 && this.ranges.length >= MAX_RANGES && !isNext) return
    if (before(at, end)) appendNew(octets.subarray(distance(at, seq)))
    const merged = this.ranges.splice(i, count, touched)
    this.recent = [touched, ...this.recent.filter(range => !merged.includes(range))]
  }

  /** SACK blocks, the one that grew last first; returns how many. */
  blocks(starts: Uint32Array, ends: Uint32Array): number {
    const count = Math.min(this.recent.length, MAX_BLOCKS)
    for (let i = 0; i < count; i++) {
      starts[i] = this.recent[i]!.start
      ends[i] = this.recent[i]!.end
    }
    return count
  }

  /** The first part of `[seq, end)` that is here ahead of a gap; its range is the next that SACK names. */
  overlap(seq: number, end: number): { start: number; end: number } | undefined {
    if (!this.hasGap) return undefined
    const range = this.ranges.find(({ start, end: stop }) => before(start, end) && after(stop, seq))
    if (range === undefined) return undefined
    this.recent = [range, ...this.recent.filter(other => other !== range)]
    return { start: later(seq, range.start), end: earlier(end, range.end) }
  }

  /** All of `[seq, end)` is here already. */
  holds(seq: number, end: number): boolean {
    if (!this.hasGap) return false
    return this.ranges.some(range => beforeOrAt(range.start, seq) && afterOrAt(range.end, end))
  }

  take(max: number): Uint8Array | undefined {
    const piece = this.queue[0]
    if (piece === undefined) return undefined
    if (piece.length > max) {
      this.queue[0] = piece.subarray(max)
      this.readable -= max
      return piece.subarray(0, max)
    }
    this.queue.shift()
    if (this.queue.length === 0) this.tail = undefined
    this.readable -= piece.length
    return piece
  }

  clear(): void {
    this.queue.length = 0
    this.tail = undefined
    this.pieces = 0
    this.ahead = 0
    this.ranges = []
    this.recent = []
    this.readable = 0
  }
}

/** Both as one, where the second begins in memory where the first ends. */
const join = (first: Uint8Array, second: Uint8Array): Uint8Array | undefined => {
  const { buffer, byteOffset } = first
  const length = first.length + second.length
  if (buffer !== second.buffer || byteOffset + first.length !== second.byteOffset) return undefined
  return length > MOST_JOINED ? undefined : new Uint8Array(buffer, byteOffset, length)
}
