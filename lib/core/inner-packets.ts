/**
 * What comes out of ESP: it must be what its SA was negotiated for (RFC 4301 §5.2 step 4), and goes to TCP or UDP.
 * Errors of the inner path by ICMP are authenticated by ESP, so they are believed as far as they may do harm.
 */
import { getU16 } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import { mayBeInner } from '../policy/inner-addresses.ts'
import { covers } from '../policy/traffic-selectors.ts'
import type { TcpStack } from '../tcp/stack.ts'
import type { UdpStack } from '../udp/stack.ts'
import { readIcmpError } from '../wire/icmp.ts'
import { readIpHeader, type IpHeader } from '../wire/ip.ts'
import { IpProtocol } from '../wire/registry.ts'
import { CHECKSUM_AT } from '../wire/tcp.ts'
import { UDP_HEADER_LENGTH } from '../wire/udp.ts'
import type { Child } from './child-table.ts'

/** RFC 9293 §3.1. */
const TCP_HEADER = 20

/**
 * Hands what the SA has just brought, at `bytes[from, to)`, to TCP or UDP; else the reason why it was dropped. `outer` is the
 * address that the packet came from, and `hasNat`: an address may have changed on its way.
 */
export const handleInner = (
  child: Child,
  bytes: Uint8Array,
  from: number,
  to: number,
  nextHeader: number,
  outer: Uint8Array,
  hasNat: boolean,
  tcp: TcpStack | undefined,
  udp: UdpStack | undefined,
  now: Millis,
): string | undefined => {
  if (child.sa.mode === 'tunnel') {
    return handleIp(child, bytes, from, to, nextHeader, outer, tcp, udp, now)
  }
  if (!isTransport(nextHeader)) return 'esp.nextHeader'
  const { remoteHost, localHost } = child
  // RFC 3948 §3.1.2: a NAT may have changed the addresses under the checksum; the ICV stands for it. Who has not agreed to
  // leave it out must mean a zero, which is as good a sum as any.
  const isSuspect =
    nextHeader === IpProtocol.Tcp &&
    !hasNat &&
    tcp?.peerFeatures.has('no-checksum') === false &&
    to - from >= TCP_HEADER &&
    getU16(bytes, from + CHECKSUM_AT) === 0
  return handleTransport(
    child,
    nextHeader,
    bytes,
    from,
    to,
    remoteHost,
    localHost,
    isSuspect,
    tcp,
    udp,
    now,
  )
}

const isTransport = (protocol: number): boolean =>
  protocol === IpProtocol.Tcp || protocol === IpProtocol.Udp

const handleTransport = (
  child: Child,
  protocol: number,
  bytes: Uint8Array,
  from: number,
  to: number,
  source: Uint8Array,
  destination: Uint8Array,
  verifyChecksum: boolean,
  tcp: TcpStack | undefined,
  udp: UdpStack | undefined,
  now: Millis,
): string | undefined => {
  const isTcp = protocol === IpProtocol.Tcp
  if (to - from < (isTcp ? TCP_HEADER : UDP_HEADER_LENGTH)) {
    return isTcp ? 'tcp.truncated' : 'udp.malformed'
  }
  if (
    !covers(child.sa.remoteSelectors, source, protocol, getU16(bytes, from)) ||
    !covers(child.sa.localSelectors, destination, protocol, getU16(bytes, from + 2))
  ) {
    return 'esp.selectors'
  }
  return isTcp
    ? tcp?.handleSegment(bytes, from, to, source, destination, now, verifyChecksum, child.isShared)
    : udp?.handleDatagram(bytes, from, to, source, destination, verifyChecksum)
}

const handleIp = (
  child: Child,
  bytes: Uint8Array,
  from: number,
  to: number,
  nextHeader: number,
  outer: Uint8Array,
  tcp: TcpStack | undefined,
  udp: UdpStack | undefined,
  now: Millis,
): string | undefined => {
  if (nextHeader !== IpProtocol.Ipv4 && nextHeader !== IpProtocol.Ipv6) return 'esp.nextHeader'
  const ip = readIpHeader(bytes, from, to)
  if (ip === undefined || (ip.version === 4) !== (nextHeader === IpProtocol.Ipv4)) {
    return 'ip.malformed'
  }
  if (ip.fragment) return 'ip.fragment'
  const { protocol, payloadFrom, payloadTo, source, destination } = ip
  if (!mayBeInner(source, outer) || !mayBeInner(destination, outer)) return 'ip.address'
  if (isTransport(protocol)) {
    return handleTransport(
      child,
      protocol,
      bytes,
      payloadFrom,
      payloadTo,
      source,
      destination,
      true,
      tcp,
      udp,
      now,
    )
  }
  return protocol === IpProtocol.Icmp || protocol === IpProtocol.Icmpv6
    ? handleIcmp(child, bytes, ip, tcp, now)
    : 'ip.protocol'
}

/** A gateway says that a packet of ours went no further. */
const handleIcmp = (
  child: Child,
  bytes: Uint8Array,
  ip: IpHeader,
  tcp: TcpStack | undefined,
  now: Millis,
): string | undefined => {
  if (!covers(child.sa.localSelectors, ip.destination, 0, 0)) return 'esp.selectors'
  const error = readIcmpError(bytes, ip.payloadFrom, ip.payloadTo, ip.version)
  if (error === undefined) return 'icmp.ignored'
  if (error.kind === 'unreachable') tcp?.handleUnreachable(error, error.hard)
  else tcp?.handleTooBig(error, error.mtu, now)
  return undefined
}
