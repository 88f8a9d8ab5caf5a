/** Credentials that are replaced while servers run: several keys at once, and files that change. */
import { once } from 'node:events'
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  createEndpoint,
  createSecureContext,
  createSecureServer,
  createSecureSocket,
  type SecureEndpoint,
  type SecureServer,
  type SecureSocketOptions,
} from '../../lib/index.ts'
import { authority, crlOf, endEntity } from '../harness/certificates.ts'
import { refusedOption } from '../harness/refused-option.ts'

const host = '127.0.0.1'
const OLD = 'the old pre-shared key of these tests'
const FRESH = 'the new pre-shared key of these tests'
type Psk = SecureSocketOptions['psk']

const started = async (options: object): Promise<SecureServer> => {
  const server = createSecureServer({ ikePort: 0, ...options }, socket => socket.end('in'))
  server.listen(0, host)
  await once(server, 'listening')
  return server
}
const closed = (end: SecureServer | SecureEndpoint): Promise<unknown> =>
  new Promise(resolve => void end.close(resolve))
let clients = 0
/** Each dials with an SA of its own. */
const dial = async (server: SecureServer, psk: Psk, localId?: string): Promise<string> => {
  const socket = createSecureSocket({
    host,
    port: server.address()!.port,
    ikePort: server.ikePort!,
    psk,
    localId: localId ?? `c${clients++}.test`,
  })
  try {
    return String((await once(socket, 'data'))[0])
  } catch (error) {
    return (error as NodeJS.ErrnoException).code!
  } finally {
    socket.destroy()
  }
}

t.test('a server with two keys knows clients with either, and answers with the same', async t => {
  const server = await started({ psk: [FRESH, OLD] })
  const refusals: string[] = []
  server.on('ikeClientError', error => refusals.push(error.message))
  t.equal(await dial(server, OLD), 'in')
  t.equal(await dial(server, FRESH), 'in')
  t.equal(await dial(server, [FRESH, OLD]), 'in', 'a client uses its first')
  t.strictSame(refusals, [])
  t.equal(await dial(server, 'a key that nobody has given to us'), 'AUTHENTICATION_FAILED')
  t.strictSame(server.setCredentials({ psk: [FRESH] }), ['psk'])
  t.strictSame(server.setCredentials({ psk: [FRESH] }), [])
  t.equal(await dial(server, OLD), 'AUTHENTICATION_FAILED')
  t.equal(await dial(server, FRESH), 'in')
  await closed(server)
})

t.test('a client with several keys tries the next one when the peer refuses one', async t => {
  const server = await started({ psk: OLD })
  const refusals: Error[] = []
  server.on('ikeClientError', error => refusals.push(error))
  t.equal(await dial(server, [FRESH, 'yet another key of these tests', OLD]), 'in')
  t.equal(refusals.length, 2)
  t.equal(await dial(server, { '*': [FRESH, OLD] }), 'in', 'those of a table')
  t.equal(await dial(server, () => [FRESH, OLD]), 'in', 'those of a function')
  const options = {
    host,
    port: server.address()!.port,
    ikePort: server.ikePort!,
    localId: 'x.test',
  }
  const wrong = createSecureSocket({ ...options, psk: [FRESH, `${FRESH}!`] })
  const [error] = (await once(wrong, 'error')) as [NodeJS.ErrnoException]
  t.equal(error.code, 'AUTHENTICATION_FAILED')
  t.match(error.message, /pre-shared key 2 of 2/, 'each of them once')
  t.equal(refusals.length, 6)
  await closed(server)
})

t.test('the key that was taken is the first one of the next session', async t => {
  const server = await started({ psk: OLD })
  const endpoint = createEndpoint({ psk: [FRESH, OLD], ikePort: 0, host })
  await once(endpoint, 'listening')
  const refusals: Error[] = []
  server.on('ikeClientError', error => refusals.push(error))
  const connect = async (): Promise<void> => {
    const { port } = server.address()!
    const socket = endpoint.connect({ host, port, ikePort: server.ikePort! })
    t.equal(String((await once(socket, 'data'))[0]), 'in')
    await once(socket, 'close')
  }
  await connect()
  t.equal(refusals.length, 1)
  const gone = once(endpoint, 'sessionEnd')
  endpoint.sessions[0]!.close()
  await gone
  await connect()
  t.equal(refusals.length, 1)
  // The server has the new one alone: the old one makes way, and the next one is the first.
  server.setCredentials({ psk: FRESH })
  const again = once(endpoint, 'sessionEnd')
  endpoint.sessions[0]!.close()
  await again
  await connect()
  t.equal(refusals.length, 2)
  await Promise.all([closed(server), closed(endpoint)])
})

