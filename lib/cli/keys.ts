/** `add`, `renew`, `revoke`, `show` and `verify`: the life of certificates in a folder that `keygen` made. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { isIP } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { parseAddress } from '../base/address.ts'
import { equal, toHex } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import { revocationReason, revokedIn, type Crl } from '../identity/crl.ts'
import {
  Authority,
  clientNames,
  DAY,
  derOf,
  hostNames,
  keepOld,
  KEY_TYPES,
  makeKeys,
  readCertificate,
  readDays,
  readList,
  replaceFile,
  SUPERSEDED,
  writeFiles,
  type Role,
} from './authority.ts'
import { columns, JSON_OPTION, JSON_ROW, type Command } from './command.ts'
import { json, type Paint, painter, plain } from './terminal.ts'
import { parseArguments, UsageError } from './usage.ts'

const FOLDER = 'ike-keys'
const FOLDER_ROW = ['--folder FOLDER', `made by keygen (${FOLDER})`] as const
const DAYS_ROW = ['--days N', 'how long certificates and list are valid (397)'] as const
const HELP_ROW = ['--help', 'this text'] as const
const folderOption = { folder: { type: 'string' } } as const
const daysOption = { days: { type: 'string' } } as const

const print = (text: string): void => void process.stdout.write(text)

/** Certificates of a folder, without that of the authority. */
const leavesIn = (folder: string): readonly string[] =>
  readdirSync(folder)
    .filter(name => name.endsWith('.crt') && name !== 'ca.crt')
    .map(name => join(folder, name))
    .sort()

const purposeOf = ({ keyUsage }: X509Certificate): Role =>
  (keyUsage as readonly string[] | undefined)?.includes('1.3.6.1.5.5.7.3.1') === true
    ? 'server'
    : 'client'

const namesOf = ({
  subjectAltName = '',
}: X509Certificate): { names: readonly string[]; ip: readonly string[] } => {
  const parts = subjectAltName.split(', ').map(part => part.split(/:(.*)/s, 2) as [string, string])
  const of = (...kinds: readonly string[]): readonly string[] =>
    parts.filter(([kind]) => kinds.includes(kind)).map(([, name]) => name)
  return { names: of('DNS', 'email'), ip: of('IP Address') }
}

// --- add ---

const ADD_OPTIONS = {
  ...folderOption,
  ...daysOption,
  ...JSON_OPTION,
  role: { type: 'string', completes: ['client', 'server'] },
  ip: { type: 'string' },
  type: { type: 'string', completes: KEY_TYPES },
  force: { type: 'boolean' },
} as const

const add = async (args: readonly string[]): Promise<void> => {
  const { values, positionals } = parseArguments(args, ADD_OPTIONS)
  const role = values.role ?? 'client'
  if (role !== 'client' && role !== 'server')
    throw new UsageError(`--role ${role}: client or server`)
  const type = KEY_TYPES.find(name => name === (values.type ?? 'ecdsa'))
  if (type === undefined) throw new UsageError(`--type ${values.type}: ${KEY_TYPES.join(', ')}`)
  if (positionals.length === 0) throw new UsageError('add wants NAME')
  const names = (role === 'server' ? hostNames : clientNames)('NAME', positionals)
  const ip = values.ip?.split(',').map(text => text.trim()) ?? []
  for (const address of ip) {
    if (parseAddress(address) === undefined) throw new UsageError(`--ip ${address}: no IP address`)
  }
  const days = readDays(values.days)
  const folder = values.folder ?? FOLDER
  const authority = new Authority(folder)
  const stem = `${names[0]}-${type}`
  const present = [`${stem}.crt`, `${stem}.key`].filter(name => existsSync(join(folder, name)))
  if (present.length > 0 && values.force !== true) {
    const words = `already in ${folder}: ${present.join(', ')}`
    throw new Error(`${words}; renew keeps the key, --force replaces it, and the old one is lost`)
  }
  const [key] = await makeKeys([type])
  const files = authority.pair(stem, { role, names, ip, days }, key!, Date.now())
  keepOld(join(folder, `${stem}.crt`))
  writeFiles(folder, files, values.force === true)
  const paths = files.map(({ name }) => join(folder, name))
  print(values.json === true ? `${json({ files: paths })}\n` : `${paths.join('\n')}\n`)
}

