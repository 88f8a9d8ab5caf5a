/**
 * One script, run over `net` and over ours: what a program sees must be the same. Ports differ from run to
 * run and stand as PORT.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { createSocket } from 'node:dgram'
import dns, { type LookupAddress } from 'node:dns'
import domain from 'node:domain'
import { EventEmitter, once } from 'node:events'
import http from 'node:http'
import * as net from 'node:net'
import diagnostics from 'node:diagnostics_channel'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Connector, type ConnectionAttempt } from '../../lib/api/connector.ts'
import { parseConnect } from '../../lib/api/options.ts'
import * as drop from '../../lib/net.ts'

const psk = 'a pre-shared key for these tests'

/** What a script may use; `net` and ours behind the same names. */
interface Rig {
  readonly isOurs: boolean
  readonly log: unknown[]
  readonly server: net.Server
  readonly port: number
  /** Towards the server, unless the options say otherwise. */
  connect(options?: object): net.Socket
  /** Not connected. */
  socket(options?: object): net.Socket
  /** Puts what can be compared into the log. */
  note(...facts: unknown[]): void
  watch(socket: net.Socket, ...events: string[]): void
}

type Script = (rig: Rig) => Promise<void>
interface Setting {
  readonly server?: object
  readonly onConnection?: (socket: net.Socket, rig: Rig) => void
}

const plain = (port: number, ikePort: number, fact: unknown): unknown => {
  if (fact instanceof Error) {
    const { name, message, code, syscall, errno, address, errors } = fact as Error & {
      code?: unknown
      syscall?: unknown
      errno?: unknown
      address?: unknown
      errors?: unknown[]
    }
    const inner = errors?.map(error => plain(port, ikePort, error))
    const words = plain(port, ikePort, message)
    return { name, words, code, syscall, errno, address, inner }
  }
  if (typeof fact === 'string')
    return fact.replaceAll(`:${port}`, ':PORT').replaceAll(`:${ikePort}`, ':PORT')
  return fact === port || fact === ikePort ? 'PORT' : fact
}

const run = async (isOurs: boolean, setting: Setting, script: Script): Promise<unknown[]> => {
  const log: unknown[] = []
  const security = isOurs ? { psk } : {}
  const options = { ...security, ...(isOurs ? { ikePort: 0 } : {}), ...setting.server }
  const server = (
    isOurs ? drop.createServer(options) : net.createServer(options as net.ServerOpts)
  ) as net.Server
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  const { ikePort = -1 } = server as { ikePort?: number }
  const client = { ...security, ...(isOurs ? { ikePort } : {}) }
  const rig: Rig = {
    isOurs,
    log,
    server,
    port,
    connect: more => {
      // A busy machine is no silent one.
      const patient = { autoSelectFamilyAttemptTimeout: 10_000 }
      const all = { host: '127.0.0.1', port, ...patient, ...client, ...more }
      return isOurs ? drop.connect(all) : net.connect(all)
    },
    socket: more => (isOurs ? drop.Socket({ ...client, ...more }) : new net.Socket(more)),
    note: (...facts) => void log.push(facts.map(fact => plain(port, ikePort, fact))),
    watch: (socket, ...events) => {
      for (const event of events)
        socket.on(event, (...facts: unknown[]) => rig.note(event, ...facts))
    },
  }
  server.on('connection', socket => {
    socket.on('error', () => {})
    setting.onConnection?.(socket, rig)
  })
  await script(rig)
  if (server.listening) {
    server.close()
    await closed(server)
  }
  return log
}

const same = (name: string, setting: Setting, script: Script): void => {
  t.test(name, async (t: Test) => {
    const theirs = await run(false, setting, script)
    const ours = await run(true, setting, script)
    t.ok(theirs.length > 0)
    t.strictSame(ours, theirs)
  })
}

/** Unlike `once`, also when there is an error. */
const closed = (emitter: EventEmitter): Promise<void> =>
  new Promise(resolve => void emitter.once('close', () => resolve()))
const EVENTS = ['connect', 'ready', 'end', 'finish', 'error', 'close'] as const
const ATTEMPTS = [
  'lookup',
  'connectionAttempt',
  'connectionAttemptFailed',
  'connectionAttemptTimeout',
] as const
const addresses =
  (...found: LookupAddress[]) =>
  (_host: string, options: { all?: boolean }, callback: (...answer: never[]) => void): void => {
    const answer = options.all ? [null, found] : [null, found[0]!.address, found[0]!.family]
    process.nextTick(callback, ...(answer as never[]))
  }
const V6 = { address: '::1', family: 6 }
const V4 = { address: '127.0.0.1', family: 4 }
const echo = (socket: net.Socket): void => void socket.pipe(socket)

same(
  'a reset after the end is no error before something is written',
  { onConnection: socket => void socket.destroy() },
  async rig => {
    const socket = rig.connect({ allowHalfOpen: true })
    rig.watch(socket, 'connect', 'end', 'finish', 'error', 'close')
    socket.resume()
    await once(socket, 'end')
    await new Promise<void>(resolve => socket.write('a', error => resolve(rig.note('a', error))))
    // Until the reset is there.
    for (let turns = 0; turns < 20; turns++) await delay(5)
    rig.note(socket.destroyed, socket.writable)
    socket.write('b', error => rig.note('b', error))
    await closed(socket)
  },
)

