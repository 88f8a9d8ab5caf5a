/** The end of an SA while TCP still remembers a connection for late segments (TIME-WAIT), or its last ACK is lost. */
import t from 'tap'
import { getU32 } from '../../lib/base/bytes.ts'
import type { PeerFacts } from '../../lib/ike/exchange.ts'
import { DEFAULT_TCP_CONFIG } from '../../lib/tcp/config.ts'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { nothingLeft, streamsIntact } from '../simulation/audit.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const { timeWait } = DEFAULT_TCP_CONFIG
const OCTETS = 5000

const stateOf = (stream: Stream | undefined): string | undefined =>
  (stream?.connection as TcpConnection | undefined)?.state

/** A connection that its client ends first; from its last ACK on, no ESP of the client arrives. */
const closeWithoutLastAck = (
  options: Options,
  server: Options = {},
): { world: World; stream: Stream } => {
  const world = new World(3, PERFECT, options, server)
  const stream = new Stream(OCTETS, 1, 2)
  world.serve = () => new Stream(OCTETS, 2, 1)
  world.filter = (to, bytes) =>
    to === 'client' || getU32(bytes, 0) === 0 || stateOf(stream) !== 'TIME-WAIT'
  world.connect(stream)
  world.run(5000, () => stateOf(stream) === 'TIME-WAIT')
  return { world, stream }
}

const factsOf = (world: World): { facts: PeerFacts } =>
  (world.sessions.client[0] as unknown as { lineage: { facts: PeerFacts } }).lineage

t.test('the client ends its SA: the server has its connection ended for acknowledged', t => {
  const { world, stream } = closeWithoutLastAck({ idleTimeout: 20 })
  const { now } = world
  world.run(timeWait, () => world.client.isIdle)
  t.equal(stateOf(stream), 'TIME-WAIT')
  t.ok(world.now - now < timeWait / 10, `the SA ends after ${world.now - now} ms`)
  world.run(1000)
  t.strictSame(streamsIntact(world), [])
  world.run(60_000)
  t.strictSame(nothingLeft(world), [])
  t.end()
})

t.test('the server ends its SA: it waits for the ACK of its FIN, which comes again', t => {
  const { world, stream } = closeWithoutLastAck({ idleTimeout: 0 })
  world.run(5, () => stateOf(world.accepted[0]) === 'LAST-ACK')
  t.equal(stateOf(stream), 'TIME-WAIT')
  t.equal(stateOf(world.accepted[0]), 'LAST-ACK')
  world.server.close(world.now)
  world.run(100)
  t.notOk(world.server.isSettled)
  world.filter = () => true
  world.run(5000, () => world.client.isSettled)
  t.ok(world.client.isSettled)
  t.strictSame(streamsIntact(world), [])
  world.run(60_000)
  t.strictSame(nothingLeft(world), [])
  t.end()
})

t.test('the FIN that comes again is answered as long as the SA is there', t => {
  const { world } = closeWithoutLastAck({ idleTimeout: 2000 })
  world.run(5)
  world.filter = () => true
  world.run(1500)
  t.notOk(world.client.isIdle)
  t.ok(world.accepted[0]!.closed, 'before the SA ends')
  t.strictSame(streamsIntact(world), [])
  t.end()
})

t.test('a peer of another make may repeat its FIN for the time that RFC 9293 gives it', t => {
  const { world } = closeWithoutLastAck({ idleTimeout: 20 })
  const lineage = factsOf(world)
  lineage.facts = { ...lineage.facts, isOurs: false }
  const { now } = world
  world.filter = () => true
  world.run(3 * timeWait, () => world.client.isIdle)
  t.ok(world.client.isIdle)
  t.ok(world.now - now > timeWait, `the SA ends after ${world.now - now} ms`)
  t.strictSame(streamsIntact(world), [])
  t.end()
})
