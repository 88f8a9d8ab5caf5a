/** An endpoint whose host gets another address: here the loopback has as many as one likes. */
import t from 'tap'
import { networkInterfaces } from 'node:os'
import { formatAddress, parseAddress } from '../../lib/base/address.ts'
import { SILENT } from '../../lib/base/trace.ts'
import type { Connection, SessionHandle } from '../../lib/core/events.ts'
import { parseCredentials } from '../../lib/identity/credentials.ts'
import { Endpoint, type ConnectionOwner, type EndpointWatcher } from '../../lib/node/endpoint.ts'
import { systemNetwork, type Network, type NetworkWatcher } from '../../lib/node/network.ts'
import { parsePolicy } from '../../lib/policy/options.ts'
import { formatEndpoint } from '../../lib/base/path.ts'
import { until } from '../harness/until.ts'

const GATEWAY = '127.0.0.1'
const security = { psk: 'sixteen octets or more' }
const responder = { policy: parsePolicy(security), credentials: parseCredentials(security) }

/** What the system would say, as the test wants it. */
class FakeNetwork implements Network {
  source: string | undefined = '127.0.0.1'
  readonly own = new Set(['127.0.0.1'])
  addresses: string[] = []
  /** There is no way to addresses of that family. */
  isCut = false
  checks = 0
  looks = 0
  watcher: NetworkWatcher | undefined

  watch(watcher: NetworkWatcher): () => void {
    this.watcher = watcher
    return () => (this.watcher = undefined)
  }

  check(): void {
    this.checks++
  }

  has(address: string): boolean {
    return this.own.has(address)
  }

  sourceTowards(_address: string, _port: number, done: (source: string | undefined) => void): void {
    this.looks++
    setImmediate(() => done(this.isCut ? undefined : this.source))
  }

  /** The host has this address now and no other; undefined: none. */
  move(address: string | undefined): void {
    this.own.clear()
    if (address !== undefined) this.own.add(address)
    this.source = address
    this.watcher!.onChange()
  }
}

const watcher = (sessions: SessionHandle[]): EndpointWatcher => ({
  onRefused() {},
  onSessionUp: session => sessions.push(session),
  onSessionDown() {},
  onQuestion: () => Promise.resolve({}),
})

/** A server that answers what it gets, and a client of it on a network that the test changes. */
const open = async (own?: readonly string[]) => {
  const sessions: SessionHandle[] = []
  const theirs = new FakeNetwork()
  theirs.addresses = [...(own ?? [])]
  const options = { tracer: SILENT, responder, watcher: watcher(sessions), network: theirs }
  const server = new Endpoint(options)
  const at = own === undefined ? GATEWAY : undefined
  await new Promise<void>((resolve, reject) =>
    server.bind(
      { addresses: [at], port: 0, ipv6Only: false, reusePort: false },
      () => '',
      error => (error === undefined ? resolve() : reject(error)),
    ),
  )
  server.listen(80, 10, {
    admits: () => true,
    onConnection: connection => ({
      onSession() {},
      onConnected() {},
      onReadable() {
        for (let octets = connection.receive(); octets !== undefined; octets = connection.receive())
          connection.send(octets)
        server.wake(connection)
      },
      onWritable() {},
      onEnded() {},
      onClosed() {},
    }),
  })
  const network = new FakeNetwork()
  const client = new Endpoint({ tracer: SILENT, watcher: watcher([]), network })
  client.openTowards(GATEWAY, server.udpAddress!.port, parseAddress(GATEWAY)!, responder, () => {})
  t.teardown(() => {
    client.destroy()
    server.destroy()
  })
  client.ref()
  return { server, client, network, sessions }
}

/** An echo over one connection: resolves when the octet is back. */
const dial = (client: Endpoint): Promise<() => Promise<void>> =>
  new Promise((resolve, reject) => {
    let connection: Connection | undefined
    let answered: (() => void) | undefined
    const owner: ConnectionOwner = {
      onSession() {},
      onConnected: made => {
        connection = made
        made.context = owner
        resolve(
          () =>
            new Promise(done => {
              answered = done
              made.send(Uint8Array.of(1))
              client.wake(made)
            }),
        )
      },
      onReadable() {
        if (connection?.receive() !== undefined) answered?.()
      },
      onWritable() {},
      onEnded() {},
      onClosed: error => reject(error ?? new Error('it closed')),
    }
    client.connect(
      {
        remoteAddress: parseAddress(GATEWAY)!,
        remotePort: 80,
        localPort: 0,
        noDelay: true,
        keepAlive: undefined,
      },
      owner,
    )
  })