same(
  'what a program sets of a server holds for the next connections',
  {
    onConnection: (socket, rig) => {
      rig.note(socket.allowHalfOpen, socket.isPaused())
      socket.on('end', () => setTimeout(() => socket.end('late'), 10)).resume()
    },
  },
  async rig => {
    const open = rig.server as net.Server & Record<string, unknown>
    const names = ['allowHalfOpen', 'pauseOnConnect', 'noDelay', 'keepAlive']
    rig.note(...names.map(name => open[name]))
    for (const value of [true, false])
      for (const name of names) {
        open[name] = value
        const socket = rig.connect()
        socket.on('data', data => rig.note(name, value, String(data)))
        await once(socket, 'connect')
        socket.end()
        await closed(socket)
      }
  },
)

same('a server that listens again at once tells that it was closed', {}, async rig => {
  rig.server.on('listening', () => rig.note('listening'))
  const listening = once(rig.server, 'listening')
  const told = closed(rig.server)
  rig.server.close(error => rig.note('closed', error))
  rig.server.listen(0, '127.0.0.1')
  await Promise.all([told, listening])
  rig.log.sort()
  rig.note(rig.server.listening)
})

same('arguments that net has put in order', {}, async rig => {
  const { _normalizeArgs } = (rig.isOurs ? drop.default : net) as never as {
    _normalizeArgs(args: unknown[]): [net.NetConnectOpts, () => void]
  }
  const socket = rig.socket()
  rig.watch(socket, 'connect', 'close')
  const told = (): void => rig.note('listener')
  socket.connect(..._normalizeArgs([rig.port, '127.0.0.1', told]))
  await once(socket, 'ready')
  socket.destroy()
  await closed(socket)
  socket.connect(_normalizeArgs([rig.port, '127.0.0.1', told]) as never)
  await once(socket, 'ready')
  socket.destroy()
  await closed(socket)
})

same(
  'what a peer has written comes after the immediates that a listener for connections sets',
  {
    onConnection: (socket, rig) => {
      socket.on('data', data => rig.note(String(data))).on('end', () => rig.note('end'))
      setImmediate(() => rig.note('immediate'))
      void Promise.resolve().then(() => setImmediate(() => rig.note('immediate of a microtask')))
    },
  },
  async rig => {
    for (const isEarly of [true, false]) {
      const socket = rig.connect().resume()
      if (isEarly) socket.end('with the handshake')
      else socket.on('connect', () => socket.end('after it'))
      await closed(socket)
    }
  },
)

/** `connect` has no say in them. */
for (const [name, options] of Object.entries({
  'an encoding': { encoding: 'utf8' },
  'no encoding': { encoding: null },
  'an empty encoding': { encoding: '' },
  'no reading': { readable: false },
  'no writing': { writable: false },
  'no writing, half open': { writable: false, allowHalfOpen: true },
  'neither reading nor writing': { readable: false, writable: false },
  'what is not quite false': { readable: 0, writable: null },
}))
  same(`what a socket is made with: ${name}`, {}, async rig => {
    for (const socket of [rig.socket(options), rig.socket()]) {
      const state = (): void => {
        const { readable, writable, readableEnded, writableFinished, destroyed } = socket
        const { readyState, readableEncoding } = socket
        rig.note(readable, writable, readableEnded, writableFinished, destroyed)
        rig.note(readyState, readableEncoding)
      }
      rig.watch(socket, 'connect', 'ready', 'finish', 'error', 'close')
      state()
      const accepted = once(rig.server, 'connection')
      socket.connect({ host: '127.0.0.1', port: rig.port, ...(options as object) })
      state()
      const [peer] = (await accepted) as [net.Socket]
      if (socket.connecting) await once(socket, 'connect')
      if (socket.readable) {
        peer.write('a')
        socket.on('data', data => rig.note(typeof data, String(data)))
        await once(socket, 'data')
      }
      state()
      rig.note(socket.write('b', error => rig.note('written', error)))
      if (socket.writableFinished) await closed(socket)
      else {
        await once(peer, 'data')
        socket.destroy()
        await closed(socket)
      }
      state()
    }
  })

same('one address: the attempt is told, and nothing is listed', {}, async rig => {
  const socket = rig.connect()
  rig.watch(socket, ...ATTEMPTS, 'connect', 'ready', 'close')
  await once(socket, 'ready')
  rig.note(socket.autoSelectFamilyAttemptedAddresses)
  socket.destroy()
  await closed(socket)
})

same('two families: the first refuses, the second answers', {}, async rig => {
  const socket = rig.connect({ host: 'both.test', lookup: addresses(V6, V4, V4) })
  rig.watch(socket, 'lookup', 'connectionAttempt', 'connectionAttemptTimeout', ...EVENTS)
  socket.on('connectionAttemptFailed', (address, port, family, error) =>
    rig.note('failed', address, port, family, (error as NodeJS.ErrnoException).code),
  )
  await once(socket, 'ready')
  rig.note(socket.autoSelectFamilyAttemptedAddresses.length, socket.remoteAddress)
  socket.destroy()
  await closed(socket)
})

same('all addresses refuse: an AggregateError under the code of the first', {}, async rig => {
  rig.server.close()
  await closed(rig.server)
  const lookup = addresses(V6, V4, { address: '127.0.0.2', family: 4 })
  const socket = rig.connect({ host: 'both.test', lookup })
  rig.watch(socket, 'connectionAttempt', 'connect', 'error', 'close')
  await closed(socket)
  rig.note(socket.autoSelectFamilyAttemptedAddresses.join())
})

