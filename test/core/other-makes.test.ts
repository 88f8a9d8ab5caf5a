/** What a client asks of peers of other makes for its Child SAs, and which of their answers it accepts (RFC 7296 §2.9, §2.23.1). */
import t from 'tap'
import { parseIdentity } from '../../lib/identity/identity.ts'
import { formatSelector } from '../../lib/policy/traffic-selectors.ts'
import { readIkeHeader } from '../../lib/wire/ike-header.ts'
import { find } from '../../lib/wire/message.ts'
import { findNotify, notify } from '../../lib/wire/notify.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { ExchangeType, NotifyType } from '../../lib/wire/registry.ts'
import type { TrafficSelector } from '../../lib/wire/traffic-selector.ts'
import { Caller, isIke, messageOf, PSK } from '../harness/attacker.ts'
import { Gateway, ONE_SUITE } from '../harness/gateway.ts'
import type { Options } from '../harness/world.ts'

const CLIENT = Uint8Array.of(10, 0, 0, 5)
const SEEN_CLIENT = Uint8Array.of(198, 51, 100, 7)
const SEEN_SERVER = Uint8Array.of(172, 16, 0, 1)

/** Answers a request for a Child SA. */
type Policy = (request: readonly Payload[], number: number) => readonly Payload[]

const selectors = (request: readonly Payload[], kind: 'tsi' | 'tsr'): readonly TrafficSelector[] =>
  find(request, kind)!.selectors
const isTransport = (request: readonly Payload[]): boolean =>
  findNotify(request, NotifyType.UseTransportMode) !== undefined

/** What a client asks for, as text. */
const textOf = (request: readonly Payload[]): string =>
  [
    isTransport(request) ? 'transport' : 'tunnel',
    ...selectors(request, 'tsi').map(formatSelector),
    ...selectors(request, 'tsr').map(formatSelector),
  ].join(' ')

/** A peer that does IKE, and no ESP, with its client. */
class Peer {
  readonly caller: Caller
  readonly asked: (readonly Payload[])[] = []
  private readonly gateway = new Gateway(parseIdentity('id', 'gw.test'))
  private readonly policy: Policy
  private readonly nat: readonly Payload[]

  constructor(policy: Policy, options: Options = {}, nat: readonly Payload[] = []) {
    this.policy = policy
    this.nat = nat
    this.caller = new Caller(CLIENT, { ...ONE_SUITE, pfs: false, ...options })
  }

  /** Opens sockets at once. */
  connect(count: number): void {
    this.converse(Array.from({ length: count }, () => this.caller.connect()).flat())
  }

  /** Carries messages to and fro until nothing is left to say. */
  converse(sent: readonly Uint8Array[]): void {
    for (const datagram of sent) {
      if (isIke(datagram)) this.converse(this.caller.receive(this.answer(datagram)))
    }
  }

  private answer(datagram: Uint8Array): Uint8Array {
    const { exchange, messageId } = readIkeHeader(messageOf(datagram))!
    if (exchange === ExchangeType.IkeSaInit) return this.gateway.init(datagram, this.nat)
    const request = this.gateway.open(datagram)
    if (find(request, 'tsi') === undefined) return this.gateway.seal(messageId, [], exchange)
    this.asked.push(request)
    const answer = this.policy(request, this.asked.length)
    const isFirst = exchange === ExchangeType.IkeAuth
    const { gateway } = this
    const proof = [gateway.idr, gateway.keyed(new TextEncoder().encode(PSK))]
    const nonce = { kind: 'nonce', data: new Uint8Array(32).fill(7) } as const
    return gateway.seal(messageId, isFirst ? [...proof, ...answer] : [...answer, nonce], exchange)
  }

  /** Of each socket: the code of its error, or that it has an SA. */
  get outcomes(): string[] {
    return this.caller.events.flatMap(event => {
      if (event.kind === 'session') return ['up']
      if (event.kind !== 'failed') return []
      return [String((event.error as { code?: unknown }).code)]
    })
  }
}

