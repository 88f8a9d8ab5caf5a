/**
 * Two real IKE SAs of one process and a wire between them that delivers nothing by itself: a test takes
 * single messages, delays them, drops them or gives them in another order, and chooses nonces. Time
 * stands still unless the test lets it pass. The data path is a model: which SPIs each end receives on
 * and which it would send on, checked after every step.
 */
import type { Test } from 'tap'
import { toHex } from '../../lib/base/bytes.ts'
import type { Environment } from '../../lib/base/environment.ts'
import { samePath, type Path } from '../../lib/base/path.ts'
import { SILENT } from '../../lib/base/trace.ts'
import { parseCredentials } from '../../lib/identity/credentials.ts'
import type { ChildSa } from '../../lib/ike/child-sa.ts'
import { CookieJar } from '../../lib/ike/cookie.ts'
import type {
  ChildKeys,
  ChildRequest,
  IkeOutput,
  IkeSaConfig,
  PeerPlace,
} from '../../lib/ike/exchange.ts'
import { HalfOpen, type HalfOpenOutput } from '../../lib/ike/half-open.ts'
import { IkeSa, type IkeSaOutput } from '../../lib/ike/ike-sa.ts'
import { RequestRate } from '../../lib/ike/request-rate.ts'
import type { MessageWindow } from '../../lib/ike/message-window.ts'
import type { Protection } from '../../lib/ike/protection.ts'
import { parsePolicy } from '../../lib/policy/options.ts'
import { hostSelector } from '../../lib/policy/traffic-selectors.ts'
import { findEncrypted } from '../../lib/wire/encrypted.ts'
import {
  isChainError,
  readChain,
  writeChain,
  type WrittenChain,
} from '../../lib/wire/payload-chain.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { readIkeHeader, type IkeHeader } from '../../lib/wire/ike-header.ts'
import { ExchangeType, IpProtocol } from '../../lib/wire/registry.ts'
import { keysOf, Random, seededEnvironment } from './random.ts'

/** Everyone is welcome. */
const RECEPTION = {
  cookies: new CookieJar(seededEnvironment(1)),
  pay: (): boolean => true,
}

export type Options = Record<string, unknown>
export type OutputOf<K extends IkeOutput['kind']> = Extract<IkeSaOutput, { kind: K }>

const ADDRESSES = {
  a: Uint8Array.of(192, 0, 2, 1),
  b: Uint8Array.of(192, 0, 2, 2),
}
const NONCE_LENGTH = 32

/** A Child SA's data path at one end. */
interface Carrier {
  readonly child: ChildSa
  readonly keys: { readonly inbound: string; readonly outbound: string }
  outbound: boolean
  /** It was one to send on from its making. */
  readonly atOnce: boolean
  /** When the replaced inbound half stops receiving. */
  removeAt: number
}

export interface Letter {
  readonly to: End
  readonly bytes: Uint8Array
  readonly header: IkeHeader
}

/** The header of a forged message; `chain` in place of payloads that no codec would write. */
export interface Forged {
  readonly exchange: number
  readonly messageId: number
  readonly response?: boolean
  readonly chain?: WrittenChain | undefined
}

/** What no exchange may see of an IKE SA, and a forger must. */
const insideOf = (sa: IkeSa): { protection: Protection; window: MessageWindow } =>
  sa as unknown as { protection: Protection; window: MessageWindow }

/** Where the other end is, as the newest authentic message says. */
const placeAt = (path: Path): PeerPlace => {
  const place = {
    current: path,
    moves: 0,
    float: () => undefined,
    noteNewest: (newest: Path) => {
      if (samePath(newest, place.current)) return
      place.current = newest
      place.moves++
    },
    noteAnswer: () => undefined,
    noteRevival: () => undefined,
    needsAnswer: false,
    mustUpdate: false,
    localBehindNat: false,
    follow: (newest: Path) => place.noteNewest(newest),
    noteUpdated: () => undefined,
    noteAddresses: () => undefined,
    isTried: false,
    noteNat: () => undefined,
  }
  return place
}

