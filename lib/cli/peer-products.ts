/** The configuration of the other end in the words of each product. */
import { randomUUID } from 'node:crypto'
import { algorithmsOf, isAddress, keyText, translator, type PeerPlan } from './peer-plan.ts'
import { UsageError } from './usage.ts'

const hex = (octets: Uint8Array): string => Buffer.from(octets).toString('hex')

const needsServer = (product: string, plan: PeerPlan): void => {
  if (plan.weConnect)
    throw new UsageError(`${product} opens connections and takes none: --as server, for ours`)
}

const networks = (given: readonly string[] | undefined, otherwise: string): readonly string[] =>
  given ?? [otherwise]

const asNetwork = (text: string): string => {
  if (text.includes('/')) return text
  return `${text}/${text.includes(':') ? 128 : 32}`
}

// --- strongSwan ---

const strongswan = (plan: PeerPlan): string => {
  const { weConnect, psk, isTunnel, givesAddress } = plan
  const auth = (isTheirs: boolean): string =>
    psk !== undefined
      ? 'auth = psk'
      : `auth = pubkey\n      ${isTheirs ? `certs = ${plan.certificate}` : `cacerts = ${plan.authority}`}`
  const ike = plan.ike ?? ['aes256gcm16-prfsha256-x25519']
  const esp = plan.esp ?? ['aes256gcm16-x25519', 'aes256gcm16']
  // At strongSwan "local" is its own side.
  const local = networks(plan.theirNetworks, 'dynamic').join(', ')
  const remote = networks(plan.ourNetworks, 'dynamic').join(', ')
  return `# strongSwan, the other end of ike-socket: /etc/swanctl/conf.d/ike-socket.conf, readable by root alone.
# Certificates belong in x509/, the key in private/, the authority in x509ca/. Then: swanctl --load-all${weConnect ? '' : '\n# and: swanctl --initiate --child ike-socket'}
connections {
  ike-socket {
    version = 2
    proposals = ${ike.join(', ')}
    encap = yes
    mobike = yes
    fragmentation = yes${weConnect ? `${givesAddress ? '\n    pools = ike-socket' : ''}\n    unique = never` : `\n    remote_addrs = ${plan.ourAddress}\n    remote_port = ${plan.ikePort}\n    local_port = 4500${givesAddress ? '\n    vips = 0.0.0.0' : ''}`}
    local {
      ${auth(true)}
      id = ${plan.theirId === '%any' ? '%any' : plan.theirId}
    }
    remote {
      ${auth(false)}
      id = ${plan.ourId}
    }
    children {
      ike-socket {
        mode = ${isTunnel ? 'tunnel' : 'transport'}
        esp_proposals = ${esp.join(', ')}
        local_ts = ${local}
        remote_ts = ${remote}
      }
    }
  }
}
${psk === undefined ? '' : `secrets {\n  ike-socket {\n    secret = 0x${hex(psk)}\n    id-1 = ${plan.ourId}\n  }\n}\n`}${
    weConnect && givesAddress ? 'pools {\n  ike-socket { addrs = 10.8.0.0/24 }\n}\n' : ''
  }`
}

// --- libreswan ---

const LIBRESWAN = translator('libreswan', {
  aes128gcm16: 'aes_gcm128',
  aes256gcm16: 'aes_gcm256',
  chacha20poly1305: 'chacha20_poly1305',
  aes128: 'aes128',
  aes256: 'aes256',
  sha1: 'sha1',
  sha256: 'sha2_256',
  sha384: 'sha2_384',
  sha512: 'sha2_512',
  prfsha1: 'sha1',
  prfsha256: 'sha2_256',
  prfsha384: 'sha2_384',
  prfsha512: 'sha2_512',
  x25519: 'dh31',
  ecp256: 'dh19',
  ecp384: 'dh20',
  ecp521: 'dh21',
  modp2048: 'dh14',
  modp3072: 'dh15',
  modp4096: 'dh16',
})

const libreswanProposal = (proposal: string): string => {
  const { ciphers, integrity, prfs, groups } = algorithmsOf(proposal)
  const list = (words: readonly string[]): string => [...new Set(words.map(LIBRESWAN))].join('+')
  return [ciphers, integrity.length > 0 ? integrity : prfs, groups]
    .filter(words => words.length > 0)
    .map(list)
    .join('-')
}

