/**
 * Honest clients while very many first messages come in, in virtual time: the server's processor is a model,
 * and what it has no time for waits in a buffer as small as a system's default, or is lost.
 */
import { generateKeyPairSync, sign } from 'node:crypto'
import t from 'tap'
import type { Path } from '../../lib/base/path.ts'
import { Admission } from '../../lib/core/admission.ts'
import { findNotify } from '../../lib/wire/notify.ts'
import { ExchangeType, NotifyType } from '../../lib/wire/registry.ts'
import {
  Caller,
  datagramOf,
  initRequest,
  messageOf,
  pathFrom,
  readPayloads,
  spiOf,
  Target,
  type InitOptions,
} from '../harness/attacker.ts'
import { Random, seededEnvironment } from '../harness/random.ts'
import type { Options } from '../harness/world.ts'
import {
  ed25519Key,
  encodeCertificate,
  makeRoot,
  subjectAltName,
  utcTime,
  type Key,
} from '../harness/x509.ts'

/** Milliseconds of one core, as measured on a slow machine. */
const COST = { heard: 0.01, sent: 0.02, handshake: 1, proof: 0.5 }
/** Small datagrams that 208 KiB hold, with what the kernel adds to each. */
const BUFFER = 250
const START = 1000

interface Datagram {
  readonly bytes: Uint8Array
  readonly path: Path
}

interface Flood {
  readonly perSecond: number
  next(i: number): Datagram
  /** The senders are real, and answer. */
  onAnswer?(bytes: Uint8Array, path: Path): Datagram | undefined
}

interface Client {
  readonly caller: Caller
  readonly from: Path
  readonly begun: number
  connectedAt: number
}

const isConnected = ({ caller }: Client): boolean =>
  caller.events.some(({ kind }) => kind === 'connected')

/** Clients begin one after the other while the flood runs: how long each took, and how busy the server was. */
const besiege = (
  flood: Flood,
  addressOf: (i: number) => Uint8Array,
  options: Options = {},
  { clients = 10, limit = 3000 } = {},
): { times: number[]; busy: number; target: Target } => {
  const target = new Target(options)
  const random = new Random(5)
  const honest: Client[] = []
  const buffer: Datagram[] = []
  const arrive = (datagram: Datagram): void => {
    if (buffer.length < BUFFER) buffer.push(datagram)
  }
  let arriving: Datagram[] = []
  let [sent, clock, spent] = [0, START, 0]
  const serve = (end: number): void => {
    clock = Math.max(clock, end - 1)
    while (buffer.length > 0 && clock < end) {
      const { bytes, path } = buffer.shift()!
      target.now = Math.max(target.now, clock)
      const before = target.core.saCount
      const answers = target.send(bytes, path)
      const isTakenUp = target.core.saCount > before
      const isProof = bytes[4 + 18] === ExchangeType.IkeAuth
      const cost =
        COST.heard +
        COST.sent * answers.length +
        (isTakenUp ? COST.handshake : 0) +
        (isProof ? COST.proof : 0)
      clock += cost
      spent += cost
      for (const answer of answers) {
        const client = honest.find(({ from }) => from.remotePort === answer.path.remotePort)
        const replies =
          client === undefined
            ? [flood.onAnswer?.(answer.bytes, answer.path)].filter(reply => reply !== undefined)
            : client.caller
                .receive(answer.bytes)
                .map(reply => ({ bytes: reply, path: client.from }))
        arriving.push(...replies)
      }
    }
  }
  const first = START + 500
  const end = first + 100 * clients + limit
  let now = START
  for (; now < end; now++) {
    const batch = arriving
    arriving = []
    if (now >= first && (now - first) % 100 === 0 && honest.length < clients) {
      const i = honest.length
      const caller = new Caller(addressOf(i), {}, i + 500, now, 20_000 + i)
      const from = pathFrom(caller.path.localAddress, caller.path.localPort)
      honest.push({ caller, from, begun: now, connectedAt: Infinity })
      batch.push(...caller.connect().map(bytes => ({ bytes, path: from })))
    }
    for (const client of honest) {
      client.caller.now = now
      if (client.connectedAt === Infinity && isConnected(client)) client.connectedAt = now
      if (client.connectedAt < Infinity || client.caller.core.nextTimeout() > now) continue
      client.caller.core.handleTimeout(now)
      batch.push(...client.caller.drain().map(bytes => ({ bytes, path: client.from })))
    }
    for (const until = ((now - START) * flood.perSecond) / 1000; sent < until; sent++)
      batch.splice(random.integer(0, batch.length), 0, flood.next(sent))
    batch.forEach(arrive)
    if (target.core.nextTimeout() <= now) target.wait(0)
    serve(now + 1)
    if (honest.length === clients && honest.every(isConnected)) break
  }
  const times = honest.map(client =>
    isConnected(client) ? Math.min(client.connectedAt, now) - client.begun : Infinity,
  )
  return { times, busy: spent / (now - START), target }
}

