/** The Internet checksum (RFC 1071) over ranges, and the pseudo-headers of TCP (RFC 9293 §3.1, RFC 8200 §8.1). */

/** Ours: below so many octets a view of them costs more than it saves. */
const WORTH_VIEW = 64
const isLittleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1

/** Adds the 16-bit words of `bytes[from, to)` to a sum; an odd octet at the end is padded with zero. */
export const addWords = (sum: number, bytes: Uint8Array, from: number, to: number): number => {
  if (to - from < WORTH_VIEW || ((bytes.byteOffset + from) & 3) !== 0)
    return addOctets(sum, bytes, from, to)
  const words = wordsOf(bytes.buffer)
  const first = (bytes.byteOffset + from) >>> 2
  const count = (to - from) >>> 2
  const whole = carried(addWhole(words, first, first + count))
  // RFC 1071 §2 (B): the sum does not depend on the order of octets, but has it.
  const swapped = isLittleEndian ? ((whole & 0xff) << 8) | (whole >>> 8) : whole
  return addOctets(sum + swapped, bytes, from + 4 * count, to)
}

/** The words of the block that was looked at last: packets are built in the same one again and again. */
let latest: Uint32Array = new Uint32Array(0)

const wordsOf = (block: ArrayBufferLike): Uint32Array => {
  if (latest.buffer !== block) latest = new Uint32Array(block, 0, block.byteLength >>> 2)
  return latest
}

/** At most 2^14 words of 32 bits, so a number holds it exactly. */
const addWhole = (words: Uint32Array, from: number, to: number): number => {
  const pairs = to - ((to - from) & 1)
  // Two sums, because each addition waits for the one before it.
  let even = 0
  let odd = 0
  for (let i = from; i < pairs; i += 2) {
    even += words[i]!
    odd += words[i + 1]!
  }
  return even + odd + (pairs < to ? words[pairs]! : 0)
}

const addOctets = (sum: number, bytes: Uint8Array, from: number, to: number): number => {
  const even = to - ((to - from) & 1)
  let total = sum
  for (let i = from; i < even; i += 2) total += (bytes[i]! << 8) | bytes[i + 1]!
  return even < to ? total + (bytes[even]! << 8) : total
}

/** In 16 bits, with the carries added (§2 (C)). */
const carried = (sum: number): number => {
  let folded = sum
  while (folded > 0xffff) folded = (folded & 0xffff) + Math.floor(folded / 0x10000)
  return folded
}

export const fold = (sum: number): number => ~carried(sum) & 0xffff

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
