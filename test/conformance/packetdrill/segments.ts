/** Segments and ICMP errors as packetdrill scripts write them. */
import { putU16, putU32 } from '../../../lib/base/bytes.ts'
import { TcpFlag, TcpOption } from '../../../lib/wire/tcp.ts'
import { NotDrivable } from './script.ts'

export interface SegmentText {
  readonly flags: number
  /** Undefined: any. */
  readonly seq: number | undefined
  readonly length: number
  readonly ack: number | undefined
  readonly window: number
  readonly urgent: number
  /** Undefined: any. */
  readonly options: string | undefined
}

const FLAGS: Readonly<Record<string, number>> = {
  F: TcpFlag.Fin,
  S: TcpFlag.Syn,
  R: TcpFlag.Rst,
  P: TcpFlag.Psh,
  '.': TcpFlag.Ack,
  U: TcpFlag.Urg,
}

const SEGMENT =
  /^([A-Z.0-9]+|-)\s+(?:(\d+):(\d+)|\.\.\.)\s*\((\d+)\)(?:\s+ack\s+(\d+))?(?:\s+win\s+(\d+))?(?:\s+urg\s+(\d+))?\s*(?:<([^>]*)>)?/

export const readSegment = (text: string): SegmentText => {
  const plain = withoutIp(text)
  const match = SEGMENT.exec(plain)
  if (match === null) throw new NotDrivable(`the segment "${text}"`)
  const [, letters = '', seq, , length, ack, window, urgent, options] = match
  if (/[EWCANB0-9]/.test(letters)) throw new NotDrivable('ECN, which a datagram socket cannot see')
  if (/\bFO\b|FOEXP/.test(options ?? '')) throw new NotDrivable('TCP Fast Open')
  let flags = 0
  for (const letter of letters) flags |= FLAGS[letter] ?? 0
  return {
    flags,
    seq: seq === undefined ? undefined : Number(seq),
    length: Number(length),
    ack: ack === undefined ? undefined : Number(ack),
    window: Number(window ?? 0),
    urgent: Number(urgent ?? 0),
    options: options?.trim() === '...' ? undefined : (options ?? '').trim(),
  }
}

/** What is written about the IP header before the segment, and about a UDP header behind it. */
const withoutIp = (text: string): string => {
  const ip = /^(?:[[(]([^\])]*)[\])]\s*)+/.exec(text)
  if (ip !== null && /\b(ect[01]|ce)\b/.test(ip[0]))
    throw new NotDrivable('ECN, which a datagram socket cannot see')
  if (/^(ipv4|ipv6|gre|mpls)\b/.test(text)) throw new NotDrivable('packets within packets')
  return text.slice(ip?.[0].length ?? 0).replace(/\s*\/udp\([^)]*\)/, '')
}

/** The header that the peer writes; `ack` and SACK edges count from our first number, `isn`. */
export const encodeSegment = (
  segment: SegmentText,
  ports: { readonly from: number; readonly to: number },
  isn: number,
  echo: (value: number) => number,
): Uint8Array => {
  const options = encodeOptions(segment.options ?? '', isn, echo)
  const bytes = new Uint8Array(20 + options.length + segment.length)
  putU16(bytes, 0, ports.from)
  putU16(bytes, 2, ports.to)
  putU32(bytes, 4, segment.seq ?? 0)
  putU32(bytes, 8, segment.ack === undefined ? 0 : (segment.ack + isn) >>> 0)
  bytes[12] = (20 + options.length) << 2
  bytes[13] = segment.flags
  putU16(bytes, 14, segment.window)
  putU16(bytes, 18, segment.urgent)
  bytes.set(options, 20)
  return bytes
}

const encodeOptions = (text: string, isn: number, echo: (value: number) => number): Uint8Array => {
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
      u32(echo(Number(rest[3])))
    } else if (name === 'sack') {
      const edges = rest.flatMap(block => block.split(':').map(Number))
      octets.push(5, 2 + 4 * edges.length)
      for (const edge of edges) u32((edge + isn) >>> 0)
    } else if (name !== '') throw new NotDrivable(`the option "${option}"`)
  }
  while (octets.length % 4 !== 0) octets.push(0)
  return Uint8Array.from(octets)
}