export class End {
  readonly name: 'a' | 'b'
  /** By the SPI this end chose, as long as they answer anything. */
  readonly sas = new Map<string, IkeSa>()
  /** The SA that it is making. */
  opening: HalfOpen | undefined
  /** Newest first, as a sender looks. */
  carriers: Carrier[] = []
  readonly outputs: IkeSaOutput[] = []
  readonly spis = new Set<number>()
  /** First octet of the nonces it draws from now on; undefined: any. */
  nonce: number | undefined
  readonly config: IkeSaConfig
  readonly path: Path
  private readonly options: Options
  private nextSpi: number

  constructor(name: 'a' | 'b', seed: number, options: Options) {
    this.name = name
    this.nextSpi = name === 'a' ? 0xa0000001 : 0xb0000001
    const random = new Random(seed)
    const randomFill = (bytes: Uint8Array): void => {
      random.fill(bytes)
      if (bytes.length === NONCE_LENGTH && this.nonce !== undefined) bytes[0] = this.nonce
    }
    const environment: Environment = {
      wallClock: () => 1_800_000_000_000,
      randomFill,
      generateKey: keysOf(randomFill),
    }
    const all = (this.options = {
      psk: 'a shared secret of the two ends',
      livenessInterval: 0,
      ...options,
    })
    const other = name === 'a' ? 'b' : 'a'
    this.path = {
      socket: 0,
      localAddress: ADDRESSES[name],
      localPort: 4500,
      remoteAddress: ADDRESSES[other],
      remotePort: 4500,
    }
    this.config = {
      environment,
      tracer: SILENT,
      policy: parsePolicy(all),
      credentials: parseCredentials(all),
      allocateSpi: () => {
        this.spis.add(this.nextSpi)
        return this.nextSpi++
      },
      releaseSpi: spi => void this.spis.delete(spi),
      childCount: () => this.children.length,
      requestRate: new RequestRate(),
      measures: { retransmissions: 0, roundTrip: undefined },
      keyTurn: { at: 0, of: 1, isRefused: false },
      isFirstContact: () => true,
      drop: () => undefined,
      holdIkeSpi: () => undefined,
      freeIkeSpi: () => undefined,
      ownAddresses: () => [],
      crashToken: () => undefined,
      place: placeAt(this.path),
      pool: undefined,
      addressesOf: () => [],
      mayEnter: () => true,
      pay: () => true,
      heldAddresses: () => [],
      predecessors: () => [],
    }
  }

  /** A change of policy under SAs that are up. */
  reconfigure(options: Options): void {
    const policy = parsePolicy({ ...this.options, ...options })
    Object.assign(this.config, { policy })
  }

  /** SAs that have not ended. */
  get open(): IkeSa[] {
    const all = [...this.sas.values(), ...(this.opening?.candidates ?? [])]
    return all.filter(sa => sa.state !== 'closed')
  }

  /** The SA of that SPI, also one whose peer has not proved itself. */
  find(spi: string): IkeSa | undefined {
    return this.sas.get(spi) ?? this.opening?.candidates.find(({ ownSpi }) => ownSpi === spi)
  }

  /** The SA that carries new exchanges. */
  get sa(): IkeSa {
    const established = this.open.filter(sa => sa.state === 'established')
    const sa = established.at(-1) ?? this.open.at(-1)
    if (sa === undefined) throw new Error(`${this.name} has no IKE SA`)
    return sa
  }

  /** What has timers, and something to send or tell. */
  get everySa(): (IkeSa | HalfOpen)[] {
    return this.opening === undefined
      ? [...this.sas.values()]
      : [...this.sas.values(), this.opening]
  }

  get children(): ChildSa[] {
    return this.open.flatMap(sa => [...sa.children.values()])
  }

  /** The oldest Child SA it still knows. */
  get child(): ChildSa {
    const child = this.children[0]
    if (child === undefined) throw new Error(`${this.name} has no Child SA`)
    return child
  }

  /** The Child SA it would send on now. */
  get route(): Carrier | undefined {
    return this.carriers.find(carrier => carrier.outbound)
  }

  all<K extends IkeOutput['kind']>(kind: K): OutputOf<K>[] {
    return this.outputs.filter((output): output is OutputOf<K> => output.kind === kind)
  }

