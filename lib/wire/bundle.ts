/**
 * Several small packets in one ESP packet, between two ends of this package that have agreed on it. RFC 9347 does so in
 * tunnel mode alone, so this is a format of our own: the next header is one for experiments (RFC 3692 §2.1), and the
 * payload is a row of blocks, each of them what an ESP packet of its own would carry behind its length and its next header.
 */
import { getU16, putU16 } from '../base/bytes.ts'

/** Length (2 octets) and next header. */
export const BLOCK_HEADER = 3

/** Of a block of so many octets. */
export const writeBlockHeader = (
  bytes: Uint8Array,
  at: number,
  length: number,
  nextHeader: number,
): void => {
  putU16(bytes, at, length)
  bytes[at + 2] = nextHeader
}

/** Where the block at `at` ends. */
export const blockEnd = (bytes: Uint8Array, at: number): number =>
  at + BLOCK_HEADER + getU16(bytes, at)

/** Whole blocks fill the payload to its end. */
export const isBundle = (bytes: Uint8Array, length: number): boolean => {
  let at = 0
  while (at + BLOCK_HEADER <= length) at = blockEnd(bytes, at)
  return at === length && at > 0
}
