/** Where things lie in an ESP packet (RFC 4303 §2). */

/** SPI and sequence number. */
export const ESP_HEADER_LENGTH = 8
/** Pad length and next header. */
export const ESP_TRAILER_LENGTH = 2
/** SPIs 1 to 255 are reserved (RFC 4303 §2.1). */
export const FIRST_SPI = 256

/**
 * Padding so that payload, padding and trailer fill whole blocks and end on a 4-octet boundary (§2.4).
 */
export const espPadding = (payloadLength: number, blockSize: number): number => {
  const alignment = Math.max(4, blockSize)
  return (alignment - ((payloadLength + ESP_TRAILER_LENGTH) % alignment)) % alignment
}

/** The greatest payload whose ESP packet is no longer than `packetOctets`. */
export const espCapacity = (
  packetOctets: number,
  cipher: { readonly ivLength: number; readonly icvLength: number; readonly blockSize: number },
): number => {
  const room = packetOctets - ESP_HEADER_LENGTH - cipher.ivLength - cipher.icvLength
  const alignment = Math.max(4, cipher.blockSize)
  return Math.floor(room / alignment) * alignment - ESP_TRAILER_LENGTH
}