t.test('a context reads its files again, and so does whoever has it', async t => {
  const folder = t.testdir({ key: OLD, good: FRESH })
  const file = join(folder, 'key')
  const secureContext = createSecureContext({ psk: { file }, watch: true })
  const server = await started({ secureContext })
  const endpoint = createEndpoint({ secureContext, host, ikePort: 0 })
  await once(endpoint, 'listening')
  t.equal(await dial(server, OLD), 'in')
  const ends = [secureContext, server, endpoint]
  const changes = ends.map(end => once(end as SecureServer, 'credentials'))
  renameSync(join(folder, 'good'), file)
  t.strictSame(await Promise.all(changes), Array(3).fill([['psk']]))
  t.equal(await dial(server, FRESH), 'in')
  t.equal(await dial(server, OLD), 'AUTHENTICATION_FAILED')
  const { port } = server.address()!
  const socket = createSecureSocket({ host, port, ikePort: server.ikePort!, secureContext })
  t.equal(String((await once(socket, 'data'))[0]), 'in', 'new sockets have what is new')
  const warned = once(process, 'warning')
  writeFileSync(file, '')
  t.match(await warned, [{ code: 'IKE_CREDENTIAL_FILES' }])
  t.equal(await dial(server, FRESH), 'in', 'what cannot be used changes nothing')
  const other = createSecureContext({ psk: OLD })
  t.strictSame(server.setCredentials({ secureContext: other }), ['psk'])
  const back = once(endpoint, 'credentials')
  writeFileSync(file, `${OLD}!`)
  t.strictSame(await back, [['psk']])
  t.equal(await dial(server, OLD), 'in', 'who has another context does not hear of the first')
  secureContext.close()
  await Promise.all([closed(server), closed(endpoint)])
  t.equal(
    refusedOption(() => createSecureContext({ psk: OLD, watch: 'x' as never })),
    'watch',
  )
})

t.test('in a table, and of a function, keys may be several too', async t => {
  const table = await started({ psk: { 'a.test': [FRESH, OLD], '*': 'a key for all the others!' } })
  t.equal(await dial(table, OLD, 'a.test'), 'in')
  t.equal(await dial(table, FRESH, 'a.test'), 'in')
  t.equal(await dial(table, OLD, 'b.test'), 'AUTHENTICATION_FAILED')
  await closed(table)
  const answers: Readonly<Record<string, unknown>> = {
    'good.test': [FRESH, OLD],
    'none.test': [],
    'number.test': [FRESH, 1],
    'empty.test': [FRESH, ''],
    'many.test': Array<string>(9).fill(FRESH),
  }
  const asked = await started({ psk: async (id: string) => answers[id] })
  t.equal(await dial(asked, OLD, 'good.test'), 'in')
  const wrong = Object.keys(answers).slice(1)
  const said = await Promise.all(wrong.map(id => dial(asked, FRESH, id)))
  t.strictSame(said, Array(4).fill('AUTHENTICATION_FAILED'))
  await closed(asked)
})

t.test('files are read, and read again when they change', async t => {
  const folder = t.testdir({ key: OLD })
  const file = join(folder, 'key')
  const server = await started({ psk: { file }, watch: true })
  const endpoint = createEndpoint({ psk: [{ file }], watch: true, host, ikePort: 0 })
  await once(endpoint, 'listening')
  t.equal(await dial(server, OLD), 'in')
  const changes = [once(server, 'credentials'), once(endpoint, 'credentials')]
  // As careful programs do: the whole file in one step.
  writeFileSync(`${file}.new`, FRESH)
  renameSync(`${file}.new`, file)
  t.strictSame(await Promise.all(changes), [[['psk']], [['psk']]])
  t.equal(await dial(server, FRESH), 'in')
  t.equal(await dial(server, OLD), 'AUTHENTICATION_FAILED')
  const warnings: Error[] = []
  const note = (warning: Error): void => void warnings.push(warning)
  process.on('warning', note)
  const warned = once(process, 'warning')
  writeFileSync(file, '')
  await warned
  rmSync(file)
  await new Promise(resolve => setTimeout(resolve, 200))
  t.equal(await dial(server, FRESH), 'in', 'what cannot be used changes nothing')
  const back = once(server, 'credentials')
  writeFileSync(file, OLD)
  await back
  t.equal(await dial(server, OLD), 'in')
  process.removeListener('warning', note)
  t.strictSame(
    warnings.map(warning => (warning as NodeJS.ErrnoException).code),
    ['IKE_CREDENTIAL_FILES', 'IKE_CREDENTIAL_FILES'],
    'one of each of the two ends',
  )
  await Promise.all([closed(server), closed(endpoint)])
  writeFileSync(file, FRESH)
  await new Promise(resolve => setTimeout(resolve, 200))
})

t.test('a folder whose link is moved to another one, as orchestrators do, is noticed', async t => {
  const folder = t.testdir({ one: { key: OLD }, two: { key: FRESH }, mount: {} })
  const mount = join(folder, 'mount')
  mkdirSync(mount, { recursive: true })
  symlinkSync(join(folder, 'one'), join(mount, 'data'))
  symlinkSync(join('data', 'key'), join(mount, 'key'))
  const server = await started({ psk: { file: join(mount, 'key') }, watch: true })
  t.equal(await dial(server, OLD), 'in')
  const change = once(server, 'credentials')
  symlinkSync(join(folder, 'two'), join(mount, 'new'))
  renameSync(join(mount, 'new'), join(mount, 'data'))
  await change
  t.equal(await dial(server, FRESH), 'in')
  await closed(server)
})

