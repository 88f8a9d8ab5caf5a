/**
 * What an attacker has: a responder or an initiator to talk to from any address, hand-made messages, and,
 * where a scenario grants them, the keys of SAs.
 */
import { concat, getU32, putU16, putU32, toHex } from '../../lib/base/bytes.ts'
import { Packet } from '../../lib/base/packet.ts'
import type { Path } from '../../lib/base/path.ts'
import type { KeyLogEntry, TraceEvent, Tracer } from '../../lib/base/trace.ts'
import { Core } from '../../lib/core/core.ts'
import type { Connection, CoreEvent, SessionHandle } from '../../lib/core/events.ts'
import { createKeyExchange } from '../../lib/crypto/key-exchange.ts'
import { createAead, type CipherChoice } from '../../lib/crypto/suite.ts'
import { parseCredentials } from '../../lib/identity/credentials.ts'
import { parsePolicy } from '../../lib/policy/options.ts'
import { parseProposals } from '../../lib/policy/proposal.ts'
import { DEFAULT_TCP_CONFIG } from '../../lib/tcp/config.ts'
import { findEncrypted, layoutEncrypted } from '../../lib/wire/encrypted.ts'
import { readIkeHeader, type HeaderFacts } from '../../lib/wire/ike-header.ts'
import { writeMessage } from '../../lib/wire/message.ts'
import { notify } from '../../lib/wire/notify.ts'
import {
  isChainError,
  readChain,
  writeChain,
  type WrittenChain,
} from '../../lib/wire/payload-chain.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { ExchangeType } from '../../lib/wire/registry.ts'
import { seededEnvironment } from './random.ts'
import type { Options } from './world.ts'

