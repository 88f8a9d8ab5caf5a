/**
 * Targets with state, each case a whole conversation from a seed: an initiator and a responder whose keys the
 * fuzzer knows, so that it changes what is inside messages and packets, and a TCP receiver. None may throw,
 * answer without end or keep more than its bounds, and afterwards the end must still serve an honest peer.
 */
import { concat, putU16, putU32 } from '../../lib/base/bytes.ts'
import { Packet } from '../../lib/base/packet.ts'
import type { TraceEvent } from '../../lib/base/trace.ts'
import { TcpListeners } from '../../lib/tcp/listener.ts'
import { DEFAULT_TCP_CONFIG, TcpStack } from '../../lib/tcp/stack.ts'
import { readIkeHeader, type HeaderFacts } from '../../lib/wire/ike-header.ts'
import { writeChain } from '../../lib/wire/payload-chain.ts'
import { writeMessage } from '../../lib/wire/message.ts'
import {
  Caller,
  datagramOf,
  espText,
  isIke,
  KeyRing,
  messageOf,
  pathFrom,
  readPayloads,
  sourceAddress,
  Target,
  tcpSegment,
} from '../harness/attacker.ts'
import { Random, seededEnvironment } from '../harness/random.ts'
import {
  makePayload,
  makeRequest,
  mutateChain,
  mutateOctets,
  pick,
  randomOctets,
} from './mutate.ts'

export interface Story {
  readonly name: string
  /** Throws when something went wrong; returns how many datagrams or segments were taken. */
  run(seed: number, trace?: (event: TraceEvent) => void): number
}

const must = (truth: boolean, what: string): void => {
  if (!truth) throw new Error(what)
}

const EXCHANGES = [34, 35, 36, 37, 37, 36, 43, 0, 255]

/** A message with something changed in it: inside, when we have its keys. */
const tamper = (random: Random, ring: KeyRing, datagram: Uint8Array): Uint8Array => {
  if (!isIke(datagram) || random.chance(0.15)) return mutateOctets(random, datagram)
  const message = messageOf(datagram)
  const header = readIkeHeader(message)
  if (header === undefined) return mutateOctets(random, datagram)
  if (header.exchange === 34) {
    const chain = mutateChain(random, writeChain(readPayloads(message)))
    const empty = writeMessage(header, [])
    const changed = concat(empty, chain.bytes)
    changed[16] = chain.first
    putU32(changed, 24, changed.length)
    return datagramOf(changed)
  }
  const chain = ring.open(message)
  return chain === undefined
    ? mutateOctets(random, datagram)
    : datagramOf(ring.seal(header, mutateChain(random, chain, spisOf(ring))))
}

const spisOf = (ring: KeyRing): number[] => ring.esp.slice(-8).map(({ spi }) => spi)

/** Packets of a Child SA with anything inside. */
const makeEsp = (random: Random, ring: KeyRing, sequence: number): Uint8Array | undefined => {
  const entry = ring.esp.length > 0 ? pick(random, ring.esp) : undefined
  if (entry === undefined) return undefined
  const ports = { source: random.chance(0.5) ? 80 : random.integer(1, 65535), destination: 80 }
  const tcp = tcpSegment({
    ...ports,
    flags: random.integer(0, 63),
    seq: random.next(),
    ack: random.next(),
    window: random.integer(0, 65535),
    data: randomOctets(random, random.integer(0, 60)),
  })
  const inner = concat(
    Uint8Array.of(0x45, 0, 0, 20 + tcp.length, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 192, 0, 2, 1),
    tcp,
  )
  const payload = pick(random, [tcp, inner, randomOctets(random, 40)])
  const text = espText(
    random.chance(0.5) ? mutateOctets(random, payload) : payload,
    pick(random, [6, 4, 41, 59, 1, 17]),
  )
  const body = random.chance(0.2) ? mutateOctets(random, text) : text
  // Ciphers of this fuzzer's SAs need no whole blocks.
  return ring.sealEsp(entry.spi, sequence, body)
}

