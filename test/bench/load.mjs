// A server under floods of handshakes that are never finished, and an office behind one address, on real sockets of
// the loopback: who connects and after how long, memory, and the speed of a transfer that runs meanwhile. It uses free
// ports and takes about a minute and a half. Everything runs on one machine, so the report also says what the same
// flood costs when it goes elsewhere: what is lost then is lost to the flood's own processor time.
// `npm run bench:load -- [--json] [--seconds N] [--only forged|real|office]`
import { fork } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { cpus, loadavg } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { createSecureServer, createSecureSocket } from 'ike-socket'
import { createKeyExchange } from '../../.build/lib/crypto/key-exchange.js'
import { parseProposals } from '../../.build/lib/policy/proposal.js'
import { writeMessage } from '../../.build/lib/wire/message.js'

const MIB = 1 << 20
const psk = 'a pre-shared key for the benchmark'
const option = (name, fallback) => {
  const at = process.argv.indexOf(name)
  return at < 0 ? fallback : process.argv[at + 1]
}
const SECONDS = Number(option('--seconds', 6))
const ONLY = option('--only', undefined)
const SOURCES = 10_000
const REAL_SECONDS = 5
const OFFICE = { clients: 150, wrong: 10, within: 15_000 }
const LIMITS = { slowest: 3000, mib: 20, kept: 0.6 }

/** What a process of the benchmark is told, and how it tells. */
const orders = process.env.LOAD_ROLE === undefined ? {} : JSON.parse(process.env.LOAD_ORDERS)

// --- the server process ---

const serve = async () => {
  let octets = 0
  const server = createSecureServer({ psk, ikePort: 0 }, socket => {
    socket.on('error', () => {})
    socket.on('data', data => {
      octets += data.length
      if (data.length === 1) socket.end('x')
    })
  })
  server.listen(7000, '127.0.0.1')
  await once(server, 'listening')
  process.on('message', ({ id, what }) => {
    if (what === 'settle') globalThis.gc()
    const { rss, heapUsed } = process.memoryUsage()
    const { user, system } = process.cpuUsage()
    process.send({ id, rss, heap: heapUsed, octets, cpu: (user + system) / 1000 })
  })
  process.send({ port: server.ikePort })
}

// --- the transfer process ---

const transfer = async () => {
  const socket = createSecureSocket({
    host: '127.0.0.1',
    port: 7000,
    psk,
    ikePort: orders.port,
    localId: 'transfer.test',
  })
  await once(socket, 'secureConnect')
  process.send('ready')
  const block = Buffer.alloc(1 << 16, 'b')
  for (;;) {
    if (!socket.write(block)) await once(socket, 'drain')
  }
}

// --- the flood process ---

const request = (i, keyExchange, cookie) => {
  const spiI = Buffer.alloc(8, 0x5a)
  spiI.writeUInt32BE(i + 1, 4)
  const message = writeMessage(
    {
      spiI,
      spiR: new Uint8Array(8),
      exchange: 34,
      originalInitiator: true,
      response: false,
      messageId: 0,
    },
    [
      ...(cookie === undefined
        ? []
        : [{ kind: 'notify', protocol: 0, spi: new Uint8Array(0), type: 16390, data: cookie }]),
      { kind: 'sa', proposals: parseProposals('ike', ['aes256gcm16-prfsha256-x25519'], 'ike') },
      { kind: 'ke', group: 31, data: keyExchange },
      { kind: 'nonce', data: Buffer.alloc(32, i & 255) },
    ],
  )
  return Buffer.concat([Buffer.alloc(4), message])
}

/** Each at an address of its own. */
const openSources = async onDatagram => {
  const sockets = []
  for (let source = 0; source < SOURCES; source++) {
    const socket = createSocket('udp4')
    socket.on('error', () => {})
    if (onDatagram !== undefined) socket.on('message', datagram => onDatagram(socket, datagram))
    const address = `127.${1 + (source >>> 14)}.${(source >>> 7) & 127}.${1 + (source & 127)}`
    socket.bind({ port: 0, address, exclusive: true })
    sockets.push(socket)
    if (source % 250 === 249) await once(socket, 'listening')
  }
  return sockets
}

