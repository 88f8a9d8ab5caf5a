/** The option `pfx`: files as openssl writes them, and files that are none. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { parseOwnKeys } from '../../lib/identity/own-keys.ts'
import { readPkcs12 } from '../../lib/identity/pkcs12.ts'
import { authority, endEntity } from '../harness/certificates.ts'
import { Random } from '../harness/random.ts'

const folder = mkdtempSync(join(tmpdir(), 'ike-pfx-'))
t.after(() => rmSync(folder, { recursive: true }))
const root = authority('O=Test, CN=Root', 'P-256')

const hasOpenssl = spawnSync('openssl', ['version']).status === 0
const suffix = hasOpenssl ? '' : ' (skipped: there is no openssl here)'

const write = (...more: readonly string[]): Uint8Array => {
  const { pem, keyPem } = endEntity('client.test', 'P-256', root)
  writeFileSync(join(folder, 'in.pem'), pem + keyPem)
  writeFileSync(join(folder, 'ca.pem'), root.pem)
  const args = ['-export', '-in', 'in.pem', '-certfile', 'ca.pem', '-passout', 'pass:sesame']
  const { status } = spawnSync('openssl', ['pkcs12', ...args, '-out', 'out.pfx', ...more], {
    cwd: folder,
  })
  t.equal(status, 0)
  return new Uint8Array(readFileSync(join(folder, 'out.pfx')))
}

t.test(`a file of openssl: key, certificate and its issuer${suffix}`, { skip: !hasOpenssl }, t => {
  for (const more of [[], ['-keypbe', 'AES-128-CBC'], ['-macalg', 'sha512']]) {
    const [own] = parseOwnKeys({ pfx: write(...more), passphrase: 'sesame' })
    t.equal(own?.chain.length, 2)
    t.equal(own?.publicKey.curve, 'P-256')
  }
  const [own] = parseOwnKeys({ pfx: { buf: write(), passphrase: 'sesame' } })
  t.ok(own?.key)
  t.throws(() => parseOwnKeys({ pfx: write(), passphrase: 'wrong' }), { name: 'OptionError' })
  t.throws(() => parseOwnKeys({ pfx: write() }), { name: 'OptionError', option: 'pfx' })
  t.end()
})

t.test(
  `CVE-2026-35329: a container that is cut or changed gives an error that names it${suffix}`,
  { skip: !hasOpenssl },
  t => {
    const whole = write('-iter', '1')
    const samples = Array.from({ length: whole.length }, (_, length) => whole.slice(0, length))
    const random = new Random(6)
    for (let i = 0; i < 1500; i++) {
      const bytes = whole.slice()
      bytes[random.integer(0, bytes.length - 1)]! ^= 1 << random.integer(0, 7)
      samples.push(bytes)
    }
    const [genuine] = parseOwnKeys({ pfx: whole, passphrase: 'sesame' })
    let refused = 0
    for (const bytes of samples) {
      try {
        // Contents are under a MAC; what is around it may say something that does not matter.
        const [own] = parseOwnKeys({ pfx: bytes, passphrase: 'sesame' })
        t.strictSame(own?.publicKey.spki, genuine?.publicKey.spki)
      } catch (error) {
        refused++
        const { name, option } = error as { name: string; option?: string }
        if (name !== 'OptionError' || option !== 'pfx') t.fail(`${name}: ${String(error)}`)
      }
    }
    t.ok(refused > 0.95 * samples.length)
    for (const bytes of [new Uint8Array(0), new Uint8Array(50_000).fill(0x30)])
      t.type(readPkcs12(bytes, 'sesame'), 'string')
    t.end()
  },
)
