/**
 * A strict reader of DER (X.690 §10, §11): one encoding per value. Lengths are definite and minimal, BOOLEAN,
 * INTEGER, BIT STRING, OBJECT IDENTIFIER and times have their canonical form, nothing trails.
 *
 * It never throws. The first fault is kept in a record that a reader shares with all readers made of it, and
 * from then on everything reads as empty; so a parser checks once, at its end, instead of before every field.
 */
import { EMPTY } from './bytes.ts'

export const Tag = {
  Boolean: 0x01,
  Integer: 0x02,
  BitString: 0x03,
  OctetString: 0x04,
  Null: 0x05,
  ObjectIdentifier: 0x06,
  Enumerated: 0x0a,
  Utf8String: 0x0c,
  NumericString: 0x12,
  PrintableString: 0x13,
  TeletexString: 0x14,
  Ia5String: 0x16,
  UtcTime: 0x17,
  GeneralizedTime: 0x18,
  VisibleString: 0x1a,
  UniversalString: 0x1c,
  BmpString: 0x1e,
  Sequence: 0x30,
  Set: 0x31,
} as const

/** The identifier octet of `[number]`, primitive or constructed. */
export const contextTag = (number: number, constructed = false): number =>
  0x80 | (constructed ? 0x20 : 0) | number

export interface DerElement {
  readonly tag: number
  readonly content: Uint8Array
  /** Tag, length and content: what signatures cover. */
  readonly bytes: Uint8Array
}

export interface BitString {
  readonly bytes: Uint8Array
  /** Bits of the last octet that do not belong to the string. */
  readonly unused: number
}

/** What one parse has found wrong and how much it may still read. */
interface Progress {
  problem: string | undefined
  elements: number
}

/** Far above any certificate; lists of revoked certificates give a limit of their own. */
const ELEMENT_LIMIT = 20_000
/** No definition in X.509 nests a value of any type deeper. */
const DEPTH_LIMIT = 16
/** RFC 5280 appendix B asks for 20 components of 28 bits, which are 80 octets at most. */
const OID_LIMIT = 80
const NOTHING: DerElement = { tag: -1, content: EMPTY, bytes: EMPTY }

/** `SEQUENCE`, `BIT STRING`, `[0]`, `tag 0x00`. */
const tagName = (tag: number): string => {
  const known = Object.entries(Tag).find(([, value]) => value === tag)?.[0]
  if (known !== undefined) return known.replace(/([a-z0-9])([A-Z])/g, '$1 $2').toUpperCase()
  const isContext = (tag & 0xc0) === 0x80
  return isContext ? `[${tag & 0x1f}]` : `tag 0x${tag.toString(16).padStart(2, '0')}`
}

export class DerReader {
  readonly #bytes: Uint8Array
  readonly #progress: Progress
  #at = 0

  constructor(bytes: Uint8Array, elementLimit = ELEMENT_LIMIT, progress?: Progress) {
    this.#bytes = bytes
    this.#progress = progress ?? { problem: undefined, elements: elementLimit }
  }

  /** What was wrong first, for people; undefined while all is well. */
  get problem(): string | undefined {
    return this.#progress.problem
  }

  get failed(): boolean {
    return this.#progress.problem !== undefined
  }

  fail(problem: string): void {
    this.#progress.problem ??= problem
  }

  /** Whether an element follows; false after a fault, so that loops end. */
  get more(): boolean {
    return !this.failed && this.#at < this.#bytes.length
  }

  /** The identifier octet that comes next; -1 at the end. */
  get nextTag(): number {
    return this.more ? this.#bytes[this.#at]! : -1
  }

  /** To be called when everything was read. */
  end(): void {
    if (this.more) this.fail('something follows where nothing may')
  }

