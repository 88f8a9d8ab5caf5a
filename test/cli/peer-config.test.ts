/**
 * Configurations of other products. strongSwan's, libreswan's and OpenIKED's are loaded by the daemons in test/interop; the
 * others are held here against the grammar that their documentation gives.
 */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { keygen } from '../../lib/cli/keygen.ts'
import { runCommand, type Outcome } from '../harness/command.ts'

const folder = mkdtempSync(join(tmpdir(), 'ike-peer-config-'))
t.after(() => rmSync(folder, { recursive: true }))
const config = join(folder, 'ike.json')

const make = (options: object, ...args: string[]): Promise<Outcome> => {
  writeFileSync(config, JSON.stringify(options))
  return runCommand(['peer-config', ...args, '--config', config])
}
const text = async (options: object, ...args: string[]): Promise<string> => {
  const { code, stdout, stderr } = await make(options, ...args)
  t.equal(code, 0, stderr)
  return stdout
}

const PSK = {
  psk: 'MA0Mo.5yFDxi9O_rZUKnUJ',
  localId: 'billing.internal',
  remoteId: 'vpn.example.com',
  gateway: '192.0.2.1',
}
const TUNNEL = {
  ...PSK,
  mode: 'tunnel',
  localTs: '10.9.0.1',
  remoteTs: ['10.1.0.0/16', '10.2.0.0/16'],
}
const CERTS = {
  cert: { file: 'keys/server-ecdsa.crt' },
  key: { file: 'keys/server-ecdsa.key' },
  ca: { file: 'keys/ca.crt' },
  localId: 'vpn.example.com',
  addressPool: '10.8.0.0/24',
}
const asServer = ['--address', 'vpn.example.com'] as const

t.before(async () => {
  const names = ['--server', 'vpn.example.com', '--type', 'ecdsa']
  await keygen([join(folder, 'keys'), ...names], Date.now())
})

t.test('strongSwan: sides, key and proposals', async t => {
  const made = await text(TUNNEL, 'strongswan')
  t.match(made, /local \{\s+auth = psk\s+id = vpn\.example\.com\s+\}/)
  t.match(made, /remote \{\s+auth = psk\s+id = billing\.internal\s+\}/)
  t.match(made, 'local_ts = 10.1.0.0/16, 10.2.0.0/16')
  t.match(made, 'remote_ts = 10.9.0.1')
  t.match(made, `secret = 0x${Buffer.from(PSK.psk).toString('hex')}`)
  t.equal(made.split('{').length, made.split('}').length)
  const initiator = await text(CERTS, 'strongswan', '--as', 'server', ...asServer)
  t.match(
    initiator,
    /remote_addrs = vpn\.example\.com\s+remote_port = 4500\s+local_port = 4500\s+vips = 0\.0\.0\.0/,
  )
  t.match(initiator, /certs = client-ecdsa\.crt/)
  t.notMatch(initiator, 'secret')
})

