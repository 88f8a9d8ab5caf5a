/** What the system knows of the way to a host, and tells TCP alone. */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'
import t from 'tap'
import { createSecureServer, createSecureSocket } from '../../lib/index.ts'
import { askForWay } from '../../lib/node/reachability.ts'

/** Linux refuses a TCP connection to a group of hosts before it sends anything. */
const NOT_FOR_TCP = '224.0.0.1'

const ask = (host: string, port: number): Promise<string | undefined> =>
  new Promise(resolve => {
    let said: string | undefined
    askForWay(
      host,
      port,
      code => (said = code),
      () => resolve(said),
    )
  })

t.test(
  'a host that TCP does not reach is called unreachable, one that refuses or accepts is not',
  async t => {
    t.equal(await ask(NOT_FOR_TCP, 4500), 'ENETUNREACH')
    const server = createServer(socket => socket.destroy())
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    t.equal(await ask('127.0.0.1', port), undefined)
    await new Promise(resolve => server.close(resolve))
    t.equal(await ask('127.0.0.1', port), undefined, 'ECONNREFUSED is about TCP')
  },
)

t.test('a question that is ended answers nothing', async t => {
  const said: string[] = []
  await new Promise<void>(resolve => {
    const end = askForWay(NOT_FOR_TCP, 4500, code => said.push(code), resolve)
    end()
  })
  t.strictSame(said, [])
})

t.test('a socket to it fails at once, with the code and the place', async t => {
  const socket = createSecureSocket({ host: NOT_FOR_TCP, port: 80, psk: 'sixteen octets or more' })
  const error = await new Promise(resolve => socket.once('error', resolve))
  t.match(error, { code: 'ENETUNREACH', syscall: 'connect', address: NOT_FOR_TCP, port: 4500 })
})

t.test(
  'a gateway on this host is not called by TCP, whichever of its addresses it has',
  { skip: process.platform === 'linux' ? false : 'other systems have 127.0.0.1 alone' },
  async t => {
    const host = '127.0.0.77'
    const psk = 'a pre-shared key for these tests'
    const server = createSecureServer({ psk, ikePort: 0 }, socket => socket.end('hello'))
    server.listen(0, host)
    await once(server, 'listening')
    let calls = 0
    const plain = createServer(socket => {
      calls++
      socket.destroy()
    })
    plain.listen(server.ikePort, host)
    await once(plain, 'listening')
    const { port } = server.address() as AddressInfo
    const socket = createSecureSocket({ host, port, psk, ikePort: server.ikePort })
    socket.resume()
    await once(socket, 'close')
    // The calls are accepted in their order.
    const last = connect(server.ikePort!, host)
    await once(last, 'close')
    t.equal(calls, 1, 'only the connection of this test')
    server.close()
    await new Promise(resolve => plain.close(resolve))
  },
)
