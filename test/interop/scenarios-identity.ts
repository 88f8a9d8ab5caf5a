/** Certificates, EAP and post-quantum keys, both roles. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect, eapCertificate, eapPassword, postQuantumKey, type Options } from './product.ts'
import { PKI, PSK } from './rig.ts'
import { failsWith, SHORT, type ConnectionLines, type Context, type Scenario } from './scenario.ts'
import { transfer } from './transfer.ts'

const KEYS = ['rsa', 'ecdsa', 'ecdsa384', 'ecdsa521', 'ed25519', 'ed448'] as const

const pem = (file: string): string => readFileSync(join(PKI, file), 'utf8')

/** What strongSwan's own tools make: certificates for TLS, and RSA without PSS. */
const AS_STRONGSWAN: Options = { extendedKeyUsage: 'tls', rsaPkcs1: true }

/** A certificate's options, with the chain below the anchor. */
const own = (name: string, ...chain: string[]): Options => ({
  cert: [name, ...chain].map(part => pem(`${part}.crt`)).join(''),
  key: pem(`${name}.key`),
  localId: `${name}.rig.test`,
})

const PPK_ID = 'ppk1@rig.test'
const PPK = Uint8Array.from({ length: 32 }, (_, i) => i)

// --- as initiator ---

const asInitiator = (name: string, run: (context: Context) => Promise<void>): Scenario => ({
  name,
  role: 'initiator',
  peer: 'strongSwan',
  run,
})

/** Our client with certificates on both sides. */
const certified = (context: Context, mine: Options, theirs: string, extra: Options = {}): Options =>
  context.client(11, {
    psk: undefined,
    ca: pem('ca.crt'),
    remoteId: `${theirs}.rig.test`,
    ...AS_STRONGSWAN,
    ...mine,
    ...extra,
  })

const connects = (name: string, options: (context: Context) => Options): Scenario =>
  asInitiator(name, async context => {
    const socket = await connect(options(context))
    assert.equal(socket.authorized, true)
    await transfer(socket, SHORT)
  })

const isRefused = (name: string, options: (context: Context) => Options, error: RegExp): Scenario =>
  asInitiator(name, async context => {
    await failsWith(connect(options(context)), error)
  })

