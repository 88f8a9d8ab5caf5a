/**
 * strongSwan against strongSwan, profile by profile: when these pass and the matrix does not, the product is to
 * blame and not the rig. Here "initiator" is strongSwan's.
 */
import assert from 'node:assert/strict'
import { openHalf } from './half-open.ts'
import { Agent, Daemon, PEER_PORT, script, SERVICE, until } from './rig.ts'
import {
  atParts,
  failsWith,
  SHORT,
  SLOW,
  type ConnectionLines,
  type Context,
  type Scenario,
} from './scenario.ts'
import type { Plan, Progress } from './transfer.ts'

interface Profile extends ConnectionLines {
  readonly address?: string
  readonly port?: number
  readonly remoteId?: string
  readonly remoteTs?: string
  readonly localAuth?: string
  readonly remoteAuth?: string
}

const connection = (context: Context, profile: Profile): string => `${context.name} : to-us {
  remote_addrs = ${profile.address ?? '10.90.0.11'}
  remote_port = ${profile.port ?? PEER_PORT}
  vips = 0.0.0.0
  ${profile.connection ?? ''}
  local { auth = ${profile.localAuth ?? 'psk'}
    id = ${context.clientId}
    ${profile.local ?? ''} }
  remote { auth = ${profile.remoteAuth ?? 'psk'}
    id = ${profile.remoteId ?? 'psk.rig.test'}
    ${profile.remote ?? ''} }
  children { ${context.name} : to-net {
    remote_ts = ${profile.remoteTs ?? '10.91.0.0/16'}
    ${profile.child ?? ''} } }
}`

const initiate = async (
  context: Context,
  profile: Profile,
  daemon = context.rig.initiator,
): Promise<void> => {
  context.daemons.push(daemon)
  await daemon.add(context.name, connection(context, profile))
  context.atEnd(() => daemon.terminate(context.name))
  await daemon.initiate(context.name)
}

const fetch = (
  context: Context,
  plan: Plan = SHORT,
  progress?: Progress,
  host: string = SERVICE.host,
): Promise<unknown> =>
  context.rig.peer.run({ kind: 'kernel', host, port: SERVICE.port, plan }, progress)

// All clients reach the same address behind the responder: one at a time, or their routes would overlap.
const rig = (name: string, run: (context: Context) => Promise<void>, seconds = 20): Scenario => ({
  name,
  role: 'initiator',
  peer: 'strongSwan',
  seconds,
  lock: 'route',
  run,
})

const simple = (name: string, profile: Profile, plan: Plan = SHORT): Scenario =>
  rig(name, async context => {
    await initiate(context, profile)
    await fetch(context, plan)
  })

const certificate = (name: string, who: string): Scenario =>
  simple(name, {
    remoteId: `server-${who}.rig.test`,
    localAuth: 'pubkey',
    remoteAuth: 'pubkey',
    local: `certs = client-${who}.crt\n id = client-${who}.rig.test`,
    remote: 'cacerts = ca.crt',
  })

const IKE_SUITES = [
  'aes256gcm16-prfsha384-ecp384',
  'aes128gcm16-prfsha256-ecp256',
  'chacha20poly1305-prfsha512-x25519',
  'aes256gcm16-prfsha512-curve448',
  'aes256-sha256-modp2048',
  'aes256-sha384-ecp521',
  'aes128-sha256-modp3072',
  'aes256-sha512-modp4096',
]
const ESP_SUITES = [
  'aes128gcm16',
  'chacha20poly1305',
  'aes256-sha256',
  'aes256-sha384',
  'aes256-sha512',
  'aes128-sha256',
]

