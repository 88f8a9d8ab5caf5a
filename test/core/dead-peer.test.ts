/** Dead peers (RFC 7296 §2.4), restarted ones, and sockets that are opened meanwhile. */
import t from 'tap'
import { getU32 } from '../../lib/base/bytes.ts'
import type { Path } from '../../lib/base/path.ts'
import { Core } from '../../lib/core/core.ts'
import { parseCredentials } from '../../lib/identity/credentials.ts'
import { parsePolicy } from '../../lib/policy/options.ts'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { DEFAULT_TCP_CONFIG } from '../../lib/tcp/config.ts'
import { readIkeHeader } from '../../lib/wire/ike-header.ts'
import { writeMessage } from '../../lib/wire/message.ts'
import { invalidSpi, notify } from '../../lib/wire/notify.ts'
import { ExchangeType, NotifyType } from '../../lib/wire/registry.ts'
import { SILENT } from '../../lib/base/trace.ts'
import { isIke } from '../harness/attacker.ts'
import { seededEnvironment } from '../harness/random.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const codeOf = (error: unknown): unknown => (error as { code?: unknown } | undefined)?.code
const SOON = { initial: 200, factor: 1.5, max: 1000, tries: 4 }

/** One connection, open and quiet; the client's IKE messages are counted. */
const open = (client: Options, server: Options = {}) => {
  const world = new World(41, PERFECT, client, server)
  const stream = new Stream(100_000, 1, 2)
  const serving = new Stream(100_000, 2, 1)
  stream.budget = 1000
  serving.budget = 1000
  world.serve = () => serving
  const counts = { ike: 0, esp: 0 }
  world.connect(stream)
  world.run(2000)
  world.filter = (to, bytes) => {
    if (to === 'server') counts[isIke(bytes) ? 'ike' : 'esp']++
    return true
  }
  return { world, stream, serving, counts }
}

const write = ({ world, stream }: ReturnType<typeof open>, octets: number): void => {
  stream.budget = octets
  world.work(world.client, stream)
}

/** The server's process is killed and started again: it knows nothing of any SA. */
const restartServer = (world: World, options: Options = {}): void => {
  const all = { psk: 'simulated pre-shared key', ...options }
  const fresh = new Core({
    environment: seededEnvironment(4242),
    tracer: SILENT,
    tcp: DEFAULT_TCP_CONFIG,
    responder: { policy: parsePolicy(all), credentials: parseCredentials(all) },
  })
  fresh.listeners.listen(80, 511)
  Object.assign(world, { server: fresh })
}

t.test('no probe while anything authentic comes in, whoever sends', t => {
  const scene = open({ livenessInterval: 1000, idleTimeout: 0 }, { livenessInterval: 0 })
  for (let i = 0; i < 100; i++) {
    write(scene, 10)
    scene.world.run(500)
  }
  t.ok(scene.counts.esp > 90)
  t.equal(scene.counts.ike, 0)
  t.end()
})

t.test('data is repeated in vain: the second time the peer is asked, and its answer is life', t => {
  const scene = open({}, { livenessInterval: 0 })
  const { world, counts } = scene
  // The way of ESP is broken, that of IKE is not.
  world.filter = (to, bytes) => {
    if (to === 'server' && isIke(bytes)) counts.ike++
    return isIke(bytes)
  }
  write(scene, 10)
  const connection = scene.stream.connection as TcpConnection
  world.run(10_000, () => connection.retries === 1)
  t.equal(counts.ike, 0)
  world.run(10_000, () => connection.retries === 2)
  t.equal(counts.ike, 1)
  world.run(100)
  t.equal(counts.ike, 1, 'the answer has come')
  world.run(20_000)
  const { retries } = connection
  t.ok(retries > 4)
  t.ok(counts.ike <= retries, `${counts.ike} probes, ${retries} repetitions`)
  t.notOk(scene.stream.closed)
  t.end()
})

t.test('livenessInterval: 0 asks of no repetition', t => {
  const scene = open({ livenessInterval: 0 }, { livenessInterval: 0 })
  scene.world.filter = (to, bytes) => {
    if (to === 'server' && isIke(bytes)) scene.counts.ike++
    return false
  }
  write(scene, 10)
  scene.world.run(30_000)
  t.equal(scene.counts.ike, 0)
  t.end()
})

