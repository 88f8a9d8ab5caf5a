/** Where the peer is (RFC 7296 §2.23), and what goes to a place that it has not answered from (RFC 9000 §8.1). */
import t from 'tap'
import { getU32 } from '../../lib/base/bytes.ts'
import { formatEndpoint, type Path } from '../../lib/base/path.ts'
import { Session } from '../../lib/core/session.ts'
import { isIke } from '../harness/attacker.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const SIZE = 2_000_000
const VICTIM = { remoteAddress: Uint8Array.of(203, 0, 113, 9), remotePort: 53 }
const VICTIM_TEXT = formatEndpoint(VICTIM.remoteAddress, VICTIM.remotePort)

/** A download that runs; what the server sends is counted by where it goes. */
const download = (options: Options = {}, budget = Infinity, total = SIZE) => {
  const world = new World(81, { ...PERFECT, delay: 100 }, {}, options)
  const stream = new Stream(10, 1, 2)
  const serving = new Stream(total, 2, 1)
  serving.budget = budget
  world.serve = () => serving
  const sent = new Map<string, number>()
  const { server } = world
  const pollTransmit = server.pollTransmit.bind(server)
  server.pollTransmit = (packet, now) => {
    const path = pollTransmit(packet, now)
    if (path !== undefined) {
      const to = formatEndpoint(path.remoteAddress, path.remotePort)
      sent.set(to, (sent.get(to) ?? 0) + packet.length)
    }
    return path
  }
  stream.budget = 1
  world.connect(stream)
  world.run(1500)
  const session = world.sessions.server[0] as Session
  /** Octets that came to the server from elsewhere, which somebody on the way has sent on. */
  let diverted = 0
  const divert = (bytes: Uint8Array): void => {
    diverted += bytes.length
    const path: Path = { ...session.path, ...VICTIM }
    server.handleDatagram(bytes.slice(), path, world.now)
  }
  return {
    world,
    stream,
    serving,
    session,
    sent,
    divert,
    toVictim: () => sent.get(VICTIM_TEXT) ?? 0,
    diverted: () => diverted,
  }
}

/** Somebody on the way takes the next datagram for which `is` holds and sends it from the victim's address. */
const divertOnce = (
  { world, divert }: ReturnType<typeof download>,
  is: (bytes: Uint8Array) => boolean = () => true,
): { readonly isDone: boolean } => {
  const state = { isDone: false }
  world.filter = (to, bytes) => {
    if (to !== 'server' || state.isDone || !is(bytes)) return true
    state.isDone = true
    divert(bytes)
    return false
  }
  return state
}

const whereIs = ({ path }: Session): string => formatEndpoint(path.remoteAddress, path.remotePort)

t.test('a datagram with a forged source brings three times its octets there at most', t => {
  const scene = download()
  const { world, stream, session } = scene
  const cwnd = Number(scene.serving.connection!.tcpInfo()['snd_cwnd'])
  t.ok(cwnd > 20, `the download runs, ${cwnd} segments`)
  const home = whereIs(session)
  const state = divertOnce(scene)
  world.run(400)
  t.ok(state.isDone)
  t.ok(scene.toVictim() > 0, 'it is asked')
  t.equal(whereIs(session), home, 'the next datagram of the peer says where it is')
  world.run(60_000, () => stream.received === SIZE)
  t.equal(stream.received, SIZE)
  t.notOk(stream.corrupted)
  t.ok(scene.toVictim() <= 3 * scene.diverted(), `${scene.toVictim()} for ${scene.diverted()}`)
  t.end()
})

t.test('nor when nothing else comes, and then the peer is sought where it was', t => {
  const scene = download({ livenessInterval: 0 })
  const { world, stream, session } = scene
  const home = whereIs(session)
  const state = divertOnce(scene)
  const { filter } = world
  // All that the client sends after it is lost for a while.
  world.filter = (to, bytes, path) =>
    to === 'server' && state.isDone ? false : filter(to, bytes, path)
  world.run(4000)
  t.equal(whereIs(session), VICTIM_TEXT)
  world.run(4000)
  t.equal(whereIs(session), home)
  t.ok(scene.toVictim() <= 3 * scene.diverted(), `${scene.toVictim()} for ${scene.diverted()}`)
  world.filter = () => true
  world.run(60_000, () => stream.received === SIZE)
  t.equal(stream.received, SIZE)
  t.equal(stream.error, undefined)
  t.end()
})

t.test('again and again, of ESP and of IKE: never more than three times what came', t => {
  const scene = download({ livenessInterval: 500 }, 100_000)
  const { world, stream, session } = scene
  let count = 0
  world.filter = (to, bytes) => {
    if (to !== 'server' || ++count % 7 !== 0) return true
    scene.divert(bytes)
    return false
  }
  for (let i = 0; i < 20; i++) {
    session.rekeyChild(world.now)
    world.server.touchSession(session, world.now)
    scene.serving.budget = 50_000
    world.work(world.server, scene.serving)
    world.run(500)
    t.ok(scene.toVictim() <= 3 * scene.diverted(), `${scene.toVictim()} for ${scene.diverted()}`)
  }
  t.ok(count > 50, `${count} datagrams`)
  world.filter = () => true
  scene.serving.budget = Infinity
  world.work(world.server, scene.serving)
  world.run(120_000, () => stream.received === SIZE)
  t.equal(stream.received, SIZE)
  t.end()
})

