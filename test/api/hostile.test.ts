/** Datagrams that nobody sent, beside a running transfer, over real sockets in a process that is measured. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'

const COUNT = 100_000
const MIB = 1 << 20
const child = join(import.meta.dirname, '../harness/hostile.js')

interface Facts {
  kinds: Record<string, number>
  sessions: number
  octets: number
  during: number
  intact: boolean
  heapGrowth: number
  rssGrowth: number
  server: { datagramsIn: number; drops: Record<string, number> }
  client: { datagramsIn: number; drops: Record<string, number> }
}

t.test(
  `${COUNT} random, truncated, changed, replayed and reflected datagrams leave the transfer whole and memory flat`,
  async t => {
    const run = promisify(execFile)
    const { stdout } = await run(process.execPath, ['--expose-gc', child, String(COUNT)], {
      timeout: 110_000,
    })
    const facts = JSON.parse(stdout) as Facts
    t.comment(stdout)
    t.ok(facts.intact, `${facts.octets} octets came whole, both ways`)
    t.ok(facts.during > MIB, `${facts.during} of them had gone both ways before the last datagram`)
    t.equal(facts.sessions, 1)
    for (const [kind, count] of Object.entries(facts.kinds)) t.ok(count > COUNT / 10, kind)
    // 80,000 datagrams of 700 octets would be 56 MB, if each left its octets behind.
    t.ok(facts.heapGrowth < 8 * MIB, `heap grew by ${facts.heapGrowth} octets`)
    t.ok(facts.rssGrowth < 64 * MIB, `the process grew by ${facts.rssGrowth} octets`)
    for (const { drops, datagramsIn } of [facts.server, facts.client]) {
      const dropped = Object.values(drops).reduce((sum, count) => sum + count, 0)
      t.ok(dropped > COUNT / 4, `${dropped} of ${datagramsIn} dropped`)
      for (const reason of ['replay', 'icv', 'unknownSpi', 'truncated']) {
        t.ok(drops[`esp.${reason}`]! > 20, reason)
      }
      t.ok(drops['datagram.invalid']! > 100)
    }
  },
)
