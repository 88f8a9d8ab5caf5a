/** TCP between two ends of ours in transport mode has no checksum, since the ICV covers it; elsewhere it has one. */
import t from 'tap'
import { parseAddress } from '../../lib/base/address.ts'
import { getU16, putU16 } from '../../lib/base/bytes.ts'
import type { TcpStack } from '../../lib/tcp/stack.ts'
import { NO_FEATURES } from '../../lib/wire/own-features.ts'
import { IpProtocol } from '../../lib/wire/registry.ts'
import { CHECKSUM_AT, checksumOf, TcpFlag } from '../../lib/wire/tcp.ts'
import { espText, KeyRing, SERVER, sourceAddress, tcpSegment } from '../harness/attacker.ts'
import { Insider } from '../harness/insider.ts'
import { PERFECT, SERVER_ADDRESS, Stream, World, type Options } from '../harness/world.ts'

const ESP = 'aes256gcm16-noesn'
const IPV4_HEADER = 20

/** The checksum of every segment of a transfer each way, and what the one that belongs there would be off by. */
const transfer = (options: Options): { fields: number[]; faults: number[]; whole: boolean } => {
  const ring = new KeyRing()
  const both = { esp: ESP, ...options }
  const world = new World(1, PERFECT, both, both, ring)
  const fields: number[] = []
  const faults: number[] = []
  world.filter = (to, bytes) => {
    const text = ring.openEsp(bytes)
    if (text === undefined) return true
    const isTunnel = text.at(-1) !== IpProtocol.Tcp
    const from = isTunnel ? IPV4_HEADER : 0
    const end = isTunnel ? getU16(text, 2) : text.length - 2 - text.at(-2)!
    const ends = [parseAddress('198.51.100.7')!, SERVER_ADDRESS] as const
    const [source, destination] = to === 'server' ? ends : ([ends[1], ends[0]] as const)
    fields.push(getU16(text, from + CHECKSUM_AT))
    faults.push(checksumOf(text, from, end, source, destination))
    return true
  }
  world.serve = () => new Stream(60_000, 2, 1)
  const stream = new Stream(60_000, 1, 2)
  world.connect(stream)
  world.run(5000)
  const [accepted] = world.accepted
  const isIntact = !stream.corrupted && accepted?.corrupted === false
  return {
    fields,
    faults,
    whole: isIntact && stream.received === 60_000 && accepted.received === 60_000,
  }
}

t.test('in transport mode our own ends leave it out', t => {
  const { fields, whole } = transfer({ mode: 'transport' })
  t.ok(whole)
  t.ok(fields.length > 40)
  t.strictSame(
    fields.filter(field => field !== 0),
    [],
  )
  t.end()
})

t.test('in tunnel mode every segment has the right one', t => {
  const { fields, faults, whole } = transfer({ mode: 'tunnel' })
  t.ok(whole)
  t.ok(fields.filter(field => field !== 0).length > 40)
  t.strictSame(
    faults.filter(fault => fault !== 0),
    [],
  )
  t.end()
})

const CLIENT = sourceAddress(1)

/** A SYN in transport mode to a server that has not agreed, and whether it was dropped. */
const refuses = (isAgreed: boolean, segment: Uint8Array): boolean => {
  const insider = new Insider()
  const [from, to] = ['10.0.0.1[tcp]', '192.0.2.1[tcp]']
  const spi = insider.child(from, to, { isTransport: true }).spi!
  const { tcp } = insider.session as unknown as { tcp: TcpStack }
  if (!isAgreed) tcp.peerFeatures = NO_FEATURES
  const sealed = insider.ring.sealEsp(spi, 1, espText(segment, IpProtocol.Tcp), false)
  const answers = insider.target.send(sealed, {
    socket: 0,
    localAddress: SERVER,
    localPort: 4500,
    remoteAddress: CLIENT,
    remotePort: 40001,
  })
  const isDropped = insider.target.drops('tcp.malformed') === 1
  t.equal(answers.length, isDropped ? 0 : 1)
  return isDropped
}

t.test('one that is left out is refused where that was not agreed', t => {
  const syn = (seq: number): Uint8Array =>
    tcpSegment({ source: 5000, destination: 80, flags: TcpFlag.Syn, seq })
  t.equal(refuses(true, syn(1)), false)
  t.equal(refuses(false, syn(1)), true)
  const right = syn(1)
  putU16(right, CHECKSUM_AT, checksumOf(right, 0, right.length, CLIENT, SERVER))
  t.equal(refuses(false, right), false)
  // A sum of zero is as good as any other.
  const zero = syn(checksumOf(syn(0), 0, 20, CLIENT, SERVER))
  t.equal(checksumOf(zero, 0, zero.length, CLIENT, SERVER), 0)
  t.equal(refuses(false, zero), false)
  t.end()
})
