/**
 * Every failure about IKE and ESP in one place: its code, whose fault it is, what it says, what helps, what the peer is
 * told, and what ends with it. `ERRORS.md` beside this folder is generated from here.
 */
import {
  ApplicationError,
  AuthenticationError,
  InternalError,
  IpsecError,
  LimitError,
  PeerMisbehavedError,
  PeerRefusedError,
  PolicyError,
  UnreachablePeerError,
} from './errors.ts'

/** The class of the error, by culprit. */
const CLASSES = {
  /** The two ends are configured for different things, and this end says no. */
  Policy: PolicyError,
  /** The other end says no, by a Notify, or ends what there was. */
  PeerRefused: PeerRefusedError,
  /** The other end breaks the protocol. */
  PeerMisbehaved: PeerMisbehavedError,
  /** One end could not prove who it is. */
  Authentication: AuthenticationError,
  /** Nobody answers, or nobody answers any longer. */
  Unreachable: UnreachablePeerError,
  /** A function that the program gave. */
  Application: ApplicationError,
  /** A limit of this end was reached. */
  Limit: LimitError,
  /** A fault in this package. */
  Internal: InternalError,
} as const

type ClassName = keyof typeof CLASSES

export type Fault =
  | 'one of the two configurations'
  | 'the peer'
  | 'the network'
  | 'the program'
  | 'ike-socket'

export interface ErrorRow {
  readonly class: ClassName
  /** `NOTIFY`: the registry name of the Notify that came. */
  readonly code: string
  readonly fault: Fault
  /** A sentence without its full stop; `{name}` stands for a value. */
  readonly says: string
  /** The next step: a sentence with its full stop. */
  readonly cure: string
  /** What the peer is told, or has told us (RFC 7296 §3.10.1). */
  readonly notify?: string
  /** What ends. */
  readonly ends: 'the attempt' | 'the session' | 'the Child SA' | 'nothing'
}

const NOT_PROVEN = 'Peer {peer} could not be authenticated: {why}'

/** A peer that could not prove itself. Both ends tell the other one no more than the Notify. */
const unproven = (
  cure: string,
  fault: Fault = 'one of the two configurations',
): ErrorRow & { says: typeof NOT_PROVEN } => ({
  class: 'Authentication',
  code: 'AUTHENTICATION_FAILED',
  fault,
  says: NOT_PROVEN,
  cure,
  notify: 'AUTHENTICATION_FAILED',
  ends: 'the attempt',
})

const RENEW = 'Have its issuer make a new certificate'

