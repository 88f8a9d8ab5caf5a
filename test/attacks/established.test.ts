/** Attacks on SAs that are up: by outsiders who record, change and replay, and by the peer itself. */
import t, { type Test } from 'tap'
import { concat, getU16, getU32, putU16, putU32, toHex } from '../../lib/base/bytes.ts'
import type { Path } from '../../lib/base/path.ts'
import { isInvalidIkeSpi } from '../../lib/core/hints.ts'
import { readIkeHeader, type HeaderFacts, type IkeHeader } from '../../lib/wire/ike-header.ts'
import { writeMessage } from '../../lib/wire/message.ts'
import { invalidSpi, notify } from '../../lib/wire/notify.ts'
import { writeChain } from '../../lib/wire/payload-chain.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { ExchangeType, IpProtocol, NotifyType, ProtocolId } from '../../lib/wire/registry.ts'
import {
  Caller,
  datagramOf,
  espText,
  isIke,
  KeyRing,
  messageOf,
  NO_SPI,
  pathFrom,
  SERVER,
  Target,
  tcpSegment,
} from '../harness/attacker.ts'
import { Random } from '../harness/random.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

interface Recorded {
  readonly to: 'client' | 'server'
  readonly bytes: Uint8Array
}

const ELSEWHERE = Uint8Array.of(203, 0, 113, 66)

const pathTo = (world: World, to: 'client' | 'server'): Path =>
  to === 'server'
    ? pathFrom(world.clientAddress, world.clientPort)
    : {
        socket: 0,
        localAddress: world.clientAddress,
        localPort: world.clientPort,
        remoteAddress: SERVER,
        remotePort: 4500,
      }

const inject = (world: World, to: 'client' | 'server', bytes: Uint8Array, path?: Path): void => {
  const core = to === 'server' ? world.server : world.client
  core.handleDatagram(bytes.slice(), path ?? pathTo(world, to), world.now)
}

/** An SA that is up, with a connection open and idle, everything recorded and every key known. */
const open = (
  client: Options = {},
  server: Options = {},
): { world: World; ring: KeyRing; recorded: Recorded[]; stream: Stream; serving: Stream } => {
  const ring = new KeyRing()
  const world = new World(31, PERFECT, client, server, ring)
  const recorded: Recorded[] = []
  world.filter = (to, bytes) => {
    recorded.push({ to, bytes: bytes.slice() })
    return true
  }
  const stream = new Stream(100_000, 1, 2)
  const serving = new Stream(100_000, 2, 1)
  stream.budget = 5000
  serving.budget = 5000
  world.serve = () => serving
  world.connect(stream)
  world.run(3000)
  t.equal(world.accepted.length, 1)
  return { world, ring, recorded, stream, serving }
}

/** What was held back goes now, and arrives whole. */
const finishes = (t: Test, { world, stream, serving }: ReturnType<typeof open>): void => {
  stream.budget = Infinity
  serving.budget = Infinity
  world.work(world.client, stream)
  world.work(world.server, serving)
  world.run(120_000, () => stream.closed)
  t.equal(stream.error, undefined)
  t.equal(stream.received, 100_000)
  t.equal(serving.received, 100_000)
  t.notOk(stream.corrupted || serving.corrupted)
}

const facts = (
  ring: KeyRing,
  messageId: number,
  exchange: number = ExchangeType.Informational,
  flags: { fromInitiator?: boolean; response?: boolean } = {},
): HeaderFacts => {
  const { spiI, spiR } = ring.ike[0]!
  return {
    spiI,
    spiR,
    exchange,
    originalInitiator: flags.fromInitiator ?? true,
    response: flags.response ?? false,
    messageId,
  }
}

