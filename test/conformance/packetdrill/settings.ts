/**
 * The profile of a script: which of the settings of the kernel that it was written for are ours, what they
 * are called here, and which ask for something that this TCP does not have.
 */
import type { Millis } from '../../../lib/base/environment.ts'
import { DEFAULT_TCP_CONFIG, type TcpConfig } from '../../../lib/tcp/config.ts'
import { CONGESTION_CONTROLS } from '../../../lib/tcp/congestion/choose.ts'
import { NotDrivable } from './script.ts'

export interface Profile {
  readonly isFreeBsd: boolean
  /** Changed by settings until the first connection needs it. */
  config: TcpConfig
  /** Octets of the largest packet, IP header included. */
  mtu: number
  /** Octets of a header between IP and TCP. */
  readonly encapsulation: number
  /** The window stays as it is while nothing is sent, against RFC 5681 §4.1. */
  keepsIdleWindow: boolean
  /** RFC 5961 is switched off: where that matters, the script asks for another TCP. */
  isInsecure: boolean
}

/** What those kernels have by default that a script counts on. */
const LINUX: Partial<TcpConfig> = { receiveBuffer: 1 << 19, sendBuffer: 1 << 22 }
const FREEBSD: Partial<TcpConfig> = {
  receiveBuffer: 65535,
  sendBuffer: 65536,
  timeWait: 60_000,
  timeWaitResets: false,
  quickAcks: 0,
}
const UDP_HEADER = 8
/** Of IPv4 and of TCP, without options. */
const HEADERS_V4 = 40

export const profileOf = (text: string, options: ReadonlyMap<string, string>): Profile => {
  const isFreeBsd = /net\.inet\.|kern\./.test(text)
  const encapsulation = options.get('udp_encapsulation')
  if (encapsulation !== undefined && encapsulation !== 'tcp')
    throw new NotDrivable('another protocol in UDP')
  return {
    isFreeBsd,
    config: { ...DEFAULT_TCP_CONFIG, ...(isFreeBsd ? FREEBSD : LINUX) },
    mtu: Number(options.get('mtu') ?? 1500),
    encapsulation: encapsulation === undefined ? 0 : UDP_HEADER,
    keepsIdleWindow: false,
    isInsecure: false,
  }
}

/** What Google's scripts run first; of what it sets, this alone is not our own habit or another line here. */
const GOOGLE_DEFAULTS = /\bdefaults\.sh$/

/** Settings that ask for another TCP than ours. */
const FOREIGN: readonly [RegExp, string][] = [
  [/fastopen\.(client|server)_enable=1/, 'TCP Fast Open'],
  [/inet\.tcp\.ecn\.enable=1/, 'ECN, which a datagram socket cannot see'],
  [
    /rfc1323=0|tcp\.sack\.enable=0|mssdflt|rexmit_drop_options=1/,
    'the options of our SYN cannot be switched off',
  ],
  [/syncookies_only=1|tcp_syncookies=2/, 'SYN cookies'],
  [/drop_synfin=1/, 'a SYN with FIN that is dropped'],
  [/pmtud_blackhole/, 'the path is searched below the connection'],
  [/maxsockbuf=4294967295/, 'a window scale of 14'],
  [/keepinit=/, 'a timer of its own for connections that open'],
  [/tcp_mtu_probing=[12]/, 'the path is searched below the connection'],
  [/tcp_abort_on_overflow=1/, 'RST in answer to the last ACK of a full backlog'],
  [/\bss\s+-|nstat\s+(?!-n$)|netstat/, 'counters of the kernel'],
  [/\btc\b.*\bpfifo limit 0/, 'a queue of the host that is full'],
  [/\btc\b.*\broot fq\b/, 'a queue of the host that spreads what is sent'],
  [/tcp_early_retrans=0/, 'tail loss probes cannot be switched off'],
  [/tcp_early_retrans=1/, 'early retransmit (RFC 5827), of which RACK has taken the place'],
  [/tcp_shrink_window=1/, 'a window that shrinks, which RFC 9293 §3.8.6 discourages'],
]

