/** What a connection has learnt of a path, for itself after a rest and for others that begin (RFC 9040). */
import type { Millis } from '../base/environment.ts'

export interface Experience {
  readonly srtt: Millis
  readonly rttvar: Millis
  readonly minRtt: Millis
  /** The window below which it grew exponentially; `Infinity`: not known. */
  readonly threshold: number
}
