// npm run build: the package as it is published. Its code is bundled, so that a program reads few files and no module
// twice; its types are checked by tsc and gathered into one file for each entry.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, isAbsolute, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { rollup } from 'rollup'
import { dts } from 'rollup-plugin-dts'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const at = (...names) => join(root, ...names)
const ENTRIES = ['index', 'net', 'http', 'connectors', 'register']
const types = at('.build/types')

/** Types first: where they are wrong, nothing is replaced. */
const checkTypes = () => {
  rmSync(types, { recursive: true, force: true })
  const tsc = at('node_modules/typescript-7/bin/tsc')
  const { status } = spawnSync(process.execPath, [tsc, '-p', at('tsconfig.json')], {
    stdio: 'inherit',
  })
  if (status !== 0) process.exit(status ?? 1)
}

/** In a bundle a module that is required is read at its first use; in modules as they are written there is no such thing. */
const lazyNoble = {
  name: 'noble at first use',
  setup: build =>
    build.onLoad({ filter: /lib\/crypto\/noble\.ts$/ }, () => ({
      contents: "export const noble = () => require('./noble-parts.ts')",
    })),
}

/**
 * esbuild calls a class that names itself `_Class` inside, and one of two classes of equal names `Class2`; so would
 * errors and inspected objects. `written`: the names of all classes as the modules have them.
 */
const giveNamesBack = (file, written) => {
  const text = readFileSync(at(file), 'utf8')
  const classes = [...text.matchAll(/\bclass _(\w+)\b/g)].map(([, name]) => name)
  const inner = new RegExp(`(?<![\\w$.#])_(${classes.join('|')})\\b`, 'g')
  const named = classes.length === 0 ? text : text.replace(inner, '$1')
  const second = /\b(?:class\s(\w+\d)|var\s(\w+\d)=class)(?:\s\w+)*\{/g
  const all = named.replace(second, (head, declared, assigned) => {
    const inBundle = declared ?? assigned
    const name = inBundle.replace(/\d+$/, '')
    if (written.has(inBundle) || !written.has(name)) return head
    return `${head}static{Object.defineProperty(this,"name",{value:"${name}",configurable:true})}`
  })
  if (all !== text) writeFileSync(at(file), all)
}

/** What entries share is in chunks: `ike-socket/net` and `ike-socket` have the same endpoints. */
const bundleCode = async () => {
  const { metafile } = await build({
    metafile: true,
    absWorkingDir: root,
    entryPoints: [...ENTRIES, 'cli/main'].map(name => `lib/${name}.ts`),
    outbase: 'lib',
    outdir: 'dist',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    // Names stay, for traces; the blanks would cost each process two megabytes.
    minifyWhitespace: true,
    lineLimit: 120,
    plugins: [lazyNoble],
    logLevel: 'warning',
  })
  const sources = Object.keys(metafile.inputs).map(file => readFileSync(at(file), 'utf8'))
  const written = new Set(
    sources.flatMap(text => [...text.matchAll(/\bclass (\w+)/g)].map(([, name]) => name)),
  )
  Object.keys(metafile.outputs).forEach(file => giveNamesBack(file, written))
  const names = Object.keys(metafile.inputs).map(
    file => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1],
  )
  return [...new Set(names.filter(name => name !== undefined))].sort()
}

const gatherTypes = async () => {
  const bundle = await rollup({
    input: Object.fromEntries(ENTRIES.map(name => [name, join(types, `${name}.d.ts`)])),
    external: id => !id.startsWith('.') && !isAbsolute(id),
    plugins: [dts()],
    // ike-socket/register exports nothing.
    onLog: (level, log, tell) => void (log.code === 'EMPTY_BUNDLE' || tell(level, log)),
  })
  await bundle.write({ dir: at('dist'), format: 'es', chunkFileNames: 'types-[hash].d.ts' })
}

/** A licence asks that it goes with every copy, and `npm run sbom` which packages there are copies of. */
const tellBundled = names => {
  const texts = names.map(name => {
    const { version } = JSON.parse(readFileSync(at('node_modules', name, 'package.json'), 'utf8'))
    return `${name} ${version}\n\n${readFileSync(at('node_modules', name, 'LICENSE'), 'utf8')}`
  })
  writeFileSync(at('dist/bundled.LICENSE.txt'), texts.join('\n'))
  writeFileSync(at('.build/bundled.json'), JSON.stringify(names))
}

checkTypes()
rmSync(at('dist'), { recursive: true, force: true })
mkdirSync(at('dist'))
const [bundled] = await Promise.all([bundleCode(), gatherTypes()])
tellBundled(bundled)
