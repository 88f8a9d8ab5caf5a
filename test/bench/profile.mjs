// npm run profile [-- --only bulk|bulk-1400|ping|connect|new-sa|new-sa-ecdsa] [--heap MB] [--functions N] [--json]
// Where the processor time of an octet, a round trip, a connection and a new SA goes at each end, warm, by what the time
// is spent on, first in all (cryptography that is native, sockets, garbage, our own code); and the collections of garbage
// by kind. V8's profiler sees JavaScript: what runs below a call is counted
// to it, and on Linux the samples of a system call that waits for the other core pile up on it, so compare the parts of
// one end with each other, and the totals with what the system says (`user`, `system`).
import { Ends, certificate } from './ends.mjs'
import { optionsOf } from './usage.mjs'

const options = optionsOf(import.meta.url, {
  only: { type: 'string' },
  heap: { type: 'string', default: '40' },
  functions: { type: 'string', default: '0' },
  json: { type: 'boolean', default: false },
})
const MIB = 2 ** 20
/** The modules as they are written: in the package they are one file. */
const library = new URL('../../.build/lib/index.js', import.meta.url).href

const IN_PACKAGE = /\/\.build\/lib\/(.*)$/
const FILES = {
  'base/byte-queue.js': 'copies',
  'base/slab.js': 'copies',
  'base/external.js': 'memory given back',
  'base/packet.js': 'TCP',
  'wire/checksum.js': 'checksum',
  'node/udp-socket.js': 'UDP socket',
  'node/endpoint.js': 'loop',
}
const FOLDERS = {
  api: 'stream (ours)',
  core: 'core',
  crypto: 'cipher and keys (ours)',
  esp: 'ESP',
  identity: 'identity',
  ike: 'IKE',
  policy: 'policy',
  tcp: 'TCP',
  wire: 'formats',
}
const NODE = [
  [/^node:dgram$/, 'UDP socket (Node)'],
  [/^node:internal\/dgram/, 'UDP socket (Node)'],
  [/^node:(internal\/)?crypto/, 'calls of node:crypto'],
  [
    /^node:(internal\/)?(streams|stream)|^node:events|^node:buffer|^node:internal\/buffer/,
    'stream (Node)',
  ],
  [/^node:internal\/(timers|process|async_hooks)|^node:timers/, 'timers and ticks (Node)'],
]

/** Functions of Node's C++ have no file. */
const NATIVE = [
  [/^(send|bind|connect|getInterfaceAddresses|open|close|getsockname)$/, 'system calls'],
  [
    /^(CipherBase|initiv|update|final|getAuthTag|setAuthTag|setAAD|HmacInit|Hmac|Hash|digest|oneShotDigest)$/,
    'cipher and hashes (OpenSSL)',
  ],
  [
    /^(init|initECRaw|initEDRaw|initJwk|export|exportJwk|run|statelessDH|parseX509|.*Job|.*OneShot|KeyObjectHandle)$/,
    'keys and signatures (OpenSSL)',
  ],
  [/^(postMessage|transfer)$/, 'memory given back'],
  [/^dispatch$/, 'this benchmark'],
]

/** What the time of a function is spent on. */
const purpose = (name, url) => {
  if (url === '') {
    const known = NATIVE.find(([pattern]) => pattern.test(name))?.[1]
    if (known !== undefined) return known
  }
  if (name === '(garbage collector)') return 'collecting garbage'
  if (name === '(program)') return 'below JavaScript'
  const file = IN_PACKAGE.exec(url)?.[1]
  if (file !== undefined) return FILES[file] ?? FOLDERS[file.split('/')[0]] ?? 'base and others'
  if (url.includes('/bench/')) return 'this benchmark'
  return NODE.find(([pattern]) => pattern.test(url))?.[1] ?? 'Node, others'
}

/** What the purposes come to; every other one is our own code. */
const PARTS = {
  'cipher and hashes (OpenSSL)': 'native cryptography',
  'keys and signatures (OpenSSL)': 'native cryptography',
  'calls of node:crypto': 'calls of node:crypto',
  'collecting garbage': 'garbage',
  'memory given back': 'garbage',
  'system calls': 'sockets',
  'UDP socket': 'sockets',
  'UDP socket (Node)': 'sockets',
  'stream (Node)': 'Node, without its sockets',
  'timers and ticks (Node)': 'Node, without its sockets',
  'Node, others': 'Node, without its sockets',
  'below JavaScript': 'below JavaScript',
  'this benchmark': 'this benchmark',
}

const partsOf = purposes => {
  const parts = new Map()
  for (const [purpose, time] of purposes) {
    const part = PARTS[purpose] ?? 'our own code'
    parts.set(part, (parts.get(part) ?? 0) + time)
  }
  return parts
}

/** Four times that: V8 has compiled what a new SA runs through after some two thousand. */
const WARM_SAS = { times: 500, isFresh: true }

