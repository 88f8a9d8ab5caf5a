/** Attacks before authentication on a responder: parsing, exhaustion, amplification. */
import t from 'tap'
import { isInvalidIkeSpi } from '../../lib/core/hints.ts'
import { putU16, putU32 } from '../../lib/base/bytes.ts'
import { readIkeHeader } from '../../lib/wire/ike-header.ts'
import { writeMessage } from '../../lib/wire/message.ts'
import { findNotify, notify } from '../../lib/wire/notify.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { NotifyType } from '../../lib/wire/registry.ts'
import type { Proposal } from '../../lib/wire/sa.ts'
import {
  Caller,
  datagramOf,
  initFacts,
  initPayloads,
  initRequest,
  messageOf,
  pathFrom,
  publicValue,
  readPayloads,
  sourceAddress,
  spiOf,
  Target,
} from '../harness/attacker.ts'
import { Random } from '../harness/random.ts'

const notifyTypes = (message: Uint8Array): number[] =>
  readPayloads(message).flatMap(payload => (payload.kind === 'notify' ? [payload.type] : []))

/** What one request is told: the type of the notify, 0 for a normal answer, undefined for silence. */
const told = (target: Target, message: Uint8Array, i = 1): number | undefined => {
  const [answer] = target.send(datagramOf(message), pathFrom(sourceAddress(i)))
  if (answer === undefined) return undefined
  const payloads = readPayloads(messageOf(answer.bytes))
  return payloads.some(({ kind }) => kind === 'sa') ? 0 : notifyTypes(messageOf(answer.bytes))[0]
}

/** Entries of all maps, sets and arrays that hang on something. */
const countEntries = (root: object): number => {
  const seen = new Set<unknown>()
  let entries = 0
  const visit = (value: unknown): void => {
    if (typeof value !== 'object' || value === null || seen.has(value)) return
    seen.add(value)
    if (ArrayBuffer.isView(value)) return
    if (value instanceof Map || value instanceof Set || Array.isArray(value)) {
      for (const entry of value.values()) {
        entries++
        visit(entry)
      }
    } else Object.values(value).forEach(visit)
  }
  visit(root)
  return entries
}

t.test(
  'P1: every length field of a first message that lies leaves no SA and gets one error at most',
  t => {
    const honest = initRequest()
    const places = [24]
    for (let at = 28; at < honest.length; at += (honest[at + 2]! << 8) | honest[at + 3]!)
      places.push(at)
    let cases = 0
    const target = new Target()
    for (const at of places) {
      const truth = at === 24 ? honest.length : (honest[at + 2]! << 8) | honest[at + 3]!
      for (const length of [0, 1, 2, 3, truth - 1, truth + 1, 0x7fff, 0xffff]) {
        const message = honest.slice()
        if (at === 24) putU32(message, 24, length)
        else putU16(message, at + 2, length)
        const answers = target.send(datagramOf(message))
        t.ok(answers.length <= 1)
        for (const { bytes } of answers)
          t.strictSame(notifyTypes(messageOf(bytes)), [NotifyType.InvalidSyntax])
        cases++
      }
    }
    for (const next of [0, 33, 46, 53, 255]) {
      // A chain whose last payload names another, and one that begins as something else.
      for (const at of [16, places.at(-1)!]) {
        const message = honest.slice()
        if (message[at] === next) continue
        message[at] = next
        target.send(datagramOf(message))
        cases++
      }
    }
    for (const extra of [1, 3, 4])
      target.send(datagramOf(new Uint8Array([...honest, ...new Uint8Array(extra)])))
    t.ok(cases >= 40)
    t.equal(target.core.saCount, 0)
    t.end()
  },
)

t.test('P2: a first message with a payload missing or doubled makes no SA', t => {
  const payloads = initPayloads()
  const target = new Target()
  payloads.forEach((payload, i) => {
    const without = payloads.filter((_, j) => j !== i)
    t.equal(
      told(target, writeMessage(initFacts(spiOf(i)), without)),
      NotifyType.InvalidSyntax,
      `no ${payload.kind}`,
    )
    const doubled = [...payloads, payload]
    t.equal(
      told(target, writeMessage(initFacts(spiOf(i)), doubled)),
      NotifyType.InvalidSyntax,
      `two ${payload.kind}`,
    )
  })
  for (const missing of [1, 2, 4]) {
    const [sa, ...rest] = payloads as [Payload & { kind: 'sa' }, ...Payload[]]
    const proposals = sa.proposals.map(proposal => ({
      ...proposal,
      transforms: proposal.transforms.filter(({ type }) => type !== missing),
    }))
    const message = writeMessage(initFacts(spiOf(20 + missing)), [
      { kind: 'sa', proposals },
      ...rest,
    ])
    t.equal(
      told(target, message),
      NotifyType.NoProposalChosen,
      `a proposal without transform type ${missing}`,
    )
  }
  t.equal(target.core.saCount, 0)
  t.end()
})