/** An inner IPv4 packet; `edit` may spoil it before the header's checksum is made. */
const ipPacket = (
  source: readonly number[],
  destination: readonly number[],
  payload: Uint8Array,
  protocol = 6,
  edit: (packet: Uint8Array) => unknown = () => {},
): Uint8Array => {
  const packet = new Uint8Array(20 + payload.length)
  packet.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, ...source, ...destination])
  putU16(packet, 2, packet.length)
  packet.set(payload, 20)
  edit(packet)
  const headerLength = Math.max(20, Math.min(packet.length, (packet[0]! & 15) * 4))
  let sum = 0
  for (let i = 0; i < headerLength; i += 2) sum += getU16(packet, i)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  putU16(packet, 10, ~sum & 0xffff)
  return packet
}

const headerOf = (bytes: Uint8Array): IkeHeader | undefined =>
  isIke(bytes) ? readIkeHeader(messageOf(bytes)) : undefined

/** Octets of fragments that both ends keep. */
const reassemblyOctets = (world: World): number => {
  let octets = 0
  const seen = new Set<unknown>()
  const visit = (value: unknown): void => {
    if (typeof value !== 'object' || value === null || seen.has(value) || ArrayBuffer.isView(value))
      return
    seen.add(value)
    if ('parts' in value && 'octets' in value) octets += Number(value.octets)
    if (value instanceof Map || value instanceof Set)
      for (const entry of value.values()) visit(entry)
    else Object.values(value).forEach(visit)
  }
  visit(world.client)
  visit(world.server)
  return octets
}

t.test('P9: every octet of protected messages changed: no answer, no change', t => {
  const scene = open()
  const { world, recorded } = scene
  const before = { client: world.client.saCount, server: world.server.saCount }
  let answers = 0
  let unknown = 0
  world.filter = (_to, bytes) => {
    const header = headerOf(bytes)
    if (header !== undefined && isInvalidIkeSpi(messageOf(bytes), header)) unknown++
    else answers++
    return true
  }
  const protectedOnes = recorded.filter(
    ({ bytes }) => headerOf(bytes)?.exchange === ExchangeType.IkeAuth,
  )
  t.equal(protectedOnes.length, 2)
  for (const { to, bytes } of protectedOnes) {
    for (let at = 4; at < bytes.length; at++) {
      for (const bit of [0x01, 0x80]) {
        const changed = bytes.slice()
        changed[at]! ^= bit
        inject(world, to, changed)
        world.pump()
      }
    }
  }
  t.ok(
    unknown > 0 && unknown <= 10,
    'a changed SPI is unknown (RFC 7296 §2.21.4), which is said seldom',
  )
  t.equal(answers, 0)
  t.strictSame({ client: world.client.saCount, server: world.server.saCount }, before)
  finishes(t, scene)
  t.end()
})

t.test('P9, D6: recorded requests replayed get the recorded answer or none', t => {
  const scene = open()
  const { world, recorded } = scene
  const requests = recorded.filter(
    ({ to, bytes }) => to === 'server' && headerOf(bytes)?.exchange === ExchangeType.IkeAuth,
  )
  t.equal(requests.length, 1)
  let answers = 0
  let octets = 0
  world.filter = (_to, bytes) => {
    answers++
    octets += bytes.length
    return false
  }
  for (let i = 0; i < 1000; i++) {
    for (const { bytes } of requests) {
      inject(world, 'server', bytes, pathFrom(ELSEWHERE, 1000 + i))
      world.pump()
    }
  }
  t.equal(answers, 8, 'to other places an answer is repeated as often as a peer tries')
  t.ok(octets < 3000)
  world.filter = () => true
  finishes(t, scene)
  t.end()
})

