/**
 * Goodput of one flow over round trips and loss in virtual time, kept as a table in the repository so that each
 * change of TCP shows as a difference.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { CONGESTION_CONTROLS, type CongestionControl } from '../../lib/tcp/congestion/choose.ts'
import { TcpPath } from '../harness/tcp-path.ts'

/** Milliseconds. */
export const ROUND_TRIPS: readonly number[] = [1, 10, 20, 50, 100]
/** Percent, independent for each segment with data. */
export const LOSSES: readonly number[] = [0, 0.1, 1, 3, 5]
/** Mbit/s, and packets. */
export const RATE = 100
export const QUEUE = 200
const DURATION = 10_000
const SEEDS = 3
const BUFFER = 1 << 24

const SNAPSHOT = 'test/bench/tcp-grid.txt'
/** Mbit/s and as a share: what is less is not told as a difference. */
const NOISE = { least: 0.05, share: 0.01 }

export type Grid = Map<string, number>

const keyOf = (control: string, rtt: number, loss: number): string => `${control} ${rtt} ${loss}`

/** Mbit/s of data that arrived. */
const goodput = (control: CongestionControl, rtt: number, loss: number, seed: number): number => {
  const config = { congestionControl: control, sendBuffer: BUFFER, receiveBuffer: BUFFER }
  const there = { rate: RATE, delay: rtt / 2, queue: QUEUE, loss: loss / 100 }
  const path = new TcpPath(there, { rate: RATE, delay: rtt / 2 }, config, seed)
  const bulk = path.bulk()
  path.run(DURATION)
  return (bulk.received * 8) / DURATION / 1000
}

/** Every cell, the mean of a few seeds where there is loss. */
export const measureGrid = (): Grid => {
  const grid: Grid = new Map()
  for (const control of CONGESTION_CONTROLS) {
    for (const rtt of ROUND_TRIPS) {
      for (const loss of LOSSES) {
        const seeds = loss === 0 ? 1 : SEEDS
        let sum = 0
        for (let seed = 1; seed <= seeds; seed++) sum += goodput(control, rtt, loss, seed)
        grid.set(keyOf(control, rtt, loss), sum / seeds)
      }
    }
  }
  return grid
}

const HEADING = `Goodput in Mbit/s of one flow, ${RATE} Mbit/s with a queue of ${QUEUE} packets, ${DURATION / 1000} s, the mean of ${SEEDS} seeds.
One row for each round trip in ms, one column for each loss in percent.`

export const gridText = (grid: Grid): string => {
  const blocks = CONGESTION_CONTROLS.map(control => {
    const rows = ROUND_TRIPS.map(rtt => {
      const cells = LOSSES.map(loss => (grid.get(keyOf(control, rtt, loss)) ?? NaN).toFixed(2))
      return [String(rtt), ...cells].map(cell => cell.padStart(8)).join('')
    })
    const heading = ['', ...LOSSES.map(String)].map(cell => cell.padStart(8)).join('')
    return `${control}\n${heading}\n${rows.join('\n')}\n`
  })
  return `${HEADING}\n\n${blocks.join('\n')}`
}

/** The table in the repository. */
export const readSnapshot = (): Grid => {
  const grid: Grid = new Map()
  if (!existsSync(SNAPSHOT)) return grid
  let control = ''
  for (const line of readFileSync(SNAPSHOT, 'utf8').split('\n')) {
    const [first = '', ...cells] = line.trim().split(/\s+/)
    if (CONGESTION_CONTROLS.some(name => name === line)) control = line
    else if (cells.length === LOSSES.length && ROUND_TRIPS.includes(Number(first)))
      cells.forEach((cell, i) => grid.set(keyOf(control, Number(first), LOSSES[i]!), Number(cell)))
  }
  return grid
}

export const writeSnapshot = (grid: Grid): void => writeFileSync(SNAPSHOT, gridText(grid))

/** One line for each cell that is not what it was. */
export const differences = (before: Grid, now: Grid): string[] =>
  [...now].flatMap(([key, value]) => {
    const was = before.get(key)
    if (was === undefined) return [`${key}: new, ${value.toFixed(2)}`]
    if (Math.abs(value - was) <= Math.max(NOISE.least, NOISE.share * was)) return []
    const [control, rtt, loss] = key.split(' ')
    const change = ((100 * (value - was)) / was).toFixed(0)
    return [
      `${control} at ${rtt} ms and ${loss} %: ${was.toFixed(2)} -> ${value.toFixed(2)} Mbit/s (${value > was ? '+' : ''}${change} %)`,
    ]
  })