t.test('P3: unknown payloads are passed over, critical ones named, more than 64 refused', t => {
  const unknown = (critical: boolean): Payload => ({
    kind: 'unknown',
    type: 200,
    critical,
    data: new Uint8Array(0),
  })
  const target = new Target()
  t.equal(told(target, initRequest({ spiI: spiOf(1), more: [unknown(false)] })), 0)
  t.equal(told(target, initRequest({ spiI: spiOf(2), more: Array(61).fill(unknown(false)) }), 2), 0)
  t.equal(
    told(target, initRequest({ spiI: spiOf(3), more: [unknown(true)] }), 3),
    NotifyType.UnsupportedCriticalPayload,
  )
  for (const count of [62, 100, 1000, 2000]) {
    const before = target.core.saCount
    const answer = told(
      target,
      initRequest({ spiI: spiOf(count), more: Array(count).fill(unknown(false)) }),
      4,
    )
    t.ok(answer === NotifyType.InvalidSyntax || answer === undefined, `${count}`)
    t.equal(target.core.saCount, before)
  }
  t.end()
})

t.test(
  'P4: an SA payload with more proposals or transforms than anyone needs is refused by its size',
  t => {
    const [sa] = initPayloads() as [Payload & { kind: 'sa' }]
    const [proposal] = sa.proposals as [Proposal]
    const wide: Proposal = {
      ...proposal,
      transforms: Array.from({ length: 255 }, (_, i) => ({ type: 1, id: 1000 + i })),
    }
    const target = new Target()
    const offer = (proposals: Proposal[], i: number): number | undefined =>
      told(
        target,
        writeMessage(initFacts(spiOf(i)), [{ kind: 'sa', proposals }, ...initPayloads().slice(1)]),
        i,
      )
    t.equal(offer(Array<Proposal>(65).fill(proposal), 1), NotifyType.InvalidSyntax)
    t.equal(offer([wide], 2), NotifyType.NoProposalChosen)
    t.equal(offer(Array<Proposal>(30).fill(wide), 3), undefined, 'over 60 KiB: silence')
    t.equal(offer([{ ...proposal, transforms: [] }], 4), NotifyType.InvalidSyntax)
    t.equal(offer([{ ...proposal, spi: new Uint8Array(8) }], 5), NotifyType.InvalidSyntax)
    t.equal(offer([{ ...proposal, protocol: 3 }], 6), NotifyType.InvalidSyntax)
    t.equal(target.core.saCount, 0)
    t.end()
  },
)

t.test('P6: groups we do not have and public values that are none make no SA', t => {
  const target = new Target()
  for (const group of [0, 1, 2, 1025, 65535]) {
    const message = writeMessage(initFacts(spiOf(group)), [
      initPayloads()[0]!,
      { kind: 'ke', group, data: new Uint8Array(32) },
      { kind: 'nonce', data: new Uint8Array(32) },
    ])
    t.equal(told(target, message), NotifyType.InvalidKePayload, `group ${group}`)
  }
  const bad: [number, string, Uint8Array][] = [
    [31, 'x25519', new Uint8Array(32)],
    [31, 'x25519', Uint8Array.from({ length: 32 }, (_, i) => (i === 0 ? 1 : 0))],
    [31, 'x25519', new Uint8Array(31)],
    [31, 'x25519', new Uint8Array(33)],
    [19, 'ecp256', new Uint8Array(64).fill(9)],
    [19, 'ecp256', new Uint8Array(64)],
    // The same point compressed: RFC 5903 §7 has x and y only.
    [19, 'ecp256', new Uint8Array([2, ...publicValue(19).subarray(0, 32)])],
    [14, 'modp2048', new Uint8Array(256)],
    [14, 'modp2048', Uint8Array.from({ length: 256 }, (_, i) => (i === 255 ? 1 : 0))],
    [14, 'modp2048', new Uint8Array(256).fill(255)],
    [14, 'modp2048', publicValue(14).subarray(1)],
    [21, 'ecp521', new Uint8Array(132).fill(255)],
  ]
  bad.forEach(([group, name, keyExchange], i) => {
    const message = initRequest({
      spiI: spiOf(i),
      proposals: `aes256gcm16-prfsha256-${name}`,
      group,
      keyExchange,
    })
    t.equal(told(target, message, i), NotifyType.InvalidSyntax, `${name} ${i}`)
  })
  t.equal(target.core.saCount, 0)
  t.end()
})

