/** What asks for a turn of its own in one turn shares it. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import t from 'tap'
import { createSecureServer, createSecureSocket, type SecureSocket } from '../../lib/index.ts'
import { inNextTurn } from '../../lib/api/next-turn.ts'

const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

t.test('all of one turn go in a row, after the microtasks', async t => {
  const seen: string[] = []
  for (const name of ['a', 'b']) {
    inNextTurn(() => {
      seen.push(name)
      process.nextTick(() => seen.push(`after ${name}`))
      inNextTurn(() => seen.push(`late ${name}`))
    })
  }
  void Promise.resolve().then(() => seen.push('microtask'))
  await turn()
  await turn()
  t.strictSame(seen, ['microtask', 'a', 'b', 'after a', 'after b', 'late a', 'late b'])
})

t.test('one that throws does not keep the others', async t => {
  const module = new URL('../../lib/api/next-turn.js', import.meta.url).href
  const program = `
    import { inNextTurn } from '${module}'
    process.on('uncaughtException', error => console.log(error.message))
    inNextTurn(() => console.log('a'))
    inNextTurn(() => { throw new Error('thrown') })
    inNextTurn(() => console.log('b'))`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program])
  t.equal(`${stdout}${stderr}`, 'a\nthrown\nb\n')
})

t.test('the ends of many sockets share packets', async t => {
  const options = { psk: 'a pre-shared key for these tests', ikePort: 0 }
  const server = createSecureServer(options, socket => void socket.resume())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()!
  const open = async (): Promise<SecureSocket> => {
    const socket = createSecureSocket({
      host: '127.0.0.1',
      port,
      psk: options.psk,
      ikePort: server.ikePort,
    })
    await once(socket, 'connect')
    return socket
  }
  const stays = await open()
  const others = await Promise.all(Array.from({ length: 60 }, open))
  await turn()
  const packetsIn = (): number => stays.session!.info.packetsIn
  const before = packetsIn()
  for (const socket of others) socket.resume().end()
  await Promise.all(others.map(socket => once(socket, 'close')))
  t.ok(packetsIn() - before < 30, `${packetsIn() - before} packets for 60 ends`)
  stays.destroy()
  server.close()
  await once(server, 'close')
})
