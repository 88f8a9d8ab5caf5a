/** What a round trip waits for, and what it does not. */
import crypto from 'node:crypto'
import { Socket } from 'node:dgram'
import { once } from 'node:events'
import { syncBuiltinESMExports } from 'node:module'
import t, { type Test } from 'tap'
import { createSecureServer, createSecureSocket, type SecureSocket } from '../../lib/index.ts'
import { Endpoint } from '../../lib/node/endpoint.ts'

const psk = 'a pre-shared key for these tests'
const host = '127.0.0.1'
const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

const connected = async (t: Test): Promise<SecureSocket> => {
  const server = createSecureServer({ psk, ikePort: 0 }, socket => void socket.pipe(socket))
  server.listen(0, host)
  await once(server, 'listening')
  const { port } = server.address()!
  const socket = createSecureSocket({ host, port, psk, ikePort: server.ikePort })
  await once(socket, 'secureConnect')
  t.teardown(async () => {
    socket.destroy()
    server.close()
    await once(server, 'close')
  })
  return socket
}

const exchange = async (socket: SecureSocket): Promise<void> => {
  const answered = once(socket, 'data')
  socket.write('x')
  await answered
}

t.test('a reader that finds nothing more wakes nothing', async t => {
  const socket = await connected(t)
  await exchange(socket)
  await turn()
  let wakes = 0
  const ends = [...Endpoint.all]
  for (const { core } of ends) {
    const wake = core.wake.bind(core)
    core.wake = (connection, now) => {
      wakes++
      wake(connection, now)
    }
  }
  await exchange(socket)
  await turn()
  // Each end has written and has read.
  t.equal(wakes, 4)
})

t.test('a datagram that comes alone is answered within the call that tells of it', async t => {
  const socket = await connected(t)
  await exchange(socket)
  const { emit } = Socket.prototype
  t.teardown(() => (Socket.prototype.emit = emit))
  const seen: string[] = []
  Socket.prototype.emit = function (this: Socket, event: string | symbol, ...facts: unknown[]) {
    if (event === 'message') seen.push('datagram')
    const isHeard = Reflect.apply(emit, this, [event, ...facts]) as boolean
    if (event === 'message') seen.push('end')
    return isHeard
  }
  socket.on('data', () => seen.push('data'))
  for (let times = 0; times < 3; times++) {
    await turn()
    seen.length = 0
    await exchange(socket)
    t.strictSame(seen.slice(-3), ['datagram', 'data', 'end'])
  }
})

t.test('what seals and opens the next packets of a conversation is made beforehand', async t => {
  const socket = await connected(t)
  const { createCipheriv, createDecipheriv } = crypto
  const { emit, send } = Socket.prototype
  const seen: string[] = []
  const rounds = new Set<string>()
  const noting =
    <Make extends (...facts: never[]) => { setAAD(aad: Uint8Array): unknown }>(make: Make) =>
    (...facts: Parameters<Make>): unknown => {
      seen.push('made')
      const made = make(...facts)
      const { setAAD } = made
      made.setAAD = aad => {
        seen.push('told')
        return Reflect.apply(setAAD, made, [aad])
      }
      return made
    }
  Object.assign(crypto, {
    createCipheriv: noting(createCipheriv as never),
    createDecipheriv: noting(createDecipheriv as never),
  })
  syncBuiltinESMExports()
  Object.assign(Socket.prototype, {
    emit(this: Socket, event: string, ...facts: unknown[]) {
      if (event === 'message') seen.push('come')
      return Reflect.apply(emit, this, [event, ...facts]) as boolean
    },
    send(this: Socket, ...facts: unknown[]) {
      seen.push('sent')
      Reflect.apply(send, this, facts)
    },
  })
  t.teardown(() => {
    Object.assign(crypto, { createCipheriv, createDecipheriv })
    syncBuiltinESMExports()
    Object.assign(Socket.prototype, { emit, send })
  })
  await new Promise<void>(resolve => {
    let left = 50
    socket.on('data', () => {
      rounds.add(seen.splice(0).join(' '))
      if (--left === 0) return resolve()
      socket.write('x')
    })
    socket.write('x')
  })
  // Others were disturbed by a timer.
  const half = 'sent made told made told come'
  t.ok(rounds.has(`${half} ${half}`), [...rounds].join('\n'))
})