const addCommand: Command = {
  name: 'add',
  summary: 'one more certificate with its key, by the authority of a folder',
  options: ADD_OPTIONS,
  help: `Usage: ike-socket add NAME… [options]

Makes a key and a certificate for these names, the first of which is the identity, issued by the authority of FOLDER.
A key that is there stays, unless --force is given.

Options:
${columns([
  FOLDER_ROW,
  ['--role ROLE', 'client or server (client)'],
  ['--ip ADDRESS,…', 'addresses of it'],
  ['--type TYPE', 'ed25519, ecdsa (P-256) or rsa (3072 bits) (ecdsa)'],
  DAYS_ROW,
  ['--force', 'replace files that are there'],
  JSON_ROW,
  HELP_ROW,
])}
Examples:
  ike-socket add reports.internal
  ike-socket add gateway.internal --role server --ip 192.0.2.1 --days 90

Exit code 0: done; 1: it could not be done; 2: the command line was not understood.
`,
  run: add,
}

// --- renew ---

const RENEW_OPTIONS = { ...folderOption, ...daysOption, ...JSON_OPTION } as const

const renew = (args: readonly string[]): void => {
  const { values, positionals } = parseArguments(args, RENEW_OPTIONS)
  const folder = values.folder ?? FOLDER
  const days = readDays(values.days)
  const authority = new Authority(folder)
  const now = Date.now()
  const files = positionals.length === 0 ? leavesIn(folder) : positionals
  const lists = authority.revoked.map(({ serial }) => toHex(serial))
  // All are made before any is written.
  const made = files.flatMap(path => {
    const old = new X509Certificate(readFileSync(path))
    if (old.ca) throw new Error(`${path} is of an authority: renew keeps the authority`)
    // Who may write one file of the folder must not get the names that he writes into it.
    if (!authority.hasIssued(old)) throw new Error(`${path} was not issued by this authority`)
    if (lists.includes(toHex(readCertificate(path).serial))) {
      if (positionals.length > 0)
        throw new Error(`${path} was revoked: ike-socket add makes another key and certificate`)
      return []
    }
    const keyPath = path.replace(/\.crt$/, '.key')
    const key = createPrivateKey(readFileSync(keyPath))
    if (!old.checkPrivateKey(key)) throw new Error(`${keyPath} is not the key of ${path}`)
    const { names, ip } = namesOf(old)
    if (names.length === 0) throw new Error(`${path} has no name that add would give it`)
    const facts = { role: purposeOf(old), names, ip, days }
    return [{ path, content: authority.pair('', facts, key, now)[0]!.content }]
  })
  for (const { path, content } of made) {
    keepOld(path)
    replaceFile(path, content)
  }
  authority.writeList([], days, now)
  const until = new Date(now + days * DAY).toISOString()
  if (values.json === true) {
    const renewed = made.map(({ path }) => ({ file: path, validTo: until }))
    return print(`${json({ renewed, list: authority.listPath })}\n`)
  }
  print(made.map(({ path }) => `${path}: valid until ${until}\n`).join(''))
  print(`${authority.listPath}: the next list\n`)
}

const renewCommand: Command = {
  name: 'renew',
  summary: 'new certificates for the same keys and names',
  options: RENEW_OPTIONS,
  help: `Usage: ike-socket renew [FILE.crt…] [options]

Issues certificates again, for the same names and keys, and the list of revoked ones. Without FILE all of FOLDER that are
not revoked are renewed. The authority and all keys stay as they are, so nothing changes for the other ends. Programs with
the option "watch" take the new files without a restart. What was replaced is kept as FILE.crt.SERIAL.old: it is good until
its end, or until its key is revoked.

Options:
${columns([FOLDER_ROW, DAYS_ROW, JSON_ROW, HELP_ROW])}
Examples:
  ike-socket renew
  ike-socket renew ike-keys/server-ecdsa.crt --days 90

Exit code 0: done; 1: it could not be done, and nothing is changed; 2: the command line was not understood.
`,
  run: renew,
}

// --- revoke ---

const SERIAL = /^[0-9a-f]{2,40}$/i

const spkiOf = ({ publicKey }: X509Certificate): Uint8Array =>
  publicKey.export({ format: 'der', type: 'spki' })

