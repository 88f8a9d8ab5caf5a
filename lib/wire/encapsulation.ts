/** What a datagram on the shared UDP port is (RFC 3948 §2). */
import { getU32 } from '../base/bytes.ts'

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
