/** Attacks by whoever has authenticated, and on what it may name, ask for and hold. */
import t from 'tap'
import { getU32 } from '../../lib/base/bytes.ts'
import { seededEnvironment } from '../harness/random.ts'
import { Packet } from '../../lib/base/packet.ts'
import { createAead } from '../../lib/crypto/suite.ts'
import { OutboundSa } from '../../lib/esp/outbound-sa.ts'
import { parseProposals, withSpi } from '../../lib/policy/proposal.ts'
import {
  covers,
  EVERYTHING,
  isNarrowing,
  narrow,
  parseSelectors,
} from '../../lib/policy/traffic-selectors.ts'
import { TcpListeners } from '../../lib/tcp/listener.ts'
import { DEFAULT_TCP_CONFIG, TcpStack } from '../../lib/tcp/stack.ts'
import { isChainError, readChain } from '../../lib/wire/payload-chain.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { Encr, ExchangeType, Integ, NotifyType } from '../../lib/wire/registry.ts'
import { readTrafficSelectors } from '../../lib/wire/traffic-selector.ts'
import {
  Caller,
  datagramOf,
  isIke,
  KeyRing,
  messageOf,
  pathFrom,
  publicValue,
  sourceAddress,
  Target,
  tcpSegment,
} from '../harness/attacker.ts'
import { PERFECT, Stream, World } from '../harness/world.ts'

t.test('P5: selectors that lie are refused, many are narrowed to few, none is widened', t => {
  const body = (count: number, entry: readonly number[]): Uint8Array =>
    Uint8Array.from([count, 0, 0, 0, ...Array.from({ length: count }, () => entry).flat()])
  const v4 = [7, 6, 0, 16, 0, 0, 255, 255, 10, 0, 0, 0, 10, 0, 0, 9]
  t.equal(readTrafficSelectors(body(255, v4))?.length, 255)
  const lies: [string, number[]][] = [
    ['start after end', [7, 6, 0, 16, 0, 0, 255, 255, 10, 0, 0, 9, 10, 0, 0, 0]],
    ['ports backwards', [7, 6, 0, 16, 0, 9, 0, 1, 10, 0, 0, 0, 10, 0, 0, 9]],
    ['IPv6 as long as IPv4', [8, 6, 0, 16, 0, 0, 255, 255, 10, 0, 0, 0, 10, 0, 0, 9]],
    ['length zero', [7, 6, 0, 0, 0, 0, 255, 255, 10, 0, 0, 0, 10, 0, 0, 9]],
    ['length past the end', [7, 6, 0, 99, 0, 0, 255, 255, 10, 0, 0, 0, 10, 0, 0, 9]],
  ]
  for (const [name, entry] of lies) t.equal(readTrafficSelectors(body(1, entry)), undefined, name)
  t.equal(readTrafficSelectors(body(0, [])), undefined, 'none at all')
  t.equal(readTrafficSelectors(body(2, v4).slice(0, -1)), undefined, 'one octet short')
  const many = Array.from({ length: 255 }, (_, i) => parseSelectors('ts', `10.${i}.0.0/16`)[0]!)
  const narrowed = narrow(many, EVERYTHING)
  t.equal(narrowed.length, 16)
  t.ok(isNarrowing(narrowed, many))
  t.strictSame(narrow(many, parseSelectors('ts', '192.0.2.0/24')), [])
  t.ok(covers(narrowed, Uint8Array.of(10, 0, 0, 1), 6, 80), 'the first one stays')
  t.end()
})

