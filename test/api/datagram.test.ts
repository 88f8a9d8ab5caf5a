/** Datagrams inside ESP, by the surface of `dgram`. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { BlockList } from 'node:net'
import t from 'tap'
import {
  createEndpoint,
  createSecureDatagram,
  createSecureServer,
  createSecureSocket,
  type DatagramInfo,
  type SecureDatagram,
} from '../../lib/index.ts'
import { refusedOption } from '../harness/refused-option.ts'

const psk = 'a pre-shared key for these tests'
const host = '127.0.0.1'

const bound = async (socket: SecureDatagram, port = 0): Promise<SecureDatagram> => {
  socket.bind(port, host)
  await once(socket, 'listening')
  return socket
}
const closed = (end: { close(done: () => void): unknown }): Promise<void> =>
  new Promise(resolve => void end.close(resolve))
const next = async (socket: SecureDatagram): Promise<[string, DatagramInfo]> => {
  const [message, from] = (await once(socket, 'message')) as [Buffer, DatagramInfo]
  return [String(message), from]
}
const sent = (send: (done: (error: Error | null, octets?: number) => void) => void) =>
  new Promise<unknown>(resolve => send((error, octets) => resolve(error ?? octets)))

t.test('a question and its answer, and TCP beside them over the same IKE SA', async t => {
  const options = { psk, ikePort: 0 }
  const server = await bound(createSecureDatagram(options))
  const { ikePort } = server
  const { port } = server.address()
  const beside = createSecureServer({ psk, ikePort }, socket => socket.end('tcp'))
  let sessions = 0
  beside.on('session', () => sessions++)
  beside.listen(0, host)
  await once(beside, 'listening')
  server.on('message', (message, { port: to, address, session }) => {
    t.equal(session.peerId, host)
    server.send(`${message}!`, to, address)
  })
  const client = createSecureDatagram({ psk, ikePort })
  t.equal(client.maxSize(port, host), undefined, 'nothing is known before there is an SA')
  const answer = next(client)
  client.send('hello', port, host)
  const [text, from] = await answer
  t.equal(text, 'hello!')
  t.match(from, { address: host, port, family: 'IPv4', size: 6 })
  t.ok(client.maxSize(port, host)! > 60_000, 'the loopback carries much')
  const socket = createSecureSocket({ host, port: beside.address()!.port, ikePort, psk })
  t.equal(String((await once(socket, 'data'))[0]), 'tcp')
  t.equal(sessions, 1)
  // Connected, as dgram's.
  client.connect(port, host)
  await once(client, 'connect')
  t.match(client.remoteAddress(), { address: host, port })
  t.throws(() => client.send('x', port, host), { code: 'ERR_SOCKET_DGRAM_IS_CONNECTED' })
  const again = next(client)
  t.equal(await sent(done => client.send(['a', Buffer.from('b')], done)), 2)
  t.equal((await again)[0], 'ab!')
  const part = next(client)
  client.send('0123456789', 2, 3)
  t.equal((await part)[0], '234!')
  client.disconnect()
  t.throws(() => client.remoteAddress(), { code: 'ERR_SOCKET_DGRAM_NOT_CONNECTED' })
  await Promise.all([closed(client), closed(server), closed(beside)])
})

t.test('what is too large fails with the limit, and what just fits arrives', async t => {
  const server = await bound(createSecureDatagram({ psk, ikePort: 0, mtu: 1400 }))
  const { ikePort } = server
  const { port } = server.address()
  const client = createSecureDatagram({ psk, ikePort, mtu: 1400 })
  const first = next(server)
  client.send('x', port, host)
  await first
  const limit = client.maxSize(port, host)!
  t.ok(limit > 1200 && limit < 1400 - 28, `${limit} octets`)
  const error = await sent(done => client.send(Buffer.alloc(limit + 1), port, host, done))
  t.match(error, { code: 'EMSGSIZE', syscall: 'send', limit, address: host, port })
  t.match((error as Error).message, new RegExp(`at most ${limit}`))
  const whole = once(server, 'message')
  client.send(Buffer.alloc(limit, 'y'), port, host)
  t.equal(((await whole)[0] as Buffer).length, limit)
  const raised = once(client, 'error')
  client.send(Buffer.alloc(limit + 1), port, host)
  t.match((await raised)[0], { code: 'EMSGSIZE' }, 'without a callback it is an event')
  await Promise.all([closed(client), closed(server)])
})

t.test('of an endpoint: both roles, and only whom it admits', async t => {
  const keys = { 'a.test': `${psk} of a`, 'b.test': `${psk} of b` }
  const endpoint = createEndpoint({ psk: keys, host, ikePort: 0 })
  await once(endpoint, 'listening')
  const all = endpoint.createServer(socket => socket.end('in')).listen(0)
  const got: string[] = []
  const forA = endpoint.createDatagram({ authorize: ({ id }) => id === 'a.test' }, message => {
    got.push(String(message))
  })
  forA.bind(0)
  await once(forA, 'listening')
  const { port } = forA.address()
  const [a, b] = (['a.test', 'b.test'] as const).map(localId =>
    createSecureDatagram({ psk: keys[localId], localId, ikePort: endpoint.ikePort! }),
  )
  await sent(done => b!.send('from b', port, host, done))
  const first = next(forA)
  await sent(done => a!.send('from a', port, host, done))
  const [, from] = await first
  // An answer to a session goes to that session, whoever has the same address.
  const answer = next(a!)
  forA.send('for a', from.port, from.session)
  t.equal((await answer)[0], 'for a')
  t.strictSame(got, ['from a'])
  t.equal((endpoint.counters['drops'] as Record<string, number>)['udp.noPort'], 1)
  await Promise.all([closed(a!), closed(b!)])
  await closed(endpoint)
  t.notOk(all.listening)
  t.throws(() => forA.send('x', 1, host), { code: 'ERR_SOCKET_DGRAM_NOT_RUNNING' })
})

t.test('a second peer at the address of the first does not get its answers', async t => {
  const keys = { 'a.test': `${psk} of a`, 'b.test': `${psk} of b` }
  const server = await bound(createSecureDatagram({ psk: keys, ikePort: 0 }))
  const { port } = server.address()
  const ends = await Promise.all(
    (['a.test', 'b.test'] as const).map(async localId => {
      const endpoint = createEndpoint({ psk: keys[localId], localId, host, ikePort: 0 })
      const socket = endpoint.createDatagram({ ikePort: server.ikePort! })
      // Both have the same port inside ESP, as two hosts behind one address may.
      socket.bind(5683)
      await once(socket, 'listening')
      return { endpoint, socket }
    }),
  )
  const [a, b] = ends.map(({ socket }) => socket)
  for (const [socket, text] of [
    [a!, 'a'],
    [b!, 'b'],
  ] as const) {
    const arrival = next(server)
    socket.send(text, port, host)
    const [message, from] = await arrival
    t.equal(message, text)
    // Each session gets its own answer, although both have one address.
    const answer = next(socket)
    server.send(`to ${text}`, from.port, from.session)
    t.equal((await answer)[0], `to ${text}`)
  }
  const answers: string[] = []
  a!.on('message', message => answers.push(`a: ${message}`))
  b!.on('message', message => answers.push(`b: ${message}`))
  const arrival = next(a!)
  server.send('for whoever was first', 5683, host)
  await arrival
  t.strictSame(answers, ['a: for whoever was first'])
  await Promise.all([...ends.map(({ endpoint }) => closed(endpoint)), closed(server)])
})

t.test('every callback comes once, also of what has not gone when the socket closes', async t => {
  // Nobody answers there.
  const silent = createSocket('udp4').bind(0, host)
  await once(silent, 'listening')
  const socket = createSecureDatagram({ psk, ikePort: silent.address().port })
  const told: unknown[] = []
  const note = (error: Error | null): unknown => told.push((error as { code?: string }).code)
  socket.on('error', error => told.push(error))
  for (let i = 0; i < 3; i++) socket.send(`${i}`, 5, host, note)
  socket.send('nobody asks', 5, host)
  socket.send('of another', 5, 'localhost', note)
  await once(socket, 'listening')
  await new Promise(resolve => setTimeout(resolve, 50))
  t.strictSame(told, [])
  await closed(socket)
  t.strictSame(told, Array(4).fill('ECANCELED'))
  const early = createSecureDatagram({ psk, ikePort: silent.address().port })
  early.on('error', error => told.push(error))
  early.bind(0, host)
  early.send('before it is bound', 5, host, note)
  early.send('the same', 5, host)
  t.match(await once(early, 'error'), [{ code: 'EADDRINUSE', syscall: 'bind' }])
  await new Promise(resolve => setImmediate(resolve))
  t.match(told.slice(4), [{ syscall: 'bind' }, 'EADDRINUSE'])
  const gone = createSecureDatagram({ psk, ikePort: 0 }).bind(0, host)
  gone.send('before it is bound', 5, host, note)
  await closed(gone)
  t.strictSame(told.slice(6), ['ECANCELED'])
  t.throws(() => gone.send('x', 5, host), { code: 'ERR_SOCKET_DGRAM_NOT_RUNNING' })
  t.throws(() => gone.close(), { code: 'ERR_SOCKET_DGRAM_NOT_RUNNING' })
  await Promise.all([closed(early), new Promise<void>(resolve => silent.close(() => resolve()))])
})

t.test('a block list holds in both directions', async t => {
  const blockList = new BlockList()
  const server = await bound(createSecureDatagram({ psk, ikePort: 0, blockList }))
  const heard: string[] = []
  server.on('message', message => heard.push(String(message)))
  const options = { psk, ikePort: server.ikePort! }
  const client = createSecureDatagram(options)
  const { port } = server.address()
  t.equal(await sent(done => client.send('1', port, host, done)), 1)
  await once(server, 'message')
  blockList.addAddress(host)
  t.equal(await sent(done => client.send('2', port, host, done)), 1)
  const blocked = createSecureDatagram({ ...options, blockList })
  const refusal = { code: 'ERR_IP_BLOCKED', message: `IP(${host}) is blocked by net.BlockList` }
  t.match(await sent(done => blocked.send('3', port, host, done)), refusal)
  t.match(await sent(done => server.send('x', client.address().port, host, done)), refusal)
  t.strictSame(heard, ['1'])
  const wrong = { psk, blockList: {} as BlockList }
  t.throws(() => createSecureDatagram(wrong), { message: /options.blockList/ })
  await Promise.all([server, client, blocked].map(closed))
})

t.test('errors of arguments and options are those of dgram, at once', async t => {
  const refused = (options: unknown): unknown =>
    refusedOption(() => createSecureDatagram(options as never))
  t.equal(refused({}), 'psk')
  t.equal(refused(undefined), 'options')
  t.equal(refused({ psk, prot: 1 }), 'prot')
  t.equal(refused({ psk, eap: { method: 'mschapv2', identity: 'a', password: 'b' } }), 'eap')
  t.equal(refused({ psk, endpoint: {} }), 'endpoint')
  t.match(refused({ psk, ikePort: 70_000 }), { code: 'ERR_SOCKET_BAD_PORT' })
  t.throws(() => createSecureDatagram({ psk }, 1 as never), { code: 'ERR_INVALID_ARG_TYPE' })
  const socket = await bound(createSecureDatagram({ psk, ikePort: 0 }))
  t.throws(() => socket.bind(1), { code: 'ERR_SOCKET_ALREADY_BOUND' })
  const send = socket.send.bind(socket) as (...args: unknown[]) => void
  for (const port of [0, -1, 70_000]) {
    t.throws(() => send('x', port, host), { code: 'ERR_SOCKET_BAD_PORT' })
  }
  t.throws(() => send('x'), { code: 'ERR_SOCKET_BAD_PORT' })
  t.throws(() => send(1, 1, host), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => send('x', 1, {}), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => send('x', 0, 2, 1, host), { code: 'ERR_BUFFER_OUT_OF_BOUNDS' })
  t.throws(() => socket.disconnect(), { code: 'ERR_SOCKET_DGRAM_NOT_CONNECTED' })
  const other = createSecureDatagram({ psk, ikePort: socket.ikePort! })
  other.bind(socket.address().port, host)
  t.match((await once(other, 'error'))[0], { code: 'EADDRINUSE', syscall: 'bind' })
  const nobody = createSecureDatagram({ psk, ikePort: 9 })
  const error = await sent(done => nobody.send('x', 1, host, done))
  t.match(error, { code: 'ECONNREFUSED' }, 'no IKE, no datagram')
  await Promise.all([closed(socket), closed(nobody)])
  await socket[Symbol.asyncDispose]()
})
