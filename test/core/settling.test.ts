/** What packets and commands lead to is carried on late, and nobody who asks sees that. */
import t from 'tap'
import { Caller, pathFrom, sourceAddress, Target } from '../harness/attacker.ts'

const write = ({ connection, core, now }: Caller): void => {
  connection!.setNoDelay(true)
  connection!.send(Buffer.from('x'))
  core.wake(connection!, now)
}

const start = (): { target: Target; caller: Caller } => {
  const target = new Target({ livenessInterval: 0 })
  const caller = new Caller(sourceAddress(1), { livenessInterval: 0, idleTimeout: 0 })
  caller.talk(target)
  // The first ones are acknowledged at once.
  for (let i = 0; i < 40; i++) {
    write(caller)
    caller.talk(target, caller.drain())
    for (const end of [target, caller]) end.wait(100)
  }
  return { target, caller }
}

t.test('a deadline that a segment brings is known at once', t => {
  const { target, caller } = start()
  t.ok(target.core.nextTimeout() > target.now + 1000, 'nothing is due before')
  write(caller)
  const [datagram] = caller.drain()
  const { localAddress, localPort } = caller.path
  target.core.handleDatagram(datagram!, pathFrom(localAddress, localPort), target.now)
  // The delayed ACK of our own ends.
  t.ok(target.core.nextTimeout() <= target.now + 5, `${target.core.nextTimeout() - target.now} ms`)
  t.equal(target.core.pollEvent()?.kind, 'readable')
  t.end()
})

t.test('a connection that was given up counts no more', t => {
  const { caller } = start()
  t.equal(caller.core.connectionCount, 1)
  caller.connection!.abort()
  caller.core.wake(caller.connection!, caller.now)
  t.equal(caller.core.connectionCount, 0)
  t.end()
})

t.test('what waits to arrive counts as soon as its owner has let go', t => {
  const { caller } = start()
  t.notOk(caller.core.hasUndelivered)
  caller.connection!.send(Buffer.from('x'))
  caller.connection!.release(caller.now)
  caller.core.wake(caller.connection!, caller.now)
  t.ok(caller.core.hasUndelivered)
  t.end()
})

t.test('events of several sessions come in the order of what caused them', t => {
  const target = new Target({ livenessInterval: 0 })
  const callers = [1, 2, 3].map(i => {
    const caller = new Caller(sourceAddress(i), { livenessInterval: 0, localId: `c${i}` }, 90 + i)
    caller.talk(target)
    return caller
  })
  target.wait(100)
  const accepted = target.events.flatMap(event =>
    event.kind === 'accepted' ? [event.connection] : [],
  )
  t.equal(accepted.length, 3)
  const order = [1, 0, 2, 0]
  for (const at of order) {
    const caller = callers[at]!
    caller.wait(100)
    write(caller)
    const { localAddress, localPort } = caller.path
    for (const datagram of caller.drain())
      target.core.handleDatagram(datagram, pathFrom(localAddress, localPort), target.now)
  }
  const told: number[] = []
  for (let event = target.core.pollEvent(); event; event = target.core.pollEvent()) {
    if (event.kind === 'readable') told.push(accepted.indexOf(event.connection))
  }
  t.strictSame(told, order)
  t.end()
})
