/** The layers are one-way, have no cycles, and below `node/` there is neither clock nor IO. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
import t from 'tap'

/** Layer → the layers it may import. A layer may always import itself. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  base: [],
  wire: ['base'],
  crypto: ['base', 'wire'],
  policy: ['base', 'wire', 'crypto'],
  identity: ['base', 'wire', 'crypto'],
  ike: ['base', 'wire', 'crypto', 'policy', 'identity'],
  esp: ['base', 'wire', 'crypto', 'policy'],
  tcp: ['base', 'wire'],
  udp: ['base', 'wire'],
  core: ['base', 'wire', 'policy', 'identity', 'ike', 'esp', 'tcp', 'udp'],
  node: ['base', 'wire', 'crypto', 'core'],
  api: ['base', 'policy', 'identity', 'core', 'node'],
  cli: ['base', 'identity', 'api'],
}
const PURE = new Set([
  'base',
  'wire',
  'crypto',
  'policy',
  'identity',
  'ike',
  'esp',
  'tcp',
  'udp',
  'core',
])
const IMPURE =
  /\b(Date\.now|performance\.now|Math\.random|set(Timeout|Interval|Immediate)\(|queueMicrotask|process\.(nextTick|hrtime)|randomFillSync|console\.)/

const lib = join(process.cwd(), 'lib')
const files = readdirSync(lib, { recursive: true, encoding: 'utf8' }).filter(file =>
  file.endsWith('.ts'),
)
const graph = new Map<string, string[]>()

for (const file of files) {
  const source = readFileSync(join(lib, file), 'utf8')
  const layer = file.split('/')[0]!
  const imports = [...source.matchAll(/(?:from|import)\s+'(\.[^']+)'/g)].map(match =>
    relative(lib, normalize(join(lib, dirname(file), match[1]!))),
  )
  graph.set(file, imports)
  t.test(file, t => {
    if (layer in MAY_IMPORT) {
      for (const target of imports) {
        const to = target.split('/')[0]!
        t.ok(to === layer || MAY_IMPORT[layer]!.includes(to), `${layer}/ may import ${target}`)
      }
      const code = source.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
      if (PURE.has(layer)) t.notMatch(code, IMPURE, 'no clock, timer or randomness')
      if (PURE.has(layer)) t.notMatch(code, /'node:(dgram|net|fs|dns|timers)/, 'no IO')
    } else t.match(file, /^(index|net|http|connectors|register)\.ts$/, 'every file is in a layer')
    t.end()
  })
}

t.test('no import cycles', t => {
  const done = new Set<string>()
  const visit = (file: string, trail: readonly string[]): void => {
    if (trail.includes(file)) return void t.fail(`cycle: ${[...trail, file].join(' → ')}`)
    if (done.has(file)) return
    for (const next of graph.get(file) ?? []) visit(next, [...trail, file])
    done.add(file)
  }
  for (const file of graph.keys()) visit(file, [])
  t.ok(done.size > 40)
  t.end()
})
