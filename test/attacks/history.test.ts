/**
 * Flaws of other IKE implementations, each under its number. What is tested elsewhere is not repeated here:
 * `README.md` beside this file has the whole list.
 */
import { createPublicKey } from 'node:crypto'
import t, { type Test } from 'tap'
import { concat, fromHex, putU16, toHex, utf8 } from '../../lib/base/bytes.ts'
import { contextTag, DerReader } from '../../lib/base/der.ts'
import { bitString, der, integer, NULL, oid, sequence } from '../../lib/base/der-writer.ts'
import type { Tracer } from '../../lib/base/trace.ts'
import { findAlgorithm } from '../../lib/crypto/signature.ts'
import { checkSharedKeyAuth, sharedKeyAuth } from '../../lib/identity/auth.ts'
import { extension } from '../../lib/identity/certificate-builder.ts'
import { parseCredentials } from '../../lib/identity/credentials.ts'
import {
  formatIdentity,
  identityKey,
  identityMatches,
  parseIdentity,
} from '../../lib/identity/identity.ts'
import { createPrf } from '../../lib/crypto/prf.ts'
import { parsePolicy } from '../../lib/policy/options.ts'
import { readIkeHeader } from '../../lib/wire/ike-header.ts'
import { writeMessage } from '../../lib/wire/message.ts'
import { findErrorNotify, notify } from '../../lib/wire/notify.ts'
import {
  isChainError,
  readChain,
  writeChain,
  type WrittenChain,
} from '../../lib/wire/payload-chain.ts'
import { readPayload, type Payload } from '../../lib/wire/payloads.ts'
import { ExchangeType, IdType, NotifyType, PayloadType } from '../../lib/wire/registry.ts'
import {
  Caller,
  datagramOf,
  initFacts,
  initPayloads,
  initRequest,
  KeyRing,
  messageOf,
  pathFrom,
  readPayloads,
  sourceAddress,
  spiOf,
  Target,
  type Answer,
} from '../harness/attacker.ts'
import {
  authority,
  certificate,
  endEntity,
  type Credential,
  type KeyType,
} from '../harness/certificates.ts'
import { Random } from '../harness/random.ts'
import type { Options } from '../harness/world.ts'

const ADDRESS = Uint8Array.of(203, 0, 113, 5)
const FROM = pathFrom(ADDRESS, 40001)
const NOTHING = new Uint8Array(0)

const parts = ({ first, bytes }: WrittenChain): Payload[] => {
  const payloads = readChain(bytes, 0, bytes.length, first)
  if (isChainError(payloads)) throw new Error('our own payloads cannot be read')
  return payloads
}

/** A key exchange was done, as any stranger can; the initiator's IKE_AUTH is held back. */
const keyed = (serverOptions: Options = {}, clientOptions: Options = {}) => {
  const ring = new KeyRing()
  const target = new Target(serverOptions, 1, ring)
  // One datagram, however large its certificates.
  const caller = new Caller(ADDRESS, { fragmentation: false, ...clientOptions })
  const [init] = caller.connect()
  const [answer] = target.send(init!, FROM)
  const [auth] = caller.receive(answer!.bytes)
  const message = messageOf(auth!)
  const { spiI, spiR } = readIkeHeader(message)!
  const facts = (exchange: number, messageId: number, fromInitiator = true) => ({
    spiI,
    spiR,
    exchange,
    originalInitiator: fromInitiator,
    response: false,
    messageId,
  })
  return {
    ring,
    target,
    caller,
    auth: auth!,
    payloads: parts(ring.open(message)!),
    facts,
    /** As the initiator, protected. */
    send: (payloads: readonly Payload[] | WrittenChain, exchange = 35, messageId = 1): Answer[] => {
      const chain = 'first' in payloads ? payloads : writeChain(payloads)
      return target.send(datagramOf(ring.seal(facts(exchange, messageId), chain)), FROM)
    },
    /** The error in an answer; 0 when it has none, undefined when there is no answer. */
    told: ([answer]: readonly Answer[]): number | undefined => {
      if (answer === undefined) return undefined
      const chain = ring.open(messageOf(answer.bytes))
      if (chain === undefined) return findErrorNotify(readPayloads(messageOf(answer.bytes)))?.type
      return findErrorNotify(parts(chain))?.type ?? 0
    },
    isUp: (): boolean => target.events.some(({ kind }) => kind === 'sessionUp'),
  }
}
type Scene = ReturnType<typeof keyed>

/** The genuine IKE_AUTH with one payload replaced or, by undefined, left out. */
const altered = ({ payloads }: Scene, kind: string, by: Payload | undefined): Payload[] =>
  payloads.flatMap(payload => (payload.kind === kind ? (by === undefined ? [] : [by]) : [payload]))

