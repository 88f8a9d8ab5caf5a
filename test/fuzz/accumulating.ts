/**
 * One server that keeps its clients: insiders hold the keys of their SAs, stay, and send whatever is valid under them or
 * nearly so, hundreds of messages on end. What the server keeps for them must stay within its bounds, no message may
 * cost it much, and once the clients are silent all of it must go.
 */
import { concat, equal, getU16, getU32, putU32 } from '../../lib/base/bytes.ts'
import type { TraceEvent } from '../../lib/base/trace.ts'
import { createAead } from '../../lib/crypto/suite.ts'
import { parseProposals, withSpi } from '../../lib/policy/proposal.ts'
import { parseSelectors } from '../../lib/policy/traffic-selectors.ts'
import { readIkeHeader, type HeaderFacts } from '../../lib/wire/ike-header.ts'
import { notify, notifyEsp } from '../../lib/wire/notify.ts'
import { isChainError, readChain, writeChain } from '../../lib/wire/payload-chain.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { ExchangeType, IpProtocol, NotifyType } from '../../lib/wire/registry.ts'
import {
  Caller,
  datagramOf,
  espText,
  isIke,
  KeyRing,
  messageOf,
  pathFrom,
  publicValue,
  sourceAddress,
  Target,
  tcpSegment,
  type Answer,
} from '../harness/attacker.ts'
import { Random } from '../harness/random.ts'
import type { Options } from '../harness/world.ts'
import {
  makePayload,
  makeRequest,
  mutateChain,
  mutateOctets,
  pick,
  randomOctets,
} from './mutate.ts'
import { reachOf, type Reach } from './reach.ts'

export interface Account {
  readonly messages: number
  /** What the server said of itself: SAs made, rekeyed and so on. */
  readonly seen: ReadonlySet<string>
  readonly most: Reach & {
    readonly sas: number
    readonly children: number
    readonly connections: number
  }
  /** Milliseconds of processor time for each message, in the order of the messages. */
  readonly costs: readonly number[]
  readonly kinds: readonly string[]
}

const STEPS = 600
/** Of three clients, with what is being replaced. */
const MOST_IKE_SAS = 40
/** Of one client. */
const MOST_CHILDREN = 64
const MOST_OBJECTS = 60_000
const MOST_OCTETS = 3 * (64 << 20)

const SERVERS: readonly Options[] = [
  {},
  { mode: 'tunnel' },
  { childLifetime: 15_000, ikeLifetime: 40_000 },
  { localTs: ['192.0.2.0/24', '2001:db8::/64'], remoteTs: ['10.0.0.0/8', '2001:db8::/64'] },
  { maxConnectionsPerSession: 20, maxBufferPerSession: 1 << 20 },
  { livenessInterval: 2000, replayWindow: 32 },
]

const must = (truth: boolean, what: string): void => {
  if (!truth) throw new Error(what)
}

interface Child {
  /** The server's. */
  readonly spi: number
  readonly isExtended: boolean
  readonly isTunnel: boolean
  sequence: number
}

/** A connection that was opened by hand: what comes next, and what the server's octets were acknowledged to. */
interface Opened {
  readonly child: Child
  readonly port: number
  seq: number
  ack: number
}

type IkeKeys = KeyRing['ike'][number]

/** One client that has authenticated, and then lives by its keys alone. */
class Stayer {
  readonly children: Child[] = []
  readonly opened: Opened[] = []
  readonly path
  private readonly random: Random
  private readonly ring: KeyRing
  own: IkeKeys
  messageId = 2
  private nextPort = 1024
  readonly session
  isGone = false
  /** False once the server has rekeyed the IKE SA. */
  isOriginal = true

  constructor(random: Random, ring: KeyRing, target: Target, index: number) {
    const caller = new Caller(sourceAddress(index), {}, random.next(), target.now)
    caller.talk(target)
    must(caller.connection !== undefined, 'an honest client is not served')
    this.random = random
    this.ring = ring
    this.own = ring.ike.at(-1)!
    this.path = pathFrom(caller.path.localAddress, caller.path.localPort)
    this.session = target.sessions.at(-1)!
    for (const { spiIn, mode } of this.session.info().children)
      this.children.push({
        spi: spiIn,
        isExtended: true,
        isTunnel: mode === 'tunnel',
        sequence: 100_000,
      })
  }

