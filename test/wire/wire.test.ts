import fc from 'fast-check'
import t from 'tap'
import { formatAddress, parseAddress } from '../../lib/base/address.ts'
import { fromHex, toHex, Writer } from '../../lib/base/bytes.ts'
import { addWords, fold } from '../../lib/wire/checksum.ts'
import { classify } from '../../lib/wire/encapsulation.ts'
import { findEncrypted, layoutEncrypted } from '../../lib/wire/encrypted.ts'
import { readIkeHeader } from '../../lib/wire/ike-header.ts'
import { readIpHeader } from '../../lib/wire/ip.ts'
import { hasExcess, lacksRequired, writeMessage } from '../../lib/wire/message.ts'
import { notify } from '../../lib/wire/notify.ts'
import { isChainError, readChain, writeChain } from '../../lib/wire/payload-chain.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { ExchangeType, notifyName, NotifyType } from '../../lib/wire/registry.ts'
import { readSa, writeSa } from '../../lib/wire/sa.ts'
import { TcpSegment } from '../../lib/wire/tcp.ts'
import { parseProposals } from '../../lib/policy/proposal.ts'
import { parseSelectors } from '../../lib/policy/traffic-selectors.ts'

const octets = (length: number, first = 1): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => first + i)

/** One of every payload there is. */
const EVERY: readonly Payload[] = [
  {
    kind: 'sa',
    proposals: parseProposals(
      'ike',
      ['aes256gcm16-prfsha256-x25519', 'aes128-sha256-modp2048'],
      'ike',
    ),
  },
  { kind: 'ke', group: 31, data: octets(32) },
  { kind: 'nonce', data: octets(32) },
  { kind: 'idi', idType: 2, data: octets(11) },
  { kind: 'idr', idType: 1, data: octets(4) },
  { kind: 'cert', encoding: 4, data: octets(60) },
  { kind: 'certreq', encoding: 4, data: octets(20) },
  { kind: 'auth', method: 2, data: octets(32) },
  notify(NotifyType.InitialContact),
  { kind: 'notify', protocol: 3, spi: octets(4), type: NotifyType.RekeySa, data: octets(0) },
  { kind: 'delete', protocol: 3, spis: [octets(4), octets(4, 9)] },
  { kind: 'delete', protocol: 1, spis: [] },
  { kind: 'vendor', data: octets(16) },
  { kind: 'tsi', selectors: parseSelectors('ts', ['10.0.0.0/8[tcp/80]', '::/0']) },
  { kind: 'tsr', selectors: parseSelectors('ts', '192.0.2.1') },
  {
    kind: 'cp',
    type: 1,
    attributes: [
      { type: 1, value: octets(0) },
      { type: 3, value: octets(4) },
    ],
  },
  { kind: 'eap', data: octets(9) },
]

t.test('every payload reads back as it was written', t => {
  const { first, bytes } = writeChain(EVERY)
  t.strictSame(readChain(bytes, 0, bytes.length, first), EVERY)
  t.end()
})

t.test('every truncation of a message is an error value, never an exception', t => {
  const { first, bytes } = writeChain(EVERY)
  for (let length = 0; length < bytes.length; length++) {
    const result = readChain(bytes.subarray(0, length), 0, length, first)
    if (!isChainError(result)) t.fail(`${length} octets were read as a whole chain`)
  }
  t.end()
})

t.test('random mutations and random octets never make a reader throw', t => {
  const { first, bytes } = writeChain(EVERY)
  const segment = new TcpSegment()
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { maxLength: 8 }),
      edits => {
        const copy = bytes.slice()
        for (const [at, value] of edits) copy[at] = value
        const result = readChain(copy, 0, copy.length, first)
        return isChainError(result) || Array.isArray(result)
      },
    ),
    { numRuns: 3000 },
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), junk => {
      classify(junk)
      const header = readIkeHeader(junk)
      if (header !== undefined) findEncrypted(junk, header)
      readSa(junk)
      readIpHeader(junk, 0, junk.length)
      segment.read(junk, 0, junk.length)
      for (let type = 33; type <= 54; type++) readChain(junk, 0, junk.length, type)
      return true
    }),
    { numRuns: 3000 },
  )
  t.end()
})

t.test('a length field that is wrong by one is refused', t => {
  const { first, bytes } = writeChain([{ kind: 'nonce', data: octets(32) }])
  for (const change of [-1, 1]) {
    const copy = bytes.slice()
    copy[3]! += change
    t.ok(isChainError(readChain(copy, 0, copy.length, first)))
  }
  for (const length of [0, 1, 2, 3]) {
    const copy = bytes.slice()
    copy[3] = length
    t.ok(isChainError(readChain(copy, 0, copy.length, first)), `payload length ${length}`)
  }
  t.end()
})

t.test('an unknown payload is passed over, or refused when critical', t => {
  const payload = (critical: boolean): Payload => ({
    kind: 'unknown',
    type: 200,
    critical,
    data: octets(5),
  })
  const chain = (critical: boolean): ReturnType<typeof readChain> => {
    const { first, bytes } = writeChain([payload(critical), { kind: 'nonce', data: octets(16) }])
    return readChain(bytes, 0, bytes.length, first)
  }
  t.strictSame(chain(false), [{ kind: 'nonce', data: octets(16) }])
  t.strictSame(chain(true), { error: 'UNSUPPORTED_CRITICAL_PAYLOAD', payloadType: 200 })
  t.end()
})

