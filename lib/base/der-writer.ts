/** Writes DER (X.690 §10): the encodings that `der.ts` reads. For values of ours, not of a peer's. */
import { concat, EMPTY } from './bytes.ts'
import { Tag } from './der.ts'

/** An element of any type: tag, length in its shortest form, contents one after the other. */
export const der = (tag: number, ...contents: readonly Uint8Array[]): Uint8Array => {
  const content = concat(...contents)
  const length: number[] = []
  for (let rest = content.length; rest > 0; rest = Math.floor(rest / 256))
    length.unshift(rest & 0xff)
  const head = content.length < 0x80 ? [content.length] : [0x80 | length.length, ...length]
  return concat(Uint8Array.of(tag, ...head), content)
}

export const sequence = (...contents: readonly Uint8Array[]): Uint8Array =>
  der(Tag.Sequence, ...contents)

export const octetString = (content: Uint8Array): Uint8Array => der(Tag.OctetString, content)

/** A BIT STRING of whole octets. */
export const bitString = (content: Uint8Array): Uint8Array =>
  der(Tag.BitString, Uint8Array.of(0), content)

export const NULL: Uint8Array = der(Tag.Null, EMPTY)

/** An INTEGER that is not negative, of octets in network order. */
export const integer = (magnitude: Uint8Array): Uint8Array => {
  let from = 0
  while (from < magnitude.length - 1 && magnitude[from] === 0) from++
  const digits = magnitude.length === 0 ? Uint8Array.of(0) : magnitude.subarray(from)
  return der(Tag.Integer, digits[0]! >= 0x80 ? Uint8Array.of(0) : EMPTY, digits)
}

/** An OBJECT IDENTIFIER of its dotted form; its numbers can be of any size. */
export const oid = (dotted: string): Uint8Array => {
  const [root = 0n, second = 0n, ...others] = dotted.split('.').map(BigInt)
  const octets: number[] = []
  for (const component of [root * 40n + second, ...others]) {
    const digits = [Number(component & 0x7fn)]
    for (let rest = component >> 7n; rest > 0n; rest >>= 7n)
      digits.unshift(0x80 | Number(rest & 0x7fn))
    octets.push(...digits)
  }
  return der(Tag.ObjectIdentifier, Uint8Array.from(octets))
}
