/**
 * Receiving half of an SA: sequence number inference, replay check before and after authentication,
 * decryption, trailer (RFC 4303 §3.4). Nothing changes until the ICV has verified.
 */
import { EMPTY, getU32, putU32 } from '../base/bytes.ts'
import { release } from '../base/external.ts'
import { ZERO } from '../base/real.ts'
import type { Aead } from '../crypto/aead.ts'
import { ESP_HEADER_LENGTH, ESP_TRAILER_LENGTH } from '../wire/esp.ts'
import { IpProtocol } from '../wire/registry.ts'
import { ReplayWindow } from './replay-window.ts'

/** Why a packet was dropped; 0: it was not. */
export const Drop = { None: 0, Truncated: 1, Replay: 2, Icv: 3, Padding: 4, Dummy: 5 } as const
export type Drop = (typeof Drop)[keyof typeof Drop]

const NAMES: Readonly<Record<Drop, string>> = {
  [Drop.None]: '',
  [Drop.Truncated]: 'esp.truncated',
  [Drop.Replay]: 'esp.replay',
  [Drop.Icv]: 'esp.icv',
  [Drop.Padding]: 'esp.padding',
  [Drop.Dummy]: 'esp.dummy',
}

export const dropName = (drop: Drop): string => NAMES[drop]

export class InboundSa {
  readonly spi: number
  octets = ZERO
  packets = 0
  /** Of the packet that `open` accepted last, until `done`: its plaintext begins with its payload. */
  plaintext: Uint8Array = EMPTY
  payloadLength = 0
  nextHeader = 0
  /** It had the highest sequence number so far. */
  newest = false
  private readonly aead: Aead
  private readonly extended: boolean
  private readonly window: ReplayWindow
  private readonly aad: Uint8Array
  private readonly esnHigh = new Uint8Array(4)

  constructor(spi: number, aead: Aead, extended: boolean, replayWindow: number) {
    this.spi = spi
    this.aead = aead
    this.extended = extended
    this.window = new ReplayWindow(replayWindow, extended)
    this.aad = new Uint8Array(extended && !aead.separateIntegrity ? 12 : 8)
    putU32(this.aad, 0, spi)
  }

  get cipher(): Aead {
    return this.aead
  }

  /** Opens the ESP packet `bytes[from, to)`, which is not read after this, and tells where its payload is. */
  open(bytes: Uint8Array, from: number, to: number): Drop {
    const { aead } = this
    const textFrom = from + ESP_HEADER_LENGTH + aead.ivLength
    const textTo = to - aead.icvLength
    const textLength = textTo - textFrom
    if (textLength < ESP_TRAILER_LENGTH || textLength % aead.blockSize !== 0) return Drop.Truncated

    const low = getU32(bytes, from + 4)
    const high = this.window.inferHigh(low)
    if (!this.window.accepts(high, low)) return Drop.Replay
    this.writeAad(high, low)
    const { aad, esnHigh } = this
    const plaintext = aead.open(bytes, textFrom, textTo, aad, this.extended ? esnHigh : undefined)
    if (plaintext === undefined) return Drop.Icv
    this.newest = this.window.note(high, low)
    this.packets++
    this.octets += textLength
    this.plaintext = plaintext
    return this.readTrailer(plaintext)
  }

  private readTrailer(plaintext: Uint8Array): Drop {
    const { length } = plaintext
    this.nextHeader = plaintext[length - 1]!
    const padding = plaintext[length - 2]!
    const payloadLength = length - ESP_TRAILER_LENGTH - padding
    if (payloadLength < 0) return Drop.Padding
    // RFC 4303 §2.4: the padding must be 1, 2, 3, …
    for (let i = 0; i < padding; i++) {
      if (plaintext[payloadLength + i] !== i + 1) return Drop.Padding
    }
    if (this.nextHeader === IpProtocol.NoNext) return Drop.Dummy
    this.payloadLength = payloadLength
    return Drop.None
  }

  /** What the packet needs that will come next. */
  prepare(): void {
    this.aead.prepare?.('open', this.aad)
  }

  /** The plaintext has been read, and what is to stay of it was copied or adopted. */
  done(): void {
    release(this.plaintext)
    this.plaintext = EMPTY
  }

  private writeAad(high: number, low: number): void {
    if (this.aad.length === 12) {
      putU32(this.aad, 4, high)
      putU32(this.aad, 8, low)
      return
    }
    putU32(this.aad, 4, low)
    if (this.extended) putU32(this.esnHigh, 0, high)
  }

  wipe(): void {
    this.aead.wipe()
  }
}
