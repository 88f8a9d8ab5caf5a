/** What each congestion control makes of a link of 100 Mbit/s, in virtual time. */
import t from 'tap'
import type { CongestionControl } from '../../lib/tcp/congestion/choose.ts'
import type { AckSample } from '../../lib/tcp/congestion/controller.ts'
import { SlowStart } from '../../lib/tcp/congestion/slow-start.ts'
import { TcpPath } from '../harness/tcp-path.ts'

/** Mbit/s between two instants of a transfer, and the share of segments that were dropped. */
const transfer = (
  congestionControl: CongestionControl,
  rtt: number,
  facts: { loss?: number; queue?: number } = {},
): { goodput: number; dropped: number } => {
  const { loss = 0, queue = Math.ceil((100_000 * rtt) / 12_000) } = facts
  const way = { rate: 100, delay: rtt / 2 }
  const path = new TcpPath({ ...way, queue, loss }, way, {
    congestionControl,
    sendBuffer: 1 << 23,
    receiveBuffer: 1 << 23,
  })
  const bulk = path.bulk()
  path.run(3000)
  const before = bulk.received
  path.run(6000)
  const { dropped, sent } = path.a.link
  return { goodput: ((bulk.received - before) * 8) / 3000 / 1000, dropped: dropped / sent }
}

t.test('a clean link with a queue of one round trip is filled', t => {
  for (const [name, least] of [
    ['cubic', 88],
    ['reno', 80],
    ['bbr', 85],
  ] as const) {
    for (const rtt of [10, 40]) {
      const { goodput } = transfer(name, rtt)
      t.ok(goodput >= least, `${name} at ${rtt} ms: ${goodput}`)
    }
  }
  t.end()
})

t.test('a program that is busy for milliseconds at a time still fills the link', t => {
  const share = (control: CongestionControl, rtt: number, turn: number): number => {
    const way = { rate: 100, delay: rtt / 2 }
    const path = new TcpPath({ ...way, queue: Math.ceil((100_000 * rtt) / 12_000) }, way, {
      congestionControl: control,
      sendBuffer: 1 << 23,
      receiveBuffer: 1 << 23,
    })
    path.turn = turn
    const bulk = path.bulk()
    path.run(3000)
    const before = bulk.received
    path.run(6000)
    return ((bulk.received - before) * 8) / 3000 / 1000 / 100
  }
  for (const control of ['cubic', 'bbr'] as const)
    for (const [rtt, turn, least] of [
      [20, 5, 0.9],
      [20, 10, 0.8],
      [50, 20, 0.8],
      [20, 50, 0.1],
    ] as const) {
      const got = share(control, rtt, turn)
      t.ok(got >= least, `${control}, ${turn} ms of ${rtt} ms: ${got.toFixed(2)} of the link`)
    }
  t.end()
})

t.test('slow start finds a queue of one round trip before it loses', t => {
  for (const rtt of [20, 50, 100]) {
    const way = { rate: 100, delay: rtt / 2 }
    const queue = Math.ceil((100_000 * rtt) / 12_000)
    const path = new TcpPath({ ...way, queue }, way, {
      sendBuffer: 1 << 24,
      receiveBuffer: 1 << 24,
    })
    const bulk = path.bulk()
    path.run(3000)
    const share = path.a.link.dropped / path.a.link.sent
    t.ok(share <= 0.01, `${rtt} ms: ${share} lost`)
    const before = bulk.received
    path.run(5000)
    const goodput = ((bulk.received - before) * 8) / 2000 / 1000
    t.ok(goodput >= 90, `${rtt} ms: ${goodput} Mbit/s`)
  }
  t.end()
})

t.test('slow start goes on when round trips were long by accident', t => {
  const way = { rate: 200, delay: 20 }
  const received = (there: object): number => {
    const config = { sendBuffer: 1 << 22, receiveBuffer: 1 << 22 }
    const path = new TcpPath({ ...way, ...there }, way, config)
    const bulk = path.bulk()
    path.run(2000)
    return bulk.received
  }
  // Something else holds the path up for a while.
  const share = received({ held: [150, 175] }) / received({})
  t.ok(share > 0.8, `${share} of what arrives without`)
  t.end()
})

t.test('the round trip of a SYN says nothing of a queue', t => {
  const slowStart = new SlowStart()
  const sample: AckSample = {
    now: 0,
    segment: 1400,
    delivered: 1400,
    lost: 0,
    rtt: 0,
    srtt: 20,
    minRtt: 1,
    inFlight: 12_600,
    isWindowLimited: true,
    isRecovering: false,
    credit: 1400,
    totalDelivered: 0,
    priorDelivered: -1,
    rate: 0,
    isAppLimited: false,
    inFlightThen: 100_000,
    lostSince: 0,
  }
  let window = 14_000
  // Each takes as long as any other of data, whatever the SYN took.
  for (let i = 0; i < 100; i++) window = slowStart.next({ ...sample, rtt: 20 }, window)
  t.equal(window, 14_000 + 100 * 1400)
  // And these are longer.
  for (let i = 0; i < 100; i++) window = slowStart.next({ ...sample, rtt: 40 }, window)
  t.equal(window, 100_000)
  t.end()
})

t.test('slow start goes on when the path becomes longer while it lasts', t => {
  for (const [delay, rtt] of [
    [10, 60],
    [25, 100],
    [5, 20],
  ] as const) {
    const way = { rate: 1000, delay }
    const path = new TcpPath({ ...way, queue: 2 * rtt * 84 }, way)
    // Large segments: the same in fewer steps of the simulation.
    for (const { stack } of [path.a, path.b]) stack.segmentLimit = 8980
    const { connection } = path.bulk()
    path.at(6 * delay + 5, () => {
      for (const { link } of [path.a, path.b]) Object.assign(link.way, { delay: rtt / 2 })
    })
    path.run(6 * delay + 16 * rtt)
    const { congestion } = connection
    const held = (1000 * rtt * 1000) / 8
    t.ok(congestion.window > 0.8 * held, `${rtt} ms: ${congestion.window} of ${held}`)
    t.equal(path.a.link.dropped, 0)
  }
  t.end()
})

t.test('BBR fills a link that loses, where the others cannot', t => {
  for (const loss of [0.01, 0.05]) {
    const { goodput } = transfer('bbr', 20, { loss, queue: 200 })
    t.ok(goodput > 70, `loss ${loss}: ${goodput}`)
  }
  const { goodput } = transfer('cubic', 20, { loss: 0.01, queue: 200 })
  t.ok(goodput > 4 && goodput < 30, `cubic: ${goodput}`)
  t.end()
})

t.test('a queue that is shorter than BBR would like costs little', t => {
  const { goodput, dropped } = transfer('bbr', 20, { queue: 30 })
  t.ok(goodput > 75, `${goodput}`)
  t.ok(dropped < 0.05, `${dropped} dropped`)
  t.end()
})

t.test('Reno keeps most of a long path with a short queue, though slow start overflows it', t => {
  const way = { rate: 100, delay: 25 }
  const path = new TcpPath({ ...way, queue: 200 }, way, { congestionControl: 'reno' })
  const bulk = path.bulk()
  path.run(1000)
  t.ok(path.a.link.dropped > 0, 'it does')
  const before = bulk.received
  path.run(5000)
  const rate = ((bulk.received - before) * 8) / 4000 / 1000
  t.ok(rate >= 90, `${rate} Mbit/s`)
  t.end()
})
