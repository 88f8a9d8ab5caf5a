/** A policy for a program's connections: which rule decides, and which files are refused. */
import t from 'tap'
import {
  decideInbound,
  decideOutbound,
  hasAddress,
  isAlwaysBypassed,
  isUnspecified,
  parsePolicyFile,
} from '../../lib/policy/spd.ts'

t.test('a connection to the unspecified address reaches the loopback', t => {
  const policy = parsePolicyFile({
    rules: [
      { action: 'protect', address: '127.0.0.0/8', port: 1 },
      { action: 'protect', address: '::1', port: 2 },
    ],
    default: 'bypass',
  })
  for (const host of ['0.0.0.0', '::ffff:0.0.0.0', '::FFFF:0:0', '::ffff:0:0%lo']) {
    t.ok(isUnspecified(host))
    t.match(decideOutbound(policy, host, 1), { action: 'protect' }, host)
    t.notOk(isAlwaysBypassed(policy, host, 1), host)
    t.match(decideOutbound(policy, host, 2), { action: 'bypass' }, host)
  }
  for (const host of ['::', '::0', '0:0:0:0:0:0:0:0', '::%lo']) {
    t.ok(isUnspecified(host))
    t.match(decideOutbound(policy, host, 2), { action: 'protect' }, host)
    t.match(decideOutbound(policy, host, 1), { action: 'bypass' }, host)
  }
  for (const host of ['', 'localhost', '0.0.0.1', '::1', '::ffff:0.0.0.1'])
    t.notOk(isUnspecified(host), host)
  t.end()
})

t.test('the first rule that matches decides', t => {
  const policy = parsePolicyFile({
    rules: [
      { action: 'bypass', host: 'Monitor.Internal.', port: 9000 },
      {
        action: 'protect',
        host: ['db.internal', '*.secure.internal'],
        port: ['5432', '8000-8099'],
      },
      { action: 'discard', address: '192.0.2.0/24', direction: 'out' },
      { action: 'protect', address: ['10.0.0.0/8', 'fd00::/8'], gateway: 'gw.internal' },
      { action: 'protect', direction: 'in', port: 8443 },
    ],
    default: 'bypass',
  })
  const out: [string, number, string, string | undefined][] = [
    ['monitor.internal', 9000, 'bypass', 'rules[0]'],
    ['monitor.internal', 9001, 'bypass', undefined],
    ['db.internal.', 5432, 'protect', 'rules[1]'],
    ['db.internal..', 5432, 'protect', 'rules[1]'],
    ['DB.internal', 8099, 'protect', 'rules[1]'],
    ['a.b.secure.internal', 8000, 'protect', 'rules[1]'],
    ['secure.internal', 8000, 'bypass', undefined],
    ['\uff44b.internal', 5432, 'protect', 'rules[1]'],
    ['db\u3002internal', 5432, 'protect', 'rules[1]'],
    ['a.b\u00fccher.secure.internal', 8000, 'protect', 'rules[1]'],
    ['192.0.2.9', 1, 'discard', 'rules[2]'],
    ['10.255.0.1', 1, 'protect', 'rules[3]'],
    ['::ffff:10.0.0.1', 1, 'protect', 'rules[3]'],
    ['::ffff:a00:1', 1, 'protect', 'rules[3]'],
    ['0:0:0:0:0:FFFF:0A00:0001', 1, 'protect', 'rules[3]'],
    ['::fffe:a00:1', 1, 'bypass', undefined],
    ['::a00:1', 1, 'bypass', undefined],
    ['fd00::1%eth0', 1, 'protect', 'rules[3]'],
    ['11.0.0.1', 8443, 'bypass', undefined],
  ]
  for (const [host, port, action, name] of out) {
    const { action: found, rule } = decideOutbound(policy, host, port)
    t.strictSame([found, rule?.name], [action, name], `${host}:${port}`)
  }
  t.equal(decideOutbound(policy, '10.0.0.1', 1).rule?.gateway, 'gw.internal')
  const german = parsePolicyFile({
    rules: [{ action: 'protect', host: 'b\u00fccher.test' }],
    default: 'bypass',
  })
  for (const host of ['b\u00fccher.test', 'xn--bcher-kva.test', 'B\u00dcCHER.test'])
    t.equal(decideOutbound(german, host, 1).action, 'protect', host)
  const { unless } = decideOutbound(policy, 'other.test', 1)
  t.strictSame(
    unless.map(({ name }) => name),
    ['rules[2]', 'rules[3]'],
    'a name may have addresses that are under other rules',
  )
  t.ok(hasAddress(unless[1]!, '10.1.1.1'))
  t.notOk(hasAddress(unless[1]!, 'no address'))
  t.equal(decideInbound(policy, '127.0.0.1', 8443).action, 'protect')
  t.equal(decideInbound(policy, '10.0.0.1', 80).action, 'protect')
  t.equal(decideInbound(policy, undefined, 80).unless.length, 1)
  t.equal(decideInbound(policy, undefined, 8443).unless.length, 0)
  t.end()
})

