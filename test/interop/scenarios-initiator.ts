/** We connect, strongSwan answers; behind it an ordinary TCP server of the kernel at 10.91.0.1. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { openHalf } from './half-open.ts'
import { connect, open, type Options, type ProtectedSocket } from './product.ts'
import { Agent, script, SERVICE, until } from './rig.ts'
import { atParts, failsWith, SHORT, SLOW, type Context, type Scenario } from './scenario.ts'
import { transfer, type Plan } from './transfer.ts'

const scenario = (
  name: string,
  run: (context: Context) => Promise<void>,
  more: Partial<Scenario> = {},
): Scenario => ({ name, role: 'initiator', peer: 'strongSwan', run, ...more })

/** Connects, moves data, and hands the socket to `check` before it is gone. */
const moves = async (
  options: Options,
  plan: Plan = SHORT,
  check?: (socket: ProtectedSocket) => void,
  parts: Readonly<Record<number, (socket: ProtectedSocket) => unknown>> = {},
): Promise<void> => {
  const socket = await connect(options)
  check?.(socket)
  const acts = Object.entries(parts).map(([part, act]) => [part, () => act(socket)] as const)
  await transfer(socket, plan, atParts(plan, Object.fromEntries(acts)))
}

const simple = (name: string, options: (context: Context) => Options, plan?: Plan): Scenario =>
  scenario(name, context => moves(options(context), plan))

const refused = (name: string, options: (context: Context) => Options, error: RegExp): Scenario =>
  scenario(name, async context => {
    await failsWith(connect(options(context)), error)
  })

/** The error also says what we asked for. */
const refusesOffer = (
  name: string,
  options: (context: Context) => Options,
  error: RegExp,
  offered: string[],
): Scenario =>
  scenario(name, async context => {
    const { details } = (await failsWith(connect(options(context)), error)) as {
      details?: { offered?: unknown }
    }
    assert.deepEqual(details?.offered, offered)
  })

/** Two seconds, some megabytes. */
const FAST: Plan = { up: 4_000_000, down: 4_000_000, rate: 2_000_000 }

/** As many rekeys have happened before the transfer goes on to its end. */
const rekeyed =
  (ike: number, children: number) =>
  async (socket: ProtectedSocket): Promise<void> => {
    await until(`${ike} and ${children} rekeys`, 10_000, () => {
      const { ikeRekeys, childRekeys } = socket.session!.info
      return ikeRekeys >= ike && childRekeys >= children
    })
  }

/** Fast to see that nobody is there. */
const ALERT: Options = {
  livenessInterval: 500,
  retransmit: { initial: 200, factor: 1.5, max: 1000, tries: 4 },
}

export const IKE_SUITES = [
  'aes256gcm16-prfsha384-ecp384',
  'aes128gcm16-prfsha256-ecp256',
  'chacha20poly1305-prfsha512-x25519',
  'aes256gcm16-prfsha512-x448',
  'aes256-sha256-prfsha256-modp2048',
  'aes256-sha384-prfsha384-ecp521',
  'aes128-sha256-prfsha256-modp3072',
  'aes256-sha512-prfsha512-modp4096',
]
export const ESP_SUITES = [
  'aes256gcm16',
  'aes128gcm16',
  'chacha20poly1305',
  'aes256-sha256',
  'aes256-sha384',
  'aes256-sha512',
  'aes128-sha256',
]

