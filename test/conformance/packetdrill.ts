/**
 * Runs packetdrill scripts on our TCP in virtual time. It knows the part of the language that concerns one
 * TCP connection; whatever else a script needs makes it "not applicable", with the reason. Compared are
 * flags (but PSH), sequence and acknowledgement numbers, lengths, SACK blocks, times, and what system
 * calls give. As a command: `node .build/test/conformance/packetdrill.js FOLDER [-v]`.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { putU16, putU32 } from '../../lib/base/bytes.ts'
import { Packet } from '../../lib/base/packet.ts'
import { DEFAULT_TCP_CONFIG } from '../../lib/tcp/config.ts'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { TcpListeners, type TcpListener } from '../../lib/tcp/listener.ts'
import { TcpStack } from '../../lib/tcp/stack.ts'
import { TcpFlag, TcpOption, TcpSegment } from '../../lib/wire/tcp.ts'
import { seededEnvironment } from '../harness/random.ts'

export type Verdict =
  | { kind: 'passed' }
  | { kind: 'failed'; line: number; why: string }
  | { kind: 'notApplicable'; why: string }

class Failed extends Error {}
class NotApplicable extends Error {}

const LOCAL = Uint8Array.of(192, 168, 0, 1)
const REMOTE = Uint8Array.of(192, 168, 0, 2)
const SERVICE = 8080
const CLIENT = 50_000
/** Milliseconds: the least difference of times that counts. */
const TOLERANCE = 10
/** The longest wait for a segment, and beyond every timer. */
const FOREVER = 1_000_000

const FLAGS: Readonly<Record<string, number>> = {
  F: TcpFlag.Fin,
  S: TcpFlag.Syn,
  R: TcpFlag.Rst,
  P: TcpFlag.Psh,
  '.': TcpFlag.Ack,
  U: TcpFlag.Urg,
}

/** Settings of the other stack that we have no like of, or whose way we do not go. */
const FOREIGN_SETTINGS: readonly [RegExp, string][] = [
  [/insecure_(rst|syn)=1/, 'a mode that gives up RFC 5961'],
  [/fastopen/, 'TCP Fast Open'],
  [/udp_tunneling_port=[1-9]/, 'TCP in UDP'],
  [/ecn\.enable=1/, 'ECN'],
  [/rfc1323=0|sack\.enable=0|mssdflt|rexmit_drop_options=1/, 'options that cannot be switched off'],
  [/syncookies_only=1/, 'SYN cookies'],
  [/drop_synfin=1/, 'SYN with FIN may be dropped'],
  [/icmp_may_rst|path_mtu|pmtud/, 'ICMP, which comes through the layer below'],
  [/keepinit=15000|maxsockbuf=4294967295/, 'a setting we do not have'],
]
const KNOWN_SOCKET_OPTIONS = new Set(['SO_REUSEADDR', 'TCP_NODELAY', 'SO_DEBUG'])

interface Line {
  readonly number: number
  readonly isRelative: boolean
  /** Milliseconds. */
  readonly time: number
  readonly text: string
}

interface Out {
  readonly at: number
  readonly flags: number
  readonly seq: number
  readonly ack: number
  readonly length: number
  readonly sourcePort: number
  readonly timestamp: number | undefined
  readonly sack: readonly number[]
}

interface Descriptor {
  connection: TcpConnection | undefined
  listener: TcpListener | undefined
  error: string | undefined
  /** Told by SO_ERROR already. */
  over: boolean
  connected: boolean
}

