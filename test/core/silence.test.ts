/** UDP that does not get through: what the system says of it, and what silence is called. */
import t from 'tap'
import { PERFECT, Stream, World } from '../harness/world.ts'

const OCTETS = Uint8Array.of(192, 0, 2, 1)
const PATH = {
  socket: 0,
  localAddress: OCTETS,
  localPort: 4500,
  remoteAddress: OCTETS,
  remotePort: 4500,
}

const begin = () => {
  const world = new World(7, { ...PERFECT, loss: 1 })
  const stream = new Stream(1, 1, 2)
  world.connect(stream)
  world.run(10)
  return { world, stream }
}

t.test('silence is called what it may be, with the facts of an error of connecting', t => {
  const { world, stream } = begin()
  world.client.handleDatagram(Uint8Array.of(1, 2), PATH, world.now)
  world.run(600_000, () => stream.closed)
  const { message, ...facts } = stream.error as NodeJS.ErrnoException & { port: number }
  t.match(facts, { code: 'ETIMEDOUT', syscall: 'connect', details: { received: 1 } })
  t.match(message, /UDP from \S+ port \d+: a firewall may .*; 1 received datagram was not a valid/)
  t.match(message, `port ${facts.port}:`)
  t.end()
})

t.test('what the system says of a datagram ends an attempt at once', t => {
  for (const code of ['EHOSTUNREACH', 'ENETUNREACH', 'EPERM', 'EACCES']) {
    const { world, stream } = begin()
    world.client.handleNoWay(code, world.now)
    world.pump()
    t.ok(stream.closed, code)
    t.match(stream.error, { code, syscall: 'connect', address: String, port: Number })
  }
  t.end()
})

t.test('a datagram that is too large is repeated before that is believed', t => {
  const { world, stream } = begin()
  world.client.handleNoWay('EMSGSIZE', world.now)
  world.pump()
  t.notOk(stream.closed)
  world.run(5000, () => stream.closed)
  t.match(stream.error, { code: 'EMSGSIZE' })
  t.end()
})

t.test('an SA that is up is only asked', t => {
  const world = new World(7, PERFECT)
  const stream = new Stream(1000, 1, 2)
  stream.budget = 1
  world.serve = () => new Stream(1000, 2, 1)
  world.connect(stream)
  world.run(2000)
  t.ok(world.client.isLive)
  world.client.handleNoWay('ENETUNREACH', world.now)
  world.pump()
  world.run(2000)
  t.notOk(stream.closed)
  t.ok(world.client.isLive)
  t.end()
})
