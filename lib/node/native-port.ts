/**
 * A UDP descriptor of our own on Linux, by native functions: what a burst has for one destination leaves with one system
 * call (UDP_SEGMENT), and what has come from one sender arrives with one (UDP_GRO). On the wire it is the same.
 *
 * Each system call has copied, or filled, what it was given when it returns. So all ports of a process share the memory by
 * which they speak to the system, and what libuv keeps between calls is held by `open`.
 */
import { constants } from 'node:os'
import { getSystemErrorName } from 'node:util'
import { formatAddress, parseAddress } from '../base/address.ts'
import { EMPTY, equal } from '../base/bytes.ts'
import { socketError } from '../base/errors.ts'
import {
  addressOf,
  eventLoop,
  nativeCallback,
  nativeFunction,
  NativeMemory,
  readInt32,
  WORD,
} from '../base/ffi.ts'
import { isAdopted } from '../base/external.ts'
import type { Path } from '../base/path.ts'
import {
  BUFFER_OCTETS,
  destinationText,
  type Bound,
  type DatagramPort,
  type PortEvents,
  type PortOptions,
  type Sender,
} from './datagram-port.ts'

// Numbers of Linux's headers, the same on all processors that base/supported-node.ts names.
const AF_INET = 2
const AF_INET6 = 10
const SOCK_DGRAM = 2
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const SOL_SOCKET = 1
const SO_SNDBUF = 7
const SO_RCVBUF = 8
const SO_REUSEPORT = 15
const IPPROTO_IPV6 = 41
const IPV6_V6ONLY = 26
const SOL_UDP = 17
const UDP_SEGMENT = 103
const UDP_GRO = 104
/** libuv's. */
const UV_POLL = 8
const UV_READABLE = 1
const UV_WRITABLE = 2

const { EAGAIN, EINTR } = constants.errno

/** Linux's UDP_MAX_SEGMENTS before 6.9; since then it is twice as many, which no size of ours can use. */
const MOST_SEGMENTS = 64
/** The largest UDP payload over IPv4, whatever it is cut into. */
const MOST_OCTETS = 65507
/** Of a larger one no second fits beside it. */
const MOST_TO_JOIN = MOST_OCTETS >> 1
/** A datagram or what GRO has made of several: the system does not join more. */
const RECEIVE_OCTETS = 65536

/** To clear it would take as long as half a copy of it. What a datagram does not fill, nobody reads; see `readOne`. */
const forReceiving = (): NativeMemory =>
  new NativeMemory(RECEIVE_OCTETS, Buffer.allocUnsafeSlow(RECEIVE_OCTETS).buffer)

/** As libuv: reads of a turn before anything else has its own. */
const TURN_READS = 32
/** Ours: or so many octets, of which one read brings up to 64 KiB. */
const TURN_OCTETS = 1 << 20
/** Octets of the longest name of an interface, with its end. */
const NAME_OCTETS = 16

/** Offsets in `struct msghdr`, `struct iovec` and `struct cmsghdr` with 64-bit pointers. */
const MSG = {
  name: 0,
  nameLength: 8,
  iov: 16,
  iovLength: 24,
  control: 32,
  controlLength: 40,
  size: 56,
} as const
const IOV = { base: 0, length: 8, size: 16 } as const
const CMSG = { length: 0, level: 8, type: 12, data: 16, size: 24 } as const

/** `struct sockaddr_in6`; `struct sockaddr_in` is shorter. */
const SOCKADDR_OCTETS = 28
const SOCKADDR = { family: 0, port: 2, v4: 4, v6: 8, zone: 24 } as const

const sockaddrLength = (family: 4 | 6): number => (family === 4 ? 16 : SOCKADDR_OCTETS)

