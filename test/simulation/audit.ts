/** What must hold after a run: the streams, the SAs at rest, and that nothing is left after the end. */
import type { Core } from '../../lib/core/core.ts'
import type { Session } from '../../lib/core/session.ts'
import type { SessionHandle } from '../../lib/core/events.ts'
import type { Side, Stream, World } from '../harness/world.ts'

export interface Outcome {
  readonly seed: number
  readonly problems: readonly string[]
  /** A fingerprint of all datagrams. */
  readonly trace: number
  readonly virtualSeconds: number
  readonly childRekeys: number
  readonly ikeRekeys: number
}

const SIDES: readonly Side[] = ['client', 'server']

/** The SAs of a session and commands on single ones; production code has no use for them. */
export const internals = (session: SessionHandle) => {
  const whole = session as Session
  const { current, sas } = whole['lineage']
  return { current, sas, children: childrenOf(whole) }
}

/** Those that only linger too, the newest first. */
const childrenOf = (session: Session) => [...session['children']['bySpi'].values()].reverse()

const sessionsOf = (core: Core): Session[] => [...core['sessions']]

/** A number for each kind of dropped datagram, without those that a harsh network explains. */
export const drops = (core: Core, name: string): number => core.counters.drops[name] ?? 0

/** These never happen on a network that does not corrupt, whatever it loses, repeats or delays. */
const NEVER = [
  'esp.unknownSpi',
  'esp.icv',
  'esp.padding',
  'esp.truncated',
  'esp.selectors',
  'esp.nextHeader',
  'esp.bundle',
  'esp.exhausted',
  'tcp.noSa',
  'tcp.malformed',
  'tcp.truncated',
  'ike.malformed',
  'datagram.invalid',
]

export const noDrops = (world: World, allowed: readonly string[] = []): string[] =>
  SIDES.flatMap(side =>
    NEVER.filter(name => !allowed.includes(name) && drops(world[side], name) > 0).map(
      name => `the ${side} dropped ${drops(world[side], name)} datagrams: ${name}`,
    ),
  )

/** One IKE SA at each end, the same one, and `count` Child SAs, each with its mirror image. */
export const atRest = (world: World, count: number): string[] => {
  const problems: string[] = []
  const ends = SIDES.map(side => {
    const sessions = sessionsOf(world[side]).filter(session => !session.isOver)
    const sas = sessions.flatMap(session => session['lineage'].sas)
    const children = sas.flatMap(sa => [...sa.children.values()])
    const pairs = sessions.flatMap(childrenOf)
    if (sas.length !== 1) problems.push(`the ${side} has ${sas.length} IKE SAs`)
    if (children.length !== count) problems.push(`the ${side} has ${children.length} Child SAs`)
    if (pairs.length !== count) problems.push(`the ${side} has ${pairs.length} pairs of ESP SAs`)
    if (world[side]['sad'].size !== count)
      problems.push(`the ${side} has ${world[side]['sad'].size} inbound SPIs`)
    for (const sa of sas) {
      if (sa.state !== 'established') problems.push(`an IKE SA of the ${side} is ${sa.state}`)
      if (sa.rekeying.own !== undefined || sa.rekeying.peer !== undefined)
        problems.push(`a rekey of the ${side}'s IKE SA has no end`)
    }
    for (const child of children) {
      if (child.state !== 'installed') problems.push(`a Child SA of the ${side} is ${child.state}`)
      if (!child.outboundReady) problems.push(`the ${side} does not send on a Child SA`)
    }
    for (const pair of pairs) {
      if (pair.removeAt !== Infinity) problems.push(`an ESP SA of the ${side} lingers`)
    }
    return { sas, children }
  })
  const [client, server] = ends as [(typeof ends)[0], (typeof ends)[0]]
  if (client.sas[0]?.ownSpi === undefined || server.sas[0] === undefined) return problems
  const names = ends.map(({ sas }) => `${sas[0]!.spiI.join()} ${sas[0]!.spiR.join()}`)
  if (names[0] !== names[1]) problems.push('the ends have different IKE SAs')
  for (const child of client.children) {
    const mirrored = server.children.some(
      ({ inboundSpi, outboundSpi }) =>
        inboundSpi === child.outboundSpi && outboundSpi === child.inboundSpi,
    )
    if (!mirrored) problems.push('a Child SA has no mirror image')
  }
  return problems
}

