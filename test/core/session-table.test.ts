/** What a core with many sessions does for one of them, counted instead of timed. */
import t, { type Test } from 'tap'
import type { Path } from '../../lib/base/path.ts'
import { Session } from '../../lib/core/session.ts'
import { makePrincipal } from '../../lib/identity/principal.ts'
import type { PeerFacts } from '../../lib/ike/exchange.ts'
import type { IkeSa } from '../../lib/ike/ike-sa.ts'
import { PERFECT, Stream, World } from '../harness/world.ts'

const MANY = 2000

/** Sessions of others, with peers that have identities of their own, at rest. */
const fill = (world: World, count: number): Session[] => {
  const core = world.server
  const { policy, credentials } = core['config'].responder!
  const model = world.sessions.server[0]!
  // Nothing of it is asked here but whether it is established and has something to do.
  const sa = {
    state: 'established',
    nextTimeout: () => Infinity,
    pollTransmit: () => undefined,
    pollOutput: () => undefined,
    abandon: () => undefined,
  } as unknown as IkeSa
  return Array.from({ length: count }, (_, i) => {
    const remoteAddress = Uint8Array.of(10, 1, i >>> 8, i)
    const path: Path = { ...model.path, remoteAddress }
    const session = new Session(core['sessionHost'], policy, credentials, path)
    const identity = { type: 2, data: Uint8Array.of(110, i >>> 8, i) }
    const principal = makePrincipal(identity, model.peer.principal.proof)
    const facts: PeerFacts = { ...model.peer, identity, principal }
    session['lineage'].facts = facts
    session['lineage'].add(sa)
    core['sessions'].add(session)
    core['noteUp'](session)
    core['touch'](session, world.now)
    return session
  })
}

/** The sessions of which anything is asked, or that are told anything, while `act` runs. */
const asked = (act: () => void): Set<Session> => {
  const seen = new Set<Session>()
  const { prototype } = Session
  const before = Object.getOwnPropertyDescriptors(prototype)
  for (const [name, { value, get }] of Object.entries(before)) {
    if (name === 'constructor') continue
    const note = (inner: (...given: unknown[]) => unknown) =>
      function (this: Session, ...given: unknown[]): unknown {
        seen.add(this)
        return inner.apply(this, given)
      }
    if (typeof value === 'function')
      Object.defineProperty(prototype, name, {
        value: note(value as () => unknown),
        configurable: true,
        writable: true,
      })
    else if (get !== undefined)
      Object.defineProperty(prototype, name, { get: note(get), configurable: true })
  }
  try {
    act()
  } finally {
    Object.defineProperties(prototype, before)
  }
  return seen
}

/** A server with a client that is connected, and very many other sessions. */
const crowd = (t: Test) => {
  const world = new World(71, PERFECT, { localId: 'client.test' }, { livenessInterval: 0 })
  const stream = new Stream(100_000, 1, 2)
  stream.budget = 100
  world.connect(stream)
  world.run(1000)
  const [own] = world.sessions.server as Session[]
  t.ok(own)
  const others = fill(world, MANY)
  // What is new is looked at once.
  while (world.server.pollTransmit(world['packet'], world.now) !== undefined);
  t.notOk(world.server.hasUndelivered)
  return { world, stream, own: own!, others }
}

t.test('a segment, and all that the loop asks after it, concerns its own session alone', t => {
  const { world, stream, own } = crowd(t)
  const { server } = world
  const seen = asked(() => {
    stream.budget = 1000
    world.work(world.client, stream)
    world.run(200)
    t.notOk(server.hasUndelivered)
    t.notOk(server.isSettled)
    t.notOk(server.isIdle)
    t.equal(server.connectionCount, 1)
  })
  const client = world.sessions.client[0] as Session
  t.strictSame(
    [...seen]
      .map(session => (session === own ? 'own' : session === client ? 'client' : 'other'))
      .sort(),
    ['client', 'own'],
  )
  t.end()
})

/** How often another `Set` or `Map` than that one changes while `act` runs: each change may make a new table of it. */
const tableChanges = (except: object, act: () => void): number => {
  let count = 0
  const prototypes = [Set.prototype, Map.prototype] as object[]
  const before = prototypes.map(prototype => Object.getOwnPropertyDescriptors(prototype))
  for (const [i, prototype] of prototypes.entries()) {
    for (const name of ['add', 'set', 'delete', 'clear']) {
      const inner = before[i]![name]?.value as ((...given: unknown[]) => unknown) | undefined
      if (inner === undefined) continue
      const value = function (this: object, ...given: unknown[]): unknown {
        if (this !== except) count++
        return inner.apply(this, given)
      }
      Object.defineProperty(prototype, name, { value, configurable: true, writable: true })
    }
  }
  try {
    act()
  } finally {
    for (const [i, prototype] of prototypes.entries())
      Object.defineProperties(prototype, before[i]!)
  }
  return count
}

t.test('a transfer that goes on changes no table for each datagram', t => {
  const world = new World(73, PERFECT, {}, { livenessInterval: 0 })
  const stream = new Stream(2_000_000, 1, 2)
  stream.budget = 500_000
  world.connect(stream)
  world.run(3000)
  const { counters } = world.server
  const before = counters.datagramsIn
  const changes = tableChanges(world['ivs'], () => {
    stream.budget = 2_000_000
    world.work(world.client, stream)
    world.run(3000)
    t.notOk(world.server.hasUndelivered)
  })
  const datagrams = counters.datagramsIn - before
  t.ok(datagrams > 500, `${datagrams} datagrams`)
  t.ok(changes < datagrams / 50, `${changes} changes`)
  t.end()
})

t.test('a first contact, an INITIAL_CONTACT and an end are looked up, not searched for', t => {
  const { world, own } = crowd(t)
  const { server } = world
  const host = server['sessionHost']
  const seen = asked(() => {
    t.equal(host.isFirstContact(own), true, 'we have not opened any')
    host.initialContact(own, world.now)
    server['forget'](own)
  })
  t.strictSame([...seen], [own])
  t.end()
})

t.test('what the table counts is what a walk over all sessions finds', t => {
  const world = new World(72, { ...PERFECT, loss: 0.1, jitter: 30 }, {}, {})
  const check = (): void => {
    for (const core of [world.client, world.server]) {
      const table = core['sessions']
      const all = [...table]
      const count = all.reduce((sum, session) => sum + session.connectionCount, 0)
      t.equal(core.connectionCount, count)
      t.equal(
        core.isSettled,
        all.every(session => session.isOver),
      )
      t.equal(
        core.hasUndelivered,
        all.some(session => session.hasUndelivered),
      )
    }
  }
  for (let round = 0; round < 4; round++) {
    const stream = new Stream(5000, 1, 2)
    world.serve = () => new Stream(5000, 2, 1)
    world.connect(stream)
    for (let i = 0; i < 100 && !stream.closed; i++) {
      world.run(50)
      check()
    }
    t.equal(stream.error, undefined)
    stream.connection?.release(world.now)
    // Another address each time: its session moves, or is another one.
    world.clientPort++
    if (round === 1) world.sessions.client.at(-1)!.close(world.now)
    if (round === 1) world.client.touchSession(world.sessions.client.at(-1)!, world.now)
    world.run(2000)
    check()
  }
  world.client.close(world.now)
  world.run(100_000)
  check()
  t.equal(world.client['sessions'].size, 0)
  t.equal(world.server['sessions'].size, 0)
  t.equal(world.server['up'].size, 0)
  t.equal(world.server['questions'].size, 0)
  t.end()
})
