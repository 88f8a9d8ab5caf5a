/** The records of what is under way, by themselves. */
import t from 'tap'
import { SentSegments } from '../../lib/tcp/sent-segments.ts'
import { NONE, SlotSet } from '../../lib/tcp/slot-set.ts'
import { Random } from '../harness/random.ts'

const recordsOf = (count: number): { sent: SentSegments; slots: number[] } => {
  const sent = new SentSegments({ delivered: () => undefined, deliveredPart: () => undefined })
  const slots = Array.from({ length: count }, (_, i) => sent.sent(i * 100, i * 100 + 100, 0))
  return { sent, slots }
}

/** Their first sequence numbers, in the order in which they go out again. */
const repeated = (sent: SentSegments): number[] => {
  const order: number[] = []
  for (let slot = sent.firstLost; slot !== NONE; slot = sent.firstLost) {
    order.push(sent.seq(slot))
    sent.resent(slot, 1)
  }
  return order
}

t.test('what was lost goes out again in the order of the stream (RFC 6675 §4, NextSeg)', t => {
  const { sent, slots } = recordsOf(10)
  sent.sack(300, 500)
  sent.sack(600, 700)
  sent.sack(900, 1000)
  // As they are found when some of them were sent again before, and are lost once more.
  for (const i of [1, 8, 5, 2, 7, 0]) sent.markLost(slots[i]!)
  t.strictSame(repeated(sent), [0, 100, 200, 500, 700, 800])
  t.end()
})

t.test('after a timeout the first of the stream goes first (RFC 6298 §5.4)', t => {
  const { sent, slots } = recordsOf(6)
  sent.markLost(slots[4]!)
  sent.markLost(slots[0]!)
  sent.sack(100, 200)
  sent.acknowledge(200)
  t.equal(sent.firstLost, slots[4])
  sent.markLost(sent.first)
  t.equal(sent.firstLost, slots[2])
  t.equal(sent.lostCount, 2)
  sent.resent(slots[2]!, 1)
  t.equal(sent.firstLost, slots[4])
  sent.markLost(sent.first)
  t.equal(sent.firstLost, slots[2])
  t.equal(sent.pipe, 200)
  t.end()
})

t.test('what was lost stays so when the ring grows and when segments are cut', t => {
  const { sent, slots } = recordsOf(16)
  for (const i of [9, 3]) sent.markLost(slots[i]!)
  sent.sent(1600, 1700, 0)
  sent.split(50, false)
  t.equal(sent.length, 34)
  t.equal(sent.lostCount, 4)
  t.strictSame(repeated(sent), [300, 350, 900, 950])
  t.equal(sent.pipe, 1700)
  t.end()
})

t.test('what is lost is cut anew, but not over what has arrived or is under way', t => {
  const { sent, slots } = recordsOf(10)
  for (const i of [1, 2, 3, 5, 6, 9]) sent.markLost(slots[i]!)
  sent.resent(slots[3]!, 1)
  sent.markLost(slots[3]!)
  sent.sack(400, 500)
  sent.split(70, false)
  const found: string[] = []
  for (let i = 0; i < sent.length; i++) {
    const state = sent.isSacked(i) ? 's' : sent.isLost(i) ? 'l' : ''
    found.push(`${sent.seq(i)}:${sent.end(i)}${state}${sent.isRetransmitted(i) ? 'r' : ''}`)
  }
  t.strictSame(found, [
    '0:70',
    '70:100',
    '100:170l',
    '170:240l',
    // It has octets of the segment that was sent twice.
    '240:310lr',
    '310:380lr',
    '380:400lr',
    '400:500s',
    '500:570l',
    '570:640l',
    '640:700l',
    '700:770',
    '770:800',
    '800:870',
    '870:900',
    '900:970l',
    '970:1000l',
  ])
  t.equal(sent.pipe, 300)
  t.equal(sent.lostCount, 10)
  t.equal(sent.seq(sent.oldest), 0)
  t.end()
})

t.test('a FIN stands behind the last octet, wherever that is cut', t => {
  const cuts: readonly [number, readonly number[]][] = [
    [99, [99, 198, 297, 301]],
    [75, [75, 150, 225, 301]],
    [60, [60, 120, 180, 240, 301]],
  ]
  for (const [octets, ends] of cuts) {
    const { sent, slots } = recordsOf(3)
    slots.push(sent.sent(300, 301, 0))
    for (const slot of slots) sent.markLost(slot)
    sent.split(octets, true)
    const found = Array.from({ length: sent.length }, (_, i) => sent.end(i))
    t.strictSame(found, ends)
    t.equal(sent.lostCount, sent.length)
  }
  const { sent } = recordsOf(1)
  sent.sent(100, 101, 0)
  sent.split(60, true)
  t.strictSame([sent.end(0), sent.end(1), sent.end(2)], [60, 100, 101])
  t.end()
})

t.test('what was not lost after all is under way again, before what was sent later', t => {
  const { sent, slots } = recordsOf(4)
  for (const i of [2, 0]) sent.markLost(slots[i]!)
  sent.unmarkLost()
  t.equal(sent.firstLost, NONE)
  t.equal(sent.pipe, 400)
  t.equal(sent.oldest, slots[0])
  sent.markLost(slots[0]!)
  t.equal(sent.oldest, slots[2])
  t.end()
})

t.test('the next slot of a set is found around the ring, whatever its size', t => {
  const random = new Random(1)
  for (const capacity of [16, 32, 64, 1024, 65_536]) {
    let wrong = 0
    const set = new SlotSet(capacity)
    const members = new Set<number>()
    for (let turn = 0; turn < 500; turn++) {
      const slot = random.chance(0.3) ? turn % capacity : random.integer(0, capacity - 1)
      if (random.chance(0.5)) {
        set.add(slot)
        members.add(slot)
      } else {
        set.delete(slot)
        members.delete(slot)
      }
      const from = random.integer(0, capacity - 1)
      const away = (member: number): number => (member - from + capacity) % capacity
      const nearest = [...members].sort((one, other) => away(one) - away(other))[0] ?? NONE
      if (set.next(from) !== nearest) wrong++
    }
    t.equal(wrong, 0, `${capacity} slots`)
  }
  t.end()
})
