/** One UDP port for the workers of a cluster, and for the threads of a process. */
import { spawnSync } from 'node:child_process'
import cluster, { type Worker as Process } from 'node:cluster'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import net from 'node:net'
import { join } from 'node:path'
import { Worker as Thread } from 'node:worker_threads'
import t, { type Test } from 'tap'
import { noReusePort } from '../../lib/api/options.ts'
import { reusePortProblem } from '../../lib/base/supported-node.ts'
import { addresseeOf } from '../../lib/core/addressee.ts'
import {
  createEndpoint,
  createSecureServer,
  createSecureSocket,
  type SecureSocket,
} from '../../lib/index.ts'
import { Claims, lockPlace, meetingPlace } from '../../lib/node/meeting-place.ts'
import { PortBorrower, PortOwner } from '../../lib/node/port-group.ts'
import type { Carrier } from '../../lib/node/udp-socket.ts'
import type { PortWorkerData } from '../harness/port-worker.ts'
import { until } from '../harness/until.ts'

const psk = 'a pre-shared key for these tests'
const host = '127.0.0.1'
const file = new URL('../harness/port-worker.js', import.meta.url)
const PORT = 8080

const freeUdpPort = async (): Promise<number> => {
  const socket = createSocket('udp4').bind(0, host)
  await once(socket, 'listening')
  const { port } = socket.address()
  await new Promise<void>(resolve => socket.close(resolve))
  return port
}

/** Client by client, each with a session of its own. */
let clients = 0
/** An open connection, and who has it. */
const dial = async (ikePort: number): Promise<{ socket: SecureSocket; name: string }> => {
  const localId = `client${clients++}.test`
  const socket = createSecureSocket({ host, port: PORT, ikePort, psk, localId })
  const [data] = (await once(socket, 'data')) as [Buffer]
  return { socket, name: String(data) }
}
/** Connections until each of these has one. */
const dialAll = async (
  ikePort: number,
  names: readonly string[],
): Promise<ReadonlyMap<string, SecureSocket>> => {
  const found = new Map<string, SecureSocket>()
  for (let i = 0; i < 40 && found.size < names.length; i++) {
    const { socket, name } = await dial(ikePort)
    if (found.has(name)) socket.destroy()
    else found.set(name, socket)
  }
  return found
}
/** It comes back whole. */
const echoes = (socket: SecureSocket, octets: number): Promise<boolean> =>
  new Promise((resolve, reject) => {
    let left = octets
    const count = (data: Buffer): void => {
      left -= data.length
      if (left > 0) return
      socket.removeListener('data', count).removeListener('error', reject)
      resolve(left === 0)
    }
    socket.on('data', count).on('error', reject).write(Buffer.alloc(octets, 'x'))
  })

/** Workers of this process's cluster on that UDP port. */
const fork = async (name: string, options: object): Promise<Process> => {
  const worker = cluster.fork({ PORT_WORKER: JSON.stringify({ name, port: PORT, options }) })
  const [said] = (await once(worker, 'message')) as [string]
  if (said !== 'listening') throw new Error(said)
  return worker
}

/** What the test expects of workers, whoever binds the port. */
const expectOfWorkers = async (
  t: Test,
  [owner, ...others]: readonly Process[],
  port: number,
): Promise<void> => {
  const names = ['a', 'b', 'c'].slice(0, 1 + others.length)
  const found = await dialAll(port, names)
  t.strictSame([...found.keys()].sort(), names, 'all get clients')
  for (const [name, socket] of found) t.ok(await echoes(socket, 60_000), name)
  const lost = once(found.get('a')!, 'error')
  owner!.process.kill('SIGKILL')
  for (const name of names.slice(1)) {
    t.ok(await echoes(found.get(name)!, 20_000), `connections of ${name} go on`)
  }
  const { socket, name } = await dial(port)
  t.ok(names.slice(1).includes(name), 'new clients are served')
  // The peer of an SA that is lost learns it when it sends something.
  found.get('a')!.write('x')
  t.match(await lost, [{ code: 'ECONNRESET' }])
  for (const end of [...found.values(), socket]) end.destroy()
  for (const other of others) {
    other.kill()
    await once(other, 'exit')
  }
}