let nextSpi = 1
/** The Child SA as it was asked for; `change` makes selectors of the answer. */
const accept = (
  request: readonly Payload[],
  change: (selector: TrafficSelector, kind: 'tsi' | 'tsr') => TrafficSelector = one => one,
): Payload[] =>
  request.flatMap((payload): Payload[] => {
    if (payload.kind === 'tsi' || payload.kind === 'tsr') {
      const { kind } = payload
      return [{ kind, selectors: payload.selectors.map(one => change(one, kind)) }]
    }
    if (payload.kind === 'notify' && payload.type === NotifyType.UseTransportMode) return [payload]
    if (payload.kind !== 'sa') return []
    const spi = Uint8Array.of(0xc0, 0xff, nextSpi >>> 8, nextSpi++)
    return [{ kind: 'sa', proposals: [{ ...payload.proposals[0]!, spi }] }]
  })
const refuse = (type: number): Payload[] => [notify(type)]
const isHostWide = (request: readonly Payload[]): boolean =>
  [...selectors(request, 'tsi'), ...selectors(request, 'tsr')].every(
    ({ startPort, endPort }) => startPort === 0 && endPort === 65_535,
  )
const WRONG = new Uint8Array(20)
const CLIENT_BEHIND_NAT = notify(NotifyType.NatDetectionDestinationIp, WRONG)
const SERVER_BEHIND_NAT = notify(NotifyType.NatDetectionSourceIp, WRONG)
const at = (selector: TrafficSelector, address: Uint8Array): TrafficSelector => ({
  ...selector,
  start: address,
  end: address,
})

t.test('transport mode through NATs: the peer names hosts as it sees them (§2.23.1)', t => {
  const asSeen: Policy = request =>
    accept(request, (one, kind) => at(one, kind === 'tsi' ? SEEN_CLIENT : SEEN_SERVER))
  const ofClient: Policy = request =>
    accept(request, (one, kind) => (kind === 'tsi' ? at(one, SEEN_CLIENT) : one))
  const ofServer: Policy = request =>
    accept(request, (one, kind) => (kind === 'tsr' ? at(one, SEEN_SERVER) : one))
  for (const [name, policy, nat, expected] of [
    ['the client is behind one', ofClient, [CLIENT_BEHIND_NAT], 'up'],
    ['the server is', ofServer, [SERVER_BEHIND_NAT], 'up'],
    ['both are', asSeen, [CLIENT_BEHIND_NAT, SERVER_BEHIND_NAT], 'up'],
    ['another address without a NAT', ofClient, [], 'ERR_IKE_CHILD_ANSWER'],
    ['of the other end', ofServer, [CLIENT_BEHIND_NAT], 'ERR_IKE_CHILD_ANSWER'],
  ] as const) {
    const peer = new Peer(policy, { mode: 'transport' }, nat)
    peer.connect(3)
    t.strictSame(peer.outcomes, [expected, expected, expected], name)
    if (expected !== 'up') continue
    const { children } = peer.caller.sessions[0]!.info()
    for (const { localSelectors, remoteSelectors } of children) {
      t.match(localSelectors[0], /^10\.0\.0\.5\[tcp\/\d+\]$/, 'our own view')
      t.match(remoteSelectors[0], '192.0.2.1[tcp/80]')
    }
  }
  t.end()
})

t.test('an address that is not the asked one stays a breach in tunnel mode, and in ranges', t => {
  const wider: Policy = request =>
    accept(request, (one, kind) => (kind === 'tsi' ? { ...one, end: SEEN_CLIENT } : one))
  const tunnel = new Peer(request => accept(request, one => at(one, SEEN_CLIENT)), {}, [
    CLIENT_BEHIND_NAT,
  ])
  const peer = new Peer(wider, { mode: 'transport' }, [CLIENT_BEHIND_NAT])
  peer.connect(1)
  t.strictSame(peer.outcomes, ['ERR_IKE_CHILD_ANSWER'])
  tunnel.connect(1)
  t.strictSame(tunnel.outcomes, ['ERR_IKE_CHILD_ANSWER'])
  t.end()
})

