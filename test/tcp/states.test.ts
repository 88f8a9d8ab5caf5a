/** TCP by hand-made segments in virtual time: each test is a conversation with one stack. */
import t from 'tap'
import { Packet } from '../../lib/base/packet.ts'
import { TcpConnection } from '../../lib/tcp/connection.ts'
import { TcpListeners } from '../../lib/tcp/listener.ts'
import { Reassembly } from '../../lib/tcp/reassembly.ts'
import { DEFAULT_TCP_CONFIG, TcpStack, type TcpEvent } from '../../lib/tcp/stack.ts'
import { OWN_FEATURES } from '../../lib/wire/own-features.ts'
import { TcpFlag, TcpSegment } from '../../lib/wire/tcp.ts'
import { seededEnvironment } from '../harness/random.ts'

const US = Uint8Array.of(192, 0, 2, 1)
const PEER = Uint8Array.of(198, 51, 100, 2)
const { Fin, Syn, Rst, Psh, Ack } = TcpFlag
const PEER_ISN = 0xffff_fff0

interface Sent {
  flags: number
  seq: number
  ack: number
  data: number
  window: number
}

/** One stack, and a peer that a test plays. */
class Bench {
  now = 1000
  readonly listeners = new TcpListeners()
  readonly stack: TcpStack
  readonly events: TcpEvent[] = []
  connection!: TcpConnection
  /** What the peer sends next, and the first number of ours. */
  seq = PEER_ISN
  iss = 0
  private readonly packet = new Packet(70_000)

  constructor(config: Partial<typeof DEFAULT_TCP_CONFIG> = {}) {
    this.stack = new TcpStack(
      seededEnvironment(1),
      { ...DEFAULT_TCP_CONFIG, ...config },
      this.listeners,
    )
    this.stack.segmentLimit = 1040
  }

  /** The peer says something; numbers are relative to each end's first. */
  say(
    flags: number,
    ackOffset = 1,
    data = 0,
    options: { seq?: number; window?: number } = {},
  ): void {
    const bytes = new Uint8Array(20 + data)
    const view = new DataView(bytes.buffer)
    view.setUint16(0, 7)
    view.setUint16(2, this.connection?.localPort ?? 80)
    view.setUint32(4, (options.seq ?? this.seq) >>> 0)
    view.setUint32(8, (this.iss + ackOffset) >>> 0)
    bytes[12] = 0x50
    bytes[13] = flags
    view.setUint16(14, options.window ?? 60_000)
    this.stack.handleSegment(bytes, 0, bytes.length, PEER, US, this.now, false)
    if (options.seq === undefined) {
      this.seq = (this.seq + data + (flags & Syn ? 1 : 0) + (flags & Fin ? 1 : 0)) >>> 0
    }
    this.collect()
  }

  private collect(): void {
    for (let event = this.stack.pollEvent(); event !== undefined; event = this.stack.pollEvent()) {
      this.events.push(event)
      if (event.kind === 'accepted') this.connection = event.connection
    }
  }

  /** What we send now. */
  heard(): Sent[] {
    const sent: Sent[] = []
    const segment = new TcpSegment()
    for (;;) {
      this.packet.reset()
      if (this.stack.pollTransmit(this.packet, this.now) === undefined) return sent
      const bytes = this.packet.view()
      t.ok(bytes.length <= 1040, 'within the limit')
      segment.read(bytes, 0, bytes.length)
      const { flags, seq, ack, window } = segment
      if (flags & Syn) this.iss = seq
      sent.push({ flags, seq: (seq - this.iss) >>> 0, ack, data: segment.dataLength, window })
    }
  }

  wait(millis: number): void {
    const end = this.now + millis
    for (let next = this.stack.nextTimeout(); next <= end; next = this.stack.nextTimeout()) {
      this.now = Math.max(this.now, next)
      this.stack.handleTimeout(this.now)
      this.collect()
      if (this.stack.nextTimeout() <= this.now) break
    }
    this.now = Math.max(this.now, end)
  }

  kinds(): string[] {
    return this.events.map(({ kind, error }) => (error === undefined ? kind : `${kind} ${error}`))
  }

  connect(): this {
    this.connection = this.stack.connect(
      { localAddress: US, localPort: 0, remoteAddress: PEER, remotePort: 7 },
      { noDelay: true },
      this.now,
    )!
    t.equal(this.heard()[0]?.flags, Syn)
    return this
  }

