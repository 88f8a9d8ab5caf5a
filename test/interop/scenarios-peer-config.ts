/** What `ike-socket peer-config` writes is loaded by the daemons that it is for, and our client then meets them. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { PRODUCTS } from '../../lib/cli/peer-products.ts'
import { readPlan, type PeerPlan } from '../../lib/cli/peer-plan.ts'
import { connect, type Options } from './product.ts'
import { Libreswan, PSK, SERVICE } from './rig.ts'
import type { Context, Scenario } from './scenario.ts'

const planOf = (options: Options, peer: string): PeerPlan =>
  readPlan(options, {
    as: 'client',
    address: undefined,
    peer,
    certificate: undefined,
    authority: undefined,
  })

const throughStrongswan = async (context: Context): Promise<void> => {
  const gateway = '10.90.0.11'
  const options: Options = {
    ...context.hostToHost(),
    remoteId: `${context.name}.config.rig.test`,
    ike: 'aes256gcm16-prfsha256-x25519',
  }
  const text = PRODUCTS.strongswan(planOf(options, gateway))
    .replaceAll('ike-socket', context.name)
    .replace(/^ {4}version = 2$/m, `    version = 2\n    local_addrs = ${gateway}`)
  await context.rig.responder.addFile(context.name, text)
  await context.rig.responder.control('--load-creds')
  const conns = await context.rig.responder.control('--list-conns')
  assert.match(conns, new RegExp(`${context.name}: IKEv2`))
  const socket = await connect({ ...options, gateway })
  socket.destroy()
}

const throughLibreswan = async (context: Context): Promise<void> => {
  const { libreswan } = context.rig
  await libreswan.start()
  const options: Options = {
    host: '10.95.0.1',
    port: SERVICE.port,
    gateway: Libreswan.address,
    psk: PSK,
    localId: context.clientId,
    remoteId: `${context.name}.libreswan.rig.test`,
    mode: 'tunnel',
    localAddress: `10.92.${context.net}.1`,
    localTs: `10.92.${context.net}.1`,
    remoteTs: '10.95.0.1',
    ike: 'aes256gcm16-prfsha256-ecp256',
    esp: 'aes256gcm16',
    pfs: false,
  }
  const text = PRODUCTS.libreswan(planOf(options, Libreswan.address))
  const lines = text.split('\n').filter(line => line.startsWith('  '))
  await libreswan.add(context.name, `${lines.join('\n')}\n  leftupdown=/bin/true\n`)
  context.atEnd(() => libreswan.whack('--terminate', '--name', context.name))
  assert.match(await libreswan.whack('--status'), new RegExp(`"${context.name}"`))
}

const execute = promisify(execFile)

/** The daemon reads it and ends: its SAs are a kernel's, by PF_KEY, which not every Linux has. */
const throughOpeniked = async (context: Context): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), 'ike-socket-openiked-'))
  context.atEnd(() => rm(folder, { recursive: true }))
  const gateway = '192.0.2.1'
  const psk: Options = {
    psk: PSK,
    localId: context.clientId,
    remoteId: 'vpn.example.com',
    gateway,
    mode: 'tunnel',
    localTs: '10.9.0.1',
    remoteTs: ['10.1.0.0/16', '10.2.0.0/16'],
  }
  const { mode: _mode, localTs: _local, remoteTs: _remote, ...transport } = psk
  const trials: Readonly<Record<string, Options>> = {
    tunnel: psk,
    transport,
    proposals: {
      ...psk,
      ike: [
        'aes256gcm16-prfsha384-ecp384',
        'aes192-sha512-x25519-modp4096',
        'aes128-sha1-modp3072',
      ],
      esp: ['aes128gcm16-ecp256', 'chacha20poly1305', 'aes256-sha256-x25519'],
    },
    address: { ...transport, mode: 'tunnel', remoteTs: '10.1.0.0/16', virtualAddress: true },
    IPv6: { ...psk, gateway: '2001:db8::1', localTs: '2001:db8:9::1', remoteTs: '2001:db8:1::/48' },
  }
  const load = async (name: string, plan: PeerPlan): Promise<void> => {
    const file = join(folder, `${name}.conf`)
    await writeFile(file, PRODUCTS.openiked(plan), { mode: 0o600 })
    const { stderr } = await execute('/usr/sbin/iked', ['-n', '-f', file])
    assert.match(stderr, /configuration OK/, name)
  }
  for (const [name, options] of Object.entries(trials))
    await load(name, planOf(options, options.gateway as string))
  const asServer = {
    as: 'server',
    address: '192.0.2.9',
    peer: undefined,
    certificate: undefined,
    authority: undefined,
  } as const
  const server: Options = { psk: PSK, localId: 'vpn.example.com', remoteId: context.clientId }
  await load('client', readPlan({ ...server, addressPool: '10.8.0.0/24' }, asServer))
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'the swanctl.conf of peer-config is loaded, and answers our client',
    role: 'initiator',
    peer: 'strongSwan',
    run: throughStrongswan,
  },
  {
    name: 'the ipsec.conf of peer-config is loaded',
    role: 'initiator',
    peer: 'libreswan, IKE alone',
    lock: 'libreswan',
    run: throughLibreswan,
  },
  {
    name: 'each iked.conf of peer-config is loaded',
    role: 'initiator',
    peer: 'OpenIKED, its configuration alone',
    run: throughOpeniked,
  },
]