/** The SACK blocks of an option list, start and end in turn. */
export const sackEdges = (options: string): number[] => {
  const blocks = /sack ((?:\d+:\d+\s*)+)/.exec(options)
  return blocks === null
    ? []
    : blocks[1]!
        .trim()
        .split(/[\s:]+/)
        .map(Number)
}

const TYPES_V4: Readonly<Record<string, number>> = {
  echo_reply: 0,
  unreachable: 3,
  source_quench: 4,
  redirect: 5,
  echo_request: 8,
  time_exceeded: 11,
  parameter_problem: 12,
  timestamp_request: 13,
  timestamp_reply: 14,
  information_request: 15,
  information_reply: 16,
  address_mask_request: 17,
  address_mask_reply: 18,
}
const TYPES_V6: Readonly<Record<string, number>> = {
  unreachable: 1,
  packet_too_big: 2,
  time_exceeded: 3,
  parameter_problem: 4,
}
const CODES_V4: readonly string[] = [
  'net_unreachable',
  'host_unreachable',
  'protocol_unreachable',
  'port_unreachable',
  'frag_needed',
  'source_route_failed',
  'net_unknown',
  'host_unknown',
  'source_host_isolated',
  'net_prohibited',
  'host_prohibited',
  'net_unreachable_for_tos',
  'host_unreachable_for_tos',
  'packet_filtered',
  'precedence_violation',
  'precedence_cutoff',
]
const CODES_V6: readonly string[] = [
  'no_route',
  'admin_prohibited',
  'not_neighbour',
  'address_unreachable',
  'port_unreachable',
]

export interface IcmpText {
  readonly kind: string
  readonly type: number
  readonly code: number
  readonly mtu: number
  /** Sequence number of the segment it quotes, from our first one on. */
  readonly seq: number
}

export const isIcmp = (text: string): boolean => /^(\[[^\]]*\]\s*)?icmp\b/.test(text)

/** The segment that it quotes stands before or behind it; without one it is the very first. */
export const readIcmp = (text: string, isIpv6: boolean): IcmpText => {
  const match = /icmp\s+(\w+)(?:\s+(?!mtu)(\w+))?(?:\s+mtu\s+(\d+))?/.exec(text)
  const [, kind = '', code = '', mtu] = match ?? []
  const type = (isIpv6 ? TYPES_V6 : TYPES_V4)[kind] ?? numberOf(kind, 'type_')
  const codes = isIpv6 ? CODES_V6 : CODES_V4
  const named = kind === 'unreachable' ? codes.indexOf(code) : 0
  const number = code.startsWith('code_') ? numberOf(code, 'code_') : named
  if (type === undefined || number === undefined || number < 0)
    throw new NotDrivable(`the ICMP message "${text}"`)
  const seq = /\[.*?(\d+):\d+/.exec(text)?.[1]
  return { kind, type, code: number, mtu: Number(mtu ?? 0), seq: Number(seq ?? 0) }
}

const numberOf = (text: string, prefix: string): number | undefined => {
  const digits = text.startsWith(prefix) ? text.slice(prefix.length) : ''
  return /^\d+$/.test(digits) ? Number(digits) : undefined
}

/** The message, which quotes the header of our packet and the first 8 octets of our segment. */
export const encodeIcmp = (
  icmp: IcmpText,
  flow: { readonly local: Uint8Array; readonly remote: Uint8Array },
  ports: { readonly local: number; readonly remote: number },
  isn: number,
): Uint8Array => {
  const isIpv6 = flow.local.length === 16
  const header = isIpv6 ? 40 : 20
  const bytes = new Uint8Array(8 + header + 8)
  bytes[0] = icmp.type
  bytes[1] = icmp.code
  if (isIpv6) putU32(bytes, 4, icmp.mtu)
  else putU16(bytes, 6, icmp.mtu)
  bytes[8] = isIpv6 ? 0x60 : 0x45
  bytes[8 + (isIpv6 ? 6 : 9)] = 6
  const addresses = 8 + (isIpv6 ? 8 : 12)
  bytes.set(flow.local, addresses)
  bytes.set(flow.remote, addresses + flow.local.length)
  putU16(bytes, 8 + header, ports.local)
  putU16(bytes, 8 + header + 2, ports.remote)
  putU32(bytes, 8 + header + 4, (icmp.seq + isn) >>> 0)
  return bytes
}
