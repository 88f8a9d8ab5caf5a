/**
 * The rules of the exchange model and of roaming, each taken out: copies of the compiled sources in which one passage
 * says something else. A simulation that does not notice is no proof of the rule.
 */
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'

interface Edit {
  readonly file: string
  /** Stands there exactly once. */
  readonly from: string
  readonly to: string
}

export interface Rule {
  readonly says: string
  readonly edits: readonly Edit[]
  /** Seeds of that kind of run that find it missing. */
  readonly seeds: readonly number[]
  /** Default `rekeying`. */
  readonly kind?: string
}

const edit = (file: string, from: string, to: string): Edit => ({ file, from, to })

export const RULES: Readonly<Record<string, Rule>> = {
  E1: {
    says: 'an exchange is validated when it starts, not when it was queued',
    edits: [
      edit('ike/rekey-child.js', "child.state !== 'installed' || !child", '!child'),
      edit('ike/rekey-child.js', 'child.rekeying.peer !== undefined || sa.state', 'sa.state'),
      edit(
        'ike/rekey-ike.js',
        'sa.rekeying.own !== undefined || sa.rekeying.peer !== undefined',
        'false',
      ),
    ],
    seeds: [329, 682],
  },
  E2: {
    says: 'an SA that the peer made is not rekeyed by us until the peer has shown that it holds it',
    edits: [edit('ike/rekey-child.js', ' || !child.outboundReady)', ')')],
    seeds: [94, 135],
  },
  E3: {
    says: 'the responder sends on the new SA only after traffic on it or the Delete of the old one',
    edits: [edit('ike/rekey-child.js', 'outboundReady: false', 'outboundReady: true')],
    seeds: [94],
  },
  E4: {
    says: 'a replacement that the peer uses for more than its own Delete is the survivor',
    edits: [
      edit('ike/ike-sa.js', "this.state === 'provisional' && !isDeleteOfIke(payloads)", 'false'),
    ],
    // One run in many thousands; test/ike/rekey-ike.test.ts scripts it.
    seeds: [],
  },
  E5: {
    says: 'the Delete of the old IKE SA settles a simultaneous rekey',
    edits: [
      edit('ike/informational.js', 'if (sa.rekeying.own?.replacement === undefined)', 'if (false)'),
    ],
    seeds: [47, 117],
  },
  E6: {
    says: "whoever waits for the other's Delete does it itself in the end",
    edits: [edit('ike/ike-sa.js', 'const ORPHAN = 60_000', 'const ORPHAN = Infinity')],
    seeds: [5, 190],
  },
  E7: {
    says: 'a replaced inbound SA lingers',
    edits: [edit('ike/ike-sa.js', 'const LINGER = 5_000', 'const LINGER = 0')],
    seeds: [23, 40],
  },
  E8: {
    says: 'retries after TEMPORARY_FAILURE wait longer each time, and at random',
    edits: [
      edit(
        'ike/ike-sa.js',
        'return wait * (0.5 + randomFraction(this.config.environment))',
        'return wait && RETRY',
      ),
    ],
    seeds: [54],
  },
  redundant: {
    says: 'the loser of a simultaneous rekey does not send on its redundant Child SA',
    edits: [edit('ike/rekey-child.js', 'outboundReady: !loses', 'outboundReady: true')],
    seeds: [233, 413],
  },
  answer: {
    says: 'the old SA stays while the peer may still wait for the answer about the new one',
    edits: [
      edit('ike/ike-sa.js', 'this.settled && this.survivorIsUnknown', 'false'),
      edit('ike/ike-sa.js', '?.outboundReady === false', '?.outboundReady === 0'),
    ],
    seeds: [],
  },
  cache: {
    says: 'a repeated request gets the answer that it got first',
    edits: [
      edit(
        'ike/message-window.js',
        'id === this.nextPeerId - 1 && this.answered !== undefined',
        'id < 0',
      ),
    ],
    seeds: [3, 4],
  },
  crash: {
    says: 'no token is shown of an IKE SA that the peer has made and we have not heard of yet',
    edits: [edit('core/core.js', ' || this.heldSpis.has(key)', '')],
    seeds: [35, 89],
  },
  told: {
    says: 'a peer is asked at once by a way that is new',
    edits: [edit('core/session.js', 'this.paths.needsAnswer && sa', 'this.paths.isOnTrial && sa')],
    seeds: [7],
    kind: 'roaming',
  },
  revived: {
    says: 'data that waits for its timer goes out when the peer is heard again',
    edits: [
      edit(
        'tcp/connection.js',
        'this.repeatsInRow === 0 && !this.recovery.hasWaited(LONG, now)',
        'now',
      ),
    ],
    seeds: [22],
    kind: 'roaming',
  },
  woken: {
    says: 'a request that was repeated in vain is sent at once when the peer is heard again',
    edits: [edit('ike/message-window.js', 'outstanding.sentTimes < 2', 'outstanding')],
    seeds: [41, 221],
    kind: 'roaming',
  },
  holes: {
    says: 'what is sent in vain is sent in smaller segments',
    edits: [
      edit('tcp/control-block.js', 'noteTimeout(size, times, now) !== true', 'noteTimeout !== 1'),
    ],
    seeds: [2],
    kind: 'sizes',
  },
  once: {
    says: 'what came with a SYN is handed on once, whatever its client begins again',
    edits: [edit('tcp/stack.js', 'firstOctets.has(token, now)', 'false')],
    seeds: [60, 66],
    kind: 'requests',
  },
  windows: {
    says: 'the window follows what is read',
    edits: [edit('tcp/receive-window.js', 'Math.ceil(ahead * inOne)', '0')],
    seeds: [2, 8],
    kind: 'budget',
  },
  budget: {
    says: 'the connections of a session hold together no more than they may',
    edits: [
      edit(
        'tcp/control-block.js',
        'Math.max(this.stack.memory.roomFor(this), this.leastR',
        'Math.max(Infinity, this.leastR',
      ),
      edit('tcp/control-block.js', 'octets <= this.stack.memory.free', 'true'),
    ],
    seeds: [2, 8],
    kind: 'budget',
  },
  copies: {
    says: 'a segment is a copy by its timestamp: what comes again later asks for an answer',
    edits: [edit('tcp/receive.js', 'segment.timestampValue === tcb.newestStamp &&\n    ', '')],
    seeds: [5, 10],
    kind: 'rekeying',
  },
  nonces: {
    says: 'the lowest of four nonces decides',
    edits: [edit('ike/collision.js', 'compare(lowest(own), ', 'compare(own.initiatorNonce, ')],
    seeds: [36, 73],
  },
}

/** The directory of everything compiled: `.build/`. */
const BUILT = new URL('../../', import.meta.url)

export interface Mutant {
  /** A module of the simulation in it. */
  module(name: string): string
  remove(): void
}

/** Copies what is compiled, without the rule. Throws when the sources no longer say what is to go. */
export const makeMutant = (name: string): Mutant => {
  const rule = RULES[name]
  if (rule === undefined) throw new Error(`there are the rules ${Object.keys(RULES).join(', ')}`)
  const root = new URL(`without/${name}-${process.pid}/`, BUILT)
  for (const part of ['lib', 'test/harness', 'test/simulation'])
    cpSync(new URL(part, BUILT), new URL(part, root), { recursive: true })
  for (const { file, from, to } of rule.edits) {
    const path = new URL(`lib/${file}`, root)
    const parts = readFileSync(path, 'utf8').split(from)
    if (parts.length !== 2)
      throw new Error(`${name}: lib/${file} has ${parts.length - 1} times: ${from}`)
    writeFileSync(path, parts.join(to))
  }
  return {
    module: file => pathToFileURL(fileURLToPath(new URL(`test/simulation/${file}`, root))).href,
    remove: () => rmSync(root, { recursive: true, force: true }),
  }
}
