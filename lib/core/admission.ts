/**
 * Who may start a handshake (RFC 7296 §2.6, RFC 8019). A responder keeps no state for a stranger while
 * many handshakes are half open: it demands a cookie, which proves that the source address is real.
 * Beyond that each source has a share of the table, and all of them together a share of the processor.
 */
import { toHex } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
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
/** Part of one core that strangers' key exchanges may take in the long run. */
const COMPUTING_SHARE = 0.25
/** What they may take at once, in milliseconds of computing, after a quiet time. */
const COMPUTING_BURST: Millis = 500
/** The last part of it is for addresses that are proven, so a forger cannot use it up. */
const PROVEN_RESERVE = COMPUTING_BURST / 2

/**
 * First messages taken up in a second, whatever becomes of them: an answer costs ten times what dropping
 * does. Whoever asks again is taken up from a second contingent of that size, so that a client that
 * repeats itself gets through a flood of forged messages, which do not.
 */
const REQUESTS_PER_SECOND = 1000
const SEEN_BITS = 1 << 20
/** How long a first message is remembered at least, by two bits each. */
const SEEN_PERIOD: Millis = 3000

export type Verdict = 'accept' | 'demandCookie' | 'drop'

export class Admission {
  private readonly limits: AdmissionLimits
  private readonly perSource = new Map<string, number>()
  private total = 0
  private computing = COMPUTING_BURST
  private countedAt: Millis = -Infinity
  private readonly fresh = new Contingent(REQUESTS_PER_SECOND)
  private readonly repeated = new Contingent(REQUESTS_PER_SECOND)
  private seen = new Uint32Array(SEEN_BITS / 32)
  private seenBefore = new Uint32Array(SEEN_BITS / 32)
  private seenSince: Millis = -Infinity

  constructor(limits: AdmissionLimits) {
    this.limits = limits
  }

  get halfOpenCount(): number {
    return this.total
  }

  get full(): boolean {
    return this.total >= this.limits.maxHalfOpen
  }

  /** False: there are more first messages than can be looked at. */
  mayAsk(message: Uint8Array, path: Path, now: Millis): boolean {
    if (now - this.seenSince >= SEEN_PERIOD) {
      ;[this.seen, this.seenBefore] = [this.seenBefore.fill(0), this.seen]
      this.seenSince = now
    }
    const hash = hashOf(message, path)
    const [one, other] = [this.note(hash), this.note(Math.imul(hash, 0x9e3779b1))]
    const isRepeated = one && other
    return this.fresh.take(now) || (isRepeated && this.repeated.take(now))
  }

  /** Whether that bit was set already. */
  private note(hash: number): boolean {
    const at = (hash ^ (hash >>> 15)) & (SEEN_BITS - 1)
    const word = at >>> 5
    const bit = 1 << (at & 31)
    const known = ((this.seen[word]! | this.seenBefore[word]!) & bit) !== 0
    this.seen[word]! |= bit
    return known
  }

  decide(path: Path): Verdict {
    const fromSource = this.perSource.get(sourceOf(path)) ?? 0
    if (fromSource >= this.limits.halfOpenPerSource) return 'drop'
    if (this.total >= this.limits.cookieThreshold || fromSource >= COOKIE_PER_SOURCE) {
      return 'demandCookie'
    }
    return 'accept'
  }

  /** There is computing left for the cheapest of key exchanges. */
  canPay(now: Millis): boolean {
    this.earn(now)
    return this.computing >= 1
  }

  /** Takes `cost` milliseconds of computing, if there are as many left. */
  pay(cost: Millis, isProven: boolean, now: Millis): boolean {
    this.earn(now)
    if (this.computing - (isProven ? 0 : PROVEN_RESERVE) < cost) return false
    this.computing -= cost
    return true
  }

  private earn(now: Millis): void {
    const earned = Math.max(0, now - this.countedAt) * COMPUTING_SHARE
    this.computing = Math.min(COMPUTING_BURST, this.computing + earned)
    this.countedAt = now
  }

  opened(path: Path): void {
    const source = sourceOf(path)
    this.total++
    this.perSource.set(source, (this.perSource.get(source) ?? 0) + 1)
  }

  /** The handshake of that path succeeded, or nothing of it is left. */
  settled(path: Path): void {
    const source = sourceOf(path)
    const left = (this.perSource.get(source) ?? 0) - 1
    this.total--
    if (left > 0) this.perSource.set(source, left)
    else this.perSource.delete(source)
  }
}

/** An IPv6 host has a whole /64 to choose addresses from (RFC 6177). */
const sourceOf = ({ remoteAddress }: Path): string => toHex(remoteAddress.subarray(0, 8))

/** So many of something in a second. */
class Contingent {
  private left: number
  private since: Millis = -Infinity
  private readonly perSecond: number

  constructor(perSecond: number) {
    this.perSecond = perSecond
    this.left = perSecond
  }

  take(now: Millis): boolean {
    if (now - this.since >= 1000) {
      this.since = now
      this.left = this.perSecond
    }
    return this.left > 0 && this.left-- > 0
  }
}

/** FNV-1a over SPI and source: it decides only who is dropped sooner under a flood. */
const hashOf = (message: Uint8Array, { remoteAddress, remotePort }: Path): number => {
  let hash = 0x811c9dc5 ^ remotePort
  for (let i = 0; i < 8; i++) hash = Math.imul(hash ^ message[i]!, 0x01000193)
  for (let i = 0; i < remoteAddress.length; i++)
    hash = Math.imul(hash ^ remoteAddress[i]!, 0x01000193)
  return hash
}
