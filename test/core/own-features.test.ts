/** What two ends of ours tell each other in IKE_AUTH of what they can do inside the SA, and others do not. */
import t from 'tap'
import { concat, utf8 } from '../../lib/base/bytes.ts'
import { parseIdentity } from '../../lib/identity/identity.ts'
import { readIkeHeader } from '../../lib/wire/ike-header.ts'
import { findNotify, notify, u32Data } from '../../lib/wire/notify.ts'
import { featuresIn, featuresPayload, OWN_FEATURES } from '../../lib/wire/own-features.ts'
import { isChainError, readChain } from '../../lib/wire/payload-chain.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { ExchangeType, NotifyType } from '../../lib/wire/registry.ts'
import {
  Caller,
  datagramOf,
  KeyRing,
  messageOf,
  pathFrom,
  PSK,
  sourceAddress,
  Target,
} from '../harness/attacker.ts'
import { Gateway, ONE_SUITE } from '../harness/gateway.ts'
import { Stream, World } from '../harness/world.ts'

const MAGIC = utf8('ike-socket/inner')
const told = (data: Uint8Array): string[] => [...featuresIn([notify(NotifyType.OwnFeatures, data)])]
const isTold = (payloads: readonly Payload[]): boolean =>
  findNotify(payloads, NotifyType.OwnFeatures) !== undefined

t.test('a set is a number of bits, of which those of later versions are passed over', t => {
  t.strictSame(featuresIn([featuresPayload(OWN_FEATURES)]), OWN_FEATURES)
  t.strictSame(
    OWN_FEATURES,
    new Set(['data-on-syn', 'ack-delay', 'repeat-small', 'no-checksum', 'bundle']),
  )
  t.strictSame(told(concat(MAGIC, u32Data(2))), ['ack-delay'])
  t.strictSame(told(concat(MAGIC, u32Data(0xffffffe1))), ['data-on-syn'])
  t.strictSame(told(concat(MAGIC, u32Data(4), u32Data(1))), ['repeat-small'])
  t.end()
})

t.test("another product's notify of the same number is not taken for ours", t => {
  t.strictSame(featuresIn([]), new Set())
  for (const data of [
    new Uint8Array(0),
    u32Data(15),
    MAGIC,
    concat(MAGIC, Uint8Array.of(0, 0, 15)),
    concat(new Uint8Array(MAGIC.length), u32Data(15)),
    concat(utf8('ike-socket/other'), u32Data(15)),
  ])
    t.strictSame(told(data), [])
  t.end()
})

t.test('our own ends know of each other, also by the SAs that follow', t => {
  const world = new World(1)
  const stream = new Stream(10_000, 1, 2)
  stream.budget = 1000
  world.connect(stream)
  world.run(2000)
  const { client, server } = world.sessions
  for (const act of ['rekeyIke', 'reauthenticate'] as const) {
    t.strictSame(client[0]?.peer.features, OWN_FEATURES)
    t.strictSame(server[0]?.peer.features, OWN_FEATURES)
    client[0]![act](world.now)
    world.client.touchSession(client[0]!, world.now)
    world.run(2000)
  }
  t.equal(client[0]?.info().ikeRekeys, 1)
  t.strictSame(client[0]?.peer.features, OWN_FEATURES)
  t.strictSame(server[0]?.peer.features, OWN_FEATURES)
  t.equal(server.length, 1)
  t.end()
})

/** The features that a server knows of a client of ours whose notify was changed, and whether it has answered with its own. */
const changed = (change: (data: Uint8Array) => Uint8Array | undefined): unknown => {
  const ring = new KeyRing()
  const target = new Target({}, 1, ring)
  const caller = new Caller(sourceAddress(1), { fragmentation: false })
  const from = pathFrom(caller.path.localAddress, caller.path.localPort)
  const open = (message: Uint8Array): readonly Payload[] => {
    const inside = ring.open(message)!
    const payloads = readChain(inside.bytes, 0, inside.bytes.length, inside.first)
    if (isChainError(payloads)) throw new Error(payloads.error)
    return payloads
  }
  const [init] = caller.connect()
  const [auth] = caller.receive(target.send(init!, from)[0]!.bytes)
  const message = messageOf(auth!)
  const payloads = open(message).flatMap((payload): Payload[] => {
    if (payload.kind !== 'notify' || payload.type !== NotifyType.OwnFeatures) return [payload]
    const data = change(payload.data)
    return data === undefined ? [] : [notify(NotifyType.OwnFeatures, data)]
  })
  const sealed = ring.sealPayloads(readIkeHeader(message)!, payloads)
  const [answer] = target.send(datagramOf(sealed), from)
  const known = target.sessions[0]!.peer.features
  return { known: [...known], isAnswered: isTold(open(messageOf(answer!.bytes))) }
}

t.test('a server answers by what it was told, and only then', t => {
  t.strictSame(
    changed(data => data),
    { known: [...OWN_FEATURES], isAnswered: true },
  )
  t.strictSame(
    changed(() => concat(MAGIC, u32Data(1))),
    { known: ['data-on-syn'], isAnswered: true },
  )
  const none = { known: [], isAnswered: false }
  t.strictSame(
    changed(() => undefined),
    none,
  )
  t.strictSame(
    changed(data => data.subarray(1)),
    none,
  )
  t.end()
})

t.test('a peer of another make is told nothing, and not believed', t => {
  const caller = new Caller(sourceAddress(1), ONE_SUITE)
  const gateway = new Gateway(parseIdentity('id', 'gw.test'))
  const [init] = caller.connect()
  const [auth] = caller.receive(gateway.init(init!))
  const request = gateway.open(auth!)
  t.notOk(isTold(request))
  const payloads = [
    gateway.idr,
    gateway.keyed(utf8(PSK)),
    featuresPayload(OWN_FEATURES),
    notify(NotifyType.NoAdditionalSas),
  ]
  const { messageId } = readIkeHeader(messageOf(auth!))!
  caller.receive(gateway.seal(messageId, payloads, ExchangeType.IkeAuth))
  t.strictSame(caller.sessions[0]!.peer.features, new Set())
  t.end()
})
