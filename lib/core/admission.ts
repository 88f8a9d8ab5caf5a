/**
 * Who may start a handshake (RFC 7296 §2.6). A responder keeps no state for a stranger while many
 * handshakes are half open: it demands a cookie, which proves that the source address is real. Beyond
 * that each source has a share, so one source cannot take the room of all others.
 */
import { toHex } from '../base/bytes.ts'
import type { Path } from '../base/path.ts'

export interface AdmissionLimits {
  /** Half-open IKE SAs in all from which on a cookie is demanded. */
  readonly cookieThreshold: number
  /** Half-open IKE SAs one address may have. */
  readonly halfOpenPerSource: number
  /** Half-open IKE SAs in all; one more displaces the oldest. */
  readonly maxHalfOpen: number
}

/** From this many half-open SAs of one address on, it must prove itself even when all is quiet. */
const COOKIE_PER_SOURCE = 3

export type Verdict = 'accept' | 'demandCookie' | 'drop'

export class Admission {
  private readonly limits: AdmissionLimits
  private readonly perSource = new Map<string, number>()
  private total = 0

  constructor(limits: AdmissionLimits) {
    this.limits = limits
  }

  get halfOpen(): number {
    return this.total
  }

  get full(): boolean {
    return this.total >= this.limits.maxHalfOpen
  }

  decide(path: Path): Verdict {
    const fromSource = this.perSource.get(toHex(path.remoteAddress)) ?? 0
    if (fromSource >= this.limits.halfOpenPerSource) return 'drop'
    if (this.total >= this.limits.cookieThreshold || fromSource >= COOKIE_PER_SOURCE) {
      return 'demandCookie'
    }
    return 'accept'
  }

  opened(path: Path): void {
    const source = toHex(path.remoteAddress)
    this.total++
    this.perSource.set(source, (this.perSource.get(source) ?? 0) + 1)
  }

  /** The handshake of that path ended, one way or the other. */
  settled(path: Path): void {
    const source = toHex(path.remoteAddress)
    const left = (this.perSource.get(source) ?? 0) - 1
    this.total--
    if (left > 0) this.perSource.set(source, left)
    else this.perSource.delete(source)
  }
}
