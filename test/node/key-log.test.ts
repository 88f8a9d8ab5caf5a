/** The key log: rows as Wireshark reads them, and files that only their owner can read. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { KeyLogEntry } from '../../lib/base/trace.ts'
import {
  createSecureServer,
  createSecureSocket,
  formatKeyLog,
  type SecureSocketOptions,
} from '../../lib/index.ts'
import { Encr, Integ } from '../../lib/wire/registry.ts'

const octets = (length: number, first: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => first + i)

const ike = (encr: number, keyLength: number, integ: number): KeyLogEntry => ({
  kind: 'ike',
  spiI: octets(8, 0),
  spiR: octets(8, 0x10),
  encr,
  keyLength,
  integ,
  skEi: octets(2, 0x20),
  skEr: octets(2, 0x30),
  skAi: integ === Integ.None ? octets(0, 0) : octets(2, 0x40),
  skAr: integ === Integ.None ? octets(0, 0) : octets(2, 0x50),
})

const esp = (encr: number, integ: number, source: string): KeyLogEntry => ({
  kind: 'esp',
  source,
  destination: source,
  spi: 0xbeef,
  encr,
  keyLength: 256,
  integ,
  encryptionKey: octets(2, 0x20),
  integrityKey: integ === Integ.None ? octets(0, 0) : octets(2, 0x40),
})

t.test('an IKE SA is a row of ikev2_decryption_table', async t => {
  t.strictSame(formatKeyLog(ike(Encr.AesGcm16, 256, Integ.None)), {
    file: 'ikev2_decryption_table',
    row: '0001020304050607,1011121314151617,2021,3031,"AES-GCM-256 with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"',
  })
  t.equal(
    formatKeyLog(ike(Encr.AesCbc, 128, Integ.HmacSha2_256_128))?.row,
    '0001020304050607,1011121314151617,2021,3031,"AES-CBC-128 [RFC3602]",4041,5051,"HMAC_SHA2_256_128 [RFC4868]"',
  )
})

t.test('each direction of a Child SA is a row of esp_sa', async t => {
  t.strictSame(formatKeyLog(esp(Encr.AesGcm16, Integ.None, '192.0.2.1')), {
    file: 'esp_sa',
    row: '"IPv4","*","*","0x0000beef","AES-GCM with 16 octet ICV [RFC4106]","0x2021","NULL","0x"',
  })
  t.equal(
    formatKeyLog(esp(Encr.AesCbc, Integ.HmacSha2_512_256, '2001:db8::1'))?.row,
    '"IPv6","*","*","0x0000beef","AES-CBC [RFC3602]","0x2021","HMAC-SHA-512-256 [RFC4868]","0x4041"',
  )
})

t.test('what the tables have no name for makes no row', async t => {
  t.equal(formatKeyLog(ike(Encr.Chacha20Poly1305, 0, Integ.None)), undefined)
  t.equal(formatKeyLog(esp(Encr.Chacha20Poly1305, Integ.None, '192.0.2.1')), undefined)
})

const psk = 'a pre-shared key for these tests'

/** One connection with that option, and the warnings it caused. */
const connectWith = async (keyLog: SecureSocketOptions['keyLog']): Promise<string[]> => {
  const warnings: string[] = []
  const note = (warning: Error & { code?: string }): void => {
    if (warning.code === 'IKE_KEY_LOG') warnings.push(warning.message)
  }
  process.on('warning', note)
  const server = createSecureServer({ psk, ikePort: 0 }, socket => socket.end())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()!
  const socket = createSecureSocket({
    host: '127.0.0.1',
    port,
    ikePort: server.ikePort!,
    psk,
    ...(keyLog === undefined ? {} : { keyLog }),
  })
  socket.resume()
  await once(socket, 'close')
  await new Promise<void>(resolve => void server.close(() => resolve()))
  process.off('warning', note)
  return warnings
}

t.test('keyLog with a folder writes both tables for its owner alone, and warns once', async t => {
  const folder = join(t.testdir(), 'made/by/us')
  const warnings = await connectWith(folder)
  t.equal(warnings.length, 1)
  t.match(warnings[0], /KEYS/)
  const lines = (file: string): string[] =>
    readFileSync(join(folder, file), 'utf8').trimEnd().split('\n')
  t.equal(lines('ikev2_decryption_table').length, 1)
  t.equal(lines('esp_sa').length, 2)
  for (const line of lines('esp_sa')) t.match(line, /^"IPv4","\*","\*","0x[0-9a-f]{8}",/)
  t.equal(statSync(join(folder, 'esp_sa')).mode & 0o777, 0o600)
  t.strictSame(await connectWith(folder), [], 'the second time it is known')
})

t.test('a folder that cannot be written breaks no connection, and says so once', async t => {
  const folder = join(t.testdir({ file: 'not a folder' }), 'file/below')
  const warnings = await connectWith(folder)
  t.equal(warnings.length, 1)
  t.match(warnings[0], /cannot be written/)
})

t.test(
  'keys go into no link, pipe or file of others, and a file that was open to all is closed',
  async t => {
    const isRoot = process.getuid?.() === 0
    const all = t.testdir({ target: '', link: {}, pipe: {}, others: {}, own: {} })
    const target = join(all, 'target')
    const paths = {
      link: (path: string) => symlinkSync(target, path),
      pipe: (path: string) => execFileSync('mkfifo', [path]),
      // Only root can make one that is another user's.
      others: (path: string) => {
        writeFileSync(path, '', { mode: 0o666 })
        if (isRoot) chownSync(path, 12_345, 12_345)
      },
    }
    for (const [name, make] of Object.entries(paths)) {
      const folder = join(all, name)
      make(join(folder, 'esp_sa'))
      const warnings = await connectWith(folder)
      if (name === 'others' && !isRoot) {
        t.equal(statSync(join(folder, 'esp_sa')).mode & 0o777, 0o600)
        continue
      }
      t.match(warnings.at(-1), /cannot be written/, name)
      if (name === 'others') t.equal(readFileSync(join(folder, 'esp_sa'), 'utf8'), '')
    }
    t.equal(readFileSync(target, 'utf8'), '')
    const own = join(all, 'own')
    writeFileSync(join(own, 'esp_sa'), '')
    chmodSync(join(own, 'esp_sa'), 0o644)
    await connectWith(own)
    t.equal(statSync(join(own, 'esp_sa')).mode & 0o777, 0o600)
    t.match(readFileSync(join(own, 'esp_sa'), 'utf8'), /^"IPv4"/)
  },
)

t.test('a key log is a folder or a function', async t => {
  t.throws(() => createSecureServer({ psk, keyLog: 5 as never }), /"keyLog" must be a folder/)
})
