/** The records of what is under way, by themselves. */
import t from 'tap'
import { SentSegments } from '../../lib/tcp/sent-segments.ts'

t.test('after a timeout the first of the stream goes first (RFC 6298 §5.4)', t => {
  const sent = new SentSegments({ delivered: () => undefined, deliveredPart: () => undefined })
  const slots = Array.from({ length: 6 }, (_, i) => sent.sent(i * 100, i * 100 + 100, 0))
  // A gap between those that were found lost in a row: the next one is found after one behind it.
  sent.markLost(slots[4]!)
  sent.markLost(slots[0]!)
  sent.sack(100, 200)
  sent.markLost(slots[2]!)
  sent.acknowledge(200)
  t.equal(sent.firstLost, slots[4])
  sent.markFirstLost()
  t.equal(sent.firstLost, slots[2])
  t.equal(sent.lostCount, 2)
  sent.resent(slots[2]!, 1)
  t.equal(sent.firstLost, slots[4])
  sent.markFirstLost()
  t.equal(sent.firstLost, slots[2])
  t.equal(sent.pipe, 200)
  t.end()
})