export const ERROR_TABLE = {
  // --- nobody answers ---
  NO_ANSWER: {
    class: 'Unreachable',
    code: 'ETIMEDOUT',
    fault: 'the network',
    says: 'No answer to IKE over UDP from {address} port {port}: a firewall may have blocked UDP, the address or the port may be wrong, or no server runs there; {meanwhile}',
    cure: 'Check that UDP port {port} is open on the way to {address} and that the server runs{family}; "ike-socket doctor {address}" looks at each step.',
    ends: 'the attempt',
  },
  SILENT: {
    class: 'Unreachable',
    code: 'ETIMEDOUT',
    fault: 'the network',
    says: 'The peer at {where} does not answer any longer',
    cure: 'The peer or the way to it has gone: connect again.',
    ends: 'the session',
  },
  HANDSHAKE_UNFINISHED: {
    class: 'Unreachable',
    code: 'ETIMEDOUT',
    fault: 'the network',
    says: 'The peer at {where} did not finish its handshake: its IKE_AUTH never came',
    cure: 'Its longer messages may be lost on the way: a smaller "fragmentSize" at its end helps where the path drops fragments.',
    ends: 'the attempt',
  },
  // --- the two ends do not agree, and this one says no ---
  NO_COMMON_PROPOSAL: {
    class: 'Policy',
    code: 'NO_PROPOSAL_CHOSEN',
    fault: 'one of the two configurations',
    says: 'No proposal for the {subject} meets in {unmet}: offered {offered}; accepted {accepted}',
    cure: 'Set the option "{option}" at one end to what the other end has.',
    notify: 'NO_PROPOSAL_CHOSEN',
    ends: 'the attempt',
  },
  TRANSPORT_ONLY: {
    class: 'Policy',
    code: 'NO_PROPOSAL_CHOSEN',
    fault: 'one of the two configurations',
    says: 'The peer wants tunnel mode, accepted is transport mode',
    cure: "Set \"mode\" to 'auto' or 'tunnel' here, or transport mode at the peer.",
    notify: 'NO_PROPOSAL_CHOSEN',
    ends: 'the Child SA',
  },
  NO_COMMON_SELECTORS: {
    class: 'Policy',
    code: 'TS_UNACCEPTABLE',
    fault: 'one of the two configurations',
    says: 'The traffic selectors do not meet: offered {offered}; accepted {accepted}',
    cure: 'Set "localTs" and "remoteTs" here, or what the peer asks for, so that both sides overlap; the peer\'s remote side is our local one.',
    notify: 'TS_UNACCEPTABLE',
    ends: 'the Child SA',
  },
  FORBIDDEN_NAT: {
    class: 'Policy',
    code: 'UNEXPECTED_NAT_DETECTED',
    fault: 'the network',
    says: 'Somebody on the way changes the addresses of a peer that does not allow that',
    cure: "Allow a NAT in the peer's configuration, or take the NAT out of the way.",
    notify: 'UNEXPECTED_NAT_DETECTED',
    ends: 'the attempt',
  },
  IKE_VERSION_1: {
    class: 'Policy',
    code: 'INVALID_MAJOR_VERSION',
    fault: 'one of the two configurations',
    says: 'The peer speaks IKEv1, which is deprecated (RFC 9395)',
    cure: 'Set the peer to IKEv2: version = 2 in swanctl.conf, keyexchange=ikev2 in ipsec.conf, "ikev2=insist" in libreswan.',
    ends: 'the attempt',
  },
  // --- the peer says no ---
  REFUSED_PROPOSAL: {
    class: 'PeerRefused',
    code: 'NO_PROPOSAL_CHOSEN',
    fault: 'one of the two configurations',
    says: 'The peer refused the IKE SA: NO_PROPOSAL_CHOSEN; it accepts none of what we offered: {offered}',
    cure: 'Set the option "ike" to what the peer has (its log names it), or have the peer accept one of these.',
    notify: 'NO_PROPOSAL_CHOSEN',
    ends: 'the attempt',
  },
  REFUSED_GROUP: {
    class: 'PeerRefused',
    code: 'INVALID_KE_PAYLOAD',
    fault: 'one of the two configurations',
    says: 'The peer wants a key exchange method that was not offered: {wanted}; offered were {offered}',
    cure: 'Add a proposal with {wanted} to the option "ike", or have the peer accept one of ours.',
    notify: 'INVALID_KE_PAYLOAD',
    ends: 'the attempt',
  },
  REFUSED_VERSION: {
    class: 'PeerRefused',
    code: 'INVALID_MAJOR_VERSION',
    fault: 'one of the two configurations',
    says: 'The peer does not speak IKEv2',
    cure: 'Set the peer to IKEv2; IKEv1 is deprecated (RFC 9395) and not spoken here.',
    notify: 'INVALID_MAJOR_VERSION',
    ends: 'the attempt',
  },
  REFUSED_IKE_SA: {
    class: 'PeerRefused',
    code: 'NOTIFY',
    fault: 'the peer',
    says: 'The peer refused the IKE SA before authentication: {notify}',
    cure: 'The log of the peer says why; it may have no connection for our address, or be busy.',
    ends: 'the attempt',
  },
  REFUSED_PROOF: {
    class: 'Authentication',
    code: 'AUTHENTICATION_FAILED',
    fault: 'one of the two configurations',
    says: 'The peer at {where} refused our authentication: we said that we are {claimed}, proved it by {proof}, and asked for {asked}',
    cure: "{cure} The log of the peer says why (of ike-socket: 'ikeClientError').",
    notify: 'AUTHENTICATION_FAILED',
    ends: 'the attempt',
  },
  REFUSED_LOGIN: {
    class: 'PeerRefused',
    code: 'NOTIFY',
    fault: 'the peer',
    says: 'The peer refused IKE_AUTH: {notify}; we said that we are {claimed}',
    cure: 'The log of the peer says why.',
    ends: 'the attempt',
  },
  NAT_FORBIDDEN: {
    class: 'PeerRefused',
    code: 'UNEXPECTED_NAT_DETECTED',
    fault: 'the network',
    says: 'The peer sees a NAT on the way (UNEXPECTED_NAT_DETECTED), and "allowNats: false" forbids one',
    cure: 'Leave "allowNats" out, or connect by a way without a NAT.',
    notify: 'UNEXPECTED_NAT_DETECTED',
    ends: 'the attempt',
  },
  REFUSED_TRANSPORT: {
    class: 'PeerRefused',
    code: 'USE_TRANSPORT_MODE',
    fault: 'one of the two configurations',
    says: 'The peer does not do transport mode',
    cure: "Set \"mode\" to 'auto' or 'tunnel', or transport mode at the peer (mode = transport).",
    ends: 'the Child SA',
  },
  REFUSED_CHILD_PROPOSAL: {
    class: 'PeerRefused',
    code: 'NO_PROPOSAL_CHOSEN',
    fault: 'one of the two configurations',
    says: 'The peer refused a Child SA: NO_PROPOSAL_CHOSEN; it accepts none of what we offered: {offered} in {mode} mode',
    cure: 'Set the options "esp", "pfs" and "mode" to what the peer has (its log names it); a key exchange in a Child SA is "pfs".',
    notify: 'NO_PROPOSAL_CHOSEN',
    ends: 'the Child SA',
  },
  REFUSED_SELECTORS: {
    class: 'PeerRefused',
    code: 'TS_UNACCEPTABLE',
    fault: 'one of the two configurations',
    says: 'The peer refused a Child SA: TS_UNACCEPTABLE; it has no traffic for what we asked, {local} here and {remote} there',
    cure: 'Set "localTs" and "remoteTs" to what the peer has; "ike-socket doctor" finds out.',
    notify: 'TS_UNACCEPTABLE',
    ends: 'the Child SA',
  },
  REFUSED_CHILD: {
    class: 'PeerRefused',
    code: 'NOTIFY',
    fault: 'the peer',
    says: 'The peer refused a Child SA: {notify}',
    cure: 'The log of the peer says why.',
    ends: 'the Child SA',
  },
  NARROWED: {
    class: 'PeerRefused',
    code: 'TS_UNACCEPTABLE',
    fault: 'one of the two configurations',
    says: 'The peer narrows the Child SA too far: it gives {given}, which does not cover the connection to {wanted}',
    cure: 'Connect to an address that it gives, or widen the selectors of the peer.',
    ends: 'the Child SA',
  },
  REFUSED_REKEY: {
    class: 'PeerRefused',
    code: 'NOTIFY',
    fault: 'one of the two configurations',
    says: 'The peer refused to rekey the IKE SA: {notify}',
    cure: 'A new IKE SA takes its place; check that both ends have the same key exchange methods in "ike".',
    ends: 'nothing',
  },
  NO_CHILDLESS: {
    class: 'PeerRefused',
    code: 'ERR_IKE_CHILDLESS',
    fault: 'one of the two configurations',
    says: 'The peer does not make an IKE SA without Child SA (RFC 6023)',
    cure: 'Set "childless" to another value than \'force\'.',
    ends: 'the attempt',
  },
  PEER_CLOSED: {
    class: 'PeerRefused',
    code: 'ECONNRESET',
    fault: 'the peer',
    says: 'The peer closed the IKE SA',
    cure: 'Connect again; the log of the peer says why it closed.',
    ends: 'the session',
  },
  PEER_RESTARTED: {
    class: 'PeerRefused',
    code: 'ECONNRESET',
    fault: 'the peer',
    says: 'The peer has restarted, and this SA has ended with its old process',
    cure: 'Connect again.',
    ends: 'the session',
  },
  PEER_LOST_SA: {
    class: 'PeerRefused',
    code: 'ECONNRESET',
    fault: 'the peer',
    says: 'The peer at {where} has lost the SA, and answers nothing',
    cure: 'Connect again.',
    ends: 'the session',
  },
  NEW_CHILD_DELETED: {
    class: 'PeerRefused',
    code: 'ECONNRESET',
    fault: 'the peer',
    says: 'The peer deleted the new Child SA',
    cure: 'The log of the peer says why.',
    ends: 'the Child SA',
  },
  // --- the peer breaks the protocol ---
  BAD_AUTH_REQUEST: {
    class: 'PeerMisbehaved',
    code: 'NOTIFY',
    fault: 'the peer',
    says: 'The peer sent an IKE_AUTH that cannot be read',
    cure: 'Update the peer; if it persists, report it with a capture.',
    notify: 'INVALID_SYNTAX or UNSUPPORTED_CRITICAL_PAYLOAD',
    ends: 'the attempt',
  },
  BAD_AUTH_ANSWER: {
    class: 'PeerMisbehaved',
    code: 'ERR_IKE_AUTH_ANSWER',
    fault: 'the peer',
    says: "The peer's answer lacks identity or AUTH",
    cure: 'It may ask for EAP: then set "eap". Otherwise update the peer.',
    ends: 'the attempt',
  },
  BAD_CHILD_ANSWER: {
    class: 'PeerMisbehaved',
    code: 'ERR_IKE_CHILD_ANSWER',
    fault: 'the peer',
    says: "The peer's answer for a Child SA {what}",
    cure: 'Update the peer; if it persists, report it with a capture.',
    ends: 'the Child SA',
  },
  BAD_CHILD_REQUEST: {
    class: 'PeerMisbehaved',
    code: 'INVALID_SYNTAX',
    fault: 'the peer',
    says: 'A Child SA was refused: {what}',
    cure: 'Update the peer; if it persists, report it with a capture.',
    notify: 'INVALID_SYNTAX',
    ends: 'the Child SA',
  },
  BAD_REKEY_ANSWER: {
    class: 'PeerMisbehaved',
    code: 'ERR_IKE_REKEY_ANSWER',
    fault: 'the peer',
    says: "The peer's answer to a rekey of the IKE SA cannot be used",
    cure: 'A new IKE SA takes its place; update the peer.',
    ends: 'nothing',
  },
  BAD_COOKIE2: {
    class: 'PeerMisbehaved',
    code: 'ERR_IKE_COOKIE2',
    fault: 'the peer',
    says: 'The peer did not return COOKIE2 as it was sent (RFC 4555 section 3.7)',
    cure: 'Connect again; if it persists, report it with a capture.',
    ends: 'the session',
  },
  // --- the peer could not prove itself ---
  WRONG_PSK: unproven(
    'Compare the pre-shared keys of both ends octet by octet; "ike-socket keygen" makes good ones.',
  ),
  PSK_LINE_BREAK: unproven(
    'Remove the line break at the end of the key: a key that is read from a file is to be trimmed.',
  ),
  UNKNOWN_PEER: unproven(
    'Add a key for that identity to "psk", or have the peer send one that is there ("localId" at its end).',
  ),
  WRONG_METHOD: unproven('Set "psk" at both ends, or "cert", "key" and "ca" at both ends.'),
  EAP_WANTED: unproven(
    'Have it prove itself by a certificate or a pre-shared key: servers here do not do EAP.',
  ),
  NO_EAP: unproven('Set "eap" only for a gateway that asks for it.'),
  EAP_ASKED: unproven('Set "eap" with the login of a user in place of "cert" and "key" or "psk".'),
  EAP_FAILED: unproven('Check the name, the password or the certificate of the option "eap".'),
  WRONG_IDENTITY: unproven(
    'Set "remoteId" here to the identity that the peer has, or "localId" at the peer to what is expected.',
  ),
  NOT_AUTHORIZED: unproven(
    'It is the program that says no: see "authorize" and "checkServerIdentity".',
    'the program',
  ),
  NO_PPK: unproven('Give both ends the same "ppk", or make it optional.'),
  BAD_IDENTITY: unproven('Set another "localId" at the peer.', 'the peer'),
  BAD_SIGNATURE_PROOF: unproven(
    'Its key does not fit its certificate, or both ends share no signature algorithm ("rsaPkcs1").',
    'the peer',
  ),
  // --- its certificate ---
  MALFORMED: unproven(`${RENEW}.`, 'the peer'),
  TOO_LARGE: unproven('Send fewer or smaller certificates.', 'the peer'),
  TOO_MUCH_WORK: unproven('Send the certificates of one chain alone.', 'the peer'),
  UNKNOWN_ISSUER: unproven(
    'Add the authority that issued it to "ca", or have the peer send the certificates between.',
  ),
  EXPIRED: unproven(`${RENEW}, or set our clock right if it is wrong.`),
  NOT_YET_VALID: unproven(
    `Set our clock right if it is wrong, or wait; otherwise the clock of the issuer is wrong.`,
  ),
  WEAK_KEY: unproven(`${RENEW} for RSA of 2048 bits and more, P-256 and more, or Ed25519.`),
  WEAK_ALGORITHM: unproven(`${RENEW}, signed with SHA-256 or more.`),
  BAD_SIGNATURE: unproven(
    `${RENEW}: this one was changed, or is of another authority of that name.`,
  ),
  NOT_A_CA: unproven('Issue it by an authority (basicConstraints CA:TRUE).'),
  PATH_LENGTH: unproven('Issue it by an authority whose path length allows it.'),
  KEY_USAGE: unproven(`${RENEW} with the key usage digitalSignature.`),
  EXTENDED_KEY_USAGE: unproven(
    `${RENEW} with the purpose ipsecIKE, or set "extendedKeyUsage: 'tls'" here.`,
  ),
  CRITICAL_EXTENSION: unproven(`${RENEW} without that critical extension.`),
  NAME_CONSTRAINTS: unproven('Issue it by an authority that may issue for that name.'),
  POLICY: unproven('Issue it under a policy that its authorities allow.'),
  PROFILE: unproven(`${RENEW}, as RFC 5280 has it.`),
  REVOKED: unproven('Replace the certificate: its issuer has taken it back.'),
  REVOCATION_UNKNOWN: unproven(
    'Give the issuer\'s current list as "crl", let it be fetched ("fetchRevocation"), or set "revocation" to \'prefer\'.',
  ),
  IDENTITY: unproven(
    'Connect by a name that the certificate has (or set "servername" or "remoteId"), or have a certificate made for this one.',
  ),
  // --- this end cannot prove itself ---
  NO_OWN_PSK: {
    class: 'Authentication',
    code: 'AUTHENTICATION_FAILED',
    fault: 'one of the two configurations',
    says: 'There is no pre-shared key for this peer: the option "psk" has none for {peer}',
    cure: 'Add that identity to "psk", or set "remoteId" to one that is there.',
    ends: 'the attempt',
  },
  NO_COMMON_SIGNATURE: {
    class: 'Authentication',
    code: 'AUTHENTICATION_FAILED',
    fault: 'one of the two configurations',
    says: 'The peer takes no signature that our {keys} key makes',
    cure: 'Use a key of another type (ECDSA P-256 is what everyone has), or set "rsaPkcs1" for a peer without RSASSA-PSS.',
    ends: 'the attempt',
  },
  NO_SIGNATURE: {
    class: 'Application',
    code: 'AUTHENTICATION_FAILED',
    fault: 'the program',
    says: 'Our key did not sign: the function "sign" gave no signature',
    cure: 'See what the function "sign" throws or returns.',
    ends: 'the attempt',
  },
  NO_PEER_PPK: {
    class: 'Authentication',
    code: 'AUTHENTICATION_FAILED',
    fault: 'one of the two configurations',
    says: 'The peer has no post-quantum pre-shared key',
    cure: 'Give the peer the same "ppk", or make it optional here.',
    ends: 'the attempt',
  },
  PROOF_NOT_BELIEVED: {
    class: 'Authentication',
    code: 'AUTHENTICATION_FAILED',
    fault: 'one of the two configurations',
    says: 'The peer {peer} did not accept our authentication: we said that we are {claimed}',
    cure: 'Its error says why: it may expect another identity ("remoteId" there, "localId" here) or trust another authority ("ca" there).',
    notify: 'AUTHENTICATION_FAILED',
    ends: 'the session',
  },
  CERTIFICATE_ENDED: {
    class: 'Authentication',
    code: 'AUTHENTICATION_FAILED',
    fault: 'the peer',
    says: "The peer's certificate has expired, and so has its SA",
    cure: 'Give the peer a new certificate; it is used without a restart where files are watched.',
    ends: 'the session',
  },
  // --- the program ---
  CALLBACK_TIMEOUT: {
    class: 'Application',
    code: 'ERR_IKE_CALLBACK_TIMEOUT',
    fault: 'the program',
    says: 'The function "{option}" did not answer within {seconds} s',
    cure: 'Make the function settle its promise sooner; a server can raise "halfOpenTimeout".',
    ends: 'the attempt',
  },
  // --- limits ---
  SESSION_LIMIT: {
    class: 'Limit',
    code: 'ERR_IKE_SESSION_LIMIT',
    fault: 'one of the two configurations',
    says: 'A peer was turned away: there are as many sessions as "maxSessions" or "maxSessionsPerIdentity" lets it have',
    cure: 'Raise that limit, or close sessions that nobody uses.',
    notify: 'NO_ADDITIONAL_SAS',
    ends: 'the attempt',
  },
  HALF_OPEN_LIMIT: {
    class: 'Limit',
    code: 'ERR_IKE_HALF_OPEN',
    fault: 'the network',
    says: 'Displaced by a newer handshake',
    cure: 'Under a flood that is as it should be; otherwise raise "maxHalfOpen".',
    ends: 'the attempt',
  },
  TOO_MANY_SAS: {
    class: 'Limit',
    code: 'TEMPORARY_FAILURE',
    fault: 'the peer',
    says: 'Too many IKE SAs of one peer',
    cure: 'The oldest one goes; nothing needs to be done.',
    ends: 'nothing',
  },
  BUG: {
    class: 'Internal',
    code: 'ERR_INTERNAL',
    fault: 'ike-socket',
    says: '{what}. This is a bug in ike-socket',
    cure: 'Please report it.',
    ends: 'the attempt',
  },
} as const satisfies Readonly<Record<string, ErrorRow>>

