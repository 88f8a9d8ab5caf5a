/** Rekeying of the IKE SA and everything that may cross it (RFC 7296 §1.3.2, §2.8.2, §2.25.2). */
import t, { type Test } from 'tap'
import { toHex } from '../../lib/base/bytes.ts'
import type { IkeSa } from '../../lib/ike/ike-sa.ts'
import { IkePair, NONCES, type End, type Letter, type Options } from '../harness/ike-pair.ts'

type Row = (typeof NONCES)[number]

/** Both ends have seen one rekey, the Child SA was never touched, and the old SA is gone. */
const finish = (t: Test, pair: IkePair, old: IkeSa): void => {
  pair.settle()
  // An SA that lost waits for a Delete which may never come.
  pair.advance(61_000)
  pair.assertWhole(t)
  t.not(toHex(pair.a.sa.spiI), toHex(old.spiI), 'it is a new one')
  for (const end of [pair.a, pair.b]) {
    t.equal(end.count('rekeyed'), 1, `${end.name} tells of one rekey`)
    t.equal(end.all('rekeyed')[0]?.by, end.sa, 'and of the one that stays')
    t.equal(end.count('childRemoved') + end.count('childInstalled'), 0, 'the Child SA stays')
    for (const { error } of end.all('closed')) t.equal(error, undefined, 'no SA ends badly')
  }
  pair.advance(60_000)
  for (const end of [pair.a, pair.b]) t.equal(end.sas.size, 1, 'the others are forgotten')
  pair.assertAlive(t)
}

t.test('a rekey, started by either end: the Child SAs move, the Delete is the last request', t => {
  for (const starter of ['a', 'b'] as const) {
    const pair = IkePair.established()
    const old = pair.a.sa
    const end = pair[starter]
    const other = pair.other(end)
    pair.rekeyIke(end)
    pair.pass(other)
    t.equal(other.sa.children.size, 1, 'the responder owns it under the new SA')
    t.equal(other.sa.originalInitiator, false)
    pair.pass(end)
    t.equal(end.sa.originalInitiator, true, 'the initiator of the rekey is the new initiator')
    t.equal(end.sa.children.size, 1)
    const [payload, ...more] = pair.read(pair.wire[0]!)
    t.equal(payload?.kind, 'delete')
    t.equal(more.length, 0)
    finish(t, pair, old)
  }
  t.end()
})

t.test('a process that slept past both limits of an IKE SA rekeys it', t => {
  const pair = IkePair.established({ ikeLifetime: 100_000 }, { ikeLifetime: 100_000 })
  const old = pair.a.sa
  pair.now += 100_001
  pair.run(() => pair.b.sa.handleTimeout(pair.now))
  pair.settle()
  t.equal(pair.b.count('rekeyed'), 1)
  t.not(pair.b.sa, old)
  t.equal(pair.b.sa.state, 'established', 'the Delete is not handed on to the new one')
  t.equal(pair.b.sa.children.size, 1)
  pair.assertAlive(t)
  t.end()
})

t.test('exchanges that wait their turn go over to the new SA', t => {
  const pair = IkePair.established()
  const old = pair.a.sa
  pair.rekeyIke(pair.a)
  pair.createChild(pair.a, 81)
  pair.rekeyIke(pair.a)
  pair.settle()
  t.equal(pair.a.count('childInstalled'), 1)
  t.equal(pair.a.count('rekeyed'), 1, 'and one rekey is enough')
  t.not(pair.a.sa, old)
  pair.assertWhole(t, 2)
  t.end()
})

/** The rekeyer's first guess is the IKE SA's own group, which the other end no longer takes first. */
const KE_INVALID: [Options, Options] = [
  { ike: 'aes128gcm16-prfsha256-x25519-ecp256' },
  { ike: 'aes128gcm16-prfsha256-ecp256-x25519' },
]

t.test('INVALID_KE_PAYLOAD in a rekey: the group that the peer names is tried', t => {
  const pair = IkePair.established(...KE_INVALID)
  const old = pair.a.sa
  t.equal(old.suite.group, 19, 'IKE_SA_INIT went the same way')
  // From b the guess is the group that both have now, which a would take only second.
  pair.rekeyIke(pair.b)
  pair.pass(pair.a)
  t.equal(pair.a.count('successor'), 0, 'a refusal makes nothing')
  pair.pass(pair.b)
  pair.pass(pair.a)
  t.equal(pair.a.count('successor'), 1)
  finish(t, pair, old)
  t.end()
})

