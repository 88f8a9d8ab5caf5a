/**
 * `ike-socket keygen`: a certificate authority with an empty list of revoked certificates, certificates for a
 * server and a client, a pre-shared key, and how to use them, here and in strongSwan.
 */
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseAddress } from '../base/address.ts'
import type { Millis } from '../base/environment.ts'
import { buildCrl, toPem, type Issuer } from '../identity/certificate-builder.ts'
import { KeyUsage } from '../identity/extensions.ts'
import {
  clientNames,
  DAY,
  HOUR,
  hostNames,
  issue,
  KEY_TYPES,
  keyPem,
  makeKeys,
  pairOf,
  readDays,
  writeFiles,
  type File,
  type KeyType,
} from './authority.ts'
import { columns, JSON_OPTION, JSON_ROW, type Command } from './command.ts'
import { json } from './terminal.ts'
import { parseArguments, UsageError } from './usage.ts'

interface Plan {
  readonly folder: string
  readonly caName: string
  readonly server: readonly string[]
  readonly ip: readonly string[]
  readonly client: readonly string[]
  readonly types: readonly KeyType[]
  readonly days: number
  readonly force: boolean
  readonly isJson: boolean
}

/** Makes and writes everything; gives what is to be printed. */
export const keygen = async (args: readonly string[], now: Millis): Promise<string> => {
  const plan = readPlan(args)
  const names = namesOfFiles(plan)
  const present = names.filter(name => existsSync(join(plan.folder, name)))
  if (present.length > 0 && !plan.force) {
    throw new Error(
      `already in ${plan.folder}: ${present.join(', ')}; --force replaces them, old keys are lost`,
    )
  }
  const files = await makeFiles(plan, now)
  mkdirSync(plan.folder, { recursive: true, mode: 0o700 })
  writeFiles(plan.folder, files, plan.force)
  const folder = resolve(plan.folder)
  if (plan.isJson) return `${json({ files: names.map(name => join(folder, name)) })}\n`
  return `${files.length} files in ${folder}. README.txt there tells how to use them.\n`
}

// --- the command line ---

const OPTIONS = {
  'ca-name': { type: 'string' },
  server: { type: 'string' },
  client: { type: 'string' },
  ip: { type: 'string' },
  type: { type: 'string', completes: [...KEY_TYPES, 'all'] },
  days: { type: 'string' },
  force: { type: 'boolean' },
  ...JSON_OPTION,
} as const

const readPlan = (args: readonly string[]): Plan => {
  const { values, positionals } = parseArguments(args, OPTIONS)
  if (positionals.length > 1) throw new UsageError('keygen takes one folder')
  const type = values.type ?? 'all'
  const types = KEY_TYPES.filter(name => type === 'all' || type === name)
  if (types.length === 0) throw new UsageError(`--type ${type}: ed25519, ecdsa, rsa or all`)
  const days = readDays(values.days)
  const caName = values['ca-name'] ?? 'ike-socket CA'
  if (!/^[\w .:@()-]{1,64}$/.test(caName)) {
    throw new UsageError(`--ca-name ${caName}: 1 to 64 letters, digits, spaces and . : @ ( ) - _`)
  }
  const hasServer = values.server !== undefined
  const ip = list(values.ip, hasServer ? [] : ['127.0.0.1', '::1'])
  for (const address of ip) {
    if (parseAddress(address) === undefined) throw new UsageError(`--ip ${address}: no IP address`)
  }
  return {
    folder: positionals[0] ?? 'ike-keys',
    caName,
    server: hostNames('--server', list(values.server, ['localhost'])),
    ip,
    client: clientNames('--client', list(values.client, ['client'])),
    types,
    days,
    force: values.force ?? false,
    isJson: values.json ?? false,
  }
}

const list = (given: string | undefined, otherwise: readonly string[]): readonly string[] =>
  given === undefined ? otherwise : given.split(',').map(item => item.trim())

// --- the files ---

const namesOfFiles = ({ types }: Plan): readonly string[] => [
  'ca.crt',
  'ca.key',
  'ca.crl',
  ...types.flatMap(type => ROLES.flatMap(who => [`${who}-${type}.crt`, `${who}-${type}.key`])),
  'psk.txt',
  'swanctl-server.conf',
  'swanctl-client.conf',
  'README.txt',
]

const ROLES = ['server', 'client'] as const

const makeFiles = async (plan: Plan, now: Millis): Promise<readonly File[]> => {
  const open = (name: string, content: string): File => ({ name, content, isSecret: false })
  const secret = (name: string, content: string): File => ({ name, content, isSecret: true })
  const { caName, server, client, ip, types, days } = plan
  const pairs = types.flatMap(type => ROLES.map(who => ({ type, who })))
  // One authority for all; ECDSA is what everyone can verify.
  const caType = types.length > 1 ? 'ecdsa' : types[0]!
  const keys = await makeKeys([caType, ...pairs.map(({ type }) => type)])
  const issuer: Issuer = { subject: `O=ike-socket, CN=${caName}`, key: keys[0]! }
  const term = { notBefore: now - HOUR, notAfter: now + Math.max(3650, days + 1) * DAY }
  const authority = issue(issuer, issuer.subject, issuer.key, term, {
    authority: { pathLength: 0 },
    keyUsage: [KeyUsage.KeyCertSign, KeyUsage.CrlSign],
  })
  const list = { thisUpdate: now - HOUR, nextUpdate: now + days * DAY, number: 1 }
  const psk = newPsk()
  return [
    open('ca.crt', authority),
    secret('ca.key', keyPem(issuer.key)),
    open('ca.crl', toPem('X509 CRL', buildCrl(list, issuer))),
    ...pairs.flatMap(({ type, who }, at) => {
      const names = who === 'server' ? server : client
      const facts = { role: who, names, ip: who === 'server' ? ip : [], days }
      return pairOf(`${who}-${type}`, facts, keys[at + 1]!, issuer, now)
    }),
    // Without an end of line, which would belong to the key when the file is read.
    secret('psk.txt', psk),
    secret('swanctl-server.conf', swanctl('server', plan, psk)),
    secret('swanctl-client.conf', swanctl('client', plan, psk)),
    open('README.txt', readme(plan)),
  ]
}

