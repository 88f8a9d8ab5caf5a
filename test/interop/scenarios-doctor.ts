/** What `ike-socket doctor` finds at other products: each step where all is well, and the cause where it is not. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Diagnostician, type Diagnosis, type StepName } from '../../lib/cli/diagnose.ts'
import { eapPassword, type Options } from './product.ts'
import { Libreswan, PEER_PORT, PKI, PSK, SERVICE } from './rig.ts'
import type { Context, Scenario } from './scenario.ts'

const diagnose = (options: Options): Promise<Diagnosis> =>
  new Diagnostician(options as never, { report: () => {} }).run()

/** Of each step its sentence, or its sentences. */
const saysOf = ({ steps }: Diagnosis, name: StepName): string =>
  steps
    .filter(step => step.name === name)
    .map(({ state, says, cure = '' }) => `${state}: ${says}. ${cure}`)
    .join('\n')

const allOf = (diagnosis: Diagnosis): string =>
  diagnosis.steps.map(({ name, state, says }) => `${name} ${state}: ${says}`).join('\n')

const causeIs = (diagnosis: Diagnosis, name: StepName | undefined, text?: RegExp): void => {
  const { cause } = diagnosis
  assert.equal(cause?.name, name, allOf(diagnosis))
  if (text !== undefined) assert.match(`${cause?.says}. ${cause?.cure}`, text)
}

const ofStrongswan = (
  name: string,
  run: (context: Context, options: Options) => Promise<void>,
): Scenario => ({
  name: `doctor: ${name}`,
  role: 'initiator',
  peer: 'strongSwan',
  // It asks for everything. Of two policies whose prefixes are equally long in all, strongSwan in user space takes either.
  lock: 'habits',
  run: context =>
    run(
      context,
      context.hostToHost({ localAddress: `10.92.${context.net}.1`, port: SERVICE.port }),
    ),
})

/** A gateway of strongSwan that has a certificate and asks its clients for EAP-MSCHAPv2. */
const ofEapGateway = (name: string, own: Options, text: RegExp): Scenario => ({
  name: `doctor: ${name}`,
  role: 'initiator',
  peer: 'strongSwan',
  run: async context => {
    const options = context.client(12, {
      psk: undefined,
      ca: readFileSync(join(PKI, 'ca.crt'), 'utf8'),
      remoteId: 'server-ecdsa.rig.test',
      extendedKeyUsage: 'tls',
      ...own,
    })
    causeIs(await diagnose(options), 'authentication', text)
  },
})

const connection = (context: Context): string =>
  Object.entries({
    left: Libreswan.address,
    leftsubnet: '10.95.0.1/32',
    leftupdown: '/bin/true',
    leftid: '@libreswan.rig.test',
    right: '10.90.0.1',
    rightid: `@${context.clientId}`,
    rightsubnet: `10.92.${context.net}.1/32`,
    encapsulation: 'yes',
    authby: 'secret',
    ikev2: 'insist',
  })
    .map(([name, value]) => `  ${name}=${value}\n`)
    .join('')

const ofLibreswan = (
  name: string,
  run: (context: Context, options: Options) => Promise<void>,
): Scenario => ({
  name: `doctor: ${name}`,
  role: 'initiator',
  peer: 'libreswan, IKE alone',
  lock: 'libreswan',
  run: async context => {
    const { libreswan } = context.rig
    await libreswan.start()
    await libreswan.add(context.name, connection(context))
    context.atEnd(() => libreswan.whack('--terminate', '--name', context.name))
    const options = context.client(0, {
      gateway: Libreswan.address,
      ikePort: 4500,
      remoteId: 'libreswan.rig.test',
      host: '10.95.0.1',
      virtualAddress: false,
      localTs: [`10.92.${context.net}.1/32`],
      remoteTs: ['10.95.0.1/32'],
    })
    await run(context, options)
  },
})

export const scenarios: readonly Scenario[] = [
  ofStrongswan('all is well', async (_context, options) => {
    const diagnosis = await diagnose(options)
    causeIs(diagnosis, undefined)
    assert.match(
      saysOf(diagnosis, 'UDP'),
      new RegExp(`ok: UDP port ${PEER_PORT} of 10\\.90\\.0\\.11`),
    )
    assert.match(saysOf(diagnosis, 'proposals'), /ok: .* answers, and takes \S+-/)
    assert.match(
      saysOf(diagnosis, 'authentication'),
      /ok: h2h\.rig\.test has proved itself by the pre/,
    )
    assert.match(saysOf(diagnosis, 'MTU'), /ok: To the peer packets of \d+ octets pass/)
    assert.match(saysOf(diagnosis, 'round trips'), /ok: 20 of 20/)
    assert.match(saysOf(diagnosis, 'rekey'), /ok: New keys/)
    assert.match(saysOf(diagnosis, 'port'), /ok: 10\.91\.0\.1 port 8000 inside/)
    assert.match(saysOf(diagnosis, 'selectors'), /ok: .* gives 10\.92\.\S+ here and 10\.91\.0\.1/)
  }),
  ofStrongswan('no common proposal', async (_context, options) => {
    causeIs(
      await diagnose({ ...options, ike: 'aes128-sha1-modp1024' }),
      'proposals',
      /NO_PROPOSAL_CHOSEN.*asked for all that we can, it takes \S+.*Set the option "ike" to '\S+'/,
    )
  }),
  ofStrongswan('another key', async (_context, options) => {
    causeIs(
      await diagnose({ ...options, psk: 'another horse battery staple' }),
      'authentication',
      /refused our authentication.*pre-shared key.*Compare the keys/,
    )
  }),
  ofStrongswan('selectors that the peer has not', async (_context, options) => {
    causeIs(
      await diagnose({ ...options, remoteTs: ['10.250.0.0/24'], host: '10.250.0.1' }),
      'data',
      /TS_UNACCEPTABLE.*asked for everything, it gives 10\.92\.0\.0\/16 here and 10\.91\.0\.1/,
    )
  }),
  ofStrongswan('nobody serves the port inside', async (_context, options) => {
    causeIs(await diagnose({ ...options, port: 9 }), 'port', /ECONNREFUSED.*inside the tunnel/)
  }),
  ofLibreswan('a peer that does IKE and no ESP', async (_context, options) => {
    const diagnosis = await diagnose(options)
    causeIs(diagnosis, 'port', /IKE is answered, and of ESP \d+ packets went and none came/)
    assert.match(saysOf(diagnosis, 'proposals'), /ok: .* answers, and takes/)
    assert.match(saysOf(diagnosis, 'MTU'), /ok: To the peer packets of \d+ octets pass/)
    assert.match(saysOf(diagnosis, 'rekey'), /ok: New keys/)
  }),
  ofLibreswan('another key', async (_context, options) => {
    causeIs(
      await diagnose({ ...options, psk: 'another horse battery staple' }),
      'authentication',
      /refused our authentication.*pre-shared key/,
    )
  }),
  ofEapGateway('another password for EAP', eapPassword('alice', 'looking glass'), /EAP.*password/),
  ofEapGateway(
    'a pre-shared key where EAP is wanted',
    { psk: PSK, ca: undefined },
    /needs "eap" here/,
  ),
]