/** Serial numbers of the certificates beside a file that its key can still be used with. */
const othersOf = (
  certificate: X509Certificate,
  path: string,
  authority: Authority,
  now: Millis,
): readonly Uint8Array[] => {
  const own = spkiOf(certificate)
  const folder = dirname(path)
  return readdirSync(folder)
    .filter(name => name.endsWith(SUPERSEDED))
    .map(name => join(folder, name))
    .filter(file => {
      const other = new X509Certificate(readFileSync(file))
      const isGood = Date.parse(other.validTo) > now
      return isGood && equal(spkiOf(other), own) && authority.hasIssued(other)
    })
    .map(file => readCertificate(file).serial)
}

const revoke = (args: readonly string[]): void => {
  const { values, positionals } = parseArguments(args, RENEW_OPTIONS)
  if (positionals.length === 0) throw new UsageError('revoke wants FILE.crt or a serial number')
  const authority = new Authority(values.folder ?? FOLDER)
  const days = readDays(values.days)
  const now = Date.now()
  const known = new Set(authority.revoked.map(({ serial }) => toHex(serial)))
  const wanted = positionals.flatMap(text => {
    if (!existsSync(text)) {
      if (SERIAL.test(text) && text.length % 2 === 0)
        return [new Uint8Array(Buffer.from(text, 'hex'))]
      throw new Error(`${text} is neither a file nor a serial number in hexadecimal digits`)
    }
    const shown = new X509Certificate(readFileSync(text))
    if (!authority.hasIssued(shown)) throw new Error(`${text} was not issued by this authority`)
    return [readCertificate(text).serial, ...othersOf(shown, text, authority, now)]
  })
  const fresh = [...new Map(wanted.map(serial => [toHex(serial), serial])).entries()].flatMap(
    ([digits, serial]) => (known.has(digits) ? [] : [serial]),
  )
  authority.writeList(
    fresh.map(serial => ({ serial, at: now })),
    days,
    now,
  )
  if (values.json === true)
    return print(`${json({ revoked: fresh.map(toHex), list: authority.listPath })}\n`)
  print(fresh.map(serial => `revoked: ${toHex(serial)}\n`).join(''))
  print(`${authority.listPath}: give it to every end as "crl", or let it be fetched\n`)
}

const revokeCommand: Command = {
  name: 'revoke',
  summary: 'takes certificates back, by the list of revoked ones',
  options: RENEW_OPTIONS,
  help: `Usage: ike-socket revoke FILE.crt|SERIAL… [options]

Writes the next list of revoked certificates, FOLDER/ca.crl, with these in it, and with those of the same key that renew
has replaced. It counts where an end has it ("crl").

Options:
${columns([FOLDER_ROW, DAYS_ROW, JSON_ROW, HELP_ROW])}
Examples:
  ike-socket revoke ike-keys/client-ecdsa.crt
  ike-socket revoke 5f2c9a0e3b6d41788c1de02a9b74f361

Exit code 0: done; 1: it could not be done; 2: the command line was not understood.
`,
  run: revoke,
}

// --- show ---

const PURPOSES: ReadonlyMap<string, string> = new Map([
  ['1.3.6.1.5.5.7.3.1', 'TLS server'],
  ['1.3.6.1.5.5.7.3.2', 'TLS client'],
  ['1.3.6.1.5.5.7.3.17', 'IKE'],
  ['2.5.29.37.0', 'any'],
])

type Facts = Readonly<Record<string, unknown>>

const oneLine = (name: string): string => plain(name.replace(/\n/g, ', '))

const certificateFacts = (octets: Uint8Array): Facts => {
  const shown = new X509Certificate(octets)
  const { names, ip } = namesOf(shown)
  const { asymmetricKeyType, asymmetricKeyDetails } = shown.publicKey
  const size = asymmetricKeyDetails?.modulusLength ?? asymmetricKeyDetails?.namedCurve
  return {
    kind: shown.ca ? 'authority' : 'certificate',
    subject: oneLine(shown.subject),
    names: [...names, ...ip].map(plain),
    issuer: oneLine(shown.issuer),
    serial: shown.serialNumber.toLowerCase(),
    validFrom: new Date(shown.validFrom).toISOString(),
    validTo: new Date(shown.validTo).toISOString(),
    key: [asymmetricKeyType, size].filter(part => part !== undefined).join(' '),
    purposes: ((shown.keyUsage as readonly string[] | undefined) ?? []).map(
      id => PURPOSES.get(id) ?? id,
    ),
    fingerprint256: shown.fingerprint256,
  }
}

