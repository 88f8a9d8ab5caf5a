/** Octets in network order: plain functions for the hot path, `Reader` and `Writer` for the codecs. */

export const EMPTY: Uint8Array = new Uint8Array(0)

export const getU16 = (b: Uint8Array, at: number): number => (b[at]! << 8) | b[at + 1]!

export const getU32 = (b: Uint8Array, at: number): number =>
  ((b[at]! << 24) | (b[at + 1]! << 16) | (b[at + 2]! << 8) | b[at + 3]!) >>> 0

export const putU16 = (b: Uint8Array, at: number, value: number): void => {
  b[at] = value >>> 8
  b[at + 1] = value
}

export const putU32 = (b: Uint8Array, at: number, value: number): void => {
  b[at] = value >>> 24
  b[at + 1] = value >>> 16
  b[at + 2] = value >>> 8
  b[at + 3] = value
}

/** Compares without revealing by its duration where two secrets differ. Lengths are not secret. */
export const equal = (a: Uint8Array, b: Uint8Array): boolean => {
  // Node 20 asks for the length of an array by a call each time.
  const { length } = a
  if (length !== b.length) return false
  let difference = 0
  for (let i = 0; i < length; i++) difference |= a[i]! ^ b[i]!
  return difference === 0
}

/** Orders octet strings as unsigned numbers of the same length, a prefix before what continues it. */
export const compare = (a: Uint8Array, b: Uint8Array): number => {
  const shared = Math.min(a.length, b.length)
  for (let i = 0; i < shared; i++) {
    if (a[i] !== b[i]) return a[i]! - b[i]!
  }
  return a.length - b.length
}

export const concat = (...parts: readonly Uint8Array[]): Uint8Array => {
  let length = 0
  for (const part of parts) length += part.length
  const whole = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

const HEX = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, '0'))

export const toHex = (bytes: Uint8Array): string => {
  let hex = ''
  for (let i = 0; i < bytes.length; i++) hex += HEX[bytes[i]!]
  return hex
}

/** Parses hexadecimal digits; white space is passed over. For constants and tests, not for peers' data. */
export const fromHex = (hex: string): Uint8Array => {
  const digits = hex.replace(/\s+/g, '')
  if (digits.length % 2 !== 0 || /[^0-9a-f]/i.test(digits)) throw new TypeError('not hexadecimal')
  const bytes = new Uint8Array(digits.length / 2)
  for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(digits.slice(2 * i, 2 * i + 2), 16)
  return bytes
}

const encoder = new TextEncoder()
export const utf8 = (text: string): Uint8Array => encoder.encode(text)

/** Of so few octets a loop costs less than the calls of `subarray` and `set`. */
const FEW = 64

/** Copies `source[from, from + count)` to `target[at…]`, other memory. */
export const copyTo = (
  target: Uint8Array,
  at: number,
  source: Uint8Array,
  from: number,
  count: number,
): void => {
  if (count > FEW) {
    const isWhole = count === source.length
    return target.set(isWhole ? source : source.subarray(from, from + count), at)
  }
  for (let i = 0; i < count; i++) target[at + i] = source[from + i]!
}

/** A copy of its own memory, so that a small piece does not keep a whole datagram alive. */
export const copy = (bytes: Uint8Array): Uint8Array => Uint8Array.prototype.slice.call(bytes)

/**
 * Reads octets within bounds. Reading past the end never throws: it returns zero (or nothing) and
 * sets `failed` for good, so that a codec checks once at the end instead of before every field.
 */
export class Reader {
  failed = false
  readonly bytes: Uint8Array
  at: number
  readonly end: number

  constructor(bytes: Uint8Array, at = 0, end = bytes.length) {
    this.bytes = bytes
    this.at = at
    this.end = Math.min(end, bytes.length)
  }

  get remaining(): number {
    return this.end - this.at
  }

  private claim(length: number): number {
    if (this.failed || length < 0 || length > this.end - this.at) {
      this.failed = true
      return -1
    }
    const at = this.at
    this.at += length
    return at
  }

  u8(): number {
    const at = this.claim(1)
    return at < 0 ? 0 : this.bytes[at]!
  }

  u16(): number {
    const at = this.claim(2)
    return at < 0 ? 0 : getU16(this.bytes, at)
  }

  u32(): number {
    const at = this.claim(4)
    return at < 0 ? 0 : getU32(this.bytes, at)
  }

  /** A view, not a copy. */
  take(length: number): Uint8Array {
    const at = this.claim(length)
    return at < 0 ? EMPTY : this.bytes.subarray(at, at + length)
  }

  /** In memory of their own. */
  copy(length: number): Uint8Array {
    const at = this.claim(length)
    return at < 0 || length === 0 ? EMPTY : this.bytes.slice(at, at + length)
  }

  rest(): Uint8Array {
    return this.take(this.remaining)
  }

  copyRest(): Uint8Array {
    return this.copy(this.remaining)
  }

  skip(length: number): void {
    this.claim(length)
  }
}

/** Writes octets into memory that grows. */
export class Writer {
  private bytes: Uint8Array
  length = 0

  constructor(capacity = 256) {
    this.bytes = new Uint8Array(capacity)
  }

  private reserve(length: number): number {
    const at = this.length
    this.length += length
    if (this.length > this.bytes.length) {
      const larger = new Uint8Array(Math.max(this.length, 2 * this.bytes.length))
      larger.set(this.bytes.subarray(0, at))
      this.bytes = larger
    }
    return at
  }

  u8(value: number): this {
    const at = this.reserve(1)
    this.bytes[at] = value
    return this
  }

  u16(value: number): this {
    const at = this.reserve(2)
    putU16(this.bytes, at, value)
    return this
  }

  u32(value: number): this {
    const at = this.reserve(4)
    putU32(this.bytes, at, value)
    return this
  }

  put(octets: Uint8Array): this {
    const at = this.reserve(octets.length)
    this.bytes.set(octets, at)
    return this
  }

  zeros(length: number): this {
    const at = this.reserve(length)
    this.bytes.fill(0, at, at + length)
    return this
  }

  /** Overwrites a field whose value is known only after what follows it. */
  patchU16(at: number, value: number): void {
    putU16(this.bytes, at, value)
  }

  /** What was written, in memory of its own. */
  finish(): Uint8Array {
    return this.bytes.slice(0, this.length)
  }
}
