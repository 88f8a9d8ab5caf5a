/** `sodium-native` is used where it is there, and nobody notices where it is not. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import t from 'tap'
import { backendProblem } from '../../lib/crypto/aead-proof.ts'
import { sodiumAead, type Sodium } from '../../lib/node/sodium-aead.ts'
import { parsePolicy } from '../../lib/policy/options.ts'
import { formatProposal } from '../../lib/policy/proposal.ts'
import { differences } from '../harness/against-openssl.ts'
import { packageUrl } from '../harness/package.ts'

// By another name, so that what else is tested here runs without it.
const ALIAS = 'sodium-for-tests'
const sodium = sodiumAead(createRequire(import.meta.url)(ALIAS) as Sodium)

t.test('it gives the known answers', t => {
  t.equal(backendProblem('chacha20poly1305', sodium), undefined)
  t.end()
})

t.test('it agrees with OpenSSL on packets of any length, and on forgeries of them', t => {
  t.strictSame(differences('chacha20poly1305', sodium, 400), [])
  t.end()
})

t.test('where it is, ChaCha20-Poly1305 goes first; what a program says goes before that', t => {
  const first = (options: Record<string, unknown>, found = { chacha20poly1305: sodium }): string =>
    formatProposal(parsePolicy(options, () => found).espOfSmall[0]!).replace(/-.*/, '')
  t.equal(first({}), 'chacha20poly1305')
  t.equal(first({ crypto: 'node' }), 'aes256gcm16')
  t.equal(first({ esp: 'aes128gcm16' }), 'aes128gcm16')
  t.equal(first({ aead: { chacha20poly1305: sodium } }, {} as never), 'chacha20poly1305')
  t.equal(first({}, {} as never), 'aes256gcm16')
  const proposals = (found: object) =>
    parsePolicy({}, () => found)
      .espOfSmall.map(proposal => formatProposal(proposal))
      .sort()
  t.strictSame(
    proposals({ chacha20poly1305: sodium }),
    proposals({}),
    'all are offered all the same',
  )
  t.end()
})

const PROGRAM = `
import { once } from 'node:events'
const { createSecureServer, createSecureSocket } = await import(process.argv[1])
const options = { psk: 'a pre-shared key of a test', ...JSON.parse(process.argv[2]) }
const ofServer = JSON.parse(process.argv[3] ?? '{}')
const server = createSecureServer({ ...options, ...ofServer, ikePort: 0 }, socket => socket.pipe(socket))
server.listen(0, '127.0.0.1')
await once(server, 'listening')
const { port } = server.address()
const socket = createSecureSocket({ ...options, host: '127.0.0.1', port, ikePort: server.ikePort })
const sent = Buffer.alloc(200_000, 'an octet for each')
socket.end(sent)
const got = []
let info
for await (const chunk of socket) {
  info ??= socket.session.info.children[0]
  got.push(chunk)
}
console.log(info.suite, info.backend, Buffer.concat(got).equals(sent))
server.close()
`

/** What a program finds when its packages lie in that folder. */
const run = (packages: string, both: object, ofServer = {}): { stdout: string; stderr: string } => {
  const { stdout, stderr } = spawnSync(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      PROGRAM,
      packageUrl('index'),
      JSON.stringify(both),
      JSON.stringify(ofServer),
    ],
    { encoding: 'utf8', env: { ...process.env, NODE_PATH: packages, NODE_OPTIONS: '' } },
  )
  return { stdout: stdout.trim(), stderr }
}

t.test('it is found, or not, or is of no use', t => {
  const folder = t.testdir({ none: {}, there: {}, broken: {}, wrong: {} })
  const at = (name: string): string => join(folder, name)
  symlinkSync(join(process.cwd(), 'node_modules', ALIAS), join(at('there'), 'sodium-native'))
  const fake = (name: string, text: string): void => {
    const made = join(at(name), 'sodium-native')
    mkdirSync(made)
    writeFileSync(join(made, 'index.js'), text)
  }
  fake('broken', 'throw new Error("no binary for this system")')
  fake('wrong', 'exports.crypto_aead_chacha20poly1305_ietf_encrypt = () => 0')

  const small = { mtu: 1400 }
  t.match(run(at('there'), small).stdout, /^ChaCha20-Poly1305 with ESN sodium-native true$/)
  t.match(
    run(at('there'), {}).stdout,
    /^AES-GCM-16-256 with ESN node:crypto true$/,
    'not for the large packets of the loopback',
  )
  for (const name of ['none', 'broken', 'wrong']) {
    const { stdout, stderr } = run(at(name), small)
    t.match(stdout, /^AES-GCM-16-256 with ESN node:crypto true$/, name)
    t.equal(stderr, '', `${name}: silently`)
  }
  t.match(
    run(at('there'), small, { crypto: 'node' }).stdout,
    /^AES-GCM-16-256 with ESN node:crypto true$/,
    'a server without it chooses by its own order',
  )
  t.end()
})