t.test('INVALID_KE_PAYLOAD with a group that is not ours is a refusal like any other', t => {
  const pair = IkePair.established()
  const old = pair.a.sa
  for (const group of [1024, 2, 31, 0]) {
    pair.rekeyIke(pair.a)
    const { header } = pair.take(pair.b)
    const { exchange, messageId } = header
    const data = Uint8Array.of(group >> 8, group & 0xff)
    const refusal = { kind: 'notify', protocol: 0, spi: new Uint8Array(0), type: 17, data } as const
    pair.give(pair.forge(pair.b, { exchange, messageId, response: true }, [refusal]))
    t.equal(pair.wire.length, 0, `group ${group} is not tried`)
    t.equal(pair.a.sa, old)
  }
  t.end()
})

/** Each end's first guess, the group they have, is what the other no longer takes first. */
const keCrossed = (): IkePair => {
  const group = { ike: 'aes128gcm16-prfsha256-ecp384' }
  const pair = IkePair.established(group, group)
  pair.a.reconfigure({ ike: 'aes128gcm16-prfsha256-x25519-ecp256-ecp384' })
  pair.b.reconfigure({ ike: 'aes128gcm16-prfsha256-ecp256-x25519-ecp384' })
  return pair
}

// --- both rekey at once ---

const collide = (row: Row, pair = IkePair.established()): { pair: IkePair; old: IkeSa } => {
  const old = pair.a.sa
  pair.a.nonce = row.aRequest
  pair.b.nonce = row.bRequest
  pair.rekeyIke(pair.a)
  pair.rekeyIke(pair.b)
  pair.a.nonce = row.aAnswer
  pair.b.nonce = row.bAnswer
  return { pair, old }
}

/** The SA of the exchange with the lowest nonce goes, so the other end's stays. */
const assertWinner = (t: Test, pair: IkePair, row: Row): void => {
  t.equal(
    pair.a.sa.originalInitiator,
    row.loser === 'b',
    'the exchange without the lowest nonce stays',
  )
  t.equal(pair.b.sa.originalInitiator, row.loser === 'a')
}

for (const row of NONCES) {
  const lowest = `the lowest nonce is in ${row.lowest}`

  t.test(`both rekey at once, ${lowest}`, t => {
    const { pair, old } = collide(row)
    pair.pass(pair.b)
    pair.pass(pair.a)
    for (const end of [pair.a, pair.b]) {
      t.equal(end.open[1]!.state, 'provisional')
      t.equal(end.open[0]!.children.size, 1, 'the Child SA stays where it is')
    }
    pair.pass(pair.a)
    pair.pass(pair.b)
    pair.settle()
    assertWinner(t, pair, row)
    finish(t, pair, old)
    t.end()
  })

  t.test(`both rekey at once and one answer is late, ${lowest}`, t => {
    for (const late of ['a', 'b'] as const) {
      const { pair, old } = collide(row)
      pair.pass(pair.b)
      pair.pass(pair.a)
      const answer = pair.take(pair[late])
      pair.settle()
      pair.give(answer)
      pair.settle()
      // What the quick end has deleted already does not come back.
      if (row.loser !== late) t.equal(pair[late].open.length, 1)
      assertWinner(t, pair, row)
      finish(t, pair, old)
    }
    t.end()
  })

  t.test(
    `both rekey at once, one answer is late and the new SA is used meanwhile (rule E4), ${lowest}`,
    t => {
      for (const late of ['a', 'b'] as const) {
        const { pair, old } = collide(row)
        const slow = pair[late]
        const quick = pair.other(slow)
        pair.pass(pair.b)
        pair.pass(pair.a)
        const answer = pair.take(slow)
        pair.pass(quick)
        // The Delete of the old SA, or of the redundant one, is late as well; a request is not.
        const remove = pair.take(slow)
        pair.createChild(quick, 81)
        pair.pass(slow)
        if (row.loser === late) t.equal(slow.count('rekeyed'), 1, 'used, so it is the survivor')
        pair.give(remove)
        pair.give(answer)
        pair.settle()
        pair.advance(61_000)
        assertWinner(t, pair, row)
        t.not(pair.a.sa, old)
        // Where the quick end lost, it used an SA that the slow one had not heard of, and asked again.
        t.ok(pair.stray.length <= 1)
        pair.stray.length = 0
        pair.assertWhole(t, 2)
        pair.assertAlive(t, 2)
      }
      t.end()
    },
  )

  t.test(`both rekey at once, one answer is late and the peer closes all, ${lowest}`, t => {
    for (const late of ['a', 'b'] as const) {
      const { pair } = collide(row)
      const slow = pair[late]
      const quick = pair.other(slow)
      pair.pass(pair.b)
      pair.pass(pair.a)
      const answer = pair.take(slow)
      pair.pass(quick)
      const first = pair.take(slow)
      for (const sa of quick.open) pair.run(() => sa.close(pair.now))
      pair.settle()
      pair.give(first)
      pair.give(answer)
      pair.settle()
      // Until the late Delete came the slow end could not know.
      pair.advance(130_000)
      pair.lost.length = 0
      pair.assertGone(t)
    }
    t.end()
  })

  t.test(`both get INVALID_KE_PAYLOAD and then rekey at once, ${lowest}`, t => {
    const { pair, old } = collide(row, keCrossed())
    pair.pass(pair.b)
    pair.pass(pair.a)
    for (const end of [pair.a, pair.b])
      t.equal(end.count('successor'), 0, 'a refusal makes nothing')
    pair.a.nonce = row.aRequest
    pair.b.nonce = row.bRequest
    pair.pass(pair.a)
    pair.pass(pair.b)
    pair.a.nonce = row.aAnswer
    pair.b.nonce = row.bAnswer
    pair.settle()
    assertWinner(t, pair, row)
    finish(t, pair, old)
    t.end()
  })
}

