/**
 * Every type that crosses the sans-IO line: what the layers above ask of the core, what the core tells
 * them, and the questions it may put to the application. Commands mutate and return; what follows from
 * them comes out of `pollTransmit` and `pollEvent`.
 */
import type { Millis } from '../base/environment.ts'
import type { IpsecError } from '../base/errors.ts'
import type { Path } from '../base/path.ts'
import type {
  Answer,
  AuthorizeAnswer,
  PacketSizes,
  Passage,
  PeerFacts,
  Question,
} from '../ike/exchange.ts'

export type { PacketSizes, Passage }
import type { UdpDatagram, UdpFlow } from '../udp/stack.ts'
import type { IpProtocol } from '../wire/registry.ts'
import type { CongestionControl } from './tcp-config.ts'

export type { UdpDatagram, UdpFlow }
export type { Answer, AuthorizeAnswer, PeerFacts, Question }
export type { StatusData, StatusSource } from '../identity/trust.ts'

/** One TCP connection as its owner sees it; `TcpConnection` is one. */
export interface Connection {
  /** Of those that the request gave, so many went with the SYN. */
  readonly firstOctets: number
  /** 4 or 16 octets, as are all addresses: those inside the tunnel. */
  readonly localAddress: Uint8Array
  readonly localPort: number
  readonly remoteAddress: Uint8Array
  readonly remotePort: number
  /** Takes octets to send, by copy; returns how many. After fewer than given, 'writable' follows. */
  send(bytes: Uint8Array): number
  /** The next octets in order, at most `max`, and the window opens by as many. */
  receive(max?: number): Uint8Array | undefined
  readonly readableLength: number
  /** FIN after what was accepted by `send`. */
  shutdown(): void
  /** RST. */
  abort(): void
  /** The owner lets go: what it wrote still goes out, what comes is refused. */
  release(now: Millis): void
  setNoDelay(on: boolean): void
  setKeepAlive(settings: KeepAlive, now: Millis): void
  /** Milliseconds that what was sent may stay without any acknowledgement; 0: as long as repetitions last. */
  setUserTimeout(timeout: Millis, now: Millis): void
  /** Before anything of the stream is sent. */
  setCongestionControl(name: CongestionControl): void
  readonly octetsSent: number
  readonly octetsReceived: number
  tcpInfo(): Record<string, number | string>
  /** The owner's. */
  context: unknown
}

/** Probes of an idle TCP connection. */
export interface KeepAlive {
  /** Send them. */
  enable: boolean
  /** Milliseconds of silence before the first probe; undefined keeps what was set. */
  initialDelay?: Millis | undefined
  /** Milliseconds between probes. */
  interval?: Millis | undefined
  /** Probes without an answer before the connection ends. */
  count?: number | undefined
}

/** What a socket asks for. The peer is the core's own: a client endpoint speaks to one gateway. */
export interface ConnectRequest {
  /** Default TCP. Of UDP there is no connection: 'associated' tells that datagrams can be sent. */
  readonly protocol?: typeof IpProtocol.Tcp | typeof IpProtocol.Udp | undefined
  /** The service inside the tunnel. */
  readonly remoteAddress: Uint8Array
  readonly remotePort: number
  /** Inside the tunnel; undefined: whichever address the Child SA gives us. */
  readonly localAddress?: Uint8Array | undefined
  /** 0: any. */
  readonly localPort: number
  readonly noDelay: boolean
  readonly keepAlive: KeepAlive | undefined
  /** Undefined: as the core's own settings of TCP say. */
  readonly userTimeout?: Millis | undefined
  readonly congestionControl?: CongestionControl | undefined
  /** Asked as the SYN is made: the first octets of the stream, where they are known by then. */
  readonly firstOctets?: (() => Uint8Array | undefined) | undefined
}

/** A connection that is being made: first the SA, when there is none, then TCP. */
export interface Attempt {
  readonly request: ConnectRequest
  /** The owner's, and later the connection's `context`. */
  readonly context: object
  /** What it is known by at a peer that may have got its first octets. */
  readonly token?: Uint8Array | undefined
}

