/** Which SA of ours a datagram names: what processes that share a UDP port must know to hand it to the one that has it. */
import { getU32 } from '../base/bytes.ts'
import { classify, isIkeMessage, NON_ESP_MARKER_LENGTH } from '../wire/encapsulation.ts'
import { IKE_HEADER_LENGTH, isVersion1 } from '../wire/ike-header.ts'

const IKE_SPI_LENGTH = 8
/** RFC 7296 §3.1: the sender is the original initiator. */
const INITIATOR_FLAG = 0x08

export type Addressee =
  /** A request for a new SA; all repetitions have the same SPI. */
  | { readonly kind: 'newcomer'; readonly spi: Uint8Array }
  /** `spi` is the one that we chose, as the message says; `other` is the peer's. */
  | { readonly kind: 'ike'; readonly spi: Uint8Array; readonly other: Uint8Array }
  | { readonly kind: 'esp'; readonly spi: number; readonly mark: number }
  /** Nobody's in particular. */
  | { readonly kind: 'none' }

const NONE: Addressee = { kind: 'none' }

/** `bare`: it came by a path without non-ESP marker. The views in the answer are of `bytes`. */
export const addresseeOf = (bytes: Uint8Array, bare: boolean): Addressee => {
  const kind = bare ? 'ike' : classify(bytes)
  if (kind === 'esp' && !isIkeMessage(bytes)) {
    return { kind: 'esp', spi: getU32(bytes, 0), mark: bytes[0]! }
  }
  if (kind !== 'ike' && kind !== 'esp') return NONE
  const at = kind === 'ike' && !bare ? NON_ESP_MARKER_LENGTH : 0
  const message = bytes.subarray(at)
  if (message.length < IKE_HEADER_LENGTH || isVersion1(message)) return NONE
  const spiI = message.subarray(0, IKE_SPI_LENGTH)
  const spiR = message.subarray(IKE_SPI_LENGTH, 2 * IKE_SPI_LENGTH)
  if ((message[19]! & INITIATOR_FLAG) === 0) return { kind: 'ike', spi: spiI, other: spiR }
  if (spiR.every(octet => octet === 0)) return { kind: 'newcomer', spi: spiI }
  return { kind: 'ike', spi: spiR, other: spiI }
}
