/** The reference says what the sources say: it is generated from them, and nothing that they have is missing. */
import { readdirSync, readFileSync } from 'node:fs'
import cluster from 'node:cluster'
import dns from 'node:dns'
import { BlockList } from 'node:net'
import { Duplex } from 'node:stream'
import t from 'tap'
import { OPTION_ENDS, OPTION_TABLE, parseConnect, parseServer } from '../../lib/api/options.ts'
import { NODE_AEADS } from '../../lib/crypto/aead.ts'
import { createEndpoint, createSecureContext } from '../../lib/index.ts'
import { hasPkcs12, makeCredentialFolder } from './credential-folder.ts'
import { DROPS, ENVIRONMENT, TRACE_EVENTS, WARNINGS } from './glossary.ts'
import {
  CATEGORIES,
  declarationsOf,
  documentedOptions,
  makeReference,
  REFERENCE,
} from './reference.ts'

t.test('the reference is what `npm run docs` writes', t => {
  t.equal(makeReference(), readFileSync(REFERENCE, 'utf8'))
  t.end()
})

const options = documentedOptions()

t.test('every option is documented once, with a category and an example', t => {
  const names = options.map(({ name }) => name)
  t.strictSame([...names].sort(), [...OPTION_ENDS.keys()].sort())
  for (const { name, text, tags } of options) {
    t.ok(text.length > 10, `${name} has a text`)
    t.ok(Object.hasOwn(CATEGORIES, tags.get('category') ?? ''), `${name} has a category`)
  }
  t.end()
})

t.test('a default in words stands only where the table has none, or a list', t => {
  for (const { name, tags } of options) {
    const fallback = OPTION_TABLE[name]?.fallback
    if (fallback === undefined || Array.isArray(fallback) || name === 'port') continue
    t.notOk(tags.has('defaultValue'), name)
  }
  t.end()
})

t.test('every example is accepted by the end that reads the option', t => {
  const folder = makeCredentialFolder(t.testdir({}))
  const askKeyStore = (): Uint8Array => new Uint8Array(64)
  const words = {
    askKeyStore,
    createEndpoint,
    createSecureContext,
    readFileSync,
    BlockList,
    myBackend: NODE_AEADS.chacha20poly1305,
    cluster,
    dns,
  }
  const key = process.env['IKE_PSK']
  process.env['IKE_PSK'] = 'sixteen octets or more of a key'
  const here = process.cwd()
  process.chdir(folder)
  const opened: { close(): unknown }[] = []
  const endpoint: typeof createEndpoint = settings => {
    const made = createEndpoint(settings)
    opened.push(made)
    return made
  }
  for (const { name, tags } of options) {
    const example = tags.get('example')
    if (example === undefined) {
      t.fail(`${name} has no example`)
      continue
    }
    if (name === 'pfx' && !hasPkcs12) {
      t.pass('pfx: there is no openssl here')
      continue
    }
    const make = new Function(...Object.keys(words), `return ({ ${example} })`) as (
      ...given: unknown[]
    ) => Record<string, unknown>
    t.doesNotThrow(() => {
      const given = make(...Object.values({ ...words, createEndpoint: endpoint }))
      t.ok(Object.hasOwn(given, name), `the example of ${name} has it`)
      const isComplete = ['psk', 'eap', 'endpoint', 'secureContext'].some(other => other in given)
      const all = { ...(isComplete ? {} : { psk: process.env['IKE_PSK'] }), ...given }
      if (OPTION_ENDS.get(name) === 'server') parseServer(all)
      else parseConnect({ host: '127.0.0.1', port: 1, ...all }, true)
    }, `${name}: ${example}`)
  }
  for (const made of opened) made.close()
  process.chdir(here)
  if (key === undefined) delete process.env['IKE_PSK']
  else process.env['IKE_PSK'] = key
  t.end()
})

const sources = readdirSync('lib', { recursive: true, encoding: 'utf8' })
  .filter(file => file.endsWith('.ts'))
  .map(file => ({ file, text: readFileSync(`lib/${file}`, 'utf8') }))

t.test('the glossary has every trace event and every drop counter, and no others', t => {
  const literals = new Set(
    sources.flatMap(({ text }) =>
      [
        ...text.matchAll(
          /'((?:esp|ip|icmp|tcp|ike|udp|path|datagram|child)\.[a-zA-Z0-9.]+|keepalive)'/g,
        ),
      ].map(([, name]) => name!),
    ),
  )
  const known = [...Object.keys(TRACE_EVENTS), ...Object.keys(DROPS)]
  t.strictSame([...literals].sort(), [...new Set(known)].sort())
  t.end()
})

t.test('the glossary has every warning and every variable of the environment', t => {
  const all = sources.map(({ text }) => text).join('\n')
  const codes = new Set([...all.matchAll(/code: '(IKE_\w+)'/g)].map(([, code]) => code!))
  t.strictSame([...codes].sort(), Object.keys(WARNINGS).sort())
  const variables = new Set([...all.matchAll(/\b(IKE_SOCKET_\w+)\b/g)].map(([, name]) => name!))
  for (const name of variables) t.ok(Object.hasOwn(ENVIRONMENT, name), name)
  t.end()
})

t.test('every public class, its members and its events are documented', t => {
  const files = [
    'lib/api/secure-socket.ts',
    'lib/api/socket-events.ts',
    'lib/api/secure-server.ts',
    'lib/api/endpoint.ts',
    'lib/api/secure-datagram.ts',
    'lib/api/session.ts',
    'lib/api/http-server.ts',
    'lib/api/option-types.ts',
  ]
  const exported = new Set(readFileSync('lib/index.ts', 'utf8').match(/\w+/g))
  for (const { name, kind, text, members } of files.flatMap(declarationsOf)) {
    if (!exported.has(name)) continue
    if (kind === 'class' || kind === 'interface') t.not(text, '', name)
    for (const member of members) {
      // What a stream or an emitter has too is documented there.
      if (member.name in Duplex.prototype) continue
      t.not(member.text, '', `${name}.${member.name}`)
    }
  }
  t.end()
})
