/** OpenSSL by native functions: the same answers as by node:crypto, and never a look beyond the octets it was given. */
import { spawnSync } from 'node:child_process'
import t from 'tap'
import { AEAD_NAMES, type AeadBackend, type AeadName } from '../../lib/base/aead-backend.ts'
import { ffiProblem } from '../../lib/base/ffi.ts'
import { backendProblem } from '../../lib/crypto/aead-proof.ts'
import { makeEvpAeads } from '../../lib/node/evp-aead.ts'
import { nativeAeads } from '../../lib/node/native-aeads.ts'
import { parsePolicy } from '../../lib/policy/options.ts'
import { formatProposal } from '../../lib/policy/proposal.ts'
import { differences } from '../harness/against-openssl.ts'

const problem = ffiProblem()
const skip = problem !== undefined
const suffix = skip ? ` (skipped: it works ${problem})` : ''
const backends = skip ? undefined : makeEvpAeads()
const backendOf = (name: AeadName): AeadBackend => backends![name]

for (const name of AEAD_NAMES) {
  t.test(`${name}: the known answers, and those of node:crypto${suffix}`, { skip }, t => {
    t.equal(backendProblem(name, backendOf(name)), undefined)
    t.strictSame(differences(name, backendOf(name), 400), [])
    t.end()
  })
}

t.test(`what lies beyond the octets is neither read nor written${suffix}`, { skip }, t => {
  const cipher = backendOf('aes128gcm16').create(new Uint8Array(16))
  const [nonce, aad] = [new Uint8Array(12), new Uint8Array(8)]
  const whole = new Uint8Array(100)
  const bytes = whole.subarray(0, 60)
  const wrong = [
    [0, 45],
    [-1, 20],
    [30, 20],
    [0, NaN],
    [NaN, 20],
    [2 ** 32, 2 ** 32 + 8],
  ] as const
  for (const [from, to] of wrong) {
    t.throws(() => cipher.seal(bytes, from, to, nonce, aad), RangeError, `seal ${from} to ${to}`)
    t.equal(cipher.open(bytes, from, to, nonce, aad), undefined, `open ${from} to ${to}`)
  }
  t.throws(() => cipher.seal(bytes, 0, 8, nonce.subarray(1), aad), RangeError)
  t.ok(whole.every(octet => octet === 0))
  cipher.destroy()
  t.throws(() => cipher.seal(bytes, 0, 8, nonce, aad), RangeError, 'nor a context that is freed')
  t.equal(cipher.open(bytes, 0, 8, nonce, aad), undefined)
  cipher.destroy()
  t.throws(() => backendOf('aes128gcm16').create(new Uint8Array(0)), RangeError)
  t.throws(() => backendOf('aes256gcm16').create(new Uint8Array(16)), RangeError)
  t.end()
})

/** Ciphers and packets that are dropped at once, with collections in between. */
const UNDER_COLLECTION = `
const { makeEvpAeads } = await import(new URL('../../lib/node/evp-aead.js', process.argv[1]))
const { NODE_AEADS } = await import(new URL('../../lib/crypto/aead.js', process.argv[1]))
const evp = makeEvpAeads().aes256gcm16
for (let i = 0; i < 3000; i++) {
  const key = new Uint8Array(32).fill(i)
  const nonce = new Uint8Array(12).fill(i)
  const aad = new Uint8Array(12)
  const length = (i * 37) % 3000
  const bytes = new Uint8Array(length + 16).fill(i)
  evp.create(key).seal(bytes, 0, length, nonce, aad)
  if (i % 16 === 0) globalThis.gc()
  const text = NODE_AEADS.aes256gcm16.create(key).open(bytes, 0, length, nonce, aad)
  if (text === undefined || !text.every(octet => octet === (i & 255))) process.exit(1)
  if (i % 100 === 0) await new Promise(setImmediate)
}
`

t.test(`memory stays what it is while the collector runs${suffix}`, { skip }, t => {
  const { status, stderr } = spawnSync(
    process.execPath,
    ['--expose-gc', '--input-type=module', '-e', UNDER_COLLECTION, import.meta.url],
    { encoding: 'utf8', env: { ...process.env, NODE_OPTIONS: '' } },
  )
  t.equal(status, 0, stderr)
  t.end()
})

t.test('it is used when it is asked for', t => {
  const policy = (accelerate: string) => parsePolicy({ accelerate }, nativeAeads)
  t.equal(policy('off').aead.aes256gcm16, undefined)
  const expected = skip ? undefined : 'openssl'
  t.equal(policy('auto').aead.aes256gcm16?.name, expected)
  t.match(formatProposal(policy('auto').esp[0]!), /^aes256gcm16/)
  t.end()
})
