/** Typed notification data (RFC 7296 §3.10 and the RFCs named at each). */
import { EMPTY, getU16, getU32, putU16, putU32 } from '../base/bytes.ts'
import type { NotifyPayload, Payload } from './payloads.ts'
import { FIRST_STATUS_NOTIFY, NotifyType, ProtocolId } from './registry.ts'

export const notify = (type: number, data: Uint8Array = EMPTY): NotifyPayload => ({
  kind: 'notify',
  protocol: ProtocolId.None,
  spi: EMPTY,
  type,
  data,
})

/** A notify about one ESP SA. */
export const notifyEsp = (type: number, spi: number, data: Uint8Array = EMPTY): NotifyPayload => {
  const octets = new Uint8Array(4)
  putU32(octets, 0, spi)
  return { kind: 'notify', protocol: ProtocolId.Esp, spi: octets, type, data }
}

export const findNotify = (payloads: readonly Payload[], type: number): NotifyPayload | undefined =>
  payloads.find(
    (payload): payload is NotifyPayload => payload.kind === 'notify' && payload.type === type,
  )

/** What those of that type carry, of the first `most`. */
export const notifyData = (
  payloads: readonly Payload[],
  type: number,
  most = Infinity,
): readonly Uint8Array[] => {
  const found: Uint8Array[] = []
  for (const payload of payloads) {
    if (payload.kind !== 'notify' || payload.type !== type) continue
    if (found.length >= most) break
    found.push(payload.data)
  }
  return found
}

/** The first error notify, which decides what a response means. */
export const findErrorNotify = (payloads: readonly Payload[]): NotifyPayload | undefined =>
  payloads.find(
    (payload): payload is NotifyPayload =>
      payload.kind === 'notify' && payload.type < FIRST_STATUS_NOTIFY,
  )

export const u16Data = (...values: readonly number[]): Uint8Array => {
  const data = new Uint8Array(2 * values.length)
  values.forEach((value, i) => putU16(data, 2 * i, value))
  return data
}

/** A list of 16-bit numbers: INVALID_KE_PAYLOAD's group, SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4). */
export const readU16List = ({ data }: NotifyPayload): number[] =>
  data.length % 2 === 0
    ? Array.from({ length: data.length / 2 }, (_, i) => getU16(data, 2 * i))
    : []

/** One 32-bit number: AUTH_LIFETIME in seconds (RFC 4478), SET_WINDOW_SIZE. */
export const readU32 = ({ data }: NotifyPayload): number | undefined =>
  data.length === 4 ? getU32(data, 0) : undefined

export const u32Data = (value: number): Uint8Array => {
  const data = new Uint8Array(4)
  putU32(data, 0, value)
  return data
}

/** The ESP SPI a notify is about: REKEY_SA, CHILD_SA_NOT_FOUND. */
export const readEspSpi = ({ protocol, spi }: NotifyPayload): number | undefined =>
  protocol === ProtocolId.Esp && spi.length === 4 ? getU32(spi, 0) : undefined

/** INVALID_SPI carries the SPI in its data (RFC 7296 §3.10.1). */
export const invalidSpi = (spi: number): NotifyPayload =>
  notify(NotifyType.InvalidSpi, u32Data(spi))
