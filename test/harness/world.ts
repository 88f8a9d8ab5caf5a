/**
 * Two whole endpoints in one process: virtual time and a network that loses, duplicates, delays,
 * reorders, corrupts, re-maps and takes no datagram above its MTU, all from one seed. Either end can be
 * restarted: what it was is gone, and nothing tells the other.
 */
import { formatAddress, parseAddress } from '../../lib/base/address.ts'
import { equal, getU32, utf8 } from '../../lib/base/bytes.ts'
import { Packet } from '../../lib/base/packet.ts'
import type { Path } from '../../lib/base/path.ts'
import { SILENT, type KeyLogEntry, type Tracer } from '../../lib/base/trace.ts'
import { Core } from '../../lib/core/core.ts'
import type {
  Attempt,
  Connection,
  CoreEvent,
  Question,
  SessionHandle,
  ConnectRequest,
} from '../../lib/core/events.ts'
import { parseCredentials } from '../../lib/identity/credentials.ts'
import { parsePolicy } from '../../lib/policy/options.ts'
import { DEFAULT_TCP_CONFIG, type TcpConfig } from '../../lib/tcp/config.ts'
import { Random, seededEnvironment } from './random.ts'

export interface Network {
  /** Probabilities, each for one datagram. */
  loss: number
  duplicate: number
  corrupt: number
  /** Milliseconds: the least one way, and what chance adds. */
  delay: number
  jitter: number
  /** Larger IP packets are lost without a word. */
  mtu?: number
}

export const PERFECT: Network = {
  loss: 0,
  duplicate: 0,
  corrupt: 0,
  delay: 5,
  jitter: 0,
}

/** What a stream carries: an octet is known by its place, so any loss or shift shows. */
export const patternAt = (stream: number, offset: number): number =>
  (offset * 31 + (offset >>> 8) * 17 + (offset >>> 16) * 5 + stream * 101) & 0xff

export const pattern = (stream: number, from: number, length: number): Uint8Array => {
  const octets = new Uint8Array(length)
  for (let i = 0; i < length; i++) octets[i] = patternAt(stream, from + i)
  return octets
}

export type Side = 'client' | 'server'

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
  /** The other end, once that is known. */
  partner: Stream | undefined
  /** Octets that it has ready for the SYN, and those that were asked for: they may have arrived. */
  first = 0
  offered = 0
  /** The client's port inside, where it was chosen. */
  port = 0
  /** Its end was restarted and knows nothing of it any more. */
  lost = false

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

  /** What goes with the SYN, if the peer takes it. */
  offer(): Uint8Array {
    this.offered = Math.min(this.first, this.toSend)
    return pattern(this.ownStream, 0, this.offered)
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
  readonly to: Side
  readonly bytes: Uint8Array
  readonly path: Path
}

export const SERVER_ADDRESS = parseAddress('192.0.2.1')!
const SERVER_PORT = 4500
/** Of streams that have something for the SYN: their server hears of them before they do. */
const FIRST_PORT = 20_000
/** Where in a stream the octets stand that an observer looks for, and how many they are. */
/** What a datagram's memory holds after the call. */
const SCRIBBLE = 0xa5
const MARKER_AT = 64
const MARKER = 24
const MAX_STILLNESS = 10_000
/** IPv4 and UDP headers. */
const OUTER = 28

export type Options = Record<string, unknown>