t.test('files with a fault are refused, by key and with what is accepted', t => {
  const rule = { action: 'protect' }
  const faults: [unknown, RegExp][] = [
    [[], /"policy" must be an object/],
    [{ rules: [] }, /"default" must be 'protect', 'bypass' or 'discard'/],
    [{ rules: {}, default: 'bypass' }, /"rules" must be an array/],
    [{ rules: [], defualt: 'bypass' }, /Unknown option "defualt"\. Did you mean "default"/],
    [{ rules: [], default: 'encrypt' }, /"default"/],
    [{ rules: ['x'], default: 'bypass' }, /"rules\[0\]" must be an object/],
    [{ rules: [{}], default: 'bypass' }, /"rules\[0\]\.action"/],
    [{ rules: [{ ...rule, prot: 1 }], default: 'bypass' }, /"rules\[0\]\.prot".*"port"/],
    [{ rules: [{ ...rule, port: 0 }], default: 'bypass' }, /"rules\[0\]\.port".*from 1 to 65535/],
    [{ rules: [{ ...rule, port: '9-8' }], default: 'bypass' }, /"rules\[0\]\.port"/],
    [{ rules: [{ ...rule, port: [] }], default: 'bypass' }, /"rules\[0\]\.port"/],
    [{ rules: [{ ...rule, address: 'ten' }], default: 'bypass' }, /"rules\[0\]\.address"/],
    [
      { rules: [{ ...rule, host: '10.0.0.1' }], default: 'bypass' },
      /host.*"address" is for addresses/,
    ],
    [{ rules: [{ ...rule, host: 'a*.test' }], default: 'bypass' }, /"rules\[0\]\.host"/],
    [{ rules: [{ ...rule, host: 'a', direction: 'in' }], default: 'bypass' }, /"rules\[0\]\.host"/],
    [{ rules: [{ action: 'bypass', gateway: 'g' }], default: 'bypass' }, /"rules\[0\]\.gateway"/],
    [
      { rules: [{ action: 'protect', direction: 'in', gateway: 'g' }], default: 'bypass' },
      /"rules\[0\]\.gateway" must be left out: only connections that go out/,
    ],
  ]
  for (const [content, message] of faults) {
    t.throws(() => parsePolicyFile(content), { name: 'OptionError', message })
  }
  t.end()
})

t.test(
  'an address is bypassed under every name only where no name could be under another rule',
  t => {
    const policy = parsePolicyFile({
      rules: [
        { action: 'bypass', host: 'a.test', port: 1 },
        { action: 'discard', host: '*.b.test', port: 2, address: '10.0.0.0/8' },
        { action: 'protect', address: '192.0.2.0/24' },
      ],
      default: 'bypass',
    })
    const rows: [string, number, boolean][] = [
      ['198.51.100.1', 1, true],
      ['198.51.100.1', 2, true],
      ['10.0.0.1', 1, true],
      ['10.0.0.1', 2, false],
      ['192.0.2.1', 3, false],
    ]
    for (const [address, port, expected] of rows)
      t.equal(isAlwaysBypassed(policy, address, port), expected, `${address} ${port}`)
    const closed = parsePolicyFile({
      rules: [{ action: 'bypass', host: 'a.test' }],
      default: 'protect',
    })
    t.notOk(isAlwaysBypassed(closed, '10.0.0.1', 1))
    t.end()
  },
)