/**
 * Before a port on the loopback: a NAT that sends all but the first message of a client from eight ports by turns, so that
 * the system spreads one SA over all sockets that are bound there.
 */
const shiftingNat = async (t: Test, to: number): Promise<number> => {
  const front = createSocket('udp4').bind(0, host)
  await once(front, 'listening')
  const clients = new Map<number, Socket[]>()
  const backsOf = (client: number): Socket[] => {
    const known = clients.get(client)
    if (known !== undefined) return known
    const backs = Array.from({ length: 8 }, () =>
      createSocket('udp4').on('message', bytes => front.send(bytes, client, host)),
    )
    clients.set(client, backs)
    return backs
  }
  let turn = 0
  front.on('message', (bytes, { port }) => {
    // Behind the non-ESP marker: IKE_SA_INIT (RFC 7296 §3.1).
    const isFirst = bytes.readUInt32BE(0) === 0 && bytes[22] === 34
    backsOf(port)[isFirst ? 0 : turn++ % 8]!.send(bytes, to, host)
  })
  t.teardown(() => {
    for (const socket of [front, ...[...clients.values()].flat()]) socket.close()
  })
  return front.address().port
}

/** How many UDP sockets have that port. */
const boundSockets = (port: number): number => {
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')} `
  const lines = readFileSync('/proc/net/udp', 'utf8').split('\n')
  return lines.filter(line => line.slice(0, 25).includes(local)).length
}

t.test(
  'workers of a cluster share a port; when its owner is killed, another one has it',
  async t => {
    const ikePort = await freeUdpPort()
    cluster.setupPrimary({ exec: file.pathname })
    const workers = [await fork('a', { psk, ikePort }), await fork('b', { psk, ikePort })]
    await expectOfWorkers(t, workers, ikePort)
  },
)

const skip = noReusePort === undefined ? false : `reusePort works ${noReusePort}`

t.test(
  'with reusePort each worker binds the port; what arrives at the wrong one gets to the SA, also when the one in the middle is killed',
  { skip },
  async t => {
    const ikePort = await freeUdpPort()
    cluster.setupPrimary({ exec: file.pathname })
    // Every client must return a cookie.
    const options = { psk, ikePort, reusePort: true, cookieThreshold: 0 }
    const workers = [await fork('a', options)]
    // Together: only one of them may be in the middle.
    workers.push(...(await Promise.all(['b', 'c'].map(name => fork(name, options)))))
    t.equal(boundSockets(ikePort), 3)
    await expectOfWorkers(t, workers, await shiftingNat(t, ikePort))
  },
)

t.test('threads with reusePort bind the port, too', { skip }, async t => {
  const ikePort = await freeUdpPort()
  const start = async (name: string): Promise<Thread> => {
    const options = { psk, ikePort, reusePort: true }
    const thread = new Thread(file, { workerData: { name, port: PORT, options } })
    t.strictSame(await once(thread, 'message'), ['listening'])
    return thread
  }
  const server = createSecureServer({ psk, ikePort }, socket => {
    socket.write('main')
    socket.pipe(socket)
  })
  // As a program for net has it.
  server.listen({ port: PORT, host, reusePort: true })
  await once(server, 'listening')
  const threads = [await start('one'), await start('two')]
  t.equal(boundSockets(ikePort), 3)
  const nat = await shiftingNat(t, ikePort)
  const found = await dialAll(nat, ['main', 'one', 'two'])
  t.equal(found.size, 3)
  for (const [name, socket] of found) t.ok(await echoes(socket, 60_000), name)
  // One with other options could take what is ours.
  const thread = new Thread(file, {
    workerData: { name: 'x', port: PORT, options: { psk: `${psk}!`, ikePort, reusePort: true } },
  })
  t.match(await once(thread, 'message'), [/^EADDRINUSE: .*UDP port .*createEndpoint/])
  await thread.terminate()
  t.equal(boundSockets(ikePort), 3)
  for (const socket of found.values()) socket.destroy()
  await new Promise(resolve => void server.close(resolve))
  const { socket, name } = await dial(nat)
  t.ok(['one', 'two'].includes(name), 'the others go on')
  socket.destroy()
  await Promise.all(threads.map(thread => thread.terminate()))
})

