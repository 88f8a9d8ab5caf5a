/**
 * What an exchange is, and all it may see and do of its IKE SA. Exchanges know this file and never
 * `ike-sa.ts`; message IDs, retransmission and fragments stay below them in the window.
 */
import type { Environment, Millis } from '../base/environment.ts'
import type { IpsecError } from '../base/errors.ts'
import type { Path } from '../base/path.ts'
import type { Secret } from '../base/secret.ts'
import type { Tracer } from '../base/trace.ts'
import type { DirectionKeys } from '../crypto/key-material.ts'
import type { Prf } from '../crypto/prf.ts'
import type { SignatureAlgorithm } from '../crypto/signature.ts'
import type { Credentials } from '../identity/credentials.ts'
import type { Identity } from '../identity/identity.ts'
import type { EapAnswer } from '../identity/eap/eap-peer.ts'
import type { Principal } from '../identity/principal.ts'
import type { Authentication, StatusData, StatusSource } from '../identity/trust.ts'
import type { AddressPool } from '../policy/address-pool.ts'
import type { PeerPolicy } from '../policy/options.ts'
import type { Features } from '../wire/own-features.ts'
import type { Payload } from '../wire/payloads.ts'
import type { TrafficSelector } from '../wire/traffic-selector.ts'
import type { ChildFacts, ChildSa } from './child-sa.ts'
import type { Rekeying } from './collision.ts'
import type { CrashTokens } from './crash-token.ts'
import type { NatVerdict } from './nat-detection.ts'
import type { RequestRate } from './request-rate.ts'
import type { NewSa, Predecessor } from './succession.ts'

/** The peer's hash of our address and port (RFC 4555 §3.8), in which the SPIs of an IKE SA are too. */
export interface Sighting {
  readonly of: string
  readonly hash: Uint8Array
}

/** Where the peer is: one place for all IKE SAs of a session. */
export interface PeerPlace {
  readonly current: Path
  /** How often it has changed. */
  readonly moves: number
  /** From port 500 to where everything after IKE_SA_INIT goes (RFC 7296 §2.23). */
  float(): void
  /** Something authentic that is newer than all before came by `path`, in a datagram of so many octets. */
  noteNewest(path: Path, octets: number, now: Millis): void
  /** Not even a request of ours has been answered from there, or not for long. */
  readonly needsAnswer: boolean
  /** We send from elsewhere, and the peer has not been told (RFC 4555 §3.5, "pending_update"). */
  readonly mustUpdate: boolean
  readonly localBehindNat: boolean
  /** The peer has said that it sends from there now (RFC 4555 §3.5). */
  follow(path: Path, octets: number, now: Millis): void
  /** The peer has these addresses too, and no others but the one in use (RFC 4555 §3.4, §3.6). */
  noteAddresses(addresses: readonly Uint8Array[]): void
  /** The current place is one of several that are tried: silence there is still silence of the peer. */
  readonly isTried: boolean
  /** The peer has taken up, or refused for good, what UPDATE_SA_ADDRESSES says. */
  noteUpdated(): void
  /** What NAT detection says, and as what the peer sees us; `isUpdate`: it has just taken that up. */
  noteNat(verdict: NatVerdict, seen: Sighting, isUpdate: boolean): void
  /** Something authentic came after a silence. */
  noteRevival(): void
  /** As `noteNewest`, in answer to a request that went to the current place and nowhere else; `isLate`: long ago; `isProof`: the peer cannot have answered it unseen. */
  noteAnswer(path: Path, isLate: boolean, isProof: boolean): void
}

/** A peer that has just proved who it is. */
export interface Newcomer {
  readonly principal: Principal
  readonly sa: NewSa
  /** Its proofs that its SA joins a session, one of which is enough. */
  readonly replaced: readonly Uint8Array[]
  /** Its older sessions end now. */
  readonly isRestarted: boolean
}

/** What the requests of a session have shown of the way to its peer. */
export interface ExchangeMeasures {
  /** Requests of ours that were sent again. */
  retransmissions: number
  /** From the last request that was sent but once to its answer; undefined: there was none yet. */
  roundTrip: Millis | undefined
}

/** By which of several pre-shared keys a client proves itself: one that the peer refuses makes way for the next. */
export interface KeyTurn {
  /** Its place among them, from 0. */
  at: number
  /** So many there are, as far as is known. */
  of: number
  /** The peer has refused it. */
  isRefused: boolean
}