t.test('the genuine IKE_AUTH, opened and sealed again, is what the tests below start from', t => {
  const scene = keyed()
  t.strictSame(
    scene.payloads.map(({ kind }) => kind).filter(kind => kind !== 'notify'),
    ['idi', 'auth', 'sa', 'tsi', 'tsr'],
  )
  t.equal(scene.told(scene.send(scene.payloads)), 0)
  t.ok(scene.isUp())
  t.end()
})

t.test('CVE-2014-2338: no exchange but IKE_AUTH makes an SA, for whoever has the keys', t => {
  const rekey = [...initPayloads(), notify(NotifyType.RekeySa)]
  for (const exchange of [34, 36, 37, 38, 43, 44]) {
    for (const messageId of [0, 1, 2]) {
      for (const payloads of [[], initPayloads(), rekey]) {
        const scene = keyed()
        scene.send(payloads, exchange, messageId)
        t.notOk(scene.isUp(), `exchange ${exchange}, message ${messageId}`)
        t.equal(scene.target.core.saCount <= 1, true)
      }
    }
  }
  t.end()
})

t.test('CVE-2014-2338: nor does the responder make the initiator believe so', t => {
  for (const exchange of [34, 35, 36, 37, 43]) {
    for (const messageId of [0, 1, 2]) {
      const scene = keyed()
      const { caller, ring } = scene
      const facts = scene.facts(exchange, messageId, false)
      for (const response of [false, true]) {
        // IKE_AUTH's answer without a proof is what the next test is for.
        if (response && exchange === 35) continue
        const message = ring.sealPayloads({ ...facts, response }, initPayloads())
        caller.receive(datagramOf(message))
      }
      t.notOk(caller.events.some(({ kind }) => kind === 'session' || kind === 'connected'))
      // The genuine exchange goes on as if nothing had been.
      caller.talk(scene.target, [scene.auth])
      t.ok(
        caller.events.some(({ kind }) => kind === 'connected'),
        `${exchange}, ${messageId}`,
      )
    }
  }
  t.end()
})

t.test('an answer to IKE_AUTH without AUTH, or with another one, is no authentication', t => {
  for (const spoil of [
    (payload: Payload): Payload[] => (payload.kind === 'auth' ? [] : [payload]),
    (payload: Payload): Payload[] =>
      payload.kind === 'auth' ? [{ ...payload, data: payload.data.slice(1) }] : [payload],
    (payload: Payload): Payload[] =>
      payload.kind === 'auth' ? [{ ...payload, method: 13 }] : [payload],
    (payload: Payload): Payload[] => (payload.kind === 'idr' ? [] : [payload]),
    (payload: Payload): Payload[] =>
      payload.kind === 'auth' ? [{ kind: 'eap', data: fromHex('03010004') }] : [payload],
  ]) {
    const { caller, ring, target, auth, facts } = keyed()
    const [answer] = target.send(auth, FROM)
    const payloads = parts(ring.open(messageOf(answer!.bytes))!)
    const spoiled = { ...facts(35, 1, false), response: true }
    caller.receive(datagramOf(ring.sealPayloads(spoiled, payloads.flatMap(spoil))))
    t.notOk(caller.events.some(({ kind }) => kind === 'session' || kind === 'sessionUp'))
    // It may first tell the responder why.
    for (let i = 0; i < 50 && !caller.events.some(({ kind }) => kind === 'failed'); i++) {
      caller.now = caller.core.nextTimeout()
      caller.core.handleTimeout(caller.now)
      caller.drain()
    }
    t.ok(caller.events.some(({ kind }) => kind === 'failed'))
    t.notOk(caller.events.some(({ kind }) => kind === 'session' || kind === 'connected'))
  }
  t.end()
})

t.test('CVE-2019-12312: INFORMATIONAL in the place of IKE_AUTH', t => {
  for (const payloads of [[], [notify(NotifyType.InitialContact)], initPayloads()]) {
    const scene = keyed()
    scene.send(payloads, ExchangeType.Informational)
    t.notOk(scene.isUp())
    scene.target.wait(31_000)
    t.equal(scene.target.core.saCount, 0, 'gone after its time')
  }
  t.end()
})