same('a family, and autoSelectFamily: false, ask for one address only', {}, async rig => {
  for (const options of [{ family: 4 }, { autoSelectFamily: false }]) {
    const asked: unknown[] = []
    const lookup = (_host: string, { all, family }: never, callback: never): void => {
      asked.push(Boolean(all), family)
      process.nextTick(callback, null, '127.0.0.1', 4)
    }
    const socket = rig.connect({ host: 'both.test', lookup, ...options })
    rig.watch(socket, ...ATTEMPTS)
    await once(socket, 'ready')
    rig.note(...asked.slice(0, 1), socket.autoSelectFamilyAttemptedAddresses)
    socket.destroy()
    await closed(socket)
  }
})

same('look-ups that fail or give nothing usable', {}, async rig => {
  const failure = Object.assign(new Error('no such name'), { code: 'ENOTFOUND' })
  const answers: unknown[][] = [
    [failure],
    [null, [{ address: 'x', family: 4 }]],
    [null, [{ address: '127.0.0.1', family: 100 }]],
  ]
  for (const answer of answers) {
    const lookup = (_host: string, _options: object, callback: (...all: unknown[]) => void): void =>
      process.nextTick(callback, ...answer)
    const socket = rig.connect({ host: 'a.test', lookup })
    rig.watch(socket, 'lookup', 'close')
    socket.on('error', error => rig.note(error.name, (error as NodeJS.ErrnoException).code))
    await closed(socket)
  }
})

same('a refused service', {}, async rig => {
  const socket = rig.connect({ port: 1 })
  rig.watch(socket, ...EVENTS)
  await closed(socket)
})

same('addresses that are blocked', { server: {} }, async rig => {
  const blockList = new net.BlockList()
  blockList.addAddress('127.0.0.1')
  if (!('blockList' in new net.Socket({ blockList } as object)))
    // This Node's net knows no such option yet: ours alone then.
    return rig.note('ERR_IP_BLOCKED')
  const socket = rig.connect({ blockList })
  rig.note(((await once(socket, 'error')) as [NodeJS.ErrnoException])[0].code)
})

same("after the peer's end a write is EPIPE", { onConnection: s => s.end('x') }, async rig => {
  const socket = rig.connect()
  socket.resume()
  socket.on('error', error => rig.note(error))
  socket.on('end', () => {
    rig.note('writable at end', socket.writable)
    // The stream ends our half in the next tick.
    process.nextTick(() =>
      process.nextTick(() => rig.note(socket.write('late', error => rig.note('callback', error)))),
    )
  })
  await closed(socket)
})

same('never connected: write, end, reset, address', {}, async rig => {
  const written = rig.socket()
  rig.watch(written, 'error', 'finish', 'end')
  rig.note(written.pending, written.connecting, written.readyState, written.address())
  written.write('x', error => rig.note('callback', error))
  await closed(written)
  const reset = rig.socket()
  rig.watch(reset, 'error')
  reset.resetAndDestroy()
  await closed(reset)
})

same('destroyed while it connects', {}, async rig => {
  const socket = rig.connect()
  rig.watch(socket, ...EVENTS)
  let code: unknown
  socket.write('x', error => (code = (error as NodeJS.ErrnoException).code))
  rig.note(socket.bytesWritten, socket.readyState)
  socket.destroy()
  await closed(socket)
  rig.note(code)
  rig.note(socket.bytesWritten, socket.destroyed, socket.readyState, socket.connecting)
})

same('reset while it connects, and by the peer', {}, async rig => {
  const accepted = once(rig.server, 'connection')
  const socket = rig.connect()
  rig.watch(socket, ...EVENTS)
  socket.resetAndDestroy()
  await closed(socket)
  const [peer] = (await accepted) as [net.Socket]
  if (!peer.destroyed) await closed(peer)
  const other = once(rig.server, 'connection')
  const victim = rig.connect()
  rig.watch(victim, ...EVENTS)
  await once(victim, 'ready')
  ;((await other) as [net.Socket])[0].resetAndDestroy()
  await closed(victim)
})

same('the same object connects again after close', { onConnection: echo }, async rig => {
  const socket = rig.socket()
  // Between our own ends the answer may come with the SYN-ACK, and so before 'finish'.
  rig.watch(socket, ...EVENTS.filter(event => event !== 'finish'))
  const target = { host: '127.0.0.1', port: rig.port }
  for (let i = 0; i < 3; i++) {
    socket.connect(target, () => rig.note('listener'))
    socket.end('hello')
    socket.once('data', data => rig.note(String(data)))
    await closed(socket)
    rig.note(socket.bytesRead, socket.bytesWritten, socket.destroyed, socket.writableFinished)
  }
})

same('counters while octets wait', { server: { pauseOnConnect: true } }, async rig => {
  const accepted = once(rig.server, 'connection')
  const socket = rig.connect()
  socket.on('error', () => {})
  socket.write('12345')
  socket.write('678')
  rig.note(socket.bytesWritten, socket.writableLength, socket.bufferSize)
  await once(socket, 'ready')
  for (let i = 0; i < 300; i++) socket.write(Buffer.alloc(100_000))
  rig.note(socket.bytesWritten, socket.writableLength > 0)
  const [peer] = (await accepted) as [net.Socket]
  rig.note(peer.isPaused(), peer.bytesRead)
  let read = 0
  peer.on('data', data => (read += data.length))
  peer.resume()
  socket.end()
  await once(peer, 'end')
  rig.note(read, peer.bytesRead, socket.bytesWritten)
})