  established(): this {
    this.connect().say(Syn | Ack)
    t.match(this.heard(), [{ flags: Ack, seq: 1 }])
    return this
  }
}

t.test('active open, data both ways, close from our side to TIME-WAIT and beyond', t => {
  const b = new Bench().established()
  b.connection.send(new Uint8Array(10))
  t.match(b.heard(), [{ flags: Ack | Psh, seq: 1, data: 10 }])
  b.say(Ack | Psh, 11, 5)
  t.equal(b.connection.receive()?.length, 5)
  b.connection.shutdown()
  t.match(b.heard(), [{ flags: Ack | Fin, seq: 11 }])
  t.equal(b.connection.state, 'FIN-WAIT-1')
  b.say(Ack, 12)
  t.equal(b.connection.state, 'FIN-WAIT-2')
  b.say(Ack | Fin, 12)
  t.match(b.heard(), [{ flags: Ack, seq: 12 }])
  t.equal(b.connection.state, 'TIME-WAIT')
  b.say(Ack | Fin, 12, 0, { seq: (b.seq - 1) >>> 0 })
  t.equal(b.heard().length, 1, 'a repeated FIN is acknowledged')
  b.wait(DEFAULT_TCP_CONFIG.timeWait + 1)
  t.ok(b.stack.isEmpty)
  t.equal(b.stack.nextTimeout(), Infinity)
  t.strictSame(b.kinds(), ['connected', 'readable', 'ended', 'closed'])
  t.end()
})

t.test('the peer closes first: CLOSE-WAIT still sends, LAST-ACK ends it', t => {
  const b = new Bench().established()
  b.say(Ack | Fin)
  t.equal(b.connection.state, 'CLOSE-WAIT')
  b.heard()
  b.connection.send(new Uint8Array(3))
  t.match(b.heard(), [{ data: 3 }])
  b.connection.shutdown()
  t.match(b.heard(), [{ flags: Ack | Fin, seq: 4 }])
  t.equal(b.connection.state, 'LAST-ACK')
  b.say(Ack, 5)
  t.equal(b.connection.state, 'CLOSED')
  t.ok(b.stack.isEmpty)
  t.end()
})

for (const state of ['LAST-ACK', 'CLOSING'] as const) {
  t.test(`${state}: what was lost goes out again with each ACK, and waits for no timer`, t => {
    const b = new Bench().established()
    if (state === 'LAST-ACK') b.say(Ack | Fin)
    b.connection.send(new Uint8Array(4 * 536))
    b.connection.shutdown()
    b.heard()
    if (state === 'CLOSING') b.say(Ack | Fin)
    t.equal(b.connection.state, state)
    b.heard()
    b.wait(b.stack.nextTimeout() - b.now)
    t.match(b.heard(), [{ seq: 1, data: 536 }])
    b.say(Ack, 537)
    t.match(b.heard()[0], { seq: 537, data: 536 })
    t.end()
  })
}

t.test('simultaneous close: CLOSING, then TIME-WAIT', t => {
  const b = new Bench().established()
  b.connection.shutdown()
  b.heard()
  b.say(Ack | Fin, 1)
  t.equal(b.connection.state, 'CLOSING')
  b.heard()
  b.say(Ack, 2)
  t.equal(b.connection.state, 'TIME-WAIT')
  t.end()
})

t.test('simultaneous open', t => {
  const b = new Bench().connect()
  b.say(Syn, 0)
  t.equal(b.connection.state, 'SYN-RECEIVED')
  t.match(b.heard(), [{ flags: Syn | Ack, seq: 0 }])
  b.say(Ack, 1)
  t.equal(b.connection.state, 'ESTABLISHED')
  t.strictSame(b.kinds(), ['connected'])
  t.end()
})

t.test('passive open, backlog, and RST for ports nobody listens on', t => {
  const b = new Bench()
  b.say(Syn, 0)
  t.match(b.heard(), [{ flags: Rst | Ack, ack: (PEER_ISN + 1) >>> 0 }])
  const listener = b.listeners.listen(80, 1)!
  t.equal(b.listeners.listen(80, 1), undefined, 'the port is taken')
  b.seq = PEER_ISN
  b.say(Syn, 0)
  t.match(b.heard(), [{ flags: Syn | Ack, ack: (PEER_ISN + 1) >>> 0 }])
  t.equal(listener.halfOpen, 1)
  b.say(Ack, 1)
  t.strictSame(b.kinds(), ['accepted'])
  t.equal(listener.halfOpen, 0)
  t.end()
})

