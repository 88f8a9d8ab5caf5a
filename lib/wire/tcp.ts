/** TCP segments (RFC 9293 §3.1) with the options of RFC 7323 and RFC 2018. */
import { getU16, getU32 } from '../base/bytes.ts'
import { ZERO } from '../base/real.ts'
import { addWords, fold, pseudoHeaderSum } from './checksum.ts'
import { IpProtocol } from './registry.ts'

export const TCP_HEADER_LENGTH = 20
/** Timestamps with their padding (RFC 7323 §3.2). */
export const TIMESTAMPS_LENGTH = 12

/** Where the checksum stands. */
export const CHECKSUM_AT = 16

/** Of a segment whose field is 0 what belongs there; of a whole one 0, unless it was changed on its way. */
export const checksumOf = (
  bytes: Uint8Array,
  from: number,
  to: number,
  source: Uint8Array,
  destination: Uint8Array,
): number =>
  fold(addWords(pseudoHeaderSum(source, destination, IpProtocol.Tcp, to - from), bytes, from, to))

export const TcpFlag = { Fin: 1, Syn: 2, Rst: 4, Psh: 8, Ack: 16, Urg: 32 } as const

export const TcpOption = {
  End: 0,
  NoOperation: 1,
  MaximumSegmentSize: 2,
  WindowScale: 3,
  SackPermitted: 4,
  Sack: 5,
  Timestamps: 8,
  /** RFC 4727 §7.2, RFC 6994. */
  Experiment: 254,
} as const

/** Ours: the experiment (RFC 6994 §3) whose value says of a SYN which attempt to connect it is of. */
export const TOKEN_EXPERIMENT = 0x6973
export const TOKEN_LENGTH = 8
export const TOKEN_OPTION = 4 + TOKEN_LENGTH

const MAX_SACK_BLOCKS = 4

/** One object is read into again and again: nothing is allocated for a segment. */
export class TcpSegment {
  sourcePort = 0
  destinationPort = 0
  seq = ZERO
  ack = ZERO
  flags = 0
  window = 0
  dataFrom = 0
  dataTo = 0
  /** 0: the option is not there. */
  maximumSegmentSize = 0
  /** -1: the option is not there. */
  windowScale = -1
  sackPermitted = false
  hasTimestamps = false
  timestampValue = ZERO
  timestampEcho = ZERO
  sackCount = 0
  readonly sackStart = new Uint32Array(MAX_SACK_BLOCKS)
  readonly sackEnd = new Uint32Array(MAX_SACK_BLOCKS)
  /** Where the value of our own experiment stands; 0: the option is not there. */
  tokenAt = 0

  has(flag: number): boolean {
    return (this.flags & flag) !== 0
  }

  get dataLength(): number {
    return this.dataTo - this.dataFrom
  }

  /** Sequence space it takes (RFC 9293 §3.3.1). */
  get length(): number {
    return this.dataLength + (this.flags & TcpFlag.Syn ? 1 : 0) + (this.flags & TcpFlag.Fin ? 1 : 0)
  }

  /** False when `bytes[from, to)` is no segment. */
  read(bytes: Uint8Array, from: number, to: number): boolean {
    if (to - from < TCP_HEADER_LENGTH) return false
    const headerLength = (bytes[from + 12]! >>> 4) * 4
    if (headerLength < TCP_HEADER_LENGTH || headerLength > to - from) return false
    this.sourcePort = getU16(bytes, from)
    this.destinationPort = getU16(bytes, from + 2)
    this.seq = getU32(bytes, from + 4)
    this.ack = getU32(bytes, from + 8)
    this.flags = bytes[from + 13]!
    this.window = getU16(bytes, from + 14)
    this.dataFrom = from + headerLength
    this.dataTo = to
    this.maximumSegmentSize = 0
    this.windowScale = -1
    this.sackPermitted = false
    this.hasTimestamps = false
    this.sackCount = 0
    this.tokenAt = 0
    this.readOptions(bytes, from + TCP_HEADER_LENGTH, this.dataFrom)
    return true
  }

  /** A malformed option ends the list: what came before it stays valid. */
  private readOptions(bytes: Uint8Array, from: number, to: number): void {
    for (let at = from; at < to;) {
      const kind = bytes[at]!
      if (kind === TcpOption.End) return
      if (kind === TcpOption.NoOperation) {
        at++
        continue
      }
      const length = bytes[at + 1]!
      if (at + 1 >= to || length < 2 || at + length > to) return
      if (kind === TcpOption.MaximumSegmentSize && length === 4) {
        this.maximumSegmentSize = getU16(bytes, at + 2)
      } else if (kind === TcpOption.WindowScale && length === 3) {
        this.windowScale = bytes[at + 2]!
      } else if (kind === TcpOption.SackPermitted && length === 2) {
        this.sackPermitted = true
      } else if (kind === TcpOption.Timestamps && length === 10) {
        this.hasTimestamps = true
        this.timestampValue = getU32(bytes, at + 2)
        this.timestampEcho = getU32(bytes, at + 6)
      } else if (kind === TcpOption.Sack && (length - 2) % 8 === 0) {
        this.sackCount = Math.min((length - 2) / 8, MAX_SACK_BLOCKS)
        for (let i = 0; i < this.sackCount; i++) {
          this.sackStart[i] = getU32(bytes, at + 2 + 8 * i)
          this.sackEnd[i] = getU32(bytes, at + 6 + 8 * i)
        }
      } else if (
        kind === TcpOption.Experiment &&
        length === TOKEN_OPTION &&
        getU16(bytes, at + 2) === TOKEN_EXPERIMENT
      ) {
        this.tokenAt = at + 4
      }
      at += length
    }
  }
}
