/** Attacks on a negotiation from the initiator's side, and on what both ends signed. */
import t from 'tap'
import type { Path } from '../../lib/base/path.ts'
import { toHex } from '../../lib/base/bytes.ts'
import { readIkeHeader, type IkeHeader } from '../../lib/wire/ike-header.ts'
import { writeMessage } from '../../lib/wire/message.ts'
import { notify, u16Data } from '../../lib/wire/notify.ts'
import { isChainError, readChain } from '../../lib/wire/payload-chain.ts'
import { KeGroup, NotifyType } from '../../lib/wire/registry.ts'
import {
  datagramOf,
  initFacts,
  isIke,
  KeyRing,
  messageOf,
  pathFrom,
  SERVER,
  Target,
} from '../harness/attacker.ts'
import { PERFECT, Stream, World, type Network, type Options } from '../harness/world.ts'

const codeOf = (error: unknown): unknown => (error as { code?: unknown } | undefined)?.code
const EXCHANGE = { init: 34, auth: 35 } as const

const headerOf = (datagram: Uint8Array): IkeHeader | undefined =>
  isIke(datagram) ? readIkeHeader(messageOf(datagram)) : undefined

/** How the client sees what comes from the responder's address. */
const toClient = (world: World): Path => ({
  socket: 0,
  localAddress: world.clientAddress,
  localPort: world.clientPort,
  remoteAddress: SERVER,
  remotePort: 4500,
})

/** Each first message of the client is answered by a forger before the responder even gets it. */
const raced = (
  forge: (spiI: Uint8Array, count: number) => Uint8Array[],
  server: Options = {},
  lose: (count: number) => boolean = () => false,
): { world: World; stream: Stream; requests: number } => {
  const world = new World(11, PERFECT, {}, server)
  const stream = new Stream(1000, 1, 2)
  const result = { world, stream, requests: 0 }
  let answers = 0
  world.filter = (to, bytes) => {
    const header = headerOf(bytes)
    if (header?.exchange !== EXCHANGE.init) return true
    if (to === 'client') return !lose(++answers)
    for (const message of forge(header.spiI, ++result.requests))
      world.client.handleDatagram(datagramOf(message), toClient(world), world.now)
    return true
  }
  world.connect(stream)
  world.run(300_000, () => stream.closed)
  return result
}

const forged = (spiI: Uint8Array, type: number, data?: Uint8Array): Uint8Array =>
  writeMessage(initFacts(spiI, true), [notify(type, data)])

/** An Informational of IKEv1 with that cookie (RFC 2408 §3.1, §4.8). */
const version1 = (spiI: Uint8Array): Uint8Array => {
  const message = new Uint8Array(40)
  message.set(spiI)
  message.set([11, 0x10, 5, 0], 16)
  message[27] = 40
  message.set([0, 0, 0, 12, 0, 0, 0, 1, 1, 0, 0, 5], 28)
  return message
}

const FORGERIES: Readonly<Record<string, (spiI: Uint8Array, count: number) => Uint8Array[]>> = {
  COOKIE: (spiI, count) => [forged(spiI, NotifyType.Cookie, new Uint8Array(16).fill(count))],
  'INVALID_KE_PAYLOAD for a group that was offered': spiI => [
    forged(spiI, NotifyType.InvalidKePayload, u16Data(KeGroup.P256)),
  ],
  'INVALID_KE_PAYLOAD for each group in turn': (spiI, count) => [
    forged(spiI, NotifyType.InvalidKePayload, u16Data([19, 20, 21, 14, 15, 16][count % 6]!)),
  ],
  'INVALID_KE_PAYLOAD for a group that was not': spiI => [
    forged(spiI, NotifyType.InvalidKePayload, u16Data(1)),
  ],
  NO_PROPOSAL_CHOSEN: spiI => [forged(spiI, NotifyType.NoProposalChosen)],
  'INVALID_SYNTAX, AUTHENTICATION_FAILED and INVALID_MAJOR_VERSION': spiI => [
    forged(spiI, NotifyType.InvalidSyntax),
    forged(spiI, NotifyType.AuthenticationFailed),
    forged(spiI, NotifyType.InvalidMajorVersion),
  ],
  'an answer in IKEv1': spiI => [version1(spiI)],
  'all of them': (spiI, count) => [
    forged(spiI, NotifyType.NoProposalChosen),
    forged(spiI, NotifyType.InvalidKePayload, u16Data(KeGroup.P256)),
    forged(spiI, NotifyType.Cookie, new Uint8Array(64).fill(count)),
  ],
  'a response without anything in it': spiI => [writeMessage(initFacts(spiI, true), [])],
}

