/** One script from its first event to its last, in virtual time. */
import type { Millis } from '../../../lib/base/environment.ts'
import { after, afterOrAt, distance } from '../../../lib/base/serial.ts'
import { TcpFlag } from '../../../lib/wire/tcp.ts'
import type { Arrival, Difference } from './deviations.ts'
import { runCode } from './expression.ts'
import { Host, type SentSegment } from './host.ts'
import { NotDrivable, readScript, type Script, type ScriptEvent } from './script.ts'
import {
  encodeIcmp,
  encodeSegment,
  isIcmp,
  readIcmp,
  readSegment,
  sackEdges,
  type SegmentText,
} from './segments.ts'
import { applyCommand, checkCommand, profileOf, type Profile } from './settings.ts'
import { KERNEL_QUEUE, SERVICE, Sockets, type Result } from './sockets.ts'
import { FOREIGN_NAMES, tcpInfo } from './tcp-info.ts'

/** What is sent, or what a call gives, is not what the script says. */
export class Differs extends Error {
  readonly difference: Difference
  readonly line: number

  constructor(difference: Difference, line: number) {
    super(difference.message)
    this.difference = difference
    this.line = line
  }
}

/** The port that the script's own connections come from. */
const CLIENT = 50_000
/** The least difference of times that counts. */
const TOLERANCE: Millis = 10
const WRITES = /^(write|send|sendto|writev|sendmsg)$/
/** The longest wait for a segment that comes whenever it will: beyond every timer. */
const FOREVER: Millis = 1_000_000

/**
 * Gives up, where a script asks for something that is not ours, with `NotDrivable`; fails with `Differs`. Returns names that
 * the script asserts something about and that nothing was compared for.
 */
export const runText = (text: string, symbols: readonly string[]): ReadonlySet<string> => {
  const script = readScript(text, symbols)
  return new Run(script, profileOf(text, script.options)).run()
}

interface Pending {
  readonly event: ScriptEvent
  readonly call: Call
  readonly until: Millis
}

interface Call {
  readonly name: string
  readonly args: readonly string[]
  readonly expected: number
  readonly error: string | undefined
}

class Run {
  private readonly script: Script
  private readonly profile: Profile
  private readonly host: Host
  private readonly sockets: Sockets
  private readonly tolerance: Millis
  private line = 0
  /** When the last event was. */
  private previous: Millis = 0
  private pending: Pending[] = []
  private localPort = SERVICE
  private remotePort = CLIENT
  /** Our first sequence number, once it was seen. */
  private isn: number | undefined
  /** Ours by the script's, which counts them in its own way. */
  private readonly timestamps = new Map<number, number>()
  private readonly arrivals: Arrival[] = []
  private readonly variables = new Map<string, number>()
  private readonly unchecked = new Set<string>()
  /** The port of the connection that was told how large a packet may be. */
  private limitedPort: number | undefined
  private lastIcmp: string | undefined
  /** Something came that is in the script's window and in none that we can tell. */
  private isBeyondField = false
  /** The UDP header of a script that has its TCP in UDP. */
  private udp: string | undefined

  constructor(script: Script, profile: Profile) {
    this.script = script
    this.profile = profile
    this.host = new Host(profile, script.options.get('ip_version') === 'ipv6')
    this.sockets = new Sockets(this.host, profile)
    const tolerance = Number(script.options.get('tolerance_usecs') ?? 0) / 1000
    this.tolerance = Math.max(TOLERANCE, tolerance)
    this.host.onChange = () => {
      this.sockets.noteChanges()
      this.finishPending()
    }
  }

  run(): ReadonlySet<string> {
    for (const { kind, line, text } of this.script.events) {
      this.line = line
      if (kind === 'command') checkCommand(text, this.profile)
    }
    for (const event of this.script.events) {
      this.line = event.line
      this.perform(event)
    }
    for (const { event, until } of [...this.pending]) {
      this.line = event.line
      this.host.advance(until + this.tolerance)
      if (this.pending.some(left => left.event === event))
        this.fail({ what: 'call', message: `the call still blocks after ${this.host.now} ms` })
    }
    return this.unchecked
  }

  private perform(event: ScriptEvent): void {
    const { moment } = event
    const base = moment.from === 'start' ? 0 : this.previous
    const from = moment.from === 'whenever' ? undefined : base + moment.at
    const until = moment.until === undefined ? from : base + moment.until
    if (event.kind === 'sent') this.expect(event.text, from, until)
    else {
      if (from !== undefined) this.host.advance(from)
      this.host.collect()
      this.act(event, until ?? this.host.now)
      this.host.collect()
    }
    this.previous = Math.max(this.host.now, from ?? 0)
  }

