/** The command `doctor` as a process: lines, JSON, exit codes; what it sends, and that it ends. */
import dgram from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { Diagnostician, STEPS, type Diagnosis, type Step } from '../../lib/cli/diagnose.ts'
import { stepLine } from '../../lib/cli/doctor.ts'
import { painter } from '../../lib/cli/terminal.ts'
import { vendorNames } from '../../lib/cli/vendors.ts'
import { parseIdentity } from '../../lib/identity/identity.ts'
import { createSecureServer, type SecureSocketOptions } from '../../lib/index.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { ExchangeType } from '../../lib/wire/registry.ts'
import { openWay } from '../broken/relay.ts'
import { authority, endEntity } from '../harness/certificates.ts'
import { runCommand } from '../harness/command.ts'
import { Gateway, ONE_SUITE } from '../harness/gateway.ts'

const folder = mkdtempSync(join(tmpdir(), 'ike-doctor-'))
t.after(() => rmSync(folder, { recursive: true }))
const psk = 'a key that both of these ends know'
let files = 0
/** A configuration file of its own. */
const configOf = (options: object): string => {
  const file = join(folder, `${files++}.json`)
  writeFileSync(file, JSON.stringify(options))
  return file
}
// They wait more than they compute: for what does not answer, and for the pace of the probes.
t.jobs = 5

t.test(
  'all is well: each step has its line, in the order of the steps',
  { buffered: true },
  async t => {
    const root = authority('O=Test, CN=Root', 'P-256')
    const end = (name: string) => {
      const { pem, keyPem } = endEntity(name, 'P-256', root)
      return { cert: pem, key: keyPem, ca: root.pem }
    }
    const server = createSecureServer({ ikePort: 0, ...end('server.test') }, socket => socket.end())
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address()!
    const { ikePort } = server
    const config = configOf({ ...end('client.test'), remoteId: 'server.test', ikePort })
    const args = ['doctor', '127.0.0.1', String(port), '--config', config]
    const text = await runCommand(args)
    t.equal(text.code, 0, text.stdout + text.stderr)
    t.match(
      text.stdout,
      /✓ route +To 127\.0\.0\.1 from 127\.0\.0\.1 by the interface lo, packets of/,
    )
    t.match(text.stdout, /✓ UDP +UDP port \d+ of 127\.0\.0\.1 answers, after \d+ ms/)
    t.match(text.stdout, /✓ NAT +No NAT changes our address/)
    t.match(text.stdout, /✓ proposals +ike-socket answers, and takes aes256gcm16-prfsha256-x25519/)
    t.match(text.stdout, /✓ clock +Our clock says .*all 2 certificates are valid/)
    t.match(
      text.stdout,
      /server\.test has proved itself by its certificate, and takes us for client\.test\.\n +✓ 'O=\S+, CN=server\.test', valid from .* to .*\n +✓ 'O=Test, CN=Root', valid from/,
    )
    t.match(text.stdout, /✓ data +AES-GCM-16-256.* in transport mode, for 127\.0\.0\.1/)
    t.match(text.stdout, /✓ round trips +20 of 20 probes were answered/)
    t.match(text.stdout, /✓ MTU +Packets of 9000 octets pass both ways; IKE is cut at 1280/)
    t.match(text.stdout, /✓ rekey +New keys for the data after \d+ ms/)
    t.match(text.stdout, /✓ port +127\.0\.0\.1 port \d+ inside the tunnel accepts connections/)
    t.match(
      text.stdout,
      /✓ selectors +Asked for everything, the peer gives .* there\.\nAll is well\.\n$/,
    )
    t.notOk(text.stdout.includes('\x1b'), 'no colour in a file')

    const json = await runCommand([...args, '--json'])
    const lines = json.stdout
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as Step & { isWell?: boolean; cause?: null })
    const end_ = lines.pop()!
    t.match(end_, { isWell: true, cause: null })
    const order = lines.map(({ name }) => STEPS.indexOf(name))
    t.strictSame(new Set(order), new Set(STEPS.keys()), 'every step')
    server.close()
  },
)

