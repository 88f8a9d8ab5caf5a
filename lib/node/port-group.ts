/**
 * A UDP port for several processes of a cluster, or threads of a process: the first to bind it owns it, and the others borrow
 * it over a local stream socket. Each has a mark, the first octet of all SPIs that it draws; by it the owner hands over
 * what is another's. Requests for new SAs are spread by their SPI, so that repetitions come to the same member. When the
 * owner goes, one of the others binds the port; SAs go on.
 *
 * Where each binds the port itself (`reusePort`), the system spreads what comes, and requests for new SAs stay where they
 * arrive. The owner is then only the one in the middle: what names an SA of another member goes to it and on to that one.
 */
import cluster from 'node:cluster'
import { createHash, randomBytes } from 'node:crypto'
import { rmSync } from 'node:fs'
import net from 'node:net'
import { BroadcastChannel, isMainThread } from 'node:worker_threads'
import type { Millis } from '../base/environment.ts'
import type { Path } from '../base/path.ts'
import { addresseeOf, type Addressee } from '../core/addressee.ts'
import { Claims, lockPlace, meetingPlace, type GroupPlace } from './meeting-place.ts'
import { BorrowedSocket, type Carrier, type CarrierFacts } from './udp-socket.ts'

/** Marks are one octet, and an SPI of ESP below 256 is reserved (RFC 4303 §2.1). */
const MARKS = 255
/** Ours: a local process that connects must say at once who it is. */
const HELLO_TIME = 2000
/** Ours: connections that have not said it yet. */
const MAX_STRANGERS = 64
/** Ours: what a member that does not read keeps waiting; more is dropped, as a full queue of UDP is. */
const MAX_WAITING = 4 << 20
/** Ours: a borrower hands over no more while so much is under way. */
const CONGESTED = 1 << 20
/** Ours: longer than the longest wait between two attempts of a member to reach the next owner. */
const SETTLING: Millis = 1500
/** A datagram, and what stands before it. */
const LONGEST_FRAME = 1 << 17
const KNOCK = 'ike-socket port groups'

const Kind = { Hello: 0, Welcome: 1, Refusal: 2, Datagram: 3 } as const

/** What the owner of a port does for the others. */
export interface OwnerHost {
  /** Equal for members with equal options. */
  print(): string
  readonly sockets: readonly Carrier[]
  /** The owner's own SA. */
  has(addressee: Addressee): boolean
  /** With `reusePort`: it came at the socket of a member, and no other one has its SA. */
  receive(bytes: Uint8Array, path: Path): void
}

interface Hello {
  readonly print: string
  /** Undefined: it has none yet. */
  readonly mark?: number | undefined
  /** With `reusePort`: its process. */
  readonly pid?: number | undefined
}

interface Welcome {
  readonly mark: number
  readonly sockets: readonly CarrierFacts[]
}

export class PortOwner {
  readonly mark: number
  private readonly host: OwnerHost
  private readonly secret = randomBytes(16)
  private readonly members = new Map<number, net.Socket>()
  /** In order, with the owner's own. */
  private marks: readonly number[]
  /** What was given last. */
  private lastMark: number
  private strangers = 0
  private server: net.Server | undefined
  private knocks: BroadcastChannel | undefined
  private readonly place: GroupPlace
  /** With `reusePort`, where any process may come next. */
  private readonly claims: Claims | undefined
  /** Until then members of an owner that is gone may come. */
  private readonly settlesAt: Millis

  /** `mark`: what this end has been until now; undefined: it is the first. */
  constructor(place: GroupPlace, host: OwnerHost, mark: number | undefined) {
    this.place = place
    this.host = host
    this.claims = place.reusePort ? new Claims(meetingPlace(place)) : undefined
    this.lastMark = randomMark()
    this.mark = mark ?? this.nextMark(() => true) ?? this.lastMark
    this.claims?.take(this.mark, process.pid)
    const isFirst = mark === undefined && !place.reusePort
    this.settlesAt = isFirst ? -Infinity : performance.now() + SETTLING
    this.marks = [this.mark]
    // Who has founded a group opens its door when it is told.
    if (place.reusePort) return
    // Of a thread's process only the main thread may be alone in it.
    if (cluster.isWorker || !isMainThread) this.open()
    else this.awaitKnock()
  }