  private act(event: ScriptEvent, until: Millis): void {
    switch (event.kind) {
      case 'received':
        return this.inject(event.text)
      case 'command':
        return this.command(event.text)
      case 'code': {
        const names = (name: string): number | undefined =>
          tcpInfo(name, this.host.connection, this.profile.isFreeBsd)
        const { variables, unchecked } = this
        const wrong = runCode(event.text, { names, variables, foreign: FOREIGN_NAMES, unchecked })
        if (wrong !== undefined) this.fail({ what: 'value', message: wrong })
        return
      }
      default:
        return this.call(event, until)
    }
  }

  private fail(difference: Difference): never {
    if (this.profile.isInsecure) throw new NotDrivable('a mode that gives up RFC 5961')
    if (this.isBeyondField)
      throw new NotDrivable(
        'a window of more than 65535, which its field cannot tell (RFC 9293 §3.1)',
      )
    const last = this.causeOf(difference.got)
    const { lastIcmp: icmp } = this
    const { connection } = this.host
    const hasOtherLimit = this.limitedPort !== undefined && this.limitedPort !== this.remotePort
    throw new Differs({ last, icmp, connection, hasOtherLimit, ...difference }, this.line)
  }

  /** What a segment of ours answers; else what has come last. */
  private causeOf(got: Difference['got']): Arrival | undefined {
    return this.arrivals[(got?.received ?? this.arrivals.length) - 1]
  }

  // --- commands ---

  private command(text: string): void {
    const count = /sockstat.*grep -c (\w+) \| grep (\d+)/.exec(text)
    if (count !== null) this.countState(count[1] ?? '', Number(count[2]))
    else this.host.advance(this.host.now + applyCommand(text, this.profile))
  }

  private countState(name: string, wanted: number): void {
    const state = name === 'SYN_RCVD' ? 'SYN-RECEIVED' : name.replaceAll('_', '-')
    const { host } = this
    const got =
      state === 'TIME-WAIT'
        ? host.waiting
        : host.connections().filter(connection => connection.state === state).length
    if (got !== wanted)
      this.fail({
        what: 'count',
        message: `${got} connections in ${state}, expected ${wanted}`,
      })
  }

  // --- segments that come ---

  private inject(text: string): void {
    const isn = this.isn ?? 0
    if (isIcmp(text)) {
      if (text.includes('/udp')) throw new NotDrivable('ICMP about a datagram of UDP')
      const { local, remote } = this.host
      const ports = { local: this.localPort, remote: this.remotePort }
      const icmp = readIcmp(text, local.length === 16)
      this.lastIcmp = icmp.kind
      if (icmp.mtu > 0) this.limitedPort = this.remotePort
      return this.host.receiveIcmp(encodeIcmp(icmp, { local, remote }, ports, isn))
    }
    this.checkUdp(text, 'in')
    const segment = readSegment(text)
    this.noteState(segment)
    const ports = { from: this.remotePort, to: this.localPort }
    this.host.receive(encodeSegment(segment, ports, isn, value => this.echoOf(value)))
  }

  /** TCP in UDP is ours but for the UDP header, which the layer below compares. */
  private checkUdp(text: string, way: 'in' | 'out'): void {
    if (this.profile.encapsulation === 0) return
    const [, source, target] = /\/udp\((\d+)\s*>\s*(\d+)\)/.exec(text) ?? []
    const header = way === 'in' ? `${source} ${target}` : `${target} ${source}`
    this.udp ??= header
    if (source === undefined || header !== this.udp)
      throw new NotDrivable('a segment that is not in the UDP flow of its connection')
  }

  private noteState(segment: SegmentText): void {
    const connection = this.host
      .connections()
      .find(
        ({ localPort, remotePort }) =>
          localPort === this.localPort && remotePort === this.remotePort,
      )
    const { waiting, listeners } = this.host
    const open = connection?.state ?? (listeners.at(this.localPort) && 'LISTEN')
    const end = ((segment.seq ?? 0) + segment.length) >>> 0
    const acked = ((segment.ack ?? 0) + (this.isn ?? 0)) >>> 0
    this.arrivals.push({
      segment,
      at: this.host.now,
      state: waiting > 0 ? 'TIME-WAIT' : open,
      isBeyondWindow: connection !== undefined && after(end, connection.rcvAdvertised),
      acksUnsent: connection !== undefined && after(acked, connection.sndNxt),
    })
    if (connection === undefined || segment.seq === undefined || connection.rcvNxt === 0) return
    const isBeyond = afterOrAt(segment.seq, connection.rcvAdvertised)
    if (isBeyond && distance(segment.seq, connection.rcvNxt) < this.sockets.presumedWindow)
      this.isBeyondField = true
  }

