/**
 * The options that a program writes, each with its documentation. `lib/REFERENCE.md` is generated from these comments and
 * from the tables by which options are read; what stands there about ends, defaults and ranges comes from the tables.
 */
import type { KeyObject, X509Certificate } from 'node:crypto'
import type { BlockList, LookupFunction } from 'node:net'
import type { PeerCertificate } from 'node:tls'
import type { AeadBackends } from '../base/aead-backend.ts'
import type { CongestionControl } from '../core/tcp-config.ts'
import type { KeyLog } from './channels.ts'
import type { FileReference } from './credential-files.ts'
import type { SecureContext } from './secure-context.ts'

/** A pre-shared key: text stands for its octets in UTF-8. */
export type Psk = string | Uint8Array
/** One key or up to eight, while keys are replaced: a peer may use any of them, and we use the one it used, else the first. */
export type Psks = Psk | FileReference | readonly (Psk | FileReference)[]
/** PEM, or DER as octets, or a file that holds either. */
export type Pem = string | Uint8Array | FileReference
/** A private key. */
export type Key = Pem | KeyObject | { pem: Pem | KeyObject; passphrase?: string | Uint8Array }

/** A PKCS #12 file. */
export interface PfxOption {
  /** What the file holds. */
  buf: Uint8Array
  /** Decrypts it. */
  passphrase?: string
}

/** What the function `sign` is asked for. */
export interface SignRequest {
  /** The algorithm by name: `RSASSA-PSS with SHA-256`, `ECDSA with SHA-384`, `Ed25519`. */
  readonly algorithm: string
  /** The hash of the message; `identity` for algorithms that hash by themselves. */
  readonly hash: 'sha256' | 'sha384' | 'sha512' | 'identity'
  /** The octets to sign, not hashed yet. */
  readonly message: Uint8Array
}

/** A post-quantum pre-shared key (RFC 8784). */
export interface PpkOption {
  /** Its name, by which the peer finds its copy. */
  id: string
  /** 32 octets or more. */
  secret: string | Uint8Array
  /** Refuse peers that do not have it. Default `false`. */
  required?: boolean | undefined
}

/** A login at a gateway by EAP (RFC 7296 §2.16). */
export type EapOption =
  | {
      /** EAP-MSCHAPv2. */
      method: 'mschapv2'
      /** The user's name. */
      identity: string
      /** The user's password. */
      password: string
    }
  | {
      /** EAP-TLS (RFC 5216, RFC 9190). */
      method: 'tls'
      /** The identity that the EAP server is told. */
      identity: string
      /** Our certificates, own first. */
      cert: Pem
      /** The private key of the first certificate. */
      key: Pem
      /** Decrypts `key`. */
      passphrase?: string | undefined
      /** Trusted CAs of the EAP server. */
      ca: Pem
      /** Lists of revoked certificates. */
      crl?: Pem | undefined
      /** A name that the EAP server's certificate must have. Not checked when left out. */
      servername?: string | undefined
      /** EAP-TLS alone proves both ends (RFC 5998); `servername` is then required. Default `false`. */
      only?: boolean | undefined
    }

/** When IKE requests are sent again; see `retransmit`. */
export interface RetransmitOption {
  /** Milliseconds before the first retransmission, 10 to 60000. Default 500. */
  initial?: number
  /** Each wait is this many times the one before, 1 to 10. Default 1.8. */
  factor?: number
  /** No wait is longer than this many milliseconds, 10 to 600000. Default 20000. */
  max?: number
  /** Retransmissions before the peer is given up, 0 to 20. Default 7. */
  tries?: number
}

/** One text or several. */
export type OneOrMore = string | readonly string[]

/** What `createEndpoint` returns, as an option. */
export interface EndpointOption {
  /** Datagrams in and out, and drops by reason. */
  readonly counters: Readonly<Record<string, unknown>>
  /** Makes a server on the UDP port of the endpoint. */
  createServer(...args: never): unknown
  /** Opens a connection from the UDP port of the endpoint. */
  connect(...args: never): unknown
}

