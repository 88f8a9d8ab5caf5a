/** A new IKE SA takes over what lives on an older one only with that one's key (RFC 7296 §2.4, §2.8.3). */
import t from 'tap'
import { concat } from '../../lib/base/bytes.ts'
import { Secret } from '../../lib/base/secret.ts'
import { parseCredentials } from '../../lib/identity/credentials.ts'
import type { IkeSa } from '../../lib/ike/ike-sa.ts'
import { proveSuccession, type NewSa } from '../../lib/ike/succession.ts'
import { parsePolicy } from '../../lib/policy/options.ts'
import { readIkeHeader } from '../../lib/wire/ike-header.ts'
import { find } from '../../lib/wire/message.ts'
import { notify } from '../../lib/wire/notify.ts'
import { isChainError, readChain } from '../../lib/wire/payload-chain.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { NotifyType } from '../../lib/wire/registry.ts'
import {
  Caller,
  datagramOf,
  KeyRing,
  messageOf,
  pathFrom,
  PSK,
  readPayloads,
  sourceAddress,
  Target,
} from '../harness/attacker.ts'
import type { Options } from '../harness/world.ts'

const BOB = 'bob.test'

const saOf = ({ core }: Caller): IkeSa => {
  const sas = (core as unknown as { sas: Map<string, { sa: IkeSa }> }).sas
  return [...sas.values()].at(-1)!.sa
}

const payloadsIn = (ring: KeyRing, message: Uint8Array): Payload[] => {
  const inside = ring.open(message)!
  const payloads = readChain(inside.bytes, 0, inside.bytes.length, inside.first)
  if (isChainError(payloads)) throw new Error(payloads.error)
  return payloads
}

const nonceIn = (datagram: Uint8Array): Uint8Array =>
  find(readPayloads(messageOf(datagram)), 'nonce')!.data

interface Scene {
  readonly target: Target
  readonly bob: Caller
  /** Sessions of the server, and whether what is Bob's goes elsewhere, after the other one came. */
  join(prove: (next: NewSa) => Uint8Array | undefined): { sessions: number; isMoved: boolean }
}

/** Bob is up; then somebody who can authenticate goes to the server and says what it likes about Bob's SA. */
const scene = (other: Options = {}, server: Options = {}): Scene => {
  const ring = new KeyRing()
  const target = new Target(server, 1, ring)
  const bob = new Caller(sourceAddress(1), { localId: BOB }, 99)
  bob.talk(target)
  const join: Scene['join'] = prove => {
    const options = { localId: BOB, fragmentation: false, ...other }
    const caller = new Caller(sourceAddress(2), options, 77, 1000, 40777)
    const from = pathFrom(caller.path.localAddress, caller.path.localPort)
    const [init] = caller.connect()
    const [answer] = target.send(init!, from)
    const [auth] = caller.receive(answer!.bytes)
    const message = messageOf(auth!)
    const header = readIkeHeader(message)!
    const { spiI, spiR } = header
    const proof = prove({ spiI, spiR, nonceI: nonceIn(init!), nonceR: nonceIn(answer!.bytes) })
    const more = proof === undefined ? [] : [notify(NotifyType.Reauthenticates, proof)]
    const sealed = ring.sealPayloads(header, [...payloadsIn(ring, message), ...more])
    target.send(datagramOf(sealed), from)
    const isMoved = target.sessions[0]!.path.remoteAddress[3] !== 1
    return { sessions: target.sessions.length, isMoved }
  }
  return { target, bob, join }
}

const OWN = { sessions: 2, isMoved: false }
const JOINED = { sessions: 1, isMoved: true }

t.test('A13: the key of an older SA joins it, for the handshake that the proof is made for', t => {
  const honest = scene()
  t.strictSame(
    honest.join(next => proveSuccession(saOf(honest.bob), next)),
    JOINED,
  )
  t.end()
})