  count(kind: IkeOutput['kind']): number {
    return this.all(kind).length
  }
}

export class IkePair {
  now = 1_000
  readonly a: End
  readonly b: End
  /** Messages under way, oldest first. */
  readonly wire: Letter[] = []
  /** Steps after which an end would have sent to an SPI that the other does not receive on. */
  readonly lost: string[] = []
  /** Messages for IKE SAs that the receiver does not have. */
  readonly stray: Letter[] = []
  private nextTicket = 1

  constructor(optionsOfA: Options = {}, optionsOfB: Options = {}, seed = 1) {
    this.a = new End('a', seed, optionsOfA)
    this.b = new End('b', seed + 1, optionsOfB)
  }

  /** A pair that is up: one IKE SA, and one Child SA unless `child` is false. */
  static established(optionsOfA: Options = {}, optionsOfB: Options = {}, child = true): IkePair {
    const pair = new IkePair(optionsOfA, optionsOfB)
    pair.initiate(child)
    pair.settle()
    pair.a.outputs.length = 0
    pair.b.outputs.length = 0
    return pair
  }

  initiate(child = true): void {
    const { a } = this
    a.opening = new HalfOpen(a.config, a.path, child ? () => this.request() : undefined, this.now)
    this.collect()
  }

  /** The Child SA that `from` asks for: all TCP between the two hosts, or one port pair of it. */
  request(from = this.a, port?: number, mode: ChildRequest['mode'] = 'auto'): ChildRequest {
    const { localAddress, remoteAddress } = from.path
    return {
      mode,
      localSelectors: [hostSelector(localAddress, IpProtocol.Tcp)],
      remoteSelectors: [hostSelector(remoteAddress, IpProtocol.Tcp, port)],
    }
  }

  other(end: End): End {
    return end === this.a ? this.b : this.a
  }

  // --- commands ---

  /** Runs a command at an end and puts on the wire what comes of it. */
  run(command: () => void): void {
    command()
    this.collect()
  }

  rekeyChild(end: End, child: ChildSa = end.child): void {
    this.run(() => end.sa.rekeyChild(child.inboundSpi, this.now))
  }

  rekeyIke(end: End): void {
    this.run(() => end.sa.rekeyIke(this.now))
  }

  createChild(end: End, port?: number, mode?: ChildRequest['mode']): void {
    const ticket = this.nextTicket++
    this.run(() => end.sa.createChild(this.request(end, port, mode), ticket, this.now))
  }

  /** The end of its lifetime has come: the way an end deletes a Child SA. */
  deleteChild(end: End, child: ChildSa = end.child): void {
    child.hardAt = this.now
    this.run(() => end.sa.handleTimeout(this.now))
  }

  /** An end loses a Child SA without a word, as after a fault of its own. */
  loseChild(end: End, child: ChildSa = end.child): void {
    this.run(() => end.sa.remove(child, this.now))
  }

  deleteIke(end: End): void {
    this.run(() => end.sa.close(this.now))
  }

  // --- the wire ---

  /** Takes the oldest message for `to` off the wire: to give it later, or never. */
  take(to: End): Letter {
    const at = this.wire.findIndex(letter => letter.to === to)
    if (at < 0) throw new Error(`nothing is under way to ${to.name}`)
    return this.wire.splice(at, 1)[0]!
  }

  give(letter: Letter): void {
    const { to, header, bytes } = letter
    const spi = toHex(header.originalInitiator ? header.spiR : header.spiI)
    const sa = to.opening?.ownSpi === spi ? to.opening : to.sas.get(spi)
    if (sa !== undefined) sa.handleMessage(bytes, to.path, this.now)
    else if (header.exchange === ExchangeType.IkeSaInit && !header.response) {
      const answer = IkeSa.respond(to.config, bytes, to.path, RECEPTION, this.now)
      if ('sa' in answer) to.sas.set(answer.sa.ownSpi, answer.sa)
      else if ('reply' in answer) this.post(this.other(to), answer.reply)
    } else this.stray.push(letter)
    this.collect()
  }

  /** Delivers the oldest message for `to`. */
  pass(to: End): Letter {
    const letter = this.take(to)
    this.give(letter)
    return letter
  }