const initiator: readonly Scenario[] = [
  ...KEYS.map(kind =>
    connects(`certificates, ${kind}`, context =>
      certified(context, own(`client-${kind}`), `server-${kind}`),
    ),
  ),
  connects('certificates, ours ed25519, theirs rsa', context =>
    certified(context, own('client-ed25519'), 'server-rsa'),
  ),
  connects('certificates, chain with an intermediate', context =>
    certified(context, own('client-chain', 'inter-c'), 'server-chain'),
  ),
  asInitiator('peer certificate on the socket', async context => {
    const socket = await connect(certified(context, own('client-ecdsa'), 'server-ecdsa'))
    assert.match(socket.getPeerCertificate?.()?.subjectaltname ?? '', /DNS:server-ecdsa\.rig\.test/)
    await transfer(socket, SHORT)
  }),
  connects('certificates in fragments', context =>
    context.client(17, {
      psk: undefined,
      ca: pem('ca.crt'),
      remoteId: 'server-rsa.rig.test',
      fragmentSize: 576,
      ...AS_STRONGSWAN,
      ...own('client-rsa'),
    }),
  ),
  isRefused(
    'our certificate revoked',
    context => ({
      ...certified(context, own('client-revoked'), 'server-ecdsa'),
      gateway: '10.90.0.21',
    }),
    /AUTHENTICATION_FAILED/,
  ),
  connects('their revocation policy strict, ours good', context => ({
    ...certified(context, own('client-ecdsa'), 'server-ecdsa'),
    gateway: '10.90.0.21',
  })),
  isRefused(
    'our certificate expired',
    context => certified(context, own('client-expired'), 'server-ecdsa'),
    /AUTHENTICATION_FAILED|CERT_HAS_EXPIRED/,
  ),
  isRefused(
    'our certificate of an unknown authority',
    context => certified(context, own('client-stranger'), 'server-ecdsa'),
    /AUTHENTICATION_FAILED/,
  ),
  isRefused(
    'our identity is not in our certificate',
    context =>
      certified(context, own('client-ecdsa'), 'server-ecdsa', { localId: 'somebody.else.test' }),
    /AUTHENTICATION_FAILED/,
  ),
  isRefused(
    'their certificate revoked',
    context =>
      certified(context, own('client-ecdsa'), 'server-revoked', {
        crl: readFileSync(join(PKI, 'ca.crl')),
        revocation: 'require',
      }),
    /REVOKED/i,
  ),
  isRefused(
    'their certificate expired',
    context => certified(context, own('client-ecdsa'), 'server-expired'),
    /EXPIRED/i,
  ),
  isRefused(
    'their certificate of an unknown authority',
    context => certified(context, own('client-ecdsa'), 'server-stranger'),
    /AUTHENTICATION_FAILED|CERT|ISSUER/i,
  ),
  isRefused(
    'their identity is another',
    context =>
      certified(context, own('client-ecdsa'), 'server-ecdsa', { remoteId: 'server-*.other.test' }),
    /AUTHENTICATION_FAILED|ALTNAME|identity/i,
  ),
  connects('certificate theirs, PSK ours', context =>
    context.client(28, {
      ...AS_STRONGSWAN,
      ca: pem('ca.crt'),
      remoteId: 'server-ecdsa.rig.test',
    }),
  ),
  connects('PSK theirs, certificate ours', context => context.client(29, own('client-ecdsa'))),
  connects('EAP-MSCHAPv2', context =>
    context.client(12, {
      psk: undefined,
      ca: pem('ca.crt'),
      remoteId: 'server-ecdsa.rig.test',
      ...AS_STRONGSWAN,
      ...eapPassword('alice', 'wonderland'),
    }),
  ),
  isRefused(
    'EAP-MSCHAPv2, wrong password',
    context =>
      context.client(12, {
        psk: undefined,
        ca: pem('ca.crt'),
        remoteId: 'server-ecdsa.rig.test',
        ...eapPassword('alice', 'looking glass'),
      }),
    /AUTHENTICATION_FAILED|EAP/,
  ),
  connects('EAP-TLS', context =>
    context.client(13, {
      psk: undefined,
      ca: pem('ca.crt'),
      remoteId: 'server-ecdsa.rig.test',
      localId: 'client-ecdsa.rig.test',
      ...AS_STRONGSWAN,
      ...eapCertificate(
        'client-ecdsa.rig.test',
        pem('client-ecdsa.crt'),
        pem('client-ecdsa.key'),
        pem('ca.crt'),
      ),
    }),
  ),
  connects('PPK required by them', context =>
    context.client(19, postQuantumKey(PPK_ID, PPK, true)),
  ),
  connects('PPK optional, used', context => context.client(31, postQuantumKey(PPK_ID, PPK, false))),
  connects('PPK optional for us, unknown to them', context =>
    context.client(11, postQuantumKey('nobody@rig.test', PPK, false)),
  ),
  isRefused(
    'PPK required by them, not ours',
    context => context.client(19),
    /AUTHENTICATION_FAILED/,
  ),
  isRefused(
    'PPK required by us, not theirs',
    context => context.client(11, postQuantumKey('nobody@rig.test', PPK, true)),
    /AUTHENTICATION_FAILED|PPK/,
  ),
  isRefused(
    'PPK wrong',
    context =>
      context.client(
        19,
        postQuantumKey(
          PPK_ID,
          PPK.map(octet => octet ^ 1),
          true,
        ),
      ),
    /AUTHENTICATION_FAILED/,
  ),
]

// --- as responder ---

const asResponder = (name: string, run: (context: Context) => Promise<void>): Scenario => ({
  name,
  role: 'responder',
  peer: 'strongSwan',
  run,
})

const WITH_CA = (): Options => ({ psk: undefined, ca: pem('ca.crt'), ...AS_STRONGSWAN })

/** strongSwan shows this certificate and expects that one. */
const lines = (mine: string, theirs: string): ConnectionLines => ({
  local: `auth = pubkey\n certs = ${mine}.crt\n id = ${mine}.rig.test`,
  // All certificates of the rig lie in its folder and count as trusted but for this.
  remote: `auth = pubkey\n id = ${theirs}.rig.test\n cacerts = ca.crt`,
})

const answers = (name: string, options: () => Options, connection: ConnectionLines): Scenario =>
  asResponder(name, async context => {
    const { sockets } = await context.listen(options())
    await context.fetch(connection)
    assert.equal(sockets[0]?.authorized, true)
  })

const refuses = (name: string, options: () => Options, connection: ConnectionLines): Scenario =>
  asResponder(name, async context => {
    const { sockets } = await context.listen(options())
    await context.prepare(connection)
    await failsWith(
      context.rig.initiator.initiate(context.name),
      /AUTHENTICATION_FAILED|AUTH_FAILED|authentication .*failed|no trusted|certificate|PPK required/i,
    )
    assert.equal(sockets.length, 0)
  })

