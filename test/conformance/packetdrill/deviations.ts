/** Where a script expects what another stack does and ours follows an RFC: how that is recognized, and the RFC. */
import type { Millis } from '../../../lib/base/environment.ts'
import type { SlowStart } from '../../../lib/tcp/congestion/slow-start.ts'
import type { TcpConnection } from '../../../lib/tcp/connection.ts'
import { TcpFlag } from '../../../lib/wire/tcp.ts'
import type { SentSegment } from './host.ts'
import type { SegmentText } from './segments.ts'

/** A segment that came, and what it came to. */
export interface Arrival {
  readonly segment: SegmentText
  readonly at: Millis
  readonly state: string | undefined
  /** It has more than the window that we had told, or acknowledges what was never sent. */
  readonly isBeyondWindow: boolean
  readonly acksUnsent: boolean
}

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
  /** When the script has it at the soonest; `undefined`: whenever it comes. */
  readonly wantedAt?: Millis | undefined
  /** Sequence number and time as the script counts them. */
  readonly got?: Omit<SentSegment, 'sourcePort' | 'targetPort' | 'timestamp' | 'isWindowUpdate'>
  /** What it answers, or else the last one that came. */
  readonly last?: Arrival | undefined
  /** Of which something was heard last. */
  readonly connection?: TcpConnection | undefined
  /** The kind of the last ICMP message. */
  readonly icmp?: string | undefined
  /** A connection before this one was told how large a packet may be. */
  readonly hasOtherLimit?: boolean
}

/** The parts of a difference, and what follows from them. */
interface Whole {
  readonly what: Difference['what']
  readonly message: string
  readonly wanted: SegmentText
  readonly got: Required<Difference>['got']
  readonly last: Arrival
  readonly icmp: string | undefined
  readonly hasOtherLimit: boolean
  /** It was sent before its time, and is none that was sent before. */
  readonly isEarly: boolean
  /** It was, and would be a repetition. */
  readonly isEarlyRepeat: boolean
  /** An ACK without data. */
  readonly isBare: boolean
  readonly sender: Sender
}

/** What decides when we send. */
interface Sender {
  readonly isInSlowStart: boolean
  /** Slow start has reduced the window, to see whether there is a queue. */
  readonly isTrying: boolean
  readonly phase: string
  readonly hasProbed: boolean
  readonly mss: number
  readonly inFlight: number
  readonly window: number
  readonly minRtt: Millis
}

interface Rule {
  readonly why: string
  readonly holds: (difference: Whole) => boolean
}

const only = (flags: number, ...wanted: readonly number[]): boolean =>
  (flags & ~TcpFlag.Psh) === wanted.reduce((all, flag) => all | flag, 0)

/** Timers of scripts count milliseconds. */
const TICK: Millis = 1