  /** What we would have sent for a timestamp of the script's. */
  private echoOf(value: number): number {
    const known = this.timestamps.get(value)
    if (known !== undefined || value === 0) return known ?? 0
    const [first] = this.timestamps
    return first === undefined ? value : (first[1] + value - first[0]) >>> 0
  }

  // --- segments that we send ---

  private expect(text: string, from: Millis | undefined, until: Millis | undefined): void {
    if (isIcmp(text)) throw new NotDrivable('an ICMP message of ours')
    this.checkUdp(text, 'out')
    const wanted = readSegment(text)
    const limit = until === undefined ? this.host.now + FOREVER : until + this.tolerance
    this.host.collect()
    while (this.host.sent.length === 0) {
      const next = this.host.next()
      if (next > limit) break
      this.host.advance(next)
    }
    const got = this.host.sent.shift()
    // Of a connection before this one.
    if (got !== undefined && this.isOfOther(got)) return this.expect(text, from, until)
    // How much room is worth a segment is the receiver's to decide (RFC 9293 §3.8.6.2.2).
    if (got?.isWindowUpdate === true && !this.isLike(got, wanted))
      return this.expect(text, from, until)
    if (got === undefined)
      this.fail({ what: 'nothing', message: `nothing sent, but expected: ${text}`, wanted })
    this.compare(got, wanted, text, from, until)
  }

  private isOfOther({ targetPort, sourcePort }: SentSegment): boolean {
    return sourcePort === SERVICE && targetPort !== this.remotePort
  }

  private isLike({ ack, flags }: SentSegment, wanted: SegmentText): boolean {
    return ack === wanted.ack && flags === wanted.flags && wanted.length === 0
  }

  private compare(
    first: SentSegment,
    wanted: SegmentText,
    text: string,
    from: Millis | undefined,
    until: Millis | undefined,
  ): void {
    const isSyn = (first.flags & TcpFlag.Syn) !== 0
    if (isSyn && (this.isn === undefined || wanted.seq === undefined || wanted.seq === 0)) {
      this.isn = first.seq
      this.localPort = first.sourcePort
      if (first.sourcePort !== SERVICE) this.remotePort = SERVICE
    }
    const { length, flags } = this.joined(first, wanted)
    const isn = this.isn ?? 0
    // Of a segment outside any connection, RFC 9293 §3.10.7.1 says which numbers it has.
    const seq = wanted.seq === 0 && first.seq === 0 ? 0 : (first.seq - isn) >>> 0
    const got = { ...first, flags, seq, length }
    const shown = `${flagsText(flags)} ${seq}:${seq + length}(${length}) ack ${first.ack}`
    const differs = (what: Difference['what'], message: string): never =>
      this.fail({ what, message: `${message}; expected ${text}`, wanted, wantedAt: from, got })
    const isTimed = from !== undefined && until !== undefined
    if (isTimed && !this.isInTime(first.at, from, until) && !this.acksFinAtOnce(first))
      differs('time', `${shown} sent at ${first.at} ms, not at ${from}`)
    if ((flags | TcpFlag.Psh) !== (wanted.flags | TcpFlag.Psh)) differs('flags', `sent ${shown}`)
    if (wanted.seq !== undefined && seq !== wanted.seq) differs('seq', `sent ${shown}`)
    if (length !== wanted.length) differs('length', `sent ${shown}`)
    if (wanted.ack !== undefined && first.ack !== wanted.ack) differs('ack', `sent ${shown}`)
    if (wanted.options === undefined) return
    const edges = sackEdges(wanted.options)
    if (edges.join() !== first.sack.join())
      differs('sack', `sent ${shown} with SACK ${first.sack.join(':')}`)
    const stamp = /TS val (\d+)/.exec(wanted.options)
    if (stamp !== null && first.timestamp !== undefined)
      this.timestamps.set(Number(stamp[1]), first.timestamp)
  }

