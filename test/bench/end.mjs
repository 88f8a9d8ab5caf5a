// One end of a comparison in a process of its own, so that each Node can run it, with a heap as programs have one.
// The coordinator (`ends.mjs`) starts it and tells it by messages what to do.
import { once } from 'node:events'
import { Session } from 'node:inspector/promises'
import { PerformanceObserver, constants } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { makePeer } from './peers.mjs'

const { peer: name, pair, ballast, role } = JSON.parse(process.env.BENCH_END)
const peer = makePeer(name, pair)

/** Live objects of an application: a heap that is nearly empty is collected far more often than any real one. */
globalThis.ballast = []
for (let held = 0; held < ballast * 2 ** 20; held += 1024) {
  globalThis.ballast.push({ numbers: Array.from({ length: 112 }, (_, i) => i + held + 0.5) })
}

const KINDS = {
  [constants.NODE_PERFORMANCE_GC_MINOR]: 'scavenges',
  [constants.NODE_PERFORMANCE_GC_MAJOR]: 'mark-compacts',
  [constants.NODE_PERFORMANCE_GC_INCREMENTAL]: 'incremental steps',
  [constants.NODE_PERFORMANCE_GC_WEAKCB]: 'weak callbacks',
}
const collections = {}
const count = list => {
  for (const { detail, duration } of list.getEntries()) {
    const of = (collections[KINDS[detail.kind]] ??= { times: 0, ms: 0 })
    of.times++
    of.ms += duration
  }
}
const observer = new PerformanceObserver(count)
observer.observe({ entryTypes: ['gc'] })

const facts = () => {
  const { user, system } = process.cpuUsage()
  count({ getEntries: () => observer.takeRecords() })
  return { user: user / 1e6, system: system / 1e6, rss: process.memoryUsage.rss(), gc: collections }
}

// --- the server: the first octet of a connection says what it is for ---

const serve = async () => {
  const server = peer.listen(socket => {
    socket.on('error', () => {})
    let verb
    let left = 0
    socket.on('data', data => {
      if (verb === undefined) {
        verb = String.fromCharCode(data[0])
        // A bulk transfer begins with its length.
        if (verb === 'b') left = data.readDoubleBE(1) + 9
      }
      if (verb !== 'b') return socket.write(data)
      left -= data.length
      if (left === 0) socket.write('done')
    })
  })
  await once(server, 'listening')
  const { port } = server.address()
  return server.ikePort === undefined ? { port } : { port, ikePort: server.ikePort }
}

// --- the client ---

const open = async (place, more) => {
  const socket = peer.connect(place, more)
  await once(socket, peer.ready)
  return socket
}

const bulk = async ({ place, octets }) => {
  const socket = await open(place)
  const block = Buffer.alloc(1 << 16, 'b')
  const head = Buffer.alloc(9, 'b')
  head.writeDoubleBE(octets, 1)
  socket.write(head)
  const start = performance.now()
  for (let sent = 0; sent < octets; sent += block.length) {
    if (!socket.write(block)) await once(socket, 'drain')
  }
  await once(socket, 'data')
  const seconds = (performance.now() - start) / 1000
  socket.destroy()
  return { 'Mbit/s': (octets * 8) / seconds / 1e6 }
}

const sorted = values => [...values].sort((a, b) => a - b)
const quantile = (values, part) => sorted(values)[Math.floor(part * (values.length - 1))]

const ping = async ({ place, times, size }) => {
  const socket = await open(place)
  const message = Buffer.alloc(size, 'p')
  const took = []
  await new Promise(done => {
    let start = 0
    let left = 0
    const next = () => {
      if (took.length === times) return done()
      left = size
      start = performance.now()
      socket.write(message)
    }
    socket.on('data', data => {
      left -= data.length
      if (left > 0) return
      took.push((performance.now() - start) * 1000)
      next()
    })
    next()
  })
  socket.destroy()
  return {
    'p10 us': quantile(took, 0.1),
    'p50 us': quantile(took, 0.5),
    'p99 us': quantile(took, 0.99),
  }
}

