/** Small inner packets that are ready together share an ESP packet between two ends of ours, and each is judged alone. */
import t from 'tap'
import { concat } from '../../lib/base/bytes.ts'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { BLOCK_HEADER, blockEnd, isBundle, writeBlockHeader } from '../../lib/wire/bundle.ts'
import { OWN_FEATURES, type Features } from '../../lib/wire/own-features.ts'
import { IpProtocol } from '../../lib/wire/registry.ts'
import { TcpFlag } from '../../lib/wire/tcp.ts'
import { espText, KeyRing, tcpSegment, type Answer } from '../harness/attacker.ts'
import { Insider } from '../harness/insider.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const BUNDLE = IpProtocol.Experiment
const OUTER = 28

interface Block {
  readonly nextHeader: number
  readonly bytes: Uint8Array
}

const blocksOf = (payload: Uint8Array): Block[] => {
  const blocks: Block[] = []
  for (let at = 0; at < payload.length; at = blockEnd(payload, at)) {
    const bytes = payload.subarray(at + BLOCK_HEADER, blockEnd(payload, at))
    blocks.push({ nextHeader: payload[at + 2]!, bytes })
  }
  return blocks
}

const payloadOf = (text: Uint8Array): Uint8Array => text.subarray(0, text.length - 2 - text.at(-2)!)

const block = (bytes: Uint8Array, nextHeader: number): Uint8Array => {
  const header = new Uint8Array(BLOCK_HEADER)
  writeBlockHeader(header, 0, bytes.length, nextHeader)
  return concat(header, bytes)
}

/** What an ESP packet had in it, and how large its IP packet was. */
interface Seen {
  readonly nextHeader: number
  readonly octets: number
  readonly blocks: readonly Block[]
}

/** Several connections at once, each with so many octets each way: what ESP carried. */
const talk = (count: number, toSend: number, options: Options, mtu = 1400): Seen[] => {
  const ring = new KeyRing()
  const both = { esp: 'aes256gcm16-noesn', ...options }
  const world = new World(1, { ...PERFECT, delay: 10, mtu }, both, both, ring)
  const seen: Seen[] = []
  world.filter = (_to, bytes) => {
    const text = ring.openEsp(bytes)
    if (text === undefined) return true
    const nextHeader = text.at(-1)!
    const blocks = nextHeader === BUNDLE ? blocksOf(payloadOf(text)) : []
    seen.push({ nextHeader, octets: bytes.length + OUTER, blocks })
    return true
  }
  world.serve = () => new Stream(toSend, 2, 1)
  const streams = Array.from({ length: count }, () => new Stream(toSend, 1, 2))
  for (const stream of streams) world.connect(stream)
  world.run(10_000)
  for (const { corrupted, received, closed } of [...streams, ...world.accepted])
    t.strictSame(
      { corrupted, received, closed },
      { corrupted: false, received: toSend, closed: true },
    )
  t.equal(world.accepted.length, count)
  t.equal(world.repeatedIvs, 0)
  for (const side of ['client', 'server'] as const)
    t.strictSame(
      Object.keys(world[side].counters.drops).filter(name => !name.startsWith('ike')),
      [],
    )
  return seen
}

const bundles = (seen: readonly Seen[]): Seen[] => seen.filter(({ blocks }) => blocks.length > 0)

for (const mode of ['transport', 'tunnel'] as const) {
  const inner = mode === 'transport' ? IpProtocol.Tcp : IpProtocol.Ipv4
  t.test(`${mode} mode: what is ready together goes together, as far as the path takes it`, t => {
    const seen = talk(50, 300, { mode })
    const found = bundles(seen)
    t.ok(found.length > 10)
    for (const { octets, blocks } of found) {
      t.ok(octets <= 1400)
      t.ok(blocks.length > 1)
      t.ok(blocks.every(({ nextHeader }) => nextHeader === inner))
    }
    t.ok(seen.length < 150, `${seen.length} packets of ESP`)
    t.end()
  })

  t.test(`${mode} mode: bulk data and a single packet go as they are`, t => {
    const seen = talk(3, 60_000, { mode })
    for (const { blocks } of bundles(seen))
      for (const { bytes } of blocks) t.ok(bytes.length <= 512 + 60 + 20)
    t.strictSame(bundles(talk(1, 60_000, { mode })), [])
    t.end()
  })
}

