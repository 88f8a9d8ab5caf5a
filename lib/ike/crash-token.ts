/**
 * Quick crash detection (RFC 6290): under an IKE SA each end gives the other a token that it can make once more when
 * it has lost everything but its secret. Shown outside the SA the token proves that the SA is gone.
 */
import { equal, utf8 } from '../base/bytes.ts'
import type { Secret } from '../base/secret.ts'
import { nodeHmac } from '../crypto/prf.ts'
import type { IkeHeader } from '../wire/ike-header.ts'
import { IKE_HEADER_LENGTH } from '../wire/ike-header.ts'
import { notifyData } from '../wire/notify.ts'
import { isChainError, readChain } from '../wire/payload-chain.ts'
import type { NotifyPayload, Payload } from '../wire/payloads.ts'
import { HashAlgorithm, NotifyType, PayloadType, ProtocolId } from '../wire/registry.ts'

/** §5 has 16 to 128 octets; as few as that let the answer be no longer than the request that it refuses. */
const TOKEN = 16
const MOST_OCTETS = 128
/** §4.5: at least four in a message, and §5: earlier ones may be good as well. */
const MAX_TOKENS = 4
/**
 * Octets that a request of ours has at least when the peer has given a token: an answer with INVALID_IKE_SPI and a
 * token of 16 octets is no longer.
 */
export const LEAST_REQUEST = IKE_HEADER_LENGTH + 8 + 8 + TOKEN

/** Makes the tokens of one end. */
export class TokenMaker {
  private readonly key: Uint8Array

  /** `secret`: of the credentials; `place`: what else is the same after a restart here, and nowhere else. */
  constructor(secret: Secret, place: Uint8Array) {
    this.key = nodeHmac(HashAlgorithm.Sha2_256, secret.bytes, [LABEL, place])
  }

  /**
   * The address of the end that holds the token is in it (§5.2): an end that has the same secret, and not the SA, can
   * be made to show the token only to the host at that address.
   */
  make(spiI: Uint8Array, spiR: Uint8Array, holder: Uint8Array): Uint8Array {
    return nodeHmac(HashAlgorithm.Sha2_256, this.key, [spiI, spiR, holder]).slice(0, TOKEN)
  }
}

const LABEL = utf8('ike-socket quick crash detection 1')

/** §4.1. */
export const crashTokenPayload = (data: Uint8Array): NotifyPayload => ({
  kind: 'notify',
  protocol: ProtocolId.Ike,
  spi: new Uint8Array(0),
  type: NotifyType.QcdToken,
  data,
})

const tokensIn = (payloads: readonly Payload[]): readonly Uint8Array[] =>
  notifyData(payloads, NotifyType.QcdToken)

/** Tokens that the peer has given under one IKE SA. */
export class CrashTokens {
  private known: readonly Uint8Array[] = []

  get isEmpty(): boolean {
    return this.known.length === 0
  }

  /** Those of a protected message (§4.2-4.4). */
  note(payloads: readonly Payload[]): void {
    const usable = tokensIn(payloads).filter(
      ({ length }) => length >= TOKEN && length <= MOST_OCTETS,
    )
    const copies = usable.slice(0, 1).map(token => token.slice())
    this.known = [...copies, ...this.known].slice(0, MAX_TOKENS)
  }

  /** One of them is shown. */
  match(shown: readonly Uint8Array[]): boolean {
    return shown.slice(0, MAX_TOKENS).some(token => this.known.some(known => equal(known, token)))
  }
}

/** An unprotected message to that SA shows the token that its peer gave: the host that answers no longer knows the SA. */
export const provesCrash = (
  sa: { readonly spiI: Uint8Array; readonly spiR: Uint8Array; readonly crashTokens: CrashTokens },
  message: Uint8Array,
  header: IkeHeader,
): boolean => {
  const { nextPayload, response } = header
  if (!response || nextPayload !== PayloadType.Notify || sa.crashTokens.isEmpty) return false
  if (!equal(header.spiI, sa.spiI) || !equal(header.spiR, sa.spiR)) return false
  const payloads = readChain(message, IKE_HEADER_LENGTH, message.length, nextPayload)
  return !isChainError(payloads) && sa.crashTokens.match(tokensIn(payloads))
}
