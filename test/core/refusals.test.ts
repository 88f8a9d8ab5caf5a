/** What bad input gets, on whole endpoints in virtual time. */
import t from 'tap'
import { getU32 } from '../../lib/base/bytes.ts'
import type { TraceEvent } from '../../lib/base/trace.ts'
import type { CoreEvent } from '../../lib/core/events.ts'
import { formatProposal, parseProposals } from '../../lib/policy/proposal.ts'
import { writeMessage } from '../../lib/wire/message.ts'
import { TransformType } from '../../lib/wire/registry.ts'
import type { Transform } from '../../lib/wire/sa.ts'
import { datagramOf, initFacts, spiOf, Target } from '../harness/attacker.ts'
import { authority, endEntity } from '../harness/certificates.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'
import { Random } from '../harness/random.ts'

const attempt = (client: Options, server: Options, port = 80): { world: World; stream: Stream } => {
  const world = new World(1, PERFECT, client, server)
  const stream = new Stream(1000, 1, 2)
  world.connect(stream, port)
  world.run(300_000, () => stream.closed)
  return { world, stream }
}
const codeOf = (error: unknown): unknown => (error as { code?: unknown } | undefined)?.code
const detailsOf = (error: unknown): unknown => (error as { details?: unknown } | undefined)?.details
const refusals = (world: World): readonly (CoreEvent & { kind: 'refused' })[] =>
  world.events.filter((event): event is CoreEvent & { kind: 'refused' } => event.kind === 'refused')

t.test('a wrong key and an unknown identity give the client the same words', t => {
  const wrong = attempt({ psk: 'wrong wrong wrong wrong' }, {})
  const unknown = attempt({ localId: 'mallory' }, { psk: { alice: 'simulated pre-shared key' } })
  for (const { world, stream } of [wrong, unknown]) {
    t.equal(codeOf(stream.error), 'AUTHENTICATION_FAILED')
    t.match(
      stream.error?.message,
      /refused our authentication: we said that we are .*, proved it by the pre-shared key, and asked for no identity/,
    )
    t.equal(world.accepted.length, 0)
    t.equal(refusals(world).length, 1)
  }
  t.match(
    refusals(wrong.world)[0]?.error.message,
    /198\.51\.100\.7.*does not know the pre-shared key/,
  )
  t.match(refusals(unknown.world)[0]?.error.message, /mallory.*there is no pre-shared key/)
  unknown.world.run(120_000)
  t.ok(unknown.world.server.isIdle, 'the SA is gone')
  t.end()
})

t.test('a client that expects another identity ends the SA and says so', t => {
  const { stream } = attempt({ remoteId: 'server.test' }, { localId: 'other.test' })
  t.equal(codeOf(stream.error), 'AUTHENTICATION_FAILED')
  t.match(stream.error?.message, /other\.test could not be authenticated: server\.test is expected/)
  t.end()
})

t.test('no common proposal: the client lists its offer, the server both sides', t => {
  const { world, stream } = attempt(
    { ike: 'aes256gcm16-prfsha384-ecp384' },
    { ike: 'aes128gcm16-prfsha256-x25519' },
  )
  t.equal(codeOf(stream.error), 'NO_PROPOSAL_CHOSEN')
  t.strictSame((stream.error as { details?: unknown }).details, {
    offered: ['aes256gcm16-prfsha384-ecp384'],
  })
  t.match(
    refusals(world)[0]?.error.message,
    /offered aes256gcm16-prfsha384-ecp384.*accepted aes128gcm16-prfsha256-x25519/,
  )
  t.end()
})

t.test('the server names each type of transform in which an offer did not meet', t => {
  const { world } = attempt(
    { ike: 'aes256gcm16-prfsha384-ecp384' },
    { ike: 'aes256gcm16-prfsha256-x25519' },
  )
  t.strictSame(detailsOf(refusals(world)[0]?.error), {
    offered: ['aes256gcm16-prfsha384-ecp384'],
    accepted: ['aes256gcm16-prfsha256-x25519'],
    unmet: ['Prf', 'Ke'],
  })
  t.end()
})