  private awaitKnock(): void {
    const key = JSON.stringify(this.place)
    const knocks = new BroadcastChannel(KNOCK)
    knocks.onmessage = event => {
      if ((event as { data?: unknown }).data === key) this.open()
    }
    // The types of Node 20 lack it.
    ;(knocks as unknown as { unref(): void }).unref()
    this.knocks = knocks
  }

  /** With `reusePort`: the first, or the next after one that is gone. Calls back once. */
  static found(
    place: GroupPlace,
    host: OwnerHost,
    mark: number | undefined,
    done: (founded: PortOwner | Error) => void,
  ): void {
    const owner = new PortOwner(place, host, mark)
    owner.open()
    owner.server!.once('listening', () => done(owner)).once('error', done)
  }

  private open(): void {
    if (this.server !== undefined) return
    const server = net.createServer(stream => this.receive(stream))
    server.on('error', error => {
      process.emitWarning(`The UDP port cannot be shared: ${error.message}`, 'IkePortGroup')
    })
    this.server = server
    try {
      const path = meetingPlace(this.place)
      // Whoever owns the UDP port, or its lock, has the place: what is there is of an owner that is gone.
      rmSync(path, { force: true })
      server.listen({ path, exclusive: true })
      server.unref()
    } catch (error) {
      process.nextTick(() => server.emit('error', error as Error))
    }
  }

  private receive(stream: net.Socket): void {
    stream.unref()
    stream.on('error', () => stream.destroy())
    if (this.strangers >= MAX_STRANGERS) return void stream.destroy()
    this.strangers++
    let isStranger = true
    let mark: number | undefined
    const timer = setTimeout(() => stream.destroy(), HELLO_TIME)
    timer.unref()
    const introduce = (): void => {
      if (isStranger) this.strangers--
      isStranger = false
      clearTimeout(timer)
    }
    const frames = new Frames((kind, payload) => {
      if (mark !== undefined && kind === Kind.Datagram) {
        return this.place.reusePort ? this.pass(payload) : this.send(payload)
      }
      if (!isStranger || kind !== Kind.Hello) return void stream.destroy()
      introduce()
      mark = this.admit(stream, payload)
    })
    stream.on('data', chunk => {
      if (!frames.take(chunk)) stream.destroy()
    })
    stream.on('close', () => {
      introduce()
      if (mark !== undefined) this.leave(mark, stream)
    })
  }

  /** Its mark; undefined: it is refused. */
  private admit(stream: net.Socket, payload: Uint8Array): number | undefined {
    const { print, mark: wanted, pid } = readJson<Partial<Hello>>(payload)
    const mark = this.freeMark(wanted)
    if (print !== this.host.print() || mark === undefined) {
      stream.end(frameOf(Kind.Refusal, Buffer.alloc(0)))
      return undefined
    }
    const sockets = this.host.sockets.map(({ facts }) => facts)
    const welcome: Welcome = { mark, sockets }
    stream.write(frameOf(Kind.Welcome, Buffer.from(JSON.stringify(welcome))))
    this.members.set(mark, stream)
    if (typeof pid === 'number') this.claims?.take(mark, pid)
    this.noteMarks()
    return mark
  }

  /** One that was given lately is not given again soon, since peers may still use it. */
  private freeMark(wanted: unknown): number | undefined {
    const isFree = (mark: number): boolean => mark !== this.mark && !this.members.has(mark)
    return isMark(wanted) && isFree(wanted) ? wanted : this.nextMark(isFree)
  }

  /** One that no member of the last group has, who may come yet. */
  private nextMark(isFree: (mark: number) => boolean): number | undefined {
    for (let tried = 0; tried < MARKS; tried++) {
      this.lastMark = (this.lastMark % MARKS) + 1
      const isTaken = this.claims?.isTaken(this.lastMark) === true
      if (isFree(this.lastMark) && !isTaken) return this.lastMark
    }
    return undefined
  }

