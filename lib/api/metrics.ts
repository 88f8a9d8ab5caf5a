/**
 * What this process counts, as Prometheus' text exposition (version 0.0.4). Names and labels follow OpenTelemetry's
 * conventions: `network.io.direction` is `network_io_direction`, units stand at the end.
 */
import { Endpoint } from '../node/endpoint.ts'

interface Sample {
  readonly labels?: Readonly<Record<string, string>>
  readonly value: number
}

interface Metric {
  readonly name: string
  readonly type: 'counter' | 'gauge'
  readonly help: string
  readonly samples: readonly Sample[]
}

const escape = (text: string): string =>
  text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')

const print = ({ name, type, help, samples }: Metric): string => {
  const lines = samples.map(({ labels = {}, value }) => {
    const list = Object.entries(labels).map(([label, text]) => `${label}="${escape(text)}"`)
    return `${name}${list.length === 0 ? '' : `{${list.join(',')}}`} ${value}`
  })
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines, ''].join('\n')
}

const directions = (received: number, sent: number): readonly Sample[] => [
  { labels: { network_io_direction: 'receive' }, value: received },
  { labels: { network_io_direction: 'transmit' }, value: sent },
]

/** Sums over all endpoints of this process that are open; `drops` by reason. */
const collect = () => {
  const sum = {
    sessions: 0,
    sockets: 0,
    in: 0,
    out: 0,
    repeated: 0,
    datagramsIn: 0,
    datagramsOut: 0,
  }
  const drops = new Map<string, number>()
  for (const { core, sessions } of Endpoint.all) {
    sum.datagramsIn += core.counters.datagramsIn
    sum.datagramsOut += core.counters.datagramsOut
    for (const [reason, count] of Object.entries(core.counters.drops))
      drops.set(reason, (drops.get(reason) ?? 0) + count)
    for (const session of sessions) {
      const info = session.info()
      sum.sessions++
      sum.sockets += info.sockets
      sum.in += info.octetsIn
      sum.out += info.octetsOut
      sum.repeated += info.ikeRetransmissions
    }
  }
  return { ...sum, drops }
}

/** The metrics of all endpoints that are open in this process, for an HTTP answer of type `text/plain; version=0.0.4`. */
export const metrics = (): string => {
  const all = collect()
  const reasons = Array.from(all.drops, ([reason, value]) => ({ labels: { reason }, value }))
  const list: readonly Metric[] = [
    {
      name: 'ike_sessions',
      type: 'gauge',
      help: 'IKE SAs that are up.',
      samples: [{ value: all.sessions }],
    },
    {
      name: 'ike_sockets',
      type: 'gauge',
      help: 'TCP connections inside ESP.',
      samples: [{ value: all.sockets }],
    },
    {
      name: 'ike_session_io_bytes',
      type: 'gauge',
      help: 'Octets of ESP of the sessions that are up.',
      samples: directions(all.in, all.out),
    },
    {
      name: 'ike_session_retransmissions',
      type: 'gauge',
      help: 'Requests of IKE sent again, of the sessions that are up.',
      samples: [{ value: all.repeated }],
    },
    {
      name: 'ike_udp_datagrams_total',
      type: 'counter',
      help: 'UDP datagrams.',
      samples: directions(all.datagramsIn, all.datagramsOut),
    },
    {
      name: 'ike_dropped_total',
      type: 'counter',
      help: 'Datagrams and packets that were dropped, by reason.',
      samples: reasons,
    },
  ]
  return list.map(print).join('')
}