t.test('sent, all acknowledged, and heard nothing since: one probe after the interval', t => {
  const scene = open({ livenessInterval: 1000 }, { livenessInterval: 0 })
  const { world, counts } = scene
  write(scene, 10)
  world.run(900)
  t.equal(counts.ike, 0)
  world.run(2300)
  t.equal(counts.ike, 1)
  world.run(20_000)
  t.ok(counts.ike > 5 && counts.ike <= 21, `${counts.ike} probes, each after an interval`)
  t.end()
})

t.test('the way is open again after a while: what waits goes out with the first answer', t => {
  // The link is down for half a minute, in both directions, and nothing says when it is up.
  for (const side of ['client', 'server'] as const) {
    const scene = open({})
    const { world, stream, serving } = scene
    const [writer, reader] = side === 'client' ? [stream, serving] : [serving, stream]
    let isDown = true
    let openedAt = Infinity
    world.filter = (_to, bytes) => {
      if (!isDown && isIke(bytes)) openedAt = Math.min(openedAt, world.now)
      return !isDown
    }
    const before = reader.received
    writer.budget = 5000
    world.work(world[side], writer)
    world.run(30_000)
    isDown = false
    world.run(60_000, () => reader.received === before + 5000)
    t.ok(world.now - openedAt < 100, `${side}: ${world.now - openedAt} ms after the first message`)
    t.notOk(stream.closed)
  }
  t.end()
})

t.test('livenessInterval: 0 never probes, and silence alone ends nothing', t => {
  const scene = open(
    { livenessInterval: 0, ikeLifetime: 86_400_000, childLifetime: 86_400_000 },
    { livenessInterval: 0, ikeLifetime: 86_400_000, childLifetime: 86_400_000 },
  )
  scene.world.run(3_600_000)
  t.equal(scene.counts.ike, 0)
  t.notOk(scene.stream.closed)
  t.end()
})

t.test('a dead peer ends its sockets with ETIMEDOUT on the schedule that was set', t => {
  for (const [retransmit, least, most] of [
    // The probe starts with the second repetition of data, some 600 ms after it was written.
    [SOON, 500 + 200 + 300 + 450 + 675 + 1000, 1000 + 1.1 * 2625],
    [{ initial: 100, factor: 1, max: 100, tries: 2 }, 800, 1330],
  ] as const) {
    const scene = open({ livenessInterval: 1000, retransmit })
    const { world, stream } = scene
    world.filter = () => false
    const from = world.now
    write(scene, 10)
    world.run(300_000, () => stream.closed)
    const took = world.now - from
    t.equal(codeOf(stream.error), 'ETIMEDOUT')
    t.ok(took >= least && took <= most, `${took} ms, between ${least} and ${most}`)
    t.ok(world.client.isIdle)
    t.equal(world.client.nextTimeout(), Infinity)
  }
  t.end()
})

t.test('an end that only listens finds out too, later', t => {
  const scene = open({}, { livenessInterval: 1000, retransmit: SOON })
  scene.world.filter = () => false
  scene.world.run(30_000)
  t.ok(scene.serving.closed)
  t.equal(codeOf(scene.serving.error), 'ETIMEDOUT')
  t.end()
})

t.test('a peer that comes back before the schedule ends loses nothing', t => {
  const scene = open({ livenessInterval: 1000, retransmit: SOON })
  const { world, stream, serving } = scene
  world.filter = () => false
  write(scene, 5000)
  world.run(2500)
  world.filter = () => true
  stream.budget = Infinity
  serving.budget = Infinity
  world.work(world.client, stream)
  world.work(world.server, serving)
  world.run(60_000, () => stream.closed)
  t.equal(stream.error, undefined)
  t.equal(stream.received, 100_000)
  t.equal(serving.received, 100_000)
  t.end()
})

t.test('a restarted peer that says so is asked in quick succession, and given up in 5 s', t => {
  for (const of of ['esp', 'ike']) {
    const scene = open({ livenessInterval: 60_000 })
    const { world, counts, stream } = scene
    restartServer(world)
    const times: number[] = []
    world.filter = (to, bytes) => {
      if (to === 'server' && isIke(bytes)) times.push(world.now)
      return true
    }
    const from = world.now
    if (of === 'esp') write(scene, 10)
    else {
      const [session] = world.sessions.client
      session!.rekeyIke(world.now)
      world.client.touchSession(session!, world.now)
    }
    world.run(100_000, () => stream.closed)
    t.equal(codeOf(stream.error), 'ECONNRESET')
    const took = world.now - from
    t.ok(took >= 5000 && took < 5100, `${took} ms`)
    t.ok(times.filter(at => at - from < 1000).length >= 3, `${times.length} requests`)
    t.ok(times.length <= 8)
    t.ok(counts.esp >= 0)
  }
  t.end()
})