t.test(
  'P10: only a first message starts anything; of other exchanges and flags, only a request with an unknown SPI is told so',
  t => {
    const target = new Target()
    const honest = initRequest()
    let told = 0
    for (let exchange = 0; exchange < 256; exchange++) {
      for (const flags of [0x00, 0x08, 0x20, 0x28]) {
        for (const hasSpi of [false, true]) {
          if (exchange === 34 && flags === 0x08 && !hasSpi) continue
          const message = honest.slice()
          message[18] = exchange
          message[19] = flags
          if (hasSpi) message.fill(0x77, 8, 16)
          const answers = target.send(datagramOf(message))
          // RFC 7296 §2.21.4: an end that has restarted says that it does not know the SA.
          const isOfAnSa = hasSpi && exchange >= 35 && exchange <= 37 && (flags & 0x20) === 0
          if (answers.length > (isOfAnSa ? 1 : 0)) t.fail(`${exchange} ${flags}`)
          told += answers.length
          for (const { bytes } of answers) {
            t.ok(bytes.length <= message.length + 4)
            const header = readIkeHeader(messageOf(bytes))
            t.ok(header?.response === true && isInvalidIkeSpi(messageOf(bytes), header))
          }
        }
      }
    }
    t.equal(told, 6, 'three exchanges, of either role')
    const unknown = honest.slice().fill(0x77, 8, 16)
    unknown.set([37, 0x08], 18)
    for (let i = 0; i < 10_000; i++)
      told += target.send(datagramOf(unknown), pathFrom(sourceAddress(i))).length
    t.ok(told <= 10, `${told} are told so at one moment, from however many addresses they ask`)
    for (const [at, value] of [
      [23, 1],
      [17, 0x10],
      [17, 0x00],
    ] as const) {
      const message = honest.slice()
      message[at] = value
      t.equal(target.send(datagramOf(message)).length, 0)
    }
    t.equal(target.core.saCount, 0)
    t.end()
  },
)

t.test('P10: before IKE_AUTH a half-open SA takes nothing but IKE_AUTH', t => {
  const target = new Target()
  const [answer] = target.send(datagramOf(initRequest()))
  const header = readIkeHeader(messageOf(answer!.bytes))!
  for (let exchange = 0; exchange < 256; exchange++) {
    for (const messageId of [0, 1, 2, 0xffffffff]) {
      for (const flags of [0x08, 0x28]) {
        // Not protected, or protected by a key that nobody has.
        for (const first of [0, 41, 46, 53]) {
          const message = new Uint8Array(80).fill(3)
          message.set(header.spiI, 0)
          message.set(header.spiR, 8)
          message.set([first, 0x20, exchange, flags], 16)
          putU32(message, 20, messageId)
          putU32(message, 24, message.length)
          message.set([0, 0, 0, 52], 28)
          const answers = target.send(datagramOf(message))
          if (answers.length > 0)
            t.fail(`exchange ${exchange} id ${messageId} flags ${flags}: ${first}`)
        }
      }
    }
  }
  t.equal(target.core.saCount, 1)
  t.end()
})

t.test('D1: a spoofed flood leaves as many half-open SAs as the threshold', t => {
  const target = new Target({ cookieThreshold: 30 })
  let cookies = 0
  for (let i = 0; i < 5000; i++) {
    target.now += 2
    const source = sourceAddress(i % 2500)
    const answers = target.send(
      datagramOf(initRequest({ spiI: spiOf(i) })),
      pathFrom(source, 1024 + (i & 1)),
    )
    if (answers.length === 1 && notifyTypes(messageOf(answers[0]!.bytes))[0] === NotifyType.Cookie)
      cookies++
  }
  t.equal(target.core.saCount, 30)
  t.equal(cookies, 4970)
  const caller = new Caller(Uint8Array.of(203, 0, 113, 5))
  caller.talk(target)
  t.ok(
    caller.events.some(({ kind }) => kind === 'connected'),
    'an honest client connects meanwhile',
  )
  target.wait(31_000)
  t.equal(target.core.saCount, 1, 'and the half-open ones are gone after their time')
  t.end()
})

