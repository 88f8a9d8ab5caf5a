/** NATs between the ends (RFC 7296 §2.23, RFC 3948 §4), and paths that take small packets only. */
import t from 'tap'
import { toHex } from '../../lib/base/bytes.ts'
import type { Session } from '../../lib/core/session.ts'
import { FragmentSize } from '../../lib/ike/fragmentation.ts'
import { isIke } from '../harness/attacker.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const INSIDE = { localAddress: Uint8Array.of(10, 0, 0, 5), localPort: 4500 }

const open = (isBehindNat: boolean, client: Options = {}, server: Options = {}) => {
  const world = new World(51, PERFECT, client, server)
  if (isBehindNat) world.inside = INSIDE
  const stream = new Stream(50_000, 1, 2)
  const serving = new Stream(50_000, 2, 1)
  stream.budget = 1000
  serving.budget = 1000
  world.serve = () => serving
  const keepalives = { client: 0, server: 0 }
  world.filter = (to, bytes) => {
    if (bytes.length === 1) keepalives[to]++
    return true
  }
  world.connect(stream)
  world.run(1000)
  t.equal(world.accepted.length, 1)
  return { world, stream, serving, keepalives }
}

t.test(
  'keepalives go out behind a NAT or where they are wanted, after silence only, at the interval that was set',
  t => {
    const options = { natKeepalive: 10_000, livenessInterval: 0 }
    const quiet = open(true, options, { livenessInterval: 0 })
    t.equal(quiet.world.sessions.client[0]!.info().localBehindNat, true)
    quiet.world.run(100_000)
    t.ok(
      quiet.keepalives.server >= 9 && quiet.keepalives.server <= 10,
      `${quiet.keepalives.server}`,
    )
    t.equal(quiet.keepalives.client, 0, 'the other end sends none')
    const busy = open(true, options, { livenessInterval: 0 })
    for (let i = 0; i < 20; i++) {
      busy.stream.budget = 100
      busy.world.work(busy.world.client, busy.stream)
      busy.world.run(5000)
    }
    t.equal(busy.keepalives.server, 0)
    const direct = open(false, { livenessInterval: 0 }, { livenessInterval: 0 })
    t.equal(direct.world.sessions.client[0]!.info().localBehindNat, false)
    t.equal(direct.world.sessions.client[0]!.info().natKeepalive, 0)
    direct.world.run(100_000)
    t.equal(direct.keepalives.server, 0)
    // A firewall forgets as a NAT does, and only whoever is behind it knows of it.
    const firewall = open(false, options, { livenessInterval: 0 })
    t.equal(firewall.world.sessions.client[0]!.info().natKeepalive, 10_000)
    firewall.world.run(100_000)
    t.ok(firewall.keepalives.server >= 9, `${firewall.keepalives.server}`)
    const off = open(true, { natKeepalive: 0, livenessInterval: 0 }, { livenessInterval: 0 })
    off.world.run(100_000)
    t.equal(off.keepalives.server, 0)
    t.end()
  },
)

t.test(
  'our NAT gives us another port, or address, in the middle of a transfer: nothing is lost',
  t => {
    for (const change of ['port', 'address', 'both'] as const) {
      const { world, stream, serving } = open(true)
      const [session] = world.sessions.server
      stream.budget = 20_000
      serving.budget = 20_000
      world.work(world.client, stream)
      world.work(world.server, serving)
      world.run(10)
      if (change !== 'address') world.clientPort = 50_505
      if (change !== 'port') world.clientAddress = Uint8Array.of(203, 0, 113, 9)
      stream.budget = Infinity
      serving.budget = Infinity
      world.work(world.client, stream)
      world.work(world.server, serving)
      world.run(60_000, () => stream.closed)
      t.equal(stream.error, undefined)
      t.equal(stream.received, 50_000)
      t.equal(serving.received, 50_000)
      t.equal(session!.path.remotePort, world.clientPort)
      t.equal(toHex(session!.path.remoteAddress), toHex(world.clientAddress))
    }
    t.end()
  },
)

