/** What a program may give, and that what is wrong is said at once; `test/docs` holds the reference of options. */
import { readFileSync } from 'node:fs'
import { inspect } from 'node:util'
import t from 'tap'
import { AUTHORIZATION_OPTIONS, parseConnect, parseMore } from '../../lib/api/options.ts'
import { answerQuestion } from '../../lib/api/questions.ts'
import { CREDENTIAL_OPTIONS } from '../../lib/identity/credentials.ts'
import { parseIdentity } from '../../lib/identity/identity.ts'
import {
  createSecureServer,
  createSecureSocket,
  OptionError,
  type SecureSocket,
} from '../../lib/index.ts'
import { POLICY_OPTIONS } from '../../lib/policy/options.ts'
import { refusedOption } from '../harness/refused-option.ts'

const psk = 'a pre-shared key for these tests'
const nowhere = { host: '127.0.0.1', port: 1, ikePort: 9, psk }
const client = (options: object): unknown => createSecureSocket({ ...nowhere, ...options })
const server = (options: object): unknown => createSecureServer({ psk, ...options })

t.test('the documentation of `authorize` names every option that it may answer', t => {
  const page = readFileSync('lib/REFERENCE.md', 'utf8')
  const text = page.split('#### `authorize`')[1]!.split('#### ')[0]!
  for (const name of AUTHORIZATION_OPTIONS) t.ok(text.includes(`\`${name}\``), name)
  t.end()
})

t.test('equal options are read once, and again where an object may have changed', t => {
  const first = parseConnect({ ...nowhere }, false)
  t.equal(parseConnect({ ...nowhere }, false), first)
  t.equal(parseMore({ ...nowhere }, first), first)
  const other = parseMore({ ...nowhere, port: 2 }, first)
  t.equal(other.port, 2)
  t.equal(other.context, first.context)
  t.equal(parseMore({ port: 3 }, first).port, 3)
  t.equal(parseConnect({ ...nowhere, noDelay: true }, false).noDelay, true)
  t.throws(() => parseMore({ ...nowhere, nodelay: true }, first), OptionError)
  const key = Buffer.from(psk)
  const before = parseConnect({ ...nowhere, psk: key }, false)
  key.fill('x')
  t.not(parseConnect({ ...nowhere, psk: key }, false).context!.print, before.context!.print)
  const throwing = {
    ...nowhere,
    get noDelay(): boolean {
      throw new Error('never')
    },
  }
  t.throws(() => parseConnect(throwing, false), { message: /"noDelay" cannot be read/ })
  t.throws(() => parseMore(throwing, first), { message: /"noDelay" cannot be read/ })
  t.end()
})

t.test('an option that does nothing where it stands is refused', t => {
  const decide = (): undefined => undefined
  t.equal(
    refusedOption(() => server({ checkServerIdentity: decide })),
    'checkServerIdentity',
  )
  t.equal(
    refusedOption(() => server({ eap: { method: 'mschapv2', identity: 'a', password: 'b' } })),
    'eap',
  )
  t.equal(
    refusedOption(() => client({ authorize: decide })),
    'authorize',
  )
  t.throws(() => server({ port: 1 }), { message: /listen\(\) has it/ })
  t.throws(() => server({ host: 'a.test' }), { message: /listen\(\) has it/ })
  t.end()
})

t.test('an address that is none is refused as net does', t => {
  for (const localAddress of ['999.1.1.1', 'x', '1:2', '']) {
    t.throws(() => client({ localAddress }), { code: 'ERR_INVALID_IP_ADDRESS' })
  }
  t.end()
})