  /** Delivers everything, also what follows from it, until nothing is under way. */
  settle(): void {
    for (let i = 0; this.wire.length > 0; i++) {
      if (i === 1000) throw new Error('the two ends talk for ever')
      this.give(this.wire.shift()!)
    }
  }

  /** What stands in a message, as its receiver reads it. */
  read({ to, header, bytes }: Letter): Payload[] {
    const sa = to.find(toHex(header.originalInitiator ? header.spiR : header.spiI))
    const layout = findEncrypted(bytes, header)
    if (sa === undefined || layout === undefined || isChainError(layout))
      throw new Error('the receiver cannot read it')
    const plaintext = insideOf(sa).protection.open(bytes, layout)
    const chain = readChain(plaintext!, 0, plaintext!.length, layout.firstInner)
    if (isChainError(chain)) throw new Error(chain.error)
    return chain
  }

  /** A message that `from` never meant to send, sealed with its keys. */
  forge(from: End, facts: Forged, payloads: readonly Payload[], sa = from.sa): Letter {
    const to = this.other(from)
    const response = facts.response ?? false
    const chain = facts.chain ?? writeChain(payloads)
    const { spiI, spiR, originalInitiator } = sa
    const { exchange, messageId } = facts
    const header = { spiI, spiR, exchange, originalInitiator, response, messageId }
    const [bytes] = insideOf(sa).protection.seal(header, chain, Infinity)
    return { to, bytes: bytes!, header: readIkeHeader(bytes!)! }
  }

  /** In the other end's place: the next request of `from` gets an answer that its code would not give. */
  answer(from: End, payloads: readonly Payload[], chain?: WrittenChain): void {
    const to = this.other(from)
    const { header } = this.take(to)
    const { exchange, messageId } = header
    const sa = to.find(toHex(header.originalInitiator ? header.spiR : header.spiI))!
    insideOf(sa).window.accept()
    this.give(this.forge(to, { exchange, messageId, response: true, chain }, payloads, sa))
  }

  /** Sends a forged request with the ID that the other end awaits, and reads the answer, if any comes. */
  ask(
    from: End,
    exchange: number,
    payloads: readonly Payload[],
    chain?: WrittenChain,
  ): Payload[] | undefined {
    const to = this.other(from)
    const { peerId } = insideOf(to.sa).window
    // The sender counts it as one of its own.
    ;(insideOf(from.sa).window as unknown as { nextOwnId: number }).nextOwnId++
    this.give(this.forge(from, { exchange, messageId: peerId, chain }, payloads))
    const at = this.wire.findIndex(({ to, header }) => to === from && header.response)
    return at < 0 ? undefined : this.read(this.wire.splice(at, 1)[0]!)
  }

  /** Lets time pass, with every message delivered at once and every timer at its time. */
  advance(millis: number): void {
    const end = this.now + millis
    this.settle()
    for (let i = 0; ; i++) {
      if (i === 10_000) throw new Error('the timers run for ever')
      const next = this.nextTimeout()
      if (next > end) break
      this.now = Math.max(this.now, next)
      this.expireTimers()
      this.settle()
    }
    this.now = end
  }

  /** The time of the next timer comes, and nothing is delivered. */
  tick(): void {
    this.now = Math.max(this.now, this.nextTimeout())
    this.expireTimers()
  }

  private nextTimeout(): number {
    let next = Infinity
    for (const end of [this.a, this.b]) {
      for (const sa of end.everySa) next = Math.min(next, sa.nextTimeout())
      for (const { removeAt } of end.carriers) next = Math.min(next, removeAt)
    }
    return next
  }

  private expireTimers(): void {
    for (const end of [this.a, this.b]) {
      for (const sa of end.everySa) {
        if (sa.nextTimeout() <= this.now) sa.handleTimeout(this.now)
      }
      for (const carrier of end.carriers.filter(({ removeAt }) => removeAt <= this.now))
        this.removeCarrier(end, carrier)
    }
    this.collect()
  }

  private post(to: End, bytes: Uint8Array): void {
    const header = readIkeHeader(bytes)
    if (header === undefined) throw new Error('an end sent something that is no IKE message')
    this.wire.push({ to, bytes, header })
  }

