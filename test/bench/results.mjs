// RESULTS.md and its plots from the report of `run.mjs`.
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const at = name => new URL(name, import.meta.url)

const round = value => value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)

/** Found by profiles, not by a run of the benchmark. */
const LEVERS = [
  '## What holds it back',
  '',
  'As `perf` and `npm run profile` show it, one connection, both ends warm:',
  '',
  "- **Large datagrams**: of the sender's time copies take a quarter (into the send queue, into the datagram, and the ciphertext back into it), the system a sixth and AES-GCM an eighth; of the receiver's the system takes a quarter, AES-GCM an eighth, and a copy of each datagram into memory of its own length, which Node makes, a twentieth. Our own code is an eighth of either, and the rest are the calls of `node:crypto` and `dgram`. Next levers: `dgram` takes a list of buffers, so the ciphertext could go out from where the cipher has put it, and a cipher takes its plaintext in parts, so it could read from the send queue; each saves a copy.",
  "- **Node 24 and 26, large datagrams**: what a receiver needs more than on Node 20 is not in its main thread but in those of V8, which mark and sweep the whole live heap for each Mark-Compact, 25 to 33 ms of processor time with 40 MB of it. `perf_hooks` tells of pauses alone, so the column of garbage leaves that out. Memory outside V8's heap grows by one octet for each octet that the reader gets, as with `net` and `tls`: datagrams and outputs of ciphers are given back at once. V8 begins to mark when 64 MB have come so since the last Mark-Compact, 15 times per GB. `tls` has no fewer, nor has the least receiver of `dgram`, AES-GCM and a `Readable` (17). But it begins after 8 MB already when something is allocated in the old part of its heap, or a scavenge ends. Nothing that is done for each datagram or turn allocates there any more (sets did, when members came and went, and when an empty one was cleared); what does is code that V8 compiles: 430 functions in the first 512 MiB of a process, 110 in the next, then 25, 19, 14, and six after 3 GiB. So the first gigabyte has 35 to 45 Mark-Compacts, and the third about 20, with half a second of processor time less. Next levers: fewer functions on the road of an octet, so that V8 is done earlier; pieces that are given back as soon as `onread` has copied them.",
  "- **Datagrams of 1400 octets**: AES takes 1.4 %, our own code a sixth, and most of the rest are the objects that Node makes for each cipher and each datagram, with malloc (8 %) and OpenSSL's search for the cipher by its name (6 %). Next levers are ciphers without an object for each packet: `sodium-native`, and the option `accelerate`: a call of a native function takes 0.3 us where an argument is an `int`, and 0.015 us where V8 can make it from compiled code, so its five calls for a packet now take less than AES does.",
]

/** Width of a figure such as 0.81. */
const FIGURE = 30

