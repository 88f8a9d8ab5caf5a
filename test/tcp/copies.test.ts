/** Small last segments that go out twice between our own ends, where the path is seen to lose. */
import t from 'tap'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { Copies } from '../../lib/tcp/copies.ts'
import { NO_FEATURES, OWN_FEATURES } from '../../lib/wire/own-features.ts'
import { TcpFlag, TcpSegment } from '../../lib/wire/tcp.ts'
import { measureRequests } from '../bench/tcp-requests.ts'
import { TcpPath } from '../harness/tcp-path.ts'

const SMALL = new Uint8Array(300).fill(7)
const SMALL_DATA = 300

/** A connection of `a` whose segments with data, and whose ACKs, can be told. */
class Talk {
  readonly path: TcpPath
  readonly client: TcpConnection
  /** Data octets of what `a` has sent, each with its first number; the same for what `b` has: segments without data. */
  readonly sent: string[] = []
  acks = 0
  received = 0
  /** Of `a`'s segments with data to come, so many are lost. */
  losses = 0
  /** So many ACKs of `b` are lost. */
  deafFor = 0
  /** The ACK with that number is lost. */
  deafTo = -1

  /** `held`: between these instants no ACK arrives. */
  constructor(isOurs = true, held?: readonly [number, number]) {
    const segment = new TcpSegment()
    this.path = new TcpPath(
      {
        delay: 10,
        passes: bytes => {
          segment.read(bytes, 0, bytes.length)
          if (segment.dataLength === 0) return true
          this.sent.push(`${segment.seq} ${segment.dataLength}`)
          return this.losses-- <= 0
        },
      },
      {
        delay: 10,
        ...(held === undefined ? {} : { held }),
        passes: bytes => {
          segment.read(bytes, 0, bytes.length)
          if (!segment.has(TcpFlag.Syn)) this.acks++
          return this.deafFor-- <= 0 && this.acks !== this.deafTo
        },
      },
    )
    for (const { stack } of [this.path.a, this.path.b])
      stack.peerFeatures = isOurs ? OWN_FEATURES : NO_FEATURES
    this.path.onEvent = (_, { kind, connection }) => {
      if (kind !== 'readable') return
      for (let piece = connection.receive(); piece !== undefined; piece = connection.receive())
        this.received += piece.length
    }
    this.client = this.path.connect()
    this.path.run(100)
  }

  /** What `write` makes `a` send, and the ACKs it is answered with. */
  write(octets: Uint8Array): { sent: number; distinct: number; acks: number } {
    const [before, acks] = [this.sent.length, this.acks]
    this.client.send(octets)
    this.path.run(this.path.now + 2000)
    const sent = this.sent.slice(before)
    return { sent: sent.length, distinct: new Set(sent).size, acks: this.acks - acks }
  }

  lose(): void {
    this.losses = 1
    this.write(SMALL)
    this.losses = 0
  }
}

t.test('once something was lost, a small write goes out twice, and is answered once', t => {
  const talk = new Talk()
  t.strictSame(talk.write(SMALL), { sent: 1, distinct: 1, acks: 1 })
  talk.lose()
  t.strictSame(talk.write(SMALL), { sent: 2, distinct: 1, acks: 1 })
  t.equal(talk.received, 3 * SMALL_DATA)
  t.equal(talk.client.tcpInfo()['total_retrans'], 1)
  t.end()
})

t.test('either of the two is enough', t => {
  const talk = new Talk()
  talk.lose()
  const repeated = talk.client.retransmissions
  talk.losses = 1
  t.strictSame(talk.write(SMALL), { sent: 2, distinct: 1, acks: 1 })
  t.equal(talk.client.retransmissions, repeated)
  t.equal(talk.received, 2 * SMALL_DATA)
  t.end()
})

t.test('only the last, smaller segment of a write is sent twice', t => {
  const talk = new Talk()
  talk.lose()
  const { sent, distinct } = talk.write(new Uint8Array(10_000))
  t.equal(sent, distinct + 1)
  t.equal(talk.sent.at(-1), talk.sent.at(-2))
  const mss = talk.client.mss
  t.strictSame(talk.write(new Uint8Array(2 * mss)).sent, 2)
  t.end()
})

t.test('a path that has lost nothing for a minute does not lose', t => {
  const talk = new Talk()
  talk.lose()
  talk.path.run(talk.path.now + 61_000)
  t.equal(talk.write(SMALL).sent, 1)
  t.end()
})

t.test(
  'an ACK that was late is no loss, also when what came twice is not told (RFC 3522 §3)',
  t => {
    const talk = new Talk(true, [100, 280])
    // The one that would tell it.
    talk.deafTo = 2
    t.strictSame(talk.write(SMALL), { sent: 2, distinct: 1, acks: 2 }, 'the probe')
    talk.write(SMALL)
    t.strictSame(talk.write(SMALL), { sent: 1, distinct: 1, acks: 1 })
    t.end()
  },
)

t.test('others get each segment once', t => {
  const talk = new Talk(false)
  talk.lose()
  t.equal(talk.write(SMALL).sent, 1)
  t.end()
})

t.test('a segment retransmitted because its ACK was lost is answered', t => {
  const talk = new Talk()
  talk.lose()
  talk.deafFor = 1
  const { sent, acks } = talk.write(SMALL)
  // Both, and the probe.
  t.equal(sent, 3)
  t.equal(acks, 2)
  t.equal(talk.client.flightOctets, 0)
  t.end()
})

t.test('copies are a hundredth of what is sent, and of a megabit a second', t => {
  const copies = new Copies()
  // What is around its data counts too.
  const take = (octets: number, now: number): boolean => copies.take(octets - 100, now)
  t.notOk(take(101, 0), 'nothing was lost yet')
  copies.noteLost(0)
  t.ok(take(65_536, 0))
  t.notOk(take(101, 0))
  copies.noteSent(10_100)
  t.ok(take(101, 0))
  t.notOk(take(101, 0))
  t.ok(take(1250, 1000))
  t.notOk(take(101, 1000))
  copies.noteSent(1e9)
  t.ok(take(1 << 20, 1000), 'no more is saved up')
  t.notOk(take(101, 1000))
  t.notOk(take(1250, 1500))
  copies.noteLost(1e9)
  t.ok(take(65_536, 1e9), 'a silence saves up as much as there was at first')
  t.notOk(take(101, 1e9))
  t.end()
})

t.test('95 of 100 small requests take one round trip at a loss of 5 %', t => {
  const p95 = (without: Parameters<typeof measureRequests>[0]): number =>
    measureRequests(without, 400, 250, 3).times.toSorted((a, b) => a - b)[380]!
  t.ok(p95([]) <= 60)
  t.ok(p95(['repeat-small']) > 90)
  t.end()
})