t.test('P10, D6: requests far ahead, behind, as responses, in wrong exchanges', t => {
  const scene = open()
  const { world, ring } = scene
  const { length } = world.events
  for (const messageId of [0, 1, 3, 4, 100, 0x7fffffff, 0xffffffff]) {
    for (const exchange of [34, 35, 36, 37, 43, 44, 0, 255]) {
      for (const response of [false, true]) {
        const remove: Payload = { kind: 'delete', protocol: ProtocolId.Ike, spis: [] }
        const message = ring.sealPayloads(facts(ring, messageId, exchange, { response }), [remove])
        inject(world, 'server', datagramOf(message))
        world.pump()
      }
    }
  }
  // The next ID, and an exchange that has no business there.
  for (const exchange of [34, 35, 43, 44, 0, 255]) {
    const message = ring.sealPayloads(facts(ring, 2, exchange), [
      { kind: 'delete', protocol: ProtocolId.Ike, spis: [] },
    ])
    inject(world, 'server', datagramOf(message))
    world.pump()
  }
  t.equal(world.events.slice(length).filter(({ kind }) => kind === 'sessionDown').length, 0)
  finishes(t, scene)
  t.end()
})

t.test('P8: a hundred thousand fragments that nobody sealed are neither kept nor answered', t => {
  const scene = open()
  const { world, ring } = scene
  const chain = { first: 41, bytes: new Uint8Array(300) }
  const fragment = ring.seal(facts(ring, 2), chain, { number: 1, total: 3 })
  const random = new Random(8)
  let answers = 0
  let unknown = 0
  world.filter = (_to, bytes) => {
    const header = headerOf(bytes)
    // The client knows no SA by the SPI at the place of the responder's.
    if (header !== undefined && isInvalidIkeSpi(messageOf(bytes), header)) unknown++
    else answers++
    return true
  }
  for (let i = 0; i < 100_000; i++) {
    const forged = datagramOf(fragment)
    putU16(forged, 36, random.integer(0, 65535))
    putU16(forged, 38, random.integer(0, 65535))
    forged[random.integer(40, forged.length - 1)]! ^= 1 << random.integer(0, 7)
    inject(world, i % 2 === 0 ? 'server' : 'client', forged)
    if (i % 1000 === 0) world.pump()
  }
  t.equal(answers, 0)
  t.ok(unknown <= 10, `${unknown} times`)
  t.equal(reassemblyOctets(world), 0)
  world.filter = () => true
  finishes(t, scene)
  t.end()
})

t.test('P8: fragments of a genuine peer: numbers, totals, repetitions, mixtures', t => {
  const payloads = Array.from({ length: 30 }, (): Payload => ({
    kind: 'notify',
    protocol: 0,
    spi: new Uint8Array(0),
    type: 50_000,
    data: new Uint8Array(100),
  }))
  const { first, bytes } = writeChain(payloads)
  const part = (i: number, total: number): { first: number; bytes: Uint8Array } => {
    const size = Math.ceil(bytes.length / total)
    return { first: i === 0 ? first : 0, bytes: bytes.slice(i * size, (i + 1) * size) }
  }
  const cases: [
    string,
    (send: (number: number, total: number, of?: number) => void, whole: () => void) => void,
    boolean,
  ][] = [
    ['in order', send => [1, 2, 3].forEach(i => send(i, 3)), true],
    ['backwards', send => [3, 2, 1].forEach(i => send(i, 3)), true],
    ['each twice', send => [1, 1, 2, 2, 3, 3].forEach(i => send(i, 3)), true],
    ['one missing', send => [1, 3, 1, 3].forEach(i => send(i, 3)), false],
    [
      'smaller ones replace larger ones',
      send => {
        send(1, 3)
        for (const i of [1, 2, 3, 4, 5]) send(i, 5)
      },
      true,
    ],
    [
      'larger ones do not replace smaller ones',
      send => {
        for (const i of [1, 2, 3, 4]) send(i, 5)
        send(1, 3)
        send(2, 3)
        send(5, 5)
      },
      true,
    ],
    ['a total beyond 255', send => [1, 2, 3].forEach(i => send(i, 65535, 3)), false],
    [
      'the whole message after some of its fragments',
      (send, whole) => {
        send(1, 3)
        send(2, 3)
        whole()
      },
      true,
    ],
  ]
  for (const [name, script, isAnswered] of cases) {
    const scene = open()
    const { world, ring } = scene
    let answers = 0
    world.filter = (to, datagram) => {
      if (to === 'client' && isIke(datagram)) answers++
      return true
    }
    const send = (number: number, total: number, of = total): void => {
      const sealed = ring.seal(facts(ring, 2), part(number - 1, of), { number, total })
      inject(world, 'server', datagramOf(sealed))
      world.pump()
    }
    script(send, () => {
      inject(world, 'server', datagramOf(ring.seal(facts(ring, 2), { first, bytes })))
      world.pump()
    })
    t.equal(answers, isAnswered ? 1 : 0, name)
    if (isAnswered) t.equal(reassemblyOctets(world), 0, `${name}: nothing is kept`)
  }
  t.end()
})