export class World {
  now = 1000
  client: Core
  server: Core
  readonly network: Network
  /** What the client opened, and what the server accepted. */
  readonly streams: Stream[] = []
  readonly accepted: Stream[] = []
  readonly sessions = { client: [] as SessionHandle[], server: [] as SessionHandle[] }
  readonly events: CoreEvent[] = []
  /** A fingerprint of every datagram that was sent, in order. */
  trace = 0
  datagrams = 0
  /** No scenario needs more; two ends that talk for ever about nothing do. */
  maxDatagrams = 200_000
  /** As often as time may stand still: more, and an end wants to be called again for nothing. */
  private stillness = 0
  /** Datagrams above the network's MTU. */
  tooLarge = 0
  restarts = 0
  /** Messages that were sealed with a (key, IV) pair used before. */
  repeatedIvs = 0
  /** SAs with a key that another SA had, or on whose key the ends do not agree. */
  wrongKeys = 0
  leaked = false
  /** Makes the server's half of each accepted connection; `client` is the other half, when it is known. */
  serve: (index: number, client: Stream | undefined) => Stream = () => new Stream(0, 2, 1)
  /** Sees each datagram before the network does; false: it is lost. */
  filter: (to: Side, bytes: Uint8Array, path: Path) => boolean = () => true
  /** What the application says, by the question: the octets, the verdict. A promise is waited for by `settle`. */
  answers: (side: Side, question: Question) => unknown = () => undefined
  private readonly pending: Promise<void>[] = []
  /** Plaintext that must never be seen outside. */
  readonly markers: Buffer[] = []
  clientAddress = parseAddress('198.51.100.7')!
  clientPort = 40001
  /** Both ends give tokens of quick crash detection, which are the same after a restart. */
  private hasCrashTokens = false
  /** Behind a NAT the client has another address and port than those it is seen under. */
  inside: { readonly localAddress: Uint8Array; readonly localPort: number } | undefined
  /** After such silence the NAT forgets the client, which is seen under another port when it sends again. */
  mappingTime = Infinity
  private mappingUsedAt = 0
  /** The server's; the client has a socket towards each. */
  readonly serverAddresses: Uint8Array[] = [SERVER_ADDRESS]
  /** Nothing comes to or from those of them. */
  readonly dead = new Set<Uint8Array>()
  /** Nothing arrives there. */
  readonly deaf = new Set<Side>()
  private readonly seed: number
  private readonly tcp: TcpConfig
  private readonly wallClock: number | (() => number) | undefined
  private readonly random: Random
  private readonly packet = new Packet()
  private readonly wire = new Heap()
  private order = 0
  /** What was sent under each (key, IV) pair. */
  private readonly ivs = new Map<string, string>()
  private readonly keys = new Map<string, string>()
  private readonly tracer: Tracer
  private clientSecurity
  private readonly serverSecurity

  constructor(
    seed: number,
    network: Network = PERFECT,
    clientOptions: Options = {},
    serverOptions: Options = {},
    tracer: Tracer = SILENT,
    wallClock?: number | (() => number),
    tcp: Partial<TcpConfig> = {},
  ) {
    this.seed = seed
    this.tcp = { ...DEFAULT_TCP_CONFIG, ...tcp }
    this.wallClock = wallClock
    this.random = new Random(seed)
    this.network = { ...network }
    this.tracer = tracer
    this.clientSecurity = this.securityOf(clientOptions)
    this.serverSecurity = this.securityOf(serverOptions)
    this.client = this.makeCore('client')
    this.server = this.makeCore('server')
  }

  private securityOf(options: Options) {
    const all = { psk: 'simulated pre-shared key', ...options }
    return { policy: parsePolicy(all), credentials: parseCredentials(all) }
  }

  private makeCore(side: Side): Core {
    const core = new Core({
      // Each life of an end has randomness of its own.
      environment: seededEnvironment(
        this.seed + (side === 'client' ? 1 : 2) + this.restarts * 7919,
        this.wallClock,
      ),
      tracer: {
        enabled: this.tracer.enabled,
        emit: event =>
          this.tracer.emit({ ...event, at: this.now, facts: { side, ...event.facts } }),
        keyLog: entry => {
          this.noteKeys(entry)
          this.tracer.keyLog?.(entry)
        },
      },
      tcp: this.tcp,
      ...(side === 'server' ? { responder: this.serverSecurity } : {}),
    })
    if (side === 'server') core.listeners.listen(80, 511)
    if (this.hasCrashTokens) core.enableCrashTokens(utf8(side), this.now)
    return core
  }

  enableCrashTokens(): void {
    this.hasCrashTokens = true
    for (const side of ['client', 'server'] as const)
      this[side].enableCrashTokens(utf8(side), this.now)
  }

  /** The end is killed and started again: it knows nothing, and the other end is not told. */
  restart(side: Side): void {
    this.restarts++
    this[side] = this.makeCore(side)
    this.sessions[side].length = 0
    for (const stream of side === 'client' ? this.streams : this.accepted) {
      if (!stream.closed) stream.lost = true
      stream.closed = true
    }
  }

  /** Opens a stream from the client to the server's port 80. */
  connect(
    stream: Stream,
    port = 80,
    remoteAddress = SERVER_ADDRESS,
    settings: Partial<ConnectRequest> = {},
  ): Attempt {
    this.streams.push(stream)
    if (stream.first > 0) stream.port = FIRST_PORT + this.streams.length
    const attempt = this.client.connect(
      { ...this.clientSecurity, path: this.clientPath },
      {
        remoteAddress,
        remotePort: port,
        localPort: stream.port,
        noDelay: false,
        keepAlive: undefined,
        ...(stream.first > 0 ? { firstOctets: () => stream.offer() } : {}),
        ...settings,
      },
      stream,
      this.now,
    )
    this.pump()
    return attempt
  }

  /** Of those two ends, as the sender sees them. */
  private serverAddressOf(to: Side, { localAddress, remoteAddress }: Path): Uint8Array {
    const address = to === 'server' ? remoteAddress : localAddress
    return this.serverAddresses.find(own => equal(own, address))!
  }

