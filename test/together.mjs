// What test/all.mjs gives to one process: the files named, one after another. tap, the library and V8's compiler begin once for
// all of them, which takes longer than many a file.
import { relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import t from 'tap'

const built = fileURLToPath(new URL('../.build/', import.meta.url))

for (const file of process.argv.slice(2)) {
  const before = t.counts.total
  await import(pathToFileURL(file).href)
  // Begins when all that the file has queued is over.
  await t.test(`${relative(built, file)} is through`, t => {
    t.ok(t.parent.counts.total > before, 'and it showed something')
    t.end()
  })
}
