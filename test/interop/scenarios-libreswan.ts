/**
 * libreswan, both roles. The kernels we meet have no ESP of their own, so no packet is carried: what is checked
 * is IKE, and that both ends have the same SAs afterwards.
 */
import assert from 'node:assert/strict'
import { open, traces, type Options, type ProtectedSession } from './product.ts'
import { Libreswan, until } from './rig.ts'
import { failsWith, type Context, type Scenario } from './scenario.ts'

const scenario =
  (role: Scenario['role']) =>
  (
    name: string,
    run: (context: Context) => Promise<void>,
    more: Partial<Scenario> = {},
  ): Scenario => ({
    name,
    role,
    peer: 'libreswan, IKE alone',
    // One at a time: its connections are told apart late, and each shall have its own log.
    lock: 'libreswan',
    run,
    ...more,
  })

/** Lines of a connection of libreswan's; later ones win. */
type Lines = Readonly<Record<string, string>>

const connection = (lines: Lines): string =>
  Object.entries({
    left: Libreswan.address,
    leftsubnet: '10.95.0.1/32',
    leftupdown: '/bin/true',
    right: '10.90.0.1',
    encapsulation: 'yes',
    authby: 'secret',
    ikev2: 'insist',
    'retransmit-timeout': '4s',
    keyingtries: '1',
    ...lines,
  })
    .filter(([, value]) => value !== '')
    .map(([name, value]) => `  ${name}=${value}\n`)
    .join('')

const load = async (context: Context, lines: Lines): Promise<Libreswan> => {
  const { libreswan } = context.rig
  await libreswan.start()
  await libreswan.add(context.name, connection(lines))
  // Not deleted: that ends libreswan where a handshake of the connection has just failed.
  context.atEnd(() => libreswan.whack('--terminate', '--name', context.name))
  return libreswan
}

// --- we answer ---

const responder = scenario('responder')

interface Answered {
  readonly libreswan: Libreswan
  readonly sessions: readonly ProtectedSession[]
  readonly ended: readonly unknown[]
  readonly errors: readonly (Error & { code?: string; details?: object })[]
}

/** Our server, and libreswan told to connect to it. */
const answer = async (
  context: Context,
  lines: Lines = {},
  options: Options = {},
): Promise<Answered> => {
  const { server } = await context.listen(options)
  const sessions: ProtectedSession[] = []
  const ended: unknown[] = []
  const errors: Error[] = []
  server.on('session', (session: ProtectedSession) => sessions.push(session))
  server.on('sessionEnd', (session: unknown) => ended.push(session))
  server.on('ikeClientError', (error: Error) => errors.push(error))
  const libreswan = await load(context, {
    leftid: `@${context.clientId}`,
    rightid: '@server.rig.test',
    rightsubnet: `${context.serverAddress}/32`,
    rightikeport: String(context.ikePort),
    ...lines,
  })
  await libreswan.whack('--initiate', '--name', context.name)
  return { libreswan, sessions, ended, errors }
}

const answers = (
  name: string,
  lines: Lines,
  options: Options,
  check: (session: ProtectedSession, all: Answered, context: Context) => unknown = () => {},
  more: Partial<Scenario> = {},
): Scenario =>
  responder(
    name,
    async context => {
      const all = await answer(context, lines, options)
      await all.libreswan.said(context.name, /initiator established Child SA/)
      assert.equal(all.sessions.length, 1)
      await check(all.sessions[0]!, all, context)
    },
    more,
  )

const answersNot = (name: string, lines: Lines, options: Options, code: RegExp): Scenario =>
  responder(name, async context => {
    const { libreswan, errors } = await answer(context, lines, options)
    await libreswan.said(context.name, code)
    assert.match(errors[0]?.code ?? '', code)
    assert.ok(!libreswan.about(context.name).includes('established Child SA'))
  })

/** Their words for algorithms, and ours. */
const IKE_SUITES = [
  ['aes_gcm256-sha2_512-dh20', 'AES-GCM-16-256, PRF-HMAC-SHA2-512, P384'],
  ['aes_gcm128-sha2_256-dh19', 'AES-GCM-16-128, PRF-HMAC-SHA2-256, P256'],
  ['chacha20_poly1305-sha2_256-dh31', 'ChaCha20-Poly1305, PRF-HMAC-SHA2-256, X25519'],
  ['aes256-sha2_256-dh14', 'AES-CBC-256'],
  ['aes128-sha2_512-dh21', 'AES-CBC-128'],
  ['aes256-sha2_512-dh16', 'Modp4096'],
] as const
const ESP_SUITES = [
  ['aes_gcm256', 'AES-GCM-16-256'],
  ['aes_gcm128', 'AES-GCM-16-128'],
  ['chacha20_poly1305', 'ChaCha20-Poly1305'],
  ['aes256-sha2_512', 'AES-CBC-256'],
  ['aes128-sha2_256', 'AES-CBC-128'],
] as const

