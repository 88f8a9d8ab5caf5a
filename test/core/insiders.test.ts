/** What a client that has authenticated may claim, hold and make us compute. */
import t from 'tap'
import { parseAddress } from '../../lib/base/address.ts'
import { Admission } from '../../lib/core/admission.ts'
import { mayBeInner, onlyInner } from '../../lib/policy/inner-addresses.ts'
import {
  covers,
  EVERYTHING,
  formatSelector,
  parseSelectors,
} from '../../lib/policy/traffic-selectors.ts'
import { ExchangeType, NotifyType, ProtocolId } from '../../lib/wire/registry.ts'
import { Caller, pathFrom, sourceAddress } from '../harness/attacker.ts'
import { Insider } from '../harness/insider.ts'
import { seededEnvironment } from '../harness/random.ts'

const OUTER = sourceAddress(1)

/** Never a host, of either family; on its edges what is one. */
const FOREIGN = [
  '0.0.0.0 0.1.2.3 127.0.0.1 127.255.255.255 169.254.1.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255',
  ':: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.9.9.9 fe80::1 febf::1 ff02::1 ff0e::1',
]
  .join(' ')
  .split(' ')
const ORDINARY =
  '1.0.0.0 10.9.9.9 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0 192.0.2.1 223.255.255.255 ::1:0:0:0 64:ff9b::1 2001:db8::1 fd00::1 fec0::1'.split(
    ' ',
  )

/** An address of ours in the family of another. */
const oursBeside = (address: string): string =>
  address.includes(':') ? '2001:db8::80' : '192.0.2.1'

t.test('which addresses a host may have inside an SA', async t => {
  const may = (address: string, outer = '192.0.2.7'): boolean =>
    mayBeInner(parseAddress(address)!, parseAddress(outer)!)
  for (const address of FOREIGN) t.notOk(may(address), address)
  for (const address of ORDINARY) t.ok(may(address), address)
  t.ok(may('127.0.0.9', '127.0.0.1'), 'on one machine the loopback is as good inside as outside')
  t.ok(may('::1', '127.0.0.1'))
  t.notOk(may('0.0.0.0', '127.0.0.1'))
  t.ok(may('fe80::1', 'fe80::1'), 'a link-local peer is itself')
  t.notOk(may('fe80::2', 'fe80::1'), 'and not its neighbour')
})

t.test('ranges lose what no host has, and keep all else', async t => {
  const outer = parseAddress('192.0.2.7')!
  const texts = onlyInner(EVERYTHING, outer).map(formatSelector)
  t.strictSame(texts, [
    '1.0.0.0-126.255.255.255',
    '128.0.0.0-169.253.255.255',
    '169.255.0.0-223.255.255.255',
    '::1:0:0-::fffe:ffff:ffff',
    '::1:0:0:0-fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
    'fec0::/10',
  ])
  const left = onlyInner(EVERYTHING, outer)
  for (const address of FOREIGN) t.notOk(covers(left, parseAddress(address)!, 6, 80), address)
  for (const address of ORDINARY) t.ok(covers(left, parseAddress(address)!, 6, 80), address)
  const one = parseSelectors('ts', '126.0.0.0-128.0.0.0[tcp/80-90]')
  t.strictSame(onlyInner(one, outer).map(formatSelector), [
    '126.0.0.0/8[tcp/80-90]',
    '128.0.0.0[tcp/80-90]',
  ])
  t.strictSame(onlyInner(one, parseAddress('127.0.0.1')!), one)
})

t.test('tunnel mode: what is no address of a host is not given to a client', async t => {
  const insider = new Insider()
  for (const address of FOREIGN) {
    const made = insider.child(`${address}[tcp]`, `${oursBeside(address)}[tcp]`)
    t.equal(made.refusal, NotifyType.TsUnacceptable, address)
  }
  for (const address of FOREIGN) {
    const theirs = address.includes(':') ? '2001:db8::9' : '10.9.9.9'
    const made = insider.child(`${theirs}[tcp]`, `${address}[tcp]`)
    t.equal(made.refusal, NotifyType.TsUnacceptable, `${address} as ours`)
  }
  t.equal(insider.session.info().children.length, 1, 'nothing was made')
  t.not(insider.child('10.9.9.9[tcp]', '192.0.2.1[tcp]').spi, undefined)
  t.not(insider.child('2001:db8::9[tcp]', '2001:db8::80[tcp]').spi, undefined)
  const families = insider.child('10.9.9.9[tcp]', '2001:db8::80[tcp]')
  t.equal(families.refusal, NotifyType.TsUnacceptable, 'two families')
})