/** Names a row. On an error it is `reason`. */
export type ErrorReason = keyof typeof ERROR_TABLE

type Names<Text extends string> = Text extends `${string}{${infer Name}}${infer Rest}`
  ? Name | Names<Rest>
  : never

/** Of a peer that could not prove itself. */
export type UnprovenReason = {
  [Reason in ErrorReason]: Row<Reason>['says'] extends typeof NOT_PROVEN ? Reason : never
}[ErrorReason]

type Row<Reason extends ErrorReason> = (typeof ERROR_TABLE)[Reason]

/** Values for the places in a row's sentences. */
export type ErrorValues<Reason extends ErrorReason> = Readonly<
  Record<Names<Row<Reason>['says']> | Names<Row<Reason>['cure']>, string | number>
>

/** The error of that reason. `values` are printed as they are: text of a peer is escaped before. */
export const errorOf = <Reason extends ErrorReason>(
  reason: Reason,
  values: ErrorValues<Reason>,
  details?: Readonly<Record<string, unknown>>,
): IpsecError => {
  const row: ErrorRow = ERROR_TABLE[reason]
  const known = new Map<string, string | number>(Object.entries(values))
  const fill = (text: string): string =>
    text.replace(/\{(\w+)\}/g, (_, name: string) => String(known.get(name) ?? ''))
  const cure = fill(row.cure)
  const code = row.code === 'NOTIFY' ? String(known.get('notify') ?? row.code) : row.code
  return new CLASSES[row.class](code, `${fill(row.says)}. ${cure}`, {
    details,
    reason,
    fault: row.fault,
    cure,
  })
}

