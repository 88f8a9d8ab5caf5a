/** Every block of code in our pages runs or reads, and every link leads somewhere. */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { parseAllDocuments } from 'yaml'
import { configure, loadConfiguration } from '../../lib/api/configuration.ts'
import { loadPolicy } from '../../lib/api/process-policy.ts'
import { parseProposals } from '../../lib/policy/proposal.ts'
import { parseSelectors } from '../../lib/policy/traffic-selectors.ts'
import { makeCredentialFolder } from './credential-folder.ts'
import { anchorsOf, blocksOf, linksOf, type Block } from './markdown.ts'
import { runBlock } from './world.ts'
import { packageFile } from '../harness/package.ts'

const root = process.cwd()
const PAGES = [
  'README.md',
  'CHANGELOG.md',
  'examples/GUIDES.md',
  'lib/README.md',
  'lib/REFERENCE.md',
  'test/README.md',
  'test/attacks/README.md',
  '.github/CONTRIBUTING.md',
  '.github/SECURITY.md',
  ...['examples/README.md', 'lib/ERRORS.md', 'test/bench/RESULTS.md'].filter(existsSync),
]
/** Of the others, blocks have tests of their own. */
const WITH_CODE = ['README.md', 'examples/GUIDES.md', 'lib/README.md', 'test/README.md']
const blocks = WITH_CODE.flatMap(blocksOf)
const of = (...languages: readonly string[]): readonly Block[] =>
  blocks.filter(({ language }) => languages.includes(language))
const named = ({ file, line }: Block): string => `${file}:${line}`

const folder = makeCredentialFolder(
  t.testdir({}),
  'orders.internal,vpn.example.com,localhost',
  'billing.internal',
)
process.env['IKE_PSK'] = 'sixteen octets or more of a key'

const SHIMS: Readonly<Record<string, string>> = {
  'ike-socket': 'shim.js',
  'ike-socket/net': 'shim-net.js',
  'ike-socket/http': 'shim-http.js',
}
const withShims = (text: string): string =>
  text.replace(/from '(ike-socket[^']*)'/g, (_all, name: string) => {
    const shim = SHIMS[name]
    if (shim === undefined) throw new Error(`there is no entry ${name}`)
    return `from '${pathToFileURL(join(import.meta.dirname, shim)).href}'`
  })

t.test('every program runs: servers listen, sockets connect', async t => {
  t.ok(of('js').length > 10)
  process.chdir(folder)
  t.teardown(() => process.chdir(root))
  for (const [i, block] of of('js').entries()) {
    // Those have a test of their own.
    if (block.mark === 'metrics') continue
    const file = join(folder, `block-${i}.mjs`)
    writeFileSync(file, withShims(block.text))
    const { errors } = await runBlock(block.text, () => import(pathToFileURL(file).href))
    if (block.mark === 'no peer') t.equal(errors.length, 1, `${named(block)} is refused`)
    else t.strictSame(errors, [], named(block))
  }
  configure({})
})

t.test('every JSON file is a policy or a configuration that is accepted', t => {
  for (const [i, block] of of('json').entries()) {
    const file = join(folder, `block-${i}.json`)
    writeFileSync(file, block.text)
    t.doesNotThrow(
      () => (block.mark === 'policy' ? loadPolicy(file) : loadConfiguration(file)),
      named(block),
    )
  }
  configure({})
  t.end()
})

t.test('every manifest is YAML with what the text says of it', t => {
  for (const block of of('yaml')) {
    const documents = parseAllDocuments(block.text)
    for (const { errors } of documents as { errors: readonly Error[] }[]) t.strictSame(errors, [])
    const objects = (documents as { toJS(): unknown }[]).map(
      one => one.toJS() as { apiVersion: string; kind: string; spec: { ports?: object[] } },
    )
    for (const { apiVersion, kind } of objects) t.ok(apiVersion && kind, `${named(block)} ${kind}`)
    const service = objects.find(({ kind }) => kind === 'Service')
    t.match(service?.spec.ports, [{ protocol: 'UDP', port: 4500 }])
  }
  t.end()
})

