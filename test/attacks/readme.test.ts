/** The list in README.md names tests that exist, and every flaw that has a test is on the list. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import t from 'tap'

const list = readFileSync('test/attacks/README.md', 'utf8')

t.test('every test that the list names exists', t => {
  const named = [...list.matchAll(/`([\w/-]+)` "([^"]+)"/g)]
  t.ok(named.length > 100)
  for (const [, file, name] of named) {
    const path = `test/${file}.test.ts`
    const source = existsSync(path) ? readFileSync(path, 'utf8') : ''
    t.ok(source.includes(`'${name}`) || source.includes(`\`${name}`), `${file}: ${name}`)
  }
  t.end()
})

t.test('every row has a test or says why it needs none', t => {
  const rows = list.split('\n').filter(line => /^\| [A-Z]/.test(line))
  t.ok(rows.length > 90)
  for (const row of rows) t.ok(/`[\w/-]+` "/.test(row) || row.includes('_no_'), row.slice(0, 60))
  t.end()
})

t.test('every flaw that a test names is on the list', t => {
  for (const file of readdirSync('test', { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.test.ts')) continue
    for (const [id] of readFileSync(`test/${file}`, 'utf8').matchAll(/CVE-\d{4}-\d+/g))
      t.ok(list.includes(id), `${id} in ${file}`)
  }
  t.end()
})