t.test('P7: what a peer calls itself can neither break a line nor steer a terminal', t => {
  const bad = '\u0000\r\n\u001b[2J%s${}\u202e\u2028<script>'
  for (const localId of [
    `@#${Buffer.from(bad).toString('hex')}`,
    `@#${'41'.repeat(20_000)}`,
    `dn:#${Buffer.from(bad).toString('hex')}`,
  ]) {
    let options
    try {
      options = { localId, psk: 'not the key that they have' }
      new Caller(sourceAddress(1), options)
    } catch {
      continue
    }
    const target = new Target({
      psk: { 'somebody.test': 'a key for somebody else' },
    })
    new Caller(sourceAddress(1), options).talk(target)
    const refused = target.events.find(({ kind }) => kind === 'refused')
    if (refused?.kind !== 'refused') throw new Error('not refused')
    for (const text of [refused.error.message, refused.identity ?? '']) {
      t.match(text, /^[\x20-\x7e\u2026]*$/)
      t.ok(text.length < 5000, `${text.length} characters`)
    }
  }
  t.end()
})

/** An initiator that has authenticated, and then says what it likes. */
class Insider {
  readonly ring = new KeyRing()
  readonly target: Target
  readonly caller: Caller
  nextId = 2

  constructor(client = {}, server = {}) {
    this.target = new Target(server, 1, this.ring)
    this.caller = new Caller(sourceAddress(1), client)
    this.caller.talk(this.target)
  }

  /** Asks under the newest IKE SA, or another, and reads the answer. */
  ask(payloads: readonly Payload[], exchange: number = ExchangeType.CreateChildSa): Payload[] {
    const { spiI, spiR } = this.ring.ike.at(-1)!
    const message = this.ring.sealPayloads(
      {
        spiI,
        spiR,
        exchange,
        originalInitiator: true,
        response: false,
        messageId: this.nextId++,
      },
      payloads,
    )
    const { path } = this.caller
    const [answer] = this.target.send(
      datagramOf(message),
      pathFrom(path.localAddress, path.localPort),
    )
    const chain = answer && this.ring.open(messageOf(answer.bytes))
    const read = chain && readChain(chain.bytes, 0, chain.bytes.length, chain.first)
    return read === undefined || isChainError(read) ? [] : read
  }
}

const spi32 = (i: number): Uint8Array => Uint8Array.of(1, i >>> 16, i >>> 8, i)

t.test('D10: Child SAs of one peer are bounded: NO_ADDITIONAL_SAS', t => {
  const insider = new Insider()
  const hosts = parseSelectors('ts', '0.0.0.0/0[tcp]')
  let made = 0
  let told: number | undefined
  for (let i = 0; i < 1100; i++) {
    const answer = insider.ask([
      {
        kind: 'sa',
        proposals: withSpi(parseProposals('esp', ['aes256gcm16-noesn'], 'esp'), spi32(i)),
      },
      { kind: 'nonce', data: new Uint8Array(32).fill(i) },
      { kind: 'tsi', selectors: hosts },
      { kind: 'tsr', selectors: hosts },
    ])
    if (answer.some(({ kind }) => kind === 'sa')) made++
    else told = answer.find(payload => payload.kind === 'notify')?.type
  }
  t.equal(made, 63)
  t.equal(told, NotifyType.NoAdditionalSas)
  t.end()
})

t.test('D10: IKE SAs that a peer rekeys and does not delete are bounded', t => {
  const insider = new Insider()
  for (let i = 0; i < 150; i++) {
    const spi = new Uint8Array(8).fill(0x33)
    spi[7] = i
    insider.ask([
      {
        kind: 'sa',
        proposals: withSpi(parseProposals('ike', ['aes256gcm16-prfsha256-x25519'], 'ike'), spi),
      },
      { kind: 'nonce', data: new Uint8Array(32).fill(i) },
      { kind: 'ke', group: 31, data: publicValue(31) },
    ])
    insider.nextId = 0
  }
  t.ok(insider.ring.ike.length > 100, `${insider.ring.ike.length} made`)
  t.ok(insider.target.core.saCount <= 66, `${insider.target.core.saCount} kept`)
  t.end()
})

