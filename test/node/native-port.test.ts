/** The accelerated UDP socket beside `node:dgram`, which must see the same datagrams. */
import { spawnSync } from 'node:child_process'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { parseAddress } from '../../lib/base/address.ts'
import { adopt } from '../../lib/base/external.ts'
import { ffiProblem, nativeFunction, NativeMemory } from '../../lib/base/ffi.ts'
import type { Path } from '../../lib/base/path.ts'
import type { PortOptions, Sender } from '../../lib/node/datagram-port.ts'
import { DgramPort } from '../../lib/node/dgram-port.ts'
import { NativePort } from '../../lib/node/native-port.ts'
import { Random } from '../harness/random.ts'
import { until } from '../harness/until.ts'

const problem = ffiProblem()
const skip = problem !== undefined
const suffix = skip ? ` (skipped: native functions work ${problem})` : ''
const PLAIN: PortOptions = { family: 4, ipv6Only: false, reusePort: false }
const LOOPBACK = { 4: '127.0.0.1', 6: '::1' } as const
const { EAGAIN, ECONNREFUSED, EINTR } = constants.errno

interface Heard {
  readonly bytes: Uint8Array
  readonly sender: Sender
}

/** A port with what it has told. */
interface Told<Port> {
  readonly port: Port
  readonly heard: Heard[]
  readonly errors: { readonly error: NodeJS.ErrnoException; readonly path: Path | undefined }[]
}

const make = <Port>(
  Kind: new (...args: ConstructorParameters<typeof NativePort>) => Port,
  options = PLAIN,
): Told<Port> => {
  const heard: Heard[] = []
  const errors: Told<Port>['errors'] = []
  const port = new Kind(options, {
    onMessage: (bytes, sender) => void heard.push({ bytes: bytes.slice(), sender }),
    onTaken() {},
    onRead() {},
    onError: (error, path) => void errors.push({ error, path }),
  })
  return { port, heard, errors }
}

type Opening = (port: number, address: string | undefined, done: (error?: Error) => void) => void

const opened = (port: { bind: Opening }, at = 0, address?: string): Promise<Error | undefined> =>
  new Promise(resolve => port.bind(at, address, resolve))

const connected = (
  port: { connect(port: number, address: string, done: (error?: Error) => void): void },
  to: number,
  address: string,
): Promise<Error | undefined> => new Promise(resolve => port.connect(to, address, resolve))

const pathTo = (address: string, remotePort: number): Path => ({
  socket: 0,
  localAddress: new Uint8Array(0),
  localPort: 0,
  remoteAddress: parseAddress(address)!,
  remotePort,
})

/** Octets that tell which datagram it is. */
const datagram = (length: number, number: number): Uint8Array => {
  const bytes = new Uint8Array(length).fill(number)
  bytes[0] = number >> 8
  return bytes
}

/** Sizes that come together, alone, after a shorter one, after a longer one, and one that no other fits beside. */
const SIZES = [
  ...Array.from({ length: 100 }, () => 1000),
  400,
  ...Array.from({ length: 70 }, () => 60),
  1200,
  1200,
  1,
  40_000,
  60_000,
  1300,
  1300,
]

const listener = async (family: 4 | 6): Promise<{ socket: Socket; heard: Heard[] }> => {
  const socket = createSocket({ type: `udp${family}`, recvBufferSize: 4 << 20 })
  const heard: Heard[] = []
  socket.on('message', (bytes, sender) => void heard.push({ bytes: new Uint8Array(bytes), sender }))
  socket.bind(0, LOOPBACK[family])
  await once(socket, 'listening')
  return { socket, heard }
}