const libreswanId = (id: string): string =>
  isAddress(id) || id.startsWith('%') || id.includes('@') || id.includes('=') ? id : `@${id}`

const libreswan = (plan: PeerPlan): string => {
  const { psk, weConnect, isTunnel } = plan
  const ike = plan.ike ?? ['aes256gcm16-prfsha256-ecp256']
  const esp = plan.esp ?? ['aes256gcm16']
  const subnet = (side: string, list: readonly string[] | undefined): string =>
    list === undefined
      ? ''
      : `\n  ${side}subnet${list.length > 1 ? 's' : ''}=${list.map(asNetwork).join(',')}`
  // "left" is its own side.
  return `# libreswan, the other end of ike-socket: /etc/ipsec.d/ike-socket.conf${
    psk === undefined
      ? `\n# Its certificate and key: pk12util -i FILE.p12 -d /var/lib/ipsec/nss; the authority: certutil -A -t CT,, -n ca -i ${plan.authority}`
      : `\n# and this line in /etc/ipsec.d/ike-socket.secrets, readable by root alone:\n#   ${libreswanId(plan.theirId)} ${libreswanId(plan.ourId)} : PSK 0x${hex(psk)}`
  }
conn ike-socket
  ikev2=insist
  authby=${psk === undefined ? 'ecdsa,rsa-sha2' : 'secret'}
  ike=${ike.map(libreswanProposal).join(',')}
  esp=${esp.map(libreswanProposal).join(',')}
  type=${isTunnel ? 'tunnel' : 'transport'}
  encapsulation=yes
  fragmentation=yes
  left=${weConnect && isAddress(plan.theirAddress) ? plan.theirAddress : '%defaultroute'}
  leftid=${libreswanId(plan.theirId)}${psk === undefined ? `\n  leftcert=${plan.certificate.replace(/\.crt$/, '')}` : ''}${subnet('left', plan.theirNetworks)}
  right=${plan.ourAddress}
  rightid=${libreswanId(plan.ourId)}${subnet('right', plan.ourNetworks)}${
    weConnect && plan.givesAddress ? '\n  rightaddresspool=10.8.0.1-10.8.0.254' : ''
  }${weConnect ? '' : `\n  rightikeport=${plan.ikePort}`}
  auto=${weConnect ? 'add' : 'start'}
`
}

// --- OpenIKED ---

const OPENIKED_NAMES = {
  aes128gcm16: 'aes-128-gcm',
  aes256gcm16: 'aes-256-gcm',
  aes128: 'aes-128',
  aes192: 'aes-192',
  aes256: 'aes-256',
  sha1: 'hmac-sha1',
  sha256: 'hmac-sha2-256',
  sha384: 'hmac-sha2-384',
  sha512: 'hmac-sha2-512',
  prfsha1: 'hmac-sha1',
  prfsha256: 'hmac-sha2-256',
  prfsha384: 'hmac-sha2-384',
  prfsha512: 'hmac-sha2-512',
  x25519: 'curve25519',
  ecp256: 'ecp256',
  ecp384: 'ecp384',
  ecp521: 'ecp521',
  modp2048: 'modp2048',
  modp3072: 'modp3072',
  modp4096: 'modp4096',
}
const OPENIKED = {
  ikesa: translator('the IKE SA of OpenIKED', OPENIKED_NAMES),
  childsa: translator('OpenIKED', { ...OPENIKED_NAMES, chacha20poly1305: 'chacha20-poly1305' }),
}

const openiked = (plan: PeerPlan): string => {
  const { psk, weConnect } = plan
  const line = (kind: keyof typeof OPENIKED, proposal: string): string => {
    const { ciphers, integrity, prfs, groups } = algorithmsOf(proposal)
    const of = (word: string, names: readonly string[]): string =>
      names.map(name => ` ${word} ${OPENIKED[kind](name)}`).join('')
    const prf =
      kind === 'ikesa'
        ? of('prf', prfs.length > 0 ? prfs : integrity.map(name => `prf${name}`))
        : ''
    return `\t${kind}${of('auth', integrity)}${of('enc', ciphers)}${prf}${of('group', groups)} \\\n`
  }
  const ike = plan.ike ?? ['aes256gcm16-prfsha256-x25519']
  const esp = plan.esp ?? ['aes256gcm16']
  const own = plan.theirNetworks ?? [weConnect ? plan.theirAddress : 'dynamic']
  const ours = plan.ourNetworks ?? [
    weConnect && plan.ourAddress === '%any' ? 'dynamic' : plan.ourAddress,
  ]
  const flows = own.flatMap(from => ours.map(to => `\tfrom ${from} to ${to} \\\n`))
  const secret = psk === undefined ? '' : ` \\\n\tpsk 0x${hex(psk)}`
  const address = weConnect ? 'config address 10.8.0.0/24' : 'request address any'
  const pool = plan.givesAddress ? ` \\\n\t${address}` : ''
  return `# OpenIKED, the other end of ike-socket: /etc/iked.conf, mode 0600. Then: iked -n; rcctl restart iked
