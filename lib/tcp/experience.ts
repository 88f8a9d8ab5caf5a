/** What a connection has learnt of a path, for itself after a rest and for others that begin (RFC 9040). */
import { copy, equal } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import { ZERO } from '../base/real.ts'

export interface Experience {
  readonly srtt: Millis
  readonly rttvar: Millis
  readonly minRtt: Millis
  /** The window below which it grew exponentially; `Infinity`: not known. */
  readonly threshold: number
  /** Octets that it might have under way at last. */
  readonly window: number
}

/** Ours: how long a measured round trip is trusted; windows, which others use meanwhile, for less. */
const ROUND_TRIPS_LAST: Millis = 600_000
const WINDOWS_LAST: Millis = 60_000
/** What was granted is counted as under way for so many round trips. */
const GRANTED_FOR = 2
/** Ours: a connection that has told of itself this many round trips ago, or less, goes on sending. */
const IN_USE_FOR = 4

/**
 * What the connections with one address have learnt last. A new one gets half of what a single one had, and what begins
 * beside it half of the rest, so that all of them together start with no more than that one.
 */
export class SharedExperience {
  private address: Uint8Array | undefined
  private known: Experience | undefined
  private knownAt: Millis = -Infinity
  private windowAt: Millis = -Infinity
  private usedAt: Millis = -Infinity
  private granted = ZERO
  private grantedAt: Millis = ZERO

  /**
   * A window that is what it was at the `start`, neither grown nor reduced, tells nothing of the path. `isInUse`: the
   * connection goes on, so what it has found is not free.
   */
  note(
    address: Uint8Array,
    experience: Experience,
    start: number,
    isInUse: boolean,
    now: Millis,
  ): void {
    const isOther = this.address === undefined || !equal(this.address, address)
    if (isOther) this.address = copy(address)
    const tellsWindow = experience.window !== start
    const { threshold, window } = tellsWindow || isOther ? experience : (this.known ?? experience)
    this.known = { ...experience, threshold, window }
    this.knownAt = now
    this.usedAt = isInUse ? now : -Infinity
    if (tellsWindow) this.windowAt = now
    else if (isOther) this.windowAt = -Infinity
  }

  /** Round trips to that address. */
  roundTripsTo(address: Uint8Array, now: Millis): Experience | undefined {
    const { known } = this
    if (known === undefined || !equal(this.address!, address)) return undefined
    return now - this.knownAt <= ROUND_TRIPS_LAST ? known : undefined
  }

  /** The first window of a connection with it, and the threshold; it is granted, and less is left for the next. */
  takeWindow(
    address: Uint8Array,
    now: Millis,
  ): { readonly window: number; readonly threshold: number } | undefined {
    const known = this.roundTripsTo(address, now)
    if (known === undefined || now - this.windowAt > WINDOWS_LAST) return undefined
    const most = Math.min(known.window, known.threshold)
    // Beside one that sends slow start looks for room, as ever, and no further than for an equal part.
    if (now - this.usedAt <= IN_USE_FOR * known.srtt)
      return known.threshold === Infinity ? undefined : { window: 0, threshold: most / 2 }
    const passed = (now - this.grantedAt) / Math.max(1, GRANTED_FOR * known.srtt)
    this.granted = Math.max(0, Math.min(this.granted, most) - passed * most)
    this.grantedAt = now
    const window = Math.max(0, (most - this.granted) / 2)
    this.granted += window
    return { window, threshold: known.threshold }
  }

  /** The path is another. */
  forget(): void {
    this.known = undefined
    this.address = undefined
  }
}