/** The features that an end believes of its peer. */
const believe = (end: { peer: unknown } | undefined, features: Features): void => {
  ;(end!.peer as { features: Features }).features = features
}

t.test('a peer that has not agreed gets none, and none is taken from it', t => {
  const others = new Set([...OWN_FEATURES].filter(feature => feature !== 'bundle'))
  for (const without of ['client', 'server'] as const) {
    const ring = new KeyRing()
    const both = { esp: 'aes256gcm16-noesn' }
    const world = new World(1, PERFECT, both, both, ring)
    world.serve = () => new Stream(10, 2, 1)
    world.connect(new Stream(10, 1, 2))
    world.run(1000)
    believe(world.sessions[without][0], others)
    const sent = { client: 0, server: 0 }
    world.filter = (to, bytes) => {
      if (ring.openEsp(bytes)?.at(-1) === BUNDLE) sent[to]++
      return true
    }
    const streams = Array.from({ length: 10 }, () => new Stream(10, 1, 2))
    for (const stream of streams) world.connect(stream)
    world.run(500)
    const other = without === 'client' ? 'server' : 'client'
    t.equal(sent[other], 0, `the ${without} sends none`)
    t.equal(world[without].counters.drops['esp.nextHeader'] ?? 0, sent[without])
  }
  t.end()
})

t.test('the copy of a segment does not go with it', t => {
  const world = new World(1, PERFECT)
  world.connect(new Stream(10, 1, 2))
  world.run(1000)
  const connection = world.streams[0]!.connection as TcpConnection
  t.ok(connection.mostOctets < 512)
  connection.copy = { seq: connection.sndNxt, octets: 1, flags: TcpFlag.Ack, stamp: 0 }
  t.equal(connection.mostOctets, Infinity)
  t.end()
})

/** What a server does with that payload of an insider under the next header of a bundle. */
const receives = (payload: Uint8Array): { answers: Answer[]; drops: Record<string, number> } => {
  const insider = new Insider()
  const spi = insider.child('10.0.0.1[tcp]', '192.0.2.1[tcp/80]', { isTransport: true }).spi!
  const before = { ...insider.target.core.counters.drops }
  const answers = insider.text(spi, espText(payload, BUNDLE))
  const drops = Object.entries(insider.target.core.counters.drops)
    .map(([name, count]) => [name, count - (before[name] ?? 0)] as const)
    .filter(([, count]) => count > 0)
  return { answers, drops: Object.fromEntries(drops) }
}

const syn = (destination = 80, source = 5000): Uint8Array =>
  tcpSegment({ source, destination, flags: TcpFlag.Syn, seq: 1 })
const TCP = IpProtocol.Tcp

t.test('each block is judged as if it had come alone', t => {
  const good = block(syn(), TCP)
  const { answers, drops } = receives(
    concat(
      block(syn(81), TCP),
      block(syn(), IpProtocol.Udp),
      block(syn().subarray(0, 19), TCP),
      block(new Uint8Array(0), TCP),
      block(concat(good, good), BUNDLE),
      block(concat(new Uint8Array(20), syn()), IpProtocol.Ipv4),
      good,
    ),
  )
  t.strictSame(drops, { 'esp.selectors': 2, 'tcp.truncated': 2, 'esp.nextHeader': 2 })
  t.equal(answers.length, 1, 'the last one is answered')
  t.end()
})

t.test('what is not made of whole blocks is dropped as a whole', t => {
  const good = block(syn(), TCP)
  for (const payload of [
    new Uint8Array(0),
    good.subarray(0, 2),
    good.subarray(0, good.length - 1),
    concat(good, Uint8Array.of(0)),
    concat(good, Uint8Array.of(0, 0)),
    concat(good, Uint8Array.of(0xff, 0xff, 6)),
    concat(good, Uint8Array.of(0, 1, 6)),
  ]) {
    t.notOk(isBundle(payload, payload.length))
    const { answers, drops } = receives(payload)
    t.strictSame(drops, { 'esp.bundle': 1 })
    t.equal(answers.length, 0)
  }
  t.end()
})

t.test('what one bundle asks for is as limited as what many packets ask for', t => {
  const strangers = Array.from({ length: 2000 }, (_, i) =>
    block(tcpSegment({ source: 1000 + i, destination: 80, ack: 1 }), TCP),
  )
  const { answers } = receives(concat(...strangers))
  t.ok(answers.length > 0)
  t.ok(answers.length <= 64, `${answers.length} answers`)
  t.end()
})
