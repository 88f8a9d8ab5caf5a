/** The certificate authority that `keygen` makes in a folder, and what it issues. */
import {
  createPrivateKey,
  generateKeyPair,
  randomBytes,
  X509Certificate,
  type KeyObject,
} from 'node:crypto'
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { parseAddress } from '../base/address.ts'
import { toHex } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import {
  buildCertificate,
  buildCrl,
  toPem,
  type CertificateFacts,
  type Issuer,
} from '../identity/certificate-builder.ts'
import { isMalformed, parseCertificate, type Certificate } from '../identity/certificate.ts'
import { parseCrl, revokedIn, type Crl } from '../identity/crl.ts'
import { KeyPurpose, KeyUsage } from '../identity/extensions.ts'
import { Progress } from './terminal.ts'
import { UsageError } from './usage.ts'

export const DAY = 86_400_000
export const HOUR = 3_600_000

export const KEY_TYPES = ['ed25519', 'ecdsa', 'rsa'] as const
export type KeyType = (typeof KEY_TYPES)[number]
export type Role = 'server' | 'client'

export interface File {
  readonly name: string
  readonly content: string
  readonly isSecret: boolean
}

/** Files that are there are refused, unless `force`. */
export const writeFiles = (folder: string, files: readonly File[], force: boolean): void => {
  for (const { name, content, isSecret } of files) {
    const path = join(folder, name)
    // A file that is there keeps its mode, and a link leads elsewhere: both must go.
    if (force) rmSync(path, { force: true })
    writeFileSync(path, content, { flag: 'wx', mode: isSecret ? 0o600 : 0o644 })
  }
}

/** Replaces a file that is no secret, whole: a reader sees the old one or the new one. */
export const replaceFile = (path: string, content: string): void => {
  const fresh = `${path}.new`
  rmSync(fresh, { force: true })
  writeFileSync(fresh, content, { flag: 'wx', mode: 0o644 })
  renameSync(fresh, path)
}

/** What a certificate is kept as when another one takes its file: until its end it is good, unless it is revoked. */
export const SUPERSEDED = '.old'

/** Puts a certificate of ours that is about to be replaced aside, so that it can be revoked. */
export const keepOld = (path: string): void => {
  const old = existsSync(path) ? parseCertificate(derOf(readFileSync(path))) : undefined
  if (old === undefined || isMalformed(old)) return
  replaceFile(`${path}.${toHex(old.serial)}${SUPERSEDED}`, toPem('CERTIFICATE', old.bytes))
}

// --- names and numbers ---

const LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?'
const HOST = new RegExp(`^${LABEL}(?:\\.${LABEL})*$`, 'i')
const MAILBOX = /^[\w.+-]+$/

/** A common name has 64 characters at most (RFC 5280 appendix A.1). */
const isHost = (name: string): boolean => name.length <= 64 && HOST.test(name)

export const hostNames = (option: string, names: readonly string[]): readonly string[] => {
  for (const name of names) {
    if (!isHost(name)) throw new UsageError(`${option} ${name}: no host name`)
    if (parseAddress(name) !== undefined) {
      throw new UsageError(`${option} ${name}: addresses go to --ip`)
    }
  }
  return names
}

export const clientNames = (option: string, names: readonly string[]): readonly string[] => {
  for (const name of names) {
    const at = name.indexOf('@')
    const isName =
      at < 0 ? isHost(name) : MAILBOX.test(name.slice(0, at)) && isHost(name.slice(at + 1))
    if (!isName || name.length > 64) {
      throw new UsageError(`${option} ${name}: no host name and no e-mail address`)
    }
  }
  return names
}

export const readDays = (text: string | undefined): number => {
  const days = Number(text ?? 397)
  if (Number.isInteger(days) && days >= 1 && days <= 36_500) return days
  throw new UsageError(`--days ${text}: 1 to 36500`)
}

// --- keys ---

const generate = promisify(generateKeyPair)

const newKey = async (type: KeyType): Promise<KeyObject> => {
  if (type === 'ed25519') return (await generate('ed25519')).privateKey
  return type === 'ecdsa'
    ? (await generate('ec', { namedCurve: 'P-256' })).privateKey
    : (await generate('rsa', { modulusLength: 3072 })).privateKey
}

/** Keys of these types, in their order, with a bar where RSA takes its time. */
export const makeKeys = async (types: readonly KeyType[]): Promise<readonly KeyObject[]> => {
  const progress = new Progress('making keys', 0)
  let done = 0
  try {
    return await Promise.all(
      types.map(async type => {
        const key = await newKey(type)
        progress.update(`making keys: ${++done} of ${types.length}`, done / types.length)
        return key
      }),
    )
  } finally {
    progress.stop()
  }
}

export const keyPem = (key: KeyObject): string =>
  key.export({ type: 'pkcs8', format: 'pem' }) as string

/** RFC 5280 §4.1.2.2: positive; the first bits are set so that all have the same length. */
const newSerial = (): Uint8Array => {
  const serial = new Uint8Array(randomBytes(16))
  serial[0] = (serial[0]! & 0x7f) | 0x40
  return serial
}

// --- certificates ---