for (const [name, forge] of Object.entries(FORGERIES)) {
  t.test(`D3: forged answers (${name}) to every first message end nothing`, t => {
    for (const server of [{}, { cookieThreshold: 0 }, { ike: 'aes256gcm16-prfsha384-ecp384' }]) {
      const { stream, world, requests } = raced(forge, server)
      t.equal(stream.error, undefined, JSON.stringify(server))
      t.equal(world.accepted.find(({ received }) => received > 0)?.received, 1000)
      t.ok(requests < 20, `${requests} first messages`)
    }
    t.end()
  })
}

t.test('a responder that answers in IKEv1 alone is believed after one repetition', t => {
  const world = new World(11)
  const stream = new Stream(1000, 1, 2)
  world.filter = (to, bytes) => {
    const header = to === 'server' ? headerOf(bytes) : undefined
    if (header !== undefined)
      world.client.handleDatagram(datagramOf(version1(header.spiI)), toClient(world), world.now)
    return false
  }
  const start = world.now
  world.connect(stream)
  world.run(5000, () => stream.closed)
  t.equal(codeOf(stream.error), 'INVALID_MAJOR_VERSION')
  t.ok(world.now > start)
  t.end()
})

interface Impostors {
  readonly count: number
  /** Their answers arrive before the peer's, or each one after. */
  readonly isLate?: boolean
  /** They answer IKE_SA_INIT and are silent then. */
  readonly isMute?: boolean
}

/** Others on the way complete IKE_SA_INIT with the client as well as the peer does, but have no key. */
const impersonated = (
  { count, isLate = false, isMute = false }: Impostors,
  network: Network = PERFECT,
  client: Options = {},
  server: Options = {},
): { world: World; stream: Stream; answered: number } => {
  const world = new World(31, network, client, server)
  const stream = new Stream(1000, 1, 2)
  const impostors = Array.from(
    { length: count },
    (_, i) => new Target({ psk: 'not the key of these two' }, 50 + i),
  )
  const result = { world, stream, answered: 0 }
  let late: Uint8Array[] = []
  const give = (bytes: Uint8Array): void => {
    result.answered++
    world.client.handleDatagram(bytes.slice(), toClient(world), world.now)
  }
  world.filter = (to, bytes) => {
    const header = headerOf(bytes)
    if (header === undefined) return true
    if (to === 'client') {
      for (const answer of late.splice(0)) give(answer)
      return true
    }
    if (isMute && header.exchange !== EXCHANGE.init) return true
    const from = pathFrom(world.clientAddress, world.clientPort)
    const answers = impostors.flatMap(impostor => impostor.send(bytes, from))
    if (isLate) late.push(...answers.map(answer => answer.bytes))
    else for (const answer of answers) give(answer.bytes)
    return true
  }
  world.connect(stream)
  world.run(120_000, () => stream.closed)
  return result
}

const LATE_PATHS: Readonly<Record<string, Network>> = {
  'a good path': PERFECT,
  'a path slower than the first repetition': { ...PERFECT, delay: 350 },
  'a path slower than two repetitions': { ...PERFECT, delay: 700 },
  'a path that doubles everything': { ...PERFECT, duplicate: 1 },
}

for (const [path, network] of Object.entries(LATE_PATHS)) {
  t.test(`D3: impostors that answer IKE_SA_INIT end nothing (RFC 7296 §2.4), on ${path}`, t => {
    for (const impostors of [
      { count: 1 },
      { count: 3 },
      { count: 1, isMute: true },
      { count: 3, isMute: true },
      { count: 2, isLate: true },
    ]) {
      for (const server of [{}, { cookieThreshold: 0 }, { ike: 'aes256gcm16-prfsha384-ecp384' }]) {
        const name = JSON.stringify([impostors, server])
        const { world, stream, answered } = impersonated(impostors, network, {}, server)
        t.equal(stream.error, undefined, name)
        t.equal(world.accepted.find(({ received }) => received > 0)?.received, 1000, name)
        t.ok(answered >= impostors.count, 'they have answered')
        t.equal(world.client.saCount, 1, 'nothing is left of the others')
      }
    }
    t.end()
  })
}

