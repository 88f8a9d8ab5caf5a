/** A Child SA as IKE sees it: what was negotiated and where it stands. Its packets are ESP's business. */
import type { Millis } from '../base/environment.ts'
import type { CipherChoice } from '../crypto/suite.ts'
import type { TrafficSelector } from '../wire/traffic-selector.ts'
import type { Rekeying } from './collision.ts'

export type ChildState =
  | 'installed'
  /** Made by the peer's half of a simultaneous rekey; whether it stays is not known yet. */
  | 'provisional'
  | 'rekeying'
  /** Another took its place; a Delete is due. */
  | 'replaced'
  | 'deleting'
  | 'gone'

export interface ChildFacts {
  readonly inboundSpi: number
  readonly outboundSpi: number
  readonly mode: 'transport' | 'tunnel'
  /** Our side of the traffic, and the peer's. */
  readonly localSelectors: readonly TrafficSelector[]
  readonly remoteSelectors: readonly TrafficSelector[]
  readonly esn: boolean
  readonly cipher: CipherChoice
  /** Of the key exchange that made it; 0: none but the IKE SA's. */
  readonly group: number
  /** For people: the negotiated algorithms. */
  readonly suite: string
}

export class ChildSa implements ChildFacts {
  readonly inboundSpi: number
  readonly outboundSpi: number
  readonly mode: 'transport' | 'tunnel'
  readonly localSelectors: readonly TrafficSelector[]
  readonly remoteSelectors: readonly TrafficSelector[]
  readonly esn: boolean
  readonly cipher: CipherChoice
  readonly group: number
  readonly suite: string
  state: ChildState = 'installed'
  /** The peer is known to hold the keys. */
  outboundReady: boolean
  readonly rekeying: Rekeying<ChildSa> = { own: undefined, peer: undefined }
  /** When to rekey, and when it must be gone. */
  softAt: Millis
  hardAt: Millis
  /** When we do the Delete that is the peer's to do (rule E6). */
  orphanAt: Millis = Infinity
  /** Refusals in a row, for the backoff. */
  refusals = 0

  constructor(facts: ChildFacts, outboundReady: boolean, softAt: Millis, hardAt: Millis) {
    this.inboundSpi = facts.inboundSpi
    this.outboundSpi = facts.outboundSpi
    this.mode = facts.mode
    this.localSelectors = facts.localSelectors
    this.remoteSelectors = facts.remoteSelectors
    this.esn = facts.esn
    this.cipher = facts.cipher
    this.group = facts.group
    this.suite = facts.suite
    this.outboundReady = outboundReady
    this.softAt = softAt
    this.hardAt = hardAt
  }

  /** Its end is settled and only the Delete is outstanding. */
  get isClosing(): boolean {
    return (
      this.state === 'deleting' || (this.state === 'replaced' && this.rekeying.own !== undefined)
    )
  }
}
