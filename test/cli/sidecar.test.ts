/** The commands for programs that are not in Node: each as a process of its own. */
import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { createSecureServer } from '../../lib/index.ts'
import { freePort } from '../harness/free-port.ts'
import { packageFile } from '../harness/package.ts'

const main = packageFile('cli/main')
const folder = mkdtempSync(join(tmpdir(), 'ike-'))
const config = join(folder, 'ike.json')
const children: ChildProcessWithoutNullStreams[] = []
t.teardown(() => {
  for (const child of children) child.kill('SIGKILL')
  rmSync(folder, { recursive: true })
})

interface Line {
  readonly event: string
  readonly port: number
  readonly reply?: number
  readonly received?: number
  readonly sent?: number
  readonly seconds?: number
}

/** Starts a command; `next` waits for an event of that name in its log. */
const start = (
  ...args: string[]
): {
  child: ChildProcessWithoutNullStreams
  /** Those that nobody waited for. */
  lines: readonly Line[]
  next(event: string): Promise<Line>
} => {
  const child = spawn(process.execPath, [main, ...args, '--json', '--config', config])
  children.push(child)
  const lines: Line[] = []
  let text = ''
  let wake: () => void = () => {}
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    const parts = (text + chunk).split('\n')
    text = parts.pop()!
    for (const part of parts) if (part.startsWith('{')) lines.push(JSON.parse(part) as Line)
    wake()
  })
  const next = async (event: string): Promise<Line> => {
    for (;;) {
      const at = lines.findIndex(line => line.event === event)
      if (at >= 0) return lines.splice(at, 1)[0]!
      await new Promise<void>(resolve => (wake = resolve))
    }
  }
  return { child, lines, next }
}

const readAll = async (stream: NodeJS.ReadableStream): Promise<string> => {
  let text = ''
  for await (const chunk of stream) text += String(chunk)
  return text
}

/** A request of SOCKS for a name; the code of the reply, and the socket. */
const ask = async (port: number, host: string, target: number): Promise<[number, net.Socket]> => {
  const socket = net.connect(port, '127.0.0.1')
  const name = Buffer.from(host)
  const place = Buffer.from([...name, target >> 8, target & 255])
  socket.write(Buffer.concat([Buffer.from([5, 1, 0, 5, 1, 0, 3, name.length]), place]))
  let octets = Buffer.alloc(0)
  while (octets.length < 12) {
    const [chunk] = (await once(socket, 'data')) as [Buffer]
    octets = Buffer.concat([octets, chunk])
  }
  socket.pause()
  return [octets[3]!, socket]
}

t.test('forward and socks: from TCP through ESP to TCP and back', async t => {
  writeFileSync(
    config,
    JSON.stringify({ psk: 'a pre-shared key for tests', ikePort: await freePort() }),
  )
  const target = net.createServer({ allowHalfOpen: true }, socket => {
    let text = ''
    socket.on('data', chunk => (text += String(chunk)))
    socket.on('end', () => socket.end(text.toUpperCase()))
  })
  target.listen(0, '127.0.0.1')
  await once(target, 'listening')
  const { port } = target.address() as net.AddressInfo
  const far = start('forward', '-R', `7001:127.0.0.1:${port}`)
  await far.next('listening')
  const near = start('forward', '-L', '0:127.0.0.1:7001')
  const { port: local } = await near.next('listening')
  const socket = net.connect(local, '127.0.0.1')
  socket.end('forwarded')
  t.equal(await readAll(socket), 'FORWARDED')

  const proxy = start('socks', '0', '--permit', '127.0.0.1', '--permit', 'nowhere.invalid')
  const { port: socks } = await proxy.next('listening')
  const [code, proxied] = await ask(socks, '127.0.0.1', 7001)
  t.equal(code, 0)
  proxied.end('by proxy')
  t.equal(await readAll(proxied), 'BY PROXY')
  const refusals: [string, number, number][] = [
    ['127.0.0.1', 7002, 5],
    ['forbidden.test', 80, 2],
    ['nowhere.invalid', 80, 4],
  ]
  for (const [host, at, reply] of refusals) {
    const [refused, gone] = await ask(socks, host, at)
    t.equal(refused, reply, host)
    t.equal((await proxy.next('refused')).reply, reply)
    gone.destroy()
  }

  writeFileSync(config, '{ "psk": ')
  far.child.kill('SIGHUP')
  await far.next('notReloaded')
  t.equal(far.child.exitCode, null, 'a faulty file changes nothing')
  target.close()
})

