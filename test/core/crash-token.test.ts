/** Quick crash detection (RFC 6290): a restarted end proves that an SA is gone, and nobody else can. */
import t from 'tap'
import { concat, putU32, utf8 } from '../../lib/base/bytes.ts'
import { SILENT } from '../../lib/base/trace.ts'
import { crashTokenPayload, TokenMaker } from '../../lib/ike/crash-token.ts'
import type { IkeSa } from '../../lib/ike/ike-sa.ts'
import { TellCrashToken } from '../../lib/ike/tell-crash-token.ts'
import { parseCredentials } from '../../lib/identity/credentials.ts'
import { readIkeHeader } from '../../lib/wire/ike-header.ts'
import { writeMessage } from '../../lib/wire/message.ts'
import { notify } from '../../lib/wire/notify.ts'
import { ExchangeType, NotifyType, PayloadType } from '../../lib/wire/registry.ts'
import {
  Caller,
  datagramOf,
  isIke,
  messageOf,
  pathFrom,
  PSK,
  readPayloads,
  sourceAddress,
  Target,
} from '../harness/attacker.ts'
import { authority, endEntity } from '../harness/certificates.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const codeOf = (error: unknown): unknown => (error as { code?: unknown } | undefined)?.code

/** One connection over an SA whose ends have given each other tokens. */
const open = (client: Options = {}, server: Options = {}) => {
  const world = new World(61, PERFECT, client, server, SILENT, Date.now())
  world.enableCrashTokens()
  const stream = new Stream(100_000, 1, 2)
  const serving = new Stream(100_000, 2, 1)
  stream.budget = 1000
  serving.budget = 1000
  world.serve = () => serving
  world.connect(stream)
  world.run(2000)
  t.equal(world.accepted.length, 1)
  world.serve = () => new Stream(0, 2, 1)
  return { world, stream, serving }
}
type Scene = ReturnType<typeof open>

/** An end writes; how long it is until its socket ends, by a peer that lost the SA. */
const endsAfter = ({ world, stream, serving }: Scene, side: 'client' | 'server' = 'client') => {
  const start = world.now
  const own = side === 'client' ? stream : serving
  own.budget = 100
  world.work(world[side], own)
  world.run(60_000, () => own.closed)
  t.equal(codeOf(own.error), 'ECONNRESET')
  return world.now - start
}
/** Two round trips are 20 ms here; without a token the fast probe takes five seconds. */
const AT_ONCE = 50

t.test(
  'a restarted server ends the old SA at the first packet, and new sockets get a new one',
  t => {
    const issuer = authority('CN=CA', 'P-256')
    const byCertificate = (name: string, type: 'P-256' | 'ed25519' | 'rsa') => {
      const own = endEntity(name, type, issuer)
      return { psk: undefined, ca: issuer.pem, cert: own.pem, key: own.keyPem }
    }
    const remoteId = 'server.test'
    for (const [client, server] of [
      [{}, {}],
      [{}, { psk: { '*': PSK, 'other.test': 'another key, not used' } }],
      [{ ...byCertificate('client.test', 'P-256'), remoteId }, byCertificate(remoteId, 'P-256')],
      [{ ...byCertificate('client.test', 'rsa'), remoteId }, byCertificate(remoteId, 'ed25519')],
      [{ crashTokenSecret: false }, { crashTokenSecret: 'a secret of this server' }],
    ] as const) {
      const scene = open(client, server)
      const { world } = scene
      t.equal(world.sessions.client[0]!.info().detectsCrash, true)
      world.restart('server')
      t.ok(endsAfter(scene) <= AT_ONCE)
      const second = new Stream(1000, 1, 2)
      world.connect(second)
      world.run(1000)
      t.equal(second.error, undefined)
      t.equal(world.accepted.at(-1)!.partner, second)
    }
    t.end()
  },
)

t.test('a restarted client is noticed just as quickly by a server that writes', t => {
  const scene = open()
  const { world } = scene
  t.equal(world.sessions.server[0]!.info().detectsCrash, true)
  world.restart('client')
  world.connect(new Stream(10, 1, 2))
  // A client does not tell of unknown ESP: the probe of its second repetition finds out.
  t.ok(endsAfter(scene, 'server') <= 4000)
  t.end()
})

