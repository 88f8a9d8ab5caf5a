/** IKE that comes as a server does not expect it: without the non-ESP marker (RFC 3948 §2.2), or of version 1 (RFC 9395). */
import t from 'tap'
import { concat } from '../../lib/base/bytes.ts'
import type { TraceEvent } from '../../lib/base/trace.ts'
import {
  Caller,
  datagramOf,
  initRequest,
  messageOf,
  pathFrom,
  sourceAddress,
  Target,
} from '../harness/attacker.ts'

/** A client that is at port 500, so that it writes no marker. `floatsTo`: it changes to port 4500 after IKE_SA_INIT. */
const unmarkedCaller = (floats: boolean): Caller => {
  const caller = new Caller(sourceAddress(1))
  const floated = { ...caller.path, localPort: 4500 }
  const path = { ...caller.path, localPort: 500, isUnmarked: true }
  return Object.assign(caller, { path: floats ? { ...path, floatsTo: floated } : path })
}

t.test('a client at port 500 that writes no marker is answered without one', t => {
  const target = new Target()
  unmarkedCaller(false).talk(target)
  t.equal(target.sessions.length, 1)
  t.equal(target.drops('esp.unknownSpi'), 0)
  t.end()
})

t.test('it may change to port 4500, and writes markers from there', t => {
  const target = new Target()
  const caller = unmarkedCaller(true)
  const [first] = caller.connect()
  const from = (port: number) => pathFrom(sourceAddress(1), port)
  const [init] = target.send(first!, from(500))
  t.equal(init!.bytes[18], 34, 'no marker')
  const { path } = caller
  caller.core.handleDatagram(init!.bytes.slice(), path, caller.now)
  const [auth] = caller.drain()
  t.equal(auth![4 + 18], 35, 'a marker')
  const [answer] = target.send(auth!, from(4500))
  t.equal(answer!.path.remotePort, 4500)
  t.equal(answer!.bytes[4 + 18], 35)
  t.equal(target.sessions.length, 1)
  t.end()
})

t.test('E7: a first message without its marker does not end the handshake of its sender', t => {
  const target = new Target()
  const caller = new Caller(sourceAddress(1))
  const from = pathFrom(sourceAddress(1), 40_001)
  const [first] = caller.connect()
  const [forged] = target.send(messageOf(first!), from)
  t.equal(forged!.bytes[18], 34)
  t.strictSame(caller.receive(forged!.bytes), [], 'the client cannot read it')
  caller.talk(target, [first!])
  t.equal(target.sessions.length, 1)
  // And later it says nothing about where the client is.
  const [session] = target.sessions
  session!.rekeyIke(target.now)
  target.core.touchSession(session!, target.now)
  const [request] = target.drain()
  t.equal(request!.bytes[4 + 18], 36, 'it still gets markers')
  const answer = caller.receive(request!.bytes)[0]!
  t.strictSame(target.send(messageOf(answer), from), [])
  t.equal(target.drops('ike.noMarker'), 1, 'and must write them')
  t.equal(session!.info().ikeRekeys, 0)
  target.send(answer, from)
  t.equal(session!.info().ikeRekeys, 1)
  t.end()
})

t.test('an ESP packet that only looks a little like IKE is an ESP packet', t => {
  const target = new Target()
  const message = initRequest()
  for (const change of [
    (octets: Uint8Array) => octets.fill(0x21, 17, 18),
    (octets: Uint8Array) => octets.fill(1, 24, 25),
    (octets: Uint8Array) => octets.fill(1, 27, 28),
  ]) {
    const octets = message.slice()
    change(octets)
    target.send(octets)
  }
  t.equal(target.drops('esp.unknownSpi'), 3)
  const answer = message.slice()
  answer[19] = 0x20
  target.send(answer)
  t.equal(target.drops('ike.noMarker'), 1)
  t.end()
})

t.test('IKEv1 is counted, traced and told by its name, and not answered', t => {
  const seen: TraceEvent[] = []
  const target = new Target({}, 1, { enabled: true, emit: event => void seen.push(event) })
  /** RFC 2408 §3.1: cookies, next payload SA, version 1.0, flags, message ID, length; a body of no interest. */
  const version1 = (exchange: number, cookieR = 0): Uint8Array =>
    concat(
      new Uint8Array(8).fill(0x61),
      new Uint8Array(8).fill(cookieR),
      Uint8Array.of(1, 0x10, exchange, 0, 0, 0, 0, 0, 0, 0, 0, 28 + 4, 0, 0, 0, 4),
    )
  const MAIN = 2
  const AGGRESSIVE = 4
  for (const message of [version1(MAIN), version1(AGGRESSIVE), version1(5, 9), version1(34)]) {
    t.strictSame(target.send(datagramOf(message)), [])
    t.strictSame(target.send(message), [], 'without a marker')
  }
  t.equal(target.drops('ike.v1'), 8)
  t.equal(target.events.length, 1, 'told once a second at most')
  t.match(target.events[0], {
    kind: 'refused',
    error: { code: 'INVALID_MAJOR_VERSION', message: /IKEv1/ },
  })
  t.match(
    seen.filter(({ name }) => name === 'ike.refused'),
    [{ facts: { code: 'INVALID_MAJOR_VERSION', why: /IKEv1/ } }],
  )
  target.wait(1000)
  target.send(datagramOf(version1(MAIN)))
  t.equal(target.events.length, 2)
  const caller = new Caller(sourceAddress(1))
  caller.receive(datagramOf(version1(MAIN)))
  t.equal(caller.core.counters.drops['ike.v1'], 1)
  t.end()
})
