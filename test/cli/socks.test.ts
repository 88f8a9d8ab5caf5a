/** A SOCKS 5 proxy (RFC 1928): which reply each request and each failure gets. */
import { once } from 'node:events'
import net from 'node:net'
import { Duplex, PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { serveSocks } from '../../lib/cli/socks.ts'

interface Line {
  readonly event: string
  readonly facts: Readonly<Record<string, string | number>>
}

/** What connects to nothing, and fails with that code. */
const failing = (code: string): Duplex => {
  const stream = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() })
  setImmediate(() => stream.destroy(Object.assign(new Error(`it is ${code}`), { code })))
  return stream
}

/** What gives back whatever it gets. */
const echoing = (): Duplex => {
  const stream = new PassThrough()
  setImmediate(() => stream.emit('connect'))
  return stream
}

const start = async (
  t: Test,
  dial: (to: { host: string; port: number }) => Duplex,
  permitted?: readonly string[],
): Promise<{ port: number; lines: Line[] }> => {
  const lines: Line[] = []
  const server = serveSocks(dial, permitted, (event, facts) => lines.push({ event, facts }))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return { port: (server.address() as net.AddressInfo).port, lines }
}

/** All that comes until the proxy ends. */
const send = async (port: number, ...parts: readonly (readonly number[])[]): Promise<number[]> => {
  const socket = net.connect(port, '127.0.0.1')
  const octets: number[] = []
  socket.on('data', chunk => octets.push(...chunk))
  socket.on('error', () => {})
  socket.end(Buffer.from(parts.flat()))
  await once(socket, 'close')
  return octets
}

const GREETING = [5, 1, 0]
const domain = (name: string, port: number, command = 1): number[] => [
  ...[5, command, 0, 3, name.length, ...Buffer.from(name)],
  ...[port >> 8, port & 255],
]
const refusal = (code: number): number[] => [5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0]

t.test('each way to fail has its reply and a line in the log', async t => {
  const rows: [string, number][] = [
    ['ECONNREFUSED', 5],
    ['ENETUNREACH', 3],
    ['EHOSTUNREACH', 4],
    ['ENOTFOUND', 4],
    ['ETIMEDOUT', 4],
    ['AUTHENTICATION_FAILED', 1],
    ['NO_PROPOSAL_CHOSEN', 1],
  ]
  for (const [code, reply] of rows) {
    const { port, lines } = await start(t, () => failing(code))
    t.strictSame(await send(port, GREETING, domain('a.test', 80)), refusal(reply), code)
    const facts = { host: 'a.test', port: 80, error: `it is ${code}`, reply }
    t.strictSame(lines, [{ event: 'refused', facts }])
  }
  const { port, lines } = await start(t, () => {
    throw new Error('options are wrong')
  })
  t.strictSame(await send(port, GREETING, domain('a.test', 80)), refusal(1))
  t.match(lines, [{ event: 'refused', facts: { reply: 1, error: 'options are wrong' } }])
})

t.test('what is not permitted, or no request for a connection, is refused by its code', async t => {
  let dialled = 0
  const dial = (): Duplex => {
    dialled++
    return failing('ECONNREFUSED')
  }
  const { port, lines } = await start(t, dial, ['a.test'])
  const rows: [string, number[], number][] = [
    ['another host', domain('b.test', 80), 2],
    ['port 0', domain('a.test', 0), 2],
    ['BIND', domain('a.test', 80, 2), 7],
    ['UDP ASSOCIATE', domain('a.test', 80, 3), 7],
    ['an address of no known type', [5, 1, 0, 9, 1, 1, 0, 80], 8],
    ['another version', [4, ...domain('a.test', 80).slice(1)], 1],
  ]
  for (const [name, request, reply] of rows) {
    t.strictSame(await send(port, GREETING, request), refusal(reply), name)
    t.match(lines.pop(), { event: 'refused', facts: { reply } }, name)
  }
  t.equal(dialled, 0)
  t.strictSame(await send(port, [5, 2, 1, 2]), [5, 0xff], 'it wants a password')
  t.strictSame(await send(port, [4, 1, 0, 80, 127, 0, 0, 1, 0]), [], 'SOCKS 4 gets nothing')
  // No more than the greeting and the request is ever waited for.
  t.strictSame(await send(port, GREETING, new Array<number>(5000).fill(5)), refusal(8))
})

t.test('names and addresses of both families are asked for, and octets go both ways', async t => {
  const asked: { host: string; port: number }[] = []
  const { port } = await start(t, to => {
    asked.push(to)
    return echoing()
  })
  const requests = [
    domain('a.test', 80),
    [5, 1, 0, 1, 192, 0, 2, 1, 1, 187],
    [5, 1, 0, 4, 0x20, 1, 0xd, 0xb8, ...new Array<number>(11).fill(0), 1, 0, 80],
  ]
  for (const request of requests) {
    // What follows the request at once is for the target.
    const more = Array.from({ length: 5000 }, (_, i) => i & 255)
    t.strictSame(await send(port, GREETING, request, more), [...refusal(0), ...more])
  }
  t.strictSame(asked, [
    { host: 'a.test', port: 80 },
    { host: '192.0.2.1', port: 443 },
    { host: '2001:db8::1', port: 80 },
  ])
})

t.test('a request may come octet by octet', async t => {
  const { port } = await start(t, echoing)
  const socket = net.connect({ port, host: '127.0.0.1', noDelay: true })
  const octets: number[] = []
  socket.on('data', chunk => octets.push(...chunk))
  for (const octet of [...GREETING, ...domain('a.test', 80), 7]) {
    socket.write(Buffer.of(octet))
    await new Promise(resolve => setImmediate(resolve))
  }
  socket.end()
  await once(socket, 'close')
  t.strictSame(octets, [...refusal(0), 7])
})