export interface IkeSaConfig {
  readonly environment: Environment
  readonly tracer: Tracer
  readonly policy: PeerPolicy
  readonly credentials: Credentials
  /** A fresh inbound ESP SPI, and its return. */
  allocateSpi(): number
  releaseSpi(spi: number): void
  readonly place: PeerPlace
  /** Addresses for peers that ask for one. */
  readonly pool: AddressPool | undefined
  /** Of those, what the session holds that this principal's new SA joins; `replaced`: its proofs that it joins. */
  addressesOf(
    principal: Principal,
    next: NewSa,
    replaced: readonly Uint8Array[],
  ): readonly Uint8Array[]
  /** A responder has room for that peer, or makes it: an SA that joins a session, or restarts one, needs none. */
  mayEnter(newcomer: Newcomer, now: Millis): boolean
  /** What the peer gave us by an SA that this one is to replace. */
  heldAddresses(): readonly Uint8Array[]
  /** The IKE SAs that this one is to replace (RFC 7296 §2.8.3); the peer knows one of them at least. */
  predecessors(): readonly Predecessor[]
  /** Child SAs in use, over all IKE SAs with that peer. */
  childCount(): number
  /** One for all IKE SAs with that peer. */
  readonly requestRate: RequestRate
  readonly measures: ExchangeMeasures
  /** One for all IKE SAs that we open with that peer. */
  readonly keyTurn: KeyTurn
  /** Takes so much of what all peers may have us compute; false: this one has to come later (§2.25). */
  pay(cost: Millis, now: Millis): boolean
  /** There is no other SA with that peer (INITIAL_CONTACT). */
  isFirstContact(): boolean
  /** A message is passed over, and counted under that name. */
  drop(why: string): void
  /** An IKE SA that the peer may have made already will have that SPI of ours; until it has, or never will. */
  holdIkeSpi(spi: Uint8Array): void
  freeIkeSpi(spi: Uint8Array): void
  /** By which a responder can be reached, where it is bound to all of them. */
  ownAddresses(): readonly Uint8Array[]
  /** Our token for the IKE SA with those SPIs and a peer at the current place (RFC 6290); undefined: we make none. */
  crashToken(spiI: Uint8Array, spiR: Uint8Array): Uint8Array | undefined
}

export interface ChildRequest {
  readonly mode: 'auto' | 'transport' | 'tunnel'
  readonly localSelectors: readonly TrafficSelector[]
  readonly remoteSelectors: readonly TrafficSelector[]
}

/** What is known of the other end once it has proved itself. */
export interface PeerFacts {
  /** As on the wire. */
  readonly identity: Identity
  readonly localIdentity: Identity
  /** The identity and what proved it: who this peer is. */
  readonly principal: Principal
  /** Both whole, as `identityText` writes them. */
  readonly identityText: string
  readonly localIdentityText: string
  /** The other end is this package too (by its Vendor ID). */
  readonly isOurs: boolean
  /** What it can do inside the SA; none of a peer that is not ours. */
  readonly features: Features
  /** How it proved itself. */
  readonly authentication: Authentication
  /** One object for one authentication: the question about a peer and the session that follows have the same. */
  readonly proven: object
  /** Its certificates in DER, its own first, then each one's issuer up to the trust anchor. */
  readonly certificates: readonly Uint8Array[]
  /** Until when they are valid, in Unix milliseconds; without certificates `Infinity`. */
  readonly validUntil: number
  /** A post-quantum key is mixed into the keys (RFC 8784). */
  readonly usesPpk: boolean
  readonly ikeSuite: string
  /** Both ends support MOBIKE (RFC 4555). */
  readonly mobike: boolean
  readonly localBehindNat: boolean
  readonly remoteBehindNat: boolean
  /** Given to us by the peer's configuration payload. */
  readonly virtualAddresses: readonly Uint8Array[]
  readonly dns: readonly Uint8Array[]
  readonly netmask: Uint8Array | undefined
  /** Given by us. */
  readonly assignedAddresses: readonly Uint8Array[]
}

/** What is asked of the application while IKE_AUTH waits, by the kind of question. */
export type Question =
  | { readonly kind: 'findSecret'; readonly local: Identity; readonly remote: Identity }
  | { readonly kind: 'authorize'; readonly peer: PeerFacts; readonly path: Path }
  /** A key that is kept elsewhere signs. */
  | { readonly kind: 'sign'; readonly algorithm: SignatureAlgorithm; readonly message: Uint8Array }
  /** An OCSP answer about our own certificate. */
  | { readonly kind: 'ocspResponse' }
  /** Lists of revoked certificates and OCSP answers for a path that is valid otherwise. */
  | { readonly kind: 'fetchStatus'; readonly wanted: readonly StatusSource[] }
  /** An EAP method that is run outside. `conversation` is the same object for one login. */
  | { readonly kind: 'eap'; readonly conversation: object; readonly request: Uint8Array }

