/** MOBIKE (RFC 4555): what is told, asked and believed when an end is elsewhere. */
import t from 'tap'
import { formatAddress } from '../../lib/base/address.ts'
import { concat, equal, putU16 } from '../../lib/base/bytes.ts'
import { formatEndpoint, type Path } from '../../lib/base/path.ts'
import type { Session } from '../../lib/core/session.ts'
import { readAdditional } from '../../lib/ike/mobike.ts'
import { findNotify, notify } from '../../lib/wire/notify.ts'
import { ExchangeType, NotifyType } from '../../lib/wire/registry.ts'
import { pathFrom } from '../harness/attacker.ts'
import { Insider } from '../harness/insider.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const SIZE = 100_000
const ELSEWHERE = Uint8Array.of(203, 0, 113, 50)
const VICTIM = pathFrom(Uint8Array.of(203, 0, 113, 9), 53)
const UPDATE = notify(NotifyType.UpdateSaAddresses)
const INFORMATIONAL = ExchangeType.Informational

/** A quiet connection; `said`: the payloads of every message, by who received it. */
const open = (client: Options = {}, server: Options = {}) => {
  const said: { to: unknown; payloads: string; at: number }[] = []
  const world = new World(95, { ...PERFECT, delay: 20 }, client, server, {
    enabled: true,
    emit: ({ name, at, facts }) => {
      if (name === 'ike.request' || name === 'ike.response')
        said.push({ to: facts['side'], payloads: String(facts['payloads'] ?? ''), at })
    },
  })
  const stream = new Stream(SIZE, 1, 2)
  const serving = new Stream(SIZE, 2, 1)
  stream.budget = serving.budget = 1000
  world.serve = () => serving
  return { world, stream, serving, said, ...connect(world, stream) }
}

const connect = (world: World, stream: Stream) => {
  world.connect(stream)
  world.run(2000)
  const [own, theirs] = [world.sessions.client[0] as Session, world.sessions.server[0] as Session]
  return { own, theirs }
}

const finish = ({ world, stream, serving }: Omit<ReturnType<typeof open>, 'said'>): void => {
  for (const [core, end] of [
    [world.client, stream],
    [world.server, serving],
  ] as const) {
    end.budget = Infinity
    world.work(core, end)
  }
  world.run(120_000, () => stream.closed && serving.closed)
  t.equal(stream.error, undefined)
  t.equal(stream.received, SIZE)
  t.equal(serving.received, SIZE)
}

const has = (said: { payloads: string }[], name: string): boolean =>
  said.some(({ payloads }) => payloads.includes(name))

t.test(
  'a client that is elsewhere says so, and the server asks it there before it sends much',
  t => {
    const scene = open({}, { livenessInterval: 0 })
    const { world, said, theirs } = scene
    t.ok(said.filter(({ payloads }) => payloads.includes('MOBIKE_SUPPORTED')).length === 2)
    said.length = 0
    world.roam(ELSEWHERE, 40_001)
    world.run(500)
    const [update, answer] = ['server', 'client'].map(side => said.find(({ to }) => to === side)!)
    t.match(update!.payloads, /UPDATE_SA_ADDRESSES.*NAT_DETECTION.*COOKIE2/)
    t.match(
      answer!.payloads,
      /NAT_DETECTION_SOURCE_IP NAT_DETECTION_DESTINATION_IP COOKIE2|COOKIE2/,
    )
    t.equal(said.filter(({ payloads }) => payloads.includes('UPDATE_SA_ADDRESSES')).length, 1)
    const checks = said.filter(
      ({ to, payloads }) => to === 'client' && payloads.includes('COOKIE2'),
    )
    t.ok(checks.length >= 2, 'the answer, and a check of the path by the server')
    t.strictSame([...theirs.path.remoteAddress], [...ELSEWHERE])
    t.notOk(theirs['paths'].isOnTrial)
    finish(scene)
    t.end()
  },
)

t.test(
  'without MOBIKE at either end nothing of it is said, and roaming works between our own',
  t => {
    for (const [client, server] of [
      [{ mobike: false }, {}],
      [{}, { mobike: false }],
    ] as const) {
      const scene = open(client, server)
      const { world, said, theirs } = scene
      said.length = 0
      world.roam(ELSEWHERE, 40_001)
      world.run(500)
      t.notOk(has(said, 'UPDATE_SA_ADDRESSES') || has(said, 'COOKIE2'))
      t.strictSame([...theirs.path.remoteAddress], [...ELSEWHERE])
      finish(scene)
    }
    t.end()
  },
)