t.test(
  'a hint that is not true ends nothing, nor do a thousand, and the peer is not asked more often',
  t => {
    const scene = open({ livenessInterval: 60_000 })
    const { world, stream, serving, counts } = scene
    const [session] = world.sessions.client
    const { children, spiI, spiR } = session!.info()
    const message = (header: object, payload: Parameters<typeof writeMessage>[1][0]): Uint8Array =>
      writeMessage(
        {
          spiI: new Uint8Array(8),
          spiR: new Uint8Array(8),
          exchange: ExchangeType.Informational,
          originalInitiator: true,
          response: false,
          messageId: 0,
          ...header,
        },
        [payload],
      )
    const spis = { spiI: Buffer.from(spiI, 'hex'), spiR: Buffer.from(spiR, 'hex') }
    const hints = [
      message({}, invalidSpi(children[0]!.spiOut)),
      message(
        { ...spis, originalInitiator: false, response: true, messageId: 3 },
        notify(NotifyType.InvalidIkeSpi),
      ),
    ]
    const tell = (): void => {
      for (const hint of hints)
        world.client.handleDatagram(
          Buffer.concat([Buffer.alloc(4), hint]),
          session!.path,
          world.now,
        )
      world.pump()
    }
    for (let i = 0; i < 1000; i++) {
      tell()
      world.run(20)
    }
    t.ok(counts.ike >= 3 && counts.ike <= 6, `asked ${counts.ike} times in 20 s`)
    t.notOk(stream.closed)
    // While the peer does not answer, more of them do not change the quick schedule either.
    world.run(6000)
    const from = world.now
    const times: number[] = []
    world.filter = (to, bytes) => {
      if (to === 'server' && isIke(bytes)) times.push(world.now)
      return world.now - from > 3000
    }
    while (world.now - from < 2900) {
      tell()
      world.run(20)
    }
    t.equal(times.length, 4, `${times.length} requests`)
    // The answer to the last of them is life.
    world.run(60_000)
    t.notOk(stream.closed)
    stream.budget = Infinity
    serving.budget = Infinity
    world.work(world.client, stream)
    world.work(world.server, serving)
    world.run(60_000, () => stream.closed)
    t.equal(stream.error, undefined)
    t.equal(stream.received, 100_000)
    t.end()
  },
)

t.test('a server that starts anew in the middle of a handshake is asked anew soon', t => {
  for (const after of [25, 45, 60]) {
    const world = new World(9, { ...PERFECT, delay: 20 }, {}, {})
    const stream = new Stream(100, 1, 2)
    world.connect(stream)
    world.run(after)
    world.restart('server')
    const from = world.now
    world.run(60_000, () => stream.closed)
    t.equal(stream.error, undefined)
    t.ok(world.now - from < 2000, `${world.now - from} ms`)
  }
  t.end()
})

t.test('who says of each handshake that its SA is unknown keeps nobody out', t => {
  const world = new World(9, { ...PERFECT, delay: 20 }, {}, {})
  const stream = new Stream(100, 1, 2)
  const hints: [Uint8Array, Path][] = []
  let told = 0
  world.filter = (to, bytes, path) => {
    const header = isIke(bytes) ? readIkeHeader(bytes.subarray(4)) : undefined
    if (to === 'server' && header?.exchange === ExchangeType.IkeAuth) {
      const facts = { ...header, originalInitiator: false, response: true }
      const hint = writeMessage(facts, [notify(NotifyType.InvalidIkeSpi)])
      hints.push([Buffer.concat([Buffer.alloc(4), hint]), path])
    }
    return true
  }
  world.connect(stream)
  while (!stream.closed && world.now < 60_000) {
    world.run(1)
    for (const [hint, path] of hints.splice(0)) {
      told++
      world.client.handleDatagram(hint, path, world.now)
    }
    world.pump()
  }
  t.equal(stream.error, undefined)
  t.equal(told, 1, 'the genuine answer came before it was believed')
  t.ok(world.now < 5000, `${world.now} ms`)
  t.end()
})

