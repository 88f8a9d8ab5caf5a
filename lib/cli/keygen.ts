/**
 * `ike-socket keygen`: a certificate authority with an empty list of revoked certificates, certificates for a
 * server and a client, a pre-shared key, and how to use them, here and in strongSwan.
 */
import { generateKeyPairSync, randomBytes, type KeyObject } from 'node:crypto'
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseAddress } from '../base/address.ts'
import type { Millis } from '../base/environment.ts'
import {
  buildCertificate,
  buildCrl,
  toPem,
  type CertificateFacts,
  type Issuer,
} from '../identity/certificate-builder.ts'
import { KeyPurpose, KeyUsage } from '../identity/extensions.ts'
import type { Command } from './command.ts'
import { parseArguments, UsageError } from './usage.ts'

const KEY_TYPES = ['ed25519', 'ecdsa', 'rsa'] as const
type KeyType = (typeof KEY_TYPES)[number]

interface Plan {
  readonly folder: string
  readonly caName: string
  readonly server: readonly string[]
  readonly ip: readonly string[]
  readonly client: readonly string[]
  readonly types: readonly KeyType[]
  readonly days: number
  readonly force: boolean
}

interface File {
  readonly name: string
  readonly content: string
  readonly isSecret: boolean
}

const DAY = 86_400_000
const HOUR = 3_600_000

/** Makes and writes everything; gives what is to be printed. */
export const keygen = (args: readonly string[], now: Millis): string => {
  const plan = readPlan(args)
  const files = makeFiles(plan, now)
  const present = files.filter(({ name }) => existsSync(join(plan.folder, name)))
  if (present.length > 0 && !plan.force) {
    const names = present.map(({ name }) => name).join(', ')
    throw new Error(`already in ${plan.folder}: ${names}; --force replaces them, old keys are lost`)
  }
  mkdirSync(plan.folder, { recursive: true, mode: 0o700 })
  for (const { name, content, isSecret } of files) {
    const path = join(plan.folder, name)
    // A file that is there keeps its mode, and a link leads elsewhere: both must go.
    if (plan.force) rmSync(path, { force: true })
    writeFileSync(path, content, { flag: 'wx', mode: isSecret ? 0o600 : 0o644 })
  }
  return `${files.length} files in ${resolve(plan.folder)}. README.txt there tells how to use them.\n`
}

// --- the command line ---

const OPTIONS = {
  'ca-name': { type: 'string' },
  server: { type: 'string' },
  client: { type: 'string' },
  ip: { type: 'string' },
  type: { type: 'string' },
  days: { type: 'string' },
  force: { type: 'boolean' },
} as const

const readPlan = (args: readonly string[]): Plan => {
  const { values, positionals } = parseArguments(args, OPTIONS)
  if (positionals.length > 1) throw new UsageError('keygen takes one folder')
  const type = values.type ?? 'all'
  const types = KEY_TYPES.filter(name => type === 'all' || type === name)
  if (types.length === 0) throw new UsageError(`--type ${type}: ed25519, ecdsa, rsa or all`)
  const days = Number(values.days ?? 397)
  if (!Number.isInteger(days) || days < 1 || days > 36_500) {
    throw new UsageError(`--days ${values.days}: 1 to 36500`)
  }
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
    server: hostNames('server', list(values.server, ['localhost'])),
    ip,
    client: clientNames(list(values.client, ['client'])),
    types,
    days,
    force: values.force ?? false,
  }
}

const list = (given: string | undefined, otherwise: readonly string[]): readonly string[] =>
  given === undefined ? otherwise : given.split(',').map(item => item.trim())

const LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?'
const HOST = new RegExp(`^${LABEL}(?:\\.${LABEL})*$`, 'i')
const MAILBOX = /^[\w.+-]+$/

/** A common name has 64 characters at most (RFC 5280 appendix A.1). */
const isHost = (name: string): boolean => name.length <= 64 && HOST.test(name)

const hostNames = (option: string, names: readonly string[]): readonly string[] => {
  for (const name of names) {
    if (!isHost(name)) throw new UsageError(`--${option} ${name}: no host name`)
    if (parseAddress(name) !== undefined) {
      throw new UsageError(`--${option} ${name}: addresses go to --ip`)
    }
  }
  return names
}

const clientNames = (names: readonly string[]): readonly string[] => {
  for (const name of names) {
    const at = name.indexOf('@')
    const isName =
      at < 0 ? isHost(name) : MAILBOX.test(name.slice(0, at)) && isHost(name.slice(at + 1))
    if (!isName || name.length > 64) {
      throw new UsageError(`--client ${name}: no host name and no e-mail address`)
    }
  }
  return names
}

