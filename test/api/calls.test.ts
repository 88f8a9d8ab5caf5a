/**
 * A table of calls with odd arguments, each run on `net` and on ours, in each state of a socket: what is returned or
 * thrown, by its code, and the events that follow, in their order, must be the same.
 */
import { once } from 'node:events'
import * as net from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import t from 'tap'
import * as drop from '../../lib/net.ts'

const psk = 'a pre-shared key for these tests'
const EVENTS = ['connect', 'ready', 'data', 'end', 'finish', 'drain', 'error', 'close', 'lookup']

interface Rig {
  readonly lib: typeof net
  readonly server: net.Server
  /** The server's ends of the connections. */
  readonly peers: readonly net.Socket[]
  readonly security: object
  readonly log: unknown[]
}

type Call = (socket: net.Socket, note: (...facts: unknown[]) => void, rig: Rig) => unknown

const plain = (fact: unknown): unknown => {
  if (fact instanceof Error) {
    const { code, syscall, address } = fact as NodeJS.ErrnoException & { address?: string }
    return { kind: fact instanceof TypeError, code, syscall, address }
  }
  if (Buffer.isBuffer(fact)) return String(fact)
  if (typeof fact === 'number' && fact > 1023) return 'a port'
  return typeof fact === 'object' && fact !== null ? 'an object' : fact
}

/** Of a turn or more: both ends are in this process, and what is on its way takes several. */
const settled = async (socket: net.Socket): Promise<void> => {
  if (socket.connecting)
    await new Promise<void>(resolve => {
      for (const event of ['connect', 'close']) socket.once(event, () => resolve())
    })
  if (!socket.destroyed) socket.destroy()
  for (let i = 0; i < 10; i++) await turn()
}

const rigOf = async (isOurs: boolean): Promise<Rig> => {
  const lib = (isOurs ? drop : net) as unknown as typeof net
  const server = lib.createServer((isOurs ? { psk, ikePort: 0 } : {}) as net.ServerOpts)
  const peers: net.Socket[] = []
  server.on('connection', socket => peers.push(socket.on('error', () => {}).resume()))
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { ikePort } = server as { ikePort?: number }
  return { lib, server, peers, security: isOurs ? { psk, ikePort } : {}, log: [] }
}

const placeOf = (rig: Rig): object => ({
  host: '127.0.0.1',
  port: (rig.server.address() as net.AddressInfo).port,
})

const connect = (rig: Rig, options: object = {}): net.Socket =>
  rig.lib.connect({ ...placeOf(rig), ...rig.security, ...options } as net.NetConnectOpts)

const connected = async (rig: Rig): Promise<net.Socket> => {
  const socket = connect(rig)
  await once(socket, 'ready')
  while (rig.peers.length === 0) await turn()
  return socket
}

const STATES: Record<string, (rig: Rig) => net.Socket | Promise<net.Socket>> = {
  fresh: ({ lib, security }) => new lib.Socket(security),
  connecting: connect,
  connected,
  destroyed: async rig => (await connected(rig)).destroy(),
  closed: async rig => {
    const socket = (await connected(rig)).destroy()
    await once(socket, 'close')
    return socket
  },
}

const any = (value: unknown): never => value as never