/** `name { … }` and `name = value`, as strongSwan reads them; values by their names. */
const readSwanctl = (text: string): ReadonlyMap<string, readonly string[]> => {
  const values = new Map<string, string[]>()
  let depth = 0
  for (const line of text
    .replace(/\{(?=.)/g, '{\n')
    .replace(/(?<=\S) *\}/g, '\n}')
    .split('\n')) {
    const words = line.trim()
    const [, name, value] = /^(\w+) = (\S.*)$/.exec(words) ?? []
    if (/^[\w-]+ \{$/.test(words)) depth++
    else if (words === '}') depth--
    else if (name !== undefined) values.set(name, [...(values.get(name) ?? []), value!])
    else if (words !== '') throw new Error(`cannot be read: ${words}`)
    if (depth < 0) throw new Error('a brace too many')
  }
  if (depth !== 0) throw new Error('a brace is open')
  return values
}

t.test(
  'every configuration of another daemon reads, with proposals and networks that we know',
  t => {
    for (const block of of('conf')) {
      if (block.mark === 'ipsec') {
        const [head, ...lines] = block.text.trimEnd().split('\n')
        t.match(head, /^conn \w+$/)
        for (const line of lines) t.match(line, /^ {2}[a-z0-9]+=\S+$/, `${named(block)} ${line}`)
        continue
      }
      t.equal(block.mark, 'swanctl', named(block))
      const values = readSwanctl(block.text)
      const lists = (name: string): readonly string[] =>
        (values.get(name) ?? []).flatMap(value => value.split(/, */))
      for (const proposal of lists('proposals')) parseProposals('proposals', proposal, 'ike')
      for (const proposal of lists('esp_proposals'))
        parseProposals('esp_proposals', proposal, 'esp')
      t.ok(parseSelectors('local_ts', lists('local_ts')))
      t.ok(lists('proposals').length > 0 && lists('esp_proposals').length > 0)
    }
    t.end()
  },
)

const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  scripts: Readonly<Record<string, string>>
}
const main = packageFile('cli/main')
const helped = new Map<string, boolean>()
/** The command exists and explains itself. */
const helps = (command: string): boolean => {
  const known =
    helped.get(command) ?? spawnSync(process.execPath, [main, command, '--help']).status === 0
  helped.set(command, known)
  return known
}

t.test('every command line names a script, a command or a file that exists', t => {
  const lines = of('sh').flatMap(block =>
    block.text
      .split('\n')
      .map(line => line.replace(/#.*$/, '').trim())
      .filter(line => line !== '')
      .flatMap(line => line.split(' && '))
      .map(line => ({ block, words: line.replace(/^(?:[A-Z_]+=\S+ )+/, '').split(' ') })),
  )
  t.ok(lines.length > 5)
  for (const { block, words } of lines) {
    const text = `${named(block)} ${words.join(' ')}`
    const [program, first = '', second = ''] = words
    if (program === 'npm' && first === 'run') t.ok(Object.hasOwn(scripts, second), text)
    else if (program === 'npm') t.match(first, /^(ci|test|install)$/, text)
    else if (program === 'npx') t.ok(first === 'ike-socket' && helps(second), text)
    else if (program === 'ike-socket') t.ok(helps(first), text)
    else if (program === 'node' && first === '--import')
      t.equal(second, 'ike-socket/register', text)
    else if (program === 'node') t.ok(existsSync(first), text)
    else t.fail(`${text} is not understood`)
  }
  const keygen = lines.filter(({ words }) => words.includes('keygen'))
  for (const { words } of keygen) {
    const args = words.slice(words.indexOf('keygen'))
    t.equal(spawnSync(process.execPath, [main, ...args, '--force'], { cwd: folder }).status, 0)
  }
  t.end()
})

t.test('there are no blocks of another kind', t => {
  const known = ['js', 'json', 'yaml', 'conf', 'sh']
  for (const block of blocks) t.ok(known.includes(block.language), named(block))
  t.end()
})

t.test('every link leads to a file, and to a heading of it', t => {
  for (const page of PAGES) {
    for (const link of linksOf(page)) {
      if (/^https?:/.test(link)) continue
      const [path = '', anchor] = link.split('#')
      const file = path === '' ? page : relative(root, resolve(dirname(page), path))
      t.ok(existsSync(file), `${page}: ${link}`)
      if (anchor !== undefined && existsSync(file))
        t.ok(anchorsOf(file).has(anchor), `${page}: ${link} is a heading`)
    }
  }
  t.end()
})