const template = new Map<InitOptions, Uint8Array>()
/** A first message with that SPI. */
const firstMessage = (spi: number, options: InitOptions = {}): Uint8Array => {
  let datagram = template.get(options)
  if (datagram === undefined) template.set(options, (datagram = datagramOf(initRequest(options))))
  const copy = datagram.slice()
  copy.set(spiOf(spi), 4)
  return copy
}

const PLAIN: InitOptions = {}
const quad = (i: number): number[] => [i >>> 24, (i >>> 16) & 255, (i >>> 8) & 255, i & 255]
/** Any number as an address that looks like no other's. */
const scattered = (i: number): Uint8Array => Uint8Array.from(quad(Math.imul(i + 1, 0x9e3779b1)))
const elsewhere = (i: number): Uint8Array => Uint8Array.of(203, 0, 113, i + 1)
const inSix = (site: number, subnet: number, host: number): Uint8Array =>
  Uint8Array.of(0x20, 1, 13, 184, 0, site, subnet >>> 8, subnet, 0, 0, 0, 0, ...quad(host))
const ipv6Client = (i: number): Uint8Array => inSix(1, 0xf000 + i, 1)

const forged = (
  perSecond: number,
  addressOf: (i: number) => Uint8Array,
  spiAt: (i: number) => number = i => i,
): Flood => ({
  perSecond,
  next: i => ({
    bytes: firstMessage(spiAt(i), PLAIN),
    path: pathFrom(addressOf(i), 1024 + (spiAt(i) % 7)),
  }),
})

const LIMIT = 3000
const slowest = (times: readonly number[]): number => Math.max(...times)

for (const [name, flood, addressOf] of [
  ['3,000 a second from everywhere', forged(3_000, scattered), elsewhere],
  ['10,000 a second from everywhere', forged(10_000, scattered), elsewhere],
  ['30,000 a second from everywhere', forged(30_000, scattered), elsewhere],
  ['10,000 addresses in turn', forged(10_000, i => scattered(i % 10_000)), elsewhere],
  [
    'one message, 20,000 times a second',
    forged(
      20_000,
      () => scattered(1),
      () => 1,
    ),
    elsewhere,
  ],
  [
    '500 messages of 500 addresses, 20,000 a second',
    forged(
      20_000,
      i => scattered(i % 500),
      i => i % 500,
    ),
    elsewhere,
  ],
  ["the clients' own network", forged(10_000, i => elsewhere(i % 254)), elsewhere],
  ["the clients' own address", forged(10_000, () => elsewhere(7)), () => elsewhere(7)],
  [
    "500 messages from the clients' own address",
    forged(
      10_000,
      () => elsewhere(7),
      i => i % 500,
    ),
    () => elsewhere(7),
  ],
  ['one /64', forged(10_000, i => inSix(2, 0, i)), ipv6Client],
  ["the clients' own /48", forged(10_000, i => inSix(1, i & 0x7fff, i)), ipv6Client],
] as const) {
  t.test(`D1: a flood of ${name}: every client connects within ${LIMIT} ms`, t => {
    const { times, busy, target } = besiege(flood, addressOf)
    t.ok(slowest(times) <= LIMIT, `the slowest after ${slowest(times)} ms`)
    t.ok(busy < 0.4, `the server is busy for ${busy.toFixed(2)} of the time`)
    t.ok(target.core.saCount <= 30 + times.length, 'forgers get no further than the threshold')
    t.end()
  })
}