/** Each pair of streams: exactly once and in order, and an orderly end. */
export const streamsIntact = (world: World, restarted = false): string[] => {
  const problems: string[] = []
  for (const stream of [...world.streams, ...world.accepted]) {
    if (stream.corrupted) problems.push('a stream is not what was sent')
    const { partner } = stream
    if (partner !== undefined && partner.received > Math.max(stream.sent, stream.offered))
      problems.push('a stream has more octets than were sent')
  }
  for (const [i, stream] of world.streams.entries()) {
    const { partner } = stream
    if (stream.lost || partner?.lost === true) continue
    // What was being opened while an end was killed may fail, as long as it says so.
    if (restarted && stream.closed && partner === undefined) continue
    if (!stream.closed) problems.push(`client stream ${i} did not close`)
    if (stream.error !== undefined) problems.push(`client stream ${i}: ${stream.error.message}`)
    if (partner === undefined) {
      problems.push(`client stream ${i} was not accepted`)
      continue
    }
    if (!partner.closed) problems.push(`server stream ${i} did not close`)
    if (partner.error !== undefined) problems.push(`server stream ${i}: ${partner.error.message}`)
    for (const [from, to, way] of [
      [stream, partner, 'to the server'],
      [partner, stream, 'to the client'],
    ] as const) {
      if (from.sent !== from.toSend) problems.push(`stream ${i} ${way} was not sent to its end`)
      if (to.received !== from.sent)
        problems.push(`stream ${i} ${way}: ${to.received} of ${from.sent} octets`)
    }
  }
  return problems
}

/** After the last SA has closed and the answers it repeats are forgotten. */
export const nothingLeft = (world: World): string[] => {
  const problems: string[] = []
  for (const side of SIDES) {
    const core = world[side]
    const left = {
      sessions: core['sessions'].size,
      'IKE SAs': core.saCount,
      'inbound SPIs': core['sad'].size,
      stacks: core['stacks'].size,
      'half-open handshakes': core['strangers']?.count ?? 0,
      questions: core['questions'].size,
    }
    for (const [what, count] of Object.entries(left)) {
      if (count !== 0) problems.push(`the ${side} keeps ${count} ${what}`)
    }
    if (core.nextTimeout() !== Infinity) problems.push(`the ${side} keeps a timer`)
  }
  return problems
}

export const secrecy = (world: World): string[] => [
  ...(world.repeatedIvs > 0 ? [`${world.repeatedIvs} (key, IV) pairs were used twice`] : []),
  ...(world.wrongKeys > 0 ? [`${world.wrongKeys} keys are not those of one SA at both ends`] : []),
  ...(world.leaked ? ['plaintext on the wire'] : []),
]

export const allClosed = (world: World): boolean =>
  [...world.streams, ...world.accepted].every(({ closed }) => closed)

/** The end that tells it all; `problems` are those found on the way. */
export const outcome = (seed: number, world: World, problems: readonly string[]): Outcome => {
  const infos = SIDES.flatMap(side => world.sessions[side].map(session => session.info()))
  return {
    seed,
    problems: [...new Set(problems)],
    trace: world.trace,
    virtualSeconds: world.now / 1000,
    childRekeys: infos.reduce((sum, { childRekeys }) => sum + childRekeys, 0) / 2,
    ikeRekeys: infos.reduce((sum, { ikeRekeys }) => sum + ikeRekeys, 0) / 2,
  }
}

export const HOUR = 3600_000
export const MINUTE = 60_000

/** A stream without end for now: what it sends is released piece by piece. */
export const trickle = (stream: Stream): Stream => {
  stream.budget = 0
  return stream
}