/** Waits until our side counts so many rekeys. */
const rekeyed = (session: ProtectedSession, ike: number, children: number): Promise<unknown> =>
  until(`${ike} rekeys of the IKE SA, ${children} of the Child SA`, 5000, () => {
    const { ikeRekeys, childRekeys } = session.info
    return ikeRekeys === ike && childRekeys === children
  })

/** One Child SA at each end after all that, and the same. */
const agree = async (
  context: Context,
  session: ProtectedSession,
  libreswan: Libreswan,
): Promise<void> => {
  const spis = (): string[] =>
    session.info.children.flatMap(({ spiIn, spiOut }) =>
      [spiIn, spiOut].map(spi => spi.toString(16)),
    )
  await until('one Child SA at both ends', 5000, async () => {
    const status = await libreswan.whack('--status')
    const theirs = [
      ...status.matchAll(
        new RegExp(`#\\d+: "${context.name}".* esp\\.(\\w+)@\\S+ esp\\.(\\w+)@`, 'g'),
      ),
    ]
    return (
      theirs.length === 1 &&
      session.info.children.length === 1 &&
      theirs[0]!.slice(1).every(spi => spis().includes(spi))
    )
  })
}

/** Our IKE_AUTH was more than one datagram. */
const sentFragments = (session: ProtectedSession, name: string): void => {
  const { spiI, spiR } = session.info
  const line = traces.find(
    text =>
      text.includes(` ${name} `) &&
      text.includes('IKE_AUTH') &&
      (text.includes(spiI) || text.includes(spiR)),
  )
  assert.ok(Number(/"fragments":(\d+)/.exec(line ?? '')?.[1]) > 1, line)
}

