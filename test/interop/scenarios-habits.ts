/**
 * What products that people have propose and accept unless they are told otherwise, played by strongSwan in both roles
 * and in user space: policy-based, in tunnel mode. The data goes on after a rekey and on a second connection.
 */
import assert from 'node:assert/strict'
import { connect, type Options } from './product.ts'
import { PEER_PORT, PSK, SERVICE, until } from './rig.ts'
import { failsWith, SHORT, type Context, type Scenario } from './scenario.ts'
import { transfer } from './transfer.ts'

interface Habit {
  readonly name: string
  readonly ike: string
  readonly esp: string
  /** What our side must be told as well; nothing: defaults do. */
  readonly options?: Options
}

/** Where strongSwan plays a habit, one after the other. */
const ADDRESS = '10.90.0.38'

export const HABITS: readonly Habit[] = [
  {
    name: 'AWS site to site',
    ike: 'aes128-aes256-sha1-sha256-sha384-sha512-modp1024-modp2048-modp3072-modp4096-ecp256-ecp384-ecp521,aes128gcm16-aes256gcm16-prfsha256-prfsha384-prfsha512-modp1024-modp2048-modp3072-ecp256-ecp384',
    esp: 'aes128-aes256-sha1-sha256-sha384-sha512-modp1024-modp2048-ecp256,aes128gcm16-aes256gcm16-modp1024-modp2048-ecp256',
  },
  {
    name: 'Azure default',
    ike: 'aes256-aes128-sha1-sha256-modp1024',
    esp: 'aes256gcm16,aes256-sha1,aes256-sha256,aes128-sha1,aes128-sha256',
    options: { ike: 'aes256-sha256-modp1024' },
  },
  { name: 'Azure custom', ike: 'aes256-sha256-modp2048', esp: 'aes256gcm16-modp2048' },
  {
    name: 'Google Cloud',
    ike: 'aes256gcm16-aes128gcm16-prfsha256-prfsha384-prfsha512-x25519-ecp256-ecp384-modp3072-modp4096-modp2048,aes256-aes128-sha256-sha384-sha512-x25519-ecp256-modp2048',
    esp: 'aes128gcm16-aes256gcm16-x25519-ecp256-modp2048,aes256-aes128-sha256-sha512-modp2048',
  },
  {
    name: 'Cisco IOS 15',
    ike: 'aes256-aes192-aes128-sha512-sha384-sha256-sha1-modp1536-modp1024',
    esp: 'aes128-sha1',
    options: { ike: 'aes256-sha512-modp1024', esp: 'aes128-sha1' },
  },
  {
    name: 'Cisco IOS XE 17',
    ike: 'aes256-sha512-sha384-ecp256-modp2048-ecp521',
    esp: 'aes128-sha1',
    options: { esp: 'aes128-sha1' },
  },
  {
    name: 'Cisco ASA, old',
    ike: 'aes256-aes192-aes128-sha1-modp1536-modp1024',
    esp: 'aes256-aes192-aes128-sha1',
    options: { ike: 'aes256-sha1-modp1024', esp: 'aes256-sha1' },
  },
  {
    name: 'Cisco ASA and FTD, new',
    ike: 'aes256gcm16-prfsha512-prfsha384-prfsha256-modp2048-ecp256',
    esp: 'aes256gcm16',
  },
  {
    name: 'FortiGate 7',
    ike: 'aes128-sha256-modp2048-modp1536,aes256-sha256-modp2048-modp1536,aes128gcm16-prfsha256-modp2048-modp1536,aes256gcm16-prfsha384-modp2048-modp1536,chacha20poly1305-prfsha256-modp2048-modp1536',
    esp: 'aes128-sha1-modp2048-modp1536,aes256-sha1-modp2048-modp1536,aes128-sha256-modp2048-modp1536,aes256-sha256-modp2048-modp1536,aes128gcm16-modp2048-modp1536,aes256gcm16-modp2048-modp1536,chacha20poly1305-modp2048-modp1536',
  },
  {
    name: 'Palo Alto default',
    ike: 'aes128-3des-sha1-modp1024',
    esp: 'aes128-3des-sha1-modp1024',
    options: { ike: 'aes128-sha1-modp1024', esp: 'aes128-sha1-modp1024' },
  },
  { name: 'Palo Alto Suite B', ike: 'aes256-sha384-ecp384', esp: 'aes256gcm16-ecp384' },
  {
    name: 'Juniper standard',
    ike: '3des-aes128-sha1-modp1024',
    esp: '3des-aes128-sha1-modp1024',
    options: { ike: 'aes128-sha1-modp1024', esp: 'aes128-sha1-modp1024' },
  },
  { name: 'Juniper prime-128', ike: 'aes128gcm16-prfsha256-ecp256', esp: 'aes128gcm16-ecp256' },
  {
    name: 'MikroTik',
    ike: 'aes128-3des-sha1-modp2048-modp1024',
    esp: 'aes256-aes192-aes128-sha1-modp1024',
    options: { ike: 'aes128-sha1-modp2048', esp: 'aes256-sha1-modp1024' },
  },
  {
    name: 'pfSense',
    ike: 'aes256-sha256-modp2048',
    esp: 'aes256-sha256-modp2048,aes128gcm16-modp2048',
  },
  { name: 'strongSwan and OPNsense', ike: 'default', esp: 'default' },
  {
    name: 'UniFi',
    ike: 'aes128-sha1-modp2048',
    esp: 'aes128-sha1-modp2048',
    options: { ike: 'aes128-sha1-modp2048', esp: 'aes128-sha1-modp2048' },
  },
  {
    name: 'Windows RRAS',
    ike: '3des-aes128-aes192-aes256-sha1-sha256-sha384-modp1024',
    esp: 'aes256-sha1,aes128-sha1,3des-sha1',
    options: { ike: 'aes256-sha256-modp1024', esp: 'aes256-sha1' },
  },
  {
    name: 'Windows with NegotiateDH2048_AES256',
    ike: 'aes256-sha1-sha256-sha384-modp2048',
    esp: 'aes256-sha1,aes128-sha1',
    options: { esp: 'aes256-sha1' },
  },
  { name: 'Windows by PowerShell', ike: 'aes256-sha384-ecp384', esp: 'aes256gcm16' },
  {
    name: 'iOS',
    ike: 'aes256-sha256-modp2048,aes256-sha256-ecp256,aes256-sha256-modp1536,aes128-sha1-modp1024,3des-sha1-modp1024',
    esp: 'aes256-sha256,aes128-sha1,3des-sha1',
  },
  { name: 'macOS', ike: 'aes256-sha256-modp2048', esp: 'aes256-sha256' },
  {
    name: 'Android',
    ike: 'aes256-aes192-aes128-sha512-sha384-sha256-prfsha512-prfsha384-prfsha256-modp4096-x25519-modp3072-modp2048,chacha20poly1305-aes256gcm16-aes192gcm16-aes128gcm16-prfsha512-prfsha384-prfsha256-modp4096-x25519-modp3072-modp2048',
    esp: 'aes256-aes192-aes128-sha512-sha384-sha256,chacha20poly1305-aes256gcm16-aes128gcm16',
  },
]