t.test('a Node or system that cannot bind a port twice refuses reusePort with what it needs', t => {
  t.equal(reusePortProblem('22.12.0', 'linux'), undefined)
  t.equal(reusePortProblem('26.1.0', 'freebsd'), undefined)
  for (const version of ['20.20.2', '22.11.0', '23.0.0']) {
    t.match(reusePortProblem(version, 'linux'), new RegExp(`22.12, 23.1 .* Node ${version}`))
  }
  t.match(reusePortProblem('26.1.0', 'darwin'), /Linux.* not darwin/)
  if (noReusePort !== undefined) {
    const wanted = { code: 'ERR_INVALID_ARG_VALUE', message: /reusePort.*Node 22\.12/ }
    t.throws(() => createSecureServer({ psk, reusePort: true }), wanted)
    t.throws(() => createEndpoint({ psk, reusePort: true }), wanted)
  }
  t.doesNotThrow(() => createSecureServer({ psk, reusePort: false }))
  const options = { psk, reusePort: 1 as unknown as true }
  t.throws(() => createSecureServer(options), { message: /reusePort/ })
  t.end()
})

/** As if its owner had died long ago. */
const makeStale = (path: string): void => {
  const [name] = readdirSync(`${path}.lock`)
  renameSync(join(`${path}.lock`, name!), join(`${path}.lock`, `1-${name!}`))
}

t.test('only one at a time may found a group, and a lock whose owner died is no obstacle', t => {
  const path = join(t.testdir(), 'place')
  const unlock = lockPlace(path)
  t.type(unlock, 'function')
  t.equal(lockPlace(path), undefined)
  unlock!()
  const again = lockPlace(path)
  t.type(again, 'function')
  makeStale(path)
  const stolen = lockPlace(path)
  t.type(stolen, 'function')
  again!()
  t.equal(lockPlace(path), undefined, 'whom it was taken from gives nothing back')
  stolen!()
  stolen!()
  t.type(lockPlace(path), 'function')
  t.strictSame(readdirSync(join(path, '..')), ['place.lock'])
  t.throws(() => lockPlace(join(path, 'nowhere', 'place')), { code: 'ENOENT' })
  t.end()
})

t.test(
  'of many threads that find a stale lock, or none yet, at one time a single one gets it',
  async t => {
    const folder = t.testdir()
    const THREADS = 4
    const ROUNDS = 150
    // How many have come to the line, the round that is open, and how many got the lock in it.
    const shared = new Int32Array(new SharedArrayBuffer(12))
    const code = `
const { parentPort, workerData } = require('node:worker_threads')
const { folder, rounds, shared, place } = workerData
import(place).then(({ lockPlace }) => {
  for (let round = 1; round <= rounds; round++) {
    Atomics.add(shared, 0, 1)
    while (Atomics.load(shared, 1) < round);
    if (lockPlace(folder + '/' + (round % 2 === 0 ? round : 'stale'))) Atomics.add(shared, 2, 1)
  }
  Atomics.add(shared, 0, 1)
})`
    const place = new URL('../../lib/node/meeting-place.js', import.meta.url).href
    const threads = Array.from(
      { length: THREADS },
      () => new Thread(code, { eval: true, workerData: { folder, rounds: ROUNDS, shared, place } }),
    )
    const arrived = async (count: number): Promise<void> => {
      while (Atomics.load(shared, 0) < count) await new Promise(resolve => setImmediate(resolve))
    }
    lockPlace(join(folder, 'stale'))
    let wrong = 0
    for (let round = 1; round <= ROUNDS; round++) {
      await arrived(round * THREADS)
      if (round > 1 && Atomics.exchange(shared, 2, 0) !== 1) wrong++
      makeStale(join(folder, 'stale'))
      Atomics.store(shared, 1, round)
    }
    await arrived((ROUNDS + 1) * THREADS)
    t.equal(wrong, 0)
    t.equal(Atomics.load(shared, 2), 1)
    await Promise.all(threads.map(thread => thread.terminate()))
  },
)