for (const late of ['a', 'b'] as const) {
  const name = (what: string): string => `both rekey, but the request of ${late} ${what}`
  const start = (pair = IkePair.established()) => {
    const old = pair.a.sa
    return { pair, old, slow: pair[late], quick: pair.other(pair[late]) }
  }

  t.test(name('is lost: the other end never knows'), t => {
    const { pair, old, slow, quick } = start()
    pair.rekeyIke(slow)
    pair.take(quick)
    pair.rekeyIke(quick)
    pair.pass(slow)
    t.equal(slow.open[1]!.state, 'provisional')
    pair.pass(quick)
    pair.pass(slow)
    t.notOk(slow.open.includes(old), 'the Delete of the old SA settles it (rule E5)')
    pair.settle()
    t.equal(slow.count('successor'), 1)
    finish(t, pair, old)
    t.end()
  })

  t.test(name('is late: TEMPORARY_FAILURE before the Delete'), t => {
    const { pair, old, slow, quick } = start()
    pair.rekeyIke(slow)
    const request = pair.take(quick)
    pair.rekeyIke(quick)
    pair.pass(slow)
    pair.pass(quick)
    const remove = pair.take(slow)
    pair.give(request)
    pair.pass(slow)
    t.equal(slow.count('rekeyed'), 1, 'the refusal settles it')
    pair.give(remove)
    finish(t, pair, old)
    t.end()
  })

  t.test(name('is late: TEMPORARY_FAILURE after the Delete'), t => {
    const { pair, old, slow, quick } = start()
    pair.rekeyIke(slow)
    const request = pair.take(quick)
    pair.rekeyIke(quick)
    pair.pass(slow)
    pair.pass(quick)
    pair.give(request)
    pair.pass(slow)
    pair.pass(slow)
    finish(t, pair, old)
    t.end()
  })

  t.test(name('comes after the old SA is deleted: nobody answers, and nobody asks again'), t => {
    const { pair, old, slow, quick } = start()
    pair.rekeyIke(slow)
    const request = pair.take(quick)
    pair.rekeyIke(quick)
    pair.settle()
    pair.give(request)
    t.equal(pair.wire.length, 0)
    t.equal(pair.stray.splice(0).length, 1)
    finish(t, pair, old)
    t.end()
  })

  t.test(name('is late, and the Delete is lost once'), t => {
    const { pair, old, slow, quick } = start()
    pair.rekeyIke(slow)
    const request = pair.take(quick)
    pair.rekeyIke(quick)
    pair.pass(slow)
    pair.pass(quick)
    pair.take(slow)
    pair.give(request)
    finish(t, pair, old)
    t.end()
  })

  t.test(name('after INVALID_KE_PAYLOAD is late'), t => {
    const { pair, old, slow, quick } = start(keCrossed())
    pair.rekeyIke(slow)
    pair.rekeyIke(quick)
    pair.pass(quick)
    pair.pass(slow)
    pair.pass(quick)
    pair.pass(slow)
    const retry = pair.take(quick)
    pair.pass(slow)
    pair.pass(quick)
    pair.settle()
    pair.give(retry)
    t.equal(pair.stray.splice(0).length, 1)
    finish(t, pair, old)
    t.end()
  })
}