for (const family of [4, 6] as const) {
  for (const isConnected of [true, false]) {
    const kind = `UDP over IPv${family}, ${isConnected ? 'connected' : 'bound'}`
    t.test(`${kind}: dgram receives what leaves together as it was${suffix}`, { skip }, async t => {
      const { socket, heard } = await listener(family)
      const { port, errors } = make(NativePort, { ...PLAIN, family })
      const to = socket.address().port
      if (isConnected) await connected(port, to, LOOPBACK[family])
      else await opened(port, 0, LOOPBACK[family])
      const path = pathTo(LOOPBACK[family], to)
      const sent = SIZES.map((length, i) => datagram(length, i + 1))
      for (const bytes of sent) {
        port.send(bytes, path)
        bytes[0]! ^= 0xff
      }
      port.flush()
      await until(() => heard.length === sent.length)
      t.ok(
        sent.every((bytes, i) => {
          bytes[0]! ^= 0xff
          return Buffer.compare(heard[i]!.bytes, bytes) === 0
        }),
      )
      const { address, port: from } = port.address()
      t.ok(heard.every(({ sender }) => sender.address === address && sender.port === from))
      t.strictSame(errors, [])
      port.close()
      socket.close()
    })
  }

  t.test(
    `UDP over IPv${family}: what the system has joined is taken apart${suffix}`,
    { skip },
    async t => {
      const receiver = make(NativePort, { ...PLAIN, family })
      await opened(receiver.port, 0, LOOPBACK[family])
      const to = receiver.port.address().port
      const others = [make(NativePort, { ...PLAIN, family }), make(DgramPort, { ...PLAIN, family })]
      for (const { port } of others) await opened(port, 0, LOOPBACK[family])
      const path = pathTo(LOOPBACK[family], to)
      for (const [n, { port }] of others.entries()) {
        SIZES.forEach((length, i) => port.send(datagram(length, 1000 * n + i), path))
        port.flush()
      }
      await until(() => receiver.heard.length === 2 * SIZES.length)
      for (const [n, { port }] of others.entries()) {
        const own = receiver.heard.filter(({ sender }) => sender.port === port.address().port)
        t.strictSame(
          own.map(({ bytes }) => bytes.length),
          SIZES,
        )
        t.ok(
          own.every(
            ({ bytes }, i) => Buffer.compare(bytes, datagram(SIZES[i]!, 1000 * n + i)) === 0,
          ),
        )
      }
      t.ok(receiver.heard.every(({ sender }) => sender.address === LOOPBACK[family]))
      for (const { port } of [receiver, ...others]) port.close()
    },
  )
}

t.test(`datagrams to several remote ends go each to its own${suffix}`, { skip }, async t => {
  const listeners = [await listener(4), await listener(4)]
  const { port } = make(NativePort)
  await opened(port)
  const paths = listeners.map(({ socket }) => pathTo('127.0.0.1', socket.address().port))
  for (let i = 0; i < 20; i++) port.send(datagram(100, i), paths[i % 2]!)
  port.flush()
  await until(() => listeners.every(({ heard }) => heard.length === 10))
  for (const [n, { heard, socket }] of listeners.entries()) {
    t.strictSame(
      heard.map(({ bytes }) => bytes[1]),
      Array.from({ length: 10 }, (_, i) => 2 * i + n),
    )
    socket.close()
  }
  port.close()
})

t.test(`a socket for both families speaks to IPv4${suffix}`, { skip }, async t => {
  const { socket, heard } = await listener(4)
  const both = make(NativePort, { ...PLAIN, family: 6 })
  await opened(both.port, 0, '::')
  both.port.send(datagram(50, 1), pathTo('127.0.0.1', socket.address().port))
  both.port.flush()
  await until(() => heard.length === 1)
  socket.send(datagram(60, 2), both.port.address().port, '127.0.0.1')
  await until(() => both.heard.length === 1)
  t.strictSame(parseAddress(both.heard[0]!.sender.address), parseAddress('::ffff:127.0.0.1'))
  both.port.close()
  const only = make(NativePort, { ...PLAIN, family: 6, ipv6Only: true })
  await opened(only.port, 0, '::')
  const other = createSocket('udp4').bind(only.port.address().port)
  await once(other, 'listening')
  t.pass('with ipv6Only the port is free for IPv4')
  other.close()
  only.port.close()
  socket.close()
})