t.test('a peer that takes whole hosts only is asked for them before a socket fails', t => {
  const peer = new Peer(request =>
    isHostWide(request) ? accept(request) : refuse(NotifyType.TsUnacceptable),
  )
  peer.connect(5)
  t.strictSame(peer.outcomes, ['up', 'up', 'up', 'up', 'up'])
  t.equal(peer.caller.sessions[0]!.info().children.length, 1, 'one for all of them')
  t.match(textOf(peer.asked[0]!), /^transport 10\.0\.0\.5\[tcp\/\d+\] 192\.0\.2\.1\[tcp\/80\]$/)
  t.equal(peer.asked.filter(isHostWide).length, 1)
  t.equal(textOf(peer.asked.find(isHostWide)!), 'transport 10.0.0.5 192.0.2.1')
  const before = peer.asked.length
  peer.connect(2)
  t.equal(peer.asked.length, before, 'nothing more is asked for')
  t.equal(peer.outcomes.filter(outcome => outcome === 'up').length, 7)
  t.end()
})

t.test('a peer without transport mode is asked for tunnel mode at last', t => {
  for (const code of [NotifyType.TsUnacceptable, NotifyType.NoProposalChosen]) {
    const policy: Policy = request =>
      isTransport(request) || !isHostWide(request) ? refuse(code) : accept(request)
    const peer = new Peer(policy)
    peer.connect(2)
    t.strictSame(peer.outcomes, ['up', 'up'])
    t.ok(peer.asked.map(textOf).includes('tunnel 10.0.0.5 192.0.2.1'))
    t.equal(peer.caller.sessions[0]!.info().children[0]!.mode, 'tunnel')
    const strict = new Peer(policy, { mode: 'transport' })
    strict.connect(1)
    t.equal(strict.outcomes.length, 1, 'who wants transport mode alone gets no tunnel')
    t.not(strict.outcomes[0], 'up')
    t.ok(strict.asked.every(isTransport))
  }
  t.end()
})

t.test('a peer that refuses everything is asked a few times, and each socket gets its error', t => {
  const peer = new Peer(() => refuse(NotifyType.TsUnacceptable))
  peer.connect(3)
  t.strictSame(peer.outcomes, ['TS_UNACCEPTABLE', 'TS_UNACCEPTABLE', 'TS_UNACCEPTABLE'])
  t.ok(peer.asked.length <= 3 * 3, `${peer.asked.length}`)
  const before = peer.asked.length
  peer.connect(1)
  t.equal(peer.asked.length - before, 3, 'later ones try from the beginning')
  const none = new Peer(() => refuse(NotifyType.NoAdditionalSas))
  none.connect(1)
  t.strictSame(none.outcomes, ['NO_ADDITIONAL_SAS'])
  t.equal(none.asked.length, 1)
  t.end()
})

t.test('selectors that options give are asked for and nothing else', t => {
  for (const options of [
    { localTs: '10.0.0.5' },
    { remoteTs: '192.0.2.1[tcp/80]', mode: 'transport' },
    { mode: 'tunnel' },
  ]) {
    const peer = new Peer(() => refuse(NotifyType.TsUnacceptable), options)
    peer.connect(1)
    t.strictSame(peer.outcomes, ['TS_UNACCEPTABLE'])
    t.equal(peer.asked.length, 1)
  }
  t.end()
})

t.test('each of many sockets that has a Child SA of its own gets a port of its own', t => {
  const peer = new Peer(request => accept(request))
  peer.connect(300)
  for (let i = 0; i < 300; i++) peer.connect(1)
  t.equal(peer.outcomes.filter(outcome => outcome === 'up').length, 600)
  const ports = peer.asked.map(request => selectors(request, 'tsi')[0]!.startPort)
  t.equal(new Set(ports).size, 600)
  t.ok(ports.every(port => port >= 32_768))
  t.end()
})
