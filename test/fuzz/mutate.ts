/** Mutations: of octets, of payload chains that stay well-formed, and payloads made up. All from one seed. */
import { concat, putU16, putU32 } from '../../lib/base/bytes.ts'
import { isChainError, walkChain, type WrittenChain } from '../../lib/wire/payload-chain.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { writeChain } from '../../lib/wire/payload-chain.ts'
import { DEFAULT_ESP, DEFAULT_IKE, parseProposals, withSpi } from '../../lib/policy/proposal.ts'
import { parseSelectors } from '../../lib/policy/traffic-selectors.ts'
import { NotifyType } from '../../lib/wire/registry.ts'
import { notify } from '../../lib/wire/notify.ts'
import { publicValue } from '../harness/attacker.ts'
import type { Random } from '../harness/random.ts'

export const randomOctets = (random: Random, length: number): Uint8Array => {
  const octets = new Uint8Array(length)
  random.fill(octets)
  return octets
}

export const pick = <T>(random: Random, list: readonly T[]): T =>
  list[random.integer(0, list.length - 1)]!

const INTERESTING = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255]
const INTERESTING_16 = [0, 1, 3, 4, 8, 255, 256, 16390, 32767, 32768, 65535]

/** Some edits of octets, as a blind fuzzer makes them. */
export const mutateOctets = (random: Random, given: Uint8Array): Uint8Array => {
  let octets: Uint8Array = given.slice()
  for (let edits = random.integer(1, 4); edits > 0; edits--) {
    const at = octets.length === 0 ? 0 : random.integer(0, octets.length - 1)
    const length = random.integer(1, Math.min(40, Math.max(1, octets.length - at)))
    switch (random.integer(0, 7)) {
      case 0:
        if (octets.length > 0) octets[at]! ^= 1 << random.integer(0, 7)
        break
      case 1:
        if (octets.length > 0) octets[at] = pick(random, INTERESTING)
        break
      case 2:
        if (octets.length > at + 1) putU16(octets, at, pick(random, INTERESTING_16))
        break
      case 3:
        if (octets.length > at + 3) putU32(octets, at, random.next())
        break
      case 4:
        octets = concat(octets.subarray(0, at), octets.subarray(at + length))
        break
      case 5:
        octets = concat(octets.subarray(0, at), randomOctets(random, length), octets.subarray(at))
        break
      case 6:
        octets = concat(octets.subarray(0, at + length), octets.subarray(at))
        break
      default:
        octets = octets.slice(0, at)
    }
  }
  return octets.length > 70_000 ? octets.slice(0, 70_000) : octets
}

interface Piece {
  type: number
  critical: boolean
  body: Uint8Array
}

const split = ({ first, bytes }: WrittenChain): Piece[] | undefined => {
  const raw = walkChain(bytes, 0, bytes.length, first)
  if (isChainError(raw)) return undefined
  return raw.map(({ type, critical, bodyFrom, bodyTo }) => ({
    type,
    critical,
    body: bytes.slice(bodyFrom, bodyTo),
  }))
}

const join = (pieces: readonly Piece[]): WrittenChain => ({
  first: pieces[0]?.type ?? 0,
  bytes: concat(
    ...pieces.map(({ critical, body }, i) => {
      const header = new Uint8Array(4)
      header[0] = pieces[i + 1]?.type ?? 0
      header[1] = critical ? 0x80 : 0
      putU16(header, 2, Math.min(65535, body.length + 4))
      return concat(header, body)
    }),
  ),
})

/** Edits of payloads whose lengths and links stay right, so that they get past the first checks. */
export const mutateChain = (
  random: Random,
  chain: WrittenChain,
  spis: readonly number[] = [],
): WrittenChain => {
  const pieces = split(chain)
  if (pieces === undefined || random.chance(0.1)) {
    const first = random.chance(0.2) ? random.integer(0, 60) : chain.first
    return { first, bytes: mutateOctets(random, chain.bytes) }
  }
  for (let edits = random.integer(1, 3); edits > 0; edits--) {
    const at = pieces.length === 0 ? 0 : random.integer(0, pieces.length - 1)
    const piece = pieces[at]
    switch (piece === undefined ? 6 : random.integer(0, 7)) {
      case 0:
        pieces.splice(at, 1)
        break
      case 1:
        pieces.splice(at, 0, { ...piece! })
        break
      case 2:
        pieces.splice(random.integer(0, pieces.length - 1), 0, ...pieces.splice(at, 1))
        break
      case 3:
        piece!.type = random.integer(33, 56)
        break
      case 4:
        piece!.critical = !piece!.critical
        break
      case 5:
        piece!.body = randomOctets(random, random.integer(0, 80))
        break
      case 6: {
        const made = split(writeChain([makePayload(random, spis)]))!
        pieces.splice(at, 0, ...made)
        break
      }
      default:
        piece!.body = mutateOctets(random, piece!.body)
    }
  }
  return join(pieces)
}

