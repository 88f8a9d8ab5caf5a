/** What each version of TCP has to reach, measured in virtual time; processor time alone is the machine's. */
import { createHash } from 'node:crypto'
import type { CongestionControl } from '../../lib/tcp/congestion/choose.ts'
import type { Packet } from '../../lib/base/packet.ts'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { Bulk, TcpPath, type Way } from '../harness/tcp-path.ts'

export interface Figure {
  readonly name: string
  readonly value: number
  /** The least or the most that is right. */
  readonly floor: { readonly least: number } | { readonly most: number }
  readonly unit: string
}

const BIG = { sendBuffer: 1 << 24, receiveBuffer: 1 << 24 }
/** Octets of data, and of all, in a packet of the simulated path: timestamps, TCP and IPv4. */
const MSS = 1448
const PACKET = 1500

const queueOf = (rate: number, rtt: number): number =>
  Math.max(10, Math.ceil((rate * 1000 * rtt) / 8 / PACKET))

/** Mbit/s of data between two instants. */
const rateBetween = (path: TcpPath, bulk: Bulk, from: number, to: number): number => {
  path.run(from)
  const before = bulk.received
  path.run(to)
  return ((bulk.received - before) * 8) / (to - from) / 1000
}

const cleanLink = (rtt: number): Figure[] => {
  const way = { rate: 100, delay: rtt / 2 }
  const path = new TcpPath({ ...way, queue: queueOf(100, rtt) }, way, BIG)
  const bulk = path.bulk()
  path.run(3000)
  const lost = (100 * path.a.link.dropped) / path.a.link.sent
  const rate = rateBetween(path, bulk, 3000, 10_000)
  return [
    {
      name: `clean link, ${rtt} ms, share of its payload rate after 3 s`,
      value: (100 * rate) / ((100 * MSS) / PACKET),
      floor: { least: 93 },
      unit: '%',
    },
    {
      name: `clean link, ${rtt} ms, lost in the first 3 s`,
      value: lost,
      floor: { most: 1 },
      unit: '%',
    },
  ]
}

const REORDERING_SEEDS = [1, 2, 3, 4, 5]

const reordering = (): Figure[] => {
  const goodput = (way: Partial<Way>, seed = 1): number => {
    const link = { rate: 100, delay: 10 }
    const path = new TcpPath({ ...link, queue: 1000, ...way }, link, BIG, seed)
    return rateBetween(path, path.bulk(), 0, 8000)
  }
  const clean = goodput({})
  const figure = (late: number, lateBy: number, least: number): Figure => ({
    name: `reordering, ${late * 100} % by ${lateBy} ms at 20 ms, share of the clean rate, the least of ${REORDERING_SEEDS.length} seeds`,
    value: Math.min(...REORDERING_SEEDS.map(seed => goodput({ late, lateBy }, seed))) / clean,
    floor: { least },
    unit: 'x',
  })
  return [figure(0.02, 5, 0.95), figure(0.02, 20, 0.9), figure(0.1, 5, 0.85)]
}

/** How much later a transfer ends when its last segments are lost the first time. */
const tail = (rtt: number, lost: number): Figure => {
  const octets = 100 * MSS
  const time = (count: number): number => {
    const seen = new Set<number>()
    const passes = (segment: Uint8Array): boolean => {
      const length = segment.length - (segment[12]! >>> 4) * 4
      if (length === 0) return true
      const seq = new DataView(segment.buffer, segment.byteOffset).getUint32(4)
      const isFirst = !seen.has(seq)
      seen.add(seq)
      return !isFirst || seen.size <= 100 - count
    }
    const way = { rate: 100, delay: rtt / 2 }
    const path = new TcpPath({ ...way, queue: 1000, passes }, way)
    const bulk = path.bulk(octets)
    path.run(10_000)
    if (bulk.received !== octets) throw new Error('the transfer does not end')
    return bulk.lastAt
  }
  return {
    name: `the last ${lost} of 100 segments lost, ${rtt} ms: repair`,
    value: time(lost) - time(0),
    floor: { most: 2 * rtt + 12 },
    unit: 'ms',
  }
}

