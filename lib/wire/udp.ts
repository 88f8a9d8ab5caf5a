/** UDP datagrams inside ESP (RFC 768, RFC 8200 §8.1). */
import { getU16, putU16 } from '../base/bytes.ts'
import type { Packet } from '../base/packet.ts'
import { addWords, fold, pseudoHeaderSum } from './checksum.ts'
import { IpProtocol } from './registry.ts'

export const UDP_HEADER_LENGTH = 8

export interface UdpHeader {
  readonly sourcePort: number
  readonly destinationPort: number
  /** Where the payload ends. */
  readonly to: number
}

/**
 * The datagram at `bytes[from, to)`; undefined: it is none, or was changed on the way. `verifyChecksum`: a sum of zero
 * means none over IPv4 and is forbidden over IPv6.
 */
export const readUdp = (
  bytes: Uint8Array,
  from: number,
  to: number,
  source: Uint8Array,
  destination: Uint8Array,
  verifyChecksum: boolean,
): UdpHeader | undefined => {
  if (to - from < UDP_HEADER_LENGTH) return undefined
  const length = getU16(bytes, from + 4)
  if (length < UDP_HEADER_LENGTH || length > to - from) return undefined
  const checksum = getU16(bytes, from + 6)
  if (verifyChecksum && (checksum !== 0 || source.length === 16)) {
    const sum = pseudoHeaderSum(source, destination, IpProtocol.Udp, length)
    if (checksum === 0 || fold(addWords(sum, bytes, from, from + length)) !== 0) return undefined
  }
  return {
    sourcePort: getU16(bytes, from),
    destinationPort: getU16(bytes, from + 2),
    to: from + length,
  }
}

/** Puts the header in front of the payload that `packet` holds. */
export const prependUdpHeader = (
  packet: Packet,
  source: Uint8Array,
  sourcePort: number,
  destination: Uint8Array,
  destinationPort: number,
): void => {
  const at = packet.prepend(UDP_HEADER_LENGTH)
  const { bytes, end } = packet
  putU16(bytes, at, sourcePort)
  putU16(bytes, at + 2, destinationPort)
  putU16(bytes, at + 4, end - at)
  putU16(bytes, at + 6, 0)
  const sum = pseudoHeaderSum(source, destination, IpProtocol.Udp, end - at)
  // A sum of zero is sent as all ones, since zero means that there is none.
  putU16(bytes, at + 6, fold(addWords(sum, bytes, at, end)) || 0xffff)
}