t.test('a new mapping is learnt from IKE too: a probe of a client that only receives', t => {
  const { world, stream, serving } = open(true, { livenessInterval: 1000 }, { livenessInterval: 0 })
  world.clientPort = 50_505
  serving.budget = Infinity
  stream.budget = Infinity
  world.work(world.server, serving)
  const messages: number[] = []
  world.filter = (to, bytes) => {
    // Of the client, nothing but IKE gets out.
    if (to === 'server' && isIke(bytes)) messages.push(world.now)
    return to === 'client' || isIke(bytes)
  }
  world.client.handleRefusal(world.now)
  world.pump()
  world.run(5000)
  t.ok(messages.length > 0)
  t.equal(world.sessions.server[0]!.path.remotePort, 50_505)
  world.filter = () => true
  world.work(world.client, stream)
  world.run(60_000, () => stream.closed)
  t.equal(stream.received, 50_000)
  t.end()
})

t.test('a rekey, a probe and a Delete reach a client whose mapping has changed', t => {
  const { world } = open(true)
  const [session] = world.sessions.client
  for (const act of ['rekeyIke', 'rekeyChild', 'close'] as const) {
    world.clientPort++
    session![act](world.now)
    world.client.touchSession(session!, world.now)
    world.run(5000)
  }
  t.equal(session!.info().ikeRekeys, 1)
  t.equal(session!.info().childRekeys, 1)
  world.run(60_000)
  t.ok(world.server.isIdle)
  t.end()
})

/** A client whose mapping is gone sends small probes from `address`, and the server has something large to ask. */
const forgotten = (address: Uint8Array) => {
  const client = { livenessInterval: 20_000, natKeepalive: 0 }
  const { world } = open(true, client, { livenessInterval: 0, retransmit: { tries: 9 } })
  world.run(20_000)
  world.clientPort++
  world.clientAddress = address
  const session = world.sessions.server[0] as Session
  session.rekeyIke(world.now)
  world.server.touchSession(session, world.now)
  return { world, session }
}

for (const [what, address] of [
  ['port', Uint8Array.of(198, 51, 100, 7)],
  ['address', Uint8Array.of(203, 0, 113, 7)],
] as const) {
  t.test(
    `a request under way reaches a client that has another ${what} and sends probes alone`,
    t => {
      const { world, session } = forgotten(address)
      world.run(300_000, () => session.info().ikeRekeys === 1)
      t.equal(session.info().ikeRekeys, 1)
      world.run(2000)
      t.strictSame(session.path.remoteAddress, address)
      t.equal(session.path.remotePort, world.clientPort)
      t.notOk(session['paths'].isOnTrial)
      t.end()
    },
  )
}

t.test('both ends can rekey what runs in transport mode through a NAT', t => {
  for (const side of ['client', 'server'] as const) {
    for (const mode of ['transport', 'tunnel'] as const) {
      const { world, stream, serving } = open(true, { mode })
      const [session] = world.sessions[side]
      for (let i = 1; i <= 3; i++) {
        session!.rekeyChild(world.now)
        world[side].touchSession(session!, world.now)
        world.run(2000)
        t.equal(session!.info().childRekeys, i, `${side}, ${mode}`)
      }
      stream.budget = Infinity
      serving.budget = Infinity
      world.work(world.client, stream)
      world.work(world.server, serving)
      world.run(60_000, () => stream.closed)
      t.equal(stream.received, 50_000)
    }
  }
  t.end()
})

t.test('large IKE messages pass a path of 1280 octets in fragments', t => {
  // An identity of two thousand octets makes IKE_AUTH as large as certificates do.
  const large = { localId: `@#${'5a'.repeat(2000)}` }
  const run = (client: Options, server: Options, limit: number) => {
    const world = new World(52, PERFECT, { ...large, ...client }, { ...large, ...server })
    let largest = 0
    let fragments = 0
    world.filter = (_to, bytes) => {
      if (!isIke(bytes)) return true
      if (bytes[20] === 53) fragments++
      largest = Math.max(largest, bytes.length + 28)
      return bytes.length + 28 <= limit
    }
    const stream = new Stream(1000, 1, 2)
    world.connect(stream)
    world.run(100_000, () => stream.closed)
    return { error: stream.error, largest, fragments }
  }
  const plain = run({}, {}, 1280)
  t.equal(plain.error, undefined)
  t.ok(plain.largest <= 1280 && plain.fragments >= 4, `${plain.largest}, ${plain.fragments}`)
  const small = run(
    { fragmentSize: 576, ike: 'aes256gcm16-prfsha256-x25519' },
    { fragmentSize: 600 },
    600,
  )
  t.equal(small.error, undefined)
  t.ok(small.largest <= 600 && small.fragments >= 10, `${small.largest}, ${small.fragments}`)
  const none = run({ fragmentation: false }, {}, 65535)
  t.equal(none.error, undefined)
  t.equal(none.fragments, 0)
  t.ok(none.largest > 2000)
  const lost = run({}, { fragmentation: false }, 1280)
  t.equal((lost.error as { code?: string } | undefined)?.code, 'ETIMEDOUT')
  t.end()
})

