/**
 * One UDP socket. It hides what `node:dgram` makes hard: a buffer handed to an unconnected `send` is
 * still read after the call unless the look-up is synchronous, a full kernel queue is shown only by a
 * counter, an ICMP refusal is an 'error' event that must not end a server, and an error of `send` is
 * told to a callback alone.
 */
import { createSocket, type RemoteInfo, type Socket, type SocketOptions } from 'node:dgram'
import { formatAddress, parseAddress } from '../base/address.ts'
import { EMPTY } from '../base/bytes.ts'
import { release } from '../base/external.ts'
import type { Path } from '../base/path.ts'
import { captureOfProcess } from './capture.ts'
import { interfaceMtu } from './interface-mtu.ts'
import { classify } from '../wire/encapsulation.ts'

/** Holds some hundred large datagrams; the kernel's default holds three of 60,000 octets. */
const BUFFER_OCTETS = 4 << 20

export interface UdpEvents {
  /** `bytes` are there during the call only. */
  onDatagram(bytes: Uint8Array, path: Path): void
  /** An ICMP error that the system reported, a datagram that it does not send, or the socket failed. `path`: of the datagram, if it is known. */
  onError(error: NodeJS.ErrnoException, path: Path | undefined): void
}

export interface UdpSocketOptions {
  readonly family: 4 | 6
  readonly ipv6Only: boolean
  /** It is for port 500. */
  readonly bare: boolean
  /** Others may bind the port too. */
  readonly reusePort: boolean
}

/** What is told of a socket to others that use it. */
export interface CarrierFacts {
  readonly address: string
  readonly port: number
  readonly family: 'IPv4' | 'IPv6'
  readonly ipv6Only: boolean
  readonly bare: boolean
}

/** What an endpoint sends by. */
export interface Carrier {
  readonly bare: boolean
  readonly facts: CarrierFacts
  /** Some earlier datagram has not gone yet: nothing more should be handed over. */
  readonly isCongested: boolean
  /** `bytes` may be reused as soon as `isCongested` is false. */
  send(bytes: Uint8Array, path: Path): void
  /** The path to a remote end as this socket sees it. */
  path(remoteAddress: Uint8Array, remotePort: number): Path
  /** It is bound so that datagrams to that address can go out by it. */
  reaches(remote: Uint8Array): boolean
  address(): { address: string; port: number; family: 'IPv4' | 'IPv6' }
  ref(): void
  unref(): void
  close(): void
}

/** Of an unconnected socket, what a datagram on a path is sent with. */
interface Destination {
  readonly address: string
  readonly onSent: (error: Error | null) => void
}

export class UdpSocket implements Carrier {
  private readonly socket: Socket
  private readonly events: UdpEvents
  private readonly capture = captureOfProcess()
  private readonly index: number
  private readonly family: 4 | 6
  readonly bare: boolean
  private readonly ipv6Only: boolean
  private connected = false
  private closed = false
  private localAddress: Uint8Array = EMPTY
  private localPort = 0
  private mtu: number | undefined
  /** Paths by remote address text, so that a steady peer costs no parsing and no allocation. */
  private readonly paths = new Map<string, Path>()
  private readonly destinations = new WeakMap<Path, Destination>()
  /** One for all datagrams of a connected socket: without a callback `dgram` keeps silent about errors. */
  private readonly onSent = (error: Error | null): void => this.noteSent(error, undefined)

  constructor(
    index: number,
    { family, ipv6Only, bare, reusePort }: UdpSocketOptions,
    events: UdpEvents,
  ) {
    this.index = index
    this.bare = bare
    this.ipv6Only = ipv6Only
    this.events = events
    this.family = family
    // The types of Node 20 lack `reusePort`.
    const options: SocketOptions & { reusePort?: true } = {
      type: family === 4 ? 'udp4' : 'udp6',
      ipv6Only,
      recvBufferSize: BUFFER_OCTETS,
      sendBufferSize: BUFFER_OCTETS,
      // Addresses are literal here; answering at once makes `send` copy before it returns.
      lookup: (address, _options, callback) => callback(null, address, family),
      ...(reusePort ? { reusePort } : {}),
    }
    this.socket = createSocket(options)
    this.socket.on('message', (bytes, remote) => {
      // A Buffer's slice() shares memory, a Uint8Array's copies: below here only the latter is meant.
      const plain = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
      if (plain.length === 0) return
      // Of IKE there is little from a peer, and very much in a flood: its paths are not worth remembering.
      const isEsp = !this.bare && classify(plain) === 'esp'
      const path = isEsp ? this.knownPath(remote) : this.pathOf(remote)
      this.capture?.packet(plain, path, false)
      this.events.onDatagram(plain, path)
      release(plain)
    })
    this.socket.on('error', error => this.events.onError(error, undefined))
  }

