/** Credentials that change while handshakes are under way: each is judged by one set of them, whole. */
import t from 'tap'
import { parseCredentials } from '../../lib/identity/credentials.ts'
import { parsePolicy } from '../../lib/policy/options.ts'
import { Caller, pathFrom, sourceAddress, Target } from '../harness/attacker.ts'

const OLD = 'the key that was valid before'
const NEW = 'the key that is valid from now on'

/** How a handshake ends whose `after`th datagram from the client is the first that meets the new key. */
const outcome = (clientKey: string, after: number): string => {
  const target = new Target({ psk: OLD })
  const caller = new Caller(sourceAddress(1), { psk: clientKey })
  const from = pathFrom(caller.path.localAddress, caller.path.localPort)
  const queue = caller.connect()
  for (let i = 0; queue.length > 0; i++) {
    if (i === after) {
      const all = { psk: NEW }
      target.core.setResponder({ policy: parsePolicy(all), credentials: parseCredentials(all) })
    }
    for (const { bytes } of target.send(queue.shift()!, from)) queue.push(...caller.receive(bytes))
  }
  const isUp = caller.connection !== undefined
  if (isUp !== (target.sessions.length === 1)) return 'each end believes something else'
  return isUp ? 'connected' : 'refused'
}

t.test(
  'a handshake that began before setCredentials ends by the old ones, later ones by the new',
  t => {
    t.equal(outcome(OLD, 0), 'refused')
    t.equal(outcome(NEW, 0), 'connected')
    t.equal(outcome(OLD, 1), 'connected', 'between IKE_SA_INIT and IKE_AUTH')
    t.equal(outcome(NEW, 1), 'refused', 'never by a mixture')
    t.equal(outcome(OLD, 2), 'connected', 'after IKE_AUTH')
    t.end()
  },
)

t.test(
  'a hundred changes beside a hundred handshakes leave neither half-open SAs nor strange ends',
  t => {
    const target = new Target({ psk: OLD })
    const ends = new Map<string, number>()
    for (let i = 0; i < 100; i++) {
      const caller = new Caller(
        sourceAddress(i + 1),
        { psk: i % 2 === 0 ? OLD : NEW },
        i,
        target.now,
      )
      const sent = caller.connect()
      const all = { psk: i % 3 === 0 ? NEW : OLD }
      target.core.setResponder({ policy: parsePolicy(all), credentials: parseCredentials(all) })
      caller.talk(target, sent)
      const end = caller.connection === undefined ? 'refused' : 'connected'
      ends.set(end, (ends.get(end) ?? 0) + 1)
      target.wait(100)
    }
    t.ok(ends.get('connected')! > 20 && ends.get('refused')! > 20, JSON.stringify([...ends]))
    t.equal(target.sessions.length, ends.get('connected'))
    target.wait(60_000)
    t.equal(target.core['strangers']!.count, 0)
    t.end()
  },
)
