/**
 * `ike-socket status --web`: one page on the loopback that shows what `status` shows. Its address holds a token, without
 * which there is nothing; nothing can be changed by it; and whatever peers say of themselves is text there, never markup.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** Looks that are nearer to each other than this share an answer: the process is not asked more often. */
const LEAST_INTERVAL = 250
/** Ours: open connections of browsers. */
const MOST_CONNECTIONS = 16

const STYLE = `
:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif }
body { margin: 1.5rem }
h1 { font-size: 1.2rem; margin: 0 0 .25rem }
table { border-collapse: collapse; margin: .75rem 0 }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent) }
th:first-child, td:first-child { text-align: left }
.up { color: #18864b } .not { color: #b25b00 }
svg { width: 120px; height: 24px; vertical-align: middle }
polyline { fill: none; stroke: currentColor; stroke-width: 1.5 }
#fault { color: #c0392b }
`

/** Runs in the browser. */
const SCRIPT = `
const element = (name, text, parent, kind) => {
  const made = document.createElement(name)
  made.textContent = text
  if (kind) made.className = kind
  parent.append(made)
  return made
}
const octets = value => {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit++ }
  return value.toFixed(unit === 0 ? 0 : 2) + ' ' + units[unit]
}
const age = millis => {
  const seconds = Math.max(0, Math.round(millis / 1000))
  if (seconds < 60) return seconds + ' s'
  if (seconds < 3600) return Math.floor(seconds / 60) + ' min'
  return Math.floor(seconds / 3600) + ' h ' + Math.floor(seconds / 60) % 60 + ' min'
}
const history = new Map()
const line = (parent, key, rate) => {
  const rates = history.get(key) ?? []
  rates.push(rate)
  if (rates.length > 60) rates.shift()
  history.set(key, rates)
  const most = Math.max(1, ...rates)
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  svg.setAttribute('viewBox', '0 0 60 12')
  svg.setAttribute('preserveAspectRatio', 'none')
  const points = document.createElementNS('http://www.w3.org/2000/svg', 'polyline')
  points.setAttribute('points', rates.map((value, at) => at + ',' + (11.5 - 11 * value / most)).join(' '))
  svg.append(points)
  parent.append(svg)
}
const heads = ['peer', 'address', 'state', 'up', 'heard', 'in', 'in/s', 'out', 'out/s', '', 'sockets', 'RTT', 'MTU', 'sent again']
const show = status => {
  const main = document.createElement('div')
  main.id = 'main'
  element('p', 'process ' + status.pid + ', ' + new Date(status.at).toISOString(), main)
  const seen = new Set()
  status.endpoints.forEach(({ udp, counters, sessions }) => {
    const name = udp ? 'UDP ' + udp.address + ' port ' + udp.port : 'no UDP port'
    const drops = Object.entries(counters.drops).filter(([, count]) => count > 0)
    element('div', name + ': datagrams in ' + counters.datagramsIn + ', out ' + counters.datagramsOut +
      (drops.length ? '; dropped: ' + drops.map(([reason, count]) => reason + ' ' + count).join(', ') : ''), main)
    if (sessions.length === 0) return
    const table = element('table', '', main)
    const head = element('tr', '', table)
    for (const text of heads) element('th', text, head)
    for (const session of sessions) {
      const row = element('tr', '', table)
      const { path } = session
      const key = name + ' ' + session.createdAt + ' ' + path.remoteAddress + ' ' + path.remotePort + ' ' + session.remoteIdentity
      seen.add(key)
      element('td', session.remoteIdentity, row, 'peer')
      element('td', path.remoteAddress + ' port ' + path.remotePort, row)
      element('td', session.state, row, session.state === 'established' ? 'up' : 'not')
      element('td', age(status.at - session.createdAt), row)
      element('td', age(status.at - session.lastHeardAt), row)
      element('td', octets(session.octetsIn), row, 'in')
      element('td', octets(session.octetsInPerSecond), row, 'in-rate')
      element('td', octets(session.octetsOut), row)
      element('td', octets(session.octetsOutPerSecond), row, 'out-rate')
      line(element('td', '', row), key, session.octetsInPerSecond + session.octetsOutPerSecond)
      element('td', session.sockets, row)
      element('td', session.roundTrip === undefined ? '' : session.roundTrip.toFixed(1) + ' ms', row)
      element('td', session.mtu, row)
      element('td', session.ikeRetransmissions, row)
    }
  })
  for (const key of history.keys()) if (!seen.has(key)) history.delete(key)
  document.getElementById('main').replaceWith(main)
}
const look = async () => {
  const fault = document.getElementById('fault')
  try {
    const answer = await fetch('status', { cache: 'no-store' })
    const status = await answer.json()
    if (status.error) throw new Error(status.error)
    show(status)
    fault.textContent = ''
  } catch (error) {
    fault.textContent = error.message
  }
  setTimeout(look, 1000)
}
look()
`

