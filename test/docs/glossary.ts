/** What the names mean that a program meets at run time; `reference.test.ts` finds every such name in the sources. */

/** Names of trace events, with what they say. Each has the `spi` of its IKE SA, where there is one. */
export const TRACE_EVENTS: Readonly<Record<string, string>> = {
  'ike.request.sent':
    'We sent a request: `exchange`, `id`, `payloads`, and `fragments` when it was cut.',
  'ike.request': 'A request arrived and is genuine: `exchange`, `id`, `payloads`.',
  'ike.response.sent':
    'We answered a request: `exchange`, `id`, `payloads`, and `fragments` when it was cut.',
  'ike.response': 'An answer arrived and is genuine: `exchange`, `id`, `payloads`.',
  'ike.reply':
    'Instead of taking up a handshake we asked for a cookie or another group: `from`, `why`.',
  'ike.refused': 'We refused a peer: `subject`, `code`, `why`.',
  'ike.drop': 'A message was ignored: `why`.',
  'ike.established': 'An IKE SA is up: `peer`, `suite`.',
  'ike.rekeyed':
    'An IKE SA has new keys; `simultaneous` when both ends began (RFC 7296 §2.8.1, §2.25).',
  'ike.rekeyRefused': 'The peer refused to rekey the IKE SA: `code`.',
  'ike.moved': "The peer's address has changed, or ours: `to` (RFC 4555).",
  'ike.authLifetime':
    'The server announced how long the authentication is valid: `lifetime` (RFC 4478).',
  'ike.certificateEnds':
    "The first of the peer's certificates expires in `in` milliseconds; the SA ends then.",
  'ike.certificateEnded': 'The SA has ended because a certificate expired: `code`, `why`.',
  'ike.fragments':
    'Messages without an answer are now sent in smaller fragments (RFC 7383 §2.5.1).',
  'ike.crashed': 'The peer has shown its token: it restarted without this SA (RFC 6290).',
  'ike.closed': 'An IKE SA, or an attempt to open one, has ended.',
  'child.installed': 'A Child SA is up: SPIs, mode, suite, selectors.',
  'child.rekeyed': 'A Child SA has been replaced: `old`, `new` (inbound SPIs).',
  'child.rekeyRefused': 'The peer refused to rekey a Child SA.',
  'child.removed': 'A Child SA is gone: `spi`.',
  'child.failed': 'A Child SA that we asked for was not made: `code`, `why`.',
  'child.refused': 'We refused a Child SA: `notify`, `why`.',
}

/** Keys of `counters.drops`. */
export const DROPS: Readonly<Record<string, string>> = {
  keepalive: 'A NAT keepalive (RFC 3948 §4). Normal.',
  'datagram.invalid': 'A datagram too short to be IKE, ESP or a keepalive.',
  'datagram.noPort': 'From UDP port 0, which nothing can be sent to.',
  'esp.unknownSpi': 'ESP for an SA that we do not have: a restart, or a late packet.',
  'esp.truncated': 'ESP shorter than its own header, IV, trailer and ICV.',
  'esp.replay': 'A sequence number that was seen before, or is older than the `replayWindow`.',
  'esp.icv': 'The ICV is wrong: the packet was changed, forged or damaged.',
  'esp.padding': 'Padding is not as RFC 4303 §2.4 says.',
  'esp.dummy': 'A dummy packet (RFC 4303 §2.6). Normal.',
  'esp.nextHeader': 'ESP carries something other than the mode of its SA allows.',
  'esp.bundle': 'An ESP packet that should carry several small packets, but not whole ones.',
  'esp.selectors': 'A packet came out of an SA whose traffic selectors do not allow it.',
  'esp.exhausted':
    'We did not send: the SA has used up its sequence numbers, octets or packets, and waits for a rekey.',
  'ip.malformed': 'The inner IP header is wrong.',
  'ip.fragment': 'An inner IP fragment; they are not reassembled.',
  'ip.address':
    'An inner address that never comes from another host (loopback, multicast and so on).',
  'ip.protocol': 'An inner packet that is neither TCP, UDP nor ICMP.',
  'icmp.ignored': 'An inner ICMP message that we have no use for, such as an echo request.',
  'tcp.truncated': 'A TCP segment shorter than its header.',
  'tcp.malformed': 'A TCP segment with a wrong checksum or length.',
  'tcp.otherHost':
    'A TCP segment to an address that the selectors cover and no connection of ours has: a client is not the hosts of its network.',
  'tcp.backlog': 'A SYN beyond the backlog of its listener.',
  'tcp.repeatedData':
    'A SYN with data of a client that has begun again, when the same data has been handed on before.',
  'tcp.maxConnections': 'A SYN beyond `maxConnectionsPerSession`.',
  'tcp.maxBuffered':
    'A segment beyond `maxBufferPerSession` or `maxBuffer`; the peer sends it again.',
  'tcp.noSa': 'We did not send a TCP segment: no Child SA covers it.',
  'udp.malformed': 'A datagram inside ESP with a wrong checksum or length.',
  'udp.noPort': 'A datagram inside ESP for a port that nobody has bound.',
  'udp.queueFull': 'A datagram that had to wait while 256 already did.',
  'udp.noSa': 'We did not send a datagram: no Child SA covers it.',
  'path.onTrial':
    'We did not send an IKE message: the new address of the peer is not proved yet, and got its share (RFC 4555 §3.7).',
  'ike.malformed': 'The IKE header is wrong.',
  'ike.icv': 'The ICV of an IKE message is wrong, or its version.',
  'ike.v1': 'A message of IKEv1. A server reports it by `ikeClientError` once in a while.',
  'ike.noMarker': 'A message without the non-ESP marker that is not for us.',
  'ike.stranger': 'IKE_SA_INIT at an endpoint that accepts no peers.',
  'ike.unknownSpi': 'IKE for an SA that we do not have.',
  'ike.hint': 'Somebody says, outside protection, that the peer has lost an SA of ours.',
  'ike.replyQueueFull':
    'An unauthenticated message stayed unanswered because too many answers waited.',
  'ike.auth.busy': 'IKE_AUTH had to wait because too many others were being checked.',
  'ike.halfOpenPerSource': 'A handshake was displaced, or refused: `halfOpenPerSource`.',
  'ike.maxHalfOpen': 'A handshake was displaced, or refused: `maxHalfOpen`.',
  'ike.failed.displaced': 'A failed handshake made room for a new one.',
  'ike.init.answered': 'A further answer to our IKE_SA_INIT, or a repetition of one.',
  'ike.init.busy': 'IKE_SA_INIT beyond the share of work that its source has.',
  'ike.init.choice': 'An answer to IKE_SA_INIT chose what we did not offer.',
  'ike.init.cookie': 'IKE_SA_INIT without a valid cookie; we asked for one (RFC 7296 §2.6).',
  'ike.init.critical': 'IKE_SA_INIT has an unknown payload that is marked critical.',
  'ike.init.flood': 'IKE_SA_INIT beyond the number that its source may send.',
  'ike.init.group': 'IKE_SA_INIT with another group than we chose; we said which (RFC 7296 §1.3).',
  'ike.init.header': 'IKE_SA_INIT with a wrong message ID or SPI.',
  'ike.init.ke': 'An answer to IKE_SA_INIT has a public value that is not valid.',
  'ike.init.late': 'A repetition of an IKE_SA_INIT whose handshake is over.',
  'ike.init.long': 'IKE_SA_INIT longer than we read.',
  'ike.init.malformed': 'IKE_SA_INIT with payloads that are wrong, missing or too many.',
  'ike.init.proposal': 'IKE_SA_INIT with no proposal that we accept; `ikeClientError` says why.',
  'ike.init.short': 'IKE_SA_INIT shorter than the refusal it would get.',
  'ike.init.spi': 'An answer to IKE_SA_INIT without an SPI.',
  'ike.init.version': 'IKE_SA_INIT of another major version.',
}