  get spis(): number[] {
    return this.children.map(({ spi }) => spi)
  }

  private facts(exchange: number, response = false, messageId = this.messageId): HeaderFacts {
    const { spiI, spiR } = this.own
    return { spiI, spiR, exchange, originalInitiator: this.isOriginal, response, messageId }
  }

  request(payloads: readonly Payload[], exchange: number): Uint8Array[] {
    const { random } = this
    let chain = writeChain(payloads)
    if (random.chance(0.02)) chain = mutateChain(random, chain, this.spis)
    const facts = this.facts(exchange)
    if (chain.bytes.length < 40 || random.chance(0.9))
      return [datagramOf(this.ring.seal(facts, chain))]
    // RFC 7383: in fragments, of which one may be missing, doubled or of another total.
    const total = random.integer(2, 4)
    const size = Math.ceil(chain.bytes.length / total)
    const pieces = Array.from({ length: total }, (_, i) =>
      datagramOf(
        this.ring.seal(
          facts,
          { first: i === 0 ? chain.first : 0, bytes: chain.bytes.slice(i * size, (i + 1) * size) },
          { number: i + 1, total: random.chance(0.9) ? total : random.integer(1, 40) },
        ),
      ),
    )
    if (random.chance(0.2)) pieces.splice(random.integer(0, total - 1), 1)
    if (random.chance(0.2)) pieces.reverse()
    return pieces
  }

  /** Those of one host or a network, as honest clients ask for; now and then many, of all kinds. */
  selectors(name: 'tsi' | 'tsr'): Payload {
    const { random } = this
    const host = `10.${random.integer(0, 9)}.${random.integer(0, 255)}.${random.integer(0, 255)}`
    const port = random.integer(1, 65535)
    const honest =
      name === 'tsr'
        ? ['192.0.2.1', '192.0.2.1[tcp]', '192.0.2.1[tcp/80]']
        : [host, `${host}[tcp]`, '10.0.0.0/8', `${host}[tcp/${port}]`]
    const kinds = [
      ...honest,
      '0.0.0.0/0',
      `${host}/${random.integer(1, 32)}`,
      '::/0',
      '127.0.0.1',
      `2001:db8::${random.integer(1, 9)}`,
    ]
    const texts = random.chance(0.7)
      ? [pick(random, honest)]
      : Array.from({ length: random.integer(1, 20) }, () => pick(random, kinds))
    return { kind: name, selectors: parseSelectors('fuzz', texts) }
  }

  childRequest(rekeyed?: number): Payload[] {
    const { random } = this
    const spi = new Uint8Array(4)
    putU32(spi, 0, (random.next() | 0x1000) >>> 0)
    const isTransport = random.chance(0.3)
    const esp = parseProposals(
      'fuzz',
      pick(random, [['aes256gcm16-noesn'], ['aes256gcm16-esn']]),
      'esp',
    )
    return [
      ...(isTransport ? [notify(NotifyType.UseTransportMode)] : []),
      ...(rekeyed === undefined ? [] : [notifyEsp(NotifyType.RekeySa, rekeyed)]),
      { kind: 'sa', proposals: withSpi(esp, spi) },
      { kind: 'nonce', data: randomOctets(random, 32) },
      ...(random.chance(0.05) ? [{ kind: 'ke', group: 31, data: publicValue(31) } as const] : []),
      this.selectors('tsi'),
      this.selectors('tsr'),
    ]
  }

  ikeRequest(): Payload[] {
    const ike = parseProposals('fuzz', ['aes256gcm16-prfsha256-x25519'], 'ike')
    return [
      { kind: 'sa', proposals: withSpi(ike, randomOctets(this.random, 8)) },
      { kind: 'nonce', data: randomOctets(this.random, 32) },
      { kind: 'ke', group: 31, data: publicValue(31) },
    ]
  }

  esp(child: Child, payload: Uint8Array, protocol: number): Uint8Array {
    child.sequence += this.random.chance(0.05) ? this.random.integer(-40, 400) : 1
    const text = espText(payload, protocol)
    return this.ring.sealEsp(child.spi, Math.max(1, child.sequence), text, child.isExtended)
  }

