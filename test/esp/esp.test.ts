import t from 'tap'
import { toHex } from '../../lib/base/bytes.ts'
import { Packet } from '../../lib/base/packet.ts'
import { Secret } from '../../lib/base/secret.ts'
import {
  createAead,
  keyLengths,
  supportsCipher,
  type CipherChoice,
} from '../../lib/crypto/suite.ts'
import { EspSaPair } from '../../lib/esp/esp-sa.ts'
import { Drop, InboundSa } from '../../lib/esp/inbound-sa.ts'
import { OutboundSa } from '../../lib/esp/outbound-sa.ts'
import { ReplayWindow } from '../../lib/esp/replay-window.ts'
import { Sad } from '../../lib/esp/sad.ts'
import { Encr, Integ } from '../../lib/wire/registry.ts'
import { Random, seededEnvironment } from '../harness/random.ts'

const CIPHERS: readonly CipherChoice[] = [
  { encr: Encr.AesGcm16, keyLength: 128, integ: Integ.None },
  { encr: Encr.AesGcm16, keyLength: 256, integ: Integ.None },
  { encr: Encr.Chacha20Poly1305, keyLength: 0, integ: Integ.None },
  { encr: Encr.AesCbc, keyLength: 256, integ: Integ.HmacSha2_256_128 },
  { encr: Encr.AesCbc, keyLength: 128, integ: Integ.HmacSha2_512_256 },
]

const keysFor = (
  cipher: CipherChoice,
  fill: number,
): { encryption: Uint8Array; integrity: Uint8Array } => {
  const { encryption, integrity } = keyLengths(cipher)
  return {
    encryption: new Uint8Array(encryption).fill(fill),
    integrity: new Uint8Array(integrity).fill(fill + 1),
  }
}

const pairOf = (
  cipher: CipherChoice,
  esn: boolean,
  backends: readonly ['node' | 'noble', 'node' | 'noble'],
) => {
  const { encryption, integrity } = keysFor(cipher, 7)
  const out = new OutboundSa(
    0x1234,
    createAead(backends[0], cipher, encryption, integrity),
    esn,
    seededEnvironment(1),
  )
  const into = new InboundSa(
    0x1234,
    createAead(backends[1], cipher, encryption, integrity),
    esn,
    1024,
  )
  return { out, into }
}

const sealed = (out: OutboundSa, payload: Uint8Array, nextHeader = 6): Uint8Array => {
  const packet = new Packet(2048)
  packet.bytes.set(payload, packet.append(payload.length))
  t.ok(out.seal(packet, nextHeader))
  return packet.view().slice()
}

for (const cipher of CIPHERS) {
  for (const esn of [false, true]) {
    t.test(
      `${cipher.encr}/${cipher.keyLength}/${cipher.integ}, ESN ${esn}: what one backend seals the other opens`,
      t => {
        for (const backends of [
          ['node', 'noble'],
          ['noble', 'node'],
        ] as const) {
          const { out, into } = pairOf(cipher, esn, backends)
          for (let length = 0; length < 70; length++) {
            const payload = Uint8Array.from({ length }, (_, i) => i + length)
            const bytes = sealed(out, payload)
            if (bytes.length % 4 !== 0) t.fail('not aligned to four octets')
            const drop = into.open(bytes, 0, bytes.length)
            if (drop !== Drop.None) t.fail(`length ${length}: drop ${drop}`)
            t.equal(toHex(into.plaintext.subarray(0, into.payloadLength)), toHex(payload))
            if (into.open(bytes, 0, bytes.length) !== Drop.Replay) t.fail('a replay was taken')
          }
          t.equal(into.nextHeader, 6)
        }
        t.end()
      },
    )
  }
  t.test(
    `${cipher.encr}/${cipher.keyLength}/${cipher.integ}: a change of any octet is noticed and changes nothing`,
    t => {
      const { out, into } = pairOf(cipher, true, ['node', 'node'])
      const bytes = sealed(
        out,
        Uint8Array.from({ length: 40 }, (_, i) => i),
      )
      for (let at = 4; at < bytes.length; at++) {
        const copy = bytes.slice()
        copy[at]! ^= 0x10
        if (into.open(copy, 0, copy.length) === Drop.None)
          t.fail(`octet ${at} was not authenticated`)
      }
      t.equal(into.packets, 0)
      t.equal(into.open(bytes, 0, bytes.length), Drop.None)
      for (let length = 0; length < bytes.length; length++) {
        const cut = bytes.slice(0, length)
        if (into.open(cut, 0, length) === Drop.None) t.fail(`${length} octets were taken`)
      }
      t.end()
    },
  )
}

