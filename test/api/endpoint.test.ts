/** One UDP port for a program's servers and clients, and who may reach which of them. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import type { LookupFunction } from 'node:net'
import t from 'tap'
import {
  createEndpoint,
  createSecureContext,
  createSecureServer,
  createSecureSocket,
  SecureEndpoint,
  type SecureServer,
  type SecureSocket,
} from '../../lib/index.ts'
import { refusedOption } from '../harness/refused-option.ts'

const psk = 'a pre-shared key for these tests'
const host = '127.0.0.1'

const opened = async (endpoint: SecureEndpoint): Promise<SecureEndpoint> => {
  await once(endpoint, 'listening')
  return endpoint
}
const listening = async (server: SecureServer, port = 0): Promise<number> => {
  server.listen(port)
  await once(server, 'listening')
  return server.address()!.port
}
const closed = (end: SecureEndpoint | SecureServer): Promise<unknown> =>
  new Promise(resolve => void end.close(resolve))
/** What the peer says, or the code of the error. */
const answerOf = async (socket: SecureSocket): Promise<string> => {
  try {
    const [data] = (await once(socket, 'data')) as [Buffer]
    return String(data)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error)
  } finally {
    socket.destroy()
  }
}
const says =
  (text: string) =>
  (socket: SecureSocket): void =>
    void socket.end(text)

t.test('a connection has the default port and host, not those of its endpoint', async t => {
  const context = { psk: `${psk} of this test` }
  const first = createSecureSocket({ ...context, host, port: 9, ikePort: 9 })
  first.on('error', () => undefined).destroy()
  const endpoint = await opened(createEndpoint({ ...context, host, ikePort: 0 }))
  const attempts: unknown[] = []
  const lookup: LookupFunction = (name, _options, done) => {
    attempts.push(name)
    done(new Error('none'), '', 4)
  }
  const socket = endpoint.connect({ port: 1, lookup })
  await new Promise(resolve => socket.on('error', resolve))
  t.strictSame(attempts, ['localhost'])
  await closed(endpoint)
})

t.test('several services and clients in both directions need one UDP port each', async t => {
  const secureContext = createSecureContext({ psk })
  const [a, b] = await Promise.all(
    [1, 2].map(() => opened(createEndpoint({ secureContext, host, ikePort: 0 }))),
  )
  const one = await listening(a!.createServer(says('one')))
  const two = await listening(a!.createServer(says('two')))
  const back = await listening(b!.createServer(says('back')))
  const seen: string[] = []
  b!.on('session', session => seen.push(session.gatewayAddress))
  const toA = { host, ikePort: a!.ikePort! }
  t.equal(await answerOf(b!.connect({ ...toA, port: one })), 'one')
  t.equal(await answerOf(b!.connect({ ...toA, port: two })), 'two')
  t.equal(b!.sessions.length, 1, 'both go over one session')
  t.equal(a!.sessions[0]?.gatewayPort, b!.ikePort, 'which comes from the port of the endpoint')
  t.equal(await answerOf(a!.connect({ host, port: back, ikePort: b!.ikePort! })), 'back')
  t.equal(a!.sessions.length, 2, 'the other way there is another one')
  t.strictSame(seen, [host, host])
  t.equal(
    await answerOf(createSecureSocket({ ...toA, port: one, psk })),
    'one',
    'a client without an endpoint is served too',
  )
  t.ok((a!.counters['datagramsIn'] as number) > 0)
  await Promise.all([closed(a!), closed(b!)])
  t.equal(a!.address(), null)
})

