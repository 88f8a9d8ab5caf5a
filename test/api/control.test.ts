/** The control socket: for the owner alone, never taken over while it is in use, and unmoved by what comes in. */
import { once } from 'node:events'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { createSecureServer, createSecureSocket, metrics, openControl } from '../../lib/index.ts'

const folder = mkdtempSync(join(tmpdir(), 'ike-control-'))
t.after(() => rmSync(folder, { recursive: true }))

const ask = async (path: string, text: string): Promise<Record<string, unknown>[]> => {
  const socket = net.connect(path)
  socket.end(text)
  let answer = ''
  socket.setEncoding('utf8').on('data', (more: string) => (answer += more))
  await once(socket, 'close')
  return answer
    .split('\n')
    .filter(line => line !== '')
    .map(line => JSON.parse(line) as Record<string, unknown>)
}

t.test('status and metrics tell of sessions, and never of keys', async t => {
  const path = join(folder, 'app.sock')
  const control = await openControl(path)
  t.equal(statSync(path).mode & 0o777, 0o600)
  const psk = 'a key that both of these ends know'
  const server = createSecureServer({ psk, ikePort: 0 }, socket => {
    socket.on('error', () => {})
    socket.resume()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = createSecureSocket({
    host: '127.0.0.1',
    port: server.address()!.port,
    ikePort: server.ikePort!,
    localId: 'client.test',
    psk,
  })
  await once(socket, 'connect')
  const [status, prom] = await ask(path, '{"command":"status"}\n{"command":"metrics"}\n')
  const text = JSON.stringify(status)
  t.match(text, /"remoteIdentity":"client\.test"/)
  t.match(text, /"createdAt":\d+/)
  t.notMatch(text, psk)
  t.match(prom!['metrics'], /# TYPE ike_sessions gauge\nike_sessions 2\n/)
  for (const line of metrics().trimEnd().split('\n'))
    t.match(line, /^(# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? \d+(\.\d+)?)$/)
  socket.destroy()
  server.close()
  control.close()
})

t.test('a path that the system would cut off is refused', async t => {
  await t.rejects(openControl(join(folder, 'x'.repeat(110))), { message: /103 octets/ })
})

t.test('a wrong line gets an error line, a long one the end', async t => {
  const path = join(folder, 'app.sock')
  const control = await openControl(path)
  for (const line of ['no JSON', '[]', 'null', '{"command":"shutdown"}', '{"command":{}}']) {
    const [answer] = await ask(path, `${line}\n`)
    t.type(answer!['error'], 'string', line)
  }
  const [long] = await ask(path, 'x'.repeat(100_000))
  t.match(long!['error'], /4096 octets/)
  control.close()
})

t.test('answers wait for who does not read them, and then all come', async t => {
  const path = join(folder, 'app.sock')
  const control = await openControl(path)
  const REQUESTS = 50_000
  const socket = net.connect(path)
  socket.write('{"command":"metrics"}\n'.repeat(REQUESTS))
  // Others are served meanwhile.
  for (let turn = 0; turn < 20; turn++)
    t.equal((await ask(path, '{"command":"metrics"}\n')).length, 1)
  t.ok(socket.writableLength > 0, 'no further request is read')
  let lines = 0
  socket.setEncoding('utf8').on('data', (more: string) => {
    lines += more.split('\n').length - 1
    if (lines === REQUESTS) socket.end()
  })
  await once(socket, 'close')
  t.equal(lines, REQUESTS)
  control.close()
})

t.test('one that answers is not taken over, a stale one is, and a file stays', async t => {
  const path = join(folder, 'app.sock')
  const control = await openControl(path)
  await t.rejects(openControl(path), { code: 'EADDRINUSE' })
  control.close()
  const file = join(folder, 'file')
  writeFileSync(file, 'of somebody')
  await t.rejects(openControl(file), { code: 'EADDRINUSE' })
  t.equal(statSync(file).size, 11)
  const stale = join(folder, 'stale.sock')
  const { spawnSync } = await import('node:child_process')
  const code = `require('net').createServer().listen(${JSON.stringify(stale)}, () => process.kill(process.pid, 'SIGKILL'))`
  spawnSync(process.execPath, ['-e', code])
  t.ok(statSync(stale).isSocket())
  const next = await openControl(stale)
  t.equal(statSync(stale).mode & 0o777, 0o600)
  next.close()
})
