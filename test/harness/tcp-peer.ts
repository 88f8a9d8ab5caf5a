/** One TCP stack, and a peer whose every segment a test writes by hand, in virtual time. */
import { Packet } from '../../lib/base/packet.ts'
import { putU16, putU32 } from '../../lib/base/bytes.ts'
import type { TcpConfig } from '../../lib/tcp/config.ts'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { TcpListeners } from '../../lib/tcp/listener.ts'
import { DEFAULT_TCP_CONFIG, TcpStack, type TcpEvent } from '../../lib/tcp/stack.ts'
import { TcpFlag, TcpSegment } from '../../lib/wire/tcp.ts'
import { seededEnvironment } from './random.ts'

export const LOCAL = Uint8Array.of(192, 0, 2, 1)
export const REMOTE = Uint8Array.of(198, 51, 100, 2)

const u32 = (value: number): number[] => [
  value >>> 24,
  (value >>> 16) & 255,
  (value >>> 8) & 255,
  value & 255,
]

/** Options as octets. */
export const mss = (size: number): number[] => [2, 4, size >>> 8, size & 255]
export const windowScale = (shift: number): number[] => [1, 3, 3, shift]
export const sackPermitted = [1, 1, 4, 2]
export const sack = (...edges: number[]): number[] => [
  1,
  1,
  5,
  2 + 4 * edges.length,
  ...edges.flatMap(u32),
]
export const timestamps = (value: number, echo: number): number[] => [
  1,
  1,
  8,
  10,
  ...u32(value),
  ...u32(echo),
]

interface Said {
  readonly flags?: number
  readonly seq?: number
  readonly ack?: number
  readonly window?: number
  readonly options?: readonly number[]
  readonly data?: number
  readonly from?: number
  /** Our port. */
  readonly to?: number
}

export interface Heard {
  readonly at: number
  readonly flags: number
  readonly seq: number
  readonly ack: number
  readonly window: number
  readonly data: number
}

export class TcpPeer {
  now = 1000
  readonly stack: TcpStack
  readonly events: TcpEvent[] = []
  /** The peer's next number, and our first octet's. */
  seq = 7000
  ours = 0
  private readonly packet = new Packet()
  private readonly segment = new TcpSegment()

  constructor(config: Partial<TcpConfig> = {}, listeners = new TcpListeners()) {
    this.stack = new TcpStack(seededEnvironment(1), { ...DEFAULT_TCP_CONFIG, ...config }, listeners)
    this.stack.segmentLimit = 1480
    listeners.listen(80, 511)
  }

  /** One segment, to our port 80 where no other is given; numbers are the next ones where none are given. */
  say(said: Said): this {
    const { options = [], data = 0 } = said
    const bytes = new Uint8Array(20 + options.length + data)
    putU16(bytes, 0, said.from ?? 5000)
    putU16(bytes, 2, said.to ?? 80)
    putU32(bytes, 4, (said.seq ?? this.seq) >>> 0)
    putU32(bytes, 8, (said.ack ?? this.ours) >>> 0)
    bytes[12] = (20 + options.length) << 2
    bytes[13] = said.flags ?? TcpFlag.Ack
    putU16(bytes, 14, said.window ?? 65535)
    bytes.set(options, 20)
    this.stack.handleSegment(bytes, 0, bytes.length, REMOTE, LOCAL, this.now, false)
    return this
  }

  /** What we send now. */
  hear(): Heard[] {
    const heard: Heard[] = []
    for (;;) {
      this.packet.reset()
      if (this.stack.pollTransmit(this.packet, this.now) === undefined) break
      const bytes = this.packet.view()
      this.segment.read(bytes, 0, bytes.length)
      const { flags, seq, ack, window, dataLength } = this.segment
      heard.push({ at: this.now, flags, seq, ack, window, data: dataLength })
    }
    for (let event = this.stack.pollEvent(); event !== undefined; event = this.stack.pollEvent())
      this.events.push(event)
    return heard
  }

  /** Time passes; what we send meanwhile. */
  wait(millis: number): Heard[] {
    const end = this.now + millis
    const heard = this.hear()
    for (let due = this.stack.nextTimeout(); due <= end; due = this.stack.nextTimeout()) {
      this.now = Math.max(this.now, due)
      this.stack.handleTimeout(this.now)
      heard.push(...this.hear())
    }
    this.now = end
    return heard
  }

  /** A SYN; our answer to it. */
  syn(options: readonly number[] = mss(1460), said: Said = {}): Heard | undefined {
    const answer = this.say({ flags: TcpFlag.Syn, ack: 0, options, ...said }).hear()[0]
    this.seq++
    if (answer !== undefined) this.ours = answer.seq + 1
    return answer
  }

  /** A connection of the peer's to our port 80. */
  open(
    options: readonly number[] = [...mss(1460), ...sackPermitted, ...windowScale(7)],
    said: Said = {},
  ): TcpConnection {
    this.syn(options, said)
    this.say(said).hear()
    const event = this.events.findLast(({ kind }) => kind === 'accepted')
    if (event === undefined) throw new Error('the connection is not accepted')
    return event.connection
  }
}