t.test('a client is silent about other hosts, whose segments its selectors let through', t => {
  const stray = (bench: Bench, destination: Uint8Array): string | undefined => {
    const bytes = new Uint8Array(20)
    const view = new DataView(bytes.buffer)
    view.setUint16(0, 7)
    view.setUint16(2, 40_000)
    bytes[12] = 0x50
    bytes[13] = Ack
    return bench.stack.handleSegment(bytes, 0, 20, PEER, destination, bench.now, false, true)
  }
  const OTHER = Uint8Array.of(192, 0, 2, 77)
  const idle = new Bench()
  t.equal(stray(idle, OTHER), 'tcp.otherHost', 'before it has a connection, too')
  const client = new Bench().connect()
  client.heard()
  t.equal(stray(client, OTHER), 'tcp.otherHost')
  t.strictSame(client.heard(), [])
  t.equal(stray(client, US), undefined)
  t.equal(client.heard()[0]?.flags, Rst, 'its own address has no such connection')

  // Who listens serves whatever its selectors cover.
  const both = new Bench().connect()
  both.heard()
  both.listeners.listen(80, 1)
  t.equal(stray(both, OTHER), undefined)
  t.equal(both.heard()[0]?.flags, Rst)
  t.end()
})

t.test(
  'RST: refused in SYN-SENT, reset when exact, challenged when only in the window, ignored outside',
  t => {
    const refused = new Bench().connect()
    refused.say(Rst | Ack, 99)
    t.equal(refused.connection.state, 'SYN-SENT', 'the wrong ACK')
    refused.say(Rst | Ack, 1)
    t.strictSame(refused.kinds(), ['closed ECONNREFUSED'])
    const b = new Bench().established()
    b.say(Rst, 1, 0, { seq: b.seq + 1000 })
    t.match(b.heard(), [{ flags: Ack, ack: b.seq }])
    b.say(Rst, 1, 0, { seq: b.seq - 1000 })
    t.strictSame(b.heard(), [])
    t.equal(b.connection.state, 'ESTABLISHED')
    b.say(Syn, 1, 0, { seq: b.seq + 10 })
    t.match(b.heard(), [{ flags: Ack }], 'a SYN in the window is challenged')
    b.say(Rst, 1)
    t.strictSame(b.kinds(), ['connected', 'closed ECONNRESET'])
    t.ok(b.stack.isEmpty)
    t.end()
  },
)

t.test('segments out of order are kept, reported at once, and delivered in order', t => {
  const b = new Bench().established()
  const first = b.seq
  b.say(Ack, 1, 100, { seq: first + 100 })
  t.match(b.heard(), [{ flags: Ack, ack: first }])
  t.equal(b.connection.readableLength, 0)
  b.say(Ack, 1, 100, { seq: first + 200 })
  b.say(Ack, 1, 150, { seq: first })
  t.match(b.heard().at(-1), { ack: (first + 300) >>> 0 })
  t.equal(b.connection.readableLength, 300)
  t.end()
})

t.test('SYN and data are sent again with growing waits, then given up', t => {
  const b = new Bench({ synRetries: 2 }).connect()
  b.wait(1000)
  t.match(b.heard(), [{ flags: Syn, seq: 0 }])
  // From here on up to an eighth more, so that those of many do not come in step.
  b.wait(2250)
  t.match(b.heard(), [{ flags: Syn, seq: 0 }])
  b.wait(4500)
  t.strictSame(b.kinds(), ['closed ETIMEDOUT'])
  const data = new Bench({ retries: 2 }).established()
  data.connection.send(new Uint8Array(100))
  data.heard()
  for (let i = 0; i < 2; i++) {
    data.wait(data.stack.nextTimeout() - data.now)
    t.match(data.heard(), [{ seq: 1, data: 100 }])
  }
  data.wait(60_000)
  t.strictSame(data.kinds(), ['connected', 'closed ETIMEDOUT'])
  t.end()
})

t.test('a shut window is probed, and data goes on when it opens', t => {
  const b = new Bench().established()
  b.say(Ack, 1, 0, { window: 0 })
  b.connection.send(new Uint8Array(50))
  t.strictSame(b.heard(), [])
  b.wait(1500)
  t.match(b.heard(), [{ data: 1 }])
  b.say(Ack, 2, 0, { window: 60_000 })
  t.match(b.heard(), [{ data: 49, seq: 2 }])
  t.end()
})