t.test(
  'CVE-2026-50722, CVE-2026-50721: every AUTH that is shorter, longer or of another method',
  t => {
    const [genuine] = keyed().payloads.filter(({ kind }) => kind === 'auth')
    const { data, method } = genuine as Payload & { kind: 'auth' }
    const proofs: [number, Uint8Array][] = Array.from({ length: data.length }, (_, length) => [
      method,
      data.slice(0, length),
    ])
    proofs.push([method, concat(data, Uint8Array.of(0))], [method, new Uint8Array(data.length)])
    for (const other of [0, 1, 3, 9, 10, 11, 12, 13, 14, 255]) proofs.push([other, data])
    for (const [method, data] of proofs) {
      const scene = keyed()
      const answers = scene.send(altered(scene, 'auth', { kind: 'auth', method, data }))
      t.ok(
        [NotifyType.AuthenticationFailed, NotifyType.InvalidSyntax].includes(
          scene.told(answers) as 24,
        ),
        `method ${method}, ${data.length} octets`,
      )
      t.notOk(scene.isUp())
    }
    // And by the function itself, which compares what is there.
    const prf = createPrf('node', 5)!
    const secret = utf8('secret')
    const proof = sharedKeyAuth(prf, secret, data)
    t.ok(checkSharedKeyAuth(prf, secret, data, proof))
    for (let length = 0; length < proof.length; length++)
      t.notOk(checkSharedKeyAuth(prf, secret, data, proof.subarray(0, length)))
    t.end()
  },
)

t.test('CVE-2024-2357: a peer for whom there is no key gets what a wrong key gets', t => {
  for (const psk of [{ 'other.test': 'the key of somebody else' }, () => undefined]) {
    const scene = keyed({ psk })
    let answers = scene.send(scene.payloads)
    const asked = scene.target.events.find(({ kind }) => kind === 'question')
    if (asked?.kind === 'question') {
      scene.target.core.answer(asked.id, {}, scene.target.now)
      answers = scene.target.drain()
    }
    t.equal(scene.told(answers), NotifyType.AuthenticationFailed)
    t.notOk(scene.isUp())
  }
  t.end()
})

t.test('CVE-2025-9242: identities of every length before anyone is authenticated', t => {
  for (const idType of [0, 1, 2, 3, 5, 9, 10, 11, 255]) {
    for (const length of [0, 1, 3, 4, 5, 15, 16, 17, 64, 520, 4096, 60_000]) {
      const scene = keyed()
      const identity: Payload = { kind: 'idi', idType, data: new Uint8Array(length).fill(0x41) }
      const told = scene.told(scene.send(altered(scene, 'idi', identity)))
      t.ok(
        told === NotifyType.AuthenticationFailed || told === NotifyType.InvalidSyntax,
        `type ${idType}, ${length} octets: ${told}`,
      )
      t.notOk(scene.isUp())
      for (const event of scene.target.events) {
        if (event.kind === 'refused')
          t.ok((event.identity ?? '').length + event.error.message.length < 1000)
      }
    }
  }
  t.end()
})

t.test('CVE-2023-28771, CVE-2020-1763: nothing a stranger writes steers a log or a shell', t => {
  const text = '\r\n\u001b[2J`id`$(id)%n%s${process.exit()}\u202e\0'
  const errors: string[] = []
  const traced: string[] = []
  const ring = new KeyRing()
  const tracer: Tracer = {
    enabled: true,
    emit: event => void traced.push(JSON.stringify(event)),
    keyLog: ring.keyLog,
  }
  for (const idType of [IdType.Fqdn, IdType.Rfc822, IdType.DerDn, IdType.KeyId]) {
    const target = new Target({}, 1, tracer)
    const caller = new Caller(ADDRESS)
    const [answer] = target.send(caller.connect()[0]!, FROM)
    const message = messageOf(caller.receive(answer!.bytes)[0]!)
    const payloads = parts(ring.open(message)!).map((payload): Payload =>
      payload.kind === 'idi' ? { kind: 'idi', idType, data: utf8(text) } : payload,
    )
    const hostile = [...payloads, notify(NotifyType.AuthenticationFailed, utf8(text))]
    const { spiI, spiR } = readIkeHeader(message)!
    const facts = { ...initFacts(spiI), spiR, exchange: ExchangeType.IkeAuth, messageId: 1 }
    target.send(datagramOf(ring.sealPayloads(facts, hostile)), FROM)
    for (const event of target.events) {
      if (event.kind === 'refused') errors.push(`${event.error.message} ${event.identity}`)
    }
  }
  t.ok(errors.length >= 4)
  t.ok(traced.length > 4)
  for (const line of [...errors, ...traced]) t.match(line, /^[\x20-\x7e]*$/)
  t.end()
})

t.test(
  'CVE-2022-23094, CVE-2009-0790: an observer changes nothing for messages without an SA',
  t => {
    const random = new Random(12)
    let events = 0
    const loud: Tracer = {
      enabled: true,
      emit: event => void (events += JSON.stringify(event).length),
    }
    const [watched, silent] = [new Target({}, 1, loud), new Target({}, 1)]
    const samples = [
      initRequest(),
      initRequest({ cookie: NOTHING }),
      initRequest({ group: 1025, keyExchange: NOTHING }),
    ]
    for (let i = 0; i < 20_000; i++) {
      const message = samples[i % samples.length]!.slice()
      for (let change = random.integer(0, 3); change > 0; change--)
        message[random.integer(0, message.length - 1)] = random.next() & 0xff
      const datagram = datagramOf(message.subarray(0, random.integer(0, message.length)))
      const path = pathFrom(sourceAddress(i))
      const answers = [watched.send(datagram, path), silent.send(datagram, path)]
      const [one, other] = answers.map(sent => sent.map(({ bytes }) => toHex(bytes)).join())
      if (one !== other) t.fail(`an observer changes the answer ${i}`)
    }
    t.ok(events > 0)
    t.end()
  },
)