t.test('a group that is founded again reuses the mark of no living member', async t => {
  const place = { addresses: [host], port: 2, ipv6Only: false, reusePort: true }
  const path = meetingPlace(place)
  const claims = new Claims(path)
  t.teardown(() => rmSync(`${path}.marks`, { recursive: true, force: true }))
  const lender = { print: () => '', sockets: [], has: () => false, receive: () => undefined }
  const found = (): Promise<PortOwner> =>
    new Promise((resolve, reject) =>
      PortOwner.found(place, lender, undefined, founded =>
        founded instanceof PortOwner ? resolve(founded) : reject(founded),
      ),
    )
  const gone = spawnSync(process.execPath, ['-e', '']).pid
  // Of 255 marks two are free: one that nobody ever had, and one of a process that is gone.
  for (let mark = 1; mark <= 255; mark++) {
    if (mark !== 100) claims.take(mark, mark === 200 ? gone : process.pid)
  }
  const owner = await found()
  t.ok([100, 200].includes(owner.mark), String(owner.mark))
  const join = (wanted: number | undefined): Promise<PortBorrower> =>
    new Promise(resolve => {
      const hello = { print: '', mark: wanted, pid: process.pid }
      PortBorrower.join(place, hello, { onDatagram() {}, onLost() {} }, joined =>
        resolve(joined as PortBorrower),
      )
    })
  const other = await join(undefined)
  t.equal(other.mark, owner.mark === 100 ? 200 : 100, 'nor does it give one away')
  t.equal((await join(7)).mark, 7, 'who has it gets it again')
  owner.close()
  t.notOk(claims.isTaken(owner.mark), 'its own is free')
  t.ok(claims.isTaken(other.mark), 'and that of a member is not')
  const next = await found()
  t.equal(next.mark, owner.mark)
  next.close()
})

t.test('threads share a port with the main thread, in either order of start', async t => {
  const ikePort = await freeUdpPort()
  const options = { psk, ikePort }
  const start = async (name: string, more: object = {}): Promise<[Thread, unknown]> => {
    const workerData: PortWorkerData = { name, port: PORT, options: { ...options, ...more } }
    const thread = new Thread(file, { workerData })
    return [thread, (await once(thread, 'message'))[0]]
  }
  const server = createSecureServer(options, socket => {
    socket.write('main')
    socket.pipe(socket)
  })
  server.listen(PORT, host)
  await once(server, 'listening')
  const [one, first] = await start('one')
  const [two, second] = await start('two')
  t.strictSame([first, second], ['listening', 'listening'])
  const [three, third] = await start('three', { psk: 'another pre-shared key of 32 octets' })
  t.match(third, new RegExp(`^EADDRINUSE: .*UDP port ${ikePort} .*createEndpoint`))
  await three.terminate()
  const found = await dialAll(ikePort, ['main', 'one', 'two'])
  t.strictSame([...found.keys()].sort(), ['main', 'one', 'two'])
  for (const [name, socket] of found) t.ok(await echoes(socket, 20_000), name)
  // The main thread had the port.
  found.get('main')!.destroy()
  await new Promise(resolve => void server.close(resolve))
  for (const name of ['one', 'two']) t.ok(await echoes(found.get(name)!, 20_000), name)
  const { socket, name } = await dial(ikePort)
  t.ok(['one', 'two'].includes(name), 'new clients are served')
  for (const end of [...found.values(), socket]) end.destroy()
  await Promise.all([one, two].map(thread => thread.terminate()))
})

t.test('whom a datagram is for', t => {
  const header = (spiI: number, spiR: number, flags: number): Uint8Array => {
    const bytes = new Uint8Array(28)
    bytes.fill(spiI, 0, 8)
    bytes.fill(spiR, 8, 16)
    bytes.set([0, 0x20, 34, flags], 16)
    bytes[27] = 28
    return bytes
  }
  const marked = (message: Uint8Array): Uint8Array => Uint8Array.of(0, 0, 0, 0, ...message)
  const spi = (octet: number): Uint8Array => new Uint8Array(8).fill(octet)
  for (const [wrap, isUnmarked] of [
    [marked, false],
    [(message: Uint8Array) => message, true],
    [(message: Uint8Array) => message, false],
  ] as const) {
    t.strictSame(addresseeOf(wrap(header(1, 0, 0x08)), isUnmarked), {
      kind: 'newcomer',
      spi: spi(1),
    })
    t.strictSame(addresseeOf(wrap(header(1, 2, 0x08)), isUnmarked), {
      kind: 'ike',
      spi: spi(2),
      other: spi(1),
    })
    t.strictSame(addresseeOf(wrap(header(1, 2, 0x20)), isUnmarked), {
      kind: 'ike',
      spi: spi(1),
      other: spi(2),
    })
  }
  const esp = new Uint8Array(40).fill(7)
  t.strictSame(addresseeOf(esp, false), { kind: 'esp', spi: 0x07070707, mark: 7 })
  for (const bytes of [
    Uint8Array.of(0xff),
    new Uint8Array(0),
    new Uint8Array(20),
    esp.slice(0, 9),
  ]) {
    t.strictSame(addresseeOf(bytes, false), { kind: 'none' })
  }
  t.strictSame(addresseeOf(new Uint8Array(27), true), { kind: 'none' })
  t.end()
})