  /** A FIN may be acknowledged when it comes (RFC 9293 §3.10.7.4) or a little later, as Linux does. */
  private acksFinAtOnce({ flags, length, at, received }: SentSegment): boolean {
    const cause = this.arrivals[received - 1]
    const isOfFin = cause !== undefined && (cause.segment.flags & TcpFlag.Fin) !== 0
    return isOfFin && flags === TcpFlag.Ack && length === 0 && at === cause.at
  }

  private isInTime(at: Millis, from: Millis, until: Millis): boolean {
    const slack = this.tolerance + 1
    return at >= from - slack && at <= until + slack
  }

  /** The script may see several of our segments as one. */
  private joined(first: SentSegment, wanted: SegmentText): { length: number; flags: number } {
    let { length, flags } = first
    while (length > 0 && length < wanted.length) {
      this.host.collect()
      const next = this.host.sent[0]
      if (next?.length === undefined || next.seq !== (first.seq + length) >>> 0) break
      this.host.sent.shift()
      length += next.length
      flags |= next.flags
    }
    return { length, flags }
  }

  // --- system calls ---

  private call(event: ScriptEvent, until: Millis): void {
    const match = /^(\w+)\(([\s\S]*)\)\s*=\s*(-?\w+|\.\.\.)\s*(E[A-Z]+)?/.exec(event.text)
    if (match === null) throw new NotDrivable(`the call "${event.text}"`)
    const [, name = '', args = '', result, error] = match
    const call = { name, args: splitArguments(args), expected: Number(result), error }
    if (name === 'listen') this.awaitNext()
    const got = this.attempt(call, event.isBlocking)
    if (event.isBlocking && wouldBlock(got)) this.pending.push({ event, call, until })
    else this.checkResult(event, call, got)
  }

  /** Who connects to another listener comes from another port, as the tool of these scripts has it. */
  private awaitNext(): void {
    if (this.isn === undefined || this.localPort !== SERVICE) return
    this.remotePort++
    this.isn = undefined
    this.timestamps.clear()
  }

  private attempt({ name, args, expected }: Call, isBlocking: boolean): Result {
    if (isBlocking && WRITES.test(name)) return this.sockets.sendAll(args)
    const got = this.sockets.call(name, args, expected)
    // None of what it waits for has come.
    return isBlocking && got === 0 && expected > 0 && /^(poll|epoll_wait)$/.test(name)
      ? 'EAGAIN'
      : got
  }

  private finishPending(): void {
    for (const pending of [...this.pending]) {
      const { event, call, until } = pending
      const got = this.attempt(call, true)
      if (wouldBlock(got)) continue
      this.pending = this.pending.filter(other => other !== pending)
      const isLate = Math.abs(this.host.now - until) > this.tolerance + 1
      if (isLate && WRITES.test(call.name)) throw new NotDrivable(KERNEL_QUEUE)
      if (isLate)
        this.fail({
          what: 'time',
          message: `${call.name} returned at ${this.host.now}, not ${until}`,
        })
      // The second call to connect() says so when the first has succeeded.
      this.checkResult(event, call, got === 'EISCONN' && call.name === 'connect' ? 0 : got)
    }
  }

  private checkResult(event: ScriptEvent, { name, expected, error }: Call, got: Result): void {
    if (got === undefined || Number.isNaN(expected)) return
    const number = typeof got === 'number' ? got : -1
    const failure = typeof got === 'number' ? undefined : sameError(got)
    if (number !== expected || (expected < 0 && failure !== sameError(error ?? failure)))
      this.fail({ what: 'call', message: `${name} gave ${got}, expected ${event.text}` })
  }
}

/** EWOULDBLOCK is another name of EAGAIN. */
const sameError = (name: string | undefined): string | undefined =>
  name === 'EWOULDBLOCK' ? 'EAGAIN' : name

const wouldBlock = (result: Result): boolean =>
  result === 'EAGAIN' || result === 'EINPROGRESS' || result === 'EALREADY'

const flagsText = (flags: number): string => {
  const letters = Object.entries({ F: 1, S: 2, R: 4, P: 8, '.': 16, U: 32 })
  return letters.flatMap(([letter, bit]) => (flags & bit ? [letter] : [])).join('')
}

const splitArguments = (text: string): string[] => {
  const parts: string[] = []
  let depth = 0
  let part = ''
  for (const character of text) {
    if ('[{('.includes(character)) depth++
    if (']})'.includes(character)) depth--
    if (character === ',' && depth === 0) {
      parts.push(part.trim())
      part = ''
    } else part += character
  }
  return [...parts, part.trim()]
}