t.test('CVE-2015-3991: payload types of IKEv1 mean nothing here', t => {
  const target = new Target()
  const [sa, ke, nonce] = initPayloads() as [Payload, Payload, Payload]
  // IKEv1: 1 SA, 4 key exchange, 10 nonce.
  const old = [sa, ke, nonce].map((payload, i): Payload => {
    const { bytes } = writeChain([payload])
    return { kind: 'unknown', type: [1, 4, 10][i]!, critical: false, data: bytes.subarray(4) }
  })
  for (const payloads of [old, [old[0]!, ke, nonce], [sa, old[1]!, nonce], [sa, ke, old[2]!]]) {
    const [answer] = target.send(datagramOf(writeMessage(initFacts(spiOf(7)), payloads)))
    const types = answer && readPayloads(messageOf(answer.bytes))
    t.match(types ?? [{ type: NotifyType.InvalidSyntax }], [{ type: NotifyType.InvalidSyntax }])
  }
  t.equal(target.core.saCount, 0)
  t.end()
})

t.test(
  'CVE-2016-5391, CVE-2024-3652: proposals without a group, without a key, without integrity',
  t => {
    const target = new Target({ ike: ['aes256gcm16-prfsha256-x25519', 'aes256-sha256-x25519'] })
    // Types: 1 ENCR, 2 PRF, 3 INTEG, 4 KE.
    const prf = { type: 2, id: 5 }
    const group = { type: 4, id: 31 }
    const integ = { type: 3, id: 12 }
    const gcm = { type: 1, id: 20, keyLength: 256 }
    const cbc = { type: 1, id: 12, keyLength: 256 }
    const cases: [string, readonly object[]][] = [
      ['no group', [gcm, prf]],
      ['group none', [gcm, prf, { type: 4, id: 0 }]],
      ['no PRF', [gcm, group]],
      ['no cipher', [prf, integ, group]],
      ['no key length', [{ type: 1, id: 20 }, prf, group]],
      ['a key of no bits', [{ type: 1, id: 20, keyLength: 0 }, prf, group]],
      ['a key of 65535 bits', [{ type: 1, id: 20, keyLength: 65535 }, prf, group]],
      ['NULL', [{ type: 1, id: 11 }, prf, integ, group]],
      ['AES-GMAC', [{ type: 1, id: 21, keyLength: 256 }, prf, group]],
      ['CBC without integrity', [cbc, prf, group]],
      ['CBC with integrity NONE', [cbc, prf, { type: 3, id: 0 }, group]],
      ['a group of private use', [gcm, prf, { type: 4, id: 1025 }]],
      ['nothing', []],
    ]
    cases.forEach(([name, transforms], i) => {
      const proposal = { number: 1, protocol: 1, spi: NOTHING, transforms: transforms as [] }
      const offer: Payload = { kind: 'sa', proposals: [proposal] }
      const message = writeMessage(initFacts(spiOf(i)), [offer, ...initPayloads().slice(1)])
      const [answer] = target.send(datagramOf(message), pathFrom(sourceAddress(i)))
      const payloads = answer === undefined ? [] : readPayloads(messageOf(answer.bytes))
      t.notOk(
        payloads.some(({ kind }) => kind === 'sa'),
        name,
      )
    })
    t.equal(target.core.saCount, 0)
    t.end()
  },
)

t.test(
  'CVE-2023-38710: a rekey of an SA of any protocol and SPI is refused or done, and no more',
  t => {
    for (const protocol of [0, 1, 2, 3, 4, 255]) {
      for (const spiLength of [0, 3, 4, 8, 255]) {
        const scene = keyed()
        scene.caller.talk(scene.target, [scene.auth])
        t.ok(scene.isUp())
        const rekeySa: Payload = {
          kind: 'notify',
          protocol,
          spi: new Uint8Array(spiLength).fill(9),
          type: NotifyType.RekeySa,
          data: NOTHING,
        }
        const others = scene.payloads.filter(({ kind }) => /^(sa|tsi|tsr)$/.test(kind))
        const nonce: Payload = { kind: 'nonce', data: new Uint8Array(32).fill(5) }
        const answers = scene.send([rekeySa, ...others, nonce], ExchangeType.CreateChildSa, 2)
        t.ok((scene.told(answers) ?? 0) > 0, `protocol ${protocol}, SPI of ${spiLength}`)
        t.equal(scene.target.core.saCount, 1)
        const alive = scene.send([], ExchangeType.Informational, 3)
        t.equal(scene.told(alive), 0, 'the SA lives')
      }
    }
    t.end()
  },
)

