/** INFORMATIONAL with Delete, alone and crossing others (RFC 7296 §1.4.1, §2.25). */
import t from 'tap'
import { ExchangeType, NotifyType, ProtocolId } from '../../lib/wire/registry.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { IkePair, type End } from '../harness/ike-pair.ts'

const { Informational } = ExchangeType

const spiOctets = (spi: number): Uint8Array =>
  Uint8Array.of(spi >>> 24, (spi >>> 16) & 0xff, (spi >>> 8) & 0xff, spi & 0xff)

const deleteEsp = (...spis: number[]): Payload => ({
  kind: 'delete',
  protocol: ProtocolId.Esp,
  spis: spis.map(spiOctets),
})
const DELETE_IKE: Payload = { kind: 'delete', protocol: ProtocolId.Ike, spis: [] }
const status = (type: number): Payload => ({
  kind: 'notify',
  protocol: ProtocolId.None,
  spi: new Uint8Array(0),
  type,
  data: new Uint8Array(0),
})

for (const deleter of ['a', 'b'] as const) {
  const start = (): { pair: IkePair; own: End; peer: End } => {
    const pair = IkePair.established()
    return { pair, own: pair[deleter], peer: pair.other(pair[deleter]) }
  }

  t.test(
    `${deleter} deletes the IKE SA: every Child SA goes with it, without Deletes of its own`,
    t => {
      const { pair, own, peer } = start()
      pair.createChild(own, 81)
      pair.settle()
      pair.deleteIke(own)
      t.same(pair.read(pair.wire[0]!), [DELETE_IKE])
      pair.pass(peer)
      t.same(pair.read(pair.wire[0]!), [], 'the answer is empty')
      pair.pass(own)
      t.equal(pair.wire.length, 0)
      for (const end of [own, peer]) {
        t.equal(end.count('closed'), 1)
        t.equal(end.count('childRemoved'), 2)
      }
      pair.assertGone(t)
      t.end()
    },
  )

  t.test(`${deleter} deletes a Child SA: the answer names the other half`, t => {
    const { pair, own, peer } = start()
    const { inboundSpi, outboundSpi } = own.child
    pair.deleteChild(own)
    t.same(pair.read(pair.wire[0]!), [deleteEsp(inboundSpi)])
    pair.pass(peer)
    t.same(pair.read(pair.wire[0]!), [deleteEsp(outboundSpi)])
    pair.pass(own)
    t.equal(own.count('childRemoved'), 1)
    t.equal(peer.count('childRemoved'), 1)
    pair.assertWhole(t, 0)
    pair.createChild(own)
    pair.settle()
    pair.assertWhole(t)
    t.end()
  })

  t.test(`both delete the Child SA, and the request of ${deleter} is lost once`, t => {
    const { pair, own, peer } = start()
    pair.deleteChild(own)
    pair.deleteChild(peer)
    pair.take(peer)
    pair.settle()
    t.equal(own.count('childRemoved'), 1)
    pair.advance(5_000)
    for (const end of [own, peer]) t.equal(end.count('childRemoved'), 1)
    pair.assertWhole(t, 0)
    t.end()
  })

  t.test(
    `${deleter} deletes a Child SA and the peer rekeys the IKE SA: the Delete is done, the rekey waits`,
    t => {
      for (const first of ['delete', 'rekey'] as const) {
        const { pair, own, peer } = start()
        pair.createChild(own, 81)
        pair.settle()
        pair.deleteChild(own)
        pair.rekeyIke(peer)
        pair.pass(first === 'delete' ? peer : own)
        pair.pass(first === 'delete' ? own : peer)
        pair.settle()
        t.equal(peer.count('rekeyed'), 0, 'TEMPORARY_FAILURE')
        pair.assertWhole(t, 1)
        pair.advance(10_000)
        t.equal(peer.count('rekeyed'), 1)
        t.equal(own.count('rekeyed'), 1)
        pair.assertWhole(t, 1)
      }
      t.end()
    },
  )

  t.test(`${deleter} deletes a Child SA and the peer the IKE SA`, t => {
    for (const first of ['child', 'ike'] as const) {
      const { pair, own, peer } = start()
      pair.deleteChild(own)
      pair.deleteIke(peer)
      pair.pass(first === 'child' ? peer : own)
      pair.settle()
      for (const end of [own, peer]) t.equal(end.count('childRemoved'), 1)
      pair.assertGone(t)
    }
    t.end()
  })

  t.test(`${deleter} rekeys the IKE SA and the peer deletes a Child SA: as usual (§2.25.2)`, t => {
    const { pair, own, peer } = start()
    const { outboundSpi } = peer.child
    pair.rekeyIke(own)
    pair.deleteChild(peer)
    const request = pair.take(peer)
    pair.pass(own)
    t.same(pair.read(pair.wire[0]!), [deleteEsp(outboundSpi)])
    pair.give(request)
    pair.settle()
    pair.advance(10_000)
    pair.assertWhole(t, 0)
    t.equal(own.count('rekeyed'), 1)
    t.end()
  })
}

