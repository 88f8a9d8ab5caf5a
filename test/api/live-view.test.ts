/** A running process can be looked into: each session tells its ages, its path and what it has counted, and can be asked. */
import { once } from 'node:events'
import t from 'tap'
import { createSecureServer, createSecureSocket } from '../../lib/index.ts'

t.test('a session tells its times, its path and its own counters, and is pinged', async t => {
  const psk = 'a key that both of these ends know'
  const server = createSecureServer({ psk, ikePort: 0 }, socket => {
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const to = { host: '127.0.0.1', port: server.address()!.port, ikePort: server.ikePort!, psk }
  const before = Date.now()
  const socket = createSecureSocket(to)
  socket.write('hello')
  await once(socket, 'data')
  const session = socket.session!
  const took = await session.ping()
  t.ok(took > 0 && took < 10_000, `${took} ms`)
  const { info } = session
  const now = Date.now()
  t.ok(info.createdAt >= before - 1 && info.createdAt <= now)
  t.ok(info.lastHeardAt >= info.createdAt - 1 && info.lastHeardAt <= now + 1)
  t.ok(info.rekeyAt! > now && info.expiresAt! > info.rekeyAt!)
  t.ok(info.roundTrip! > 0)
  t.match(info.path, {
    remoteAddress: '127.0.0.1',
    remotePort: server.ikePort!,
    localAddress: '127.0.0.1',
  })
  t.match(info, { sockets: 1, replayed: 0, failedIcvs: 0, ikeRetransmissions: 0, ikeRekeys: 0 })
  t.ok(
    info.octetsIn > 5 && info.packetsOut >= 1,
    'the answer came with the SYN-ACK, whose ACK may still wait',
  )
  const idle = createSecureSocket({ ...to, localId: 'another.test' })
  await once(idle, 'connect')
  t.ok(idle.session!.counters['octetsIn']! < session.counters['octetsIn']!, 'its own')
  const sent = session.counters['octetsOut']!
  session.rekeyChild()
  await session.ping()
  socket.write('again')
  await once(socket, 'data')
  t.ok(session.counters['octetsOut']! > sent, 'what was replaced counts as well')
  for (const each of [socket, idle]) each.on('error', () => {})
  const asked = [session.ping(), idle.session!.ping(), session.ping()]
  session.close()
  for (const each of asked) t.ok((await each) > 0, 'what was asked before is answered')
  await t.rejects(session.ping(), { code: 'ENOTCONN' })
  idle.destroy()
  server.close()
})
