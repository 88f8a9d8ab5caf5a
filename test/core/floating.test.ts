/** IKE that begins at port 500 and goes on at 4500 (RFC 7296 §2.23), between whole endpoints. */
import t from 'tap'
import { parseAddress } from '../../lib/base/address.ts'
import { getU32 } from '../../lib/base/bytes.ts'
import { Packet } from '../../lib/base/packet.ts'
import type { Path } from '../../lib/base/path.ts'
import { SILENT } from '../../lib/base/trace.ts'
import { Core } from '../../lib/core/core.ts'
import { parseCredentials } from '../../lib/identity/credentials.ts'
import { parsePolicy } from '../../lib/policy/options.ts'
import { DEFAULT_TCP_CONFIG } from '../../lib/tcp/config.ts'
import { IKE_HEADER_LENGTH, readIkeHeader } from '../../lib/wire/ike-header.ts'
import { ExchangeType } from '../../lib/wire/registry.ts'
import { seededEnvironment } from '../harness/random.ts'

const CLIENT = parseAddress('198.51.100.7')!
const SERVER = parseAddress('192.0.2.1')!
/** The client's two sockets have a port each, as its NAT gives each a port of its own. */
const CLIENT_PORTS = [40_000, 45_000]
const SERVER_PORTS = [500, 4500]

const pathFrom = (socket: number, client: boolean): Path => ({
  socket,
  localAddress: client ? CLIENT : SERVER,
  localPort: (client ? CLIENT_PORTS : SERVER_PORTS)[socket]!,
  remoteAddress: client ? SERVER : CLIENT,
  remotePort: (client ? SERVER_PORTS : CLIENT_PORTS)[socket]!,
  isUnmarked: socket === 0,
})

const start = (serverOptions: object = {}) => {
  const security = (options: object) => {
    const all = { psk: 'simulated pre-shared key', ...options }
    return { policy: parsePolicy(all), credentials: parseCredentials(all) }
  }
  const base = { tracer: SILENT, tcp: DEFAULT_TCP_CONFIG }
  const client = new Core({ ...base, environment: seededEnvironment(1) })
  const server = new Core({
    ...base,
    environment: seededEnvironment(2),
    responder: security(serverOptions),
  })
  server.listeners.listen(80, 511)
  client.connect(
    { ...security({}), path: { ...pathFrom(0, true), floatsTo: pathFrom(1, true) } },
    { remoteAddress: SERVER, remotePort: 80, localPort: 0, noDelay: false, keepAlive: undefined },
    {},
    1000,
  )
  const sent: { from: string; to: number; bytes: Uint8Array }[] = []
  const connected = (): boolean => {
    for (let event = client.pollEvent(); event !== undefined; event = client.pollEvent()) {
      if (event.kind === 'connected') return true
      if (event.kind === 'failed') throw event.error
    }
    return false
  }
  const packet = new Packet()
  for (let now = 1000; !connected(); now++) {
    if (now > 1100) throw new Error('no connection')
    for (const [from, core, other] of [
      ['client', client, server],
      ['server', server, client],
    ] as const) {
      for (
        let path = core.pollTransmit(packet, now);
        path !== undefined;
        path = core.pollTransmit(packet, now)
      ) {
        const bytes = packet.view().slice()
        const port = from === 'client' ? path.remotePort : path.localPort
        sent.push({ from, to: port, bytes: bytes.slice() })
        other.handleDatagram(bytes, pathFrom(path.socket, from !== 'client'), now)
      }
    }
  }
  return sent
}

const exchangeOf = (bytes: Uint8Array, offset: number): number | undefined =>
  bytes.length >= IKE_HEADER_LENGTH + offset
    ? readIkeHeader(bytes.subarray(offset))?.exchange
    : undefined

t.test('IKE_SA_INIT alone is at port 500 and has no marker, all else is at 4500', async t => {
  const sent = start()
  const early = sent.filter(({ to }) => to === 500)
  t.strictSame(
    early.map(({ from, bytes }) => [from, exchangeOf(bytes, 0)]),
    [
      ['client', ExchangeType.IkeSaInit],
      ['server', ExchangeType.IkeSaInit],
    ],
  )
  const late = sent.filter(({ to }) => to === 4500)
  t.equal(early.length + late.length, sent.length)
  t.strictSame(
    late.slice(0, 2).map(({ bytes }) => [getU32(bytes, 0), exchangeOf(bytes, 4)]),
    [
      [0, ExchangeType.IkeAuth],
      [0, ExchangeType.IkeAuth],
    ],
  )
  t.ok(
    late.slice(2).every(({ bytes }) => getU32(bytes, 0) !== 0),
    'ESP follows',
  )
})

t.test('a cookie and another group are asked for and given at port 500', async t => {
  const sent = start({ cookieThreshold: 0, ike: 'aes256gcm16-prfsha384-ecp384' })
  const early = sent.filter(({ to }) => to === 500)
  t.ok(early.length >= 6, `${early.length} messages`)
  for (const { bytes } of early) t.equal(exchangeOf(bytes, 0), ExchangeType.IkeSaInit)
})