same('half open, when it is allowed', { server: { allowHalfOpen: true } }, async rig => {
  const accepted = once(rig.server, 'connection')
  const socket = rig.connect({ allowHalfOpen: true })
  rig.watch(socket, ...EVENTS)
  socket.resume().end()
  const [peer] = (await accepted) as [net.Socket]
  await once(peer.resume(), 'end')
  rig.note(peer.readyState, peer.writable)
  peer.end('after your end')
  await closed(socket)
  rig.note(socket.bytesRead)
})

same('onread: the program’s own buffer, and pausing by false', {}, async rig => {
  const accepted = once(rig.server, 'connection')
  let buffers = 0
  let pieces: string[] = []
  const onread = {
    buffer: () => {
      buffers++
      return new Uint8Array(4)
    },
    callback: (count: number, buffer: Uint8Array) => {
      pieces.push(String(Buffer.from(buffer.subarray(0, count))))
      return pieces.length !== 2
    },
  }
  const socket = rig.connect({ onread })
  socket.on('data', () => rig.note('data must not come'))
  const [peer] = (await accepted) as [net.Socket]
  peer.end('abcdefghijkl')
  while (pieces.length < 2) await new Promise(setImmediate)
  await new Promise(resolve => setTimeout(resolve, 20))
  rig.note(pieces, buffers >= 2)
  pieces = pieces.slice(0, 1)
  pieces.push('-', '-')
  socket.resume()
  await once(socket, 'end')
  rig.note(pieces, socket.bytesRead)
})

same('maxConnections and drop; getConnections', {}, async rig => {
  rig.server.maxConnections = 1
  rig.server.on('drop', facts => {
    const { remotePort, ...rest } = facts!
    rig.note('drop', rest.localAddress, rest.localFamily, rest.remoteFamily, typeof remotePort)
  })
  const first = rig.connect()
  await once(first, 'ready')
  const second = rig.connect()
  second.on('error', () => {})
  await closed(second.resume())
  await new Promise<void>(resolve =>
    rig.server.getConnections((error, count) => {
      rig.note(error, count)
      resolve()
    }),
  )
  first.destroy()
  await closed(first)
})

same('close: order, callbacks, twice, and of one that never listened', {}, async rig => {
  const accepted = once(rig.server, 'connection')
  const socket = rig.connect()
  await once(socket, 'ready')
  await accepted
  rig.server.on('close', () => rig.note('close'))
  rig.note(rig.server.close(error => rig.note('first', error)) === rig.server)
  rig.note(rig.server.listening, rig.server.address())
  rig.server.close(error => rig.note('second', (error as NodeJS.ErrnoException).code))
  socket.destroy()
  await closed(rig.server)
  rig.server.close(error => rig.note('third', (error as NodeJS.ErrnoException).code))
  await closed(rig.server)
  await rig.server[Symbol.asyncDispose]()
  rig.server.listen(0, '127.0.0.1')
  await once(rig.server, 'listening')
  await rig.server[Symbol.asyncDispose]()
  rig.note(rig.server.listening)
})

same('what listen refuses', {}, async rig => {
  rig.note(codeOf(() => rig.server.listen(0)))
  await new Promise<void>(resolve => void rig.server.close(() => resolve()))
  for (const wrong of [{}, true, -1, 70000, '70000', { port: 'x' }, { port: -1 }]) {
    rig.note(codeOf(() => rig.server.listen(wrong as never)))
  }
  rig.note(codeOf(() => rig.server.listen({ port: 0, signal: 'x' as never })))
  const signal = AbortSignal.abort()
  rig.server.listen({ port: 0, host: 'localhost', signal })
  await closed(rig.server)
  const controller = new AbortController()
  rig.server.listen({ port: 0, host: '127.0.0.1', signal: controller.signal })
  await once(rig.server, 'listening')
  controller.abort()
  await closed(rig.server)
  rig.note(rig.server.listening)
})

same('what connect refuses', {}, async rig => {
  const wrong: object[] = [
    { port: 70000 },
    { port: 'x' },
    { port: undefined },
    { host: 5 },
    { localAddress: 'x' },
    { lookup: 5, host: 'a.test' },
    { autoSelectFamily: 5 },
    { autoSelectFamilyAttemptTimeout: 'x' },
    { signal: 5 },
  ]
  for (const options of wrong) {
    rig.note(
      Object.keys(options),
      codeOf(() => rig.connect(options)),
    )
  }
  const socket = rig.socket()
  rig.note(
    codeOf(() => (socket.connect as unknown as () => void)()),
    codeOf(() => socket.setTimeout('x' as never)),
    codeOf(() => socket.setTimeout(-1)),
  )
})

t.test('what is no listener has no effect at a server, as with net', t => {
  const wrong = 'no listener' as never
  for (const server of [drop.createServer({ psk }, wrong), net.createServer({}, wrong)])
    t.equal(server.listenerCount('connection'), 0)
  t.end()
})