const asResponder: readonly Scenario[] = [
  answers('psk, INVALID_KE_PAYLOAD', {}, {}, async (session, { libreswan }, context) => {
    await libreswan.said(context.name, /Received unauthenticated INVALID_KE_PAYLOAD/)
    await agree(context, session, libreswan)
    assert.match(session.info.children[0]?.suite ?? '', /with ESN/)
  }),
  ...IKE_SUITES.map(([theirs, ours]) =>
    answers(`IKE ${theirs}`, { ike: theirs }, {}, session => {
      assert.ok(session.info.ikeSuite.includes(ours), session.info.ikeSuite)
    }),
  ),
  ...ESP_SUITES.map(([theirs, ours]) =>
    answers(`ESP ${theirs}`, { esp: theirs }, {}, session => {
      assert.ok(session.info.children[0]?.suite.startsWith(ours), session.info.children[0]?.suite)
    }),
  ),
  answers('rekeys started by them', {}, {}, async (session, { libreswan }, context) => {
    await libreswan.whack('--rekey-ike', '--name', context.name)
    await rekeyed(session, 1, 0)
    await libreswan.whack('--rekey-ipsec', '--name', context.name)
    await rekeyed(session, 1, 1)
    await libreswan.said(context.name, /initiator rekeyed IKE SA/)
    await libreswan.said(context.name, /initiator rekeyed Child SA/)
    await agree(context, session, libreswan)
  }),
  answers('rekeys started by us', {}, {}, async (session, { libreswan }, context) => {
    session.rekeyChild()
    await rekeyed(session, 0, 1)
    session.rekeyIke()
    await rekeyed(session, 1, 1)
    session.rekeyChild()
    await rekeyed(session, 1, 2)
    await libreswan.said(context.name, /responder rekeyed IKE SA/)
    await libreswan.said(context.name, /responder rekeyed Child SA/)
    await agree(context, session, libreswan)
  }),
  answers('cookies', {}, { cookieThreshold: 0 }, (_session, { libreswan }, context) =>
    libreswan.said(context.name, /COOKIE/),
  ),
  answers(
    'address by configuration payload, in fragments of 576 octets',
    {
      leftsubnet: '0.0.0.0/0',
      leftmodecfgclient: 'yes',
      narrowing: 'yes',
      rightsubnet: '0.0.0.0/0',
    },
    {
      addressPool: '10.94.250.0/24',
      dns: Array.from({ length: 80 }, (_, i) => `10.94.0.${i + 1}`),
      localTs: undefined,
      fragmentSize: 576,
    },
    async (session, { libreswan }, context) => {
      await libreswan.said(context.name, /received INTERNAL_IP4_ADDRESS 10\.94\.250\.1/)
      await libreswan.said(context.name, /received INTERNAL_IP4_DNS/)
      assert.deepEqual(session.info.children[0]?.remoteSelectors, ['10.94.250.1'])
      sentFragments(session, 'ike.response.sent')
    },
  ),
  answers(
    'from port 500, floating to 4500',
    { rightikeport: '' },
    { ikePort: 500 },
    async (session, { libreswan }, context) => {
      await libreswan.said(context.name, /sent IKE_SA_INIT request to 10\.90\.0\.1:500/)
      assert.equal(session.gatewayPort, 4500)
    },
    { lock: ['libreswan', 'nat'] },
  ),
  answers(
    'transport mode for whole hosts, known by their addresses',
    { type: 'transport', leftsubnet: '', rightsubnet: '', leftid: '', rightid: '' },
    { localId: undefined, mode: undefined, localTs: undefined },
    async (session, { libreswan }, context) => {
      // Whoever asks for the same selectors by another connection would be refused.
      context.atEnd(() => libreswan.whack('--delete', '--name', context.name))
      await agree(context, session, libreswan)
      const [child] = session.info.children
      assert.equal(child?.mode, 'transport')
      assert.deepEqual(child.localSelectors, ['10.90.0.1'])
      assert.deepEqual(child.remoteSelectors, [Libreswan.address])
    },
  ),
  answers('they delete the IKE SA', {}, {}, async (_session, { libreswan, ended }, context) => {
    await libreswan.whack('--terminate', '--name', context.name)
    await until('the session ends', 3000, () => ended.length === 1)
  }),
  answers('we delete the IKE SA', {}, {}, async (session, { libreswan }, context) => {
    session.close()
    await libreswan.said(context.name, /deleting state \(STATE_V2_ESTABLISHED_IKE_SA\)/)
  }),
  answersNot('wrong PSK', {}, { psk: 'not the right horse battery' }, /AUTHENTICATION_FAILED/),
  answersNot(
    'no common IKE proposal',
    { ike: 'aes256-sha2_256-dh14' },
    { ike: 'aes256gcm16-prfsha384-ecp384' },
    /NO_PROPOSAL_CHOSEN/,
  ),
  answersNot(
    'no common ESP proposal',
    { esp: 'aes128-sha2_256' },
    { esp: 'aes256gcm16' },
    /NO_PROPOSAL_CHOSEN/,
  ),
  answersNot(
    'traffic selectors unacceptable',
    { rightsubnet: '10.250.0.0/24' },
    {},
    /TS_UNACCEPTABLE/,
  ),
]

// --- we connect ---

const initiator = scenario('initiator')

const client = (context: Context, extra: Options): Options => ({
  ...context.client(0, {
    gateway: Libreswan.address,
    ikePort: 4500,
    remoteId: 'libreswan.rig.test',
    host: '10.95.0.1',
    virtualAddress: false,
    localTs: [`10.92.${context.net}.1/32`],
    remoteTs: ['10.95.0.1/32'],
  }),
  ...extra,
})

/** libreswan waits; our socket has its SAs, and stays at TCP's first segment. */
const connects = (
  name: string,
  lines: (context: Context) => Lines,
  options: (context: Context) => Options,
  check: (
    session: ProtectedSession,
    libreswan: Libreswan,
    context: Context,
    options: Options,
  ) => unknown = () => {},
): Scenario =>
  initiator(name, async context => {
    const libreswan = await load(context, {
      leftid: '@libreswan.rig.test',
      rightid: `@${context.clientId}`,
      rightsubnet: `10.92.${context.net}.1/32`,
      ...lines(context),
    })
    const all = client(context, options(context))
    const socket = open(all)
    context.atEnd(() => socket.destroy())
    const failed = new Promise<never>((_, reject) => socket.once('error', reject))
    const session = await Promise.race([
      failed,
      until('the SAs are up', 5000, () => socket.session),
    ])
    await libreswan.said(context.name, /responder established Child SA/)
    await check(session, libreswan, context, all)
  })

const none = (): Options => ({})

const refuses = (
  name: string,
  options: (context: Context) => Options,
  error: RegExp,
  lines: Lines = {},
): Scenario =>
  initiator(name, async context => {
    await load(context, {
      leftid: '@libreswan.rig.test',
      rightid: `@${context.clientId}`,
      rightsubnet: `10.92.${context.net}.1/32`,
      ...lines,
    })
    const socket = open(client(context, options(context)))
    context.atEnd(() => socket.destroy())
    await failsWith(new Promise((_, reject) => socket.once('error', reject)), error)
  })

