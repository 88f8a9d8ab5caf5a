/**
 * What can be told, in fixed memory, of the senders of very many first messages: whether one comes again,
 * and whether its host or network sends more than honest ones do.
 */
import { getU32 } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import type { Path } from '../base/path.ts'

export interface Sighting {
  /** The same message, or one with its SPI and source, came a moment ago: forgers seldom repeat themselves. */
  readonly isRepeated: boolean
  /** It came more often than any client repeats itself. */
  readonly isWorn: boolean
  /** Its address, or its /64, sends more than its share. */
  readonly isHostBusy: boolean
  /** Its /24, or its /48, does, without those of busy hosts. */
  readonly isNetBusy: boolean
}

/** A client's timer sends three times in as many seconds, and others may share its address: so much at once, */
const HONEST = { message: 4, host: 4, net: 64 } as const
/** and so much in a second. */
const RATE = { message: 1, host: 2, net: 64 } as const

export class Crowd {
  private readonly seed: number
  private readonly messages = new Tally(RATE.message, 2 * HONEST.message)
  private readonly hosts = new Tally(RATE.host, HONEST.host)
  private readonly nets = new Tally(RATE.net, HONEST.net)
  private readonly seen = new Seen()

  /** `secret`: four octets, so that nobody can choose messages that are taken for others. */
  constructor(secret: Uint8Array) {
    this.seed = getU32(secret, 0)
  }

  /** Those that have proven their address by a cookie are counted apart. */
  note(message: Uint8Array, path: Path, isProven: boolean, now: Millis): Sighting {
    const { remoteAddress: address, remotePort } = path
    const seed = isProven ? ~this.seed : this.seed
    const net = hashOf(seed, address, 0, address.length === 4 ? 3 : 6)
    const host = address.length === 4 ? hashOf(net, address, 3, 4) : hashOf(net, address, 6, 8)
    const end = hashOf(host ^ remotePort, address, 8, address.length)
    const hash = hashOf(end, message, 0, 8)
    const isWorn = this.messages.count(hash, now) > HONEST.message
    // What is beyond the share of a host does not count against its neighbours.
    const isHostBusy = isWorn || !this.hosts.take(host, now)
    const isNetBusy = isHostBusy || !this.nets.take(net, now)
    return { isRepeated: this.seen.note(hash, now), isWorn, isHostBusy, isNetBusy }
  }
}

const ROWS = 2
const ROW = 1 << 16
const TICK: Millis = 1000

/** Counts that leak, of any number of keys: a count-min sketch. What it says is never too little. */
class Tally {
  private readonly leak: number
  private readonly most: number
  private readonly cells = new Uint8Array(ROWS * ROW)
  private leakedAt: Millis = -Infinity

  /** `leak`: what goes of each count in a second. `most`: the highest count, up to 255. */
  constructor(leak: number, most: number) {
    this.leak = leak
    this.most = most
  }

  /** One more of that key: how many there are. */
  count(hash: number, now: Millis): number {
    const count = this.of(hash, now) + 1
    if (count <= this.most) this.set(hash, count)
    return count
  }

  /** One more of that key, unless it has the most that it may have. */
  take(hash: number, now: Millis): boolean {
    return this.count(hash, now) <= this.most
  }

  private of(hash: number, now: Millis): number {
    this.drain(now)
    return Math.min(this.cells[hash & (ROW - 1)]!, this.cells[ROW + (hash >>> 16)]!)
  }

  /** No cell needs more than the least of its rows says. */
  private set(hash: number, count: number): void {
    const { cells } = this
    const one = hash & (ROW - 1)
    const other = ROW + (hash >>> 16)
    if (cells[one]! < count) cells[one] = count
    if (cells[other]! < count) cells[other] = count
  }

  private drain(now: Millis): void {
    const ticks = Math.floor((now - this.leakedAt) / TICK)
    if (ticks < 1) return
    const { cells } = this
    const gone = ticks * this.leak
    this.leakedAt = gone < this.most ? this.leakedAt + ticks * TICK : now
    if (gone >= this.most) cells.fill(0)
    else for (let i = 0; i < cells.length; i++) cells[i] = Math.max(0, cells[i]! - gone)
  }
}

const SEEN_BITS = 1 << 21
/** How long something is remembered at least, and half as long as at most. */
const SEEN_PERIOD: Millis = 3000

/** A Bloom filter of two bits for each key, in two generations. */
class Seen {
  private bits = new Uint32Array(SEEN_BITS / 32)
  private before = new Uint32Array(SEEN_BITS / 32)
  private since: Millis = -Infinity

  /** Whether that key was noted before. */
  note(hash: number, now: Millis): boolean {
    if (now - this.since >= SEEN_PERIOD) {
      ;[this.bits, this.before] = [this.before.fill(0), this.bits]
      this.since = now
    }
    const one = this.set(hash)
    const other = this.set(Math.imul(hash, 0x9e3779b1))
    return one && other
  }

  private set(hash: number): boolean {
    const at = (hash ^ (hash >>> 15)) & (SEEN_BITS - 1)
    const word = at >>> 5
    const bit = 1 << (at & 31)
    const known = ((this.bits[word]! | this.before[word]!) & bit) !== 0
    this.bits[word]! |= bit
    return known
  }
}

/** FNV-1a with the mixing of MurmurHash3: it decides only who waits under a flood. */
const hashOf = (seed: number, bytes: Uint8Array, from: number, to: number): number => {
  let hash = seed ^ 0x811c9dc5
  for (let i = from; i < to; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