  private collect(): void {
    for (const end of [this.a, this.b]) {
      for (let busy = true; busy;) {
        busy = false
        for (const sa of end.everySa) {
          if (sa instanceof HalfOpen) {
            for (let output = sa.pollOutput(); output !== undefined; output = sa.pollOutput()) {
              busy = true
              this.digestOpening(end, output)
            }
          } else {
            for (let output = sa.pollOutput(); output !== undefined; output = sa.pollOutput()) {
              busy = true
              this.digest(end, sa, output)
            }
          }
          for (let next = sa.pollTransmit(); next !== undefined; next = sa.pollTransmit()) {
            busy = true
            this.post(this.other(end), next.bytes)
          }
        }
      }
    }
    this.checkRoutes()
  }

  private digestOpening(end: End, output: HalfOpenOutput): void {
    if (output.kind !== 'replaced') end.outputs.push(output)
    if (output.kind === 'question') return
    const by = output.kind === 'replaced' ? output.by : undefined
    end.opening = by instanceof HalfOpen ? by : undefined
    if (by instanceof IkeSa) end.sas.set(by.ownSpi, by)
  }

  private digest(end: End, sa: IkeSa, output: IkeSaOutput): void {
    end.outputs.push(output)
    switch (output.kind) {
      case 'childInstalled':
        return this.install(end, output.child, output.keys)
      case 'childOutbound':
        for (const carrier of end.carriers) {
          if (carrier.child.inboundSpi === output.inboundSpi) carrier.outbound = true
        }
        return
      case 'childRemoved':
        for (const carrier of end.carriers.filter(
          ({ child }) => child.inboundSpi === output.inboundSpi,
        )) {
          carrier.outbound = false
          if (output.linger > 0) carrier.removeAt = this.now + output.linger
          else this.removeCarrier(end, carrier)
        }
        return
      case 'successor':
        end.sas.set(output.sa.ownSpi, output.sa)
        return
      case 'forgotten':
        end.sas.delete(sa.ownSpi)
        return
      default:
    }
  }

  private install(end: End, child: ChildSa, keys: ChildKeys): void {
    const octets = ({ encryption, integrity }: ChildKeys['inbound']): string =>
      toHex(encryption.bytes) + toHex(integrity.bytes)
    end.carriers.unshift({
      child,
      keys: { inbound: octets(keys.inbound), outbound: octets(keys.outbound) },
      outbound: child.outboundReady,
      atOnce: child.outboundReady,
      removeAt: Infinity,
    })
  }

  private removeCarrier(end: End, carrier: Carrier): void {
    end.carriers.splice(end.carriers.indexOf(carrier), 1)
    end.config.releaseSpi(carrier.child.inboundSpi)
  }

  // --- the data path ---

  /** A packet of `from` arrives at the other end. */
  traffic(from: End): void {
    const { route } = from
    const to = this.other(from)
    const carrier = to.carriers.find(({ child }) => child.inboundSpi === route?.child.outboundSpi)
    if (carrier === undefined) throw new Error(`${from.name} cannot reach ${to.name}`)
    to.sa.noteInbound(carrier.child.inboundSpi, this.now)
    this.collect()
  }

  private checkRoutes(): void {
    for (const end of [this.a, this.b]) {
      const { route } = end
      if (route === undefined) continue
      const spi = route.child.outboundSpi
      const to = this.other(end)
      if (end.open.some(sa => sa.state === 'deleting' && sa.children.has(route.child.inboundSpi)))
        continue
      if (to.carriers.some(({ child }) => child.inboundSpi === spi)) continue
      // §2.8: on a new SA, which replaces none, the responder need not wait for the initiator; and
      // where it has no other, it has nothing better to send on.
      const isOnly = end.carriers.every(carrier => carrier === route || !carrier.outbound)
      if (!(route.atOnce || isOnly) || !to.spis.has(spi))
        this.lost.push(`${end.name} to ${hex(spi)}`)
    }
  }

  // --- what must hold when all is over ---