const longName = ({ clientId }: Context): string => `${'a-long-label.'.repeat(15)}${clientId}`

const asInitiator: readonly Scenario[] = [
  connects('psk, host to host', none as () => Lines, none, (session, libreswan, context) =>
    agree(context, session, libreswan),
  ),
  connects(
    'rekeys started by us',
    none as () => Lines,
    none,
    async (session, libreswan, context) => {
      session.rekeyChild()
      await rekeyed(session, 0, 1)
      session.rekeyIke()
      await rekeyed(session, 1, 1)
      session.rekeyChild()
      await rekeyed(session, 1, 2)
      await agree(context, session, libreswan)
    },
  ),
  connects(
    'rekeys started by them',
    none as () => Lines,
    none,
    async (session, libreswan, context) => {
      await libreswan.whack('--rekey-ike', '--name', context.name)
      await rekeyed(session, 1, 0)
      await libreswan.whack('--rekey-ipsec', '--name', context.name)
      await rekeyed(session, 1, 1)
      await agree(context, session, libreswan)
    },
  ),
  connects(
    'address by configuration payload',
    context => ({
      leftmodecfgserver: 'yes',
      rightsubnet: '',
      rightaddresspool: `10.93.${context.net}.1-10.93.${context.net}.9`,
      modecfgdns: '"10.91.0.53"',
    }),
    () => ({ virtualAddress: true, localTs: undefined }),
    (session, _libreswan, context) => {
      assert.deepEqual(session.virtualAddresses, [`10.93.${context.net}.1`])
      assert.deepEqual(session.dns, ['10.91.0.53'])
    },
  ),
  connects(
    'from port 500, floating to 4500',
    none as () => Lines,
    () => ({ ikePort: 500 }),
    session => {
      assert.equal(session.gatewayPort, 4500)
    },
  ),
  connects(
    'transport mode, one TCP port pair for each Child SA',
    () => ({
      type: 'transport',
      leftsubnet: '',
      rightsubnet: '',
      leftprotoport: 'tcp/8000',
      rightprotoport: 'tcp',
      narrowing: 'yes',
    }),
    () => ({
      mode: 'transport',
      host: Libreswan.address,
      gateway: undefined,
      localTs: undefined,
      remoteTs: undefined,
    }),
    async (session, _libreswan, context, options) => {
      const second = open(options)
      context.atEnd(() => second.destroy())
      await until('a Child SA for each socket', 5000, () => session.info.children.length === 2)
      for (const child of session.info.children) {
        assert.equal(child.mode, 'transport')
        assert.match(child.localSelectors.join(), /^10\.90\.0\.1\[tcp\/\d+\]$/)
        assert.deepEqual(child.remoteSelectors, [`${Libreswan.address}[tcp/8000]`])
      }
      const own = session.info.children.map(({ localSelectors }) => localSelectors.join())
      assert.notEqual(own[0], own[1])
    },
  ),
  connects(
    'transport mode for whole hosts alone, with default options',
    () => ({ type: 'transport', leftsubnet: '', rightsubnet: '' }),
    () => ({
      mode: 'auto',
      host: Libreswan.address,
      gateway: undefined,
      localTs: undefined,
      remoteTs: undefined,
    }),
    async (session, _libreswan, context, options) => {
      const second = open(options)
      context.atEnd(() => second.destroy())
      await until('both sockets have their SA', 5000, () => second.session)
      // libreswan makes one of its own as well, once it has a connection.
      for (const child of session.info.children) {
        assert.equal(child.mode, 'transport')
        assert.deepEqual(child.localSelectors, ['10.90.0.1'])
        assert.deepEqual(child.remoteSelectors, [Libreswan.address])
      }
    },
  ),
  connects(
    'fragments of 576 octets from us',
    context => ({ rightid: `@${longName(context)}` }),
    context => ({ fragmentSize: 576, localId: longName(context) }),
    session => sentFragments(session, 'ike.request.sent'),
  ),
  refuses('wrong PSK', () => ({ psk: 'not the right horse battery' }), /AUTHENTICATION_FAILED/),
  refuses('no common ESP proposal', () => ({ esp: 'chacha20poly1305' }), /NO_PROPOSAL_CHOSEN/, {
    esp: 'aes_gcm256',
  }),
]

export const scenarios: readonly Scenario[] = [...asResponder, ...asInitiator]
