/** What is given back is gone, and nothing else is. */
import { createCipheriv } from 'node:crypto'
import t from 'tap'
import { adopt, release } from '../../lib/base/external.ts'

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

t.test('small memories are freed together, at least with the next large one', t => {
  const all = Array.from({ length: 40 }, () => new Uint8Array(1400))
  for (const one of all) {
    release(one)
    release(one)
  }
  t.ok(all.some(({ length }) => length === 0))
  release(new Uint8Array(60_000))
  t.ok(all.every(({ length }) => length === 0))
  t.end()
})

t.test('what somebody keeps is not freed', t => {
  const cipher = createCipheriv('aes-128-gcm', new Uint8Array(16), new Uint8Array(12))
  const output = cipher.update(new Uint8Array(60_000))
  const wanted = output.subarray(20, 59_990)
  t.equal(adopt(wanted), true)
  release(output)
  t.equal(wanted.length, 59_970)
  t.equal(output.buffer.byteLength, 60_000)
  t.end()
})

t.test('few octets do not keep much memory', t => {
  const large = new Uint8Array(60_000)
  t.equal(adopt(large.subarray(0, 20_000)), false)
  t.equal(adopt(large.subarray(0, 45_000)), true)
  t.equal(adopt(new Uint8Array(16_383)), false)
  const freed = new Uint8Array(60_000)
  t.equal(adopt(freed.subarray(0, 44_999)), false)
  release(freed)
  t.equal(freed.buffer.byteLength, 0)
  t.end()
})
