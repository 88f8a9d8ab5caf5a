/**
 * A Unix socket by which the owner of a process looks into it: JSON lines, one answer for each request. It shows states
 * and counters, never keys.
 */
import { chmodSync, lstatSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { isMainThread } from 'node:worker_threads'
import { OptionError } from '../base/errors.ts'
import { Endpoint } from '../node/endpoint.ts'
import { plainConnect } from '../node/plain-connect.ts'
import { metrics } from './metrics.ts'

/** Octets that the system has for the name of a socket; it cuts longer ones off. */
const LONGEST_PATH = 103
/** Octets of a request. */
const LONGEST_LINE = 4096
/** Ours: requests that are answered at a time. */
const MOST_CLIENTS = 32

export interface Control {
  /** The path of the socket. */
  readonly path: string
  /** Closes and removes it. */
  close(): void
}

/**
 * Opens the socket at that path, mode 0600. One that a process answers on is not taken over (EADDRINUSE), one that is left
 * over is replaced. It does not keep the process alive.
 */
export const openControl = async (path: string): Promise<Control> => {
  await makeWay(controlOption('path', path))
  const server = createServer(serve)
  server.maxConnections = MOST_CLIENTS
  // The socket is made within the call, so nobody else can connect in between.
  const before = isMainThread ? process.umask(0o177) : undefined
  const listening = new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  if (before !== undefined) process.umask(before)
  await listening
  chmodSync(path, 0o600)
  server.unref()
  return { path, close: () => void server.close() }
}

/** Removes a socket that nobody listens on any more. Anything else at that path stays. */
const makeWay = (path: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const stat = lstatSync(path, { throwIfNoEntry: false })
    if (stat === undefined || !stat.isSocket()) return resolve()
    const probe = plainConnect({ path })
    probe.once('connect', () => {
      probe.destroy()
      const error = new Error(`listen EADDRINUSE: another process answers at ${path}`)
      reject(Object.assign(error, { code: 'EADDRINUSE', syscall: 'listen', address: path }))
    })
    probe.once('error', ({ code }: NodeJS.ErrnoException) => {
      if (code === 'ECONNREFUSED') rmSync(path, { force: true })
      resolve()
    })
  })

const serve = (socket: Socket): void => {
  socket.unref()
  socket.setEncoding('utf8')
  let text = ''
  /** False: answers wait to be read. */
  const say = (answer: object): boolean => socket.write(`${JSON.stringify(answer)}\n`)
  const answerAll = (): void => {
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      const line = text.slice(0, end)
      text = text.slice(end + 1)
      if (say(line.length > LONGEST_LINE ? TOO_LONG : answerTo(line))) continue
      // Who does not read gets no further answer, and no further request is read.
      socket.pause()
      return
    }
    if (text.length > LONGEST_LINE) {
      text = ''
      say(TOO_LONG)
      socket.end()
    } else if (socket.isPaused()) socket.resume()
  }
  socket.on('error', () => {})
  socket.on('drain', answerAll)
  socket.on('data', (more: string) => {
    text += more
    answerAll()
  })
}

const TOO_LONG = { error: `a line has ${LONGEST_LINE} octets at most` }
const COMMANDS = 'status, metrics'

const answerTo = (line: string): object => {
  let request: unknown
  try {
    request = JSON.parse(line)
  } catch {
    return { error: 'the line is not JSON' }
  }
  const command =
    typeof request === 'object' && request !== null && 'command' in request
      ? request.command
      : undefined
  if (command === 'status') return status()
  if (command === 'metrics') return { metrics: metrics() }
  return { error: `"command" must be one of ${COMMANDS}` }
}

/** The answer to the command "status". */
const status = (): object => ({
  pid: process.pid,
  at: Date.now(),
  endpoints: Array.from(Endpoint.all, endpoint => ({
    udp: endpoint.udpAddress,
    counters: endpoint.core.counters,
    sessions: Array.from(endpoint.sessions, session => session.info(endpoint.now())),
  })),
})

/** Of this process: several ends may name the same path. */
const opened = new Map<string, { control: Promise<Control>; users: number }>()

/** As `openControl`, shared by all in this process that name that path; the last one to close it removes it. */
export const shareControl = (path: string): Promise<Control> => {
  const known = opened.get(path) ?? { control: openControl(path), users: 0 }
  opened.set(path, known)
  known.users++
  let isClosed = false
  const drop = (): void => {
    if (isClosed) return
    isClosed = true
    if (--known.users === 0 && opened.get(path) === known) opened.delete(path)
    if (known.users === 0) known.control.then(control => control.close()).catch(() => {})
  }
  return known.control.then(
    () => ({ path, close: drop }),
    (error: unknown) => {
      drop()
      throw error
    },
  )
}

/** The option `control`. */
export const controlOption = (name: string, value: unknown): string => {
  if (typeof value === 'string' && value !== '' && Buffer.byteLength(value) <= LONGEST_PATH)
    return value
  throw new OptionError(name, value, `a path of 1 to ${LONGEST_PATH} octets`)
}

const kept = new Set<string>()

/**
 * Opens it until the process ends, for clients: their sockets come and go, and what was asked for is a look into the
 * process. A failure is a warning, since no connection depends on it. `by`: what names the path.
 */
export const keepControl = (path: string, by: string): void => {
  if (kept.has(path)) return
  kept.add(path)
  shareControl(path).then(
    ({ close }) => void process.once('exit', close),
    (error: Error) => process.emitWarning(`${by}: ${error.message}`, { code: 'IKE_CONTROL' }),
  )
}

let isAsked = false

/** Opens what `IKE_SOCKET_CONTROL` names, with the first endpoint of the process. */
export const openControlOnce = (): void => {
  if (isAsked) return
  isAsked = true
  const { IKE_SOCKET_CONTROL: path } = process.env
  if (path !== undefined && path !== '') keepControl(path, 'IKE_SOCKET_CONTROL')
}