/** A Traffic Selector payload's body by hand. */
const selectors = (count: number, ...items: readonly string[]): Uint8Array =>
  concat(Uint8Array.of(count, 0, 0, 0), ...items.map(fromHex))
const ONE = '07060010 0000ffff 0a000001 0a000001'

t.test('CVE-2023-23009: traffic selectors that lie about themselves', t => {
  const bodies: [string, Uint8Array][] = [
    ['no selector', selectors(0)],
    ['none said, one there', selectors(0, ONE)],
    ['two said, one there', selectors(2, ONE)],
    ['255 said, one there', selectors(255, ONE)],
    ['one said, two there', selectors(1, ONE, ONE)],
    ['an end before its start', selectors(1, '07060010 0000ffff 0a000002 0a000001')],
    ['a last port before the first', selectors(1, '07060010 00090008 0a000001 0a000001')],
    ['a length of 0', selectors(1, '07060000 0000ffff 0a000001 0a000001')],
    ['a length of 7', selectors(1, '07060007 0000ffff 0a000001 0a000001')],
    ['IPv4 in the length of IPv6', selectors(1, `07060028 0000ffff ${'00'.repeat(32)}`)],
    ['IPv6 in the length of IPv4', selectors(1, '08060010 0000ffff 0a000001 0a000001')],
    ['a length beyond the payload', selectors(1, '0706ffff 0000ffff 0a000001 0a000001')],
    ['nothing at all', NOTHING],
  ]
  for (const [name, body] of bodies) {
    t.equal(readPayload(PayloadType.TsI, false, body), undefined, name)
    for (const kind of ['tsi', 'tsr']) {
      const scene = keyed()
      // As a payload of unknown kind it is written as it stands.
      const type = kind === 'tsi' ? PayloadType.TsI : PayloadType.TsR
      const raw: Payload = { kind: 'unknown', type, critical: false, data: body }
      t.ok((scene.told(scene.send(altered(scene, kind, raw))) ?? 0) > 0, `${name} in ${kind}`)
      t.equal(scene.target.events.filter(event => event.kind === 'accepted').length, 0)
    }
  }
  t.end()
})

t.test(
  'CVE-2026-35328, CVE-2026-35330, CVE-2026-35333: no list has an item shorter than its header',
  t => {
    // The length field of a proposal, of a transform, of a selector; the configuration's attributes may be empty.
    const [offer] = initPayloads() as [Payload]
    const proposal = writeChain([offer]).bytes.subarray(4)
    for (const [type, body, at, header] of [
      [PayloadType.Sa, proposal, 2, 8],
      [PayloadType.Sa, proposal, 10, 8],
      [PayloadType.TsI, selectors(1, ONE), 6, 8],
    ] as const) {
      for (let length = 0; length < header; length++) {
        const lying = body.slice()
        putU16(lying, at, length)
        t.equal(readPayload(type, false, lying), undefined, `type ${type}, length ${length}`)
      }
    }
    const attributes = concat(Uint8Array.of(1, 0, 0, 0), new Uint8Array(60_000))
    const read = readPayload(PayloadType.Configuration, false, attributes)
    t.ok(read === undefined || (read.kind === 'cp' && read.attributes.length <= 15_000))
    t.end()
  },
)

t.test('CVE-2026-12413: payloads of unknown kinds before and behind SK and SKF', t => {
  for (const count of [1, 20, 60, 62, 63, 64, 65, 1000]) {
    for (const fragment of [undefined, { number: 1, total: 2 }, { number: 1, total: 1 }]) {
      for (const isBefore of [true, false]) {
        const scene = keyed()
        const sealed = scene.ring.seal(
          scene.facts(ExchangeType.IkeAuth, 1),
          writeChain(scene.payloads),
          fragment,
        )
        const { bytes, first } = writeChain(
          Array.from({ length: count }, (_, i) => ({
            kind: 'unknown' as const,
            type: 100 + (i % 100),
            critical: false,
            data: new Uint8Array(i % 5),
          })),
        )
        const body = sealed.subarray(28)
        const message = concat(
          sealed.subarray(0, 28),
          ...(isBefore ? [bytes, body] : [body, bytes]),
        )
        if (isBefore) {
          // The last one names what follows it.
          let at = 28
          for (let i = 1; i < count; i++) at += (message[at + 2]! << 8) | message[at + 3]!
          message[at] = sealed[16]!
          message[16] = first
        }
        putU16(message, 26, message.length)
        scene.target.send(datagramOf(message), FROM)
        // The header is under the ICV: what was put there does not authenticate.
        t.notOk(scene.isUp(), `${count} of them`)
        t.equal(scene.target.core.saCount, 1)
      }
    }
  }
  t.end()
})

