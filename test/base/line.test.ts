/** A line keeps the order in which its members came, and each is in it once. */
import t from 'tap'
import { Line, type InLine } from '../../lib/base/line.ts'

class Member implements InLine<Member> {
  preceding: Member | undefined
  following: Member | undefined
  isInLine = false
}

const members = (count: number): Member[] => Array.from({ length: count }, () => new Member())

/** All of them, until it is empty. */
const drained = (line: Line<Member>): Member[] => {
  const all: Member[] = []
  for (let member = line.shift(); member !== undefined; member = line.shift()) all.push(member)
  return all
}

t.test('whoever came first leaves first, and may come again', t => {
  const [a, b, c] = members(3) as [Member, Member, Member]
  const line = new Line<Member>()
  t.equal(line.shift(), undefined)
  for (const member of [a, b, a, c, b]) line.add(member)
  t.equal(line.first, a)
  t.strictSame(drained(line), [a, b, c])
  t.equal(line.first, undefined)
  line.add(b)
  line.add(a)
  t.strictSame(drained(line), [b, a])
  t.strictSame(
    [a, b, c].filter(member => member.isInLine || member.following || member.preceding),
    [],
  )
  t.end()
})

t.test('one leaves wherever it stands, and one that is not there stays away', t => {
  for (const at of [0, 1, 2]) {
    const all = members(3)
    const line = new Line<Member>()
    for (const member of all) line.add(member)
    line.delete(all[at]!)
    line.delete(all[at]!)
    t.equal(line.first, all[at === 0 ? 1 : 0])
    line.add(all[at]!)
    t.strictSame(drained(line), [...all.filter((_, i) => i !== at), all[at]])
  }
  t.end()
})

t.test('one that rotates goes behind all others', t => {
  const [a, b, c] = members(3) as [Member, Member, Member]
  const line = new Line<Member>()
  line.rotate()
  line.add(a)
  line.rotate()
  t.equal(line.first, a)
  line.add(b)
  line.rotate()
  line.add(c)
  t.strictSame(drained(line), [b, a, c])
  t.end()
})
