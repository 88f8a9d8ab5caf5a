/** Octets that came: those in order, waiting for the reader, and those ahead of a gap. */
import { after, afterOrAt, before, beforeOrAt, distance } from '../base/serial.ts'

interface Range {
  start: number
  end: number
  readonly pieces: Uint8Array[]
}

/** Ranges ahead of gaps; a peer that makes more of them sends again. */
const MAX_RANGES = 256
/** RFC 2018 §3: three blocks fit beside timestamps. */
export const MAX_BLOCKS = 3
/** A piece that fills less of its memory than this is copied, so that it does not keep the rest alive. */
const SPARSE = 4

export class Reassembly {
  /** Octets in order that the reader has not taken. */
  readable = 0
  private readonly queue: Uint8Array[] = []
  private ranges: Range[] = []
  /** Ranges by when they last grew, the newest first (RFC 2018 §4). */
  private recent: Range[] = []

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
      this.store(start, fresh)
      return next
    }
    if (this.ranges.length === 0) {
      this.deliver(fresh)
      return (next + fresh.length) >>> 0
    }
    this.store(start, fresh)
    const first = this.ranges[0]!
    if (first.start !== next) return next
    this.ranges.shift()
    this.recent = this.recent.filter(range => range !== first)
    for (const piece of first.pieces) this.deliver(piece)
    return first.end
  }

  private deliver(piece: Uint8Array): void {
    this.queue.push(piece.length * SPARSE < piece.buffer.byteLength ? piece.slice() : piece)
    this.readable += piece.length
  }

  /** What was here first stays; only what is new is taken from an overlapping segment. */
  private store(seq: number, octets: Uint8Array): void {
    const end = (seq + octets.length) >>> 0
    let i = 0
    while (i < this.ranges.length && before(this.ranges[i]!.end, seq)) i++
    const touched: Range = { start: seq, end: seq, pieces: [] }
    let at = seq
    let count = 0
    const append = (piece: Uint8Array): void => {
      touched.pieces.push(piece)
      touched.end = (touched.end + piece.length) >>> 0
    }
    for (let j = i; j < this.ranges.length && beforeOrAt(this.ranges[j]!.start, end); j++) {
      const range = this.ranges[j]!
      count++
      if (after(range.start, at)) {
        append(octets.subarray(distance(at, seq), distance(range.start, seq)))
      } else if (count === 1 && before(range.start, seq)) {
        touched.start = range.start
        touched.end = range.start
      }
      for (const piece of range.pieces) append(piece)
      at = after(range.end, at) ? range.end : at
    }
    if (before(at, end)) append(octets.subarray(distance(at, seq)))
    if (count === 0 && this.ranges.length >= MAX_RANGES) return
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

  /** All of `[seq, end)` is here already. */
  holds(seq: number, end: number): boolean {
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
    this.readable -= piece.length
    return piece
  }

  clear(): void {
    this.queue.length = 0
    this.ranges = []
    this.recent = []
    this.readable = 0
  }
}
