/**
 * Two whole endpoints in one process: virtual time and a network that loses, duplicates, delays,
 * reorders, corrupts and re-maps, all from one seed.
 */
import { parseAddress } from '../../lib/base/address.ts'
import { getU32, toHex } from '../../lib/base/bytes.ts'
import { Packet } from '../../lib/base/packet.ts'
import type { Path } from '../../lib/base/path.ts'
import { SILENT, type Tracer } from '../../lib/base/trace.ts'
import { Core } from '../../lib/core/core.ts'
import type {
  Attempt,
  Connection,
  CoreEvent,
  Question,
  SessionHandle,
} from '../../lib/core/events.ts'
import { parseCredentials } from '../../lib/identity/credentials.ts'
import { parsePolicy } from '../../lib/policy/options.ts'
import { DEFAULT_TCP_CONFIG } from '../../lib/tcp/config.ts'
import { Random, seededEnvironment } from './random.ts'

export interface Network {
  /** Probabilities, each for one datagram. */
  loss: number
  duplicate: number
  corrupt: number
  /** Milliseconds: the least one way, and what chance adds. */
  delay: number
  jitter: number
}

export const PERFECT: Network = { loss: 0, duplicate: 0, corrupt: 0, delay: 5, jitter: 0 }

/** What a stream carries: an octet is known by its place, so any loss or shift shows. */
export const patternAt = (stream: number, offset: number): number =>
  (offset * 31 + (offset >>> 8) * 17 + (offset >>> 16) * 5 + stream * 101) & 0xff

export const pattern = (stream: number, from: number, length: number): Uint8Array => {
  const octets = new Uint8Array(length)
  for (let i = 0; i < length; i++) octets[i] = patternAt(stream, from + i)
  return octets
}

/** One end of a connection, driven by the world: writes, reads and closes. */
export class Stream {
  connection: Connection | undefined
  sent = 0
  received = 0
  ended = false
  closed = false
  error: Error | undefined
  corrupted = false
  /** Octets to send before FIN. */
  readonly toSend: number
  readonly ownStream: number
  readonly peerStream: number
  paused = false
  /** Octets it may write for now: a slow source. */
  budget = Infinity

  constructor(toSend: number, ownStream: number, peerStream: number) {
    this.toSend = toSend
    this.ownStream = ownStream
    this.peerStream = peerStream
  }

  write(): void {
    const { connection } = this
    if (connection === undefined || this.closed) return
    while (this.sent < this.toSend) {
      const length = Math.min(10_000, this.toSend - this.sent, this.budget)
      if (length === 0) return
      const taken = connection.send(pattern(this.ownStream, this.sent, length))
      this.sent += taken
      this.budget -= taken
      if (taken < length) return
    }
    connection.shutdown()
  }

  read(): void {
    if (this.paused || this.connection === undefined) return
    for (
      let octets = this.connection.receive();
      octets !== undefined;
      octets = this.connection.receive()
    ) {
      for (const octet of octets) {
        if (octet !== patternAt(this.peerStream, this.received++)) this.corrupted = true
      }
    }
  }
}

interface InFlight {
  readonly at: number
  readonly order: number
  readonly to: 'client' | 'server'
  readonly bytes: Uint8Array
  readonly path: Path
}

const SERVER_ADDRESS = parseAddress('192.0.2.1')!
const SERVER_PORT = 4500
/** No scenario needs more; two ends that talk for ever about nothing do. */
const MAX_DATAGRAMS = 200_000

export type Options = Record<string, unknown>