t.test('a hint from elsewhere, or about another SA, is none', t => {
  const scene = open({ livenessInterval: 60_000 })
  const { world, counts } = scene
  const [session] = world.sessions.client
  const { children } = session!.info()
  const tell = (spi: number, path = session!.path): void => {
    const header = {
      spiI: new Uint8Array(8),
      spiR: new Uint8Array(8),
      exchange: ExchangeType.Informational,
      originalInitiator: true,
      response: false,
      messageId: 0,
    }
    const hint = writeMessage(header, [invalidSpi(spi)])
    world.client.handleDatagram(Buffer.concat([Buffer.alloc(4), hint]), path, world.now)
    world.run(1000)
  }
  tell(children[0]!.spiOut ^ 1)
  tell(children[0]!.spiIn)
  tell(children[0]!.spiOut, { ...session!.path, remotePort: 4501 })
  t.equal(counts.ike, 0)
  tell(children[0]!.spiOut)
  t.equal(counts.ike, 1)
  t.end()
})

t.test('an end that stood still for 75 s reads what waits before it gives anybody up', t => {
  for (const isHinted of [false, true]) {
    const scene = open({ livenessInterval: 1000 })
    const { world, stream, serving } = scene
    if (isHinted) world.client.handleRefusal(world.now)
    write(scene, 10)
    world.run(isHinted ? 4900 : 50_000, () => !isHinted && false)
    // Nothing is done at the client meanwhile.
    const { client } = world
    const handleDatagram = client.handleDatagram.bind(client)
    const nextTimeout = client.nextTimeout.bind(client)
    const kept: Parameters<typeof handleDatagram>[] = []
    client.handleDatagram = (...given) => void kept.push(given)
    client.nextTimeout = () => Infinity
    world.run(75_000)
    Object.assign(client, { handleDatagram, nextTimeout })
    // The timers come first, as in an event loop.
    client.handleTimeout(world.now)
    for (const [bytes, path] of kept) handleDatagram(bytes, path, world.now)
    world.pump()
    t.notOk(stream.closed)
    stream.budget = Infinity
    serving.budget = Infinity
    world.work(world.client, stream)
    world.work(world.server, serving)
    world.run(60_000, () => stream.closed)
    t.equal(stream.error, undefined)
    t.equal(stream.received, 100_000)
  }
  t.end()
})

t.test(
  'an IKE request with unknown SPIs is answered by INVALID_IKE_SPI, seldom and never at length',
  t => {
    const scene = open({}, {})
    const { world } = scene
    const header = {
      spiI: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
      spiR: Uint8Array.of(8, 7, 6, 5, 4, 3, 2, 1),
      exchange: ExchangeType.Informational,
      originalInitiator: true,
      response: false,
      messageId: 7,
    }
    const answers: Uint8Array[] = []
    world.filter = (to, bytes) => {
      if (to === 'client' && isIke(bytes)) answers.push(bytes.slice(4))
      return true
    }
    const ask = (message: Uint8Array): void => {
      const bytes = Buffer.concat([Buffer.alloc(4), message])
      world.server.handleDatagram(bytes, world.sessions.server[0]!.path, world.now)
      world.pump()
    }
    const request = writeMessage(header, [notify(NotifyType.InitialContact)])
    for (let i = 0; i < 100; i++) ask(request)
    t.equal(answers.length, 10)
    const answer = readIkeHeader(answers[0]!)!
    t.match(answer, {
      spiI: header.spiI,
      spiR: header.spiR,
      response: true,
      originalInitiator: false,
      messageId: 7,
      exchange: ExchangeType.Informational,
    })
    t.ok(answers[0]!.length <= request.length)
    world.run(2000)
    ask(writeMessage({ ...header, response: true }, [notify(NotifyType.InitialContact)]))
    ask(writeMessage({ ...header, spiR: new Uint8Array(8) }, [notify(NotifyType.InitialContact)]))
    ask(request.subarray(0, 28))
    t.equal(answers.length, 10, 'no answer to answers, to what is of no SA, nor to less than it')
    t.end()
  },
)

