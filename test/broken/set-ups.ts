/** Broken set-ups as people make them: the options of both ends, and the sentence that each end must end with. */
import type { SecureServerOptions, SecureSocketOptions } from '../../lib/index.ts'
import { KeyPurpose } from '../../lib/identity/extensions.ts'
import { authority, crlOf, endEntity, type Credential } from '../harness/certificates.ts'
import { crlDistributionPoint } from '../harness/x509.ts'

export interface SetUp {
  readonly name: string
  readonly server: SecureServerOptions
  readonly client: SecureSocketOptions
  /** What the error of the client's socket says. */
  readonly clientSays: RegExp
  /** What 'ikeClientError' of the server says; undefined: the server cannot know. */
  readonly serverSays?: RegExp
  /** What `ike-socket doctor` says with the client's options, where that is more than the client's error. */
  readonly doctorSays?: RegExp
}

const DAY = 86_400_000
const KEY = 'a key that both of these ends know'
const PSK = {
  server: { psk: KEY, localId: 'server.test' },
  client: { psk: KEY, localId: 'client.test' },
}

const root = authority('O=Test, CN=Root', 'P-256')
const stranger = authority('O=Test, CN=Stranger', 'P-256')
const own = ({ pem, keyPem }: Credential) => ({ cert: pem, key: keyPem })
const serverEnd = endEntity('server.test', 'P-256', root)
const clientEnd = endEntity('client.test', 'P-256', root)
const CERTS = {
  server: { ca: root.pem, ...own(serverEnd) },
  client: { ca: root.pem, ...own(clientEnd), remoteId: 'server.test' },
}

const byPsk = (
  name: string,
  server: SecureServerOptions,
  client: SecureSocketOptions,
  clientSays: RegExp,
  serverSays?: RegExp,
  doctorSays?: RegExp,
): SetUp => ({
  name,
  server: { ...PSK.server, ...server },
  client: { ...PSK.client, ...client },
  clientSays,
  ...(serverSays === undefined ? {} : { serverSays }),
  ...(doctorSays === undefined ? {} : { doctorSays }),
})

const byCertificate = (
  name: string,
  server: SecureServerOptions,
  client: SecureSocketOptions,
  clientSays: RegExp,
  serverSays: RegExp,
  doctorSays?: RegExp,
): SetUp => ({
  name,
  server: { ...CERTS.server, ...server },
  client: { ...CERTS.client, ...client },
  clientSays,
  serverSays,
  ...(doctorSays === undefined ? {} : { doctorSays }),
})

const REFUSED_PSK =
  /refused our authentication: we said that we are client\.test, proved it by the pre-shared key, and asked for no identity \("remoteId"\)\. Compare the keys .*login of a user needs "eap" here/
const REFUSED_CERT =
  /refused our authentication: we said that we are \S+, proved it by the certificate '.*' of '.*', valid from .* to .*, and asked for server\.test\. The peer must trust that issuer .*ours says \d{4}-/
const NOT_BELIEVED =
  /did not accept our authentication: we said that we are server\.test\. .*"remoteId" there/

const withFacts = (facts: Parameters<typeof endEntity>[3]): Credential =>
  endEntity('client.test', 'P-256', root, facts)
const serverWith = (facts: Parameters<typeof endEntity>[3]): Credential =>
  endEntity('server.test', 'P-256', root, facts)
const now = Date.now()
const EXPIRED = { notBefore: now - 9 * DAY, notAfter: now - DAY }
const EARLY = { notBefore: now + DAY, notAfter: now + 9 * DAY }
const YEAR = 365 * DAY
const unnamed = (name: string): Credential =>
  endEntity(name, 'P-256', root, { names: undefined as never })
const revokedEnd = withFacts({ serial: Uint8Array.of(0x77, 1) })

