/**
 * Anti-replay window (RFC 4303 §3.4.3) kept as a ring of 32-bit words that is never shifted (RFC 6479),
 * and the inference of the high half of an extended sequence number (RFC 4303 appendix A2.2).
 * A 64-bit sequence number is two unsigned 32-bit numbers.
 */

const WORD_BITS = 32

export class ReplayWindow {
  private readonly words: Int32Array
  private readonly size: number
  private readonly extended: boolean
  /** Highest sequence number authenticated so far. */
  private topHigh = 0
  private topLow = 0

  /** `size`: packets, a multiple of 32 at least. */
  constructor(size: number, extended: boolean) {
    // One word more than the window: the word being entered is cleared while all of the window stays.
    let words = 2
    while (words * WORD_BITS < size + WORD_BITS) words *= 2
    this.words = new Int32Array(words)
    this.size = size
    this.extended = extended
  }

  /** The high half that a packet with this low half must have; 0 without extended numbers. */
  inferHigh(low: number): number {
    if (!this.extended) return 0
    const bottomLow = this.topLow - this.size + 1
    if (bottomLow >= 0) return low >= bottomLow ? this.topHigh : this.topHigh + 1
    // The window spans two values of the high half.
    return low >= bottomLow + 0x1_0000_0000 ? this.topHigh - 1 : this.topHigh
  }

  /** Whether a number is new and not too old. Says nothing about the packet being genuine. */
  accepts(high: number, low: number): boolean {
    if (high < 0 || (high === 0 && low === 0)) return false
    const ahead = this.distance(high, low)
    if (ahead > 0) return true
    if (-ahead >= this.size) return false
    return (this.words[this.wordAt(low)]! & (1 << (low & 31))) === 0
  }

  /** Notes an authenticated number; true when it is the newest so far. */
  note(high: number, low: number): boolean {
    const ahead = this.distance(high, low)
    const newest = ahead > 0
    if (newest) {
      const steps = Math.min(
        Math.floor(low / WORD_BITS) -
          Math.floor(this.topLow / WORD_BITS) +
          (high - this.topHigh) * (0x1_0000_0000 / WORD_BITS),
        this.words.length,
      )
      const top = Math.floor(this.topLow / WORD_BITS)
      for (let i = 1; i <= steps; i++) this.words[(top + i) & (this.words.length - 1)] = 0
      this.topHigh = high
      this.topLow = low
    }
    this.words[this.wordAt(low)]! |= 1 << (low & 31)
    return newest
  }

  private distance(high: number, low: number): number {
    return (high - this.topHigh) * 0x1_0000_0000 + (low - this.topLow)
  }

  private wordAt(low: number): number {
    return (low >>> 5) & (this.words.length - 1)
  }
}