  /**
   * Nothing is under way, one IKE SA and `children` Child SAs are left, the same at both ends and with
   * the same keys, and nothing else: no SPI, no SA, no packet lost on the way here.
   */
  assertWhole(t: Test, children = 1): void {
    const { a, b } = this
    t.equal(this.wire.length, 0, 'nothing is under way')
    t.same(this.lost, [], 'nobody sent to an SA that the other end does not have')
    t.equal(this.stray.length, 0, 'nor a message to an IKE SA that it does not have')
    t.equal(a.open.length, 1, 'a has one IKE SA')
    t.equal(b.open.length, 1, 'b has one IKE SA')
    t.equal(a.sa.state, 'established')
    t.equal(b.sa.state, 'established')
    t.equal(toHex(a.sa.spiI), toHex(b.sa.spiI), 'the same SPIi')
    t.equal(toHex(a.sa.spiR), toHex(b.sa.spiR), 'the same SPIr')
    for (const end of [a, b]) {
      const { name } = end
      t.equal(end.children.length, children, `${name} has ${children} Child SAs`)
      t.same(
        end.children.filter(({ state }) => state !== 'installed').map(({ state }) => state),
        [],
        `all Child SAs of ${name} are installed`,
      )
      t.ok(
        end.children.every(child => child.outboundReady),
        `${name} sends on all of them`,
      )
      const live = end.carriers.filter(({ removeAt }) => removeAt === Infinity)
      t.same(
        live.map(({ child }) => hex(child.inboundSpi)).sort(),
        end.children.map(child => hex(child.inboundSpi)).sort(),
        `the data path of ${name} has the same`,
      )
      for (const { child, keys } of live) {
        const mirror = this.other(end).carriers.find(
          carrier => carrier.child.inboundSpi === child.outboundSpi,
        )
        t.equal(mirror?.child.outboundSpi, child.inboundSpi, 'SPIs mirror each other')
        t.equal(mirror?.keys.inbound, keys.outbound, 'the keys fit')
      }
      const kept = new Set(end.carriers.map(({ child }) => child.inboundSpi))
      t.same(
        [...end.spis].filter(spi => !kept.has(spi)).map(hex),
        [],
        `no SPI of ${name} is leaked`,
      )
    }
  }

  /** All is over: no SA, no Child SA, no SPI is left at either end, now or later. */
  assertGone(t: Test): void {
    t.same(this.lost, [], 'nobody sent to an SA that the other end does not have')
    for (const end of [this.a, this.b]) t.equal(end.open.length, 0, `${end.name} has no IKE SA`)
    this.advance(200_000)
    for (const end of [this.a, this.b]) {
      t.equal(end.sas.size, 0, `${end.name} has forgotten every IKE SA`)
      t.equal(end.carriers.length, 0, `${end.name} has no Child SA`)
      t.equal(end.spis.size, 0, `no SPI of ${end.name} is leaked`)
    }
    t.equal(this.wire.length, 0, 'nothing is under way')
  }

  /** State that a collision left behind would spoil the next rekey, so both ends do each once more. */
  assertAlive(t: Test, children = 1): void {
    for (const end of [this.a, this.b]) {
      if (children > 0) this.rekeyChild(end)
      this.settle()
      this.rekeyIke(end)
      this.settle()
    }
    this.assertWhole(t, children)
  }
}

const hex = (spi: number): string => spi.toString(16)

/** The four ways in which the lowest of four nonces decides: own and answered, of `a` and of `b`. */
export const NONCES = [
  {
    lowest: "a's request",
    aRequest: 0x00,
    bRequest: 0x10,
    aAnswer: 0x20,
    bAnswer: 0x30,
    loser: 'a',
  },
  {
    lowest: "b's answer",
    aRequest: 0x10,
    bRequest: 0x20,
    aAnswer: 0x30,
    bAnswer: 0x00,
    loser: 'a',
  },
  {
    lowest: "b's request",
    aRequest: 0x10,
    bRequest: 0x00,
    aAnswer: 0x20,
    bAnswer: 0x30,
    loser: 'b',
  },
  {
    lowest: "a's answer",
    aRequest: 0x10,
    bRequest: 0x20,
    aAnswer: 0x00,
    bAnswer: 0x30,
    loser: 'b',
  },
] as const