t.test('SIGHUP: what the file holds now is used, and a faulty one changes nothing', async t => {
  const ikePort = await freePort()
  const write = (psk: string, more: object = {}): void =>
    writeFileSync(config, JSON.stringify({ psk, ikePort, ...more }))
  write('a pre-shared key for tests')
  const target = net.createServer(socket => socket.end('target'))
  target.listen(0, '127.0.0.1')
  await once(target, 'listening')
  const { port } = target.address() as net.AddressInfo
  const far = start('forward', '-R', `7001:127.0.0.1:${port}`)
  await far.next('listening')
  const near = start('forward', '-L', '0:127.0.0.1:7001')
  const { port: local } = await near.next('listening')
  const get = (from: number): Promise<string> => readAll(net.connect(from, '127.0.0.1'))
  t.equal(await get(local), 'target')
  const hangUp = async (end: typeof far, event: string): Promise<Line> => {
    end.child.kill('SIGHUP')
    return end.next(event)
  }
  const faults: [() => void, RegExp][] = [
    [() => writeFileSync(config, '{ "psk": '), /^--config: .*JSON/],
    [() => write('the next pre-shared key', { prot: 1 }), /"prot"/],
    [() => write('the next pre-shared key', { childLifetime: -1 }), /childLifetime/],
  ]
  for (const [spoil, reason] of faults) {
    spoil()
    for (const end of [far, near]) t.match(await hangUp(end, 'notReloaded'), { error: reason })
  }
  write('the next pre-shared key', { ikePort: ikePort + 1 })
  t.match(await hangUp(far, 'notReloaded'), { error: /"ikePort" cannot change/ })
  t.equal(await get(local), 'target')
  write('the next pre-shared key')
  const late = start('forward', '-L', '0:127.0.0.1:7001')
  const { port: other } = await late.next('listening')
  t.equal(await get(other).catch(() => ''), '', 'the old key is still the one')
  for (const end of [far, near]) await hangUp(end, 'reloaded')
  t.equal(await get(other), 'target')
  t.equal(await get(local), 'target')
  target.close()
})

t.test('connect and listen: standard input and output', async t => {
  writeFileSync(
    config,
    JSON.stringify({ psk: 'a pre-shared key for tests', ikePort: await freePort() }),
  )
  const server = start('listen', '7003')
  await server.next('listening')
  const client = start('connect', '127.0.0.1', '7003')
  server.child.stdin.end('from the server')
  client.child.stdin.end('from the client')
  const exits = [server, client].map(({ child }) => once(child, 'exit'))
  const texts = [server, client].map(({ child }) => readAll(child.stdout))
  t.strictSame(await Promise.all(texts), ['from the client', 'from the server'])
  t.strictSame(
    (await Promise.all(exits)).map(([status]) => status as number),
    [0, 0],
  )
})

const fresh = async (more: object = {}): Promise<number> => {
  const ikePort = await freePort()
  writeFileSync(config, JSON.stringify({ psk: 'a pre-shared key for tests', ikePort, ...more }))
  return ikePort
}

/** Its standard input stays open, as a terminal does. */
const exitOf = async (...args: string[]): Promise<[number | null, string]> => {
  const child = spawn(process.execPath, [main, ...args, '--config', config])
  children.push(child)
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (said += chunk))
  const [status] = (await once(child, 'close')) as [number | null]
  return [status, said]
}

t.test('what cannot be done ends with 1 and the reason', async t => {
  const ikePort = await fresh()
  const used = net.createServer().listen(0, '127.0.0.1')
  const udp = createSocket('udp4').bind(ikePort, '127.0.0.1')
  await Promise.all([once(used, 'listening'), once(udp, 'listening')])
  const { port } = used.address() as net.AddressInfo
  const rows: [string[], RegExp][] = [
    [['forward', '-L', '0:a.test:1', '-L', `${port}:a.test:1`], /EADDRINUSE/],
    [['forward', '-L', '0:a.test:1', '-R', '1:127.0.0.1:1'], /EADDRINUSE/],
    [['socks', String(port)], /EADDRINUSE/],
    [['listen', '7005'], /EADDRINUSE/],
  ]
  for (const [args, words] of rows) {
    const [status, said] = await exitOf(...args)
    t.equal(status, 1, args.join(' '))
    t.match(said, words)
  }
  used.close()
  udp.close()
  const [status, said] = await exitOf('connect', '127.0.0.1', '7005')
  t.equal(status, 1)
  t.match(said, /ECONNREFUSED/)
  writeFileSync(config, '{\n"psk": "a pre-shared key for tests",\n}')
  for (const args of [
    ['connect', 'a', '1'],
    ['listen', '1'],
    ['socks', '0'],
    ['forward', '-L', '0:a:1'],
  ]) {
    const [code, words] = await exitOf(...args)
    t.equal(code, 1, args.join(' '))
    t.match(words, /ike\.json: line 3: /)
  }
})

