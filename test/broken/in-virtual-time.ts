/** A broken set-up between two whole ends in virtual time: how long each end waits, however busy this machine is. */
import { answerQuestion } from '../../lib/api/questions.ts'
import type { CoreEvent } from '../../lib/core/events.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'
import type { SetUp } from './set-ups.ts'

/** Milliseconds from the first datagram on. */
export interface Waits {
  /** Until the client's socket ends with its error; undefined: not within a minute. */
  readonly client: number | undefined
  /** Until the server's program hears of it; undefined: it never does. */
  readonly server: number | undefined
  /** What the client's error says. */
  readonly error: string | undefined
}

/** One way, in milliseconds: a round trip across a continent. */
const DELAY = 50
const MINUTE = 60_000

export const waitsOf = async ({ server, client }: SetUp): Promise<Waits> => {
  // No key, where the set-up has none.
  const ends = {
    client: { psk: undefined, ...client } as Options,
    server: { psk: undefined, ...server } as Options,
  }
  const world = new World(
    1,
    { ...PERFECT, delay: DELAY },
    ends.client,
    ends.server,
    undefined,
    () => Date.now(),
  )
  world.answers = async (side, question) => {
    const answer = await answerQuestion(question, side === 'client' ? client : server)
    return answer[question.kind]
  }
  if (server.maxSessions === 1) {
    world.becomes({ ...ends.client, localId: 'first' })
    const first = new Stream(1, 1, 2)
    first.budget = 0
    world.connect(first)
    await world.settle(MINUTE, () => first.connection !== undefined)
    world.becomes(ends.client)
    world.restart('client')
  }
  const start = world.now
  const known = new Set(world.events)
  const stream = new Stream(0, 1, 2)
  const waits: { client?: number; server?: number } = {}
  const isTold = (event: CoreEvent): boolean => event.kind === 'refused' && !known.has(event)
  world.connect(stream)
  await world.settle(MINUTE, () => {
    if (stream.closed) waits.client ??= world.now - start
    if (world.events.some(isTold)) waits.server ??= world.now - start
    return waits.client !== undefined && waits.server !== undefined
  })
  return { client: waits.client, server: waits.server, error: stream.error?.message }
}
