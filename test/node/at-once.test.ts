/** What a round trip waits for, and what it does not. */
import { Socket } from 'node:dgram'
import { once } from 'node:events'
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
  t.teardown(() => {
    socket.destroy()
    server.close()
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

t.test('a datagram that comes alone is answered before its turn is over', async t => {
  const socket = await connected(t)
  await exchange(socket)
  const { emit } = Socket.prototype
  t.teardown(() => (Socket.prototype.emit = emit))
  const seen: string[] = []
  Socket.prototype.emit = function (this: Socket, event: string | symbol, ...facts: unknown[]) {
    if (event === 'message') {
      seen.push('datagram')
      setImmediate(() => seen.push('end of turn'))
    }
    return Reflect.apply(emit, this, [event, ...facts]) as boolean
  }
  socket.on('data', () => seen.push('data'))
  for (let times = 0; times < 3; times++) {
    await turn()
    seen.length = 0
    await exchange(socket)
    t.strictSame(seen.slice(-2), ['datagram', 'data'])
  }
})