t.test('the exit code names the step that is bad', { buffered: true }, async t => {
  const server = createSecureServer({ ikePort: 0, psk }, socket => socket.end())
  server.on('ikeClientError', () => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { ikePort } = server
  const codeOf = async (options: object, ...args: string[]): Promise<number | null> => {
    const config = configOf({ ikePort, psk, ...options })
    return (await runCommand(['doctor', ...args, '--config', config])).code
  }
  t.equal(await codeOf({}, '127.0.0.1', '9'), 9, 'port')
  t.equal(
    await codeOf({ idleTimeout: 1 }, '127.0.0.1', '9'),
    9,
    'the SA stays without a connection',
  )
  t.equal(await codeOf({ psk: 'another key than that one' }, '127.0.0.1'), 5, 'authentication')
  t.equal(await codeOf({ ike: 'aes128-sha1-modp1024' }, '127.0.0.1'), 4, 'proposals')
  t.equal(await codeOf({}, 'nowhere.invalid'), 3, 'name')
  t.equal(await codeOf({}), 2, 'usage')
  t.equal(await codeOf({}, '127.0.0.1', '70000'), 2, 'usage')
  t.equal(await codeOf({ psk: 5 }, '127.0.0.1'), 1, 'an option that is wrong')
  server.close()
})

t.test(
  'a server that falls silent after its first answer is named, and does not hold the command',
  { buffered: true },
  async t => {
    const server = createSecureServer({ ikePort: 0, psk }, socket => socket.end())
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const front = dgram.createSocket('udp4').bind(0, '127.0.0.1')
    await once(front, 'listening')
    const backs: dgram.Socket[] = []
    front.on('message', (bytes, client) => {
      // IKE_SA_INIT, behind the marker.
      if (bytes[4 + 18] !== 34) return
      const back = dgram.createSocket('udp4')
      backs.push(back)
      back.on('message', answer => front.send(answer, client.port, client.address))
      back.send(bytes, server.ikePort, '127.0.0.1')
    })
    const config = configOf({ ikePort: front.address().port, psk })
    // Longer than what it says it takes; the handshake itself would be given up after a minute.
    const command = runCommand(['doctor', '127.0.0.1', '--config', config])
    const late = new Promise<undefined>(resolve => {
      setTimeout(() => resolve(undefined), 45_000).unref()
    })
    const outcome = await Promise.race([command, late])
    t.equal(outcome?.code, 5)
    t.match(
      outcome?.stdout,
      /authentication +The peer has answered IKE_SA_INIT, and IKE_AUTH does not/,
    )
    for (const socket of [front, ...backs]) socket.close()
    server.close()
    await command
  },
)

t.test(
  'before anybody has proved anything, one IKE_SA_INIT is all that leaves; it ends by itself',
  { buffered: true },
  async t => {
    const hole = dgram.createSocket('udp4').bind(0, '127.0.0.1')
    await once(hole, 'listening')
    const seen: Buffer[] = []
    hole.on('message', message => seen.push(message))
    const secret = 'the password of a user'
    const { pem } = authority('O=Test, CN=Root', 'P-256')
    const options = {
      host: '127.0.0.1',
      ikePort: hole.address().port,
      ca: pem,
      eap: { method: 'mschapv2', identity: 'alice', password: secret } as const,
    }
    const { cause } = await new Diagnostician(options, { report: () => {}, limit: 1500 }).run()
    t.match(cause, { name: 'UDP', says: 'it took too long, and was stopped' })
    t.ok(seen.length > 0)
    for (const message of seen) {
      t.equal(message.readUInt32BE(0), 0, 'non-ESP marker')
      t.equal(message[4 + 18], 34, 'IKE_SA_INIT')
      t.notOk(message.includes(secret) || message.includes('alice'))
    }
    hole.close()
  },
)

t.test(
  'it ends by itself where the peer falls silent at any later moment',
  { buffered: true },
  async t => {
    const server = createSecureServer({ ikePort: 0, psk }, socket => {
      // Of the client that is not heard any more.
      socket.on('error', () => {}).end()
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    // After so many datagrams from IKE_AUTH on: at once, among the probes, at the sizes.
    const ends = [0, 6, 43].map(async many => {
      let count = -1
      const way = await openWay(server.ikePort!, bytes => {
        if (count < 0 && bytes[4 + 18] !== ExchangeType.IkeAuth) return true
        return ++count < many
      })
      const config = configOf({ ikePort: way.port, psk })
      const { code, stdout } = await runCommand([
        ...['doctor', '127.0.0.1', String(server.address()!.port)],
        ...['--config', config],
      ])
      way.close()
      return { code, stdout }
    })
    for (const { code, stdout } of await Promise.all(ends)) {
      t.ok([3, 5, 7, 8, 9].includes(code ?? 0), stdout)
      t.match(stdout, /✗ (UDP|authentication|round trips|MTU|rekey|port)/)
    }
    server.close()
  },
)

/** Somebody who answers in the peer's place, has done the key exchange, and cannot prove that it is the peer. */
const impersonate = async (
  answer: (gateway: Gateway) => Payload[],
): Promise<{ readonly port: number; readonly seen: Payload[][]; close(): void }> => {
  const socket = dgram.createSocket('udp4').bind(0, '127.0.0.1')
  await once(socket, 'listening')
  const gateways = new Map<string, Gateway>()
  const seen: Payload[][] = []
  socket.on('message', (bytes, client) => {
    const datagram = new Uint8Array(bytes)
    const spi = bytes.toString('hex', 4, 12)
    const isInit = bytes[4 + 18] === ExchangeType.IkeSaInit
    if (isInit) {
      const gateway = new Gateway(parseIdentity('localId', 'server.test'))
      gateways.set(spi, gateway)
      return socket.send(gateway.init(datagram), client.port, client.address)
    }
    const gateway = gateways.get(spi)!
    const request = gateway.open(datagram)
    seen.push(request)
    const exchange = bytes[4 + 18]!
    const payloads = exchange === ExchangeType.IkeAuth ? answer(gateway) : []
    socket.send(gateway.seal(bytes[4 + 23]!, payloads, exchange), client.port, client.address)
  })
  return { port: socket.address().port, seen, close: () => socket.close() }
}

/** EAP-Request of Identity (RFC 3748 §5.1). */
const EAP_IDENTITY_REQUEST: Payload = { kind: 'eap', data: Uint8Array.of(1, 1, 0, 5, 1) }

const kindsIn = (message: readonly Payload[]): ReadonlySet<string> =>
  new Set(message.map(({ kind }) => kind))

t.test(
  'an impostor gets no password, no EAP and no more than one proof',
  { buffered: true },
  async t => {
    const root = authority('O=Test, CN=Root', 'P-256')
    const other = authority('O=Test, CN=Other', 'P-256')
    const stranger = endEntity('server.test', 'P-256', other)
    const password = 'the password of a user'
    const byEap = {
      ca: root.pem,
      remoteId: 'server.test',
      eap: { method: 'mschapv2', identity: 'alice', password },
    } as const
    const run = async (
      options: SecureSocketOptions,
      answer: (gateway: Gateway) => Payload[],
    ): Promise<{ diagnosis: Diagnosis; seen: Payload[][] }> => {
      const { port, seen, close } = await impersonate(answer)
      const target = { ikePort: port, ...ONE_SUITE, ...options, host: '127.0.0.1' }
      const diagnosis = await new Diagnostician(target, { report: () => {} }).run()
      close()
      return { diagnosis, seen }
    }

    const certificate = await run(byEap, gateway => [
      ...gateway.proof(stranger),
      EAP_IDENTITY_REQUEST,
    ])
    t.match(certificate.diagnosis.cause, { name: 'authentication', says: /neither a trusted CA/ })
    t.match(certificate.diagnosis.cause?.parts, [
      { state: 'bad', says: /CN=server\.test', issued/ },
    ])
    for (const message of certificate.seen) {
      t.notOk(kindsIn(message).has('eap') || kindsIn(message).has('auth'))
      t.notOk(JSON.stringify(message).includes(password))
    }

    const shared = await run({ psk, localId: 'client.test' }, gateway => [
      gateway.idr,
      gateway.keyed(Buffer.from('not the key that the client has')),
    ])
    t.match(shared.diagnosis.cause, {
      name: 'authentication',
      says: /server\.test could not be authenticated: it does not know the pre-shared key/,
    })
    const proofs = shared.seen.filter(message => kindsIn(message).has('auth'))
    t.equal(proofs.length, 1, 'one proof, under a key that is long enough')

    const short = await run({ psk: 'sesame, open!', localId: 'client.test' }, () => [])
    t.match(short.diagnosis.cause, { name: 'authentication', says: /has 13 octets.*none was sent/ })
    t.equal(short.seen.length, 0, 'IKE_SA_INIT is all that it got')
  },
)

t.test('with --short-key it goes on', { buffered: true }, async t => {
  const server = createSecureServer({ ikePort: 0, psk: 'sesame, open!' }, socket => socket.end())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const config = configOf({ ikePort: server.ikePort, psk: 'sesame, open!' })
  const args = ['doctor', '127.0.0.1', String(server.address()!.port), '--config', config]
  t.equal((await runCommand(args)).code, 5)
  t.equal((await runCommand([...args, '--short-key'])).code, 0)
  server.close()
})

t.test('a line has its mark, in colour on a terminal alone; vendors cannot steer it', t => {
  const step = { name: 'UDP', state: 'bad', says: 'It is silent', cure: 'Open it.' } as const
  t.match(stepLine(step, painter({ isTTY: false })), /^✗ UDP +It is silent\.\n +Open it\.$/)
  if (!process.env['NO_COLOR']) t.match(stepLine(step, painter({ isTTY: true })), '\x1b[31m✗')
  t.equal(vendorNames([Buffer.from('882fe56d6fd20dbc2251613b2ebe5beb', 'hex')]), 'strongSwan')
  t.equal(vendorNames([Buffer.from('OE-Libreswan-5.1')]), 'OE-Libreswan-5.1')
  t.match(vendorNames([Buffer.from('evil\x1b[2J')]), /does not name its make/)
  t.match(vendorNames([]), /does not name its make/)
  t.end()
})
