/** What the program around it can lose by: options, printed objects, short keys, the sources, the package. */
import { spawnSync } from 'node:child_process'
import { createSocket, type Socket } from 'node:dgram'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { inspect } from 'node:util'
import t from 'tap'
import {
  createSecureServer,
  createSecureSocket,
  SecureSocket,
  type SecureServer,
} from '../../lib/index.ts'
import { packageUrl } from '../harness/package.ts'
import { initRequest } from '../harness/attacker.ts'

const psk = 'a pre-shared key for these tests'

const listen = async (options: object = {}): Promise<SecureServer> => {
  const server = createSecureServer({ psk, ikePort: 0, ...options }, socket => {
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

const connect = (server: SecureServer, options: object = {}): SecureSocket =>
  createSecureSocket({
    host: '127.0.0.1',
    port: server.address()!.port,
    ikePort: server.ikePort!,
    psk,
    ...options,
  })

const isHeard = async (socket: SecureSocket): Promise<boolean> => {
  socket.end('hello')
  const [data] = (await once(socket, 'data')) as [Buffer]
  await once(socket, 'close')
  return data.toString() === 'hello'
}

t.test('A7: a key that can be found by trying causes one warning', async t => {
  const warnings: (Error & { code?: string })[] = []
  // Node's own have no code.
  const keep = (warning: Error & { code?: string }): void => {
    if (warning.code !== undefined) warnings.push(warning)
  }
  process.on('warning', keep)
  t.teardown(() => process.off('warning', keep))
  const turn = (): Promise<void> => new Promise(setImmediate)
  const make = (key: unknown): unknown => createSecureServer({ psk: key } as { psk: string })
  for (const key of ['sixteen octets..', new Uint8Array(16), () => 'short']) make(key)
  await turn()
  t.strictSame(warnings, [])
  make('fifteen octets.')
  make(new Uint8Array(3))
  await turn()
  t.strictSame(
    warnings.map(({ code }) => code),
    ['IKE_SHORT_PSK'],
  )
  t.match(warnings[0]!.message, /15 octets/)
  t.notMatch(warnings[0]!.message, /fifteen/)
})

t.test('A7: each key of a list or table is looked at, and a line break at its end is told', t => {
  const long = 'a key of more than sixteen octets'
  const rows: [unknown, readonly string[]][] = [
    [[long, 'short'], ['IKE_SHORT_PSK']],
    [['short', long], ['IKE_SHORT_PSK']],
    [{ a: long, b: 'short' }, ['IKE_SHORT_PSK']],
    [{ a: long, b: [long, 'short'] }, ['IKE_SHORT_PSK']],
    [[long, `${long}\n`], ['IKE_PSK_LINE_BREAK']],
    [
      ['short\n', 'other'],
      ['IKE_PSK_LINE_BREAK', 'IKE_SHORT_PSK'],
    ],
    [{ a: [long, long] }, []],
  ]
  // A process is warned once.
  const program = (index: string, key: unknown): string => `
import { createSecureServer } from '${index}'
process.on('warning', ({ code }) => console.log(code ?? ''))
createSecureServer({ psk: ${JSON.stringify(key)} })`
  const index = packageUrl('index')
  for (const [key, codes] of rows) {
    const { stdout } = spawnSync(
      process.execPath,
      ['--no-warnings', '--input-type=module', '-e', program(index, key)],
      { encoding: 'utf8' },
    )
    t.strictSame(stdout.split('\n').filter(Boolean).sort(), codes, JSON.stringify(key))
  }
  t.end()
})

t.test('N1: no option of the documentation is read from a polluted prototype', t => {
  const page = readFileSync('lib/REFERENCE.md', 'utf8')
  const names = [...page.matchAll(/^#### `(\w+)`$/gm)].map(match => match[1]!)
  t.ok(names.length > 60, `${names.length} options`)
  const prototype = Object.prototype as unknown as Record<string, unknown>
  for (const name of names) {
    // Nothing takes such a value, so whoever reads it throws.
    Object.defineProperty(prototype, name, {
      value: { polluted: true },
      configurable: true,
      writable: true,
    })
    let error: unknown
    try {
      const own = name === 'psk' ? { psk: () => psk } : { psk }
      createSecureServer(own)
      new SecureSocket(own).destroy()
    } catch (thrown) {
      error = thrown
    } finally {
      delete prototype[name]
    }
    t.equal(error, undefined, name)
  }
  t.end()
})

t.test('N4: sockets, sessions, servers and errors do not print keys', async t => {
  const secrets = new Map<string, Uint8Array>([['psk', Buffer.from(psk)]])
  const keyLog = (entry: object): void => {
    for (const [name, value] of Object.entries(entry)) {
      if (value instanceof Uint8Array && value.length >= 16) secrets.set(name, value)
    }
  }
  const server = await listen({ keyLog })
  const accepted = once(server, 'connection')
  const socket = connect(server)
  await once(socket, 'connect')
  const [other] = (await accepted) as [SecureSocket]
  const wrong = connect(server, { psk: 'another key, and a wrong one' })
  const [failure] = (await once(wrong, 'error')) as [Error]
  secrets.set('wrong psk', Buffer.from('another key, and a wrong one'))
  t.ok(secrets.size > 4, [...secrets.keys()].join())
  const forms = (octets: Uint8Array): string[] => {
    const some = Buffer.from(octets.subarray(0, 12))
    return [
      some.toString('hex'),
      some.toString('latin1'),
      some.toString('base64'),
      [...some].map(octet => octet.toString(16).padStart(2, '0')).join(' '),
      [...some].join(),
      [...some].join(', '),
    ]
  }
  const shown: Record<string, unknown> = { socket, other, server, session: socket.session, failure }
  for (const [name, value] of Object.entries(shown)) {
    const texts = [
      inspect(value, { depth: 30, showHidden: true, maxArrayLength: null, breakLength: Infinity }),
      String(value),
    ]
    try {
      texts.push(JSON.stringify(value))
    } catch (error) {
      // As a net.Socket's may: it refers to itself.
      t.match((error as Error).message, /circular/)
    }
    for (const [kind, octets] of secrets) {
      const found = forms(octets).find(form => texts.some(text => text.includes(form)))
      t.equal(found, undefined, `${name} does not show ${kind}`)
    }
  }
  socket.destroy()
  server.close()
  await once(server, 'close')
})

t.test(
  'N7: the largest datagrams, and answers that a port refuses, do not end a server',
  async t => {
    const server = await listen()
    const stranger = createSocket('udp4')
    const send = (bytes: Uint8Array): Promise<void> =>
      new Promise((resolve, reject) =>
        stranger.send(bytes, server.ikePort, '127.0.0.1', error =>
          error === null ? resolve() : reject(error),
        ),
      )
    for (const first of [0, 0xff]) await send(new Uint8Array(65_507).fill(first))
    // Whoever asks and goes away leaves the answer to be refused by ICMP.
    const marked = new Uint8Array(initRequest().length + 4)
    marked.set(initRequest(), 4)
    await send(marked)
    stranger.close()
    await once(stranger, 'close')
    for (let i = 0; i < 2; i++) t.ok(await isHeard(connect(server)))
    server.close()
    await once(server, 'close')
  },
)

t.test('N7: what comes from UDP port 0 is not answered, and does not end a server', async t => {
  const sockets: Socket[] = []
  const note = (message: unknown): void => void sockets.push((message as { socket: Socket }).socket)
  subscribe('udp.socket', note)
  const server = await listen({ accelerate: 'off' })
  unsubscribe('udp.socket', note)
  const request = initRequest()
  const marked = new Uint8Array(request.length + 4)
  marked.set(request, 4)
  const version3 = marked.slice()
  version3[4 + 17] = 0x30
  // Only a raw socket sends it, which a test may not have.
  const arrive = (bytes: Uint8Array, port: number): boolean =>
    sockets[0]!.emit('message', Buffer.from(bytes), {
      address: '127.0.0.1',
      family: 'IPv4',
      port,
      size: bytes.length,
    })
  for (const bytes of [marked, version3, new Uint8Array(40).fill(1)]) arrive(bytes, 0)
  t.ok(await isHeard(connect(server)))
  const { drops } = server.counters as { drops: Record<string, number> }
  t.equal(drops['datagram.noPort'], 3)
  server.close()
  await once(server, 'close')
})

// --- the sources ---

const sources = readdirSync('lib', { recursive: true, encoding: 'utf8' })
  .filter(file => file.endsWith('.ts'))
  .map(file => {
    const code = readFileSync(`lib/${file}`, 'utf8')
    return { file, code: code.replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '') }
  })

t.test('N5: octets are compared by the comparison that looks at all of them', t => {
  const bytes = sources.find(({ file }) => file === 'base/bytes.ts')!.code
  const body = /export const equal = [\s\S]*?\n\}/.exec(bytes)![0]
  // One way out for the length, one at the end.
  t.equal(body.match(/return/g)?.length, 2)
  t.match(body, /\|=/)
  const SECRET = String.raw`(?:mac|icv|hmac|cookie|proof|expected|signature|authData|secret|psk)`
  const ASIDE = String.raw`(?!undefined|null|'|\d|true|false)`
  const direct = new RegExp(
    [
      String.raw`\b${SECRET}(?:\.toString\(\w*\))? [!=]==? ${ASIDE}`,
      String.raw`[!=]== ${SECRET}\b(?!\.)`,
      String.raw`Buffer\.compare|\.equals\(`,
    ].join('|'),
    'i',
  )
  for (const wrong of ['if (mac === theirs)', 'return given !== cookie', 'a.equals(b)'])
    t.match(wrong, direct)
  for (const { file, code } of sources) {
    const found = code.split('\n').filter(line => direct.test(line) && !/length [!=]==/i.test(line))
    t.strictSame(found, [], file)
  }
  for (const file of ['ike/cookie.ts', 'identity/auth.ts', 'crypto/cbc-hmac.ts'])
    t.match(sources.find(one => one.file === file)?.code, /[^\w.]equal\(/, file)
  t.end()
})

t.test('N6: no regular expression repeats what it repeats', t => {
  const literal =
    /(?<=[(=,:?&|!]\s*|return )\/(?![/*])((?:\\.|\[(?:\\.|[^\]])*\]|[^/\n\\[])+)\/[a-z]*/g
  const nested = /\((?:[^()\\]|\\.)*[+*](?:[^()\\]|\\.)*\)(?:[+*]|\{\d+,)/
  t.match('/^(a+)+$/', nested)
  let count = 0
  for (const { file, code } of sources) {
    for (const [, pattern] of code.matchAll(literal)) {
      count++
      t.notMatch(pattern, nested, `${file}: ${pattern}`)
    }
  }
  t.ok(count > 15, `${count} regular expressions`)
  t.end()
})

t.test(
  'N9: nothing is installed but ours, three libraries are bundled in it, and nothing runs',
  t => {
    const own = JSON.parse(readFileSync('package.json', 'utf8')) as Record<string, object>
    const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as {
      packages: Record<string, { dev?: boolean; link?: boolean; hasInstallScript?: boolean }>
    }
    // A link is the checkout itself, by its own name.
    const installed = Object.entries(packages).filter(
      ([name, { dev, link }]) => name !== '' && !dev && link !== true,
    )
    t.strictSame(installed, [])
    t.notOk('dependencies' in own)
    const bundled = JSON.parse(readFileSync('.build/bundled.json', 'utf8')) as string[]
    t.strictSame(bundled, ['@noble/ciphers', '@noble/curves', '@noble/hashes'])
    for (const name of bundled) t.notOk(packages[`node_modules/${name}`]!.hasInstallScript, name)
    const examples = ['*.mjs', '*.md', 'package.json', 'package-lock.json']
    t.strictSame(own['files'], [
      'dist',
      ...examples.map(name => `examples/${name}`),
      'CHANGELOG.md',
    ])
    for (const script of ['preinstall', 'install', 'postinstall', 'prepare'])
      t.notOk(script in own['scripts']!, script)
    t.end()
  },
)