/** Those that we have nothing in common with: our server names what was offered. */
const STRANGE: readonly (Habit & { readonly offers: RegExp })[] = [
  {
    name: 'group 5 alone',
    ike: 'aes256-sha256-modp1536',
    esp: 'aes256-sha256',
    offers: /modp1536/,
  },
  {
    name: 'group 24 alone',
    ike: 'aes256-sha256-modp2048s256',
    esp: 'aes256-sha256',
    offers: /modp2048s256/,
  },
  {
    name: 'groups 17 and 18 alone',
    ike: 'aes256-sha384-modp6144-modp8192',
    esp: 'aes256gcm16',
    offers: /modp6144-modp8192/,
  },
  {
    name: 'brainpool alone',
    ike: 'aes256-sha256-ecp256bp',
    esp: 'aes256gcm16',
    offers: /ecp256bp/,
  },
  {
    name: 'AES-CTR alone',
    ike: 'aes128ctr-sha256-modp2048',
    esp: 'aes128ctr-sha256',
    offers: /aes128ctr/,
  },
  {
    name: 'AES-CCM alone in ESP',
    ike: 'aes256-sha256-modp2048',
    esp: 'aes128ccm16',
    offers: /aes128ccm16/,
  },
  {
    name: 'AES-GCM with a short ICV alone',
    ike: 'aes256gcm12-prfsha256-modp2048',
    esp: 'aes256gcm12',
    offers: /aes256gcm12/,
  },
]

