/** Errors by ICMP of a router behind the peer: which connection believes them, and how far (RFC 1191, RFC 8201, RFC 5927). */
import t from 'tap'
import { parseAddress } from '../../lib/base/address.ts'
import { concat, getU32, putU16 } from '../../lib/base/bytes.ts'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { addWords, fold } from '../../lib/wire/checksum.ts'
import { IpProtocol } from '../../lib/wire/registry.ts'
import { espText } from '../harness/attacker.ts'
import { Insider } from '../harness/insider.ts'
import { Bulk, TcpPath } from '../harness/tcp-path.ts'

const HEADERS = 52
const seqOf = (segment: Uint8Array): number => getU32(segment, 4)

/** A transfer behind whose peer IP packets have `mtu` octets at most, and a router says so. */
const narrow = (mtu: number): { path: TcpPath; bulk: Bulk; told: () => number } => {
  let told = 0
  const path = new TcpPath(
    {
      delay: 10,
      passes: segment => {
        if (segment.length + 20 <= mtu) return true
        const seq = seqOf(segment)
        path.at(path.now + 15, () => {
          told++
          path.a.stack.handleTooBig({ ...ends(bulk.connection), seq }, mtu, path.now)
        })
        return false
      },
    },
    { delay: 10 },
  )
  const bulk = path.bulk(300_000)
  return { path, bulk, told: () => told }
}

const ends = ({ localAddress, localPort, remoteAddress, remotePort }: TcpConnection) => ({
  localAddress,
  localPort,
  remoteAddress,
  remotePort,
})

t.test('a transfer goes on at once in smaller segments, another connection keeps its own', t => {
  const { path, bulk } = narrow(800)
  path.run(2000)
  t.equal(bulk.received, 300_000)
  t.ok(bulk.lastAt < 400, `${bulk.lastAt} ms`)
  t.equal(bulk.connection.mss, 800 - HEADERS)
  const another = path.connect()
  path.run(2100)
  t.equal(another.mss, 1480 - 32)
  t.end()
})

t.test('no segment under way, no belief', t => {
  const path = new TcpPath({ delay: 10 }, { delay: 10 })
  const bulk = path.bulk(100_000)
  path.run(35)
  const { connection } = bulk
  const { mss, sndUna, sndNxt } = connection
  t.ok(connection.flightOctets > 0)
  const say = (seq: number, mtu: number): number => {
    path.a.stack.handleTooBig({ ...ends(connection), seq: seq >>> 0 }, mtu, path.now)
    return connection.mss
  }
  t.equal(say(sndUna - 1, 800), mss)
  t.equal(say(sndNxt, 800), mss)
  t.equal(say(sndUna, 575), mss, 'below what every path takes')
  t.equal(say(sndUna, 0), mss)
  t.equal(say(sndUna, 9000), mss, 'no less than now')
  path.a.stack.handleTooBig({ ...ends(connection), remotePort: 81, seq: sndUna }, 800, path.now)
  t.equal(connection.mss, mss)
  t.equal(say(sndUna, 800), 800 - HEADERS)
  t.equal(say(sndUna, 900), 800 - HEADERS, 'what is told grows by nobody’s word')
  path.run(5000)
  t.equal(bulk.received, 100_000)
  t.end()
})

t.test('after ten minutes larger segments are tried again', t => {
  const { path, bulk, told } = narrow(800)
  path.run(2000)
  const before = told()
  path.run(610_000)
  bulk.left = 100_000
  bulk.fill()
  path.pump()
  t.ok(bulk.connection.mss > 1000)
  path.run(620_000)
  t.equal(bulk.received, 400_000)
  t.ok(told() > before)
  t.equal(bulk.connection.mss, 800 - HEADERS)
  t.end()
})

/** What a router says of a packet of `segment`'s, as the text of an ESP packet. */
const tooBig = (segment: Uint8Array, from: string, to: string, mtu: number): Uint8Array => {
  const [source, destination] = [parseAddress(from)!, parseAddress(to)!]
  const ip = (length: number, protocol: number, ends: Uint8Array): Uint8Array => {
    const header = concat(
      Uint8Array.of(0x45, 0, length >>> 8, length, 0, 0, 0, 0, 64, protocol, 0, 0),
      ends,
    )
    putU16(header, 10, fold(addWords(0, header, 0, header.length)))
    return header
  }
  const quoted = concat(ip(1400, 6, concat(destination, source)), segment.subarray(0, 8))
  const icmp = concat(Uint8Array.of(3, 4, 0, 0, 0, 0, mtu >>> 8, mtu), quoted)
  putU16(icmp, 2, fold(addWords(0, icmp, 0, icmp.length)))
  return espText(
    concat(ip(20 + icmp.length, IpProtocol.Icmp, concat(source, destination)), icmp),
    IpProtocol.Ipv4,
  )
}

t.test('it comes through the tunnel, for the connection that it quotes', t => {
  const insider = new Insider()
  const between = { source: '10.0.0.1', destination: '192.0.2.1' }
  const spi = insider.child('10.0.0.1', '192.0.2.1').spi!
  const first = insider.open(spi, 5000, between) as TcpConnection
  const second = insider.open(spi, 5001, between) as TcpConnection
  // The hand-made SYN says nothing of it.
  for (const connection of [first, second]) connection.peerMss = 1200
  const { mss } = first
  for (const connection of [first, second]) {
    connection.send(new Uint8Array(3000))
    insider.target.core.wake(connection, insider.target.now)
  }
  insider.target.drain()
  t.ok(first.flightOctets > 0)
  const header = new Uint8Array(8)
  putU16(header, 0, first.localPort)
  putU16(header, 2, first.remotePort)
  header.set(
    [24, 16, 8, 0].map(shift => first.sndUna >>> shift),
    4,
  )
  const text = tooBig(header, between.source, between.destination, 600)
  insider.target.send(insider.ring.sealEsp(spi, 100, text, false))
  t.equal(first.mss, 600 - 40)
  t.equal(second.mss, mss)
  t.end()
})