t.test('CVE-2013-6075, CVE-2013-5018, CVE-2013-2052: identities that are no proper DER', t => {
  const pattern = parseIdentity('id', 'C=CH, O=Example, CN=other')
  const whole = parseIdentity('id', 'C=CH, O=Example, CN=host').data
  const random = new Random(8)
  const samples = Array.from({ length: whole.length }, (_, length) => whole.subarray(0, length))
  for (let i = 0; i < 3000; i++) {
    const bytes = i % 2 === 0 ? whole.slice() : new Uint8Array(random.integer(0, 40))
    if (i % 2 === 1) random.fill(bytes)
    else bytes[random.integer(0, bytes.length - 1)] = random.next() & 0xff
    samples.push(bytes)
  }
  const keys = new Set<string>()
  for (const data of samples) {
    for (const type of [0, 1, 2, 3, 5, 9, 10, 11, 200]) {
      const identity = { type, data }
      const text = formatIdentity(identity)
      if (!/^[\x20-\x7e]{0,200}$/.test(text)) t.fail(`printed as ${JSON.stringify(text)}`)
      keys.add(identityKey(identity))
      if (identityMatches(pattern, identity)) t.fail(`${text} matches`)
    }
  }
  t.ok(keys.size > 10_000)
  t.end()
})

t.test(
  'CVE-2017-9023: DER that contains itself, nests without end or promises what is not there',
  t => {
    let nested: Uint8Array = NOTHING
    while (nested.length < 30_000) nested = sequence(nested)
    const random = new Random(9)
    const samples = [nested, new Uint8Array(60_000).fill(0x30), new Uint8Array(60_000).fill(0xa0)]
    samples.push(fromHex('3080'), fromHex('30840fffffff'), fromHex('3088ffffffffffffffff'))
    for (let i = 0; i < 2000; i++) {
      const bytes = new Uint8Array(random.integer(0, 60))
      random.fill(bytes)
      bytes[0] = 0x30
      samples.push(bytes)
    }
    for (const bytes of samples) {
      const reader = new DerReader(bytes)
      let elements = 0
      while (reader.more) {
        reader.any()
        elements++
      }
      // Each element took two octets at least; a fault ends it.
      if (elements > bytes.length / 2 + 1) t.fail(`${elements} elements of ${bytes.length} octets`)
    }
    t.ok(new DerReader(nested).any().tag === 0x30)
    const deep = new DerReader(nested)
    deep.any()
    t.ok(deep.failed)
    t.end()
  },
)

t.test('CVE-2015-7575 (SLOTH): there is no signature with MD5 or SHA-1', t => {
  for (const [name, identifier] of [
    ['md5WithRSAEncryption', '300d06092a864886f70d0101040500'],
    ['sha1WithRSAEncryption', '300d06092a864886f70d0101050500'],
    ['ecdsa-with-SHA1', '300906072a8648ce3d0401'],
    ['dsa-with-sha1', '300906072a8648ce380403'],
    ['RSASSA-PSS with its defaults, which are SHA-1', '300d06092a864886f70d01010a3000'],
    ['RSASSA-PSS without parameters', '300b06092a864886f70d01010a'],
    ['rsaEncryption', '300d06092a864886f70d0101010500'],
  ] as const) {
    t.equal(findAlgorithm(fromHex(identifier)), undefined, name)
  }
  t.end()
})

t.test('CVE-2022-21824: what an object inherits is no option', t => {
  const inherited: unknown = Object.create({
    psk: 'inherited key of 16',
    ike: 'aes128-sha256-modp2048',
  })
  t.throws(() => parseCredentials(inherited as Options), { name: 'OptionError' })
  t.strictSame(parsePolicy(inherited as Options).ike, parsePolicy({}).ike)
  const polluted = JSON.parse('{"__proto__": {"psk": "polluted key of 16"}}') as Options
  t.throws(() => parseCredentials(polluted))
  t.equal(({} as Options)['psk'], undefined)
  t.end()
})

// --- with certificates ---

// The clocks of these endpoints stand in 2027.
const LONG = { notAfter: Date.now() + 5 * 365 * 86_400_000 }
const root = authority('O=Test, CN=Root', 'P-256', undefined, LONG)
const stranger = authority('O=Test, CN=Other', 'P-256', undefined, LONG)
const own = ({ pem, keyPem }: Credential): Options => ({ cert: pem, key: keyPem })
const server: Options = {
  psk: undefined,
  ca: root.pem,
  ...own(endEntity('server.test', 'P-256', root, LONG)),
}
const client = (credential: Credential): Options => ({
  psk: undefined,
  ca: root.pem,
  remoteId: 'server.test',
  ...own(credential),
})
const KINDS: readonly KeyType[] = ['rsa', 'P-256', 'P-384', 'P-521', 'ed25519', 'ed448']

