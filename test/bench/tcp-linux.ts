/**
 * Our sender beside Linux', in turns: both send to the same Linux receiver through one relay with the same seeds,
 * in real time. Started by `npm run bench:tcp -- --linux`, which needs root.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { CongestionControl } from '../../lib/tcp/congestion/choose.ts'
import { FIRST_TUN, readTun, Relay, TunHost, writeTun, type RelayWay } from '../harness/tun-path.ts'

const SENDER_DEVICE = 'tcp-sender'
const RECEIVER_DEVICE = 'tcp-receiver'
const SENDER = [172, 31, 211, 1] as const
const RECEIVER = [172, 31, 211, 2] as const
const OURS = [172, 31, 211, 3] as const
const PORT = 5201
const SECONDS = 6
/** Milliseconds between two measurements. */
const PAUSE = 300
const TURN = SECONDS * 1000 + PAUSE
const SEEDS = [1, 2] as const
/** Milliseconds by which one in a hundred packets may be late: with more the machine is what is measured. */
const BUSY = 5
/** Mbit/s; more would measure the machine. */
const RATE = 20
const QUEUE = 100
const ROUND_TRIPS: readonly number[] = [10, 20, 50, 100]
const LOSSES: readonly number[] = [0, 0.1, 1, 3]
const FLOORS = { cubic: 0.9, bbr: 0.8 } as const

const PROGRAM = fileURLToPath(import.meta.url)

/** Opens two TUN devices as files 3 and 4, and becomes the program. */
const OPEN_TUNS = `
use POSIX (); $^F = 255; my @files;
for (1, 2) {
  open(my $tun, "+<", "/dev/net/tun") or die "no /dev/net/tun: $!";
  ioctl($tun, 0x400454ca, pack("a16 S x22", shift @ARGV, 0x1001)) or die "no TUN device: $!";
  push @files, $tun;
}
POSIX::dup2(fileno($files[0]), 103); POSIX::dup2(fileno($files[1]), 104);
POSIX::dup2(103, 3); POSIX::dup2(104, 4);
exec @ARGV or die $!;
`

/** Sends until it is killed, with a congestion control that Node cannot choose (TCP_CONGESTION), and ends with RST. */
const LINUX_SENDER = `
use Socket;
my ($control, $host, $port) = @ARGV;
socket(my $out, PF_INET, SOCK_STREAM, 6) or die $!;
setsockopt($out, 6, 13, $control) or die "$control: $!";
setsockopt($out, SOL_SOCKET, SO_LINGER, pack("ii", 1, 0)) or die $!;
connect($out, sockaddr_in($port, inet_aton($host))) or die $!;
my $block = "x" x 65536;
1 while defined syswrite($out, $block);
`

/**
 * Runs the comparison in namespaces of its own; false when a floor is missed. `wanted`: names of controls, round trips as
 * `20ms` and losses as `1%`; of what none is named, all are measured.
 */
export const compareWithLinux = async (wanted: readonly string[]): Promise<boolean> => {
  const known = cellsOf(() => true).flatMap(namesOf)
  const strange = wanted.filter(name => !known.includes(name))
  if (strange.length > 0)
    throw new Error(`${strange.join(' ')}: there are ${[...new Set(known)].join(' ')}`)
  const command = ['perl', '-e', OPEN_TUNS, SENDER_DEVICE, RECEIVER_DEVICE]
  const args = ['--net', ...command, process.execPath, PROGRAM, '--relay', ...wanted]
  const child = spawn('unshare', args, { stdio: 'inherit' })
  return (await new Promise(resolve => child.on('close', resolve))) === 0
}

const ip = (...args: readonly string[]): Buffer => execFileSync('ip', args)

// --- the receiver, in a namespace of its own: counts the octets of the connection at hand ---

const receive = async (): Promise<void> => {
  // The device comes from the other namespace: its line says that it is here.
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
  await lines.next()
  ip('link', 'set', 'lo', 'up')
  ip('address', 'add', `${RECEIVER.join('.')}/24`, 'dev', RECEIVER_DEVICE)
  ip('link', 'set', RECEIVER_DEVICE, 'txqueuelen', '5000', 'up')
  let octets = 0
  const server = createServer(socket => {
    octets = 0
    socket.on('data', (piece: Buffer) => (octets += piece.length))
    socket.on('error', () => undefined)
  })
  server.listen(PORT, RECEIVER.join('.'), () => console.log('ready'))
  for (let line = await lines.next(); line.done !== true; line = await lines.next())
    console.log(octets)
  process.exit(0)
}

class Receiver {
  private readonly child: ChildProcess
  private readonly lines: AsyncIterator<string>

