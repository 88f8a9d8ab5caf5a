/**
 * strongSwan with the ESP of a Linux kernel, in a guest: transport mode and extended sequence numbers carry data. Our side
 * has its default options in all of them, but for the port where several servers would have the same.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect, type Options, type ProtectedSession, type ProtectedSocket } from './product.ts'
import { Agent, Guest, PSK, script, SERVICE, until, type Daemon } from './rig.ts'
import {
  atParts,
  failsWith,
  SERVER_PORT,
  SHORT,
  SLOW,
  type ConnectionLines,
  type Context,
  type Scenario,
} from './scenario.ts'
import { HABITS } from './scenarios-habits.ts'
import { JOURNEY, LOCK as LINKS, restored } from './scenarios-mobility.ts'
import { transfer, type Plan } from './transfer.ts'

const MODES = ['transport', 'tunnel'] as const
type Mode = (typeof MODES)[number]

/** Two at a time, since the guest has one processor; whoever has both has it alone. */
const LOCKS = ['guest 0', 'guest 1'] as const

let count = 0
const scenario =
  (role: Scenario['role']) =>
  (
    name: string,
    run: (context: Context) => Promise<void>,
    more: Partial<Scenario> = {},
  ): Scenario => ({
    name,
    role,
    peer: 'strongSwan with a kernel',
    guest: true,
    seconds: 40,
    run,
    ...more,
    lock: [LOCKS[count++ % 2]!, ...(more.lock ?? [])],
  })
const initiator = scenario('initiator')
const responder = scenario('responder')

/**
 * A connection of strongSwan's with a Child SA for each mode, `NAME-transport` and `NAME-tunnel`. What the lines do not say
 * is as it comes: proposals without a group, MOBIKE, a rekey after hours, one SA for each identity.
 */
const section = (
  { name }: Context,
  { connection = '', local = '', remote = '', child = '' }: ConnectionLines,
  [ours, theirs]: readonly [string, string],
): string => `${name} {
  ${connection}
  local { auth = psk
    ${local} }
  remote { auth = psk
    ${remote} }
  children {
    ${name}-transport { mode = transport
      ${child} }
    ${name}-tunnel { mode = tunnel
      local_ts = ${theirs}
      remote_ts = ${ours}
      ${child} } }
}`

const ESP = ['aes256gcm16', 'chacha20poly1305', 'aes256-sha256'] as const
const OUR_NAMES: Readonly<Record<(typeof ESP)[number], string>> = {
  aes256gcm16: 'AES-GCM-16-256',
  chacha20poly1305: 'ChaCha20-Poly1305',
  'aes256-sha256': 'AES-CBC-256',
}
const WITH_ESN = [true, false] as const

/** The Child SA is what was to be agreed. */
const agreed = (
  session: ProtectedSession | undefined,
  mode: Mode,
  esp: keyof typeof OUR_NAMES,
  esn: boolean,
): void => {
  const child = session?.info.children.find(each => each.mode === mode)
  assert.ok(child, `there is one in ${mode} mode`)
  assert.ok(child.suite.startsWith(OUR_NAMES[esp]), child.suite)
  assert.equal(child.suite.includes('with ESN'), esn, child.suite)
}

const rekeyed = (session: ProtectedSession): Promise<unknown> =>
  until('both SAs are rekeyed', 10_000, () => {
    const { ikeRekeys, childRekeys } = session.info
    return ikeRekeys >= 1 && childRekeys >= 1
  })

/** Who rekeys, in which mode, with and without a key exchange of the Child SA's own. */
const REKEYS = [
  { by: 'us', mode: 'transport', pfs: false },
  { by: 'us', mode: 'tunnel', pfs: true },
  { by: 'them', mode: 'transport', pfs: true },
  { by: 'them', mode: 'tunnel', pfs: false },
] as const

const rekeyName = ({ by, mode, pfs }: (typeof REKEYS)[number]): string =>
  `rekeys started by ${by}, ${mode} mode, ${pfs ? 'with' : 'without'} PFS`

/** Both SAs are rekeyed while a transfer runs, and it does not end before. */
const rekeys = (
  { by, mode }: (typeof REKEYS)[number],
  daemon: Daemon,
  { name }: Context,
  session: () => ProtectedSession,
): Readonly<Record<number, () => unknown>> => ({
  0.2: () =>
    by === 'us' ? session().rekeyChild() : daemon.control('--rekey', '--child', `${name}-${mode}`),
  0.5: () => (by === 'us' ? session().rekeyIke() : daemon.control('--rekey', '--ike', name)),
  0.9: () => rekeyed(session()),
})

const proposals = (pfs: boolean): ConnectionLines =>
  pfs ? { child: 'esp_proposals = aes256gcm16-x25519, aes256-sha256-modp2048' } : {}

// --- we connect ---