/** Requests and responses of the peer that nobody expects, under keys that are right. */
const makeMessage = (
  random: Random,
  ring: KeyRing,
  fromInitiator: boolean,
  nextId: number,
): Uint8Array | undefined => {
  const entry = ring.ike.at(random.chance(0.8) ? -1 : 0)
  if (entry === undefined) return undefined
  const isTemplate = random.chance(0.6)
  const payloads = isTemplate
    ? makeRequest(random, spisOf(ring))
    : Array.from({ length: random.integer(0, 6) }, () => makePayload(random, spisOf(ring)))
  const facts: HeaderFacts = {
    spiI: entry.spiI,
    spiR: entry.spiR,
    exchange: isTemplate ? (payloads[0]!.kind === 'delete' ? 37 : 36) : pick(random, EXCHANGES),
    originalInitiator: random.chance(0.9) ? fromInitiator : !fromInitiator,
    response: random.chance(0.2),
    messageId: random.chance(0.8) ? nextId : random.integer(0, 5),
  }
  const chain = random.chance(0.5)
    ? writeChain(payloads)
    : mutateChain(random, writeChain(payloads), spisOf(ring))
  if (random.chance(0.8)) return datagramOf(ring.seal(facts, chain))
  const total = random.integer(1, 4)
  const number = random.integer(1, total)
  return datagramOf(ring.seal(facts, chain, { number, total }))
}

const OPTIONS = [
  {},
  { mode: 'tunnel' },
  { childless: 'force' },
  { virtualAddress: true },
  { pfs: false },
  { fragmentSize: 576 },
  { localId: 'fuzz.example.test' },
]

/** Both ends are real; what one of them sends is tampered with, and more is made up. */
const converse = (
  seed: number,
  victim: 'responder' | 'initiator',
  trace: ((event: TraceEvent) => void) | undefined,
): number => {
  const random = new Random(seed)
  const ring = new KeyRing(trace)
  const target = new Target(random.chance(0.2) ? { cookieThreshold: 0 } : {}, seed, ring)
  const options = { ...pick(random, OPTIONS), esp: 'aes256gcm16-esn' }
  const caller = new Caller(sourceAddress(7), options, seed + 1)
  const from = pathFrom(caller.path.localAddress, caller.path.localPort)
  const quiet = random.integer(0, 4)
  let queue = caller.connect().map(bytes => ({ to: 'responder', bytes }))
  let sequence = 1000
  let answered = 0
  let messages = 0
  const nextIds = { responder: 1, initiator: 0 }
  for (let step = 0; step < 120; step++) {
    const next = queue.shift()
    let bytes = next?.bytes
    let to = next?.to ?? victim
    if (bytes !== undefined && to === victim && step >= quiet && random.chance(0.4)) {
      bytes = tamper(random, ring, bytes)
    } else if (bytes === undefined || random.chance(0.1)) {
      if (next !== undefined) queue.unshift(next)
      to = victim
      bytes = random.chance(0.7)
        ? makeMessage(random, ring, victim === 'responder', nextIds[victim])
        : makeEsp(random, ring, ++sequence)
    }
    const pass = (millis: number): void => {
      for (const { bytes: late } of target.wait(millis))
        queue.push({ to: 'initiator', bytes: late })
      for (const late of caller.wait(millis)) queue.push({ to: 'responder', bytes: late })
    }
    if (bytes === undefined) {
      pass(1000)
      continue
    }
    messages++
    const replies =
      to === 'responder'
        ? target.send(bytes, from).map(answer => answer.bytes)
        : caller.receive(bytes)
    must(replies.length <= 80, `${replies.length} datagrams after one`)
    if (to === victim && replies.some(isIke)) {
      answered++
      if (isIke(bytes))
        nextIds[victim] = Math.max(
          nextIds[victim],
          (readIkeHeader(messageOf(bytes))?.messageId ?? 0) + 1,
        )
    }
    queue.push(
      ...(replies.map(reply => ({
        to: to === 'responder' ? 'initiator' : ('responder' as const),
        bytes: reply,
      })) as typeof queue),
    )
    if (queue.length > 50) queue = queue.slice(-50)
    for (const event of target.events.splice(0)) {
      if (event.kind === 'question')
        target.core.answer(event.id, { authorize: random.chance(0.8) }, target.now)
    }
    for (const { core, sessions } of [target, caller]) {
      const session = sessions.at(-1)
      if (session === undefined || !random.chance(0.05)) continue
      if (random.chance(0.5)) session.rekeyChild(target.now)
      else session.rekeyIke(target.now)
      core.touchSession(session, target.now)
    }
    if (random.chance(0.1)) pass(random.integer(1, 3000))
    must(target.core.saCount <= 80 && caller.core.saCount <= 80, 'SAs')
  }
  // Time heals: whatever came, in the end both ends are at rest and serve whoever is honest.
  const honest = new Caller(sourceAddress(8), {}, seed + 2, target.now)
  for (let i = 0; i < 4 && honest.connection === undefined; i++) {
    honest.talk(target, i === 0 ? undefined : honest.wait(1000))
    target.wait(1000)
  }
  must(honest.connection !== undefined, 'an honest client is not served any more')
  target.wait(100_000)
  caller.wait(200_000)
  return messages
}

