/** `status` and `ping`, and the option `control` of servers and endpoints. */
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import {
  ratesBetween,
  statusLines,
  type StatusReport,
  type ShownSession,
} from '../../lib/cli/status.ts'
import { duration, octets, painter, plain } from '../../lib/cli/terminal.ts'
import { createEndpoint, createSecureServer, createSecureSocket } from '../../lib/index.ts'
import { runCommand } from '../harness/command.ts'

const folder = mkdtempSync(join(tmpdir(), 'ike-status-'))
t.after(() => rmSync(folder, { recursive: true }))
const psk = 'a key that both of these ends know'

const listening = async (control?: string) => {
  const server = createSecureServer(
    { psk, ikePort: 0, control, localId: 'server.test' },
    socket => {
      socket.on('error', () => {})
      socket.pipe(socket)
    },
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

t.test('a process is looked into: by people and by programs', async t => {
  const control = join(folder, 'app.sock')
  const server = await listening(control)
  t.equal(statSync(control).mode & 0o777, 0o600)
  const socket = createSecureSocket({
    host: '127.0.0.1',
    port: server.address()!.port,
    ikePort: server.ikePort!,
    localId: 'client.test',
    psk,
  })
  socket.on('error', () => {}).resume()
  await once(socket, 'connect')
  const once_ = await runCommand(['status', control, '--interval', '0.1'])
  t.equal(once_.code, 0, once_.stderr)
  t.match(once_.stdout, new RegExp(`^process ${process.pid}: 2 sessions\n`))
  t.match(once_.stdout, /client\.test at 127\.0\.0\.1 port \d+: established, up \d+ m?s/)
  t.match(once_.stdout, /in [\d.]+ k?B \([\d.]+ k?B\/s\), out .*, 1 socket\n/)
  t.match(once_.stdout, /MTU \d+, AES-GCM-16-256, .*new keys in \d+ h/)
  t.notOk(once_.stdout.includes('\x1b'), 'no colour in a file')
  t.notOk(once_.stdout.includes(psk))

  let looks = 0
  const watched = await runCommand(
    ['status', '--watch', '--json', '--interval', '0.1'],
    { IKE_SOCKET_CONTROL: control },
    child =>
      child.stdout.on('data', () => {
        if (++looks === 3) child.kill('SIGTERM')
        else socket.write(Buffer.alloc(5000))
      }),
  )
  const answers = watched.stdout
    .trim()
    .split('\n')
    .map(line => JSON.parse(line) as StatusReport)
  t.ok(answers.length >= 3)
  const carried = answers.map(({ endpoints }) => endpoints[0]!.sessions[0]!.octetsIn)
  t.ok(carried.at(-1)! > carried[0]!, 'each look is a new one')
  t.type(
    (answers[0]!.endpoints[0]!.sessions[0] as unknown as Record<string, unknown>)[
      'octetsInPerSecond'
    ],
    'number',
  )
  socket.destroy()
  server.close()
  await once(server, 'close')
  t.notOk(existsSync(control), 'it goes with the server')
})

t.test('what cannot be asked is named, with the next step', async t => {
  const nothing = await runCommand(['status', join(folder, 'none.sock')])
  t.equal(nothing.code, 1)
  t.match(
    nothing.stderr,
    /none\.sock: there is no such socket\. Start the program with IKE_SOCKET_CONTROL/,
  )
  const usage = await runCommand(['status'])
  t.equal(usage.code, 2)
  t.match(usage.stderr, /status wants the path of a control socket/)
  const mute = join(folder, 'odd.sock')
  const odd = net.createServer(socket => socket.end('garbage\n')).listen(mute)
  await once(odd, 'listening')
  t.match((await runCommand(['status', mute])).stderr, /the answer is not JSON/)
  odd.close()
})

t.test(
  'control: shared in a process, not taken from another, refused where it is no path',
  async t => {
    const control = join(folder, 'shared.sock')
    const [one, two] = [await listening(control), await listening(control)]
    one.close()
    await once(one, 'close')
    t.ok(existsSync(control), 'another server names it')
    two.close()
    await once(two, 'close')
    t.notOk(existsSync(control))

    const other = net.createServer().listen(control)
    await once(other, 'listening')
    const server = createSecureServer({ psk, ikePort: 0, control }).listen(0, '127.0.0.1')
    const [error] = (await once(server, 'error')) as [NodeJS.ErrnoException]
    t.match(error, { code: 'EADDRINUSE', address: control })
    const endpoint = createEndpoint({ psk, ikePort: 0, host: '127.0.0.1', control })
    const [same] = (await once(endpoint, 'error')) as [NodeJS.ErrnoException]
    t.match(same, { code: 'EADDRINUSE', address: control })
    other.close()
    await once(other, 'close')

    const working = createEndpoint({ psk, ikePort: 0, host: '127.0.0.1', control })
    await once(working, 'listening')
    t.equal((await runCommand(['status', control, '--interval', '0.1'])).code, 0)
    working.close()
    await once(working, 'close')
    t.notOk(existsSync(control))
    for (const wrong of ['', 5, 'x'.repeat(104)])
      t.throws(() => createSecureServer({ psk, control: wrong as string }), {
        option: 'control',
        message: /a path of 1 to 103 octets/,
      })
  },
)

t.test('ping measures round trips inside an SA', async t => {
  const server = await listening()
  const config = join(folder, 'ike.json')
  writeFileSync(config, JSON.stringify({ psk, ikePort: server.ikePort, localId: 'client.test' }))
  const args = ['ping', '127.0.0.1', '-i', '0', '--config', config]
  const text = await runCommand([...args, '-c', '3'])
  t.equal(text.code, 0, text.stderr)
  t.match(text.stdout, /^server\.test at 127\.0\.0\.1 port \d+: probe 1, [\d.]+ ms\n/)
  t.match(text.stdout, /3 answered, 0 sent again; min [\d.]+, median [\d.]+, max [\d.]+ ms\n$/)
  const json = await runCommand([...args, '-c', '1', '--json'])
  const lines = json.stdout.trim().split('\n')
  t.match(JSON.parse(lines[0]!), { probe: 1, peer: 'server.test', milliseconds: Number })
  t.match(JSON.parse(lines[1]!), { probes: 1, sentAgain: 0 })
  t.equal(json.code, 0)

  writeFileSync(config, JSON.stringify({ psk: 'another key than that', ikePort: server.ikePort }))
  server.on('ikeClientError', () => {})
  const refused = await runCommand(args)
  t.equal(refused.code, 1)
  t.match(refused.stderr, /refused our authentication/)
  t.equal((await runCommand([...args, '-c', '0'])).code, 2)
  t.equal((await runCommand(['ping', '--config', config])).code, 2)
  server.close()
})

t.test('a control socket of somebody else steers no terminal, by whatever it answers', async t => {
  const evil = '\x1b[2J\x9b2J\u202e\x07'
  const session = {
    state: evil,
    remoteIdentity: evil,
    ikeSuite: evil,
    path: { remoteAddress: evil, remotePort: evil },
    createdAt: 0,
    lastHeardAt: 0,
    octetsIn: 1,
    octetsOut: 1,
    sockets: evil,
    mtu: evil,
    ikeRetransmissions: evil,
    replayed: 0,
    failedIcvs: 0,
  }
  const counters = { datagramsIn: 1, datagramsOut: 1, drops: { [evil]: 1 } }
  const endpoint = { udp: { address: evil, port: evil }, counters, sessions: [session] }
  const path = join(folder, 'evil.sock')
  let answer: object = {}
  const server = net.createServer(socket => {
    socket.on('error', () => {}).once('data', () => socket.write(`${JSON.stringify(answer)}\n`))
  })
  server.listen(path)
  await once(server, 'listening')
  for (answer of [{ pid: evil, at: 1000, endpoints: [endpoint] }, { error: evil }, { pid: evil }]) {
    for (const how of [[], ['--json']]) {
      const { stdout, stderr } = await runCommand(['status', path, '--interval', '0.1', ...how])
      t.ok(stdout.length + stderr.length > 0)
      t.notMatch(stdout + stderr, /[^\n\x20-\x7e]/)
    }
  }
  server.close()
})

t.test('text of a peer steers no terminal; numbers are short', t => {
  const session: ShownSession = {
    state: 'established',
    remoteIdentity: 'evil\x1b[2J\n',
    ikeSuite: 'aes256gcm16-prfsha256-x25519',
    path: { remoteAddress: '192.0.2.1', remotePort: 4500 },
    createdAt: 0,
    lastHeardAt: 9000,
    ikeRetransmissions: 2,
    replayed: 0,
    failedIcvs: 1,
    octetsIn: 1000,
    octetsOut: 0,
    sockets: 1,
    mtu: 1400,
    localBehindNat: true,
  }
  const shown = (at: number, octetsIn: number): StatusReport => ({
    pid: 1,
    at,
    endpoints: [
      {
        counters: { datagramsIn: 1, datagramsOut: 2, drops: { 'esp.replay': 3, none: 0 } },
        sessions: [{ ...session, octetsIn }],
      },
    ],
  })
  const rates = ratesBetween(shown(10_000, 1000), shown(12_000, 2_001_000))
  const text = statusLines(shown(12_000, 2_001_000), rates, painter({ isTTY: false })).join('\n')
  t.match(text, 'evil?[2J? at 192.0.2.1 port 4500: established, up 12 s, heard 3 s ago')
  t.match(text, 'in 2.00 MB (1.00 MB/s)')
  t.match(text, ', behind a NAT')
  t.match(text, '2 requests sent again, 1 failed ICVs')
  t.match(text, 'dropped: esp.replay 3')
  t.notMatch(text, 'none')
  t.equal(octets(0), '0 B')
  t.equal(octets(1_234_567), '1.23 MB')
  t.equal(duration(0), '0 s')
  t.equal(duration((3 * 3600 + 4 * 60 + 5) * 1000), '3 h 4 min')
  t.equal(plain('\u202e'), '?')
  t.match(painter({ isTTY: true })('red', 'x'), process.env['NO_COLOR'] ? 'x' : '\x1b[31mx\x1b[0m')
  t.end()
})

t.test('a client names a control socket too; one that is taken is a warning', async t => {
  const server = await listening()
  const control = join(folder, 'client.sock')
  const to = {
    host: '127.0.0.1',
    port: server.address()!.port,
    ikePort: server.ikePort!,
    localId: 'client.test',
    psk,
  }
  const connect = async (path: string) => {
    const socket = createSecureSocket({ ...to, control: path })
    socket.on('error', () => {}).resume()
    await once(socket, 'connect')
    return socket
  }
  const first = await connect(control)
  const second = await connect(control)
  const shown = await runCommand(['status', control, '--interval', '0.1'])
  t.match(shown.stdout, new RegExp(`^process ${process.pid}: `))
  first.destroy()
  second.destroy()
  const later = await runCommand(['status', control, '--interval', '0.1'])
  t.equal(later.code, 0, 'it outlives the sockets')

  const taken = join(folder, 'taken.sock')
  const other = net.createServer().listen(taken)
  await once(other, 'listening')
  const warned = once(process, 'warning') as Promise<[Error & { code?: string }]>
  const third = await connect(taken)
  const [warning] = await warned
  t.equal(warning.code, 'IKE_CONTROL')
  t.match(warning.message, /^control: .*EADDRINUSE/)
  third.destroy()
  other.close()
  server.close()
  t.throws(() => createSecureSocket({ ...to, control: '' }), { code: 'ERR_INVALID_ARG_VALUE' })
})