same('the asynchronous context is that of connect and of listen', {}, async rig => {
  const storage = new AsyncLocalStorage<string>()
  const note = (event: string): void => rig.note(event, storage.getStore())
  await new Promise<void>(resolve => void rig.server.close(() => resolve()))
  storage.run('server', () => {
    rig.server.listen(rig.port, '127.0.0.1')
  })
  await once(rig.server, 'listening')
  const order = new EventEmitter()
  const both = Promise.all([once(order, 'over'), once(order, 'peer')])
  rig.server.on('connection', peer => {
    note('connection')
    // Its events are of no context, whatever there is when it is told of.
    storage.run('told', () => {
      peer.on('data', () => {
        note('question')
        peer.write('answer')
        storage.run('ending', () => peer.end(() => note('ended')))
      })
    })
    for (const event of ['end', 'close']) peer.on(event, () => note(`peer ${event}`))
    peer.on('close', () => order.emit('peer'))
  })
  storage.run('client', () => {
    const { ikePort } = rig.server as { ikePort?: number }
    const socket = rig.connect(ikePort === undefined ? {} : { ikePort })
    for (const event of ['connect', 'data', 'end', 'close']) socket.on(event, () => note(event))
    socket.on('close', () => order.emit('over'))
    socket.write('question', () => note('written'))
  })
  await both
  await new Promise<void>(resolve =>
    storage.run('closing', () => {
      rig.server.close(() => {
        note('server closed')
        resolve()
      })
    }),
  )
  rig.log.sort()
})

same('the asynchronous context of a time-out is that of setTimeout', {}, async rig => {
  const storage = new AsyncLocalStorage<string>()
  const socket = storage.run('client', () => rig.connect())
  storage.run('timer', () => socket.setTimeout(10, () => rig.note('timeout', storage.getStore())))
  await once(socket, 'timeout')
  socket.destroy()
})

t.test('a local (IPC) path is refused by name, and beside a port is none', t => {
  for (const call of [
    () => drop.connect('/run/app.sock'),
    () => drop.connect({ path: '/run/app.sock' }),
  ])
    t.throws(call, { code: 'ERR_INVALID_ARG_VALUE', message: /path/ })
  const options = { path: '/index.html', port: 80, host: '127.0.0.1', psk }
  const socket = drop.connect(options as never)
  t.equal(socket.connecting, true)
  socket.destroy()
  t.end()
})

same('captured rejections end the socket', {}, async rig => {
  const before = EventEmitter.captureRejections
  EventEmitter.captureRejections = true
  const server = (
    rig.isOurs ? new drop.Server({ psk, ikePort: 0 }) : new net.Server()
  ) as net.Server
  EventEmitter.captureRejections = before
  server.on('connection', (async (socket: net.Socket) => {
    socket.on('error', error => rig.note(error.message))
    throw new Error('from the listener')
  }) as never)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { ikePort } = server as { ikePort?: number }
  const { port } = server.address() as net.AddressInfo
  const socket = rig.connect({ port, ...(rig.isOurs ? { ikePort } : {}) })
  socket.on('error', () => {})
  await closed(socket.resume())
  server.close()
  await closed(server)
})

same('the option captureRejections of a socket', { onConnection: echo }, async rig => {
  const socket = rig.connect({ captureRejections: true })
  socket.on('error', error => rig.note(error.message))
  const listener: (...facts: unknown[]) => unknown = () =>
    Promise.reject(new Error('from the listener'))
  socket.on('data', listener)
  socket.write('x')
  await closed(socket)
})

same('a reader that throws has what follows', { onConnection: echo }, async rig => {
  const realm = domain.create()
  const socket = rig.connect()
  realm.add(socket)
  const caught = once(realm, 'error')
  socket.once('data', () => {
    throw new Error('from the listener')
  })
  socket.write('first')
  rig.note(((await caught)[0] as Error).message)
  socket.on('data', data => rig.note(String(data)))
  socket.end('second')
  await closed(socket)
})

for (const max of [0, -1, null, 1]) {
  same(`maxConnections ${max}`, {}, async rig => {
    Object.assign(rig.server, { maxConnections: max })
    rig.server.on('drop', () => rig.note('drop'))
    rig.server.on('connection', peer => {
      rig.note('connection')
      peer.end()
    })
    await closed(
      rig
        .connect()
        .on('error', () => {})
        .resume(),
    )
  })
}

same('the callback of close is a listener of the server', {}, async rig => {
  await new Promise<void>(resolve => {
    rig.server.close(function (this: unknown, ...facts) {
      rig.note(this === rig.server, facts.length)
      resolve()
    })
  })
  const { prototype } = rig.isOurs ? drop.Server : net.Server
  rig.note(Reflect.get(prototype, '_connections'))
})

same('a time-out is set by net.connect, and by no constructor', {}, async rig => {
  const socket = rig.socket({ timeout: 5 })
  rig.note(socket.timeout)
  const other = rig.connect({ timeout: 5000 })
  rig.note(other.timeout)
  await once(other, 'connect')
  other.destroy()
  await closed(other)
})

same('diagnostics channels', {}, async rig => {
  const names = [
    'net.client.socket',
    'net.server.socket',
    'tracing:net.server.listen:asyncStart',
    'tracing:net.server.listen:asyncEnd',
  ]
  const seen: string[] = []
  const listeners = names.map(name => {
    const listener = (): void => void seen.push(name)
    diagnostics.subscribe(name, listener)
    return () => diagnostics.unsubscribe(name, listener)
  })
  const accepted = once(rig.server, 'connection')
  const socket = rig.connect()
  await Promise.all([once(socket, 'ready'), accepted])
  const server = (
    rig.isOurs ? drop.createServer({ psk, ikePort: 0 }) : net.createServer()
  ) as net.Server
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  for (const stop of listeners) stop()
  socket.destroy()
  server.close()
  await closed(server)
  rig.note(seen.sort())
})

