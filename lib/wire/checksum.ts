/** The Internet checksum (RFC 1071) over ranges, and the pseudo-headers of TCP (RFC 9293 §3.1, RFC 8200 §8.1). */

/** Adds the 16-bit words of `bytes[from, to)` to a sum; an odd octet at the end is padded with zero. */
export const addWords = (sum: number, bytes: Uint8Array, from: number, to: number): number => {
  const even = to - ((to - from) & 1)
  let total = sum
  for (let i = from; i < even; i += 2) total += (bytes[i]! << 8) | bytes[i + 1]!
  return even < to ? total + (bytes[even]! << 8) : total
}

export const fold = (sum: number): number => {
  let folded = sum
  while (folded > 0xffff) folded = (folded & 0xffff) + Math.floor(folded / 0x10000)
  return ~folded & 0xffff
}

/** Sum of the pseudo-header; addresses of 4 or 16 octets. */
export const pseudoHeaderSum = (
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  length: number,
): number =>
  addWords(addWords(0, source, 0, source.length), destination, 0, destination.length) +
  protocol +
  (length >>> 16) +
  (length & 0xffff)