const RULES: readonly Rule[] = [
  {
    why: 'a newer SYN ends TIME-WAIT (RFC 9293 §3.6.1 MAY-2, RFC 6191 §2)',
    holds: ({ last }) => last.state === 'TIME-WAIT' && (last.segment.flags & TcpFlag.Syn) !== 0,
  },
  {
    why: "a FIN is not repeated with the ACK of the peer's, sooner than one RTO (RFC 6298 §5; RFC 9293 §3.6 figure 13)",
    holds: ({ last, wanted, got }) =>
      last.state === 'FIN-WAIT-1' &&
      (last.segment.flags & TcpFlag.Fin) !== 0 &&
      only(wanted.flags, TcpFlag.Fin, TcpFlag.Ack) &&
      only(got.flags, TcpFlag.Ack) &&
      got.seq === (wanted.seq ?? 0) + 1,
  },
  {
    why: 'an ACK at a listener is answered with RST (RFC 9293 §3.10.7.2)',
    holds: ({ last, wanted, got }) =>
      last.state === 'LISTEN' &&
      only(wanted.flags, TcpFlag.Syn, TcpFlag.Ack) &&
      only(got.flags, TcpFlag.Rst),
  },
  {
    why: 'an error that is called soft ends a connection that opens (RFC 5461 §4, RFC 9293 §3.9.2.2)',
    holds: ({ icmp, what, message }) =>
      what === 'call' && icmp === 'unreachable' && message.includes('EHOSTUNREACH, expected'),
  },
  {
    why: 'what lies beyond the window is cut off, and the rest is taken (RFC 9293 §3.10.7.4)',
    holds: ({ last, isBare, got, wanted }) =>
      last.isBeyondWindow && isBare && got.ack !== (wanted.ack ?? 0),
  },
  {
    why: 'an ACK of what was never sent is answered with one (RFC 9293 §3.10.7.4)',
    holds: ({ last, isBare }) => last.acksUnsent && isBare,
  },
  {
    why: 'two full segments are acknowledged at once (RFC 9293 §3.8.6.3)',
    holds: ({ what, last, isBare, got, sender }) =>
      (what === 'time' || what === 'flags') &&
      isBare &&
      got.at === last.at &&
      last.segment.length >= 2 * sender.mss &&
      got.ack === (last.segment.seq ?? 0) + last.segment.length,
  },
  {
    why: 'an ACK of octets that came twice says so (RFC 2883 §4)',
    holds: ({ what, got, wanted }) =>
      what === 'sack' && !/sack/.test(wanted.options ?? '') && (got.sack[1] ?? Infinity) <= got.ack,
  },
  {
    why: 'a tail loss probe waits two round trips, and for ACKs as long as they were seen to take (RFC 8985 §7.2)',
    holds: ({ what, isEarlyRepeat, wanted, got, sender }) =>
      what === 'time' &&
      isEarlyRepeat &&
      wanted.seq === got.seq &&
      sender.phase === 'open' &&
      sender.hasProbed,
  },
  {
    why: 'what is not reported a quarter of the least round trip after what was sent later is lost (RFC 8985 §6.2)',
    holds: ({ what, isEarlyRepeat, last, wanted, got, sender }) =>
      what === 'time' &&
      isEarlyRepeat &&
      wanted.seq === got.seq &&
      sender.phase === 'fast' &&
      Math.abs(got.at - last.at - sender.minRtt / 4) <= TICK,
  },
  {
    why: 'while less is under way than the window, each ACK may let one more segment out than has arrived (RFC 6937 §3.1, PRR-SSRB), and three are no burst',
    holds: ({ what, isEarlyRepeat, sender }) =>
      (what === 'time' || what === 'seq') &&
      isEarlyRepeat &&
      sender.phase === 'fast' &&
      sender.inFlight <= sender.window,
  },
  {
    why: "a router's word on the size is believed of the connection that it speaks of (RFC 5927 §7.2, RFC 8201 §5.2)",
    holds: ({ hasOtherLimit, what, got, wanted, sender }) =>
      hasOtherLimit && what === 'length' && got.length === sender.mss && got.length > wanted.length,
  },
  {
    why: 'slow start goes back to what the path held when round trips become longer (ours, of RFC 9406 §4.2)',
    holds: ({ what, message, sender }) =>
      what === 'value' && /^assert tcpi_snd_(cwnd|ssthresh)\b/.test(message) && sender.isTrying,
  },
  {
    why: 'a probe of a shut window has an octet of what comes next (RFC 9293 §3.8.6.1)',
    holds: ({ wanted, got }) =>
      got.length === 1 && wanted.length === 0 && got.seq === (wanted.seq ?? 0) + 1,
  },
  {
    why: 'in slow start each octet that is acknowledged counts, one that SACK or a duplicate ACK had told of too (RFC 5681 §3.1, RFC 9406 §4.2)',
    holds: ({ what, isEarly, sender }) => what === 'time' && isEarly && sender.isInSlowStart,
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
const NO_ARRIVAL: Arrival = {
  segment: NO_SEGMENT,
  at: NaN,
  state: undefined,
  isBeyondWindow: false,
  acksUnsent: false,
}
const NOTHING_SENT: Whole['got'] = {
  flags: 0,
  seq: -1,
  ack: -1,
  length: 0,
  at: NaN,
  sack: [],
  received: 0,
  isRepeat: false,
}

const NO_SENDER: Sender = {
  isInSlowStart: false,
  isTrying: false,
  phase: '',
  hasProbed: false,
  mss: 0,
  inFlight: 0,
  window: 0,
  minRtt: 0,
}

/** The RFC that ours follows; undefined: nothing explains the difference. */
export const explain = (difference: Difference): string | undefined => {
  const { what, message, icmp, last = NO_ARRIVAL, wanted = NO_SEGMENT } = difference
  const { got = NOTHING_SENT, wantedAt = Infinity, connection } = difference
  const { hasOtherLimit = false } = difference
  const isEarly = got.length > 0 || (got.flags & TcpFlag.Fin) !== 0 ? got.at < wantedAt : false
  const whole: Whole = {
    what,
    message,
    icmp,
    hasOtherLimit,
    last,
    wanted,
    got,
    isEarly: isEarly && !got.isRepeat,
    isEarlyRepeat: isEarly && got.isRepeat,
    isBare: only(got.flags, TcpFlag.Ack) && got.length === 0 && got.at >= 0,
    sender: senderOf(connection),
  }
  return RULES.find(rule => rule.holds(whole))?.why
}

const senderOf = (connection: TcpConnection | undefined): Sender => {
  if (connection === undefined) return NO_SENDER
  const { recovery, mss } = connection
  const { phase, probe } = recovery as unknown as { phase: string; probe: string }
  const { congestion, inFlight, rtt } = recovery
  const { slowStart } = congestion as unknown as { slowStart?: SlowStart }
  return {
    isTrying: slowStart !== undefined && slowStart.peak > 0,
    window: congestion.window,
    isInSlowStart: congestion.window < congestion.threshold,
    phase,
    hasProbed: probe !== 'none',
    mss,
    inFlight,
    minRtt: rtt.minRtt,
  }
}
