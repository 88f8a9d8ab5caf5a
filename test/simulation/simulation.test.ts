import t from 'tap'
import { runBudget } from './budget.ts'
import { runDays } from './days.ts'
import { runRekeying } from './rekeying.ts'
import { runRequests } from './requests.ts'
import { runRoaming } from './roaming.ts'
import { runSizes } from './sizes.ts'
import { runTransfer } from './transfer.ts'

t.test('60 random networks: streams intact, nothing left over, no IV twice, no plaintext', t => {
  for (let seed = 1; seed <= 60; seed++) {
    const { problems } = runTransfer(seed)
    if (problems.length > 0) t.fail(`seed ${seed}: ${problems.join('; ')}`)
  }
  t.pass('all were run')
  t.end()
})

t.test(
  '50 crowds of colliding rekeys: one IKE SA and two Child SAs left, no packet lost its SA',
  t => {
    for (let seed = 1; seed <= 50; seed++) {
      const { problems } = runRekeying(seed)
      if (problems.length > 0) t.fail(`seed ${seed}: ${problems.join('; ')}`)
    }
    t.pass('all were run')
    t.end()
  },
)

t.test('20 lots of days: lifetimes, reauthentication, NATs, restarts and a narrow path', t => {
  for (let seed = 1; seed <= 20; seed++) {
    const { problems } = runDays(seed)
    if (problems.length > 0) t.fail(`seed ${seed}: ${problems.join('; ')}`)
  }
  t.pass('all were run')
  t.end()
})

t.test(
  '20 clients that roam: outages, other addresses, NATs that forget, and no stream ends',
  t => {
    for (let seed = 1; seed <= 20; seed++) {
      const { problems } = runRoaming(seed)
      if (problems.length > 0) t.fail(`seed ${seed}: ${problems.join('; ')}`)
    }
    t.pass('all were run')
    t.end()
  },
)

t.test('12 paths that take less and more in turn: what fits through is found', t => {
  for (let seed = 1; seed <= 12; seed++) {
    const { problems } = runSizes(seed)
    if (problems.length > 0) t.fail(`seed ${seed}: ${problems.join('; ')}`)
  }
  t.pass('all were run')
  t.end()
})

t.test('6 sessions whose readers stop: windows grow, and no more is held than may be', t => {
  for (let seed = 1; seed <= 6; seed++) {
    const { problems } = runBudget(seed)
    if (problems.length > 0) t.fail(`seed ${seed}: ${problems.join('; ')}`)
  }
  t.pass('all were run')
  t.end()
})

t.test('the same seed gives the same datagrams', t => {
  for (const seed of [3, 17, 46])
    t.equal(runTransfer(seed).trace, runTransfer(seed).trace, `seed ${seed}`)
  t.not(runTransfer(3).trace, runTransfer(4).trace)
  t.end()
})

/** Each failed once; what was wrong stands beside it. */
const REGRESSIONS = [
  [
    runBudget,
    4002533,
    'in LAST-ACK no ACK let anything out again, and what was first in the stream came last',
  ],
  [runTransfer, 46, 'a Child SA past its end was deleted again and again'],
  [runTransfer, 503, 'the repeated IKE_AUTH answer went to the address before a NAT rebinding'],
  [runTransfer, 662, 'the SA went while the last FIN was not acknowledged'],
  [runDays, 30, 'a peer heard from a new place was given up for the silence of the old one'],
  [runDays, 1397, 'the timer of an acknowledged SYN went on and made every later repetition wait'],
  [runDays, 2132, 'an authentication from a new port was taken for another client'],
  [runDays, 203179, 'an authentication named an SA of whose rekey the server had not heard'],
  [runDays, 5324, 'a first message that the network doubled made two sessions'],
  [
    runDays,
    8004344,
    'a rekey was too large for a place on trial, which could not be proved while it waited',
  ],
  [runDays, 5702, 'a socket opened while the idle SA was deleted failed'],
  [runTransfer, 1561, 'the window of our SYN was counted from zero'],
  [
    runRequests,
    1000589,
    'an attempt left an SA that was in doubt with what the peer had got, and was refused',
  ],
  [
    runRoaming,
    700997,
    'a repetition that was answered sooner than any before it was taken for the original',
  ],
  [runRoaming, 600847, 'a connection that rested while the path changed had no window after it'],
  [
    runRoaming,
    31807,
    'an outage was measured as a round trip, and hid for long what was lost in it',
  ],
  [runRoaming, 301, 'what had been sent twice made others wait as long as the outage was'],
  [runRoaming, 101032, 'data took all that a place on trial may get, and its proof had to wait'],
  [runRoaming, 441, 'data waited for a timer that an outage had made long, after the way was open'],
  [
    runSizes,
    11726,
    'SACK blocks beside data that was sent again were too much for the path, for ever',
  ],
  [
    runRekeying,
    124,
    'INVALID_IKE_SPI about an SA that the peer has not heard of yet ended the session',
  ],
] as const
for (const [run, seed, flaw] of REGRESSIONS) {
  t.test(`seed ${seed}: ${flaw}`, t => {
    t.strictSame(run(seed).problems, [])
    t.end()
  })
}
