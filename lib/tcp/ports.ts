/** Which local ports are in use towards one remote port, so that a free one is found without trying them. */

/** RFC 6056 §3.2: the dynamic ports, and below them those other stacks use as well. */
const FIRST_PORT = 32768
const PORTS = 28224
/** Ports in one word of the bitmap. */
const WORD = 32
const WORDS = PORTS / WORD
const FULL = -1

export class EphemeralPorts {
  private count = 0
  /** Bitmaps of 32 ports each; one that is not there has none in use. */
  private readonly words = new Map<number, number>()

  static includes(port: number): boolean {
    return port >= FIRST_PORT && port < FIRST_PORT + PORTS
  }

  get isEmpty(): boolean {
    return this.count === 0
  }

  /** A free port, the first one after a place that `random` chooses; undefined when all are in use or reserved. */
  find(random: number, isReserved?: (port: number) => boolean): number | undefined {
    if (this.count >= PORTS) return undefined
    // As a small integer, which the port then is too: V8 knows connections by the way their fields are kept.
    const start = (random % PORTS) | 0
    const first = Math.floor(start / WORD)
    const offset = start % WORD
    // The first word is looked at twice: from the offset on, and at last in full.
    for (let i = 0; i <= WORDS; i++) {
      const index = (first + i) % WORDS
      const word = this.words.get(index) ?? 0
      if (word === FULL) continue
      for (let bit = i === 0 ? offset : 0; bit < WORD; bit++) {
        const port = FIRST_PORT + index * WORD + bit
        if ((word & (1 << bit)) === 0 && isReserved?.(port) !== true) return port
      }
    }
    return undefined
  }

  add(port: number): void {
    const { index, bit } = placeOf(port)
    const word = this.words.get(index) ?? 0
    if ((word & bit) !== 0) return
    this.words.set(index, word | bit)
    this.count++
  }

  remove(port: number): void {
    const { index, bit } = placeOf(port)
    const word = this.words.get(index) ?? 0
    if ((word & bit) === 0) return
    if (word === bit) this.words.delete(index)
    else this.words.set(index, word & ~bit)
    this.count--
  }
}

const placeOf = (port: number): { index: number; bit: number } => {
  const place = port - FIRST_PORT
  return { index: Math.floor(place / WORD), bit: 1 << (place % WORD) }
}
