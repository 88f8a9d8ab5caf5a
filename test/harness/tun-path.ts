/**
 * One of our TCP stacks and the kernel's on a path in real time: packets of a TUN device, which the program was
 * given as an open file, go through a relay that delays, loses and reorders them.
 */
import { read, writeSync } from 'node:fs'
import { Packet } from '../../lib/base/packet.ts'
import { systemEnvironment } from '../../lib/node/environment.ts'
import type { TcpConfig } from '../../lib/tcp/config.ts'
import type { TcpConnection } from '../../lib/tcp/connection.ts'
import { TcpListeners } from '../../lib/tcp/listener.ts'
import { DEFAULT_TCP_CONFIG, TcpStack, type TcpEvent } from '../../lib/tcp/stack.ts'
import { prependIpHeader, readIpHeader } from '../../lib/wire/ip.ts'
import { IpProtocol } from '../../lib/wire/registry.ts'
import { Random } from './random.ts'

export interface RelayWay {
  /** Mbit/s. */
  readonly rate?: number
  /** Milliseconds, one way. */
  readonly delay?: number
  /** Packets that wait before more are dropped. */
  readonly queue?: number
  readonly loss?: number
  /** The share of packets that come `lateBy` milliseconds late. */
  readonly late?: number
  readonly lateBy?: number
}

const MTU = 1500
/** Where the file of the first device is. */
export const FIRST_TUN = 3

/** One way of a path, in real time; `pass` is called when a packet has got through. */
export class Relay {
  private freeAt = 0
  private readonly way: RelayWay
  private readonly random: Random
  private readonly pass: (packet: Uint8Array) => void
  private readonly waiting: { at: number; packet: Uint8Array }[] = []
  private timer: NodeJS.Timeout | NodeJS.Immediate | undefined

  constructor(way: RelayWay, seed: number, pass: (packet: Uint8Array) => void) {
    this.way = way
    this.random = new Random(seed)
    this.pass = pass
  }

  /** `packet` stays the caller's. */
  carry(packet: Uint8Array): void {
    const {
      rate = Infinity,
      delay = 0,
      queue = Infinity,
      loss = 0,
      late = 0,
      lateBy = 0,
    } = this.way
    const now = performance.now()
    const from = Math.max(now, this.freeAt)
    if (rate < Infinity && from - now >= (queue * MTU * 8) / (rate * 1000)) return
    if (loss > 0 && this.random.chance(loss)) return
    this.freeAt = rate === Infinity ? now : from + (packet.length * 8) / (rate * 1000)
    const at = this.freeAt + delay + (late > 0 && this.random.chance(late) ? lateBy : 0)
    let place = this.waiting.length
    while (place > 0 && this.waiting[place - 1]!.at > at) place--
    this.waiting.splice(place, 0, { at, packet: packet.slice() })
    this.arm(now)
  }

  private arm(now: number): void {
    const [first] = this.waiting
    if (first === undefined || this.timer !== undefined) return
    const wait = first.at - now
    // A timer is a millisecond late; the last one is waited for by turns of the event loop.
    this.timer =
      wait > 1.5
        ? setTimeout(() => this.flush(), Math.floor(wait - 1))
        : setImmediate(() => this.flush())
  }

  private flush(): void {
    this.timer = undefined
    const now = performance.now()
    while (this.waiting[0] !== undefined && this.waiting[0].at <= now)
      this.pass(this.waiting.shift()!.packet)
    this.arm(now)
  }
}

/** Calls `onPacket` for each packet of a TUN device; what it gets stays valid. */
export const readTun = (file: number, onPacket: (packet: Uint8Array) => void): void => {
  const buffer = Buffer.allocUnsafe(65536)
  const next = (): void =>
    read(file, buffer, 0, buffer.length, null, (error, length) => {
      if (error !== null) throw error
      // IPv6 hosts ask for routers, whoever is there.
      if (buffer[0]! >> 4 === 4) onPacket(new Uint8Array(buffer.subarray(0, length)))
      next()
    })
  next()
}

export const writeTun = (file: number, packet: Uint8Array): void => {
  writeSync(file, packet)
}

/** Our end. */
export class TunHost {
  readonly listeners = new TcpListeners()
  readonly stack: TcpStack
  readonly address: Uint8Array
  onEvent: (event: TcpEvent) => void = () => undefined
  private readonly packet = new Packet()
  private readonly send: (packet: Uint8Array) => void
  private timer: NodeJS.Timeout | undefined
  private isPumping = false

  constructor(
    address: readonly number[],
    send: (packet: Uint8Array) => void,
    config: Partial<TcpConfig> = {},
  ) {
    this.address = Uint8Array.from(address)
    this.send = send
    this.stack = new TcpStack(
      systemEnvironment,
      { ...DEFAULT_TCP_CONFIG, ...config },
      this.listeners,
    )
    this.stack.segmentLimit = MTU - 20
  }

  receive(packet: Uint8Array): void {
    const ip = readIpHeader(packet, 0, packet.length)
    if (ip?.protocol !== IpProtocol.Tcp || ip.fragment) return
    const { payloadFrom, payloadTo, source, destination } = ip
    const now = performance.now()
    this.stack.handleSegment(packet, payloadFrom, payloadTo, source, destination, now, true)
    this.pump()
  }

  connect(remoteAddress: readonly number[], remotePort: number): TcpConnection {
    const flow = {
      localAddress: this.address,
      localPort: 0,
      remoteAddress: Uint8Array.from(remoteAddress),
      remotePort,
    }
    const connection = this.stack.connect(flow, {}, performance.now())
    if (connection === undefined) throw new Error('no port is free')
    this.pump()
    return connection
  }

  /** What may be sent goes out, and events are told. */
  pump(): void {
    if (this.isPumping) return
    this.isPumping = true
    const { stack, packet } = this
    for (let isBusy = true; isBusy;) {
      isBusy = false
      for (;;) {
        packet.reset()
        const flow = stack.pollTransmit(packet, performance.now())
        if (flow === undefined) break
        isBusy = true
        prependIpHeader(packet, flow.localAddress, flow.remoteAddress, IpProtocol.Tcp)
        this.send(packet.view())
      }
      for (let event = stack.pollEvent(); event !== undefined; event = stack.pollEvent()) {
        isBusy = true
        this.onEvent(event)
      }
    }
    this.isPumping = false
    clearTimeout(this.timer)
    const next = stack.nextTimeout()
    if (next === Infinity) return
    const wait = Math.max(0, Math.ceil(next - performance.now()))
    this.timer = setTimeout(() => {
      stack.handleTimeout(performance.now())
      this.pump()
    }, wait)
  }
}