/** Codes that errors have beside those of the table: of options, and as Node has them. */
export const OTHER_CODES: readonly (readonly [code: string, class_: string, meaning: string])[] = [
  [
    'ERR_INVALID_ARG_VALUE',
    'OptionError',
    'An option has a value that cannot be used; the message says what is accepted.',
  ],
  ['ERR_INVALID_ARG_TYPE', 'OptionError', 'An option or argument has the wrong type.'],
  ['ERR_OUT_OF_RANGE', 'OptionError', 'A number is outside its range.'],
  ['ERR_MISSING_ARGS', 'OptionError', 'A needed option is missing.'],
  ['ERR_SOCKET_BAD_PORT', 'OptionError', 'No port: 0 to 65535.'],
  ['ERR_INVALID_IP_ADDRESS', 'OptionError', 'No IP address.'],
  ['ERR_UNKNOWN_ENCODING', 'OptionError', 'No encoding of Buffer.'],
  [
    'ERR_INVALID_ADDRESS_FAMILY',
    'OptionError',
    'The address is not of the family that was asked for.',
  ],
  ['ERR_IP_BLOCKED', 'Error', 'The block list of the program has the address.'],
  ['ERR_ACCESS_DENIED', 'Error', 'The permission model of Node (--permission) forbids it.'],
  ['ERR_IKE_CONFIG', 'IpsecError', 'The file of IKE_SOCKET_CONFIG cannot be used.'],
  [
    'ERR_IKE_POLICY',
    'IpsecError',
    'The policy of `ike-socket/register` cannot be used, has no effect here, or would not hold in a worker.',
  ],
  ['ERR_SERVER_ALREADY_LISTEN', 'Error', 'As in net.'],
  ['ERR_SERVER_NOT_RUNNING', 'Error', 'As in net.'],
  ['ERR_SOCKET_CLOSED', 'Error', 'As in net.'],
  ['ERR_SOCKET_CLOSED_BEFORE_CONNECTION', 'Error', 'As in net.'],
  ['ERR_SOCKET_ALREADY_BOUND', 'Error', 'As in dgram.'],
  ['ERR_SOCKET_DGRAM_IS_CONNECTED', 'Error', 'As in dgram.'],
  ['ERR_SOCKET_DGRAM_NOT_CONNECTED', 'Error', 'As in dgram.'],
  ['ERR_SOCKET_DGRAM_NOT_RUNNING', 'Error', 'As in dgram.'],
  ['ERR_BUFFER_OUT_OF_BOUNDS', 'RangeError', 'As in dgram.'],
  [
    'ECONNREFUSED',
    'Error',
    'As in net. The message says whether it happened inside the tunnel or on UDP.',
  ],
  ['ECONNRESET', 'Error', 'As in net: the connection or its SA was ended by the other end.'],
  ['ETIMEDOUT', 'Error', 'As in net: inside the tunnel nobody answers.'],
  ['EPIPE', 'Error', 'As in net: written after the end.'],
  [
    'EADDRINUSE',
    'Error',
    'As in net. "(UDP)" marks the UDP port of IKE: another IKE daemon has it.',
  ],
  ['EADDRNOTAVAIL', 'Error', 'As in net: no address of this host.'],
  ['EAFNOSUPPORT', 'Error', 'The endpoint has no socket of that family: IPv4 or IPv6.'],
  ['EHOSTUNREACH', 'Error', 'A router or this host says that there is no way to the gateway.'],
  ['ENETUNREACH', 'Error', 'This host or a router has no route to the gateway.'],
]

