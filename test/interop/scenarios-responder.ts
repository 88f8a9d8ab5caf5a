/** strongSwan connects, we answer: TCP clients of a kernel behind it reach our server. */
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Options, ProtectedSession, ProtectedSocket } from './product.ts'
import { Agent, Daemon, PSK, script, until } from './rig.ts'
import {
  atParts,
  failsWith,
  SERVER_PORT,
  SHORT,
  SLOW,
  type ConnectionLines,
  type Context,
  type Scenario,
  WITH_ADDRESS,
} from './scenario.ts'
import { ESP_SUITES, IKE_SUITES } from './scenarios-initiator.ts'
import type { Plan } from './transfer.ts'

const scenario = (
  name: string,
  run: (context: Context) => Promise<void>,
  more: Partial<Scenario> = {},
): Scenario => ({ name, role: 'responder', peer: 'strongSwan', run, ...more })

const simple = (
  name: string,
  lines: ConnectionLines = {},
  options: Options = {},
  plan: Plan = SHORT,
): Scenario =>
  scenario(name, async context => {
    await context.listen(options)
    await context.fetch(lines, plan)
  })

/** The same, and strongSwan's log shows that it came about as the name says. */
const says = (
  name: string,
  pattern: RegExp,
  lines: ConnectionLines,
  options: Options = {},
): Scenario =>
  scenario(
    name,
    async context => {
      await context.listen(options)
      await context.fetch(lines)
      await context.said(pattern)
    },
    { lock: 'what strongSwan says' },
  )

const GUESSES_WRONG: ConnectionLines = {
  connection: 'proposals = aes256gcm16-prfsha384-x25519-ecp384',
}
const ONLY_P384: Options = { ike: 'aes256gcm16-prfsha384-ecp384' }

/** They are refused and their log says why. */
const refused = (
  name: string,
  lines: ConnectionLines,
  options: Options,
  reason: RegExp,
): Scenario =>
  scenario(name, async context => {
    const { server, sockets } = await context.listen(options)
    const errors: (Error & { code?: string; details?: object })[] = []
    server.on('ikeClientError', (error: Error) => errors.push(error))
    await context.prepare(lines)
    await failsWith(context.rig.initiator.initiate(context.name), reason)
    assert.equal(sockets.length, 0)
    // Our side says why, and for a negotiation what the two ends have.
    assert.match(errors[0]?.code ?? '', reason)
    if (errors[0]?.code !== 'AUTHENTICATION_FAILED')
      assert.deepEqual(Object.keys(errors[0]?.details ?? {}).slice(0, 2), ['offered', 'accepted'])
  })

const ALERT: Options = {
  livenessInterval: 500,
  retransmit: { initial: 200, factor: 1.5, max: 1000, tries: 4 },
}

/** As many rekeys have happened, or soon will have. */
const rekeyed = async (
  session: ProtectedSession | undefined,
  ike: number,
  children: number,
): Promise<void> => {
  assert.ok(session, 'there was a connection')
  await until(
    `${ike} and ${children} rekeys`,
    10_000,
    () => session.info.ikeRekeys >= ike && session.info.childRekeys >= children,
  )
}

/** Another strongSwan as initiator. */
const another = async (
  context: Context,
  netns: 'peer' | 'home',
  ports: [number, number] = [0, 0],
): Promise<Daemon> => {
  const daemon = new Daemon(`initiator-${context.number}`, {
    conf: 'initiator',
    netns,
    ports,
    table: 300 + context.number,
    intermediate: 'inter-c',
  })
  context.daemons.push(daemon)
  context.atEnd(() => daemon.kill())
  await daemon.start()
  return daemon
}