${psk === undefined ? `# Certificates: /etc/iked/ca/${plan.authority}, /etc/iked/certs/${plan.theirId}.crt, /etc/iked/private/local.key\n` : ''}ikev2 "ike-socket" ${weConnect ? 'passive' : 'active'} ${plan.isTunnel ? 'tunnel' : 'transport'} esp \\
${flows.join('')}\tpeer ${plan.ourAddress === '%any' ? 'any' : plan.ourAddress} \\
${ike.map(proposal => line('ikesa', proposal)).join('')}${esp.map(proposal => line('childsa', proposal)).join('')}\tsrcid ${plan.theirId === '%any' ? plan.theirAddress : plan.theirId} dstid ${plan.ourId}${secret}${pool}
`
}

// --- AWS ---

const AWS_CIPHERS = translator('AWS', {
  aes128: 'AES128',
  aes256: 'AES256',
  aes128gcm16: 'AES128-GCM-16',
  aes256gcm16: 'AES256-GCM-16',
})
const AWS_HASHES = translator('AWS', {
  sha1: 'SHA1',
  sha256: 'SHA2-256',
  sha384: 'SHA2-384',
  sha512: 'SHA2-512',
})
const AWS_GROUPS = translator('AWS', {
  modp1024: '2',
  modp2048: '14',
  modp3072: '15',
  modp4096: '16',
  ecp256: '19',
  ecp384: '20',
  ecp521: '21',
})

const values = (words: Iterable<string>): { Value: string }[] =>
  Array.from(new Set(words), Value => ({ Value }))

const aws = (plan: PeerPlan): string => {
  if (!plan.weConnect) throw new UsageError('AWS answers: --as client, for ours')
  if (plan.psk === undefined)
    throw new UsageError('AWS is made for a pre-shared key here: give "psk"')
  const PreSharedKey = keyText(
    'AWS',
    plan.psk,
    /^[1-9A-Za-z._][\w.]{7,63}$/,
    '8 to 64 letters, digits, dots and underscores, without a zero at the beginning,',
  )
  const ike = (plan.ike ?? ['aes256gcm16-prfsha256-ecp256']).map(algorithmsOf)
  const esp = (plan.esp ?? ['aes256gcm16-ecp256']).map(algorithmsOf)
  const hashes = ike.flatMap(({ integrity, prfs }) => [
    ...integrity,
    ...prfs.map(name => name.slice(3)),
  ])
  const groups = (list: typeof ike): { Value: number }[] =>
    values(list.flatMap(item => item.groups.map(AWS_GROUPS))).map(({ Value }) => ({
      Value: Number(Value),
    }))
  const tunnel = {
    PreSharedKey,
    IKEVersions: [{ Value: 'ikev2' }],
    Phase1EncryptionAlgorithms: values(ike.flatMap(item => item.ciphers.map(AWS_CIPHERS))),
    Phase1IntegrityAlgorithms: values(hashes.map(AWS_HASHES)),
    Phase1DHGroupNumbers: groups(ike),
    Phase2EncryptionAlgorithms: values(esp.flatMap(item => item.ciphers.map(AWS_CIPHERS))),
    Phase2IntegrityAlgorithms: values(
      [...esp.flatMap(({ integrity }) => integrity), ...hashes].map(AWS_HASHES),
    ),
    Phase2DHGroupNumbers: groups(esp.some(item => item.groups.length > 0) ? esp : ike),
    StartupAction: 'add',
  }
  // Its "local" is the customer's side.
  const options = {
    StaticRoutesOnly: true,
    LocalIpv4NetworkCidr: asNetwork(networks(plan.ourNetworks, '0.0.0.0/0')[0]!),
    RemoteIpv4NetworkCidr: asNetwork(networks(plan.theirNetworks, '0.0.0.0/0')[0]!),
    TunnelOptions: [tunnel, tunnel],
  }
  return `${JSON.stringify(options, null, 2)}\n`
}

// --- Windows ---

const WINDOWS_CIPHERS = translator('Windows', {
  aes128: 'AES128',
  aes192: 'AES192',
  aes256: 'AES256',
  aes128gcm16: 'GCMAES128',
  aes256gcm16: 'GCMAES256',
})
const WINDOWS_HASHES = translator('Windows', { sha1: 'SHA1', sha256: 'SHA256', sha384: 'SHA384' })
const WINDOWS_AUTH = translator('Windows', { sha1: 'SHA196', sha256: 'SHA256128' })
const WINDOWS_GROUPS = translator('Windows', {
  modp1024: 'Group2',
  modp2048: 'Group14',
  ecp256: 'ECP256',
  ecp384: 'ECP384',
})
const WINDOWS_PFS = translator('Windows', {
  modp1024: 'PFS2',
  modp2048: 'PFS2048',
  ecp256: 'ECP256',
  ecp384: 'ECP384',
})

const powershell = (text: string): string => `'${text.replace(/'/g, "''")}'`