/** Bars of ratios to tls, which is the line at 1; readable on light and dark pages. */
const plot = (title, description, bars) => {
  const [left, width, step, top] = [230, 400, 26, 46]
  const most = Math.max(1, ...bars.map(({ ratio }) => ratio))
  const x = ratio => left + (ratio / most) * width
  /** Beside the bar, and not on the line of tls. */
  const beside = ratio =>
    (Math.abs(x(ratio) + FIGURE / 2 - x(1)) < FIGURE ? Math.max(x(ratio), x(1)) : x(ratio)) + 6
  const height = top + bars.length * step + 16
  const rows = bars.map(({ label, ratio, kind }, i) => {
    const y = top + i * step
    return [
      `  <text x="${left - 10}" y="${y + 14}" text-anchor="end">${label}</text>`,
      `  <rect class="${kind}" x="${left}" y="${y + 2}" width="${(x(ratio) - left).toFixed(1)}" height="${step - 8}" rx="3"/>`,
      `  <text class="small" x="${beside(ratio).toFixed(1)}" y="${y + 14}">${ratio.toFixed(2)}</text>`,
    ].join('\n')
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 ${height}" width="720" height="${height}" role="img" aria-labelledby="title desc" font-family="system-ui, sans-serif" font-size="13">
  <title id="title">${title}</title>
  <desc id="desc">${description}</desc>
  <style>
    text { fill: #1f2328; }
    .small { font-size: 12px; fill: #59636e; }
    .ike { fill: #0969da; }
    .net { fill: #8c959f; }
    .line { stroke: #cf222e; stroke-dasharray: 5 4; }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc; }
      .small { fill: #9198a1; }
      .ike { fill: #4493f8; }
      .net { fill: #656c76; }
      .line { stroke: #f85149; }
    }
  </style>
  <text x="16" y="22" font-weight="600">${title}</text>
  <text class="small" x="${x(1).toFixed(1)}" y="38" text-anchor="middle">node:tls</text>
${rows.join('\n')}
  <line class="line" x1="${x(1).toFixed(1)}" x2="${x(1).toFixed(1)}" y1="${top - 2}" y2="${height - 10}"/>
</svg>
`
}

const select = ({ rows }, name, heap) => rows.filter(row => row.name === name && row.heap === heap)

const table = (node, { name, words, heaps }) =>
  heaps
    .map(heap => {
      const rows = select(node, name, heap)
      const figures = Object.keys(rows[0].figures)
      const lines = rows.map(
        ({ peer, figures: values }) =>
          `| ${peer} | ${figures.map(figure => round(values[figure])).join(' | ')} |`,
      )
      return [
        `${words[0].toUpperCase()}${words.slice(1)}, ${heap} MB of live heap:`,
        '',
        `| | ${figures.join(' | ')} |`,
        `|---|${figures.map(() => '--:').join('|')}|`,
        ...lines,
      ].join('\n')
    })
    .join('\n\n')

const bars = ({ nodes }, rateOf, pick) =>
  nodes.flatMap(node =>
    pick.flatMap(({ name, heap, peer, label, kind = 'ike' }) => {
      const rows = select(node, name, heap)
      const of = which => rows.find(row => row.peer === which)?.figures
      if (of(peer) === undefined) return []
      const ratio = rateOf(of(peer)) / rateOf(of('tls'))
      return [{ label: `${node.version.split('.')[0]}: ${label}`, ratio, kind }]
    }),
  )

const PLOTS = [
  {
    file: 'bulk.svg',
    title: 'Throughput of one connection, as a part of node:tls',
    rate: figures => figures['Mbit/s'],
    pick: [
      { name: 'bulk', heap: 9, peer: 'ike', label: '9 MB of live heap' },
      { name: 'bulk', heap: 40, peer: 'ike', label: '40 MB of live heap' },
      { name: 'bulk-1400', heap: 40, peer: 'ike-1400', label: 'MTU 1400' },
      { name: 'bulk-1400', heap: 40, peer: 'ike-1400-fast', label: 'MTU 1400, sodium' },
    ],
  },
  {
    file: 'round-trips.svg',
    title: 'Round trip (p50), as a multiple of node:tls',
    rate: figures => figures['p50 us'],
    pick: [
      { name: 'ping', heap: 40, peer: 'net', label: 'net, 1 octet', kind: 'net' },
      { name: 'ping', heap: 40, peer: 'ike', label: '1 octet' },
      { name: 'ping', heap: 40, peer: 'ike-fast', label: '1 octet, sodium' },
      { name: 'ping-1024', heap: 40, peer: 'ike', label: '1,024 octets' },
    ],
  },
  {
    file: 'connections.svg',
    title: 'Connections a second, as a multiple of node:tls',
    rate: figures => figures['a second'],
    pick: [
      { name: 'connect', heap: 40, peer: 'ike', label: 'on a live SA' },
      { name: 'connect-16', heap: 40, peer: 'ike', label: 'the same, 16 at once' },
      { name: 'new-sa', heap: 40, peer: 'ike', label: 'new SA, PSK' },
      { name: 'new-sa', heap: 40, peer: 'ike-ecdsa', label: 'new SA, ECDSA' },
    ],
  },
]

export const writeResults = async report => {
  const { processor, cores, load, runs, missing, scenarios, nodes, growth } = report
  for (const { file, title, rate, pick } of PLOTS) {
    const shown = bars(report, rate, pick)
    const description = shown.map(({ label, ratio }) => `${label}: ${ratio.toFixed(2)}`).join('; ')
    writeFileSync(at(file), plot(title, description, shown))
  }
  const parts = [
    '# What it measures',
    '',
    `Written by \`npm run bench -- --nodes 20,24,26 --write\`. Medians of ${runs} interleaved runs on the loopback, two processes, ${processor}, ${cores} cores, load ${load.toFixed(1)} when it began. Machines differ, and so do hours of one machine: read the ratios to \`tls\` (TLS 1.3, mutual ECDSA P-256), which ran in turn with the others.`,
    '',
    'Each process was warm: it had done the same work until V8 had compiled what that runs through. `ike`: one connection with default options and a pre-shared key; `-1400` with an MTU of 1400, `-fast` where `sodium-native` is installed and ChaCha20-Poly1305 goes first. `secret-stream` is @hyperswarm/secret-stream over udx-native, of native code. CPU is that of both ends together. The live heap is that of the application; a heap that is nearly empty is collected much more often.',
    '',
    `Missing here: ${missing === undefined ? '' : 'secret-stream over udx, '}wireguard-go and the user-space ESP of strongSwan; a path with loss or delay (\`npm run bench:tcp\` has them in virtual time).`,
    '',
    ...PLOTS.flatMap(({ file, title }) => [`![${title}](${file})`, '']),
  ]
  parts.push(...LEVERS, '')
  for (const node of nodes) {
    parts.push(`## Node ${node.version.slice(1)}`, '')
    for (const scenario of scenarios) parts.push(table(node, scenario), '')
  }
  parts.push(`## Beside many others, Node ${nodes[0].version.slice(1)}`, '')
  for (const [what, { words }] of Object.entries(growth)) parts.push(`- ${what}: ${words}`)
  const file = at('RESULTS.md')
  writeFileSync(file, parts.join('\n'))
  const root = fileURLToPath(at('../..'))
  execFileSync('npx', ['oxfmt', fileURLToPath(file)], { cwd: root })
}