/** An IKE SA with its Child SAs, rekeyed or not, as the layers above see it. */
export interface SessionHandle {
  /** We opened it. */
  readonly isClient: boolean
  readonly peer: PeerFacts
  readonly path: Path
  /** The one inner address that the peer's newest Child SA names, if it names but one. */
  readonly claimedAddress: Uint8Array | undefined
  /**
   * By which address to know the peer that claims this inner one: that address where we gave it, our policy binds the
   * peer to it or the peer's datagrams come from it, else the one they come from.
   */
  addressOf(claimed: Uint8Array): Uint8Array
  /** Octets of the largest payload of a datagram that is sent. */
  readonly datagramLimit: number
  /** A Child SA carries datagrams between these ends. */
  carries(flow: UdpFlow): boolean
  /** `now`: to which its times belong; default: when the peer was heard last. */
  info(now?: Millis): SessionInfo
  /** Asks the peer; 'pinged' with that ticket follows, unless the session ends. False: it cannot be asked. */
  ping(ticket: number, sizes: PacketSizes | undefined, now: Millis): boolean
  rekeyIke(now: Millis): void
  rekeyChild(now: Millis): void
  reauthenticate(now: Millis): void
  /** Deletes the SA; its connections end with ECONNRESET. */
  close(now: Millis): void
}

/** The state of a session at one moment. */
export interface SessionInfo {
  /** The state of the newest IKE SA, for example `established` or `closed`. */
  readonly state: string
  /** The initiator's SPI of the IKE SA, in hexadecimal digits. */
  readonly spiI: string
  /** The responder's SPI of the IKE SA, in hexadecimal digits. */
  readonly spiR: string
  /** The algorithms of the IKE SA by name, such as `AES-GCM-16-256, PRF-HMAC-SHA2-256, X25519`: not the keywords of `ike`. */
  readonly ikeSuite: string
  /** Our identity. */
  readonly localIdentity: string
  /** The identity that the peer proved. */
  readonly remoteIdentity: string
  /** Our address was changed on the way. */
  readonly localBehindNat: boolean
  /** The peer's address was changed on the way. */
  readonly remoteBehindNat: boolean
  /** Milliseconds of silence after which the mapping of a NAT on the way is refreshed; 0: never. */
  readonly natKeepalive: Millis
  /** When it came up, in Unix milliseconds. */
  readonly createdAt: number
  /** When the peer was heard last: an authentic message or packet. Unix milliseconds. */
  readonly lastHeardAt: number
  /** When our end rekeys or renews the IKE SA, and when it ends without that; undefined: never. Unix milliseconds. */
  readonly rekeyAt: number | undefined
  readonly expiresAt: number | undefined
  /** Milliseconds from a request of IKE to its answer; undefined: not measured yet. */
  readonly roundTrip: Millis | undefined
  /** Outer addresses and UDP ports. */
  readonly path: PathInfo
  /** Requests of IKE that were sent again. */
  readonly ikeRetransmissions: number
  /** ESP packets that came twice or too late, and those whose integrity check failed. */
  readonly replayed: number
  readonly failedIcvs: number
  /** All ESP since it came up, of Child SAs that were replaced too. */
  readonly octetsIn: number
  readonly octetsOut: number
  readonly packetsIn: number
  readonly packetsOut: number
  /** TCP connections inside. */
  readonly sockets: number
  /** Rekeys of the IKE SA so far. */
  readonly ikeRekeys: number
  /** Rekeys of Child SAs so far. */
  readonly childRekeys: number
  /** Why the peer refused to rekey an SA, the last time that it did; undefined: it never did. */
  readonly rekeyRefusal: { readonly code: string; readonly message: string } | undefined
  /** The peer has given a token, so that it is known at once when it starts again without this SA (RFC 6290). */
  readonly detectsCrash: boolean
  /** Octets of the largest IP packet that an IKE message makes; smaller ones come of a path that takes no more. */
  readonly fragmentSize: number
  /** Octets of the largest IP packet with data that is sent to the peer now: found by trial (RFC 8899). */
  readonly mtu: number
  /** Octets of the largest IP packet that the peer is told it may send to us. */
  readonly receivableMtu: number
  /** When the first of the certificates that prove the peer expires, in Unix milliseconds; the SA ends then. */
  readonly validUntil: number | undefined
  /** The Child SAs in use, newest first. */
  readonly children: readonly ChildInfo[]
}

