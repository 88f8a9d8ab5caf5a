/** By property: any value for any option at any door is taken, or refused at once by an error that names the option. */
import dns from 'node:dns'
import { inspect } from 'node:util'
import fc from 'fast-check'
import t from 'tap'
import { configure } from '../../lib/api/configuration.ts'
import { CLIENT_NAMES, SERVER_NAMES } from '../../lib/api/options.ts'
import { CREDENTIAL_OPTIONS } from '../../lib/identity/credentials.ts'
import { createSecureServer, createSecureSocket, SecureSocket } from '../../lib/index.ts'
import { POLICY_OPTIONS } from '../../lib/policy/options.ts'

const psk = 'a pre-shared key for these tests'

// Hundreds of strange names are looked up: where a resolver is silent, each would wait its time.
t.before(() => {
  dns.lookup = ((_name: string, options: unknown, found: (error: Error) => void) => {
    const tell = typeof options === 'function' ? (options as typeof found) : found
    const error = Object.assign(new Error('getaddrinfo ENOTFOUND'), { code: 'ENOTFOUND' })
    setImmediate(() => tell(error))
  }) as never
})
const MARK = 'TOP-SECRET-0123456789'

const throwing = (): never => {
  throw new RangeError('from within')
}
const cyclic: Record<string, unknown> = { name: MARK }
cyclic['self'] = [cyclic]
const { proxy: revoked, revoke } = Proxy.revocable({}, {})
revoke()

/** What reading, printing or calling may fail of. */
const STRANGE: readonly unknown[] = [
  ...[NaN, -0, Infinity, 2 ** 53, 1n, Symbol('x'), null, '', ' ', '\0', MARK, 'x'.repeat(1 << 20)],
  ...[cyclic, revoked, throwing, () => Promise.reject(new Error('late')), async () => {}, class {}],
  ...[[], {}, [[]], [null], new Array(3), new Date(NaN), new Map([[1, 2]]), new Uint8Array(5), /x/],
  Object.create(null),
  new Proxy({}, { get: throwing, ownKeys: throwing, has: throwing, getPrototypeOf: throwing }),
  new Proxy([], { get: throwing, getOwnPropertyDescriptor: throwing }),
  new Proxy(throwing, { get: throwing, apply: throwing }),
  Object.defineProperty({}, 'port', { get: throwing, enumerable: true }),
  Object.defineProperty([], 0, { get: throwing, enumerable: true }),
  { toString: throwing, valueOf: throwing, toJSON: throwing, [Symbol.toPrimitive]: throwing },
  { length: 2 ** 32, 0: MARK },
]

const MEMBERS = ['initial', 'tries', 'id', 'secret', 'method', 'identity', 'password', 'pem', 'buf']

const anything = fc.anything({
  withBigInt: true,
  withDate: true,
  withMap: true,
  withNullPrototype: true,
  withSet: true,
  withSparseArray: true,
  withTypedArray: true,
})
/** Made when it is wanted: the values are too strange for whoever passes them on. */
type Maker = () => unknown
const plain: fc.Arbitrary<Maker> = fc.oneof(
  fc.nat(STRANGE.length - 1).map(i => () => STRANGE[i]),
  fc.oneof(anything, fc.string(), fc.double()).map(made => () => made),
)
/** On its own, in a list or a member that an option may have. */
const value: fc.Arbitrary<Maker> = fc.oneof(
  { weight: 4, arbitrary: plain },
  fc.array(plain, { maxLength: 3 }).map(list => () => list.map(make => make())),
  fc
    .array(fc.tuple(fc.constantFrom(...MEMBERS), plain), { maxLength: 3 })
    .map(list => () => Object.fromEntries(list.map(([name, make]) => [name, make()]))),
)

const SHARED = [...POLICY_OPTIONS, ...CREDENTIAL_OPTIONS]
const made: { destroy(): void }[] = []
const keep = (socket: SecureSocket): void => {
  socket.on('error', (error: NodeJS.ErrnoException) => {
    if (typeof error.code !== 'string') late.push(error)
  })
  made.push(socket)
}
const late: Error[] = []
const nowhere = { host: '127.0.0.1', port: 1, ikePort: 9 }

