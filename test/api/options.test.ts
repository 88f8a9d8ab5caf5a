/** What a program may give: the README's table has every option, and what is wrong is said at once. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { AUTHORIZATION_OPTIONS, SERVER_OPTIONS, SOCKET_OPTIONS } from '../../lib/api/options.ts'
import { answerQuestion } from '../../lib/api/questions.ts'
import { CREDENTIAL_OPTIONS } from '../../lib/identity/credentials.ts'
import { parseIdentity } from '../../lib/identity/identity.ts'
import { createSecureServer, createSecureSocket, OptionError } from '../../lib/index.ts'
import { POLICY_OPTIONS } from '../../lib/policy/options.ts'

const psk = 'a pre-shared key for these tests'
const nowhere = { host: '127.0.0.1', port: 1, ikePort: 9, psk }
const client = (options: object): unknown => createSecureSocket({ ...nowhere, ...options })
const server = (options: object): unknown => createSecureServer({ psk, ...options })

/** Which option the error names; undefined when there is none. */
const refusedOption = (make: () => unknown): unknown => {
  try {
    make()
  } catch (error) {
    return error instanceof OptionError ? error.option : error
  }
  return undefined
}

t.test("the README's table has a row for every option, and for no other", t => {
  const readme = readFileSync('README.md', 'utf8')
  const named = readme
    .split('\n')
    .filter(line => /^\| `/.test(line))
    .flatMap(line => [...line.split('|')[1]!.matchAll(/`([A-Za-z]\w*)`/g)].map(([, name]) => name!))
  const known = [...POLICY_OPTIONS, ...CREDENTIAL_OPTIONS, ...SOCKET_OPTIONS, ...SERVER_OPTIONS]
  t.strictSame([...new Set(named)].sort(), [...new Set<string>(known)].sort())
  t.equal(named.length, new Set(named).size, 'none twice')
  const row = readme.split('\n').find(line => line.startsWith('| `authorize`'))!
  for (const name of AUTHORIZATION_OPTIONS) {
    t.ok(row.includes(/Lifetime|child/.test(name) ? 'lifetimes' : `\`${name}\``), name)
  }
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
  t.match(said({ hsot: 'a' }), /did you mean "host"/)
  t.match(said({ PSK: 'a' }), /did you mean "psk"/)
  t.match(said({ livenessIntervall: 1 }), /did you mean "livenessInterval"/)
  // Two letters of four are another word, not a slip.
  t.notMatch(said({ wart: 1 }), /did you mean/)
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