export const SET_UPS: readonly SetUp[] = [
  byPsk(
    'the pre-shared keys differ',
    { psk: 'another key than the client has' },
    {},
    REFUSED_PSK,
    /client\.test.*does not know the pre-shared key\. Compare the pre-shared keys/,
  ),
  byPsk(
    "the server's key ends in a line break",
    { psk: `${KEY}\n` },
    {},
    REFUSED_PSK,
    /differ in a line break at the end alone\. Remove the line break/,
  ),
  byPsk(
    "the client's key ends in a line break",
    {},
    { psk: `${KEY}\n` },
    /ours ends in a line break, as a file does/,
    /differ in a line break at the end alone/,
  ),
  byPsk(
    'the server has no key for that client',
    { psk: { 'other.test': KEY } },
    {},
    REFUSED_PSK,
    /there is no pre-shared key for it \(we are server\.test\)\. Add a key for that identity to "psk"/,
  ),
  byPsk(
    'the client has no key for that server',
    {},
    { psk: { 'other.test': KEY }, remoteId: 'server.test' },
    /"psk" has none for server\.test\. Add that identity/,
  ),
  byPsk(
    'the client expects another server',
    {},
    { remoteId: 'gateway.test' },
    /server\.test could not be authenticated: gateway\.test is expected\. Set "remoteId"/,
    NOT_BELIEVED,
  ),
  byPsk(
    'a post-quantum key is demanded of a client that has none',
    { ppk: { id: 'q', secret: 'a post-quantum key of 32 octets.', required: true } },
    {},
    REFUSED_PSK,
    /it has no post-quantum key\. Give both ends the same "ppk"/,
  ),
  byPsk(
    'a post-quantum key is demanded of a server that has none',
    {},
    { ppk: { id: 'q', secret: 'a post-quantum key of 32 octets.', required: true } },
    /The peer has no post-quantum pre-shared key\. Give the peer the same "ppk"/,
  ),
  byPsk(
    "the server's function says no",
    { authorize: () => false },
    {},
    REFUSED_PSK,
    /it was not authorized\. It is the program that says no: see "authorize"/,
  ),
  byPsk(
    "the server's function throws",
    {
      authorize: () => {
        throw new Error('no seat is free')
      },
    },
    {},
    REFUSED_PSK,
    /no seat is free\. It is the program/,
  ),
  byPsk(
    'a client with a login to a server without EAP',
    {},
    {
      psk: undefined,
      ca: root.pem,
      eap: { method: 'mschapv2', identity: 'alice', password: 'secret words' },
    },
    /proved it by EAP as 'alice'.*Check the login of the option "eap"/,
    /wants to authenticate itself by EAP.*servers here do not do EAP/,
  ),
  {
    name: 'a client with a key to a server with certificates',
    server: CERTS.server,
    client: PSK.client,
    clientSays: REFUSED_PSK,
    serverSays: /does not prove itself with a certificate or public key\. Set "psk" at both ends/,
  },
  {
    name: 'a client with a certificate to a server with a key',
    server: PSK.server,
    client: CERTS.client,
    clientSays: REFUSED_CERT,
    serverSays: /no "ca" to trust its certificate by\. Set "psk" at both ends/,
  },
  byCertificate(
    'the server trusts another authority',
    { ca: stranger.pem },
    {},
    REFUSED_CERT,
    /has an issuer, 'O=Test, CN=Root', that is neither a trusted CA.*\. Add the authority that issued it to "ca"/,
  ),
  byCertificate(
    'the client trusts another authority',
    {},
    { ca: stranger.pem },
    /has an issuer, 'O=Test, CN=Root', that is neither a trusted CA.*\. Add the authority/,
    NOT_BELIEVED,
  ),
  byCertificate(
    "the client's certificate has expired",
    {},
    own(withFacts(EXPIRED)),
    REFUSED_CERT,
    /expired \(notAfter .*; our clock says .*\)\. Have its issuer make a new certificate/,
    /^clock: Our certificate 'O=\S+, CN=client\.test' has expired \(notAfter .*; our clock says .*\)\. Have its issuer/,
  ),
  byCertificate(
    "the server's certificate has expired",
    own(serverWith(EXPIRED)),
    {},
    /expired \(notAfter .*; our clock says .*\)\. Have its issuer make a new certificate/,
    NOT_BELIEVED,
  ),
  byCertificate(
    "the server's certificate is not yet valid",
    own(serverWith(EARLY)),
    {},
    /not yet valid \(notBefore .*; our clock says .*\)\. Set our clock right/,
    NOT_BELIEVED,
  ),
  byCertificate(
    "the server's certificate is for another name",
    {},
    { remoteId: undefined, servername: 'orders.test' },
    /not for 'orders\.test', only for server\.test\. Connect by a name that the certificate has/,
    NOT_BELIEVED,
  ),
  byCertificate(
    'the client claims a name that its certificate has not',
    {},
    { localId: 'boss.test' },
    REFUSED_CERT,
    /not for the identity boss\.test, only for client\.test/,
    /refused our authentication.*; our certificate is not for "localId" 'boss\.test', only for client\.test\./,
  ),
  byCertificate(
    "the client's certificate is for TLS alone",
    {},
    own(withFacts({ extendedKeyUsage: [KeyPurpose.ClientAuth] })),
    REFUSED_CERT,
    /other purposes than IKE.*extendedKeyUsage: 'tls'/,
    /refused our authentication.*; our certificate has other purposes than IKE/,
  ),
  byCertificate(
    "the client's certificate is revoked",
    { crl: crlOf(root, [Uint8Array.of(0x77, 1)]) },
    own(revokedEnd),
    REFUSED_CERT,
    /was revoked by its issuer.*\. Replace the certificate/,
  ),
  byCertificate(
    'the list of revoked certificates is of another authority',
    { crl: crlOf(stranger) },
    {},
    REFUSED_CERT,
    /may have been revoked.*\. Give the issuer's current list as "crl"/,
  ),
  byCertificate(
    'the list of revoked certificates has expired',
    { crl: crlOf(root, [], now - DAY) },
    {},
    /refused our authentication.*not revoked, and valid by both clocks/,
    /may have been revoked.*the list of its issuer cannot be used: it has expired .*\. Give the issuer's current list as "crl"/,
  ),
  byCertificate(
    'the list of revoked certificates that the client has has expired',
    {},
    { crl: crlOf(root, [], now - DAY) },
    /the list of its issuer cannot be used: it has expired .*\. Give the issuer's current list as "crl"/,
    NOT_BELIEVED,
  ),
  byCertificate(
    'the client sends no intermediate',
    {},
    own(endEntity('client.test', 'P-256', authority('O=Test, CN=Between', 'P-256', root))),
    /refused our authentication.*certificates between belong in "cert" here/,
    /has an issuer, 'O=Test, CN=Between', that is neither a trusted CA nor among the certificates sent\. Add/,
    /^authentication: .*the certificate of its issuer, '.*CN=Between', is neither in "cert" nor in "ca"/,
  ),
  byCertificate(
    'the name of the client stands in the CN of its certificate alone',
    {},
    { ...own(unnamed('client.test')), localId: 'client.test' },
    REFUSED_CERT,
    /not for the identity client\.test, only for its subject \(a CN is not compared: the name must be a subjectAltName\)/,
    /^authentication: .*our certificate is not for "localId" 'client\.test', only for its subject \(a CN/,
  ),
  byCertificate(
    'the name of the server stands in the CN of its certificate alone',
    own(unnamed('server.test')),
    {},
    /server\.test is expected, and the peer goes by the subject .* the name must be a subjectAltName/,
    /did not accept our authentication: we said that we are dn:/,
  ),
  byCertificate(
    'the clock of one end is off by a year',
    own(serverWith({ notBefore: now + YEAR, notAfter: now + 2 * YEAR })),
    {},
    /is not yet valid \(notBefore .*; our clock says .*\)\. Set our clock right if it is wrong/,
    NOT_BELIEVED,
  ),
  byCertificate(
    'the list of revoked certificates is not where the certificate says',
    { fetchRevocation: ['127.0.0.0/8'], revocation: 'require' },
    own(withFacts({ extensions: [crlDistributionPoint(['uri:http://127.0.0.1:1/ca.crl'])] })),
    REFUSED_CERT,
    /asked were 'http:\/\/127\.0\.0\.1:1\/ca\.crl': ECONNREFUSED\. Give the issuer's current list/,
  ),
  byPsk(
    'no common cipher for IKE',
    { ike: 'aes128gcm16-prfsha256-x25519' },
    { ike: 'aes256gcm16-prfsha256-x25519' },
    /NO_PROPOSAL_CHOSEN; it accepts none of what we offered: aes256gcm16-prfsha256-x25519\. Set the option "ike"/,
    /meets in Encr: offered aes256gcm16-prfsha256-x25519; accepted aes128gcm16-prfsha256-x25519\. Set the option "ike"/,
    /^proposals: .*it takes aes128gcm16-prfsha256-x25519\. Set the option "ike" to 'aes128gcm16-prfsha256-x25519'/,
  ),
  byPsk(
    'no common key exchange for IKE',
    { ike: 'aes256gcm16-prfsha256-ecp384' },
    { ike: 'aes256gcm16-prfsha256-x25519' },
    /NO_PROPOSAL_CHOSEN; it accepts none of what we offered: aes256gcm16-prfsha256-x25519/,
    /meets in Ke: offered .*-x25519; accepted .*-ecp384/,
    /^proposals: .*it takes aes256gcm16-prfsha256-ecp384\. Set the option "ike" to 'aes256gcm16-prfsha256-ecp384'/,
  ),
  byPsk(
    'no common cipher for ESP',
    { esp: 'chacha20poly1305' },
    { esp: 'aes256gcm16' },
    /refused a Child SA: NO_PROPOSAL_CHOSEN; it accepts none of what we offered: aes256gcm16.*"esp", "pfs" and "mode"/,
    /No proposal for the Child SA meets in Encr: .*Set the option "esp"/,
    /^data: .*it takes chacha20poly1305\. Set the option "esp" to 'chacha20poly1305'/,
  ),
  byPsk(
    'traffic selectors that do not meet',
    { mode: 'tunnel', localTs: '10.2.0.0/16' },
    { mode: 'tunnel', remoteTs: '10.1.0.0/16' },
    /TS_UNACCEPTABLE; it has no traffic for what we asked, .* here and 10\.1\.0\.0\/16.* there\. Set "localTs" and "remoteTs"/,
    /traffic selectors do not meet: offered 10\.1\.0\.0\/16.*accepted 10\.2\.0\.0\/16.*overlap/,
    /^data: .*it gives .* here and 10\.2\.0\.0\/16.* there\. Set .*"remoteTs" to '10\.2\.0\.0\/16/,
  ),
  byPsk(
    'tunnel mode at the client, transport mode at the server',
    { mode: 'transport' },
    { mode: 'tunnel' },
    /refused a Child SA: NO_PROPOSAL_CHOSEN.* in tunnel mode\. Set the options "esp", "pfs" and "mode"/,
    /wants tunnel mode, accepted is transport mode\. Set "mode"/,
    /^data: .*it takes transport mode\. Set "mode" to 'transport'/,
  ),
  byPsk(
    'a server that has as many sessions as it may',
    { maxSessionsPerIdentity: 1, maxSessions: 1 },
    { initialContact: false },
    /refused a Child SA: NO_ADDITIONAL_SAS\. The log of the peer/,
    /as many sessions as "maxSessions".*Raise that limit/,
  ),
]