/** Options that clients and servers share. Times are milliseconds. */
export interface IkeOptions {
  /**
   * The endpoint that `createEndpoint` returned. The socket or server uses its UDP port and its credentials.
   * @category Credentials
   * @example endpoint: createEndpoint({ psk: process.env.IKE_PSK, ikePort: 0 })
   */
  endpoint?: EndpointOption | undefined
  /**
   * The context that `createSecureContext` returned. Its options are read once instead of for each socket or server. It
   * replaces all IKE options except `servername`, `remoteId`, `checkServerIdentity` and `authorize`.
   * @category Credentials
   * @example secureContext: createSecureContext({ psk: process.env.IKE_PSK })
   */
  secureContext?: SecureContext | undefined
  /**
   * Pre-shared key. Required unless certificates are given. The two ends may authenticate differently.
   *
   * The value is a string, a `Uint8Array`, an object from identity to key, or a function `(identity, localIdentity)` that
   * returns a key or a promise of one. An array of up to eight keys may stand for each key while keys are replaced: a
   * server takes any of them, and a client begins with the first and tries the next when the peer refuses one. An
   * entry of the object is for one type of identity; its name may hold `*`, and `'*'` is for everyone else. The function
   * gets identities in the form of `peerId`. Use 16 random octets or more: a shorter key causes a warning, because anyone
   * who impersonates the server obtains a MAC and can guess the key offline.
   * @category Credentials
   * @example psk: { 'orders.internal': 'e4f1 a key of its own', '*': 'c07a the key of all others' }
   */
  psk?:
    | Psks
    | Readonly<Record<string, Psks>>
    | ((identity: string, localIdentity: string) => Psks | undefined | Promise<Psks | undefined>)
    | undefined
  /**
   * Our identity. Default: the first name of our certificate, else our address. A server without a certificate is the
   * address that the client asked, or `0.0.0.0` when it is bound to all addresses behind a NAT.
   *
   * An identity is `name.test`, `user@name.test`, `192.0.2.1`, `2001:db8::1` or `C=CH, O=Example, CN=host`, or has its type
   * in front: `ipv4:`, `ipv6:`, `fqdn:`, `email:`, `keyid:`, `dn:`, and `gn:#hex`. `#hex` gives the octets of any type
   * except addresses. Types differ: `name.test` is not `email:name.test`. ASCII case does not matter in names and mail
   * domains; case and white space do not matter in `dn:`. Names outside ASCII compare octet by octet, and a dot at the end
   * is refused.
   * @category Credentials
   * @example localId: 'billing.internal'
   */
  localId?: string | undefined
  /**
   * The identity that the peer must prove; `*` is a wildcard. Default: any identity that is proved. The forms are those of
   * `localId`. The identity must stand in the peer's certificate, as a subjectAltName or as the subject; an address must
   * also be the one that the peer's datagrams come from (RFC 4945 §3.1.1).
   * @category Trust
   * @example remoteId: '*.internal'
   */
  remoteId?: string | undefined
  /**
   * Our certificates, own first, as in `tls`: PEM or DER. An array holds several identities, among which the peer's CERTREQ
   * chooses. RSA (RSASSA-PSS), ECDSA with P-256, P-384 and P-521, Ed25519 and Ed448 work (RFC 7427, RFC 8420).
   * @category Credentials
   * @example cert: { file: 'ike-keys/client-ed25519.crt' }, key: { file: 'ike-keys/client-ed25519.key' }
   */
  cert?: Pem | readonly Pem[] | undefined
  /**
   * Private keys, as in `tls`: PEM, DER or `KeyObject`. A key without a certificate is shown as a raw public key
   * (RFC 7670).
   * @category Credentials
   * @example key: { file: 'ike-keys/client-ed25519.key' }
   */
  key?: Key | readonly Key[] | undefined
  /**
   * Decrypts `key`.
   * @category Credentials
   * @example key: { file: 'ike-keys/encrypted.key' }, passphrase: 'open sesame'
   */
  passphrase?: string | Uint8Array | undefined
  /**
   * Certificates and key as one PKCS #12 file, or `{ buf, passphrase }`. Cannot be combined with `cert` or `key`.
   * @category Credentials
   * @example pfx: { buf: readFileSync('ike-keys/client.p12'), passphrase: 'open sesame' }
   */
  pfx?: Uint8Array | PfxOption | undefined
  /**
   * Signs with a key that is kept elsewhere (HSM, KMS, agent): `({ algorithm, hash, message })` returns a signature or a
   * promise of one. Given with `cert` alone. ECDSA signatures are in DER.
   * @category Credentials
   * @example cert: { file: 'ike-keys/client-ed25519.crt' }, sign: request => askKeyStore(request)
   */
  sign?: ((request: SignRequest) => Uint8Array | Promise<Uint8Array>) | undefined
  /**
   * An OCSP response for our certificate in DER, or a function that returns one or a promise of one. It is sent to peers
   * that ask for it (RFC 4806).
   * @category Credentials
   * @example ocspResponse: async () => readFileSync('ike-keys/ocsp.der')
   */
  ocspResponse?:
    | Uint8Array
    | (() => Uint8Array | undefined | Promise<Uint8Array | undefined>)
    | undefined
  /**
   * Trusted CAs. When set, the peer must present a certificate issued by one of them. Default: none (no system CAs). A
   * server with `psk`, `cert`, `key` and `ca` accepts either proof and answers in kind.
   * @category Trust
   * @example ca: { file: 'ike-keys/ca.crt' }
   */
  ca?: Pem | readonly Pem[] | undefined
  /**
   * Lists of revoked certificates, PEM or DER.
   * @category Trust
   * @example ca: { file: 'ike-keys/ca.crt' }, crl: { file: 'ike-keys/ca.crl' }
   */
  crl?: Pem | readonly Pem[] | undefined
  /**
   * `'require'`: every certificate must be known to be good. `'prefer'`: no certificate may be known to be revoked.
   * `'off'`: revocation is not checked. OCSP responses that the peer sends along count too (RFC 4806).
   * @category Trust
   * @defaultValue `'prefer'`, with `crl` `'require'`
   * @example ca: { file: 'ike-keys/ca.crt' }, revocation: 'off'
   */
  revocation?: 'require' | 'prefer' | 'off' | undefined
  /**
   * Fetch lists and OCSP responses over HTTP from where the certificates say, for certificates that lead to a `ca`. Limits:
   * four addresses per certificate, in parallel; 5 s and 8 MiB per response, 15 s in all; no redirections. A response is
   * kept until its next update, at most an hour. Only public addresses are asked, also after DNS; an array of networks
   * allows these too.
   * @category Trust
   * @defaultValue `false`
   * @example ca: { file: 'ike-keys/ca.crt' }, fetchRevocation: ['10.0.0.0/8', '::1']
   */
  fetchRevocation?: boolean | readonly string[] | undefined
  /**
   * `'ike'`: a certificate with extendedKeyUsage must name IKE or any (RFC 4945 §5.1.3.12). `'tls'` also accepts those for
   * TLS servers and clients.
   * @category Trust
   * @defaultValue `'ike'`
   * @example ca: { file: 'ike-keys/ca.crt' }, extendedKeyUsage: 'tls'
   */
  extendedKeyUsage?: 'ike' | 'tls' | undefined
  /**
   * Raw public keys of peers (RFC 7670): one, an array, or an object from identity to keys.
   * @category Trust
   * @example peerKeys: { 'orders.internal': { file: 'ike-keys/orders.pub' } }
   */
  peerKeys?: Pem | readonly Pem[] | Readonly<Record<string, Pem | readonly Pem[]>> | undefined
  /**
   * Also sign with, and accept, RSASSA-PKCS1-v1_5 with SHA-2, for peers without RSASSA-PSS.
   * @category Algorithms
   * @defaultValue `false`
   * @example rsaPkcs1: true
   */
  rsaPkcs1?: boolean | undefined
  /**
   * For programs written for `tls`. Only `true` is accepted: both ends always prove themselves.
   * @category Trust
   * @defaultValue `true`
   * @example rejectUnauthorized: true
   */
  rejectUnauthorized?: true | undefined
  /**
   * Post-quantum pre-shared key (RFC 8784): `{ id, secret, required }` with 32 octets or more, or an array. A client uses
   * the first. `required: true` refuses peers that do not have it.
   * @category Credentials
   * @example ppk: { id: 'ppk-2026', secret: 'thirty-two octets of randomness, or more', required: true }
   */
  ppk?: PpkOption | readonly PpkOption[] | undefined
  /**
   * Secret of quick crash detection (RFC 6290). Each end gives the other a token, by which it proves after a restart that
   * it lost the SA: old sockets end with ECONNRESET at their first packet, and new ones get a new SA. Default: derived from
   * the private key or the pre-shared keys, the bound address and port, and `/etc/machine-id`. A string or `Uint8Array` of
   * 16 octets or more is for processes that replace each other and never run at the same time. `false`: no tokens. Without
   * a secret there are none where `psk` is a function or `sign` signs.
   * @category Reachability
   * @example crashTokenSecret: false
   */
  crashTokenSecret?: string | Uint8Array | false | undefined
  /**
   * Proposals for the IKE SA in order of preference, one or an array, in the keywords of strongSwan. Default:
   * AES-GCM-256 and 128, ChaCha20-Poly1305, AES-CBC with SHA-2, each with X25519, P-256, P-384, P-521, MODP-2048, MODP-3072
   * and MODP-4096.
   * @category Algorithms
   * @defaultValue see the text
   * @example ike: 'aes256gcm16-prfsha256-x25519'
   */
  ike?: OneOrMore | undefined
  /**
   * Proposals for Child SAs in order of preference, one or an array: `aes256gcm16`, `aes256-sha256-ecp256`, `…-esn`,
   * `…-noesn`. Default: the ciphers of `ike`, with and without extended sequence numbers; ChaCha20-Poly1305 comes first
   * where it has a backend (`sodium-native`, or one of `aead`), AES-256-GCM has none, and packets are not as large as on
   * the loopback. A responder chooses by its own order.
   * @category Algorithms
   * @defaultValue see the text
   * @example esp: ['aes256gcm16-esn', 'aes128gcm16']
   */
  esp?: OneOrMore | undefined
  /**
   * Forward secrecy of further Child SAs and of rekeys (RFC 7296 §1.3). Default: a new key exchange with peers that have a
   * group for it. `true`: the peer must do it too. `false`: no new key exchange.
   * @category Algorithms
   * @example pfs: true
   */
  pfs?: boolean | undefined
  /**
   * `'transport'`, `'tunnel'`, or `'auto'`: transport mode where the peer agrees, else tunnel mode.
   * @category Tunnel
   * @example mode: 'tunnel'
   */
  mode?: 'auto' | 'transport' | 'tunnel' | undefined
  /**
   * Traffic selectors of our side (RFC 7296 §2.9): networks, ranges or `10.0.0.1[tcp/8080]`. Default of a client: its own
   * host. Default of a server: any.
   * @category Tunnel
   * @example localTs: '10.1.0.0/16'
   */
  localTs?: OneOrMore | undefined
  /**
   * Traffic selectors of the peer's side. Default of a client: the service's host. Default of a server: what the client
   * asks for, or its address of the `addressPool`.
   * @category Tunnel
   * @example remoteTs: ['10.2.0.0/16', '10.3.0.1[tcp/8080]']
   */
  remoteTs?: OneOrMore | undefined
  /**
   * Cryptography: `'node'` (OpenSSL), `'noble'` (TypeScript, except for RSA and MODP), or `'auto'`: the faster one for each
   * algorithm, of which one may be there: the package `sodium-native`, if it is installed, for ChaCha20-Poly1305.
   * @category Algorithms
   * @example crypto: 'noble'
   */
  crypto?: 'auto' | 'node' | 'noble' | undefined
  /**
   * Other implementations of ciphers, each under its keyword: `aes128gcm16`, `aes192gcm16`, `aes256gcm16`,
   * `chacha20poly1305`. Each is asked for known answers at once and refused where it is wrong. It takes the place of what
   * `crypto` says, of IKE and of ESP. Which cipher is used is for `ike` and `esp` to say, and `backend` in
   * `session.info.children` tells on what it runs.
   * @category Algorithms
   * @example aead: { chacha20poly1305: myBackend }
   */
  aead?: AeadBackends | undefined
  /**
   * Native functions of Node's own executable, by `node:ffi`: OpenSSL without an object for each packet, and UDP with many
   * datagrams a system call (UDP_SEGMENT and UDP_GRO of Linux). It needs Node 26 or newer, where `node:ffi` is experimental
   * and says so, Linux on x64 or arm64, the main thread, and `--allow-ffi` under `--permission`. `'ffi'` is refused
   * elsewhere, with what is missing; `'auto'` does without it after one warning (`IKE_NOT_ACCELERATED`).
   * What arrives at the peer is the same.
   * @category Connection
   * @example accelerate: 'auto'
   */
  accelerate?: 'auto' | 'off' | 'ffi' | undefined
  /**
   * Largest IP packet that is ever sent. Default: what the interface takes. What the path takes is found by trial
   * (RFC 8899): from 1280 octets up, down again when nothing arrives any more, and on the loopback from 65535 octets down.
   * `session.info.mtu` is the size in use.
   * @category Tunnel
   * @defaultValue the MTU of the interface
   * @example mtu: 1400
   */
  mtu?: number | undefined
  /**
   * Size of ESP's anti-replay window (RFC 4303 §3.4.3).
   * @category Tunnel
   * @example replayWindow: 4096
   */
  replayWindow?: number | undefined
  /**
   * Hard lifetime of an IKE SA. A rekey starts at a random point between 80 and 90 % of it (RFC 7296 §2.8).
   * @category Lifetimes
   * @example ikeLifetime: 8 * 3600 * 1000
   */
  ikeLifetime?: number | undefined
  /**
   * Hard lifetime of a Child SA. A rekey starts at a random point between 80 and 90 % of it (RFC 7296 §2.8).
   * @category Lifetimes
   * @example childLifetime: 30 * 60 * 1000
   */
  childLifetime?: number | undefined
  /**
   * Octets one Child SA may carry per direction. A rekey starts at 80-90 %; at the limit the SA stops sending until the
   * rekey completes.
   * @category Lifetimes
   * @example childOctets: 2 ** 34
   */
  childOctets?: number | undefined
  /**
   * Packets one Child SA may carry per direction. A rekey starts at 80-90 %; at the limit the SA stops sending until the
   * rekey completes.
   * @category Lifetimes
   * @example childPackets: 2 ** 30
   */
  childPackets?: number | undefined
  /**
   * Reauthenticate after this time, make before break (RFC 7296 §2.8.3); `0`: never. A server that announces less
   * (AUTH_LIFETIME, RFC 4478) shortens it, but never below 60 s.
   * @category Lifetimes
   * @example reauthInterval: 24 * 3600 * 1000
   */
  reauthInterval?: number | undefined
  /**
   * Announce that a client must reauthenticate within this time (RFC 4478), and delete the SA of a client that does not;
   * `0`: no limit. strongSwan clients need an `over_time` below it.
   * @category Lifetimes
   * @example authLifetime: 8 * 3600 * 1000
   */
  authLifetime?: number | undefined
  /**
   * After this long without hearing from a peer we have sent to (three times as long when both were silent), send a
   * liveness check (RFC 7296 §2.4). Unacknowledged data starts the check with its second retransmission. `0`: never.
   * @category Reachability
   * @example livenessInterval: 10_000
   */
  livenessInterval?: number | undefined
  /**
   * Retransmission of IKE requests: wait `initial`, then `factor` times the wait before, never more than `max`, `tries`
   * times. A peer that answers none is gone (ETIMEDOUT), after about 60 s by default. A refusal of the first request is
   * unauthenticated, so it is acted on only when a repetition is refused too.
   * @category Reachability
   * @example retransmit: { initial: 500, factor: 1.8, max: 20_000, tries: 5 }
   */
  retransmit?: RetransmitOption | undefined
  /**
   * Refresh the mapping of a NAT or firewall in front of us after this much silence (RFC 3948 §4). When set, this is also
   * done where no NAT was seen, since a firewall forgets too. `0`: never.
   * @category Reachability
   * @defaultValue 20000 behind a NAT, else never
   * @example natKeepalive: 10_000
   */
  natKeepalive?: number | undefined
  /**
   * Offer and accept MOBIKE (RFC 4555). After a change of address the client tells the server under the same SA, and each
   * end checks that the other can be reached at its new address. A server bound to all addresses tells clients up to eight
   * of them; a client whose server does not answer tries these in turn.
   * @category Reachability
   * @example mobike: false
   */
  mobike?: boolean | undefined
  /**
   * `false`: requests that say where we are carry NO_NATS_ALLOWED (RFC 4555 §3.9), so the peer refuses them with
   * UNEXPECTED_NAT_DETECTED when an address or a port was changed on the way.
   * @category Reachability
   * @example allowNats: false
   */
  allowNats?: boolean | undefined
  /**
   * Largest IP packet for an IKE message; longer messages are fragmented (RFC 7383). A message that was sent twice without
   * an answer is cut smaller: to 900 and then 576 octets over IPv4, to 1280 over IPv6.
   * @category Reachability
   * @example fragmentSize: 900
   */
  fragmentSize?: number | undefined
  /**
   * Offer and accept IKE fragmentation (RFC 7383).
   * @category Reachability
   * @example fragmentation: false
   */
  fragmentation?: boolean | undefined
  /**
   * An SA without sockets is deleted after this time; `0`: never.
   * @category Lifetimes
   * @example idleTimeout: 10 * 60 * 1000
   */
  idleTimeout?: number | undefined
  /**
   * IKE_AUTH without a Child SA (RFC 6023). `'allow'`: accept it. `'force'`: always do it, and refuse a Child SA that comes
   * with IKE_AUTH. `'never'`: refuse it.
   * @category Tunnel
   * @example childless: 'never'
   */
  childless?: 'allow' | 'force' | 'never' | undefined
  /**
   * Tell the peer that older SAs of our identity are dead (RFC 7296 §2.4). Do not use it where replicas share an identity.
   * A peer acts on it where nobody else can prove the identity in the same way; otherwise it first asks over the older SAs.
   * @category Reachability
   * @example initialContact: true
   */
  initialContact?: boolean | undefined
  /**
   * UDP port of IKE and ESP. At a server `0` means any free port; `server.ikePort` tells which. With `500`, IKE begins
   * there without the non-ESP marker and continues at 4500, for peers that insist (RFC 7296 §2.23).
   * @category Connection
   * @example ikePort: 500
   */
  ikePort?: number | undefined
  /**
   * For the analysis of captures: a folder in which Wireshark's tables `ikev2_decryption_table` and `esp_sa` are written, or
   * a function that gets the keys of every SA (`formatKeyLog(entry)` makes the row). Anyone who has these keys can read
   * everything; a warning says so.
   * @category Diagnosis
   * @example keyLog: '/tmp/ike-keys'
   */
  keyLog?: KeyLog | undefined
}