t.test(
  'what a path does not let through is cut into smaller fragments, requests and answers',
  t => {
    const large = { localId: `@#${'5a'.repeat(2000)}` }
    const plain = { localId: 'small.test', ike: 'aes256gcm16-prfsha256-x25519' }
    const connect = (
      client: Options,
      server: Options,
      limits: { client: number; server: number },
    ) => {
      const world = new World(53, PERFECT, client, server)
      const largest = { client: 0, server: 0 }
      world.filter = (to, bytes) => {
        const octets = bytes.length + 28
        if (octets > limits[to]) return false
        largest[to] = Math.max(largest[to], octets)
        return true
      }
      const stream = new Stream(1000, 1, 2)
      const start = world.now
      world.connect(stream)
      world.run(100_000, () => stream.closed || world.accepted.length > 0)
      return { world, stream, took: world.now - start, largest }
    }
    const all = Infinity
    for (const [name, client, server, limits] of [
      ['both ways take 900', large, large, { client: 900, server: 900 }],
      ['both ways take 576', { ...large, ...plain, ...large }, large, { client: 576, server: 576 }],
      ['only the answer is too large', plain, large, { client: 576, server: all }],
      ['only the request is', { ...plain, ...large }, plain, { client: all, server: 576 }],
    ] as const) {
      const { world, stream, took } = connect(client, server, limits)
      t.equal(stream.error, undefined, name)
      const { fragmentSize } = world.sessions.client[0]!.info()
      t.equal(fragmentSize, limits.server === all ? 1280 : limits.server)
      t.ok(took < 8000, `${name}: ${took} ms`)
    }
    // What is lost for other reasons does not make later messages small.
    const { world } = connect({}, large, { client: all, server: all })
    let lost = 0
    world.filter = (to, bytes) => !(to === 'server' && isIke(bytes)) || ++lost > 3
    world.client.handleRefusal(world.now)
    world.run(10_000)
    t.ok(lost > 3)
    let fragments = 0
    world.filter = (_to, bytes) => {
      if (isIke(bytes) && bytes[20] === 53) fragments++
      return true
    }
    world.sessions.client[0]!.rekeyIke(world.now)
    world.client.touchSession(world.sessions.client[0]!, world.now)
    world.run(2000)
    t.equal(world.sessions.client[0]!.info().ikeRekeys, 1)
    t.equal(fragments, 0)
    // The size that was found stays.
    const narrow = connect(large, large, { client: 900, server: 900 })
    const first = narrow.took
    narrow.world.sessions.client[0]!.rekeyIke(narrow.world.now)
    narrow.world.client.touchSession(narrow.world.sessions.client[0]!, narrow.world.now)
    narrow.world.run(300)
    t.equal(narrow.world.sessions.client[0]!.info().ikeRekeys, 1, `${first}`)
    t.end()
  },
)

t.test('over IPv6 no fragment is cut below 1280 octets', t => {
  const v6 = new FragmentSize(4000)
  const path = { socket: 0, localPort: 1, remotePort: 2 }
  const six = { ...path, localAddress: new Uint8Array(16), remoteAddress: new Uint8Array(16) }
  const four = { ...path, localAddress: new Uint8Array(4), remoteAddress: new Uint8Array(4) }
  t.ok(v6.shrink(six))
  t.equal(v6.octets, 1280)
  t.notOk(v6.shrink(six))
  const sizes = []
  for (const size = new FragmentSize(1280); size.shrink(four);) sizes.push(size.octets)
  t.strictSame(sizes, [900, 576])
  t.end()
})

t.test('fragments survive loss, duplication and reordering in both directions', t => {
  const large = { localId: `@#${'5a'.repeat(6000)}` }
  for (let seed = 1; seed <= 20; seed++) {
    const network = { loss: 0.15, duplicate: 0.2, corrupt: 0.02, delay: 5, jitter: 50 }
    const world = new World(seed, network, large, large)
    const stream = new Stream(1000, 1, 2)
    world.connect(stream)
    world.run(200_000, () => stream.closed)
    t.equal(stream.error, undefined, `seed ${seed}`)
  }
  t.end()
})
