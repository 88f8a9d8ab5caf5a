/**
 * One conversation of our TCP with Linux': `kernel-tcp NAME ROLE`, in a network namespace of its own and with
 * a TUN device as file 3. The kernel's end are sockets of `node:net`, ours is a stack on the device.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer, connect as connectKernel, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { FIRST_TUN, readTun, Relay, TunHost, writeTun, type RelayWay } from '../harness/tun-path.ts'
import type { TcpConnection } from '../../lib/tcp/connection.ts'

export const DEVICE = 'tcp-ours'
const KERNEL = [172, 31, 200, 1] as const
const OURS = [172, 31, 200, 2] as const
const PORT = 5201

/** What belongs at an offset of a stream. */
const octetAt = (offset: number): number => (offset ^ (offset >>> 8) ^ (offset >>> 16)) & 255

const octetsFrom = (offset: number, length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => octetAt(offset + i))

/** Counts what comes, and whether it is what was sent. */
class Received {
  octets = 0
  isRight = true
  hasEnded = false

  add(octets: Uint8Array): void {
    for (let i = 0; i < octets.length; i++)
      if (octets[i] !== octetAt(this.octets + i)) this.isRight = false
    this.octets += octets.length
  }
}

/** A connection of our stack, as a program would use it. */
class OurSocket {
  readonly received = new Received()
  error: string | undefined
  isOver = false
  isPaused = false
  private readonly host: TunHost
  private readonly connection: TcpConnection
  private sent = 0
  private left = 0
  private ends = false

  constructor(host: TunHost, connection: TcpConnection) {
    this.host = host
    this.connection = connection
  }

  send(octets: number, ends: boolean): void {
    this.left += octets
    this.ends ||= ends
    this.fill()
    this.host.pump()
  }

  fill(): void {
    while (this.left > 0) {
      const piece = octetsFrom(this.sent, Math.min(this.left, 65536))
      const taken = this.connection.send(piece)
      this.sent += taken
      this.left -= taken
      if (taken < piece.length) return
    }
    if (this.ends) this.connection.shutdown()
  }

  drain(): void {
    if (this.isPaused) return
    for (
      let piece = this.connection.receive();
      piece !== undefined;
      piece = this.connection.receive()
    )
      this.received.add(piece)
    this.received.hasEnded = this.connection.finReceived
  }

  resume(): void {
    this.isPaused = false
    this.drain()
    this.host.pump()
  }

  abort(): void {
    this.connection.abort()
    this.host.pump()
  }

  close(): void {
    this.connection.release(performance.now())
    this.host.pump()
  }
}

/** The two ends of a connection. */
interface Pair {
  readonly ours: OurSocket
  readonly kernels: Socket
  readonly received: Received
}

type Role = 'initiator' | 'responder'

class Bench {
  readonly host: TunHost
  private readonly sockets = new Map<TcpConnection, OurSocket>()
  private onAccepted: (socket: OurSocket) => void = () => undefined

  constructor(way: RelayWay) {
    execFileSync('ip', ['address', 'add', `${KERNEL.join('.')}/24`, 'dev', DEVICE])
    execFileSync('ip', ['link', 'set', DEVICE, 'txqueuelen', '5000', 'up'])
    const there = new Relay(way, 1, packet => writeTun(FIRST_TUN, packet))
    const back = new Relay(way, 2, packet => this.host.receive(packet))
    this.host = new TunHost(OURS, packet => there.carry(packet))
    readTun(FIRST_TUN, packet => back.carry(packet))
    this.host.onEvent = ({ kind, connection, error }) => {
      const socket = this.socketOf(connection)
      if (kind === 'accepted') this.onAccepted(socket)
      if (kind === 'connected' || kind === 'writable') socket.fill()
      if (kind === 'readable' || kind === 'ended') socket.drain()
      if (kind !== 'closed') return
      socket.isOver = true
      socket.error = error === undefined ? undefined : String(error)
    }
  }

  private socketOf(connection: TcpConnection): OurSocket {
    const known = this.sockets.get(connection) ?? new OurSocket(this.host, connection)
    this.sockets.set(connection, known)
    return known
  }

  connect(port: number): OurSocket {
    return this.socketOf(this.host.connect(KERNEL, port))
  }

  /** A connection that we open, or the kernel does. */
  async pair(role: Role): Promise<Pair> {
    const { ours, kernels } = await (role === 'initiator' ? this.opened() : this.accepted())
    const received = new Received()
    kernels.on('data', (octets: Buffer) => received.add(octets))
    kernels.on('end', () => (received.hasEnded = true))
    kernels.on('error', () => undefined)
    return { ours, kernels, received }
  }

  private async opened(): Promise<Pick<Pair, 'ours' | 'kernels'>> {
    const server = createServer({ allowHalfOpen: true }).listen(PORT, KERNEL.join('.'))
    await once(server, 'listening')
    const ours = this.connect(PORT)
    const [kernels] = (await once(server, 'connection')) as [Socket]
    return { ours, kernels }
  }

  private async accepted(): Promise<Pick<Pair, 'ours' | 'kernels'>> {
    this.host.listeners.listen(PORT, 10)
    const accepted = new Promise<OurSocket>(resolve => (this.onAccepted = resolve))
    const kernels = connectKernel({ host: OURS.join('.'), port: PORT, allowHalfOpen: true })
    const [ours] = await Promise.all([accepted, once(kernels, 'connect')])
    return { ours, kernels }
  }
}

