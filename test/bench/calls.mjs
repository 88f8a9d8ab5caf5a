// npm run bench:calls [-- --json]: processor time of many small writes in one tick, and of closing many sockets, beside
// net's, interleaved in one run. Medians, and ratios to net.
import { once } from 'node:events'
import net from 'node:net'
import secureNet from 'ike-socket/net'
import { optionsOf } from './usage.mjs'

const values = optionsOf(import.meta.url, { json: { type: 'boolean', default: false } })
const WRITES = 400_000
const SOCKETS = 300
const RUNS = 5
const psk = 'a pre-shared key for the benchmark'

const sides = {
  net: { module: net, server: {}, client: () => ({}) },
  ike: {
    module: secureNet,
    server: { psk, ikePort: 0 },
    client: server => ({ psk, ikePort: server.ikePort }),
  },
}

const milliseconds = before => {
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1000
}

const serve = async ({ module, server: options, client }, onConnection) => {
  const server = module.createServer(options, onConnection)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  return {
    server,
    connect: async () => {
      const socket = module.connect({ host: '127.0.0.1', port, ...client(server) })
      socket.on('error', () => {})
      await once(socket, 'connect')
      return socket
    },
  }
}

/** Both ends in this process, from the first write to the end of both. */
const write = async side => {
  let octets = 0
  const { server, connect } = await serve(side, socket => {
    socket.on('data', data => (octets += data.length)).on('end', () => socket.end())
  })
  const socket = await connect()
  socket.resume()
  const before = process.cpuUsage()
  for (let i = 0; i < WRITES; i++) socket.write('hello world')
  socket.end()
  await once(socket, 'close')
  const spent = milliseconds(before)
  if (octets !== WRITES * 11) throw new Error(`${octets} octets arrived`)
  server.close()
  return spent
}

/** From the first `destroy` until the server says that it is closed. */
const close = async side => {
  let accepted = 0
  const { server, connect } = await serve(side, socket => {
    accepted++
    socket.on('error', () => {}).resume()
  })
  const sockets = []
  for (let i = 0; i < SOCKETS; i++) sockets.push(await connect())
  for (const socket of sockets) socket.resume()
  while (accepted < SOCKETS) await new Promise(resolve => setImmediate(resolve))
  const before = process.cpuUsage()
  for (const socket of sockets) socket.destroy()
  server.close()
  await once(server, 'close')
  return milliseconds(before)
}

const median = numbers => numbers.toSorted((a, b) => a - b)[numbers.length >> 1]

const figures = {}
for (const [what, measure] of Object.entries({
  [`${WRITES} writes`]: write,
  [`${SOCKETS} ends`]: close,
})) {
  const spent = { net: [], ike: [] }
  // The first one of each warms up.
  for (let run = 0; run <= RUNS; run++) {
    for (const [name, side] of Object.entries(sides)) {
      const time = await measure(side)
      if (run > 0) spent[name].push(time)
    }
  }
  const [ours, theirs] = [median(spent.ike), median(spent.net)]
  figures[what] = { ours, net: theirs, ratio: ours / theirs }
}
if (values.json) process.stdout.write(`${JSON.stringify(figures)}\n`)
else {
  for (const [what, { ours, net: theirs, ratio }] of Object.entries(figures)) {
    process.stdout.write(
      `${what}: ${ours.toFixed(0)} ms of processor time, net ${theirs.toFixed(0)} ms: ${ratio.toFixed(1)} times\n`,
    )
  }
}
