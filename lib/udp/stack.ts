/** The UDP of one peer: what it sent to ports that are open here, and what is to be sent to it. */
import { copy } from '../base/bytes.ts'
import type { Packet } from '../base/packet.ts'
import { prependUdpHeader, readUdp, UDP_HEADER_LENGTH } from '../wire/udp.ts'
import { IpProtocol } from '../wire/registry.ts'

/** Ours: datagrams that wait to be sent, as in a kernel's queue; one more is refused. */
const MAX_WAITING = 256
const MAX_WAITING_OCTETS = 1 << 20
/** Ours: received ones that nobody has taken yet; more are dropped. */
const MAX_RECEIVED = 256

/** The two ends of a datagram, inside the tunnel. */
export interface UdpFlow {
  readonly protocol: typeof IpProtocol.Udp
  readonly localAddress: Uint8Array
  readonly localPort: number
  readonly remoteAddress: Uint8Array
  readonly remotePort: number
}

export interface UdpDatagram extends UdpFlow {
  readonly bytes: Uint8Array
}

/** Why a datagram was dropped, as it is counted. */
export type UdpDrop = 'udp.malformed' | 'udp.noPort' | 'udp.queueFull'

/** Ports that receive datagrams. One table serves all stacks of an endpoint. */
export class UdpPorts {
  private readonly ports = new Map<number, (stack: UdpStack) => boolean>()

  /** `admits`: whether that peer may reach it. False: the port is taken. */
  open(port: number, admits: (stack: UdpStack) => boolean): boolean {
    if (this.ports.has(port)) return false
    this.ports.set(port, admits)
    return true
  }

  close(port: number): void {
    this.ports.delete(port)
  }

  admits(port: number, stack: UdpStack): boolean {
    return this.ports.get(port)?.(stack) === true
  }
}

export class UdpStack {
  private readonly ports: UdpPorts
  private readonly waiting: UdpDatagram[] = []
  private waitingOctets = 0
  private readonly received: UdpDatagram[] = []

  constructor(ports: UdpPorts) {
    this.ports = ports
  }

  /** A datagram at `bytes[from, to)`, of which a copy is kept. Returns why it was dropped. */
  handleDatagram(
    bytes: Uint8Array,
    from: number,
    to: number,
    source: Uint8Array,
    destination: Uint8Array,
    verifyChecksum: boolean,
  ): UdpDrop | undefined {
    const header = readUdp(bytes, from, to, source, destination, verifyChecksum)
    if (header === undefined) return 'udp.malformed'
    if (!this.ports.admits(header.destinationPort, this)) return 'udp.noPort'
    if (this.received.length >= MAX_RECEIVED) return 'udp.queueFull'
    this.received.push({
      protocol: IpProtocol.Udp,
      localAddress: copy(destination),
      localPort: header.destinationPort,
      remoteAddress: copy(source),
      remotePort: header.sourcePort,
      bytes: new Uint8Array(bytes.subarray(from + UDP_HEADER_LENGTH, header.to)),
    })
    return undefined
  }

  pollEvent(): UdpDatagram | undefined {
    return this.received.shift()
  }

  /** Takes a datagram to send, by copy; false: too many wait. */
  send(flow: UdpFlow, payload: Uint8Array): boolean {
    if (this.waiting.length >= MAX_WAITING) return false
    if (this.waitingOctets > 0 && this.waitingOctets + payload.length > MAX_WAITING_OCTETS)
      return false
    this.waiting.push({ ...flow, bytes: copy(payload) })
    this.waitingOctets += payload.length
    return true
  }

  /** Builds the next datagram; returns its ends. `mayBe`: what it has to be, by those and its octets. */
  pollTransmit(
    packet: Packet,
    mayBe?: (flow: UdpFlow, octets: number) => boolean,
  ): UdpFlow | undefined {
    const datagram = this.waiting[0]
    if (datagram === undefined || mayBe?.(datagram, datagram.bytes.length) === false)
      return undefined
    this.waiting.shift()
    const { bytes, localAddress, localPort, remoteAddress, remotePort } = datagram
    this.waitingOctets -= bytes.length
    packet.bytes.set(bytes, packet.append(bytes.length))
    prependUdpHeader(packet, localAddress, localPort, remoteAddress, remotePort)
    return datagram
  }

  /** The peer is gone. */
  clear(): void {
    this.waiting.length = 0
    this.waitingOctets = 0
  }
}
