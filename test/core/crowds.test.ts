/** Many clients at once: they do not refuse each other, live side by side, and come back together (RFC 6290, RFC 7296 §2.4). */
import t from 'tap'
import { toHex } from '../../lib/base/bytes.ts'
import { isIke, sourceAddress } from '../harness/attacker.ts'
import { Crowd } from '../harness/crowd.ts'
import { PERFECT, Stream, World } from '../harness/world.ts'

/** Behind one NAT. */
const ONE = () => sourceAddress(1)

t.test('200 clients of a server that was killed are all back 15 s after it is', t => {
  for (const address of [ONE]) {
    const crowd = new Crowd(200, address, {}, {})
    for (const member of crowd.members) crowd.connect(member)
    crowd.run(60_000, () => crowd.members.every(({ connectedAt }) => connectedAt !== undefined))
    t.ok(crowd.now < 16_000, `all connect at the same moment: ${crowd.now - 1000} ms`)
    t.ok(crowd.members.every(({ errors }) => errors.length === 0))
    crowd.persists = true
    crowd.kill()
    crowd.run(1000)
    crowd.restart()
    const since = crowd.now
    for (const member of crowd.members) crowd.write(member, 100)
    crowd.run(60_000, () => crowd.members.every(({ connectedAt }) => connectedAt !== undefined))
    const times = crowd.members.map(({ connectedAt }) => (connectedAt ?? Infinity) - since)
    t.ok(Math.max(...times) <= 15_000, `the last one after ${Math.max(...times)} ms`)
    const ended = crowd.members.map(({ errors }) => (errors[0]?.at ?? Infinity) - since)
    t.ok(Math.max(...ended) <= 5000, `the last old socket after ${Math.max(...ended)} ms`)
    const codes = new Set(crowd.members.flatMap(({ errors }) => errors.map(({ code }) => code)))
    t.strictSame([...codes], ['ECONNRESET'])
  }
  t.end()
})

t.test('20 replicas with one identity live side by side behind one address', t => {
  const crowd = new Crowd(20, ONE, { localId: 'replica.test' }, { localId: 'server.test' })
  for (const member of crowd.members) {
    crowd.connect(member)
    crowd.run(500)
  }
  crowd.run(600_000)
  for (const member of crowd.members) crowd.write(member, 100)
  crowd.run(2000)
  t.ok(crowd.members.every(({ errors }) => errors.length === 0))
  t.equal(crowd.sessions.length, 20)
  t.equal(new Set(crowd.sessions.map(session => toHex(session.path.remoteAddress))).size, 1)
  t.end()
})

t.test('2,000 sockets opened in one tick on a live SA all connect within a second', t => {
  const world = new World(5, PERFECT)
  world.connect(new Stream(1, 1, 2))
  world.run(2000)
  for (let i = 0; i < 2000; i++) world.connect(new Stream(1, 1, 2))
  world.run(1000)
  t.equal(world.accepted.length - 1, 2000)
  t.notOk(world.streams.some(({ error }) => error !== undefined))
  // Those that are not heard come again, and after the first time not in step.
  const unheard = new World(5, PERFECT)
  unheard.connect(new Stream(1, 1, 2))
  unheard.run(2000)
  const start = unheard.now
  const syns = new Map<number, number>()
  unheard.filter = (_to, bytes) => {
    if (!isIke(bytes)) syns.set(unheard.now, (syns.get(unheard.now) ?? 0) + 1)
    return isIke(bytes)
  }
  for (let i = 0; i < 500; i++) unheard.connect(new Stream(1, 1, 2))
  unheard.run(9000)
  const later = [...syns].filter(([at]) => at > start + 1500).map(([, count]) => count)
  t.ok(later.length > 0 && Math.max(...later) < 20, `${Math.max(...later)} at one moment`)
  t.end()
})