t.test('P8: what a peer may leave unfinished is bounded, and a stranger less', t => {
  const { world, ring } = open()
  for (let number = 1; number <= 250; number++) {
    const chain = { first: 41, bytes: new Uint8Array(2000) }
    inject(world, 'server', datagramOf(ring.seal(facts(ring, 2), chain, { number, total: 255 })))
  }
  t.ok(reassemblyOctets(world) <= 1 << 17)
  const stranger = new KeyRing()
  const half = new World(32, PERFECT, { psk: 'another key than theirs' }, {}, stranger)
  half.filter = (to, bytes) =>
    !(to === 'server' && headerOf(bytes)?.exchange === ExchangeType.IkeAuth)
  half.connect(new Stream(1, 1, 2))
  half.run(100)
  for (let number = 1; number <= 250; number++) {
    const chain = { first: 41, bytes: new Uint8Array(2000) }
    const message = stranger.seal(facts(stranger, 1, ExchangeType.IkeAuth), chain, {
      number,
      total: 255,
    })
    inject(half, 'server', datagramOf(message))
  }
  t.ok(reassemblyOctets(half) > 0 && reassemblyOctets(half) <= 1 << 15)
  half.run(40_000)
  t.equal(half.server.saCount, 0)
  t.end()
})

t.test('P8: a fragmented request that is repeated is answered once, for its first fragment', t => {
  const { world, ring } = open()
  const chain = writeChain([])
  const parts = [1, 2, 3].map(number =>
    datagramOf(
      ring.seal(
        facts(ring, 2),
        { first: number === 1 ? chain.first : 0, bytes: chain.bytes },
        { number, total: 3 },
      ),
    ),
  )
  let answers = 0
  world.filter = to => {
    if (to === 'client') answers++
    return true
  }
  const send = (which: readonly number[]): number => {
    answers = 0
    for (const i of which) {
      inject(world, 'server', parts[i]!)
      world.pump()
    }
    return answers
  }
  t.equal(send([0, 1, 2]), 1)
  t.equal(send([0, 1, 2]), 1)
  t.equal(send([1, 2]), 0)
  t.end()
})

t.test('P8: fragments towards an end that did not agree to them are nothing', t => {
  const { world, ring } = open({ fragmentation: false })
  let answers = 0
  world.filter = () => {
    answers++
    return true
  }
  inject(
    world,
    'server',
    datagramOf(ring.seal(facts(ring, 2), writeChain([]), { number: 1, total: 1 })),
  )
  world.pump()
  t.equal(answers, 0)
  t.end()
})

