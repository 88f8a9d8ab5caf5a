/** What a program can learn of the negotiation: errors with details, the diagnostics channel, NODE_DEBUG. */
import { execFile } from 'node:child_process'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { promisify } from 'node:util'
import t from 'tap'
import {
  createSecureServer,
  createSecureSocket,
  type IpsecError,
  type RefusedPeer,
  type SecureServer,
} from '../../lib/index.ts'
import { packageUrl } from '../harness/package.ts'

const psk = 'a pre-shared key for these tests'
const execute = promisify(execFile)

const serve = async (options: object = {}): Promise<SecureServer> => {
  const server = createSecureServer({ psk, ikePort: 0, ...options }, socket => socket.end())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

const open = (server: SecureServer, options: object = {}) =>
  createSecureSocket({
    host: '127.0.0.1',
    port: server.address()!.port,
    ikePort: server.ikePort!,
    psk,
    ...options,
  })

const closed = (server: SecureServer): Promise<void> =>
  new Promise(resolve => void server.close(() => resolve()))

for (const [kind, client, server, details] of [
  [
    'an IKE SA',
    { ike: 'aes256gcm16-prfsha256-x25519' },
    { ike: 'aes128gcm16-prfsha256-x25519' },
    {
      offered: ['aes256gcm16-prfsha256-x25519'],
      accepted: ['aes128gcm16-prfsha256-x25519'],
      unmet: ['Encr'],
    },
  ],
  [
    'a Child SA',
    { esp: 'aes256gcm16-esn' },
    { esp: 'aes256gcm16-noesn' },
    { offered: ['aes256gcm16-esn'], accepted: ['aes256gcm16-noesn'], unmet: ['Esn'] },
  ],
] as const) {
  t.test(
    `ikeClientError says why ${kind} was refused, the client's error what it offered`,
    async t => {
      const listening = await serve(server)
      const refused = once(listening, 'ikeClientError')
      const socket = open(listening, client)
      const [[ours, peer], [theirs]] = (await Promise.all([refused, once(socket, 'error')])) as [
        [IpsecError, RefusedPeer],
        [IpsecError],
      ]
      t.equal(ours.code, 'NO_PROPOSAL_CHOSEN')
      t.strictSame(ours.details, details)
      t.equal(peer.address, '127.0.0.1')
      t.equal(theirs.code, 'NO_PROPOSAL_CHOSEN')
      t.strictSame(theirs.details?.['offered'], details.offered)
      await closed(listening)
    },
  )
}

t.test('the channel ike-socket:trace has every exchange by name', async t => {
  const events: { name: string; facts: Record<string, unknown> }[] = []
  const note = (event: unknown): void => void events.push(event as (typeof events)[number])
  subscribe('ike-socket:trace', note)
  const server = await serve()
  const socket = open(server)
  await once(socket.resume(), 'close')
  await closed(server)
  unsubscribe('ike-socket:trace', note)
  const requests = events
    .filter(({ name }) => name === 'ike.request.sent')
    .map(({ facts }) => facts['exchange'])
  t.strictSame(requests, ['IKE_SA_INIT', 'IKE_AUTH', 'INFORMATIONAL'])
  for (const name of ['ike.established', 'child.installed', 'ike.closed']) {
    t.equal(events.filter(event => event.name === name).length, 2, `${name} at both ends`)
  }
})

t.test('NODE_DEBUG=ike-socket prints the same', async t => {
  const program = `
    import { createSecureServer, createSecureSocket } from '${packageUrl('index')}'
    const psk = ${JSON.stringify(psk)}
    const server = createSecureServer({ psk, ikePort: 0 }, socket => socket.end())
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      const socket = createSecureSocket({ host: '127.0.0.1', port, ikePort: server.ikePort, psk })
      socket.resume().on('close', () => server.close())
    })`
  const { stderr } = await execute(process.execPath, ['--input-type=module', '-e', program], {
    env: { ...process.env, NODE_DEBUG: 'ike-socket' },
  })
  t.match(stderr, /^IKE-SOCKET \d+: ike\.request\.sent .*"exchange":"IKE_SA_INIT"/m)
  t.match(stderr, /^IKE-SOCKET \d+: ike\.established .*"suite":/m)
})
