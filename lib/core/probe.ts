/**
 * One IKE_SA_INIT by itself, to learn who answers at an address and what it takes. Nothing follows it, so no secret is
 * sent, and nothing in the answer is proved.
 */
import { equal, getU32 } from '../base/bytes.ts'
import { drawSpi, type Environment } from '../base/environment.ts'
import type { IpsecError } from '../base/errors.ts'
import type { Path } from '../base/path.ts'
import type { Credentials } from '../identity/credentials.ts'
import { SaInit } from '../ike/sa-init.ts'
import type { PeerPolicy } from '../policy/options.ts'
import { formatProposal } from '../policy/proposal.ts'
import { NON_ESP_MARKER_LENGTH } from '../wire/encapsulation.ts'
import { IKE_HEADER_LENGTH, isVersion1, readIkeHeader } from '../wire/ike-header.ts'
import { isChainError, readChain } from '../wire/payload-chain.ts'
import { ExchangeType } from '../wire/registry.ts'

/** Ours: Vendor IDs of one answer that are told. */
const MOST_VENDORS = 16

export type ProbeAnswer =
  | {
      readonly kind: 'accepted'
      /** In the keywords of the option "ike". */
      readonly proposal: string
      readonly isOurs: boolean
      /** Vendor IDs, as octets. */
      readonly vendors: readonly Uint8Array[]
      /** The peer sees another address or port of ours than we have. */
      readonly localBehindNat: boolean
    }
  | { readonly kind: 'refused'; readonly error: IpsecError }

/**
 * What a datagram is that answers nothing: IKEv1; what we sent; IKE without the non-ESP marker, as on port 500, or with it
 * there; a cookie in the place of an answer to a cookie; IKEv2 that cannot be used; or something else.
 */
export type Oddity = 'IKEv1' | 'echo' | 'marker' | 'cookie' | 'IKEv2' | 'other'

export class Probe {
  private readonly init: SaInit
  private readonly spiI: Uint8Array
  private readonly path: Path

  constructor(policy: PeerPolicy, credentials: Credentials, environment: Environment, path: Path) {
    this.spiI = drawSpi(environment, 8)
    this.path = path
    this.init = new SaInit(policy, credentials, environment, this.spiI, path, false)
  }

  /** The datagram to send now. */
  datagram(): Uint8Array {
    const request = this.init.request()
    if (this.path.isUnmarked === true) return request
    const marked = new Uint8Array(NON_ESP_MARKER_LENGTH + request.length)
    marked.set(request, NON_ESP_MARKER_LENGTH)
    return marked
  }

  /** What a datagram says: an answer; 'again' to send `datagram` now; or what it is that says nothing. */
  read(datagram: Uint8Array): ProbeAnswer | 'again' | Oddity {
    const isMarked = datagram.length > NON_ESP_MARKER_LENGTH && getU32(datagram, 0) === 0
    const message = isMarked ? datagram.slice(NON_ESP_MARKER_LENGTH) : datagram
    const header = readIkeHeader(message)
    if (header === undefined || !equal(header.spiI, this.spiI)) return 'other'
    if (isVersion1(message)) return 'IKEv1'
    if (equal(message, this.init.request())) return 'echo'
    if (isMarked === (this.path.isUnmarked === true)) return 'marker'
    if (!header.response || header.exchange !== ExchangeType.IkeSaInit) return 'IKEv2'
    const outcome = this.init.onResponse(message, header, this.path)
    switch (outcome.kind) {
      case 'again':
        return outcome.isUrgent ? 'again' : 'cookie'
      case 'refused':
        return outcome
      case 'ignored':
        return outcome.why === 'ike.init.cookie' ? 'cookie' : 'IKEv2'
      case 'done': {
        const { handshake } = outcome
        handshake.shared.fill(0)
        const payloads = readChain(message, IKE_HEADER_LENGTH, message.length, header.nextPayload)
        if (isChainError(payloads)) return 'IKEv2'
        const proposals = payloads.flatMap(payload =>
          payload.kind === 'sa' ? payload.proposals : [],
        )
        const vendors = payloads.flatMap(payload =>
          payload.kind === 'vendor' ? [payload.data.slice()] : [],
        )
        return {
          kind: 'accepted',
          proposal: proposals.map(formatProposal).join(', '),
          isOurs: handshake.peerIsOurs,
          vendors: vendors.slice(0, MOST_VENDORS),
          localBehindNat: handshake.nat.localBehindNat,
        }
      }
    }
  }

  wipe(): void {
    this.init.wipe()
  }
}
