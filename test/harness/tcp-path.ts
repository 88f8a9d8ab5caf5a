/**
 * Two TCP stacks over a path in virtual time. Each way has a rate, a delay and a queue, and may lose,
 * hold back or reorder what it carries.
 */
import { Packet } from '../../lib/base/packet.ts'
import type { TcpConfig } from '../../lib/tcp/config.ts'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { TcpListeners } from '../../lib/tcp/listener.ts'
import type { SharedMemory } from '../../lib/tcp/memory.ts'
import { DEFAULT_TCP_CONFIG, TcpStack, type TcpEvent } from '../../lib/tcp/stack.ts'
import { Random, seededEnvironment } from './random.ts'
import { LOCAL, REMOTE } from './tcp-peer.ts'

export interface Way {
  /** Mbit/s. */
  readonly rate?: number
  /** Milliseconds, one way. */
  readonly delay: number
  /** Packets that wait at the bottleneck before more are dropped. */
  readonly queue?: number
  readonly loss?: number
  /** The share of packets that come `lateBy` milliseconds late. */
  readonly late?: number
  readonly lateBy?: number
  /** Nothing arrives between these instants; it comes when the second is over. */
  readonly held?: readonly [number, number]
  /** False: this segment is lost. */
  readonly passes?: (segment: Uint8Array, now: number) => boolean
}

const IP_HEADER = 20

class Link {
  sent = 0
  dropped = 0
  private freeAt = 0
  private latest = 0
  private readonly random: Random
  readonly way: Way

  constructor(way: Way, seed: number) {
    this.way = way
    this.random = new Random(seed)
  }

  /** When it arrives; undefined: never. */
  carry(segment: Uint8Array, now: number): number | undefined {
    const { rate = Infinity, delay, queue = Infinity, loss = 0, late = 0, held } = this.way
    this.sent++
    if (this.way.passes?.(segment, now) === false) return undefined
    const takes = rate === Infinity ? 0 : ((segment.length + IP_HEADER) * 8) / (rate * 1000)
    const from = Math.max(now, this.freeAt)
    if (rate < Infinity && from - now >= (queue * 12) / rate) {
      this.dropped++
      return undefined
    }
    this.freeAt = from + takes
    if (loss > 0 && this.random.chance(loss)) return undefined
    let at = this.freeAt + delay
    if (held !== undefined && at >= held[0] && at < held[1]) at = held[1]
    if (late > 0 && this.random.chance(late)) return at + (this.way.lateBy ?? 0)
    this.latest = Math.max(this.latest, at)
    return this.latest
  }
}

interface End {
  readonly stack: TcpStack
  readonly listeners: TcpListeners
  readonly link: Link
}

interface Entry {
  readonly at: number
  readonly order: number
  readonly work: () => void
}

/** What is to be done when; hardly anything is added that comes before something else here. */
class Agenda {
  private readonly entries: (Entry | undefined)[] = []
  private head = 0

  get first(): Entry | undefined {
    return this.entries[this.head]
  }

  add(entry: Entry): void {
    const { entries } = this
    let place = entries.length
    while (place > this.head && entries[place - 1]!.at > entry.at) place--
    if (place === entries.length) entries.push(entry)
    else entries.splice(place, 0, entry)
  }

  take(): () => void {
    const { work } = this.entries[this.head]!
    this.entries[this.head++] = undefined
    if (this.head >= 4096) {
      this.entries.splice(0, this.head)
      this.head = 0
    }
    return work
  }
}

export class TcpPath {
  now = 0
  /** Milliseconds between two looks of the sender's program, which is busy otherwise, at datagrams and timers; 0: it is not. */
  turn = 0
  private isBusy = false
  /** The sender's end, and the receiver's. */
  readonly a: End
  readonly b: End
  onEvent: (end: End, event: TcpEvent) => void = () => undefined
  /** What arrives by each link, and what a test does. */
  private readonly agendas = [new Agenda(), new Agenda(), new Agenda()] as const
  private order = 0
  /** Segments that have arrived, to be used again, by their length. */
  private readonly spare = new Map<number, Uint8Array[]>()
  private readonly packet = new Packet()

  /** `memory`: what the receiver's end shares with those of other paths. */
  constructor(
    there: Way,
    back: Way,
    config: Partial<TcpConfig> = {},
    seed = 1,
    memory?: SharedMemory,
  ) {
    const end = (way: Way, salt: number, shared?: SharedMemory): End => {
      const listeners = new TcpListeners()
      const environment = seededEnvironment(seed + salt)
      const settings = { ...DEFAULT_TCP_CONFIG, ...config }
      const stack = new TcpStack(environment, settings, listeners, shared)
      stack.segmentLimit = 1480
      return { stack, listeners, link: new Link(way, seed * 7 + salt) }
    }
    this.a = end(there, 1)
    this.b = end(back, 2, memory)
  }