t.test('L1: unauthenticated notifies, Deletes and refusals leave the SA, and few probes', t => {
  const scene = open({}, {})
  const { world, ring, recorded } = scene
  const spiOut = getU32(
    recorded.find(({ to, bytes }) => to === 'server' && !isIke(bytes))!.bytes,
    0,
  )
  const outside = (
    payloads: readonly Payload[],
    spiI: Uint8Array = NO_SPI,
    spiR: Uint8Array = NO_SPI,
  ): Uint8Array =>
    datagramOf(
      writeMessage(
        {
          spiI,
          spiR,
          exchange: ExchangeType.Informational,
          originalInitiator: true,
          response: false,
          messageId: 0,
        },
        payloads,
      ),
    )
  const { spiI, spiR } = ring.ike[0]!
  const forgeries = [
    outside([invalidSpi(spiOut)]),
    outside([invalidSpi(spiOut)], spiI, spiR),
    outside([notify(NotifyType.InvalidIkeSpi)], spiI, spiR),
    outside([{ kind: 'delete', protocol: ProtocolId.Ike, spis: [] }], spiI, spiR),
    outside([notify(NotifyType.AuthenticationFailed)], spiI, spiR),
    outside([notify(NotifyType.InvalidSyntax)], spiI, spiR),
  ]
  let probes = 0
  world.filter = (to, bytes) => {
    const header = headerOf(bytes)
    // What names SPIs at the wrong places is unknown here too, which is said seldom.
    const isTold = header !== undefined && isInvalidIkeSpi(messageOf(bytes), header)
    if (to === 'server' && isIke(bytes) && !isTold) probes++
    return true
  }
  for (let i = 0; i < 10_000; i++) {
    for (const forged of forgeries) inject(world, 'client', forged)
    for (const forged of forgeries) inject(world, 'server', forged)
    world.client.handleRefusal(world.now)
    if (i % 10 === 0) world.run(1)
    else world.pump()
  }
  t.ok(probes >= 1 && probes <= 3, `${probes} probes`)
  t.equal(world.events.filter(({ kind }) => kind === 'sessionDown').length, 0)
  finishes(t, scene)
  t.end()
})

t.test(
  'L1: forged hints end nothing while a peer that is out of reach is back within five seconds, nor does half a minute without them',
  t => {
    const scene = open({ livenessInterval: 5000 })
    const { world, recorded } = scene
    const spiOut = getU32(
      recorded.find(({ to, bytes }) => to === 'server' && !isIke(bytes))!.bytes,
      0,
    )
    const hint = datagramOf(
      writeMessage(
        {
          spiI: NO_SPI,
          spiR: NO_SPI,
          exchange: ExchangeType.Informational,
          originalInitiator: true,
          response: false,
          messageId: 0,
        },
        [invalidSpi(spiOut)],
      ),
    )
    world.filter = () => false
    scene.stream.budget = 10_000
    world.work(world.client, scene.stream)
    for (let i = 0; i < 44; i++) {
      inject(world, 'client', hint)
      world.client.handleRefusal(world.now)
      world.run(100)
    }
    world.filter = () => true
    world.run(10_000)
    world.filter = () => false
    world.run(30_000)
    world.filter = () => true
    finishes(t, scene)
    t.end()
  },
)

t.test('L2: a peer moves with its newest packet, not with a recorded, changed or older one', t => {
  const scene = open()
  const { world, recorded, serving } = scene
  const session = world.sessions.server[0]!
  const home = toHex(session.path.remoteAddress)
  const toServer = recorded.filter(({ to }) => to === 'server').map(({ bytes }) => bytes)
  for (const bytes of toServer) inject(world, 'server', bytes, pathFrom(ELSEWHERE))
  for (const bytes of toServer) {
    const changed = bytes.slice()
    changed[changed.length - 1]! ^= 1
    inject(world, 'server', changed, pathFrom(ELSEWHERE))
  }
  t.equal(toHex(session.path.remoteAddress), home, 'recorded and changed ones')
  // Two packets of the client, the first held back: it is genuine and new, and not the newest.
  const held: Uint8Array[] = []
  world.filter = (to, bytes) => {
    if (to !== 'server' || isIke(bytes) || held.length > 0) return true
    held.push(bytes.slice())
    return false
  }
  scene.stream.budget = 5000
  world.work(world.client, scene.stream)
  world.run(1000)
  t.equal(held.length, 1)
  inject(world, 'server', held[0]!, pathFrom(ELSEWHERE))
  t.equal(toHex(session.path.remoteAddress), home, 'one that is not the newest')
  world.filter = () => true
  serving.budget = 1
  finishes(t, scene)
  t.end()
})

