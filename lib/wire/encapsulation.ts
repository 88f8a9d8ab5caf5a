/** What a datagram on the shared UDP port is (RFC 3948 §2). */
import { getU32, putU32 } from '../base/bytes.ts'
import type { Packet } from '../base/packet.ts'
import { IKE_HEADER_LENGTH } from './ike-header.ts'

export const NON_ESP_MARKER_LENGTH = 4
const KEEPALIVE = 0xff
/** SPI, sequence number and the shortest body a cipher can have. */
const SHORTEST_ESP = 16

export type DatagramKind = 'keepalive' | 'ike' | 'esp' | 'invalid'

export const classify = (bytes: Uint8Array): DatagramKind => {
  if (bytes.length === 1) return bytes[0] === KEEPALIVE ? 'keepalive' : 'invalid'
  if (bytes.length < SHORTEST_ESP) return 'invalid'
  return getU32(bytes, 0) === 0 ? 'ike' : 'esp'
}

/** It may be an IKE message without the marker, of the version before ours or of ours: an ESP packet is not by chance. */
export const isIkeMessage = (bytes: Uint8Array): boolean =>
  bytes.length >= IKE_HEADER_LENGTH &&
  getU32(bytes, 24) === bytes.length &&
  (bytes[17] === 0x10 || bytes[17] === 0x20)

/** Where ESP comes too, an IKE message has four zero octets in front, in the place of ESP's SPI (§2.2). */
export const writeIkeDatagram = (packet: Packet, message: Uint8Array, isUnmarked = false): void => {
  packet.reset()
  if (!isUnmarked) putU32(packet.bytes, packet.append(NON_ESP_MARKER_LENGTH), 0)
  packet.bytes.set(message, packet.append(message.length))
}