/** strongSwan takes what begins with 0x or 0s for hexadecimal digits or base64. */
const newPsk = (): string => {
  for (;;) {
    const psk = randomBytes(32).toString('base64url')
    if (!/^0[xs]/i.test(psk)) return psk
  }
}

/** strongSwan in one of the two roles; the other end is ours or another strongSwan. */
const swanctl = (role: 'server' | 'client', plan: Plan, psk: string): string => {
  const [type] = plan.types
  const other = role === 'server' ? 'client' : 'server'
  const own = plan[role][0]
  const peer = plan[other][0]
  const isClient = role === 'client'
  const address = plan.ip[0] ?? plan.server[0]
  const connection = (name: string, local: string, remote: string): string => `
  ${name} {
    version = 2${isClient ? `\n    remote_addrs = ${address}\n    remote_port = 4500\n    local_port = 4500` : ''}
    encap = yes
    local {
      ${local}
      id = ${own}
    }
    remote {
      ${remote}
      id = ${isClient ? peer : '%any'}
    }
    children {
      host {
        mode = tunnel
        local_ts = dynamic
        remote_ts = dynamic
      }
    }
  }`
  const certificates = connection(
    'certificates',
    `auth = pubkey\n      certs = ${role}-${type}.crt`,
    `auth = pubkey\n      cacerts = ca.crt`,
  )
  const keys = connection('pre-shared-key', 'auth = psk', 'auth = psk')
  return `# strongSwan as the ${role}. In /etc/swanctl:
#   x509/${role}-${type}.crt  private/${role}-${type}.key  x509ca/ca.crt  x509crl/ca.crl  conf.d/swanctl-${role}.conf
# Then: swanctl --load-all${isClient ? '\n# and: swanctl --initiate --ike certificates --child host (or --ike pre-shared-key)' : ''}
connections {${certificates}
${keys}
}
secrets {
  ike-${role} {
    secret = "${psk}"
  }
}
`
}

const readme = ({ server, client, types, days }: Plan): string => {
  const type = types[0]!
  const files = types.length === 1 ? type : `${types.join(', ')}: the names differ by them`
  return `Credentials made by ike-socket keygen, for ${days} days. Anyone who has a .key file or psk.txt is that party;
who has ca.key can be anyone: keep it apart.

Server "${server[0]}", client "${client[0]}", key types ${files}.

ike-socket, certificates at both ends
-------------------------------------
  import { readFileSync } from 'node:fs'
  import { createSecureServer, createSecureSocket } from 'ike-socket'
  const read = name => readFileSync(name)

  createSecureServer({
    cert: read('server-${type}.crt'),
    key: read('server-${type}.key'),
    ca: read('ca.crt'),
    crl: read('ca.crl'),
    localId: '${server[0]}',
  }, socket => socket.pipe(socket)).listen(8080)

  const socket = createSecureSocket({
    host: '${server[0]}',
    port: 8080,
    cert: read('client-${type}.crt'),
    key: read('client-${type}.key'),
    ca: read('ca.crt'),
    crl: read('ca.crl'),
    localId: '${client[0]}',
    remoteId: '${server[0]}',
  })

ike-socket, pre-shared key
--------------------------
  const psk = readFileSync('psk.txt', 'utf8')
  createSecureServer({ psk, localId: '${server[0]}' }, …)
  createSecureSocket({ host: '${server[0]}', port: 8080, psk, localId: '${client[0]}', remoteId: '${server[0]}' })

strongSwan
----------
swanctl-server.conf and swanctl-client.conf are complete; their first lines say where the files belong.
`
}

const KEYGEN_HELP = `Usage: ike-socket keygen [folder] [options]

Writes into the folder (default: ike-keys)
  ca.crt ca.key ca.crl           a certificate authority, and its list of revoked certificates: none
  server-TYPE.crt server-TYPE.key, client-TYPE.crt client-TYPE.key
  psk.txt                        a pre-shared key of 256 random bits
  swanctl-server.conf swanctl-client.conf   the same in strongSwan
  README.txt                     how to use them

Options:
${columns([
  ['--server NAME,…', 'names of the server, the first is its identity (localhost)'],
  ['--ip ADDRESS,…', 'addresses of the server (127.0.0.1,::1 without --server)'],
  ['--client NAME,…', 'names of the client: host names or e-mail addresses (client)'],
  ['--ca-name NAME', 'common name of the authority (ike-socket CA)'],
  ['--type TYPE', 'ed25519, ecdsa (P-256), rsa (3072 bits) or all (all)'],
  [
    '--days N',
    'how long certificates and list are valid (397); the authority: ten years or longer',
  ],
  ['--force', 'overwrite files'],
  JSON_ROW,
  ['--help', 'this text'],
])}
Examples:
  ike-socket keygen
  ike-socket keygen ike-keys --server orders.internal --client billing.internal --type ed25519

Exit code 0: done; 1: it could not be done; 2: the command line was not understood.
`

export const keygenCommand: Command = {
  name: 'keygen',
  summary: 'a certificate authority, certificates and a pre-shared key',
  options: OPTIONS,
  help: KEYGEN_HELP,
  run: async args => void process.stdout.write(await keygen(args, Date.now())),
}