  /** The client tries that address of the server. */
  tryServer(address: Uint8Array): void {
    const socket = this.serverAddresses.findIndex(own => equal(own, address))
    this.client.tryPath({ ...this.clientPath, socket, remoteAddress: address }, this.now)
    this.pump()
  }

  /** How the client sees its way to the server. */
  private get clientPath(): Path {
    return {
      socket: 0,
      localAddress: this.clientAddress,
      localPort: this.clientPort,
      ...this.inside,
      remoteAddress: SERVER_ADDRESS,
      remotePort: SERVER_PORT,
    }
  }

  /** The client is elsewhere, and its endpoint has opened its socket again. */
  roam(address: Uint8Array, port: number): void {
    this.clientAddress = address
    this.clientPort = port
    this.client.reroute(this.clientPath, this.now)
    this.pump()
  }

  /** Sends what is ready, delivers events, until both ends are quiet. */
  pump(): void {
    for (let busy = true; busy;) {
      busy = this.pumpOne(this.client, 'server') || this.pumpOne(this.server, 'client')
    }
  }

  private pumpOne(core: Core, to: Side): boolean {
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

  private send(bytes: Uint8Array, to: Side, path: Path): void {
    if (++this.datagrams > this.maxDatagrams)
      throw new Error(`runaway: ${to} gets ${bytes.length} octets again and again`)
    for (let i = 0; i < bytes.length && i < 64; i++)
      this.trace = (Math.imul(this.trace, 31) + bytes[i]!) >>> 0
    this.observe(bytes, to)
    if (!this.filter(to, bytes, path)) return
    const { loss, duplicate, corrupt, delay, jitter, mtu = Infinity } = this.network
    if (bytes.length + OUTER > mtu) {
      this.tooLarge++
      return
    }
    if (to === 'server') {
      if (this.hasForgotten) this.clientPort++
      this.mappingUsedAt = this.now
    }
    if (this.deaf.has(to) || this.dead.has(this.serverAddressOf(to, path))) return
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

  /** What someone on the way sees: a (key, IV) pair twice is a fault, and so is plaintext. */
  private observe(bytes: Uint8Array, to: Side): void {
    if (bytes.length < 36) return
    const octets = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    for (const marker of this.markers) {
      if (octets.includes(marker)) this.leaked = true
    }
    if (getU32(bytes, 0) !== 0) {
      const iv = `${to}${octets.toString('latin1', 0, 4)}${octets.toString('latin1', 8, 16)}`
      if (this.ivs.has(iv)) this.repeatedIvs++
      this.ivs.set(iv, '')
      return
    }
    const isFragment = bytes[20] === 53
    if (bytes[20] !== 46 && !isFragment) return
    const ivAt = isFragment ? 40 : 36
    const iv = `${to}${octets.toString('latin1', 4, 20)}${octets.toString('latin1', ivAt, ivAt + 8)}`
    // A retransmission is the same message, octet by octet.
    const sent = this.ivs.get(iv)
    if (sent !== undefined && sent !== octets.toString('latin1')) this.repeatedIvs++
    this.ivs.set(iv, octets.toString('latin1'))
  }

  /** Both ends tell their keys: each SA has its own, and its ends have the same. */
  private noteKeys(entry: KeyLogEntry): void {
    const note = (key: Uint8Array, of: string): void => {
      const text = Buffer.from(key).toString('latin1')
      const known = this.keys.get(text)
      const other = this.keys.get(of)
      if ((known !== undefined && known !== of) || (other !== undefined && other !== text))
        this.wrongKeys++
      this.keys.set(text, of)
      this.keys.set(of, text)
    }
    if (entry.kind === 'esp') {
      const to = entry.destination === formatAddress(SERVER_ADDRESS) ? 'server' : 'client'
      return note(entry.encryptionKey, `${to} ${entry.spi}`)
    }
    const name = `${Buffer.from(entry.spiI).toString('latin1')}${Buffer.from(entry.spiR).toString('latin1')}`
    note(entry.skEi, `i ${name}`)
    note(entry.skEr, `r ${name}`)
  }

  /** How the receiver sees the way that the sender took. */
  private pathAt(to: Side, path: Path): Path {
    if (to === 'server') {
      return {
        socket: 0,
        localAddress: path.remoteAddress,
        localPort: SERVER_PORT,
        remoteAddress: this.clientAddress,
        // Each socket of the client has its own.
        remotePort: this.clientPort + path.socket,
      }
    }
    const remoteAddress = this.serverAddressOf(to, path)
    return {
      socket: this.serverAddresses.indexOf(remoteAddress),
      localAddress: path.remoteAddress,
      localPort: path.remotePort,
      remoteAddress,
      remotePort: SERVER_PORT,
    }
  }

  private get hasForgotten(): boolean {
    return this.now - this.mappingUsedAt > this.mappingTime
  }

  /** The path by which the client has it; undefined: nobody is there, or the NAT has forgotten who. */
  private arrival({ to, path }: InFlight): Path | undefined {
    if (to === 'server') return path
    const { localAddress, localPort } = path
    if (localPort !== this.clientPort + path.socket) return undefined
    if (!equal(localAddress, this.clientAddress)) return undefined
    if (this.hasForgotten) return undefined
    this.mappingUsedAt = this.now
    return { ...path, ...this.inside }
  }

  private deliver(core: Core, event: CoreEvent): void {
    this.events.push(event)
    const side = core === this.client ? 'client' : 'server'
    switch (event.kind) {
      case 'connected': {
        const stream = event.attempt.context as Stream
        stream.connection = event.connection
        stream.sent = event.connection.firstOctets
        this.mark(stream)
        return this.work(core, stream)
      }
      case 'accepted': {
        const { connection } = event
        const client = this.streams.findLast(
          ({ connection: other, port, closed }) =>
            !closed &&
            (other === undefined
              ? port === connection.remotePort
              : other.localPort === connection.remotePort &&
                equal(other.remoteAddress, connection.localAddress)),
        )
        const stream = this.serve(this.accepted.length, client)
        this.accepted.push(stream)
        stream.partner = client
        if (client !== undefined) client.partner = stream
        stream.connection = connection
        this.mark(stream)
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
        core.noteTold(event.connection)
        return this.work(core, event.connection.context as Stream)
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
      case 'question': {
        const answer = (value: unknown): void =>
          core.answer(event.id, { [event.question.kind]: value }, this.now)
        const value = this.answers(side, event.question)
        if (value instanceof Promise) this.pending.push(value.then(answer))
        else answer(value)
        return
      }
      case 'sessionUp':
        this.sessions[side].push(event.session)
        return
      default:
    }
  }

  private mark(stream: Stream): void {
    if (stream.toSend >= MARKER_AT + MARKER)
      this.markers.push(Buffer.from(pattern(stream.ownStream, MARKER_AT, MARKER)))
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
      this.stillness = next > this.now ? 0 : this.stillness + 1
      if (this.stillness > MAX_STILLNESS) throw new Error(`time stands still at ${this.now}`)
      this.now = Math.max(this.now, next)
      this.step()
    }
    if (!done()) this.now = end
  }

  /** As `run`; while the application thinks about its answers, time stands still. */
  async settle(millis: number, done: () => boolean): Promise<void> {
    const end = this.now + millis
    const isStuck = (): boolean => done() || this.pending.length > 0
    do {
      await Promise.all(this.pending.splice(0))
      this.run(end - this.now, isStuck)
    } while (!done() && this.pending.length > 0)
  }

  /** The client has these options from now on. */
  becomes(options: Options): void {
    this.clientSecurity = this.securityOf(options)
  }

  private nextEvent(): number {
    return Math.min(
      this.client.nextTimeout(),
      this.server.nextTimeout(),
      this.wire.first?.at ?? Infinity,
    )
  }

  private step(): void {
    for (
      let datagram = this.wire.first;
      datagram !== undefined && datagram.at <= this.now;
      datagram = this.wire.first
    ) {
      this.wire.shift()
      const path = this.arrival(datagram)
      if (path === undefined) continue
      // The octets are ours again after the call, and soon somebody else's: nothing may depend on them.
      const bytes = datagram.bytes.slice()
      this[datagram.to].handleDatagram(bytes, path, this.now)
      bytes.fill(SCRIBBLE)
    }
    for (const core of [this.client, this.server]) {
      if (core.nextTimeout() <= this.now) core.handleTimeout(this.now)
    }
    this.pump()
  }
}

/** Datagrams under way: a binary heap by time of arrival. */
class Heap {
  private readonly items: InFlight[] = []

  get first(): InFlight | undefined {
    return this.items[0]
  }

  push(item: InFlight): void {
    const { items } = this
    let at = items.length
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!isBefore(item, items[parent]!)) break
      items[at] = items[parent]!
      at = parent
    }
    items[at] = item
  }

  shift(): void {
    const { items } = this
    const last = items.pop()
    if (last === undefined || items.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= items.length) break
      if (child + 1 < items.length && isBefore(items[child + 1]!, items[child]!)) child++
      if (!isBefore(items[child]!, last)) break
      items[at] = items[child]!
      at = child
    }
    items[at] = last
  }
}

const isBefore = (a: InFlight, b: InFlight): boolean =>
  a.at < b.at || (a.at === b.at && a.order < b.order)

const isSaInit = (bytes: Uint8Array): boolean => getU32(bytes, 0) === 0 && bytes[22] === 34
