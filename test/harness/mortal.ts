/**
 * One end of a connection in a process of its own, so that it can be killed: a server, or a client with the
 * connections that `wants` names. Tells its parent what it listens to, when all is under way, and how its
 * sockets ended.
 */
import { once } from 'node:events'
import { createSecureServer, createSecureSocket, type SecureSocket } from '../../lib/index.ts'

/** A connection that says one letter and is silent, and one that never stops. */
export type Kind = 'idle' | 'busy'
export interface Ports {
  readonly port: number
  readonly ikePort: number
}
export type Report =
  | { readonly event: 'listening'; readonly ports: Ports }
  | { readonly event: 'ready' }
  | { readonly event: 'over'; readonly codes: Partial<Record<Kind, string>> }

/** What has to be there at both ends before the other process may die. */
const PROOF = 1 << 20
const CHUNK = Buffer.alloc(1 << 16, 'b')
const shared = {
  psk: 'a pre-shared key for processes that die',
  livenessInterval: 300,
  retransmit: { initial: 100, factor: 1.5, max: 400, tries: 5 },
}

const [role, kinds, ...numbers] = process.argv.slice(2)
const wanted = (kinds ?? '').split(',') as Kind[]
const tell = (report: Report): void => void process.send!(report)

const ready = new Set<Kind>()
const codes: Partial<Record<Kind, string>> = {}
const isReady = (kind: Kind): void => {
  if (ready.has(kind)) return
  ready.add(kind)
  if (ready.size === wanted.length) tell({ event: 'ready' })
}

const pump = (socket: SecureSocket): void => {
  while (socket.writable && socket.write(CHUNK));
}

/** Both ends answer what they get; how a socket ends is what the test is about. */
const watch = (socket: SecureSocket, kind: Kind): void => {
  let code = 'closed without an error'
  socket.on('error', (error: NodeJS.ErrnoException) => (code = error.code ?? error.message))
  socket.on('end', () => (code = 'end'))
  socket.on('close', () => {
    codes[kind] = code
    if (Object.keys(codes).length === wanted.length) tell({ event: 'over', codes })
  })
  const check = (): void => {
    if (kind === 'idle' || socket.bytesRead >= PROOF) isReady(kind)
  }
  socket.on('data', check)
  if (kind === 'idle') return
  socket.on('drain', () => pump(socket))
  pump(socket)
}

if (role === 'server') {
  const server = createSecureServer({ ...shared, ikePort: 0 }, socket => {
    socket.once('data', (first: Buffer) => {
      const kind = first[0] === 0x62 ? 'busy' : 'idle'
      watch(socket, kind)
      if (kind === 'busy') return
      socket.write('i')
      isReady(kind)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  tell({
    event: 'listening',
    ports: { port: server.address()!.port, ikePort: server.ikePort! },
  })
} else {
  const [port, ikePort] = numbers.map(Number)
  for (const kind of wanted) {
    const socket = createSecureSocket({
      ...shared,
      host: '127.0.0.1',
      port: port!,
      ikePort: ikePort!,
    })
    watch(socket, kind)
    if (kind === 'idle') socket.write('i')
  }
}