t.test('tunnel mode: configured selectors do not let such addresses in either', async t => {
  const insider = new Insider({ remoteTs: ['127.0.0.0/8', '10.0.0.0/8'], localTs: '192.0.2.1' })
  t.equal(insider.child('127.0.0.1', '192.0.2.1').refusal, NotifyType.TsUnacceptable)
  t.strictSame(insider.child('0.0.0.0/0', '0.0.0.0/0').tsi.map(formatSelector), ['10.0.0.0/8'])
})

t.test('of several selectors the good ones stay, and stock 0.0.0.0/0 is narrowed', async t => {
  const insider = new Insider()
  const some = insider.child(['127.0.0.1[tcp]', '10.9.9.9[tcp]', 'ff02::1'], '192.0.2.1[tcp]')
  t.strictSame(some.tsi.map(formatSelector), ['10.9.9.9[tcp]'])
  const all = insider.child('0.0.0.0/0', '0.0.0.0/0')
  t.strictSame(
    all.tsi.map(formatSelector),
    ['1.0.0.0-126.255.255.255', '128.0.0.0-169.253.255.255', '169.255.0.0-223.255.255.255'],
    'the addresses of a client',
  )
  t.strictSame(all.tsr.map(formatSelector), ['0.0.0.0/0'], 'some clients read but one of ours')
  t.not(insider.open(all.spi!, 999, { source: '10.1.1.1', destination: '192.0.2.1' }), undefined)
  for (const [source, destination] of [
    ['127.0.0.1', '192.0.2.1'],
    ['224.0.0.1', '192.0.2.1'],
    ['10.1.1.1', '127.0.0.1'],
    ['10.1.1.1', '255.255.255.255'],
  ] as const) {
    t.equal(
      insider.open(all.spi!, 998, { source, destination }),
      undefined,
      `${source} ${destination}`,
    )
  }
  t.equal(insider.target.drops('ip.address'), 4)
})

t.test('transport mode is for the two hosts themselves', async t => {
  const insider = new Insider()
  const ask = (tsi: string | string[], tsr: string) =>
    insider.child(tsi, tsr, { isTransport: true })
  for (const [tsi, tsr] of [
    ['::1[tcp]', '::2[tcp]'],
    ['::ffff:127.0.0.1[tcp]', '::2[tcp]'],
    ['ff02::1[tcp]', '::2[tcp]'],
    ['2001:db8::1[tcp]', '2001:db8::2[tcp]'],
    ['10.0.0.1[tcp]', '127.0.0.1[tcp]'],
    ['10.0.0.1[tcp]', '::1[tcp]'],
    ['10.9.0.0/16[tcp]', '192.0.2.1[tcp]'],
  ] as const) {
    t.equal(ask(tsi, tsr).refusal, NotifyType.TsUnacceptable, `${tsi} === ${tsr}`)
  }
  const own = ask('192.168.1.5[tcp]', '192.0.2.1[tcp]')
  t.strictSame(own.tsi.map(formatSelector), ['192.168.1.5[tcp]'], 'behind a NAT by its own view')
  t.strictSame(insider.open(own.spi!, 999)?.remoteAddress, OUTER, 'here by ours')
  const wide = ask('0.0.0.0/0[tcp]', '0.0.0.0/0[tcp]')
  t.strictSame(wide.tsi.map(formatSelector), ['10.0.0.1[tcp]'])
  t.strictSame(wide.tsr.map(formatSelector), ['192.0.2.1[tcp]'])
  const several = ask(['127.0.0.1[tcp]', '10.0.0.1[tcp]', '10.0.0.2[tcp]'], '192.0.2.1[tcp]')
  t.strictSame(several.tsi.map(formatSelector), ['10.0.0.1[tcp]'])
})