const listFacts = (crl: Crl): Facts => ({
  kind: 'list of revoked certificates',
  number: crl.number === undefined ? null : Number.parseInt(toHex(crl.number), 16),
  thisUpdate: new Date(crl.thisUpdate).toISOString(),
  nextUpdate: crl.nextUpdate === undefined ? null : new Date(crl.nextUpdate).toISOString(),
  revoked: revokedIn(crl).map(
    ({ serial, at }) => `${toHex(serial)} at ${new Date(at).toISOString()}`,
  ),
})

/** What a file is, without anything that is secret. */
const factsOf = (path: string): Facts => {
  const octets = readFileSync(path)
  const text = octets.toString('latin1')
  const label = /-----BEGIN ([^-]+)-----/.exec(text)?.[1] ?? ''
  if (label.endsWith('PRIVATE KEY')) {
    if (label.startsWith('ENCRYPTED')) return { kind: 'private key, encrypted' }
    return { kind: 'private key', key: createPrivateKey(octets).asymmetricKeyType }
  }
  if (label === 'X509 CRL') return listFacts(readList(path))
  if (label === 'CERTIFICATE' || octets[0] === 0x30)
    return path.endsWith('.crl') ? listFacts(readList(path)) : certificateFacts(derOf(octets))
  return { kind: 'neither certificate, list nor key', octets: octets.length }
}

const show = (args: readonly string[]): void => {
  const { values, positionals } = parseArguments(args, JSON_OPTION)
  const places = positionals.length === 0 ? [FOLDER] : positionals
  const files = places.flatMap(place =>
    statSync(place).isDirectory()
      ? readdirSync(place)
          .filter(name => /\.(crt|crl|key)$/.test(name))
          .sort()
          .map(name => join(place, name))
      : [place],
  )
  const all = files.map(file => ({ file, ...factsOf(file) }))
  if (values.json === true) return print(`${json(all)}\n`)
  for (const { file, ...facts } of all) {
    print(`${file}\n`)
    for (const [name, value] of Object.entries<unknown>(facts)) {
      const words = Array.isArray(value) ? value.join(', ') : String(value ?? 'none')
      print(`  ${name.padEnd(15)} ${words === '' ? 'none' : words}\n`)
    }
  }
}

const showCommand: Command = {
  name: 'show',
  summary: 'what is in certificates, lists and keys, without secrets',
  options: JSON_OPTION,
  help: `Usage: ike-socket show [FILE|FOLDER…] [options]

Prints names, terms, serial numbers, purposes and fingerprints of certificates, what a list of revoked ones holds, and the
type of a key. Without FILE: all of ${FOLDER}.

Options:
${columns([JSON_ROW, HELP_ROW])}
Examples:
  ike-socket show
  ike-socket show ike-keys/server-ecdsa.crt --json

Exit code 0: done; 1: a file cannot be read; 2: the command line was not understood.
`,
  run: show,
}

// --- verify ---

const VERIFY_OPTIONS = {
  ca: { type: 'string', completes: 'files' },
  crl: { type: 'string', completes: 'files' },
  name: { type: 'string' },
  ...JSON_OPTION,
} as const

