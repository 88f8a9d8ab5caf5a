/** What the clients of a server may hold in all, and who gives way when that is scarce. */
import t from 'tap'
import { formatAddress } from '../../lib/base/address.ts'
import { Roster } from '../../lib/core/roster.ts'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { parsePolicy } from '../../lib/policy/options.ts'
import { Insider } from '../harness/insider.ts'
import { Caller, pathFrom, sourceAddress, Target, type Answer } from '../harness/attacker.ts'
import type { Options } from '../harness/world.ts'

/** Clients of one server, at addresses of their own; each gets what is sent to its address. */
class Clients {
  readonly target: Target
  private readonly callers = new Map<string, Caller>()

  constructor(server: Options) {
    this.target = new Target({ livenessInterval: 0, ...server })
  }

  /** One that stays connected, or has let go of its connection. */
  come(localId: string, isUsed = true, options: Options = {}): Caller {
    const i = this.callers.size + 1
    const address = sourceAddress(i)
    const all = { localId, idleTimeout: 0, livenessInterval: 0, ...options }
    const caller = new Caller(address, all, 100 + i, this.target.now)
    this.callers.set(formatAddress(address), caller)
    this.send(caller, caller.connect())
    if (!isUsed && caller.connection !== undefined) {
      caller.connection.abort()
      caller.core.wake(caller.connection, caller.now)
      this.send(caller, caller.drain())
    }
    return caller
  }

  /** From now on nobody hears it. */
  lose(caller: Caller): void {
    this.callers.set(formatAddress(caller.path.localAddress), new Caller(sourceAddress(0)))
  }

  send({ path }: Caller, datagrams: readonly Uint8Array[]): void {
    for (const bytes of datagrams)
      this.deliver(this.target.send(bytes, pathFrom(path.localAddress, path.localPort)))
  }

  private deliver(answers: readonly Answer[]): void {
    for (const { bytes, path } of answers) {
      const caller = this.callers.get(formatAddress(path.remoteAddress))
      if (caller !== undefined) this.send(caller, caller.receive(bytes))
    }
  }

  pass(millis: number): void {
    for (const end = this.target.now + millis; this.target.now < end;) {
      const step = Math.min(1000, end - this.target.now)
      this.deliver(this.target.wait(step))
      for (const caller of this.callers.values()) this.send(caller, caller.wait(step))
    }
  }

  get size(): number {
    return this.target.core['up'].size
  }
}

const isUp = ({ events }: Caller): boolean => events.some(({ kind }) => kind === 'connected')
const isDown = ({ events }: Caller): boolean => events.some(({ kind }) => kind === 'sessionDown')
const failure = ({ events }: Caller): unknown =>
  events.flatMap(event => (event.kind === 'failed' ? [event.error] : []))[0]

t.test('maxSessions: one more is told so, protected, and hears the end', async t => {
  const clients = new Clients({ maxSessions: 2 })
  const [a, b] = [clients.come('a.test'), clients.come('b.test')]
  t.ok(isUp(a) && isUp(b))
  const c = clients.come('c.test')
  t.match(failure(c), { code: 'NO_ADDITIONAL_SAS' })
  t.ok(isDown(c))
  t.equal(clients.size, 2)
  t.match(
    clients.target.events.find(({ kind }) => kind === 'refused'),
    { error: { code: 'ERR_IKE_SESSION_LIMIT' }, identity: 'c.test' },
  )
  clients.pass(60_000)
  t.equal(clients.target.core['sessions'].size, 2, 'nothing is left of it')
  t.equal(clients.target.sessions.length, 2, 'the application hears of those that came in alone')
  t.ok(isUp(clients.come('a.test', true, { initialContact: true })) === false, 'not bound: a third')
})

t.test('maxSessions: a session that nobody uses makes room, and not before it is old', async t => {
  const clients = new Clients({ maxSessions: 2 })
  const unused = clients.come('a.test', false)
  clients.come('b.test')
  t.notOk(isUp(clients.come('c.test')), 'it may be about to be used')
  clients.pass(10_000)
  t.ok(isUp(clients.come('c.test')))
  t.ok(isDown(unused))
  t.equal(clients.size, 2)
  t.notOk(isUp(clients.come('d.test')), 'and the others are in use')
})