/** What each kind of question is answered with. */
export interface Answers {
  /** The pre-shared key of that pair, or several of which the peer may use any. */
  readonly findSecret: string | Uint8Array | readonly (string | Uint8Array)[]
  readonly authorize: AuthorizeAnswer
  /** The signature, ECDSA in DER. */
  readonly sign: Uint8Array
  /** In DER. */
  readonly ocspResponse: Uint8Array
  readonly fetchStatus: StatusData
  readonly eap: EapAnswer
}

/** The answer stands under the kind of its question; nothing there: the application has none. */
export type Answer = { readonly [Kind in keyof Answers]?: Answers[Kind] | undefined }

/** Yes, no, no with a reason for our own side, or yes with a policy for this peer alone. */
export type AuthorizeAnswer = boolean | Error | { readonly policy: PeerPolicy }

export interface ChildKeys {
  readonly inbound: DirectionKeys
  readonly outbound: DirectionKeys
}

/** Octets of the IP packets that the request and its answer fill, each in one datagram; 0: as few as there are. */
export interface PacketSizes {
  readonly there: number
  readonly back: number
}

/** What an answer shows of the path. */
export interface Passage {
  /** The first request was answered, so that both datagrams came through as they were sent. */
  readonly isWhole: boolean
  /** The peer has filled its answer. */
  readonly isFilled: boolean
}

export type IkeOutput<Sa = unknown> =
  /** The peer's certificate has expired, and the Delete of the SA follows. */
  | { kind: 'certificateEnded'; error: IpsecError }
  /** `replaces`: a client's proofs that it authenticates an older SA again; to be checked. */
  | { kind: 'established'; peer: PeerFacts; replaces: readonly Uint8Array[] }
  | {
      kind: 'childInstalled'
      child: ChildSa
      /** The taker wipes them. */
      keys: ChildKeys
      /** The peer asked for it, and does not have it before it has our answer. */
      byPeer: boolean
      ticket: number | undefined
    }
  /** From now on send on it. */
  | { kind: 'childOutbound'; inboundSpi: number }
  /** Settled, once for each Child SA that is rekeyed: `by` is the inbound SPI of what took its place. */
  | { kind: 'childRekeyed'; inboundSpi: number; by: number }
  /** The peer refuses a rekey; 'reauthenticate' follows. */
  | { kind: 'rekeyRefused'; error: IpsecError }
  | { kind: 'childRemoved'; inboundSpi: number; linger: Millis }
  /** The IKE SA ended before the peer answered. */
  | { kind: 'childAbandoned'; ticket: number }
  | { kind: 'childFailed'; ticket: number | undefined; error: IpsecError }
  /** The peer has answered a ping. */
  | { kind: 'pinged'; ticket: number; passage: Passage }
  /** The IKE SA was rekeyed, or may turn out to be: a new SA to route messages to. */
  | { kind: 'successor'; sa: Sa }
  /** Settled, once for each IKE SA that is rekeyed. */
  | { kind: 'rekeyed'; by: Sa }
  | { kind: 'reauthenticate' }
  /** The peer says that it has no older SA with us (RFC 7296 §2.4). */
  | { kind: 'initialContact' }
  | { kind: 'question'; id: number; question: Question }
  /** The peer did not prove that it is the one that it says, or there is no place for it. */
  | { kind: 'turnedAway'; identity: string | undefined; path: Path; error: IpsecError }
  /** An authenticated peer's request for an SA; our side's words. */
  | { kind: 'refused'; error: IpsecError }
  /** It ended; it may still answer repeated requests. */
  | { kind: 'closed'; error: Error | undefined }
  /** Nothing more will come of it; always last. */
  | { kind: 'forgotten' }