t.test(`addresses and errors of binding are those of dgram${suffix}`, { skip }, async t => {
  for (const [family, address] of [
    [4, undefined],
    [4, '127.0.0.1'],
    [6, '::1'],
    [6, '::'],
  ] as const) {
    const kinds = [NativePort, DgramPort].map(
      Kind => make<NativePort | DgramPort>(Kind, { ...PLAIN, family }).port,
    )
    for (const port of kinds) t.equal(await opened(port, 0, address), undefined)
    const [own, dgrams] = kinds.map(port => ({ ...port.address(), port: 0 }))
    t.strictSame(own, dgrams)
    const taken = kinds[1]!.address().port
    const again = [NativePort, DgramPort].map(
      Kind => make<NativePort | DgramPort>(Kind, { ...PLAIN, family }).port,
    )
    const [error, theirs] = await Promise.all(
      again.map(port => opened(port, taken, address ?? '0.0.0.0')),
    )
    t.match(error, { code: 'EADDRINUSE', syscall: 'bind', port: taken })
    t.equal(error?.message, theirs?.message)
    t.equal((error as NodeJS.ErrnoException).errno, (theirs as NodeJS.ErrnoException).errno)
    for (const port of [...kinds, ...again]) port.close()
  }
  const { port } = make(NativePort)
  t.match(await opened(port, 0, '192.0.2.1'), { code: 'EADDRNOTAVAIL', address: '192.0.2.1' })
  port.close()
})

t.test(`with reusePort two bind one port${suffix}`, { skip }, async t => {
  const one = make(NativePort, { ...PLAIN, reusePort: true }).port
  const two = make(NativePort, { ...PLAIN, reusePort: true }).port
  await opened(one, 0, '127.0.0.1')
  t.equal(await opened(two, one.address().port, '127.0.0.1'), undefined)
  one.close()
  two.close()
})

t.test(`an ICMP refusal is reported, and costs no later datagram${suffix}`, { skip }, async t => {
  const gone = await listener(4)
  const to = gone.socket.address().port
  gone.socket.close()
  await once(gone.socket, 'close')
  const { port, errors } = make(NativePort)
  await connected(port, to, '127.0.0.1')
  const path = pathTo('127.0.0.1', to)
  port.send(datagram(100, 1), path)
  port.flush()
  await until(() => errors.length > 0)
  t.match(errors[0], { error: { code: 'ECONNREFUSED', syscall: /msg$/ }, path: undefined })
  // The second refusal lies at the descriptor when the third datagram leaves, within this tick.
  port.send(datagram(100, 2), path)
  port.flush()
  const there = createSocket('udp4')
  const heard: number[] = []
  there.on('message', bytes => void heard.push(bytes[1]!))
  there.bind(to, '127.0.0.1')
  await once(there, 'listening')
  for (const number of [3, 4]) port.send(datagram(100, number), path)
  port.flush()
  port.send(datagram(100, 5), path)
  port.flush()
  await until(() => heard.length === 3)
  t.strictSame(heard, [3, 4, 5])
  there.close()
  port.close()
})

t.test(
  `a datagram that is too large is told with its path, and the next one leaves${suffix}`,
  { skip },
  async t => {
    const { socket, heard } = await listener(4)
    const { port, errors } = make(NativePort)
    await opened(port)
    const path = pathTo('127.0.0.1', socket.address().port)
    port.send(new Uint8Array(65_508), path)
    port.send(datagram(100, 1), path)
    port.flush()
    await until(() => errors.length === 1 && heard.length === 1)
    t.equal(errors[0]!.error.code, 'EMSGSIZE')
    t.equal(errors[0]!.path, path)
    port.close()
    socket.close()
  },
)

/** What a test reaches into a port for. */
interface Inside {
  readonly fd: number
  system: {
    sendmsg(...values: (number | bigint)[]): number
    errno(): number
  }
}
const inside = (port: NativePort): Inside => port as unknown as Inside

t.test(`where the system does not cut, each datagram leaves alone${suffix}`, { skip }, async t => {
  const { socket, heard } = await listener(4)
  const { port, errors } = make(NativePort)
  await connected(port, socket.address().port, '127.0.0.1')
  const path = pathTo('127.0.0.1', socket.address().port)
  // Without checksums of UDP Linux refuses to cut (EINVAL); SOL_SOCKET 1, SO_NO_CHECK 11.
  const one = new NativeMemory(4)
  one.view.setInt32(0, 1, true)
  const setsockopt = nativeFunction('setsockopt', ['i32', 'i32', 'i32', 'pointer', 'u32'], 'i32')
  t.equal(setsockopt(inside(port).fd, 1, 11, one.pointer, 4), 0)
  let calls = 0
  const { system } = inside(port)
  inside(port).system = {
    ...system,
    sendmsg: (...values) => {
      calls++
      return system.sendmsg(...values)
    },
  }
  for (let i = 0; i < 10; i++) port.send(datagram(500, i), path)
  port.flush()
  t.equal(
    calls,
    12,
    'together, once more because something else may have been meant, and ten alone',
  )
  for (let i = 10; i < 20; i++) port.send(datagram(500, i), path)
  port.flush()
  t.equal(calls, 22, 'it has learned')
  await until(() => heard.length === 20)
  t.strictSame(
    heard.map(({ bytes }) => bytes[1]),
    Array.from({ length: 20 }, (_, i) => i),
  )
  t.strictSame(errors, [])
  port.close()
  socket.close()
})

