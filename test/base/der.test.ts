/** DER has one encoding for each value: the reader takes that one. */
import t from 'tap'
import { fromHex, toHex } from '../../lib/base/bytes.ts'
import { contextTag, DerReader, Tag } from '../../lib/base/der.ts'
import { bitString, der, integer, octetString, oid, sequence } from '../../lib/base/der-writer.ts'

/** What a read gives, or the problem. */
const read = <Value>(hex: string, how: (reader: DerReader) => Value): Value | string => {
  const reader = new DerReader(fromHex(hex))
  const value = how(reader)
  reader.end()
  return reader.problem ?? value
}
const isRefused = (hex: string, how: (reader: DerReader) => unknown): boolean => {
  const reader = new DerReader(fromHex(hex))
  how(reader)
  reader.end()
  return reader.failed
}

t.test('lengths are definite, minimal and within what holds them', t => {
  const element = (reader: DerReader) => reader.element().content.length
  t.equal(read('0400', element), 0)
  t.equal(read(`047f${'00'.repeat(127)}`, element), 127)
  t.equal(read(`048180${'00'.repeat(128)}`, element), 128)
  t.equal(read(`04820100${'00'.repeat(256)}`, element), 256)
  for (const [what, hex] of [
    ['nothing', ''],
    ['no length', '04'],
    ['indefinite', '30800000'],
    ['long form for a short length', `04817f${'00'.repeat(127)}`],
    ['a leading zero', `04820080${'00'.repeat(128)}`],
    ['longer than what is there', '0401'],
    ['2^32', '048500010000000000'],
    ['nearly 2^32', '0484ffffffff00'],
    ['missing octets of the length', '048201'],
    ['a tag number above 30', '1f8100'],
    ['the tag zero', '0000'],
    ['something behind', '040000'],
  ] as const) {
    t.ok(isRefused(hex, element), what)
  }
  t.end()
})

t.test('BOOLEAN is 00 or FF, and a default is left out', t => {
  t.equal(
    read('0101ff', r => r.boolean()),
    true,
  )
  t.equal(
    read('010100', r => r.boolean()),
    false,
  )
  t.equal(
    read('', r => r.defaultFalse()),
    false,
  )
  t.ok(isRefused('010101', r => r.boolean()))
  t.ok(isRefused('0100', r => r.boolean()))
  t.ok(isRefused('0102ffff', r => r.boolean()))
  t.ok(isRefused('010100', r => r.defaultFalse()))
  t.end()
})

t.test('INTEGER is in its shortest form', t => {
  const value = (reader: DerReader) => toHex(reader.integer())
  t.equal(read('020100', value), '00')
  t.equal(read('02020080', value), '0080')
  t.equal(read('0201ff', value), 'ff')
  for (const hex of ['0200', '0202007f', '0202ff80', '02020000']) t.ok(isRefused(hex, value), hex)
  t.equal(
    read('02047fffffff', r => r.smallInteger()),
    0x7fffffff,
  )
  for (const hex of ['0201ff', '0205008fffffff', '02050100000000'])
    t.ok(
      isRefused(hex, r => r.smallInteger()),
      hex,
    )
  t.equal(
    read('020200ff', r => toHex(r.positiveInteger())),
    'ff',
  )
  for (const hex of ['020100', '0201ff'])
    t.ok(
      isRefused(hex, r => r.positiveInteger()),
      hex,
    )
  t.end()
})

t.test('BIT STRING: unused bits are fewer than eight and zero', t => {
  t.match(
    read('03020780', r => r.bitString()),
    { unused: 7 },
  )
  t.match(
    read('030100', r => r.bitString()),
    { unused: 0 },
  )
  for (const hex of ['0300', '030101', '03020880', '03020781'])
    t.ok(
      isRefused(hex, r => r.bitString()),
      hex,
    )
  t.ok(
    isRefused('03020780', r => r.octetBitString()),
    'not whole octets',
  )
  t.same(
    read('030205a0', r => [...r.namedBits()]),
    [0, 2],
  )
  t.same(
    read('030100', r => [...r.namedBits()]),
    [],
  )
  for (const hex of ['030204a0', '03030080 00', '030100 00', '030a0000000000000000000001'])
    t.ok(
      isRefused(hex, r => r.namedBits()),
      hex,
    )
  t.end()
})