t.test('empty arrays and null are not the same as nothing', t => {
  for (const make of [client, server]) {
    for (const options of [{ ca: [] }, { peerKeys: [] }, { peerKeys: {} }, { ca: null }]) {
      t.equal(
        refusedOption(() => make(options)),
        Object.keys(options)[0],
      )
    }
    for (const name of ['revocation', 'fetchRevocation', 'extendedKeyUsage', 'rsaPkcs1']) {
      t.equal(
        refusedOption(() => make({ [name]: null })),
        name,
      )
    }
  }
  t.equal(
    refusedOption(() => client({ checkServerIdentity: null })),
    'checkServerIdentity',
  )
  t.equal(
    refusedOption(() => server({ authorize: 1 })),
    'authorize',
  )
  t.throws(() => client({ signal: null }), { code: 'ERR_INVALID_ARG_TYPE' })
  t.equal(
    refusedOption(() => client({ gateway: '' })),
    'gateway',
  )
  t.end()
})

t.test('what a server gives its sockets is checked before there are any', t => {
  t.equal(
    refusedOption(() => server({ highWaterMark: 'x' })),
    'highWaterMark',
  )
  t.throws(() => server({ keepAliveInitialDelay: 'x' }), { code: 'ERR_INVALID_ARG_TYPE' })
  for (const make of [client, server]) {
    t.throws(() => make({ congestionControl: 'vegas' }), {
      message: /congestionControl.*'cubic', 'reno', 'bbr'.*vegas/,
    })
    for (const userTimeout of [-1, 0.5, 2 ** 31, '1', null])
      t.equal(
        refusedOption(() => make({ userTimeout })),
        'userTimeout',
      )
  }
  const made = createSecureServer({ psk })
  for (const wrong of [undefined, null, 5]) {
    t.equal(
      refusedOption(() => made.setCredentials(wrong as never)),
      'options',
    )
  }
  t.end()
})

t.test('a slip of the finger is recognized, and nothing else is suggested', t => {
  const said = (options: object): string => {
    try {
      client(options)
    } catch (error) {
      return (error as Error).message
    }
    return ''
  }
  t.match(said({ hsot: 'a' }), /Did you mean "host"\?/)
  t.match(said({ PSK: 'a' }), /Did you mean "psk"\?/)
  t.match(
    said({ livenessIntervall: 1 }),
    /^Unknown option "livenessIntervall"\. Did you mean "livenessInterval"\?$/,
  )
  // Two letters of four are another word, not a slip.
  t.notMatch(said({ wart: 1 }), /Did you mean/)
  t.end()
})

t.test('what every object inherits is no algorithm, protocol or kind of identity', t => {
  for (const word of Object.getOwnPropertyNames(Object.prototype)) {
    t.equal(
      refusedOption(() => client({ ike: `aes256gcm16-${word}-x25519` })),
      'ike',
      word,
    )
    t.equal(
      refusedOption(() => client({ esp: word })),
      'esp',
      word,
    )
    t.equal(
      refusedOption(() => client({ localTs: `10.0.0.1[${word}]` })),
      'localTs',
      word,
    )
    t.equal(typeof parseIdentity('localId', `${word}:a`).type, 'number', word)
  }
  t.end()
})

t.test('messages name members and quote no more than words', t => {
  t.equal(
    refusedOption(() => client({ psk: { 'a.test': 1 } })),
    "psk['a.test']",
  )
  t.throws(() => client({ ppk: { id: 'a', secret: 'b' } }), { message: /Received 1 octets$/ })
  t.throws(() => client({ psk: '' }), { message: /Received an empty one$/ })
  t.end()
})

