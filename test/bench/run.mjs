// Beside node:tls (TLS 1.3, mutual ECDSA P-256) and plain net, interleaved in one run: bulk throughput with
// CPU seconds per GB, round trips, connection set-up. Medians, and ratios to tls. `--json` for machines.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { createServer as createNetServer, connect as netConnect } from 'node:net'
import { connect as tlsConnect, createServer as createTlsServer } from 'node:tls'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createSecureServer, createSecureSocket } from 'ike-socket'

const MIB = 1 << 20
const BULK = 128 * MIB
const PINGS = 400
const CONNECTIONS = 40
const RUNS = 3
const psk = 'a pre-shared key for the benchmark'

const makePeer = (name, { cert, key }) => {
  const tls = {
    cert,
    key,
    ca: cert,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
    host: '127.0.0.1',
    checkServerIdentity: () => undefined,
  }
  switch (name) {
    case 'net':
      return {
        listen: handler => createNetServer({ noDelay: true }, handler).listen(0, '127.0.0.1'),
        connect: port => netConnect({ port, host: '127.0.0.1', noDelay: true }),
        ready: 'connect',
      }
    case 'tls':
      return {
        listen: handler => createTlsServer(tls, handler).listen(0, '127.0.0.1'),
        connect: port => tlsConnect({ ...tls, port }),
        ready: 'secureConnect',
      }
    default: {
      const options = {
        psk,
        ikePort: Number(process.env.BENCH_IKE_PORT),
        ...(name === 'ike-1400' ? { mtu: 1400 } : {}),
      }
      return {
        listen: handler =>
          createSecureServer({ ...options, noDelay: true }, handler).listen(0, '127.0.0.1'),
        // `fresh`: options of its own, so that the socket makes an SA of its own.
        connect: (port, fresh) =>
          createSecureSocket({
            host: '127.0.0.1',
            port,
            noDelay: true,
            ...options,
            ...(fresh ? { localId: `client-${fresh}` } : {}),
          }),
        ready: 'secureConnect',
      }
    }
  }
}

const cpuSeconds = () => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}
const median = values => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]

/** The server process: the first octet of a connection says what it is for. */
const serve = async peer => {
  const server = peer.listen(socket => {
    socket.on('error', () => {})
    let verb
    let octets = 0
    socket.on('data', data => {
      verb ??= String.fromCharCode(data[0])
      octets += data.length
      if (verb === 'p') socket.write(data)
      else if (verb === 'c') socket.write(data)
      else if (octets === BULK + 1) socket.write('done')
    })
  })
  await once(server, 'listening')
  process.on('message', () => process.send({ cpu: cpuSeconds() }))
  process.send({ port: server.address().port })
}

const bulk = async (peer, port, serverCpu) => {
  const socket = peer.connect(port)
  await once(socket, peer.ready)
  const block = Buffer.alloc(1 << 16, 'b')
  const [start, cpu, remoteCpu] = [performance.now(), cpuSeconds(), await serverCpu()]
  socket.write('b')
  for (let sent = 0; sent < BULK; sent += block.length) {
    if (!socket.write(block)) await once(socket, 'drain')
  }
  await once(socket, 'data')
  const seconds = (performance.now() - start) / 1000
  const used = cpuSeconds() - cpu + (await serverCpu()) - remoteCpu
  socket.destroy()
  return { mbits: (BULK * 8) / seconds / 1e6, cpuPerGb: (used / BULK) * 1e9 }
}

const ping = async (peer, port, size) => {
  const socket = peer.connect(port)
  await once(socket, peer.ready)
  const message = Buffer.alloc(size, 'p')
  const times = []
  for (let i = 0; i < PINGS; i++) {
    const start = performance.now()
    socket.write(message)
    for (let got = 0; got < size;) got += (await once(socket, 'data'))[0].length
    times.push((performance.now() - start) * 1000)
  }
  socket.destroy()
  return median(times)
}

let fresh = 0
const setUp = async (peer, port, isFresh) => {
  const start = performance.now()
  for (let i = 0; i < CONNECTIONS; i++) {
    const socket = peer.connect(port, isFresh ? ++fresh : 0)
    socket.on('error', error => console.error(error.message))
    socket.write('c')
    await once(socket, 'data')
    socket.destroy()
  }
  return CONNECTIONS / ((performance.now() - start) / 1000)
}