export const PSK = 'simulated pre-shared key'
export const SERVER = Uint8Array.of(192, 0, 2, 1)
const SERVER_6 = Uint8Array.of(0x20, 1, 13, 184, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
const serverFor = (peer: Uint8Array): Uint8Array => (peer.length === 4 ? SERVER : SERVER_6)
export const NO_SPI = new Uint8Array(8)

/** The way from somewhere to the responder, as the responder sees it. */
export const pathFrom = (remoteAddress: Uint8Array, remotePort = 4500): Path => ({
  socket: 0,
  localAddress: serverFor(remoteAddress),
  localPort: 4500,
  remoteAddress,
  remotePort,
})

/** One of as many addresses as are asked for. */
export const sourceAddress = (i: number): Uint8Array =>
  Uint8Array.of(10, (i >>> 16) & 255, (i >>> 8) & 255, i & 255)

/** RFC 7296 §3.1 puts four zero octets in front on port 4500. */
export const datagramOf = (message: Uint8Array): Uint8Array => concat(new Uint8Array(4), message)
export const messageOf = (datagram: Uint8Array): Uint8Array => datagram.subarray(4)
export const isIke = (datagram: Uint8Array): boolean =>
  datagram.length > 32 && getU32(datagram, 0) === 0

export const spiOf = (i: number): Uint8Array => {
  const spi = new Uint8Array(8).fill(0x5a)
  putU32(spi, 4, i)
  return spi
}

export interface InitOptions {
  readonly spiI?: Uint8Array
  readonly proposals?: string
  readonly group?: number
  readonly keyExchange?: Uint8Array
  readonly nonce?: Uint8Array
  readonly cookie?: Uint8Array
  readonly more?: readonly Payload[]
}

/** The header of a first message. */
export const initFacts = (spiI: Uint8Array, response = false): HeaderFacts => ({
  spiI,
  spiR: NO_SPI,
  exchange: ExchangeType.IkeSaInit,
  originalInitiator: !response,
  response,
  messageId: 0,
})

const publicValues = new Map<number, Uint8Array>()

/** A genuine public value; the same for each call, since nobody checks. */
export const publicValue = (group: number): Uint8Array => {
  let value = publicValues.get(group)
  if (value === undefined) {
    value = createKeyExchange('node', group, seededEnvironment(group))!.publicValue
    publicValues.set(group, value)
  }
  return value
}

export const initPayloads = (options: InitOptions = {}): Payload[] => {
  const { proposals = 'aes256gcm16-prfsha256-x25519', group = 31 } = options
  return [
    ...(options.cookie === undefined ? [] : [notify(16390, options.cookie)]),
    { kind: 'sa', proposals: parseProposals('ike', [proposals], 'ike') },
    { kind: 'ke', group, data: options.keyExchange ?? publicValue(group) },
    { kind: 'nonce', data: options.nonce ?? new Uint8Array(32).fill(7) },
    ...(options.more ?? []),
  ]
}

/** A first request as the shortest honest one would be, or with something else in it. */
export const initRequest = (options: InitOptions = {}): Uint8Array =>
  writeMessage(initFacts(options.spiI ?? spiOf(1)), initPayloads(options))

export const readPayloads = (message: Uint8Array): Payload[] => {
  const header = readIkeHeader(message)
  const payloads = header && readChain(message, 28, message.length, header.nextPayload)
  return payloads === undefined || isChainError(payloads) ? [] : payloads
}

export interface Answer {
  readonly bytes: Uint8Array
  readonly path: Path
}

/** A responder that anyone may send to; what it says comes back at once. */
export class Target {
  readonly core: Core
  readonly events: CoreEvent[] = []
  readonly sessions: SessionHandle[] = []
  now = 1000
  private readonly packet = new Packet()

  constructor(options: Options = {}, seed = 1, tracer: Tracer = { enabled: false, emit() {} }) {
    const all = { psk: PSK, ...options }
    this.core = new Core({
      environment: seededEnvironment(seed),
      tracer,
      tcp: DEFAULT_TCP_CONFIG,
      responder: { policy: parsePolicy(all), credentials: parseCredentials(all) },
    })
    this.core.listeners.listen(80, 511)
  }

  /** Gives it one datagram and takes what it sends then. */
  send(datagram: Uint8Array, path = pathFrom(sourceAddress(1))): Answer[] {
    this.core.handleDatagram(datagram.slice(), path, this.now)
    return this.drain()
  }

  drain(): Answer[] {
    const answers: Answer[] = []
    for (
      let path = this.core.pollTransmit(this.packet, this.now);
      path !== undefined;
      path = this.core.pollTransmit(this.packet, this.now)
    ) {
      answers.push({ bytes: this.packet.view().slice(), path })
    }
    for (let event = this.core.pollEvent(); event !== undefined; event = this.core.pollEvent()) {
      this.events.push(event)
      if (event.kind === 'readable') this.core.noteTold(event.connection)
      if (event.kind === 'sessionUp') this.sessions.push(event.session)
    }
    return answers
  }

  /** Time passes; what falls due is done. */
  wait(millis: number): Answer[] {
    const end = this.now + millis
    const answers: Answer[] = []
    while (this.core.nextTimeout() <= end) {
      this.now = Math.max(this.now, this.core.nextTimeout())
      this.core.handleTimeout(this.now)
      answers.push(...this.drain())
    }
    this.now = end
    return answers
  }

  drops(reason: string): number {
    return this.core.counters.drops[reason] ?? 0
  }
}

/** A real initiator at an address of its own, to talk to a `Target` or to be talked to. */
export class Caller {
  readonly core: Core
  readonly events: CoreEvent[] = []
  readonly sessions: SessionHandle[] = []
  readonly path: Path
  now: number
  connection: Connection | undefined
  private readonly packet = new Packet()
  private readonly security

  constructor(address: Uint8Array, options: Options = {}, seed = 99, now = 1000, port = 40001) {
    const all = { psk: PSK, ...options }
    this.security = { policy: parsePolicy(all), credentials: parseCredentials(all) }
    this.now = now
    this.core = new Core({
      environment: seededEnvironment(seed),
      tracer: { enabled: false, emit() {} },
      tcp: DEFAULT_TCP_CONFIG,
    })
    this.path = {
      socket: 0,
      localAddress: address,
      localPort: port,
      remoteAddress: serverFor(address),
      remotePort: 4500,
    }
  }

  connect(): Uint8Array[] {
    this.core.connect(
      { ...this.security, path: this.path },
      {
        remoteAddress: this.path.remoteAddress,
        remotePort: 80,
        localPort: 0,
        noDelay: false,
        keepAlive: undefined,
      },
      {},
      this.now,
    )
    return this.drain()
  }

  receive(datagram: Uint8Array): Uint8Array[] {
    this.core.handleDatagram(datagram.slice(), this.path, this.now)
    return this.drain()
  }

  drain(): Uint8Array[] {
    const sent: Uint8Array[] = []
    while (this.core.pollTransmit(this.packet, this.now) !== undefined)
      sent.push(this.packet.view().slice())
    for (let event = this.core.pollEvent(); event !== undefined; event = this.core.pollEvent()) {
      this.events.push(event)
      if (event.kind === 'readable') this.core.noteTold(event.connection)
      if (event.kind === 'sessionUp') this.sessions.push(event.session)
      if (event.kind === 'connected') this.connection = event.connection
    }
    return sent
  }

  /** Time passes; what it sends meanwhile. */
  wait(millis: number): Uint8Array[] {
    const end = this.now + millis
    const sent: Uint8Array[] = []
    while (this.core.nextTimeout() <= end) {
      this.now = Math.max(this.now, this.core.nextTimeout())
      this.core.handleTimeout(this.now)
      sent.push(...this.drain())
    }
    this.now = end
    return sent
  }

  /** Talks with a responder until neither has more to say. */
  talk(target: Target, sent: readonly Uint8Array[] = this.connect()): void {
    const { localAddress, localPort } = this.path
    const from = pathFrom(localAddress, localPort)
    for (let queue = [...sent]; queue.length > 0;) {
      const answers = target.send(queue.shift()!, from)
      for (const { bytes } of answers) queue.push(...this.receive(bytes))
    }
  }
}

// --- with keys ---

type IkeEntry = Extract<KeyLogEntry, { kind: 'ike' }>
type EspEntry = Extract<KeyLogEntry, { kind: 'esp' }>

/** A tracer that keeps the keys of every SA, and opens and seals with them. */
export class KeyRing implements Tracer {
  readonly enabled: boolean
  readonly ike: IkeEntry[] = []
  readonly esp: EspEntry[] = []
  private readonly trace: (event: TraceEvent) => void
  private sealed = 0

  constructor(trace?: (event: TraceEvent) => void) {
    this.enabled = trace !== undefined
    this.trace = trace ?? (() => {})
  }

  emit(event: TraceEvent): void {
    this.trace(event)
  }

  readonly keyLog = (entry: KeyLogEntry): void => {
    if (entry.kind === 'ike') {
      const { spiI, spiR, skEi, skEr, skAi, skAr } = entry
      const copies = { spiI, spiR, skEi, skEr, skAi, skAr }
      for (const [name, octets] of Object.entries(copies))
        copies[name as keyof typeof copies] = octets.slice()
      this.ike.push({ ...entry, ...copies })
    } else {
      this.esp.push({
        ...entry,
        encryptionKey: entry.encryptionKey.slice(),
        integrityKey: entry.integrityKey.slice(),
      })
    }
  }

  private aead(spiI: Uint8Array, spiR: Uint8Array, fromInitiator: boolean) {
    const entry = this.ike.findLast(
      known => toHex(known.spiI) === toHex(spiI) && toHex(known.spiR) === toHex(spiR),
    )
    if (entry === undefined) return undefined
    return fromInitiator
      ? createAead('node', entry, entry.skEi, entry.skAi)
      : createAead('node', entry, entry.skEr, entry.skAr)
  }

  /** The chain inside a protected message. */
  open(message: Uint8Array): WrittenChain | undefined {
    const header = readIkeHeader(message)
    const layout = header && findEncrypted(message, header)
    if (header === undefined || layout === undefined || isChainError(layout)) return undefined
    const aead = this.aead(header.spiI, header.spiR, header.originalInitiator)
    if (aead === undefined) return undefined
    const from = layout.aadEnd + aead.ivLength
    const to = layout.bodyTo - aead.icvLength
    const opened = aead.open(message, from, to, message.subarray(0, layout.aadEnd))
    return (
      opened && {
        first: layout.firstInner,
        bytes: Uint8Array.from(opened.subarray(0, -1 - opened.at(-1)!)),
      }
    )
  }

  /** A protected message, or one fragment, with any octets inside. */
  seal(
    facts: HeaderFacts,
    chain: WrittenChain,
    fragment?: { number: number; total: number },
  ): Uint8Array {
    const aead = this.aead(facts.spiI, facts.spiR, facts.originalInitiator)!
    const { message, ivAt, from, to } = layoutEncrypted(
      facts,
      chain.first,
      chain.bytes,
      aead,
      fragment,
    )
    // Far from the numbers that the owners of the keys use.
    putU32(message, from - 8, 0xa77ac4e5)
    putU32(message, from - 4, ++this.sealed)
    aead.seal(message, from, to, message.subarray(0, ivAt))
    return message
  }

  sealPayloads(facts: HeaderFacts, payloads: readonly Payload[]): Uint8Array {
    return this.seal(facts, writeChain(payloads))
  }

  /** An ESP packet with any octets between IV and ICV: whoever calls writes the trailer. */
  sealEsp(spi: number, sequence: number, text: Uint8Array, isExtended = true): Uint8Array {
    const entry = this.esp.findLast(known => known.spi === spi)!
    const cipher: CipherChoice = entry
    const aead = createAead('node', cipher, entry.encryptionKey, entry.integrityKey)
    const high = Math.floor(sequence / 2 ** 32)
    const low = sequence >>> 0
    const packet = new Uint8Array(8 + aead.ivLength + text.length + aead.icvLength)
    putU32(packet, 0, spi)
    putU32(packet, 4, low)
    putU32(packet, 8, high)
    putU32(packet, 12, low)
    const from = 8 + aead.ivLength
    packet.set(text, from)
    const aad = new Uint8Array(isExtended ? 12 : 8)
    putU32(aad, 0, spi)
    if (isExtended) putU32(aad, 4, high)
    putU32(aad, aad.length - 4, low)
    aead.seal(packet, from, from + text.length, aad)
    return packet
  }

  /** What is between IV and ICV of an ESP packet without extended numbers; undefined: it is none, or of no SA here. */
  openEsp(packet: Uint8Array): Uint8Array | undefined {
    const entry = this.esp.findLast(({ spi }) => spi === getU32(packet, 0))
    if (entry === undefined) return undefined
    const aead = createAead('node', entry, entry.encryptionKey, entry.integrityKey)
    const [from, to] = [8 + aead.ivLength, packet.length - aead.icvLength]
    const opened = aead.open(packet, from, to, packet.subarray(0, 8))
    return opened && Uint8Array.from(opened)
  }
}

/** Payload, padding, pad length and next header as RFC 4303 §2 wants them. */
export const espText = (payload: Uint8Array, nextHeader: number): Uint8Array => {
  const padding = (4 - ((payload.length + 2) % 4)) % 4
  return concat(
    payload,
    Uint8Array.from({ length: padding }, (_, i) => i + 1),
    Uint8Array.of(padding, nextHeader),
  )
}

/** A TCP header without options, and data. */
export const tcpSegment = (facts: {
  source: number
  destination: number
  seq?: number
  ack?: number
  flags?: number
  window?: number
  data?: Uint8Array
}): Uint8Array => {
  const { source, destination, seq = 0, ack = 0, flags = 0x10, window = 65535, data } = facts
  const header = new Uint8Array(20)
  putU16(header, 0, source)
  putU16(header, 2, destination)
  putU32(header, 4, seq)
  putU32(header, 8, ack)
  header[12] = 0x50
  header[13] = flags
  putU16(header, 14, window)
  return data === undefined ? header : concat(header, data)
}
