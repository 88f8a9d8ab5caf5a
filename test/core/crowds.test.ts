/** Many clients at once: they do not refuse each other, live side by side, and come back together (RFC 6290, RFC 7296 §2.4). */
import t from 'tap'
import { toHex } from '../../lib/base/bytes.ts'
import { sourceAddress } from '../harness/attacker.ts'
import { Crowd } from '../harness/crowd.ts'

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
