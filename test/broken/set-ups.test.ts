/** Broken set-ups with real sockets and the package's defaults: both ends say what is wrong and what helps, and soon. */
import dgram from 'node:dgram'
import { once } from 'node:events'
import net from 'node:net'
import { networkInterfaces } from 'node:os'
import t from 'tap'
import { nodeProblem } from '../../lib/base/supported-node.ts'
import { createSecureServer, type IpsecError } from '../../lib/index.ts'
import { waitsOf } from './in-virtual-time.ts'
import { causeOf, connected, diagnose, failureOf, listen, outcomeOf, towards } from './outcome.ts'
import { SET_UPS } from './set-ups.ts'

/** Milliseconds that either end waits at most, in virtual time: a busy machine changes nothing. */
const LIMIT = 5000
const psk = 'a key that both of these ends know'

t.test(
  'there are thirty-six, each with a sentence at the client and, where it can know, at the server',
  t => {
    t.equal(SET_UPS.length, 36)
    const silent = SET_UPS.filter(({ serverSays }) => serverSays === undefined)
    // There the client ends the handshake before it has said anything that is wrong.
    t.strictSame(
      silent.map(({ name }) => name),
      [
        'the client has no key for that server',
        'a post-quantum key is demanded of a server that has none',
      ],
    )
    t.end()
  },
)

// Most of their time is waiting for a refusal outside protection to be repeated (RFC 7296 section 2.21.1), so all run at once.
const outcomes = SET_UPS.map(setUp => ({ setUp, outcome: outcomeOf(setUp) }))

for (const { setUp, outcome } of outcomes) {
  t.test(setUp.name, async t => {
    const { clientSays, serverSays, doctorSays } = setUp
    const { error, ours, diagnosis } = await outcome
    t.match(error.message, clientSays, 'the client')
    t.ok(error.message.endsWith(error.cure ?? '?'), 'ends with what helps')
    if (serverSays !== undefined) {
      t.match(ours?.message, serverSays, 'the server')
      t.ok(ours?.message.endsWith(ours.cure ?? '?'), 'ends with what helps')
    }
    const cause = causeOf(diagnosis)
    t.match(cause, doctorSays ?? clientSays, 'the doctor')
    t.ok(diagnosis.cause?.cure, 'says what helps')
    t.notOk(`${error.message}${ours?.message}${cause}`.includes(psk), 'without the key')
    const waits = await waitsOf(setUp)
    t.ok(waits.client! <= LIMIT, 'the client knows soon')
    t.ok((waits.server ?? 0) <= LIMIT, 'and so does the server')
    t.equal(waits.server === undefined, serverSays === undefined)
  })
}

const PSK = { psk, localId: 'client.test' }

