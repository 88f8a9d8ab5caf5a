/** One TCP stack of ours in virtual time, and every segment it sends. */
import type { Millis } from '../../../lib/base/environment.ts'
import { after } from '../../../lib/base/serial.ts'
import { Packet } from '../../../lib/base/packet.ts'
import type { TcpConnection } from '../../../lib/tcp/connection.ts'
import type { Flow } from '../../../lib/tcp/control-block.ts'
import { TcpListeners } from '../../../lib/tcp/listener.ts'
import type { Pacer } from '../../../lib/tcp/pacing.ts'
import { TcpStack } from '../../../lib/tcp/stack.ts'
import { readIcmpError } from '../../../lib/wire/icmp.ts'
import { TcpFlag, TcpSegment } from '../../../lib/wire/tcp.ts'
import { seededEnvironment } from '../../harness/random.ts'
import type { Profile } from './settings.ts'

export interface SentSegment {
  readonly at: Millis
  readonly flags: number
  readonly seq: number
  readonly ack: number
  readonly length: number
  readonly sourcePort: number
  readonly targetPort: number
  readonly timestamp: number | undefined
  /** How many segments had come when it was sent. */
  readonly received: number
  /** All of it was sent before. */
  readonly isRepeat: boolean
  /** It tells of more room and of nothing else. */
  readonly isWindowUpdate: boolean
  /** Start and end in turn. */
  readonly sack: readonly number[]
}

/** What has become of a connection, as its owner is told. */
export interface Fate {
  connected: boolean
  over: boolean
  /** Told once. */
  error: string | undefined
}

const LOCAL_V4 = Uint8Array.of(192, 168, 0, 1)
const REMOTE_V4 = Uint8Array.of(192, 168, 0, 2)
const v6 = (last: number): Uint8Array =>
  Uint8Array.of(0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last)

export class Host {
  now: Millis = 0
  readonly local: Uint8Array
  readonly remote: Uint8Array
  readonly listeners = new TcpListeners()
  readonly sent: SentSegment[] = []
  readonly accepted: TcpConnection[] = []
  /** The connection of which something was heard last. */
  connection: TcpConnection | undefined
  /** Called whenever something may have changed. */
  onChange: () => void = () => undefined
  private readonly profile: Profile
  private readonly fates = new Map<TcpConnection, Fate>()
  private readonly packet = new Packet()
  private readonly segment = new TcpSegment()
  private made: TcpStack | undefined
  private received = 0
  /** Where the stream ends that was sent, of the connection that sent last. */
  private sentEnd: number | undefined
  /** What the last segment acknowledged, and where its window ended. */
  private told = { ack: -1, edge: -1 }

  constructor(profile: Profile, isIpv6: boolean) {
    this.profile = profile
    this.local = isIpv6 ? v6(1) : LOCAL_V4
    this.remote = isIpv6 ? v6(2) : REMOTE_V4
  }

  /** Made when it is needed first: until then the script sets it up. */
  get stack(): TcpStack {
    if (this.made === undefined) {
      this.made = new TcpStack(seededEnvironment(1), this.profile.config, this.listeners)
      const header = this.local.length === 16 ? 40 : 20
      this.made.segmentLimit = this.profile.mtu - header - this.profile.encapsulation
    }
    return this.made
  }

  connect(remotePort: number): TcpConnection | undefined {
    const flow: Flow = {
      localAddress: this.local,
      localPort: 0,
      remoteAddress: this.remote,
      remotePort,
    }
    this.connection = this.stack.connect(flow, {}, this.now)
    return this.connection
  }

  receive(bytes: Uint8Array): void {
    const { stack, remote, local, now } = this
    stack.handleSegment(bytes, 0, bytes.length, remote, local, now, false)
    this.received++
    this.collect()
  }

  receiveIcmp(bytes: Uint8Array): void {
    const isIpv6 = this.local.length === 16
    const error = readIcmpError(bytes, 0, bytes.length, isIpv6 ? 6 : 4)
    if (error?.kind === 'unreachable') this.stack.handleUnreachable(error, error.hard)
    if (error?.kind === 'tooBig') this.stack.handleTooBig(error, error.mtu, this.now)
    this.collect()
  }