  constructor() {
    this.child = spawn('unshare', ['--net', process.execPath, PROGRAM, '--receiver'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.lines = createInterface({ input: this.child.stdout! })[Symbol.asyncIterator]()
  }

  async ask(): Promise<string> {
    this.child.stdin!.write('\n')
    return String((await this.lines.next()).value)
  }

  async start(): Promise<void> {
    // `unshare` has made the namespace once its program runs.
    await sleep(1000)
    ip('link', 'set', RECEIVER_DEVICE, 'netns', String(this.child.pid))
    await this.ask()
  }

  stop(): void {
    this.child.stdin!.end()
  }
}

// --- the relay, with both senders ---

type Sender = 'ours' | 'linux'

class Comparison {
  private way: { there: Relay; back: Relay } | undefined
  private host: TunHost | undefined
  private readonly receiver = new Receiver()

  async start(): Promise<void> {
    ip('address', 'add', `${SENDER.join('.')}/24`, 'dev', SENDER_DEVICE)
    ip('link', 'set', SENDER_DEVICE, 'txqueuelen', '5000', 'up')
    await this.receiver.start()
    readTun(FIRST_TUN, packet => this.way?.there.carry(packet))
    readTun(FIRST_TUN + 1, packet => this.way?.back.carry(packet))
  }

  stop(): void {
    this.receiver.stop()
  }

  private setPath(way: RelayWay, seed: number): void {
    const there = new Relay(way, seed, packet => writeTun(FIRST_TUN + 1, packet))
    const { delay = 0, rate = Infinity } = way
    const back = new Relay({ delay, rate }, seed + 1, packet => {
      // The last octet of the address says whose it is.
      if (packet[19] === OURS[3]) this.host?.receive(packet)
      else writeTun(FIRST_TUN, packet)
    })
    this.way = { there, back }
  }

  /** Mbit/s in the time of a cell. */
  async measure(
    sender: Sender,
    control: CongestionControl,
    way: RelayWay,
    seed: number,
  ): Promise<number> {
    this.setPath(way, seed)
    const stop = sender === 'ours' ? this.sendOurs(control) : this.sendLinux(control)
    await sleep(SECONDS * 1000)
    const octets = Number(await this.receiver.ask())
    stop()
    this.way = undefined
    await sleep(PAUSE)
    return (octets * 8) / SECONDS / 1e6
  }

  private sendOurs(congestionControl: CongestionControl): () => void {
    const block = new Uint8Array(65536)
    const host = new TunHost(OURS, packet => this.way?.there.carry(packet), { congestionControl })
    this.host = host
    host.onEvent = ({ kind, connection }) => {
      if (kind !== 'connected' && kind !== 'writable') return
      while (connection.send(block) === block.length);
    }
    const connection = host.connect(RECEIVER, PORT)
    return () => {
      connection.abort()
      host.pump()
    }
  }

  private sendLinux(control: CongestionControl): () => void {
    const args = ['-e', LINUX_SENDER, control, RECEIVER.join('.'), String(PORT)]
    const child = spawn('perl', args, { stdio: 'inherit' })
    return () => child.kill()
  }
}

interface Cell {
  readonly control: keyof typeof FLOORS
  /** Milliseconds. */
  readonly rtt: number
  /** Percent. */
  readonly loss: number
}

const cellsOf = (isWanted: (cell: Cell) => boolean): Cell[] =>
  (['cubic', 'bbr'] as const)
    .flatMap(control =>
      ROUND_TRIPS.flatMap(rtt => LOSSES.map((loss): Cell => ({ control, rtt, loss }))),
    )
    .filter(isWanted)

/** As they are named to choose it. */
const namesOf = ({ control, rtt, loss }: Cell): string[] => [control, `${rtt}ms`, `${loss}%`]

/** Whether a cell has one of the names of each kind that is named. */
const isAmong =
  (wanted: readonly string[]) =>
  (cell: Cell): boolean => {
    const kinds = [/^[a-z]/, /ms$/, /%$/]
    return kinds.every((kind, i) => {
      const names = wanted.filter(name => kind.test(name))
      return names.length === 0 || names.includes(namesOf(cell)[i]!)
    })
  }

const relay = async (wanted: readonly string[]): Promise<boolean> => {
  const controls = readFileSync('/proc/sys/net/ipv4/tcp_available_congestion_control', 'utf8')
  const cells = cellsOf(isAmong(wanted)).filter(({ control }) => controls.includes(control))
  for (const control of ['cubic', 'bbr'])
    if (!controls.includes(control))
      console.log(`${control}: not compared, this kernel has ${controls.trim()}`)
  const minutes = (count: number): string => ((count * SEEDS.length * 2 * TURN) / 60_000).toFixed(1)
  console.log(`${cells.length} cells, ${minutes(cells.length)} minutes`)
  const comparison = new Comparison()
  await comparison.start()
  const delays = monitorEventLoopDelay({ resolution: 1 })
  delays.enable()
  let isGood = true
  for (const [i, { control, rtt, loss }] of cells.entries()) {
    const way = { rate: RATE, delay: rtt / 2, queue: QUEUE, loss: loss / 100 }
    const ours: number[] = []
    const linux: number[] = []
    delays.reset()
    for (const seed of SEEDS) {
      ours.push(await comparison.measure('ours', control, way, seed))
      linux.push(await comparison.measure('linux', control, way, seed))
    }
    const share = sum(ours) / sum(linux)
    const late = delays.percentile(99) / 1e6
    const isReached = share >= FLOORS[control]
    isGood &&= isReached
    console.log(
      `${isReached ? 'ok    ' : 'MISSED'}  ${control} at ${rtt} ms and ${loss} %: ` +
        `ours ${(sum(ours) / SEEDS.length).toFixed(2)}, Linux ${(sum(linux) / SEEDS.length).toFixed(2)} Mbit/s, ` +
        `${share.toFixed(2)} x (>= ${FLOORS[control]})${late > BUSY ? `, on a machine too busy: packets are late by ${late.toFixed(0)} ms` : ''}; ${minutes(cells.length - 1 - i)} minutes left`,
    )
  }
  comparison.stop()
  return isGood
}

const sum = (values: readonly number[]): number => values.reduce((all, value) => all + value, 0)

if (process.argv[2] === '--receiver') await receive()
if (process.argv[2] === '--relay') process.exit((await relay(process.argv.slice(3))) ? 0 : 1)
