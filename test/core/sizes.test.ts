/** How large packets get through a path that says nothing (RFC 8899): both ends, default options, in virtual time. */
import t from 'tap'
import { PERFECT, SERVER_ADDRESS, Stream, World, type Options } from '../harness/world.ts'

const OCTETS = 300_000
const UDP_AND_IP = 28

const transfer = (
  mtu: number,
  options: Options = {},
  prepare: (world: World) => void = () => {},
) => {
  const world = new World(3, { ...PERFECT, mtu }, options, options)
  prepare(world)
  const served = new Stream(OCTETS, 2, 1)
  world.serve = () => served
  const stream = new Stream(OCTETS, 1, 2)
  let largest = 0
  world.filter = (_, bytes) => {
    largest = Math.max(largest, bytes.length + UDP_AND_IP)
    return true
  }
  world.connect(stream)
  const from = world.now
  world.run(60_000, () => stream.received === OCTETS && served.received === OCTETS)

  return { world, stream, served, took: world.now - from, largest: () => largest }
}

for (const mtu of [1280, 1400, 1500]) {
  t.test(`a path of ${mtu} carries a transfer within three seconds`, t => {
    const { world, stream, served, took, largest } = transfer(mtu)
    t.equal(stream.received, OCTETS)
    t.equal(served.received, OCTETS)
    t.ok(took < 3000, `${took} ms`)
    t.ok(largest() <= 1500)
    for (const session of [...world.sessions.client, ...world.sessions.server]) {
      const { mtu: found } = session.info()
      t.ok(found <= mtu && found > mtu - 32, `${found} is found`)
    }
    t.end()
  })
}

t.test('`mtu` is never exceeded', t => {
  const { largest, stream } = transfer(1500, { mtu: 1300 })
  t.equal(stream.received, OCTETS)
  t.ok(largest() <= 1300 && largest() > 1296, String(largest()))
  t.end()
})

t.test('a peer on this host gets the largest packets, and a tunnel behind it costs little', t => {
  const local = (world: World): void => {
    world.clientAddress = SERVER_ADDRESS
  }
  const free = transfer(65_535, {}, local)
  t.equal(free.stream.received, OCTETS)
  t.ok(free.largest() > 65_000)
  const narrow = transfer(1280, {}, local)
  t.equal(narrow.served.received, OCTETS)
  t.ok(narrow.took < 3000, `${narrow.took} ms`)
  t.end()
})

t.test('what the system refuses to send is not sent in pieces', t => {
  const { world, stream } = transfer(1500)
  t.equal(stream.received, OCTETS)
  world.client.handleNoWay('EMSGSIZE', world.now)
  world.pump()
  t.equal(world.sessions.client[0]!.info().mtu, 1280)
  t.end()
})
