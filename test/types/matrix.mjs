// npm run test:types: the program in `consumer/` is compiled against the built package with each @types/node and
// TypeScript that it may have, and in each way of finding modules; every type that the declarations show must be exported.
import { execFile, execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { hiddenTypes } from './hidden-types.mjs'

const root = fileURLToPath(new URL('../..', import.meta.url))
const NODES = [20, 22, 24, 26]
const COMPILERS = ['5.9', '6', '7']
const NEWEST = '7'
const AT_ONCE = 2

const STRICT = ['--strict', '--noEmit', '--target', 'es2023', '--lib', 'esnext', '--types', 'node']
const NODENEXT = ['--module', 'nodenext']
const EXACT = ['--exactOptionalPropertyTypes', '--skipLibCheck', 'false']
const PROGRAM = 'program.ts'
const REQUIRE = 'require.cts'

const cases = []
for (const node of NODES) {
  for (const compiler of COMPILERS) {
    cases.push({ node, compiler, args: [PROGRAM, ...NODENEXT, ...EXACT] })
  }
  cases.push({ node, compiler: NEWEST, args: [PROGRAM, ...NODENEXT, '--skipLibCheck'] })
}
// Which way modules are found depends little on the version of the compiler: the newest is the quickest.
for (const args of [
  [PROGRAM, '--module', 'node16'],
  [PROGRAM, '--module', 'preserve', '--moduleResolution', 'bundler'],
  [REQUIRE, ...NODENEXT],
  [REQUIRE, '--module', 'node20'],
]) {
  cases.push({ node: 24, compiler: NEWEST, args: [...args, ...EXACT] })
}
// Which TypeScript 7 no longer has.
const NODE10 = ['--module', 'es2022', '--moduleResolution', 'node10', '--esModuleInterop', ...EXACT]
cases.push({ node: 24, compiler: '5.9', args: [PROGRAM, ...NODE10] })
cases.push({ node: 24, compiler: '6', args: [PROGRAM, ...NODE10, '--ignoreDeprecations', '6.0'] })

const folder = mkdtempSync(join(tmpdir(), 'ike-socket-types-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }')
for (const file of [PROGRAM, REQUIRE]) {
  cpSync(join(root, 'test/types/consumer', file), join(folder, file))
}
const packages = [
  ...NODES.map(version => `node${version}@npm:@types/node@${version}`),
  ...COMPILERS.map(version => `typescript${version}@npm:typescript@${version}`),
]
execFileSync('npm', ['install', '--no-audit', '--no-fund', '--ignore-scripts', ...packages], {
  cwd: folder,
  stdio: ['ignore', 'ignore', 'inherit'],
})
// A copy: through a link, the declarations would find this project's own @types/node.
const installed = join(folder, 'node_modules/ike-socket')
mkdirSync(installed, { recursive: true })
for (const part of ['dist', 'package.json']) {
  cpSync(join(root, part), join(installed, part), { recursive: true })
}
for (const version of NODES) {
  mkdirSync(join(folder, `types${version}`))
  symlinkSync(
    join(folder, `node_modules/node${version}`),
    join(folder, `types${version}/node`),
    'dir',
  )
}

const compile = ({ node, compiler, args }) =>
  new Promise(resolve => {
    const tsc = join(folder, `node_modules/typescript${compiler}/bin/tsc`)
    const types = ['--typeRoots', join(folder, `types${node}`)]
    const options = { cwd: folder, maxBuffer: 1 << 26 }
    execFile(process.execPath, [tsc, ...args, ...STRICT, ...types], options, (error, stdout) => {
      const errors = error === null ? [] : (stdout || error.message).trim().split('\n').slice(0, 6)
      resolve({ name: `@types/node ${node}, TypeScript ${compiler}, ${args.join(' ')}`, errors })
    })
  })

let passed = 0
let failed = 0
const tell = ({ name, errors }) => {
  if (errors.length === 0) passed++
  else failed++
  process.stdout.write(`${errors.length === 0 ? 'ok' : 'FAILED'}: ${name}\n`)
  for (const line of errors) process.stdout.write(`  ${line}\n`)
}

const waiting = [...cases]
const work = async () => {
  for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
    tell(await compile(next))
  }
}
await Promise.all(Array.from({ length: AT_ONCE }, work))
tell({ name: 'types that the declarations show are exported', errors: hiddenTypes(root) })
process.stdout.write(`${passed} passed, ${failed} failed\n`)
process.exitCode = failed === 0 ? 0 : 1