t.test('D3: of many answers to the first request only so many are followed', t => {
  const { stream, world, answered } = impersonated({ count: 40, isMute: true })
  t.equal(answered, 40)
  t.equal(codeOf(stream.error), 'ETIMEDOUT')
  // Eight are followed, each with an IKE_AUTH that is repeated by the schedule.
  t.ok(world.datagrams < 150, `${world.datagrams} datagrams`)
  t.equal(world.client.saCount, 0)
  t.end()
})

t.test('D3: when the one answer leads nowhere, the client does not wait long for another', t => {
  const world = new World(32, PERFECT, {}, { psk: 'another key than the client has' })
  const stream = new Stream(1, 1, 2)
  world.connect(stream)
  world.run(60_000, () => stream.closed)
  t.equal(codeOf(stream.error), 'AUTHENTICATION_FAILED')
  t.ok(world.now < 3000, `${world.now} ms`)
  t.end()
})

t.test('an answer is to the request that was sent, however often it or its cookie come', t => {
  for (const network of Object.values(LATE_PATHS)) {
    for (let seed = 1; seed <= 10; seed++) {
      const world = new World(seed, network, {}, { cookieThreshold: 0 })
      const requests = new Set<string>()
      world.filter = (to, bytes) => {
        if (to === 'server' && headerOf(bytes)?.exchange === EXCHANGE.init)
          requests.add(toHex(bytes))
        return true
      }
      world.connect(new Stream(10, 1, 2))
      world.run(60_000)
      t.equal(world.accepted.length, 1)
      t.notOk(world.events.some(({ kind }) => kind === 'refused'))
      t.equal(requests.size, 2, 'without and with the cookie')
    }
  }
  t.end()
})

t.test('D3: a forged refusal does not count when the genuine answer is lost once', t => {
  const { stream } = raced(FORGERIES.NO_PROPOSAL_CHOSEN!, {}, count => count === 1)
  t.equal(stream.error, undefined)
  t.end()
})

t.test(
  'D3: a forged refusal of the first message is forgotten when IKE_AUTH has to be repeated',
  t => {
    const world = new World(12)
    const stream = new Stream(1000, 1, 2)
    let lost = 0
    world.filter = (to, bytes) => {
      const header = headerOf(bytes)
      if (to === 'client' || header === undefined) return true
      if (header.exchange === EXCHANGE.init) {
        const message = forged(header.spiI, NotifyType.NoProposalChosen)
        world.client.handleDatagram(datagramOf(message), toClient(world), world.now)
      }
      return header.exchange !== EXCHANGE.auth || ++lost > 3
    }
    world.connect(stream)
    world.run(60_000, () => stream.closed)
    t.equal(stream.error, undefined)
    t.end()
  },
)

t.test(
  'D3: a refusal by ICMP ends a negotiation only when it is repeated and nobody answers',
  t => {
    const world = new World(13)
    const stream = new Stream(1000, 1, 2)
    world.connect(stream)
    for (let i = 0; i < 1000; i++) world.client.handleRefusal(world.now)
    world.run(60_000, () => stream.closed)
    t.equal(stream.error, undefined)
    const dead = new World(14, { ...PERFECT, loss: 1 })
    const refused = new Stream(1, 1, 2)
    dead.connect(refused)
    dead.client.handleRefusal(dead.now)
    dead.run(60_000, () => refused.closed)
    t.equal(codeOf(refused.error), 'ECONNREFUSED')
    t.ok(dead.now < 4000, `${dead.now} ms`)
    t.end()
  },
)

t.test('D3: genuine refusals are still believed, within two repetitions', t => {
  const world = new World(
    15,
    PERFECT,
    { ike: 'aes256gcm16-prfsha384-ecp384' },
    { ike: 'aes128-sha256-modp2048' },
  )
  const stream = new Stream(1, 1, 2)
  world.connect(stream)
  world.run(60_000, () => stream.closed)
  t.equal(codeOf(stream.error), 'NO_PROPOSAL_CHOSEN')
  t.ok(world.now < 4000, `${world.now} ms`)
  t.end()
})