same('a prototype may be looked at, and _handle', {}, async rig => {
  const prototype = (rig.isOurs ? drop.Socket : net.Socket).prototype
  for (const name of ['bytesWritten', 'localAddress', 'remotePort', 'readyState', 'pending']) {
    rig.note(name, typeof prototype[name as keyof typeof prototype] !== 'function')
  }
  rig.note((rig.socket() as { _handle?: unknown })._handle)
  rig.note(rig.socket() instanceof (rig.isOurs ? drop.Socket : net.Socket))
})

same('connecting while connecting is a mistake that costs the socket', {}, async rig => {
  const socket = rig.connect()
  socket.on('error', error => {
    const { code, syscall } = error as NodeJS.ErrnoException
    rig.note(code, syscall)
  })
  socket.connect({ host: '127.0.0.1', port: rig.port })
  await closed(socket)
  rig.note(socket.destroyed)
})

same('connecting once connected changes nothing', { onConnection: echo }, async rig => {
  const socket = rig.connect()
  await once(socket, 'connect')
  socket.connect({ host: '127.0.0.1', port: rig.port }, () => rig.note('again'))
  rig.note(socket.connecting)
  await once(socket, 'ready')
  rig.note(socket.connecting)
  socket.end('x')
  rig.note(String((await once(socket, 'data'))[0]))
  await closed(socket)
})

same('a local address that is not ours, and a local port that is used', {}, async rig => {
  const first = rig.connect({ localAddress: '127.0.0.1' })
  await once(first, 'connect')
  for (const options of [
    { localAddress: '192.0.2.77' },
    { localAddress: '127.0.0.1', localPort: rig.port },
  ]) {
    const socket = rig.connect(options)
    socket.on('connect', () => rig.note('connect'))
    socket.on('error', error => {
      const { code, syscall, address } = error as NodeJS.ErrnoException & { address?: string }
      rig.note(code, syscall, address, socket.connecting)
    })
    await closed(socket)
  }
  first.destroy()
  await closed(first)
})

same('a look-up that answers at once fails when its caller can listen', {}, async rig => {
  const failure = Object.assign(new Error('no such name'), { code: 'ENOTFOUND' })
  const lookup = (_host: string, _options: object, callback: (error: Error) => void): void =>
    callback(failure)
  // http listens for the socket's errors in the tick after it asked for one.
  const createConnection = (): net.Socket => rig.connect({ host: 'a.test', lookup })
  const request = http.get({ host: 'a.test', createConnection })
  const [error] = (await once(request, 'error')) as [Error]
  rig.note(error.message)
})

same("dns.lookup is the one that is there when it's needed", {}, async rig => {
  const { lookup } = dns
  Object.assign(dns, {
    lookup: (host: string, options: { all?: boolean }, callback: (...all: unknown[]) => void) => {
      rig.note('asked for', host)
      process.nextTick(callback, null, options.all ? [V4] : V4.address, 4)
    },
  })
  try {
    const socket = rig.connect({ host: 'patched.test' })
    await once(socket, 'connect')
    socket.destroy()
    await closed(socket)
  } finally {
    Object.assign(dns, { lookup })
  }
})

const REFUSE = { onConnection: (socket: net.Socket) => void socket.resume() }
same('one connection too many is closed, not reset', REFUSE, async rig => {
  rig.server.maxConnections = 1
  let drops = 0
  rig.server.on('drop', () => drops++)
  const first = rig.connect()
  await once(first, 'connect')
  const second = rig.connect()
  rig.watch(second, 'connect', 'end', 'error', 'close')
  second.resume()
  await closed(second)
  rig.note('drops', drops)
  first.destroy()
  await closed(first)
})

const ENDED = {
  onConnection: (socket: net.Socket, rig: Rig) => {
    rig.note('there', socket.remoteAddress, socket.remoteFamily)
    socket.on('close', () => rig.note('gone', socket.remoteAddress, socket.remoteFamily))
    socket.resume().end()
  },
}
same("the peer's address that was read once is there in 'close'", ENDED, async rig => {
  const socket = rig.connect()
  await once(socket, 'connect')
  const { remoteAddress, remotePort, remoteFamily } = socket
  socket.resume()
  await closed(socket)
  rig.note(
    socket.remoteAddress === remoteAddress,
    socket.remotePort === remotePort,
    socket.remoteFamily === remoteFamily,
  )
  await new Promise(resolve => setTimeout(resolve, 50))
})

same(
  'onread has one buffer ahead, and pauses',
  {
    onConnection: socket => void socket.end(Buffer.from('hello world'.repeat(8))),
  },
  async rig => {
    const given: Uint8Array[] = []
    const got: Uint8Array[] = []
    const socket = rig.connect({
      onread: {
        buffer: () => given[given.push(Buffer.alloc(32)) - 1],
        callback: (size: number, buffer: Uint8Array) => {
          rig.note(size, buffer === given.at(-1))
          got.push(buffer.slice(0, size))
          if (got.length !== 1) return true
          setTimeout(() => {
            rig.note('paused at', got.length)
            socket.resume()
          }, 100)
          return false
        },
      },
    })
    socket.on('data', () => rig.note('data'))
    await closed(socket)
    rig.note(Buffer.concat(got).toString(), given.length)
  },
)

same('options that nobody knows have no effect', {}, async rig => {
  const socket = rig.connect({ foo: 1, readableHighWaterMark: 10, hash: '#x', pathname: '/' })
  await once(socket, 'connect')
  rig.note(typeof rig.socket({ foo: 1 }))
  socket.destroy()
  await closed(socket)
})