t.test(
  `a full queue of the system loses and changes nothing, and is told${suffix}`,
  { skip },
  async t => {
    const { socket, heard } = await listener(4)
    const { port, errors } = make(NativePort)
    await connected(port, socket.address().port, '127.0.0.1')
    const path = pathTo('127.0.0.1', socket.address().port)
    const { system } = inside(port)
    const full = { ...system, sendmsg: () => -1, errno: () => EAGAIN }
    const sent: Uint8Array[] = []
    for (const length of [1000, 60_000, 20]) {
      inside(port).system = full
      const first = datagram(length, sent.length)
      port.send(first, path)
      port.flush()
      t.ok(port.isCongested)
      sent.push(first.slice())
      first.fill(0xee)
      inside(port).system = system
      await until(() => !port.isCongested)
      await until(() => heard.length === sent.length)
    }
    // The one that shows that the queue is full is not lost either.
    port.send(datagram(900, 3), path)
    inside(port).system = full
    const next = datagram(901, 4)
    port.send(next, path)
    t.ok(port.isCongested)
    sent.push(datagram(900, 3), next)
    inside(port).system = system
    await until(() => heard.length === sent.length)
    t.notOk(port.isCongested)
    t.ok(sent.every((bytes, i) => Buffer.compare(bytes, heard[i]!.bytes) === 0))
    t.strictSame(errors, [])
    port.close()
    socket.close()
  },
)

for (const seed of [1, 2, 3, 4, 5]) {
  t.test(
    `whatever the system says in between, all arrives in order (seed ${seed})${suffix}`,
    { skip },
    async t => {
      const random = new Random(seed)
      const listeners = [await listener(4), await listener(4)]
      const { port, errors } = make(NativePort)
      await opened(port)
      const paths = listeners.map(({ socket }) => pathTo('127.0.0.1', socket.address().port))
      const { system } = inside(port)
      let said: number | undefined
      let isPending = false
      inside(port).system = {
        ...system,
        sendmsg: (...values) => {
          said = undefined
          // An error of an earlier datagram stands in the way of one attempt.
          if (isPending) isPending = false
          else if (random.chance(0.2)) said = [EAGAIN, EINTR, ECONNREFUSED][random.integer(0, 2)]!
          if (said === undefined) return system.sendmsg(...values)
          isPending = said !== EAGAIN
          return -1
        },
        errno: () => said ?? system.errno(),
      }
      const sent: Uint8Array[][] = [[], []]
      const usual = random.integer(1, 1500)
      for (let number = 0; number < 1000; number++) {
        const to = random.chance(0.9) ? 0 : 1
        const other = random.chance(0.02) ? 60_000 : 1500
        const bytes = datagram(random.chance(0.8) ? usual : random.integer(1, other), number)
        await until(() => !port.isCongested)
        port.send(bytes, paths[to]!)
        sent[to]!.push(bytes)
        if (random.chance(0.05)) port.flush()
        // The kernel drops what nobody reads.
        if (number % 50 === 0) {
          port.flush()
          await until(
            () =>
              !port.isCongested &&
              listeners.every(({ heard }, n) => heard.length === sent[n]!.length),
          )
        }
      }
      port.flush()
      await until(() => listeners.every(({ heard }, n) => heard.length === sent[n]!.length))
      for (const [n, { heard, socket }] of listeners.entries()) {
        t.ok(sent[n]!.every((bytes, i) => Buffer.compare(bytes, heard[i]!.bytes) === 0))
        socket.close()
      }
      t.ok(errors.every(({ error, path }) => error.code === 'ECONNREFUSED' && path === undefined))
      t.ok(errors.length > 0)
      port.close()
    },
  )
}

