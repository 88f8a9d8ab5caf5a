/**
 * Where blocks of the documentation run: names lead to the loopback, UDP port 4500 is a free one, and a client without a
 * server in its own block finds one that has the credentials of `ike-keys` and of `IKE_PSK`.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import dns from 'node:dns'
import { once } from 'node:events'
import { isIP } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  createSecureServer,
  type SecureServer,
  type SecureServerOptions,
  type SecureSocket,
} from '../../lib/index.ts'
import { freePort } from '../harness/free-port.ts'

/** Milliseconds that a block has. */
const TIMEOUT = 10_000
/** Milliseconds that an answer may take; not every socket gets one. */
const ANSWER = 1000

interface Closable {
  close(done: () => void): unknown
}

/** What the shims of the package look at while a block runs. */
export interface World {
  /** The UDP port of what the block itself opens. */
  readonly own: number
  /** The UDP port of the server that the block does not have. */
  readonly other: number
  readonly made: Closable[]
  /** Ports inside the tunnel that the block itself listens on. */
  readonly inner: ReadonlySet<number>
}

export let world: World | undefined

const numbers = (text: string, pattern: RegExp): ReadonlySet<number> =>
  new Set([...text.matchAll(pattern)].map(([, digits]) => Number(digits)))

/** The server that a client of the block wants to reach; undefined where it opens all that it needs. */
const makePeer = async (
  block: string,
  ports: readonly number[],
): Promise<SecureServer | undefined> => {
  const [first, ...rest] = ports
  if (first === undefined) return undefined
  if (rest.length > 0) throw new Error('one port without a server in a block is enough')
  const remoteId = /remoteId: '([^'*]+)'/.exec(block)?.[1]
  const keys = (name: string): { file: string } => ({ file: `ike-keys/${name}` })
  const options: SecureServerOptions = {
    psk: process.env['IKE_PSK'],
    cert: keys('server-ed25519.crt'),
    key: keys('server-ed25519.key'),
    ca: keys('ca.crt'),
    ikePort: 0,
    ...(remoteId === undefined ? {} : { localId: remoteId }),
    ...(block.includes('virtualAddress: true') ? { addressPool: '10.8.0.0/24' } : {}),
  }
  const server = createSecureServer(options, socket => socket.resume().end('answer'))
  server.listen(first, '127.0.0.1')
  await once(server, 'listening')
  return server
}

const toLoopback = (name: string): string =>
  /\.(internal|example\.com)$/.test(name) ? '127.0.0.1' : name

/** Where a client's datagrams go: all that is not of this host is the loopback here. */
export const gatewayOf = (gateway: string): string => (isIP(gateway) === 0 ? gateway : '127.0.0.1')

/** What was asked is answered: each socket has read something or is over. */
const answered = async (sockets: readonly SecureSocket[]): Promise<void> => {
  const isDone = (): boolean => sockets.every(one => one.destroyed || one.bytesRead > 0)
  for (let i = 0; i < ANSWER / 20 && !isDone(); i++) await sleep(20)
  await sleep(50)
}

/** Runs a block: `start` imports it. Returns what went wrong, and what it printed. */
export const runBlock = async (
  block: string,
  start: () => Promise<unknown>,
): Promise<{ readonly errors: readonly string[]; readonly printed: readonly string[] }> => {
  const inner = numbers(block, /\b(?:listen|bind)\((\d+)/g)
  const wanted = numbers(block, /\bport: (\d+)/g)
  const peer = await makePeer(
    block,
    [...wanted].filter(port => !inner.has(port)),
  )
  world = { own: await freePort(), other: peer?.ikePort ?? 0, made: [], inner }
  const { made } = world
  const sockets: SecureSocket[] = []
  const errors: string[] = []
  const printed: string[] = []
  const opened: Promise<unknown>[] = []
  const noteSocket = (message: unknown): void => {
    const { socket } = message as { socket: SecureSocket }
    sockets.push(socket)
    socket.on('error', error => errors.push(error.message))
    opened.push(
      new Promise(resolve => socket.on('connect', resolve).on('close', () => resolve(undefined))),
    )
  }
  const noteServer = (message: unknown): void => {
    const { server } = message as { server: SecureServer }
    made.push(server)
    opened.push(once(server, 'listening'))
  }
  const { lookup } = dns
  const log = console.log
  const report = console.error
  const before = process.listeners('SIGTERM')
  subscribe('net.client.socket', noteSocket)
  subscribe('tracing:net.server.listen:asyncStart', noteServer)
  Object.assign(dns, {
    lookup: (name: string, ...rest: unknown[]) =>
      Reflect.apply(lookup, dns, [toLoopback(name), ...rest]) as unknown,
  })
  console.log = (...words) => printed.push(words.join(' '))
  console.error = (...words) => printed.push(words.join(' '))
  const timer = setTimeout(() => errors.push('it does not come to rest'), TIMEOUT)
  const late = new Promise(resolve => setTimeout(resolve, TIMEOUT).unref())
  try {
    await start()
    // A listener may open more.
    for (let seen = 0; seen < opened.length;) {
      seen = opened.length
      await Promise.race([Promise.all(opened), late])
      await sleep(20)
    }
    await answered(sockets)
    for (const listener of process.listeners('SIGTERM')) {
      if (before.includes(listener)) continue
      process.removeListener('SIGTERM', listener)
      listener('SIGTERM')
    }
    for (const socket of sockets) socket.destroy()
    const all: readonly Closable[] = [...made, ...(peer === undefined ? [] : [peer])]
    await Promise.all(all.map(one => new Promise<void>(done => void one.close(done))))
  } finally {
    clearTimeout(timer)
    Object.assign(dns, { lookup })
    console.log = log
    console.error = report
    unsubscribe('net.client.socket', noteSocket)
    unsubscribe('tracing:net.server.listen:asyncStart', noteServer)
    world = undefined
  }
  return { errors, printed }
}