t.test('D1: 100,000 attempts from 10,000 addresses: every table stays at its bound', t => {
  const target = new Target()
  let answers = 0
  for (let i = 0; i < 100_000; i++) {
    const message = datagramOf(initRequest({ spiI: spiOf(i) }))
    answers += target.send(message, pathFrom(sourceAddress(i % 10_000), 1024)).length
    // Ten seconds in all.
    if (i % 10 === 0) target.now += 1
  }
  t.equal(target.core.saCount, 30)
  t.ok(answers >= 18_000 && answers <= 23_000, `${answers} answered`)
  t.ok(target.drops('ike.init.flood') >= 75_000, 'the others are dropped before they are looked at')
  t.equal(target.events.length, 0)
  const entries = countEntries(target.core)
  t.ok(entries < 1000, `${entries} entries in all tables`)
  const caller = new Caller(Uint8Array.of(203, 0, 113, 5), {}, 7, target.now)
  const from = pathFrom(caller.path.localAddress, caller.path.localPort)
  // As many more in one moment, from addresses that were quiet until then, and the client's first try after them.
  target.now += 1000
  for (let i = 0; i < 20_000; i++)
    target.send(datagramOf(initRequest({ spiI: spiOf(i) })), pathFrom(sourceAddress(20_000 + i)))
  const [first] = caller.connect()
  t.equal(target.send(first!, from).length, 0)
  t.equal(target.send(first!, from).length, 1, 'whoever asks again is heard before others')
  t.end()
})

t.test('D1: what strangers are answered does not keep a peer waiting', t => {
  const target = new Target({ cookieThreshold: 0 })
  const caller = new Caller(Uint8Array.of(203, 0, 113, 5))
  caller.talk(target)
  const accepted = target.events.find(event => event.kind === 'accepted')!
  if (accepted.kind !== 'accepted') throw new Error('not accepted')
  accepted.connection.send(new Uint8Array(1 << 20))
  target.core.wake(accepted.connection, target.now)
  for (let i = 0; i < 10_000; i++)
    target.core.handleDatagram(
      datagramOf(initRequest({ spiI: spiOf(i) })),
      pathFrom(sourceAddress(i)),
      target.now,
    )
  const order = target.drain().map(({ path }) => path.remoteAddress[0] === 203)
  t.ok(order.slice(0, 10).filter(isPeer => isPeer).length >= 5, order.slice(0, 12).join())
  t.ok(order.filter(isPeer => !isPeer).length <= 64, 'answers that wait are bounded')
  t.end()
})

t.test(
  'D1: real addresses that bring cookies are bounded in all and for each source, /64 for IPv6',
  t => {
    const complete = (target: Target, i: number, address: Uint8Array, port: number): void => {
      const spiI = spiOf(i)
      const path = pathFrom(address, port)
      const [first] = target.send(datagramOf(initRequest({ spiI })), path)
      const cookie =
        first && findNotify(readPayloads(messageOf(first.bytes)), NotifyType.Cookie)?.data
      if (cookie !== undefined) target.send(datagramOf(initRequest({ spiI, cookie })), path)
    }
    const one = new Target({ halfOpenPerSource: 10 })
    for (let i = 0; i < 100; i++) complete(one, i, sourceAddress(1), 2000 + i)
    t.equal(one.core.saCount, 10)
    t.ok(one.drops('ike.halfOpenPerSource') > 0)
    const prefix = new Target({ halfOpenPerSource: 10 })
    for (let i = 0; i < 100; i++) {
      const address = Uint8Array.from({ length: 16 }, (_, at) => (at < 8 ? 0x20 : i))
      complete(prefix, i, address, 2000)
    }
    t.equal(prefix.core.saCount, 10)
    const many = new Target({ maxHalfOpen: 100 })
    for (let i = 0; i < 400; i++) {
      complete(many, i, sourceAddress(i), 2000)
      many.now += 5
    }
    t.equal(many.core.saCount, 100)
    t.end()
  },
)