t.test('L5: no IV is ever used twice, over rekeys of everything', t => {
  const scene = open()
  const { world } = scene
  for (let i = 0; i < 20; i++) {
    const session = world.sessions[i % 2 === 0 ? 'client' : 'server'][0]!
    if (i % 3 === 0) session.rekeyIke(world.now)
    else session.rekeyChild(world.now)
    world[i % 2 === 0 ? 'client' : 'server'].touchSession(session, world.now)
    scene.stream.budget = 3000
    world.work(world.client, scene.stream)
    world.run(500)
  }
  t.ok(scene.ring.esp.length > 20)
  const keys = scene.ring.esp.map(({ spi, encryptionKey }) => `${spi} ${toHex(encryptionKey)}`)
  t.equal(
    new Set(keys.map(key => key.split(' ')[1])).size,
    new Set(keys).size,
    'no key under two SPIs',
  )
  t.equal(world.repeatedIvs, 0)
  finishes(t, scene)
  t.end()
})

t.test('E1, E6: replayed, zero, ancient and forged ESP changes nothing', t => {
  const scene = open({ esp: 'aes256gcm16-noesn' })
  const { world, ring, recorded } = scene
  const esp = recorded.filter(({ bytes }) => !isIke(bytes))
  const drops = (reason: string): number => world.server.counters.drops[reason] ?? 0
  for (const { to, bytes } of esp) inject(world, to, bytes)
  t.ok(drops('esp.replay') > 0)
  const spi = getU32(esp.find(({ to }) => to === 'server')!.bytes, 0)
  const segment = espText(tcpSegment({ source: 1, destination: 80 }), IpProtocol.Tcp)
  const replays = drops('esp.replay')
  inject(world, 'server', ring.sealEsp(spi, 0, segment, false))
  inject(world, 'server', ring.sealEsp(spi, 100_000, segment, false))
  inject(world, 'server', ring.sealEsp(spi, 100_000 - 1024, segment, false))
  inject(world, 'server', ring.sealEsp(spi, 100_000 - 1023, segment, false))
  t.equal(drops('esp.replay') - replays, 2, 'zero, and left of the window')
  const unknown = drops('esp.unknownSpi')
  const random = new Random(5)
  for (let i = 0; i < 10_000; i++) {
    const forged = new Uint8Array(60)
    random.fill(forged)
    forged[0]! |= 1
    inject(world, 'server', forged)
    putU32(forged, 0, spi)
    inject(world, 'server', forged)
    if (i % 100 === 0) world.pump()
  }
  t.equal(drops('esp.unknownSpi') - unknown, 10_000)
  // A forged packet far ahead would, if it moved the window, shut out the genuine ones.
  t.ok(drops('esp.icv') + drops('esp.replay') >= 10_000)
  t.end()
})

t.test('E3: every pad length, wrong padding, dummies and other next headers', t => {
  const { world, ring, recorded } = open()
  const spi = getU32(recorded.find(({ to, bytes }) => to === 'server' && !isIke(bytes))!.bytes, 0)
  const drops = (reason: string): number => world.server.counters.drops[reason] ?? 0
  const segment = tcpSegment({ source: 1234, destination: 80, flags: 0x04 })
  let sequence = 50_000
  const send = (text: Uint8Array): void =>
    inject(world, 'server', ring.sealEsp(spi, ++sequence, text))
  for (let length = 0; length <= 255; length++) {
    const padding = Uint8Array.from({ length }, (_, i) => i + 1)
    send(concat(segment, padding, Uint8Array.of(length, IpProtocol.Tcp)))
    if (length > 0) {
      padding[length >>> 1]! ^= 1
      send(concat(segment, padding, Uint8Array.of(length, IpProtocol.Tcp)))
    }
    if (length > 20) send(concat(segment, Uint8Array.of(length, IpProtocol.Tcp)))
  }
  t.equal(drops('esp.padding'), 255 + 235)
  send(Uint8Array.of(0, IpProtocol.Tcp))
  t.equal(drops('tcp.truncated'), 1)
  send(concat(new Uint8Array(1000), Uint8Array.of(0, 59)))
  t.equal(drops('esp.dummy'), 1)
  for (const next of [0, 1, 4, 41, 50, 255]) send(espText(segment, next))
  t.equal(drops('esp.nextHeader'), 6)
  send(espText(segment, IpProtocol.Udp))
  t.equal(drops('esp.selectors'), 1, 'UDP, of which this SA is not')
  t.end()
})

