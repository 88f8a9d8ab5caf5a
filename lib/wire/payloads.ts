/**
 * The payloads of RFC 7296 §3 as values, and their bodies as octets. A body that cannot be read is
 * `undefined`, which makes the whole message INVALID_SYNTAX.
 */
import { Reader, type Writer } from '../base/bytes.ts'
import { PayloadType, ProtocolId } from './registry.ts'
import { readSa, writeSa, type Proposal } from './sa.ts'
import {
  readTrafficSelectors,
  writeTrafficSelectors,
  type TrafficSelector,
} from './traffic-selector.ts'

export interface ConfigurationAttribute {
  readonly type: number
  readonly value: Uint8Array
}

export type Payload =
  | { readonly kind: 'sa'; readonly proposals: readonly Proposal[] }
  | { readonly kind: 'ke'; readonly group: number; readonly data: Uint8Array }
  | { readonly kind: 'nonce'; readonly data: Uint8Array }
  | { readonly kind: 'idi'; readonly idType: number; readonly data: Uint8Array }
  | { readonly kind: 'idr'; readonly idType: number; readonly data: Uint8Array }
  | { readonly kind: 'cert'; readonly encoding: number; readonly data: Uint8Array }
  | { readonly kind: 'certreq'; readonly encoding: number; readonly data: Uint8Array }
  | { readonly kind: 'auth'; readonly method: number; readonly data: Uint8Array }
  | NotifyPayload
  | { readonly kind: 'delete'; readonly protocol: number; readonly spis: readonly Uint8Array[] }
  | { readonly kind: 'vendor'; readonly data: Uint8Array }
  | { readonly kind: 'tsi'; readonly selectors: readonly TrafficSelector[] }
  | { readonly kind: 'tsr'; readonly selectors: readonly TrafficSelector[] }
  | {
      readonly kind: 'cp'
      readonly type: number
      readonly attributes: readonly ConfigurationAttribute[]
    }
  | { readonly kind: 'eap'; readonly data: Uint8Array }
  | {
      readonly kind: 'unknown'
      readonly type: number
      readonly critical: boolean
      readonly data: Uint8Array
    }

export interface NotifyPayload {
  readonly kind: 'notify'
  readonly protocol: number
  readonly spi: Uint8Array
  readonly type: number
  readonly data: Uint8Array
}

export type PayloadKind = Payload['kind']

/** Reads the body of one payload; the views it holds are copies, so the datagram can be reused. */
export const readPayload = (
  type: number,
  critical: boolean,
  body: Uint8Array,
): Payload | undefined => {
  const reader = new Reader(body)
  const payload = readBody(type, critical, reader)
  return reader.failed ? undefined : payload
}

const readBody = (type: number, critical: boolean, reader: Reader): Payload | undefined => {
  switch (type) {
    case PayloadType.Sa: {
      const proposals = readSa(reader.rest())
      return proposals && { kind: 'sa', proposals }
    }
    case PayloadType.Ke: {
      const group = reader.u16()
      reader.skip(2)
      return { kind: 'ke', group, data: reader.copyRest() }
    }
    case PayloadType.Nonce: {
      const data = reader.copyRest()
      // RFC 7296 §3.9.
      return data.length < 16 || data.length > 256 ? undefined : { kind: 'nonce', data }
    }
    case PayloadType.IdI:
    case PayloadType.IdR: {
      const idType = reader.u8()
      reader.skip(3)
      const kind = type === PayloadType.IdI ? 'idi' : 'idr'
      return { kind, idType, data: reader.copyRest() }
    }
    case PayloadType.Cert:
    case PayloadType.CertReq: {
      const kind = type === PayloadType.Cert ? 'cert' : 'certreq'
      return { kind, encoding: reader.u8(), data: reader.copyRest() }
    }
    case PayloadType.Auth: {
      const method = reader.u8()
      reader.skip(3)
      return { kind: 'auth', method, data: reader.copyRest() }
    }
    case PayloadType.Notify: {
      const head = reader.u32()
      const spi = reader.copy((head >>> 16) & 0xff)
      return {
        kind: 'notify',
        protocol: head >>> 24,
        spi,
        type: head & 0xffff,
        data: reader.copyRest(),
      }
    }
    case PayloadType.Delete:
      return readDelete(reader)
    case PayloadType.VendorId:
      return { kind: 'vendor', data: reader.copyRest() }
    case PayloadType.TsI:
    case PayloadType.TsR: {
      const selectors = readTrafficSelectors(reader.rest())
      return selectors && { kind: type === PayloadType.TsI ? 'tsi' : 'tsr', selectors }
    }
    case PayloadType.Configuration:
      return readConfiguration(reader)
    case PayloadType.Eap:
      return { kind: 'eap', data: reader.copyRest() }
    default:
      return { kind: 'unknown', type, critical, data: reader.copyRest() }
  }
}

