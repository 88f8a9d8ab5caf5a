/** The search for what fits through, under a TCP stack alone: packets are segments with an IPv4 header. */
import type { Millis } from '../../lib/base/environment.ts'
import { SizeSearch, type SizeBounds } from '../../lib/base/size-search.ts'
import type { SizeProber, TcpStack } from '../../lib/tcp/stack.ts'

const IP_HEADER = 20

export class Sizes implements SizeProber {
  readonly search: SizeSearch
  /** Packets that were tried. */
  readonly tried: number[] = []
  private readonly stack: TcpStack

  constructor(stack: TcpStack, bounds: SizeBounds) {
    this.stack = stack
    this.search = new SizeSearch(bounds)
    stack.prober = this
    stack.receiveLimit = bounds.most - IP_HEADER
    this.refresh()
  }

  private refresh(): void {
    this.stack.segmentLimit = this.search.limit - IP_HEADER
  }

  get isProved(): boolean {
    return this.search.isProved
  }

  noteDelivered(): void {
    this.search.noteDelivered()
  }

  candidate(most: number, now: Millis): number {
    const packet = this.search.candidate(most + IP_HEADER, now)
    return packet === 0 ? 0 : packet - IP_HEADER
  }

  noteSent(size: number, now: Millis): void {
    this.tried.push(size + IP_HEADER)
    this.search.noteSent(size + IP_HEADER, now)
  }

  noteAnswered(size: number, now: Millis): void {
    this.search.noteAnswered(size + IP_HEADER, now)
    this.refresh()
  }

  noteLost(size: number, isClear: boolean, now: Millis): void {
    this.search.noteLost(size + IP_HEADER, isClear, now)
  }

  noteTimeout(size: number, times: number, now: Millis): boolean {
    const packet = this.search.below.find(less => less < size + IP_HEADER)
    if (packet === undefined || !this.search.noteTimeout(packet, times, now)) return false
    this.refresh()
    return true
  }
}