const page = (nonce: string): string => `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>ike-socket</title>
<link rel="icon" href="data:,">
<style nonce="${nonce}">${STYLE}</style>
<h1>ike-socket</h1>
<div id="fault" role="alert"></div>
<div id="main"></div>
<script nonce="${nonce}">${SCRIPT}</script>
</html>
`

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()

export interface Web {
  /** With the token. */
  readonly url: string
  readonly server: Server
}

/** `look`: an answer with rates; `port` 0: any. */
export const serveStatus = async (look: () => Promise<object>, port: number): Promise<Web> => {
  const token = randomBytes(24).toString('base64url')
  const wanted = digest(token)
  let latest: { at: number; answer: Promise<object> } | undefined
  const answerOf = (): Promise<object> => {
    const at = performance.now()
    if (latest === undefined || at - latest.at > LEAST_INTERVAL) latest = { at, answer: look() }
    return latest.answer
  }
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const nonce = randomBytes(16).toString('base64')
    response.setHeader(
      'content-security-policy',
      `default-src 'none'; script-src 'nonce-${nonce}'; style-src 'nonce-${nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
    )
    response.setHeader('cache-control', 'no-store')
    response.setHeader('referrer-policy', 'no-referrer')
    response.setHeader('x-content-type-options', 'nosniff')
    response.setHeader('cross-origin-resource-policy', 'same-origin')
    const end = (status: number, type: string, text: string): void => {
      response.writeHead(status, { 'content-type': `${type}; charset=utf-8` })
      response.end(text)
    }
    const [, given = '', what, ...more] = (request.url ?? '').split('/')
    // A name that leads to the loopback is some other site's, which must not read this one.
    const { port: own } = server.address() as AddressInfo
    const isOurs = request.headers.host === `127.0.0.1:${own}`
    if (!isOurs || more.length > 0 || !timingSafeEqual(digest(given), wanted))
      return end(404, 'text/plain', 'There is nothing here.\n')
    if (request.method !== 'GET') return end(405, 'text/plain', 'It can be read alone.\n')
    if (what === '') return end(200, 'text/html', page(nonce))
    if (what !== 'status') return end(404, 'text/plain', 'There is nothing here.\n')
    try {
      end(200, 'application/json', JSON.stringify(await answerOf()))
    } catch (error) {
      const words = error instanceof Error ? error.message : String(error)
      end(502, 'application/json', JSON.stringify({ error: words }))
    }
  }
  const server = createServer((request, response) => void serve(request, response))
  server.maxConnections = MOST_CONNECTIONS
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/${token}/`, server }
}

/** An answer with the rates since the one before. */
export const withMemory = <Look>(
  look: () => Promise<Look>,
  withRates: (before: Look, now: Look) => object,
): (() => Promise<object>) => {
  let before: Look | undefined
  return async () => {
    const now = await look()
    const answer = withRates(before ?? now, now)
    before = now
    return answer
  }
}
