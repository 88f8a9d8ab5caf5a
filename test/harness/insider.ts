/** A client that has authenticated, holds the keys of its SAs and sends whatever it likes under them. */
import { concat, getU16, getU32, putU16, putU32 } from '../../lib/base/bytes.ts'
import { parseAddress } from '../../lib/base/address.ts'
import type { Path } from '../../lib/base/path.ts'
import type { Connection, SessionHandle } from '../../lib/core/events.ts'
import { parseProposals, withSpi } from '../../lib/policy/proposal.ts'
import { parseSelectors } from '../../lib/policy/traffic-selectors.ts'
import { addWords, fold, pseudoHeaderSum } from '../../lib/wire/checksum.ts'
import { notify, notifyEsp } from '../../lib/wire/notify.ts'
import { isChainError, readChain } from '../../lib/wire/payload-chain.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { ExchangeType, IpProtocol, NotifyType } from '../../lib/wire/registry.ts'
import type { TrafficSelector } from '../../lib/wire/traffic-selector.ts'
import {
  Caller,
  datagramOf,
  espText,
  KeyRing,
  messageOf,
  pathFrom,
  publicValue,
  sourceAddress,
  Target,
  tcpSegment,
  type Answer,
} from './attacker.ts'
import type { Options } from './world.ts'

type Segment = Parameters<typeof tcpSegment>[0]
type OneOrMore = string | readonly string[]

const NO_PFS = parseProposals('esp', ['aes256gcm16-noesn'], 'esp')
const WITH_KE = {
  31: parseProposals('esp', ['aes256gcm16-x25519-noesn'], 'esp'),
  16: parseProposals('esp', ['aes256gcm16-modp4096-noesn'], 'esp'),
} as const

const octetsOf = (spi: number): Uint8Array => {
  const octets = new Uint8Array(4)
  putU32(octets, 0, spi)
  return octets
}

/** The ends of an inner IP packet. */
export interface Between {
  readonly source: string
  readonly destination: string
}

export interface Wanted {
  readonly isTransport?: boolean
  readonly rekeyed?: number
  readonly group?: keyof typeof WITH_KE
  readonly keyExchange?: Uint8Array
}

export interface Made {
  /** At the server; undefined when it was refused. */
  readonly spi: number | undefined
  readonly refusal: number | undefined
  readonly tsi: readonly TrafficSelector[]
  readonly tsr: readonly TrafficSelector[]
}

export class Insider {
  readonly ring = new KeyRing()
  readonly target: Target
  readonly caller: Caller
  /** Milliseconds of processor time that the server took for the last request. */
  lastCpu = 0
  /** All that the server sent upon the last message. */
  lastAnswers: readonly Answer[] = []
  /** The keys of its IKE SA. */
  private readonly own
  private messageId = 2
  private nextSpi = 0x01000000
  private readonly sequences = new Map<number, number>()

  constructor(server: Options = {}, client: Options = {}, address = sourceAddress(1)) {
    this.target = new Target(server, 1, this.ring)
    this.caller = new Caller(address, client)
    this.caller.talk(this.target)
    if (this.target.sessions.length !== 1) throw new Error('the client does not connect')
    this.own = this.ring.ike.at(-1)!
  }

  /** The server's end of the connection that it accepted last. */
  get connection(): Connection {
    return this.accepted.at(-1)!
  }

  get acceptedCount(): number {
    return this.accepted.length
  }

  private get accepted(): Connection[] {
    return this.target.events.flatMap(event =>
      event.kind === 'accepted' ? [event.connection] : [],
    )
  }

  get session(): SessionHandle {
    return this.target.sessions[0]!
  }

  private get from() {
    return pathFrom(this.caller.path.localAddress, this.caller.path.localPort)
  }

  /** What a protected request is answered with, where the answer is one datagram; `from`: as if it were there. */
  ask(
    payloads: readonly Payload[],
    exchange: number = ExchangeType.CreateChildSa,
    from: Path = this.from,
  ): Payload[] {
    const datagram = this.seal(payloads, exchange, this.messageId++)
    const before = process.cpuUsage()
    this.lastAnswers = this.target.send(datagram, from)
    const answer = this.lastAnswers[0]
    const { user, system } = process.cpuUsage(before)
    this.lastCpu = (user + system) / 1000
    const chain = answer && this.ring.open(messageOf(answer.bytes))
    const read = chain && readChain(chain.bytes, 0, chain.bytes.length, chain.first)
    return read === undefined || isChainError(read) ? [] : read
  }

  /** An answer to a request of the server's, whether it has come here or not. */
  answer(payloads: readonly Payload[], messageId: number, from: Path): void {
    const datagram = this.seal(payloads, ExchangeType.Informational, messageId, true)
    this.lastAnswers = this.target.send(datagram, from)
  }

