/** The IKE header (RFC 7296 §3.1). */
import { getU32, putU32 } from '../base/bytes.ts'

/** The SPI of an end that has none (yet): eight octets of zero (RFC 7296 §3.1). */
export const NO_SPI: Uint8Array = new Uint8Array(8)

export const IKE_HEADER_LENGTH = 28
export const IKE_SPI_LENGTH = 8
const VERSION_2_0 = 0x20

const FLAG_INITIATOR = 0x08
const FLAG_VERSION = 0x10
const FLAG_RESPONSE = 0x20

export interface IkeHeader {
  readonly spiI: Uint8Array
  readonly spiR: Uint8Array
  readonly nextPayload: number
  readonly majorVersion: number
  readonly minorVersion: number
  readonly exchange: number
  /** The sender is the original initiator of the IKE SA. */
  readonly originalInitiator: boolean
  /** The sender could speak a higher major version. */
  readonly higherVersion: boolean
  readonly response: boolean
  readonly messageId: number
  readonly length: number
}

/** What the sender of a message decides; the rest of the header follows from the payloads. */
export type HeaderFacts = Pick<
  IkeHeader,
  'spiI' | 'spiR' | 'exchange' | 'originalInitiator' | 'response' | 'messageId'
>

/** IKEv1, whose header has the same layout (RFC 2408 §3.1, RFC 7296 §3.1). */
export const isVersion1 = (message: Uint8Array): boolean =>
  message.length >= IKE_HEADER_LENGTH && message[17]! >>> 4 === 1

/** Undefined when the datagram is shorter than a header or not as long as the header says. */
export const readIkeHeader = (message: Uint8Array): IkeHeader | undefined => {
  if (message.length < IKE_HEADER_LENGTH) return undefined
  const length = getU32(message, 24)
  if (length !== message.length) return undefined
  const flags = message[19]!
  return {
    spiI: message.slice(0, 8),
    spiR: message.slice(8, 16),
    nextPayload: message[16]!,
    majorVersion: message[17]! >>> 4,
    minorVersion: message[17]! & 15,
    exchange: message[18]!,
    originalInitiator: (flags & FLAG_INITIATOR) !== 0,
    higherVersion: (flags & FLAG_VERSION) !== 0,
    response: (flags & FLAG_RESPONSE) !== 0,
    messageId: getU32(message, 20),
    length,
  }
}

/** Writes the header at the start of a message of `length` octets. */
export const writeIkeHeader = (
  message: Uint8Array,
  facts: HeaderFacts,
  nextPayload: number,
  length: number,
): void => {
  message.set(facts.spiI, 0)
  message.set(facts.spiR, 8)
  message[16] = nextPayload
  message[17] = VERSION_2_0
  message[18] = facts.exchange
  message[19] =
    (facts.originalInitiator ? FLAG_INITIATOR : 0) | (facts.response ? FLAG_RESPONSE : 0)
  putU32(message, 20, facts.messageId)
  putU32(message, 24, length)
}