  segment(child: Child, facts: Parameters<typeof tcpSegment>[0]): Uint8Array {
    const tcp = tcpSegment(facts)
    if (!child.isTunnel) return this.esp(child, tcp, IpProtocol.Tcp)
    const length = 20 + tcp.length
    const source = this.path.remoteAddress
    const fragment = this.random.chance(0.05) ? this.random.next() & 0x3f : 0
    const header = Uint8Array.of(0x45, 0, length >>> 8, length, 0, 0, fragment, 0, 64, 6, 0, 0)
    return this.esp(child, concat(header, source, this.path.localAddress, tcp), IpProtocol.Ipv4)
  }

  open(child: Child): Uint8Array {
    const port = (this.nextPort = (this.nextPort % 65_000) + 1)
    this.opened.push({ child, port, seq: 2, ack: 0 })
    if (this.opened.length > 500) this.opened.shift()
    return this.segment(child, { source: port, destination: 80, flags: 2, seq: 1 })
  }

  /** Something on a connection: data in order, beyond a hole, overlapping, a FIN, a RST, or nonsense. */
  stir(one: Opened): Uint8Array {
    const { random } = this
    const data = randomOctets(random, random.integer(0, 1300))
    const own = {
      source: one.port,
      destination: 80,
      ack: one.ack,
      window: random.integer(0, 65535),
    }
    const kind = random.integer(0, 9)
    if (kind <= 4) {
      const seq = one.seq
      one.seq = (one.seq + data.length) >>> 0
      return this.segment(one.child, { ...own, seq, data })
    }
    if (kind <= 7) {
      const seq = (one.seq + random.integer(-3000, 60_000)) >>> 0
      return this.segment(one.child, { ...own, seq, data })
    }
    const flags = kind === 8 ? pick(random, [0x11, 0x14, 4]) : random.integer(0, 63)
    return this.segment(one.child, { ...own, seq: one.seq, flags })
  }

  /** What the server said: SAs that came of it are used, its own requests are answered. */
  hear({ bytes }: Answer): Uint8Array[] {
    if (!isIke(bytes)) {
      this.hearEsp(bytes)
      return []
    }
    const message = messageOf(bytes)
    const header = readIkeHeader(message)
    const chain = this.ring.open(message)
    const read = chain && readChain(chain.bytes, 0, chain.bytes.length, chain.first)
    if (header === undefined || read === undefined || isChainError(read)) return []
    const find = <K extends Payload['kind']>(kind: K) =>
      read.find((payload): payload is Extract<Payload, { kind: K }> => payload.kind === kind)
    const proposal = find('sa')?.proposals[0]
    if (header.response) {
      if (header.messageId === this.messageId) this.messageId++
      if (proposal?.spi.length === 4) this.adopt(proposal, read)
      else if (proposal?.spi.length === 8) this.move()
      return []
    }
    return this.random.chance(0.02) ? [] : [this.answer(header, proposal?.spi.length)]
  }

  private adopt(proposal: Parameters<typeof withSpi>[0][number], read: readonly Payload[]): void {
    const spi = getU32(proposal.spi, 0)
    const isTunnel = !read.some(
      payload => payload.kind === 'notify' && payload.type === NotifyType.UseTransportMode,
    )
    const isExtended = proposal.transforms.some(({ type, id }) => type === 5 && id === 1)
    if (this.ring.esp.some(entry => entry.spi === spi))
      this.children.push({ spi, isExtended, isTunnel, sequence: 0 })
    if (this.children.length > 200) this.children.shift()
  }

  /** To the IKE SA that replaces the one before. */
  private move(): void {
    this.own = this.ring.ike.at(-1)!
    this.messageId = 0
    this.isOriginal = true
  }

