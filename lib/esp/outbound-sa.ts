/** Sending half of an SA: sequence number, IV, padding, encryption (RFC 4303 §3.3). */
import { putU32 } from '../base/bytes.ts'
import type { Environment } from '../base/environment.ts'
import type { Packet } from '../base/packet.ts'
import { ZERO } from '../base/real.ts'
import type { Aead } from '../crypto/aead.ts'
import { ESP_HEADER_LENGTH, ESP_TRAILER_LENGTH, espPadding } from '../wire/esp.ts'

const LAST = 0xffff_ffff

export class OutboundSa {
  readonly spi: number
  octets = ZERO
  packets = 0
  private readonly aead: Aead
  private readonly extended: boolean
  private readonly environment: Environment
  private high = 0
  private low = 0
  private readonly aad: Uint8Array
  private readonly esnHigh = new Uint8Array(4)

  constructor(spi: number, aead: Aead, extended: boolean, environment: Environment) {
    this.spi = spi
    this.aead = aead
    this.extended = extended
    this.environment = environment
    // RFC 4106 §5: with extended numbers an AEAD authenticates all 64 bits between SPI and data.
    this.aad = new Uint8Array(extended && !aead.separateIntegrity ? 12 : 8)
    putU32(this.aad, 0, spi)
  }

  /** Octets that `seal` adds at most to a payload of any length. */
  get cipher(): Aead {
    return this.aead
  }

  /**
   * Turns the payload in `packet` into an ESP packet, in place. False, and nothing done, when the
   * sequence number would repeat: an IV would repeat with it (RFC 4303 §3.3.3, RFC 4106 §3.1).
   */
  seal(packet: Packet, nextHeader: number): boolean {
    if (this.low === LAST && (!this.extended || this.high === LAST)) return false
    if (this.low === LAST) {
      this.low = 0
      this.high++
    } else this.low++
    this.packets++
    this.octets += packet.length

    const { bytes } = packet
    const padding = espPadding(packet.length, this.aead.blockSize)
    const trailer = packet.append(padding + ESP_TRAILER_LENGTH)
    for (let i = 0; i < padding; i++) bytes[trailer + i] = i + 1
    bytes[trailer + padding] = padding
    bytes[trailer + padding + 1] = nextHeader

    const from = packet.start
    const to = packet.end
    const iv = packet.prepend(this.aead.ivLength)
    this.writeIv(bytes, iv)
    const header = packet.prepend(ESP_HEADER_LENGTH)
    putU32(bytes, header, this.spi)
    putU32(bytes, header + 4, this.low)
    packet.append(this.aead.icvLength)
    this.writeAad()
    this.aead.seal(bytes, from, to, this.aad, this.extended ? this.esnHigh : undefined)
    return true
  }

  /** What the next packet needs. */
  prepare(): void {
    this.aead.prepare?.('seal', this.aad)
  }

  /** A counter is the sequence number itself, which never repeats under a key. */
  private writeIv(bytes: Uint8Array, at: number): void {
    if (this.aead.iv === 'random') {
      this.environment.randomFill(bytes.subarray(at, at + this.aead.ivLength))
      return
    }
    putU32(bytes, at, this.high)
    putU32(bytes, at + 4, this.low)
  }

  private writeAad(): void {
    if (this.aad.length === 12) {
      putU32(this.aad, 4, this.high)
      putU32(this.aad, 8, this.low)
      return
    }
    putU32(this.aad, 4, this.low)
    if (this.extended) putU32(this.esnHigh, 0, this.high)
  }

  wipe(): void {
    this.aead.wipe()
  }
}