t.test('both delete the IKE SA', t => {
  for (const first of ['a', 'b'] as const) {
    const pair = IkePair.established()
    pair.deleteIke(pair.a)
    pair.deleteIke(pair.b)
    pair.pass(pair[first])
    pair.settle()
    for (const end of [pair.a, pair.b]) {
      t.equal(end.count('closed'), 1)
      t.equal(end.all('closed')[0]?.error, undefined)
      t.equal(end.count('childRemoved'), 1)
    }
    pair.stray.length = 0
    pair.assertGone(t)
  }
  t.end()
})

t.test('both delete the Child SA: neither answer has a Delete (§1.4.1)', t => {
  const pair = IkePair.established()
  pair.deleteChild(pair.a)
  pair.deleteChild(pair.b)
  pair.pass(pair.b)
  pair.pass(pair.a)
  t.equal(pair.wire.length, 2)
  for (const letter of pair.wire) t.same(pair.read(letter), [])
  pair.settle()
  for (const end of [pair.a, pair.b]) t.equal(end.count('childRemoved'), 1)
  pair.assertWhole(t, 0)
  t.end()
})

t.test('a Delete of what does not exist is answered without a Delete, and changes nothing', t => {
  const pair = IkePair.established()
  const { inboundSpi } = pair.b.child
  // The last is the SPI of the wrong direction: a peer names its own inbound SPI, not ours.
  for (const spi of [0, 1, 255, 0xffffffff, inboundSpi]) {
    t.same(pair.ask(pair.a, Informational, [deleteEsp(spi)]), [], `SPI ${spi}`)
  }
  pair.assertWhole(t)
  t.end()
})

t.test('one Delete with several SPIs, known, unknown and named twice', t => {
  const pair = IkePair.established()
  pair.createChild(pair.a, 81)
  pair.settle()
  const [one, two] = pair.a.children
  const answer = pair.ask(pair.a, Informational, [
    deleteEsp(7, one!.inboundSpi, one!.inboundSpi, 8),
    deleteEsp(two!.inboundSpi),
  ])
  t.same(answer, [deleteEsp(one!.outboundSpi, two!.outboundSpi)])
  t.equal(pair.b.children.length, 0)
  t.equal(pair.b.count('childRemoved'), 2)
  t.end()
})

t.test('a Delete of the IKE SA followed or led by other payloads in one message', t => {
  for (const order of ['first', 'last'] as const) {
    const pair = IkePair.established()
    const others: Payload[] = [
      deleteEsp(pair.a.child.inboundSpi),
      status(NotifyType.InitialContact),
      deleteEsp(12345),
      DELETE_IKE,
      status(NotifyType.AuthLifetime),
    ]
    const payloads = order === 'first' ? [DELETE_IKE, ...others] : [...others, DELETE_IKE]
    t.same(pair.ask(pair.a, Informational, payloads), [])
    t.equal(pair.b.open.length, 0)
    t.equal(pair.b.count('childRemoved'), 1)
    t.equal(pair.b.count('closed'), 1)
  }
  t.end()
})

t.test(
  'a Delete with each protocol and SPI size: refused, or nothing happens, or what it says (CVE-2023-38710)',
  t => {
    for (const protocol of [0, 1, 2, 3, 4, 5, 127, 255]) {
      for (const size of [0, 1, 3, 4, 5, 8, 255]) {
        const pair = IkePair.established()
        const { inboundSpi } = pair.a.child
        const spi = new Uint8Array(size)
        spi.set(spiOctets(inboundSpi).subarray(0, size))
        const length = 8 + size
        const bytes = Uint8Array.of(0, 0, 0, length, protocol, size, 0, 1, ...spi)
        const answer = pair.ask(pair.a, Informational, [], { first: 42, bytes })
        const name = `protocol ${protocol}, ${size} octets`
        const isEsp = protocol === ProtocolId.Esp && size === 4
        t.equal(pair.b.children.length, isEsp ? 0 : 1, name)
        t.equal(pair.b.sa.state, 'established', name)
        t.ok(answer !== undefined, 'it is answered')
      }
    }
    t.end()
  },
)

t.test('a Delete of the IKE SA that lists SPIs is refused', t => {
  const pair = IkePair.established()
  const { spiI } = pair.a.sa
  const bytes = Uint8Array.of(0, 0, 0, 16, ProtocolId.Ike, 8, 0, 1, ...spiI)
  const answer = pair.ask(pair.a, Informational, [], { first: 42, bytes })
  t.match(answer, [{ kind: 'notify', type: NotifyType.InvalidSyntax }])
  t.equal(pair.b.sa.state, 'established')
  t.end()
})
