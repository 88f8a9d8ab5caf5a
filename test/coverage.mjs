// Prints how much of each layer the tests reach, from what V8 wrote into the folder that NODE_V8_COVERAGE named during
// them: node test/coverage.mjs FOLDER. It measures and judges nothing.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'

const [folder] = process.argv.slice(2)
if (folder === undefined) throw new TypeError('which folder? NODE_V8_COVERAGE named it')
const root = fileURLToPath(new URL('..', import.meta.url))
const report = mkdtempSync(join(tmpdir(), 'coverage-'))
const options = ['--temp-directory', folder, '--reports-dir', report, '--reporter', 'json-summary']
const only = ['--exclude-after-remap', '--include', 'lib/**', '--exclude', 'test/**']
execFileSync(
  process.execPath,
  [join(root, 'node_modules/c8/bin/c8.js'), 'report', ...options, ...only],
  {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  },
)
const files = JSON.parse(readFileSync(join(report, 'coverage-summary.json'), 'utf8'))
rmSync(report, { recursive: true })

const layers = new Map()
for (const [file, { lines, branches }] of Object.entries(files)) {
  const [top, layer, ...rest] = relative(root, file).split(sep)
  if (top !== 'lib') continue
  const name = rest.length > 0 ? layer : '(entries)'
  const sums = layers.get(name) ?? { lines: 0, reached: 0, branches: 0, taken: 0 }
  layers.set(name, {
    lines: sums.lines + lines.total,
    reached: sums.reached + lines.covered,
    branches: sums.branches + branches.total,
    taken: sums.taken + branches.covered,
  })
}
const percent = (part, whole) =>
  `${whole === 0 ? '-' : ((100 * part) / whole).toFixed(1)} %`.padStart(8)
console.log('layer          lines  branches')
for (const [name, { lines, reached, branches, taken }] of [...layers].sort(([a], [b]) =>
  a < b ? -1 : 1,
)) {
  console.log(`${name.padEnd(12)}${percent(reached, lines)}  ${percent(taken, branches)}`)
}