t.test(
  'another change while the answer is under way: it is told again, and the last one counts',
  t => {
    const scene = open()
    const { world, theirs } = scene
    for (let i = 1; i <= 5; i++) {
      world.roam(Uint8Array.of(203, 0, 113, i), 40_000 + i)
      world.run(15)
    }
    world.run(1000)
    t.equal(
      formatEndpoint(theirs.path.remoteAddress, theirs.path.remotePort),
      formatEndpoint(Uint8Array.of(203, 0, 113, 5), 40_005),
    )
    t.notOk(scene.own['paths'].mustUpdate)
    finish(scene)
    t.end()
  },
)

t.test('a rekey of the IKE SA keeps it', t => {
  const scene = open()
  const { world, said, own, theirs } = scene
  own.rekeyIke(world.now)
  world.client.touchSession(own, world.now)
  world.run(2000)
  said.length = 0
  world.roam(ELSEWHERE, 40_001)
  world.run(500)
  t.ok(has(said, 'UPDATE_SA_ADDRESSES'))
  t.strictSame([...theirs.path.remoteAddress], [...ELSEWHERE])
  finish(scene)
  t.end()
})

t.test('a peer of another make that no NAT changes moves by UPDATE_SA_ADDRESSES alone', t => {
  const scene = open({}, { livenessInterval: 0 })
  const { world, own, theirs } = scene
  for (const session of [own, theirs])
    session['lineage'].facts = { ...session.facts!, remoteBehindNat: false, localBehindNat: false }
  const [sa] = theirs['lineage'].sas
  sa!.peer = { ...sa!.peer!, isOurs: false }
  const home = formatEndpoint(theirs.path.remoteAddress, theirs.path.remotePort)
  // A probe from elsewhere tries a path (RFC 4555 §3.10).
  world.clientPort = 50_000
  own.probe(world.now)
  world.client.touchSession(own, world.now)
  world.run(500)
  t.equal(formatEndpoint(theirs.path.remoteAddress, theirs.path.remotePort), home)
  world.roam(ELSEWHERE, 50_000)
  world.run(500)
  t.strictSame([...theirs.path.remoteAddress], [...ELSEWHERE])
  finish(scene)
  t.end()
})

t.test(
  'a NAT that forgets sooner than keepalives come: the interval is halved, and it says so',
  t => {
    const scene = open({}, { livenessInterval: 0 })
    const { world, stream, serving, own, theirs } = scene
    world.run(100)
    const inside = { localAddress: Uint8Array.of(10, 0, 0, 5), localPort: 4500 }
    const behind = new World(96, { ...PERFECT, delay: 20 })
    behind.inside = inside
    behind.mappingTime = 12_000
    behind.serve = () => serving
    t.equal(own.info().natKeepalive, 0, 'no NAT is before it')
    t.ok(theirs.info().remoteBehindNat)
    const second = connect(behind, stream)
    t.equal(second.own.info().natKeepalive, 20_000)
    const { clientPort } = behind
    behind.run(60_000)
    t.equal(second.own.info().natKeepalive, 10_000)
    t.ok(behind.clientPort > clientPort, 'it was forgotten')
    const known = behind.clientPort
    behind.run(600_000)
    t.equal(behind.clientPort, known, 'and is never again')
    t.equal(second.own.info().natKeepalive, 10_000)
    t.equal(second.theirs.path.remotePort, known)
    const before = stream.received
    serving.budget = 500
    behind.work(behind.server, serving)
    behind.run(100)
    t.equal(stream.received, before + 500, 'a push arrives')
    t.end()
  },
)

t.test('a NAT that remembers for long: one check, then keepalives of one octet', t => {
  const world = new World(97, PERFECT, { idleTimeout: 0 }, { livenessInterval: 0 })
  world.inside = { localAddress: Uint8Array.of(10, 0, 0, 5), localPort: 4500 }
  world.mappingTime = 40_000
  const stream = new Stream(10_000, 1, 2)
  stream.budget = 100
  world.serve = () => new Stream(0, 2, 1)
  const { own } = connect(world, stream)
  const lengths: number[] = []
  world.filter = (to, bytes) => {
    if (to === 'server') lengths.push(bytes.length)
    return true
  }
  world.run(85_000)
  t.equal(lengths.filter(length => length === 1).length, 3, `${lengths.join()}`)
  t.equal(lengths.length, 4)
  t.equal(own.info().natKeepalive, 20_000)
  t.end()
})