t.test('a key that the peer does not accept is the general failure of SOCKS', async t => {
  const ikePort = await fresh()
  const far = start('forward', '-R', '7006:127.0.0.1:1')
  await far.next('listening')
  writeFileSync(config, JSON.stringify({ psk: 'a pre-shared key of another', ikePort }))
  const proxy = start('socks', '0')
  const { port } = await proxy.next('listening')
  const [code, socket] = await ask(port, '127.0.0.1', 7006)
  t.equal(code, 1)
  t.match(await proxy.next('refused'), { reply: 1, error: /refused our authentication/ })
  socket.destroy()
})

t.test(
  'SIGINT and SIGTERM end it by 128 and their number, and the peer learns at once',
  async t => {
    const psk = 'a pre-shared key for tests'
    const server = createSecureServer({ psk, ikePort: 0 }, socket => socket.on('error', () => {}))
    server.listen(7007, '127.0.0.1')
    await once(server, 'listening')
    writeFileSync(config, JSON.stringify({ psk, ikePort: server.ikePort }))
    for (const [signal, status] of [
      ['SIGINT', 130],
      ['SIGTERM', 143],
    ] as const) {
      const near = start('forward', '-L', '0:127.0.0.1:7007')
      const { port } = await near.next('listening')
      const up = once(server, 'connection')
      const socket = net.connect(port, '127.0.0.1')
      socket.on('error', () => {})
      await up
      const down = once(server, 'sessionEnd') as Promise<[unknown, Error | undefined]>
      const end = once(near.child, 'exit') as Promise<[number | null, string | null]>
      near.child.kill(signal)
      t.strictSame(await end, [status, null])
      const [, error] = await down
      t.equal(error, undefined)
      socket.destroy()
    }
    server.close()
  },
)

t.test('long transfers are told of while they go on, and when they end', async t => {
  await fresh()
  const target = net.createServer({ allowHalfOpen: true }, socket => socket.pipe(socket))
  target.listen(0, '127.0.0.1')
  await once(target, 'listening')
  const { port } = target.address() as net.AddressInfo
  const far = start('forward', '-R', `7008:127.0.0.1:${port}`, '--progress', '1')
  await far.next('listening')
  const near = start('forward', '-L', '0:127.0.0.1:7008', '--progress', '1')
  const quiet = start('forward', '-L', '0:127.0.0.1:7008', '--progress', '0')
  const { port: local } = await near.next('listening')
  const { port: other } = await quiet.next('listening')
  const sockets = [local, other].map(from => net.connect(from, '127.0.0.1'))
  const ends = sockets.map(socket => readAll(socket))
  for (const socket of sockets) socket.write('x'.repeat(1000))
  for (const end of [near, far]) {
    // On a busy machine a part of it is told of first.
    let line = await end.next('progress')
    while (line.received !== 1000 || line.sent !== 1000) line = await end.next('progress')
    t.type(line.seconds, 'number')
  }
  for (const socket of sockets) socket.end('y'.repeat(500))
  t.strictSame(
    (await Promise.all(ends)).map(({ length }) => length),
    [1500, 1500],
  )
  t.match(await near.next('transferred'), {
    to: '127.0.0.1',
    port: 7008,
    received: 1500,
    sent: 1500,
  })
  t.match(await far.next('transferred'), { peer: String, received: 1500, sent: 1500 })
  quiet.child.kill()
  t.notOk(quiet.lines.some(({ event }) => event === 'progress' || event === 'transferred'))
  target.close()
})

t.test('what is not understood, or not permitted, ends with 2', t => {
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' })
  const faults: [string[], RegExp][] = [
    [['forward', '--config', config], /forward wants -L or -R/],
    [['forward', '-L', '1:2', '--config', config], /1:2.* is not \[BIND:\]PORT:HOST:PORT/],
    [['forward', '-L', '0.0.0.0:1:a:2', '--config', config], /0\.0\.0\.0.*--allow-remote/],
    [['forward', '-R', '1:10.0.0.1:2', '--config', config], /10\.0\.0\.1.*--allow-remote/],
    [['socks', '[::]:1080', '--config', config], /'::'.*--allow-remote/],
    [['connect', 'a', '99999', '--config', config], /'99999' is no port/],
    [['connect', 'a', '1', '--confg', 'x'], /--confg/],
    [['connect', 'a', '1', '--config', config, '--progress', 'often'], /'often' is no number/],
  ]
  for (const [args, words] of faults) {
    const { status, stderr } = run(...args)
    t.match(stderr, words)
    t.equal(status, 2, args.join(' '))
  }
  t.match(run('socks', '--help').stdout, /Usage:/)
  t.end()
})