const responder: readonly Scenario[] = [
  ...KEYS.map(kind =>
    answers(
      `certificates, ${kind}`,
      () => ({ ...WITH_CA(), ...own(`server-${kind}`) }),
      lines(`client-${kind}`, `server-${kind}`),
    ),
  ),
  answers(
    'certificates, ours ed25519, theirs rsa',
    () => ({ ...WITH_CA(), ...own('server-ed25519') }),
    lines('client-rsa', 'server-ed25519'),
  ),
  answers(
    'certificates, chain with an intermediate',
    () => ({ ...WITH_CA(), ...own('server-chain', 'inter-s') }),
    lines('client-chain', 'server-chain'),
  ),
  answers(
    'certificates in fragments',
    () => ({ ...WITH_CA(), ...own('server-rsa'), fragmentSize: 576 }),
    {
      ...lines('client-rsa', 'server-rsa'),
      connection: 'fragmentation = force',
    },
  ),
  asResponder('peer certificate on the socket', async context => {
    const { sockets } = await context.listen({ ...WITH_CA(), ...own('server-ecdsa') })
    await context.prepare(lines('client-ecdsa', 'server-ecdsa'))
    await context.rig.initiator.initiate(context.name)
    let name: string | undefined
    await context.kernel({ ...SHORT, rate: 1_000_000 }, () => {
      name ??= sockets[0]?.getPeerCertificate?.()?.subjectaltname
    })
    assert.match(name ?? '', /DNS:client-ecdsa\.rig\.test/)
  }),
  refuses(
    'their certificate revoked',
    () => ({
      ...WITH_CA(),
      ...own('server-ecdsa'),
      crl: readFileSync(join(PKI, 'ca.crl')),
      revocation: 'require',
    }),
    lines('client-revoked', 'server-ecdsa'),
  ),
  refuses(
    'their certificate expired',
    () => ({ ...WITH_CA(), ...own('server-ecdsa') }),
    lines('client-expired', 'server-ecdsa'),
  ),
  refuses(
    'their certificate of an unknown authority',
    () => ({ ...WITH_CA(), ...own('server-ecdsa') }),
    lines('client-stranger', 'server-ecdsa'),
  ),
  refuses(
    'our certificate expired',
    () => ({ ...WITH_CA(), ...own('server-expired') }),
    lines('client-ecdsa', 'server-expired'),
  ),
  refuses(
    'our certificate of an unknown authority',
    () => ({ ...WITH_CA(), ...own('server-stranger') }),
    lines('client-ecdsa', 'server-stranger'),
  ),
  refuses(
    'their identity is another',
    () => ({ ...WITH_CA(), ...own('server-ecdsa'), remoteId: '*.other.test' }),
    lines('client-ecdsa', 'server-ecdsa'),
  ),
  answers('certificate ours, PSK theirs', () => ({ psk: PSK, ...own('server-ecdsa') }), {
    remote: 'auth = pubkey\n id = server-ecdsa.rig.test',
  }),
  answers(
    'PSK ours, certificate theirs',
    () => ({ psk: PSK, ca: pem('ca.crt'), ...AS_STRONGSWAN }),
    {
      local: 'auth = pubkey\n certs = client-ecdsa.crt\n id = client-ecdsa.rig.test',
    },
  ),
  answers('PPK required', () => postQuantumKey(PPK_ID, PPK, true), {
    connection: `ppk_id = ${PPK_ID}\n ppk_required = yes`,
  }),
  answers('PPK optional, used', () => postQuantumKey(PPK_ID, PPK, false), {
    connection: `ppk_id = ${PPK_ID}`,
  }),
  answers('PPK optional for us, they have none', () => postQuantumKey(PPK_ID, PPK, false), {}),
  refuses('PPK required by us, not theirs', () => postQuantumKey(PPK_ID, PPK, true), {}),
  refuses('PPK required by them, not ours', () => ({}), {
    connection: `ppk_id = ${PPK_ID}\n ppk_required = yes`,
  }),
  asResponder('new credentials while it listens', async context => {
    const { server } = await context.listen({ ...WITH_CA(), ...own('server-stranger') })
    await context.prepare(lines('client-ecdsa', 'server-ecdsa'))
    await failsWith(context.rig.initiator.initiate(context.name), /failed/)
    server.setCredentials(own('server-ecdsa'))
    await context.rig.initiator.initiate(context.name)
    await context.kernel(SHORT)
  }),
]

export const scenarios: readonly Scenario[] = [...initiator, ...responder]
