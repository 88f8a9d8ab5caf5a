/** Rekeying of a Child SA and everything that may cross it (RFC 7296 §1.3.3, §2.8.1, §2.25.1). */
import t, { type Test } from 'tap'
import { groupsOf } from '../../lib/policy/proposal.ts'
import { find } from '../../lib/wire/message.ts'
import { IkePair, NONCES, type End, type Options } from '../harness/ike-pair.ts'

type Row = (typeof NONCES)[number]

const ends = (pair: IkePair): [End, End][] => [
  [pair.a, pair.b],
  [pair.b, pair.a],
]

/** Both ends have seen one rekey, and the old SA is gone with one event. */
const assertRekeyedOnce = (t: Test, pair: IkePair): void => {
  for (const end of [pair.a, pair.b]) {
    t.equal(end.count('childRekeyed'), 1, `${end.name} tells of one rekey`)
    const removed = end.all('childRemoved').map(({ inboundSpi }) => inboundSpi)
    t.equal(new Set(removed).size, removed.length, `${end.name} removes no Child SA twice`)
    t.equal(end.all('childRekeyed')[0]?.by, end.child.inboundSpi, 'and of the one that stays')
  }
}

const finish = (t: Test, pair: IkePair): void => {
  pair.settle()
  pair.assertWhole(t)
  assertRekeyedOnce(t, pair)
  pair.advance(10_000)
  pair.assertWhole(t)
  pair.assertAlive(t)
}

for (const [name, options] of [
  ['with PFS', {}],
  ['without PFS', { pfs: false }],
] as const) {
  t.test(`a rekey ${name}, started by either end`, t => {
    for (const starter of ['a', 'b'] as const) {
      const pair = IkePair.established(options, options)
      const old = { a: pair.a.child, b: pair.b.child }
      const end = pair[starter]
      const other = pair.other(end)
      pair.rekeyChild(end)
      pair.pass(other)
      t.equal(other.children.length, 2, 'the responder has both')
      t.equal(other.route?.child, old[other.name], 'and sends on the old one')
      pair.pass(end)
      t.not(end.route?.child, old[end.name], 'the initiator sends on the new one')
      t.equal(other.route?.child, old[other.name], 'the responder does not yet')
      pair.pass(other)
      t.not(other.route?.child, old[other.name], 'the Delete of the old one moves it')
      pair.pass(end)
      finish(t, pair)
    }
    t.end()
  })
}

t.test('the responder sends on the new SA as soon as a packet has come on it (rule E3)', t => {
  const pair = IkePair.established()
  const old = pair.b.child
  pair.rekeyChild(pair.a)
  pair.pass(pair.b)
  pair.pass(pair.a)
  pair.traffic(pair.a)
  t.not(pair.b.route?.child, old)
  finish(t, pair)
  t.end()
})

t.test('the replaced inbound SA receives what was under way for five seconds (rule E7)', t => {
  const pair = IkePair.established()
  const spi = pair.a.child.inboundSpi
  pair.rekeyChild(pair.a)
  pair.settle()
  const known = (): boolean => pair.a.carriers.some(({ child }) => child.inboundSpi === spi)
  pair.advance(4_900)
  t.ok(known())
  pair.advance(200)
  t.notOk(known())
  pair.assertWhole(t)
  t.end()
})

/** Different first groups, one of which the other end does not take at all. */
const KE_INVALID: [Options, Options] = [
  { esp: 'aes128gcm16-x25519-ecp256' },
  { esp: 'aes128gcm16-ecp256' },
]

/** Each end's first guess is what the other does not prefer. */
const KE_CROSSED: [Options, Options] = [
  { ike: 'aes128gcm16-prfsha256-ecp384', esp: 'aes128gcm16-x25519-ecp256' },
  { ike: 'aes128gcm16-prfsha256-ecp384', esp: 'aes128gcm16-ecp256-x25519' },
]

t.test('INVALID_KE_PAYLOAD in a rekey: the group that the peer names is tried', t => {
  const pair = IkePair.established(...KE_INVALID)
  const old = pair.a.child
  pair.rekeyChild(pair.a)
  pair.pass(pair.b)
  t.equal(pair.b.children.length, 1, 'a refusal makes nothing')
  pair.pass(pair.a)
  t.equal(pair.a.child, old)
  pair.pass(pair.b)
  t.equal(pair.b.children.length, 2)
  finish(t, pair)
  t.end()
})

