/**
 * A bounded queue of octets in blocks: it grows without moving what it holds, and gives each block back as soon as its
 * octets are gone. Blocks are used again, by all queues of the process.
 */
import { copyTo } from './bytes.ts'

/** Of a queue that holds little, as most do. */
const SMALL_BLOCK = 4096
const BLOCK = 32_768

/** Blocks that nobody uses; new ones would have to be cleared first and be collected later. */
class Spares {
  private readonly blocks: Uint8Array[] = []
  private readonly size: number
  private readonly most: number
  private used = 0

  /** So many blocks are kept at most. */
  constructor(size: number, most: number) {
    this.size = size
    this.most = most
  }

  take(): Uint8Array {
    this.used++
    return this.blocks.pop() ?? new Uint8Array(this.size)
  }

  giveBack(block: Uint8Array): void {
    this.used--
    if (this.blocks.length < this.most) this.blocks.push(block)
  }

  /** Keeps as many as are used, and so many at least. */
  trim(least: number): void {
    const wanted = Math.max(least, this.used)
    if (this.blocks.length > wanted) this.blocks.length = wanted
  }
}

/** Ours: 64 KiB, and 16 MiB, which one connection has at most while it sends as fast as it can. */
const smallSpares = new Spares(SMALL_BLOCK, 16)
const spares = new Spares(BLOCK, 512)

/** Ours: where senders come and go one after the other, each finds these. */
const NEXT_NEEDS = 2

/**
 * A sender is gone: what busy ones needed together is of no use to anybody. While one sends as fast as it can, its queue
 * is empty again and again, and would allocate all of it each time.
 */
export const trimSpares = (): void => spares.trim(NEXT_NEEDS)

/** A sender has had nothing to send for so long that a new block costs nothing beside it. */
export const forgetSpares = (): void => {
  smallSpares.trim(0)
  spares.trim(0)
}

export class ByteQueue {
  /** Only the first may be a small one. */
  private readonly blocks: Uint8Array[] = []
  /** Where the octets begin in the first block. */
  private head = 0
  /** Octets of all blocks. */
  private capacity = 0
  length = 0
  readonly limit: number = 0

  constructor(limit: number) {
    this.limit = limit
  }

  get room(): number {
    return this.limit - this.length
  }

  /** Octets of memory that it has now. */
  get memory(): number {
    return this.capacity
  }

  /** Copies as much of `octets` as there is room for; returns how much. */
  push(octets: Uint8Array): number {
    const count = Math.min(octets.length, this.room)
    for (let done = 0; done < count;) {
      const end = this.head + this.length
      if (end === this.capacity) this.addBlock(count - done)
      const last = this.blocks[this.blocks.length - 1]!
      const at = last.length - (this.capacity - end)
      const part = Math.min(count - done, last.length - at)
      copyTo(last, at, octets, done, part)
      done += part
      this.length += part
    }
    return count
  }

  private addBlock(needed: number): void {
    const isSmall = this.blocks.length === 0 && needed <= SMALL_BLOCK
    const block = (isSmall ? smallSpares : spares).take()
    this.blocks.push(block)
    this.capacity += block.length
  }

  /** Copies `count` octets, `offset` from the front, to `target[at…]`. */
  copyTo(target: Uint8Array, at: number, offset: number, count: number): void {
    if (count === 0) return
    let from = this.head + offset
    let index = 0
    const first = this.blocks[0]!.length
    if (from >= first) {
      index = 1 + Math.floor((from - first) / BLOCK)
      from = (from - first) % BLOCK
    }
    for (let done = 0; done < count; index++) {
      const block = this.blocks[index]!
      const part = Math.min(count - done, block.length - from)
      copyTo(target, at + done, block, from, part)
      done += part
      from = 0
    }
  }

  /** Drops octets at the front. */
  drop(count: number): void {
    this.length -= count
    this.head += count
    while (this.blocks.length > 0 && (this.length === 0 || this.head >= this.blocks[0]!.length)) {
      const block = this.blocks.shift()!
      this.head -= block.length
      this.capacity -= block.length
      ;(block.length === BLOCK ? spares : smallSpares).giveBack(block)
    }
    if (this.length === 0) this.head = 0
  }

  /** Gives the memory back. */
  clear(): void {
    this.drop(this.length)
  }
}