t.test('E4: in tunnel mode only what was negotiated comes out of an SA', t => {
  const { world, ring, recorded } = open(
    { mode: 'tunnel', localTs: '198.51.100.7[tcp]', remoteTs: '192.0.2.1[tcp/80]' },
    { mode: 'tunnel' },
  )
  const spi = getU32(recorded.find(({ to, bytes }) => to === 'server' && !isIke(bytes))!.bytes, 0)
  let sequence = 50_000
  const drops = (): Record<string, number> => ({ ...world.server.counters.drops })
  const ip = (
    edit: (packet: Uint8Array) => unknown,
    payload = tcpSegment({ source: 999, destination: 80, flags: 0x10, ack: 5 }),
  ): string => {
    const packet = ipPacket([198, 51, 100, 7], [192, 0, 2, 1], payload, 6, edit)
    const before = drops()
    inject(world, 'server', ring.sealEsp(spi, ++sequence, espText(packet, 4)))
    const after = drops()
    return Object.keys(after).find(reason => after[reason] !== before[reason]) ?? 'taken'
  }
  t.equal(
    ip(packet => packet.set([198, 51, 100, 8], 12)),
    'esp.selectors',
    'another source',
  )
  t.equal(
    ip(packet => packet.set([192, 0, 2, 2], 16)),
    'esp.selectors',
    'another destination',
  )
  t.equal(
    ip(() => {}, tcpSegment({ source: 1, destination: 81 })),
    'esp.selectors',
    'another port',
  )
  t.equal(
    ip(packet => void (packet[9] = 17)),
    'esp.selectors',
    'UDP',
  )
  t.equal(
    ip(packet => void (packet[9] = 4)),
    'ip.protocol',
    'IP in IP',
  )
  t.equal(
    ip(packet => void (packet[6] = 0x20)),
    'ip.fragment',
    'first fragment',
  )
  t.equal(
    ip(packet => void (packet[7] = 8)),
    'ip.fragment',
    'later fragment',
  )
  t.equal(
    ip(packet => void (packet[0] = 0x44)),
    'ip.malformed',
    'header length 4',
  )
  t.equal(
    ip(packet => void (packet[0] = 0x4f)),
    'ip.malformed',
    'header longer than the packet',
  )
  t.equal(
    ip(packet => void (packet[3] = 255)),
    'ip.malformed',
    'total length past the end',
  )
  t.equal(
    ip(packet => void (packet[3] = 19)),
    'ip.malformed',
    'total length within the header',
  )
  t.equal(
    ip(packet => void (packet[0] = 0x65)),
    'ip.malformed',
    'version 6 in IPv4',
  )
  t.equal(
    ip(packet => void (packet[0] = 0x55)),
    'ip.malformed',
    'version 5',
  )
  t.equal(
    ip(() => {}),
    'tcp.malformed',
    'a wrong TCP checksum',
  )
  const inner = new Uint8Array(60)
  inner[0] = 0x60
  const before = drops()
  inject(world, 'server', ring.sealEsp(spi, ++sequence, espText(inner, 41)))
  const after = drops()
  t.ok(
    Object.keys(after).some(reason => after[reason] !== before[reason]),
    'IPv6',
  )
  t.end()
})