t.test('without a token the hint makes the peer ask, and five seconds of silence are proof', t => {
  for (const server of [{ crashTokenSecret: false }, { psk: () => PSK }]) {
    const world = new World(62, PERFECT, {}, server)
    world.answers = () => PSK
    world.enableCrashTokens()
    const stream = new Stream(100_000, 1, 2)
    stream.budget = 1000
    world.connect(stream)
    world.run(2000)
    t.equal(world.sessions.client[0]!.info().detectsCrash, false)
    world.restart('server')
    const took = endsAfter({ world, stream, serving: stream })
    t.ok(took > 4000 && took < 6000, `${took}`)
  }
  t.end()
})

t.test('tokens follow the SA through rekeys of either end, and the peer to another address', t => {
  const acts: Record<string, (scene: Scene) => void> = {
    'the client rekeys': ({ world }) => world.sessions.client[0]!.rekeyIke(world.now),
    'the server rekeys': ({ world }) => world.sessions.server[0]!.rekeyIke(world.now),
    'the client moves': ({ world, stream }) => {
      world.clientAddress = Uint8Array.of(203, 0, 113, 9)
      stream.budget = 100
      world.work(world.client, stream)
    },
    'it moves and comes back, and then all rekey': scene => {
      const { clientAddress } = scene.world
      acts['the client moves']!(scene)
      scene.world.run(2000)
      scene.world.clientAddress = clientAddress
      acts['the client rekeys']!(scene)
      scene.world.client.touchSession(scene.world.sessions.client[0]!, scene.world.now)
      scene.world.run(2000)
      acts['the server rekeys']!(scene)
    },
  }
  for (const [name, act] of Object.entries(acts)) {
    for (const restarted of ['server', 'client'] as const) {
      const scene = open()
      const { world } = scene
      act(scene)
      for (const side of ['client', 'server'] as const)
        world[side].touchSession(world.sessions[side][0]!, world.now)
      world.run(6000)
      world.restart(restarted)
      if (restarted === 'client') world.connect(new Stream(10, 1, 2))
      const writer = restarted === 'server' ? 'client' : 'server'
      t.ok(endsAfter(scene, writer) <= (writer === 'client' ? AT_ONCE : 4000), `${name}: ${writer}`)
    }
  }
  t.end()
})

// --- what comes from others ---

const HOLDER = sourceAddress(1)

/** An SA between a client and a server, and a request of the client on it that did not arrive. */
const established = (options: Options = {}, place = 'place') => {
  const target = new Target(options)
  target.core.enableCrashTokens(utf8(place), target.now)
  const caller = new Caller(HOLDER, options)
  caller.talk(target)
  const [session] = caller.sessions
  session!.rekeyChild(caller.now)
  caller.core.touchSession(session!, caller.now)
  const [request] = caller.drain().filter(isIke)
  return { target, caller, request: request! }
}

const tokensOf = (answer: Uint8Array | undefined): Uint8Array[] =>
  answer === undefined
    ? []
    : readPayloads(messageOf(answer)).flatMap(payload =>
        payload.kind === 'notify' && payload.type === NotifyType.QcdToken ? [payload.data] : [],
      )

/** What the server would say if it had lost everything. */
const afterRestart = (
  request: Uint8Array,
  from = HOLDER,
  place = 'place',
  options: Options = {},
) => {
  const fresh = new Target(options, 2)
  fresh.core.enableCrashTokens(utf8(place), fresh.now)
  const [answer] = fresh.send(request, pathFrom(from, 40_001))
  return answer!.bytes
}

const isOver = ({ events }: Caller): boolean => events.some(({ kind }) => kind === 'sessionDown')

t.test(
  'the answer of a restarted end has INVALID_IKE_SPI and a token, and is no longer than the request',
  t => {
    const { caller, request } = established()
    const answer = afterRestart(request)
    t.ok(answer.length <= request.length)
    const types = readPayloads(messageOf(answer)).map(
      payload => payload.kind === 'notify' && payload.type,
    )
    t.strictSame(types, [NotifyType.InvalidIkeSpi, NotifyType.QcdToken])
    t.equal(tokensOf(answer)[0]!.length, 16)
    const short = request.slice(0, 4 + 36)
    putU32(short, 4 + 24, 36)
    t.strictSame(tokensOf(afterRestart(short)), [], 'for which a short request has no room')
    caller.receive(answer)
    t.ok(isOver(caller))
    t.end()
  },
)