t.test(`memory that somebody keeps is not received into again${suffix}`, { skip }, async t => {
  const kept: Uint8Array[] = []
  const port = new NativePort(PLAIN, {
    onMessage: bytes => void (adopt(bytes) && kept.push(bytes)),
    onTaken() {},
    onRead() {},
    onError() {},
  })
  await opened(port, 0, '127.0.0.1')
  const { socket } = await listener(4)
  for (let i = 1; i <= 3; i++) {
    socket.send(datagram(60_000, i), port.address().port, '127.0.0.1')
    await until(() => kept.length === i)
  }
  t.ok(kept.every((bytes, i) => Buffer.compare(bytes, datagram(60_000, i + 1)) === 0))
  socket.close()
  port.close()
})

t.test(`of a datagram before nothing is left in what is kept${suffix}`, { skip }, async t => {
  const heard: Uint8Array[] = []
  const port = new NativePort(PLAIN, {
    // The first one is only read.
    onMessage: bytes => void (heard.length > 0 && adopt(bytes), heard.push(bytes)),
    onTaken() {},
    onRead() {},
    onError() {},
  })
  await opened(port, 0, '127.0.0.1')
  const { socket } = await listener(4)
  for (const [i, length] of [65_000, 60_000].entries()) {
    socket.send(Buffer.alloc(length, 0xff), port.address().port, '127.0.0.1')
    await until(() => heard.length === i + 1)
  }
  const kept = new Uint8Array(heard[1]!.buffer)
  t.ok(kept.subarray(0, 60_000).every(octet => octet === 0xff))
  t.ok(kept.subarray(60_000).every(octet => octet === 0))
  socket.close()
  port.close()
})

t.test(
  `a port that is closed gives its descriptor back and is silent${suffix}`,
  { skip },
  async t => {
    const descriptors = (): number => readdirSync('/proc/self/fd').length
    const warm = make(NativePort).port
    await opened(warm)
    warm.close()
    const before = descriptors()
    const { socket } = await listener(4)
    const ports = Array.from({ length: 50 }, () => make(NativePort))
    for (const { port } of ports) await opened(port, 0, '127.0.0.1')
    for (const { port } of ports) socket.send('late', port.address().port, '127.0.0.1')
    for (const { port } of ports) port.close()
    await new Promise(resolve => setTimeout(resolve, 50))
    t.ok(ports.every(({ heard, errors }) => heard.length === 0 && errors.length === 0))
    socket.close()
    await once(socket, 'close')
    t.equal(descriptors(), before)
  },
)

t.test(
  `a port holds its process while it is referred to, and a process ends in peace${suffix}`,
  { skip },
  t => {
    const module = join(import.meta.dirname, '..', '..', 'lib', 'node', 'native-port.js')
    const run = (then: string): { status: number | null; stdout: string; stderr: string } => {
      const program = `
      import { NativePort } from ${JSON.stringify(module)}
      const events = { onMessage: bytes => console.log('heard', bytes.length), onTaken() {}, onRead() {}, onError: console.log }
      const port = new NativePort({ family: 4, ipv6Only: false, reusePort: false }, events)
      const send = () => {
        const { port: remotePort } = port.address()
        port.send(new Uint8Array(7), { remoteAddress: Uint8Array.of(127, 0, 0, 1), remotePort })
        port.flush()
      }
      port.bind(0, '127.0.0.1', () => { ${then} })`
      const flags = ['--no-warnings', '--input-type=module', '-e', program]
      return spawnSync(process.execPath, flags, { encoding: 'utf8', timeout: 60_000 })
    }
    const quiet = { status: 0, stderr: '' }
    t.match(run('port.unref()'), { ...quiet, stdout: '' }, 'unref')
    t.match(run('port.unref(); send()'), quiet, 'unref, with a datagram that nobody reads')
    t.match(
      run('setTimeout(send, 200); setTimeout(() => port.close(), 600)'),
      { ...quiet, stdout: 'heard 7\n' },
      'ref',
    )
    t.match(run('send(); process.exit()'), quiet, 'exit in the middle')
    t.match(run('send(); port.close()'), { ...quiet, stdout: '' }, 'closed')
    t.end()
  },
)
