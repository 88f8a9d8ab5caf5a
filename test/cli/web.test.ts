/** `status --web`: behind a token, on the loopback, to be read alone; live in a browser. */
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { request, type IncomingHttpHeaders } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { createSecureServer, createSecureSocket, type SecureSocket } from '../../lib/index.ts'
import { runCommand } from '../harness/command.ts'

const folder = mkdtempSync(join(tmpdir(), 'ike-web-'))
t.after(() => rmSync(folder, { recursive: true }))
const psk = 'a key that both of these ends know'
const control = join(folder, 'app.sock')

/** What a page must not take for markup: the other end chose it. */
const EVIL = 'email:<img src=x onerror=alert(1)>@evil.test'

interface Page {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

const get = (url: string, more: object = {}): Promise<Page> =>
  new Promise((resolve, reject) => {
    const asked = request(url, more, response => {
      let text = ''
      response.setEncoding('utf8').on('data', (part: string) => (text += part))
      response.on('end', () =>
        resolve({ status: response.statusCode!, headers: response.headers, text }),
      )
    })
    asked.on('error', reject).end()
  })

const connected = async (port: number, ikePort: number, localId: string): Promise<SecureSocket> => {
  const socket = createSecureSocket({ host: '127.0.0.1', port, ikePort, localId, psk })
  socket.on('error', () => {}).resume()
  await once(socket, 'connect')
  return socket
}

/** Runs `act` with the address of the page. */
const withPage = async (
  act: (url: string, socket: SecureSocket) => Promise<void>,
): Promise<void> => {
  const server = createSecureServer({ psk, ikePort: 0, control }, socket => {
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()!
  const socket = await connected(port, server.ikePort!, 'client.test')
  const evil = await connected(port, server.ikePort!, EVIL)
  let stop = (): void => {}
  let tell: (url: string) => void
  const url = new Promise<string>(resolve => (tell = resolve))
  const ended = runCommand(['status', control, '--web'], {}, child => {
    child.stdout.on('data', (text: string) => tell(text.trim()))
    stop = () => void child.kill('SIGTERM')
  })
  try {
    await act(await url, socket)
  } finally {
    stop()
    await ended
    socket.destroy()
    evil.destroy()
    server.close()
  }
}

t.test('without the token, from another site, or to change something: nothing', async t => {
  await withPage(async url => {
    t.match(url, /^http:\/\/127\.0\.0\.1:\d+\/[\w-]{32}\/$/)
    const { origin } = new URL(url)
    const page = await get(url)
    t.equal(page.status, 200)
    t.match(page.headers['content-security-policy'], /default-src 'none'.*frame-ancestors 'none'/)
    t.match(page.headers, { 'cache-control': 'no-store', 'referrer-policy': 'no-referrer' })
    const status = await get(`${url}status`)
    t.match(JSON.parse(status.text), { pid: process.pid, endpoints: Array })
    t.notOk(status.text.includes(psk))
    for (const wrong of [
      '/',
      '/status',
      `/${'x'.repeat(32)}/status`,
      '//',
      `/${'x'.repeat(5000)}/`,
    ])
      t.equal((await get(`${origin}${wrong}`)).status, 404, wrong.slice(0, 20))
    t.equal((await get(`${url}other`)).status, 404)
    t.equal((await get(`${url}status/x`)).status, 404)
    for (const host of ['evil.test', 'localhost', `evil.test:${new URL(url).port}`])
      t.equal((await get(url, { headers: { host } })).status, 404, host)
    for (const method of ['POST', 'PUT', 'DELETE'])
      t.equal((await get(url, { method })).status, 405)
  })
  t.match(await runCommand(['status', control, '--web']), { code: 1, stderr: /no such socket/ })
})

const CHROMIUM = '/usr/bin/chromium'
const playwright = existsSync(CHROMIUM)
  ? await import('playwright-core').catch(() => undefined)
  : undefined
const suffix = playwright === undefined ? ' (skipped: Chromium or playwright-core is not here)' : ''

t.test(`sessions and rates are live in Chromium${suffix}`, async t => {
  if (playwright === undefined) return
  const browser = await playwright.chromium.launch({
    executablePath: CHROMIUM,
    // Its sandbox needs what a container does not give; it sees our page alone.
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
  })
  t.teardown(() => browser.close())
  await withPage(async (url, socket) => {
    const page = await browser.newPage()
    const faults: string[] = []
    page.on('pageerror', error => faults.push(error.message))
    page.on('console', message => {
      if (message.type() === 'error') faults.push(message.text())
    })
    page.on('dialog', dialog => {
      faults.push('a dialog')
      void dialog.dismiss()
    })
    page.on('request', asked => {
      const place = asked.url()
      if (!place.startsWith(url) && !place.startsWith('data:')) faults.push(place)
    })
    await page.goto(url)
    await page.locator('.peer', { hasText: 'client.test' }).waitFor()
    const sending = setInterval(() => socket.write(Buffer.alloc(20_000)), 50)
    try {
      await page
        .locator('tr', { hasText: 'client.test' })
        .locator('.in-rate', { hasText: /[1-9][\d.]* [kM]B/ })
        .waitFor()
    } finally {
      clearInterval(sending)
    }
    t.equal(await page.locator('svg polyline').count(), await page.locator('.peer').count())
    t.ok((await page.locator('.peer').allTextContents()).some(name => name.includes('<img src=x')))
    t.equal(await page.locator('img').count(), 0, 'text of a peer is no markup')
    t.strictSame(faults, [])
  })
})
