/** More broken set-ups, found by asking what else goes wrong between two hosts: what `ike-socket doctor` says of each. */
import type { LookupFunction } from 'node:net'
import type { SecureServerOptions, SecureSocketOptions } from '../../lib/index.ts'
import { authority, endEntity, type Credential } from '../harness/certificates.ts'
import { KeyUsage } from '../../lib/identity/extensions.ts'
import { isIke, packetOf, type Direction } from './relay.ts'

export interface OtherSetUp {
  readonly name: string
  readonly server: SecureServerOptions
  readonly client: SecureSocketOptions
  /** The step that is bad, and its sentence with the cure. */
  readonly says: RegExp
  /** The line of a step that is worth knowing. */
  readonly also?: RegExp
  /** The parts of the step that `says` or `also` is about, each with its state. */
  readonly marks?: RegExp
  /** What the way lets pass; default: everything. */
  readonly way?: () => (bytes: Buffer, direction: Direction) => boolean
  /** Milliseconds that each datagram is under way. */
  readonly delay?: number
  /** Something else has the UDP port: what it sends back to a datagram. */
  readonly responder?: (request: Buffer) => Buffer
}

const DAY = 86_400_000
const now = Date.now()
const KEY = 'a key that both of these ends know'
const PSK = {
  server: { psk: KEY, localId: 'server.test' },
  client: { psk: KEY, localId: 'client.test' },
}
const root = authority('O=Test, CN=Root', 'P-256')
const own = ({ pem, keyPem }: Credential) => ({ cert: pem, key: keyPem })
const CERTS = {
  server: { ca: root.pem, ...own(endEntity('server.test', 'P-256', root)) },
  client: {
    ca: root.pem,
    ...own(endEntity('client.test', 'P-256', root)),
    remoteId: 'server.test',
  },
}

/** Set-ups of two ends that differ from these by what each names. */
const between =
  (ends: { server: SecureServerOptions; client: SecureSocketOptions }) =>
  (
    name: string,
    server: SecureServerOptions,
    client: SecureSocketOptions,
    says: RegExp,
    more: Partial<OtherSetUp> = {},
  ): OtherSetUp => ({
    name,
    server: { ...ends.server, ...server },
    client: { ...ends.client, ...client },
    says,
    ...more,
  })

/** A resolver of names that finds these addresses. */
const answering =
  (addresses: readonly string[]): LookupFunction =>
  (_host, _how, done) =>
    done(
      null,
      addresses.map(address => ({ address, family: 4 })),
    )

const byPsk = between(PSK)
const byCertificate = between(CERTS)

/** Exchange types of IKE's header (RFC 7296 §3.1), which is behind the marker. */
const IKE_AUTH = 35
const INFORMATIONAL = 37
const exchangeOf = (bytes: Buffer): number | undefined => (isIke(bytes) ? bytes[4 + 18] : undefined)

const loses =
  (test: (bytes: Buffer, direction: Direction) => boolean): NonNullable<OtherSetUp['way']> =>
  () =>
  (bytes, direction) =>
    !test(bytes, direction)

const every =
  (count: number): NonNullable<OtherSetUp['way']> =>
  () => {
    let seen = 0
    return () => ++seen % count !== 0
  }

const ppk = (id: string, secret: string) => ({ ppk: { id, secret, required: true } })
const QUANTUM = 'a post-quantum key of 32 octets.'

/** A chain below an intermediate, which the server sends along where it knows it. */
const chainBelow = (
  facts: Parameters<typeof authority>[3],
  isSent: boolean,
): SecureServerOptions => {
  const intermediate = authority('O=Test, CN=Intermediate', 'P-256', root, facts)
  const end = endEntity('server.test', 'P-256', intermediate)
  return { ca: root.pem, cert: end.pem + (isSent ? intermediate.pem : ''), key: end.keyPem }
}

const serverWith = (facts: Parameters<typeof endEntity>[3]): SecureServerOptions =>
  own(endEntity('server.test', 'P-256', root, facts))

const MARKER = Buffer.alloc(4)