t.test(
  'A5: a first message changed on its way, in one octet of each three, ends in no connection with changed terms',
  t => {
    for (const which of ['server', 'client'] as const) {
      let length = 0
      const lengthOf = new World(21)
      lengthOf.filter = (to, bytes) => {
        if (to === which && headerOf(bytes)?.exchange === EXCHANGE.init) length ||= bytes.length
        return true
      }
      lengthOf.connect(new Stream(1, 1, 2))
      lengthOf.run(100)
      let connected = 0
      for (let at = 4; at < length; at += 3) {
        const world = new World(21, PERFECT, { retransmit: { initial: 100, tries: 1 } })
        let changed = 0
        world.filter = (to, bytes) => {
          // Every copy of it: what is repeated is changed too.
          if (to !== which || headerOf(bytes)?.exchange !== EXCHANGE.init) return true
          changed++
          const altered = bytes.slice()
          altered[at]! ^= 0x01
          const core = which === 'server' ? world.server : world.client
          const { localAddress, localPort, remoteAddress, remotePort } = toClient(world)
          const path =
            which === 'client'
              ? toClient(world)
              : {
                  socket: 0,
                  localAddress: remoteAddress,
                  localPort: remotePort,
                  remoteAddress: localAddress,
                  remotePort: localPort,
                }
          core.handleDatagram(altered, path, world.now)
          return false
        }
        const stream = new Stream(1, 1, 2)
        world.connect(stream)
        world.run(3000, () => stream.closed)
        if (stream.connection !== undefined) {
          connected++
          t.fail(`octet ${at} to the ${which}`)
        }
        if (changed === 0) t.fail('nothing was changed')
      }
      t.equal(connected, 0, `${length} octets to the ${which}`)
    }
    t.end()
  },
)

t.test('A6: each message sent back to its sender, as it is or turned around, does nothing', t => {
  const world = new World(22)
  const stream = new Stream(20_000, 1, 2)
  world.serve = () => new Stream(20_000, 2, 1)
  let reflected = 0
  world.filter = (to, bytes) => {
    for (const flip of [0, 0x08, 0x20, 0x28]) {
      const copy = bytes.slice()
      if (flip > 0 && !isIke(bytes)) continue
      if (flip > 0) copy[23]! ^= flip
      reflected++
      if (to === 'server') world.client.handleDatagram(copy, toClient(world), world.now)
      else {
        const { localAddress, localPort, remoteAddress, remotePort } = toClient(world)
        const path = {
          socket: 0,
          localAddress: remoteAddress,
          localPort: remotePort,
          remoteAddress: localAddress,
          remotePort: localPort,
        }
        world.server.handleDatagram(copy, path, world.now)
      }
    }
    return true
  }
  world.connect(stream)
  world.run(60_000, () => stream.closed)
  t.ok(reflected > 20)
  t.equal(stream.error, undefined)
  t.equal(stream.received, 20_000)
  t.notOk(stream.corrupted)
  t.equal(world.server.saCount + world.client.saCount, 2)
  t.end()
})

t.test('A3: a responder that asks for EAP where none is configured is refused', t => {
  const ring = new KeyRing()
  const world = new World(23, PERFECT, {}, {}, ring)
  world.filter = (to, bytes) => {
    const header = headerOf(bytes)
    if (to === 'server' || header?.exchange !== EXCHANGE.auth) return true
    const inside = ring.open(messageOf(bytes))!
    const payloads = readChain(inside.bytes, 0, inside.bytes.length, inside.first)
    if (isChainError(payloads)) throw new Error('unreadable')
    const more = ring.sealPayloads(header, [
      ...payloads,
      { kind: 'eap', data: Uint8Array.of(1, 1, 0, 5, 1) },
    ])
    world.client.handleDatagram(datagramOf(more), toClient(world), world.now)
    return false
  }
  const stream = new Stream(1, 1, 2)
  world.connect(stream)
  world.run(60_000, () => stream.closed)
  t.equal(codeOf(stream.error), 'AUTHENTICATION_FAILED')
  t.end()
})
