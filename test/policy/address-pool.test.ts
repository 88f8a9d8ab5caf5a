/** Addresses for peers: who gets which, and when there are none left. */
import t from 'tap'
import { formatAddress, parseAddress } from '../../lib/base/address.ts'
import { AddressPool, parsePool } from '../../lib/policy/address-pool.ts'
import { Random } from '../harness/random.ts'

interface Wish {
  length?: 4 | 16
  wanted?: string
  /** What the peer's own session holds. */
  own?: readonly string[]
  restarted?: boolean
  /** By which proof. */
  proof?: string
}

const pool = (...ranges: string[]) => {
  const addresses = new AddressPool(parsePool('addressPool', ranges))
  const assign = (identityKey: string, wish: Wish = {}) => {
    const { length = 4, wanted, own = [], restarted = false, proof = '' } = wish
    return addresses.assign(length, {
      tenant: { key: `${identityKey} ${proof}`, identityKey },
      wanted: wanted === undefined ? undefined : parseAddress(wanted),
      own: own.map(text => parseAddress(text)!),
      restarted,
    })
  }
  return {
    addresses,
    lease: assign,
    assign: (identity: string, wish?: Wish) => {
      const lease = assign(identity, wish)
      return lease && formatAddress(lease.address)
    },
    release: (address: string) => addresses.release(parseAddress(address)!),
  }
}

t.test('a subnet gives its hosts, one to each, and its netmask', async t => {
  const { lease, assign } = pool('10.8.0.0/30')
  t.strictSame(lease('alice')?.netmask, parseAddress('255.255.255.252'))
  t.equal(assign('bob'), '10.8.0.2')
  t.equal(assign('carol'), undefined, 'the broadcast address is nobody’s')
})

t.test('a range gives all of its addresses and has no netmask; the next range follows', async t => {
  const { lease, assign } = pool('10.8.0.7-10.8.0.8', '10.9.0.1')
  t.equal(lease('a')?.netmask, undefined)
  t.strictSame([assign('b'), assign('c'), assign('d')], ['10.8.0.8', '10.9.0.1', undefined])
})

t.test('a large IPv6 subnet counts beyond an octet', async t => {
  const { assign, addresses } = pool('2001:db8::/64')
  let last: string | undefined
  for (let i = 1; i <= 258; i++) last = assign(`peer ${i}`, { length: 16 })
  t.equal(last, '2001:db8::102')
  t.notOk(addresses.has(4))
  t.equal(assign('peer 1'), undefined, 'no IPv4 there')
})

t.test('a principal that comes back gets its address, others the one free for longest', async t => {
  const { assign, release } = pool('10.8.0.1-10.8.0.3')
  t.strictSame([assign('a'), assign('b'), assign('c')], ['10.8.0.1', '10.8.0.2', '10.8.0.3'])
  release('10.8.0.2')
  release('10.8.0.1')
  t.equal(assign('b'), '10.8.0.2')
  release('10.8.0.2')
  t.equal(assign('d'), '10.8.0.1')
  t.equal(assign('a'), '10.8.0.2', 'its own is taken by now')
})

t.test('the same identity by another proof is another principal', async t => {
  const { assign, release } = pool('10.8.0.1-10.8.0.9')
  t.equal(assign('bob', { proof: 'certificate' }), '10.8.0.1')
  t.equal(assign('bob', { proof: 'psk', wanted: '10.8.0.1' }), '10.8.0.2', 'in use')
  t.equal(assign('bob', { proof: 'psk', restarted: true }), '10.8.0.2', 'its own')
  release('10.8.0.1')
  t.equal(assign('bob', { proof: 'psk', wanted: '10.8.0.1' }), '10.8.0.3', 'kept for him')
  t.equal(assign('bob', { proof: 'certificate' }), '10.8.0.1')
})

t.test('while a session holds an address another of the same principal gets another', async t => {
  const { assign, release } = pool('10.8.0.0/24')
  t.equal(assign('a'), '10.8.0.1')
  t.equal(assign('a', { wanted: '10.8.0.1' }), '10.8.0.2')
  release('10.8.0.1')
  t.equal(assign('a', { wanted: '10.8.0.1' }), '10.8.0.1', 'free again')
})

t.test(
  'a session that authenticates once more shares its address until both have let go',
  async t => {
    const { assign, release } = pool('10.8.0.1-10.8.0.2')
    t.equal(assign('a'), '10.8.0.1')
    t.equal(assign('b', { own: ['10.8.0.1'] }), '10.8.0.2', 'another principal has no part in it')
    t.equal(assign('a', { own: ['10.8.0.1'] }), '10.8.0.1')
    release('10.8.0.2')
    release('10.8.0.1')
    t.equal(assign('c', { wanted: '10.8.0.1' }), '10.8.0.2', 'one holder is still there')
    release('10.8.0.1')
    t.equal(assign('d', { wanted: '10.8.0.1' }), '10.8.0.1')
  },
)