const windows = (plan: PeerPlan): string => {
  needsServer('Windows', plan)
  if (plan.psk !== undefined)
    throw new UsageError(
      'the VPN client of Windows takes no pre-shared key with IKEv2: give certificates',
    )
  const ike = algorithmsOf((plan.ike ?? ['aes256gcm16-prfsha256-ecp256'])[0]!)
  const esp = algorithmsOf((plan.esp ?? ['aes256gcm16'])[0]!)
  const hash = ike.integrity[0] ?? ike.prfs[0]?.slice(3) ?? 'sha256'
  const cipher = WINDOWS_CIPHERS(esp.ciphers[0]!)
  const auth = cipher.startsWith('GCM') ? cipher : WINDOWS_AUTH(esp.integrity[0] ?? 'sha256')
  const pfs = esp.groups[0] === undefined ? 'None' : WINDOWS_PFS(esp.groups[0])
  const routes = (plan.ourNetworks ?? []).map(
    network =>
      `Add-VpnConnectionRoute -ConnectionName $name -DestinationPrefix ${powershell(asNetwork(network))}\n`,
  )
  return `# Windows, the other end of ike-socket: in PowerShell, as administrator. Its client begins at UDP port 500, so our
# server has "ikePort: 500", an "addressPool" and a certificate for ${plan.ourAddress}. Import the authority and the client's
# certificate (as PKCS #12) for the local computer first:
#   Import-Certificate ${plan.authority} -CertStoreLocation Cert:\\LocalMachine\\Root
#   Import-PfxCertificate client.p12 -CertStoreLocation Cert:\\LocalMachine\\My
$name = 'ike-socket'
Add-VpnConnection -Name $name -ServerAddress ${powershell(plan.ourAddress)} -TunnelType IKEv2 -AuthenticationMethod MachineCertificate -EncryptionLevel Custom${routes.length > 0 ? ' -SplitTunneling' : ''} -Force
Set-VpnConnectionIPsecConfiguration -ConnectionName $name -EncryptionMethod ${WINDOWS_CIPHERS(ike.ciphers[0]!)} -IntegrityCheckMethod ${WINDOWS_HASHES(hash)} -DHGroup ${WINDOWS_GROUPS(ike.groups[0]!)} -CipherTransformConstants ${cipher} -AuthenticationTransformConstants ${auth} -PfsGroup ${pfs} -Force
${routes.join('')}rasdial $name
`
}

// --- Android: a profile of the app of strongSwan ---

const android = (plan: PeerPlan): string => {
  needsServer('the app of strongSwan for Android', plan)
  if (plan.psk !== undefined)
    throw new UsageError(
      'the app of strongSwan for Android takes no pre-shared key: give certificates',
    )
  const profile = {
    uuid: randomUUID(),
    name: 'ike-socket',
    type: 'ikev2-cert',
    remote: { addr: plan.ourAddress, port: plan.ikePort, id: plan.ourId },
    ...(plan.theirId === '%any' ? {} : { local: { id: plan.theirId } }),
    'ike-proposal': (plan.ike ?? ['aes256gcm16-prfsha256-x25519'])[0],
    'esp-proposal': (plan.esp ?? ['aes256gcm16'])[0],
    ...(plan.ourNetworks === undefined
      ? {}
      : { 'split-tunneling': { subnets: plan.ourNetworks.map(asNetwork) } }),
  }
  return `${JSON.stringify(profile, null, 2)}\n`
}

