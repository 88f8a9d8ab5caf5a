/** The system's randomness as the core gets it: small portions come from a pool, and none of them comes twice. */
import t from 'tap'
import { toHex } from '../../lib/base/bytes.ts'
import { systemEnvironment } from '../../lib/node/environment.ts'

t.test('no octets are given twice, whatever the portions', t => {
  const seen = new Set<string>()
  let count = 0
  for (let round = 0; round < 200; round++) {
    for (const length of [8, 32, 16, 128, 129, 1024, 5000]) {
      const bytes = new Uint8Array(length)
      systemEnvironment.randomFill(bytes)
      for (let at = 0; at + 8 <= length; at += 8, count++)
        seen.add(toHex(bytes.subarray(at, at + 8)))
    }
  }
  t.equal(seen.size, count)
  t.notOk(seen.has('0000000000000000'), 'nor those that are gone from the pool')
  t.end()
})

t.test('every octet of a portion is drawn, and nothing beside it is touched', t => {
  for (const length of [0, 1, 3, 4, 128]) {
    const seen = new Uint8Array(length)
    for (let round = 0; round < 64; round++) {
      const bytes = new Uint8Array(length + 2)
      systemEnvironment.randomFill(bytes.subarray(1, 1 + length))
      t.equal(bytes[0]! | bytes.at(-1)!, 0)
      for (let i = 0; i < length; i++) seen[i]! |= bytes[i + 1]!
    }
    t.ok(
      seen.every(octet => octet !== 0),
      `${length} octets`,
    )
  }
  t.end()
})
