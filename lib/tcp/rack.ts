/**
 * Which of what is under way is lost, by the time at which it was sent (RACK, RFC 8985 §6): what was sent
 * well before something that has arrived is not on its way any more.
 */
import type { Millis } from '../base/environment.ts'
import { ZERO } from '../base/real.ts'
import { after, afterOrAt, before } from '../base/serial.ts'
import { NONE, type SentSegments } from './sent-segments.ts'

/** RFC 8985 §6.2 step 4, RFC 5681 §3.2. */
export const DUPLICATE_THRESHOLD = 3
/** Recoveries without a duplicate after which the reordering window is small again. */
const WINDOW_PERSISTS = 16

export class Rack {
  /** The latest transmission that has been delivered. */
  private sentAt: Millis = -Infinity
  private end = ZERO
  private rtt: Millis = ZERO
  /** The highest sequence number delivered, and what it was before the ACK at hand. */
  private highest = ZERO
  private highestBefore = ZERO
  private hasReordering = false
  private windowFactor = 1
  private windowPersists = 0
  /** One duplicate for each round trip counts: until this is acknowledged, no other does. */
  private duplicateRound = ZERO
  private isInDuplicateRound = false

  constructor(iss: number) {
    this.end = iss
    this.highest = iss
    this.highestBefore = iss
  }

  /** What one ACK reports has arrived in order, as far as it tells. */
  beginAck(): void {
    this.highestBefore = this.highest
  }

  /** Step 2 and 3, for each record that is delivered. `isAmbiguous`: it was sent again, but the original came. */
  delivered(
    segments: SentSegments,
    slot: number,
    isRepeated: boolean,
    isAmbiguous: boolean,
    now: Millis,
  ): void {
    const end = segments.end(slot)
    // Of two sendings that may have arrived, the first one is the careful answer.
    const sentAt = isAmbiguous ? segments.firstSentAt(slot) : segments.sentAt(slot)
    if (after(end, this.highest)) this.highest = end
    if (before(end, this.highestBefore) && (isAmbiguous || !isRepeated)) this.hasReordering = true
    if (sentAt < this.sentAt || (sentAt === this.sentAt && !after(end, this.end))) return
    this.sentAt = sentAt
    this.end = end
    if (!isAmbiguous) this.rtt = now - sentAt
  }

  /** A D-SACK: something was sent again without need. */
  noteDuplicate(sndNxt: number): void {
    if (this.isInDuplicateRound) return
    this.isInDuplicateRound = true
    this.duplicateRound = sndNxt
    this.windowFactor++
    this.windowPersists = WINDOW_PERSISTS
  }

  acknowledged(ack: number): void {
    if (this.isInDuplicateRound && afterOrAt(ack, this.duplicateRound))
      this.isInDuplicateRound = false
  }

  recovered(): void {
    if (this.windowPersists > 0 && --this.windowPersists === 0) this.windowFactor = 1
  }

  /** Step 4. */
  private reorderingWindow(
    segments: SentSegments,
    isRecovering: boolean,
    srtt: Millis,
    minRtt: Millis,
  ): Millis {
    if (!this.hasReordering && (isRecovering || segments.sackedCount >= DUPLICATE_THRESHOLD))
      return 0
    return Math.min((this.windowFactor * minRtt) / 4, srtt)
  }

  /** Step 5: marks what is lost. Returns when to look again; `Infinity`: nothing to wait for. */
  detect(
    segments: SentSegments,
    isRecovering: boolean,
    srtt: Millis,
    minRtt: Millis,
    now: Millis,
  ): Millis {
    if (!this.isSentBefore(segments, segments.oldest)) return Infinity
    const limit = this.rtt + this.reorderingWindow(segments, isRecovering, srtt, minRtt)
    for (let slot = segments.oldest; this.isSentBefore(segments, slot); slot = segments.oldest) {
      const lostAt = segments.sentAt(slot) + limit
      if (lostAt > now) return lostAt
      segments.markLost(slot)
    }
    return Infinity
  }

  /** It is under way, and was sent before something that has arrived. */
  private isSentBefore(segments: SentSegments, slot: number): boolean {
    if (slot === NONE) return false
    const sentAt = segments.sentAt(slot)
    return sentAt === this.sentAt ? before(segments.end(slot), this.end) : sentAt < this.sentAt
  }

  /** The timer went off (§6.3): what was sent long enough ago is lost, the rest may be on its way. */
  markAtTimeout(segments: SentSegments, srtt: Millis, minRtt: Millis, now: Millis): void {
    const limit = this.rtt + this.reorderingWindow(segments, true, srtt, minRtt)
    for (let slot = segments.oldest; slot !== NONE; slot = segments.oldest) {
      if (segments.sentAt(slot) + limit > now) break
      segments.markLost(slot)
    }
  }
}