/** strongSwan waits with the habit; what our client needs to reach what is behind it. */
const waiting = async (context: Context, { ike, esp, options }: Habit): Promise<Options> => {
  await context.rig.responder.add(
    'habit',
    `habit { version = 2
  local_addrs = ${ADDRESS}
  proposals = ${ike}
  encap = yes
  unique = never
  rekey_time = 0
  local { auth = psk
    id = habit.rig.test }
  remote { auth = psk }
  children { habit { local_ts = 10.91.0.0/16
    remote_ts = 10.92.0.0/16
    mode = tunnel
    esp_proposals = ${esp}
    rekey_time = 0
    updown = /bin/true } } }`,
  )
  return {
    host: SERVICE.host,
    port: SERVICE.port,
    gateway: ADDRESS,
    ikePort: PEER_PORT,
    psk: PSK,
    localId: context.clientId,
    remoteId: 'habit.rig.test',
    mode: 'tunnel',
    localTs: [`10.92.${context.net}.1/32`],
    remoteTs: ['10.91.0.0/16'],
    idleTimeout: 200,
    ...options,
  }
}

const habitual = async (context: Context, habit: Habit): Promise<void> => {
  const to = await waiting(context, habit)
  const socket = await connect(to)
  const session = socket.session!
  session.rekeyChild()
  await until('a rekey', 10_000, () => session.info.childRekeys >= 1)
  const second = await connect(to)
  assert.equal(second.session!.info.spiI, session.info.spiI)
  await Promise.all([transfer(socket, SHORT), transfer(second, SHORT)])
}

export const scenarios: readonly Scenario[] = [
  ...HABITS.flatMap((habit): Scenario[] => [
    {
      name: `habit: ${habit.name}`,
      role: 'initiator',
      peer: 'strongSwan',
      lock: 'habits',
      run: context => habitual(context, habit),
    },
    {
      name: `habit: ${habit.name}`,
      role: 'responder',
      peer: 'strongSwan',
      run: async context => {
        await context.listen(habit.options)
        await context.fetch({
          connection: `proposals = ${habit.ike}`,
          child: `esp_proposals = ${habit.esp}`,
        })
      },
    },
  ]),
  ...STRANGE.map((habit): Scenario => ({
    name: `habit: ${habit.name} is refused`,
    role: 'initiator',
    peer: 'strongSwan',
    lock: 'habits',
    run: async context => {
      const to = await waiting(context, habit)
      const { details } = (await failsWith(connect(to), /NO_PROPOSAL_CHOSEN/)) as {
        details?: { offered?: readonly string[] }
      }
      assert.ok((details?.offered?.length ?? 0) > 0, 'it says what we asked for')
    },
  })),
  ...STRANGE.map(({ name, ike, esp, offers }): Scenario => ({
    name: `habit: ${name} is named`,
    role: 'responder',
    peer: 'strongSwan',
    run: async context => {
      const { server } = await context.listen()
      const errors: Error[] = []
      server.on('ikeClientError', (error: Error) => errors.push(error))
      await context.prepare({ connection: `proposals = ${ike}`, child: `esp_proposals = ${esp}` })
      await failsWith(context.rig.initiator.initiate(context.name), /./)
      assert.match(errors[0]?.message ?? 'nothing', offers)
    },
  })),
]