const withoutComments = (script: string): string =>
  script.replace(/\/\*[\s\S]*?\*\//g, text => text.replace(/[^\n]/g, ' ')).replace(/\/\/.*$/gm, '')

class Run {
  private now = 0
  private readonly listeners = new TcpListeners()
  private readonly stack = new TcpStack(
    seededEnvironment(1),
    {
      ...DEFAULT_TCP_CONFIG,
      receiveBuffer: 65535,
      sendBuffer: 65536,
      timeWait: 60_000,
      quickAcks: 0,
    },
    this.listeners,
  )
  private readonly packet = new Packet()
  private readonly segment = new TcpSegment()
  private readonly sent: Out[] = []
  private readonly accepted: TcpConnection[] = []
  private readonly descriptors = new Map<number, Descriptor>()
  private tolerance = TOLERANCE
  private isn: number | undefined
  private localPort = SERVICE
  private remotePort = CLIENT
  /** The script's timestamps and ours. */
  private readonly timestamps = new Map<number, number>()

  constructor() {
    this.stack.segmentLimit = 1480
  }

  run(script: string): void {
    let previous = 0
    const isLive = [true]
    for (const [index, raw] of withoutComments(script).split('\n').entries()) {
      const text = raw.trim()
      // What the standard says is meant where the other stack has two ways.
      if (text.startsWith('#ifdef')) isLive.push(text.includes('STANDARD'))
      else if (text.startsWith('#else')) isLive.push(!isLive.pop())
      else if (text.startsWith('#endif')) isLive.pop()
      if (text === '' || text.startsWith('#') || isLive.includes(false)) continue
      try {
        if (text.startsWith('--')) {
          this.option(text)
          continue
        }
        const line = readLine(text, index + 1)
        const time = line.isRelative ? previous + line.time : line.time
        previous = this.event(line, time)
      } catch (error) {
        if (error instanceof Failed) throw new Failed(`${index + 1}: ${error.message}`)
        throw error
      }
    }
  }

  private option(text: string): void {
    const usecs = /^--tolerance_usecs=(\d+)/.exec(text)
    if (usecs !== null) this.tolerance = Math.max(TOLERANCE, Number(usecs[1]) / 1000)
    if (/udp_encaps/.test(text)) throw new NotApplicable('TCP in UDP')
  }

  /** The time that the next line counts from. */
  private event({ text, time: given }: Line, time: number): number {
    if (text.startsWith('>')) {
      this.expect(text.slice(1).trim(), time)
      return time
    }
    this.advance(Math.max(time, this.now))
    if (text.startsWith('<')) this.inject(text.slice(1).trim())
    else if (text.startsWith('`')) this.command(text)
    else if (text.startsWith('%')) throw new NotApplicable('code')
    else this.call(text)
    this.collect()
    return Number.isNaN(given) ? this.now : time
  }

  private command(text: string): void {
    for (const [pattern, why] of FOREIGN_SETTINGS) {
      if (pattern.test(text)) throw new NotApplicable(why)
    }
    const count = /sockstat.*grep -c (\w+) \| grep (\d+)/.exec(text)
    if (count !== null) return this.countState(count[1]!, Number(count[2]))
    if (!text.includes('sysctl')) throw new NotApplicable(`command ${text}`)
  }

  private countState(state: string, wanted: number): void {
    const ours = state === 'SYN_RCVD' ? 'SYN-RECEIVED' : state.replaceAll('_', '-')
    const { connections } = this.stack as unknown as { connections: Map<number, TcpConnection[]> }
    const got = [...connections.values()].flat().filter(({ state }) => state === ours).length
    if (got !== wanted) throw new Failed(`${got} connections in ${state}, expected ${wanted}`)
  }

  // --- time ---

  private advance(to: number): void {
    for (let due = this.stack.nextTimeout(); due <= to; due = this.stack.nextTimeout()) {
      this.now = Math.max(this.now, due)
      this.stack.handleTimeout(this.now)
      this.collect()
    }
    this.now = Math.max(this.now, to)
  }

  private collect(): void {
    for (let event = this.stack.pollEvent(); event !== undefined; event = this.stack.pollEvent()) {
      if (event.kind === 'accepted') this.accepted.push(event.connection)
      for (const descriptor of this.descriptors.values()) {
        if (descriptor.connection !== event.connection) continue
        if (event.kind === 'connected') descriptor.connected = true
        if (event.kind !== 'closed') continue
        descriptor.over = true
        descriptor.error = typeof event.error === 'string' ? event.error : event.error?.message
      }
    }
    for (;;) {
      this.packet.reset()
      if (this.stack.pollTransmit(this.packet, this.now) === undefined) return
      const bytes = this.packet.view()
      const { segment } = this
      if (!segment.read(bytes, 0, bytes.length)) throw new Failed('we sent no segment')
      const sack: number[] = []
      for (let i = 0; i < segment.sackCount; i++)
        sack.push(segment.sackStart[i]!, segment.sackEnd[i]!)
      this.sent.push({
        at: this.now,
        flags: segment.flags,
        seq: segment.seq,
        ack: segment.ack,
        length: segment.dataLength,
        sourcePort: segment.sourcePort,
        timestamp: segment.hasTimestamps ? segment.timestampValue : undefined,
        sack,
      })
    }
  }

  // --- segments ---

  private parse(text: string) {
    if (/^icmp|\bicmp\b/.test(text))
      throw new NotApplicable('ICMP, which comes through the layer below')
    if (/\/udp/.test(text)) throw new NotApplicable('TCP in UDP')
    const match =
      /^(?:[[(][^\])]*[\])]\s*)?([FSRPUEWCAN.]+|-)\s+(\d+):(\d+)\s*\((\d+)\)(?:\s+ack\s+(\d+))?(?:\s+win\s+(\d+))?(?:\s+urg\s+\d+)?(?:\s*<([^>]*)>)?/.exec(
        text,
      )
    if (match === null) throw new NotApplicable(`segment ${text}`)
    const [, letters, seq, , length, ack, window, options] = match
    if (/[EWCAN]/.test(letters!)) throw new NotApplicable('ECN')
    if (/FO\b|FOEXP/.test(options ?? '')) throw new NotApplicable('TCP Fast Open')
    let flags = 0
    for (const letter of letters!) flags |= FLAGS[letter] ?? 0
    return {
      flags,
      seq: Number(seq),
      length: Number(length),
      ack: ack === undefined ? undefined : Number(ack),
      window: Number(window ?? 0),
      options: options?.trim(),
    }
  }

  private inject(text: string): void {
    const { flags, seq, length, ack, window, options } = this.parse(text)
    const isn = this.isn ?? 0
    const encoded = this.encode(options ?? '', isn)
    const bytes = new Uint8Array(20 + encoded.length + length)
    putU16(bytes, 0, this.remotePort)
    putU16(bytes, 2, this.localPort)
    putU32(bytes, 4, seq)
    putU32(bytes, 8, ack === undefined ? 0 : (ack + isn) >>> 0)
    bytes[12] = (20 + encoded.length) << 2
    bytes[13] = flags
    putU16(bytes, 14, window)
    bytes.set(encoded, 20)
    this.stack.handleSegment(bytes, 0, bytes.length, REMOTE, LOCAL, this.now, false)
  }

  private encode(text: string, isn: number): Uint8Array {
    const octets: number[] = []
    const u32 = (value: number): void =>
      void octets.push(value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255)
    for (const option of text.split(',').map(part => part.trim())) {
      const [name, ...rest] = option.split(/\s+/)
      if (name === 'mss') octets.push(2, 4, Number(rest[0]) >>> 8, Number(rest[0]) & 255)
      else if (name === 'wscale') octets.push(3, 3, Number(rest[0]))
      else if (name === 'sackOK') octets.push(TcpOption.SackPermitted, 2)
      else if (name === 'nop') octets.push(1)
      else if (name === 'eol') octets.push(0)
      else if (name === 'TS') {
        octets.push(8, 10)
        u32(Number(rest[1]))
        u32(this.timestamps.get(Number(rest[3])) ?? Number(rest[3]))
      } else if (name === 'sack') {
        const edges = rest.flatMap(block => block.split(':').map(Number))
        octets.push(5, 2 + 4 * edges.length)
        for (const edge of edges) u32((edge + isn) >>> 0)
      } else if (name !== '') throw new NotApplicable(`option ${option}`)
    }
    while (octets.length % 4 !== 0) octets.push(0)
    return Uint8Array.from(octets)
  }

  private expect(text: string, time: number): void {
    const wanted = this.parse(text)
    const limit = Number.isNaN(time) ? this.now + FOREVER : time + this.tolerance
    while (this.sent.length === 0) {
      const next = this.stack.nextTimeout()
      if (next > limit) break
      this.advance(next)
    }
    const got = this.sent.shift()
    if (got === undefined) throw new Failed(`nothing sent, but expected: ${text}`)
    if (!Number.isNaN(time) && Math.abs(got.at - time) > this.tolerance + 1) {
      throw new Failed(`sent at ${got.at} ms, not at ${time}`)
    }
    if (got.flags & TcpFlag.Syn && (this.isn === undefined || wanted.seq === 0)) {
      this.isn = got.seq
      this.localPort = got.sourcePort
    }
    const isn = this.isn ?? 0
    // Of a segment outside any connection, RFC 9293 §3.10.7.1 says which numbers it has.
    const seq = (got.seq - isn) >>> 0
    const shown = `flags ${got.flags.toString(2)}, seq ${seq}, length ${got.length}, ack ${got.ack}`
    const differs = (what: string): Failed => new Failed(`${what}: sent ${shown}; expected ${text}`)
    if ((got.flags | TcpFlag.Psh) !== (wanted.flags | TcpFlag.Psh)) throw differs('flags')
    if (seq !== wanted.seq && !(wanted.seq === 0 && got.seq === 0)) throw differs('seq')
    // The script may see several of our segments as one.
    let { length } = got
    while (length < wanted.length && this.sent[0] !== undefined) {
      const more = this.sent.shift()!
      length += more.length
    }
    if (length !== wanted.length) throw differs('length')
    if (wanted.ack !== undefined && got.ack !== wanted.ack) throw differs('ack')
    if (wanted.options === undefined) return
    const blocks = /sack ((?:\d+:\d+\s*)+)/.exec(wanted.options)
    const edges =
      blocks === null
        ? []
        : blocks[1]!
            .trim()
            .split(/[\s:]+/)
            .map(Number)
    if (edges.join() !== got.sack.join()) throw differs(`SACK ${got.sack.join(':')}`)
    const stamp = /TS val (\d+)/.exec(wanted.options)
    if (stamp !== null && got.timestamp !== undefined)
      this.timestamps.set(Number(stamp[1]), got.timestamp)
  }

  // --- system calls ---

  private call(text: string): void {
    const match = /^(\w+)\((.*)\)\s*=\s*(-?\w+)\s*(E[A-Z]+)?/.exec(text)
    if (match === null) throw new NotApplicable(`call ${text}`)
    const [, name, args, result, code] = match
    const parts = splitArguments(args!)
    const expected = Number(result)
    const got = this.perform(name!, parts, expected)
    if (got === undefined) return
    const shown = typeof got === 'number' ? got : -1
    const failure = typeof got === 'string' ? got : undefined
    if (shown !== expected || (failure ?? '') !== (code ?? ''))
      throw new Failed(`${name} gave ${failure ?? shown}, expected ${text}`)
  }

  /** A number, the name of an error, or undefined: not compared. */
  private perform(
    name: string,
    args: readonly string[],
    expected: number,
  ): number | string | undefined {
    const fd = Number(args[0])
    const descriptor = this.descriptors.get(fd)
    if (name === 'socket') {
      if (!args[1]?.includes('SOCK_STREAM')) throw new NotApplicable('UDP')
      this.descriptors.set(expected, fresh())
      return undefined
    }
    if (name === 'fcntl' || name === 'bind') return undefined
    if (descriptor === undefined) return 'EBADF'
    switch (name) {
      case 'listen':
        descriptor.listener = this.listeners.listen(SERVICE, Math.max(1, Number(args[1])))
        return 0
      case 'connect':
        return this.connect(descriptor)
      case 'accept': {
        const connection = this.accepted.shift()
        if (connection === undefined) return 'EWOULDBLOCK'
        this.descriptors.set(expected, { ...fresh(), connection, connected: true })
        return expected
      }
      case 'getsockopt':
        return this.getOption(descriptor, args[2]!, args[3]!)
      case 'setsockopt':
        if (!KNOWN_SOCKET_OPTIONS.has(args[2]!)) throw new NotApplicable(`option ${args[2]}`)
        if (args[2] === 'TCP_NODELAY') descriptor.connection?.setNoDelay(true)
        return undefined
      case 'read':
      case 'recv':
        return this.receive(descriptor, Number(args[2]), args[3]?.includes('PEEK') ?? false)
      case 'write':
      case 'send':
      case 'sendto':
        return this.send(descriptor, Number(args[2]))
      case 'shutdown':
        if (args[1] === 'SHUT_RD') throw new NotApplicable('SHUT_RD')
        if (descriptor.connection === undefined || descriptor.over) return 'ENOTCONN'
        descriptor.connection.shutdown()
        return 0
      case 'close':
        this.descriptors.delete(fd)
        if (descriptor.listener !== undefined) this.listeners.close(descriptor.listener)
        descriptor.connection?.release(this.now)
        return 0
    }
    throw new NotApplicable(`call ${name}`)
  }

  private connect(descriptor: Descriptor): number | string {
    if (descriptor.connection !== undefined) {
      if (descriptor.connected) return 'EISCONN'
      return descriptor.over ? this.takeError(descriptor) : 'EALREADY'
    }
    this.remotePort = SERVICE
    const flow = {
      localAddress: LOCAL,
      localPort: 0,
      remoteAddress: REMOTE,
      remotePort: SERVICE,
    }
    descriptor.connection = this.stack.connect(flow, {}, this.now)
    return 'EINPROGRESS'
  }

  private takeError(descriptor: Descriptor): string | number {
    const { error } = descriptor
    descriptor.error = undefined
    return error ?? 0
  }

  private getOption(descriptor: Descriptor, name: string, value: string): undefined {
    if (name === 'SO_RCVBUF' || name === 'SO_SNDBUF') return undefined
    if (name !== 'SO_ERROR') throw new NotApplicable(`option ${name}`)
    const wanted = /\[(\w+)\]/.exec(value)?.[1]
    const got = String(this.takeError(descriptor))
    if (got !== wanted) throw new Failed(`SO_ERROR is ${got}, expected ${wanted}`)
    return undefined
  }

  private receive(descriptor: Descriptor, most: number, isPeek: boolean): number | string {
    const { connection } = descriptor
    if (connection === undefined) return 'ENOTCONN'
    if (connection.readableLength > 0) {
      if (isPeek) return Math.min(most, connection.readableLength)
      let got = 0
      while (got < most) {
        const octets = connection.receive(most - got)
        if (octets === undefined) break
        got += octets.length
      }
      return got
    }
    if (descriptor.error !== undefined) return this.takeError(descriptor)
    return connection.finReceived || descriptor.over ? 0 : 'EAGAIN'
  }

  private send(descriptor: Descriptor, length: number): number | string {
    const { connection } = descriptor
    if (connection === undefined) return 'ENOTCONN'
    if (descriptor.error !== undefined) return this.takeError(descriptor)
    if (descriptor.over || connection.finQueued) return 'EPIPE'
    return connection.send(new Uint8Array(length))
  }
}