/** The state of one Child SA at one moment. */
export interface PathInfo {
  readonly localAddress: string
  readonly localPort: number
  readonly remoteAddress: string
  readonly remotePort: number
}

export interface ChildInfo {
  /** The SPI that packets to us carry. */
  readonly spiIn: number
  /** The SPI that packets to the peer carry. */
  readonly spiOut: number
  /** The mode that was negotiated. */
  readonly mode: 'transport' | 'tunnel'
  /** The algorithms by name, such as `AES-GCM-16-256 with ESN`: not the keywords of `esp`. */
  readonly suite: string
  /** What encrypts here: `'node:crypto'`, `'noble'`, `'sodium-native'`, `'openssl'` (`accelerate`), or the name of a backend of the option `aead`. */
  readonly backend: string
  /** Traffic selectors of our side. */
  readonly localSelectors: readonly string[]
  /** Traffic selectors of the peer's side. */
  readonly remoteSelectors: readonly string[]
  /** Octets received. */
  readonly octetsIn: number
  /** Octets sent. */
  readonly octetsOut: number
  /** Packets received. */
  readonly packetsIn: number
  /** Packets sent. */
  readonly packetsOut: number
}

export type CoreEvent =
  /** The SAs that an attempt waited for are up; TCP follows. */
  | { kind: 'session'; attempt: Attempt; session: SessionHandle }
  /** An attempt for UDP: the SA carries datagrams between these ends; nothing else follows for it. */
  | { kind: 'associated'; attempt: Attempt; flow: UdpFlow; session: SessionHandle }
  | { kind: 'datagram'; datagram: UdpDatagram; session: SessionHandle }
  | { kind: 'connected'; attempt: Attempt; connection: Connection; session: SessionHandle }
  /** The attempt ended without a connection; nothing else follows for it. */
  | { kind: 'failed'; attempt: Attempt; error: Error }
  | { kind: 'accepted'; connection: Connection; port: number; session: SessionHandle }
  | { kind: 'readable' | 'writable' | 'ended'; connection: Connection }
  /** The last event of a connection, once. */
  | { kind: 'closed'; connection: Connection; error?: Error | undefined }
  /** `of`: the context of the gateway whose session asks; undefined where a peer opened the session. */
  | { kind: 'question'; id: number; question: Question; of: unknown }
  /** An IKE SA came up or went; `error` when it ended badly. */
  | { kind: 'sessionUp'; session: SessionHandle }
  | { kind: 'sessionDown'; session: SessionHandle; error?: Error | undefined }
  /** The peer has answered the ping with that ticket. */
  | { kind: 'pinged'; session: SessionHandle; ticket: number; passage: Passage }
  /**
   * A client's request had to be sent again, so many times in all: it is worth a look whether there is a way.
   * `isOpening`: no SA is up yet.
   */
  | { kind: 'unanswered'; path: Path; times: number; isOpening: boolean }
  /** The peer refuses to rekey an SA; once for each session. */
  | { kind: 'rekeyRefused'; session: SessionHandle; error: IpsecError }
  /** A stranger, or a peer before its authentication, failed: who it said it was and from where. */
  | { kind: 'refused'; error: Error; identity: string | undefined; path: Path }

/** Counters since the core was made; a drop is counted under its reason. */
export interface CoreCounters {
  datagramsIn: number
  datagramsOut: number
  drops: Record<string, number>
}