t.test('D10: Child SAs made and deleted faster than they fade are bounded', t => {
  const insider = new Insider()
  const hosts = parseSelectors('ts', '0.0.0.0/0[tcp]')
  for (let i = 0; i < 300; i++) {
    insider.ask([
      {
        kind: 'sa',
        proposals: withSpi(parseProposals('esp', ['aes256gcm16-noesn'], 'esp'), spi32(i)),
      },
      { kind: 'nonce', data: new Uint8Array(32).fill(i) },
      { kind: 'tsi', selectors: hosts },
      { kind: 'tsr', selectors: hosts },
    ])
    insider.ask([{ kind: 'delete', protocol: 3, spis: [spi32(i)] }], ExchangeType.Informational)
  }
  const sad = (insider.target.core as unknown as { sad: { size: number } }).sad
  t.ok(sad.size <= 66, `${sad.size} SPIs taken`)
  insider.target.wait(6000)
  t.equal(sad.size, 1)
  t.end()
})

t.test('L4: a sequence number is never used twice: at its end an SA sends nothing more', t => {
  for (const [isExtended, high, low] of [
    [false, 0, 0xffff_fffd],
    [true, 0xffff_ffff, 0xffff_fffd],
  ] as const) {
    const aead = createAead(
      'node',
      { encr: Encr.AesGcm16, keyLength: 128, integ: Integ.None },
      new Uint8Array(20),
      new Uint8Array(0),
    )
    const sa = new OutboundSa(1000, aead, isExtended, seededEnvironment(1))
    Object.assign(sa, { high, low })
    const packet = new Packet(100)
    const seal = (): boolean => {
      packet.reset()
      packet.append(20)
      return sa.seal(packet, 6)
    }
    t.strictSame([seal(), seal(), seal(), seal()], [true, true, false, false])
  }
  t.end()
})

t.test(
  'E2: with CBC and HMAC every changed octet is the same error, and none reaches the padding',
  t => {
    const world = new World(61, PERFECT, { esp: 'aes256-sha256-noesn' })
    const packets: Uint8Array[] = []
    world.filter = (to, bytes) => {
      if (to === 'server' && !isIke(bytes)) packets.push(bytes.slice())
      return true
    }
    world.connect(new Stream(3000, 1, 2))
    world.run(2000)
    const packet = packets.at(-1)!
    const before = { ...world.server.counters.drops }
    let changed = 0
    for (let at = 8; at < packet.length; at++) {
      for (const bit of [1, 16, 128]) {
        const copy = packet.slice()
        // Far enough ahead to be new.
        copy[6] = 0x10
        copy[at]! ^= bit
        changed++
        world.server.handleDatagram(
          copy,
          pathFrom(world.clientAddress, world.clientPort),
          world.now,
        )
      }
    }
    const after = world.server.counters.drops
    t.equal((after['esp.icv'] ?? 0) - (before['esp.icv'] ?? 0), changed)
    t.equal(after['esp.padding'], before['esp.padding'])
    t.end()
  },
)

/** The TCP of a peer that is hostile. */
const tcp = () => {
  const listeners = new TcpListeners()
  const stack = new TcpStack(seededEnvironment(1), DEFAULT_TCP_CONFIG, listeners)
  const listener = listeners.listen(80, 511)!
  const packet = new Packet(70_000)
  const [us, peer] = [Uint8Array.of(192, 0, 2, 1), Uint8Array.of(198, 51, 100, 7)]
  const scene = { stack, listener, now: 1000, sent: [] as Uint8Array[] }
  const poll = (): Uint8Array | undefined => {
    packet.reset()
    return stack.pollTransmit(packet, scene.now) && packet.view().slice()
  }
  const say = (segment: Uint8Array): Uint8Array[] => {
    stack.handleSegment(segment, 0, segment.length, peer, us, scene.now, false)
    const answers: Uint8Array[] = []
    for (let sent = poll(); sent !== undefined; sent = poll()) answers.push(sent)
    return answers
  }
  const open = (source: number, options = new Uint8Array(0)) => {
    const syn = new Uint8Array([
      ...tcpSegment({ source, destination: 80, flags: 2, seq: 100 }),
      ...options,
    ])
    syn[12] = (5 + options.length / 4) << 4
    const [answer] = say(syn)
    const ack = (getU32(answer!, 4) + 1) >>> 0
    say(
      tcpSegment({
        source,
        destination: 80,
        flags: 0x10,
        seq: 101,
        ack,
        window: 65535,
      }),
    )
    for (let event = stack.pollEvent(); event !== undefined; event = stack.pollEvent())
      if (event.kind === 'accepted') return { connection: event.connection, ack }
    throw new Error('not accepted')
  }
  return Object.assign(scene, { poll, say, open })
}