/** strongSwan waits for us; of what our client needs there is no more than where and with which key. */
const waiting = async (
  context: Context,
  lines: ConnectionLines = {},
): Promise<{ daemon: Daemon; options: Readonly<Record<Mode, Options>> }> => {
  const daemon = await context.inGuest()
  const address = context.guestAddress
  const ours = `10.92.${context.net}.1/32`
  const theirs = `${Guest.inner}/32`
  const connection = `local_addrs = ${address}\n ${lines.connection ?? ''}`
  await daemon.add(context.name, section(context, { ...lines, connection }, [ours, theirs]))
  context.atEnd(() => daemon.terminate(context.name))
  const transport = { host: address, port: SERVICE.port, psk: PSK }
  const selectors = { localTs: [ours], remoteTs: [theirs] }
  return {
    daemon,
    options: {
      transport,
      tunnel: { ...transport, host: Guest.inner, gateway: address, ...selectors },
    },
  }
}

/** Connects, and data goes both ways while things happen. */
const moves = async (
  options: Options,
  mode: Mode,
  plan: Plan = SHORT,
  parts: (session: ProtectedSession) => Readonly<Record<number, () => unknown>> = () => ({}),
): Promise<ProtectedSession> => {
  const socket = await connect(options)
  const session = socket.session!
  assert.ok(session.info.children.some(child => child.mode === mode))
  await transfer(socket, plan, atParts(plan, parts(session)))
  return session
}

/** A process of ours in another namespace; the identity is a name, since two there have the same address. */
const elsewhere = (
  context: Context,
  netns: string,
): ((
  options: Options,
  plan: Plan,
  progress?: (sent: number) => Promise<void>,
) => Promise<unknown>) => {
  const agent = new Agent(netns)
  context.atEnd(() => agent.kill())
  return (options, plan, progress) => agent.run({ kind: 'product', options, plan }, progress)
}

const asInitiator: readonly Scenario[] = [
  ...MODES.map(mode =>
    initiator(`${mode} mode, as both come, two sockets`, async context => {
      const { options } = await waiting(context)
      const sessions = await Promise.all([moves(options[mode], mode), moves(options[mode], mode)])
      assert.equal(sessions[0].info.spiI, sessions[1].info.spiI)
    }),
  ),
  initiator('address by configuration payload', async context => {
    const daemon = await context.inGuest()
    await daemon.add(
      context.name,
      `${context.name} {
        local_addrs = ${context.guestAddress}
        pools = pool4
        local { auth = psk }
        remote { auth = psk }
        children { net { local_ts = ${Guest.inner}/32 } } }`,
    )
    context.atEnd(() => daemon.terminate(context.name))
    const session = await moves(
      {
        host: Guest.inner,
        port: SERVICE.port,
        gateway: context.guestAddress,
        psk: PSK,
        virtualAddress: true,
      },
      'tunnel',
    )
    assert.match(session.virtualAddresses.join(), /^10\.93\./)
  }),
  ...ESP.flatMap(esp =>
    WITH_ESN.map(esn =>
      initiator(`ESP ${esp}, ${esn ? 'with' : 'without'} ESN, both modes`, async context => {
        const child = `esp_proposals = ${esp}-${esn ? 'esn' : 'noesn'}`
        const { options } = await waiting(context, { child })
        for (const mode of MODES) agreed(await moves(options[mode], mode), mode, esp, esn)
      }),
    ),
  ),
  ...REKEYS.map(how =>
    initiator(rekeyName(how), async context => {
      const { daemon, options } = await waiting(context, proposals(how.pfs))
      await moves(options[how.mode], how.mode, SLOW, session =>
        rekeys(how, daemon, context, () => session),
      )
    }),
  ),
  initiator(
    'transport mode behind a NAT that rebinds',
    async context => {
      const { options } = await waiting(context)
      await elsewhere(context, 'home')(
        options.transport,
        SLOW,
        atParts(SLOW, { 0.4: () => script('network', 'rebind') }),
      )
    },
    { lock: ['nat'] },
  ),
  initiator(
    'transport mode, two clients behind one NAT',
    async context => {
      const { options } = await waiting(context)
      await Promise.all(
        ['a', 'b'].map(name =>
          elsewhere(context, 'home')(
            { ...options.transport, localId: `${name}.${context.clientId}` },
            SHORT,
          ),
        ),
      )
    },
    { lock: ['nat'] },
  ),
  initiator('transport mode, three processes with one identity', async context => {
    const { options } = await waiting(context)
    const plan: Plan = { ...SHORT, rate: 150_000 }
    const to = { ...options.transport, localId: context.clientId }
    await Promise.all([0, 1, 2].map(() => elsewhere(context, 'peer')(to, plan)))
    assert.equal(context.established, 3)
  }),
  initiator('transport mode, from port 500, floating to 4500', async context => {
    const { options } = await waiting(context)
    await moves({ ...options.transport, ikePort: 500 }, 'transport')
    await context.said(/to 10\.98\.1\.\d+\[500\][^]*to 10\.98\.1\.\d+\[4500\]/)
  }),
]

