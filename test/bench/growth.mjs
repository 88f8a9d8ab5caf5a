// npm run bench:growth [-- --json]: what a ping, a connection and an idle connection cost beside many others, and how long
// the slowest pings take while new peers arrive. Nothing of it may grow with the number of others.
import { pathToFileURL } from 'node:url'
import { Ends, certificate, median } from './ends.mjs'

const cpu = ({ user, system }) => user + system

/** Processor time of a ping with no other SA and beside many, in turns, because the machine's speed changes. */
const pingBesideSas = async (ends, sas, pings) => {
  const orders = { times: pings, size: 1 }
  const cost = async () => {
    const { client, server } = await ends.run('ping', orders)
    return (1e6 * (cpu(client) + cpu(server))) / pings
  }
  await ends.run('ping', orders)
  const figures = { alone: [], beside: [] }
  for (let turn = 0; turn < 3; turn++) {
    figures.alone.push(await cost())
    await ends.run('hold', { times: sas, isFresh: true })
    figures.beside.push(await cost())
    await ends.run('letGo', {})
  }
  const [alone, beside] = [median(figures.alone), median(figures.beside)]
  return {
    alone,
    beside,
    ratio: beside / alone,
    words: `${alone.toFixed(0)} us of processor time alone, ${beside.toFixed(0)} beside ${sas} SAs: ${(beside / alone).toFixed(2)} times`,
  }
}

/** Processor time of a connection that is opened and closed, while few are open and while many are. */
const openAndClose = async (start, few, many) => {
  const cost = async times => {
    const ends = await start()
    await ends.run('hold', { times: few })
    await ends.run('letGo', {})
    const opened = await ends.run('hold', { times })
    const closed = await ends.run('letGo', {})
    await ends.stop()
    const used = [opened, closed].map(({ client, server }) => cpu(client) + cpu(server))
    return (1e6 * (used[0] + used[1])) / times
  }
  const [atFew, atMany] = [await cost(few), await cost(many)]
  return {
    few: atFew,
    many: atMany,
    ratio: atMany / atFew,
    words: `${atFew.toFixed(0)} us of processor time each for ${few}, ${atMany.toFixed(0)} for ${many}: ${(atMany / atFew).toFixed(2)} times`,
  }
}

/** Resident memory that an idle connection adds at each end. */
const idleMemory = async (start, count) => {
  const ends = await start({ client: ['--expose-gc'], server: ['--expose-gc'] })
  // What the first ones need, all use. All together are as many as a session may have.
  const first = Math.ceil(count / 10)
  const times = count - first
  await ends.run('hold', { times: first })
  await ends.run('settle', {})
  const before = await ends.memory()
  await ends.run('hold', { times })
  await ends.run('settle', {})
  const after = await ends.memory()
  await ends.stop()
  const [client, server] = ['client', 'server'].map(
    role => (after[role] - before[role]) / times / 1024,
  )
  return {
    client,
    server,
    words: `${client.toFixed(1)} KB client, ${server.toFixed(1)} KB server, resident, each of ${count}`,
  }
}

/** The slowest of a hundred round trips while new peers come to the same server from another process, and without them. */
const pingWhilePeersArrive = async (start, pings, rate) => {
  const ends = await start()
  const others = await start()
  const orders = { times: pings, size: 1 }
  const slowest = async () => (await ends.run('ping', orders)).found['p99 us']
  await ends.run('ping', orders)
  const figures = { alone: [], beside: [], 'a second': [] }
  for (let turn = 0; turn < 3; turn++) {
    figures.alone.push(await slowest())
    await others.ask('client', { action: 'arrive', place: ends.place, rate })
    figures.beside.push(await slowest())
    figures['a second'].push((await others.ask('client', { action: 'depart' }))['a second'])
  }
  await Promise.all([ends.stop(), others.stop()])
  const [alone, beside, arrived] = Object.values(figures).map(median)
  return {
    alone,
    beside,
    arrived,
    ratio: beside / alone,
    words: `p99 ${alone.toFixed(0)} us alone, ${beside.toFixed(0)} while ${arrived.toFixed(0)} of ${rate} handshakes a second arrive: ${(beside / alone).toFixed(1)} times`,
  }
}

/** `scale`: 1 for the numbers of the table; `tell` hears of each figure as soon as it is known. */
export const measureGrowth = async (node, scale, tell = () => {}) => {
  const pair = certificate()
  const count = number => Math.ceil(number * scale)
  const startOf = peer => flags => Ends.start(peer, pair, { node, flags })
  const figures = {}
  const note = (what, figure) => {
    figures[what] = figure
    tell(what, figure)
  }
  const ends = await startOf('ike')()
  note('ping beside other SAs', await pingBesideSas(ends, count(2000), count(2000)))
  await ends.stop()
  for (const peer of ['tls', 'ike', 'ike-ecdsa']) {
    const figure = await pingWhilePeersArrive(startOf(peer), count(4000), 100)
    note(`ping while peers arrive, ${peer}`, figure)
  }
  for (const peer of ['net', 'ike']) {
    const figure = await openAndClose(startOf(peer), count(1000), count(10_000))
    note(`open and close, ${peer}`, figure)
  }
  // Each of tls' costs a handshake, and as much memory whether there are many or few.
  for (const [peer, most] of Object.entries({ net: 10_000, tls: 2000, ike: 10_000 })) {
    note(`idle connection, ${peer}`, await idleMemory(startOf(peer), count(most)))
  }
  return figures
}

/** What a figure of this package may be; of memory, by the version of Node. */
const floors = (figures, version) => {
  const part = (what, key = 'ratio') => figures[what]?.[key]
  const idle = { 20: 8, 24: 9 }[version] ?? 10
  const toNet = part('open and close, ike', 'many') / part('open and close, net', 'many')
  return [
    ['processor time of a ping beside other SAs, to alone', part('ping beside other SAs'), 1.1],
    ['open and close, many to few', part('open and close, ike'), 1.2],
    ['open and close, many, to net', toNet, 2],
    ['idle connection, KB at the client', part('idle connection, ike', 'client'), idle],
    ['idle connection, KB at the server', part('idle connection, ike', 'server'), idle],
  ]
}

const table = rows => {
  const line = (...cells) => cells.map((cell, i) => cell.padEnd([54, 10, 8, 0][i])).join('')
  const shown = ([what, value, most]) =>
    line(what, value.toFixed(2), `${most}`, value <= most ? 'yes' : 'no')
  return [line('', 'measured', 'most', 'holds'), ...rows.map(shown)].join('\n')
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const scale = process.argv.includes('--quick') ? 1 / 8 : 1
  const isJson = process.argv.includes('--json')
  const tell = (what, { words }) => console.log(`${what}: ${words}`)
  const figures = await measureGrowth(process.execPath, scale, isJson ? undefined : tell)
  const [version] = process.versions.node.split('.')
  console.log(isJson ? JSON.stringify(figures) : `\n${table(floors(figures, version))}`)
  process.exit()
}