const stall = (): Figure[] => {
  const rtt = 50
  const there: Way = { rate: 20, delay: rtt / 2, queue: 4000, held: [5000, 6000] }
  const path = new TcpPath(there, { rate: 20, delay: rtt / 2 }, { sendBuffer: 300_000 })
  const bulk = path.bulk()
  path.run(4990)
  const before = bulk.connection.retransmissions
  const rate = rateBetween(path, bulk, 6000 + 2 * rtt, 6000 + 6 * rtt)
  path.run(8000)
  return [
    {
      name: 'stall of 1 s, segments sent again without need',
      value: bulk.connection.retransmissions - before,
      floor: { most: 2 },
      unit: 'segments',
    },
    {
      name: 'stall of 1 s, rate one round trip after the first ACK, of the link',
      value: (100 * rate) / ((20 * MSS) / PACKET),
      floor: { least: 90 },
      unit: '%',
    },
  ]
}

const idleRestart = (): Figure => {
  const way = { rate: 100, delay: 25 }
  const path = new TcpPath({ ...way, queue: 100 }, way)
  const bulk = path.bulk(2_000_000)
  path.run(10_000)
  const before = path.a.link.dropped
  path.at(70_000, () => {
    bulk.left = 2_000_000
    bulk.fill()
    path.pump()
  })
  path.run(90_000)
  if (bulk.received !== 4_000_000) throw new Error('the second transfer does not end')
  return {
    name: '2 MB after 60 s of silence, queue of 100, drops',
    value: path.a.link.dropped - before,
    floor: { most: 0 },
    unit: 'segments',
  }
}

/** Jain's index: 1 when all have the same. */
const jain = (shares: readonly number[]): number => {
  const sum = shares.reduce((all, share) => all + share, 0)
  return sum ** 2 / (shares.length * shares.reduce((all, share) => all + share ** 2, 0))
}

const fairness = (flows: number, congestionControl: CongestionControl): Figure => {
  const way = { rate: 100, delay: 10 }
  const config = { ...BIG, congestionControl }
  const path = new TcpPath({ ...way, queue: queueOf(100, 20) }, way, config)
  const bulks = new Map<TcpConnection, Bulk>()
  const ports = new Map<number, Bulk>()
  path.onEvent = (end, { kind, connection }) => {
    if (end === path.a && (kind === 'connected' || kind === 'writable'))
      bulks.get(connection)?.fill()
    if (end === path.b && kind === 'readable')
      ports.get(connection.remotePort)?.drain(connection, path.now)
  }
  for (let i = 0; i < flows; i++) {
    path.at(i * 50, () => {
      const connection = path.connect()
      const bulk = new Bulk(connection, Infinity)
      bulks.set(connection, bulk)
      ports.set(connection.localPort, bulk)
      path.pump()
    })
  }
  path.run(10_000)
  const before = [...bulks.values()].map(({ received }) => received)
  path.run(40_000)
  const shares = [...bulks.values()].map(({ received }, i) => received - before[i]!)
  return {
    name: `${flows} flows of ${congestionControl} at 20 ms, Jain's index over 30 s`,
    value: jain(shares),
    floor: { least: 0.95 },
    unit: '',
  }
}

/** Seconds of the processor that `work` takes. */
const secondsOf = (work: () => void): number => {
  const before = process.cpuUsage()
  work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1e6
}

const SEGMENT = 1432
const TCP_HEADER = 32
const SECONDS = 30_000
const fastPath = (rtt: number): TcpPath => {
  const way = { rate: 1000, delay: rtt / 2 }
  return new TcpPath({ ...way, queue: 4000 }, way, BIG)
}

/** `omitsChecksum`: as between two ends of this package in transport mode, where the ICV covers what it would. */
const transferSeconds = (rtt: number, octets: number, omitsChecksum: boolean): number => {
  const path = fastPath(rtt)
  for (const { stack } of [path.a, path.b])
    Object.assign(stack, { segmentLimit: SEGMENT, omitsChecksum })
  const bulk = path.bulk(octets)
  const seconds = secondsOf(() => path.run(SECONDS))
  if (bulk.received !== octets) throw new Error('the transfer does not end')
  return seconds
}