t.test('a rekey offers every group of ours and guesses the one that made the Child SA', t => {
  const pair = IkePair.established(
    { ike: 'aes128gcm16-prfsha256-x25519-ecp256' },
    { ike: 'aes128gcm16-prfsha256-ecp256-x25519' },
  )
  t.equal(pair.b.child.group, 19, 'by the key exchange of its IKE SA')
  pair.rekeyIke(pair.b)
  pair.settle()
  t.equal(pair.b.sa.suite.group, 31, 'which has another one now')
  pair.rekeyChild(pair.b)
  const request = pair.take(pair.a)
  const payloads = pair.read(request)
  t.equal(find(payloads, 'ke')?.group, 19)
  t.strictSame(groupsOf(find(payloads, 'sa')!.proposals), [19, 31])
  pair.give(request)
  finish(t, pair)
  t.end()
})

t.test('INVALID_KE_PAYLOAD with a group that is not ours, or once more, ends the attempt', t => {
  const pair = IkePair.established(
    { esp: 'aes128gcm16-x25519' },
    { esp: 'aes128gcm16-ecp256', ike: 'aes128gcm16-prfsha256-x25519' },
  )
  pair.rekeyChild(pair.a)
  pair.settle()
  t.equal(pair.a.children.length, 1)
  t.equal(pair.a.child.state, 'installed')
  t.ok(pair.a.child.softAt > pair.now, 'it is tried again later')
  pair.assertWhole(t)
  t.end()
})

t.test('waiting for the Delete of the old SA, the responder passes over its soft limit', t => {
  const pair = IkePair.established()
  pair.rekeyChild(pair.a)
  pair.pass(pair.b)
  pair.b.child.softAt = pair.now
  pair.run(() => pair.b.sa.handleTimeout(pair.now))
  t.notOk(
    pair.wire.some(({ header }) => header.messageId === 0 && !header.response),
    'it starts nothing',
  )
  finish(t, pair)
  t.end()
})

t.test('waiting for the Delete of the old SA, the responder obeys its hard limit', t => {
  for (const before of [true, false]) {
    const pair = IkePair.established()
    pair.rekeyChild(pair.a)
    pair.pass(pair.b)
    const answer = pair.take(pair.a)
    pair.deleteChild(pair.b)
    if (before) pair.pass(pair.a)
    pair.give(answer)
    finish(t, pair)
  }
  t.end()
})

t.test('a process that slept past both limits of a Child SA has thirty seconds to rekey it', t => {
  const pair = IkePair.established()
  const { child } = pair.b
  child.softAt = pair.now - 2
  child.hardAt = pair.now - 1
  pair.run(() => pair.b.sa.handleTimeout(pair.now))
  t.equal(child.state, 'rekeying')
  t.equal(child.hardAt, pair.now + 30_000)
  finish(t, pair)
  t.end()
})

t.test('a rekey that waited its turn is looked at once more when it starts (rule E1)', t => {
  for (const what of ['rekeys', 'deletes'] as const) {
    const pair = IkePair.established()
    pair.createChild(pair.a, 81)
    const busy = pair.take(pair.b)
    pair.rekeyChild(pair.a)
    t.equal(pair.wire.length, 0, 'one request at a time')
    if (what === 'rekeys') pair.rekeyChild(pair.b)
    else pair.deleteChild(pair.b)
    pair.settle()
    pair.give(busy)
    pair.settle()
    t.equal(
      pair.a.count('childRekeyed'),
      what === 'rekeys' ? 1 : 0,
      `the peer ${what} it meanwhile`,
    )
    t.equal(pair.b.count('childRekeyed'), what === 'rekeys' ? 1 : 0)
    pair.advance(10_000)
    pair.assertWhole(t, what === 'rekeys' ? 2 : 1)
  }
  t.end()
})

t.test('what we made as responder we do not rekey before the peer has shown it (rule E2)', t => {
  const pair = IkePair.established()
  pair.rekeyChild(pair.a)
  pair.pass(pair.b)
  const answer = pair.take(pair.a)
  pair.rekeyChild(pair.b, pair.b.children[1])
  t.equal(pair.wire.length, 0)
  pair.give(answer)
  pair.settle()
  pair.rekeyChild(pair.b)
  t.equal(pair.wire.length, 1)
  pair.settle()
  t.equal(pair.b.count('childRekeyed'), 2)
  pair.advance(10_000)
  pair.assertWhole(t)
  t.end()
})

