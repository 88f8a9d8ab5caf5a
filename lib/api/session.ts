/** An established IKE SA as a program sees it. */
import { X509Certificate } from 'node:crypto'
import { formatAddress } from '../base/address.ts'
import type { PacketSizes, Passage, SessionHandle, SessionInfo } from '../core/events.ts'
import type { Authentication } from '../identity/trust.ts'
import type { Endpoint } from '../node/endpoint.ts'

/** An IKE SA with its Child SAs. It stays the same object over rekeys. */
export class Session {
  readonly #handle: SessionHandle
  readonly #endpoint: Endpoint
  readonly #claimed: Uint8Array | undefined

  /**
   * `claimed`: of a connection that a peer opened, the address that it comes from inside ESP.
   * @internal
   */
  constructor(handle: SessionHandle, endpoint: Endpoint, claimed?: Uint8Array) {
    this.#handle = handle
    this.#endpoint = endpoint
    this.#claimed = claimed
  }

  /**
   * What a session that a program holds stands for; undefined: it is none.
   * @internal
   */
  static handleOf(session: Session): SessionHandle | undefined {
    return typeof session === 'object' && #handle in session ? session.#handle : undefined
  }

  /**
   * Who the peer proved to be: whole, and the same text for the same identity alone. Names, e-mail addresses and IP
   * addresses stand alone; whatever could be taken for another type has `fqdn:`, `email:`, `keyid:`, `dn:` or `gn:` in
   * front. What cannot be shown is `#` and hexadecimal digits.
   */
  get peerId(): string {
    return this.#handle.peer.identityText
  }

  /** How the peer proved it. */
  get authentication(): Authentication {
    return this.#handle.peer.authentication
  }

  /** The peer's certificate, then each one's issuer up to the trust anchor. */
  get peerCertificates(): readonly X509Certificate[] {
    return this.#handle.peer.certificates.map(der => new X509Certificate(der))
  }

  /** A post-quantum pre-shared key protects this SA too (RFC 8784). */
  get usesPpk(): boolean {
    return this.#handle.peer.usesPpk
  }

  /** Our identity, as the peer knows it. */
  get localId(): string {
    return this.#handle.peer.localIdentityText
  }

  /** The peer's outer address: where its UDP datagrams come from. */
  get gatewayAddress(): string {
    return formatAddress(this.#handle.path.remoteAddress)
  }

  /** The UDP port that they come from. */
  get gatewayPort(): number {
    return this.#handle.path.remotePort
  }

  /**
   * The inner address by which the peer names itself: of a server's socket the one that its packets come from,
   * else the one that the newest Child SA names; undefined where that names several. Nothing proves that it is the
   * peer's, unless it equals the socket's `remoteAddress`.
   */
  get claimedAddress(): string | undefined {
    const claimed = this.#claimed ?? this.#handle.claimedAddress
    return claimed && formatAddress(claimed)
  }

  /** What the peer's configuration payload gave us (RFC 7296 §2.19). */
  get virtualAddresses(): readonly string[] {
    return this.#handle.peer.virtualAddresses.map(formatAddress)
  }

  /** DNS servers of the configuration payload. */
  get dns(): readonly string[] {
    return this.#handle.peer.dns.map(formatAddress)
  }

  /** Netmask of the configuration payload. */
  get netmask(): string | undefined {
    const { netmask } = this.#handle.peer
    return netmask && formatAddress(netmask)
  }

  /** SPIs, algorithms, selectors and counters at this moment. */
  get info(): SessionInfo {
    return this.#handle.info(this.#endpoint.now())
  }

  /** What it has carried and refused since it came up: numbers that only grow. */
  get counters(): Readonly<Record<string, number>> {
    const { octetsIn, octetsOut, packetsIn, packetsOut, replayed, failedIcvs } = this.info
    const { ikeRekeys, childRekeys, ikeRetransmissions } = this.info
    const data = { octetsIn, octetsOut, packetsIn, packetsOut, replayed, failedIcvs }
    return { ...data, ikeRekeys, childRekeys, ikeRetransmissions }
  }

  /** Makes new keys for the IKE SA now (RFC 7296 §1.3.2). */
  rekeyIke(): void {
    this.#handle.rekeyIke(this.#endpoint.now())
    this.#endpoint.touch(this.#handle)
  }

  /** Makes new keys for the data now (RFC 7296 §1.3.3). */
  rekeyChild(): void {
    this.#handle.rekeyChild(this.#endpoint.now())
    this.#endpoint.touch(this.#handle)
  }

  /**
   * Asks the peer (RFC 7296 §1.4) and resolves with the milliseconds until its answer; rejects when the session ends. Until
   * then it holds the process, as a look-up of `node:dns` does.
   */
  ping(): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#endpoint.ping(this.#handle, (error, took) =>
        error === undefined ? resolve(took) : reject(error),
      )
    })
  }

  /**
   * Whether packets of these sizes get through, each in one datagram; rejects when the peer cannot be asked so.
   * @internal
   */
  tryPackets(sizes: PacketSizes): Promise<Passage> {
    return new Promise((resolve, reject) => {
      const done = (error: Error | undefined, _took: number, passage?: Passage): void =>
        passage === undefined ? reject(error ?? new Error('no answer')) : resolve(passage)
      this.#endpoint.ping(this.#handle, done, sizes)
    })
  }

  /** Deletes the SAs; their sockets end with ECONNRESET. */
  close(): void {
    this.#handle.close(this.#endpoint.now())
    this.#endpoint.touch(this.#handle)
  }
}
