/**
 * Something that grows with time and that there may be too little of, such as computing. What is scarce
 * goes by rank, and within a rank by chance: first come, first served would favour the heaviest sender.
 */
import { EMPTY } from '../base/bytes.ts'
import { randomBytes, type Environment, type Millis } from '../base/environment.ts'

/** A number in [0, 1) that nobody outside can foresee. */
export type Dice = () => number

export const createDice = (environment: Environment): Dice => {
  // Drawn together and only when needed: under a flood there are very many draws.
  let pool = EMPTY
  let at = 0
  return () => {
    if (at + 2 > pool.length) [pool, at] = [randomBytes(environment, 128), 0]
    at += 2
    return ((pool[at - 2]! << 8) | pool[at - 1]!) / 65536
  }
}

/** What lies above this part of the most is for everybody. */
const ABUNDANCE = 1 / 2

export class Allowance {
  private readonly perSecond: number
  private readonly most: number
  private readonly ranks: number
  private readonly dice: Dice
  private left: number
  private countedAt: Millis = -Infinity

  /** Grows by `perSecond` up to `most`; claims have a rank from 0, the best, to `ranks - 1`. */
  constructor(perSecond: number, most: number, ranks: number, dice: Dice) {
    this.perSecond = perSecond
    this.most = most
    this.ranks = ranks
    this.dice = dice
    this.left = most
  }

  /** The part of the most that there is. */
  level(now: Millis): number {
    const grown = (Math.max(0, now - this.countedAt) * this.perSecond) / 1000
    this.left = Math.min(this.most, this.left + grown)
    this.countedAt = now
    return this.left / this.most
  }

  /**
   * Whether a claim of that rank and cost should be met. Each rank has a band of the level in which its
   * chance falls to nothing, above those of all better ranks: too many of one rank leave those alone.
   * What costs much needs a higher level (random early detection, Floyd and Jacobson 1993).
   */
  favours(rank: number, cost: number, now: Millis): boolean {
    const chance = this.chance(rank, cost, now)
    return chance >= 1 || (chance > 0 && this.dice() < chance)
  }

  /** Whether it could be met at all. */
  affords(rank: number, cost: number, now: Millis): boolean {
    return this.chance(rank, cost, now) > 0
  }

  private chance(rank: number, cost: number, now: Millis): number {
    const level = this.level(now) - cost / this.most
    return (level / ABUNDANCE) * this.ranks - rank
  }

  spend(cost: number): void {
    this.left = Math.max(0, this.left - cost)
  }
}