const CALLS: Record<string, Call> = {
  'facts before': socket => {
    const { connecting, pending, readyState, bufferSize, bytesWritten, timeout } = socket
    return [connecting, pending, readyState, bufferSize, bytesWritten, timeout].join()
  },
  "setTimeout('1')": socket => socket.setTimeout(any('1')),
  'setTimeout(-1)': socket => socket.setTimeout(-1),
  'setTimeout(NaN)': socket => socket.setTimeout(NaN),
  "setTimeout(1e5, 'x')": socket => socket.setTimeout(1e5, any('x')),
  'setTimeout(null)': socket => socket.setTimeout(any(null)),
  'setKeepAlive(null)': socket => socket.setKeepAlive(any(null)) === socket,
  "setKeepAlive(true, 'x')": socket => socket.setKeepAlive(true, any('x')) === socket,
  "setNoDelay('x')": socket => socket.setNoDelay(any('x')) === socket,
  resetAndDestroy: socket => socket.resetAndDestroy() === socket,
  'reset twice': socket => socket.resetAndDestroy().resetAndDestroy() === socket,
  destroy: socket => socket.destroy() === socket,
  'destroy with an error': socket => socket.destroy(new RangeError('mine')) === socket,
  'destroy twice': socket => {
    socket.destroy(new TypeError('first'))
    socket.destroy(new Error('second'))
  },
  'end(5)': socket => socket.end(any(5)),
  'write(null)': socket => socket.write(any(null)),
  'write(5)': socket => socket.write(any(5)),
  "write('x', 'bogus')": socket => socket.write('x', any('bogus')),
  write: (socket, note) => socket.write('x', error => note('written', error)),
  'write nothing': (socket, note) => socket.write('', error => note('written', error)),
  'write, destroy': (socket, note) => {
    socket.write('a', error => note('a', error))
    socket.write('b', error => note('b', error))
    socket.destroy()
  },
  'write, destroy with an error': (socket, note) => {
    socket.write('a', error => note('a', error))
    socket.destroy(new RangeError('mine'))
  },
  'write, reset': (socket, note) => {
    socket.write('a', error => note('a', error))
    socket.resetAndDestroy()
  },
  'destroy, then all else': (socket, note) => {
    socket.destroy()
    note(socket.write('x', error => note('written', error)))
    socket.end(() => note('ended'))
    note(socket.resetAndDestroy() === socket)
  },
  'write, destroy, and what was written': (socket, note) => {
    socket.write('abc')
    socket.write('de')
    socket.destroy()
    note(socket.bytesWritten)
  },
  "setEncoding('bogus')": socket => socket.setEncoding(any('bogus')),
  'destroy in connect': socket => void socket.on('connect', () => socket.destroy()),
}

/** Of a socket that has, or is to have, a connection: before, Node 20 lets an end wait for one, and newer ones do not. */
const ENDS: Record<string, Call> = {
  end: (socket, note) => {
    socket.end(() => note('ended'))
    process.nextTick(() => process.nextTick(() => note('ticks')))
    queueMicrotask(() => note('microtask'))
  },
  'end, destroy': (socket, note) => {
    socket.end('x', (error?: Error) => note('ended', error))
    socket.destroy()
  },
  'end, destroy in a tick': (socket, note) => {
    socket.end('x', (error?: Error) => note('ended', error))
    process.nextTick(() => socket.destroy())
  },
  'end, destroy in a microtask': (socket, note) => {
    socket.end((error?: Error) => note('ended', error))
    queueMicrotask(() => socket.destroy())
  },
  'end, write': (socket, note) => {
    socket.end('x')
    note(socket.write('y', error => note('written', error)))
  },
  'end twice': (socket, note) => {
    socket.end((error?: Error) => note('first', error))
    socket.end((error?: Error) => note('second', error))
  },
  destroySoon: (socket, note) => {
    socket.write('x', error => note('written', error))
    socket.destroySoon()
  },
  'destroySoon, destroy': socket => {
    socket.destroySoon()
    socket.destroy()
  },
  'destroySoon, destroy with an error': socket => {
    socket.destroySoon()
    socket.destroy(new RangeError('mine'))
  },
  'destroy in finish': socket => {
    socket.once('finish', () => socket.destroy())
    socket.end()
  },
}

