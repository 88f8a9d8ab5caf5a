/** What asks for a turn of its own in one turn shares it. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { connect as netConnect, createServer as createNetServer, type Socket } from 'node:net'
import t from 'tap'
import { createSecureServer, createSecureSocket, type SecureSocket } from '../../lib/index.ts'
import {
  atClose,
  atFinish,
  expectClose,
  inEndingTurn,
  inNextTurn,
} from '../../lib/api/next-turn.ts'

const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

t.test('all of one turn go in a row, after the microtasks', async t => {
  const seen: string[] = []
  for (const name of ['a', 'b']) {
    inNextTurn(() => {
      seen.push(name)
      process.nextTick(() => seen.push(`after ${name}`))
      inNextTurn(() => seen.push(`late ${name}`))
    })
  }
  void Promise.resolve().then(() => seen.push('microtask'))
  await turn()
  await turn()
  t.strictSame(seen, ['microtask', 'a', 'b', 'after a', 'after b', 'late a', 'late b'])
})

/** Of two sockets whose ends come in one turn, what is told and what their programs do in between. */
t.test(
  "an end, its 'finish' and its 'close' share a turn, and the program acts between them",
  async t => {
    const seen: string[] = []
    for (const name of ['a', 'b'])
      inEndingTurn(() => {
        seen.push(`${name} end`)
        void Promise.resolve().then(() => seen.push(`after the end of ${name}`))
        atFinish(() => {
          seen.push(`${name} finish`)
          process.nextTick(() => atClose(undefined, () => seen.push(`${name} close`)))
        })
      })
    await turn()
    await turn()
    t.strictSame(seen, [
      'a end',
      'b end',
      'after the end of a',
      'after the end of b',
      'a finish',
      'b finish',
      'a close',
      'b close',
    ])
    atFinish(() => seen.push('finish'))
    atClose(undefined, () => seen.push('close'))
    await turn()
    t.strictSame(seen.slice(8), ['finish', 'close'], 'without an end before, in the next turn')
  },
)

t.test(
  "a 'close' that is expected comes after the immediates that listeners of the end set",
  async t => {
    const seen: string[] = []
    const place = expectClose()
    process.nextTick(
      () => void Promise.resolve().then(() => setImmediate(() => seen.push('immediate'))),
    )
    atClose(place, () => seen.push('close'))
    t.equal(expectClose(), place, 'which others share that are expected at the same time')
    await turn()
    await turn()
    t.strictSame(seen, ['immediate', 'close'])
    t.not(expectClose(), place)
    atClose(place, () => seen.push('late'))
    await turn()
    t.equal(seen.at(-1), 'late')
  },
)

t.test('one that throws does not keep the others', async t => {
  const module = new URL('../../lib/api/next-turn.js', import.meta.url).href
  const program = `
    import { inNextTurn } from '${module}'
    process.on('uncaughtException', error => console.log(error.message))
    inNextTurn(() => console.log('a'))
    inNextTurn(() => { throw new Error('thrown') })
    inNextTurn(() => console.log('b'))`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program])
  t.equal(`${stdout}${stderr}`, 'a\nthrown\nb\n')
})

t.test('the ends of many sockets share packets', async t => {
  const options = { psk: 'a pre-shared key for these tests', ikePort: 0 }
  const server = createSecureServer(options, socket => void socket.resume())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()!
  const open = async (): Promise<SecureSocket> => {
    const socket = createSecureSocket({
      host: '127.0.0.1',
      port,
      psk: options.psk,
      ikePort: server.ikePort,
    })
    await once(socket, 'connect')
    return socket
  }
  const stays = await open()
  const others = await Promise.all(Array.from({ length: 60 }, open))
  await turn()
  const packetsIn = (): number => stays.session!.info.packetsIn
  const before = packetsIn()
  for (const socket of others) socket.resume().end()
  await Promise.all(others.map(socket => once(socket, 'close')))
  t.ok(packetsIn() - before < 30, `${packetsIn() - before} packets for 60 ends`)
  stays.destroy()
  server.close()
  await once(server, 'close')
})

interface Trial {
  serve(onConnection: (socket: Socket | SecureSocket) => void): Promise<void>
  connect(): Socket | SecureSocket
  close(): void
}

