/** What fits through a path is found by trial (RFC 4821, RFC 8899); in virtual time. */
import t from 'tap'
import { SizeSearch } from '../../lib/base/size-search.ts'
import { Sizes } from '../harness/sizes.ts'
import { TcpPath, type Way } from '../harness/tcp-path.ts'

const IP_HEADER = 20
const BOUNDS = { least: 576, start: 1280, most: 1500 }
const DELAY = 10

/** A transfer over a path that takes packets of `mtu` octets, and says nothing of larger ones. */
const over = (
  mtu: { value: number },
  bounds = BOUNDS,
  way: Partial<Way> = {},
  octets = 2_000_000,
) => {
  const there = {
    rate: 50,
    queue: 200,
    delay: DELAY,
    ...way,
    passes: (segment: Uint8Array, now: number) =>
      segment.length + IP_HEADER <= mtu.value && way.passes?.(segment, now) !== false,
  }
  const path = new TcpPath(there, { delay: DELAY })
  const sizes = new Sizes(path.a.stack, bounds)
  path.b.stack.receiveLimit = bounds.most - IP_HEADER
  const bulk = path.bulk(octets)
  return { path, sizes, bulk, octets }
}

for (const mtu of [576, 800, 1280, 1300, 1400, 1492, 1500]) {
  t.test(`a path of ${mtu} that says nothing carries 2 MB in three seconds`, t => {
    const { path, sizes, bulk } = over({ value: mtu }, BOUNDS, {}, Infinity)
    path.run(3000)
    t.ok(bulk.received >= 2_000_000, `${bulk.received} octets`)
    path.run(6000)
    t.ok(sizes.search.limit <= mtu)
    t.ok(sizes.search.limit >= mtu - 32, `${sizes.search.limit} is found`)
    t.ok(sizes.tried.length <= 24, `with ${sizes.tried.length} probes`)
    t.end()
  })
}

for (const [mtu, name] of [
  [9000, 'jumbo'],
  [1500, 'nothing but 1500'],
  [65_535, 'the loopback'],
] as const) {
  t.test(`of an interface for 65535, what the path takes is found: ${name}`, t => {
    const bounds = { ...BOUNDS, most: 65_535 }
    const { path, sizes, bulk } = over({ value: mtu }, bounds, { rate: 1000 }, 60_000_000)
    path.run(5000)
    t.ok(sizes.search.limit <= mtu && sizes.search.limit >= mtu * 0.97, String(sizes.search.limit))
    t.equal(bulk.error, undefined)
    t.end()
  })
}

t.test('a size that was assumed and does not get through costs one timeout', t => {
  const { path, bulk, octets } = over({ value: 1280 }, { ...BOUNDS, start: 65_535, most: 65_535 })
  path.run(1500)
  t.equal(bulk.received, octets)
  t.end()
})

t.test('the loss of a probe is no sign of load', t => {
  const { path, bulk, sizes } = over({ value: 1290 }, BOUNDS, {}, Infinity)
  let least = Infinity
  let most = 0
  for (let time = 200; time < 2500; time += 20) {
    path.run(time)
    const { window, threshold } = bulk.connection.congestion
    most = Math.max(most, window)
    if (path.a.link.dropped === 0 && threshold < Infinity) least = Math.min(least, window / most)
  }
  t.ok(sizes.tried.length >= 3 && sizes.search.limit <= 1290)
  t.equal(bulk.connection.recovery.rtt.backoffs, 0)
  t.ok(least >= 1, `the window never fell to ${least} of what it was`)
  t.end()
})

t.test('a probe that load has lost is sent again', t => {
  let isFirst = true
  const passes = (segment: Uint8Array): boolean => {
    const isLost = isFirst && segment.length + IP_HEADER > 1280
    if (isLost) isFirst = false
    return !isLost
  }
  const { path, sizes } = over({ value: 1500 }, BOUNDS, { passes })
  path.run(1000)
  t.strictSame(sizes.tried, [1500, 1500])
  t.equal(sizes.search.limit, 1500)
  t.end()
})

t.test('a path that takes less, and later more again, in mid-transfer', t => {
  const mtu = { value: 1500 }
  const { path, sizes, bulk } = over(mtu, BOUNDS, { rate: 20, queue: 60 }, Infinity)
  path.run(2000)
  t.equal(sizes.search.limit, 1500)
  mtu.value = 1300
  path.run(3500)
  const before = bulk.received
  t.ok(sizes.search.limit <= 1300 && sizes.search.limit >= 1280, String(sizes.search.limit))
  path.run(5500)
  t.ok(bulk.received - before > 1_000_000, `${bulk.received - before} octets in two seconds`)
  mtu.value = 1500
  path.run(90_000)
  t.equal(sizes.search.limit, 1500, 'what did not fit is tried again after a minute')
  t.equal(bulk.error, undefined)
  t.end()
})

t.test('small segments that arrive do not hide that large ones do not', t => {
  const mtu = { value: 1500 }
  const { path, bulk, sizes } = over(mtu, BOUNDS, {}, 200_000)
  path.run(1000)
  t.equal(sizes.search.limit, 1500)
  mtu.value = 1300
  bulk.connection.send(new Uint8Array(1448))
  // Each of these tells that the large one before them is lost, so that no timer ever goes off.
  for (let i = 0; i < 100; i++) {
    path.run(path.now + 15)
    bulk.connection.send(new Uint8Array(10))
  }
  path.run(path.now + 100)
  t.equal(bulk.received, 200_000 + 1448 + 1000)
  t.end()
})

t.test('an outage is forgotten at once', t => {
  let isDown = false
  const { path, sizes, bulk } = over({ value: 1500 }, BOUNDS, { passes: () => !isDown }, Infinity)
  path.run(1000)
  t.equal(sizes.search.limit, 1500)
  isDown = true
  path.run(4000)
  t.equal(sizes.search.limit, 576)
  isDown = false
  path.run(11_000)
  t.equal(sizes.search.limit, 1500)
  t.equal(bulk.error, undefined)
  t.end()
})

t.test('a path of which nothing comes back is searched ever more seldom', t => {
  const search = new SizeSearch(BOUNDS)
  let now = 0
  let probes = 0
  for (; now < 3_600_000; now += 100) {
    const size = search.candidate(1500, now)
    if (size === 0) continue
    probes++
    search.noteSent(size, now)
    search.noteLost(size, true, now + 50)
  }
  t.ok(probes < 12 * 18, `${probes} probes in an hour`)
  t.equal(search.limit, 1280)
  t.end()
})
