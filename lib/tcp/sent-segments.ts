/**
 * What is under way: one record for each segment, in order of sequence, with what SACK has told (RFC 2018,
 * RFC 6675) and what RACK concludes from the time of sending (RFC 8985 §6).
 */
import type { Millis } from '../base/environment.ts'
import { after, afterOrAt, before, distance } from '../base/serial.ts'

export interface SentSegment {
  readonly seq: number
  readonly end: number
  sentAt: Millis
  firstSentAt: Millis
  retransmitted: boolean
  sacked: boolean
  lost: boolean
}

export class SentSegments {
  readonly list: SentSegment[] = []
  /** Octets of sequence space neither acknowledged nor believed lost, plus those sent again. */
  pipe = 0
  lostCount = 0
  sackedCount = 0
  // The latest delivered transmission (RFC 8985 §6.2 step 2).
  private rackSentAt: Millis = -Infinity
  private rackEnd = 0
  private rackRtt: Millis = 0
  private reordered = false

  get isEmpty(): boolean {
    return this.list.length === 0
  }

  get first(): SentSegment | undefined {
    return this.list[0]
  }

  get last(): SentSegment | undefined {
    return this.list.at(-1)
  }

  sent(seq: number, end: number, now: Millis): void {
    this.list.push({
      seq,
      end,
      sentAt: now,
      firstSentAt: now,
      retransmitted: false,
      sacked: false,
      lost: false,
    })
    this.pipe += distance(end, seq)
  }

  resent(segment: SentSegment, now: Millis): void {
    if (segment.lost) {
      segment.lost = false
      this.lostCount--
      this.pipe += distance(segment.end, segment.seq)
    }
    segment.retransmitted = true
    segment.sentAt = now
  }

  /** Cumulative ACK: returns the newest record it freed that was sent once, to measure by. */
  acknowledge(ack: number, now: Millis): SentSegment | undefined {
    let measured: SentSegment | undefined
    let count = 0
    for (const segment of this.list) {
      if (after(segment.end, ack)) break
      count++
      if (!segment.sacked) this.deliver(segment, now)
      else this.sackedCount--
      if (!segment.retransmitted && !segment.sacked) measured = segment
    }
    this.list.splice(0, count)
    return measured
  }

  /** One SACK block; returns the octets it newly reports. */
  sack(start: number, end: number, now: Millis): number {
    let delivered = 0
    for (let i = this.firstAt(start); i < this.list.length; i++) {
      const segment = this.list[i]!
      if (after(segment.end, end)) break
      if (segment.sacked) continue
      this.deliver(segment, now)
      segment.sacked = true
      this.sackedCount++
      delivered += distance(segment.end, segment.seq)
    }
    return delivered
  }

  private firstAt(seq: number): number {
    let low = 0
    let high = this.list.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (before(this.list[middle]!.seq, seq)) low = middle + 1
      else high = middle
    }
    return low
  }

  private deliver(segment: SentSegment, now: Millis): void {
    if (segment.lost) {
      segment.lost = false
      this.lostCount--
    } else this.pipe -= distance(segment.end, segment.seq)
    const rtt = now - segment.sentAt
    if (segment.retransmitted && rtt < this.rackRtt) return
    if (!segment.retransmitted && before(segment.end, this.rackEnd)) this.reordered = true
    if (
      segment.sentAt > this.rackSentAt ||
      (segment.sentAt === this.rackSentAt && after(segment.end, this.rackEnd))
    ) {
      this.rackSentAt = segment.sentAt
      this.rackEnd = segment.end
      this.rackRtt = rtt
    }
  }

  /**
   * Marks as lost what was sent so long before something that has arrived that it cannot be on its way
   * still (RFC 8985 §6.2 step 5). Returns when to look again; `Infinity`: nothing to wait for.
   */
  detectLoss(srtt: Millis, minRtt: Millis, now: Millis): Millis {
    if (this.rackSentAt === -Infinity) return Infinity
    // Without any reordering seen, three SACKed segments above are proof enough, as ever.
    const patience =
      !this.reordered && this.sackedCount >= DUPLICATE_THRESHOLD ? 0 : Math.min(minRtt / 4, srtt)
    let next = Infinity
    for (const segment of this.list) {
      if (segment.sentAt > this.rackSentAt) {
        if (!segment.retransmitted) break
        continue
      }
      if (segment.sacked || segment.lost) continue
      if (segment.sentAt === this.rackSentAt && afterOrAt(segment.end, this.rackEnd)) continue
      const deadline = segment.sentAt + this.rackRtt + patience
      if (deadline <= now) this.markLost(segment)
      else next = Math.min(next, deadline)
    }
    return next
  }

  markLost(segment: SentSegment): void {
    if (segment.lost || segment.sacked) return
    segment.lost = true
    this.lostCount++
    this.pipe -= distance(segment.end, segment.seq)
  }

  /** The timer went off: nothing that is not SACKed is believed to arrive (RFC 6298 §5, RFC 2018 §8). */
  markAllLost(): void {
    for (const segment of this.list) this.markLost(segment)
  }

  firstLost(): SentSegment | undefined {
    return this.lostCount === 0 ? undefined : this.list.find(({ lost }) => lost)
  }

  clear(): void {
    this.list.length = 0
    this.pipe = 0
    this.lostCount = 0
    this.sackedCount = 0
  }
}

/** RFC 8985 §6.2 step 4, RFC 5681 §3.2. */
export const DUPLICATE_THRESHOLD = 3
