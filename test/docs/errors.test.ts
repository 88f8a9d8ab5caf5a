/** The table of errors is whole: its page is written from it, and no error is made beside it. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ERROR_TABLE, errorOf, OTHER_CODES, type ErrorRow } from '../../lib/base/error-table.ts'
import { ERRORS_FILE, errorReference } from './errors.ts'

t.test(`${ERRORS_FILE} is what "npm run docs" writes`, t => {
  t.equal(readFileSync(ERRORS_FILE, 'utf8'), errorReference())
  t.end()
})

const sources = readdirSync('lib', { recursive: true, encoding: 'utf8' })
  .filter(name => name.endsWith('.ts'))
  .map(name => ({ name, text: readFileSync(join('lib', name), 'utf8') }))

t.test('each code that the sources name is in the reference', t => {
  const known = new Set([
    ...Object.values<ErrorRow>(ERROR_TABLE).map(({ code }) => code),
    ...OTHER_CODES.map(([code]) => code),
  ])
  for (const { name, text } of sources) {
    for (const [code] of text.matchAll(/\bERR_[A-Z0-9_]+/g))
      t.ok(known.has(code), `${name}: ${code}`)
  }
  t.end()
})

t.test('errors about IKE are made from the table alone', t => {
  for (const { name, text } of sources) {
    if (name.startsWith('base/') || name.startsWith('api/')) continue
    t.notMatch(
      text,
      /new (Ipsec|Policy|Peer\w+|Authentication|UnreachablePeer|Limit|Internal)Error\(/,
      name,
    )
  }
  t.end()
})

t.test('each row is used, says a sentence and names a next step', t => {
  const all = sources.map(({ text }) => text).join('\n')
  for (const [reason, { says, cure }] of Object.entries<ErrorRow>(ERROR_TABLE)) {
    t.ok(all.includes(`'${reason}'`), `${reason} is used`)
    t.notMatch(says, /\.$/, reason)
    t.match(cure, /\.$/, reason)
  }
  t.end()
})

t.test('values are filled in once, and braces within them mean nothing', t => {
  const error = errorOf('WRONG_PSK', { peer: 'a', why: '{peer} $1' }, { reason: 'WRONG_PSK' })
  t.match(error.message, /^Peer a could not be authenticated: \{peer\} \$1\. Compare/)
  t.equal(error.reason, 'WRONG_PSK')
  t.equal(error.fault, 'one of the two configurations')
  t.ok(error.message.endsWith(error.cure!))
  t.equal(error.name, 'AuthenticationError')
  t.equal(errorOf('REFUSED_CHILD', { notify: 'NO_ADDITIONAL_SAS' }).code, 'NO_ADDITIONAL_SAS')
  t.end()
})
