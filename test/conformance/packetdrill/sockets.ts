/** The system calls of packetdrill scripts, on our connections. */
import type { TcpConnection } from '../../../lib/tcp/connection.ts'
import type { TcpListener } from '../../../lib/tcp/listener.ts'
import type { Host } from './host.ts'
import { NotDrivable } from './script.ts'
import { controlNamed, type Profile } from './settings.ts'

/** One that an epoll descriptor looks at. */
interface Watch {
  readonly events: string
  /** Told again only when something new has happened (EPOLLET). */
  readonly isEdge: boolean
  /** Told once, until it is set anew (EPOLLONESHOT). */
  readonly isOnce: boolean
  /** What had happened when it was told last; `Infinity`: it is told no more. */
  told: number
}

interface Descriptor {
  connection: TcpConnection | undefined
  listener: TcpListener | undefined
  /** SO_LINGER with no time: RST in place of FIN. */
  isHard: boolean
  /** A write that blocks has so many octets taken already. */
  written: number
  /** Until there is a connection, its options wait here. */
  readonly wishes: ((connection: TcpConnection) => void)[]
  readonly watched: Map<number, Watch>
  /** SHUT_RD: where nothing is left to read, the stream has ended. */
  isReadingOver: boolean
  /** Octets of calls that have returned, for which the queue had no room. */
  waiting: number
  /** TCP_NOTSENT_LOWAT: with more than that unsent it is not said to be writable; 0: there is no such limit. */
  lowWater: number
  /** Counts what wakes those who wait for it, and what it looked like then. */
  wakes: number
  look: Look
}

interface Look {
  readonly received: number
  readonly isWritable: boolean
  readonly others: string
}

/** A number, the name of an error, or undefined: whatever it gives is not compared. */
export type Result = number | string | undefined

/** The port that scripts bind and connect to. */
export const SERVICE = 8080