/** Over the place of the server. */
const OPTIONS: Record<string, object> = {
  'port in text': { port: '80' },
  "port ''": { port: '' },
  'port null': { port: null },
  'port undefined': { port: undefined },
  'port -1': { port: -1 },
  'port {}': { port: {} },
  'port 70000': { port: 70000 },
  'port 0': { port: 0 },
  'host null': { host: null },
  'host false': { host: false },
  'host 5': { host: 5 },
  'family 7': { host: 'localhost', family: 7 },
  "family 'x' of an address": { family: 'x' },
  "hints 'x'": { host: 'localhost', hints: 'x' },
  'hints 99999': { host: 'localhost', hints: 99999 },
  'hints 99999 of an address': { hints: 99999 },
  'localPort -1': { localPort: -1 },
  "localPort 'x'": { localPort: 'x' },
  'localPort 65536': { localPort: 65_536 },
  'localPort 1.5': { localPort: 1.5 },
  'localPort Infinity': { localPort: Infinity },
  "localPort ''": { localPort: '' },
  'localPort NaN': { localPort: NaN },
  'localPort null': { localPort: null },
  "localAddress 'x'": { localAddress: 'x' },
  "localAddress ''": { localAddress: '' },
  'localAddress 5': { localAddress: 5 },
  'localAddress null': { localAddress: null },
  'localAddress of another family': { localAddress: '::1' },
  'localAddress of all zeros': { localAddress: '0.0.0.0' },
  'localAddress of another host': { localAddress: '192.0.2.7' },
  'lookup 5': { host: 'a.test', lookup: 5 },
  'lookup null': { lookup: null },
  'lookup that throws': {
    host: 'a.test',
    lookup: () => {
      throw new RangeError('mine')
    },
  },
  'lookup that answers at once': {
    host: 'a.test',
    lookup: (_host: string, { all }: { all?: boolean }, done: (...answer: unknown[]) => void) =>
      done(null, ...(all ? [[{ address: '127.0.0.1', family: 4 }]] : ['127.0.0.1', 4])),
  },
  'lookup that finds no address': {
    host: 'a.test',
    lookup: (_host: string, { all }: { all?: boolean }, done: (...answer: unknown[]) => void) =>
      done(null, ...(all ? [[{ address: 'x', family: 4 }]] : ['x', 4])),
  },
  "autoSelectFamily 'x'": { autoSelectFamily: 'x' },
  'autoSelectFamily null': { autoSelectFamily: null },
  'autoSelectFamilyAttemptTimeout 0': { autoSelectFamilyAttemptTimeout: 0 },
  'autoSelectFamilyAttemptTimeout null': { autoSelectFamilyAttemptTimeout: null },
  "keepAliveInitialDelay 'x'": { keepAliveInitialDelay: 'x' },
  "timeout 'x'": { timeout: 'x' },
  'timeout 0': { timeout: 0 },
  "signal 'x'": { signal: 'x' },
  "encoding 'utf8'": { encoding: 'utf8' },
  "encoding 'bogus'": { encoding: 'bogus' },
  'encoding 5': { encoding: 5 },
  'readable false': { readable: false },
  'writable false': { writable: false },
  'objectMode true': { objectMode: true },
  "onread 'x'": { onread: 'x' },
  // Not in Node 20.
  ...('setTypeOfService' in net.Socket.prototype && {
    'typeOfService 256': { typeOfService: 256 },
    'typeOfService NaN': { typeOfService: NaN },
    "typeOfService 'x'": { typeOfService: 'x' },
    'typeOfService null': { typeOfService: null },
    'typeOfService 16': { typeOfService: 16 },
  }),
}

const LISTENS: Record<string, unknown[]> = {
  nothing: [],
  undefined: [undefined],
  "'0'": ['0'],
  "'0x0'": ['0x0'],
  "' 0.0 '": [' 0.0 '],
  "'1.5'": ['1.5'],
  "'70000'": ['70000'],
  "' '": [' '],
  '-1': [-1],
  '1.5': [1.5],
  NaN: [NaN],
  '70000': [70000],
  true: [true],
  '{}': [{}],
  '{ port: -1 }': [{ port: -1 }],
  "{ port: 'x' }": [{ port: 'x' }],
  '{ port: null }': [{ port: null }],
  "{ host: '127.0.0.1', port: 0 }": [{ host: '127.0.0.1', port: 0 }],
  "{ port: 0, signal: 'x' }": [{ port: 0, signal: 'x' }],
  'port, backlog': [0, 5],
  'port, host, backlog': [0, '127.0.0.1', 5],
  'port, null, backlog': [0, null, 5],
  null: [null],
  '{ port: 0, host: null }': [{ port: 0, host: null }],
  "{ port: 0, backlog: 'x' }": [{ port: 0, backlog: 'x' }],
  'a symbol': [Symbol('x')],
  'port, undefined, undefined': [0, undefined, undefined],
  'an address of another host': [0, '192.0.2.7'],
}