t.test('our window closes while nobody reads, and opens again', t => {
  const b = new Bench({ receiveBuffer: 4000 }).established()
  for (let i = 0; i < 4; i++) b.say(Ack, 1, 1000)
  t.equal(b.heard().at(-1)?.window, 0)
  b.say(Ack, 1, 1000, { seq: b.seq })
  t.equal(b.connection.readableLength, 4000, 'nothing beyond the window is taken')
  b.heard()
  while (b.connection.receive() !== undefined);
  t.ok((b.heard().at(-1)?.window ?? 0) > 0, 'a window update')
  t.end()
})

t.test('Nagle holds small writes while some are under way, unless noDelay', t => {
  const b = new Bench().established()
  b.connection.setNoDelay(false)
  b.connection.send(new Uint8Array(1))
  t.equal(b.heard().length, 1)
  b.connection.send(new Uint8Array(1))
  b.connection.send(new Uint8Array(1))
  t.equal(b.heard().length, 0)
  b.say(Ack, 2)
  t.match(b.heard(), [{ data: 2 }])
  t.end()
})

t.test('keep-alive asks a silent peer, then gives it up', t => {
  const b = new Bench().established()
  b.connection.setKeepAlive({ enable: true, initialDelay: 1000, interval: 500, count: 2 }, b.now)
  b.wait(1001)
  t.match(b.heard(), [{ flags: Ack, seq: 0, data: 0 }])
  b.say(Ack, 1)
  b.wait(1600)
  b.heard()
  b.wait(3000)
  t.strictSame(b.kinds(), ['connected', 'closed ETIMEDOUT'])
  t.end()
})

t.test(
  'a FIN is acknowledged by the FIN that answers it, at once or within the delay between our own ends',
  t => {
    const own = (): Bench => {
      const bench = new Bench().established()
      bench.stack.peerFeatures = OWN_FEATURES
      bench.say(Ack | Fin)
      t.strictSame(bench.heard(), [])
      return bench
    }
    const answered = own()
    answered.connection.shutdown()
    const fin = { flags: Ack | Fin, ack: answered.seq }
    t.match(answered.heard(), [fin])
    answered.wait(10)
    t.strictSame(answered.heard(), [], 'and not once more')
    const open = own()
    open.wait(5)
    t.match(open.heard(), [{ flags: Ack, ack: open.seq }])
    const other = new Bench().established()
    other.say(Ack | Fin)
    t.match(other.heard(), [{ flags: Ack, ack: other.seq }], 'other makes do not know of our delay')
    // Data beside the FIN, and the end of a connection that we have ended, wait for nothing.
    const last = new Bench().established()
    last.stack.peerFeatures = OWN_FEATURES
    last.connection.shutdown()
    last.heard()
    last.say(Ack | Fin, 2)
    t.match(last.heard(), [{ flags: Ack, ack: last.seq }])
    t.end()
  },
)

t.test('letting go with octets unread resets; data to a reader that is gone resets', t => {
  const unread = new Bench().established()
  unread.say(Ack, 1, 10)
  unread.heard()
  unread.connection.release(unread.now)
  t.match(unread.heard(), [{ flags: Rst | Ack }])
  const gone = new Bench().established()
  gone.connection.release(gone.now)
  gone.heard()
  gone.say(Ack, 2, 10)
  t.match(gone.heard(), [{ flags: Rst }])
  t.ok(gone.stack.isEmpty)
  t.end()
})

t.test('a listener drops what is neither SYN nor ACK, and refuses an ACK', t => {
  const bench = new Bench()
  bench.listeners.listen(80, 5)
  bench.say(Fin, 0)
  bench.say(Psh, 0, 10)
  t.strictSame(bench.heard(), [])
  bench.say(Ack, 5)
  t.match(bench.heard(), [{ flags: Rst }])
  t.end()
})

t.test('what came twice ahead of a gap is found, and its range named first (RFC 2883)', t => {
  const reassembly = new Reassembly()
  const add = (from: number, to: number): void =>
    void reassembly.add(from, new Uint8Array(to - from), 100)
  add(200, 300)
  add(400, 500)
  t.strictSame(reassembly.overlap(150, 250), { start: 200, end: 250 })
  t.strictSame(reassembly.overlap(300, 400), undefined)
  const [starts, ends] = [new Uint32Array(3), new Uint32Array(3)]
  t.equal(reassembly.blocks(starts, ends), 2)
  t.strictSame([...starts], [200, 400, 0])
  t.end()
})