t.test('one endpoint speaks to several gateways, each under its own session', async t => {
  const gateways = await Promise.all(
    ['x', 'y', 'z'].map(async name => {
      const server = createSecureServer({ psk, ikePort: 0, localId: `${name}.test` }, says(name))
      server.listen(0, host)
      await once(server, 'listening')
      return server
    }),
  )
  const endpoint = await opened(createEndpoint({ psk, host, ikePort: 0 }))
  const answers = await Promise.all(
    gateways.map((server, at) =>
      answerOf(
        endpoint.connect({
          host,
          port: server.address()!.port,
          ikePort: server.ikePort!,
          remoteId: `${'xyz'[at]}.test`,
        }),
      ),
    ),
  )
  t.strictSame(answers, ['x', 'y', 'z'])
  t.strictSame(endpoint.sessions.map(({ peerId }) => peerId).sort(), ['x.test', 'y.test', 'z.test'])
  const wrong = endpoint.connect({
    host,
    port: gateways[0]!.address()!.port,
    ikePort: gateways[0]!.ikePort!,
    remoteId: 'other.test',
  })
  t.equal(await answerOf(wrong), 'AUTHENTICATION_FAILED', 'whom it expects is checked for each')
  await closed(endpoint)
  await Promise.all(gateways.map(closed))
})

t.test('a session reaches only the servers that admit its principal', async t => {
  const keys = { 'a.test': `${psk} of a`, 'b.test': `${psk} of b`, 'c.test': `${psk} of c` }
  const endpoint = await opened(createEndpoint({ psk: keys, host, ikePort: 0 }))
  const only = (id: string): SecureServer =>
    endpoint.createServer({ authorize: peer => peer.id === id }, says(`for ${id}`))
  const forA = only('a.test')
  const forB = only('b.test')
  const seen = { a: 0, b: 0 }
  forA.on('session', () => seen.a++)
  forB.on('session', () => seen.b++)
  const ports = { a: await listening(forA), b: await listening(forB) }
  const dial = (name: 'a' | 'b' | 'c', port: number): Promise<string> =>
    answerOf(
      createSecureSocket({
        host,
        port,
        ikePort: endpoint.ikePort!,
        psk: keys[`${name}.test`],
        localId: `${name}.test`,
      }),
    )
  t.equal(await dial('a', ports.a), 'for a.test')
  t.equal(await dial('a', ports.b), 'ECONNREFUSED')
  t.equal(await dial('b', ports.a), 'ECONNREFUSED')
  t.equal(await dial('b', ports.b), 'for b.test')
  t.equal(await dial('c', ports.a), 'AUTHENTICATION_FAILED', 'whom nobody admits is refused')
  t.strictSame(seen, { a: 1, b: 1 })
  // Servers that come when the session is there are asked about it at its first connection.
  const late = endpoint.createServer(
    { authorize: async peer => peer.id === 'b.test' },
    says('late'),
  )
  const port = await listening(late)
  t.equal(await dial('b', port), 'late')
  t.equal(await dial('a', port), 'ECONNRESET')
  t.equal(await dial('a', port), 'ECONNREFUSED', 'and then it is known')
  await closed(endpoint)
})

t.test(
  'the endpoint has a word of its own, and its policy for a peer is the one that holds',
  async t => {
    const endpoint = await opened(
      createEndpoint({
        psk,
        host,
        ikePort: 0,
        authorize: ({ id }) => id !== 'bad.test' && { childLifetime: 5000 },
      }),
    )
    const port = await listening(endpoint.createServer(says('in')))
    const dial = (localId: string): Promise<string> =>
      answerOf(createSecureSocket({ host, port, ikePort: endpoint.ikePort!, psk, localId }))
    t.equal(await dial('good.test'), 'in')
    t.equal(await dial('bad.test'), 'AUTHENTICATION_FAILED')
    await closed(endpoint)
  },
)

t.test(
  'new credentials of an endpoint are those of all its servers and new connections',
  async t => {
    const fresh = 'the key that comes after the first'
    const [a, b] = await Promise.all(
      [1, 2].map(() => opened(createEndpoint({ psk, host, ikePort: 0 }))),
    )
    const port = await listening(a!.createServer(says('in')))
    const dial = (): Promise<string> => answerOf(b!.connect({ host, port, ikePort: a!.ikePort! }))
    t.equal(await dial(), 'in')
    a!.setCredentials({ psk: fresh })
    t.equal(await dial(), 'in', 'the session that is up goes on')
    b!.setCredentials({ secureContext: createSecureContext({ psk: fresh }) } as never)
    t.equal(await dial(), 'in', 'and there is another one for who has others')
    t.equal(b!.sessions.length, 2)
    await Promise.all([closed(a!), closed(b!)])
  },
)