t.test(
  'E5: SYNs that are never confirmed take so many places of a peer, not the backlog of all',
  t => {
    const { say, listener, stack } = tcp()
    for (let source = 1; source <= 10_000; source++)
      say(tcpSegment({ source, destination: 80, flags: 2, seq: source }))
    t.equal(listener.halfOpen, 4096)
    t.ok(stack.connectionCount <= 4096)
    t.ok(listener.limit > 4096)
    t.end()
  },
)

t.test('E5: RST, SYN and ACK storms near the window get a bounded number of challenges', t => {
  for (const flags of [0x04, 0x02, 0x10]) {
    const { say, open } = tcp()
    const { connection, ack } = open(999)
    let answers = 0
    for (let i = 0; i < 10_000; i++) {
      const far = flags === 0x10 ? (ack + 1_000_000) >>> 0 : ack
      answers += say(
        tcpSegment({
          source: 999,
          destination: 80,
          flags,
          seq: 200 + (i % 1000),
          ack: far,
        }),
      ).length
    }
    t.ok(answers <= 20, `${answers} answers to ${flags}`)
    t.not(connection.state, 'CLOSED')
  }
  t.end()
})

t.test('E5: a tiny MSS does not make a storm of segments', t => {
  for (const mss of [0, 1, 8, 100]) {
    const scene = tcp()
    const { connection } = scene.open(999, Uint8Array.of(2, 4, mss >>> 8, mss & 255))
    connection.send(new Uint8Array(5000))
    let segments = 0
    for (let sent = scene.poll(); sent !== undefined; sent = scene.poll()) {
      segments++
      if (segments < 9) t.ok(sent.length >= 20 + 64, `MSS ${mss}: ${sent.length}`)
    }
    t.ok(segments <= 10, `${segments}`)
  }
  t.end()
})

t.test(
  'E5: data beyond the window is not kept, and a window held shut is probed ever more rarely',
  t => {
    const scene = tcp()
    const { connection, ack } = scene.open(999)
    const data = new Uint8Array(1000)
    for (let i = 0; i < 10_000; i++)
      scene.say(
        tcpSegment({
          source: 999,
          destination: 80,
          flags: 0x10,
          seq: 101 + 1000 * i,
          ack,
          data,
        }),
      )
    t.ok(
      connection.readableLength <= DEFAULT_TCP_CONFIG.receiveBuffer,
      `${connection.readableLength}`,
    )
    const shut = tcp()
    const held = shut.open(998)
    shut.say(
      tcpSegment({
        source: 998,
        destination: 80,
        flags: 0x10,
        seq: 101,
        ack: held.ack,
        window: 0,
      }),
    )
    held.connection.send(new Uint8Array(1000))
    let probes = 0
    for (let steps = 0; shut.now < 600_000 && steps < 10_000; steps++) {
      while (shut.poll() !== undefined) probes++
      const next = shut.stack.nextTimeout()
      if (next === Infinity) break
      shut.now = Math.max(shut.now, next)
      shut.stack.handleTimeout(shut.now)
    }
    t.ok(probes > 3 && probes < 40, `${probes} probes in ten minutes`)
    t.end()
  },
)
