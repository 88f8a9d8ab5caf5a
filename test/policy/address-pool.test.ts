/** Addresses for peers: who gets which, and when there are none left. */
import t from 'tap'
import { formatAddress, parseAddress } from '../../lib/base/address.ts'
import { AddressPool, parsePool } from '../../lib/policy/address-pool.ts'

interface Wish {
  length?: 4 | 16
  wanted?: string
  restarted?: boolean
}

const pool = (...ranges: string[]) => {
  const addresses = new AddressPool(parsePool('addressPool', ranges))
  return {
    addresses,
    assign: (identity: string, { length = 4, wanted, restarted = false }: Wish = {}) => {
      const octets = wanted === undefined ? undefined : parseAddress(wanted)!
      const lease = addresses.assign(identity, length, octets, restarted)
      return lease && formatAddress(lease.address)
    },
    release: (address: string) => addresses.release(parseAddress(address)!),
  }
}

t.test('a subnet gives its hosts, one to each, and its netmask', async t => {
  const { addresses, assign } = pool('10.8.0.0/30')
  t.strictSame(
    addresses.assign('alice', 4, undefined, false)?.netmask,
    parseAddress('255.255.255.252'),
  )
  t.equal(assign('bob'), '10.8.0.2')
  t.equal(assign('carol'), undefined, 'the broadcast address is nobody’s')
})

t.test('a range gives all of its addresses and has no netmask; the next range follows', async t => {
  const { addresses, assign } = pool('10.8.0.7-10.8.0.8', '10.9.0.1')
  t.equal(addresses.assign('a', 4, undefined, false)?.netmask, undefined)
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

t.test('an identity that comes back gets its address, others the one free for longest', async t => {
  const { assign, release } = pool('10.8.0.1-10.8.0.3')
  t.strictSame([assign('a'), assign('b'), assign('c')], ['10.8.0.1', '10.8.0.2', '10.8.0.3'])
  release('10.8.0.2')
  release('10.8.0.1')
  t.equal(assign('b'), '10.8.0.2')
  release('10.8.0.2')
  t.equal(assign('d'), '10.8.0.1')
  t.equal(assign('a'), '10.8.0.2', 'its own is taken by now')
})

t.test('the same identity twice at a time has two addresses', async t => {
  const { assign, release } = pool('10.8.0.1-10.8.0.2')
  t.strictSame([assign('a'), assign('a'), assign('a')], ['10.8.0.1', '10.8.0.2', undefined])
  release('10.8.0.1')
  t.equal(assign('a'), '10.8.0.1')
})

t.test('who asks for the address it holds shares it until both have let go', async t => {
  const { assign, release } = pool('10.8.0.1')
  t.equal(assign('a'), '10.8.0.1')
  t.equal(assign('a', { wanted: '10.8.0.1' }), '10.8.0.1')
  t.equal(assign('b', { wanted: '10.8.0.1' }), undefined, 'it is not b’s')
  release('10.8.0.1')
  t.equal(assign('b'), undefined, 'the other holder is still there')
  release('10.8.0.1')
  t.equal(assign('b'), '10.8.0.1')
})

t.test('who has restarted gets what it held', async t => {
  const { assign } = pool('10.8.0.1')
  t.equal(assign('a'), '10.8.0.1')
  t.equal(assign('b', { restarted: true }), undefined)
  t.equal(assign('a', { restarted: true }), '10.8.0.1')
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
    const address = assign(`visitor ${i}`)!
    seen.add(address)
    release(address)
  }
  t.equal(seen.size, 4096)
})

t.test('a pool is of addresses alone', async t => {
  t.throws(() => parsePool('addressPool', '10.0.0.0/8[tcp/80]'), /without protocol or port/)
  t.throws(() => parsePool('addressPool', 'everything'), /"addressPool"/)
})