t.test('a liveness check is as long as the answer that shows a token', t => {
  for (const ike of ['aes256gcm16-prfsha256-x25519', 'aes256-sha256-prfsha256-x25519']) {
    const scene = open({ ike }, { ike })
    let request: Uint8Array | undefined
    scene.world.filter = (to, bytes) => {
      if (to === 'server' && isIke(bytes)) request ??= bytes.slice()
      return true
    }
    scene.world.client.handleRefusal(scene.world.now)
    scene.world.run(100)
    t.ok(request!.length >= 4 + 28 + 8 + 24, `${request!.length}`)
  }
  t.end()
})

t.test('Q1: only the very token ends an SA, whoever sends it and from where', t => {
  const { caller, request } = established()
  const right = tokensOf(afterRestart(request))[0]!
  const { spiI, spiR, messageId } = readIkeHeader(messageOf(request))!
  const show = (tokens: readonly Uint8Array[], facts: object = {}): void => {
    const message = writeMessage(
      {
        spiI,
        spiR,
        exchange: ExchangeType.Informational,
        originalInitiator: false,
        response: true,
        messageId,
        ...facts,
      },
      [notify(NotifyType.InvalidIkeSpi), ...tokens.map(crashTokenPayload)],
    )
    caller.receive(datagramOf(message))
  }
  const wrong = right.map((octet, i) => (i === 15 ? octet ^ 1 : octet))
  for (const tokens of [
    [],
    [wrong],
    [right.slice(0, 15)],
    [right.slice(0, 0)],
    [concat(right, right)],
    [wrong, wrong, wrong, wrong, right],
  ])
    show(tokens)
  show([right], { response: false })
  show([right], { originalInitiator: true })
  show([right], { spiR: new Uint8Array(8).fill(1) })
  t.notOk(isOver(caller))
  show([wrong, wrong, wrong, right])
  t.ok(isOver(caller), 'one of four will do (RFC 6290 §4.5)')
  t.end()
})

t.test('Q2: of an SA that lives no token is shown, whatever a request says of its ends', t => {
  const { target, caller, request } = established()
  const seen: Uint8Array[] = []
  const original = readIkeHeader(messageOf(request))!
  for (const from of [HOLDER, sourceAddress(2)]) {
    for (const originalInitiator of [true, false]) {
      for (const exchange of [35, 36, 37]) {
        for (const swapped of [true, false]) {
          const { spiI, spiR } = original
          const facts = {
            spiI: swapped ? spiR : spiI,
            spiR: swapped ? spiI : spiR,
            exchange,
            originalInitiator,
            response: false,
            messageId: 9,
          }
          const message = writeMessage(facts, [notify(40_000, new Uint8Array(60))])
          for (const { bytes } of target.send(datagramOf(message), pathFrom(from, 40_001)))
            seen.push(...tokensOf(bytes))
        }
      }
    }
  }
  t.strictSame(seen, [])
  t.equal(target.sessions.length, 1)
  t.notOk(isOver(caller))
  t.end()
})

t.test('Q2: nor of one that the peer has made by our rekey, and that we have not heard of', t => {
  const { world } = open()
  let isLate = true
  const refused: Uint8Array[] = []
  world.filter = (to, bytes) => {
    if (to === 'server' && bytes[4 + 16] === PayloadType.Notify) refused.push(bytes)
    // The answer to the rekey is lost, time and again.
    return to === 'server' || !isLate || bytes[4 + 18] !== ExchangeType.CreateChildSa
  }
  world.sessions.client[0]!.rekeyIke(world.now)
  world.client.touchSession(world.sessions.client[0]!, world.now)
  world.run(200)
  // The server uses the new SA, as nobody should who has no sign of life on it.
  const made = [...world.server['sas'].values()].at(-1)!.sa as IkeSa
  made.enqueue(new TellCrashToken(), world.now)
  world.server.touchSession(world.sessions.server[0]!, world.now)
  world.run(200)
  t.ok(refused.length > 0, 'the client says that it does not know it')
  t.strictSame(refused.flatMap(tokensOf), [])
  isLate = false
  world.run(5000)
  t.equal(world.sessions.client[0]!.info().ikeRekeys, 1)
  for (const answer of refused) world.server.handleDatagram(answer, made.path, world.now)
  world.run(1000)
  t.equal(made.state, 'established')
  t.end()
})