  private answer(header: HeaderFacts, spiLength: number | undefined): Uint8Array {
    const { random } = this
    const honest: Payload[] =
      header.exchange === ExchangeType.CreateChildSa && spiLength !== undefined
        ? [notify(pick(random, [NotifyType.TemporaryFailure, NotifyType.NoAdditionalSas]))]
        : []
    const payloads = random.chance(0.95)
      ? honest
      : Array.from({ length: random.integer(0, 4) }, () => makePayload(random, this.spis))
    const { spiI, spiR, exchange, messageId, originalInitiator } = header
    const facts = {
      spiI,
      spiR,
      exchange,
      messageId,
      response: true,
      originalInitiator: !originalInitiator,
    }
    return datagramOf(this.ring.sealPayloads(facts, payloads))
  }

  /** Connections are known by our port; what the server sends on them is acknowledged next time. */
  private hearEsp(packet: Uint8Array): void {
    const entry = this.ring.esp.findLast(({ spi }) => spi === getU32(packet, 0))
    if (entry === undefined) return
    const aead = createAead('node', entry, entry.encryptionKey, entry.integrityKey)
    const from = 8 + aead.ivLength
    for (const aad of [
      packet.slice(0, 8),
      concat(packet.slice(0, 4), new Uint8Array(4), packet.slice(4, 8)),
    ]) {
      const opened = aead.open(packet, from, packet.length - aead.icvLength, aad)
      if (opened === undefined) continue
      const at = opened.at(-1) === IpProtocol.Tcp ? 0 : 20
      const one = this.opened.findLast(({ port }) => port === getU16(opened, at + 2))
      if (one !== undefined && this.random.chance(0.9))
        one.ack = (getU32(opened, at + 4) + ((opened[at + 13]! & 3) === 0 ? 0 : 1)) >>> 0
      return
    }
  }
}