/** `onread`: where the octets of a socket go without 'data' events, as in `net`. */
export interface OnRead {
  /** The buffer that is filled, or a function that returns one. */
  buffer: Uint8Array | (() => Uint8Array)
  /** Gets the number of octets and the buffer; `false` pauses the socket. */
  callback(nread: number, buffer: Uint8Array): boolean | void
}

/** Options of a connection, for the sockets of a client and for those that a server accepts. */
export interface ConnectionOptions {
  /**
   * Path of a Unix socket (mode 0600, 103 octets at most) by which `ike-socket status` looks into this process, as
   * `openControl` opens it. Several ends may name the same path. One that another process answers on is not taken over
   * (EADDRINUSE): a server does not listen then, and a client warns (`IKE_CONTROL`) and goes on. It is removed when the last
   * server that names it closes; a client keeps it until the process ends, because sockets come and go.
   * @category Diagnosis
   * @example control: '/run/app.sock'
   */
  control?: string | undefined
  /**
   * As in `net`: the socket stays writable after the peer has ended.
   * @category Sockets
   * @example allowHalfOpen: true
   */
  allowHalfOpen?: boolean | undefined
  /**
   * As in `net`: send small segments at once instead of waiting for acknowledgements (Nagle's algorithm).
   * @category Sockets
   * @example noDelay: true
   */
  noDelay?: boolean | undefined
  /**
   * As in `net`: probe an idle TCP connection.
   * @category Sockets
   * @example keepAlive: true, keepAliveInitialDelay: 60_000
   */
  keepAlive?: boolean | undefined
  /**
   * As in `net`: silence before the first probe of `keepAlive`, in milliseconds.
   * @category Sockets
   * @example keepAlive: true, keepAliveInitialDelay: 60_000
   */
  keepAliveInitialDelay?: number | undefined
  /**
   * Milliseconds that sent data may stay without any acknowledgement before the connection ends with ETIMEDOUT (RFC 5482).
   * `0`: as long as TCP retransmits, some ten minutes, unless the peer is given up before.
   * @category Sockets
   * @example userTimeout: 30_000
   */
  userTimeout?: number | undefined
  /**
   * How TCP inside ESP finds its rate: `'cubic'` (RFC 9438), `'reno'` (RFC 6582), or `'bbr'`, which keeps its rate on paths
   * that lose packets for other reasons than load.
   * @category Sockets
   * @example congestionControl: 'bbr'
   */
  congestionControl?: CongestionControl | undefined
  /**
   * As in `net`: octets that the stream buffers in each direction before it asks for a pause.
   * @category Sockets
   * @defaultValue as in `net`
   * @example highWaterMark: 256 * 1024
   */
  highWaterMark?: number | undefined
  /**
   * As in `net`: addresses that are neither connected to nor accepted. A server checks the outer address, the inner one and
   * the one that the peer claims.
   * @category Sockets
   * @example blockList: new BlockList()
   */
  blockList?: BlockList | undefined
  /**
   * The value of `socket.encrypted`. Web frameworks read it as "this is HTTPS"; set it where you want that.
   * @category Sockets
   * @example encrypted: true
   */
  encrypted?: boolean | undefined
}

