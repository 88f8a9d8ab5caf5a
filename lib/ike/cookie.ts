/**
 * Stateless cookies (RFC 7296 §2.6): a MAC over what the initiator must repeat, under a secret that
 * changes. The secret before stays good for one period, so a cookie never dies in flight.
 */
import { concat, equal, getU16 } from '../base/bytes.ts'
import { randomBytes, type Environment, type Millis } from '../base/environment.ts'
import type { Path } from '../base/path.ts'
import { computeHmac } from '../crypto/prf.ts'
import { IKE_HEADER_LENGTH, NO_SPI, type IkeHeader } from '../wire/ike-header.ts'
import { writeMessage } from '../wire/message.ts'
import { notify } from '../wire/notify.ts'
import { isChainError, walkChain } from '../wire/payload-chain.ts'
import { ExchangeType, HashAlgorithm, NotifyType, PayloadType } from '../wire/registry.ts'

const SECRET_LENGTH = 32
const COOKIE_LENGTH = 16
const ROTATION: Millis = 60_000

/** RFC 7296 §3.1, and §3.10 of a notify without SPI that is the first payload. */
const NEXT_PAYLOAD_AT = 16
const COOKIE_AT = IKE_HEADER_LENGTH + 8

export class CookieJar {
  private readonly environment: Environment
  private secret: Uint8Array
  private previous: Uint8Array
  private version = 0
  private rotateAt: Millis = -Infinity

  constructor(environment: Environment) {
    this.environment = environment
    this.secret = randomBytes(environment, SECRET_LENGTH)
    this.previous = randomBytes(environment, SECRET_LENGTH)
  }

  make(nonce: Uint8Array, spiI: Uint8Array, path: Path, now: Millis): Uint8Array {
    this.rotate(now)
    return this.compute(this.secret, this.version, nonce, spiI, path)
  }

  accepts(
    cookie: Uint8Array,
    nonce: Uint8Array,
    spiI: Uint8Array,
    path: Path,
    now: Millis,
  ): boolean {
    this.rotate(now)
    const age = (this.version - (cookie[0] ?? 0)) & 0xff
    if (age > 1) return false
    const secret = age === 0 ? this.secret : this.previous
    return equal(cookie, this.compute(secret, this.version - age, nonce, spiI, path))
  }

  /**
   * Whether a first message begins with a good cookie. There may be very many without one, so nothing is
   * computed for those.
   */
  isProof(message: Uint8Array, path: Path, now: Millis): boolean {
    const cookieTo = COOKIE_AT + 1 + COOKIE_LENGTH
    if (
      message[NEXT_PAYLOAD_AT] !== PayloadType.Notify ||
      message.length < cookieTo ||
      getU16(message, IKE_HEADER_LENGTH + 2) !== cookieTo - IKE_HEADER_LENGTH ||
      getU16(message, IKE_HEADER_LENGTH + 4) !== 0 ||
      getU16(message, IKE_HEADER_LENGTH + 6) !== NotifyType.Cookie
    )
      return false
    const nonce = nonceOf(message, PayloadType.Notify)
    const cookie = message.subarray(COOKIE_AT, cookieTo)
    return nonce !== undefined && this.accepts(cookie, nonce, message.subarray(0, 8), path, now)
  }

  /** What a first message is answered with that needs a cookie; undefined: nothing. */
  demand(message: Uint8Array, header: IkeHeader, path: Path, now: Millis): Uint8Array | undefined {
    if (header.majorVersion !== 2 || header.messageId !== 0) return undefined
    const nonce = nonceOf(message, header.nextPayload)
    if (nonce === undefined) return undefined
    const answer = demandCookie(header.spiI, this.make(nonce, header.spiI, path, now))
    return answer.length > message.length ? undefined : answer
  }

  private compute(
    secret: Uint8Array,
    version: number,
    nonce: Uint8Array,
    spiI: Uint8Array,
    path: Path,
  ): Uint8Array {
    const port = Uint8Array.of(path.remotePort >>> 8, path.remotePort)
    const parts = [nonce, path.remoteAddress, port, spiI]
    const mac = computeHmac('node', HashAlgorithm.Sha2_256, secret, parts)
    return concat(Uint8Array.of(version & 0xff), mac.subarray(0, COOKIE_LENGTH))
  }

  private rotate(now: Millis): void {
    if (now < this.rotateAt) return
    this.rotateAt = now + ROTATION
    this.previous = this.secret
    this.secret = randomBytes(this.environment, SECRET_LENGTH)
    this.version++
  }
}

/** Ni of a first message whose chain of payloads is whole; the rest of it is not looked at. */
const nonceOf = (message: Uint8Array, first: number): Uint8Array | undefined => {
  const chain = walkChain(message, IKE_HEADER_LENGTH, message.length, first)
  const nonce = isChainError(chain)
    ? undefined
    : chain.find(({ type }) => type === PayloadType.Nonce)
  return nonce && message.subarray(nonce.bodyFrom, nonce.bodyTo)
}

/** §2.6: the answer to a first message that has to come again with what is in it. */
export const demandCookie = (spiI: Uint8Array, cookie: Uint8Array): Uint8Array =>
  writeMessage(
    {
      spiI,
      spiR: NO_SPI,
      exchange: ExchangeType.IkeSaInit,
      originalInitiator: false,
      response: true,
      messageId: 0,
    },
    [notify(NotifyType.Cookie, cookie)],
  )