t.test('D1: the same of headers alone, with few SPIs', t => {
  const header = firstMessage(1, PLAIN).slice(0, 32)
  const next = (i: number): Datagram => {
    const bytes = header.slice()
    bytes.set(spiOf(i % 500), 4)
    return { bytes, path: pathFrom(scattered(1)) }
  }
  const { times, busy } = besiege({ perSecond: 20_000, next }, elsewhere)
  t.ok(slowest(times) <= LIMIT, `the slowest after ${slowest(times)} ms`)
  t.ok(busy < 0.4)
  t.end()
})

t.test('D2: cookies that are none are no way around it, nor do they keep anyone out', t => {
  const next = (i: number): Datagram => {
    const cookie = new Uint8Array(17).fill(i & 255)
    cookie[0] = 1
    return {
      bytes: datagramOf(initRequest({ cookie, spiI: spiOf(i) })),
      path: pathFrom(scattered(i)),
    }
  }
  const { times, busy, target } = besiege({ perSecond: 5_000, next }, elsewhere)
  t.ok(slowest(times) <= LIMIT, `the slowest after ${slowest(times)} ms`)
  t.ok(busy < 0.4)
  t.ok(target.core.saCount <= 30 + times.length)
  t.end()
})

/** Addresses that are real: each brings its cookie, and says no more. */
const real = (
  perSecond: number,
  addressOf: (i: number) => Uint8Array,
  options: InitOptions = PLAIN,
): Flood => ({
  perSecond,
  next: i => ({ bytes: firstMessage(i, options), path: pathFrom(addressOf(i), 1024) }),
  onAnswer: (bytes, path) => {
    const message = messageOf(bytes)
    const cookie = findNotify(readPayloads(message), NotifyType.Cookie)?.data
    if (cookie === undefined) return undefined
    const spiI = message.slice(0, 8)
    return { bytes: datagramOf(initRequest({ ...options, spiI, cookie })), path }
  },
})

for (const [name, flood, addressOf, options] of [
  ['10,000 within 5 s', real(2_000, scattered), elsewhere, {}],
  ['10,000 within 1 s', real(10_000, scattered), elsewhere, {}],
  ['a few, again and again', real(2_000, i => scattered(i % 20)), elsewhere, {}],
  ["one of the clients' network", real(1_000, () => elsewhere(200)), elsewhere, {}],
  [
    'a thousand a second, with a group that costs much',
    real(1_000, scattered, { proposals: 'aes256gcm16-prfsha256-modp4096', group: 16 }),
    elsewhere,
    { ike: ['aes256gcm16-prfsha256-x25519', 'aes256gcm16-prfsha256-modp4096'] },
  ],
] as const) {
  t.test(`D1: real addresses that bring cookies and no IKE_AUTH, ${name}`, t => {
    const { times, target } = besiege(flood, addressOf, options)
    t.ok(slowest(times) <= LIMIT, `the slowest after ${slowest(times)} ms`)
    t.ok(target.core.saCount <= 500 + times.length, `${target.core.saCount} SAs`)
    t.end()
  })
}

/**
 * Clients that are genuine up to IKE_AUTH, each from a port of its own. `sends`: of so many datagrams that IKE_AUTH
 * takes, the others never come.
 */
const genuine = (
  perSecond: number,
  addressOf: (i: number) => Uint8Array,
  options: Options,
  sends = Infinity,
): Flood => {
  const callers = new Map<number, Caller>()
  return {
    perSecond,
    next: i => {
      const caller = new Caller(addressOf(i), options, 9000 + i, START, 30_000 + (i % 30_000))
      callers.set(caller.path.localPort, caller)
      return { bytes: caller.connect()[0]!, path: pathFrom(addressOf(i), caller.path.localPort) }
    },
    onAnswer: (bytes, path) => {
      const replies = callers.get(path.remotePort)?.receive(bytes) ?? []
      const [first] = replies
      if (first === undefined) return undefined
      const isProof = first[4 + 18] === ExchangeType.IkeAuth
      return isProof && sends === 0 ? undefined : { bytes: first, path }
    },
  }
}