type Notes = ReadonlyMap<string, string>

/** What a failed connection inside ESP means, by code. */
export const INSIDE: Notes = new Map([
  [
    'ECONNREFUSED',
    'inside the tunnel: the peer was reached, but nothing listens on that port there, or it takes no more connections',
  ],
  ['ETIMEDOUT', 'inside the tunnel: the peer was reached, but nothing answers on that port there'],
  ['ECONNRESET', 'inside the tunnel'],
  ['EADDRINUSE', 'inside the tunnel: the connection exists already'],
])

/** What the system says of UDP datagrams to the gateway, by code. */
export const OUTSIDE: Notes = new Map([
  [
    'ECONNREFUSED',
    'UDP: the host, or a firewall before it, says that no IKE server listens on that port; a server of plain TCP or TLS does not speak IKE',
  ],
  ['EHOSTUNREACH', 'UDP: this host or a router on the way says that the gateway is not reached'],
  ['ENETUNREACH', 'UDP: this host or a router on the way has no route to the gateway'],
  ['EACCES', 'UDP: a firewall on this host or on the way forbids it'],
  ['EPERM', 'UDP: a firewall on this host forbids it'],
])

/** `octets`: the length of the address. A server that has IPv4 alone is silent, or refuses, at an IPv6 address. */
export const noteOf = (notes: Notes, code: string, octets = 4): string | undefined => {
  const note = notes.get(code)
  return note === undefined || octets === 4
    ? note
    : `${note}; it is an IPv6 address, where the server may not listen: "family: 4" asks for IPv4`
}