/** Codes of `process.emitWarning`. */
export const WARNINGS: Readonly<Record<string, string>> = {
  IKE_CLIENT_REFUSED:
    "Peers were refused and nobody listens for 'ikeClientError': once a minute, with their number.",
  IKE_CAPTURE:
    'Datagrams and keys are written (IKE_SOCKET_CAPTURE), or cannot be written any more.',
  IKE_CONTROL: 'The socket of IKE_SOCKET_CONTROL could not be opened.',
  IKE_POLICY_HOOK:
    'Another module has taken a hook of `ike-socket/register` away. What comes past it is discarded, unless the policy says `bypass`.',
  IKE_KEY_LOG: 'Keys are written (`keyLog`), or cannot be written any more.',
  IKE_NOT_ACCELERATED: "`accelerate: 'auto'` has no effect here; the warning says what it needs.",
  IKE_CREDENTIAL_FILES: 'With `watch`: files have changed and cannot be used; everything stays.',
  IKE_PSK_LINE_BREAK: 'A pre-shared key ends in a line break, which the peer must have too.',
  IKE_SHORT_PSK: 'A pre-shared key can be found by trying (RFC 7296 §2.15).',
}

/** Variables of the environment. */
export const ENVIRONMENT: Readonly<Record<string, string>> = {
  IKE_SOCKET_CAPTURE:
    'A file, as `ike-socket capture` sets it: every datagram is written there as pcapng, and the keys of all SAs in the folder beside it. A warning says so.',
  IKE_SOCKET_CONFIG:
    'A JSON file with options, for `ike-socket/net`, `ike-socket/http`, `ike-socket/register` and the commands. `{ "file": path }` is what a file holds, `{ "env": name }` the value of a variable. An unknown key stops the program.',
  IKE_SOCKET_CONTROL:
    'The path of a Unix socket, mode 0600, that tells the sessions and counters of the process as lines of JSON, for `ike-socket status`; opened with its first endpoint.',
  IKE_SOCKET_POLICY:
    'The policy file of `ike-socket/register`: which connections are protected, which bypass, which are discarded.',
  NODE_DEBUG: '`NODE_DEBUG=ike-socket` prints every trace event.',
}

/** Exit codes of the command `ike-socket`. */
export const EXIT_CODES: Readonly<Record<string, string>> = {
  0: 'Done.',
  1: 'It could not be done; the reason is on standard error.',
  2: 'The command line was not understood.',
  '130, 143':
    '`connect`, `listen`, `forward` and `socks`: ended by SIGINT or SIGTERM, after the SAs were deleted.',
  '3 to 9':
    '`doctor`: the step that is bad, as its `--help` lists them. `verify`: 3, a certificate is not in order.',
}
