/** The notify that takes room: its size, what it asks for, and that nothing else is taken for it. */
import t from 'tap'
import { utf8 } from '../../lib/base/bytes.ts'
import { fillerIn, fillerPayload } from '../../lib/wire/filler.ts'
import { notify } from '../../lib/wire/notify.ts'
import { writeChain } from '../../lib/wire/payload-chain.ts'
import { NotifyType } from '../../lib/wire/registry.ts'

t.test('it takes as much room as it is told, and no less than it needs', t => {
  for (const room of [100, 1200, 9000]) {
    const payload = fillerPayload(room, 1280)
    t.equal(writeChain([payload]).bytes.length, room)
    t.strictSame(fillerIn([payload]), { wanted: 1280, octets: room })
  }
  const least = writeChain([fillerPayload(-60, 0)]).bytes.length
  t.ok(least < 40)
  t.strictSame(fillerIn([fillerPayload(0, 65_535)]), { wanted: 65_535, octets: least })
  t.end()
})

t.test('the same number of another product is not ours', t => {
  t.equal(fillerIn([]), undefined)
  for (const data of ['', 'ike-socket/size', 'ike-socket/sizf..', 'something else that is long'])
    t.equal(fillerIn([notify(NotifyType.Filler, utf8(data))]), undefined)
  t.end()
})
