/** One UDP socket: the paths that datagrams take by it, and the record of them. */
import { parseAddress } from '../base/address.ts'
import { EMPTY } from '../base/bytes.ts'
import type { Path } from '../base/path.ts'
import { classify } from '../wire/encapsulation.ts'
import { captureOfProcess } from './capture.ts'
import {
  TURN_DATAGRAMS,
  type Bound,
  type DatagramPort,
  type PortOptions,
  type Sender,
} from './datagram-port.ts'
import { DgramPort } from './dgram-port.ts'
import { interfaceMtu } from './interface-mtu.ts'
import { NativePort } from './native-port.ts'

export interface UdpEvents {
  /** `bytes` are there during the call only. */
  onDatagram(bytes: Uint8Array, path: Path): void
  /** A datagram is read, and what it leads to may be done at once. */
  onTaken(): void
  /** What had come was handed over, in a turn that nothing else follows; where it is not told, libuv's own turn goes on. */
  onRead(): void
  /** An ICMP error that the system reported, a datagram that it does not send, or the socket failed. `path`: of the datagram, if it is known. */
  onError(error: NodeJS.ErrnoException, path: Path | undefined): void
}

export interface UdpSocketOptions extends PortOptions {
  /** It is for port 500. */
  readonly isUnmarked: boolean
  /** By native functions, which must be there. */
  readonly isAccelerated: boolean
}

/** What is told of a socket to others that use it. */
export interface CarrierFacts {
  readonly address: string
  readonly port: number
  readonly family: 'IPv4' | 'IPv6'
  readonly ipv6Only: boolean
  readonly isUnmarked: boolean
}

/** What an endpoint sends by. */
export interface Carrier {
  readonly isUnmarked: boolean
  readonly facts: CarrierFacts
  /** Some earlier datagram has not gone yet: nothing more should be handed over. */
  readonly isCongested: boolean
  /** What the system has told to be there, and waits for its turn, is handed over now. */
  readAwaited(): void
  /** `heard`: datagrams of the turn that has just ended. It ended although there may be more. */
  mayHaveMore(heard: number): boolean
  /** It leaves at the next `flush` at the latest. `bytes` may be reused as soon as `isCongested` is false. */
  send(bytes: Uint8Array, path: Path): void
  flush(): void
  /** The path to a remote end as this socket sees it. */
  path(remoteAddress: Uint8Array, remotePort: number): Path
  /** It is bound so that datagrams to that address can go out by it. */
  reaches(remote: Uint8Array): boolean
  address(): { address: string; port: number; family: 'IPv4' | 'IPv6' }
  ref(): void
  unref(): void
  close(): void
}

export class UdpSocket implements Carrier {
  private readonly port: DatagramPort
  private readonly events: UdpEvents
  private readonly capture = captureOfProcess()
  private readonly index: number
  private readonly family: 4 | 6
  readonly isUnmarked: boolean
  private readonly ipv6Only: boolean
  private closed = false
  private localAddress: Uint8Array = EMPTY
  private localPort = 0
  private mtu: number | undefined
  /** Paths by remote address text, so that a steady peer costs no parsing and no allocation. */
  private readonly paths = new Map<string, Path>()
  /** Of the last datagram, which most often has the next one behind it: a key would cost more than to compare. */
  private lastPath: Path | undefined
  private lastAddress = ''
  private lastPort = 0

  constructor(index: number, options: UdpSocketOptions, events: UdpEvents) {
    this.index = index
    this.isUnmarked = options.isUnmarked
    this.ipv6Only = options.ipv6Only
    this.events = events
    this.family = options.family
    const Port = options.isAccelerated ? NativePort : DgramPort
    this.port = new Port(options, {
      onMessage: (bytes, sender) => this.receive(bytes, sender),
      onTaken: () => events.onTaken(),
      onRead: () => events.onRead(),
      onError: (error, path) => events.onError(error, path),
    })
  }

  private receive(bytes: Uint8Array, sender: Sender): void {
    const path = this.pathFrom(bytes, sender)
    this.capture?.packet(bytes, path, false)
    this.events.onDatagram(bytes, path)
  }

  bind(port: number, address: string | undefined, done: Bound): void {
    this.port.bind(port, address, error => {
      if (error === undefined) this.noteLocal()
      done(error)
    })
  }

  /** Fixes the remote end: cheaper sends, and the system reports when nobody listens there. */
  connect(port: number, address: string, done: Bound): void {
    this.port.connect(port, address, error => {
      if (error === undefined) this.noteLocal()
      done(error)
    })
  }

  private noteLocal(): void {
    const local = this.port.address()
    this.localPort = local.port
    this.localAddress = boundTo(local.address)
    this.mtu = interfaceMtu(this.localAddress === EMPTY ? undefined : local.address.split('%')[0])
    this.paths.clear()
    this.lastPath = undefined
  }

  address(): { address: string; port: number; family: 'IPv4' | 'IPv6' } {
    return this.port.address()
  }

  get facts(): CarrierFacts {
    const { isUnmarked, ipv6Only } = this
    return { ...this.address(), isUnmarked, ipv6Only }
  }

