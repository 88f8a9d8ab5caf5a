/** The life of certificates: added, renewed, revoked, shown, verified; and what is secret stays so. */
import { X509Certificate } from 'node:crypto'
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { keygen } from '../../lib/cli/keygen.ts'
import { createSecureServer, createSecureSocket, type IpsecError } from '../../lib/index.ts'
import { runCommand, type Outcome } from '../harness/command.ts'

const folder = mkdtempSync(join(tmpdir(), 'ike-keys-'))
t.after(() => rmSync(folder, { recursive: true }))
const at = (name: string): string => join(folder, 'keys', name)
const read = (name: string): string => readFileSync(at(name), 'utf8')
const run = (command: string, ...args: string[]): Promise<Outcome> => runCommand([command, ...args])
const inFolder = ['--folder', join(folder, 'keys')]

/** A client with that pair at a server of the folder: what the server sends, or why the client got nothing. */
const talk = async (client: string): Promise<string> => {
  const trust = { ca: read('ca.crt'), crl: read('ca.crl') }
  const own = (name: string) => ({ ...trust, cert: read(`${name}.crt`), key: read(`${name}.key`) })
  const server = createSecureServer({ ...own('server-ecdsa'), ikePort: 0 }, socket =>
    socket.end(socket.peerId),
  )
  const refused: Error[] = []
  server.on('ikeClientError', error => refused.push(error))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = createSecureSocket({
    host: '127.0.0.1',
    port: server.address()!.port,
    ikePort: server.ikePort!,
    ...own(client),
  })
  const got = await Promise.race([
    once(socket, 'data').then(([octets]) => String(octets)),
    once(socket, 'error').then(([error]) => (error as IpsecError).code),
  ]).catch((error: IpsecError) => error.code)
  socket.destroy()
  server.close()
  return refused.length === 0 ? got : `${got}: ${refused[0]!.message}`
}

t.before(async () => {
  await keygen([join(folder, 'keys'), '--type', 'ecdsa', '--days', '40'], Date.now())
})

t.test('add: a certificate of the same authority; a key that is there stays', async t => {
  const added = await run('add', 'reports.test', 'other.test', ...inFolder, '--days', '30')
  t.equal(added.code, 0, added.stderr)
  t.match(added.stdout, /reports\.test-ecdsa\.crt\n.*reports\.test-ecdsa\.key\n/)
  t.equal(statSync(at('reports.test-ecdsa.key')).mode & 0o777, 0o600)
  const ca = new X509Certificate(read('ca.crt'))
  const made = new X509Certificate(read('reports.test-ecdsa.crt'))
  t.ok(made.checkIssued(ca) && made.verify(ca.publicKey))
  t.equal(made.checkHost('other.test'), 'other.test')
  t.equal(await talk('reports.test-ecdsa'), 'reports.test')

  const key = read('reports.test-ecdsa.key')
  const again = await run('add', 'reports.test', ...inFolder)
  t.equal(again.code, 1)
  t.match(again.stderr, /already in .*renew keeps the key, --force replaces it/)
  t.equal(read('reports.test-ecdsa.key'), key)
  t.equal((await run('add', 'reports.test', ...inFolder, '--force')).code, 0)
  t.not(read('reports.test-ecdsa.key'), key)

  const gateway = ['gateway.test', '--role', 'server', '--ip', '192.0.2.1', '--type', 'ed25519']
  t.equal((await run('add', ...gateway, ...inFolder)).code, 0)
  const server = new X509Certificate(read('gateway.test-ed25519.crt'))
  t.equal(server.checkIP('192.0.2.1'), '192.0.2.1')
  t.ok(server.keyUsage.includes('1.3.6.1.5.5.7.3.1'))

  const long = await run('add', 'long.test', ...inFolder, '--days', '36500')
  t.match(long, { code: 1, stderr: /the authority expires before that, in \d+ days/ })
  const none = await run('add', 'x.test', '--folder', folder)
  t.match(none, { code: 1, stderr: /ca\.crt is not there: ike-socket keygen/ })
  for (const args of [
    [],
    ['a b'],
    ['x', '--role', 'boss'],
    ['x', '--type', 'dsa'],
    ['x', '--ip', 'y'],
  ])
    t.equal((await run('add', ...args, ...inFolder)).code, 2, args.join(' '))
})