const until = async (what: string, holds: () => boolean, seconds = 60): Promise<void> => {
  for (const end = performance.now() + seconds * 1000; !holds(); await sleep(5))
    assert.ok(performance.now() < end, `not within ${seconds} s: ${what}`)
}

/** So many octets each way, complete and in order, and both ends close. */
const exchange = async ({ ours, kernels, received }: Pair, octets: number): Promise<void> => {
  ours.send(octets, true)
  for (let at = 0; at < octets; at += 65536)
    kernels.write(octetsFrom(at, Math.min(65536, octets - at)))
  kernels.end()
  await until('both have all', () => received.hasEnded && ours.received.hasEnded)
  assert.equal(received.octets, octets, 'the kernel got all')
  assert.equal(ours.received.octets, octets, 'we got all')
  assert.ok(received.isRight && ours.received.isRight, 'nothing is changed or out of order')
  assert.equal(ours.error, undefined)
}

interface Conversation {
  readonly way: RelayWay
  run(bench: Bench, role: Role): Promise<void>
}

const transfer = (way: RelayWay, octets: number): Conversation => ({
  way,
  run: async (bench, role) => exchange(await bench.pair(role), octets),
})

export const CONVERSATIONS: ReadonlyMap<string, Conversation> = new Map([
  ['bulk', transfer({ delay: 1 }, 5_000_000)],
  ['loss of 2 %', transfer({ delay: 5, loss: 0.02 }, 2_000_000)],
  ['reordering of 5 %', transfer({ delay: 5, late: 0.05, lateBy: 4 }, 4_000_000)],
  ['a narrow path', transfer({ delay: 10, rate: 20, queue: 20 }, 2_000_000)],
  [
    'half-close',
    {
      way: { delay: 5 },
      run: async (bench, role) => {
        const { ours, kernels, received } = await bench.pair(role)
        ours.send(1000, true)
        await until('the kernel has our end', () => received.hasEnded)
        assert.equal(received.octets, 1000)
        kernels.write(octetsFrom(0, 50_000))
        await until('we have the answer', () => ours.received.octets === 50_000)
        assert.ok(!ours.received.hasEnded, 'the other half is open')
        kernels.end()
        await until('both halves are closed', () => ours.received.hasEnded && ours.isOver)
        assert.equal(ours.error, undefined)
      },
    },
  ],
  [
    'RST by the kernel',
    {
      way: { delay: 2 },
      run: async (bench, role) => {
        const { ours, kernels } = await bench.pair(role)
        kernels.resetAndDestroy()
        await until('we are told', () => ours.isOver)
        assert.equal(ours.error, 'ECONNRESET')
      },
    },
  ],
  [
    'RST by us',
    {
      way: { delay: 2 },
      run: async (bench, role) => {
        const { ours, kernels } = await bench.pair(role)
        const closed = new Promise(resolve => kernels.on('close', resolve))
        let code: string | undefined
        kernels.on('error', (error: NodeJS.ErrnoException) => (code = error.code))
        ours.abort()
        await closed
        assert.equal(code, 'ECONNRESET')
      },
    },
  ],
  [
    'nobody listens',
    {
      way: { delay: 2 },
      run: async (bench, role) => {
        if (role === 'initiator') {
          const ours = bench.connect(9)
          await until('we are refused', () => ours.isOver)
          assert.equal(ours.error, 'ECONNREFUSED')
          return
        }
        const kernels = connectKernel({ host: OURS.join('.'), port: 9 })
        const [error] = (await once(kernels, 'error')) as [NodeJS.ErrnoException]
        assert.equal(error.code, 'ECONNREFUSED')
      },
    },
  ],
  [
    'zero window of the kernel',
    {
      way: { delay: 2 },
      run: async (bench, role) => {
        const { ours, kernels, received } = await bench.pair(role)
        kernels.pause()
        ours.send(12_000_000, true)
        await sleep(1500)
        const before = received.octets
        await sleep(300)
        assert.equal(received.octets, before, 'nothing is read')
        kernels.resume()
        await until('all is read', () => received.hasEnded)
        assert.equal(received.octets, 12_000_000)
        assert.ok(received.isRight)
      },
    },
  ],
  [
    'zero window of ours',
    {
      way: { delay: 2 },
      run: async (bench, role) => {
        const { ours, kernels } = await bench.pair(role)
        ours.isPaused = true
        for (let at = 0; at < 12_000_000; at += 1 << 20)
          kernels.write(octetsFrom(at, Math.min(1 << 20, 12_000_000 - at)))
        kernels.end()
        await sleep(1500)
        assert.equal(ours.received.octets, 0)
        ours.resume()
        await until('all is read', () => ours.received.hasEnded)
        assert.equal(ours.received.octets, 12_000_000)
        assert.ok(ours.received.isRight)
      },
    },
  ],
])

const [, program, name = '', role] = process.argv
if (program?.endsWith('kernel-tcp.js')) {
  const conversation = CONVERSATIONS.get(name)
  assert.ok(conversation !== undefined && (role === 'initiator' || role === 'responder'))
  await conversation.run(new Bench(conversation.way), role)
  process.exit(0)
}
