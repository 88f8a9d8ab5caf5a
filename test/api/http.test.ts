/** `ike-socket/http` beside `node:http`: the same steps at both, with the same results. */
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import t from 'tap'
import * as secure from '../../lib/http.ts'
import { freePort } from '../harness/free-port.ts'

/** Where each is made, with an agent that reaches it. */
interface Make {
  readonly name: string
  server(...args: [http.RequestListener] | [http.ServerOptions, http.RequestListener]): http.Server
  agent(options?: http.AgentOptions): http.Agent
}

secure.configure({ psk: 'a pre-shared key for these tests', ikePort: await freePort() })
const MAKES: readonly Make[] = [
  {
    name: 'node:http',
    server: (...args) => http.createServer(...(args as [http.RequestListener])),
    agent: options => new http.Agent(options),
  },
  {
    name: 'ike-socket/http',
    server: (...args) => secure.createServer(...args),
    agent: options => new secure.Agent(options),
  },
]

/** Answers of /slow wait until the test lets them go. */
const open = async (
  t: { teardown(end: () => void): void },
  make: Make,
  options?: http.ServerOptions,
): Promise<{
  server: http.Server
  agent: http.Agent
  ask(path: string, more?: http.RequestOptions): http.ClientRequest
  asked(): Promise<http.ServerResponse>
}> => {
  const waiting: http.ServerResponse[] = []
  let told: () => void = () => {}
  const handler: http.RequestListener = (request, response) => {
    if (request.url !== '/slow') return void response.end('ok')
    waiting.push(response)
    told()
  }
  const server = options === undefined ? make.server(handler) : make.server(options, handler)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const agent = make.agent({ keepAlive: true })
  t.teardown(() => {
    agent.destroy()
    server.closeAllConnections()
    server.close()
  })
  return {
    server,
    agent,
    ask: (path, more) => http.get({ host: '127.0.0.1', port, path, agent, ...more }),
    asked: async () => {
      while (waiting.length === 0) await new Promise<void>(resolve => (told = resolve))
      return waiting.shift()!
    },
  }
}

/** Reads the answer; resolves with the socket, which its agent has back then. */
const answered = async (request: http.ClientRequest): Promise<Socket> => {
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  const { socket } = response
  response.resume()
  await once(response, 'end')
  // Not before this is it free for the next request.
  await new Promise(resolve => setImmediate(resolve))
  return socket
}

const codeOf = (request: http.ClientRequest): Promise<string | undefined> =>
  new Promise(resolve => {
    request.once('error', (error: NodeJS.ErrnoException) => resolve(error.code))
    request.once('response', () => resolve(undefined))
  })

const closed = async (socket: Socket): Promise<void> => {
  if (!socket.closed) await once(socket, 'close')
}

for (const make of MAKES) {
  t.test(`${make.name}: options may be left out, and the agent keeps a connection`, async t => {
    const { ask } = await open(t, make)
    const first = await answered(ask('/a'))
    const second = ask('/b')
    t.equal(await answered(second), first)
    t.ok(second.reusedSocket)
  })

  t.test(`${make.name}: closeIdleConnections closes those, and no other`, async t => {
    const { server, ask, asked } = await open(t, make)
    const idle = await answered(ask('/a', { agent: make.agent({ keepAlive: true }) }))
    const slow = ask('/slow')
    const response = await asked()
    server.closeIdleConnections()
    await closed(idle)
    response.end('late')
    t.notOk((await answered(slow)).destroyed)
  })

  t.test(`${make.name}: closeAllConnections ends a request under way`, async t => {
    const { server, ask, asked } = await open(t, make)
    const code = codeOf(ask('/slow'))
    await asked()
    server.closeAllConnections()
    t.equal(await code, 'ECONNRESET')
  })

  t.test(`${make.name}: close lets the last answer out, and idle connections go`, async t => {
    const { server, agent, ask, asked } = await open(t, make)
    const idle = await answered(ask('/a', { agent: make.agent({ keepAlive: true }) }))
    const slow = ask('/slow')
    const response = await asked()
    const end = once(server, 'close')
    server.close()
    t.notOk(server.listening)
    await closed(idle)
    response.end('late')
    await answered(slow)
    // It would keep its connection.
    agent.destroy()
    await end
  })

  t.test(`${make.name}: headersTimeout answers half a request with 408`, async t => {
    const limits = { headersTimeout: 50, connectionsCheckingInterval: 20 }
    const { server, agent } = await open(t, make, limits)
    const { port } = server.address() as AddressInfo
    const { createConnection } = agent as unknown as { createConnection(to: object): Socket }
    const socket = createConnection.call(agent, { host: '127.0.0.1', port })
    t.teardown(() => socket.destroy())
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n')
    const [answer] = (await once(socket, 'data')) as [Buffer]
    t.match(String(answer), /^HTTP\/1\.1 408 /)
  })

  t.test(
    `${make.name}: keepAliveTimeout ends an idle connection in order, and no busy one`,
    async t => {
      const order: string[] = []
      const ask = async (
        name: string,
        options: http.ServerOptions,
        path: string,
      ): Promise<Socket> => {
        const { server, agent } = await open(t, make, options)
        const { port } = server.address() as AddressInfo
        const { createConnection } = agent as unknown as { createConnection(to: object): Socket }
        // An agent would go by what the server says of its limit.
        const socket = createConnection.call(agent, { host: '127.0.0.1', port })
        t.teardown(() => socket.destroy())
        socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`)
        socket.on('close', hadError => order.push(`${name} ${String(hadError)}`))
        socket.resume()
        return socket
      }
      const limit = { keepAliveTimeout: 50, keepAliveTimeoutBuffer: 0 }
      const [busy, idle, late] = await Promise.all([
        ask('busy', limit, '/slow'),
        ask('idle', limit, '/a'),
        ask('late', { ...limit, keepAliveTimeout: 1500 }, '/a'),
      ])
      await Promise.all([closed(idle), closed(late)])
      t.strictSame(order, ['idle false', 'late false'])
      t.notOk(busy.closed)
    },
  )

  t.test(`${make.name}: setTimeout of the server tells of a silent connection`, async t => {
    const { server, ask } = await open(t, make)
    const timedOut = once(server, 'timeout') as Promise<[Socket]>
    server.setTimeout(50)
    const code = codeOf(ask('/slow'))
    const [socket] = await timedOut
    socket.destroy()
    t.equal(await code, 'ECONNRESET')
  })

  t.test(`${make.name}: timeout of a request is told, and its connection is not kept`, async t => {
    const { ask } = await open(t, make)
    const request = ask('/slow', { timeout: 50 })
    const code = codeOf(request)
    await once(request, 'timeout')
    request.destroy()
    t.equal(await code, 'ECONNRESET')
    const next = ask('/a')
    await answered(next)
    t.notOk(next.reusedSocket)
  })

  t.test(`${make.name}: maxSockets makes requests wait for each other`, async t => {
    const { ask, asked } = await open(t, make)
    const agent = make.agent({ keepAlive: true, maxSockets: 1 })
    t.teardown(() => agent.destroy())
    const slow = ask('/slow', { agent })
    const response = await asked()
    const waits = ask('/a', { agent })
    t.equal(Object.values(agent.requests).flat().length, 1)
    response.end('late')
    const [first, second] = await Promise.all([answered(slow), answered(waits)])
    t.equal(first, second)
  })
}