t.test('a Delete that never comes is made by whoever waits for it (rule E6)', t => {
  const pair = IkePair.established()
  pair.rekeyChild(pair.a)
  pair.pass(pair.b)
  pair.pass(pair.a)
  const late = pair.take(pair.b)
  pair.now += 60_000
  pair.run(() => pair.b.sa.handleTimeout(pair.now))
  t.equal(pair.b.child.state, 'replaced', 'the peer may still wait for the answer')
  pair.b.sa.noteInbound(pair.b.children[1]!.inboundSpi, pair.now)
  pair.now += 60_000
  pair.run(() => pair.b.sa.handleTimeout(pair.now))
  t.equal(pair.b.child.state, 'deleting')
  pair.settle()
  pair.give(late)
  finish(t, pair)
  t.end()
})

t.test('the responder deletes the new SA while the initiator still deletes the old one', t => {
  const pair = IkePair.established()
  pair.rekeyChild(pair.a)
  pair.pass(pair.b)
  pair.pass(pair.a)
  const deleteOld = pair.take(pair.b)
  pair.deleteChild(pair.b, pair.b.children[1])
  pair.pass(pair.a)
  pair.give(deleteOld)
  pair.settle()
  pair.assertWhole(t, 0)
  pair.createChild(pair.a)
  pair.settle()
  pair.assertWhole(t)
  t.end()
})

t.test('CHILD_SA_NOT_FOUND: the SA is forgotten without a word and another one is made', t => {
  const pair = IkePair.established()
  pair.loseChild(pair.b)
  pair.rekeyChild(pair.a)
  pair.pass(pair.b)
  pair.pass(pair.a)
  t.equal(pair.a.count('childRemoved'), 1)
  pair.settle()
  t.equal(pair.a.count('childRekeyed'), 0, 'it is a new one, not a replacement')
  t.equal(pair.b.count('childInstalled'), 1)
  pair.assertWhole(t)
  pair.assertAlive(t)
  t.end()
})

for (const order of ['before', 'after'] as const) {
  t.test(`the responder deletes the old SA itself, ${order} its answer arrives`, t => {
    const pair = IkePair.established()
    pair.rekeyChild(pair.a)
    pair.pass(pair.b)
    const answer = pair.take(pair.a)
    if (order === 'after') pair.give(answer)
    pair.deleteChild(pair.b)
    pair.pass(pair.a)
    if (order === 'before') pair.give(answer)
    finish(t, pair)
    t.end()
  })
}

t.test('a Delete that is never answered ends the IKE SA, and each Child SA is removed once', t => {
  const pair = IkePair.established()
  pair.rekeyChild(pair.a)
  pair.pass(pair.b)
  pair.pass(pair.a)
  for (let i = 0; i < 20 && pair.a.open.length > 0; i++) {
    pair.wire.length = 0
    pair.tick()
  }
  t.equal(pair.a.open.length, 0)
  const removed = pair.a.all('childRemoved').map(({ inboundSpi }) => inboundSpi)
  t.equal(removed.length, 2)
  t.equal(new Set(removed).size, 2)
  t.match(pair.a.all('closed')[0]?.error?.message, /does not answer/)
  t.end()
})

// --- both rekey at once ---

/** Both requests are under way: the one to `a` first in the list, the one to `b` second. */
const collide = (row: Row, options: [Options, Options] = [{}, {}]): IkePair => {
  const pair = IkePair.established(...options)
  pair.a.nonce = row.aRequest
  pair.b.nonce = row.bRequest
  pair.rekeyChild(pair.a)
  pair.rekeyChild(pair.b)
  pair.a.nonce = row.aAnswer
  pair.b.nonce = row.bAnswer
  return pair
}

/** The SA of the exchange with the lowest nonce goes, so the other end's stays. */
const assertWinner = (t: Test, pair: IkePair, row: Row, before: number): void => {
  // Each end allocates for its own request first, then for its answer.
  const own = (end: End): boolean => (end.child.inboundSpi & 0xff) === before + 1
  t.equal(own(pair.a), row.loser === 'b', 'the exchange without the lowest nonce stays')
  t.equal(own(pair.b), row.loser === 'a')
}