/** Several floods at once. */
const mixed = (...floods: readonly Flood[]): Flood => {
  const perSecond = floods.reduce((sum, flood) => sum + flood.perSecond, 0)
  const counts = floods.map(() => 0)
  const senders = new Map<string, Flood>()
  const keyOf = ({ remoteAddress, remotePort }: Path): string => `${remoteAddress} ${remotePort}`
  return {
    perSecond,
    next: i => {
      // Whoever is furthest behind.
      const late = floods.map((flood, k) => (i * flood.perSecond) / perSecond - counts[k]!)
      const k = late.indexOf(Math.max(...late))
      const flood = floods[k]!
      const datagram = flood.next(counts[k]!++)
      if (flood.onAnswer !== undefined) senders.set(keyOf(datagram.path), flood)
      return datagram
    },
    onAnswer: (bytes, path) => senders.get(keyOf(path))?.onAnswer?.(bytes, path),
  }
}

const WRONG = { psk: 'a key that is not valid any more' }
/** So that IKE_AUTH takes several datagrams. */
const IN_PIECES = { ...WRONG, fragmentSize: 576, localId: `${'long.'.repeat(40)}test` }
const own = (): Uint8Array => elsewhere(7)
const neighbour = (i: number): Uint8Array => elsewhere(20 + (i % 200))

for (const [name, flood, addressOf, limit] of [
  ['a wrong key, 50 a second from everywhere', genuine(50, scattered, WRONG), elsewhere, 3000],
  [
    "a wrong key, 50 a second from the clients' network",
    genuine(50, neighbour, WRONG),
    elsewhere,
    3000,
  ],
  ["a wrong key, 50 a second from the clients' own address", genuine(50, own, WRONG), own, 15_000],
  [
    "no IKE_AUTH, 50 a second from the clients' own address",
    genuine(50, own, WRONG, 0),
    own,
    15_000,
  ],
  [
    'first fragments alone, 50 a second from everywhere',
    genuine(50, scattered, IN_PIECES),
    elsewhere,
    3000,
  ],
  [
    "first fragments alone, 50 a second from the clients' own address",
    genuine(50, own, IN_PIECES),
    own,
    15_000,
  ],
  [
    'all of that, and forged ones',
    mixed(
      forged(3000, scattered),
      real(300, scattered),
      genuine(30, neighbour, WRONG),
      genuine(30, scattered, IN_PIECES),
    ),
    elsewhere,
    3000,
  ],
] as const) {
  t.test(`D8: genuine handshakes that are never finished: ${name}`, t => {
    const { times, busy, target } = besiege(flood, addressOf, {}, { clients: 20, limit })
    t.ok(slowest(times) <= limit, `the slowest after ${slowest(times)} ms`)
    t.ok(busy < 0.5, `the server is busy for ${busy.toFixed(2)} of the time`)
    t.ok(target.core.saCount <= 600, `${target.core.saCount} SAs`)
    t.end()
  })
}

t.test('D8: 150 clients behind one address, ten with a wrong key, after 70 that had one', t => {
  const target = new Target()
  const office = elsewhere(1)
  const callers: Caller[] = []
  const start = (count: number, options: Options): Caller[] => {
    const started = Array.from({ length: count }, () => {
      const i = callers.length
      const caller = new Caller(office, options, i + 5, target.now, 20_000 + i)
      callers.push(caller)
      return caller
    })
    // All first messages are there before any answer is.
    const from = ({ path }: Caller): Path => pathFrom(path.localAddress, path.localPort)
    const first = started.map(caller => caller.connect())
    const answers = started.map((caller, i) =>
      first[i]!.flatMap(bytes => target.send(bytes, from(caller))),
    )
    started.forEach((caller, i) =>
      caller.talk(
        target,
        answers[i]!.flatMap(({ bytes }) => caller.receive(bytes)),
      ),
    )
    return started
  }
  const pass = (millis: number): void => {
    for (let left = millis; left > 0; left -= 50) {
      target.wait(50)
      for (const caller of callers) caller.talk(target, caller.wait(50))
    }
  }
  const wrong = { psk: 'a key that is not valid any more' }
  start(70, wrong)
  pass(200)
  start(5, wrong)
  const right = start(140, {})
  start(5, wrong)
  pass(15_000)
  const connected = right.filter(({ events }) => events.some(({ kind }) => kind === 'connected'))
  t.equal(connected.length, 140)
  t.end()
})