t.test(
  'Q3: a replica with the same credentials cannot be made to show the token of an SA of another',
  t => {
    // §9.2: "whether the attempt to trick the gateway uses the token taker's IP address or a different IP address".
    const { caller, request } = established()
    const right = tokensOf(afterRestart(request))[0]
    for (const [name, from, place] of [
      ['asked in the name of the holder', HOLDER, 'another place'],
      ['asked by somebody else', sourceAddress(2), 'another place'],
      ['at the same place, by somebody else', sourceAddress(2), 'place'],
    ] as const) {
      const answer = afterRestart(request, from, place)
      t.notSame(tokensOf(answer)[0], right, name)
      caller.receive(answer)
      t.notOk(isOver(caller), name)
    }
    const given = { crashTokenSecret: 'the same for all that stand in for each other' }
    const cluster = established(given)
    t.notSame(
      tokensOf(afterRestart(cluster.request, sourceAddress(2), 'elsewhere', given))[0],
      tokensOf(afterRestart(cluster.request, HOLDER, 'elsewhere', given))[0],
    )
    cluster.caller.receive(afterRestart(cluster.request, HOLDER, 'elsewhere', given))
    t.ok(isOver(cluster.caller), 'a secret that the program gives is good everywhere')
    t.end()
  },
)

t.test('Q4: tokens of other SAs say nothing of the next one (§9.3)', t => {
  const secret = parseCredentials({ psk: PSK }).crashSecret.derive()!
  const maker = new TokenMaker(secret, utf8('place'))
  const spi = (i: number): Uint8Array => new Uint8Array(8).fill(i)
  const tokens = [
    maker.make(spi(1), spi(2), HOLDER),
    maker.make(spi(2), spi(1), HOLDER),
    maker.make(spi(1), spi(3), HOLDER),
    maker.make(spi(1), spi(2), sourceAddress(2)),
    new TokenMaker(secret, utf8('other')).make(spi(1), spi(2), HOLDER),
    new TokenMaker(parseCredentials({ psk: `${PSK}.` }).crashSecret.derive()!, utf8('place')).make(
      spi(1),
      spi(2),
      HOLDER,
    ),
  ]
  t.equal(new Set(tokens.map(String)).size, tokens.length)
  const target = new Target()
  target.core.enableCrashTokens(utf8('place'), target.now)
  const { request } = established()
  const told = (): number => {
    let count = 0
    for (let i = 0; i < 5000; i++) {
      const asked = request.slice()
      asked[4 + 3] = i >>> 8
      asked[4 + 4] = i
      count += target.send(asked, pathFrom(HOLDER)).length
    }
    return count
  }
  t.ok(told() <= 200, 'in a second, after a start')
  target.wait(130_000)
  t.ok(told() <= 10, 'and later')
  t.end()
})

t.test('crashTokenSecret: what it may be', t => {
  for (const crashTokenSecret of ['short', new Uint8Array(15), 17, true, null, {}]) {
    t.throws(() => parseCredentials({ psk: PSK, crashTokenSecret }), {
      option: 'crashTokenSecret',
      code: 'ERR_INVALID_ARG_VALUE',
    })
  }
  const derived = (options: Options) =>
    parseCredentials({ psk: PSK, ...options }).crashSecret.derive()
  t.equal(derived({ crashTokenSecret: false }), undefined)
  t.equal(derived({ psk: () => PSK }), undefined)
  t.strictSame(derived({})!.bytes, derived({})!.bytes)
  t.strictSame(
    derived({ psk: { 'a.test': 'key of a', 'b.test': 'key of b' } })!.bytes,
    derived({ psk: { 'b.test': 'key of b', 'a.test': 'key of a' } })!.bytes,
  )
  t.end()
})