t.test('OBJECT IDENTIFIER: shortest components, none cut off', t => {
  const value = (reader: DerReader) => reader.oid()
  t.equal(read('0603551d13', value), '2.5.29.19')
  t.equal(read('06062a864886f70d', value), '1.2.840.113549')
  t.equal(read('0602 8837', value), '2.999')
  t.equal(read('0601 27', value), '0.39')
  for (const hex of [
    '0600',
    '060180',
    '06035580 01'.replace(' ', ''),
    '06022a86',
    `0651${'01'.repeat(81)}`,
  ])
    t.ok(isRefused(hex, value), hex)
  t.end()
})

t.test('times have seconds, no zone and no fraction, and exist', t => {
  const time = (text: string, tag: number) =>
    read(toHex(der(tag, new TextEncoder().encode(text))), r => r.time())
  t.equal(time('260601123456Z', Tag.UtcTime), Date.UTC(2026, 5, 1, 12, 34, 56))
  t.equal(time('500101000000Z', Tag.UtcTime), Date.UTC(1950, 0, 1))
  t.equal(time('491231235959Z', Tag.UtcTime), Date.UTC(2049, 11, 31, 23, 59, 59))
  t.equal(time('20500101000000Z', Tag.GeneralizedTime), Date.UTC(2050, 0, 1))
  t.equal(time('99991231235959Z', Tag.GeneralizedTime), Date.UTC(9999, 11, 31, 23, 59, 59))
  t.equal(time('20240229000000Z', Tag.GeneralizedTime), Date.UTC(2024, 1, 29))
  for (const [text, tag] of [
    ['2606011234Z', Tag.UtcTime],
    ['260601123456+0000', Tag.UtcTime],
    ['260601123456', Tag.UtcTime],
    ['260230000000Z', Tag.UtcTime],
    ['261301000000Z', Tag.UtcTime],
    ['260601240000Z', Tag.UtcTime],
    ['260601126000Z', Tag.UtcTime],
    ['260601123460Z', Tag.UtcTime],
    ['2606 1123456Z', Tag.UtcTime],
    ['20260601123456.5Z', Tag.GeneralizedTime],
    ['260601123456Z', Tag.GeneralizedTime],
    ['20260601123456Z', Tag.UtcTime],
    ['20260601123456Z', Tag.VisibleString],
  ] as const) {
    t.type(time(text, tag), 'string', text)
  }
  t.end()
})

t.test('depth and number of elements are bounded', t => {
  let nested = octetString(new Uint8Array(0))
  for (let i = 0; i < 40; i++) nested = sequence(nested)
  t.ok(
    isRefused(toHex(nested), r => r.any()),
    'deep',
  )
  const wide = sequence(...Array.from({ length: 30_000 }, () => der(Tag.Null)))
  const reader = new DerReader(wide)
  reader.any()
  t.ok(reader.failed, 'many')
  t.end()
})

t.test('after a fault everything reads as empty, and the first fault stays', t => {
  const reader = new DerReader(fromHex('3003020100'))
  const inner = reader.enter()
  inner.boolean()
  const { problem } = reader
  t.ok(problem)
  t.notOk(inner.more)
  t.equal(inner.nextTag, -1)
  t.equal(inner.oid(), '')
  t.equal(inner.octetString().length, 0)
  t.equal(reader.problem, problem)
  t.end()
})

t.test('what the writer writes the reader reads', t => {
  for (const length of [0, 1, 127, 128, 255, 256, 65_535, 65_536]) {
    const content = new Uint8Array(length).fill(7)
    t.equal(
      read(toHex(octetString(content)), r => r.octetString().length),
      length,
    )
    t.equal(
      read(toHex(bitString(content)), r => r.octetBitString().length),
      length,
    )
  }
  for (const hex of ['00', '7f', '80', 'ff', '0100', '0000ff']) {
    const value = read(toHex(integer(fromHex(hex))), r => toHex(r.integer()))
    t.equal(parseInt(value, 16), parseInt(hex, 16))
  }
  for (const dotted of ['0.0', '1.39', '2.5.29.19', '2.999.1', '1.2.840.113549.1.1.10'])
    t.equal(
      read(toHex(oid(dotted)), r => r.oid()),
      dotted,
    )
  t.equal(contextTag(3, true), 0xa3)
  t.end()
})
