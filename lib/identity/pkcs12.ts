/**
 * PKCS #12 (RFC 7292), as the option `pfx` gives it: certificates and private keys under a passphrase. What
 * current tools write is read (DER, PBES2 with AES-CBC, an HMAC over the whole); older ciphers are refused.
 */
import { createDecipheriv, createHash, createHmac, pbkdf2Sync } from 'node:crypto'
import { concat, equal, utf8 } from '../base/bytes.ts'
import { contextTag, DerReader, Tag } from '../base/der.ts'

export interface Pkcs12 {
  /** DER certificates. */
  readonly certificates: readonly Uint8Array[]
  /** DER PKCS #8, encrypted or not; the passphrase is the file's. */
  readonly keys: readonly Uint8Array[]
}

const DATA = '1.2.840.113549.1.7.1'
const ENCRYPTED_DATA = '1.2.840.113549.1.7.6'
const Bag = {
  Key: '1.2.840.113549.1.12.10.1.1',
  ShroudedKey: '1.2.840.113549.1.12.10.1.2',
  Certificate: '1.2.840.113549.1.12.10.1.3',
  SafeContents: '1.2.840.113549.1.12.10.1.6',
} as const
const X509 = '1.2.840.113549.1.9.22.1'
const PBES2 = '1.2.840.113549.1.5.13'
const PBKDF2 = '1.2.840.113549.1.5.12'

interface Digest {
  readonly name: string
  readonly length: number
  readonly block: number
}

/** Digests of the MAC and of PBKDF2's HMAC, with the block that the old key derivation works in. */
const DIGESTS: ReadonlyMap<string, Digest> = new Map(
  Object.entries({
    '1.3.14.3.2.26': { name: 'sha1', length: 20, block: 64 },
    '2.16.840.1.101.3.4.2.1': { name: 'sha256', length: 32, block: 64 },
    '2.16.840.1.101.3.4.2.2': { name: 'sha384', length: 48, block: 128 },
    '2.16.840.1.101.3.4.2.3': { name: 'sha512', length: 64, block: 128 },
  }),
)
const HMACS: ReadonlyMap<string, string> = new Map(
  Object.entries({
    '1.2.840.113549.2.7': 'sha1',
    '1.2.840.113549.2.9': 'sha256',
    '1.2.840.113549.2.10': 'sha384',
    '1.2.840.113549.2.11': 'sha512',
  }),
)
const CIPHERS: ReadonlyMap<string, { name: string; keyLength: number }> = new Map(
  Object.entries({
    '2.16.840.1.101.3.4.1.2': { name: 'aes-128-cbc', keyLength: 16 },
    '2.16.840.1.101.3.4.1.22': { name: 'aes-192-cbc', keyLength: 24 },
    '2.16.840.1.101.3.4.1.42': { name: 'aes-256-cbc', keyLength: 32 },
  }),
)
/** More rounds than any tool takes would only keep the program busy. */
const MAX_ROUNDS = 10_000_000
const MAX_DEPTH = 4

/** A string says why it cannot be read. */
export const readPkcs12 = (bytes: Uint8Array, passphrase: string): Pkcs12 | string => {
  const outer = new DerReader(bytes)
  const pfx = outer.enter()
  outer.end()
  const version = pfx.smallInteger()
  const content = readContent(pfx)
  const mac = pfx.more ? readMac(pfx.enter()) : undefined
  pfx.end()
  if (outer.problem !== undefined) return `it is no PKCS #12 in DER: ${outer.problem}`
  if (version !== 3 || content.type !== DATA)
    return 'it is protected by a public key or of another version'
  if (mac === undefined) return 'nothing protects it from changes'
  const safe = outer.inside(content.value).octetString()
  if (typeof mac === 'string') return mac
  if (!macMatches(mac, safe, passphrase)) return 'the passphrase is wrong, or it was changed'
  const found = { certificates: [] as Uint8Array[], keys: [] as Uint8Array[] }
  const list = outer.inside(safe).enter()
  while (list.more) {
    const part = readContent(list)
    const bags =
      part.type === DATA
        ? outer.inside(part.value).octetString()
        : part.type === ENCRYPTED_DATA
          ? decrypt(outer.inside(part.value), passphrase)
          : `it has content of type ${part.type}`
    if (typeof bags === 'string') return bags
    readBags(new DerReader(bags).enter(), found, 0)
  }
  return outer.problem === undefined ? found : `it is malformed: ${outer.problem}`
}