/** Options of `createSecureSocket`. */
export interface SecureSocketOptions extends IkeOptions, ConnectionOptions {
  /**
   * The host of the service, as in `net`: a name or an IP address. It is also the IKE peer, unless `gateway` is given.
   * @category Connection
   * @example host: 'orders.internal', port: 8080
   */
  host?: string | undefined
  /**
   * The TCP port of the service, inside the tunnel.
   * @category Connection
   * @defaultValue required
   * @example host: 'orders.internal', port: 8080
   */
  port?: number | string | undefined
  /**
   * The IKE peer, when the service is behind it (tunnel mode): a name or an IP address.
   * @category Connection
   * @defaultValue `host`
   * @example gateway: 'vpn.example.com', host: '10.1.2.3', port: 8080
   */
  gateway?: string | undefined
  /**
   * Name or address that the server's certificate must be for when no `remoteId` is given. It is looked up in
   * subjectAltName, where `*.` stands for one label. The identity that the server claims must be in the certificate
   * exactly.
   * @category Trust
   * @defaultValue `gateway`, else `host`
   * @example servername: 'vpn.example.com'
   */
  servername?: string | undefined
  /**
   * `(host, certificate)` returns an `Error` to refuse the server, or `undefined`. Replaces the built-in name check, as in
   * `tls`.
   * @category Trust
   * @example checkServerIdentity: (host, certificate) => (certificate.subject.CN === host ? undefined : new Error('another host'))
   */
  checkServerIdentity?:
    | ((host: string, certificate: PeerCertificate) => Error | undefined)
    | undefined
  /**
   * Log in to a gateway that proves itself by certificate (RFC 7296 §2.16): `{ method: 'mschapv2', identity, password }`, or
   * `{ method: 'tls', identity, cert, key, passphrase, ca, crl, servername, only }`. `servername` is a name in the
   * certificate of the EAP server, and is not checked when left out. With `only: true` EAP-TLS alone proves both ends
   * (RFC 5998), and `servername` is required.
   * @category Credentials
   * @example eap: { method: 'mschapv2', identity: 'alice', password: 'correct horse' }, ca: { file: 'ike-keys/ca.crt' }
   */
  eap?: EapOption | undefined
  /**
   * Ask the peer for an inner address, netmask and DNS servers (RFC 7296 §2.19); see `socket.session`.
   * @category Tunnel
   * @example virtualAddress: true, gateway: 'vpn.example.com'
   */
  virtualAddress?: boolean | undefined
  /**
   * `true`: on any hint that the peer lost its SAs, open new sockets over a new SA at once. Hints are INVALID_SPI or
   * INVALID_IKE_SPI outside an SA, a refusal by ICMP, and a request without an answer. `false`: first check whether the peer
   * is alive.
   * @category Reachability
   * @example reconnect: false
   */
  reconnect?: boolean | undefined
  /**
   * As in `net`: our address inside the tunnel.
   * @category Connection
   * @example localAddress: '127.0.0.1'
   */
  localAddress?: string | undefined
  /**
   * As in `net`: our TCP port inside the tunnel.
   * @category Connection
   * @example localPort: 40_000
   */
  localPort?: number | undefined
  /**
   * As in `net`: 4 or 6, the family of addresses to look up; 0: either.
   * @category Connection
   * @example family: 6
   */
  family?: number | undefined
  /**
   * As in `net`: the hints of `dns.lookup`.
   * @category Connection
   * @example host: 'orders.internal', hints: dns.ADDRCONFIG
   */
  hints?: number | undefined
  /**
   * As in `net`: replaces `dns.lookup`.
   * @category Connection
   * @example host: 'orders.internal', lookup: dns.lookup
   */
  lookup?: LookupFunction | undefined
  /**
   * As in `net`: 'timeout' is emitted after this many milliseconds without traffic. It ends nothing by itself.
   * @category Sockets
   * @example timeout: 60_000
   */
  timeout?: number | undefined
  /**
   * As `highWaterMark`, for what is received.
   * @category Sockets
   * @defaultValue that of `highWaterMark`
   * @example readableHighWaterMark: 1 << 20
   */
  readableHighWaterMark?: number | undefined
  /**
   * As `highWaterMark`, for what is sent.
   * @category Sockets
   * @defaultValue that of `highWaterMark`
   * @example writableHighWaterMark: 1 << 20
   */
  writableHighWaterMark?: number | undefined
  /**
   * As in `net`: a listener that returns a promise which is rejected ends the socket with that error.
   * @category Sockets
   * @example captureRejections: true
   */
  captureRejections?: boolean | undefined
  /**
   * What is received comes as text, as after `setEncoding`.
   * @category Sockets
   * @example encoding: 'utf8'
   */
  encoding?: BufferEncoding | null | undefined
  /**
   * As in `net`: a socket with `false` reads nothing, nor does it notice that the peer ends.
   * @category Sockets
   * @example readable: false
   */
  readable?: boolean | undefined
  /**
   * As in `net`: a socket with `false` cannot write, and has ended its half; the peer is not told before the socket is
   * destroyed.
   * @category Sockets
   * @example writable: false
   */
  writable?: boolean | undefined
  /**
   * As in `net` of Node 24: 0 to 255, kept for `getTypeOfService`; it is not written into packets.
   * @category Sockets
   * @example typeOfService: 16
   */
  typeOfService?: number | undefined
  /**
   * As in `net`: destroys the socket when it is aborted.
   * @category Sockets
   * @example signal: new AbortController().signal
   */
  signal?: AbortSignal | undefined
  /**
   * As in `net`: received octets go into your own buffer, without 'data' events.
   * @category Sockets
   * @example onread: { buffer: Buffer.alloc(65536), callback: (length, buffer) => true }
   */
  onread?: OnRead | undefined
  /**
   * As in `net`: try the addresses of a name in turn, IPv6 and IPv4 alternating. They are those of the IKE peer.
   * @category Connection
   * @defaultValue as in `net`
   * @example autoSelectFamily: false
   */
  autoSelectFamily?: boolean | undefined
  /**
   * An address that was silent for this long, in milliseconds, is left for the next one. Less than 10 counts as 10.
   * @category Connection
   * @defaultValue as in `net`
   * @example autoSelectFamilyAttemptTimeout: 500
   */
  autoSelectFamilyAttemptTimeout?: number | undefined
}