/** RFC 7296 §2.21.2: all that a stranger hears, whatever was wrong. */
const isRefused = (t: Test, scene: Scene, payloads: readonly Payload[], what: string): void => {
  const told = scene.told(scene.send(payloads))
  t.ok(told === NotifyType.AuthenticationFailed || told === NotifyType.InvalidSyntax, what)
  t.notOk(scene.isUp(), what)
}

t.test(
  'CVE-2026-50721, CVE-2018-16151, CVE-2013-2944: signatures cut, zero, and of other algorithms',
  t => {
    for (const kind of KINDS) {
      const mine = client(endEntity('client.test', kind, root, LONG))
      const genuine = keyed(server, mine)
      const auth = genuine.payloads.find(({ kind }) => kind === 'auth') as Payload & {
        kind: 'auth'
      }
      t.equal(genuine.told(genuine.send(genuine.payloads)), 0, `${kind} itself`)
      const { data } = auth
      const algorithm = 1 + data[0]!
      const forged: [string, Uint8Array][] = [
        ['nothing', NOTHING],
        ['an algorithm alone', data.slice(0, algorithm)],
        ['a signature alone', data.slice(algorithm)],
        [
          'a signature of zeros',
          concat(data.slice(0, algorithm), new Uint8Array(data.length - algorithm)),
        ],
        ['r and s of zero', concat(data.slice(0, algorithm), fromHex('3006020100020100'))],
        ['something behind it', concat(data, Uint8Array.of(0))],
        ['one octet less', data.slice(0, -1)],
        ['half', data.slice(0, data.length >>> 1)],
        ['an algorithm of 255 octets', concat(Uint8Array.of(255), data.slice(1))],
        ['an algorithm of no octets', concat(Uint8Array.of(0), data.slice(1))],
      ]
      for (let at = 0; at < algorithm; at++) {
        const flipped = data.slice()
        flipped[at]! ^= 1 << (at % 8)
        forged.push([`bit ${at % 8} of octet ${at} changed`, flipped])
      }
      for (const [name, data] of forged) {
        const scene = keyed(server, mine)
        isRefused(t, scene, altered(scene, 'auth', { ...auth, data }), `${kind}: ${name}`)
      }
    }
    t.end()
  },
)

t.test(
  'CVE-2020-16088: another key of the same kind, raw or in a certificate, is another key',
  t => {
    for (const kind of KINDS) {
      const [known, other] = [1, 2].map(() => certificate('O=Test, CN=x', kind, undefined, LONG))
      const spki = createPublicKey(known!.key).export({ type: 'spki', format: 'pem' })
      const raw = { psk: undefined, ca: undefined, cert: undefined, localId: 'c', remoteId: 's' }
      const serving = { ...raw, key: known!.keyPem, localId: 's', remoteId: 'c', peerKeys: spki }
      const right = keyed(serving, { ...raw, key: known!.keyPem, peerKeys: spki })
      t.equal(right.told(right.send(right.payloads)), 0, `${kind} itself`)
      const wrong = keyed(serving, { ...raw, key: other!.keyPem, peerKeys: spki })
      isRefused(t, wrong, wrong.payloads, `${kind}: raw`)
      // The key that is known is shown, the other one signs.
      const shown = keyed(serving, { ...raw, key: other!.keyPem, peerKeys: spki })
      const cert = right.payloads.find(({ kind }) => kind === 'cert')
      isRefused(t, shown, altered(shown, 'cert', cert), `${kind}: shown and not held`)
      const mine = endEntity('client.test', kind, root, LONG)
      const theirs = endEntity('client.test', kind, root, LONG)
      const stolen = keyed(server, client(theirs))
      const first: Payload = { kind: 'cert', encoding: 4, data: mine.der }
      isRefused(
        t,
        stolen,
        altered(stolen, 'cert', first),
        `${kind}: a certificate of somebody else`,
      )
    }
    t.end()
  },
)

