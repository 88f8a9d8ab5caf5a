/**
 * Our sender against Linux': both send to the same Linux receiver through one relay with the same seeds, in real time;
 * in turns, and beside each other, where both share one queue. Started by `npm run bench:tcp -- --linux`, which needs
 * root.
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
/** How long a sender that has the path for itself sends. */
const SECONDS = 6
/**
 * When the shares of two that begin together are looked at: slow start gives one of them more, and CUBIC needs several
 * losses, some seconds apart, to make that good.
 */
const BESIDE = { from: 15, to: 45 } as const
/** Milliseconds between two measurements. */
const PAUSE = 300
const SEEDS = [1, 2] as const
/** Milliseconds by which one in a hundred packets may be late: with more the machine is what is measured. */
const BUSY = 5
/** Mbit/s; more would measure the machine. */
const RATE = 20
const QUEUE = 100
const ROUND_TRIPS: readonly number[] = [10, 20, 50, 100]
const LOSSES: readonly number[] = [0, 0.1, 1, 3]
/** Of Linux' throughput, when each has the path for itself. */
const FLOORS = { cubic: 0.9, bbr: 0.8 } as const
/** Of what both get, when they share it. */
const FAIR = { from: 0.4, to: 0.6 } as const

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
 * Runs the comparison in namespaces of its own; false when a floor is missed. `wanted`: names of controls or `beside`, round
 * trips as `20ms` and losses as `1%`; of what none is named, all are measured.
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

// --- the receiver, in a namespace of its own: counts the octets of the connections at hand ---

