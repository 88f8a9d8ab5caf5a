/** Octets that go with the SYN between our own ends: a request is there a round trip sooner, and once. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t, { type Test } from 'tap'
import { putU16, putU32 } from '../../lib/base/bytes.ts'
import { Packet } from '../../lib/base/packet.ts'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { FirstOctets, tokenFor } from '../../lib/tcp/first-octets.ts'
import { TcpListeners } from '../../lib/tcp/listener.ts'
import { DEFAULT_TCP_CONFIG, TcpStack } from '../../lib/tcp/stack.ts'
import { NO_FEATURES, OWN_FEATURES } from '../../lib/wire/own-features.ts'
import { TcpFlag, TcpSegment } from '../../lib/wire/tcp.ts'
import { seededEnvironment } from '../harness/random.ts'
import { TcpPath, type Way } from '../harness/tcp-path.ts'
import { LOCAL, REMOTE } from '../harness/tcp-peer.ts'

const REQUEST = Uint8Array.from({ length: 300 }, (_, i) => i)
const ANSWER = Uint8Array.from({ length: 700 }, (_, i) => i * 3)
const TOKEN = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)
const FLOW = { localAddress: LOCAL, localPort: 0, remoteAddress: REMOTE, remotePort: 80 }
const HALF: Way = { delay: 25 }

interface Wire {
  readonly from: 'a' | 'b'
  readonly flags: number
  readonly data: number
  readonly hasToken: boolean
}

/** A client `a` and a server `b` that answers the request with `ANSWER` and ends; the client ends then too. */
class Exchange {
  readonly path: TcpPath
  readonly log: string[] = []
  readonly wire: Wire[] = []
  readonly got: { a: number[]; b: number[] } = { a: [], b: [] }
  client!: TcpConnection
  server: TcpConnection | undefined
  /** What the server does with a connection. */
  onRequest = (connection: TcpConnection): void => {
    connection.send(ANSWER)
    connection.shutdown()
  }
  private readonly segment = new TcpSegment()

  constructor(isOurs = true, lost: (wire: Wire, count: number) => boolean = () => false) {
    const passes =
      (from: 'a' | 'b') =>
      (bytes: Uint8Array): boolean => {
        this.segment.read(bytes, 0, bytes.length)
        const { flags, dataLength, tokenAt } = this.segment
        const wire = { from, flags, data: dataLength, hasToken: tokenAt > 0 }
        this.wire.push(wire)
        return !lost(wire, this.wire.length)
      }
    this.path = new TcpPath({ ...HALF, passes: passes('a') }, { ...HALF, passes: passes('b') })
    for (const { stack } of [this.path.a, this.path.b])
      stack.peerFeatures = isOurs ? OWN_FEATURES : NO_FEATURES
    this.path.b.listeners.listen(80, 10)
    this.path.onEvent = (end, { kind, connection, error }) => {
      const name = end === this.path.a ? 'a' : 'b'
      this.log.push(
        `${name} ${kind}${error === undefined ? '' : ` ${String(error)}`} ${this.path.now}`,
      )
      if (kind === 'accepted') this.server = connection
      if (kind === 'connected' && connection.firstOctets < REQUEST.length)
        connection.send(REQUEST.subarray(connection.firstOctets))
      if (kind !== 'readable') {
        if (name === 'a' && kind === 'ended') connection.shutdown()
        return
      }
      for (let piece = connection.receive(); piece !== undefined; piece = connection.receive())
        this.got[name].push(...piece)
      if (name === 'b' && this.got.b.length === REQUEST.length) this.onRequest(connection)
    }
  }

  begin(flow = FLOW, token: Uint8Array = TOKEN): this {
    this.client = this.path.a.stack.connect(
      flow,
      { noDelay: true, first: { octets: REQUEST, token } },
      this.path.now,
    )!
    return this
  }

  run(until = 20_000): this {
    this.path.run(until)
    return this
  }