t.test(
  'a NAT that gives another port or address: the transfer goes on there, as over a new path',
  t => {
    for (const isAddress of [false, true]) {
      const scene = download()
      const { world, stream, session } = scene
      const before = scene.serving.connection!.tcpInfo()
      t.ok(Number(before['snd_cwnd']) > 20)
      if (isAddress) world.clientAddress = Uint8Array.of(198, 51, 100, 77)
      else world.clientPort = 50_505
      stream.budget = 1
      world.work(world.client, stream)
      const from = world.now
      let restart: Record<string, number | string> | undefined
      world.run(2000, () => {
        if (session['paths'].moves === 1 && !session['paths'].isOnTrial && restart === undefined)
          restart = scene.serving.connection!.tcpInfo()
        return restart !== undefined
      })
      t.ok(world.now - from < 1000, `${world.now - from} ms`)
      t.ok(Number(restart!['snd_cwnd']) <= 10, `a window of ${restart!['snd_cwnd']} segments`)
      t.equal(Number(restart!['rtt']), 0, 'no round trip is known')
      world.run(60_000, () => stream.received === SIZE)
      t.equal(stream.received, SIZE)
      t.equal(session.path.remotePort, world.clientPort)
      t.strictSame([...session.path.remoteAddress], [...world.clientAddress])
    }
    t.end()
  },
)

t.test('what waited for an ACK goes out as soon as the new place is proved', t => {
  const scene = download({ livenessInterval: 0 }, 100, 1000)
  const { world, stream, session, serving } = scene
  t.equal(stream.received, 100)
  // The mapping is lost in silence; what the server sends goes nowhere, again and again.
  world.clientPort = 50_505
  serving.budget = Infinity
  world.work(world.server, serving)
  world.run(9000)
  t.equal(stream.received, 100)
  stream.budget = 1
  world.work(world.client, stream)
  world.run(500)
  t.equal(session.path.remotePort, 50_505)
  t.notOk(session['paths'].isOnTrial)
  t.equal(stream.received, 1000)
  t.end()
})

t.test('a peer whose datagrams come by two ways in turn is asked once about each', t => {
  const scene = download({ livenessInterval: 0 }, 100_000)
  const { world, stream } = scene
  const pathAt = world['pathAt'].bind(world)
  // Both mappings are open, and one client is behind them.
  world['pathAt'] = (to, path) =>
    to === 'client'
      ? { ...pathAt(to, path), localPort: world.clientPort }
      : { ...pathAt(to, path), remotePort: world.now % 1200 < 600 ? world.clientPort : 50_505 }
  let asked = 0
  world.filter = (to, bytes) => {
    if (to === 'client' && isIke(bytes)) asked++
    return true
  }
  for (let i = 0; i < 80; i++) {
    scene.serving.budget = 20_000
    world.work(world.server, scene.serving)
    world.run(100)
  }
  scene.serving.budget = Infinity
  world.work(world.server, scene.serving)
  world.run(120_000, () => stream.received === SIZE)
  t.equal(stream.received, SIZE)
  t.ok((scene.sent.get(`198.51.100.7:50505`) ?? 0) > 100_000, 'both ways are used')
  t.ok(asked >= 1 && asked <= 8, `${asked} messages of IKE`)
  t.end()
})

t.test(
  'a peer that was seen without a NAT stays where it is; its requests are answered where they come from',
  t => {
    const scene = download({ livenessInterval: 0 })
    const { world, session, stream } = scene
    const facts = session['lineage'].facts!
    t.ok(facts.remoteBehindNat, 'our own ends force encapsulation, which looks like a NAT')
    session['lineage'].facts = { ...facts, remoteBehindNat: false }
    const home = whereIs(session)
    divertOnce(scene)
    world.run(100)
    t.equal(whereIs(session), home)
    t.equal(scene.toVictim(), 0)
    const state = divertOnce(scene, isIke)
    const [own] = world.sessions.client
    own!.rekeyIke(world.now)
    world.client.touchSession(own!, world.now)
    world.run(10)
    t.ok(state.isDone)
    t.equal(whereIs(session), home)
    t.ok(scene.toVictim() > 0)
    world.run(60_000, () => stream.received === SIZE)
    world.run(5000)
    t.equal(own!.info().ikeRekeys, 1, 'its repetition was answered')
    t.ok(scene.toVictim() <= 3 * scene.diverted(), `${scene.toVictim()} for ${scene.diverted()}`)
    t.end()
  },
)

t.test('a replay moves nobody', t => {
  const scene = download()
  const { world, session, stream } = scene
  const recorded: Uint8Array[] = []
  world.filter = (to, bytes) => {
    if (to === 'server') recorded.push(bytes.slice())
    return true
  }
  const [own] = world.sessions.client
  own!.rekeyChild(world.now)
  world.client.touchSession(own!, world.now)
  world.run(1000)
  const home = whereIs(session)
  const esp = recorded.filter(bytes => getU32(bytes, 0) !== 0)
  t.ok(esp.length > 3, `${esp.length} of ESP`)
  t.ok(recorded.some(isIke))
  for (const bytes of esp) scene.divert(bytes)
  t.equal(scene.toVictim(), 0)
  world.pump()
  t.equal(scene.toVictim(), 0)
  for (const bytes of recorded.filter(isIke)) scene.divert(bytes)
  world.pump()
  t.ok(scene.toVictim() <= 3 * scene.diverted())
  t.equal(whereIs(session), home)
  world.run(60_000, () => stream.received === SIZE)
  t.equal(stream.received, SIZE)
  t.end()
})