t.test(
  'no error prints what may be a secret: values of unknown options, and of those that hold keys',
  t => {
    const secret = 'TOP-SECRET-0123456789'
    const pem = `-----BEGIN PRIVATE KEY-----\n${secret}\n-----END PRIVATE KEY-----`
    const eap = { method: 'mschapv2', identity: 'u', password: 'p' }
    for (const [name, options] of Object.entries({
      unknown: { pks: secret },
      'unknown and unlike': { wart: secret },
      'unknown, of nobody': { [`x${'y'.repeat(100)}`]: secret },
      'psk in an array': { psk: [[secret]] },
      'psk of a number': { psk: 12_345_678_901 },
      'psk in a table': { psk: { 'a.test': [[secret]] } },
      'psk of a number in a table': { psk: { 'a.test': 12_345_678_901 } },
      'ppk alone': { ppk: secret },
      'ppk with a slip': { ppk: { id: 'a', secrte: secret } },
      'ppk that is short': { ppk: { id: 'a', secret } },
      'ppk by a number': { ppk: { id: 'a', secret: 12_345_678_901 } },
      'the secret for the id': { ppk: { id: [secret], secret: 'a' } },
      'eap alone': { ca: 'x', eap: secret },
      'eap with a slip': { ca: 'x', eap: { ...eap, pasword: secret } },
      'eap with the password for the method': { ca: 'x', eap: { ...eap, method: secret } },
      'eap with a password that is a number': {
        ca: 'x',
        eap: { ...eap, password: 12_345_678_901 },
      },
      'a key for sign': { cert: 'x', sign: pem },
      'a key for ca': { ca: pem },
      'a key for a list': { ca: 'x', crl: pem },
      'a key for cert': { cert: pem },
      'a key that is none': { key: pem },
      'a passphrase that is none': { key: pem, passphrase: 12_345_678_901 },
      'a key for an OCSP answer': { ocspResponse: pem },
      'a member that is none': { retransmit: { tires: secret } },
      'a retransmit that is none': { retransmit: { tries: [secret] } },
    })) {
      for (const make of [client, server]) {
        let said = ''
        try {
          make(options)
        } catch (error) {
          t.ok(error instanceof OptionError, name)
          said = inspect(error, { depth: 9 }) + JSON.stringify(error)
        }
        t.notMatch(said, /TOP-SECRET|12345678901/, name)
        t.not(said, '', `${name}: refused`)
      }
    }
    t.end()
  },
)

t.test('whatever strange value an option has, the error is one of options', t => {
  const throwing = (): never => {
    throw new Error('from within')
  }
  const cyclic: Record<string, unknown> = {}
  cyclic['self'] = cyclic
  const { proxy: revoked, revoke } = Proxy.revocable({}, {})
  revoke()
  const values: Readonly<Record<string, unknown>> = {
    bigint: 1n,
    'bigint in an array': [2n],
    'bigint in an object': { a: 3n },
    symbol: Symbol('x'),
    'symbol in an array': [Symbol('x')],
    'no prototype': Object.create(null) as unknown,
    cyclic,
    revoked,
    'a proxy that throws': new Proxy(
      {},
      { get: throwing, ownKeys: throwing, getPrototypeOf: throwing, has: throwing },
    ),
    'a getter that throws': Object.defineProperty({}, 'a', { get: throwing, enumerable: true }),
    'a constructor that throws': Object.defineProperty({}, 'constructor', { get: throwing }),
    'a constructor with a strange name': { constructor: { name: Symbol('x') } },
    'text that throws': { toString: throwing, valueOf: throwing, toJSON: throwing },
    'an array with a getter': Object.defineProperty([], 0, { get: throwing, enumerable: true }),
    'a number that is none': NaN,
    deep: Array.from({ length: 10_000 }).reduce<object>(inner => ({ inner }), {}),
    null: null,
  }
  // net takes anything for these.
  const lenient = ['allowHalfOpen', 'family', 'keepAlive', 'noDelay', 'onread', 'virtualAddress']
  const names = [...POLICY_OPTIONS, ...CREDENTIAL_OPTIONS]
  const parts: Readonly<Record<string, readonly string[]>> = {
    retransmit: ['initial', 'tries'],
    ppk: ['id', 'secret', 'required'],
    eap: ['method', 'identity', 'password'],
    psk: ['a.test'],
    peerKeys: ['a.test'],
    key: ['pem', 'passphrase'],
    pfx: ['buf', 'passphrase'],
  }
  const attempt = (name: string, options: object): void => {
    for (const make of [client, server]) {
      try {
        const made = make(options) as SecureSocket
        made.on('error', () => undefined)
        if (make === client) made.destroy()
      } catch (error) {
        if (!(error instanceof OptionError)) t.fail(`${name}: ${String(error)}`)
      }
    }
  }
  for (const [kind, value] of Object.entries(values)) {
    for (const name of [...names, ...lenient]) attempt(`${name}: ${kind}`, { [name]: value })
    for (const [name, members] of Object.entries(parts)) {
      for (const member of members)
        attempt(`${name}.${member}: ${kind}`, { [name]: { [member]: value } })
      attempt(`${name}[0]: ${kind}`, { [name]: [value] })
    }
    for (const make of [createSecureSocket, createSecureServer]) {
      t.throws(() => make(value as never), { code: /^ERR_/ }, `all options: ${kind}`)
    }
  }
  for (const make of [createSecureSocket, createSecureServer]) {
    const options = Object.defineProperty({ psk }, 'mtu', { get: throwing, enumerable: true })
    t.equal(
      refusedOption(() => make(options)),
      'mtu',
      'a getter is named',
    )
  }
  t.end()
})