t.test(
  'D2: a cookie is good for its nonce, SPI, address and port, for one rotation, and once more',
  t => {
    const fresh = (): { target: Target; cookie: Uint8Array } => {
      const target = new Target({ cookieThreshold: 0 })
      const [answer] = target.send(datagramOf(initRequest()))
      return {
        target,
        cookie: findNotify(readPayloads(messageOf(answer!.bytes)), NotifyType.Cookie)!.data,
      }
    }
    {
      const { target, cookie } = fresh()
      t.equal(told(target, initRequest({ cookie })), 0)
    }
    {
      const { target, cookie } = fresh()
      target.now += 65_000
      t.equal(told(target, initRequest({ cookie })), 0, 'the secret before is still good')
    }
    {
      const { target, cookie } = fresh()
      target.now += 65_000
      target.send(datagramOf(initRequest()))
      target.now += 65_000
      t.equal(
        told(target, initRequest({ cookie })),
        NotifyType.Cookie,
        'two rotations later it is not',
      )
    }
    const { target, cookie } = fresh()
    const wrong = cookie.slice()
    wrong[5]! ^= 1
    t.equal(told(target, initRequest({ cookie: wrong })), NotifyType.Cookie, 'wrong')
    t.equal(told(target, initRequest({ cookie: cookie.subarray(1) })), NotifyType.Cookie, 'short')
    t.equal(told(target, initRequest({ cookie: new Uint8Array(0) })), NotifyType.Cookie, 'empty')
    t.equal(
      told(target, initRequest({ cookie, nonce: new Uint8Array(32).fill(8) })),
      NotifyType.Cookie,
      'other nonce',
    )
    t.equal(told(target, initRequest({ cookie, spiI: spiOf(2) })), NotifyType.Cookie, 'other SPI')
    t.equal(told(target, initRequest({ cookie }), 2), NotifyType.Cookie, 'other address')
    const [other] = target.send(
      datagramOf(initRequest({ cookie })),
      pathFrom(sourceAddress(1), 4501),
    )
    t.strictSame(notifyTypes(messageOf(other!.bytes)), [NotifyType.Cookie], 'other port')
    t.equal(target.core.saCount, 0)
    t.end()
  },
)

t.test('D4: no answer to a stranger is larger than what came, whatever it is', t => {
  const ratios: [string, Uint8Array][] = []
  for (const [name, group] of [
    ['x25519', 31],
    ['ecp521', 21],
    ['modp2048', 14],
    ['modp4096', 16],
  ] as const) {
    const proposals = `aes256gcm16-prfsha256-${name}`
    const more = [notify(NotifyType.Ikev2FragmentationSupported)]
    ratios.push([`least ${name}`, initRequest({ proposals, group, nonce: new Uint8Array(16) })])
    ratios.push([`least ${name}, fragmentation`, initRequest({ proposals, group, more })])
    ratios.push([
      `another group than ${name}`,
      initRequest({ proposals, group: 2, keyExchange: new Uint8Array(0) }),
    ])
  }
  const sha512 = 'aes256gcm16-prfsha512-x25519'
  ratios.push([
    'a nonce too short for its PRF',
    initRequest({ proposals: sha512, nonce: new Uint8Array(16) }),
  ])
  const header = writeMessage(initFacts(spiOf(1)), [])
  ratios.push(['a header alone', header])
  const newer = header.slice()
  newer[17] = 0x30
  ratios.push(['a header of version 3', newer])
  ratios.push([
    'a critical payload',
    writeMessage(initFacts(spiOf(1)), [
      { kind: 'unknown', type: 200, critical: true, data: new Uint8Array(0) },
    ]),
  ])
  ratios.push([
    'no proposal',
    initRequest({ proposals: 'aes256gcm16-prfsha256-modp1024', group: 2 }),
  ])
  for (const [name, message] of ratios) {
    for (const cookieThreshold of [0, 30]) {
      const target = new Target({ cookieThreshold })
      const request = datagramOf(message)
      let octets = 0
      for (const { bytes } of target.send(request)) octets += bytes.length
      t.ok(octets <= request.length, `${name}: ${octets} to ${request.length}`)
      t.equal(target.wait(29_000).length, 0, 'and nothing is sent again by itself')
    }
  }
  t.end()
})

