/** What `ike-socket peer-config` writes is loaded by the daemons that it is for, and our client then meets them. */
import assert from 'node:assert/strict'
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
]
