/** Where a script expects what another stack does and ours follows an RFC: how that is recognized, and the RFC. */
import { TcpFlag } from '../../../lib/wire/tcp.ts'
import type { SentSegment } from './host.ts'
import type { SegmentText } from './segments.ts'

export interface Difference {
  readonly what:
    | 'nothing'
    | 'time'
    | 'flags'
    | 'seq'
    | 'length'
    | 'ack'
    | 'sack'
    | 'call'
    | 'value'
    | 'count'
  readonly message: string
  readonly wanted?: SegmentText
  /** Sequence number and time as the script counts them. */
  readonly got?: Pick<SentSegment, 'flags' | 'seq' | 'ack' | 'length' | 'at'>
  /** The last segment that came, and the state it came to. */
  readonly last?: SegmentText | undefined
  readonly state?: string | undefined
  /** The kind of the last ICMP message. */
  readonly icmp?: string | undefined
}

type Whole = Required<Difference> & { readonly last: SegmentText }

interface Rule {
  readonly why: string
  readonly holds: (difference: Whole) => boolean
}

const only = (flags: number, ...wanted: readonly number[]): boolean =>
  (flags & ~TcpFlag.Psh) === wanted.reduce((all, flag) => all | flag, 0)

const RULES: readonly Rule[] = [
  {
    why: 'a newer SYN ends TIME-WAIT (RFC 9293 §3.6.1 MAY-2, RFC 6191 §2)',
    holds: ({ state, last }) => state === 'TIME-WAIT' && (last.flags & TcpFlag.Syn) !== 0,
  },
  {
    why: "a FIN is not repeated with the ACK of the peer's, sooner than one RTO (RFC 6298 §5; RFC 9293 §3.6 figure 13)",
    holds: ({ state, last, wanted, got }) =>
      state === 'FIN-WAIT-1' &&
      (last.flags & TcpFlag.Fin) !== 0 &&
      only(wanted.flags, TcpFlag.Fin, TcpFlag.Ack) &&
      only(got.flags, TcpFlag.Ack) &&
      got.seq === (wanted.seq ?? 0) + 1,
  },
  {
    why: 'an ACK at a listener is answered with RST (RFC 9293 §3.10.7.2)',
    holds: ({ state, wanted, got }) =>
      state === 'LISTEN' &&
      only(wanted.flags, TcpFlag.Syn, TcpFlag.Ack) &&
      only(got.flags, TcpFlag.Rst),
  },
  {
    why: 'an error that is called soft ends a connection that opens (RFC 5461 §4, RFC 9293 §3.9.2.2)',
    holds: ({ icmp, what, message }) =>
      what === 'call' && icmp === 'unreachable' && message.includes('EHOSTUNREACH, expected'),
  },
]

const NO_SEGMENT: SegmentText = {
  flags: 0,
  seq: undefined,
  length: 0,
  ack: undefined,
  window: 0,
  urgent: 0,
  options: undefined,
}
const NOTHING_SENT: Required<Difference>['got'] = { flags: 0, seq: -1, ack: -1, length: 0, at: NaN }

/** The RFC that ours follows; undefined: nothing explains the difference. */
export const explain = (difference: Difference): string | undefined => {
  const { last = NO_SEGMENT, wanted = NO_SEGMENT, got = NOTHING_SENT } = difference
  const { state = '', icmp = '' } = difference
  const whole = { ...difference, last, wanted, got, state, icmp }
  return RULES.find(rule => rule.holds(whole))?.why
}