t.test('on one machine the loopback is where the peer is', async t => {
  const insider = new Insider({}, {}, parseAddress('127.0.0.1'))
  t.not(insider.child('127.0.0.1[tcp]', '127.0.0.1[tcp]', { isTransport: true }).spi, undefined)
  t.not(insider.child('127.0.0.3[tcp]', '127.0.0.1[tcp]').spi, undefined)
  t.equal(insider.child('0.0.0.0[tcp]', '127.0.0.1[tcp]').refusal, NotifyType.TsUnacceptable)
})

/** 64 that overlap without one being part of another. */
const OVERLAPPING = Array.from({ length: 64 }, (_, i) => `10.0.0.${i}-10.0.1.${i}[tcp/1-60000]`)

t.test('64 Child SAs with 16 selectors a side, and no more', async t => {
  const insider = new Insider()
  const made = Array.from({ length: 150 }, (_, i) =>
    insider.child(
      OVERLAPPING,
      Array.from({ length: 64 }, (_, k) => `172.16.${i}.${k}`),
    ),
  )
  const first = made[0]!
  t.equal(first.tsi.length, 16)
  t.equal(first.tsr.length, 16)
  t.strictSame(formatSelector(first.tsi[0]!), '10.0.0.0-10.0.1.0[tcp/1-60000]', 'the first stays')
  t.equal(made.filter(({ spi }) => spi !== undefined).length, 63, 'beside that of IKE_AUTH')
  t.ok(made.slice(63).every(({ refusal }) => refusal === NotifyType.NoAdditionalSas))
  t.equal(insider.session.info().children.length, 64)

  // What one message costs then, the best of a few.
  const least = (ask: () => unknown): number =>
    Math.min(...Array.from({ length: 5 }, () => (ask(), insider.lastCpu)))
  const spis = Array.from({ length: 15_000 }, (_, i) => Uint8Array.of(9, 9, i >>> 8, i))
  const costs = {
    'a Child SA': least(() => insider.child(OVERLAPPING, OVERLAPPING)),
    'a rekey': least(() => insider.child(OVERLAPPING, OVERLAPPING, { rekeyed: 0x01000000 })),
    'a Delete of 15,000': least(() =>
      insider.ask([{ kind: 'delete', protocol: ProtocolId.Esp, spis }], ExchangeType.Informational),
    ),
  }
  // 5 ms on an idle machine.
  for (const [what, cost] of Object.entries(costs)) t.ok(cost < 20, `${what}: ${cost} ms`)
})

t.test('whoever is configured with more selectors may be asked for as many', async t => {
  const remoteTs = Array.from({ length: 40 }, (_, i) => `172.16.${i}.0/24`)
  const insider = new Insider({ remoteTs: [...remoteTs, '10.0.0.0/8'] })
  t.equal(insider.child(remoteTs, '192.0.2.1').tsi.length, 40)
  t.equal(insider.child('0.0.0.0/0', '192.0.2.1').tsi.length, 41)
})

t.test('a storm of rekeys is told to come later; a rekey now and then is made', async t => {
  const insider = new Insider()
  insider.child('10.9.9.9', '192.0.2.1')
  let current = insider.lastSpi
  const rekey = (): number | undefined => {
    const { refusal } = insider.child('10.9.9.9', '192.0.2.1', { rekeyed: current })
    if (refusal === undefined) current = insider.lastSpi
    return refusal
  }
  const storm = Array.from({ length: 600 }, rekey)
  const made = storm.filter(refusal => refusal === undefined).length
  t.ok(made <= 128, `${made} made at once`)
  t.ok(storm.slice(200).every(refusal => refusal === NotifyType.TemporaryFailure))
  // The peer owes a Delete for each that it has replaced; we do them after a minute.
  insider.target.wait(10_000)
  t.ok(insider.target.core['sad'].size <= 140, `${insider.target.core['sad'].size} inbound SPIs`)
})

t.test('both SAs rekeyed each second from one end, for ten minutes', async t => {
  const insider = new Insider()
  insider.child('10.9.9.9', '192.0.2.1')
  for (let second = 0; second < 600; second++) {
    const old = insider.lastSpi
    const { refusal } = insider.child('10.9.9.9', '192.0.2.1', { rekeyed: old })
    if (refusal !== undefined) t.fail(`second ${second}: ${refusal}`)
    const spi = new Uint8Array(new Uint32Array([old]).buffer).reverse()
    const gone = { kind: 'delete', protocol: ProtocolId.Esp, spis: [spi] } as const
    insider.ask([gone], ExchangeType.Informational)
    insider.target.wait(1000)
  }
  t.equal(insider.session.info().childRekeys, 600)
  t.equal(insider.session.info().children.length, 2)
})