/** IKE_SA_INIT is answered with that error alone, after what RFC 7296 §3.1 and §3.10 have before it. */
const refusing =
  (type: number, data = Buffer.alloc(0)) =>
  (request: Buffer): Buffer => {
    const length = 28 + 8 + data.length
    const answer = Buffer.alloc(length)
    request.copy(answer, 0, 4, 12)
    answer.set([41, 0x20, 34, 0x20], 16)
    answer.writeUInt32BE(length, 24)
    answer.writeUInt16BE(8 + data.length, 30)
    answer.writeUInt16BE(type, 34)
    data.copy(answer, 36)
    return Buffer.concat([MARKER, answer])
  }

/** An Informational of IKEv1 (RFC 2408 §3.1). */
const inVersion1 = (request: Buffer): Buffer => {
  const answer = Buffer.alloc(40)
  request.copy(answer, 0, 4, 12)
  answer.set([11, 0x10, 5], 16)
  answer.writeUInt32BE(40, 24)
  return Buffer.concat([MARKER, answer])
}

let cookies = 0
const Notify = {
  invalidMajorVersion: 5,
  noProposalChosen: 14,
  invalidKePayload: 17,
  temporaryFailure: 43,
  cookie: 16390,
}
const answeredBy = (
  name: string,
  responder: NonNullable<OtherSetUp['responder']>,
  says: RegExp,
): OtherSetUp => byPsk(name, {}, {}, says, { responder })

