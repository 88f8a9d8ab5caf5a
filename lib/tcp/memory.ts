/**
 * The octets that all connections of one peer hold of our memory: received and not read, or written and not
 * acknowledged. Near the limit windows close and less is taken to send; beyond it what comes is passed over as if it
 * were lost, so that the peer sends it again. A connection whose reader keeps up always has a little.
 */

export interface MemoryHolder {
  /** What it holds now. */
  readonly heldOctets: number
  /** What of that was counted. */
  countedOctets: number
  /** There is room again for what was passed over. */
  onRoom(): void
}

/** Whoever waits is told when so much of the whole is free. */
const ENOUGH = 1 / 8

export class SharedMemory {
  private readonly limit: number
  private held = 0
  private readonly waiting = new Set<MemoryHolder>()

  /** Octets; `Infinity`: no limit. */
  constructor(limit: number) {
    this.limit = limit
  }

  /** Octets that are free. */
  get room(): number {
    return Math.max(0, this.limit - this.held)
  }

  /** Octets that are held. */
  get used(): number {
    return this.held
  }

  /** It may hold more now, or less. */
  count(holder: MemoryHolder): void {
    this.held += holder.heldOctets - holder.countedOctets
    holder.countedOctets = holder.heldOctets
    if (this.waiting.size > 0 && this.room >= this.limit * ENOUGH) this.serve()
  }

  /** It is gone. */
  release(holder: MemoryHolder): void {
    this.held -= holder.countedOctets
    holder.countedOctets = 0
    this.waiting.delete(holder)
    if (this.waiting.size > 0 && this.room >= this.limit * ENOUGH) this.serve()
  }

  /** Something that came for it was passed over. */
  await(holder: MemoryHolder): void {
    this.waiting.add(holder)
  }

  private serve(): void {
    const waiting = [...this.waiting]
    this.waiting.clear()
    for (const holder of waiting) holder.onRoom()
  }
}
