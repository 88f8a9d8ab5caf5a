/**
 * Where things lie in a protected message: the Encrypted payload (RFC 7296 §3.14) and the Encrypted
 * Fragment payload (RFC 7383 §2.5). The code that has the keys seals and opens.
 */
import { getU16, putU16 } from '../base/bytes.ts'
import {
  IKE_HEADER_LENGTH,
  writeIkeHeader,
  type HeaderFacts,
  type IkeHeader,
} from './ike-header.ts'
import { GENERIC_HEADER_LENGTH, isChainError, walkChain, type ChainError } from './payload-chain.ts'
import { PayloadType } from './registry.ts'

const FRAGMENT_FIELDS = 4

export interface EncryptedLayout {
  /** Type of the first payload inside; in fragments after the first it is zero. */
  readonly firstInner: number
  /** Associated data is everything before here: from the IKE header to the payload's fixed fields. */
  readonly aadEnd: number
  /** IV, ciphertext and ICV. */
  readonly bodyTo: number
  /** 1 and 1 for a message in one piece. */
  readonly fragment: number
  readonly totalFragments: number
  readonly isFragment: boolean
}

/** Finds the SK or SKF payload, which must be the last; undefined when the message has none. */
export const findEncrypted = (
  message: Uint8Array,
  header: IkeHeader,
): EncryptedLayout | ChainError | undefined => {
  const chain = walkChain(message, IKE_HEADER_LENGTH, message.length, header.nextPayload)
  if (isChainError(chain)) return chain
  const last = chain.at(-1)
  if (last?.type === PayloadType.Encrypted) {
    return {
      firstInner: last.next,
      aadEnd: last.bodyFrom,
      bodyTo: last.bodyTo,
      fragment: 1,
      totalFragments: 1,
      isFragment: false,
    }
  }
  if (last?.type !== PayloadType.EncryptedFragment) return undefined
  const malformed: ChainError = {
    error: 'INVALID_SYNTAX',
    payloadType: PayloadType.EncryptedFragment,
  }
  if (last.bodyTo - last.bodyFrom < FRAGMENT_FIELDS) return malformed
  const fragment = getU16(message, last.bodyFrom)
  const totalFragments = getU16(message, last.bodyFrom + 2)
  if (fragment === 0 || fragment > totalFragments) return malformed
  return {
    firstInner: last.next,
    aadEnd: last.bodyFrom + FRAGMENT_FIELDS,
    bodyTo: last.bodyTo,
    fragment,
    totalFragments,
    isFragment: true,
  }
}

/** What a cipher adds to the plaintext. */
export interface CipherOverhead {
  readonly ivLength: number
  readonly icvLength: number
  readonly blockSize: number
}

export interface SealableMessage {
  readonly message: Uint8Array
  /** Associated data ends and the IV begins here. */
  readonly ivAt: number
  /** Plaintext with padding and pad length octet; the ICV's place follows. */
  readonly from: number
  readonly to: number
}

/** Lays out a message of at least `least` octets, up to 200, whose only outer payload is SK, or SKF when a fragment is given. */
export const layoutEncrypted = (
  facts: HeaderFacts,
  firstInner: number,
  plaintext: Uint8Array,
  cipher: CipherOverhead,
  fragment?: { readonly number: number; readonly total: number },
  least = 0,
): SealableMessage => {
  const aadEnd =
    IKE_HEADER_LENGTH + GENERIC_HEADER_LENGTH + (fragment === undefined ? 0 : FRAGMENT_FIELDS)
  const from = aadEnd + cipher.ivLength
  const lacking = least - from - cipher.icvLength - plaintext.length - 1
  const extra = Math.max(0, Math.ceil(lacking / cipher.blockSize) * cipher.blockSize)
  const padding = paddingFor(plaintext.length, cipher.blockSize) + extra
  const to = from + plaintext.length + padding + 1
  const message = new Uint8Array(to + cipher.icvLength)
  const outer = fragment === undefined ? PayloadType.Encrypted : PayloadType.EncryptedFragment
  writeIkeHeader(message, facts, outer, message.length)
  message[IKE_HEADER_LENGTH] = firstInner
  putU16(message, IKE_HEADER_LENGTH + 2, message.length - IKE_HEADER_LENGTH)
  if (fragment !== undefined) {
    putU16(message, aadEnd - 4, fragment.number)
    putU16(message, aadEnd - 2, fragment.total)
  }
  message.set(plaintext, from)
  message[to - 1] = padding
  return { message, ivAt: aadEnd, from, to }
}

const paddingFor = (length: number, blockSize: number): number =>
  (blockSize - ((length + 1) % blockSize)) % blockSize

/** The greatest plaintext whose message stays within `octets`. */
export const messageCapacity = (octets: number, cipher: CipherOverhead): number => {
  const room =
    octets - IKE_HEADER_LENGTH - GENERIC_HEADER_LENGTH - cipher.ivLength - cipher.icvLength
  return Math.floor(room / cipher.blockSize) * cipher.blockSize - 1
}

/** The same where the message is a fragment. */
export const fragmentCapacity = (octets: number, cipher: CipherOverhead): number =>
  messageCapacity(octets - FRAGMENT_FIELDS, cipher)