export class World {
  now = 1000
  readonly client: Core
  readonly server: Core
  readonly network: Network
  readonly accepted: Stream[] = []
  readonly sessions = { client: [] as SessionHandle[], server: [] as SessionHandle[] }
  readonly events: CoreEvent[] = []
  /** A fingerprint of every datagram that was sent, in order. */
  trace = 0
  datagrams = 0
  /** ESP packets seen twice with the same SPI and sequence number from their sender. */
  repeatedIvs = 0
  leaked = false
  /** Makes the server's half of each accepted connection. */
  serve: (index: number) => Stream = () => new Stream(0, 2, 1)
  /** Sees each datagram before the network does; false: it is lost. */
  filter: (to: 'client' | 'server', bytes: Uint8Array) => boolean = () => true
  /** The application's answers to what a core asks; they come at once. */
  answers: (side: 'client' | 'server', question: Question) => unknown = () => undefined
  /** Secrets of the plaintext that must never be seen outside. */
  marker: Uint8Array | undefined
  clientAddress = parseAddress('198.51.100.7')!
  clientPort = 40001
  private readonly random: Random
  private readonly packet = new Packet()
  private readonly wire: InFlight[] = []
  private order = 0
  private readonly ivs = new Set<string>()
  private readonly clientSecurity

  constructor(
    seed: number,
    network: Network = PERFECT,
    clientOptions: Options = {},
    serverOptions: Options = {},
    tracer: Tracer = SILENT,
    wallClock?: number,
  ) {
    this.random = new Random(seed)
    this.network = { ...network }
    const security = (options: Options) => {
      const all = { psk: 'simulated pre-shared key', ...options }
      return { policy: parsePolicy(all), credentials: parseCredentials(all) }
    }
    this.clientSecurity = security(clientOptions)
    this.client = new Core({
      environment: seededEnvironment(seed + 1, wallClock),
      tracer,
      tcp: DEFAULT_TCP_CONFIG,
    })
    this.server = new Core({
      environment: seededEnvironment(seed + 2, wallClock),
      tracer,
      tcp: DEFAULT_TCP_CONFIG,
      responder: security(serverOptions),
    })
    this.server.listeners.listen(80, 511)
  }

  /** Opens a stream from the client to the server's port 80. */
  connect(stream: Stream, port = 80): Attempt {
    const path: Path = {
      socket: 0,
      localAddress: this.clientAddress,
      localPort: this.clientPort,
      remoteAddress: SERVER_ADDRESS,
      remotePort: SERVER_PORT,
    }
    const attempt = this.client.connect(
      { ...this.clientSecurity, path },
      {
        remoteAddress: SERVER_ADDRESS,
        remotePort: port,
        localPort: 0,
        noDelay: false,
        keepAlive: undefined,
      },
      stream,
      this.now,
    )
    this.pump()
    return attempt
  }

  /** Sends what is ready, delivers events, until both ends are quiet. */
  pump(): void {
    for (let busy = true; busy;) {
      busy = this.pumpOne(this.client, 'server') || this.pumpOne(this.server, 'client')
    }
  }

  private pumpOne(core: Core, to: 'client' | 'server'): boolean {
    let busy = false
    for (
      let path = core.pollTransmit(this.packet, this.now);
      path !== undefined;
      path = core.pollTransmit(this.packet, this.now)
    ) {
      busy = true
      this.send(this.packet.view().slice(), to, path)
    }
    for (let event = core.pollEvent(); event !== undefined; event = core.pollEvent()) {
      busy = true
      this.deliver(core, event)
    }
    return busy
  }

  private send(bytes: Uint8Array, to: 'client' | 'server', path: Path): void {
    if (++this.datagrams > MAX_DATAGRAMS)
      throw new Error(`runaway: ${to} gets ${bytes.length} octets again and again`)
    for (const octet of bytes.subarray(0, 64))
      this.trace = (Math.imul(this.trace, 31) + octet) >>> 0
    if (bytes.length > 8 && getU32(bytes, 0) !== 0) {
      const iv = `${to}${toHex(bytes.subarray(0, 16))}`
      if (this.ivs.has(iv)) this.repeatedIvs++
      this.ivs.add(iv)
    }
    if (this.marker !== undefined && includes(bytes, this.marker)) this.leaked = true
    if (!this.filter(to, bytes)) return
    const { loss, duplicate, corrupt, delay, jitter } = this.network
    const copies = this.random.chance(loss) ? 0 : this.random.chance(duplicate) ? 2 : 1
    for (let i = 0; i < copies; i++) {
      const copy = bytes.slice()
      // UDP's own checksum guards what nothing else protects yet: the first two messages.
      if (!isSaInit(copy) && this.random.chance(corrupt))
        copy[this.random.integer(0, copy.length - 1)]! ^= 1 << this.random.integer(0, 7)
      const at = this.now + delay + this.random.fraction() * jitter
      this.wire.push({ at, order: this.order++, to, bytes: copy, path: this.pathAt(to, path) })
    }
  }