const mayBind = (address: string, port: number): Promise<boolean> =>
  new Promise(resolve => {
    const probe = createSocket(address.includes(':') ? 'udp6' : 'udp4')
    probe.on('error', () => resolve(false))
    probe.bind(port, address, () => probe.close(() => resolve(true)))
  })

for (const hosts of [
  ['127.0.0.1', '127.0.0.2'],
  ['127.0.0.1', '::1'],
]) {
  const canBind = (await Promise.all(hosts.map(address => mayBind(address, 0)))).every(Boolean)
  const skip = canBind ? false : 'this host lacks one of them'
  t.test(`one endpoint at ${hosts.join(' and ')}`, { skip }, async t => {
    const endpoint = await opened(createEndpoint({ psk, host: hosts, ikePort: 0 }))
    const port = await listening(endpoint.createServer(says('in')))
    for (const address of hosts) {
      const socket = createSecureSocket({ host: address, port, ikePort: endpoint.ikePort!, psk })
      t.equal(await answerOf(socket), 'in', address)
    }
    t.equal(endpoint.sessions.length, hosts.length)
    await closed(endpoint)
  })
}

// An address that nothing else on this host is likely to have bound these ports at.
const standard = '127.45.0.1'
const mayBindStandard = (await mayBind(standard, 500)) && (await mayBind(standard, 4500))
t.test(
  'IKE begins at port 500 and goes on at 4500, at one endpoint',
  { skip: mayBindStandard ? false : 'ports 500 and 4500 are not to be had here' },
  async t => {
    const endpoint = await opened(createEndpoint({ psk, host: standard, ikePort: 500 }))
    for (const port of [500, 4500]) t.notOk(await mayBind(standard, port), `${port} is bound`)
    const port = await listening(endpoint.createServer(says('in')))
    // A client may come to either port.
    for (const ikePort of [500, 4500]) {
      const socket = createSecureSocket({ host: standard, port, ikePort, psk })
      t.equal(await answerOf(socket), 'in', `by ${ikePort}`)
    }
    await closed(endpoint)
    t.ok(await mayBind(standard, 4500), 'both are free again')
  },
)

t.test('closing waits for what is open, refuses what is new, and frees the port', async t => {
  const endpoint = await opened(createEndpoint({ psk, host, ikePort: 0 }))
  const ikePort = endpoint.ikePort!
  const server = endpoint.createServer(socket => socket.pipe(socket))
  const port = await listening(server)
  const socket = createSecureSocket({ host, port, ikePort, psk })
  socket.write('there')
  t.equal(String((await once(socket, 'data'))[0]), 'there')
  let isClosed = false
  const ending = closed(endpoint).then(() => (isClosed = true))
  const refusal = answerOf(endpoint.connect({ host, port, ikePort }))
  socket.write('still there')
  t.equal(String((await once(socket, 'data'))[0]), 'still there')
  t.notOk(isClosed)
  socket.end()
  await ending
  t.equal(await refusal, 'EBADF')
  t.equal(await answerOf(endpoint.connect({ host, port, ikePort })), 'EBADF')
  const [error] = (await once(endpoint.createServer().listen(port), 'error')) as [Error]
  t.match(error, { code: 'ERR_SERVER_NOT_RUNNING' })
  let late: unknown
  endpoint.close(reason => (late = reason))
  await new Promise(resolve => setImmediate(resolve))
  t.match(late, { code: 'ERR_SERVER_NOT_RUNNING' })
  const udp = createSocket('udp4').bind(ikePort, host)
  await once(udp, 'listening')
  udp.close()
})