/** Each door, and what it knows. */
const DOORS: Readonly<Record<string, [readonly string[], (options: object) => void]>> = {
  createSecureSocket: [
    CLIENT_NAMES,
    options => keep(createSecureSocket({ ...nowhere, psk, ...options })),
  ],
  connect: [
    CLIENT_NAMES,
    options => {
      const socket = new SecureSocket()
      keep(socket)
      socket.connect({ ...nowhere, psk, ...options })
    },
  ],
  createSecureServer: [SERVER_NAMES, options => void createSecureServer({ psk, ...options })],
  setCredentials: [
    [...SHARED],
    options => createSecureServer({ psk }).setCredentials({ psk, ...options }),
  ],
  listen: [
    ['port', 'host', 'backlog', 'ipv6Only', 'exclusive', 'signal'],
    options => {
      const server = createSecureServer({ psk, ikePort: 0 })
      server.on('error', (error: NodeJS.ErrnoException) => {
        if (typeof error.code !== 'string') late.push(error)
      })
      made.push({ destroy: () => void server.close() })
      server.listen({ port: 0, host: '127.0.0.1', ...options } as never)
    },
  ],
  configure: [[...SHARED, 'ikePort', 'gateway'], options => configure(options)],
}

/** Why the error is not as it should be; undefined: it is, or there is none. */
const fault = (door: (options: object) => void, options: object, name: string) => {
  try {
    door(options)
    return undefined
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (!(error instanceof Error) || !/^ERR_/.test(code ?? ''))
      return `no error of options: ${inspect(error)}`
    // An address that is none is printed as net prints it, without the name.
    if (code !== 'ERR_INVALID_IP_ADDRESS' && !message.includes(name))
      return `it names nothing: ${message}`
    if (message.length > 1000) return `it is as long as ${message.length}`
    return undefined
  }
}

const settle = async (t: Tap): Promise<void> => {
  await new Promise(resolve => setImmediate(resolve))
  for (const each of made.splice(0)) each.destroy()
  await new Promise(resolve => setImmediate(resolve))
  t.strictSame(late, [], 'nothing comes later')
}
type Tap = { strictSame(found: unknown, wanted: unknown, message: string): boolean }

for (const [door, [names, open]] of Object.entries(DOORS)) {
  t.test(`${door}: any value of any option`, async t => {
    const run = (name: string, given: unknown): void => {
      const problem = fault(open, { [name]: given }, name)
      if (problem !== undefined) throw new Error(`${name}: ${problem}`)
    }
    fc.assert(
      fc.property(fc.constantFrom(...names), value, (name, make) => run(name, make())),
      { numRuns: 300, seed: 1 },
    )
    await settle(t)
    for (const name of names) for (const strange of STRANGE) run(name, strange)
    await settle(t)
  })

  t.test(`${door}: the options themselves, and names that nobody knows`, async t => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, maxLength: 300 }), plain, (name, make) => {
        if (names.includes(name)) return
        const given = make()
        const options = Object.fromEntries([[name, typeof given === 'string' ? MARK : given]])
        try {
          open(options)
        } catch (error) {
          const said = inspect(error, { depth: 5 })
          if (!/^ERR_/.test((error as NodeJS.ErrnoException).code ?? '')) throw new Error(said)
          if (said.includes(MARK)) throw new Error('it prints the value')
        }
      }),
      { numRuns: 100, seed: 2 },
    )
    const options = Object.defineProperty({}, names[0]!, { get: throwing, enumerable: true })
    t.throws(() => open(options))
    await settle(t)
  })
}

t.test('a getter that throws is named at every door', t => {
  const trap = (name: string): object =>
    Object.defineProperty({ psk, ...nowhere }, name, { get: throwing, enumerable: true })
  const refusal = { code: 'ERR_INVALID_ARG_VALUE' }
  t.throws(() => createSecureSocket(trap('mtu') as never), { ...refusal, option: 'mtu' })
  t.throws(() => new SecureSocket().connect(trap('mtu') as never), { ...refusal, option: 'mtu' })
  t.throws(() => createSecureServer(trap('mtu')), { ...refusal, option: 'mtu' })
  t.throws(() => configure(trap('mtu')), { ...refusal, option: 'mtu' })
  const server = createSecureServer({ psk })
  t.throws(() => server.setCredentials(trap('psk')), { ...refusal, option: 'psk' })
  t.throws(() => server.listen(trap('backlog') as never), { ...refusal, option: 'backlog' })
  configure({})
  t.end()
})

t.test('what once ended the process later is refused at once', t => {
  const client = (options: object): unknown => createSecureSocket({ ...nowhere, psk, ...options })
  t.throws(() => client({ ikePort: 0 }), { code: 'ERR_SOCKET_BAD_PORT', message: /ikePort/ })
  t.throws(() => client({ ike: new Array(2) }), { message: /"ike"/ })
  t.throws(() => client({ localTs: [, '10.0.0.1'] }), { message: /"localTs"/ })
  t.throws(() => client({ dns: new Array(2 ** 32 - 1) }), { message: /"dns"/ })
  for (const backlog of ['many', Symbol('many'), NaN]) {
    const server = createSecureServer({ psk })
    t.throws(() => server.listen({ port: 0, backlog } as never), { message: /options\.backlog/ })
    t.notOk(server.listening)
  }
  t.end()
})
