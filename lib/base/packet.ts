/**
 * One datagram under construction, built outwards: the payload is put in the middle of a buffer and
 * each layer prepends its header and appends its trailer, so nothing is copied on the way down.
 */

/** Room for IKE's non-ESP marker or ESP header (8) + IV (16) + header of a block (3) + inner IPv6 (40) + TCP (60), 8-aligned. */
export const HEADROOM = 128
/** Room for ESP padding (255 + 2) and the longest ICV (32). */
export const TAILROOM = 296
/** The largest UDP payload over IPv4 (RFC 768, RFC 791). */
export const MAX_DATAGRAM = 65507

export class Packet {
  readonly bytes: Uint8Array
  start = HEADROOM
  end = HEADROOM

  /** `capacity`: octets between headroom and tailroom. */
  constructor(capacity: number = MAX_DATAGRAM) {
    // Slow, that is: not from Node's shared pool, so no other owner can ever see a plaintext remnant.
    this.bytes = new Uint8Array(HEADROOM + capacity + TAILROOM)
  }

  get length(): number {
    return this.end - this.start
  }

  reset(): void {
    this.start = HEADROOM
    this.end = HEADROOM
  }

  /** Makes room in front and returns where it begins. */
  prepend(length: number): number {
    this.start -= length
    return this.start
  }

  /** Makes room behind and returns where it begins. */
  append(length: number): number {
    const at = this.end
    this.end += length
    return at
  }

  /** A view of what has been built; valid until the next reset. */
  view(): Uint8Array {
    return this.bytes.subarray(this.start, this.end)
  }
}