t.test(
  'CVE-2026-14957, CVE-2017-11185, CVE-2022-0778: CERT payloads before anyone is authenticated',
  t => {
    const mine = endEntity('client.test', 'P-256', root, LONG)
    const rsa = (modulus: Uint8Array, exponent: Uint8Array): Uint8Array =>
      sequence(
        sequence(oid('1.2.840.113549.1.1.1'), NULL),
        bitString(sequence(integer(modulus), integer(exponent))),
      )
    const odd = new Uint8Array(256).fill(0xf1)
    const keys: [string, Uint8Array][] = [
      ['RSA, exponent 0', rsa(odd, Uint8Array.of(0))],
      ['RSA, exponent 1', rsa(odd, Uint8Array.of(1))],
      ['RSA, exponent 2', rsa(odd, Uint8Array.of(2))],
      ['RSA, an exponent as long as the modulus', rsa(odd, odd)],
      ['RSA, modulus 0', rsa(Uint8Array.of(0), Uint8Array.of(3))],
      [
        'RSA, an even modulus',
        rsa(concat(odd.subarray(1), Uint8Array.of(2)), Uint8Array.of(1, 0, 1)),
      ],
      ['RSA, a modulus of 8 bits', rsa(Uint8Array.of(0xf1), Uint8Array.of(3))],
      [
        'RSA, a modulus of 32768 bits',
        rsa(new Uint8Array(4096).fill(0xf1), Uint8Array.of(1, 0, 1)),
      ],
      ['nothing', sequence()],
    ]
    const genuine = createPublicKey(mine.key).export({ type: 'spki', format: 'der' })
    const at = Buffer.from(mine.der).indexOf(genuine)
    // The key is put in place of the genuine one; lengths around it are made to fit by the mutation below.
    const rest = (spki: Uint8Array): Uint8Array => {
      const whole = new DerReader(mine.der).enter()
      const fields = whole.enter()
      const parts: Uint8Array[] = []
      while (fields.more) {
        const { bytes } = fields.any()
        parts.push(bytes.byteOffset - mine.der.byteOffset === at ? spki : bytes)
      }
      return sequence(sequence(...parts), whole.any().bytes, whole.any().bytes)
    }
    const certificates: [string, readonly Payload[]][] = keys.map(([name, spki]) => [
      name,
      [{ kind: 'cert', encoding: 4, data: rest(spki) }],
    ])
    const x509: Payload = { kind: 'cert', encoding: 4, data: mine.der }
    for (let encoding = 0; encoding < 20; encoding++) {
      if (encoding !== 4) certificates.push([`encoding ${encoding}`, [{ ...x509, encoding }]])
    }
    certificates.push(
      [
        'a hash and URL',
        [{ kind: 'cert', encoding: 12, data: utf8('x'.repeat(20) + 'http://a.test/') }],
      ],
      ['60,000 zeros', [{ kind: 'cert', encoding: 4, data: new Uint8Array(60_000) }]],
      ['nothing', [{ kind: 'cert', encoding: 4, data: NOTHING }]],
      ['the CA first', [{ kind: 'cert', encoding: 4, data: root.der }, x509]],
    )
    for (const [name, payloads] of certificates) {
      const scene = keyed(server, client(mine))
      const others = scene.payloads.filter(({ kind }) => kind !== 'cert')
      isRefused(t, scene, [...others.slice(0, 1), ...payloads, ...others.slice(1)], name)
      t.notOk(
        scene.target.events.some(({ kind }) => kind === 'question'),
        'nobody is asked',
      )
    }
    const scene = keyed(server, client(mine))
    t.equal(scene.told(scene.send(scene.payloads)), 0, 'the genuine one is taken')
    t.end()
  },
)

t.test('CVE-2022-40617: nothing is fetched for a certificate before it leads to an anchor', t => {
  const point = der(contextTag(6), utf8('http://192.0.2.99/ca.crl'))
  const name = der(contextTag(0, true), der(contextTag(0, true), point))
  const places = [extension('2.5.29.31', false, sequence(sequence(name)))]
  const strict: Options = { ...server, fetchRevocation: true, revocation: 'require' }
  const asks = (mine: Credential, spoil: (payload: Payload) => Payload = payload => payload) => {
    const scene = keyed(strict, client(mine))
    scene.send(scene.payloads.map(spoil))
    t.notOk(scene.isUp())
    return scene.target.events.some(
      event => event.kind === 'question' && event.question.kind === 'fetchStatus',
    )
  }
  const facts = { ...LONG, extensions: places }
  t.ok(asks(endEntity('client.test', 'P-256', root, facts)), 'for one of ours it is')
  t.notOk(asks(endEntity('client.test', 'P-256', stranger, facts)), 'another authority')
  t.notOk(asks(certificate('O=Test, CN=client.test', 'P-256', undefined, facts)), 'self-signed')
  const expired = { ...facts, notAfter: Date.now() - 86_400_000 / 2 }
  t.notOk(asks(endEntity('client.test', 'P-256', root, expired)), 'out of date')
  t.notOk(
    asks(endEntity('client.test', 'P-256', root, facts), payload =>
      payload.kind === 'auth' ? { ...payload, data: payload.data.map(x => x ^ 1) } : payload,
    ),
    'shown by who does not hold its key',
  )
  t.end()
})
