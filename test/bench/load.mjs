// A server under a flood of handshakes that are never finished, on real sockets of the loopback: memory, the
// speed of a transfer that runs meanwhile, and the time until an honest client is connected. Two floods: one
// that ignores cookies, as forged addresses must, and one whose addresses are real and bring them.
// `-- --attempts N --seconds N --json`
import { fork } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { createSecureServer, createSecureSocket } from 'ike-socket'
import { createKeyExchange } from '../../dist/crypto/key-exchange.js'
import { parseProposals } from '../../dist/policy/proposal.js'
import { writeMessage } from '../../dist/wire/message.js'

const MIB = 1 << 20
const psk = 'a pre-shared key for the benchmark'
const option = (name, fallback) => {
  const at = process.argv.indexOf(name)
  return at < 0 ? fallback : Number(process.argv[at + 1])
}
const ATTEMPTS = option('--attempts', 100_000)
const SECONDS = option('--seconds', 10)
const SOURCES = 10_000
const IKE_PORT = option('--port', 24_900)
/** Sockets of the flood that are open at once. */
const OPEN = 250

// --- the server process ---

const serve = async () => {
  let octets = 0
  const server = createSecureServer({ psk, ikePort: IKE_PORT }, socket => {
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
    process.send({ id, rss, heap: heapUsed, octets })
  })
  process.send('ready')
}

// --- the transfer process ---