t.test('D4: nor is any answer to random datagrams and mutations', t => {
  const random = new Random(4)
  const target = new Target()
  const honest = datagramOf(initRequest({ more: [notify(NotifyType.Ikev2FragmentationSupported)] }))
  for (let i = 0; i < 20_000; i++) {
    let datagram = honest.slice(
      0,
      random.chance(0.3) ? random.integer(0, honest.length) : undefined,
    )
    for (let edits = random.integer(0, 4); edits > 0 && datagram.length > 0; edits--)
      datagram[random.integer(0, datagram.length - 1)] = random.next()
    if (random.chance(0.2)) {
      datagram = new Uint8Array(random.integer(0, 300))
      random.fill(datagram)
    }
    let octets = 0
    for (const { bytes } of target.send(datagram, pathFrom(sourceAddress(i))))
      octets += bytes.length
    if (octets > datagram.length) t.fail(`${octets} octets to ${datagram.length}`)
    if (i % 100 === 0) target.now += 1000
  }
  t.ok(target.core.saCount <= 1000)
  t.end()
})

t.test('D5: a first message recorded and sent again costs one key exchange', t => {
  const target = new Target({ cookieThreshold: 1000 })
  const request = datagramOf(initRequest())
  const first = target.send(request)
  for (let i = 0; i < 400; i++) t.strictSame(target.send(request), first)
  let answers = 0
  for (let i = 0; i < 10_000; i++) answers += target.send(request).length
  t.ok(answers < 700, `${answers} answers to 10,000 more at one moment`)
  t.equal(target.core.saCount, 1)
  t.end()
})

t.test(
  'D5: a first message that comes once more after its handshake was done makes no other',
  t => {
    const target = new Target()
    const caller = new Caller(sourceAddress(1))
    const [request] = caller.connect()
    caller.talk(target, [request!])
    t.equal(target.sessions.length, 1)
    const from = pathFrom(caller.path.localAddress, caller.path.localPort)
    t.strictSame(target.send(request!, from), [])
    t.strictSame(target.send(request!, pathFrom(sourceAddress(2), 500)), [], 'nor from elsewhere')
    t.equal(target.drops('ike.init.late'), 2)
    target.now += 30_000
    t.equal(target.send(request!, from).length, 1, 'half a minute later nobody knows it any more')
    t.end()
  },
)

t.test('D5: the same SPI and source with other octets is another handshake', t => {
  // RFC 7296 2.1. Whoever sees a first message on its way can send such another before it.
  const target = new Target()
  const caller = new Caller(sourceAddress(1))
  const [request] = caller.connect()
  const from = pathFrom(caller.path.localAddress, caller.path.localPort)
  const forged = request!.slice()
  // The last octet is one of the vendor ID, so the request stays a good one.
  forged[forged.length - 1]! ^= 1
  t.equal(target.send(forged, from).length, 1)
  caller.talk(target, [request!])
  t.ok(
    caller.events.some(({ kind }) => kind === 'connected'),
    'and does not keep the genuine one out',
  )
  t.end()
})

t.test(
  'D7: key exchanges of strangers are rationed, forgers get less of it than proven addresses',
  t => {
    const strong = { proposals: 'aes256gcm16-prfsha256-modp4096', group: 16 }
    const target = new Target({ cookieThreshold: 1_000_000, maxHalfOpen: 1_000_000 })
    let accepted = 0
    let cookies = 0
    for (let i = 0; i < 700; i++) {
      const answer = told(target, initRequest({ ...strong, spiI: spiOf(i) }), i)
      if (answer === 0) accepted++
      else if (answer === NotifyType.Cookie) cookies++
    }
    t.ok(accepted > 20 && accepted < 120, `${accepted} of 700 at one moment`)
    t.equal(accepted + cookies, 700)
    const caller = new Caller(Uint8Array.of(203, 0, 113, 5))
    caller.talk(target)
    t.ok(
      caller.events.some(({ kind }) => kind === 'connected'),
      'a client that brings its cookie connects',
    )
    target.now += 1000
    t.equal(told(target, initRequest({ ...strong, spiI: spiOf(5000) }), 5000), 0, 'time earns more')
    t.end()
  },
)

