/**
 * Octets on a SYN are handed on before the handshake is done, so what they ask for must not be done twice: the same SYN
 * may come again when the connection it made has ended, and a client that doubts its SA begins again with another. So a
 * SYN with data has a token, the same whenever the same attempt begins again, and it is known until the client can no
 * longer come back to it. RFC 7413 §2.1 leaves this to the application.
 *
 * Once a client has its connection it does not come again, and of the one SYN with data no copy arrives, which ESP's
 * anti-replay drops. But where it began before over another SA, somebody on the way may have kept that SA's SYN back: the
 * last bit of a token says so, and such a token stays known.
 */
import type { Millis } from '../base/environment.ts'
import { copy, toHex } from '../base/bytes.ts'

/** Ours: longer than a client repeats a SYN, and than it takes to find an SA dead and to make another. */
const KNOWN_FOR: Millis = 300_000
/**
 * Ours: of all peers of an endpoint, and of one of them, however many SAs it has. Beyond that octets wait for the
 * handshake, as with others. Each peer leaves as many as it has to the others.
 */
const MOST = 8192
const MOST_PER_PEER = 1024

/** Stands for a peer, and lives on here. */
type Holder = object | string

interface Entry {
  readonly holder: Holder
  readonly until: Millis
}

const AGAIN = 1

const withLastBit = (token: Uint8Array, bit: number): Uint8Array => {
  const changed = copy(token)
  changed[changed.length - 1] = (changed.at(-1)! & ~AGAIN) | bit
  return changed
}

/** The token of an attempt, from octets by chance; `again`: it began before over another SA. */
export const tokenFor = (octets: Uint8Array, again: boolean): Uint8Array =>
  withLastBit(octets, again ? AGAIN : 0)

const keyOf = (token: Uint8Array): string => toHex(withLastBit(token, 0))

export class FirstOctets {
  /** The oldest first. */
  private readonly entries = new Map<string, Entry>()
  private readonly counts = new Map<Holder, number>()

  /** Tokens that are known. */
  get size(): number {
    return this.entries.size
  }

  /** They were handed on before, perhaps: nobody knows whether the client has heard so. */
  has(token: Uint8Array, now: Millis): boolean {
    this.expire(now)
    return this.entries.has(keyOf(token))
  }

  /** From now on they were. False: there is no room to know it. */
  add(token: Uint8Array, holder: Holder, now: Millis): boolean {
    this.expire(now)
    const count = this.counts.get(holder) ?? 0
    if (count >= Math.min(MOST - this.entries.size, MOST_PER_PEER)) return false
    this.entries.set(keyOf(token), { holder, until: now + KNOWN_FOR })
    this.counts.set(holder, count + 1)
    return true
  }

  /** The client has its connection: it does not come again. */
  noteConnected(token: Uint8Array): void {
    if ((token.at(-1)! & AGAIN) === 0) this.forget(keyOf(token))
  }

  private expire(now: Millis): void {
    for (const [key, { until }] of this.entries) {
      if (until > now) return
      this.forget(key)
    }
  }

  private forget(key: string): void {
    const entry = this.entries.get(key)
    if (entry === undefined) return
    this.entries.delete(key)
    const count = this.counts.get(entry.holder)! - 1
    if (count > 0) this.counts.set(entry.holder, count)
    else this.counts.delete(entry.holder)
  }
}