/** One exchange that we start. Its other half is a static `respond` in the same file. */
export interface Exchange {
  readonly type: number
  /** What it changes, which decides what the peer may do meanwhile (RFC 7296 §2.25). */
  readonly subject: 'ikeSa' | 'childSa' | 'nothing'
  /** Nobody can answer it who has not received it. */
  readonly provesPath?: boolean
  /** The request is one datagram, however large, until it is sent again. */
  readonly isWhole?: boolean
  /** The request's payloads; undefined when it became pointless while it waited its turn. */
  build(sa: ExchangeContext, now: Millis): readonly Payload[] | undefined
  /** `times`: how often the request was sent. */
  onResponse(sa: ExchangeContext, payloads: readonly Payload[], now: Millis, times: number): void
  /** The SA ends before the answer has come. */
  abandon?(sa: ExchangeContext): void
  /** No answer came, whatever we did; the SA is lost. */
  onTimeout?(sa: ExchangeContext, now: Millis): void
}

export type IkeSaState =
  | 'auth'
  | 'established'
  /** Made by the peer's half of a simultaneous rekey; whether it stays is not known yet. */
  | 'provisional'
  /** Another took its place; a Delete is due. */
  | 'rekeyed'
  | 'deleting'
  | 'closed'

/** Facts of a new IKE SA that a rekey makes. */
export interface SuccessorFacts {
  readonly originalInitiator: boolean
  readonly spiI: Uint8Array
  readonly spiR: Uint8Array
  readonly suite: IkeSuite
  readonly skeyseed: Uint8Array
  readonly nonceI: Uint8Array
  readonly nonceR: Uint8Array
}

/** Algorithms of an IKE SA. */
export interface IkeSuite {
  readonly cipher: ChildFacts['cipher']
  readonly prf: Prf
  readonly group: number
  /** For people. */
  readonly text: string
}

export interface ExchangeContext {
  /** We asked the peer to authenticate us; either end may have made the last rekey. */
  readonly isClient: boolean
  /** Of the message that is handled now: by which path it came, and how large it was. */
  readonly arrival: { readonly path: Path; readonly octets: number; readonly at: Millis }
  readonly config: IkeSaConfig
  readonly spiI: Uint8Array
  readonly spiR: Uint8Array
  readonly state: IkeSaState
  readonly suite: IkeSuite
  readonly skD: Secret
  readonly path: Path
  readonly peer: PeerFacts | undefined
  readonly children: ReadonlyMap<number, ChildSa>
  readonly rekeying: Rekeying<Successor>
  /** Of the peer, for this SA. */
  readonly crashTokens: CrashTokens
  /** The exchange of ours that waits for its answer. */
  readonly busyWith: Exchange | undefined
  /** Octets of payloads in a message that fills an IP packet of so many octets to the peer. */
  roomIn(packet: number): number
  /** The peer's attempt survived a simultaneous rekey of this SA. */
  readonly settled: boolean

  enqueue(exchange: Exchange, now: Millis): void
  /** After TEMPORARY_FAILURE: once more, after a wait that is random and grows (RFC 7296 §2.25). */
  enqueueLater(exchange: Exchange, now: Millis): void
  output(output: IkeOutput): void
  trace(name: string, facts: Readonly<Record<string, string | number | boolean | undefined>>): void
  childByOutboundSpi(spi: number): ChildSa | undefined
  install(
    facts: ChildFacts,
    keys: ChildKeys,
    options: {
      outboundReady: boolean
      byPeer?: boolean | undefined
      ticket?: number | undefined
    },
    now: Millis,
  ): ChildSa
  remove(child: ChildSa, now: Millis): void
  makeOutbound(child: ChildSa): void
  /** The peer ought to delete that Child SA (rule E6). */
  awaitChildDelete(child: ChildSa, now: Millis): void
  /** A Delete came for a Child SA whose making we have not heard of yet. */
  noteEarlyDelete(outboundSpi: number): void
  wasDeletedEarly(outboundSpi: number): boolean
  retryChildLater(child: ChildSa, now: Millis): void
  retryIkeLater(now: Millis): void
  createSuccessor(facts: SuccessorFacts, now: Millis): Successor
  handOver(winner: Successor, now: Millis): void
  settleOnPeer(now: Millis): void
  /** The peer wants us to reauthenticate (RFC 4478). */
  limitAuthentication(lifetime: Millis, now: Millis): void
  startDeleting(): void
  /** Ends the SA. `linger`: it goes on answering repeated requests for a while. */
  finish(error: Error | undefined, linger: boolean, now: Millis): void
}

/** A replacement IKE SA as a rekey handles it. */
export interface Successor {
  readonly crashTokens: CrashTokens
  /** It lost a simultaneous rekey: its maker deletes it. */
  markRekeyed(): void
  markProvisional(predecessor: ExchangeContext): void
  enqueue(exchange: Exchange, now: Millis): void
  expectPeerDelete(now: Millis): void
}