t.test(
  'at the local door nothing but a member gets in, and only so many wait before it',
  async t => {
    const place = { addresses: [host], port: 1, ipv6Only: false, reusePort: false }
    const sent: Uint8Array[] = []
    const facts = {
      address: host,
      port: 1,
      family: 'IPv4',
      ipv6Only: false,
      isUnmarked: false,
    } as const
    const path = { socket: 0, localAddress: new Uint8Array(0), localPort: 1 }
    const socket: Carrier = {
      isUnmarked: false,
      facts,
      isCongested: false,
      readAwaited: () => undefined,
      mayHaveMore: () => false,
      flush: () => undefined,
      send: bytes => void sent.push(bytes),
      path: (remoteAddress, remotePort) => ({ ...path, remoteAddress, remotePort }),
      reaches: () => true,
      address: () => facts,
      ref: () => undefined,
      unref: () => undefined,
      close: () => undefined,
    }
    const lender = {
      print: () => 'print',
      sockets: [socket],
      has: () => false,
      receive: () => undefined,
    }
    const owner = new PortOwner(place, lender, undefined)
    owner['open']()
    await until(() => owner['server']?.listening === true)
    const knock = (bytes: Uint8Array): Promise<void> =>
      new Promise(resolve => {
        const stream = net.connect({ path: meetingPlace(place) }, () => stream.write(bytes))
        stream.on('error', () => undefined)
        stream.resume().on('close', () => resolve())
      })
    const frame = (kind: number, text: string): Buffer =>
      Buffer.from([0, 0, 0, 1 + text.length, kind, ...Buffer.from(text)])
    await knock(Buffer.from([0xff, 0xff, 0xff, 0xff, 0]))
    await knock(Buffer.from([0, 0, 0, 0, 0]))
    await knock(frame(3, '\0\x04\0\x50abcdxx'))
    for (const text of ['', '{', 'null', '[]', '{"print":1}', '{"print":"other"}']) {
      await knock(frame(0, text))
    }
    t.equal(owner['members'].size, 0)
    const silent = Array.from({ length: 100 }, () => net.connect({ path: meetingPlace(place) }))
    for (const stream of silent) stream.on('error', () => undefined)
    await until(() => owner['strangers'] === 64)
    t.equal(owner['strangers'], 64)
    for (const stream of silent) stream.destroy()
    await until(() => owner['strangers'] === 0)
    t.equal(owner['strangers'], 0)
    const inside = await Promise.all(
      [300, 'x', undefined, 7, 7].map(
        mark =>
          new Promise<PortBorrower | undefined>(resolve => {
            const hello = { print: 'print', mark: mark as number }
            PortBorrower.join(place, hello, { onDatagram() {}, onLost() {} }, joined =>
              resolve(joined === 'refused' ? undefined : joined),
            )
          }),
      ),
    )
    const given = inside.map(borrower => borrower?.mark)
    t.equal(new Set(given).size, 5, 'each has a mark of its own')
    t.ok(given.includes(7), 'which is the one it had, if nobody else has it')
    const borrowed = inside[0]!.sockets[0]!
    borrowed.send(Uint8Array.of(1, 2, 3), borrowed.path(Uint8Array.of(192, 0, 2, 1), 9))
    await until(() => sent.length > 0)
    t.strictSame(sent, [Uint8Array.of(1, 2, 3)])
    owner.close()
  },
)