same('arguments of the wrong kind are refused with the errors of net', {}, async rig => {
  const connect = (options: object) => () =>
    rig
      .connect(options)
      .on('error', () => {})
      .destroy()
  const calls: Record<string, () => unknown> = {
    host: connect({ host: 3 }),
    'port null': connect({ port: null }),
    'port true': connect({ port: true }),
    'port {}': connect({ port: {} }),
    'port -1': connect({ port: -1 }),
    'port x': connect({ port: 'x' }),
    'lookup, with an address': connect({ lookup: 'x' }),
    'lookup, with a name': connect({ host: 'localhost', lookup: 'x' }),
    localPort: connect({ localPort: 'x' }),
    hints: connect({ host: 'localhost', hints: 1234567 }),
    objectMode: () => rig.socket({ objectMode: true }),
    signal: () => rig.socket({ signal: 3 }),
    setTimeout: () => rig.socket().setTimeout('100' as never),
    'setTimeout -1': () => rig.socket().setTimeout(-1),
    'setTimeout callback': () => rig.socket().setTimeout(1, 'x' as never),
    listen: () => rig.server.listen(-1),
    getConnections: () => rig.server.getConnections(undefined as never),
  }
  for (const [name, call] of Object.entries(calls)) {
    try {
      call()
      rig.note(name, 'nothing thrown')
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      rig.note(name, code, error instanceof TypeError, error instanceof RangeError)
    }
  }
})

same('what frameworks take for HTTPS is said only when asked for', {}, async rig => {
  const socket = rig.connect()
  rig.note(Boolean((socket as { encrypted?: boolean }).encrypted))
  await once(socket, 'connect')
  socket.destroy()
  await closed(socket)
})

const codeOf = (run: () => unknown): string => {
  try {
    run()
  } catch (error) {
    const kind = [TypeError, RangeError].find(each => error instanceof each)?.name
    return `${kind ?? 'Error'} ${(error as NodeJS.ErrnoException).code}`
  }
  return 'nothing thrown'
}

t.test('an address that does not answer is left for the next', async t => {
  const server = drop.createServer({ psk, ikePort: 0 })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const silent = createSocket('udp4').bind(server.ikePort, '127.0.0.2')
  await once(silent, 'listening')
  const lookup = addresses({ address: '127.0.0.2', family: 4 }, V4) as never
  const socket = drop.connect({
    host: 'two.test',
    port: server.address()!.port,
    ikePort: server.ikePort,
    psk,
    lookup,
    autoSelectFamilyAttemptTimeout: 10,
  })
  const events: string[] = []
  for (const event of ['connectionAttempt', 'connectionAttemptTimeout', 'connect'] as const) {
    socket.on(event, (address?: string) => events.push(`${event} ${address}`))
  }
  await once(socket, 'connect')
  t.strictSame(events, [
    'connectionAttempt 127.0.0.2',
    'connectionAttemptTimeout 127.0.0.2',
    'connectionAttempt 127.0.0.1',
    'connect undefined',
  ])
  socket.destroy()
  silent.close()
  server.close()
  await closed(server)
})

t.test('an address that keeps answering is not left, however slow IKE is', async t => {
  const events: string[] = []
  let answers = 0
  const settings = parseConnect(
    {
      host: 'two.test',
      port: 1,
      psk,
      autoSelectFamilyAttemptTimeout: 10,
      retransmit: { initial: 10 },
      lookup: addresses({ address: '192.0.2.1', family: 4 }, V4) as never,
    },
    true,
  )
  await new Promise<void>(resolve => {
    const trial = (outer: string): ConnectionAttempt => ({
      get heard() {
        if (answers < 4 && outer === '192.0.2.1') events.push('answer')
        return Math.min(answers++, 4)
      },
      isLive: false,
      cancel: () => void events.push(`given up ${outer}`),
    })
    const connector = new Connector(settings, {
      emit: event => void (event === 'lookup' || events.push(event)),
      bindMistake: () => undefined,
      open: (_inner, outer) => {
        if (outer === '127.0.0.1') resolve()
        return trial(outer)
      },
      isLive: () => false,
      fail: () => events.push('failed'),
    })
    connector.start()
  })
  const upTo = events.indexOf('connectionAttemptTimeout')
  t.ok(events.slice(0, upTo).filter(event => event === 'answer').length >= 4)
  t.equal(events.at(-1), 'connectionAttempt')
  t.notOk(events.includes('failed'))
})

