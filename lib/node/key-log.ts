/**
 * The keys of SAs as Wireshark reads them: rows of its tables `ikev2_decryption_table` and `esp_sa`, which lie
 * in a profile's folder. Whoever has them reads everything, so nothing is written unless asked for.
 */
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  mkdirSync,
  openSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import type { KeyLogEntry } from '../base/trace.ts'
import { Encr, Integ } from '../wire/registry.ts'

export interface KeyLogRow {
  /** Name of Wireshark's table, which is the name of its file. */
  readonly file: 'ikev2_decryption_table' | 'esp_sa'
  /** Without the line's end. */
  readonly row: string
}

interface Names {
  readonly ike: string
  readonly esp: string
}

/** Wireshark's name for the cipher; with IKE it has the length of the key in it. */
const cipherNames = (encr: number, keyLength: number): Names | undefined => {
  switch (encr) {
    case Encr.AesGcm16:
      return {
        ike: `AES-GCM-${keyLength} with 16 octet ICV [RFC5282]`,
        esp: 'AES-GCM with 16 octet ICV [RFC4106]',
      }
    case Encr.AesCbc:
      return { ike: `AES-CBC-${keyLength} [RFC3602]`, esp: 'AES-CBC [RFC3602]' }
    default:
      return undefined
  }
}

const INTEGRITY_NAMES: Readonly<Record<number, Names>> = {
  [Integ.None]: { ike: 'NONE [RFC4306]', esp: 'NULL' },
  [Integ.HmacSha1_96]: { ike: 'HMAC_SHA1_96 [RFC2404]', esp: 'HMAC-SHA-1-96 [RFC2404]' },
  [Integ.HmacSha2_256_128]: {
    ike: 'HMAC_SHA2_256_128 [RFC4868]',
    esp: 'HMAC-SHA-256-128 [RFC4868]',
  },
  [Integ.HmacSha2_384_192]: {
    ike: 'HMAC_SHA2_384_192 [RFC4868]',
    esp: 'HMAC-SHA-384-192 [RFC4868]',
  },
  [Integ.HmacSha2_512_256]: {
    ike: 'HMAC_SHA2_512_256 [RFC4868]',
    esp: 'HMAC-SHA-512-256 [RFC4868]',
  },
}

const hex = (octets: Uint8Array): string => Buffer.from(octets).toString('hex')

/** Undefined for ChaCha20-Poly1305, which these tables of Wireshark do not have. */
export const formatKeyLog = (entry: KeyLogEntry): KeyLogRow | undefined => {
  const cipher = cipherNames(entry.encr, entry.keyLength)
  const integrity = INTEGRITY_NAMES[entry.integ]
  if (cipher === undefined || integrity === undefined) return undefined
  if (entry.kind === 'ike') {
    const { spiI, spiR, skEi, skEr, skAi, skAr } = entry
    return {
      file: 'ikev2_decryption_table',
      row: `${hex(spiI)},${hex(spiR)},${hex(skEi)},${hex(skEr)},"${cipher.ike}",${hex(skAi)},${hex(skAr)},"${integrity.ike}"`,
    }
  }
  const version = entry.source.includes(':') || entry.destination.includes(':') ? 'IPv6' : 'IPv4'
  const spi = entry.spi.toString(16).padStart(8, '0')
  // Any addresses: behind a NAT, or after a peer has moved, a capture shows others than we know.
  return {
    file: 'esp_sa',
    row: `"${version}","*","*","0x${spi}","${cipher.esp}","0x${hex(entry.encryptionKey)}","${integrity.esp}","0x${hex(entry.integrityKey)}"`,
  }
}

const { O_APPEND, O_CREAT, O_WRONLY } = constants
/** Not on Windows. */
const { O_NOFOLLOW = 0, O_NONBLOCK = 0 } = constants as Partial<typeof constants>

/** For its owner alone: where others may write too, a file, link or pipe of theirs may wait at that path. */
const appendSecret = (path: string, text: string): void => {
  const fd = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600)
  try {
    const facts = fstatSync(fd)
    if (!facts.isFile() || (process.getuid !== undefined && facts.uid !== process.getuid()))
      throw new Error(`${path} is not a file of this user`)
    if ((facts.mode & 0o077) !== 0) fchmodSync(fd, 0o600)
    writeSync(fd, text)
  } finally {
    closeSync(fd)
  }
}

/** Appends each row to its file in `directory`, readable by its owner alone. */
export const writeKeyLog = (directory: string): ((entry: KeyLogEntry) => void) => {
  let failed = false
  return entry => {
    const row = formatKeyLog(entry)
    if (row === undefined || failed) return
    try {
      mkdirSync(directory, { recursive: true, mode: 0o700 })
      appendSecret(join(directory, row.file), `${row.row}\n`)
    } catch (error) {
      // What cannot be analysed later must not end a connection now.
      failed = true
      process.emitWarning(`The key log cannot be written: ${(error as Error).message}`, {
        code: 'IKE_KEY_LOG',
      })
    }
  }
}