/** Commands that set up the host of the script, which ours does not need. */
const HARMLESS =
  /^((\S*\/)?(sysctl|tc|ip|ethtool|modprobe|true|:|echo|rm|dd|cat|nstat)|(\.{1,2}|\/tmp)\/\S+)(\s|$)/

const linesOf = (command: string): string[] =>
  command
    .replaceAll('\\\n', ' ')
    .split(/[\n;]|&&/)
    .map(line => line.trim())
    .filter(line => line !== '' && !line.startsWith('#'))

/** Whether a script, anywhere in it, asks for another TCP. */
export const checkCommand = (command: string, profile: Profile): void => {
  for (const line of linesOf(command)) {
    for (const [pattern, why] of FOREIGN) {
      if (pattern.test(line) && !(profile.isFreeBsd && /keepinit=75000/.test(line)))
        throw new NotDrivable(why)
    }
  }
}

/** One shell command of a script; returns the time it takes. */
export const applyCommand = (command: string, profile: Profile): Millis => {
  let takes = 0
  for (const line of linesOf(command)) {
    const sleep = /^(?:\S*\/)?sleep\s+([\d.]+)/.exec(line)
    if (sleep !== null) takes += Number(sleep[1]) * 1000
    else if (HARMLESS.test(line)) applySettings(line, profile)
    else throw new NotDrivable(`the command "${line.split(/\s+/)[0]}"`)
  }
  return takes
}

const applySettings = (line: string, profile: Profile): void => {
  if (/^ip\s+(-\d\s+)?route\b/.test(line)) return applyRoute(line, profile)
  if (/insecure_(rst|syn)=1/.test(line)) profile.isInsecure = true
  if (GOOGLE_DEFAULTS.test(line) || /tcp_slow_start_after_idle=0/.test(line))
    profile.keepsIdleWindow = true
  if (/tcp_slow_start_after_idle=1/.test(line)) profile.keepsIdleWindow = false
  for (const [, name = '', value = ''] of line.matchAll(/([\w./]+)\s*=\s*"?([\w.]+)/g)) {
    const change = changeOf(name.split(/[./]/).at(-1) ?? '', value)
    if (change !== undefined) profile.config = { ...profile.config, ...change }
  }
}

/** What a route says of its path. */
const applyRoute = (line: string, profile: Profile): void => {
  const valueOf = (name: string): number =>
    Number(new RegExp(String.raw`\b${name} (?:lock )?(\d+)`).exec(line)?.[1] ?? NaN)
  const mtu = valueOf('mtu')
  const advertised = valueOf('advmss')
  if (mtu > 0) profile.mtu = mtu
  if (advertised > 0 && advertised !== profile.mtu - HEADERS_V4)
    throw new NotDrivable('an MSS that is not that of the path')
  const initialWindow = valueOf('initcwnd')
  if (initialWindow > 0) profile.config = { ...profile.config, initialWindow }
}

/** Times of FreeBSD's settings are milliseconds, Linux' are seconds. */
const changeOf = (name: string, value: string): Partial<TcpConfig> | undefined => {
  const number = Number(value)
  switch (name) {
    case 'tcp_congestion_control':
      return { congestionControl: controlNamed(value) }
    case 'tcp_syn_retries':
    case 'tcp_synack_retries':
    case 'rexmit_max_syn':
      return { synRetries: number }
    case 'tcp_retries2':
      return { retries: number }
    case 'tcp_fin_timeout':
      return { finWait: number * 1000 }
    case 'tcp_rto_max_ms':
      return { maxRto: number }
    case 'tcp_rto_min_us':
      return { minRto: number / 1000 }
    case 'rexmit_initial':
      return { initialRto: number }
    case 'delacktime':
      return { delayedAck: number }
    case 'keepidle':
      return { keepAliveDelay: number }
    case 'keepintvl':
      return { keepAliveInterval: number }
    case 'keepcnt':
      return { keepAliveCount: number }
    default:
      return undefined
  }
}

export const controlNamed = (name: string): TcpConfig['congestionControl'] => {
  const control = CONGESTION_CONTROLS.find(known => known === name)
  if (control === undefined) throw new NotDrivable(`congestion control "${name}"`)
  return control
}