export const scenarios: readonly Scenario[] = [
  simple('psk, address from the pool', {}),
  simple('psk, host to host', {
    remoteId: 'h2h.rig.test',
    connection: 'vips =',
    child: 'local_ts = 10.92.0.1/32',
    remoteTs: '10.91.0.1/32',
  }),
  ...IKE_SUITES.map(suite => simple(`IKE ${suite}`, { connection: `proposals = ${suite}` })),
  ...ESP_SUITES.map(suite => simple(`ESP ${suite}`, { child: `esp_proposals = ${suite}` })),
  ...['rsa', 'ecdsa', 'ecdsa384', 'ecdsa521', 'ed25519', 'ed448', 'chain'].map(who =>
    certificate(`certificate ${who}`, who),
  ),
  simple('EAP-MSCHAPv2', {
    address: '10.90.0.12',
    remoteId: 'server-ecdsa.rig.test',
    localAuth: 'eap-mschapv2',
    remoteAuth: 'pubkey',
    local: 'eap_id = alice',
  }),
  simple('EAP-TLS', {
    address: '10.90.0.13',
    remoteId: 'server-ecdsa.rig.test',
    localAuth: 'eap-tls',
    remoteAuth: 'pubkey',
    local: 'certs = client-ecdsa.crt\n id = client-ecdsa.rig.test',
  }),
  simple(
    'rekeys by time',
    { address: '10.90.0.14' },
    { up: 3_200_000, down: 3_200_000, rate: 400_000 },
  ),
  simple(
    'Child SA rekeyed by octets',
    { address: '10.90.0.15' },
    { up: 4_000_000, down: 4_000_000, rate: 1_000_000 },
  ),
  rig('rekeys on command', async context => {
    await initiate(context, {})
    const rekey = (what: string) => (): unknown =>
      context.rig.initiator.control('--rekey', `--${what}`, context.name)
    await fetch(
      context,
      SLOW,
      atParts(SLOW, { 0.2: rekey('child'), 0.5: rekey('ike'), 0.8: rekey('child') }),
    )
    await context.rig.responder.waitForLog(/IKE_SA psk\[\d+\] rekeyed/, 1000)
  }),
  simple('fragments', { address: '10.90.0.17', connection: 'vips = 0.0.0.0, ::' }),
  simple('fragments, certificate', {
    address: '10.90.0.17',
    remoteId: 'server-rsa.rig.test',
    connection: 'fragmentation = force',
    localAuth: 'pubkey',
    remoteAuth: 'pubkey',
    local: 'certs = client-rsa.crt\n id = client-rsa.rig.test',
  }),
  simple('childless', { address: '10.90.0.18', connection: 'childless = force' }),
  simple('PPK', {
    address: '10.90.0.19',
    connection: 'ppk_id = ppk1@rig.test\n ppk_required = yes',
  }),
  rig(
    'reauthentication',
    async context => {
      await initiate(context, { address: '10.90.0.20' })
      await fetch(context, { up: 1_400_000, down: 1_400_000, rate: 18_000 })
      assert.ok(context.established > 1, 'a second IKE SA')
    },
    100,
  ),
  simple('revocation strict', {
    address: '10.90.0.21',
    remoteId: 'server-ecdsa.rig.test',
    localAuth: 'pubkey',
    remoteAuth: 'pubkey',
    local: 'certs = client-ecdsa.crt\n id = client-ecdsa.rig.test',
  }),
  ...[
    ['revoked', '10.90.0.21'],
    ['expired', '10.90.0.11'],
    ['stranger', '10.90.0.11'],
  ].map(([who, address]) =>
    rig(`certificate ${who} is refused`, async context => {
      const initiated = initiate(context, {
        address: address!,
        remoteId: 'server-ecdsa.rig.test',
        localAuth: 'pubkey',
        remoteAuth: 'pubkey',
        local: `certs = client-${who}.crt\n id = client-${who}.rig.test`,
      })
      await failsWith(initiated, /AUTHENTICATION_FAILED|AUTH_FAILED/)
    }),
  ),
  rig('wrong PSK', async context => {
    await failsWith(
      initiate(context, { connection: '', local: 'id = nobody', remoteId: 'unknown.rig.test' }),
      /AUTHENTICATION_FAILED|AUTH_FAILED/,
    )
  }),
  simple('INVALID_KE_PAYLOAD', {
    address: '10.90.0.24',
    connection: 'proposals = aes256gcm16-prfsha384-x25519-ecp384',
  }),
  simple('TFC padding', { address: '10.90.0.25' }),
  rig('IPv6 inside', async context => {
    await initiate(context, {
      address: '10.90.0.27',
      connection: 'vips = 0.0.0.0, ::',
      remoteTs: '10.91.0.0/16, fd91::/64',
    })
    await fetch(context)
    await fetch(context, SHORT, undefined, SERVICE.host6)
  }),
  simple('IPv6 outside', { address: 'fd90::11' }),
  simple('certificate at the responder, PSK at the initiator', {
    address: '10.90.0.28',
    remoteId: 'server-ecdsa.rig.test',
    remoteAuth: 'pubkey',
  }),
  simple('PSK at the responder, certificate at the initiator', {
    address: '10.90.0.29',
    localAuth: 'pubkey',
    local: 'certs = client-ecdsa.crt\n id = client-ecdsa.rig.test',
  }),
  simple('no PFS', { address: '10.90.0.30', child: 'esp_proposals = aes256gcm16' }),
  rig('Child SA deleted after inactivity', async context => {
    await initiate(context, { address: '10.90.0.22' })
    await fetch(context)
    await context.rig.responder.waitForLog(
      /deleting CHILD_SA after \d+ seconds of inactivity/,
      10_000,
    )
  }),
  simple('PPK optional, not used', { address: '10.90.0.31' }),
  rig('cookies', async context => {
    const { daemon, port } = await context.startDaemon({ extra: 'cookies.extra' })
    await openHalf('10.90.0.11', port, 1)
    await initiate(context, { port })
    await fetch(context)
    await daemon.waitForLog(/parsed IKE_SA_INIT request 0 \[ N\(COOKIE\) SA/, 0)
  }),
  rig('dead peer: initiator killed', async context => {
    const daemon = new Daemon('killed', {
      conf: 'initiator',
      netns: 'home',
      ports: [0, 0],
      intermediate: 'inter-c',
    })
    await daemon.start()
    await initiate(context, { address: '10.90.0.16' }, daemon)
    assert.equal((await context.rig.responder.sas(context.clientId)).length, 1)
    await daemon.kill()
    await until(
      'the responder gives it up',
      12_000,
      async () => (await context.rig.responder.sas(context.clientId)).length === 0,
    )
  }),
  rig('NAT with rebinding', async context => {
    const daemon = new Daemon('behind-nat', {
      conf: 'initiator',
      netns: 'home',
      ports: [0, 0],
      intermediate: 'inter-c',
    })
    context.atEnd(() => daemon.kill())
    await daemon.start()
    await initiate(context, { connection: 'dpd_delay = 1s' }, daemon)
    const home = new Agent('home')
    context.atEnd(() => home.kill())
    const plan = SLOW
    await home.run(
      { kind: 'kernel', host: SERVICE.host, port: SERVICE.port, plan },
      atParts(plan, { 0.4: () => script('network', 'rebind') }),
    )
    const ports = [
      ...context.rig.responder.log.matchAll(/received packet: from 10\.96\.0\.1\[(\d+)\]/g),
    ]
    assert.ok(new Set(ports.map(match => match[1])).size > 1, 'the NAT gave it another port')
  }),
  rig('from port 500, floating to 4500', async context => {
    const floating = new Daemon('floating-i', {
      conf: 'initiator',
      netns: 'home',
      ports: [500, 4500],
      intermediate: 'inter-c',
    })
    context.atEnd(() => floating.kill())
    await floating.start()
    const { daemon } = await context.startDaemon({ ports: [500, 4500] })
    await initiate(context, { port: 500 }, floating)
    await daemon.waitForLog(
      /received packet: from \S+ to 10\.90\.0\.11\[500\][^]*to 10\.90\.0\.11\[4500\]/,
      0,
    )
  }),
]