const NOTIFIES = Object.values(NotifyType)
const SELECTORS = [
  '0.0.0.0/0',
  '::/0',
  '192.0.2.1[tcp]',
  '198.51.100.7[tcp/80]',
  '10.0.0.0/8',
  '10.0.0.1-10.0.0.9[udp/53]',
]

/** A payload of any kind, well-formed, with contents that mean something half of the time. */
export const makePayload = (random: Random, spis: readonly number[] = []): Payload => {
  const octets = (most: number): Uint8Array => randomOctets(random, random.integer(0, most))
  const spi = (): Uint8Array => {
    const bytes = new Uint8Array(4)
    putU32(bytes, 0, spis.length > 0 && random.chance(0.7) ? pick(random, spis) : random.next())
    return bytes
  }
  const selectors = parseSelectors(
    'fuzz',
    Array.from({ length: random.integer(1, 3) }, () => pick(random, SELECTORS)),
  )
  switch (random.integer(0, 13)) {
    case 0:
      return { kind: 'sa', proposals: parseProposals('fuzz', [pick(random, DEFAULT_IKE)], 'ike') }
    case 1:
      return {
        kind: 'sa',
        proposals: withSpi(parseProposals('fuzz', [pick(random, DEFAULT_ESP)], 'esp'), spi()),
      }
    case 2:
      return {
        kind: 'sa',
        proposals: withSpi(
          parseProposals('fuzz', ['aes256gcm16-prfsha256-x25519'], 'ike'),
          randomOctets(random, 8),
        ),
      }
    case 3:
      return { kind: 'ke', group: pick(random, [0, 14, 19, 31, 65535]), data: octets(70) }
    case 4:
      return { kind: 'nonce', data: randomOctets(random, random.integer(16, 64)) }
    case 5:
      return {
        kind: random.chance(0.5) ? 'idi' : 'idr',
        idType: random.integer(0, 12),
        data: octets(40),
      }
    case 6:
      return { kind: 'auth', method: random.integer(0, 15), data: octets(70) }
    case 7:
      return {
        kind: 'notify',
        protocol: pick(random, [0, 1, 2, 3, 4, 255]),
        spi: random.chance(0.5) ? spi() : octets(9),
        type: random.chance(0.9) ? pick(random, NOTIFIES) : random.integer(0, 65535),
        data: octets(20),
      }
    case 8:
      return {
        kind: 'delete',
        protocol: 3,
        spis: Array.from({ length: random.integer(0, 4) }, spi),
      }
    case 9:
      return { kind: 'delete', protocol: 1, spis: [] }
    case 10:
      return { kind: random.chance(0.5) ? 'tsi' : 'tsr', selectors }
    case 11:
      return {
        kind: 'cp',
        type: random.integer(0, 5),
        attributes: Array.from({ length: random.integer(0, 4) }, () => ({
          type: random.integer(0, 27),
          value: octets(17),
        })),
      }
    case 12:
      return {
        kind: random.chance(0.5) ? 'cert' : 'certreq',
        encoding: random.integer(0, 16),
        data: octets(60),
      }
    default:
      return random.chance(0.5)
        ? { kind: 'eap', data: octets(30) }
        : {
            kind: 'unknown',
            type: random.integer(1, 255),
            critical: random.chance(0.3),
            data: octets(30),
          }
  }
}

/** The payloads of a request that an honest peer would send: a new SA, a rekey, a Delete. */
export const makeRequest = (random: Random, spis: readonly number[]): Payload[] => {
  const octets = (value: number): Uint8Array => {
    const four = new Uint8Array(4)
    putU32(four, 0, value)
    return four
  }
  const nonce: Payload = { kind: 'nonce', data: randomOctets(random, 32) }
  const exchange: Payload = { kind: 'ke', group: 31, data: publicValue(31) }
  const known = octets(spis.length > 0 ? pick(random, spis) : random.next())
  const hosts = parseSelectors('fuzz', '0.0.0.0/0')
  const esp = withSpi(
    parseProposals('fuzz', ['aes256gcm16-x25519-esn'], 'esp'),
    octets(random.next() | 0x1000),
  )
  const child: Payload[] = [
    ...(random.chance(0.5) ? [notify(NotifyType.UseTransportMode)] : []),
    { kind: 'sa', proposals: esp },
    nonce,
    exchange,
    { kind: 'tsi', selectors: hosts },
    { kind: 'tsr', selectors: hosts },
  ]
  switch (random.integer(0, 4)) {
    case 0:
      return child
    case 1:
    case 2:
      return [
        {
          kind: 'notify',
          protocol: 3,
          spi: known,
          type: NotifyType.RekeySa,
          data: new Uint8Array(0),
        },
        ...child,
      ]
    case 3: {
      const ike = parseProposals('fuzz', ['aes256gcm16-prfsha256-x25519'], 'ike')
      return [{ kind: 'sa', proposals: withSpi(ike, randomOctets(random, 8)) }, nonce, exchange]
    }
    default:
      return [{ kind: 'delete', protocol: 3, spis: [known] }]
  }
}