t.test(
  'reconnect: the next socket gets a new SA at once; without it, when the old one has died',
  t => {
    for (const reconnect of [true, false]) {
      const scene = open({ livenessInterval: 60_000, retransmit: SOON, reconnect })
      const { world } = scene
      restartServer(world)
      write(scene, 10)
      world.run(100)
      const next = new Stream(1000, 1, 2)
      world.serve = () => new Stream(10, 2, 1)
      const from = world.now
      world.connect(next)
      world.run(60_000, () => next.closed)
      const took = world.now - from
      t.equal(next.error, undefined)
      t.equal(world.accepted.at(-1)?.received, 1000)
      if (reconnect) t.ok(took < 200, `${took} ms`)
      else t.ok(took > 2000 && took < 5500, `${took} ms`)
      world.run(10_000)
      t.equal(codeOf(scene.stream.error), 'ECONNRESET')
    }
    t.end()
  },
)

t.test(
  'reconnect: a socket whose SYN tells that the peer has restarted goes on with a new SA',
  t => {
    const scene = open({ livenessInterval: 60_000, retransmit: SOON, reconnect: true })
    const { world } = scene
    restartServer(world)
    const next = new Stream(1000, 1, 2)
    world.serve = () => new Stream(10, 2, 1)
    const from = world.now
    world.connect(next)
    world.run(60_000, () => next.closed)
    t.equal(next.error, undefined)
    t.equal(world.accepted.at(-1)?.received, 1000)
    t.ok(world.now - from < 300, `${world.now - from} ms`)
    t.end()
  },
)

t.test('reconnect: a probe that goes unanswered is reason enough', t => {
  for (const reconnect of [true, false]) {
    const scene = open({ livenessInterval: 1000, retransmit: { ...SOON, tries: 12 }, reconnect })
    const { world } = scene
    // The old SA is dead, a new one would live: as behind a gateway that moved.
    const spis = new Set<number>()
    let lost = true
    world.filter = (_to, bytes) => {
      if (isIke(bytes) && bytes[22] === 34) lost = false
      const spi = getU32(bytes, isIke(bytes) ? 4 : 0)
      if (lost) spis.add(spi)
      return !spis.has(spi)
    }
    write(scene, 10)
    world.run(2600)
    const next = new Stream(1000, 1, 2)
    world.serve = () => new Stream(10, 2, 1)
    const from = world.now
    world.connect(next)
    world.run(60_000, () => next.closed)
    t.equal(next.error, undefined)
    t.equal(world.now - from < 300, reconnect, `${world.now - from} ms`)
  }
  t.end()
})

t.test(
  'what went with a SYN that somebody on the way kept back is not handed on after it went again',
  t => {
    const scene = open({
      livenessInterval: 1000,
      retransmit: { ...SOON, tries: 12 },
      reconnect: true,
    })
    const { world } = scene
    const old = new Set<number>()
    const kept: { bytes: Uint8Array; path: Path }[] = []
    let keeps = true
    world.filter = (to, bytes, way) => {
      if (isIke(bytes) && bytes[22] === 34) keeps = false
      const spi = getU32(bytes, isIke(bytes) ? 4 : 0)
      if (keeps) old.add(spi)
      // Nothing of the old SA arrives; what has the length of the request comes later.
      if (old.has(spi) && to === 'server' && !isIke(bytes) && bytes.length > 300)
        kept.push({ bytes: bytes.slice(), path: way })
      return !old.has(spi)
    }
    const next = new Stream(500, 1, 2)
    next.first = 300
    world.serve = () => new Stream(10, 2, 1)
    world.connect(next)
    world.run(60_000, () => next.closed)
    t.equal(next.error, undefined)
    t.equal(kept.length, 1, 'the SYN of the old SA, with the request in it')
    const accepted = world.accepted.length
    t.equal(world.accepted.at(-1)?.received, 500)
    world.run(10_000)
    world.filter = () => true
    const { drops } = world.server.counters
    const before = drops['tcp.repeatedData'] ?? 0
    world.server.handleDatagram(kept[0]!.bytes, kept[0]!.path, world.now)
    world.run(1000)
    t.equal(world.accepted.length, accepted, 'the program hears of it once')
    t.equal(drops['tcp.repeatedData'], before + 1)
    t.end()
  },
)

