/** The chain of payloads in a message: generic headers and the critical bit (RFC 7296 §3.2, §2.5). */
import { Reader, Writer } from '../base/bytes.ts'
import { payloadTypeOf, readPayload, writePayloadBody, type Payload } from './payloads.ts'
import { PayloadType } from './registry.ts'

export const GENERIC_HEADER_LENGTH = 4
const CRITICAL = 0x80
/** Ours: no honest message comes near. */
const MAX_PAYLOADS = 64

export interface ChainError {
  readonly error: 'INVALID_SYNTAX' | 'UNSUPPORTED_CRITICAL_PAYLOAD'
  readonly payloadType: number
}

export const isChainError = (value: object): value is ChainError => 'error' in value

export interface RawPayload {
  readonly type: number
  readonly critical: boolean
  /** Type of the payload after this one, or for SK and SKF of the first one inside. */
  readonly next: number
  readonly bodyFrom: number
  readonly bodyTo: number
}

/**
 * Walks the generic headers in `bytes[from, to)`. SK and SKF are the last payload of a message, since
 * what their header calls next lies inside them.
 */
export const walkChain = (
  bytes: Uint8Array,
  from: number,
  to: number,
  first: number,
): RawPayload[] | ChainError => {
  const reader = new Reader(bytes, from, to)
  const payloads: RawPayload[] = []
  for (let type = first; type !== PayloadType.None;) {
    const next = reader.u8()
    const critical = (reader.u8() & CRITICAL) !== 0
    const length = reader.u16()
    const bodyFrom = reader.at
    reader.skip(length - GENERIC_HEADER_LENGTH)
    if (reader.failed || payloads.length === MAX_PAYLOADS) {
      return { error: 'INVALID_SYNTAX', payloadType: type }
    }
    payloads.push({ type, critical, next, bodyFrom, bodyTo: reader.at })
    const opaque = type === PayloadType.Encrypted || type === PayloadType.EncryptedFragment
    type = opaque ? PayloadType.None : next
  }
  return reader.remaining === 0 ? payloads : { error: 'INVALID_SYNTAX', payloadType: 0 }
}

/** Reads `bytes[from, to)` as a chain beginning with a payload of type `first`. */
export const readChain = (
  bytes: Uint8Array,
  from: number,
  to: number,
  first: number,
): Payload[] | ChainError => {
  const raw = walkChain(bytes, from, to, first)
  if (isChainError(raw)) return raw
  const payloads: Payload[] = []
  for (const { type, critical, bodyFrom, bodyTo } of raw) {
    const payload = readPayload(type, critical, bytes.subarray(bodyFrom, bodyTo))
    if (payload === undefined) return { error: 'INVALID_SYNTAX', payloadType: type }
    if (payload.kind === 'unknown') {
      if (critical) return { error: 'UNSUPPORTED_CRITICAL_PAYLOAD', payloadType: type }
      continue
    }
    payloads.push(payload)
  }
  return payloads
}

export interface WrittenChain {
  readonly first: number
  readonly bytes: Uint8Array
}

export const writeChain = (payloads: readonly Payload[]): WrittenChain => {
  const writer = new Writer(512)
  payloads.forEach((payload, i) => {
    const start = writer.length
    const next = payloads[i + 1]
    const type = next === undefined ? PayloadType.None : payloadTypeOf(next)
    const flags = payload.kind === 'unknown' && payload.critical ? CRITICAL : 0
    writer.u32((type << 24) | (flags << 16))
    writePayloadBody(writer, payload)
    writer.patchU16(start + 2, writer.length - start)
  })
  const first = payloads[0]
  return {
    first: first === undefined ? PayloadType.None : payloadTypeOf(first),
    bytes: writer.finish(),
  }
}