const SCENARIOS = {
  bulk: { peer: 'ike', action: 'bulk', orders: { octets: 512 * MIB }, per: 'GB', unit: 'ms' },
  'bulk-1400': {
    peer: 'ike-1400',
    action: 'bulk',
    orders: { octets: 64 * MIB },
    per: 'GB',
    unit: 'ms',
  },
  ping: {
    peer: 'ike',
    action: 'ping',
    orders: { times: 8000, size: 1 },
    per: 'round trip',
    unit: 'us',
  },
  connect: {
    peer: 'ike',
    action: 'connect',
    orders: { times: 2000 },
    per: 'connection',
    unit: 'us',
  },
  'new-sa': {
    peer: 'ike',
    action: 'connect',
    warm: WARM_SAS,
    orders: { times: 400, isFresh: true },
    per: 'SA',
    unit: 'us',
  },
  'new-sa-ecdsa': {
    peer: 'ike-ecdsa',
    action: 'connect',
    warm: WARM_SAS,
    orders: { times: 400, isFresh: true },
    per: 'SA',
    unit: 'us',
  },
}

const sortedBy = (map, most = Infinity) => [...map].sort(([, a], [, b]) => b - a).slice(0, most)

const profile = async ({ peer, action, orders, warm = orders, per, unit }) => {
  const ends = await Ends.start(peer, certificate(), { ballast: Number(options.heap) - 6, library })
  // V8 compiles once more what it had compiled before it saw the end of a connection and another one.
  for (let i = 0; i < 4; i++) await ends.run(action, warm)
  const roles = ['client', 'server']
  for (const role of roles) await ends.ask(role, { action: 'profileFrom' })
  const result = await ends.run(action, orders)
  const units = (orders.octets ?? 0) / 1e9 || orders.times
  const scale = (unit === 'ms' ? 1e-3 : 1) / units
  const found = {}
  for (const role of roles) {
    const functions = await ends.ask(role, { action: 'profileTo' })
    const purposes = new Map()
    const names = new Map()
    for (const [name, url, time] of functions) {
      if (name === '(idle)') continue
      const key = purpose(name, url)
      purposes.set(key, (purposes.get(key) ?? 0) + time * scale)
      const where = `${name || '(anonymous)'} ${IN_PACKAGE.exec(url)?.[1] ?? url}`
      names.set(where, (names.get(where) ?? 0) + time * scale)
    }
    const { user, system, gc } = result[role]
    found[role] = {
      user: user * 1e6 * scale,
      system: system * 1e6 * scale,
      parts: Object.fromEntries(sortedBy(partsOf(purposes))),
      purposes: Object.fromEntries(sortedBy(purposes)),
      functions: Object.fromEntries(sortedBy(names, Number(options.functions))),
      collections: Object.fromEntries(
        Object.entries(gc).map(([kind, { times, ms }]) => [
          kind,
          { times: times / units, time: ms * 1e3 * scale },
        ]),
      ),
    }
  }
  await ends.stop()
  return { per, unit, ...found }
}

const cell = value => (value === undefined ? '' : value.toFixed(value < 10 ? 2 : 0)).padStart(9)

const tell = (name, { per, unit, client, server }) => {
  console.log(`\n${name}: ${unit} of processor time per ${per}`.padEnd(60), '  client   server')
  const row = (label, of) =>
    console.log(`  ${label.padEnd(56)}${cell(of(client))}${cell(of(server))}`)
  row('user (as the system counts it)', end => end.user)
  row('system', end => end.system)
  for (const [kind, head] of [
    ['parts', 'in all:'],
    ['purposes', 'of these:'],
  ]) {
    console.log(`  ${head}`)
    const keys = new Set([...Object.keys(client[kind]), ...Object.keys(server[kind])])
    const both = key => (client[kind][key] ?? 0) + (server[kind][key] ?? 0)
    for (const key of [...keys].sort((a, b) => both(b) - both(a)))
      row(`  ${key}`, end => end[kind][key])
  }
  for (const kind of new Set([
    ...Object.keys(client.collections),
    ...Object.keys(server.collections),
  ])) {
    row(`${kind}: how many`, end => end.collections[kind]?.times)
    row(`${kind}: ${unit}`, end => end.collections[kind]?.time)
  }
  for (const [role, { functions }] of Object.entries({ client, server })) {
    for (const [where, time] of Object.entries(functions)) {
      console.log(`  ${role}: ${where}`.padEnd(68), cell(time))
    }
  }
}

if (options.only !== undefined && !Object.hasOwn(SCENARIOS, options.only)) {
  console.error(`--only is one of ${Object.keys(SCENARIOS).join(', ')}`)
  process.exit(2)
}
const report = {}
for (const [name, scenario] of Object.entries(SCENARIOS)) {
  if (options.only !== undefined && options.only !== name) continue
  report[name] = await profile(scenario)
  if (!options.json) tell(name, report[name])
}
if (options.json) console.log(JSON.stringify(report))
process.exit()