/** `orders`: `perSecond`, `seconds`, `port`, and whether the addresses are real, so that they bring their cookies. */
const flood = async port => {
  const { perSecond, seconds, bringsCookies } = orders
  const environment = { wallClock: () => 0, randomFill: bytes => bytes.fill(9) }
  const keyExchange = createKeyExchange('node', 31, environment).publicValue
  const template = request(0, keyExchange)
  const result = { sent: 0, cookies: 0, accepted: 0 }
  const send = (socket, datagram) => {
    result.sent++
    socket.send(datagram, port, '127.0.0.1')
  }
  const onDatagram = (socket, datagram) => {
    if (datagram[20] === 33) result.accepted++
    const isCookie = datagram[20] === 41 && datagram.readUInt16BE(38) === 16390
    if (!isCookie) return
    result.cookies++
    send(socket, request(datagram.readUInt32BE(8) - 1, keyExchange, datagram.subarray(40)))
  }
  const sockets = await openSources(bringsCookies ? onDatagram : undefined)
  process.send('ready')
  await once(process, 'message')
  const start = performance.now()
  let count = 0
  for (let now = start; now < start + 1000 * seconds; now = performance.now()) {
    for (const due = ((now - start) * perSecond) / 1000; count < due; count++) {
      const datagram = Buffer.from(template)
      datagram.writeUInt32BE(count + 1, 8)
      send(sockets[count % SOURCES], datagram)
    }
    await sleep(2)
  }
  process.send({ ...result, first: count, seconds: (performance.now() - start) / 1000 })
}

// --- honest clients ---

/** Milliseconds until the server has answered over a new SA. */
const connectOnce = async (port, localId, key = psk) => {
  const start = performance.now()
  const socket = createSecureSocket({
    host: '127.0.0.1',
    port: 7000,
    psk: key,
    ikePort: port,
    localId,
    idleTimeout: 100,
  })
  socket.on('error', () => {})
  socket.write('x')
  await once(socket, 'data')
  socket.destroy()
  return performance.now() - start
}

const office = async () => {
  const { clients, wrong, within } = OFFICE
  const times = []
  for (let i = 0; i < clients; i++) {
    const isWrong = i % (clients / wrong) === 0
    void connectOnce(orders.port, `office-${i}.test`, isWrong ? `not ${psk}` : psk).then(
      time => times.push(time),
      () => {},
    )
  }
  const end = performance.now() + within
  while (times.length < clients - wrong && performance.now() < end) await sleep(50)
  process.send({ connected: times.length, slowest: Math.max(...times) })
}

// --- the figures ---

const child = (role, more = {}, ...flags) =>
  fork(new URL(import.meta.url), process.argv.slice(2), {
    env: { ...process.env, LOAD_ROLE: role, LOAD_ORDERS: JSON.stringify(more) },
    execArgv: flags,
  })
const told = async process => (await once(process, 'message'))[0]

/** A server of its own for each flood, with a transfer that runs. */
class Siege {
  static async begin() {
    const siege = new Siege()
    siege.server = child('server', {}, '--expose-gc')
    siege.port = (await told(siege.server)).port
    siege.mover = child('transfer', { port: siege.port })
    await told(siege.mover)
    await sleep(1500)
    return siege
  }

  asked = 0

  ask(what) {
    const { server } = this
    return new Promise(resolve => {
      const id = ++this.asked
      const listen = answer => {
        if (answer.id !== id) return
        server.removeListener('message', listen)
        resolve(answer)
      }
      server.on('message', listen)
      server.send({ id, what })
    })
  }

  /** Speed of the transfer, and the server's memory and processor time, while `busy` lasts. */
  async watch(busy) {
    const from = await this.ask('settle')
    const start = performance.now()
    let [rss, isOver] = [from.rss, false]
    void busy.then(() => (isOver = true))
    while (!isOver) {
      await Promise.race([busy, sleep(200)])
      rss = Math.max(rss, (await this.ask('look')).rss)
    }
    const to = await this.ask('look')
    const time = performance.now() - start
    const speed = ((to.octets - from.octets) * 8) / time / 1000
    return { speed, rss, from, cpu: (to.cpu - from.cpu) / time }
  }

  end() {
    this.mover.kill()
    this.server.kill()
  }
}

const round = (value, digits = 0) => Number(value.toFixed(digits))