t.test(
  'an endpoint that is opened and left does not hold the process once it is not wanted',
  async t => {
    const endpoint = await opened(createEndpoint({ psk, host, ikePort: 0 }))
    t.equal(endpoint.unref(), endpoint)
    t.equal(endpoint.ref(), endpoint)
    await endpoint[Symbol.asyncDispose]()
    await endpoint[Symbol.asyncDispose]()
  },
)

t.test('a used UDP port, and other options on it, are told with the cure', async t => {
  const udp = createSocket('udp4').bind(0, host)
  await once(udp, 'listening')
  const { port } = udp.address()
  const [used] = (await once(createEndpoint({ psk, host, ikePort: port }), 'error')) as [Error]
  t.match(used, { code: 'EADDRINUSE', port })
  udp.close()
  const server = createSecureServer({ psk, ikePort: 0 })
  server.listen(0, host)
  await once(server, 'listening')
  const ikePort = server.ikePort!
  const other = createEndpoint({ psk: 'another pre-shared key of 32 octets', host, ikePort })
  const [taken] = (await once(other, 'error')) as [Error]
  t.match(taken, { code: 'EADDRINUSE', port: ikePort, message: /createEndpoint/ })
  const third = createSecureServer({ psk: 'another pre-shared key of 32 octets', ikePort })
  third.listen(0, host)
  const [error] = (await once(third, 'error')) as [Error]
  t.match(error, {
    code: 'EADDRINUSE',
    syscall: 'listen',
    port: ikePort,
    message: new RegExp(
      `^listen EADDRINUSE: UDP port ${ikePort} belongs to .*createEndpoint\\(\\)`,
    ),
  })
  t.notMatch(error.message, /another process|:\d+ \(/, 'it is one of this process')
  const same = await opened(createEndpoint({ psk, host, ikePort }))
  await closed(server)
  await closed(same)
})

t.test('options that have no place are refused at once, by name', async t => {
  const made = (options: unknown): unknown => refusedOption(() => createEndpoint(options as never))
  t.equal(made(undefined), 'options')
  t.equal(made({}), 'psk')
  t.equal(made({ psk, prot: 1 }), 'prot')
  t.equal(made({ psk, host: [] }), 'host')
  t.match(made({ psk, host: 'a.test' }), { code: 'ERR_INVALID_IP_ADDRESS' })
  t.match(made({ psk, ikePort: 70000 }), { code: 'ERR_SOCKET_BAD_PORT' })
  t.equal(made({ psk, servername: 'a.test' }), 'servername')
  t.equal(made({ psk, checkServerIdentity: () => undefined }), 'checkServerIdentity')
  const endpoint = await opened(createEndpoint({ psk, host, ikePort: 0 }))
  const { address, port } = endpoint.address()!
  t.equal(address, host)
  for (const extra of [{ psk }, { mtu: 1400 }, { secureContext: createSecureContext({ psk }) }]) {
    const [name] = Object.keys(extra)
    t.equal(
      refusedOption(() => endpoint.connect({ port: 1, ...extra } as never)),
      name,
    )
    t.equal(
      refusedOption(() => endpoint.createServer(extra as never)),
      name,
    )
  }
  t.equal(
    refusedOption(() => endpoint.createServer({ ikePort: port } as never)),
    'ikePort',
  )
  t.equal(
    refusedOption(() => createSecureServer({ endpoint: {} as never })),
    'endpoint',
  )
  t.equal(
    refusedOption(() => createSecureSocket({ port: 1, endpoint: 1 as never })),
    'endpoint',
  )
  for (const name of ['ikePort', 'host', 'endpoint']) {
    t.equal(
      refusedOption(() => endpoint.setCredentials({ [name]: 1 })),
      name,
    )
  }
  t.equal(
    refusedOption(() => endpoint.setCredentials(null as never)),
    'options',
  )
  t.match(
    refusedOption(() => endpoint.close(1 as never)),
    { code: 'ERR_INVALID_ARG_TYPE' },
  )
  await closed(endpoint)
})