  private leave(mark: number, stream: net.Socket): void {
    if (this.members.get(mark) !== stream) return
    this.members.delete(mark)
    this.claims?.give(mark)
    this.noteMarks()
  }

  private noteMarks(): void {
    this.marks = [this.mark, ...this.members.keys()].sort((a, b) => a - b)
  }

  private send(payload: Uint8Array): void {
    const datagram = readDatagram(payload)
    const socket = datagram && this.host.sockets[datagram.socket]
    if (socket === undefined) return
    socket.send(datagram!.bytes, socket.path(datagram!.address, datagram!.port))
    socket.flush()
  }

  /** What came at the socket of a member that does not have the SA; it may be that one's all the same. */
  private pass(payload: Uint8Array): void {
    const datagram = readDatagram(payload)
    const socket = datagram && this.host.sockets[datagram.socket]
    if (socket === undefined) return
    const path = socket.path(datagram!.address, datagram!.port)
    if (!this.take(datagram!.bytes, path)) this.host.receive(datagram!.bytes, path)
  }

  /** True: the datagram has gone to another member, or to nobody. */
  take(
    bytes: Uint8Array,
    { isUnmarked = false, socket, remoteAddress, remotePort }: Path,
  ): boolean {
    const isSettling = this.settlesAt > 0 && performance.now() < this.settlesAt
    if (this.members.size === 0 && !isSettling) return false
    const addressee = addresseeOf(bytes, isUnmarked)
    if (this.host.has(addressee)) return false
    const to = this.memberFor(addressee)
    // Nobody may say yet that such an SA is unknown: its owner may only not have come to us.
    if (to === undefined) return isSettling && addressee.kind !== 'newcomer'
    if (to.writableLength < MAX_WAITING) {
      to.write(datagramFrame(socket, remoteAddress, remotePort, bytes))
    }
    return true
  }

  private memberFor(addressee: Addressee): net.Socket | undefined {
    if (addressee.kind === 'none') return undefined
    if (addressee.kind === 'newcomer') {
      return this.place.reusePort ? undefined : this.members.get(this.choose(addressee.spi))
    }
    if (addressee.kind === 'esp') return this.members.get(addressee.mark)
    // What claims to be of the other end must not make us show the token of an SA that a member has (RFC 6290 §9.2).
    return this.members.get(addressee.spi[0]!) ?? this.members.get(addressee.other[0]!)
  }

  /** The same for the same SPI as long as the members are the same; nobody else can foresee it. */
  private choose(spi: Uint8Array): number {
    const { marks } = this
    const digest = createHash('sha256').update(this.secret).update(spi).digest()
    return marks[digest.readUInt32BE(0) % marks.length]!
  }

  close(): void {
    this.knocks?.close()
    this.server?.close()
    this.claims?.give(this.mark)
    for (const stream of this.members.values()) stream.destroy()
    this.members.clear()
  }
}

/** What a borrower hears. */
export interface BorrowerEvents {
  onDatagram(bytes: Uint8Array, path: Path): void
  /** The owner is gone. */
  onLost(): void
}

/** What came of asking to share a port; undefined: nobody shares it with us. */
export type Joined = PortBorrower | 'refused' | undefined

/** Ours: how long one may wait for another that founds the group. */
const FOUNDING_TIME = 4000

/** Ours: how long an owner may take to let somebody in. */
const JOIN_TIME = 1000
/** Ours: an owner that has just bound the port, or the main thread, which waits for a knock, opens its door a moment later. */
const KNOCK_AGAIN = 20

export class PortBorrower {
  readonly mark: number
  readonly sockets: readonly BorrowedSocket[]
  private readonly stream: net.Socket
  private isOver = false