/** A peer that has proved who it is, for `authorize`. */
export interface AuthorizedPeer {
  /** Its identity, in the form of `peerId`. */
  readonly id: string
  /** The address that its UDP datagrams come from. */
  readonly address: string
  /** The UDP port that they come from. */
  readonly port: number
  /** How it proved its identity. */
  readonly authentication: 'psk' | 'certificate' | 'rawKey' | 'eap'
  /** Its certificate, where it has one. */
  readonly certificate: X509Certificate | undefined
}

/** What `authorize` may answer for one peer. */
export const AUTHORIZATION_OPTIONS = [
  'esp',
  'pfs',
  'mode',
  'localTs',
  'remoteTs',
  'ikeLifetime',
  'childLifetime',
  'childOctets',
  'childPackets',
  'livenessInterval',
] as const

/** Yes, no, or yes with options of the SA that hold for this peer alone. */
export type Authorization = boolean | Pick<IkeOptions, (typeof AUTHORIZATION_OPTIONS)[number]>

/** Options of `createSecureServer`. */
export interface SecureServerOptions extends IkeOptions, ConnectionOptions {
  /**
   * Read the files of credentials again when they or their folders change, for new SAs; the event 'credentials' tells which
   * options changed. Files that cannot be used (garbage, half a file, a key without its certificate) change nothing: one
   * warning (`IKE_CREDENTIAL_FILES`) is emitted, and the next change is tried again.
   * @category Credentials
   * @example psk: { file: 'ike-keys/psk.txt' }, watch: true
   */
  watch?: boolean | undefined
  /**
   * Every worker of a cluster, thread, or process of this user that says the same, with equal options of IKE, binds the UDP
   * port itself; the system spreads the clients, and what arrives at the wrong one is handed to the one that has the SA. It
   * needs Node 22.12, 23.1 or newer, and Linux, FreeBSD, AIX or Solaris. Without it one of them binds the port for all.
   * @category Connection
   * @example reusePort: cluster.isWorker
   */
  reusePort?: boolean | undefined
  /**
   * Networks or ranges of which peers that ask get an inner address (RFC 7296 §3.15). A session has an address of its own,
   * and the same identity with the same proof gets its address back. An identity that holds addresses gets one more only
   * while more than those are free. When none is left the peer is refused with INTERNAL_ADDRESS_FAILURE.
   * @category Tunnel
   * @example addressPool: ['10.8.0.0/24', '10.8.1.10-10.8.1.99'], dns: '10.8.0.1'
   */
  addressPool?: OneOrMore | undefined
  /**
   * DNS servers that are told to peers together with an address of the `addressPool`.
   * @category Tunnel
   * @defaultValue none
   * @example addressPool: '10.8.0.0/24', dns: '10.8.0.1'
   */
  dns?: OneOrMore | undefined
  /**
   * Decides whether an authenticated peer may connect: `({ id, address, port, authentication, certificate })` returns a
   * boolean or a promise of one. An object of options (`esp`, `pfs`, `mode`, `localTs`, `remoteTs`, `ikeLifetime`,
   * `childLifetime`, `childOctets`, `childPackets`, `livenessInterval`) accepts the peer with a policy of its own.
   * @category Trust
   * @defaultValue everyone
   * @example authorize: peer => peer.id === 'billing.internal' && { remoteTs: '10.8.0.7' }
   */
  authorize?: ((peer: AuthorizedPeer) => Authorization | Promise<Authorization>) | undefined
  /**
   * For programs written for `tls`. Only `true` is accepted: both ends always prove themselves.
   * @category Trust
   * @defaultValue `true`
   * @example requestCert: true
   */
  requestCert?: true | undefined
  /**
   * As in `net`: accepted sockets begin paused.
   * @category Sockets
   * @example pauseOnConnect: true
   */
  pauseOnConnect?: boolean | undefined
  /**
   * Half-open handshakes from which on new clients must return a cookie (RFC 7296 §2.6).
   * @category Server limits
   * @example cookieThreshold: 100
   */
  cookieThreshold?: number | undefined
  /**
   * Half-open handshakes of one source address.
   * @category Server limits
   * @example halfOpenPerSource: 16
   */
  halfOpenPerSource?: number | undefined
  /**
   * Half-open handshakes in all.
   * @category Server limits
   * @example maxHalfOpen: 2000
   */
  maxHalfOpen?: number | undefined
  /**
   * A handshake that is not complete after this time is forgotten.
   * @category Server limits
   * @example halfOpenTimeout: 10_000
   */
  halfOpenTimeout?: number | undefined
  /**
   * Sessions at once. An idle one needs about 32 KiB. When all are in use, a session that has had no connection for 10 s is
   * closed for the newcomer, first one of the identity with the most sessions. If there is none, the newcomer is refused:
   * its IKE_AUTH is answered with NO_ADDITIONAL_SAS, its SA is deleted, and `ikeClientError` has the code
   * `ERR_IKE_SESSION_LIMIT`. An identity gets another session only while more places are free than it has.
   * @category Server limits
   * @example maxSessions: 50_000
   */
  maxSessions?: number | undefined
  /**
   * Sessions of one identity with one proof; `0`: no limit of its own.
   * @category Server limits
   * @example maxSessionsPerIdentity: 2
   */
  maxSessionsPerIdentity?: number | undefined
  /**
   * An SA without connections is deleted after this time; `0`: never. It is off by default because other implementations
   * keep unused SAs; peers that are gone end by `livenessInterval`, and unused SAs make room at `maxSessions`.
   * @category Server limits
   * @example sessionIdleTimeout: 3600 * 1000
   */
  sessionIdleTimeout?: number | undefined
  /**
   * TCP connections of one session at once. A further SYN is refused (ECONNREFUSED) and counted as `tcp.maxConnections`.
   * @category Server limits
   * @example maxConnectionsPerSession: 100
   */
  maxConnectionsPerSession?: number | undefined
  /**
   * Octets that the connections of one session keep in all: received and not read, or written and not acknowledged. Each
   * takes at most as many as it leaves to the others: windows close and `write` returns `false` sooner. SYNs and data that
   * come beyond the limit all the same are dropped unacknowledged, so the peer sends them again, and counted as
   * `tcp.maxBuffered`. A connection whose data is read always has room for some segments. Sessions that a client has opened
   * keep at most the default.
   * @category Server limits
   * @example maxBufferPerSession: 16 * 2 ** 20
   */
  maxBufferPerSession?: number | undefined
  /**
   * Octets that the connections of all sessions of the UDP port keep in all, those of its clients too. Each session takes
   * at most as many as it leaves to the others, so that no peer can keep them all. At the limit the same happens as at
   * `maxBufferPerSession`.
   * @category Server limits
   * @example maxBuffer: 1024 * 2 ** 20
   */
  maxBuffer?: number | undefined
}

