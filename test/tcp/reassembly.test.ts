/** What came is put in order, within bounds that the sender does not choose. */
import t from 'tap'
import { Reassembly } from '../../lib/tcp/reassembly.ts'
import { Random } from '../harness/random.ts'

const octetAt = (offset: number): number => (offset * 7 + (offset >>> 8)) & 0xff
const stretch = (from: number, to: number): Uint8Array =>
  Uint8Array.from({ length: to - from }, (_, i) => octetAt(from + i))

/** Memory behind what is held: each buffer once. */
const heldOctets = (reassembly: Reassembly): number => {
  const buffers = new Set<ArrayBufferLike>()
  const visit = (value: unknown): void => {
    if (value instanceof Uint8Array) buffers.add(value.buffer)
    else if (Array.isArray(value)) value.forEach(visit)
    else if (typeof value === 'object' && value !== null) Object.values(value).forEach(visit)
  }
  visit(reassembly)
  return [...buffers].reduce((sum, { byteLength }) => sum + byteLength, 0)
}

/** Pieces share a block until it is full. They are parts of something larger, else they would stay where they are. */
const fillBlock = (): void => {
  const other = new Reassembly()
  const octets = new Uint8Array(120_000).subarray(60_000)
  for (let at = 0; at < 2 << 20; at += octets.length) {
    other.add(at, octets, at)
    other.take(Infinity)
  }
}

t.test('any order, any overlap, any reading: the stream comes out as it went in', t => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = new Random(seed)
    const reassembly = new Reassembly()
    const total = random.integer(1, 4000)
    const base = seed % 3 === 0 ? 0xffff_ff00 : 1000
    let next = base
    let read = 0
    let wrong = 0
    const longest = random.chance(0.5) ? 5 : 900
    while (read < total) {
      const done = (next - base) >>> 0
      // What is missing comes often enough.
      const from = random.chance(0.3) ? done : random.integer(0, total - 1)
      const to = Math.min(total, from + random.integer(1, longest))
      if (to > done) next = reassembly.add((base + from) >>> 0, stretch(from, to), next)
      if (random.chance(0.5)) continue
      const piece = reassembly.take(random.chance(0.5) ? Infinity : random.integer(1, 700))
      for (const octet of piece ?? []) if (octet !== octetAt(read++)) wrong++
    }
    if (wrong > 0) t.fail(`seed ${seed}: ${wrong} octets`)
    if (reassembly.readable !== 0 || reassembly.hasGap) t.fail(`seed ${seed}: something is left`)
  }
  t.end()
})

t.test(
  'CVE-2018-5390: one new octet in each large segment holds one octet, and so many pieces at most',
  t => {
    const reassembly = new Reassembly()
    for (let i = 0; i < 20_000; i++) reassembly.add(1000 + i, new Uint8Array(1400), 0)
    fillBlock()
    t.ok(heldOctets(reassembly) < 100_000, `${heldOctets(reassembly)} octets held`)
    const sparse = new Reassembly()
    for (let i = 0; i < 20_000; i++) sparse.add(1000 + 2 * i, new Uint8Array(1), 0)
    fillBlock()
    t.ok(heldOctets(sparse) < 1000)
    t.end()
  },
)

t.test('with no place left ahead of gaps, the next octets in order are still accepted', t => {
  const reassembly = new Reassembly()
  for (let i = 0; i < 300; i++) reassembly.add(1000 + 2 * i, new Uint8Array(1), 0)
  t.equal(reassembly.add(0, new Uint8Array(10), 0), 10)
  const pieces = new Reassembly()
  for (let i = 0; i < 9000; i++) pieces.add(1000 + i, new Uint8Array(1), 0)
  t.equal(pieces.add(0, new Uint8Array(10), 0), 10)
  t.ok(pieces.add(10, new Uint8Array(990), 10) >= 9000)
  t.end()
})

t.test('unread data keeps no memory beyond its own octets, and does not change', t => {
  const reassembly = new Reassembly()
  reassembly.add(0, stretch(0, 1400), 0)
  reassembly.add(2000, stretch(2000, 3400), 1400)
  fillBlock()
  t.ok(heldOctets(reassembly) <= 2800, `${heldOctets(reassembly)} octets held`)
  t.equal(reassembly.add(1400, stretch(1400, 2000), 1400), 3400)
  const read = []
  for (let piece = reassembly.take(Infinity); piece; piece = reassembly.take(Infinity))
    read.push(...piece)
  t.strictSame(read, [...stretch(0, 3400)])
  t.end()
})

t.test('single octets that nobody reads share memory', t => {
  const reassembly = new Reassembly()
  for (let i = 0; i < 100_000; i++) reassembly.add(i, Uint8Array.of(octetAt(i)), i)
  t.equal(reassembly.readable, 100_000)
  t.ok(heldOctets(reassembly) < 120_000)
  let read = 0
  let wrong = 0
  for (
    let piece = reassembly.take(Infinity);
    piece !== undefined;
    piece = reassembly.take(Infinity)
  ) {
    for (const octet of piece) if (octet !== octetAt(read++)) wrong++
  }
  t.equal(wrong, 0)
  t.equal(read, 100_000)
  t.end()
})

t.test('data received in small pieces is read in large chunks', t => {
  const reassembly = new Reassembly()
  const count = 150
  for (let i = 0; i < count; i++) {
    const at = i * 1000
    reassembly.add(at, stretch(at, at + 1000), at)
  }
  const chunks: Uint8Array[] = []
  for (
    let chunk = reassembly.take(Infinity);
    chunk !== undefined;
    chunk = reassembly.take(Infinity)
  )
    chunks.push(chunk)
  t.ok(chunks.length <= 4, `${chunks.length} chunks`)
  t.ok(chunks.every(({ length }) => length <= 65_536))
  t.same(Buffer.concat(chunks), Buffer.from(stretch(0, count * 1000)))
  t.equal(reassembly.readable, 0)
  t.end()
})