const fresh = (): Descriptor => ({
  connection: undefined,
  listener: undefined,
  error: undefined,
  over: false,
  connected: false,
})

const readLine = (text: string, number: number): Line => {
  const match = /^(\+|\*)?\s*([\d.]+(?:~\+?[\d.]+)?)?\s*(.*)$/.exec(text)!
  const [, mark, time, rest] = match
  if (time?.includes('~')) throw new NotApplicable('a range of times')
  if (rest!.startsWith('...')) throw new NotApplicable('a blocking call')
  const isRelative = mark === '+'
  // A line without a time happens when the one before it has.
  if (mark !== '*' && time === undefined) return { number, isRelative: true, time: 0, text: rest! }
  return { number, isRelative, time: mark === '*' ? NaN : Number(time) * 1000, text: rest! }
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

export const runScript = (script: string): Verdict => {
  try {
    new Run().run(script)
    return { kind: 'passed' }
  } catch (error) {
    if (error instanceof NotApplicable) return { kind: 'notApplicable', why: error.message }
    if (!(error instanceof Failed)) throw error
    const [, line, why] = /^(\d+): ([\s\S]*)$/.exec(error.message) ?? ['', '0', error.message]
    return { kind: 'failed', line: Number(line), why: why }
  }
}

/** Every script below a folder, by its path from there. */
export const runFolder = (folder: string): Map<string, Verdict> => {
  const verdicts = new Map<string, Verdict>()
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  for (const name of names.filter(name => name.endsWith('.pkt')).sort()) {
    verdicts.set(name, runScript(readFileSync(join(folder, name), 'utf8')))
  }
  return verdicts
}

if (process.argv[1]?.endsWith('packetdrill.js') && process.argv[2] !== undefined) {
  const folder = process.argv[2]
  const counts: Record<string, number> = {}
  const reasons: Record<string, number> = {}
  for (const [name, verdict] of runFolder(folder)) {
    counts[verdict.kind] = (counts[verdict.kind] ?? 0) + 1
    if (verdict.kind === 'notApplicable') reasons[verdict.why] = (reasons[verdict.why] ?? 0) + 1
    if (verdict.kind === 'failed')
      console.log(`FAILED ${relative('', name)}:${verdict.line} ${verdict.why}`)
  }
  console.log(counts)
  console.log('not applicable:', reasons)
}