/** ContentInfo (RFC 5652 §3): a type, and a value wrapped in [0]. */
const readContent = (reader: DerReader): { type: string; value: Uint8Array } => {
  const info = reader.enter()
  const type = info.oid()
  const value = info.expect(contextTag(0, true)).content
  info.end()
  return { type, value }
}

interface Mac {
  readonly digest: Digest
  readonly value: Uint8Array
  readonly salt: Uint8Array
  readonly rounds: number
}

const readMac = (reader: DerReader): Mac | string => {
  const info = reader.enter()
  const algorithm = info.enter()
  const id = algorithm.oid()
  const value = info.octetString()
  const salt = reader.octetString()
  const rounds = reader.more ? reader.smallInteger() : 1
  const digest = DIGESTS.get(id)
  if (digest === undefined) return `its MAC uses ${id}, which is not supported`
  if (rounds < 1 || rounds > MAX_ROUNDS) return 'its MAC takes too many rounds'
  return { digest, value, salt, rounds }
}

const macMatches = (
  { digest, value, salt, rounds }: Mac,
  octets: Uint8Array,
  passphrase: string,
): boolean => {
  const key = deriveMacKey(digest, passphrase, salt, rounds)
  return equal(new Uint8Array(createHmac(digest.name, key).update(octets).digest()), value)
}

/** RFC 7292 appendix B.2 with the identifier 3; the key is as long as the digest, so one block gives it. */
const deriveMacKey = (
  { name, block }: Mac['digest'],
  passphrase: string,
  salt: Uint8Array,
  rounds: number,
): Uint8Array => {
  const password = new Uint8Array(2 * passphrase.length + 2)
  for (let i = 0; i < passphrase.length; i++) {
    password[2 * i] = passphrase.charCodeAt(i) >>> 8
    password[2 * i + 1] = passphrase.charCodeAt(i)
  }
  const filled = (octets: Uint8Array): Uint8Array =>
    Uint8Array.from(
      { length: block * Math.ceil(octets.length / block) },
      (_, i) => octets[i % octets.length]!,
    )
  let key = concat(new Uint8Array(block).fill(3), filled(salt), filled(password))
  for (let i = 0; i < rounds; i++) key = new Uint8Array(createHash(name).update(key).digest())
  return key
}

/** EncryptedData (RFC 5652 §8) under PBES2 (RFC 8018 §6.2). */
const decrypt = (reader: DerReader, passphrase: string): Uint8Array | string => {
  const data = reader.enter()
  data.smallInteger()
  const info = data.enter()
  info.oid()
  const algorithm = info.enter()
  const scheme = algorithm.oid()
  if (scheme !== PBES2) return `it is encrypted with ${scheme}; PBES2 with AES is supported`
  const parameters = algorithm.enter()
  const derivation = parameters.enter()
  const function_ = derivation.oid()
  const settings = derivation.enter()
  const salt = settings.octetString()
  const rounds = settings.smallInteger()
  if (settings.nextTag === Tag.Integer) settings.smallInteger()
  const hmac = settings.more ? HMACS.get(settings.enter().oid()) : 'sha1'
  const encryption = parameters.enter()
  const cipher = CIPHERS.get(encryption.oid())
  const iv = encryption.octetString()
  const ciphertext = info.expect(contextTag(0)).content
  if (reader.problem !== undefined) return `it is malformed: ${reader.problem}`
  if (function_ !== PBKDF2 || hmac === undefined || cipher === undefined || iv.length !== 16) {
    return 'it is encrypted with an algorithm that is not supported; PBES2 with AES is'
  }
  if (rounds < 1 || rounds > MAX_ROUNDS) return 'its encryption takes too many rounds'
  const key = pbkdf2Sync(utf8(passphrase), salt, rounds, cipher.keyLength, hmac)
  const decipher = createDecipheriv(cipher.name, key, iv)
  try {
    return new Uint8Array(Buffer.concat([decipher.update(ciphertext), decipher.final()]))
  } catch {
    return 'the passphrase is wrong'
  }
}

const readBags = (
  list: DerReader,
  found: { certificates: Uint8Array[]; keys: Uint8Array[] },
  depth: number,
): void => {
  while (list.more) {
    const bag = list.enter()
    const id = bag.oid()
    const value = bag.expect(contextTag(0, true)).content
    if (id === Bag.Key || id === Bag.ShroudedKey) found.keys.push(value)
    if (id === Bag.SafeContents && depth < MAX_DEPTH)
      readBags(list.inside(value).enter(), found, depth + 1)
    if (id !== Bag.Certificate) continue
    const certificate = list.inside(value).enter()
    if (certificate.oid() !== X509) continue
    found.certificates.push(certificate.enter(contextTag(0, true)).octetString())
  }
}