t.test('maxSessions: a session of datagrams alone is in use while they go', async t => {
  const clients = new Clients({ maxSessions: 2 })
  const user = clients.come('a.test', false)
  clients.come('b.test')
  const { target } = clients
  const [session] = target.sessions
  const { localAddress, remoteAddress } = session!.path
  const ends = { localAddress, localPort: 5000, remoteAddress, remotePort: 5000 }
  const flow = { ...ends, protocol: 17 } as const
  const send = (): void =>
    void target.core.sendDatagram(session!, flow, Uint8Array.of(1), target.now)
  for (let seconds = 0; seconds < 30; seconds += 5) {
    send()
    clients.pass(5000)
  }
  t.notOk(isUp(clients.come('c.test')))
  clients.pass(6000)
  t.ok(isUp(clients.come('c.test')), 'idle since the last of them')
  t.ok(isDown(user))
})

t.test('maxSessions: an identity leaves as many places as it has, others get one each', async t => {
  const clients = new Clients({ maxSessions: 8 })
  const greedy = Array.from({ length: 8 }, () => clients.come('greedy.test'))
  t.equal(greedy.filter(isUp).length, 4)
  const others = Array.from({ length: 5 }, (_, i) => clients.come(`${i}.test`))
  t.equal(others.filter(isUp).length, 4)
  t.equal(clients.size, 8)
})

t.test('maxSessions: of those that nobody uses, one of the identity with most goes', async t => {
  const clients = new Clients({ maxSessions: 6 })
  const single = clients.come('single.test', false)
  const many = Array.from({ length: 3 }, () => clients.come('many.test', false))
  clients.come('c.test')
  clients.come('d.test')
  clients.pass(20_000)
  t.ok(isUp(clients.come('e.test')))
  t.equal(many.filter(isDown).length, 1)
  t.notOk(isDown(single))
})

t.test(
  'maxSessionsPerIdentity: its own oldest goes where it is unused, others come in',
  async t => {
    const clients = new Clients({ maxSessionsPerIdentity: 2 })
    const [used, unused] = [clients.come('a.test'), clients.come('a.test', false)]
    t.notOk(isUp(clients.come('a.test')))
    t.ok(isUp(clients.come('b.test')))
    clients.pass(10_000)
    t.ok(isUp(clients.come('a.test')))
    t.ok(isDown(unused))
    t.notOk(isDown(used))
    t.notOk(isUp(clients.come('a.test')))
  },
)

t.test('maxSessionsPerIdentity: where it is full, those that may be gone are asked', async t => {
  const clients = new Clients({ maxSessionsPerIdentity: 1 })
  clients.lose(clients.come('a.test'))
  t.notOk(isUp(clients.come('a.test')))
  clients.pass(90_000)
  t.equal(clients.size, 0)
  t.ok(isUp(clients.come('a.test')))
})

t.test('a peer that joins its session, or starts anew, needs no other place', async t => {
  const psk = { 'a.test': 'the key of a alone, 32 octets long' }
  const clients = new Clients({ maxSessions: 1, psk })
  const options = { psk: psk['a.test'], initialContact: true }
  const a = clients.come('a.test', true, options)
  t.ok(isUp(a))
  a.sessions[0]!.reauthenticate(a.now)
  a.core.touchSession(a.sessions[0]!, a.now)
  clients.send(a, a.drain())
  t.notOk(isDown(a))
  t.equal(clients.target.events.filter(({ kind }) => kind === 'refused').length, 0)
  t.ok(isUp(clients.come('a.test', true, options)), 'it has lost everything')
  t.equal(clients.size, 1)
})

t.test('sessionIdleTimeout: an SA without connections ends after it', async t => {
  const clients = new Clients({ sessionIdleTimeout: 5000 })
  const [used, unused] = [clients.come('a.test'), clients.come('b.test', false)]
  clients.pass(4900)
  t.equal(clients.size, 2)
  clients.pass(200)
  t.ok(isDown(unused))
  t.notOk(isDown(used))
  clients.pass(3_600_000)
  t.equal(clients.size, 1, 'the one in use stays')
})

