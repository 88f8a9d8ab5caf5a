// npm run sbom: the software bill of materials (CycloneDX) of the published package: itself, and what is bundled in it.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const { name } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const bundled = new Set(JSON.parse(readFileSync(join(root, '.build/bundled.json'), 'utf8')))
const words = [
  'sbom',
  '--sbom-format',
  'cyclonedx',
  '--sbom-type',
  'library',
  '--package-lock-only',
]
const bill = JSON.parse(
  execFileSync('npm', words, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 26 }),
)
const nameOf = ({ group, name }) => (group === undefined ? name : `${group}/${name}`)
// npm names it by its folder, and takes what is bundled for a tool of the build.
bill.metadata.component.name = name
bill.components = bill.components
  .filter(component => bundled.has(nameOf(component)))
  .map(component => ({ ...component, scope: 'required', properties: [] }))
const refs = bill.components.map(component => component['bom-ref'])
const own = bill.metadata.component['bom-ref']
bill.dependencies = [
  { ref: own, dependsOn: refs },
  ...bill.dependencies
    .filter(({ ref }) => refs.includes(ref))
    .map(({ ref, dependsOn }) => ({ ref, dependsOn: dependsOn.filter(to => refs.includes(to)) })),
]
console.log(JSON.stringify(bill, undefined, 2))