t.test(
  'no common Child SA proposal fails the socket with the reason, and the server says why',
  t => {
    const { world, stream } = attempt(
      { esp: 'aes256gcm16-noesn', localId: 'alice' },
      { esp: 'chacha20poly1305-noesn' },
    )
    t.equal(codeOf(stream.error), 'NO_PROPOSAL_CHOSEN')
    t.strictSame(detailsOf(stream.error), {
      offered: ['aes256gcm16-noesn'],
      localSelectors: ['198.51.100.7[tcp]'],
      remoteSelectors: ['192.0.2.1[tcp]'],
    })
    const [refusal] = refusals(world)
    t.equal(codeOf(refusal?.error), 'NO_PROPOSAL_CHOSEN')
    t.equal(refusal?.identity, 'alice')
    t.match(refusal?.error.message, /Child SA meets in Encr: offered aes256.*accepted chacha20/)
    t.strictSame(detailsOf(refusal?.error), {
      offered: ['aes256gcm16-noesn'],
      accepted: ['chacha20poly1305-noesn'],
      unmet: ['Encr'],
    })
    t.end()
  },
)

t.test('traffic selectors that do not meet are named on both sides', t => {
  const { world, stream } = attempt(
    { mode: 'tunnel', remoteTs: '10.1.0.0/16' },
    { mode: 'tunnel', localTs: '10.2.0.0/16' },
  )
  t.equal(codeOf(stream.error), 'TS_UNACCEPTABLE')
  t.match(detailsOf(stream.error), { remoteSelectors: ['10.1.0.0/16'] })
  t.match(detailsOf(refusals(world)[0]?.error), {
    offered: { local: ['10.1.0.0/16'], remote: ['198.51.100.7'] },
    accepted: { local: ['10.2.0.0/16'] },
  })
  t.end()
})

t.test('algorithms that only a peer has are called by their names', t => {
  const offer = (group: number, more: readonly Transform[]) => {
    const target = new Target()
    const [usual] = parseProposals('ike', 'aes256gcm16-prfsha256-x25519', 'ike')
    const kept = usual!.transforms.filter(({ type }) => type !== TransformType.Ke)
    const message = writeMessage(initFacts(spiOf(1)), [
      { kind: 'sa', proposals: [{ ...usual!, transforms: [...kept, ...more] }] },
      { kind: 'ke', group, data: new Uint8Array(1184) },
      { kind: 'nonce', data: new Uint8Array(32) },
    ])
    target.send(datagramOf(message))
    const [event] = target.events
    return event?.kind === 'refused' ? event.error.message.split('; accepted')[0]! : ''
  }
  const mlKem = { type: TransformType.Ke, id: 36 }
  t.match(offer(36, [mlKem]), /meets in Ke: offered aes256gcm16-prfsha256-mlkem768$/)
  t.match(
    offer(31, [
      { type: TransformType.Ke, id: 31 },
      { type: 6, id: 36 },
      { type: 12, id: 35 },
    ]),
    /meets in AdditionalKe1, AdditionalKe7: .*-x25519-ke1_mlkem768-ke7_mlkem512$/,
  )
  t.match(offer(5, [{ type: TransformType.Ke, id: 5 }]), /-modp1536$/)
  t.match(offer(24, [{ type: TransformType.Ke, id: 24 }]), /-modp2048s256$/)
  t.match(offer(28, [{ type: TransformType.Ke, id: 28 }]), /-ecp256bp$/)
  t.match(offer(31, [mlKem, { type: TransformType.Encr, id: 3 }]), /-3des$/)
  t.match(offer(31, [mlKem, { type: TransformType.Encr, id: 13, keyLength: 192 }]), /-aes192ctr$/)
  t.match(offer(31, [mlKem, { type: TransformType.Encr, id: 28, keyLength: 256 }]), /1305:256$/)
  t.match(offer(31, [mlKem, { type: TransformType.Integ, id: 8 }]), /-aescmac$/)
  t.match(offer(31, [mlKem, { type: TransformType.Prf, id: 4 }]), /-prfaesxcbc$/)
  t.match(
    offer(31, [mlKem, { type: 13, id: 4 }]),
    /in Ke, 13: .*-13:4$/,
    'unless nobody knows them',
  )
  for (const text of ['aes128-sha1-prfsha512-ecp521', 'chacha20poly1305-prfsha384-x448'])
    t.equal(parseProposals('ike', text, 'ike').map(formatProposal).join(), text, 'and ours too')
  t.end()
})

