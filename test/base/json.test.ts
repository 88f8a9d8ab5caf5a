/** JSON that people write. */
import t from 'tap'
import { parseJson } from '../../lib/base/json.ts'

t.test('what is in order is what JSON.parse makes of it', t => {
  for (const text of ['{}', ' [1,\n2]\n', '"a"', '{ "a": { "b": "\\n" } }\r\n'])
    t.strictSame(parseJson(text), JSON.parse(text))
  t.end()
})

t.test('a fault is told by its line', t => {
  const faults: [string, number][] = [
    ['', 1],
    ['\n\n', 1],
    ['{', 1],
    ['{\n  "a": 1,\n  "b": 2\n', 3],
    ['{\n  "a": 1,\n}', 3],
    ['{\n  "a": oops\n}', 2],
    ['{\r\n  "a": 1\r\n  "b": 2\r\n}\r\n', 3],
    ['{\n  "a": [\n    1,\n    2\n  },\n  "b": 1\n}', 5],
    ['{\n  "a": "not\nended" }', 2],
    ['{\n  "a": -\n}', 2],
    ['{}\n{}', 2],
    ['{ "a": 1 }\n\nx', 3],
  ]
  for (const [text, line] of faults) {
    const message = new RegExp(`^line ${line}: `)
    t.throws(() => parseJson(text), { name: 'SyntaxError', message }, JSON.stringify(text))
  }
  t.end()
})
