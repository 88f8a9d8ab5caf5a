/**
 * Many short requests whose first octets go with the SYN, on a network that loses, repeats and reorders, towards a server
 * that resets some of them as soon as it has them, or whose answers find no way for a while. A request is never done
 * twice, whatever comes again, and one that nobody broke is done once.
 */
import type { Tracer } from '../../lib/base/trace.ts'
import { Random } from '../harness/random.ts'
import { Stream, World } from '../harness/world.ts'
import { allClosed, HOUR, nothingLeft, outcome, secrecy, type Outcome } from './audit.ts'

/** Some clients hear nothing for so long that they make another SA, and begin over it what they had begun. */
const PATIENT = 15
const IMPATIENT = 3

export const runRequests = (seed: number, tracer?: Tracer): Outcome => {
  const random = new Random(seed ^ 0x0ce1)
  const tries = new Random(seed ^ 0x7713).chance(0.3) ? IMPATIENT : PATIENT
  const world = new World(
    seed,
    {
      loss: random.chance(0.3) ? 0 : random.fraction() * 0.25,
      duplicate: random.chance(0.5) ? 0 : random.fraction() * 0.2,
      corrupt: 0,
      delay: random.integer(0, 60),
      jitter: random.chance(0.3) ? 0 : random.integer(0, 60),
    },
    { mode: random.chance(0.7) ? 'auto' : 'tunnel', idleTimeout: 3000, retransmit: { tries } },
    { retransmit: { tries: PATIENT } },
    tracer,
  )
  const count = random.integer(3, 12)
  const breaks = random.chance(0.5)
  const isDumb = tries === IMPATIENT || random.chance(0.3)
  /** By the stream of the client: how often the server got its first octets, and broke with it. */
  const done = new Map<Stream, number>()
  const broken = new Set<Stream>()
  const served: Stream[] = []
  world.serve = (_, client) => {
    const stream = new Stream(random.integer(0, 4000), client!.peerStream, client!.ownStream)
    served.push(stream)
    stream.partner = client
    const read = stream.read.bind(stream)
    stream.read = () => {
      const before = stream.received
      read()
      if (before > 0 || stream.received === 0) return
      done.set(client!, (done.get(client!) ?? 0) + 1)
      if (!breaks || !random.chance(0.4)) return
      broken.add(client!)
      stream.closed = true
      stream.connection!.abort()
    }
    return stream
  }
  for (let i = 0; i < count; i++) {
    const stream = new Stream(random.integer(1, 6000), 2 * i + 1, 2 * i + 2)
    stream.first = random.chance(0.8) ? random.integer(1, 3000) : 0
    world.connect(stream)
    world.run(random.integer(0, 400))
    if (!isDumb || !random.chance(0.3)) continue
    // Requests arrive, and no answer does.
    world.deaf.add('client')
    world.run(random.integer(100, 20_000))
    world.deaf.delete('client')
  }
  world.run(HOUR, () => allClosed(world))
  // A client that has sent everything learns of a reset that was lost by nothing but its own.
  for (const stream of broken) {
    if (stream.closed) continue
    stream.closed = true
    stream.connection!.abort()
  }
  const problems: string[] = []
  for (const [i, stream] of world.streams.entries()) {
    const times = done.get(stream) ?? 0
    if (times > 1) problems.push(`request ${i} was done ${times} times`)
    if (!stream.closed) problems.push(`request ${i} did not end`)
    // Where the server's answers were lost for long, it may have been refused when it began again.
    if (broken.has(stream) || isDumb) continue
    if (stream.error !== undefined) problems.push(`request ${i}: ${stream.error.message}`)
    if (times === 0) problems.push(`request ${i} was never done`)
    const answer = served.find(({ partner }) => partner === stream)
    if (answer?.received !== stream.toSend) problems.push(`request ${i} is not whole`)
    if (stream.received !== answer?.toSend) problems.push(`answer ${i} is not whole`)
  }
  for (const stream of [...world.streams, ...world.accepted]) {
    if (stream.corrupted) problems.push('a stream is not what was sent')
  }
  world.run(HOUR)
  problems.push(...nothingLeft(world), ...secrecy(world))
  return outcome(seed, world, problems)
}
