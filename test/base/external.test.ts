/** What is given back is gone, and nothing else is. */
import { createCipheriv } from 'node:crypto'
import t from 'tap'
import { release } from '../../lib/base/external.ts'

t.test("a cipher's output is freed when it has been read", t => {
  for (let i = 0; i < 3; i++) {
    const cipher = createCipheriv('aes-128-gcm', new Uint8Array(16), new Uint8Array(12))
    const output = cipher.update(new Uint8Array(60_000))
    t.equal(output.length, 60_000)
    release(output)
    t.equal(output.length, 0)
    t.equal(output.buffer.byteLength, 0)
  }
  t.end()
})

t.test('a part of memory that has other owners stays', t => {
  const shared = new Uint8Array(8000)
  for (const part of [shared.subarray(0, 4000), shared.subarray(4000)]) {
    release(part)
    t.equal(part.length, 4000)
  }
  const pooled = Buffer.from('x'.repeat(2000))
  release(pooled)
  t.equal(pooled.length, 2000)
  t.end()
})

t.test('small memory is left to the garbage collector, and none can be released twice', t => {
  const small = new Uint8Array(10)
  release(small)
  t.equal(small.length, 10)
  const once = new Uint8Array(5000)
  release(once)
  t.doesNotThrow(() => release(once))
  t.end()
})