  at(time: number, work: () => void): void {
    this.agendas[2].add({ at: time, order: this.order++, work })
  }

  /** Of the same instant, what was said first. */
  private get due(): Agenda | undefined {
    let soonest: Agenda | undefined
    let entry: Entry | undefined
    for (const agenda of this.agendas) {
      const { first } = agenda
      if (first === undefined) continue
      const isSooner =
        entry === undefined ||
        first.at < entry.at ||
        (first.at === entry.at && first.order < entry.order)
      if (!isSooner) continue
      soonest = agenda
      entry = first
    }
    return soonest
  }

  /** A copy of the packet. */
  private carried({ bytes, start, end }: Packet): Uint8Array {
    const segment = this.spare.get(end - start)?.pop() ?? new Uint8Array(end - start)
    segment.set(bytes.subarray(start, end))
    return segment
  }

  private giveBack(segment: Uint8Array): void {
    const known = this.spare.get(segment.length)
    if (known === undefined) this.spare.set(segment.length, [segment])
    else known.push(segment)
  }

  /** Everything goes out that may, and events are told, until both ends are quiet. */
  pump(): void {
    while (this.pumpOne(this.a, this.b) || this.pumpOne(this.b, this.a));
  }

  private pumpOne(from: End, to: End): boolean {
    if (this.isBusy && from === this.a) return false
    let isActive = false
    for (;;) {
      this.packet.reset()
      if (from.stack.pollTransmit(this.packet, this.now) === undefined) break
      isActive = true
      const bytes = this.carried(this.packet)
      const arrivesAt = from.link.carry(bytes, this.now)
      const at = to === this.a && arrivesAt !== undefined ? this.nextTurn(arrivesAt) : arrivesAt
      const [source, target] = from === this.a ? [LOCAL, REMOTE] : [REMOTE, LOCAL]
      if (at === undefined) continue
      const work = (): void => {
        to.stack.handleSegment(bytes, 0, bytes.length, source, target, this.now, false)
        this.giveBack(bytes)
      }
      this.agendas[from === this.a ? 0 : 1].add({ at, order: this.order++, work })
    }
    for (let event = from.stack.pollEvent(); event !== undefined; event = from.stack.pollEvent()) {
      isActive = true
      this.onEvent(from, event)
      if (event.kind === 'readable' && event.connection.isUntold) event.connection.noteTold()
    }
    return isActive
  }

  /** When the sender's program next looks, at `time` or later. */
  private nextTurn(time: number): number {
    return this.turn === 0 ? time : Math.ceil(time / this.turn) * this.turn
  }

  run(until: number): void {
    this.pump()
    for (;;) {
      const { a, b, turn } = this
      const wakesAt = turn === 0 ? Math.ceil(a.stack.nextTimeout()) : this.nextTurn(this.now + 1)
      const timer = Math.min(wakesAt, Math.ceil(b.stack.nextTimeout()))
      const next = Math.min(timer, this.due?.first?.at ?? Infinity)
      if (next > until) break
      this.now = Math.max(this.now, next)
      this.isBusy = turn > 0
      for (let due = this.due; due !== undefined && due.first!.at <= this.now; due = this.due) {
        due.take()()
        this.pump()
      }
      this.isBusy &&= this.now !== this.nextTurn(this.now)
      if (!this.isBusy) a.stack.handleTimeout(this.now)
      b.stack.handleTimeout(this.now)
      this.pump()
    }
    this.now = until
  }

  connect(): TcpConnection {
    const flow = { localAddress: LOCAL, localPort: 0, remoteAddress: REMOTE, remotePort: 80 }
    this.b.listeners.listen(80, 10)
    return this.a.stack.connect(flow, { noDelay: true }, this.now)!
  }

  /** `a` sends so many octets to `b`, which reads them at once. */
  bulk(octets = Infinity): Bulk {
    const bulk = new Bulk(this.connect(), octets)
    this.onEvent = (end, { kind, connection, error }) => {
      if (end === this.a && kind === 'closed') bulk.error = error && String(error)
      if (end === this.a && (kind === 'connected' || kind === 'writable')) bulk.fill()
      if (end === this.b && kind === 'readable') bulk.drain(connection, this.now)
    }
    return bulk
  }
}

const BLOCK = new Uint8Array(65536)

export class Bulk {
  received = 0
  lastAt = 0
  error: string | undefined
  readonly connection: TcpConnection
  left: number

  constructor(connection: TcpConnection, octets: number) {
    this.connection = connection
    this.left = octets
  }

  fill(): void {
    while (this.left > 0) {
      const wanted = Math.min(BLOCK.length, this.left)
      const taken = this.connection.send(BLOCK.subarray(0, wanted))
      this.left -= taken
      if (taken < wanted) return
    }
  }

  drain(connection: TcpConnection, now: number): void {
    for (let piece = connection.receive(); piece !== undefined; piece = connection.receive()) {
      this.received += piece.length
      this.lastAt = now
    }
  }
}