  /** Also of connections that nobody has accepted. */
  connections(): TcpConnection[] {
    // The table is the stack's own; nothing but a test counts its states.
    const { connections } = this.stack as unknown as { connections: Map<number, TcpConnection[]> }
    return [...connections.values()].flat()
  }

  /** Connections of which nothing but a record is left. */
  get waiting(): number {
    return this.stack['waits'].size
  }

  fateOf(connection: TcpConnection): Fate {
    let fate = this.fates.get(connection)
    if (fate === undefined) {
      fate = { connected: false, over: false, error: undefined }
      this.fates.set(connection, fate)
    }
    return fate
  }

  // --- time ---

  advance(to: Millis): void {
    for (let due = this.next(); due <= to; due = this.next()) {
      this.now = Math.max(this.now, due)
      this.stack.handleTimeout(this.now)
      this.collect()
    }
    this.now = Math.max(this.now, to)
  }

  /** When something happens of itself. */
  next(): Millis {
    return this.made?.nextTimeout() ?? Infinity
  }

  /** Takes what the stack has to tell and to send. */
  collect(): void {
    if (this.made === undefined) return
    this.collectEvents()
    this.collectSegments()
    this.onChange()
  }

  private collectEvents(): void {
    const { stack } = this
    for (let event = stack.pollEvent(); event !== undefined; event = stack.pollEvent()) {
      const { connection, kind, error } = event
      const fate = this.fateOf(connection)
      if (!fate.connected) this.adapt(connection)
      if (kind === 'accepted') this.accepted.push(connection)
      if (kind === 'accepted' || kind === 'connected') {
        fate.connected = true
        this.connection = connection
      }
      if (kind !== 'closed') continue
      fate.over = true
      fate.error = error instanceof Error ? error.message : error
    }
  }

  /**
   * The kernels that scripts are written for leave pacing to their queues, which scripts do not have, and can keep a window
   * that is out of date.
   */
  private adapt({ recovery, congestionControl }: TcpConnection): void {
    if (this.profile.keepsIdleWindow) recovery.noteIdleTime = () => undefined
    if (congestionControl === 'bbr') return
    const { pacer } = recovery as unknown as { pacer: Pacer }
    pacer.allowedAt = now => now
  }

  private isRepeat({ seq, length }: TcpSegment): boolean {
    const end = (seq + length) >>> 0
    const isRepeat = length > 0 && this.sentEnd !== undefined && !after(end, this.sentEnd)
    if (length > 0 && !isRepeat) this.sentEnd = end
    return isRepeat
  }

  private collectSegments(): void {
    for (;;) {
      this.packet.reset()
      if (this.stack.pollTransmit(this.packet, this.now) === undefined) return
      const bytes = this.packet.view()
      const { segment } = this
      if (!segment.read(bytes, 0, bytes.length)) throw new Error('we sent no segment')
      const sack: number[] = []
      for (let i = 0; i < segment.sackCount; i++)
        sack.push(segment.sackStart[i]!, segment.sackEnd[i]!)
      const edge = segment.ack + (segment.window << (this.connection?.rcvWndShift ?? 0))
      const isBare = segment.length === 0 && segment.flags === TcpFlag.Ack && sack.length === 0
      const isWindowUpdate = isBare && segment.ack === this.told.ack && edge > this.told.edge
      this.told = { ack: segment.ack, edge }
      this.sent.push({
        at: this.now,
        flags: segment.flags,
        seq: segment.seq,
        ack: segment.ack,
        length: segment.dataLength,
        sourcePort: segment.sourcePort,
        targetPort: segment.destinationPort,
        timestamp: segment.hasTimestamps ? segment.timestampValue : undefined,
        sack,
        isWindowUpdate,
        received: this.received,
        isRepeat: this.isRepeat(segment),
      })
    }
  }
}