  /** The next element, of whatever type; its content is not looked into. */
  element(): DerElement {
    const head = this.#header()
    if (head < 0) return NOTHING
    const from = this.#at
    const bytes = this.#bytes.subarray(from, this.#contentAt + head)
    this.#at = this.#contentAt + head
    return { tag: bytes[0]!, content: bytes.subarray(this.#contentAt - from), bytes }
  }

  #contentAt = 0

  /** Checks tag and length; sets where the content begins and gives its length, -1 on a fault. */
  #header(): number {
    const bytes = this.#bytes
    const at = this.#at
    if (this.failed) return -1
    if (at >= bytes.length) return this.#refuse('an element is missing')
    if (--this.#progress.elements < 0) return this.#refuse('there are too many elements')
    const tag = bytes[at]!
    if ((tag & 0x1f) === 0x1f) return this.#refuse('a tag number is above 30')
    if (tag === 0) return this.#refuse('a tag is zero')
    let length = bytes[at + 1] ?? 0x80
    this.#contentAt = at + 2
    if (length >= 0x80) {
      const octets = length & 0x7f
      if (octets === 0) return this.#refuse('a length is indefinite or missing')
      if (octets > 4) return this.#refuse('a length is too long')
      length = 0
      for (let i = 0; i < octets; i++) length = length * 256 + (bytes[at + 2 + i] ?? 0)
      if (length < 0x80 || length < 256 ** (octets - 1))
        return this.#refuse('a length is not in its shortest form')
      this.#contentAt += octets
    }
    if (length > bytes.length - this.#contentAt)
      return this.#refuse('an element is longer than what holds it')
    return length
  }

  #refuse(problem: string): -1 {
    this.fail(problem)
    return -1
  }

  /** The next element, which must have this tag. */
  expect(tag: number): DerElement {
    if (this.more && this.nextTag !== tag) {
      const at = this.#bytes.byteOffset + this.#at
      this.fail(`expected ${tagName(tag)}, found ${tagName(this.nextTag)} at octet ${at}`)
    }
    return this.element()
  }

  optional(tag: number): DerElement | undefined {
    return this.nextTag === tag ? this.element() : undefined
  }

  /** A reader of what this constructed element holds. */
  enter(tag: number = Tag.Sequence): DerReader {
    return this.inside(this.expect(tag).content)
  }

  enterOptional(tag: number): DerReader | undefined {
    return this.nextTag === tag ? this.enter(tag) : undefined
  }

  /** A reader of octets that belong to the same parse, for example an OCTET STRING's content. */
  inside(content: Uint8Array): DerReader {
    return new DerReader(content, 0, this.#progress)
  }

  /** A value of any type: looked through to its leaves, since its lengths must be DER too. */
  any(): DerElement {
    const element = this.element()
    if ((element.tag & 0x20) !== 0) this.inside(element.content).#walk(1)
    return element
  }

  #walk(depth: number): void {
    if (depth > DEPTH_LIMIT) return this.fail('elements are nested too deeply')
    while (this.more) {
      const { tag, content } = this.element()
      if ((tag & 0x20) !== 0) this.inside(content).#walk(depth + 1)
    }
  }

  boolean(tag: number = Tag.Boolean): boolean {
    const { content } = this.expect(tag)
    if (content.length !== 1 || (content[0] !== 0 && content[0] !== 0xff))
      this.fail('a BOOLEAN is neither 00 nor FF')
    return content[0] === 0xff
  }

  /** `BOOLEAN DEFAULT FALSE`: in DER a FALSE is left out (X.690 §11.5). */
  defaultFalse(tag: number = Tag.Boolean): boolean {
    if (this.nextTag !== tag) return false
    if (!this.boolean(tag)) this.fail('a default value is written out')
    return true
  }

  /** The octets of an INTEGER, two's complement in its shortest form (X.690 §8.3.2). */
  integer(tag: number = Tag.Integer): Uint8Array {
    const { content } = this.expect(tag)
    if (content.length === 0) this.fail('an INTEGER is empty')
    const sign = content[0]! >= 0x80
    if (content.length > 1 && (content[0] === 0 || content[0] === 0xff)) {
      if (sign === content[1]! >= 0x80) this.fail('an INTEGER is not in its shortest form')
    }
    return content
  }

  /** An INTEGER of 0 to 2^31-1. */
  smallInteger(tag: number = Tag.Integer): number {
    const content = this.integer(tag)
    let value = 0
    for (const octet of content.subarray(0, 4)) value = value * 256 + octet
    if (content.length > 4 || (content[0] ?? 0) >= 0x80)
      this.fail('a number is negative or too large')
    return value
  }

  /** An INTEGER above zero, without the octet that only holds its sign. */
  positiveInteger(): Uint8Array {
    const content = this.integer()
    if (content.length > 0 && (content[0]! >= 0x80 || (content.length === 1 && content[0] === 0)))
      this.fail('a number is not positive')
    return content[0] === 0 ? content.subarray(1) : content
  }

  bitString(tag: number = Tag.BitString): BitString {
    const { content } = this.expect(tag)
    const unused = content[0] ?? 8
    const bytes = content.subarray(1)
    if (unused > 7 || (bytes.length === 0 && unused !== 0)) this.fail('a BIT STRING is malformed')
    // X.690 §11.2.1: bits that are not used are zero.
    else if (((bytes.at(-1) ?? 0) & ((1 << unused) - 1)) !== 0)
      this.fail('unused bits of a BIT STRING are set')
    return { bytes, unused }
  }

  /** A BIT STRING of whole octets, as keys and signatures are. */
  octetBitString(): Uint8Array {
    const { bytes, unused } = this.bitString()
    if (unused !== 0) this.fail('a BIT STRING does not consist of whole octets')
    return bytes
  }

  /** A BIT STRING of named bits, the first one being bit 0; zeros at its end are left out (X.690 §11.2.2). */
  namedBits(tag: number = Tag.BitString): ReadonlySet<number> {
    const { bytes, unused } = this.bitString(tag)
    const bits = new Set<number>()
    if (bytes.length > 8) this.fail('a BIT STRING of named bits is too long')
    const count = this.failed ? 0 : bytes.length * 8 - unused
    for (let i = 0; i < count; i++) {
      if ((bytes[i >>> 3]! & (0x80 >>> (i & 7))) !== 0) bits.add(i)
    }
    if (count > 0 && !bits.has(count - 1)) this.fail('a BIT STRING of named bits ends in zeros')
    return bits
  }

  octetString(): Uint8Array {
    return this.expect(Tag.OctetString).content
  }

  null(): void {
    if (this.expect(Tag.Null).content.length !== 0) this.fail('a NULL is not empty')
  }

  /** Dotted, for example `2.5.29.19`. */
  oid(tag: number = Tag.ObjectIdentifier): string {
    const { content } = this.expect(tag)
    if (this.failed) return ''
    const { length } = content
    if (length === 0 || length > OID_LIMIT || content[length - 1]! >= 0x80) {
      this.fail('an OBJECT IDENTIFIER is malformed')
      return ''
    }
    const components: bigint[] = []
    let value = 0n
    let isFirst = true
    for (const octet of content) {
      // X.690 §8.19.2: no leading zeros.
      if (isFirst && octet === 0x80) this.fail('an OBJECT IDENTIFIER is not in its shortest form')
      value = (value << 7n) | BigInt(octet & 0x7f)
      isFirst = octet < 0x80
      if (!isFirst) continue
      components.push(value)
      value = 0n
    }
    const first = components[0]!
    const root = first < 40n ? 0n : first < 80n ? 1n : 2n
    return [root, first - 40n * root, ...components.slice(1)].join('.')
  }

  /** UTCTime or GeneralizedTime as RFC 5280 §4.1.2.5 allows them, in milliseconds since 1970. */
  time(): number {
    const { tag, content } = this.element()
    const yearDigits = tag === Tag.UtcTime ? 2 : tag === Tag.GeneralizedTime ? 4 : 0
    const time = yearDigits === 0 ? undefined : readTime(content, yearDigits)
    if (time === undefined) this.fail('a time is malformed')
    return time ?? 0
  }

  /** GeneralizedTime alone, as OCSP has it. */
  generalizedTime(tag: number = Tag.GeneralizedTime): number {
    const time = readTime(this.expect(tag).content, 4)
    if (time === undefined) this.fail('a time is malformed')
    return time ?? 0
  }
}

/** (YY)YYMMDDHHMMSSZ: seconds are there, fractions and time zones are not. */
const readTime = (content: Uint8Array, yearDigits: number): number | undefined => {
  if (content.length !== yearDigits + 11 || content[content.length - 1] !== 0x5a) return undefined
  const pair = (at: number): number => {
    const tens = content[at]! - 0x30
    const ones = content[at + 1]! - 0x30
    return tens < 0 || tens > 9 || ones < 0 || ones > 9 ? NaN : tens * 10 + ones
  }
  const short = pair(0)
  // RFC 5280 §4.1.2.5.1: 50 to 99 are in the twentieth century.
  const year = yearDigits === 4 ? short * 100 + pair(2) : short + (short >= 50 ? 1900 : 2000)
  const [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(at => pair(yearDigits + at)) as [
    number,
    number,
    number,
    number,
    number,
  ]
  const date = new Date(0)
  date.setUTCFullYear(year, month - 1, day)
  date.setUTCHours(hour, minute, second)
  // A thirtieth of February, or a NaN, does not come back as it went in.
  const isSame =
    date.getUTCFullYear() === year &&
    date.getUTCMonth() === month - 1 &&
    date.getUTCDate() === day &&
    date.getUTCHours() === hour &&
    date.getUTCMinutes() === minute &&
    date.getUTCSeconds() === second
  return isSame ? date.getTime() : undefined
}