  /** A whole datagram under the keys of the IKE SA. */
  seal(
    payloads: readonly Payload[],
    exchange: number,
    messageId: number,
    response = false,
  ): Uint8Array {
    const { spiI, spiR } = this.own
    const facts = { spiI, spiR, exchange, originalInitiator: true, response, messageId }
    return datagramOf(this.ring.sealPayloads(facts, payloads))
  }

  /** Asks for a Child SA with these selectors; `rekeyed` is the SPI of ours that it replaces, `group` of a KE payload. */
  child(tsi: OneOrMore, tsr: OneOrMore, options: Wanted = {}): Made {
    const { isTransport = false, rekeyed, group, keyExchange } = options
    const spi = octetsOf(this.nextSpi++)
    const answer = this.ask([
      ...(isTransport ? [notify(NotifyType.UseTransportMode)] : []),
      ...(rekeyed === undefined ? [] : [notifyEsp(NotifyType.RekeySa, rekeyed)]),
      { kind: 'sa', proposals: withSpi(group === undefined ? NO_PFS : WITH_KE[group], spi) },
      { kind: 'nonce', data: concat(spi, new Uint8Array(28)) },
      ...(group === undefined
        ? []
        : [{ kind: 'ke', group, data: keyExchange ?? publicValue(group) } as const]),
      { kind: 'tsi', selectors: parseSelectors('tsi', tsi) },
      { kind: 'tsr', selectors: parseSelectors('tsr', tsr) },
    ])
    const found = <K extends Payload['kind']>(kind: K) =>
      answer.find((payload): payload is Extract<Payload, { kind: K }> => payload.kind === kind)
    const octets = found('sa')?.proposals[0]!.spi
    return {
      spi: octets && getU32(octets, 0),
      refusal: octets === undefined ? found('notify')?.type : undefined,
      tsi: found('tsi')?.selectors ?? [],
      tsr: found('tsr')?.selectors ?? [],
    }
  }

  /** The SPI that the last request named as ours. */
  get lastSpi(): number {
    return this.nextSpi - 1
  }

  /** Sends one segment on a Child SA, under an IP header where addresses are given. */
  segment(spi: number, facts: Segment, between?: Between): Answer[] {
    const tcp = tcpSegment(facts)
    const text =
      between === undefined
        ? espText(tcp, IpProtocol.Tcp)
        : inIp(tcp, parseAddress(between.source)!, parseAddress(between.destination)!)
    return this.text(spi, text)
  }

  /** Sends the text of an ESP packet. */
  text(spi: number, text: Uint8Array): Answer[] {
    const sequence = (this.sequences.get(spi) ?? 0) + 1
    this.sequences.set(spi, sequence)
    return this.target.send(this.ring.sealEsp(spi, sequence, text, false), this.from)
  }

  /** Opens a connection by hand; what the server has accepted of it. */
  open(spi: number, port: number, between?: Between): Connection | undefined {
    const count = this.acceptedCount
    const own = { source: port, destination: 80 }
    const answers = this.segment(spi, { ...own, flags: 2, seq: 1 }, between)
    const header = between === undefined ? 0 : between.source.includes(':') ? 40 : 20
    for (const { bytes } of answers) {
      const text = this.ring.openEsp(bytes)
      if (text === undefined || getU16(text, header + 2) !== port) continue
      const ack = (getU32(text, header + 4) + 1) >>> 0
      this.segment(spi, { ...own, flags: 0x10, seq: 2, ack }, between)
    }
    return this.acceptedCount > count ? this.connection : undefined
  }
}

/** The segment with its checksum and an IPv4 or IPv6 header, as the text of an ESP packet. */
const inIp = (tcp: Uint8Array, source: Uint8Array, destination: Uint8Array): Uint8Array => {
  const segment = tcp.slice()
  const sum = pseudoHeaderSum(source, destination, IpProtocol.Tcp, segment.length)
  putU16(segment, 16, fold(addWords(sum, segment, 0, segment.length)))
  if (source.length === 16) {
    const header = Uint8Array.of(0x60, 0, 0, 0, segment.length >>> 8, segment.length, 6, 64)
    return espText(concat(header, source, destination, segment), IpProtocol.Ipv6)
  }
  const length = 20 + segment.length
  const header = concat(
    Uint8Array.of(0x45, 0, length >>> 8, length, 0, 0, 0, 0, 64, 6, 0, 0),
    source,
    destination,
  )
  putU16(header, 10, fold(addWords(0, header, 0, header.length)))
  return espText(concat(header, segment), IpProtocol.Ipv4)
}