t.test('the roster counts what a walk would find', async t => {
  const roster = new Roster<number>()
  const limits = { maxSessions: 100, maxSessionsPerIdentity: 0 }
  for (let i = 0; i < 60; i++) roster.add(i, `k${i % 3}`)
  for (let i = 0; i < 60; i += 2) roster.noteUse(i, false, i)
  for (let i = 0; i < 30; i++) roster.delete(i)
  t.equal(roster.size, 30)
  t.strictSame([...roster.of('k1')], [31, 34, 37, 40, 43, 46, 49, 52, 55, 58])
  t.equal(roster['idle'].size, 15)
  t.equal(roster.place('k1', limits, 1e6).kind, 'free')
  t.strictSame(roster.place('new', { ...limits, maxSessions: 30 }, 1e6), {
    kind: 'instead',
    of: 30,
  })
  t.equal(roster.place('k1', { ...limits, maxSessionsPerIdentity: 10 }, 1e6).kind, 'instead')
  for (let i = 30; i < 60; i++) roster.delete(i)
  t.equal(roster['holders'].size + roster['idle'].size, 0)
})

t.test('maxConnectionsPerSession: those of one client, whatever others have', async t => {
  const insider = new Insider({ maxConnectionsPerSession: 3 })
  const { spi } = insider.child('10.9.9.9[tcp]', '192.0.2.1[tcp]')
  const between = { source: '10.9.9.9', destination: '192.0.2.1' }
  // Beside the first, which is the client's own.
  const [a, b, c] = [1, 2, 3].map(port => insider.open(spi!, port, between))
  t.ok(a !== undefined && b !== undefined)
  t.equal(c, undefined)
  t.equal(insider.target.drops('tcp.maxConnections'), 1)
  a!.abort()
  // Else the reset and the answer to the next SYN share an ESP packet.
  insider.target.core.touchSession(insider.target.sessions[0]!, insider.target.now)
  insider.target.drain()
  t.ok(insider.open(spi!, 4, between))
})

t.test('maxBufferPerSession: what all connections of a client leave unread', async t => {
  const insider = new Insider({ maxBufferPerSession: 1 << 20 })
  const { spi } = insider.child('10.9.9.9[tcp]', '192.0.2.1[tcp]')
  const between = { source: '10.9.9.9', destination: '192.0.2.1' }
  const data = new Uint8Array(1000)
  const open = Array.from(
    { length: 20 },
    (_, i) => insider.open(spi!, i + 1, between) as TcpConnection,
  )
  for (let i = 0; i < 64; i++) {
    for (const { remotePort: source, sndNxt: ack } of open)
      insider.segment(spi!, { source, destination: 80, seq: 2 + 1000 * i, ack, data }, between)
  }
  const held = open.reduce((sum, connection) => sum + connection.readableLength, 0)
  t.ok(held > 1_000_000 && held <= (1 << 20) + 20 * 5500, `${held} octets`)
})

t.test('the options of sessions: their defaults and ranges', async t => {
  t.strictSame(parsePolicy({}).limits, {
    maxSessions: 10_000,
    maxSessionsPerIdentity: 0,
    sessionIdleTimeout: 0,
    maxConnectionsPerSession: 10_000,
    maxBufferPerSession: 64 << 20,
    maxBuffer: 256 << 20,
  })
  for (const [name, values] of Object.entries({
    maxSessions: [0, -1, 1.5, '10', NaN],
    maxSessionsPerIdentity: [-1, Infinity],
    sessionIdleTimeout: [-1, 999, 2 ** 31],
    maxConnectionsPerSession: [0, '1'],
    maxBufferPerSession: [0, 2 ** 20 - 1, Infinity],
    maxBuffer: [0, 2 ** 20 - 1, Infinity],
  })) {
    for (const value of values)
      t.throws(() => parsePolicy({ [name]: value }), { message: new RegExp(name) })
  }
})