  private constructor(stream: net.Socket, { mark, sockets }: Welcome) {
    this.mark = mark
    this.stream = stream
    this.sockets = sockets.map(
      (facts, index) =>
        new BorrowedSocket(index, facts, {
          send: (bytes, { remoteAddress, remotePort }) =>
            void this.stream.write(datagramFrame(index, remoteAddress, remotePort, bytes)),
          isCongested: () => this.stream.writableLength > CONGESTED,
          setRef: isReferenced => (isReferenced ? this.stream.ref() : this.stream.unref()),
        }),
    )
  }

  /** Calls back once; 'refused': other options. `mark`: what this end has been until now. */
  static join(
    place: GroupPlace,
    hello: Hello,
    events: BorrowerEvents,
    done: (joined: Joined) => void,
  ): void {
    const endsAt = performance.now() + JOIN_TIME
    const attempt = (): void => {
      const again = (error: NodeJS.ErrnoException): void => {
        const mayOpen = !isMainThread || cluster.isWorker
        const isClosed = error.code === 'ENOENT' || error.code === 'ECONNREFUSED'
        if (!mayOpen || !isClosed || performance.now() > endsAt) return done(undefined)
        if (!isMainThread) knock(place)
        setTimeout(attempt, KNOCK_AGAIN)
      }
      try {
        PortBorrower.attempt(meetingPlace(place), hello, events, again, done)
      } catch {
        done(undefined)
      }
    }
    attempt()
  }

  /** With `reusePort`: becomes a member of the group, or founds it. Calls back once; 'refused': other options. */
  static joinOrFound(
    place: GroupPlace,
    host: OwnerHost,
    mark: number | undefined,
    events: BorrowerEvents,
    done: (joined: PortBorrower | PortOwner | 'refused' | Error) => void,
  ): void {
    const endsAt = performance.now() + FOUNDING_TIME
    const attempt = (path: string, unlock: (() => void) | undefined): void => {
      const settle: typeof done = joined => {
        unlock?.()
        done(joined)
      }
      const failed = (error: NodeJS.ErrnoException | undefined): void => {
        const isOver = performance.now() > endsAt
        const isNobody = error?.code === 'ENOENT' || error?.code === 'ECONNREFUSED'
        if (isNobody && unlock !== undefined) return PortOwner.found(place, host, mark, settle)
        if (isOver) return settle(error ?? new Error('who shares the port does not answer'))
        unlock?.()
        try {
          const lock = isNobody ? lockPlace(path) : undefined
          if (lock === undefined) setTimeout(attempt, KNOCK_AGAIN, path, undefined)
          else attempt(path, lock)
        } catch (reason) {
          done(reason as Error)
        }
      }
      PortBorrower.attempt(
        path,
        { print: host.print(), mark, pid: process.pid },
        events,
        failed,
        joined => {
          if (joined === undefined) return failed(undefined)
          if (joined !== 'refused') joined.stream.unref()
          settle(joined)
        },
      )
    }
    try {
      attempt(meetingPlace(place), undefined)
    } catch (error) {
      process.nextTick(done, error)
    }
  }

  private static attempt(
    path: string,
    hello: Hello,
    events: BorrowerEvents,
    failed: (error: NodeJS.ErrnoException) => void,
    done: (joined: Joined) => void,
  ): void {
    const stream = net.connect({ path })
    let borrower: PortBorrower | undefined
    let error: NodeJS.ErrnoException | undefined
    let isRefused = false
    const frames = new Frames((kind, payload) => {
      if (borrower !== undefined && kind === Kind.Datagram) return borrower.receive(payload, events)
      if (borrower === undefined && kind === Kind.Refusal) isRefused = true
      if (borrower !== undefined || kind !== Kind.Welcome) return void stream.destroy()
      stream.setTimeout(0)
      borrower = new PortBorrower(stream, readJson<Welcome>(payload))
      done(borrower)
    })
    stream.setTimeout(JOIN_TIME, () => stream.destroy())
    stream.on('connect', () => {
      stream.write(frameOf(Kind.Hello, Buffer.from(JSON.stringify(hello))))
    })
    stream.on('data', chunk => {
      if (!frames.take(chunk)) stream.destroy()
    })
    stream.on('error', reason => (error = reason))
    stream.on('close', () => {
      if (borrower !== undefined) borrower.lost(events)
      else if (error !== undefined) failed(error)
      else done(isRefused ? 'refused' : undefined)
    })
  }