/** What all ports of the process call, and speak through. */
const openSystem = () => {
  const errnoAt = nativeFunction<bigint>('__errno_location', [], 'pointer')()
  const message = (control: number) => {
    const parts = {
      header: new NativeMemory(MSG.size),
      iov: new NativeMemory(IOV.size),
      control: new NativeMemory(control),
    }
    parts.header.setPointer(MSG.iov, parts.iov)
    parts.header.view.setUint32(MSG.iovLength, 1, true)
    return parts
  }
  const sent = message(CMSG.size)
  sent.control.view.setUint32(CMSG.length, CMSG.data + 2, true)
  sent.control.view.setInt32(CMSG.level, SOL_UDP, true)
  sent.control.view.setInt32(CMSG.type, UDP_SEGMENT, true)
  const received = message(64)
  const sender = new NativeMemory(SOCKADDR_OCTETS)
  received.header.setPointer(MSG.name, sender)
  received.header.setPointer(MSG.control, received.control)
  return {
    socket: nativeFunction('socket', ['i32', 'i32', 'i32'], 'i32'),
    bind: nativeFunction('bind', ['i32', 'pointer', 'u32'], 'i32'),
    connect: nativeFunction('connect', ['i32', 'pointer', 'u32'], 'i32'),
    close: nativeFunction('close', ['i32'], 'i32'),
    getsockname: nativeFunction('getsockname', ['i32', 'pointer', 'pointer'], 'i32'),
    setsockopt: nativeFunction('setsockopt', ['i32', 'i32', 'i32', 'pointer', 'u32'], 'i32'),
    // What they return fits 32 bits, and a number costs less than a BigInt.
    sendmsg: nativeFunction('sendmsg', [WORD, 'pointer', WORD], 'i32'),
    recvmsg: nativeFunction('recvmsg', [WORD, 'pointer', WORD], 'i32'),
    nameToIndex: nativeFunction('if_nametoindex', ['pointer'], 'u32'),
    indexToName: nativeFunction<bigint>('if_indextoname', ['u32', 'pointer'], 'pointer'),
    pollInit: nativeFunction('uv_poll_init', ['pointer', 'pointer', 'i32'], 'i32'),
    pollStart: nativeFunction('uv_poll_start', ['pointer', 'i32', 'pointer'], 'i32'),
    uvClose: nativeFunction('uv_close', ['pointer', 'pointer'], 'void'),
    uvRef: nativeFunction('uv_ref', ['pointer'], 'void'),
    uvUnref: nativeFunction('uv_unref', ['pointer'], 'void'),
    pollOctets: Number(nativeFunction<bigint>('uv_handle_size', ['i32'], 'u64')(UV_POLL)),
    onPoll: nativeCallback(['pointer', 'i32', 'i32'], (handle: bigint, _status, happened) =>
      open.get(handle)?.port.noteReady(happened),
    ),
    errno: () => readInt32(errnoAt),
    scratch: new NativeMemory(64),
    sent,
    received,
    sender,
    receiving: forReceiving(),
  }
}

let system: ReturnType<typeof openSystem> | undefined

const theSystem = (): ReturnType<typeof openSystem> => {
  if (system !== undefined) return system
  process.on('exit', () => [...open.values()].forEach(({ port }) => port.endWaiting()))
  return (system = openSystem())
}

/** Handles that libuv knows, by their addresses, with what it may call. */
const open = new Map<bigint, { readonly handle: NativeMemory; readonly port: NativePort }>()

/** Where datagrams are joined, while no port needs it. */
const spare: NativeMemory[] = []

export class NativePort implements DatagramPort {
  private readonly system = theSystem()
  private readonly events: PortEvents
  private readonly family: 4 | 6
  private readonly options: PortOptions
  /** Negative: the system gave none, and `failure` is what it said. */
  private readonly fd: number
  private readonly failure: NodeJS.ErrnoException | undefined
  /** `fd`, as the calls for each datagram take it. */
  private readonly descriptor: bigint
  private readonly handle: NativeMemory
  private isConnected = false
  private isBound = false
  private isClosed = false
  private isReferenced = true
  /** What libuv waits for. */
  private awaited = 0
  private reading: NodeJS.Immediate | undefined
  /** The last turn has not read all that there was. */
  private hasLeft = false
  /** Whence the last datagram came, as the system writes it and as Node does. */
  private lastName: Uint8Array = EMPTY
  private lastSender: Sender = { address: '', port: 0 }
  private readonly destinations = new WeakMap<Path, NativeMemory>()

