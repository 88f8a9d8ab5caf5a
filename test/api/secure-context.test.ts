/** Credentials that are read once, for any number of sockets and servers. */
import { once } from 'node:events'
import { inspect } from 'node:util'
import t from 'tap'
import {
  createSecureContext,
  createSecureServer,
  createSecureSocket,
  type SecureSocketOptions,
} from '../../lib/index.ts'
import { refusedOption } from '../harness/refused-option.ts'

const psk = 'a pre-shared key for these tests'

t.test(
  'servers and sockets take a context in the place of options, and share SAs by it',
  async t => {
    let sessions = 0
    const secureContext = createSecureContext({ psk })
    const server = createSecureServer({ secureContext, ikePort: 0 }, socket => socket.end('a'))
    server.on('session', () => sessions++)
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const where = { host: '127.0.0.1', port: server.address()!.port, ikePort: server.ikePort! }
    const answer = async (options: SecureSocketOptions): Promise<string> => {
      const socket = createSecureSocket({ ...where, ...options })
      const [data] = (await once(socket, 'data')) as [Buffer]
      socket.destroy()
      return String(data)
    }
    t.equal(await answer({ secureContext }), 'a')
    t.equal(await answer({ secureContext }), 'a')
    t.equal(await answer({ psk }), 'a', 'equal plain options are the same')
    t.equal(sessions, 1)
    t.equal(await answer({ secureContext, remoteId: '127.0.0.1' }), 'a')
    t.equal(sessions, 2, 'whom a socket expects is its own')
    await new Promise(resolve => void server.close(resolve))
  },
)

t.test('a table of 20,000 keys is read once', t => {
  const table = Object.fromEntries(
    Array.from({ length: 20_000 }, (_, i) => [`d${i}.test`, `${psk} of ${i}`]),
  )
  let reads = 0
  const counted = new Proxy(table, {
    ownKeys: target => {
      reads++
      return Reflect.ownKeys(target)
    },
  })
  const secureContext = createSecureContext({ psk: counted })
  const before = reads
  for (let i = 0; i < 100; i++) {
    createSecureSocket({ host: '127.0.0.1', port: 1, ikePort: 9, secureContext }).destroy()
  }
  t.ok(before > 0)
  t.equal(reads, before)
  t.end()
})

t.test('what is wrong with a context is said at once, by its name', t => {
  const secureContext = createSecureContext({ psk })
  const client = (options: object): unknown =>
    refusedOption(() =>
      createSecureSocket({ host: '127.0.0.1', port: 1, secureContext, ...options }),
    )
  const server = (options: object): unknown =>
    refusedOption(() => createSecureServer({ secureContext, ...options }))
  const context = (options: unknown): unknown =>
    refusedOption(() => createSecureContext(options as never))
  t.equal(context({}), 'psk')
  t.equal(context({ psk, prot: 1 }), 'prot')
  t.equal(context({ psk, ikePort: 1 }), 'ikePort')
  t.equal(context({ psk, secureContext }), 'secureContext')
  t.equal(context(undefined), 'options')
  for (const end of [client, server]) {
    for (const value of [{}, 'context', null, 1]) {
      t.equal(end({ secureContext: value }), 'secureContext')
    }
    for (const extra of [{ psk }, { mtu: 1400 }, { ca: 'x' }]) {
      t.equal(end(extra), Object.keys(extra)[0])
    }
  }
  t.equal(client({ remoteId: '' }), 'remoteId')
  t.equal(server({ authorize: 1 }), 'authorize')
  t.notMatch(inspect(secureContext, { depth: 9, showHidden: true }), psk)
  t.end()
})