  /** With `reusePort`: it came at our socket, and is not for an SA of ours. */
  handOver(bytes: Uint8Array, { socket, remoteAddress, remotePort }: Path): void {
    if (this.stream.writableLength > MAX_WAITING) return
    this.stream.write(datagramFrame(socket, remoteAddress, remotePort, bytes))
  }

  private receive(payload: Uint8Array, events: BorrowerEvents): void {
    const datagram = readDatagram(payload)
    const socket = datagram && this.sockets[datagram.socket]
    if (socket === undefined || this.isOver) return
    events.onDatagram(datagram!.bytes, socket.path(datagram!.address, datagram!.port))
  }

  private lost(events: BorrowerEvents): void {
    if (this.isOver) return
    this.isOver = true
    events.onLost()
  }

  close(): void {
    this.isOver = true
    this.stream.destroy()
  }
}

const knock = (place: GroupPlace): void => {
  const channel = new BroadcastChannel(KNOCK)
  channel.postMessage(JSON.stringify(place))
  channel.close()
}

// --- frames ---

const randomMark = (): number => 1 + (randomBytes(4).readUInt32BE(0) % MARKS)

const isMark = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= MARKS

const readJson = <T>(payload: Uint8Array): T => {
  try {
    const value: unknown = JSON.parse(Buffer.from(payload).toString())
    return (typeof value === 'object' && value !== null ? value : {}) as T
  } catch {
    return {} as T
  }
}

const FRAME_HEADER = 5

const frameOf = (kind: number, payload: Uint8Array): Buffer => {
  const frame = Buffer.allocUnsafe(FRAME_HEADER + payload.length)
  frame.writeUInt32BE(1 + payload.length, 0)
  frame[4] = kind
  frame.set(payload, FRAME_HEADER)
  return frame
}

const datagramFrame = (
  socket: number,
  address: Uint8Array,
  port: number,
  bytes: Uint8Array,
): Buffer => {
  const payload = Buffer.allocUnsafe(4 + address.length + bytes.length)
  payload[0] = socket
  payload[1] = address.length
  payload.writeUInt16BE(port, 2)
  payload.set(address, 4)
  payload.set(bytes, 4 + address.length)
  return frameOf(Kind.Datagram, payload)
}

interface ForeignDatagram {
  readonly socket: number
  readonly address: Uint8Array
  readonly port: number
  readonly bytes: Uint8Array
}

const readDatagram = (payload: Uint8Array): ForeignDatagram | undefined => {
  const [socket, length, high, low] = payload
  if (length !== 4 && length !== 16) return undefined
  if (payload.length <= 4 + length) return undefined
  return {
    socket: socket!,
    port: (high! << 8) | low!,
    address: payload.slice(4, 4 + length),
    bytes: payload.subarray(4 + length),
  }
}

/** Cuts a stream into frames. */
class Frames {
  private waiting: Buffer = Buffer.alloc(0)
  private readonly onFrame: (kind: number, payload: Uint8Array) => void

  constructor(onFrame: (kind: number, payload: Uint8Array) => void) {
    this.onFrame = onFrame
  }

  /** False: these are no frames. */
  take(chunk: Buffer): boolean {
    let rest = this.waiting.length === 0 ? chunk : Buffer.concat([this.waiting, chunk])
    while (rest.length >= FRAME_HEADER) {
      const length = rest.readUInt32BE(0)
      if (length < 1 || length > LONGEST_FRAME) return false
      const end = 4 + length
      if (rest.length < end) break
      // A Buffer's slice() shares memory, a Uint8Array's copies: below here only the latter is meant.
      const at = rest.byteOffset + FRAME_HEADER
      this.onFrame(rest[4]!, new Uint8Array(rest.buffer, at, end - FRAME_HEADER))
      rest = rest.subarray(end)
    }
    this.waiting = rest
    return true
  }
}