t.test('a client that wants to log in by EAP is told apart from one that proves nothing', t => {
  const eap = { method: 'mschapv2', identity: 'alice', password: 'wonderland' }
  const issuer = authority('CN=CA', 'P-256')
  const ca = issuer.pem
  const own = endEntity('server.test', 'P-256', issuer)
  const byCertificate = { psk: undefined, ca, cert: own.pem, key: own.keyPem }
  const others = { psk: { 'bob.test': 'a key of bob alone' }, remoteId: 'bob.test' }
  for (const server of [{}, others, byCertificate]) {
    const { stream, world } = attempt({ psk: undefined, eap, ca }, server)
    t.equal(codeOf(stream.error), 'AUTHENTICATION_FAILED')
    t.match(refusals(world)[0]?.error.message, /by EAP, which servers here do not do/)
  }
  t.end()
})

t.test('a server for transport mode alone says that tunnel mode was asked for', t => {
  const { world, stream } = attempt({ mode: 'tunnel' }, { mode: 'transport' })
  t.equal(codeOf(stream.error), 'NO_PROPOSAL_CHOSEN')
  t.strictSame(detailsOf(refusals(world)[0]?.error), { offered: 'tunnel', accepted: 'transport' })
  t.end()
})

t.test('an observer sees every exchange by name and each refusal with its reason', t => {
  const seen: TraceEvent[] = []
  const tracer = { enabled: true, emit: (event: TraceEvent) => void seen.push(event) }
  const world = new World(1, PERFECT, { esp: 'aes256gcm16' }, { esp: 'aes128gcm16' }, tracer)
  const stream = new Stream(1000, 1, 2)
  world.connect(stream)
  world.run(300_000, () => stream.closed)
  const steps = seen.map(({ name, facts }) => `${name} ${facts['exchange'] ?? ''}`.trim())
  t.strictSame(steps.slice(0, 9), [
    'ike.request.sent IKE_SA_INIT',
    'ike.request IKE_SA_INIT',
    'ike.response IKE_SA_INIT',
    'ike.request.sent IKE_AUTH',
    'ike.request IKE_AUTH',
    'ike.established',
    'ike.refused',
    'ike.response.sent IKE_AUTH',
    'ike.response IKE_AUTH',
  ])
  const refused = seen.find(({ name }) => name === 'ike.refused')
  t.match(refused?.facts, {
    subject: 'Child SA',
    code: 'NO_PROPOSAL_CHOSEN',
    why: /accepted aes128/,
  })
  t.equal(seen.find(({ name }) => name === 'child.failed')?.facts['code'], 'NO_PROPOSAL_CHOSEN')
  t.match(
    seen[7]?.facts['payloads'],
    /^IDR AUTH (OWN_FEATURES )?MOBIKE_SUPPORTED NO_PROPOSAL_CHOSEN$/,
  )
  t.equal(seen[7]?.facts['fragments'], 1)
  t.end()
})

t.test('a first key exchange guess that is refused costs one round trip, not the connection', t => {
  const { world, stream } = attempt({}, { ike: 'aes256gcm16-prfsha384-ecp384' })
  t.equal(stream.error, undefined)
  t.match(world.sessions.client[0]?.info().ikeSuite, /P384/)
  t.end()
})

t.test('cookies are demanded and given when many handshakes are half open', t => {
  const { world, stream } = attempt({}, { cookieThreshold: 0 })
  t.equal(stream.error, undefined)
  t.equal(world.server.counters.drops['ike.init.cookie'], 1)
  t.end()
})

t.test('cookie and another group, one after the other', t => {
  const { stream } = attempt({}, { cookieThreshold: 0, ike: 'aes256gcm16-prfsha384-ecp384' })
  t.equal(stream.error, undefined)
  t.end()
})

t.test('nobody listens on the inner port: ECONNREFUSED as net gives it', t => {
  const { stream } = attempt({}, {}, 81)
  t.match(stream.error, {
    code: 'ECONNREFUSED',
    syscall: 'connect',
    address: '192.0.2.1',
    port: 81,
  })
  t.end()
})

