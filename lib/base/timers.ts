/**
 * Deadlines without callbacks: an owner names its slots once, asks which are due, and switches over
 * them. `Infinity` means not set.
 */
import type { Millis } from './environment.ts'

/** By their number: a copy is made much faster than a new list. */
const blanks: number[][] = []

const unset = (slots: number): number[] =>
  (blanks[slots] ??= Array.from({ length: slots }, () => Infinity)).slice()

export class TimerTable {
  // Not a Float64Array, which takes twice the memory for so few.
  private readonly deadlines: number[]

  constructor(slots: number) {
    this.deadlines = unset(slots)
  }

  set(slot: number, deadline: Millis): void {
    this.deadlines[slot] = deadline
  }

  clear(slot: number): void {
    this.deadlines[slot] = Infinity
  }

  clearAll(): void {
    // Faster than a `fill`, which is a call into V8.
    for (let i = 0; i < this.deadlines.length; i++) this.deadlines[i] = Infinity
  }

  isSet(slot: number): boolean {
    return this.deadlines[slot]! < Infinity
  }

  deadline(slot: number): Millis {
    return this.deadlines[slot]!
  }

  /** The earliest deadline of all slots. */
  next(): Millis {
    let next = Infinity
    for (let i = 0; i < this.deadlines.length; i++) {
      if (this.deadlines[i]! < next) next = this.deadlines[i]!
    }
    return next
  }

  /** Takes one slot that is due, clearing it; -1 when none is. The earliest comes first. */
  takeDue(now: Millis): number {
    let due = -1
    let earliest = Infinity
    for (let i = 0; i < this.deadlines.length; i++) {
      if (this.deadlines[i]! <= now && this.deadlines[i]! < earliest) {
        due = i
        earliest = this.deadlines[i]!
      }
    }
    if (due >= 0) this.deadlines[due] = Infinity
    return due
  }
}