t.test('allowNats: false lets a peer refuse us behind a NAT, at first and after a move', t => {
  const inside = { localAddress: Uint8Array.of(10, 0, 0, 5), localPort: 4500 }
  const begin = (isBehindNat: boolean) => {
    const world = new World(99, PERFECT, { allowNats: false, retransmit: { tries: 2 } })
    if (isBehindNat) world.inside = inside
    world.serve = () => new Stream(0, 2, 1)
    const stream = new Stream(10_000, 1, 2)
    stream.budget = 1000
    return { world, stream, ...connect(world, stream) }
  }
  const refused = begin(true)
  t.match(refused.stream.error, { code: 'UNEXPECTED_NAT_DETECTED' })
  t.equal(refused.world.server.saCount + refused.world.sessions.server.length <= 1, true)
  const { world, stream, theirs } = begin(false)
  t.equal(stream.error, undefined)
  // Between our own ends any message says where the peer is.
  const [sa] = theirs['lineage'].sas
  sa!.peer = { ...sa!.peer!, isOurs: false }
  world.roam(ELSEWHERE, 40_001)
  world.run(500)
  t.strictSame([...theirs.path.remoteAddress], [...ELSEWHERE], 'a move is no NAT')
  world.inside = inside
  world.roam(Uint8Array.of(203, 0, 113, 51), 40_001)
  world.run(500)
  t.strictSame([...theirs.path.remoteAddress], [...ELSEWHERE], 'and with one we are not followed')
  t.end()
})

// --- several addresses of the server ---

const SECOND = Uint8Array.of(192, 0, 2, 2)
const THIRD = Uint8Array.of(0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3)

t.test('a server tells its other addresses, and when they change', t => {
  const world = new World(98, PERFECT)
  const here = Uint8Array.of(192, 0, 2, 1)
  world.server.setOwnAddresses([here, SECOND, THIRD], world.now)
  world.serve = () => new Stream(0, 2, 1)
  const { own } = connect(world, new Stream(10_000, 1, 2))
  t.strictSame(own.otherAddresses, [SECOND, THIRD])
  world.server.setOwnAddresses([here, THIRD], world.now)
  world.run(100)
  t.strictSame(own.otherAddresses, [THIRD])
  world.server.setOwnAddresses([here], world.now)
  world.run(100)
  t.strictSame(own.otherAddresses, [])
  const before = world.datagrams
  world.server.setOwnAddresses([here], world.now)
  world.run(100)
  t.equal(world.datagrams, before, 'what is the same is not told again')
  t.end()
})

t.test(
  'the address in use is dead: the others are tried in turn, with little, and one is used',
  t => {
    for (const works of [SECOND, undefined]) {
      const scene = open({}, { livenessInterval: 0 })
      const { world, stream, own, theirs } = scene
      const [first] = world.serverAddresses
      world.serverAddresses.push(SECOND, THIRD)
      world.server.setOwnAddresses([THIRD, SECOND], world.now)
      world.run(500)
      for (const address of world.serverAddresses) if (address !== works) world.dead.add(address)
      const octets = new Map<string, number>()
      const pollTransmit = world.client.pollTransmit.bind(world.client)
      world.client.pollTransmit = (packet, now) => {
        const path = pollTransmit(packet, now)
        if (path !== undefined && !equal(path.remoteAddress, first!)) {
          const to = formatAddress(path.remoteAddress)
          octets.set(to, (octets.get(to) ?? 0) + packet.length)
        }
        return path
      }
      stream.budget = 5000
      world.work(world.client, stream)
      const from = world.now
      let [told, turn] = [0, 0]
      world.run(100_000, () => {
        const unanswered = world.events.filter(({ kind }) => kind === 'unanswered').length
        // As the endpoint does, which has sockets.
        if (unanswered > told && ++told > 1 && !own.isOver) {
          const others = own.otherAddresses
          world.tryServer(others[turn++ % others.length]!)
        }
        return own.isOver || theirs.info().children[0]!.octetsIn > 6000
      })
      const took = world.now - from
      if (works === undefined) {
        t.ok(own.isOver, 'it is given up as on one path')
        t.ok(took < 90_000, `${took} ms`)
        t.equal(octets.size, 2)
        for (const [to, sum] of octets) t.ok(sum < 2000, `${sum} octets to ${to}`)
      } else {
        t.ok(took < 5000, `${took} ms`)
        t.ok(equal(own.path.remoteAddress, works))
        finish(scene)
      }
    }
    t.end()
  },
)

// --- hostile ---

t.test('of a list of addresses without end eight are kept, and none that is no host', t => {
  const path = pathFrom(Uint8Array.of(192, 0, 2, 1), 4500)
  const ip4 = (...octets: number[]) =>
    notify(NotifyType.AdditionalIp4Address, Uint8Array.from(octets))
  const many = Array.from({ length: 10_000 }, (_, i) => ip4(10, 1, i >>> 8, i))
  t.equal(readAdditional(many, path)!.length, 8)
  const six = notify(NotifyType.AdditionalIp6Address, THIRD)
  t.strictSame(readAdditional([...many.slice(0, 20), six], path)![1], THIRD, 'of both families')
  const strange = [
    ip4(127, 0, 0, 1),
    ip4(224, 0, 0, 1),
    ip4(255, 255, 255, 255),
    ip4(0, 0, 0, 0),
    ip4(10, 1, 1),
    ip4(),
    notify(NotifyType.AdditionalIp6Address, new Uint8Array(4)),
    notify(NotifyType.AdditionalIp6Address, new Uint8Array(16)),
  ]
  t.strictSame(readAdditional(strange, path), [])
  t.equal(readAdditional([], path), undefined)
  t.strictSame(readAdditional([notify(NotifyType.NoAdditionalAddresses)], path), [])
  t.end()
})