// --- a rekey and the end of the IKE SA ---

for (const rekeyer of ['a', 'b'] as const) {
  const start = (): { pair: IkePair; own: End; peer: End } => {
    const pair = IkePair.established()
    return { pair, own: pair[rekeyer], peer: pair.other(pair[rekeyer]) }
  }

  t.test(`${rekeyer} rekeys the IKE SA that the peer deletes: the Delete goes first`, t => {
    const { pair, own, peer } = start()
    pair.rekeyIke(own)
    pair.deleteIke(peer)
    pair.pass(own)
    t.equal(own.open.length, 0, 'its own attempt is forgotten')
    pair.settle()
    t.equal(own.count('rekeyed') + peer.count('rekeyed'), 0)
    pair.assertGone(t)
    t.end()
  })

  t.test(
    `${rekeyer} rekeys the IKE SA that the peer deletes: TEMPORARY_FAILURE, then the Delete`,
    t => {
      const { pair, own, peer } = start()
      pair.rekeyIke(own)
      pair.deleteIke(peer)
      const remove = pair.take(own)
      pair.pass(peer)
      pair.pass(own)
      t.equal(own.sa.state, 'established', 'for now')
      pair.give(remove)
      pair.settle()
      pair.assertGone(t)
      t.end()
    },
  )

  t.test(
    `${rekeyer} rekeys the IKE SA that the peer deletes: the Delete is lost and sent again`,
    t => {
      const { pair, own, peer } = start()
      pair.rekeyIke(own)
      pair.deleteIke(peer)
      pair.take(own)
      pair.settle()
      t.equal(own.sa.state, 'established')
      pair.advance(5_000)
      pair.assertGone(t)
      t.equal(own.count('rekeyed') + peer.count('rekeyed'), 0)
      t.end()
    },
  )

  t.test(`${rekeyer} closes while its own rekey is under way: both SAs go`, t => {
    const { pair, own } = start()
    pair.rekeyIke(own)
    pair.deleteIke(own)
    pair.settle()
    pair.assertGone(t)
    t.end()
  })

  t.test(`${rekeyer} has answered a rekey and the peer closes before it has the answer`, t => {
    const { pair, own, peer } = start()
    pair.rekeyIke(peer)
    pair.pass(own)
    const answer = pair.take(peer)
    pair.deleteIke(peer)
    pair.give(answer)
    pair.settle()
    pair.assertGone(t)
    t.end()
  })
}

t.test(
  'an old IKE SA that the peer never deletes is deleted by whoever waits for it (rule E6)',
  t => {
    const pair = IkePair.established()
    const old = pair.a.sa
    pair.rekeyIke(pair.a)
    pair.pass(pair.b)
    pair.pass(pair.a)
    const late = pair.take(pair.b)
    t.equal(pair.b.open.length, 2)
    // The peer has not used the new SA, so it may still wait for the answer: patience, which ends.
    for (let waits = 0; waits <= 10; waits++) {
      pair.now += 60_000
      pair.run(() => pair.b.open[0]!.handleTimeout(pair.now))
      t.equal(pair.b.open[0]!.state, waits < 10 ? 'rekeyed' : 'deleting')
    }
    pair.settle()
    pair.give(late)
    t.equal(pair.stray.splice(0).length, 1)
    finish(t, pair, old)
    t.end()
  },
)

t.test('a peer whose every rekey is refused tries again after a wait that grows (rule E8)', t => {
  const pair = IkePair.established()
  pair.createChild(pair.b, 81)
  const blocking: Letter = pair.take(pair.a)
  let before = 0
  for (let i = 0; i < 4; i++) {
    pair.rekeyIke(pair.a)
    pair.pass(pair.b)
    pair.pass(pair.a)
    const wait = pair.a.sa.nextTimeout() - pair.now
    t.ok(wait >= 500 * 2 ** i && wait < 1500 * 2 ** i, `${wait} ms`)
    t.ok(wait > before)
    before = wait / 3
  }
  pair.give(blocking)
  pair.settle()
  pair.advance(20_000)
  t.equal(pair.a.count('rekeyed'), 1)
  pair.assertWhole(t, 2)
  t.end()
})
