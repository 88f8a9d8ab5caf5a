/**
 * How large TCP's segments may be: what the search of the path says, less what ESP and the headers around it take. It
 * tells the stack, and the search what became of the segments that it tried.
 */
import type { Millis } from '../base/environment.ts'
import type { SizeSearch } from '../base/size-search.ts'
import type { SizeProber, TcpStack } from '../tcp/stack.ts'
import type { ChildTable } from './child-table.ts'
import type { Paths } from './paths.ts'

export class SegmentSizes implements SizeProber {
  private readonly paths: Paths
  private readonly children: ChildTable<unknown>
  private readonly stack: TcpStack
  /** The packet that is tried. */
  private tried = 0

  constructor(paths: Paths, children: ChildTable<unknown>, stack: TcpStack) {
    this.paths = paths
    this.children = children
    this.stack = stack
    stack.prober = this
  }

  /** After anything that they depend on has changed. */
  refresh(): void {
    const { paths, stack, children } = this
    if (children.inUse.length === 0) return
    stack.segmentLimit = this.segmentOf(this.search.limit)
    stack.receiveLimit = this.segmentOf(paths.receivable)
  }

  private get search(): SizeSearch {
    return this.paths.sizes
  }

  /** The largest segment in an IP packet of so many octets. */
  private segmentOf(packet: number): number {
    return this.children.segmentLimit(this.paths.datagramOf(packet))
  }

  get isProved(): boolean {
    return this.search.isProved
  }

  noteDelivered(): void {
    this.search.noteDelivered()
  }

  candidate(most: number, now: Millis): number {
    // Without a Child SA nobody knows what stands around a segment, and nothing is sent.
    if (this.paths.isOnTrial || this.children.inUse.length === 0) return 0
    const { search } = this
    // Each new segment asks, so what costs more comes last.
    if (!search.isDue(now)) return 0
    const packet = search.candidate(this.packetOf(most), now)
    if (packet === 0) return 0
    this.tried = packet
    const size = this.segmentOf(packet)
    return size > this.stack.segmentLimit ? size : 0
  }

  /** The largest IP packet that has a segment of so many octets; no more than the path may take. */
  private packetOf(segment: number): number {
    const { most } = this.search
    const excess = this.segmentOf(most) - segment
    if (excess <= 0) return most
    let packet = most - excess
    while (packet > 0 && this.segmentOf(packet) > segment) packet--
    return packet
  }

  noteSent(_size: number, now: Millis): void {
    this.search.noteSent(this.tried, now)
  }

  noteAnswered(size: number, now: Millis): void {
    if (this.segmentOf(this.tried) !== size) return
    this.search.noteAnswered(this.tried, now)
    this.refresh()
  }

  noteLost(size: number, isClear: boolean, now: Millis): void {
    if (this.segmentOf(this.tried) === size) this.search.noteLost(this.tried, isClear, now)
  }

  /** The system does not send, or cuts, what is as large as the limit. */
  noteTooBig(now: Millis): void {
    this.search.noteTooBig(now)
    this.refresh()
  }

  noteTimeout(size: number, times: number, now: Millis): boolean {
    const packet = this.search.below.find(less => this.segmentOf(less) < size)
    if (packet === undefined || !this.search.noteTimeout(packet, times, now)) return false
    this.refresh()
    return true
  }
}