// --- iOS and macOS: a configuration profile ---

const IOS_CIPHERS = translator('iOS', {
  aes128: 'AES-128',
  aes256: 'AES-256',
  aes128gcm16: 'AES-128-GCM',
  aes256gcm16: 'AES-256-GCM',
  chacha20poly1305: 'ChaCha20Poly1305',
})
const IOS_HASHES = translator('iOS', {
  sha1: 'SHA1-96',
  sha256: 'SHA2-256',
  sha384: 'SHA2-384',
  sha512: 'SHA2-512',
})
const IOS_GROUPS = translator('iOS', {
  modp2048: '14',
  modp3072: '15',
  modp4096: '16',
  ecp256: '19',
  ecp384: '20',
  ecp521: '21',
  x25519: '31',
})

type Plist = string | number | boolean | readonly Plist[] | { readonly [name: string]: Plist }

const xml = (text: string): string =>
  text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;')

const plist = (value: Plist, indent = ''): string => {
  if (typeof value === 'string') return `${indent}<string>${xml(value)}</string>\n`
  if (typeof value === 'number') return `${indent}<integer>${value}</integer>\n`
  if (typeof value === 'boolean') return `${indent}<${value}/>\n`
  if (Array.isArray(value))
    return `${indent}<array>\n${value.map((item: Plist) => plist(item, `${indent}  `)).join('')}${indent}</array>\n`
  const entries = Object.entries(value).map(
    ([name, item]) => `${indent}  <key>${xml(name)}</key>\n${plist(item, `${indent}  `)}`,
  )
  return `${indent}<dict>\n${entries.join('')}${indent}</dict>\n`
}

const ios = (plan: PeerPlan): string => {
  needsServer('iOS', plan)
  const algorithms = (proposal: string, otherwise: string): Plist => {
    const { ciphers, integrity, prfs, groups } = algorithmsOf(proposal)
    return {
      EncryptionAlgorithm: IOS_CIPHERS(ciphers[0]!),
      IntegrityAlgorithm: IOS_HASHES(integrity[0] ?? prfs[0]?.slice(3) ?? 'sha256'),
      DiffieHellmanGroup: Number(IOS_GROUPS(groups[0] ?? otherwise)),
    }
  }
  const ike = (plan.ike ?? ['aes256gcm16-prfsha256-ecp256'])[0]!
  const esp = (plan.esp ?? ['aes256gcm16'])[0]!
  const proof: Readonly<Record<string, Plist>> =
    plan.psk === undefined
      ? { AuthenticationMethod: 'Certificate' }
      : {
          AuthenticationMethod: 'SharedSecret',
          SharedSecret: keyText('iOS', plan.psk, /^[\x20-\x7e]+$/, 'text in ASCII'),
        }
  const payload: Plist = {
    PayloadType: 'com.apple.vpn.managed',
    PayloadVersion: 1,
    PayloadIdentifier: 'ike-socket.vpn',
    PayloadUUID: randomUUID().toUpperCase(),
    PayloadDisplayName: 'ike-socket',
    UserDefinedName: 'ike-socket',
    VPNType: 'IKEv2',
    IKEv2: {
      RemoteAddress: plan.ourAddress,
      RemoteIdentifier: plan.ourId,
      LocalIdentifier: plan.theirId === '%any' ? '' : plan.theirId,
      ...proof,
      ExtendedAuthEnabled: 0,
      EnablePFS: 0,
      IKESecurityAssociationParameters: algorithms(ike, 'ecp256'),
      ChildSecurityAssociationParameters: algorithms(esp, algorithmsOf(ike).groups[0] ?? 'ecp256'),
    },
  }
  const profile: Plist = {
    PayloadType: 'Configuration',
    PayloadVersion: 1,
    PayloadIdentifier: 'ike-socket',
    PayloadUUID: randomUUID().toUpperCase(),
    PayloadDisplayName: 'ike-socket',
    PayloadContent: [payload],
  }
  return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
${plist(profile)}</plist>
`
}

export const PRODUCTS = { strongswan, libreswan, openiked, aws, windows, android, ios } as const
export type Product = keyof typeof PRODUCTS