export const scenarios: readonly Scenario[] = [
  scenario('psk, address by configuration payload', async context => {
    const { sockets } = await context.listen(context.pool)
    await context.fetch(WITH_ADDRESS)
    await context.said(/parsed IKE_AUTH response 1 \[ IDr AUTH .*CPRP\(ADDR DNS\)/)
    const session = sockets[0]?.session
    assert.match(
      session?.info.children[0]?.remoteSelectors.join() ?? '',
      new RegExp(`^10\\.94\\.${context.net}\\.`),
    )
    await context.rig.initiator.waitForLog(
      new RegExp(`installing new virtual IP 10\\.94\\.${context.net}\\.`),
      0,
    )
  }),
  // A daemon of their own: with a second address at one, connections without any stop at that one.
  scenario('no address left in our pool', async context => {
    await context.listen({ addressPool: `10.94.${context.net}.129` })
    const daemon = await another(context, 'peer')
    const names = [context.name, `${context.name}b`] as const
    for (const name of names) await context.prepare(WITH_ADDRESS, daemon, name)
    await daemon.initiate(names[0])
    await failsWith(daemon.initiate(names[1]), /INTERNAL_ADDRESS_FAILURE|INT_ADDR_FAIL/)
    await context.kernel(SHORT)
    await daemon.terminate(names[0])
    await daemon.initiate(names[1])
  }),
  scenario('two clients behind one address', async context => {
    const { server } = await context.listen(context.pool)
    const seen: string[] = []
    server.on('connection', ({ remoteAddress, peerId }: ProtectedSocket) =>
      seen.push(`${remoteAddress} ${peerId}`),
    )
    const daemon = await another(context, 'peer')
    const names = [context.name, `${context.name}b`]
    for (const name of names) {
      await context.prepare(WITH_ADDRESS, daemon, name)
      await daemon.initiate(name)
    }
    const addresses = [...daemon.log.matchAll(/installing new virtual IP ([\d.]+)/g)].map(
      match => match[1]!,
    )
    assert.equal(new Set(addresses).size, 2)
    await Promise.all(
      addresses.map(localAddress =>
        context.rig.peer.run({
          kind: 'kernel',
          host: context.serverAddress,
          port: SERVER_PORT,
          localAddress,
          plan: { ...SHORT, rate: 300_000 },
        }),
      ),
    )
    const expected = names.map((name, i) => `${addresses[i]} ${name}.client.rig.test`).sort()
    assert.deepEqual(seen.sort(), expected)
  }),
  simple('psk, host to host'),
  simple('on another identity type', { remote: 'id = 10.90.0.1' }, { localId: '10.90.0.1' }),
  ...IKE_SUITES.map(suite =>
    // X448 is not among the defaults
    simple(
      `IKE ${suite}`,
      { connection: `proposals = ${suite.replace('x448', 'curve448')}` },
      suite.endsWith('x448') ? { ike: suite } : {},
    ),
  ),
  ...ESP_SUITES.map(suite => simple(`ESP ${suite}`, { child: `esp_proposals = ${suite}` })),
  simple('their default proposals', {
    connection: 'proposals = default',
    child: 'esp_proposals = default',
  }),
  simple('ESP with noble', {}, { crypto: 'noble' }),
  simple('16 MiB each way', {}, {}, { up: 2 ** 24, down: 2 ** 24 }),
  scenario('20 sockets over one SA', async context => {
    await context.listen()
    await context.fetch()
    await Promise.all(Array.from({ length: 20 }, () => context.kernel(SHORT)))
  }),
  scenario('inner port closed', async context => {
    await context.listen()
    await context.fetch()
    const kernel = {
      kind: 'kernel',
      host: context.serverAddress,
      port: SERVER_PORT + 1,
      plan: SHORT,
    } as const
    await failsWith(context.rig.peer.run(kernel), /ECONNREFUSED/)
  }),

  // --- rekeying ---
  scenario('rekeys started by us', async context => {
    const { sockets } = await context.listen()
    await context.prepare()
    await context.rig.initiator.initiate(context.name)
    const session = (): ProtectedSession => sockets[0]!.session!
    const acts = {
      0.2: () => session().rekeyChild(),
      0.4: () => session().rekeyIke(),
      0.6: () => session().rekeyChild(),
    }
    await context.kernel(SLOW, atParts(SLOW, acts))
    await rekeyed(sockets[0]?.session, 1, 2)
  }),
  scenario('rekeys started by them', async context => {
    const { sockets } = await context.listen()
    await context.prepare()
    await context.rig.initiator.initiate(context.name)
    const rekey = (what: string) => () =>
      context.rig.initiator.control('--rekey', `--${what}`, context.name)
    await context.kernel(
      SLOW,
      atParts(SLOW, { 0.2: rekey('child'), 0.4: rekey('ike'), 0.6: rekey('child') }),
    )
    await rekeyed(sockets[0]?.session, 1, 2)
  }),
  scenario('rekeys by their time limits', async context => {
    const { sockets } = await context.listen()
    await context.fetch(
      { connection: 'rekey_time = 4s\n over_time = 4s', child: 'rekey_time = 2s\n life_time = 5s' },
      { up: 2_600_000, down: 2_600_000, rate: 400_000 },
    )
    await rekeyed(sockets[0]?.session, 1, 2)
  }),
  scenario('rekeys by our time limits', async context => {
    const { sockets } = await context.listen({ childLifetime: 2000, ikeLifetime: 4000 })
    await context.fetch({}, { up: 2_400_000, down: 2_400_000, rate: 400_000 })
    await rekeyed(sockets[0]?.session, 1, 2)
  }),
  scenario('rekeys started by them, without PFS', async context => {
    const { sockets } = await context.listen()
    await context.prepare({ child: 'esp_proposals = aes256gcm16' })
    await context.rig.initiator.initiate(context.name)
    const rekey = () => context.rig.initiator.control('--rekey', '--child', context.name)
    await context.kernel(SLOW, atParts(SLOW, { 0.3: rekey }))
    await rekeyed(sockets[0]?.session, 0, 1)
  }),
  scenario('Child SA rekeyed by their octet limit', async context => {
    const { sockets } = await context.listen()
    await context.fetch(
      { child: 'rekey_bytes = 1000000\n life_bytes = 20000000\n rand_bytes = 0' },
      { up: 4_000_000, down: 4_000_000, rate: 2_000_000 },
    )
    await rekeyed(sockets[0]?.session, 0, 1)
  }),
  scenario('both rekey at the same time', async context => {
    const { sockets } = await context.listen()
    await context.prepare()
    await context.rig.initiator.initiate(context.name)
    // Their request waits in our UDP socket while ours is made: each gets the other's before the answer.
    const both = (what: 'ike' | 'child') => () => {
      const session = sockets[0]!.session!
      context.rig.initiator.controlSync('--rekey', `--${what}`, context.name)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50)
      if (what === 'ike') session.rekeyIke()
      else session.rekeyChild()
    }
    await context.kernel(
      SLOW,
      atParts(SLOW, { 0.2: both('child'), 0.5: both('ike'), 0.8: both('child') }),
    )
    await rekeyed(sockets[0]?.session, 1, 2)
    await context.said(/CHILD_REKEY collision with CHILD_REKEY/)
    await context.said(/IKE_REKEY collision with IKE_REKEY/)
  }),
  scenario('INVALID_KE_PAYLOAD in a rekey', async context => {
    const { sockets } = await context.listen({ esp: 'aes256gcm16-ecp384' })
    await context.prepare({ child: 'esp_proposals = aes256gcm16-x25519-ecp384' })
    await context.rig.initiator.initiate(context.name)
    const rekey = () => context.rig.initiator.control('--rekey', '--child', context.name)
    await context.kernel(SLOW, atParts(SLOW, { 0.3: rekey }))
    await rekeyed(sockets[0]?.session, 0, 1)
    await context.said(/CREATE_CHILD_SA response \d+ \[ N\(INVAL_KE\)/)
  }),
  // Nothing in another make's IKE_AUTH proves that it has the keys of the older SA, so the new one is a session of
  // its own: the sockets of the older one end with it, and new ones are served.
  scenario('they authenticate again', async context => {
    const { server } = await context.listen()
    const ended: unknown[] = []
    server.on('sessionEnd', (session: unknown) => ended.push(session))
    await context.prepare({ connection: 'reauth_time = 2s\n over_time = 3s\n rekey_time = 0s' })
    await context.rig.initiator.initiate(context.name)
    // Whoever is slow meets the next time that they do so, which ends its sockets too.
    const served = (): Promise<boolean> =>
      context.kernel(SHORT).then(
        () => true,
        () => false,
      )
    await until('data', 10_000, served)
    await until('the older session ends', 10_000, () => ended.length > 0)
    assert.ok(context.established > 1, 'a second IKE SA')
    await until('data of a new socket', 10_000, served)
  }),

  // --- ends and restarts ---
  scenario('their process killed', async context => {
    const { sockets } = await context.listen(ALERT)
    const daemon = await another(context, 'peer')
    await context.prepare({}, daemon)
    await daemon.initiate(context.name)
    context.kernel(SLOW, atParts(SLOW, { 0.3: () => daemon.kill() })).catch(() => {})
    const socket = await until('a connection', 5000, () => sockets[0])
    await new Promise(resolve => socket.once('close', resolve))
    const error: NodeJS.ErrnoException | null = socket.errored
    assert.match(error?.code ?? '', /ETIMEDOUT|ECONNRESET/)
  }),
  scenario('our process killed', async context => {
    const agent = new Agent()
    context.atEnd(() => agent.kill())
    await agent.run({ kind: 'server', options: context.server(), port: SERVER_PORT })
    await context.fetch({ connection: 'dpd_delay = 1s' })
    await agent.kill()
    await until(
      'strongSwan gives us up',
      15_000,
      async () => (await context.rig.initiator.sas(context.name)).length === 0,
    )
  }),
  scenario(
    'our restart: they connect again',
    async context => {
      const agent = new Agent()
      context.atEnd(() => agent.kill())
      await agent.run({ kind: 'server', options: context.server(), port: SERVER_PORT })
      await context.fetch({ connection: 'dpd_delay = 1s', child: 'dpd_action = start' })
      await agent.kill()
      await context.listen()
      await until('data after the restart', 15_000, () =>
        context.kernel(SHORT).then(
          () => true,
          () => false,
        ),
      )
    },
    { seconds: 30 },
  ),
  scenario('their restart: they connect again', async context => {
    await context.listen()
    const daemon = await another(context, 'peer')
    await context.prepare({}, daemon)
    await daemon.initiate(context.name)
    await context.kernel(SHORT)
    await daemon.kill()
    await daemon.start()
    await daemon.initiate(context.name)
    await context.kernel(SHORT)
  }),
  scenario('their restart: INITIAL_CONTACT ends the old session', async context => {
    // The key of one identity: what it proves may end what it proved before.
    const psk = { [`${context.name}.client.rig.test`]: PSK }
    const { server } = await context.listen({ psk })
    const ended: unknown[] = []
    server.on('sessionEnd', (session: unknown) => ended.push(session))
    const daemon = await another(context, 'peer')
    await context.prepare({ connection: 'unique = replace' }, daemon)
    await daemon.initiate(context.name)
    await daemon.kill()
    assert.equal(ended.length, 0)
    await daemon.start()
    await daemon.initiate(context.name)
    await daemon.waitForLog(/N\(INIT_CONTACT\)/, 500)
    await until('the old session ends', 1000, () => ended.length === 1)
    await context.kernel(SHORT)
  }),
  scenario(
    'two replicas of theirs with one identity: INITIAL_CONTACT of one does not end the other',
    async context => {
      const { server } = await context.listen()
      const ended: unknown[] = []
      server.on('sessionEnd', (session: unknown) => ended.push(session))
      const connection = 'unique = no\n remote_addrs = 10.96.0.2'
      await context.prepare({ connection: 'unique = no' })
      await context.rig.initiator.initiate(context.name)
      const replica = await another(context, 'home')
      await context.prepare({ connection }, replica)
      const home = new Agent('home')
      context.atEnd(() => home.kill())
      const service = { host: context.serverAddress, port: SERVER_PORT }
      await context.kernel(SLOW, atParts(SLOW, { 0.3: () => replica.initiate(context.name) }))
      await home.run({ kind: 'kernel', ...service, plan: SHORT })
      await context.kernel(SHORT)
      await replica.waitForLog(/N\(INIT_CONTACT\)/, 500)
      assert.equal(ended.length, 0)
    },
    { lock: 'nat' },
  ),
  scenario('they delete the IKE SA', async context => {
    const { sockets } = await context.listen()
    await context.prepare()
    await context.rig.initiator.initiate(context.name)
    context.kernel(SLOW).catch(() => {})
    const socket = await until('a connection', 5000, () => sockets[0])
    const closed = new Promise<void>(resolve => socket.once('close', resolve))
    await context.rig.initiator.terminate(context.name)
    await closed
  }),
  scenario('our orderly close leaves nothing there', async context => {
    const { server, sockets } = await context.listen()
    await context.fetch()
    for (const socket of sockets) socket.destroy()
    server.close()
    await until(
      'the SA is gone',
      5000,
      async () => (await context.rig.initiator.sas(context.name)).length === 0,
    )
  }),

  // --- NAT, fragments, cookies, negotiation ---
  scenario(
    'behind a NAT that rebinds',
    async context => {
      const { sockets } = await context.listen(ALERT)
      const daemon = await another(context, 'home')
      await context.prepare({ connection: 'dpd_delay = 1s\n remote_addrs = 10.96.0.2' }, daemon)
      await daemon.initiate(context.name)
      const ports = new Set<unknown>()
      const note = setInterval(() => ports.add(sockets[0]?.session?.gatewayPort ?? 'none'), 100)
      context.atEnd(() => clearInterval(note))
      const home = new Agent('home')
      context.atEnd(() => home.kill())
      await home.run(
        { kind: 'kernel', host: context.serverAddress, port: SERVER_PORT, plan: SLOW },
        atParts(SLOW, { 0.4: () => script('network', 'rebind') }),
      )
      ports.delete('none')
      assert.ok(ports.size > 1, 'the NAT gave it another port and we followed')
    },
    { lock: 'nat', seconds: 30 },
  ),
  scenario('fragments of 576 octets from us', async context => {
    const dns = Array.from({ length: 80 }, (_, i) => `10.94.0.${i + 1}`)
    await context.listen({ ...context.pool, dns, fragmentSize: 576 })
    await context.fetch(WITH_ADDRESS)
    await context.said(/received fragment #2 of/)
  }),
  says('fragments of 600 octets from them', /splitting IKE message/, {
    // an identity that alone fills one
    local: `id = ${'a-long-label.'.repeat(60)}rig.test`,
  }),
  says('cookies', /N\(COOKIE\)/, {}, { cookieThreshold: 0 }),
  says('INVALID_KE_PAYLOAD', /N\(INVAL_KE\)/, GUESSES_WRONG, ONLY_P384),
  says('cookies and INVALID_KE_PAYLOAD', /N\(COOKIE\)[^]*N\(INVAL_KE\)/, GUESSES_WRONG, {
    ...ONLY_P384,
    cookieThreshold: 0,
  }),
  simple('childless IKE_AUTH', { connection: 'childless = force' }),
  scenario('dead peer probes of theirs are answered', async context => {
    await context.listen()
    await context.fetch({ connection: 'dpd_delay = 1s' })
    await sleep(3500)
    await context.kernel(SHORT)
    await context.said(/sending DPD request/)
  }),
  says('MOBIKE offered', /N\(MOBIKE_SUP\)/, { connection: 'mobike = yes' }),
  ...[500, 4500].map(ikePort =>
    scenario(
      // Without a non-ESP marker first, in both cases, since it sends from port 500.
      `from port 500 to ${ikePort}, floating to 4500`,
      async context => {
        await context.listen({ ikePort })
        const daemon = await another(context, 'home', [500, 4500])
        await context.prepare(
          { connection: `remote_port = ${ikePort}\n remote_addrs = 10.96.0.2` },
          daemon,
        )
        await daemon.initiate(context.name)
        const home = new Agent('home')
        context.atEnd(() => home.kill())
        await home.run({
          kind: 'kernel',
          host: context.serverAddress,
          port: SERVER_PORT,
          plan: SHORT,
        })
        await daemon.waitForLog(
          /from [\d.]+\[500\] to[^]*from [\d.]+\[4500\] to 10\.96\.0\.2\[4500\]/,
          0,
        )
      },
      { lock: 'nat' },
    ),
  ),
  scenario('IPv6 inside', async context => {
    const host = `fd94::${context.number}`
    await context.listen({ localTs: [`${host}/128`] })
    await context.prepare({ child: `local_ts = fd95::1/128\n remote_ts = ${host}/128` })
    await context.rig.initiator.initiate(context.name)
    await context.rig.peer.run({ kind: 'kernel', host, port: SERVER_PORT, plan: SHORT })
  }),
  simple('IPv6 outside', { connection: 'remote_addrs = fd90::1' }),
  refused(
    'wrong PSK',
    {},
    { psk: 'not the right horse battery' },
    /AUTHENTICATION_FAILED|AUTH_FAILED/,
  ),
  refused('not authorized', {}, { authorize: () => false }, /AUTHENTICATION_FAILED|AUTH_FAILED/),
  refused(
    'unknown identity',
    {},
    { psk: { 'somebody.else.test': PSK } },
    /AUTHENTICATION_FAILED|AUTH_FAILED/,
  ),
  refused(
    'no common IKE proposal',
    { connection: 'proposals = aes128-sha256-modp2048' },
    { ike: 'aes256gcm16-prfsha384-ecp384' },
    /NO_PROPOSAL_CHOSEN|NO_PROP/,
  ),
  refused(
    'no common ESP proposal',
    { child: 'esp_proposals = aes128-sha512' },
    { esp: 'aes256gcm16' },
    /NO_PROPOSAL_CHOSEN|NO_PROP/,
  ),
  refused(
    'traffic selectors unacceptable',
    { child: 'remote_ts = 10.250.0.0/24' },
    {},
    /TS_UNACCEPTABLE|TS_UNACCEPT/,
  ),
]
