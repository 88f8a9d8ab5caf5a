/** Servers of one process on one UDP port, told apart by the port inside the tunnel. */
import { once } from 'node:events'
import t from 'tap'
import { createSecureServer, createSecureSocket, type SecureServer } from '../../lib/index.ts'

const psk = 'a pre-shared key for these tests'

const listening = async (server: SecureServer, port = 0): Promise<SecureServer> => {
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  return server
}
const closed = (server: SecureServer): Promise<unknown> =>
  new Promise(resolve => void server.close(resolve))
const answerOf = async (server: SecureServer, ikePort: number): Promise<string> => {
  const { port } = server.address()!
  const socket = createSecureSocket({ host: '127.0.0.1', port, ikePort, psk })
  const [data] = (await once(socket, 'data')) as [Buffer]
  socket.destroy()
  return String(data)
}

t.test(
  'servers with equal options share a UDP port, and one SA of a client reaches both',
  async t => {
    let sessions = 0
    const first = await listening(
      createSecureServer({ psk, ikePort: 0 }, socket => socket.end('a')),
    )
    const ikePort = first.ikePort!
    const second = createSecureServer({ psk, ikePort }, socket => socket.end('b'))
    second.on('session', () => sessions++)
    await listening(second)
    t.equal(second.ikePort, ikePort)
    t.equal(await answerOf(first, ikePort), 'a')
    t.equal(await answerOf(second, ikePort), 'b')
    t.equal(sessions, 1)
    // One goes, the other stays, and so do the SAs.
    await closed(first)
    t.equal(await answerOf(second, ikePort), 'b')
    t.equal(sessions, 1)
    await closed(second)
    const third = await listening(createSecureServer({ psk: `${psk}!`, ikePort }, () => {}))
    t.pass('the port is free once the last of them is closed')
    await closed(third)
  },
)

t.test('servers that start in one tick share the port too', async t => {
  const probe = await listening(createSecureServer({ psk, ikePort: 0 }))
  const ikePort = probe.ikePort!
  await closed(probe)
  const servers = ['a', 'b', 'c'].map(name =>
    createSecureServer({ psk, ikePort }, socket => socket.end(name)).listen(0, '127.0.0.1'),
  )
  await Promise.all(servers.map(server => once(server, 'listening')))
  for (const [i, server] of servers.entries()) t.equal(await answerOf(server, ikePort), 'abc'[i])
  await Promise.all(servers.map(closed))
})

t.test(
  'other options on the same UDP port are refused with the reason, and so is a used inner port',
  async t => {
    const first = await listening(
      createSecureServer({ psk, ikePort: 0 }, socket => socket.end('a')),
    )
    const ikePort = first.ikePort!
    const other = createSecureServer({ psk: 'another pre-shared key of 32 octets', ikePort })
    other.listen(0, '127.0.0.1')
    const [taken] = (await once(other, 'error')) as [NodeJS.ErrnoException]
    t.match(taken, { code: 'EADDRINUSE', syscall: 'listen', port: ikePort })
    t.match(taken.message, new RegExp(`UDP port ${ikePort} .* "ikePort"`))
    const same = createSecureServer({ psk, ikePort })
    same.listen(first.address()!.port, '127.0.0.1')
    const [used] = (await once(same, 'error')) as [NodeJS.ErrnoException]
    t.match(used, { code: 'EADDRINUSE', port: first.address()!.port })
    t.equal(await answerOf(first, ikePort), 'a', 'the first one goes on')
    await closed(first)
  },
)

t.test('new credentials are those of every server on the port', async t => {
  const fresh = 'the key that comes after the first'
  const first = await listening(createSecureServer({ psk, ikePort: 0 }))
  const ikePort = first.ikePort!
  const second = await listening(createSecureServer({ psk, ikePort }, socket => socket.end('b')))
  first.setCredentials({ psk: fresh })
  const socket = createSecureSocket({
    host: '127.0.0.1',
    port: second.address()!.port,
    ikePort,
    psk: fresh,
  })
  t.equal(String((await once(socket, 'data'))[0]), 'b')
  socket.destroy()
  await Promise.all([first, second].map(closed))
})

t.test(
  'a server may listen at its UDP port again before its peers have heard of the end',
  async t => {
    const server = await listening(
      createSecureServer({ psk, ikePort: 0 }, socket => socket.end('a')),
    )
    const { ikePort, port } = { ikePort: server.ikePort!, port: server.address()!.port }
    const client = createSecureSocket({ host: '127.0.0.1', port, ikePort, psk })
    await once(client, 'data')
    client.destroy()
    server.close()
    const again = await listening(createSecureServer({ psk, ikePort }, socket => socket.end('b')))
    t.equal(await answerOf(again, ikePort), 'b')
    await closed(again)
  },
)

t.test('servers with reusePort listen at one port, and take turns', async t => {
  const make = (name: string, ikePort: number): SecureServer =>
    createSecureServer({ psk, ikePort }, socket => socket.end(name))
  const listen = (server: SecureServer, port: number, reusePort: boolean): Promise<unknown> => {
    server.listen({ port, host: '127.0.0.1', reusePort })
    return once(server, 'listening')
  }
  const first = make('a', 0)
  await listen(first, 0, true)
  const { port } = first.address()!
  const ikePort = first.ikePort!
  const second = make('b', ikePort)
  await listen(second, port, true)
  const answers = await Promise.all([1, 2, 3, 4].map(() => answerOf(first, ikePort)))
  t.strictSame(answers.sort(), ['a', 'a', 'b', 'b'])
  await t.rejects(listen(make('c', ikePort), port, false), { code: 'EADDRINUSE' })
  await closed(first)
  t.equal(await answerOf(second, ikePort), 'b', 'who stays gets all')
  await closed(second)
})
