/**
 * Records every datagram of this process as a pcapng file, with the keys beside it as a folder of Wireshark's
 * configuration. Only where IKE_SOCKET_CAPTURE asks for it, and never silently. There is no Decryption Secrets Block for
 * IKE or ESP, so the keys are in Wireshark's own tables.
 */
import { appendFileSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { threadId } from 'node:worker_threads'
import type { Path } from '../base/path.ts'
import type { KeyLogEntry } from '../base/trace.ts'
import { writeKeyLog } from './key-log.ts'

/** Ours: octets of a file; what comes later is not recorded. */
const LARGEST = 256 << 20
/** Ports that Wireshark is told of. */
const MOST_PORTS = 64
/** LINKTYPE_RAW: a packet begins with its IP header. */
const RAW_IP = 101
const IPV4_HEADER = 20
const IPV6_HEADER = 40
const UDP_HEADER = 8
const UDP = 17
/** Those that Wireshark knows by itself. */
const KNOWN_PORTS: ReadonlySet<number> = new Set([500, 4500])

export interface Capture {
  /** A datagram that goes out or has come in, before anything is decrypted. */
  packet(bytes: Uint8Array, path: Path, isOutgoing: boolean): void
  key(entry: KeyLogEntry): void
}

const padded = (length: number): number => (length + 3) & ~3

/** A block of pcapng: type, length, body, length. */
const block = (type: number, body: Uint8Array): Buffer => {
  const length = 12 + padded(body.length)
  const written = Buffer.alloc(length)
  written.writeUInt32LE(type, 0)
  written.writeUInt32LE(length, 4)
  written.set(body, 8)
  written.writeUInt32LE(length, length - 4)
  return written
}

const sectionHeader = (): Buffer => {
  const body = Buffer.alloc(16)
  body.writeUInt32LE(0x1a2b3c4d, 0)
  body.writeUInt16LE(1, 4)
  // The length of the section is not known.
  body.fill(0xff, 8)
  return block(0x0a0d0d0a, body)
}

const interfaceDescription = (): Buffer => {
  const body = Buffer.alloc(8)
  body.writeUInt16LE(RAW_IP, 0)
  return block(1, body)
}

const onesComplement = (octets: Uint8Array): number => {
  let sum = 0
  for (let at = 0; at < octets.length; at += 2) sum += (octets[at]! << 8) | (octets[at + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}

/** IP and UDP headers as they may have been: the system does not show its own. */
const headersOf = (path: Path, isOutgoing: boolean, length: number): Buffer => {
  const isIpv6 = path.remoteAddress.length === 16
  const remote = path.remoteAddress
  const local =
    path.localAddress.length === remote.length ? path.localAddress : new Uint8Array(remote.length)
  const [source, destination] = isOutgoing ? [local, remote] : [remote, local]
  const [from, to] = isOutgoing
    ? [path.localPort, path.remotePort]
    : [path.remotePort, path.localPort]
  const ip = isIpv6 ? IPV6_HEADER : IPV4_HEADER
  const headers = Buffer.alloc(ip + UDP_HEADER)
  if (isIpv6) {
    headers[0] = 0x60
    headers.writeUInt16BE((UDP_HEADER + length) & 0xffff, 4)
    headers[6] = UDP
    headers[7] = 64
    headers.set(source, 8)
    headers.set(destination, 24)
  } else {
    headers[0] = 0x45
    headers.writeUInt16BE((ip + UDP_HEADER + length) & 0xffff, 2)
    headers[8] = 64
    headers[9] = UDP
    headers.set(source, 12)
    headers.set(destination, 16)
    headers.writeUInt16BE(onesComplement(headers.subarray(0, ip)), 10)
  }
  headers.writeUInt16BE(from, ip)
  headers.writeUInt16BE(to, ip + 2)
  headers.writeUInt16BE((UDP_HEADER + length) & 0xffff, ip + 4)
  return headers
}

const enhancedPacket = (headers: Uint8Array, bytes: Uint8Array): Buffer => {
  const length = headers.length + bytes.length
  const body = Buffer.alloc(20 + length)
  const micros = BigInt(Date.now()) * 1000n
  body.writeUInt32LE(Number(micros >> 32n), 4)
  body.writeUInt32LE(Number(micros & 0xffffffffn), 8)
  body.writeUInt32LE(length, 12)
  body.writeUInt32LE(length, 16)
  body.set(headers, 20)
  body.set(bytes, 20 + headers.length)
  return block(6, body)
}

/** A file that is there stays: another process, or thread, of the same command has made it. */
const openFresh = (path: string): { fd: number; name: string } => {
  try {
    return { fd: openSync(path, 'wx', 0o600), name: path }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    const name = `${path}.${process.pid}-${threadId}`
    return { fd: openSync(name, 'wx', 0o600), name }
  }
}

const openCapture = (path: string): Capture => {
  const { fd, name } = openFresh(path)
  const folder = join(`${name}.keys`, 'wireshark')
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const prefer = ['esp.enable_encryption_decode: TRUE', 'esp.enable_authentication_check: TRUE']
  writeFileSync(join(folder, 'preferences'), `${prefer.join('\n')}\n`, { mode: 0o600 })
  let written = 0
  const put = (bytes: Buffer): void => {
    writeSync(fd, bytes)
    written += bytes.length
  }
  put(sectionHeader())
  put(interfaceDescription())
  const key = writeKeyLog(folder)
  const ports = new Set<number>()
  const notePort = (port: number): void => {
    if (KNOWN_PORTS.has(port) || ports.has(port) || ports.size >= MOST_PORTS) return
    ports.add(port)
    const entry = `decode_as_entry: udp.port,${port},(none),UDPENCAP\n`
    appendFileSync(join(folder, 'decode_as_entries'), entry, { mode: 0o600 })
  }
  let isOver = false
  const stop = (why: string): void => {
    isOver = true
    process.emitWarning(`The capture ends: ${why}`, { code: 'IKE_CAPTURE' })
  }
  process.emitWarning(
    `EVERY DATAGRAM AND THE KEYS OF ALL SAs ARE WRITTEN to ${name} and ${name}.keys (IKE_SOCKET_CAPTURE): whoever has both reads everything that is sent`,
    { code: 'IKE_CAPTURE' },
  )
  return {
    key,
    packet(bytes, way, isOutgoing) {
      if (isOver) return
      try {
        notePort(way.localPort)
        notePort(way.remotePort)
        put(enhancedPacket(headersOf(way, isOutgoing, bytes.length), bytes))
        if (written > LARGEST) stop(`${name} has ${LARGEST >> 20} MiB`)
      } catch (error) {
        // What cannot be recorded must not end a connection.
        stop((error as Error).message)
      }
    },
  }
}

let capture: Capture | undefined
let isAsked = false

/** What IKE_SOCKET_CAPTURE asks for; undefined: nothing is recorded. */
export const captureOfProcess = (): Capture | undefined => {
  if (isAsked) return capture
  isAsked = true
  const { IKE_SOCKET_CAPTURE: path } = process.env
  if (path === undefined || path === '') return undefined
  try {
    capture = openCapture(path)
  } catch (error) {
    process.emitWarning(`IKE_SOCKET_CAPTURE: ${(error as Error).message}`, { code: 'IKE_CAPTURE' })
  }
  return capture
}