  when(event: string): number {
    return Number(
      this.log
        .find(line => line.startsWith(event))
        ?.split(' ')
        .at(-1),
    )
  }

  isWhole(t: Test): void {
    t.strictSame(this.got.b, [...REQUEST])
    t.strictSame(this.got.a, [...ANSWER])
    t.equal(this.log.filter(line => line.startsWith('b accepted')).length, 1)
  }
}

t.test('the request is there with the SYN, and its answer after one round trip', t => {
  const ours = new Exchange().begin().run()
  ours.isWhole(t)
  t.equal(ours.when('b readable'), 25)
  t.equal(ours.when('a connected'), 50)
  t.equal(ours.when('a readable'), 50)
  const others = new Exchange(false).begin().run()
  others.isWhole(t)
  t.equal(others.when('b readable'), 75)
  t.equal(others.when('a readable'), 100)
  t.equal(ours.client.firstOctets, REQUEST.length)
  t.equal(others.client.firstOctets, 0)
  t.end()
})

/** What went over the wire, as `a SF 300`: from whom, its flags without ACK, its octets. */
const shown = ({ wire }: Exchange): string[] =>
  wire.map(({ from, flags, data }) => {
    const names = [
      flags & TcpFlag.Syn ? 'S' : '',
      flags & TcpFlag.Fin ? 'F' : '',
      flags & TcpFlag.Rst ? 'R' : '',
    ]
    return `${from} ${names.join('')}${data > 0 ? ` ${data}` : ''}`.trim()
  })

t.test(
  'an answer with its FIN goes with the SYN-ACK: the whole connection takes four segments',
  t => {
    const exchange = new Exchange().begin().run()
    exchange.isWhole(t)
    t.strictSame(shown(exchange), ['a S 300', 'b SF 700', 'a F', 'b'])
    t.ok(new Exchange(false).begin().run().wire.length > 6)
    t.end()
  },
)

t.test('where the client ends first the connection takes five segments', t => {
  const exchange = new Exchange()
  exchange.onRequest = connection => connection.send(ANSWER)
  const { onEvent } = exchange.path
  exchange.path.onEvent = (end, event) => {
    onEvent(end, event)
    if (end === exchange.path.a && event.kind === 'readable') event.connection.shutdown()
    if (end === exchange.path.b && event.kind === 'ended') event.connection.shutdown()
  }
  exchange.begin().run()
  exchange.isWhole(t)
  t.strictSame(shown(exchange), ['a S 300', 'b S 700', 'a F', 'b F', 'a'])
  t.end()
})

t.test(
  'a server that answers later acknowledges the SYN at once, and the client the SYN-ACK',
  t => {
    const exchange = new Exchange()
    exchange.onRequest = connection =>
      exchange.path.at(exchange.path.now + 500, () => {
        connection.send(ANSWER)
        connection.shutdown()
      })
    exchange.begin().run()
    exchange.isWhole(t)
    t.strictSame(shown(exchange).slice(0, 3), ['a S 300', 'b S', 'a'])
    t.equal(exchange.when('a connected'), 50)
    t.end()
  },
)

t.test('a client that says nothing to the answer acknowledges it when the turn is over', t => {
  const exchange = new Exchange()
  exchange.onRequest = connection => connection.send(ANSWER)
  exchange.begin().run(60)
  t.strictSame(shown(exchange), ['a S 300', 'b S 700', 'a'])
  exchange.run(80)
  t.equal(exchange.server!.state, 'ESTABLISHED')
  t.equal(exchange.server!.awaitsAck, false)
  t.end()
})

t.test('a long answer begins with the SYN-ACK and does not wait for the handshake', t => {
  const long = Uint8Array.from({ length: 10_000 }, (_, i) => i * 7)
  const exchange = new Exchange()
  exchange.onRequest = connection => {
    connection.send(long)
    connection.shutdown()
  }
  exchange.begin().run()
  t.strictSame(exchange.got.a, [...long])
  t.equal(exchange.server!.retransmissions, 0)
  t.equal(exchange.server!.octetsSent, long.length)
  t.equal(exchange.when('a readable'), 50)
  t.end()
})

