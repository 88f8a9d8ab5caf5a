/** EAP packets (RFC 3748 §4): code, identifier, length, and of requests and responses the type. */
import { concat, EMPTY, getU16, putU16 } from '../base/bytes.ts'

export const EapCode = { Request: 1, Response: 2, Success: 3, Failure: 4 } as const

export const EapType = {
  Identity: 1,
  Notification: 2,
  Nak: 3,
  Md5Challenge: 4,
  OneTimePassword: 5,
  GenericTokenCard: 6,
  Tls: 13,
  Sim: 18,
  Ttls: 21,
  Aka: 23,
  Peap: 25,
  MsChapV2: 26,
  Expanded: 254,
} as const

/** A name for people: `Md5Challenge`, or the number. */
export const eapTypeName = (type: number): string =>
  Object.entries(EapType).find(([, number]) => number === type)?.[0] ?? String(type)

export interface EapPacket {
  readonly code: number
  readonly id: number
  /** Zero where the code has none. */
  readonly type: number
  /** What follows the type. */
  readonly data: Uint8Array
}

const HEADER = 4

/** Undefined when it is malformed. IKE hands over exactly one packet, so nothing may trail (RFC 7296 §3.16). */
export const readEapPacket = (bytes: Uint8Array): EapPacket | undefined => {
  if (bytes.length < HEADER || getU16(bytes, 2) !== bytes.length) return undefined
  const code = bytes[0]!
  const id = bytes[1]!
  if (code === EapCode.Success || code === EapCode.Failure) {
    // §4.2: these are of four octets.
    return bytes.length === HEADER ? { code, id, type: 0, data: EMPTY } : undefined
  }
  if (code !== EapCode.Request && code !== EapCode.Response) return undefined
  if (bytes.length === HEADER) return undefined
  return { code, id, type: bytes[HEADER]!, data: bytes.subarray(HEADER + 1) }
}

/** A request or a response; `data` has at most 65,530 octets. */
export const writeEapPacket = ({ code, id, type, data }: EapPacket): Uint8Array => {
  const packet = concat(Uint8Array.of(code, id, 0, 0, type), data)
  putU16(packet, 2, packet.length)
  return packet
}

export const eapResponse = (id: number, type: number, data: Uint8Array = EMPTY): Uint8Array =>
  writeEapPacket({ code: EapCode.Response, id, type, data })
