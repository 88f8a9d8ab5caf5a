/** Each target of the fuzzer with a fixed seed, and every input that ever showed a mistake. */
import t from 'tap'
import { fromHex } from '../../lib/base/bytes.ts'
import { Random } from '../harness/random.ts'
import { aeads } from './aeads.ts'
import { PARSERS, runCase } from './parsers.ts'
import { FOUND } from './found.ts'
import { STORIES } from './stateful.ts'
import { accumulate, slowestOf } from './accumulating.ts'

for (const target of PARSERS) {
  t.test(`3000 inputs of ${target.name}: no exception, work in proportion, promises kept`, t => {
    for (let seed = 1; seed <= 3000; seed++) {
      const input = target.make(new Random(seed))
      try {
        runCase(target, input)
      } catch (error) {
        t.error(error, `seed ${seed}`)
        break
      }
    }
    t.end()
  })
}

t.test('200 keys of AEADs: each implementation says of a packet what node:crypto says', t => {
  for (let seed = 1; seed <= 200; seed++) {
    try {
      aeads.run(seed)
    } catch (error) {
      t.error(error, `seed ${seed}`)
      break
    }
  }
  t.end()
})

for (const story of STORIES) {
  t.test(`40 conversations of ${story.name}: no exception, no flood, and it still serves`, t => {
    let taken = 0
    const seen = new Set<string>()
    for (let seed = 1; seed <= 40; seed++) {
      try {
        taken += story.run(seed, ({ name }) => seen.add(name))
      } catch (error) {
        t.error(error, `seed ${seed}`)
        break
      }
    }
    t.ok(taken > 1000, `${taken} datagrams or segments`)
    // Conversations that ended at the first message would find nothing.
    if (seen.size > 0) t.ok(seen.has('ike.rekeyed') && seen.has('child.rekeyed'), [...seen].join())
    t.end()
  })
}

t.test('clients that stay: all within its bounds, no dear message, nothing left at the end', t => {
  const most = { sas: 0, children: 0, connections: 0 }
  const seen = new Set<string>()
  // Seeds that come to many SAs, Child SAs and connections.
  for (const seed of [3, 4, 11]) {
    try {
      const account = accumulate(seed)
      for (const name of account.seen) seen.add(name)
      most.sas = Math.max(most.sas, account.most.sas)
      most.children = Math.max(most.children, account.most.children)
      most.connections = Math.max(most.connections, account.most.connections)
      // Repeated where one cost much: a collection of garbage does not come at the same message again.
      const once = slowestOf([account])
      const slowest =
        once.millis > 30 ? slowestOf([account, accumulate(seed), accumulate(seed)]) : once
      t.ok(slowest.millis < 30, `seed ${seed}, ${slowest.kind}: ${slowest.millis} ms`)
    } catch (error) {
      t.error(error, `seed ${seed}`)
    }
  }
  t.ok(
    most.sas > 6 && most.children > 20 && most.connections > 10,
    `it accumulates: ${JSON.stringify(most)}`,
  )
  t.ok(seen.has('ike.rekeyRefused') && seen.has('child.installed'), [...seen].join())
  t.end()
})

t.test('what was found before stays mended', t => {
  for (const { target, input } of FOUND) {
    const parser = PARSERS.find(({ name }) => name === target)!
    t.doesNotThrow(() => runCase(parser, fromHex(input)), `${target} ${input}`)
  }
  t.end()
})
