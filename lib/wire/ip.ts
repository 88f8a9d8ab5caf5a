/** Inner IPv4 (RFC 791) and IPv6 (RFC 8200) headers of tunnel mode. */
import { getU16, putU16 } from '../base/bytes.ts'
import type { Packet } from '../base/packet.ts'
import { addWords, fold } from './checksum.ts'
import { IpProtocol } from './registry.ts'

export const IPV4_HEADER_LENGTH = 20
export const IPV6_HEADER_LENGTH = 40
const HOP_LIMIT = 64
/** Extension headers before the payload; ours. */
const MAX_EXTENSIONS = 8

export interface IpHeader {
  readonly version: 4 | 6
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly protocol: number
  /** Fragments are not put together: the peer's TCP keeps to our MSS. */
  readonly fragment: boolean
  readonly payloadFrom: number
  readonly payloadTo: number
}

/** Reads the packet at `bytes[from, to)`; what is behind its stated length is padding (RFC 4303 §2.7). */
export const readIpHeader = (bytes: Uint8Array, from: number, to: number): IpHeader | undefined => {
  if (to - from < IPV4_HEADER_LENGTH) return undefined
  const version = bytes[from]! >>> 4
  if (version === 4) return readIpv4(bytes, from, to)
  return version === 6 ? readIpv6(bytes, from, to) : undefined
}

const readIpv4 = (bytes: Uint8Array, from: number, to: number): IpHeader | undefined => {
  const headerLength = (bytes[from]! & 15) * 4
  const totalLength = getU16(bytes, from + 2)
  if (headerLength < IPV4_HEADER_LENGTH || totalLength < headerLength) return undefined
  if (totalLength > to - from || fold(addWords(0, bytes, from, from + headerLength)) !== 0)
    return undefined
  return {
    version: 4,
    source: bytes.slice(from + 12, from + 16),
    destination: bytes.slice(from + 16, from + 20),
    protocol: bytes[from + 9]!,
    fragment: (getU16(bytes, from + 6) & 0x3fff) !== 0,
    payloadFrom: from + headerLength,
    payloadTo: from + totalLength,
  }
}

const HOP_BY_HOP = 0
const ROUTING = 43
const FRAGMENT = 44
const DESTINATION = 60

const readIpv6 = (bytes: Uint8Array, from: number, to: number): IpHeader | undefined => {
  if (to - from < IPV6_HEADER_LENGTH) return undefined
  const end = from + IPV6_HEADER_LENGTH + getU16(bytes, from + 4)
  if (end > to) return undefined
  let protocol = bytes[from + 6]!
  let at = from + IPV6_HEADER_LENGTH
  let fragment = false
  for (
    let i = 0;
    protocol === HOP_BY_HOP ||
    protocol === ROUTING ||
    protocol === DESTINATION ||
    protocol === FRAGMENT;
    i++
  ) {
    if (i === MAX_EXTENSIONS || at + 8 > end) return undefined
    if (protocol === FRAGMENT) fragment ||= (getU16(bytes, at + 2) & 0xfff9) !== 0
    const length = protocol === FRAGMENT ? 8 : 8 * (bytes[at + 1]! + 1)
    protocol = bytes[at]!
    at += length
    if (at > end) return undefined
  }
  return {
    version: 6,
    source: bytes.slice(from + 8, from + 24),
    destination: bytes.slice(from + 24, from + 40),
    protocol,
    fragment,
    payloadFrom: at,
    payloadTo: end,
  }
}

/** Prepends an IP header; returns the next header number that names it. */
export const prependIpHeader = (
  packet: Packet,
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
): number => {
  const payloadLength = packet.length
  const { bytes } = packet
  if (source.length === 16) {
    const at = packet.prepend(IPV6_HEADER_LENGTH)
    bytes.fill(0, at, at + 8)
    bytes[at] = 0x60
    putU16(bytes, at + 4, payloadLength)
    bytes[at + 6] = protocol
    bytes[at + 7] = HOP_LIMIT
    bytes.set(source, at + 8)
    bytes.set(destination, at + 24)
    return IpProtocol.Ipv6
  }
  const at = packet.prepend(IPV4_HEADER_LENGTH)
  bytes.fill(0, at, at + IPV4_HEADER_LENGTH)
  bytes[at] = 0x45
  putU16(bytes, at + 2, payloadLength + IPV4_HEADER_LENGTH)
  // Don't Fragment: then the identification means nothing and may be zero (RFC 6864 §4.1).
  bytes[at + 6] = 0x40
  bytes[at + 8] = HOP_LIMIT
  bytes[at + 9] = protocol
  bytes.set(source, at + 12)
  bytes.set(destination, at + 16)
  putU16(bytes, at + 10, fold(addWords(0, bytes, at, at + IPV4_HEADER_LENGTH)))
  return IpProtocol.Ipv4
}
