/** What a script finds in `struct tcp_info` of Linux and FreeBSD, from one of our connections. */
import type { Millis } from '../../../lib/base/environment.ts'
import type { TcpConnection } from '../../../lib/tcp/connection.ts'
import type { TcpState } from '../../../lib/tcp/control-block.ts'

const LINUX_STATES: Readonly<Record<TcpState, number>> = {
  ESTABLISHED: 1,
  'SYN-SENT': 2,
  'SYN-RECEIVED': 3,
  'FIN-WAIT-1': 4,
  'FIN-WAIT-2': 5,
  'TIME-WAIT': 6,
  CLOSED: 7,
  'CLOSE-WAIT': 8,
  'LAST-ACK': 9,
  CLOSING: 11,
}
const FREEBSD_STATES: Readonly<Record<TcpState, number>> = {
  CLOSED: 0,
  'SYN-SENT': 2,
  'SYN-RECEIVED': 3,
  ESTABLISHED: 4,
  'CLOSE-WAIT': 5,
  'FIN-WAIT-1': 6,
  CLOSING: 7,
  'LAST-ACK': 8,
  'FIN-WAIT-2': 9,
  'TIME-WAIT': 10,
}

const OPTIONS: Readonly<Record<string, number>> = {
  TCPI_OPT_TIMESTAMPS: 1,
  TCPI_OPT_SACK: 2,
  TCPI_OPT_WSCALE: 4,
  TCPI_OPT_ECN: 8,
  TCPI_OPT_ECN_SEEN: 16,
  TCPI_OPT_SYN_DATA: 32,
}
const PHASES: Readonly<Record<string, number>> = {
  TCP_CA_Open: 0,
  TCP_CA_Disorder: 1,
  TCP_CA_CWR: 2,
  TCP_CA_Recovery: 3,
  TCP_CA_Loss: 4,
}
/** Of those kernels alone: RACK, as RFC 8985 has it, counts no degree of reordering, and our buffers are not theirs. */
export const FOREIGN_NAMES: ReadonlySet<string> = new Set([
  'tcpi_reordering',
  'tcpi_reord_seen',
  'SK_MEMINFO_RCVBUF',
])
/** What Linux gives while no loss has set a threshold. */
const NO_THRESHOLD = 0x7fffffff

/** Undefined: nothing of ours has that name. */
export const tcpInfo = (
  name: string,
  connection: TcpConnection | undefined,
  isFreeBsd: boolean,
): number | undefined => {
  const constant = OPTIONS[name] ?? PHASES[name] ?? stateConstant(name, isFreeBsd)
  if (constant !== undefined) return constant
  if (connection === undefined)
    return name === 'tcpi_state' ? (isFreeBsd ? FREEBSD_STATES : LINUX_STATES).CLOSED : undefined
  const { sent, rtt } = connection.recovery
  const { retransmissions } = connection
  const info = connection.tcpInfo()
  switch (name) {
    case 'tcpi_state':
      return (isFreeBsd ? FREEBSD_STATES : LINUX_STATES)[connection.state]
    case 'tcpi_options':
      return (
        (connection.timestamps ? OPTIONS.TCPI_OPT_TIMESTAMPS! : 0) |
        (connection.sackPermitted ? OPTIONS.TCPI_OPT_SACK! : 0) |
        (connection.windowScaling ? OPTIONS.TCPI_OPT_WSCALE! : 0)
      )
    case 'tcpi_snd_wscale':
      return connection.sndWndShift
    case 'tcpi_rcv_wscale':
      return connection.rcvWndShift
    case 'tcpi_advmss':
      return connection.ownMss
    case 'tcpi_snd_ssthresh':
      return connection.congestion.threshold === Infinity ? NO_THRESHOLD : Number(info.snd_ssthresh)
    case 'tcpi_lost':
      return sent.lostCount + repairedCount(connection)
    case 'tcpi_retrans':
      return repairedCount(connection)
    case 'tcpi_rcv_rtt':
      return receivedRtt(connection)
    case 'tcpi_ca_state':
      return caState(connection)
    case 'tcpi_retransmits':
    case 'tcpi_backoff':
      return rtt.backoffs
    case 'tcpi_probes':
      return connection.persistProbes
    case 'tcpi_total_retrans':
      return retransmissions
    case 'tcpi_notsent_bytes':
      return connection.unsent
    case 'tcpi_min_rtt':
      return Math.round(rtt.minRtt * 1000)
    case 'tcpi_bytes_acked':
      return (connection.sndUna - connection.iss) >>> 0
    case 'tcpi_snd_wnd':
      return connection.sndWnd
    case 'tcpi_unacked':
      return sent.length
    default:
      return Number(info[name.replace(/^tcpi_/, '')] ?? NaN) || zeroOrUndefined(name, info)
  }
}

/** Segments that were lost and have been sent again: to Linux they are lost until they arrive. */
const repairedCount = ({ recovery }: TcpConnection): number => {
  const { sent } = recovery
  const { slotAt } = sent as unknown as { slotAt(index: number): number }
  let count = 0
  for (let index = 0; index < sent.length; index++) {
    const slot = slotAt.call(sent, index)
    if (sent.isRetransmitted(slot) && !sent.isLost(slot) && !sent.isSacked(slot)) count++
  }
  return count
}

/** Ours takes its own round trips where no timestamps tell of the peer's: that is not what a script asks for. */
const receivedRtt = (connection: TcpConnection): number | undefined => {
  if (!connection.timestamps) return undefined
  const { tuned } = connection as unknown as { tuned: { rtt: Millis } | undefined }
  return tuned === undefined ? 0 : tuned.rtt * 1000
}

const zeroOrUndefined = (
  name: string,
  info: Readonly<Record<string, number | string>>,
): number | undefined => (info[name.replace(/^tcpi_/, '')] === 0 ? 0 : undefined)

const stateConstant = (name: string, isFreeBsd: boolean): number | undefined => {
  const match = /^TCP[IS]?_(\w+)$/.exec(name)
  if (match === null) return undefined
  const state = match[1]!
    .replace(/^SYN_RECV$|^SYN_RCVD$/, 'SYN_RECEIVED')
    .replace(/^FIN_WAIT(\d)$/, 'FIN_WAIT_$1')
    .replace(/^CLOSE$/, 'CLOSED')
    .replaceAll('_', '-')
  const states: Readonly<Record<string, number>> = isFreeBsd ? FREEBSD_STATES : LINUX_STATES
  return states[state]
}

const caState = ({ recovery }: TcpConnection): number => {
  const { phase } = recovery as unknown as { phase: 'open' | 'fast' | 'timeout' }
  if (phase === 'timeout') return PHASES.TCP_CA_Loss!
  if (phase === 'fast') return PHASES.TCP_CA_Recovery!
  return recovery.sent.sackedCount > 0 ? PHASES.TCP_CA_Disorder! : PHASES.TCP_CA_Open!
}
