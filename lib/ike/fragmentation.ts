/**
 * Fragmented messages (RFC 7383): how large fragments are, and their reassembly. Only fragments that have been
 * authenticated come here, so what is kept is the peer's own doing, and it is bounded all the same.
 */
import { concat } from '../base/bytes.ts'
import type { Path } from '../base/path.ts'

export interface Fragment {
  readonly messageId: number
  readonly response: boolean
  readonly number: number
  readonly total: number
  /** Type of the first payload; meaningful in the first fragment. */
  readonly firstInner: number
  readonly plaintext: Uint8Array
  /** The sender has proved who it is, not only that it made the key exchange. */
  readonly isTrusted: boolean
}

export interface Reassembled {
  readonly firstInner: number
  readonly plaintext: Uint8Array
}

/** RFC 7383 §2.5.1 has 576 octets for IPv4 and 1280 for IPv6, which carries no less; the step between is ours. */
const SIZES: readonly number[] = [1280, 900, 576]
const LEAST_IPV4 = 576
const LEAST_IPV6 = 1280

/** The greatest IP packet that an IKE message, or a fragment of one, may make. */
export class FragmentSize {
  octets: number
  private messageId = -1
  private largest = 0

  constructor(octets: number) {
    this.octets = octets
  }

  /** The next smaller one; false: there is none on that path. */
  shrink({ remoteAddress }: Path): boolean {
    const least = remoteAddress.length === 4 ? LEAST_IPV4 : LEAST_IPV6
    const next = SIZES.find(size => size < this.octets && size >= least)
    if (next === undefined) return false
    this.octets = next
    return true
  }

  /** A fragment of the peer's request, which may have cut it small because larger ones did not arrive (§2.5.1). */
  noteFragment(messageId: number, octets: number): void {
    this.largest = messageId === this.messageId ? Math.max(this.largest, octets) : octets
    this.messageId = messageId
  }

  /** The peer's request with that ID is whole: the answer is cut no larger. */
  follow(messageId: number): void {
    if (messageId === this.messageId)
      this.octets = Math.min(this.octets, Math.max(LEAST_IPV4, this.largest))
  }
}

const MAX_FRAGMENTS = 255
const MAX_OCTETS = 1 << 17
/** IKE_AUTH with a chain of certificates; there may be a thousand strangers. */
const MAX_STRANGERS_OCTETS = 1 << 15

/** At most one message in each direction is under reassembly: the window is one. */
export class Reassembly {
  private messageId = -1
  private total = 0
  private octets = 0
  private parts = new Map<number, Fragment>()

  /** The whole message once the last missing fragment came. */
  add(fragment: Fragment): Reassembled | undefined {
    if (fragment.total > MAX_FRAGMENTS) return undefined
    // §2.6: a greater total is a sender that had to make its fragments smaller; it starts over.
    if (fragment.messageId !== this.messageId || fragment.total > this.total) this.restart(fragment)
    if (fragment.total !== this.total || this.parts.has(fragment.number)) return undefined
    this.octets += fragment.plaintext.length
    if (this.octets > (fragment.isTrusted ? MAX_OCTETS : MAX_STRANGERS_OCTETS))
      return void this.restart(fragment)
    this.parts.set(fragment.number, fragment)
    if (this.parts.size < this.total) return undefined
    const ordered = Array.from({ length: this.total }, (_, i) => this.parts.get(i + 1)!)
    this.clear()
    return {
      firstInner: ordered[0]!.firstInner,
      plaintext: concat(...ordered.map(({ plaintext }) => plaintext)),
    }
  }

  private restart(fragment: Fragment): void {
    this.clear()
    this.messageId = fragment.messageId
    this.total = fragment.total
  }

  clear(): void {
    this.messageId = -1
    this.total = 0
    this.octets = 0
    this.parts = new Map()
  }
}
