/** The ICMP errors that concern a TCP connection (RFC 792, RFC 4443, RFC 1191). */
import { getU16, getU32 } from '../base/bytes.ts'
import { IpProtocol } from './registry.ts'

export interface IcmpError {
  readonly kind: 'unreachable' | 'tooBig'
  /** The host or port cannot be reached at all (RFC 5461: hard). */
  readonly hard: boolean
  readonly mtu: number
  /** Of the packet of ours that it quotes. */
  readonly localAddress: Uint8Array
  readonly localPort: number
  readonly remoteAddress: Uint8Array
  readonly remotePort: number
  readonly seq: number
}

const HEADER = 8
/** RFC 792: so much of the segment is always quoted; ports and sequence number. */
const QUOTED_OCTETS = 8

/** Reads the message at `bytes[from, to)`; undefined for anything but an error about a TCP segment. */
export const readIcmpError = (
  bytes: Uint8Array,
  from: number,
  to: number,
  version: 4 | 6,
): IcmpError | undefined => {
  const ipLength = version === 4 ? 20 : 40
  const quoted = from + HEADER
  if (to < quoted + ipLength + QUOTED_OCTETS) return undefined
  const type = bytes[from]!
  const code = bytes[from + 1]!
  const addresses = version === 4 ? quoted + 12 : quoted + 8
  const addressLength = version === 4 ? 4 : 16
  const protocol = bytes[quoted + (version === 4 ? 9 : 6)]
  const ports = version === 4 ? quoted + (bytes[quoted]! & 15) * 4 : quoted + ipLength
  if (protocol !== IpProtocol.Tcp || ports + QUOTED_OCTETS > to || ports < quoted + ipLength)
    return undefined
  const quotedFlow = {
    localAddress: bytes.slice(addresses, addresses + addressLength),
    remoteAddress: bytes.slice(addresses + addressLength, addresses + 2 * addressLength),
    localPort: getU16(bytes, ports),
    remotePort: getU16(bytes, ports + 2),
    seq: getU32(bytes, ports + 4),
  }
  if (version === 4 ? type === 3 && code === 4 : type === 2) {
    const mtu = version === 4 ? getU16(bytes, from + 6) : getU32(bytes, from + 4)
    return { kind: 'tooBig', hard: false, mtu, ...quotedFlow }
  }
  // Time Exceeded: as soft as a network that cannot be reached (RFC 9293 §3.9.2.2).
  if (type === (version === 4 ? 11 : 3))
    return { kind: 'unreachable', hard: false, mtu: 0, ...quotedFlow }
  if (type !== (version === 4 ? 3 : 1)) return undefined
  // Protocol and port unreachable, administratively prohibited.
  const hard = version === 4 ? [2, 3, 9, 10, 13].includes(code) : [1, 4].includes(code)
  return { kind: 'unreachable', hard, mtu: 0, ...quotedFlow }
}