  // Datagrams that leave together: of one path, and of one size, but for the last one, which may be shorter.
  private batch: NativeMemory | undefined
  private batchPath: Path | undefined
  private batched = 0
  private segment = 0
  /** The system had no room for them. */
  isCongested = false
  /** It leaves after them. */
  private next: { readonly bytes: Uint8Array; readonly path: Path } | undefined
  /** The system does not cut what is this long or longer. */
  private uncut = Infinity

  constructor(options: PortOptions, events: PortEvents) {
    const { system } = this
    this.options = options
    this.events = events
    this.family = options.family
    const domain = options.family === 4 ? AF_INET : AF_INET6
    this.fd = system.socket(domain, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    this.failure = this.fd < 0 ? this.errorOf('socket') : undefined
    this.descriptor = BigInt(this.fd)
    this.handle = new NativeMemory(system.pollOctets)
  }

  // --- opening ---

  bind(port: number, address: string | undefined, done: Bound): void {
    const where = address ?? (this.family === 4 ? '0.0.0.0' : '::')
    this.later(done, this.bindNow(port, where))
  }

  private bindNow(port: number, address: string): NodeJS.ErrnoException | undefined {
    if (this.failure !== undefined) return this.failure
    const { system, fd, family } = this
    const { ipv6Only, reusePort } = this.options
    if (ipv6Only) this.setOption(IPPROTO_IPV6, IPV6_V6ONLY, 1)
    if (reusePort && this.setOption(SOL_SOCKET, SO_REUSEPORT, 1) < 0) return this.errorOf('bind')
    const name = this.sockaddr(address, port)
    if (system.bind(fd, name.pointer, sockaddrLength(family)) < 0) {
      return this.errorOf('bind', address, port)
    }
    return this.start()
  }

  connect(port: number, address: string, done: Bound): void {
    this.later(done, this.connectNow(port, address))
  }

  private connectNow(port: number, address: string): NodeJS.ErrnoException | undefined {
    if (this.failure !== undefined) return this.failure
    const { system, fd, family } = this
    const name = this.sockaddr(address, port)
    if (system.connect(fd, name.pointer, sockaddrLength(family)) < 0) {
      return this.errorOf('connect', address, port)
    }
    this.isConnected = true
    return this.start()
  }

  private later(done: Bound, error: NodeJS.ErrnoException | undefined): void {
    process.nextTick(() => {
      if (!this.isClosed) done(error)
    })
  }

  /** The descriptor has an address: what comes is waited for. */
  private start(): NodeJS.ErrnoException | undefined {
    if (this.isBound) return undefined
    const { system, fd, handle } = this
    this.setOption(SOL_SOCKET, SO_RCVBUF, BUFFER_OCTETS)
    this.setOption(SOL_SOCKET, SO_SNDBUF, BUFFER_OCTETS)
    // Where the system does not know it, each datagram comes alone.
    this.setOption(SOL_UDP, UDP_GRO, 1)
    const code = system.pollInit(eventLoop(), handle.pointer, fd)
    if (code < 0) return systemError(-code, 'uv_poll_init')
    this.isBound = true
    open.set(handle.pointer, { handle, port: this })
    if (!this.isReferenced) system.uvUnref(handle.pointer)
    this.await(UV_READABLE)
    return undefined
  }

  private setOption(level: number, name: number, value: number): number {
    const { system, fd } = this
    system.scratch.view.setInt32(0, value, true)
    return system.setsockopt(fd, level, name, system.scratch.pointer, 4)
  }

  /** `address` may have a zone. */
  private sockaddr(address: string, port: number): NativeMemory {
    const [text = '', zone] = address.split('%')
    const octets = parseAddress(text)!
    const name = new NativeMemory(SOCKADDR_OCTETS)
    name.view.setUint16(SOCKADDR.family, this.family === 4 ? AF_INET : AF_INET6, true)
    name.view.setUint16(SOCKADDR.port, port)
    name.bytes.set(octets, this.family === 4 ? SOCKADDR.v4 : SOCKADDR.v6)
    if (zone !== undefined) name.view.setUint32(SOCKADDR.zone, this.zoneIndex(zone), true)
    return name
  }

  private zoneIndex(zone: string): number {
    const { system } = this
    system.scratch.bytes.fill(0)
    system.scratch.bytes.set(Buffer.from(zone).subarray(0, NAME_OCTETS - 1))
    return system.nameToIndex(system.scratch.pointer)
  }

  address(): { address: string; port: number; family: 'IPv4' | 'IPv6' } {
    const { system, fd, family } = this
    const name = new NativeMemory(SOCKADDR_OCTETS)
    system.scratch.view.setUint32(0, SOCKADDR_OCTETS, true)
    if (system.getsockname(fd, name.pointer, system.scratch.pointer) < 0) {
      throw this.errorOf('getsockname')
    }
    return { ...this.senderOf(name), family: family === 4 ? 'IPv4' : 'IPv6' }
  }

  private senderOf({ bytes, view }: NativeMemory): Sender {
    const port = view.getUint16(SOCKADDR.port)
    if (this.family === 4) {
      return { address: formatAddress(bytes.subarray(SOCKADDR.v4, SOCKADDR.v4 + 4)), port }
    }
    const text = formatAddress(bytes.subarray(SOCKADDR.v6, SOCKADDR.v6 + 16))
    const zone = view.getUint32(SOCKADDR.zone, true)
    return { address: zone === 0 ? text : `${text}%${this.zoneName(zone)}`, port }
  }

  private zoneName(zone: number): string {
    const { system } = this
    if (system.indexToName(zone, system.scratch.pointer) === 0n) return String(zone)
    const { bytes } = system.scratch
    return Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString()
  }

  // --- receiving ---

  private await(wanted: number): void {
    if (!this.isBound) return
    this.awaited = wanted
    this.system.pollStart(this.handle.pointer, wanted, this.system.onPoll.pointer)
  }

  /** By libuv, in the middle of its turn: nothing may be thrown here, and no tick follows, so the work waits for its own. */
  noteReady(happened: number): void {
    // An error has ended the waiting.
    if (happened === 0) this.awaited = 0
    if (this.reading !== undefined) return
    this.reading = setImmediate(() => {
      this.readAwaited()
      if (!this.isClosed) this.events.onRead()
    })
    if (!this.isReferenced) this.reading.unref()
  }

  readAwaited(): void {
    if (this.reading === undefined) return
    clearImmediate(this.reading)
    this.reading = undefined
    if (this.isCongested) this.flush()
    this.read()
    const wanted = this.isCongested ? UV_READABLE | UV_WRITABLE : UV_READABLE
    if (this.awaited !== wanted) this.await(wanted)
  }

  private read(): void {
    this.hasLeft = false
    let octets = 0
    for (let reads = 0; reads < TURN_READS && octets < TURN_OCTETS; reads++) {
      const length = this.readOne()
      if (length === undefined || this.isClosed) return
      octets += length
    }
    this.hasLeft = true
  }

  /** Its octets; undefined: there is nothing. */
  private readOne(): number | undefined {
    const { system, descriptor } = this
    const { header, iov, control } = system.received
    const { receiving, sender } = system
    iov.setPointer(IOV.base, receiving)
    iov.view.setUint32(IOV.length, RECEIVE_OCTETS, true)
    header.view.setUint32(MSG.nameLength, SOCKADDR_OCTETS, true)
    header.view.setUint32(MSG.controlLength, control.bytes.length, true)
    const length = system.recvmsg(descriptor, header.pointer, 0n)
    if (length < 0) {
      const errno = system.errno()
      if (errno === EAGAIN) return undefined
      if (errno !== EINTR) this.fail(systemError(errno, 'recvmsg'), undefined)
      return 0
    }
    const size = this.segmentSize(header, control) ?? length
    const from = this.senderNow(sender)
    for (let at = 0; at < length && !this.isClosed; at += size) {
      const end = Math.min(length, at + size)
      this.events.onMessage(receiving.bytes.subarray(at, end), from)
    }
    // Somebody keeps a plaintext in the place of a copy.
    if (isAdopted(receiving.bytes)) {
      // The program can reach the rest too, which may have belonged to anything.
      receiving.bytes.fill(0, length)
      system.receiving = forReceiving()
    }
    return length
  }

  /** What GRO has joined; undefined: nothing. */
  private segmentSize(header: NativeMemory, { view }: NativeMemory): number | undefined {
    const isThere =
      header.view.getUint32(MSG.controlLength, true) >= CMSG.data + 4 &&
      view.getInt32(CMSG.level, true) === SOL_UDP &&
      view.getInt32(CMSG.type, true) === UDP_GRO
    const size = isThere ? view.getInt32(CMSG.data, true) : 0
    return size > 0 ? size : undefined
  }

  /** Mostly that of the datagram before. */
  private senderNow(name: NativeMemory): Sender {
    const length = sockaddrLength(this.family)
    if (equal(this.lastName, name.bytes.subarray(0, length))) return this.lastSender
    this.lastName = name.bytes.slice(0, length)
    this.lastSender = this.senderOf(name)
    return this.lastSender
  }

  mayHaveMore(): boolean {
    return this.hasLeft
  }

  // --- sending ---

  send(bytes: Uint8Array, path: Path): void {
    if (!this.joins(bytes, path)) this.flush()
    if (this.isCongested) {
      // Whoever sends looks first whether something waits, so this is the only one, or more than UDP holds.
      this.next ??= { bytes, path }
      return
    }
    if (bytes.length > MOST_TO_JOIN || bytes.length >= this.uncut)
      return this.sendAlone(bytes, path)
    this.batch ??= spare.pop() ?? new NativeMemory(MOST_OCTETS)
    if (this.batched === 0) {
      this.batchPath = path
      this.segment = bytes.length
    }
    this.batch.bytes.set(bytes, this.batched)
    this.batched += bytes.length
    const isFull =
      this.batched + this.segment > MOST_OCTETS ||
      this.batched >= MOST_SEGMENTS * this.segment ||
      bytes.length < this.segment
    if (isFull) this.flush()
  }

  private joins({ length }: Uint8Array, path: Path): boolean {
    return this.batched === 0 || (path === this.batchPath && length <= this.segment)
  }

  flush(): void {
    const { batch, batched, segment } = this
    if (batch === undefined || batched === 0) return
    const path = this.batchPath!
    const errno = this.transmit(batch.pointer, batched, batched > segment ? segment : 0, path)
    if (errno === EAGAIN) return this.waitForRoom()
    if (errno !== 0 && batched > segment) {
      if (!this.sendEach(batch, batched, segment, path)) return
    } else if (errno !== 0) this.fail(systemError(errno, 'sendmsg'), path)
    this.isCongested = false
    this.batched = 0
    this.batchPath = undefined
    this.batch = undefined
    spare.push(batch)
    const { next } = this
    this.next = undefined
    if (next === undefined) return
    this.send(next.bytes, next.path)
    this.flush()
  }

  /** Where the system does not cut. False: it has no room, and the rest waits. */
  private sendEach(batch: NativeMemory, batched: number, segment: number, path: Path): boolean {
    let isWhole = true
    for (let at = 0; at < batched; at += segment) {
      const length = Math.min(segment, batched - at)
      const errno = this.transmit(batch.pointer + BigInt(at), length, 0, path)
      if (errno === EAGAIN) {
        batch.bytes.copyWithin(0, at, batched)
        this.batched = batched - at
        this.waitForRoom()
        return false
      }
      if (errno === 0) continue
      isWhole = false
      this.fail(systemError(errno, 'sendmsg'), path)
    }
    // Alone they go: their size does not fit the interface whole, or the system has no such thing.
    if (isWhole) this.uncut = Math.min(this.uncut, segment)
    return true
  }

  private sendAlone(bytes: Uint8Array, path: Path): void {
    const errno = this.transmit(addressOf(bytes), bytes.length, 0, path)
    if (errno === EAGAIN && bytes.length <= MOST_OCTETS) {
      this.batch ??= spare.pop() ?? new NativeMemory(MOST_OCTETS)
      this.batch.bytes.set(bytes)
      this.batchPath = path
      this.segment = bytes.length
      this.batched = bytes.length
      this.waitForRoom()
    } else if (errno !== 0) this.fail(systemError(errno, 'sendmsg'), path)
  }

  private waitForRoom(): void {
    if (this.isCongested) return
    this.isCongested = true
    this.await(UV_READABLE | UV_WRITABLE)
  }

  /** One system call; `segment`: the octets of each datagram, 0: it is one. Returns 0, or what the system says. */
  private transmit(from: bigint, length: number, segment: number, path: Path): number {
    const { system, descriptor } = this
    const { header, iov, control } = system.sent
    iov.view.setBigUint64(IOV.base, from, true)
    iov.view.setUint32(IOV.length, length, true)
    if (this.isConnected) header.view.setBigUint64(MSG.name, 0n, true)
    else header.setPointer(MSG.name, this.destinationOf(path))
    header.view.setUint32(MSG.nameLength, this.isConnected ? 0 : sockaddrLength(this.family), true)
    if (segment === 0) header.view.setBigUint64(MSG.control, 0n, true)
    else header.setPointer(MSG.control, control)
    header.view.setUint32(MSG.controlLength, segment === 0 ? 0 : CMSG.size, true)
    control.view.setUint16(CMSG.data, segment, true)
    if (system.sendmsg(descriptor, header.pointer, 0n) >= 0) return 0
    const errno = system.errno()
    if (errno === EAGAIN) return errno
    // An error of a datagram before, such as an ICMP refusal, is told in the place of sending this one.
    if (system.sendmsg(descriptor, header.pointer, 0n) < 0) return system.errno()
    if (errno !== EINTR) this.fail(systemError(errno, 'sendmsg'), undefined)
    return 0
  }

  private destinationOf(path: Path): NativeMemory {
    const known = this.destinations.get(path)
    if (known !== undefined) return known
    const destination = this.sockaddr(destinationText(this.family, path), path.remotePort)
    this.destinations.set(path, destination)
    return destination
  }

  // --- errors and the end ---

  private fail(error: NodeJS.ErrnoException, path: Path | undefined): void {
    process.nextTick(() => {
      if (!this.isClosed) this.events.onError(error, path)
    })
  }

  private errorOf(syscall: string, address?: string, port?: number): NodeJS.ErrnoException {
    return systemError(this.system.errno(), syscall, address, port)
  }

  ref(): void {
    this.isReferenced = true
    if (this.isBound) this.system.uvRef(this.handle.pointer)
  }

  unref(): void {
    this.isReferenced = false
    if (this.isBound) this.system.uvUnref(this.handle.pointer)
  }

  close(): void {
    const { system, fd } = this
    this.flush()
    this.isClosed = true
    if (this.reading !== undefined) clearImmediate(this.reading)
    if (this.batch !== undefined) spare.push(this.batch)
    this.endWaiting()
    if (fd >= 0) system.close(fd)
  }

  /** Its socket sends, and receives nothing any more. */
  endWaiting(): void {
    if (!this.isBound) return
    this.isBound = false
    const { pointer } = this.handle
    // When the process ends, Node does not let libuv call us any more, so it is told of no callback.
    this.system.uvClose(pointer, 0n)
    // libuv has let go of the handle at the end of the turn in which it was closed.
    setImmediate(() => setImmediate(() => open.delete(pointer)).unref()).unref()
  }
}

/** As Node's own. */
const systemError = (
  errno: number,
  syscall: string,
  address?: string,
  port?: number,
): NodeJS.ErrnoException =>
  Object.assign(socketError({ code: getSystemErrorName(-errno), syscall, address, port }), {
    errno: -errno,
  })