export const scenarios: readonly Scenario[] = [
  scenario('psk, address by configuration payload', context =>
    moves(context.client(11), SHORT, socket => {
      assert.match(socket.localAddress ?? '', /^10\.93\./)
      assert.equal(socket.remoteAddress, SERVICE.host)
      assert.deepEqual(socket.session?.virtualAddresses, [socket.localAddress])
      assert.deepEqual(socket.session?.dns, ['10.91.0.53'])
      assert.equal(socket.session?.netmask, '255.255.0.0')
      assert.equal(socket.session?.info.children[0]?.mode, 'tunnel')
    }),
  ),
  scenario('psk, host to host', context =>
    moves(context.hostToHost(), SHORT, socket => {
      assert.equal(socket.localAddress, `10.92.${context.net}.1`)
      assert.deepEqual(socket.session?.virtualAddresses, [])
    }),
  ),
  simple('psk, one TCP port', context =>
    context.hostToHost({ remoteId: 'port.rig.test', remoteTs: ['10.91.0.1/32[tcp/8000]'] }),
  ),
  scenario('mode auto: transport refused, tunnel taken', context =>
    moves(context.hostToHost({ mode: 'auto' }), SHORT, socket => {
      assert.equal(socket.session?.info.children[0]?.mode, 'tunnel')
    }),
  ),
  simple('on the loopback interface', context => context.client(11, { gateway: '127.0.0.11' })),
  simple('no remoteId', context => {
    const { remoteId: _, ...options } = context.client(14)
    return options
  }),
  ...IKE_SUITES.map(suite => simple(`IKE ${suite}`, context => context.client(11, { ike: suite }))),
  ...ESP_SUITES.map(suite => simple(`ESP ${suite}`, context => context.client(11, { esp: suite }))),
  simple('ESP with noble', context => context.client(11, { crypto: 'noble' })),
  simple('16 MiB each way', context => context.client(11), { up: 2 ** 24, down: 2 ** 24 }),
  scenario('20 sockets over one SA', async context => {
    await Promise.all(Array.from({ length: 20 }, () => moves(context.client(11))))
    const established = [
      ...context.rig.responder.log.matchAll(
        /established between \S+\[psk\.rig\.test\]\S+\[(\S+)\]/g,
      ),
    ]
    assert.equal(established.filter(match => match[1] === context.clientId).length, 1)
  }),
  refused('inner port closed', context => context.client(11, { port: 8001 }), /ECONNREFUSED/),

  // --- rekeying ---
  scenario('rekeys started by us', context =>
    moves(context.client(11), SLOW, undefined, {
      0.2: socket => socket.session?.rekeyChild(),
      0.4: socket => socket.session?.rekeyIke(),
      0.6: socket => socket.session?.rekeyChild(),
      0.9: rekeyed(1, 2),
    }),
  ),
  scenario('rekeys started by us, without PFS', context =>
    moves(context.client(30, { pfs: false }), SLOW, undefined, {
      0.2: socket => socket.session?.rekeyChild(),
      0.5: socket => socket.session?.rekeyIke(),
      0.9: rekeyed(1, 1),
    }),
  ),
  scenario('INVALID_KE_PAYLOAD in a rekey', async context => {
    // IKE_AUTH has no key exchange for the Child SA, so the wrong guess shows in the rekey alone.
    const esp = 'aes256gcm16-ecp521-ecp384'
    await moves(context.client(11, { esp }), SLOW, undefined, {
      0.2: socket => socket.session?.rekeyChild(),
      0.9: rekeyed(0, 1),
    })
    await context.said(/CREATE_CHILD_SA response \d+ \[ N\(INVAL_KE\)/)
  }),
  scenario('rekeys started by them', async context => {
    const { responder } = context.rig
    const rekey = (what: 'ike' | 'child') => async () => {
      const [sa] = await responder.sas(context.clientId)
      const id = (what === 'ike' ? /^\S+: #(\d+)/ : /^  \S+: #(\d+), reqid \d+, INSTALLED/m).exec(
        sa ?? '',
      )?.[1]
      await responder.control('--rekey', `--${what}-id`, String(id))
    }
    await moves(context.client(11), SLOW, undefined, {
      0.2: rekey('child'),
      0.4: rekey('ike'),
      0.6: rekey('child'),
      0.9: rekeyed(1, 2),
    })
    await until(
      'we close the idle SA',
      5000,
      async () => (await responder.sas(context.clientId)).length === 0,
    )
  }),
  scenario('rekeys by their time limits', context =>
    moves(context.client(14), { up: 2_600_000, down: 2_600_000, rate: 400_000 }, undefined, {
      0.95: rekeyed(1, 2),
    }),
  ),
  scenario('rekeys by our time limits', context =>
    moves(
      context.client(11, { childLifetime: 2000, ikeLifetime: 4000 }),
      { up: 2_400_000, down: 2_400_000, rate: 400_000 },
      undefined,
      {
        0.95: rekeyed(1, 2),
      },
    ),
  ),
  scenario('Child SA rekeyed by their octet limit', context =>
    moves(context.client(15), FAST, undefined, { 0.95: rekeyed(0, 1) }),
  ),
  scenario('Child SA rekeyed by our octet limit', context =>
    moves(context.client(11, { childOctets: 1_000_000 }), FAST, undefined, { 0.95: rekeyed(0, 1) }),
  ),
  scenario(
    'AUTH_LIFETIME: we authenticate again',
    async context => {
      // Within a minute we never do, whatever a server says.
      await moves(context.client(20), { up: 1_300_000, down: 1_300_000, rate: 18_000 })
      await context.said(/N\(AUTH_LFT\)/)
      assert.ok(context.established > 1, 'a second IKE SA')
    },
    { seconds: 100 },
  ),
  scenario('we authenticate again by our own limit', async context => {
    const options = context.client(11, { reauthInterval: 2000 })
    await moves(options, { up: 2_000_000, down: 2_000_000, rate: 400_000 })
    assert.ok(context.established > 1, 'a second IKE SA')
  }),

  // --- ends and restarts ---
  scenario('their process killed', async context => {
    const { daemon, port } = await context.startDaemon()
    const transferred = moves(context.hostToHost({ ikePort: port, ...ALERT }), SLOW, undefined, {
      0.3: () => daemon.kill(),
    })
    await failsWith(transferred, /ETIMEDOUT|ECONNRESET/)
  }),
  scenario('our process killed', async context => {
    const agent = new Agent()
    context.atEnd(() => agent.kill())
    let started: () => void
    const running = new Promise<void>(resolve => (started = resolve))
    agent
      .run({ kind: 'product', options: context.client(16), plan: SLOW }, () => started())
      .catch(() => {})
    await running
    assert.equal((await context.rig.responder.sas(context.clientId)).length, 1)
    await agent.kill()
    await until(
      'strongSwan gives us up',
      15_000,
      async () => (await context.rig.responder.sas(context.clientId)).length === 0,
    )
  }),
  scenario('their restart: the next socket gets a new SA', async context => {
    const { daemon, port } = await context.startDaemon()
    const options = context.hostToHost({ ikePort: port, idleTimeout: 60_000, ...ALERT })
    await moves(options)
    await daemon.kill()
    await daemon.start()
    await until('a socket after the restart', 12_000, () =>
      moves(options).then(
        () => true,
        () => false,
      ),
    )
  }),
  scenario('our restart: INITIAL_CONTACT replaces the old SA', async context => {
    const agent = new Agent()
    context.atEnd(() => agent.kill())
    let started: () => void
    const running = new Promise<void>(resolve => (started = resolve))
    const options = context.client(23)
    agent.run({ kind: 'product', options, plan: SLOW }, () => started()).catch(() => {})
    await running
    await agent.kill()
    await moves({ ...options, idleTimeout: 60_000 })
    assert.equal((await context.rig.responder.sas(context.clientId)).length, 1)
  }),
  scenario('they delete the IKE SA', async context => {
    const socket = await connect(context.client(11))
    const ended = failsWith(transfer(socket, SLOW), /ECONNRESET|ETIMEDOUT|closed/)
    const [sa] = await context.rig.responder.sas(context.clientId)
    await context.rig.responder.control('--terminate', '--ike-id', /#(\d+)/.exec(sa ?? '')![1]!)
    await ended
    await moves(context.client(11))
  }),
  scenario('they delete an idle Child SA, the next write makes another', async context => {
    const socket = await connect(context.client(22))
    await context.rig.responder.waitForLog(
      /deleting CHILD_SA after \d+ seconds of inactivity/,
      10_000,
    )
    await sleep(500)
    await transfer(socket, SHORT)
  }),
  scenario('our orderly close leaves nothing there', async context => {
    await moves(context.client(11))
    await until(
      'the SA is gone',
      5000,
      async () => (await context.rig.responder.sas(context.clientId)).length === 0,
    )
  }),

  // --- NAT, fragments, cookies, negotiation ---
  scenario(
    'behind a NAT that rebinds',
    async context => {
      const home = new Agent('home')
      context.atEnd(() => home.kill())
      const from = context.rig.responder.log.length
      await home.run(
        {
          kind: 'product',
          options: context.client(11, { ...ALERT, natKeepalive: 1000 }),
          plan: SLOW,
        },
        atParts(SLOW, { 0.4: () => script('network', 'rebind') }),
      )
      const ports = context.rig.responder.log
        .slice(from)
        .matchAll(/received packet: from 10\.96\.0\.1\[(\d+)\]/g)
      assert.ok(
        new Set([...ports].map(match => match[1])).size > 1,
        'IKE came from the new port too',
      )
    },
    { lock: 'nat', seconds: 30 },
  ),
  scenario(
    'two clients behind one NAT',
    async context => {
      const from = context.rig.responder.log.length
      await Promise.all(
        ['a', 'b'].map(async name => {
          const home = new Agent('home')
          context.atEnd(() => home.kill())
          const options = context.client(11, { localId: `${name}.${context.clientId}` })
          await home.run({ kind: 'product', options, plan: { ...SHORT, rate: 300_000 } })
        }),
      )
      const log = context.rig.responder.log.slice(from)
      for (const name of ['a', 'b']) {
        const line = new RegExp(
          `established between .*10\\.96\\.0\\.1\\[${name}\\.${context.clientId}\\]`,
        )
        assert.match(log, line)
      }
    },
    { lock: 'nat' },
  ),
  scenario('fragments of 576 octets from us', async context => {
    await moves(context.client(11, { fragmentSize: 576 }))
    await context.said(/received fragment #2 of/)
  }),
  scenario('fragments of 600 octets from them', async context => {
    await moves(context.client(17), SHORT, socket =>
      assert.ok((socket.session?.dns.length ?? 0) >= 70),
    )
    await context.said(/splitting IKE message/)
  }),
  scenario('cookies', async context => {
    const { daemon, port } = await context.startDaemon({ extra: 'cookies.extra' })
    await openHalf('10.90.0.11', port, 1)
    await moves(context.hostToHost({ ikePort: port }))
    await daemon.waitForLog(/parsed IKE_SA_INIT request 0 \[ N\(COOKIE\) SA/, 0)
  }),
  scenario('INVALID_KE_PAYLOAD', async context => {
    await moves(context.client(24))
    await context.said(/N\(INVAL_KE\)/)
  }),
  scenario('cookies and INVALID_KE_PAYLOAD', async context => {
    const { daemon, port } = await context.startDaemon({ extra: 'cookies.extra' })
    await openHalf('10.90.0.11', port, 1)
    await moves(context.hostToHost({ gateway: '10.90.0.33', ikePort: port }))
    await daemon.waitForLog(/parsed IKE_SA_INIT request 0 \[ N\(COOKIE\) SA/, 0)
    await daemon.waitForLog(/IKE_SA_INIT response 0 \[ N\(INVAL_KE\)/, 0)
  }),
  simple('childless IKE_AUTH', context => context.client(18, { childless: 'force' })),
  scenario(
    'from port 500, floating to 4500',
    async context => {
      const { daemon } = await context.startDaemon({ ports: [500, 4500] })
      await moves(context.hostToHost({ ikePort: 500 }))
      await daemon.waitForLog(/to 10\.90\.0\.11\[500\][^]*to 10\.90\.0\.11\[4500\]/, 0)
    },
    { lock: 'nat' }, // ports 500 and 4500 are one server's at a time,
  ),
  scenario('traffic flow confidentiality padding is declined', async context => {
    await moves(context.client(25))
    await context.said(/received ESP_TFC_PADDING_NOT_SUPPORTED/)
  }),
  simple('IPv6 inside', context => context.client(27, { host: SERVICE.host6 })),
  simple('IPv6 outside', context => context.client(11, { gateway: 'fd90::11' })),
  refused(
    'wrong PSK',
    context => context.client(11, { psk: 'not the right horse battery' }),
    /AUTHENTICATION_FAILED/,
  ),
  refused(
    'unknown identity wanted',
    context => context.client(11, { remoteId: 'nobody.rig.test' }),
    /AUTHENTICATION_FAILED/,
  ),
  refusesOffer(
    'no common IKE proposal',
    context => context.client(24, { ike: 'aes128-sha256-prfsha256-modp2048' }),
    /NO_PROPOSAL_CHOSEN/,
    ['aes128-sha256-prfsha256-modp2048'],
  ),
  refusesOffer(
    'no common ESP proposal',
    context => context.client(30, { esp: 'aes128-sha512-noesn' }),
    /NO_PROPOSAL_CHOSEN/,
    ['aes128-sha512-noesn'],
  ),
  refused(
    'transport mode demanded of a peer that does tunnel mode alone',
    context => context.hostToHost({ mode: 'transport' }),
    /TS_UNACCEPTABLE/, // strongSwan's words for it
  ),
  scenario('no address left in their pool', async context => {
    const first = await connect(context.client(32))
    assert.deepEqual(first.session?.virtualAddresses, ['10.93.255.1'])
    await failsWith(
      connect(context.client(32, { localId: `other.${context.clientId}` })),
      /INTERNAL_ADDRESS_FAILURE/,
    )
    await transfer(first, SHORT)
  }),
  refused(
    'traffic selectors unacceptable',
    context => context.hostToHost({ remoteTs: ['10.250.0.0/24'], host: '10.250.0.1' }),
    /TS_UNACCEPTABLE/,
  ),
  scenario('nothing answers', async context => {
    const socket = open(context.client(39, { gateway: '10.90.0.77', ...ALERT }))
    const [error] = (await once(socket, 'error').then(
      (value: unknown) => value,
      (reason: Error) => [reason],
    )) as [Error & { code?: string }]
    assert.match(error.code ?? '', /ETIMEDOUT|EHOSTUNREACH/)
  }),
  refused(
    'no IKE daemon at that port',
    context => context.client(11, { ikePort: 9 }),
    /ECONNREFUSED/,
  ),
]