const sumTo = (insider: Insider, { remoteAddress, remotePort }: Path): number =>
  insider.lastAnswers
    .filter(
      ({ path }) =>
        formatEndpoint(path.remoteAddress, path.remotePort) ===
        formatEndpoint(remoteAddress, remotePort),
    )
    .reduce((sum, { bytes }) => sum + bytes.length, 0)

t.test(
  'an insider that says it is at a victim brings it three times its octets, whatever it answers',
  t => {
    const insider = new Insider()
    const session = insider.session as Session
    const home = formatEndpoint(session.path.remoteAddress, session.path.remotePort)
    insider.ask([UPDATE], INFORMATIONAL, VICTIM)
    let received = sumTo(insider, VICTIM)
    t.ok(received > 0 && received <= 3 * 120, `${received} octets`)
    t.ok(session['paths'].isOnTrial)
    // It holds the keys, and knows the message ID of the check that went to the victim; not what is in it.
    for (const payloads of [[], [notify(NotifyType.Cookie2, new Uint8Array(16))]]) {
      insider.answer(payloads, 0, VICTIM)
      received += sumTo(insider, VICTIM)
    }
    t.equal(session['paths'].isOnTrial && !session.isOver, false, 'the SA has ended')
    t.ok(
      session.isOver ||
        formatEndpoint(session.path.remoteAddress, session.path.remotePort) === home,
    )
    t.ok(received <= 3 * 3 * 120, `${received} octets in all`)
    t.end()
  },
)

t.test('a recorded UPDATE_SA_ADDRESSES that comes from elsewhere later moves nobody', t => {
  const insider = new Insider()
  const session = insider.session as Session
  const recorded = insider.seal([UPDATE], INFORMATIONAL, 2)
  const own = insider.caller.path
  const from = pathFrom(own.localAddress, own.localPort)
  insider.target.send(recorded.slice(), from)
  const home = formatEndpoint(session.path.remoteAddress, session.path.remotePort)
  let octets = 0
  for (let i = 0; i < 100; i++) {
    for (const { bytes } of insider.target.send(recorded.slice(), VICTIM)) octets += bytes.length
  }
  t.equal(formatEndpoint(session.path.remoteAddress, session.path.remotePort), home)
  t.notOk(session['paths'].isOnTrial)
  t.ok(octets <= 3 * 8 * recorded.length, `${octets} octets went there`)
  t.end()
})

t.test('COOKIE2 is returned as it came, when its length is one that there may be', t => {
  const insider = new Insider()
  for (const length of [8, 16, 64]) {
    const data = new Uint8Array(length).fill(length)
    const answer = insider.ask([notify(NotifyType.Cookie2, data)], INFORMATIONAL)
    t.strictSame(findNotify(answer, NotifyType.Cookie2)?.data, data)
  }
  for (const length of [0, 7, 65, 1000]) {
    const answer = insider.ask([notify(NotifyType.Cookie2, new Uint8Array(length))], INFORMATIONAL)
    t.equal(findNotify(answer, NotifyType.Cookie2), undefined)
  }
  t.end()
})

t.test('NO_NATS_ALLOWED: what the header says must be what the sender meant', t => {
  const insider = new Insider()
  const session = insider.session as Session
  // Between our own ends any message says where the peer is.
  const [sa] = session['lineage'].sas
  sa!.peer = { ...sa!.peer!, isOurs: false }
  const home = formatEndpoint(session.path.remoteAddress, session.path.remotePort)
  const { localAddress, localPort, remoteAddress, remotePort } = session.path
  const ports = new Uint8Array(4)
  putU16(ports, 0, remotePort)
  putU16(ports, 2, localPort)
  const meant = concat(remoteAddress, localAddress, ports)
  const ask = (data: Uint8Array) =>
    insider.ask([UPDATE, notify(NotifyType.NoNatsAllowed, data)], INFORMATIONAL, VICTIM)
  for (const data of [meant, new Uint8Array(0), new Uint8Array(36), meant.subarray(1)]) {
    t.ok(findNotify(ask(data), NotifyType.UnexpectedNatDetected))
    t.equal(formatEndpoint(session.path.remoteAddress, session.path.remotePort), home)
  }
  const right = insider.ask([UPDATE, notify(NotifyType.NoNatsAllowed, meant)], INFORMATIONAL)
  t.equal(findNotify(right, NotifyType.UnexpectedNatDetected), undefined)
  t.end()
})