t.test('errors of options read as sentences', t => {
  const said = (options: object): string => {
    try {
      client(options)
    } catch (error) {
      return (error as Error).message
    }
    return ''
  }
  for (const [options, message] of [
    [{ livenesInterval: 3 }, 'Unknown option "livenesInterval". Did you mean "livenessInterval"?'],
    [{ pfx: new Uint8Array(3), cert: 'x' }, '"pfx" cannot be combined with "cert" or "key"'],
    [{ ca: [] }, '"ca" must not be empty; leave it out to accept no certificates'],
    [
      { ca: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----' },
      '"ca" is not a valid certificate: expected SEQUENCE, found tag 0x00 at octet 0',
    ],
    [
      { retransmit: { foo: 1 } },
      'Unknown option "retransmit.foo"; known are initial, factor, max, tries',
    ],
    [
      { ppk: new Uint8Array(40) },
      'The option "ppk" must be an object { id, secret, required } or a non-empty array of them. Received an instance of Uint8Array',
    ],
  ] as const) {
    t.equal(said(options), message)
  }
  t.end()
})

t.test("http's agents may hand over their own options", t => {
  const socket = createSecureSocket({
    ...nowhere,
    ...{ maxSockets: 2, maxTotalSockets: 2, maxFreeSockets: 2, scheduling: 'lifo' },
    ...{ keepAliveMsecs: 1, keepAlive: true },
  } as object)
  socket.destroy()
  t.end()
})

t.test('a signal that was aborted before gives its error in the next turn', async t => {
  const socket = createSecureSocket({ ...nowhere, signal: AbortSignal.abort() })
  const seen: string[] = []
  socket.on('error', error => seen.push(error.name))
  await new Promise<unknown>(resolve => socket.on('close', resolve))
  t.strictSame(seen, ['AbortError'])
  t.notOk(socket.connecting)
})

t.test('authorize answers with the options of the table and no others', async t => {
  const question = {
    kind: 'authorize',
    peer: { certificates: [], identityText: 'a.test', authentication: 'psk' },
    path: { remoteAddress: Uint8Array.of(192, 0, 2, 1), remotePort: 4500 },
  } as never
  const answer = (given: unknown): Promise<unknown> =>
    answerQuestion(question, { psk, authorize: () => given } as never)
  t.match(await answer({ mode: 'tunnel' }), { authorize: { policy: { mode: 'tunnel' } } })
  t.match(await answer({ espp: 'aes256gcm16' }), { authorize: { option: 'authorize.espp' } })
  t.match(await answer({ ike: 'aes256gcm16-prfsha256-x25519' }), {
    authorize: { option: 'authorize.ike' },
  })
  t.match(await answer([]), { authorize: { option: 'authorize' } })
  t.strictSame(await answer(true), { authorize: true })
  t.strictSame(await answer(1), { authorize: false }, 'true alone lets a peer in')
})