/** What is wrong with a certificate, each with what helps; nothing where all is well. */
const faultsOf = (
  path: string,
  ca: X509Certificate,
  crl: Crl | undefined,
  name: string | undefined,
): readonly string[] => {
  const shown = new X509Certificate(readFileSync(path))
  const now = Date.now()
  const faults: string[] = []
  if (!shown.checkIssued(ca) || !shown.verify(ca.publicKey))
    faults.push(`it was not issued by ${oneLine(ca.subject)}: give its authority by --ca`)
  for (const [certificate, whose] of [
    [shown, 'it'],
    [ca, 'the authority'],
  ] as const) {
    const [from, to] = [Date.parse(certificate.validFrom), Date.parse(certificate.validTo)]
    if (now > to) faults.push(`${whose} expired at ${new Date(to).toISOString()}: ike-socket renew`)
    if (now < from)
      faults.push(
        `${whose} is not valid before ${new Date(from).toISOString()}: is the clock right?`,
      )
  }
  if (crl !== undefined && revocationReason(crl, readCertificate(path)) !== undefined)
    faults.push('it was revoked: ike-socket add makes another one')
  if (crl?.nextUpdate !== undefined && crl.nextUpdate < now)
    faults.push(
      `the list of revoked certificates expired at ${new Date(crl.nextUpdate).toISOString()}: ike-socket renew`,
    )
  if (name !== undefined) {
    const isFor =
      (name.includes('@') ? shown.checkEmail(name) : undefined) ??
      (isIP(name) === 0 ? shown.checkHost(name) : shown.checkIP(name))
    const { names, ip } = namesOf(shown)
    if (isFor === undefined)
      faults.push(
        `it is not for ${plain(name)}, only for ${[...names, ...ip].map(plain).join(', ')}`,
      )
  }
  const purposes = shown.keyUsage as readonly string[] | undefined
  if (
    purposes !== undefined &&
    !purposes.some(id => id === '1.3.6.1.5.5.7.3.17' || id === '2.5.29.37.0')
  )
    faults.push(
      'its purposes leave IKE out: have it made with ipsecIKE, or set "extendedKeyUsage: \'tls\'"',
    )
  const keyPath = path.replace(/\.crt$/, '.key')
  if (keyPath !== path && existsSync(keyPath)) {
    if (!shown.checkPrivateKey(createPrivateKey(readFileSync(keyPath))))
      faults.push(`${basename(keyPath)} is not its key`)
    if ((statSync(keyPath).mode & 0o077) !== 0)
      faults.push(`${basename(keyPath)} can be read by others: chmod 600`)
  }
  return faults
}

const verdictLine = (file: string, faults: readonly string[], paint: Paint): string =>
  faults.length === 0
    ? `${paint('green', '✓')} ${file}\n`
    : `${paint('red', '✗')} ${file}: ${faults.join('; ')}\n`

const verify = (args: readonly string[]): number => {
  const { values, positionals } = parseArguments(args, VERIFY_OPTIONS)
  const files = positionals.length === 0 ? leavesIn(FOLDER) : positionals
  if (files.length === 0) throw new UsageError('verify wants FILE.crt')
  const paint = painter(process.stdout)
  const all = files.map(file => {
    const folder = dirname(file)
    const ca = new X509Certificate(readFileSync(values.ca ?? join(folder, 'ca.crt')))
    const list = values.crl ?? join(folder, 'ca.crl')
    const crl = values.crl !== undefined || existsSync(list) ? readList(list) : undefined
    return { file, faults: faultsOf(file, ca, crl, values.name) }
  })
  if (values.json === true) print(`${json(all)}\n`)
  else for (const { file, faults } of all) print(verdictLine(file, faults, paint))
  return all.every(({ faults }) => faults.length === 0) ? 0 : 3
}

const verifyCommand: Command = {
  name: 'verify',
  summary: 'certificates against their authority, list, clock, name and key',
  options: VERIFY_OPTIONS,
  help: `Usage: ike-socket verify [FILE.crt…] [options]

Checks who issued a certificate, its term and that of the authority, whether it was revoked, whether it is for IKE, and
whether the .key beside it is its key and for its owner alone. Without FILE: all of ${FOLDER}.

Options:
${columns([
  ['--ca FILE', 'the authority (ca.crt beside the certificate)'],
  ['--crl FILE', 'the list of revoked certificates (ca.crl beside it, where there is one)'],
  ['--name NAME', 'a host name, address or e-mail address that it must be for'],
  JSON_ROW,
  HELP_ROW,
])}
Examples:
  ike-socket verify
  ike-socket verify ike-keys/server-ecdsa.crt --name orders.internal

Exit code 0: all are in order; 1: a file cannot be read; 2: the command line was not understood; 3: one is not in order.
`,
  run: verify,
}

export const keyCommands: readonly Command[] = [
  addCommand,
  renewCommand,
  revokeCommand,
  showCommand,
  verifyCommand,
]