// --- the files ---

const makeFiles = (plan: Plan, now: Millis): readonly File[] => {
  const open = (name: string, content: string): File => ({ name, content, isSecret: false })
  const secret = (name: string, content: string): File => ({ name, content, isSecret: true })
  const { caName, server, client, ip, types, days } = plan
  // One authority for all; ECDSA is what everyone can verify.
  const caType = types.length > 1 ? 'ecdsa' : types[0]!
  const issuer: Issuer = { subject: `O=ike-socket, CN=${caName}`, key: newKey(caType) }
  const issue = (
    subject: string,
    key: KeyObject,
    lifetime: number,
    facts: Partial<CertificateFacts>,
  ): string => {
    const term = { notBefore: now - HOUR, notAfter: now + lifetime }
    const whole = { subject, publicKey: key, serial: newSerial(), ...term, ...facts }
    return toPem('CERTIFICATE', buildCertificate(whole, issuer))
  }
  const authority = issue(issuer.subject, issuer.key, Math.max(3650, days + 1) * DAY, {
    authority: { pathLength: 0 },
    keyUsage: [KeyUsage.KeyCertSign, KeyUsage.CrlSign],
  })
  const list = { thisUpdate: now - HOUR, nextUpdate: now + days * DAY, number: 1 }
  const pair = (who: 'server' | 'client', type: KeyType): readonly File[] => {
    const names = who === 'server' ? server : client
    const key = newKey(type)
    const certificate = issue(`O=ike-socket, CN=${names[0]}`, key, days * DAY, {
      keyUsage: [KeyUsage.DigitalSignature],
      extendedKeyUsage: [
        KeyPurpose.IpsecIke,
        who === 'server' ? KeyPurpose.ServerAuth : KeyPurpose.ClientAuth,
      ],
      names: {
        dns: names.filter(name => !name.includes('@')),
        email: names.filter(name => name.includes('@')),
        ip: who === 'server' ? ip : [],
      },
    })
    return [open(`${who}-${type}.crt`, certificate), secret(`${who}-${type}.key`, keyPem(key))]
  }
  const psk = newPsk()
  return [
    open('ca.crt', authority),
    secret('ca.key', keyPem(issuer.key)),
    open('ca.crl', toPem('X509 CRL', buildCrl(list, issuer))),
    ...types.flatMap(type => [...pair('server', type), ...pair('client', type)]),
    // Without an end of line, which would belong to the key when the file is read.
    secret('psk.txt', psk),
    secret('swanctl-server.conf', swanctl('server', plan, psk)),
    secret('swanctl-client.conf', swanctl('client', plan, psk)),
    open('README.txt', readme(plan)),
  ]
}

const newKey = (type: KeyType): KeyObject => {
  if (type === 'ed25519') return generateKeyPairSync('ed25519').privateKey
  return type === 'ecdsa'
    ? generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
    : generateKeyPairSync('rsa', { modulusLength: 3072 }).privateKey
}

const keyPem = (key: KeyObject): string => key.export({ type: 'pkcs8', format: 'pem' }) as string

/** strongSwan takes what begins with 0x or 0s for hexadecimal digits or base64. */
const newPsk = (): string => {
  for (;;) {
    const psk = randomBytes(32).toString('base64url')
    if (!/^0[xs]/i.test(psk)) return psk
  }
}

/** RFC 5280 §4.1.2.2: positive; the first bits are set so that all have the same length. */
const newSerial = (): Uint8Array => {
  const serial = new Uint8Array(randomBytes(16))
  serial[0] = (serial[0]! & 0x7f) | 0x40
  return serial
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
  return `Credentials made by ike-socket keygen, for ${days} days. Whoever has a .key file or psk.txt is that party;
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
  --server NAME,…    names of the server, the first is its identity (localhost)
  --ip ADDRESS,…     addresses of the server (127.0.0.1,::1 without --server)
  --client NAME,…    names of the client: host names or e-mail addresses (client)
  --ca-name NAME     common name of the authority (ike-socket CA)
  --type TYPE        ed25519, ecdsa (P-256), rsa (3072 bits) or all (all)
  --days N           how long certificates and list are valid (397); the authority: ten years or longer
  --force            overwrite files
  --help

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
  run: args => void process.stdout.write(keygen(args, Date.now())),
}