  /** How the receiver sees the way that the sender took. */
  private pathAt(to: 'client' | 'server', path: Path): Path {
    if (to === 'server') {
      return {
        socket: 0,
        localAddress: SERVER_ADDRESS,
        localPort: SERVER_PORT,
        remoteAddress: this.clientAddress,
        remotePort: this.clientPort,
      }
    }
    return {
      socket: 0,
      localAddress: path.remoteAddress,
      localPort: path.remotePort,
      remoteAddress: SERVER_ADDRESS,
      remotePort: SERVER_PORT,
    }
  }

  private deliver(core: Core, event: CoreEvent): void {
    this.events.push(event)
    const side = core === this.client ? 'client' : 'server'
    switch (event.kind) {
      case 'connected': {
        const stream = event.attempt.context as Stream
        stream.connection = event.connection
        return this.work(core, stream)
      }
      case 'accepted': {
        const stream = this.serve(this.accepted.length)
        this.accepted.push(stream)
        stream.connection = event.connection
        event.connection.context = stream
        return this.work(core, stream)
      }
      case 'failed': {
        const stream = event.attempt.context as Stream
        stream.error = event.error
        stream.closed = true
        return
      }
      case 'readable':
      case 'writable':
        return this.work(core, event.connection.context as Stream)
      case 'ended': {
        const stream = event.connection.context as Stream
        stream.ended = true
        return this.work(core, stream)
      }
      case 'closed': {
        const stream = event.connection.context as Stream
        stream.read()
        stream.closed = true
        stream.error = event.error
        return
      }
      case 'question':
        return core.answer(event.id, this.answers(side, event.question), this.now)
      case 'sessionUp':
        this.sessions[side].push(event.session)
        return
      default:
    }
  }

  work(core: Core, stream: Stream): void {
    stream.read()
    stream.write()
    if (stream.connection !== undefined) core.wake(stream.connection, this.now)
  }

  /** Lets time pass, at most `millis`, or until `done`. */
  run(millis: number, done: () => boolean = () => false): void {
    const end = this.now + millis
    this.pump()
    while (!done()) {
      const next = this.nextEvent()
      if (next > end) break
      this.now = Math.max(this.now, next)
      this.step()
    }
    if (!done()) this.now = end
  }

  private nextEvent(): number {
    let next = Math.min(this.client.nextTimeout(), this.server.nextTimeout())
    for (const { at } of this.wire) next = Math.min(next, at)
    return next
  }

  private step(): void {
    const due = this.wire
      .filter(({ at }) => at <= this.now)
      .sort((a, b) => a.at - b.at || a.order - b.order)
    for (const datagram of due) {
      this.wire.splice(this.wire.indexOf(datagram), 1)
      // A NAT that forgot the mapping drops what comes to the old port.
      if (datagram.to === 'client' && datagram.path.localPort !== this.clientPort) continue
      const core = datagram.to === 'client' ? this.client : this.server
      core.handleDatagram(datagram.bytes, datagram.path, this.now)
    }
    for (const core of [this.client, this.server]) {
      if (core.nextTimeout() <= this.now) core.handleTimeout(this.now)
    }
    this.pump()
  }
}

const isSaInit = (bytes: Uint8Array): boolean => getU32(bytes, 0) === 0 && bytes[22] === 34

const includes = (bytes: Uint8Array, marker: Uint8Array): boolean => {
  for (let i = 0; i + marker.length <= bytes.length; i++) {
    let j = 0
    while (j < marker.length && bytes[i + j] === marker[j]) j++
    if (j === marker.length) return true
  }
  return false
}
