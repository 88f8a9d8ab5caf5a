/** Certificates, keys and lists as programs give them: PEM (RFC 7468) or DER, text or octets, one or many. */
import { listOf, OptionError, readingOption, withoutContent } from '../base/errors.ts'

const BLOCK = /-----BEGIN ([A-Z0-9 ]{1,40})-----([A-Za-z0-9+/=\s]*)-----END \1-----/g
/** First octet of any structure we take: SEQUENCE. */
const SEQUENCE = 0x30

const decoder = new TextDecoder('latin1')

const decodeBase64 = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'))

/** The structures in one value, each in DER; PEM blocks with other labels are passed over. */
const readOne = (
  option: string,
  value: unknown,
  label: string,
  accepted: string,
): readonly Uint8Array[] => {
  if (value instanceof Uint8Array && value[0] === SEQUENCE) return [new Uint8Array(value)]
  const text =
    typeof value === 'string'
      ? value
      : value instanceof Uint8Array
        ? decoder.decode(value)
        : undefined
  const blocks = [...(text ?? '').matchAll(BLOCK)]
    .filter(([, found]) => found === label)
    .map(([, , body]) => decodeBase64(body!))
  if (blocks.length > 0) return blocks
  throw new OptionError(option, withoutContent(value), accepted)
}

/** One list for each value of an array: what stands in one file belongs together. */
export const readDerGroups = (
  option: string,
  value: unknown,
  label: string,
  accepted: string,
): readonly (readonly Uint8Array[])[] =>
  readingOption(option, () =>
    Array.isArray(value)
      ? listOf(option, value).map((part, i) => readOne(`${option}[${i}]`, part, label, accepted))
      : [readOne(option, value, label, accepted)],
  )