export const accumulate = (seed: number, trace?: (event: TraceEvent) => void): Account => {
  const random = new Random(seed)
  const seen = new Set<string>()
  const ring = new KeyRing(event => {
    seen.add(event.name)
    trace?.(event)
  })
  const target = new Target(pick(random, SERVERS), seed, ring)
  const start = reachOf(target.core).objects
  let count = 0
  const renew = (): Stayer => new Stayer(random, ring, target, ++count)
  const stayers = [renew(), renew(), renew()]
  const costs: number[] = []
  const kinds: string[] = []
  const most = { sas: 0, children: 0, connections: 0, objects: 0, octets: 0 }
  let accepted = 0

  type Said = { readonly stayer: Stayer; readonly bytes: Uint8Array }
  const send = (stayer: Stayer, kind: string, datagrams: readonly Uint8Array[]): void => {
    deliver(
      kind,
      datagrams.map(bytes => ({ stayer, bytes })),
    )
  }
  const deliver = (kind: string, said: readonly Said[]): void => {
    const queue = [...said]
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const before = process.cpuUsage()
      const answers = target.send(next.bytes, next.stayer.path)
      const { user, system } = process.cpuUsage(before)
      costs.push((user + system) / 1000)
      kinds.push(kind)
      must(answers.length <= 120, `${answers.length} datagrams after one (${kind})`)
      const more = hear(answers)
      if (queue.length < 20) queue.push(...more)
      serve()
    }
  }
  const hear = (answers: readonly Answer[]): Said[] =>
    answers.flatMap(answer => {
      const { remoteAddress } = answer.path
      const stayer = stayers.find(({ path }) => equal(path.remoteAddress, remoteAddress))
      return stayer === undefined ? [] : stayer.hear(answer).map(bytes => ({ stayer, bytes }))
    })
  /** The program at the server: it reads some connections, writes to some, and forgets others. */
  const serve = (): void => {
    for (const event of target.events.splice(0)) {
      if (event.kind === 'sessionDown')
        for (const stayer of stayers) if (stayer.session === event.session) stayer.isGone = true
      if (event.kind === 'question')
        target.core.answer(event.id, { authorize: random.chance(0.9) }, target.now)
      if (event.kind === 'accepted') {
        accepted++
        if (random.chance(0.3)) event.connection.send(randomOctets(random, 5000))
        if (random.chance(0.05)) event.connection.shutdown()
      }
      if (event.kind === 'readable' && random.chance(0.5))
        event.connection.receive(random.integer(1, 4000))
      if (event.kind === 'ended' && random.chance(0.5)) event.connection.shutdown()
    }
  }
  const measure = (): void => {
    const { objects, octets } = reachOf(target.core)
    most.objects = Math.max(most.objects, objects)
    most.octets = Math.max(most.octets, octets)
    const children = stayers.map(({ session }) => session.info().children.length)
    most.children = Math.max(most.children, ...children)
    most.sas = Math.max(most.sas, target.core.saCount)
    most.connections = Math.max(most.connections, target.core.connectionCount)
    must(target.core.saCount <= MOST_IKE_SAS, `${target.core.saCount} IKE SAs`)
    must(most.children <= MOST_CHILDREN, `${most.children} Child SAs of one client`)
    must(objects <= MOST_OBJECTS, `${objects} objects are kept`)
    must(octets <= MOST_OCTETS, `${octets} octets are kept`)
  }

  for (let step = 0; step < STEPS; step++) {
    const at = random.integer(0, stayers.length - 1)
    // Whoever was deleted comes again.
    if (stayers[at]!.isGone) stayers[at] = renew()
    const stayer = stayers[at]!
    const child = stayer.children.length > 0 ? pick(random, stayer.children.slice(-20)) : undefined
    const kind = random.integer(0, 19)
    if (kind <= 5) send(stayer, 'new Child SA', stayer.request(stayer.childRequest(), 36))
    else if (kind === 6 && child !== undefined)
      send(stayer, 'rekey', stayer.request(stayer.childRequest(child.spi), 36))
    else if (kind === 7 && random.chance(0.3))
      send(stayer, 'IKE rekey', stayer.request(stayer.ikeRequest(), 36))
    else if (kind === 8)
      send(
        stayer,
        'template',
        stayer.request(makeRequest(random, stayer.spis), pick(random, [36, 37])),
      )
    else if (kind === 9) {
      const all = Array.from({ length: random.integer(0, 8) }, () =>
        makePayload(random, stayer.spis),
      )
      // Else most clients would not stay for long.
      const made = all.filter(
        payload => payload.kind !== 'delete' || payload.protocol !== 1 || random.chance(0.02),
      )
      send(stayer, 'anything', stayer.request(made, pick(random, [35, 36, 37, 37, 37])))
    } else if (kind <= 12 && child !== undefined) send(stayer, 'SYN', [stayer.open(child)])
    else if (kind <= 17 && stayer.opened.length > 0) {
      const bytes = stayer.stir(pick(random, stayer.opened.slice(-30)))
      send(stayer, 'segment', [random.chance(0.02) ? mutateOctets(random, bytes) : bytes])
    } else if (kind === 18) {
      deliver('answer', hear(target.wait(random.integer(1, 3000))))
    } else if (random.chance(0.1)) {
      const { session } = stayer
      if (random.chance(0.5)) session.rekeyChild(target.now)
      else session.rekeyIke(target.now)
      target.core.touchSession(session, target.now)
      deliver('answer', hear(target.drain()))
    }
    if (step % 50 === 49) measure()
  }
  must(accepted > 0, 'no connection was ever made')
  // A client that is honest is served beside them; then all are silent, and nothing of them stays.
  void renew()
  for (let i = 0; i < 40; i++) {
    target.wait(60_000)
    target.events.length = 0
  }
  target.sessions.length = 0
  const left = reachOf(target.core).objects
  must(target.core.saCount === 0, `${target.core.saCount} SAs are left in the end`)
  must(
    left < start + 2000,
    `${left} objects are left of ${most.objects}, ${start} at the beginning`,
  )
  return { messages: costs.length, seen, most, costs, kinds }
}

export interface Slowest {
  readonly millis: number
  readonly kind: string
  readonly index: number
}

/**
 * What costs most each time that the conversation is repeated: a collection or a busy machine hits another message
 * the next time, what an insider can provoke comes at the same place.
 */
export const slowestOf = (accounts: readonly Account[]): Slowest => {
  const [first, ...others] = accounts
  const costs = first!.costs.map((cost, i) => Math.min(cost, ...others.map(each => each.costs[i]!)))
  const index = costs.reduce((best, cost, i) => (cost > costs[best]! ? i : best), 0)
  return { millis: costs[index]!, kind: first!.kinds[index]!, index }
}
