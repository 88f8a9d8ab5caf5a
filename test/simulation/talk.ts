/** One connection whose ends both have something to say, part by part, until all is said and both have closed. */
import { Stream, type World } from '../harness/world.ts'
import { allClosed, HOUR, noDrops, nothingLeft, secrecy, streamsIntact, trickle } from './audit.ts'

export class Talk {
  private readonly world: World
  private readonly stream: Stream
  private readonly serving: Stream

  /** `total`: octets that each end says in all. It is connected when this returns. */
  constructor(world: World, total: number) {
    this.world = world
    this.serving = trickle(new Stream(total, 2, 1))
    this.stream = trickle(new Stream(total, 1, 2))
    world.serve = () => this.serving
    world.connect(this.stream)
    // A handshake that is cut short for longer than the server keeps a half of one starts again, later.
    world.run(HOUR, () => world.accepted.length > 0)
  }

  /** Each end may say so many octets more. */
  say(octets: number): void {
    const { world, stream, serving } = this
    for (const [core, end] of [
      [world.client, stream],
      [world.server, serving],
    ] as const) {
      end.budget += octets
      world.work(core, end)
    }
  }

  /** Each end has heard all up to there. */
  isHeard(upTo: number): boolean {
    return this.stream.received >= upTo && this.serving.received >= upTo
  }

  /** The rest is said; returns what does not hold then. */
  finish(): string[] {
    const { world } = this
    this.say(Infinity)
    world.run(HOUR, () => allClosed(world))
    const problems = [...streamsIntact(world), ...noDrops(world)]
    world.run(HOUR)
    return [...problems, ...nothingLeft(world), ...secrecy(world)]
  }
}