t.test(
  'E4: a peer reaches its own connections alone, whatever addresses and ports it writes',
  t => {
    for (const mode of ['transport', 'tunnel']) {
      const ring = new KeyRing()
      const target = new Target({}, 1, ring)
      const victim = new Caller(Uint8Array.of(198, 51, 100, 7), { mode }, 2)
      const intruder = new Caller(Uint8Array.of(198, 51, 100, 8), { mode }, 3)
      victim.talk(target)
      intruder.talk(target)
      t.equal(target.core.connectionCount, 2)
      const inbound = ring.esp.at(-2)!
      t.equal(inbound.source, '198.51.100.8', 'the inbound SA of the intruder')
      const ours = victim.connection!
      let sequence = 50_000
      for (const flags of [0x02, 0x04, 0x10, 0x11, 0x14]) {
        // Whatever number the window begins at, one of these is in it.
        for (let seq = 0; seq < 2 ** 32; seq += 2 ** 25) {
          const segment = tcpSegment({
            source: ours.localPort,
            destination: 80,
            flags,
            seq,
            ack: seq,
          })
          const packet =
            mode === 'tunnel' ? ipPacket([198, 51, 100, 7], [192, 0, 2, 1], segment) : segment
          const text = espText(packet, mode === 'tunnel' ? IpProtocol.Ipv4 : IpProtocol.Tcp)
          target.core.handleDatagram(
            ring.sealEsp(inbound.spi, ++sequence, text),
            pathFrom(intruder.path.localAddress, intruder.path.localPort),
            target.now,
          )
        }
      }
      const away = target.drain().filter(({ path }) => toHex(path.remoteAddress) === 'c6336407')
      t.equal(away.length, 0, 'nothing goes to the victim')
      t.equal(victim.events.filter(({ kind }) => kind === 'closed').length, 0)
      t.equal(target.events.filter(({ kind }) => kind === 'closed').length, 0)
      if (mode === 'tunnel') t.equal(target.drops('esp.selectors'), 5 * 128)
    }
    t.end()
  },
)

t.test('E7: the non-ESP marker decides: SPI 0 and short packets are never ESP', t => {
  const scene = open()
  const { world } = scene
  const before = world.server.counters.drops['esp.unknownSpi'] ?? 0
  for (let length = 0; length < 64; length++) inject(world, 'server', new Uint8Array(length))
  for (const first of [1, 0xff, 0]) inject(world, 'server', Uint8Array.of(first))
  t.equal(world.server.counters.drops['esp.unknownSpi'] ?? 0, before)
  finishes(t, scene)
  t.end()
})

t.test('E8: a router is believed down to what every path takes, of a segment under way', t => {
  const { world, ring, recorded, stream } = open({ mode: 'tunnel' }, { mode: 'tunnel' })
  const spi = getU32(recorded.find(({ to, bytes }) => to === 'client' && !isIke(bytes))!.bytes, 0)
  const connection = stream.connection as TcpConnection
  const before = connection.mss
  world.filter = () => false
  stream.budget = 10_000
  world.work(world.client, stream)
  world.run(1)
  t.ok(connection.flightOctets > 0)
  let sequence = 50_000
  const tooBig = (mtu: number, seq: number): number => {
    const quoted = new Uint8Array(8)
    putU16(quoted, 0, connection.localPort)
    putU16(quoted, 2, connection.remotePort)
    putU32(quoted, 4, seq)
    const text = ipPacket([198, 51, 100, 7], [192, 0, 2, 1], quoted)
    const error = concat(Uint8Array.of(3, 4, 0, 0, 0, 0, mtu >>> 8, mtu & 255), text)
    const packet = ipPacket([192, 0, 2, 1], [198, 51, 100, 7], error, 1)
    inject(world, 'client', ring.sealEsp(spi, ++sequence, espText(packet, 4)))
    return connection.mss
  }
  for (const mtu of [0, 68, 296, 575]) t.equal(tooBig(mtu, connection.sndUna), before)
  t.equal(tooBig(1200, connection.sndUna - 1), before, 'nothing such is under way')
  const told = tooBig(1200, connection.sndUna)
  t.ok(told < before && told >= 1100, `${told}`)
  t.equal(tooBig(9000, connection.sndUna), told, 'and never up again')
  t.end()
})