/** Why a script is not run whose writes are taken as a kernel counts its memory. */
export const KERNEL_QUEUE = "how much a kernel's send buffer takes"

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
  'IP_TOS',
  'IPV6_TCLASS',
])
const FOREIGN_FLAGS: readonly [RegExp, string][] = [
  [/MSG_FASTOPEN/, 'TCP Fast Open'],
  [/MSG_OOB/, 'urgent data'],
  [/MSG_MORE|MSG_EOR/, 'the flags MSG_MORE and MSG_EOR'],
  [/MSG_ERRQUEUE/, 'the error queue of a socket'],
  [/cmsg_(?!level=SOL_TCP|type=TCP_CM_INQ|data=)/, 'control messages'],
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
    if (args[1] === 'NULL' && /^(read|write|send|recv)/.test(name))
      throw new NotDrivable('an address that cannot be read')
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
        return this.receiveMessage(descriptor, args)
      case 'write':
      case 'send':
      case 'sendto':
      case 'writev':
      case 'sendmsg':
        return this.sendWhole(descriptor, lengthOf(args), expected)
      case 'sendfile':
        return this.sendWhole(descriptor, Number(args[3]), expected)
      case 'shutdown':
        return this.shutdown(descriptor, args[1] ?? '')
      case 'close':
        return this.close(fd, descriptor)
      case 'epoll_ctl':
        return this.watch(descriptor, args)
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
      isReadingOver: false,
      waiting: 0,
      lowWater: 0,
      wakes: 0,
      look: { received: 0, isWritable: false, others: '' },
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

  private receiveMessage(descriptor: Descriptor, args: readonly string[]): Result {
    const all = args.join()
    const got = this.receive(descriptor, lengthOf(args), /MSG_PEEK/.test(all))
    const wanted = /cmsg_type=TCP_CM_INQ\s*,\s*cmsg_data=(\d+)/.exec(all)?.[1]
    if (wanted === undefined || typeof got !== 'number') return got
    return equalOption(wanted, String(waitingOctets(descriptor.connection))) === 0
      ? got
      : `TCP_CM_INQ of ${waitingOctets(descriptor.connection)}`
  }

  private receive(
    { connection, isReadingOver }: Descriptor,
    most: number,
    isPeek: boolean,
  ): Result {
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
    const isOver = connection.finReceived || this.host.fateOf(connection).over
    return isOver || isReadingOver ? 0 : 'EAGAIN'
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

  /**
   * Where the script expects that a queue as long as it has asked for takes all, and ours, which grows with the window, takes
   * a part at first, the rest follows when there is room. How much more than that a kernel takes is its own affair.
   */
  private sendWhole(descriptor: Descriptor, length: number, expected: number): Result {
    const taken = this.send(descriptor, length)
    if (typeof taken !== 'number' || taken === expected || expected < 0) return taken
    if (expected < length) throw new NotDrivable(KERNEL_QUEUE)
    if (length > (descriptor.connection?.sendQueue.limit ?? 0)) return taken
    descriptor.waiting += length - taken
    return length
  }

  private sendWaiting(descriptor: Descriptor): void {
    const { connection } = descriptor
    if (descriptor.waiting === 0 || connection === undefined || connection.finQueued) return
    descriptor.waiting -= connection.send(new Uint8Array(descriptor.waiting))
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

  private shutdown(descriptor: Descriptor, how: string): Result {
    const { connection } = descriptor
    const isHalf = /SHUT_RD$/.test(how)
    // There what comes after it is thrown away, which only the system under the socket can do.
    if (isHalf && this.profile.isFreeBsd) throw new NotDrivable('SHUT_RD')
    if (connection === undefined || this.host.fateOf(connection).over) return 'ENOTCONN'
    descriptor.isReadingOver ||= !/SHUT_WR$/.test(how)
    if (!isHalf) connection.shutdown()
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
      case 'TCP_INQ':
        return 0
      case 'TCP_NOTSENT_LOWAT':
        descriptor.lowWater = number
        return 0
      case 'TCP_QUICKACK':
        this.wish(descriptor, connection => {
          connection.quickAcks = number === 0 ? 0 : this.profile.config.quickAcks
        })
        return 0
      case 'TCP_SYNCNT':
        profile.config = { ...profile.config, synRetries: number }
        return 0
      case 'SO_RCVBUF':
      case 'SO_RCVBUFFORCE':
        profile.config = { ...profile.config, receiveBuffer: number }
        return 0
      case 'SO_SNDBUF':
      case 'SO_SNDBUFFORCE':
        // Linux doubles it.
        profile.config = { ...profile.config, sendBuffer: 2 * number }
        if (descriptor.connection !== undefined) limitQueue(descriptor.connection, 2 * number)
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

  private getOption({ connection, lowWater }: Descriptor, name: string, value: string): Result {
    const wanted = /\[(.*)\]/.exec(value)?.[1]?.trim() ?? '...'
    const { config } = this.profile
    switch (name) {
      case 'SO_RCVBUF':
        this.presumedWindow = Number(wanted)
        return undefined
      case 'SO_SNDBUF':
      case 'TCP_INFO':
        return undefined
      case 'TCP_CONGESTION':
        return equalOption(
          value.replaceAll(/["[\]]/g, '').trim(),
          (connection ?? config).congestionControl,
        )
      case 'TCP_NOTSENT_LOWAT':
        return equalOption(wanted, String(lowWater))
      case 'SO_ERROR':
        return equalOption(wanted, (connection && this.takeError(connection)) ?? '0')
      case 'TCP_MAXSEG':
        // Before there is a connection, what it gives is the kernel's own affair, and was another thing in older ones.
        return connection && equalOption(wanted, String(connection.mss))
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
    const isReadingOver = connection.finReceived || descriptor!.isReadingOver
    if (over || isReadingOver) found.add('RDHUP')
    if (over || isReadingOver || connection.readableLength > 0) found.add('IN')
    if (over || (connected && isWritable(descriptor!))) found.add('OUT')
    return found
  }

  /** Notes what wakes those who wait for a descriptor; called whenever something may have changed. */
  noteChanges(): void {
    for (const [fd, descriptor] of this.descriptors) {
      this.sendWaiting(descriptor)
      const { connection, look } = descriptor
      const accepted = descriptor.listener === undefined ? 0 : this.host.accepted.length
      const others = [...this.readinessOf(fd)].filter(name => name !== 'IN' && name !== 'OUT')
      const now: Look = {
        received: (connection?.octetsReceived ?? 0) + accepted,
        isWritable: connection !== undefined && this.readinessOf(fd).has('OUT'),
        others: others.join(),
      }
      const isNew =
        now.received > look.received ||
        (now.isWritable && !look.isWritable) ||
        now.others !== look.others
      if (isNew) descriptor.wakes++
      descriptor.look = now
    }
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

  private watch({ watched }: Descriptor, args: readonly string[]): Result {
    const fd = Number(args[2])
    const events = args[3] ?? ''
    if (args[1] === 'EPOLL_CTL_DEL') watched.delete(fd)
    else
      watched.set(fd, {
        events,
        isEdge: events.includes('EPOLLET'),
        isOnce: events.includes('EPOLLONESHOT'),
        told: -1,
      })
    return 0
  }

  private epollWait({ watched }: Descriptor, wanted: string): Result {
    this.noteChanges()
    let count = 0
    const got: string[] = []
    for (const [fd, watch] of watched) {
      const wakes = this.descriptors.get(fd)?.wakes ?? 0
      const names = watch.told >= wakes ? [] : this.ready(fd, watch.events)
      if (names.length === 0) continue
      if (watch.isOnce) watch.told = Infinity
      else if (watch.isEdge) watch.told = wakes
      count++
      got.push(...names)
    }
    const names = [...(/events\s*=\s*([^,}]*)/.exec(wanted)?.[1] ?? '').matchAll(/EPOLL(\w+)/g)]
    const expected = names.map(match => match[1]!)
    if (count > 0 && expected.length > 0 && got.sort().join() !== expected.sort().join())
      return `events ${got.join()}`
    return count
  }
}

const isWritable = ({ connection, lowWater }: Descriptor): boolean =>
  connection !== undefined && connection.sendRoom > 0 && connection.unsent < (lowWater || Infinity)

/** What TCP_CM_INQ tells: octets that can be read, and one for an end that nobody has read. */
const waitingOctets = (connection: TcpConnection | undefined): number =>
  connection === undefined ? 0 : connection.readableLength || (connection.finReceived ? 1 : 0)

const limitQueue = ({ sendQueue }: TcpConnection, octets: number): void => {
  // What a program sets of a connection that is open, ours has no name for.
  ;(sendQueue as { limit: number }).limit = octets
}

const equalOption = (wanted: string, got: string): Result =>
  wanted === '...' || wanted === got || (/^0x/.test(wanted) && Number(wanted) === Number(got))
    ? 0
    : `value ${got}`

/** Octets of a call's buffer, or of its parts. */
const lengthOf = (args: readonly string[]): number => {
  const parts = [...args.join(', ').matchAll(/\{\s*\.\.\.\s*,\s*(\d+)\s*\}/g)]
  if (parts.length > 0) return parts.reduce((sum, part) => sum + Number(part[1]), 0)
  return Number(args[2])
}
