/** One end goes from one network to another while a transfer runs (RFC 4555): the hashes must be right. */
import assert from 'node:assert/strict'
import { listen } from './product.ts'
import { Agent, Daemon, PSK, script, until } from './rig.ts'
import {
  atParts,
  SERVER_PORT,
  SLOW,
  WITH_ADDRESS,
  type Context,
  type Scenario,
} from './scenario.ts'
import { answer } from './transfer.ts'

const SERVER = '10.90.0.1'
export const LOCK = 'the links of mobile'
/** Three moves, one of them to where it was. */
export const JOURNEY: Readonly<Record<number, () => Promise<unknown>>> = {
  0.2: () => script('network', 'wifi-off'),
  0.5: async () => {
    await script('network', 'wifi-on')
    await script('network', 'lte-off')
  },
  0.8: async () => {
    await script('network', 'lte-on')
    await script('network', 'wifi-off')
  },
}

/** The links are whole again when the scenario ends. */
export const restored = (context: Context): void =>
  context.atEnd(async () => {
    for (const link of ['wifi', 'lte']) {
      await script('network', `${link}-off`)
      await script('network', `${link}-on`)
    }
  })

const agentThere = (context: Context): Agent => {
  const agent = new Agent('mobile')
  context.atEnd(() => agent.kill())
  return agent
}

const daemonThere = async (context: Context): Promise<Daemon> => {
  const daemon = new Daemon(`mobile-${context.number}`, {
    conf: 'initiator',
    netns: 'mobile',
    ports: [0, 0],
    table: 300 + context.number,
    intermediate: 'inter-c',
  })
  context.daemons.unshift(daemon)
  context.atEnd(() => daemon.kill())
  await daemon.start()
  return daemon
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'wifi to LTE while a transfer runs',
    role: 'initiator',
    peer: 'strongSwan',
    seconds: 30,
    lock: LOCK,
    run: async context => {
      restored(context)
      const options = context.client(11)
      await agentThere(context).run(
        { kind: 'product', options, plan: SLOW },
        atParts(SLOW, JOURNEY),
      )
      const updates = context.rig.responder.log
        .slice(context.logFrom.get(context.rig.responder))
        .matchAll(/parsed INFORMATIONAL request \d+ \[.*N\(UPD_SA_ADDR\)/g)
      assert.ok([...updates].length >= 3, 'it was told of three moves')
      assert.equal(context.established, 1, 'one IKE SA carried it all')
    },
  },
  {
    name: 'IPv4 to IPv6 while a transfer runs',
    role: 'initiator',
    peer: 'strongSwan',
    seconds: 30,
    lock: LOCK,
    run: async context => {
      restored(context)
      const { daemon, port } = await context.startDaemon({ extra: 'two-links.extra' })
      await daemon.add('links', 'links : connections.psk { local_addrs = 10.97.1.1 }')
      const options = context.client(11, { gateway: '10.97.1.1', ikePort: port })
      const cut = async (): Promise<void> => {
        for (const link of ['wifi', 'lte']) await script('network', `${link}-off`)
      }
      await agentThere(context).run(
        { kind: 'product', options, plan: SLOW },
        atParts(SLOW, { 0.3: cut }),
      )
      assert.match(daemon.log, /N\(UPD_SA_ADDR\)[^]*sending packet: from fd97\S+ to fd97:/)
      assert.equal([...daemon.log.matchAll(/established between/g)].length, 1)
    },
  },
  {
    name: 'wifi to LTE, with our own server',
    role: 'initiator',
    peer: 'ike-socket',
    seconds: 30,
    lock: LOCK,
    run: async context => {
      restored(context)
      // A host with several addresses answers by the one it is bound to.
      const security = { psk: PSK, ikePort: context.ikePort }
      const server = await listen(security, SERVER_PORT, answer, SERVER)
      context.atEnd(() => new Promise<void>(resolve => server.close(() => resolve())))
      let sessions = 0
      server.on('session', () => sessions++)
      const options = { ...security, host: SERVER, port: SERVER_PORT, localId: context.clientId }
      const agent = agentThere(context)
      await agent.run({ kind: 'product', options, plan: SLOW }, atParts(SLOW, JOURNEY))
      assert.equal(sessions, 1)
    },
  },
  {
    name: 'wifi to LTE while a transfer runs',
    role: 'responder',
    peer: 'strongSwan',
    seconds: 40,
    lock: LOCK,
    run: async context => {
      restored(context)
      const { sockets } = await context.listen(context.pool)
      const daemon = await daemonThere(context)
      await context.prepare(
        { ...WITH_ADDRESS, connection: 'vips = 0.0.0.0\n mobike = yes' },
        daemon,
      )
      await daemon.initiate(context.name)
      const job = {
        kind: 'kernel',
        host: context.serverAddress,
        port: SERVER_PORT,
        plan: SLOW,
      } as const
      const agent = agentThere(context)
      await agent.run(job, atParts(SLOW, { 0.3: () => script('network', 'wifi-off') }))
      assert.equal(sockets.length, 1)
      await until('our end knows the new address', 2000, () =>
        /10\.97\.2\.2/.test(daemon.log) ? true : undefined,
      )
      assert.match(daemon.log, /generating INFORMATIONAL request \d+ \[.*N\(UPD_SA_ADDR\)/)
    },
  },
]