t.test('of the addresses of its session a peer gets the one that it asks for', async t => {
  const { assign } = pool('10.8.0.0/24')
  t.strictSame([assign('a'), assign('a')], ['10.8.0.1', '10.8.0.2'])
  const own = ['10.8.0.1', '10.8.0.2']
  t.equal(assign('a', { own, wanted: '10.8.0.2' }), '10.8.0.2')
  t.equal(assign('a', { own, wanted: '10.8.0.9' }), '10.8.0.1')
})

t.test('a principal that has restarted gets what it held', async t => {
  const { assign } = pool('10.8.0.1')
  t.equal(assign('a'), '10.8.0.1')
  t.equal(assign('b', { restarted: true }), undefined)
  t.equal(assign('a', { restarted: true }), '10.8.0.1')
})

t.test('an address that is asked for is given where nobody else has or had it', async t => {
  const { assign, release } = pool('10.8.0.0/29', '10.9.0.5')
  t.equal(assign('a', { wanted: '10.8.0.2' }), '10.8.0.2')
  t.equal(assign('b', { wanted: '10.8.0.2' }), '10.8.0.1', 'leased')
  release('10.8.0.2')
  t.equal(assign('c', { wanted: '10.8.0.2' }), '10.8.0.3', 'kept for a, and passed over')
  t.equal(assign('d', { wanted: '10.9.0.5' }), '10.9.0.5')
  for (const wanted of ['10.8.0.0', '10.8.0.7', '10.7.255.255', '10.9.0.6', '0.0.0.0'])
    t.not(assign(`of ${wanted}`, { wanted }), wanted)
})

t.test('one identity, by however many proofs, leaves addresses for others', async t => {
  const { assign, release } = pool('10.8.0.1-10.8.0.30')
  const got = Array.from({ length: 40 }, (_, i) => assign('one', { proof: `${i % 3}` })).filter(
    address => address !== undefined,
  )
  t.equal(got.length, 15)
  t.equal(new Set(got).size, got.length)
  const others = Array.from({ length: 20 }, (_, i) => assign(`other ${i}`))
  t.equal(
    others.filter(address => address !== undefined).length,
    15,
    'one for each while any is left',
  )
  for (const address of got) release(address)
  t.not(assign('other 19'), undefined)
  t.not(assign('one'), undefined)
})

t.test('every address is leased once, whatever comes and goes', async t => {
  const random = new Random(5)
  const { assign, release } = pool('10.8.0.1-10.8.0.12', '10.9.0.0/29')
  const held = new Set<string>()
  for (let i = 0; i < 5000; i++) {
    const [first] = held
    if (held.size > 0 && random.chance(0.45)) {
      held.delete(first!)
      release(first!)
      continue
    }
    const wanted = random.chance(0.5) ? `10.8.0.${random.integer(0, 14)}` : undefined
    const wish = wanted === undefined ? {} : { wanted }
    const address = assign(`peer ${random.integer(0, 30)}`, wish)
    if (address === undefined) {
      t.ok(held.size > 5, 'refused without need')
      continue
    }
    if (held.has(address)) t.fail(`${address} is leased twice`)
    held.add(address)
  }
  for (const address of held) release(address)
  const all = Array.from({ length: 18 }, (_, i) => assign(`last ${i}`))
  t.equal(new Set(all).size, 18, 'none is lost')
  t.notOk(all.includes(undefined))
})

t.test('releasing what was never given changes nothing', async t => {
  const { assign, release } = pool('10.8.0.1')
  release('10.8.0.1')
  t.strictSame([assign('a'), assign('b')], ['10.8.0.1', undefined])
})

t.test('what it remembers is bounded by what is in use', async t => {
  const { assign, release } = pool('10.0.0.0/8')
  const seen = new Set<string>()
  for (let i = 0; i < 10_000; i++) {
    const address = assign(`visitor ${i}`, { wanted: `10.1.${i >> 8}.${i & 255}` })!
    seen.add(address)
    release(address)
  }
  t.equal(seen.size, 4096)
})

t.test('a pool is of addresses alone', async t => {
  t.throws(() => parsePool('addressPool', '10.0.0.0/8[tcp/80]'), /without protocol or port/)
  t.throws(() => parsePool('addressPool', 'everything'), /"addressPool"/)
})
