/** Fetching lists and OCSP answers: what may be asked, how much of it, and what is remembered. */
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { BlockList, type AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { nextUpdateOf } from '../../lib/identity/trust.ts'
import { fetchStatus, mayReach } from '../../lib/node/fetch-status.ts'
import { encodeCrl, encodeOcspResponse, makeRoot } from '../harness/x509.ts'

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

const fetchLists = (urls: readonly string[], allowed = ['127.0.0.1']): Promise<number> =>
  fetchStatus([{ kind: 'crl', urls }], { allowed, nextUpdate: nextUpdateOf }).then(
    ({ crls }) => crls[0]?.length ?? 0,
  )

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

t.test('what is not listed is never connected to, by address or by name', async t => {
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
  const started = Date.now()
  t.equal(await fetchLists(urls), 4)
  t.ok(Date.now() - started < 4500, 'none of the silent ones is waited for')
  t.equal(asked, 4)
  t.equal(await fetchLists(urls.filter(url => !url.endsWith('/3'))), 0)
  t.ok(Date.now() - started < 14_000)
  t.equal(asked, 8)
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
      t.equal((await fetchStatus(wanted, options)).ocsp.length, 1)
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