t.test('an answer that is lost with the SYN-ACK follows the handshake, with its FIN', t => {
  const exchange = new Exchange(true, ({ from }, count) => from === 'b' && count < 4)
  exchange.begin().run()
  exchange.isWhole(t)
  const answers = shown(exchange).filter(line => /^b .*[SF]/.test(line))
  t.strictSame(answers.slice(0, 3), ['b SF 700', 'b S', 'b F 700'])
  t.equal(exchange.server!.octetsSent, ANSWER.length)
  t.end()
})

t.test('a client that is reset in between, or resets, leaves no token', t => {
  const exchange = new Exchange()
  const { onEvent } = exchange.path
  exchange.path.onEvent = (end, event) => {
    onEvent(end, event)
    if (end === exchange.path.a && event.kind === 'connected') event.connection.abort()
  }
  exchange.begin().run()
  t.ok(exchange.log.some(line => line.startsWith('b closed ECONNRESET')))
  t.equal(exchange.path.b.listeners.firstOctets.size, 0)
  t.end()
})

t.test('a peer of another make sees a SYN as ever', t => {
  const { wire } = new Exchange(false).begin().run()
  t.strictSame(wire[0], { from: 'a', flags: TcpFlag.Syn, data: 0, hasToken: false })
  t.notOk(wire.some(({ hasToken }) => hasToken))
  t.end()
})

t.test('a SYN that is lost comes again without octets, which follow the handshake', t => {
  const exchange = new Exchange(true, (_, count) => count === 1).begin().run()
  exchange.isWhole(t)
  const syns = exchange.wire.filter(({ flags }) => flags === TcpFlag.Syn)
  t.strictSame(
    syns.map(({ data }) => data),
    [REQUEST.length, 0],
  )
  t.end()
})

t.test('where the SYN-ACK is lost the SYN comes again, and the octets count once', t => {
  const exchange = new Exchange(
    true,
    ({ from, flags }, count) => from === 'b' && (flags & TcpFlag.Syn) > 0 && count < 4,
  )
  exchange.begin().run()
  exchange.isWhole(t)
  t.ok(exchange.wire.filter(({ flags }) => flags === TcpFlag.Syn).length > 1)
  t.end()
})

t.test('a port where nobody listens refuses it', t => {
  const exchange = new Exchange().begin({ ...FLOW, remotePort: 81 }).run()
  t.strictSame(exchange.log, ['a closed ECONNREFUSED 50'])
  t.equal(exchange.path.b.listeners.firstOctets.size, 0)
  t.end()
})

t.test(
  'a server that resets it as soon as it has it refuses nothing: the client is told after it has connected',
  t => {
    const exchange = new Exchange(true, ({ from }, count) => from === 'b' && count < 4)
    exchange.onRequest = connection => connection.abort()
    exchange.begin().run()
    t.strictSame([...exchange.got.b], [...REQUEST])
    t.strictSame(
      exchange.log.map(line => line.replace(/ \d+$/, '')),
      ['b accepted', 'b readable', 'a connected', 'a closed ECONNRESET'],
    )
    t.equal(exchange.path.b.listeners.firstOctets.size, 0)
    // Nothing is left of it.
    t.equal(exchange.server!.state, 'CLOSED')
    t.end()
  },
)

t.test('what a server has reset is not served again while the client may come back to it', t => {
  let isLost = true
  const exchange = new Exchange(true, ({ from }) => isLost && from === 'b')
  exchange.onRequest = connection => connection.abort()
  exchange.begin().run(100)
  exchange.client.abort()
  const before = exchange.got.b.length
  isLost = false
  exchange.begin().run(2000)
  t.equal(exchange.got.b.length, before)
  t.match(exchange.log.at(-1), /^a closed ECONNREFUSED/)
  // Nobody comes back to it after so long.
  exchange.path.run(400_000)
  exchange.got.b.length = 0
  exchange.begin().run(401_000)
  t.strictSame(exchange.got.b, [...REQUEST])
  t.end()
})