for (const row of NONCES) {
  const lowest = `the lowest nonce is in ${row.lowest}`

  t.test(`both rekey at once, ${lowest}`, t => {
    const pair = collide(row)
    pair.pass(pair.b)
    pair.pass(pair.a)
    for (const [end] of ends(pair)) {
      t.equal(end.children.length, 2)
      t.equal(end.children[1]!.state, 'provisional')
    }
    pair.pass(pair.a)
    pair.pass(pair.b)
    for (const [end] of ends(pair)) t.equal(end.children.length, 3)
    pair.settle()
    assertWinner(t, pair, row, 1)
    finish(t, pair)
    t.end()
  })

  t.test(`both rekey at once and one answer is late, ${lowest}`, t => {
    for (const late of ['a', 'b'] as const) {
      const pair = collide(row)
      pair.pass(pair.b)
      pair.pass(pair.a)
      const answer = pair.take(pair[late])
      // The other end has its answer, and its Delete comes before the late one.
      pair.settle()
      t.equal(pair.other(pair[late]).count('childRekeyed'), 1)
      pair.give(answer)
      pair.settle()
      assertWinner(t, pair, row, 1)
      finish(t, pair)
    }
    t.end()
  })

  t.test(`both rekey at once, one answer is late and the peer deletes all it has, ${lowest}`, t => {
    for (const late of ['a', 'b'] as const) {
      const pair = collide(row)
      pair.pass(pair.b)
      pair.pass(pair.a)
      const answer = pair.take(pair[late])
      pair.settle()
      const other = pair.other(pair[late])
      for (const child of other.children) {
        if (child.state === 'installed' || child.state === 'replaced')
          pair.deleteChild(other, child)
        pair.settle()
      }
      pair.give(answer)
      pair.settle()
      pair.advance(10_000)
      const left = pair.a.children.length
      t.ok(left <= 1, 'at most one is left')
      pair.assertWhole(t, left)
    }
    t.end()
  })

  t.test(`both get INVALID_KE_PAYLOAD and then rekey at once, ${lowest}`, t => {
    const pair = collide(row, KE_CROSSED)
    pair.pass(pair.b)
    pair.pass(pair.a)
    for (const end of [pair.a, pair.b]) t.equal(end.children.length, 1, 'a refusal makes nothing')
    pair.a.nonce = row.aRequest
    pair.b.nonce = row.bRequest
    pair.pass(pair.a)
    pair.pass(pair.b)
    pair.a.nonce = row.aAnswer
    pair.b.nonce = row.bAnswer
    pair.settle()
    assertWinner(t, pair, row, 3)
    finish(t, pair)
    t.end()
  })
}

