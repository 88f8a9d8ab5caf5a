/** The command line: what keygen writes is right, and it never destroys keys by mistake. */
import { spawnSync } from 'node:child_process'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { keygen } from '../../lib/cli/keygen.ts'
import { createSecureServer, createSecureSocket } from '../../lib/index.ts'

const folder = mkdtempSync(join(tmpdir(), 'ike-keygen-'))
t.after(() => rmSync(folder, { recursive: true }))
const at = (...parts: readonly string[]): string => join(folder, ...parts)
const NOW = Date.now()

const hasOpenssl = spawnSync('openssl', ['version']).status === 0
const opensslSuffix = hasOpenssl ? '' : ' (skipped: there is no openssl here)'

const TYPES = { ed25519: 'ed25519', ecdsa: 'ec', rsa: 'rsa' } as const

t.test('an authority, certificates of all types, a list, a key and how to use them', async t => {
  const all = ['--server', 'a.test,b.test', '--ip', '192.0.2.1,2001:db8::1']
  await keygen([at('all'), ...all, '--client', 'alice@a.test', '--ca-name', 'My CA'], NOW)
  const read = (name: string): string => readFileSync(at('all', name), 'utf8')
  const ca = new X509Certificate(read('ca.crt'))
  t.ok(ca.ca)
  t.match(ca.subject, /CN=My CA/)
  t.ok(ca.verify(ca.publicKey))
  for (const [type, keyType] of Object.entries(TYPES)) {
    for (const who of ['server', 'client']) {
      const certificate = new X509Certificate(read(`${who}-${type}.crt`))
      t.equal(certificate.publicKey.asymmetricKeyType, keyType)
      t.ok(certificate.verify(ca.publicKey), `${who}-${type} is signed`)
      t.ok(certificate.checkIssued(ca))
      t.notOk(certificate.ca)
      t.ok(certificate.checkPrivateKey(createPrivateKey(read(`${who}-${type}.key`))))
      const purpose = who === 'server' ? '1.3.6.1.5.5.7.3.1' : '1.3.6.1.5.5.7.3.2'
      t.strictSame(certificate.keyUsage, ['1.3.6.1.5.5.7.3.17', purpose])
    }
    const server = new X509Certificate(read(`server-${type}.crt`))
    for (const name of ['a.test', 'b.test']) t.equal(server.checkHost(name), name)
    for (const ip of ['192.0.2.1', '2001:db8::1']) t.equal(server.checkIP(ip), ip)
    t.equal(server.checkHost('c.test'), undefined)
    t.equal(
      new X509Certificate(read(`client-${type}.crt`)).checkEmail('alice@a.test'),
      'alice@a.test',
    )
  }
  const bits = new X509Certificate(read('server-rsa.crt')).publicKey.asymmetricKeyDetails
  t.equal(bits?.modulusLength, 3072)
  t.equal(Buffer.from(read('psk.txt'), 'base64url').length, 32)
  t.match(read('psk.txt'), /^[\w-]{43}$/)
  t.match(read('README.txt'), /remoteId: 'a\.test'/)
  t.notMatch(read('README.txt'), read('psk.txt'))
  t.match(read('swanctl-server.conf'), /certs = server-ed25519\.crt\s+id = a\.test/)
  t.match(read('swanctl-client.conf'), /id = alice@a\.test/)
  t.match(read('swanctl-client.conf'), `secret = "${read('psk.txt')}"`)
})

t.test('keys are for their owner alone, no two are the same', async t => {
  const serials = new Set<string>()
  const keys = new Set<string>()
  for (const name of readdirSync(at('all'))) {
    const isSecret = /\.key$|psk|swanctl/.test(name)
    t.equal(
      statSync(at('all', name)).mode & 0o777 & (isSecret ? 0o077 : 0o600),
      isSecret ? 0 : 0o600,
    )
    const text = readFileSync(at('all', name), 'utf8')
    if (name.endsWith('.key')) keys.add(text)
    if (name.endsWith('.crt')) serials.add(new X509Certificate(text).serialNumber)
  }
  t.equal(keys.size, 7)
  t.equal(serials.size, 7)
  for (const serial of serials) t.match(serial, /^[4-7][0-9A-F]{31}$/)
})

t.test(
  `openssl finds certificates and list in order${opensslSuffix}`,
  { skip: !hasOpenssl },
  async t => {
    for (const type of ['ed25519', 'ecdsa', 'rsa']) {
      // RSA keys take seconds to make.
      if (type !== 'rsa') await keygen([at(type), '--type', type], NOW)
      for (const from of type === 'rsa' ? ['all'] : ['all', type]) {
        const run = (...args: readonly string[]) => {
          const { status, stdout, stderr } = spawnSync('openssl', args, { cwd: at(from) })
          return [status, String(stdout) + String(stderr)]
        }
        for (const who of ['server', 'client'] as const) {
          const purpose = who === 'server' ? 'sslserver' : 'sslclient'
          const checks = ['-x509_strict', '-crl_check', '-CRLfile', 'ca.crl', '-CAfile', 'ca.crt']
          const file = `${who}-${type}.crt`
          t.strictSame(run('verify', ...checks, '-purpose', purpose, file), [0, `${file}: OK\n`])
          const other = who === 'server' ? 'sslclient' : 'sslserver'
          t.not(run('verify', ...checks, '-purpose', other, file)[0], 0)
        }
        t.strictSame(run('crl', '-in', 'ca.crl', '-CAfile', 'ca.crt', '-noout'), [0, 'verify OK\n'])
      }
    }
  },
)