t.test('nothing answers: ETIMEDOUT after the schedule', t => {
  const world = new World(1, { ...PERFECT, loss: 1 })
  const stream = new Stream(1, 1, 2)
  world.connect(stream)
  world.run(600_000, () => stream.closed)
  t.equal(codeOf(stream.error), 'ETIMEDOUT')
  t.ok(world.now > 30_000 && world.now < 120_000, `${world.now} ms`)
  t.equal(world.client.nextTimeout(), Infinity)
  t.end()
})

t.test('a peer that dies ends its sockets with ETIMEDOUT within the liveness time', t => {
  const world = new World(1, PERFECT, { livenessInterval: 5000 })
  const stream = new Stream(10, 1, 2)
  const serving = new Stream(50_000, 2, 1)
  serving.budget = 0
  world.serve = () => serving
  world.connect(stream)
  world.run(2000)
  t.ok(stream.connection)
  world.filter = () => false
  serving.budget = Infinity
  world.work(world.server, serving)
  world.run(200_000, () => stream.closed)
  t.equal(codeOf(stream.error), 'ETIMEDOUT')
  t.ok(world.now < 150_000, `${world.now} ms`)
  t.end()
})

t.test('every type of identity, each way', t => {
  for (const id of [
    '192.0.2.9',
    '2001:db8::9',
    'host.test',
    'user@host.test',
    '@#00ff10',
    'C=CH, O=Example, CN=host',
    'gn:#820474657374',
    'fqdn:10.0.0.1',
  ]) {
    const { stream, world } = attempt(
      { localId: id, remoteId: 'server.test' },
      { localId: 'server.test', remoteId: id },
    )
    t.equal(stream.error, undefined, id)
    t.equal(world.accepted[0]?.received, 1000)
    const other = attempt({ localId: id }, { remoteId: 'somebody.else' })
    t.equal(codeOf(other.stream.error), 'AUTHENTICATION_FAILED')
  }
  const wildcard = attempt(
    { localId: 'a.sensors.test' },
    { psk: { '*.sensors.test': 'simulated pre-shared key' } },
  )
  t.equal(wildcard.stream.error, undefined)
  t.end()
})

t.test('every suite that can be named carries data', t => {
  for (const crypto of ['node', 'noble']) {
    for (const [ike, esp] of [
      ['aes256gcm16-prfsha384-ecp384', 'aes256gcm16'],
      ['aes128gcm16-prfsha256-ecp256', 'aes128gcm16-noesn'],
      ['chacha20poly1305-prfsha512-x25519', 'chacha20poly1305'],
      ['aes256-sha512-prfsha512-modp2048', 'aes256-sha512'],
      ['aes128-sha256-x448', 'aes128-sha256-noesn'],
      ['aes256-sha384-ecp521', 'aes256-sha384-esn'],
    ] as const) {
      const { stream, world } = attempt({ ike, esp, crypto }, { ike, esp })
      t.equal(stream.error, undefined, `${crypto} ${ike} ${esp}`)
      t.equal(world.accepted[0]?.received, 1000)
    }
  }
  t.end()
})

t.test('a peer may rekey without a new key exchange, unless it is demanded', t => {
  for (const [serverPfs, rekeys] of [
    [undefined, 1],
    [true, 0],
  ] as const) {
    const world = new World(
      3,
      PERFECT,
      { pfs: false },
      serverPfs === undefined ? {} : { pfs: serverPfs },
    )
    const stream = new Stream(10, 1, 2)
    stream.budget = 0
    world.connect(stream)
    world.run(1000)
    const [session] = world.sessions.client
    session!.rekeyChild(world.now)
    world.client.touchSession(session!, world.now)
    world.run(1000)
    t.equal(session!.info().childRekeys, rekeys)
  }
  t.end()
})

t.test('an idle SA is deleted by its client also after the server rekeyed it', t => {
  const world = new World(4, PERFECT, { idleTimeout: 5000 }, { idleTimeout: 0 })
  const stream = new Stream(10, 1, 2)
  world.connect(stream)
  world.run(20_000, () => stream.closed)
  const [session] = world.sessions.server
  session!.rekeyIke(world.now)
  world.server.touchSession(session!, world.now)
  world.run(120_000)
  t.equal(world.sessions.client[0]!.info().ikeRekeys, 1)
  t.ok(world.client.isIdle && world.server.isIdle)
  t.end()
})