// --- they connect ---

interface Served {
  readonly daemon: Daemon
  readonly sockets: readonly ProtectedSocket[]
  /** Makes a Child SA. */
  readonly up: (mode: Mode) => Promise<unknown>
  /** Runs a transfer of the guest's kernel to our server. */
  readonly fetch: (mode: Mode, plan?: Plan, progress?: (sent: number) => unknown) => Promise<void>
}

/** Our server with its defaults, and strongSwan ready to connect to it from that address. */
const serving = async (
  context: Context,
  lines: ConnectionLines = {},
  options: Options = {},
  address = context.guestAddress,
): Promise<Served> => {
  const { guest } = context.rig
  const daemon = await context.inGuest()
  const defaults = { localId: undefined, mode: undefined, localTs: undefined }
  const { sockets } = await context.listen({ ...defaults, ...options })
  const connection = `local_addrs = ${address}
    remote_addrs = ${Guest.host}
    ${options.ikePort === 500 ? '' : `local_port = 4500\n remote_port = ${context.ikePort}`}
    ${lines.connection ?? ''}`
  const selectors = [`${context.serverAddress}/32`, `${Guest.inner}/32`] as const
  // Whoever is asked by an address has it as its name.
  const remote = `id = ${Guest.host}\n ${lines.remote ?? ''}`
  await daemon.add(context.name, section(context, { ...lines, connection, remote }, selectors))
  context.atEnd(() => daemon.terminate(context.name))
  const up: Served['up'] = mode => daemon.initiate(`${context.name}-${mode}`)
  const fetch: Served['fetch'] = async (mode, plan = SHORT, progress = () => {}) => {
    await guest.run(
      {
        kind: 'kernel',
        ...(mode === 'transport'
          ? { host: Guest.host, localAddress: address }
          : { host: context.serverAddress, localAddress: Guest.inner }),
        port: SERVER_PORT,
        plan,
      },
      async sent => void (await progress(sent)),
    )
    const modes = sockets.at(-1)?.session?.info.children.map(child => child.mode)
    assert.ok(modes?.includes(mode), `there is a Child SA in ${mode} mode`)
  }
  return { daemon, sockets, up, fetch }
}

const asResponder: readonly Scenario[] = [
  ...MODES.map(mode =>
    responder(`${mode} mode, as both come, two sockets`, async context => {
      const { up, fetch, sockets } = await serving(context)
      await up(mode)
      await Promise.all([fetch(mode), fetch(mode)])
      assert.equal(sockets.length, 2)
    }),
  ),
  ...ESP.flatMap(esp =>
    WITH_ESN.map(esn =>
      responder(`ESP ${esp}, ${esn ? 'with' : 'without'} ESN, both modes`, async context => {
        const child = `esp_proposals = ${esp}-${esn ? 'esn' : 'noesn'}`
        const { up, fetch, sockets } = await serving(context, { child })
        for (const mode of MODES) {
          await up(mode)
          await fetch(mode)
          agreed(sockets.at(-1)?.session, mode, esp, esn)
        }
      }),
    ),
  ),
  ...REKEYS.map(how =>
    responder(rekeyName(how), async context => {
      const { daemon, up, fetch, sockets } = await serving(context, proposals(how.pfs))
      await up(how.mode)
      const acts = rekeys(how, daemon, context, () => sockets[0]!.session!)
      await fetch(how.mode, SLOW, atParts(SLOW, acts))
      await rekeyed(sockets[0]!.session!)
    }),
  ),
  ...MODES.map(mode =>
    responder(
      `${mode} mode behind a NAT that rebinds`,
      async context => {
        const { up, fetch, sockets } = await serving(context, {}, {}, `10.98.2.${context.net}`)
        await up(mode)
        const ports = new Set<number>()
        const note = (): unknown => ports.add(sockets[0]!.session!.gatewayPort)
        const act = (): Promise<string> => script('network', 'guest-rebind')
        await fetch(mode, SLOW, atParts(SLOW, { 0.3: note, 0.4: act, 0.9: note }))
        assert.equal(sockets[0]!.session!.info.remoteBehindNat, true)
        assert.equal(ports.size, 2, 'the NAT gave it another port and we followed')
      },
      { lock: ['the NAT of the guest'] },
    ),
  ),
  responder(
    'transport mode, from port 500 without a marker, floating to 4500',
    async context => {
      const { up, fetch } = await serving(context, {}, { ikePort: 500 })
      await up('transport')
      await fetch('transport')
      await context.said(/from [\d.]+\[500\] to[^]*from [\d.]+\[4500\] to 10\.98\.0\.1\[4500\]/)
    },
    { lock: ['nat'] },
  ),
]