const trials: Record<string, () => Trial> = {
  net: () => {
    const server = createNetServer()
    return {
      serve: async onConnection => {
        server.on('connection', onConnection).listen(0, '127.0.0.1')
        await once(server, 'listening')
      },
      connect: () => {
        const { port } = server.address() as { port: number }
        return netConnect({ host: '127.0.0.1', port })
      },
      close: () => void server.close(),
    }
  },
  ike: () => {
    const psk = 'a pre-shared key for these tests'
    const server = createSecureServer({ psk, ikePort: 0 })
    return {
      serve: async onConnection => {
        server.on('connection', onConnection).listen(0, '127.0.0.1')
        await once(server, 'listening')
      },
      connect: () => {
        const { port } = server.address()!
        return createSecureSocket({ host: '127.0.0.1', port, psk, ikePort: server.ikePort })
      },
      close: () => void server.close(),
    }
  },
}

/** What a server's and its clients' programs see of several connections that begin at once. */
const sequenceOf = async ({ serve, connect, close }: Trial): Promise<Record<string, string[]>> => {
  const seen: Record<string, string[]> = {}
  let number = 0
  /** What is asked for when there is a connection, up to what comes in a later turn. */
  const follow = (name: string, socket: Socket | SecureSocket): void => {
    const own: string[] = (seen[name] = [])
    process.nextTick(() => own.push('tick'))
    void (async () => {
      for (let step = 0; step < 5; step++) await Promise.resolve()
      own.push('microtasks')
      process.nextTick(() => {
        own.push('tick of a microtask')
        socket.on('data', data => own.push(`data ${String(data)}`))
      })
    })()
  }
  let last: string | undefined
  const order: string[] = (seen['between'] = [])
  await serve(socket => {
    const name = `server ${++number}`
    if (last !== undefined) order.push(seen[last]!.slice(0, 3).join(', '))
    last = name
    follow(name, socket)
    socket.end('answer')
  })
  // Of ike, there is an SA from then on.
  await once(connect().resume(), 'close')
  last = undefined
  number = 0
  const sockets = Array.from({ length: 5 }, (_, i) => {
    const socket = connect()
    socket.on('connect', () => follow(`client ${i + 1}`, socket))
    socket.write('question')
    return socket
  })
  await Promise.all(sockets.map(socket => once(socket, 'close')))
  close()
  return seen
}

t.test(
  'between two connections the program does what follows from the first, as with net',
  async t => {
    const [ours, theirs] = [await sequenceOf(trials['ike']!()), await sequenceOf(trials['net']!())]
    t.strictSame(ours, theirs)
    t.strictSame(theirs['client 1'], ['tick', 'microtasks', 'tick of a microtask', 'data answer'])
  },
)

t.test('connections that come at once are accepted in one turn', async t => {
  const { serve, connect, close } = trials['ike']!()
  let turns = 0
  let isCounting = false
  const accepted: number[] = []
  const count = (): void => {
    turns++
    if (isCounting) setImmediate(count)
  }
  await serve(socket => {
    accepted.push(turns)
    socket.end('answer')
  })
  const stays = connect().resume() as SecureSocket
  await once(stays, 'close')
  isCounting = true
  count()
  const sockets = Array.from({ length: 16 }, () => {
    const socket = connect()
    socket.write('question')
    return socket.resume()
  })
  await Promise.all(sockets.map(socket => once(socket, 'close')))
  isCounting = false
  t.equal(accepted.length, 17)
  t.ok(accepted.at(-1)! - accepted[1]! <= 2, `in ${accepted.at(-1)! - accepted[1]!} turns`)
  close()
})

t.test('the end of a connection shares a packet with the begin of the next one', async t => {
  const psk = 'a pre-shared key for these tests'
  const server = createSecureServer({ psk, ikePort: 0 }, socket => {
    socket.on('data', data => socket.write(data))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()!
  const exchange = async (): Promise<void> => {
    const { ikePort } = server
    const socket = createSecureSocket({ host: '127.0.0.1', port, psk, ikePort })
    socket.write('question')
    await once(socket, 'data')
    socket.destroy()
  }
  await exchange()
  const before = server.counters['datagramsIn'] as number
  for (let i = 0; i < 20; i++) await exchange()
  const datagrams = (server.counters['datagramsIn'] as number) - before
  // One with the SYN and the FIN before it, and one with the ACK of the server's FIN.
  t.ok(datagrams < 50, `${datagrams} datagrams for 20 connections`)
  server.close()
})