t.test('a server that refuses an address gives it no connection', async t => {
  const blockList = new net.BlockList()
  blockList.addAddress('127.0.0.1')
  const server = drop.createServer({ psk, ikePort: 0, blockList }, () => t.fail('let in'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { ikePort } = server
  // The address that a client gives itself inside the tunnel does not help it.
  for (const inner of [{}, { mode: 'tunnel', localTs: '10.0.0.1' } as const]) {
    const { port } = server.address()!
    const socket = drop.connect({ host: '127.0.0.1', port, ikePort, psk, ...inner })
    socket.resume().on('error', error => t.fail(error.message))
    // As with net: it is closed, and that is no fault of the network.
    t.strictSame(await once(socket, 'close'), [false])
  }
  server.close()
  await closed(server)
})

/** What a call throws. */
const thrown = (call: () => unknown): unknown => {
  try {
    call()
    return 'nothing'
  } catch (error) {
    return error
  }
}

same('arguments that are wrong are refused with the same words', {}, async rig => {
  const connect = rig.isOurs ? (drop.connect as unknown as typeof net.connect) : net.connect
  const serve = rig.isOurs
    ? (drop.createServer as unknown as typeof net.createServer)
    : net.createServer
  const calls: (() => unknown)[] = [
    () => connect(undefined as never),
    () => connect({} as never),
    () => rig.socket({ objectMode: true }),
    () => rig.socket({ readableObjectMode: true }),
    () => rig.connect({ host: 'a.test', hints: 98 }),
    () => rig.connect({ autoSelectFamilyAttemptTimeout: -10 }),
    () => rig.connect({ autoSelectFamilyAttemptTimeout: 1.5 }),
    () => serve('path' as never),
    () => serve(0 as never),
  ]
  for (const call of calls) {
    const { name, code, message = '' } = thrown(call) as NodeJS.ErrnoException
    // Of values out of range the words of net differ from Node to Node.
    rig.note(name, code, code === 'ERR_OUT_OF_RANGE' ? '' : message.replace('[ERR', 'ERR'))
  }
})

same('a server has its address within listen()', {}, async rig => {
  const server = (
    rig.isOurs ? drop.createServer({ psk, ikePort: 0 }) : net.createServer()
  ) as net.Server & { _connectionKey?: string }
  server.listen(0)
  const { address, family, port } = server.address() as net.AddressInfo
  rig.note(address, family, port > 0, server.listening, server._connectionKey)
  server.on('listening', () =>
    rig.note('listening', (server.address() as net.AddressInfo).port === port),
  )
  await once(server, 'listening')
  server.close()
  rig.note(server.address(), server.listening)
  await closed(server)
})

same(
  'a refused connection names the service, and the local end that was asked for',
  {},
  async rig => {
    const free = createSocket('udp4').bind(0, '127.0.0.1')
    await once(free, 'listening')
    const { port } = free.address()
    free.close()
    await once(free, 'close')
    for (const localPort of [undefined, port]) {
      const local = localPort === undefined ? {} : { localAddress: '127.0.0.1', localPort }
      const socket = rig.connect({ port: 1, ikePort: port, ...local })
      const [error] = (await once(socket, 'error')) as [
        NodeJS.ErrnoException & { localPort?: number },
      ]
      rig.note(error.message.replace(`:${localPort}`, ''), error.code, error.syscall)
      rig.note(error.localPort === localPort)
    }
  },
)

same('prototypes have no counts, and a destroyed socket no timeout', {}, async rig => {
  const prototype = Object.getPrototypeOf(rig.socket()) as net.Socket
  rig.note(prototype.bytesRead, prototype.bytesWritten)
  const socket = rig.connect()
  await once(socket, 'connect')
  socket.destroy()
  rig.note(socket.setTimeout(1, () => rig.note('timeout')) === socket, socket.timeout)
  await closed(socket)
})

same(
  'the callback of onread is called as a method of the socket',
  { onConnection: socket => socket.end('octets') },
  async rig => {
    let self: unknown
    const buffer = Buffer.alloc(10)
    const callback = function (this: unknown): boolean {
      self = this
      return true
    }
    const socket = rig.connect({ onread: { buffer, callback } })
    await closed(socket)
    rig.note(self === socket)
  },
)

same('a server listens again while an old connection is open', {}, async rig => {
  const { server } = rig
  const first = rig.connect()
  await waitFor(async () => (await countOf(server)) === 1)
  let ends = 0
  server.on('close', () => ends++)
  server.close()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const before = server.address() as net.AddressInfo
  rig.note(server.listening, await countOf(server))
  first.destroy()
  await waitFor(async () => (await countOf(server)) === 0)
  const { ikePort } = server as { ikePort?: number }
  const second = rig.connect({ port: before.port, ...(ikePort === undefined ? {} : { ikePort }) })
  await once(second, 'connect')
  second.destroy()
  server.close()
  await closed(server)
  rig.note('closed', ends)
})

const countOf = (server: net.Server): Promise<number> =>
  new Promise(resolve => void server.getConnections((_error, count) => resolve(count)))
const waitFor = async (holds: () => Promise<boolean>): Promise<void> => {
  while (!(await holds())) await delay(5)
}

same(
  'an accepted socket shows no listener of its server',
  { onConnection: (s, rig) => noteListeners(s, rig) },
  async rig => {
    const socket = rig.connect()
    await once(socket, 'connect')
    await waitFor(async () => rig.log.length > 0)
    socket.destroy()
    await closed(socket)
  },
)

const noteListeners = (socket: net.Socket, rig: Rig): void => {
  for (const event of ['close', 'end', 'data', 'drain', 'timeout', 'finish', 'connect'])
    rig.note(event, socket.listenerCount(event))
}

same('each half of the stream may have a high water mark of its own', {}, async rig => {
  const socket = rig.connect({ readableHighWaterMark: 1000, writableHighWaterMark: 2000 })
  rig.note(socket.readableHighWaterMark, socket.writableHighWaterMark)
  socket.destroy()
  await closed(socket)
})

same('what only tls knows is ignored, and what a wrapper calls is there', {}, async rig => {
  const socket = rig.connect({ rejectUnauthorized: false, requestCert: false })
  await once(socket, 'connect')
  ;(socket as unknown as { _unrefTimer(): void })._unrefTimer()
  rig.note('connected')
  socket.destroy()
  await closed(socket)
})

t.test('a host is not cut at a null byte', t => {
  t.throws(() => drop.connect({ port: 1, host: '127.0.0.1\0.test', psk }), {
    code: 'ERR_INVALID_ARG_VALUE',
    name: 'TypeError',
  })
  t.end()
})
