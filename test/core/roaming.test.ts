/** The network under a client changes: its sockets go on from another address. */
import t from 'tap'
import type { Session } from '../../lib/core/session.ts'
import { isIke } from '../harness/attacker.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const SIZE = 300_000
const HOME = Uint8Array.of(198, 51, 100, 7)
const ELSEWHERE = Uint8Array.of(203, 0, 113, 50)

/** A connection that carries `SIZE` octets both ways, as far as `budget` goes. */
const open = (budget: number, client: Options = {}, server: Options = {}) => {
  const world = new World(91, { ...PERFECT, delay: 40 }, client, server)
  const stream = new Stream(SIZE, 1, 2)
  const serving = new Stream(SIZE, 2, 1)
  stream.budget = serving.budget = budget
  world.serve = () => serving
  world.connect(stream)
  world.run(2000)
  t.equal(world.accepted.length, 1)
  const [own, theirs] = [world.sessions.client[0] as Session, world.sessions.server[0] as Session]
  return { world, stream, serving, own, theirs }
}

const feed = ({ world, stream, serving }: ReturnType<typeof open>, octets: number): void => {
  stream.budget = serving.budget = octets
  world.work(world.client, stream)
  world.work(world.server, serving)
}

const finish = (scene: ReturnType<typeof open>): void => {
  const { world, stream, serving } = scene
  feed(scene, Infinity)
  world.run(120_000, () => stream.closed && serving.closed)
  for (const each of [stream, serving]) {
    t.equal(each.error, undefined)
    t.equal(each.received, SIZE)
    t.notOk(each.corrupted)
  }
}

/** How long until the server has more octets of the client, and the client of the server. */
const untilBothHear = ({ world, stream, serving }: ReturnType<typeof open>): number => {
  const from = world.now
  const before = [stream.received, serving.received]
  world.run(
    60_000,
    () => stream.received > before[0]! + 2000 && serving.received > before[1]! + 2000,
  )
  return world.now - from
}

t.test(
  'a transfer goes on from the new address within a few round trips, as over a new path',
  t => {
    const scene = open(0)
    const { world, own, theirs } = scene
    feed(scene, Infinity)
    world.run(1000)
    const cwnd = Number(scene.stream.connection!.tcpInfo()['snd_cwnd'])
    t.ok(cwnd > 15, `${cwnd} segments`)
    world.roam(ELSEWHERE, 40_001)
    t.ok(Number(scene.stream.connection!.tcpInfo()['snd_cwnd']) <= 10)
    const wait = untilBothHear(scene)
    t.ok(wait < 500, `${wait} ms`)
    t.strictSame([...theirs.path.remoteAddress], [...ELSEWHERE])
    t.notOk(theirs['paths'].isOnTrial)
    t.strictSame([...own.path.localAddress], [...ELSEWHERE])
    finish(scene)
    t.end()
  },
)

t.test(
  'nothing was under way: the server knows the new place before it has something to say',
  t => {
    for (const livenessInterval of [30_000, 0]) {
      const scene = open(1000, { livenessInterval }, { livenessInterval: 0 })
      const { world, serving, theirs } = scene
      world.roam(ELSEWHERE, 50_000)
      world.run(300)
      t.strictSame([...theirs.path.remoteAddress], [...ELSEWHERE])
      t.equal(theirs.path.remotePort, 50_000)
      serving.budget = 5000
      world.work(world.server, serving)
      const from = world.now
      world.run(10_000, () => scene.stream.received === 6000)
      t.ok(world.now - from < 200, `${world.now - from} ms`)
      finish(scene)
    }
    t.end()
  },
)

t.test('the new address works only after a while: both go on with the first answer', t => {
  const scene = open(1000)
  const { world } = scene
  world.deaf.add('server').add('client')
  feed(scene, 50_000)
  world.run(3000)
  world.roam(ELSEWHERE, 40_001)
  world.run(20_000)
  world.deaf.clear()
  let firstAt = Infinity
  world.filter = to => {
    if (to === 'server') firstAt = Math.min(firstAt, world.now)
    return true
  }
  untilBothHear(scene)
  t.ok(world.now - firstAt < 500, `${world.now - firstAt} ms after the first datagram`)
  finish(scene)
  t.end()
})

t.test('a link that was down and is up: what waited is asked at once', t => {
  const scene = open(1000)
  const { world } = scene
  world.deaf.add('server').add('client')
  feed(scene, 50_000)
  world.run(40_000)
  world.deaf.clear()
  world.client.seekGateway(world.now)
  const wait = untilBothHear(scene)
  t.ok(wait < 1000, `${wait} ms`)
  finish(scene)
  t.end()
})

t.test('from one address to the next and back, again and again', t => {
  const scene = open(0)
  const { world } = scene
  feed(scene, Infinity)
  for (let i = 0; i < 12; i++) {
    world.run(150)
    world.roam(i % 2 === 0 ? ELSEWHERE : HOME, 40_001 + i)
  }
  finish(scene)
  t.end()
})

t.test('a handshake under way goes on from the new address', t => {
  // Whatever it has come to: IKE_SA_INIT, IKE_AUTH, the SYN.
  for (let datagrams = 1; datagrams <= 7; datagrams++) {
    const world = new World(92, { ...PERFECT, delay: 40 })
    const stream = new Stream(1000, 1, 2)
    world.serve = () => new Stream(1000, 2, 1)
    let seen = 0
    world.filter = () => ++seen <= datagrams
    world.connect(stream)
    world.run(1000, () => seen > datagrams)
    world.filter = () => true
    world.roam(ELSEWHERE, 40_001)
    const from = world.now
    world.run(20_000, () => stream.connection !== undefined)
    t.ok(world.now - from < 2000, `after ${datagrams} datagrams: ${world.now - from} ms`)
    world.run(20_000, () => stream.closed)
    t.equal(stream.error, undefined)
    t.equal(stream.received, 1000)
  }
  t.end()
})

t.test(
  'a peer of another make in transport mode: its sockets end, the next one gets a new SA',
  t => {
    const scene = open(1000)
    const { world, stream, own } = scene
    own['lineage'].facts = { ...own.facts!, isOurs: false }
    const deletes: number[] = []
    world.filter = (to, bytes) => {
      if (to === 'server' && isIke(bytes)) deletes.push(world.now)
      return true
    }
    world.roam(ELSEWHERE, 40_001)
    t.match(stream.error, { code: 'ECONNRESET' })
    const next = new Stream(10, 3, 4)
    world.serve = () => new Stream(10, 4, 3)
    world.connect(next)
    const from = world.now
    world.run(10_000, () => next.connection !== undefined)
    t.ok(world.now - from < 1000, `${world.now - from} ms`)
    t.ok(deletes.length > 0, 'the old SA is deleted')
    world.run(10_000, () => next.closed)
    t.equal(next.error, undefined)
    t.equal(world.sessions.client.length, 2)
    t.end()
  },
)