/** What a refused client waits: a wrong key and an unknown identity must not be told apart. */
const refusals = async () => {
  const ikePort = 24690
  const times = { 'wrong key': [], 'unknown identity': [] }
  for (let i = 0; i < CONNECTIONS; i++) {
    for (const [cause, localId] of [
      ['wrong key', 'known.test'],
      ['unknown identity', 'other.test'],
    ]) {
      // A new server each time: one that has refused several demands cookies first.
      const server = createSecureServer({ psk: { 'known.test': psk }, ikePort })
      server.listen(0, '127.0.0.1')
      await once(server, 'listening')
      const { port } = server.address()
      const start = performance.now()
      const wrong = `${psk}, and wrong`
      const socket = createSecureSocket({ host: '127.0.0.1', port, ikePort, psk: wrong, localId })
      await once(socket, 'error')
      times[cause].push((performance.now() - start) * 1000)
      server.close()
      await once(server, 'close')
    }
  }
  return Object.entries(times).map(([cause, values]) => `${cause} ${median(values).toFixed(0)} us`)
}

const certificate = () => {
  const folder = mkdtempSync(join(tmpdir(), 'bench-'))
  const [key, cert] = [join(folder, 'key'), join(folder, 'cert')]
  execFileSync(
    'openssl',
    [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-keyout',
      key,
      '-out',
      cert,
      '-days',
      '30',
      '-subj',
      '/CN=bench',
    ],
    { stdio: 'ignore' },
  )
  const pair = { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') }
  rmSync(folder, { recursive: true })
  return pair
}

if (process.env.BENCH_PEER !== undefined) {
  await serve(makePeer(process.env.BENCH_PEER, JSON.parse(process.env.BENCH_PAIR)))
} else {
  const pair = certificate()
  const names = ['net', 'tls', 'ike', 'ike-1400']
  const results = Object.fromEntries(names.map(name => [name, {}]))
  const note = (name, figure, value) => (results[name][figure] ??= []).push(value)
  for (let run = 0; run < RUNS; run++) {
    for (const [i, name] of names.entries()) {
      process.env.BENCH_IKE_PORT = String(24600 + 10 * run + i)
      const child = fork(new URL(import.meta.url), {
        env: { ...process.env, BENCH_PEER: name, BENCH_PAIR: JSON.stringify(pair) },
      })
      const [{ port }] = await once(child, 'message')
      const serverCpu = async () => {
        child.send('cpu')
        return (await once(child, 'message'))[0].cpu
      }
      const peer = makePeer(name, pair)
      const { mbits, cpuPerGb } = await bulk(peer, port, serverCpu)
      note(name, 'bulk Mbit/s', mbits)
      note(name, 'CPU s/GB', cpuPerGb)
      note(name, 'round trip 1 B, us', await ping(peer, port, 1))
      note(name, 'round trip 1 KB, us', await ping(peer, port, 1024))
      note(name, 'connections/s', await setUp(peer, port, false))
      if (name.startsWith('ike'))
        note(name, 'new SA and connection/s', await setUp(peer, port, true))
      child.kill()
    }
  }
  const medians = Object.fromEntries(
    names.map(name => [
      name,
      Object.fromEntries(
        Object.entries(results[name]).map(([figure, values]) => [figure, median(values)]),
      ),
    ]),
  )
  if (process.argv.includes('--json')) console.log(JSON.stringify(medians))
  else {
    for (const figure of Object.keys(results.ike)) {
      const cells = names
        .filter(name => medians[name][figure] !== undefined)
        .map(name => {
          const base = medians.tls[figure] ?? medians.tls['connections/s']
          return `${name} ${medians[name][figure].toFixed(1)} (${(medians[name][figure] / base).toFixed(2)}x tls)`
        })
      console.log(`${figure.padEnd(24)} ${cells.join('   ')}`)
    }
    console.log(`refused                  ${(await refusals()).join(', ')}`)
    console.log(
      `Node ${process.version}, medians of ${RUNS} interleaved runs on the loopback; ike: datagrams of the loopback's size, ike-1400: an MTU of 1400`,
    )
  }
  process.exit(0)
}