t.test('renew: new terms and serial numbers; authority, keys and names stay', async t => {
  const before = Object.fromEntries(readdirSync(at('')).map(name => [name, read(name)]))
  const renewed = await run('renew', ...inFolder, '--days', '90')
  t.equal(renewed.code, 0, renewed.stderr)
  for (const name of readdirSync(at('')).filter(name => !name.endsWith('.old'))) {
    const isNew = name.endsWith('.crl') || (name.endsWith('.crt') && name !== 'ca.crt')
    t.equal(read(name) !== before[name], isNew, name)
    if (!isNew || !name.endsWith('.crt')) continue
    const [old, now] = [new X509Certificate(before[name]!), new X509Certificate(read(name))]
    t.equal(now.subjectAltName, old.subjectAltName)
    t.strictSame(now.keyUsage, old.keyUsage)
    t.ok(now.publicKey.equals(old.publicKey))
    t.not(now.serialNumber, old.serialNumber)
    t.not(now.validTo, old.validTo)
    const aside = `${name}.${old.serialNumber.toLowerCase()}.old`
    t.ok(new X509Certificate(read(aside)).raw.equals(old.raw), 'what is still good can be revoked')
  }
  t.equal(await talk('client-ecdsa'), 'client')
  const ofAuthority = await run('renew', at('ca.crt'), ...inFolder)
  t.match(ofAuthority, { code: 1, stderr: /renew keeps the authority/ })
})

t.test('revoke: the list has it, servers refuse it, and renew does not bring it back', async t => {
  const before = readdirSync(at('')).find(name => /^client-ecdsa\.crt\..*\.old$/.test(name))!
  writeFileSync(at('thief.crt'), read(before))
  writeFileSync(at('thief.key'), read('client-ecdsa.key'))
  t.equal(await talk('thief'), 'client', 'a certificate that was renewed is good until its end')
  const revoked = await run('revoke', at('client-ecdsa.crt'), ...inFolder)
  t.equal(revoked.code, 0, revoked.stderr)
  const serialOf = (name: string): string =>
    new X509Certificate(read(name)).serialNumber.toLowerCase()
  const serial = serialOf('client-ecdsa.crt')
  t.match(revoked.stdout, `revoked: ${serial}`)
  t.match(await talk('thief'), /AUTHENTICATION_FAILED: .*revoked by its issuer/)
  for (const name of ['thief.crt', 'thief.key']) rmSync(at(name))
  t.match(await talk('client-ecdsa'), /AUTHENTICATION_FAILED: .*revoked by its issuer/)
  t.equal(await talk('reports.test-ecdsa'), 'reports.test', 'others go on')
  const other = '5f2c9a0e3b6d41788c1de02a9b74f361'
  t.equal((await run('revoke', other, at('client-ecdsa.crt'), ...inFolder)).code, 0)
  const [list] = JSON.parse((await run('show', at('ca.crl'), '--json')).stdout) as {
    revoked: string[]
    number: number
  }[]
  t.strictSame(
    list!.revoked.map(text => text.split(' ')[0]),
    [serial, serialOf(before), other],
    'each once',
  )
  t.equal(list!.number, 4)
  const old = read('client-ecdsa.crt')
  t.equal((await run('renew', ...inFolder)).code, 0)
  t.equal(read('client-ecdsa.crt'), old)
  t.match(await run('renew', at('client-ecdsa.crt'), ...inFolder), {
    code: 1,
    stderr: /was revoked/,
  })
  t.equal((await run('revoke', 'xyz', ...inFolder)).code, 1)
  t.equal((await run('revoke', ...inFolder)).code, 2)
})