for (const late of ['a', 'b'] as const) {
  const name = (what: string): string => `both rekey, but the request of ${late} is late: ${what}`
  /** Both have started, the other end knows nothing of it and has the answer to its own request. */
  const unaware = (): {
    pair: IkePair
    slow: End
    quick: End
    request: ReturnType<IkePair['take']>
  } => {
    const pair = IkePair.established()
    const slow = pair[late]
    const quick = pair.other(slow)
    pair.rekeyChild(slow)
    const request = pair.take(quick)
    pair.rekeyChild(quick)
    pair.pass(slow)
    pair.pass(quick)
    return { pair, slow, quick, request }
  }

  t.test(
    name('TEMPORARY_FAILURE while the old SA is being deleted, before the Delete comes'),
    t => {
      const { pair, slow, quick, request } = unaware()
      const remove = pair.take(slow)
      pair.give(request)
      pair.pass(slow)
      t.equal(slow.child.state, 'replaced', 'the peer has refused, so its own attempt stays')
      pair.give(remove)
      t.equal(quick.count('childRekeyed'), 1)
      finish(t, pair)
      t.end()
    },
  )

  t.test(
    name('TEMPORARY_FAILURE while the old SA is being deleted, after the Delete has come'),
    t => {
      const { pair, slow, request } = unaware()
      pair.give(request)
      // In the order of sending: the Delete, then the refusal.
      pair.pass(slow)
      pair.pass(slow)
      finish(t, pair)
      t.end()
    },
  )

  t.test(name('CHILD_SA_NOT_FOUND once the old SA is deleted'), t => {
    const { pair, slow, quick, request } = unaware()
    pair.settle()
    t.equal(quick.children.length, 1)
    t.equal(slow.child.state, 'provisional')
    pair.give(request)
    pair.settle()
    t.equal(slow.count('childInstalled'), 1, 'the answer is passed over: no SA is made anew')
    finish(t, pair)
    t.end()
  })

  t.test(name('the peer has rekeyed a second time meanwhile'), t => {
    const { pair, slow, quick, request } = unaware()
    pair.settle()
    pair.rekeyChild(quick)
    pair.settle()
    pair.give(request)
    pair.settle()
    for (const end of [slow, quick]) t.equal(end.count('childRekeyed'), 2)
    pair.assertWhole(t)
    pair.assertAlive(t)
    t.end()
  })

  t.test(name('the peer has rekeyed a second time, and its second Delete is late too'), t => {
    const { pair, slow, quick, request } = unaware()
    pair.settle()
    pair.rekeyChild(quick)
    pair.pass(slow)
    pair.pass(quick)
    const remove = pair.take(slow)
    pair.give(request)
    pair.pass(slow)
    pair.give(remove)
    pair.settle()
    for (const end of [slow, quick]) t.equal(end.count('childRekeyed'), 2)
    pair.assertWhole(t)
    pair.assertAlive(t)
    t.end()
  })

  t.test(name('the peer has deleted the new SA again'), t => {
    const { pair, quick, request } = unaware()
    pair.settle()
    pair.deleteChild(quick)
    pair.settle()
    pair.give(request)
    pair.settle()
    pair.assertWhole(t, 0)
    t.end()
  })

  t.test(name('its retry after INVALID_KE_PAYLOAD is late'), t => {
    const pair = IkePair.established(...KE_CROSSED)
    const slow = pair[late]
    const quick = pair.other(slow)
    pair.rekeyChild(slow)
    pair.rekeyChild(quick)
    pair.pass(quick)
    pair.pass(slow)
    pair.pass(quick)
    pair.pass(slow)
    const retry = pair.take(quick)
    pair.pass(slow)
    pair.pass(quick)
    pair.settle()
    pair.give(retry)
    finish(t, pair)
    t.end()
  })
}

for (const row of NONCES) {
  const lowest = `the lowest nonce is in ${row.lowest}`

  t.test(
    `both rekey at once and the loser deletes the old SA, which is not its own to do, ${lowest}`,
    t => {
      const pair = collide(row)
      pair.pass(pair.b)
      pair.pass(pair.a)
      const loser = pair[row.loser]
      pair.pass(pair.a)
      pair.pass(pair.b)
      // Its rightful Delete first, then the other, both before the winner's.
      const winners = pair.take(loser)
      pair.pass(pair.other(loser))
      pair.pass(loser)
      pair.deleteChild(loser)
      pair.settle()
      pair.give(winners)
      finish(t, pair)
      t.end()
    },
  )
}

// --- a rekey and other exchanges ---

