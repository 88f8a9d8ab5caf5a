/** UDP that does not get through: what the system says of it, and what silence is called. */
import t from 'tap'
import type { IpsecError } from '../../lib/base/errors.ts'
import { parseIdentity } from '../../lib/identity/identity.ts'
import { readIkeHeader } from '../../lib/wire/ike-header.ts'
import { writeMessage } from '../../lib/wire/message.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import {
  Caller,
  datagramOf,
  initFacts,
  initPayloads,
  messageOf,
  spiOf,
} from '../harness/attacker.ts'
import { Gateway, ONE_SUITE } from '../harness/gateway.ts'
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

t.test('what came and was refused meanwhile is named by its reason', t => {
  /** Answers each first message: with what was not offered, as IKEv1, with nonsense, and with an SA but no IKE_AUTH. */
  const caller = new Caller(Uint8Array.of(198, 51, 100, 7), ONE_SUITE)
  const [first] = caller.connect()
  const { spiI } = readIkeHeader(messageOf(first!))!
  const header = { ...initFacts(spiI, true), spiR: spiOf(9) }
  const answer = (payloads: readonly Payload[]) => datagramOf(writeMessage(header, payloads))
  const other = initPayloads({ proposals: 'aes128gcm16-prfsha512-x25519' })
  const version1 = answer([])
  version1[4 + 17] = 0x10
  for (const datagram of [answer(other), version1, answer([]), answer([]).slice(0, 25)])
    caller.receive(datagram)
  const gateway = new Gateway(parseIdentity('id', 'gw.test'))
  caller.receive(gateway.init(first!))
  const broken = gateway.seal(1, [])
  broken[broken.length - 1]! ^= 1
  caller.receive(broken)
  caller.wait(200_000)
  const failed = caller.events.find(({ kind }) => kind === 'failed')
  const error = failed?.kind === 'failed' ? (failed.error as IpsecError) : undefined
  t.match(error, { code: 'ETIMEDOUT', syscall: 'connect' })
  t.match(error?.details, {
    received: 6,
    refused: { 'ike.v1': 1, 'ike.init.choice': 1, 'ike.init.malformed': 1, 'ike.icv': 1 },
  })
  t.match(error?.message, /6 received datagrams were not a valid answer \(.*ike\.v1: 1/)
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