t.test(
  'A13: a name, the SPIs, the key of another SA or the proof of another handshake join nothing',
  t => {
    const forgeries: Record<
      string,
      (bob: IkeSa, next: NewSa, target: Target) => Uint8Array | undefined
    > = {
      nothing: () => undefined,
      'the SPIs': bob => concat(bob.spiI, bob.spiR),
      'no octets': () => new Uint8Array(0),
      'a MAC of zeros': bob => concat(bob.spiI, bob.spiR, new Uint8Array(32)),
      'the key of zeros': ({ spiI, spiR, suite }, next) =>
        proveSuccession({ spiI, spiR, suite, skD: new Secret(new Uint8Array(32)) }, next),
      'the key of its own older SA': ({ spiI, spiR, suite }, next, target) => {
        const carol = new Caller(sourceAddress(3), { localId: 'carol.test' }, 55, 1000, 40778)
        carol.talk(target)
        target.sessions.pop()
        return proveSuccession({ spiI, spiR, suite, skD: saOf(carol).skD }, next)
      },
      'its own older SA, with its key': (_bob, next, target) => {
        const carol = new Caller(sourceAddress(3), { localId: 'carol.test' }, 55, 1000, 40778)
        carol.talk(target)
        target.sessions.pop()
        return proveSuccession(saOf(carol), next)
      },
      "Bob's proof for another nonce": (bob, next) =>
        proveSuccession(bob, { ...next, nonceR: new Uint8Array(32) }),
      "Bob's proof for another SPI": (bob, next) =>
        proveSuccession(bob, { ...next, spiR: new Uint8Array(8).fill(1) }),
      'a proof cut short': (bob, next) => proveSuccession(bob, next).subarray(0, -1),
    }
    for (const [name, forge] of Object.entries(forgeries)) {
      const { bob, join, target } = scene()
      t.strictSame(
        join(next => forge(saOf(bob), next, target)),
        OWN,
        name,
      )
    }
    t.end()
  },
)

t.test('A13: with the key of the SA but another identity or proof it is another principal', t => {
  const renamed = scene({ localId: 'eve.test' })
  t.strictSame(
    renamed.join(next => proveSuccession(saOf(renamed.bob), next)),
    OWN,
  )
  t.end()
})

t.test(
  'A13: after a rekey the key of the IKE SA that is current counts, the replaced one is gone',
  t => {
    for (const which of ['current', 'replaced'] as const) {
      const { target, bob, join } = scene()
      const before = saOf(bob)
      const replaced = {
        spiI: before.spiI.slice(),
        spiR: before.spiR.slice(),
        suite: before.suite,
        skD: new Secret(before.skD.bytes),
      }
      const [session] = bob.sessions
      session!.rekeyIke(bob.now)
      bob.core.touchSession(session!, bob.now)
      bob.talk(target, bob.drain())
      t.equal(session!.info().ikeRekeys, 1)
      t.strictSame(
        join(next => proveSuccession(which === 'current' ? saOf(bob) : replaced, next)),
        which === 'current' ? JOINED : OWN,
        which,
      )
    }
    t.end()
  },
)

t.test(
  'A14: the AUTH of an initiator, sent back to it as that of the responder, proves nothing',
  t => {
    const ring = new KeyRing()
    const impostor = new Target({ psk: 'not the key of these two' }, 7, ring)
    const caller = new Caller(sourceAddress(1), { localId: BOB, fragmentation: false })
    const from = pathFrom(caller.path.localAddress, caller.path.localPort)
    const [init] = caller.connect()
    const [answer] = impostor.send(init!, from)
    const [auth] = caller.receive(answer!.bytes)
    const message = messageOf(auth!)
    const header = { ...readIkeHeader(message)!, originalInitiator: false, response: true }
    const reflected = payloadsIn(ring, message).map((payload): Payload =>
      payload.kind === 'idi' ? { ...payload, kind: 'idr' } : payload,
    )
    t.ok(reflected.some(({ kind }) => kind === 'auth'))
    caller.receive(datagramOf(ring.sealPayloads(header, reflected)))
    caller.wait(120_000)
    t.notOk(caller.events.some(({ kind }) => kind === 'session'))
    t.ok(caller.events.some(({ kind }) => kind === 'failed'))
    t.end()
  },
)

t.test('credentials that change while handshakes are under way count from the next one on', t => {
  const target = new Target({ psk: PSK })
  const early = new Caller(sourceAddress(1))
  const from = pathFrom(early.path.localAddress, early.path.localPort)
  const [init] = early.connect()
  const [answer] = target.send(init!, from)
  const changed = { psk: 'the key from today on' }
  target.core.setResponder({
    policy: parsePolicy(changed),
    credentials: parseCredentials(changed),
  })
  early.talk(target, early.receive(answer!.bytes))
  t.equal(target.sessions.length, 1, 'it was received with the older ones')
  new Caller(sourceAddress(2), { psk: PSK }, 55, 1000, 40002).talk(target)
  t.equal(target.sessions.length, 1)
  new Caller(sourceAddress(3), changed, 56, 1000, 40003).talk(target)
  t.equal(target.sessions.length, 2)
  t.end()
})
