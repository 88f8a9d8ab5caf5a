/**
 * Targets without state: each reads octets that a stranger or a peer chose. None may throw, read more
 * often than the input has octets to justify, or break what the layer above takes for granted.
 */
import { concat, Reader, toHex } from '../../lib/base/bytes.ts'
import { printable } from '../../lib/base/errors.ts'
import {
  formatIdentity,
  identityMatches,
  identityProblem,
  identityText,
  parseIdentity,
  parsePattern,
  sameIdentity,
} from '../../lib/identity/identity.ts'
import {
  checkChosen,
  chooseProposal,
  DEFAULT_ESP,
  DEFAULT_IKE,
  formatProposal,
  parseProposals,
} from '../../lib/policy/proposal.ts'
import {
  covers,
  EVERYTHING,
  formatSelector,
  isNarrowing,
  narrow,
  parseSelectors,
} from '../../lib/policy/traffic-selectors.ts'
import { findEncrypted } from '../../lib/wire/encrypted.ts'
import { readIcmpError } from '../../lib/wire/icmp.ts'
import { readIkeHeader } from '../../lib/wire/ike-header.ts'
import { readIpHeader } from '../../lib/wire/ip.ts'
import { hasExcess, lacksRequired } from '../../lib/wire/message.ts'
import { isChainError, readChain, writeChain } from '../../lib/wire/payload-chain.ts'
import { readSa, writeSa } from '../../lib/wire/sa.ts'
import { TcpSegment } from '../../lib/wire/tcp.ts'
import { readTrafficSelectors, writeTrafficSelectors } from '../../lib/wire/traffic-selector.ts'
import { Writer } from '../../lib/base/bytes.ts'
import { initRequest } from '../harness/attacker.ts'
import type { Random } from '../harness/random.ts'
import { CERTIFICATE_TARGETS } from './certificates.ts'
import { makePayload, mutateChain, mutateOctets, pick, randomOctets } from './mutate.ts'

export interface Target {
  readonly name: string
  /** The input of one case. */
  make(random: Random): Uint8Array
  /** Throws when something is wrong with how the input was taken. */
  run(input: Uint8Array): void
}

const must = (truth: boolean, what: string): void => {
  if (!truth) throw new Error(what)
}

/** Reads are counted: a reader that loops or goes over the same octets again and again shows. */
let reads = 0
const prototype = Reader.prototype as unknown as { claim(length: number): number }
const { claim } = prototype
prototype.claim = function (this: Reader, length: number): number {
  reads++
  return claim.call(this, length)
}

/** Runs one case with its work counted. */
export const runCase = (target: Target, input: Uint8Array): void => {
  reads = 0
  target.run(input)
  must(reads <= 64 + 8 * input.length, `${reads} reads of ${input.length} octets`)
}

const selectorsOctets = (random: Random): Uint8Array => {
  const writer = new Writer()
  const texts = [
    '0.0.0.0/0',
    '::/0',
    '10.0.0.0/8[tcp/80]',
    '192.0.2.1',
    '2001:db8::/32[udp]',
    '10.0.0.1-10.0.0.7',
  ]
  const some = Array.from({ length: random.integer(1, 6) }, () => pick(random, texts))
  writeTrafficSelectors(writer, parseSelectors('fuzz', some))
  return writer.finish()
}

const saOctets = (random: Random): Uint8Array => {
  const writer = new Writer()
  const isIke = random.chance(0.5)
  const texts = Array.from({ length: random.integer(1, 3) }, () =>
    pick(random, isIke ? DEFAULT_IKE : DEFAULT_ESP),
  )
  writeSa(writer, parseProposals('fuzz', texts, isIke ? 'ike' : 'esp'))
  return writer.finish()
}