t.test('more payloads than any honest message has are refused', t => {
  const many = Array.from({ length: 65 }, () => notify(NotifyType.InitialContact))
  const { first, bytes } = writeChain(many)
  t.ok(isChainError(readChain(bytes, 0, bytes.length, first)))
  t.ok(hasExcess(many))
  t.ok(
    hasExcess([
      { kind: 'nonce', data: octets(16) },
      { kind: 'nonce', data: octets(16) },
    ]),
  )
  t.ok(lacksRequired(ExchangeType.IkeSaInit, [{ kind: 'nonce', data: octets(16) }]))
  t.end()
})

t.test('a proposal whose counts or lengths lie is refused', t => {
  const writer = new Writer()
  writeSa(writer, parseProposals('ike', 'aes256gcm16-prfsha256-x25519', 'ike'))
  const good = writer.finish()
  t.ok(readSa(good))
  for (const [at, value] of [
    [7, 9],
    [7, 1],
    [0, 2],
    [0, 7],
    [3, 4],
    [8, 0],
  ] as const) {
    const bad = good.slice()
    bad[at] = value
    t.equal(readSa(bad), undefined, `octet ${at} = ${value}`)
  }
  t.end()
})

t.test('the header must tell the true length', t => {
  const message = writeMessage(
    {
      spiI: octets(8),
      spiR: octets(8),
      exchange: 34,
      originalInitiator: true,
      response: false,
      messageId: 0,
    },
    [{ kind: 'nonce', data: octets(16) }],
  )
  t.equal(readIkeHeader(message)?.length, message.length)
  t.equal(readIkeHeader(message.subarray(0, message.length - 1)), undefined)
  t.equal(message[17], 0x20, 'version 2.0')
  t.equal(message[19], 0x08, 'initiator flag alone')
  t.end()
})

t.test('SK and SKF say where their parts lie', t => {
  const facts = {
    spiI: octets(8),
    spiR: octets(8),
    exchange: 35,
    originalInitiator: false,
    response: true,
    messageId: 1,
  }
  const cipher = { ivLength: 16, icvLength: 16, blockSize: 16 }
  const whole = layoutEncrypted(facts, 36, octets(21), cipher)
  t.equal((whole.to - whole.from) % 16, 0)
  const layout = findEncrypted(whole.message, readIkeHeader(whole.message)!)
  t.match(layout, { firstInner: 36, aadEnd: whole.ivAt, isFragment: false })
  const part = layoutEncrypted(facts, 0, octets(21), cipher, { number: 2, total: 3 })
  t.match(findEncrypted(part.message, readIkeHeader(part.message)!), {
    fragment: 2,
    totalFragments: 3,
    isFragment: true,
  })
  part.message[33] = 9
  t.match(
    findEncrypted(part.message, readIkeHeader(part.message)!),
    { error: 'INVALID_SYNTAX' },
    'fragment 9 of 3',
  )
  t.end()
})

t.test('datagrams are told apart as RFC 3948 says', t => {
  t.equal(classify(Uint8Array.of(0xff)), 'keepalive')
  t.equal(classify(Uint8Array.of(0)), 'invalid')
  t.equal(classify(new Uint8Array(40)), 'ike')
  t.equal(classify(octets(40)), 'esp')
  t.equal(classify(octets(9)), 'invalid')
  t.end()
})

t.test('addresses are read and written as RFC 5952 says', t => {
  for (const text of [
    '0.0.0.0',
    '255.255.255.255',
    '::',
    '::1',
    '2001:db8::1',
    '1:2:3:4:5:6:7:8',
    '2001:db8:0:1:1:1:1:1',
  ]) {
    t.equal(formatAddress(parseAddress(text)!), text)
  }
  t.equal(toHex(parseAddress('::ffff:1.2.3.4')!), '00000000000000000000ffff01020304')
  for (const text of [
    '1.2.3',
    '1.2.3.256',
    '01.2.3.4',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7:8:9',
    'g::',
    '',
  ]) {
    t.equal(parseAddress(text), undefined, text)
  }
  t.equal(notifyName(24), 'AUTHENTICATION_FAILED')
  t.strictSame(fromHex('0A ff'), Uint8Array.of(10, 255))
  t.end()
})

t.test('RFC 1071: the checksum is the same wherever the octets lie, however many they are', t => {
  const reference = (sum: number, bytes: Uint8Array): number => {
    let total = sum
    for (const [i, octet] of bytes.entries()) total += i % 2 === 0 ? octet * 256 : octet
    while (total > 0xffff) total = (total % 0x10000) + Math.floor(total / 0x10000)
    return ~total & 0xffff
  }
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 700 }),
      fc.integer({ min: 0, max: 7 }),
      fc.integer({ min: 0, max: 0x3_0000 }),
      (bytes, at, sum) => {
        const memory = new Uint8Array(bytes.length + 16).fill(0xee)
        memory.set(bytes, at)
        return fold(addWords(sum, memory, at, at + bytes.length)) === reference(sum, bytes)
      },
    ),
  )
  const most = new Uint8Array(65_535).fill(0xff)
  t.equal(fold(addWords(0x1_ffff, most, 0, most.length)), reference(0x1_ffff, most))
  t.end()
})