  bind(
    port: number,
    address: string | undefined,
    done: (error?: NodeJS.ErrnoException) => void,
  ): void {
    const failed = (error: Error): void => done(error)
    this.socket.once('error', failed)
    this.socket.bind(
      { port, ...(address === undefined ? {} : { address }), exclusive: true },
      () => {
        this.socket.removeListener('error', failed)
        this.noteLocal()
        done()
      },
    )
  }

  /** Fixes the remote end: cheaper sends, and the system reports when nobody listens there. */
  connect(port: number, address: string, done: (error?: NodeJS.ErrnoException) => void): void {
    this.socket.connect(port, address, (error?: Error) => {
      if (error === undefined || error === null) {
        this.connected = true
        this.noteLocal()
      }
      done(error ?? undefined)
    })
  }

  private noteLocal(): void {
    const local = this.socket.address()
    this.localPort = local.port
    this.localAddress = boundTo(local.address)
    this.mtu = interfaceMtu(this.localAddress === EMPTY ? undefined : local.address.split('%')[0])
    this.paths.clear()
  }

  address(): { address: string; port: number; family: 'IPv4' | 'IPv6' } {
    const { address, port, family } = this.socket.address()
    return { address, port, family: family as 'IPv4' | 'IPv6' }
  }

  get facts(): CarrierFacts {
    const { bare, ipv6Only } = this
    return { ...this.address(), bare, ipv6Only }
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
      bare: this.bare,
    }
  }

  private pathOf({ address, port }: RemoteInfo): Path {
    return this.path(octetsOf(address), port)
  }

  private knownPath(remote: RemoteInfo): Path {
    const key = `${remote.address}|${remote.port}`
    const known = this.paths.get(key)
    if (known !== undefined) return known
    // A table of strangers' addresses must not grow with them.
    if (this.paths.size >= 4096) this.paths.clear()
    const path = this.pathOf(remote)
    this.paths.set(key, path)
    return path
  }

  /** The kernel took no copy of some earlier datagram yet. */
  get isCongested(): boolean {
    // What a closed one had not sent, it never reads again.
    return !this.closed && this.socket.getSendQueueCount() > 0
  }

  /** It is nearly always not congested after it. */
  send(bytes: Uint8Array, path: Path): void {
    if (this.closed) return
    this.capture?.packet(bytes, path, true)
    if (this.connected) this.socket.send(bytes, this.onSent)
    else {
      const { address, onSent } = this.destinationOf(path)
      this.socket.send(bytes, path.remotePort, address, onSent)
    }
  }

  private noteSent(error: Error | null, path: Path | undefined): void {
    if (error !== null && !this.closed) this.events.onError(error, path)
  }

  private destinationOf(path: Path): Destination {
    const known = this.destinations.get(path)
    if (known !== undefined) return known
    const text = formatAddress(path.remoteAddress)
    const isMapped = this.family === 6 && path.remoteAddress.length === 4
    const destination = {
      address: isMapped ? `::ffff:${text}` : text,
      onSent: (error: Error | null) => this.noteSent(error, path),
    }
    this.destinations.set(path, destination)
    return destination
  }

  ref(): void {
    this.socket.ref()
  }

  unref(): void {
    this.socket.unref()
  }

  close(): void {
    if (this.closed) return
    this.closed = true
    this.socket.close()
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

  get bare(): boolean {
    return this.facts.bare
  }

  get isCongested(): boolean {
    return this.lender.isCongested()
  }

  send(bytes: Uint8Array, path: Path): void {
    this.lender.send(bytes, path)
  }

  path(remoteAddress: Uint8Array, remotePort: number): Path {
    const { index: socket, localAddress, bare } = this
    return { socket, localAddress, localPort: this.facts.port, remoteAddress, remotePort, bare }
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