const OURS = [
  parseProposals('fuzz', [...DEFAULT_IKE], 'ike'),
  parseProposals('fuzz', [...DEFAULT_ESP], 'esp'),
]
const ALLOWED = [
  EVERYTHING,
  parseSelectors('fuzz', ['10.0.0.0/16[tcp]', '192.0.2.0/24', '10.0.0.0/8[tcp/1-99]']),
]
const PATTERNS = ['*.example.test', '*@example.test', '192.0.2.1', 'C=CH, O=*, CN=*'].map(text =>
  parsePattern('fuzz', text),
)
const segment = new TcpSegment()

export const PARSERS: readonly Target[] = [
  {
    name: 'ike-message',
    make: random => {
      const message = initRequest({
        more: Array.from({ length: random.integer(0, 5) }, () => makePayload(random)),
      })
      const mutated = mutateOctets(random, message)
      // Most of the time the header tells the length that there is.
      if (mutated.length >= 28 && random.chance(0.8)) {
        mutated[24] = 0
        mutated[25] = mutated.length >>> 16
        mutated[26] = mutated.length >>> 8
        mutated[27] = mutated.length
      }
      return mutated
    },
    run: input => {
      const header = readIkeHeader(input)
      if (header === undefined) return
      findEncrypted(input, header)
      readChain(input, 28, input.length, header.nextPayload)
    },
  },
  {
    name: 'decrypted-body',
    make: random => {
      const chain = writeChain(
        Array.from({ length: random.integer(0, 8) }, () => makePayload(random)),
      )
      const { first, bytes } = mutateChain(random, chain)
      return concat(Uint8Array.of(first), bytes)
    },
    run: input => {
      const payloads = readChain(input, 1, input.length, input[0] ?? 0)
      if (isChainError(payloads)) return
      must(payloads.length <= 64, `${payloads.length} payloads`)
      hasExcess(payloads)
      for (const exchange of [34, 35, 36, 37]) lacksRequired(exchange, payloads)
      // Selectors of types that we do not know are passed over; without any the payload is none.
      if (payloads.some(payload => 'selectors' in payload && payload.selectors.length === 0)) return
      // What was read is written and read as the same again.
      const once = writeChain(payloads)
      const again = readChain(once.bytes, 0, once.bytes.length, once.first)
      must(!isChainError(again), 'what was written cannot be read')
      const twice = writeChain(again as typeof payloads)
      must(toHex(twice.bytes) === toHex(once.bytes), 'not stable')
    },
  },
  {
    name: 'sa-select',
    make: random =>
      random.chance(0.2) ? saOctets(random) : mutateOctets(random, saOctets(random)),
    run: input => {
      const offered = readSa(input)
      if (offered === undefined) return
      for (const ours of OURS) {
        const choice = chooseProposal(offered, ours)
        if (choice.kind === 'chosen') {
          const { proposal } = choice
          must(
            proposal.transforms.every(({ unknown }) => unknown === undefined),
            'an unknown attribute was chosen',
          )
          must(
            new Set(proposal.transforms.map(({ type }) => type)).size ===
              proposal.transforms.length,
            'two of a type',
          )
          must(
            checkChosen(offered, [proposal]) !== undefined ||
              offered.filter(({ number }) => number === proposal.number).length > 1,
            'the initiator would not take it',
          )
        }
        checkChosen(ours, offered)
      }
      for (const proposal of offered)
        must(formatProposal(proposal).length < 40 * (proposal.transforms.length + 1), 'long')
    },
  },
  {
    name: 'ts-narrow',
    make: random =>
      random.chance(0.2) ? selectorsOctets(random) : mutateOctets(random, selectorsOctets(random)),
    run: input => {
      const offered = readTrafficSelectors(input)
      if (offered === undefined) return
      for (const allowed of ALLOWED) {
        const narrowed = narrow(offered, allowed)
        must(narrowed.length <= Math.max(16, allowed.length), `${narrowed.length} selectors`)
        must(
          isNarrowing(narrowed, offered) && isNarrowing(narrowed, allowed),
          'wider than either end allows',
        )
        for (const one of narrowed) {
          formatSelector(one)
          if (one.startPort <= one.endPort)
            must(covers(allowed, one.start, one.protocol, one.startPort), 'not covered')
        }
      }
      for (const one of offered) must(formatSelector(one).length < 120, 'long')
    },
  },
  {
    name: 'identity',
    make: random => {
      const texts = [
        'host.example.test',
        'user@example.test',
        '\u0000\r\n\u001b[2J%s${}\u202e',
        'C=CH, CN=x',
      ]
      const body = random.chance(0.3)
        ? parseIdentity('fuzz', 'C=CH, O=Example, OU=Unit, CN=host').data
        : random.chance(0.5)
          ? new TextEncoder().encode(pick(random, texts))
          : randomOctets(random, random.integer(0, 300))
      return concat(
        Uint8Array.of(random.integer(0, 15)),
        random.chance(0.5) ? mutateOctets(random, body) : body,
      )
    },
    run: input => {
      const identity = { type: input[0] ?? 0, data: input.subarray(1) }
      const text = formatIdentity(identity)
      must(/^[\x20-\x7e]*$/.test(text), `not printable: ${printable(text)}`)
      must(text.length <= 4000, `${text.length} characters`)
      if (identityProblem(identity) === undefined) {
        const again = parseIdentity('fuzz', identityText(identity))
        must(sameIdentity(again, identity), `${text} is read as another`)
      }
      for (const pattern of PATTERNS) identityMatches(pattern, identity)
      identityMatches(identity, PATTERNS[0]!)
    },
  },
  {
    name: 'inner-ip',
    make: random => {
      const packet = new Uint8Array(random.integer(20, 120))
      random.fill(packet)
      packet[0] = pick(random, [0x45, 0x46, 0x4f, 0x60, 0x60, 0x60, 0x55])
      if (packet[0] >>> 4 === 6) packet[6] = pick(random, [6, 0, 43, 44, 60, 51, 58])
      packet[packet[0] >>> 4 === 6 ? 4 : 2] = 0
      packet[packet[0] >>> 4 === 6 ? 5 : 3] = random.integer(0, packet.length + 2)
      return random.chance(0.5) ? mutateOctets(random, packet) : packet
    },
    run: input => {
      const ip = readIpHeader(input, 0, input.length)
      if (ip === undefined) return
      must(
        ip.payloadFrom <= ip.payloadTo && ip.payloadTo <= input.length,
        'payload outside the packet',
      )
      must(ip.source.length === (ip.version === 4 ? 4 : 16), 'address')
      readIcmpError(input, ip.payloadFrom, ip.payloadTo, ip.version)
    },
  },
  {
    name: 'icmp',
    make: random => {
      const packet = randomOctets(random, random.integer(0, 90))
      if (packet.length > 28)
        packet.set([3, 4, 0, 0, 0, 0, 4, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6])
      return random.chance(0.6) ? mutateOctets(random, packet) : packet
    },
    run: input => {
      for (const version of [4, 6] as const) {
        const error = readIcmpError(input, 0, input.length, version)
        if (error === undefined) continue
        must(error.localAddress.length === (version === 4 ? 4 : 16), 'address')
        must(error.remotePort >= 0 && error.remotePort <= 65535, 'port')
      }
    },
  },
  {
    name: 'tcp-segment',
    make: random => {
      const words = random.integer(5, 15)
      const packet = randomOctets(random, random.integer(20, 4 * words + 30))
      packet[12] = words << 4
      for (let at = 20; at < packet.length; at += random.integer(1, 6))
        packet[at] = random.integer(0, 10)
      return random.chance(0.5) ? mutateOctets(random, packet) : packet
    },
    run: input => {
      if (!segment.read(input, 0, input.length)) return
      must(
        segment.dataFrom >= 20 &&
          segment.dataFrom <= segment.dataTo &&
          segment.dataTo <= input.length,
        'data',
      )
      must(segment.dataLength === segment.dataTo - segment.dataFrom, 'length')
    },
  },
  ...CERTIFICATE_TARGETS,
]