let fresh = 0
/** `atOnce` connections at a time; `isFresh`: each makes an SA of its own. */
const connect = async ({ place, times, atOnce = 1, isFresh = false }) => {
  const start = performance.now()
  let left = times
  const one = async () => {
    while (left-- > 0) {
      // Sockets share an SA while their options are equal.
      const own = isFresh ? { childPackets: 2 ** 31 - ++fresh, idleTimeout: 100 } : {}
      const socket = peer.connect(place, own)
      socket.on('error', error => console.error(error.message))
      socket.write('c')
      await once(socket, 'data')
      socket.destroy()
    }
  }
  await Promise.all(Array.from({ length: atOnce }, one))
  return { 'a second': times / ((performance.now() - start) / 1000) }
}

let arriving
/** From now on `rate` new SAs a second, each with one connection, as far as the machine does so many. */
const arrive = async ({ place, rate }) => {
  const start = performance.now()
  let begun = 0
  let made = 0
  const one = () => {
    const socket = peer.connect(place, { childPackets: 2 ** 31 - ++fresh, idleTimeout: 100 })
    socket.on('error', () => {})
    socket.write('c')
    socket.once('data', () => {
      made++
      socket.destroy()
    })
  }
  const timer = setInterval(() => {
    const due = ((performance.now() - start) / 1000) * rate
    // What could not be begun in time is not made up for at once.
    for (let burst = 0; begun < due && burst < 2; begun++, burst++) one()
    begun = Math.max(begun, Math.floor(due) - 1)
  }, 1000 / rate)
  arriving = () => {
    clearInterval(timer)
    return { 'a second': made / ((performance.now() - start) / 1000) }
  }
  return {}
}

const depart = async () => arriving()

const held = []
/** Opens connections that stay, a few at a time; `isFresh`: each with an SA of its own. */
const hold = async ({ place, times, isFresh = false }) => {
  let left = times
  const one = async () => {
    while (left-- > 0) {
      const socket = peer.connect(
        place,
        isFresh ? { childPackets: 2 ** 31 - ++fresh, idleTimeout: 100 } : {},
      )
      await once(socket, peer.ready)
      // It may be closed while others wait.
      socket.on('error', () => {}).resume()
      held.push(socket)
    }
  }
  await Promise.all(Array.from({ length: 16 }, one))
  return {}
}

const letGo = async () => {
  const closed = held.splice(0).map(socket => {
    const gone = once(socket, 'close')
    socket.destroy()
    return gone
  })
  await Promise.all(closed)
  // The other end hears of it, and SAs without connections end.
  await sleep(1000)
  return {}
}

const settle = async () => {
  globalThis.gc()
  await sleep(1000)
  globalThis.gc()
  return {}
}

let inspector
const profileFrom = async () => {
  inspector = new Session()
  inspector.connect()
  await inspector.post('Profiler.enable')
  await inspector.post('Profiler.setSamplingInterval', { interval: 200 })
  await inspector.post('Profiler.start')
  return {}
}

/** Microseconds of each function itself. */
const profileTo = async () => {
  const { profile } = await inspector.post('Profiler.stop')
  inspector.disconnect()
  const nodes = new Map(profile.nodes.map(node => [node.id, node.callFrame]))
  const own = new Map()
  for (const [i, id] of profile.samples.entries()) {
    const { functionName, url } = nodes.get(id)
    const key = `${functionName}|${url}`
    own.set(key, (own.get(key) ?? 0) + profile.timeDeltas[i])
  }
  return [...own].map(([key, time]) => [...key.split('|'), time])
}

const actions = {
  bulk,
  ping,
  connect,
  arrive,
  depart,
  hold,
  letGo,
  settle,
  profileFrom,
  profileTo,
}

process.on('disconnect', () => process.exit())
process.on('message', async ({ action, ...orders }) => {
  if (action === 'end') process.exit()
  process.send(action === 'facts' ? facts() : await actions[action](orders))
})
process.send(role === 'server' ? await serve() : {})