t.test('libreswan: names of algorithms and identities', async t => {
  const made = await text(
    { ...TUNNEL, ike: 'aes256gcm16-prfsha512-ecp384', esp: 'aes256-sha256-ecp384' },
    'libreswan',
  )
  t.match(made, '  ike=aes_gcm256-sha2_512-dh20\n  esp=aes256-sha2_256-dh20\n  type=tunnel\n')
  t.match(
    made,
    '  left=192.0.2.1\n  leftid=@vpn.example.com\n  leftsubnets=10.1.0.0/16,10.2.0.0/16\n',
  )
  t.match(made, '  right=%any\n  rightid=@billing.internal\n  rightsubnet=10.9.0.1/32\n')
  t.match(
    made,
    `@vpn.example.com @billing.internal : PSK 0x${Buffer.from(PSK.psk).toString('hex')}`,
  )
  for (const line of made.split('\n')) t.match(line, /^($|#|conn [\w-]+$| {2}[a-z0-9]+=\S+$)/, line)
})

t.test('OpenIKED: the grammar of iked.conf', async t => {
  for (const options of [
    TUNNEL,
    { ...TUNNEL, ike: 'aes256-sha256-x25519', esp: 'aes256-sha256' },
  ]) {
    const made = await text(options, 'openiked')
    const rule = made
      .replace(/^#.*\n/gm, '')
      .replace(/\\\n/g, ' ')
      .trim()
    const algorithms = '(?: (?:auth|enc|prf|group) [a-z0-9-]+)+'
    t.match(
      rule.replace(/\s+/g, ' '),
      new RegExp(
        `^ikev2 "[^"]+" (?:passive|active) (?:tunnel|transport) esp(?: from \\S+ to \\S+)+ peer \\S+` +
          `(?: ikesa${algorithms})+(?: childsa${algorithms})+ srcid \\S+ dstid \\S+(?: psk (?:0x[0-9a-f]+|"[^"]+"))?$`,
      ),
    )
    t.equal(rule.split('from ').length - 1, 2, 'a flow for each pair of networks')
  }
})

t.test('OpenIKED: a client asks for its address, and a server has one to give', async t => {
  t.match(await text(CERTS, 'openiked', '--as', 'server', ...asServer), 'request address any')
  const virtual = { ...PSK, mode: 'tunnel', remoteTs: '10.1.0.0/16', virtualAddress: true }
  t.match(await text(virtual, 'openiked'), 'config address 10.8.0.0/24')
})

t.test('OpenIKED: ChaCha20-Poly1305 is for ESP alone', async t => {
  t.match(await text({ ...TUNNEL, esp: 'chacha20poly1305' }, 'openiked'), 'enc chacha20-poly1305')
  t.match(await make({ ...TUNNEL, ike: 'chacha20poly1305-prfsha256-x25519' }, 'openiked'), {
    code: 2,
    stderr: /the IKE SA of OpenIKED has no chacha20poly1305/,
  })
})

t.test('AWS: the options of a VPN connection', async t => {
  const options = { ...TUNNEL, ike: 'aes256gcm16-prfsha256-ecp256', esp: 'aes256gcm16-ecp256' }
  const made = JSON.parse(await text(options, 'aws')) as Record<string, unknown>
  t.match(made, {
    StaticRoutesOnly: true,
    LocalIpv4NetworkCidr: '10.9.0.1/32',
    RemoteIpv4NetworkCidr: '10.1.0.0/16',
  })
  const [tunnel, second] = made['TunnelOptions'] as Record<string, unknown>[]
  t.strictSame(tunnel, second)
  t.strictSame(tunnel, {
    PreSharedKey: PSK.psk,
    IKEVersions: [{ Value: 'ikev2' }],
    Phase1EncryptionAlgorithms: [{ Value: 'AES256-GCM-16' }],
    Phase1IntegrityAlgorithms: [{ Value: 'SHA2-256' }],
    Phase1DHGroupNumbers: [{ Value: 19 }],
    Phase2EncryptionAlgorithms: [{ Value: 'AES256-GCM-16' }],
    Phase2IntegrityAlgorithms: [{ Value: 'SHA2-256' }],
    Phase2DHGroupNumbers: [{ Value: 19 }],
    StartupAction: 'add',
  })
  t.match(await make({ ...TUNNEL, psk: '0 begins it' }, 'aws'), {
    code: 2,
    stderr: /8 to 64 letters/,
  })
  const x = await make({ ...TUNNEL, ike: 'aes256gcm16-prfsha256-x25519' }, 'aws')
  t.match(x, { code: 2, stderr: /AWS has no x25519: give "ike" and "esp" of its own/ })
})

t.test('Windows: parameters of its cmdlets', async t => {
  const made = await text({ ...CERTS, localTs: '10.1.0.0/16' }, 'windows', ...asServer)
  t.match(
    made,
    "Add-VpnConnection -Name $name -ServerAddress 'vpn.example.com' -TunnelType IKEv2 -AuthenticationMethod MachineCertificate",
  )
  const [, set = ''] = /^Set-VpnConnectionIPsecConfiguration (.*)$/m.exec(made) ?? []
  const allowed: Record<string, RegExp> = {
    ConnectionName: /^\$name$/,
    EncryptionMethod: /^(AES(128|192|256)|GCMAES(128|256))$/,
    IntegrityCheckMethod: /^(SHA1|SHA256|SHA384)$/,
    DHGroup: /^(Group2|Group14|ECP256|ECP384)$/,
    CipherTransformConstants: /^(AES(128|192|256)|GCMAES(128|192|256))$/,
    AuthenticationTransformConstants: /^(SHA196|SHA256128|GCMAES(128|192|256))$/,
    PfsGroup: /^(None|PFS2|PFS2048|ECP256|ECP384)$/,
  }
  const given = [...set.matchAll(/-(\w+) ([^-\s]\S*)/g)].map(
    ([, name, value]) => [name!, value!] as const,
  )
  t.strictSame(new Set(given.map(([name]) => name)), new Set(Object.keys(allowed)))
  for (const [name, value] of given) t.match(value, allowed[name]!, name)
  t.match(made, "Add-VpnConnectionRoute -ConnectionName $name -DestinationPrefix '10.1.0.0/16'")
  t.match(await make({ ...PSK }, 'windows', ...asServer), { code: 2, stderr: /no pre-shared key/ })
})

t.test('Android: a profile of the app of strongSwan', async t => {
  const made = JSON.parse(await text(CERTS, 'android', ...asServer)) as Record<string, unknown>
  const known = [
    'uuid',
    'name',
    'type',
    'remote',
    'local',
    'ike-proposal',
    'esp-proposal',
    'split-tunneling',
  ]
  for (const name of Object.keys(made)) t.ok(known.includes(name), name)
  t.match(made, {
    uuid: /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/,
    type: 'ikev2-cert',
    remote: { addr: 'vpn.example.com', port: 4500, id: 'vpn.example.com' },
    'ike-proposal': 'aes256gcm16-prfsha256-x25519',
  })
  t.match(await make(CERTS, 'android', '--as', 'client', '--peer', 'x'), { code: 2 })
})

t.test('iOS: a configuration profile', async t => {
  const server = {
    psk: 'one & <two> words of a key',
    localId: 'vpn.example.com',
    remoteId: 'phone.test',
  }
  const made = await text(server, 'ios', ...asServer)
  t.match(made, /^<\?xml version="1\.0" encoding="UTF-8"\?>\n<!DOCTYPE plist /)
  // Each element is closed, and each key has a value.
  const open: string[] = []
  for (const [, slash, name, self] of made
    .replace(/^<[?!].*\n/gm, '')
    .matchAll(/<(\/?)(\w+)[^>]*?(\/?)>/g)) {
    if (self === '/') continue
    if (slash === '') open.push(name!)
    else t.equal(open.pop(), name)
  }
  t.strictSame(open, [])
  t.notMatch(made, /<\/key>\s*<(key|\/)/)
  t.match(made, '<string>one &amp; &lt;two&gt; words of a key</string>')
  t.match(made, /<key>VPNType<\/key>\s+<string>IKEv2<\/string>/)
  t.match(made, /<key>AuthenticationMethod<\/key>\s+<string>SharedSecret<\/string>/)
  t.match(made, /<key>EncryptionAlgorithm<\/key>\s+<string>AES-256-GCM<\/string>/)
  t.match(made, /<key>DiffieHellmanGroup<\/key>\s+<integer>19<\/integer>/)
  t.match(await text(CERTS, 'ios', ...asServer), /<string>Certificate<\/string>/)
})

t.test('what is missing or wrong is named; a file is for its owner, and stays', async t => {
  t.match(await make({ psk: PSK.psk }, 'strongswan'), { code: 2, stderr: /--peer is missing/ })
  t.match(await make({ ...PSK, localId: undefined }, 'strongswan'), {
    code: 2,
    stderr: /"localId" is missing/,
  })
  t.match(await make(PSK, 'cisco'), { code: 2, stderr: /one of strongswan, libreswan/ })
  t.match(await make({ ...PSK, ike: 'aes257' }, 'strongswan'), { code: 1, stderr: /"ike" must be/ })
  t.match(await make({ ...PSK, psk: { 'other.test': 'x'.repeat(20) } }, 'strongswan'), {
    code: 2,
    stderr: /no key for vpn\.example\.com/,
  })
  const out = join(folder, 'made.conf')
  t.equal((await make(PSK, 'strongswan', '--out', out)).code, 0)
  t.equal(statSync(out).mode & 0o777, 0o600)
  const before = readFileSync(out, 'utf8')
  t.equal((await make(TUNNEL, 'strongswan', '--out', out)).code, 1)
  t.equal(readFileSync(out, 'utf8'), before)
  t.strictSame(JSON.parse(await text(PSK, 'strongswan', '--json')), {
    product: 'strongswan',
    text: before,
  })
  const other = join(folder, 'other.conf')
  t.strictSame(JSON.parse(await text(PSK, 'strongswan', '--out', other, '--json')), {
    product: 'strongswan',
    file: other,
  })
  t.equal((await make(TUNNEL, 'strongswan', '--out', out, '--force')).code, 0)
  t.not(readFileSync(out, 'utf8'), before)
})