export const OTHERS: readonly OtherSetUp[] = [
  // --- another program at the port ---
  answeredBy(
    'a gateway of IKEv1 alone that says so in IKEv1',
    inVersion1,
    /^UDP: UDP port \d+ of \S+ answers in IKEv1 alone\. Set the peer to IKEv2/,
  ),
  answeredBy(
    'a gateway of IKEv1 alone that says so in IKEv2',
    refusing(Notify.invalidMajorVersion),
    /^proposals: The peer does not speak IKEv2\. Set the peer to IKEv2/,
  ),
  answeredBy(
    'a gateway without a connection for us',
    refusing(Notify.noProposalChosen),
    /^proposals: .*it takes none of that either\. The peer may have no connection for our address, one for IKEv1 alone/,
  ),
  answeredBy(
    'a gateway that does MODP-1024 alone',
    refusing(Notify.invalidKePayload, Buffer.from([0, 2])),
    /^proposals: The peer wants a key exchange method that was not offered: modp1024; .*Add a proposal with modp1024/,
  ),
  answeredBy(
    'a gateway that does 3DES alone',
    refusing(Notify.noProposalChosen),
    /^proposals: .*only algorithms that are broken and not spoken here \(3DES/,
  ),
  answeredBy(
    'a gateway that is busy',
    refusing(Notify.temporaryFailure),
    /^proposals: The peer refused the IKE SA before authentication: TEMPORARY_FAILURE\. The log/,
  ),
  answeredBy(
    'a gateway that asks for cookies for ever',
    request => refusing(Notify.cookie, Buffer.alloc(16, ++cookies))(request),
    /^UDP: .* answers and asks each time for another cookie: the server may be overloaded/,
  ),
  answeredBy(
    'an echo service at the port',
    request => request,
    /^UDP: .* answers with our own request: it is an echo service\. Set "ikePort"/,
  ),
  answeredBy(
    'a server of something else at the port',
    () => Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
    /^UDP: .* answers, and what it says is not IKE\. Set "ikePort"/,
  ),
  answeredBy(
    'the port without NAT traversal of a gateway',
    request => refusing(Notify.noProposalChosen)(request).subarray(4),
    /^UDP: .* answers in IKE, with the framing of another port: .*Set "ikePort" to the port that the server has for NAT traversal/,
  ),
  // --- names ---
  byPsk(
    'a name with a port',
    {},
    { host: 'orders.invalid:8080' },
    /^name: .* is not found: \S+\. Give the name and the port apart: ike-socket doctor orders\.invalid 8080\./,
  ),
  byPsk(
    'an address in the form of a URL',
    {},
    { host: 'https://orders.invalid/' },
    /^name: .*ike-socket doctor orders\.invalid\./,
  ),
  byPsk(
    'a link-local address without its interface',
    {},
    { host: 'fe80::1' },
    /^route: This host has no way to fe80::1: \w+\. A link-local address needs its interface: fe80::1%/,
  ),
  byPsk(
    'a name of two addresses, of which the first is dead',
    {},
    {
      host: 'two.invalid',
      lookup: answering(['127.0.0.77', '127.0.0.1']),
    },
    /^all is well/,
    {
      also: /^UDP note: UDP port \d+ of 127\.0\.0\.77 .*; 127\.0\.0\.1 answers\. Start the server at that address too, or take it out of the name/,
    },
  ),
  byPsk(
    'a name without an address',
    {},
    { host: 'none.invalid', lookup: answering([]) },
    /^name: The name none\.invalid is not found: it has no address\. Check the spelling/,
  ),
  // --- the network ---
  byCertificate(
    'a way that loses packets of 1280 octets or more, both ways',
    {},
    {},
    /^all is well/,
    {
      way: loses(bytes => packetOf(bytes) >= 1280),
      also: /^MTU note: Packets of 900 octets pass both ways.*tunnel within a tunnel, or set "mtu"/,
    },
  ),
  byPsk(
    'a firewall that passes IKE and no ESP',
    {},
    {},
    /^port: .*IKE is answered, and of ESP \d+ packets went and none came\. Look for a firewall on the way that passes IKE and not ESP/,
    { way: loses(bytes => !isIke(bytes)) },
  ),
  byPsk('a way that loses packets of more than 1300 octets to the peer', {}, {}, /^all is well/, {
    way: loses((bytes, direction) => direction === 'there' && packetOf(bytes) > 1300),
    also: /^MTU ok: To the peer packets of 1280 octets pass; from the peer packets of 9000 octets pass/,
  }),
  byPsk('a way that loses packets of more than 1000 octets from the peer', {}, {}, /^all is well/, {
    way: loses((bytes, direction) => direction === 'back' && packetOf(bytes) > 1000),
    also: /^MTU note: To the peer packets of 9000 octets pass; from the peer packets of 900 octets pass.*tunnel within a tunnel/,
  }),
  byPsk(
    'a way that takes no packet of more than 576 octets',
    {},
    {},
    /^UDP: UDP port \d+ of \S+ answers small requests alone: a packet of \d{3} octets, our first message, is lost\. Look for a hop/,
    { way: loses(bytes => packetOf(bytes) > 576) },
  ),
  byPsk('a way of more than half a second', {}, {}, /^all is well/, {
    delay: 300,
    also: /^round trips note: .* The way is slow, or the peer busy/,
  }),
  byPsk('a way that loses every ninth datagram', {}, {}, /^all is well/, {
    way: every(9),
    also: /^round trips note: \d+ of 20 probes were answered: .* [1-9]\d* sent again\. The way loses packets/,
  }),
  byPsk(
    'a firewall that forgets the flow after the handshake',
    {},
    {},
    /^round trips: No probe inside the SA was answered within 5 s, after both ends had proved.*firewalls that know only its beginning/,
    {
      way: () => {
        let isForgotten = false
        return bytes => {
          isForgotten ||= exchangeOf(bytes) === INFORMATIONAL
          return !isForgotten
        }
      },
    },
  ),
  byCertificate(
    'IKE_AUTH with certificates is lost, since it is not cut',
    {},
    { fragmentation: false },
    /^authentication: The peer has answered IKE_SA_INIT, and IKE_AUTH does not end within 12 s\. Look for a firewall that loses large/,
    {
      way: loses(
        (bytes, direction) =>
          direction === 'there' && exchangeOf(bytes) === IKE_AUTH && packetOf(bytes) > 500,
      ),
    },
  ),
  byPsk(
    'a NAT where NATs are forbidden',
    {},
    { allowNats: false },
    /^authentication: The peer sees a NAT on the way .*"allowNats: false" forbids one\. Leave "allowNats" out/,
    { way: loses(() => false) },
  ),
  byPsk(
    'a server that is open to one peer at a time, and has another',
    { authorize: () => new Promise(() => {}) },
    {},
    /^authentication: The peer has answered IKE_SA_INIT, and IKE_AUTH does not end within 12 s.*log of the peer/,
  ),
  // --- this host ---
  byPsk(
    'a local address that this host has not',
    {},
    { localAddress: '192.0.2.77' },
    /^authentication: bind EADDRNOTAVAIL 192\.0\.2\.77\. Set "localAddress" to an address of this host/,
  ),
  byPsk(
    'a key that can be guessed',
    { psk: 'sesame' },
    { psk: 'sesame' },
    /^authentication: The pre-shared key has 6 octets: anyone who answers .* none was sent\. Use a key of 16 random octets/,
  ),
  byCertificate(
    'our certificate is not yet valid by our clock',
    {},
    own(endEntity('client.test', 'P-256', root, { notBefore: now + DAY, notAfter: now + 9 * DAY })),
    /^clock: Our certificate '.*CN=client\.test' is not yet valid \(notBefore .*; our clock says .*set our clock right/,
  ),
  byCertificate(
    'the authority that we trust has expired',
    {},
    {
      ca: authority('O=Test, CN=Old', 'P-256', undefined, {
        notBefore: now - 9 * DAY,
        notAfter: now - DAY,
      }).pem,
    },
    /^clock: The trusted CA 'O=Test, CN=Old' has expired/,
  ),
  // --- the chain of the peer ---
  byCertificate(
    'the server sends no intermediate',
    chainBelow({}, false),
    {},
    /^authentication: .*CN=server\.test' has an issuer, 'O=Test, CN=Intermediate', that is neither a trusted CA nor among the certificates sent/,
    { marks: /^bad 'O=Test, CN=server\.test', issued by 'O=Test, CN=Intermediate'/ },
  ),
  byCertificate(
    'the intermediate of the server has expired',
    chainBelow({ notBefore: now - 9 * DAY, notAfter: now - DAY }, true),
    {},
    /^authentication: .*CN=Intermediate' expired \(notAfter .*; our clock says/,
    {
      marks:
        /^ok 'O=Test, CN=server\.test', issued by .*\nbad 'O=Test, CN=Intermediate', issued by 'O=Test, CN=Root', valid from .* to /,
    },
  ),
  byCertificate(
    'the intermediate of the server may not sign certificates',
    chainBelow({ authority: undefined as never, keyUsage: [KeyUsage.DigitalSignature] }, true),
    {},
    /^authentication: .*CN=Intermediate' is (no|not) /,
    { marks: /\nbad 'O=Test, CN=Intermediate'/ },
  ),
  byCertificate(
    "the server's certificate does not sign",
    serverWith({ keyUsage: [KeyUsage.CrlSign] }),
    {},
    /^authentication: .*CN=server\.test' is not for signatures by its keyUsage/,
    { marks: /^bad 'O=Test, CN=server\.test'/ },
  ),
  byCertificate(
    "the server's certificate ends soon",
    serverWith({ notAfter: now + 2 * DAY }),
    {},
    /^all is well/,
    {
      also: /^authentication ok: server\.test has proved itself/,
      marks: /^note 'O=\S+, CN=server\.test', valid from .*, which is soon/,
    },
  ),
  // --- what the two ends agree on ---
  byPsk(
    'post-quantum keys that differ',
    ppk('q', QUANTUM),
    ppk('q', 'another key of 32 octets, really.'),
    /^authentication: .*proved it by the pre-shared key with a post-quantum key,.*Compare "id" and "secret" of the option "ppk"/,
  ),
  byPsk(
    'post-quantum keys of other names',
    ppk('q', QUANTUM),
    ppk('r', QUANTUM),
    /^authentication: .*with a post-quantum key,.*Compare "id" and "secret" of the option "ppk"/,
  ),
  byPsk(
    'extended sequence numbers at one end alone',
    { esp: 'aes256gcm16-noesn' },
    { esp: 'aes256gcm16-esn' },
    /^data: .*it takes aes256gcm16(-noesn)?\. Set the option "esp" to 'aes256gcm16(-noesn)?'/,
  ),
  byPsk(
    'a server that has no address to give',
    {},
    { virtualAddress: true, mode: 'tunnel' },
    /^all is well/,
    {
      also: /^data note: The peer was asked for an inner address \("virtualAddress"\) and gave none\. Give the peer a pool/,
    },
  ),
  byPsk(
    'a server for other hosts than ours',
    { mode: 'tunnel', remoteTs: '10.7.0.0/24' },
    { mode: 'tunnel', localTs: '10.8.0.1' },
    /^data: .*TS_UNACCEPTABLE.*asked for everything, it gives 10\.7\.0\.0\/24.* here/,
  ),
]
