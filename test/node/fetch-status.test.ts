/** Fetching lists and OCSP answers: what may be asked, how much of it, and what is remembered. */
import { lookup } from 'node:dns'
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { BlockList, isIP, type AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { nextUpdateOf } from '../../lib/identity/trust.ts'
import { fetchStatus, mayReach, type Surroundings } from '../../lib/node/fetch-status.ts'
import { isMalformed, parseCertificate } from '../../lib/identity/certificate.ts'
import type { CertificateFacts } from '../../lib/identity/certificate-builder.ts'
import { createSecureServer, createSecureSocket } from '../../lib/index.ts'
import { authority, crlOf, endEntity, type Credential } from '../harness/certificates.ts'
import { crlDistributionPoint, encodeCrl, encodeOcspResponse, makeRoot } from '../harness/x509.ts'

const DAY = 24 * 3600 * 1000

const serve = async (t: Test, listener: RequestListener): Promise<string> => {
  const web = createServer(listener)
  web.listen(0, '127.0.0.1')
  await once(web, 'listening')
  t.teardown(() => {
    web.closeAllConnections()
    web.close()
  })
  return `http://127.0.0.1:${(web.address() as AddressInfo).port}`
}

/** As it is, but for the time that silence takes. */
const QUICK: Surroundings = { lookup, timeout: 300, longest: 600, headStart: 20 }

const fetchLists = (
  urls: readonly string[],
  allowed = ['127.0.0.1'],
  surroundings = QUICK,
): Promise<number> =>
  fetchStatus([{ kind: 'crl', urls }], { allowed, nextUpdate: nextUpdateOf }, surroundings).then(
    ({ crls }) => crls[0]?.length ?? 0,
  )

/** A name server that answers differently each time; how often it was asked. */
const rebinding = (...answers: readonly string[][]): { asked: number; lookup: typeof lookup } => {
  const server = {
    asked: 0,
    lookup: ((_host: string, _options: object, callback: Resolved) => {
      const addresses = answers[Math.min(server.asked++, answers.length - 1)]!
      callback(
        null,
        addresses.map(address => ({ address, family: isIP(address) })),
      )
    }) as typeof lookup,
  }
  return server
}
type Resolved = (error: null, addresses: { address: string; family: number }[]) => void

t.test('only public addresses are asked, in whatever form they are written', t => {
  const none = new BlockList()
  for (const address of [
    ...['0.0.0.0', '10.1.2.3', '100.64.0.1', '127.0.0.1', '127.9.9.9', '169.254.169.254'],
    ...[
      '172.16.0.1',
      '172.31.255.255',
      '192.168.1.1',
      '198.18.0.1',
      '224.0.0.1',
      '255.255.255.255',
    ],
    ...['::', '::1', 'fe80::1', 'fe80::1%lo', 'fec0::1', 'fc00::1', 'fd12::1', 'ff02::1'],
    ...['::ffff:127.0.0.1', '::ffff:a00:1', '::127.0.0.1', '64:ff9b::7f00:1', '64:ff9b::10.0.0.1'],
    ...['64:ff9b:1::1', '2002:7f00:1::', '2002:c0a8:101::1', '2001::1'],
  ]) {
    t.notOk(mayReach(address, none), address)
  }
  for (const address of [
    ...['1.1.1.1', '172.15.0.1', '172.32.0.1', '192.167.1.1', '9.255.255.255', '11.0.0.0'],
    ...['2606:4700::1111', '2a00::1', '::ffff:1.1.1.1', '64:ff9b::1.1.1.1', '2002:101:101::'],
  ]) {
    t.ok(mayReach(address, none), address)
  }
  const listed = new BlockList()
  listed.addSubnet('10.0.0.0', 8, 'ipv4')
  t.ok(mayReach('10.9.9.9', listed))
  t.ok(mayReach('::ffff:10.9.9.9', listed))
  t.notOk(mayReach('127.0.0.1', listed))
  t.end()
})

t.test('an address that is not listed is never connected to, by address or by name', async t => {
  let asked = 0
  const base = await serve(t, (_request, response) => {
    asked++
    response.end('x')
  })
  const { port } = new URL(base)
  for (const host of ['127.0.0.1', '0x7f.1', '2130706433', 'localhost', '[::ffff:127.0.0.1]'])
    t.equal(await fetchLists([`http://${host}:${port}/`], []), 0, host)
  t.equal(asked, 0)
  t.equal(await fetchLists([`http://localhost:${port}/`]), 1, 'listed, by name')
  t.equal(asked, 1)
})

t.test('redirections, other answers and too much are nothing', async t => {
  const base = await serve(t, (request, response) => {
    if (request.url === '/moved') response.writeHead(302, { location: '/good' }).end('x')
    else if (request.url === '/missing') response.writeHead(404).end('x')
    else if (request.url === '/cut')
      response.writeHead(200, { 'content-length': 9 }).write('x', () => response.destroy())
    else if (request.url === '/large') {
      const chunk = Buffer.alloc(1 << 20)
      const more = (): void => {
        while (!response.destroyed && response.write(chunk));
        if (!response.destroyed) response.once('drain', more)
      }
      more()
    } else response.end('good')
  })
  for (const path of ['moved', 'missing', 'cut', 'large'])
    t.equal(await fetchLists([`${base}/${path}`]), 0, path)
  t.equal(await fetchLists(['file:///etc/hosts', 'http://', `${base}/good`]), 4, 'the next one')
})

t.test('four addresses per certificate, side by side; the first answer ends it', async t => {
  let asked = 0
  const base = await serve(t, (request, response) => {
    asked++
    if (request.url === '/3') response.end('good')
  })
  const urls = Array.from({ length: 12 }, (_, i) => `${base}/${i}`)
  const patient = { ...QUICK, timeout: 60_000, longest: 60_000 }
  t.equal(await fetchLists(urls, undefined, patient), 4, 'none of the silent ones is waited for')
  t.equal(asked, 4)
  const silent = urls.filter(url => !url.endsWith('/3'))
  t.equal(await fetchLists(silent), 0)
  t.equal(asked, 8)
  const hurried = { ...QUICK, timeout: 60_000, longest: 100, headStart: 0 }
  t.equal(await fetchLists(silent, undefined, hurried), 0, 'all together have one limit')
})

t.test('a name that is rebound: the address that was checked is the one that is asked', async t => {
  let asked = 0
  const base = await serve(t, (_request, response) => {
    asked++
    response.end('x')
  })
  const url = `http://rebound.test:${new URL(base).port}/`
  // An address for documentation (RFC 5737): public by our rules, and nobody there.
  const first = rebinding(['192.0.2.77'], ['127.0.0.1'])
  t.equal(await fetchLists([url], [], { ...QUICK, lookup: first.lookup }), 0)
  t.equal(first.asked, 1, 'it is looked up once')
  const mixed = rebinding(['127.0.0.1', '192.0.2.77', '::1'])
  t.equal(await fetchLists([url], [], { ...QUICK, lookup: mixed.lookup }), 0)
  t.equal(asked, 0, 'neither the later answer nor the one beside is connected to')
  const back = rebinding(['127.0.0.1'], ['192.0.2.77'])
  t.equal(await fetchLists([url], ['127.0.0.1'], { ...QUICK, lookup: back.lookup }), 1)
  t.equal(asked, 1)
})

t.test('answers are remembered until their next update', async t => {
  const root = makeRoot()
  const leaf = root.issue('CN=x', [])
  const now = Date.now()
  const times = { thisUpdate: now - DAY, producedAt: now - DAY }
  const answers: Readonly<Record<string, Uint8Array>> = {
    '/fresh': encodeCrl(root, { thisUpdate: now - DAY, nextUpdate: now + DAY }),
    '/stale': encodeCrl(root, { thisUpdate: now - DAY, nextUpdate: now - 1000 }),
    '/open': encodeCrl(root, { thisUpdate: now - DAY, nextUpdate: undefined }),
    '/ocsp': encodeOcspResponse(leaf.certificate, root, { ...times, nextUpdate: now + DAY }),
    '/junk': new Uint8Array(100),
  }
  const counts = new Map<string, number>()
  const base = await serve(t, (request, response) => {
    const url = request.url ?? ''
    counts.set(url, (counts.get(url) ?? 0) + 1)
    response.end(new Map(Object.entries(answers)).get(url))
  })
  for (let i = 0; i < 3; i++) {
    for (const path of ['fresh', 'stale', 'open', 'junk'])
      t.ok(await fetchLists([`${base}/${path}`]))
    for (const request of [Uint8Array.of(1), Uint8Array.of(2)]) {
      const wanted = [{ kind: 'ocsp', urls: [`${base}/ocsp`], request }] as const
      const options = { allowed: ['127.0.0.0/8'], nextUpdate: nextUpdateOf }
      t.equal((await fetchStatus(wanted, options, QUICK)).ocsp.length, 1)
    }
  }
  t.strictSame(Object.fromEntries(counts), {
    '/fresh': 1,
    '/stale': 3,
    '/open': 3,
    '/junk': 3,
    '/ocsp': 2,
  })
})

const derOf = (pem: string): Buffer => Buffer.from(pem.replace(/-----.*?-----/g, ''), 'base64')

const serialOf = ({ der }: Credential): Uint8Array => {
  const read = parseCertificate(der)
  if (isMalformed(read)) throw new Error(read.problem)
  return read.serial
}

t.test(
  'within a handshake: the server asks where the certificate says, and believes what is signed',
  async t => {
    const root = authority('O=Test, CN=Root', 'P-256')
    let list = derOf(crlOf(root))
    let asked = 0
    const base = await serve(t, (_request, response) => {
      asked++
      response.end(list)
    })
    const at = (path: string): Partial<CertificateFacts> => ({
      extensions: [crlDistributionPoint([`uri:${base}/${path}`])],
    })
    const host = endEntity('server.test', 'P-256', root)
    const connect = async (path: string, allowed: true | readonly string[]): Promise<string> => {
      const client = endEntity('client.test', 'P-256', root, at(path))
      if (path === 'revoked') list = derOf(crlOf(root, [serialOf(client)]))
      const server = createSecureServer(
        {
          cert: host.pem,
          key: host.keyPem,
          ca: root.pem,
          ikePort: 0,
          fetchRevocation: allowed,
          revocation: 'require',
        },
        socket => socket.end(),
      )
      server.listen(0, '127.0.0.1')
      await once(server, 'listening')
      const { port } = server.address()!
      const socket = createSecureSocket({
        ...{ host: '127.0.0.1', port, ikePort: server.ikePort!, reconnect: false },
        ...{
          cert: client.pem,
          key: client.keyPem,
          ca: root.pem,
          remoteId: 'server.test',
          revocation: 'off',
        },
      })
      const outcome = await new Promise<string>(resolve => {
        socket.on('connect', () => resolve('connected'))
        socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
      })
      socket.destroy()
      server.close()
      await once(server, 'close')
      return outcome
    }
    t.equal(await connect('good', ['127.0.0.0/8']), 'connected')
    t.equal(asked, 1)
    t.equal(await connect('revoked', ['127.0.0.0/8']), 'AUTHENTICATION_FAILED')
    t.equal(asked, 2)
    t.equal(
      await connect('private', true),
      'AUTHENTICATION_FAILED',
      'what cannot be asked is not known',
    )
    t.equal(asked, 2, 'no private address is asked')
  },
)