t.test('the window agrees with a plain list of what was seen, over wraps of the low half', t => {
  for (const seed of [1, 2, 3, 4, 5, 6]) {
    const random = new Random(seed)
    const window = new ReplayWindow(64, true)
    const seen = new Set<number>()
    let top = 0
    let next = seed % 2 === 0 ? 1 : 0xffff_ff00
    if (next > 1) {
      window.note(0, next)
      seen.add(next)
      top = next
    }
    for (let i = 0; i < 3000; i++) {
      const number = Math.max(0, top + random.integer(-90, random.chance(0.02) ? 400 : 6))
      next = number
      const low = next % 2 ** 32
      const high = window.inferHigh(low)
      const expected = number > 0 && number > top - 64 && !seen.has(number)
      const actual = high * 2 ** 32 + low === number && window.accepts(high, low)
      if (number > top - 64 && high * 2 ** 32 + low !== number)
        t.fail(`high half of ${number} with top ${top}`)
      if (actual !== expected) t.fail(`${number} with top ${top}: ${actual}`)
      if (!actual) continue
      t.equal(window.note(high, low), number > top)
      seen.add(number)
      top = Math.max(top, number)
    }
  }
  t.end()
})

t.test('a sequence number is never used twice: sealing stops before it would', t => {
  for (const esn of [false, true]) {
    const { out } = pairOf(CIPHERS[0]!, esn, ['node', 'node'])
    const counters = out as unknown as { low: number; high: number }
    counters.low = 0xffff_fffe
    if (esn) counters.high = 0xffff_ffff
    const packet = new Packet(64)
    t.ok(out.seal(packet, 6))
    packet.reset()
    t.notOk(out.seal(packet, 6))
    t.equal(packet.length, 0, 'the packet is left as it was')
  }
  t.end()
})

t.test('padding that is not 1, 2, 3 … and dummies are dropped after authentication', t => {
  const { out, into } = pairOf(CIPHERS[0]!, false, ['node', 'node'])
  t.equal(into.open(sealed(out, new Uint8Array(8), 59), 0, 8 + 8 + 8 + 16 + 4), Drop.Dummy)
  t.end()
})

t.test('limits: soft, then hard; secrets are wiped by the taker; SPIs are fresh', t => {
  const cipher = CIPHERS[0]!
  const keys = () => {
    const { encryption, integrity } = keysFor(cipher, 3)
    return { encryption: new Secret(encryption), integrity: new Secret(integrity) }
  }
  const inboundKeys = keys()
  const environment = seededEnvironment(9)
  const pair = new EspSaPair({
    spiIn: 300,
    spiOut: 301,
    esn: false,
    replayWindow: 64,
    cipher,
    inboundKeys,
    outboundKeys: keys(),
    backend: 'auto',
    aead: {},
    environment,
    limits: { softOctets: 100, hardOctets: 200, softPackets: Infinity, hardPackets: Infinity },
  })
  t.equal(inboundKeys.encryption.length, 0)
  t.equal(pair.lifetimeState(), 'ok')
  sealed(pair.outbound, new Uint8Array(120))
  t.equal(pair.lifetimeState(), 'soft')
  sealed(pair.outbound, new Uint8Array(120))
  t.equal(pair.lifetimeState(), 'hard')
  const sad = new Sad<string>()
  const spis = new Set(Array.from({ length: 1000 }, () => sad.allocate(environment)))
  t.equal(spis.size, 1000)
  t.ok([...spis].every(spi => spi >= 256))
  t.equal(sad.lookup([...spis][0]!), undefined, 'reserved, not routed')
  t.end()
})

t.test('ciphers without integrity are not to be had', t => {
  t.notOk(supportsCipher({ encr: Encr.AesCbc, keyLength: 256, integ: Integ.None }))
  t.notOk(supportsCipher({ encr: Encr.Null, keyLength: 0, integ: Integ.HmacSha2_256_128 }))
  t.end()
})