/** Options of `createSecureContext`: all of IKE's except the UDP port. */
export type SecureContextOptions = Omit<IkeOptions, 'ikePort' | 'secureContext' | 'endpoint'> &
  Pick<SecureSocketOptions, 'eap' | 'virtualAddress' | 'servername' | 'checkServerIdentity'> &
  Pick<SecureServerOptions, 'addressPool' | 'dns' | 'authorize' | 'watch'>

/** Options of `createEndpoint`. */
export interface EndpointOptions
  extends IkeOptions, Pick<SecureServerOptions, 'addressPool' | 'dns' | 'authorize' | 'reusePort'> {
  /** Addresses that IKE and ESP come to. Default: all of this host, of both families. */
  host?: OneOrMore | undefined
  /** IPv6 addresses do not receive IPv4. Default `false`. */
  ipv6Only?: boolean | undefined
  /** Read the files of credentials again when they change. Default `false`. */
  watch?: boolean | undefined
  /** Path of a Unix socket by which `ike-socket status` looks into this process, as with a server. */
  control?: string | undefined
  /** Ask each gateway for an inner address. Default `false`. */
  virtualAddress?: boolean | undefined
}

/** Options of `createSecureDatagram`: those of IKE in both roles, and the gateway that datagrams go through. */
export interface DatagramOptions
  extends
    IkeOptions,
    Pick<
      SecureSocketOptions,
      | 'gateway'
      | 'servername'
      | 'checkServerIdentity'
      | 'virtualAddress'
      | 'reconnect'
      | 'blockList'
    >,
    Pick<SecureServerOptions, 'addressPool' | 'dns' | 'authorize'> {}
