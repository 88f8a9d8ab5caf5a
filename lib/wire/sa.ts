/** Security Association payload: proposals, transforms and attributes (RFC 7296 §3.3). */
import { getU16, Reader, type Writer } from '../base/bytes.ts'
import { AttributeType } from './registry.ts'

export interface Transform {
  readonly type: number
  readonly id: number
  /** Key Length attribute, in bits. */
  readonly keyLength?: number
  /** It carries an attribute we do not know, so it can never be chosen (§3.3.6). */
  readonly unknown?: true
}

export interface Proposal {
  /** 1 for the first of a payload, then one more each; a response repeats the chosen one's. */
  readonly number: number
  readonly protocol: number
  readonly spi: Uint8Array
  readonly transforms: readonly Transform[]
}

const MORE_PROPOSALS = 2
const MORE_TRANSFORMS = 3
const FORMAT_TV = 0x8000
/** Octets: of a proposal behind its length and before its SPI, of a transform before its attributes, of an attribute. */
const PROPOSAL_HEADER = 4
const TRANSFORM_HEADER = 8
const ATTRIBUTE = 4
/** Ours: far above any honest offer, far below what would cost time to compare. */
const MAX_PROPOSALS = 64

export const readSa = (body: Uint8Array): Proposal[] | undefined => {
  const reader = new Reader(body)
  const proposals: Proposal[] = []
  for (let more = true; more;) {
    const last = reader.u8()
    reader.skip(1)
    const length = reader.u16()
    const proposal = readProposal(body, reader.at, reader.at + length - 4)
    reader.skip(length - 4)
    if (reader.failed || proposal === undefined) return undefined
    if (last !== 0 && last !== MORE_PROPOSALS) return undefined
    proposals.push(proposal)
    more = last === MORE_PROPOSALS
    if (proposals.length > MAX_PROPOSALS) return undefined
  }
  return reader.remaining === 0 ? proposals : undefined
}

/** In `bytes[from, to)`. By offsets: an offer has dozens of transforms, and a reader for each is most of the work. */
const readProposal = (bytes: Uint8Array, from: number, to: number): Proposal | undefined => {
  if (to - from < PROPOSAL_HEADER) return undefined
  const count = bytes[from + 3]!
  let at = from + PROPOSAL_HEADER + bytes[from + 2]!
  if (count === 0 || at > to) return undefined
  const spi = bytes.slice(from + PROPOSAL_HEADER, at)
  const transforms: Transform[] = []
  while (at < to) {
    if (transforms.length === count || to - at < TRANSFORM_HEADER) return undefined
    const end = at + getU16(bytes, at + 2)
    if (end < at + TRANSFORM_HEADER || end > to) return undefined
    if ((bytes[at] === MORE_TRANSFORMS) !== transforms.length + 1 < count) return undefined
    const transform = readTransform(bytes, at, end)
    if (transform === undefined) return undefined
    transforms.push(transform)
    at = end
  }
  if (transforms.length !== count) return undefined
  return { number: bytes[from]!, protocol: bytes[from + 1]!, spi, transforms }
}

const readTransform = (bytes: Uint8Array, from: number, to: number): Transform | undefined => {
  const type = bytes[from + 4]!
  const id = getU16(bytes, from + 6)
  let keyLength: number | undefined
  let unknown = false
  for (let at = from + TRANSFORM_HEADER; at < to;) {
    if (to - at < ATTRIBUTE) return undefined
    const attribute = getU16(bytes, at)
    const value = getU16(bytes, at + 2)
    at += ATTRIBUTE
    if ((attribute & FORMAT_TV) === 0) {
      at += value
      if (at > to) return undefined
      unknown = true
    } else if ((attribute & ~FORMAT_TV) === AttributeType.KeyLength && keyLength === undefined) {
      keyLength = value
    } else unknown = true
  }
  const transform = keyLength === undefined ? { type, id } : { type, id, keyLength }
  return unknown ? { ...transform, unknown } : transform
}

export const writeSa = (writer: Writer, proposals: readonly Proposal[]): void => {
  for (const [i, { number, protocol, spi, transforms }] of proposals.entries()) {
    const start = writer.length
    writer.u32(i + 1 < proposals.length ? MORE_PROPOSALS << 24 : 0)
    writer.u32((number << 24) | (protocol << 16) | (spi.length << 8) | transforms.length).put(spi)
    for (let j = 0; j < transforms.length; j++) {
      const { type, id, keyLength } = transforms[j]!
      const more = j + 1 < transforms.length ? MORE_TRANSFORMS << 24 : 0
      const length = TRANSFORM_HEADER + (keyLength === undefined ? 0 : ATTRIBUTE)
      writer.u32(more | length).u32((type << 24) | id)
      if (keyLength !== undefined) {
        writer.u32(((FORMAT_TV | AttributeType.KeyLength) << 16) | keyLength)
      }
    }
    writer.patchU16(start + 2, writer.length - start)
  }
}
