/**
 * What ends say outside any SA: that they do not know an SPI (RFC 7296 §1.5, §2.21.4). It proves nothing, so
 * it is answered and sent no more often than some times a second, and no answer is longer than its cause.
 */
import { getU32, toHex } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import { crashTokenPayload, LEAST_REQUEST } from '../ike/crash-token.ts'
import { IKE_HEADER_LENGTH, NO_SPI, type IkeHeader } from '../wire/ike-header.ts'
import { writeMessage } from '../wire/message.ts'
import { findNotify, invalidSpi, notify, readU32 } from '../wire/notify.ts'
import { isChainError, readChain } from '../wire/payload-chain.ts'
import type { NotifyPayload } from '../wire/payloads.ts'
import { ExchangeType, NotifyType, PayloadType } from '../wire/registry.ts'

/** Ours, of each kind. */
const PER_SECOND = 10
/** RFC 6290 §9.3: soon after a start, when the peers of an earlier life come back, */
const PER_SECOND_OF_FRESH = 200
/** which is for so long. */
const FRESH: Millis = 120_000
/** Octets of the answers, the first with its non-ESP marker. */
const ESP_ANSWER = 44
const IKE_ANSWER = 36
/** Exchanges that belong to an IKE SA. */
const OF_AN_SA: ReadonlySet<number> = new Set([
  ExchangeType.IkeAuth,
  ExchangeType.CreateChildSa,
  ExchangeType.Informational,
])

export class Hints {
  private readonly esp = new Ration()
  private readonly ike = new Ration()
  private freshUntil: Millis = -Infinity

  /** The end may have had another life until now. */
  noteStart(now: Millis): void {
    this.freshUntil = now + FRESH
  }

  private take(ration: Ration, now: Millis): boolean {
    return ration.take(now < this.freshUntil ? PER_SECOND_OF_FRESH : PER_SECOND, now)
  }

  /** The answer to an ESP packet with an SPI we do not know; undefined: there is none. */
  aboutEsp(packet: Uint8Array, now: Millis): Uint8Array | undefined {
    if (packet.length < ESP_ANSWER || !this.take(this.esp, now)) return undefined
    // A message outside any SA: its SPIs are zero (§1.5).
    return writeMessage(
      {
        spiI: NO_SPI,
        spiR: NO_SPI,
        exchange: ExchangeType.Informational,
        originalInitiator: true,
        response: false,
        messageId: 0,
      },
      [invalidSpi(getU32(packet, 0))],
    )
  }

  /**
   * The answer to an IKE request with SPIs we do not know (§2.21.4); `token` shows who held that SA that it is gone
   * (RFC 6290 §4.5).
   */
  aboutIke(
    message: Uint8Array,
    header: IkeHeader,
    token: () => Uint8Array | undefined,
    now: Millis,
  ): Uint8Array | undefined {
    const { spiI, spiR, exchange, messageId } = header
    const isOfAnSa = !header.response && OF_AN_SA.has(exchange) && !isZero(spiR)
    if (!isOfAnSa || header.majorVersion !== 2) return undefined
    if (message.length < IKE_ANSWER || !this.take(this.ike, now)) return undefined
    const facts = {
      spiI,
      spiR,
      exchange,
      originalInitiator: !header.originalInitiator,
      response: true,
      messageId,
    }
    const refusal = notify(NotifyType.InvalidIkeSpi)
    const shown = message.length < LEAST_REQUEST ? undefined : token()
    return writeMessage(
      facts,
      shown === undefined ? [refusal] : [refusal, crashTokenPayload(shown)],
    )
  }
}

class Ration {
  private left = 0
  private renewedAt: Millis = -Infinity

  take(perSecond: number, now: Millis): boolean {
    if (now - this.renewedAt >= 1000) {
      this.renewedAt = now
      this.left = perSecond
    }
    return this.left > 0 && this.left-- > 0
  }
}

/** The outbound SPI that the sender does not know. */
export const readInvalidSpi = (message: Uint8Array, header: IkeHeader): number | undefined => {
  if (header.exchange !== ExchangeType.Informational) return undefined
  const found = readNotify(message, header, NotifyType.InvalidSpi)
  return found && readU32(found)
}

/** The sender does not know the IKE SA of the header. */
export const isInvalidIkeSpi = (message: Uint8Array, header: IkeHeader): boolean =>
  header.response &&
  header.exchange !== ExchangeType.IkeSaInit &&
  readNotify(message, header, NotifyType.InvalidIkeSpi) !== undefined

const readNotify = (
  message: Uint8Array,
  { nextPayload }: IkeHeader,
  type: number,
): NotifyPayload | undefined => {
  // Within an SA everything is encrypted.
  if (nextPayload !== PayloadType.Notify) return undefined
  const payloads = readChain(message, IKE_HEADER_LENGTH, message.length, nextPayload)
  return isChainError(payloads) ? undefined : findNotify(payloads, type)
}

const isZero = (spi: Uint8Array): boolean => toHex(spi) === '0000000000000000'