  reaches(remote: Uint8Array): boolean {
    return canReach(this.family, this.ipv6Only, this.localAddress, remote)
  }

  path(remoteAddress: Uint8Array, remotePort: number): Path {
    return {
      socket: this.index,
      localAddress: this.localAddress,
      localPort: this.localPort,
      remoteAddress,
      remotePort,
      interfaceMtu: this.mtu,
      isUnmarked: this.isUnmarked,
    }
  }

  private pathOf({ address, port }: Sender): Path {
    return this.path(octetsOf(address), port)
  }

  private pathFrom(bytes: Uint8Array, sender: Sender): Path {
    const { lastPath } = this
    const { address, port } = sender
    if (lastPath !== undefined && port === this.lastPort && address === this.lastAddress)
      return lastPath
    this.lastAddress = address
    this.lastPort = port
    // Of IKE there is little from a peer, and very much in a flood: its paths are not worth more than that.
    const isEsp = !this.isUnmarked && classify(bytes) === 'esp'
    return (this.lastPath = isEsp ? this.rememberedPath(sender) : this.pathOf(sender))
  }

  private rememberedPath(sender: Sender): Path {
    const key = `${sender.address}|${sender.port}`
    const known = this.paths.get(key)
    if (known !== undefined) return known
    // A table of strangers' addresses must not grow with them.
    if (this.paths.size >= 4096) this.paths.clear()
    const path = this.pathOf(sender)
    this.paths.set(key, path)
    return path
  }

  get isCongested(): boolean {
    return !this.closed && this.port.isCongested
  }

  readAwaited(): void {
    if (!this.closed) this.port.readAwaited()
  }

  mayHaveMore(heard: number): boolean {
    return !this.closed && this.port.mayHaveMore(heard)
  }

  send(bytes: Uint8Array, path: Path): void {
    if (this.closed) return
    this.capture?.packet(bytes, path, true)
    this.port.send(bytes, path)
  }

  flush(): void {
    if (!this.closed) this.port.flush()
  }

  ref(): void {
    this.port.ref()
  }

  unref(): void {
    this.port.unref()
  }

  close(): void {
    if (this.closed) return
    this.closed = true
    this.port.close()
  }
}

const canReach = (
  family: 4 | 6,
  ipv6Only: boolean,
  local: Uint8Array,
  { length }: Uint8Array,
): boolean => (length === 4 ? family === 4 || (!ipv6Only && local.length === 0) : family === 6)

/** How a borrowed socket reaches its owner. */
export interface Lender {
  send(bytes: Uint8Array, path: Path): void
  isCongested(): boolean
  setRef(isReferenced: boolean): void
}

/** A socket that another process or thread has bound. */
export class BorrowedSocket implements Carrier {
  readonly facts: CarrierFacts
  private readonly index: number
  private readonly lender: Lender
  private readonly localAddress: Uint8Array

  constructor(index: number, facts: CarrierFacts, lender: Lender) {
    this.index = index
    this.facts = facts
    this.lender = lender
    this.localAddress = boundTo(facts.address)
  }

  get isUnmarked(): boolean {
    return this.facts.isUnmarked
  }

  get isCongested(): boolean {
    return this.lender.isCongested()
  }

  readAwaited(): void {}

  /** The lender reads as libuv does. */
  mayHaveMore(heard: number): boolean {
    return heard >= TURN_DATAGRAMS
  }

  send(bytes: Uint8Array, path: Path): void {
    this.lender.send(bytes, path)
  }

  flush(): void {}

  path(remoteAddress: Uint8Array, remotePort: number): Path {
    const { index: socket, localAddress, isUnmarked } = this
    return {
      socket,
      localAddress,
      localPort: this.facts.port,
      remoteAddress,
      remotePort,
      isUnmarked,
    }
  }

  reaches(remote: Uint8Array): boolean {
    const { family, ipv6Only } = this.facts
    return canReach(family === 'IPv4' ? 4 : 6, ipv6Only, this.localAddress, remote)
  }

  address(): { address: string; port: number; family: 'IPv4' | 'IPv6' } {
    const { address, port, family } = this.facts
    return { address, port, family }
  }

  ref(): void {
    this.lender.setRef(true)
  }

  unref(): void {
    this.lender.setRef(false)
  }

  /** The lender has it. */
  close(): void {}
}

/** Nothing where it is bound to all addresses. */
const boundTo = (text: string): Uint8Array => {
  const address = parseAddress(text.split('%')[0]!)
  return address === undefined || address.every(octet => octet === 0) ? EMPTY : address
}

/** IPv4 peers of a socket for both families appear as IPv4 everywhere above it. */
const octetsOf = (address: string): Uint8Array => {
  const octets = parseAddress(address.split('%')[0]!) ?? EMPTY
  return isMapped(octets) ? octets.slice(12) : octets
}

const isMapped = (octets: Uint8Array): boolean =>
  octets.length === 16 &&
  octets[10] === 0xff &&
  octets[11] === 0xff &&
  octets.subarray(0, 10).every(octet => octet === 0)
