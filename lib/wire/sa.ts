/** Security Association payload: proposals, transforms and attributes (RFC 7296 §3.3). */
import { Reader, Writer } from '../base/bytes.ts'
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
/** Ours: far above any honest offer, far below what would cost time to compare. */
const MAX_PROPOSALS = 64
const MAX_TRANSFORMS = 255

export const readSa = (body: Uint8Array): Proposal[] | undefined => {
  const reader = new Reader(body)
  const proposals: Proposal[] = []
  for (let more = true; more;) {
    const last = reader.u8()
    reader.skip(1)
    const length = reader.u16()
    const proposal = readProposal(reader.within(length - 4))
    if (reader.failed || proposal === undefined) return undefined
    if (last !== 0 && last !== MORE_PROPOSALS) return undefined
    proposals.push(proposal)
    more = last === MORE_PROPOSALS
    if (proposals.length > MAX_PROPOSALS) return undefined
  }
  return reader.remaining === 0 ? proposals : undefined
}

const readProposal = (reader: Reader): Proposal | undefined => {
  const number = reader.u8()
  const protocol = reader.u8()
  const spiLength = reader.u8()
  const count = reader.u8()
  const spi = reader.take(spiLength).slice()
  const transforms: Transform[] = []
  while (reader.remaining > 0 && transforms.length < count) {
    const last = reader.u8()
    reader.skip(1)
    const length = reader.u16()
    const transform = readTransform(reader.within(length - 4))
    if (reader.failed || transform === undefined) return undefined
    if ((last === MORE_TRANSFORMS) !== transforms.length + 1 < count) return undefined
    transforms.push(transform)
  }
  if (reader.failed || reader.remaining > 0 || transforms.length !== count) return undefined
  if (count === 0 || count > MAX_TRANSFORMS) return undefined
  return { number, protocol, spi, transforms }
}

const readTransform = (reader: Reader): Transform | undefined => {
  const type = reader.u8()
  reader.skip(1)
  const id = reader.u16()
  let keyLength: number | undefined
  let unknown = false
  while (reader.remaining > 0) {
    const attribute = reader.u16()
    const value = reader.u16()
    if ((attribute & FORMAT_TV) === 0) {
      reader.skip(value)
      unknown = true
    } else if ((attribute & ~FORMAT_TV) === AttributeType.KeyLength && keyLength === undefined) {
      keyLength = value
    } else unknown = true
    if (reader.failed) return undefined
  }
  if (reader.failed) return undefined
  const transform = keyLength === undefined ? { type, id } : { type, id, keyLength }
  return unknown ? { ...transform, unknown } : transform
}

export const writeSa = (writer: Writer, proposals: readonly Proposal[]): void => {
  proposals.forEach((proposal, i) => {
    const start = writer.length
    writer
      .u8(i + 1 < proposals.length ? MORE_PROPOSALS : 0)
      .u8(0)
      .u16(0)
    writer.u8(proposal.number).u8(proposal.protocol)
    writer.u8(proposal.spi.length).u8(proposal.transforms.length).put(proposal.spi)
    proposal.transforms.forEach((transform, j) => {
      const last = j + 1 === proposal.transforms.length
      writer.u8(last ? 0 : MORE_TRANSFORMS).u8(0)
      writer.u16(transform.keyLength === undefined ? 8 : 12)
      writer.u8(transform.type).u8(0).u16(transform.id)
      if (transform.keyLength !== undefined) {
        writer.u16(FORMAT_TV | AttributeType.KeyLength).u16(transform.keyLength)
      }
    })
    writer.patchU16(start + 2, writer.length - start)
  })
}