interface Term {
  readonly notBefore: Millis
  readonly notAfter: Millis
}

/** A certificate in PEM. */
export const issue = (
  issuer: Issuer,
  subject: string,
  key: KeyObject,
  term: Term,
  facts: Partial<CertificateFacts>,
): string =>
  toPem(
    'CERTIFICATE',
    buildCertificate({ subject, publicKey: key, serial: newSerial(), ...term, ...facts }, issuer),
  )

export interface LeafFacts {
  readonly role: Role
  /** Host names and e-mail addresses, the identity first. */
  readonly names: readonly string[]
  readonly ip: readonly string[]
  readonly days: number
}

const leaf = (
  { role, names, ip, days }: LeafFacts,
  key: KeyObject,
  issuer: Issuer,
  now: Millis,
): string =>
  issue(
    issuer,
    `O=ike-socket, CN=${names[0]}`,
    key,
    { notBefore: now - HOUR, notAfter: now + days * DAY },
    {
      keyUsage: [KeyUsage.DigitalSignature],
      extendedKeyUsage: [
        KeyPurpose.IpsecIke,
        role === 'server' ? KeyPurpose.ServerAuth : KeyPurpose.ClientAuth,
      ],
      names: {
        dns: names.filter(name => !name.includes('@')),
        email: names.filter(name => name.includes('@')),
        ip,
      },
    },
  )

/** Certificate and key as files of that name. */
export const pairOf = (
  name: string,
  facts: LeafFacts,
  key: KeyObject,
  issuer: Issuer,
  now: Millis,
): readonly File[] => [
  { name: `${name}.crt`, content: leaf(facts, key, issuer, now), isSecret: false },
  { name: `${name}.key`, content: keyPem(key), isSecret: true },
]

// --- what is in a folder ---

/** The octets of PEM's first block, or what is DER already. */
export const derOf = (octets: Uint8Array): Uint8Array => {
  const [, body] =
    /-----BEGIN [^-]+-----([^-]+)-----END/.exec(Buffer.from(octets).toString('latin1')) ?? []
  return body === undefined ? octets : new Uint8Array(Buffer.from(body, 'base64'))
}

export const readCertificate = (path: string): Certificate => {
  const certificate = parseCertificate(derOf(readFileSync(path)))
  if (isMalformed(certificate)) throw new Error(`${path} is no certificate: ${certificate.problem}`)
  return certificate
}

export const readList = (path: string): Crl => {
  const crl = parseCrl(derOf(readFileSync(path)))
  if ('problem' in crl)
    throw new Error(`${path} is no list of revoked certificates: ${crl.problem}`)
  return crl
}

/** The authority of a folder, with its key. */
export class Authority {
  readonly folder: string
  readonly certificate: Certificate
  readonly issuer: Issuer

  constructor(folder: string) {
    this.folder = folder
    for (const name of ['ca.crt', 'ca.key']) {
      if (existsSync(join(folder, name))) continue
      throw new Error(
        `${join(folder, name)} is not there: ike-socket keygen ${folder} makes an authority`,
      )
    }
    this.certificate = readCertificate(join(folder, 'ca.crt'))
    const shown = new X509Certificate(this.certificate.bytes)
    const key = createPrivateKey(readFileSync(join(folder, 'ca.key')))
    if (!shown.checkPrivateKey(key))
      throw new Error(`${join(folder, 'ca.key')} is not the key of ca.crt`)
    this.issuer = { subject: shown.subject.split('\n').join(', '), key }
  }

  /** By its signature: the name of an issuer can be anybody's. */
  hasIssued(certificate: X509Certificate): boolean {
    const own = new X509Certificate(this.certificate.bytes)
    return certificate.checkIssued(own) && certificate.verify(own.publicKey)
  }

  get listPath(): string {
    return join(this.folder, 'ca.crl')
  }

  get revoked(): readonly { readonly serial: Uint8Array; readonly at: Millis }[] {
    return existsSync(this.listPath) ? revokedIn(readList(this.listPath)) : []
  }

  /** Writes the next list, with these besides those that are in it. */
  writeList(more: readonly { serial: Uint8Array; at: Millis }[], days: number, now: Millis): void {
    const before = existsSync(this.listPath) ? readList(this.listPath) : undefined
    const number = before?.number?.reduce((value, octet) => value * 256 + octet, 0) ?? 0
    const list = {
      thisUpdate: now - HOUR,
      nextUpdate: Math.max(now + days * DAY, before?.nextUpdate ?? 0),
      number: number + 1,
      revoked: [...this.revoked, ...more],
    }
    replaceFile(this.listPath, toPem('X509 CRL', buildCrl(list, this.issuer)))
  }

  /** As `pairOf` makes them; the authority must outlive them. */
  pair(name: string, facts: LeafFacts, key: KeyObject, now: Millis): readonly File[] {
    if (now + facts.days * DAY <= this.certificate.notAfter)
      return pairOf(name, facts, key, this.issuer, now)
    const left = Math.floor((this.certificate.notAfter - now) / DAY)
    throw new Error(
      `the authority expires before that, in ${left} days: --days ${Math.max(0, left)} at most, or make a new one`,
    )
  }
}
