/** A queue of octets gives out what was put in, in blocks that it shares with nobody while it has octets in them. */
import t, { type Test } from 'tap'
import { ByteQueue, forgetSpares, trimSpares } from '../../lib/base/byte-queue.ts'

const octets = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i * 31 + seed * 7) & 255)

/** All of it, and nothing beside it is written. */
const read = (t: Test, queue: ByteQueue): Uint8Array => {
  const count = queue.length
  const copy = new Uint8Array(count + 2).fill(0xee)
  queue.copyTo(copy, 1, 0, count)
  t.equal(copy[0], 0xee)
  t.equal(copy[count + 1], 0xee)
  return copy.subarray(1, count + 1)
}

/** Numbers that look random and are the same each time. */
const numbers = (): ((below: number) => number) => {
  let state = 12345
  return below => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return (state >>> 8) % below
  }
}

t.test('an empty queue keeps no memory, and what was in it stays right', t => {
  const queue = new ByteQueue(1 << 20)
  for (const size of [10, 4096, 4097, 5000, 32_768, 32_769, 200_000]) {
    const given = octets(size, size)
    t.equal(queue.push(given), size)
    t.ok(Buffer.from(read(t, queue)).equals(given))
    queue.drop(size)
    t.equal(queue.memory, 0)
    t.equal(queue.length, 0)
  }
  t.end()
})

t.test('it takes no more than its limit, and holds little memory for little', t => {
  const queue = new ByteQueue(100_000)
  t.equal(queue.push(octets(10, 1)), 10)
  t.equal(queue.memory, 4096)
  t.equal(queue.push(octets(200_000, 2)), 99_990)
  t.equal(queue.room, 0)
  t.equal(queue.push(octets(1, 3)), 0)
  t.ok(queue.memory <= 100_000 + 4096 + 32_768)
  queue.clear()
  t.equal(queue.room, 100_000)
  t.equal(queue.memory, 0)
  t.end()
})

t.test(
  'many queues that are filled, read and emptied in any order never see octets of each other',
  t => {
    const draw = numbers()
    const queues = Array.from({ length: 5 }, () => ({
      queue: new ByteQueue(300_000),
      held: new Uint8Array(0),
    }))
    const wrong: string[] = []
    for (let step = 0; step < 4000; step++) {
      const one = queues[draw(queues.length)]!
      const { queue } = one
      switch (draw(4)) {
        case 0:
        case 1: {
          const given = octets([7, 1400, 4096, 65_000][draw(4)]! + draw(9), step)
          const taken = queue.push(given)
          if (taken !== Math.min(given.length, 300_000 - one.held.length)) wrong.push('taken')
          const held = new Uint8Array(one.held.length + taken)
          held.set(one.held)
          held.set(given.subarray(0, taken), one.held.length)
          one.held = held
          break
        }
        case 2: {
          const count = draw(8) === 0 ? queue.length : draw(Math.min(queue.length, 90_000) + 1)
          queue.drop(count)
          one.held = one.held.slice(count)
          break
        }
        default: {
          const from = draw(queue.length + 1)
          const count = Math.min(queue.length - from, draw(70_000))
          const copy = new Uint8Array(count)
          queue.copyTo(copy, 0, from, count)
          if (!Buffer.from(copy).equals(one.held.subarray(from, from + count))) wrong.push('read')
        }
      }
      if (queue.length !== one.held.length) wrong.push('length')
      if (queue.memory > queue.length + 2 * 32_768 + 4096) wrong.push('memory')
    }
    t.same(wrong, [])
    for (const { queue, held } of queues) {
      const copy = new Uint8Array(queue.length)
      queue.copyTo(copy, 0, 0, queue.length)
      t.ok(Buffer.from(copy).equals(held))
      queue.clear()
    }
    t.end()
  },
)

const blocksOf = (queue: ByteQueue): Uint8Array[] => [
  ...(queue as unknown as { blocks: Uint8Array[] }).blocks,
]

t.test('a block is used again when its octets are gone, and by one queue at a time', t => {
  const [one, other] = [new ByteQueue(1 << 20), new ByteQueue(1 << 20)]
  one.push(octets(1 << 20, 1))
  const first = blocksOf(one)
  other.push(octets(1 << 20, 2))
  t.notOk(blocksOf(other).some(block => first.includes(block)))
  one.drop(1 << 19)
  const freed = first.slice(0, 16)
  one.push(octets(1 << 19, 3))
  t.ok(
    blocksOf(one)
      .slice(16)
      .every(block => freed.includes(block)),
  )
  t.notOk(blocksOf(other).some(block => first.includes(block)))
  one.clear()
  other.clear()
  t.end()
})

t.test(
  'blocks that nobody uses are kept, but few in all; when a sender is gone as many as are used, and when it rests no more than these',
  t => {
    const queues = Array.from({ length: 20 }, () => new ByteQueue(1 << 20))
    const given = octets(1 << 20, 1)
    const known = new Set<Uint8Array>()
    const fill = (some: readonly ByteQueue[]): number => {
      for (const queue of some) queue.push(given)
      const blocks = some.flatMap(blocksOf)
      const again = blocks.filter(block => known.has(block)).length
      for (const block of blocks) known.add(block)
      return again
    }
    fill(queues)
    for (const queue of queues) queue.clear()
    t.equal(fill(queues), 512, '16 MiB at most')
    for (const queue of queues.slice(2)) queue.clear()
    trimSpares()
    t.equal(fill(queues.slice(2)), 64, 'as many as two queues use')
    for (const queue of queues) queue.clear()
    trimSpares()
    t.equal(fill(queues), 2, 'all are gone')
    for (const queue of queues) queue.clear()
    forgetSpares()
    t.equal(fill(queues), 0, 'all have rested for long')
    t.end()
  },
)
