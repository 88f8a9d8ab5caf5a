/** A datagram that the system has not taken yet stays as it is, and the memory of one that it has is used again. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import t from 'tap'
import { Packets } from '../../lib/node/packets.ts'
import { UdpSocket } from '../../lib/node/udp-socket.ts'

const build = ({ current }: Packets, content: number): Uint8Array => {
  current.reset()
  const at = current.append(1000)
  current.bytes.fill(content, at, at + 1000)
  return current.view()
}

t.test('without congestion there is one packet', t => {
  const packets = new Packets()
  const { current } = packets
  for (let i = 0; i < 10; i++) packets.noteSent({ isCongested: false })
  t.equal(packets.current, current)
  t.end()
})

t.test('no packet is used again while its socket has something to send', t => {
  const packets = new Packets()
  const sockets = Array.from({ length: 20 }, () => ({ isCongested: true }))
  const inFlight = sockets.map((socket, i) => {
    const view = build(packets, i)
    packets.noteSent(socket)
    return view
  })
  t.ok(inFlight.every((view, i) => view.every(octet => octet === i)))
  t.equal(new Set(inFlight.map(({ buffer }) => buffer)).size, 20)

  const [first, second] = [sockets[3]!, sockets[7]!]
  first.isCongested = false
  second.isCongested = false
  const freed = new Set([inFlight[3]!.buffer, inFlight[7]!.buffer])
  const used = new Set<ArrayBufferLike>()
  for (let i = 0; i < 2; i++) {
    packets.noteSent({ isCongested: true })
    used.add(build(packets, 99).buffer)
  }
  t.same(used.size, 2)
  t.ok([...used].every(buffer => freed.has(buffer)))
  const others = inFlight.filter((_, i) => i !== 3 && i !== 7)
  t.notOk(others.some(view => view.includes(99)))
  t.end()
})

t.test('a socket that fills and empties all the time needs two packets', t => {
  const packets = new Packets()
  const seen = new Set<ArrayBufferLike>()
  for (let i = 0; i < 100; i++) {
    const socket = { isCongested: true }
    seen.add(build(packets, i).buffer)
    packets.noteSent(socket)
    socket.isCongested = false
  }
  t.ok(seen.size <= 3, `${seen.size}`)
  t.end()
})

t.test(
  'what is handed to a real socket arrives as it was, though the packet is used at once',
  async t => {
    const receiver = createSocket('udp4')
    receiver.bind(0, '127.0.0.1')
    await once(receiver, 'listening')
    const got: Buffer[] = []
    receiver.on('message', octets => got.push(octets))
    for (const isConnected of [true, false]) {
      const socket = new UdpSocket(
        0,
        { family: 4, ipv6Only: false, isUnmarked: false, reusePort: false, isAccelerated: false },
        { onDatagram() {}, onTaken() {}, onRead() {}, onError() {} },
      )
      const { port } = receiver.address()
      await new Promise<void>(resolve =>
        isConnected
          ? socket.connect(port, '127.0.0.1', () => resolve())
          : socket.bind(0, '127.0.0.1', () => resolve()),
      )
      const path = socket.path(Uint8Array.of(127, 0, 0, 1), port)
      const packets = new Packets()
      got.length = 0
      for (let i = 1; i <= 30; i++) {
        socket.send(build(packets, i), path)
        packets.noteSent(socket)
      }
      build(packets, 99)
      while (got.length < 30) await once(receiver, 'message')
      t.ok(
        got.every((octets, i) => octets.length === 1000 && octets.every(octet => octet === i + 1)),
      )
      socket.close()
      t.equal(socket.isCongested, false)
    }
    receiver.close()
  },
)

t.test(
  'an error of a datagram is told once for those sent in a row, and one of a larger datagram always',
  async t => {
    const receiver = createSocket('udp4').bind(0, '127.0.0.1')
    await once(receiver, 'listening')
    const { port } = receiver.address()
    for (const isConnected of [true, false]) {
      const errors: (string | undefined)[] = []
      const socket = new UdpSocket(
        0,
        { family: 4, ipv6Only: false, isUnmarked: false, reusePort: false, isAccelerated: false },
        {
          onDatagram: () => {},
          onTaken: () => {},
          onRead: () => {},
          onError: error => errors.push(error.code),
        },
      )
      await new Promise<unknown>(done =>
        isConnected
          ? socket.connect(port, '127.0.0.1', done)
          : socket.bind(0, '127.0.0.1', error => done(error)),
      )
      const path = socket.path(Uint8Array.of(127, 0, 0, 1), port)
      const turn = (): Promise<unknown> => new Promise(done => setImmediate(done))
      const tooLarge = new Uint8Array(70_000)
      for (let i = 0; i < 10; i++) socket.send(new Uint8Array(1000), path)
      await turn()
      t.same(errors, [], 'they went')
      socket.send(new Uint8Array(500), path)
      socket.send(tooLarge, path)
      await turn()
      t.same(errors, ['EMSGSIZE'], 'it is larger than what has gone out')
      for (let i = 0; i < 10; i++) socket.send(tooLarge, path)
      await turn()
      t.ok(errors.length > 1, 'each turn is told')
      const told = errors.length
      socket.send(tooLarge, path)
      await turn()
      t.equal(errors.length, told + 1)
      socket.close()
    }
    receiver.close()
  },
)