/** The same packets by ends that do nothing. */
const pathSeconds = (rtt: number, octets: number): number => {
  const path = fastPath(rtt)
  let left = Math.ceil(octets / (SEGMENT - TCP_HEADER))
  let credit = 4000
  let unanswered = 0
  const idle = { pollEvent: () => undefined, nextTimeout: () => Infinity, handleTimeout: () => {} }
  const sender = {
    ...idle,
    pollTransmit: (packet: Packet) => {
      if (left === 0 || credit === 0) return undefined
      left--
      credit--
      return packet.append(SEGMENT)
    },
    handleSegment: () => void (credit += 2),
  }
  const receiver = {
    ...idle,
    pollTransmit: (packet: Packet) => {
      if (unanswered < 2) return undefined
      unanswered -= 2
      return packet.append(TCP_HEADER)
    },
    handleSegment: () => void unanswered++,
  }
  Object.assign(path.a, { stack: sender })
  Object.assign(path.b, { stack: receiver })
  const seconds = secondsOf(() => path.run(SECONDS))
  if (left > 0) throw new Error('the packets do not end')
  return seconds
}

/** A fixed computation: how much of the processor a program gets in these seconds, beside others on the machine. */
const yardstickSeconds = (): number => {
  const octets = new Uint8Array(1 << 16)
  return secondsOf(() => {
    for (let i = 0; i < YARDSTICK_BLOCKS; i++) createHash('sha256').update(octets).digest()
  })
}
/** SHA-256 of so many blocks of 64 KiB: a tenth of a second or so. */
const YARDSTICK_BLOCKS = 2000
const TURNS = 3

const median = (values: readonly number[]): number =>
  [...values].sort((one, other) => one - other)[values.length >> 1]!

/** What TCP takes beside the simulated path, between our own ends and with a checksum as to others: medians of turns. */
const processor = (rtt: number, turns: number): Figure => {
  const octets = 200_000_000
  const gigabytes = octets / 1e9
  transferSeconds(rtt, octets / 4, true)
  transferSeconds(rtt, octets / 4, false)
  pathSeconds(rtt, octets / 4)
  const costs: number[] = []
  const withChecksums: number[] = []
  const paths: number[] = []
  const shares: number[] = []
  for (let turn = 0; turn < turns; turn++) {
    const yardstick = yardstickSeconds()
    const path = pathSeconds(rtt, octets)
    const cost = transferSeconds(rtt, octets, true) - path
    withChecksums.push((transferSeconds(rtt, octets, false) - path) / gigabytes)
    costs.push(cost / gigabytes)
    paths.push(path / gigabytes)
    shares.push((cost / gigabytes) * (YARDSTICK_BLOCKS / yardstick))
  }
  const blocks = (median(shares) / 1000).toFixed(0)
  return {
    name: `processor time of both ends, MSS 1400, ${rtt} ms (${median(withChecksums).toFixed(2)} with a checksum, as to others; beside ${median(paths).toFixed(2)} of the simulated path; a gigabyte costs as much as SHA-256 of ${blocks},000 blocks of 64 KiB)`,
    value: median(costs),
    floor: { most: 3 },
    unit: 's/GB',
  }
}

/** Of so many turns each. */
export const measureProcessor = function* (turns = TURNS): Generator<Figure> {
  for (const rtt of [1, 20]) yield processor(rtt, turns)
}

export const measureFloors = function* (): Generator<Figure> {
  for (const rtt of [1, 10, 20, 50, 100]) yield* cleanLink(rtt)
  yield* reordering()
  for (const rtt of [1, 10, 20]) for (const lost of [1, 2, 5]) yield tail(rtt, lost)
  yield* stall()
  yield idleRestart()
  for (const flows of [2, 8, 32]) yield fairness(flows, 'cubic')
  yield* measureProcessor()
}

export const isReached = ({ value, floor }: Figure): boolean =>
  'least' in floor ? value >= floor.least : value <= floor.most

/** One line: what it is, the figure, the floor, and whether it is reached. */
export const figureText = (figure: Figure): string => {
  const { name, value, floor, unit } = figure
  const bound = 'least' in floor ? `>= ${floor.least}` : `<= ${floor.most}`
  const shown = `${Number(value.toFixed(3))} ${unit}`.trim()
  return `${isReached(figure) ? 'ok    ' : 'MISSED'}  ${name}: ${shown} (${bound})`
}