t.test('a rule that can never match is refused', t => {
  const wide = { action: 'bypass', port: '1-1000', address: '10.0.0.0/8' }
  const dead = [
    [wide, { action: 'protect', port: 80, address: ['10.1.0.0/16', '10.2.0.1'] }],
    [wide, { action: 'protect', port: 80, address: '10.1.0.0/16', host: 'a.test' }],
    [{ action: 'bypass' }, { action: 'protect', direction: 'in', port: 80 }],
    [
      { action: 'bypass', direction: 'out' },
      { action: 'protect', host: 'a.test' },
    ],
    [
      { action: 'bypass', host: '*.test' },
      { action: 'protect', host: ['a.test', '*.b.test'] },
    ],
  ]
  for (const rules of dead) {
    const message = /"rules\[1\]" can never match: "rules\[0\]"/
    t.throws(() => parsePolicyFile({ rules, default: 'bypass' }), { message })
  }
  const deadTogether: [object[], string[]][] = [
    [
      [
        { action: 'bypass', port: '1-100' },
        { action: 'discard', port: ['200', '101-150'] },
        { action: 'bypass', host: 'a.test' },
        { action: 'protect', port: ['50-150', '200'] },
      ],
      ['rules[0]', 'rules[1]'],
    ],
    [
      [
        { action: 'bypass', direction: 'out' },
        { action: 'bypass', direction: 'in', port: '1-1023' },
        { action: 'protect', port: 80 },
      ],
      ['rules[0]', 'rules[1]'],
    ],
    [
      [
        { action: 'bypass', host: 'a.test' },
        { action: 'discard', host: '*.b.test', port: '1-80' },
        { action: 'protect', host: ['a.test', 'x.b.test'], port: 80 },
      ],
      ['rules[0]', 'rules[1]'],
    ],
    [
      [
        { action: 'bypass', address: '10.0.0.0/8' },
        { action: 'discard', address: 'fd00::/8' },
        { action: 'protect', address: ['10.1.0.0/16', 'fd00::1'] },
      ],
      ['rules[0]', 'rules[1]'],
    ],
    // Two halves; the last address of all has none after it.
    [
      [
        { action: 'bypass', address: '10.0.0.0/9' },
        { action: 'discard', address: '10.128.0.0/9', port: '1-100' },
        { action: 'bypass', address: '10.0.0.0/8', port: '101-65535' },
        { action: 'bypass', address: '255.255.255.255' },
        { action: 'protect', address: ['10.0.0.0/8', '255.255.255.255'], port: ['80-120'] },
      ],
      ['rules[0]', 'rules[1]', 'rules[2]', 'rules[3]'],
    ],
  ]
  for (const [rules, names] of deadTogether) {
    const last = `rules[${rules.length - 1}]`
    const list = names.map(name => `"${name}"`).join(', ')
    t.throws(() => parsePolicyFile({ rules, default: 'bypass' }), {
      message: `The rule "${last}" can never match: ${list}, which come before it, together match all that it does`,
    })
  }
  const live = [
    [
      { action: 'bypass', port: '1-100' },
      { action: 'discard', port: '102-200' },
      { action: 'protect', port: '50-150' },
    ],
    [
      { action: 'bypass', direction: 'out' },
      { action: 'bypass', direction: 'in', port: '1-79' },
      { action: 'protect', port: 80 },
    ],
    [
      { action: 'bypass', address: '10.0.0.0/8' },
      { action: 'protect', address: ['10.1.0.0/16', 'fd00::1'] },
    ],
    [
      { action: 'bypass', address: '10.0.0.0/9' },
      { action: 'bypass', address: '10.128.0.0/10' },
      { action: 'protect', address: '10.0.0.0/8' },
    ],
    [wide, { action: 'protect', port: 80 }],
    [wide, { action: 'protect', port: 1001, address: '10.0.0.1' }],
    [{ action: 'bypass', direction: 'out' }, { action: 'protect' }],
    [
      { action: 'bypass', host: 'a.test' },
      { action: 'protect', host: '*.test' },
    ],
    [
      { action: 'bypass', host: '*.b.test' },
      { action: 'protect', host: 'b.test' },
    ],
  ]
  for (const rules of live) {
    t.doesNotThrow(() => parsePolicyFile({ rules, default: 'bypass' }))
  }
  t.end()
})