t.test('D8: handshakes that fail IKE_AUTH are bounded, and their memory goes', t => {
  const target = new Target({ maxHalfOpen: 50, halfOpenPerSource: 10 })
  const wrong = { psk: 'not the key that they have' }
  for (let i = 0; i < 200; i++) {
    new Caller(sourceAddress(i), wrong, i + 5, target.now).talk(target)
    if (i % 20 === 0) t.ok(target.core.saCount <= 50)
    target.now += 5
  }
  t.equal(target.core.saCount, 50)
  target.wait(31_000)
  t.equal(target.core.saCount, 0)
  t.ok(target.core.isIdle)
  t.end()
})

t.test('D8: failures cost their source, and do not lock out who shares its address', t => {
  const target = new Target()
  const wrong = { psk: 'not the key that they have' }
  for (let i = 0; i < 600; i++) {
    new Caller(sourceAddress(1), wrong, i + 5, target.now, 3000 + i).talk(target)
    target.now += 1
  }
  const guesses = target.events.filter(({ kind }) => kind === 'refused').length
  t.ok(guesses >= 60 && guesses <= 400, `${guesses} guesses of 600 in 0.6 s`)
  // Ten guesses a second go on, and a client with the right key asks as its timer says.
  const honest = new Caller(sourceAddress(1), {}, 4, target.now, 2999)
  const end = target.now + 5000
  honest.talk(target)
  for (let i = 0; target.now < end; i++) {
    target.now += 100
    new Caller(sourceAddress(1), wrong, i + 1005, target.now, 5000 + i).talk(target)
    honest.talk(target, honest.wait(100))
  }
  t.ok(honest.events.some(({ kind }) => kind === 'connected'))
  t.end()
})

t.test('D8: one IKE_AUTH is one attempt, readable or not', t => {
  const target = new Target()
  const caller = new Caller(sourceAddress(1), { psk: 'not the key that they have' })
  caller.talk(target)
  t.equal(target.events.filter(({ kind }) => kind === 'refused').length, 1)
  t.equal(target.core.saCount, 1, 'it still repeats its answer')
  target.wait(31_000)
  t.equal(target.core.saCount, 0)
  t.end()
})

t.test(
  'D8: an application that does not answer holds a half-open SA no longer than its time',
  t => {
    const target = new Target({ authorize: () => true })
    new Caller(sourceAddress(1)).talk(target)
    t.ok(target.events.some(({ kind }) => kind === 'question'))
    t.equal(target.core.saCount, 1)
    target.wait(31_000)
    t.equal(target.core.saCount, 0)
    t.end()
  },
)

t.test('D8: peers that an application let in late are no longer half open', t => {
  const target = new Target({ authorize: () => true, maxHalfOpen: 20, cookieThreshold: 10 })
  for (let i = 0; i < 60; i++) {
    const caller = new Caller(sourceAddress(i), {}, i + 5, target.now)
    caller.talk(target)
    const question = target.events.findLast(event => event.kind === 'question')!
    target.core.answer(
      question.kind === 'question' ? question.id : 0,
      { authorize: true },
      target.now,
    )
    caller.talk(
      target,
      target.drain().flatMap(({ bytes }) => caller.receive(bytes)),
    )
    t.ok(
      caller.events.some(({ kind }) => kind === 'connected'),
      `${i}`,
    )
  }
  t.equal(target.events.filter(({ kind }) => kind === 'sessionDown').length, 0)
  t.equal(target.core.saCount, 60)
  t.end()
})

t.test(
  'D9: floods of anything else cost a counter: no answer beyond ten hints a second, no state',
  t => {
    const target = new Target()
    const random = new Random(3)
    let octets = 0
    let answers = 0
    for (let i = 0; i < 50_000; i++) {
      const datagram = new Uint8Array([0, 1, 3, 15, 16, 60, 1400][i % 7]!)
      random.fill(datagram)
      if (i % 7 === 1) datagram[0] = 0xff
      octets += datagram.length
      for (const { bytes } of target.send(datagram, pathFrom(sourceAddress(i)))) {
        answers++
        t.ok(bytes.length <= datagram.length)
      }
    }
    t.ok(answers <= 10, `${answers} answers`)
    t.equal(target.core.saCount, 0)
    t.ok(target.core.isIdle)
    t.equal(target.core.nextTimeout(), Infinity)
    t.ok(Object.keys(target.core.counters.drops).length < 20)
    t.end()
  },
)