const besiege = async (perSecond, seconds, bringsCookies) => {
  const siege = await Siege.begin()
  const run = async role => {
    const flooder = child(role, { port: siege.port, perSecond, seconds, bringsCookies })
    await told(flooder)
    const done = told(flooder)
    flooder.send('go')
    const times = []
    let isDone = false
    const honest = (async () => {
      await sleep(500)
      for (let i = 0; !isDone; i++) {
        times.push(await connectOnce(siege.port, `${role}-${i}.test`))
        await sleep(100)
      }
    })()
    const seen = await siege.watch(done)
    isDone = true
    const result = await done
    await honest
    flooder.kill()
    return { ...seen, times, result }
  }
  const idle = await siege.watch(sleep(2000))
  const elsewhere = await run('elsewhere')
  const here = await run('flood')
  siege.end()
  const { result, times } = here
  return {
    'first messages a second': Math.round(result.first / result.seconds),
    ...(bringsCookies
      ? { 'cookies brought': result.cookies, 'handshakes taken up': result.accepted }
      : {}),
    'honest clients, one after the other': times.length,
    'the slowest connected after, ms': Math.round(Math.max(...times)),
    'resident memory more, MiB': round(Math.max(0, here.rss - elsewhere.rss) / MIB, 1),
    "the server's processor, part of a core": round(here.cpu, 2),
    'transfer alone, Mbit/s': Math.round(idle.speed),
    'transfer with the flood elsewhere, Mbit/s': Math.round(elsewhere.speed),
    'transfer with the flood here, Mbit/s': Math.round(here.speed),
    'part of the speed kept': round(here.speed / elsewhere.speed, 2),
  }
}

const moveIn = async () => {
  const server = child('server', {}, '--expose-gc')
  const { port } = await told(server)
  const house = child('office', { port })
  const { connected, slowest } = await told(house)
  house.kill()
  server.kill()
  return {
    clients: OFFICE.clients,
    'of them with a wrong key': OFFICE.wrong,
    connected,
    'the slowest connected after, ms': Math.round(slowest),
  }
}

/** What each scenario is to show; a figure that is not listed is told and not judged. */
const GOALS = {
  'the slowest connected after, ms': { most: LIMITS.slowest },
  'resident memory more, MiB': { most: LIMITS.mib },
  'part of the speed kept': { least: LIMITS.kept },
}

const scenarios = {
  ...Object.fromEntries(
    [3000, 10_000, 30_000].map(rate => [
      `forged: ${rate} first messages a second of addresses that bring no cookie`,
      {
        kind: 'forged',
        run: () => besiege(rate, SECONDS, false),
        goals: ['the slowest connected after, ms'],
      },
    ]),
  ),
  [`real: ${SOURCES} addresses that bring cookies and nothing more, within ${REAL_SECONDS} s`]: {
    kind: 'real',
    run: () => besiege(SOURCES / REAL_SECONDS, REAL_SECONDS, true),
    goals: Object.keys(GOALS),
  },
  [`office: ${OFFICE.clients} clients behind one address, ${OFFICE.wrong} with a wrong key`]: {
    kind: 'office',
    run: moveIn,
    goals: ['connected', 'the slowest connected after, ms'],
    own: {
      connected: { least: OFFICE.clients - OFFICE.wrong },
      'the slowest connected after, ms': { most: OFFICE.within },
    },
  },
}

const judge = (value, { least = -Infinity, most = Infinity }) => value >= least && value <= most
const words = ({ least, most }) => (least === undefined ? `at most ${most}` : `at least ${least}`)

const measure = async () => {
  const isJson = process.argv.includes('--json')
  const report = {
    node: process.version,
    cores: cpus().length,
    load: round(loadavg()[0], 1),
    scenarios: {},
  }
  if (!isJson) console.log(`Node ${report.node}, ${report.cores} cores, load ${report.load} before`)
  let isMet = true
  for (const [name, { kind, run, goals, own }] of Object.entries(scenarios)) {
    if (ONLY !== undefined && ONLY !== kind) continue
    const figures = await run()
    const met = {}
    for (const goal of goals) met[goal] = judge(figures[goal], (own ?? GOALS)[goal])
    report.scenarios[name] = { figures, met }
    isMet &&= Object.values(met).every(Boolean)
    if (isJson) continue
    console.log(`\n${name}`)
    for (const [what, value] of Object.entries(figures)) {
      const goal = goals.includes(what) ? (own ?? GOALS)[what] : undefined
      const verdict = goal === undefined ? '' : `  ${met[what] ? 'ok' : 'MISSED'}: ${words(goal)}`
      console.log(`  ${what.padEnd(44)} ${String(value).padStart(8)}${verdict}`)
    }
  }
  if (isJson) console.log(JSON.stringify(report))
  process.exit(isMet ? 0 : 1)
}

switch (process.env.LOAD_ROLE) {
  case 'elsewhere': {
    // Costs the machine about the same and the server nothing.
    const deaf = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 })
    deaf.bind(0, '127.0.0.1')
    await once(deaf, 'listening')
    await flood(deaf.address().port)
    break
  }
  case 'server':
    await serve()
    break
  case 'transfer':
    await transfer()
    break
  case 'office':
    await office()
    break
  case 'flood':
    await flood(orders.port)
    break
  default:
    await measure()
}