t.test('no IKE server listens on that UDP port', async t => {
  const server = await listen({ psk })
  const to = towards(server)
  server.close()
  await once(server, 'close')
  const error = await failureOf({ ...to, ...PSK })
  t.equal(error.code, 'ECONNREFUSED')
  t.match(error.message, /^connect ECONNREFUSED 127\.0\.0\.1:\d+ \(UDP: the host, or a firewall/)
  t.match(
    causeOf(await diagnose({ ...to, ...PSK })),
    /^UDP: UDP port \d+ of 127\.0\.0\.1 is refused \(ECONNREFUSED\): the host, .* nothing listens there\. Start the server/,
  )
})

t.test('a server of plain TCP', async t => {
  const plain = net.createServer().listen(0, '127.0.0.1')
  await once(plain, 'listening')
  const { port } = plain.address() as net.AddressInfo
  const error = await failureOf({ host: '127.0.0.1', port, ikePort: port, ...PSK })
  t.match(error.message, /ECONNREFUSED.*a server of plain TCP or TLS does not speak IKE/)
  t.match(
    causeOf(await diagnose({ host: '127.0.0.1', port, ikePort: port, ...PSK })),
    /^UDP: .*TCP port \d+ of it accepts connections outside the tunnel: a server of plain TCP/,
  )
  plain.close()
})

/** A UDP port that somebody has who says nothing. */
const takePort = async (): Promise<dgram.Socket> => {
  const socket = dgram.createSocket('udp4')
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  return socket
}

t.test('nothing answers on UDP', async t => {
  const hole = await takePort()
  const { port: ikePort } = hole.address()
  const retransmit = { initial: 100, factor: 1, max: 100, tries: 2 }
  const error = await failureOf({ host: '127.0.0.1', port: 80, ikePort, retransmit, ...PSK })
  t.equal(error.code, 'ETIMEDOUT')
  t.match(
    error.message,
    /No answer to IKE over UDP from 127\.0\.0\.1 port \d+.*nothing was received/,
  )
  t.match(
    error.message,
    /Check that UDP port \d+ is open on the way to 127\.0\.0\.1 and that the server runs/,
  )
  t.match(
    causeOf(await diagnose({ host: '127.0.0.1', port: 80, ikePort, ...PSK })),
    /^UDP: No answer to IKE over UDP from 127\.0\.0\.1 port \d+ within 5 s: .*the host is there, since TCP answers\. Check that UDP port/,
  )
  hole.close()
})

t.test('nothing listens on the port inside the tunnel', async t => {
  const server = await listen({ psk })
  const error = await failureOf({ ...towards(server), port: 9, ...PSK })
  t.equal(error.code, 'ECONNREFUSED')
  t.match(
    error.message,
    /^connect ECONNREFUSED 127\.0\.0\.1:9 \(inside the tunnel: .*nothing listens/,
  )
  const { steps, ...diagnosis } = await diagnose({ ...towards(server), port: 9, ...PSK })
  t.match(causeOf({ steps, ...diagnosis }), /^port: connect ECONNREFUSED 127\.0\.0\.1:9 \(inside/)
  const bad = steps.filter(({ state }) => state !== 'ok').map(({ name }) => name)
  t.strictSame(bad, ['port'], 'all else is well')
  server.close()
})

const hasIpv6 = Object.values(networkInterfaces()).some(list =>
  list?.some(({ address }) => address === '::1'),
)

t.test(`the server has IPv4 alone${hasIpv6 ? '' : ' (skipped: no IPv6 here)'}`, async t => {
  if (!hasIpv6) return
  const server = await listen({ psk })
  const error = await failureOf({ ...towards(server), host: '::1', ...PSK })
  t.match(error.message, /ECONNREFUSED ::1:.*an IPv6 address.*"family: 4"/)
  t.match(
    causeOf(await diagnose({ ...towards(server), host: '::1', ...PSK })),
    /^UDP: .*refused.*this IPv6 address \(else "family: 4"\)/,
  )
  server.close()
})

t.test('another daemon has the UDP port', async t => {
  const other = await takePort()
  const { port: ikePort } = other.address()
  const server = createSecureServer({ psk, ikePort })
  server.listen(0, '127.0.0.1')
  const [error] = (await once(server, 'error')) as [NodeJS.ErrnoException]
  t.equal(error.code, 'EADDRINUSE')
  t.match(
    error.message,
    `127.0.0.1:${ikePort} (UDP; another IKE daemon, or a server of another process`,
  )
  t.match(error.message, /choose another "ikePort"/)
  other.close()
})

t.test('a Child SA is rekeyed by a peer without the key exchange that is demanded', async t => {
  const server = await listen({ psk, pfs: true })
  const refused = once(server, 'ikeClientError') as Promise<[IpsecError, unknown]>
  const socket = await connected({ ...towards(server), ...PSK, pfs: false })
  socket.session!.rekeyChild()
  const [error] = await refused
  t.match(
    error.message,
    /No proposal for the Child SA meets in Ke: .*Set the option "esp" or "pfs" at one end/,
  )
  t.match(
    causeOf(await diagnose({ ...towards(server), ...PSK, localId: 'doctor.test', pfs: false })),
    /^rekey: .*NO_PROPOSAL_CHOSEN.*Set .*"pfs"/,
  )
  socket.destroy()
  server.close()
})

t.test('a peer speaks IKEv1', async t => {
  const server = await listen({ psk })
  const refused = once(server, 'ikeClientError') as Promise<[IpsecError, unknown]>
  const old = dgram.createSocket('udp4')
  const main = Buffer.alloc(4 + 28)
  main.fill(7, 4, 12)
  main.set([1, 0x10, 2, 0], 4 + 16)
  main.writeUInt32BE(28, 4 + 24)
  old.send(main, server.ikePort, '127.0.0.1')
  const [error] = await refused
  t.match(error.message, /speaks IKEv1.*\. Set the peer to IKEv2: version = 2/)
  old.close()
  server.close()
})

t.test('a server whose program does not listen for refusals is heard by a warning', async t => {
  const server = await listen({ psk: 'another key than the client has' }, false)
  const warned = once(process, 'warning') as Promise<[Error & { code?: string }]>
  await failureOf({ ...towards(server), ...PSK })
  const [warning] = await warned
  t.equal(warning.code, 'IKE_CLIENT_REFUSED')
  t.match(
    warning.message,
    /127\.0\.0\.1:\d+ was refused: .*does not know the pre-shared key\. Compare/,
  )
  server.close()
})

t.test('Node is too old', t => {
  t.match(
    nodeProblem('18.20.4'),
    /needs Node 20\.19 or newer, and this is Node 18\.20\.4\. Update Node/,
  )
  t.match(nodeProblem('20.18.3'), /20\.18\.3/)
  for (const version of ['20.19.0', '22.1.0', '24.0.0']) t.equal(nodeProblem(version), undefined)
  t.end()
})