// --- changes of the world around them ---

/** Nobody sees its end. */
const ENDLESS: Plan = { up: 2 ** 31, down: 2 ** 31, rate: 100_000 }

const GONE = /ETIMEDOUT|ECONNRESET/

const updates = (context: Context, daemon: Daemon, what: string): number =>
  [
    ...daemon.log
      .slice(context.logFrom.get(daemon))
      .matchAll(new RegExp(`${what} INFORMATIONAL request \\d+ \\[.*N\\(UPD_SA_ADDR\\)`, 'g')),
  ].length

const changes: readonly Scenario[] = [
  initiator(
    'it loses its power and boots again, both roles',
    async context => {
      const { guest } = context.rig
      const { up, fetch, sockets } = await serving(context)
      const options = { host: context.guestAddress, port: SERVICE.port, psk: PSK }
      await up('transport')
      fetch('transport', ENDLESS).catch(() => {})
      const theirs = await until('they are connected', 5000, () => sockets[0])
      const theirEnd = failsWith(
        once(theirs, 'close').then(() => {
          throw theirs.errored ?? new Error('It closed without an error')
        }),
        GONE,
      )
      const ours = await connect(options)
      const ourEnd = failsWith(transfer(ours, ENDLESS), GONE)
      await sleep(500)
      await guest.kill()
      await guest.ready()
      // Theirs first: once we have one, they would go on with our SA.
      await up('transport')
      await Promise.all([fetch('transport'), moves(options, 'transport')])
      context.unlock()
      await Promise.all([ourEnd, theirEnd])
    },
    { lock: LOCKS, seconds: 120 },
  ),
  initiator(
    'wifi to LTE while a transfer runs, tunnel mode',
    async context => {
      restored(context)
      const { daemon, options } = await waiting(context)
      const to = { ...options.tunnel, localId: context.clientId }
      await elsewhere(context, 'mobile')(to, SLOW, atParts(SLOW, JOURNEY))
      assert.ok(updates(context, daemon, 'parsed') >= 3, 'it was told of three moves')
      assert.equal(context.established, 1, 'one IKE SA carried it all')
    },
    { lock: [LINKS] },
  ),
  initiator(
    'wifi to LTE between two connections, transport mode',
    async context => {
      restored(context)
      const { options } = await waiting(context)
      const to = { ...options.transport, localId: context.clientId }
      const connectThere = elsewhere(context, 'mobile')
      await connectThere(to, SHORT)
      await script('network', 'wifi-off')
      await connectThere(to, SHORT)
    },
    { lock: [LINKS] },
  ),
  responder(
    'from one address to another while a transfer runs, tunnel mode',
    async context => {
      const { guest } = context.rig
      await guest.ready()
      const address = '10.98.3.1'
      const change = (verb: string) => (): unknown =>
        guest.command('ip', 'address', verb, `${address}/32`, 'dev', 'vec0')
      await change('add')()
      const { daemon, up, fetch, sockets } = await serving(context, {}, {}, address)
      await up('tunnel')
      await fetch('tunnel', SLOW, atParts(SLOW, { 0.4: change('del') }))
      assert.equal(sockets.length, 1)
      assert.ok(updates(context, daemon, 'generating') >= 1, 'it told us')
      assert.notEqual(sockets[0]!.session!.gatewayAddress, address)
    },
    { lock: LOCKS },
  ),
]

// --- what products propose unless they are told otherwise, route-based ---

const LITTLE: Plan = { up: 20_000, down: 20_000 }

const habits: readonly Scenario[] = [
  initiator(
    `habits of ${HABITS.length} products, for all addresses`,
    async context => {
      const daemon = await context.inGuest()
      context.atEnd(() => daemon.terminate(context.name))
      for (const [i, { name, ike, esp, options }] of HABITS.entries()) {
        await daemon.add(
          context.name,
          `${context.name} {
            local_addrs = ${context.guestAddress}
            proposals = ${ike}
            local { auth = psk }
            remote { auth = psk }
            children { net { local_ts = 0.0.0.0/0
              remote_ts = 0.0.0.0/0
              esp_proposals = ${esp} } } }`,
        )
        const to = {
          host: Guest.inner,
          port: SERVICE.port,
          gateway: context.guestAddress,
          psk: PSK,
          localId: `${i}.${context.clientId}`,
          ...options,
        }
        await moves(to, 'tunnel', LITTLE).catch((error: Error) => {
          throw new Error(`${name}: ${error.message}`, { cause: error })
        })
        // Two at once would have the same selectors.
        await daemon.terminate(context.name)
      }
    },
    { seconds: 60 },
  ),
]

export const scenarios: readonly Scenario[] = [
  ...changes,
  ...habits,
  ...asInitiator,
  ...asResponder,
]
