/** A bounded queue of octets that grows as it is used, read at any offset from its front. */

const FIRST_CAPACITY = 4096

export class ByteRing {
  private bytes = new Uint8Array(0)
  private head = 0
  length = 0
  readonly limit: number

  constructor(limit: number) {
    this.limit = limit
  }

  get room(): number {
    return this.limit - this.length
  }

  /** Copies as much of `octets` as there is room for; returns how much. */
  push(octets: Uint8Array): number {
    const count = Math.min(octets.length, this.room)
    if (count === 0) return 0
    if (this.length + count > this.bytes.length) this.grow(this.length + count)
    const tail = (this.head + this.length) % this.bytes.length
    const first = Math.min(count, this.bytes.length - tail)
    this.bytes.set(octets.subarray(0, first), tail)
    if (first < count) this.bytes.set(octets.subarray(first, count), 0)
    this.length += count
    return count
  }

  private grow(needed: number): void {
    let capacity = Math.max(this.bytes.length, FIRST_CAPACITY)
    while (capacity < needed) capacity *= 2
    const larger = new Uint8Array(capacity)
    this.copyTo(larger, 0, 0, this.length)
    this.bytes = larger
    this.head = 0
  }

  /** Copies `count` octets, `offset` from the front, to `target[at…]`. */
  copyTo(target: Uint8Array, at: number, offset: number, count: number): void {
    if (count === 0) return
    const from = (this.head + offset) % this.bytes.length
    const first = Math.min(count, this.bytes.length - from)
    target.set(this.bytes.subarray(from, from + first), at)
    if (first < count) target.set(this.bytes.subarray(0, count - first), at + first)
  }

  /** Drops octets at the front. */
  drop(count: number): void {
    this.length -= count
    this.head = this.length === 0 ? 0 : (this.head + count) % this.bytes.length
  }

  /** Gives the memory back. */
  clear(): void {
    this.bytes = new Uint8Array(0)
    this.head = 0
    this.length = 0
  }
}
