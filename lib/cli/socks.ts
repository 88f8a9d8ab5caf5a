/** A SOCKS 5 proxy without authentication (RFC 1928): CONNECT alone. */
import net from 'node:net'
import type { Duplex } from 'node:stream'
import { formatAddress } from '../base/address.ts'
import { join, type Log } from './join.ts'

type Dial = (to: { host: string; port: number }) => Duplex

const VERSION = 5
const CONNECT = 1
/** RFC 1928 §6. */
const Reply = {
  Succeeded: 0,
  Failure: 1,
  NotAllowed: 2,
  NetworkUnreachable: 3,
  HostUnreachable: 4,
  Refused: 5,
  CommandNotSupported: 7,
  AddressTypeNotSupported: 8,
} as const

const REPLIES = new Map<string | undefined, number>([
  ['ECONNREFUSED', Reply.Refused],
  ['ENETUNREACH', Reply.NetworkUnreachable],
  ['EHOSTUNREACH', Reply.HostUnreachable],
  ['ENOTFOUND', Reply.HostUnreachable],
  ['ETIMEDOUT', Reply.HostUnreachable],
])
/** Who has not asked by then is no client. */
const TIMEOUT = 30_000

/** The address is that of no socket: ours are not of this host. */
const answer = (code: number): Buffer => Buffer.from([VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0])

interface Request {
  readonly command: number
  readonly host: string
  readonly port: number
  readonly length: number
}

/** `undefined`: more octets are due; a number: the reply that refuses it. */
const parseRequest = (octets: Buffer): Request | number | undefined => {
  if (octets.length < 5) return undefined
  const [version, command, , type, first] = octets as unknown as [
    number,
    number,
    number,
    number,
    number,
  ]
  if (version !== VERSION) return Reply.Failure
  const length = type === 1 ? 4 : type === 4 ? 16 : type === 3 ? first : 0
  if (length === 0) return Reply.AddressTypeNotSupported
  const start = type === 3 ? 5 : 4
  const end = start + length
  if (octets.length < end + 2) return undefined
  const address = octets.subarray(start, end)
  const host = type === 3 ? address.toString('latin1') : formatAddress(address)
  return { command, host, port: octets.readUInt16BE(end), length: end + 2 }
}

/** `permitted`: hosts that may be asked for; undefined: all. */
export const serveSocks = (
  dial: Dial,
  permitted: readonly string[] | undefined,
  log: Log,
): net.Server =>
  net.createServer({ allowHalfOpen: true, noDelay: true }, socket => {
    let octets: Buffer = Buffer.alloc(0)
    let isGreeted = false
    const timer = setTimeout(() => socket.destroy(), TIMEOUT)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => clearTimeout(timer))
    const refuse = (code: number, facts: Readonly<Record<string, string | number>>): void => {
      log('refused', { ...facts, reply: code })
      socket.removeListener('data', take)
      socket.end(answer(code))
    }
    const greet = (): void => {
      const count = octets[1]
      if (octets[0] !== VERSION) return void socket.destroy()
      if (count === undefined || octets.length < 2 + count) return
      // 0: no authentication; 255: none of them.
      const isOpen = octets.subarray(2, 2 + count).includes(0)
      octets = octets.subarray(2 + count)
      if (!isOpen) return void socket.end(Buffer.from([VERSION, 0xff]))
      socket.write(Buffer.from([VERSION, 0]))
      isGreeted = true
    }
    const take = (chunk: Buffer): void => {
      // Greeting and request tell their own lengths, so no more than some 500 octets are ever kept for the next chunk.
      octets = Buffer.concat([octets, chunk])
      if (!isGreeted) greet()
      const request = isGreeted ? parseRequest(octets) : undefined
      if (request === undefined) return
      if (typeof request === 'number') return refuse(request, {})
      const { command, host, port, length } = request
      const facts = { host, port }
      if (command !== CONNECT) return refuse(Reply.CommandNotSupported, facts)
      if (port === 0 || (permitted !== undefined && !permitted.includes(host)))
        return refuse(Reply.NotAllowed, facts)
      clearTimeout(timer)
      socket.pause()
      socket.removeListener('data', take)
      if (octets.length > length) socket.unshift(octets.subarray(length))
      open(facts)
    }
    const open = (facts: { host: string; port: number }): void => {
      let secure: Duplex
      try {
        secure = dial(facts)
      } catch (error) {
        return refuse(Reply.Failure, { ...facts, error: (error as Error).message })
      }
      const failed = (error: NodeJS.ErrnoException): void =>
        refuse(REPLIES.get(error.code) ?? Reply.Failure, { ...facts, error: error.message })
      secure.once('error', failed)
      socket.once('close', () => secure.destroy())
      secure.once('connect', () => {
        secure.removeListener('error', failed)
        socket.write(answer(Reply.Succeeded))
        join(socket, () => secure, log, facts)
      })
    }
    socket.on('data', take)
  })