t.test('tunnel mode, and transport mode that the server does not do', t => {
  const tunnel = attempt({ mode: 'tunnel' }, {})
  t.equal(tunnel.world.sessions.client[0]?.info().children[0]?.mode, 'tunnel')
  const fallen = attempt({ mode: 'auto' }, { mode: 'tunnel' })
  t.equal(fallen.stream.error, undefined)
  const strict = attempt({ mode: 'transport' }, { mode: 'tunnel' })
  t.equal(codeOf(strict.stream.error), 'USE_TRANSPORT_MODE')
  t.end()
})

t.test(
  '100,000 random, truncated, changed, replayed and reflected datagrams beside a transfer do no harm',
  t => {
    const world = new World(5, PERFECT, { livenessInterval: 0 })
    const random = new Random(9)
    const recorded: Uint8Array[] = []
    world.filter = (_to, bytes) => {
      recorded.push(bytes.slice())
      return true
    }
    const stream = new Stream(300_000, 1, 2)
    world.serve = () => new Stream(200_000, 2, 1)
    world.connect(stream)
    for (let i = 0; i < 100_000; i++) {
      if (i % 400 === 0) world.run(5)
      const source = recorded[random.integer(0, recorded.length - 1)]!
      const kind = random.integer(0, 4)
      let bytes = source.slice()
      if (kind === 0) {
        bytes = new Uint8Array(random.integer(0, 200))
        random.fill(bytes)
      } else if (kind === 1) bytes = bytes.slice(0, random.integer(0, bytes.length))
      else if (kind === 2) bytes[random.integer(0, bytes.length - 1)]! ^= 1 << random.integer(0, 7)
      else if (kind === 3 && getU32(bytes, 0) === 0) bytes[23]! ^= 0x28
      const path = {
        socket: 0,
        localAddress: new Uint8Array([192, 0, 2, 1]),
        localPort: 4500,
        remoteAddress: new Uint8Array([203, 0, 113, random.integer(1, 250)]),
        remotePort: random.integer(1024, 65535),
      }
      const core = random.chance(0.5) ? world.client : world.server
      core.handleDatagram(bytes, path, world.now)
    }
    world.run(600_000, () => stream.closed)
    t.equal(stream.error, undefined)
    t.notOk(stream.corrupted || world.accepted.some(({ corrupted }) => corrupted))
    t.equal(world.accepted.find(({ received }) => received > 0)?.received, 300_000)
    t.equal(stream.received, 200_000)
    t.ok(world.server.saCount <= 2000, `${world.server.saCount} SAs at the server`)
    const drops = Object.values(world.server.counters.drops).reduce((sum, count) => sum + count, 0)
    t.ok(drops > 10_000, `${drops} counted with their reasons`)
    t.end()
  },
)

t.test(
  'a flood of first requests from many sources leaves a bounded number of SAs, and an honest client connects',
  t => {
    const world = new World(6)
    const probe = new World(7)
    let first: Uint8Array | undefined
    probe.filter = (to, bytes) => {
      if (to === 'server') first ??= bytes.slice()
      return false
    }
    probe.connect(new Stream(1, 1, 2))
    let answered = 0
    world.filter = (to, bytes) => {
      if (to === 'client') answered += bytes.length
      return true
    }
    let asked = 0
    for (let i = 0; i < 5000; i++) {
      const bytes = first!.slice()
      bytes[4] = i >>> 8
      bytes[5] = i
      asked += bytes.length
      world.server.handleDatagram(
        bytes,
        {
          socket: 0,
          localAddress: new Uint8Array([192, 0, 2, 1]),
          localPort: 4500,
          remoteAddress: new Uint8Array([10, 9, i >>> 8, i]),
          remotePort: 5000,
        },
        world.now,
      )
      world.pump()
    }
    t.ok(world.server.saCount <= 30, `${world.server.saCount} half-open SAs`)
    t.ok(answered <= asked, `${answered} octets answered to ${asked}`)
    world.filter = () => true
    const stream = new Stream(1000, 1, 2)
    world.connect(stream)
    world.run(3000, () => stream.closed)
    t.equal(world.accepted.length, 1)
    t.end()
  },
)
