/** UDP inside ESP: what is malformed, for nobody or too much is dropped, and what is sent is what arrives. */
import t from 'tap'
import { parseAddress } from '../../lib/base/address.ts'
import { Packet } from '../../lib/base/packet.ts'
import { UdpPorts, UdpStack, type UdpFlow } from '../../lib/udp/stack.ts'
import { IpProtocol } from '../../lib/wire/registry.ts'
import { readUdp } from '../../lib/wire/udp.ts'

const A = parseAddress('192.0.2.1')!
const B = parseAddress('192.0.2.2')!
const flow: UdpFlow = {
  protocol: IpProtocol.Udp,
  localAddress: A,
  localPort: 1000,
  remoteAddress: B,
  remotePort: 53,
}

const written = (payload: Uint8Array, ends = flow): Uint8Array => {
  const stack = new UdpStack(new UdpPorts())
  stack.send(ends, payload)
  const packet = new Packet()
  stack.pollTransmit(packet)
  return packet.view().slice()
}

t.test('the example of a checksum, an empty datagram, and a sum that would be zero', t => {
  for (const size of [0, 1, 2, 1000]) {
    const bytes = written(new Uint8Array(size).fill(7))
    t.equal(bytes.length, 8 + size)
    t.match(readUdp(bytes, 0, bytes.length, A, B, true), {
      sourcePort: 1000,
      destinationPort: 53,
      to: 8 + size,
    })
    if (size === 0) continue
    bytes[8]! ^= 1
    t.equal(readUdp(bytes, 0, bytes.length, A, B, true), undefined, 'a changed octet is noticed')
    t.ok(readUdp(bytes, 0, bytes.length, A, B, false), 'unless a NAT had to do with it')
  }
  // Two octets that make the sum zero are sent as all ones (RFC 768).
  const bare = written(new Uint8Array(2))
  const zero = written(bare.slice(6, 8))
  t.strictSame([...zero.slice(6, 8)], [0xff, 0xff])
  t.ok(readUdp(zero, 0, zero.length, A, B, true))
  t.end()
})

t.test('no sum is allowed over IPv4 alone', t => {
  const bytes = written(new Uint8Array(4))
  bytes.fill(0, 6, 8)
  t.ok(readUdp(bytes, 0, bytes.length, A, B, true))
  const six = parseAddress('2001:db8::1')!
  t.equal(readUdp(bytes, 0, bytes.length, six, six, true), undefined)
  t.end()
})

t.test('any octets are read or refused, and never beyond the packet', t => {
  const bytes = written(new Uint8Array(4))
  for (let length = 0; length < 8; length++) {
    t.equal(readUdp(bytes, 0, length, A, B, false), undefined)
  }
  for (const [high, low] of [
    [0, 0],
    [0, 7],
    [0, 13],
    [0xff, 0xff],
  ]) {
    const wrong = bytes.slice()
    wrong.set([high!, low!], 4)
    t.equal(readUdp(wrong, 0, wrong.length, A, B, false), undefined)
  }
  // Padding behind a datagram is none of it (RFC 4303 §2.7).
  t.equal(readUdp(new Uint8Array([...bytes, 1, 2, 3]), 0, 15, A, B, false)?.to, 12)
  t.end()
})

t.test('a port that is not open, a peer that may not reach it, and a flood', t => {
  const ports = new UdpPorts()
  const [one, other] = [new UdpStack(ports), new UdpStack(ports)]
  const bytes = written(new Uint8Array(4))
  const receive = (stack: UdpStack): string | undefined =>
    stack.handleDatagram(bytes, 0, bytes.length, A, B, true)
  t.equal(receive(one), 'udp.noPort')
  t.ok(ports.open(53, stack => stack === one))
  t.notOk(
    ports.open(53, () => true),
    'it is taken',
  )
  t.equal(receive(one), undefined)
  t.equal(receive(other), 'udp.noPort')
  t.match(one.pollEvent(), { localPort: 53, remotePort: 1000, bytes: new Uint8Array(4) })
  t.equal(one.pollEvent(), undefined)
  const results = Array.from({ length: 1000 }, () => receive(one))
  t.equal(results.filter(result => result === undefined).length, 256)
  t.equal(results.at(-1), 'udp.queueFull')
  ports.close(53)
  t.equal(receive(one), 'udp.noPort')
  t.end()
})

t.test('a peer to which nothing goes out keeps a bounded number of datagrams and octets', t => {
  const stack = new UdpStack(new UdpPorts())
  const small = Array.from({ length: 300 }, () => stack.send(flow, new Uint8Array(1)))
  t.equal(small.filter(Boolean).length, 256)
  stack.clear()
  const large = Array.from({ length: 100 }, () => stack.send(flow, new Uint8Array(60_000)))
  t.equal(large.filter(Boolean).length, 17)
  const mine = new Uint8Array(4)
  stack.clear()
  stack.send(flow, mine)
  mine.fill(9)
  const packet = new Packet()
  stack.pollTransmit(packet)
  t.strictSame([...packet.view().slice(8)], [0, 0, 0, 0], 'it was copied')
  t.end()
})
