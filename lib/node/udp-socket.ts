/**
 * One UDP socket. It hides what `node:dgram` makes hard: a buffer handed to an unconnected `send` is
 * still read after the call unless the look-up is synchronous, a full kernel queue is shown only by a
 * counter, an ICMP refusal is an 'error' event that must not end a server, and an error of `send` is
 * told to a callback alone.
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { formatAddress, parseAddress } from '../base/address.ts'
import { EMPTY } from '../base/bytes.ts'
import type { Path } from '../base/path.ts'
import { interfaceMtu } from './interface-mtu.ts'
import { classify } from '../wire/encapsulation.ts'

/** Holds some hundred large datagrams; the kernel's default holds three of 60,000 octets. */
const BUFFER_OCTETS = 4 << 20

export interface UdpEvents {
  onDatagram(bytes: Uint8Array, path: Path): void
  /** An ICMP error that the system reported, a datagram that it does not send, or the socket failed. `path`: of the datagram, if it is known. */
  onError(error: NodeJS.ErrnoException, path: Path | undefined): void
}

/** Of an unconnected socket, what a datagram on a path is sent with. */
interface Destination {
  readonly address: string
  readonly onSent: (error: Error | null) => void
}

export class UdpSocket {
  private readonly socket: Socket
  private readonly events: UdpEvents
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

  /** `bare`: it is for port 500. */
  constructor(index: number, family: 4 | 6, ipv6Only: boolean, bare: boolean, events: UdpEvents) {
    this.index = index
    this.bare = bare
    this.ipv6Only = ipv6Only
    this.events = events
    this.family = family
    this.socket = createSocket({
      type: family === 4 ? 'udp4' : 'udp6',
      ipv6Only,
      recvBufferSize: BUFFER_OCTETS,
      sendBufferSize: BUFFER_OCTETS,
      // Addresses are literal here; answering at once makes `send` copy before it returns.
      lookup: (address, _options, callback) => callback(null, address, family),
    })
    this.socket.on('message', (bytes, remote) => {
      // A Buffer's slice() shares memory, a Uint8Array's copies: below here only the latter is meant.
      const plain = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
      if (plain.length === 0) return
      // Of IKE there is little from a peer, and very much in a flood: its paths are not worth remembering.
      const isEsp = !this.bare && classify(plain) === 'esp'
      this.events.onDatagram(plain, isEsp ? this.knownPath(remote) : this.pathOf(remote))
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
    const address = parseAddress(local.address.split('%')[0]!)
    this.localPort = local.port
    this.localAddress =
      address === undefined || address.every(octet => octet === 0) ? EMPTY : address
    this.mtu = interfaceMtu(this.localAddress === EMPTY ? undefined : local.address.split('%')[0])
    this.paths.clear()
  }

  address(): { address: string; port: number; family: 'IPv4' | 'IPv6' } {
    const { address, port, family } = this.socket.address()
    return { address, port, family: family as 'IPv4' | 'IPv6' }
  }

  /** It is bound so that datagrams to that address can go out by it. */
  reaches({ length }: Uint8Array): boolean {
    if ((length === 4 ? 4 : 6) === this.family) return true
    return length === 4 && !this.ipv6Only && this.localAddress.length === 0
  }

  /** The path to a remote end as this socket sees it. */
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

  /** The kernel took no copy of some earlier datagram yet: nothing more should be handed over. */
  get isCongested(): boolean {
    return this.socket.getSendQueueCount() > 0
  }

  /** `bytes` may be reused as soon as `isCongested` is false, which it nearly always is at once. */
  send(bytes: Uint8Array, path: Path): void {
    if (this.closed) return
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