t.test('the address is another one: the same port there, and what is open goes on', async t => {
  const { client, network, sessions } = await open()
  const echo = await dial(client)
  await echo()
  const { port } = client.udpAddress!
  const start = performance.now()
  network.move('127.0.0.2')
  await echo()
  await (
    await dial(client)
  )()
  t.ok(performance.now() - start < 2000, 'old and new sockets')
  t.strictSame(client.udpAddress, { address: '127.0.0.2', port, family: 'IPv4' })
  t.equal(sessions.length, 1)
  const { remoteAddress, remotePort } = sessions[0]!.path
  t.equal(formatEndpoint(remoteAddress, remotePort), `127.0.0.2:${port}`)
})

t.test('no address for a while: nothing ends, and each look is for a way', async t => {
  const { client, network } = await open()
  const echo = await dial(client)
  network.move(undefined)
  await until(() => client.isLost)
  const answer = echo()
  network.move('127.0.0.3')
  await answer
  t.equal(client.isLost, false)
  t.equal(client.udpAddress!.address, '127.0.0.3')
})

t.test('a link that is down and up again, with its address: the peer is asked at once', async t => {
  const { client, network } = await open()
  const echo = await dial(client)
  await echo()
  network.own.clear()
  network.watcher!.onChange()
  // A route is left, and leads nowhere.
  await until(() => client.isLost)
  const heard = client.heard()
  network.move('127.0.0.1')
  await until(() => client.heard() > heard)
  t.equal(client.isLost, false)
  await echo()
})

const hasIpv6 = Object.values(networkInterfaces()).some(list =>
  list?.some(({ address }) => address === '::1'),
)

t.test(
  `no way to the address of the server: it is reached at another one that it has told of${hasIpv6 ? '' : ' (there is no IPv6 here)'}`,
  { skip: !hasIpv6 },
  async t => {
    const { server, client, network, sessions } = await open(['::1'])
    const echo = await dial(client)
    await echo()
    // Whatever goes to or comes from the first address is lost.
    network.isCut = true
    const { core } = client
    const handleDatagram = core.handleDatagram.bind(core)
    core.handleDatagram = (bytes, path, now) => {
      if (path.remoteAddress.length === 16) handleDatagram(bytes, path, now)
    }
    const start = performance.now()
    await echo()
    t.ok(performance.now() - start < 5000, `${performance.now() - start} ms`)
    await (
      await dial(client)
    )()
    t.equal(sessions.length, 1)
    const { remoteAddress } = sessions[0]!.path
    t.equal(formatAddress(remoteAddress), '::1', 'IPv6 from its side, too')
    t.ok(server.core.saCount > 0)
    // That there is still no way to the first address is no reason to leave the second one.
    for (let i = 0; i < 5; i++) {
      network.watcher!.onChange()
      await new Promise(resolve => setTimeout(resolve, 10))
      await echo()
      t.equal(core.clientPath!.remoteAddress.length, 16)
    }
  },
)

t.test('another way while the old one works: it is asked, and used on', async t => {
  const { client, network } = await open()
  const echo = await dial(client)
  await echo()
  const heard = client.heard()
  network.source = '127.0.0.4'
  network.watcher!.onChange()
  await until(() => client.heard() > heard)
  await echo()
  t.equal(client.udpAddress!.address, '127.0.0.1')
})

t.test('a new connection has the network looked at', async t => {
  const { client, network } = await open()
  await (
    await dial(client)
  )()
  const { checks } = network
  await dial(client)
  t.equal(network.checks, checks + 1)
})

t.test('what the system knows: its addresses, and which one leads somewhere', async t => {
  t.ok(systemNetwork.has('127.0.0.1'))
  t.notOk(systemNetwork.has('192.0.2.77'))
  const towards = (address: string) =>
    new Promise<string | undefined>(resolve => systemNetwork.sourceTowards(address, 4500, resolve))
  t.equal(await towards('127.0.0.1'), '127.0.0.1')
  t.equal(await towards('255.255.255.255'), undefined, 'EACCES')
})