/** One connection of a TCP that hears segments near and far from what it expects. */
const tcpStory = (seed: number): number => {
  const random = new Random(seed)
  const listeners = new TcpListeners()
  const config = {
    ...DEFAULT_TCP_CONFIG,
    receiveBuffer: 1 << random.integer(12, 17),
    sendBuffer: 1 << 14,
  }
  const stack = new TcpStack(seededEnvironment(seed), config, listeners)
  listeners.listen(80, 16)
  const [us, peer] = [Uint8Array.of(192, 0, 2, 1), Uint8Array.of(198, 51, 100, 7)]
  const packet = new Packet(70_000)
  const first = random.next()
  let now = 1000
  let seq = (first + 1) >>> 0
  let ack = 0
  let iss = 0
  let sent = 0
  let read = 0
  const octetAt = (number: number): number => ((number >>> 3) * 7 + number) & 0xff
  const say = (bytes: Uint8Array): void => {
    stack.handleSegment(bytes, 0, bytes.length, peer, us, now, false)
    let answers = 0
    for (packet.reset(); stack.pollTransmit(packet, now) !== undefined; packet.reset()) {
      answers++
      sent++
      const out = packet.view()
      if ((out[13]! & 2) !== 0)
        iss = ((out[4]! << 24) | (out[5]! << 16) | (out[6]! << 8) | out[7]!) >>> 0
      const end =
        (((out[4]! << 24) | (out[5]! << 16) | (out[6]! << 8) | out[7]!) >>> 0) +
        out.length -
        (out[12]! >>> 4) * 4
      if ((out[13]! & 4) === 0) ack = end >>> 0
      must(answers <= 200, `${answers} segments after one`)
    }
    for (let event = stack.pollEvent(); event !== undefined; event = stack.pollEvent()) {
      const { connection } = event
      if (event.kind === 'accepted' && random.chance(0.8))
        connection.send(randomOctets(random, 3000))
      if (event.kind === 'ended' && random.chance(0.5)) connection.shutdown()
      must(
        connection.readableLength <= config.receiveBuffer + 70_000,
        `${connection.readableLength} octets unread`,
      )
      if (random.chance(0.3)) continue
      for (let octets = connection.receive(); octets !== undefined; octets = connection.receive()) {
        for (const octet of octets) {
          must(octet === octetAt((first + 1 + read++) >>> 0), `octet ${read - 1} of the stream`)
        }
      }
    }
  }
  const segment = (flags: number, from: number, length: number): Uint8Array => {
    const data = Uint8Array.from({ length }, (_, i) => octetAt((from + i) >>> 0))
    return tcpSegment({
      source: 999,
      destination: 80,
      flags,
      seq: from >>> 0,
      ack,
      window: random.integer(0, 65535),
      data,
    })
  }
  say(segment(0x02, first, 0))
  ack = (iss + 1) >>> 0
  say(segment(0x10, seq, 0))
  for (let i = 0; i < 150; i++) {
    const kind = random.integer(0, 9)
    const length = random.integer(0, pick(random, [1, 20, 1400]))
    const near = (seq + random.integer(-3000, 9000)) >>> 0
    if (kind <= 3) {
      say(segment(0x18, seq, length))
      seq = (seq + length) >>> 0
    } else if (kind <= 6) say(segment(0x10, near, length))
    else if (kind === 7)
      say(segment(random.integer(0, 63) & ~0x07, random.chance(0.5) ? near : random.next(), length))
    else if (kind === 8) {
      // Options of any kind, which may lie, before data that does not.
      const plain = segment(random.chance(0.1) ? random.integer(0, 63) & ~0x07 : 0x10, near, length)
      const words = random.integer(0, 10)
      const options = randomOctets(random, 4 * words).map(octet =>
        octet < 128 ? octet % 9 : octet,
      )
      const bytes = concat(plain.subarray(0, 20), options, plain.subarray(20))
      bytes[12] = (5 + words) << 4
      if (random.chance(0.2)) putU16(bytes, 18, random.next() & 0xffff)
      say(bytes)
    } else {
      now += random.integer(1, 2000)
      while (stack.nextTimeout() <= now) {
        const due = stack.nextTimeout()
        stack.handleTimeout(now)
        must(stack.nextTimeout() > due || stack.nextTimeout() > now, 'a timer that does not move')
      }
    }
  }
  must(sent < 20_000, `${sent} segments`)
  return sent
}

export const STORIES: readonly Story[] = [
  { name: 'responder', run: (seed, trace) => converse(seed, 'responder', trace) },
  { name: 'initiator', run: (seed, trace) => converse(seed, 'initiator', trace) },
  { name: 'tcp-receiver', run: tcpStory },
]