t.test('a link whose target is written in another folder is noticed', async t => {
  const folder = t.testdir({ archive: { key: OLD }, live: {} })
  const file = join(folder, 'live/key')
  mkdirSync(join(folder, 'live'), { recursive: true })
  symlinkSync(join('..', 'archive', 'key'), file)
  const server = await started({ psk: { file }, watch: true })
  const change = once(server, 'credentials')
  writeFileSync(join(folder, 'archive/key'), FRESH)
  t.strictSame(await change, [['psk']])
  await closed(server)
})

t.test('a folder that is removed and made again is noticed, and watched from then on', async t => {
  const folder = t.testdir({ keys: { key: OLD } })
  const file = join(folder, 'keys/key')
  const server = await started({ psk: { file }, watch: true })
  const warned = once(process, 'warning')
  rmSync(join(folder, 'keys'), { recursive: true })
  t.match(await warned, [{ code: 'IKE_CREDENTIAL_FILES' }])
  t.equal(await dial(server, OLD), 'in')
  const change = once(server, 'credentials')
  mkdirSync(join(folder, 'keys'))
  writeFileSync(file, FRESH)
  t.strictSame(await change, [['psk']])
  const again = once(server, 'credentials')
  writeFileSync(file, OLD)
  t.strictSame(await again, [['psk']])
  await closed(server)
})

t.test('whatever a file of certificates turns into, what it held stays in use', async t => {
  const ca = authority('CN=watched', 'P-256')
  const { pem, keyPem } = endEntity('server.test', 'P-256', ca)
  const good = { ca: ca.pem, cert: pem, key: keyPem, crl: crlOf(ca) }
  const folder = t.testdir(good)
  const files = Object.fromEntries(
    Object.keys(good).map(name => [name, { file: join(folder, name) }]),
  )
  const server = await started({ ...files, localId: 'server.test', watch: true })
  const client = endEntity('client.test', 'P-256', ca)
  let dialled = 0
  const isReached = async (): Promise<boolean> => {
    const socket = createSecureSocket({
      host,
      port: server.address()!.port,
      ikePort: server.ikePort!,
      remoteId: 'server.test',
      ca: ca.pem,
      cert: client.pem,
      key: client.keyPem,
      // Each dials with an SA of its own.
      ikeLifetime: 10_000 + dialled++,
    })
    const [data] = (await once(socket, 'data')) as [Buffer]
    socket.destroy()
    return String(data) === 'in'
  }
  const warnings: string[] = []
  const note = (warning: NodeJS.ErrnoException): void => void warnings.push(warning.code!)
  process.on('warning', note)
  const settled = (): Promise<void> => new Promise(resolve => setTimeout(resolve, 300))
  for (const [name, content] of Object.entries(good)) {
    const file = join(folder, name)
    const steps: Record<string, () => void> = {
      garbage: () => writeFileSync(file, 'no credential'),
      'other garbage': () => writeFileSync(file, Buffer.alloc(200)),
      half: () => writeFileSync(file, content.slice(0, content.length >> 1)),
      nothing: () => writeFileSync(file, ''),
      'no file': () => rmSync(file),
    }
    const before = warnings.length
    for (const [what, step] of Object.entries(steps)) {
      const warned = what === 'garbage' ? once(process, 'warning') : settled()
      step()
      await warned
      t.equal(await isReached(), true, `${name}: ${what}`)
    }
    t.equal(warnings.length - before, 1, `${name}: one warning`)
    writeFileSync(`${file}.new`, content)
    renameSync(`${file}.new`, file)
    await settled()
    t.equal(await isReached(), true, `${name}: as before`)
  }
  // What is right again is used: of another authority nobody comes in.
  const change = once(server, 'credentials')
  writeFileSync(join(folder, 'ca'), authority('CN=other', 'P-256').pem)
  t.strictSame(await change, [['ca']])
  process.removeListener('warning', note)
  t.strictSame([...new Set(warnings)], ['IKE_CREDENTIAL_FILES'])
  await closed(server)
})

t.test('a file that is not there, or no path, is refused at once', t => {
  const refused = (options: object): unknown => refusedOption(() => createSecureServer(options))
  t.equal(refused({ psk: { file: '/nonexistent/key' } }), 'psk')
  t.equal(refused({ psk: { file: 1 } }), 'psk.file')
  t.equal(refused({ psk: { file: '' } }), 'psk.file')
  t.equal(refused({ psk: { 'a.test': { file: '/nonexistent/key' } } }), "psk['a.test']")
  t.equal(refused({ ca: [{ file: '/nonexistent/key' }] }), 'ca[0]')
  t.equal(refused({ psk: OLD, watch: 1 }), 'watch')
  t.end()
})
