/** The programs of the guides that hand metrics to prom-client and to OpenTelemetry, with these libraries. */
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { metrics, type Attributes, type ObservableCallback } from '@opentelemetry/api'
import t from 'tap'
import { createSecureSocket, type SecureEndpoint } from '../../lib/index.ts'
import { blocksOf } from './markdown.ts'

const psk = 'sixteen octets or more of a key'
process.env['IKE_PSK'] = psk
const folder = t.testdir({})
const library = pathToFileURL(join(import.meta.dirname, '../../lib/index.js')).href
const blocks = blocksOf('examples/GUIDES.md').filter(({ mark }) => mark === 'metrics')

/** Runs the one that has these words, with others where it names what is taken here. */
const runBlock = async (words: string, ...changes: [string, string][]): Promise<void> => {
  const block = blocks.find(({ text }) => text.includes(words))!
  const text = [["from 'ike-socket'", `from '${library}'`] as [string, string], ...changes].reduce(
    (program, [from, to]) => {
      t.ok(program.includes(from), from)
      return program.replace(from, to)
    },
    block.text,
  )
  const file = join(folder, `${words}.mjs`)
  writeFileSync(file, text)
  await import(pathToFileURL(file).href)
}

const shared = globalThis as unknown as { made: SecureEndpoint; web: http.Server }

interface Observed {
  readonly value: number
  readonly attributes: Attributes | undefined
}

/** What the SDK of a program does: it asks the callbacks. */
const callbacks = new Map<string, ObservableCallback>()
const instrument = (name: string): unknown => ({
  addCallback: (callback: ObservableCallback) => callbacks.set(name, callback),
})
metrics.setGlobalMeterProvider({
  getMeter: () =>
    ({ createObservableGauge: instrument, createObservableCounter: instrument }) as never,
})
const observe = async (name: string): Promise<readonly Observed[]> => {
  const observed: Observed[] = []
  await callbacks.get(name)!({
    observe: (value, attributes) => void observed.push({ value, attributes }),
  })
  return observed
}

t.test(
  'OpenTelemetry observes sessions, octets and drops; prom-client serves the same',
  async t => {
    t.equal(blocks.length, 2)
    await runBlock('opentelemetry', [
      'const endpoint = createEndpoint({',
      "const endpoint = globalThis.made = createEndpoint({ ikePort: 0, host: '127.0.0.1',",
    ])
    const { made } = shared
    if (!made.listening) await once(made, 'listening')
    const server = made.createServer(socket => socket.pipe(socket)).listen(0)
    await once(server, 'listening')
    const socket = createSecureSocket({
      host: '127.0.0.1',
      port: server.address()!.port,
      ikePort: made.ikePort!,
      localId: 'client.test',
      psk,
    })
    socket.write('some octets')
    await once(socket, 'data')
    t.strictSame(await observe('ike.sessions'), [{ value: 1, attributes: undefined }])
    const io = await observe('ike.session.io')
    t.strictSame(
      io.map(({ attributes }) => attributes),
      ['receive', 'transmit'].map(direction => ({
        'ike.peer': 'client.test',
        'network.io.direction': direction,
      })),
    )
    for (const { value } of io) t.ok(value > 11)
    await sendNothing(made.ikePort!)
    const dropped = await observe('ike.dropped')
    t.ok(
      dropped.some(
        ({ value, attributes }) => value > 0 && typeof attributes?.['reason'] === 'string',
      ),
    )

    await runBlock(
      'prom-client',
      ['createServer(async', 'globalThis.web = createServer(async'],
      ['listen(9464', 'listen(0'],
    )
    if (!shared.web.listening) await once(shared.web, 'listening')
    const { port } = shared.web.address() as AddressInfo
    const answer = await fetch(`http://127.0.0.1:${port}/metrics`)
    const text = await answer.text()
    t.match(answer.headers.get('content-type'), /^text\/plain; version=0\.0\.4/)
    t.match(text, /\nprocess_resident_memory_bytes \d+/)
    t.match(text, /\nike_sessions 2\n/)
    for (const line of text.trimEnd().split('\n'))
      t.match(line, /^(#.*|[a-z_]\w*(\{.*\})? [\d.e+-]+|)$|nan$/i)
    socket.destroy()
    server.close()
    shared.web.close()
    shared.web.closeAllConnections()
    made.close()
  },
)

/** A datagram that says nothing, so that one is dropped. */
const sendNothing = async (port: number): Promise<void> => {
  const dgram = await import('node:dgram')
  const socket = dgram.createSocket('udp4')
  socket.send('nothing', port, '127.0.0.1')
  const { made } = shared
  const drops = (): number => Object.keys(made.counters['drops'] as object).length
  while (drops() === 0) await new Promise(resolve => setTimeout(resolve, 10))
  socket.close()
}
