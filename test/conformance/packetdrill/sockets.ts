/** The system calls of packetdrill scripts, on our connections. */
import type { TcpConnection } from '../../../lib/tcp/connection.ts'
import type { TcpListener } from '../../../lib/tcp/listener.ts'
import type { Host } from './host.ts'
import { NotDrivable } from './script.ts'
import { controlNamed, type Profile } from './settings.ts'

interface Descriptor {
  connection: TcpConnection | undefined
  listener: TcpListener | undefined
  /** SO_LINGER with no time: RST in place of FIN. */
  isHard: boolean
  /** A write that blocks has so many octets taken already. */
  written: number
  /** Until there is a connection, its options wait here. */
  readonly wishes: ((connection: TcpConnection) => void)[]
  readonly watched: Map<number, string>
}

/** A number, the name of an error, or undefined: whatever it gives is not compared. */
export type Result = number | string | undefined

/** The port that scripts bind and connect to. */
export const SERVICE = 8080

/** What may be set without any effect on what a script sees of TCP. */
const IGNORED_OPTIONS = new Set([
  'SO_REUSEADDR',
  'SO_REUSEPORT',
  'SO_DEBUG',
  'SO_PRIORITY',
  'SO_MARK',
  'SO_ZEROCOPY',
  'SO_MAX_PACING_RATE',
  'IP_MTU_DISCOVER',
  'IPV6_MTU_DISCOVER',
  'IP_RECVERR',
  'IPV6_RECVERR',
  'SO_BUSY_POLL',
])
const FOREIGN_FLAGS: readonly [RegExp, string][] = [
  [/MSG_FASTOPEN/, 'TCP Fast Open'],
  [/MSG_OOB/, 'urgent data'],
  [/MSG_MORE|MSG_EOR/, 'the flags MSG_MORE and MSG_EOR'],
  [/MSG_ERRQUEUE/, 'the error queue of a socket'],
  [/msg_control\(\d*\)=\[\{|cmsg_/, 'control messages'],
]

export class Sockets {
  private readonly host: Host
  private readonly profile: Profile
  private readonly descriptors = new Map<number, Descriptor>()
  /** The receive buffer that the script counts on, where it says so. */
  presumedWindow = 0

  constructor(host: Host, profile: Profile) {
    this.host = host
    this.profile = profile
  }

  /** `expected`: what the script says it gives, which names new descriptors. */
  call(name: string, args: readonly string[], expected: number): Result {
    const all = args.join(', ')
    for (const [pattern, why] of FOREIGN_FLAGS) if (pattern.test(all)) throw new NotDrivable(why)
    switch (name) {
      case 'socket':
        if (!/SOCK_STREAM/.test(args[1] ?? '') || /SCTP|MPTCP/.test(args[2] ?? ''))
          throw new NotDrivable('another protocol')
        this.open(expected)
        return undefined
      case 'open':
      case 'epoll_create':
      case 'epoll_create1':
        this.open(expected)
        return undefined
      case 'poll':
        return this.poll(args)
    }
    const fd = Number(args[0])
    const descriptor = this.descriptors.get(fd)
    if (descriptor === undefined) return 'EBADF'
    return this.callOn(fd, descriptor, name, args, expected)
  }

  private callOn(
    fd: number,
    descriptor: Descriptor,
    name: string,
    args: readonly string[],
    expected: number,
  ): Result {
    switch (name) {
      case 'fcntl':
      case 'bind':
        return undefined
      case 'listen':
        return this.listen(descriptor, Number(args[1]))
      case 'connect':
        return this.connect(descriptor)
      case 'accept':
      case 'accept4':
        return this.accept(descriptor, expected)
      case 'getsockopt':
        return this.getOption(descriptor, args[2] ?? '', args[3] ?? '')
      case 'setsockopt':
        return this.setOption(descriptor, args[2] ?? '', args[3] ?? '')
      case 'ioctl':
        return this.ioctl(descriptor, args[1] ?? '', args[2] ?? '')
      case 'read':
      case 'recv':
      case 'recvfrom':
      case 'readv':
      case 'recvmsg':
        return this.receive(descriptor, lengthOf(args), /MSG_PEEK/.test(args.join()))
      case 'write':
      case 'send':
      case 'sendto':
      case 'writev':
      case 'sendmsg':
        return this.send(descriptor, lengthOf(args))
      case 'sendfile':
        return this.send(descriptor, Number(args[3]))
      case 'shutdown':
        return this.shutdown(descriptor, args[1] ?? '')
      case 'close':
        return this.close(fd, descriptor)
      case 'epoll_ctl':
        if (/EPOLLET|EPOLLONESHOT/.test(args[3] ?? ''))
          throw new NotDrivable('events that are told once')
        if (args[1] === 'EPOLL_CTL_DEL') descriptor.watched.delete(Number(args[2]))
        else descriptor.watched.set(Number(args[2]), args[3] ?? '')
        return 0
      case 'epoll_wait':
        return this.epollWait(descriptor, args[1] ?? '')
    }
    throw new NotDrivable(`the call ${name}`)
  }

  private open(fd: number): void {
    this.descriptors.set(fd, {
      connection: undefined,
      listener: undefined,
      isHard: false,
      written: 0,
      wishes: [],
      watched: new Map(),
    })
  }

  private listen(descriptor: Descriptor, backlog: number): Result {
    const { host } = this
    descriptor.listener ??= host.listeners.listen(SERVICE, Math.max(1, backlog))
    return descriptor.listener === undefined ? 'EADDRINUSE' : 0
  }

  private connect(descriptor: Descriptor): Result {
    const { host } = this
    if (descriptor.connection === undefined) {
      const connection = host.connect(SERVICE)
      if (connection === undefined) return 'EADDRNOTAVAIL'
      descriptor.connection = connection
      for (const wish of descriptor.wishes) wish(connection)
      host.collect()
      return 'EINPROGRESS'
    }
    const fate = host.fateOf(descriptor.connection)
    if (fate.over) return this.takeError(descriptor.connection) ?? 'ECONNABORTED'
    return fate.connected ? 'EISCONN' : 'EALREADY'
  }

  private accept(descriptor: Descriptor, expected: number): Result {
    if (descriptor.listener === undefined) return 'EINVAL'
    const connection = this.host.accepted.shift()
    if (connection === undefined) return 'EAGAIN'
    this.open(expected)
    const accepted = this.descriptors.get(expected)
    if (accepted !== undefined) accepted.connection = connection
    for (const wish of descriptor.wishes) wish(connection)
    return expected
  }

  private takeError(connection: TcpConnection): string | undefined {
    const fate = this.host.fateOf(connection)
    const { error } = fate
    fate.error = undefined
    return error
  }

  private receive({ connection }: Descriptor, most: number, isPeek: boolean): Result {
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
    const error = this.takeError(connection)
    if (error !== undefined) return error
    return connection.finReceived || this.host.fateOf(connection).over ? 0 : 'EAGAIN'
  }

  private send(descriptor: Descriptor, length: number): Result {
    const { connection } = descriptor
    if (connection === undefined) return 'ENOTCONN'
    const error = this.takeError(connection)
    if (error !== undefined) return error
    if (this.host.fateOf(connection).over || connection.finQueued) return 'EPIPE'
    const taken = connection.send(new Uint8Array(length - descriptor.written))
    if (taken === 0 && length > 0) return 'EAGAIN'
    return taken
  }

  /** As `send`, until all of it is taken. */
  sendAll(args: readonly string[]): Result {
    const descriptor = this.descriptors.get(Number(args[0]))
    if (descriptor === undefined) return 'EBADF'
    const length = lengthOf(args)
    const taken = this.send(descriptor, length)
    if (typeof taken !== 'number') return taken
    descriptor.written += taken
    if (descriptor.written < length) return 'EAGAIN'
    descriptor.written = 0
    return length
  }

  private shutdown({ connection }: Descriptor, how: string): Result {
    if (/SHUT_RD$/.test(how)) throw new NotDrivable('SHUT_RD')
    if (connection === undefined || this.host.fateOf(connection).over) return 'ENOTCONN'
    connection.shutdown()
    return 0
  }

  private close(fd: number, { listener, connection, isHard }: Descriptor): Result {
    this.descriptors.delete(fd)
    if (listener !== undefined) this.host.listeners.close(listener)
    if (isHard) connection?.abort()
    else connection?.release(this.host.now)
    return 0
  }

  // --- options ---

  private setOption(descriptor: Descriptor, name: string, value: string): Result {
    if (IGNORED_OPTIONS.has(name)) return undefined
    const number = Number(/\[?(-?\w+)\]?/.exec(value)?.[1])
    const { profile } = this
    switch (name) {
      case 'TCP_NODELAY':
        this.wish(descriptor, connection => connection.setNoDelay(number !== 0))
        return 0
      case 'SO_KEEPALIVE':
        this.keepAlive(descriptor, { enable: number !== 0 })
        return 0
      case 'TCP_KEEPIDLE':
        this.keepAlive(descriptor, { initialDelay: number * 1000 })
        return 0
      case 'TCP_KEEPINTVL':
        this.keepAlive(descriptor, { interval: number * 1000 })
        return 0
      case 'TCP_KEEPCNT':
        this.keepAlive(descriptor, { count: number })
        return 0
      case 'TCP_USER_TIMEOUT':
        this.wish(descriptor, connection => connection.setUserTimeout(number, this.host.now))
        return 0
      case 'TCP_CONGESTION': {
        const control = controlNamed(/"(\w+)"/.exec(value)?.[1] ?? value)
        this.wish(descriptor, connection => connection.setCongestionControl(control))
        return 0
      }
      case 'TCP_SYNCNT':
        profile.config = { ...profile.config, synRetries: number }
        return 0
      case 'SO_RCVBUF':
      case 'SO_RCVBUFFORCE':
        profile.config = { ...profile.config, receiveBuffer: number }
        return 0
      case 'SO_SNDBUF':
      case 'SO_SNDBUFFORCE':
        profile.config = { ...profile.config, sendBuffer: 2 * number }
        return 0
      case 'TCP_MAXSEG': {
        if (descriptor.connection !== undefined)
          throw new NotDrivable('TCP_MAXSEG of a connection that is open')
        const headers = (this.host.local.length === 16 ? 40 : 20) + 20
        profile.mtu = Math.min(profile.mtu, number + headers)
        return 0
      }
      case 'SO_LINGER':
        descriptor.isHard = /onoff\s*=\s*1/.test(value) && /linger\s*=\s*0/.test(value)
        if (!descriptor.isHard && /onoff\s*=\s*1/.test(value))
          throw new NotDrivable('a close that waits')
        return 0
      case 'TCP_REMOTE_UDP_ENCAPS_PORT':
        if (number > 0 && profile.encapsulation > 0 && descriptor.connection === undefined) return 0
    }
    throw new NotDrivable(`the option ${name}`)
  }

  private wish(descriptor: Descriptor, wish: (connection: TcpConnection) => void): void {
    descriptor.wishes.push(wish)
    if (descriptor.connection !== undefined) wish(descriptor.connection)
  }

  private keepAlive(
    descriptor: Descriptor,
    change: Partial<Parameters<TcpConnection['setKeepAlive']>[0]>,
  ): void {
    this.wish(descriptor, connection => {
      connection.setKeepAlive({ enable: connection.keepAlive, ...change }, this.host.now)
    })
  }

  private getOption({ connection }: Descriptor, name: string, value: string): Result {
    const wanted = /\[(.*)\]/.exec(value)?.[1]?.trim() ?? '...'
    const { config } = this.profile
    switch (name) {
      case 'SO_RCVBUF':
        this.presumedWindow = Number(wanted)
        return undefined
      case 'SO_SNDBUF':
        return undefined
      case 'SO_ERROR':
        return equalOption(wanted, (connection && this.takeError(connection)) ?? '0')
      case 'TCP_MAXSEG':
        return equalOption(wanted, String(connection?.mss ?? 0))
      case 'TCP_KEEPIDLE':
        return equalOption(wanted, String((connection ?? config).keepAliveDelay / 1000))
      case 'TCP_KEEPINTVL':
        return equalOption(wanted, String((connection ?? config).keepAliveInterval / 1000))
      case 'TCP_KEEPCNT':
        return equalOption(wanted, String((connection ?? config).keepAliveCount))
      case 'TCP_NODELAY':
        return equalOption(wanted, connection?.noDelay ? '1' : '0')
      case 'TCP_USER_TIMEOUT':
        return equalOption(wanted, String((connection ?? config).userTimeout))
    }
    throw new NotDrivable(`the option ${name}`)
  }

  private ioctl({ connection }: Descriptor, request: string, value: string): Result {
    const wanted = /\[(.*)\]/.exec(value)?.[1]?.trim() ?? '...'
    if (connection === undefined) return 'EINVAL'
    if (/^(SIOCINQ|FIONREAD)$/.test(request))
      return equalOption(wanted, String(connection.readableLength))
    if (/^(SIOCOUTQ|TIOCOUTQ)$/.test(request))
      return equalOption(wanted, String(connection.sendQueue.length))
    if (request === 'SIOCOUTQNSD') return equalOption(wanted, String(connection.unsent))
    throw new NotDrivable(`the request ${request}`)
  }

  // --- readiness ---

  private readinessOf(fd: number): Set<string> {
    const found = new Set<string>()
    const descriptor = this.descriptors.get(fd)
    if (descriptor?.listener !== undefined && this.host.accepted.length > 0) found.add('IN')
    const connection = descriptor?.connection
    if (connection === undefined) return found
    const { over, error, connected } = this.host.fateOf(connection)
    if (error !== undefined) found.add('ERR')
    if (over || (connection.finReceived && connection.finSent)) found.add('HUP')
    if (over || connection.finReceived) found.add('RDHUP')
    if (over || connection.finReceived || connection.readableLength > 0) found.add('IN')
    if (over || (connected && connection.sendRoom > 0)) found.add('OUT')
    return found
  }

  /** The ready ones of those that are asked for; errors and ends are always told. */
  private ready(fd: number, asked: string): string[] {
    const wanted = new Set([...asked.matchAll(/E?POLL(\w+)/g)].map(match => match[1]!))
    return [...this.readinessOf(fd)].filter(
      name => wanted.has(name) || name === 'ERR' || name === 'HUP',
    )
  }

  private poll(args: readonly string[]): Result {
    const asked = [...(args[0] ?? '').matchAll(/\{([^}]*)\}/g)].map(match => match[1] ?? '')
    let count = 0
    for (const entry of asked) {
      const fd = Number(/fd\s*=\s*(\d+)/.exec(entry)?.[1])
      const events = /\bevents\s*=\s*([^,}]*)/.exec(entry)?.[1] ?? ''
      const wanted = /revents\s*=\s*([^,}]*)/.exec(entry)?.[1]
      const got = this.ready(fd, events)
      if (got.length > 0) count++
      if (wanted === undefined) continue
      const names = [...wanted.matchAll(/POLL(\w+)/g)].map(match => match[1]!)
      if (got.sort().join() !== names.sort().join())
        return count === 0 ? 0 : `revents ${got.join()}`
    }
    return count
  }

  private epollWait({ watched }: Descriptor, wanted: string): Result {
    let count = 0
    const got: string[] = []
    for (const [fd, events] of watched) {
      const names = this.ready(fd, events)
      if (names.length > 0) count++
      got.push(...names)
    }
    const names = [...(/events\s*=\s*([^,}]*)/.exec(wanted)?.[1] ?? '').matchAll(/EPOLL(\w+)/g)]
    const expected = names.map(match => match[1]!)
    if (count > 0 && expected.length > 0 && got.sort().join() !== expected.sort().join())
      return `events ${got.join()}`
    return count
  }
}

const equalOption = (wanted: string, got: string): Result =>
  wanted === '...' || wanted === got ? 0 : `value ${got}`

/** Octets of a call's buffer, or of its parts. */
const lengthOf = (args: readonly string[]): number => {
  const parts = [...args.join(', ').matchAll(/\{\s*\.\.\.\s*,\s*(\d+)\s*\}/g)]
  if (parts.length > 0) return parts.reduce((sum, part) => sum + Number(part[1]), 0)
  return Number(args[2])
}