const transfer = async () => {
  const socket = createSecureSocket({ host: '127.0.0.1', port: 7000, psk, ikePort: IKE_PORT })
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

const flood = async (bringsCookies, port) => {
  const environment = { wallClock: () => 0, randomFill: bytes => bytes.fill(9) }
  const keyExchange = createKeyExchange('node', 31, environment).publicValue
  const each = ATTEMPTS / SOURCES
  const result = { sent: 0, sentOctets: 0, got: 0, gotOctets: 0, cookies: 0, accepted: 0 }
  const start = performance.now()
  const send = (socket, datagram) => {
    result.sent++
    result.sentOctets += datagram.length
    socket.send(datagram, port, '127.0.0.1')
  }
  const open = async source => {
    const socket = createSocket('udp4')
    const mine = new Map()
    socket.on('error', () => {})
    socket.on('message', datagram => {
      result.got++
      result.gotOctets += datagram.length
      const isCookie = datagram[20] === 41 && datagram.readUInt16BE(38) === 16390
      if (datagram[20] === 33) result.accepted++
      if (!isCookie) return
      result.cookies++
      const i = mine.get(datagram.readUInt32BE(8))
      if (bringsCookies && i !== undefined)
        send(socket, request(i, keyExchange, datagram.subarray(40)))
    })
    const address = `127.${1 + (source >>> 14)}.${(source >>> 7) & 127}.${1 + (source & 127)}`
    socket.bind({ port: 0, address, exclusive: true })
    await once(socket, 'listening')
    for (let n = 0; n < each; n++) {
      const i = source * each + n
      mine.set(i + 1, i)
      send(socket, request(i, keyExchange))
    }
    return socket
  }
  for (let source = 0; source < SOURCES; source += OPEN) {
    const sockets = await Promise.all(Array.from({ length: OPEN }, (_, i) => open(source + i)))
    // So many a second, whatever it takes to send them.
    const due = start + ((source + OPEN) / SOURCES) * SECONDS * 1000
    await sleep(Math.max(20, due - performance.now()))
    for (const socket of sockets) socket.close()
  }
  process.send({ ...result, seconds: (performance.now() - start) / 1000 })
}

// --- the figures ---

const child = (role, ...flags) =>
  fork(new URL(import.meta.url), process.argv.slice(2), {
    env: { ...process.env, LOAD_ROLE: role },
    execArgv: flags,
  })

const connectOnce = async i => {
  const start = performance.now()
  const socket = createSecureSocket({
    host: '127.0.0.1',
    port: 7000,
    psk,
    ikePort: IKE_PORT,
    localId: `honest-${i}.test`,
    idleTimeout: 100,
  })
  socket.on('error', () => {})
  socket.write('x')
  await once(socket, 'data')
  socket.destroy()
  return performance.now() - start
}

const measure = async () => {
  const server = child('server', '--expose-gc')
  await once(server, 'message')
  let asked = 0
  const ask = what =>
    new Promise(resolve => {
      const id = ++asked
      const listen = answer => {
        if (answer.id !== id) return
        server.removeListener('message', listen)
        resolve(answer)
      }
      server.on('message', listen)
      server.send({ id, what })
    })
  const mover = child('transfer')
  await once(mover, 'message')
  const speed = async (seconds, until) => {
    const [from, start] = [(await ask('look')).octets, performance.now()]
    if (until === undefined) await sleep(seconds * 1000)
    else await until
    return (((await ask('look')).octets - from) * 8) / (performance.now() - start) / 1000
  }
  await sleep(1500)
  const figures = {}
  for (const kind of ['forged', 'real']) {
    const idle = await speed(3)
    // The greatest of what is seen while `busy` lasts.
    const watch = async busy => {
      let [rss, isOver] = [0, false]
      void busy.then(() => (isOver = true))
      while (!isOver) {
        rss = Math.max(rss, (await ask('look')).rss)
        await sleep(200)
      }
      return rss
    }
    const control = child('elsewhere')
    const controlled = once(control, 'message')
    const usual = watch(controlled)
    const elsewhere = await speed(0, controlled)
    control.kill()
    const before = await ask('settle')
    const flooder = child(kind)
    const done = once(flooder, 'message')
    const peak = watch(done)
    const times = []
    let isDone = false
    const honest = (async () => {
      await sleep(500)
      for (let i = 0; !isDone; i++) {
        times.push(await connectOnce(`${kind}-${i}`))
        await sleep(200)
      }
    })()
    const loaded = await speed(0, done)
    isDone = true
    await honest
    const after = await ask('settle')
    const [result] = await done
    flooder.kill()
    const mib = octets => Number((octets / MIB).toFixed(1))
    figures[kind] = {
      attempts: ATTEMPTS,
      'datagrams a second': Math.round(result.sent / result.seconds),
      'octets answered for each sent': Number((result.gotOctets / result.sentOctets).toFixed(3)),
      'cookies demanded': result.cookies,
      'handshakes taken up': result.accepted,
      'heap held more after it, MiB': mib(after.heap - before.heap),
      'resident memory at most, MiB': mib(await peak),
      '  with the flood elsewhere ': mib(await usual),
      'transfer before, Mbit/s': Math.round(idle),
      '  with the flood elsewhere': Math.round(elsewhere),
      '  with the flood here': Math.round(loaded),
      'part of its speed kept': Number((loaded / idle).toFixed(2)),
      '  beside the flood elsewhere': Number((loaded / elsewhere).toFixed(2)),
      'honest clients connected': times.length,
      'the slowest after, ms': Math.round(Math.max(...times)),
    }
  }
  mover.kill()
  server.kill()
  if (process.argv.includes('--json')) console.log(JSON.stringify(figures))
  else {
    for (const [kind, facts] of Object.entries(figures)) {
      console.log(`flood of ${SOURCES} ${kind} addresses`)
      for (const [name, value] of Object.entries(facts))
        console.log(`  ${name.padEnd(34)} ${value}`)
    }
  }
  process.exit(0)
}

switch (process.env.LOAD_ROLE) {
  case 'elsewhere': {
    // Costs the machine the same and the server nothing: what of the loss is the processor's.
    const deaf = createSocket('udp4')
    deaf.bind(0, '127.0.0.1')
    await once(deaf, 'listening')
    await flood(false, deaf.address().port)
    break
  }
  case 'server':
    await serve()
    break
  case 'transfer':
    await transfer()
    break
  case 'forged':
  case 'real':
    await flood(process.env.LOAD_ROLE === 'real', IKE_PORT)
    break
  default:
    await measure()
}
