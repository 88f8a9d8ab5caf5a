/**
 * What TCP's checksum costs: the same transfer with it, as towards other makes, and without, as between our own ends, turn
 * by turn, so that whatever else the machine does falls on both.
 */
import { TcpPath } from '../harness/tcp-path.ts'

const OCTETS = 60_000_000
const TURNS = 7
const SIZES = [1400, 16_384, 65_000] as const
const BIG = { sendBuffer: 1 << 24, receiveBuffer: 1 << 24 }

/** Nanoseconds of the processor for an octet. The receiver verifies none, as in transport mode. */
const cost = (size: number, omitsChecksum: boolean): number => {
  const way = { rate: 10_000, delay: 1 }
  const path = new TcpPath(way, way, BIG)
  for (const { stack } of [path.a, path.b]) {
    stack.segmentLimit = size
    stack.omitsChecksum = omitsChecksum
  }
  const bulk = path.bulk(OCTETS)
  const before = process.cpuUsage()
  path.run(60_000)
  const { user, system } = process.cpuUsage(before)
  if (bulk.received !== OCTETS) throw new Error('the transfer does not end')
  return ((user + system) * 1000) / OCTETS
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1]!

export const showChecksum = (): void => {
  for (const size of SIZES) {
    const costs = { without: [] as number[], with: [] as number[] }
    cost(size, true)
    cost(size, false)
    for (let turn = 0; turn < TURNS; turn++) {
      costs.without.push(cost(size, true))
      costs.with.push(cost(size, false))
    }
    const [without, full] = [median(costs.without), median(costs.with)]
    console.log(
      `segments of ${size}: ${full.toFixed(3)} ns for an octet with a checksum, ${without.toFixed(3)} without (${(without / full).toFixed(2)} x)`,
    )
  }
}