const receive = async (): Promise<void> => {
  // The device comes from the other namespace: its line says that it is here.
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
  await lines.next()
  ip('link', 'set', 'lo', 'up')
  ip('address', 'add', `${RECEIVER.join('.')}/24`, 'dev', RECEIVER_DEVICE)
  ip('link', 'set', RECEIVER_DEVICE, 'txqueuelen', '5000', 'up')
  /** By the sender's address: how many of the connection it made last. */
  const octets: Record<string, number> = {}
  const server = createServer(socket => {
    const from = socket.remoteAddress!
    octets[from] = 0
    socket.on('data', (piece: Buffer) => (octets[from]! += piece.length))
    socket.on('error', () => undefined)
  })
  server.listen(PORT, RECEIVER.join('.'), () => console.log('ready'))
  for (let line = await lines.next(); line.done !== true; line = await lines.next())
    console.log(JSON.stringify(octets))
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
const ADDRESSES: Record<Sender, string> = { ours: OURS.join('.'), linux: SENDER.join('.') }

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

  /** Of each of those that send at once, how many octets have arrived at each of some seconds. */
  async measure<Name extends Sender>(
    senders: readonly Name[],
    control: CongestionControl,
    way: RelayWay,
    seed: number,
    seconds: readonly number[],
  ): Promise<Record<Name, number>[]> {
    this.setPath(way, seed)
    const stops = senders.map(sender =>
      sender === 'ours' ? this.sendOurs(control) : this.sendLinux(control),
    )
    const began = Date.now()
    const marks: Record<Name, number>[] = []
    for (const second of seconds) {
      await sleep(began + second * 1000 - Date.now())
      const octets = JSON.parse(await this.receiver.ask()) as Record<string, number>
      const counts = senders.map(sender => [sender, octets[ADDRESSES[sender]]!])
      marks.push(Object.fromEntries(counts) as Record<Name, number>)
    }
    for (const stop of stops) stop()
    this.way = undefined
    await sleep(PAUSE)
    return marks
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

/** A control that has the path for itself, ours and Linux' in turns; or both CUBICs beside each other. */
type Kind = keyof typeof FLOORS | 'beside'

interface Cell {
  readonly kind: Kind
  /** Milliseconds. */
  readonly rtt: number
  /** Percent. */
  readonly loss: number
}

/** What is lost of a path that two share is what its queue drops. */
const LOSSES_OF: Record<Kind, readonly number[]> = { cubic: LOSSES, bbr: LOSSES, beside: [0] }

const cellsOf = (isWanted: (cell: Cell) => boolean): Cell[] =>
  (['cubic', 'bbr', 'beside'] as const)
    .flatMap(kind =>
      ROUND_TRIPS.flatMap(rtt => LOSSES_OF[kind].map((loss): Cell => ({ kind, rtt, loss }))),
    )
    .filter(isWanted)

/** As they are named to choose it. */
const namesOf = ({ kind, rtt, loss }: Cell): string[] => [kind, `${rtt}ms`, `${loss}%`]

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

/** The control that both ends of a cell use. */
const controlOf = ({ kind }: Cell): keyof typeof FLOORS => (kind === 'beside' ? 'cubic' : kind)

/** Milliseconds that a cell takes. */
const timeOf = ({ kind }: Cell): number =>
  SEEDS.length * (kind === 'beside' ? BESIDE.to * 1000 + PAUSE : 2 * (SECONDS * 1000 + PAUSE))

interface Verdict {
  readonly isReached: boolean
  readonly text: string
}

const wayOf = ({ rtt, loss }: Cell): RelayWay => ({
  rate: RATE,
  delay: rtt / 2,
  queue: QUEUE,
  loss: loss / 100,
})

const inTurns = async (
  comparison: Comparison,
  cell: Cell,
  control: keyof typeof FLOORS,
): Promise<Verdict> => {
  const octets: Record<Sender, number> = { ours: 0, linux: 0 }
  for (const seed of SEEDS)
    for (const sender of ['ours', 'linux'] as const) {
      const marks = await comparison.measure([sender], control, wayOf(cell), seed, [SECONDS])
      octets[sender] += marks[0]![sender]
    }
  const share = octets.ours / octets.linux
  const isReached = share >= FLOORS[control]
  return {
    isReached,
    text: `${ratesText(octets, SECONDS)}, ${share.toFixed(2)} x (>= ${FLOORS[control]})`,
  }
}

const beside = async (comparison: Comparison, cell: Cell): Promise<Verdict> => {
  const octets: Record<Sender, number> = { ours: 0, linux: 0 }
  const early: Record<Sender, number> = { ours: 0, linux: 0 }
  for (const seed of SEEDS) {
    // Each is the one that begins once.
    const senders: Sender[] = seed % 2 === 1 ? ['ours', 'linux'] : ['linux', 'ours']
    const marks = [BESIDE.from, BESIDE.to]
    const [before, after] = await comparison.measure(senders, 'cubic', wayOf(cell), seed, marks)
    for (const sender of senders) {
      early[sender] += before![sender]
      octets[sender] += after![sender] - before![sender]
    }
  }
  const share = shareOf(octets)
  return {
    isReached: share >= FAIR.from && share <= FAIR.to,
    text:
      `${ratesText(octets, BESIDE.to - BESIDE.from)}, ours ${percent(share)} (${percent(FAIR.from)} to ${percent(FAIR.to)}); ` +
      `${percent(shareOf(early))} in the ${BESIDE.from} s before`,
  }
}

const shareOf = ({ ours, linux }: Record<Sender, number>): number => ours / (ours + linux)

const percent = (share: number): string => `${(share * 100).toFixed(0)} %`

const ratesText = ({ ours, linux }: Record<Sender, number>, seconds: number): string => {
  const rate = (octets: number): string => ((octets * 8) / 1e6 / seconds / SEEDS.length).toFixed(2)
  return `ours ${rate(ours)}, Linux ${rate(linux)} Mbit/s`
}

const relay = async (wanted: readonly string[]): Promise<boolean> => {
  const controls = readFileSync('/proc/sys/net/ipv4/tcp_available_congestion_control', 'utf8')
  const cells = cellsOf(isAmong(wanted)).filter(cell => controls.includes(controlOf(cell)))
  for (const control of ['cubic', 'bbr'])
    if (!controls.includes(control))
      console.log(`${control}: not compared, this kernel has ${controls.trim()}`)
  const minutes = (of: readonly Cell[]): string =>
    (of.reduce((all, cell) => all + timeOf(cell), 0) / 60_000).toFixed(1)
  console.log(`${cells.length} cells, ${minutes(cells)} minutes`)
  const comparison = new Comparison()
  await comparison.start()
  const delays = monitorEventLoopDelay({ resolution: 1 })
  delays.enable()
  let isGood = true
  for (const [i, cell] of cells.entries()) {
    delays.reset()
    const { isReached, text } =
      cell.kind === 'beside'
        ? await beside(comparison, cell)
        : await inTurns(comparison, cell, cell.kind)
    const late = delays.percentile(99) / 1e6
    isGood &&= isReached
    console.log(
      `${isReached ? 'ok    ' : 'MISSED'}  ${cell.kind} at ${cell.rtt} ms and ${cell.loss} %: ${text}` +
        `${late > BUSY ? `, on a machine too busy: packets are late by ${late.toFixed(0)} ms` : ''}; ${minutes(cells.slice(i + 1))} minutes left`,
    )
  }
  comparison.stop()
  return isGood
}

if (process.argv[2] === '--receiver') await receive()
if (process.argv[2] === '--relay') process.exit((await relay(process.argv.slice(3))) ? 0 : 1)
