/**
 * The octets that connections hold of our memory: received and not read, or written and not acknowledged. Those of one
 * peer share what its session may hold, and the sessions share what the endpoint may. A holder that has as much as it leaves
 * to the others is asked to accept no more, so that greedy ones have equal parts and a newcomer finds room. Windows close
 * and less is taken to send long before the whole is used up; only beyond that received data is dropped as if it were
 * lost, so that the peer sends it again. A connection whose reader keeps up always has a little.
 */
import { ZERO } from '../base/real.ts'

interface Waiter {
  /** There is more room than when it began to wait. */
  onRoom(): void
}

export interface MemoryHolder extends Waiter {
  /** What it holds now. */
  readonly heldOctets: number
  /** What of that was counted. */
  countedOctets: number
}

/** Ours: the reserve of each holder, whatever the others hold. */
const RESERVED = 1 << 16
/** Waiting holders are notified when this share of the whole has become free. */
const WORTH = 1 / 16

export class SharedMemory implements Waiter {
  private readonly parent: SharedMemory | undefined
  private limit = ZERO
  private held = 0
  /** The most that was held since those who wait were told. */
  private peak = 0
  private readonly waiting = new Set<Waiter>()

  /** Octets; `Infinity`: no limit of its own. */
  constructor(limit: number, parent?: SharedMemory) {
    this.limit = limit
    this.parent = parent
  }

  /** Another limit from now on; what is held stays. */
  setLimit(limit: number): void {
    this.limit = limit
  }

  /** Octets that nobody holds. */
  get free(): number {
    const { parent, held } = this
    const shared = parent === undefined ? Infinity : Math.max(parent.free, RESERVED - held)
    return Math.max(0, Math.min(this.limit - held, shared))
  }

  /** Octets that are held. */
  get used(): number {
    return this.held
  }

  /** How much more a holder should take, so that it leaves as much as it has. */
  roomFor(holder: MemoryHolder): number {
    const { parent, held } = this
    const fair = parent === undefined ? Infinity : Math.max(parent.free, RESERVED) - held
    return Math.max(0, (Math.min(this.limit - held, fair) - holder.countedOctets) / 2)
  }

  /** It may hold more now, or less. */
  count(holder: MemoryHolder): void {
    const { heldOctets } = holder
    if (heldOctets === holder.countedOctets) return
    const change = heldOctets - holder.countedOctets
    holder.countedOctets = heldOctets
    this.add(change)
  }

  /** The holder is gone. */
  release(holder: MemoryHolder): void {
    const change = 0 - holder.countedOctets
    holder.countedOctets = 0
    this.forget(holder)
    this.add(change)
  }

  /** It wants more than there is room for. */
  await(waiter: Waiter): void {
    this.waiting.add(waiter)
    this.parent?.await(this)
  }

  onRoom(): void {
    const waiting = [...this.waiting]
    this.waiting.clear()
    this.peak = this.held
    for (const waiter of waiting) waiter.onRoom()
  }

  private forget(waiter: Waiter): void {
    if (this.waiting.delete(waiter) && this.waiting.size === 0) this.parent?.forget(this)
  }

  private add(change: number): void {
    this.held += change
    this.parent?.add(change)
    this.peak = this.waiting.size === 0 ? this.held : Math.max(this.peak, this.held)
    if (this.held > this.peak - this.limit * WORTH || this.waiting.size === 0) return
    this.parent?.forget(this)
    this.onRoom()
  }
}
