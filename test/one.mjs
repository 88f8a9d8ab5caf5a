// npm run test:one -- test/tcp/idle.test.ts: builds what one test file needs and runs it; a piece of its name does too (idle).
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const wanted = process.argv[2]

const fail = words => {
  console.error(words)
  process.exit(2)
}

const run = (command, ...args) => {
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}

if (wanted === undefined) fail('which test? npm run test:one -- test/tcp/idle.test.ts')
const all = readdirSync(join(root, 'test'), { recursive: true })
  .filter(file => file.endsWith('.test.ts'))
  .map(file => join('test', file))
const exact = relative(root, wanted)
const found = all.includes(exact) ? [exact] : all.filter(file => file.includes(wanted))
if (found.length !== 1)
  fail(`${found.length} tests are called so${found.map(file => `\n  ${file}`).join('')}`)

// The command and the examples are run from `dist`; what tests import is compiled with them.
run(process.execPath, 'lib/build.mjs')
run(process.execPath, 'node_modules/typescript-7/bin/tsc', '-p', 'test/tsconfig.json')
run(process.execPath, join('.build', found[0].replace(/ts$/, 'js')), ...process.argv.slice(3))
