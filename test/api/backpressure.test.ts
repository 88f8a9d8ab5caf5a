/** A reader that is paused stops the writer, over real sockets in a process whose memory is measured. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import type { Facts } from '../harness/paused.ts'

const child = join(import.meta.dirname, '../harness/paused.js')
const CHUNK = 1 << 16
const MIB = 1 << 20

const run = promisify(execFile)
/** Side by side: they wait more than they work. */
const runs = ['server', 'client'].map(
  who => [who, run(process.execPath, ['--expose-gc', child, who], { timeout: 110_000 })] as const,
)

for (const [who, running] of runs) {
  t.test(
    `a paused ${who} stops its peer's writes, memory stays flat, and all arrives later`,
    async t => {
      const { stdout } = await running
      const facts = JSON.parse(stdout) as Facts
      t.comment(stdout)
      t.ok(facts.refused, 'write() said no')
      // The sender's queue, the receiver's window, both streams' marks, and the chunks that went past them.
      const bound = facts.buffers + facts.highWaterMark + 2 * CHUNK
      t.ok(
        facts.takenLater - facts.readWhilePaused <= bound,
        `${facts.takenLater} taken, bound ${bound}`,
      )
      // If nothing but the writer's own mark held, the window would not have been used.
      t.ok(facts.taken > facts.buffers / 2, 'and no sooner than the buffers were full')
      t.ok(
        facts.readWhilePaused <= facts.highWaterMark,
        `${facts.readWhilePaused} read while paused`,
      )
      const grown = facts.memoryLater - facts.memory
      t.ok(grown < MIB, `memory grew by ${grown} octets in ${facts.tries} more tries`)
      t.equal(facts.received, facts.total)
      t.ok(facts.intact, 'the hash is right')
    },
  )
}