t.test('a socket that waits goes on with the old SA as soon as that proves alive', t => {
  const scene = open({ livenessInterval: 1000, retransmit: SOON, reconnect: false })
  const { world } = scene
  world.filter = () => false
  write(scene, 10)
  world.run(2000)
  const next = new Stream(1000, 1, 2)
  world.connect(next)
  world.filter = () => true
  const from = world.now
  world.run(20_000, () => next.connection !== undefined)
  t.ok(next.connection)
  t.ok(world.now - from < 1500, `${world.now - from} ms`)
  t.equal(world.sessions.client.length, 1, 'and no new one')
  t.end()
})

/** A client connects, and then the same one from another port, as after a restart. */
const restartClient = (client: Options, server: Options = {}) => {
  const scene = open(client, server)
  const { world } = scene
  const restarted = new World(42, PERFECT, client)
  Object.assign(world, { client: restarted.client })
  world.clientPort = 40002
  const next = new Stream(10, 1, 2)
  world.serve = () => new Stream(10, 2, 1)
  world.connect(next)
  world.run(10_000, () => next.closed)
  return { ...scene, next }
}

const BOUND = { psk: { 'client.test': 'simulated pre-shared key' } }

t.test(
  'INITIAL_CONTACT: with a key of its own a restarted client ends its older SA, told at once',
  t => {
    const { next, serving } = restartClient({ localId: 'client.test', initialContact: true }, BOUND)
    t.equal(next.error, undefined)
    t.ok(serving.closed)
    t.equal(codeOf(serving.error), 'ECONNRESET')
    t.end()
  },
)

t.test('INITIAL_CONTACT is not sent unless it is asked for: replicas live side by side', t => {
  for (const client of [{ localId: 'client.test' }, {}]) {
    const { next, serving, world } = restartClient(client, 'localId' in client ? BOUND : {})
    t.equal(next.error, undefined)
    t.notOk(serving.closed)
    t.equal(world.sessions.server.length, 2)
  }
  t.end()
})

t.test(
  'INITIAL_CONTACT: where one key serves many, the older peer is asked, and stays if it answers',
  t => {
    const client = { localId: 'client.test', initialContact: true }
    const { next, serving, world } = restartClient(client)
    t.equal(next.error, undefined)
    t.notOk(serving.closed, 'it is not believed')
    world.run(300_000, () => serving.closed)
    t.equal(codeOf(serving.error), 'ETIMEDOUT', 'the older one has not answered')
    t.end()
  },
)

for (const [name, wait] of [
  ['while the Delete is under way', 0],
  ['while its SYN crosses the Delete', -1],
] as const) {
  t.test(`a socket opened ${name} gets a new SA`, t => {
    const world = new World(9, { ...PERFECT, delay: 40 }, { idleTimeout: 5000 }, {})
    const first = new Stream(100, 1, 2)
    world.connect(first)
    world.run(5000, () => first.closed)
    const [session] = world.sessions[wait === 0 ? 'client' : 'server']
    const core = wait === 0 ? world.client : world.server
    session!.close(world.now)
    core.touchSession(session!, world.now)
    const second = new Stream(1000, 1, 2)
    world.connect(second)
    world.run(60_000, () => second.closed)
    t.equal(second.error, undefined)
    t.equal(world.accepted.at(-1)?.received, 1000)
    t.equal(world.sessions.client.length, 2, 'it has an SA of its own')
    t.end()
  })
}

t.test('a peer that closes every SA at once is not asked for ever', t => {
  const world = new World(9, PERFECT, {}, {})
  const close = (): void => {
    for (const session of world.sessions.server) session.close(world.now)
    for (const session of world.sessions.server) world.server.touchSession(session, world.now)
  }
  const stream = new Stream(1000, 1, 2)
  world.connect(stream)
  world.run(60_000, () => {
    if (stream.connection === undefined) close()
    return stream.closed
  })
  t.match(stream.error, { code: 'ECONNRESET' })
  t.equal(world.sessions.client.length, 2, 'it was tried twice')
  t.end()
})

t.test('a process that ends sends its Delete although a request of it is unanswered', t => {
  const { world, serving } = open({}, { livenessInterval: 0 })
  world.filter = to => to === 'server'
  world.client.handleRefusal(world.now)
  world.pump()
  world.run(100)
  t.notOk(serving.closed)
  world.client.closeNow(world.now)
  world.pump()
  world.run(100)
  t.ok(serving.closed, 'the peer has seen the request, and follows')
  t.end()
})
