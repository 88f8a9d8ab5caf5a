/**
 * A wrong key and an unknown identity cost the server the same work and give the client the same octets.
 * Work is counted, not timed: each cryptographic operation of a whole run, in order, with its sizes.
 */
import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import t from 'tap'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const work: string[] = []
for (const name of ['createHmac', 'createHash', 'createCipheriv', 'createDecipheriv'] as const) {
  const make = crypto[name] as (algorithm: string, ...more: unknown[]) => object
  const counting = (algorithm: string, ...more: unknown[]): object => {
    const made = make(algorithm, ...more) as { update(data: Uint8Array): unknown }
    const update = made.update.bind(made)
    work.push(`${name} ${algorithm}`)
    made.update = data => {
      work.push(`${name} ${algorithm} ${data.length} octets`)
      return update(data)
    }
    return made
  }
  ;(crypto as unknown as Record<string, unknown>)[name] = counting
}
const { hash } = crypto
const countingHash = (algorithm: string, data: Uint8Array, encoding: 'buffer'): Buffer => {
  work.push(`hash ${algorithm} ${data.length} octets`)
  return hash(algorithm, data, encoding)
}
Object.assign(crypto, { hash: countingHash })
syncBuiltinESMExports()

interface Run {
  work: readonly string[]
  /** Sizes of the datagrams each end sent, in order. */
  sizes: readonly string[]
  error: Error | undefined
  server: World['server']
}

const key = 'simulated pre-shared key'

const run = (client: Options, psk: unknown, answer?: (world: World) => void): Run => {
  work.length = 0
  const sizes: string[] = []
  const world = new World(1, PERFECT, { localId: 'mallory.test', ...client }, { psk })
  world.filter = (to, bytes) => {
    sizes.push(`${bytes.length} octets to the ${to}`)
    return true
  }
  const stream = new Stream(1000, 1, 2)
  world.connect(stream)
  world.run(1000)
  answer?.(world)
  world.run(300_000)
  return { work: [...work], sizes, error: stream.error, server: world.server }
}

const answerWith =
  (findSecret: string | undefined) =>
  (world: World): void => {
    for (const event of world.events) {
      if (event.kind === 'question') world.server.answer(event.id, { findSecret }, world.now)
    }
    world.pump()
  }

t.test('a wrong key and an unknown identity: the same work, the same datagrams', t => {
  const wrong = run({}, { 'alice.test': key, 'mallory.test': 'another key for mallory' })
  const unknown = run({}, { 'alice.test': key, 'nobody.test': 'another key for mallory' })
  t.ok(wrong.work.length > 20, `${wrong.work.length} operations`)
  t.strictSame(unknown.work, wrong.work)
  t.ok(wrong.sizes.length >= 4)
  t.strictSame(unknown.sizes, wrong.sizes)
  t.equal(wrong.error?.message, unknown.error?.message)
  t.match(wrong.error, { code: 'AUTHENTICATION_FAILED' })
  t.ok(wrong.server.isIdle && unknown.server.isIdle)
  t.end()
})

t.test('so too when the program’s own function is asked', t => {
  const ask = (): undefined => undefined
  const wrong = run({}, ask, answerWith('another key for mallory'))
  const unknown = run({}, ask, answerWith(undefined))
  t.match(wrong.error, { code: 'AUTHENTICATION_FAILED' })
  t.strictSame(unknown.work, wrong.work)
  t.strictSame(unknown.sizes, wrong.sizes)
  t.end()
})

t.test('the count sees a difference where there is one', t => {
  const right = run({}, { 'mallory.test': key })
  const wrong = run({}, { 'mallory.test': 'another key for mallory' })
  t.equal(right.error, undefined)
  t.not(right.work.length, wrong.work.length)
  t.end()
})