const readDelete = (reader: Reader): Payload | undefined => {
  const protocol = reader.u8()
  const spiLength = reader.u8()
  const count = reader.u16()
  if (count * spiLength !== reader.remaining) return undefined
  // RFC 7296 §3.11: an IKE SA is named by the header, so its Delete lists no SPI.
  const expected = protocol === ProtocolId.Ike ? 0 : 4
  if (spiLength !== expected || (expected === 0 && count !== 0)) return undefined
  return {
    kind: 'delete',
    protocol,
    spis: Array.from({ length: count }, () => reader.copy(4)),
  }
}

const readConfiguration = (reader: Reader): Payload | undefined => {
  const type = reader.u8()
  reader.skip(3)
  const attributes: ConfigurationAttribute[] = []
  while (reader.remaining > 0 && !reader.failed) {
    const attribute = reader.u16() & 0x7fff
    attributes.push({ type: attribute, value: reader.copy(reader.u16()) })
  }
  return { kind: 'cp', type, attributes }
}

export const payloadTypeOf = (payload: Payload): number => {
  switch (payload.kind) {
    case 'sa':
      return PayloadType.Sa
    case 'ke':
      return PayloadType.Ke
    case 'nonce':
      return PayloadType.Nonce
    case 'idi':
      return PayloadType.IdI
    case 'idr':
      return PayloadType.IdR
    case 'cert':
      return PayloadType.Cert
    case 'certreq':
      return PayloadType.CertReq
    case 'auth':
      return PayloadType.Auth
    case 'notify':
      return PayloadType.Notify
    case 'delete':
      return PayloadType.Delete
    case 'vendor':
      return PayloadType.VendorId
    case 'tsi':
      return PayloadType.TsI
    case 'tsr':
      return PayloadType.TsR
    case 'cp':
      return PayloadType.Configuration
    case 'eap':
      return PayloadType.Eap
    case 'unknown':
      return payload.type
    default:
      return payload satisfies never
  }
}

export const writePayloadBody = (writer: Writer, payload: Payload): void => {
  switch (payload.kind) {
    case 'sa':
      return writeSa(writer, payload.proposals)
    case 'ke':
      return void writer.u16(payload.group).u16(0).put(payload.data)
    case 'idi':
    case 'idr':
      return void writer.u8(payload.idType).zeros(3).put(payload.data)
    case 'cert':
    case 'certreq':
      return void writer.u8(payload.encoding).put(payload.data)
    case 'auth':
      return void writer.u8(payload.method).zeros(3).put(payload.data)
    case 'notify':
      writer.u32((payload.protocol << 24) | (payload.spi.length << 16) | payload.type)
      return void writer.put(payload.spi).put(payload.data)
    case 'delete':
      writer.u8(payload.protocol).u8(payload.protocol === ProtocolId.Ike ? 0 : 4)
      writer.u16(payload.spis.length)
      for (const spi of payload.spis) writer.put(spi)
      return
    case 'tsi':
    case 'tsr':
      return writeTrafficSelectors(writer, payload.selectors)
    case 'cp':
      writer.u8(payload.type).zeros(3)
      for (const { type, value } of payload.attributes) {
        writer.u16(type).u16(value.length).put(value)
      }
      return
    case 'nonce':
    case 'vendor':
    case 'eap':
    case 'unknown':
      return void writer.put(payload.data)
    default:
      return payload satisfies never
  }
}