t.test('a client that begins again over another SA is refused, however the first one ended', t => {
  const exchange = new Exchange(true, ({ from }) => from === 'b').begin().run(100)
  t.strictSame(exchange.got.b, [...REQUEST])
  const another = new TcpStack(seededEnvironment(9), DEFAULT_TCP_CONFIG, exchange.path.b.listeners)
  another.peerFeatures = OWN_FEATURES
  const client = new TcpStack(seededEnvironment(8), DEFAULT_TCP_CONFIG, new TcpListeners())
  client.peerFeatures = OWN_FEATURES
  const say = (token: Uint8Array): string | undefined => {
    client.connect(FLOW, { first: { octets: REQUEST, token } }, 200)
    const packet = new Packet()
    client.pollTransmit(packet, 200)
    return another.handleSegment(packet.bytes, packet.start, packet.end, LOCAL, REMOTE, 200, true)
  }
  t.equal(say(TOKEN), 'tcp.repeatedData')
  t.equal(say(TOKEN.toReversed()), undefined)
  t.end()
})

t.test('the token is forgotten as soon as the client has its connection', t => {
  const exchange = new Exchange().begin().run(60)
  t.equal(exchange.path.b.listeners.firstOctets.size, 1)
  exchange.run(80)
  t.equal(exchange.path.b.listeners.firstOctets.size, 0)
  t.end()
})

t.test('the token of an attempt that began before over another SA stays known', t => {
  const exchange = new Exchange()
  const { firstOctets } = exchange.path.b.listeners
  const [first, again] = [tokenFor(TOKEN, false), tokenFor(TOKEN, true)]
  exchange.begin(FLOW, again).run()
  exchange.isWhole(t)
  t.ok(firstOctets.has(first, 60_000))
  t.notOk(firstOctets.has(first, 400_000))
  t.end()
})

t.test('a peer that is gone is not kept in memory by its tokens', async t => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const listeners = new TcpListeners()
  listeners.listen(80, 10)
  const client = new TcpStack(seededEnvironment(8), DEFAULT_TCP_CONFIG, new TcpListeners())
  client.peerFeatures = OWN_FEATURES
  const serve = (): WeakRef<TcpStack> => {
    const stack = new TcpStack(seededEnvironment(9), DEFAULT_TCP_CONFIG, listeners)
    stack.peerFeatures = OWN_FEATURES
    client.connect(FLOW, { first: { octets: REQUEST, token: TOKEN } }, 0)
    const packet = new Packet()
    client.pollTransmit(packet, 0)
    stack.handleSegment(packet.bytes, packet.start, packet.end, LOCAL, REMOTE, 0, true)
    return new WeakRef(stack)
  }
  const gone = serve()
  t.equal(listeners.firstOctets.size, 1)
  listeners.close(listeners.at(80)!)
  await new Promise(resolve => setImmediate(resolve))
  collect()
  t.equal(gone.deref(), undefined)
  t.equal(listeners.firstOctets.size, 1)
})

t.test('with no room for its token, a request waits for the handshake', t => {
  const exchange = new Exchange()
  const { firstOctets } = exchange.path.b.listeners
  for (let other = 0; firstOctets.size < 8192; other++) {
    const holder = {}
    for (let i = 0; firstOctets.add(Uint8Array.of(other, i >>> 8, i, 0), holder, 0); i++);
  }
  t.equal(firstOctets.size, 8192)
  exchange.begin().run()
  exchange.isWhole(t)
  t.equal(exchange.when('b accepted'), 75)
  t.end()
})

