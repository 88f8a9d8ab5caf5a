/** How long a small request takes on a path that loses, with and without what only our own ends do: in virtual time. */
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { OWN_FEATURES, type Feature } from '../../lib/wire/own-features.ts'
import { TcpPath } from '../harness/tcp-path.ts'

const RTT = 50
const LOSS = 0.05
const OCTETS = new Uint8Array(300)
const SEEDS = 10

export interface Requests {
  /** Milliseconds of each. */
  readonly times: readonly number[]
  /** Of data that were sent more than once, though nothing seemed lost, and all that were sent. */
  readonly copied: number
  readonly sent: number
}

/** Requests of 300 octets, each answered by as many, over one connection; the next comes `pause` milliseconds after an answer. */
export const measureRequests = (
  without: readonly Feature[],
  count: number,
  pause: number,
  seed: number,
): Requests => {
  let copied = 0
  let sent = 0
  const last = ['', '']
  const way = (end: number) => ({
    delay: RTT / 2,
    loss: LOSS,
    passes: (segment: Uint8Array): boolean => {
      const octets = segment.length - (segment[12]! >>> 4) * 4
      const text = String(segment)
      if (octets > 0) sent += octets
      if (octets > 0 && text === last[end]) copied += octets
      last[end] = text
      return true
    },
  })
  const path = new TcpPath(way(0), way(1), {}, seed)
  const features = new Set([...OWN_FEATURES].filter(name => !without.includes(name)))
  for (const { stack } of [path.a, path.b]) stack.peerFeatures = features
  const times: number[] = []
  let askedAt = 0
  let left = count
  const received = new Map<TcpConnection, number>()
  const ask = (connection: TcpConnection): void => {
    if (left-- <= 0) return connection.shutdown()
    askedAt = path.now
    connection.send(OCTETS)
    path.pump()
  }
  path.onEvent = (end, { kind, connection }) => {
    if (end === path.a && kind === 'connected') ask(connection)
    if (kind !== 'readable') return
    let octets = received.get(connection) ?? 0
    for (let piece = connection.receive(); piece !== undefined; piece = connection.receive())
      octets += piece.length
    received.set(connection, octets % OCTETS.length)
    if (octets < OCTETS.length) return
    if (end === path.b) return void connection.send(OCTETS)
    times.push(path.now - askedAt)
    path.at(path.now + pause, () => ask(connection))
  }
  path.connect()
  path.run(count * (1000 + pause))
  if (times.length !== count) throw new Error(`${times.length} of ${count} requests are answered`)
  return { times, copied, sent }
}

const percentile = (values: readonly number[], share: number): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length * share)]!

export const showRequests = (): void => {
  for (const [count, pause] of [
    [100, 0],
    [1000, 200],
    [1000, 0],
  ] as const) {
    const [plain, before, after] = (
      [['repeat-small', 'ack-delay'], ['repeat-small'], []] as const
    ).map(without => {
      const runs = Array.from({ length: SEEDS }, (_, seed) =>
        measureRequests(without, count, pause, seed + 1),
      )
      const all = runs.flatMap(({ times }) => times)
      const [copied, sent] = [
        runs.reduce((sum, run) => sum + run.copied, 0),
        runs.reduce((sum, run) => sum + run.sent, 0),
      ]
      const share = ((100 * copied) / sent).toFixed(1)
      return `p50 ${percentile(all, 0.5).toFixed(0)}, p95 ${percentile(all, 0.95).toFixed(0)}, p99 ${percentile(all, 0.99).toFixed(0)} ms (${share} % copies)`
    })
    console.log(
      `${count} requests of 300 octets, ${pause} ms apart, RTT ${RTT} ms, loss ${LOSS * 100} % each way:
  towards others          ${plain}
  without repeated ones   ${before}
  between our own ends    ${after}`,
    )
  }
}