t.test('the default is a server on this machine', async t => {
  await keygen([at('default'), '--type', 'ecdsa', '--days', '5'], NOW)
  const server = new X509Certificate(readFileSync(at('default', 'server-ecdsa.crt')))
  t.equal(server.checkHost('localhost'), 'localhost')
  t.equal(server.checkIP('127.0.0.1'), '127.0.0.1')
  t.equal(server.checkIP('::1'), '::1')
  t.equal(Date.parse(server.validTo), Math.floor((NOW + 5 * 86_400_000) / 1000) * 1000)
})

t.test('what README.txt says of our options works, by certificates and by key', async t => {
  const read = (name: string): Buffer => readFileSync(at('all', name))
  const trust = { ca: read('ca.crt'), crl: read('ca.crl') }
  const pair = (name: string) => ({ ...trust, cert: read(`${name}.crt`), key: read(`${name}.key`) })
  const psk = readFileSync(at('all', 'psk.txt'), 'utf8')
  const ways: readonly (readonly [string, object, object])[] = [
    ...Object.keys(TYPES).map(
      type => [type, pair(`server-${type}`), pair(`client-${type}`)] as const,
    ),
    ['psk', { psk }, { psk }],
  ]
  for (const [way, ofServer, ofClient] of ways) {
    const server = createSecureServer({ ...ofServer, localId: 'a.test', ikePort: 0 }, socket =>
      socket.end(socket.peerId),
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as { port: number }
    const own = { ...ofClient, localId: 'alice@a.test', remoteId: 'a.test' }
    const { ikePort } = server
    const socket = createSecureSocket({ host: '127.0.0.1', port, ikePort, ...own })
    const [octets] = (await once(socket, 'data')) as [Buffer]
    t.equal(String(octets), 'alice@a.test', way)
    t.equal(socket.peerId, 'a.test', way)
    socket.destroy()
    server.close()
  }
})

t.test('files that are there stay, unless they are to be overwritten', async t => {
  const args = [at('default'), '--type', 'ecdsa']
  const before = readFileSync(at('default', 'ca.key'), 'utf8')
  await t.rejects(keygen(args, NOW), /ca\.crt, ca\.key.* --force/)
  t.equal(readFileSync(at('default', 'ca.key'), 'utf8'), before)
  // One file in the way is enough, and nothing is written beside it.
  const fresh = mkdtempSync(at('fresh-'))
  writeFileSync(join(fresh, 'psk.txt'), 'mine', { mode: 0o644 })
  await t.rejects(keygen([fresh, '--type', 'ecdsa'], NOW), /psk\.txt/)
  t.strictSame(readdirSync(fresh), ['psk.txt'])
  await keygen([fresh, '--type', 'ecdsa', '--force'], NOW)
  t.not(readFileSync(join(fresh, 'psk.txt'), 'utf8'), 'mine')
  t.equal(statSync(join(fresh, 'psk.txt')).mode & 0o777, 0o600)
})

t.test('what cannot be understood is refused before anything is written', async t => {
  const target = at('never')
  for (const args of [
    ['--type', 'dsa'],
    ['--days', '0'],
    ['--days', '1.5'],
    ['--days', 'many'],
    ['--server', ''],
    ['--server', 'a b'],
    ['--server', 'x,'],
    ['--server', 'CN=x'],
    ['--server', '192.0.2.1'],
    ['--server', `${'x'.repeat(64)}.test`],
    ['--ip', 'host'],
    ['--client', 'a@b@c'],
    ['--client', '@test'],
    ['--client', "x', y"],
    ['--ca-name', 'a, CN=b'],
    ['--ca-name', ''],
    ['--unknown'],
    ['--type'],
    ['second'],
  ]) {
    await t.rejects(keygen([target, ...args], NOW), { name: 'UsageError' }, args.join(' '))
  }
  t.notOk(readdirSync(folder).includes('never'))
})

t.test('the command itself: help, version, exit codes', async t => {
  const run = (...args: readonly string[]) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['dist/cli/main.js', ...args])
    return { status, stdout: String(stdout), stderr: String(stderr) }
  }
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
  t.strictSame(run('--version'), { status: 0, stdout: `${version}\n`, stderr: '' })
  t.match(run('--help'), { status: 0, stdout: /keygen/ })
  t.match(run('keygen', '--help'), { status: 0, stdout: /--ca-name/ })
  t.match(run(), { status: 2, stdout: '', stderr: /a command is missing/ })
  t.match(run('keygne'), { status: 2, stderr: /no command keygne/ })
  t.match(run('keygen', '--type', 'dsa'), { status: 2, stderr: /ed25519, ecdsa, rsa or all/ })
  t.match(run('keygen', at('default'), '--type', 'ecdsa'), { status: 1, stderr: /--force/ })
  t.match(run('keygen', at('run'), '--type', 'ecdsa'), { status: 0, stdout: /files in/ })
  t.ok(readdirSync(at('run')).includes('server-ecdsa.key'))
  t.match(readFileSync('dist/cli/main.js', 'utf8'), /^#!\/usr\/bin\/env node\n/)
})