/** Rekeys a Child SA `count` times in a row; how often it was made. */
const storm = (insider: Insider, count: number, group?: 16 | 31): number => {
  let made = 0
  let current = insider.child('10.9.9.9', '192.0.2.1').spi === undefined ? 0 : insider.lastSpi
  for (let i = 0; i < count; i++) {
    const wanted = { rekeyed: current, ...(group === undefined ? {} : { group }) }
    const { refusal } = insider.child('10.9.9.9', '192.0.2.1', wanted)
    if (refusal !== undefined) continue
    current = insider.lastSpi
    made++
  }
  return made
}

t.test('key exchanges within an SA are paid for, and dear ones are fewer', async t => {
  const [plain, cheap, dear] = [undefined, 31, 16].map(group =>
    storm(new Insider(), 120, group as 16 | 31 | undefined),
  )
  t.equal(plain, 120)
  t.ok(cheap! > 60, `${cheap} of X25519`)
  t.ok(dear! >= 5 && dear! < 60, `${dear} of MODP-4096`)
  const insider = new Insider()
  storm(insider, 120, 16)
  const told = insider.child('10.9.9.9', '192.0.2.1', { group: 16 }).refusal
  t.equal(told, NotifyType.TemporaryFailure)
  insider.target.wait(20_000)
  t.not(insider.child('10.9.9.8', '192.0.2.1', { group: 16 }).spi, undefined, 'later it may')
})

t.test('a public value of a wrong length costs nothing', async t => {
  const insider = new Insider()
  const keyExchange = new Uint8Array(511)
  for (let i = 0; i < 100; i++) {
    const { refusal } = insider.child('10.9.9.9', '192.0.2.1', { group: 16, keyExchange })
    if (refusal !== NotifyType.InvalidSyntax) t.fail(`${refusal}`)
  }
  t.equal(insider.target.core['strangers']!.admission['principals'].debt('any', 0), 0)
  t.equal(insider.target.core['strangers']!.admission['principals']['known'].size, 0)
})

t.test('a client that asks for many key exchanges keeps nobody waiting', async t => {
  const insider = new Insider()
  const { target } = insider
  const other = new Caller(sourceAddress(2), { localId: 'other.test' }, 7, target.now)
  other.talk(target)
  const [session] = other.sessions
  let [asked, connected] = [0, 0]
  for (let second = 0; second < 20; second++) {
    for (let i = 0; i < 40; i++) {
      insider.child('10.9.9.9', '192.0.2.1', { group: 16 })
      asked++
    }
    target.wait(500)
    other.wait(500)
    session!.rekeyIke(other.now)
    other.core.touchSession(session!, other.now)
    other.talk(target, other.drain())
    const newcomer = new Caller(sourceAddress(10 + second), {}, 20 + second, target.now)
    newcomer.talk(target)
    if (newcomer.events.some(({ kind }) => kind === 'connected')) connected++
    target.wait(500)
    other.wait(500)
  }
  t.equal(asked, 800)
  t.equal(connected, 20)
  t.equal(session!.info().ikeRekeys, 20)
})

t.test('very many clients that ask for key exchanges leave half of it to strangers', async t => {
  const limits = { cookieThreshold: 30, halfOpenPerSource: 64, maxHalfOpen: 500 }
  const admission = new Admission(limits, seededEnvironment(1))
  const path = pathFrom(sourceAddress(1))
  const standing = { isProven: true, rank: 1 }
  let [inside, light, taken] = [0, 0, 0]
  for (let now = 0; now < 20_000; now += 10) {
    for (let i = 0; i < 20; i++) if (admission.payInside(`greedy ${i}`, 3.5, now)) inside += 3.5
    if (now % 1000 === 0 && admission.payInside('light', 1, now)) light++
    if (admission.mayTakeUp(path, standing, now) && admission.pay(1, standing, now)) taken++
  }
  t.ok(inside <= 250 + 20 * 125, `${inside} ms in 20 s`)
  // Chance has a say in the first second alone, in which nobody has had more than others.
  t.ok(light >= 19, `who asks for little gets ${light} of 20`)
  t.equal(taken, 2000)
})
