/** Traffic Selector payloads (RFC 7296 §3.13). */
import { compare, Reader, type Writer } from '../base/bytes.ts'
import { TrafficSelectorType } from './registry.ts'

export interface TrafficSelector {
  readonly type: number
  /** IP protocol, 0 for any. */
  readonly protocol: number
  /** Of both ends of the range; 0 to 65535 for any, 65535 to 0 for OPAQUE. */
  readonly startPort: number
  readonly endPort: number
  /** 4 or 16 octets. */
  readonly start: Uint8Array
  readonly end: Uint8Array
}

const HEADER = 8
const addressLength = (type: number): number =>
  type === TrafficSelectorType.Ipv4Range ? 4 : type === TrafficSelectorType.Ipv6Range ? 16 : 0

/** Selectors of unknown types are passed over; undefined when the payload is malformed. */
export const readTrafficSelectors = (body: Uint8Array): TrafficSelector[] | undefined => {
  const reader = new Reader(body)
  const count = reader.u8()
  reader.skip(3)
  const selectors: TrafficSelector[] = []
  for (let i = 0; i < count && !reader.failed; i++) {
    const type = reader.u8()
    const protocol = reader.u8()
    const length = reader.u16()
    if (length < HEADER) return undefined
    const content = new Reader(reader.take(length - 4))
    const octets = addressLength(type)
    if (octets === 0) continue
    if (length !== HEADER + 2 * octets) return undefined
    const selector = {
      type,
      protocol,
      startPort: content.u16(),
      endPort: content.u16(),
      start: content.take(octets).slice(),
      end: content.take(octets).slice(),
    }
    if (content.failed || !isSane(selector)) return undefined
    selectors.push(selector)
  }
  return reader.failed || reader.remaining > 0 || count === 0 ? undefined : selectors
}

const isSane = ({ startPort, endPort, start, end }: TrafficSelector): boolean => {
  const opaque = startPort === 65535 && endPort === 0
  return compare(start, end) <= 0 && (startPort <= endPort || opaque)
}

export const writeTrafficSelectors = (
  writer: Writer,
  selectors: readonly TrafficSelector[],
): void => {
  writer.u8(selectors.length).zeros(3)
  for (const selector of selectors) {
    writer
      .u8(selector.type)
      .u8(selector.protocol)
      .u16(HEADER + 2 * selector.start.length)
    writer.u16(selector.startPort).u16(selector.endPort).put(selector.start).put(selector.end)
  }
}