for (const rekeyer of ['a', 'b'] as const) {
  const start = (): { pair: IkePair; own: End; peer: End } => {
    const pair = IkePair.established()
    return { pair, own: pair[rekeyer], peer: pair.other(pair[rekeyer]) }
  }

  t.test(`${rekeyer} rekeys what the peer deletes: the Delete goes first`, t => {
    const { pair, own, peer } = start()
    pair.rekeyChild(own)
    pair.deleteChild(peer)
    pair.pass(peer)
    pair.pass(own)
    t.equal(own.children.length, 0, 'the peer wants it gone')
    pair.settle()
    pair.assertWhole(t, 0)
    t.equal(own.count('childRekeyed') + peer.count('childRekeyed'), 0)
    t.equal(own.count('childRemoved'), 1)
    t.equal(peer.count('childRemoved'), 1)
    t.end()
  })

  t.test(`${rekeyer} rekeys what the peer deletes: the refusal comes before a late Delete`, t => {
    const { pair, own, peer } = start()
    pair.rekeyChild(own)
    pair.deleteChild(peer)
    const remove = pair.take(own)
    pair.pass(peer)
    pair.pass(own)
    t.equal(own.child.state, 'installed', 'TEMPORARY_FAILURE: it stays for now')
    t.ok(own.child.softAt > pair.now && own.child.softAt <= pair.now + 2_000)
    pair.give(remove)
    pair.settle()
    pair.assertWhole(t, 0)
    pair.advance(100_000)
    pair.assertWhole(t, 0)
    t.end()
  })

  t.test(`${rekeyer} rekeys what the peer deletes: the Delete is lost and sent again`, t => {
    const { pair, own, peer } = start()
    pair.rekeyChild(own)
    pair.deleteChild(peer)
    pair.take(own)
    pair.pass(peer)
    pair.pass(own)
    t.equal(own.child.state, 'installed')
    pair.advance(10_000)
    pair.assertWhole(t, 0)
    t.end()
  })

  t.test(
    `${rekeyer} rekeys what the peer deletes: the request is lost and comes after the Delete`,
    t => {
      const { pair, own, peer } = start()
      pair.rekeyChild(own)
      const request = pair.take(peer)
      pair.deleteChild(peer)
      pair.settle()
      pair.give(request)
      pair.settle()
      pair.assertWhole(t, 0)
      t.equal(
        own.count('childInstalled'),
        0,
        'CHILD_SA_NOT_FOUND of an SA that is gone makes nothing',
      )
      t.end()
    },
  )

  t.test(`${rekeyer} gets the Delete of the new SA before the answer that made it`, t => {
    const { pair, own, peer } = start()
    pair.rekeyChild(own)
    pair.pass(peer)
    const answer = pair.take(own)
    pair.deleteChild(peer, peer.children[1])
    pair.settle()
    pair.give(answer)
    pair.settle()
    t.equal(own.count('childInstalled'), 0, 'it is not installed')
    pair.assertWhole(t, 0)
    pair.createChild(own)
    pair.settle()
    pair.assertWhole(t)
    t.end()
  })

  t.test(
    `${rekeyer} rekeys a Child SA and the peer the IKE SA: both refused, both done later`,
    t => {
      for (const first of ['own', 'peer'] as const) {
        const { pair, own, peer } = start()
        pair.rekeyChild(own)
        pair.rekeyIke(peer)
        pair.pass(first === 'own' ? own : peer)
        pair.pass(first === 'own' ? peer : own)
        t.equal(own.children.length + peer.children.length, 2, 'nobody made anything')
        pair.settle()
        pair.assertWhole(t)
        t.equal(own.count('childRekeyed') + peer.count('rekeyed'), 0)
        pair.advance(60_000)
        t.equal(own.count('childRekeyed'), 1)
        t.equal(peer.count('childRekeyed'), 1)
        t.equal(own.count('rekeyed'), 1)
        t.equal(peer.count('rekeyed'), 1)
        pair.assertWhole(t)
        pair.assertAlive(t)
      }
      t.end()
    },
  )

  t.test(`${rekeyer} rekeys a Child SA and the peer deletes the IKE SA`, t => {
    for (const first of ['request', 'delete'] as const) {
      const { pair, own, peer } = start()
      pair.rekeyChild(own)
      pair.deleteIke(peer)
      if (first === 'request') {
        pair.pass(peer)
        pair.pass(own)
      } else pair.pass(own)
      pair.settle()
      pair.assertGone(t)
      t.equal(own.count('childRemoved'), 1)
      t.equal(peer.count('childRemoved'), 1)
    }
    t.end()
  })
}

t.test('TEMPORARY_FAILURE is answered by a wait that is random and grows (rule E8)', t => {
  const pair = IkePair.established()
  const waits: number[] = []
  for (let i = 0; i < 5; i++) {
    pair.rekeyChild(pair.a)
    // The peer is about to delete it, and its Delete does not come through.
    if (i === 0) {
      pair.deleteChild(pair.b)
      pair.take(pair.a)
    }
    pair.pass(pair.b)
    pair.pass(pair.a)
    waits.push(pair.a.child.softAt - pair.now)
  }
  waits.forEach((wait, i) => t.ok(wait >= 500 * 2 ** i && wait < 1500 * 2 ** i, `${i}: ${wait} ms`))
  t.end()
})

t.test(
  'a peer that refuses with TEMPORARY_FAILURE for five minutes is out of step: the IKE SA goes',
  t => {
    const pair = IkePair.established()
    pair.deleteChild(pair.b)
    pair.take(pair.a)
    for (let waited = 0; waited < 300_000; waited += 50_000) {
      pair.rekeyChild(pair.a)
      pair.pass(pair.b)
      pair.pass(pair.a)
      t.equal(pair.a.sa.state, 'established', `after ${waited} ms`)
      pair.now += 50_000
    }
    pair.rekeyChild(pair.a)
    pair.pass(pair.b)
    pair.pass(pair.a)
    t.equal(pair.a.sa.state, 'deleting')
    t.end()
  },
)