t.test(
  'tokens are bounded for a peer and for all, and each peer leaves others as many as it has',
  t => {
    const known = new FirstOctets()
    const token = (i: number): Uint8Array => Uint8Array.of(i >>> 16, i >>> 8, i, 0)
    let added = 0
    const got: number[] = []
    for (let peer = 0; peer < 20; peer++) {
      const before = added
      while (known.add(token(added), `peer ${peer}`, 0)) added++
      got.push(added - before)
    }
    t.strictSame(got.slice(0, 10), [...Array<number>(7).fill(1024), 512, 256, 128])
    t.equal(added, 8192)
    t.ok(known.has(token(0), 299_999))
    t.notOk(known.has(token(0), 300_000))
    t.equal(known.size, 0)
    t.end()
  },
)

t.test('a full backlog drops the SYN with its octets, which come again', t => {
  const exchange = new Exchange()
  const listener = exchange.path.b.listeners.at(80)!
  const others = Array.from({ length: listener.limit }, () => ({ dropOldest: () => {} }))
  for (const holder of others) listener.enter(holder)
  exchange.begin().run(500)
  t.strictSame(exchange.log, [])
  for (const holder of others) listener.leave(holder)
  exchange.run()
  exchange.isWhole(t)
  t.equal(listener.halfOpen, 0)
  t.end()
})

t.test('both ends may open at once, each with octets', t => {
  const path = new TcpPath(HALF, HALF)
  const got = new Map<string, number[]>()
  const log: string[] = []
  path.onEvent = (end, { kind, connection }) => {
    const name = end === path.a ? 'a' : 'b'
    log.push(`${name} ${kind}`)
    const all = got.get(name) ?? []
    for (let piece = connection.receive(); piece !== undefined; piece = connection.receive())
      all.push(...piece)
    got.set(name, all)
  }
  const open = (stack: TcpStack, local: Uint8Array, remote: Uint8Array, octets: Uint8Array) => {
    stack.peerFeatures = OWN_FEATURES
    const flow = { localAddress: local, localPort: 7, remoteAddress: remote, remotePort: 7 }
    return stack.connect(flow, { first: { octets, token: octets.slice(0, 8) } }, path.now)!
  }
  const ends = [
    open(path.a.stack, LOCAL, REMOTE, REQUEST),
    open(path.b.stack, REMOTE, LOCAL, ANSWER),
  ]
  path.run(5000)
  t.strictSame(
    ends.map(({ state }) => state),
    ['ESTABLISHED', 'ESTABLISHED'],
  )
  t.strictSame(got.get('a'), [...ANSWER])
  t.strictSame(got.get('b'), [...REQUEST])
  t.equal(log.filter(line => line.endsWith('connected')).length, 2)
  t.end()
})

t.test('data that the peer did not accept is sent again at once', t => {
  const stack = new TcpStack(seededEnvironment(1), DEFAULT_TCP_CONFIG, new TcpListeners())
  stack.peerFeatures = OWN_FEATURES
  const connection = stack.connect(FLOW, { first: { octets: REQUEST, token: TOKEN } }, 0)!
  const packet = new Packet()
  const segment = new TcpSegment()
  const hear = (now: number): number[][] => {
    const heard: number[][] = []
    for (packet.reset(); stack.pollTransmit(packet, now) !== undefined; packet.reset()) {
      segment.read(packet.bytes, packet.start, packet.end)
      heard.push([(segment.seq - connection.iss) >>> 0, segment.dataLength])
    }
    return heard
  }
  t.strictSame(hear(0), [[0, 300]])
  const answer = new Uint8Array(20)
  putU16(answer, 0, 80)
  putU16(answer, 2, connection.localPort)
  putU32(answer, 4, 5000)
  // One hundred octets of them.
  putU32(answer, 8, (connection.iss + 101) >>> 0)
  answer[12] = 0x50
  answer[13] = TcpFlag.Syn | TcpFlag.Ack
  putU16(answer, 14, 60_000)
  stack.handleSegment(answer, 0, 20, REMOTE, LOCAL, 40, false)
  t.strictSame(hear(40), [[101, 200]])
  t.equal(connection.octetsSent, 300)
  t.equal(connection.retransmissions, 0)
  t.end()
})