t.test('D8: what a stranger shows in IKE_AUTH is charged to its address', t => {
  const dates = {
    notBefore: utcTime(Date.UTC(2001, 0, 1)),
    notAfter: utcTime(Date.UTC(2048, 0, 1)),
  }
  const root = makeRoot('CN=Root', [], dates)
  const pem = (der: Uint8Array): string =>
    `-----BEGIN CERTIFICATE-----\n${Buffer.from(der).toString('base64')}\n-----END CERTIFICATE-----\n`
  const issue = (subject: string, signer: Key): { cert: string; key: string } => {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519')
    const key = {
      spki: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
      algorithm: ed25519Key().algorithm,
      sign: (octets: Uint8Array) => new Uint8Array(sign(null, octets, privateKey)),
    }
    const facts = { subject: `CN=${subject}`, issuer: 'CN=Root', signer, key, ...dates }
    const extensions = [subjectAltName([`dns:${subject}`])]
    return {
      cert: pem(encodeCertificate({ ...facts, extensions })),
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    }
  }
  const ca = pem(root.certificate.bytes)
  const server = { psk: undefined, ca, ...issue('srv.test', root.key) }
  const common = { psk: undefined, ca, remoteId: 'srv.test' }
  const evil = issue('evil.test', ed25519Key())
  const padding = Array.from({ length: 20 }, () => issue('none.test', ed25519Key()).cert)
  const stranger = { ...common, key: evil.key, cert: evil.cert + padding.join('') }
  const seeds = [1, 2, 3, 4]
  let late = 0
  for (const seed of seeds) {
    const target = new Target(server, seed)
    const refused: number[] = []
    for (let i = 0; i < 80; i++) {
      new Caller(elsewhere(1), stranger, 50 + i, target.now, 30_000 + i).talk(target)
      refused.push(target.events.filter(({ kind }) => kind === 'refused').length)
      target.now += 10
    }
    t.ok(refused[4]! >= 4, `${refused[4]} of the first 5 are judged`)
    late += refused[79]! - refused[59]!
    // Somebody else there has a good certificate, and asks as its timer says.
    const honest = new Caller(
      elsewhere(1),
      { ...common, ...issue('good.test', root.key) },
      5,
      target.now,
      29_999,
    )
    honest.talk(target)
    for (let i = 0; i < 50; i++) {
      target.now += 100
      new Caller(elsewhere(1), stranger, 150 + i, target.now, 31_000 + i).talk(target)
      honest.talk(target, honest.wait(100))
    }
    t.ok(honest.events.some(({ kind }) => kind === 'connected'))
  }
  // What it owes lessens its chance, and by chance some are judged still: the last are far behind.
  t.ok(late <= 3 * seeds.length, `${late} of the last 20 of each`)
  t.end()
})

t.test('D1: while more comes in than can be read, strangers get a quarter of the time', t => {
  const limits = { cookieThreshold: 30, halfOpenPerSource: 64, maxHalfOpen: 500 }
  const admission = new Admission(limits, seededEnvironment(1))
  let now = 0
  const looked = (millis: number): number => {
    let count = 0
    for (const end = now + millis; now < end; now++) {
      for (let i = 0; i < 10; i++) {
        const path = pathFrom(scattered(10 * now + i))
        if (admission.hear(messageOf(firstMessage(10 * now + i)), path, false, now)) count++
      }
    }
    return count
  }
  looked(2000)
  const usual = looked(2000)
  admission.noteBacklog(true)
  looked(1000)
  const behind = looked(2000)
  t.ok(usual > 3800 && usual < 4200, `${usual} of 20,000 first messages`)
  t.ok(behind > 900 && behind < 1100, `${behind} of them`)
  admission.noteBacklog(false)
  looked(1000)
  t.equal(looked(2000) > 3800, true, 'and then as many as before')
  t.end()
})
