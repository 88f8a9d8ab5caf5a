/** Which SA of ours a datagram names: what processes that share a UDP port must know to hand it to the one that has it. */
import { equal, getU32 } from '../base/bytes.ts'
import { classify, isIkeMessage, NON_ESP_MARKER_LENGTH } from '../wire/encapsulation.ts'
import { isVersion1, NO_SPI, readIkeHeader } from '../wire/ike-header.ts'

export type Addressee =
  /** A request for a new SA; all repetitions have the same SPI. */
  | { readonly kind: 'newcomer'; readonly spi: Uint8Array }
  /** `spi` is the one that we chose, as the message says; `other` is the peer's. */
  | { readonly kind: 'ike'; readonly spi: Uint8Array; readonly other: Uint8Array }
  | { readonly kind: 'esp'; readonly spi: number; readonly mark: number }
  /** Nobody's in particular. */
  | { readonly kind: 'none' }

const NONE: Addressee = { kind: 'none' }

/** `isUnmarked`: it came by a path without non-ESP marker. */
export const addresseeOf = (bytes: Uint8Array, isUnmarked: boolean): Addressee => {
  const kind = isUnmarked ? 'ike' : classify(bytes)
  if (kind === 'esp' && !isIkeMessage(bytes)) {
    return { kind: 'esp', spi: getU32(bytes, 0), mark: bytes[0]! }
  }
  if (kind !== 'ike' && kind !== 'esp') return NONE
  const at = kind === 'ike' && !isUnmarked ? NON_ESP_MARKER_LENGTH : 0
  const message = bytes.subarray(at)
  const header = readIkeHeader(message)
  if (header === undefined || isVersion1(message)) return NONE
  const { spiI, spiR, originalInitiator } = header
  if (!originalInitiator) return { kind: 'ike', spi: spiI, other: spiR }
  if (equal(spiR, NO_SPI)) return { kind: 'newcomer', spi: spiI }
  return { kind: 'ike', spi: spiR, other: spiI }
}
