/** A set of slots of a ring, as bits: its next member is found in a few steps, however many slots and members there are. */

/** No slot. */
export const NONE = -1

/** A word of 32 bits. */
const BITS = 5
const LAST = (1 << BITS) - 1

export class SlotSet {
  /** A bit for each slot; then, up to a single word, a bit for each word of the level below that is not zero. */
  private readonly levels: Int32Array[] = []

  /** `capacity`: a power of two. */
  constructor(capacity: number) {
    let words = capacity
    do {
      words = Math.max(1, words >> BITS)
      this.levels.push(new Int32Array(words))
    } while (words > 1)
  }

  add(slot: number): void {
    let at = slot
    for (const words of this.levels) {
      words[at >> BITS]! |= 1 << (at & LAST)
      at >>= BITS
    }
  }

  delete(slot: number): void {
    let at = slot
    for (const words of this.levels) {
      const left = (words[at >> BITS]! &= ~(1 << (at & LAST)))
      if (left !== 0) return
      at >>= BITS
    }
  }

  /** The first one from `slot` on, around the ring. */
  next(slot: number): number {
    const found = this.notBefore(slot)
    return found === NONE && slot > 0 ? this.notBefore(0) : found
  }

  private notBefore(slot: number): number {
    let at = slot
    for (let level = 0; level < this.levels.length; level++) {
      const word = this.levels[level]![at >> BITS]
      const bits = (word ?? 0) & (-1 << (at & LAST))
      if (bits !== 0) return this.firstBelow(level, (at & ~LAST) | lowest(bits))
      // From the next word on.
      at = (at >> BITS) + 1
    }
    return NONE
  }

  /** The first member of those that a bit of a level stands for. */
  private firstBelow(level: number, bit: number): number {
    let at = bit
    for (let below = level - 1; below >= 0; below--)
      at = (at << BITS) | lowest(this.levels[below]![at]!)
    return at
  }
}

/** The number of the lowest bit that is set. */
const lowest = (bits: number): number => LAST - Math.clz32(bits & -bits)
