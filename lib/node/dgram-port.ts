/**
 * `node:dgram` as a port. It hides what is hard there: a buffer handed to an unconnected `send` is still read after the call
 * unless the look-up is synchronous, a full kernel queue is shown only by a counter, an ICMP refusal is an 'error' event
 * that must not end a server, and an error of `send` is told to a callback alone.
 */
import { createSocket, type Socket, type SocketOptions } from 'node:dgram'
import type { Path } from '../base/path.ts'
import { release } from '../base/external.ts'
import {
  BUFFER_OCTETS,
  destinationText,
  TURN_DATAGRAMS,
  type Bound,
  type DatagramPort,
  type PortEvents,
  type PortOptions,
} from './datagram-port.ts'

/**
 * Without a callback `dgram` keeps silent about errors, and with one a datagram costs a tick of its own. So of those
 * that are sent in a row the first is asked about, and each that is larger than what is known to go out.
 */
class Inquiry {
  private isUnderWay = false
  private proved = 0
  private asked = 0
  private readonly told: (error: Error) => void

  constructor(told: (error: Error) => void) {
    this.told = told
  }

  /** Undefined: nothing is asked. */
  about({ length }: Uint8Array): ((error: Error | null) => void) | undefined {
    if (this.isUnderWay && length <= this.proved) return undefined
    this.isUnderWay = true
    this.asked = Math.max(this.asked, length)
    return this.onSent
  }

  private readonly onSent = (error: Error | null): void => {
    this.isUnderWay = false
    this.proved = error === null ? Math.max(this.proved, this.asked) : 0
    this.asked = 0
    if (error !== null) this.told(error)
  }
}

/** Of an unconnected socket, what a datagram on a path is sent with. */
interface Destination {
  readonly address: string
  readonly inquiry: Inquiry
}

export class DgramPort implements DatagramPort {
  private readonly socket: Socket
  private readonly events: PortEvents
  private readonly family: 4 | 6
  private connected = false
  private closed = false
  private mayBeCongested = false
  private readonly destinations = new WeakMap<Path, Destination>()
  /** Of a connected socket. */
  private readonly inquiry = new Inquiry(error => this.noteFailure(error, undefined))

  constructor({ family, ipv6Only, reusePort }: PortOptions, events: PortEvents) {
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
      this.events.onMessage(plain, remote)
      release(plain)
      this.events.onTaken()
    })
    this.socket.on('error', error => this.events.onError(error, undefined))
  }

  bind(port: number, address: string | undefined, done: Bound): void {
    const failed = (error: Error): void => done(error)
    this.socket.once('error', failed)
    this.socket.bind(
      { port, ...(address === undefined ? {} : { address }), exclusive: true },
      () => {
        this.socket.removeListener('error', failed)
        done()
      },
    )
  }

  connect(port: number, address: string, done: Bound): void {
    this.socket.connect(port, address, (error?: Error) => {
      this.connected = error === undefined || error === null
      done(error ?? undefined)
    })
  }

  address(): { address: string; port: number; family: 'IPv4' | 'IPv6' } {
    const { address, port, family } = this.socket.address()
    return { address, port, family: family as 'IPv4' | 'IPv6' }
  }

  get isCongested(): boolean {
    // What a closed one had not sent, it never reads again.
    if (this.closed) return false
    // The system has taken all that there was, and nothing has been sent since it was asked.
    if (this.mayBeCongested) this.mayBeCongested = this.socket.getSendQueueCount() > 0
    return this.mayBeCongested
  }

  /** libuv hands it over itself. */
  readAwaited(): void {}

  mayHaveMore(heard: number): boolean {
    return heard >= TURN_DATAGRAMS
  }

  send(bytes: Uint8Array, path: Path): void {
    this.mayBeCongested = true
    if (this.connected) this.socket.send(bytes, this.inquiry.about(bytes))
    else {
      const { address, inquiry } = this.destinationOf(path)
      this.socket.send(bytes, path.remotePort, address, inquiry.about(bytes))
    }
  }

  /** Nothing waits for more. */
  flush(): void {}

  private noteFailure(error: Error, path: Path | undefined): void {
    if (!this.closed) this.events.onError(error, path)
  }

  private destinationOf(path: Path): Destination {
    const known = this.destinations.get(path)
    if (known !== undefined) return known
    const destination = {
      address: destinationText(this.family, path),
      inquiry: new Inquiry(error => this.noteFailure(error, path)),
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
    this.closed = true
    this.socket.close()
  }
}
