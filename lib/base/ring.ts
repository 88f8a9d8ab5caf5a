/** A bounded queue of octets that grows as it is used and gives its memory back when it is empty. */

const FIRST_CAPACITY = 4096
/** Small memories that nobody uses: a queue that fills and empties all the time shall allocate nothing. */
const SPARE_MEMORIES = 4
const spareMemories: Uint8Array[] = []
const NOTHING: Uint8Array = new Uint8Array(0)

export class ByteRing {
  private bytes: Uint8Array = NOTHING
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
    const spare = capacity === FIRST_CAPACITY ? spareMemories.pop() : undefined
    const larger = spare ?? new Uint8Array(capacity)
    this.copyTo(larger, 0, 0, this.length)
    this.release()
    this.bytes = larger
  }

  private release(): void {
    if (this.bytes.length === FIRST_CAPACITY && spareMemories.length < SPARE_MEMORIES)
      spareMemories.push(this.bytes)
    this.bytes = NOTHING
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
    if (this.length === 0) this.release()
    else this.head = (this.head + count) % this.bytes.length
  }

  /** Gives the memory back. */
  clear(): void {
    this.release()
    this.length = 0
  }
}