const watch = (emitter: NodeJS.EventEmitter, log: unknown[], events: readonly string[]): void => {
  for (const event of events)
    emitter.on(event, (...facts: unknown[]) => log.push([event, ...facts.map(plain)]))
}

const attempt = async (log: unknown[], call: () => unknown): Promise<boolean> => {
  try {
    log.push(['returned', plain(await call())])
    return true
  } catch (error) {
    log.push(['threw', plain(error)])
    return false
  }
}

const same = async (name: string, run: (rig: Rig) => Promise<void>): Promise<void> => {
  const logs: unknown[][] = []
  for (const isOurs of [true, false]) {
    const rig = await rigOf(isOurs)
    await run(rig)
    for (const peer of rig.peers) peer.destroy()
    rig.server.close()
    logs.push(rig.log)
  }
  t.strictSame(logs[0], logs[1], name)
}

for (const [state, make] of Object.entries(STATES)) {
  t.test(`calls of a socket that is ${state}`, async () => {
    for (const [name, call] of Object.entries({ ...CALLS, ...(state === 'fresh' ? {} : ENDS) }))
      await same(`${state}: ${name}`, async rig => {
        const socket = await make(rig)
        watch(socket, rig.log, EVENTS)
        await attempt(rig.log, () =>
          call(socket, (...facts) => void rig.log.push(facts.map(plain)), rig),
        )
        if (name in ENDS && !socket.closed)
          await new Promise<void>(resolve => socket.once('close', () => resolve()))
        await settled(socket)
        const { timeout, readyState, errored, bytesWritten } = socket
        rig.log.push([timeout, readyState, errored?.message, bytesWritten])
      })
  })
}

t.test('options of connect', async () => {
  for (const [name, options] of Object.entries(OPTIONS)) {
    await same(`net.connect: ${name}`, async rig => {
      let socket: net.Socket | undefined
      await attempt(rig.log, () => {
        socket = connect(rig, options)
        watch(socket, rig.log, EVENTS)
      })
      if (socket !== undefined) await settled(socket)
    })
    await same(`socket.connect: ${name}`, async rig => {
      const socket = new rig.lib.Socket(rig.security)
      const isOk = await attempt(
        rig.log,
        () => socket.connect(any({ ...placeOf(rig), ...options })) === socket,
      )
      // What net does with a socket whose connect() threw is of no use to anyone.
      if (isOk) watch(socket, rig.log, EVENTS)
      else socket.on('error', () => {})
      await settled(socket.connecting && !isOk ? socket.destroy() : socket)
    })
  }
})

t.test('overloads of listen', async () => {
  for (const [name, args] of Object.entries(LISTENS))
    await same(`listen ${name}`, async ({ lib, security, log }) => {
      const server = lib.createServer(
        ('psk' in security ? { psk, ikePort: 0 } : {}) as net.ServerOpts,
      )
      const heard = new Promise<void>(resolve => {
        for (const event of ['listening', 'error']) server.once(event, () => resolve())
      })
      watch(server, log, ['listening', 'close', 'error'])
      if (!(await attempt(log, () => server.listen(...(args as [])) === server))) return
      await heard
      log.push([server.listening, plain(server.address())])
      if (server.listening) await new Promise(resolve => server.close(resolve))
    })
})