t.test('--json: what was made, as one object', async t => {
  const own = join(folder, 'json')
  const facts = async (...args: string[]): Promise<unknown> => {
    const { code, stdout, stderr } = await runCommand([...args, '--json'])
    t.equal(code, 0, stderr)
    return JSON.parse(stdout)
  }
  const made = await facts('keygen', own, '--type', 'ecdsa')
  t.strictSame(
    new Set((made as { files: string[] }).files),
    new Set(readdirSync(own).map(name => join(own, name))),
  )
  const [certificate, key] = ['new.test-ecdsa.crt', 'new.test-ecdsa.key'].map(n => join(own, n))
  t.strictSame(await facts('add', 'new.test', '--folder', own), { files: [certificate, key] })
  const renewed = await facts('renew', certificate!, '--folder', own)
  const shown = new X509Certificate(readFileSync(certificate!))
  t.match(renewed, { renewed: [{ file: certificate }], list: join(own, 'ca.crl') })
  const [{ validTo }] = (renewed as { renewed: [{ validTo: string }] }).renewed
  t.ok(Math.abs(Date.parse(validTo) - Date.parse(shown.validTo)) < 1000)
  const serial = '5f2c9a0e3b6d41788c1de02a9b74f361'
  t.strictSame(await facts('revoke', serial, '--folder', own), {
    revoked: [serial],
    list: join(own, 'ca.crl'),
  })
  const refused = await runCommand(['add', 'new.test', '--folder', own, '--json'])
  t.equal(refused.code, 1)
  t.match(JSON.parse(refused.stderr), { error: /already in .*new\.test-ecdsa\.crt/ })
})

t.test('renew: a certificate of another authority is not signed, whoever put it there', async t => {
  const elsewhere = join(folder, 'elsewhere')
  // Of the same name, as anybody can choose it.
  await keygen([elsewhere, '--type', 'ecdsa', '--client', 'admin.test'], Date.now())
  for (const end of ['crt', 'key'])
    writeFileSync(at(`forged.${end}`), readFileSync(join(elsewhere, `client-ecdsa.${end}`)))
  const before = Object.fromEntries(readdirSync(at('')).map(name => [name, read(name)]))
  for (const files of [[at('forged.crt')], []]) {
    const renewed = await run('renew', ...files, ...inFolder)
    t.match(renewed, { code: 1, stderr: /forged\.crt was not issued by this authority/ })
  }
  t.strictSame(Object.fromEntries(readdirSync(at('')).map(name => [name, read(name)])), before)
  for (const end of ['crt', 'key']) rmSync(at(`forged.${end}`))
})

t.test('show tells what is in files, and no secret', async t => {
  const all = await run('show', at(''))
  t.equal(all.code, 0, all.stderr)
  t.match(all.stdout, /gateway\.test-ed25519\.crt\n +kind +certificate\n/)
  t.match(all.stdout, /names +gateway\.test, 192\.0\.2\.1\n/)
  t.match(all.stdout, /purposes +IKE, TLS server\n/)
  t.match(all.stdout, /ca\.key\n +kind +private key\n +key +ec\n/)
  for (const name of readdirSync(at('')).filter(file => file.endsWith('.key')))
    t.notOk(all.stdout.includes(read(name).split('\n')[1]!), name)
  t.match(await run('show', at('psk.txt')), { code: 0, stdout: /neither certificate/ })
  t.equal((await run('show', at('none.crt'))).code, 1)
})

t.test('verify finds what is wrong', async t => {
  const good = await run('verify', at('server-ecdsa.crt'), '--name', 'localhost')
  t.match(good, { code: 0, stdout: /^✓ .*server-ecdsa\.crt\n$/ })
  const fault = async (words: RegExp, ...args: string[]): Promise<void> => {
    const { code, stdout } = await run('verify', ...args)
    t.equal(code, 3)
    t.match(stdout, words)
  }
  await fault(/it was revoked/, at('client-ecdsa.crt'))
  await fault(
    /not for orders\.test, only for localhost/,
    at('server-ecdsa.crt'),
    '--name',
    'orders.test',
  )
  await keygen([join(folder, 'other'), '--type', 'ecdsa'], Date.now() - 5000 * 86_400_000)
  await fault(
    /not issued by O=ike-socket, CN=/,
    at('server-ecdsa.crt'),
    '--ca',
    join(folder, 'other/ca.crt'),
  )
  await fault(
    /it expired at .*: ike-socket renew; the authority expired/,
    join(folder, 'other/server-ecdsa.crt'),
  )
  chmodSync(at('server-ecdsa.key'), 0o644)
  await fault(/server-ecdsa\.key can be read by others: chmod 600/, at('server-ecdsa.crt'))
  const json = await run('verify', at('gateway.test-ed25519.crt'), '--json')
  t.match(JSON.parse(json.stdout), [{ faults: [] }])
})
